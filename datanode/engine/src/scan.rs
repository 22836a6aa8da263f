//! What a reader asks of a chunk, and the small types that pruning speaks.

use meridian_proto::{ChunkId, ColumnId, CommandId, Epoch, TransactionId, Ts};

/// Rows that a scan hands out at once, at most.
pub const BATCH_ROWS_MAX: usize = 8192;

/// A read of one chunk at one snapshot.
#[derive(Clone, Debug)]
pub struct Scan {
    pub chunk: ChunkId,
    pub epoch: Epoch,
    pub snapshot: Ts,
    /// Positions in the table's schema, in the order wanted.
    pub columns: Vec<usize>,
    /// For pruning only: rows outside may be returned.
    pub bounds: Vec<Bound>,
    /// Of each list one bound must be met, as of `IN (...)`. For pruning only, too.
    pub any_of: Vec<Vec<Bound>>,
    /// Shows the stages of this transaction's commands below this one.
    pub own: Option<(TransactionId, CommandId)>,
    /// Outcomes that the reader learned from holders, for stages that do not know them yet.
    pub resolved: Vec<(TransactionId, Ts)>,
    pub batch_rows: usize,
}

/// Rows at the ends of series. More may be returned, and one key's from several places: the least and the greatest time
/// of each key are among them, with all rows that have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// What tells series apart, by positions in the table's schema. Segments that are not sorted by it are read whole.
    pub key: Vec<usize>,
    /// Position of the time column.
    pub time: usize,
    pub ends: Ends,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    pub first: bool,
    pub last: bool,
}

impl Ends {
    /// Any row of each series.
    pub const ANY: Self = Self { first: false, last: false };
}

/// Aggregates of groups of rows: those equal in the key, and of one bucket of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Positions in the table's schema. A segment that is not sorted by all of them is read row by row.
    pub key: Vec<usize>,
    /// Position of the time column.
    pub time: usize,
    /// `None`: all time is one bucket.
    pub grid: Option<Grid>,
    pub measures: Vec<Measure>,
    /// Only the groups at one end of time are wanted.
    pub top: Option<Top>,
}

/// Buckets of equal width, the time column's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub width: i64,
    pub origin: i64,
}

/// What is asked of each group. Columns by position in the table's schema, of integers, times or floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    Rows,
    /// Rows that are not NULL in the column.
    Count(usize),
    /// Of floats, in no particular order.
    Sum(usize),
    Min(usize),
    Max(usize),
    /// The value of the row with the least time, NULL or not.
    First(usize),
    FirstTime,
    Last(usize),
    LastTime,
}

/// The newest buckets, or the oldest ones, as many as `count`, with all of their groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Top {
    pub count: usize,
    pub newest: bool,
}

/// One column of an order, by position in the table's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortColumn {
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
}

/// A range that a column's value must lie in, both ends included. NULL lies in no range.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// Position in the table's schema.
    pub column: usize,
    pub min: Option<Value>,
    pub max: Option<Value>,
}

/// A value in the form in which zone maps hold it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Integers, dates, times, timestamps, booleans, as the Arrow array holds them.
    Int(i64),
    Float(f64),
    /// Text, uuid, bytea.
    Bytes(Vec<u8>),
    /// Unscaled, at the column's scale.
    Decimal(i128),
}

/// How a chunk's rows are ordered in segments: by series, then time, then arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SortKey {
    pub segment_by: Vec<ColumnId>,
    pub time: Option<ColumnId>,
}

/// What a scan did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanStatistics {
    /// Rows looked at, before visibility.
    pub rows_scanned: u64,
    pub rows_returned: u64,
    pub segments_scanned: u64,
    pub segments_pruned: u64,
    pub row_groups_scanned: u64,
    pub row_groups_pruned: u64,
    pub bytes_read: u64,
}
