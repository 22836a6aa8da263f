//! real and double precision: the shortest text that reads back as the same float, `Infinity`, `NaN`; in: what `strtod`
//! takes.

use std::io::Write as _;

use bytes::{BufMut, BytesMut};

use crate::error::{OUT_OF_RANGE, ValueError, lossy};
use crate::types::{integer, trim};

/// Powers of ten that a double holds exactly.
const POWERS_F64: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
/// Powers of ten that a float holds exactly.
const POWERS_F32: [f32; 11] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];
/// Digits that a `u64` holds without overflow.
const DIGITS_SAFE: usize = 18;

#[inline]
pub(crate) fn parse_f64(input: &[u8]) -> Result<f64, ValueError> {
    // Both operands are exact, so that the one division rounds correctly.
    if let Some(short) = short_decimal(input)
        && short.mantissa <= 1 << 53
        && short.scale < POWERS_F64.len()
    {
        let size = short.mantissa as f64 / POWERS_F64[short.scale];
        return Ok(if short.is_negative { -size } else { size });
    }
    parse_f64_any(input)
}

#[inline]
pub(crate) fn parse_f32(input: &[u8]) -> Result<f32, ValueError> {
    if let Some(short) = short_decimal(input)
        && short.mantissa <= 1 << 24
        && short.scale < POWERS_F32.len()
    {
        let size = short.mantissa as f32 / POWERS_F32[short.scale];
        return Ok(if short.is_negative { -size } else { size });
    }
    parse_f32_any(input)
}

struct ShortDecimal {
    is_negative: bool,
    mantissa: u64,
    /// Digits behind the point.
    scale: usize,
}

/// `-?[0-9]+(\.[0-9]*)?` of at most 18 digits, what nearly every input is.
#[inline]
fn short_decimal(input: &[u8]) -> Option<ShortDecimal> {
    let (is_negative, digits) = match input {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, input),
    };
    if digits.is_empty() || digits.len() > DIGITS_SAFE {
        return None;
    }
    let mut mantissa = 0_u64;
    for (place, &byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            mantissa = mantissa * 10 + u64::from(digit);
            continue;
        }
        if byte != b'.' || place == 0 {
            return None;
        }
        let fraction = &digits[place + 1..];
        for &byte in fraction {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            mantissa = mantissa * 10 + u64::from(digit);
        }
        return Some(ShortDecimal { is_negative, mantissa, scale: fraction.len() });
    }
    Some(ShortDecimal { is_negative, mantissa, scale: 0 })
}

#[cold]
fn parse_f64_any(input: &[u8]) -> Result<f64, ValueError> {
    let text = number_text(input, "double precision")?;
    let value = match hexadecimal(text) {
        Some(value) => value,
        None => text.parse::<f64>().map_err(|_| ValueError::syntax("double precision", input))?,
    };
    let is_word = text.bytes().any(|byte| matches!(byte, b'n' | b'N'));
    if (value.is_infinite() && !is_word) || (value == 0.0 && has_value(text)) {
        return Err(out_of_range(trim(input), "double precision"));
    }
    Ok(value)
}

#[cold]
fn parse_f32_any(input: &[u8]) -> Result<f32, ValueError> {
    let text = number_text(input, "real")?;
    let value = match hexadecimal(text) {
        Some(value) => value as f32,
        None => text.parse::<f32>().map_err(|_| ValueError::syntax("real", input))?,
    };
    let is_word = text.bytes().any(|byte| matches!(byte, b'n' | b'N'));
    if (value.is_infinite() && !is_word) || (value == 0.0 && has_value(text)) {
        return Err(out_of_range(trim(input), "real"));
    }
    Ok(value)
}

fn number_text<'a>(input: &'a [u8], type_name: &str) -> Result<&'a str, ValueError> {
    std::str::from_utf8(trim(input)).map_err(|_| ValueError::syntax(type_name, input))
}

