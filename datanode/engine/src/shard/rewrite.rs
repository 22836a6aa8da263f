//! Rewrites segments of a chunk into new ones: for compaction, compression and back. Streams within
//! [`super::ShardOptions::rewrite_bytes_max`]; inputs that are too many for it are put together in several rounds, those
//! sorted in another way are sorted first.
//!
//! New files are written and synced, then the manifest is replaced by one that names them instead of the inputs, then
//! readers go over, then the inputs' files go when their last reader is done. A crash anywhere leaves the old or the new
//! manifest with all its files; what is left over is swept at the next start.
//!
//! A rewrite works from what the manifest on disk holds and never from the log: nothing unacknowledged or undecided gets
//! into a segment (R8), and the manifest's position in the log stays as it is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use meridian_proto::schema::TableSchema;
use meridian_proto::{SegmentId, TableId};

use super::Inner;
use super::chunk::{Chunk, LiveSegment};
use super::flush::{stored, wait_at_most};
use super::merge::{Cursor, GroupRows, Merge, MergeTarget, Source, gathered};
use crate::disk::Disk;
use crate::error::EngineError;
use crate::manifest::{self, CompressionV2, ManifestOwner, SegmentV2};
use crate::order::{Keys, RowOrder, sorted_rows};
use crate::pace::breathe;
use crate::scan::SortKey;
use crate::segment::{
    self, SegmentExpectation, SegmentLimits, SegmentReader, SegmentRows, SegmentSpec, SegmentSummary,
};

/// Rows of a new segment, about: a chunk of 100 million rows is four files.
const SEGMENT_ROWS: usize = 32 << 20;
/// Rows gathered at once after sorting.
const GATHER_ROWS: usize = 8192;
/// How long a rewrite stands back per batch of rows while memory for writes is short. It still goes on, since the flush
/// of more segments would only add to its work.
const STAND_BACK: Duration = Duration::from_millis(20);

/// Segments to be rewritten, in order of arrival, and how.
pub struct Rewrite<D: Disk> {
    pub chunk: Rc<Chunk<D>>,
    pub inputs: Vec<Rc<LiveSegment<D::File>>>,
    pub order: RowOrder,
    pub is_compressed: bool,
}

/// What the switch does to the chunk's compression.
pub enum CompressionChange {
    Keep,
    Set(CompressionV2),
    Clear,
}

impl<D: Disk> Inner<D> {
    /// Writes new segments from the inputs and makes them the chunk's. The chunk's `rewriting` is held.
    pub async fn rewrite(
        &self,
        rewrite: &Rewrite<D>,
        compression: CompressionChange,
    ) -> Result<Vec<SegmentV2>, EngineError> {
        let fresh = match self.write_rewritten(rewrite, false).await {
            // Written by a release that sorted in another way.
            Err(EngineError::OutOfOrder { .. }) => self.write_rewritten(rewrite, true).await?,
            written => written?,
        };
        self.switch_rewritten(rewrite, &fresh, compression).await?;
        Ok(fresh)
    }

    async fn write_rewritten(&self, rewrite: &Rewrite<D>, sort_all: bool) -> Result<Vec<SegmentV2>, EngineError> {
        let work = Work::new(self, rewrite)?;
        let written = work.run(rewrite, sort_all).await;
        // What was written in between goes; after an error everything.
        let kept: Vec<SegmentId> = written.iter().flatten().map(|summary| summary.segment).collect();
        let begun = work.begun.take();
        self.discard(&rewrite.chunk, begun.into_iter().filter(|segment| !kept.contains(segment))).await;
        let of = |summary: &SegmentSummary| SegmentV2 {
            is_compressed: rewrite.is_compressed,
            ..stored(summary, &rewrite.order)
        };
        Ok(written?.iter().map(of).collect())
    }

