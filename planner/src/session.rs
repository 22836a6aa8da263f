//! What one connection owns: settings, prepared statements, the open transaction. Every door drives its statements
//! through one of these, one at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::common::ScalarValue;
use meridian_pgtypes::Format;
use meridian_proto::SqlType;
use tokio_util::sync::CancellationToken;

use crate::context::GatewayContext;
use crate::error::SqlError;
use crate::outcome::{Notice, Outcome, OutputColumn};
use crate::sql::Statement;

/// PostgreSQL's transaction status, as ReadyForQuery tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`
    Idle,
    /// `T`
    Open,
    /// `E`: everything but ROLLBACK and COMMIT is refused with 25P02.
    Failed,
}

/// A statement that was analysed. Executing it plans it again only if the catalog changed what it names.
#[derive(Clone)]
pub struct Prepared {
    pub statement: Statement,
    /// Types of `$1`, `$2`, ...
    pub parameters: Vec<SqlType>,
    /// `None`: it returns no rows.
    pub columns: Option<Vec<OutputColumn>>,
}

pub struct Session {
    gateway: Arc<GatewayContext>,
    user: String,
    database: String,
    prepared: HashMap<String, Prepared>,
    notices: Vec<Notice>,
}

impl Session {
    /// `startup` holds the client's start-up parameters (`application_name`, `TimeZone`, ..., and `options`).
    pub fn new(
        gateway: Arc<GatewayContext>,
        user: String,
        database: String,
        startup: Vec<(String, String)>,
    ) -> Result<Self, SqlError> { Err(SqlError::unsupported("not yet")) }

    /// Number that `pg_backend_pid()` answers.
    pub fn set_backend_pid(&mut self, pid: i32) {}
    pub fn user(&self) -> &str { &self.user }
    pub fn database(&self) -> &str { &self.user }

    /// Parses the text of one simple Query (several statements, or none) or of one Parse message.
    pub fn parse(&self, sql: &str) -> Result<Vec<Statement>, SqlError> { Err(SqlError::unsupported("not yet")) }
    /// Analyses a statement. `parameter_types`: what the client said about `$1`, `$2`, ...
    pub async fn prepare(&mut self, statement: Statement, parameter_types: &[Option<SqlType>]) -> Result<Prepared, SqlError> { Err(SqlError::unsupported("not yet")) }
    /// Runs it. The returned rows are part of the statement: read them before the next call.
    pub async fn execute(&mut self, prepared: &Prepared, parameters: Vec<ScalarValue>, cancel: CancellationToken) -> Result<Outcome, SqlError> { Err(SqlError::unsupported("not yet")) }
    /// `prepare` and `execute` in one with one timestamp: the simple protocol.
    pub async fn run(&mut self, statement: Statement, cancel: CancellationToken) -> Result<Outcome, SqlError> { Err(SqlError::unsupported("not yet")) }

    /// Named prepared statements: those of Parse and those of SQL's PREPARE are one namespace. 42P05 when taken.
    pub fn save_prepared(&mut self, name: &str, prepared: Prepared) -> Result<(), SqlError> { Err(SqlError::unsupported("not yet")) }
    /// 26000 when there is none.
    pub fn find_prepared(&self, name: &str) -> Result<Prepared, SqlError> { Err(SqlError::unsupported("not yet")) }
    pub fn drop_prepared(&mut self, name: &str) -> bool { false }

    pub async fn copy_batch(&mut self, batch: RecordBatch) -> Result<(), SqlError> { Err(SqlError::unsupported("not yet")) }
    /// Ends a COPY FROM STDIN: rows written. Tag is `COPY n`.
    pub async fn copy_finish(&mut self) -> Result<u64, SqlError> { Err(SqlError::unsupported("not yet")) }
    pub async fn copy_abort(&mut self, reason: &str) -> SqlError { SqlError::unsupported("not yet") }

    pub fn transaction_status(&self) -> TransactionStatus { TransactionStatus::Idle }
    pub fn take_notices(&mut self) -> Vec<Notice> { Vec::new() }
    /// All parameters that a client is told at start-up.
    pub fn reported_parameters(&self) -> Vec<(String, String)> { Vec::new() }
    /// Those whose value changed since they were last told.
    pub fn take_changed_parameters(&mut self) -> Vec<(String, String)> { Vec::new() }
    pub fn format(&self) -> Format { Format::default() }
    pub fn statement_timeout(&self) -> Option<Duration> { None }

    /// Several statements of one simple Query message, and what comes before a Sync, are one implicit transaction.
    pub async fn begin_implicit(&mut self) {}
    /// Ends it; `Err` when the commit failed. Does nothing inside BEGIN.
    pub async fn end_implicit(&mut self, commit: bool) -> Result<(), SqlError> { Err(SqlError::unsupported("not yet")) }
    /// After an error of a statement: an explicit transaction is failed from now on, an implicit one rolled back.
    pub async fn on_error(&mut self) {}
    /// Aborts what is open.
    pub async fn close(self) {}
}
