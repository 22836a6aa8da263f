//! From text to statements. sqlparser reads queries, INSERT and CREATE TABLE; the rest is short enough to be read by
//! hand, in every form that clients send.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};
use meridian_proto::SqlType;

use super::alter::alter_table;
use super::calls::procedure_call;
use super::copy::parse_copy;
use super::ddl::{create_table, object_name};
use super::dialect::Postgres;
use super::hypertable::find_call;
use super::statement::{
    ExplainOptions, Insert, InsertSource, Isolation, Name, Query, SetValue, Statement, TransactionModes,
};
use super::tokens::{Cursor, position_of, slice, split, syntax_error, tokenize};
use super::types::sql_type;
use crate::error::SqlError;

/// Parses a text of any number of statements.
pub(crate) fn parse(text: &str) -> Result<Vec<Statement>, SqlError> {
    let pieces = split(tokenize(text)?);
    pieces.iter().map(|tokens| parse_tokens(text, tokens)).collect()
}

/// Parses one query out of its tokens.
pub(super) fn parse_query(text: &str, tokens: &[TokenWithSpan]) -> Result<Arc<ast::Query>, SqlError> {
    match parse_sql(text, tokens)? {
        ast::Statement::Query(query) => Ok(query.into()),
        _ => Err(syntax_error(text, tokens.first())),
    }
}

pub(crate) fn parse_query_text(text: &str) -> Result<Arc<ast::Query>, SqlError> {
    parse_query(text, &tokenize(text)?)
}

impl Query {
    /// As sqlparser reads it.
    pub(crate) fn tree(&self) -> Result<Arc<ast::Query>, SqlError> {
        if let Some(tree) = self.tree.get() {
            return Ok(Arc::clone(tree));
        }
        let tree = parse_query_text(self.cut().map_or("", |cut| cut.text()))?;
        Ok(Arc::clone(self.tree.get_or_init(|| tree)))
    }
}

/// Parses one expression, such as a column's DEFAULT.
pub(crate) fn parse_expression(text: &str) -> Result<ast::Expr, SqlError> {
    let tokens = tokenize(text)?;
    let dialect = Postgres::for_tokens(tokens.len());
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens.clone());
    let expr = parser.parse_expr().map_err(|error| parser_error(text, &tokens, &error))?;
    Ok(expr)
}

/// A statement whose error is told when it is its turn, not while the text is read.
fn refused(result: Result<Statement, SqlError>) -> Result<Statement, SqlError> {
    match result {
        Err(error) if error.sqlstate != "42601" => Ok(Statement::Refused(error)),
        result => result,
    }
}

fn parse_tokens(text: &str, tokens: &[TokenWithSpan]) -> Result<Statement, SqlError> {
    refused(parse_statement(&mut Cursor::new(text, tokens)))
}

fn parse_statement(cursor: &mut Cursor) -> Result<Statement, SqlError> {
    let word = match cursor.peek() {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.value.to_ascii_lowercase(),
        Some(Token::LParen) => return query_statement(cursor),
        _ => return Err(cursor.error()),
    };
    match word.as_str() {
        "select" | "values" | "with" | "table" => query_statement(cursor),
        "insert" => insert(cursor),
        "create" => create(cursor),
        "copy" => {
            cursor.skip(1);
            parse_copy(cursor)
        }
        "drop" if cursor.is_word_at(1, "table") => drop_table(cursor),
        "alter" if cursor.is_word_at(1, "table") => alter_table(cursor),
        "call" => call(cursor),
        "begin" | "start" | "commit" | "end" | "rollback" | "abort" => transaction(cursor, &word),
        "set" | "reset" | "show" | "discard" => parameter(cursor, &word),
        "prepare" | "execute" | "deallocate" => prepared(cursor, &word),
        "explain" => explain(cursor),
        _ => Err(refuse(cursor, &word)),
    }
}

