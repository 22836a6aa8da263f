//! A statement text as tokens: cut into statements, walked by hand where sqlparser does not know a form, and the way
//! back from a token to its place in the text, which errors name.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, TokenizerError};

use crate::error::SqlError;

/// Operators in one expression. Each nests the tree by one, and later passes walk it recursively.
const OPERATORS_MAX: usize = 2000;
/// Those of one sum, product or concatenation. The time to find the type of one grows with the third power.
const ARITHMETIC_MAX: usize = 250;

/// The tokens of a text, without white space and comments.
pub(crate) fn tokenize(text: &str) -> Result<Vec<TokenWithSpan>, SqlError> {
    let mut tokens = Tokenizer::new(&PostgreSqlDialect {}, text)
        .tokenize_with_location()
        .map_err(|error| tokenizer_error(text, &error))?;
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    if tokens.iter().any(|token| sign_at_end(&token.token).is_some()) {
        tokens = tokens.into_iter().flat_map(apart).collect();
    }
    check_depth(&tokens)?;
    Ok(tokens)
}

/// With one of these, an operator may end in a sign.
const SIGN_FRIENDS: &[char] = &['~', '!', '@', '#', '%', '^', '&', '|', '`', '?'];

/// The operator before the sign, and the sign, where PostgreSQL tells the two apart: `v>-5`
/// (<https://www.postgresql.org/docs/15/sql-syntax-lexical.html#SQL-SYNTAX-OPERATORS>).
fn sign_at_end(token: &Token) -> Option<(&str, Token)> {
    let Token::CustomBinaryOperator(name) = token else { return None };
    if name.contains(SIGN_FRIENDS) {
        return None;
    }
    let (operator, sign) = match (name.strip_suffix('-'), name.strip_suffix('+')) {
        (Some(operator), _) => (operator, Token::Minus),
        (_, Some(operator)) => (operator, Token::Plus),
        (None, None) => return None,
    };
    (!operator.is_empty()).then_some((operator, sign))
}

fn apart(token: TokenWithSpan) -> Vec<TokenWithSpan> {
    let Some((operator, sign)) = sign_at_end(&token.token) else { return vec![token] };
    let Ok(before) = Tokenizer::new(&PostgreSqlDialect {}, operator).tokenize() else { return vec![token] };
    let [before] = before.as_slice() else { return vec![token] };
    let border = Location { column: token.span.end.column.saturating_sub(1), ..token.span.end };
    let mut parts = apart(TokenWithSpan::new(before.clone(), Span::new(token.span.start, border)));
    parts.push(TokenWithSpan::new(sign, Span::new(border, token.span.end)));
    parts
}

/// Cuts at semicolons; empty statements are left out.
pub(crate) fn split(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    let pieces = tokens.split(|token| token.token == Token::SemiColon);
    pieces.filter(|piece| !piece.is_empty()).map(<[TokenWithSpan]>::to_vec).collect()
}

fn check_depth(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let mut open = vec![Operators::default()];
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket => open.push(Operators::default()),
            Token::RParen | Token::RBracket if open.len() > 1 => {
                open.pop();
            }
            token => {
                if let Some(operators) = open.last_mut() {
                    operators.count(token);
                }
            }
        }
        let operators = open.last().copied().unwrap_or_default();
        if operators.all.max(open.len()) > OPERATORS_MAX {
            return Err(too_complex(format!("An expression has more than {OPERATORS_MAX} operators.")));
        }
        if operators.arithmetic > ARITHMETIC_MAX {
            return Err(too_complex(format!("A term has more than {ARITHMETIC_MAX} operators.")));
        }
    }
    Ok(())
}

fn too_complex(detail: String) -> SqlError {
    SqlError::new("54001", "statement is too complex").with_detail(detail)
}

/// Of what stands between two parentheses and commas.
#[derive(Clone, Copy, Default)]
struct Operators {
    all: usize,
    /// Since the last that makes a condition.
    arithmetic: usize,
}

impl Operators {
    fn count(&mut self, token: &Token) {
        match token {
            Token::Comma | Token::SemiColon => *self = Self::default(),
            Token::Word(word) if word.quote_style.is_none() => {
                let operator = ["AND", "OR", "NOT", "UNION", "EXCEPT", "INTERSECT", "JOIN", "IS"];
                if operator.iter().any(|name| word.value.eq_ignore_ascii_case(name)) {
                    *self = Self { all: self.all + 1, arithmetic: 0 };
                }
            }
            token if is_comparison(token) => *self = Self { all: self.all + 1, arithmetic: 0 },
            token if is_operator(token) => *self = Self { all: self.all + 1, arithmetic: self.arithmetic + 1 },
            _ => {}
        }
    }
}

