//! The views of `timescaledb_information` that need no jobs: columns in TimescaleDB's order (`sql/views.sql`).

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::catalog::TableProvider;
use datafusion::scalar::ScalarValue;
use futures::FutureExt;
use meridian_proto::catalog::{Chunk, Hypertable, Table};
use meridian_proto::compression::Compression;
use meridian_proto::time::US_PER_DAY;
use meridian_proto::{ColumnId, SqlType};

use super::catalog::StatementCatalog;
use super::chunk_rows::{data_nodes_of, node_name};
use super::relation::{INTERNAL, chunk_name};
use super::virtual_table::{Row, VirtualTable, count, text, texts};
use crate::error::SqlError;
use crate::sql::types::row_schema;

pub(super) const TIMESCALEDB_INFORMATION: &str = "timescaledb_information";

/// Owner of all there is, until there are roles.
const OWNER: &str = "meridian";

type Columns = &'static [(&'static str, SqlType)];
type Rows = fn(&StatementCatalog) -> Vec<Row>;

const NULL_TEXT: ScalarValue = ScalarValue::Utf8(None);

pub(super) fn information_table(catalog: &StatementCatalog, name: &str) -> Option<Arc<dyn TableProvider>> {
    let (columns, rows): (Vec<(&str, SqlType)>, Rows) = match name {
        "hypertables" => (with_lists(HYPERTABLES, &["data_nodes", "tablespaces"]), hypertables),
        "dimensions" => (DIMENSIONS.to_vec(), dimensions),
        "compression_settings" => (COMPRESSION_SETTINGS.to_vec(), compression_settings),
        "data_nodes" => (with_lists(DATA_NODES, &["options"]), data_nodes),
        "chunks" => return Some(chunks(catalog)),
        _ => return None,
    };
    let catalog = catalog.clone();
    Some(VirtualTable::provider(row_schema(&columns), move |_| {
        let rows = rows(&catalog);
        async move { Ok(rows) }.boxed()
    }))
}

