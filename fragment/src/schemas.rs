//! Schemas of tables as they travel. One is part of every fragment over its table and grows with its columns, so that
//! writing and reading it anew would be most of the work for a small statement: the last ones are kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::common::{DataFusionError, Result};
use datafusion_proto::protobuf;
use prost::Message;

/// Tables that are asked for at the same time; the schema of 20 columns takes 4 KiB in both forms together.
const SCHEMAS_MAX: usize = 64;
/// A longer one is not kept: 64 x 64 KiB = 4 MiB of bytes.
const SCHEMA_BYTES_MAX: usize = 64 << 10;

/// The oldest first.
static KEPT: Mutex<VecDeque<(Bytes, SchemaRef)>> = Mutex::new(VecDeque::new());

pub(crate) fn encode_schema(schema: &SchemaRef) -> Result<Bytes> {
    let is_same = |known: &SchemaRef| Arc::ptr_eq(known, schema);
    let found = find(|(_, known)| is_same(known)).or_else(|| find(|(_, known)| known == schema));
    if let Some((bytes, _)) = found {
        return Ok(bytes);
    }
    let bytes = Bytes::from(protobuf::Schema::try_from(schema.as_ref())?.encode_to_vec());
    keep(&bytes, schema);
    Ok(bytes)
}

pub(crate) fn decode_schema(bytes: &Bytes) -> Result<SchemaRef> {
    if let Some((_, schema)) = find(|(known, _)| known == bytes) {
        return Ok(schema);
    }
    let schema = protobuf::Schema::decode(bytes.clone())
        .map_err(|error| DataFusionError::Plan(format!("the schema of a fragment cannot be decoded: {error}")))?;
    let schema: SchemaRef = Arc::new((&schema).try_into()?);
    keep(bytes, &schema);
    Ok(schema)
}

fn find(is_wanted: impl Fn(&(Bytes, SchemaRef)) -> bool) -> Option<(Bytes, SchemaRef)> {
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.iter().rev().find(|entry| is_wanted(entry)).cloned()
}

fn keep(bytes: &Bytes, schema: &SchemaRef) {
    if bytes.len() > SCHEMA_BYTES_MAX {
        return;
    }
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() >= SCHEMAS_MAX {
        kept.pop_front();
    }
    // A copy: what came in a message would hold all of it.
    kept.push_back((Bytes::copy_from_slice(bytes), Arc::clone(schema)));
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn schema(name: &str, nullable: bool) -> SchemaRef {
        let metadata = [("k".to_owned(), name.to_owned())].into();
        let field = Field::new(name, DataType::Int64, nullable).with_metadata(metadata);
        Arc::new(Schema::new(vec![field, Field::new("b", DataType::Utf8, false)]))
    }

    #[test]
    fn a_schema_is_the_same_whether_it_was_kept_or_not() {
        for (name, nullable) in [("a", true), ("a", false), ("c", true)] {
            let first = encode_schema(&schema(name, nullable)).unwrap();
            let again = encode_schema(&schema(name, nullable)).unwrap();
            assert_eq!(first, again);
            assert_eq!(decode_schema(&Bytes::copy_from_slice(&first)).unwrap(), schema(name, nullable));
            let unknown = protobuf::Schema::try_from(schema(name, nullable).as_ref()).unwrap().encode_to_vec();
            assert_eq!(first, unknown);
        }
        assert!(decode_schema(&Bytes::from_static(&[255, 255])).is_err());
    }

    #[test]
    fn a_bounded_number_of_schemas_is_kept() {
        for number in 0..2 * SCHEMAS_MAX {
            let schema = schema(&format!("column {number}"), true);
            assert_eq!(decode_schema(&encode_schema(&schema).unwrap()).unwrap(), schema);
        }
        let long = schema(&"x".repeat(SCHEMA_BYTES_MAX), true);
        assert_eq!(decode_schema(&encode_schema(&long).unwrap()).unwrap(), long);
        let kept = KEPT.lock().unwrap();
        assert!(kept.len() <= SCHEMAS_MAX);
        assert!(kept.iter().all(|(bytes, _)| bytes.len() <= SCHEMA_BYTES_MAX));
    }
}
