//! A date, time or interval literal cut into tokens, in lower case.

use super::Fault;
use super::words;
use crate::types::is_space;

/// Tokens of a literal, as many as PostgreSQL takes.
const TOKENS_MAX: usize = 25;
/// Bytes of all tokens together.
const BYTES_MAX: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Digits, perhaps with a point.
    Number,
    /// Digits with a colon.
    Time,
    /// Parts joined by `-`, `/` or `.`; also names of zones.
    Date,
    /// A sign and digits: mostly a zone's offset.
    Signed,
    Word,
    /// A sign and letters.
    Special,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: Kind,
    pub text: String,
}

pub(super) fn split(input: &[u8]) -> Result<Vec<Token>, Fault> {
    let mut reader = Reader { input, place: 0, text: String::new() };
    let mut tokens = Vec::new();
    let mut bytes = 0;
    while let Some(byte) = reader.peek() {
        if is_space(byte) {
            reader.place += 1;
            continue;
        }
        let kind = match byte {
            b'0'..=b'9' => reader.digits_first(),
            b'.' => {
                reader.take();
                reader.take_while(|b| b.is_ascii_digit());
                Kind::Number
            }
            b'a'..=b'z' | b'A'..=b'Z' => reader.letters_first(),
            b'+' | b'-' => reader.sign_first()?,
            _ if byte.is_ascii_punctuation() => {
                reader.place += 1;
                continue;
            }
            _ => return Err(Fault::Syntax),
        };
        let text = std::mem::take(&mut reader.text);
        bytes += text.len() + 1;
        if tokens.len() >= TOKENS_MAX || bytes > BYTES_MAX + TOKENS_MAX {
            return Err(Fault::Syntax);
        }
        tokens.push(Token { kind, text });
    }
    Ok(tokens)
}

struct Reader<'a> {
    input: &'a [u8],
    place: usize,
    text: String,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.input.get(self.place).copied()
    }

    fn next_is(&self, test: impl Fn(u8) -> bool) -> bool {
        self.peek().is_some_and(test)
    }

    fn take(&mut self) {
        if let Some(byte) = self.peek() {
            self.text.push(char::from(byte.to_ascii_lowercase()));
            self.place += 1;
        }
    }

    fn take_while(&mut self, test: impl Fn(u8) -> bool) {
        while self.next_is(&test) {
            self.take();
        }
    }

    fn digits_first(&mut self) -> Kind {
        self.take_while(|b| b.is_ascii_digit());
        match self.peek() {
            Some(b':') => {
                self.take_while(|b| b.is_ascii_digit() || b == b':' || b == b'.');
                Kind::Time
            }
            Some(mark @ (b'-' | b'/' | b'.')) => {
                self.take();
                if !self.next_is(|b| b.is_ascii_digit()) {
                    self.take_while(|b| b.is_ascii_alphanumeric() || b == mark);
                    return Kind::Date;
                }
                self.take_while(|b| b.is_ascii_digit());
                if self.peek() == Some(mark) {
                    self.take_while(|b| b.is_ascii_digit() || b == mark);
                    return Kind::Date;
                }
                // `12.34` is a number until more is known.
                if mark == b'.' { Kind::Number } else { Kind::Date }
            }
            _ => Kind::Number,
        }
    }

    fn letters_first(&mut self) -> Kind {
        self.take_while(|b| b.is_ascii_alphabetic());
        let goes_on = match self.peek() {
            Some(b'-' | b'/' | b'.') => true,
            Some(b'+' | b'0'..=b'9') => !words::is_date_word(&self.text),
            _ => false,
        };
        if !goes_on {
            return Kind::Word;
        }
        self.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'/' | b'_' | b'.' | b':'));
        Kind::Date
    }

    fn sign_first(&mut self) -> Result<Kind, Fault> {
        self.take();
        while self.next_is(is_space) {
            self.place += 1;
        }
        match self.peek() {
            Some(b'0'..=b'9') => {
                self.take_while(|b| b.is_ascii_digit() || matches!(b, b':' | b'.' | b'-'));
                Ok(Kind::Signed)
            }
            Some(byte) if byte.is_ascii_alphabetic() => {
                self.take_while(|b| b.is_ascii_alphabetic());
                Ok(Kind::Special)
            }
            _ => Err(Fault::Syntax),
        }
    }
}
