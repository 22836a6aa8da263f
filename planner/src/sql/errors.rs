//! DataFusion's and Arrow's errors in PostgreSQL's words: SQLSTATE and message by variant, and by message where the
//! variant does not tell. The one place that knows how those libraries phrase things.

use std::error::Error;
use std::io::ErrorKind;

use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};
use meridian_hyperfunctions::failures::{self, Failure, between, first_line, pg_type};
use meridian_pgtypes::ValueError;
use meridian_proto::Refusal;

use crate::error::SqlError;

/// One of our errors on its way through DataFusion.
pub(crate) fn external(error: impl Into<SqlError>) -> DataFusionError {
    DataFusionError::External(Box::new(error.into()))
}

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        translate(&error)
    }
}

impl From<ArrowError> for SqlError {
    fn from(error: ArrowError) -> Self {
        translate_arrow(&error)
    }
}

fn translate(error: &DataFusionError) -> SqlError {
    match error {
        DataFusionError::External(inner) => translate_any(inner.as_ref()),
        DataFusionError::ArrowError(inner, _) => translate_arrow(inner),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => translate(inner),
        DataFusionError::Shared(inner) => translate(inner),
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => translate(first),
            None => SqlError::new("XX000", error.strip_backtrace()),
        },
        DataFusionError::SchemaError(schema, _) => schema_error(schema),
        DataFusionError::ResourcesExhausted(message) => SqlError::new("53200", "out of memory")
            .with_detail(first_line(message))
            .with_hint("Ask for fewer rows or groups at once, or raise \"sql.memory\"."),
        DataFusionError::NotImplemented(message) => not_implemented(message),
        DataFusionError::Plan(message) => plan_error(message),
        DataFusionError::Execution(message) => execution_error(message),
        DataFusionError::ExecutionJoin(join) if join.is_cancelled() => canceled(),
        DataFusionError::SQL(parser, _) => SqlError::new("42601", parser.to_string()),
        DataFusionError::IoError(io) => io_error(io.kind(), io.to_string()),
        other => SqlError::new("XX000", first_line(&other.strip_backtrace())),
    }
}

fn translate_any(error: &(dyn Error + Send + Sync + 'static)) -> SqlError {
    if let Some(sql) = error.downcast_ref::<SqlError>() {
        return sql.clone();
    }
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        return refusal.clone().into();
    }
    if let Some(value) = error.downcast_ref::<ValueError>() {
        return value.clone().into();
    }
    if let Some(inner) = error.downcast_ref::<DataFusionError>() {
        return translate(inner);
    }
    if let Some(inner) = error.downcast_ref::<ArrowError>() {
        return translate_arrow(inner);
    }
    match failures::of_any(error) {
        Some(failure) => failure.into(),
        None => SqlError::new("XX000", error.to_string()),
    }
}

pub(crate) fn canceled() -> SqlError {
    SqlError::new("57014", "canceling statement due to user request")
}

fn translate_arrow(error: &ArrowError) -> SqlError {
    match error {
        ArrowError::ExternalError(inner) => translate_any(inner.as_ref()),
        ArrowError::MemoryError(message) => SqlError::new("53200", "out of memory").with_detail(message.clone()),
        ArrowError::NotYetImplemented(message) => not_implemented(message),
        ArrowError::IoError(message, io) => io_error(io.kind(), message.clone()),
        other => match failures::of_arrow(other) {
            Some(failure) => failure.into(),
            None => SqlError::new("XX000", first_line(&other.to_string())),
        },
    }
}

/// Files are only those that operators spill to. Arrow hands on an error of a file as the text of one of its own.
fn io_error(kind: ErrorKind, message: String) -> SqlError {
    if message.contains("used disk space during the spilling") {
        return SqlError::new("53400", "temporary files of all statements exceed \"sql.temporary_files\"")
            .with_hint("Send it again later, or ask for less at a time, or raise \"sql.temporary_files\".");
    }
    if kind == ErrorKind::StorageFull || message.contains("No space left on device") {
        return SqlError::new("53100", "could not write to a temporary file: No space left on device")
            .with_hint("Free some space on the disk of the access node.");
    }
    SqlError::new("58030", first_line(&message))
}

