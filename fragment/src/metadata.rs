//! Aggregates answered by metadata: below it a partial aggregate runs over the rows of which not everything is known, and
//! behind its states this operator puts one more row of states, for the rows that were never read.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err, plan_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, future, stream};

use crate::leaf::{ChunkSource, leaf_of, source_of};
use crate::want::{Fact, Want, is_exact};

#[derive(Debug)]
pub struct MetadataAggregateExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl MetadataAggregateExec {
    /// `input`: a partial aggregate without groups, one column of state each, over a leaf that wants its facts.
    pub fn try_new(input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let is_partial = |aggregate: &&AggregateExec| {
            *aggregate.mode() == AggregateMode::Partial
                && aggregate.group_expr().is_empty()
                && !aggregate.group_expr().has_grouping_set()
        };
        let Some(aggregate) = input.downcast_ref::<AggregateExec>().filter(is_partial) else {
            return plan_err!("metadata answers a partial aggregate without groups, not {}", input.name());
        };
        let Some(Want::Facts(facts)) = leaf_of(&input).map(|leaf| leaf.want()) else {
            return plan_err!("metadata answers over a leaf that wants facts");
        };
        let fit = |(function, fact): (&Arc<AggregateFunctionExpr>, &Fact)| is_kind(function, *fact);
        let aggregates = aggregate.aggr_expr();
        let columns = input.schema().fields().len();
        if aggregates.len() != facts.len() || columns != facts.len() || !aggregates.iter().zip(facts).all(fit) {
            return plan_err!("a leaf wants other facts than the aggregate above it");
        }
        let properties = properties_over(&input);
        Ok(Self { input, properties })
    }
}

/// Of an operator that puts states behind those of its input.
pub(crate) fn properties_over(input: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
    let properties = PlanProperties::new(
        EquivalenceProperties::new(input.schema()),
        Partitioning::UnknownPartitioning(1),
        EmissionType::Final,
        Boundedness::Bounded,
    );
    Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative))
}

fn over(mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    match (children.pop(), children.as_slice()) {
        (Some(child), []) => Ok(Arc::new(MetadataAggregateExec::try_new(child)?)),
        _ => internal_err!("metadata answers one aggregate"),
    }
}

fn is_kind(function: &AggregateFunctionExpr, fact: Fact) -> bool {
    let name = match fact {
        Fact::Rows | Fact::Count(_) => "count",
        Fact::Min(_) => "min",
        Fact::Max(_) => "max",
    };
    function.fun().name() == name
}

/// The question that an aggregate asks; `columns` are the positions in the table's schema of its input's columns.
pub(crate) fn fact_of(function: &AggregateFunctionExpr, columns: &[Option<usize>]) -> Option<Fact> {
    if function.is_distinct() || !function.order_bys().is_empty() {
        return None;
    }
    let arguments = function.expressions();
    let [argument] = arguments.as_slice() else { return None };
    if function.fun().name() == "count" && argument.downcast_ref::<Literal>().is_some_and(|l| !l.value().is_null()) {
        return Some(Fact::Rows);
    }
    let column = *columns.get(argument.downcast_ref::<Column>()?.index())?.as_ref()?;
    let field = function.field();
    let data_type = field.data_type();
    let has_order = is_exact(data_type) || data_type.is_floating() || matches!(data_type, DataType::Decimal128(..));
    match function.fun().name() {
        "count" => Some(Fact::Count(column)),
        "min" if has_order => Some(Fact::Min(column)),
        "max" if has_order => Some(Fact::Max(column)),
        _ => None,
    }
}

/// The facts as one row of states.
fn states(source: &dyn ChunkSource, schema: &SchemaRef) -> Result<Option<RecordBatch>> {
    let Some(facts) = source.facts() else { return Ok(None) };
    if facts.len() != schema.fields().len() {
        return internal_err!("{} facts for {} aggregates", facts.len(), schema.fields().len());
    }
    let columns = facts.iter().map(|fact| fact.to_array_of_size(1)).collect::<Result<Vec<_>>>()?;
    Ok(Some(RecordBatch::try_new(Arc::clone(schema), columns)?))
}

impl DisplayAs for MetadataAggregateExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetadataAggregate")
    }
}

impl ExecutionPlan for MetadataAggregateExec {
    fn name(&self) -> &'static str {
        "MetadataAggregate"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        over(children)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        over(children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let source = source_of(&context)?;
        let schema = self.schema();
        let rest = self.input.execute(partition, context)?;
        // Only when the aggregate has ended has the leaf read everything, and knows what it left out.
        let last = {
            let schema = Arc::clone(&schema);
            stream::once(async move { states(source.as_ref(), &schema) })
                .filter_map(|states| future::ready(states.transpose()))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rest.chain(last))))
    }
}
