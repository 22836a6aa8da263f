//! Values in text or binary form into one Arrow array.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder, ListArray, StringBuilder,
    Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use meridian_proto::SqlType;
use meridian_proto::modifier::Modifier;
use meridian_proto::time::{POSTGRES_EPOCH_DAYS, POSTGRES_EPOCH_US, US_PER_DAY};

use crate::calendar::{
    DATE_DAYS_MAX, DATE_INFINITY, DATE_NEG_INFINITY, DAYS_MIN, TIMESTAMP_INFINITY, TIMESTAMP_MAX_US, TIMESTAMP_MIN_US,
    TIMESTAMP_NEG_INFINITY,
};
use crate::datetime::{self, DayCache};
use crate::error::{DATETIME_OVERFLOW, TOO_LARGE, ValueError};
use crate::format::Format;
use crate::types::integer::exact;
use crate::types::numeric::Limits;
use crate::types::{array, boolean, bytea, float, integer, jsonb, numeric, string, uuid};

/// Collects the values of one column. After an error the builder is to be dropped.
pub struct ColumnBuilder {
    values: Values,
    /// Bytes of the text of all values, for whoever limits the size of batches.
    byte_count: usize,
}

enum Values {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Numeric(Decimal128Builder, Limits),
    Text(StringBuilder),
    /// varchar(n), char(n)
    Sized(StringBuilder, SqlType),
    Timestamptz(TimestampMicrosecondBuilder, DayCache),
    Timestamp(TimestampMicrosecondBuilder, DayCache),
    Date(Date32Builder, DayCache),
    Time(Time64MicrosecondBuilder),
    Interval(IntervalMonthDayNanoBuilder, Option<Modifier>),
    Uuid(FixedSizeBinaryBuilder),
    Bytea(BinaryBuilder),
    Jsonb(StringBuilder),
    Array(Box<ArrayValues>),
}

struct ArrayValues {
    element_type: SqlType,
    elements: ColumnBuilder,
    /// Where each array ends among the elements.
    ends: Vec<i32>,
    is_valid: Vec<bool>,
}

/// Bytes that a text column's array can hold: its offsets are `i32`.
const ARRAY_BYTES_MAX: usize = i32::MAX as usize;
/// Bytes that a text value is expected to have.
const TEXT_BYTES: usize = 8;

impl ColumnBuilder {
    #[must_use]
    pub fn new(sql_type: &SqlType, capacity: usize) -> Self {
        let text = || StringBuilder::with_capacity(capacity, capacity * TEXT_BYTES);
        let timestamp = || TimestampMicrosecondBuilder::with_capacity(capacity).with_data_type(sql_type.arrow());
        let values = match sql_type {
            SqlType::Bool => Values::Bool(BooleanBuilder::with_capacity(capacity)),
            SqlType::Int2 => Values::Int2(Int16Builder::with_capacity(capacity)),
            SqlType::Int4 => Values::Int4(Int32Builder::with_capacity(capacity)),
            SqlType::Int8 => Values::Int8(Int64Builder::with_capacity(capacity)),
            SqlType::Float4 => Values::Float4(Float32Builder::with_capacity(capacity)),
            SqlType::Float8 => Values::Float8(Float64Builder::with_capacity(capacity)),
            SqlType::Numeric(limits) => {
                let builder = Decimal128Builder::with_capacity(capacity).with_data_type(sql_type.arrow());
                Values::Numeric(builder, *limits)
            }
            SqlType::Text | SqlType::Varchar(None) => Values::Text(text()),
            SqlType::Varchar(Some(_)) | SqlType::Char(_) => Values::Sized(text(), sql_type.clone()),
            SqlType::Timestamptz => Values::Timestamptz(timestamp(), DayCache::default()),
            SqlType::Timestamp => Values::Timestamp(timestamp(), DayCache::default()),
            SqlType::Date => Values::Date(Date32Builder::with_capacity(capacity), DayCache::default()),
            SqlType::Time => Values::Time(Time64MicrosecondBuilder::with_capacity(capacity)),
            SqlType::Interval => Values::Interval(IntervalMonthDayNanoBuilder::with_capacity(capacity), None),
            SqlType::Uuid => Values::Uuid(FixedSizeBinaryBuilder::with_capacity(capacity, 16)),
            SqlType::Bytea => Values::Bytea(BinaryBuilder::with_capacity(capacity, capacity * TEXT_BYTES)),
            SqlType::Jsonb => Values::Jsonb(text()),
            SqlType::Array(element_type) => Values::Array(Box::new(ArrayValues {
                element_type: (**element_type).clone(),
                elements: Self::new(element_type, capacity),
                ends: Vec::with_capacity(capacity),
                is_valid: Vec::with_capacity(capacity),
            })),
        };
        Self { values, byte_count: 0 }
    }

