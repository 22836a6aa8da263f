//! A column of one row group becomes a page: the SQL type says which encodings are possible, their estimates which is
//! taken. NULL rows hold the value before them (fixed width) or nothing (variable), so that they cost nearly no bytes.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, ListArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use meridian_proto::types::SqlType;

use super::encoding::decimal::{self, Float};
use super::encoding::huffman::Codes;
use super::encoding::plain::{self, Fixed};
use super::encoding::{
    Coders, DECODED_BYTES_MAX, Encoding, bitmap, bytes, constant, dictionary, integers, packed, split,
};
use super::page::{Framer, Squeeze};
use super::zone::Zone;
use crate::error::EngineError;

/// Decimals that take one byte in so many of their plain form are as small as floats get: nothing else is tried.
const SCALED_PART: usize = 2;
/// Floats that are no decimals must save one byte in so many, or they stay as they are.
const SPLIT_SAVES_PART: usize = 16;

/// An encoding that was taken, and what zstd may do on top of it.
type Taken = (Encoding, Squeeze);

/// Encodes columns, one at a time. One per writer: its buffers are reused.
pub struct ColumnEncoder {
    framer: Framer,
    coders: Coders,
    mask: Vec<u8>,
    values: Vec<u8>,
}

/// What the footer says about a page besides its place.
#[derive(Clone, Debug)]
pub struct PageFacts {
    pub encoding: Encoding,
    pub null_count: usize,
    pub zone: Zone,
}

impl ColumnEncoder {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { framer: Framer::new()?, coders: Coders::new()?, mask: Vec::new(), values: Vec::new() })
    }

    /// Appends the page of the column, without a checksum.
    pub fn encode(
        &mut self,
        array: &ArrayRef,
        sql_type: &SqlType,
        out: &mut Vec<u8>,
    ) -> Result<PageFacts, EngineError> {
        if *array.data_type() != sql_type.arrow() {
            return Err(EngineError::Rows(format!("a column of type {sql_type} came as {}", array.data_type())));
        }
        let null_count = array.null_count();
        if null_count == array.len() {
            self.framer.frame((Encoding::Null, Squeeze::No), array.len(), &[], &[], out);
            return Ok(PageFacts { encoding: Encoding::Null, null_count, zone: Zone::Unknown });
        }
        let mut values = std::mem::take(&mut self.values);
        values.clear();
        let (taken, zone) = self.encode_values(array, sql_type, &mut values)?;
        if values.len() > DECODED_BYTES_MAX {
            return Err(EngineError::Rows(format!("{} bytes of one column in one row group", values.len())));
        }
        self.mask.clear();
        if let Some(nulls) = array.nulls().filter(|_| null_count > 0) {
            bitmap::encode(nulls.inner(), &mut self.mask);
        }
        self.framer.frame(taken, array.len(), &self.mask, &values, out);
        self.values = values;
        Ok(PageFacts { encoding: taken.0, null_count, zone })
    }

    /// Appends the page of unsigned numbers that no SQL type holds: commit timestamps.
    pub fn encode_commits(&mut self, commits: &[u64], out: &mut Vec<u8>) -> Encoding {
        self.values.clear();
        let signed: Vec<i64> = commits.iter().map(|commit| *commit as i64).collect();
        let taken = pick_integers(&signed, &signed, &mut self.coders.codes, &mut self.values);
        self.framer.frame(taken, commits.len(), &[], &self.values, out);
        taken.0
    }

    fn encode_values(
        &mut self,
        array: &ArrayRef,
        sql_type: &SqlType,
        out: &mut Vec<u8>,
    ) -> Result<(Taken, Zone), EngineError> {
        let coders = &mut self.coders;
        Ok(match sql_type {
            SqlType::Bool => booleans(array.as_boolean(), out),
            SqlType::Int2 => integers(array.as_primitive::<Int16Type>(), &mut coders.codes, out),
            SqlType::Int4 => integers(array.as_primitive::<Int32Type>(), &mut coders.codes, out),
            SqlType::Int8 => integers(array.as_primitive::<Int64Type>(), &mut coders.codes, out),
            SqlType::Date => integers(array.as_primitive::<Date32Type>(), &mut coders.codes, out),
            SqlType::Time => integers(array.as_primitive::<Time64MicrosecondType>(), &mut coders.codes, out),
            SqlType::Timestamp | SqlType::Timestamptz => {
                integers(array.as_primitive::<TimestampMicrosecondType>(), &mut coders.codes, out)
            }
            SqlType::Float4 => floats(array.as_primitive::<Float32Type>(), &mut coders.codes, out),
            SqlType::Float8 => floats(array.as_primitive::<Float64Type>(), &mut coders.codes, out),
            SqlType::Numeric(_) => decimals(array.as_primitive::<Decimal128Type>(), coders, out),
            SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) => {
                let array = array.as_string::<i32>();
                strings(array.value_offsets(), array.value_data(), array.nulls(), coders, out)
            }
            SqlType::Jsonb => {
                let array = array.as_string::<i32>();
                // jsonb has an order of its own, which is not that of the text.
                (strings(array.value_offsets(), array.value_data(), array.nulls(), coders, out).0, Zone::Unknown)
            }
            SqlType::Bytea => {
                let array = array.as_binary::<i32>();
                strings(array.value_offsets(), array.value_data(), array.nulls(), coders, out)
            }
            SqlType::Uuid => {
                let array = array.as_fixed_size_binary();
                let bytes = &array.value_data()[..array.len() * 16];
                uuids(&filled(bytes.as_chunks::<16>().0, array.nulls()), coders, out)
            }
            SqlType::Interval => {
                let array = array.as_primitive::<IntervalMonthDayNanoType>();
                (sixteen_bytes(&intervals(&filled(array.values(), array.nulls())), coders, out), Zone::Unknown)
            }
            SqlType::Array(element) => (self.lists(array.as_list::<i32>(), element, out)?, Zone::Unknown),
        })
    }

    /// Packed lengths, the number of elements, and the page of the elements.
    fn lists(&mut self, array: &ListArray, element: &SqlType, out: &mut Vec<u8>) -> Result<Taken, EngineError> {
        let offsets = array.value_offsets();
        let lengths: Vec<i64> = offsets.windows(2).map(|pair| i64::from(pair[1]) - i64::from(pair[0])).collect();
        packed::encode(&lengths, &packed::estimate(&lengths), out);
        let (first, last) = (offsets[0] as usize, offsets[array.len()] as usize);
        let elements = array.values().slice(first, last - first);
        self.encode(&elements, element, out)?;
        Ok((Encoding::List, Squeeze::Whole))
    }
}

