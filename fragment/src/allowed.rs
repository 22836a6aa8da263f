//! The operators that a shard runs: those that work on one partition, stream by stream, without tokio and without
//! spilling. Everything else is refused by name, at both ends.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::physical_expr::expressions::{BinaryExpr, CaseExpr};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use crate::buckets::BucketAggregateExec;
use crate::first_rows::{FirstRowsExec, FirstRowsMode};
use crate::functions::{is_known_aggregate, is_known_scalar};
use crate::leaf::ChunkScanExec;
use crate::metadata::MetadataAggregateExec;

/// Messages that an expression may nest within one another on its way to a shard. Whoever decodes them follows 100; each
/// operator of a fragment takes two of the others.
const NESTING_MAX: usize = 70;

/// Whether a shard may run this plan: allowed operators over one [`ChunkScanExec`], with functions that it knows.
pub fn check_allowed(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    let mut node = plan;
    loop {
        check_operator(node.as_ref())?;
        check_functions(node.as_ref())?;
        match node.children().as_slice() {
            [] => return Ok(()),
            [child] => node = child,
            // No allowed operator has two inputs.
            _ => return plan_err!("a fragment cannot hold {}", node.name()),
        }
    }
}

/// Whether an operator right above a leaf, or above operators that were absorbed before, may be run by each partition
/// of that leaf for itself, and what comes out is still what the operator's parent expects.
///
/// An operator that wants all of its input in one partition is pushable when its input has only one.
#[must_use]
pub fn is_pushable(node: &dyn ExecutionPlan) -> bool {
    !node.is::<ChunkScanExec>() && check_operator(node).is_ok() && check_functions(node).is_ok() && {
        let one_partition = node.children().iter().all(|child| child.output_partitioning().partition_count() == 1);
        one_partition || works_per_partition(node)
    }
}

fn works_per_partition(node: &dyn ExecutionPlan) -> bool {
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        return *aggregate.mode() == AggregateMode::Partial;
    }
    if let Some(first) = node.downcast_ref::<FirstRowsExec>() {
        return first.mode() == FirstRowsMode::Part;
    }
    if let Some(sort) = node.downcast_ref::<SortExec>() {
        return sort.preserve_partitioning();
    }
    !node.is::<GlobalLimitExec>()
}

fn check_operator(node: &dyn ExecutionPlan) -> Result<()> {
    let allowed = match node.downcast_ref::<AggregateExec>() {
        Some(aggregate) => {
            use AggregateMode::{Partial, Single, SinglePartitioned};
            matches!(aggregate.mode(), Partial | Single | SinglePartitioned)
        }
        None => {
            node.is::<ChunkScanExec>()
                || node.is::<MetadataAggregateExec>()
                || node.is::<BucketAggregateExec>()
                || node.is::<FirstRowsExec>()
                || node.is::<FilterExec>()
                || node.is::<ProjectionExec>()
                || node.is::<SortExec>()
                || node.is::<LocalLimitExec>()
                || node.is::<GlobalLimitExec>()
        }
    };
    if allowed {
        return Ok(());
    }
    match node.downcast_ref::<AggregateExec>() {
        Some(aggregate) => plan_err!("a fragment cannot hold a {:?} aggregate", aggregate.mode()),
        None => plan_err!("a fragment cannot hold {}", node.name()),
    }
}

/// A function that the shard does not know, or knows otherwise, would be refused there or compute something else.
fn check_functions(node: &dyn ExecutionPlan) -> Result<()> {
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        let unknown = aggregate.aggr_expr().iter().find(|expr| !is_known_aggregate(expr.fun()));
        if let Some(expr) = unknown {
            return unknown_function(expr.fun().name());
        }
    }
    let mut check = |root: &Arc<dyn PhysicalExpr>| {
        check_nesting(root)?;
        root.apply(check_expression)
    };
    node.apply_expressions(&mut check)?;
    Ok(())
}

fn check_nesting(root: &Arc<dyn PhysicalExpr>) -> Result<()> {
    let mut rest = vec![(root, 0)];
    while let Some((expr, nesting)) = rest.pop() {
        if nesting > NESTING_MAX {
            return plan_err!("a fragment cannot hold an expression that nests so deep");
        }
        let chained = chained(expr);
        let inner = nesting + if expr.is::<CaseExpr>() { 3 } else { 2 };
        let nesting_of = |child| if chained.is_some_and(|left| Arc::ptr_eq(left, child)) { nesting } else { inner };
        rest.extend(expr.children().into_iter().map(|child| (child, nesting_of(child))));
    }
    Ok(())
}

/// What lies beside the others in one message: `a AND b` of `a AND b AND c`.
fn chained(expr: &Arc<dyn PhysicalExpr>) -> Option<&Arc<dyn PhysicalExpr>> {
    let binary = expr.downcast_ref::<BinaryExpr>()?;
    let left = binary.left().downcast_ref::<BinaryExpr>()?;
    (left.op() == binary.op()).then(|| binary.left())
}

fn check_expression(expr: &Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion> {
    match expr.downcast_ref::<ScalarFunctionExpr>() {
        Some(function) if !is_known_scalar(function.fun()) => {
            unknown_function(function.fun().name()).map(|()| TreeNodeRecursion::Stop)
        }
        _ => Ok(TreeNodeRecursion::Continue),
    }
}

fn unknown_function(name: &str) -> Result<()> {
    Err(DataFusionError::Plan(format!("a fragment cannot hold the function {name}")))
}
