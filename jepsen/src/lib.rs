//! Real processes of the binary under faults, and checks of what clients saw.
//!
//! The story: a `lab` is a cluster of processes on loopback; a `workload` drives clients against it and writes a
//! `history`; a `nemesis` kills and restarts nodes meanwhile; the `checker` says whether the history keeps the promises.

pub mod checker;
pub mod history;
pub mod lab;
pub mod nemesis;
pub mod workload;

/// Any failure of the lab itself ends the run.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
