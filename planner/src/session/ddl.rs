//! CREATE TABLE, DROP TABLE and create_hypertable: proposed to the catalog at once, or, inside a transaction, kept until
//! COMMIT, when all of them become one entry.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, RecordBatch, StringArray};
use futures::StreamExt;
use meridian_client::cluster::Sealed;
use meridian_proto::catalog::{Hypertable, SpaceDimension, Table, TableKind};
use meridian_proto::command::{Command, CreateHypertable, CreateTable as CreateTableCommand, Reply};
use meridian_proto::schema::TableSchema;
use meridian_proto::time::US_PER_DAY;
use meridian_proto::{CatalogVersion, ChunkId, ColumnId, Epoch, GroupId, Refusal, SchemaVersion, SqlType, TableId};
use tokio_util::sync::CancellationToken;

use super::Session;
use super::query::PlannedQuery;
use super::statement::schema_of;
use super::transaction::{Moment, meta_deadline};
use crate::error::SqlError;
use crate::exec::catalog::{Found, PUBLIC, Pending, StatementCatalog};
use crate::exec::stream::{cancellable, check, ready, start};
use crate::outcome::Outcome;
use crate::sql::parse::parse_query_text;
use crate::sql::statement::{ChunkInterval, CreateTable, HypertableCall, Name};

/// Looks at a table that is being written to, before its change is given up.
const SEAL_TRIES_MAX: u32 = 5;
/// Ids of tables that are not committed count down from here; no committed table has one of them.
const PENDING_ID_FIRST: u32 = u32::MAX;

pub(super) fn done(tag: &str) -> Outcome {
    Outcome::Done { tag: tag.to_owned() }
}

/// The schema that a new table goes into.
fn namespace_for_new(name: &Name) -> Result<&str, SqlError> {
    match name.schema.as_deref() {
        None | Some(PUBLIC) => Ok(PUBLIC),
        Some(other) => Err(SqlError::new("3F000", format!("schema \"{other}\" does not exist"))),
    }
}

impl Session {
    pub(super) async fn create_table(
        &mut self,
        create: &CreateTable,
        cancel: &CancellationToken,
    ) -> Result<Outcome, SqlError> {
        self.check_may_write("CREATE TABLE")?;
        let namespace = namespace_for_new(&create.table)?.to_owned();
        let command = CreateTableCommand {
            namespace: namespace.clone(),
            name: create.table.name.clone(),
            columns: create.columns.clone(),
            if_not_exists: create.if_not_exists,
        };
        self.check_defaults(create).await?;
        if self.transaction.is_none() {
            self.propose(Command::CreateTable(command), cancel).await?;
            return Ok(done("CREATE TABLE"));
        }
        let moment = self.moment(cancel).await?;
        let catalog = self.statement_catalog(&moment);
        if catalog.overlay.find(&catalog.view, &namespace, &command.name).is_some() {
            let message = format!("relation \"{}\" already exists", command.name);
            if !create.if_not_exists {
                return Err(SqlError::new("42P07", message));
            }
            self.notice("NOTICE", "42P07", format!("{message}, skipping"));
            return Ok(done("CREATE TABLE"));
        }
        if let Some(open) = &mut self.transaction {
            let id = TableId(PENDING_ID_FIRST - open.overlay.created.len() as u32);
            let table = Arc::new(pending_table(id, &command));
            open.overlay.created.push(Pending { table, rows: vec![] });
            open.ddl.push(Command::CreateTable(command));
        }
        Ok(done("CREATE TABLE"))
    }

    /// A DEFAULT that cannot be worked out is refused now, not at the first row.
    async fn check_defaults(&mut self, create: &CreateTable) -> Result<(), SqlError> {
        if create.columns.iter().all(|column| column.default.is_none()) {
            return Ok(());
        }
        let command = CreateTableCommand {
            namespace: PUBLIC.to_owned(),
            name: create.table.name.clone(),
            columns: create.columns.clone(),
            if_not_exists: false,
        };
        let table = Arc::new(pending_table(TableId(PENDING_ID_FIRST), &command));
        let catalog = self.describing_catalog(false).await?;
        let planning = crate::sql::plan::Planning::new(&self.gateway.base, self.environment(), &catalog);
        super::rows::RowMaker::new(table, vec![], &planning, &self.gateway.base)?;
        Ok(())
    }

