//! A row group that is not sorted by what is asked for: read again and again, each time for the rows that come next, as
//! many as there is memory for. Slow where it is large, but it holds no more than any other source.

use std::rc::Rc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use meridian_proto::Refusal;

use super::super::piece::Piece;
use super::super::stream::rows as flaw;
use super::part::Part;
use super::stretch::{Key, Stretch};
use super::{LOAD_ROWS_MAX, Reading};
use crate::disk::Disk;
use crate::order::sorted_rows;

pub(super) struct Loose<D: Disk> {
    part: Rc<Part<D>>,
    piece: Piece<D>,
    /// Rows that were handed out.
    rows: usize,
    last: Key,
    is_at_end: bool,
}

impl<D: Disk> Loose<D> {
    pub fn new(part: Rc<Part<D>>, piece: Piece<D>) -> Self {
        Self { part, piece, rows: 0, last: Key::default(), is_at_end: false }
    }

    pub fn bound(&self) -> Option<Key> {
        (!self.is_at_end).then(|| self.last.clone())
    }

    pub async fn read_on(&mut self, reading: &mut Reading<D>) -> Result<Vec<Stretch>, Refusal> {
        let rows_wanted = reading.rows_wanted().await?.min(LOAD_ROWS_MAX);
        let scan = self.part.scan_of(&self.piece, &reading.cache);
        let found = scan.rows(&self.part.columns, &reading.predicates).await?;
        reading.statistics.bytes_read += found.bytes_read;
        reading.statistics.rows_scanned += found.rows as u64;
        let end = found.rows.min(self.rows + rows_wanted);
        self.is_at_end = end == found.rows;
        if self.rows == end {
            return Ok(Vec::new());
        }
        let batch = RecordBatch::try_new(reading.projected.clone(), found.columns).map_err(flaw)?;
        let keys = &reading.sorted_by.keys;
        // The same rows in the same order each time.
        let order = sorted_rows(&[keys.of(&batch).await.map_err(flaw)?], &[batch.num_rows()]).await;
        let rows = UInt32Array::from_iter_values(order[self.rows..end].iter().map(|(_, row)| *row));
        let batch = take_record_batch(&batch, &rows).map_err(flaw)?;
        self.rows = end;
        let all = 0..batch.num_rows();
        let stretches = Stretch::of(batch, &[all], keys).map_err(flaw)?;
        if let Some(last) = stretches.last() {
            self.last = last.last_key().clone();
        }
        Ok(stretches)
    }
}
