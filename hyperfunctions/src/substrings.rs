//! Parts of texts and bytes by position: `substr`, `substring`, `overlay`; their `length`; and `chr`. Positions count
//! characters of a text, from 1.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int32Array, StringArray};
use arrow::datatypes::{DataType, Int32Type};
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::logical_expr::ScalarUDF;

use crate::form::{Form, Kind, all_valid, functions as of_forms, texts_of};

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    use Kind::{Bytes, Integer, Text};
    static PART: &[Form] = &[
        Form::new(&[Text, Integer], Text, text_parts),
        Form::new(&[Text, Integer, Integer], Text, text_parts),
        Form::new(&[Bytes, Integer], Bytes, byte_parts),
        Form::new(&[Bytes, Integer, Integer], Bytes, byte_parts),
    ];
    static OVERLAY: &[Form] = &[
        Form::new(&[Text, Text, Integer], Text, overlaid),
        Form::new(&[Text, Text, Integer, Integer], Text, overlaid),
    ];
    static LENGTH: &[Form] = &[Form::new(&[Text], Integer, lengths), Form::new(&[Bytes], Integer, lengths)];
    static CHARACTER: &[Form] = &[Form::new(&[Integer], Text, characters)];
    of_forms(&[("substr", PART), ("substring", PART), ("overlay", OVERLAY), ("length", LENGTH), ("chr", CHARACTER)])
}

/// What is taken of a value: from the position `start` on, which may lie before its beginning, up to the one before `end`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Part {
    start: i64,
    end: i64,
}

impl Part {
    fn try_new(start: i32, length: Option<i32>) -> Result<Self> {
        let start = i64::from(start);
        match length {
            Some(length) if length < 0 => exec_err!("negative substring length not allowed"),
            Some(length) => Ok(Self { start, end: start + i64::from(length) }),
            None => Ok(Self { start, end: i64::MAX }),
        }
    }

    /// Of `row`, by the columns behind that of the values.
    fn of(columns: &[ArrayRef], row: usize) -> Result<Self> {
        let number = |column: &ArrayRef| column.as_primitive::<Int32Type>().value(row);
        let [_, start, length @ ..] = columns else { return internal_err!("a part without a start") };
        Self::try_new(number(start), length.first().map(number))
    }

    /// How many are passed over, and how many are taken.
    fn counts(self) -> (usize, usize) {
        let first = self.start.max(1);
        let count = |number: i64| usize::try_from(number).unwrap_or(0);
        (count(first - 1), count(self.end.saturating_sub(first)))
    }

    fn of_text(self, text: &str) -> &str {
        let (skipped, taken) = self.counts();
        let start = place_of(text, skipped);
        let rest = &text[start..];
        &rest[..place_of(rest, taken)]
    }

    fn of_bytes(self, bytes: &[u8]) -> &[u8] {
        let (skipped, taken) = self.counts();
        let rest = bytes.get(skipped..).unwrap_or_default();
        rest.get(..taken).unwrap_or(rest)
    }
}

/// The byte where a character begins, the first one being number 0; the end of the text if it has not so many.
fn place_of(text: &str, character: usize) -> usize {
    if character >= text.len() {
        return text.len();
    }
    // Of ASCII characters each is a byte.
    if text.as_bytes()[..character].is_ascii() {
        return character;
    }
    text.char_indices().nth(character).map_or(text.len(), |(place, _)| place)
}

fn text_parts(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let texts = texts_of(&columns[0]);
    let one = |row: usize| {
        let part = all_valid(columns, row).then(|| Part::of(columns, row)).transpose()?;
        Ok(part.map(|part| part.of_text(texts.value(row))))
    };
    Ok(Arc::new((0..texts.len()).map(one).collect::<Result<StringArray>>()?))
}

fn byte_parts(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let values = columns[0].as_binary::<i32>();
    let one = |row: usize| {
        let part = all_valid(columns, row).then(|| Part::of(columns, row)).transpose()?;
        Ok(part.map(|part| part.of_bytes(values.value(row))))
    };
    Ok(Arc::new((0..values.len()).map(one).collect::<Result<BinaryArray>>()?))
}

