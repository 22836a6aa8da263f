//! What one connection owns: settings, prepared statements, the open transaction. Every door drives its statements
//! through one of these, one at a time.
//!
//! Modules in order; each uses those above it.

mod transaction;

mod statement;

mod query;
mod rows;
mod write;

mod alter;
mod copy;
mod ddl;
mod parameter;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use datafusion::scalar::ScalarValue;
use meridian_pgtypes::Format;
use meridian_proto::SqlType;
use tokio_util::sync::CancellationToken;

use self::copy::CopyState;
use self::transaction::Open;
use crate::context::GatewayContext;
use crate::error::SqlError;
use crate::outcome::{Notice, Notices, Outcome, OutputColumn};
use crate::settings::Settings;
use crate::sql::cut::Cut;
use crate::sql::parse::parse;
use crate::sql::statement::{Query, Statement};

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

/// A statement that was analysed. It is planned again when it is executed, by the catalog of that moment.
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
    pid: i32,
    settings: Arc<Mutex<Settings>>,
    prepared: HashMap<String, Prepared>,
    notices: Notices,
    transaction: Option<Open>,
    copy: Option<CopyState>,
}

impl Session {
    /// `startup` holds the client's start-up parameters (`application_name`, `TimeZone`, ..., and `options`).
    pub fn new(
        gateway: Arc<GatewayContext>,
        user: String,
        database: String,
        startup: Vec<(String, String)>,
    ) -> Result<Self, SqlError> {
        let ours = |(name, _): &(String, String)| {
            !matches!(name.as_str(), "user" | "database" | "replication") && !name.starts_with("_pq_.")
        };
        let startup: Vec<_> = startup.into_iter().filter(ours).collect();
        let settings = Arc::new(Mutex::new(Settings::new(&user, &startup)?));
        Ok(Self {
            gateway,
            user,
            database,
            pid: 0,
            settings,
            prepared: HashMap::new(),
            notices: Notices::default(),
            transaction: None,
            copy: None,
        })
    }

    /// Number that `pg_backend_pid()` answers.
    pub fn set_backend_pid(&mut self, pid: i32) {
        self.pid = pid;
    }

    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parses the text of one simple Query (several statements, or none) or of one Parse message.
    ///
    /// A query whose plan is kept is not read: its text tells the plan.
    pub fn parse(&self, sql: &str) -> Result<Vec<Statement>, SqlError> {
        if self.keeps_plans()
            && let Some(cut) = Cut::of(sql).filter(|cut| self.gateway.plans.has_plans_of(cut))
        {
            return Ok(vec![Statement::Query(Query::unread(cut))]);
        }
        parse(sql)
    }

    /// Analyses a statement. `parameter_types`: what the client said about `$1`, `$2`, ...
    pub async fn prepare(
        &mut self,
        statement: Statement,
        parameter_types: &[Option<SqlType>],
    ) -> Result<Prepared, SqlError> {
        self.check_not_failed(&statement)?;
        let (parameters, columns) = self.describe(&statement, parameter_types).await?;
        Ok(Prepared { statement, parameters, columns })
    }

    /// Runs it. The returned rows are part of the statement: read them before the next call.
    pub async fn execute(
        &mut self,
        prepared: &Prepared,
        parameters: Vec<ScalarValue>,
        cancel: CancellationToken,
    ) -> Result<Outcome, SqlError> {
        self.check_not_failed(&prepared.statement)?;
        if parameters.len() != prepared.parameters.len() {
            let (given, wanted) = (parameters.len(), prepared.parameters.len());
            let message = format!("bind message supplies {given} parameters, but prepared statement requires {wanted}");
            return Err(SqlError::new("08P01", message));
        }
        self.run_statement(&prepared.statement, &parameters, &cancel).await
    }

    /// `prepare` and `execute` in one with one timestamp: the simple protocol.
    pub async fn run(&mut self, statement: Statement, cancel: CancellationToken) -> Result<Outcome, SqlError> {
        self.check_not_failed(&statement)?;
        self.run_statement(&statement, &[], &cancel).await
    }

    /// Keeps a named prepared statement: those of Parse and those of SQL's PREPARE are one namespace. 42P05 when taken.
    pub fn save_prepared(&mut self, name: &str, prepared: Prepared) -> Result<(), SqlError> {
        if self.prepared.contains_key(name) {
            return Err(SqlError::new("42P05", format!("prepared statement \"{name}\" already exists")));
        }
        self.prepared.insert(name.to_owned(), prepared);
        Ok(())
    }

    /// 26000 when there is none.
    pub fn find_prepared(&self, name: &str) -> Result<Prepared, SqlError> {
        let found = self.prepared.get(name).cloned();
        found.ok_or_else(|| SqlError::new("26000", format!("prepared statement \"{name}\" does not exist")))
    }

    pub fn drop_prepared(&mut self, name: &str) -> bool {
        self.prepared.remove(name).is_some()
    }

    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All parameters that a client is told at start-up.
    pub fn reported_parameters(&self) -> Vec<(String, String)> {
        self.settings().reported()
    }

    /// Those whose value changed since they were last told.
    pub fn take_changed_parameters(&mut self) -> Vec<(String, String)> {
        self.settings().take_changed()
    }

    #[must_use]
    pub fn format(&self) -> Format {
        self.settings().format(self.transaction.as_ref().map(|open| open.started_us))
    }

    #[must_use]
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.settings().statement_timeout()
    }

    fn notice(&mut self, severity: &'static str, sqlstate: &str, message: impl Into<String>) {
        let sqlstate = sqlstate.to_owned();
        let notice = Notice { severity, sqlstate, message: message.into(), hint: None };
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
    }

    /// Aborts what is open.
    pub async fn close(mut self) {
        self.copy = None;
        self.rollback().await;
    }
}
