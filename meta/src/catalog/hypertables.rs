//! Hypertables: a reference table without rows is given dimensions.

use std::sync::Arc;

use meridian_proto::catalog::{CHUNK_INTERVAL_US_DEFAULT, Hypertable, SpaceDimension, Table, TableKind};
use meridian_proto::command::{CreateHypertable, Reply};
use meridian_proto::schema::Column;
use meridian_proto::{ColumnId, NodeId, Refusal, SchemaVersion, SqlType};

use super::settings::REPLICATION_FACTOR_DEFAULT;
use super::{Catalog, Outcome};

/// Fewest slots of a hypertable with a hash dimension, unless the user says.
const SLOTS_MIN: u32 = 16;
/// Slots per shard of the cluster at creation: enough to move some when it grows.
const SLOTS_PER_SHARD: u32 = 4;
/// TimescaleDB's limit of partitions of a dimension, and of a replication factor (`PG_INT16_MAX`).
const INT16_MAX: u32 = 32_767;
/// Most cells that several dimensions may have together: what a group's list of slots stays handy with.
const SLOTS_MAX: u32 = 65_536;

impl Catalog {
    pub(super) fn create_hypertable(&mut self, create: CreateHypertable) -> Outcome {
        let Some(id) = self.table_id(&create.namespace, &create.table) else {
            return Err(Refusal::catalog("42P01", format!("relation \"{}\" does not exist", create.table)));
        };
        let table = Arc::clone(&self.tables[&id]);
        if table.hypertable().is_some() {
            let message = format!("table \"{}\" is already a hypertable", table.name);
            if create.if_not_exists {
                return Ok(Reply::Skipped(format!("{message}, skipping")));
            }
            return Err(Refusal::catalog("TS110", message));
        }
        let time = column(&table, &create.time_column)?.clone();
        let chunk_interval_us = chunk_interval(&time, create.chunk_interval_us)?;
        let space = self.space_dimensions(&table, &create, time.id)?;
        let pinned = self.chosen_data_nodes(&create.data_nodes)?;
        let replication_factor = self.replication_factor(&create, &pinned)?;
        self.check_sealed(&table, &create.sealed)?;

        // Nothing is refused from here on.
        self.counters.hypertable += 1;
        let id_given = self.counters.hypertable;
        let hypertable = Hypertable { id: id_given, time_column: time.id, chunk_interval_us, space, compression: None };
        self.turn_into_hypertable(&table, hypertable, replication_factor, &pinned);
        Ok(Reply::Hypertable { id: id_given, table: id, created: true })
    }

    fn turn_into_hypertable(
        &mut self,
        table: &Table,
        hypertable: Hypertable,
        replication_factor: u16,
        pinned: &[NodeId],
    ) {
        let mut schema = table.schema.clone();
        for column in &mut schema.columns {
            column.not_null |= column.id == hypertable.time_column;
        }
        // A writer that still takes it for a reference table is refused by its schema version (R18), and before its node
        // knows of that, by the seal (R17).
        schema.version = SchemaVersion(schema.version.0 + 1);
        self.drop_chunks_of(table.id);
        // Its old group goes first: what it led must not count against its node when the new slots are placed.
        if self.tables.values().all(|other| other.id == table.id || other.group != table.group) {
            self.remove_group(table.group);
        }
        let group = self.hypertable_group(table, &hypertable, replication_factor, pinned);
        let kind = TableKind::Hypertable(hypertable);
        self.put_table(Table { schema, kind, group, replication_factor, ..table.clone() });
    }

    fn space_dimensions(
        &self,
        table: &Table,
        create: &CreateHypertable,
        time: ColumnId,
    ) -> Result<Vec<SpaceDimension>, Refusal> {
        let mut dimensions: Vec<SpaceDimension> = Vec::new();
        for (name, cells) in &create.space {
            let column = column(table, name)?;
            if column.id == time || dimensions.iter().any(|other| other.column == column.id) {
                return Err(Refusal::catalog("TS160", format!("column \"{name}\" is already a dimension")));
            }
            if hash_class(&column.sql_type).is_none() {
                let message = format!("column \"{name}\" of type {} cannot be a space dimension", column.sql_type);
                return Err(Refusal::catalog("42809", message));
            }
            let cells = cells.unwrap_or_else(|| self.default_cells());
            if !(1..=INT16_MAX).contains(&cells) {
                return Err(invalid_with_hint(
                    format!("invalid number of partitions for dimension \"{name}\""),
                    format!("A closed (space) dimension must specify between 1 and {INT16_MAX} partitions."),
                ));
            }
            dimensions.push(SpaceDimension { column: column.id, cells });
        }
        let slots = dimensions.iter().try_fold(1_u32, |product, dimension| product.checked_mul(dimension.cells));
        if slots.is_none_or(|slots| slots > SLOTS_MAX) {
            let message = format!("the partitions of all space dimensions multiply to more than {SLOTS_MAX}");
            return Err(Refusal::catalog("22023", message));
        }
        Ok(dimensions)
    }

