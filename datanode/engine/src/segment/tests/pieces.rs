//! Pieces cover their row group, and what is known of them is what their rows say.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use futures::executor::block_on;
use meridian_proto::ids::ColumnId;
use meridian_proto::schema::TableSchema;
use meridian_proto::types::SqlType;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::{PageCache, PieceColumn, Pieces, SegmentReader, SegmentRows};
use super::{EXPECTED, OneFile, directory, file_path, limits, open, schema, spec, write_to};
use crate::disk::SimulatedDisk;
use crate::error::EngineError;
use crate::scan::SortKey;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const START: i64 = 1_700_000_000 * SECOND;

/// host, time, int4, int8, float4, float8, text.
fn table() -> TableSchema {
    let types = [
        SqlType::Text,
        SqlType::Timestamptz,
        SqlType::Int4,
        SqlType::Int8,
        SqlType::Float4,
        SqlType::Float8,
        SqlType::Text,
    ];
    schema(&types)
}

fn sort() -> SortKey {
    SortKey { segment_by: vec![ColumnId(1)], time: Some(ColumnId(2)) }
}

fn file(table: &TableSchema, sort: SortKey, batch: &RecordBatch, rows_max: usize) -> OneFile {
    let disk = SimulatedDisk::new(1);
    write_to(&disk, &spec(table, sort), vec![SegmentRows { batch: batch.clone(), commits: None }], limits(rows_max))
        .unwrap();
    OneFile::new(disk.bytes(&file_path()).unwrap())
}

/// Rows of some hosts in order of time, some of them with equal times, NULLs and odd floats.
fn random_batch(random: &mut ChaCha8Rng, step: i64) -> RecordBatch {
    let rows: usize = random.random_range(1..4000);
    let hosts = random.random_range(1..4);
    let mut time = START;
    let (mut names, mut times) = (Vec::new(), Vec::new());
    for row in 0..rows {
        let host = row * hosts / rows;
        if names.last().is_none_or(|last| *last != format!("h{host}")) {
            time = START + random.random_range(0..2 * HOUR);
        }
        names.push(format!("h{host}"));
        times.push(time);
        time += if random.random_ratio(1, 50) { 0 } else { step + random.random_range(0..step) };
    }
    let nulls = *[0, 0, 10, 90].get(random.random_range(0..4)).unwrap();
    let odd = random.random_ratio(1, 3);
    let mut some = |value: i64| (!random.random_ratio(nulls, 100)).then_some(value);
    let values: Vec<Option<i64>> = (0..rows as i64).map(|row| some(row * 7919 % 1000 - 500)).collect();
    let float = |(row, value): (usize, &Option<i64>)| {
        let odd_ones = [f64::NAN, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::MAX];
        value.map(|value| if odd && row % 211 == 5 { odd_ones[row / 211 % 5] } else { value as f64 / 100.0 })
    };
    let wide = |value: &Option<i64>| value.map(|value| if odd { value << 54 } else { value });
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(&names)),
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        Arc::new(values.iter().map(|value| value.map(|value| value as i32)).collect::<Int32Array>()),
        Arc::new(values.iter().map(wide).collect::<Int64Array>()),
        Arc::new(values.iter().enumerate().map(|row| float(row).map(|value| value as f32)).collect::<Float32Array>()),
        Arc::new(values.iter().enumerate().map(float).collect::<Float64Array>()),
        Arc::new(StringArray::from_iter_values(&names)),
    ];
    RecordBatch::try_new(table().arrow(), columns).unwrap()
}

/// The pieces that the rows have, from their definition.
fn check_pieces(pieces: &Pieces, hosts: &StringArray, times: &[i64]) {
    let bucket = |row: usize| times[row].div_euclid(pieces.width_us) * pieces.width_us;
    let mut expected: Vec<(u32, i64)> = Vec::new();
    for row in 0..times.len() {
        if row == 0 || hosts.value(row) != hosts.value(row - 1) || bucket(row) != bucket(row - 1) {
            expected.push((row as u32, bucket(row)));
        }
    }
    let found: Vec<(u32, i64)> = pieces.starts.iter().copied().zip(pieces.buckets.iter().copied()).collect();
    assert_eq!(found, expected);
    assert_eq!(pieces.rows, times.len());
}