    pub(super) async fn drop_tables(
        &mut self,
        names: &[Name],
        if_exists: bool,
        cancel: &CancellationToken,
    ) -> Result<Outcome, SqlError> {
        self.check_may_write("DROP TABLE")?;
        let moment = self.moment(cancel).await?;
        let catalog = self.statement_catalog(&moment);
        let mut found = Vec::new();
        for name in names {
            match catalog.resolve(name) {
                Some(table) => found.push(table),
                None if if_exists => {
                    self.notice("NOTICE", "00000", format!("table \"{}\" does not exist, skipping", name.name));
                }
                None => return Err(SqlError::new("42P01", format!("table \"{}\" does not exist", name.name))),
            }
        }
        let commands: Vec<Command> = found
            .iter()
            .map(|found| {
                let table = match found {
                    Found::Stored(table) => table,
                    Found::Pending(index) => &catalog.overlay.created[*index].table,
                };
                Command::DropTable { namespace: table.namespace.clone(), name: table.name.clone(), if_exists }
            })
            .collect();
        let Some(open) = &mut self.transaction else {
            if !commands.is_empty() {
                self.propose(Command::Batch(commands), cancel).await?;
            }
            return Ok(done("DROP TABLE"));
        };
        let mut indices = Vec::new();
        for found in found {
            match found {
                Found::Stored(table) => open.overlay.dropped.push(table.id),
                Found::Pending(index) => indices.push(index),
            }
        }
        indices.sort_unstable();
        for index in indices.into_iter().rev() {
            open.overlay.created.remove(index);
        }
        open.ddl.extend(commands);
        Ok(done("DROP TABLE"))
    }

    /// Proposes a command and tells its notices.
    pub(super) async fn propose(&mut self, command: Command, cancel: &CancellationToken) -> Result<Reply, SqlError> {
        let gateway = Arc::clone(&self.gateway);
        let proposed = gateway.cluster.meta.propose(command, meta_deadline());
        // Not cancelled while it is on its way: it may be applied all the same.
        check(cancel)?;
        let (reply, _) = proposed.await?;
        self.tell_skipped(&reply);
        Ok(reply)
    }

    fn tell_skipped(&mut self, reply: &Reply) {
        match reply {
            Reply::Skipped(text) => self.notice("NOTICE", "42P07", text.clone()),
            Reply::Batch(replies) => replies.iter().for_each(|reply| self.tell_skipped(reply)),
            _ => {}
        }
    }

    pub(super) async fn create_hypertable(
        &mut self,
        call: &HypertableCall,
        cancel: &CancellationToken,
    ) -> Result<Outcome, SqlError> {
        self.check_may_write(call.function)?;
        let moment = self.moment(cancel).await?;
        let catalog = self.statement_catalog(&moment);
        let (found, table) = catalog.target(&call.table)?;
        if let Some(hypertable) = table.hypertable() {
            let message = format!("table \"{}\" is already a hypertable", table.name);
            if !call.if_not_exists {
                return Err(SqlError::new("TS110", message));
            }
            self.notice("NOTICE", "TS110", format!("{message}, skipping"));
            return answer(call, &table, hypertable.id, false);
        }
        let command = command_of(call, &table)?;
        self.check_empty(call, &catalog, &found, &moment, cancel).await?;
        let time = table.schema.columns.iter().find(|column| column.name == call.time_column);
        if time.is_some_and(|column| !column.not_null) {
            let message = format!("adding not-null constraint to column \"{}\"", call.time_column);
            self.notice("NOTICE", "00000", message);
        }
        if self.transaction.is_none() {
            let reply = self.propose_hypertable(call, &table, command, moment.version, cancel).await?;
            let (id, created) = match reply {
                Reply::Hypertable { id, created, .. } => (id, created),
                _ => (0, false),
            };
            return answer(call, &table, id, created);
        }
        // The catalog counts hypertables up; the number is told before it is given.
        let pending_hypertables = catalog.overlay.created.iter().filter(|p| p.table.hypertable().is_some()).count();
        let highest = moment.view.tables().filter_map(|t| t.hypertable().map(|h| h.id)).max().unwrap_or(0);
        let id = highest + 1 + pending_hypertables as u32;
        if let Some(open) = &mut self.transaction {
            if let Found::Pending(index) = found {
                let table = pending_hypertable(&table, id, &command);
                open.overlay.created[index].table = Arc::new(table);
            }
            open.ddl.push(Command::CreateHypertable(command));
        }
        answer(call, &table, id, true)
    }

