//! Arrays that stand in for a SQL type's own: plans yield other widths, units, scales, views and dictionaries. Each is
//! brought to the form that [`Encoder`](crate::encoder::Encoder) writes from, once per batch.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, IntervalMonthDayNanoArray, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal128Type, Decimal256Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float32Type, Float64Type, Int16Type,
    Int32Type, Int64Type, IntervalDayTimeType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    IntervalYearMonthType, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use meridian_proto::SqlType;
use meridian_proto::time::US_PER_DAY;

use super::{Column, Encoder};
use crate::calendar::{TIMESTAMP_INFINITY, TIMESTAMP_NEG_INFINITY, US_PER_SECOND};
use crate::datetime::RecentHour;
use crate::format::Format;
use crate::types::numeric;

/// Scale of a float shown as numeric.
const FLOAT_SCALE: i8 = 16;

pub(crate) fn column_of(sql_type: &SqlType, array: &ArrayRef, format: &Format) -> Column {
    let array = match array.data_type() {
        DataType::Null => return Column::Null,
        DataType::Dictionary(_, value) => &cast_or(array, value),
        DataType::RunEndEncoded(_, value) => &cast_or(array, value.data_type()),
        _ => array,
    };
    exact(sql_type, array, format)
        .or_else(|| kindred(sql_type, array, format))
        .or_else(|| exact(sql_type, &cast(array, &sql_type.arrow()).ok()?, format))
        .unwrap_or_else(|| rendered(array, format))
}

fn cast_or(array: &ArrayRef, target: &DataType) -> ArrayRef {
    cast(array, target).unwrap_or_else(|_| Arc::clone(array))
}

/// The type's own array, or one of the same values in another layout.
fn exact(sql_type: &SqlType, array: &ArrayRef, format: &Format) -> Option<Column> {
    Some(match sql_type {
        SqlType::Bool => Column::Bool(array.as_boolean_opt()?.clone()),
        SqlType::Int2 => Column::Int2(array.as_primitive_opt::<Int16Type>()?.clone()),
        SqlType::Int4 => Column::Int4(array.as_primitive_opt::<Int32Type>()?.clone()),
        SqlType::Int8 => Column::Int8(array.as_primitive_opt::<Int64Type>()?.clone()),
        SqlType::Float4 => Column::Float4(array.as_primitive_opt::<Float32Type>()?.clone()),
        SqlType::Float8 => Column::Float8(array.as_primitive_opt::<Float64Type>()?.clone()),
        SqlType::Numeric(limits) => decimal(array.as_primitive_opt::<Decimal128Type>()?, *limits),
        SqlType::Char(length) => match array.data_type() {
            DataType::Utf8 => Column::Char(array.as_string::<i32>().clone(), *length as usize),
            _ => return None,
        },
        SqlType::Text | SqlType::Varchar(_) => match array.data_type() {
            DataType::Utf8 => Column::Text(array.as_string::<i32>().clone()),
            DataType::LargeUtf8 => Column::LargeText(array.as_string::<i64>().clone()),
            DataType::Utf8View => Column::TextView(array.as_string_view().clone()),
            _ => return None,
        },
        SqlType::Jsonb => Column::Jsonb(array.as_string_opt::<i32>()?.clone()),
        SqlType::Timestamptz => {
            Column::Timestamptz(timestamps(array)?, format.time_zone.clone(), RecentHour::default())
        }
        SqlType::Timestamp => Column::Timestamp(timestamps(array)?, RecentHour::default()),
        SqlType::Date => Column::Date(dates(array)?),
        SqlType::Time => Column::Time(times(array)?),
        SqlType::Interval => Column::Interval(intervals(array)?),
        SqlType::Uuid => match array.data_type() {
            DataType::FixedSizeBinary(16) => Column::Uuid(array.as_fixed_size_binary().clone()),
            _ => return None,
        },
        SqlType::Bytea => Column::Bytea(array.as_binary_opt::<i32>()?.clone(), format.bytea_output),
        SqlType::Array(element) => {
            let list = array.as_list_opt::<i32>()?;
            Column::Array {
                offsets: list.offsets().clone(),
                elements: Box::new(Encoder::new(element, list.values(), format)),
                element_oid: element.oid(),
            }
        }
    })
}

