//! The language between planner and data node: a piece of a physical plan that runs on one shard, over the chunks that
//! a request names.
//!
//! A gateway builds a plan over a [`ChunkScanExec`], absorbs what [`is_pushable`] lets it, and [`encode`]s it. A data
//! node [`decode`]s it, once per execution since plans with dynamic filters are good for one, and executes it with
//! [`task_context`], whose [`ChunkSource`] supplies the leaf's rows. A data node in the gateway's own process gets most of
//! them as they are, a [`SharedFragment`]. Both ends hold the plan against the same allow-list,
//! and both resolve functions by name from the same list.
//!
//! Modules in order; each uses only those above it.

mod allowed;
mod bound;
mod buckets;
mod choose;
mod codec;
mod first_rows;
mod functions;
mod leaf;
mod memory_pool;
mod metadata;
mod schemas;
mod shared;
mod sorted;
mod top_rows;
mod trace;
mod want;

pub use allowed::{check_allowed, is_pushable};
pub use bound::{Bound, bounds_of, neighbour};
pub use buckets::{BucketAggregateExec, KeyPredicate, any_of, key_predicate, row_predicates};
pub use choose::{SeriesOrder, choose_leaf};
pub use codec::{decode, encode};
pub use first_rows::{FirstRowsExec, FirstRowsMode, KeySort};
pub use functions::{is_known_aggregate, is_known_scalar};
pub use leaf::{BucketStates, ChunkScanExec, ChunkSource, leaf_of, task_context};
pub use memory_pool::OperatorPool;
pub use metadata::MetadataAggregateExec;
pub use shared::SharedFragment;
pub use sorted::{sorted_groups, sorted_rows};
pub use top_rows::{TopRows, top_rows};
pub use want::{Buckets, Fact, Grid, Measure, Series, SortColumn, Top, Want};

/// Version of the plan language. Plan bytes are bound to one major version of DataFusion, so it changes with that, too.
pub const FRAGMENT_VERSION: u32 = 7;