    /// One step for readers and for the disk: the new segments stand where the last input stood.
    async fn switch_rewritten(
        &self,
        rewrite: &Rewrite<D>,
        fresh: &[SegmentV2],
        compression: CompressionChange,
    ) -> Result<(), EngineError> {
        let chunk = &rewrite.chunk;
        let _flushing = chunk.flushing.lock().await;
        if chunk.is_leaving.get() {
            self.discard(chunk, fresh.iter().map(SegmentV2::id)).await;
            return Err(EngineError::Interrupted("the chunk is removed"));
        }
        let owner = ManifestOwner { cluster: self.options.cluster, node: self.options.node, chunk: chunk.id };
        // As it stands, so that nothing of the log gets in that no flush has brought in.
        let missing = || EngineError::corruption(&chunk.directory, 0, "the manifest is missing");
        let mut manifest = manifest::load(&self.disk, &chunk.directory, owner).await?.ok_or_else(missing)?;
        let inputs: Vec<SegmentId> = rewrite.inputs.iter().map(|input| input.stored.id()).collect();
        if !replace(&mut manifest.segments, &inputs, SegmentV2::id, fresh) {
            return Err(EngineError::corruption(&chunk.directory, 0, "the manifest does not name its segments"));
        }
        match compression {
            CompressionChange::Keep => {}
            CompressionChange::Set(compression) => manifest.compression = Some(compression),
            CompressionChange::Clear => manifest.compression = None,
        }
        let history_upto = chunk.state.borrow().history_upto;
        manifest.history_upto = history_upto.0;
        self.store_manifest(chunk, &mut manifest, fresh).await?;
        {
            let mut state = chunk.state.borrow_mut();
            let live: Vec<_> = fresh.iter().map(|stored| Rc::new(LiveSegment::new(stored.clone()))).collect();
            let replaced = replace(&mut state.segments, &inputs, |segment| segment.stored.id(), &live);
            assert!(replaced, "decided segments leave the list by a rewrite only, and one runs at a time");
            state.compression = manifest.compression;
        }
        rewrite.inputs.iter().for_each(|input| input.leave(&chunk.leftovers));
        Ok(())
    }

    /// Lets go of the inputs, whose files are removed now or when their last reader is done.
    pub async fn finish_rewrite(&self, rewrite: Rewrite<D>) -> Result<(), EngineError> {
        let chunk = Rc::clone(&rewrite.chunk);
        drop(rewrite);
        let _flushing = chunk.flushing.lock().await;
        self.remove_leftovers(&chunk).await
    }

    /// Before each batch of a rewrite: gives way to whatever is more urgent.
    async fn give_way(&self, chunk: &Chunk<D>) -> Result<(), EngineError> {
        breathe().await;
        if chunk.is_leaving.get() {
            return Err(EngineError::Interrupted("the chunk is removed"));
        }
        if self.is_closing.get() || self.fatal.borrow().is_some() {
            return Err(EngineError::Interrupted("the shard closes"));
        }
        if self.is_memory_short() {
            wait_at_most(self.memory_freed.next(), STAND_BACK).await;
        }
        Ok(())
    }
}

/// Puts the new ones where the last of the old ones stood and takes the old ones out; false when one is not there.
fn replace<T: Clone>(list: &mut Vec<T>, old: &[SegmentId], id: impl Fn(&T) -> SegmentId, new: &[T]) -> bool {
    let is_old = |item: &T| old.contains(&id(item));
    if list.iter().filter(|item| is_old(item)).count() != old.len() {
        return false;
    }
    let last = list.iter().rposition(is_old);
    let place = last.map_or(list.len(), |last| list[..last].iter().filter(|item| !is_old(item)).count());
    list.retain(|item| !is_old(item));
    list.splice(place..place, new.iter().cloned());
    true
}

struct Work<'a, D: Disk> {
    inner: &'a Inner<D>,
    chunk: &'a Chunk<D>,
    target: MergeTarget,
    table: TableId,
    sort: SortKey,
    /// Segments whose files were begun.
    begun: RefCell<Vec<SegmentId>>,
}

