//! A table's columns. Every write and every segment says which version of them it was made under (R18).

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use crate::ids::{ColumnId, SchemaVersion};
use crate::types::SqlType;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub id: ColumnId,
    pub name: String,
    pub sql_type: SqlType,
    pub not_null: bool,
    /// SQL text of the DEFAULT expression, evaluated by the gateway for each row that leaves the column out.
    pub default: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    pub version: SchemaVersion,
    /// In the order of the table's definition.
    pub columns: Vec<Column>,
}

impl TableSchema {
    /// The Arrow schema of the table's rows, in column order, without hidden columns.
    #[must_use]
    pub fn arrow(&self) -> SchemaRef {
        let fields: Vec<_> =
            self.columns.iter().map(|column| column.sql_type.field(&column.name, !column.not_null)).collect();
        Arc::new(Schema::new(fields))
    }

    /// Position of the column of that name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    #[must_use]
    pub fn column(&self, id: ColumnId) -> Option<&Column> {
        self.columns.iter().find(|column| column.id == id)
    }

    /// Position of the column of that id.
    #[must_use]
    pub fn position_of(&self, id: ColumnId) -> Option<usize> {
        self.columns.iter().position(|column| column.id == id)
    }
}
