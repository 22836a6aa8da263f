//! The leaf of a fragment: the rows of the chunks that a request names, as one partition; all of them, or those that the
//! plan above needs, without an order or in one.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, exec_err, internal_err, plan_err};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::filter_pushdown::{ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use datafusion::prelude::SessionConfig;
use datafusion::scalar::ScalarValue;
use meridian_proto::{SchemaVersion, TableId};

use crate::bound::{Bound, bounds_of, intersect};
use crate::want::{Series, SortColumn, Want};

/// Reads chunks of one table. Only a description: its rows come from the [`ChunkSource`] of the [`TaskContext`].
#[derive(Debug)]
pub struct ChunkScanExec {
    table: TableId,
    schema_version: SchemaVersion,
    table_schema: SchemaRef,
    projection: Vec<usize>,
    bounds: Vec<Bound>,
    want: Want,
    properties: Arc<PlanProperties>,
}

/// What a shard gives a leaf to read from.
pub trait ChunkSource: Send + Sync {
    /// Rows of the request's chunks: the columns at the leaf's projection of the table's schema, in that order. Rows
    /// outside of its bounds may be left out, and those that it does not want.
    fn open(&self, leaf: &ChunkScanExec) -> Result<SendableRecordBatchStream>;

    /// One answer per fact that the leaf wants, for the rows that the stream left out because their answers are known.
    /// Asked once the stream has ended; `None`: it left out none.
    fn facts(&self) -> Option<Vec<ScalarValue>> {
        None
    }

    /// The groups of the rows that the stream left out because they were added up. Asked once the stream has ended.
    fn groups(&self) -> Result<Option<BucketStates>> {
        Ok(None)
    }
}

/// Groups that a leaf has added up, one row each.
pub struct BucketStates {
    /// One array per key column, as the columns are.
    pub keys: Vec<ArrayRef>,
    /// Starts of buckets, as the time column's numbers.
    pub buckets: ArrayRef,
    pub measures: Vec<ArrayRef>,
}

/// The extension under which a source travels in a session config, which wants a sized type.
struct Source(Arc<dyn ChunkSource>);

/// Where the leaf of a plan that runs in this context gets its rows.
pub(crate) fn source_of(context: &TaskContext) -> Result<Arc<dyn ChunkSource>> {
    match context.session_config().get_extension::<Source>() {
        Some(source) => Ok(Arc::clone(&source.0)),
        None => exec_err!("a chunk scan runs on a data node only"),
    }
}

/// Rows after which a partial aggregate that found hardly any two in one group goes on without looking for more. With long
/// texts as keys DataFusion's 100,000 were 200 MB, for nothing.
const PARTIAL_ROWS_MIN: usize = 20_000;

/// The context that a decoded fragment is executed with.
#[must_use]
pub fn task_context(source: Arc<dyn ChunkSource>, runtime: Arc<RuntimeEnv>, batch_rows: usize) -> Arc<TaskContext> {
    static CONFIG: LazyLock<SessionConfig> = LazyLock::new(|| {
        let mut config = SessionConfig::new().with_target_partitions(1);
        config.options_mut().execution.skip_partial_aggregation_probe_rows_threshold = PARTIAL_ROWS_MIN;
        config
    });
    let mut config = CONFIG.clone().with_extension(Arc::new(Source(source)));
    // Options are shared until one of them is set.
    if config.batch_size() != batch_rows {
        config = config.with_batch_size(batch_rows);
    }
    // What was decoded holds its functions; nothing is found by its name any more.
    Arc::new(TaskContext::new(
        None,
        "fragment".to_owned(),
        config,
        HashMap::new(),
        HashMap::new(),
        HashMap::new(),
        HashMap::new(),
        runtime,
    ))
}

/// The leaf of a fragment that was checked: every allowed operator has one input.
#[must_use]
pub fn leaf_of(plan: &Arc<dyn ExecutionPlan>) -> Option<&ChunkScanExec> {
    let mut node = plan;
    loop {
        if let Some(leaf) = node.downcast_ref::<ChunkScanExec>() {
            return Some(leaf);
        }
        match node.children().as_slice() {
            [child] => node = child,
            _ => return None,
        }
    }
}

