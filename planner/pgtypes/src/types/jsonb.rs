//! jsonb as text in PostgreSQL's normal form: keys by length, then bytes, the last of equal keys; one space behind `,` and
//! `:`; numbers without exponent, their digits kept.

use std::fmt::Write as _;

use crate::error::{INVALID_TEXT, OUT_OF_RANGE, TOO_COMPLEX, UNTRANSLATABLE, ValueError};
use crate::types::string;

/// Nested arrays and objects; each takes a frame of the stack.
const DEPTH_MAX: usize = 500;
/// Zeros that a number's exponent may add. PostgreSQL allows 131072, in a form that takes no room; every double fits.
const ZEROS_MAX: i64 = 400;
/// Bytes of the line that an error shows before its place.
const CONTEXT_BYTES: usize = 50;

/// The normal form of a JSON text.
pub(crate) fn normalise(input: &[u8]) -> Result<String, ValueError> {
    let text = string::check(input)?;
    let mut reader =
        Reader { text, place: 0, token: Token::End, token_start: 0, out: String::with_capacity(text.len()) };
    reader.advance()?;
    reader.value(0)?;
    if reader.token != Token::End {
        return Err(reader.unexpected("end of input"));
    }
    Ok(reader.out)
}

/// The binary form: a version byte, then the text.
pub(crate) fn parse_binary(bytes: &[u8]) -> Result<String, ValueError> {
    match bytes {
        [1, text @ ..] => normalise(text),
        [] => Err(ValueError::binary_length(0, 1)),
        [version, ..] => Err(ValueError::new("XX000", format!("unsupported jsonb version number {version}"))),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    End,
    /// One of `{}[]:,`.
    Mark(u8),
    String,
    Number,
    /// true, false, null.
    Word,
}

struct Reader<'a> {
    text: &'a str,
    /// Behind the present token.
    place: usize,
    token: Token,
    token_start: usize,
    out: String,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<(), ValueError> {
        match self.token {
            Token::Mark(b'{') => self.object(depth + 1),
            Token::Mark(b'[') => self.array(depth + 1),
            Token::String => {
                let value = self.string()?;
                write_string(&value, &mut self.out);
                self.advance()
            }
            Token::Number => {
                let number = self.token_text();
                write_number(number, &mut self.out)?;
                self.advance()
            }
            Token::Word => {
                let word = self.token_text();
                self.out.push_str(word);
                self.advance()
            }
            Token::Mark(_) | Token::End => Err(self.unexpected("JSON value")),
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), ValueError> {
        check_depth(depth)?;
        self.out.push('[');
        self.advance()?;
        if self.token != Token::Mark(b']') {
            self.value(depth)?;
            while self.token == Token::Mark(b',') {
                self.out.push_str(", ");
                self.advance()?;
                self.value(depth)?;
            }
        }
        if self.token != Token::Mark(b']') {
            return Err(self.unexpected("\",\" or \"]\""));
        }
        self.out.push(']');
        self.advance()
    }

    fn object(&mut self, depth: usize) -> Result<(), ValueError> {
        check_depth(depth)?;
        let start = self.out.len();
        // Values are written behind each other first, then put in the order of their keys.
        let mut members: Vec<(String, std::ops::Range<usize>)> = Vec::new();
        self.advance()?;
        while self.token != Token::Mark(b'}') || !members.is_empty() {
            if self.token != Token::String {
                let wanted = if members.is_empty() { "string or \"}\"" } else { "string" };
                return Err(self.unexpected(wanted));
            }
            let key = self.string()?;
            self.advance()?;
            if self.token != Token::Mark(b':') {
                return Err(self.unexpected("\":\""));
            }
            self.advance()?;
            let value_start = self.out.len();
            self.value(depth)?;
            members.push((key, value_start..self.out.len()));
            match self.token {
                Token::Mark(b',') => self.advance()?,
                Token::Mark(b'}') => break,
                _ => return Err(self.unexpected("\",\" or \"}\"")),
            }
        }
        self.write_members(start, members);
        self.advance()
    }

    fn write_members(&mut self, start: usize, mut members: Vec<(String, std::ops::Range<usize>)>) {
        members.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        let mut object = String::with_capacity(self.out.len() - start + members.len() * 8 + 2);
        object.push('{');
        for (place, (key, range)) in members.iter().enumerate() {
            if members.get(place + 1).is_some_and(|(next, _)| next == key) {
                continue;
            }
            if object.len() > 1 {
                object.push_str(", ");
            }
            write_string(key, &mut object);
            object.push_str(": ");
            object.push_str(&self.out[range.clone()]);
        }
        object.push('}');
        self.out.truncate(start);
        self.out.push_str(&object);
    }

    fn token_text(&self) -> &'a str {
        &self.text[self.token_start..self.place]
    }

    /// Moves to the next token.
    fn advance(&mut self) -> Result<(), ValueError> {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.place), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.place += 1;
        }
        self.token_start = self.place;
        self.token = match bytes.get(self.place) {
            None => Token::End,
            Some(mark @ (b'{' | b'}' | b'[' | b']' | b':' | b',')) => {
                self.place += 1;
                Token::Mark(*mark)
            }
            Some(b'"') => {
                self.skip_string()?;
                Token::String
            }
            Some(b'-' | b'0'..=b'9') => {
                let (length, is_number) = number_end(&bytes[self.place..]);
                self.place += length;
                if !is_number {
                    return Err(self.invalid_token());
                }
                Token::Number
            }
            Some(_) => {
                self.word_end();
                if !matches!(self.token_text(), "true" | "false" | "null") {
                    return Err(self.invalid_token());
                }
                Token::Word
            }
        };
        Ok(())
    }

    /// Moves behind letters and digits; at least one character.
    fn word_end(&mut self) {
        let rest = &self.text[self.place..];
        let length = rest.bytes().take_while(|byte| is_word_byte(*byte)).count();
        self.place += length.max(rest.chars().next().map_or(0, char::len_utf8));
    }

    /// Moves behind the closing quote; escapes are checked by [`Reader::string`].
    fn skip_string(&mut self) -> Result<(), ValueError> {
        let bytes = self.text.as_bytes();
        let mut place = self.place + 1;
        loop {
            match bytes.get(place) {
                None => {
                    self.place = bytes.len();
                    return Err(self.invalid_token());
                }
                Some(b'"') => break,
                Some(b'\\') => place += 2,
                Some(byte @ 0..0x20) => {
                    self.place = place;
                    return Err(self.invalid(format!("Character with value 0x{byte:02x} must be escaped.")));
                }
                Some(_) => place += 1,
            }
        }
        self.place = place + 1;
        Ok(())
    }

    /// The present string token without its quotes and escapes.
    fn string(&mut self) -> Result<String, ValueError> {
        let (start, end) = (self.token_start + 1, self.place - 1);
        let mut value = String::with_capacity(end - start);
        let mut place = start;
        while let Some(offset) = memchr::memchr(b'\\', &self.text.as_bytes()[place..end]) {
            value.push_str(&self.text[place..place + offset]);
            place = self.escape(place + offset, end, &mut value)?;
        }
        value.push_str(&self.text[place..end]);
        Ok(value)
    }

    /// Reads the escape at `place`, returns the place behind it.
    fn escape(&mut self, place: usize, end: usize, value: &mut String) -> Result<usize, ValueError> {
        let plain = match self.text.as_bytes()[place + 1] {
            quoted @ (b'"' | b'\\' | b'/') => char::from(quoted),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(place, end, value),
            _ => {
                let bad = self.text[place + 1..].chars().next().unwrap_or(' ');
                self.place = place + 1 + bad.len_utf8();
                return Err(self.invalid(format!("Escape sequence \"\\{bad}\" is invalid.")));
            }
        };
        value.push(plain);
        Ok(place + 2)
    }

    fn unicode_escape(&mut self, place: usize, end: usize, value: &mut String) -> Result<usize, ValueError> {
        let first = self.four_digits(place, end)?;
        let mut after = place + 6;
        let code = match first {
            0xd800..0xdc00 => {
                if !self.text[after..end].starts_with("\\u") {
                    self.place = after;
                    return Err(self.invalid("Unicode low surrogate must follow a high surrogate."));
                }
                let second = self.four_digits(after, end)?;
                after += 6;
                match second {
                    0xdc00..0xe000 => 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00),
                    0xd800..0xdc00 => {
                        self.place = after;
                        return Err(self.invalid("Unicode high surrogate must not follow a high surrogate."));
                    }
                    _ => {
                        self.place = after;
                        return Err(self.invalid("Unicode low surrogate must follow a high surrogate."));
                    }
                }
            }
            code => code,
        };
        self.place = after;
        match char::from_u32(code) {
            Some('\0') => Err(ValueError::new(UNTRANSLATABLE, "unsupported Unicode escape sequence")
                .with_detail("\\u0000 cannot be converted to text.")
                .with_context(self.context())),
            Some(character) => {
                value.push(character);
                self.place = end + 1;
                Ok(after)
            }
            None => Err(self.invalid("Unicode low surrogate must follow a high surrogate.")),
        }
    }

    /// The number of the `\uXXXX` at `place`.
    fn four_digits(&mut self, place: usize, end: usize) -> Result<u32, ValueError> {
        let digits = self.text.get(place + 2..(place + 6).min(end)).unwrap_or_default();
        if digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return u32::from_str_radix(digits, 16).map_err(|_| self.invalid_token());
        }
        let rest = &self.text[place + 2..];
        let bad = rest.char_indices().find(|(_, c)| !c.is_ascii_hexdigit());
        self.place = bad.map_or(self.text.len(), |(offset, c)| place + 2 + offset + c.len_utf8());
        Err(self.invalid("\"\\u\" must be followed by four hexadecimal digits."))
    }

    fn invalid_token(&self) -> ValueError {
        self.invalid(format!("Token \"{}\" is invalid.", self.token_text()))
    }

    fn unexpected(&self, wanted: &str) -> ValueError {
        match self.token {
            Token::End => self.invalid("The input string ended unexpectedly."),
            _ => self.invalid(format!("Expected {wanted}, but found \"{}\".", self.token_text())),
        }
    }

    fn invalid(&self, detail: impl Into<String>) -> ValueError {
        ValueError::new(INVALID_TEXT, "invalid input syntax for type json")
            .with_detail(detail)
            .with_context(self.context())
    }

    /// The line up to the present place.
    fn context(&self) -> String {
        let before = &self.text[..self.text.floor_char_boundary(self.place)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let number = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let mut start = line_start;
        if before.len() - start >= CONTEXT_BYTES {
            start = before.ceil_char_boundary(before.len() - CONTEXT_BYTES + 1);
        }
        if start - line_start <= 3 {
            start = line_start;
        }
        let prefix = if start > line_start { "..." } else { "" };
        let goes_on = self.token != Token::End || before.len() < self.text.len();
        let next = self.text.as_bytes().get(before.len());
        let suffix = if goes_on && next.is_some_and(|b| !matches!(b, b'\n' | b'\r')) { "..." } else { "" };
        format!("JSON data, line {number}: {prefix}{}{suffix}", &before[start..])
    }
}

