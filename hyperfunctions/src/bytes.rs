//! `encode` and `decode`: bytes as hex, base64 or escaped text, as encode.c of PostgreSQL has them; `octet_length` of both.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int32Array, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err, internal_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::made::column_of;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const HEX: &[u8; 16] = b"0123456789abcdef";
/// Characters of a line of base64.
const LINE: usize = 76;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Encode,
    Decode,
    Length,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Hex,
    Base64,
    Escape,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ByteFunction {
    kind: Kind,
    signature: Signature,
}

/// All of them.
#[must_use]
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |kind| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(ByteFunction { kind, signature }))
    };
    [Kind::Encode, Kind::Decode, Kind::Length].into_iter().map(function).collect()
}

fn is_text(data_type: &DataType) -> bool {
    data_type.is_string() || data_type.is_null()
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

impl ScalarUDFImpl for ByteFunction {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Encode => "encode",
            Kind::Decode => "decode",
            Kind::Length => "octet_length",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.kind, types) {
            (Kind::Encode, [bytes, encoding]) if (is_bytes(bytes) || bytes.is_null()) && is_text(encoding) => {
                return Ok(vec![DataType::Binary, DataType::Utf8]);
            }
            (Kind::Decode, [text, encoding]) if is_text(text) && is_text(encoding) => {
                return Ok(vec![DataType::Utf8, DataType::Utf8]);
            }
            (Kind::Length, [text]) if is_text(text) => return Ok(vec![DataType::Utf8]),
            (Kind::Length, [bytes]) if is_bytes(bytes) => return Ok(vec![DataType::Binary]),
            _ => {}
        }
        let types: Vec<_> = types.iter().map(ToString::to_string).collect();
        plan_err!("function {}({}) does not exist", self.name(), types.join(", "))
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Encode => DataType::Utf8,
            Kind::Decode => DataType::Binary,
            Kind::Length => DataType::Int32,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let whole = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if whole { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|arg| column_of(arg, rows)).collect::<Result<Vec<_>>>()?;
        let result: ArrayRef = match (self.kind, columns.as_slice()) {
            (Kind::Encode, [values, encodings]) => {
                let rows = values.as_binary::<i32>().iter().zip(encodings.as_string::<i32>());
                let rows = rows.map(|(bytes, name)| bytes.zip(name).map(|(b, name)| encode(b, name)).transpose());
                Arc::new(rows.collect::<Result<StringArray>>()?)
            }
            (Kind::Decode, [values, encodings]) => {
                let rows = values.as_string::<i32>().iter().zip(encodings.as_string::<i32>());
                let rows = rows.map(|(text, name)| text.zip(name).map(|(text, name)| decode(text, name)).transpose());
                Arc::new(rows.collect::<Result<BinaryArray>>()?)
            }
            (Kind::Length, [values]) => match values.data_type() {
                DataType::Binary => lengths(values.as_binary::<i32>().iter().map(|value| value.map(<[u8]>::len))),
                _ => lengths(values.as_string::<i32>().iter().map(|value| value.map(str::len))),
            },
            _ => return internal_err!("{} with {} arguments", self.name(), args.args.len()),
        };
        if whole {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

fn lengths(values: impl Iterator<Item = Option<usize>>) -> ArrayRef {
    // A value of an array with 32-bit offsets is no longer than they tell.
    Arc::new(values.map(|length| length.map(|length| length as i32)).collect::<Int32Array>())
}

fn parse_encoding(name: &str) -> Result<Encoding> {
    match name.to_ascii_lowercase().as_str() {
        "hex" => Ok(Encoding::Hex),
        "base64" => Ok(Encoding::Base64),
        "escape" => Ok(Encoding::Escape),
        _ => exec_err!("unrecognized encoding: \"{name}\""),
    }
}

fn encode(bytes: &[u8], name: &str) -> Result<String> {
    let mut text = String::with_capacity(bytes.len() * 2);
    match parse_encoding(name)? {
        Encoding::Hex => {
            for byte in bytes {
                text.extend([byte >> 4, byte & 15].map(|digit| char::from(HEX[usize::from(digit)])));
            }
        }
        Encoding::Base64 => encode_base64(bytes, &mut text),
        Encoding::Escape => {
            for &byte in bytes {
                match byte {
                    0 | 128.. => text.push_str(&format!("\\{byte:03o}")),
                    b'\\' => text.push_str("\\\\"),
                    byte => text.push(char::from(byte)),
                }
            }
        }
    }
    Ok(text)
}

fn encode_base64(bytes: &[u8], text: &mut String) {
    let mut column = 0;
    for group in bytes.chunks(3) {
        if column == LINE {
            text.push('\n');
            column = 0;
        }
        let word = group.iter().enumerate().fold(0_u32, |word, (i, byte)| word | u32::from(*byte) << (16 - 8 * i));
        for place in 0..4 {
            let digit = BASE64[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
        column += 4;
    }
}

fn decode(text: &str, name: &str) -> Result<Vec<u8>> {
    match parse_encoding(name)? {
        Encoding::Hex => decode_hex(text),
        Encoding::Base64 => decode_base64(text),
        Encoding::Escape => decode_escape(text.as_bytes()),
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\n' | '\t' | '\r')
}

fn decode_hex(text: &str) -> Result<Vec<u8>> {
    let mut digits = Vec::with_capacity(text.len());
    for c in text.chars().filter(|c| !is_blank(*c)) {
        match c.to_digit(16) {
            Some(digit) => digits.push(digit as u8),
            None => return exec_err!("invalid hexadecimal digit: \"{c}\""),
        }
    }
    if digits.len() % 2 == 1 {
        return exec_err!("invalid hexadecimal data: odd number of digits");
    }
    Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn decode_base64(text: &str) -> Result<Vec<u8>> {
    let (mut bytes, mut word, mut digits, mut padding) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0, 0);
    for c in text.chars().filter(|c| !is_blank(*c)) {
        let digit = if c == '=' {
            if digits < 2 {
                return exec_err!("invalid: unexpected \"=\" while decoding base64 sequence");
            }
            padding += 1;
            0
        } else {
            let place = BASE64.iter().position(|digit| char::from(*digit) == c).filter(|_| padding == 0);
            match place {
                Some(place) => place as u32,
                None => return exec_err!("invalid symbol \"{c}\" found while decoding base64 sequence"),
            }
        };
        word = word << 6 | digit;
        digits += 1;
        if digits == 4 {
            let group = [(word >> 16) as u8, (word >> 8) as u8, word as u8];
            bytes.extend_from_slice(&group[..3_usize.saturating_sub(padding)]);
            (word, digits) = (0, 0);
        }
    }
    if digits != 0 {
        return exec_err!("invalid base64 end sequence");
    }
    Ok(bytes)
}

fn decode_escape(text: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        match rest {
            [] => return Ok(bytes),
            [b'\\', b'\\', after @ ..] => {
                bytes.push(b'\\');
                rest = after;
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            [b'\\', ..] => return exec_err!("invalid input syntax for type bytea"),
            [byte, after @ ..] => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_goes_both_ways() {
        let bytes: Vec<u8> = (0..=255).collect();
        for name in ["hex", "base64", "escape"] {
            for length in [0, 1, 2, 3, 57, 58, 256] {
                let text = encode(&bytes[..length], name).unwrap();
                assert_eq!(decode(&text, name).unwrap(), &bytes[..length], "{length} bytes as {name}");
            }
        }
    }

    #[test]
    fn texts_are_postgresqls() {
        assert_eq!(encode(b"\x00\xff", "hex").unwrap(), "00ff");
        assert_eq!(encode(b"\x00\xff", "base64").unwrap(), "AP8=");
        assert_eq!(encode(b"\x00\xffa\\", "escape").unwrap(), "\\000\\377a\\\\");
        // A line has 76 characters, and the last one no end.
        let lines = encode(&[0; 57 * 2], "base64").unwrap();
        assert_eq!(lines.split('\n').map(str::len).collect::<Vec<_>>(), [76, 76]);
        assert_eq!(decode(" 00 FF\n", "hex").unwrap(), b"\x00\xff");
        for (text, name) in [("0g", "hex"), ("0", "hex"), ("A", "base64"), ("A===", "base64"), ("\\9", "escape")] {
            assert!(decode(text, name).is_err(), "{text} as {name}");
        }
        assert!(encode(b"", "rot13").is_err());
    }
}
