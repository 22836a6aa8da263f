//! Aggregates over buckets of time where segments are sorted by what groups the rows: a group's rows of one series are one
//! range, found by looking at times only, and a range is added up by a loop over plain values. Nothing is hashed per row.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use arrow::array::{Array, ArrayRef};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DECIMAL256_MAX_PRECISION, DataType};
use meridian_proto::schema::Column;
use meridian_proto::time::bucket_start;

use super::groups::{GroupStates, Groups, SUM_OF_INTEGERS};
use super::known_pieces::KnownPieces;
use super::measured::{Measured, can_measure};
use super::ranges::RowRanges;
use super::row_group::{Loaded, RowGroupScan, flaw};
use super::runs::Runs;
use super::within::within;
use crate::disk::DiskFile;
use crate::error::EngineError;
use crate::pace::breathe_reading;
use crate::scan::{Bound, Buckets, Grid, Measure, Top, Value};

/// Whether a search may have so many bytes in all. Row groups for whose groups there is no memory are read row by row, and
/// their reader answers for its own memory.
pub type GroupMemory = Box<dyn Fn(usize) -> bool>;

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
    memory: GroupMemory,
}

/// What it took to answer for a row group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// That were read one by one: those of which pieces do not tell all that is asked.
    pub rows: usize,
    pub bytes_read: u64,
}

impl BucketSearch {
    #[must_use]
    pub fn new(buckets: Buckets, predicate: Option<SeriesPredicate>, memory: GroupMemory) -> Rc<Self> {
        let groups = RefCell::new(Groups::new(&buckets.measures, buckets.top.is_some()));
        Rc::new(Self { buckets, predicate, groups, memory })
    }