fn ints(array: &ArrayRef) -> Vec<Option<i64>> {
    let array = arrow::compute::cast(array, &arrow::datatypes::DataType::Int64).unwrap();
    array.as_primitive::<Int64Type>().iter().collect()
}

fn floats(array: &ArrayRef) -> Vec<Option<f64>> {
    let array = arrow::compute::cast(array, &arrow::datatypes::DataType::Float64).unwrap();
    array.as_primitive::<Float64Type>().iter().collect()
}

fn check_column(known: &PieceColumn, pieces: &Pieces, column: &ArrayRef, times: &[i64], what: &str) {
    let is_float = column.data_type().is_floating();
    for piece in 0..pieces.len() {
        let rows = pieces.rows_of(piece);
        let part = column.slice(rows.start, rows.len());
        assert_eq!(known.counts.value(piece), (part.len() - part.null_count()) as i64);
        let time = |row: &usize| times[rows.start + row];
        let (first, last) =
            ((0..part.len()).min_by_key(time).unwrap(), (0..part.len()).rev().max_by_key(time).unwrap());
        let same = |all: &ArrayRef, row: usize| all.slice(piece, 1).to_data() == part.slice(row, 1).to_data();
        assert!(same(&known.firsts, first) && same(&known.lasts, last), "{what}, piece {piece}");
        if is_float {
            let values: Vec<f64> = floats(&part).into_iter().flatten().collect();
            let is_plain = |value: &f64| value.is_finite() && !(*value == 0.0 && value.is_sign_negative());
            let sum: f64 = values.iter().fold(0.0, |sum, value| sum + value);
            let is_known = values.iter().all(is_plain) && sum.is_finite();
            assert_eq!(known.is_known(piece), is_known, "{what}, piece {piece}");
            if is_known {
                let end = |all: &ArrayRef| floats(&all.slice(piece, 1))[0];
                assert_eq!(end(known.sums.as_ref().unwrap()), (!values.is_empty()).then_some(sum));
                assert_eq!(end(&known.mins), values.iter().copied().reduce(f64::min));
                assert_eq!(end(&known.maxs), values.iter().copied().reduce(f64::max));
            }
        } else {
            let values: Vec<i64> = ints(&part).into_iter().flatten().collect();
            assert!(known.is_known(piece));
            let end = |all: &ArrayRef| ints(&all.slice(piece, 1))[0];
            assert_eq!(end(&known.mins), values.iter().copied().min());
            assert_eq!(end(&known.maxs), values.iter().copied().max());
            if let Some(sums) = &known.sums {
                let sum: i128 = values.iter().map(|value| i128::from(*value)).sum();
                assert_eq!(end(sums).map(i128::from), (!values.is_empty()).then_some(sum));
            }
        }
    }
}

#[test]
fn random_pieces_say_what_their_rows_do() {
    let (mut groups, mut without_sum) = (0, 0);
    for seed in 0..60 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let step = [SECOND / 10, SECOND, 10 * SECOND, 60 * SECOND, 900 * SECOND][seed as usize % 5];
        let batch = random_batch(&mut random, step);
        let table = table();
        let disk = file(&table, sort(), &batch, random.random_range(300..2000));
        let cache = PageCache::new(1 << 20);
        let reader = block_on(SegmentReader::open(&disk, &directory(), EXPECTED)).unwrap().cached(cache.file());
        let mut start = 0;
        for group in 0..reader.row_groups().len() {
            let rows = batch.slice(start, reader.row_group(group).rows);
            start += rows.num_rows();
            let times = rows.column(1).as_primitive::<TimestampMicrosecondType>().values();
            let Some(pieces) = block_on(reader.pieces(group)).unwrap() else { continue };
            groups += 1;
            assert!(pieces.len() * 100 <= rows.num_rows(), "too many pieces");
            check_pieces(&pieces, rows.column(0).as_string::<i32>(), times);
            let known = block_on(reader.piece_columns(group, &table.columns)).unwrap();
            let reads = disk.reads.get();
            for (at, column) in table.columns.iter().enumerate() {
                let again = block_on(reader.piece_statistics(group, column)).unwrap();
                assert_eq!((known[at].is_some(), again.is_some()), (!matches!(at, 0 | 6), !matches!(at, 0 | 6)));
                if let Some(known) = &known[at] {
                    without_sum += usize::from(at == 3 && known.sums.is_none());
                    check_column(known, &pieces, rows.column(at), times, &format!("seed {seed}, column {at}"));
                }
            }
            assert_eq!(disk.reads.get(), reads, "statistics are decoded once");
        }
    }
    assert!(groups > 60 && without_sum > 5, "{groups} row groups with pieces, {without_sum} without a sum");
}

