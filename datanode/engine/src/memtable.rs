//! Rows of one chunk that are in no segment yet, as the decoded batches they came in: an append takes constant time.
//! They are sorted when they are flushed. Holds synced rows only, so that a reader never sees what a crash can take.

pub mod sort;

use std::collections::BTreeMap;
use std::rc::Rc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::error::ArrowError;
use meridian_proto::schema::TableSchema;
use meridian_proto::{CommandId, TransactionId, Ts};

use crate::visibility::{Outcome, View};

/// Batches with fewer rows are put together, else single-row inserts would cost 20 KB a row.
const SMALL_ROWS: usize = 1024;
/// So many small batches at the end are put together. Each row is copied 1024 / 64 = 16 times at worst.
const SMALL_BATCHES_MAX: usize = 64;
/// What Arrow keeps for one array of a batch beside its values.
const ARRAY_OVERHEAD_BYTES: usize = 192;

/// Commit timestamps of the rows of a batch.
#[derive(Clone, Debug)]
pub enum Commits {
    All(Ts),
    Each(Rc<[u64]>),
}

#[derive(Clone, Debug)]
pub struct CommittedRows {
    pub batch: RecordBatch,
    pub commits: Commits,
    bytes: usize,
}

#[derive(Clone, Debug)]
pub struct StagedRows {
    pub batch: RecordBatch,
    pub command: CommandId,
    bytes: usize,
}

/// The rows themselves, in order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub committed: Vec<CommittedRows>,
    pub stages: BTreeMap<TransactionId, Vec<StagedRows>>,
}

#[derive(Debug, Default)]
pub struct Memtable {
    contents: Contents,
    bytes: usize,
    staged_bytes: usize,
    rows: u64,
    /// Small batches at the end of the committed ones.
    small_tail: usize,
}

/// Rows that are being flushed. What is decided meanwhile is kept beside them.
#[derive(Clone, Debug)]
pub struct Frozen {
    pub contents: Rc<Contents>,
    outcomes: BTreeMap<TransactionId, Outcome>,
    bytes: usize,
    rows: u64,
}

/// Bytes of memory that a batch will be counted with, by the length of its wire form.
#[must_use]
pub fn memory_bytes(wire_bytes: usize, columns: usize) -> usize {
    wire_bytes + columns * ARRAY_OVERHEAD_BYTES
}

impl Memtable {
    /// Adds committed rows that take `bytes` of memory.
    pub fn insert(&mut self, batch: RecordBatch, commit: Ts, bytes: usize) -> Result<(), ArrowError> {
        self.count(&batch, bytes);
        self.push(CommittedRows { batch, commits: Commits::All(commit), bytes });
        if self.small_tail >= SMALL_BATCHES_MAX {
            self.merge_small_tail()?;
        }
        Ok(())
    }

    /// Adds rows of an undecided transaction.
    pub fn stage(
        &mut self,
        transaction: TransactionId,
        command: CommandId,
        batch: RecordBatch,
        bytes: usize,
    ) -> Result<(), ArrowError> {
        self.count(&batch, bytes);
        self.staged_bytes += bytes;
        let stage = self.contents.stages.entry(transaction).or_default();
        stage.push(StagedRows { batch, command, bytes });
        let saved = merge_small_stage(stage)?;
        self.staged_bytes -= saved;
        self.bytes -= saved;
        Ok(())
    }

    pub fn commit(&mut self, transaction: TransactionId, commit: Ts) {
        for staged in self.contents.stages.remove(&transaction).unwrap_or_default() {
            self.staged_bytes -= staged.bytes;
            self.push(CommittedRows { batch: staged.batch, commits: Commits::All(commit), bytes: staged.bytes });
        }
    }

    pub fn discard(&mut self, transaction: TransactionId) {
        for staged in self.contents.stages.remove(&transaction).unwrap_or_default() {
            self.staged_bytes -= staged.bytes;
            self.bytes -= staged.bytes;
            self.rows -= staged.batch.num_rows() as u64;
        }
    }

