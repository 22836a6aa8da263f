//! `GROUP BY bucket ORDER BY bucket DESC LIMIT n`: each shard adds up the groups of its own n newest buckets only. Among
//! them are all rows that it has of the n newest ones of all shards, since no bucket of those stands behind n of its own.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, ReplaceChildrenOptions};
use meridian_fragment::{BucketAggregateExec, Top};

use crate::exec::remote_scan::RemoteScanExec;

/// With more buckets than this there is little left to skip.
const BUCKETS_MAX: usize = 1000;

/// The rule comes after the one that moves operators into fragments.
pub(crate) fn top_buckets(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(tell_leaf).data()
}

fn tell_leaf(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let Some((column, top)) = plan.downcast_ref::<SortExec>().and_then(top_of) else {
        return Ok(Transformed::no(plan));
    };
    let [input] = plan.children()[..] else { return Ok(Transformed::no(plan)) };
    match within(input, column, top)? {
        Some(input) => with_child(&plan, input).map(Transformed::yes),
        None => Ok(Transformed::no(plan)),
    }
}

/// The column that decides which rows come first, and how many do.
fn top_of(sort: &SortExec) -> Option<(usize, Top)> {
    let count = sort.fetch().filter(|count| (1..=BUCKETS_MAX).contains(count))?;
    let first = sort.expr().first();
    Some((column_of(&first.expr)?, Top { count, newest: first.options.descending }))
}

fn column_of(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

/// The plan with a leaf that knows, when `column` of its output is a bucket of time; every row that goes in below comes
/// out, as it is, grouped.
fn within(plan: &Arc<dyn ExecutionPlan>, column: usize, top: Top) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(scan) = plan.downcast_ref::<RemoteScanExec>() {
        let buckets = scan.fragment().downcast_ref::<BucketAggregateExec>();
        let Some(buckets) = buckets.filter(|buckets| buckets.is_bucket(column)) else { return Ok(None) };
        return Ok(Some(Arc::new(scan.with_fragment(Arc::new(buckets.with_top(top)?))?)));
    }
    let below = if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        projection.expr().get(column).and_then(|item| column_of(&item.expr))
    } else if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let is_last = matches!(aggregate.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned);
        let groups = aggregate.group_expr().expr();
        // The key of a group that is a column of the state is that column.
        is_last.then(|| groups.get(column).and_then(|(expr, _)| column_of(expr))).flatten()
    } else {
        (plan.is::<CoalescePartitionsExec>() || plan.is::<RepartitionExec>()).then_some(column)
    };
    let (Some(below), [input]) = (below, &plan.children()[..]) else { return Ok(None) };
    match within(input, below, top)? {
        Some(input) => with_child(plan, input).map(Some),
        None => Ok(None),
    }
}

fn with_child(plan: &Arc<dyn ExecutionPlan>, child: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Arc::clone(plan).replace_children(vec![child], options)
}
