//! Arithmetic that fails where PostgreSQL's fails and rounds where it rounds: integers do not wrap around, floats do not
//! overflow and are not divided by zero, quotients of numerics keep 16 digits behind the point, floats become integers by
//! rounding, numerics the nearest double.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Datum, Decimal128Array, Float32Array, Float64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::numeric;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Decimal128Type, Float32Type, Float64Type, i256};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, internal_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// Scale of every numeric quotient.
pub const QUOTIENT_SCALE: i8 = 16;
/// One less than a numeric column without limits has, by which the two are told apart: a quotient's digits are all shown.
pub const QUOTIENT_PRECISION: u8 = DIGITS_MAX - 1;
const DIGITS_MAX: u8 = 38;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    IntegerAdd,
    IntegerSubtract,
    IntegerMultiply,
    FloatAdd,
    FloatSubtract,
    FloatMultiply,
    FloatDivide,
    NumericDivide,
    Round,
    NumericToDouble,
    DoubleToReal,
}

impl Operation {
    const ALL: [Self; 11] = [
        Self::IntegerAdd,
        Self::IntegerSubtract,
        Self::IntegerMultiply,
        Self::FloatAdd,
        Self::FloatSubtract,
        Self::FloatMultiply,
        Self::FloatDivide,
        Self::NumericDivide,
        Self::Round,
        Self::NumericToDouble,
        Self::DoubleToReal,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::IntegerAdd => "int_add",
            Self::IntegerSubtract => "int_subtract",
            Self::IntegerMultiply => "int_multiply",
            Self::FloatAdd => "float_add",
            Self::FloatSubtract => "float_subtract",
            Self::FloatMultiply => "float_multiply",
            Self::FloatDivide => "float_divide",
            Self::NumericDivide => "numeric_divide",
            Self::Round => "round_half_even",
            Self::NumericToDouble => "numeric_to_double",
            Self::DoubleToReal => "double_to_real",
        }
    }

    fn takes(self, data_type: &DataType) -> bool {
        match self {
            Self::IntegerAdd | Self::IntegerSubtract | Self::IntegerMultiply => data_type.is_integer(),
            Self::FloatAdd | Self::FloatSubtract | Self::FloatMultiply | Self::FloatDivide | Self::Round => {
                data_type.is_floating()
            }
            Self::NumericDivide | Self::NumericToDouble => matches!(data_type, DataType::Decimal128(..)),
            Self::DoubleToReal => *data_type == DataType::Float64,
        }
    }

    fn takes_one(self) -> bool {
        matches!(self, Self::Round | Self::NumericToDouble | Self::DoubleToReal)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Arithmetic {
    operation: Operation,
    signature: Signature,
}

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let function = |operation| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Arithmetic { operation, signature }))
    };
    Operation::ALL.into_iter().map(function).collect()
});

/// All of them.
#[must_use]
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    FUNCTIONS.clone()
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident = $operation:ident;)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name() -> Arc<ScalarUDF> {
            Arc::clone(&FUNCTIONS[Operation::$operation as usize])
        })*
    };
}