/// Known statements that are not supported are told by name; anything else is a syntax error.
fn refuse(cursor: &Cursor, word: &str) -> SqlError {
    let unsupported = |what: String| SqlError::unsupported(format!("{what} is not supported"));
    let second = match cursor.rest().get(1).map(|token| &token.token) {
        Some(Token::Word(word)) => word.value.to_ascii_uppercase(),
        _ => String::new(),
    };
    match word {
        "savepoint" | "release" => unsupported("SAVEPOINT".to_owned())
            .with_hint("Subtransactions are not supported; ROLLBACK the whole transaction."),
        "drop" | "alter" | "comment" | "refresh" | "security" | "reassign" => {
            unsupported(format!("{} {second}", word.to_ascii_uppercase()))
        }
        "update" | "delete" | "truncate" | "merge" | "vacuum" | "analyze" | "cluster" | "reindex" | "lock"
        | "listen" | "unlisten" | "notify" | "declare" | "fetch" | "move" | "close" | "do" | "grant" | "revoke"
        | "load" | "checkpoint" | "import" => unsupported(word.to_ascii_uppercase()),
        _ => cursor.error(),
    }
}

fn parse_sql(text: &str, tokens: &[TokenWithSpan]) -> Result<ast::Statement, SqlError> {
    let dialect = Postgres::for_tokens(tokens.len());
    let mut parser =
        Parser::new(&dialect).with_recursion_limit(RECURSION_MAX).with_tokens_with_locations(tokens.to_vec());
    let statement = parser.parse_statement().map_err(|error| parser_error(text, tokens, &error))?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        let token = tokens.iter().find(|token| token.span == next.span);
        return Err(syntax_error(text, token.or(Some(&next))));
    }
    Ok(statement)
}

/// Nesting of parentheses, subqueries and the like that sqlparser follows on the stack.
const RECURSION_MAX: usize = 100;

/// sqlparser says `Expected: x, found: y at Line: 1, Column: 7`; the place tells PostgreSQL's message.
fn parser_error(text: &str, tokens: &[TokenWithSpan], error: &ParserError) -> SqlError {
    let message = match error {
        ParserError::RecursionLimitExceeded => {
            return SqlError::new("54001", "stack depth limit exceeded")
                .with_hint(format!("Statements may nest at most {RECURSION_MAX} levels deep, and some forms fewer."));
        }
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
    };
    let Some(location) = location_in(message) else {
        return if message.contains("found: EOF") {
            syntax_error(text, None)
        } else {
            SqlError::new("42601", message.trim_start_matches("sql parser error: ").to_owned())
        };
    };
    match tokens.iter().find(|token| token.span.start == location) {
        Some(token) => syntax_error(text, Some(token)),
        None => SqlError::new("42601", message.clone()).with_position(position_of(text, location)),
    }
}

fn location_in(message: &str) -> Option<Location> {
    let (_, place) = message.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    Some(Location { line: line.parse().ok()?, column: column.trim().parse().ok()? })
}

fn query_statement(cursor: &mut Cursor) -> Result<Statement, SqlError> {
    let query = match parse_sql(cursor.text, cursor.rest())? {
        ast::Statement::Query(query) => query,
        _ => return Err(cursor.error()),
    };
    if let Some(call) = find_call(&query) {
        return call;
    }
    if let ast::SetExpr::Select(select) = query.body.as_ref()
        && select.into.is_some()
    {
        return Err(SqlError::unsupported("SELECT INTO is not supported")
            .with_hint("Create the table, then INSERT ... SELECT."));
    }
    if matches!(
        query.body.as_ref(),
        ast::SetExpr::Insert(_) | ast::SetExpr::Update(_) | ast::SetExpr::Delete(_) | ast::SetExpr::Merge(_)
    ) {
        return Err(SqlError::unsupported("WITH before a data-modifying statement is not supported"));
    }
    if !query.locks.is_empty() {
        return Err(SqlError::unsupported("SELECT FOR UPDATE/SHARE is not supported"));
    }
    let text = match cursor.rest() {
        [first, .., last] => slice(cursor.text, first, last),
        _ => "",
    };
    Ok(Statement::Query(Query::read(text, query.into())))
}

