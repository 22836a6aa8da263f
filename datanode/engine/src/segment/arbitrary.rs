//! Bytes from anywhere as a page or a footer: what fuzzing and the replay of its corpus call.

use std::hint::black_box;

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use meridian_proto::types::SqlType;

use super::decode::ColumnDecoder;
use super::encoding::selection::Selection;
use super::footer::Footer;
use super::{SEGMENT_VERSION, SEGMENT_VERSION_MIN};

/// Rows that a page may claim here. A reader takes the number from a footer that its checksum vouches for.
const ROWS_MAX: u16 = 4096;
/// Larger columns are not held beside a part of them: what decoding takes is measured here, too.
const COMPARED_BYTES_MAX: usize = 1 << 20;

/// Decodes the bytes: byte 0 says as what (a type of [`types`], or a footer above), bytes 1 and 2 how many rows, the
/// rest is the page. Nothing may come of it but a value or an error, and of a part of the rows what the whole has there.
#[doc(hidden)]
pub fn decode_arbitrary(bytes: &[u8]) {
    let Some(([kind, rows @ ..], rest)) = bytes.split_first_chunk::<3>() else { return };
    let rows = usize::from(u16::from_le_bytes(*rows) % (ROWS_MAX + 1));
    match types().get(usize::from(*kind)) {
        Some(sql_type) => decode_page(rest, sql_type, rows),
        None => {
            for version in [SEGMENT_VERSION_MIN, SEGMENT_VERSION] {
                let _ = black_box(Footer::decode(version, rest, 1 << 20).map(|footer| footer.memory_bytes()));
            }
        }
    }
}

fn decode_page(page: &[u8], sql_type: &SqlType, rows: usize) {
    let mut decoder = ColumnDecoder::default();
    let sound = |array: ArrayRef| {
        array.to_data().validate_full().expect("what decodes is sound");
        Some(array).filter(|array| array.get_array_memory_size() <= COMPARED_BYTES_MAX)
    };
    let whole = decoder.decode(page, sql_type, rows).map(sound);
    let ranges = [rows / 7..rows / 3, rows / 2..rows - rows / 4];
    let part = decoder.decode_rows(page, sql_type, &Selection::new(rows, &ranges)).map(sound);
    if let Ok(Some(whole)) = whole {
        let slices = ranges.map(|range| whole.slice(range.start, range.len()));
        let slices = concat(&[&slices[0], &slices[1]]).expect("slices of one column fit together");
        let part = part.expect("a part decodes where the whole does").expect("a part is no larger than the whole");
        assert!(part.to_data() == slices.to_data(), "a part is not as the whole has it");
    }
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
