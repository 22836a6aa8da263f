//! The groups of an aggregation and what was added up for each: a table that ranges of rows are added to.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Decimal128Array, Decimal256Array, Float64Array, Int64Array, UInt32Array, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, filter, take};
use arrow::datatypes::{DataType, i256};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use super::measured::{Measured, Values};
use crate::scan::{Measure, Top};

/// What a key takes besides its bytes: its entry among the keys, and the table of its buckets.
const KEY_BYTES: usize = 200;
/// What a group takes besides its measures: key, start, and its entry among the buckets of its key.
const GROUP_BYTES: usize = 48;
/// A measure of a group: its value, whether there is one, the time of a first or last one.
const MEASURE_BYTES: usize = 49;

/// The type of sums of integers.
pub(super) const SUM_OF_INTEGERS: DataType = DataType::Decimal128(38, 0);

pub(super) struct Groups {
    measures: Vec<Measure>,
    converter: Option<RowConverter>,
    ids: HashMap<Box<[u8]>, u32>,
    /// Of all keys.
    key_bytes: usize,
    /// By key.
    places: Vec<Places>,
    /// By slot, which is a group: its key and the start of its bucket.
    keys: Vec<u32>,
    starts: Vec<i64>,
    states: Vec<State>,
    /// Distinct starts, where only some at one end are wanted.
    buckets: Option<BTreeSet<i64>>,
}

/// What was aggregated: one row per group.
pub struct GroupStates {
    /// One per key column.
    pub keys: Vec<ArrayRef>,
    /// Starts of buckets; zero without a grid.
    pub buckets: Int64Array,
    /// One per measure: counts as bigint, sums of integers as numerics without a fraction, of numerics as wide ones of their
    /// scale, others as their columns.
    pub measures: Vec<ArrayRef>,
}

/// The slots of one key.
#[derive(Default)]
struct Places {
    /// The bucket last asked for.
    last: Option<(i64, u32)>,
    slots: HashMap<i64, u32>,
}

/// What is known of one measure, by slot.
enum State {
    /// No value came yet that would tell the type.
    Unknown,
    Counts(Vec<i64>),
    Ints(Known<i64>),
    /// Sums of integers, and numerics.
    Decimals(Known<i128>),
    /// Sums of numerics, which pass what fits on the way to what does.
    Wide(Known<i256>),
    Floats(Known<f64>),
}

#[derive(Default)]
struct Known<T> {
    values: Vec<T>,
    /// NULL otherwise.
    valid: Vec<bool>,
    /// Of the row that a first or last value comes from.
    times: Vec<Option<i64>>,
}

