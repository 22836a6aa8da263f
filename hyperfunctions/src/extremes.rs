//! `max` and `min` of floats in groups. NaN is the greatest value, as it is in an order; DataFusion keeps whichever of it and
//! a number comes last. All else is DataFusion's.

use std::cmp::Ordering;

use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::min_max;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature, StatisticsArgs,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Max(min_max::Max);

#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Min(min_max::Min);

/// Floats as PostgreSQL orders them: every NaN is one value, the greatest.
fn compare<F: PartialOrd>(a: F, b: F) -> Ordering {
    // Nothing but NaN has no order to itself.
    let is_nan = |value: &F| value.partial_cmp(value).is_none();
    a.partial_cmp(&b).unwrap_or_else(|| is_nan(&a).cmp(&is_nan(&b)))
}

/// Keeps the value that is `wanted` beside the one before; groups begin with `start`.
fn extremes<T>(data_type: &DataType, start: T::Native, wanted: Ordering) -> Box<dyn GroupsAccumulator>
where
    T: ArrowPrimitiveType + Send,
    T::Native: PartialOrd,
{
    let keep = move |kept: &mut T::Native, value: T::Native| {
        if compare(value, *kept) == wanted {
            *kept = value;
        }
    };
    Box::new(PrimitiveGroupsAccumulator::<T, _>::new(data_type, keep).with_starting_value(start))
}

fn greatest_of_floats(data_type: &DataType) -> Option<Box<dyn GroupsAccumulator>> {
    match data_type {
        DataType::Float32 => Some(extremes::<Float32Type>(data_type, f32::NEG_INFINITY, Ordering::Greater)),
        DataType::Float64 => Some(extremes::<Float64Type>(data_type, f64::NEG_INFINITY, Ordering::Greater)),
        _ => None,
    }
}

fn least_of_floats(data_type: &DataType) -> Option<Box<dyn GroupsAccumulator>> {
    match data_type {
        DataType::Float32 => Some(extremes::<Float32Type>(data_type, f32::NAN, Ordering::Less)),
        DataType::Float64 => Some(extremes::<Float64Type>(data_type, f64::NAN, Ordering::Less)),
        _ => None,
    }
}

macro_rules! delegate {
    ($aggregate:ident, $of_floats:ident) => {
        impl AggregateUDFImpl for $aggregate {
            fn name(&self) -> &str {
                self.0.name()
            }

            fn signature(&self) -> &Signature {
                self.0.signature()
            }

            fn return_type(&self, types: &[DataType]) -> Result<DataType> {
                self.0.return_type(types)
            }

            fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
                self.0.accumulator(args)
            }

            fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
                self.0.groups_accumulator_supported(args)
            }

            fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
                match $of_floats(args.return_field.data_type()) {
                    Some(groups) => Ok(groups),
                    None => self.0.create_groups_accumulator(args),
                }
            }

            fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
                self.0.create_sliding_accumulator(args)
            }

            fn is_descending(&self) -> Option<bool> {
                self.0.is_descending()
            }

            fn order_sensitivity(&self) -> AggregateOrderSensitivity {
                self.0.order_sensitivity()
            }

            fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
                self.0.coerce_types(types)
            }

            fn reverse_expr(&self) -> ReversedUDAF {
                self.0.reverse_expr()
            }

            fn value_from_stats(&self, statistics: &StatisticsArgs) -> Option<ScalarValue> {
                self.0.value_from_stats(statistics)
            }

            fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
                self.0.set_monotonicity(data_type)
            }
        }
    };
}

delegate!(Max, greatest_of_floats);
delegate!(Min, least_of_floats);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Float64Array};
    use datafusion::logical_expr::EmitTo;

    use super::*;

    #[test]
    fn nan_is_the_greatest_of_a_group_wherever_it_comes() {
        let check = |values: &[f64], greatest: f64, least: f64| {
            let groups = vec![0; values.len()];
            for (accumulator, expected) in
                [(greatest_of_floats(&DataType::Float64), greatest), (least_of_floats(&DataType::Float64), least)]
            {
                let mut accumulator = accumulator.unwrap();
                let array: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
                accumulator.update_batch(&[array], &groups, None, 1).unwrap();
                let found = accumulator.evaluate(EmitTo::All).unwrap();
                let found = found.as_primitive::<Float64Type>().value(0);
                assert_eq!(found.to_bits(), expected.to_bits(), "{values:?}");
            }
        };
        check(&[f64::NAN, 1.0, 2.0], f64::NAN, 1.0);
        check(&[1.0, f64::NAN, 2.0], f64::NAN, 1.0);
        check(&[2.0, 1.0, f64::NAN], f64::NAN, 1.0);
        check(&[f64::NAN], f64::NAN, f64::NAN);
        check(&[f64::NEG_INFINITY], f64::NEG_INFINITY, f64::NEG_INFINITY);
        check(&[f64::INFINITY], f64::INFINITY, f64::INFINITY);
    }
}
