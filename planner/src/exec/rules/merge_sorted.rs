//! Where shards can deliver rows sorted, the gateway merges them instead of sorting or hashing: ORDER BY and LIMIT, windows
//! over series, groups of series.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, InputOrderMode, ReplaceChildrenOptions};

use super::choose_leaf::order_of;
use crate::exec::remote_scan::RemoteScanExec;

/// A sort right above a scan as a scan whose parts are sorted, each no longer than wanted. `None`: they would not be.
pub(super) fn sorted_parts(sort: &SortExec, scan: &RemoteScanExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let is_by_part = sort.preserve_partitioning() || scan.targets().targets.len() == 1;
    if !is_by_part {
        return Ok(None);
    }
    sorted_scan(scan, sort.expr(), sort.fetch())
}

fn sorted_scan(
    scan: &RemoteScanExec,
    sorts: &[PhysicalSortExpr],
    fetch: Option<usize>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if !scan.leaves() {
        return Ok(None);
    }
    let Some(sorted) = meridian_fragment::sorted_rows(scan.fragment(), sorts, &order_of(scan.table()))? else {
        return Ok(None);
    };
    let fragment = match fetch {
        Some(rows) => Arc::new(LocalLimitExec::new(sorted, rows)),
        None => sorted,
    };
    Ok(Some(Arc::new(scan.with_fragment(fragment)?)))
}

/// The rule comes after those that choose leaves. What it changes comes out in one partition, so it looks at operators only
/// whose every row passes through one child: a join reads as many partitions on one side as on the other.
pub(super) fn merge_sorted(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let [child] = plan.children()[..] else { return Ok(plan) };
    let merged = merge_sorted(Arc::clone(child))?;
    let plan = if Arc::ptr_eq(&merged, child) { plan } else { with_child(&plan, merged)? };
    if let Some(sort) = plan.downcast_ref::<SortExec>() {
        return Ok(without_sort(sort)?.unwrap_or(plan));
    }
    match plan.downcast_ref::<AggregateExec>() {
        Some(aggregate) => Ok(over_sorted_groups(aggregate)?.unwrap_or(plan)),
        None => Ok(plan),
    }
}

/// What is sorted already, or can be merged from sorted parts.
fn without_sort(sort: &SortExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let input = sort.input();
    let in_one = input.output_partitioning().partition_count() == 1;
    let is_sorted = in_one && input.equivalence_properties().ordering_satisfy(sort.expr().iter().cloned())?;
    let sorted = if is_sorted {
        Some(Arc::clone(input))
    } else if let Some(merged) = merged_below(input, sort.expr())? {
        Some(merged)
    } else {
        sort.fetch().map_or(Ok(None), |count| first_groups(input, sort.expr(), count))?
    };
    Ok(sorted.map(|sorted| match sort.fetch() {
        Some(_) => Arc::new(GlobalLimitExec::new(sorted, 0, sort.fetch())),
        None => sorted,
    }))
}

/// The same rows, merged from the sorted parts of a scan into one partition.
fn merged_below(plan: &Arc<dyn ExecutionPlan>, sorts: &LexOrdering) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let is_spread = plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>();
    let ([input], true) = (&plan.children()[..], is_spread && plan.fetch().is_none()) else { return Ok(None) };
    if input.is::<RepartitionExec>() || input.is::<CoalescePartitionsExec>() {
        return merged_below(input, sorts);
    }
    let parts = sorted_below(input, sorts)?;
    Ok(parts.map(|parts| in_one_partition(parts, sorts.clone())))
}

/// The same rows with each partition sorted.
fn sorted_below(plan: &Arc<dyn ExecutionPlan>, sorts: &[PhysicalSortExpr]) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(scan) = plan.downcast_ref::<RemoteScanExec>() {
        return sorted_scan(scan, sorts, None);
    }
    let Some(projection) = plan.downcast_ref::<ProjectionExec>() else { return Ok(None) };
    let below = |sort: &PhysicalSortExpr| {
        let column = sort.expr.downcast_ref::<Column>()?;
        let expr = Arc::clone(&projection.expr().get(column.index())?.expr);
        Some(PhysicalSortExpr { expr, options: sort.options })
    };
    let Some(sorts) = sorts.iter().map(below).collect::<Option<Vec<_>>>() else { return Ok(None) };
    match sorted_below(projection.input(), &sorts)? {
        Some(input) => with_child(plan, input).map(Some),
        None => Ok(None),
    }
}

