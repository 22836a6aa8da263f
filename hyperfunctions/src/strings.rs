//! Texts made of texts, as PostgreSQL has them: `repeat`, `lpad`, `rpad`, `replace`, `concat`, `array_to_string` and their
//! kin; `split_part` and `string_to_array`; `to_hex` and `md5`. What they make is bounded before it is made.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::logical_expr::ScalarUDF;

use crate::form::{Form, Kind, all_valid, functions as of_forms, texts_of};
use crate::made::Texts;
use crate::md5::hex_digest;

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    use Kind::{Any, Array, BigInt, Bytes, Integer, Text};
    static REPEAT: &[Form] = &[Form::new(&[Text, BigInt], Text, repeated)];
    static LPAD: &[Form] = &[
        Form::new(&[Text, BigInt], Text, |columns| padded(columns, Side::Left)),
        Form::new(&[Text, BigInt, Text], Text, |columns| padded(columns, Side::Left)),
    ];
    static RPAD: &[Form] = &[
        Form::new(&[Text, BigInt], Text, |columns| padded(columns, Side::Right)),
        Form::new(&[Text, BigInt, Text], Text, |columns| padded(columns, Side::Right)),
    ];
    static REPLACE: &[Form] = &[Form::new(&[Text, Text, Text], Text, replaced)];
    // The planner makes texts of the values.
    static CONCAT: &[Form] = &[Form::repeated(&[Any], Text, concatenated)];
    static CONCAT_WITH: &[Form] = &[Form::repeated(&[Text, Any], Text, joined_values)];
    static TWO: &[Form] = &[Form::new(&[Text, Text], Text, chained)];
    static JOIN: &[Form] = &[Form::new(&[Array, Text], Text, joined), Form::new(&[Array, Text, Text], Text, joined)];
    static SPLIT_PART: &[Form] = &[Form::new(&[Text, Text, BigInt], Text, split_parts)];
    static TO_ARRAY: &[Form] =
        &[Form::new(&[Text, Text], Kind::Texts, to_arrays), Form::new(&[Text, Text, Text], Kind::Texts, to_arrays)];
    static TO_HEX: &[Form] = &[Form::new(&[Integer], Text, to_hex), Form::new(&[BigInt], Text, to_hex)];
    static MD5: &[Form] = &[Form::new(&[Text], Text, md5_of_texts), Form::new(&[Bytes], Text, md5_of_bytes)];
    of_forms(&[
        ("repeat", REPEAT),
        ("lpad", LPAD),
        ("rpad", RPAD),
        ("replace", REPLACE),
        ("concat", CONCAT),
        ("concat_ws", CONCAT_WITH),
        ("text_concat", TWO),
        ("array_to_string", JOIN),
        ("split_part", SPLIT_PART),
        ("string_to_array", TO_ARRAY),
        ("to_hex", TO_HEX),
        ("md5", MD5),
    ])
}

/// Makes a text of each row without NULL.
fn made(columns: &[ArrayRef], mut one: impl FnMut(&mut Texts, usize) -> Result<()>) -> Result<ArrayRef> {
    let rows = columns[0].len();
    let mut texts = Texts::with_rows(rows);
    for row in 0..rows {
        if all_valid(columns, row) {
            one(&mut texts, row)?;
            texts.end_value();
        } else {
            texts.push_null();
        }
    }
    texts.finish()
}

