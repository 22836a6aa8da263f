//! `array_length`, `array_upper`, `array_lower` and `cardinality` with PostgreSQL's type, integer, and its NULL for the
//! length of an empty array.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::made::column_of;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Length,
    /// The same: arrays begin with 1.
    Upper,
    Lower,
    Cardinality,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayFunction {
    kind: Kind,
    signature: Signature,
}

/// All of them.
#[must_use]
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |kind| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(ArrayFunction { kind, signature }))
    };
    [Kind::Length, Kind::Upper, Kind::Lower, Kind::Cardinality].into_iter().map(function).collect()
}

impl ScalarUDFImpl for ArrayFunction {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Length => "array_length",
            Kind::Upper => "array_upper",
            Kind::Lower => "array_lower",
            Kind::Cardinality => "cardinality",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.kind, types) {
            (Kind::Length | Kind::Upper | Kind::Lower, [DataType::List(item), dimension]) if dimension.is_integer() => {
                return Ok(vec![DataType::List(Arc::clone(item)), DataType::Int64]);
            }
            (Kind::Cardinality, [DataType::List(_)]) => return Ok(types.to_vec()),
            _ => {}
        }
        let types: Vec<_> = types.iter().map(ToString::to_string).collect();
        plan_err!("function {}({}) does not exist", self.name(), types.join(", "))
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let whole = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if whole { 1 } else { args.number_rows };
        let lengths = match (self.kind, args.args.as_slice()) {
            (Kind::Cardinality, [array]) => {
                let arrays = column_of(array, rows)?;
                lengths(&arrays).collect::<Int32Array>()
            }
            (_, [array, dimension]) => {
                let (arrays, dimensions) = (column_of(array, rows)?, dimension.to_array(rows)?);
                let dimensions = dimensions.as_primitive::<Int64Type>().iter();
                // Arrays have one dimension; an empty one has none.
                let is_lower = self.kind == Kind::Lower;
                let first = |(length, dimension): (Option<i32>, Option<i64>)| {
                    let length = length.filter(|length| dimension == Some(1) && *length > 0);
                    length.map(|length| if is_lower { 1 } else { length })
                };
                lengths(&arrays).zip(dimensions).map(first).collect()
            }
            _ => return internal_err!("{} with {} arguments", self.name(), args.args.len()),
        };
        let lengths: ArrayRef = Arc::new(lengths);
        if whole {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&lengths, 0)?));
        }
        Ok(ColumnarValue::Array(lengths))
    }
}

fn lengths(arrays: &ArrayRef) -> impl Iterator<Item = Option<i32>> {
    let list = arrays.as_list::<i32>();
    (0..list.len()).map(move |row| list.is_valid(row).then(|| list.value_length(row)))
}

#[cfg(test)]
mod tests {
    use arrow::array::ListArray;

    use super::*;

    #[test]
    fn lengths_are_told_of_what_is_there() {
        let values = vec![Some(vec![Some(1), None]), Some(vec![]), None];
        let arrays: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(values));
        assert_eq!(lengths(&arrays).collect::<Vec<_>>(), [Some(2), Some(0), None]);
    }
}
