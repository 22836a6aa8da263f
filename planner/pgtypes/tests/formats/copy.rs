//! COPY data, in and out, whole and in pieces.

use arrow::array::RecordBatch;
use bytes::Bytes;
use meridian_pgtypes::copy::{
    CopyColumns, CopyDecoder, CopyDirection, CopyEncoder, CopyError, CopyFormat, CopyOptionValue, CopyOptions,
};
use meridian_pgtypes::{Format, ValueError};
use meridian_proto::SqlType;

use crate::{cases, text, unescape};

type Columns = Vec<(String, SqlType)>;

/// `a integer, "b,c" text` as a case writes them.
fn columns(list: &str) -> Columns {
    let mut columns = Vec::new();
    for item in split_list(list) {
        let (name, sql_type) = match item.strip_prefix('"') {
            Some(quoted) => quoted.rsplit_once("\" ").expect("type"),
            None => item.split_once(' ').expect("type"),
        };
        columns.push((name.replace("\"\"", "\""), SqlType::parse(sql_type).expect("type")));
    }
    columns
}

/// Splits at commas outside quotes and brackets.
fn split_list(list: &str) -> Vec<&str> {
    let (mut items, mut start, mut depth, mut quote) = (Vec::new(), 0, 0, None);
    for (place, char) in list.char_indices() {
        match (quote, char) {
            (Some(open), _) if char == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(char),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, ',') if depth == 0 => {
                items.push(list[start..place].trim());
                start = place + 1;
            }
            _ => {}
        }
    }
    items.push(list[start..].trim());
    items
}

/// `format csv, force_null (a, b)` as a case writes them.
fn options(list: &str, direction: CopyDirection) -> Result<CopyOptions, ValueError> {
    let mut items = Vec::new();
    for item in split_list(list) {
        let (name, value) = item.split_once(' ').unwrap_or((item, ""));
        let value = value.trim();
        let value = if value.is_empty() {
            CopyOptionValue::None
        } else if value == "*" {
            CopyOptionValue::Star
        } else if let Some(names) = value.strip_prefix('(') {
            let names = names.trim_end_matches(')').split(',');
            CopyOptionValue::List(names.map(|name| name.trim().to_owned()).collect())
        } else if let Some(quoted) = value.strip_prefix("E'") {
            CopyOptionValue::Text(text(quoted.trim_end_matches('\'')))
        } else if let Some(quoted) = value.strip_prefix('\'') {
            CopyOptionValue::Text(quoted[..quoted.len() - 1].replace("''", "'"))
        } else {
            CopyOptionValue::Text(value.to_owned())
        };
        items.push((name.to_owned(), value));
    }
    CopyOptions::try_new(&items, direction)
}

/// Decodes data that comes in slices cut at `cuts`.
#[expect(clippy::result_large_err, reason = "the error is what is tested")]
fn decode(
    options: &CopyOptions,
    columns: &Columns,
    data: &[u8],
    cuts: &[usize],
    batch_rows: usize,
) -> Result<Vec<RecordBatch>, CopyError> {
    let mut decoder = CopyDecoder::new(options.clone(), columns, Format::default()).with_batch_rows(batch_rows);
    let mut batches = Vec::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([data.len()]) {
        decoder.push(&data[start..end])?;
        batches.extend(std::iter::from_fn(|| decoder.take_batch(batch_rows)));
        start = end;
    }
    while let Some(batch) = decoder.finish()? {
        batches.push(batch);
    }
    assert!(batches.iter().all(|batch| batch.num_rows() <= batch_rows));
    assert_eq!(decoder.row_count(), batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>());
    Ok(batches)
}

fn encode(options: &CopyOptions, columns: &Columns, batches: &[RecordBatch]) -> Vec<Bytes> {
    let mut encoder = CopyEncoder::new(options.clone(), columns, Format::default());
    let mut messages = Vec::new();
    for batch in batches {
        encoder.encode(batch, &mut messages);
    }
    encoder.finish(&mut messages);
    messages
}