    /// Whether there is memory for the groups of a row group, all of whose keys and buckets may be new.
    fn has_room(&self, keys: &[ArrayRef], runs: usize, rows: usize, (low, high): (i64, i64)) -> bool {
        let buckets = self.buckets.grid.map_or(1, |grid| (high.abs_diff(low) / grid.width.unsigned_abs().max(1)) + 2);
        let groups = usize::try_from(buckets).unwrap_or(usize::MAX).saturating_mul(runs).min(rows);
        let key_bytes = keys.iter().map(|key| key.get_array_memory_size()).sum();
        (self.memory)(self.groups.borrow().bytes_with(runs, key_bytes, groups))
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

    /// Adds rows of series, which were read one behind the other.
    async fn add_rows(&self, ids: &[u32], rows: &[(usize, Range<usize>)], times: (i64, i64), read: &Measured) {
        let (mut from, mut added) = (0, 0);
        for (run, rows) in rows {
            let range = within_times(read.firsts(), from..from + rows.len(), times);
            from += rows.len();
            added += range.len();
            self.add_run(ids[*run], range, times, read);
            if added > 4096 {
                added = 0;
                breathe_reading().await;
            }
        }
    }

    /// Adds rows or pieces of one series, bucket by bucket. No piece lies in two buckets.
    fn add_run(&self, key: u32, range: Range<usize>, (low, high): (i64, i64), measured: &Measured) {
        let mut groups = self.groups.borrow_mut();
        let times = measured.firsts();
        let mut next = range.start;
        let mut guess = 1;
        while next < range.end {
            let time = times[next];
            if time < low || time > high {
                next += 1;
                continue;
            }
            let (start, bucket) = match self.buckets.grid {
                None => (0, (low, high)),
                Some(grid) => {
                    // `has_buckets` holds for every time of the row group.
                    let start = bucket_start(time, grid.width, grid.origin).unwrap_or(time);
                    (start, (low.max(start), high.min(start + (grid.width - 1))))
                }
            };
            let end = end_of(times, next, range.end, guess, bucket);
            guess = end - next;
            groups.add(key, start, next..end, measured);
            next = end;
        }
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

    /// Those of the given times within which a row group, which has rows between the least and the greatest, still matters.
    fn open_within(&self, times: (i64, i64), (least, greatest): (i64, i64)) -> Option<(i64, i64)> {
        let open = self.open_times();
        let (low, high) = (times.0.max(open.0).max(least), times.1.min(open.1).min(greatest));
        (low <= high).then_some((low, high))
    }

    /// Of times in which rows lie, those that hold all buckets wanted if none of them is empty; the others matter only if
    /// one is, which is known when the first were added.
    fn nearest(&self, (low, high): (i64, i64)) -> ((i64, i64), Option<(i64, i64)>) {
        let (Some(top), Some(grid)) = (self.buckets.top, self.buckets.grid) else { return ((low, high), None) };
        let width = i64::try_from(top.count).ok().and_then(|count| count.checked_mul(grid.width));
        let end = if top.newest { high } else { low };
        let Some((width, start)) = width.zip(bucket_start(end, grid.width, grid.origin)) else {
            return ((low, high), None);
        };
        if top.newest {
            let first = start.saturating_add(grid.width).saturating_sub(width).max(low);
            ((first, high), (first > low).then(|| (low, first - 1)))
        } else {
            let last = start.saturating_add(width - 1).min(high);
            ((low, last), (last < high).then(|| (last + 1, high)))
        }
    }
}

/// The type in which a measure's values are told; `None`: a count.
fn value_type(measure: Measure, buckets: &Buckets, columns: &[DataType]) -> Option<DataType> {
    let of = |column: usize| columns.get(column).cloned();
    match measure {
        Measure::Rows | Measure::Count(_) => None,
        Measure::Sum(column) => of(column).map(|of| match of {
            DataType::Decimal128(_, scale) => DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale),
            of if of.is_integer() => SUM_OF_INTEGERS,
            of if of.is_floating() => DataType::Float64,
            of => of,
        }),
        Measure::Min(column) | Measure::Max(column) => of(column),
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
    grid: Option<Grid>,
    /// With the columns that they look at.
    measures: Vec<(Measure, Option<&'a Column>)>,
}

/// Series of a row group.
struct Chosen<'a> {
    runs: &'a Runs,
    /// Those that count.
    chosen: &'a BooleanBuffer,
    /// The number of each one's key.
    ids: &'a [u32],
}

/// What a row group is added up from: pieces and rows of series, by the run that they belong to.
#[derive(Default)]
struct Parts {
    known: Option<Measured>,
    pieces: Vec<(usize, Range<usize>)>,
    rows: Vec<(usize, Range<usize>)>,
}

impl<F: DiskFile> RowGroupScan<'_, F> {
    /// Adds the row group to the search's groups; `None` when it must be read as rows.
    pub async fn buckets(&self, search: &BucketSearch) -> Result<Option<Decoded>, EngineError> {
        let Some(shape) = self.shape(search) else { return Ok(None) };
        let Some((least, greatest)) = self.reader.row_group(self.row_group).time else { return Ok(None) };
        if !has_buckets(search.buckets.grid, least, greatest) {
            return Ok(None);
        }
        let Some(times) = search.open_within(shape.times, (least, greatest)) else {
            return Ok(Some(Decoded::default()));
        };
        let mut loaded = Loaded::default();
        let runs = self.runs(&mut loaded).await?;
        let Some(chosen) = choose(&shape, search.predicate.as_ref(), &runs) else { return Ok(None) };
        let keys: Vec<ArrayRef> = shape.key.iter().map(|position| ArrayRef::clone(runs.keys(*position))).collect();
        if !search.has_room(&keys, runs.len(), self.row_count(), times) {
            return Ok(None);
        }
        let ids = search.groups.borrow_mut().keys(&keys, runs.len()).map_err(flaw)?;
        let series = Chosen { runs: &runs, chosen: &chosen, ids: &ids };
        let (first, rest) = search.nearest(times);
        let Some(mut rows) = self.add_times(search, &shape, &series, first, &mut loaded).await? else {
            return Ok(None);
        };
        if let Some(rest) = rest.and_then(|rest| search.open_within(rest, (least, greatest))) {
            // What was added is not to be added again as rows.
            let more = self.add_times(search, &shape, &series, rest, &mut loaded).await?;
            rows += more.ok_or_else(|| EngineError::Rows("a row of a series has no time".to_owned()))?;
        }
        Ok(Some(Decoded { rows, bytes_read: loaded.bytes_read }))
    }

    /// Adds what lies between two times, both included, and says how many rows were read for it. `None`: a row has no
    /// time, and nothing was added.
    async fn add_times(
        &self,
        search: &BucketSearch,
        shape: &Shape<'_>,
        series: &Chosen<'_>,
        times: (i64, i64),
        loaded: &mut Loaded,
    ) -> Result<Option<usize>, EngineError> {
        let parts = self.parts(shape, series, times).await?;
        let Some(rows) = self.measured_rows(shape, &parts.rows, loaded).await? else { return Ok(None) };
        if let Some(known) = &parts.known {
            for (run, pieces) in parts.pieces {
                search.add_run(series.ids[run], pieces, times, known);
            }
        }
        search.add_rows(series.ids, &parts.rows, times, &rows).await;
        Ok(Some(rows.len()))
    }

    /// Where the chosen series are answered for by pieces, and which of their rows must be read.
    async fn parts(&self, shape: &Shape<'_>, series: &Chosen<'_>, times: (i64, i64)) -> Result<Parts, EngineError> {
        let mut parts = Parts::default();
        let Chosen { runs, chosen, .. } = *series;
        let series = || chosen.set_indices().map(|run| (run, runs.range(run)));
        if chosen.count_set_bits() == 0 {
            return Ok(parts);
        }
        let Some(known) = self.known_pieces(shape).await? else {
            parts.rows.extend(series());
            return Ok(parts);
        };
        for (run, rows) in series() {
            known.split(
                rows,
                shape.grid,
                times,
                |pieces| parts.pieces.push((run, pieces)),
                |rows| {
                    parts.rows.push((run, rows));
                },
            );
        }
        parts.known = known.measured;
        Ok(parts)
    }

    /// The pieces of the row group, with what is known of the measures in them; `None` where there are none.
    async fn known_pieces(&self, shape: &Shape<'_>) -> Result<Option<KnownPieces>, EngineError> {
        if self.reader.time_column() != Some(shape.time.id) {
            return Ok(None);
        }
        let Some(pieces) = self.reader.pieces(self.row_group).await? else { return Ok(None) };
        let Some(times) = self.reader.piece_statistics(self.row_group, shape.time).await? else { return Ok(None) };
        let is_wide = shape.grid.is_none_or(|grid| grid.width >= pieces.width_us);
        let columns: Vec<Column> = shape.measures.iter().filter_map(|(_, column)| *column).cloned().collect();
        let columns = if is_wide { self.reader.piece_columns(self.row_group, &columns).await? } else { Vec::new() };
        let mut columns = columns.into_iter();
        let measured: Vec<_> = shape
            .measures
            .iter()
            .map(|(measure, column)| (*measure, column.and_then(|_| columns.next().flatten())))
            .collect();
        KnownPieces::new(pieces, &times, &measured)
    }

    /// The rows, which ascend, of the columns that are measured. `None`: a row has no time.
    async fn measured_rows(
        &self,
        shape: &Shape<'_>,
        rows: &[(usize, Range<usize>)],
        loaded: &mut Loaded,
    ) -> Result<Option<Measured>, EngineError> {
        let mut columns = vec![shape.time.clone()];
        for (_, column) in &shape.measures {
            if let Some(column) = column.filter(|column| columns.iter().all(|known| known.id != column.id)) {
                columns.push(column.clone());
            }
        }
        let ranges: RowRanges = rows.iter().map(|(_, rows)| rows.clone()).collect();
        let read = self.reader.read_columns(self.row_group, &columns, ranges.as_slice(), &breathe_reading).await?;
        loaded.bytes_read += read.bytes_read;
        let place = |column: &Column| columns.iter().position(|known| known.id == column.id);
        let arrays = shape.measures.iter().map(|(_, column)| read.arrays.get(place((*column)?)?));
        Measured::of_rows(&read.arrays[0], arrays)
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
        let measure = |measure: &Measure| match measure.column() {
            None => Some((*measure, None)),
            Some(at) => {
                let column = column(at)?;
                can_measure(*measure, &column.sql_type.arrow()).then_some((*measure, Some(column)))
            }
        };
        let measures = search.buckets.measures.iter().map(measure).collect::<Option<_>>()?;
        let (time, grid) = (column(search.buckets.time)?, search.buckets.grid);
        Some(Shape { key, judged, time, by_series, times, segment_by, grid, measures })
            .filter(|shape| shape.segment_by.iter().all(|known| known.id != time.id))
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
