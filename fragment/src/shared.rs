//! A fragment as an object, for data nodes in the gateway's own process.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;

/// A fragment that several shards may execute at the same time, and again.
pub struct SharedFragment(Arc<dyn ExecutionPlan>);

impl SharedFragment {
    /// `None` where a part of the plan is good for one execution only: a sort with a limit keeps the bound that it found.
    #[must_use]
    pub fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let mut node = plan;
        loop {
            if node.is::<SortExec>() {
                return None;
            }
            match node.children().as_slice() {
                [] => return Some(Self(Arc::clone(plan))),
                [child] => node = child,
                _ => return None,
            }
        }
    }

    #[must_use]
    pub fn plan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.0
    }
}
