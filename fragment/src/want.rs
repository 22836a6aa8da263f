//! What a plan needs of a leaf's rows, when that is less than all of them.

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::{Result, plan_err};

/// Columns are positions in the table's schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Want {
    /// All rows that may lie within the bounds.
    #[default]
    Rows,
    /// At least the rows that decide about each series. The bounds, and predicates on the key alone, are the whole
    /// predicate.
    Series(Series),
    /// Answers for pieces of which everything is known, and the rows of the others. The bounds are the whole predicate.
    Facts(Vec<Fact>),
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
            Self::Series(series) => series.key.iter().copied().chain([series.time]).collect(),
            Self::Facts(facts) => facts.iter().filter_map(|fact| fact.column()).collect(),
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
