//! Roots, logarithms, powers and angles of double precision numbers. They fail where PostgreSQL's fail (float.c): outside
//! of what a function is defined for, and where a result is too large or too small for a double.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::compute::kernels::arity::try_binary;
use arrow::datatypes::Float64Type;
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::logical_expr::ScalarUDF;

use crate::form::{Form, Kind, functions as of_forms};

/// What a function comes to; else PostgreSQL's message.
type Outcome = std::result::Result<f64, &'static str>;

const OVERFLOW: &str = "value out of range: overflow";
const UNDERFLOW: &str = "value out of range: underflow";
const OUT_OF_RANGE: &str = "input is out of range";

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    macro_rules! of_one {
        ($function:expr) => {{
            static FORMS: &[Form] = &[Form::new(&[Kind::Double], Kind::Double, |columns| each(columns, $function))];
            FORMS
        }};
    }
    macro_rules! of_two {
        ($function:expr) => {{
            static FORMS: &[Form] =
                &[Form::new(&[Kind::Double, Kind::Double], Kind::Double, |columns| pairs(columns, $function))];
            FORMS
        }};
    }
    static LOG: &[Form] = &[
        Form::new(&[Kind::Double], Kind::Double, |columns| each(columns, common_logarithm)),
        Form::new(&[Kind::Double, Kind::Double], Kind::Double, |columns| pairs(columns, logarithm)),
    ];
    of_forms(&[
        ("sqrt", of_one!(square_root)),
        ("exp", of_one!(exponential)),
        ("ln", of_one!(|value| defined_logarithm(value).map(f64::ln))),
        ("log10", of_one!(common_logarithm)),
        ("log", LOG),
        ("power", of_two!(power)),
        ("pow", of_two!(power)),
        ("sin", of_one!(|angle| finite(angle).map(f64::sin))),
        ("cos", of_one!(|angle| finite(angle).map(f64::cos))),
        ("tan", of_one!(|angle| finite(angle).map(f64::tan))),
        ("cot", of_one!(|angle| finite(angle).map(|angle| angle.tan().recip()))),
        ("asin", of_one!(|value| within_one(value).map(f64::asin))),
        ("acos", of_one!(|value| within_one(value).map(f64::acos))),
        ("acosh", of_one!(|value| if value < 1.0 { Err(OUT_OF_RANGE) } else { Ok(value.acosh()) })),
        ("atanh", of_one!(|value| within_one(value).map(f64::atanh))),
        ("degrees", of_one!(|angle| scaled(angle, angle.to_degrees()))),
        ("radians", of_one!(|angle| scaled(angle, angle.to_radians()))),
    ])
}

fn each(columns: &[ArrayRef], function: fn(f64) -> Outcome) -> Result<ArrayRef> {
    let [values] = columns else { return internal_err!("a function of one number") };
    let fallible = |value: f64| function(value).map_err(|message| DataFusionError::Execution(message.to_owned()));
    let results: Float64Array = values.as_primitive::<Float64Type>().try_unary(fallible)?;
    Ok(Arc::new(results))
}

fn pairs(columns: &[ArrayRef], function: fn(f64, f64) -> Outcome) -> Result<ArrayRef> {
    let [left, right] = columns else { return internal_err!("a function of two numbers") };
    let (left, right) = (left.as_primitive::<Float64Type>(), right.as_primitive::<Float64Type>());
    let fallible = |a: f64, b: f64| {
        function(a, b).map_err(|message| ArrowError::from(DataFusionError::Execution(message.to_owned())))
    };
    let results: Float64Array = try_binary(left, right, fallible)?;
    Ok(Arc::new(results))
}

fn square_root(value: f64) -> Outcome {
    if value < 0.0 { Err("cannot take square root of a negative number") } else { Ok(value.sqrt()) }
}

fn exponential(value: f64) -> Outcome {
    let result = value.exp();
    if value.is_infinite() { Ok(result) } else { ranged(result) }
}

