//! Arrays of one dimension: `{1,2,NULL,"a b"}`.

use bytes::{BufMut, BytesMut};

use crate::error::{INVALID_BINARY, INVALID_TEXT, NOT_SUPPORTED, PROTOCOL_VIOLATION, TOO_LARGE, ValueError, lossy};
use crate::types::is_space;

/// An element of an array literal: its text without quotes and escapes, `None` for NULL.
pub(crate) type Element = Option<Vec<u8>>;

/// Splits an array literal into its elements.
pub(crate) fn parse(input: &[u8]) -> Result<Vec<Element>, ValueError> {
    let mut reader = Reader { input, place: 0 };
    reader.skip_spaces();
    let dimension = reader.dimension()?;
    if reader.peek() != Some(b'{') {
        let detail = if dimension.is_some() {
            "Array contents must start with \"{\"."
        } else {
            "Array value must start with \"{\" or dimension information."
        };
        return Err(reader.malformed(detail));
    }
    reader.place += 1;
    let elements = reader.elements()?;
    reader.skip_spaces();
    if reader.peek().is_some() {
        return Err(reader.malformed("Junk after closing right brace."));
    }
    let Some((low, length)) = dimension else { return Ok(elements) };
    if length != elements.len() as i64 {
        return Err(reader.malformed("Specified array dimensions do not match array contents."));
    }
    if low == 1 { Ok(elements) } else { Err(other_start()) }
}

struct Reader<'a> {
    input: &'a [u8],
    place: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.input.get(self.place).copied()
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.place += 1;
        }
    }

    fn malformed(&self, detail: &str) -> ValueError {
        ValueError::new(INVALID_TEXT, format!("malformed array literal: \"{}\"", lossy(self.input))).with_detail(detail)
    }

    /// `[2:4]=` in front: where the array starts, and its length.
    fn dimension(&mut self) -> Result<Option<(i64, i64)>, ValueError> {
        if self.peek() != Some(b'[') {
            return Ok(None);
        }
        let rest = &self.input[self.place + 1..];
        let missing = || self.malformed("Missing \"]\" after array dimensions.");
        let end = rest.iter().position(|b| *b == b']').ok_or_else(missing)?;
        let text = String::from_utf8_lossy(&rest[..end]);
        let (low, high) = text.split_once(':').unwrap_or(("1", &text));
        let bound = |text: &str| text.trim().parse::<i32>().map(i64::from);
        let (Ok(low), Ok(high)) = (bound(low), bound(high)) else {
            return Err(self.malformed("\"[\" must introduce explicitly-specified array dimensions."));
        };
        if high < low {
            return Err(ValueError::new("2202E", "upper bound cannot be less than lower bound"));
        }
        self.place += end + 2;
        self.skip_spaces();
        if self.peek() == Some(b'[') {
            return Err(several_dimensions());
        }
        if self.peek() != Some(b'=') {
            return Err(self.malformed("Missing \"=\" after array dimensions."));
        }
        self.place += 1;
        self.skip_spaces();
        Ok(Some((low, high - low + 1)))
    }

    fn elements(&mut self) -> Result<Vec<Element>, ValueError> {
        let mut elements = Vec::new();
        self.skip_spaces();
        if self.peek() == Some(b'}') {
            self.place += 1;
            return Ok(elements);
        }
        loop {
            self.skip_spaces();
            elements.push(self.element()?);
            self.skip_spaces();
            match self.peek() {
                Some(b',') => self.place += 1,
                Some(b'}') => {
                    self.place += 1;
                    return Ok(elements);
                }
                Some(b'{') => return Err(self.malformed("Unexpected \"{\" character.")),
                Some(_) => return Err(self.malformed("Unexpected array element.")),
                None => return Err(self.malformed("Unexpected end of input.")),
            }
        }
    }

    fn element(&mut self) -> Result<Element, ValueError> {
        match self.peek() {
            Some(b'"') => self.quoted().map(Some),
            Some(b'{') => Err(several_dimensions()),
            Some(other @ (b',' | b'}')) => {
                Err(self.malformed(&format!("Unexpected \"{}\" character.", char::from(other))))
            }
            None => Err(self.malformed("Unexpected end of input.")),
            Some(_) => self.unquoted(),
        }
    }

    fn quoted(&mut self) -> Result<Vec<u8>, ValueError> {
        let mut value = Vec::new();
        self.place += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.place += 1;
                    return Ok(value);
                }
                Some(b'\\') => {
                    let escaped = self.input.get(self.place + 1);
                    value.push(*escaped.ok_or_else(|| self.malformed("Unexpected end of input."))?);
                    self.place += 2;
                }
                Some(byte) => {
                    value.push(byte);
                    self.place += 1;
                }
                None => return Err(self.malformed("Unexpected end of input.")),
            }
        }
    }

    /// Up to a comma or brace; spaces at the end are not part of it unless escaped.
    fn unquoted(&mut self) -> Result<Element, ValueError> {
        let (mut value, mut kept, mut has_escape) = (Vec::new(), 0, false);
        loop {
            match self.peek() {
                Some(b',' | b'}') => break,
                Some(b'\\') => {
                    let escaped = self.input.get(self.place + 1);
                    value.push(*escaped.ok_or_else(|| self.malformed("Unexpected end of input."))?);
                    kept = value.len();
                    has_escape = true;
                    self.place += 2;
                }
                Some(b'"') => return Err(self.malformed("Unexpected array element.")),
                Some(b'{') => return Err(self.malformed("Unexpected \"{\" character.")),
                Some(byte) => {
                    value.push(byte);
                    if !is_space(byte) {
                        kept = value.len();
                    }
                    self.place += 1;
                }
                None => return Err(self.malformed("Unexpected end of input.")),
            }
        }
        value.truncate(kept);
        let is_null = !has_escape && value.eq_ignore_ascii_case(b"null");
        Ok((!is_null).then_some(value))
    }
}

