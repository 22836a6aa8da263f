//! Measurements of Meridian, and of any other server that speaks the PostgreSQL protocol, with one workload.
//!
//! `tsbs` makes the rows, `ingest` sends them, `queries` asks about them, `process` looks at an idle node, `report` prints what was measured.

pub mod ingest;
pub mod process;
pub mod queries;
pub mod report;
pub mod tsbs;
