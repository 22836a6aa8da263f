//! The open transaction of a session: its snapshot, its writes, its DDL, and how it ends.
//!
//! Until the transactions step, DDL and rows are two commits: at COMMIT the DDL goes first, as one catalog entry, then
//! the rows.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use meridian_client::cluster::transaction::StatementStamp;
use meridian_client::cluster::{CatalogView, Transaction};
use meridian_proto::command::Command;
use meridian_proto::{CatalogVersion, CommandId, Refusal, Ts};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Session, TransactionStatus};
use crate::error::SqlError;
use crate::exec::catalog::Overlay;
use crate::exec::source::ReadStamp;
use crate::exec::stream::cancellable;
use crate::outcome::Outcome;
use crate::sql::functions::session::clock_us;
use crate::sql::statement::{Isolation, Statement, TransactionModes};

/// Longest wait for the meta group before a statement fails with 57P03.
pub(super) const META_TIMEOUT: Duration = Duration::from_secs(15);

/// A transaction that was begun, by BEGIN or by a message with several statements.
pub(super) struct Open {
    /// Ends with the message that it came with.
    pub implicit: bool,
    pub failed: bool,
    pub started_us: i64,
    /// Begun with the first write.
    pub writes: Option<Transaction>,
    /// Of the next statement.
    pub command: u32,
    /// Of REPEATABLE READ: the first statement's.
    pub snapshot: Option<(Ts, CatalogVersion)>,
    pub ddl: Vec<Command>,
    pub overlay: Overlay,
    pub overlay_bytes: usize,
}

/// When and by what catalog a statement runs.
#[derive(Clone)]
pub(super) struct Moment {
    pub snapshot: Ts,
    pub version: CatalogVersion,
    pub view: Arc<CatalogView>,
    pub command: CommandId,
}

impl Moment {
    pub fn stamp(&self) -> StatementStamp {
        StatementStamp { snapshot: self.snapshot, version: self.version, command: self.command }
    }
}

pub(super) fn meta_deadline() -> Instant {
    Instant::now() + META_TIMEOUT
}

impl Session {
    #[must_use]
    pub fn transaction_status(&self) -> TransactionStatus {
        match &self.transaction {
            Some(open) if open.failed => TransactionStatus::Failed,
            Some(open) if !open.implicit => TransactionStatus::Open,
            _ => TransactionStatus::Idle,
        }
    }

    /// Several statements of one simple Query message, and what comes before a Sync, are one implicit transaction.
    pub async fn begin_implicit(&mut self) {
        if self.transaction.is_none() {
            self.open(true);
        }
    }

    /// Ends it; `Err` when the commit failed. Does nothing inside BEGIN.
    pub async fn end_implicit(&mut self, commit: bool) -> Result<(), SqlError> {
        if !self.transaction.as_ref().is_some_and(|open| open.implicit) {
            return Ok(());
        }
        if commit {
            return self.commit().await;
        }
        self.rollback().await;
        Ok(())
    }

    /// After an error of a statement: an explicit transaction is failed from now on, an implicit one rolled back.
    pub async fn on_error(&mut self) {
        self.copy = None;
        match &mut self.transaction {
            Some(open) if !open.implicit => {
                open.failed = true;
                open.overlay = Overlay::default();
                open.ddl.clear();
                // What it staged is of no use to anybody any more.
                if let Some(writes) = open.writes.take() {
                    writes.abort().await;
                }
            }
            Some(_) => self.rollback().await,
            None => {}
        }
    }

    pub(super) fn check_not_failed(&self, statement: &Statement) -> Result<(), SqlError> {
        let ends = matches!(statement, Statement::Commit { .. } | Statement::Rollback { .. });
        if ends || self.transaction_status() != TransactionStatus::Failed {
            return Ok(());
        }
        Err(SqlError::new("25P02", "current transaction is aborted, commands ignored until end of transaction block"))
    }

    fn open(&mut self, implicit: bool) {
        let isolation = self.settings().text("default_transaction_isolation").to_owned();
        let read_only = self.settings().text("default_transaction_read_only").to_owned();
        let mut settings = self.settings();
        settings.begin();
        // Values of the registry itself; they cannot be refused.
        let _ = settings.set("transaction_isolation", &isolation, true);
        let _ = settings.set("transaction_read_only", &read_only, true);
        drop(settings);
        self.transaction = Some(Open {
            implicit,
            failed: false,
            started_us: clock_us(),
            writes: None,
            command: 0,
            snapshot: None,
            ddl: Vec::new(),
            overlay: Overlay::default(),
            overlay_bytes: 0,
        });
    }

