//! `format`: a template with arguments in it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::ScalarUDF;

use crate::form::{Form, Kind, functions as of_forms, texts_of};
use crate::made::Texts;
use crate::quoting::{quote_identifier, quote_literal};

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    // The planner makes texts of the values.
    static FORMAT: &[Form] =
        &[Form::new(&[Kind::Text], Kind::Text, formats), Form::repeated(&[Kind::Text, Kind::Any], Kind::Text, formats)];
    of_forms(&[("format", FORMAT)])
}

fn formats(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let templates = texts_of(&columns[0]);
    let arguments: Vec<_> = columns[1..].iter().map(texts_of).collect();
    let mut made = Texts::with_rows(templates.len());
    for row in 0..templates.len() {
        if templates.is_null(row) {
            made.push_null();
            continue;
        }
        let arguments: Vec<_> =
            arguments.iter().map(|column| column.is_valid(row).then(|| column.value(row))).collect();
        format(&mut made, templates.value(row), &arguments)?;
        made.end_value();
    }
    made.finish()
}

/// One `%...` of a template.
struct Place {
    argument: usize,
    width: usize,
    /// Filled up behind.
    is_left: bool,
    kind: char,
}

/// `%s`, `%I` and `%L` with positions, widths and a `-` that puts the filling behind.
fn format(out: &mut Texts, template: &str, arguments: &[Option<&str>]) -> Result<()> {
    let (mut rest, mut next) = (template, 0);
    while let Some((before, behind)) = rest.split_once('%') {
        out.push(before)?;
        rest = behind;
        if let Some(behind) = behind.strip_prefix('%') {
            out.push("%")?;
            rest = behind;
            continue;
        }
        let place = take_place(&mut rest, arguments, &mut next)?;
        let Some(value) = arguments.get(place.argument) else { return exec_err!("too few arguments for format()") };
        push_filled(out, &formatted(place.kind, *value)?, &place)?;
    }
    out.push(rest)
}

/// `next`: the argument that is taken where no position is given.
fn take_place(rest: &mut &str, arguments: &[Option<&str>], next: &mut usize) -> Result<Place> {
    let position = take_position(rest);
    let is_left = rest.starts_with('-');
    *rest = rest.trim_start_matches('-');
    let width = take_width(rest, arguments, next)?;
    let argument = match position {
        Some(0) => return exec_err!("format specifies argument 0, but arguments are numbered from 1"),
        Some(position) => position - 1,
        None => *next,
    };
    *next = argument + 1;
    let mut kinds = rest.chars();
    let Some(kind) = kinds.next() else { return exec_err!("unterminated format() type specifier") };
    *rest = kinds.as_str();
    Ok(Place { argument, width: width.unsigned_abs() as usize, is_left: is_left || width < 0, kind })
}

/// `2$`
fn take_position(rest: &mut &str) -> Option<usize> {
    let (number, behind) = leading_number(rest)?;
    *rest = behind.strip_prefix('$')?;
    Some(number)
}

fn leading_number(text: &str) -> Option<(usize, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// A width, `*` for one that is an argument; negative for a filling behind.
fn take_width(rest: &mut &str, arguments: &[Option<&str>], next: &mut usize) -> Result<i64> {
    let Some(behind) = rest.strip_prefix('*') else {
        let Some((width, behind)) = leading_number(rest) else { return Ok(0) };
        *rest = behind;
        return Ok(i64::try_from(width).unwrap_or(i64::MAX));
    };
    *rest = behind;
    let argument = match take_position(rest) {
        Some(position) => position.saturating_sub(1),
        None => *next,
    };
    *next = argument + 1;
    match arguments.get(argument) {
        Some(width) => Ok(width.and_then(|width| width.trim().parse().ok()).unwrap_or(0)),
        None => exec_err!("too few arguments for format()"),
    }
}

fn formatted(kind: char, value: Option<&str>) -> Result<String> {
    match (kind, value) {
        ('s', value) => Ok(value.unwrap_or_default().to_owned()),
        ('I', Some(value)) => Ok(quote_identifier(value)),
        ('I', None) => exec_err!("null values cannot be formatted as an SQL identifier"),
        ('L', value) => Ok(value.map_or_else(|| "NULL".to_owned(), quote_literal)),
        (kind, _) => exec_err!("unrecognized format() type specifier \"{kind}\""),
    }
}

fn push_filled(out: &mut Texts, text: &str, place: &Place) -> Result<()> {
    let missing = place.width.saturating_sub(text.chars().count());
    if place.is_left {
        out.push(text)?;
        return out.push_repeated(" ", missing);
    }
    out.push_repeated(" ", missing)?;
    out.push(text)
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use super::*;

    #[test]
    fn templates_are_filled() {
        let check = |template: &str, arguments: &[Option<&str>], expected: &str| {
            let mut out = Texts::with_rows(1);
            format(&mut out, template, arguments).unwrap();
            out.end_value();
            assert_eq!(out.finish().unwrap().as_string::<i32>().value(0), expected, "{template}");
        };
        check("Hello %s, %1$s", &[Some("World")], "Hello World, World");
        check("%%", &[], "%");
        check(
            "INSERT INTO %I VALUES(%L)",
            &[Some("Foo bar"), Some("O'Reilly")],
            "INSERT INTO \"Foo bar\" VALUES('O''Reilly')",
        );
        check("|%10s|%-10s|", &[Some("foo"), Some("bar")], "|       foo|bar       |");
        check("|%*s|", &[Some("-5"), Some("a")], "|a    |");
        check("%3$s, %2$s, %s", &[Some("1"), Some("2"), Some("3")], "3, 2, 3");
        check("%s%L", &[None, None], "NULL");
        for template in ["%s %s", "%", "%x", "%0$s"] {
            assert!(format(&mut Texts::with_rows(1), template, &[Some("a")]).is_err(), "{template}");
        }
    }
}
