//! Aggregates over buckets of time where segments are sorted by what groups the rows: a group's rows of one series are one
//! range, found by looking at times only, and a range is added up by a loop over plain values. Nothing is hashed per row.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use meridian_proto::schema::Column;
use meridian_proto::time::bucket_start;

use super::groups::{GroupStates, Groups};
use super::row_group::{Loaded, RowGroupScan, flaw};
use super::runs::{Runs, integers};
use super::within::within;
use crate::disk::DiskFile;
use crate::error::EngineError;
use crate::pace::breathe;
use crate::scan::{Bound, Buckets, Grid, Measure, Top, Value};

/// Groups that one search holds. 1 Mi of 10 measures with 9 bytes each are 90 MiB; row groups whose turn comes after that are
/// read row by row, and their reader answers for its own memory.
const GROUPS_MAX: usize = 1 << 20;

/// Tells which series count, by columns that are constant within each.
pub struct SeriesPredicate {
    /// Positions in the table's schema.
    pub columns: Vec<usize>,
    pub test: SeriesTest,
}

/// One answer per row of the columns, `None` when they cannot be judged.
pub type SeriesTest = Box<dyn Fn(&[ArrayRef]) -> Option<BooleanBuffer>>;

/// One aggregation, over one or several chunks.
pub struct BucketSearch {
    pub buckets: Buckets,
    predicate: Option<SeriesPredicate>,
    groups: RefCell<Groups>,
    /// Row groups that were answered for.
    answered: Cell<u64>,
}

impl BucketSearch {
    #[must_use]
    pub fn new(buckets: Buckets, predicate: Option<SeriesPredicate>) -> Rc<Self> {
        let groups = RefCell::new(Groups::new(&buckets.measures));
        Rc::new(Self { buckets, predicate, groups, answered: Cell::new(0) })
    }

    /// The groups of all rows that were not returned. `columns`: types of the table's columns.
    ///
    /// # Errors
    /// When a value does not fit its column, which it came from.
    pub fn take_states(&self, columns: &[DataType]) -> Result<Option<GroupStates>, EngineError> {
        let mut groups = self.groups.borrow_mut();
        let cut = self.buckets.top.and_then(|top| groups.cut(top).map(|cut| (cut, top)));
        let types: Vec<Option<DataType>> =
            self.buckets.measures.iter().map(|m| value_type(*m, &self.buckets, columns)).collect();
        groups.take(cut, &types).map_err(flaw)
    }

    /// How many row groups it answered for.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.get()
    }

    /// Times between which rows still matter, both included.
    fn open_times(&self) -> (i64, i64) {
        let Some(top) = self.buckets.top else { return (i64::MIN, i64::MAX) };
        let Some(cut) = self.groups.borrow().cut(top) else { return (i64::MIN, i64::MAX) };
        if top.newest {
            return (cut, i64::MAX);
        }
        let width = self.buckets.grid.map_or(i64::MAX, |grid| grid.width);
        (i64::MIN, cut.saturating_add(width - 1))
    }
}

/// The type in which a measure's values are told; `None`: a count.
fn value_type(measure: Measure, buckets: &Buckets, columns: &[DataType]) -> Option<DataType> {
    let of = |column: usize| columns.get(column).cloned();
    match measure {
        Measure::Rows | Measure::Count(_) => None,
        Measure::Sum(column) | Measure::Min(column) | Measure::Max(column) => of(column),
        Measure::First(column) | Measure::Last(column) => of(column),
        Measure::FirstTime | Measure::LastTime => of(buckets.time),
    }
}

impl Measure {
    #[must_use]
    pub fn column(self) -> Option<usize> {
        match self {
            Self::Rows | Self::FirstTime | Self::LastTime => None,
            Self::Count(column) | Self::Sum(column) | Self::Min(column) => Some(column),
            Self::Max(column) | Self::First(column) | Self::Last(column) => Some(column),
        }
    }
}