/// `ok` and the rows in text format, or the parts of the error.
fn answer(options: &CopyOptions, columns: &Columns, data: &[u8], cuts: &[usize], batch_rows: usize) -> Vec<Vec<u8>> {
    match decode(options, columns, data, cuts, batch_rows) {
        Ok(batches) => {
            let rows = encode(&CopyOptions::of_format(CopyFormat::Text), columns, &batches);
            vec![b"ok".to_vec(), rows.concat()]
        }
        Err(error) => [
            error.sqlstate.to_owned(),
            error.message.clone(),
            error.hint.clone().unwrap_or_default(),
            error.context("t").unwrap_or_default(),
        ]
        .map(String::into_bytes)
        .to_vec(),
    }
}

fn readable(fields: &[Vec<u8>]) -> Vec<String> {
    fields.iter().map(|field| field.escape_ascii().to_string()).collect()
}

#[test]
fn copy_in_and_out_are_as_postgresqls() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in cases(include_str!("copy.tsv")) {
        let [direction, column_list, option_list, data, expected @ ..] = case.as_slice() else {
            panic!("too few fields: {case:?}")
        };
        count += 1;
        let columns = columns(column_list);
        let data = unescape(data);
        let expected: Vec<Vec<u8>> = expected.iter().map(|field| unescape(field)).collect();
        let given = if *direction == "in" {
            let options = options(option_list, CopyDirection::In).expect("options");
            answer(&options, &columns, &data, &[], 65_536)
        } else {
            let options = options(option_list, CopyDirection::Out).expect("options");
            let batches = decode(&CopyOptions::default(), &columns, &data, &[], 2).expect("rows");
            vec![b"ok".to_vec(), encode(&options, &columns, &batches).concat()]
        };
        if given != expected {
            let (expected, given) = (readable(&expected), readable(&given));
            wrong.push(format!("{}\n  PostgreSQL {expected:?}\n  ours       {given:?}", case[..4].join(" | ")));
        }
    }
    assert!(count > 300, "{count} cases");
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn slices_cut_anywhere_give_the_same_rows_and_errors() {
    for case in cases(include_str!("copy.tsv")).filter(|case| case[0] == "in") {
        let columns = columns(case[1]);
        let options = options(case[2], CopyDirection::In).expect("options");
        let data = unescape(case[3]);
        let whole = answer(&options, &columns, &data, &[], 65_536);
        for cut in 0..=data.len() {
            let pieces = answer(&options, &columns, &data, &[cut], 65_536);
            assert_eq!(readable(&pieces), readable(&whole), "{case:?} cut at {cut}");
        }
        let every_byte: Vec<usize> = (0..data.len()).collect();
        for batch_rows in [1, 2, 65_536] {
            let pieces = answer(&options, &columns, &data, &every_byte, batch_rows);
            assert_eq!(readable(&pieces), readable(&whole), "{case:?} byte by byte");
        }
    }
}

#[test]
fn rows_are_one_message_each_and_the_binary_header_goes_with_the_first() {
    let columns = columns("a integer, b text");
    let batches = decode(&CopyOptions::default(), &columns, b"1\tx\n2\ty\n", &[], 10).expect("rows");
    let csv = encode(&options("format csv, header", CopyDirection::Out).expect("options"), &columns, &batches);
    assert_eq!(csv, ["a,b\n", "1,x\n", "2,y\n"]);
    let binary = encode(&CopyOptions::of_format(CopyFormat::Binary), &columns, &batches);
    assert_eq!(binary.len(), 3);
    assert!(binary[0].starts_with(b"PGCOPY\n\xff\r\n\0"));
    assert_eq!(binary[2], b"\xff\xff"[..]);
    assert_eq!(encode(&CopyOptions::of_format(CopyFormat::Binary), &columns, &[]).len(), 1);
}