    /// Of an interval of some fields: a number alone counts the smallest of them.
    #[must_use]
    pub fn with_modifier(mut self, modifier: Option<Modifier>) -> Self {
        if let Values::Interval(_, of) = &mut self.values {
            *of = modifier;
        }
        self
    }

    /// Appends the value of a text form.
    #[inline]
    pub fn push_text(&mut self, text: &[u8], format: &Format) -> Result<(), ValueError> {
        if let Values::Text(_) | Values::Sized(..) = self.values {
            return self.push_str(string::check(text)?, format);
        }
        self.push_bytes(text, format)
    }

    /// Appends the value of a text form that holds no NUL.
    #[inline]
    pub(crate) fn push_str(&mut self, text: &str, format: &Format) -> Result<(), ValueError> {
        match &mut self.values {
            Values::Text(builder) => append_text(builder, text, &mut self.byte_count),
            Values::Sized(builder, sql_type) => {
                append_text(builder, &string::fit_length(sql_type, text)?, &mut self.byte_count)
            }
            _ => self.push_bytes(text.as_bytes(), format),
        }
    }

    #[inline]
    fn push_bytes(&mut self, text: &[u8], format: &Format) -> Result<(), ValueError> {
        match &mut self.values {
            Values::Float8(builder) => builder.append_value(float::parse_f64(text)?),
            Values::Int8(builder) => builder.append_value(integer::parse(text, i64::MIN, i64::MAX, "bigint")?),
            Values::Int4(builder) => {
                let value = integer::parse(text, i32::MIN.into(), i32::MAX.into(), "integer")?;
                builder.append_value(value as i32);
            }
            Values::Int2(builder) => {
                let value = integer::parse(text, i16::MIN.into(), i16::MAX.into(), "smallint")?;
                builder.append_value(value as i16);
            }
            Values::Float4(builder) => builder.append_value(float::parse_f32(text)?),
            Values::Timestamptz(builder, cache) => {
                builder.append_value(datetime::parse_timestamptz(text, format, cache)?);
            }
            Values::Timestamp(builder, cache) => builder.append_value(datetime::parse_timestamp(text, format, cache)?),
            Values::Date(builder, cache) => builder.append_value(datetime::parse_date(text, format, cache)?),
            Values::Numeric(builder, limits) => builder.append_value(numeric::parse(text, *limits)?),
            Values::Bool(builder) => builder.append_value(boolean::parse(text)?),
            _ => return self.push_rare(text, format),
        }
        Ok(())
    }

    fn push_rare(&mut self, text: &[u8], format: &Format) -> Result<(), ValueError> {
        match &mut self.values {
            Values::Time(builder) => builder.append_value(datetime::parse_time(text, format)?),
            Values::Interval(builder, modifier) => {
                let text = String::from_utf8_lossy(text);
                let text = modifier.map_or(Cow::Borrowed(&*text), |modifier| modifier.with_unit(&text));
                builder.append_value(datetime::parse_interval(&text)?);
            }
            Values::Uuid(builder) => append_uuid(builder, uuid::parse(text)?)?,
            Values::Bytea(builder) => append_bytes(builder, &bytea::parse(text)?, &mut self.byte_count)?,
            Values::Jsonb(builder) => append_text(builder, &jsonb::normalise(text)?, &mut self.byte_count)?,
            Values::Array(values) => {
                for element in array::parse(text)? {
                    match element {
                        Some(element) => values.elements.push_text(&element, format)?,
                        None => values.elements.push_null(),
                    }
                }
                values.finish_array(true)?;
                self.byte_count = values.byte_count();
            }
            _ => debug_assert!(false, "the common types are read above"),
        }
        Ok(())
    }

