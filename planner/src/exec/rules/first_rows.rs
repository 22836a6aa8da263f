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
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, Partitioning, ReplaceChildrenOptions};
use meridian_fragment::{FirstRowsExec, FirstRowsMode};

/// The rule comes before the one that moves operators into fragments.
pub(crate) fn first_rows(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|plan| {
        let replaced = plan.downcast_ref::<AggregateExec>().map(replaced).transpose()?.flatten();
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
        Final | FinalPartitioned => first_of_parts(aggregate.input())?.and_then(|(parts, asked)| {
            let whole = asked.first_rows(FirstRowsMode::Whole, parts)?;
            Some((whole, asked))
        }),
        _ => None,
    };
    let Some((whole, asked)) = whole else { return Ok(None) };
    let schema = aggregate.schema();
    let exprs = asked.keys.into_iter().chain(asked.values).zip(schema.fields());
    let exprs = exprs.map(|(expr, field)| ProjectionExpr { expr, alias: field.name().clone() });
    Ok(Some(Arc::new(ProjectionExec::try_new(exprs, whole)?)))
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
    let Some(partitioning) = by_keys(repartition.partitioning(), &asked).filter(|_| !repartition.preserve_order())
    else {
        return Ok(None);
    };
    Ok(Some((Arc::new(RepartitionExec::try_new(parts, partitioning)?), asked)))
}

/// How rows are spread as groups were.
fn by_keys(partitioning: &Partitioning, asked: &Asked) -> Option<Partitioning> {
    let Partitioning::Hash(exprs, partitions) = partitioning else { return None };
    let key = |expr: &Arc<dyn PhysicalExpr>| {
        let column = expr.downcast_ref::<Column>()?;
        asked.keys.get(column.index()).cloned()
    };
    Some(Partitioning::Hash(exprs.iter().map(key).collect::<Option<_>>()?, *partitions))
}
