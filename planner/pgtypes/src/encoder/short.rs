//! Fields that need no more than a few dozen bytes, written at once into a window whose size is known: no look at the room
//! in a growing buffer for each of their parts. Nearly all fields of most results are of this kind.

use bytes::BufMut;

use super::{Column, Encoder};
use crate::datetime::{self, RecentHour};
use crate::types::{float, integer};

/// Bytes that a short field has room for, its length included. The longest is a timestamp before Christ with microseconds
/// and an offset of seconds: 4 + 45.
pub const SHORT_BYTES: usize = 80;

/// The length of NULL.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
/// Numbers below have their fields ready.
const READY: usize = 1000;
/// Length and digits.
static FIELDS: [[u8; 8]; READY] = fields();
/// Texts that are compared at once.
const SAME_AT_ONCE: usize = 32;
/// Texts up to this long are copied as so many bytes.
const TEXT_CHUNK: usize = 16;

const fn fields() -> [[u8; 8]; READY] {
    let mut fields = [[0; 8]; READY];
    let mut number = 0;
    while number < READY {
        let digits = [(number / 100) as u8 + b'0', (number / 10 % 10) as u8 + b'0', (number % 10) as u8 + b'0'];
        let (first, length) = match number {
            0..10 => (2, 1),
            10..100 => (1, 2),
            _ => (0, 3),
        };
        fields[number][3] = length;
        let mut place = 0;
        while first + place < digits.len() {
            fields[number][4 + place] = digits[first + place];
            place += 1;
        }
        number += 1;
    }
    fields
}

impl Encoder {
    pub(crate) fn is_text_without_nulls(&self) -> bool {
        matches!(self.column, Column::Text(_)) && self.nulls.as_ref().is_none_or(|nulls| nulls.null_count() == 0)
    }

    /// For how many rows from this one on the text is the same, of at most so many.
    pub(crate) fn same_texts(&self, row: usize, rows_max: usize) -> usize {
        let Column::Text(values) = &self.column else { return 1 };
        let (offsets, bytes) = (&values.value_offsets()[row..], values.value_data());
        let length = offsets[1] - offsets[0];
        let is_as_long = |pair: &&[i32]| pair[1] - pair[0] == length;
        let as_long = offsets.windows(2).take(rows_max).take_while(is_as_long).count();
        let (start, length) = (offsets[0] as usize, length as usize);
        let is_same = |from: usize, to: usize| {
            // Each like the one before it.
            let texts = &bytes[start + (from - 1) * length..start + to * length];
            texts[length..] == texts[..texts.len() - length]
        };
        let mut same = 1;
        while same < as_long {
            let next = (same + SAME_AT_ONCE).min(as_long);
            if !is_same(same, next) {
                return same + (same..next).take_while(|row| is_same(*row, row + 1)).count();
            }
            same = next;
        }
        same
    }

    /// Writes the text form as a field of a DataRow and returns its bytes; `None`, with anything written, for one that is
    /// not short or of a type whose values seldom are.
    #[inline]
    pub(crate) fn short_text_field(&self, row: usize, field: &mut [u8; SHORT_BYTES]) -> Option<usize> {
        if self.is_null(row) {
            field[..4].copy_from_slice(&NULL);
            return Some(4);
        }
        Some(match &self.column {
            Column::Int2(values) => number(values.value(row).into(), field),
            Column::Int4(values) => number(values.value(row).into(), field),
            Column::Int8(values) => number(values.value(row), field),
            Column::Float8(values) if self.extra_float_digits > 0 => double(values.value(row), field)?,
            Column::Text(values) => {
                let (from, to) = (values.value_offsets()[row] as usize, values.value_offsets()[row + 1] as usize);
                text(values.value_data(), from, to, field)?
            }
            Column::Bool(values) => sized(field, |out| out.put_u8(if values.value(row) { b't' } else { b'f' })),
            Column::Date(values) => sized(field, |out| datetime::write_date(values.value(row), out)),
            Column::Timestamptz(values, zone, recent) => {
                let us = values.value(row);
                time(
                    us,
                    recent,
                    |at| zone.offset_s_at(at),
                    field,
                    |out| datetime::write_timestamptz(us, zone, recent, out),
                )
            }
            Column::Timestamp(values, recent) => {
                let us = values.value(row);
                time(us, recent, |_| 0, field, |out| datetime::write_timestamp(us, recent, out))
            }
            _ => return None,
        })
    }
}

