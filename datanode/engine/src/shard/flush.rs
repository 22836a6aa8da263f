//! Flushes: a chunk's rows in memory become sorted segments, its core's state a manifest, and log files become free.
//! Runs beside appends in a queue of few shares; what is being flushed stays readable until the manifest is switched.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use futures::future::{Either, join_all, select};
use futures::{StreamExt, pin_mut, stream};
use meridian_proto::schema::TableSchema;
use meridian_proto::{CommandId, SegmentId, TableId, TransactionId};
use tracing::debug;

use super::Inner;
use super::chunk::{Chunk, ChunkState, LiveSegment};
use crate::disk::Disk;
use crate::error::EngineError;
use crate::layout;
use crate::manifest::{self, ManifestOwner, ManifestV2, RunV1, SegmentV2};
use crate::memtable::Contents;
use crate::memtable::sort::{Unsorted, sorted};
use crate::order::RowOrder;
use crate::pace::{breathe, executor};
use crate::scan::SortKey;
use crate::segment::{self, SegmentLimits, SegmentRows, SegmentSpec, SegmentSummary};
use crate::visibility::Outcome;

/// Longest wait of a flush for compaction.
const OVERLAP_WAIT: Duration = Duration::from_secs(2);
/// How often a shard that has rows in memory looks for old ones, and how soon a failed flush is tried again.
const TICK: Duration = Duration::from_secs(1);
/// How long runs that were decided wait to become like other segments, or to go, where no other flush comes.
const SETTLE_AFTER: Duration = Duration::from_secs(10);
/// Flushes at once. A small one waits for the disk most of its time: one by one, a write to thousands of chunks frees
/// some 5 MB/s.
const FLUSHES_MAX: usize = 8;
/// All but one of the flushes at once take no more than this part of the memory for rows together.
const SMALL_PART: u64 = 8;

/// What a flush works from: the chunk as of one position of its log.
struct Capture<F: crate::disk::DiskFile> {
    manifest: ManifestV2,
    contents: Rc<Contents>,
    schema: Arc<TableSchema>,
    sort: SortKey,
    table: TableId,
    /// No longer in the list; the new manifest does not name them.
    garbage: Vec<Rc<LiveSegment<F>>>,
    /// Runs that the new manifest knows to be committed.
    settled: Vec<Rc<LiveSegment<F>>>,
}

/// Rows that become one segment.
struct Part {
    rows: Unsorted,
    run: Option<(TransactionId, CommandId)>,
}

impl<D: Disk> Inner<D> {
    /// Flushes what is due, one large chunk at a time or several small ones.
    pub async fn flush_loop(self: Rc<Self>) {
        while !self.is_closing.get() && self.fatal.borrow().is_none() {
            let wanted = self.flush_wanted.next();
            if self.is_read_only() {
                self.look_for_space().await;
            }
            let chunks = self.pick_flushes(executor::now());
            if !chunks.is_empty() {
                let flushed = join_all(chunks.iter().map(|chunk| self.flush_noted(chunk))).await;
                if flushed.contains(&false) {
                    executor::sleep(TICK).await;
                }
                continue;
            }
            self.mark_if_quiet();
            if self.is_idle() {
                self.is_asleep.set(true);
                wanted.await;
            } else {
                wait_at_most(wanted, TICK).await;
            }
        }
    }

    /// Nothing to wait for but a write: no timer runs.
    fn is_idle(&self) -> bool {
        self.is_marked.get()
            && !self.is_read_only()
            && self.chunks.borrow().values().all(|chunk| chunk.state.borrow().is_at_rest())
    }

    /// Has the log marked when nothing was written for a tick: more often it would cost a sync each time.
    fn mark_if_quiet(&self) {
        if !self.is_marked.get() && self.is_quiet.replace(true) {
            self.mark_wanted.set(true);
            self.queue_filled.raise();
        }
    }

    /// True when it went well.
    async fn flush_noted(self: &Rc<Self>, chunk: &Rc<Chunk<D>>) -> bool {
        self.let_compaction_catch_up(chunk).await;
        let flushed = self.flush_chunk(chunk).await;
        self.memory_freed.raise();
        match flushed {
            Ok(()) => true,
            Err(error) => {
                self.note_background(error, "a flush failed and will be tried again");
                false
            }
        }
    }

