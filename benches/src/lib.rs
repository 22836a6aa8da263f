//! Measurements of Meridian, and of any other server that speaks the PostgreSQL protocol, with one workload.
//!
//! `tsbs` makes the rows, `ingest` sends them, `compress` compresses them, `queries` asks about them, `mixed` does both at
//! once, `planning` takes a small statement apart, `process` looks at an idle node. `engine` measures the storage engine
//! without any of that. `report` prints what was measured, `digest` tells whether two answers are the same.

pub mod digest;
pub mod report;
pub mod tsbs;

pub mod compress;
pub mod ingest;
pub mod mixed;
pub mod planning;
pub mod process;
pub mod queries;
pub mod reader;

#[cfg(feature = "engine")]
pub mod engine;
