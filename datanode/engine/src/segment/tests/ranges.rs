//! Reading some rows gives what reading all and leaving out the others does: for every encoding, type and cache.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use futures::executor::block_on;
use meridian_proto::types::SqlType;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::decode;
use super::super::encode::ColumnEncoder;
use super::super::encoding::selection::Selection;
use super::super::{Commits, PageCache, SegmentReader, SegmentRows};
use super::mutation::columns;
use super::rows::{self, SHAPES};
use super::{EXPECTED, OneFile, directory, file_of, limits, no_pause, schema, some_ranges};

fn picked(array: &ArrayRef, ranges: &[Range<usize>]) -> ArrayRef {
    let none = [array.slice(0, 0)];
    let slices: Vec<ArrayRef> = ranges.iter().map(|range| array.slice(range.start, range.len())).collect();
    let parts: Vec<&dyn Array> = none.iter().chain(&slices).map(AsRef::as_ref).collect();
    concat(&parts).unwrap()
}

fn check_page(random: &mut ChaCha8Rng, array: &ArrayRef, sql_type: &SqlType) {
    let mut page = Vec::new();
    let facts = ColumnEncoder::new().unwrap().encode(array, sql_type, &mut page).unwrap();
    for round in 0..8 {
        let single = |row: usize| row..row + 1;
        let ranges = match round {
            0 => vec![],
            1 => vec![single(random.random_range(0..array.len()))],
            2 => (0..array.len()).step_by(7).map(single).collect(),
            _ => some_ranges(random, array.len()),
        };
        let part = decode::decode_rows(&page, sql_type, &Selection::new(array.len(), &ranges)).unwrap();
        part.to_data().validate_full().unwrap();
        let expected = picked(array, &ranges);
        let same = part.to_data() == expected.to_data();
        assert!(same, "{sql_type} as {:?}, {ranges:?}: {part:?} is not {expected:?}", facts.encoding);
    }
}

#[test]
fn every_type_and_shape_gives_any_of_its_rows() {
    let mut random = ChaCha8Rng::seed_from_u64(41);
    for sql_type in rows::all_types() {
        for shape in SHAPES {
            for (null_percent, count) in [(0, 1), (5, 900), (0, 1024), (0, 2500), (20, 5000), (100, 50)] {
                let array = rows::column(&mut random, &sql_type, shape, null_percent, count);
                check_page(&mut random, &array, &sql_type);
            }
        }
    }
}

#[test]
fn every_encoding_gives_any_of_its_rows() {
    let mut random = ChaCha8Rng::seed_from_u64(42);
    for (sql_type, array) in columns(&mut random) {
        for _ in 0..20 {
            check_page(&mut random, &array, &sql_type);
        }
    }
}

#[test]
fn many_blocks_are_decoded_as_few_are() {
    let mut random = ChaCha8Rng::seed_from_u64(43);
    let mut level = 50i64;
    let walk: Vec<i64> = (0..40_000)
        .map(|_| {
            level += i64::from(random.random::<u8>().count_ones()) - 4;
            level
        })
        .collect();
    let whole: ArrayRef =
        Arc::new(arrow::array::Float64Array::from_iter_values(walk.iter().map(|value| *value as f64)));
    check_page(&mut random, &whole, &SqlType::Float8);
    let cents = walk.iter().map(|value| (*value as f64 * 137.0).round() / 100.0);
    check_page(&mut random, &(Arc::new(arrow::array::Float64Array::from_iter_values(cents)) as _), &SqlType::Float8);
    let noise: Vec<f64> = (0..40_000).map(|_| random.random()).collect();
    check_page(&mut random, &(Arc::new(arrow::array::Float64Array::from_iter_values(noise)) as _), &SqlType::Float8);
}

#[test]
fn ranges_of_files_hold_what_their_seed_says_from_the_file_and_from_the_cache() {
    for seed in 0..40 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let types = rows::all_types();
        let types: Vec<SqlType> = (0..4).map(|_| types[random.random_range(0..types.len())].clone()).collect();
        let (table, rows) = (schema(&types), random.random_range(1..3000));
        let batch = rows::batch(&mut random, &table, rows);
        let commits: Vec<u64> = (0..rows as u64).map(|row| 100 + row % (1 + seed % 3)).collect();
        let bytes =
            file_of(&table, vec![SegmentRows { batch: batch.clone(), commits: Some(commits.clone()) }], limits(rows));
        let disk = OneFile::new(bytes);
        let cache = PageCache::new(1 << 20);
        let reader = block_on(SegmentReader::open(&disk, &directory(), EXPECTED)).unwrap().cached(cache.file());
        for round in 0..6 {
            let ranges = some_ranges(&mut random, rows);
            let reads = disk.reads.get();
            let found = block_on(reader.read_ranges(0, &table.columns, &ranges, &no_pause)).unwrap();
            assert_eq!(disk.reads.get() > reads, round == 0, "pages are read once");
            assert_eq!(found.bytes_read > 0, round == 0);
            for (at, column) in found.batch.columns().iter().enumerate() {
                assert!(column.to_data() == picked(batch.column(at), &ranges).to_data(), "seed {seed}, column {at}");
            }
            let expected: Vec<u64> = ranges.iter().flat_map(|range| &commits[range.clone()]).copied().collect();
            match found.commits.unwrap() {
                Commits::Each(found) => assert_eq!(found, expected),
                Commits::All(all) => assert!(expected.iter().all(|commit| *commit == all.0)),
            }
        }
    }
}

#[test]
fn reading_all_of_a_file_leaves_the_cache_as_it_is() {
    let table = schema(&[SqlType::Int8]);
    let batch = rows::batch(&mut ChaCha8Rng::seed_from_u64(1), &table, 500);
    let disk = OneFile::new(file_of(&table, vec![SegmentRows { batch, commits: None }], limits(100)));
    let cache = PageCache::new(1 << 20);
    let reader = block_on(SegmentReader::open(&disk, &directory(), EXPECTED)).unwrap().cached(cache.file());
    for group in 0..5 {
        block_on(reader.read(group, &table.columns, &no_pause)).unwrap();
    }
    assert_eq!(cache.figures().bytes, 0);
}
