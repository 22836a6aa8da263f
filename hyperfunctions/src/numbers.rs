//! Functions of numbers with PostgreSQL's types: `sign`, `ceil`, `floor`, `div`, `gcd`, `lcm`, `factorial`, `~`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Decimal256Type, Float64Type, Int32Type, Int64Type, i256,
};
use datafusion::common::{DataFusionError, Result, exec_err, internal_err};
use datafusion::logical_expr::ScalarUDF;

use crate::form::{Form, Kind, functions as of_forms};

/// Of which 33 is the largest within 38 digits.
const FACTORIAL_MAX: i64 = 33;
const WHOLE_DIGITS: u8 = 38;

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    use Kind::{BigInt, Double, Integer, Numeric, Whole};
    static SIGN: &[Form] = &[
        // An integer is a double precision here, as it is in PostgreSQL.
        Form::new(&[BigInt], Double, |columns| signs_of(&columns[0])),
        Form::new(&[Numeric], Whole, |columns| whole(&columns[0], |value, _| value.signum())),
        Form::new(&[Double], Double, |columns| doubles(&columns[0], sign)),
    ];
    static CEIL: &[Form] = &[
        Form::new(&[BigInt], Double, |columns| signs_or_values(&columns[0])),
        Form::new(&[Numeric], Whole, |columns| whole(&columns[0], |value, unit| divided(value, unit, 1))),
        Form::new(&[Double], Double, |columns| doubles(&columns[0], f64::ceil)),
    ];
    static FLOOR: &[Form] = &[
        Form::new(&[BigInt], Double, |columns| signs_or_values(&columns[0])),
        Form::new(&[Numeric], Whole, |columns| whole(&columns[0], |value, unit| divided(value, unit, -1))),
        Form::new(&[Double], Double, |columns| doubles(&columns[0], f64::floor)),
    ];
    static DIV: &[Form] = &[Form::new(&[Numeric, Numeric], Whole, quotients)];
    static GCD: &[Form] = &[
        Form::new(&[Integer, Integer], Integer, |columns| pairs::<Int32Type>(columns, "integer", gcd)),
        Form::new(&[BigInt, BigInt], BigInt, |columns| pairs::<Int64Type>(columns, "bigint", gcd)),
    ];
    static LCM: &[Form] = &[
        Form::new(&[Integer, Integer], Integer, |columns| pairs::<Int32Type>(columns, "integer", lcm)),
        Form::new(&[BigInt, BigInt], BigInt, |columns| pairs::<Int64Type>(columns, "bigint", lcm)),
    ];
    static FACTORIAL: &[Form] = &[Form::new(&[BigInt], Whole, factorials)];
    static NOT: &[Form] = &[
        Form::new(&[Integer], Integer, |columns| {
            Ok(Arc::new(columns[0].as_primitive::<Int32Type>().unary::<_, Int32Type>(|value| !value)))
        }),
        Form::new(&[BigInt], BigInt, |columns| {
            Ok(Arc::new(columns[0].as_primitive::<Int64Type>().unary::<_, Int64Type>(|value| !value)))
        }),
    ];
    of_forms(&[
        ("sign", SIGN),
        ("ceil", CEIL),
        ("ceiling", CEIL),
        ("floor", FLOOR),
        ("div", DIV),
        ("gcd", GCD),
        ("lcm", LCM),
        ("factorial", FACTORIAL),
        ("bitwise_not", NOT),
    ])
}

fn sign(value: f64) -> f64 {
    // 0 of NaN, too, as in PostgreSQL.
    if value > 0.0 {
        1.0
    } else if value < 0.0 {
        -1.0
    } else {
        0.0
    }
}

fn doubles(column: &ArrayRef, one: fn(f64) -> f64) -> Result<ArrayRef> {
    let values: Float64Array = column.as_primitive::<Float64Type>().unary(one);
    Ok(Arc::new(values))
}

fn signs_of(column: &ArrayRef) -> Result<ArrayRef> {
    let values: Float64Array = column.as_primitive::<Int64Type>().unary(|value| value.signum() as f64);
    Ok(Arc::new(values))
}

/// Whole numbers are their own floor and ceiling.
fn signs_or_values(column: &ArrayRef) -> Result<ArrayRef> {
    let values: Float64Array = column.as_primitive::<Int64Type>().unary(|value| value as f64);
    Ok(Arc::new(values))
}

/// Digits and scale of a row's decimal.
fn mantissa(column: &ArrayRef, row: usize) -> i256 {
    match column.as_primitive_opt::<Decimal128Type>() {
        Some(values) => i256::from_i128(values.value(row)),
        None => column.as_primitive::<Decimal256Type>().value(row),
    }
}

fn scale_of(column: &ArrayRef) -> Result<u32> {
    match column.data_type() {
        // A scale below zero is of a whole number.
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => Ok(u32::try_from(*scale).unwrap_or(0)),
        other => internal_err!("a numeric that is {other}"),
    }
}

fn out_of_range() -> DataFusionError {
    DataFusionError::Execution("numeric value out of range".to_owned())
}

fn fitting(value: i256) -> Result<i128> {
    let digits = 10_u128.pow(WHOLE_DIGITS.into());
    value.to_i128().filter(|value| value.unsigned_abs() < digits).ok_or_else(out_of_range)
}

