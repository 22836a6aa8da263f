//! Rows on the wire and in the WAL: one Arrow record batch in IPC form, without its schema, which both ends know.
//!
//! ```text
//! offset  size  field
//!      0     4  length m of the message in bytes, little endian
//!      4     4  zero
//!      8     m  Arrow IPC message (flatbuffer, a record batch), padded to 8 bytes
//!  8 + m     n  body: the buffers of the batch, each 64-byte aligned within the body
//! ```
//!
//! No dictionaries and no compression: a gateway encodes once, and shards write the same bytes into their WAL.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{MessageHeader, root_as_message};
use bytes::{BufMut, Bytes, BytesMut};

use crate::refusal::Refusal;

const PREFIX_BYTES: usize = 8;

/// Why bytes are not rows of the schema.
#[derive(Debug, thiserror::Error)]
#[error("rows cannot be decoded: {0}")]
pub struct RowsError(String);

impl From<RowsError> for Refusal {
    fn from(error: RowsError) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// Encodes a batch. Its columns must not be dictionary-encoded.
pub fn encode_rows(batch: &RecordBatch) -> Result<Bytes, RowsError> {
    let mut tracker = DictionaryTracker::new(false);
    let options = IpcWriteOptions::default();
    let mut context = IpcWriteContext::default();
    let (dictionaries, encoded) = IpcDataGenerator::default()
        .encode(batch, &mut tracker, &options, &mut context)
        .map_err(|error| RowsError(error.to_string()))?;
    if !dictionaries.is_empty() {
        return Err(RowsError("a dictionary-encoded column".to_owned()));
    }
    let message = encoded.ipc_message;
    let padding = message.len().next_multiple_of(8) - message.len();
    let length = u32::try_from(message.len() + padding).map_err(|_| RowsError("message too long".to_owned()))?;
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.len() + padding + encoded.arrow_data.len());
    bytes.put_u32_le(length);
    bytes.put_u32_le(0);
    bytes.put_slice(&message);
    bytes.put_bytes(0, padding);
    bytes.put_slice(&encoded.arrow_data);
    Ok(bytes.freeze())
}

/// Decodes rows of `schema`, which is checked against what arrives: lengths, offsets, UTF-8. The arrays share `bytes`.
pub fn decode_rows(bytes: &Bytes, schema: &SchemaRef) -> Result<RecordBatch, RowsError> {
    let message_bytes = bytes.first_chunk::<4>().map_or(usize::MAX, |length| u32::from_le_bytes(*length) as usize);
    let body_start = PREFIX_BYTES.saturating_add(message_bytes);
    if body_start > bytes.len() {
        return Err(RowsError("the message is cut off".to_owned()));
    }
    let message = root_as_message(&bytes[PREFIX_BYTES..body_start]).map_err(|error| RowsError(error.to_string()))?;
    if message.header_type() != MessageHeader::RecordBatch {
        return Err(RowsError("not a record batch".to_owned()));
    }
    let batch = message.header_as_record_batch().ok_or_else(|| RowsError("not a record batch".to_owned()))?;
    if batch.compression().is_some() {
        return Err(RowsError("compressed".to_owned()));
    }
    let body = bytes.slice(body_start..);
    // Arrow slices the body by these offsets without a check of its own.
    for buffer in batch.buffers().into_iter().flatten() {
        let range = usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
        let inside = range.is_some_and(|(offset, length)| offset.checked_add(length).is_some_and(|e| e <= body.len()));
        if !inside {
            return Err(RowsError("a buffer lies outside the body".to_owned()));
        }
    }
    if !usize::try_from(batch.length()).is_ok_and(|rows| rows <= body.len().saturating_mul(8).max(1 << 20)) {
        return Err(RowsError("an impossible row count".to_owned()));
    }
    check_nodes(batch, schema)?;
    let read =
        || read_record_batch(&Buffer::from(body), batch, schema.clone(), &HashMap::new(), None, &message.version());
    // Arrow asserts where a batch of its own making could not fail; ours may come from anywhere.
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(decoded) => decoded.map_err(|error| RowsError(error.to_string())),
        Err(_) => Err(RowsError("the buffers contradict one another".to_owned())),
    }
}

