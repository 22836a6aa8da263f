//! A constant that stands in every row.

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use meridian_hyperfunctions::made::check_spread;

/// From this size on it matters how many rows a constant stands in.
const LONG_BYTES: usize = 64 << 10;

/// A column of a query. A long constant is refused where it would stand in more rows than there is memory for: DataFusion
/// copies it for every row of a batch.
pub(crate) fn spread(column: Expr) -> Expr {
    match column {
        Expr::Literal(value, metadata) if value.size() >= LONG_BYTES => {
            let spread = Spread { signature: Signature::any(1, Volatility::Immutable) };
            ScalarUDF::from(spread).call(vec![Expr::Literal(value, metadata)])
        }
        Expr::Alias(mut alias) => {
            let column = std::mem::replace(alias.expr.as_mut(), Expr::Literal(ScalarValue::Null, None));
            *alias.expr = spread(column);
            Expr::Alias(alias)
        }
        column => column,
    }
}

/// Whether the call is one that [`spread`] made.
pub(crate) fn is_spread(function: &ScalarFunction) -> bool {
    function.func.inner().downcast_ref::<Spread>().is_some()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Spread {
    signature: Signature,
}

impl ScalarUDFImpl for Spread {
    fn name(&self) -> &'static str {
        "spread"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [data_type] => Ok(data_type.clone()),
            _ => internal_err!("spread takes one value"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields {
            [field] => Ok(FieldRef::clone(field)),
            _ => internal_err!("spread takes one value"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Ok([value]) = <[ColumnarValue; 1]>::try_from(args.args) else {
            return internal_err!("spread takes one value");
        };
        if let ColumnarValue::Scalar(value) = &value {
            check_spread(value, args.number_rows)?;
        }
        Ok(value)
    }
}
