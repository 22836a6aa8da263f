//! Immutable columnar files of a chunk: rows sorted by series, time and arrival, cut into row groups, each column of a
//! row group one page. What the bytes are stands in FORMAT.md.
//!
//! [`write`] streams sorted rows into a new file, [`SegmentReader`] prunes row groups and reads columns of them. Below
//! them, each using those before: [`encoding`] (values to bytes), `page` (compression and checksum), `zone` (zone maps),
//! `encode` and `decode` (Arrow arrays to pages and back), `footer` and `format` (what frames a file).

pub mod encoding;
mod page;

mod zone;

mod decode;
mod encode;

mod footer;
mod format;

mod bundle;
mod page_cache;
mod piece_writer;
mod pieces;
mod reader;
mod statistics;
mod writer;

mod arbitrary;

#[cfg(test)]
mod tests;

pub use arbitrary::{decode_arbitrary, footer_arbitrary, pieces_arbitrary, round_trip_arbitrary, segment_arbitrary};
pub use decode::Terms;
pub use page_cache::{FilePages, PageCache, PageCacheFigures, ReadAhead};
pub use pieces::{PieceColumn, Pieces};
pub use reader::{Commits, RowGroup, RowGroupRows, SegmentExpectation, SegmentReader};
pub use statistics::ZoneStatistics;
pub use writer::{SegmentLimits, SegmentRows, SegmentSpec, SegmentSummary, write};

/// Version of the files that are written, and the newest that is read.
pub const SEGMENT_VERSION: u32 = 5;
/// The oldest that is read.
pub const SEGMENT_VERSION_MIN: u32 = 1;
/// Rows of a row group, at most, in files that are written.
pub const ROW_GROUP_ROWS_MAX: usize = 64 << 10;
/// Rows of a row group that a reader accepts: 16 times more than are written, for writers to come.
pub const ROW_GROUP_ROWS_LIMIT: usize = 1 << 20;
/// Arrow bytes of a row group, at most, unless a single row has more.
/// 64 Ki rows of the TSBS shape (200 bytes) are 13 MiB.
pub const ROW_GROUP_BYTES_MAX: usize = 32 << 20;
