//! How the rows of a segment are sorted, and its keys as bytes that compare so.

use std::cmp::Ordering;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, take};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use meridian_proto::ColumnId;
use meridian_proto::schema::TableSchema;

use crate::pace::breathe;
use crate::scan::SortKey;

/// Rows whose keys are made between two pauses.
const STEP_ROWS: usize = 4096;

/// Rows are sorted by the segment-by columns (ascending, NULL first), then by the order-by columns, then by arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowOrder {
    pub segment_by: Vec<ColumnId>,
    pub order_by: Vec<OrderColumn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderColumn {
    pub column: ColumnId,
    pub descending: bool,
    pub nulls_first: bool,
}

impl OrderColumn {
    /// Ascending, NULL first: how flushes sort by time.
    #[must_use]
    pub fn ascending(column: ColumnId) -> Self {
        Self { column, descending: false, nulls_first: true }
    }
}

impl From<&SortKey> for RowOrder {
    fn from(sort: &SortKey) -> Self {
        let order_by = sort.time.into_iter().map(OrderColumn::ascending).collect();
        Self { segment_by: sort.segment_by.clone(), order_by }
    }
}

/// Makes the keys of rows.
pub struct Keys {
    positions: Vec<usize>,
    fields: Vec<SortField>,
    /// `None` without columns: all keys are equal, rows stay in order of arrival.
    converter: Option<RowConverter>,
}

/// Keys of some rows.
pub struct KeyRows(Option<Rows>);

impl Keys {
    /// For batches that have the table's columns.
    pub fn new(order: &RowOrder, schema: &TableSchema) -> Result<Self, ArrowError> {
        let segment_by = order.segment_by.iter().map(|column| OrderColumn::ascending(*column));
        let (mut positions, mut fields) = (Vec::new(), Vec::new());
        for by in segment_by.chain(order.order_by.iter().copied()) {
            let missing = || ArrowError::SchemaError(format!("sort column {} is not in the table", by.column));
            let position = schema.position_of(by.column).ok_or_else(missing)?;
            let options = SortOptions { descending: by.descending, nulls_first: by.nulls_first };
            positions.push(position);
            fields.push(SortField::new_with_options(schema.columns[position].sql_type.arrow(), options));
        }
        Self::over(positions, fields)
    }

    /// For batches that have what is sorted by at these positions.
    pub fn over(positions: Vec<usize>, fields: Vec<SortField>) -> Result<Self, ArrowError> {
        let converter = (!fields.is_empty()).then(|| RowConverter::new(fields.clone())).transpose()?;
        Ok(Self { positions, fields, converter })
    }

    /// Where batches have what is sorted by.
    #[must_use]
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// Keys of some rows, which are few.
    pub fn of_rows(&self, batch: &RecordBatch, rows: &UInt32Array) -> Result<KeyRows, ArrowError> {
        let column = |position: &usize| take(batch.column(*position), rows, None);
        self.beginnings(&self.positions.iter().map(column).collect::<Result<Vec<_>, _>>()?)
    }

    /// What keys begin with whose first columns these are.
    pub fn beginnings(&self, columns: &[ArrayRef]) -> Result<KeyRows, ArrowError> {
        match &self.converter {
            Some(converter) if columns.len() == self.fields.len() => converter.convert_columns(columns),
            _ if columns.is_empty() => return Ok(KeyRows(None)),
            _ => RowConverter::new(self.fields[..columns.len()].to_vec())?.convert_columns(columns),
        }
        .map(|rows| KeyRows(Some(rows)))
    }

    pub async fn of(&self, batch: &RecordBatch) -> Result<KeyRows, ArrowError> {
        let Some(converter) = &self.converter else { return Ok(KeyRows(None)) };
        let mut rows = converter.empty_rows(batch.num_rows(), 0);
        for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
            let length = STEP_ROWS.min(batch.num_rows() - start);
            let columns: Vec<ArrayRef> =
                self.positions.iter().map(|position| batch.column(*position).slice(start, length)).collect();
            converter.append(&mut rows, &columns)?;
            breathe().await;
        }
        Ok(KeyRows(Some(rows)))
    }
}

impl KeyRows {
    /// # Panics
    /// When there are no such rows.
    #[must_use]
    pub fn compare(&self, row: usize, other: &Self, other_row: usize) -> Ordering {
        match (&self.0, &other.0) {
            (Some(rows), Some(others)) => rows.row(row).cmp(&others.row(other_row)),
            _ => Ordering::Equal,
        }
    }

