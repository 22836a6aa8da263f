//! Regular expressions as functions: `regexp_match`, `regexp_replace` and their kin, with PostgreSQL's flags and escapes
//! (<https://www.postgresql.org/docs/15/functions-matching.html>).
//!
//! What is matched is decided by the `regex` crate: of several alternatives the first, where PostgreSQL takes the longest;
//! patterns that look around or refer back are refused.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, ListBuilder, StringArray, StringBuilder};
use arrow::datatypes::Int32Type;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::logical_expr::ScalarUDF;
use regex::{Captures, Regex, RegexBuilder};

use crate::failures::pattern_refusal;
use crate::form::{Form, Kind, all_valid, functions as of_forms, texts_of};
use crate::made::Texts;

/// Bytes that a compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 10 << 20;

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    use Kind::{Bool, Integer, Text, Texts};
    static MATCH: &[Form] =
        &[Form::new(&[Text, Text], Texts, first_matches), Form::new(&[Text, Text, Text], Texts, first_matches)];
    static LIKE: &[Form] = &[Form::new(&[Text, Text], Bool, likes), Form::new(&[Text, Text, Text], Bool, likes)];
    static REPLACE: &[Form] = &[
        Form::new(&[Text, Text, Text], Text, replaced),
        Form::new(&[Text, Text, Text, Text], Text, replaced),
        Form::new(&[Text, Text, Text, Integer], Text, replaced_nth),
        Form::new(&[Text, Text, Text, Integer, Integer], Text, replaced_nth),
        Form::new(&[Text, Text, Text, Integer, Integer, Text], Text, replaced_nth),
    ];
    static COUNT: &[Form] = &[
        Form::new(&[Text, Text], Integer, counts),
        Form::new(&[Text, Text, Integer], Integer, counts),
        Form::new(&[Text, Text, Integer, Text], Integer, counts),
    ];
    static PART: &[Form] = &[
        Form::new(&[Text, Text], Text, parts),
        Form::new(&[Text, Text, Integer], Text, parts),
        Form::new(&[Text, Text, Integer, Integer], Text, parts),
        Form::new(&[Text, Text, Integer, Integer, Text], Text, parts),
        Form::new(&[Text, Text, Integer, Integer, Text, Integer], Text, parts),
    ];
    static SPLIT: &[Form] = &[Form::new(&[Text, Text], Texts, splits), Form::new(&[Text, Text, Text], Texts, splits)];
    static FROM: &[Form] = &[Form::new(&[Text, Text], Text, substrings)];
    of_forms(&[
        ("regexp_match", MATCH),
        ("regexp_like", LIKE),
        ("regexp_replace", REPLACE),
        ("regexp_count", COUNT),
        ("regexp_substr", PART),
        ("regexp_split_to_array", SPLIT),
        ("substring_matching", FROM),
    ])
}

/// A pattern that was compiled, with the text and flags that it came of.
#[derive(Default)]
struct Compiled(Option<(String, String, Pattern)>);

#[derive(Clone)]
struct Pattern {
    regex: Regex,
    /// `g`: not the first match alone.
    is_global: bool,
}

impl Compiled {
    /// Patterns mostly are constants: one that is the same as in the row before is not compiled again.
    fn get(&mut self, pattern: &str, flags: &str) -> Result<&Pattern> {
        let is_same = self.0.as_ref().is_some_and(|(text, known, _)| text == pattern && known == flags);
        if !is_same {
            self.0 = Some((pattern.to_owned(), flags.to_owned(), compile(pattern, flags)?));
        }
        match &self.0 {
            Some((_, _, pattern)) => Ok(pattern),
            None => exec_err!("invalid regular expression"),
        }
    }
}

