//! Columns out of bytes. The bytes are a small program whose steps repeat, count and scatter, so that few of them make a
//! page of any encoding, and every bit pattern can be written out as it is.
//!
//! Byte 0 says what floats are made of (their bits, or decimals of some places), then come steps: one byte, whose low
//! three bits name the step and whose others a number of rows, and what the step takes.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, ListArray, PrimitiveArray, StringArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Field, IntervalMonthDayNano, IntervalMonthDayNanoType,
    TimestampMicrosecondType,
};
use meridian_proto::types::SqlType;

const ROWS_MAX: usize = 4096;
/// Rows of a long step for each of its number.
const LONG_ROWS: usize = 64;

/// The column that the bytes describe; empty when they describe none.
pub fn column(sql_type: &SqlType, bytes: &[u8]) -> ArrayRef {
    let (places, program) = bytes.split_first().map_or((0, bytes), |(first, rest)| (*first % 8, rest));
    let numbers = run(program);
    match sql_type {
        SqlType::Array(element) => list(element, &numbers, places),
        _ => scalars(sql_type, &numbers, places),
    }
}

/// What the steps give: a number for each row, or NULL.
fn run(program: &[u8]) -> Vec<Option<i64>> {
    let mut numbers: Vec<Option<i64>> = Vec::new();
    let mut program = program;
    let mut last = 0i64;
    while let Some((step, rest)) = program.split_first()
        && numbers.len() < ROWS_MAX
    {
        program = rest;
        let count = usize::from(step >> 3) + 1;
        match step & 7 {
            // As they stand.
            0 => {
                for _ in 0..count {
                    let Some((bytes, rest)) = program.split_first_chunk::<8>() else { break };
                    program = rest;
                    last = i64::from_le_bytes(*bytes);
                    numbers.push(Some(last));
                }
            }
            1 => {
                last = i64::from(take(&mut program) as i8);
                numbers.extend(std::iter::repeat_n(Some(last), count));
            }
            2 => numbers.extend(std::iter::repeat_n(Some(last), count * LONG_ROWS)),
            3 => numbers.extend(std::iter::repeat_n(None, count)),
            // A ramp.
            4 => {
                let by = i64::from(take(&mut program) as i8) << (take(&mut program) % 48);
                for _ in 0..count * LONG_ROWS {
                    last = last.wrapping_add(by);
                    numbers.push(Some(last));
                }
            }
            // Noise of some bits around the last number, which stays where it is or walks along.
            5 | 6 => {
                let bits = u32::from(take(&mut program) % 64);
                let mut seed = u64::from(take(&mut program)) + 1;
                for _ in 0..count * LONG_ROWS {
                    seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ 0x5555;
                    let number = last.wrapping_add(seed as i64 >> (63 - bits));
                    last = if step & 7 == 6 { number } else { last };
                    numbers.push(Some(number));
                }
            }
            // What was there before, in the same order.
            _ => {
                let from = numbers.len().saturating_sub(1 + usize::from(take(&mut program)));
                for at in 0..(count * LONG_ROWS).min(ROWS_MAX) {
                    let Some(number) = numbers.get(from + at).copied() else { break };
                    numbers.push(number);
                }
            }
        }
    }
    numbers.truncate(ROWS_MAX);
    numbers
}

fn take(program: &mut &[u8]) -> u8 {
    let Some((first, rest)) = program.split_first() else { return 0 };
    *program = rest;
    *first
}

