//! COPY as text: the table or query, the direction, and options in the new and in the old form.

use datafusion::sql::sqlparser::tokenizer::Token;
use meridian_pgtypes::copy::{CopyColumns, CopyFormat, CopyHeader, CopyOptions};

use super::parse::{parse_query, parse_query_text};
use super::statement::{CopyFrom, CopyTo, Name, Statement};
use super::tokens::Cursor;
use crate::error::SqlError;

/// After the word COPY.
pub(super) fn parse_copy(cursor: &mut Cursor) -> Result<Statement, SqlError> {
    if cursor.eat(&Token::LParen) {
        let query = parse_query(cursor.text, cursor.up_to_close()?)?;
        cursor.expect_word("to")?;
        expect_client(cursor, "STDOUT")?;
        let options = parse_options(cursor)?;
        return Ok(Statement::CopyTo(CopyTo { query, options }.into()));
    }
    let (schema, name) = cursor.qualified()?;
    let columns = parse_columns(cursor)?;
    let is_from = cursor.eat_word("from");
    if !is_from {
        cursor.expect_word("to")?;
    }
    expect_client(cursor, if is_from { "STDIN" } else { "STDOUT" })?;
    let options = parse_options(cursor)?;
    if is_from {
        if cursor.is_word("where") {
            return Err(SqlError::unsupported("COPY FROM with WHERE is not supported"));
        }
        return Ok(Statement::CopyFrom(CopyFrom { table: Name { schema, name }, columns, options }.into()));
    }
    let quote = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
    let list = columns.iter().map(quote).collect::<Vec<_>>().join(", ");
    let table = schema.iter().chain([&name]).map(quote).collect::<Vec<_>>().join(".");
    let text = format!("SELECT {} FROM {table}", if list.is_empty() { "*" } else { &list });
    Ok(Statement::CopyTo(CopyTo { query: parse_query_text(&text)?, options }.into()))
}

fn expect_client(cursor: &mut Cursor, stream: &str) -> Result<(), SqlError> {
    if cursor.eat_word("stdin") || cursor.eat_word("stdout") {
        return Ok(());
    }
    if cursor.is_word("program") || matches!(cursor.peek(), Some(Token::SingleQuotedString(_))) {
        return Err(SqlError::unsupported("COPY to or from a file of the server is not supported")
            .with_hint(format!("Use COPY ... {stream}; psql's \\copy command works for any file of the client.")));
    }
    Err(cursor.error())
}

fn parse_columns(cursor: &mut Cursor) -> Result<Vec<String>, SqlError> {
    let mut columns = Vec::new();
    if cursor.eat(&Token::LParen) {
        loop {
            columns.push(cursor.identifier()?);
            if cursor.eat(&Token::RParen) {
                break;
            }
            cursor.expect(&Token::Comma)?;
        }
    }
    Ok(columns)
}

/// Options as said; the format's defaults come in at the end.
#[derive(Default)]
struct Said {
    format: Option<CopyFormat>,
    delimiter: Option<String>,
    null: Option<String>,
    header: Option<CopyHeader>,
    quote: Option<String>,
    escape: Option<String>,
    force_quote: CopyColumns,
    force_not_null: CopyColumns,
    force_null: CopyColumns,
}

fn parse_options(cursor: &mut Cursor) -> Result<CopyOptions, SqlError> {
    let mut said = Said::default();
    let with = cursor.eat_word("with");
    if cursor.eat(&Token::LParen) {
        loop {
            parse_option(cursor, &mut said)?;
            if cursor.eat(&Token::RParen) {
                break;
            }
            cursor.expect(&Token::Comma)?;
        }
    } else if !cursor.is_end() && !cursor.is_word("where") {
        while !cursor.is_end() {
            parse_old_option(cursor, &mut said)?;
        }
    } else if with {
        return Err(cursor.error());
    }
    said.finish()
}