fn compile(pattern: &str, flags: &str) -> Result<Pattern> {
    let mut is_global = false;
    let mut is_literal = false;
    let mut builder_flags = (false, true, false, false);
    for flag in flags.chars() {
        let (insensitive, dot, lines, extended) = &mut builder_flags;
        match flag {
            'g' => is_global = true,
            'i' => *insensitive = true,
            'c' => *insensitive = false,
            'n' | 'm' => (*dot, *lines) = (false, true),
            'p' => (*dot, *lines) = (false, false),
            'w' => (*dot, *lines) = (true, true),
            's' => (*dot, *lines) = (true, false),
            'x' => *extended = true,
            't' => *extended = false,
            'q' => is_literal = true,
            'b' | 'e' => {}
            other => return exec_err!("invalid regular expression option: \"{other}\""),
        }
    }
    let (insensitive, dot, lines, extended) = builder_flags;
    let translated = if is_literal { regex::escape(pattern) } else { translate(pattern) };
    let regex = RegexBuilder::new(&translated)
        .case_insensitive(insensitive)
        .dot_matches_new_line(dot)
        .multi_line(lines)
        .ignore_whitespace(extended)
        .size_limit(PATTERN_BYTES_MAX)
        .build();
    let regex = regex.map_err(|error| pattern_refusal(&error))?;
    Ok(Pattern { regex, is_global })
}

/// PostgreSQL's escapes in the words of the `regex` crate: borders of words, the end of the text; and within brackets
/// nothing that is special there alone.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\\' => {
                let escaped = rest.chars().next();
                rest = &rest[escaped.map_or(0, char::len_utf8)..];
                push_escape(&mut out, escaped);
            }
            '[' => {
                out.push('[');
                rest = translate_brackets(rest, &mut out);
            }
            other => out.push(other),
        }
    }
    out
}

fn push_escape(out: &mut String, escaped: Option<char>) {
    match escaped {
        Some('m') => out.push_str("\\b{start}"),
        Some('M') => out.push_str("\\b{end}"),
        Some('y') => out.push_str("\\b"),
        Some('Y') => out.push_str("\\B"),
        Some('Z') => out.push_str("\\z"),
        Some(escaped) => out.extend(['\\', escaped]),
        None => out.push('\\'),
    }
}

/// What stands between brackets, up to the closing one; returns what follows. Where none closes, all of it as it is.
fn translate_brackets<'a>(pattern: &'a str, out: &mut String) -> &'a str {
    let mut rest = pattern;
    if let Some(behind) = rest.strip_prefix('^') {
        out.push('^');
        rest = behind;
    }
    // A bracket at the beginning is meant as one.
    if let Some(behind) = rest.strip_prefix(']') {
        out.push_str("\\]");
        rest = behind;
    }
    while let Some(character) = rest.chars().next() {
        let behind = &rest[character.len_utf8()..];
        match character {
            ']' => {
                out.push(']');
                return behind;
            }
            '[' => match behind.strip_prefix(':').and_then(|class| class.split_once(":]")) {
                Some((class, behind)) => {
                    out.extend(["[:", class, ":]"]);
                    rest = behind;
                    continue;
                }
                None => out.push_str("\\["),
            },
            '\\' => {
                let escaped = behind.chars().next();
                out.push('\\');
                out.extend(escaped);
                rest = &behind[escaped.map_or(0, char::len_utf8)..];
                continue;
            }
            '&' | '~' => out.extend(['\\', character]),
            other => out.push(other),
        }
        rest = behind;
    }
    rest
}

/// The flags of a row; none where the function was called without.
fn flags_of(columns: &[ArrayRef], column: usize, row: usize) -> &str {
    columns.get(column).map_or("", |flags| texts_of(flags).value(row))
}

fn no_global(pattern: &Pattern, function: &str) -> Result<()> {
    if !pattern.is_global {
        return Ok(());
    }
    exec_err!("{function}() does not support the \"global\" option")
}

/// Calls `one` for each row without NULL.
fn rows<T>(columns: &[ArrayRef], mut one: impl FnMut(usize) -> Result<Option<T>>) -> Result<Vec<Option<T>>> {
    (0..columns[0].len()).map(|row| if all_valid(columns, row) { one(row) } else { Ok(None) }).collect()
}

fn first_matches(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, patterns) = (texts_of(&columns[0]), texts_of(&columns[1]));
    let mut compiled = Compiled::default();
    let mut arrays = ListBuilder::new(StringBuilder::new());
    for row in 0..texts.len() {
        if !all_valid(columns, row) {
            arrays.append_null();
            continue;
        }
        let pattern = compiled.get(patterns.value(row), flags_of(columns, 2, row))?;
        no_global(pattern, "regexp_match")?;
        match pattern.regex.captures(texts.value(row)) {
            None => arrays.append_null(),
            Some(captures) => {
                groups(&captures).for_each(|group| arrays.values().append_option(group));
                arrays.append(true);
            }
        }
    }
    Ok(Arc::new(arrays.finish()))
}

