//! Rows in the order of a segment: by series, then time, then arrival. Series get numbers by hashing, so that only the
//! distinct ones are compared as bytes; within a series rows mostly arrive in order of time already.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Date32Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use meridian_proto::schema::TableSchema;
use xxhash_rust::xxh3::xxh3_64;

use super::Commits;
use crate::pace::breathe;
use crate::scan::SortKey;

/// Rows worked on between two pauses.
const STEP_ROWS: usize = 4096;
/// Rows of a batch that is handed out.
pub const SORTED_BATCH_ROWS: usize = 8192;

/// Rows to be sorted: batches in order of arrival.
pub struct Unsorted {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// One per batch; empty for a staged run.
    pub commits: Vec<Commits>,
}

/// Rows in order, to be gathered batch by batch.
pub struct Sorted {
    rows: Unsorted,
    /// Number of the batch and row within it.
    order: Vec<(u32, u32)>,
    at: usize,
}

/// Finds the order. Takes about 100 ns a row.
pub async fn sorted(rows: Unsorted, schema: &TableSchema, sort: &SortKey) -> Result<Sorted, ArrowError> {
    let position = |id: &_| {
        let missing = || ArrowError::SchemaError(format!("sort column {id} is not in the table"));
        schema.position_of(*id).ok_or_else(missing)
    };
    let segment_by = sort.segment_by.iter().map(position).collect::<Result<Vec<_>, _>>()?;
    let time = sort.time.as_ref().map(position).transpose()?;
    let series = series_of(&rows, &segment_by).await?;
    let order = order_of(&rows, time, &series).await?;
    Ok(Sorted { rows, order, at: 0 })
}

impl Sorted {
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.order.len()
    }

    /// The next rows with their commit timestamps, if they have some.
    pub async fn next(&mut self) -> Option<Result<(RecordBatch, Option<Vec<u64>>), ArrowError>> {
        let end = self.order.len().min(self.at + SORTED_BATCH_ROWS);
        if self.at == end {
            return None;
        }
        let range = self.at..end;
        self.at = end;
        Some(self.gather(range).await)
    }

    async fn gather(&self, range: std::ops::Range<usize>) -> Result<(RecordBatch, Option<Vec<u64>>), ArrowError> {
        let order = &self.order[range];
        // Few batches take part at a time when rows arrive in order of series.
        let mut used: Vec<u32> = order.iter().map(|(batch, _)| *batch).collect();
        used.sort_unstable();
        used.dedup();
        let mut slot_of = vec![0; self.rows.batches.len()];
        used.iter().enumerate().for_each(|(slot, batch)| slot_of[*batch as usize] = slot);
        let indices: Vec<(usize, usize)> =
            order.iter().map(|(batch, row)| (slot_of[*batch as usize], *row as usize)).collect();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.rows.schema.fields().len());
        for column in 0..self.rows.schema.fields().len() {
            let arrays: Vec<&dyn Array> =
                used.iter().map(|batch| self.rows.batches[*batch as usize].column(column).as_ref()).collect();
            columns.push(interleave(&arrays, &indices)?);
            breathe().await;
        }
        let commits = (!self.rows.commits.is_empty()).then(|| {
            order.iter().map(|(batch, row)| self.rows.commits[*batch as usize].get(*row as usize).0).collect()
        });
        Ok((RecordBatch::try_new(self.rows.schema.clone(), columns)?, commits))
    }
}

/// The series of each row, in order of arrival.
struct Series {
    /// Empty when all rows are one series.
    of_row: Vec<u32>,
    /// Place of each series in the order.
    ranks: Vec<u32>,
}

async fn series_of(rows: &Unsorted, segment_by: &[usize]) -> Result<Series, ArrowError> {
    if segment_by.is_empty() {
        return Ok(Series { of_row: Vec::new(), ranks: vec![0] });
    }
    let field = |position: &usize| SortField::new(rows.schema.field(*position).data_type().clone());
    let converter = RowConverter::new(segment_by.iter().map(field).collect())?;
    let mut numbers = SeriesNumbers::default();
    let mut of_row = Vec::with_capacity(rows.batches.iter().map(RecordBatch::num_rows).sum());
    for batch in &rows.batches {
        for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
            let length = STEP_ROWS.min(batch.num_rows() - start);
            let keys: Vec<ArrayRef> =
                segment_by.iter().map(|position| batch.column(*position).slice(start, length)).collect();
            let keys = converter.convert_columns(&keys)?;
            of_row.extend(keys.iter().map(|key| numbers.number(key.as_ref())));
            breathe().await;
        }
    }
    Ok(Series { of_row, ranks: numbers.ranks() })
}

