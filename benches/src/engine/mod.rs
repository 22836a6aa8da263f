//! Measurements of the storage engine alone, without SQL and without processes: `data` makes columns and batches of the
//! workload, `memory` says what the machine can do at most, `codecs` encodes columns, `wal` and `shard` run a shard on a
//! real disk.

pub mod codecs;
mod data;
mod gorilla;
pub mod memory;
pub mod shard;
pub mod wal;

use std::future::Future;

use glommio::{LocalExecutorBuilder, Placement};
use meridian_engine::pace;

use crate::ingest::Error;

/// Registered buffers of the executor, as a node has them.
const IO_MEMORY_BYTES: usize = 1 << 20;

/// Runs a measurement on a shard's kind of executor, on this thread.
fn on_executor<T>(measure: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(pace::PREEMPT_TIMER)
        .make()
        .map_err(|error| format!("could not start an executor: {error}"))?;
    executor.run(async {
        pace::begin();
        measure.await
    })
}
