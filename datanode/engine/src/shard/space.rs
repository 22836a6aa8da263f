//! A full disk: the shard becomes read-only, and writes again by itself when there is space.
//!
//! Reads go on, and so does what is small and gives space back later, decisions and removals, as long as the log file in
//! use has room. Rows are refused at once (53100) instead of failing on the disk one after another.

use std::rc::Rc;

use tracing::{info, warn};

use super::Inner;
use crate::disk::{self, Disk, DiskError, DiskFile};
use crate::error::EngineError;
use crate::layout;

/// So much must be free before rows are taken again: a flush wants more than the log's next batch, and a shard that turns
/// with every freed block helps nobody.
const FREE_BYTES_MIN: u64 = 4 << 20;
/// Swept at the next start when it is left behind.
const TRIAL_NAME: &str = "space.tmp";

impl<D: Disk> Inner<D> {
    /// A full disk made the shard read-only; it looks every tick whether there is space again.
    pub fn is_read_only(&self) -> bool {
        self.is_disk_full.get()
    }

    /// Takes note of an error for want of space.
    pub fn note_space(&self, error: &EngineError) {
        if error.is_disk_full() && !self.is_disk_full.replace(true) {
            warn!(shard = %self.options.shard, %error, "the shard is read-only until there is space again");
            self.memory_freed.raise();
            self.flush_wanted.raise();
        }
    }

    /// Writes again when there is space for the log and for a small file.
    pub async fn look_for_space(self: &Rc<Self>) {
        match self.try_space().await {
            Ok(()) => {
                info!(shard = %self.options.shard, "there is space again");
                self.is_disk_full.set(false);
                self.memory_freed.raise();
                self.compaction_wanted.raise();
            }
            Err(error) if error.is_disk_full() => {}
            Err(error) => self.note_background(error, "could not look for space"),
        }
    }

    async fn try_space(&self) -> Result<(), EngineError> {
        if self.wal.wants_ready() {
            self.wal.make_ready().await?;
        }
        let path = layout::wal_directory(&self.options.directory).join(TRIAL_NAME);
        let tried = self.try_file(&path).await;
        // Gives the space back; one that was not made is not there.
        let _ = self.disk.remove(&path).await;
        Ok(tried?)
    }

    async fn try_file(&self, path: &std::path::Path) -> Result<(), DiskError> {
        let file = self.disk.create(path).await?;
        disk::fill_zero(&file, 0, FREE_BYTES_MIN).await?;
        // Not synced for its contents: some file systems find out only now.
        file.sync().await
    }
}