    /// A power of two, so that it is a fair cut of the hash for any number of nodes to come.
    fn default_cells(&self) -> u32 {
        let shards: u32 = self.live_data_nodes().map(|node| u32::from(node.shards)).sum();
        SLOTS_MIN.max(shards.saturating_mul(SLOTS_PER_SHARD)).min(INT16_MAX / 2).next_power_of_two()
    }

    /// Ids of the named data nodes in order; empty when none is named.
    fn chosen_data_nodes(&self, names: &[String]) -> Result<Vec<NodeId>, Refusal> {
        let mut chosen = Vec::new();
        for name in names {
            let Some(node) = self.data_nodes().find(|node| node.name == *name) else {
                return Err(Refusal::catalog("42704", format!("server \"{name}\" does not exist")));
            };
            chosen.push(node.id);
        }
        chosen.sort();
        chosen.dedup();
        Ok(chosen)
    }

    fn replication_factor(&self, create: &CreateHypertable, pinned: &[NodeId]) -> Result<u16, Refusal> {
        let default = || self.setting(REPLICATION_FACTOR_DEFAULT).and_then(|value| value.parse().ok()).unwrap_or(1);
        let factor: u16 = create.replication_factor.unwrap_or_else(default);
        let nodes = if pinned.is_empty() { self.data_nodes().count() } else { pinned.len() };
        if nodes == 0 {
            return Err(Refusal::Catalog {
                sqlstate: "TS170".to_owned(),
                message: "no data nodes can be assigned to the hypertable".to_owned(),
                hint: Some("Add data nodes to the database.".to_owned()),
            });
        }
        if factor == 0 || u32::from(factor) > INT16_MAX {
            return Err(invalid_with_hint(
                "invalid replication factor".to_owned(),
                format!("A hypertable's replication factor must be between 1 and {INT16_MAX}."),
            ));
        }
        if usize::from(factor) > nodes {
            return Err(Refusal::Catalog {
                sqlstate: "TS170".to_owned(),
                message: format!("replication factor too large for hypertable \"{}\"", create.table),
                hint: Some("Decrease the replication factor or attach more data nodes to the hypertable.".to_owned()),
            });
        }
        if factor > 1 {
            return Err(Refusal::catalog("0A000", "replication is not available yet"));
        }
        Ok(factor)
    }
}

fn column<'a>(table: &'a Table, name: &str) -> Result<&'a Column, Refusal> {
    let found = table.schema.columns.iter().find(|column| column.name == name);
    found.ok_or_else(|| Refusal::catalog("42703", format!("column \"{name}\" does not exist")))
}

fn invalid_with_hint(message: String, hint: String) -> Refusal {
    Refusal::Catalog { sqlstate: "22023".to_owned(), message, hint: Some(hint) }
}

/// The chunk interval of a time column, in its units.
fn chunk_interval(time: &Column, asked: Option<i64>) -> Result<i64, Refusal> {
    let (default, max) = match time.sql_type {
        SqlType::Timestamptz | SqlType::Timestamp | SqlType::Date => (CHUNK_INTERVAL_US_DEFAULT, i64::MAX),
        SqlType::Int2 => (10_000, i64::from(i16::MAX)),
        SqlType::Int4 => (100_000, i64::from(i32::MAX)),
        SqlType::Int8 => (1_000_000, i64::MAX),
        _ => {
            return Err(Refusal::Catalog {
                sqlstate: "42809".to_owned(),
                message: format!("invalid type for dimension \"{}\"", time.name),
                hint: Some("Use an integer, timestamp, or date type.".to_owned()),
            });
        }
    };
    let interval = asked.unwrap_or(default);
    if !(1..=max).contains(&interval) {
        return Err(Refusal::catalog("22023", format!("invalid interval: must be between 1 and {max}")));
    }
    Ok(interval)
}

/// Name of the types whose equal values have one slot hash (R22); `None` for a type that has none.
pub(super) fn hash_class(sql_type: &SqlType) -> Option<&'static str> {
    Some(match sql_type {
        SqlType::Bool => "bool",
        SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => "int",
        SqlType::Float4 | SqlType::Float8 => "float",
        SqlType::Numeric(_) => "numeric",
        SqlType::Text | SqlType::Varchar(_) => "text",
        SqlType::Char(_) => "char",
        SqlType::Timestamptz | SqlType::Timestamp => "timestamp",
        SqlType::Date => "date",
        SqlType::Time => "time",
        SqlType::Uuid => "uuid",
        SqlType::Bytea => "bytea",
        SqlType::Interval | SqlType::Jsonb | SqlType::Array(_) => return None,
    })
}
