//! Which values of a column lie within a bound. Rows may only be left out that surely lie outside.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use meridian_proto::SqlType;

use crate::scan::{Bound, Value};

/// Rows of a column that may lie within a bound.
pub struct Within {
    pub rows: BooleanBuffer,
    /// Whether those rows surely do.
    pub is_exact: bool,
}

/// Compares a whole column. NULL lies in no range; where the two cannot be compared every row may.
#[must_use]
pub fn within(array: &ArrayRef, sql_type: &SqlType, bound: &Bound) -> Within {
    let Some((rows, is_exact)) = compare(array, sql_type, bound) else {
        return Within { rows: BooleanBuffer::new_set(array.len()), is_exact: false };
    };
    let rows = match array.nulls() {
        Some(nulls) => &rows & nulls.inner(),
        None => rows,
    };
    Within { rows, is_exact }
}

fn compare(array: &ArrayRef, sql_type: &SqlType, bound: &Bound) -> Option<(BooleanBuffer, bool)> {
    Some(match sql_type {
        SqlType::Int2 => (integers::<Int16Type>(array, bound)?, true),
        SqlType::Int4 => (integers::<Int32Type>(array, bound)?, true),
        SqlType::Int8 => (integers::<Int64Type>(array, bound)?, true),
        SqlType::Date => (integers::<Date32Type>(array, bound)?, true),
        SqlType::Time => (integers::<Time64MicrosecondType>(array, bound)?, true),
        SqlType::Timestamp | SqlType::Timestamptz => (integers::<TimestampMicrosecondType>(array, bound)?, true),
        // Ends of float bounds are loose where zeros and NaN are concerned.
        SqlType::Float4 => (floats::<Float32Type>(array, bound)?, false),
        SqlType::Float8 => (floats::<Float64Type>(array, bound)?, false),
        SqlType::Numeric(_) => {
            let (low, high) = ends(bound, |value| if let Value::Decimal(value) = value { Some(*value) } else { None })?;
            let (low, high) = (low.unwrap_or(i128::MIN), high.unwrap_or(i128::MAX));
            let values = array.as_primitive_opt::<Decimal128Type>()?.values();
            (BooleanBuffer::collect_bool(values.len(), |row| (low..=high).contains(&values[row])), true)
        }
        SqlType::Text | SqlType::Varchar(_) => {
            let strings = array.as_string_opt::<i32>()?;
            (bytes(strings.len(), |row| strings.value(row).as_bytes(), bound)?, true)
        }
        SqlType::Bytea => {
            let binary = array.as_binary_opt::<i32>()?;
            (bytes(binary.len(), |row| binary.value(row), bound)?, true)
        }
        SqlType::Uuid => {
            let binary = array.as_fixed_size_binary_opt()?;
            (bytes(binary.len(), |row| binary.value(row), bound)?, true)
        }
        // Padded texts, jsonb and intervals have orders of their own.
        SqlType::Bool | SqlType::Char(_) | SqlType::Jsonb | SqlType::Interval | SqlType::Array(_) => return None,
    })
}

/// Both ends as `of` reads them; `None` when one of them is of another type.
fn ends<'a, T>(bound: &'a Bound, of: impl Fn(&'a Value) -> Option<T>) -> Option<(Option<T>, Option<T>)> {
    let read = |end: &'a Option<Value>| match end {
        None => Some(None),
        Some(value) => of(value).map(Some),
    };
    Some((read(&bound.min)?, read(&bound.max)?))
}

fn integers<T: ArrowPrimitiveType>(array: &ArrayRef, bound: &Bound) -> Option<BooleanBuffer>
where
    T::Native: Into<i64>,
{
    let (low, high) = ends(bound, |value| if let Value::Int(value) = value { Some(*value) } else { None })?;
    let (low, high) = (low.unwrap_or(i64::MIN), high.unwrap_or(i64::MAX));
    let values = array.as_primitive_opt::<T>()?.values();
    Some(BooleanBuffer::collect_bool(values.len(), |row| {
        let value: i64 = values[row].into();
        (low <= value) & (value <= high)
    }))
}

/// NaN lies within every bound, as it does for zone maps.
fn floats<T: ArrowPrimitiveType>(array: &ArrayRef, bound: &Bound) -> Option<BooleanBuffer>
where
    T::Native: Into<f64>,
{
    let (low, high) = ends(bound, |value| if let Value::Float(value) = value { Some(*value) } else { None })?;
    let (low, high) = (low.unwrap_or(f64::NAN), high.unwrap_or(f64::NAN));
    let values = array.as_primitive_opt::<T>()?.values();
    Some(BooleanBuffer::collect_bool(values.len(), |row| {
        let value: f64 = values[row].into();
        !((value < low) | (value > high))
    }))
}

fn bytes<'a>(rows: usize, value: impl Fn(usize) -> &'a [u8], bound: &Bound) -> Option<BooleanBuffer> {
    let (low, high) = ends(bound, |value| if let Value::Bytes(value) = value { Some(value.as_slice()) } else { None })?;
    Some(match (low, high) {
        (Some(low), Some(high)) if low == high => BooleanBuffer::collect_bool(rows, |row| value(row) == low),
        (low, high) => BooleanBuffer::collect_bool(rows, |row| {
            let value = value(row);
            low.is_none_or(|low| low <= value) && high.is_none_or(|high| value <= high)
        }),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int32Array, StringArray};

    use super::*;

    fn check(array: ArrayRef, sql_type: &SqlType, min: Option<Value>, max: Option<Value>, expected: (&[bool], bool)) {
        let found = within(&array, sql_type, &Bound { column: 0, min, max });
        assert_eq!((found.rows.iter().collect::<Vec<_>>().as_slice(), found.is_exact), expected);
    }

    #[test]
    fn both_ends_are_included_and_null_never_is() {
        let ints = || Arc::new(Int32Array::from(vec![Some(1), None, Some(5), Some(9)])) as ArrayRef;
        let int = |value| Some(Value::Int(value));
        check(ints(), &SqlType::Int4, int(1), int(5), (&[true, false, true, false], true));
        check(ints(), &SqlType::Int4, int(6), None, (&[false, false, false, true], true));
        check(ints(), &SqlType::Int4, None, Some(Value::Float(0.0)), (&[true; 4], false));
        let texts = || Arc::new(StringArray::from(vec![Some("a"), Some("b"), None])) as ArrayRef;
        let text = |text: &str| Some(Value::Bytes(text.into()));
        check(texts(), &SqlType::Text, text("b"), text("b"), (&[false, true, false], true));
        check(texts(), &SqlType::Text, text("a"), None, (&[true, true, false], true));
        check(texts(), &SqlType::Char(3), text("b"), None, (&[true; 3], false));
    }

    #[test]
    fn zeros_and_nan_are_never_left_out() {
        let floats = || Arc::new(Float64Array::from(vec![-0.0, 0.0, f64::NAN, 1.0])) as ArrayRef;
        let float = |value| Some(Value::Float(value));
        check(floats(), &SqlType::Float8, float(0.0), float(0.0), (&[true, true, true, false], false));
        check(floats(), &SqlType::Float8, float(0.5), None, (&[false, false, true, true], false));
        check(floats(), &SqlType::Float8, float(f64::NAN), None, (&[true; 4], false));
    }
}