/// The columns, and lists of names behind them.
fn with_lists(columns: Columns, lists: &[&'static str]) -> Vec<(&'static str, SqlType)> {
    let mut columns = columns.to_vec();
    columns.extend(lists.iter().map(|name| (*name, SqlType::Array(Box::new(SqlType::Text)))));
    columns
}

/// Every hypertable with its dimensions.
fn of_hypertables(catalog: &StatementCatalog) -> Vec<Arc<Table>> {
    catalog.tables().into_iter().filter(|table| table.hypertable().is_some()).collect()
}

fn small(number: usize) -> ScalarValue {
    ScalarValue::Int16(Some(i16::try_from(number).unwrap_or(i16::MAX)))
}

fn column_name(table: &Table, column: ColumnId) -> ScalarValue {
    ScalarValue::Utf8(table.schema.column(column).map(|column| column.name.clone()))
}

fn column_type(table: &Table, column: ColumnId) -> Option<&SqlType> {
    table.schema.column(column).map(|column| &column.sql_type)
}

fn is_integer(sql_type: Option<&SqlType>) -> bool {
    matches!(sql_type, Some(SqlType::Int2 | SqlType::Int4 | SqlType::Int8))
}

const HYPERTABLES: Columns = &[
    ("hypertable_schema", SqlType::Text),
    ("hypertable_name", SqlType::Text),
    ("owner", SqlType::Text),
    ("num_dimensions", SqlType::Int2),
    ("num_chunks", SqlType::Int8),
    ("compression_enabled", SqlType::Bool),
    ("is_distributed", SqlType::Bool),
    ("replication_factor", SqlType::Int2),
];

fn hypertables(catalog: &StatementCatalog) -> Vec<Row> {
    let row = |table: &Arc<Table>| {
        let hypertable = table.hypertable()?;
        Some(vec![
            text(&table.namespace),
            text(&table.name),
            text(OWNER),
            small(1 + hypertable.space.len()),
            count(catalog.chunks_of(table).len() as u64),
            ScalarValue::Boolean(Some(hypertable.compression.is_some())),
            ScalarValue::Boolean(Some(true)),
            small(table.replication_factor.into()),
            texts(data_nodes_of(catalog, table)),
            // There are no tablespaces.
            ScalarValue::new_null_list(DataType::Utf8, true, 1),
        ])
    };
    of_hypertables(catalog).iter().filter_map(row).collect()
}

const DIMENSIONS: Columns = &[
    ("hypertable_schema", SqlType::Text),
    ("hypertable_name", SqlType::Text),
    ("dimension_number", SqlType::Int8),
    ("column_name", SqlType::Text),
    ("column_type", SqlType::Text),
    ("dimension_type", SqlType::Text),
    ("time_interval", SqlType::Interval),
    ("integer_interval", SqlType::Int8),
    ("integer_now_func", SqlType::Text),
    ("num_partitions", SqlType::Int2),
];

fn dimensions(catalog: &StatementCatalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for table in of_hypertables(catalog) {
        let Some(hypertable) = table.hypertable() else { continue };
        let name = |number: u64, column: ColumnId| {
            let type_name = column_type(&table, column).map(ToString::to_string);
            vec![
                text(&table.namespace),
                text(&table.name),
                count(number),
                column_name(&table, column),
                ScalarValue::Utf8(type_name),
            ]
        };
        let mut time = name(1, hypertable.time_column);
        let (interval, integer) = if is_integer(column_type(&table, hypertable.time_column)) {
            (None, Some(hypertable.chunk_interval_us))
        } else {
            (Some(interval_of(hypertable.chunk_interval_us)), None)
        };
        time.extend([
            text("Time"),
            ScalarValue::IntervalMonthDayNano(interval),
            ScalarValue::Int64(integer),
            NULL_TEXT,
            ScalarValue::Int16(None),
        ]);
        rows.push(time);
        for (number, dimension) in (2..).zip(&hypertable.space) {
            let mut space = name(number, dimension.column);
            space.extend([
                text("Space"),
                ScalarValue::IntervalMonthDayNano(None),
                ScalarValue::Int64(None),
                NULL_TEXT,
                small(dimension.cells as usize),
            ]);
            rows.push(space);
        }
    }
    rows
}

/// Whole days as days, as TimescaleDB shows them.
fn interval_of(us: i64) -> IntervalMonthDayNano {
    let (days, rest) = (us / US_PER_DAY, us % US_PER_DAY);
    match i32::try_from(days) {
        Ok(days) => IntervalMonthDayNano::new(0, days, rest * 1000),
        Err(_) => IntervalMonthDayNano::new(0, i32::MAX, 0),
    }
}

const COMPRESSION_SETTINGS: Columns = &[
    ("hypertable_schema", SqlType::Text),
    ("hypertable_name", SqlType::Text),
    ("attname", SqlType::Text),
    ("segmentby_column_index", SqlType::Int2),
    ("orderby_column_index", SqlType::Int2),
    ("orderby_asc", SqlType::Bool),
    ("orderby_nullsfirst", SqlType::Bool),
];

fn compression_settings(catalog: &StatementCatalog) -> Vec<Row> {
    let settings = |table: &Arc<Table>| {
        let settings = table.hypertable().and_then(|hypertable| hypertable.compression.clone());
        settings.map(|settings| settings_rows(table, &settings))
    };
    of_hypertables(catalog).iter().filter_map(settings).flatten().collect()
}

fn settings_rows(table: &Table, settings: &Compression) -> Vec<Row> {
    let name = |column: ColumnId| vec![text(&table.namespace), text(&table.name), column_name(table, column)];
    let mut rows = Vec::new();
    for (index, column) in settings.segment_by.iter().enumerate() {
        let mut row = name(*column);
        let none = || ScalarValue::Boolean(None);
        row.extend([small(index + 1), ScalarValue::Int16(None), none(), none()]);
        rows.push(row);
    }
    for (index, by) in settings.order_by.iter().enumerate() {
        let mut row = name(by.column);
        let flag = |flag: bool| ScalarValue::Boolean(Some(flag));
        row.extend([ScalarValue::Int16(None), small(index + 1), flag(!by.descending), flag(by.nulls_first)]);
        rows.push(row);
    }
    rows
}

const DATA_NODES: Columns = &[("node_name", SqlType::Text), ("owner", SqlType::Text)];

fn data_nodes(catalog: &StatementCatalog) -> Vec<Row> {
    let row = |node: &Arc<meridian_proto::catalog::Node>| {
        let (host, port) = node.address.rsplit_once(':').unwrap_or((&node.address, ""));
        let is_available = node.state != meridian_proto::catalog::NodeState::Dead;
        let options = [
            format!("host={host}"),
            format!("port={port}"),
            format!("dbname={}", catalog.database),
            format!("available={is_available}"),
        ];
        vec![text(&node.name), text(OWNER), texts(options)]
    };
    catalog.view.data_nodes().map(row).collect()
}

const CHUNKS: Columns = &[
    ("hypertable_schema", SqlType::Text),
    ("hypertable_name", SqlType::Text),
    ("chunk_schema", SqlType::Text),
    ("chunk_name", SqlType::Text),
    ("primary_dimension", SqlType::Text),
    ("primary_dimension_type", SqlType::Text),
    ("range_start", SqlType::Timestamptz),
    ("range_end", SqlType::Timestamptz),
    ("range_start_integer", SqlType::Int8),
    ("range_end_integer", SqlType::Int8),
    ("is_compressed", SqlType::Bool),
    ("chunk_tablespace", SqlType::Text),
];

fn chunks(catalog: &StatementCatalog) -> Arc<dyn TableProvider> {
    let mut columns = with_lists(CHUNKS, &["data_nodes"]);
    columns.push(("chunk_creation_time", SqlType::Timestamptz));
    let is_compressed = CHUNKS.iter().position(|(name, _)| *name == "is_compressed");
    let catalog = catalog.clone();
    VirtualTable::provider(row_schema(&columns), move |looked_at| {
        // Data nodes are asked only for what they alone know: the rest is there while one of them is down.
        let asks = is_compressed.is_some_and(|column| looked_at.contains(&column));
        chunk_rows(catalog.clone(), asks).boxed()
    })
}

async fn chunk_rows(catalog: StatementCatalog, asks: bool) -> Result<Vec<Row>, SqlError> {
    let mut chunks = Vec::new();
    for table in of_hypertables(&catalog) {
        chunks.extend(catalog.chunks_of(&table).into_iter().map(|chunk| (Arc::clone(&table), chunk)));
    }
    let ids: Vec<_> = chunks.iter().map(|(_, chunk)| chunk.id).collect();
    let sizes = if asks && !ids.is_empty() { Some(catalog.upkeep.sizes(ids).await?) } else { None };
    let mut rows = Vec::with_capacity(chunks.len());
    for (table, chunk) in chunks {
        let Some(hypertable) = table.hypertable() else { continue };
        let is_compressed = match &sizes {
            None => None,
            Some(sizes) => match sizes.get(&chunk.id) {
                Some(sizes) => Some(sizes.is_compressed),
                // Dropped meanwhile.
                None => continue,
            },
        };
        rows.push(chunk_row(&catalog, &table, hypertable, &chunk, is_compressed));
    }
    Ok(rows)
}

fn chunk_row(
    catalog: &StatementCatalog,
    table: &Table,
    hypertable: &Hypertable,
    chunk: &Chunk,
    is_compressed: Option<bool>,
) -> Row {
    let time_type = column_type(table, hypertable.time_column);
    let (start, end) = (chunk.range.start.0, chunk.range.end.0);
    let is_integer = is_integer(time_type);
    let time = |us: i64| ScalarValue::TimestampMicrosecond((!is_integer).then_some(us), Some(Arc::from("UTC")));
    let integer = |value: i64| ScalarValue::Int64(is_integer.then_some(value));
    vec![
        text(&table.namespace),
        text(&table.name),
        text(INTERNAL),
        text(chunk_name(hypertable, chunk.id)),
        column_name(table, hypertable.time_column),
        ScalarValue::Utf8(time_type.map(ToString::to_string)),
        time(start),
        time(end),
        integer(start),
        integer(end),
        ScalarValue::Boolean(is_compressed),
        NULL_TEXT,
        texts(chunk.in_sync.iter().map(|node| node_name(catalog, *node))),
        // The catalog does not keep it.
        ScalarValue::TimestampMicrosecond(None, Some(Arc::from("UTC"))),
    ]
}
