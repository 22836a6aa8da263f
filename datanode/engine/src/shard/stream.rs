//! A scan of one chunk: its visible rows, from segments, then from memory. The list of sources is taken when the scan
//! begins; order is not promised.

use std::collections::VecDeque;
use std::rc::Rc;

use arrow::array::{BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use meridian_proto::schema::{Column, TableSchema};
use meridian_proto::{ClusterId, Refusal};

use super::Inner;
use super::budget::{Permit, ScanBudget};
use super::chunk::{Chunk, LiveSegment};
use super::open::OpenSegments;
use crate::disk::{Disk, GlommioDisk};
use crate::error::EngineError;
use crate::pace::breathe;
use crate::scan::{BATCH_ROWS_MAX, Bound, Scan, ScanStatistics};
use crate::segment::{RowGroupRows, SegmentReader};
use crate::visibility::{Outcome, View};

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
    bounds: Vec<Bound>,
    batch_rows: usize,
    segments: VecDeque<Rc<LiveSegment<D::File>>>,
    current: Option<OpenSegment<D>>,
    /// Visible and projected, waiting to be handed out.
    ready: VecDeque<RecordBatch>,
    memory: Vec<RecordBatch>,
    statistics: ScanStatistics,
}

struct OpenSegment<D: Disk> {
    reader: Rc<SegmentReader<D::File>>,
    row_groups: VecDeque<usize>,
    /// A run's rows have no timestamps of their own: that it is read at all says that they are seen.
    is_run: bool,
    /// Keeps the file from being removed.
    _segment: Rc<LiveSegment<D::File>>,
}

impl<D: Disk> ScanStream<D> {
    pub(super) fn new(inner: &Inner<D>, chunk: Rc<Chunk<D>>, scan: Scan) -> Result<Self, Refusal> {
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
            columns,
            projected: std::sync::Arc::new(Schema::new(fields)),
            bounds: scan.bounds,
            batch_rows: scan.batch_rows.clamp(1, BATCH_ROWS_MAX),
            segments: seen.into(),
            current: None,
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

    /// The next rows, at most `batch_rows` of them.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, Refusal>> {
        loop {
            breathe().await;
            if let Some(batch) = self.take_ready() {
                return Some(batch.map_err(|error| rows(error).into()));
            }
            match self.read_more().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(refusal) => {
                    // Damage ends the scan: no partial answers.
                    self.segments.clear();
                    self.current = None;
                    self.memory.clear();
                    return Some(Err(refusal));
                }
            }
        }
    }

    #[must_use]
    pub fn statistics(&self) -> ScanStatistics {
        self.statistics
    }

    fn take_ready(&mut self) -> Option<Result<RecordBatch, ArrowError>> {
        while let Some(batch) = self.ready.pop_front() {
            if batch.num_rows() > self.batch_rows {
                self.ready.push_front(batch.slice(self.batch_rows, batch.num_rows() - self.batch_rows));
                self.ready.push_front(batch.slice(0, self.batch_rows));
                continue;
            }
            if batch.num_rows() > 0 {
                self.statistics.rows_returned += batch.num_rows() as u64;
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                let columns = batch.columns().to_vec();
                return Some(RecordBatch::try_new_with_options(self.projected.clone(), columns, &options));
            }
        }
        None
    }

    /// Fills `ready`; false when there is nothing left.
    async fn read_more(&mut self) -> Result<bool, Refusal> {
        // All that it was for is handed out.
        self.permit = None;
        if let Some(current) = &mut self.current {
            if let Some(row_group) = current.row_groups.pop_front() {
                let reader = Rc::clone(&current.reader);
                let is_run = current.is_run;
                let facts = reader.row_groups().nth(row_group).map_or(0, |group| group.rows);
                let mut permit = self.budget.take(facts * row_bytes(&self.columns)).await?;
                let rows = reader.read(row_group, &self.columns, &breathe).await?;
                permit.set(rows.batch.get_array_memory_size());
                self.permit = Some(permit);
                self.statistics.row_groups_scanned += 1;
                self.statistics.bytes_read += rows.bytes_read;
                self.statistics.rows_scanned += rows.batch.num_rows() as u64;
                let visible = if is_run { rows.batch } else { self.visible(rows)? };
                self.ready.push_back(visible);
            } else {
                self.current = None;
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

    async fn open(&mut self, segment: Rc<LiveSegment<D::File>>) -> Result<(), EngineError> {
        let reader = segment.reader(&self.disk, &self.chunk, self.cluster, &self.opened).await?;
        let is_run = segment.run.is_some();
        let all = reader.row_groups().len();
        let mut row_groups: VecDeque<usize> = reader.prune(&self.schema, &self.bounds).into();
        if !is_run {
            let groups: Vec<_> = reader.row_groups().collect();
            row_groups.retain(|at| groups[*at].commits.is_none_or(|(min, _)| self.view.sees(min)));
        }
        self.statistics.row_groups_pruned += (all - row_groups.len()) as u64;
        if row_groups.is_empty() {
            self.statistics.segments_pruned += 1;
            return Ok(());
        }
        self.statistics.segments_scanned += 1;
        self.current = Some(OpenSegment { reader, row_groups, is_run, _segment: segment });
        Ok(())
    }

    fn visible(&self, rows: RowGroupRows) -> Result<RecordBatch, EngineError> {
        let Some(commits) = &rows.commits else { return Ok(rows.batch) };
        let mask: BooleanArray = (0..rows.batch.num_rows()).map(|row| Some(self.view.sees(commits.get(row)))).collect();
        if mask.true_count() == mask.len() {
            return Ok(rows.batch);
        }
        filter_record_batch(&rows.batch, &mask).map_err(self::rows)
    }
}

/// Bytes of a decoded row, about: 32 for those of varying length, which a permit is corrected by.
fn row_bytes(columns: &[Column]) -> usize {
    let of = |column: &Column| column.sql_type.arrow().primitive_width().unwrap_or(32);
    columns.iter().map(of).sum::<usize>().max(1)
}

fn rows(error: ArrowError) -> EngineError {
    EngineError::Rows(error.to_string())
}
