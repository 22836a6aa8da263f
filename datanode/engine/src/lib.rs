//! The storage engine of one shard. A write becomes a record of its chunk's log (`replica`), goes into the shard's WAL
//! (`wal`), is acknowledged after the group commit's fdatasync, lands in the chunk's memtable (`memtable`) and is flushed
//! into a segment (`segment`) that the chunk's manifest (`manifest`) names. [`shard`] drives all of it on one glommio
//! executor; nothing here knows tokio, DataFusion or SQL.
//!
//! Modules in order; each uses only those above it.

pub mod disk;
pub mod error;
pub mod layout;
pub mod pace;
pub mod scan;
pub mod statistics;

pub mod order;

pub mod stored;
pub mod visibility;

pub mod record;
pub mod replica;

pub mod wal;

pub mod segment;

pub mod leaf;

pub mod manifest;
pub mod memtable;

pub mod shard;

#[doc(hidden)]
pub mod arbitrary;

#[cfg(test)]
mod testing;

pub use disk::{Disk, DiskError, DiskFile, GlommioDisk, SimulatedDisk};
pub use error::EngineError;
pub use leaf::{BucketSearch, GroupMemory, GroupStates, SeriesPredicate, SeriesSearch, SeriesTest, Want};
pub use replica::{Answer, Decide, Decision, Question, Resolve, WriteMode};
pub use scan::{Bound, Buckets, Ends, Grid, Measure, Scan, ScanStatistics, Series, SortColumn, SortKey, Top, Value};
pub use shard::{
    ChunkSizes, ChunkSpec, CompactionLimits, CompressOutcome, CompressionOrder, DecompressOutcome, OrderBy,
    RecoveryReport, ScanStream, Shard, ShardOptions, ShardStatus, SortedScan, SortedStream, Write, Written,
};
pub use statistics::{Answered, Fact, Facts};
