//! A place in a plan that is kept: each statement that uses the plan has its own value there.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The hole of that number. Nothing is known of its value but `field`, so that no rule plans by it; it is filled before
/// the plan runs.
pub(crate) fn hole(number: usize, field: FieldRef) -> Arc<ScalarUDF> {
    // Stable: one value per statement, not worked out while planning.
    let signature = Signature::nullary(Volatility::Stable);
    Arc::new(ScalarUDF::from(Hole { number, name: format!("hole{number}"), field, signature }))
}

/// The number of a hole; `None`: another function.
pub(crate) fn number_of(function: &ScalarUDF) -> Option<usize> {
    function.inner().downcast_ref::<Hole>().map(|hole| hole.number)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Hole {
    number: usize,
    name: String,
    field: FieldRef,
    signature: Signature,
}

impl ScalarUDFImpl for Hole {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::clone(&self.field))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("a hole of a plan was not filled")
    }
}