/// Where an array starts is not kept: better refused than moved.
fn other_start() -> ValueError {
    ValueError::new(NOT_SUPPORTED, "arrays that do not start at index 1 are not supported")
}

fn several_dimensions() -> ValueError {
    ValueError::new(NOT_SUPPORTED, "arrays of more than one dimension are not supported")
}

/// Appends an element's text, in quotes where it would be read as something else.
pub(crate) fn write_element(text: &[u8], out: &mut BytesMut) {
    let is_special = |b: &u8| matches!(b, b'"' | b'\\' | b'{' | b'}' | b',') || is_space(*b);
    if !text.is_empty() && !text.eq_ignore_ascii_case(b"null") && !text.iter().any(is_special) {
        return out.put_slice(text);
    }
    out.put_u8(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.put_u8(b'\\');
        }
        out.put_u8(byte);
    }
    out.put_u8(b'"');
}

/// Splits an array's binary form into the binary forms of its elements.
///
/// Layout, all big-endian `i32`: dimensions, flags, element type's OID; per dimension length and first index; per element
/// its length in bytes (-1: NULL) and the bytes.
pub(crate) fn parse_binary(bytes: &[u8], element_oid: u32) -> Result<Vec<Option<&[u8]>>, ValueError> {
    let mut rest = bytes;
    let dimensions = take_i32(&mut rest)?;
    let flags = take_i32(&mut rest)?;
    let oid = take_i32(&mut rest)?.cast_unsigned();
    if dimensions > DIMENSIONS_MAX {
        let message =
            format!("number of array dimensions ({dimensions}) exceeds the maximum allowed ({DIMENSIONS_MAX})");
        return Err(ValueError::new(TOO_LARGE, message));
    }
    if dimensions < 0 {
        return Err(ValueError::new(INVALID_BINARY, format!("invalid number of dimensions: {dimensions}")));
    }
    if !(0..=1).contains(&flags) {
        return Err(ValueError::new(INVALID_BINARY, "invalid array flags"));
    }
    if oid != element_oid {
        let (found, expected) = (type_name(oid), type_name(element_oid));
        let message = format!(
            "binary data has array element type {oid} ({found}) instead of expected {element_oid} ({expected})"
        );
        return Err(ValueError::new("42804", message));
    }
    if dimensions == 0 {
        return if rest.is_empty() { Ok(Vec::new()) } else { Err(ValueError::binary_length(bytes.len(), 12)) };
    }
    if dimensions > 1 {
        return Err(several_dimensions());
    }
    let length = take_i32(&mut rest)?;
    if take_i32(&mut rest)? != 1 {
        return Err(other_start());
    }
    // Every element takes 4 bytes at least: a length beyond that would only make us reserve memory.
    let length = usize::try_from(length).ok().filter(|length| *length <= rest.len() / 4);
    let length = length.ok_or_else(insufficient)?;
    let mut elements = Vec::with_capacity(length);
    for _ in 0..length {
        let size = take_i32(&mut rest)?;
        if size == -1 {
            elements.push(None);
            continue;
        }
        let size = usize::try_from(size).ok().filter(|size| *size <= rest.len());
        let size = size.ok_or_else(insufficient)?;
        let (element, after) = rest.split_at(size);
        elements.push(Some(element));
        rest = after;
    }
    if rest.is_empty() { Ok(elements) } else { Err(ValueError::new(INVALID_BINARY, "incorrect binary data format")) }
}

/// A type's name in messages, without its modifier; `???` as PostgreSQL has it for an OID that is no type's.
fn type_name(oid: u32) -> &'static str {
    match oid {
        16 => "boolean",
        17 => "bytea",
        19 => "name",
        20 => "bigint",
        21 => "smallint",
        23 => "integer",
        25 => "text",
        26 => "oid",
        114 => "json",
        700 => "real",
        701 => "double precision",
        1042 => "character",
        1043 => "character varying",
        1082 => "date",
        1083 => "time without time zone",
        1114 => "timestamp without time zone",
        1184 => "timestamp with time zone",
        1186 => "interval",
        1700 => "numeric",
        2950 => "uuid",
        3802 => "jsonb",
        _ => "???",
    }
}

/// Dimensions that PostgreSQL's arrays can have.
const DIMENSIONS_MAX: i32 = 6;

fn insufficient() -> ValueError {
    ValueError::new(PROTOCOL_VIOLATION, "insufficient data left in message")
}

fn take_i32(rest: &mut &[u8]) -> Result<i32, ValueError> {
    let (number, after) = rest.split_first_chunk::<4>().ok_or_else(|| ValueError::binary_length(rest.len(), 4))?;
    *rest = after;
    Ok(i32::from_be_bytes(*number))
}
