//! First block of a log file: whose it is and which one.
//!
//! ```text
//! offset  size  field (little endian)
//!      0     8  "MERIDWAL"
//!      8     4  format version
//!     12     4  CRC-32C of the bytes 0..12 and 16..64
//!     16    16  cluster
//!     32     8  node
//!     40     8  sequence of the file
//!     48     2  shard
//!     50    14  zero
//!     64     -  zero up to the end of the block
//! ```

use std::fmt;
use std::path::Path;

use meridian_proto::{ClusterId, NodeId, ShardId};

use crate::disk::BLOCK_BYTES;
use crate::error::EngineError;

/// Of the log files and of the records in them.
pub const WAL_FORMAT_VERSION: u32 = 1;
/// Bytes before the first record.
pub const HEADER_BYTES: usize = BLOCK_BYTES;

const MAGIC: &[u8; 8] = b"MERIDWAL";
const USED_BYTES: usize = 64;

/// Whose a shard's files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub shard: ShardId,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {}, node {}, shard {}", self.cluster, self.node, self.shard)
    }
}

#[must_use]
pub fn encode(owner: Owner, sequence: u64) -> [u8; HEADER_BYTES] {
    let mut block = [0; HEADER_BYTES];
    block[0..8].copy_from_slice(MAGIC);
    block[8..12].copy_from_slice(&WAL_FORMAT_VERSION.to_le_bytes());
    block[16..32].copy_from_slice(&owner.cluster.0.to_le_bytes());
    block[32..40].copy_from_slice(&owner.node.0.to_le_bytes());
    block[40..48].copy_from_slice(&sequence.to_le_bytes());
    block[48..50].copy_from_slice(&owner.shard.0.to_le_bytes());
    let checksum = checksum(&block);
    block[12..16].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// Sequence in the header, or `None` when there is no readable header. A header of someone else, or of a newer
/// release, is an error: the checksum says that it was meant.
pub fn decode(block: &[u8], owner: Owner, path: &Path) -> Result<Option<u64>, EngineError> {
    let Some(head) = block.first_chunk::<USED_BYTES>() else { return Ok(None) };
    let (Some(stored), Some(version)) = (half(head, 12), half(head, 8)) else { return Ok(None) };
    if &head[0..8] != MAGIC || stored != checksum(head) {
        return Ok(None);
    }
    if version > WAL_FORMAT_VERSION {
        return Err(EngineError::NewerFormat { path: path.to_owned(), found: version, known: WAL_FORMAT_VERSION });
    }
    let mut cluster = [0; 16];
    cluster.copy_from_slice(&head[16..32]);
    let word = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let found = Owner {
        cluster: ClusterId(u128::from_le_bytes(cluster)),
        node: NodeId(word(32)),
        shard: ShardId(u16::from_le_bytes([head[48], head[49]])),
    };
    if found != owner {
        let (found, expected) = (found.to_string(), owner.to_string());
        return Err(EngineError::Foreign { path: path.to_owned(), found, expected });
    }
    Ok(Some(word(40)))
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn checksum(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[0..12]), &block[16..USED_BYTES])
}
