//! Bytes from anywhere as a page or a footer: what fuzzing and the replay of its corpus call.

use std::hint::black_box;

use meridian_proto::types::SqlType;

use super::decode::ColumnDecoder;
use super::footer::Footer;

/// Rows that a page may claim here. A reader takes the number from a footer that its checksum vouches for.
const ROWS_MAX: u16 = 4096;

/// Decodes the bytes: byte 0 says as what (a type of [`types`], or a footer above), bytes 1 and 2 how many rows, the
/// rest is the page. Nothing may come of it but a value or an error.
#[doc(hidden)]
pub fn decode_arbitrary(bytes: &[u8]) {
    let Some(([kind, rows @ ..], rest)) = bytes.split_first_chunk::<3>() else { return };
    let rows = usize::from(u16::from_le_bytes(*rows) % (ROWS_MAX + 1));
    match types().get(usize::from(*kind)) {
        Some(sql_type) => {
            if let Ok(array) = ColumnDecoder::default().decode(rest, sql_type, rows) {
                array.to_data().validate_full().expect("what decodes is sound");
            }
        }
        None => {
            let _ = black_box(Footer::decode(rest, 1 << 20).map(|footer| footer.memory_bytes()));
        }
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
