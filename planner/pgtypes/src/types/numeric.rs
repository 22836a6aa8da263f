//! numeric, held as an `i128` of 10^-scale units.
//!
//! With precision and scale, digits too many are rounded half away from zero. Without, we hold 22 digits before and 16
//! behind the point and refuse what does not fit, since PostgreSQL would keep it.

use bytes::{BufMut, BytesMut};
use meridian_proto::types::NUMERIC_UNLIMITED;

use crate::error::{INVALID_BINARY, OUT_OF_RANGE, ValueError};
use crate::types::trim;

/// Digits of an `i128` that are always safe.
const DIGITS_MAX: u32 = 38;
/// Digits that a `u64` holds without overflow.
const DIGITS_SAFE: usize = 18;
/// Exponents beyond give 0 or an overflow anyway.
const EXPONENT_MAX: i64 = 200_000;

/// Precision and scale of a type, `None` without limits.
pub(crate) type Limits = Option<(u8, i8)>;

/// A decimal number of any length: 0.`digits` x 10^`point`. `digits` holds values 0-9, the first not 0.
struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    point: i64,
}

#[inline]
pub(crate) fn parse(input: &[u8], limits: Limits) -> Result<i128, ValueError> {
    match parse_short(input, limits) {
        Some(value) => Ok(value),
        None => fit(&read(input)?, limits),
    }
}

/// `-?[0-9]+(\.[0-9]+)?` of at most 18 digits that fits without rounding.
#[inline]
fn parse_short(input: &[u8], limits: Limits) -> Option<i128> {
    let (precision, scale) = limits.unwrap_or(NUMERIC_UNLIMITED);
    let (is_negative, digits) = match input {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, input),
    };
    if digits.is_empty() || digits.len() > DIGITS_SAFE {
        return None;
    }
    let (mut size, mut fraction_digits, mut seen_point) = (0_u64, 0_i32, false);
    for (place, &byte) in digits.iter().enumerate() {
        if byte == b'.' && !seen_point && place > 0 {
            seen_point = true;
            continue;
        }
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        size = size * 10 + u64::from(digit);
        fraction_digits += i32::from(seen_point);
    }
    let missing = u32::try_from(i32::from(scale) - fraction_digits).ok()?;
    let value = i128::from(size).checked_mul(10_i128.checked_pow(missing)?)?;
    if value >= 10_i128.checked_pow(precision.into())? {
        return None;
    }
    Some(if is_negative { -value } else { value })
}

/// Parses any numeric literal.
#[cold]
fn read(input: &[u8]) -> Result<Decimal, ValueError> {
    let syntax = || ValueError::syntax("numeric", input);
    let trimmed = trim(input);
    let (is_negative, rest) = match trimmed {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, trimmed),
    };
    if is_word(rest, trimmed.len() != rest.len()) {
        return Err(no_such_value(rest));
    }
    let mark = rest.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(rest.len());
    let exponent = if mark == rest.len() { 0 } else { exponent(&rest[mark + 1..]).ok_or_else(syntax)? };
    let mantissa = &rest[..mark];
    let point = mantissa.iter().position(|b| *b == b'.').unwrap_or(mantissa.len());
    let fraction = mantissa.get(point + 1..).unwrap_or_default();
    let digits = || mantissa[..point].iter().chain(fraction);
    if digits().next().is_none() || !digits().all(u8::is_ascii_digit) {
        return Err(syntax());
    }
    let leading = digits().take_while(|b| **b == b'0').count();
    let digits = digits().skip(leading).map(|b| b - b'0').collect();
    Ok(Decimal { is_negative, digits, point: point as i64 - leading as i64 + exponent })
}

fn is_word(rest: &[u8], is_signed: bool) -> bool {
    let is = |word: &[u8]| rest.eq_ignore_ascii_case(word);
    (is(b"nan") && !is_signed) || is(b"infinity") || is(b"inf")
}

fn no_such_value(word: &[u8]) -> ValueError {
    let what = if word.eq_ignore_ascii_case(b"nan") { "NaN" } else { "an infinite value" };
    ValueError::new(OUT_OF_RANGE, "numeric field overflow").with_detail(format!("A numeric cannot hold {what} here."))
}