    /// Appends the value of a binary form.
    pub fn push_binary(&mut self, bytes: &[u8]) -> Result<(), ValueError> {
        match &mut self.values {
            Values::Bool(builder) => builder.append_value(boolean::parse_binary(bytes)?),
            Values::Int2(builder) => builder.append_value(i16::from_be_bytes(exact(bytes)?)),
            Values::Int4(builder) => builder.append_value(i32::from_be_bytes(exact(bytes)?)),
            Values::Int8(builder) => builder.append_value(i64::from_be_bytes(exact(bytes)?)),
            Values::Float4(builder) => builder.append_value(f32::from_be_bytes(exact(bytes)?)),
            Values::Float8(builder) => builder.append_value(f64::from_be_bytes(exact(bytes)?)),
            Values::Numeric(builder, limits) => builder.append_value(numeric::parse_binary(bytes, *limits)?),
            Values::Text(builder) => append_text(builder, string::check(bytes)?, &mut self.byte_count)?,
            Values::Sized(builder, sql_type) => {
                let text = string::fit_length(sql_type, string::check(bytes)?)?;
                append_text(builder, &text, &mut self.byte_count)?;
            }
            Values::Timestamptz(builder, _) | Values::Timestamp(builder, _) => {
                builder.append_value(timestamp_of_binary(i64::from_be_bytes(exact(bytes)?))?);
            }
            Values::Date(builder, _) => builder.append_value(date_of_binary(i32::from_be_bytes(exact(bytes)?))?),
            Values::Time(builder) => builder.append_value(time_of_binary(i64::from_be_bytes(exact(bytes)?))?),
            Values::Interval(builder, _) => builder.append_value(interval_of_binary(exact(bytes)?)?),
            Values::Uuid(builder) => append_uuid(builder, uuid::parse_binary(bytes)?)?,
            Values::Bytea(builder) => append_bytes(builder, bytes, &mut self.byte_count)?,
            Values::Jsonb(builder) => append_text(builder, &jsonb::parse_binary(bytes)?, &mut self.byte_count)?,
            Values::Array(values) => {
                for element in array::parse_binary(bytes, values.element_type.oid())? {
                    match element {
                        Some(element) => values.elements.push_binary(element)?,
                        None => values.elements.push_null(),
                    }
                }
                values.finish_array(true)?;
                self.byte_count = values.byte_count();
            }
        }
        Ok(())
    }