impl From<Failure> for SqlError {
    fn from(failure: Failure) -> Self {
        Self::new(failure.sqlstate, failure.message)
    }
}

/// Splits at commas that are not inside parentheses, and names the types.
fn pg_types(list: &str) -> String {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (index, byte) in list.bytes().enumerate() {
        match byte {
            b'(' | b'<' => depth += 1,
            b')' | b'>' => depth -= 1,
            b',' if depth == 0 => {
                names.push(pg_type(&list[start..index]));
                start = index + 1;
            }
            _ => {}
        }
    }
    if !list[start..].trim().is_empty() {
        names.push(pg_type(&list[start..]));
    }
    names.join(", ")
}

fn schema_error(error: &SchemaError) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let Some(relation) = &field.relation else {
                return SqlError::new("42703", format!("column \"{}\" does not exist", field.name));
            };
            let table = relation.table();
            let known = valid_fields.iter().any(|f| f.relation.as_ref().is_some_and(|r| r.table() == table));
            if known {
                SqlError::new("42703", format!("column {table}.{} does not exist", field.name))
            } else {
                SqlError::new("42P01", format!("missing FROM-clause entry for table \"{table}\""))
            }
        }
        SchemaError::AmbiguousReference { field } => {
            SqlError::new("42702", format!("column reference \"{}\" is ambiguous", field.name))
        }
        SchemaError::DuplicateQualifiedField { qualifier, .. } => {
            SqlError::new("42712", format!("table name \"{}\" specified more than once", qualifier.table()))
        }
        SchemaError::DuplicateUnqualifiedField { name } => {
            SqlError::new("42701", format!("column \"{name}\" specified more than once"))
        }
    }
}

const NO_MATCH_HINT: &str =
    "No function matches the given name and argument types. You might need to add explicit type casts.";

fn plan_error(message: &str) -> SqlError {
    if let Some(name) = between(message, "Invalid function '", "'") {
        return SqlError::new("42883", format!("function {name} does not exist")).with_hint(NO_MATCH_HINT);
    }
    if let Some(call) =
        between(message, "argument types '", "'.").or_else(|| between(message, "No function matches '", "'."))
    {
        let (name, types) = call.split_once('(').unwrap_or((call, ""));
        let types = types.strip_suffix(')').unwrap_or(types);
        return SqlError::new("42883", format!("function {name}({}) does not exist", pg_types(types)))
            .with_hint(NO_MATCH_HINT);
    }
    if message.starts_with("function ") && message.ends_with("does not exist") {
        let types = between(message, "(", ") does not exist").unwrap_or_default();
        let name = between(message, "function ", "(").unwrap_or_default();
        return SqlError::new("42883", format!("function {name}({}) does not exist", pg_types(types)))
            .with_hint(NO_MATCH_HINT);
    }
    if let Some(name) = between(message, "to satisfy a call to '", "'") {
        return SqlError::new("42883", format!("function {name} does not exist")).with_hint(NO_MATCH_HINT);
    }
    if message.contains("does not support zero arguments") {
        let name = between(message, "'", "'").unwrap_or_default();
        return SqlError::new("42883", format!("function {name}() does not exist")).with_hint(NO_MATCH_HINT);
    }
    operator_error(message).or_else(|| grouping_error(message)).unwrap_or_else(|| other_plan_error(message))
}

const NO_OPERATOR_HINT: &str =
    "No operator matches the given name and argument types. You might need to add explicit type casts.";