fn exponent(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = digits.iter().fold(0_i64, |v, d| (v * 10 + i64::from(d - b'0')).min(EXPONENT_MAX));
    Some(if is_negative { -size } else { size })
}

/// Rounds to the scale, checks the precision.
fn fit(decimal: &Decimal, limits: Limits) -> Result<i128, ValueError> {
    let (precision, scale) = limits.unwrap_or(NUMERIC_UNLIMITED);
    // Digits that are kept: those before the point and `scale` behind it.
    let kept = decimal.point + i64::from(scale);
    let significant = decimal.digits.iter().rposition(|d| *d != 0).map_or(0, |last| last as i64 + 1);
    if significant == 0 {
        return Ok(0);
    }
    if limits.is_none() && significant > kept {
        return Err(unlimited_overflow());
    }
    let overflow = || if limits.is_none() { unlimited_overflow() } else { overflow(precision, scale) };
    if kept > i64::from(DIGITS_MAX) {
        return Err(overflow());
    }
    let mut size = 0_i128;
    for place in 0..kept.max(0) {
        size = size * 10 + i128::from(decimal.digits.get(place as usize).copied().unwrap_or(0));
    }
    if kept >= 0 && decimal.digits.get(kept as usize).is_some_and(|d| *d >= 5) {
        size += 1;
    }
    if size >= 10_i128.pow(u32::from(precision).min(DIGITS_MAX)) {
        return Err(overflow());
    }
    Ok(if decimal.is_negative { -size } else { size })
}

fn overflow(precision: u8, scale: i8) -> ValueError {
    let whole = i32::from(precision) - i32::from(scale);
    let bound = if whole == 0 { "1".to_owned() } else { format!("10^{whole}") };
    ValueError::new(OUT_OF_RANGE, "numeric field overflow").with_detail(format!(
        "A field with precision {precision}, scale {scale} must round to an absolute value less than {bound}."
    ))
}

fn unlimited_overflow() -> ValueError {
    let (precision, scale) = NUMERIC_UNLIMITED;
    let whole = i32::from(precision) - i32::from(scale);
    ValueError::new(OUT_OF_RANGE, "numeric field overflow")
        .with_detail(format!("A numeric without precision holds {whole} digits before and {scale} behind the point."))
}

/// Brings a value of one scale to that of a type, with PostgreSQL's rounding.
pub fn rescale(value: i128, scale: i8, limits: Limits) -> Result<i128, ValueError> {
    let digits: Vec<u8> = value.unsigned_abs().to_string().bytes().map(|b| b - b'0').collect();
    let point = digits.len() as i64 - i64::from(scale);
    fit(&Decimal { is_negative: value < 0, digits, point }, limits)
}

/// Appends a value of `scale` with all its digits, or without trailing zeros behind the point.
pub(crate) fn write(value: i128, scale: i8, trimmed: bool, out: &mut BytesMut) {
    if value < 0 {
        out.put_u8(b'-');
    }
    let mut buffer = [0_u8; 40];
    let digits = digits_of(value.unsigned_abs(), &mut buffer);
    if scale <= 0 {
        out.put_slice(digits);
        if value != 0 {
            out.put_bytes(b'0', usize::from(scale.unsigned_abs()));
        }
        return;
    }
    let scale = usize::from(scale.unsigned_abs());
    let whole = digits.len().saturating_sub(scale);
    out.put_slice(if whole == 0 { b"0" } else { &digits[..whole] });
    let mut fraction = &digits[whole..];
    let mut padding = scale - fraction.len();
    if trimmed {
        while let [rest @ .., b'0'] = fraction {
            fraction = rest;
        }
        if fraction.is_empty() {
            padding = 0;
        }
    }
    if padding + fraction.len() > 0 {
        out.put_u8(b'.');
        out.put_bytes(b'0', padding);
        out.put_slice(fraction);
    }
}

fn digits_of(mut size: u128, buffer: &mut [u8; 40]) -> &[u8] {
    let mut start = buffer.len();
    loop {
        // Division of 128 bits is slow: leave it as soon as the rest is short.
        if let Ok(mut short) = u64::try_from(size) {
            loop {
                start -= 1;
                buffer[start] = b'0' + (short % 10) as u8;
                short /= 10;
                if short == 0 {
                    return &buffer[start..];
                }
            }
        }
        start -= 1;
        buffer[start] = b'0' + (size % 10) as u8;
        size /= 10;
    }
}

