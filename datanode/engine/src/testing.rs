//! What the tests of this crate share.

use std::future::Future;

use glommio::{LocalExecutorBuilder, Placement};

use crate::pace;

/// Runs a test on a shard's kind of executor.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(1 << 20)
        .preempt_timer(pace::PREEMPT_TIMER)
        .make()
        .expect("io_uring is allowed here")
        .run(async {
            pace::begin();
            test.await
        })
}
