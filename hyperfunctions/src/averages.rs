//! Averages of numerics, rounded as PostgreSQL rounds: to the nearest, halves away from zero. DataFusion's cut the digits
//! that do not fit; what they collect is right, and divided here.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, UInt64Type, i256};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

/// How the state of an average becomes its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Division {
    precision: u8,
    scale: i8,
}

impl Division {
    /// `None`: an average of another type.
    pub(crate) fn of_type(average: &DataType) -> Option<Self> {
        match average {
            DataType::Decimal128(precision, scale) => Some(Self { precision: *precision, scale: *scale }),
            _ => None,
        }
    }

    /// The averages of counts and sums.
    fn averages(self, state: &[ArrayRef]) -> Result<Decimal128Array> {
        let [counts, sums] = state else { return internal_err!("an average of {} states", state.len()) };
        let counts = counts.as_primitive::<UInt64Type>();
        let averages: Decimal128Array = match sums.data_type() {
            DataType::Decimal128(_, scale) => {
                let sums = sums.as_primitive::<Decimal128Type>();
                let average = |(count, sum): (Option<u64>, Option<i128>)| match (count, sum) {
                    (Some(count), Some(sum)) if count > 0 => self.divided(sum, count, *scale).map(Some),
                    _ => Ok(None),
                };
                counts.iter().zip(sums).map(average).collect::<Result<_>>()?
            }
            DataType::Decimal256(_, scale) => {
                let sums = sums.as_primitive::<Decimal256Type>();
                let average = |(count, sum): (Option<u64>, Option<i256>)| match (count, sum) {
                    (Some(count), Some(sum)) if count > 0 => self.divided_wide(sum, count, *scale).map(Some),
                    _ => Ok(None),
                };
                counts.iter().zip(sums).map(average).collect::<Result<_>>()?
            }
            other => return internal_err!("an average of {other}"),
        };
        Ok(averages.with_precision_and_scale(self.precision, self.scale)?)
    }

    fn divided(self, sum: i128, count: u64, scale: i8) -> Result<i128> {
        let count = i128::from(count);
        // 2^64 x 10^18 is below 10^38; no average has more digits than that beyond those of its sum.
        let average = self.factor(scale).and_then(|factor| {
            let rest = (sum % count).checked_mul(factor)?;
            let rounded = (rest.abs().checked_mul(2)? + count) / (2 * count) * rest.signum();
            (sum / count).checked_mul(factor)?.checked_add(rounded)
        });
        self.fitting(average)
    }

    fn divided_wide(self, sum: i256, count: u64, scale: i8) -> Result<i128> {
        let (quotient, rest) = (sum / i256::from_i128(count.into()), sum % i256::from_i128(count.into()));
        let (Some(quotient), Some(rest)) = (quotient.to_i128(), rest.to_i128()) else { return self.fitting(None) };
        let whole = self.factor(scale).and_then(|factor| quotient.checked_mul(factor));
        let rest = self.divided(rest, count, scale)?;
        self.fitting(whole.and_then(|whole| whole.checked_add(rest)))
    }

    /// What a sum is multiplied with to have the average's digits behind the point.
    fn factor(self, scale: i8) -> Option<i128> {
        10_i128.checked_pow(u32::try_from(self.scale - scale).ok()?)
    }

    fn fitting(self, average: Option<i128>) -> Result<i128> {
        let most = 10_i128.pow(self.precision.into()) - 1;
        match average {
            Some(average) if (-most..=most).contains(&average) => Ok(average),
            _ => exec_err!("numeric value out of range"),
        }
    }
}

/// An average of all rows.
#[derive(Debug)]
pub(crate) struct Rounded {
    pub inner: Box<dyn Accumulator>,
    pub division: Division,
}

impl Accumulator for Rounded {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let state = self.inner.state()?;
        let state: Vec<ArrayRef> = state.iter().map(ScalarValue::to_array).collect::<Result<_>>()?;
        ScalarValue::try_from_array(&self.division.averages(&state)?, 0)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

/// Averages of groups.
pub(crate) struct RoundedGroups {
    pub inner: Box<dyn GroupsAccumulator>,
    pub division: Division,
}

impl GroupsAccumulator for RoundedGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.inner.update_batch(values, group_indices, filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let state = self.inner.state(emit_to)?;
        Ok(Arc::new(self.division.averages(&state)?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.inner.merge_batch(states, group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(values, filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_rounded_to_the_nearest() {
        let division = Division { precision: 38, scale: 4 };
        let check = |sum: i128, count: u64, expected: i128| {
            assert_eq!(division.divided(sum, count, 1).unwrap(), expected, "{sum} / {count}");
            let wide = division.divided_wide(i256::from_i128(sum), count, 1).unwrap();
            assert_eq!(wide, expected, "{sum} / {count}, wide");
        };
        check(80, 3, 26_667);
        check(-80, 3, -26_667);
        check(10, 4, 2_500);
        check(1, 16, 63);
        check(-1, 16, -63);
        check(0, 7, 0);
        assert!(division.divided(i128::MAX / 100, 1, 1).is_err());
    }
}