impl Top {
    /// Whether groups from `start` on belong to the end that is wanted, when `cut` is the last bucket that does.
    pub(super) fn holds(self, cut: i64, start: i64) -> bool {
        if self.newest { start >= cut } else { start <= cut }
    }
}

/// A column's values as numbers.
pub(super) enum Values {
    Int(ArrayRef),
    Float(ArrayRef),
    /// Only whether they are NULL is asked.
    Other(ArrayRef),
}

impl Values {
    fn of(array: &ArrayRef) -> Result<Self, EngineError> {
        Ok(match array.data_type() {
            DataType::Float64 => Self::Float(ArrayRef::clone(array)),
            DataType::Float32 => Self::Float(cast(array, &DataType::Float64).map_err(flaw)?),
            DataType::Int64 => Self::Int(ArrayRef::clone(array)),
            DataType::Int16 | DataType::Int32 | DataType::Timestamp(..) | DataType::Time64(_) => {
                Self::Int(cast(array, &DataType::Int64).map_err(flaw)?)
            }
            DataType::Date32 => {
                let days = cast(array, &DataType::Int32).map_err(flaw)?;
                Self::Int(cast(&days, &DataType::Int64).map_err(flaw)?)
            }
            _ => Self::Other(ArrayRef::clone(array)),
        })
    }

    pub(super) fn nulls(&self) -> Option<&NullBuffer> {
        let (Self::Int(array) | Self::Float(array) | Self::Other(array)) = self;
        array.nulls().filter(|nulls| nulls.null_count() > 0)
    }

    pub(super) fn ints(&self) -> &[i64] {
        if let Self::Int(array) = self { array.as_primitive::<Int64Type>().values() } else { &[] }
    }

    pub(super) fn floats(&self) -> &[f64] {
        if let Self::Float(array) = self { array.as_primitive::<Float64Type>().values() } else { &[] }
    }
}

/// What a row group is aggregated by.
struct Shape<'a> {
    segment_by: Vec<&'a Column>,
    /// Positions of the key's columns among them.
    key: Vec<usize>,
    /// Of the predicate's columns.
    judged: Vec<usize>,
    time: &'a Column,
    by_series: Vec<(usize, &'a Column, &'a Bound)>,
    /// Both ends included.
    times: (i64, i64),
}

