//! A shard: an event loop's own part of the node's data, with its own log, memtables and segments. Chunks are changed by
//! its tasks only; requests are its methods.
//!
//! A write: refuse or find the original -> wait for memory -> decode -> append in the core and queue, in one step ->
//! one batch with all others -> fdatasync -> into force -> answer.

mod arbitrary;
mod budget;
mod chunk;
mod commit;
mod compact;
mod compress;
mod flush;
mod inner;
mod merge;
mod open;
mod options;
mod pick;
mod piece;
mod recovery;
mod rewrite;
mod sorted;
mod space;
mod stream;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::LocalBoxFuture;
use futures::lock::Mutex;
use glommio::Latency;
use meridian_proto::{ChunkId, Epoch, Refusal, SchemaVersion, TransactionId, Ts};

use self::budget::ScanBudget;
use self::chunk::Chunk;
use self::commit::Queued;
use self::open::OpenSegments;
use crate::disk::{Disk, GlommioDisk};
use crate::error::EngineError;
use crate::leaf::{LEAF_CACHE_BYTES_MAX, LeafCache, Want};
use crate::pace::executor::{Queue, Task};
use crate::pace::{PREEMPT_TIMER, Signal};
use crate::record::{Body, SpecBody};
use crate::replica::{Answer, Decide, Decision, Question, Resolve, WriteRequest};
use crate::scan::Scan;
use crate::wal::Wal;

pub use self::arbitrary::{log_arbitrary, manifest_arbitrary};
pub use self::compress::{ChunkSizes, CompressOutcome, CompressionOrder, DecompressOutcome, OrderBy};
pub use self::options::{ChunkSpec, RecoveryReport, ShardOptions, ShardStatus, Write, Written};
pub use self::pick::CompactionLimits;
pub use self::sorted::{SortedScan, SortedStream};
pub use self::stream::ScanStream;

/// Longest rows of one write: what fits a log record beside its head, and the wire's limit.
const WRITE_BYTES_MAX: usize = 64 << 20;
/// Shares of the commit loop, of flushes and of rewrites. Requests run in the queue of whoever calls, with 1000 by
/// default. A rewrite, which frees no memory, stands behind a flush, which does.
const COMMIT_SHARES: usize = 1000;
const FLUSH_SHARES: usize = 200;
const REWRITE_SHARES: usize = 100;

/// Handle of a shard. Clones are the same shard; when the last one is dropped without [`Shard::close`], its tasks end
/// where they stand, as in a crash.
pub struct Shard<D: Disk = GlommioDisk>(Rc<Handle<D>>);

impl<D: Disk> Clone for Shard<D> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

struct Handle<D: Disk> {
    inner: Rc<Inner<D>>,
    /// Cancelled when dropped.
    tasks: RefCell<Vec<Task<()>>>,
    /// Work that goes on when whoever asked for it is gone: cut off in its middle, a flush would take its rows along.
    jobs: RefCell<BTreeMap<u64, Task<()>>>,
    job_next: Cell<u64>,
}

struct Inner<D: Disk> {
    options: ShardOptions,
    disk: D,
    wal: Wal<D>,
    chunks: RefCell<BTreeMap<ChunkId, Rc<Chunk<D>>>>,
    /// Log files that hold the removal of a chunk whose files are not gone yet.
    removed_pins: RefCell<BTreeMap<ChunkId, BTreeSet<u64>>>,
    queue: RefCell<VecDeque<Queued<D>>>,
    queue_filled: Signal,
    /// Memory of queued rows, and of all memtables.
    queued_bytes: Cell<usize>,
    memtable_bytes: Cell<usize>,
    staged_bytes: Cell<usize>,
    memory_freed: Signal,
    waiting_writers: inner::WaitingWriters,
    flush_wanted: Signal,
    /// A compaction ended.
    rewritten: Signal,
    /// No log file is ready for when the one in use is full.
    ready_wanted: Signal,
    /// The disk was full when last tried.
    is_disk_full: Cell<bool>,
    /// The flush loop waits for a write, without a timer.
    is_asleep: Cell<bool>,
    /// No record came since the last tick.
    is_quiet: Cell<bool>,
    /// The end of the log is a mark.
    is_marked: Cell<bool>,
    mark_wanted: Cell<bool>,
    is_closing: Cell<bool>,
    fatal: RefCell<Option<Rc<EngineError>>>,
    failed: Signal,
    opened: Rc<OpenSegments<D::File>>,
    scan_budget: Rc<ScanBudget>,
    /// Segments came, or readers left some; one rewrite at a time over all chunks.
    compaction_wanted: Rc<Signal>,
    rewrite_turn: Mutex<()>,
    /// No snapshot below it is read any more (R24).
    horizon: Cell<Ts>,
    rewrites: Queue,
    leaf_cache: Rc<LeafCache<D::File>>,
}

