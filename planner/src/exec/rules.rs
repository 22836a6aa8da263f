//! Rules on physical plans, one per file. They come after all of DataFusion's.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_plan::ExecutionPlan;

pub(crate) mod choose_leaf;
pub(crate) mod first_rows;
pub(crate) mod push_down;
pub(crate) mod top_buckets;

/// All of them. `leaves`: whether other operators and leaves may do what DataFusion's and the plain scan would.
pub(crate) fn distribute(plan: Arc<dyn ExecutionPlan>, leaves: bool) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = if leaves { first_rows::first_rows(plan)? } else { plan };
    top_buckets::top_buckets(push_down::push_down(plan)?)
}
