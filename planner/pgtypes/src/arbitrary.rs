//! Bytes from anywhere as values and as COPY data: what fuzzing (`fuzz/`) and the replay of its corpora call. Nothing may
//! come of them but values or errors, and values are read again as they were written.

use arrow::array::{Array, ArrayRef, RecordBatch};
use bytes::BytesMut;
use meridian_proto::SqlType;

use crate::builder::{from_binary, from_text};
use crate::copy::{CopyDecoder, CopyEncoder, CopyError, CopyFormat, CopyHeader, CopyOptions};
use crate::encoder::{Encoder, to_text};
use crate::format::Format;

/// What `now` means: 2023-11-14 22:13:20 UTC.
const NOW_US: i64 = 1_700_000_000_000_000;
/// A form of COPY that begins with names, or of values that is binary.
const HEADER_BIT: u8 = 0x10;
const BINARY_BIT: u8 = 1;

/// Reads the bytes as one value: byte 0 says of which type, byte 1 whether it is binary.
pub fn value_arbitrary(bytes: &[u8]) {
    let Some(([kind, form], rest)) = bytes.split_first_chunk::<2>() else { return };
    let types = types();
    let sql_type = &types[usize::from(*kind) % types.len()];
    let read = match form & BINARY_BIT {
        0 => from_text(sql_type, rest, &format()),
        _ => from_binary(sql_type, rest),
    };
    if let Ok(array) = read {
        assert_eq!(array.len(), 1, "one value is one value");
        array.to_data().validate_full().expect("what is read is sound");
        check_again(sql_type, &array);
    }
}

fn format() -> Format {
    Format { now_us: Some(NOW_US), ..Format::default() }
}

/// Writes the value in both forms and reads it again.
fn check_again(sql_type: &SqlType, array: &ArrayRef) {
    let mut binary = BytesMut::new();
    Encoder::new(sql_type, array, &format()).binary(0, &mut binary);
    let back = from_binary(sql_type, &binary).expect("what was written is read");
    assert!(back.to_data() == array.to_data(), "{sql_type}: {array:?} became {back:?}");
    let text = to_text(sql_type, array, 0, &format()).expect("a value that was read is not NULL");
    let back = from_text(sql_type, text.as_bytes(), &format()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(to_text(sql_type, &back, 0, &format()), Some(text), "{sql_type} reads differently again");
}

/// Reads the bytes as COPY data: byte 0 says in which format, byte 1 in slices of how many bytes. However it is cut, the
/// same comes of it.
pub fn copy_arbitrary(bytes: &[u8]) {
    let Some(([form, slice], data)) = bytes.split_first_chunk::<2>() else { return };
    let options = options(*form);
    let whole = read(&options, data, data.len().max(1));
    let parts = read(&options, data, usize::from(*slice) + 1);
    match (whole, parts) {
        (Ok(whole), Ok(parts)) => {
            assert_eq!(whole, parts, "slices read differently than the whole");
            check_copy_again(&options, &whole);
        }
        (Err(whole), Err(parts)) => {
            assert_eq!((whole.sqlstate, whole.line, whole.message), (parts.sqlstate, parts.line, parts.message));
        }
        (whole, parts) => panic!("the whole gives {:?}, slices give {:?}", whole.err(), parts.err()),
    }
}

fn options(form: u8) -> CopyOptions {
    let format = match form & !HEADER_BIT {
        0 => CopyFormat::Text,
        1 => CopyFormat::Csv,
        _ => CopyFormat::Binary,
    };
    let header = if form & HEADER_BIT != 0 { CopyHeader::Match } else { CopyHeader::None };
    let header = if format == CopyFormat::Binary { CopyHeader::None } else { header };
    CopyOptions { header, ..CopyOptions::of_format(format) }
}

/// All rows, if all are well.
fn read(options: &CopyOptions, data: &[u8], slice_bytes: usize) -> Result<Vec<RecordBatch>, Box<CopyError>> {
    let mut decoder = CopyDecoder::new(options.clone(), &columns(), format()).with_batch_rows(100);
    let mut batches = Vec::new();
    for slice in data.chunks(slice_bytes) {
        decoder.push(slice)?;
        batches.extend(std::iter::from_fn(|| decoder.take_batch(100)));
    }
    while let Some(batch) = decoder.finish()? {
        batches.push(batch);
    }
    Ok(batches)
}

/// Writes the rows in the same format, reads them, and writes them again. Compared is what is written: text does not say
/// which NaN a float is.
fn check_copy_again(options: &CopyOptions, batches: &[RecordBatch]) {
    let written = write(options, batches);
    let again = read(options, &written, written.len().max(1)).expect("what was written is read");
    assert_eq!(write(options, &again), written, "rows read differently again");
}

fn write(options: &CopyOptions, batches: &[RecordBatch]) -> Vec<u8> {
    let mut encoder = CopyEncoder::new(options.clone(), &columns(), format());
    let mut messages = Vec::new();
    for batch in batches {
        encoder.encode(batch, &mut messages);
    }
    encoder.finish(&mut messages);
    messages.concat()
}

/// Columns of each kind that COPY treats in a way of its own.
#[must_use]
pub fn columns() -> Vec<(String, SqlType)> {
    let column = |name: &str, sql_type| (name.to_owned(), sql_type);
    vec![
        column("time", SqlType::Timestamptz),
        column("host", SqlType::Text),
        column("value", SqlType::Float8),
        column("count", SqlType::Int4),
        column("list", SqlType::Array(Box::new(SqlType::Text))),
    ]
}

/// All types, and arrays of some.
#[must_use]
pub fn types() -> [SqlType; 23] {
    let array = |of: SqlType| SqlType::Array(Box::new(of));
    [
        SqlType::Bool,
        SqlType::Int2,
        SqlType::Int4,
        SqlType::Int8,
        SqlType::Float4,
        SqlType::Float8,
        SqlType::Numeric(None),
        SqlType::Numeric(Some((12, 2))),
        SqlType::Text,
        SqlType::Varchar(Some(10)),
        SqlType::Char(5),
        SqlType::Timestamptz,
        SqlType::Timestamp,
        SqlType::Date,
        SqlType::Time,
        SqlType::Interval,
        SqlType::Uuid,
        SqlType::Bytea,
        SqlType::Jsonb,
        array(SqlType::Int4),
        array(SqlType::Text),
        array(SqlType::Numeric(None)),
        array(SqlType::Timestamptz),
    ]
}