impl<F: DiskFile> RowGroupScan<'_, F> {
    /// Adds the row group to the search's groups; the bytes read, or `None` when it must be read row by row.
    pub async fn buckets(&self, search: &BucketSearch) -> Result<Option<u64>, EngineError> {
        let Some(shape) = self.shape(search) else { return Ok(None) };
        let Some((least, greatest)) = self.reader.row_group(self.row_group).time else { return Ok(None) };
        if !has_buckets(search.buckets.grid, least, greatest) || search.groups.borrow().len() > GROUPS_MAX {
            return Ok(None);
        }
        let open = search.open_times();
        let times = (shape.times.0.max(open.0), shape.times.1.min(open.1));
        if times.1 < least || times.0 > greatest {
            return Ok(Some(0));
        }
        let mut loaded = Loaded::default();
        let runs = self.runs(&mut loaded).await?;
        let Some(chosen) = choose(&shape, search.predicate.as_ref(), &runs) else { return Ok(None) };
        if chosen.count_set_bits() == 0 {
            search.answered.set(search.answered.get() + 1);
            return Ok(Some(loaded.bytes_read));
        }
        self.load(std::slice::from_ref(shape.time), &mut loaded).await?;
        let Some(all_times) = loaded.get(shape.time.id).and_then(integers) else { return Ok(None) };
        let all_times = all_times.as_primitive::<Int64Type>().values();
        let ranges: Vec<(usize, Range<usize>)> =
            chosen.set_indices().map(|run| (run, within_times(all_times, runs.range(run), times))).collect();
        let Some(values) = self.measured(search, &mut loaded).await? else { return Ok(None) };
        let keys: Vec<ArrayRef> = shape.key.iter().map(|position| ArrayRef::clone(runs.keys(*position))).collect();
        let ids = search.groups.borrow_mut().keys(&keys, runs.len()).map_err(flaw)?;
        let mut rows = 0;
        for (run, range) in ranges {
            rows += range.len();
            add_run(search, ids[run], all_times, range, times, &values);
            if rows > 4096 {
                rows = 0;
                breathe().await;
            }
        }
        search.answered.set(search.answered.get() + 1);
        Ok(Some(loaded.bytes_read))
    }

    /// `None`: other rows than those of whole series and times are wanted, or what groups them is not what sorts them.
    fn shape(&self, search: &BucketSearch) -> Option<Shape<'_>> {
        // R30.
        if !self.is_all_seen() {
            return None;
        }
        let column = |position: usize| self.schema.columns.get(position);
        let segment_by = self.segment_by()?;
        let place = |position: &usize| {
            let id = column(*position)?.id;
            segment_by.iter().position(|column| column.id == id)
        };
        let key = search.buckets.key.iter().map(place).collect::<Option<_>>()?;
        let judged =
            search.predicate.iter().flat_map(|predicate| &predicate.columns).map(place).collect::<Option<_>>()?;
        let (mut by_series, mut times) = (Vec::new(), (i64::MIN, i64::MAX));
        for bound in self.open_bounds() {
            if bound.column == search.buckets.time {
                let end = |end: &Option<Value>, open| match end {
                    None => Some(open),
                    Some(Value::Int(time)) => Some(*time),
                    Some(_) => None,
                };
                times = (times.0.max(end(&bound.min, i64::MIN)?), times.1.min(end(&bound.max, i64::MAX)?));
            } else {
                by_series.push((place(&bound.column)?, column(bound.column)?, bound));
            }
        }
        Some(Shape { key, judged, time: column(search.buckets.time)?, by_series, times, segment_by })
            .filter(|shape| shape.segment_by.iter().all(|known| known.id != shape.time.id))
    }

    /// The columns of the measures, one entry per measure. `None`: one of them has no such measure.
    async fn measured(
        &self,
        search: &BucketSearch,
        loaded: &mut Loaded,
    ) -> Result<Option<Vec<Option<Values>>>, EngineError> {
        let column = |measure: &Measure| measure.column().and_then(|column| self.schema.columns.get(column));
        let columns: Vec<Column> = search.buckets.measures.iter().filter_map(column).cloned().collect();
        self.load(&columns, loaded).await?;
        let mut all = Vec::with_capacity(search.buckets.measures.len());
        for measure in &search.buckets.measures {
            let array = column(measure).and_then(|column| loaded.get(column.id));
            let values = array.map(Values::of).transpose()?;
            if !can_measure(*measure, values.as_ref()) {
                return Ok(None);
            }
            all.push(values);
        }
        Ok(Some(all))
    }
}

fn can_measure(measure: Measure, values: Option<&Values>) -> bool {
    match (measure, values) {
        (Measure::Rows | Measure::FirstTime | Measure::LastTime, _) | (Measure::Count(_), Some(_)) => true,
        (_, None | Some(Values::Other(_))) | (Measure::Sum(_), Some(Values::Int(_))) => false,
        (_, Some(_)) => true,
    }
}

/// Whether the grid has a bucket for all times from the least to the greatest. Infinite ones are buckets of their own.
fn has_buckets(grid: Option<Grid>, least: i64, greatest: i64) -> bool {
    let Some(grid) = grid else { return true };
    let start = |time| bucket_start(time, grid.width, grid.origin);
    let is_finite = least != i64::MIN && greatest != i64::MAX;
    is_finite && start(least).is_some() && start(greatest).is_some_and(|start| start.checked_add(grid.width).is_some())
}