/// What the parentheses matched; without any, the whole match.
fn groups<'a>(captures: &'a Captures) -> impl Iterator<Item = Option<&'a str>> {
    let whole = usize::from(captures.len() > 1);
    captures.iter().skip(whole).map(|group| group.map(|group| group.as_str()))
}

fn likes(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, patterns) = (texts_of(&columns[0]), texts_of(&columns[1]));
    let mut compiled = Compiled::default();
    let found = rows(columns, |row| {
        let pattern = compiled.get(patterns.value(row), flags_of(columns, 2, row))?;
        no_global(pattern, "regexp_like")?;
        Ok(Some(pattern.regex.is_match(texts.value(row))))
    });
    Ok(Arc::new(BooleanArray::from(found?)))
}

fn replaced(columns: &[ArrayRef]) -> Result<ArrayRef> {
    made(columns, |out, texts, row| {
        let pattern = texts.pattern(row, 3)?;
        let places = if pattern.is_global { Places::All } else { Places::Nth(1) };
        let change = Replacement { regex: &pattern.regex, text: texts.replacements.value(row), places };
        change.write(out, texts.texts.value(row), 0)
    })
}

/// With a start and the number of the match that is replaced, 0 for all.
fn replaced_nth(columns: &[ArrayRef]) -> Result<ArrayRef> {
    made(columns, |out, texts, row| {
        let (text, replacement) = (texts.texts.value(row), texts.replacements.value(row));
        let start = start_of(text, integer(columns, 3, row, 1))?;
        let pattern = texts.pattern(row, 5)?;
        let number = integer(columns, 4, row, if pattern.is_global { 0 } else { 1 });
        if number < 0 {
            return exec_err!("invalid value for parameter \"n\": {number}");
        }
        let places = if number == 0 { Places::All } else { Places::Nth(number.unsigned_abs()) };
        Replacement { regex: &pattern.regex, text: replacement, places }.write(out, text, start)
    })
}

/// Columns of `regexp_replace`.
struct Replaced<'a> {
    columns: &'a [ArrayRef],
    texts: &'a StringArray,
    replacements: &'a StringArray,
    compiled: Compiled,
}

impl Replaced<'_> {
    /// `flags`: the column where they stand.
    fn pattern(&mut self, row: usize, flags: usize) -> Result<Pattern> {
        let pattern = texts_of(&self.columns[1]).value(row);
        self.compiled.get(pattern, flags_of(self.columns, flags, row)).cloned()
    }
}

fn made(columns: &[ArrayRef], one: impl Fn(&mut Texts, &mut Replaced, usize) -> Result<()>) -> Result<ArrayRef> {
    let (texts, replacements) = (texts_of(&columns[0]), texts_of(&columns[2]));
    let mut replaced = Replaced { columns, texts, replacements, compiled: Compiled::default() };
    let mut out = Texts::with_rows(texts.len());
    for row in 0..texts.len() {
        if all_valid(columns, row) {
            one(&mut out, &mut replaced, row)?;
            out.end_value();
        } else {
            out.push_null();
        }
    }
    out.finish()
}

fn integer(columns: &[ArrayRef], column: usize, row: usize, otherwise: i32) -> i32 {
    columns.get(column).map_or(otherwise, |values| values.as_primitive::<Int32Type>().value(row))
}

/// The byte of the character that is counted from 1.
fn start_of(text: &str, start: i32) -> Result<usize> {
    let Some(skipped) = usize::try_from(start).ok().and_then(|start| start.checked_sub(1)) else {
        return exec_err!("invalid value for parameter \"start\": {start}");
    };
    Ok(text.char_indices().nth(skipped).map_or(text.len(), |(byte, _)| byte))
}

#[derive(Clone, Copy)]
enum Places {
    All,
    Nth(u32),
}

