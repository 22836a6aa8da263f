//! ALTER TABLE ... SET (timescaledb.compress ...).

use std::sync::Arc;

use meridian_proto::catalog::{Hypertable, Table, TableKind};
use meridian_proto::command::{Command, SetCompression};
use meridian_proto::compression::{Compression, CompressionError};
use tokio_util::sync::CancellationToken;

use super::Session;
use super::ddl::done;
use crate::error::SqlError;
use crate::exec::catalog::{Found, StatementCatalog};
use crate::exec::stream::cancellable;
use crate::outcome::Outcome;
use crate::sql::statement::AlterTable;

impl Session {
    pub(super) async fn alter_table(
        &mut self,
        alter: &AlterTable,
        cancel: &CancellationToken,
    ) -> Result<Outcome, SqlError> {
        self.check_may_write("ALTER TABLE")?;
        let moment = self.moment(cancel).await?;
        let catalog = self.statement_catalog(&moment);
        let Some(found) = catalog.resolve(&alter.table) else {
            let missing = alter.table.not_found();
            if !alter.if_exists {
                return Err(missing);
            }
            self.notice("NOTICE", "00000", format!("{}, skipping", missing.message));
            return Ok(done("ALTER TABLE"));
        };
        let table = catalog.table_of(&found);
        let Some(hypertable) = table.hypertable() else {
            return Err(SqlError::new("22023", "unrecognized parameter namespace \"timescaledb\""));
        };
        let change = alter.options.change()?;
        if hypertable.compression.is_some() {
            cancellable(cancel, check_no_compressed_chunks(&catalog, &table)).await?;
        }
        // Meta checks the same again when it applies the command.
        let changed = |change| {
            Compression::changed(hypertable.compression.as_ref(), change, &table.schema, hypertable.time_column)
        };
        let compression = change.as_ref().map(changed).transpose()?;
        let command = Command::SetCompression(SetCompression {
            namespace: table.namespace.clone(),
            table: table.name.clone(),
            change,
        });
        let Some(open) = &mut self.transaction else {
            self.propose(command, cancel).await?;
            return Ok(done("ALTER TABLE"));
        };
        let kind = TableKind::Hypertable(Hypertable { compression, ..hypertable.clone() });
        let altered = Arc::new(Table { kind, ..Table::clone(&table) });
        match found {
            Found::Stored(_) => {
                open.overlay.altered.insert(altered.id, altered);
            }
            Found::Pending(index) => open.overlay.created[index].table = altered,
        }
        open.ddl.push(command);
        Ok(done("ALTER TABLE"))
    }
}

/// What is compressed keeps the settings that it was compressed by.
async fn check_no_compressed_chunks(catalog: &StatementCatalog, table: &Table) -> Result<(), SqlError> {
    let sizes = catalog.sizes_of(table).await?;
    if sizes.values().all(|sizes| !sizes.is_compressed) {
        return Ok(());
    }
    let message = "cannot change configuration on already compressed chunks";
    Err(SqlError::unsupported(message)
        .with_detail("There are compressed chunks that prevent changing the existing compression configuration."))
}

impl From<CompressionError> for SqlError {
    fn from(error: CompressionError) -> Self {
        let mut sql = Self::new(error.sqlstate, error.message);
        sql.detail = error.detail.map(str::to_owned);
        sql.hint = error.hint.map(str::to_owned);
        sql
    }
}
