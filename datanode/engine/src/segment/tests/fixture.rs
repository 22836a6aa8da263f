//! A file of each released version stays readable: `fixtures/segment-v<version>.seg.zst` and the text of what it holds.
//!
//! `MERIDIAN_WRITE_FIXTURES=1` writes those of the newest version anew, which is only right before it is released.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int16Array, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type, UInt32Type, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::executor::block_on;
use meridian_proto::schema::TableSchema;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::super::{SEGMENT_VERSION, SegmentRows};
use super::rows::{self, SHAPES, Shape};
use super::{Contents, OneFile, file_path, limits, no_pause, open, read_all, schema, spec, write_to};
use crate::disk::SimulatedDisk;
use crate::scan::SortKey;

const ROWS: usize = 700;
/// Columns that are no test data: smallint and timestamptz.
const SERIES: usize = 1;
const TIME: usize = 11;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn stored(name: &str) -> Vec<u8> {
    zstd::bulk::decompress(&std::fs::read(fixture(name)).unwrap(), 16 << 20).unwrap()
}

fn store(name: &str, bytes: &[u8]) {
    std::fs::create_dir_all(fixture("")).unwrap();
    std::fs::write(fixture(name), zstd::bulk::compress(bytes, 19).unwrap()).unwrap();
}

/// Columns of every type in two shapes that together meet every encoding.
fn table() -> TableSchema {
    let types = rows::all_types();
    schema(&types.iter().chain(&types).cloned().collect::<Vec<_>>())
}

/// A file as this version writes it. Some encodings only pay for many rows.
fn file_of_v5(table: &TableSchema) -> Vec<u8> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let count = table.columns.len();
    let columns = table.columns.iter().enumerate().map(|(at, column)| {
        let shape = if at * 2 < count { Shape::Walk } else { SHAPES[at % SHAPES.len()] };
        rows::column(&mut random, &column.sql_type, shape, if at % 3 == 0 { 20 } else { 0 }, ROWS)
    });
    let mut columns: Vec<ArrayRef> = columns.collect();
    // A series every 350 rows, a row every 10 seconds: pieces of an hour.
    columns[SERIES] = Arc::new(Int16Array::from_iter_values((0..ROWS as i16).map(|row| row / 350)));
    let times = (0..ROWS as i64).map(|row| 1_700_000_000_000_000 + row % 350 * 10_000_000);
    columns[TIME] = Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"));
    let batch = arrow::array::RecordBatch::try_new(table.arrow(), columns).unwrap();
    let commits = (0..ROWS as u64).map(|row| if row < 400 { 1000 } else { 1000 + row % 4 }).collect();
    let sort = SortKey { segment_by: vec![table.columns[SERIES].id], time: Some(table.columns[TIME].id) };
    let disk = SimulatedDisk::new(1);
    write_to(&disk, &spec(table, sort), vec![SegmentRows { batch, commits: Some(commits) }], limits(400)).unwrap();
    disk.bytes(&file_path()).unwrap()
}

fn bits<F: ArrowPrimitiveType, U: ArrowPrimitiveType>(column: &ArrayRef, bits: fn(F::Native) -> U::Native) -> ArrayRef {
    Arc::new(column.as_primitive::<F>().unary::<_, U>(bits))
}

/// One line per value.
fn text_of(contents: &Contents) -> String {
    let mut text = String::new();
    for (number, (batch, commits)) in contents.iter().enumerate() {
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            // Floats by their bits, which text would hide.
            let column = match column.data_type() {
                DataType::Float32 => bits::<Float32Type, UInt32Type>(column, f32::to_bits),
                DataType::Float64 => bits::<Float64Type, UInt64Type>(column, f64::to_bits),
                _ => Arc::clone(column),
            };
            let options = FormatOptions::new().with_null("NULL");
            let shown = ArrayFormatter::try_new(&column, &options).unwrap();
            for row in 0..batch.num_rows() {
                let value = shown.value(row).to_string().escape_default().to_string();
                writeln!(text, "{number} {} {row} {value}", field.name()).unwrap();
            }
        }
        for row in 0..batch.num_rows() {
            writeln!(text, "{number} commit {row} {}", commits.as_ref().unwrap().get(row)).unwrap();
        }
    }
    text
}

