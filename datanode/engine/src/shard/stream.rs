//! A scan of one chunk: its visible rows, from segments, then from memory. The list of sources is taken when the scan
//! begins; order is not promised.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::rc::Rc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use futures::future::join;
use meridian_proto::schema::{Column, TableSchema};
use meridian_proto::{ClusterId, Refusal};

use super::Inner;
use super::budget::{Permit, ScanBudget};
use super::chunk::{Chunk, LiveSegment};
use super::open::OpenSegments;
use super::piece::Piece;
use crate::disk::{Disk, GlommioDisk};
use crate::error::EngineError;
use crate::leaf::{LeafCache, SeriesPredicate, Want};
use crate::pace::{self, breathe_reading};
use crate::scan::{BATCH_ROWS_MAX, Bound, Scan, ScanStatistics};
use crate::segment::ReadAhead;
use crate::statistics::Facts;
use crate::visibility::{Outcome, View};

/// Batches with fewer rows wait for more.
const SMALL_ROWS: usize = 256;
/// Rows of a batch while a write is waited for: what a plan makes of more of them holds it up.
const ROWS_BESIDE_WRITES: usize = 2048;
/// Row groups read without handing anything out: some 10 ms.
const STEPS_MAX: usize = 16;

pub struct ScanStream<D: Disk = GlommioDisk> {
    disk: D,
    cluster: ClusterId,
    opened: Rc<OpenSegments<D::File>>,
    budget: Rc<ScanBudget>,
    /// Memory of the row group in hand.
    permit: Option<Permit>,
    chunk: Rc<Chunk<D>>,
    view: View,
    schema: std::sync::Arc<TableSchema>,
    /// What is read, in the order wanted.
    columns: Vec<Column>,
    projected: SchemaRef,
    /// Of a decoded row, about.
    row_bytes: usize,
    bounds: Vec<Bound>,
    any_of: Vec<Vec<Bound>>,
    batch_rows: usize,
    want: Want,
    cache: Rc<LeafCache<D::File>>,
    segments: VecDeque<Rc<LiveSegment<D::File>>>,
    /// Row groups to be read, in this order.
    pieces: VecDeque<Piece<D>>,
    /// Pages of the first of them.
    ahead: Option<ReadAhead>,
    /// Everything was read.
    is_drained: bool,
    /// Visible and projected, waiting to be handed out.
    ready: VecDeque<RecordBatch>,
    memory: Vec<RecordBatch>,
    facts: Option<Facts>,
    statistics: ScanStatistics,
}

impl<D: Disk> ScanStream<D> {
    pub(super) fn new(inner: &Inner<D>, chunk: Rc<Chunk<D>>, scan: Scan, want: Want) -> Result<Self, Refusal> {
        let view = View::of(&scan);
        let state = chunk.state.borrow();
        let schema = std::sync::Arc::clone(&state.schema);
        let column = |position: &usize| schema.columns.get(*position).cloned();
        let columns = scan.columns.iter().map(column).collect::<Option<Vec<_>>>();
        let columns = columns.ok_or_else(|| Refusal::Protocol("a scan of a column that is not there".to_owned()))?;
        let fields: Vec<_> =
            columns.iter().map(|column| column.sql_type.field(&column.name, !column.not_null)).collect();
        let (seen, unseen): (Vec<_>, Vec<_>) =
            state.segments.iter().cloned().partition(|segment| segment.may_be_seen(&view));
        let mut memory = Vec::new();
        if let Some(frozen) = &state.frozen {
            memory.extend(frozen.contents.visible(&view, &scan.columns, |of| frozen.outcome(of)).map_err(rows)?);
        }
        let contents = state.memtable.contents();
        memory.extend(contents.visible(&view, &scan.columns, |_| Outcome::Undecided).map_err(rows)?);
        let frozen_rows = state.frozen.as_ref().map_or(0, |frozen| frozen.rows());
        let statistics = ScanStatistics {
            rows_scanned: state.memtable.rows() + frozen_rows,
            segments_pruned: unseen.len() as u64,
            ..ScanStatistics::default()
        };
        memory.reverse();
        drop(state);
        Ok(Self {
            disk: inner.disk.clone(),
            cluster: inner.options.cluster,
            opened: Rc::clone(&inner.opened),
            budget: Rc::clone(&inner.scan_budget),
            permit: None,
            chunk,
            view,
            schema,
            row_bytes: row_bytes(&columns),
            columns,
            projected: std::sync::Arc::new(Schema::new(fields)),
            bounds: scan.bounds,
            any_of: scan.any_of,
            batch_rows: scan.batch_rows.clamp(1, BATCH_ROWS_MAX),
            facts: if let Want::Facts(facts) = &want { Some(Facts::new(facts.clone())) } else { None },
            want,
            cache: Rc::clone(&inner.leaf_cache),
            segments: seen.into(),
            pieces: VecDeque::new(),
            ahead: None,
            is_drained: false,
            ready: VecDeque::new(),
            memory,
            statistics,
        })
    }