/// The values with every NULL row holding the valid value before it, the first ones the first valid value.
fn filled<'a, T: Copy>(values: &'a [T], nulls: Option<&NullBuffer>) -> Cow<'a, [T]> {
    let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) else { return Cow::Borrowed(values) };
    let Some(first) = nulls.valid_indices().next() else { return Cow::Borrowed(values) };
    let mut last = values[first];
    let fill = |(value, valid): (&T, bool)| {
        last = if valid { *value } else { last };
        last
    };
    Cow::Owned(values.iter().zip(nulls.iter()).map(fill).collect())
}

fn booleans(array: &BooleanArray, out: &mut Vec<u8>) -> (Taken, Zone) {
    let bits = match array.nulls() {
        Some(nulls) => array.values() & nulls.inner(),
        None => array.values().clone(),
    };
    let (trues, valid) = (bits.count_set_bits(), array.len() - array.null_count());
    let zone = Zone::Int { min: i64::from(trues == valid), max: i64::from(trues > 0) };
    if trues == 0 || trues == valid {
        out.push(u8::from(trues > 0));
        return ((Encoding::Constant, Squeeze::No), zone);
    }
    bitmap::encode(&bits, out);
    ((Encoding::Bitmap, Squeeze::Whole), zone)
}

fn integers<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, codes: &mut Codes, out: &mut Vec<u8>) -> (Taken, Zone)
where
    T::Native: Fixed + Into<i64>,
{
    let values = filled(array.values(), array.nulls());
    let wide: Vec<i64> = values.iter().map(|value| (*value).into()).collect();
    let (min, max) = range(&wide);
    (pick_integers(&values, &wide, codes, out), Zone::Int { min, max })
}