impl Groups {
    /// `has_top`: whether [`Self::cut`] will be asked.
    pub fn new(measures: &[Measure], has_top: bool) -> Self {
        let state = |measure: &Measure| match measure {
            Measure::Rows | Measure::Count(_) => State::Counts(Vec::new()),
            Measure::FirstTime | Measure::LastTime => State::Ints(Known::default()),
            _ => State::Unknown,
        };
        Self {
            measures: measures.to_vec(),
            converter: None,
            ids: HashMap::new(),
            key_bytes: 0,
            places: Vec::new(),
            keys: Vec::new(),
            starts: Vec::new(),
            states: measures.iter().map(state).collect(),
            buckets: has_top.then(BTreeSet::new),
        }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Bytes that all groups take, about, when so many keys of so many bytes and so many groups come. Vectors may be twice
    /// as long as what is in them, and each group's key is written out at the end.
    pub fn bytes_with(&self, keys: usize, key_bytes: usize, groups: usize) -> usize {
        let (keys, groups) = (self.places.len() + keys, self.len() + groups);
        let key_bytes = self.key_bytes + key_bytes;
        let of_group = 2 * (GROUP_BYTES + MEASURE_BYTES * self.measures.len()) + key_bytes / keys.max(1);
        keys * KEY_BYTES + key_bytes + groups.saturating_mul(of_group)
    }

    /// The number of each of these keys.
    pub fn keys(&mut self, columns: &[ArrayRef], count: usize) -> Result<Vec<u32>, ArrowError> {
        if columns.is_empty() {
            if self.places.is_empty() {
                self.places.push(Places::default());
            }
            return Ok(vec![0; count]);
        }
        let converter = match &self.converter {
            Some(converter) => converter,
            None => {
                let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
                self.converter.insert(RowConverter::new(fields)?)
            }
        };
        let rows = converter.convert_columns(columns)?;
        let mut ids = Vec::with_capacity(count);
        for row in &rows {
            let bytes: &[u8] = row.as_ref();
            ids.push(match self.ids.get(bytes) {
                Some(id) => *id,
                None => {
                    let id = self.places.len() as u32;
                    self.ids.insert(bytes.into(), id);
                    self.key_bytes += bytes.len();
                    self.places.push(Places::default());
                    id
                }
            });
        }
        Ok(ids)
    }

    /// Adds rows or pieces that are all of one group.
    pub fn add(&mut self, key: u32, start: i64, rows: Range<usize>, measured: &Measured) {
        let slot = self.slot(key, start);
        for (at, (measure, state)) in self.measures.iter().zip(&mut self.states).enumerate() {
            add_to(*measure, state, slot, &rows, measured, at);
        }
    }

    fn slot(&mut self, key: u32, start: i64) -> usize {
        let places = &mut self.places[key as usize];
        if let Some((known, slot)) = places.last
            && known == start
        {
            return slot as usize;
        }
        let next = self.keys.len() as u32;
        let slot = *places.slots.entry(start).or_insert(next);
        places.last = Some((start, slot));
        if slot == next {
            self.keys.push(key);
            self.starts.push(start);
            if let Some(buckets) = &mut self.buckets {
                buckets.insert(start);
            }
        }
        slot as usize
    }

    /// The bucket that ends those wanted, when there are so many.
    pub fn cut(&self, top: Top) -> Option<i64> {
        let index = top.count.checked_sub(1)?;
        let mut buckets = self.buckets.as_ref()?.iter();
        if top.newest { buckets.nth_back(index).copied() } else { buckets.nth(index).copied() }
    }

    /// All groups, or those that `cut` leaves; nothing is left here.
    pub fn take(
        &mut self,
        cut: Option<(i64, Top)>,
        types: &[Option<DataType>],
    ) -> Result<Option<GroupStates>, ArrowError> {
        let mut groups = std::mem::replace(self, Self::new(&self.measures, self.buckets.is_some()));
        let count = groups.len();
        if count == 0 {
            return Ok(None);
        }
        let keys = groups.key_columns()?;
        let states = std::mem::take(&mut groups.states);
        let measures = states.into_iter().zip(types).map(|(state, data_type)| state.finish(count, data_type.as_ref()));
        let all = GroupStates {
            keys,
            buckets: Int64Array::from(std::mem::take(&mut groups.starts)),
            measures: measures.collect::<Result<_, _>>()?,
        };
        match cut {
            Some((cut, top)) => all.within(cut, top).map(Some),
            None => Ok(Some(all)),
        }
    }

    /// The key of each slot.
    fn key_columns(&self) -> Result<Vec<ArrayRef>, ArrowError> {
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let mut by_id: Vec<&[u8]> = vec![&[]; self.ids.len()];
        for (bytes, id) in &self.ids {
            by_id[*id as usize] = bytes;
        }
        let parser = converter.parser();
        let distinct = converter.convert_rows(by_id.into_iter().map(|bytes| parser.parse(bytes)))?;
        let keys = UInt32Array::from(self.keys.clone());
        distinct.iter().map(|column| take(column, &keys, None)).collect()
    }
}

impl GroupStates {
    fn within(self, cut: i64, top: Top) -> Result<Self, ArrowError> {
        let wanted = self.buckets.values().iter().map(|start| Some(top.holds(cut, *start))).collect();
        let chosen = |columns: Vec<ArrayRef>| -> Result<Vec<ArrayRef>, ArrowError> {
            columns.iter().map(|column| filter(column, &wanted)).collect()
        };
        let starts = self.buckets.values().iter().copied().filter(|start| top.holds(cut, *start));
        Ok(Self { buckets: starts.collect(), keys: chosen(self.keys)?, measures: chosen(self.measures)? })
    }
}

impl State {
    fn finish(self, count: usize, data_type: Option<&DataType>) -> Result<ArrayRef, ArrowError> {
        let array: ArrayRef = match self {
            Self::Unknown => new_null_array(data_type.unwrap_or(&DataType::Int64), count),
            Self::Counts(mut counts) => {
                counts.resize(count, 0);
                Arc::new(Int64Array::from(counts))
            }
            Self::Ints(mut known) => {
                known.grow(count);
                Arc::new(Int64Array::new(known.values.into(), Some(NullBuffer::from(known.valid))))
            }
            Self::Wide(mut known) => {
                known.grow(count);
                let sums = Decimal256Array::new(known.values.into(), Some(NullBuffer::from(known.valid)));
                let data_type = data_type.unwrap_or(sums.data_type()).clone();
                return Ok(Arc::new(sums.with_data_type(data_type)));
            }
            Self::Decimals(mut known) => {
                known.grow(count);
                let numbers = Decimal128Array::new(known.values.into(), Some(NullBuffer::from(known.valid)));
                // Its scale is that of the numbers.
                return Ok(Arc::new(numbers.with_data_type(data_type.unwrap_or(&SUM_OF_INTEGERS).clone())));
            }
            Self::Floats(mut known) => {
                known.grow(count);
                Arc::new(Float64Array::new(known.values.into(), Some(NullBuffer::from(known.valid))))
            }
        };
        match data_type {
            Some(DataType::Date32) => cast(&cast(&array, &DataType::Int32)?, &DataType::Date32),
            Some(data_type) => cast(&array, data_type),
            None => Ok(array),
        }
    }