    /// R17: a row that is acknowledged after the look at the table must not go with its chunk. So the chunks are sealed
    /// first, and the catalog takes the change only while they are sealed as named.
    async fn propose_hypertable(
        &mut self,
        call: &HypertableCall,
        table: &Table,
        mut command: CreateHypertable,
        mut version: CatalogVersion,
        cancel: &CancellationToken,
    ) -> Result<Reply, SqlError> {
        let gateway = Arc::clone(&self.gateway);
        let cluster = &gateway.cluster;
        for _ in 0..SEAL_TRIES_MAX {
            check(cancel)?;
            let sealed = match cluster.seal_table(table.id, version, meta_deadline()).await? {
                Sealed::Empty(sealed) => sealed,
                Sealed::Rows => return Err(not_empty(call, &table.name)),
                Sealed::Undecided => {
                    let message = format!("table \"{}\" has rows of transactions that are not over", table.name);
                    return Err(SqlError::new("55006", message));
                }
            };
            command.sealed.clone_from(&sealed);
            let proposed = cluster.meta.propose(Command::CreateHypertable(command.clone()), meta_deadline()).await;
            // Chunks that are not gone with the change are opened again; where that is unknown, by their nodes.
            if !matches!(proposed, Ok((Reply::Hypertable { .. }, _)) | Err(Refusal::OutcomeUnknown(_))) {
                cluster.reopen(sealed);
            }
            match proposed {
                Ok((reply, _)) => {
                    self.tell_skipped(&reply);
                    return Ok(reply);
                }
                // A chunk came to be, or its node was started, since it was looked at.
                Err(Refusal::Conflict(_)) => (_, version) = cluster.meta.timestamp(meta_deadline()).await?,
                Err(refusal) => return Err(refusal.into()),
            }
        }
        let message = format!("could not serialize access: table \"{}\" is being written to", table.name);
        Err(SqlError::new("40001", message))
    }

    /// Seals the chunks of tables that a transaction's DDL makes hypertables, before it is proposed (R17). Answers what is
    /// to be opened again should the proposal be refused.
    pub(super) async fn seal_for(&self, ddl: &mut [Command]) -> Result<Vec<(ChunkId, Epoch)>, Refusal> {
        let mut all = Vec::new();
        if !ddl.iter().any(|command| matches!(command, Command::CreateHypertable(_))) {
            return Ok(all);
        }
        let cluster = &self.gateway.cluster;
        let (_, version) = cluster.meta.timestamp(meta_deadline()).await?;
        let view = cluster.catalog.wait_for(version, meta_deadline()).await?;
        let mut made = Vec::new();
        for command in ddl {
            let create = match command {
                Command::CreateTable(create) => {
                    made.push((create.namespace.clone(), create.name.clone()));
                    continue;
                }
                Command::CreateHypertable(create) => create,
                _ => continue,
            };
            let table = view.table_by_name(&create.namespace, &create.table);
            let is_made_here = made.contains(&(create.namespace.clone(), create.table.clone()));
            let Some(table) = table.filter(|table| !is_made_here && table.hypertable().is_none()) else { continue };
            match cluster.seal_table(table.id, version, meta_deadline()).await {
                Ok(Sealed::Empty(sealed)) => {
                    all.extend_from_slice(&sealed);
                    create.sealed = sealed;
                }
                other => {
                    cluster.reopen(all);
                    // It was empty when the statement looked.
                    let filled = Refusal::Conflict(format!("rows have come into table \"{}\"", table.name));
                    return Err(other.err().unwrap_or(filled));
                }
            }
        }
        Ok(all)
    }

