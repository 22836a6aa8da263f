//! Splits a batch of a table's rows by the cell (slot x chunk interval) that each belongs to.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Date32Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use meridian_proto::catalog::{Cell, Table};
use meridian_proto::slot::{hash_array, slot_of};
use meridian_proto::time::US_PER_DAY;
use meridian_proto::{Refusal, Slot, TimeUs};

/// Rows of one cell, in their order within the batch.
#[derive(Debug)]
pub struct CellRows {
    pub cell: Cell,
    pub rows: RecordBatch,
}

/// The rows by cell, in order of first appearance.
///
/// # Errors
/// 23502 for a NULL time; `Protocol` when the batch is not of the table's schema.
pub fn split(table: &Table, batch: &RecordBatch) -> Result<Vec<CellRows>, Refusal> {
    let Some(hypertable) = table.hypertable() else {
        let cell = Cell { table: table.id, slot: Slot(0), start: TimeUs::NEG_INFINITY };
        return Ok(vec![CellRows { cell, rows: batch.clone() }]);
    };
    let time_position = position(table, hypertable.time_column)?;
    let times = times(batch.column(time_position).as_ref(), &table.schema.columns[time_position].name)?;
    let slots = slots(table, batch)?;
    let mut parts = Parts::default();
    for (row, time) in times.into_iter().enumerate() {
        let slot = slots.as_ref().map_or(Slot(0), |slots| slots[row]);
        parts.add(row as u32, slot, time, table);
    }
    parts.take(table, batch)
}

/// Row numbers by cell. The last cell of each slot is remembered, as rows mostly come in time order.
#[derive(Default)]
struct Parts {
    cells: Vec<(Slot, meridian_proto::TimeRange, Vec<u32>)>,
    by_start: HashMap<(Slot, TimeUs), usize>,
    last_of_slot: HashMap<Slot, usize>,
}

impl Parts {
    fn add(&mut self, row: u32, slot: Slot, time: TimeUs, table: &Table) {
        if let Some(&last) = self.last_of_slot.get(&slot)
            && self.cells[last].1.contains(time)
        {
            self.cells[last].2.push(row);
            return;
        }
        let range = table.chunk_range(time);
        let index = *self.by_start.entry((slot, range.start)).or_insert_with(|| {
            self.cells.push((slot, range, Vec::new()));
            self.cells.len() - 1
        });
        self.cells[index].2.push(row);
        self.last_of_slot.insert(slot, index);
    }

    fn take(self, table: &Table, batch: &RecordBatch) -> Result<Vec<CellRows>, Refusal> {
        let whole = self.cells.len() == 1;
        let part = |(slot, range, rows): (Slot, meridian_proto::TimeRange, Vec<u32>)| {
            let cell = Cell { table: table.id, slot, start: range.start };
            let rows = if whole { Ok(batch.clone()) } else { take_record_batch(batch, &UInt32Array::from(rows)) };
            rows.map(|rows| CellRows { cell, rows }).map_err(|error| Refusal::Protocol(error.to_string()))
        };
        self.cells.into_iter().map(part).collect()
    }
}

fn position(table: &Table, column: meridian_proto::ColumnId) -> Result<usize, Refusal> {
    table
        .schema
        .position_of(column)
        .ok_or_else(|| Refusal::Protocol(format!("table {} has no column {column}", table.name)))
}

fn slots(table: &Table, batch: &RecordBatch) -> Result<Option<Vec<Slot>>, Refusal> {
    let Some(hypertable) = table.hypertable().filter(|hypertable| !hypertable.space.is_empty()) else {
        return Ok(None);
    };
    let cells = table.space_cells();
    let mut hashes = Vec::with_capacity(cells.len());
    for dimension in &hypertable.space {
        let position = position(table, dimension.column)?;
        let column = hash_array(batch.column(position).as_ref(), &table.schema.columns[position].sql_type);
        hashes.push(column.ok_or_else(|| Refusal::Protocol("a space key of a type without hash".to_owned()))?);
    }
    let slot = |row: usize| slot_of(hashes.iter().map(|column| column[row]), &cells);
    Ok(Some((0..batch.num_rows()).map(slot).collect()))
}