    /// Waits while too many segments of the chunk overlap, so that more are not made faster than they are put together:
    /// memory fills meanwhile and writers wait, for no more than half of the time after which they are
    /// refused.
    async fn let_compaction_catch_up(&self, chunk: &Chunk<D>) {
        let now = executor::now();
        let waited_since = self.memory_awaited_since().unwrap_or(now);
        let deadline = (now + OVERLAP_WAIT).min(waited_since + self.options.memory_wait / 2);
        while self.is_compaction_behind(chunk) && !self.is_closing.get() {
            let rewritten = self.rewritten.next();
            let left = deadline.saturating_duration_since(executor::now());
            if left.is_zero() || !wait_at_most(rewritten, left).await {
                return;
            }
        }
    }

    /// Wakes the flush loop when something is due.
    pub fn flush_if_due(&self) {
        self.is_quiet.set(false);
        let was_asleep = self.is_asleep.replace(false);
        if was_asleep || self.memory_bytes() > self.options.memtable_bytes_max / 2 || self.is_staged_due() {
            self.flush_wanted.raise();
        }
    }

    fn is_staged_due(&self) -> bool {
        self.staged_bytes.get() > self.options.staged_bytes_max
    }

    /// The chunks whose flushes help most, if some are due: the first, and after it small ones.
    pub(super) fn pick_flushes(&self, now: Instant) -> Vec<Rc<Chunk<D>>> {
        let chunks = self.chunks.borrow();
        let by = |key: &dyn Fn(&ChunkState<D>) -> u64| {
            let keyed = chunks.values().map(|chunk| (key(&chunk.state.borrow()), chunk));
            let mut keyed: Vec<_> = keyed.filter(|(key, _)| *key > 0).collect();
            let count = keyed.len().min(FLUSHES_MAX);
            if count < keyed.len() {
                keyed.select_nth_unstable_by_key(count, |(key, _)| Reverse(*key));
                keyed.truncate(count);
            }
            keyed.sort_by_key(|(key, _)| Reverse(*key));
            let mut bytes = 0;
            let is_next = |(at, (_, chunk)): &(usize, &(u64, &Rc<Chunk<D>>))| {
                bytes += chunk.state.borrow().memtable.bytes() as u64;
                *at == 0 || bytes <= self.options.memtable_bytes_max as u64 / SMALL_PART
            };
            keyed.iter().enumerate().take_while(is_next).map(|(_, (_, chunk))| Rc::clone(chunk)).collect::<Vec<_>>()
        };
        // A large write may wait for more than the half that is kept free.
        if self.memory_bytes() > self.options.memtable_bytes_max / 2 || self.is_write_too_large() {
            let largest = by(&|state| state.memtable.bytes() as u64);
            if !largest.is_empty() {
                return largest;
            }
        }
        if self.is_staged_due() {
            return by(&|state| state.memtable.staged_bytes() as u64);
        }
        if self.wal.bytes() > self.options.wal_bytes_max {
            return by(&|state| state.oldest_pin().map_or(0, |pin| u64::MAX - pin));
        }
        let over = |since: Option<Instant>, wait: Duration| {
            let over = since.and_then(|since| (now - since).checked_sub(wait));
            over.map_or(0, |over| over.as_nanos() as u64)
        };
        let settle_after = SETTLE_AFTER.min(self.options.flush_age);
        by(&|state| over(state.oldest_row, self.options.flush_age).max(over(state.decided_since, settle_after)))
    }

    /// Makes everything that is synced part of the chunk's manifest.
    pub async fn flush_chunk(self: &Rc<Self>, chunk: &Rc<Chunk<D>>) -> Result<(), EngineError> {
        let _flushing = chunk.flushing.lock().await;
        let Some(mut capture) = self.capture(chunk) else { return Ok(()) };
        let garbage = std::mem::take(&mut capture.garbage);
        let settled = std::mem::take(&mut capture.settled);
        match self.write_capture(chunk, capture).await {
            Ok(fresh) => self.switch(chunk, fresh),
            Err(error) => {
                self.counting(chunk, |state| state.put_back(garbage));
                self.note_space(&error);
                return Err(error);
            }
        }
        settled.iter().for_each(|run| run.is_settled.set(true));
        garbage.iter().for_each(|segment| segment.leave(&chunk.leftovers));
        drop(garbage);
        self.remove_leftovers(chunk).await?;
        chunk.is_compaction_due.set(true);
        self.compaction_wanted.raise();
        self.release_log().await
    }

