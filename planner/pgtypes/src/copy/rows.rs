//! Rows on their way into record batches.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use meridian_proto::SqlType;
use meridian_proto::modifier::Modifier;

use super::options::CopyOptions;
use crate::builder::ColumnBuilder;
use crate::error::ValueError;
use crate::format::Format;

/// Rows of a batch, if their data is short.
pub(super) const BATCH_ROWS_MAX: usize = 65_536;
/// Bytes of data of a batch: 8192 rows of 512 bytes. Far below what the `i32` offsets of an array can tell apart: one row
/// is at most [`ROW_BYTES_MAX`].
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Bytes of one row: a row is kept whole until its end has come.
pub(super) const ROW_BYTES_MAX: usize = 1 << 30;
/// Rows that the first batch makes room for.
const FIRST_CAPACITY: usize = 1024;

/// Collects rows, column by column, into batches.
pub(super) struct Rows {
    pub columns: Vec<Column>,
    pub format: Format,
    schema: SchemaRef,
    rows_max: usize,
    /// Rows and bytes of the batch in the making.
    row_count: usize,
    byte_count: usize,
    /// Rows of all batches.
    total: u64,
    finished: VecDeque<RecordBatch>,
}

pub(super) struct Column {
    pub name: String,
    pub builder: ColumnBuilder,
    sql_type: SqlType,
    modifier: Option<Modifier>,
    pub force_null: bool,
    pub force_not_null: bool,
}

impl Rows {
    pub(super) fn new(columns: &[(String, SqlType)], options: &CopyOptions, format: Format) -> Self {
        let fields: Vec<_> = columns.iter().map(|(name, sql_type)| sql_type.field(name, true)).collect();
        let column = |(name, sql_type): &(String, SqlType)| Column {
            name: name.clone(),
            builder: ColumnBuilder::new(sql_type, FIRST_CAPACITY),
            sql_type: sql_type.clone(),
            modifier: None,
            force_null: options.force_null.contains(name),
            force_not_null: options.force_not_null.contains(name),
        };
        Self {
            columns: columns.iter().map(column).collect(),
            format,
            schema: Arc::new(Schema::new(fields)),
            rows_max: BATCH_ROWS_MAX,
            row_count: 0,
            byte_count: 0,
            total: 0,
            finished: VecDeque::new(),
        }
    }

    pub(super) fn set_modifiers(&mut self, modifiers: &[Option<Modifier>]) {
        for (column, modifier) in self.columns.iter_mut().zip(modifiers) {
            column.modifier = *modifier;
            column.builder = ColumnBuilder::new(&column.sql_type, FIRST_CAPACITY).with_modifier(*modifier);
        }
    }

    pub(super) fn set_rows_max(&mut self, rows_max: usize) {
        self.rows_max = rows_max.max(1);
    }

    /// Bytes of data of rows that were not taken yet.
    pub(super) fn held_bytes(&self) -> usize {
        self.byte_count + self.finished.iter().map(RecordBatch::get_array_memory_size).sum::<usize>()
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Ends a row of `bytes` of data whose columns were pushed.
    #[inline]
    pub(super) fn finish_row(&mut self, bytes: usize) -> Result<(), ValueError> {
        self.row_count += 1;
        self.total += 1;
        self.byte_count += bytes;
        if self.row_count >= self.rows_max || self.byte_count >= BATCH_BYTES_MAX {
            return self.seal();
        }
        Ok(())
    }

    /// Makes a batch of the rows so far.
    fn seal(&mut self) -> Result<(), ValueError> {
        let capacity = self.row_count;
        let mut arrays = Vec::with_capacity(self.columns.len());
        for column in &mut self.columns {
            arrays.push(column.builder.finish());
            column.builder = ColumnBuilder::new(&column.sql_type, capacity).with_modifier(column.modifier);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.row_count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options);
        // Builders and schema come from the same types: only a defect of ours can get here.
        self.finished.push_back(batch.map_err(|error| ValueError::new("XX000", error.to_string()))?);
        self.row_count = 0;
        self.byte_count = 0;
        Ok(())
    }

    /// The oldest full batch, else the rows so far if they are at least `min_rows` and any.
    pub(super) fn take(&mut self, min_rows: usize) -> Result<Option<RecordBatch>, ValueError> {
        if self.finished.is_empty() && self.row_count >= min_rows.max(1) {
            self.seal()?;
        }
        Ok(self.finished.pop_front())
    }
}
