//! COPY: rows from the client into a table, rows of a query to the client.

use arrow::array::RecordBatch;
use datafusion::scalar::ScalarValue;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use super::Session;
use super::query::PlannedQuery;
use super::rows::{RowMaker, positions};
use super::write::Sink;
use crate::error::SqlError;
use crate::exec::stream::start;
use crate::outcome::{CopyIn, Outcome};
use crate::sql::plan::Planning;
use crate::sql::statement::{CopyFrom, CopyTo};

/// A COPY FROM STDIN between its batches.
pub(super) struct CopyState {
    sink: Sink,
    maker: RowMaker,
}

impl Session {
    pub(super) async fn copy_from(&mut self, copy: &CopyFrom, cancel: &CancellationToken) -> Result<Outcome, SqlError> {
        self.check_may_write("COPY FROM")?;
        let moment = self.moment(cancel).await?;
        let catalog = self.statement_catalog(&moment);
        let (target, table) = catalog.target(&copy.table)?;
        let given = positions(&table, &copy.columns)?;
        let column = |position: &usize| {
            let column = &table.schema.columns[*position];
            (column.name.clone(), column.sql_type.clone())
        };
        let columns = given.iter().map(column).collect();
        let modifiers = given.iter().map(|position| table.schema.columns[*position].modifier).collect();
        let planning = Planning::new(&self.gateway.base, self.environment(), &catalog);
        let maker = RowMaker::new(Arc::clone(&table), given, &planning, &self.gateway.base)?;
        let name = table.name.clone();
        self.copy = Some(CopyState { sink: Sink::new(target, table, moment), maker });
        Ok(Outcome::CopyIn(CopyIn { table: name, options: copy.options.clone(), columns, modifiers }))
    }

    /// Rows of the columns that were announced.
    pub async fn copy_batch(&mut self, batch: RecordBatch) -> Result<(), SqlError> {
        let mut copy = self.copy.take().ok_or_else(no_copy)?;
        let rows = copy.maker.complete(batch.columns(), batch.num_rows())?;
        self.send(&mut copy.sink, rows).await?;
        self.copy = Some(copy);
        Ok(())
    }

    /// Ends a COPY FROM STDIN: rows written. Tag is `COPY n`.
    pub async fn copy_finish(&mut self) -> Result<u64, SqlError> {
        let copy = self.copy.take().ok_or_else(no_copy)?;
        self.finish(copy.sink).await
    }

    /// Nothing of it stays. The error is what the client is told when it gave up by itself.
    pub async fn copy_abort(&mut self, reason: &str) -> SqlError {
        // Its own transaction is aborted as it is dropped; an open one is failed by `on_error`.
        self.copy = None;
        SqlError::new("57014", format!("COPY from stdin failed: {reason}"))
    }

    pub(super) async fn copy_to(&mut self, copy: &CopyTo, cancel: &CancellationToken) -> Result<Outcome, SqlError> {
        let none: &[ScalarValue] = &[];
        let PlannedQuery { columns, plan, .. } = self.plan_query(&copy.query, none, cancel).await?;
        let rows = start(plan, &self.gateway, cancel)?;
        Ok(Outcome::CopyOut { options: copy.options.clone(), columns, rows })
    }
}

fn no_copy() -> SqlError {
    SqlError::new("08P01", "no COPY is in progress")
}
