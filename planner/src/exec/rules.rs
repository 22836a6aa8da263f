//! Rules on physical plans, one per file. They come after all of DataFusion's.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_plan::ExecutionPlan;

pub(crate) mod choose_leaf;
pub(crate) mod first_rows;
pub(crate) mod merge_sorted;
pub(crate) mod push_down;
pub(crate) mod top_buckets;

/// All of them. `leaves`: whether other operators and leaves may do what DataFusion's and the plain scan would.
pub(crate) fn distribute(plan: Arc<dyn ExecutionPlan>, leaves: bool) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = if leaves { first_rows::first_rows(plan)? } else { plan };
    after_push_down(push_down::push_down(plan)?)
}

/// Those that look at what stands in fragments.
pub(crate) fn after_push_down(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    merge_sorted::merge_sorted(top_buckets::top_buckets(plan)?)
}
