//! A table's columns. Every write and every segment says which version of them it was made under (R18).

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::ids::{ColumnId, SchemaVersion};
use crate::modifier::Modifier;
use crate::types::SqlType;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub id: ColumnId,
    pub name: String,
    pub sql_type: SqlType,
    pub not_null: bool,
    /// SQL text of the DEFAULT expression, evaluated by the gateway for each row that leaves the column out.
    pub default: Option<String>,
    /// Of a time type: what is kept of values.
    pub modifier: Option<Modifier>,
}

impl Column {
    /// The Arrow field of the column, which remembers the SQL type.
    #[must_use]
    pub fn field(&self) -> Field {
        let field = self.sql_type.field(&self.name, !self.not_null);
        match self.modifier {
            Some(modifier) => modifier.mark(field),
            None => field,
        }
    }

    /// The name of the type as PostgreSQL's `format_type` gives it.
    #[must_use]
    pub fn type_name(&self) -> String {
        self.modifier.map_or_else(|| self.sql_type.to_string(), |modifier| modifier.type_name(&self.sql_type))
    }
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
        let fields: Vec<_> = self.columns.iter().map(Column::field).collect();
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
