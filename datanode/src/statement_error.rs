//! DataFusion's errors as refusals: what a client is told, with PostgreSQL's SQLSTATE.

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use meridian_proto::Refusal;

const DIVISION_BY_ZERO: &str = "22012";
const NUMERIC_VALUE_OUT_OF_RANGE: &str = "22003";
const INVALID_TEXT_REPRESENTATION: &str = "22P02";
const OUT_OF_MEMORY: &str = "53200";
const INTERNAL_ERROR: &str = "XX000";

/// What a fragment's failure means to the client. A refusal that travelled through the plan comes out as it went in.
#[must_use]
pub fn refusal_of(error: &DataFusionError) -> Refusal {
    let root = error.find_root();
    match root {
        DataFusionError::External(inner) => match inner.downcast_ref::<Refusal>() {
            Some(refusal) => refusal.clone(),
            None => statement(INTERNAL_ERROR, root.strip_backtrace()),
        },
        DataFusionError::ArrowError(arrow, _) => of_arrow(arrow),
        DataFusionError::ResourcesExhausted(message) => {
            statement(OUT_OF_MEMORY, format!("out of memory on a data node: {message}"))
        }
        _ => statement(INTERNAL_ERROR, root.strip_backtrace()),
    }
}

fn of_arrow(error: &ArrowError) -> Refusal {
    match error {
        ArrowError::DivideByZero => statement(DIVISION_BY_ZERO, "division by zero"),
        ArrowError::ArithmeticOverflow(message) => {
            statement(NUMERIC_VALUE_OUT_OF_RANGE, format!("value out of range: {message}"))
        }
        // "Can't cast value 70000 to type Int16", as against "Cannot cast string 'x' to value of Int16 type".
        ArrowError::CastError(message) if message.starts_with("Can't cast value") => {
            statement(NUMERIC_VALUE_OUT_OF_RANGE, format!("value out of range: {message}"))
        }
        ArrowError::CastError(message) | ArrowError::ParseError(message) => {
            statement(INVALID_TEXT_REPRESENTATION, message)
        }
        ArrowError::MemoryError(message) => statement(OUT_OF_MEMORY, message),
        other => statement(INTERNAL_ERROR, other.to_string()),
    }
}

fn statement(sqlstate: &str, message: impl Into<String>) -> Refusal {
    Refusal::Statement { sqlstate: sqlstate.to_owned(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_proto::ChunkId;

    #[test]
    fn errors_have_postgres_sqlstates() {
        let check = |error: DataFusionError, expected: &str| {
            let wrapped = error.context("while it ran");
            assert_eq!(refusal_of(&wrapped).sqlstate(), expected, "{wrapped}");
        };
        let arrow = |error| DataFusionError::ArrowError(Box::new(error), None);
        check(arrow(ArrowError::DivideByZero), "22012");
        check(arrow(ArrowError::ArithmeticOverflow("1 + 2".to_owned())), "22003");
        check(arrow(ArrowError::CastError("Cannot cast string 'x' to value of Int32 type".to_owned())), "22P02");
        check(arrow(ArrowError::CastError("Can't cast value 70000 to type Int16".to_owned())), "22003");
        check(DataFusionError::ResourcesExhausted("pool".to_owned()), "53200");
        check(DataFusionError::Execution("else".to_owned()), "XX000");
        check(DataFusionError::External(Box::new(Refusal::Dropping(ChunkId(3)))), "40001");
    }
}
