//! Pieces of a row group: maximal runs of rows of one series and one aligned bucket of time, and what is known of each
//! column in them. They say where a range of time lies without reading times, and answer aggregates over buckets without
//! reading values; whether their rows are seen is the reader's question (R30).

use std::ops::Range;
use std::rc::Rc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use meridian_proto::schema::Column;

use super::reader::{Commits, RowGroupRows, SegmentReader};
use crate::disk::DiskFile;
use crate::error::EngineError;

/// Where the pieces of a row group lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Of a bucket, in microseconds. Buckets begin at multiples of it since 1970-01-01 00:00 UTC: for the widths that are
    /// written, up to a day, those are the buckets of `time_bucket` with its own origin, too.
    pub width_us: i64,
    /// First row of each piece, ascending from 0. A series begins with a piece.
    pub starts: Vec<u32>,
    /// Start of each piece's bucket, in microseconds since 1970.
    pub buckets: Vec<i64>,
    /// Of the row group.
    pub rows: usize,
}

impl Pieces {
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The rows of a piece.
    #[must_use]
    pub fn rows_of(&self, piece: usize) -> Range<usize> {
        let end = self.starts.get(piece + 1).map_or(self.rows, |start| *start as usize);
        self.starts[piece] as usize..end
    }

    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.starts.len() * 4 + self.buckets.len() * 8
    }
}

/// What is known of a column in each piece: one entry per piece in every array.
#[derive(Clone, Debug)]
pub struct PieceColumn {
    /// Values that are not NULL.
    pub counts: Int64Array,
    /// Sums of those values, NULL where there are none: i64 of integers, f64 of floats, added in the order of rows. `None`
    /// of times, and where a sum does not fit.
    pub sums: Option<ArrayRef>,
    /// Of the column's type; NULL where there are no values.
    pub mins: ArrayRef,
    pub maxs: ArrayRef,
    /// The column's value in the row with the least and the greatest time, which may be NULL; of several such rows, in the
    /// one that came first.
    pub firsts: ArrayRef,
    pub lasts: ArrayRef,
    /// Pieces of which sums, least and greatest values are as decoding the rows would give them; `None`: all. Not so where
    /// a float is NaN, infinite or -0.0, or a sum of floats overflows. Counts, firsts and lasts always are.
    pub known: Option<BooleanBuffer>,
}

impl PieceColumn {
    #[must_use]
    pub fn is_known(&self, piece: usize) -> bool {
        self.known.as_ref().is_none_or(|known| known.value(piece))
    }

    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        use arrow::array::Array;
        let arrays = [&self.mins, &self.maxs, &self.firsts, &self.lasts];
        let values = arrays.into_iter().chain(&self.sums).map(|array| array.get_array_memory_size()).sum::<usize>();
        size_of::<Self>() + self.counts.get_array_memory_size() + values
    }
}

impl<F: DiskFile> SegmentReader<F> {
    /// The pieces of a row group; `None` where the file knows none.
    pub async fn pieces(&self, row_group: usize) -> Result<Option<Rc<Pieces>>, EngineError> {
        let _ = row_group;
        Ok(None)
    }

    /// What is known of a column in each piece; `None` without pieces and for other types than integers, floats and the
    /// time that rows are sorted by.
    pub async fn piece_statistics(
        &self,
        row_group: usize,
        column: &Column,
    ) -> Result<Option<Rc<PieceColumn>>, EngineError> {
        let _ = (row_group, column);
        Ok(None)
    }

    /// As [`Self::read`], of some rows only: `ranges` ascend and do not overlap.
    ///
    /// # Panics
    /// When there is no such row group, or a range lies outside of it.
    pub async fn read_ranges(
        &self,
        row_group: usize,
        columns: &[Column],
        ranges: &[Range<usize>],
        pause: &impl AsyncFn(),
    ) -> Result<RowGroupRows, EngineError> {
        let whole = self.read(row_group, columns, pause).await?;
        let batch = picked(&whole.batch, ranges).map_err(|error| EngineError::Rows(error.to_string()))?;
        let commits = match whole.commits {
            Some(Commits::Each(all)) => {
                Some(Commits::Each(ranges.iter().flat_map(|range| &all[range.clone()]).copied().collect()))
            }
            commits => commits,
        };
        Ok(RowGroupRows { batch, commits, bytes_read: whole.bytes_read })
    }
}

fn picked(batch: &RecordBatch, ranges: &[Range<usize>]) -> Result<RecordBatch, ArrowError> {
    match ranges {
        [only] => Ok(batch.slice(only.start, only.len())),
        ranges => {
            let parts: Vec<RecordBatch> = ranges.iter().map(|range| batch.slice(range.start, range.len())).collect();
            concat_batches(&batch.schema(), &parts)
        }
    }
}