fn out_of_range(input: &[u8], type_name: &str) -> ValueError {
    ValueError::new(OUT_OF_RANGE, format!("\"{}\" is out of range for type {type_name}", lossy(input)))
}

/// Whether a number that became 0 is written with other digits than 0.
fn has_value(text: &str) -> bool {
    let mantissa =
        if text.contains(['x', 'X']) { text.split(['p', 'P', 'x', 'X']).nth(1) } else { text.split(['e', 'E']).next() };
    mantissa.is_some_and(|digits| digits.bytes().any(|b| b != b'0' && b.is_ascii_hexdigit()))
}

/// C's hexadecimal floats, `0x1.8p3`; exact up to 15 digits.
fn hexadecimal(text: &str) -> Option<f64> {
    let (sign, size) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    let digits = size.strip_prefix("0x").or_else(|| size.strip_prefix("0X"))?;
    let (mantissa, exponent) = match digits.split_once(['p', 'P']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let joined = format!("{whole}{fraction}");
    if joined.is_empty() || joined.len() > 15 || !joined.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let value = i64::from_str_radix(&joined, 16).ok()? as f64;
    let shift = exponent.checked_sub(i32::try_from(fraction.len()).ok()? * 4)?.clamp(-2000, 2000);
    // In two steps: a single power can leave the range where the product does not.
    Some(sign * value * 2_f64.powi(shift / 2) * 2_f64.powi(shift - shift / 2))
}

/// Significant digits of a double and of a float that survive a trip through text.
const DIGITS_F64: i32 = 15;
const DIGITS_F32: i32 = 6;

pub(crate) fn write_f64(value: f64, extra_float_digits: i32, out: &mut BytesMut) {
    if let Some(word) = special(value) {
        return out.put_slice(word);
    }
    let mut buffer = [0_u8; 40];
    if extra_float_digits > 0 {
        // Numbers that are exact and short, as metrics often are, need no search for digits.
        if let Some(whole) = as_integer(value) {
            return integer::write(whole, out);
        }
        if let Some(decimal) = as_decimal(value) {
            return write_decimal(decimal, out);
        }
        let mut digits = scientific(&mut buffer, format_args!("{value:e}"));
        let mut other = [0_u8; 40];
        let bits = value.to_bits();
        if bits & 1 == 0 && is_halfway(digits, bits & ((1 << 52) - 1), bits >> 52, 52) {
            digits = strictly_inside_f64(&mut other, value).unwrap_or(digits);
        }
        write_scientific(digits, -4, DIGITS_F64, out);
    } else {
        let precision = (DIGITS_F64 + extra_float_digits).max(1);
        let digits = scientific(&mut buffer, format_args!("{value:.*e}", precision as usize - 1));
        write_scientific(digits, -4, precision, out);
    }
}

pub(crate) fn write_f32(value: f32, extra_float_digits: i32, out: &mut BytesMut) {
    if let Some(word) = special(f64::from(value)) {
        return out.put_slice(word);
    }
    let mut buffer = [0_u8; 40];
    if extra_float_digits > 0 {
        let mut digits = scientific(&mut buffer, format_args!("{value:e}"));
        let mut other = [0_u8; 40];
        let bits = u64::from(value.to_bits());
        if bits & 1 == 0 && is_halfway(digits, bits & ((1 << 23) - 1), bits >> 23 & 0xff, 23) {
            digits = strictly_inside_f32(&mut other, value).unwrap_or(digits);
        }
        write_scientific(digits, -4, DIGITS_F32, out);
    } else {
        let precision = (DIGITS_F32 + extra_float_digits).max(1);
        let digits = scientific(&mut buffer, format_args!("{value:.*e}", precision as usize - 1));
        write_scientific(digits, -4, precision, out);
    }
}

/// Decimals of at most so many digits are told apart by a double.
const DECIMALS_MAX: f64 = 1e15;
/// Digits behind the point of a [`Decimal`].
const FRACTION_DIGITS: usize = 4;
const FRACTION: u64 = 10_u64.pow(FRACTION_DIGITS as u32);

/// A whole number with a sign that its digits show (which -0 has not), short enough to be written as it is.
#[inline]
pub(crate) fn as_integer(value: f64) -> Option<i64> {
    let whole = value as i64;
    ((whole as f64).to_bits() == value.to_bits() && value.abs() < DECIMALS_MAX).then_some(whole)
}

/// A number of few digits behind the point, not all of them zero.
#[derive(Clone, Copy)]
pub(crate) struct Decimal {
    is_negative: bool,
    /// In units of the last digit.
    size: u64,
}

/// The decimal that reads back as this double, where one of up to 15 digits does: no two of those read as the same double,
/// so that it is the shortest.
#[inline]
pub(crate) fn as_decimal(value: f64) -> Option<Decimal> {
    let scaled = value.abs() * FRACTION as f64;
    let size = (scaled + 0.5) as u64;
    let is_exact =
        scaled < DECIMALS_MAX && !size.is_multiple_of(FRACTION) && size as f64 / FRACTION as f64 == value.abs();
    is_exact.then_some(Decimal { is_negative: value < 0.0, size })
}

#[inline]
pub(crate) fn write_decimal(decimal: Decimal, out: &mut impl BufMut) {
    if decimal.is_negative {
        out.put_u8(b'-');
    }
    integer::write_u64(decimal.size / FRACTION, out);
    let fraction = (decimal.size % FRACTION) as u32;
    let mut digits = [b'.'; 1 + FRACTION_DIGITS];
    let mut end = 1 + FRACTION_DIGITS;
    for (place, digit) in digits[1..].iter_mut().enumerate() {
        *digit = b'0' + (fraction / 10_u32.pow((FRACTION_DIGITS - 1 - place) as u32) % 10) as u8;
    }
    while digits[end - 1] == b'0' {
        end -= 1;
    }
    out.put_slice(&digits[..end]);
}

fn special(value: f64) -> Option<&'static [u8]> {
    if value.is_nan() {
        return Some(b"NaN");
    }
    if value.is_infinite() {
        return Some(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    None
}

/// Digits without trailing zeros; the value is 0.d1d2d3.. x 10^(exponent + 1).
#[derive(Clone, Copy)]
struct Digits<'a> {
    is_negative: bool,
    digits: &'a [u8],
    exponent: i32,
}

/// Takes `-d.ddde-x`, as Rust prints it, apart.
fn scientific<'a>(buffer: &'a mut [u8; 40], number: std::fmt::Arguments<'_>) -> Digits<'a> {
    let mut rest = &mut buffer[..];
    // 17 digits, sign, point and exponent fit in 25 bytes.
    let fits = rest.write_fmt(number);
    debug_assert!(fits.is_ok(), "a float's text is short");
    let length = 40 - rest.len();
    let is_negative = buffer[0] == b'-';
    let start = usize::from(is_negative);
    let mark = buffer[..length].iter().position(|b| *b == b'e').unwrap_or(length);
    let exponent = std::str::from_utf8(&buffer[(mark + 1).min(length)..length]).ok().and_then(|e| e.parse().ok());
    let mut end = mark;
    if buffer[start + 1] == b'.' {
        buffer.copy_within(start + 2..mark, start + 1);
        end -= 1;
    }
    while end > start + 1 && buffer[end - 1] == b'0' {
        end -= 1;
    }
    Digits { is_negative, digits: &buffer[start..end], exponent: exponent.unwrap_or(0) }
}

/// Prints as C's `%g` does: positional for exponents from `low` up to, not including, `high`.
fn write_scientific(number: Digits<'_>, low: i32, high: i32, out: &mut BytesMut) {
    let Digits { is_negative, digits, exponent } = number;
    if is_negative {
        out.put_u8(b'-');
    }
    if exponent < low || exponent >= high {
        out.put_u8(digits[0]);
        if digits.len() > 1 {
            out.put_u8(b'.');
            out.put_slice(&digits[1..]);
        }
        out.put_slice(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.abs() < 10 {
            out.put_u8(b'0');
        }
        return integer::write_u64(u64::from(exponent.unsigned_abs()), out);
    }
    if exponent < 0 {
        out.put_slice(b"0.");
        out.put_bytes(b'0', (-exponent - 1) as usize);
        return out.put_slice(digits);
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        out.put_slice(digits);
        out.put_bytes(b'0', whole - digits.len());
    } else {
        out.put_slice(&digits[..whole]);
        out.put_u8(b'.');
        out.put_slice(&digits[whole..]);
    }
}

/// Whether the digits lie exactly between the float and a neighbour. Rust takes such digits for an even mantissa, since
/// reading them back rounds to even; PostgreSQL never does, for readers that round otherwise.
///
/// `exponent` holds the biased exponent in its low 11 bits.
fn is_halfway(number: Digits<'_>, fraction: u64, exponent: u64, mantissa_bits: u32) -> bool {
    let biased = (exponent & 0x7ff) as i32;
    let bias = if mantissa_bits == 52 { 1075 } else { 150 };
    let (mantissa, power) =
        if biased == 0 { (fraction, 1 - bias) } else { (fraction | 1 << mantissa_bits, biased - bias) };
    let Some(decimal) = number.digits.iter().try_fold(0_u128, |v, d| v.checked_mul(10)?.checked_add((d - b'0').into()))
    else {
        return false;
    };
    let decimal_power = number.exponent + 1 - number.digits.len() as i32;
    // A lower neighbour of a power of two is only half as far: its middle is a quarter step below.
    let quarters = u128::from(mantissa) * 4;
    if quarters == 0 {
        return false;
    }
    [quarters + 2, quarters - 2, quarters - 1].iter().any(|middle| is_equal(decimal, decimal_power, *middle, power - 2))
}

/// Whether `a` x 10^`a_power` = `b` x 2^`b_power`.
fn is_equal(a: u128, a_power: i32, b: u128, b_power: i32) -> bool {
    // Compare odd parts, powers of five and powers of two: a x 5^p x 2^p = b x 2^q.
    let five = |size: u32| 5_u128.checked_pow(size);
    let (left, right) = if a_power >= 0 {
        let Some(left) = five(a_power.unsigned_abs()).and_then(|f| a.checked_mul(f)) else { return false };
        (left, b)
    } else {
        let Some(right) = five(a_power.unsigned_abs()).and_then(|f| b.checked_mul(f)) else { return false };
        (a, right)
    };
    if left == 0 || right == 0 {
        return left == right;
    }
    let (left_twos, right_twos) = (left.trailing_zeros() as i32, right.trailing_zeros() as i32);
    left >> left_twos == right >> right_twos && a_power + left_twos == b_power + right_twos
}

fn strictly_inside_f64(buffer: &mut [u8; 40], value: f64) -> Option<Digits<'_>> {
    let precision = (0..17).find(|precision| {
        let mut scratch = [0_u8; 40];
        let text = format!("{value:.precision$e}");
        let digits = scientific(&mut scratch, format_args!("{text}"));
        let bits = value.to_bits();
        text.parse() == Ok(value) && !is_halfway(digits, bits & ((1 << 52) - 1), bits >> 52, 52)
    })?;
    Some(scientific(buffer, format_args!("{value:.precision$e}")))
}

fn strictly_inside_f32(buffer: &mut [u8; 40], value: f32) -> Option<Digits<'_>> {
    let precision = (0..9).find(|precision| {
        let mut scratch = [0_u8; 40];
        let text = format!("{value:.precision$e}");
        let digits = scientific(&mut scratch, format_args!("{text}"));
        let bits = u64::from(value.to_bits());
        text.parse() == Ok(value) && !is_halfway(digits, bits & ((1 << 23) - 1), bits >> 23 & 0xff, 23)
    })?;
    Some(scientific(buffer, format_args!("{value:.precision$e}")))
}
