//! How the rows of a row group lie to an order that is asked for. Rows of one series lie together, sorted by time: a strip
//! in that order, or in the reverse one. Strips follow one another by their keys, so that a reader takes them one after
//! another, and of the one at hand no more than it wants.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, FixedSizeBinaryArray, Int32Array, Int64Array, StringArray, UInt32Array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Int64Type};
use meridian_proto::schema::Column;

use super::buckets::SeriesPredicate;
use super::ranges::RowRanges;
use super::row_group::{Found, Loaded, RowGroupScan, flaw};
use super::runs::{Runs, integers};
use super::within::within;
use crate::disk::DiskFile;
use crate::error::EngineError;
use crate::order::{KeyRows, Keys};
use crate::scan::{SortColumn, Value};
use crate::statistics::{Known, PieceStatistics};

/// An order that is asked for.
pub struct SortedBy {
    pub columns: Vec<SortColumn>,
    /// Over the batches that are read.
    pub keys: Keys,
}

/// How the rows of a strip lie to the order that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    Sorted,
    Reversed,
    Anyhow,
}

/// The strips of a row group that were not taken yet.
pub struct Strips {
    runs: Rc<Runs>,
    /// Outside of them nothing is wanted.
    within: Option<RowRanges>,
    /// Runs of the directory in the order asked for.
    order: Vec<u32>,
    /// By run: what keys of its rows are not below. Equal for runs of one strip.
    bounds: KeyRows,
    /// Place in `order` of the strip that comes next.
    next: usize,
    /// What is left of the strip that was begun.
    begun: Option<Range<usize>>,
    lie: Lie,
    /// Whether rows of one strip differ in the order.
    is_by_time: bool,
}

/// Rows to be read together.
pub struct Load {
    pub rows: RowRanges,
    pub lie: Lie,
    /// Whether the strips in it follow one another backwards in the file.
    pub is_backwards: bool,
    /// How many rows each of its strips has, in the order of the file.
    pub strip_rows: Vec<usize>,
}