/// Numbers for byte strings, in order of appearance.
#[derive(Default)]
struct SeriesNumbers {
    /// Hash to the latest number with it.
    by_hash: HashMap<u64, u32, BuildHasherDefault<Unhashed>>,
    keys: Vec<Box<[u8]>>,
    /// An earlier number with the same hash.
    previous: Vec<Option<u32>>,
}

impl SeriesNumbers {
    fn number(&mut self, key: &[u8]) -> u32 {
        let hash = xxh3_64(key);
        let latest = self.by_hash.get(&hash).copied();
        let mut candidate = latest;
        while let Some(number) = candidate {
            if *self.keys[number as usize] == *key {
                return number;
            }
            candidate = self.previous[number as usize];
        }
        let number = u32::try_from(self.keys.len()).expect("fewer series than rows, fewer rows than 4 billion");
        self.keys.push(key.into());
        self.previous.push(latest);
        self.by_hash.insert(hash, number);
        number
    }

    fn ranks(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..self.keys.len() as u32).collect();
        numbers.sort_unstable_by_key(|number| &self.keys[*number as usize]);
        let mut ranks = vec![0; numbers.len()];
        numbers.iter().enumerate().for_each(|(rank, number)| ranks[*number as usize] = rank as u32);
        ranks
    }
}

/// Takes hashes as they are.
#[derive(Default)]
struct Unhashed(u64);

impl Hasher for Unhashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// One row while it is being put in order.
#[derive(Clone, Copy)]
struct Keyed {
    time: i64,
    batch: u32,
    row: u32,
}

async fn order_of(rows: &Unsorted, time: Option<usize>, series: &Series) -> Result<Vec<(u32, u32)>, ArrowError> {
    // Counting sort by rank keeps the order of arrival.
    let row_count = rows.batches.iter().map(RecordBatch::num_rows).sum();
    let mut starts = vec![0_usize; series.ranks.len() + 1];
    if series.of_row.is_empty() {
        starts[1] = row_count;
    }
    for number in &series.of_row {
        starts[series.ranks[*number as usize] as usize + 1] += 1;
    }
    (1..starts.len()).for_each(|rank| starts[rank] += starts[rank - 1]);
    breathe().await;

    let mut keyed = vec![Keyed { time: 0, batch: 0, row: 0 }; row_count];
    let mut next = starts.clone();
    let mut arrival = 0;
    for (number, batch) in rows.batches.iter().enumerate() {
        let times = time.map(|position| Times::of(batch.column(position))).transpose()?;
        for row in 0..batch.num_rows() {
            let rank = series.of_row.get(arrival).map_or(0, |number| series.ranks[*number as usize] as usize);
            let time = times.as_ref().map_or(0, |times| times.get(row));
            keyed[next[rank]] = Keyed { time, batch: number as u32, row: row as u32 };
            next[rank] += 1;
            arrival += 1;
            if arrival % STEP_ROWS == 0 {
                breathe().await;
            }
        }
    }
    let mut since_pause = 0;
    for range in starts.windows(2) {
        let rows = &mut keyed[range[0]..range[1]];
        if !rows.is_sorted_by_key(|row| row.time) {
            rows.sort_by_key(|row| row.time);
        }
        since_pause += rows.len();
        if since_pause >= STEP_ROWS {
            since_pause = 0;
            breathe().await;
        }
    }
    Ok(keyed.into_iter().map(|row| (row.batch, row.row)).collect())
}

/// A time column as numbers; NULL comes first.
enum Times<'a> {
    Native(&'a [i64], Option<&'a arrow::buffer::NullBuffer>),
    Widened(Vec<i64>),
}

impl<'a> Times<'a> {
    fn of(array: &'a ArrayRef) -> Result<Self, ArrowError> {
        macro_rules! widened {
            ($kind:ty) => {
                Self::Widened(
                    array.as_primitive::<$kind>().iter().map(|time| time.map_or(i64::MIN, i64::from)).collect(),
                )
            };
        }
        Ok(match array.data_type() {
            DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _) => {
                Self::Native(array.as_primitive::<TimestampMicrosecondType>().values(), array.nulls())
            }
            DataType::Int64 => Self::Native(array.as_primitive::<Int64Type>().values(), array.nulls()),
            DataType::Int32 => widened!(Int32Type),
            DataType::Int16 => widened!(Int16Type),
            DataType::Date32 => widened!(Date32Type),
            other => return Err(ArrowError::SchemaError(format!("{other} is no type of a time column"))),
        })
    }

    fn get(&self, row: usize) -> i64 {
        match self {
            Self::Native(values, nulls) if nulls.is_none_or(|nulls| nulls.is_valid(row)) => values[row],
            Self::Native(..) => i64::MIN,
            Self::Widened(values) => values[row],
        }
    }
}