fn repeated(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, counts) = (texts_of(&columns[0]), columns[1].as_primitive::<Int64Type>());
    made(columns, |out, row| out.push_repeated(texts.value(row), usize::try_from(counts.value(row)).unwrap_or(0)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

fn padded(columns: &[ArrayRef], side: Side) -> Result<ArrayRef> {
    let (texts, lengths) = (texts_of(&columns[0]), columns[1].as_primitive::<Int64Type>());
    let fills = columns.get(2).map(texts_of);
    made(columns, |out, row| {
        let fill = fills.map_or(" ", |fills| fills.value(row));
        pad(out, texts.value(row), usize::try_from(lengths.value(row)).unwrap_or(0), fill, side)
    })
}

/// Filled up, or cut, to `length` characters.
fn pad(out: &mut Texts, text: &str, length: usize, fill: &str, side: Side) -> Result<()> {
    let missing = length.saturating_sub(text.chars().count());
    if missing == 0 || fill.is_empty() {
        let end = text.char_indices().nth(length).map_or(text.len(), |(end, _)| end);
        return out.push(&text[..end]);
    }
    if side == Side::Right {
        out.push(text)?;
    }
    let width = fill.chars().count();
    out.push_repeated(fill, missing / width)?;
    let end = fill.char_indices().nth(missing % width).map_or(0, |(end, _)| end);
    out.push(&fill[..end])?;
    if side == Side::Left { out.push(text) } else { Ok(()) }
}

fn replaced(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [texts, patterns, replacements] = [0, 1, 2].map(|column: usize| texts_of(&columns[column]));
    made(columns, |out, row| {
        let (text, pattern, replacement) = (texts.value(row), patterns.value(row), replacements.value(row));
        if pattern.is_empty() {
            return out.push(text);
        }
        let mut parts = text.split(pattern);
        out.push(parts.next().unwrap_or_default())?;
        parts.try_for_each(|part| out.push(replacement).and_then(|()| out.push(part)))
    })
}

/// Both texts, one behind the other.
fn chained(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (left, right) = (texts_of(&columns[0]), texts_of(&columns[1]));
    made(columns, |out, row| out.push(left.value(row)).and_then(|()| out.push(right.value(row))))
}

/// All values, but for NULLs.
fn concatenated(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let values: Vec<_> = columns.iter().map(texts_of).collect();
    let mut texts = Texts::with_rows(columns[0].len());
    for row in 0..columns[0].len() {
        for column in values.iter().filter(|column| column.is_valid(row)) {
            texts.push(column.value(row))?;
        }
        texts.end_value();
    }
    texts.finish()
}

/// All values but the first, which stands between them, but for NULLs.
fn joined_values(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (delimiters, values) = (texts_of(&columns[0]), columns[1..].iter().map(texts_of).collect::<Vec<_>>());
    made(&columns[..1], |out, row| {
        let values = values.iter().filter(|column| column.is_valid(row)).map(|column| column.value(row));
        join(out, values, delimiters.value(row))
    })
}

fn join<'a>(out: &mut Texts, values: impl Iterator<Item = &'a str>, delimiter: &str) -> Result<()> {
    for (place, value) in values.enumerate() {
        if place > 0 {
            out.push(delimiter)?;
        }
        out.push(value)?;
    }
    Ok(())
}

/// Elements of an array of texts, which the planner has made of others, with a delimiter between them. NULL is left out,
/// or stands as the third argument.
fn joined(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (lists, delimiters) = (columns[0].as_list::<i32>(), texts_of(&columns[1]));
    let nulls = columns.get(2).map(texts_of);
    made(&columns[..2], |out, row| {
        let null = nulls.filter(|nulls| nulls.is_valid(row)).map(|nulls| nulls.value(row));
        let elements = lists.value(row);
        let Some(texts) = elements.as_string_opt::<i32>() else { return internal_err!("array_to_string of no texts") };
        join(out, texts.iter().filter_map(|text| text.or(null)), delimiters.value(row))
    })
}

fn split_parts(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, delimiters) = (texts_of(&columns[0]), texts_of(&columns[1]));
    let numbers = columns[2].as_primitive::<Int64Type>();
    made(columns, |out, row| out.push(split_part(texts.value(row), delimiters.value(row), numbers.value(row))?))
}

fn split_part<'a>(text: &'a str, delimiter: &str, number: i64) -> Result<&'a str> {
    let Some(place) = number.unsigned_abs().checked_sub(1).and_then(|place| usize::try_from(place).ok()) else {
        return exec_err!("field position must not be zero");
    };
    let part = match (delimiter.is_empty() || text.is_empty(), number < 0) {
        // Without a delimiter the text is its only part.
        (true, _) => (place == 0).then_some(text),
        (false, false) => text.split(delimiter).nth(place),
        // Not from behind: overlapping delimiters are found from the front.
        (false, true) => {
            let parts: Vec<_> = text.split(delimiter).collect();
            parts.len().checked_sub(place.saturating_add(1)).map(|place| parts[place])
        }
    };
    Ok(part.unwrap_or_default())
}

fn to_arrays(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, delimiters) = (texts_of(&columns[0]), texts_of(&columns[1]));
    let nulls = columns.get(2).map(texts_of);
    let mut arrays = ListBuilder::new(StringBuilder::new());
    for row in 0..texts.len() {
        if texts.is_null(row) {
            arrays.append_null();
            continue;
        }
        let delimiter = delimiters.is_valid(row).then(|| delimiters.value(row));
        let null = nulls.filter(|nulls| nulls.is_valid(row)).map(|nulls| nulls.value(row));
        each_part(texts.value(row), delimiter, |part| {
            arrays.values().append_option((Some(part) != null).then_some(part));
        });
        arrays.append(true);
    }
    Ok(Arc::new(arrays.finish()))
}