/// What the file knows of pieces, one line per piece and value.
fn text_of_pieces(disk: &OneFile, table: &TableSchema) -> String {
    let reader = open(disk);
    let mut text = String::new();
    for number in 0..reader.row_groups().len() {
        let Some(pieces) = block_on(reader.pieces(number)).unwrap() else { continue };
        writeln!(text, "{number} pieces of {} us: {:?} {:?}", pieces.width_us, pieces.starts, pieces.buckets).unwrap();
        for column in &table.columns {
            let Some(known) = block_on(reader.piece_statistics(number, column)).unwrap() else { continue };
            let counts: ArrayRef = Arc::new(known.counts.clone());
            let parts = [
                ("count", Some(&counts)),
                ("sum", known.sums.as_ref()),
                ("min", Some(&known.mins)),
                ("max", Some(&known.maxs)),
                ("first", Some(&known.firsts)),
                ("last", Some(&known.lasts)),
            ];
            for (name, array) in parts {
                let Some(array) = array else { continue };
                let options = FormatOptions::new().with_null("NULL");
                let shown = ArrayFormatter::try_new(array, &options).unwrap();
                let values: Vec<String> = (0..array.len()).map(|piece| shown.value(piece).to_string()).collect();
                writeln!(text, "{number} {name} {} {values:?}", column.name).unwrap();
            }
            let known: Vec<bool> = (0..pieces.len()).map(|piece| known.is_known(piece)).collect();
            writeln!(text, "{number} known {} {known:?}", column.name).unwrap();
        }
    }
    text
}

#[test]
fn a_file_of_version_1_is_read_as_it_was_written() {
    let contents = read_all(&OneFile::new(stored("segment-v1.seg.zst")), &table().columns).unwrap();
    let same = text_of(&contents).into_bytes() == stored("segment-v1.txt.zst");
    assert!(same, "version 1 reads differently than when it was released");
}

#[test]
fn a_file_of_version_2_is_read_as_it_was_written() {
    let contents = read_all(&OneFile::new(stored("segment-v2.seg.zst")), &table().columns).unwrap();
    let same = text_of(&contents).into_bytes() == stored("segment-v2.txt.zst");
    assert!(same, "version 2 reads differently than when it was released");
}

#[test]
fn some_rows_of_a_file_of_each_version_are_what_the_whole_has_there() {
    let columns = table().columns;
    for version in 1..=SEGMENT_VERSION {
        let disk = OneFile::new(stored(&format!("segment-v{version}.seg.zst")));
        let reader = open(&disk);
        for (row_group, (whole, commits)) in read_all(&disk, &columns).unwrap().iter().enumerate() {
            let rows = whole.num_rows();
            let ranges = [rows / 9..rows / 4, rows / 2..rows / 2 + 1, rows - 3..rows];
            let part = block_on(reader.read_ranges(row_group, &columns, &ranges, &no_pause)).unwrap();
            let slices = ranges.clone().map(|range| whole.slice(range.start, range.len()));
            assert_eq!(part.batch, concat_batches(&whole.schema(), &slices).unwrap(), "version {version}");
            let picked = ranges.into_iter().flatten().map(|row| commits.as_ref().map(|commits| commits.get(row)));
            let found = (0..part.batch.num_rows()).map(|row| part.commits.as_ref().map(|commits| commits.get(row)));
            assert!(found.eq(picked), "version {version}");
        }
    }
}

/// Rows, and what is known of their pieces.
fn all_of(bytes: Vec<u8>) -> String {
    let table = table();
    let disk = OneFile::new(bytes);
    text_of(&read_all(&disk, &table.columns).unwrap()) + &text_of_pieces(&disk, &table)
}

#[test]
fn a_file_of_version_3_is_read_as_it_was_written() {
    let same = all_of(stored("segment-v3.seg.zst")).into_bytes() == stored("segment-v3.txt.zst");
    assert!(same, "version 3 reads differently than when it was released");
}

#[test]
fn a_file_of_version_4_is_read_as_it_was_written() {
    let same = all_of(stored("segment-v4.seg.zst")).into_bytes() == stored("segment-v4.txt.zst");
    assert!(same, "version 4 reads differently than when it was released");
}

#[test]
fn a_file_of_version_5_is_read_as_it_was_written() {
    let (file, text) = ("segment-v5.seg.zst", "segment-v5.txt.zst");
    if std::env::var_os("MERIDIAN_WRITE_FIXTURES").is_some() {
        let bytes = file_of_v5(&table());
        store(text, all_of(bytes.clone()).as_bytes());
        store(file, &bytes);
    }
    let now = all_of(stored(file));
    assert!(now.contains("pieces of 3600000000 us") && now.contains("max c4"));
    assert!(now.into_bytes() == stored(text), "version 5 reads differently than when it was released");
}

#[test]
fn the_same_rows_make_the_same_header_as_in_the_fixture() {
    // Pages may be encoded better some day; what frames them is part of the format.
    assert_eq!(stored("segment-v5.seg.zst")[..64], file_of_v5(&table())[..64]);
}
