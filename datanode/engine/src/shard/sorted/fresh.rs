//! Rows of a chunk that are in memory, sorted when their turn comes.

use arrow::array::RecordBatch;
use meridian_proto::Refusal;

use super::super::stream::rows as flaw;
use super::Reading;
use super::stretch::{Key, Stretch, interleaved};
use crate::disk::Disk;
use crate::order::sorted_rows;
use crate::scan::BATCH_ROWS_MAX;

pub(super) struct Fresh {
    batches: Vec<RecordBatch>,
    /// Number of the batch and row within it; `None` before the first look.
    order: Option<Vec<(u32, u32)>>,
    /// Rows that were handed out.
    at: usize,
    last: Key,
}

impl Fresh {
    pub fn new(batches: Vec<RecordBatch>) -> Self {
        Self { batches, order: None, at: 0, last: Key::default() }
    }

    pub fn bound(&self) -> Option<Key> {
        let is_at_end = self.order.as_ref().is_some_and(|order| self.at == order.len());
        (!is_at_end).then(|| self.last.clone())
    }

    pub async fn read_on<D: Disk>(&mut self, reading: &Reading<D>) -> Result<Vec<Stretch>, Refusal> {
        let keys = &reading.sorted_by.keys;
        let order = match self.order.take() {
            Some(order) => order,
            None => {
                let mut of_batches = Vec::with_capacity(self.batches.len());
                for batch in &self.batches {
                    of_batches.push(keys.of(batch).await.map_err(flaw)?);
                }
                let counts: Vec<usize> = self.batches.iter().map(RecordBatch::num_rows).collect();
                sorted_rows(&of_batches, &counts).await
            }
        };
        let end = order.len().min(self.at + BATCH_ROWS_MAX);
        let rows: Vec<_> = order[self.at..end].iter().map(|(batch, row)| (*batch as usize, *row as usize)).collect();
        self.at = end;
        self.order = Some(order);
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let batch = interleaved(&reading.projected, &batches, &rows).map_err(flaw)?;
        let all = 0..batch.num_rows();
        let stretches = Stretch::of(batch, &[all], keys).map_err(flaw)?;
        if let Some(last) = stretches.last() {
            self.last = last.last_key().clone();
        }
        Ok(stretches)
    }
}
