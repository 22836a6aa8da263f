//! What the shard's methods and tasks share: chunks by id, memory, waiting.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use futures::channel::oneshot;
use meridian_proto::rows::decode_rows;
use meridian_proto::{CatalogVersion, ChunkId, Lsn, Refusal, TransactionId};

use super::chunk::{Chunk, ChunkState};
use super::flush::wait_at_most;
use super::{Inner, recovery};
use crate::disk::{Disk, DiskError};
use crate::error::EngineError;
use crate::layout;
use crate::memtable;
use crate::pace::executor;
use crate::record::SpecBody;
use crate::replica::{Step, WriteAnswer, WriteRequest};

/// Transactions whose writes wait for memory, at most; more are refused at once.
const WAITING_WRITERS_MAX: usize = 256;

type Receiver = oneshot::Receiver<Result<(), Refusal>>;

/// A step of the core on its way to its answer.
pub(super) enum Started<T> {
    Queued(Receiver, T),
    Wait(Lsn, T),
    Done(T),
}

impl<T> Started<T> {
    pub async fn finish<D: Disk>(self, chunk: &Chunk<D>) -> Result<T, Refusal> {
        match self {
            Self::Queued(receiver, answer) => answered(receiver.await).map(|()| answer),
            Self::Wait(lsn, answer) => chunk.wait_synced(lsn).await.map(|()| answer),
            Self::Done(answer) => Ok(answer),
        }
    }
}

/// The commit loop's answer. None at all: it ended before the record was synced or refused.
pub(super) fn answered(answer: Result<Result<(), Refusal>, oneshot::Canceled>) -> Result<(), Refusal> {
    answer.unwrap_or_else(|_| Err(Refusal::OutcomeUnknown("the shard has failed".to_owned())))
}

impl<D: Disk> Inner<D> {
    pub fn chunk(&self, chunk: ChunkId) -> Result<Rc<Chunk<D>>, Refusal> {
        let found = self.chunks.borrow().get(&chunk).cloned();
        found.ok_or(Refusal::NotPrimary { chunk, known: CatalogVersion(0) })
    }

    pub fn chunk_or_fresh(&self, id: ChunkId, spec: &SpecBody) -> Rc<Chunk<D>> {
        let mut chunks = self.chunks.borrow_mut();
        let chunk = chunks.entry(id).or_insert_with(|| {
            let directory = layout::chunk_directory(&self.options.directory, id);
            Chunk::new(id, directory, ChunkState::fresh(id, spec), &self.compaction_wanted)
        });
        Rc::clone(chunk)
    }

    /// Nothing is promised any more after a failed sync.
    pub fn check_alive(&self) -> Result<(), Refusal> {
        match (&*self.fatal.borrow(), self.is_closing.get()) {
            (Some(error), _) => Err(Refusal::Unavailable(error.to_string())),
            (None, true) => Err(Refusal::Unavailable("the shard is closing".to_owned())),
            (None, false) => Ok(()),
        }
    }

    /// Decodes, appends and queues; no yield between the core's append and the queue.
    pub fn append(
        &self,
        chunk: &Rc<Chunk<D>>,
        request: &mut WriteRequest,
        rows: Bytes,
    ) -> Result<Started<WriteAnswer>, Refusal> {
        let mut state = chunk.state.borrow_mut();
        if state.is_removing {
            return Err(Refusal::Dropping(chunk.id));
        }
        // The wait for memory may have let the original in, or a new schema.
        if let Some(step) = state.replica.known(request)? {
            return Ok(self.start(chunk, step));
        }
        if request.schema_version != state.arriving.version {
            let (asked, current) = (request.schema_version, state.arriving.version);
            return Err(Refusal::SchemaVersion { asked, current });
        }
        let batch = decode_rows(&rows, &state.arriving_arrow)?;
        request.row_count = batch.num_rows() as u64;
        let memory = memtable::memory_bytes(rows.len(), batch.num_columns());
        Ok(match state.replica.write(request)? {
            Step::Append { record, answer } => {
                Started::Queued(self.enqueue(chunk, record, Some((rows, batch, memory))), answer)
            }
            step => self.start(chunk, step),
        })
    }

    /// Queues what the core appended; without a yield after the core's step.
    pub fn start<T>(&self, chunk: &Rc<Chunk<D>>, step: Step<T>) -> Started<T> {
        match step {
            Step::Append { record, answer } => Started::Queued(self.enqueue(chunk, record, None), answer),
            Step::Wait { lsn, answer } => Started::Wait(lsn, answer),
            Step::Done(answer) => Started::Done(answer),
        }
    }

    /// One step of a chunk's core, from request to answer.
    pub async fn step<T>(
        &self,
        chunk: ChunkId,
        step: impl FnOnce(&mut ChunkState<D>) -> Result<Step<T>, Refusal>,
    ) -> Result<T, Refusal> {
        self.check_alive()?;
        let chunk = self.chunk(chunk)?;
        let started = {
            let mut state = chunk.state.borrow_mut();
            if state.is_removing {
                return Err(Refusal::Dropping(chunk.id));
            }
            self.start(&chunk, step(&mut state)?)
        };
        started.finish(&chunk).await
    }

    /// Changes a chunk and counts what that does to memory.
    pub fn counting<T>(&self, chunk: &Chunk<D>, change: impl FnOnce(&mut ChunkState<D>) -> T) -> T {
        let mut state = chunk.state.borrow_mut();
        let (memory, staged) = (state.memory_bytes(), state.memtable.staged_bytes());
        let result = change(&mut state);
        self.memtable_bytes.set(self.memtable_bytes.get() + state.memory_bytes() - memory);
        self.staged_bytes.set(self.staged_bytes.get() + state.memtable.staged_bytes() - staged);
        result
    }