/// `Cannot coerce arithmetic expression Utf8 + Int64 to valid types`, `Cannot infer common argument type for comparison
/// operation Date32 = Boolean`.
fn operator_error(message: &str) -> Option<SqlError> {
    let expression = between(message, "Cannot coerce arithmetic expression ", " to valid types")
        .or_else(|| {
            message.split_once("common argument type for comparison operation ").map(|(_, rest)| first_line(rest))
        })
        .or_else(|| message.split_once("logical boolean operation ").map(|(_, rest)| first_line(rest)))
        .or_else(|| between(message, "result type for temporal operation ", ": Invalid"))
        .or_else(|| message.split_once("regex operation ").map(|(_, rest)| first_line(rest)))
        .or_else(|| message.split_once("bitwise operation ").map(|(_, rest)| first_line(rest)))
        .or_else(|| message.split_once("string concat operation ").map(|(_, rest)| first_line(rest)))?;
    let words: Vec<&str> = expression.split(' ').collect();
    // Types may hold blanks; the operator does not, and stands between them.
    let operator = words.iter().position(|word| {
        word.chars().all(|c| "+-*/%<>=!~|&^#@".contains(c)) || matches!(*word, "AND" | "OR" | "LIKE" | "ILIKE" | "IS")
    })?;
    let left = words[..operator].join(" ");
    let right = words[operator + 1..].join(" ");
    if let connective @ ("AND" | "OR") = words[operator] {
        let wrong = if left == "Boolean" { &right } else { &left };
        let text = format!("argument of {connective} must be type boolean, not type {}", pg_type(wrong));
        return Some(SqlError::new("42804", text));
    }
    let text = format!("operator does not exist: {} {} {}", pg_type(&left), words[operator], pg_type(right.trim()));
    Some(SqlError::new("42883", text).with_hint(NO_OPERATOR_HINT))
}

fn grouping_error(message: &str) -> Option<SqlError> {
    if message.contains("must appear in the GROUP BY clause")
        || message.contains("could not be resolved from available columns")
    {
        let column = between(message, "column \"", "\"")
            .or_else(|| between(message, "references: ", " must appear"))
            .or_else(|| between(message, "expression ", " could not be resolved"))
            .unwrap_or_default();
        let column = column.replace('"', "");
        return Some(SqlError::new(
            "42803",
            format!("column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function"),
        ));
    }
    if message.contains("Aggregate functions are not allowed in the WHERE") {
        return Some(SqlError::new("42803", "aggregate functions are not allowed in WHERE"));
    }
    None
}

/// What DataFusion says of correlated subqueries that it cannot make a join of.
const SUBQUERY_LIMITS: [&str; 6] = [
    "Correlated scalar subquery",
    "scalar correlated subquery",
    "SetComparison subquery can only",
    "outer reference columns is not allowed",
    "Unsupported Subquery plan",
    "Correlated column is not allowed",
];

fn unplanned_subquery() -> SqlError {
    SqlError::unsupported("this form of subquery is not supported")
        .with_hint("Join the tables, or compare the outer query's columns with = in the subquery's WHERE.")
}