/// Refuses nodes with more rows than their buffers have bits: Arrow panics over a null bitmap that is too short.
fn check_nodes(batch: arrow::ipc::RecordBatch<'_>, schema: &SchemaRef) -> Result<(), RowsError> {
    let mut nodes = batch.nodes().into_iter().flatten();
    let mut buffers = batch.buffers().into_iter().flatten();
    // Nodes and buffers stand in the order of the fields, a parent before its children.
    let mut fields: Vec<&FieldRef> = schema.fields().iter().rev().collect();
    while let Some(field) = fields.pop() {
        // The places of all that follows are unknown then, and Arrow has the word.
        let Some((buffer_count, children)) = layout(field.data_type()) else { return Ok(()) };
        let node = nodes.next().ok_or_else(|| RowsError(format!("no node for column {}", field.name())))?;
        let rows = usize::try_from(node.length()).ok();
        let nulls = usize::try_from(node.null_count()).ok();
        let (rows, nulls) = rows
            .zip(nulls)
            .filter(|(rows, nulls)| nulls <= rows)
            .ok_or_else(|| RowsError(format!("an impossible row count of column {}", field.name())))?;
        for index in 0..buffer_count {
            let buffer = buffers.next().ok_or_else(|| RowsError(format!("no buffer for column {}", field.name())))?;
            // A null bitmap may be left out where nothing is null; the last of three buffers may hold empty values.
            let needed = (index == 0 && nulls > 0) || index == 1;
            let bits = usize::try_from(buffer.length()).unwrap_or(0).saturating_mul(8);
            if needed && bits < rows {
                return Err(RowsError(format!("a buffer of column {} is too short", field.name())));
            }
        }
        fields.extend(children.iter().rev());
    }
    Ok(())
}

/// How many buffers a node of the type has, and the fields whose nodes follow it. `None` where that differs from batch
/// to batch, or no rows of ours have the type.
fn layout(data_type: &DataType) -> Option<(usize, &[FieldRef])> {
    match data_type {
        DataType::Null => Some((0, &[])),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => Some((3, &[])),
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => Some((2, slice::from_ref(item))),
        DataType::FixedSizeList(item, _) => Some((1, slice::from_ref(item))),
        DataType::Struct(fields) => Some((1, fields)),
        DataType::Boolean | DataType::FixedSizeBinary(_) => Some((2, &[])),
        other => other.is_primitive().then_some((2, &[])),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray};
    use arrow::datatypes::{Int32Type, Schema};

    use super::*;
    use crate::types::SqlType;

    fn batch() -> RecordBatch {
        let schema = Schema::new(vec![
            SqlType::Int8.field("n", true),
            SqlType::Text.field("t", true),
            SqlType::Array(Box::new(SqlType::Int4)).field("a", true),
        ]);
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])),
            Arc::new(StringArray::from(vec![Some("é"), Some(""), None])),
            Arc::new(lists),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    #[test]
    fn rows_are_read_back() {
        let batch = batch();
        let bytes = encode_rows(&batch).unwrap();
        assert_eq!(decode_rows(&bytes, &batch.schema()).unwrap(), batch);
        let part = batch.slice(1, 2);
        assert_eq!(decode_rows(&encode_rows(&part).unwrap(), &batch.schema()).unwrap(), part);
    }

    #[test]
    fn damaged_bytes_are_an_error_or_other_rows_but_no_panic() {
        let batch = batch();
        let bytes = encode_rows(&batch).unwrap();
        for length in 0..bytes.len() {
            let _ = decode_rows(&bytes.slice(..length), &batch.schema());
        }
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= flip;
                let _ = decode_rows(&Bytes::from(damaged), &batch.schema());
            }
        }
    }
}
