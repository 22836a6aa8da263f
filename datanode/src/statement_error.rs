//! DataFusion's errors as refusals: what a client is told, with PostgreSQL's SQLSTATE.

use datafusion::error::DataFusionError;
use meridian_hyperfunctions::failures::failure_of;
use meridian_proto::Refusal;

const OUT_OF_MEMORY: &str = "53200";
const INTERNAL_ERROR: &str = "XX000";

/// What a fragment's failure means to the client. A refusal that travelled through the plan comes out as it went in.
#[must_use]
pub fn refusal_of(error: &DataFusionError) -> Refusal {
    let root = error.find_root();
    if let DataFusionError::External(inner) = root
        && let Some(refusal) = inner.downcast_ref::<Refusal>()
    {
        return refusal.clone();
    }
    if let DataFusionError::ResourcesExhausted(message) = root {
        return statement(OUT_OF_MEMORY, format!("out of memory on a data node: {message}"));
    }
    match failure_of(root) {
        Some(failure) => statement(failure.sqlstate, failure.message),
        None => statement(INTERNAL_ERROR, root.strip_backtrace()),
    }
}

fn statement(sqlstate: &str, message: impl Into<String>) -> Refusal {
    Refusal::Statement { sqlstate: sqlstate.to_owned(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use arrow::error::ArrowError;
    use meridian_proto::ChunkId;

    use super::*;

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
        let undefined = || DataFusionError::Execution("cannot take logarithm of zero".to_owned());
        check(undefined(), "2201E");
        check(arrow(ArrowError::from(undefined())), "2201E");
        check(DataFusionError::Execution("else".to_owned()), "XX000");
        check(DataFusionError::External(Box::new(Refusal::Dropping(ChunkId(3)))), "40001");
    }
}