fn range(values: &[i64]) -> (i64, i64) {
    values.iter().fold((i64::MAX, i64::MIN), |(min, max), value| (min.min(*value), max.max(*value)))
}

/// `wide` are the `values`, as 64 bits.
fn pick_integers<T: Fixed>(values: &[T], wide: &[i64], codes: &mut Codes, out: &mut Vec<u8>) -> Taken {
    let plan = integers::estimate(wide);
    match plan.encoding() {
        Encoding::Constant => {
            constant::encode(values[0], out);
            (Encoding::Constant, Squeeze::No)
        }
        encoding if plan.bytes() < plain::estimate::<T>(values.len()) => {
            integers::encode(wide, &plan, codes, out);
            (encoding, squeeze_of(&plan))
        }
        _ => {
            plain::encode(values, out);
            (Encoding::Plain, Squeeze::Blocks)
        }
    }
}

/// On top of integers with or without something around them.
fn squeeze_of(plan: &integers::Plan) -> Squeeze {
    if plan.encoding() == Encoding::Binned { Squeeze::No } else { Squeeze::Blocks }
}

fn floats<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, codes: &mut Codes, out: &mut Vec<u8>) -> (Taken, Zone)
where
    T::Native: Float,
{
    let values = filled(array.values(), array.nulls());
    (pick_floats(&values, codes, out), float_zone(&values))
}

fn pick_floats<T: Float>(values: &[T], codes: &mut Codes, out: &mut Vec<u8>) -> Taken {
    if constant::estimate(values, |a, b| a.same_bits(*b)).is_some() {
        constant::encode(values[0], out);
        return (Encoding::Constant, Squeeze::No);
    }
    let plain_bytes = plain::estimate::<T>(values.len());
    let scaled = decimal::estimate(values);
    if let Some(plan) = &scaled
        && plan.bytes < plain_bytes / SCALED_PART
    {
        decimal::encode(values, plan, codes, out);
        return (Encoding::Scaled, squeeze_of(&plan.plan));
    }
    let ordered: Vec<i64> = values.iter().map(|value| value.to_ordered()).collect();
    let (plan, split) = (integers::estimate(&ordered), split::estimate(values));
    let scaled_bytes = scaled.as_ref().map_or(usize::MAX, |plan| plan.bytes);
    let split_bytes = split.as_ref().map_or(usize::MAX, |plan| plan.bytes);
    let best = scaled_bytes.min(plan.bytes()).min(split_bytes);
    match (scaled, split) {
        _ if best >= plain_bytes - plain_bytes / SPLIT_SAVES_PART => {
            plain::encode(values, out);
            (Encoding::Plain, Squeeze::Blocks)
        }
        (Some(plan), _) if scaled_bytes == best => {
            decimal::encode(values, &plan, codes, out);
            (Encoding::Scaled, squeeze_of(&plan.plan))
        }
        (_, Some(plan)) if split_bytes == best => {
            split::encode(values, &plan, codes, out);
            (Encoding::Split, Squeeze::No)
        }
        _ => {
            integers::encode_nested(&ordered, &plan, codes, out);
            (Encoding::Ordered, squeeze_of(&plan))
        }
    }
}

fn float_zone<T: Float>(values: &[T]) -> Zone {
    let (mut min, mut max, mut nan) = (f64::INFINITY, f64::NEG_INFINITY, false);
    for value in values {
        let value = value.to_f64();
        min = if value < min { value } else { min };
        max = if value > max { value } else { max };
        nan |= value.is_nan();
    }
    Zone::Float { min, max, nan }
}

