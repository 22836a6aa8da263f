//! `round` and `trunc` as PostgreSQL has them: floats to the nearest even whole number, numerics half away from zero and
//! to as many digits behind the point as are asked for. A real or an integer becomes a double precision.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

const DIGITS_MAX: i64 = 38;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Rounding {
    truncates: bool,
    signature: Signature,
}

/// Both functions.
#[must_use]
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |truncates| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Rounding { truncates, signature }))
    };
    vec![function(false), function(true)]
}

impl ScalarUDFImpl for Rounding {
    fn name(&self) -> &str {
        if self.truncates { "trunc" } else { "round" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [number] if number.is_floating() || number.is_integer() || number.is_null() => {
                return Ok(vec![DataType::Float64]);
            }
            [DataType::Decimal128(..)] => return Ok(types.to_vec()),
            [DataType::Decimal128(precision, scale), digits] if digits.is_integer() || digits.is_null() => {
                return Ok(vec![DataType::Decimal128(*precision, *scale), DataType::Int64]);
            }
            [number, digits]
                if (number.is_integer() || number.is_null()) && (digits.is_integer() || digits.is_null()) =>
            {
                return Ok(vec![DataType::Decimal128(20, 0), DataType::Int64]);
            }
            _ => {}
        }
        let types: Vec<_> = types.iter().map(ToString::to_string).collect();
        plan_err!("function {}({}) does not exist", self.name(), types.join(", "))
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        internal_err!("the type of {} depends on its arguments", self.name())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let digits = args.scalar_arguments.get(1).copied().map(|value| match value {
            Some(ScalarValue::Int64(Some(digits))) => Some(*digits),
            _ => None,
        });
        let data_type = match args.arg_fields.first().map(|field| field.data_type()) {
            Some(DataType::Decimal128(precision, scale)) => decimal_type(*precision, *scale, digits),
            _ => DataType::Float64,
        };
        Ok(Arc::new(Field::new(self.name(), data_type, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let whole = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if whole { 1 } else { args.number_rows };
        let Some(values) = args.args.first() else { return internal_err!("{} without arguments", self.name()) };
        let values = values.to_array(rows)?;
        let result: ArrayRef = match args.return_field.data_type() {
            DataType::Decimal128(precision, scale) => {
                let digits = args.args.get(1).map(|digits| digits.to_array(rows)).transpose()?;
                let rounded = self.decimals(values.as_primitive(), digits.as_ref(), *scale)?;
                Arc::new(rounded.with_precision_and_scale(*precision, *scale)?)
            }
            _ => {
                let round = if self.truncates { f64::trunc } else { f64::round_ties_even };
                let rounded: Float64Array = values.as_primitive::<Float64Type>().unary(round);
                Arc::new(rounded)
            }
        };
        if whole {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

impl Rounding {
    fn decimals(&self, values: &Decimal128Array, digits: Option<&ArrayRef>, scale: i8) -> Result<Decimal128Array> {
        let from = i64::from(values.scale());
        let one = |value: i128, digits: i64| {
            let rounded = rounded(value, from, digits, i64::from(scale), self.truncates);
            rounded.ok_or_else(|| DataFusionError::Execution("numeric value out of range".to_owned()))
        };
        let Some(digits) = digits else { return values.try_unary(|value| one(value, 0)) };
        let rows = values.iter().zip(digits.as_primitive::<Int64Type>());
        let rows = rows.map(|(value, digits)| value.zip(digits).map(|(value, digits)| one(value, digits)).transpose());
        rows.collect::<Result<Vec<_>>>().map(Decimal128Array::from)
    }
}

/// `digits`: none given, given but not a constant, or how many.
#[expect(clippy::option_option, reason = "an argument that is absent, unknown or known")]
fn decimal_type(precision: u8, scale: i8, digits: Option<Option<i64>>) -> DataType {
    let wanted = match digits {
        None => 0,
        Some(None) => i64::from(scale).max(0),
        Some(Some(digits)) => digits.clamp(0, DIGITS_MAX - 1),
    };
    // A carry makes one digit more: 9.9 is 10.
    let whole = i64::from(precision) - i64::from(scale) + 1;
    let precision = (whole + wanted).clamp(wanted.max(1), DIGITS_MAX);
    DataType::Decimal128(precision as u8, wanted as i8)
}

/// A value of `from` digits behind the point, rounded to `digits`, as one of `to`.
fn rounded(value: i128, from: i64, digits: i64, to: i64, truncates: bool) -> Option<i128> {
    let digits = digits.clamp(-DIGITS_MAX, to);
    let cut = from - digits;
    let power = |exponent: i64| u32::try_from(exponent).ok().and_then(|exponent| 10_i128.checked_pow(exponent));
    if cut <= 0 {
        return value.checked_mul(power(to - from)?);
    }
    // Of 38 digits nothing is left.
    let Some(unit) = power(cut) else { return Some(0) };
    let (mut quotient, rest) = (value / unit, value % unit);
    if !truncates && rest.unsigned_abs() >= unit.unsigned_abs().div_ceil(2) {
        quotient += value.signum();
    }
    quotient.checked_mul(power(to - digits)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_are_rounded_half_away_from_zero() {
        let check =
            |value, from, digits, to, expected| assert_eq!(rounded(value, from, digits, to, false), Some(expected));
        check(2567, 3, 2, 2, 257);
        check(25, 1, 0, 0, 3);
        check(-25, 1, 0, 0, -3);
        check(25, 1, 3, 3, 2500);
        check(1250, 0, -2, 0, 1300);
        check(44, 0, -2, 0, 0);
        check(9, 0, -40, 0, 0);
        assert_eq!(rounded(27, 1, 0, 0, true), Some(2));
        assert_eq!(rounded(-27, 1, 0, 0, true), Some(-2));
        assert_eq!(rounded(i128::MAX, 0, 2, 2, false), None);
    }

    #[test]
    fn types_have_the_digits_that_are_asked_for() {
        assert_eq!(decimal_type(4, 3, Some(Some(2))), DataType::Decimal128(4, 2));
        assert_eq!(decimal_type(2, 1, None), DataType::Decimal128(2, 0));
        assert_eq!(decimal_type(38, 16, Some(Some(1))), DataType::Decimal128(24, 1));
        assert_eq!(decimal_type(1, -15, Some(Some(2))), DataType::Decimal128(19, 2));
        assert_eq!(decimal_type(5, 2, Some(None)), DataType::Decimal128(6, 2));
        // PostgreSQL has no round(double precision, integer).
        assert!(
            Rounding { truncates: false, signature: Signature::user_defined(Volatility::Immutable) }
                .coerce_types(&[DataType::Float64, DataType::Int64])
                .is_err()
        );
    }
}
