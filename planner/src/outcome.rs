//! What a session answers to one statement; each door turns it into its own messages.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::Stream;
use meridian_pgtypes::copy::CopyOptions;
use meridian_proto::SqlType;
use meridian_proto::modifier::Modifier;

use crate::error::SqlError;

/// Batches of a result. Dropping it cancels the statement everywhere.
pub type RowStream = Pin<Box<dyn Stream<Item = Result<RecordBatch, SqlError>> + Send>>;

/// A column of a result as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputColumn {
    pub name: String,
    pub sql_type: SqlType,
    /// PostgreSQL's type modifier: -1 where the digits are only those that an expression happens to have.
    pub typmod: i32,
    /// OID of the table and attnum, where the column is a table's column unchanged; else 0, 0.
    pub table_oid: u32,
    pub attnum: i16,
}

/// The answer to one statement.
pub enum Outcome {
    /// Rows; the tag's count is put behind `tag` (`SELECT` -> `SELECT 5`).
    Rows { columns: Vec<OutputColumn>, schema: SchemaRef, rows: RowStream, tag: &'static str },
    /// No rows: the whole command tag (`CREATE TABLE`, `INSERT 0 3`, `BEGIN`).
    Done { tag: String },
    /// The client is to send COPY data; the door decodes it and hands batches to `Session::copy_batch`.
    CopyIn(CopyIn),
    /// Rows as COPY data; tag `COPY n`.
    CopyOut { options: CopyOptions, columns: Vec<OutputColumn>, rows: RowStream },
    /// An empty query string.
    Empty,
}

/// A COPY FROM STDIN that has begun.
pub struct CopyIn {
    /// Name of the table, for error contexts.
    pub table: String,
    pub options: CopyOptions,
    /// Names and types of the columns that the client sends, in its order.
    pub columns: Vec<(String, SqlType)>,
    /// Of their types.
    pub modifiers: Vec<Option<Modifier>>,
}

/// Notices of one session, shared with the functions of its statements.
pub type Notices = Arc<Mutex<Vec<Notice>>>;

/// A NOTICE or WARNING that goes out before the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `NOTICE`, `WARNING`.
    pub severity: &'static str,
    pub sqlstate: String,
    pub message: String,
    pub hint: Option<String>,
}
