//! A chunk's part in a sorted scan: what of it is seen, as it was when the scan began.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::DataType;
use meridian_proto::schema::{Column, TableSchema};
use meridian_proto::{ClusterId, Refusal};

use super::super::Inner;
use super::super::chunk::{Chunk, LiveSegment};
use super::super::piece::Piece;
use super::super::stream::rows as flaw;
use super::stretch::Key;
use crate::disk::Disk;
use crate::error::EngineError;
use crate::leaf::{LeafCache, RowGroupScan, SortedBy, within};
use crate::scan::{Bound, Scan};
use crate::segment::SegmentReader;
use crate::visibility::{Outcome, View};

pub(in crate::shard) struct Part<D: Disk> {
    pub chunk: Rc<Chunk<D>>,
    pub cluster: ClusterId,
    pub view: View,
    pub schema: Arc<TableSchema>,
    /// What is read, in the order wanted.
    pub columns: Vec<Column>,
    positions: Vec<usize>,
    pub bounds: Vec<Bound>,
    any_of: Vec<Vec<Bound>>,
    segments: Vec<Rc<LiveSegment<D::File>>>,
    /// Rows in memory, all columns of the table, before any bound.
    memory: Vec<RecordBatch>,
    rows_in_memory: u64,
}

impl<D: Disk> Part<D> {
    pub fn new(inner: &Inner<D>, chunk: Rc<Chunk<D>>, scan: &Scan) -> Result<Self, Refusal> {
        let view = View::of(scan);
        let state = chunk.state.borrow();
        let schema = Arc::clone(&state.schema);
        let column = |position: &usize| schema.columns.get(*position).cloned();
        let columns = scan.columns.iter().map(column).collect::<Option<Vec<_>>>();
        let columns = columns.ok_or_else(|| Refusal::Protocol("a scan of a column that is not there".to_owned()))?;
        let all: Vec<usize> = (0..schema.columns.len()).collect();
        let mut memory = Vec::new();
        if let Some(frozen) = &state.frozen {
            memory.extend(frozen.contents.visible(&view, &all, |of| frozen.outcome(of)).map_err(flaw)?);
        }
        memory.extend(state.memtable.contents().visible(&view, &all, |_| Outcome::Undecided).map_err(flaw)?);
        let rows_in_memory = state.memtable.rows() + state.frozen.as_ref().map_or(0, |frozen| frozen.rows());
        let segments = state.segments.clone();
        drop(state);
        Ok(Self {
            chunk,
            cluster: inner.options.cluster,
            view,
            schema,
            columns,
            positions: scan.columns.clone(),
            bounds: scan.bounds.clone(),
            any_of: scan.any_of.clone(),
            segments,
            memory,
            rows_in_memory,
        })
    }

    /// Segments of which something may be seen, and the number of the others.
    pub fn segments(&self) -> (Vec<Rc<LiveSegment<D::File>>>, u64) {
        let seen: Vec<_> = self.segments.iter().filter(|segment| segment.may_be_seen(&self.view)).cloned().collect();
        let unseen = self.segments.len() - seen.len();
        (seen, unseen as u64)
    }

    /// Rows looked at, and those within the bounds, projected.
    pub fn memory(&self) -> Result<(u64, Vec<RecordBatch>), EngineError> {
        let within = |batch: &RecordBatch| {
            let mut rows = BooleanBuffer::new_set(batch.num_rows());
            // One without an end is met by NULL, too.
            for bound in self.bounds.iter().filter(|bound| bound.min.is_some() || bound.max.is_some()) {
                if let Some(column) = self.schema.columns.get(bound.column) {
                    rows = &rows & &within(batch.column(bound.column), &column.sql_type, bound).rows;
                }
            }
            let projected = batch.project(&self.positions)?;
            filter_record_batch(&projected, &BooleanArray::new(rows, None))
        };
        let mut batches = self.memory.iter().map(within).collect::<Result<Vec<_>, _>>().map_err(flaw)?;
        batches.retain(|batch| batch.num_rows() > 0);
        Ok((self.rows_in_memory, batches))
    }

    /// What no key of the segment is below, as far as that is known before it is opened.
    pub fn least_key(&self, segment: &LiveSegment<D::File>, wanted: &SortedBy) -> Result<Key, EngineError> {
        let Some(by) = wanted.columns.first() else { return Ok(Key::default()) };
        let column = self.schema.columns.get(by.column);
        let Some(column) = column.filter(|column| Some(column.id) == self.chunk.state.borrow().sort.time) else {
            return Ok(Key::default());
        };
        let end = segment.stored.time.map(|(min, max)| if by.descending { max } else { min });
        // One that has no time would stand elsewhere.
        let Some(end) = end.filter(|_| column.not_null).and_then(|end| time_of(end, &column.sql_type.arrow())) else {
            return Ok(Key::default());
        };
        Ok(wanted.keys.beginnings(&[end]).map_err(flaw)?.bytes(0).into())
    }

    pub fn pieces(&self, reader: &Rc<SegmentReader<D::File>>, segment: &Rc<LiveSegment<D::File>>) -> Vec<Piece<D>> {
        Piece::all(reader, segment, &self.schema, &self.bounds, &self.any_of, &self.view)
    }

    pub fn scan_of<'a>(&'a self, piece: &'a Piece<D>, cache: &'a LeafCache<D::File>) -> RowGroupScan<'a, D::File> {
        piece.scan(&self.schema, &self.bounds, &self.view, cache)
    }

    /// Whether the times of a series descend in the segment; `None` when they are not sorted.
    pub fn times_descend(&self, piece: &Piece<D>) -> Option<bool> {
        let order = piece.segment.stored.order.order();
        let first = order.order_by.first()?;
        (Some(first.column) == piece.reader.time_column()).then_some(first.descending)
    }
}

fn time_of(time: i64, data_type: &DataType) -> Option<ArrayRef> {
    let array: ArrayRef = match data_type {
        DataType::Int64 | DataType::Timestamp(..) => Arc::new(Int64Array::from(vec![time])),
        // Narrower numbers pass through their own width.
        _ => cast(&Int64Array::from(vec![time]), &DataType::Int32).ok()?,
    };
    cast(&array, data_type).ok()
}