impl Shard {
    /// Opens the shard's folder, or makes it. Runs in a glommio executor, where all its work is done from then on.
    pub async fn open(options: ShardOptions) -> Result<(Self, RecoveryReport), EngineError> {
        let disk = GlommioDisk::open(&options.directory).await?;
        Self::open_on(disk, options).await
    }
}

impl<D: Disk> Shard<D> {
    /// Opens the shard on another disk, as simulations do.
    pub async fn open_on(disk: D, mut options: ShardOptions) -> Result<(Self, RecoveryReport), EngineError> {
        options.wal_bytes_max = options.wal_bytes_max.max(4 * options.wal_file_bytes as u64);
        let compaction_wanted = Rc::new(Signal::default());
        let recovered = recovery::recover(&disk, &options, &compaction_wanted).await?;
        let commits = Queue::new("commit", COMMIT_SHARES, Latency::Matters(PREEMPT_TIMER));
        let flushes = Queue::new("flush", FLUSH_SHARES, Latency::NotImportant);
        let rewrites = Queue::new("rewrite", REWRITE_SHARES, Latency::NotImportant);
        let inner = Rc::new(Inner {
            opened: Rc::new(OpenSegments::new(
                options.open_bytes_max,
                options.open_files_max,
                options.page_cache_bytes_max,
            )),
            scan_budget: ScanBudget::new(options.scan_bytes_max, options.memory_wait),
            options,
            disk,
            wal: recovered.wal,
            chunks: RefCell::new(recovered.chunks),
            removed_pins: RefCell::default(),
            queue: RefCell::default(),
            queue_filled: Signal::default(),
            queued_bytes: Cell::new(0),
            memtable_bytes: Cell::new(0),
            staged_bytes: Cell::new(0),
            memory_freed: Signal::default(),
            waiting_writers: RefCell::default(),
            flush_wanted: Signal::default(),
            rewritten: Signal::default(),
            ready_wanted: Signal::default(),
            is_disk_full: Cell::new(false),
            is_asleep: Cell::new(false),
            is_quiet: Cell::new(false),
            is_marked: Cell::new(false),
            mark_wanted: Cell::new(false),
            is_closing: Cell::new(false),
            fatal: RefCell::default(),
            failed: Signal::default(),
            compaction_wanted,
            rewrite_turn: Mutex::new(()),
            horizon: Cell::new(Ts(0)),
            rewrites,
            leaf_cache: Rc::new(LeafCache::new(LEAF_CACHE_BYTES_MAX)),
        });
        inner.count_all();
        inner.is_disk_full.set(inner.wal.wants_ready());
        inner.release_log().await?;
        let loops: [(Queue, LocalBoxFuture<'static, ()>); 4] = [
            (commits, Rc::clone(&inner).commit_loop().boxed_local()),
            (flushes, Rc::clone(&inner).flush_loop().boxed_local()),
            (flushes, Rc::clone(&inner).ready_loop().boxed_local()),
            (rewrites, Rc::clone(&inner).compact_loop().boxed_local()),
        ];
        let tasks = RefCell::new(loops.into_iter().map(|(queue, task)| queue.spawn(task)).collect());
        let handle = Handle { inner, tasks, jobs: RefCell::default(), job_next: Cell::new(0) };
        Ok((Self(Rc::new(handle)), recovered.report))
    }

    /// Makes the chunk known at this epoch; creates it durably on first use; raises max_read (R3). A new version of the
    /// table's schema comes the same way.
    pub async fn open_chunk(&self, spec: ChunkSpec) -> Result<(), Refusal> {
        self.inner().check_alive()?;
        let body = SpecBody { table: spec.table, schema: spec.schema, sort: spec.sort };
        let chunk = self.inner().chunk_or_fresh(spec.chunk, &body);
        // One at a time: the second caller finds what the first one made, durable or not.
        let _opening = chunk.opening.lock().await;
        let receiver = {
            let mut state = chunk.state.borrow_mut();
            if state.is_removing {
                return Err(Refusal::Dropping(spec.chunk));
            }
            let epoch = state.replica.take_office(spec.epoch, spec.max_read)?;
            let is_newer = body.schema.version > state.arriving.version;
            if !state.is_durable || is_newer {
                let record = state.replica.local(Body::Spec(Box::new(body.clone())));
                state.expect_schema(Arc::new(body.schema));
                Some(self.inner().enqueue(&chunk, record, None))
            } else {
                epoch.map(|record| self.inner().enqueue(&chunk, record, None))
            }
        };
        match receiver {
            Some(receiver) => inner::answered(receiver.await),
            None => Ok(()),
        }
    }

    /// The epoch that the chunk acts in, once [`Self::open_chunk`] was called in this process.
    #[must_use]
    pub fn chunk_epoch(&self, chunk: ChunkId) -> Option<Epoch> {
        self.inner().chunk(chunk).ok().and_then(|chunk| chunk.state.borrow().replica.epoch())
    }

    /// Version of the table's schema that the chunk takes rows of.
    #[must_use]
    pub fn chunk_schema_version(&self, chunk: ChunkId) -> Option<SchemaVersion> {
        self.inner().chunk(chunk).ok().map(|chunk| chunk.state.borrow().replica.schema_version())
    }

    /// Appends rows; they are durable when it returns. A repeated write gets the answer of its original (R10).
    pub async fn write(&self, write: Write) -> Result<Written, Refusal> {
        let inner = self.inner();
        inner.check_alive()?;
        let chunk = inner.chunk(write.chunk)?;
        let mut request = WriteRequest {
            epoch: write.epoch,
            transaction: write.transaction,
            low_water: write.low_water,
            piece: write.piece,
            command: write.command,
            snapshot: write.snapshot,
            schema_version: write.schema_version,
            mode: write.mode,
            row_count: 0,
        };
        let known = chunk.state.borrow().replica.known(&request)?;
        let started = match known {
            Some(step) => inner.start(&chunk, step),
            None => {
                if write.rows.len() > WRITE_BYTES_MAX {
                    let message =
                        format!("a row of {} bytes is too long, {WRITE_BYTES_MAX} are allowed", write.rows.len());
                    return Err(Refusal::Statement { sqlstate: "54000".to_owned(), message });
                }
                if inner.is_read_only() {
                    return Err(inner::read_only());
                }
                inner.wait_for_memory(write.transaction, write.rows.len()).await?;
                inner.check_alive()?;
                inner.append(&chunk, &mut request, write.rows)?
            }
        };
        let answer = started.finish(&chunk).await?;
        // R4: read now, when the stage can be seen: whoever read before it has raised this, whoever reads after finds it.
        let max_read = chunk.state.borrow().replica.max_read();
        Ok(Written { commit: answer.commit, max_read, row_count: answer.row_count })
    }

    /// Commits or aborts a transaction whose decision this chunk holds (R11).
    pub async fn decide(&self, decide: Decide) -> Result<Decision, Refusal> {
        self.inner().step(decide.chunk, |state| state.replica.decide(&decide)).await
    }

    /// A participant learns what was decided; logged when it returns.
    pub async fn resolve(&self, resolve: Resolve) -> Result<(), Refusal> {
        self.inner().step(resolve.chunk, |state| state.replica.resolve(&resolve)).await
    }

    /// What became of a transaction, at its holder (R12, R25).
    pub async fn outcome(&self, question: Question) -> Result<Answer, Refusal> {
        self.inner().step(question.chunk, |state| state.replica.outcome(&question)).await
    }

    /// Raises max_read to the snapshot before anything is read (R4), waits for pending records at or below it (R5), then
    /// lists the stages whose holders the reader must ask: transaction and holder.
    pub async fn begin_read(
        &self,
        chunk: ChunkId,
        epoch: Epoch,
        snapshot: Ts,
    ) -> Result<Vec<(TransactionId, ChunkId)>, Refusal> {
        self.inner().check_alive()?;
        let chunk = self.inner().chunk(chunk)?;
        chunk.state.borrow().check_history(snapshot, self.inner().horizon.get())?;
        let pending = chunk.state.borrow_mut().replica.begin_read(epoch, snapshot)?;
        if let Some(lsn) = pending {
            chunk.wait_synced(lsn).await?;
        }
        let state = chunk.state.borrow();
        state.replica.check(epoch)?;
        Ok(state.replica.foreign_stages())
    }

    /// Begins to hand out the rows that are seen. [`Self::begin_read`] goes before.
    pub fn scan(&self, scan: Scan) -> Result<ScanStream<D>, Refusal> {
        self.scan_for(scan, Want::default())
    }

    /// As [`Self::scan`], for some of the rows, or for answers instead of them.
    pub fn scan_for(&self, scan: Scan, want: Want) -> Result<ScanStream<D>, Refusal> {
        let chunk = self.readable(&scan)?;
        ScanStream::new(self.inner(), chunk, scan, want)
    }

    /// The rows of several chunks that are seen, in an order. [`Self::begin_read`] of all of them goes before.
    pub fn scan_sorted(&self, scan: SortedScan) -> Result<SortedStream<D>, Refusal> {
        let part = |of: &Scan| sorted::Part::new(self.inner(), self.readable(of)?, of);
        let parts = scan.scans.iter().map(part).collect::<Result<_, _>>()?;
        SortedStream::new(self.inner(), scan, parts)
    }

    fn readable(&self, scan: &Scan) -> Result<Rc<Chunk<D>>, Refusal> {
        let inner = self.inner();
        inner.check_alive()?;
        let chunk = inner.chunk(scan.chunk)?;
        {
            let state = chunk.state.borrow();
            state.replica.check(scan.epoch)?;
            state.check_history(scan.snapshot, inner.horizon.get())?;
        }
        Ok(chunk)
    }

    /// Removes the chunk with its files. Not an error when it is not here.
    pub async fn remove_chunk(&self, id: ChunkId) -> Result<(), Refusal> {
        self.inner().check_alive()?;
        let Ok(chunk) = self.inner().chunk(id) else { return Ok(()) };
        let _opening = chunk.opening.lock().await;
        chunk.is_leaving.set(true);
        let _rewriting = chunk.rewriting.lock().await;
        let _flushing = chunk.flushing.lock().await;
        let receiver = {
            let mut state = chunk.state.borrow_mut();
            state.is_removing = true;
            let record = state.replica.local(Body::Removed);
            self.inner().enqueue(&chunk, record, None)
        };
        if let Err(refusal) = inner::answered(receiver.await) {
            chunk.state.borrow_mut().is_removing = false;
            chunk.is_leaving.set(false);
            return Err(refusal);
        }
        self.inner().forget(&chunk).await.map_err(Refusal::from)
    }

    /// Flushes every chunk, and lets go of log files.
    pub async fn flush(&self) -> Result<(), EngineError> {
        let chunks: Vec<_> = self.inner().chunks.borrow().values().cloned().collect();
        for chunk in chunks {
            let inner = Rc::clone(self.inner());
            let flushed = self.in_background(async move { inner.flush_chunk(&chunk).await }).await;
            flushed.map_err(|error| self.inner().fail_if_unsynced(error))?;
        }
        Ok(())
    }

    /// Does all compaction that is due now; returns the number of jobs done. The shard does it by itself, too.
    pub async fn compact(&self) -> Result<usize, EngineError> {
        let inner = Rc::clone(self.inner());
        let compacted = self.in_background(async move { inner.compact_all().await }).await;
        compacted.map_err(|error| self.inner().fail_if_unsynced(error))
    }

    /// No snapshot below is read from now on (R24): rewrites need not keep apart the versions up to there.
    pub fn raise_history_horizon(&self, horizon: Ts) {
        let raised = self.inner().horizon.get().max(horizon);
        self.inner().horizon.set(raised);
    }

    /// Runs work in the queue of few shares. It goes on to its end even when the caller goes away.
    async fn in_background<T: 'static>(
        &self,
        work: impl Future<Output = Result<T, EngineError>> + 'static,
    ) -> Result<T, EngineError> {
        let (done, receiver) = oneshot::channel();
        let job = self.0.job_next.replace(self.0.job_next.get() + 1);
        let handle = Rc::downgrade(&self.0);
        let task = self.inner().rewrites.spawn(async move {
            // Nobody listens when the caller is gone.
            let _ = done.send(work.await);
            if let Some(handle) = handle.upgrade() {
                // This task itself.
                let finished = handle.jobs.borrow_mut().remove(&job);
                finished.into_iter().for_each(Task::detach);
            }
        });
        self.0.jobs.borrow_mut().insert(job, task);
        receiver.await.unwrap_or(Err(EngineError::Interrupted("the shard has ended")))
    }

