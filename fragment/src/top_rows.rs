//! A sort with a limit knows more and more about what it still wants: its leaf, which reads chunks one after another, asks
//! before each of them.

use std::sync::Arc;

use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, DynamicFilterPhysicalExpr, IsNullExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;

use crate::bound::{Bound, bounds_of};
use crate::trace::{source_of, trace};

/// The first rows by a column that is never NULL.
pub struct TopRows {
    /// By position in the table's schema.
    pub column: usize,
    pub is_descending: bool,
    /// Its place in the sort's input.
    place: usize,
    filter: Arc<dyn PhysicalExpr>,
}

/// What a fragment sorts first by, when it keeps only the first rows of its leaf, perhaps of those that a filter takes.
#[must_use]
pub fn top_rows(fragment: &Arc<dyn ExecutionPlan>) -> Option<TopRows> {
    let mut node = fragment;
    let sort = loop {
        match node.downcast_ref::<SortExec>() {
            Some(sort) => break sort,
            None => match node.children()[..] {
                [child] => node = child,
                _ => return None,
            },
        }
    };
    sort.fetch()?;
    let trace = trace(sort.input())?;
    let first = sort.expr().first();
    let (column, place) = (source_of(&first.expr, &trace.columns)?, first.expr.downcast_ref::<Column>()?.index());
    if trace.leaf.table_schema().field(column).is_nullable() {
        return None;
    }
    let filter = sort.dynamic_expressions_produced().into_iter().next()?;
    Some(TopRows { column, is_descending: first.options.descending, place, filter })
}

impl TopRows {
    /// What rows must keep to be among the first ones, by those that came so far.
    #[must_use]
    pub fn bound(&self) -> Option<Bound> {
        let current = self.filter.downcast_ref::<DynamicFilterPhysicalExpr>()?.current().ok()?;
        let mut positions = vec![usize::MAX; self.place];
        positions.push(self.column);
        bounds_of(&without_null(&current), &positions).into_iter().find(|bound| bound.column == self.column)
    }
}

/// Without `x IS NULL`, as sorts write it where NULL comes first, which never holds.
fn without_null(filter: &Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
    let either = filter.downcast_ref::<BinaryExpr>().filter(|binary| *binary.op() == Operator::Or);
    match either {
        Some(either) if either.left().is::<IsNullExpr>() => without_null(either.right()),
        Some(either) if either.right().is::<IsNullExpr>() => without_null(either.left()),
        Some(either) => {
            let (left, right) = (without_null(either.left()), without_null(either.right()));
            Arc::new(BinaryExpr::new(left, Operator::Or, right))
        }
        None => Arc::clone(filter),
    }
}
