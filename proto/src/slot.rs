//! The slot hash: XXH3-64 (seed 0) of a value's canonical bytes. It follows SQL equality (R22): values that are equal in
//! SQL have equal bytes. It is part of the stored format: it may never change, and the test vectors below hold it.
//!
//! | type | canonical bytes |
//! |---|---|
//! | integers, date, time, timestamps | the value as i64, little endian |
//! | float4, float8 | as f64, -0.0 as 0.0, every NaN as one, little endian |
//! | numeric | digits without trailing zeros as i128, then the scale left as i8; zero is (0, 0) |
//! | text, varchar | the bytes |
//! | char(n) | the bytes without trailing spaces |
//! | boolean | one byte, 0 or 1 |
//! | uuid, bytea | the bytes |
//! | NULL | no bytes |

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::Slot;
use crate::types::SqlType;

/// Hash of NULL, and of empty text.
#[must_use]
pub fn hash_null() -> u64 {
    xxh3_64(&[])
}

#[must_use]
pub fn hash_i64(value: i64) -> u64 {
    xxh3_64(&value.to_le_bytes())
}

#[must_use]
pub fn hash_f64(value: f64) -> u64 {
    let canonical = if value.is_nan() {
        f64::NAN
    } else if value == 0.0 {
        0.0
    } else {
        value
    };
    xxh3_64(&canonical.to_bits().to_le_bytes())
}

#[must_use]
pub fn hash_bytes(value: &[u8]) -> u64 {
    xxh3_64(value)
}

#[must_use]
pub fn hash_bool(value: bool) -> u64 {
    xxh3_64(&[u8::from(value)])
}

#[must_use]
pub fn hash_decimal(mut digits: i128, mut scale: i8) -> u64 {
    while digits != 0 && digits % 10 == 0 {
        digits /= 10;
        scale -= 1;
    }
    if digits == 0 {
        scale = 0;
    }
    let mut bytes = [0; 17];
    bytes[..16].copy_from_slice(&digits.to_le_bytes());
    bytes[16] = scale as u8;
    xxh3_64(&bytes)
}

/// Hashes of all values of an array that holds `sql_type`; `None` for a type that cannot be a space key.
#[must_use]
pub fn hash_array(array: &dyn Array, sql_type: &SqlType) -> Option<Vec<u64>> {
    macro_rules! primitive {
        ($kind:ty, $hash:expr) => {
            array.as_primitive_opt::<$kind>()?.iter().map(|v| v.map_or_else(hash_null, $hash)).collect()
        };
    }
    Some(match array.data_type() {
        DataType::Boolean => array.as_boolean().iter().map(|v| v.map_or_else(hash_null, hash_bool)).collect(),
        DataType::Int16 => primitive!(Int16Type, |v| hash_i64(v.into())),
        DataType::Int32 => primitive!(Int32Type, |v| hash_i64(v.into())),
        DataType::Int64 => primitive!(Int64Type, hash_i64),
        DataType::Float32 => primitive!(Float32Type, |v| hash_f64(v.into())),
        DataType::Float64 => primitive!(Float64Type, hash_f64),
        DataType::Date32 => primitive!(Date32Type, |v| hash_i64(v.into())),
        DataType::Time64(TimeUnit::Microsecond) => primitive!(Time64MicrosecondType, hash_i64),
        DataType::Timestamp(TimeUnit::Microsecond, _) => primitive!(TimestampMicrosecondType, hash_i64),
        DataType::Decimal128(_, scale) => primitive!(Decimal128Type, |v| hash_decimal(v, *scale)),
        DataType::Utf8 => {
            let padded = matches!(sql_type, SqlType::Char(_));
            let hash = |v: &str| hash_bytes(if padded { v.trim_end_matches(' ') } else { v }.as_bytes());
            array.as_string::<i32>().iter().map(|v| v.map_or_else(hash_null, hash)).collect()
        }
        DataType::Binary => array.as_binary::<i32>().iter().map(|v| v.map_or_else(hash_null, hash_bytes)).collect(),
        DataType::FixedSizeBinary(_) => {
            array.as_fixed_size_binary().iter().map(|v| v.map_or_else(hash_null, hash_bytes)).collect()
        }
        _ => return None,
    })
}

/// The cell of one dimension: hashes are spread evenly over `cells`, in hash order.
#[must_use]
pub fn cell_of(hash: u64, cells: u32) -> u32 {
    // 64-bit fixed point: the high word of hash x cells. For a power of two, its top bits.
    ((u128::from(hash) * u128::from(cells)) >> 64) as u32
}

/// The slot of a row: with several dimensions the cells of their product, the first dimension slowest.
#[must_use]
pub fn slot_of(hashes: impl IntoIterator<Item = u64>, cells: &[u32]) -> Slot {
    let index = hashes.into_iter().zip(cells).fold(0, |slot, (hash, cells)| slot * cells + cell_of(hash, *cells));
    Slot(index)
}

/// The shard, of `shards` on its node, that holds a chunk of a slot of a placement group.
#[must_use]
pub fn shard_of(group: crate::ids::GroupId, slot: Slot, turn: u32, shards: u16) -> crate::ids::ShardId {
    assert!(shards > 0, "a data node has at least one shard");
    // Consecutive slots go to consecutive shards, so that few slots still use every core.
    crate::ids::ShardId(((u64::from(group.0) + u64::from(slot.0) + u64::from(turn)) % u64::from(shards)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash_null(), 0x2d06_8005_38d3_94c2);
        assert_eq!(hash_bytes(b""), hash_null());
        let vectors =
            [hash_i64(0), hash_i64(-1), hash_f64(1.5), hash_bytes(b"EWR"), hash_bool(true), hash_decimal(150, 2)];
        assert_eq!(vectors, TEST_VECTORS);
    }

    const TEST_VECTORS: [u64; 6] = [
        0xc77b_3abb_6f87_acd9,
        0x5111_c7e4_7d78_4413,
        0x2561_a488_9ff6_3458,
        0x285f_8561_a30f_3bc2,
        0xe12e_f9d2_eb86_ceeb,
        0x65f0_e0fa_ac5a_c00f,
    ];

    #[test]
    fn values_that_are_equal_in_sql_have_one_hash() {
        assert_eq!(hash_f64(-0.0), hash_f64(0.0));
        assert_eq!(hash_f64(f64::from_bits(0x7ff8_0000_0000_0001)), hash_f64(f64::NAN));
        assert_eq!(hash_decimal(10, 1), hash_decimal(100, 2));
        assert_eq!(hash_decimal(0, 5), hash_decimal(0, 0));
        assert_ne!(hash_decimal(10, 1), hash_decimal(10, 2));
    }

    #[test]
    fn cells_cover_the_hash_range_evenly() {
        assert_eq!((cell_of(0, 16), cell_of(u64::MAX, 16)), (0, 15));
        assert_eq!((cell_of(0, 3), cell_of(u64::MAX / 2, 3), cell_of(u64::MAX, 3)), (0, 1, 2));
        assert_eq!(slot_of([u64::MAX, 0], &[2, 3]), Slot(3));
        assert_eq!(slot_of([], &[]), Slot(0));
    }
}
