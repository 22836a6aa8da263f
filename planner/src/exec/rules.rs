//! Rules on physical plans, one per file. They come after all of DataFusion's.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_plan::ExecutionPlan;

pub(crate) mod choose_leaf;
pub(crate) mod push_down;
pub(crate) mod top_buckets;

/// All of them.
pub(crate) fn distribute(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    top_buckets::top_buckets(push_down::push_down(plan)?)
}