fn parse_option(cursor: &mut Cursor, said: &mut Said) -> Result<(), SqlError> {
    let name = cursor.identifier()?;
    match name.as_str() {
        "format" => {
            let format = value(cursor)?;
            said.format = Some(match format.to_ascii_lowercase().as_str() {
                "text" => CopyFormat::Text,
                "csv" => CopyFormat::Csv,
                "binary" => CopyFormat::Binary,
                _ => return Err(SqlError::new("22023", format!("COPY format \"{format}\" not recognized"))),
            });
        }
        "delimiter" => said.delimiter = Some(value(cursor)?),
        "null" => said.null = Some(value(cursor)?),
        "quote" => said.quote = Some(value(cursor)?),
        "escape" => said.escape = Some(value(cursor)?),
        "header" => said.header = Some(parse_header(cursor)?),
        "force_quote" => said.force_quote = parse_choice(cursor)?,
        "force_not_null" => said.force_not_null = parse_choice(cursor)?,
        "force_null" => said.force_null = parse_choice(cursor)?,
        "freeze" => {
            // A hint for visibility maps, which we have none of.
            let _ = optional_value(cursor);
        }
        "encoding" => check_encoding(&value(cursor)?)?,
        _ => return Err(SqlError::new("42601", format!("option \"{name}\" not recognized"))),
    }
    Ok(())
}

fn parse_header(cursor: &mut Cursor) -> Result<CopyHeader, SqlError> {
    let Some(value) = optional_value(cursor) else { return Ok(CopyHeader::Present) };
    match value.to_ascii_lowercase().as_str() {
        "true" | "on" | "1" => Ok(CopyHeader::Present),
        "false" | "off" | "0" => Ok(CopyHeader::None),
        "match" => Ok(CopyHeader::Match),
        _ => Err(SqlError::new("42601", "header requires a Boolean value or \"match\"")),
    }
}

/// `WITH CSV HEADER DELIMITER ';'`, as it was before PostgreSQL 9.0 and still is written.
fn parse_old_option(cursor: &mut Cursor, said: &mut Said) -> Result<(), SqlError> {
    if cursor.eat_word("binary") {
        said.format = Some(CopyFormat::Binary);
    } else if cursor.eat_word("csv") {
        said.format = Some(CopyFormat::Csv);
    } else if cursor.eat_word("header") {
        said.header = Some(CopyHeader::Present);
    } else if cursor.eat_word("freeze") {
    } else if cursor.eat_word("delimiter") || cursor.eat_word("delimiters") {
        said.delimiter = Some(old_value(cursor)?);
    } else if cursor.eat_word("null") {
        said.null = Some(old_value(cursor)?);
    } else if cursor.eat_word("quote") {
        said.quote = Some(old_value(cursor)?);
    } else if cursor.eat_word("escape") {
        said.escape = Some(old_value(cursor)?);
    } else if cursor.eat_word("encoding") {
        check_encoding(&old_value(cursor)?)?;
    } else if cursor.eat_words(&["force", "quote"]) {
        said.force_quote = parse_old_choice(cursor)?;
    } else if cursor.eat_words(&["force", "not", "null"]) {
        said.force_not_null = parse_old_choice(cursor)?;
    } else if cursor.eat_words(&["force", "null"]) {
        said.force_null = parse_old_choice(cursor)?;
    } else {
        return Err(cursor.error());
    }
    Ok(())
}

fn check_encoding(name: &str) -> Result<(), SqlError> {
    if matches!(name.to_ascii_lowercase().replace(['-', '_'], "").as_str(), "utf8" | "unicode" | "sqlascii") {
        return Ok(());
    }
    Err(SqlError::unsupported(format!("COPY with encoding \"{name}\" is not supported")))
}

fn value(cursor: &mut Cursor) -> Result<String, SqlError> {
    optional_value(cursor).ok_or_else(|| cursor.error())
}

fn optional_value(cursor: &mut Cursor) -> Option<String> {
    if let Some(text) = cursor.string() {
        return Some(text);
    }
    match cursor.peek() {
        Some(Token::Number(number, _)) => {
            cursor.skip(1);
            Some(number.clone())
        }
        Some(Token::Word(word)) => {
            cursor.skip(1);
            Some(word.value.clone())
        }
        _ => None,
    }
}

