//! Rows that were read and are sorted, and how stretches of them become batches.

use std::ops::Range;
use std::rc::Rc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, interleave};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::order::{KeyRows, Keys};

/// Stretches of at least so many rows are passed on as slices. Others are copied together, since a plan works batch by
/// batch: an aggregate over 4000 short series took three times as long for slices of 1000 rows.
const SLICE_ROWS: usize = 4096;
/// Stretches of so many rows are copied faster as such than row by row.
const RUN_ROWS: usize = 8;

/// What a row is sorted by, as bytes; shorter where only its beginning is known.
pub(super) type Key = Box<[u8]>;

/// Sorted rows of one source.
pub(super) struct Stretch {
    batch: Rc<RecordBatch>,
    /// Those that were not taken yet.
    rows: Range<usize>,
    first: Key,
    last: Key,
    /// Of all rows of the stretch from `keys_from` on, once somebody had to look between them.
    keys: Option<KeyRows>,
    keys_from: usize,
    /// Memory, about.
    pub bytes: usize,
}

/// Rows for the next batch.
pub(super) struct Taken {
    batch: Rc<RecordBatch>,
    pub rows: Range<usize>,
}

impl Stretch {
    /// One stretch for each of the ranges, which are not empty.
    pub fn of(batch: RecordBatch, ranges: &[Range<usize>], keys: &Keys) -> Result<Vec<Self>, ArrowError> {
        let borders = ranges.iter().flat_map(|rows| [rows.start as u32, rows.end as u32 - 1]);
        let borders = keys.of_rows(&batch, &UInt32Array::from_iter_values(borders))?;
        let bytes = batch.get_array_memory_size() / batch.num_rows().max(1);
        let batch = Rc::new(batch);
        let stretch = |(at, rows): (usize, &Range<usize>)| Self {
            batch: Rc::clone(&batch),
            rows: rows.clone(),
            first: borders.bytes(2 * at).into(),
            last: borders.bytes(2 * at + 1).into(),
            keys: None,
            keys_from: rows.start,
            bytes: bytes * rows.len(),
        };
        Ok(ranges.iter().enumerate().map(stretch).collect())
    }

    pub fn is_at_end(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn last_key(&self) -> &Key {
        &self.last
    }

    /// Of the rows that were not taken yet.
    pub fn least_key(&self) -> Key {
        match &self.keys {
            Some(keys) => keys.bytes(self.rows.start - self.keys_from).into(),
            None => self.first.clone(),
        }
    }

    /// Takes the rows that do not come after `other`: at least one, which is known not to.
    pub async fn take_upto(&mut self, other: Option<&Key>, keys: &Keys) -> Result<Taken, ArrowError> {
        let end = match other {
            Some(other) if self.last > *other => self.end_upto(other, keys).await?,
            _ => self.rows.end,
        };
        let rows = self.rows.start..end;
        self.rows.start = end;
        Ok(Taken { batch: Rc::clone(&self.batch), rows })
    }

    /// End of the rows that do not come after `other`, found by doubling steps.
    async fn end_upto(&mut self, other: &Key, keys: &Keys) -> Result<usize, ArrowError> {
        if self.keys.is_none() {
            self.keys_from = self.rows.start;
            let rows = self.batch.slice(self.rows.start, self.rows.len());
            self.keys = Some(keys.of(&rows).await?);
        }
        let Some(keys) = &self.keys else { return Ok(self.rows.end) };
        let is_upto = |row: usize| keys.bytes(row - self.keys_from) <= other.as_ref();
        let (mut known, mut step) = (self.rows.start, 1);
        while known + step < self.rows.end && is_upto(known + step) {
            known += step;
            step *= 2;
        }
        let mut end = (known + step).min(self.rows.end);
        while end - known > 1 {
            let middle = known + (end - known) / 2;
            if is_upto(middle) { known = middle } else { end = middle }
        }
        Ok(end)
    }
}

/// The rows as batches: slices where stretches are long, else one copy of them all. All have the schema already.
pub(super) fn gathered(schema: &SchemaRef, taken: &[Taken]) -> Result<Vec<RecordBatch>, ArrowError> {
    let count: usize = taken.iter().map(|taken| taken.rows.len()).sum();
    if count >= taken.len() * RUN_ROWS {
        let slice = |taken: &Taken| taken.batch.slice(taken.rows.start, taken.rows.len());
        let slices: Vec<RecordBatch> = taken.iter().map(slice).collect();
        let is_long = count >= taken.len() * SLICE_ROWS;
        return if is_long { Ok(slices) } else { Ok(vec![concat_batches(schema, &slices)?]) };
    }
    let mut batches: Vec<&Rc<RecordBatch>> = Vec::new();
    let mut rows = Vec::with_capacity(count);
    for Taken { batch, rows: range } in taken {
        let place = batches.iter().rposition(|known| Rc::ptr_eq(known, batch)).unwrap_or_else(|| {
            batches.push(batch);
            batches.len() - 1
        });
        rows.extend(range.clone().map(|row| (place, row)));
    }
    let batches: Vec<&RecordBatch> = batches.into_iter().map(AsRef::as_ref).collect();
    Ok(vec![interleaved(schema, &batches, &rows)?])
}

/// The rows (number of the batch, row within it) as one batch.
pub(super) fn interleaved(
    schema: &SchemaRef,
    batches: &[&RecordBatch],
    rows: &[(usize, usize)],
) -> Result<RecordBatch, ArrowError> {
    let column = |column: usize| {
        let arrays: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(column).as_ref()).collect();
        interleave(&arrays, rows)
    };
    let columns = (0..schema.fields().len()).map(column).collect::<Result<Vec<ArrayRef>, _>>()?;
    RecordBatch::try_new(schema.clone(), columns)
}
