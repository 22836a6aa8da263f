//! Bytes from anywhere as a page, a footer, pieces, a file or the values of a column: what fuzzing and the replay of its
//! corpora call.

mod file;
mod values;

use std::hint::black_box;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::Int64Type;
use meridian_proto::types::SqlType;

use super::decode::{self, Terms};
use super::encode::ColumnEncoder;
use super::encoding::selection::Selection;
use super::footer::Footer;
use super::pieces::{PieceColumn, Pieces};
use super::{SEGMENT_VERSION, SEGMENT_VERSION_MIN};

pub use file::segment_arbitrary;

/// Rows that a page may claim here. A reader takes the number from a footer that its checksum vouches for.
const ROWS_MAX: u16 = 4096;
/// Larger columns are not held beside a part of them: what decoding takes is measured here, too.
const COMPARED_BYTES_MAX: usize = 1 << 20;
/// Of the buckets of pieces: an hour.
const PIECES_WIDTH_US: i64 = 3_600_000_000;

/// Decodes the bytes: byte 0 says as what (a type of [`types`], or a footer above), bytes 1 and 2 how many rows, the
/// rest is the page. Nothing may come of it but a value or an error, and of a part of the rows what the whole has there.
#[doc(hidden)]
pub fn decode_arbitrary(bytes: &[u8]) {
    let Some(([kind, rows @ ..], rest)) = bytes.split_first_chunk::<3>() else { return };
    let rows = rows_of(*rows);
    match types().get(usize::from(*kind)) {
        Some(sql_type) => decode_page(rest, sql_type, rows),
        None => footer_arbitrary(rest),
    }
}

fn rows_of(bytes: [u8; 2]) -> usize {
    usize::from(u16::from_le_bytes(bytes) % (ROWS_MAX + 1))
}

fn decode_page(page: &[u8], sql_type: &SqlType, rows: usize) {
    let whole = decode::decode_page(page, sql_type, rows).map(|whole| sound(whole, rows));
    let ranges = [rows / 7..rows / 3, rows / 2..rows - rows / 4];
    let selection = Selection::new(rows, &ranges);
    let part = decode::decode_rows(page, sql_type, &selection).map(|part| sound(part, selection.count()));
    let Ok(Some(whole)) = whole else {
        decode_apart(page, sql_type, &selection, None);
        return;
    };
    let slices = ranges.clone().map(|range| whole.slice(range.start, range.len()));
    let slices = concat(&[&slices[0], &slices[1]]).expect("slices of one column fit together");
    let part = part.expect("a part decodes where the whole does").expect("a part is no larger than the whole");
    assert!(part.to_data() == slices.to_data(), "a part is not as the whole has it");
    decode_apart(page, sql_type, &selection, Some(&slices));
}

/// The array, if it is small enough to be kept, after a look at every value.
fn sound(array: ArrayRef, rows: usize) -> Option<ArrayRef> {
    assert_eq!(array.len(), rows, "a page has its rows");
    array.to_data().validate_full().expect("what decodes is sound");
    Some(array).filter(|array| array.get_array_memory_size() <= COMPARED_BYTES_MAX)
}

/// Decodes the page in the other ways that a reader has, as a dictionary or as commit timestamps, and compares with the
/// values that are expected.
fn decode_apart(page: &[u8], sql_type: &SqlType, selection: &Selection<'_>, expected: Option<&ArrayRef>) {
    match sql_type {
        SqlType::Text | SqlType::Bytea => {
            let terms = decode::decode_terms(page, sql_type, selection);
            if let (Ok(terms), Some(expected)) = (terms.map(sound_terms), expected) {
                assert!(spelled(&terms).to_data() == expected.to_data(), "terms spell something else");
            }
        }
        SqlType::Int8 => {
            let commits = decode::decode_commits(page, selection);
            if let (Ok(commits), Some(expected)) = (commits, expected) {
                let expected = expected.as_primitive::<Int64Type>().values().iter().map(|value| *value as u64);
                assert!(commits.into_iter().eq(expected), "commit timestamps are other integers");
            }
        }
        _ => {}
    }
}

fn sound_terms(terms: Terms) -> Terms {
    terms.entries.to_data().validate_full().expect("what decodes is sound");
    let count = terms.entries.len() as u32;
    assert!(terms.codes.iter().all(|code| *code < count), "a code points outside its dictionary");
    terms
}

fn spelled(terms: &Terms) -> ArrayRef {
    let codes = UInt32Array::new(terms.codes.clone().into(), terms.nulls.clone());
    take(&terms.entries, &codes, None).expect("codes lie within their dictionary")
}