    pub(super) fn begin(&mut self, modes: TransactionModes, start: bool) -> Result<Outcome, SqlError> {
        match &mut self.transaction {
            // Statements of the message that came before it are part of it.
            Some(open) if open.implicit => open.implicit = false,
            Some(_) => self.notice("WARNING", "25001", "there is already a transaction in progress"),
            None => self.open(false),
        }
        self.set_modes(modes, false)?;
        let tag = if start { "START TRANSACTION" } else { "BEGIN" };
        Ok(Outcome::Done { tag: tag.to_owned() })
    }

    /// SET TRANSACTION, or SET SESSION CHARACTERISTICS.
    pub(super) fn set_modes(&mut self, modes: TransactionModes, session: bool) -> Result<(), SqlError> {
        if let Some(isolation) = modes.isolation {
            check_isolation(isolation)?;
            let began = self.transaction.as_ref().is_some_and(|open| open.command > 0);
            if began && !session && self.isolation() != isolation {
                let message = "SET TRANSACTION ISOLATION LEVEL must be called before any query";
                return Err(SqlError::new("25001", message));
            }
            let name = if session { "default_transaction_isolation" } else { "transaction_isolation" };
            self.settings().set(name, isolation.name(), !session)?;
        }
        if let Some(read_only) = modes.read_only {
            let name = if session { "default_transaction_read_only" } else { "transaction_read_only" };
            self.settings().set(name, if read_only { "on" } else { "off" }, !session)?;
        }
        Ok(())
    }

    fn isolation(&self) -> Isolation {
        Isolation::parse(self.settings().text("transaction_isolation")).unwrap_or(Isolation::ReadCommitted)
    }

    pub(super) fn is_read_only(&self) -> bool {
        let name = if self.transaction.is_some() { "transaction_read_only" } else { "default_transaction_read_only" };
        self.settings().is_on(name)
    }

    pub(super) fn check_may_write(&self, what: &str) -> Result<(), SqlError> {
        if self.is_read_only() {
            return Err(SqlError::new("25006", format!("cannot execute {what} in a read-only transaction")));
        }
        Ok(())
    }

    pub(super) async fn end(&mut self, commits: bool, chain: bool) -> Result<Outcome, SqlError> {
        let Some(open) = &self.transaction else {
            if chain {
                let what = if commits { "COMMIT" } else { "ROLLBACK" };
                return Err(SqlError::new("25P01", format!("{what} AND CHAIN can only be used in transaction blocks")));
            }
            self.notice("WARNING", "25P01", "there is no transaction in progress");
            return Ok(Outcome::Done { tag: if commits { "COMMIT" } else { "ROLLBACK" }.to_owned() });
        };
        let (failed, implicit) = (open.failed, open.implicit);
        if implicit {
            self.notice("WARNING", "25P01", "there is no transaction in progress");
        }
        let commits = commits && !failed;
        if commits {
            self.commit().await?;
        } else {
            self.rollback().await;
        }
        if chain {
            self.open(false);
        }
        Ok(Outcome::Done { tag: if commits { "COMMIT" } else { "ROLLBACK" }.to_owned() })
    }

    pub(super) async fn commit(&mut self) -> Result<(), SqlError> {
        let Some(open) = self.transaction.take() else { return Ok(()) };
        let committed = self.commit_open(open).await;
        self.settings().end(committed.is_ok());
        committed
    }

    async fn commit_open(&mut self, open: Open) -> Result<(), SqlError> {
        let mut writes = open.writes;
        let has_ddl = !open.ddl.is_empty();
        if has_ddl {
            let version = match self.commit_ddl(open.ddl).await {
                Ok(version) => version,
                Err(refusal) => {
                    if let Some(writes) = writes {
                        writes.abort().await;
                    }
                    return Err(refusal.into());
                }
            };
            let rows: Vec<_> = open.overlay.created.into_iter().filter(|pending| !pending.rows.is_empty()).collect();
            if !rows.is_empty() {
                let stamped = self.gateway.cluster.meta.timestamp(meta_deadline()).await;
                let (snapshot, newest) = stamped.map_err(partly_applied)?;
                let version = version.max(newest);
                let arrived = self.gateway.cluster.catalog.wait_for(version, meta_deadline()).await;
                let view = arrived.map_err(partly_applied)?;
                let stamp = StatementStamp { snapshot, version, command: CommandId(open.command) };
                let writes = writes.get_or_insert_with(|| self.gateway.transactions.begin());
                for pending in rows {
                    let table = view.table_by_name(&pending.table.namespace, &pending.table.name);
                    let dropped = || Refusal::Conflict(format!("table {} was dropped", pending.table.name));
                    let table = table.ok_or_else(dropped).map_err(partly_applied)?;
                    for batch in pending.rows {
                        writes.send(table, batch, stamp).await.map_err(partly_applied)?;
                    }
                }
            }
        }
        let Some(writes) = writes else { return Ok(()) };
        let committed = writes.commit().await.map_err(Refusal::from);
        committed.map_err(|refusal| if has_ddl { partly_applied(refusal) } else { refusal })?;
        Ok(())
    }