/// The runs that count; `None`: they cannot all be judged.
fn choose(shape: &Shape<'_>, predicate: Option<&SeriesPredicate>, runs: &Runs) -> Option<BooleanBuffer> {
    let mut chosen = BooleanBuffer::new_set(runs.len());
    for (position, column, bound) in &shape.by_series {
        let found = within(runs.keys(*position), &column.sql_type, bound);
        if !found.is_exact {
            return None;
        }
        chosen = &chosen & &found.rows;
    }
    if let Some(predicate) = predicate {
        let columns: Vec<ArrayRef> =
            shape.judged.iter().map(|position| ArrayRef::clone(runs.keys(*position))).collect();
        chosen = &chosen & &(predicate.test)(&columns).filter(|judged| judged.len() == runs.len())?;
    }
    Some(chosen)
}

/// The rows of a range that may lie between two times; exactly those when its times ascend.
fn within_times(times: &[i64], range: Range<usize>, (low, high): (i64, i64)) -> Range<usize> {
    let within = &times[range.clone()];
    if (low == i64::MIN && high == i64::MAX) || !within.is_sorted() {
        return range;
    }
    let start = range.start + within.partition_point(|time| *time < low);
    let end = range.start + within.partition_point(|time| *time <= high);
    start..end.max(start)
}

/// Adds the rows of one series, bucket by bucket.
fn add_run(
    search: &BucketSearch,
    key: u32,
    times: &[i64],
    range: Range<usize>,
    (low, high): (i64, i64),
    values: &[Option<Values>],
) {
    let mut groups = search.groups.borrow_mut();
    let mut next = range.start;
    let mut guess = 1;
    while next < range.end {
        let time = times[next];
        if time < low || time > high {
            next += 1;
            continue;
        }
        let (start, bucket) = match search.buckets.grid {
            None => (0, (low, high)),
            Some(grid) => {
                // `has_buckets` holds for every time of the row group.
                let start = bucket_start(time, grid.width, grid.origin).unwrap_or(time);
                (start, (low.max(start), high.min(start + (grid.width - 1))))
            }
        };
        let end = end_of(times, next, range.end, guess, bucket);
        guess = end - next;
        groups.add(key, start, next..end, times, values);
        next = end;
    }
}

/// The end of the rows from `from` on that lie in one bucket. Times mostly ascend, and buckets have as many rows as the
/// one before.
fn end_of(times: &[i64], from: usize, end: usize, guess: usize, (first, last): (i64, i64)) -> usize {
    let within = &times[from..end];
    let is_in = |time: &i64| (first..=last).contains(time);
    if let Some(candidates) = within.get(..guess)
        && candidates.is_sorted()
        && candidates.last().is_some_and(is_in)
        && within.get(guess).is_none_or(|time| !is_in(time))
    {
        return from + guess;
    }
    from + within.iter().position(|time| !is_in(time)).unwrap_or(within.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_where_its_times_do_whatever_was_guessed() {
        let times = [1, 2, 3, 10, 11, 30, 5];
        for guess in 1..9 {
            assert_eq!(end_of(&times, 0, 7, guess, (0, 9)), 3, "{guess}");
            assert_eq!(end_of(&times, 3, 7, guess, (10, 19)), 5, "{guess}");
            assert_eq!(end_of(&times, 5, 7, guess, (30, 39)), 6, "{guess}");
            assert_eq!(end_of(&times, 6, 7, guess, (0, 9)), 7, "{guess}");
        }
    }

    #[test]
    fn ascending_times_are_cut_and_others_left_whole() {
        assert_eq!(within_times(&[1, 2, 2, 3, 9], 0..5, (2, 3)), 1..4);
        assert_eq!(within_times(&[1, 2, 2, 3, 9], 1..3, (4, 8)), 3..3);
        assert_eq!(within_times(&[3, 2, 1], 0..3, (2, 2)), 0..3);
    }

    #[test]
    fn a_grid_has_no_bucket_at_the_ends_of_time() {
        let grid = Some(Grid { width: 10, origin: 0 });
        assert!(has_buckets(grid, -5, 5));
        assert!(!has_buckets(grid, i64::MIN, 5));
        assert!(!has_buckets(grid, 0, i64::MAX - 1));
        assert!(has_buckets(None, i64::MIN, i64::MAX));
    }
}
