//! Compaction in the background: one job at a time over all chunks of the shard, so that one memory budget is enough.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tracing::debug;

use super::Inner;
use super::chunk::{Chunk, ChunkState, LiveSegment};
use super::flush::wait_at_most;
use super::pick::{self, Job, RunFacts};
use super::rewrite::{CompressionChange, Rewrite};
use crate::disk::{Disk, DiskFile};
use crate::error::EngineError;
use crate::order::RowOrder;
use crate::pace::executor;

/// A chunk whose rewrite failed is left alone for so long: what failed it, damage or a full disk, does not pass at once.
const RETRY_AFTER: Duration = Duration::from_secs(60);

impl<D: Disk> Inner<D> {
    /// Does what is due, and removes files that readers have left.
    pub async fn compact_loop(self: Rc<Self>) {
        while !self.is_closing.get() && self.fatal.borrow().is_none() {
            let wanted = self.compaction_wanted.next();
            if let Err(error) = self.remove_left().await {
                self.note_background(error, "files of old segments stay until the next start");
            }
            if let Some(chunk) = self.pick_compaction(executor::now()) {
                self.compact_noted(&chunk).await;
                self.rewritten.raise();
                continue;
            }
            let now = executor::now();
            match self.next_retry(now) {
                None => wanted.await,
                Some(retry) => {
                    wait_at_most(wanted, retry - now).await;
                }
            }
        }
    }

    /// Does all that is due, now; returns the number of jobs.
    pub async fn compact_all(self: &Rc<Self>) -> Result<usize, EngineError> {
        let mut jobs = 0;
        while let Some(chunk) = self.pick_compaction(executor::now()) {
            jobs += usize::from(self.compact_chunk(&chunk).await?);
        }
        Ok(jobs)
    }

    async fn remove_left(&self) -> Result<(), EngineError> {
        let chunks: Vec<_> = self.chunks.borrow().values().filter(|chunk| chunk.leftovers.is_any()).cloned().collect();
        for chunk in chunks {
            let _flushing = chunk.flushing.lock().await;
            if !chunk.is_leaving.get() {
                self.remove_leftovers(&chunk).await?;
            }
        }
        Ok(())
    }

    fn pick_compaction(&self, now: Instant) -> Option<Rc<Chunk<D>>> {
        if self.is_read_only() {
            // A rewrite needs space before it gives any back.
            return None;
        }
        let chunks = self.chunks.borrow();
        let due = chunks.values().filter(|chunk| {
            chunk.is_compaction_due.get()
                && !chunk.is_leaving.get()
                && chunk.rewrite_after.get().is_none_or(|at| at <= now)
        });
        // The chunk with the most overlap first: its readers gain the most.
        let picked = due.filter_map(|chunk| {
            let facts = facts(&chunk.state.borrow());
            let job = pick::pick(&facts, self.options.compaction);
            if job.is_none() {
                chunk.is_compaction_due.set(false);
            }
            job.map(|_| (pick::overlap(&facts), chunk))
        });
        picked.max_by_key(|(overlap, _)| *overlap).map(|(_, chunk)| Rc::clone(chunk))
    }

    /// Whether more segments of the chunk overlap than may, and compaction is going to change that.
    pub fn is_compaction_behind(&self, chunk: &Chunk<D>) -> bool {
        let is_possible = !self.is_read_only() && !chunk.is_leaving.get() && chunk.rewrite_after.get().is_none();
        let is_over = || overlap(chunk) > self.options.compaction.overlap_max;
        let is_due = || pick::pick(&facts(&chunk.state.borrow()), self.options.compaction).is_some();
        is_possible && chunk.is_compaction_due.get() && is_over() && is_due()
    }

    /// When the next chunk may be tried again.
    fn next_retry(&self, now: Instant) -> Option<Instant> {
        let chunks = self.chunks.borrow();
        let due = chunks.values().filter(|chunk| chunk.is_compaction_due.get());
        due.filter_map(|chunk| chunk.rewrite_after.get()).filter(|retry| *retry > now).min()
    }

    async fn compact_noted(self: &Rc<Self>, chunk: &Rc<Chunk<D>>) {
        match self.compact_chunk(chunk).await {
            Ok(_) => chunk.rewrite_after.set(None),
            Err(error) => {
                chunk.rewrite_after.set(Some(executor::now() + RETRY_AFTER));
                if !matches!(error, EngineError::Interrupted(_)) {
                    self.note_background(error, "a compaction failed and will be tried again");
                }
            }
        }
    }

    /// Does the chunk's next job; false when none is due any more.
    async fn compact_chunk(self: &Rc<Self>, chunk: &Rc<Chunk<D>>) -> Result<bool, EngineError> {
        let _turn = self.rewrite_turn.lock().await;
        let _rewriting = chunk.rewriting.lock().await;
        let started = executor::now();
        let rewrite = {
            let state = chunk.state.borrow();
            let Some(job) = pick::pick(&facts(&state), self.options.compaction) else { return Ok(false) };
            let order = RowOrder::from(&state.sort);
            Rewrite { chunk: Rc::clone(chunk), inputs: inputs(&state, &job), order, is_compressed: false }
        };
        let fresh = self.rewrite(&rewrite, CompressionChange::Keep).await?;
        let rows: u64 = fresh.iter().map(|segment| segment.rows).sum();
        debug!(chunk = %chunk.id, inputs = rewrite.inputs.len(), rows, elapsed = ?(executor::now() - started), "compacted");
        self.finish_rewrite(rewrite).await?;
        Ok(true)
    }
}

fn inputs<D: Disk>(state: &ChunkState<D>, job: &Job) -> Vec<Rc<LiveSegment<D::File>>> {
    state.segments.iter().filter(|segment| job.inputs.contains(&segment.stored.id())).cloned().collect()
}

/// Most segments of the chunk that lie over one moment.
pub(super) fn overlap<D: Disk>(chunk: &Chunk<D>) -> usize {
    pick::overlap(&facts(&chunk.state.borrow()))
}

fn facts<D: Disk>(state: &ChunkState<D>) -> Vec<RunFacts> {
    state.segments.iter().map(|segment| segment.facts()).collect()
}

impl<F: DiskFile> LiveSegment<F> {
    fn facts(&self) -> RunFacts {
        let is_compressed = self.is_compressed.get();
        RunFacts {
            segment: self.stored.id(),
            bytes: self.stored.file_bytes,
            time: self.stored.time,
            is_fixed: is_compressed || !self.is_settled.get(),
            is_compressed,
        }
    }
}