impl<F: DiskFile> RowGroupScan<'_, F> {
    /// What no key of the row group is below, by its zone maps; empty where they say nothing.
    pub fn least_key(&self, wanted: &SortedBy) -> Result<Box<[u8]>, EngineError> {
        let statistics = self.reader.statistics(self.row_group);
        let mut ends = Vec::new();
        for by in &wanted.columns {
            let Some(column) = self.schema.columns.get(by.column) else { break };
            let known = statistics.column(column).filter(|known| known.nulls == 0 || !by.nulls_first);
            let Some(Known::Value(end)) = known.map(|known| if by.descending { known.max } else { known.min }) else {
                break;
            };
            let Some(end) = array_of(&end, column) else { break };
            ends.push(end);
        }
        if ends.is_empty() {
            return Ok(Box::default());
        }
        Ok(wanted.keys.beginnings(&ends).map_err(flaw)?.bytes(0).into())
    }

    /// The rows of a load that are seen and may lie within the bounds.
    pub async fn rows_of(&self, load: &Load, strips: &Strips, columns: &[Column]) -> Result<Found, EngineError> {
        // Without a directory of series in the file it has none of their columns either.
        let known = self.segment_by().is_some().then_some(&strips.runs);
        self.rows_among(load.rows.clone(), columns, &[], known).await
    }

    /// The strips of the series within the bounds. `None`: rows do not lie in strips of this order. `times`: whether the
    /// times of a series descend; `None` when they are not sorted.
    pub async fn strips(
        &self,
        wanted: &SortedBy,
        times: Option<bool>,
        predicates: &[SeriesPredicate],
    ) -> Result<Option<Strips>, EngineError> {
        let segment_by: Vec<&Column> = self.segment_by().unwrap_or_default();
        let Some((places, time)) = self.places(wanted, &segment_by) else { return Ok(None) };
        let runs = match self.segment_by() {
            Some(_) => self.runs(&mut Loaded::default()).await?,
            // Series cannot be told apart any more.
            None => Rc::new(Runs::of(&[], self.row_count()).map_err(flaw)?),
        };
        let left = self.series_left(&runs, predicates);
        let end = time.and_then(|by| self.time_end(by));
        let mut columns: Vec<ArrayRef> = places.iter().map(|place| ArrayRef::clone(runs.keys(*place))).collect();
        if let Some(end) = &end {
            columns.push(repeated(end, runs.len())?);
        }
        let bounds = wanted.keys.beginnings(&columns).map_err(flaw)?;
        let mut order: Vec<u32> = left.set_indices().map(|run| run as u32).collect();
        order.sort_by(|a, b| bounds.compare(*a as usize, &bounds, *b as usize));
        let lie = match (time, times) {
            (None, _) => Lie::Sorted,
            (Some(by), Some(descending)) if end.is_some() && self.segment_by().is_some() => {
                if by.descending == descending { Lie::Sorted } else { Lie::Reversed }
            }
            _ => Lie::Anyhow,
        };
        let within = self.rows_in_time().await?;
        Ok(Some(Strips { runs, within, order, bounds, next: 0, begun: None, lie, is_by_time: time.is_some() }))
    }

    /// Where the order's columns are among the segment-by columns, and how it ends with time.
    fn places<'b>(&self, wanted: &'b SortedBy, segment_by: &[&Column]) -> Option<(Vec<usize>, Option<&'b SortColumn>)> {
        let id = |by: &SortColumn| self.schema.columns.get(by.column).map(|column| column.id);
        let (last, before) = wanted.columns.split_last()?;
        let time = Some(last).filter(|by| id(by) == self.reader.time_column());
        let series = if time.is_some() { before } else { &wanted.columns };
        let place = |by: &SortColumn| segment_by.iter().position(|column| Some(column.id) == id(by));
        Some((series.iter().map(place).collect::<Option<_>>()?, time))
    }

    /// Series that neither a predicate nor a bound leaves out.
    fn series_left(&self, runs: &Runs, predicates: &[SeriesPredicate]) -> BooleanBuffer {
        let mut left = BooleanBuffer::new_set(runs.len());
        if self.segment_by().is_none() {
            return left;
        }
        for (predicate, positions) in self.judges(predicates) {
            let keys: Vec<ArrayRef> = positions.iter().map(|at| ArrayRef::clone(runs.keys(*at))).collect();
            if let Some(judged) = (predicate.test)(&keys).filter(|judged| judged.len() == runs.len()) {
                left = &left & &judged;
            }
        }
        let open = self.open_bounds();
        for (position, column, bound) in self.split_bounds(&open).0 {
            left = &left & &within(runs.keys(position), &column.sql_type, bound).rows;
        }
        left
    }

    /// The time that rows of the row group begin with in the order. `None`: some have none.
    fn time_end(&self, by: &SortColumn) -> Option<ArrayRef> {
        let column = self.schema.columns.get(by.column)?;
        let known = self.reader.statistics(self.row_group).column(column).filter(|known| known.nulls == 0)?;
        match if by.descending { known.max } else { known.min } {
            Known::Value(end) => array_of(&end, column),
            Known::Unknown | Known::Null => None,
        }
    }
}

