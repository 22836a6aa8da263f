//! smallint, integer, bigint: decimal digits with a sign, spaces around them.

use bytes::BufMut;

use crate::error::ValueError;
use crate::types::trim;

/// Digits that never overflow an `i64`.
const DIGITS_SAFE: usize = 18;

/// Parses an integer between `min` and `max`.
#[inline]
pub(crate) fn parse(input: &[u8], min: i64, max: i64, type_name: &str) -> Result<i64, ValueError> {
    match parse_short(input) {
        Some(value) if value >= min && value <= max => Ok(value),
        Some(_) => Err(ValueError::range(type_name, input)),
        None => parse_any(input, min, max, type_name),
    }
}

/// `-?[0-9]{1,18}`, what nearly every input is.
#[inline]
fn parse_short(input: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match input {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, input),
    };
    if digits.is_empty() || digits.len() > DIGITS_SAFE {
        return None;
    }
    let mut value = 0_i64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if is_negative { -value } else { value })
}

#[cold]
fn parse_any(input: &[u8], min: i64, max: i64, type_name: &str) -> Result<i64, ValueError> {
    let trimmed = trim(input);
    let (is_negative, digits) = match trimmed {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, trimmed),
    };
    if digits.is_empty() {
        return Err(ValueError::syntax(type_name, input));
    }
    let mut value = Some(0_i64);
    for (place, &byte) in digits.iter().enumerate() {
        if !byte.is_ascii_digit() {
            // PostgreSQL stops at the digit that overflows, before it sees what comes behind.
            let error = if overflows(&digits[..place], min) { ValueError::range } else { ValueError::syntax };
            return Err(error(type_name, input));
        }
        let digit = i64::from(byte - b'0');
        // Negative all along, since the least value has no positive twin.
        value = value.and_then(|v| v.checked_mul(10)).and_then(|v| v.checked_sub(digit));
    }
    let value = if is_negative { value } else { value.and_then(i64::checked_neg) };
    value.filter(|v| *v >= min && *v <= max).ok_or_else(|| ValueError::range(type_name, input))
}

fn overflows(digits: &[u8], min: i64) -> bool {
    let significant = digits.iter().skip_while(|d| **d == b'0').count();
    let size = digits.iter().fold(0_i128, |v, d| v.saturating_mul(10).saturating_add(i128::from(d - b'0')));
    significant > 19 || -size < i128::from(min)
}

const PAIRS: &[u8; 200] =
    b"0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849\
5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

/// Appends a number's decimal digits.
#[inline]
pub(crate) fn write_u64(mut value: u64, out: &mut impl BufMut) {
    let mut buffer = [0_u8; 20];
    let mut start = buffer.len();
    while value >= 100 {
        let pair = (value % 100) as usize * 2;
        value /= 100;
        start -= 2;
        buffer[start..start + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if value >= 10 {
        let pair = value as usize * 2;
        start -= 2;
        buffer[start..start + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    } else {
        start -= 1;
        buffer[start] = b'0' + value as u8;
    }
    out.put_slice(&buffer[start..]);
}

#[inline]
pub(crate) fn write(value: i64, out: &mut impl BufMut) {
    if value < 0 {
        out.put_u8(b'-');
    }
    write_u64(value.unsigned_abs(), out);
}

/// Appends two digits of a number below 100.
#[inline]
pub(crate) fn write_two(value: u32, out: &mut impl BufMut) {
    let pair = (value % 100) as usize * 2;
    out.put_slice(&PAIRS[pair..pair + 2]);
}

/// The bytes of a fixed-size binary value.
#[inline]
pub(crate) fn exact<const N: usize>(bytes: &[u8]) -> Result<[u8; N], ValueError> {
    bytes.try_into().map_err(|_| ValueError::binary_length(bytes.len(), N))
}
