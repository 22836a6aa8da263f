//! Random values survive the trip through text and binary; random bytes never panic.

#![expect(clippy::result_large_err, reason = "an error of a test is made once")]

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int64Array,
    IntervalMonthDayNanoArray, ListArray, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Float64Type, IntervalMonthDayNano};
use bytes::BytesMut;
use meridian_pgtypes::copy::{CopyDecoder, CopyFormat, CopyHeader, CopyOptions};
use meridian_pgtypes::{ColumnBuilder, ColumnWriter, DataRowWriter, Encoder, Format, TimeZone};
use meridian_proto::SqlType;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

const ROWS: usize = 2000;

fn check_round_trip(sql_type: &SqlType, array: &ArrayRef, format: &Format) {
    assert_eq!(array.data_type(), &sql_type.arrow());
    let encoder = Encoder::new(sql_type, array, format);
    check_data_rows(sql_type, array, format);
    let mut texts = ColumnBuilder::new(sql_type, 0);
    let mut binaries = ColumnBuilder::new(sql_type, 0);
    let mut out = BytesMut::new();
    for row in 0..array.len() {
        if encoder.is_null(row) {
            texts.push_null();
            binaries.push_null();
            continue;
        }
        out.clear();
        encoder.text(row, &mut out);
        texts.push_text(&out, format).unwrap_or_else(|error| panic!("{sql_type} {out:?}: {error}"));
        out.clear();
        encoder.binary(row, &mut out);
        binaries.push_binary(&out).unwrap_or_else(|error| panic!("{sql_type} {out:?}: {error}"));
    }
    assert_eq!(texts.len(), array.len());
    assert_eq!(&texts.finish(), array, "text of {sql_type}");
    assert_eq!(&binaries.finish(), array, "binary form of {sql_type}");
}

/// DataRow messages hold the fields that the encoder writes one by one, also where a row has many.
fn check_data_rows(sql_type: &SqlType, array: &ArrayRef, format: &Format) {
    const COLUMNS: usize = 60;
    let encoder = || Encoder::new(sql_type, array, format);
    let column = |at: usize| ColumnWriter { values: encoder(), is_binary: at % 3 == 2 };
    let mut writer = DataRowWriter::new((0..COLUMNS).map(column).collect());
    let values = encoder();
    let (mut written, mut expected) = (BytesMut::new(), BytesMut::new());
    for row in 0..array.len() {
        written.clear();
        expected.clear();
        writer.write(row, &mut written);
        for at in 0..COLUMNS {
            if at % 3 == 2 { values.binary_field(row, &mut expected) } else { values.text_field(row, &mut expected) }
        }
        let head = [&[b'D'][..], &(expected.len() as u32 + 6).to_be_bytes(), &(COLUMNS as u16).to_be_bytes()].concat();
        assert_eq!(written[..7], head, "{sql_type}");
        assert_eq!(written[7..], expected, "{sql_type} in row {row}");
    }
}

fn some<T>(random: &mut StdRng, value: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    if random.random_bool(0.1) { None } else { Some(value(random)) }
}

fn make<T>(random: &mut StdRng, mut value: impl FnMut(&mut StdRng) -> T) -> Vec<Option<T>> {
    (0..ROWS).map(|_| some(random, &mut value)).collect()
}

fn random_text(random: &mut StdRng) -> String {
    const CHARS: [char; 20] =
        ['a', 'Z', '0', ' ', '\t', '\n', '\r', '"', '\'', '\\', ',', '{', '}', ';', 'é', '€', '😀', 'N', '.', '\u{7f}'];
    (0..random.random_range(0..12)).map(|_| CHARS[random.random_range(0..CHARS.len())]).collect()
}

