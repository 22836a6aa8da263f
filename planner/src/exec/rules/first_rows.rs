//! DISTINCT ON in place of the aggregate that it is planned as: where every function takes the first value in one and the
//! same order, each group is one row, and rows go through whole instead of a state per column.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning, ReplaceChildrenOptions};
use meridian_fragment::{FirstRowsExec, FirstRowsMode, KeySort};

/// The rule comes before the one that moves operators into fragments.
pub(crate) fn first_rows(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|plan| {
        let replaced = match plan.downcast_ref::<AggregateExec>() {
            Some(aggregate) => replaced(aggregate)?,
            None => sorted(&plan)?,
        };
        Ok(replaced.map_or_else(|| Transformed::no(plan), Transformed::yes))
    })
    .data()
}

/// What an aggregate says when it takes one row of each group.
struct Asked {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    order: Vec<PhysicalSortExpr>,
    /// What is taken of the row.
    values: Vec<Arc<dyn PhysicalExpr>>,
}

impl Asked {
    fn first_rows(&self, mode: FirstRowsMode, input: Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
        let first = FirstRowsExec::try_new(mode, self.keys.clone(), self.order.clone(), input);
        first.ok().map(|first| Arc::new(first) as _)
    }
}

fn replaced(aggregate: &AggregateExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    use AggregateMode::{Final, FinalPartitioned, Single, SinglePartitioned};
    let whole = match aggregate.mode() {
        Single | SinglePartitioned => asked_of(aggregate).and_then(|asked| {
            let whole = asked.first_rows(FirstRowsMode::Whole, Arc::clone(aggregate.input()))?;
            Some((whole, asked))
        }),
        // In one partition: several, each with as many keys as memory holds and more, would leave one another none.
        Final | FinalPartitioned => first_of_parts(aggregate.input())?.and_then(|(parts, asked)| {
            let whole = asked.first_rows(FirstRowsMode::Whole, in_one_partition(&parts))?;
            Some((whole, asked))
        }),
        _ => None,
    };
    let Some((whole, asked)) = whole else { return Ok(None) };
    let schema = aggregate.schema();
    let exprs = asked.keys.into_iter().chain(asked.values).zip(schema.fields());
    let exprs = exprs.map(|(expr, field)| ProjectionExpr { expr, alias: field.name().clone() });
    let rows = Arc::new(ProjectionExec::try_new(exprs, whole)?);
    spread_as_before(rows, aggregate.input()).map(Some)
}

/// The rows in as many partitions as their groups were, which whoever reads them may count on.
fn spread_as_before(rows: Arc<dyn ExecutionPlan>, groups: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    // Groups begin with their keys, and so do rows.
    match groups.downcast_ref::<RepartitionExec>().map(RepartitionExec::partitioning) {
        Some(keys @ Partitioning::Hash(_, 2..)) => Ok(Arc::new(RepartitionExec::try_new(rows, keys.clone())?)),
        _ => Ok(rows),
    }
}

fn asked_of(aggregate: &AggregateExec) -> Option<Asked> {
    let group = aggregate.group_expr();
    let is_plain = !group.has_grouping_set()
        && aggregate.filter_expr().iter().all(Option::is_none)
        && aggregate.limit_options().is_none();
    let order = aggregate.aggr_expr().first()?.order_bys();
    let value = |function: &Arc<AggregateFunctionExpr>| {
        let is_first = function.fun().name() == "first_value"
            && function.order_bys() == order
            && !function.is_distinct()
            && !function.ignore_nulls()
            && !function.is_reversed();
        match function.expressions().as_slice() {
            [value] if is_first && !is_volatile(value) => Some(Arc::clone(value)),
            _ => None,
        }
    };
    let values = aggregate.aggr_expr().iter().map(value).collect::<Option<_>>()?;
    is_plain.then(|| Asked { keys: group.input_exprs(), order: order.to_vec(), values })
}

fn is_volatile(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.exists(|node| Ok(node.is_volatile_node())).unwrap_or(true)
}

