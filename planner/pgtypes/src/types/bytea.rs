//! bytea: `\x` and hexadecimal digits, or the older escapes `\\` and `\ooo`.

use bytes::{BufMut, BytesMut};

use crate::error::{INVALID_PARAMETER, INVALID_TEXT, ValueError, lossy};
use crate::format::ByteaOutput;
use crate::types::is_space;
use crate::types::uuid::{HEX, digit};

pub(crate) fn parse(input: &[u8]) -> Result<Vec<u8>, ValueError> {
    match input {
        [b'\\', b'x', digits @ ..] => parse_hex(digits),
        _ => parse_escape(input),
    }
}

fn parse_hex(digits: &[u8]) -> Result<Vec<u8>, ValueError> {
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    let mut place = 0;
    while place < digits.len() {
        if is_space(digits[place]) {
            place += 1;
            continue;
        }
        let high = hex_digit(&digits[place..])?;
        if place + 1 >= digits.len() {
            return Err(ValueError::new(INVALID_PARAMETER, "invalid hexadecimal data: odd number of digits"));
        }
        let low = hex_digit(&digits[place + 1..])?;
        bytes.push((high << 4) | low);
        place += 2;
    }
    Ok(bytes)
}

fn hex_digit(rest: &[u8]) -> Result<u8, ValueError> {
    digit(rest[0]).ok_or_else(|| {
        // A character of several bytes is shown whole.
        let end = (1..rest.len().min(4)).find(|end| rest[*end] & 0xc0 != 0x80).unwrap_or(rest.len().min(4));
        ValueError::new(INVALID_PARAMETER, format!("invalid hexadecimal digit: \"{}\"", lossy(&rest[..end])))
    })
}

fn parse_escape(input: &[u8]) -> Result<Vec<u8>, ValueError> {
    let mut bytes = Vec::with_capacity(input.len());
    let mut rest = input;
    loop {
        match rest {
            [] => return Ok(bytes),
            [b'\\', b'\\', after @ ..] => {
                bytes.push(b'\\');
                rest = after;
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                bytes.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            [b'\\', ..] => return Err(ValueError::new(INVALID_TEXT, "invalid input syntax for type bytea")),
            [byte, after @ ..] => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
}

pub(crate) fn write(value: &[u8], output: ByteaOutput, out: &mut BytesMut) {
    match output {
        ByteaOutput::Hex => {
            out.reserve(2 + 2 * value.len());
            out.put_slice(b"\\x");
            for byte in value {
                out.put_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
        ByteaOutput::Escape => {
            for &byte in value {
                match byte {
                    b'\\' => out.put_slice(b"\\\\"),
                    0x20..=0x7e => out.put_u8(byte),
                    _ => out.put_slice(&[b'\\', b'0' + (byte >> 6), b'0' + ((byte >> 3) & 7), b'0' + (byte & 7)]),
                }
            }
        }
    }
}