#[test]
fn options_that_do_not_fit_together_are_refused() {
    use CopyDirection::{In, Out};
    for (list, direction, sqlstate, message) in [
        ("format csv, delimiter 'ab'", In, "0A000", "COPY delimiter must be a single one-byte character"),
        ("format csv, quote ','", In, "22023", "COPY delimiter and quote must be different"),
        ("format csv, null 'a,b'", In, "0A000", "COPY delimiter must not appear in the NULL specification"),
        ("format csv, null '\"'", In, "0A000", "CSV quote character must not appear in the NULL specification"),
        ("delimiter 'a'", In, "22023", "COPY delimiter cannot be \"a\""),
        ("delimiter '\\'", In, "22023", "COPY delimiter cannot be \"\\\""),
        ("quote 'x'", In, "0A000", "COPY quote available only in CSV mode"),
        ("escape 'x'", In, "0A000", "COPY escape available only in CSV mode"),
        ("force_null (a)", In, "0A000", "COPY force null available only in CSV mode"),
        ("format csv, force_quote (a)", In, "0A000", "COPY force quote only available using COPY TO"),
        ("format csv, force_null (a)", Out, "0A000", "COPY force null only available using COPY FROM"),
        ("format csv, header maybe", In, "42601", "header requires a Boolean value or \"match\""),
        ("format csv, header match", Out, "0A000", "cannot use \"match\" with HEADER in COPY TO"),
        ("format foo", In, "22023", "COPY format \"foo\" not recognized"),
        ("bogus 1", In, "42601", "option \"bogus\" not recognized"),
        ("format binary, header", In, "0A000", "cannot specify HEADER in BINARY mode"),
        ("format binary, delimiter ','", In, "42601", "cannot specify DELIMITER in BINARY mode"),
        ("format csv, escape 'ab'", In, "0A000", "COPY escape must be a single one-byte character"),
        ("format csv, format csv", In, "42601", "conflicting or redundant options"),
        ("format csv, null E'a\\n'", In, "22023", "COPY null representation cannot use newline or carriage return"),
        ("format csv, delimiter E'\\r'", In, "22023", "COPY delimiter cannot be newline or carriage return"),
        ("format csv, force_null *", In, "22023", "argument to option \"force_null\" must be a list of column names"),
        ("delimiter", In, "42601", "delimiter requires a parameter"),
    ] {
        let error = options(list, direction).expect_err(list);
        assert_eq!((error.sqlstate, error.message.as_str()), (sqlstate, message), "{list}");
    }
    let chosen = options("format csv, force_null (a, z)", In).expect("options");
    assert_eq!(chosen.force_null, CopyColumns::Named(vec!["a".to_owned(), "z".to_owned()]));
    assert_eq!(chosen.check_columns(&["a", "b"]).expect_err("z").sqlstate, "42P10");
    assert_eq!(
        options("format csv, header off, freeze on, encoding 'UTF-8'", In),
        Ok(CopyOptions::of_format(CopyFormat::Csv))
    );
}

#[test]
fn an_error_stays() {
    let columns = columns("a integer");
    let mut decoder = CopyDecoder::new(CopyOptions::default(), &columns, Format::default());
    decoder.push(b"1\n2\n").expect("numbers");
    let error = decoder.push(b"x\n").expect_err("no number");
    assert_eq!((error.line, error.column.as_deref(), error.value.as_deref()), (3, Some("a"), Some("x")));
    assert_eq!(decoder.push(b"4\n"), Err(error.clone()));
    assert_eq!(decoder.finish().map(|batch| batch.is_some()), Err(error));
}

#[test]
fn batches_stay_small_where_rows_are_long() {
    let columns = columns("a text");
    let mut decoder = CopyDecoder::new(CopyOptions::of_format(CopyFormat::Csv), &columns, Format::default());
    let row = format!("{}\n", "x".repeat(1 << 20));
    for _ in 0..40 {
        decoder.push(row.as_bytes()).expect("text");
    }
    let batch = decoder.take_batch(usize::MAX).expect("16 MiB are enough for a batch");
    assert!(batch.num_rows() <= 16, "{} rows of 1 MiB", batch.num_rows());
}