/// A value that has a logarithm.
fn defined_logarithm(value: f64) -> Outcome {
    if value == 0.0 {
        return Err("cannot take logarithm of zero");
    }
    if value < 0.0 { Err("cannot take logarithm of a negative number") } else { Ok(value) }
}

fn common_logarithm(value: f64) -> Outcome {
    defined_logarithm(value).map(f64::log10)
}

/// Of `value` to `base`.
fn logarithm(base: f64, value: f64) -> Outcome {
    let (base, value) = (defined_logarithm(base)?, defined_logarithm(value)?);
    if base == 1.0 { Err("division by zero") } else { Ok(logarithm_to(base, value)) }
}

/// Of these bases the library knows more exact ways.
fn logarithm_to(base: f64, value: f64) -> f64 {
    if base == 2.0 {
        value.log2()
    } else if base == 10.0 {
        value.log10()
    } else {
        value.log(base)
    }
}

fn power(base: f64, exponent: f64) -> Outcome {
    if base == 0.0 && exponent < 0.0 {
        return Err("zero raised to a negative power is undefined");
    }
    if base < 0.0 && exponent.floor() != exponent && !exponent.is_nan() {
        return Err("a negative number raised to a non-integer power yields a complex result");
    }
    let result = base.powf(exponent);
    if base.is_finite() && exponent.is_finite() && base != 0.0 { ranged(result) } else { Ok(result) }
}

/// Refuses what finite numbers, of which none is 0, cannot truly come to.
fn ranged(result: f64) -> Outcome {
    if result.is_infinite() {
        return Err(OVERFLOW);
    }
    if result == 0.0 { Err(UNDERFLOW) } else { Ok(result) }
}

fn finite(angle: f64) -> Outcome {
    if angle.is_infinite() { Err(OUT_OF_RANGE) } else { Ok(angle) }
}

fn within_one(value: f64) -> Outcome {
    if value.abs() > 1.0 { Err(OUT_OF_RANGE) } else { Ok(value) }
}

/// An angle in other units.
fn scaled(angle: f64, result: f64) -> Outcome {
    if angle == 0.0 || angle.is_infinite() { Ok(result) } else { ranged(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_a_root_or_logarithm_are_refused() {
        assert_eq!(square_root(4.0), Ok(2.0));
        assert!(square_root(-1.0).is_err() && square_root(f64::NAN).unwrap().is_nan());
        assert_eq!(defined_logarithm(0.0), Err("cannot take logarithm of zero"));
        assert_eq!(defined_logarithm(-1.0), Err("cannot take logarithm of a negative number"));
        assert_eq!((logarithm(2.0, 64.0), logarithm(1.0, 5.0)), (Ok(6.0), Err("division by zero")));
    }

    #[test]
    fn powers_are_those_of_real_numbers() {
        assert_eq!((power(2.0, 10.0), power(-2.0, 3.0), power(0.0, 0.0)), (Ok(1024.0), Ok(-8.0), Ok(1.0)));
        assert!(power(0.0, -1.0).is_err() && power(-8.0, 1.0 / 3.0).is_err());
        assert_eq!((power(10.0, 400.0), power(10.0, -400.0)), (Err(OVERFLOW), Err(UNDERFLOW)));
        assert_eq!((power(f64::INFINITY, -1.0), power(1.0, f64::NAN)), (Ok(0.0), Ok(1.0)));
        assert!(power(-1.0, f64::NAN).unwrap().is_nan());
    }

    #[test]
    fn results_stay_within_doubles() {
        assert_eq!((exponential(1000.0), exponential(-1000.0)), (Err(OVERFLOW), Err(UNDERFLOW)));
        assert_eq!((exponential(f64::INFINITY), exponential(f64::NEG_INFINITY)), (Ok(f64::INFINITY), Ok(0.0)));
        assert_eq!((scaled(1e308, 1e308_f64.to_degrees()), scaled(0.0, 0.0)), (Err(OVERFLOW), Ok(0.0)));
        assert_eq!((finite(f64::INFINITY), within_one(1.5)), (Err(OUT_OF_RANGE), Err(OUT_OF_RANGE)));
    }
}