    /// One entry for all of it.
    async fn commit_ddl(&self, mut ddl: Vec<Command>) -> Result<CatalogVersion, Refusal> {
        let cluster = &self.gateway.cluster;
        let sealed = self.seal_for(&mut ddl).await?;
        match cluster.meta.propose(Command::Batch(ddl), meta_deadline()).await {
            Ok((_, version)) => Ok(version),
            Err(unknown @ Refusal::OutcomeUnknown(_)) => Err(unknown),
            Err(refusal) => {
                cluster.reopen(sealed);
                Err(refusal)
            }
        }
    }

    pub(super) async fn rollback(&mut self) {
        let Some(open) = self.transaction.take() else { return };
        if let Some(writes) = open.writes {
            writes.abort().await;
        }
        self.settings().end(false);
    }

    /// A timestamp and the catalog for the next statement (R1, R2).
    pub(super) async fn moment(&mut self, cancel: &CancellationToken) -> Result<Moment, SqlError> {
        let gateway = Arc::clone(&self.gateway);
        let keeps = self.transaction.is_some() && self.isolation().keeps_snapshot();
        let kept = self.transaction.as_ref().and_then(|open| open.snapshot).filter(|_| keeps);
        let (snapshot, version) = match kept {
            Some(kept) => kept,
            None => cancellable(cancel, gateway.cluster.meta.timestamp(meta_deadline())).await?,
        };
        let view = cancellable(cancel, gateway.cluster.catalog.wait_for(version, meta_deadline())).await?;
        let mut command = 0;
        if let Some(open) = &mut self.transaction {
            open.snapshot = keeps.then_some((snapshot, version));
            command = open.command;
            open.command += 1;
        }
        Ok(Moment { snapshot, version, view, command: CommandId(command) })
    }

    /// What a statement of this moment reads.
    pub(super) fn read_stamp(&self, moment: &Moment) -> ReadStamp {
        let own = self.transaction.as_ref().and_then(|open| open.writes.as_ref());
        ReadStamp {
            snapshot: moment.snapshot,
            version: moment.version,
            own: own.map(|writes| (writes.id(), moment.command)),
            query: self.gateway.next_query(),
        }
    }

    /// Keeps rows of a table that this transaction made, until it commits.
    pub(super) fn keep_rows(&mut self, index: usize, batch: RecordBatch) -> Result<(), SqlError> {
        let Some(open) = &mut self.transaction else {
            return Err(SqlError::new("XX000", "rows of an uncommitted table outside of its transaction"));
        };
        open.overlay_bytes += batch.get_array_memory_size();
        if open.overlay_bytes > PENDING_BYTES_MAX {
            let message = "too many rows for a table that the same transaction created";
            return Err(SqlError::unsupported(message).with_hint(format!(
                "COMMIT the CREATE TABLE first; up to {} MiB of rows can go with it in one transaction.",
                PENDING_BYTES_MAX >> 20
            )));
        }
        open.overlay.created[index].rows.push(batch);
        Ok(())
    }
}

/// Rows held in memory for tables that are not committed.
const PENDING_BYTES_MAX: usize = 64 << 20;

/// R25: the DDL of a transaction stands, its rows may not. No error may say that surely nothing was applied.
fn partly_applied(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::OutcomeUnknown(_) => refusal,
        refusal => Refusal::OutcomeUnknown(format!("the tables were changed, the rows not written: {refusal}")),
    }
}

fn check_isolation(isolation: Isolation) -> Result<(), SqlError> {
    if isolation == Isolation::Serializable {
        return Err(SqlError::unsupported("isolation level SERIALIZABLE is not supported")
            .with_hint("REPEATABLE READ is snapshot isolation."));
    }
    Ok(())
}
