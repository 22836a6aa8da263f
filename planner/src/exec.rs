//! How plans run: tables as DataFusion sees them, scans that run as fragments on data nodes, the rule that moves
//! operators into them, EXPLAIN, and streams that can be cancelled.
//!
//! Modules in order; each uses those above it.

pub(crate) mod prune;
pub(crate) mod source;

pub(crate) mod remote_scan;
pub(crate) mod table;

pub(crate) mod catalog;
pub(crate) mod rules;

pub(crate) mod explain;
pub(crate) mod heavy;
pub(crate) mod stream;

#[cfg(test)]
mod tests;
