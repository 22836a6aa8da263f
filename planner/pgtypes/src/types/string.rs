//! text, varchar(n), char(n): valid UTF-8 without NUL, lengths in characters.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use meridian_proto::SqlType;

use crate::error::{NOT_IN_REPERTOIRE, STRING_TOO_LONG, ValueError};

/// The input as text that PostgreSQL would store.
#[inline]
pub(crate) fn check(input: &[u8]) -> Result<&str, ValueError> {
    check_within(input, input.len())
}

/// The first `length` bytes of the input as text. Bytes behind show in the error, where a character is cut short.
#[inline]
pub(crate) fn check_within(input: &[u8], length: usize) -> Result<&str, ValueError> {
    let text = std::str::from_utf8(&input[..length]).map_err(|error| invalid(&input[error.valid_up_to()..]))?;
    if memchr::memchr(0, text.as_bytes()).is_some() {
        return Err(invalid(b"\0"));
    }
    Ok(text)
}

/// `invalid byte sequence for encoding "UTF8": 0xc3 0x28`
fn invalid(bytes: &[u8]) -> ValueError {
    let length = match bytes.first() {
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf7) => 4,
        _ => 1,
    };
    let shown: Vec<String> = bytes.iter().take(length).map(|byte| format!("0x{byte:02x}")).collect();
    ValueError::new(NOT_IN_REPERTOIRE, format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" ")))
}

/// The text as a column of this type keeps it: spaces beyond the length cut, of char(n) all spaces at the end, which are
/// put back where values are written. So texts compare, join and group as PostgreSQL's char(n), which ignores them.
///
/// Error: 22001 where more than spaces would be cut. Types without a length keep every text.
#[inline]
pub fn fit_length<'a>(sql_type: &SqlType, text: &'a str) -> Result<Cow<'a, str>, ValueError> {
    match sql_type {
        SqlType::Varchar(Some(length)) => fit_varchar(*length, text),
        SqlType::Char(length) => fit_char(*length, text),
        _ => Ok(Cow::Borrowed(text)),
    }
}

fn fit_varchar(length: u32, text: &str) -> Result<Cow<'_, str>, ValueError> {
    match cut(length, text) {
        Some(fitting) => Ok(Cow::Borrowed(fitting)),
        None => Err(too_long("character varying", length)),
    }
}

fn fit_char(length: u32, text: &str) -> Result<Cow<'_, str>, ValueError> {
    match cut(length, text) {
        Some(fitting) => Ok(Cow::Borrowed(fitting.trim_end_matches(' '))),
        None => Err(too_long("character", length)),
    }
}

/// Appends a char(n) with the spaces that fill it.
pub(crate) fn write_char(text: &str, length: usize, out: &mut BytesMut) {
    out.put_slice(text.as_bytes());
    out.put_bytes(b' ', length.saturating_sub(text.chars().count()));
}

/// At most `length` characters of the text, `None` if more than spaces lie beyond.
fn cut(length: u32, text: &str) -> Option<&str> {
    if text.len() <= length as usize {
        return Some(text);
    }
    match text.char_indices().nth(length as usize) {
        None => Some(text),
        Some((end, _)) if text[end..].bytes().all(|byte| byte == b' ') => Some(&text[..end]),
        Some(_) => None,
    }
}

fn too_long(type_name: &str, length: u32) -> ValueError {
    ValueError::new(STRING_TOO_LONG, format!("value too long for type {type_name}({length})"))
}
