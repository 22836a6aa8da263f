//! A file of each released version stays readable: `fixtures/segment-v1.seg.zst` and the text of what it holds.
//!
//! `MERIDIAN_WRITE_FIXTURES=1` writes both anew, which is only right before a version is released.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type, UInt32Type, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use meridian_proto::schema::TableSchema;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::super::SegmentRows;
use super::rows::{self, SHAPES, Shape};
use super::{Contents, OneFile, file_of, limits, read_all, schema};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Columns of every type in two shapes that together meet every encoding.
fn table() -> TableSchema {
    let types = rows::all_types();
    schema(&types.iter().chain(&types).cloned().collect::<Vec<_>>())
}

fn contents_of_v1(table: &TableSchema) -> Vec<u8> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let count = table.columns.len();
    let columns = table.columns.iter().enumerate().map(|(at, column)| {
        let shape = if at * 2 < count { Shape::Walk } else { SHAPES[at % SHAPES.len()] };
        rows::column(&mut random, &column.sql_type, shape, if at % 3 == 0 { 20 } else { 0 }, 90)
    });
    let batch = arrow::array::RecordBatch::try_new(table.arrow(), columns.collect()).unwrap();
    let commits = (0..90).map(|row| if row < 60 { 1000 } else { 1000 + row % 4 }).collect();
    file_of(table, vec![SegmentRows { batch, commits: Some(commits) }], limits(60))
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

#[test]
fn a_file_of_version_1_is_read_as_it_was_written() {
    let (file, text) = (fixture("segment-v1.seg.zst"), fixture("segment-v1.txt.zst"));
    let table = table();
    if std::env::var_os("MERIDIAN_WRITE_FIXTURES").is_some() {
        let bytes = contents_of_v1(&table);
        let contents = read_all(&OneFile::new(bytes.clone()), &table.columns).unwrap();
        std::fs::create_dir_all(fixture("")).unwrap();
        std::fs::write(&file, zstd::bulk::compress(&bytes, 19).unwrap()).unwrap();
        std::fs::write(&text, zstd::bulk::compress(text_of(&contents).as_bytes(), 19).unwrap()).unwrap();
    }
    let read = |path: &PathBuf| zstd::bulk::decompress(&std::fs::read(path).unwrap(), 8 << 20).unwrap();
    let contents = read_all(&OneFile::new(read(&file)), &table.columns).unwrap();
    assert!(text_of(&contents).into_bytes() == read(&text), "version 1 reads differently than when it was released");
}

#[test]
fn the_same_rows_make_the_same_bytes_as_in_the_fixture() {
    let stored = zstd::bulk::decompress(&std::fs::read(fixture("segment-v1.seg.zst")).unwrap(), 8 << 20).unwrap();
    let written = contents_of_v1(&table());
    // Pages may be encoded better some day; what frames them is part of the format.
    assert_eq!(stored[..64], written[..64]);
}
