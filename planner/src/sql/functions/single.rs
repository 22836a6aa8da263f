//! The value of a scalar subquery that may have several rows. `up_to_two` gathers the subquery's first two rows, inside
//! of it; `only_one` is put where its value is wanted, and fails there on a second row: a subquery whose value nobody
//! asks for may have as many rows as it likes.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};

use crate::error::SqlError;
use crate::sql::errors::external;

const ROWS_KEPT: usize = 2;

/// A list of the first two values, NULL when there is none.
pub(crate) fn up_to_two(value: Expr) -> Expr {
    static FUNCTION: LazyLock<AggregateUDF> =
        LazyLock::new(|| AggregateUDF::from(UpToTwo { signature: Signature::any(1, Volatility::Immutable) }));
    FUNCTION.call(vec![value])
}

/// The one value of such a list, NULL when there is none; 21000 when there are two.
pub(crate) fn only_one(values: Expr) -> Expr {
    static FUNCTION: LazyLock<ScalarUDF> =
        LazyLock::new(|| ScalarUDF::from(OnlyOne { signature: Signature::any(1, Volatility::Immutable) }));
    FUNCTION.call(vec![values])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct UpToTwo {
    signature: Signature,
}

impl AggregateUDFImpl for UpToTwo {
    fn name(&self) -> &'static str {
        "up_to_two"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [value] => Ok(DataType::new_list(value.clone(), true)),
            _ => internal_err!("up_to_two takes one value"),
        }
    }

    /// The list's metadata tells the SQL type of its elements.
    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        let [value] = arguments else { return internal_err!("up_to_two takes one value") };
        let field = Field::new(self.name(), DataType::new_list(value.data_type().clone(), true), true);
        Ok(Arc::new(field.with_metadata(value.metadata().clone())))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = args.return_field.data_type().clone();
        Ok(vec![Arc::new(Field::new(format!("{}[values]", args.name), list, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match args.return_field.data_type() {
            DataType::List(element) => {
                Ok(Box::new(FirstValues { element: element.data_type().clone(), values: Vec::new() }))
            }
            other => internal_err!("up_to_two cannot give {other}"),
        }
    }
}

#[derive(Debug)]
struct FirstValues {
    element: DataType,
    values: Vec<ScalarValue>,
}

impl FirstValues {
    fn gather(&mut self, values: &ArrayRef) -> Result<()> {
        for row in 0..values.len().min(ROWS_KEPT - self.values.len()) {
            let mut value = ScalarValue::try_from_array(values, row)?;
            value.compact();
            self.values.push(value);
        }
        Ok(())
    }
}

impl Accumulator for FirstValues {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [values] = values else { return internal_err!("one column expected") };
        self.gather(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [lists] = states else { return internal_err!("one column expected") };
        lists.as_list::<i32>().iter().flatten().try_for_each(|values| self.gather(&values))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.values.is_empty() {
            return ScalarValue::try_from(&DataType::new_list(self.element.clone(), true));
        }
        Ok(ScalarValue::List(ScalarValue::new_list(&self.values, &self.element, true)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.iter().map(ScalarValue::size).sum::<usize>()
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OnlyOne {
    signature: Signature,
}

impl ScalarUDFImpl for OnlyOne {
    fn name(&self) -> &'static str {
        "only_one"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::List(element)] => Ok(element.data_type().clone()),
            _ => internal_err!("only_one takes a list"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let [list] = args.arg_fields else { return internal_err!("only_one takes a list") };
        let value = self.return_type(&[list.data_type().clone()])?;
        Ok(Arc::new(Field::new(self.name(), value, true).with_metadata(list.metadata().clone())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [lists] = args.args.as_slice() else { return internal_err!("only_one takes a list") };
        let is_scalar = matches!(lists, ColumnarValue::Scalar(_));
        let lists = lists.to_array(if is_scalar { 1 } else { args.number_rows })?;
        let values = only_values(&lists)?;
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?));
        }
        Ok(ColumnarValue::Array(values))
    }
}

fn only_values(lists: &ArrayRef) -> Result<ArrayRef> {
    let Some(lists) = lists.as_list_opt::<i32>() else { return internal_err!("only_one takes a list") };
    let index = |row: usize| match lists.value_length(row) {
        _ if lists.is_null(row) => Ok(None),
        0 => Ok(None),
        1 => Ok(u32::try_from(lists.value_offsets()[row]).ok()),
        _ => Err(external(SqlError::new("21000", "more than one row returned by a subquery used as an expression"))),
    };
    let indices = (0..lists.len()).map(index).collect::<Result<UInt32Array>>()?;
    Ok(take(lists.values(), &indices, None)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;
    use arrow::datatypes::Int32Type;

    use super::*;

    fn gathered(batches: &[&[Option<i32>]]) -> ArrayRef {
        let mut values = FirstValues { element: DataType::Int32, values: Vec::new() };
        for batch in batches {
            values.update_batch(&[Arc::new(Int32Array::from(batch.to_vec()))]).unwrap();
        }
        values.evaluate().unwrap().to_array().unwrap()
    }

    #[test]
    fn one_value_is_the_value_and_none_is_null() {
        let value = |batches: &[&[Option<i32>]]| {
            let values = only_values(&gathered(batches)).unwrap();
            values.as_primitive::<Int32Type>().iter().next().flatten()
        };
        assert_eq!(value(&[&[], &[Some(7)]]), Some(7));
        assert_eq!(value(&[&[None]]), None);
        assert_eq!(value(&[]), None);
    }

    #[test]
    fn a_second_value_is_an_error_even_if_null() {
        for batches in [&[&[Some(1), None][..]][..], &[&[Some(1)], &[Some(1)]], &[&[None], &[None, None]]] {
            assert!(only_values(&gathered(batches)).is_err(), "{batches:?}");
        }
    }

    #[test]
    fn partial_lists_are_merged() {
        let mut values = FirstValues { element: DataType::Int32, values: Vec::new() };
        for batches in [&[][..], &[&[Some(1)][..]], &[&[Some(2)]]] {
            values.merge_batch(&[gathered(batches)]).unwrap();
        }
        assert_eq!(values.values.len(), 2);
    }
}