/// Decodes the bytes as the footer of a file of 1 MiB, of each version.
#[doc(hidden)]
pub fn footer_arbitrary(bytes: &[u8]) {
    for version in SEGMENT_VERSION_MIN..=SEGMENT_VERSION {
        let _ = black_box(Footer::decode(version, bytes, 1 << 20).map(|footer| footer.memory_bytes()));
    }
}

/// Decodes the bytes as a bundle: byte 0 says as what (the statistics of a type of [`types`], or a directory above),
/// bytes 1 and 2 how many pieces, bytes 3 and 4 how many rows.
#[doc(hidden)]
pub fn pieces_arbitrary(bytes: &[u8]) {
    let Some(([kind, numbers @ ..], rest)) = bytes.split_first_chunk::<5>() else { return };
    let [count, rows] = [[numbers[0], numbers[1]], [numbers[2], numbers[3]]].map(rows_of);
    if let Some(sql_type) = types().get(usize::from(*kind)) {
        if let Ok(column) = PieceColumn::decode(rest, sql_type, count) {
            check_column(&column, count);
        }
    } else if let Ok(pieces) = Pieces::decode(rest, PIECES_WIDTH_US, count, rows) {
        check_pieces(&pieces, count, rows);
    }
}

fn check_column(column: &PieceColumn, count: usize) {
    assert_eq!((column.counts.len(), column.counts.null_count()), (count, 0));
    let arrays = [&column.mins, &column.maxs, &column.firsts, &column.lasts];
    for array in arrays.into_iter().chain(&column.sums) {
        assert_eq!(array.len(), count, "each piece has its statistics");
        array.to_data().validate_full().expect("what decodes is sound");
    }
    assert!(column.known.as_ref().is_none_or(|known| known.len() == count));
}

fn check_pieces(pieces: &Pieces, count: usize, rows: usize) {
    assert_eq!((pieces.len(), pieces.buckets.len()), (count, count));
    let mut end = 0;
    for piece in 0..count {
        let of_piece = pieces.rows_of(piece);
        assert!(of_piece.start == end && of_piece.end > end, "pieces follow one another");
        end = of_piece.end;
    }
    assert_eq!(end, rows, "pieces cover their row group");
}

/// Encodes and decodes a column that the bytes describe, whole and sliced, and compares bit for bit.
#[doc(hidden)]
pub fn round_trip_arbitrary(bytes: &[u8]) {
    let Some(([kind, slice], rest)) = bytes.split_first_chunk::<2>() else { return };
    let types = [types().as_slice(), &more_types()].concat();
    let sql_type = &types[usize::from(*kind) % types.len()];
    let array = values::column(sql_type, rest);
    if array.is_empty() {
        return;
    }
    check_round_trip(&array, sql_type);
    let start = array.len() * usize::from(*slice) / 256;
    if start > 0 {
        check_round_trip(&array.slice(start, array.len() - start), sql_type);
    }
}

fn check_round_trip(array: &ArrayRef, sql_type: &SqlType) {
    let mut page = Vec::new();
    let mut encoder = ColumnEncoder::new().expect("a compressor is made");
    let facts = encoder.encode(array, sql_type, &mut page).expect("a column of its type is encoded");
    assert_eq!(facts.null_count, array.null_count());
    let back = decode::decode_page(&page, sql_type, array.len()).expect("what was encoded decodes");
    // Floats are compared by their bits.
    assert!(array.to_data() == back.to_data(), "{sql_type} as {:?}: {array:?} became {back:?}", facts.encoding);
    let some = array.len() / 3..array.len() - array.len() / 4;
    let selection = Selection::new(array.len(), std::slice::from_ref(&some));
    let back = decode::decode_rows(&page, sql_type, &selection).expect("a part of what was encoded decodes");
    let part = array.slice(some.start, some.len());
    assert!(part.to_data() == back.to_data(), "{sql_type} as {:?}: {part:?} became {back:?}", facts.encoding);
}

/// One type for each way in which values are held.
#[doc(hidden)]
pub fn types() -> [SqlType; 12] {
    [
        SqlType::Bool,
        SqlType::Int2,
        SqlType::Int8,
        SqlType::Float4,
        SqlType::Float8,
        SqlType::Numeric(Some((12, 2))),
        SqlType::Text,
        SqlType::Bytea,
        SqlType::Uuid,
        SqlType::Interval,
        SqlType::Timestamptz,
        SqlType::Array(Box::new(SqlType::Int4)),
    ]
}

/// Types whose values are held as those of [`types`] are, but take other ways to get there.
fn more_types() -> [SqlType; 6] {
    let array = |of: SqlType| SqlType::Array(Box::new(of));
    [SqlType::Int4, SqlType::Date, SqlType::Jsonb, array(SqlType::Float8), array(SqlType::Text), array(SqlType::Bool)]
}