fn other_plan_error(message: &str) -> SqlError {
    let text = first_line(message);
    if message.contains("Ambiguous reference") {
        let column = text.rsplit(' ').next().unwrap_or_default().replace('"', "");
        return SqlError::new("42702", format!("column reference \"{column}\" is ambiguous"));
    }
    if message.contains("queries have different number of columns") {
        let operator = text.split(' ').next().unwrap_or("UNION").to_owned();
        return SqlError::new("42601", format!("each {operator} query must have the same number of columns"));
    }
    if let Some(position) = between(message, "Order by column out of bounds, specified: ", ",") {
        return SqlError::new("42P10", format!("ORDER BY position {position} is not in select list"));
    }
    if let Some((before, after)) =
        between(message, "Incompatible inputs for Union: Previous inputs were of type ", " on")
            .and_then(|types| types.split_once(", but got incompatible type "))
    {
        let text = format!("UNION types {} and {} cannot be matched", pg_type(before), pg_type(after));
        return SqlError::new("42804", text);
    }
    if let Some(names) = between(message, "Source table contains ", " names given as column alias") {
        let (columns, names) = names.split_once(" columns but only ").unwrap_or((names, ""));
        return SqlError::new("42P10", format!("table has {columns} columns available but {names} columns specified"));
    }
    if message.contains("Cannot access field at argument") {
        return SqlError::new("42703", "a column of that name does not exist in a value that is no row");
    }
    if message.contains("Aggregate function calls cannot be nested") {
        return SqlError::new("42803", "aggregate function calls cannot be nested");
    }
    if message.contains("Cannot find column with position") {
        let position = between(message, "with position ", " in").unwrap_or_default();
        return SqlError::new("42P10", format!("position {position} is not in select list"));
    }
    if message.contains("SELECT * with no tables") {
        return SqlError::new("42601", "SELECT * with no tables specified is not valid");
    }
    if message.contains("expressions must appear in select list") {
        return SqlError::new("42P10", "for SELECT DISTINCT, ORDER BY expressions must appear in select list");
    }
    if message.contains("SELECT DISTINCT ON expressions must match") {
        return SqlError::new("42P10", "SELECT DISTINCT ON expressions must match initial ORDER BY expressions");
    }
    if message.contains("specified more than once") && message.contains("WITH query") {
        let name = between(message, "name \"", "\"").unwrap_or_default();
        return SqlError::new("42712", format!("WITH query name \"{name}\" specified more than once"));
    }
    if let Some(error) = cast_refusal(message) {
        return error;
    }
    if message.contains("Scalar subquery should only return one column") || message.contains("Too many columns!") {
        return SqlError::new("42601", "subquery must return only one column");
    }
    if SUBQUERY_LIMITS.iter().any(|limit| message.contains(limit)) {
        return unplanned_subquery();
    }
    if message.contains("LIMIT must be >=") {
        return SqlError::new("2201W", "LIMIT must not be negative");
    }
    if message.contains("OFFSET must be >=") {
        return SqlError::new("2201X", "OFFSET must not be negative");
    }
    if let Some(found) = message.split_once("requires a boolean expression, got ").map(|(_, rest)| first_line(rest)) {
        let text = format!("argument of NOT must be type boolean, not type {}", pg_type(found));
        return SqlError::new("42804", text);
    }
    if let Some(found) = message.split_once("Join condition must be boolean type, but got ").map(|(_, found)| found) {
        let text = format!("argument of JOIN/ON must be type boolean, not type {}", pg_type(first_line(found)));
        return SqlError::new("42804", text);
    }
    if let Some(table) = message.strip_prefix("Invalid qualifier ") {
        return SqlError::new("42P01", format!("missing FROM-clause entry for table \"{}\"", first_line(table)));
    }
    if let Some((left, right)) =
        between(message, "common type to coerce ", " in LIKE expression").and_then(|types| types.split_once(" and "))
    {
        let text = format!("operator does not exist: {} ~~ {}", pg_type(left), pg_type(right));
        return SqlError::new("42883", text).with_hint(NO_OPERATOR_HINT);
    }
    if message.contains("Unary operator '-' only supports") {
        return SqlError::new("42883", "operator does not exist: - unknown").with_hint(NO_OPERATOR_HINT);
    }
    if message.contains("Invalid escape character in LIKE") {
        return SqlError::new("22025", "invalid escape string")
            .with_hint("Escape string must be empty or one character.");
    }
    if message.contains("boolean") && message.contains("Cannot create filter") {
        return SqlError::new("42804", "argument of WHERE must be type boolean");
    }
    if message.contains("to common types in CASE")
        || message.contains("common argument type")
        || message.contains("coerce")
    {
        return SqlError::new("42804", text);
    }
    if message.contains("Unsupported") || message.contains("not supported") || message.contains("not implemented") {
        return SqlError::unsupported(text);
    }
    SqlError::new("42601", text)
}

/// `Cannot cast type Int32 to Timestamp...`, `Unsupported CAST from Boolean to Date32`
fn cast_refusal(message: &str) -> Option<SqlError> {
    let rest = message.split_once("CAST from ").or_else(|| message.split_once("cast from ")).map(|(_, rest)| rest)?;
    let (from, to) = first_line(rest).split_once(" to ")?;
    let text = format!("cannot cast type {} to {}", pg_type(from), pg_type(to.trim_end_matches('.')));
    Some(SqlError::new("42846", text))
}

