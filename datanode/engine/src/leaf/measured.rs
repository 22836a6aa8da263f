//! What measures look at: values of rows, or of pieces that stand for their rows, one entry each in every array.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};

use super::row_group::flaw;
use super::runs::integers;
use crate::error::EngineError;
use crate::scan::Measure;

/// Rows or pieces, in the order of the row group.
pub(super) struct Measured {
    /// Time of the first and of the last row of each.
    firsts: Int64Array,
    lasts: Int64Array,
    /// One per measure.
    values: Vec<Option<Values>>,
}

/// A column's values as numbers.
pub(super) enum Values {
    Int(ArrayRef),
    Float(ArrayRef),
    Decimal(ArrayRef),
    /// Of rows, or of values that are not NULL, in each piece.
    Counts(Int64Array),
    /// Only whether they are NULL is asked.
    Other(ArrayRef),
}

impl Measured {
    /// `arrays`: one per measure. `None`: a row has no time.
    pub fn of_rows<'a>(
        times: &ArrayRef,
        arrays: impl Iterator<Item = Option<&'a ArrayRef>>,
    ) -> Result<Option<Self>, EngineError> {
        let Some(times) = integers(times) else { return Ok(None) };
        let values = arrays.map(|array| array.map(Values::of).transpose()).collect::<Result<_, _>>()?;
        Ok(Some(Self::of_times(&times, &times, values)))
    }

    /// Both as [`integers`] makes them.
    pub fn of_times(firsts: &ArrayRef, lasts: &ArrayRef, values: Vec<Option<Values>>) -> Self {
        Self { firsts: firsts.as_primitive().clone(), lasts: lasts.as_primitive().clone(), values }
    }

    pub fn len(&self) -> usize {
        self.firsts.len()
    }

    pub fn firsts(&self) -> &[i64] {
        self.firsts.values()
    }

    pub fn lasts(&self) -> &[i64] {
        self.lasts.values()
    }

    /// Of the measure at that place.
    pub fn values(&self, at: usize) -> Option<&Values> {
        self.values.get(at)?.as_ref()
    }
}

impl Values {
    pub fn of(array: &ArrayRef) -> Result<Self, EngineError> {
        Ok(match array.data_type() {
            DataType::Float64 => Self::Float(ArrayRef::clone(array)),
            DataType::Float32 => Self::Float(cast(array, &DataType::Float64).map_err(flaw)?),
            DataType::Decimal128(..) => Self::Decimal(ArrayRef::clone(array)),
            DataType::Int64 => Self::Int(ArrayRef::clone(array)),
            DataType::Int16 | DataType::Int32 | DataType::Timestamp(..) | DataType::Time64(_) => {
                Self::Int(cast(array, &DataType::Int64).map_err(flaw)?)
            }
            DataType::Date32 => {
                let days = cast(array, &DataType::Int32).map_err(flaw)?;
                Self::Int(cast(&days, &DataType::Int64).map_err(flaw)?)
            }
            _ => Self::Other(ArrayRef::clone(array)),
        })
    }

    pub fn nulls(&self) -> Option<&NullBuffer> {
        let nulls = match self {
            Self::Int(array) | Self::Float(array) | Self::Decimal(array) | Self::Other(array) => array.nulls(),
            Self::Counts(_) => None,
        };
        nulls.filter(|nulls| nulls.null_count() > 0)
    }

    pub fn ints(&self) -> &[i64] {
        if let Self::Int(array) = self { array.as_primitive::<Int64Type>().values() } else { &[] }
    }

    pub fn decimals(&self) -> &[i128] {
        if let Self::Decimal(array) = self { array.as_primitive::<Decimal128Type>().values() } else { &[] }
    }

    pub fn floats(&self) -> &[f64] {
        if let Self::Float(array) = self { array.as_primitive::<Float64Type>().values() } else { &[] }
    }
}

/// Whether a column of that type has the measure here.
pub(super) fn can_measure(measure: Measure, data_type: &DataType) -> bool {
    use DataType::{Decimal128, Float32, Float64, Int16, Int32, Int64};
    let is_number = matches!(data_type, Int16 | Int32 | Int64 | Float32 | Float64 | Decimal128(..));
    let is_time = matches!(data_type, DataType::Date32 | DataType::Timestamp(..) | DataType::Time64(_));
    match measure {
        Measure::Rows | Measure::FirstTime | Measure::LastTime | Measure::Count(_) => true,
        Measure::Sum(_) => is_number,
        Measure::Min(_) | Measure::Max(_) | Measure::First(_) | Measure::Last(_) => is_number || is_time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_of_numbers_and_extremes_of_what_is_held_as_one() {
        assert!(can_measure(Measure::Sum(0), &DataType::Float32));
        assert!(can_measure(Measure::Sum(0), &DataType::Int64));
        assert!(can_measure(Measure::Sum(0), &DataType::Decimal128(12, 2)));
        assert!(!can_measure(Measure::Sum(0), &DataType::Date32));
        assert!(can_measure(Measure::Last(0), &DataType::Date32));
        assert!(!can_measure(Measure::Max(0), &DataType::Utf8));
        assert!(can_measure(Measure::Count(0), &DataType::Utf8));
    }
}
