//! How plans run: tables as DataFusion sees them, scans that run as fragments on data nodes, the rule that moves
//! operators into them, EXPLAIN, and streams that can be cancelled.
//!
//! Modules in order; each uses those above it. `catalog` and those around it use one another: a statement's catalog hands
//! out tables (`information`, `chunk_rows`) and functions (`upkeep`) that look at it again.

pub(crate) mod prune;
pub(crate) mod source;

pub(crate) mod remote_scan;
pub(crate) mod table;

pub(crate) mod catalog;
mod chunk_rows;
mod columns;
mod information;
pub(crate) mod relation;
pub(crate) mod upkeep;
mod virtual_table;

pub(crate) mod rules;

mod filled;
pub(crate) mod open_scan;

pub(crate) mod fill;

pub(crate) mod explain;
pub(crate) mod heavy;
pub(crate) mod stream;
pub(crate) mod texts;

#[cfg(test)]
pub(crate) mod tests;
