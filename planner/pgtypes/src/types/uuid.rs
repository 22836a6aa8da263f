//! uuid: 32 hexadecimal digits, a hyphen allowed after each four, braces around all.

use bytes::{BufMut, BytesMut};

use crate::error::ValueError;
use crate::types::integer::exact;

pub(crate) fn parse(input: &[u8]) -> Result<[u8; 16], ValueError> {
    read(input).ok_or_else(|| ValueError::syntax("uuid", input))
}

fn read(input: &[u8]) -> Option<[u8; 16]> {
    let mut rest = match input {
        [b'{', inner @ .., b'}'] => inner,
        _ => input,
    };
    let mut bytes = [0_u8; 16];
    for (place, byte) in bytes.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else { return None };
        *byte = (digit(*high)? << 4) | digit(*low)?;
        rest = after;
        if let [b'-', after @ ..] = rest
            && place % 2 == 1
            && place < 15
        {
            rest = after;
        }
    }
    rest.is_empty().then_some(bytes)
}

/// The value of a hexadecimal digit.
#[inline]
pub(crate) fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

pub(crate) const HEX: &[u8; 16] = b"0123456789abcdef";

pub(crate) fn write(value: &[u8], out: &mut BytesMut) {
    for (place, byte) in value.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            out.put_u8(b'-');
        }
        out.put_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

pub(crate) fn parse_binary(bytes: &[u8]) -> Result<[u8; 16], ValueError> {
    exact(bytes)
}