/// Arrays of another type whose values a plain cast would lose or misread.
fn kindred(sql_type: &SqlType, array: &ArrayRef, format: &Format) -> Option<Column> {
    let data_type = array.data_type();
    Some(match sql_type {
        SqlType::Int2 | SqlType::Int4 | SqlType::Int8 if data_type.is_integer() => integers(sql_type, array)?,
        SqlType::Numeric(limits) => numerics(array, *limits)?,
        // Whatever a query calls text is shown as its own type is.
        SqlType::Char(_) if matches!(data_type, DataType::LargeUtf8 | DataType::Utf8View) => {
            exact(sql_type, &cast_or(array, &DataType::Utf8), format)?
        }
        SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) => rendered(array, format),
        SqlType::Array(element) => {
            let values = match data_type {
                DataType::LargeList(field) | DataType::FixedSizeList(field, _) | DataType::ListView(field) => field,
                _ => return None,
            };
            let list = cast(array, &DataType::List(Arc::clone(values))).ok()?;
            exact(&SqlType::Array(element.clone()), &list, format)?
        }
        _ => return None,
    })
}

/// Integers of another width: of the type's own if all fit, else as wide as they are.
fn integers(sql_type: &SqlType, array: &ArrayRef) -> Option<Column> {
    let narrow = cast(array, &sql_type.arrow()).ok()?;
    if narrow.null_count() == array.logical_null_count() {
        return exact(sql_type, &narrow, &Format::default());
    }
    match array.data_type() {
        DataType::UInt64 => numerics(array, Some((20, 0))),
        _ => Some(Column::Int8(cast(array, &DataType::Int64).ok()?.as_primitive::<Int64Type>().clone())),
    }
}

fn numerics(array: &ArrayRef, limits: numeric::Limits) -> Option<Column> {
    let target = match array.data_type() {
        DataType::Decimal256(..) => return Some(wide_decimal(array)),
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => DataType::Decimal128(38, *scale),
        data_type if data_type.is_integer() => DataType::Decimal128(38, 0),
        data_type if data_type.is_floating() => DataType::Decimal128(38, FLOAT_SCALE),
        _ => return None,
    };
    let cast = cast(array, &target).ok()?;
    Some(decimal(cast.as_primitive::<Decimal128Type>(), limits))
}

/// Decimals with the digits behind the point that the type says.
fn decimal(values: &Decimal128Array, limits: numeric::Limits) -> Column {
    let scale = values.scale();
    let Some((_, wanted)) = limits.filter(|(_, wanted)| *wanted != scale) else {
        return Column::Numeric { values: values.clone(), scale, is_trimmed: limits.is_none() };
    };
    // A value that cannot be rescaled keeps all of them as they are.
    match values.try_unary::<_, Decimal128Type, _>(|value| numeric::rescale(value, scale, Some((38, wanted)))) {
        Ok(rescaled) => Column::Numeric { values: rescaled, scale: wanted, is_trimmed: false },
        Err(_) => Column::Numeric { values: values.clone(), scale, is_trimmed: false },
    }
}

fn wide_decimal(array: &ArrayRef) -> Column {
    let values = array.as_primitive::<Decimal256Type>();
    let text = |row| values.is_valid(row).then(|| values.value_as_string(row));
    Column::WideNumeric((0..values.len()).map(text).collect::<StringArray>())
}

fn map<From: ArrowPrimitiveType, To: ArrowPrimitiveType>(
    array: &ArrayRef,
    convert: impl Fn(From::Native) -> To::Native,
) -> arrow::array::PrimitiveArray<To> {
    array.as_primitive::<From>().unary(convert)
}

fn timestamps(array: &ArrayRef) -> Option<TimestampMicrosecondArray> {
    let scaled = |factor: i64| {
        move |value: i64| match value {
            TIMESTAMP_INFINITY | TIMESTAMP_NEG_INFINITY => value,
            _ => value.saturating_mul(factor),
        }
    };
    Some(match array.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().clone(),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => map::<TimestampNanosecondType, _>(array, |value| match value {
            TIMESTAMP_INFINITY | TIMESTAMP_NEG_INFINITY => value,
            _ => value.div_euclid(1000),
        }),
        DataType::Timestamp(TimeUnit::Millisecond, _) => map::<TimestampMillisecondType, _>(array, scaled(1000)),
        DataType::Timestamp(TimeUnit::Second, _) => map::<TimestampSecondType, _>(array, scaled(US_PER_SECOND)),
        _ => return None,
    })
}