#[test]
fn random_values_survive_text_and_binary() {
    let random = &mut StdRng::seed_from_u64(7);
    let utc = Format::default();
    let int8 = make(random, |r| r.random::<i64>() >> r.random_range(0..64));
    check_round_trip(&SqlType::Int8, &(Arc::new(Int64Array::from(int8)) as ArrayRef), &utc);
    let finite = |value: f64| if value.is_nan() { f64::NAN } else { value };
    let float8 = make(random, |r| finite(f64::from_bits(r.random())));
    check_round_trip(&SqlType::Float8, &(Arc::new(Float64Array::from(float8)) as ArrayRef), &utc);
    let cents = make(random, |r| f64::from(r.random_range(-100_000..100_000)) / 100.0);
    check_round_trip(&SqlType::Float8, &(Arc::new(Float64Array::from(cents)) as ArrayRef), &utc);
    let float4 = make(random, |r| {
        let value = f32::from_bits(r.random());
        if value.is_nan() { f32::NAN } else { value }
    });
    check_round_trip(&SqlType::Float4, &(Arc::new(Float32Array::from(float4)) as ArrayRef), &utc);
    for limits in [(38, 16), (38, 0), (10, 2), (5, 5)] {
        let bound = 10_i128.pow(limits.0.into());
        let values = make(random, |r| (r.random::<i128>() >> r.random_range(0..127)) % bound);
        let array = Decimal128Array::from(values).with_precision_and_scale(limits.0, limits.1).expect("in range");
        check_round_trip(&SqlType::Numeric(Some(limits)), &(Arc::new(array.clone()) as ArrayRef), &utc);
        if limits == (38, 16) {
            check_round_trip(&SqlType::Numeric(None), &(Arc::new(array) as ArrayRef), &utc);
        }
    }
    let texts = make(random, |r| (0..r.random_range(1..9)).map(|_| random_text(r)).collect::<String>());
    check_round_trip(&SqlType::Text, &(Arc::new(StringArray::from(texts)) as ArrayRef), &utc);
    let bytes: Vec<Vec<u8>> = (0..ROWS).map(|place| (0..place % 40).map(|_| random.random()).collect()).collect();
    let bytes: BinaryArray = bytes.iter().map(|value| Some(value.as_slice())).collect();
    check_round_trip(&SqlType::Bytea, &(Arc::new(bytes) as ArrayRef), &utc);
    let lists = make(random, |r| {
        let length = r.random_range(0..5);
        (0..length).map(|_| some(r, |r| f64::from(r.random::<f32>()))).collect::<Vec<_>>()
    });
    let lists = ListArray::from_iter_primitive::<Float64Type, _, _>(lists);
    check_round_trip(&SqlType::Array(Box::new(SqlType::Float8)), &(Arc::new(lists) as ArrayRef), &utc);
}

#[test]
fn decimals_are_written_with_the_digits_that_they_were_read_from() {
    let random = &mut StdRng::seed_from_u64(12);
    for _ in 0..100_000 {
        let (digits, scale) = (random.random_range(1..=15), random.random_range(0..=6));
        let size = random.random_range(1..10_i64.pow(digits));
        let number = if random.random_bool(0.5) { -size } else { size };
        let value: f64 = format!("{number}e-{scale}").parse().expect("a number");
        if value.abs() < 1e-4 {
            continue;
        }
        let array: ArrayRef = Arc::new(Float64Array::from(vec![value]));
        let mut out = BytesMut::new();
        Encoder::new(&SqlType::Float8, &array, &Format::default()).text(0, &mut out);
        // Rust writes the shortest digits, and never an exponent.
        assert_eq!(out, format!("{value}"), "{number}e-{scale}");
    }
}

#[test]
fn random_times_survive_text_and_binary_in_every_zone() {
    let random = &mut StdRng::seed_from_u64(8);
    let dates: Vec<Option<i32>> = make(random, |r| r.random_range(-2_440_588..100_000_000));
    check_round_trip(&SqlType::Date, &(Arc::new(Date32Array::from(dates)) as ArrayRef), &Format::default());
    let times: Vec<Option<i64>> = make(random, |r| r.random_range(0..=86_400_000_000));
    check_round_trip(&SqlType::Time, &(Arc::new(Time64MicrosecondArray::from(times)) as ArrayRef), &Format::default());
    for zone in ["UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Europe/Dublin", "<-03:30>+03:30"] {
        let format = Format { time_zone: TimeZone::parse(zone).expect("zone"), ..Format::default() };
        for range in [-60_000_000_000_000_000..9_000_000_000_000_000_000, 0_i64..4_000_000_000_000_000] {
            let times = make(random, |r| r.random_range(range.clone()));
            let array = TimestampMicrosecondArray::from(times);
            check_round_trip(&SqlType::Timestamp, &(Arc::new(array.clone()) as ArrayRef), &format);
            check_round_trip(&SqlType::Timestamptz, &(Arc::new(array.with_timezone("UTC")) as ArrayRef), &format);
        }
    }
    let intervals = make(random, |r| {
        let us = r.random_range(-9_000_000_000_000_000_i64..9_000_000_000_000_000) >> r.random_range(0..60);
        let small = |r: &mut StdRng| r.random::<i32>() >> r.random_range(0..32);
        IntervalMonthDayNano::new(small(r), small(r), us * 1000)
    });
    let intervals = IntervalMonthDayNanoArray::from(intervals);
    check_round_trip(&SqlType::Interval, &(Arc::new(intervals) as ArrayRef), &Format::default());
}

fn all_types() -> Vec<SqlType> {
    let scalars = [
        SqlType::Bool,
        SqlType::Int2,
        SqlType::Int4,
        SqlType::Int8,
        SqlType::Float4,
        SqlType::Float8,
        SqlType::Numeric(None),
        SqlType::Numeric(Some((10, 2))),
        SqlType::Numeric(Some((3, -2))),
        SqlType::Text,
        SqlType::Varchar(Some(3)),
        SqlType::Char(3),
        SqlType::Timestamptz,
        SqlType::Timestamp,
        SqlType::Date,
        SqlType::Time,
        SqlType::Interval,
        SqlType::Uuid,
        SqlType::Bytea,
        SqlType::Jsonb,
    ];
    let arrays = scalars.clone().into_iter().map(|element| SqlType::Array(Box::new(element)));
    scalars.iter().cloned().chain(arrays).collect()
}