fn decimals(array: &PrimitiveArray<Decimal128Type>, coders: &mut Coders, out: &mut Vec<u8>) -> (Taken, Zone) {
    let values = filled(array.values(), array.nulls());
    let zone = values.iter().fold((i128::MAX, i128::MIN), |(min, max), value| (min.min(*value), max.max(*value)));
    let zone = Zone::Decimal { min: zone.0, max: zone.1 };
    if values.iter().all(|value| i64::try_from(*value).is_ok()) {
        let wide: Vec<i64> = values.iter().map(|value| *value as i64).collect();
        return (pick_integers(&values, &wide, &mut coders.codes, out), zone);
    }
    let bytes: Vec<[u8; 16]> = values.iter().map(|value| value.to_le_bytes()).collect();
    (sixteen_bytes(&bytes, coders, out), zone)
}

fn uuids(values: &[[u8; 16]], coders: &mut Coders, out: &mut Vec<u8>) -> (Taken, Zone) {
    let numbers = values.iter().map(|value| u128::from_be_bytes(*value));
    let (min, max) = numbers.fold((u128::MAX, u128::MIN), |(min, max), value| (min.min(value), max.max(value)));
    (sixteen_bytes(values, coders, out), Zone::of_bytes(&min.to_be_bytes(), &max.to_be_bytes()))
}

/// Months, days, nanoseconds, little endian: 4, 4 and 8 bytes.
fn intervals(values: &[arrow::datatypes::IntervalMonthDayNano]) -> Vec<[u8; 16]> {
    let mut bytes = vec![[0; 16]; values.len()];
    for (bytes, value) in bytes.iter_mut().zip(values) {
        bytes[..4].copy_from_slice(&value.months.to_le_bytes());
        bytes[4..8].copy_from_slice(&value.days.to_le_bytes());
        bytes[8..].copy_from_slice(&value.nanoseconds.to_le_bytes());
    }
    bytes
}

fn sixteen_bytes(values: &[[u8; 16]], coders: &mut Coders, out: &mut Vec<u8>) -> Taken {
    if constant::estimate(values, |a, b| a == b).is_some() {
        constant::encode(values[0], out);
        return (Encoding::Constant, Squeeze::No);
    }
    if let Some(plan) = dictionary::estimate(values.len(), |row| Some(&values[row][..]))
        && plan.bytes < plain::estimate::<[u8; 16]>(values.len())
    {
        dictionary::encode(&plan, coders, out);
        return (Encoding::Terms, Squeeze::Blocks);
    }
    plain::encode(values, out);
    (Encoding::Plain, Squeeze::Blocks)
}

/// Text and binary.
fn strings(
    offsets: &[i32],
    data: &[u8],
    nulls: Option<&NullBuffer>,
    coders: &mut Coders,
    out: &mut Vec<u8>,
) -> (Taken, Zone) {
    let rows = offsets.len() - 1;
    let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
    let bytes_of = |row: usize| &data[offsets[row] as usize..offsets[row + 1] as usize];
    let plan = match nulls {
        None => dictionary::estimate(rows, |row| Some(bytes_of(row))),
        Some(nulls) => dictionary::estimate(rows, |row| nulls.is_valid(row).then(|| bytes_of(row))),
    };
    let value = |row: usize| if nulls.is_none_or(|nulls| nulls.is_valid(row)) { bytes_of(row) } else { &[] };
    let Some(plan) = plan else {
        let zone = bytes_zone((0..rows).filter(|row| nulls.is_none_or(|nulls| nulls.is_valid(*row))).map(bytes_of));
        bytes::encode(&bytes::estimate(rows, value), value, out);
        return ((Encoding::Bytes, Squeeze::Whole), zone);
    };
    let zone = bytes_zone(plan.entries.iter().copied());
    if let [only] = plan.entries.as_slice() {
        out.extend_from_slice(only);
        return ((Encoding::Constant, Squeeze::No), zone);
    }
    let apart = bytes::estimate(rows, value);
    if apart.bytes < plan.bytes {
        bytes::encode(&apart, value, out);
        return ((Encoding::Bytes, Squeeze::Whole), zone);
    }
    dictionary::encode(&plan, coders, out);
    ((Encoding::Terms, Squeeze::Blocks), zone)
}

fn bytes_zone<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Zone {
    let Some(first) = values.next() else { return Zone::Unknown };
    let (min, max) = values.fold((first, first), |(min, max), value| (min.min(value), max.max(value)));
    Zone::of_bytes(min, max)
}
