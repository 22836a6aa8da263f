//! jsonb's `->`, `->>`, `#>` and `#>>`. A jsonb is held in its normal form, which was checked when it was read: the
//! values inside are found as pieces of the text, and keep their digits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use meridian_hyperfunctions::made::column_of;
use meridian_proto::SqlType;

/// The value of `json` at `place`, a text (key), bigint (index) or text[] (path); as text, or as jsonb.
pub(crate) fn json_get(json: Expr, place: Expr, as_text: bool) -> Expr {
    let signature = Signature::any(2, Volatility::Immutable);
    ScalarUDF::from(JsonGet { as_text, signature }).call(vec![json, place])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonGet {
    as_text: bool,
    signature: Signature,
}

impl ScalarUDFImpl for JsonGet {
    fn name(&self) -> &'static str {
        if self.as_text { "json_get_text" } else { "json_get" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        let sql_type = if self.as_text { SqlType::Text } else { SqlType::Jsonb };
        Ok(Arc::new(sql_type.field(self.name(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [json, place] = args.args.as_slice() else { return internal_err!("{} takes two arguments", self.name()) };
        let whole = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if whole { 1 } else { args.number_rows };
        let result = self.get(&column_of(json, rows)?, &column_of(place, rows)?)?;
        if whole {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

impl JsonGet {
    fn get(&self, json: &ArrayRef, places: &ArrayRef) -> Result<ArrayRef> {
        let Some(texts) = json.as_string_opt::<i32>() else { return internal_err!("{} wants a jsonb", self.name()) };
        let mut found = StringBuilder::new();
        for row in 0..texts.len() {
            if texts.is_null(row) || places.is_null(row) {
                found.append_null();
                continue;
            }
            let text = texts.value(row);
            let value = match places.data_type() {
                DataType::Utf8 => member(text, places.as_string::<i32>().value(row)),
                DataType::Int64 => element(text, places.as_primitive::<Int64Type>().value(row)),
                DataType::List(_) => at_path(text, &places.as_list::<i32>().value(row)),
                other => return internal_err!("{} with a place of {other}", self.name()),
            };
            match value {
                Some(value) if self.as_text => found.append_option(text_of(value)),
                value => found.append_option(value),
            }
        }
        Ok(Arc::new(found.finish()))
    }
}

/// A string without its quotes; JSON's null is NULL.
fn text_of(value: &str) -> Option<String> {
    match value.as_bytes().first()? {
        b'"' => serde_json::from_str(value).ok(),
        _ if value == "null" => None,
        _ => Some(value.to_owned()),
    }
}

fn at_path<'a>(text: &'a str, path: &ArrayRef) -> Option<&'a str> {
    let steps = path.as_string_opt::<i32>()?;
    steps.iter().try_fold(text, |text, step| {
        let step = step?;
        if text.starts_with('[') { element(text, step.trim().parse().ok()?) } else { member(text, step) }
    })
}

/// The value of an object's key.
fn member<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let inside = text.strip_prefix('{')?.strip_suffix('}')?;
    pieces(inside, b',').find_map(|member| {
        let (name, value) = member.split_at(string_end(member)?);
        let is_it = serde_json::from_str::<String>(name).is_ok_and(|name| name == key);
        is_it.then(|| value.trim_start_matches([':', ' ']))
    })
}

/// An array's element, from 0; from the end when negative.
fn element(text: &str, index: i64) -> Option<&str> {
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    let index = if index < 0 {
        let count = i64::try_from(pieces(inside, b',').count()).ok()?;
        count + index
    } else {
        index
    };
    pieces(inside, b',').nth(usize::try_from(index).ok()?)
}

/// Cuts at a mark that stands neither in a string nor in a value inside.
fn pieces(text: &str, mark: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text).filter(|text| !text.is_empty());
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut depth, mut place) = (0_usize, 0);
        while place < text.len() {
            match text.as_bytes()[place] {
                b'"' => {
                    place += string_end(&text[place..])?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                byte if byte == mark && depth == 0 => {
                    rest = Some(&text[place + 1..]);
                    return Some(text[..place].trim());
                }
                _ => {}
            }
            place += 1;
        }
        rest = None;
        Some(text.trim())
    })
}

/// Behind the string that a text begins with.
fn string_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut place = 1;
    while place < bytes.len() {
        match bytes[place] {
            b'\\' => place += 2,
            b'"' => return Some(place + 1),
            _ => place += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"a": [1, {"b": "x, \"}"}, null, 1.50], "é": {"": true}}"#;

    #[test]
    fn members_and_elements_are_found_as_they_stand() {
        let a = member(TEXT, "a").unwrap();
        assert_eq!(a, r#"[1, {"b": "x, \"}"}, null, 1.50]"#);
        assert_eq!(element(a, 0), Some("1"));
        assert_eq!(element(a, -1), Some("1.50"));
        assert_eq!(element(a, 4), None);
        assert_eq!(element(a, -5), None);
        assert_eq!(member(TEXT, "é"), Some(r#"{"": true}"#));
        assert_eq!(member(TEXT, "b"), None);
        assert_eq!((member(a, "a"), element(TEXT, 0), element("[]", 0)), (None, None, None));
    }

    #[test]
    fn texts_are_strings_without_quotes() {
        let b = member(element(member(TEXT, "a").unwrap(), 1).unwrap(), "b").unwrap();
        assert_eq!(text_of(b).as_deref(), Some("x, \"}"));
        assert_eq!(text_of("null"), None);
        assert_eq!(text_of("1.50").as_deref(), Some("1.50"));
    }
}
