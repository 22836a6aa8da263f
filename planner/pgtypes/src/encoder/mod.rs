//! Values of one Arrow array into text or binary form.

mod kindred;
mod short;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, LargeStringArray, StringArray,
    StringViewArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use bytes::{BufMut, BytesMut};
use meridian_proto::SqlType;
use meridian_proto::time::{POSTGRES_EPOCH_DAYS, POSTGRES_EPOCH_US};

use crate::calendar::{DATE_INFINITY, DATE_NEG_INFINITY, TIMESTAMP_INFINITY, TIMESTAMP_NEG_INFINITY};
use crate::datetime::{self, RecentHour};
use crate::format::{ByteaOutput, Format};
use crate::types::{array, bytea, float, integer, numeric, string, uuid};
use crate::zone::TimeZone;

pub(crate) use short::SHORT_BYTES;

/// Writes the values of one array. The array is taken apart once, here, and not per value.
pub struct Encoder {
    column: Column,
    nulls: Option<NullBuffer>,
    extra_float_digits: i32,
}

/// An array in the form that its SQL type is written from.
pub(crate) enum Column {
    /// Nothing but NULL.
    Null,
    Bool(BooleanArray),
    Int2(Int16Array),
    Int4(Int32Array),
    Int8(Int64Array),
    Float4(Float32Array),
    Float8(Float64Array),
    Numeric {
        values: Decimal128Array,
        scale: i8,
        /// Without limits of its own: zeros at the end are not shown.
        is_trimmed: bool,
    },
    /// Numbers of more digits than fit, as text.
    WideNumeric(StringArray),
    Text(StringArray),
    LargeText(LargeStringArray),
    TextView(StringViewArray),
    /// char(n), which is held without the spaces at its end.
    Char(StringArray, usize),
    Jsonb(StringArray),
    Timestamptz(TimestampMicrosecondArray, TimeZone, RecentHour),
    Timestamp(TimestampMicrosecondArray, RecentHour),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Interval(IntervalMonthDayNanoArray),
    Uuid(FixedSizeBinaryArray),
    Bytea(BinaryArray, ByteaOutput),
    Array {
        offsets: OffsetBuffer<i32>,
        elements: Box<Encoder>,
        element_oid: u32,
    },
}

impl Encoder {
    /// An encoder of `array` as `sql_type`. Arrays that DataFusion yields in place of the type's own are taken too: other
    /// widths, units and scales, views and dictionaries.
    #[must_use]
    pub fn new(sql_type: &SqlType, array: &ArrayRef, format: &Format) -> Self {
        Self {
            column: kindred::column_of(sql_type, array, format),
            nulls: array.logical_nulls(),
            extra_float_digits: format.extra_float_digits,
        }
    }