impl<'a, D: Disk> Work<'a, D> {
    fn new(inner: &'a Inner<D>, rewrite: &'a Rewrite<D>) -> Result<Self, EngineError> {
        let mut state = rewrite.chunk.state.borrow_mut();
        let schema = Arc::clone(&state.schema);
        let keys = Keys::new(&rewrite.order, &schema).map_err(|error| EngineError::Rows(error.to_string()))?;
        // From here on older snapshots are refused: they would not find the versions any more.
        state.history_upto = state.history_upto.max(inner.horizon.get());
        Ok(Self {
            inner,
            chunk: &rewrite.chunk,
            target: MergeTarget { schema, keys, history_upto: state.history_upto },
            table: state.table,
            sort: SortKey { segment_by: rewrite.order.segment_by.clone(), time: state.sort.time },
            begun: RefCell::default(),
        })
    }

    async fn run(&self, rewrite: &Rewrite<D>, sort_all: bool) -> Result<Vec<SegmentSummary>, EngineError> {
        let mut sources = VecDeque::new();
        for input in &rewrite.inputs {
            let inner = self.inner;
            let reader = input.reader(&inner.disk, self.chunk, inner.options.cluster, &inner.opened).await?;
            let source = Source { reader, commit: input.commit.get().filter(|_| input.run.is_some()) };
            if sort_all || input.stored.order.order() != rewrite.order {
                sources.extend(self.sort(&source).await?);
            } else {
                sources.push_back(source);
            }
        }
        self.merge_all(sources).await
    }

    /// Puts neighbours together, as many as fit into memory, until all of them do.
    async fn merge_all(&self, mut sources: VecDeque<Source<D::File>>) -> Result<Vec<SegmentSummary>, EngineError> {
        loop {
            let mut merged = VecDeque::new();
            while !sources.is_empty() {
                let cursors = self.open_fitting(&mut sources).await?;
                if sources.is_empty() && merged.is_empty() {
                    return self.write_merged(Merge::new(&self.target, cursors), SEGMENT_ROWS).await;
                }
                if cursors.len() == 1 {
                    merged.extend(cursors.into_iter().map(Cursor::into_source));
                    continue;
                }
                for summary in self.write_merged(Merge::new(&self.target, cursors), usize::MAX).await? {
                    merged.push_back(self.reopen(summary.segment).await?);
                }
            }
            sources = merged;
            if sources.is_empty() {
                return Ok(Vec::new());
            }
        }
    }

    /// Takes sources from the front: two, then as many as the budget allows. Row groups of a segment are of about one
    /// size, so that the first one tells what each takes.
    async fn open_fitting(&self, sources: &mut VecDeque<Source<D::File>>) -> Result<Vec<Cursor<D::File>>, EngineError> {
        let budget = self.inner.options.rewrite_bytes_max / 2;
        let (mut cursors, mut bytes) = (Vec::new(), 0);
        while let Some(source) = sources.pop_front() {
            self.inner.give_way(self.chunk).await?;
            let cursor = Cursor::open(source, &self.target).await?;
            bytes += cursor.memory_bytes();
            if cursors.len() >= 2 && bytes > budget {
                sources.push_front(cursor.into_source());
                break;
            }
            cursors.push(cursor);
        }
        Ok(cursors)
    }

    async fn write_merged(
        &self,
        mut merge: Merge<'_, D::File>,
        rows_max: usize,
    ) -> Result<Vec<SegmentSummary>, EngineError> {
        let mut written = Vec::new();
        while !merge.is_done() {
            let rows = stream::unfold((&mut merge, 0), |(merge, count)| async move {
                if count >= rows_max {
                    return None;
                }
                let next = match self.inner.give_way(self.chunk).await {
                    Ok(()) => merge.next().await.transpose()?,
                    Err(error) => Err(error),
                };
                let count = next.as_ref().map_or(usize::MAX, |rows| count + rows.batch.num_rows());
                Some((next, (merge, count)))
            });
            let rows = rows.boxed_local();
            written.push(self.write(rows).await?);
        }
        Ok(written)
    }

