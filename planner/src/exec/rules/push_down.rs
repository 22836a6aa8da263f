//! Moves operators into the fragments of the remote scans below them: filters, projections, partial aggregates, first
//! rows, top-N, limits. What the fragment's language takes, and each shard can do for itself, is done there. An aggregate may choose
//! another leaf on its way.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, ReplaceChildrenOptions};
use meridian_fragment::{check_allowed, is_pushable};

use super::choose_leaf::choose_leaf;
use super::merge_sorted::sorted_parts;
use crate::exec::remote_scan::RemoteScanExec;

/// A filter copies what it lets through until it has so many rows, but passes on a batch of more than half of them as it
/// is. Leaves read by the filter's bounds, so that most of what they hand out goes through.
const FILTER_BATCH_ROWS: usize = 1024;
/// A shard sorts in memory, without spilling, and holds more than it keeps, up to twenty batches: the gateway sorts longer
/// tops, since with 2 KB a row 50,000 of them did not fit.
const TOP_ROWS_MAX: usize = 10_000;

pub(super) fn push_down(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(absorb).data()
}

fn absorb(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let absorbed = match plan.children().as_slice() {
        [child] => match child.downcast_ref::<RemoteScanExec>() {
            Some(scan) => absorbed(&for_shards(&plan)?, scan, ChildrenPropertiesMode::Recompute)?,
            None => None,
        },
        _ => None,
    };
    Ok(absorbed.map_or_else(|| Transformed::no(plan), Transformed::yes))
}

/// The operator as it is best run on a shard.
pub(crate) fn for_shards(plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(filter) = plan.downcast_ref::<FilterExec>() else { return Ok(Arc::clone(plan)) };
    Ok(Arc::new(FilterExecBuilder::from(filter).with_batch_size(FILTER_BATCH_ROWS).build()?))
}

/// An operator right above a scan as part of the scan's fragment. `None`: it cannot be. `mode`: whether the operator's
/// properties are to be worked out anew.
pub(crate) fn absorbed(
    plan: &Arc<dyn ExecutionPlan>,
    scan: &RemoteScanExec,
    mode: ChildrenPropertiesMode,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(sort) = plan.downcast_ref::<SortExec>()
        && let Some(sorted) = sorted_parts(sort, scan)?
    {
        return Ok(Some(sorted));
    }
    if !is_wanted(plan.as_ref()) || !is_pushable(plan.as_ref()) {
        return Ok(None);
    }
    if let Some(better) = choose_leaf(plan, scan, mode)? {
        return Ok(Some(better));
    }
    let options = ReplaceChildrenOptions::new(mode);
    let fragment = Arc::clone(plan).replace_children(vec![Arc::clone(scan.fragment())], options)?;
    if check_allowed(&fragment).is_err() {
        return Ok(None);
    }
    Ok(Some(Arc::new(scan.with_fragment(fragment)?)))
}

/// A whole sort would hold a whole chunk in a shard's memory; a top-N does not.
fn is_wanted(plan: &dyn ExecutionPlan) -> bool {
    plan.downcast_ref::<SortExec>().is_none_or(|sort| sort.fetch().is_some_and(|rows| rows <= TOP_ROWS_MAX))
}