    async fn check_empty(
        &mut self,
        call: &HypertableCall,
        catalog: &StatementCatalog,
        found: &Found,
        moment: &Moment,
        cancel: &CancellationToken,
    ) -> Result<(), SqlError> {
        let table = match found {
            Found::Pending(index) => {
                let pending = &catalog.overlay.created[*index];
                if pending.rows.is_empty() {
                    return Ok(());
                }
                return Err(not_empty(call, &pending.table.name));
            }
            Found::Stored(table) => table,
        };
        if moment.view.chunks_of(table.id).next().is_none() {
            return Ok(());
        }
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let text = format!("SELECT 1 FROM {}.{} LIMIT 1", quote(&table.namespace), quote(&table.name));
        let PlannedQuery { plan, .. } = self.plan_query(parse_query_text(&text)?.as_ref(), &[], cancel).await?;
        let mut rows = start(plan, &self.gateway, cancel)?;
        while let Some(batch) = cancellable(cancel, async { rows.next().await.transpose() }).await? {
            if batch.num_rows() > 0 {
                return Err(not_empty(call, &table.name));
            }
        }
        Ok(())
    }
}

fn not_empty(call: &HypertableCall, table: &str) -> SqlError {
    let error = SqlError::unsupported(format!("table \"{table}\" is not empty"));
    if call.migrate_data {
        return error.with_detail("migrate_data is not supported.");
    }
    error.with_hint("Create the hypertable first, then INSERT ... SELECT the rows into it.")
}

fn command_of(call: &HypertableCall, table: &Table) -> Result<CreateHypertable, SqlError> {
    let missing = |name: &str| SqlError::new("42703", format!("column \"{name}\" does not exist"));
    let time = table.schema.columns.iter().find(|column| column.name == call.time_column);
    let time = time.ok_or_else(|| missing(&call.time_column))?;
    if !time.sql_type.is_time() {
        let message = format!("invalid type for dimension \"{}\"", call.time_column);
        return Err(SqlError::new("42804", message).with_hint("Use an integer, timestamp, or date type."));
    }
    for (name, _) in &call.space {
        table.schema.position(name).ok_or_else(|| missing(name))?;
    }
    let replication_factor = match call.replication_factor {
        None => None,
        Some(factor) => Some(u16::try_from(factor).ok().filter(|factor| *factor > 0).ok_or_else(|| {
            SqlError::new("22023", "invalid replication factor")
                .with_hint("A hypertable's replication factor must be at least 1.")
        })?),
    };
    Ok(CreateHypertable {
        namespace: table.namespace.clone(),
        table: table.name.clone(),
        time_column: call.time_column.clone(),
        space: call.space.clone(),
        chunk_interval_us: call.interval.map(|interval| interval_of(interval, &time.sql_type)).transpose()?,
        replication_factor,
        data_nodes: call.data_nodes.clone(),
        if_not_exists: call.if_not_exists,
        sealed: Vec::new(),
    })
}

/// In the units of the time column.
fn interval_of(interval: ChunkInterval, time: &SqlType) -> Result<i64, SqlError> {
    let is_integer = matches!(time, SqlType::Int2 | SqlType::Int4 | SqlType::Int8);
    let width = match interval {
        ChunkInterval::Us(_) if is_integer => {
            return Err(SqlError::new("22023", format!("invalid interval type for {time} dimension"))
                .with_hint("Use an interval of type integer."));
        }
        ChunkInterval::Us(us) | ChunkInterval::Integer(us) => us,
    };
    let limit = match time {
        SqlType::Int2 => i64::from(i16::MAX),
        SqlType::Int4 => i64::from(i32::MAX),
        _ => i64::MAX,
    };
    if width < 1 || width > limit {
        return Err(SqlError::new("22023", format!("invalid interval: must be between 1 and {limit}")));
    }
    if *time == SqlType::Date && width % US_PER_DAY != 0 {
        return Err(SqlError::new("22023", "invalid interval: must be a multiple of one day"));
    }
    Ok(width)
}

