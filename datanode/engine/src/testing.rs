//! What the tests of this crate share.

use std::future::Future;
use std::time::Duration;

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

/// Between two looks at a condition. A plain yield would keep the executor from its timers.
pub async fn tick() {
    glommio::timer::sleep(Duration::from_micros(200)).await;
}
