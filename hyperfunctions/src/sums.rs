//! `sum` and `avg` with PostgreSQL's types: `sum(bigint)` and `avg` of integers are numeric, so that no sum can overflow
//! silently and no average loses digits.
//!
//! | argument | sum | avg |
//! |---|---|---|
//! | smallint, integer | bigint | numeric, 16 digits behind the point |
//! | bigint | numeric | numeric, 10 digits behind the point |
//! | numeric | numeric of its scale | numeric, at least 16 digits where they fit |
//! | real, double precision | double precision | double precision |
//! | interval | interval | - |

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, plan_err};
use datafusion::functions_aggregate::{average, sum};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature, Volatility};

use crate::averages::{Division, Rounded, RoundedGroups};
use crate::wide_sums::{WideSum, WideSums, wide_type};

const DIGITS_MAX: u8 = 38;
/// What DataFusion's avg adds to the scale of its argument.
const AVG_SCALE: i8 = 4;
/// Digits behind the point that PostgreSQL shows for averages of small numbers, less the four.
const AVG_ARGUMENT_SCALE: i8 = 12;

/// DataFusion's sum behind PostgreSQL's coercions.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sum {
    inner: sum::Sum,
    signature: Signature,
}

impl Default for Sum {
    fn default() -> Self {
        Self { inner: sum::Sum::new(), signature: Signature::user_defined(Volatility::Immutable) }
    }
}

/// DataFusion's avg behind PostgreSQL's coercions.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Avg {
    inner: average::Avg,
    signature: Signature,
}

impl Default for Avg {
    fn default() -> Self {
        Self { inner: average::Avg::new(), signature: Signature::user_defined(Volatility::Immutable) }
    }
}

fn coerce_sum(argument: &DataType) -> Option<DataType> {
    Some(match argument {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => DataType::Int64,
        // An int8 comes as a numeric already: here it may be an int4 that was coerced before.
        DataType::Int64 => DataType::Int64,
        DataType::UInt32 | DataType::UInt64 => DataType::Decimal128(28, 0),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Decimal128(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::Interval(_) | DataType::Duration(_) => argument.clone(),
        DataType::Null => DataType::Float64,
        _ => return None,
    })
}

fn coerce_avg(argument: &DataType) -> Option<DataType> {
    Some(match argument {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
            DataType::Decimal128(10 + AVG_ARGUMENT_SCALE as u8, AVG_ARGUMENT_SCALE)
        }
        // 20 digits before the point and 6 behind it leave the sum 12 digits of rows.
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => DataType::Decimal128(26, 6),
        DataType::Float16 | DataType::Float32 | DataType::Float64 | DataType::Null => DataType::Float64,
        DataType::Decimal128(precision, scale) => {
            let more = (AVG_ARGUMENT_SCALE - scale).max(0) as u8;
            if precision + more + AVG_SCALE as u8 <= DIGITS_MAX - 4 {
                DataType::Decimal128(precision + more, (*scale).max(AVG_ARGUMENT_SCALE))
            } else {
                argument.clone()
            }
        }
        _ => return None,
    })
}

fn coerce_one(name: &str, types: &[DataType], coerce: fn(&DataType) -> Option<DataType>) -> Result<Vec<DataType>> {
    if let [argument] = types
        && let Some(coerced) = coerce(argument)
    {
        return Ok(vec![coerced]);
    }
    let types: Vec<_> = types.iter().map(ToString::to_string).collect();
    plan_err!("function {name}({}) does not exist", types.join(", "))
}

/// What rounds an average of numerics.
fn division_of(args: &AccumulatorArgs) -> Option<Division> {
    if args.is_distinct { None } else { Division::of_type(args.return_field.data_type()) }
}

/// Types of a sum that may not fit on its way, as a result and as a state.
fn wide_of(sum: &FieldRef, of: &[FieldRef], is_distinct: bool) -> Option<(DataType, DataType)> {
    let wide = wide_type(of.first()?.data_type()).filter(|_| !is_distinct)?;
    Some((sum.data_type().clone(), wide))
}