/// A table as its own transaction sees it.
fn pending_table(id: TableId, command: &CreateTableCommand) -> Table {
    let mut columns = command.columns.clone();
    for (index, column) in columns.iter_mut().enumerate() {
        column.id = ColumnId(index as u16 + 1);
    }
    Table {
        id,
        namespace: command.namespace.clone(),
        name: command.name.clone(),
        schema: TableSchema { version: SchemaVersion(1), columns },
        kind: TableKind::Reference,
        group: GroupId(0),
        replication_factor: 1,
        created: CatalogVersion(0),
    }
}

fn pending_hypertable(table: &Table, id: u32, command: &CreateHypertable) -> Table {
    let mut table = table.clone();
    let column = |name: &str| table.schema.columns.iter().find(|column| column.name == name).map(|column| column.id);
    let space = command
        .space
        .iter()
        .filter_map(|(name, cells)| column(name).map(|column| SpaceDimension { column, cells: cells.unwrap_or(1) }));
    let kind = TableKind::Hypertable(Hypertable {
        id,
        time_column: column(&command.time_column).unwrap_or_default(),
        chunk_interval_us: command.chunk_interval_us.unwrap_or(1),
        space: space.collect(),
        compression: None,
    });
    table.kind = kind;
    table
}

/// The row that TimescaleDB answers with.
fn answer(call: &HypertableCall, table: &Table, id: u32, created: bool) -> Result<Outcome, SqlError> {
    let columns = call.columns();
    let schema = Arc::new(schema_of(&columns));
    let id_value = i32::try_from(id).unwrap_or(i32::MAX);
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let arrays: Vec<ArrayRef> = if call.as_table {
        let id: ArrayRef = Arc::new(Int32Array::from(vec![id_value]));
        let created: ArrayRef = Arc::new(BooleanArray::from(vec![created]));
        if call.generalized { vec![id, created] } else { vec![id, text(&table.namespace), text(&table.name), created] }
    } else {
        let flag = if created { "t" } else { "f" };
        let record = if call.generalized {
            format!("({id},{flag})")
        } else {
            format!("({id},{},{},{flag})", record_field(&table.namespace), record_field(&table.name))
        };
        vec![text(&record)]
    };
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    Ok(Outcome::Rows { columns, schema, rows: ready(batch), tag: "SELECT" })
}

/// A text inside a record, quoted as `record_out` does.
fn record_field(text: &str) -> String {
    let plain = !text.is_empty() && !text.contains(|c: char| "\"\\(),".contains(c) || c.is_whitespace());
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_intervals_are_in_the_units_of_the_time_column() {
        let of = |interval, time: &SqlType| interval_of(interval, time).map_err(|error| error.sqlstate);
        assert_eq!(of(ChunkInterval::Us(US_PER_DAY), &SqlType::Timestamptz), Ok(US_PER_DAY));
        assert_eq!(of(ChunkInterval::Integer(5), &SqlType::Int8), Ok(5));
        assert_eq!(of(ChunkInterval::Us(5), &SqlType::Int8), Err("22023".to_owned()));
        assert_eq!(of(ChunkInterval::Integer(100_000), &SqlType::Int2), Err("22023".to_owned()));
        assert_eq!(of(ChunkInterval::Integer(0), &SqlType::Timestamp), Err("22023".to_owned()));
        assert_eq!(of(ChunkInterval::Us(1), &SqlType::Date), Err("22023".to_owned()));
    }

    #[test]
    fn records_are_quoted_where_they_must_be() {
        assert_eq!(record_field("conditions"), "conditions");
        assert_eq!(record_field("a b\"c"), "\"a b\"\"c\"");
    }
}
