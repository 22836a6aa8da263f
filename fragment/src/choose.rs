//! Which leaf serves an aggregate or first rows: one that answers from metadata, one that reads the ends of series, one
//! that skips from series to series, one that adds up groups of series and buckets of time, one that reads rows sorted by
//! the groups, or the plain one. Chosen by the plan alone, so that EXPLAIN shows it; where the data does not fit (fresh rows, segments sorted otherwise), the leaf
//! reads on as the plain one does.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNode;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};

use crate::bound::{Bound, exact_bound_of};
use crate::buckets::over_buckets;
use crate::first_rows::FirstRowsExec;
use crate::metadata::{MetadataAggregateExec, fact_of};
use crate::sorted::over_sorted;
use crate::trace::{Trace, columns_of, source_of, trace, with_leaf};
use crate::want::{Series, Want};

/// How a table's segments are sorted, as far as the gateway knows: positions in the table's schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesOrder {
    pub segment_by: Vec<usize>,
    /// The same of rows that are not compressed yet.
    pub flushed_by: Vec<usize>,
    pub time: Option<usize>,
}

impl SeriesOrder {
    /// Whether all segments are sorted by the column before they are by time.
    pub(crate) fn tells_series(&self, column: usize) -> bool {
        self.segment_by.contains(&column) && self.flushed_by.contains(&column)
    }

    /// Columns that some segments are sorted by before they are by time.
    pub(crate) fn all_series(&self) -> Vec<usize> {
        [self.segment_by.as_slice(), self.flushed_by.as_slice()].concat()
    }
}

/// The operator over a better leaf, when there is one. `plan` is at the top of a fragment.
pub fn choose_leaf(plan: &Arc<dyn ExecutionPlan>, order: &SeriesOrder) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(node) = plan.downcast_ref::<FirstRowsExec>() {
        let Some(trace) = trace_of_rows(node.input()) else { return Ok(None) };
        return match series_of_first_rows(node, &trace, order) {
            Some(series) => over_series(plan, &trace, series).map(Some),
            None => Ok(None),
        };
    }
    let Some(node) = plan.downcast_ref::<AggregateExec>() else { return Ok(None) };
    let Some(trace) = trace_of_rows(node.input()) else { return Ok(None) };
    let group = node.group_expr();
    if group.has_grouping_set() || node.filter_expr().iter().any(Option::is_some) {
        return over_sorted(node, order);
    }
    if *node.mode() == AggregateMode::Partial
        && group.is_empty()
        && let Some((facts, bounds)) = facts_of(node, &trace)
    {
        let leaf = trace.leaf.with_bounds(bounds)?.with_want(Want::Facts(facts))?;
        let partial = with_leaf(plan, leaf)?;
        return Ok(Some(Arc::new(MetadataAggregateExec::try_new(partial)?)));
    }
    if let Some(series) = series_of(node, &trace, order) {
        return over_series(plan, &trace, series).map(Some);
    }
    if let Some(time) = order.time
        && let Some(buckets) = over_buckets(plan, time, |column| order.segment_by.contains(&column))?
    {
        return Ok(Some(buckets));
    }
    over_sorted(node, order)
}

/// Down to a leaf that nobody has chosen yet.
fn trace_of_rows(input: &Arc<dyn ExecutionPlan>) -> Option<Trace<'_>> {
    trace(input).filter(|trace| *trace.leaf.want() == Want::Rows)
}

fn over_series(
    plan: &Arc<dyn ExecutionPlan>,
    trace: &Trace<'_>,
    (series, bounds): (Series, Vec<Bound>),
) -> Result<Arc<dyn ExecutionPlan>> {
    let leaf = trace.leaf.with_bounds(bounds)?.with_want(Want::Series(series))?;
    with_leaf(plan, leaf)
}

/// The questions of all aggregates, and the predicate as bounds.
fn facts_of(node: &AggregateExec, trace: &Trace<'_>) -> Option<(Vec<crate::want::Fact>, Vec<Bound>)> {
    let exact = |(predicate, columns): &(&Arc<dyn PhysicalExpr>, Vec<Option<usize>>)| {
        exact_bound_of(predicate, columns).filter(|bound| trace.leaf.fits(bound))
    };
    let bounds = trace.predicates.iter().map(exact).collect::<Option<Vec<_>>>()?;
    let facts: Vec<_> =
        node.aggr_expr().iter().map(|function| fact_of(function, &trace.columns)).collect::<Option<_>>()?;
    (!facts.is_empty()).then_some((facts, bounds))
}

/// What a function needs to see of each series, beside the key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    AnyRow,
    First,
    Last,
}

/// The rows that decide about the groups, when groups are made of whole series.
fn series_of(node: &AggregateExec, trace: &Trace<'_>, order: &SeriesOrder) -> Option<(Series, Vec<Bound>)> {
    let time = time_of(trace, order)?;
    let keys: Vec<_> = node.group_expr().expr().iter().map(|(expr, _)| expr).collect();
    let group = group_of(keys, trace)?;
    let needs = node.aggr_expr().iter().map(|function| needs_of(function, trace, &group, time));
    let needs: Vec<_> = needs.collect::<Option<_>>()?;
    series_for(group, needs, trace, order, time)
}