/// `CALL f(...)` is planned as `SELECT f(...)`.
fn call(cursor: &mut Cursor) -> Result<Statement, SqlError> {
    let Some(first) = cursor.rest().first().cloned() else { return Err(cursor.error()) };
    cursor.skip(1);
    if !matches!(cursor.peek(), Some(Token::Word(_))) {
        return Err(cursor.error());
    }
    let mut tokens = vec![TokenWithSpan { token: Token::make_keyword("SELECT"), span: first.span }];
    tokens.extend_from_slice(cursor.rest());
    let query = parse_query(cursor.text, &tokens)?;
    let call = procedure_call(&query).ok_or_else(|| syntax_error(cursor.text, cursor.rest().get(1)))?;
    Ok(Statement::Call(call?.into()))
}

fn insert(cursor: &mut Cursor) -> Result<Statement, SqlError> {
    let ast::Statement::Insert(insert) = parse_sql(cursor.text, cursor.rest())? else { return Err(cursor.error()) };
    if insert.on.is_some() {
        return Err(SqlError::unsupported("INSERT ... ON CONFLICT is not supported"));
    }
    if insert.returning.is_some() {
        return Err(SqlError::unsupported("INSERT ... RETURNING is not supported"));
    }
    let table = match &insert.table {
        ast::TableObject::TableName(name) => object_name(name)?,
        _ => return Err(cursor.error()),
    };
    let columns =
        insert.columns.iter().map(|name| object_name(name).map(|name| name.name)).collect::<Result<_, _>>()?;
    let source = match insert.source {
        None => InsertSource::Defaults,
        Some(query) => insert_source(query),
    };
    Ok(Statement::Insert(Insert { table, columns, source }.into()))
}

