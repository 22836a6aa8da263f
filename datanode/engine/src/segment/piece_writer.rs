//! Finds the pieces of a row group that is being written, and what is known of its columns in them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Decimal128Array, Float64Array, Int64Array, PrimitiveArray,
    UInt32Array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use meridian_proto::types::SqlType;

use super::encoding::decimal::Float;
use super::pieces::{PieceColumn, Pieces, sum_type};

/// Widths of buckets, the narrowest first: each divides the next, so that pieces of one make up buckets of all wider ones.
pub const WIDTHS_US: [i64; 6] = [60_000_000, 300_000_000, 900_000_000, 3_600_000_000, 21_600_000_000, 86_400_000_000];
/// Rows of a piece on average, at least. What is known of a metric in a piece takes 6 to 10 bytes, its rows 0.3 to 1 byte
/// each: statistics are a tenth of the file at most. For a row every 10 seconds pieces are an hour long.
const PIECE_ROWS_MIN: usize = 120;

/// The first number with more digits than a numeric has.
const DECIMAL_LIMIT: u128 = 10u128.pow(DECIMAL128_MAX_PRECISION as u32);

/// Pieces, and in which rows they have their least and greatest time.
pub struct FoundPieces {
    pub pieces: Pieces,
    firsts: UInt32Array,
    lasts: UInt32Array,
}

/// The pieces of the narrowest width that pays. `series` are the runs of rows of one series; they follow one another.
pub fn find(series: &[Range<usize>], times: &[i64]) -> Option<FoundPieces> {
    let pieces_max = times.len() / PIECE_ROWS_MIN;
    let pieces = WIDTHS_US.iter().find_map(|width| cut(series, times, *width, pieces_max))?;
    let (mut firsts, mut lasts) = (Vec::with_capacity(pieces.len()), Vec::with_capacity(pieces.len()));
    for piece in 0..pieces.len() {
        let rows = pieces.rows_of(piece);
        let (mut first, mut last) = (rows.start, rows.start);
        for row in rows {
            first = if times[row] < times[first] { row } else { first };
            last = if times[row] > times[last] { row } else { last };
        }
        firsts.push(first as u32);
        lasts.push(last as u32);
    }
    Some(FoundPieces { pieces, firsts: firsts.into(), lasts: lasts.into() })
}

/// `None` when there are too many, or where time has no bucket.
fn cut(series: &[Range<usize>], times: &[i64], width_us: i64, pieces_max: usize) -> Option<Pieces> {
    let mut pieces = Pieces { width_us, starts: Vec::new(), buckets: Vec::new(), rows: times.len() };
    for run in series {
        // No time lies in it, so that the first row begins a bucket.
        let mut bucket = 0..0;
        for row in run.clone() {
            if bucket.contains(&times[row]) {
                continue;
            }
            if pieces.len() == pieces_max {
                return None;
            }
            bucket = bucket_of(times[row], width_us)?;
            pieces.starts.push(row as u32);
            pieces.buckets.push(bucket.start);
        }
    }
    Some(pieces)
}

/// The bucket that a time lies in; `None` for the infinities.
pub fn bucket_of(time: i64, width_us: i64) -> Option<Range<i64>> {
    let start = time.checked_sub(time.rem_euclid(width_us))?;
    Some(start..start.checked_add(width_us)?)
}

/// The runs of rows of one series, by the columns that tell them apart.
pub fn series_of(keys: &[ArrayRef], rows: usize) -> Result<Vec<Range<usize>>, ArrowError> {
    if keys.is_empty() {
        return Ok(std::iter::once(0..rows).collect());
    }
    Ok(arrow::compute::partition(keys)?.ranges())
}

/// Times of the kind that has pieces; `None` for other types and where one is NULL.
pub fn times_of(array: &ArrayRef) -> Option<&[i64]> {
    let times = array.as_primitive_opt::<TimestampMicrosecondType>()?;
    (times.null_count() == 0 && !times.is_empty()).then(|| times.values().as_ref())
}

impl FoundPieces {
    /// `None` for types without statistics. `is_time`: the column is the one that rows are sorted by.
    pub fn statistics(
        &self,
        array: &ArrayRef,
        sql_type: &SqlType,
        is_time: bool,
    ) -> Result<Option<PieceColumn>, ArrowError> {
        Ok(match sql_type {
            SqlType::Int2 => Some(self.integers(array.as_primitive::<Int16Type>())?),
            SqlType::Int4 => Some(self.integers(array.as_primitive::<Int32Type>())?),
            SqlType::Int8 => Some(self.integers(array.as_primitive::<Int64Type>())?),
            SqlType::Float4 => Some(self.floats(array.as_primitive::<Float32Type>())?),
            SqlType::Float8 => Some(self.floats(array.as_primitive::<Float64Type>())?),
            SqlType::Numeric(_) => Some(self.decimals(array.as_primitive::<Decimal128Type>(), &sum_type(sql_type))?),
            SqlType::Timestamp | SqlType::Timestamptz if is_time => {
                let (mins, maxs) = (take(array, &self.firsts, None)?, take(array, &self.lasts, None)?);
                let (firsts, lasts) = (ArrayRef::clone(&mins), ArrayRef::clone(&maxs));
                let counts = (0..self.pieces.len()).map(|piece| self.pieces.rows_of(piece).len() as i64);
                Some(PieceColumn { counts: counts.collect(), sums: None, mins, maxs, firsts, lasts, known: None })
            }
            _ => None,
        })
    }