    fn capture(&self, chunk: &Rc<Chunk<D>>) -> Option<Capture<D::File>> {
        self.counting(chunk, |state| {
            if !state.is_durable || state.is_removing || (state.memtable.is_empty() && state.pins.is_empty()) {
                return None;
            }
            let frozen = state.memtable.freeze();
            let contents = Rc::clone(&frozen.contents);
            state.frozen = Some(frozen);
            state.oldest_row = None;
            state.decided_since = None;
            state.pins_flushing = std::mem::take(&mut state.pins);
            let is_decided = |segment: &&Rc<LiveSegment<D::File>>| segment.commit.get().is_some();
            Some(Capture {
                settled: state.segments.iter().filter(is_decided).cloned().collect(),
                manifest: state.manifest(),
                contents,
                schema: Arc::clone(&state.schema),
                sort: state.sort.clone(),
                table: state.table,
                garbage: std::mem::take(&mut state.garbage),
            })
        })
    }

    /// Writes the segments, then the manifest that names them.
    async fn write_capture(
        &self,
        chunk: &Chunk<D>,
        mut capture: Capture<D::File>,
    ) -> Result<Vec<SegmentV2>, EngineError> {
        let started = executor::now();
        self.disk.create_directory(&chunk.directory).await?;
        self.disk.sync_directory(&layout::chunks_directory(&self.options.directory)).await?;
        let mut fresh = Vec::new();
        if let Err(error) = self.write_parts(chunk, &capture, &mut fresh).await {
            self.discard(chunk, fresh.iter().map(SegmentV2::id)).await;
            return Err(error);
        }
        capture.manifest.segments.extend(fresh.iter().cloned());
        self.store_manifest(chunk, &mut capture.manifest, &fresh).await?;
        let rows: u64 = fresh.iter().map(|segment| segment.rows).sum();
        debug!(chunk = %chunk.id, rows, segments = fresh.len(), elapsed = ?(executor::now() - started), "flushed");
        Ok(fresh)
    }

    async fn write_parts(
        &self,
        chunk: &Chunk<D>,
        capture: &Capture<D::File>,
        fresh: &mut Vec<SegmentV2>,
    ) -> Result<(), EngineError> {
        let order = RowOrder::from(&capture.sort);
        for part in parts(capture) {
            let segment = chunk.state.borrow_mut().take_segment();
            let run = part.run.map(|(transaction, command)| RunV1 {
                producer: transaction.producer.0,
                sequence: transaction.sequence.0,
                command: command.0,
                commit: None,
            });
            let summary = self.write_segment(chunk, capture, segment, part.rows).await?;
            fresh.push(SegmentV2 { run, ..stored(&summary, &order) });
        }
        Ok(())
    }

    /// Makes the manifest the chunk's; `fresh` are the segments that only it names. The chunk's `flushing` is held.
    pub async fn store_manifest(
        &self,
        chunk: &Chunk<D>,
        manifest: &mut ManifestV2,
        fresh: &[SegmentV2],
    ) -> Result<(), EngineError> {
        manifest.segment_next = chunk.state.borrow().segment_next.0;
        let owner = ManifestOwner { cluster: self.options.cluster, node: self.options.node, chunk: chunk.id };
        let stored = manifest::store(&self.disk, &chunk.directory, owner, manifest).await;
        if stored.as_ref().is_err_and(EngineError::is_disk_full) {
            // The old one stands, surely: space is asked for before the name changes. After any other error the new
            // one may stand, and its segments must.
            self.discard(chunk, fresh.iter().map(SegmentV2::id)).await;
        }
        stored
    }

    /// Removes files that no manifest names, as far as the disk allows; the next start removes the others.
    pub async fn discard(&self, chunk: &Chunk<D>, segments: impl Iterator<Item = SegmentId>) {
        for segment in segments {
            let _ = self.disk.remove(&layout::segment_path(&chunk.directory, segment)).await;
        }
    }

    async fn write_segment(
        &self,
        chunk: &Chunk<D>,
        capture: &Capture<D::File>,
        segment: SegmentId,
        rows: Unsorted,
    ) -> Result<SegmentSummary, EngineError> {
        let sorted = sorted(rows, &capture.schema, &capture.sort).await;
        let sorted = sorted.map_err(|error| EngineError::Rows(error.to_string()))?;
        let rows = stream::unfold(sorted, |mut sorted| async move {
            let next = sorted.next().await?;
            let rows = next.map(|(batch, commits)| SegmentRows { batch, commits });
            Some((rows.map_err(|error| EngineError::Rows(error.to_string())), sorted))
        });
        let spec = SegmentSpec {
            cluster: self.options.cluster,
            table: capture.table,
            chunk: chunk.id,
            segment,
            schema: TableSchema::clone(&capture.schema),
            sort: capture.sort.clone(),
        };
        let limits = SegmentLimits::default();
        segment::write(&self.disk, &chunk.directory, &spec, rows.boxed_local(), limits, &breathe).await
    }

