//! `information_schema.columns` with PostgreSQL's columns and words
//! (<https://www.postgresql.org/docs/15/infoschema-columns.html>); it tells of tables, not of views.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::scalar::ScalarValue;
use futures::FutureExt;
use meridian_proto::SqlType;
use meridian_proto::catalog::Table;
use meridian_proto::modifier::{DIGITS_MAX, Modifier};
use meridian_proto::schema::Column;

use super::catalog::StatementCatalog;
use super::virtual_table::{Row, VirtualTable, text};
use crate::sql::types::row_schema;

/// Bytes that a text can have, as PostgreSQL says it.
const TEXT_BYTES: i32 = 1 << 30;
/// Bytes of a character in UTF-8 at most.
const CHARACTER_BYTES: i32 = 4;

/// Names of the view's columns, and how each is made of a table's. What is not of this catalog is NULL.
const COLUMNS: [(&str, Kind); 44] = [
    ("table_catalog", Kind::Text(|of| Some(of.database.to_owned()))),
    ("table_schema", Kind::Text(|of| Some(of.table.namespace.clone()))),
    ("table_name", Kind::Text(|of| Some(of.table.name.clone()))),
    ("column_name", Kind::Text(|of| Some(of.column.name.clone()))),
    ("ordinal_position", Kind::Number(|of| Some(of.place))),
    ("column_default", Kind::Text(|of| of.column.default.clone())),
    ("is_nullable", Kind::Text(|of| yes_or_no(!of.column.not_null))),
    ("data_type", Kind::Text(|of| Some(data_type(&of.column.sql_type)))),
    ("character_maximum_length", Kind::Number(|of| length(&of.column.sql_type))),
    ("character_octet_length", Kind::Number(|of| octets(&of.column.sql_type))),
    ("numeric_precision", Kind::Number(|of| numeric(&of.column.sql_type).0)),
    ("numeric_precision_radix", Kind::Number(|of| numeric(&of.column.sql_type).1)),
    ("numeric_scale", Kind::Number(|of| numeric(&of.column.sql_type).2)),
    ("datetime_precision", Kind::Number(|of| digits(of.column))),
    ("interval_type", Kind::Text(|of| interval_type(of.column))),
    ("interval_precision", Kind::NO_NUMBER),
    ("character_set_catalog", Kind::NO_TEXT),
    ("character_set_schema", Kind::NO_TEXT),
    ("character_set_name", Kind::NO_TEXT),
    ("collation_catalog", Kind::NO_TEXT),
    ("collation_schema", Kind::NO_TEXT),
    ("collation_name", Kind::NO_TEXT),
    ("domain_catalog", Kind::NO_TEXT),
    ("domain_schema", Kind::NO_TEXT),
    ("domain_name", Kind::NO_TEXT),
    ("udt_catalog", Kind::Text(|of| Some(of.database.to_owned()))),
    ("udt_schema", Kind::Text(|_| Some("pg_catalog".to_owned()))),
    ("udt_name", Kind::Text(|of| Some(short_name(&of.column.sql_type)))),
    ("scope_catalog", Kind::NO_TEXT),
    ("scope_schema", Kind::NO_TEXT),
    ("scope_name", Kind::NO_TEXT),
    ("maximum_cardinality", Kind::NO_NUMBER),
    ("dtd_identifier", Kind::Text(|of| Some(of.place.to_string()))),
    ("is_self_referencing", Kind::Text(|_| yes_or_no(false))),
    ("is_identity", Kind::Text(|_| yes_or_no(false))),
    ("identity_generation", Kind::NO_TEXT),
    ("identity_start", Kind::NO_TEXT),
    ("identity_increment", Kind::NO_TEXT),
    ("identity_maximum", Kind::NO_TEXT),
    ("identity_minimum", Kind::NO_TEXT),
    ("identity_cycle", Kind::Text(|_| yes_or_no(false))),
    ("is_generated", Kind::Text(|_| Some("NEVER".to_owned()))),
    ("generation_expression", Kind::NO_TEXT),
    ("is_updatable", Kind::Text(|_| yes_or_no(true))),
];

/// A column of a table, counted from 1.
struct Of<'a> {
    database: &'a str,
    table: &'a Table,
    column: &'a Column,
    place: i32,
}

#[derive(Clone, Copy)]
enum Kind {
    Text(fn(&Of) -> Option<String>),
    Number(fn(&Of) -> Option<i32>),
}

impl Kind {
    const NO_TEXT: Self = Self::Text(|_| None);
    const NO_NUMBER: Self = Self::Number(|_| None);

    fn sql_type(self) -> SqlType {
        match self {
            Self::Text(_) => SqlType::Text,
            Self::Number(_) => SqlType::Int4,
        }
    }

    fn value(self, of: &Of) -> ScalarValue {
        match self {
            Self::Text(value) => value(of).map_or(ScalarValue::Utf8(None), text),
            Self::Number(value) => ScalarValue::Int32(value(of)),
        }
    }
}

pub(super) fn columns_view(catalog: &StatementCatalog) -> Arc<dyn TableProvider> {
    let schema = row_schema(&COLUMNS.map(|(name, kind)| (name, kind.sql_type())));
    let catalog = catalog.clone();
    VirtualTable::provider(schema, move |_| {
        let rows = catalog.tables().iter().flat_map(|table| rows_of(&catalog.database, table)).collect();
        async move { Ok(rows) }.boxed()
    })
}