/// Bytes that look like values: pieces of literals joined at random.
fn almost_a_value(random: &mut StdRng) -> Vec<u8> {
    const PIECES: [&[u8]; 44] = [
        b"1",
        b"2024",
        b"-",
        b"01",
        b":",
        b".",
        b"e",
        b"+",
        b" ",
        b"jan",
        b"bc",
        b"pm",
        b"t",
        b"z",
        b"P",
        b"T",
        b"Y",
        b"M",
        b"day",
        b"ago",
        b"hours",
        b"{",
        b"}",
        b",",
        b"\"",
        b"\\",
        b"\\x",
        b"[",
        b"]",
        b"=",
        b"u00e9",
        b"null",
        b"\xc3\xa9",
        b"\xff",
        b"infinity",
        b"9999999999",
        b"0.000001",
        b"europe/berlin",
        b"a0eebc99",
        b"<",
        b">",
        b"j",
        b"y",
        b"\0",
    ];
    (0..random.random_range(0..10)).flat_map(|_| PIECES[random.random_range(0..PIECES.len())]).copied().collect()
}

#[test]
fn random_bytes_are_values_or_errors() {
    let random = &mut StdRng::seed_from_u64(9);
    let zone = TimeZone::parse("Europe/Berlin").expect("zone");
    let format = Format { time_zone: zone, ..Format::default() };
    for sql_type in all_types() {
        for _ in 0..1500 {
            let mut bytes = almost_a_value(random);
            let mut builder = ColumnBuilder::new(&sql_type, 0);
            if builder.push_text(&bytes, &format).is_ok() {
                check_round_trip_of_any(&sql_type, &builder.finish(), &format);
            }
            if random.random_bool(0.5) {
                bytes = vec![0; random.random_range(0..24)];
                random.fill_bytes(&mut bytes);
            }
            let mut builder = ColumnBuilder::new(&sql_type, 0);
            if builder.push_binary(&bytes).is_ok() {
                check_round_trip_of_any(&sql_type, &builder.finish(), &format);
            }
        }
    }
}

/// What was accepted can be written and read again.
fn check_round_trip_of_any(sql_type: &SqlType, array: &ArrayRef, format: &Format) {
    let encoder = Encoder::new(sql_type, array, format);
    let mut out = BytesMut::new();
    encoder.text(0, &mut out);
    let mut builder = ColumnBuilder::new(sql_type, 0);
    builder.push_text(&out, format).unwrap_or_else(|error| panic!("{sql_type} {out:?}: {error}"));
    out.clear();
    encoder.binary(0, &mut out);
    builder.push_binary(&out).unwrap_or_else(|error| panic!("{sql_type} {out:?}: {error}"));
    assert_eq!(builder.len(), 2);
}

#[test]
fn random_copy_data_is_rows_or_an_error() {
    let random = &mut StdRng::seed_from_u64(10);
    const PIECES: [&[u8]; 22] = [
        b"1",
        b"x",
        b",",
        b"\t",
        b"\n",
        b"\r",
        b"\r\n",
        b"\"",
        b"\\",
        b"\\.",
        b"\\N",
        b"\\x4",
        b"\\10",
        b"a",
        b"\xc3",
        b"\xc3\xa9",
        b"\0",
        b"PGCOPY\n\xff\r\n\0",
        b"\0\0\0\0",
        b"\0\0\0\x01",
        b"\0\x02",
        b"\xff\xff",
    ];
    let columns = vec![("a".to_owned(), SqlType::Int4), ("b".to_owned(), SqlType::Text)];
    for round in 0..30_000 {
        let data: Vec<u8> = (0..random.random_range(0..16))
            .flat_map(|_| PIECES[random.random_range(0..PIECES.len())])
            .copied()
            .collect();
        let format = [CopyFormat::Text, CopyFormat::Csv, CopyFormat::Binary][round % 3];
        let mut options = CopyOptions::of_format(format);
        if format != CopyFormat::Binary {
            options.header = [CopyHeader::None, CopyHeader::Present, CopyHeader::Match][random.random_range(0..3)];
        }
        if format == CopyFormat::Csv && random.random_bool(0.3) {
            options.escape = b'\\';
        }
        let cut = random.random_range(0..=data.len());
        let outcome = |pieces: &[&[u8]]| {
            let mut decoder = CopyDecoder::new(options.clone(), &columns, Format::default());
            for piece in pieces {
                decoder.push(piece)?;
            }
            decoder.finish()
        };
        let whole = outcome(&[&data]);
        assert_eq!(outcome(&[&data[..cut], &data[cut..]]), whole, "{} cut at {cut}", data.escape_ascii());
    }
}
