//! `value op ANY (array)` and `value op ALL (array)`. Where the array is a constant, `= ANY` and `<> ALL` become IN and
//! NOT IN, which shards know and chunks are pruned by.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, make_comparator};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use meridian_hyperfunctions::made::column_of;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Comparison {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
}

impl Comparison {
    pub(crate) fn parse(symbol: &str) -> Option<Self> {
        Some(match symbol {
            "=" => Self::Eq,
            "<>" | "!=" => Self::NotEq,
            "<" => Self::Lt,
            "<=" => Self::LtEq,
            ">" => Self::Gt,
            ">=" => Self::GtEq,
            _ => return None,
        })
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Eq => order.is_eq(),
            Self::NotEq => order.is_ne(),
            Self::Lt => order.is_lt(),
            Self::LtEq => order.is_le(),
            Self::Gt => order.is_gt(),
            Self::GtEq => order.is_ge(),
        }
    }
}

/// `value comparison ANY (array)`, or ALL. The array's elements have the value's type.
pub(crate) fn quantified(value: Expr, comparison: Comparison, all: bool, array: Expr) -> Expr {
    let signature = Signature::any(2, Volatility::Immutable);
    ScalarUDF::from(Quantified { comparison, all, signature }).call(vec![value, array])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Quantified {
    comparison: Comparison,
    all: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Quantified {
    fn name(&self) -> &'static str {
        if self.all { "compare_all" } else { "compare_any" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value, array] = args.args.as_slice() else { return internal_err!("{} takes two arguments", self.name()) };
        let whole = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if whole { 1 } else { args.number_rows };
        let result = self.compare(&column_of(value, rows)?, &column_of(array, rows)?)?;
        if whole {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(result)))
    }

    fn simplify(&self, args: Vec<Expr>, _info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let negated = match (self.comparison, self.all) {
            (Comparison::Eq, false) => false,
            (Comparison::NotEq, true) => true,
            _ => return Ok(ExprSimplifyResult::Original(args)),
        };
        let [value, Expr::Literal(ScalarValue::List(array), _)] = args.as_slice() else {
            return Ok(ExprSimplifyResult::Original(args));
        };
        if array.is_null(0) {
            return Ok(ExprSimplifyResult::Simplified(lit(ScalarValue::Boolean(None))));
        }
        let elements = array.value(0);
        if elements.is_empty() {
            return Ok(ExprSimplifyResult::Simplified(lit(negated)));
        }
        let literal = |row: usize| Ok(Expr::Literal(ScalarValue::try_from_array(&elements, row)?, None));
        let list = (0..elements.len()).map(literal).collect::<Result<_>>()?;
        let list = InList { expr: Box::new(value.clone()), list, negated };
        Ok(ExprSimplifyResult::Simplified(Expr::InList(list)))
    }
}

impl Quantified {
    fn compare(&self, values: &ArrayRef, arrays: &ArrayRef) -> Result<BooleanArray> {
        let Some(lists) = arrays.as_list_opt::<i32>() else { return internal_err!("{} wants an array", self.name()) };
        let elements = lists.values();
        let compare = make_comparator(values, elements, SortOptions::default())?;
        let of_row = |row: usize| -> Option<bool> {
            if lists.is_null(row) {
                return None;
            }
            let (mut unknown, start) = (false, lists.value_offsets()[row] as usize);
            for element in start..start + lists.value_length(row) as usize {
                if values.is_null(row) || elements.is_null(element) {
                    unknown = true;
                } else if self.comparison.holds(compare(row, element)) != self.all {
                    return Some(!self.all);
                }
            }
            if unknown { None } else { Some(self.all) }
        };
        Ok((0..values.len()).map(of_row).collect())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, ListArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn check(value: Option<i32>, comparison: &str, all: bool, array: Option<&[Option<i32>]>, expected: Option<bool>) {
        let comparison = Comparison::parse(comparison).unwrap();
        let function = Quantified { comparison, all, signature: Signature::any(2, Volatility::Immutable) };
        let arrays = ListArray::from_iter_primitive::<Int32Type, _, _>([array.map(<[Option<i32>]>::to_vec)]);
        let values: ArrayRef = Arc::new(Int32Array::from(vec![value]));
        let result = function.compare(&values, &(Arc::new(arrays) as ArrayRef)).unwrap();
        assert_eq!(result.iter().next().unwrap(), expected, "{value:?} {comparison:?} {all} {array:?}");
    }

    #[test]
    fn nulls_make_unknown_what_they_could_decide() {
        let some: &[Option<i32>] = &[Some(1), None, Some(3)];
        check(Some(3), "=", false, Some(some), Some(true));
        check(Some(2), "=", false, Some(some), None);
        check(Some(2), "=", false, Some(&[Some(1)]), Some(false));
        check(None, "=", false, Some(&[Some(1)]), None);
        check(None, "=", false, Some(&[]), Some(false));
        check(Some(1), "=", false, None, None);
        check(Some(1), "<>", true, Some(some), Some(false));
        check(Some(2), "<>", true, Some(some), None);
        check(Some(2), "<>", true, Some(&[]), Some(true));
        check(Some(2), "<", false, Some(some), Some(true));
        check(Some(2), ">=", true, Some(&[Some(1), Some(2)]), Some(true));
    }
}
