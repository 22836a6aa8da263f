//! What the tests of this crate share.

use std::future::Future;
use std::path::{Path, PathBuf};
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

/// With `MERIDIAN_WRITE_CORPUS=1`, writes what a fuzz target begins with into its corpus.
pub fn keep_in_corpus(target: &str, name: &str, bytes: &[u8]) {
    if std::env::var_os("MERIDIAN_WRITE_CORPUS").is_some() {
        let folder = corpus(target);
        std::fs::create_dir_all(&folder).expect("the tree can be written");
        std::fs::write(folder.join(name), bytes).expect("the tree can be written");
    }
}

/// The folder of a fuzz target's corpus.
pub fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}