    /// Takes everything out, for a flush.
    pub fn freeze(&mut self) -> Frozen {
        let taken = std::mem::take(self);
        Frozen { contents: Rc::new(taken.contents), outcomes: BTreeMap::new(), bytes: taken.bytes, rows: taken.rows }
    }

    /// Puts back what could not be flushed, in front of what came since.
    pub fn restore(&mut self, frozen: Frozen) {
        let since = std::mem::take(self);
        let contents = Rc::unwrap_or_clone(frozen.contents);
        self.bytes = frozen.bytes + since.bytes;
        self.rows = frozen.rows + since.rows;
        self.contents.committed = contents.committed;
        self.contents.stages = contents.stages;
        self.staged_bytes = self.contents.stages.values().flatten().map(|staged| staged.bytes).sum();
        for (transaction, outcome) in frozen.outcomes {
            match outcome {
                Outcome::Committed(commit) => self.commit(transaction, commit),
                Outcome::Aborted => self.discard(transaction),
                Outcome::Undecided => {}
            }
        }
        self.contents.committed.extend(since.contents.committed);
        for (transaction, staged) in since.contents.stages {
            self.contents.stages.entry(transaction).or_default().extend(staged);
        }
        self.staged_bytes += since.staged_bytes;
        self.small_tail = 0;
    }

    /// Rewrites all rows for a newer schema of the table.
    pub fn convert(&mut self, from: &TableSchema, to: &TableSchema) -> Result<(), ArrowError> {
        self.contents.convert(from, to)
    }

    #[must_use]
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    #[must_use]
    pub fn staged_bytes(&self) -> usize {
        self.staged_bytes
    }

    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn count(&mut self, batch: &RecordBatch, bytes: usize) {
        self.bytes += bytes;
        self.rows += batch.num_rows() as u64;
    }

    fn push(&mut self, rows: CommittedRows) {
        self.small_tail = if rows.batch.num_rows() < SMALL_ROWS { self.small_tail + 1 } else { 0 };
        self.contents.committed.push(rows);
    }

    fn merge_small_tail(&mut self) -> Result<(), ArrowError> {
        let committed = &mut self.contents.committed;
        let tail = &committed[committed.len() - self.small_tail..];
        let batch = concat_batches(&tail[0].batch.schema(), tail.iter().map(|rows| &rows.batch))?;
        let commits: Rc<[u64]> = tail.iter().flat_map(CommittedRows::each_commit).collect();
        let before: usize = tail.iter().map(|rows| rows.bytes).sum();
        let bytes = batch.get_array_memory_size().min(before);
        committed.truncate(committed.len() - self.small_tail);
        self.bytes -= before - bytes;
        self.small_tail = 0;
        self.push(CommittedRows { batch, commits: Commits::Each(commits), bytes });
        Ok(())
    }
}

/// Puts the small batches of one command at the end together; returns the bytes saved.
fn merge_small_stage(stage: &mut Vec<StagedRows>) -> Result<usize, ArrowError> {
    let Some(command) = stage.last().map(|last| last.command) else { return Ok(0) };
    let is_small = |rows: &&StagedRows| rows.batch.num_rows() < SMALL_ROWS && rows.command == command;
    let small = stage.iter().rev().take(SMALL_BATCHES_MAX).take_while(is_small).count();
    if small < SMALL_BATCHES_MAX {
        return Ok(0);
    }
    let tail = stage.split_off(stage.len() - small);
    let batch = concat_batches(&tail[0].batch.schema(), tail.iter().map(|rows| &rows.batch))?;
    let before: usize = tail.iter().map(|rows| rows.bytes).sum();
    let bytes = batch.get_array_memory_size().min(before);
    stage.push(StagedRows { batch, command, bytes });
    Ok(before - bytes)
}

impl Frozen {
    /// Keeps what became of a transaction whose rows are being flushed.
    pub fn settle(&mut self, transaction: TransactionId, outcome: Outcome) {
        if self.contents.stages.contains_key(&transaction) {
            self.outcomes.insert(transaction, outcome);
        }
    }

