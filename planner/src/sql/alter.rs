//! `ALTER TABLE ... SET (timescaledb.compress ...)`. sqlparser takes no dotted options, so the statement is read token by
//! token; what the options' texts say is read as TimescaleDB reads it: as lists of GROUP BY and ORDER BY.

use datafusion::sql::sqlparser::tokenizer::Token;
use meridian_proto::compression::{CompressionChange, OrderByName};

use super::statement::{AlterTable, CompressionOptions, Name, Statement};
use super::tokens::{Cursor, tokenize};
use crate::error::SqlError;

const NAMESPACE: &str = "timescaledb";

/// One option of a SET: `namespace.name = value`.
struct Definition {
    namespace: Option<String>,
    name: String,
    value: Option<String>,
}

/// Reads from ALTER on.
pub(super) fn alter_table(cursor: &mut Cursor) -> Result<Statement, SqlError> {
    cursor.skip(2);
    let if_exists = cursor.eat_words(&["if", "exists"]);
    let _ = cursor.eat_word("only");
    let (schema, name) = cursor.qualified()?;
    let _ = cursor.eat(&Token::Mul);
    let table = Name { schema, name };
    let resets = cursor.is_word("reset");
    if !(resets || cursor.is_word("set")) || cursor.rest().get(1).map(|token| &token.token) != Some(&Token::LParen) {
        return Err(SqlError::unsupported("ALTER TABLE is not supported")
            .with_hint("Supported is ALTER TABLE ... SET (timescaledb.compress, ...)."));
    }
    cursor.skip(2);
    let definitions = definitions(cursor)?;
    if cursor.peek() == Some(&Token::Comma) {
        return Err(SqlError::unsupported("ALTER TABLE with several actions is not supported"));
    }
    cursor.expect_end()?;
    let options = compression_options(definitions, resets)?;
    Ok(Statement::AlterTable(AlterTable { table, if_exists, options }.into()))
}

/// Up to the closing parenthesis.
fn definitions(cursor: &mut Cursor) -> Result<Vec<Definition>, SqlError> {
    let mut definitions = Vec::new();
    loop {
        let (namespace, name) = cursor.qualified()?;
        let value = if cursor.eat(&Token::Eq) { Some(value(cursor)?) } else { None };
        definitions.push(Definition { namespace, name, value });
        if cursor.eat(&Token::RParen) {
            return Ok(definitions);
        }
        cursor.expect(&Token::Comma)?;
    }
}

/// A text, a number or a word, as PostgreSQL's `def_arg`.
fn value(cursor: &mut Cursor) -> Result<String, SqlError> {
    if let Some(text) = cursor.string() {
        return Ok(text);
    }
    let sign = if cursor.eat(&Token::Minus) { "-" } else { "" };
    if let Some(Token::Number(number, _)) = cursor.peek() {
        cursor.skip(1);
        return Ok(format!("{sign}{number}"));
    }
    if sign.is_empty() { cursor.identifier() } else { Err(cursor.error()) }
}

fn compression_options(definitions: Vec<Definition>, resets: bool) -> Result<CompressionOptions, SqlError> {
    let ours = |definition: &Definition| definition.namespace.as_deref() == Some(NAMESPACE);
    let other = definitions.iter().find(|definition| !ours(definition));
    if let Some(Definition { namespace: Some(namespace), .. }) = other {
        return Err(SqlError::new("22023", format!("unrecognized parameter namespace \"{namespace}\"")));
    }
    match (definitions.iter().any(ours), other) {
        (false, _) => return Err(SqlError::unsupported("storage parameters of tables are not supported")),
        (true, _) if resets => return Err(SqlError::unsupported("compression options cannot be reset")),
        (true, Some(_)) => {
            let message =
                "only timescaledb.compress parameters allowed when specifying compression parameters for hypertable";
            return Err(SqlError::unsupported(message));
        }
        (true, None) => {}
    }
    let mut compress = None;
    let mut options = CompressionOptions::default();
    for Definition { name, value, .. } in definitions {
        let needed = || SqlError::new("22023", format!("parameter \"{NAMESPACE}.{name}\" must have a value"));
        let is_new = match name.as_str() {
            "compress" => compress.replace(boolean(&name, value.as_deref().unwrap_or("true"))?).is_none(),
            "compress_segmentby" => options.segment_by.replace(value.ok_or_else(needed)?).is_none(),
            "compress_orderby" => options.order_by.replace(value.ok_or_else(needed)?).is_none(),
            "compress_chunk_time_interval" => {
                let message = format!("parameter \"{NAMESPACE}.{name}\" is not supported");
                return Err(SqlError::unsupported(message)
                    .with_detail("Chunks are not merged while they are compressed.")
                    .with_hint("Choose a longer chunk_time_interval."));
            }
            _ => return Err(SqlError::new("22023", format!("unrecognized parameter \"{NAMESPACE}.{name}\""))),
        };
        if !is_new {
            return Err(SqlError::new("42725", format!("duplicate parameter \"{NAMESPACE}.{name}\"")));
        }
    }
    options.compress = compress.ok_or_else(|| {
        let message = "the option timescaledb.compress must be set to true to enable compression";
        SqlError::new("22023", message)
    })?;
    Ok(options)
}

