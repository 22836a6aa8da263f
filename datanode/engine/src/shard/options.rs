//! What a shard is told when it opens, and the requests and answers of its chunks.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use meridian_proto::schema::TableSchema;
use meridian_proto::{
    ChunkId, ClusterId, CommandId, Epoch, NodeId, SchemaVersion, Sequence, ShardId, TableId, TransactionId, Ts,
};

use super::pick::CompactionLimits;
use crate::replica::WriteMode;
use crate::scan::SortKey;
use crate::segment::PageCacheFigures;
use crate::wal::Cut;

/// 40 million rows of the TSBS shape with whole numbers (3.2 bytes each), which 4000 hosts send in 28 hours at one row
/// every 10 seconds; or 11 million with two decimals (11.5 bytes each).
pub const PAGE_CACHE_BYTES_MAX_DEFAULT: usize = 128 << 20;

#[derive(Clone, Debug)]
pub struct ShardOptions {
    pub shard: ShardId,
    /// Belongs to this shard alone; made when it is missing.
    pub directory: PathBuf,
    pub cluster: ClusterId,
    pub node: NodeId,
    /// Memory of memtables, those being flushed and rows on their way into the log included. Flushes begin at half of
    /// it; at the whole, writes wait.
    pub memtable_bytes_max: usize,
    /// Memory of undecided transactions' rows; above it they go into runs on disk.
    pub staged_bytes_max: usize,
    /// Size of a log file; one is in use and up to two are kept ready.
    pub wal_file_bytes: usize,
    /// Above it the chunk with the oldest record is flushed, so that a restart has little to read.
    pub wal_bytes_max: u64,
    /// Rows older than this are flushed.
    pub flush_age: Duration,
    /// How long a write or a scan waits for memory before it is refused.
    pub memory_wait: Duration,
    /// Memory of compaction and compression.
    pub rewrite_bytes_max: usize,
    pub compaction: CompactionLimits,
    /// Memory of decoded row groups of all scans together.
    pub scan_bytes_max: usize,
    /// Memory of pages that were read from segments and may be wanted again.
    pub page_cache_bytes_max: usize,
    /// Memory of open segments' footers, and how many files are open.
    pub open_bytes_max: usize,
    pub open_files_max: usize,
}

impl ShardOptions {
    /// Defaults for a shard of a node with a few GiB of memory.
    #[must_use]
    pub fn new(shard: ShardId, directory: PathBuf, cluster: ClusterId, node: NodeId) -> Self {
        Self {
            shard,
            directory,
            cluster,
            node,
            memtable_bytes_max: 256 << 20,
            staged_bytes_max: 32 << 20,
            wal_file_bytes: 64 << 20,
            // Four times what flushes leave in memory: about a second of reading at a restart.
            wal_bytes_max: 512 << 20,
            flush_age: Duration::from_secs(600),
            memory_wait: Duration::from_secs(5),
            // Half of it for row groups of nine segments, 13 MiB each in the TSBS shape; the rest for what is written.
            rewrite_bytes_max: 256 << 20,
            compaction: CompactionLimits::default(),
            // Twenty row groups of 13 MiB.
            scan_bytes_max: 256 << 20,
            page_cache_bytes_max: PAGE_CACHE_BYTES_MAX_DEFAULT,
            // A footer of the TSBS shape has 1 KiB a row group: 4 billion rows.
            open_bytes_max: 64 << 20,
            open_files_max: 1024,
        }
    }
}

/// A chunk as the catalog describes it to its primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkSpec {
    pub chunk: ChunkId,
    pub table: TableId,
    pub epoch: Epoch,
    pub schema: TableSchema,
    pub sort: SortKey,
    /// Asked of the oracle after the node learned of the epoch (R3).
    pub max_read: Ts,
}

/// A batch of rows of one chunk.
#[derive(Clone, Debug)]
pub struct Write {
    pub chunk: ChunkId,
    pub epoch: Epoch,
    pub transaction: TransactionId,
    /// Every sequence of the producer below it is settled and needs no dedupe entry any more.
    pub low_water: Sequence,
    /// Number of this piece within (transaction, chunk), from 0.
    pub piece: u32,
    pub command: CommandId,
    pub snapshot: Ts,
    pub schema_version: SchemaVersion,
    pub mode: WriteMode,
    /// In the form of `meridian_proto::rows`; written into the log as they are.
    pub rows: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Of a one-phase write.
    pub commit: Option<Ts>,
    /// Of the chunk, for the commit timestamp of the transaction (R4).
    pub max_read: Ts,
    pub row_count: u64,
}

/// What a shard found when it opened.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    pub chunks: usize,
    pub segments: usize,
    pub wal_files: usize,
    pub wal_records: u64,
    pub wal_bytes: u64,
    /// Rows that were read from the log into memory.
    pub wal_rows: u64,
    /// The unacknowledged end of the log that was cut off.
    pub cut: Option<Cut>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStatus {
    pub shard: ShardId,
    pub chunks: u64,
    pub segments: u64,
    /// In memory and in segments, before visibility.
    pub rows: u64,
    pub memtable_bytes: u64,
    pub segment_bytes: u64,
    pub wal_bytes: u64,
    /// Footers of open segments.
    pub footer_bytes: u64,
    pub page_cache: PageCacheFigures,
    /// Series directories and rows at the ends of series.
    pub leaf_cache_bytes: u64,
    /// Decoded row groups of scans.
    pub scan_bytes: u64,
}
