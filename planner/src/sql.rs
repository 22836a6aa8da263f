//! SQL: from a text to statements, and from a query to a logical plan that means what PostgreSQL means by it.
//!
//! Modules in order; each uses those above it.

pub(crate) mod errors;
mod tokens;

pub(crate) mod cut;
pub(crate) mod statement;
pub(crate) mod types;

mod alter;
mod copy;
mod ddl;
mod dialect;
mod hypertable;
pub(crate) mod names;

pub(crate) mod calls;
pub(crate) mod parse;

pub(crate) mod parameters;
mod rewrite;
mod similar;

pub(crate) mod environment;
mod floats;

pub(crate) mod comparisons;
pub(crate) mod functions;

mod arrays;
mod intervals;
mod json;
mod operators;

pub(crate) mod holes;

mod guards;
mod recursion;
mod semantics;
mod subqueries;
mod values;
mod zeros;

mod untyped;

pub(crate) mod plan;
pub(crate) mod set_function;

pub use statement::Statement;
