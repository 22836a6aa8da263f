//! A query's text with its constants cut out. Two texts of one shape differ in these only, so what was found out about
//! the one holds for the other. Finding a shape takes no tokens and no tree: it is asked for every statement.
//!
//! What cannot be told apart by looking at characters has no shape: strings with a prefix or between dollars, numbers
//! with letters in them, several statements.

use std::borrow::Cow;

/// Longer texts are planned each time.
const BYTES_MAX: usize = 16 << 10;
const CONSTANTS_MAX: usize = 500;
/// What stands for constants in a shape. A text that holds these characters elsewhere has no shape.
const TEXT: u8 = 1;
const NUMBER: u8 = 2;

#[derive(Debug)]
pub struct Cut {
    text: Box<str>,
    shape: Box<str>,
    constants: Vec<Constant>,
}

/// A constant by its bytes in the text; a text's quotes are part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Constant {
    pub start: usize,
    pub end: usize,
    pub is_text: bool,
}

impl Cut {
    /// `None`: not a query, or one without a shape.
    pub(crate) fn of(text: &str) -> Option<Self> {
        if text.len() > BYTES_MAX {
            return None;
        }
        let (shape, constants) = (String::new(), Vec::new());
        let mut scanner = Scanner { text, at: 0, end: text.len(), shape, constants, is_query: false };
        scanner.run()?;
        let Scanner { end, shape, constants, is_query, .. } = scanner;
        is_query.then(|| Self { text: text[..end].into(), shape: shape.into(), constants })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn shape(&self) -> &str {
        &self.shape
    }

    /// In the order of the text.
    pub(crate) fn constants(&self) -> &[Constant] {
        &self.constants
    }

    /// As written.
    pub(crate) fn written(&self, index: usize) -> &str {
        let Constant { start, end, .. } = self.constants[index];
        &self.text[start..end]
    }

    /// The text that a text constant stands for.
    pub(crate) fn unquoted(&self, index: usize) -> Cow<'_, str> {
        let written = self.written(index);
        let inner = written.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(written);
        if inner.contains('\'') { Cow::Owned(inner.replace("''", "'")) } else { Cow::Borrowed(inner) }
    }

