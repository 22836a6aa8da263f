//! What the clients of a shard know of their rows, and whether what a scan returned agrees with it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use meridian_proto::schema::{Column, TableSchema};
use meridian_proto::{ChunkId, ColumnId, SchemaVersion, SqlType};

/// What is known of rows that were written together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// On the way: all of them or none.
    Flying,
    Acknowledged,
    /// Refused, aborted, or staged and not decided: never seen.
    Absent,
    /// Nobody was told: all of them or none.
    Unknown,
}

/// Rows with consecutive numbers that one transaction wrote into one chunk.
#[derive(Debug)]
pub struct Group {
    pub chunk: ChunkId,
    pub first: i64,
    pub count: i64,
    pub standing: Cell<Standing>,
}

#[derive(Default)]
pub struct Ledger {
    groups: RefCell<BTreeMap<i64, Rc<Group>>>,
    row_next: Cell<i64>,
}

/// What a scan returned: numbers of rows, ascending.
pub type Seen = Vec<i64>;

impl Ledger {
    /// Rows that nobody has heard of.
    pub fn begin(&self, chunk: ChunkId, count: i64, standing: Standing) -> Rc<Group> {
        let first = self.row_next.replace(self.row_next.get() + count);
        let group = Rc::new(Group { chunk, first, count, standing: Cell::new(standing) });
        self.groups.borrow_mut().insert(first, Rc::clone(&group));
        group
    }

    /// The standing of all groups of the chunk, as of now.
    pub fn standings(&self, chunk: ChunkId) -> Vec<(Rc<Group>, Standing)> {
        let groups = self.groups.borrow();
        let of_chunk = groups.values().filter(|group| group.chunk == chunk);
        of_chunk.map(|group| (Rc::clone(group), group.standing.get())).collect()
    }

    /// Compares what was seen with the standings before the scan began and now.
    pub fn check(&self, before: &[(Rc<Group>, Standing)], chunk: ChunkId, seen: &Seen) -> Result<(), String> {
        if let Some(pair) = seen.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("row {} was returned twice", pair[0]));
        }
        let mut explained = 0;
        let before: BTreeMap<i64, Standing> = before.iter().map(|(group, known)| (group.first, *known)).collect();
        for (group, now) in self.standings(chunk) {
            let start = seen.partition_point(|row| *row < group.first);
            let end = seen.partition_point(|row| *row < group.first + group.count);
            let found = (end - start) as i64;
            explained += found;
            if found != 0 && found != group.count {
                return Err(format!("{found} of the {} rows from {} were returned", group.count, group.first));
            }
            let known = before.get(&group.first).copied();
            if known == Some(Standing::Acknowledged) && found == 0 {
                return Err(format!("the {} rows from {} were acknowledged and are gone", group.count, group.first));
            }
            if known == Some(Standing::Absent) && now == Standing::Absent && found > 0 {
                return Err(format!("the {} rows from {} were refused and are there", group.count, group.first));
            }
        }
        if explained as usize != seen.len() {
            return Err(format!("{} rows that nobody wrote", seen.len() - explained as usize));
        }
        Ok(())
    }
}

pub fn schema() -> TableSchema {
    let column = |id, name: &str, sql_type| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        sql_type,
        not_null: id == 1,
        default: None,
        modifier: None,
    };
    let columns = vec![
        column(1, "time", SqlType::Timestamptz),
        column(2, "host", SqlType::Text),
        column(3, "row", SqlType::Int8),
        column(4, "note", SqlType::Text),
    ];
    TableSchema { version: SchemaVersion(1), columns }
}

/// SplitMix64's last step (Steele, Lea, Flood 2014).
fn mixed(row: i64) -> u64 {
    let z = (row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

/// Mostly ascending; one row in four is late.
fn time_of(row: i64) -> i64 {
    let late = if mixed(row).is_multiple_of(4) { (mixed(row) >> 8) % 500 } else { 0 };
    (row - late as i64) / 3 * 1000
}

fn host_of(row: i64) -> Option<String> {
    (!mixed(row).is_multiple_of(13)).then(|| format!("host_{}", mixed(row) % 7))
}

fn note_of(row: i64) -> Option<String> {
    (mixed(row) % 5 != 1).then(|| format!("{row}-{}", "x".repeat((mixed(row) >> 16) as usize % 40)))
}

/// The rows, as they are written.
pub fn rows(first: i64, count: i64) -> RecordBatch {
    let all = || first..first + count;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(all().map(time_of)).with_timezone("UTC")),
        Arc::new(all().map(host_of).collect::<StringArray>()),
        Arc::new(all().collect::<Int64Array>()),
        Arc::new(all().map(note_of).collect::<StringArray>()),
    ];
    RecordBatch::try_new(schema().arrow(), columns).expect("columns of the schema")
}

/// The numbers of the rows, if each is exactly what was written.
pub fn read(batch: &RecordBatch) -> Result<Seen, String> {
    let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
    let (hosts, notes) = (batch.column(1).as_string::<i32>(), batch.column(3).as_string::<i32>());
    let numbers = batch.column(2).as_primitive::<Int64Type>();
    let text = |column: &StringArray, at: usize| column.is_valid(at).then(|| column.value(at).to_owned());
    for at in 0..batch.num_rows() {
        let row = numbers.value(at);
        let is_right =
            times.value(at) == time_of(row) && text(hosts, at) == host_of(row) && text(notes, at) == note_of(row);
        if !is_right {
            return Err(format!("row {row} is not what was written"));
        }
    }
    Ok(numbers.values().to_vec())
}