/// The same for first rows.
fn series_of_first_rows(node: &FirstRowsExec, trace: &Trace<'_>, order: &SeriesOrder) -> Option<(Series, Vec<Bound>)> {
    let time = time_of(trace, order)?;
    let group = group_of(node.keys(), trace)?;
    let needs = needs_of_first(node.order(), false, trace, &group, time)?;
    series_for(group, vec![(needs, Vec::new())], trace, order, time)
}

fn time_of(trace: &Trace<'_>, order: &SeriesOrder) -> Option<usize> {
    order.time.filter(|time| !trace.leaf.table_schema().field(*time).is_nullable())
}

/// The table's columns that tell groups apart.
fn group_of<'a>(keys: impl IntoIterator<Item = &'a Arc<dyn PhysicalExpr>>, trace: &Trace<'_>) -> Option<Vec<usize>> {
    let columns: Vec<_> = keys.into_iter().map(|expr| columns_of(expr, &trace.columns)).collect::<Option<_>>()?;
    Some(columns.concat())
}

fn series_for(
    group: Vec<usize>,
    needs: Vec<(Needs, Vec<usize>)>,
    trace: &Trace<'_>,
    order: &SeriesOrder,
    time: usize,
) -> Option<(Series, Vec<Bound>)> {
    let mut key = group;
    let (mut first, mut last) = (false, false);
    for needed in needs {
        match needed {
            (Needs::First, _) => first = true,
            (Needs::Last, _) => last = true,
            (Needs::AnyRow, columns) => key.extend(columns),
        }
    }
    let mut bounds = Vec::new();
    for (predicate, columns) in &trace.predicates {
        match exact_bound_of(predicate, columns).filter(|bound| trace.leaf.fits(bound)) {
            Some(bound) => bounds.push(bound),
            // It takes or leaves whole series.
            None => key.extend(columns_of(predicate, columns)?),
        }
    }
    key.sort_unstable();
    key.dedup();
    let is_sorted = key.iter().all(|column| order.segment_by.contains(column));
    // Without series to skip to, any row would be the first one, and nobody asks for that.
    let is_worth_it = !key.is_empty() || first || last;
    (is_sorted && is_worth_it).then_some((Series { key, time, first, last }, bounds))
}

/// What a function needs; with [`Needs::AnyRow`], the columns that must be constant within a series.
fn needs_of(
    function: &AggregateFunctionExpr,
    trace: &Trace<'_>,
    group: &[usize],
    time: usize,
) -> Option<(Needs, Vec<usize>)> {
    if function.is_distinct() || function.ignore_nulls() {
        return None;
    }
    let arguments = function.expressions();
    let is_volatile = |expr: &Arc<dyn PhysicalExpr>| expr.exists(|node| Ok(node.is_volatile_node())).unwrap_or(true);
    if arguments.iter().any(is_volatile) {
        return None;
    }
    let source = |expr: &Arc<dyn PhysicalExpr>| source_of(expr, &trace.columns);
    let ordered = !function.order_bys().is_empty();
    match (function.fun().name(), arguments.as_slice()) {
        ("first", [_, at]) if !ordered && source(at) == Some(time) => Some((Needs::First, vec![])),
        ("last", [_, at]) if !ordered && source(at) == Some(time) => Some((Needs::Last, vec![])),
        ("min", [of]) if source(of) == Some(time) => Some((Needs::First, vec![])),
        ("max", [of]) if source(of) == Some(time) => Some((Needs::Last, vec![])),
        ("min" | "max", [of]) => Some((Needs::AnyRow, columns_of(of, &trace.columns)?)),
        (name @ ("first_value" | "last_value"), [_]) => {
            let needs = needs_of_first(function.order_bys(), name == "last_value", trace, group, time)?;
            Some((needs, vec![]))
        }
        _ => None,
    }
}

/// What the first row in an order needs, or the last one.
fn needs_of_first(
    order: &[PhysicalSortExpr],
    is_last: bool,
    trace: &Trace<'_>,
    group: &[usize],
    time: usize,
) -> Option<Needs> {
    let source = |sort: &PhysicalSortExpr| source_of(&sort.expr, &trace.columns);
    // What a group has only one value of sorts nothing within it.
    let mut deciding = order.iter().filter(|sort| source(sort).is_none_or(|column| !group.contains(&column)));
    let Some(sort) = deciding.next() else { return Some(Needs::AnyRow) };
    if source(sort) != Some(time) {
        return None;
    }
    // All rows of the end's time are read, so that what comes behind in the order still decides among them.
    Some(if sort.options.descending == is_last { Needs::First } else { Needs::Last })
}