fn is_comparison(token: &Token) -> bool {
    matches!(token, Token::Eq | Token::Neq | Token::Lt | Token::Gt | Token::LtEq | Token::GtEq)
}

fn is_operator(token: &Token) -> bool {
    use Token::{Arrow, Caret, CustomBinaryOperator, Div, DoubleColon, LongArrow, Minus, Mod, Mul, Plus, StringConcat};
    matches!(token, Plus | Minus | Mul | Div | Mod | Caret | StringConcat | DoubleColon)
        || matches!(token, Arrow | LongArrow | CustomBinaryOperator(_))
}

/// Byte offset of a location; the end of the text when it lies behind it, or is unknown.
pub(crate) fn offset_of(text: &str, location: Location) -> usize {
    if location.line == 0 {
        return text.len();
    }
    let mut line_start = 0;
    for _ in 1..location.line {
        match text[line_start..].find('\n') {
            Some(end) => line_start += end + 1,
            None => return text.len(),
        }
    }
    let column = usize::try_from(location.column.saturating_sub(1)).unwrap_or(usize::MAX);
    let line = &text[line_start..];
    line_start + line.char_indices().nth(column).map_or(line.len(), |(offset, _)| offset)
}

/// PostgreSQL's position: characters from 1.
pub(crate) fn position_of(text: &str, location: Location) -> usize {
    text[..offset_of(text, location)].chars().count() + 1
}

/// The text between two tokens, both included.
pub(crate) fn slice<'a>(text: &'a str, first: &TokenWithSpan, last: &TokenWithSpan) -> &'a str {
    let (start, end) = (offset_of(text, first.span.start), offset_of(text, last.span.end));
    text.get(start..end).unwrap_or("").trim()
}

/// `syntax error at or near "x"`, or `at end of input`.
pub(crate) fn syntax_error(text: &str, token: Option<&TokenWithSpan>) -> SqlError {
    match token.filter(|token| token.token != Token::EOF) {
        Some(token) => {
            let near = slice(text, token, token);
            SqlError::new("42601", format!("syntax error at or near \"{near}\""))
                .with_position(position_of(text, token.span.start))
        }
        None => {
            SqlError::new("42601", "syntax error at end of input").with_position(text.trim_end().chars().count() + 1)
        }
    }
}

fn tokenizer_error(text: &str, error: &TokenizerError) -> SqlError {
    let message = error.message.to_ascii_lowercase();
    let what = if message.contains("dollar") {
        "unterminated dollar-quoted string"
    } else if message.contains("close delimiter") {
        "unterminated quoted identifier"
    } else if message.contains("comment") {
        "unterminated /* comment"
    } else if message.contains("string literal") {
        "unterminated quoted string"
    } else {
        return SqlError::new("42601", error.message.clone()).with_position(position_of(text, error.location));
    };
    let near = &text[offset_of(text, error.location).min(text.len())..];
    SqlError::new("42601", format!("{what} at or near \"{near}\"")).with_position(position_of(text, error.location))
}

