//! Functions that only a gateway evaluates: texts of values as PostgreSQL writes them, and what a statement can ask about
//! its session.

pub(crate) mod convert;
pub(crate) mod json;
pub(crate) mod quantified;
pub(crate) mod series;
pub(crate) mod session;
pub(crate) mod single;
pub(crate) mod typed;
