//! Damaged, cut off, foreign and newer files: an error that names the place, or the same data; never other data.

use meridian_proto::ids::{ChunkId, ClusterId, SegmentId};
use meridian_proto::types::SqlType;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::decode;
use super::super::encode::ColumnEncoder;
use super::super::{SEGMENT_VERSION, SegmentExpectation, SegmentReader, SegmentRows};
use super::mutation::unsqueezed;
use super::rows::{self, ALL_SHAPES};
use super::{CHUNK, CLUSTER, EXPECTED, OneFile, SEGMENT, directory, file_of, limits, read_all, schema};
use crate::error::EngineError;
use futures::executor::block_on;

/// A small file with several encodings, two row groups and commit timestamps of their own.
fn small_file() -> (meridian_proto::schema::TableSchema, Vec<u8>) {
    let table =
        schema(&[SqlType::Timestamptz, SqlType::Text, SqlType::Float8, SqlType::Array(Box::new(SqlType::Int4))]);
    let mut random = ChaCha8Rng::seed_from_u64(21);
    let batch = rows::batch(&mut random, &table, 60);
    let commits = Some((0..60).map(|row| 100 + row % 3).collect());
    let bytes = file_of(&table, vec![SegmentRows { batch, commits }], limits(40));
    (table, bytes)
}

#[test]
fn a_flipped_byte_anywhere_is_an_error_or_changes_nothing() {
    let (table, bytes) = small_file();
    let whole = read_all(&OneFile::new(bytes.clone()), &table.columns).unwrap();
    let mut errors = 0u64;
    for position in 0..bytes.len() {
        for flip in [1u8 << (position % 8), 0xff] {
            let mut damaged = bytes.clone();
            damaged[position] ^= flip;
            match read_all(&OneFile::new(damaged), &table.columns) {
                Ok(contents) => assert_eq!(contents, whole, "byte {position}"),
                Err(EngineError::Corruption { .. }) => errors += 1,
                Err(other) => panic!("byte {position}: {other}"),
            }
        }
    }
    // Padding aside, every byte counts; those of the footer on top.
    let pages: u64 = super::open(&OneFile::new(bytes)).row_groups().map(|group| group.page_bytes).sum();
    assert!(errors > 2 * (64 + pages + 32), "{errors} errors, {pages} bytes of pages");
}

#[test]
fn a_file_cut_off_anywhere_is_an_error() {
    let (table, bytes) = small_file();
    for length in 0..bytes.len() {
        let cut = OneFile::new(bytes[..length].to_vec());
        let error = read_all(&cut, &table.columns).expect_err("a cut file has lost its trailer");
        assert!(matches!(error, EngineError::Corruption { .. }), "length {length}: {error}");
    }
}

#[test]
fn damage_is_named_by_file_row_group_column_and_byte() {
    let (table, bytes) = small_file();
    let reader = super::open(&OneFile::new(bytes.clone()));
    let first_page = 4096;
    let mut damaged = bytes;
    // Within the header that every page has.
    damaged[first_page + 5] ^= 4;
    let error = read_all(&OneFile::new(damaged), &table.columns).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{} is damaged at byte 4096: row group 0, column 1: page checksum mismatch", reader.path().display())
    );
}

#[test]
fn a_page_that_belongs_elsewhere_is_damage() {
    let (table, bytes) = small_file();
    // The same bytes as another segment's: its header is made to fit, its pages are not.
    let mut moved = bytes;
    moved[40..48].copy_from_slice(&43u64.to_le_bytes());
    let checksum = crc32c::crc32c(&moved[..60]).to_le_bytes();
    moved[60..64].copy_from_slice(&checksum);
    let expected = SegmentExpectation { segment: SegmentId(43), ..EXPECTED };
    let opened = block_on(SegmentReader::open(&OneFile::new(moved), &directory(), expected));
    assert!(matches!(opened.err(), Some(EngineError::Corruption { .. })));
    drop(table);
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let (table, mut bytes) = small_file();
    bytes[8..12].copy_from_slice(&(SEGMENT_VERSION + 1).to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&checksum);
    let error = read_all(&OneFile::new(bytes), &table.columns).unwrap_err();
    assert!(matches!(error, EngineError::NewerFormat { known: SEGMENT_VERSION, .. }), "{error}");
}

#[test]
fn a_file_of_another_cluster_chunk_or_number_is_foreign() {
    let (_, bytes) = small_file();
    for expected in [
        SegmentExpectation { cluster: ClusterId(1), chunk: CHUNK, segment: SEGMENT },
        SegmentExpectation { cluster: CLUSTER, chunk: ChunkId(1), segment: SEGMENT },
        SegmentExpectation { cluster: CLUSTER, chunk: CHUNK, segment: SegmentId(1) },
    ] {
        let opened = block_on(SegmentReader::open(&OneFile::new(bytes.clone()), &directory(), expected));
        assert!(matches!(opened.err(), Some(EngineError::Foreign { .. })));
    }
}

/// Below the checksum: what a decoder does with bytes that no encoder wrote.
#[test]
fn arbitrary_pages_decode_or_are_refused() {
    let mut random = ChaCha8Rng::seed_from_u64(22);
    for sql_type in rows::all_types() {
        for shape in ALL_SHAPES {
            let array = rows::column(&mut random, &sql_type, shape, 10, 300);
            let mut page = Vec::new();
            ColumnEncoder::new().unwrap().encode(&array, &sql_type, &mut page).unwrap();
            let page = unsqueezed(&page);
            for _ in 0..100 {
                let mut mutated = page.clone();
                for _ in 0..random.random_range(1..5) {
                    let at = random.random_range(0..mutated.len().min(400));
                    mutated[at] = if random.random() { random.random() } else { 0xff };
                }
                if random.random_ratio(1, 4) {
                    mutated.truncate(random.random_range(0..mutated.len()));
                }
                if let Ok(array) = decode::decode_page(&mutated, &sql_type, 300) {
                    array.to_data().validate_full().expect("what decodes is sound");
                }
            }
        }
    }
}