#[inline]
fn number(value: i64, field: &mut [u8; SHORT_BYTES]) -> usize {
    match usize::try_from(value).ok().and_then(|at| FIELDS.get(at)) {
        Some(ready) => {
            field[..8].copy_from_slice(ready);
            4 + usize::from(ready[3])
        }
        None => sized(field, |out| integer::write(value, out)),
    }
}

#[inline]
fn double(value: f64, field: &mut [u8; SHORT_BYTES]) -> Option<usize> {
    if let Some(whole) = float::as_integer(value) {
        return Some(number(whole, field));
    }
    let decimal = float::as_decimal(value)?;
    Some(sized(field, |out| float::write_decimal(decimal, out)))
}

/// The bytes of `data` from `from` to `to`.
#[inline]
fn text(data: &[u8], from: usize, to: usize, field: &mut [u8; SHORT_BYTES]) -> Option<usize> {
    let length = to - from;
    match data.get(from..from + TEXT_CHUNK) {
        // What lies behind the text is overwritten by the next field.
        Some(chunk) if length <= TEXT_CHUNK => field[4..4 + TEXT_CHUNK].copy_from_slice(chunk),
        _ => field.get_mut(4..4 + length)?.copy_from_slice(&data[from..to]),
    }
    field[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Some(4 + length)
}

/// By the field of another time of its hour, or written anew.
#[inline]
fn time(
    us: i64,
    recent: &RecentHour,
    offset_s_at: impl Fn(i64) -> i32,
    field: &mut [u8; SHORT_BYTES],
    write: impl FnOnce(&mut &mut [u8]),
) -> usize {
    recent.write_field(us, field).unwrap_or_else(|| {
        let length = sized(field, write);
        recent.keep_field(us, &field[..length], offset_s_at);
        length
    })
}

/// What is written, behind its length.
#[inline]
fn sized(field: &mut [u8; SHORT_BYTES], write: impl FnOnce(&mut &mut [u8])) -> usize {
    let mut rest = &mut field[4..];
    write(&mut rest);
    let length = SHORT_BYTES - 4 - rest.remaining_mut();
    field[..4].copy_from_slice(&(length as u32).to_be_bytes());
    4 + length
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, TimestampMicrosecondArray};
    use bytes::BytesMut;
    use meridian_proto::SqlType;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::Format;
    use crate::zone::TimeZone;

    #[test]
    fn times_of_one_hour_are_fields_as_each_by_itself() {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        // Lord Howe moves by half an hour; Monrovia was 44:30 minutes west.
        for name in ["UTC", "America/St_Johns", "Australia/Lord_Howe", "Africa/Monrovia", "Europe/Amsterdam"] {
            let format = Format { time_zone: TimeZone::parse(name).unwrap(), ..Format::default() };
            let mut us = 0i64;
            let times: Vec<i64> = (0..60_000)
                .map(|_| {
                    us = match random.random_range(0..400) {
                        0 => random.random_range(-210_866_803_200_000_000..9_223_371_331_199_999_999),
                        1..5 => {
                            random.random_range(-3_000_000_000_000_000..3_000_000_000_000_000) / 60_000_000 * 60_000_000
                        }
                        5..20 => us.saturating_add(random.random_range(-4_000_000_000..4_000_000_000)),
                        step => us.saturating_add(i64::from(step % 90) * 1_000_000),
                    };
                    us
                })
                .collect();
            for sql_type in [SqlType::Timestamptz, SqlType::Timestamp] {
                let array = TimestampMicrosecondArray::from(times.clone());
                let array: ArrayRef = match sql_type {
                    SqlType::Timestamptz => Arc::new(array.with_timezone("UTC")),
                    _ => Arc::new(array),
                };
                let encoder = Encoder::new(&sql_type, &array, &format);
                let mut short = [0; SHORT_BYTES];
                for (row, us) in times.iter().enumerate() {
                    let mut field = BytesMut::new();
                    encoder.text_field(row, &mut field);
                    let length = encoder.short_text_field(row, &mut short).unwrap();
                    assert_eq!(short[..length], field, "{us} in {name}");
                }
            }
        }
    }
}
