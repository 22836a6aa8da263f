//! `width_bucket` of doubles and of numerics.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Float64Type, Int32Type, i256};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::ScalarUDF;

use crate::form::{Form, Kind, all_valid, functions as of_forms};

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    static FORMS: &[Form] = &[
        Form::new(&[Kind::Numeric, Kind::Numeric, Kind::Numeric, Kind::Integer], Kind::Integer, numeric_buckets),
        Form::new(&[Kind::Double, Kind::Double, Kind::Double, Kind::Integer], Kind::Integer, double_buckets),
    ];
    of_forms(&[("width_bucket", FORMS)])
}

fn double_buckets(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [value, low, high] = [0, 1, 2].map(|column: usize| columns[column].as_primitive::<Float64Type>());
    let counts = columns[3].as_primitive::<Int32Type>();
    let one = |row: usize| -> Result<Option<i32>> {
        if !all_valid(columns, row) {
            return Ok(None);
        }
        double_bucket(value.value(row), low.value(row), high.value(row), counts.value(row)).map(Some)
    };
    Ok(Arc::new((0..columns[0].len()).map(one).collect::<Result<Int32Array>>()?))
}

/// One of `count` buckets of equal width, 0 for what lies before them and one more than `count` for what lies behind.
fn double_bucket(value: f64, low: f64, high: f64, count: i32) -> Result<i32> {
    check_count(count)?;
    if value.is_nan() || low.is_nan() || high.is_nan() {
        return exec_err!("operand, lower bound, and upper bound cannot be NaN");
    }
    if low.is_infinite() || high.is_infinite() {
        return exec_err!("lower and upper bounds must be finite");
    }
    let (value, low, high) = if low < high { (value, low, high) } else { (-value, -low, -high) };
    if low == high {
        return exec_err!("lower bound cannot equal upper bound");
    }
    if value < low {
        return Ok(0);
    }
    if value >= high {
        return behind(count);
    }
    // Halved: the difference of two finite bounds may be infinite.
    let share = if (high - low).is_finite() {
        (value - low) / (high - low)
    } else {
        (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)
    };
    Ok(((share * f64::from(count)) as i32).min(count - 1) + 1)
}

fn check_count(count: i32) -> Result<()> {
    if count <= 0 { exec_err!("count must be greater than zero") } else { Ok(()) }
}

fn behind(count: i32) -> Result<i32> {
    match count.checked_add(1) {
        Some(bucket) => Ok(bucket),
        None => exec_err!("integer out of range"),
    }
}

fn numeric_buckets(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let counts = columns[3].as_primitive::<Int32Type>();
    let scale = columns[..3].iter().map(scale_of).max().unwrap_or(0);
    let one = |row: usize| -> Result<Option<i32>> {
        if !all_valid(columns, row) {
            return Ok(None);
        }
        let [Some(value), Some(low), Some(high)] =
            [0, 1, 2].map(|column: usize| mantissa(&columns[column], row, scale))
        else {
            return exec_err!("numeric value out of range");
        };
        numeric_bucket(value, low, high, counts.value(row)).map(Some)
    };
    Ok(Arc::new((0..columns[0].len()).map(one).collect::<Result<Int32Array>>()?))
}

fn scale_of(column: &ArrayRef) -> i8 {
    match column.data_type() {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => *scale,
        _ => 0,
    }
}

/// A decimal in units of 10^-`scale`.
fn mantissa(column: &ArrayRef, row: usize, scale: i8) -> Option<i256> {
    let value = match column.as_primitive_opt::<Decimal128Type>() {
        Some(values) => i256::from_i128(values.value(row)),
        None => column.as_primitive::<Decimal256Type>().value(row),
    };
    let up = i256::from_i128(10).checked_pow(u32::try_from(scale - scale_of(column)).ok()?)?;
    value.checked_mul(up)
}

fn numeric_bucket(value: i256, low: i256, high: i256, count: i32) -> Result<i32> {
    check_count(count)?;
    if low == high {
        return exec_err!("lower bound cannot equal upper bound");
    }
    let (value, low, high) =
        if low < high { (value, low, high) } else { (value.wrapping_neg(), low.wrapping_neg(), high.wrapping_neg()) };
    if value < low {
        return Ok(0);
    }
    if value >= high {
        return behind(count);
    }
    let share = value.wrapping_sub(low).checked_mul(i256::from_i128(count.into()));
    let bucket = share.and_then(|share| share.checked_div(high.wrapping_sub(low)));
    match bucket.and_then(i256::to_i128).and_then(|bucket| i32::try_from(bucket).ok()) {
        Some(bucket) => Ok(bucket + 1),
        None => exec_err!("numeric value out of range"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_find_their_buckets() {
        let check = |value, expected| assert_eq!(double_bucket(value, 0.0, 10.0, 5).unwrap(), expected, "{value}");
        check(-1.0, 0);
        check(0.0, 1);
        check(9.99, 5);
        check(10.0, 6);
        assert_eq!(double_bucket(3.0, 10.0, 0.0, 5).unwrap(), 4);
        assert!(double_bucket(1.0, 1.0, 1.0, 5).is_err() && double_bucket(1.0, 0.0, 1.0, 0).is_err());
        let big = i256::from_i128;
        assert_eq!(numeric_bucket(big(535), big(2), big(1000), 5).unwrap(), 3);
        assert_eq!(numeric_bucket(big(1000), big(2), big(1000), 5).unwrap(), 6);
    }
}
