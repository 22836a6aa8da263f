//! DataFusion's functions that chain arrays, with a bound on what they make: an array that stands in every row of a batch,
//! or that is chained with itself again and again, would soon be larger than all memory.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::functions_nested::all_default_nested_functions;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::made::check_bytes;

/// Whether a function of DataFusion's is to be called with a bound.
#[must_use]
pub fn is_bounded(name: &str) -> bool {
    ["array_append", "array_concat", "array_prepend"].contains(&name)
}

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let all = all_default_nested_functions().into_iter().filter(|function| is_bounded(function.name()));
    all.map(|inner| Arc::new(ScalarUDF::from(Bounded { inner }))).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = |argument: &ColumnarValue| match argument {
            ColumnarValue::Array(array) => array.get_array_memory_size(),
            ColumnarValue::Scalar(value) => value.size().saturating_mul(args.number_rows),
        };
        // As long as all that it is made of.
        check_bytes(args.args.iter().map(bytes).fold(0, usize::saturating_add), args.number_rows)?;
        self.inner.inner().invoke_with_args(args)
    }
}