/// Cut at the delimiter; without one into characters. An empty text has no parts.
fn each_part(text: &str, delimiter: Option<&str>, mut take: impl FnMut(&str)) {
    match delimiter {
        _ if text.is_empty() => {}
        None => text.char_indices().for_each(|(start, c)| take(&text[start..start + c.len_utf8()])),
        Some("") => take(text),
        Some(delimiter) => text.split(delimiter).for_each(take),
    }
}

fn to_hex(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let hex: StringArray = match columns[0].data_type() {
        DataType::Int32 => {
            columns[0].as_primitive::<Int32Type>().iter().map(|value| value.map(|value| format!("{value:x}"))).collect()
        }
        _ => {
            columns[0].as_primitive::<Int64Type>().iter().map(|value| value.map(|value| format!("{value:x}"))).collect()
        }
    };
    Ok(Arc::new(hex))
}

fn md5_of_texts(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let digests = texts_of(&columns[0]).iter().map(|text| text.map(|text| hex_digest(text.as_bytes())));
    Ok(Arc::new(digests.collect::<StringArray>()))
}

fn md5_of_bytes(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let digests = columns[0].as_binary::<i32>().iter().map(|bytes| bytes.map(hex_digest));
    Ok(Arc::new(digests.collect::<StringArray>()))
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use datafusion::common::DataFusionError;

    use super::*;

    fn texts(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn only(made: Result<ArrayRef>) -> String {
        made.unwrap().as_string::<i32>().value(0).to_owned()
    }

    #[test]
    fn parts_are_counted_from_both_ends() {
        let check =
            |number, expected: &str| assert_eq!(split_part("a,b,c", ",", number).unwrap(), expected, "{number}");
        check(1, "a");
        check(3, "c");
        check(4, "");
        check(-1, "c");
        check(-3, "a");
        check(-4, "");
        check(i64::MIN, "");
        assert!(split_part("a", ",", 0).is_err());
        assert_eq!(split_part("abc", "", 1).unwrap(), "abc");
        assert_eq!(split_part("", ",", 1).unwrap(), "");
    }

    #[test]
    fn texts_are_filled_up_or_cut() {
        let padded = |text: &str, length, fill: &str, side| {
            let mut out = Texts::with_rows(1);
            pad(&mut out, text, length, fill, side).unwrap();
            out.end_value();
            only(out.finish())
        };
        assert_eq!(padded("hi", 5, "xy", Side::Left), "xyxhi");
        assert_eq!(padded("hi", 5, "xy", Side::Right), "hixyx");
        assert_eq!(padded("hi", 4, "é", Side::Left), "ééhi");
        assert_eq!(padded("éhi", 2, " ", Side::Left), "éh");
        assert_eq!(padded("hi", 0, " ", Side::Left), "");
        assert_eq!(padded("hi", 5, "", Side::Left), "hi");
    }

    #[test]
    fn texts_are_not_made_longer_than_values_can_be() {
        let count = |count: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![count])) };
        assert_eq!(only(repeated(&[texts(&["ab"]), count(3)])), "ababab");
        assert_eq!(only(repeated(&[texts(&["ab"]), count(-3)])), "");
        let refused = repeated(&[texts(&["ab"]), count(i64::MAX)]);
        assert!(matches!(refused, Err(DataFusionError::Execution(_))), "{refused:?}");
        assert!(padded(&[texts(&["ab"]), count(2_000_000_000)], Side::Left).is_err());
    }

    #[test]
    fn texts_are_replaced_and_joined() {
        assert_eq!(only(replaced(&[texts(&["aXbX"]), texts(&["X"]), texts(&["--"])])), "a--b--");
        assert_eq!(only(replaced(&[texts(&["abc"]), texts(&[""]), texts(&["x"])])), "abc");
        assert_eq!(only(chained(&[texts(&["a"]), texts(&["b"])])), "ab");
        let null: ArrayRef = Arc::new(StringArray::new_null(1));
        assert_eq!(only(concatenated(&[texts(&["a"]), Arc::clone(&null), texts(&["b"])])), "ab");
        assert_eq!(only(joined_values(&[texts(&[", "]), texts(&["a"]), null, texts(&["b"])])), "a, b");
    }

    #[test]
    fn texts_are_cut_into_arrays() {
        let parts = |text: &str, delimiter| {
            let mut parts = Vec::new();
            each_part(text, delimiter, |part| parts.push(part.to_owned()));
            parts
        };
        assert_eq!(parts("xx~^~yy~^~zz", Some("~^~")), ["xx", "yy", "zz"]);
        assert_eq!(parts("aé", None), ["a", "é"]);
        assert_eq!(parts("abc", Some("")), ["abc"]);
        assert!(parts("", Some(",")).is_empty());
    }
}
