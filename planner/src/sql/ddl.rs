//! CREATE TABLE: from sqlparser's tree to our columns. What is not kept yet is refused by name, never ignored.

use datafusion::sql::sqlparser::ast::{self, ColumnOption, CreateTableOptions, Expr, TableConstraint};
use meridian_proto::ColumnId;
use meridian_proto::schema::Column;

use super::statement::{CreateTable, Name};
use super::types::{modifier, sql_type};
use crate::error::SqlError;

pub(super) fn create_table(table: &ast::CreateTable) -> Result<CreateTable, SqlError> {
    refuse_forms(table)?;
    if let Some(constraint) = table.constraints.first() {
        return Err(refuse_constraint(constraint_name(constraint)));
    }
    let mut columns: Vec<Column> = Vec::with_capacity(table.columns.len());
    for definition in &table.columns {
        let column = column(definition)?;
        if columns.iter().any(|known| known.name == column.name) {
            return Err(SqlError::new("42701", format!("column \"{}\" specified more than once", column.name)));
        }
        columns.push(column);
    }
    Ok(CreateTable { table: object_name(&table.name)?, columns, if_not_exists: table.if_not_exists })
}

fn refuse_forms(table: &ast::CreateTable) -> Result<(), SqlError> {
    let refuse = |what: &str| Err(SqlError::unsupported(format!("{what} is not supported")));
    if table.temporary {
        return refuse("CREATE TEMPORARY TABLE");
    }
    if table.query.is_some() {
        return refuse("CREATE TABLE AS")
            .map_err(|error: SqlError| error.with_hint("Create the table, then INSERT ... SELECT."));
    }
    if table.like.is_some() || table.clone.is_some() {
        return refuse("CREATE TABLE ... LIKE");
    }
    if table.inherits.is_some() || table.partition_of.is_some() || table.partition_by.is_some() {
        return refuse("declarative partitioning and inheritance")
            .map_err(|error: SqlError| error.with_hint("Use create_hypertable to partition by time."));
    }
    if table.external || table.or_replace || table.on_commit.is_some() {
        return refuse("this form of CREATE TABLE");
    }
    match &table.table_options {
        CreateTableOptions::None => Ok(()),
        CreateTableOptions::With(options) if options.is_empty() => Ok(()),
        _ => refuse("CREATE TABLE ... WITH"),
    }
}

fn constraint_name(constraint: &TableConstraint) -> &'static str {
    match constraint {
        TableConstraint::PrimaryKey(_) => "PRIMARY KEY",
        TableConstraint::Unique(_) => "UNIQUE",
        TableConstraint::ForeignKey(_) => "FOREIGN KEY",
        TableConstraint::Check(_) => "CHECK",
        _ => "this kind of",
    }
}

fn refuse_constraint(what: &str) -> SqlError {
    SqlError::unsupported(format!("{what} constraints are not supported yet"))
        .with_hint("Leave the constraint out: it would not be enforced. NOT NULL and DEFAULT are kept.")
}

fn column(definition: &ast::ColumnDef) -> Result<Column, SqlError> {
    let mut column = Column {
        id: ColumnId(0),
        name: identifier(&definition.name),
        sql_type: sql_type(&definition.data_type)?,
        not_null: false,
        default: None,
        modifier: modifier(&definition.data_type)?,
    };
    for option in &definition.options {
        match &option.option {
            ColumnOption::Null => {}
            ColumnOption::NotNull => column.not_null = true,
            ColumnOption::Default(expr) => {
                check_default(expr)?;
                column.default = Some(expr.to_string());
            }
            ColumnOption::PrimaryKey(_) => return Err(refuse_constraint("PRIMARY KEY")),
            ColumnOption::Unique(_) => return Err(refuse_constraint("UNIQUE")),
            ColumnOption::ForeignKey(_) => return Err(refuse_constraint("FOREIGN KEY")),
            ColumnOption::Check(_) => return Err(refuse_constraint("CHECK")),
            ColumnOption::Generated { .. } | ColumnOption::Identity(_) => {
                return Err(SqlError::unsupported("generated and identity columns are not supported"));
            }
            ColumnOption::Collation(name)
                if matches!(name.to_string().as_str(), "\"C\"" | "\"POSIX\"" | "\"default\"") => {}
            other => return Err(SqlError::unsupported(format!("column option {other} is not supported"))),
        }
    }
    Ok(column)
}

fn check_default(expr: &Expr) -> Result<(), SqlError> {
    match expr {
        Expr::Identifier(name) if !name.value.to_ascii_lowercase().starts_with("current_") => {
            Err(SqlError::new("0A000", "cannot use column reference in DEFAULT expression"))
        }
        Expr::Subquery(_) | Expr::Exists { .. } => {
            Err(SqlError::new("0A000", "cannot use subquery in DEFAULT expression"))
        }
        _ => Ok(()),
    }
}

/// An identifier, folded to small letters unless quoted.
pub(crate) fn identifier(name: &ast::Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// `name`, `schema.name` or `database.schema.name`.
pub(crate) fn object_name(name: &ast::ObjectName) -> Result<Name, SqlError> {
    let parts: Option<Vec<String>> = name.0.iter().map(|part| part.as_ident().map(identifier)).collect();
    match parts.as_deref() {
        Some([table]) => Ok(Name { schema: None, name: table.clone() }),
        Some([schema, table]) => Ok(Name { schema: Some(schema.clone()), name: table.clone() }),
        Some([_, schema, table]) => Ok(Name { schema: Some(schema.clone()), name: table.clone() }),
        _ => Err(SqlError::new("42601", format!("improper qualified name (too many dotted names): {name}"))),
    }
}