/// Any beginning of a word that means one of the two, as `boolin` reads it.
fn boolean(name: &str, text: &str) -> Result<bool, SqlError> {
    let folded = text.trim().to_ascii_lowercase();
    let begins = |words: &[&str]| !folded.is_empty() && words.iter().any(|word| word.starts_with(&folded));
    if begins(&["true", "yes", "1"]) || folded == "on" {
        return Ok(true);
    }
    if begins(&["false", "no", "0"]) || folded == "of" || folded == "off" {
        return Ok(false);
    }
    Err(SqlError::new("22023", format!("invalid value for {NAMESPACE}.{name} '{text}'"))
        .with_hint(format!("{NAMESPACE}.{name} must be a valid bool")))
}

impl CompressionOptions {
    /// What they ask for; `None`: to turn compression off.
    pub(crate) fn change(&self) -> Result<Option<CompressionChange>, SqlError> {
        if !self.compress {
            if self.segment_by.is_some() || self.order_by.is_some() {
                return Err(SqlError::unsupported("invalid compression configuration")
                    .with_detail("Cannot set additional compression options when disabling compression."));
            }
            return Ok(None);
        }
        Ok(Some(CompressionChange {
            segment_by: self.segment_by.as_deref().map(segment_columns).transpose()?,
            order_by: self.order_by.as_deref().map(order_columns).transpose()?,
        }))
    }
}

fn segment_columns(text: &str) -> Result<Vec<String>, SqlError> {
    column_list(text, segment_column).ok_or_else(|| {
        SqlError::new("42601", format!("unable to parse segmenting option \"{text}\""))
            .with_hint("The option timescaledb.compress_segmentby must be a set of columns separated by commas.")
    })
}

fn segment_column(cursor: &mut Cursor) -> Result<String, SqlError> {
    cursor.identifier()
}

fn order_columns(text: &str) -> Result<Vec<OrderByName>, SqlError> {
    column_list(text, order_column).ok_or_else(|| {
        SqlError::new("42601", format!("unable to parse ordering option \"{text}\"")).with_hint(
            "The timescaledb.compress_orderby option must be a set of column names with sort options, separated by \
             commas. It is the same format as an ORDER BY clause.",
        )
    })
}

fn order_column(cursor: &mut Cursor) -> Result<OrderByName, SqlError> {
    let column = cursor.identifier()?;
    let descending = cursor.eat_word("desc");
    let _ = !descending && cursor.eat_word("asc");
    let nulls_first = if cursor.eat_words(&["nulls", "first"]) {
        true
    } else if cursor.eat_words(&["nulls", "last"]) {
        false
    } else {
        descending
    };
    Ok(OrderByName { column, descending, nulls_first })
}