    /// The Arrow schema of the batches.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.projected.clone()
    }

    /// The next rows, at most `batch_rows` of them. An empty batch, now and then, only lets the caller give up.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, Refusal>> {
        let mut steps = 0;
        loop {
            breathe_reading().await;
            let enough = self.is_drained || self.ready_rows() >= SMALL_ROWS.min(self.batch_rows);
            if enough && let Some(batch) = self.take_ready() {
                return Some(batch.map_err(|error| rows(error).into()));
            }
            if self.is_drained {
                return None;
            }
            if steps == STEPS_MAX {
                return Some(Ok(RecordBatch::new_empty(self.projected.clone())));
            }
            steps += 1;
            match self.read_more().await {
                Ok(more) => self.is_drained = !more,
                Err(refusal) => {
                    // Damage ends the scan: no partial answers.
                    self.segments.clear();
                    self.pieces.clear();
                    self.memory.clear();
                    self.ready.clear();
                    self.is_drained = true;
                    return Some(Err(refusal));
                }
            }
        }
    }

    #[must_use]
    pub fn statistics(&self) -> ScanStatistics {
        self.statistics
    }

    /// The answers for rows that were not returned, complete when the stream has ended.
    pub fn take_facts(&mut self) -> Option<Facts> {
        self.facts.take()
    }

    fn ready_rows(&self) -> usize {
        self.ready.iter().map(RecordBatch::num_rows).sum()
    }

    fn take_ready(&mut self) -> Option<Result<RecordBatch, ArrowError>> {
        self.ready.retain(|batch| batch.num_rows() > 0);
        let mut together = vec![self.ready.pop_front()?];
        let mut rows = together[0].num_rows();
        let rows_max = if pace::is_awaited() { self.batch_rows.min(ROWS_BESIDE_WRITES) } else { self.batch_rows };
        if rows > rows_max {
            self.ready.push_front(together[0].slice(rows_max, rows - rows_max));
            together[0] = together[0].slice(0, rows_max);
            rows = rows_max;
        }
        // A batch of three rows costs its reader as much as one of a thousand.
        while rows < SMALL_ROWS
            && let Some(next) = self.ready.pop_front_if(|next| rows + next.num_rows() <= self.batch_rows)
        {
            rows += next.num_rows();
            together.push(next);
        }
        self.statistics.rows_returned += rows as u64;
        Some(self.put_together(&together, rows))
    }

    fn put_together(&self, batches: &[RecordBatch], rows: usize) -> Result<RecordBatch, ArrowError> {
        let [only] = batches else { return concat_batches(&self.projected, batches) };
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.projected.clone(), only.columns().to_vec(), &options)
    }

    /// Fills `ready`; false when there is nothing left.
    async fn read_more(&mut self) -> Result<bool, Refusal> {
        if let Some(piece) = self.pieces.pop_front() {
            let ahead = self.read_ahead();
            let (read, ahead) = join(self.read_piece(piece), ahead).await;
            self.statistics.bytes_read += ahead.as_ref().map_or(0, |(_, bytes)| *bytes);
            self.ahead = ahead.map(|(ahead, _)| ahead);
            read?;
            return Ok(true);
        }
        if let Some(newest) = self.wants_one_end()
            && !self.segments.is_empty()
        {
            while let Some(segment) = self.segments.pop_front() {
                self.open(segment).await?;
            }
            let time = |piece: &Piece<D>| piece.reader.row_group(piece.row_group).time;
            let pieces = self.pieces.make_contiguous();
            if newest {
                pieces.sort_by_cached_key(|piece| Reverse(time(piece).map(|(_, max)| max)));
            } else {
                pieces.sort_by_cached_key(|piece| time(piece).map(|(min, _)| min));
            }
            return Ok(true);
        }
        if let Some(segment) = self.segments.pop_front() {
            self.open(segment).await?;
            return Ok(true);
        }
        let batch = self.memory.pop();
        Ok(batch.map(|batch| self.ready.push_back(batch)).is_some())
    }

    /// Has the disk read for the next row group while one is decoded. What fails is told when that one's turn comes.
    fn read_ahead(&self) -> impl Future<Output = Option<(ReadAhead, u64)>> + use<D> {
        // Series and buckets read a few rows and statistics, which stay in caches.
        let wants_rows = matches!(self.want, Want::Rows(_) | Want::Facts(_));
        let next = self.pieces.front().filter(|_| wants_rows).and_then(|next| {
            let scan = next.scan(&self.schema, &self.bounds, &self.view, &self.cache);
            let is_answered = self.facts.is_some() && scan.is_whole();
            (!is_answered).then(|| {
                (Rc::clone(&next.reader), next.row_group, scan.first_read(&self.columns, self.series_predicates()))
            })
        });
        async move {
            let (reader, row_group, columns) = next?;
            reader.read_ahead(row_group, &columns).await.ok().flatten()
        }
    }

    fn series_predicates(&self) -> &[SeriesPredicate] {
        if let Want::Rows(predicates) = &self.want { predicates } else { &[] }
    }

    /// From which end of time row groups are best read: from the newest one on when true. `None`: it is all the same.
    fn wants_one_end(&self) -> Option<bool> {
        match &self.want {
            Want::Series(search) => search.series.ends.last.then_some(true),
            Want::Buckets(search) => search.buckets.top.map(|top| top.newest),
            Want::Rows(_) | Want::Facts(_) => None,
        }
    }

    async fn open(&mut self, segment: Rc<LiveSegment<D::File>>) -> Result<(), EngineError> {
        let reader = segment.reader(&self.disk, &self.chunk, self.cluster, &self.opened).await?;
        let all = reader.row_groups().len();
        let pieces = Piece::all(&reader, &segment, &self.schema, &self.bounds, &self.any_of, &self.view);
        self.statistics.row_groups_pruned += (all - pieces.len()) as u64;
        if pieces.is_empty() {
            self.statistics.segments_pruned += 1;
            return Ok(());
        }
        self.statistics.segments_scanned += 1;
        self.pieces.extend(pieces);
        Ok(())
    }

    async fn read_piece(&mut self, piece: Piece<D>) -> Result<(), Refusal> {
        let scan = piece.scan(&self.schema, &self.bounds, &self.view, &self.cache);
        // R30: a run counts once its transaction's commit is known here, not by what this reader alone knows of it.
        let is_settled =
            piece.segment.run.is_none() || piece.segment.commit.get().is_some_and(|commit| self.view.sees(commit));
        if let Some(facts) = &mut self.facts
            && is_settled
            && scan.is_whole()
            && facts.add(&piece.reader.statistics(piece.row_group), &self.schema.columns)
        {
            self.statistics.row_groups_pruned += 1;
            return Ok(());
        }
        // What was read before is handed out, or small.
        self.permit = None;
        let mut permit = self.budget.take(piece.reader.row_group(piece.row_group).rows * self.row_bytes).await?;
        if let Want::Buckets(search) = &self.want
            && is_settled
            && let Some(decoded) = scan.buckets(search).await?
        {
            self.note_read(decoded.bytes_read, decoded.rows);
            return Ok(());
        }
        let found = match &self.want {
            Want::Series(search) => scan.series(&self.columns, &search.series, &search.newest).await?,
            Want::Rows(_) | Want::Facts(_) | Want::Buckets(_) => {
                scan.rows(&self.columns, self.series_predicates()).await?
            }
        };
        // From a cache came no more than was returned.
        let is_cached = found.bytes_read == 0 && (found.rows == 0 || matches!(self.want, Want::Series(_)));
        let looked_at = if is_cached { found.rows } else { piece.reader.row_group(piece.row_group).rows };
        self.note_read(found.bytes_read, looked_at);
        if found.bytes_read == 0 && found.rows == 0 {
            return Ok(());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(found.rows));
        let batch = RecordBatch::try_new_with_options(self.projected.clone(), found.columns, &options);
        let batch = batch.map_err(rows)?;
        permit.set(batch.get_array_memory_size());
        self.permit = Some(permit);
        self.ready.push_back(batch);
        Ok(())
    }

    fn note_read(&mut self, bytes_read: u64, rows: usize) {
        self.statistics.bytes_read += bytes_read;
        if bytes_read == 0 && rows == 0 {
            self.statistics.row_groups_pruned += 1;
            return;
        }
        self.statistics.row_groups_scanned += 1;
        self.statistics.rows_scanned += rows as u64;
    }
}

/// Bytes of a decoded row, about: 32 for those of varying length, which a permit is corrected by.
pub(super) fn row_bytes(columns: &[Column]) -> usize {
    let of = |column: &Column| column.sql_type.arrow().primitive_width().unwrap_or(32);
    columns.iter().map(of).sum::<usize>().max(1)
}

pub(super) fn rows(error: ArrowError) -> EngineError {
    EngineError::Rows(error.to_string())
}