fn check_depth(depth: usize) -> Result<(), ValueError> {
    if depth > DEPTH_MAX {
        let detail = format!("A jsonb value can nest {DEPTH_MAX} levels deep.");
        return Err(ValueError::new(TOO_COMPLEX, "stack depth limit exceeded").with_detail(detail));
    }
    Ok(())
}

/// Bytes of a JSON number and of letters stuck to it, and whether it is whole and they are none.
fn number_end(bytes: &[u8]) -> (usize, bool) {
    let digits = |from: usize| bytes.get(from..).unwrap_or_default().iter().take_while(|b| b.is_ascii_digit()).count();
    let mut place = usize::from(bytes.first() == Some(&b'-'));
    let mut is_whole = digits(place) > 0;
    place += if bytes.get(place) == Some(&b'0') { 1 } else { digits(place) };
    if bytes.get(place) == Some(&b'.') {
        place += 1;
        is_whole &= digits(place) > 0;
        place += digits(place);
    }
    if matches!(bytes.get(place), Some(b'e' | b'E')) {
        place += 1 + usize::from(matches!(bytes.get(place + 1), Some(b'+' | b'-')));
        is_whole &= digits(place) > 0;
        place += digits(place);
    }
    let letters = bytes[place..].iter().take_while(|b| is_word_byte(**b)).count();
    (place + letters, is_whole && letters == 0)
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn write_string(value: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (place, byte) in value.bytes().enumerate() {
        let escaped = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x8 => "\\b",
            0xc => "\\f",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&value[plain..place]);
        plain = place + 1;
        out.push_str(escaped);
        if escaped.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{byte:04x}");
        }
    }
    out.push_str(&value[plain..]);
    out.push('"');
}