/// The first groups of series, when they are all that is wanted: shards then read no more than those.
fn first_groups(
    plan: &Arc<dyn ExecutionPlan>,
    sorts: &[PhysicalSortExpr],
    count: usize,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let below = plan.downcast_ref::<ProjectionExec>().map(ProjectionExec::input);
    let Some(aggregate) = below.unwrap_or(plan).downcast_ref::<AggregateExec>() else { return Ok(None) };
    let Some(groups) = with_first_groups(aggregate, count)? else { return Ok(None) };
    let groups = if below.is_some() { with_child(plan, groups)? } else { groups };
    let is_sorted = groups.equivalence_properties().ordering_satisfy(sorts.iter().cloned())?;
    Ok(is_sorted.then_some(groups))
}

/// Both halves of an aggregate over rows that are sorted by its groups. What a group has on a shard is among as many first
/// groups there as there are wanted of all, if it is one of those.
fn with_first_groups(aggregate: &AggregateExec, count: usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let scan = scan_below(aggregate.input()).and_then(|scan| scan.downcast_ref::<RemoteScanExec>());
    let Some(scan) = scan.filter(|scan| scan.leaves() && is_last(aggregate)) else { return Ok(None) };
    let Some(first) = scan.fragment().downcast_ref::<AggregateExec>() else { return Ok(None) };
    let Some(sorted) = meridian_fragment::sorted_groups(first, &order_of(scan.table()))? else { return Ok(None) };
    let Some(ordering) = sorted.properties().output_ordering().cloned() else { return Ok(None) };
    let parts = scan.with_fragment(Arc::new(LocalLimitExec::new(sorted, count)))?;
    last_over(aggregate, in_one_partition(Arc::new(parts), ordering)).map(Some)
}

/// The second half of an aggregate whose first halves come out sorted by their groups.
fn over_sorted_groups(aggregate: &AggregateExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(scan) = scan_below(aggregate.input()).filter(|_| is_last(aggregate)) else { return Ok(None) };
    let first = scan.downcast_ref::<RemoteScanExec>().map(RemoteScanExec::fragment);
    let Some(first) = first.and_then(|fragment| fragment.downcast_ref::<AggregateExec>()) else { return Ok(None) };
    let ordering = first.properties().output_ordering().filter(|_| *first.input_order_mode() == InputOrderMode::Sorted);
    let Some(ordering) = ordering.cloned() else { return Ok(None) };
    last_over(aggregate, in_one_partition(Arc::clone(scan), ordering)).map(Some)
}

fn is_last(aggregate: &AggregateExec) -> bool {
    matches!(aggregate.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned)
}

/// The second half of an aggregate over all of its first halves.
fn last_over(aggregate: &AggregateExec, parts: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let whole = AggregateExec::try_new(
        AggregateMode::Final,
        aggregate.group_expr().clone(),
        aggregate.aggr_expr().to_vec(),
        aggregate.filter_expr().to_vec(),
        parts,
        aggregate.input_schema(),
    )?;
    Ok(Arc::new(whole.with_limit_options(aggregate.limit_options())))
}

fn scan_below(plan: &Arc<dyn ExecutionPlan>) -> Option<&Arc<dyn ExecutionPlan>> {
    if plan.is::<RemoteScanExec>() {
        return Some(plan);
    }
    let is_spread = plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>();
    match plan.children()[..] {
        [child] if is_spread && plan.fetch().is_none() => scan_below(child),
        _ => None,
    }
}

fn in_one_partition(parts: Arc<dyn ExecutionPlan>, ordering: LexOrdering) -> Arc<dyn ExecutionPlan> {
    if parts.output_partitioning().partition_count() == 1 {
        return parts;
    }
    Arc::new(SortPreservingMergeExec::new(ordering, parts))
}

fn with_child(plan: &Arc<dyn ExecutionPlan>, child: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Arc::clone(plan).replace_children(vec![child], options)
}