/// What stands in the place of matches.
struct Replacement<'a> {
    regex: &'a Regex,
    text: &'a str,
    places: Places,
}

impl Replacement<'_> {
    /// `start`: the byte of `text` where matches begin.
    fn write(&self, out: &mut Texts, text: &str, start: usize) -> Result<()> {
        let mut copied = 0;
        for (count, captures) in (1..).zip(matches_from(self.regex, text, start)) {
            if matches!(self.places, Places::Nth(wanted) if count != wanted) {
                continue;
            }
            let Some(found) = captures.get(0) else { continue };
            out.push(&text[copied..found.start()])?;
            expand(&captures, self.text, out)?;
            copied = found.end();
            if matches!(self.places, Places::Nth(_)) {
                break;
            }
        }
        out.push(&text[copied..])
    }
}

/// Matches that begin at `start` or behind it; borders look at what lies before.
fn matches_from<'a>(regex: &'a Regex, text: &'a str, start: usize) -> impl Iterator<Item = Captures<'a>> {
    let mut next = Some(start);
    std::iter::from_fn(move || {
        let captures = regex.captures_at(text, next?)?;
        let found = captures.get(0)?;
        next = if found.end() > found.start() {
            Some(found.end())
        } else {
            // Past an empty match by one character.
            text[found.end()..].chars().next().map(|character| found.end() + character.len_utf8())
        };
        Some(captures)
    })
}

/// `\1` to `\9` are groups, `\&` the whole match, `\\` a backslash.
fn expand(captures: &Captures, replacement: &str, out: &mut Texts) -> Result<()> {
    let mut rest = replacement;
    while let Some((before, behind)) = rest.split_once('\\') {
        out.push(before)?;
        let mut characters = behind.chars();
        match characters.next() {
            Some('&') => out.push(captures.get(0).map_or("", |found| found.as_str()))?,
            Some(digit @ '1'..='9') => {
                let group = digit.to_digit(10).and_then(|digit| captures.get(digit as usize));
                out.push(group.map_or("", |found| found.as_str()))?;
            }
            Some('\\') | None => out.push("\\")?,
            Some(other) => {
                out.push("\\")?;
                out.push(other.encode_utf8(&mut [0; 4]))?;
            }
        }
        rest = characters.as_str();
    }
    out.push(rest)
}

fn counts(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, patterns) = (texts_of(&columns[0]), texts_of(&columns[1]));
    let mut compiled = Compiled::default();
    let found = rows(columns, |row| {
        let pattern = compiled.get(patterns.value(row), flags_of(columns, 3, row))?;
        no_global(pattern, "regexp_count")?;
        let start = start_of(texts.value(row), integer(columns, 2, row, 1))?;
        Ok(Some(matches_from(&pattern.regex, texts.value(row), start).count() as i32))
    });
    Ok(Arc::new(Int32Array::from(found?)))
}

fn parts(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, patterns) = (texts_of(&columns[0]), texts_of(&columns[1]));
    let mut compiled = Compiled::default();
    let found = rows(columns, |row| {
        let pattern = compiled.get(patterns.value(row), flags_of(columns, 4, row))?;
        no_global(pattern, "regexp_substr")?;
        let text = texts.value(row);
        let start = start_of(text, integer(columns, 2, row, 1))?;
        let number = integer(columns, 3, row, 1);
        let Some(skipped) = usize::try_from(number).ok().and_then(|number| number.checked_sub(1)) else {
            return exec_err!("invalid value for parameter \"n\": {number}");
        };
        let group = usize::try_from(integer(columns, 5, row, 0))
            .map_err(|_| DataFusionError::Execution("invalid value for parameter \"subexpr\"".to_owned()))?;
        let found = matches_from(&pattern.regex, text, start).nth(skipped);
        Ok(found.and_then(|captures| captures.get(group).map(|found| found.as_str().to_owned())))
    });
    Ok(Arc::new(StringArray::from(found?)))
}

/// SUBSTRING(text FROM pattern): the first group, without one the whole match.
fn substrings(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, patterns) = (texts_of(&columns[0]), texts_of(&columns[1]));
    let mut compiled = Compiled::default();
    let found = rows(columns, |row| {
        let captures = compiled.get(patterns.value(row), "")?.regex.captures(texts.value(row));
        Ok(captures.and_then(|captures| groups(&captures).next().flatten().map(str::to_owned)))
    });
    Ok(Arc::new(StringArray::from(found?)))
}