/// Plain VALUES are kept as rows, for DEFAULT and for types that each column gives its untyped literals.
fn insert_source(query: Box<ast::Query>) -> InsertSource {
    let plain =
        query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none() && query.fetch.is_none();
    match *query.body {
        ast::SetExpr::Values(values) if plain => {
            let is_default = |expr: &ast::Expr| {
                matches!(expr, ast::Expr::Identifier(name)
                    if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default"))
            };
            let cell = |expr: ast::Expr| (!is_default(&expr)).then_some(expr);
            let rows = values.rows.into_iter().map(|row| row.content.into_iter().map(cell).collect());
            InsertSource::Values(rows.collect())
        }
        _ => InsertSource::Query(query.into()),
    }
}

fn create(cursor: &mut Cursor) -> Result<Statement, SqlError> {
    let is_table = cursor
        .rest()
        .iter()
        .take(4)
        .any(|token| matches!(&token.token, Token::Word(word) if word.value.eq_ignore_ascii_case("table")));
    if !is_table {
        let what = match cursor.rest().get(1).map(|token| &token.token) {
            Some(Token::Word(word)) => word.value.to_ascii_uppercase(),
            _ => return Err(cursor.error()),
        };
        let error = SqlError::unsupported(format!("CREATE {what} is not supported"));
        return Err(match what.as_str() {
            "INDEX" | "UNIQUE" => error.with_hint("Chunks are sorted by space key and time; leave the index out."),
            "EXTENSION" => error.with_hint("TimescaleDB's functions are built in."),
            _ => error,
        });
    }
    // sqlparser does not read dotted options.
    let dotted = cursor.rest().windows(2).any(|pair| {
        matches!(&pair[0].token, Token::Word(word) if ["tsdb", "timescaledb"].contains(&word.value.to_ascii_lowercase().as_str()))
            && pair[1].token == Token::Period
    });
    if dotted {
        return Err(SqlError::unsupported("CREATE TABLE ... WITH (tsdb....) is not supported")
            .with_hint("Create the table, then SELECT create_hypertable(...)."));
    }
    match parse_sql(cursor.text, cursor.rest())? {
        ast::Statement::CreateTable(table) => Ok(Statement::CreateTable(create_table(&table)?.into())),
        _ => Err(cursor.error()),
    }
}

fn drop_table(cursor: &mut Cursor) -> Result<Statement, SqlError> {
    cursor.skip(2);
    let if_exists = cursor.eat_words(&["if", "exists"]);
    let mut names = Vec::new();
    loop {
        let (schema, name) = cursor.qualified()?;
        names.push(Name { schema, name });
        if !cursor.eat(&Token::Comma) {
            break;
        }
    }
    // Nothing depends on a table yet, so both mean the same.
    let _ = cursor.eat_word("cascade") || cursor.eat_word("restrict");
    cursor.expect_end()?;
    Ok(Statement::DropTable { names, if_exists })
}

fn transaction(cursor: &mut Cursor, word: &str) -> Result<Statement, SqlError> {
    cursor.skip(1);
    match word {
        "start" => {
            cursor.expect_word("transaction")?;
            Ok(Statement::Begin { modes: transaction_modes(cursor)?, start: true })
        }
        "begin" => {
            let _ = cursor.eat_word("work") || cursor.eat_word("transaction");
            Ok(Statement::Begin { modes: transaction_modes(cursor)?, start: false })
        }
        _ => {
            if cursor.is_word("prepared") {
                return Err(SqlError::unsupported("two-phase commit is not supported"));
            }
            let _ = cursor.eat_word("work") || cursor.eat_word("transaction");
            if cursor.is_word("to") {
                return Err(SqlError::unsupported("SAVEPOINT is not supported"));
            }
            let chain = if cursor.eat_word("and") {
                let no = cursor.eat_word("no");
                cursor.expect_word("chain")?;
                !no
            } else {
                false
            };
            cursor.expect_end()?;
            Ok(if matches!(word, "commit" | "end") {
                Statement::Commit { chain }
            } else {
                Statement::Rollback { chain }
            })
        }
    }
}

fn transaction_modes(cursor: &mut Cursor) -> Result<TransactionModes, SqlError> {
    let mut modes = TransactionModes::default();
    while !cursor.is_end() {
        if cursor.eat_words(&["isolation", "level"]) {
            modes.isolation = Some(isolation(cursor)?);
        } else if cursor.eat_words(&["read", "only"]) {
            modes.read_only = Some(true);
        } else if cursor.eat_words(&["read", "write"]) {
            modes.read_only = Some(false);
        } else if cursor.eat_words(&["not", "deferrable"]) || cursor.eat_word("deferrable") {
        } else {
            return Err(cursor.error());
        }
        let _ = cursor.eat(&Token::Comma);
    }
    Ok(modes)
}

fn isolation(cursor: &mut Cursor) -> Result<Isolation, SqlError> {
    let levels: [(&[&str], Isolation); 4] = [
        (&["read", "uncommitted"], Isolation::ReadUncommitted),
        (&["read", "committed"], Isolation::ReadCommitted),
        (&["repeatable", "read"], Isolation::RepeatableRead),
        (&["serializable"], Isolation::Serializable),
    ];
    let found = levels.iter().find(|(words, _)| cursor.eat_words(words));
    found.map(|(_, level)| *level).ok_or_else(|| cursor.error())
}

fn parameter(cursor: &mut Cursor, word: &str) -> Result<Statement, SqlError> {
    cursor.skip(1);
    match word {
        "set" => set(cursor),
        "show" => {
            if cursor.eat_word("all") {
                cursor.expect_end()?;
                return Ok(Statement::ShowAll);
            }
            let name = parameter_name(cursor)?;
            cursor.expect_end()?;
            Ok(Statement::Show { name })
        }
        "reset" => {
            let name = if cursor.eat_word("all") { None } else { Some(parameter_name(cursor)?) };
            cursor.expect_end()?;
            Ok(Statement::Reset { name })
        }
        _ => {
            let whole = ["all", "plans", "sequences", "temp", "temporary"].iter().find(|what| cursor.eat_word(what));
            cursor.expect_end()?;
            match whole {
                Some(&"all") => Ok(Statement::DiscardAll),
                Some(_) => Err(SqlError::unsupported("only DISCARD ALL is supported")),
                None => Err(cursor.error()),
            }
        }
    }
}

/// A parameter's name in small letters; the ones of several words by their real names.
fn parameter_name(cursor: &mut Cursor) -> Result<String, SqlError> {
    if cursor.eat_words(&["time", "zone"]) {
        return Ok("timezone".to_owned());
    }
    if cursor.eat_words(&["transaction", "isolation", "level"]) {
        return Ok("transaction_isolation".to_owned());
    }
    if cursor.eat_words(&["session", "authorization"]) {
        return Ok("session_authorization".to_owned());
    }
    let mut name = cursor.identifier()?;
    while cursor.eat(&Token::Period) {
        name = format!("{name}.{}", cursor.identifier()?);
    }
    Ok(name)
}

fn set(cursor: &mut Cursor) -> Result<Statement, SqlError> {
    if cursor.eat_words(&["session", "characteristics", "as", "transaction"]) {
        return Ok(Statement::SetTransaction { modes: transaction_modes(cursor)?, session: true });
    }
    let local = cursor.eat_word("local");
    let _ = !local && cursor.is_word("session") && !cursor.is_word_at(1, "authorization") && cursor.eat_word("session");
    if cursor.eat_word("transaction") {
        if cursor.is_word("snapshot") {
            return Err(SqlError::unsupported("SET TRANSACTION SNAPSHOT is not supported"));
        }
        return Ok(Statement::SetTransaction { modes: transaction_modes(cursor)?, session: false });
    }
    if cursor.eat_words(&["time", "zone"]) {
        return set_time_zone(cursor, local);
    }
    if cursor.eat_word("names") {
        let value = cursor.string().map_or(SetValue::Default, SetValue::Value);
        let _ = cursor.eat_word("default");
        cursor.expect_end()?;
        return Ok(Statement::Set { name: "client_encoding".to_owned(), value, local });
    }
    if cursor.is_word("role")
        || (cursor.is_word("session") && cursor.is_word_at(1, "authorization"))
        || cursor.is_word("constraints")
    {
        return Err(SqlError::unsupported("SET of roles and constraints is not supported"));
    }
    let name = parameter_name(cursor)?;
    if !cursor.eat(&Token::Eq) {
        cursor.expect_word("to")?;
    }
    let value = set_value(cursor)?;
    cursor.expect_end()?;
    Ok(Statement::Set { name, value, local })
}

fn set_time_zone(cursor: &mut Cursor, local: bool) -> Result<Statement, SqlError> {
    let value = if cursor.eat_word("local") || cursor.eat_word("default") {
        SetValue::Default
    } else if cursor.eat_word("interval") {
        let text = cursor.string().ok_or_else(|| cursor.error())?;
        // INTERVAL '-08:00' HOUR TO MINUTE
        cursor.skip(cursor.rest().len());
        SetValue::Value(text)
    } else {
        set_value(cursor)?
    };
    cursor.expect_end()?;
    Ok(Statement::Set { name: "timezone".to_owned(), value, local })
}

/// One value, or a list joined by commas as PostgreSQL keeps it.
fn set_value(cursor: &mut Cursor) -> Result<SetValue, SqlError> {
    if cursor.is_word("default") {
        cursor.skip(1);
        return Ok(SetValue::Default);
    }
    let mut values = Vec::new();
    loop {
        values.push(single_value(cursor)?);
        if !cursor.eat(&Token::Comma) {
            return Ok(SetValue::Value(values.join(", ")));
        }
    }
}

fn single_value(cursor: &mut Cursor) -> Result<String, SqlError> {
    if let Some(text) = cursor.string() {
        return Ok(text);
    }
    let sign = if cursor.eat(&Token::Minus) { "-" } else { "" };
    let _ = sign.is_empty() && cursor.eat(&Token::Plus);
    match cursor.peek() {
        Some(Token::Number(number, _)) => {
            cursor.skip(1);
            Ok(format!("{sign}{number}"))
        }
        Some(Token::Word(word)) if sign.is_empty() => {
            let quoted = word.quote_style.is_some();
            cursor.skip(1);
            Ok(if quoted { format!("\"{}\"", word.value) } else { word.value.to_lowercase() })
        }
        _ => Err(cursor.error()),
    }
}

fn prepared(cursor: &mut Cursor, word: &str) -> Result<Statement, SqlError> {
    cursor.skip(1);
    match word {
        "prepare" => {
            if cursor.is_word("transaction") {
                return Err(SqlError::unsupported("two-phase commit is not supported"));
            }
            let name = cursor.identifier()?;
            let types = if cursor.eat(&Token::LParen) { parse_types(cursor)? } else { vec![] };
            cursor.expect_word("as")?;
            let statement = Box::new(parse_tokens(cursor.text, cursor.rest())?);
            match *statement {
                Statement::Query(_) | Statement::Insert(_) | Statement::Refused(_) => {
                    Ok(Statement::Prepare { name, types, statement })
                }
                _ => Err(cursor.error()),
            }
        }
        "execute" => {
            let name = cursor.identifier()?;
            let arguments = if cursor.eat(&Token::LParen) { parse_arguments(cursor)? } else { vec![] };
            cursor.expect_end()?;
            Ok(Statement::Execute { name, arguments })
        }
        _ => {
            let _ = cursor.eat_word("prepare");
            let name = if cursor.eat_word("all") { None } else { Some(cursor.identifier()?) };
            cursor.expect_end()?;
            Ok(Statement::Deallocate { name })
        }
    }
}

fn parse_types(cursor: &mut Cursor) -> Result<Vec<SqlType>, SqlError> {
    let inner = cursor.up_to_close()?;
    let dialect = Postgres::for_tokens(inner.len());
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(inner.to_vec());
    let types = parser.parse_comma_separated(Parser::parse_data_type);
    let types = types.map_err(|error| parser_error(cursor.text, inner, &error))?;
    types.iter().map(sql_type).collect()
}

fn parse_arguments(cursor: &mut Cursor) -> Result<Vec<ast::Expr>, SqlError> {
    let inner = cursor.up_to_close()?;
    let dialect = Postgres::for_tokens(inner.len());
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(inner.to_vec());
    parser.parse_comma_separated(Parser::parse_expr).map_err(|error| parser_error(cursor.text, inner, &error))
}

fn explain(cursor: &mut Cursor) -> Result<Statement, SqlError> {
    cursor.skip(1);
    let mut options = ExplainOptions { costs: true, ..ExplainOptions::default() };
    let is_list = cursor.peek() == Some(&Token::LParen)
        && !["select", "values", "with", "table"].iter().any(|word| cursor.is_word_at(1, word))
        && cursor.rest().get(1).is_some_and(|token| token.token != Token::LParen);
    if is_list {
        cursor.skip(1);
        explain_options(cursor, &mut options)?;
    } else {
        options.analyze = cursor.eat_word("analyze") || cursor.eat_word("analyse");
        options.verbose = cursor.eat_word("verbose");
    }
    let statement = Box::new(parse_statement(cursor)?);
    match *statement {
        Statement::Query(_) | Statement::Insert(_) | Statement::Execute { .. } | Statement::Refused(_) => {
            Ok(Statement::Explain { options, statement })
        }
        _ => Err(SqlError::unsupported("EXPLAIN of this statement is not supported")),
    }
}

fn explain_options(cursor: &mut Cursor, options: &mut ExplainOptions) -> Result<(), SqlError> {
    loop {
        let name = cursor.identifier()?;
        let value = match cursor.peek() {
            Some(Token::Comma | Token::RParen) | None => None,
            _ => Some(single_value(cursor)?),
        };
        let on = !matches!(value.as_deref(), Some("off" | "false" | "0"));
        match name.as_str() {
            "analyze" | "analyse" => options.analyze = on,
            "verbose" => options.verbose = on,
            "costs" => options.costs = on,
            "buffers" | "settings" | "timing" | "summary" | "wal" | "generic_plan" | "memory" | "serialize" => {}
            "format" => match value.as_deref() {
                Some("json") => options.json = true,
                Some("text") => options.json = false,
                Some("xml" | "yaml") => {
                    return Err(SqlError::unsupported("EXPLAIN supports FORMAT TEXT and FORMAT JSON"));
                }
                other => {
                    let other = other.unwrap_or_default();
                    let message = format!("unrecognized value for EXPLAIN option \"format\": \"{other}\"");
                    return Err(SqlError::new("22023", message));
                }
            },
            _ => return Err(SqlError::new("42601", format!("unrecognized EXPLAIN option \"{name}\""))),
        }
        if cursor.eat(&Token::RParen) {
            return Ok(());
        }
        cursor.expect(&Token::Comma)?;
    }
}

#[cfg(test)]
mod tests {
    use meridian_pgtypes::copy::{CopyFormat, CopyHeader};

    use super::*;

    fn one(sql: &str) -> Statement {
        parse(sql).unwrap().remove(0)
    }

    fn refusal(sql: &str) -> (String, String) {
        let error = match parse(sql) {
            Err(error) => error,
            Ok(mut statements) => match statements.remove(0) {
                Statement::Refused(error) => error,
                other => panic!("{sql}: {other:?}"),
            },
        };
        (error.sqlstate, error.message)
    }

    #[test]
    fn a_text_holds_any_number_of_statements() {
        assert_eq!(parse("select 1; select 2;").unwrap().len(), 2);
        assert_eq!(parse(" ; -- nothing\n").unwrap().len(), 0);
        let error = parse("select 1; frobnicate").unwrap_err();
        assert_eq!((error.message.as_str(), error.position), ("syntax error at or near \"frobnicate\"", Some(11)));
        assert_eq!(parse("select 1 from").unwrap_err().message, "syntax error at end of input");
        assert_eq!(parse("select 1 x y").unwrap_err().message, "syntax error at or near \"y\"");
    }

    #[test]
    fn what_is_distinct_ends_before_and_and_or() {
        let check = |text: &str, expected: &str| {
            let ast::Expr::BinaryOp { left, op, .. } = parse_expression(text).unwrap() else { panic!("{text}") };
            assert_eq!(format!("{left} | {op}"), expected);
        };
        check("a IS DISTINCT FROM b OR c", "a IS DISTINCT FROM b | OR");
        check("a IS NOT DISTINCT FROM true AND c", "a IS NOT DISTINCT FROM true | AND");
        check("a IS NOT DISTINCT FROM b + 1 AND c", "a IS NOT DISTINCT FROM b + 1 | AND");
    }

    #[test]
    fn nesting_is_read_in_little_time() {
        let nested = |open: &str, close: &str| format!("select {}1{}", open.repeat(40), close.repeat(40));
        assert!(parse(&nested("abs(", ")")).is_ok());
        assert!(parse(&nested("greatest(1, ", ", 2)")).is_ok());
        let deep = format!("select {}true", "not (".repeat(200));
        assert_eq!(refusal(&deep).0, "54001");
    }

    #[test]
    fn copy_options_come_in_both_forms() {
        let options = |sql: &str| match one(sql) {
            Statement::CopyFrom(copy) => copy.options.clone(),
            Statement::CopyTo(copy) => copy.options.clone(),
            other => panic!("{other:?}"),
        };
        for sql in ["COPY t FROM STDIN WITH CSV HEADER", "copy t from stdin (format csv, header true)"] {
            let options = options(sql);
            assert_eq!(
                (options.format, options.header, options.delimiter),
                (CopyFormat::Csv, CopyHeader::Present, b',')
            );
        }
        assert_eq!(options("COPY t (a, b) FROM STDIN").delimiter, b'\t');
        assert_eq!(options("COPY (SELECT 1) TO STDOUT BINARY").format, CopyFormat::Binary);
        assert_eq!(options("COPY t TO STDOUT WITH DELIMITER ';' NULL ''").null, "");
        assert_eq!(refusal("COPY t FROM '/etc/passwd'").0, "0A000");
        assert_eq!(refusal("COPY t FROM STDIN (format xml)").0, "22023");
        assert_eq!(refusal("COPY t FROM STDIN (quote 'x')").0, "0A000");
    }

    #[test]
    fn parameters_are_set_in_every_form() {
        let set = |sql: &str| match one(sql) {
            Statement::Set { name, value: SetValue::Value(value), local } => (name, value, local),
            other => panic!("{other:?}"),
        };
        let expect = |sql: &str, name: &str, value: &str, local: bool| {
            assert_eq!(set(sql), (name.to_owned(), value.to_owned(), local));
        };
        expect("SET statement_timeout = '5s'", "statement_timeout", "5s", false);
        expect("SET LOCAL work_mem TO 64", "work_mem", "64", true);
        expect("SET SESSION search_path TO public, \"A\"", "search_path", "public, \"A\"", false);
        expect("SET TIME ZONE 'Europe/Berlin'", "timezone", "Europe/Berlin", false);
        expect("SET extra_float_digits = -3", "extra_float_digits", "-3", false);
        expect("SET my.name = on", "my.name", "on", false);
        assert!(matches!(one("SHOW TIME ZONE"), Statement::Show { name } if name == "timezone"));
        assert!(matches!(one("RESET ALL"), Statement::Reset { name: None }));
        let modes = TransactionModes { isolation: Some(Isolation::Serializable), read_only: Some(true) };
        assert!(
            matches!(one("BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY"), Statement::Begin { modes: m, start: false } if m == modes)
        );
        assert!(matches!(one("START TRANSACTION READ ONLY"), Statement::Begin { start: true, .. }));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let check = |sql: &str, message: &str| assert_eq!(refusal(sql), ("0A000".to_owned(), message.to_owned()));
        check("UPDATE t SET a = 1", "UPDATE is not supported");
        check("CREATE INDEX ON t (a)", "CREATE INDEX is not supported");
        check("ALTER TABLE t ADD COLUMN b int", "ALTER TABLE is not supported");
        check("SAVEPOINT s", "SAVEPOINT is not supported");
        check("ROLLBACK TO SAVEPOINT s", "SAVEPOINT is not supported");
        check("CREATE TABLE t (a int PRIMARY KEY)", "PRIMARY KEY constraints are not supported yet");
        check("CREATE TABLE t (a serial)", "type serial is not supported");
        check("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "INSERT ... ON CONFLICT is not supported");
        assert_eq!(refusal("CREATE TABLE t (a geometry)").0, "42704");
    }

    #[test]
    fn values_keep_their_defaults() {
        let Statement::Insert(insert) = one("INSERT INTO s.t (a, \"B\") VALUES (1, DEFAULT)") else { panic!() };
        assert_eq!(insert.columns, ["a", "B"]);
        let InsertSource::Values(rows) = &insert.source else { panic!() };
        assert!(rows[0][0].is_some() && rows[0][1].is_none());
        assert!(matches!(one("INSERT INTO t DEFAULT VALUES"),
            Statement::Insert(insert) if matches!(insert.source, InsertSource::Defaults)));
    }

    #[test]
    fn explain_takes_lists_of_options() {
        let Statement::Explain { options, .. } = one("EXPLAIN (ANALYZE, BUFFERS off, FORMAT JSON) SELECT 1") else {
            panic!()
        };
        assert!(options.analyze && options.json);
        assert!(matches!(one("EXPLAIN (SELECT 1)"), Statement::Explain { .. }));
    }
}