fn old_value(cursor: &mut Cursor) -> Result<String, SqlError> {
    let _ = cursor.eat_word("as");
    cursor.string().ok_or_else(|| cursor.error())
}

fn parse_choice(cursor: &mut Cursor) -> Result<CopyColumns, SqlError> {
    if cursor.eat(&Token::Mul) {
        return Ok(CopyColumns::All);
    }
    Ok(CopyColumns::Named(parse_columns(cursor)?))
}

fn parse_old_choice(cursor: &mut Cursor) -> Result<CopyColumns, SqlError> {
    if cursor.eat(&Token::Mul) {
        return Ok(CopyColumns::All);
    }
    let mut names = vec![cursor.identifier()?];
    while cursor.eat(&Token::Comma) {
        names.push(cursor.identifier()?);
    }
    Ok(CopyColumns::Named(names))
}

impl Said {
    fn finish(self) -> Result<CopyOptions, SqlError> {
        let mut options = CopyOptions::of_format(self.format.unwrap_or_default());
        let refuse = |message: &str| Err(SqlError::unsupported(message));
        let is_csv = options.format == CopyFormat::Csv;
        if options.format == CopyFormat::Binary {
            if self.delimiter.is_some() || self.null.is_some() {
                let what = if self.delimiter.is_some() { "DELIMITER" } else { "NULL" };
                return Err(SqlError::new("42601", format!("cannot specify {what} in BINARY mode")));
            }
            if self.header.is_some_and(|header| header != CopyHeader::None) {
                return refuse("cannot specify HEADER in BINARY mode");
            }
        }
        if !is_csv && self.quote.is_some() {
            return refuse("COPY quote available only in CSV mode");
        }
        if !is_csv && self.escape.is_some() {
            return refuse("COPY escape available only in CSV mode");
        }
        let forced = [&self.force_quote, &self.force_not_null, &self.force_null];
        if !is_csv && forced.iter().any(|choice| **choice != CopyColumns::None) {
            return refuse("COPY force options are available only in CSV mode");
        }
        if let Some(delimiter) = &self.delimiter {
            options.delimiter = one_byte(delimiter, "delimiter")?;
            check_delimiter(options.delimiter, is_csv)?;
        }
        if let Some(null) = self.null {
            if null.contains(['\r', '\n']) {
                return Err(SqlError::new("22023", "COPY null representation cannot use newline or carriage return"));
            }
            if null.as_bytes().contains(&options.delimiter) {
                return refuse("COPY delimiter must not appear in the NULL specification");
            }
            options.null = null;
        }
        if let Some(quote) = &self.quote {
            options.quote = one_byte(quote, "quote")?;
            options.escape = options.quote;
        }
        if is_csv && options.quote == options.delimiter {
            return Err(SqlError::new("22023", "COPY delimiter and quote must be different"));
        }
        if let Some(escape) = &self.escape {
            options.escape = one_byte(escape, "escape")?;
        }
        options.header = self.header.unwrap_or_default();
        options.force_quote = self.force_quote;
        options.force_not_null = self.force_not_null;
        options.force_null = self.force_null;
        Ok(options)
    }
}

fn one_byte(text: &str, what: &str) -> Result<u8, SqlError> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        _ => Err(SqlError::unsupported(format!("COPY {what} must be a single one-byte character"))),
    }
}

fn check_delimiter(delimiter: u8, is_csv: bool) -> Result<(), SqlError> {
    if matches!(delimiter, b'\r' | b'\n') {
        return Err(SqlError::new("22023", "COPY delimiter cannot be newline or carriage return"));
    }
    if !is_csv
        && (delimiter == b'\\' || delimiter == b'.' || delimiter.is_ascii_lowercase() || delimiter.is_ascii_digit())
    {
        let shown = char::from(delimiter);
        return Err(SqlError::new("22023", format!("COPY delimiter cannot be \"{shown}\"")));
    }
    Ok(())
}