impl ChunkScanExec {
    /// Refuses positions outside the table's schema and bounds of another type than their column.
    pub fn try_new(
        table: TableId,
        schema_version: SchemaVersion,
        table_schema: SchemaRef,
        projection: Vec<usize>,
        bounds: Vec<Bound>,
    ) -> Result<Self> {
        validate_bounds(&table_schema, &bounds)?;
        if let Some(column) = projection.iter().find(|column| **column >= table_schema.fields().len()) {
            return plan_err!("chunk scan of table {table} projects column {column}, which the table does not have");
        }
        let schema = Arc::new(table_schema.project(&projection)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        // The shard yields per batch. Said here, or the optimizer wraps the leaf in an operator that needs tokio.
        .with_scheduling_type(SchedulingType::Cooperative);
        let properties = Arc::new(properties);
        Ok(Self { table, schema_version, table_schema, projection, bounds, want: Want::Rows, properties })
    }

    #[must_use]
    pub fn table(&self) -> TableId {
        self.table
    }

    #[must_use]
    pub fn schema_version(&self) -> SchemaVersion {
        self.schema_version
    }

    #[must_use]
    pub fn table_schema(&self) -> &SchemaRef {
        &self.table_schema
    }

    /// Positions in the table's schema, in output order.
    #[must_use]
    pub fn projection(&self) -> &[usize] {
        &self.projection
    }

    #[must_use]
    pub fn bounds(&self) -> &[Bound] {
        &self.bounds
    }

    #[must_use]
    pub fn want(&self) -> &Want {
        &self.want
    }

    /// The same leaf for what its plan needs.
    pub fn with_want(&self, want: Want) -> Result<Self> {
        want.validate(&self.table_schema)?;
        let properties = match &want {
            Want::Sorted(order) => Arc::new(self.sorted_properties(order)?),
            _ => Arc::clone(&self.properties),
        };
        Ok(Self { want, properties, ..self.bounded(Vec::new()) })
    }

    /// Refuses an order that the output does not show: nobody could rely on it.
    fn sorted_properties(&self, order: &[SortColumn]) -> Result<PlanProperties> {
        let schema = self.schema();
        let sort = |by: &SortColumn| {
            let Some(place) = self.projection.iter().position(|column| *column == by.column) else {
                return plan_err!("a leaf is sorted by column {}, which it does not read", by.column);
            };
            let expr = Arc::new(Column::new(schema.field(place).name(), place)) as Arc<dyn PhysicalExpr>;
            Ok(PhysicalSortExpr { expr, options: by.options })
        };
        let ordering = order.iter().map(sort).collect::<Result<Vec<_>>>()?;
        let ordered = EquivalenceProperties::new_with_orderings(Arc::clone(&schema), [ordering]);
        Ok(self.properties.as_ref().clone().with_eq_properties(ordered))
    }

    /// The same leaf, pruned by `bounds` as well.
    pub fn with_bounds(&self, bounds: Vec<Bound>) -> Result<Self> {
        validate_bounds(&self.table_schema, &bounds)?;
        Ok(self.bounded(bounds))
    }

    fn bounded(&self, bounds: Vec<Bound>) -> Self {
        Self {
            table: self.table,
            schema_version: self.schema_version,
            table_schema: Arc::clone(&self.table_schema),
            projection: self.projection.clone(),
            bounds: intersect(&self.bounds, bounds),
            want: self.want.clone(),
            properties: Arc::clone(&self.properties),
        }
    }

    fn write_names(&self, columns: &[usize], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, column) in columns.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { ", " }, self.table_schema.field(*column).name())?;
        }
        Ok(())
    }

    fn order_text(&self, order: &[SortColumn]) -> String {
        let by = |by: &SortColumn| format!("{} {}", self.table_schema.field(by.column).name(), by.options);
        order.iter().map(by).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn fits(&self, bound: &Bound) -> bool {
        validate_bounds(&self.table_schema, std::slice::from_ref(bound)).is_ok()
    }
}

fn validate_bounds(table_schema: &SchemaRef, bounds: &[Bound]) -> Result<()> {
    for bound in bounds {
        let Some(field) = table_schema.fields().get(bound.column) else {
            return plan_err!("a chunk scan bounds column {}, which the table does not have", bound.column);
        };
        for end in [&bound.min, &bound.max].into_iter().flatten() {
            if end.data_type() != *field.data_type() || end.is_null() {
                return plan_err!("a chunk scan bounds column {} by a value of another type", field.name());
            }
        }
    }
    Ok(())
}

impl DisplayAs for ChunkScanExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if format == DisplayFormatType::TreeRender { "\n" } else { ", " };
        if format != DisplayFormatType::TreeRender {
            write!(f, "{}: ", self.name())?;
        }
        write!(f, "table={}{separator}columns=[", self.table)?;
        self.write_names(&self.projection, f)?;
        write!(f, "]")?;
        if let Want::Series(series) = &self.want {
            write!(f, "{separator}key=[")?;
            self.write_names(&series.key, f)?;
            write!(f, "]")?;
        }
        if let Want::Sorted(order) = &self.want {
            write!(f, "{separator}order=[{}]", self.order_text(order))?;
        }
        if self.bounds.is_empty() {
            return Ok(());
        }
        write!(f, "{separator}bounds=[")?;
        for (index, bound) in self.bounds.iter().enumerate() {
            write!(f, "{}", if index == 0 { "" } else { ", " })?;
            bound.write(self.table_schema.field(bound.column).name(), f)?;
        }
        write!(f, "]")
    }
}

impl ExecutionPlan for ChunkScanExec {
    fn name(&self) -> &'static str {
        match &self.want {
            Want::Rows | Want::Facts(_) => "ChunkScan",
            Want::Sorted(_) => "MergeScan",
            Want::Buckets(_) => "BucketScan",
            Want::Series(Series { first: false, last: false, .. }) => "SkipScan",
            Want::Series(Series { first: false, last: true, .. }) => "LastPointScan",
            Want::Series(Series { first: true, last: false, .. }) => "FirstPointScan",
            Want::Series(Series { first: true, last: true, .. }) => "SeriesEndsScan",
        }
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
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
        if children.is_empty() { Ok(self) } else { internal_err!("a chunk scan has no children") }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("a chunk scan has no children") }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a chunk scan has one partition, not {partition}");
        }
        source_of(&context)?.open(self)
    }

    /// Takes bounds out of the filters above it and leaves the filters where they are.
    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let filters = result.parent_filters.iter().flat_map(|parent| bounds_of(&parent.filter, &self.projection));
        let bounds: Vec<_> = filters.filter(|bound| self.fits(bound)).collect();
        let propagation = FilterPushdownPropagation::all_unsupported(result);
        // Filters of the later phase change while the query runs; what they say at planning time bounds nothing.
        if bounds.is_empty() || phase != FilterPushdownPhase::Pre {
            return Ok(propagation);
        }
        Ok(propagation.with_updated_node(Arc::new(self.bounded(bounds)) as Arc<dyn ExecutionPlan>))
    }
}