    #[inline]
    pub fn push_null(&mut self) {
        match &mut self.values {
            Values::Bool(builder) => builder.append_null(),
            Values::Int2(builder) => builder.append_null(),
            Values::Int4(builder) => builder.append_null(),
            Values::Int8(builder) => builder.append_null(),
            Values::Float4(builder) => builder.append_null(),
            Values::Float8(builder) => builder.append_null(),
            Values::Numeric(builder, _) => builder.append_null(),
            Values::Text(builder) | Values::Sized(builder, _) | Values::Jsonb(builder) => builder.append_null(),
            Values::Timestamptz(builder, _) | Values::Timestamp(builder, _) => builder.append_null(),
            Values::Date(builder, _) => builder.append_null(),
            Values::Time(builder) => builder.append_null(),
            Values::Interval(builder, _) => builder.append_null(),
            Values::Uuid(builder) => builder.append_null(),
            Values::Bytea(builder) => builder.append_null(),
            // Adds no elements, so that it cannot fail.
            Values::Array(values) => drop(values.finish_array(false)),
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        use arrow::array::ArrayBuilder as _;
        match &self.values {
            Values::Bool(builder) => builder.len(),
            Values::Int2(builder) => builder.len(),
            Values::Int4(builder) => builder.len(),
            Values::Int8(builder) => builder.len(),
            Values::Float4(builder) => builder.len(),
            Values::Float8(builder) => builder.len(),
            Values::Numeric(builder, _) => builder.len(),
            Values::Text(builder) | Values::Sized(builder, _) | Values::Jsonb(builder) => builder.len(),
            Values::Timestamptz(builder, _) | Values::Timestamp(builder, _) => builder.len(),
            Values::Date(builder, _) => builder.len(),
            Values::Time(builder) => builder.len(),
            Values::Interval(builder, _) => builder.len(),
            Values::Uuid(builder) => builder.len(),
            Values::Bytea(builder) => builder.len(),
            Values::Array(values) => values.ends.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the values whose size is not given by their type.
    #[must_use]
    #[inline]
    pub(crate) fn byte_count(&self) -> usize {
        self.byte_count
    }

    /// The array of what was pushed; the builder is empty again.
    #[must_use]
    pub fn finish(&mut self) -> ArrayRef {
        self.byte_count = 0;
        match &mut self.values {
            Values::Bool(builder) => Arc::new(builder.finish()),
            Values::Int2(builder) => Arc::new(builder.finish()),
            Values::Int4(builder) => Arc::new(builder.finish()),
            Values::Int8(builder) => Arc::new(builder.finish()),
            Values::Float4(builder) => Arc::new(builder.finish()),
            Values::Float8(builder) => Arc::new(builder.finish()),
            Values::Numeric(builder, _) => Arc::new(builder.finish()),
            Values::Text(builder) | Values::Sized(builder, _) | Values::Jsonb(builder) => Arc::new(builder.finish()),
            Values::Timestamptz(builder, _) | Values::Timestamp(builder, _) => Arc::new(builder.finish()),
            Values::Date(builder, _) => Arc::new(builder.finish()),
            Values::Time(builder) => Arc::new(builder.finish()),
            Values::Interval(builder, _) => Arc::new(builder.finish()),
            Values::Uuid(builder) => Arc::new(builder.finish()),
            Values::Bytea(builder) => Arc::new(builder.finish()),
            Values::Array(values) => Arc::new(values.finish()),
        }
    }
}

impl ArrayValues {
    /// Ends the array of the elements pushed since the last one.
    fn finish_array(&mut self, is_valid: bool) -> Result<(), ValueError> {
        self.ends.push(i32::try_from(self.elements.len()).map_err(|_| too_large())?);
        self.is_valid.push(is_valid);
        Ok(())
    }

    fn byte_count(&self) -> usize {
        // Elements of a fixed size count as 16 bytes, the largest such size.
        self.elements.byte_count() + self.elements.len() * 16
    }

    fn finish(&mut self) -> ListArray {
        let DataType::List(field) = SqlType::Array(Box::new(self.element_type.clone())).arrow() else {
            unreachable!("an array type is held in lists")
        };
        let offsets: Vec<i32> = std::iter::once(0).chain(self.ends.drain(..)).collect();
        let is_valid = std::mem::take(&mut self.is_valid);
        let nulls = is_valid.contains(&false).then(|| NullBuffer::new(BooleanBuffer::from(is_valid)));
        ListArray::new(field, OffsetBuffer::new(offsets.into()), self.elements.finish(), nulls)
    }
}

#[inline]
fn append_text(builder: &mut StringBuilder, text: &str, byte_count: &mut usize) -> Result<(), ValueError> {
    *byte_count += text.len();
    if *byte_count > ARRAY_BYTES_MAX {
        return Err(too_large());
    }
    builder.append_value(text);
    Ok(())
}

fn append_bytes(builder: &mut BinaryBuilder, bytes: &[u8], byte_count: &mut usize) -> Result<(), ValueError> {
    *byte_count += bytes.len();
    if *byte_count > ARRAY_BYTES_MAX {
        return Err(too_large());
    }
    builder.append_value(bytes);
    Ok(())
}

fn append_uuid(builder: &mut FixedSizeBinaryBuilder, value: [u8; 16]) -> Result<(), ValueError> {
    // Only a wrong length can fail.
    builder.append_value(value).map_err(|_| ValueError::binary_length(value.len(), 16))
}

fn too_large() -> ValueError {
    ValueError::new(TOO_LARGE, "too many bytes in one column of a batch")
}

fn timestamp_of_binary(since_2000_us: i64) -> Result<i64, ValueError> {
    if since_2000_us == TIMESTAMP_INFINITY || since_2000_us == TIMESTAMP_NEG_INFINITY {
        return Ok(since_2000_us);
    }
    let us = since_2000_us.checked_add(POSTGRES_EPOCH_US);
    us.filter(|us| (TIMESTAMP_MIN_US..=TIMESTAMP_MAX_US).contains(us))
        .ok_or_else(|| ValueError::new(DATETIME_OVERFLOW, "timestamp out of range"))
}

fn date_of_binary(since_2000_days: i32) -> Result<i32, ValueError> {
    if since_2000_days == DATE_INFINITY || since_2000_days == DATE_NEG_INFINITY {
        return Ok(since_2000_days);
    }
    let days = since_2000_days.checked_add(POSTGRES_EPOCH_DAYS);
    days.filter(|days| (DAYS_MIN..=DATE_DAYS_MAX).contains(&i64::from(*days)))
        .ok_or_else(|| ValueError::new(DATETIME_OVERFLOW, "date out of range"))
}

fn time_of_binary(us: i64) -> Result<i64, ValueError> {
    if (0..=US_PER_DAY).contains(&us) {
        return Ok(us);
    }
    Err(ValueError::new(DATETIME_OVERFLOW, "time out of range"))
}

/// Microseconds, days and months.
fn interval_of_binary(bytes: [u8; 16]) -> Result<IntervalMonthDayNano, ValueError> {
    let value = u128::from_be_bytes(bytes);
    let nanoseconds = ((value >> 64) as i64).checked_mul(1000);
    let (days, months) = ((value >> 32) as i32, value as i32);
    let out_of_range = || ValueError::new(DATETIME_OVERFLOW, "interval out of range");
    Ok(IntervalMonthDayNano::new(months, days, nanoseconds.ok_or_else(out_of_range)?))
}

/// An array of one value, read from its text form.
pub fn from_text(sql_type: &SqlType, text: &[u8], format: &Format) -> Result<ArrayRef, ValueError> {
    let mut builder = ColumnBuilder::new(sql_type, 1);
    builder.push_text(text, format)?;
    Ok(builder.finish())
}

/// An array of one value, read from its binary form.
pub fn from_binary(sql_type: &SqlType, bytes: &[u8]) -> Result<ArrayRef, ValueError> {
    let mut builder = ColumnBuilder::new(sql_type, 1);
    builder.push_binary(bytes)?;
    Ok(builder.finish())
}
