//! Chooses the leaf of a fragment when an aggregate or first rows move into it: metadata for whole pieces, the ends of series, one row
//! per series, groups of series and buckets of time, rows sorted by groups. `meridian.enable_leaves` turns it off.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode;
use datafusion::physical_plan::{ExecutionPlan, ReplaceChildrenOptions};
use meridian_fragment::{BucketAggregateExec, FirstRowsExec, MetadataAggregateExec, SeriesOrder, check_allowed};
use meridian_proto::catalog::Table;

use crate::exec::remote_scan::RemoteScanExec;

/// `plan`, an operator over the scan that may be pushed into it, as a plan with a better leaf; `None`: there is none.
/// `mode`: whether its properties are to be worked out anew.
pub(super) fn choose_leaf(
    plan: &Arc<dyn ExecutionPlan>,
    scan: &RemoteScanExec,
    mode: ChildrenPropertiesMode,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let aggregate = plan.downcast_ref::<AggregateExec>();
    if !scan.leaves() || (aggregate.is_none() && !plan.is::<FirstRowsExec>()) {
        return Ok(None);
    }
    let order = order_of(scan.table());
    if let Some(aggregate) = aggregate
        && let Some(partial) = partial_of(aggregate, scan)?
        && let Some(fragment) = meridian_fragment::choose_leaf(&partial, &order)?
        && (fragment.is::<MetadataAggregateExec>() || fragment.is::<BucketAggregateExec>())
        && check_allowed(&fragment).is_ok()
    {
        // They speak in states: someone has to finish them.
        let remote: Arc<dyn ExecutionPlan> = Arc::new(scan.with_fragment(fragment)?);
        let last = AggregateExec::try_new(
            AggregateMode::Final,
            aggregate.group_expr().as_final(),
            aggregate.aggr_expr().to_vec(),
            aggregate.filter_expr().to_vec(),
            remote,
            aggregate.input_schema(),
        )?;
        return Ok(Some(Arc::new(last)));
    }
    let options = ReplaceChildrenOptions::new(mode);
    let fragment = Arc::clone(plan).replace_children(vec![Arc::clone(scan.fragment())], options)?;
    match meridian_fragment::choose_leaf(&fragment, &order)? {
        Some(fragment) if check_allowed(&fragment).is_ok() => Ok(Some(Arc::new(scan.with_fragment(fragment)?))),
        _ => Ok(None),
    }
}

/// The first half of an aggregate that does all of its work in one place, over the scan's fragment.
fn partial_of(aggregate: &AggregateExec, scan: &RemoteScanExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let is_whole = matches!(aggregate.mode(), AggregateMode::Single | AggregateMode::SinglePartitioned);
    if !is_whole || aggregate.group_expr().has_grouping_set() {
        return Ok(None);
    }
    let partial = AggregateExec::try_new(
        AggregateMode::Partial,
        aggregate.group_expr().clone(),
        aggregate.aggr_expr().to_vec(),
        aggregate.filter_expr().to_vec(),
        Arc::clone(scan.fragment()),
        aggregate.input_schema(),
    )?;
    Ok(Some(Arc::new(partial)))
}

/// How the table's segments are sorted: by what they are compressed by, if that was said, else by space key, then time.
/// Those that are not yet sorted so are read row by row.
pub(super) fn order_of(table: &Table) -> SeriesOrder {
    let position = |column| table.schema.position_of(column);
    table.hypertable().map_or_else(SeriesOrder::default, |hypertable| {
        let compressed = hypertable.compression.as_ref().map_or(&[][..], |compression| &compression.segment_by);
        let space: Vec<_> = hypertable.space.iter().map(|dimension| dimension.column).collect();
        let segment_by = if compressed.is_empty() { &space[..] } else { compressed };
        SeriesOrder {
            segment_by: segment_by.iter().copied().filter_map(position).collect(),
            flushed_by: space.iter().copied().filter_map(position).collect(),
            time: position(hypertable.time_column),
        }
    })
}
