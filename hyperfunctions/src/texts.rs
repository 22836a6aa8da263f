//! varchar(n) and char(n) in expressions: casts cut to the length, and a char(n), which is held without the spaces at its
//! end, is padded where PostgreSQL looks at them.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use meridian_proto::SqlType;

use crate::made::Texts;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// `text::varchar(n)`
    Varchar,
    /// `text::char(n)`
    Char,
    /// A char(n) with its spaces, as text.
    Pad,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TextFunction {
    kind: Kind,
    signature: Signature,
}

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let function = |kind| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(TextFunction { kind, signature }))
    };
    [Kind::Varchar, Kind::Char, Kind::Pad].into_iter().map(function).collect()
});

/// All of them.
#[must_use]
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    FUNCTIONS.clone()
}

fn call(kind: Kind, text: Expr, length: u32) -> Expr {
    FUNCTIONS[kind as usize].call(vec![text, lit(i64::from(length))])
}

/// A text as varchar(n) or char(n), cut to its length as an explicit cast does. Types without a length: the text itself.
#[must_use]
pub fn cast_text(text: Expr, sql_type: &SqlType) -> Expr {
    match sql_type {
        SqlType::Varchar(Some(length)) => call(Kind::Varchar, text, *length),
        SqlType::Char(length) => call(Kind::Char, text, *length),
        _ => text,
    }
}

/// A char(n) with the spaces that fill it.
#[must_use]
pub fn pad_char(text: Expr, length: u32) -> Expr {
    call(Kind::Pad, text, length)
}

impl ScalarUDFImpl for TextFunction {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Varchar => "cast_varchar",
            Kind::Char => "cast_char",
            Kind::Pad => "pad_char",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [text, length] if (text.is_string() || text.is_null()) && length.is_integer() => {
                Ok(vec![DataType::Utf8, DataType::Int64])
            }
            _ => {
                let types: Vec<_> = types.iter().map(ToString::to_string).collect();
                plan_err!("function {}({}) does not exist", self.name(), types.join(", "))
            }
        }
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let length = match args.scalar_arguments {
            [_, Some(ScalarValue::Int64(Some(length)))] => u32::try_from(*length).ok(),
            _ => None,
        };
        let sql_type = match (self.kind, length) {
            (Kind::Varchar, Some(length)) => SqlType::Varchar(Some(length)),
            (Kind::Char, Some(length)) => SqlType::Char(length),
            _ => SqlType::Text,
        };
        Ok(Arc::new(sql_type.field(self.name(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [text, ColumnarValue::Scalar(ScalarValue::Int64(Some(length)))] = args.args.as_slice() else {
            return internal_err!("{} without a length", self.name());
        };
        let length = usize::try_from(*length).unwrap_or_default();
        let whole = matches!(text, ColumnarValue::Scalar(_));
        let texts = text.to_array(if whole { 1 } else { args.number_rows })?;
        let texts = texts.as_string::<i32>().iter();
        let result: ArrayRef = match self.kind {
            Kind::Varchar => Arc::new(texts.map(|text| text.map(|text| first(text, length))).collect::<StringArray>()),
            Kind::Char => Arc::new(
                texts.map(|text| text.map(|text| first(text, length).trim_end_matches(' '))).collect::<StringArray>(),
            ),
            Kind::Pad => padded(texts, length)?,
        };
        if whole {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// The first `length` characters.
fn first(text: &str, length: usize) -> &str {
    if text.len() <= length {
        return text;
    }
    text.char_indices().nth(length).map_or(text, |(end, _)| &text[..end])
}

fn padded<'a>(texts: impl ExactSizeIterator<Item = Option<&'a str>>, length: usize) -> Result<ArrayRef> {
    let mut made = Texts::with_rows(texts.len());
    for text in texts {
        match text {
            Some(text) => {
                made.push(text)?;
                made.push_repeated(" ", length.saturating_sub(text.chars().count()))?;
                made.end_value();
            }
            None => made.push_null(),
        }
    }
    made.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_characters() {
        assert_eq!((first("éàü", 2), first("ab", 2), first("ab", 5)), ("éà", "ab", "ab"));
        let padded = |text, length| padded([Some(text)].into_iter(), length);
        assert_eq!(padded("é", 3).unwrap().as_string::<i32>().value(0), "é  ");
        assert!(padded("é", usize::MAX).is_err());
    }

    #[test]
    fn a_cast_keeps_its_type() {
        let cast = cast_text(lit("abc"), &SqlType::Char(2));
        let schema = datafusion::common::DFSchema::empty();
        let (_, field) = datafusion::logical_expr::ExprSchemable::to_field(&cast, &schema).unwrap();
        assert_eq!(SqlType::of_field(&field), Some(SqlType::Char(2)));
    }
}