    /// Whether the value is NULL, also where the array only says so through a dictionary or its type.
    #[must_use]
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) || matches!(self.column, Column::Null)
    }

    /// Appends the text form; nothing for NULL.
    pub fn text(&self, row: usize, out: &mut BytesMut) {
        if self.is_null(row) {
            return;
        }
        match &self.column {
            Column::Null => {}
            Column::Bool(values) => out.put_u8(if values.value(row) { b't' } else { b'f' }),
            Column::Int2(values) => integer::write(values.value(row).into(), out),
            Column::Int4(values) => integer::write(values.value(row).into(), out),
            Column::Int8(values) => integer::write(values.value(row), out),
            Column::Float4(values) => float::write_f32(values.value(row), self.extra_float_digits, out),
            Column::Float8(values) => float::write_f64(values.value(row), self.extra_float_digits, out),
            Column::Numeric { values, scale, is_trimmed } => {
                numeric::write(values.value(row), *scale, *is_trimmed, out);
            }
            Column::Text(values) | Column::WideNumeric(values) | Column::Jsonb(values) => {
                out.put_slice(values.value(row).as_bytes());
            }
            Column::LargeText(values) => out.put_slice(values.value(row).as_bytes()),
            Column::TextView(values) => out.put_slice(values.value(row).as_bytes()),
            Column::Char(values, length) => string::write_char(values.value(row), *length, out),
            Column::Timestamptz(values, zone, recent) => {
                datetime::write_timestamptz(values.value(row), zone, recent, out);
            }
            Column::Timestamp(values, recent) => datetime::write_timestamp(values.value(row), recent, out),
            Column::Date(values) => datetime::write_date(values.value(row), out),
            Column::Time(values) => datetime::write_time(values.value(row), out),
            Column::Interval(values) => datetime::write_interval(values.value(row), out),
            Column::Uuid(values) => uuid::write(values.value(row), out),
            Column::Bytea(values, output) => bytea::write(values.value(row), *output, out),
            Column::Array { offsets, elements, .. } => elements.array_text(range(offsets, row), out),
        }
    }

    /// Appends the binary form; nothing for NULL.
    pub fn binary(&self, row: usize, out: &mut BytesMut) {
        if self.is_null(row) {
            return;
        }
        match &self.column {
            Column::Null => {}
            Column::Bool(values) => out.put_u8(u8::from(values.value(row))),
            Column::Int2(values) => out.put_i16(values.value(row)),
            Column::Int4(values) => out.put_i32(values.value(row)),
            Column::Int8(values) => out.put_i64(values.value(row)),
            Column::Float4(values) => out.put_f32(values.value(row)),
            Column::Float8(values) => out.put_f64(values.value(row)),
            Column::Numeric { values, scale, is_trimmed } => {
                numeric::write_binary(values.value(row), *scale, *is_trimmed, out);
            }
            Column::WideNumeric(values) => numeric::write_binary_text(values.value(row).as_bytes(), out),
            Column::Jsonb(values) => {
                out.put_u8(1);
                out.put_slice(values.value(row).as_bytes());
            }
            Column::Timestamptz(values, ..) | Column::Timestamp(values, _) => {
                out.put_i64(match values.value(row) {
                    infinity @ (TIMESTAMP_INFINITY | TIMESTAMP_NEG_INFINITY) => infinity,
                    us => us.saturating_sub(POSTGRES_EPOCH_US),
                });
            }
            Column::Date(values) => out.put_i32(match values.value(row) {
                infinity @ (DATE_INFINITY | DATE_NEG_INFINITY) => infinity,
                days => days.saturating_sub(POSTGRES_EPOCH_DAYS),
            }),
            Column::Time(values) => out.put_i64(values.value(row)),
            Column::Interval(values) => {
                let value = values.value(row);
                out.put_i64(datetime::interval_us(value));
                out.put_i32(value.days);
                out.put_i32(value.months);
            }
            Column::Uuid(values) => out.put_slice(values.value(row)),
            Column::Bytea(values, _) => out.put_slice(values.value(row)),
            Column::Array { offsets, elements, element_oid } => {
                elements.array_binary(range(offsets, row), *element_oid, out);
            }
            Column::Text(_) | Column::LargeText(_) | Column::TextView(_) | Column::Char(..) => self.text(row, out),
        }
    }

    /// Appends the text form as a field of a DataRow: its length in bytes, -1 for NULL, then the bytes.
    pub fn text_field(&self, row: usize, out: &mut BytesMut) {
        self.field(row, out, Self::text);
    }

    /// Appends the binary form as a field of a DataRow or a COPY tuple.
    pub fn binary_field(&self, row: usize, out: &mut BytesMut) {
        self.field(row, out, Self::binary);
    }

    fn field(&self, row: usize, out: &mut BytesMut, write: impl Fn(&Self, usize, &mut BytesMut)) {
        if self.is_null(row) {
            return out.put_i32(-1);
        }
        let start = out.len();
        out.put_i32(0);
        write(self, row, out);
        let length = i32::try_from(out.len() - start - 4).unwrap_or(i32::MAX);
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    fn array_text(&self, rows: std::ops::Range<usize>, out: &mut BytesMut) {
        out.put_u8(b'{');
        let mut element = BytesMut::new();
        for row in rows.clone() {
            if row > rows.start {
                out.put_u8(b',');
            }
            if self.is_null(row) {
                out.put_slice(b"NULL");
                continue;
            }
            match &self.column {
                Column::Int2(_) | Column::Int4(_) | Column::Int8(_) | Column::Array { .. } => self.text(row, out),
                _ => {
                    element.clear();
                    self.text(row, &mut element);
                    array::write_element(&element, out);
                }
            }
        }
        out.put_u8(b'}');
    }

    fn array_binary(&self, rows: std::ops::Range<usize>, element_oid: u32, out: &mut BytesMut) {
        let has_null = rows.clone().any(|row| self.is_null(row));
        out.put_i32(i32::from(!rows.is_empty()));
        out.put_i32(i32::from(has_null));
        out.put_u32(element_oid);
        if rows.is_empty() {
            return;
        }
        out.put_i32(i32::try_from(rows.len()).unwrap_or(i32::MAX));
        out.put_i32(1);
        for row in rows {
            self.binary_field(row, out);
        }
    }
}

fn range(offsets: &OffsetBuffer<i32>, row: usize) -> std::ops::Range<usize> {
    // Offsets of a valid array are never negative.
    offsets[row] as usize..offsets[row + 1] as usize
}

/// The text form of one value, `None` for NULL.
#[must_use]
pub fn to_text(sql_type: &SqlType, array: &ArrayRef, row: usize, format: &Format) -> Option<String> {
    let one = array.slice(row, 1);
    let encoder = Encoder::new(sql_type, &one, format);
    if encoder.is_null(0) {
        return None;
    }
    let mut out = BytesMut::new();
    encoder.text(0, &mut out);
    Some(String::from_utf8_lossy(&out).into_owned())
}