fn dates(array: &ArrayRef) -> Option<Date32Array> {
    const MS_PER_DAY: i64 = US_PER_DAY / 1000;
    Some(match array.data_type() {
        DataType::Date32 => array.as_primitive::<Date32Type>().clone(),
        DataType::Date64 => map::<Date64Type, _>(array, |ms| {
            i32::try_from(ms.div_euclid(MS_PER_DAY)).unwrap_or(if ms > 0 { i32::MAX } else { i32::MIN })
        }),
        _ => return None,
    })
}

fn times(array: &ArrayRef) -> Option<Time64MicrosecondArray> {
    Some(match array.data_type() {
        DataType::Time64(TimeUnit::Microsecond) => array.as_primitive::<Time64MicrosecondType>().clone(),
        DataType::Time64(TimeUnit::Nanosecond) => map::<Time64NanosecondType, _>(array, |ns| ns / 1000),
        DataType::Time32(TimeUnit::Millisecond) => map::<Time32MillisecondType, _>(array, |ms| i64::from(ms) * 1000),
        DataType::Time32(TimeUnit::Second) => map::<Time32SecondType, _>(array, |s| i64::from(s) * US_PER_SECOND),
        _ => return None,
    })
}

fn intervals(array: &ArrayRef) -> Option<IntervalMonthDayNanoArray> {
    Some(match array.data_type() {
        DataType::Interval(IntervalUnit::MonthDayNano) => array.as_primitive::<IntervalMonthDayNanoType>().clone(),
        DataType::Interval(IntervalUnit::YearMonth) => {
            map::<IntervalYearMonthType, _>(array, |months| IntervalMonthDayNano::new(months, 0, 0))
        }
        DataType::Interval(IntervalUnit::DayTime) => map::<IntervalDayTimeType, _>(array, |value| {
            IntervalMonthDayNano::new(0, value.days, i64::from(value.milliseconds) * 1_000_000)
        }),
        DataType::Duration(TimeUnit::Second) => map::<DurationSecondType, _>(array, |s| elapsed(s, 1)),
        DataType::Duration(TimeUnit::Millisecond) => map::<DurationMillisecondType, _>(array, |ms| elapsed(ms, 1000)),
        DataType::Duration(TimeUnit::Microsecond) => {
            map::<DurationMicrosecondType, _>(array, |us| elapsed(us, US_PER_SECOND))
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            map::<DurationNanosecondType, _>(array, |ns| elapsed(ns, 1_000_000_000))
        }
        _ => return None,
    })
}

/// A duration as the difference of two timestamps is shown: days, then the time of a day.
fn elapsed(value: i64, units_per_second: i64) -> IntervalMonthDayNano {
    let units_per_day = 86_400 * units_per_second;
    let days = value / units_per_day;
    let rest = value % units_per_day * (1_000_000_000 / units_per_second);
    let capped = i32::try_from(days).unwrap_or(if days > 0 { i32::MAX } else { i32::MIN });
    IntervalMonthDayNano::new(0, capped, rest)
}

/// Any array as text: of the SQL type that is natural for it, else as Arrow prints it.
fn rendered(array: &ArrayRef, format: &Format) -> Column {
    let natural = SqlType::of_arrow(array.data_type()).filter(|natural| *natural != SqlType::Text);
    let encoder = natural.and_then(|natural| Some((exact(&natural, array, format)?, natural)));
    let texts: StringArray = match encoder {
        Some((_, natural)) => {
            let encoder = Encoder::new(&natural, array, format);
            let mut out = bytes::BytesMut::new();
            let text = |row| {
                (!encoder.is_null(row)).then(|| {
                    out.clear();
                    encoder.text(row, &mut out);
                    String::from_utf8_lossy(&out).into_owned()
                })
            };
            (0..array.len()).map(text).collect()
        }
        None => {
            let text = |row| {
                array.is_valid(row).then(|| arrow::util::display::array_value_to_string(array, row).unwrap_or_default())
            };
            (0..array.len()).map(text).collect()
        }
    };
    Column::Text(texts)
}