/// Values of a time column as [`TimeUs`].
fn times(array: &dyn Array, name: &str) -> Result<Vec<TimeUs>, Refusal> {
    if array.null_count() > 0 {
        let message = format!("null value in column \"{name}\" violates not-null constraint");
        return Err(Refusal::Statement { sqlstate: "23502".to_owned(), message });
    }
    let times = match array.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            array.as_primitive::<TimestampMicrosecondType>().values().iter().map(|v| TimeUs(*v)).collect()
        }
        DataType::Int64 => array.as_primitive::<Int64Type>().values().iter().map(|v| TimeUs(*v)).collect(),
        DataType::Int32 => array.as_primitive::<Int32Type>().values().iter().map(|v| TimeUs((*v).into())).collect(),
        DataType::Int16 => array.as_primitive::<Int16Type>().values().iter().map(|v| TimeUs((*v).into())).collect(),
        DataType::Date32 => array.as_primitive::<Date32Type>().values().iter().map(|v| date_time(*v)).collect(),
        other => return Err(Refusal::Protocol(format!("a time column of type {other}"))),
    };
    Ok(times)
}

/// A date's midnight; its infinities are time's.
#[must_use]
pub fn date_time(days: i32) -> TimeUs {
    match days {
        i32::MIN => TimeUs::NEG_INFINITY,
        i32::MAX => TimeUs::INFINITY,
        days => TimeUs(i64::from(days) * US_PER_DAY),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use meridian_proto::catalog::{Hypertable, SpaceDimension, TableKind};
    use meridian_proto::schema::{Column, TableSchema};
    use meridian_proto::{CatalogVersion, ColumnId, GroupId, SchemaVersion, SqlType, TableId};

    use super::*;

    fn table(space: Vec<SpaceDimension>) -> Table {
        let column = |id: u16, name: &str, sql_type| Column {
            id: ColumnId(id),
            name: name.to_owned(),
            sql_type,
            not_null: false,
            default: None,
            modifier: None,
        };
        Table {
            id: TableId(20_000),
            namespace: "public".to_owned(),
            name: "t".to_owned(),
            schema: TableSchema {
                version: SchemaVersion(1),
                columns: vec![column(1, "time", SqlType::Int8), column(2, "host", SqlType::Text)],
            },
            kind: TableKind::Hypertable(Hypertable {
                id: 1,
                time_column: ColumnId(1),
                chunk_interval_us: 10,
                space,
                compression: None,
            }),
            group: GroupId(1),
            replication_factor: 1,
            created: CatalogVersion(1),
        }
    }

    fn batch(times: Vec<Option<i64>>, hosts: Vec<&str>, table: &Table) -> RecordBatch {
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(Int64Array::from(times)), Arc::new(StringArray::from(hosts))];
        RecordBatch::try_new(table.schema.arrow(), columns).unwrap()
    }

    #[test]
    fn rows_go_to_the_interval_that_holds_their_time() {
        let table = table(vec![]);
        let parts = split(&table, &batch(vec![Some(1), Some(11), Some(-1), Some(9)], vec!["a"; 4], &table)).unwrap();
        let found: Vec<_> = parts.iter().map(|part| (part.cell.start.0, part.rows.num_rows())).collect();
        assert_eq!(found, [(0, 2), (10, 1), (-10, 1)]);
    }

    #[test]
    fn rows_of_one_space_key_go_to_one_slot() {
        let table = table(vec![SpaceDimension { column: ColumnId(2), cells: 16 }]);
        let hosts: Vec<String> = (0..64).map(|host| format!("host_{}", host % 8)).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let parts = split(&table, &batch(vec![Some(1); 64], hosts, &table)).unwrap();
        let rows: usize = parts.iter().map(|part| part.rows.num_rows()).sum();
        assert_eq!(rows, 64);
        assert!(parts.iter().all(|part| part.rows.num_rows() % 8 == 0 && part.cell.slot.0 < 16));
    }

    #[test]
    fn a_null_time_is_refused() {
        let table = table(vec![]);
        let refusal = split(&table, &batch(vec![None], vec!["a"], &table)).unwrap_err();
        assert_eq!(refusal.sqlstate(), "23502");
    }
}
