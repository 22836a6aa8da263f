//! The leaf of a gateway's plan: one partition per (data node, shard), each running the same fragment over its chunks.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use meridian_fragment::leaf_of;
use meridian_proto::catalog::Table;

use super::prune::Targets;
use super::source::{FragmentSource, PlannedFragment, Traffic};

/// Immutable but for what it counts while it runs.
#[derive(Debug)]
pub(crate) struct RemoteScanExec {
    table: Arc<Table>,
    targets: Arc<Targets>,
    fragment: Arc<PlannedFragment>,
    source: Arc<dyn FragmentSource>,
    properties: Arc<PlanProperties>,
    /// Whether another leaf than the plain scan may be chosen.
    leaves: bool,
    /// One per partition.
    traffic: Vec<Arc<Traffic>>,
}

impl RemoteScanExec {
    /// `fragment`: a plan over a chunk scan of one partition. There must be at least one target.
    pub(crate) fn try_new(
        table: Arc<Table>,
        targets: Arc<Targets>,
        fragment: Arc<dyn ExecutionPlan>,
        source: Arc<dyn FragmentSource>,
    ) -> Result<Self> {
        if targets.targets.is_empty() {
            return internal_err!("a remote scan without targets");
        }
        let inner = fragment.properties();
        let properties = PlanProperties::new(
            inner.equivalence_properties().clone(),
            Partitioning::UnknownPartitioning(targets.targets.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        // It awaits the network; no operator has to be put above it to give way.
        .with_scheduling_type(SchedulingType::Cooperative);
        let traffic = targets.targets.iter().map(|_| Arc::default()).collect();
        Ok(Self {
            table,
            targets,
            fragment: Arc::new(PlannedFragment::new(fragment)),
            source,
            properties: Arc::new(properties),
            leaves: false,
            traffic,
        })
    }

    /// The same scan with another fragment over the same leaf.
    pub(crate) fn with_fragment(&self, fragment: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let scan =
            Self::try_new(Arc::clone(&self.table), Arc::clone(&self.targets), fragment, Arc::clone(&self.source))?;
        Ok(scan.with_leaves(self.leaves))
    }

    pub(crate) fn with_leaves(self, leaves: bool) -> Self {
        Self { leaves, ..self }
    }

    pub(crate) fn leaves(&self) -> bool {
        self.leaves
    }

    pub(crate) fn fragment(&self) -> &Arc<dyn ExecutionPlan> {
        self.fragment.plan()
    }

    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    pub(crate) fn targets(&self) -> &Targets {
        &self.targets
    }

    pub(crate) fn traffic(&self) -> &[Arc<Traffic>] {
        &self.traffic
    }
}

impl DisplayAs for RemoteScanExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteScanExec: table={}, partitions={}", self.table.name, self.targets.targets.len())?;
        let mut node: Option<&Arc<dyn ExecutionPlan>> = Some(self.fragment());
        write!(f, ", fragment=[")?;
        let mut first = true;
        while let Some(plan) = node {
            write!(f, "{}{}", if first { "" } else { " <- " }, plan.name())?;
            first = false;
            node = plan.children().first().copied();
        }
        write!(f, "]")
    }
}

impl ExecutionPlan for RemoteScanExec {
    fn name(&self) -> &'static str {
        "RemoteScanExec"
    }

    fn schema(&self) -> SchemaRef {
        self.fragment().schema()
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
        if children.is_empty() { Ok(self) } else { internal_err!("a remote scan has no children") }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("a remote scan has no children") }
    }

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(target) = self.targets.targets.get(partition) else {
            return internal_err!("a remote scan has no partition {partition}");
        };
        let traffic = Arc::clone(&self.traffic[partition]);
        let rows = self.source.open(target.clone(), Arc::clone(&self.fragment), self.schema(), traffic);
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    fn supports_limit_pushdown(&self) -> bool {
        false
    }

    /// Each shard stops after `limit` rows.
    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let limit = limit?;
        let fragment = Arc::new(LocalLimitExec::new(Arc::clone(self.fragment()), limit));
        self.with_fragment(fragment).ok().map(|scan| Arc::new(scan) as Arc<dyn ExecutionPlan>)
    }

    fn fetch(&self) -> Option<usize> {
        self.fragment().downcast_ref::<LocalLimitExec>().map(LocalLimitExec::fetch)
    }
}

/// The columns that the fragment's leaf reads, for EXPLAIN.
pub(crate) fn leaf_columns(scan: &RemoteScanExec) -> Vec<String> {
    let Some(leaf) = leaf_of(scan.fragment()) else { return Vec::new() };
    leaf.projection().iter().map(|column| leaf.table_schema().field(*column).name().clone()).collect()
}
