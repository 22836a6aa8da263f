//! Random columns of every type: extremes, repetitions, runs and NULLs, from a seed.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, ListArray, PrimitiveArray, RecordBatch, StringArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Field, IntervalMonthDayNano, IntervalMonthDayNanoType,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use meridian_proto::schema::TableSchema;
use meridian_proto::types::SqlType;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// Every type that a column can have.
pub fn all_types() -> Vec<SqlType> {
    let mut types = vec![
        SqlType::Bool,
        SqlType::Int2,
        SqlType::Int4,
        SqlType::Int8,
        SqlType::Float4,
        SqlType::Float8,
        SqlType::Numeric(None),
        SqlType::Numeric(Some((12, 2))),
        SqlType::Text,
        SqlType::Varchar(Some(10)),
        SqlType::Char(5),
        SqlType::Timestamptz,
        SqlType::Timestamp,
        SqlType::Date,
        SqlType::Time,
        SqlType::Interval,
        SqlType::Uuid,
        SqlType::Bytea,
        SqlType::Jsonb,
    ];
    let arrays: Vec<SqlType> = types.iter().map(|element| SqlType::Array(Box::new(element.clone()))).collect();
    types.extend(arrays);
    types
}

/// How a column's values follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All the same.
    Constant,
    /// A few values in long runs.
    Runs,
    /// A few values, mixed.
    Few,
    /// Small steps up and down.
    Walk,
    /// Many values in runs of 8 to 40 rows.
    ShortRuns,
    /// Equal steps.
    Steps,
    /// Numbers of some bits, none more likely than another; floats walk with all their places.
    Noise,
    /// Anything, extremes among it.
    Random,
}

/// Those that fixtures are made of.
pub const SHAPES: [Shape; 5] = [Shape::Constant, Shape::Runs, Shape::Few, Shape::Walk, Shape::Random];
pub const ALL_SHAPES: [Shape; 8] = [
    Shape::Constant,
    Shape::Runs,
    Shape::Few,
    Shape::Walk,
    Shape::ShortRuns,
    Shape::Steps,
    Shape::Noise,
    Shape::Random,
];

/// A random batch of the table's rows.
pub fn batch(random: &mut ChaCha8Rng, schema: &TableSchema, rows: usize) -> RecordBatch {
    let columns = schema.columns.iter().map(|c| {
        let shape = *SHAPES.choose(random).unwrap();
        let nulls = *[0, 0, 1, 50, 100].choose(random).unwrap();
        column(random, &c.sql_type, shape, nulls, rows)
    });
    let columns: Vec<ArrayRef> = columns.collect();
    RecordBatch::try_new(schema.arrow(), columns).unwrap()
}

/// A column of which that many in a hundred rows are NULL.
pub fn column(random: &mut ChaCha8Rng, sql_type: &SqlType, shape: Shape, null_percent: u32, rows: usize) -> ArrayRef {
    let nulls = (null_percent > 0)
        .then(|| (0..rows).map(|_| !random.random_ratio(null_percent, 100)).collect::<Vec<_>>())
        .map(NullBuffer::from);
    let numbers = numbers(random, shape, rows);
    match sql_type {
        SqlType::Float4 | SqlType::Float8 if shape == Shape::Noise => reals(random, sql_type, rows, nulls),
        SqlType::Array(element) => lists(random, element, shape, &numbers, nulls),
        _ => scalars(sql_type, &numbers, nulls),
    }
}

fn reals(random: &mut ChaCha8Rng, sql_type: &SqlType, rows: usize, nulls: Option<NullBuffer>) -> ArrayRef {
    let (mut level, is_walk) = (50.0, random.random());
    let mut real = || {
        let step = random.random::<f64>() - 0.5;
        level += step;
        if is_walk { level } else { step }
    };
    let reals: Vec<f64> = (0..rows).map(|_| real()).collect();
    match sql_type {
        SqlType::Float4 => Arc::new(Float32Array::new(reals.iter().map(|real| *real as f32).collect(), nulls)),
        _ => Arc::new(Float64Array::new(reals.into(), nulls)),
    }
}

fn lists(
    random: &mut ChaCha8Rng,
    element: &SqlType,
    shape: Shape,
    numbers: &[i64],
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    let lengths: Vec<usize> = numbers.iter().map(|number| number.rem_euclid(5) as usize).collect();
    let elements = column(random, element, shape, 20, lengths.iter().sum());
    let field = Arc::new(Field::new("item", element.arrow(), true));
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), elements, nulls))
}

/// The numbers that values are made of.
fn numbers(random: &mut ChaCha8Rng, shape: Shape, rows: usize) -> Vec<i64> {
    let few: [i64; 5] = std::array::from_fn(|_| extreme_or(random, 1000));
    let mut last = random.random_range(-1000..1000);
    let mut left = 0;
    let mut number = |row: usize| match shape {
        Shape::Constant => few[0],
        Shape::Runs => few[row * 7 / rows.max(1) % few.len()],
        Shape::Few => *few.choose(random).unwrap(),
        Shape::Walk => {
            last += random.random_range(-3..=3);
            last
        }
        Shape::ShortRuns => {
            if left == 0 {
                (left, last) = (random.random_range(8..40), random.random_range(0..10_000));
            }
            left -= 1;
            last
        }
        Shape::Steps => {
            last += 10_000;
            last
        }
        Shape::Noise => random.random_range(0..1 << 14),
        Shape::Random => extreme_or(random, i64::MAX),
    };
    (0..rows).map(&mut number).collect()
}

