//! A batch: the records of one group commit, written at once, all or nothing. It begins at a block and is padded with
//! zeros to the next one, so that no block is ever written twice and a torn write cannot reach what was acknowledged.
//! Each record is a frame of `proto`, aligned to 64 bytes; its payload begins with where it was written:
//!
//! ```text
//! offset  size  field (little endian)
//!      0     8  sequence of the file: a record of the file's previous life has a lower one
//!      8     4  position of the record in the file
//!     12     4  position of the batch
//!     16     4  bytes of the batch, without the padding at its end
//!     20     4  zero
//!     24     -  the record
//! ```

use bytes::Bytes;
use meridian_proto::frame::{self, FRAME_HEADER_BYTES};

use crate::disk::{AlignedBuffer, BLOCK_BYTES};

/// First record of each file: where the file before it ends.
pub const KIND_START: u8 = 1;
/// Nothing; says by its place that all batches before it were synced.
pub const KIND_MARK: u8 = 2;

pub const RECORD_ALIGN_BYTES: usize = 64;
const PREFIX_BYTES: usize = 24;

/// What is to be written as one record.
pub struct Part {
    pub kind: u8,
    pub head: Vec<u8>,
    /// Follows the head as it is.
    pub rows: Bytes,
}

impl Part {
    fn aligned_bytes(&self) -> usize {
        let payload = PREFIX_BYTES + self.head.len() + self.rows.len();
        (FRAME_HEADER_BYTES + payload).next_multiple_of(RECORD_ALIGN_BYTES)
    }
}

/// Bytes that the parts take as one batch, without the padding at its end.
#[must_use]
pub fn batch_bytes(parts: &[Part]) -> usize {
    parts.iter().map(Part::aligned_bytes).sum()
}

/// The batch in a buffer that is ready for a direct write. This is the one copy that rows make on their way.
#[must_use]
pub fn encode(sequence: u64, batch_start: u32, parts: &[Part]) -> AlignedBuffer {
    let total = batch_bytes(parts);
    let mut buffer = AlignedBuffer::new(total);
    let mut at = 0;
    for part in parts {
        let mut prefix = [0; PREFIX_BYTES];
        prefix[0..8].copy_from_slice(&sequence.to_le_bytes());
        prefix[8..12].copy_from_slice(&(batch_start + at as u32).to_le_bytes());
        prefix[12..16].copy_from_slice(&batch_start.to_le_bytes());
        prefix[16..20].copy_from_slice(&(total as u32).to_le_bytes());
        let header = frame::header(part.kind, &[&prefix, &part.head, &part.rows]);
        let end = at + part.aligned_bytes();
        for piece in [header.as_slice(), &prefix, &part.head, &part.rows] {
            buffer[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        buffer[at..end].fill(0);
        at = end;
    }
    buffer[at..].fill(0);
    buffer
}

/// A valid record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    pub kind: u8,
    pub position: usize,
    pub batch_start: usize,
    pub batch_bytes: usize,
    /// Without the prefix.
    pub payload: &'a [u8],
}

impl Found<'_> {
    fn aligned_bytes(&self) -> usize {
        (FRAME_HEADER_BYTES + PREFIX_BYTES + self.payload.len()).next_multiple_of(RECORD_ALIGN_BYTES)
    }
}

/// Why there is no batch at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub position: usize,
    pub reason: String,
}

/// The record at `position` of the file with this sequence. Records of an earlier life, or moved by a misdirected
/// write, are unreadable.
pub fn record_at(file: &[u8], sequence: u64, position: usize) -> Result<Found<'_>, Unreadable> {
    let unreadable = |reason: String| Unreadable { position, reason };
    let bytes = file.get(position..).filter(|bytes| !bytes.is_empty());
    let bytes = bytes.ok_or_else(|| unreadable("the file ends".to_owned()))?;
    let frame = frame::decode(bytes).map_err(|error| unreadable(error.to_string()))?;
    let Some(prefix) = frame.payload.first_chunk::<PREFIX_BYTES>() else {
        return Err(unreadable("record without its place".to_owned()));
    };
    let half = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]) as usize;
    let found_sequence = prefix.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if found_sequence != sequence || half(8) != position {
        return Err(unreadable(format!("record of file {found_sequence} at {}", half(8))));
    }
    let payload = &frame.payload[PREFIX_BYTES..];
    Ok(Found { kind: frame.kind, position, batch_start: half(12), batch_bytes: half(16), payload })
}

/// Whether a record of this life of the file was begun at `position`, readable to its end or not.
#[must_use]
pub fn begins_at(file: &[u8], sequence: u64, position: usize) -> bool {
    let Some(bytes) = file.get(position..) else { return false };
    let place = bytes.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + PREFIX_BYTES);
    let is_here = place.is_some_and(|prefix| {
        prefix[0..8] == sequence.to_le_bytes() && prefix[8..12] == (position as u32).to_le_bytes()
    });
    is_here && frame::decode_header(bytes).is_ok()
}

/// All records of the batch that begins at `start`.
pub fn batch_at(file: &[u8], sequence: u64, start: usize) -> Result<Vec<Found<'_>>, Unreadable> {
    let mut found = Vec::new();
    let mut position = start;
    loop {
        let record = record_at(file, sequence, position)?;
        if record.batch_start != start {
            let reason = format!("record of the batch at {}", record.batch_start);
            return Err(Unreadable { position, reason });
        }
        position += record.aligned_bytes();
        let end = start + record.batch_bytes;
        found.push(record);
        if position == end {
            return Ok(found);
        }
        if position > end {
            return Err(Unreadable { position, reason: format!("record beyond the end {end} of its batch") });
        }
    }
}

/// Position of the first valid record of a batch that begins after `start`.
#[must_use]
pub fn later_batch(file: &[u8], sequence: u64, start: usize) -> Option<usize> {
    let first = (start + 1).next_multiple_of(BLOCK_BYTES);
    (first..file.len()).step_by(RECORD_ALIGN_BYTES).find(|position| {
        // A header has a type and zeros after it: nearly all other bytes are passed over without a checksum.
        let looks_like_one = matches!(file[*position..], [_, _, _, _, kind, 0, 0, 0, ..] if kind != 0);
        looks_like_one && record_at(file, sequence, *position).is_ok_and(|record| record.batch_start > start)
    })
}

/// Where the batch after this one begins.
#[must_use]
pub fn next_start(start: usize, batch_bytes: usize) -> usize {
    (start + batch_bytes).next_multiple_of(BLOCK_BYTES)
}