/// The first half of an aggregate, below what brings its parts together, as first rows.
fn first_of_parts(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<(Arc<dyn ExecutionPlan>, Asked)>> {
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let asked = asked_of(aggregate).filter(|_| *aggregate.mode() == AggregateMode::Partial);
        return Ok(asked.and_then(|asked| {
            let part = asked.first_rows(FirstRowsMode::Part, Arc::clone(aggregate.input()))?;
            Some((part, asked))
        }));
    }
    let repartition = plan.downcast_ref::<RepartitionExec>();
    if !plan.is::<CoalescePartitionsExec>() && !plan.is::<CooperativeExec>() && repartition.is_none() {
        return Ok(None);
    }
    let ([input], None) = (&plan.children()[..], plan.fetch()) else { return Ok(None) };
    let Some((parts, asked)) = first_of_parts(input)? else { return Ok(None) };
    let Some(repartition) = repartition else {
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        return Ok(Some((Arc::clone(plan).replace_children(vec![parts], options)?, asked)));
    };
    let is_by_keys = matches!(repartition.partitioning(), Partitioning::Hash(..)) && !repartition.preserve_order();
    Ok(is_by_keys.then_some((parts, asked)))
}

/// First rows that are sorted by their keys, all in one partition, come out sorted themselves.
fn sorted(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let (sort, fetch) = match plan.downcast_ref::<SortPreservingMergeExec>() {
        Some(merge) => (merge.input().downcast_ref::<SortExec>(), merge.fetch()),
        None => (plan.downcast_ref::<SortExec>(), None),
    };
    let Some(sort) = sort else { return Ok(None) };
    if plan.output_partitioning().partition_count() > 1 {
        return Ok(None);
    }
    let Some(sorted) = sorted_below(sort.input(), sort.expr())? else { return Ok(None) };
    let fetch = fetch.or(sort.fetch());
    Ok(Some(match fetch {
        Some(_) => Arc::new(GlobalLimitExec::new(sorted, 0, fetch)),
        None => sorted,
    }))
}

fn sorted_below(plan: &Arc<dyn ExecutionPlan>, sorts: &[PhysicalSortExpr]) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let below = |sort: &PhysicalSortExpr| {
            let column = sort.expr.downcast_ref::<Column>()?;
            let expr = Arc::clone(&projection.expr().get(column.index())?.expr);
            Some(PhysicalSortExpr { expr, options: sort.options })
        };
        let Some(sorts) = sorts.iter().map(below).collect::<Option<Vec<_>>>() else { return Ok(None) };
        let Some(sorted) = sorted_below(projection.input(), &sorts)? else { return Ok(None) };
        return Ok(Some(Arc::new(ProjectionExec::try_new(projection.expr().to_vec(), sorted)?)));
    }
    // What is spread need not be when all of it comes out in one order.
    if let Some(repartition) = plan.downcast_ref::<RepartitionExec>() {
        return sorted_below(repartition.input(), sorts);
    }
    let first = plan.downcast_ref::<FirstRowsExec>().filter(|first| first.mode() == FirstRowsMode::Whole);
    let Some(first) = first else { return Ok(None) };
    let key = |sort: &PhysicalSortExpr| {
        let key = first.keys().iter().position(|key| key.eq(&sort.expr))?;
        Some(KeySort { key, options: sort.options })
    };
    let Some(sorted_by) = sorts.iter().map(key).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let (keys, order) = (first.keys().to_vec(), first.order().to_vec());
    let whole = FirstRowsExec::try_new(FirstRowsMode::Whole, keys, order, in_one_partition(first.input()))?;
    Ok(Some(Arc::new(whole.sorted(sorted_by)?)))
}

fn in_one_partition(parts: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    if parts.output_partitioning().partition_count() > 1 {
        return Arc::new(CoalescePartitionsExec::new(Arc::clone(parts)));
    }
    match parts.downcast_ref::<FirstRowsExec>() {
        // The only part is all there is.
        Some(part) => Arc::clone(part.input()),
        None => Arc::clone(parts),
    }
}
