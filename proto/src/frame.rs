//! The record frame of all logs (WAL, Raft log): length, type, checksum, payload.
//!
//! ```text
//! offset  size  field
//!      0     4  payload length in bytes, little endian
//!      4     1  record type, 1..=255; 0 never occurs, so zero-filled space is not a record
//!      5     3  zero
//!      8     4  CRC-32C of the payload
//!     12     4  CRC-32C of bytes 0..12, so that a length is trusted before it is followed
//!     16     n  payload
//! ```

/// Bytes before a payload.
pub const FRAME_HEADER_BYTES: usize = 16;
/// Longest payload: a batch message (64 MiB at most on the wire) with its header.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 80 << 20;

/// Why the bytes at a position are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Zeros where a header would be: space that was never written.
    #[error("no record: zero-filled")]
    Empty,
    /// The bytes end before the record does.
    #[error("record is cut off: {have} of {need} bytes")]
    Short { need: usize, have: usize },
    #[error("header checksum mismatch")]
    Header,
    #[error("payload length {0} is over the limit")]
    TooLong(usize),
    #[error("payload checksum mismatch")]
    Payload,
}

/// A record within a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u8,
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Bytes that the record takes, header included.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.payload.len()
    }
}

/// Header of a record of type `kind` whose payload is the concatenation of `parts`.
///
/// # Panics
/// When `kind` is 0 or the payload is over [`FRAME_PAYLOAD_BYTES_MAX`]: both are promises of the caller.
#[must_use]
pub fn header(kind: u8, parts: &[&[u8]]) -> [u8; FRAME_HEADER_BYTES] {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    assert!(kind != 0, "record type 0 is zero-filled space");
    assert!(length <= FRAME_PAYLOAD_BYTES_MAX, "payload of {length} bytes");
    let checksum = parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part));
    let mut bytes = [0; FRAME_HEADER_BYTES];
    bytes[0..4].copy_from_slice(&(length as u32).to_le_bytes());
    bytes[4] = kind;
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    let header_checksum = crc32c::crc32c(&bytes[0..12]);
    bytes[12..16].copy_from_slice(&header_checksum.to_le_bytes());
    bytes
}

/// Appends a record to `buffer`.
pub fn encode(kind: u8, payload: &[u8], buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(&header(kind, &[payload]));
    buffer.extend_from_slice(payload);
}

/// Type and payload length of the header at the start of `bytes`.
pub fn decode_header(bytes: &[u8]) -> Result<(u8, usize), FrameError> {
    let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
        return Err(FrameError::Short { need: FRAME_HEADER_BYTES, have: bytes.len() });
    };
    if header.iter().all(|byte| *byte == 0) {
        return Err(FrameError::Empty);
    }
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if crc32c::crc32c(&header[0..12]) != word(12) || header[4] == 0 {
        return Err(FrameError::Header);
    }
    let length = word(0) as usize;
    if length > FRAME_PAYLOAD_BYTES_MAX {
        return Err(FrameError::TooLong(length));
    }
    Ok((header[4], length))
}

/// The record at the start of `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (kind, length) = decode_header(bytes)?;
    let need = FRAME_HEADER_BYTES + length;
    let Some(payload) = bytes.get(FRAME_HEADER_BYTES..need) else {
        return Err(FrameError::Short { need, have: bytes.len() });
    };
    let checksum = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if crc32c::crc32c(payload) != checksum {
        return Err(FrameError::Payload);
    }
    Ok(Frame { kind, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back() {
        let mut buffer = Vec::new();
        encode(3, b"hello", &mut buffer);
        encode(4, b"", &mut buffer);
        let first = decode(&buffer).unwrap();
        assert_eq!((first.kind, first.payload), (3, b"hello".as_slice()));
        assert_eq!(decode(&buffer[first.frame_bytes()..]).unwrap().kind, 4);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut buffer = Vec::new();
        encode(3, b"hello", &mut buffer);
        for bit in 0..buffer.len() * 8 {
            let mut damaged = buffer.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_torn_record_and_empty_space_are_told_apart() {
        let mut buffer = Vec::new();
        encode(3, b"hello", &mut buffer);
        assert_eq!(decode(&buffer[..20]), Err(FrameError::Short { need: 21, have: 20 }));
        assert_eq!(decode(&[0; 64]), Err(FrameError::Empty));
    }
}