    async fn write(
        &self,
        rows: impl stream::Stream<Item = Result<SegmentRows, EngineError>> + Unpin,
    ) -> Result<SegmentSummary, EngineError> {
        let segment = self.chunk.state.borrow_mut().take_segment();
        let spec = SegmentSpec {
            cluster: self.inner.options.cluster,
            table: self.table,
            chunk: self.chunk.id,
            segment,
            schema: TableSchema::clone(&self.target.schema),
            sort: self.sort.clone(),
        };
        self.begun.borrow_mut().push(segment);
        let limits = SegmentLimits::default();
        segment::write(&self.inner.disk, &self.chunk.directory, &spec, rows, limits, &breathe).await
    }

    async fn reopen(&self, segment: SegmentId) -> Result<Source<D::File>, EngineError> {
        let expected = SegmentExpectation { cluster: self.inner.options.cluster, chunk: self.chunk.id, segment };
        let reader = SegmentReader::open(&self.inner.disk, &self.chunk.directory, expected).await?;
        Ok(Source { reader: Rc::new(reader), commit: None })
    }

    /// The same rows as sorted segments, each as long as memory allows.
    async fn sort(&self, source: &Source<D::File>) -> Result<Vec<Source<D::File>>, EngineError> {
        let budget = self.inner.options.rewrite_bytes_max / 2;
        let (mut sorted, mut groups, mut bytes) = (Vec::new(), Vec::new(), 0);
        let count = source.reader.row_groups().len();
        for group in 0..count {
            self.inner.give_way(self.chunk).await?;
            let rows = self.target.read(source, group).await?;
            bytes += rows.batch.get_array_memory_size();
            groups.push(rows);
            if bytes >= budget || group + 1 == count {
                let written = self.write_sorted(std::mem::take(&mut groups)).await?;
                sorted.push(self.reopen(written.segment).await?);
                bytes = 0;
            }
        }
        Ok(sorted)
    }

    async fn write_sorted(&self, groups: Vec<GroupRows>) -> Result<SegmentSummary, EngineError> {
        let rows_error = |error: arrow::error::ArrowError| EngineError::Rows(error.to_string());
        let mut keys = Vec::with_capacity(groups.len());
        for group in &groups {
            keys.push(self.target.keys.of(&group.batch).await.map_err(rows_error)?);
        }
        let counts: Vec<usize> = groups.iter().map(|group| group.batch.num_rows()).collect();
        let order = sorted_rows(&keys, &counts).await;
        drop(keys);
        let (arrow, groups, order) = (&self.target.arrow(), &groups, &order);
        let rows = stream::iter(order.chunks(GATHER_ROWS)).then(|rows| async move {
            self.inner.give_way(self.chunk).await?;
            gathered(arrow, groups, rows).map_err(rows_error)
        });
        self.write(rows.boxed_local()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_segments_stand_where_the_last_old_one_stood() {
        let check = |list: &[u64], old: &[u64], new: &[u64], expected: Option<&[u64]>| {
            let mut list = list.to_vec();
            let old: Vec<SegmentId> = old.iter().map(|id| SegmentId(*id)).collect();
            let is_replaced = replace(&mut list, &old, |id| SegmentId(*id), new);
            assert_eq!(is_replaced.then_some(list.as_slice()), expected);
        };
        check(&[1, 2, 3, 4], &[1, 3], &[9], Some(&[2, 9, 4]));
        check(&[1, 2, 3], &[1, 2, 3], &[8, 9], Some(&[8, 9]));
        check(&[1, 2, 3], &[2], &[], Some(&[1, 3]));
        check(&[1, 2], &[], &[9], Some(&[1, 2, 9]));
        check(&[1, 2], &[1, 5], &[9], None);
    }
}
