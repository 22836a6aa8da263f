//! From an aggregate down to its leaf: where columns come from, and by which predicates rows are taken.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNode;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, ReplaceChildrenOptions};

use crate::leaf::ChunkScanExec;

/// Operators that neither make up rows nor lose any but by predicates, down to the leaf.
pub(crate) struct Trace<'a> {
    pub leaf: &'a ChunkScanExec,
    /// Where each output column comes from; `None` when it is computed.
    pub columns: Vec<Option<usize>>,
    pub predicates: Vec<Predicate<'a>>,
}

/// With where each of its input's columns comes from.
pub(crate) type Predicate<'a> = (&'a Arc<dyn PhysicalExpr>, Vec<Option<usize>>);

/// `None` where another operator stands between.
pub(crate) fn trace(node: &Arc<dyn ExecutionPlan>) -> Option<Trace<'_>> {
    if let Some(leaf) = node.downcast_ref::<ChunkScanExec>() {
        let columns = leaf.projection().iter().copied().map(Some).collect();
        return Some(Trace { leaf, columns, predicates: Vec::new() });
    }
    if let Some(filter) = node.downcast_ref::<FilterExec>() {
        let mut trace = trace(filter.input())?;
        if filter.fetch().is_some() {
            return None;
        }
        let conjuncts = split_conjunction(filter.predicate());
        trace.predicates.extend(conjuncts.into_iter().map(|predicate| (predicate, trace.columns.clone())));
        if let Some(projection) = filter.projection() {
            trace.columns = projection.iter().map(|column| trace.columns.get(*column).copied().flatten()).collect();
        }
        return Some(trace);
    }
    let projection = node.downcast_ref::<ProjectionExec>()?;
    let mut trace = trace(projection.input())?;
    trace.columns = projection.expr().iter().map(|item| source_of(&item.expr, &trace.columns)).collect();
    Some(trace)
}

pub(crate) fn source_of(expr: &Arc<dyn PhysicalExpr>, columns: &[Option<usize>]) -> Option<usize> {
    columns.get(expr.downcast_ref::<Column>()?.index()).copied().flatten()
}

/// The table's columns that an expression reads, when it reads nothing else and always gives the same for them.
pub(crate) fn columns_of(expr: &Arc<dyn PhysicalExpr>, columns: &[Option<usize>]) -> Option<Vec<usize>> {
    if expr.exists(|node| Ok(node.is_volatile_node())).unwrap_or(true) {
        return None;
    }
    collect_columns(expr).iter().map(|column| columns.get(column.index()).copied().flatten()).collect()
}

/// The same plan over another leaf of the same columns, whose properties are the same, too.
pub(crate) fn with_leaf(node: &Arc<dyn ExecutionPlan>, leaf: ChunkScanExec) -> Result<Arc<dyn ExecutionPlan>> {
    let children = node.children();
    let [child] = children.as_slice() else { return Ok(Arc::new(leaf)) };
    let child = with_leaf(child, leaf)?;
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
    Arc::clone(node).replace_children(vec![child], options)
}

/// The same plan over a leaf whose rows are sorted, which the operators above it are to know.
pub(crate) fn with_sorted_leaf(node: &Arc<dyn ExecutionPlan>, leaf: ChunkScanExec) -> Result<Arc<dyn ExecutionPlan>> {
    let children = node.children();
    let [child] = children.as_slice() else { return Ok(Arc::new(leaf)) };
    let child = with_sorted_leaf(child, leaf)?;
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Arc::clone(node).replace_children(vec![child], options)
}
