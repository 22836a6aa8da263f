//! Pages of every encoding with bytes changed, below the checksum that would have caught them: an error or sound values,
//! never a panic.
//!
//! `MERIDIAN_WRITE_CORPUS=1` writes them to `fuzz/corpus/decode`, where fuzzing begins.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int64Array, ListArray,
    StringArray,
};
use arrow::datatypes::Int32Type;
use meridian_proto::types::SqlType;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::arbitrary::{decode_arbitrary, types};
use super::super::encode::ColumnEncoder;
use super::super::encoding::Encoding;
use super::super::page::{PAGE_HEADER_BYTES, unframe};
use crate::testing::{corpus, keep_in_corpus};

const ROWS: usize = 2000;
const ROUNDS: usize = 1500;

/// Columns that between them take every encoding.
pub fn columns(random: &mut ChaCha8Rng) -> Vec<(SqlType, ArrayRef)> {
    let mut walk = {
        let (mut state, mut random) = (0i64, random.clone());
        move || {
            state += i64::from(random.random::<u8>().count_ones()) - 4;
            state
        }
    };
    let walked: Vec<i64> = (0..ROWS).map(|_| walk()).collect();
    let mut level = 50.0;
    let doubles: Vec<f64> = (0..ROWS)
        .map(|_| {
            level += random.random::<f64>() - 0.5;
            level
        })
        .collect();
    let lists = (0..ROWS as i32).map(|row| (row % 7 > 0).then(|| (0..row % 5).map(Some).collect::<Vec<_>>()));
    let holes = |row: usize, value: i64| (!row.is_multiple_of(9)).then_some(value);
    let texts = |row: usize| format!("host_{}", row / 3 % 40 * 7);
    vec![
        (SqlType::Int8, Arc::new(Int64Array::from(vec![None; ROWS]))),
        (SqlType::Int8, Arc::new(Int64Array::from_iter_values((0..ROWS).map(|_| random.random::<i64>())))),
        (SqlType::Int8, Arc::new(Int64Array::from(vec![7; ROWS]))),
        (SqlType::Int8, Arc::new(Int64Array::from_iter_values((0..ROWS as i64).map(|row| row * 10)))),
        (SqlType::Int8, Arc::new(Int64Array::from_iter_values(walked.iter().copied()))),
        (
            SqlType::Int8,
            Arc::new(walked.iter().enumerate().map(|(row, value)| holes(row, *value)).collect::<Int64Array>()),
        ),
        (SqlType::Int8, Arc::new(Int64Array::from_iter_values((0..ROWS as i64).map(|row| row / 90 % 7)))),
        (SqlType::Int8, Arc::new(Int64Array::from_iter_values((0..ROWS as i64).map(|row| row / 10 * 7919 % 1000)))),
        (SqlType::Float8, Arc::new(Float64Array::from_iter_values(walked.iter().map(|value| *value as f64 / 100.0)))),
        (SqlType::Float8, Arc::new(Float64Array::from_iter_values(doubles.iter().copied()))),
        (SqlType::Float8, Arc::new(Float64Array::from_iter_values((0..ROWS).map(|_| random.random::<f64>() - 0.5)))),
        (SqlType::Float4, Arc::new(Float32Array::from_iter_values(doubles.iter().map(|value| *value as f32)))),
        (
            SqlType::Numeric(Some((12, 2))),
            Arc::new(
                Decimal128Array::from_iter_values(walked.iter().map(|value| i128::from(*value)))
                    .with_data_type(SqlType::Numeric(Some((12, 2))).arrow()),
            ),
        ),
        (SqlType::Text, Arc::new(StringArray::from_iter_values((0..ROWS).map(texts)))),
        (SqlType::Text, Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| format!("{:x}", row * 7919))))),
        (
            SqlType::Uuid,
            Arc::new(FixedSizeBinaryArray::try_from_iter((0..ROWS).map(|row| [row as u8 % 5; 16])).unwrap()),
        ),
        (SqlType::Bool, Arc::new(BooleanArray::from((0..ROWS).map(|row| row % 3 == 0).collect::<Vec<_>>()))),
        (SqlType::Array(Box::new(SqlType::Int4)), Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists))),
    ]
}

