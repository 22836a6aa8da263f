//! What a plan needs of a leaf's rows, when that is less than all of them.

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::{Result, plan_err};

/// Columns are positions in the table's schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Want {
    /// All rows that may lie within the bounds.
    #[default]
    Rows,
    /// The same rows in an order: by columns that tell series apart, then by time.
    Sorted(Vec<SortColumn>),
    /// At least the rows that decide about each series. The bounds, and predicates on the key alone, are the whole
    /// predicate.
    Series(Series),
    /// Answers for pieces of which everything is known, and the rows of the others. The bounds are the whole predicate.
    Facts(Vec<Fact>),
    /// Aggregates of groups, and the rows that are in none of them. The bounds, and predicates on what segments are sorted
    /// by, are the whole predicate.
    Buckets(Buckets),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortColumn {
    pub column: usize,
    pub options: SortOptions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Columns that tell series apart.
    pub key: Vec<usize>,
    /// The time column, which is never NULL.
    pub time: usize,
    /// All rows of each series' least time.
    pub first: bool,
    /// All rows of each series' greatest time. With neither, any row of each series.
    pub last: bool,
}

/// A question about all rows within the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    Rows,
    /// Rows in which the column is not NULL.
    Count(usize),
    Min(usize),
    Max(usize),
}

/// Groups of rows that are equal in the key and lie in the same bucket of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    pub key: Vec<usize>,
    /// The time column, which is never NULL.
    pub time: usize,
    /// `None`: all time is one bucket.
    pub grid: Option<Grid>,
    pub measures: Vec<Measure>,
    /// Only the groups of the buckets at one end are wanted.
    pub top: Option<Top>,
}

/// Buckets of equal width, in the time column's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub width: i64,
    pub origin: i64,
}

/// A question about all rows of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Rows,
    /// Rows in which the column is not NULL.
    Count(usize),
    /// Of doubles.
    Sum(usize),
    Min(usize),
    Max(usize),
    /// The value of the row with the least time.
    First(usize),
    FirstTime,
    Last(usize),
    LastTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Top {
    /// Of buckets, not of groups.
    pub count: usize,
    pub newest: bool,
}

impl Measure {
    #[must_use]
    pub fn column(self) -> Option<usize> {
        match self {
            Self::Rows | Self::FirstTime | Self::LastTime => None,
            Self::Count(column) | Self::Sum(column) | Self::Min(column) => Some(column),
            Self::Max(column) | Self::First(column) | Self::Last(column) => Some(column),
        }
    }
}

impl Fact {
    #[must_use]
    pub fn column(self) -> Option<usize> {
        match self {
            Self::Rows => None,
            Self::Count(column) | Self::Min(column) | Self::Max(column) => Some(column),
        }
    }
}

impl Want {
    /// Refuses columns that the table does not have.
    pub(crate) fn validate(&self, table_schema: &SchemaRef) -> Result<()> {
        let columns: Vec<usize> = match self {
            Self::Rows => Vec::new(),
            Self::Sorted(order) => order.iter().map(|by| by.column).collect(),
            Self::Series(series) => series.key.iter().copied().chain([series.time]).collect(),
            Self::Facts(facts) => facts.iter().filter_map(|fact| fact.column()).collect(),
            Self::Buckets(buckets) => {
                if buckets.grid.is_some_and(|grid| grid.width <= 0) || buckets.top.is_some_and(|top| top.count == 0) {
                    return plan_err!("a leaf wants buckets without width or number");
                }
                let measured = buckets.measures.iter().filter_map(|measure| measure.column());
                buckets.key.iter().copied().chain([buckets.time]).chain(measured).collect()
            }
        };
        match columns.iter().find(|column| **column >= table_schema.fields().len()) {
            Some(column) => plan_err!("a leaf wants column {column}, which the table does not have"),
            None => Ok(()),
        }
    }
}

/// Types whose values are compared the same way by zone maps, bounds and SQL, bit for bit.
pub(crate) fn is_exact(data_type: &DataType) -> bool {
    use DataType::{Date32, Int16, Int32, Int64, Time64, Timestamp, Utf8};
    matches!(
        data_type,
        Int16 | Int32 | Int64 | Date32 | Utf8 | Time64(TimeUnit::Microsecond) | Timestamp(TimeUnit::Microsecond, _)
    )
}