    /// The manifest is durable: readers go over to the new segments.
    fn switch(&self, chunk: &Chunk<D>, fresh: Vec<SegmentV2>) {
        self.counting(chunk, |state| {
            let frozen = state.frozen.take();
            for stored in fresh {
                let live = Rc::new(LiveSegment::new(stored));
                let outcome = live.run.zip(frozen.as_ref()).map(|((of, _), frozen)| frozen.outcome(of));
                if outcome.is_some_and(|outcome| outcome != Outcome::Undecided) {
                    state.note_decided();
                }
                match outcome {
                    Some(Outcome::Aborted) => state.garbage.push(live),
                    Some(Outcome::Committed(commit)) => {
                        live.commit.set(Some(commit));
                        state.segments.push(live);
                    }
                    Some(Outcome::Undecided) | None => state.segments.push(live),
                }
            }
            state.pins_flushing.clear();
        });
        self.memory_freed.raise();
    }

    /// Removes files that no manifest names any more and whose last reader is done. The chunk's `flushing` is held.
    pub async fn remove_leftovers(&self, chunk: &Chunk<D>) -> Result<(), EngineError> {
        for segment in chunk.leftovers.take() {
            self.disk.remove(&layout::segment_path(&chunk.directory, segment)).await?;
        }
        Ok(())
    }

    /// Lets the log go of files whose every record is in a manifest.
    pub async fn release_log(&self) -> Result<(), EngineError> {
        let oldest = {
            let chunks = self.chunks.borrow();
            let removed = self.removed_pins.borrow();
            let pins = chunks.values().filter_map(|chunk| chunk.state.borrow().oldest_pin());
            pins.chain(removed.values().filter_map(|pins| pins.first().copied())).min()
        };
        self.wal.release_before(oldest.unwrap_or(u64::MAX)).await
    }
}

impl<D: Disk> ChunkState<D> {
    /// The flush failed: everything is as if it had not begun.
    fn put_back(&mut self, garbage: Vec<Rc<LiveSegment<D::File>>>) {
        if let Some(frozen) = self.frozen.take() {
            if frozen.rows() > 0 {
                self.oldest_row = Some(executor::now());
            }
            self.memtable.restore(frozen);
        }
        let pins = std::mem::take(&mut self.pins_flushing);
        self.pins.extend(pins);
        self.garbage.extend(garbage);
        self.note_decided();
    }
}

/// One part for the committed rows, one for each command of each stage.
fn parts<F: crate::disk::DiskFile>(capture: &Capture<F>) -> Vec<Part> {
    let schema = capture.schema.arrow();
    let unsorted = |batches: Vec<RecordBatch>, commits| Unsorted { schema: schema.clone(), batches, commits };
    let mut parts = Vec::new();
    let committed = &capture.contents.committed;
    if committed.iter().any(|rows| rows.batch.num_rows() > 0) {
        let batches = committed.iter().map(|rows| rows.batch.clone()).collect();
        let commits = committed.iter().map(|rows| rows.commits.clone()).collect();
        parts.push(Part { rows: unsorted(batches, commits), run: None });
    }
    for (transaction, stage) in &capture.contents.stages {
        let mut by_command: BTreeMap<CommandId, Vec<RecordBatch>> = BTreeMap::new();
        for staged in stage.iter().filter(|staged| staged.batch.num_rows() > 0) {
            by_command.entry(staged.command).or_default().push(staged.batch.clone());
        }
        for (command, batches) in by_command {
            parts.push(Part { rows: unsorted(batches, Vec::new()), run: Some((*transaction, command)) });
        }
    }
    parts
}

/// A segment as a manifest names it.
pub fn stored(summary: &SegmentSummary, order: &RowOrder) -> SegmentV2 {
    SegmentV2 {
        segment: summary.segment.0,
        rows: summary.rows,
        file_bytes: summary.file_bytes,
        commits: summary.commits.map(|(min, max)| (min.0, max.0)),
        time: summary.time,
        run: None,
        order: order.into(),
        is_compressed: false,
    }
}

/// Waits for the signal, at most so long. True when it came.
pub async fn wait_at_most(signal: impl Future<Output = ()>, wait: Duration) -> bool {
    let timer = executor::sleep(wait);
    pin_mut!(signal, timer);
    matches!(select(signal, timer).await, Either::Left(_))
}
