//! Where the rows of a shard's leaf can come sorted: by columns that tell series apart, then by time, as segments are
//! sorted. A promise is made only where the values' order is SQL's, bit for bit.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use meridian_proto::SqlType;

use crate::bound::exact_bound_of;
use crate::choose::SeriesOrder;
use crate::trace::{Trace, source_of, trace, with_sorted_leaf};
use crate::want::{SortColumn, Want, is_exact};

/// Nulls last: how SQL sorts when nothing else is said, so that an ORDER BY above finds it done.
const ASCENDING: arrow::compute::SortOptions = arrow::compute::SortOptions { descending: false, nulls_first: false };

/// The same rows sorted so, by a leaf that reads them in that order. `None`: it does not.
pub fn sorted_rows(
    plan: &Arc<dyn ExecutionPlan>,
    sorts: &[PhysicalSortExpr],
    order: &SeriesOrder,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(trace) = trace(plan).filter(|trace| *trace.leaf.want() == Want::Rows) else { return Ok(None) };
    let Some(columns) = leaf_order(&trace, sorts, order) else { return Ok(None) };
    let leaf = trace.leaf.with_want(Want::Sorted(columns))?;
    with_sorted_leaf(plan, leaf).map(Some)
}

/// The same for an aggregate whose groups take more memory the more rows they have. Others are faster over rows as they
/// lie: merging 4000 series of 1000 rows costs half as much again as adding them up in a table of all groups.
pub(crate) fn over_sorted(node: &AggregateExec, order: &SeriesOrder) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let holds_rows = |function: &Arc<AggregateFunctionExpr>| {
        function.is_distinct()
            || matches!(function.fun().name(), "array_agg" | "string_agg" | "median" | "percentile_cont")
    };
    if node.aggr_expr().iter().any(holds_rows) { sorted_groups(node, order) } else { Ok(None) }
}

/// The aggregate over rows that are sorted by its groups, when groups are made of series: it holds one group at a time, and
/// groups come out sorted.
pub fn sorted_groups(node: &AggregateExec, order: &SeriesOrder) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let groups = node.group_expr();
    if groups.is_empty() || groups.has_grouping_set() || node.limit_options().is_some() {
        return Ok(None);
    }
    let sort =
        |(expr, _): &(Arc<dyn PhysicalExpr>, String)| PhysicalSortExpr { expr: Arc::clone(expr), options: ASCENDING };
    let sorts: Vec<_> = groups.expr().iter().map(sort).collect();
    let Some(trace) = trace(node.input()) else { return Ok(None) };
    let is_of_series = |sort: &PhysicalSortExpr| {
        source_of(&sort.expr, &trace.columns).is_some_and(|column| order.tells_series(column))
    };
    if !sorts.iter().all(is_of_series) {
        return Ok(None);
    }
    let Some(input) = sorted_rows(node.input(), &sorts, order)? else { return Ok(None) };
    let sorted = AggregateExec::try_new(
        *node.mode(),
        groups.clone(),
        node.aggr_expr().to_vec(),
        node.filter_expr().to_vec(),
        input,
        node.input_schema(),
    )?;
    Ok(Some(Arc::new(sorted)))
}

/// What the leaf is to sort by; columns that have one value only sort nothing.
fn leaf_order(trace: &Trace<'_>, sorts: &[PhysicalSortExpr], order: &SeriesOrder) -> Option<Vec<SortColumn>> {
    let pinned = pinned(trace);
    let mut columns: Vec<SortColumn> = Vec::new();
    let mut is_by_time = false;
    for sort in sorts {
        let column = source_of(&sort.expr, &trace.columns)?;
        if pinned.contains(&column) || columns.iter().any(|by| by.column == column) {
            continue;
        }
        // Within a time nothing is sorted.
        if is_by_time || !trace.leaf.projection().contains(&column) {
            return None;
        }
        is_by_time = order.time == Some(column) && !trace.leaf.table_schema().field(column).is_nullable();
        let is_promised = is_by_time || order.tells_series(column) && is_sorted_as_sql(trace, column);
        if !is_promised {
            return None;
        }
        columns.push(SortColumn { column, options: sort.options });
    }
    // By time alone a leaf merges what it has of a series; with all series at once it would hold too much.
    let is_of_series = |column: &usize| pinned.contains(column) || columns.iter().any(|by| by.column == *column);
    let is_narrow = order.all_series().is_empty() || order.all_series().iter().any(is_of_series);
    (!columns.is_empty() && is_narrow).then_some(columns)
}

/// Columns that a predicate leaves one value of.
fn pinned(trace: &Trace<'_>) -> Vec<usize> {
    let bounds = trace.predicates.iter().filter_map(|(predicate, columns)| exact_bound_of(predicate, columns));
    bounds.filter(|bound| bound.min.is_some() && bound.min == bound.max).map(|bound| bound.column).collect()
}

/// Whether values are compared the same way by segments and by SQL: not so floats (zeros, NaN), numerics, padded texts.
fn is_sorted_as_sql(trace: &Trace<'_>, column: usize) -> bool {
    let field = trace.leaf.table_schema().field(column);
    is_exact(field.data_type()) && !matches!(SqlType::of_field(field), None | Some(SqlType::Char(_)))
}