    fn ints(&mut self) -> Option<&mut Known<i64>> {
        if matches!(self, Self::Unknown) {
            *self = Self::Ints(Known::default());
        }
        if let Self::Ints(known) = self { Some(known) } else { None }
    }

    fn decimals(&mut self) -> Option<&mut Known<i128>> {
        if matches!(self, Self::Unknown) {
            *self = Self::Decimals(Known::default());
        }
        if let Self::Decimals(known) = self { Some(known) } else { None }
    }

    fn wide(&mut self) -> Option<&mut Known<i256>> {
        if matches!(self, Self::Unknown) {
            *self = Self::Wide(Known::default());
        }
        if let Self::Wide(known) = self { Some(known) } else { None }
    }

    fn floats(&mut self) -> Option<&mut Known<f64>> {
        if matches!(self, Self::Unknown) {
            *self = Self::Floats(Known::default());
        }
        if let Self::Floats(known) = self { Some(known) } else { None }
    }
}

impl<T: Copy + Default> Known<T> {
    fn grow(&mut self, count: usize) {
        self.values.resize(count.max(self.values.len()), T::default());
        self.valid.resize(self.values.len(), false);
    }

    /// Puts a value in, or what `merge` makes of it and the one that is there.
    fn merge(&mut self, slot: usize, value: T, merge: impl FnOnce(T, T) -> T) {
        self.grow(slot + 1);
        self.values[slot] = if self.valid[slot] { merge(self.values[slot], value) } else { value };
        self.valid[slot] = true;
    }