/// One host, one row every `step`.
fn regular(rows: i64, step: i64) -> (TableSchema, RecordBatch) {
    let table = schema(&[SqlType::Text, SqlType::Timestamptz]);
    let hosts: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|_| "a")));
    let times = TimestampMicrosecondArray::from_iter_values((0..rows).map(|row| START + row * step));
    let batch = RecordBatch::try_new(table.arrow(), vec![hosts, Arc::new(times.with_timezone("UTC"))]).unwrap();
    (table, batch)
}

#[test]
fn the_narrowest_bucket_with_enough_rows_is_taken() {
    let check = |step: i64, expected: Option<i64>| {
        let (table, batch) = regular(5000, step);
        let pieces = block_on(open(&file(&table, sort(), &batch, 5000)).pieces(0)).unwrap();
        assert_eq!(pieces.map(|pieces| pieces.width_us / SECOND), expected);
    };
    check(SECOND / 10, Some(60));
    check(SECOND, Some(300));
    check(5 * SECOND, Some(900));
    check(10 * SECOND, Some(3600));
    check(60 * SECOND, Some(6 * 3600));
    check(HOUR, None);
}

#[test]
fn without_time_or_with_null_or_infinite_times_there_are_no_pieces() {
    let (table, batch) = regular(1000, SECOND);
    let none = |table: &TableSchema, sort: SortKey, batch: &RecordBatch| {
        let reader = open(&file(table, sort, batch, 1000));
        let statistics = block_on(reader.piece_statistics(0, &table.columns[1])).unwrap();
        block_on(reader.pieces(0)).unwrap().is_none() && statistics.is_none()
    };
    assert!(!none(&table, sort(), &batch));
    assert!(none(&table, SortKey { time: None, ..sort() }, &batch));
    assert!(none(&table, SortKey { time: Some(ColumnId(1)), segment_by: vec![] }, &batch));
    for odd in [None, Some(i64::MAX), Some(i64::MIN)] {
        let times = (0..1000).map(|row| if row == 999 { odd } else { Some(START + row) });
        let times = times.collect::<TimestampMicrosecondArray>().with_timezone("UTC");
        let batch = RecordBatch::try_new(table.arrow(), vec![batch.column(0).clone(), Arc::new(times)]).unwrap();
        assert!(none(&table, sort(), &batch), "{odd:?}");
    }
}

#[test]
fn a_long_series_is_cut_where_a_bucket_begins() {
    // 25 hours; a day begins 6400 s after the start.
    let (table, batch) = regular(9000, 10 * SECOND);
    let day = 24 * HOUR;
    let reader = open(&file(&table, sort(), &batch, 7200));
    let first = reader.row_groups().next().unwrap().rows as i64;
    let border = START + first * 10 * SECOND;
    assert!((5400..7200).contains(&first) && border % (6 * HOUR) == 0, "{first} rows");
    // A border of a day wins over one of an hour that comes later.
    let reader = open(&file(&table, sort(), &batch, 800));
    let first = reader.row_groups().next().unwrap().rows as i64;
    assert_eq!((START + first * 10 * SECOND) % day, 0, "{first} rows");
}

#[test]
fn damage_of_pieces_is_named() {
    let (table, batch) = regular(5000, SECOND);
    let disk = file(&table, sort(), &batch, 5000);
    let reader = open(&disk);
    let group = reader.row_group(0);
    let behind = 4096 + group.page_bytes as usize;
    let mut damaged = disk.bytes.as_ref().clone();
    damaged[behind + 6] ^= 1;
    let error = block_on(open(&OneFile::new(damaged)).pieces(0)).unwrap_err();
    assert!(matches!(error, EngineError::Corruption { .. }));
    let text = error.to_string();
    assert!(text.contains(&format!("byte {behind}: row group 0, directory of pieces: page checksum")), "{text}");
}