const SIGN_NEGATIVE: u16 = 0x4000;
const SIGNS_SPECIAL: [u16; 3] = [0xc000, 0xd000, 0xf000];
const DISPLAY_SCALE_MAX: u16 = 0x3fff;

/// Reads PostgreSQL's binary form: counts, weight, sign and display scale, then digits of base 10000.
pub(crate) fn parse_binary(bytes: &[u8], limits: Limits) -> Result<i128, ValueError> {
    let word = |place: usize| bytes.get(place * 2..place * 2 + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let (Some(count), Some(weight), Some(sign), Some(display_scale)) = (word(0), word(1), word(2), word(3)) else {
        return Err(ValueError::binary_length(bytes.len(), 8));
    };
    let invalid = |part: &str| ValueError::new(INVALID_BINARY, format!("invalid {part} in external \"numeric\" value"));
    if SIGNS_SPECIAL.contains(&sign) {
        return Err(no_such_value(if sign == 0xc000 { b"nan" } else { b"inf" }));
    }
    if sign != 0 && sign != SIGN_NEGATIVE {
        return Err(invalid("sign"));
    }
    if display_scale > DISPLAY_SCALE_MAX {
        return Err(invalid("scale"));
    }
    let expected = 8 + 2 * usize::from(count);
    if bytes.len() != expected {
        return Err(ValueError::binary_length(bytes.len(), expected));
    }
    let mut digits = Vec::with_capacity(usize::from(count) * 4);
    for place in 0..usize::from(count) {
        let digit = word(4 + place).filter(|d| *d < 10_000).ok_or_else(|| invalid("digit"))?;
        digits.extend([digit / 1000, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|d| d as u8));
    }
    let mut point = (i64::from(weight as i16) + 1) * 4;
    // Digits behind the display scale are cut, as PostgreSQL cuts them.
    let shown = (point + i64::from(display_scale)).clamp(0, digits.len() as i64);
    digits.truncate(shown as usize);
    let leading = digits.iter().take_while(|d| **d == 0).count();
    digits.drain(..leading);
    point -= leading as i64;
    fit(&Decimal { is_negative: sign == SIGN_NEGATIVE, digits, point }, limits)
}

/// Appends the binary form of a decimal text as [`write`] prints it.
pub(crate) fn write_binary_text(text: &[u8], out: &mut BytesMut) {
    let (is_negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mark = text.iter().position(|b| *b == b'.').unwrap_or(text.len());
    let (whole, fraction) = (&text[..mark], text.get(mark + 1..).unwrap_or_default());
    // Digits of base 10000 on both sides of the point, the outer ones padded with zeros.
    let mut groups: Vec<u16> = Vec::with_capacity(text.len() / 4 + 2);
    let number = |digits: &[u8]| digits.iter().fold(0_u16, |v, d| v * 10 + u16::from(d - b'0'));
    let (head, body) = whole.split_at(whole.len() % 4);
    if !head.is_empty() {
        groups.push(number(head));
    }
    groups.extend(body.chunks(4).map(number));
    let mut weight = groups.len() as i16 - 1;
    for chunk in fraction.chunks(4) {
        groups.push(number(chunk) * 10_u16.pow(4 - chunk.len() as u32));
    }
    let leading = groups.iter().take_while(|g| **g == 0).count();
    weight -= leading as i16;
    let mut groups = &groups[leading..];
    while let [rest @ .., 0] = groups {
        groups = rest;
    }
    if groups.is_empty() {
        weight = 0;
    }
    out.put_u16(groups.len() as u16);
    out.put_i16(weight);
    out.put_u16(if is_negative && !groups.is_empty() { SIGN_NEGATIVE } else { 0 });
    out.put_u16(fraction.len() as u16);
    for group in groups {
        out.put_u16(*group);
    }
}

pub(crate) fn write_binary(value: i128, scale: i8, trimmed: bool, out: &mut BytesMut) {
    let mut text = BytesMut::with_capacity(48);
    write(value, scale, trimmed, &mut text);
    write_binary_text(&text, out);
}