fn whole_numbers(values: Vec<Option<i128>>) -> Result<ArrayRef> {
    Ok(Arc::new(Decimal128Array::from(values).with_precision_and_scale(WHOLE_DIGITS, 0)?))
}

/// A whole number of each decimal; `one` takes its digits and how many of them one is.
fn whole(column: &ArrayRef, one: fn(i256, i256) -> i256) -> Result<ArrayRef> {
    let unit = i256::from_i128(10).checked_pow(scale_of(column)?).ok_or_else(out_of_range)?;
    let value = |row: usize| column.is_valid(row).then(|| fitting(one(mantissa(column, row), unit))).transpose();
    whole_numbers((0..column.len()).map(value).collect::<Result<_>>()?)
}

/// Rounded up (1) or down (-1).
fn divided(value: i256, unit: i256, direction: i128) -> i256 {
    let (quotient, rest) = (value.wrapping_div(unit), value.wrapping_rem(unit));
    let step = i256::from_i128(direction);
    if rest != i256::ZERO && rest.signum() == step { quotient.wrapping_add(step) } else { quotient }
}

/// Quotients cut to whole numbers.
fn quotients(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [left, right] = columns else { return internal_err!("div takes two numbers") };
    let (left_scale, right_scale) = (scale_of(left)?, scale_of(right)?);
    let scaled = |value: i256, by: u32| {
        i256::from_i128(10).checked_pow(by).and_then(|power| value.checked_mul(power)).ok_or_else(out_of_range)
    };
    let one = |row: usize| -> Result<Option<i128>> {
        if left.is_null(row) || right.is_null(row) {
            return Ok(None);
        }
        let dividend = scaled(mantissa(left, row), right_scale.saturating_sub(left_scale))?;
        let divisor = scaled(mantissa(right, row), left_scale.saturating_sub(right_scale))?;
        if divisor == i256::ZERO {
            return exec_err!("division by zero");
        }
        fitting(dividend.wrapping_div(divisor)).map(Some)
    };
    whole_numbers((0..left.len()).map(one).collect::<Result<_>>()?)
}

fn pairs<T: ArrowPrimitiveType>(columns: &[ArrayRef], type_name: &str, one: fn(i128, i128) -> i128) -> Result<ArrayRef>
where
    T::Native: TryFrom<i128> + Into<i128>,
{
    let (left, right) = (columns[0].as_primitive::<T>(), columns[1].as_primitive::<T>());
    let value = |(a, b): (Option<T::Native>, Option<T::Native>)| -> Result<Option<T::Native>> {
        let Some((a, b)) = a.zip(b) else { return Ok(None) };
        let out_of_range = |_| DataFusionError::Execution(format!("{type_name} out of range"));
        T::Native::try_from(one(a.into(), b.into())).map(Some).map_err(out_of_range)
    };
    let values = left.iter().zip(right.iter()).map(value).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(arrow::array::PrimitiveArray::<T>::from_iter(values)))
}

fn gcd(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.abs(), b.abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn lcm(a: i128, b: i128) -> i128 {
    if a == 0 || b == 0 { 0 } else { (a / gcd(a, b) * b).abs() }
}

fn factorials(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let one = |value: Option<i64>| match value {
        None => Ok(None),
        Some(value) if value < 0 => exec_err!("factorial of a negative number is undefined"),
        Some(value) if value > FACTORIAL_MAX => Err(out_of_range()),
        Some(value) => Ok(Some((1..=i128::from(value)).product())),
    };
    whole_numbers(columns[0].as_primitive::<Int64Type>().iter().map(one).collect::<Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array};

    use super::*;

    fn decimals(values: &[i128], scale: i8) -> ArrayRef {
        Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(20, scale).unwrap())
    }

    fn numbers(column: &ArrayRef) -> Vec<i128> {
        column.as_primitive::<Decimal128Type>().values().to_vec()
    }

    #[test]
    fn decimals_become_whole_numbers() {
        let values = decimals(&[25, -25, 20, 0], 1);
        let rounded = |direction: fn(i256, i256) -> i256| numbers(&whole(&values, direction).unwrap());
        assert_eq!(rounded(|value, unit| divided(value, unit, 1)), [3, -2, 2, 0]);
        assert_eq!(rounded(|value, unit| divided(value, unit, -1)), [2, -3, 2, 0]);
        assert_eq!(rounded(|value, _| value.signum()), [1, -1, 1, 0]);
        assert_eq!(numbers(&quotients(&[decimals(&[75, -75], 1), decimals(&[2, 2], 0)]).unwrap()), [3, -3]);
        assert!(quotients(&[decimals(&[1], 0), decimals(&[0], 2)]).is_err());
    }

    #[test]
    fn divisors_multiples_and_factorials() {
        assert_eq!((gcd(12, -18), gcd(0, 0), lcm(4, 6), lcm(0, 5)), (6, 0, 12, 0));
        let least: ArrayRef = Arc::new(Int32Array::from(vec![i32::MIN]));
        assert!(pairs::<Int32Type>(&[Arc::clone(&least), least], "integer", gcd).is_err());
        let factorials = |value: i64| factorials(&[Arc::new(Int64Array::from(vec![value]))]);
        assert_eq!(numbers(&factorials(5).unwrap()), [120]);
        assert!(factorials(33).is_ok() && factorials(34).is_err() && factorials(-1).is_err());
    }
}