    /// Answers what is queued, marks the end of the log and ends.
    pub async fn close(self) {
        let inner = Rc::clone(self.inner());
        inner.is_closing.set(true);
        inner.queue_filled.raise();
        inner.flush_wanted.raise();
        inner.ready_wanted.raise();
        inner.compaction_wanted.raise();
        let jobs = std::mem::take(&mut *self.0.jobs.borrow_mut());
        let tasks = std::mem::take(&mut *self.0.tasks.borrow_mut());
        for task in jobs.into_values().chain(tasks) {
            task.await;
        }
    }

    /// Resolves when the shard cannot go on, as after a failed sync. The owner ends the process.
    pub async fn failed(&self) -> Rc<EngineError> {
        let inner = Rc::clone(self.inner());
        loop {
            let failed = inner.failed.next();
            let fatal = inner.fatal.borrow().clone();
            if let Some(error) = fatal {
                return error;
            }
            failed.await;
        }
    }

    /// Chunks that lie here, in office or not.
    #[must_use]
    pub fn chunks(&self) -> Vec<ChunkId> {
        self.inner().chunks.borrow().keys().copied().collect()
    }

    #[must_use]
    pub fn status(&self) -> ShardStatus {
        let inner = self.inner();
        let chunks = inner.chunks.borrow();
        let mut status = ShardStatus {
            shard: inner.options.shard,
            chunks: chunks.len() as u64,
            memtable_bytes: inner.memory_bytes() as u64,
            wal_bytes: inner.wal.bytes(),
            footer_bytes: inner.opened.bytes() as u64,
            page_cache: inner.opened.pages.figures(),
            leaf_cache_bytes: inner.leaf_cache.bytes() as u64,
            scan_bytes: inner.scan_budget.bytes() as u64,
            ..ShardStatus::default()
        };
        for chunk in chunks.values() {
            let state = chunk.state.borrow();
            let segments = state.segments.iter().map(|segment| &segment.stored);
            status.segments += state.segments.len() as u64;
            status.segment_bytes += segments.clone().map(|segment| segment.file_bytes).sum::<u64>();
            status.rows += segments.map(|segment| segment.rows).sum::<u64>();
            status.rows += state.memtable.rows() + state.frozen.as_ref().map_or(0, |frozen| frozen.rows());
        }
        status
    }

    fn inner(&self) -> &Rc<Inner<D>> {
        &self.0.inner
    }
}

#[cfg(test)]
mod tests;