fn rows_of(database: &str, table: &Table) -> Vec<Row> {
    let row = |(place, column): (i32, &Column)| {
        let of = Of { database, table, column, place };
        COLUMNS.iter().map(|(_, kind)| kind.value(&of)).collect()
    };
    (1..).zip(&table.schema.columns).map(row).collect()
}

fn yes_or_no(is: bool) -> Option<String> {
    Some((if is { "YES" } else { "NO" }).to_owned())
}

/// The type's name without modifiers.
fn data_type(sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::Array(_) => "ARRAY".to_owned(),
        SqlType::Numeric(_) => "numeric".to_owned(),
        SqlType::Varchar(_) => "character varying".to_owned(),
        SqlType::Char(_) => "character".to_owned(),
        other => other.to_string(),
    }
}

/// The type's name in pg_type.
fn short_name(sql_type: &SqlType) -> String {
    let name = match sql_type {
        SqlType::Array(element) => return format!("_{}", short_name(element)),
        SqlType::Bool => "bool",
        SqlType::Int2 => "int2",
        SqlType::Int4 => "int4",
        SqlType::Int8 => "int8",
        SqlType::Float4 => "float4",
        SqlType::Float8 => "float8",
        SqlType::Numeric(_) => "numeric",
        SqlType::Text => "text",
        SqlType::Varchar(_) => "varchar",
        SqlType::Char(_) => "bpchar",
        SqlType::Timestamptz => "timestamptz",
        SqlType::Timestamp => "timestamp",
        SqlType::Date => "date",
        SqlType::Time => "time",
        SqlType::Interval => "interval",
        SqlType::Uuid => "uuid",
        SqlType::Bytea => "bytea",
        SqlType::Jsonb => "jsonb",
    };
    name.to_owned()
}

fn length(sql_type: &SqlType) -> Option<i32> {
    match sql_type {
        SqlType::Varchar(Some(length)) | SqlType::Char(length) => i32::try_from(*length).ok(),
        _ => None,
    }
}

fn octets(sql_type: &SqlType) -> Option<i32> {
    match sql_type {
        SqlType::Text | SqlType::Varchar(None) => Some(TEXT_BYTES),
        sized => length(sized)?.checked_mul(CHARACTER_BYTES),
    }
}

/// Precision, its radix, scale.
fn numeric(sql_type: &SqlType) -> (Option<i32>, Option<i32>, Option<i32>) {
    match sql_type {
        SqlType::Int2 => (Some(16), Some(2), Some(0)),
        SqlType::Int4 => (Some(32), Some(2), Some(0)),
        SqlType::Int8 => (Some(64), Some(2), Some(0)),
        SqlType::Float4 => (Some(24), Some(2), None),
        SqlType::Float8 => (Some(53), Some(2), None),
        SqlType::Numeric(None) => (None, Some(10), None),
        SqlType::Numeric(Some((precision, scale))) => (Some((*precision).into()), Some(10), Some((*scale).into())),
        _ => (None, None, None),
    }
}

/// Digits of the second.
fn digits(column: &Column) -> Option<i32> {
    let all = i32::from(DIGITS_MAX);
    match (&column.sql_type, column.modifier) {
        (SqlType::Date, _) => Some(0),
        (_, Some(Modifier::Digits(digits) | Modifier::Interval { digits: Some(digits), .. })) => Some(digits.into()),
        (SqlType::Timestamp | SqlType::Timestamptz | SqlType::Time | SqlType::Interval, _) => Some(all),
        _ => None,
    }
}

/// The fields of an interval, as they are declared.
fn interval_type(column: &Column) -> Option<String> {
    let Some(Modifier::Interval { fields: Some(_), .. }) = column.modifier else { return None };
    Some(column.type_name().trim_start_matches("interval ").to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use meridian_proto::ColumnId;
    use meridian_proto::modifier::Fields;

    use super::*;

    fn column(sql_type: SqlType, modifier: Option<Modifier>) -> Column {
        Column { id: ColumnId(1), name: "c".to_owned(), sql_type, not_null: false, default: None, modifier }
    }

    #[test]
    fn types_are_told_in_postgresqls_words() {
        let list = SqlType::Array(Box::new(SqlType::Int4));
        assert_eq!((data_type(&list), short_name(&list)), ("ARRAY".to_owned(), "_int4".to_owned()));
        let varchar = SqlType::Varchar(Some(5));
        assert_eq!(
            (data_type(&varchar), length(&varchar), octets(&varchar)),
            ("character varying".into(), Some(5), Some(20))
        );
        assert_eq!(numeric(&SqlType::Numeric(Some((10, 2)))), (Some(10), Some(10), Some(2)));
        assert_eq!(digits(&column(SqlType::Timestamptz, None)), Some(6));
        assert_eq!(digits(&column(SqlType::Timestamp, Some(Modifier::Digits(3)))), Some(3));
        let modifier = Modifier::Interval { fields: Some(Fields::DayToSecond), digits: Some(2) };
        let interval = column(SqlType::Interval, Some(modifier));
        assert_eq!((digits(&interval), interval_type(&interval)), (Some(2), Some("DAY TO SECOND(2)".to_owned())));
    }
}