fn extreme_or(random: &mut ChaCha8Rng, max: i64) -> i64 {
    let extremes = [i64::MIN, i64::MAX, i64::MIN + 1, 0, -1, i64::from(i32::MIN), i64::from(i32::MAX), 1 << 51];
    if random.random_ratio(1, 10) { *extremes.choose(random).unwrap() } else { random.random_range(-max..max) }
}

fn scalars(sql_type: &SqlType, numbers: &[i64], nulls: Option<NullBuffer>) -> ArrayRef {
    match sql_type {
        SqlType::Bool => Arc::new(BooleanArray::new(numbers.iter().map(|n| n & 1 == 1).collect(), nulls)),
        SqlType::Int2 => Arc::new(Int16Array::new(numbers.iter().map(|n| *n as i16).collect(), nulls)),
        SqlType::Int4 => Arc::new(Int32Array::new(numbers.iter().map(|n| *n as i32).collect(), nulls)),
        SqlType::Int8 => Arc::new(Int64Array::new(numbers.to_vec().into(), nulls)),
        SqlType::Float4 => Arc::new(Float32Array::new(
            numbers.iter().map(|n| float(*n).map_or(odd_f32(*n), |f| f as f32)).collect(),
            nulls,
        )),
        SqlType::Float8 => {
            Arc::new(Float64Array::new(numbers.iter().map(|n| float(*n).unwrap_or(odd_f64(*n))).collect(), nulls))
        }
        SqlType::Numeric(_) => {
            // Most fit 64 bits, the extremes do not.
            let wide = |n: &i64| i128::from(*n) * if n.unsigned_abs() > 1 << 62 { 1_000_003 } else { 1 };
            primitive::<Decimal128Type>(sql_type, numbers.iter().map(wide).collect(), nulls)
        }
        SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Jsonb => {
            let texts: Vec<String> = numbers.iter().map(|n| text(*n)).collect();
            let array = StringArray::from_iter_values(texts);
            Arc::new(StringArray::new(array.offsets().clone(), array.values().clone(), nulls))
        }
        SqlType::Bytea => {
            let array = BinaryArray::from_iter_values(numbers.iter().map(|n| bytes(*n)));
            Arc::new(BinaryArray::new(array.offsets().clone(), array.values().clone(), nulls))
        }
        SqlType::Timestamptz | SqlType::Timestamp => {
            primitive::<TimestampMicrosecondType>(sql_type, numbers.to_vec(), nulls)
        }
        SqlType::Date => primitive::<Date32Type>(sql_type, numbers.iter().map(|n| *n as i32).collect(), nulls),
        SqlType::Time => {
            let time = |n: &i64| n.rem_euclid(86_400_000_001);
            primitive::<Time64MicrosecondType>(sql_type, numbers.iter().map(time).collect(), nulls)
        }
        SqlType::Interval => {
            let interval = |n: &i64| IntervalMonthDayNano::new(*n as i32, (*n >> 16) as i32, *n);
            primitive::<IntervalMonthDayNanoType>(sql_type, numbers.iter().map(interval).collect(), nulls)
        }
        SqlType::Uuid => {
            let uuids: Vec<u8> = numbers.iter().flat_map(|n| (*n as u128).wrapping_mul(7).to_be_bytes()).collect();
            Arc::new(FixedSizeBinaryArray::new(16, uuids.into(), nulls))
        }
        SqlType::Array(_) => unreachable!("lists are made of scalars"),
    }
}

fn primitive<T: ArrowPrimitiveType>(sql_type: &SqlType, values: Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(sql_type.arrow()))
}

/// Decimals of some places for small numbers, `None` where a strange value is due.
fn float(number: i64) -> Option<f64> {
    match number {
        -1_000_000..=1_000_000 => Some(number as f64 / 100.0),
        _ if number % 3 == 0 => Some(number as f64),
        _ => None,
    }
}

fn odd_f64(number: i64) -> f64 {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MIN_POSITIVE, 5e-324, f64::MAX, 0.1 + 0.2];
    match number.rem_euclid(16) as usize {
        at if at < odd.len() => odd[at],
        8 => f64::from_bits(0x7ff0_0000_dead_beef),
        9 => f64::from_bits(0xfff8_0000_0000_0001),
        _ => f64::from_bits(number as u64),
    }
}

fn odd_f32(number: i64) -> f32 {
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE, f32::MAX, 0.1 + 0.2];
    match number.rem_euclid(16) as usize {
        at if at < odd.len() => odd[at],
        8 => f32::from_bits(0x7f80_beef),
        9 => f32::from_bits(0xffc0_0001),
        _ => f32::from_bits(number as u32),
    }
}

fn text(number: i64) -> String {
    match number.rem_euclid(11) {
        0 => String::new(),
        1 => format!("Grüße №{number} 🌍"),
        2 => "x".repeat(number.rem_euclid(90) as usize),
        _ => format!("host_{number}"),
    }
}

fn bytes(number: i64) -> Vec<u8> {
    match number.rem_euclid(7) {
        0 => Vec::new(),
        1 => vec![0xff; number.rem_euclid(70) as usize],
        _ => number.to_le_bytes()[..number.rem_euclid(9) as usize].to_vec(),
    }
}