    /// Counts all chunks, after recovery.
    pub fn count_all(&self) {
        let chunks = self.chunks.borrow();
        self.memtable_bytes.set(chunks.values().map(|chunk| chunk.state.borrow().memory_bytes()).sum());
        self.staged_bytes.set(chunks.values().map(|chunk| chunk.state.borrow().memtable.staged_bytes()).sum());
    }

    pub fn memory_bytes(&self) -> usize {
        self.queued_bytes.get() + self.memtable_bytes.get()
    }

    /// More than three quarters of the memory for writes is taken: flushes come first.
    pub fn is_memory_short(&self) -> bool {
        self.memory_bytes() > self.options.memtable_bytes_max / 4 * 3
    }

    /// Waits until so many bytes of the transaction fit, at most [`super::ShardOptions::memory_wait`].
    pub async fn wait_for_memory(&self, transaction: TransactionId, bytes: usize) -> Result<(), Refusal> {
        let fits = || self.memory_bytes() == 0 || self.memory_bytes() + bytes <= self.options.memtable_bytes_max;
        if fits() {
            return Ok(());
        }
        let _waiting = Waiting::begin(&self.waiting_writers, transaction, bytes)?;
        let deadline = executor::now() + self.options.memory_wait;
        loop {
            let freed = self.memory_freed.next();
            if fits() {
                return Ok(());
            }
            if self.is_disk_full.get() {
                return Err(read_only());
            }
            self.flush_wanted.raise();
            let left = deadline.saturating_duration_since(executor::now());
            if left.is_zero() || !wait_at_most(freed, left).await {
                let reason =
                    "rows arrive faster than they can be flushed; write more slowly, or give memtables more memory";
                return Err(Refusal::Memory(reason.to_owned()));
            }
        }
    }

    /// Whether a write waits that is larger than what is free.
    pub fn is_write_too_large(&self) -> bool {
        let largest = self.waiting_writers.borrow().values().map(|waiting| waiting.bytes_max).max();
        largest.is_some_and(|bytes| self.memory_bytes() + bytes > self.options.memtable_bytes_max)
    }

    /// Since when the one waits for memory that waits longest.
    pub fn memory_awaited_since(&self) -> Option<Instant> {
        self.waiting_writers.borrow().values().map(|waiting| waiting.since).min()
    }

    /// The removal is logged: the chunk goes, then its files, and only then may the log let go of the record.
    pub async fn forget(&self, chunk: &Rc<Chunk<D>>) -> Result<(), EngineError> {
        let pins = std::mem::take(&mut chunk.state.borrow_mut().pins);
        self.removed_pins.borrow_mut().insert(chunk.id, pins);
        self.chunks.borrow_mut().remove(&chunk.id);
        self.counting(chunk, |state| {
            drop(state.memtable.freeze());
            state.frozen = None;
        });
        self.memory_freed.raise();
        let removed =
            recovery::remove_folder(&self.disk, &layout::chunks_directory(&self.options.directory), chunk.id).await;
        removed.map_err(|error| self.fail_if_unsynced(error))?;
        self.removed_pins.borrow_mut().remove(&chunk.id);
        self.release_log().await.map_err(|error| self.fail_if_unsynced(error))
    }

    /// Ends the shard when the error is a failed sync; gives it back for the caller.
    pub fn fail_if_unsynced(&self, error: EngineError) -> EngineError {
        if let EngineError::Disk(DiskError::SyncFailed { path, source }) = error {
            let again = std::io::Error::new(source.kind(), source.to_string());
            let copy = DiskError::SyncFailed { path: path.clone(), source: again };
            self.fail(DiskError::SyncFailed { path, source }.into());
            return copy.into();
        }
        error
    }
}

/// Why rows are not taken while the disk is full.
pub(super) fn read_only() -> Refusal {
    Refusal::DiskFull("the shard is read-only until there is space on its disk; drop chunks or add space".to_owned())
}

/// The writes of each transaction that wait for memory: a statement that writes to many chunks is one writer.
pub(super) type WaitingWriters = RefCell<HashMap<TransactionId, WaitingWrites>>;

/// Of one transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingWrites {
    pub count: usize,
    /// Of the largest.
    bytes_max: usize,
    since: Instant,
}

/// Counts a waiting write for as long as it lives.
struct Waiting<'a> {
    writers: &'a WaitingWriters,
    transaction: TransactionId,
}

impl<'a> Waiting<'a> {
    fn begin(writers: &'a WaitingWriters, transaction: TransactionId, bytes: usize) -> Result<Self, Refusal> {
        let mut waiting = writers.borrow_mut();
        if waiting.len() >= WAITING_WRITERS_MAX && !waiting.contains_key(&transaction) {
            let reason =
                format!("{WAITING_WRITERS_MAX} writers wait for memory of the shard; use fewer connections at once");
            return Err(Refusal::Overloaded(reason));
        }
        let first = || WaitingWrites { count: 0, bytes_max: 0, since: executor::now() };
        let writes = waiting.entry(transaction).or_insert_with(first);
        writes.count += 1;
        writes.bytes_max = writes.bytes_max.max(bytes);
        Ok(Self { writers, transaction })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.writers.borrow_mut();
        if let Entry::Occupied(mut writes) = waiting.entry(self.transaction) {
            writes.get_mut().count -= 1;
            if writes.get().count == 0 {
                writes.remove();
            }
        }
    }
}