    /// Number of the constant that begins at this byte.
    pub(crate) fn constant_at(&self, start: usize) -> Option<usize> {
        self.constants.binary_search_by_key(&start, |constant| constant.start).ok()
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// Of the query: a semicolon behind it is no part of it.
    end: usize,
    shape: String,
    constants: Vec<Constant>,
    /// Whether the first word was read, and begins a query.
    is_query: bool,
}

impl Scanner<'_> {
    /// `None` when the text has no shape.
    fn run(&mut self) -> Option<()> {
        loop {
            let is_apart = self.skip_blanks()?;
            let Some(first) = self.byte(0) else { return Some(()) };
            if first == b';' {
                self.end = self.at;
                return self.end();
            }
            if is_apart && !self.shape.is_empty() {
                self.shape.push(' ');
            }
            self.piece(first)?;
        }
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    /// One word, constant, or other character.
    fn piece(&mut self, first: u8) -> Option<()> {
        match first {
            b'\'' => self.string(),
            b'"' => self.copy_quoted(),
            b'0'..=b'9' => self.number(),
            b'.' if self.byte(1).is_some_and(|next| next.is_ascii_digit()) => self.number(),
            b'$' => self.parameter(),
            first if is_word(first) => self.word(),
            first if first.is_ascii_graphic() => {
                self.shape.push(first.into());
                self.at += 1;
                Some(())
            }
            _ => None,
        }
    }

    /// Whether there were any. Comments are blanks.
    fn skip_blanks(&mut self) -> Option<bool> {
        let start = self.at;
        loop {
            match (self.byte(0), self.byte(1)) {
                (Some(b' ' | b'\t' | b'\n' | b'\r' | 12), _) => self.at += 1,
                (Some(b'-'), Some(b'-')) => {
                    let rest = &self.text[self.at..];
                    self.at += rest.find('\n').unwrap_or(rest.len());
                }
                (Some(b'/'), Some(b'*')) => self.skip_comment()?,
                _ => return Some(self.at > start),
            }
        }
    }

    /// Comments nest.
    fn skip_comment(&mut self) -> Option<()> {
        let mut depth = 0;
        loop {
            match (self.byte(0)?, self.byte(1)?) {
                (b'/', b'*') => (depth, self.at) = (depth + 1, self.at + 2),
                (b'*', b'/') => (depth, self.at) = (depth - 1, self.at + 2),
                _ => self.at += 1,
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// Only blanks and semicolons may follow.
    fn end(&mut self) -> Option<()> {
        while self.byte(0) == Some(b';') {
            self.at += 1;
            self.skip_blanks()?;
        }
        self.byte(0).is_none().then_some(())
    }

    fn string(&mut self) -> Option<()> {
        // `E'...'` and the like, and strings that continue one another.
        let before = self.shape.as_bytes();
        let is_joined = match before {
            [.., last] if is_word(*last) || last.is_ascii_digit() || matches!(last, b'&' | b'"') => true,
            [.., TEXT] | [.., TEXT, b' '] => true,
            _ => false,
        };
        if is_joined {
            return None;
        }
        let end = self.end_of_quoted(b'\'')?;
        self.constant(end, TEXT)
    }

    /// Behind the quote that ends what begins here. A quote is doubled within.
    fn end_of_quoted(&self, quote: u8) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let mut at = self.at + 1;
        loop {
            at += bytes.get(at..)?.iter().position(|byte| *byte == quote)? + 1;
            if bytes.get(at) != Some(&quote) {
                return Some(at);
            }
            at += 1;
        }
    }

    fn copy_quoted(&mut self) -> Option<()> {
        let end = self.end_of_quoted(b'"')?;
        let name = &self.text[self.at..end];
        if name.bytes().any(|byte| byte < b' ') {
            return None;
        }
        self.shape.push_str(name);
        self.at = end;
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        // A point that belongs to what is before it, such as a name's.
        let follows_name = self.shape.bytes().last().is_some_and(|last| is_word(last) || b"\")].".contains(&last));
        if follows_name && self.byte(0) == Some(b'.') {
            return None;
        }
        let bytes = self.text.as_bytes();
        let digits = |mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        let mut end = digits(self.at);
        if bytes.get(end) == Some(&b'.') {
            end = digits(end + 1);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            end = digits(end + 1 + sign);
        }
        // `1a`, `0x1`, `1_000`, `1..2`, `1.e`.
        if bytes.get(end).is_some_and(|next| is_word(*next) || matches!(next, b'.' | b'\'' | b'"' | b'$')) {
            return None;
        }
        self.constant(end, NUMBER)
    }

    fn constant(&mut self, end: usize, mark: u8) -> Option<()> {
        if self.constants.len() == CONSTANTS_MAX {
            return None;
        }
        self.constants.push(Constant { start: self.at, end, is_text: mark == TEXT });
        self.shape.push(mark.into());
        self.at = end;
        Some(())
    }

    /// `$1` stays; a dollar before anything else begins a string.
    fn parameter(&mut self) -> Option<()> {
        let digits = self.text.as_bytes()[self.at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let follows_name = self.shape.bytes().last().is_some_and(is_word);
        if digits == 0 || follows_name || self.byte(1 + digits).is_some_and(|next| is_word(next) || next == b'$') {
            return None;
        }
        self.copy(1 + digits);
        Some(())
    }

    fn word(&mut self) -> Option<()> {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().take_while(|byte| is_word(**byte) || byte.is_ascii_digit()).count();
        // In names, but seldom, and a string may begin with it.
        if rest.get(length) == Some(&b'$') {
            return None;
        }
        if !self.is_query {
            let word = &rest[..length];
            self.is_query = word.eq_ignore_ascii_case(b"select") || word.eq_ignore_ascii_case(b"with");
            if !self.is_query {
                return None;
            }
            self.shape.reserve(self.text.len());
        }
        self.copy(length);
        Some(())
    }

    fn copy(&mut self, length: usize) {
        self.shape.push_str(&self.text[self.at..self.at + length]);
        self.at += length;
    }
}

/// Letters of names, those beyond ASCII among them.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Option<String> {
        Cut::of(text).map(|cut| cut.shape().replace('\u{1}', "<text>").replace('\u{2}', "<number>"))
    }

    #[test]
    fn constants_are_cut_out() {
        let check = |text: &str, expected: &str| assert_eq!(shape(text).as_deref(), Some(expected), "{text}");
        check("SELECT a FROM t WHERE b='x''y' AND c >= 1.5e-3 ;", "SELECT a FROM t WHERE b=<text> AND c >= <number>");
        check(
            "select\n\ta1 -- 'no'\n from t /* a /* 'b' */ 5 */where a.b=$1 limit 10",
            "select a1 from t where a.b=$1 limit <number>",
        );
        check(
            "SELECT \"a 'b\"\"\" FROM t WHERE x IN (1,.5,'é')",
            "SELECT \"a 'b\"\"\" FROM t WHERE x IN (<number>,<number>,<text>)",
        );
        check("(SELECT date '2024-01-01' - 7)", "(SELECT date <text> - <number>)");
        check("WITH größe AS (SELECT 1) SELECT * FROM größe;;", "WITH größe AS (SELECT <number>) SELECT * FROM größe");
    }

    #[test]
    fn texts_that_characters_alone_do_not_tell_have_no_shape() {
        for text in [
            "SELECT E'a\\'b'",
            "SELECT U&'x'",
            "SELECT 'a'\n'b'",
            "SELECT $$a$$",
            "SELECT $a$b$a$",
            "SELECT 0x1f",
            "SELECT 1_000",
            "SELECT t.5",
            "SELECT 1; SELECT 2",
            "SELECT 'open",
            "SELECT \"open",
            "SELECT 1 /* open",
            "SELECT '\u{1}' || \u{1}",
            "INSERT INTO t SELECT 1",
            "",
        ] {
            assert_eq!(shape(text), None, "{text}");
        }
    }

    #[test]
    fn a_semicolon_is_no_part_of_the_query() {
        let text = |text: &str| Cut::of(text).unwrap().text().to_owned();
        assert_eq!(text("SELECT ';' LIMIT 2 ; -- the end;\n;"), "SELECT ';' LIMIT 2 ");
        assert_eq!(text("SELECT 1"), "SELECT 1");
    }

    #[test]
    fn constants_are_found_by_their_place() {
        let text = "SELECT 1 FROM t WHERE a = 'x''y' AND b < 2.5";
        let cut = Cut::of(text).unwrap();
        assert_eq!(cut.constants().len(), 3);
        let second = cut.constant_at(text.find('\'').unwrap()).unwrap();
        assert_eq!((second, cut.written(second), cut.unquoted(second).as_ref()), (1, "'x''y'", "x'y"));
        assert_eq!(cut.written(2), "2.5");
        assert_eq!(cut.constant_at(3), None);
    }
}
