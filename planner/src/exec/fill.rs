//! From a plan that is kept to the plan of one statement: values into the holes, its own chunks into the scans, and
//! operators into fragments. What DataFusion worked out about the operators holds for every value, so it is not worked
//! out again; what a run changes in an operator is made anew.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec,
};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ReplaceChildrenOptions};
use meridian_fragment::{FirstRowsExec, is_known_scalar};

use super::filled::{filled, has_hole};
use super::open_scan::{Filling, OpenScanExec};
use super::remote_scan::RemoteScanExec;
use super::rules::after_push_down;
use super::rules::push_down::absorbed;
use crate::sql::functions::hole::number_of;
use crate::sql::functions::is_lasting;

/// The plan of one statement. `None`: its scans have other numbers of partitions than `plan` was made for.
pub(crate) fn fill(plan: &Arc<dyn ExecutionPlan>, filling: &Filling) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    filled_plan(plan, filling)?.map(after_push_down).transpose()
}

fn filled_plan(plan: &Arc<dyn ExecutionPlan>, filling: &Filling) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(scan) = plan.downcast_ref::<OpenScanExec>() {
        return scan.fill(filling);
    }
    let mut children = Vec::with_capacity(plan.children().len());
    for child in plan.children() {
        match filled_plan(child, filling)? {
            Some(child) => children.push(child),
            None => return Ok(None),
        }
    }
    let plan = with_values(plan, &filling.values)?;
    if let [child] = children.as_slice()
        && let Some(scan) = child.downcast_ref::<RemoteScanExec>()
        && let Some(absorbed) = absorbed(&plan, scan, ChildrenPropertiesMode::Keep)?
    {
        return Ok(Some(absorbed));
    }
    over(plan, children).map(Some)
}

/// The operator for one run, over these children.
fn over(plan: Arc<dyn ExecutionPlan>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>()
        && !aggregate.dynamic_expressions_produced().is_empty()
        && let Some(input) = children.pop()
    {
        // It shares what it found out with its copies.
        let fresh = AggregateExec::try_new(
            *aggregate.mode(),
            aggregate.group_expr().clone(),
            aggregate.aggr_expr().to_vec(),
            aggregate.filter_expr().to_vec(),
            input,
            aggregate.input_schema(),
        )?;
        return Ok(Arc::new(fresh.with_limit_options(aggregate.limit_options())));
    }
    // So do these.
    let shares = plan.is::<SortExec>() || plan.is::<HashJoinExec>();
    let plan = plan.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))?;
    if shares { plan.reset_state() } else { Ok(plan) }
}

/// The operator with its own holes filled.
fn with_values(plan: &Arc<dyn ExecutionPlan>, values: &[ScalarValue]) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let predicate = filled(filter.predicate(), values, &filter.input().schema())?;
        if Arc::ptr_eq(&predicate, filter.predicate()) {
            return Ok(Arc::clone(plan));
        }
        return Ok(Arc::new(FilterExecBuilder::from(filter).with_predicate(predicate).build()?));
    }
    if !has_holes(plan)? {
        return Ok(Arc::clone(plan));
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let schema = projection.input().schema();
        let exprs = projection.expr().iter().map(|item| {
            let expr = filled(&item.expr, values, &schema)?;
            Ok(ProjectionExpr { expr, alias: item.alias.clone() })
        });
        let exprs = exprs.collect::<Result<Vec<_>>>()?;
        return Ok(Arc::new(ProjectionExec::try_new(exprs, Arc::clone(projection.input()))?));
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        let filter = join.filter().map(|filter| filled_filter(filter, values)).transpose()?;
        return join.builder().with_filter(filter).build_exec();
    }
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        let filter = join.filter().map(|filter| filled_filter(filter, values)).transpose()?;
        return Ok(Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(filter).build()?));
    }
    internal_err!("holes in {}", plan.name())
}

fn filled_filter(filter: &JoinFilter, values: &[ScalarValue]) -> Result<JoinFilter> {
    let expression = filled(filter.expression(), values, filter.schema())?;
    Ok(JoinFilter::new(expression, filter.column_indices().to_vec(), Arc::clone(filter.schema())))
}

fn has_holes(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(&mut |expr| {
        found |= has_hole(expr)?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Refuses a plan that cannot be kept: with operators whose runs would meet in it, holes where nothing fills them, or
/// functions that are one statement's.
pub(crate) fn check_may_be_kept(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    if plan.is::<OpenScanExec>() {
        return Ok(());
    }
    if !is_known(plan) {
        return plan_err!("{} cannot be kept", plan.name());
    }
    plan.apply_expressions(&mut |expr| expr.apply(check_function))?;
    if has_holes(plan)? && !has_fillable_holes(plan)? {
        return plan_err!("{} cannot be kept with holes", plan.name());
    }
    plan.children().into_iter().try_for_each(check_may_be_kept)
}

fn is_known(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let is_row_by_row = plan.is::<FilterExec>() || plan.is::<ProjectionExec>() || plan.is::<CooperativeExec>();
    let moves = plan.is::<RepartitionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<SortPreservingMergeExec>()
        || plan.is::<UnionExec>()
        || plan.is::<InterleaveExec>();
    let gathers = plan.is::<AggregateExec>()
        || plan.is::<FirstRowsExec>()
        || plan.is::<SortExec>()
        || plan.is::<GlobalLimitExec>()
        || plan.is::<LocalLimitExec>()
        || plan.is::<WindowAggExec>()
        || plan.is::<BoundedWindowAggExec>();
    let joins = plan.is::<HashJoinExec>()
        || plan.is::<NestedLoopJoinExec>()
        || plan.is::<SortMergeJoinExec>()
        || plan.is::<CrossJoinExec>();
    is_row_by_row || moves || gathers || joins || plan.is::<PlaceholderRowExec>() || plan.is::<EmptyExec>()
}

fn has_fillable_holes(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        let mut keys = join.on().iter().flat_map(|(left, right)| [left, right]);
        return keys.try_fold(true, |whole, key| Ok(whole && !has_hole(key)?));
    }
    Ok(plan.is::<FilterExec>() || plan.is::<ProjectionExec>() || plan.is::<NestedLoopJoinExec>())
}

fn check_function(expr: &Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion> {
    if let Some(function) = expr.downcast_ref::<ScalarFunctionExpr>() {
        let function = function.fun();
        if number_of(function).is_none() && !is_known_scalar(function) && !is_lasting(function) {
            return plan_err!("{} cannot be kept", function.name());
        }
    }
    Ok(TreeNodeRecursion::Continue)
}