    /// Puts the value of a row at `time` in when that is better than what is there.
    fn replace(&mut self, slot: usize, time: i64, value: Option<T>, is_better: impl FnOnce(i64, i64) -> bool) {
        self.grow(slot + 1);
        self.times.resize(self.values.len(), None);
        if self.times[slot].is_none_or(|known| is_better(time, known)) {
            self.times[slot] = Some(time);
            self.valid[slot] = value.is_some();
            self.values[slot] = value.unwrap_or_default();
        }
    }
}

/// `at`: the measure's place among them.
fn add_to(measure: Measure, state: &mut State, slot: usize, rows: &Range<usize>, measured: &Measured, at: usize) {
    let (firsts, lasts, values) = (measured.firsts(), measured.lasts(), measured.values(at));
    match (measure, values) {
        (Measure::Rows | Measure::Count(_), Some(Values::Counts(counts))) => {
            count(state, slot, counts.values()[rows.clone()].iter().sum());
        }
        (Measure::Rows, _) => count(state, slot, rows.len() as i64),
        (Measure::Count(_), Some(values)) => {
            count(state, slot, (rows.len() - nulls_within(values.nulls(), rows)) as i64);
        }
        (Measure::FirstTime, _) => extreme_int(state, slot, &firsts[rows.clone()], None, i64::min),
        (Measure::LastTime, _) => extreme_int(state, slot, &lasts[rows.clone()], None, i64::max),
        (Measure::Sum(_), Some(values @ Values::Float(_))) => {
            let nulls = nulls_of(values.nulls(), rows);
            if let (Some(sum), Some(known)) = (sum(&values.floats()[rows.clone()], nulls.as_ref()), state.floats()) {
                known.merge(slot, sum, |a, b| a + b);
            }
        }
        (Measure::Sum(_), Some(values @ Values::Int(_))) => {
            let ints = &values.ints()[rows.clone()];
            // 2^63 of the greatest ones fit.
            let sum = match nulls_of(values.nulls(), rows) {
                None => ints.iter().map(|int| i128::from(*int)).sum(),
                Some(nulls) if nulls.null_count() == nulls.len() => return,
                Some(nulls) => nulls.valid_indices().map(|row| i128::from(ints[row])).sum(),
            };
            if let Some(known) = state.decimals().filter(|_| !rows.is_empty()) {
                known.merge(slot, sum, |a: i128, b| a + b);
            }
        }
        (Measure::Sum(_), Some(values @ Values::Decimal(_))) => {
            let decimals = &values.decimals()[rows.clone()];
            let sum = match nulls_of(values.nulls(), rows) {
                None => wide_sum(|| decimals.iter().copied()),
                Some(nulls) if nulls.null_count() == nulls.len() => return,
                Some(nulls) => wide_sum(|| nulls.valid_indices().map(|row| decimals[row])),
            };
            if let Some(known) = state.wide().filter(|_| !rows.is_empty()) {
                known.merge(slot, sum, i256::wrapping_add);
            }
        }
        (Measure::Min(_) | Measure::Max(_), Some(values)) => extreme(measure, state, slot, rows, values),
        (Measure::First(_), Some(values)) => {
            let Some(row) = rows.clone().min_by_key(|row| firsts[*row]) else { return };
            end_value(state, slot, row, firsts[row], values, |time, known| time < known);
        }
        (Measure::Last(_), Some(values)) => {
            // Of equal times the row that came first.
            let Some(row) = rows.clone().rev().max_by_key(|row| lasts[*row]) else { return };
            end_value(state, slot, row, lasts[row], values, |time, known| time > known);
        }
        (
            Measure::Count(_)
            | Measure::Sum(_)
            | Measure::First(_)
            | Measure::Last(_)
            | Measure::Min(_)
            | Measure::Max(_),
            _,
        ) => {}
    }
}

fn count(state: &mut State, slot: usize, rows: i64) {
    let State::Counts(counts) = state else { return };
    if counts.len() <= slot {
        counts.resize(slot + 1, 0);
    }
    counts[slot] += rows;
}

fn nulls_within(nulls: Option<&NullBuffer>, rows: &Range<usize>) -> usize {
    nulls_of(nulls, rows).map_or(0, |nulls| nulls.null_count())
}

/// `None` when no row of the range is NULL.
fn nulls_of(nulls: Option<&NullBuffer>, rows: &Range<usize>) -> Option<NullBuffer> {
    nulls.map(|nulls| nulls.slice(rows.start, rows.len())).filter(|nulls| nulls.null_count() > 0)
}

fn extreme(measure: Measure, state: &mut State, slot: usize, rows: &Range<usize>, values: &Values) {
    let nulls = nulls_of(values.nulls(), rows);
    let is_min = matches!(measure, Measure::Min(_));
    match values {
        Values::Int(_) => {
            let better = if is_min { i64::min } else { i64::max };
            extreme_int(state, slot, &values.ints()[rows.clone()], nulls.as_ref(), better);
        }
        Values::Float(_) => {
            let better = if is_min { lesser } else { greater };
            let floats = &values.floats()[rows.clone()];
            let best = match &nulls {
                None if is_min => least(floats),
                None => greatest(floats),
                Some(nulls) => nulls.valid_indices().map(|row| floats[row]).reduce(better),
            };
            if let (Some(best), Some(known)) = (best, state.floats()) {
                known.merge(slot, best, better);
            }
        }
        Values::Decimal(_) => {
            let better = if is_min { i128::min } else { i128::max };
            let decimals = &values.decimals()[rows.clone()];
            let best = match &nulls {
                None => decimals.iter().copied().reduce(better),
                Some(nulls) => nulls.valid_indices().map(|row| decimals[row]).reduce(better),
            };
            if let (Some(best), Some(known)) = (best, state.decimals()) {
                known.merge(slot, best, better);
            }
        }
        Values::Counts(_) | Values::Other(_) => {}
    }
}

fn extreme_int(
    state: &mut State,
    slot: usize,
    values: &[i64],
    nulls: Option<&NullBuffer>,
    better: fn(i64, i64) -> i64,
) {
    let best = match nulls {
        None => values.iter().copied().reduce(better),
        Some(nulls) => nulls.valid_indices().map(|row| values[row]).reduce(better),
    };
    if let (Some(best), Some(known)) = (best, state.ints()) {
        known.merge(slot, best, better);
    }
}

fn end_value(
    state: &mut State,
    slot: usize,
    row: usize,
    time: i64,
    values: &Values,
    is_better: impl FnOnce(i64, i64) -> bool,
) {
    let is_null = values.nulls().is_some_and(|nulls| nulls.is_null(row));
    match values {
        Values::Int(_) => {
            let value = (!is_null).then(|| values.ints()[row]);
            if let Some(known) = state.ints() {
                known.replace(slot, time, value, is_better);
            }
        }
        Values::Float(_) => {
            let value = (!is_null).then(|| values.floats()[row]);
            if let Some(known) = state.floats() {
                known.replace(slot, time, value, is_better);
            }
        }
        Values::Decimal(_) => {
            let value = (!is_null).then(|| values.decimals()[row]);
            if let Some(known) = state.decimals() {
                known.replace(slot, time, value, is_better);
            }
        }
        Values::Counts(_) | Values::Other(_) => {}
    }
}

/// SQL's order of doubles: NaN is the greatest. Of equal zeros the first stays.
fn lesser(a: f64, b: f64) -> f64 {
    if b < a || (a.is_nan() && !b.is_nan()) { b } else { a }
}

fn greater(a: f64, b: f64) -> f64 {
    if b > a || (b.is_nan() && !a.is_nan()) { b } else { a }
}

/// Lanes that the compiler keeps in vector registers.
const LANES: usize = 8;

fn least(values: &[f64]) -> Option<f64> {
    by_lanes(values, lesser)
}

fn greatest(values: &[f64]) -> Option<f64> {
    by_lanes(values, greater)
}

#[inline(always)]
fn by_lanes(values: &[f64], better: fn(f64, f64) -> f64) -> Option<f64> {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let Some((first, chunks)) = chunks.split_first() else { return rest.iter().copied().reduce(better) };
    let mut best = *first;
    for chunk in chunks {
        for (best, value) in best.iter_mut().zip(chunk) {
            *best = better(*best, *value);
        }
    }
    best.iter().chain(rest).copied().reduce(better)
}

/// 2^128 numerics fit.
fn wide_sum<I: Iterator<Item = i128>>(values: impl Fn() -> I) -> i256 {
    match values().try_fold(0i128, i128::checked_add) {
        Some(sum) => i256::from_i128(sum),
        None => values().map(i256::from_i128).fold(i256::ZERO, i256::wrapping_add),
    }
}

/// `None`: all are NULL.
fn sum(values: &[f64], nulls: Option<&NullBuffer>) -> Option<f64> {
    if let Some(nulls) = nulls {
        return nulls.valid_indices().map(|row| values[row]).reduce(|a, b| a + b);
    }
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value;
        }
    }
    (!values.is_empty()).then(|| sums.iter().chain(rest).sum())
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, StringArray};
    use arrow::datatypes::{Float64Type, Int64Type};

    use super::*;

    fn floats(values: &[Option<f64>]) -> Option<Values> {
        Some(Values::Float(Arc::new(values.iter().copied().collect::<Float64Array>())))
    }

    fn hosts(names: &[Option<&str>]) -> Vec<ArrayRef> {
        vec![Arc::new(names.iter().copied().collect::<StringArray>())]
    }

    fn measured(times: &[i64], values: Vec<Option<Values>>) -> Measured {
        let times: ArrayRef = Arc::new(Int64Array::from(times.to_vec()));
        Measured::of_times(&times, &times, values)
    }

    #[test]
    fn ranges_of_a_group_add_up_and_null_is_a_key() {
        let measures = [Measure::Rows, Measure::Count(1), Measure::Sum(1), Measure::Min(1), Measure::Last(1)];
        let mut groups = Groups::new(&measures, false);
        let ids = groups.keys(&hosts(&[Some("a"), None]), 2).unwrap();
        let column = [Some(4.0), None, Some(1.0), Some(7.0)];
        let rows = |times: &[i64]| measured(times, measures.iter().map(|_| floats(&column)).collect());
        let read = rows(&[1, 2, 11, 12]);
        groups.add(ids[0], 0, 0..2, &read);
        groups.add(ids[0], 10, 2..4, &read);
        groups.add(ids[1], 0, 0..1, &read);
        // The same key from another row group.
        let again = groups.keys(&hosts(&[Some("a")]), 1).unwrap();
        groups.add(again[0], 10, 2..3, &rows(&[0, 0, 15, 0]));
        let float = Some(DataType::Float64);
        let types = [None, None, float.clone(), float.clone(), float];
        let states = groups.take(None, &types).unwrap().unwrap();
        assert_eq!(states.buckets.values(), &[0, 10, 0]);
        let keys = states.keys[0].as_string::<i32>();
        assert_eq!(keys.iter().collect::<Vec<_>>(), [Some("a"), Some("a"), None]);
        let counts = |at: usize| states.measures[at].as_primitive::<Int64Type>().values().to_vec();
        assert_eq!((counts(0), counts(1)), (vec![2, 3, 1], vec![1, 3, 1]));
        let floats = |at: usize| states.measures[at].as_primitive::<Float64Type>().iter().collect::<Vec<_>>();
        assert_eq!(floats(2), [Some(4.0), Some(9.0), Some(4.0)]);
        assert_eq!(floats(3), [Some(4.0), Some(1.0), Some(4.0)]);
        assert_eq!(floats(4), [None, Some(1.0), Some(4.0)], "the last value of the first group is NULL");
        assert!(groups.take(None, &types).unwrap().is_none(), "taken");
    }

    #[test]
    fn nan_is_the_greatest_double_and_sums_take_every_row() {
        let numbers: Vec<f64> = (0..37).map(f64::from).collect();
        assert_eq!(sum(&numbers, None), Some(666.0));
        assert_eq!((least(&numbers), greatest(&numbers)), (Some(0.0), Some(36.0)));
        let mut with_nan = numbers;
        with_nan[20] = f64::NAN;
        assert_eq!(least(&with_nan), Some(0.0));
        assert!(greatest(&with_nan).unwrap().is_nan());
        assert!(least(&[f64::NAN; 9]).unwrap().is_nan());
        assert_eq!((sum(&[], None), least(&[])), (None, None));
    }

    #[test]
    fn only_the_newest_buckets_are_kept_when_only_they_are_wanted() {
        let mut groups = Groups::new(&[Measure::Rows], true);
        let id = groups.keys(&[], 1).unwrap()[0];
        let top = |newest| Top { count: 2, newest };
        let row = |time| measured(&[time], vec![None]);
        groups.add(id, 10, 0..1, &row(10));
        assert_eq!(groups.cut(top(true)), None);
        groups.add(id, 30, 0..1, &row(30));
        groups.add(id, 20, 0..1, &row(20));
        assert_eq!((groups.cut(top(true)), groups.cut(top(false))), (Some(20), Some(20)));
        let states = groups.take(Some((20, top(true))), &[None]).unwrap().unwrap();
        assert_eq!(states.buckets.values(), &[30, 20]);
    }
}
