//! Sums of numerics of so many digits that they may pass what a numeric holds: added up with 256 bits, narrowed at the end,
//! where one that does not fit is an error. DataFusion's own wrap.

use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::{DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type, i256};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

/// Digits of numerics of which ten thousand million may be added up with 128 bits.
const NARROW_DIGITS_MAX: u8 = 28;

/// The type that a sum of that type is held as; `None`: it fits in any case.
pub(crate) fn wide_type(summed: &DataType) -> Option<DataType> {
    match summed {
        DataType::Decimal128(precision, scale) if *precision > NARROW_DIGITS_MAX => {
            Some(DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale))
        }
        _ => None,
    }
}

fn narrowed(sum: i256) -> Result<i128> {
    sum.to_i128().ok_or_else(|| exec_datafusion_err!("numeric field overflow"))
}

/// A sum of all rows, or of those in the frame of a window.
#[derive(Debug)]
pub(crate) struct WideSum {
    sum: i256,
    /// Values that are in it.
    count: u64,
    /// Of the result, and of the state.
    narrow: DataType,
    wide: DataType,
}

impl WideSum {
    pub(crate) fn new(narrow: DataType, wide: DataType) -> Self {
        Self { sum: i256::ZERO, count: 0, narrow, wide }
    }

    /// Sum and number of the values that are not NULL.
    fn of(&self, values: &[ArrayRef]) -> Result<(i256, u64)> {
        let values = cast(&values[0], &self.wide)?;
        let values = values.as_primitive::<Decimal256Type>();
        let sum = values.iter().flatten().fold(i256::ZERO, i256::wrapping_add);
        Ok((sum, (values.len() - values.null_count()) as u64))
    }
}

impl Accumulator for WideSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (sum, count) = self.of(values)?;
        self.sum = self.sum.wrapping_add(sum);
        self.count += count;
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let DataType::Decimal128(precision, scale) = self.narrow else { return ScalarValue::try_from(&self.narrow) };
        let sum = if self.count > 0 { Some(narrowed(self.sum)?) } else { None };
        Ok(ScalarValue::Decimal128(sum, precision, scale))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let DataType::Decimal256(precision, scale) = self.wide else { return Ok(vec![ScalarValue::Null]) };
        Ok(vec![ScalarValue::Decimal256((self.count > 0).then_some(self.sum), precision, scale)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (sum, count) = self.of(values)?;
        self.sum = self.sum.wrapping_sub(sum);
        self.count -= count.min(self.count);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }
}

/// Sums of groups.
pub(crate) struct WideSums {
    inner: Box<dyn GroupsAccumulator>,
    narrow: DataType,
    wide: DataType,
}

impl WideSums {
    pub(crate) fn new(narrow: DataType, wide: DataType) -> Self {
        let add = |sum: &mut i256, value: i256| *sum = sum.wrapping_add(value);
        Self { inner: Box::new(PrimitiveGroupsAccumulator::<Decimal256Type, _>::new(&wide, add)), narrow, wide }
    }

    fn widened(&self, values: &[ArrayRef]) -> Result<[ArrayRef; 1]> {
        Ok([cast(&values[0], &self.wide)?])
    }
}

impl GroupsAccumulator for WideSums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let values = self.widened(values)?;
        self.inner.update_batch(&values, group_indices, filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums = self.inner.evaluate(emit_to)?;
        let sums = sums.as_primitive::<Decimal256Type>().try_unary::<_, Decimal128Type, DataFusionError>(narrowed)?;
        Ok(Arc::new(sums.with_data_type(self.narrow.clone())))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.inner.merge_batch(states, group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(&self.widened(values)?, filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Decimal128Array;

    use super::*;

    #[test]
    fn sums_pass_what_fits_and_come_back() {
        let narrow = DataType::Decimal128(38, 0);
        let wide = wide_type(&narrow).unwrap();
        assert_eq!(wide_type(&DataType::Decimal128(28, 0)), None);
        let most = 10_i128.pow(38) - 1;
        let column = |values: &[Option<i128>]| -> Vec<ArrayRef> {
            vec![Arc::new(values.iter().copied().collect::<Decimal128Array>().with_data_type(narrow.clone()))]
        };
        let mut sum = WideSum::new(narrow.clone(), wide.clone());
        assert!(sum.evaluate().unwrap().is_null());
        sum.update_batch(&column(&[Some(most), Some(most), None])).unwrap();
        assert!(sum.evaluate().unwrap_err().to_string().contains("numeric field overflow"));
        sum.update_batch(&column(&[Some(-most)])).unwrap();
        assert_eq!(sum.evaluate().unwrap(), ScalarValue::Decimal128(Some(most), 38, 0));
        sum.retract_batch(&column(&[Some(-most)])).unwrap();
        assert!(sum.evaluate().is_err());

        let mut groups = WideSums::new(narrow.clone(), wide.clone());
        groups.update_batch(&column(&[Some(most), Some(most), None]), &[0, 0, 1], None, 2).unwrap();
        let states = groups.state(EmitTo::All).unwrap();
        let mut merged = WideSums::new(narrow.clone(), wide);
        merged.merge_batch(&states, &[0, 1], 2).unwrap();
        merged.update_batch(&column(&[Some(-most)]), &[0], None, 2).unwrap();
        let sums = merged.evaluate(EmitTo::All).unwrap();
        let sums: Vec<_> = sums.as_primitive::<Decimal128Type>().iter().collect();
        assert_eq!(sums, [Some(most), None]);
    }
}
