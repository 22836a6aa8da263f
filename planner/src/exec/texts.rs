//! Plans that hold texts, whose size nothing bounds: they have smaller batches, and those that hold long ones take turns.
//!
//! What an operator makes up before it hands it on, and what a merge of spilled runs holds of each run, is counted in
//! batches, whatever a row weighs: 8192 rows with texts of 2 KB are 16 MiB, at ten places of one plan. And the less memory
//! each of many statements has, the shorter are the runs that it spills and the more often they are merged: forty at once
//! fill a disk where forty in turn need none.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::physical_plan::ExecutionPlan;
use meridian_proto::ColumnId;
use meridian_proto::catalog::{Table, TableKind};

use super::remote_scan::RemoteScanExec;

/// Of plans that hold texts.
pub(crate) const TEXT_BATCH_ROWS: usize = 1024;
/// Memory of statements for which one of them may hold long texts at a time.
pub(crate) const TURN_BYTES: usize = 32 << 20;

/// Rows that a sort with a limit may keep for little.
const SHORT_ROWS_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Texts {
    /// No operator of the plan holds rows with texts, or puts such rows together anew.
    None,
    /// Few or known ones: names of series, and the first rows of a sort.
    Short,
    Long,
}

/// What the operators of this plan hold.
pub(crate) fn texts_of(plan: &dyn ExecutionPlan) -> Texts {
    let children = plan.children();
    let is_text = |child: &&Arc<dyn ExecutionPlan>| has_texts(&child.schema());
    let below = children.iter().map(|child| texts_of(child.as_ref())).max().unwrap_or(Texts::None);
    match holds(plan) {
        Texts::None => below,
        _ if !children.iter().any(is_text) && !has_texts(&plan.schema()) => below,
        Texts::Long if children.iter().any(|child| reads_long_texts(child.as_ref())) => Texts::Long,
        _ => below.max(Texts::Short),
    }
}

/// What an operator holds if its rows have texts.
fn holds(plan: &dyn ExecutionPlan) -> Texts {
    let name = plan.name();
    match name {
        "SortExec" if plan.fetch().is_some_and(|rows| rows <= SHORT_ROWS_MAX) => Texts::Short,
        "RepartitionExec" | "SortPreservingMergeExec" => Texts::Short,
        "AggregateExec" | "SortExec" => Texts::Long,
        _ if name.ends_with("JoinExec") || name.ends_with("WindowAggExec") => Texts::Long,
        _ => Texts::None,
    }
}

fn has_texts(schema: &Schema) -> bool {
    schema.fields().iter().any(|field| is_text(field.data_type()))
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_text(value),
        DataType::Boolean | DataType::FixedSizeBinary(_) => false,
        other => !other.is_primitive(),
    }
}

/// Whether a hypertable's texts come up to here, other than those that tell its series apart.
fn reads_long_texts(plan: &dyn ExecutionPlan) -> bool {
    match plan.downcast_ref::<RemoteScanExec>() {
        Some(scan) => {
            let schema = scan.schema();
            let texts = schema.fields().iter().filter(|field| is_text(field.data_type()));
            texts.into_iter().any(|field| !names_series(scan.table(), field.name()))
        }
        None => plan.children().into_iter().any(|child| reads_long_texts(child.as_ref())),
    }
}

/// Reference tables are small.
fn names_series(table: &Table, column: &str) -> bool {
    let TableKind::Hypertable(hypertable) = &table.kind else { return true };
    let is_named = |id: &ColumnId| table.schema.column(*id).is_some_and(|known| known.name == column);
    let of_space = hypertable.space.iter().map(|dimension| &dimension.column);
    let of_segments = hypertable.compression.iter().flat_map(|compression| &compression.segment_by);
    of_space.chain(of_segments).any(is_named)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::physical_expr::PhysicalExpr;
    use datafusion::physical_expr::expressions::col;
    use datafusion::physical_plan::Partitioning;
    use datafusion::physical_plan::empty::EmptyExec;
    use datafusion::physical_plan::limit::GlobalLimitExec;
    use datafusion::physical_plan::repartition::RepartitionExec;

    use super::*;

    #[test]
    fn operators_that_hold_rows_with_texts_are_found_wherever_they_are() {
        let texts = |data_type: DataType| {
            let schema = Arc::new(Schema::new(vec![Field::new("a", data_type, true)]));
            let key: Arc<dyn PhysicalExpr> = col("a", &schema).unwrap();
            let rows: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(schema));
            assert_eq!(texts_of(rows.as_ref()), Texts::None);
            let spread = RepartitionExec::try_new(rows, Partitioning::Hash(vec![key], 2)).unwrap();
            texts_of(&GlobalLimitExec::new(Arc::new(spread), 0, Some(1)))
        };
        for data_type in [DataType::Utf8, DataType::Binary, DataType::new_list(DataType::Float64, true)] {
            assert_eq!(texts(data_type), Texts::Short);
        }
        for data_type in [DataType::Float64, DataType::Boolean, DataType::FixedSizeBinary(16)] {
            assert_eq!(texts(data_type), Texts::None);
        }
    }
}