fn never_wide(_: &FieldRef, _: &[FieldRef], _: bool) -> Option<(DataType, DataType)> {
    None
}

macro_rules! delegate {
    ($aggregate:ident, $name:literal, $coerce:ident, $wide:expr, $division:expr) => {
        impl AggregateUDFImpl for $aggregate {
            fn name(&self) -> &str {
                $name
            }

            fn signature(&self) -> &Signature {
                &self.signature
            }

            fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
                coerce_one($name, types, $coerce)
            }

            fn return_type(&self, types: &[DataType]) -> Result<DataType> {
                self.inner.return_type(types)
            }

            fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
                if let Some((narrow, wide)) = $wide(&args.return_field, args.expr_fields, args.is_distinct) {
                    return Ok(Box::new(WideSum::new(narrow, wide)));
                }
                rounded($division(&args), self.inner.accumulator(args)?)
            }

            fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
                if let Some((_, wide)) = $wide(&args.return_field, args.input_fields, args.is_distinct) {
                    return Ok(vec![Field::new(format_state_name(args.name, $name), wide, true).into()]);
                }
                self.inner.state_fields(args)
            }

            fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
                self.inner.groups_accumulator_supported(args)
            }

            fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
                if let Some((narrow, wide)) = $wide(&args.return_field, args.expr_fields, args.is_distinct) {
                    return Ok(Box::new(WideSums::new(narrow, wide)));
                }
                let division = $division(&args);
                let inner = self.inner.create_groups_accumulator(args)?;
                Ok(match division {
                    Some(division) => Box::new(RoundedGroups { inner, division }),
                    None => inner,
                })
            }

            fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
                if let Some((narrow, wide)) = $wide(&args.return_field, args.expr_fields, args.is_distinct) {
                    return Ok(Box::new(WideSum::new(narrow, wide)));
                }
                rounded($division(&args), self.inner.create_sliding_accumulator(args)?)
            }

            fn reverse_expr(&self) -> ReversedUDAF {
                ReversedUDAF::Identical
            }

            fn order_sensitivity(&self) -> AggregateOrderSensitivity {
                AggregateOrderSensitivity::Insensitive
            }
        }
    };
}

fn rounded(division: Option<Division>, inner: Box<dyn Accumulator>) -> Result<Box<dyn Accumulator>> {
    Ok(match division {
        Some(division) => Box::new(Rounded { inner, division }),
        None => inner,
    })
}

delegate!(Sum, "sum", coerce_sum, wide_of, |_: &AccumulatorArgs| None);
delegate!(Avg, "avg", coerce_avg, never_wide, division_of);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_averages_of_integers_are_exact() {
        let sum = |argument: DataType| {
            let types = Sum::default().coerce_types(&[argument]).unwrap();
            Sum::default().return_type(&types).unwrap()
        };
        let avg = |argument: DataType| {
            let types = Avg::default().coerce_types(&[argument]).unwrap();
            Avg::default().return_type(&types).unwrap()
        };
        assert_eq!(sum(DataType::Int32), DataType::Int64);
        assert_eq!(sum(DataType::Int64), DataType::Int64, "of an int8 the planner makes a numeric before");
        assert_eq!(avg(DataType::Int32), DataType::Decimal128(26, 16));
        assert_eq!(avg(DataType::Int64), DataType::Decimal128(30, 10));
        assert_eq!(avg(DataType::Decimal128(12, 2)), DataType::Decimal128(26, 16));
        assert_eq!(avg(DataType::Decimal128(38, 16)), DataType::Decimal128(38, 20));
        assert_eq!(avg(DataType::Float32), DataType::Float64);
        assert!(Sum::default().coerce_types(&[DataType::Utf8]).is_err());
    }
}
