//! What evaluating an expression fails with, in PostgreSQL's words: SQLSTATE and message. Our own functions say
//! PostgreSQL's messages, by which the SQLSTATE is found here; what Arrow's kernels and the `regex` crate say is put into
//! those words. Gateways and data nodes both tell clients of it.

use std::error::Error;

use arrow::error::ArrowError;
use datafusion::common::DataFusionError;

/// A user's mistake, or a limit that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub sqlstate: &'static str,
    pub message: String,
}

/// The failure of an evaluation; `None`: it is none that users can bring about.
#[must_use]
pub fn failure_of(error: &DataFusionError) -> Option<Failure> {
    match error {
        DataFusionError::Execution(message) => of_words(message),
        DataFusionError::ArrowError(inner, _) => of_arrow(inner),
        DataFusionError::External(inner) => of_any(inner.as_ref()),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => failure_of(inner),
        DataFusionError::Shared(inner) => failure_of(inner),
        _ => None,
    }
}

/// The same of an error that is wrapped.
#[must_use]
pub fn of_any(error: &(dyn Error + Send + Sync + 'static)) -> Option<Failure> {
    if let Some(inner) = error.downcast_ref::<DataFusionError>() {
        return failure_of(inner);
    }
    if let Some(inner) = error.downcast_ref::<ArrowError>() {
        return of_arrow(inner);
    }
    // DataFusion's simplifier asks the parser of patterns by itself.
    of_pattern(&error.to_string())
}

/// The same of Arrow's errors.
#[must_use]
pub fn of_arrow(error: &ArrowError) -> Option<Failure> {
    match error {
        ArrowError::ExternalError(inner) => of_any(inner.as_ref()),
        ArrowError::DivideByZero => Some(failure("22012", "division by zero")),
        ArrowError::ArithmeticOverflow(message) => Some(overflow(message)),
        ArrowError::CastError(message) | ArrowError::ParseError(message) => Some(of_cast(message)),
        ArrowError::InvalidArgumentError(message) if is_long_decimal(message) => Some(numeric_overflow()),
        ArrowError::InvalidArgumentError(message) | ArrowError::ComputeError(message) => of_words(message),
        ArrowError::MemoryError(_) => Some(failure("53200", "out of memory")),
        ArrowError::OffsetOverflowError(_) => Some(failure("54000", "the result of an expression is too large")),
        _ => None,
    }
}

fn failure(sqlstate: &'static str, message: impl Into<String>) -> Failure {
    Failure { sqlstate, message: message.into() }
}

/// Where the words stand in a message.
enum Words {
    Whole(&'static str),
    Start(&'static str),
    End(&'static str),
    Within(&'static str),
}

use Words::{End, Start, Whole, Within};

/// The first that fits counts.
const STATES: &[(Words, &str)] = &[
    // Times
    (Whole("timestamp out of range"), "22008"),
    (Start("timestamp out of range: \""), "22008"),
    (Whole("date out of range"), "22008"),
    (Whole("date out of range for timestamp"), "22008"),
    (Whole("origin out of range"), "22008"),
    (Whole("interval out of range"), "22008"),
    (Whole("timestamp cannot be NaN"), "22008"),
    (Start("cannot subtract infinite "), "22008"),
    (Start("date field value out of range"), "22008"),
    (Start("time field value out of range"), "22008"),
    (Start("date/time field value out of range"), "22008"),
    (Whole("stride must be greater than zero"), "22008"),
    (Start("timestamps cannot be binned"), "0A000"),
    (Whole("period must be greater than 0"), "22023"),
    (Whole("month intervals cannot have day or time component"), "22023"),
    (Whole("interval must not have sub-day precision"), "22023"),
    (Start("time zone \""), "22023"),
    (Start("the unit of "), "0A000"),
    // Numbers
    (Whole("division by zero"), "22012"),
    (Whole("count must be greater than zero"), "2201G"),
    (Whole("lower bound cannot equal upper bound"), "2201G"),
    (Whole("lower and upper bounds must be finite"), "2201G"),
    (Start("operand, lower bound, and upper bound"), "2201G"),
    (Whole("factorial of a negative number is undefined"), "22003"),
    (Whole("cannot take square root of a negative number"), "2201F"),
    (Whole("zero raised to a negative power is undefined"), "2201F"),
    (Start("a negative number raised to a non-integer power"), "2201F"),
    (Start("cannot take logarithm of "), "2201E"),
    (Start("value out of range"), "22003"),
    (End("out of range"), "22003"),
    // Texts, bytes and patterns
    (Whole("negative substring length not allowed"), "22011"),
    (Start("invalid regular expression option"), "22023"),
    (Start("invalid regular expression: "), "2201B"),
    (Start("this form of regular expression is not supported"), "0A000"),
    (End("does not support the \"global\" option"), "22023"),
    (Start("invalid value for parameter"), "22023"),
    (Whole("field position must not be zero"), "22023"),
    (Whole("requested length too large"), "54000"),
    (Whole("array size exceeds the maximum allowed (134217727)"), "54000"),
    (Whole("dimension array or low bound array cannot be null"), "22004"),
    (Start("number of elements to trim must be between"), "2202E"),
    (Whole("null values cannot be formatted as an SQL identifier"), "22004"),
    (Within("format() type specifier"), "22023"),
    (Whole("too few arguments for format()"), "22023"),
    (Start("format specifies argument 0"), "22023"),
    (Whole("null character not permitted"), "54000"),
    (Whole("character number must be positive"), "22023"),
    (Start("requested character "), "54000"),
    (Whole("invalid input syntax for type bytea"), "22P02"),
    (Start("unrecognized encoding"), "22023"),
];

/// By the words of a function, or of what a library says.
#[must_use]
pub fn of_words(message: &str) -> Option<Failure> {
    let line = first_line(message);
    let fits = |words: &Words| match words {
        Whole(words) => line == *words,
        Start(words) => line.starts_with(words),
        End(words) => line.ends_with(words),
        Within(words) => line.contains(words),
    };
    if let Some((_, sqlstate)) = STATES.iter().find(|(words, _)| fits(words)) {
        return Some(failure(sqlstate, line));
    }
    if is_unit(line) {
        let is_known = line.contains("not supported");
        return Some(failure(if is_known { "0A000" } else { "22023" }, line));
    }
    of_pattern(message).or_else(|| of_library(line))
}

fn is_unit(line: &str) -> bool {
    line.starts_with("unit \"")
}

fn of_library(line: &str) -> Option<Failure> {
    let lower = line.to_ascii_lowercase();
    if line.starts_with("NTILE requires a positive integer") {
        return Some(failure("22014", "argument of ntile must be greater than zero"));
    }
    if lower.contains("divide by zero") {
        return Some(failure("22012", "division by zero"));
    }
    if lower.contains("overflow") {
        return Some(overflow(line));
    }
    // A call that DataFusion's function cannot have been meant for.
    if CALLS_REFUSED.iter().any(|words| line.contains(words)) {
        return Some(failure("42883", line));
    }
    ARGUMENTS_REFUSED.iter().any(|words| line.contains(words)).then(|| failure("22023", line))
}

/// What DataFusion's functions say to arguments of types that they do not take,
const CALLS_REFUSED: [&str; 6] = [
    "does not support type",
    "expects list",
    "expects array",
    "expects at least",
    "Cannot access field at argument",
    "Unsupported data type",
];
/// and to values that they do not take.
const ARGUMENTS_REFUSED: [&str; 7] = [
    " requires ",
    " must be ",
    " must not ",
    " expects ",
    "Expected an integer value",
    "Expected a signed integer literal",
    "Unsupported type '",
];

/// What the `regex` crate says, the last line of it telling what is wrong, and PostgreSQL's words for that.
const PATTERNS: &[(&str, &str)] = &[
    ("unclosed character class", "brackets [] not balanced"),
    ("unclosed group", "parentheses () not balanced"),
    ("unopened group", "parentheses () not balanced"),
    ("repetition operator missing expression", "quantifier operand invalid"),
    ("unclosed counted repetition", "braces {} not balanced"),
    ("repetition quantifier expects a valid decimal", "invalid repetition count(s)"),
    ("invalid repetition count range", "invalid repetition count(s)"),
    ("invalid character class range", "invalid character range"),
    ("incomplete escape sequence", "invalid escape \\ sequence"),
    ("unrecognized escape sequence", "invalid escape \\ sequence"),
    ("hexadecimal", "invalid escape \\ sequence"),
    ("exceeds size limit", "regular expression is too complex"),
];

/// Patterns of PostgreSQL's that the `regex` crate does not match.
const PATTERNS_REFUSED: [&str; 2] = ["backreferences are not supported", "look-around"];

/// What the `regex` crate has against a pattern.
fn of_pattern(message: &str) -> Option<Failure> {
    let lower = message.to_ascii_lowercase();
    let is_pattern = ["regex parse error", "regular expression did not compile", "compiled regex exceeds"];
    if !is_pattern.iter().any(|words| lower.contains(words)) {
        return None;
    }
    if PATTERNS_REFUSED.iter().any(|words| message.contains(words)) {
        let message = "this form of regular expression is not supported: it looks around or refers back";
        return Some(failure("0A000", message));
    }
    let known = PATTERNS.iter().find(|(words, _)| message.contains(words));
    let reason = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
    let reason = known.map_or(reason, |(_, words)| words);
    Some(failure("2201B", format!("invalid regular expression: {reason}")))
}

/// The words of the `regex` crate's refusal of a pattern as PostgreSQL's.
pub(crate) fn pattern_refusal(error: &regex::Error) -> DataFusionError {
    let message = match error {
        regex::Error::CompiledTooBig(_) => "invalid regular expression: regular expression is too complex".to_owned(),
        error => {
            let text = error.to_string();
            of_pattern(&text).map_or(text, |failure| failure.message)
        }
    };
    DataFusionError::Execution(message)
}

fn is_long_decimal(message: &str) -> bool {
    message.contains("too large to store in a Decimal") || message.contains("Decimal128 of precision")
}

fn numeric_overflow() -> Failure {
    failure("22003", "numeric field overflow")
}

/// DataFusion names the type: `Int32Array overflow on abs(-2147483648)`. Arrow names the operands: `Overflow happened on:
/// 2147483647 + 1`; their size tells the type.
fn overflow(message: &str) -> Failure {
    let named = pg_type(message.split(' ').next().unwrap_or_default().trim_end_matches("Array"));
    if matches!(named, "smallint" | "integer" | "bigint") {
        return failure("22003", format!("{named} out of range"));
    }
    let operands = message.rsplit(": ").next().unwrap_or_default();
    let numbers: Vec<i128> = operands.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let fit = |min: i128, max: i128| !numbers.is_empty() && numbers.iter().all(|n| (min..=max).contains(n));
    let what = if fit(i16::MIN.into(), i16::MAX.into()) {
        "smallint"
    } else if fit(i32::MIN.into(), i32::MAX.into()) {
        "integer"
    } else if fit(i64::MIN.into(), i64::MAX.into()) {
        "bigint"
    } else {
        return numeric_overflow();
    };
    failure("22003", format!("{what} out of range"))
}

fn of_cast(message: &str) -> Failure {
    if is_long_decimal(message) {
        return numeric_overflow();
    }
    // Cannot cast string 'abc' to value of Int32 type
    if let (Some(value), Some(target)) =
        (between(message, "string '", "' to value"), between(message, "to value of ", " type"))
    {
        return invalid_text(pg_type(target), value);
    }
    // Can't cast value 70000 to type Int16
    if message.contains("Can't cast value ")
        && let Some(target) = message.rsplit(' ').next()
    {
        return failure("22003", format!("{} out of range", pg_type(target)));
    }
    for (start, name) in [("Error parsing timestamp from '", "timestamp"), ("Error parsing date from '", "date")] {
        if let Some(value) = between(message, start, "'") {
            return failure("22007", format!("invalid input syntax for type {name}: \"{value}\""));
        }
    }
    if message.contains("nterval") {
        let value = between(message, "\"", "\"").or_else(|| between(message, "'", "'")).unwrap_or_default();
        return failure("22007", format!("invalid input syntax for type interval: \"{value}\""));
    }
    if message.contains("overflow") || message.contains("out of range") {
        return failure("22003", "value out of range");
    }
    failure("22P02", first_line(message))
}

fn invalid_text(target: &str, value: &str) -> Failure {
    let is_integer = matches!(target, "smallint" | "integer" | "bigint");
    if is_integer && value.trim().parse::<i128>().is_ok() {
        return failure("22003", format!("value \"{value}\" is out of range for type {target}"));
    }
    let state = if target.starts_with("time") || matches!(target, "date" | "interval") { "22007" } else { "22P02" };
    failure(state, format!("invalid input syntax for type {target}: \"{value}\""))
}

/// Arrow's type names, as they stand in messages, by PostgreSQL's.
#[must_use]
pub fn pg_type(arrow: &str) -> &str {
    let arrow = arrow.trim();
    match arrow {
        "Boolean" => "boolean",
        "Int8" | "Int16" => "smallint",
        "UInt16" | "Int32" => "integer",
        "UInt32" | "Int64" => "bigint",
        "Float16" | "Float32" => "real",
        "Float64" => "double precision",
        "Utf8" | "LargeUtf8" | "Utf8View" => "text",
        "Null" => "unknown",
        "Date32" | "Date64" => "date",
        "Binary" | "LargeBinary" | "BinaryView" => "bytea",
        "FixedSizeBinary(16)" => "uuid",
        _ if arrow.starts_with("Timestamp") && (arrow.contains("UTC") || arrow.contains('+')) => {
            "timestamp with time zone"
        }
        _ if arrow.starts_with("Timestamp") => "timestamp without time zone",
        _ if arrow.starts_with("Time64") || arrow.starts_with("Time32") => "time without time zone",
        _ if arrow.starts_with("Interval") || arrow.starts_with("Duration") => "interval",
        _ if arrow.starts_with("Decimal") || arrow == "UInt64" => "numeric",
        _ => arrow,
    }
}

/// What stands between two other texts.
#[must_use]
pub fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = text.split_once(before)?.1;
    rest.split_once(after).map(|(found, _)| found)
}

/// The first line of a library's message, without the library's own beginning and full stop.
#[must_use]
pub fn first_line(message: &str) -> &str {
    let mut line = message.lines().next().unwrap_or_default();
    let starts =
        ["Error during planning: ", "Execution error: ", "This feature is not implemented: ", "Compute error: "];
    while let Some(rest) = starts.iter().find_map(|start| line.strip_prefix(start)) {
        line = rest;
    }
    line.trim().trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: DataFusionError, sqlstate: &str, message: &str) {
        let found = failure_of(&error.context("while it ran"));
        assert_eq!(found, Some(Failure { sqlstate: found.as_ref().unwrap().sqlstate, message: message.to_owned() }));
        assert_eq!(found.unwrap().sqlstate, sqlstate);
    }

    fn arrow(error: ArrowError) -> DataFusionError {
        DataFusionError::ArrowError(Box::new(error), None)
    }

    #[test]
    fn messages_have_postgresqls_states() {
        let check = |message: &str, state: Option<&str>| {
            assert_eq!(of_words(message).map(|failure| failure.sqlstate), state, "{message}");
        };
        check("division by zero", Some("22012"));
        check("interval out of range", Some("22008"));
        check("bigint out of range", Some("22003"));
        check("Execution error: cannot take logarithm of zero", Some("2201E"));
        check("date/time field value out of range: \"2024-13-01\"", Some("22008"));
        check("invalid regular expression: unclosed group", Some("2201B"));
        check("unit \"nothing\" not recognized for type date", Some("22023"));
        check("a message of our own making", None);
    }

    #[test]
    fn arrows_errors_get_postgresqls_words() {
        check(arrow(ArrowError::DivideByZero), "22012", "division by zero");
        let overflow = |text: &str| arrow(ArrowError::ArithmeticOverflow(format!("Overflow happened on: {text}")));
        check(overflow("2147483647 + 1"), "22003", "integer out of range");
        check(overflow("9223372036854775807 * 2"), "22003", "bigint out of range");
        let cast = |text: &str| arrow(ArrowError::CastError(text.to_owned()));
        let wrong = "invalid input syntax for type integer: \"abc\"";
        check(cast("Cannot cast string 'abc' to value of Int32 type"), "22P02", wrong);
        let large = "value \"99999999999\" is out of range for type integer";
        check(cast("Cannot cast string '99999999999' to value of Int32 type"), "22003", large);
        check(cast("Can't cast value 70000 to type Int16"), "22003", "smallint out of range");
        let nested = DataFusionError::Execution("cannot take logarithm of zero".to_owned());
        check(arrow(ArrowError::from(nested)), "2201E", "cannot take logarithm of zero");
    }

    #[test]
    fn patterns_are_refused_in_postgresqls_words() {
        let check = |pattern: &str, sqlstate: &str, message: &str| {
            let refusal = regex::Regex::new(pattern).unwrap_err();
            super::tests::check(arrow(ArrowError::ComputeError(refusal.to_string())), sqlstate, message);
            super::tests::check(DataFusionError::External(Box::new(refusal)), sqlstate, message);
        };
        check("[", "2201B", "invalid regular expression: brackets [] not balanced");
        check("a(", "2201B", "invalid regular expression: parentheses () not balanced");
        check("*", "2201B", "invalid regular expression: quantifier operand invalid");
        check("[b-a]", "2201B", "invalid regular expression: invalid character range");
        check("a{2,1}", "2201B", "invalid regular expression: invalid repetition count(s)");
        let refused = "this form of regular expression is not supported: it looks around or refers back";
        check("(?=a)", "0A000", refused);
    }
}
