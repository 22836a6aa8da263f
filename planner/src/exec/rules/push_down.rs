//! Moves operators into the fragments of the remote scans below them: filters, projections, partial aggregates, top-N,
//! limits. What the fragment's language takes, and each shard can do for itself, is done there. An aggregate may choose
//! another leaf on its way.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, ReplaceChildrenOptions};
use meridian_fragment::{check_allowed, is_pushable};

use super::choose_leaf::choose_leaf;
use crate::exec::remote_scan::RemoteScanExec;

/// A shard sorts in memory, without spilling: it keeps at most this many rows of a top-N.
const TOP_ROWS_MAX: usize = 100_000;

#[derive(Debug)]
pub(crate) struct PushDown;

impl PhysicalOptimizerRule for PushDown {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(absorb).data()
    }

    fn name(&self) -> &'static str {
        "push_down"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn absorb(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let scan = match plan.children().as_slice() {
        [child] => child.downcast_ref::<RemoteScanExec>(),
        _ => None,
    };
    let Some(scan) = scan.filter(|_| is_wanted(plan.as_ref()) && is_pushable(plan.as_ref())) else {
        return Ok(Transformed::no(plan));
    };
    if let Some(better) = choose_leaf(&plan, scan)? {
        return Ok(Transformed::yes(better));
    }
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    let fragment = Arc::clone(&plan).replace_children(vec![Arc::clone(scan.fragment())], options)?;
    if check_allowed(&fragment).is_err() {
        return Ok(Transformed::no(plan));
    }
    Ok(Transformed::yes(Arc::new(scan.with_fragment(fragment)?)))
}

/// A whole sort would hold a whole chunk in a shard's memory; a top-N does not.
fn is_wanted(plan: &dyn ExecutionPlan) -> bool {
    plan.downcast_ref::<SortExec>().is_none_or(|sort| sort.fetch().is_some_and(|rows| rows <= TOP_ROWS_MAX))
}