    /// The key as bytes, which compare as keys do; empty without columns.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn bytes(&self, row: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |rows| rows.row(row).data())
    }

    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, Rows::size)
    }
}

/// All rows (number of the batch, row within it) in order of their keys, those with equal keys as they come. A merge
/// sort that breathes, because sorting at once would hold the shard up for as long as it takes.
pub async fn sorted_rows(keys: &[KeyRows], row_counts: &[usize]) -> Vec<(u32, u32)> {
    let all = row_counts.iter().zip(0_u32..);
    let mut rows: Vec<(u32, u32)> =
        all.flat_map(|(count, batch)| (0..*count).map(move |row| (batch, row as u32))).collect();
    let compare =
        |a: &(u32, u32), b: &(u32, u32)| keys[a.0 as usize].compare(a.1 as usize, &keys[b.0 as usize], b.1 as usize);
    for run in rows.chunks_mut(STEP_ROWS) {
        run.sort_by(compare);
        breathe().await;
    }
    let mut run_rows = STEP_ROWS;
    while run_rows < rows.len() {
        let mut merged = Vec::with_capacity(rows.len());
        for pair in rows.chunks(2 * run_rows) {
            let (mut left, mut right) = pair.split_at(run_rows.min(pair.len()));
            while let (Some(first), Some(second)) = (left.first(), right.first()) {
                // The left one came first.
                let side = if compare(second, first).is_lt() { &mut right } else { &mut left };
                merged.push(side[0]);
                *side = &side[1..];
                if merged.len() % STEP_ROWS == 0 {
                    breathe().await;
                }
            }
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
        }
        rows = merged;
        run_rows *= 2;
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use meridian_proto::schema::Column;
    use meridian_proto::{SchemaVersion, SqlType};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn schema() -> TableSchema {
        let column = |id| Column {
            id: ColumnId(id),
            name: format!("c{id}"),
            sql_type: SqlType::Int8,
            not_null: false,
            default: None,
            modifier: None,
        };
        TableSchema { version: SchemaVersion(1), columns: vec![column(1), column(2)] }
    }

    fn batch(rows: &[(Option<i64>, Option<i64>)]) -> RecordBatch {
        let first: Int64Array = rows.iter().map(|(first, _)| *first).collect();
        let second: Int64Array = rows.iter().map(|(_, second)| *second).collect();
        RecordBatch::try_new(schema().arrow(), vec![Arc::new(first), Arc::new(second)]).unwrap()
    }

    #[test]
    fn keys_compare_by_direction_and_place_of_null() {
        let descending = OrderColumn { column: ColumnId(2), descending: true, nulls_first: false };
        let order = RowOrder { segment_by: vec![ColumnId(1)], order_by: vec![descending] };
        let rows = [(None, Some(1)), (Some(1), Some(9)), (Some(1), Some(2)), (Some(1), None), (Some(2), Some(100))];
        crate::testing::run(async move {
            let keys = Keys::new(&order, &schema()).unwrap().of(&batch(&rows)).await.unwrap();
            assert!((1..rows.len()).all(|row| keys.compare(row - 1, &keys, row).is_lt()));
        });
    }

    #[test]
    fn many_rows_are_sorted_and_equal_ones_stay_as_they_came() {
        crate::testing::run(async {
            let mut random = ChaCha8Rng::seed_from_u64(1);
            let values: Vec<Vec<i64>> = [3, 20_000, 0, 9000]
                .iter()
                .map(|count| (0..*count).map(|_| random.random_range(0..500)).collect())
                .collect();
            let order = RowOrder::from(&SortKey { segment_by: vec![], time: Some(ColumnId(1)) });
            let converter = Keys::new(&order, &schema()).unwrap();
            let mut keys = Vec::new();
            for values in &values {
                let rows: Vec<_> = values.iter().map(|value| (Some(*value), None)).collect();
                keys.push(converter.of(&batch(&rows)).await.unwrap());
            }
            let counts: Vec<usize> = values.iter().map(Vec::len).collect();
            let sorted = sorted_rows(&keys, &counts).await;
            let full = |(batch, row): &(u32, u32)| (values[*batch as usize][*row as usize], *batch, *row);
            assert_eq!(sorted.len(), 29_003);
            assert!(sorted.windows(2).all(|pair| full(&pair[0]) < full(&pair[1])));
        });
    }
}