fn splits(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, patterns) = (texts_of(&columns[0]), texts_of(&columns[1]));
    let mut compiled = Compiled::default();
    let mut arrays = ListBuilder::new(StringBuilder::new());
    for row in 0..texts.len() {
        if !all_valid(columns, row) {
            arrays.append_null();
            continue;
        }
        let pattern = compiled.get(patterns.value(row), flags_of(columns, 2, row))?;
        no_global(pattern, "regexp_split_to_array")?;
        for part in split(&pattern.regex, texts.value(row)) {
            arrays.values().append_value(part);
        }
        arrays.append(true);
    }
    Ok(Arc::new(arrays.finish()))
}

/// Empty matches at the ends of the text, and right behind another match, cut nothing.
fn split<'a>(regex: &Regex, text: &'a str) -> Vec<&'a str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    for found in regex.find_iter(text) {
        if found.is_empty() && (found.start() == start || found.start() == text.len()) {
            continue;
        }
        parts.push(&text[start..found.start()]);
        start = found.end();
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace_all(text: &str, pattern: &str, replacement: &str, flags: &str) -> String {
        let pattern = compile(pattern, flags).unwrap();
        let places = if pattern.is_global { Places::All } else { Places::Nth(1) };
        replace(&Replacement { regex: &pattern.regex, text: replacement, places }, text, 0)
    }

    fn replace(replacement: &Replacement, text: &str, start: usize) -> String {
        let mut out = Texts::with_rows(1);
        replacement.write(&mut out, text, start).unwrap();
        out.end_value();
        out.finish().unwrap().as_string::<i32>().value(0).to_owned()
    }

    #[test]
    fn matches_are_replaced() {
        assert_eq!(replace_all("foobarbaz", "b..", "X", ""), "fooXbaz");
        assert_eq!(replace_all("foobarbaz", "b..", "X", "g"), "fooXX");
        assert_eq!(replace_all("foobarbaz", "b(..)", "X\\1Y", "g"), "fooXarYXazY");
        assert_eq!(replace_all("Thomas", ".[mN]a.", "M", ""), "ThM");
        assert_eq!(replace_all("aBc", "b", "<\\&>", "i"), "a<B>c");
        assert_eq!(replace_all("a.b", ".", "-", "gq"), "a-b");
        assert_eq!(replace_all("abc", "", "-", "g"), "-a-b-c-");
        assert_eq!(replace_all("a\nb", "a.b", "x", ""), "x");
        assert_eq!(replace_all("a\nb", "a.b", "x", "n"), "a\nb");
        assert_eq!(replace_all("one two", "\\mt", "T", ""), "one Two");
        assert_eq!(replace_all("a[b]&c", "[][&]", "-", "g"), "a-b--c");
        assert_eq!(replace_all("a1 b2", "[[:digit:]&&]", "#", "g"), "a# b#");
        let regex = compile("a|e|i|o|u", "i").unwrap().regex;
        let third = Replacement { regex: &regex, text: "X", places: Places::Nth(3) };
        assert_eq!(replace(&third, "A PostgreSQL function", 0), "A PostgrXSQL function");
    }

    #[test]
    fn texts_are_cut_at_matches() {
        let check = |text, pattern, expected: &[&str]| {
            assert_eq!(split(&compile(pattern, "").unwrap().regex, text), expected, "{text} at {pattern}");
        };
        check("hello world", "\\s+", &["hello", "world"]);
        check("abc", "\\s*", &["a", "b", "c"]);
        check("the quick", "\\s*", &["t", "h", "e", "q", "u", "i", "c", "k"]);
        check("", ",", &[""]);
    }

    #[test]
    fn patterns_that_cannot_be_are_refused() {
        assert!(compile("(", "").is_err() && compile("a", "z").is_err() && compile("(?=a)", "").is_err());
        assert!(start_of("abc", 0).is_err());
        assert_eq!(start_of("é1", 2).unwrap(), 2);
    }
}
