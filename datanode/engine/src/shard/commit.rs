//! The commit loop: takes everything that waits, writes it as one batch, lets it come into force, answers.

use std::rc::Rc;

use arrow::array::RecordBatch;
use futures::channel::oneshot;
use meridian_proto::Refusal;
use tracing::{error, warn};

use super::chunk::Chunk;
use super::{Inner, inner};
use crate::disk::Disk;
use crate::error::EngineError;
use crate::record::{Body, LogRecord};
use crate::wal::WalEntry;

/// Bytes of one batch, about. 8 MiB take 5-8 ms to write: what the next batch then waits.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// A record on its way into the log.
pub struct Queued<D: Disk> {
    pub chunk: Rc<Chunk<D>>,
    pub entry: WalEntry,
    /// Decoded rows, and the memory that they are counted with.
    pub rows: Option<(RecordBatch, usize)>,
    pub done: oneshot::Sender<Result<(), Refusal>>,
}

impl<D: Disk> Inner<D> {
    /// Puts a record into the queue. Must follow the append in the core without a yield.
    pub fn enqueue(
        &self,
        chunk: &Rc<Chunk<D>>,
        record: LogRecord,
        rows: Option<(bytes::Bytes, RecordBatch, usize)>,
    ) -> oneshot::Receiver<Result<(), Refusal>> {
        let (done, receiver) = oneshot::channel();
        let (bytes, rows) = match rows {
            Some((bytes, batch, memory)) => (bytes, Some((batch, memory))),
            None => (bytes::Bytes::new(), None),
        };
        if self.fatal.borrow().is_some() {
            // The loop has ended; the sender goes unused and the receiver learns it.
            return receiver;
        }
        self.queued_bytes.set(self.queued_bytes.get() + rows.as_ref().map_or(0, |(_, memory)| *memory));
        let entry = WalEntry { record, rows: bytes };
        self.queue.borrow_mut().push_back(Queued { chunk: Rc::clone(chunk), entry, rows, done });
        self.queue_filled.raise();
        receiver
    }

    pub async fn commit_loop(self: Rc<Self>) {
        loop {
            let filled = self.queue_filled.next();
            let batch = self.take_batch();
            if batch.is_empty() {
                if (self.mark_wanted.take() || self.is_closing.get())
                    && let Err(error) = self.mark().await
                {
                    return self.fail(error);
                }
                if self.is_closing.get() && self.queue.borrow().is_empty() {
                    return;
                }
                if self.queue.borrow().is_empty() {
                    filled.await;
                }
                continue;
            }
            let entries: Vec<WalEntry> = batch.iter().map(|queued| queued.entry.clone()).collect();
            if self.is_read_only() && !self.wal.has_room(&entries) {
                // Not tried on the disk: filling a file with zeros until there is no space takes long.
                self.give_up(batch, &inner::read_only());
                continue;
            }
            match self.wal.commit(&entries).await {
                Ok(sequence) => {
                    if let Err(error) = self.come_into_force(batch, sequence) {
                        return self.fail(error);
                    }
                    if self.wal.wants_ready() {
                        self.ready_wanted.raise();
                    }
                }
                Err(error) if error.is_disk_full() => {
                    self.note_space(&error);
                    self.give_up(batch, &error.into());
                }
                Err(error) => {
                    drop(batch);
                    return self.fail(error);
                }
            }
        }
    }

    async fn mark(&self) -> Result<(), EngineError> {
        if self.is_marked.replace(true) {
            return Ok(());
        }
        match self.wal.mark().await {
            Err(error) if !error.is_disk_full() => Err(error),
            _ => Ok(()),
        }
    }

    fn take_batch(&self) -> Vec<Queued<D>> {
        let mut queue = self.queue.borrow_mut();
        let (mut count, mut bytes) = (0, 0);
        while let Some(queued) = queue.get(count) {
            bytes += queued.entry.rows.len();
            if count > 0 && bytes > BATCH_BYTES_MAX {
                break;
            }
            count += 1;
        }
        queue.drain(..count).collect()
    }

    /// The records are durable: they count from here on.
    fn come_into_force(&self, batch: Vec<Queued<D>>, sequence: u64) -> Result<(), EngineError> {
        self.is_marked.set(false);
        for queued in batch {
            let chunk = Rc::clone(&queued.chunk);
            self.release_queued(&queued);
            let counted = self.counting(&chunk, |state| {
                state.pins.insert(sequence);
                state.replica.epoch_synced(queued.entry.record.epoch);
                match &queued.entry.record.body {
                    Body::Spec(spec) => state.apply_spec(spec),
                    Body::Epoch | Body::Removed => Ok(()),
                    Body::Rows(_) | Body::Decision(_) | Body::Resolve { .. } => {
                        let mut rows = queued.rows;
                        let effects = state.replica.synced_next();
                        effects.into_iter().try_for_each(|effect| state.apply(effect, rows.take()))
                    }
                }
            });
            counted.map_err(|error| EngineError::Rows(error.to_string()))?;
            chunk.progress.raise();
            // Whoever asked may be gone.
            let _ = queued.done.send(Ok(()));
        }
        self.flush_if_due();
        Ok(())
    }

    /// None of the batch is in the log, nor what was appended behind it.
    fn give_up(&self, batch: Vec<Queued<D>>, refusal: &Refusal) {
        let behind = std::mem::take(&mut *self.queue.borrow_mut());
        let all: Vec<_> = batch.into_iter().chain(behind).collect();
        for queued in &all {
            self.release_queued(queued);
            queued.chunk.state.borrow_mut().give_up(refusal);
        }
        for queued in all {
            queued.chunk.progress.raise();
            let _ = queued.done.send(Err(refusal.clone()));
        }
        self.memory_freed.raise();
    }

    fn release_queued(&self, queued: &Queued<D>) {
        let memory = queued.rows.as_ref().map_or(0, |(_, memory)| *memory);
        self.queued_bytes.set(self.queued_bytes.get() - memory);
    }

    /// Ends the shard: nobody knows what the disk holds. Those who wait learn nothing but that the outcome is unknown.
    pub fn fail(&self, error: EngineError) {
        error!(shard = %self.options.shard, %error, "the shard cannot go on");
        let unknown = Refusal::OutcomeUnknown(error.to_string());
        self.fatal.borrow_mut().get_or_insert_with(|| Rc::new(error));
        self.queue.borrow_mut().clear();
        for chunk in self.chunks.borrow().values() {
            chunk.state.borrow_mut().given_up = (u64::MAX, Some(unknown.clone()));
            chunk.progress.raise();
        }
        self.failed.raise();
        self.memory_freed.raise();
    }

    /// Keeps a log file ready, so that a full one costs the writers nothing.
    pub async fn ready_loop(self: Rc<Self>) {
        while !self.is_closing.get() && self.fatal.borrow().is_none() {
            let wanted = self.ready_wanted.next();
            if self.wal.wants_ready()
                && let Err(error) = self.wal.make_ready().await
            {
                // Tried again when the next batch is written; a switch before that tells the writers.
                self.note_background(error, "could not make a log file ready");
            }
            wanted.await;
        }
    }

    /// A background task failed: only a failed sync ends the shard.
    pub fn note_background(&self, error: EngineError, what: &'static str) {
        if matches!(error, EngineError::Disk(crate::disk::DiskError::SyncFailed { .. })) {
            self.fail(error);
        } else {
            self.note_space(&error);
            warn!(shard = %self.options.shard, %error, "{what}");
        }
    }
}