    #[must_use]
    pub fn outcome(&self, transaction: TransactionId) -> Outcome {
        self.outcomes.get(&transaction).copied().unwrap_or(Outcome::Undecided)
    }

    /// Readers see the rows under the new schema; the flush goes on with what it began with.
    pub fn convert(&mut self, from: &TableSchema, to: &TableSchema) -> Result<(), ArrowError> {
        let mut contents = Contents::clone(&self.contents);
        contents.convert(from, to)?;
        self.contents = Rc::new(contents);
        Ok(())
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }
}

impl CommittedRows {
    /// Commit timestamp of each row.
    pub fn each_commit(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.batch.num_rows()).map(|row| self.commits.get(row).0)
    }

    /// Which rows are seen: all, none, or a mask.
    fn seen(&self, view: &View) -> Seen {
        match &self.commits {
            Commits::All(commit) if view.sees(*commit) => Seen::All,
            Commits::All(_) => Seen::None,
            Commits::Each(commits) if commits.iter().all(|commit| view.sees(Ts(*commit))) => Seen::All,
            Commits::Each(commits) => Seen::Some(commits.iter().map(|commit| Some(view.sees(Ts(*commit)))).collect()),
        }
    }
}

impl Commits {
    #[must_use]
    pub fn get(&self, row: usize) -> Ts {
        match self {
            Self::All(commit) => *commit,
            Self::Each(commits) => Ts(commits[row]),
        }
    }
}

enum Seen {
    All,
    None,
    Some(BooleanArray),
}

impl Contents {
    /// The rows that are seen, projected to `columns`, in order of arrival. `outcome` says what is known of stages.
    pub fn visible(
        &self,
        view: &View,
        columns: &[usize],
        outcome: impl Fn(TransactionId) -> Outcome,
    ) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut visible = Vec::new();
        for rows in &self.committed {
            match rows.seen(view) {
                Seen::All => visible.push(project(&rows.batch, columns)?),
                Seen::None => {}
                Seen::Some(mask) => visible.push(filter_record_batch(&project(&rows.batch, columns)?, &mask)?),
            }
        }
        for (transaction, stage) in &self.stages {
            let outcome = outcome(*transaction);
            for staged in stage.iter().filter(|staged| view.sees_stage(*transaction, staged.command, outcome)) {
                visible.push(project(&staged.batch, columns)?);
            }
        }
        Ok(visible)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.stages.is_empty()
    }

    fn convert(&mut self, from: &TableSchema, to: &TableSchema) -> Result<(), ArrowError> {
        for rows in &mut self.committed {
            rows.batch = to_schema(&rows.batch, from, to)?;
        }
        for staged in self.stages.values_mut().flatten() {
            staged.batch = to_schema(&staged.batch, from, to)?;
        }
        Ok(())
    }
}

/// Columns of a batch; with none, the row count alone.
fn project(batch: &RecordBatch, columns: &[usize]) -> Result<RecordBatch, ArrowError> {
    batch.project(columns)
}

/// The same rows under another version of the table's schema: columns are found by their ids, new ones are NULL.
pub fn to_schema(batch: &RecordBatch, from: &TableSchema, to: &TableSchema) -> Result<RecordBatch, ArrowError> {
    let rows = batch.num_rows();
    let columns: Vec<ArrayRef> = to
        .columns
        .iter()
        .map(|column| match from.position_of(column.id) {
            Some(position) if *batch.column(position).data_type() == column.sql_type.arrow() => {
                Ok(batch.column(position).clone())
            }
            Some(position) => arrow::compute::cast(batch.column(position), &column.sql_type.arrow()),
            None => Ok(new_null_array(&column.sql_type.arrow(), rows)),
        })
        .collect::<Result<_, _>>()?;
    // Rows from before a column was NOT NULL may lack it.
    let fields: Vec<_> = to
        .columns
        .iter()
        .zip(&columns)
        .map(|(column, array)| column.sql_type.field(&column.name, !column.not_null || array.null_count() > 0))
        .collect();
    let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields));
    RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
}

#[cfg(test)]
mod tests;
