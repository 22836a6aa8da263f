//! Bytes from anywhere, as everything that the engine reads from a disk. Each function takes any bytes; nothing may come
//! of them but a value or an error, within the memory that is stated. Called by the fuzz targets (`fuzz/`) and by the
//! tests that replay their corpora.

pub use crate::segment::{
    decode_arbitrary, footer_arbitrary, pieces_arbitrary, round_trip_arbitrary, segment_arbitrary,
};
pub use crate::shard::{log_arbitrary, manifest_arbitrary};

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use meridian_proto::rows::{decode_rows, encode_rows};

/// Decodes the bytes as rows of the wire and the log. What decodes is sound, and the same after another round.
pub fn rows_arbitrary(bytes: &[u8]) {
    let schema = rows_schema();
    let Ok(batch) = decode_rows(&Bytes::copy_from_slice(bytes), &schema) else { return };
    for column in batch.columns() {
        column.to_data().validate_full().expect("what decodes is sound");
    }
    let again = encode_rows(&batch).expect("what decodes is encoded");
    let again = decode_rows(&again, &schema).expect("what was encoded decodes");
    assert!(batch.columns().iter().zip(again.columns()).all(|(a, b)| a.to_data() == b.to_data()), "{batch:?}");
}

/// Of the rows that are tried: one column for each way in which Arrow lays values out.
pub fn rows_schema() -> SchemaRef {
    let item = Arc::new(Field::new("item", DataType::Int32, true));
    Arc::new(Schema::new(vec![
        Field::new("time", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        Field::new("host", DataType::Utf8, true),
        Field::new("value", DataType::Float64, true),
        Field::new("is_up", DataType::Boolean, true),
        Field::new("list", DataType::List(item), true),
    ]))
}
