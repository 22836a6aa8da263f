//! Functions that only a gateway evaluates: texts of values as PostgreSQL writes them, and what a statement can ask about
//! its session.

pub(crate) mod coalesce;
pub(crate) mod convert;
pub(crate) mod hole;
pub(crate) mod json;
pub(crate) mod quantified;
pub(crate) mod series;
pub(crate) mod session;
pub(crate) mod single;
pub(crate) mod spread;
pub(crate) mod typed;

use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{Expr, ScalarUDF};

/// A call of one of the functions that gateways and shards both know.
pub(crate) fn called(name: &str, arguments: Vec<Expr>) -> Result<Expr> {
    match meridian_hyperfunctions::scalar_function(name) {
        Some(function) => Ok(function.call(arguments)),
        None => internal_err!("there is no function {name}"),
    }
}

/// Whether a function that only a gateway knows gives the same for the same arguments in every statement whose session has
/// the same time zone and formats.
pub(crate) fn is_lasting(function: &ScalarUDF) -> bool {
    const NAMES: [&str; 10] = [
        "to_text",
        "to_texts",
        "from_text",
        "typed",
        "spread",
        "only_one",
        "json_get",
        "json_get_text",
        "compare_any",
        "compare_all",
    ];
    NAMES.contains(&function.name()) && !convert::reads_times(function)
}