    fn integers<T: ArrowPrimitiveType>(&self, array: &PrimitiveArray<T>) -> Result<PieceColumn, ArrowError>
    where
        T::Native: Into<i64> + Ord,
    {
        let mut found = Collected::<T>::new(self.pieces.len());
        let mut sums = Vec::with_capacity(self.pieces.len());
        for piece in 0..self.pieces.len() {
            let (mut sum, mut ends) = (0i128, None);
            let count = for_each_value(array, self.pieces.rows_of(piece), |value: T::Native| {
                sum += i128::from(value.into());
                ends = Some(
                    ends.map_or((value, value), |(min, max): (T::Native, T::Native)| (min.min(value), max.max(value))),
                );
            });
            found.push(count, ends);
            sums.push((count > 0).then_some(sum));
        }
        let sums = sums.into_iter().map(|sum| sum.map(i64::try_from).transpose()).collect::<Result<Int64Array, _>>();
        found.finish(self, array, sums.ok().map(|sums| Arc::new(sums) as ArrayRef), None)
    }

    fn decimals(&self, array: &PrimitiveArray<Decimal128Type>, sums_of: &SqlType) -> Result<PieceColumn, ArrowError> {
        let mut found = Collected::<Decimal128Type>::new(self.pieces.len());
        // `None` as a whole: one does not fit.
        let mut sums = Some(Vec::with_capacity(self.pieces.len()));
        for piece in 0..self.pieces.len() {
            let (mut sum, mut ends) = (Some(0i128), None);
            let count = for_each_value(array, self.pieces.rows_of(piece), |value: i128| {
                sum = sum.and_then(|sum| sum.checked_add(value));
                ends = Some(ends.map_or((value, value), |(min, max): (i128, i128)| (min.min(value), max.max(value))));
            });
            found.push(count, ends);
            let sum = sum.filter(|sum| sum.unsigned_abs() < DECIMAL_LIMIT);
            sums = sums.zip(sum).map(|(mut sums, sum)| {
                sums.push((count > 0).then_some(sum));
                sums
            });
        }
        let sums = sums.map(|sums| Arc::new(Decimal128Array::from(sums).with_data_type(sums_of.arrow())) as ArrayRef);
        found.finish(self, array, sums, None)
    }

    fn floats<T: ArrowPrimitiveType>(&self, array: &PrimitiveArray<T>) -> Result<PieceColumn, ArrowError>
    where
        T::Native: Float,
    {
        let mut found = Collected::<T>::new(self.pieces.len());
        let (mut sums, mut known) = (Vec::with_capacity(self.pieces.len()), Vec::with_capacity(self.pieces.len()));
        for piece in 0..self.pieces.len() {
            let (mut sum, mut is_odd, mut ends) = (0.0, false, None);
            let count = for_each_value(array, self.pieces.rows_of(piece), |value: T::Native| {
                let wide = value.to_f64();
                sum += wide;
                is_odd |= !wide.is_finite() | (wide == 0.0 && wide.is_sign_negative());
                let (min, max) = ends.unwrap_or((value, value));
                ends = Some((if value < min { value } else { min }, if value > max { value } else { max }));
            });
            found.push(count, ends);
            sums.push((count > 0).then_some(sum));
            known.push(!is_odd && sum.is_finite());
        }
        let known = if known.iter().all(|known| *known) { None } else { Some(BooleanBuffer::from(known)) };
        found.finish(self, array, Some(Arc::new(Float64Array::from(sums))), known)
    }
}

/// Calls with each value that is not NULL; returns how many.
#[inline(always)]
fn for_each_value<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    rows: Range<usize>,
    mut call: impl FnMut(T::Native),
) -> i64 {
    let values = &array.values()[rows.clone()];
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => {
            values.iter().for_each(|value| call(*value));
            values.len() as i64
        }
        Some(nulls) => {
            let mut count = 0;
            for row in rows.clone().filter(|row| nulls.is_valid(*row)) {
                call(values[row - rows.start]);
                count += 1;
            }
            count
        }
    }
}

/// Counts and ends of the pieces so far.
struct Collected<T: ArrowPrimitiveType> {
    counts: Vec<i64>,
    mins: Vec<Option<T::Native>>,
    maxs: Vec<Option<T::Native>>,
}

impl<T: ArrowPrimitiveType> Collected<T> {
    fn new(pieces: usize) -> Self {
        let (mins, maxs) = (Vec::with_capacity(pieces), Vec::with_capacity(pieces));
        Self { counts: Vec::with_capacity(pieces), mins, maxs }
    }

    fn push(&mut self, count: i64, ends: Option<(T::Native, T::Native)>) {
        self.counts.push(count);
        self.mins.push(ends.map(|(min, _)| min));
        self.maxs.push(ends.map(|(_, max)| max));
    }

    fn finish(
        self,
        found: &FoundPieces,
        array: &PrimitiveArray<T>,
        sums: Option<ArrayRef>,
        known: Option<BooleanBuffer>,
    ) -> Result<PieceColumn, ArrowError> {
        Ok(PieceColumn {
            counts: self.counts.into(),
            sums,
            mins: Arc::new(PrimitiveArray::<T>::from_iter(self.mins).with_data_type(array.data_type().clone())),
            maxs: Arc::new(PrimitiveArray::<T>::from_iter(self.maxs).with_data_type(array.data_type().clone())),
            firsts: take(array, &found.firsts, None)?,
            lasts: take(array, &found.lasts, None)?,
            known,
        })
    }
}
