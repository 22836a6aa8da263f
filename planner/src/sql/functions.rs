//! Functions that only a gateway evaluates: texts of values as PostgreSQL writes them, and what a statement can ask about
//! its session.

pub(crate) mod convert;
pub(crate) mod hole;
pub(crate) mod json;
pub(crate) mod quantified;
pub(crate) mod series;
pub(crate) mod session;
pub(crate) mod single;
pub(crate) mod typed;

use datafusion::logical_expr::ScalarUDF;

/// Whether a function that only a gateway knows gives the same for the same arguments in every statement whose session has
/// the same time zone and formats.
pub(crate) fn is_lasting(function: &ScalarUDF) -> bool {
    const NAMES: [&str; 8] =
        ["to_text", "from_text", "typed", "only_one", "json_get", "json_get_text", "compare_any", "compare_all"];
    NAMES.contains(&function.name()) && !convert::reads_times(function)
}