/// What [`decode_arbitrary`] takes, and the encoding of the page in it.
fn inputs() -> Vec<(Encoding, Vec<u8>)> {
    let mut random = ChaCha8Rng::seed_from_u64(31);
    let mut encoder = ColumnEncoder::new().unwrap();
    let input = |(sql_type, array): (SqlType, ArrayRef)| {
        let mut page = Vec::new();
        let facts = encoder.encode(&array, &sql_type, &mut page).unwrap();
        let kind = types().iter().position(|of| *of == sql_type).unwrap() as u8;
        let [low, high] = (ROWS as u16).to_le_bytes();
        let whole = unsqueezed(&page);
        (facts.encoding, [vec![kind, low, high], whole].concat())
    };
    columns(&mut random).into_iter().map(input).collect()
}

/// The page with its values not compressed as a whole, so that changes reach the decoders behind zstd.
pub(super) fn unsqueezed(page: &[u8]) -> Vec<u8> {
    let rows = u32::from_le_bytes(page[4..8].try_into().unwrap()) as usize;
    let parts = unframe(page, rows, usize::MAX).unwrap();
    let mask = parts.mask.unwrap_or_default();
    let mut plain = page[..PAGE_HEADER_BYTES].to_vec();
    plain[1] &= 1;
    plain[8..12].copy_from_slice(&(mask.len() as u32).to_le_bytes());
    plain[12..16].copy_from_slice(&(parts.values.len() as u32).to_le_bytes());
    plain.extend_from_slice(&mask);
    plain.extend_from_slice(&parts.values);
    plain
}

#[test]
fn every_encoding_that_is_written_is_among_the_pages() {
    let met: BTreeSet<u8> = inputs().iter().map(|(encoding, _)| encoding.code()).collect();
    // Those of older versions alone are in their fixtures, those of version 2 in the corpus, too.
    let is_old = |encoding: &Encoding| {
        matches!(encoding, Encoding::Decimal | Encoding::Dictionary | Encoding::Coded | Encoding::Real)
    };
    let written = (0..=u8::MAX).filter_map(Encoding::from_code).filter(|encoding| !is_old(encoding));
    assert_eq!(met, written.map(Encoding::code).collect());
}

#[test]
fn a_changed_byte_decodes_or_is_refused() {
    for (_, whole) in inputs() {
        // Every byte of the headers, then one of each stretch of values.
        for at in (0..whole.len()).filter(|at| *at < 250 || at % 13 == 0) {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                decode_arbitrary(&bytes);
            }
        }
    }
}

#[test]
fn changed_pages_decode_or_are_refused() {
    let mut random = ChaCha8Rng::seed_from_u64(32);
    for (_, whole) in inputs() {
        for _ in 0..ROUNDS {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..5) {
                // Headers decide most.
                let end = if random.random() { bytes.len().min(120) } else { bytes.len() };
                let at = random.random_range(0..end);
                bytes[at] =
                    if random.random() { random.random() } else { bytes[at] ^ (1 << random.random_range(0..8)) };
            }
            if random.random_ratio(1, 4) {
                bytes.truncate(random.random_range(0..bytes.len()));
            }
            decode_arbitrary(&bytes);
        }
    }
}

#[test]
fn the_corpus_holds_a_page_of_every_encoding() {
    let inputs = inputs();
    for (number, (encoding, bytes)) in inputs.iter().enumerate() {
        keep_in_corpus("decode", &format!("v3-{number:02}-{encoding:?}").to_lowercase(), bytes);
    }
    let files = std::fs::read_dir(corpus("decode")).unwrap().count();
    assert!(files >= inputs.len(), "the corpus is not in the tree");
}