/// Writes a number as `numeric` prints it: all its digits, no exponent.
fn write_number(number: &str, out: &mut String) -> Result<(), ValueError> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_zero = mantissa.bytes().all(|b| matches!(b, b'0' | b'.'));
    let exponent = exponent.parse::<i64>().unwrap_or(i64::MAX);
    if exponent.checked_abs().is_none_or(|size| size > ZEROS_MAX) {
        return Err(ValueError::new(OUT_OF_RANGE, "value overflows numeric format"));
    }
    if !is_zero {
        out.push_str(sign);
    }
    let digits = format!("{whole}{fraction}");
    // Digits before the point once the exponent is applied; 0 or less: zeros follow the point.
    let point = whole.len() as i64 + exponent;
    let scale = (fraction.len() as i64 - exponent).max(0) as usize;
    let padded: String = if point <= 0 {
        format!("{}{digits}", "0".repeat(point.unsigned_abs() as usize + 1))
    } else {
        let missing = (point - digits.len() as i64).max(0) as usize;
        format!("{digits}{}", "0".repeat(missing))
    };
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let whole = whole.trim_start_matches('0');
    out.push_str(if whole.is_empty() { "0" } else { whole });
    if scale > 0 {
        out.push('.');
        out.push_str(fraction);
    }
    Ok(())
}