impl Strips {
    /// What no key of the rows left is below; `None` when there are none. Rows of a strip that was begun may lie higher.
    #[must_use]
    pub fn bound(&self) -> Option<&[u8]> {
        let at = if self.begun.is_some() { self.next - 1 } else { self.next };
        self.order.get(at).map(|run| self.bounds.bytes(*run as usize))
    }

    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.begun.is_some()
    }

    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.order.len() * 4 + self.bounds.memory_bytes()
    }

    /// The next rows: about as many as wanted, where rows need not be sorted yet.
    pub fn take(&mut self, rows_wanted: usize) -> Option<Load> {
        if let Some(begun) = self.begun.take() {
            return Some(self.part_of(begun, rows_wanted));
        }
        loop {
            let strip = self.next_strip()?;
            let load = self.load_of(strip, rows_wanted);
            if !load.rows.is_empty() {
                return Some(load);
            }
        }
    }

    fn load_of(&mut self, strip: Range<usize>, rows_wanted: usize) -> Load {
        if strip.len() > 1 {
            return self.mixed(strip);
        }
        let rows = self.rows_of_run(self.order[strip.start]);
        if self.lie != Lie::Anyhow && rows.len() > rows_wanted {
            return self.part_of(rows, rows_wanted);
        }
        self.with_following(rows, rows_wanted)
    }

    fn rows_of_run(&self, run: u32) -> Range<usize> {
        let rows = self.runs.range(run as usize);
        self.within.as_ref().map_or(rows.clone(), |within| within.hull_within(rows))
    }

    /// Places in `order` of the next strip, which is taken.
    fn next_strip(&mut self) -> Option<Range<usize>> {
        let start = self.next;
        let first = *self.order.get(start)? as usize;
        let is_same = |run: &&u32| self.bounds.compare(first, &self.bounds, **run as usize).is_eq();
        self.next += self.order[start..].iter().take_while(is_same).count();
        Some(start..self.next)
    }

    /// Series that the order does not tell apart.
    fn mixed(&self, strip: Range<usize>) -> Load {
        let mut runs = self.order[strip].to_vec();
        runs.sort_unstable();
        let rows: RowRanges = runs.iter().map(|run| self.rows_of_run(*run)).collect();
        let lie = if self.is_by_time { Lie::Anyhow } else { Lie::Sorted };
        Load { strip_rows: vec![rows.count()], rows, lie, is_backwards: false }
    }

    /// The rows of a strip that come first, up to as many as wanted.
    fn part_of(&mut self, rows: Range<usize>, rows_wanted: usize) -> Load {
        let count = rows.len().min(rows_wanted.max(1));
        let (taken, left) = match self.lie {
            Lie::Reversed => (rows.end - count..rows.end, rows.start..rows.end - count),
            Lie::Sorted | Lie::Anyhow => (rows.start..rows.start + count, rows.start + count..rows.end),
        };
        self.begun = (!left.is_empty()).then_some(left);
        Load { rows: [taken].into_iter().collect(), lie: self.lie, is_backwards: false, strip_rows: vec![count] }
    }

    /// A whole strip, and those that follow as long as not too much is read and it can be read at once.
    fn with_following(&mut self, first: Range<usize>, rows_wanted: usize) -> Load {
        let (mut ranges, mut count) = (vec![first], 0);
        let mut is_backwards = None;
        while self.lie != Lie::Anyhow {
            count += ranges[ranges.len() - 1].len();
            let before = self.next;
            let Some(strip) = self.next_strip() else { break };
            let rows = self.rows_of_run(self.order[strip.start]);
            let goes_back = rows.start < ranges[ranges.len() - 1].start;
            let fits = strip.len() == 1 && count + rows.len() <= rows_wanted;
            if !fits || is_backwards.is_some_and(|known| known != goes_back) {
                self.next = before;
                break;
            }
            is_backwards = Some(goes_back);
            ranges.push(rows);
        }
        let is_backwards = is_backwards == Some(true);
        if is_backwards {
            ranges.reverse();
        }
        let strip_rows = ranges.iter().map(ExactSizeIterator::len).filter(|rows| *rows > 0).collect();
        Load { rows: ranges.into_iter().collect(), lie: self.lie, is_backwards, strip_rows }
    }
}

/// Whether times never go back, or never go forth when they are to descend.
#[must_use]
pub fn times_sorted(times: &ArrayRef, is_descending: bool) -> bool {
    let Some(times) = integers(times) else { return false };
    let Some(times) = times.as_primitive_opt::<Int64Type>() else { return false };
    let mut pairs = times.values().windows(2);
    pairs.all(|pair| if is_descending { pair[0] >= pair[1] } else { pair[0] <= pair[1] })
}

/// A value as a column of one row; `None` for types that have none here.
fn array_of(value: &Value, column: &Column) -> Option<ArrayRef> {
    let array: ArrayRef = match (value, column.sql_type.arrow()) {
        (Value::Int(value), DataType::Int64 | DataType::Timestamp(..) | DataType::Time64(_)) => {
            Arc::new(Int64Array::from(vec![*value]))
        }
        (Value::Int(value), DataType::Int16 | DataType::Int32 | DataType::Date32) => {
            Arc::new(Int32Array::from(vec![i32::try_from(*value).ok()?]))
        }
        (Value::Bytes(value), DataType::Utf8) => Arc::new(StringArray::from(vec![str::from_utf8(value).ok()?])),
        (Value::Bytes(value), DataType::Binary) => Arc::new(BinaryArray::from(vec![value.as_slice()])),
        (Value::Bytes(value), DataType::FixedSizeBinary(_)) => {
            Arc::new(FixedSizeBinaryArray::try_from(vec![value.as_slice()]).ok()?)
        }
        _ => return None,
    };
    cast(&array, &column.sql_type.arrow()).ok()
}

/// The one row of a column so many times.
fn repeated(array: &ArrayRef, count: usize) -> Result<ArrayRef, EngineError> {
    take(array, &UInt32Array::from(vec![0; count]), None).map_err(flaw)
}