fn scalars(sql_type: &SqlType, numbers: &[Option<i64>], places: u8) -> ArrayRef {
    let nulls = numbers.contains(&None).then(|| numbers.iter().map(Option::is_some).collect::<NullBuffer>());
    // A NULL row has a number of its own, which must not matter.
    let numbers: Vec<i64> = numbers.iter().map(|number| number.unwrap_or(i64::MIN + 7)).collect();
    let all = || numbers.iter().copied();
    match sql_type {
        SqlType::Bool => Arc::new(BooleanArray::new(all().map(|n| n & 1 == 1).collect(), nulls)),
        SqlType::Int2 => Arc::new(Int16Array::new(all().map(|n| n as i16).collect(), nulls)),
        SqlType::Int4 => Arc::new(Int32Array::new(all().map(|n| n as i32).collect(), nulls)),
        SqlType::Float4 => Arc::new(Float32Array::new(all().map(|n| float4(n, places)).collect(), nulls)),
        SqlType::Float8 => Arc::new(Float64Array::new(all().map(|n| float8(n, places)).collect(), nulls)),
        SqlType::Numeric(_) => {
            primitive::<Decimal128Type>(sql_type, all().map(|n| numeric(n, places)).collect(), nulls)
        }
        SqlType::Timestamptz => primitive::<TimestampMicrosecondType>(sql_type, numbers, nulls),
        SqlType::Date => primitive::<Date32Type>(sql_type, all().map(|n| n as i32).collect(), nulls),
        SqlType::Interval => primitive::<IntervalMonthDayNanoType>(sql_type, all().map(interval).collect(), nulls),
        SqlType::Uuid => {
            let bytes: Vec<u8> =
                all().flat_map(|n| (n as u128).wrapping_mul(0x1_0000_0001_0003).to_be_bytes()).collect();
            Arc::new(FixedSizeBinaryArray::new(16, bytes.into(), nulls))
        }
        SqlType::Bytea => {
            let array = BinaryArray::from_iter_values(all().map(binary));
            Arc::new(BinaryArray::new(array.offsets().clone(), array.values().clone(), nulls))
        }
        SqlType::Text | SqlType::Jsonb => {
            let array = StringArray::from_iter_values(all().map(text));
            Arc::new(StringArray::new(array.offsets().clone(), array.values().clone(), nulls))
        }
        _ => Arc::new(Int64Array::new(numbers.into(), nulls)),
    }
}

fn primitive<T: ArrowPrimitiveType>(sql_type: &SqlType, values: Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(sql_type.arrow()))
}

/// Lists of up to three elements, some of them NULL themselves.
fn list(element: &SqlType, numbers: &[Option<i64>], places: u8) -> ArrayRef {
    let lengths = numbers.iter().map(|number| number.unwrap_or(1).rem_euclid(4) as usize);
    let offsets = OffsetBuffer::from_lengths(lengths);
    let count = offsets.last().map_or(0, |end| *end as usize);
    let elements: Vec<Option<i64>> = numbers.iter().copied().cycle().skip(1).take(count).collect();
    let nulls = numbers.contains(&None).then(|| numbers.iter().map(Option::is_some).collect::<NullBuffer>());
    let field = Arc::new(Field::new("item", element.arrow(), true));
    Arc::new(ListArray::new(field, offsets, scalars(element, &elements, places), nulls))
}

/// With 0 places the number is the float's bits.
fn float8(number: i64, places: u8) -> f64 {
    match places {
        0 => f64::from_bits(number as u64),
        places => (number >> 11) as f64 / 10f64.powi(i32::from(places) - 1),
    }
}

fn float4(number: i64, places: u8) -> f32 {
    match places {
        0 => f32::from_bits(number as u32),
        places => ((number >> 40) as f64 / 10f64.powi(i32::from(places) - 1)) as f32,
    }
}

fn numeric(number: i64, places: u8) -> i128 {
    i128::from(number) << (u32::from(places) * 9)
}

fn interval(number: i64) -> IntervalMonthDayNano {
    IntervalMonthDayNano::new(number as i32, (number >> 32) as i32, number.rotate_left(17))
}

fn binary(number: i64) -> Vec<u8> {
    match number & 3 {
        0 => Vec::new(),
        1 => vec![(number >> 2) as u8; (number >> 10 & 63) as usize],
        _ => number.to_le_bytes()[..(number >> 2 & 7) as usize].to_vec(),
    }
}

fn text(number: i64) -> String {
    match number & 3 {
        0 => String::new(),
        1 => "ü€".repeat((number >> 2 & 31) as usize),
        2 => format!("host_{}", number >> 2),
        _ => format!("{number:x}"),
    }
}
