//! A row of text or csv data cut into its fields.

use super::options::{CopyFormat, CopyOptions};
use crate::error::{BAD_COPY_FILE, ValueError};
use crate::types::string;
use crate::types::uuid::digit;

/// The fields of one row, kept to be filled again by the next.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// Fields of a plain row: where each ends in it.
    ends: Vec<u32>,
    /// Fields of a row with quotes or escapes, without them.
    texts: String,
    /// Where each ends in `texts`, and whether it is NULL.
    text_ends: Vec<(usize, bool)>,
    is_plain: bool,
}

impl Fields {
    /// Cuts a row into fields. `has_special`: it holds quotes or backslashes.
    #[inline]
    pub(super) fn split(&mut self, row: &str, has_special: bool, options: &CopyOptions) -> Result<(), ValueError> {
        self.is_plain = !has_special;
        if self.is_plain {
            split_plain(row.as_bytes(), options.delimiter, &mut self.ends);
            return Ok(());
        }
        self.texts.clear();
        self.text_ends.clear();
        match options.format {
            CopyFormat::Csv => self.split_csv(row, options),
            CopyFormat::Text | CopyFormat::Binary => self.split_text(row, options),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        if self.is_plain { self.ends.len() } else { self.text_ends.len() }
    }

    /// A field of the row that was split last, `None` if it is NULL.
    #[inline]
    pub(super) fn get<'a>(&'a self, place: usize, row: &'a str, null: &str) -> Option<&'a str> {
        if self.is_plain {
            let start = if place == 0 { 0 } else { self.ends[place - 1] as usize + 1 };
            // Delimiters are ASCII, so that the ends are always between characters.
            let field = row.get(start..self.ends[place] as usize).unwrap_or_default();
            return if is_null(field, null) { None } else { Some(field) };
        }
        let start = if place == 0 { 0 } else { self.text_ends[place - 1].0 };
        let (end, is_null) = self.text_ends[place];
        if is_null { None } else { self.texts.get(start..end) }
    }

    fn finish_field(&mut self, is_null: bool) {
        self.text_ends.push((self.texts.len(), is_null));
    }

    /// Quotes may start and end anywhere in a field; inside, the escape takes a quote or an escape.
    fn split_csv(&mut self, row: &str, options: &CopyOptions) -> Result<(), ValueError> {
        let CopyOptions { delimiter, quote, escape, null, .. } = options;
        let bytes = row.as_bytes();
        let (mut place, mut field_start, mut has_quote) = (0, 0, false);
        loop {
            let rest = &bytes[place..];
            let offset = memchr::memchr2(*delimiter, *quote, rest).unwrap_or(rest.len());
            self.texts.push_str(&row[place..place + offset]);
            place += offset;
            if bytes.get(place) == Some(quote) {
                has_quote = true;
                place = self.take_quoted(row, place + 1, *quote, *escape)?;
                continue;
            }
            let is_null = !has_quote && row[field_start..place] == **null;
            self.finish_field(is_null);
            if place >= bytes.len() {
                return Ok(());
            }
            place += 1;
            (field_start, has_quote) = (place, false);
        }
    }

    /// Takes what lies between quotes, returns the place behind the closing one.
    fn take_quoted(&mut self, row: &str, start: usize, quote: u8, escape: u8) -> Result<usize, ValueError> {
        let bytes = row.as_bytes();
        let mut place = start;
        loop {
            let Some(offset) = memchr::memchr2(quote, escape, &bytes[place..]) else {
                return Err(ValueError::new(BAD_COPY_FILE, "unterminated CSV quoted field"));
            };
            self.texts.push_str(&row[place..place + offset]);
            place += offset;
            let byte = bytes[place];
            if byte == escape
                && let Some(next) = bytes.get(place + 1).filter(|next| **next == quote || **next == escape)
            {
                self.texts.push(char::from(*next));
                place += 2;
            } else if byte == quote {
                return Ok(place + 1);
            } else {
                self.texts.push(char::from(byte));
                place += 1;
            }
        }
    }

    fn split_text(&mut self, row: &str, options: &CopyOptions) -> Result<(), ValueError> {
        let bytes = row.as_bytes();
        let (mut place, mut field_start, mut text_start) = (0, 0, 0);
        // Escapes give bytes, which only together need be UTF-8.
        let mut unescaped: Option<Vec<u8>> = None;
        loop {
            let rest = &bytes[place..];
            let offset = memchr::memchr2(options.delimiter, b'\\', rest).unwrap_or(rest.len());
            match &mut unescaped {
                Some(buffer) => buffer.extend_from_slice(&rest[..offset]),
                None => self.texts.push_str(&row[place..place + offset]),
            }
            place += offset;
            if bytes.get(place) == Some(&b'\\') {
                let buffer = unescaped.get_or_insert_with(|| self.texts.split_off(text_start).into_bytes());
                place = take_escape(bytes, place + 1, buffer);
                continue;
            }
            let is_null = row[field_start..place] == *options.null;
            if let Some(buffer) = unescaped.take() {
                self.texts.push_str(if is_null { "" } else { string::check(&buffer)? });
            }
            self.finish_field(is_null);
            if place >= bytes.len() {
                return Ok(());
            }
            place += 1;
            (field_start, text_start) = (place, self.texts.len());
        }
    }
}

#[inline]
fn is_null(field: &str, null: &str) -> bool {
    field.len() == null.len() && (field.is_empty() || field == null)
}

/// Takes the escape behind a backslash, returns the place behind it.
fn take_escape(bytes: &[u8], place: usize, out: &mut Vec<u8>) -> usize {
    let Some(&byte) = bytes.get(place) else { return place };
    let plain = match byte {
        b'b' => 0x8,
        b'f' => 0xc,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0xb,
        b'0'..=b'7' => return take_digits(bytes, place, 3, 8, out),
        b'x' if bytes.get(place + 1).is_some_and(u8::is_ascii_hexdigit) => {
            return take_digits(bytes, place + 1, 2, 16, out);
        }
        other => other,
    };
    out.push(plain);
    place + 1
}

fn take_digits(bytes: &[u8], start: usize, digits_max: usize, base: u32, out: &mut Vec<u8>) -> usize {
    let mut value = 0_u32;
    let mut place = start;
    while let Some(digit) = bytes.get(place).copied().and_then(digit).map(u32::from).filter(|d| *d < base)
        && place < start + digits_max
    {
        value = value * base + digit;
        place += 1;
    }
    out.push((value & 0xff) as u8);
    place
}

const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// Finds the ends of the fields of a row without quotes or escapes, eight bytes at a time.
#[inline]
fn split_plain(row: &[u8], delimiter: u8, ends: &mut Vec<u32>) {
    ends.clear();
    let pattern = u64::from_ne_bytes([delimiter; 8]);
    let (words, tail) = row.as_chunks::<8>();
    let mut base = 0_u32;
    for word in words {
        let differing = u64::from_le_bytes(*word) ^ pattern;
        // The top bit of each byte that does not differ.
        let mut equal = !(((differing & LOW_BITS) + LOW_BITS) | differing | LOW_BITS);
        while equal != 0 {
            ends.push(base + equal.trailing_zeros() / 8);
            equal &= equal - 1;
        }
        base += 8;
    }
    for byte in tail {
        if *byte == delimiter {
            ends.push(base);
        }
        base += 1;
    }
    ends.push(base);
}
