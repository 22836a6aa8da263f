//! Casts from and to text by PostgreSQL's rules. Casts of constants are worked out while planning.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use bytes::BytesMut;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use meridian_pgtypes::{ColumnBuilder, Encoder, Format};
use meridian_proto::SqlType;

use crate::sql::errors::external;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Direction {
    FromText,
    ToText,
    /// An array's elements, each as text.
    ToTexts,
}

#[derive(Debug)]
struct Convert {
    direction: Direction,
    sql_type: SqlType,
    format: Arc<Format>,
    signature: Signature,
}

impl PartialEq for Convert {
    fn eq(&self, other: &Self) -> bool {
        self.direction == other.direction && self.sql_type == other.sql_type && self.format == other.format
    }
}

impl Eq for Convert {}

impl Hash for Convert {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.direction, &self.sql_type).hash(state);
    }
}

fn function(direction: Direction, sql_type: SqlType, format: &Arc<Format>, argument: Expr) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    let convert = Convert { direction, sql_type, format: Arc::clone(format), signature };
    ScalarUDF::from(convert).call(vec![argument])
}

/// `text::type`
pub(crate) fn from_text(argument: Expr, sql_type: SqlType, format: &Arc<Format>) -> Expr {
    function(Direction::FromText, sql_type, format, argument)
}

/// `value::text`, where the value is of `sql_type`.
pub(crate) fn to_text(argument: Expr, sql_type: SqlType, format: &Arc<Format>) -> Expr {
    function(Direction::ToText, sql_type, format, argument)
}

/// The elements of an array of `element`, each as text.
pub(crate) fn to_texts(argument: Expr, element: SqlType, format: &Arc<Format>) -> Expr {
    function(Direction::ToTexts, element, format, argument)
}

/// Whether a function reads texts as times: what `now` and `today` mean is another time in each statement.
pub(crate) fn reads_times(function: &ScalarUDF) -> bool {
    fn is_time(sql_type: &SqlType) -> bool {
        match sql_type {
            SqlType::Timestamptz | SqlType::Timestamp | SqlType::Date | SqlType::Time => true,
            SqlType::Array(element) => is_time(element),
            _ => false,
        }
    }
    let convert = function.inner().downcast_ref::<Convert>();
    convert.is_some_and(|convert| convert.direction == Direction::FromText && is_time(&convert.sql_type))
}

/// The value of a text constant.
pub(crate) fn constant(text: &str, sql_type: &SqlType, format: &Format) -> Result<ScalarValue> {
    let array = meridian_pgtypes::from_text(sql_type, text.as_bytes(), format).map_err(external)?;
    ScalarValue::try_from_array(&array, 0)
}

impl ScalarUDFImpl for Convert {
    fn name(&self) -> &str {
        match self.direction {
            Direction::FromText => "from_text",
            Direction::ToText => "to_text",
            Direction::ToTexts => "to_texts",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.result_type().arrow())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(self.result_type().field(self.name(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [argument] = args.args.as_slice() else { return internal_err!("{} of one argument", self.name()) };
        let whole = matches!(argument, ColumnarValue::Scalar(_));
        let values = argument.to_array(if whole { 1 } else { args.number_rows })?;
        let result = match self.direction {
            Direction::FromText => self.read(&values)?,
            Direction::ToText => self.write(&values),
            Direction::ToTexts => self.write_elements(&values)?,
        };
        if whole {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

impl Convert {
    fn result_type(&self) -> SqlType {
        match self.direction {
            Direction::FromText => self.sql_type.clone(),
            Direction::ToText => SqlType::Text,
            Direction::ToTexts => SqlType::Array(Box::new(SqlType::Text)),
        }
    }

    fn write_elements(&self, lists: &ArrayRef) -> Result<ArrayRef> {
        let Some(lists) = lists.as_list_opt::<i32>() else { return internal_err!("{} of no array", self.name()) };
        let texts = self.write(lists.values());
        let item = Arc::new(Field::new("item", DataType::Utf8, true));
        Ok(Arc::new(ListArray::try_new(item, lists.offsets().clone(), texts, lists.nulls().cloned())?))
    }

    fn read(&self, texts: &ArrayRef) -> Result<ArrayRef> {
        let texts = cast(texts, &DataType::Utf8)?;
        let mut builder = ColumnBuilder::new(&self.sql_type, texts.len());
        for text in texts.as_string::<i32>() {
            match text {
                Some(text) => builder.push_text(text.as_bytes(), &self.format).map_err(external)?,
                None => builder.push_null(),
            }
        }
        Ok(builder.finish())
    }

    fn write(&self, values: &ArrayRef) -> ArrayRef {
        let encoder = Encoder::new(&self.sql_type, values, &self.format);
        let mut builder = StringBuilder::with_capacity(values.len(), values.len() * 8);
        let mut text = BytesMut::new();
        for row in 0..values.len() {
            if values.is_null(row) {
                builder.append_null();
                continue;
            }
            text.clear();
            encoder.text(row, &mut text);
            builder.append_value(String::from_utf8_lossy(&text));
        }
        Arc::new(builder.finish())
    }
}