fn overlaid(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, patches) = (texts_of(&columns[0]), texts_of(&columns[1]));
    let number = |column: &ArrayRef, row: usize| column.as_primitive::<Int32Type>().value(row);
    let one = |row: usize| -> Result<Option<String>> {
        if !all_valid(columns, row) {
            return Ok(None);
        }
        let length = columns.get(3).map(|length| number(length, row));
        overlay(texts.value(row), patches.value(row), number(&columns[2], row), length).map(Some)
    };
    Ok(Arc::new((0..texts.len()).map(one).collect::<Result<StringArray>>()?))
}

/// `patch` in the place of `length` characters from `start` on, else of as many as it has.
fn overlay(text: &str, patch: &str, start: i32, length: Option<i32>) -> Result<String> {
    if start <= 0 {
        return exec_err!("negative substring length not allowed");
    }
    let length = length.unwrap_or_else(|| i32::try_from(patch.chars().count()).unwrap_or(i32::MAX));
    let Some(end) = start.checked_add(length) else { return exec_err!("integer out of range") };
    let before = Part::try_new(1, Some(start - 1))?.of_text(text);
    let behind = Part::try_new(end, None)?.of_text(text);
    Ok([before, patch, behind].concat())
}

fn lengths(columns: &[ArrayRef]) -> Result<ArrayRef> {
    // A value of an array with 32-bit offsets is no longer than they tell.
    let lengths: Int32Array = match columns[0].data_type() {
        DataType::Binary => columns[0].as_binary::<i32>().iter().map(|v| v.map(|v| v.len() as i32)).collect(),
        _ => texts_of(&columns[0]).iter().map(|text| text.map(|text| text.chars().count() as i32)).collect(),
    };
    Ok(Arc::new(lengths))
}

fn characters(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let codes = columns[0].as_primitive::<Int32Type>().iter();
    Ok(Arc::new(codes.map(|code| code.map(character).transpose()).collect::<Result<StringArray>>()?))
}

fn character(code: i32) -> Result<String> {
    let Ok(code) = u32::try_from(code) else { return exec_err!("character number must be positive") };
    match char::from_u32(code) {
        Some('\0') => exec_err!("null character not permitted"),
        Some(character) => Ok(character.to_string()),
        None if code > u32::from(char::MAX) => exec_err!("requested character too large for encoding: {code}"),
        None => exec_err!("requested character not valid for encoding: {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_in_characters() {
        let part = |start, length| Part::try_new(start, length).unwrap();
        let check = |start, length, expected: &str| {
            assert_eq!(part(start, length).of_text("aébc"), expected, "{start} {length:?}");
        };
        check(2, Some(2), "éb");
        check(3, None, "bc");
        check(-1, Some(3), "a");
        check(0, Some(1), "");
        check(9, None, "");
        check(1, Some(i32::MAX), "aébc");
        check(i32::MAX, Some(i32::MAX), "");
        check(i32::MIN, Some(i32::MAX), "");
        assert_eq!(part(2, Some(1)).of_bytes(&[1, 2, 3]), [2]);
        assert_eq!(part(5, None).of_bytes(&[1, 2, 3]), [0_u8; 0]);
        assert!(Part::try_new(1, Some(-1)).is_err());
    }

    #[test]
    fn a_patch_lies_over_a_text() {
        assert_eq!(overlay("Txxxxas", "hom", 2, Some(4)).unwrap(), "Thomas");
        assert_eq!(overlay("abcdef", "xyz", 2, None).unwrap(), "axyzef");
        assert_eq!(overlay("abc", "x", 2, Some(-1)).unwrap(), "axabc");
        assert!(overlay("abc", "x", 0, None).is_err() && overlay("abc", "x", 2, Some(i32::MAX)).is_err());
    }

    #[test]
    fn characters_have_codes() {
        assert_eq!((character(65).unwrap(), character(0xe9).unwrap()), ("A".to_owned(), "é".to_owned()));
        for code in [-1, 0, 0xd800, 0x0011_0000] {
            assert!(character(code).is_err(), "{code}");
        }
    }
}
