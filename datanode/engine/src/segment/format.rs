//! What frames a segment file: the header block at its start and the trailer at its end. Both begin or end with fields
//! that stay where they are in every later version, so that an old release can name a newer file.
//!
//! ```text
//! header block, file offset 0, 4096 bytes
//! offset  size  field
//!      0     8  "MRDNSEGM"
//!      8     4  format version
//!     12     4  zero
//!     16    16  cluster id
//!     32     8  chunk id
//!     40     8  segment id
//!     48     4  table id
//!     52     4  schema version
//!     56     4  zero
//!     60     4  CRC-32C of bytes 0..60
//!     64  4032  zero
//!
//! trailer, the last 32 bytes of the file
//! offset  size  field
//!      0     8  file offset of the footer
//!      8     4  footer bytes
//!     12     4  checksum of the footer
//!     16     4  format version
//!     20     4  checksum of bytes 0..20
//!     24     8  "MRDNSEGE"
//!
//! A checksum of footer and trailer is that of a page: it covers (chunk, segment, file offset) first.
//! ```

use std::path::Path;

use meridian_proto::ids::{ChunkId, ClusterId, SchemaVersion, SegmentId, TableId};

use super::{SEGMENT_VERSION, SEGMENT_VERSION_MIN, page};
use crate::error::EngineError;

/// Bytes before the first page.
pub const HEADER_BYTES: usize = 4096;
pub const TRAILER_BYTES: usize = 32;

const HEADER_MAGIC: &[u8; 8] = b"MRDNSEGM";
const TRAILER_MAGIC: &[u8; 8] = b"MRDNSEGE";
const HEADER_FIELDS_BYTES: usize = 64;

/// Whose rows a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of the format; what is written has [`SEGMENT_VERSION`].
    pub version: u32,
    pub cluster: ClusterId,
    pub chunk: ChunkId,
    pub segment: SegmentId,
    pub table: TableId,
    pub schema_version: SchemaVersion,
}

/// Where the footer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    pub footer_offset: u64,
    pub footer_bytes: usize,
    pub footer_checksum: u32,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(HEADER_MAGIC);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.cluster.0.to_le_bytes());
        bytes.extend_from_slice(&self.chunk.0.to_le_bytes());
        bytes.extend_from_slice(&self.segment.0.to_le_bytes());
        bytes.extend_from_slice(&self.table.0.to_le_bytes());
        bytes.extend_from_slice(&self.schema_version.0.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    /// Reads the header; a newer version is refused by name.
    pub fn decode(path: &Path, bytes: &[u8]) -> Result<Self, EngineError> {
        let corrupt = |reason: &str| EngineError::corruption(path, 0, reason);
        let fields =
            bytes.first_chunk::<HEADER_FIELDS_BYTES>().ok_or_else(|| corrupt("the file ends in its header"))?;
        if fields[..8] != *HEADER_MAGIC {
            return Err(corrupt("this is not a segment file"));
        }
        // Before the version: a rotten version is damage, not a newer release.
        if crc32c::crc32c(&fields[..60]) != u32_at(fields, 60) {
            return Err(corrupt("header checksum mismatch"));
        }
        Ok(Self {
            version: checked_version(path, u32_at(fields, 8))?,
            cluster: ClusterId(u128::from(u64_at(fields, 16)) | u128::from(u64_at(fields, 24)) << 64),
            chunk: ChunkId(u64_at(fields, 32)),
            segment: SegmentId(u64_at(fields, 40)),
            table: TableId(u32_at(fields, 48)),
            schema_version: SchemaVersion(u32_at(fields, 52)),
        })
    }
}

fn checked_version(path: &Path, version: u32) -> Result<u32, EngineError> {
    match version {
        SEGMENT_VERSION_MIN..=SEGMENT_VERSION => Ok(version),
        0 => Err(EngineError::corruption(path, 8, "there is no format version 0")),
        found => Err(EngineError::NewerFormat { path: path.to_owned(), found, known: SEGMENT_VERSION }),
    }
}

impl Trailer {
    /// The trailer's bytes when it lies at `offset`.
    pub fn encode(&self, header: &Header, offset: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(TRAILER_BYTES);
        bytes.extend_from_slice(&self.footer_offset.to_le_bytes());
        let footer_bytes = u32::try_from(self.footer_bytes).expect("a footer is far below 4 GiB");
        bytes.extend_from_slice(&footer_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.footer_checksum.to_le_bytes());
        bytes.extend_from_slice(&header.version.to_le_bytes());
        let checksum = page::checksum(header.chunk, header.segment, offset, &bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(TRAILER_MAGIC);
        bytes
    }

    /// Reads the trailer that lies at `offset` and ends the file.
    pub fn decode(path: &Path, header: &Header, offset: u64, bytes: &[u8]) -> Result<Self, EngineError> {
        let corrupt = |reason: &str| EngineError::corruption(path, offset, reason);
        let fields = bytes.first_chunk::<TRAILER_BYTES>().ok_or_else(|| corrupt("the file ends in its trailer"))?;
        if fields[24..] != *TRAILER_MAGIC {
            return Err(corrupt("the trailer is missing: the file is cut off or damaged"));
        }
        if page::checksum(header.chunk, header.segment, offset, &fields[..20]) != u32_at(fields, 20) {
            return Err(corrupt("trailer checksum mismatch"));
        }
        if u32_at(fields, 16) != header.version {
            return Err(corrupt("header and trailer have different format versions"));
        }
        let trailer = Self {
            footer_offset: u64_at(fields, 0),
            footer_bytes: u32_at(fields, 8) as usize,
            footer_checksum: u32_at(fields, 12),
        };
        let end = trailer.footer_offset.checked_add(trailer.footer_bytes as u64);
        if trailer.footer_offset < HEADER_BYTES as u64 || end.is_none_or(|end| end > offset) {
            return Err(corrupt("the footer lies outside the file"));
        }
        Ok(trailer)
    }
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}
