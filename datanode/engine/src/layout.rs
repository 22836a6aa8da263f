//! Where a shard keeps its files.
//!
//! ```text
//! <shard>/wal/<sequence>.wal              log files, by sequence
//! <shard>/chunks/<chunk>/MANIFEST         what the chunk consists of
//! <shard>/chunks/<chunk>/<segment>.seg    its segments
//! ```

use std::path::{Path, PathBuf};

use meridian_proto::{ChunkId, SegmentId};

pub const MANIFEST_NAME: &str = "MANIFEST";
/// A file that was being written when the process ended; worth nothing.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

#[must_use]
pub fn wal_directory(shard: &Path) -> PathBuf {
    shard.join("wal")
}

#[must_use]
pub fn chunks_directory(shard: &Path) -> PathBuf {
    shard.join("chunks")
}

#[must_use]
pub fn chunk_directory(shard: &Path, chunk: ChunkId) -> PathBuf {
    chunks_directory(shard).join(chunk.to_string())
}

#[must_use]
pub fn segment_path(directory: &Path, segment: SegmentId) -> PathBuf {
    directory.join(segment_name(segment))
}

#[must_use]
pub fn segment_name(segment: SegmentId) -> String {
    format!("{:016x}.seg", segment.0)
}

#[must_use]
pub fn wal_name(sequence: u64) -> String {
    format!("{sequence:016x}.wal")
}

/// The sequence in a log file's name.
#[must_use]
pub fn wal_sequence(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}
