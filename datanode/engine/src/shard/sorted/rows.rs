//! A row group whose rows lie in strips of the order: read strip by strip, a part at a time of those that are long.

use std::ops::Range;
use std::rc::Rc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{partition, take_record_batch};
use meridian_proto::Refusal;

use super::super::piece::Piece;
use super::super::stream::rows as flaw;
use super::Reading;
use super::part::Part;
use super::stretch::{Key, Stretch};
use crate::disk::Disk;
use crate::error::EngineError;
use crate::leaf::{Lie, Load, SortedBy, Strips, times_sorted};
use crate::order::sorted_rows;

pub(super) struct SeriesRows<D: Disk> {
    part: Rc<Part<D>>,
    piece: Piece<D>,
    strips: Strips,
    /// The last key that was read of the strip that was begun.
    last: Option<Key>,
}

impl<D: Disk> SeriesRows<D> {
    pub fn new(part: Rc<Part<D>>, piece: Piece<D>, strips: Strips) -> Self {
        Self { part, piece, strips, last: None }
    }

    pub fn bound(&self) -> Option<Key> {
        let bound = self.strips.bound()?;
        Some(self.last.clone().filter(|_| self.strips.is_begun()).unwrap_or_else(|| bound.into()))
    }

    pub async fn read_on(&mut self, reading: &mut Reading<D>) -> Result<Vec<Stretch>, Refusal> {
        let rows_wanted = reading.rows_wanted().await?;
        let Some(load) = self.strips.take(rows_wanted) else { return Ok(Vec::new()) };
        let looked_at = load.rows.count();
        let scan = self.part.scan_of(&self.piece, &reading.cache);
        let found = scan.rows_of(&load, &self.strips, &self.part.columns).await?;
        reading.statistics.bytes_read += found.bytes_read;
        reading.statistics.rows_scanned += looked_at as u64;
        if found.rows == 0 {
            return Ok(Vec::new());
        }
        let batch = RecordBatch::try_new(reading.projected.clone(), found.columns).map_err(flaw)?;
        let stretches = self.arranged(batch, &load, &reading.sorted_by).await?;
        if let Some(last) = stretches.last() {
            self.last = Some(last.last_key().clone());
        }
        Ok(stretches)
    }

    /// The rows in order, one stretch for each strip.
    async fn arranged(&self, batch: RecordBatch, load: &Load, wanted: &SortedBy) -> Result<Vec<Stretch>, EngineError> {
        if load.lie == Lie::Anyhow {
            let keys = wanted.keys.of(&batch).await.map_err(flaw)?;
            let rows = sorted_rows(&[keys], &[batch.num_rows()]).await;
            let rows = UInt32Array::from_iter_values(rows.into_iter().map(|(_, row)| row));
            let batch = take_record_batch(&batch, &rows).map_err(flaw)?;
            let all = 0..batch.num_rows();
            return Stretch::of(batch, &[all], &wanted.keys).map_err(flaw);
        }
        let mut strips = self.strips_in(&batch, load, wanted)?;
        self.check(&batch, load, &strips, wanted)?;
        if !load.is_backwards && load.lie == Lie::Sorted {
            return Stretch::of(batch, &strips, &wanted.keys).map_err(flaw);
        }
        if load.is_backwards {
            strips.reverse();
        }
        let is_reversed = load.lie == Lie::Reversed;
        let row = |strip: &Range<usize>, at: usize| if is_reversed { strip.end - 1 - at } else { strip.start + at };
        let rows = strips.iter().flat_map(|strip| (0..strip.len()).map(move |at| row(strip, at) as u32));
        let batch = take_record_batch(&batch, &UInt32Array::from_iter_values(rows)).map_err(flaw)?;
        let mut end = 0;
        for strip in &mut strips {
            *strip = end..end + strip.len();
            end = strip.end;
        }
        Stretch::of(batch, &strips, &wanted.keys).map_err(flaw)
    }

    /// Where the strips are among rows that were read, in the order of the file.
    fn strips_in(&self, batch: &RecordBatch, load: &Load, wanted: &SortedBy) -> Result<Vec<Range<usize>>, EngineError> {
        if batch.num_rows() == load.rows.count() {
            let mut end = 0;
            let next = |rows: &usize| {
                end += rows;
                end - rows..end
            };
            return Ok(load.strip_rows.iter().map(next).collect());
        }
        let time = self.piece.reader.time_column();
        let is_time = |position: &&usize| Some(self.part.columns[**position].id) == time;
        let series = wanted.keys.positions().iter().filter(|position| !is_time(position));
        let series: Vec<_> = series.map(|position| batch.column(*position).clone()).collect();
        if load.strip_rows.len() == 1 || series.is_empty() {
            return Ok(std::iter::once(0..batch.num_rows()).collect());
        }
        Ok(partition(&series).map_err(flaw)?.ranges())
    }

    /// Verified, not believed: rows that are not sorted would come out where they do not belong.
    fn check(
        &self,
        batch: &RecordBatch,
        load: &Load,
        strips: &[Range<usize>],
        wanted: &SortedBy,
    ) -> Result<(), EngineError> {
        let time = self.piece.reader.time_column();
        let position = wanted.keys.positions().iter().find(|position| Some(self.part.columns[**position].id) == time);
        let by = wanted.columns.last().filter(|_| position.is_some());
        let (Some(position), Some(by)) = (position, by) else { return Ok(()) };
        let descends = by.descending != (load.lie == Lie::Reversed);
        let times = batch.column(*position);
        let is_sorted = |strip: &Range<usize>| times_sorted(&times.slice(strip.start, strip.len()), descends);
        if strips.iter().all(is_sorted) {
            return Ok(());
        }
        Err(EngineError::OutOfOrder { path: self.piece.reader.path().to_owned() })
    }
}