getters! {
    /// `a + b` of one integer type.
    int_add = IntegerAdd;
    /// `a - b` of one integer type.
    int_subtract = IntegerSubtract;
    /// `a * b` of one integer type.
    int_multiply = IntegerMultiply;
    /// `a + b` of one float type.
    float_add = FloatAdd;
    /// `a - b` of one float type.
    float_subtract = FloatSubtract;
    /// `a * b` of one float type.
    float_multiply = FloatMultiply;
    /// `a / b` of one float type.
    float_divide = FloatDivide;
    /// `a / b` of numerics.
    numeric_divide = NumericDivide;
    /// A float's nearest whole number, of two the even one.
    round_half_even = Round;
    /// The double that is nearest to a numeric.
    numeric_to_double = NumericToDouble;
    /// The real that is nearest to a double.
    double_to_real = DoubleToReal;
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        self.operation.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let count = if self.operation.takes_one() { 1 } else { 2 };
        let uniform = self.operation == Operation::NumericDivide || types.windows(2).all(|pair| pair[0] == pair[1]);
        if types.len() == count && uniform && types.iter().all(|t| self.operation.takes(t)) {
            return Ok(types.to_vec());
        }
        let types: Vec<_> = types.iter().map(ToString::to_string).collect();
        plan_err!("function {}({}) does not exist", self.name(), types.join(", "))
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match (self.operation, types) {
            (Operation::NumericDivide, _) => Ok(DataType::Decimal128(QUOTIENT_PRECISION, QUOTIENT_SCALE)),
            (Operation::NumericToDouble, _) => Ok(DataType::Float64),
            (Operation::DoubleToReal, _) => Ok(DataType::Float32),
            (_, [first, ..]) => Ok(first.clone()),
            _ => internal_err!("{} without arguments", self.name()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let whole = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let result = match (self.operation, args.args.as_slice()) {
            (Operation::Round, [value]) => round(&value.to_array(args.number_rows)?)?,
            (Operation::NumericToDouble, [value]) => doubles(&value.to_array(args.number_rows)?)?,
            (Operation::DoubleToReal, [value]) => reals(&value.to_array(args.number_rows)?)?,
            (
                Operation::FloatAdd | Operation::FloatSubtract | Operation::FloatMultiply | Operation::FloatDivide,
                [left, right],
            ) => floats(self.operation, left, right, args.number_rows)?,
            (Operation::NumericDivide, [left, right]) => {
                divide_numerics(&left.to_array(args.number_rows)?, &right.to_array(args.number_rows)?)?
            }
            (operation, [left, right]) => integer(operation, left, right)?,
            _ => return internal_err!("{} with {} arguments", self.name(), args.args.len()),
        };
        if whole && !result.is_empty() {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

fn integer(operation: Operation, left: &ColumnarValue, right: &ColumnarValue) -> Result<ArrayRef> {
    let kernel = match operation {
        Operation::IntegerAdd => numeric::add,
        Operation::IntegerSubtract => numeric::sub,
        _ => numeric::mul,
    };
    let (left, right) = (datum(left)?, datum(right)?);
    Ok(kernel(left.as_ref(), right.as_ref())?)
}

fn datum(value: &ColumnarValue) -> Result<Box<dyn Datum>> {
    Ok(match value {
        ColumnarValue::Array(array) => Box::new(Arc::clone(array)),
        ColumnarValue::Scalar(scalar) => Box::new(scalar.to_scalar()?),
    })
}

fn floats(operation: Operation, left: &ColumnarValue, right: &ColumnarValue, rows: usize) -> Result<ArrayRef> {
    let result = match operation {
        Operation::FloatAdd => numeric::add(datum(left)?.as_ref(), datum(right)?.as_ref())?,
        Operation::FloatSubtract => numeric::sub(datum(left)?.as_ref(), datum(right)?.as_ref())?,
        Operation::FloatMultiply => numeric::mul(datum(left)?.as_ref(), datum(right)?.as_ref())?,
        _ => divide_floats(left, right, rows)?,
    };
    match result.data_type() {
        DataType::Float64 => check_floats::<Float64Type>(operation, &result, left, right)?,
        DataType::Float32 => check_floats::<Float32Type>(operation, &result, left, right)?,
        other => return internal_err!("float arithmetic of {other}"),
    }
    Ok(result)
}

/// Refuses infinities that come of finite numbers, and zeros that come of others.
fn check_floats<T: ArrowPrimitiveType>(
    operation: Operation,
    result: &ArrayRef,
    left: &ColumnarValue,
    right: &ColumnarValue,
) -> Result<()>
where
    T::Native: Into<f64>,
{
    let scales = matches!(operation, Operation::FloatMultiply | Operation::FloatDivide);
    let is_suspect = |value: f64| value.is_infinite() || (scales && value == 0.0);
    let results = result.as_primitive::<T>();
    if !results.values().iter().any(|value| is_suspect((*value).into())) {
        return Ok(());
    }
    let (left, right) = (left.to_array(result.len())?, right.to_array(result.len())?);
    let (left, right) = (left.as_primitive::<T>(), right.as_primitive::<T>());
    for row in (0..result.len()).filter(|row| results.is_valid(*row)) {
        let (value, a, b): (f64, f64, f64) =
            (results.value(row).into(), left.value(row).into(), right.value(row).into());
        if value.is_infinite() && a.is_finite() && b.is_finite() {
            return exec_err!("value out of range: overflow");
        }
        // An infinite divisor makes a true zero.
        if scales && value == 0.0 && a != 0.0 && (operation == Operation::FloatDivide || b != 0.0) && !b.is_infinite() {
            return exec_err!("value out of range: underflow");
        }
    }
    Ok(())
}

fn doubles(values: &ArrayRef) -> Result<ArrayRef> {
    let Some(values) = values.as_primitive_opt::<Decimal128Type>() else {
        return internal_err!("numeric_to_double of {}", values.data_type());
    };
    let scale = values.scale();
    let doubles: Float64Array = values.unary(|value| decimal_to_double(value, scale));
    Ok(Arc::new(doubles))
}

fn reals(values: &ArrayRef) -> Result<ArrayRef> {
    let real = |double: f64| {
        let real = double as f32;
        if real.is_infinite() && double.is_finite() {
            return exec_err!("value out of range: overflow");
        }
        if real == 0.0 && double != 0.0 { exec_err!("value out of range: underflow") } else { Ok(real) }
    };
    let reals: Float32Array = values.as_primitive::<Float64Type>().try_unary(real)?;
    Ok(Arc::new(reals))
}

/// The double that is nearest to `value` x 10^-`scale`, as if its digits had been read.
#[must_use]
pub fn decimal_to_double(value: i128, scale: i8) -> f64 {
    /// Up to here doubles are all integers, and powers of ten exact.
    const INTEGER_MAX: u128 = 1 << 53;
    const POWER_MAX: i8 = 22;
    if value.unsigned_abs() <= INTEGER_MAX && (0..=POWER_MAX).contains(&scale) {
        // Of two exact numbers the quotient is rounded once.
        return value as f64 / 10_f64.powi(scale.into());
    }
    format!("{value}e{}", -i32::from(scale)).parse().unwrap_or(f64::NAN)
}

fn divide_floats(left: &ColumnarValue, right: &ColumnarValue, rows: usize) -> Result<ArrayRef> {
    // A constant divisor is looked at once.
    let may_be_zero = match right {
        ColumnarValue::Scalar(ScalarValue::Float64(divisor)) => *divisor == Some(0.0),
        ColumnarValue::Scalar(ScalarValue::Float32(divisor)) => *divisor == Some(0.0),
        _ => true,
    };
    if !may_be_zero {
        return Ok(numeric::div(datum(left)?.as_ref(), datum(right)?.as_ref())?);
    }
    let (left, right) = (left.to_array(rows)?, right.to_array(rows)?);
    match right.data_type() {
        DataType::Float64 => check_divisors::<Float64Type>(&left, &right)?,
        DataType::Float32 => check_divisors::<Float32Type>(&left, &right)?,
        other => return internal_err!("float division of {other}"),
    }
    Ok(numeric::div(&left, &right)?)
}

fn check_divisors<T: ArrowPrimitiveType>(left: &ArrayRef, right: &ArrayRef) -> Result<()>
where
    T::Native: Into<f64>,
{
    // What is NULL on either side gives NULL, whatever the other side is; NaN stays NaN.
    let nulls = NullBuffer::union(left.nulls(), right.nulls());
    let valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    let (left, right) = (left.as_primitive::<T>().values(), right.as_primitive::<T>().values());
    let is_zero = |(row, value): (usize, &T::Native)| {
        let (divisor, dividend): (f64, f64) = ((*value).into(), left[row].into());
        divisor == 0.0 && !dividend.is_nan() && valid(row)
    };
    if right.iter().enumerate().any(is_zero) { exec_err!("division by zero") } else { Ok(()) }
}

fn divide_numerics(left: &ArrayRef, right: &ArrayRef) -> Result<ArrayRef> {
    let (Some(left), Some(right)) =
        (left.as_primitive_opt::<Decimal128Type>(), right.as_primitive_opt::<Decimal128Type>())
    else {
        return internal_err!("numeric division of other types");
    };
    // (a x 10^-l) / (b x 10^-r) = (a x 10^(q + r - l) / b) x 10^-q
    let shift = i32::from(QUOTIENT_SCALE) + i32::from(right.scale()) - i32::from(left.scale());
    let power = |exponent: i32| i256::from_i128(10).wrapping_pow(exponent.unsigned_abs());
    let (up, down) = if shift >= 0 { (power(shift), i256::ONE) } else { (i256::ONE, power(shift)) };
    let quotient = |(a, b): (Option<i128>, Option<i128>)| -> Result<Option<i128>> {
        let (Some(a), Some(b)) = (a, b) else { return Ok(None) };
        if b == 0 {
            return exec_err!("division by zero");
        }
        let dividend = i256::from_i128(a).checked_mul(up).ok_or_else(overflow)?;
        let divisor = i256::from_i128(b).checked_mul(down).ok_or_else(overflow)?;
        half_away(dividend, divisor).map(Some)
    };
    let values: Vec<_> = left.iter().zip(right.iter()).map(quotient).collect::<Result<_>>()?;
    Ok(Arc::new(Decimal128Array::from(values).with_precision_and_scale(QUOTIENT_PRECISION, QUOTIENT_SCALE)?))
}

fn overflow() -> DataFusionError {
    DataFusionError::Execution("numeric value out of range".to_owned())
}

/// Rounded to the nearest, of two the one further from zero.
fn half_away(dividend: i256, divisor: i256) -> Result<i128> {
    let quotient = dividend.checked_div(divisor).ok_or_else(overflow)?;
    let rest = dividend.checked_rem(divisor).ok_or_else(overflow)?;
    let twice = rest.wrapping_abs().checked_mul(i256::from_i128(2)).ok_or_else(overflow)?;
    let away = if twice >= divisor.wrapping_abs() {
        if (dividend < i256::ZERO) == (divisor < i256::ZERO) { i256::ONE } else { i256::MINUS_ONE }
    } else {
        i256::ZERO
    };
    let rounded = quotient.checked_add(away).and_then(i256::to_i128).ok_or_else(overflow)?;
    if rounded.unsigned_abs() >= 10_u128.pow(QUOTIENT_PRECISION.into()) { Err(overflow()) } else { Ok(rounded) }
}

fn round(values: &ArrayRef) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        DataType::Float64 => {
            let rounded: Float64Array = values.as_primitive::<Float64Type>().unary(f64::round_ties_even);
            Arc::new(rounded)
        }
        DataType::Float32 => {
            let rounded = values.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even);
            Arc::new(rounded)
        }
        other => return internal_err!("rounding of {other}"),
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::common::config::ConfigOptions;

    use super::*;

    fn call(function: &ScalarUDF, values: Vec<ScalarValue>) -> Result<ScalarValue> {
        let types: Vec<_> = values.iter().map(ScalarValue::data_type).collect();
        let fields = types.iter().map(|t| Arc::new(Field::new("a", t.clone(), true))).collect();
        let args = ScalarFunctionArgs {
            args: values.into_iter().map(ColumnarValue::Scalar).collect(),
            arg_fields: fields,
            number_rows: 1,
            return_field: Arc::new(Field::new("b", function.return_type(&types)?, true)),
            config_options: Arc::new(ConfigOptions::default()),
        };
        match function.invoke_with_args(args)? {
            ColumnarValue::Scalar(value) => Ok(value),
            ColumnarValue::Array(_) => internal_err!("an array"),
        }
    }

    fn decimal(value: i128, scale: i8) -> ScalarValue {
        ScalarValue::Decimal128(Some(value), 38, scale)
    }

    #[test]
    fn integers_do_not_wrap_around() {
        let int = |value: i32| ScalarValue::Int32(Some(value));
        assert_eq!(call(&int_add(), vec![int(1), int(2)]).unwrap(), int(3));
        let error = call(&int_add(), vec![int(i32::MAX), int(1)]).unwrap_err();
        assert!(matches!(error, DataFusionError::ArrowError(..)), "{error}");
        assert!(call(&int_subtract(), vec![int(0), int(i32::MIN)]).is_err());
        assert!(call(&int_multiply(), vec![int(i32::MAX), int(2)]).is_err());
    }

    #[test]
    fn floats_are_not_divided_by_zero() {
        let float = |value: f64| ScalarValue::Float64(Some(value));
        assert_eq!(call(&float_divide(), vec![float(1.0), float(4.0)]).unwrap(), float(0.25));
        assert!(call(&float_divide(), vec![float(1.0), float(-0.0)]).is_err());
        let null = ScalarValue::Float64(None);
        assert_eq!(call(&float_divide(), vec![null.clone(), float(0.0)]).unwrap(), null);
        let left: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(1.0)]));
        let right: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.0), Some(2.0)]));
        assert!(check_divisors::<Float64Type>(&left, &right).is_ok());
        assert!(check_divisors::<Float64Type>(&right, &right).is_err());
    }

    #[test]
    fn floats_do_not_overflow() {
        let float = |value: f64| ScalarValue::Float64(Some(value));
        let message = |result: Result<ScalarValue>| result.unwrap_err().to_string();
        assert!(message(call(&float_multiply(), vec![float(1e308), float(10.0)])).contains("overflow"));
        assert!(message(call(&float_add(), vec![float(f64::MAX), float(f64::MAX)])).contains("overflow"));
        assert!(message(call(&float_multiply(), vec![float(1e-300), float(1e-300)])).contains("underflow"));
        assert!(message(call(&float_divide(), vec![float(1e-300), float(1e300)])).contains("underflow"));
        let infinity = float(f64::INFINITY);
        assert_eq!(call(&float_multiply(), vec![infinity.clone(), float(2.0)]).unwrap(), infinity);
        assert_eq!(call(&float_divide(), vec![float(1.0), infinity]).unwrap(), float(0.0));
        assert_eq!(call(&float_multiply(), vec![float(0.0), float(2.0)]).unwrap(), float(0.0));
    }

    #[test]
    fn numerics_become_the_nearest_double() {
        assert_eq!(decimal_to_double(1, -15), 1e15);
        assert_eq!(decimal_to_double(1, 1), 0.1);
        assert_eq!(
            decimal_to_double(123_456_789_012_345_678_901_234_567_890, 10),
            12_345_678_901_234_567_890.123_456_789
        );
        assert_eq!(decimal_to_double(-5, 38), -5e-38);
        assert_eq!(call(&numeric_to_double(), vec![decimal(25, 1)]).unwrap(), ScalarValue::Float64(Some(2.5)));
    }

    #[test]
    fn quotients_of_numerics_have_sixteen_digits() {
        let quotient = |a, b| call(&numeric_divide(), vec![a, b]);
        let of = |value| ScalarValue::Decimal128(Some(value), QUOTIENT_PRECISION, QUOTIENT_SCALE);
        assert_eq!(quotient(decimal(1, 0), decimal(3, 0)).unwrap(), of(3_333_333_333_333_333));
        assert_eq!(quotient(decimal(-2, 0), decimal(3, 0)).unwrap(), of(-6_666_666_666_666_667));
        assert_eq!(quotient(decimal(5, 1), decimal(25, 2)).unwrap(), of(20_000_000_000_000_000));
        assert!(quotient(decimal(1, 0), decimal(0, 3)).is_err());
        assert!(quotient(decimal(i128::MAX / 2, 0), decimal(1, 16)).is_err());
    }

    #[test]
    fn halves_go_to_the_even_number() {
        let float = |value: f64| ScalarValue::Float64(Some(value));
        for (value, rounded) in [(0.5, 0.0), (1.5, 2.0), (-2.5, -2.0), (2.6, 3.0)] {
            assert_eq!(call(&round_half_even(), vec![float(value)]).unwrap(), float(rounded));
        }
    }
}
