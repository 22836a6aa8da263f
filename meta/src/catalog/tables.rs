//! Tables: created as reference tables, dropped with all their chunks.

use std::collections::BTreeSet;

use meridian_proto::catalog::{Cell, NounKey, Table, TableKind};
use meridian_proto::command::{CreateTable, Reply};
use meridian_proto::schema::{Column, TableSchema};
use meridian_proto::{CatalogVersion, ColumnId, Refusal, SchemaVersion, Slot, TableId, TimeUs};

use super::{Catalog, Outcome};

/// PostgreSQL's limit (`MaxHeapAttributeNumber`).
const COLUMNS_MAX: usize = 1600;
/// The one SQL schema for tables, until `CREATE SCHEMA` exists.
const NAMESPACE: &str = "public";
/// Columns that every relation of PostgreSQL has.
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"];

impl Catalog {
    pub(super) fn create_table(&mut self, version: CatalogVersion, create: CreateTable) -> Outcome {
        if create.namespace != NAMESPACE {
            let message = format!("schema \"{}\" does not exist", create.namespace);
            return Err(Refusal::catalog("3F000", message));
        }
        if self.table_id(&create.namespace, &create.name).is_some() {
            let message = format!("relation \"{}\" already exists", create.name);
            if create.if_not_exists {
                return Ok(Reply::Skipped(format!("{message}, skipping")));
            }
            return Err(Refusal::catalog("42P07", message));
        }
        if create.name.is_empty() {
            return Err(Refusal::catalog("42601", "zero-length delimited identifier"));
        }
        check_columns(&create.columns)?;
        let id = TableId(self.next_oid());
        let group = self.create_reference_group(id);
        self.put_table(Table {
            id,
            namespace: create.namespace,
            name: create.name,
            schema: TableSchema { version: SchemaVersion(1), columns: numbered(create.columns) },
            kind: TableKind::Reference,
            group,
            replication_factor: 1,
            created: version,
        });
        Ok(Reply::Table { id, group })
    }

    pub(super) fn drop_table(&mut self, namespace: &str, name: &str, if_exists: bool) -> Outcome {
        let Some(id) = self.table_id(namespace, name) else {
            let message = format!("table \"{name}\" does not exist");
            if if_exists {
                return Ok(Reply::Skipped(format!("{message}, skipping")));
            }
            return Err(Refusal::catalog("42P01", message));
        };
        self.drop_chunks_of(id);
        if let Some(table) = self.tables.remove(&id) {
            self.names.remove(&(table.namespace.clone(), table.name.clone()));
            self.changed.insert(NounKey::Table(id));
            self.drop_group_if_unused(table.group);
        }
        Ok(Reply::Done)
    }

    pub(super) fn table_id(&self, namespace: &str, name: &str) -> Option<TableId> {
        self.names.get(&(namespace.to_owned(), name.to_owned())).copied()
    }

    /// Takes the table's chunks out of the catalog; their nodes remove the files once they see it.
    pub(super) fn drop_chunks_of(&mut self, table: TableId) {
        let first = Cell { table, slot: Slot(0), start: TimeUs::NEG_INFINITY };
        let cells: Vec<Cell> =
            self.cells.range(first..).map(|(cell, _)| *cell).take_while(|cell| cell.table == table).collect();
        for cell in cells {
            if let Some(chunk) = self.cells.remove(&cell) {
                self.chunks.remove(&chunk);
                self.changed.insert(NounKey::Chunk(chunk));
            }
        }
    }
}

fn check_columns(columns: &[Column]) -> Result<(), Refusal> {
    if columns.is_empty() {
        return Err(Refusal::catalog("0A000", "a table without columns is not supported"));
    }
    if columns.len() > COLUMNS_MAX {
        return Err(Refusal::catalog("54011", format!("tables can have at most {COLUMNS_MAX} columns")));
    }
    let mut names = BTreeSet::new();
    for column in columns {
        let name = column.name.as_str();
        if name.is_empty() {
            return Err(Refusal::catalog("42601", "zero-length delimited identifier"));
        }
        if SYSTEM_COLUMNS.contains(&name) {
            let message = format!("column name \"{name}\" conflicts with a system column name");
            return Err(Refusal::catalog("42701", message));
        }
        if !names.insert(name) {
            return Err(Refusal::catalog("42701", format!("column \"{name}\" specified more than once")));
        }
    }
    Ok(())
}

/// The columns with ids in their order, from 1.
fn numbered(columns: Vec<Column>) -> Vec<Column> {
    (1..).zip(columns).map(|(id, column)| Column { id: ColumnId(id), ..column }).collect()
}