/// Walks the tokens of one statement.
pub(crate) struct Cursor<'a> {
    pub text: &'a str,
    tokens: &'a [TokenWithSpan],
    next: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str, tokens: &'a [TokenWithSpan]) -> Self {
        Self { text, tokens, next: 0 }
    }

    pub(crate) fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.next).map(|token| &token.token)
    }

    pub(crate) fn rest(&self) -> &'a [TokenWithSpan] {
        &self.tokens[self.next.min(self.tokens.len())..]
    }

    pub(crate) fn advance(&mut self) -> Option<&'a Token> {
        let token = self.tokens.get(self.next).map(|token| &token.token);
        self.next += 1;
        token
    }

    pub(crate) fn skip(&mut self, count: usize) {
        self.next += count;
    }

    pub(crate) fn is_end(&self) -> bool {
        self.next >= self.tokens.len()
    }

    /// `syntax error` at the next token.
    pub(crate) fn error(&self) -> SqlError {
        syntax_error(self.text, self.tokens.get(self.next))
    }

    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.is_word_at(0, word)
    }

    pub(crate) fn is_word_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.tokens.get(self.next + ahead).map(|token| &token.token),
            Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
    }

    pub(crate) fn eat_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.next += usize::from(found);
        found
    }

    /// All of them in this order, or none.
    pub(crate) fn eat_words(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(ahead, word)| self.is_word_at(ahead, word));
        self.next += if found { words.len() } else { 0 };
        found
    }

    pub(crate) fn expect_word(&mut self, word: &str) -> Result<(), SqlError> {
        if self.eat_word(word) { Ok(()) } else { Err(self.error()) }
    }

    pub(crate) fn eat(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    pub(crate) fn expect(&mut self, token: &Token) -> Result<(), SqlError> {
        if self.eat(token) { Ok(()) } else { Err(self.error()) }
    }

    pub(crate) fn expect_end(&self) -> Result<(), SqlError> {
        if self.is_end() { Ok(()) } else { Err(self.error()) }
    }

    /// An identifier, folded to small letters unless quoted.
    pub(crate) fn identifier(&mut self) -> Result<String, SqlError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.next += 1;
                Ok(if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() })
            }
            _ => Err(self.error()),
        }
    }

    /// A string literal.
    pub(crate) fn string(&mut self) -> Option<String> {
        let text = match self.peek() {
            Some(
                Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) | Token::UnicodeStringLiteral(text),
            ) => text.clone(),
            Some(Token::DollarQuotedString(text)) => text.value.clone(),
            _ => return None,
        };
        self.next += 1;
        Some(text)
    }

    /// `name` or `schema.name`.
    pub(crate) fn qualified(&mut self) -> Result<(Option<String>, String), SqlError> {
        let first = self.identifier()?;
        if self.eat(&Token::Period) {
            return Ok((Some(first), self.identifier()?));
        }
        Ok((None, first))
    }

    /// Tokens up to the parenthesis that closes the one just eaten; that one is eaten too.
    pub(crate) fn up_to_close(&mut self) -> Result<&'a [TokenWithSpan], SqlError> {
        let (start, mut depth) = (self.next, 1);
        while let Some(token) = self.advance() {
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok(&self.tokens[start..self.next - 1]);
            }
        }
        Err(self.error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_semicolons_outside_of_quotes() {
        let pieces = split(tokenize("select ';' -- ;\n; ; select $$;$$;").unwrap());
        assert_eq!(pieces.len(), 2);
    }

    #[test]
    fn a_sign_is_no_part_of_the_operator_before_it() {
        let shown = |text: &str| {
            let tokens = tokenize(text).unwrap();
            tokens.iter().map(|token| token.token.to_string()).collect::<Vec<_>>().join(" ")
        };
        for (text, expected) in [
            ("v>-5", "v > - 5"),
            ("v>=-5", "v >= - 5"),
            ("v<>+5", "v <> + 5"),
            ("v*-+-5", "v * - + - 5"),
            ("v|-5", "v |- 5"),
            ("v->-5", "v -> - 5"),
        ] {
            assert_eq!(shown(text), expected);
        }
        let tokens = tokenize("select 1>-x").unwrap();
        assert_eq!((tokens[2].span.end.column, tokens[3].span.start.column), (10, 10));
    }

    #[test]
    fn an_error_names_the_token_and_its_place() {
        let text = "select é,\n  frmo t";
        let tokens = tokenize(text).unwrap();
        let error = syntax_error(text, tokens.get(3));
        assert_eq!(error.message, "syntax error at or near \"frmo\"");
        assert_eq!(error.position, Some(13));
        let error = tokenize("select 'abc").unwrap_err();
        assert_eq!(error.message, "unterminated quoted string at or near \"'abc\"");
        assert_eq!(error.position, Some(8));
    }

    #[test]
    fn endless_expressions_are_refused() {
        let text = format!("select 1{}", " + 1".repeat(ARITHMETIC_MAX + 1));
        assert_eq!(tokenize(&text).unwrap_err().sqlstate, "54001");
        let text = |conditions: usize| format!("select true{}", " and a + 1 > 0".repeat(conditions));
        assert_eq!(tokenize(&text(OPERATORS_MAX / 2)).unwrap_err().sqlstate, "54001");
        assert!(tokenize(&text(OPERATORS_MAX / 4)).is_ok());
        assert!(tokenize(&format!("select {}1", "1 + 1, ".repeat(5000))).is_ok());
        assert_eq!(tokenize(&"(".repeat(5000)).unwrap_err().sqlstate, "54001");
    }
}