/// `None`: it is no such list. An empty text is an empty list.
fn column_list<T>(text: &str, one: impl Fn(&mut Cursor) -> Result<T, SqlError>) -> Option<Vec<T>> {
    let tokens = tokenize(text).ok()?;
    let mut cursor = Cursor::new(text, &tokens);
    let mut columns = Vec::new();
    while !cursor.is_end() {
        columns.push(one(&mut cursor).ok()?);
        if !cursor.is_end() && (!cursor.eat(&Token::Comma) || cursor.is_end()) {
            return None;
        }
    }
    Some(columns)
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    fn alter(sql: &str) -> AlterTable {
        match parse(sql).unwrap().remove(0) {
            Statement::AlterTable(alter) => (*alter).clone(),
            other => panic!("{sql}: {other:?}"),
        }
    }

    fn change(sql: &str) -> Option<CompressionChange> {
        alter(sql).options.change().unwrap()
    }

    #[test]
    fn compression_is_turned_on_and_off_in_every_form() {
        for on in ["", " = true", " = 'on'", "=1", " = TRUE"] {
            let sql = format!("ALTER TABLE t SET (timescaledb.compress{on})");
            assert_eq!(change(&sql), Some(CompressionChange::default()), "{sql}");
        }
        for off in ["false", "'off'", "0", "no"] {
            assert_eq!(change(&format!("alter table only t set (timescaledb.compress = {off})")), None);
        }
        let found = alter("ALTER TABLE IF EXISTS public.\"T\" SET (TimescaleDB.Compress)");
        assert_eq!(found.table, Name { schema: Some("public".to_owned()), name: "T".to_owned() });
        assert!(found.if_exists && found.options.compress);
    }

    #[test]
    fn lists_are_read_as_group_by_and_order_by_are() {
        let found = change(
            "ALTER TABLE t SET (timescaledb.compress, timescaledb.compress_segmentby = 'Host, \"Rack\"', \
             timescaledb.compress_orderby = 'time DESC NULLS LAST, v, w desc')",
        )
        .unwrap();
        assert_eq!(found.segment_by.unwrap(), ["host", "Rack"]);
        let order = found.order_by.unwrap();
        let order: Vec<_> = order.iter().map(|by| (by.column.as_str(), by.descending, by.nulls_first)).collect();
        assert_eq!(order, [("time", true, false), ("v", false, false), ("w", true, true)]);
        let empty = change("ALTER TABLE t SET (timescaledb.compress, timescaledb.compress_segmentby = '')").unwrap();
        assert_eq!(empty.segment_by, Some(vec![]));
    }

    #[test]
    fn what_is_no_list_of_columns_is_refused() {
        let refused = |option: &str, text: &str| {
            let sql = format!("ALTER TABLE t SET (timescaledb.compress, timescaledb.{option} = '{text}')");
            let error = alter(&sql).options.change().unwrap_err();
            (error.sqlstate, error.message)
        };
        for text in ["random()", "a,", "a b", "a.b", ",", "a desc", "1"] {
            let message = format!("unable to parse segmenting option \"{text}\"");
            assert_eq!(refused("compress_segmentby", text), ("42601".to_owned(), message));
        }
        for text in ["a using <", "a desc asc", "a nulls", "a limit 1"] {
            let message = format!("unable to parse ordering option \"{text}\"");
            assert_eq!(refused("compress_orderby", text), ("42601".to_owned(), message));
        }
    }

    #[test]
    fn options_that_cannot_be_are_refused_as_timescaledb_does() {
        let check = |options: &str, sqlstate: &str, message: &str| {
            let sql = format!("ALTER TABLE t SET ({options})");
            let Statement::Refused(error) = parse(&sql).unwrap().remove(0) else { panic!("{sql}") };
            assert_eq!((error.sqlstate.as_str(), error.message.as_str()), (sqlstate, message), "{sql}");
        };
        check("timescaledb.nothing", "22023", "unrecognized parameter \"timescaledb.nothing\"");
        check("timescaledb.compress = maybe", "22023", "invalid value for timescaledb.compress 'maybe'");
        check("timescaledb.compress, timescaledb.compress", "42725", "duplicate parameter \"timescaledb.compress\"");
        check(
            "timescaledb.compress, timescaledb.compress_orderby",
            "22023",
            "parameter \"timescaledb.compress_orderby\" must have a value",
        );
        check(
            "timescaledb.compress_segmentby = 'a'",
            "22023",
            "the option timescaledb.compress must be set to true to enable compression",
        );
        check(
            "timescaledb.compress, fillfactor = 10",
            "0A000",
            "only timescaledb.compress parameters allowed when specifying compression parameters for hypertable",
        );
        check("fillfactor = 10", "0A000", "storage parameters of tables are not supported");
        check("toast.x = 10", "22023", "unrecognized parameter namespace \"toast\"");
        check(
            "timescaledb.compress, timescaledb.compress_chunk_time_interval = '1 day'",
            "0A000",
            "parameter \"timescaledb.compress_chunk_time_interval\" is not supported",
        );
        let off = alter("ALTER TABLE t SET (timescaledb.compress = false, timescaledb.compress_segmentby = 'a')");
        assert_eq!(off.options.change().unwrap_err().message, "invalid compression configuration");
        assert!(parse("ALTER TABLE t SET (timescaledb.compress").is_err());
    }
}
