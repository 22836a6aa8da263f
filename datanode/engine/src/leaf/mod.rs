//! Reading less of a row group than its rows: predicate columns first, series by the directory, the ends of series from
//! a cache. What a reader gets is always at least what it asked for; who asked finds the rest of the way.

use std::cell::RefCell;
use std::rc::Rc;

use crate::scan::Series;
use crate::statistics::Fact;

mod buckets;
mod cache;
mod groups;
mod known_pieces;
mod measured;
mod newest;
mod ranges;
mod row_group;
mod runs;
mod strips;
mod within;

pub use buckets::{BucketSearch, GroupMemory, SeriesPredicate, SeriesTest};
pub use cache::{LEAF_CACHE_BYTES_MAX, LeafCache};
pub use groups::GroupStates;
pub(crate) use newest::Newest;
pub use row_group::{Found, RowGroupScan};
pub(crate) use strips::{Lie, Load, SortedBy, Strips, times_sorted};
pub(crate) use within::within;

/// Which of a chunk's rows a reader wants.
#[derive(Clone)]
pub enum Want {
    /// All rows that may lie within the bounds. Of series that one of the predicates leaves out none is wanted.
    Rows(Rc<Vec<SeriesPredicate>>),
    /// Those that decide about series. The bounds are the whole predicate, but for what only reads the key.
    Series(Rc<SeriesSearch>),
    /// Answers, and the rows that no answer holds. The bounds are the whole predicate.
    Facts(Vec<Fact>),
    /// Aggregates of groups, and the rows that are in none of them. The bounds and the search's predicate are the whole
    /// predicate.
    Buckets(Rc<BucketSearch>),
}

impl Default for Want {
    fn default() -> Self {
        Self::Rows(Rc::default())
    }
}

/// A search over one or several chunks, best from the newest to the oldest.
pub struct SeriesSearch {
    pub series: Series,
    pub(crate) newest: RefCell<Newest>,
}

impl SeriesSearch {
    #[must_use]
    pub fn new(series: Series) -> Rc<Self> {
        Rc::new(Self { series, newest: RefCell::default() })
    }
}
