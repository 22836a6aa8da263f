//! What the tests of this crate share.

use std::future::Future;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

/// Runs a test on a shard's kind of executor.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(1 << 20)
        .preempt_timer(Duration::from_micros(500))
        .make()
        .expect("io_uring is allowed here")
        .run(test)
}
