//! Rows to the client: DataRow messages written straight from Arrow arrays into the output buffer.

use arrow::array::RecordBatch;
use bytes::BytesMut;
use futures::StreamExt;
use meridian_pgtypes::{ColumnWriter, DataRowWriter, Encoder, Format};

use super::cancel::Running;
use super::failure::Failure;
use super::wire::Wire;
use crate::error::SqlError;
use crate::outcome::{OutputColumn, RowStream};

/// A result that is being sent, perhaps in several goes.
pub struct RowSource {
    columns: Vec<OutputColumn>,
    rows: RowStream,
    /// What the last go left of its batch.
    rest: Option<RecordBatch>,
    tag: &'static str,
}

/// One go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub rows: u64,
    /// The stream ended. A go that ends by its limit does not look whether there is more.
    pub is_end: bool,
}

impl RowSource {
    pub fn new(columns: Vec<OutputColumn>, rows: RowStream, tag: &'static str) -> Self {
        Self { columns, rows, rest: None, tag }
    }

    /// Sends up to `rows_max` rows. `binary`: the format, one per column.
    pub async fn send(
        &mut self,
        wire: &mut Wire,
        running: &Running,
        format: &Format,
        binary: &[bool],
        rows_max: u64,
    ) -> Result<Sent, Failure> {
        let mut sent = 0;
        while sent < rows_max {
            let batch = match self.rest.take() {
                Some(batch) => batch,
                None => match next_batch(&mut self.rows, wire, running).await? {
                    Some(batch) => batch,
                    None => return Ok(Sent { rows: sent, is_end: true }),
                },
            };
            let count = usize::try_from(rows_max - sent).unwrap_or(usize::MAX).min(batch.num_rows());
            let mut rows = RowEncoder::try_new(&self.columns, &batch.slice(0, count), format, binary)?;
            rows.send(wire).await?;
            sent += count as u64;
            self.rest = (count < batch.num_rows()).then(|| batch.slice(count, batch.num_rows() - count));
        }
        Ok(Sent { rows: sent, is_end: false })
    }

    pub fn column_count(&self) -> usize {
        self.columns.len()
    }

    /// The command tag after a last go of `rows` rows.
    pub fn complete_tag(&self, rows: u64) -> String {
        complete_tag(self.tag, rows)
    }
}

/// PostgreSQL counts the rows of these commands; SHOW, EXPLAIN and the like have a bare tag.
fn complete_tag(tag: &str, rows: u64) -> String {
    let counted = ["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "FETCH", "MOVE", "COPY"];
    match tag.split_once(' ').map_or(tag, |(word, _)| word) {
        word if counted.contains(&word) => format!("{tag} {rows}"),
        _ => tag.to_owned(),
    }
}

/// The next batch that has rows, unless the statement is stopped first.
pub async fn next_batch(
    rows: &mut RowStream,
    wire: &mut Wire,
    running: &Running,
) -> Result<Option<RecordBatch>, Failure> {
    loop {
        match running.guard(wire, async { rows.next().await.transpose() }).await? {
            Some(batch) if batch.num_rows() == 0 => {}
            other => return Ok(other),
        }
    }
}

/// Writes the rows of one batch.
struct RowEncoder {
    writer: DataRowWriter,
    row_count: usize,
}

impl RowEncoder {
    fn try_new(
        columns: &[OutputColumn],
        batch: &RecordBatch,
        format: &Format,
        binary: &[bool],
    ) -> Result<Self, SqlError> {
        if batch.num_columns() != columns.len() || binary.len() != columns.len() {
            let message = format!("internal error: a row of {} columns for {}", batch.num_columns(), columns.len());
            return Err(SqlError::new("XX000", message));
        }
        let values = columns.iter().zip(batch.columns()).map(|(of, array)| Encoder::new(&of.sql_type, array, format));
        let columns = values.zip(binary).map(|(values, &is_binary)| ColumnWriter { values, is_binary });
        Ok(Self { writer: DataRowWriter::new(columns.collect()), row_count: batch.num_rows() })
    }

    async fn send(&mut self, wire: &mut Wire) -> Result<(), Failure> {
        let mut next = 0;
        while next < self.row_count {
            let room = wire.output_room();
            next = self.encode(wire.output(), next, room);
            wire.flush_if_large().await?;
        }
        Ok(())
    }

    /// Writes rows from `first` on until they take at least `bytes_enough`; returns the row after the last.
    fn encode(&mut self, output: &mut BytesMut, first: usize, bytes_enough: usize) -> usize {
        let start = output.len();
        for row in first..self.row_count {
            self.writer.write(row, output);
            if output.len() - start >= bytes_enough {
                return row + 1;
            }
        }
        self.row_count
    }
}

/// The formats of `count` columns or parameters from the codes of a Bind: none (all text), one for all, or one each.
pub fn resolve_formats(codes: &[i16], count: usize) -> Result<Option<Vec<bool>>, SqlError> {
    let is_binary = |code: &i16| match code {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(SqlError::new("22023", format!("unsupported format code: {other}"))),
    };
    match codes {
        [] => Ok(Some(vec![false; count])),
        [code] => Ok(Some(vec![is_binary(code)?; count])),
        codes if codes.len() == count => codes.iter().map(is_binary).collect::<Result<_, _>>().map(Some),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_none_one_or_each() {
        assert_eq!(resolve_formats(&[], 2), Ok(Some(vec![false, false])));
        assert_eq!(resolve_formats(&[1], 2), Ok(Some(vec![true, true])));
        assert_eq!(resolve_formats(&[0, 1], 2), Ok(Some(vec![false, true])));
        assert_eq!(resolve_formats(&[0, 1], 3), Ok(None));
        assert_eq!(resolve_formats(&[2], 1).unwrap_err().sqlstate, "22023");
    }

    #[test]
    fn tags_count_rows_where_postgresql_does() {
        assert_eq!(complete_tag("SELECT", 5), "SELECT 5");
        assert_eq!(complete_tag("INSERT 0", 1), "INSERT 0 1");
        assert_eq!(complete_tag("SHOW", 1), "SHOW");
        assert_eq!(complete_tag("EXPLAIN", 7), "EXPLAIN");
    }
}