fn execution_error(message: &str) -> SqlError {
    if let Some(failure) = failures::of_words(message) {
        return failure.into();
    }
    let text = first_line(message);
    if text.contains("more than one row") {
        return SqlError::new("21000", "more than one row returned by a subquery used as an expression");
    }
    let state = if text.starts_with("invalid input syntax") || text.contains("nvalid") { "22023" } else { "XX000" };
    SqlError::new(state, text)
}

fn not_implemented(message: &str) -> SqlError {
    let text = first_line(message);
    if let Some(name) =
        between(message, "Unsupported SQL type ", "\n").or_else(|| message.strip_prefix("Unsupported SQL type "))
    {
        return super::types::unknown(name.trim());
    }
    if let Some(error) = cast_refusal(message) {
        return error;
    }
    let subqueries = ["ScalarSubquery", "InSubquery", "Exists(", "SetComparison", "OuterReferenceColumn"];
    if SUBQUERY_LIMITS.iter().chain(&subqueries).any(|limit| message.contains(limit)) {
        return unplanned_subquery();
    }
    if let Some(operator) = between(message, "Unsupported binary operator: ", "\n")
        .or_else(|| message.strip_prefix("Unsupported binary operator: "))
    {
        // A name of the parser's: `Custom("x")`, `PGOverlap`.
        let symbol = between(operator, "\"", "\"").map(|symbol| format!(" {symbol}")).unwrap_or_default();
        return SqlError::unsupported(format!("operator{symbol} is not supported"));
    }
    // Trees of the parser and of plans are not for users.
    let debugs = ["Unsupported ast node", "Unsupported Query Fields", " { ", "Some(", "Value("];
    if debugs.iter().any(|debug| text.contains(debug)) {
        return SqlError::unsupported("this form of statement is not supported");
    }
    SqlError::unsupported(format!("not supported: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: DataFusionError, state: &str, message: &str) {
        let error = SqlError::from(error);
        assert_eq!((error.sqlstate.as_str(), error.message.as_str()), (state, message));
    }

    fn plan(message: &str) -> DataFusionError {
        DataFusionError::Plan(message.to_owned())
    }

    #[test]
    fn failures_keep_their_words_on_every_way() {
        let negative = || DataFusionError::Execution("cannot take logarithm of a negative number".to_owned());
        let arrow = |error: ArrowError| DataFusionError::ArrowError(Box::new(error), None);
        for error in [negative(), arrow(ArrowError::from(negative())), negative().context("while it ran")] {
            check(error, "2201E", "cannot take logarithm of a negative number");
        }
        check(arrow(ArrowError::DivideByZero), "22012", "division by zero");
    }

    #[test]
    fn plan_errors_get_postgresqls_words() {
        check(plan("Invalid function 'foo'.\nDid you mean 'floor'?"), "42883", "function foo does not exist");
        check(
            plan(
                "No function matches the given name and argument types 'abs(Utf8, Timestamp(us, \"UTC\"))'. You might",
            ),
            "42883",
            "function abs(text, timestamp with time zone) does not exist",
        );
        check(
            plan("Cannot coerce arithmetic expression Utf8 + Boolean to valid types"),
            "42883",
            "operator does not exist: text + boolean",
        );
        check(
            plan(
                "Column in SELECT must be in GROUP BY or an aggregate function: While expanding wildcard, column \"t.a\" must appear in the GROUP BY clause or must be part of",
            ),
            "42803",
            "column \"t.a\" must appear in the GROUP BY clause or be used in an aggregate function",
        );
    }

    #[test]
    fn our_own_errors_come_through() {
        let own = SqlError::new("42P01", "relation \"t\" does not exist");
        check(external(own).context("while planning"), "42P01", "relation \"t\" does not exist");
        check(external(Refusal::Canceled), "57014", "canceling statement due to user request");
    }
}
