//! The binary `meridian`: `cli` reads the command line, `config` the configuration, `node` makes a process of it with
//! `admin` beside, `demo` starts a whole cluster of such processes.

mod admin;
mod cli;
mod config;
mod demo;
mod failure;
mod node;
mod signals;
mod telemetry;
mod version;

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Batches are made on shards' threads and end on those that serve clients, in all sizes. What is freed goes back to the
/// system: a node at its limits keeps its size, where with mimalloc it grew to twice as much within two minutes.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    match cli::Cli::read().and_then(cli::Cli::run) {
        Ok(()) => ExitCode::from(failure::EXIT_OK),
        Err(failure) => {
            eprintln!("meridian: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
