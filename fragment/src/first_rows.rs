//! One row per key, the first one in an order. Rows come out as they went in, so that a shard's part and the whole are the
//! same operator: what is first of all is first among the first ones of every part.

mod kept;
mod sorting;

use std::fmt;
use std::mem;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::row::{RowConverter, SortField};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err, plan_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, EmissionType, SchedulingType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, stream};

use self::kept::{Kept, Leaving};
use self::sorting::{firsts_by_sorting, nothing};

/// Rows that a part holds before it lets them go and starts anew. 128 Ki x 100 bytes = 12.5 MiB.
const PART_ROWS_MAX: usize = 128 << 10;
/// Part of all memory that the whole holds before it goes on sorting, which needs memory, too.
const WHOLE_SHARE: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstRowsMode {
    /// Of one part of the rows; a key may come out more than once.
    Part,
    /// Of all rows, in as many partitions as keys are spread over.
    Whole,
}

/// A key by position, and how its values are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySort {
    pub key: usize,
    pub options: SortOptions,
}

#[derive(Debug)]
pub struct FirstRowsExec {
    input: Arc<dyn ExecutionPlan>,
    mode: FirstRowsMode,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Within a key. Of rows that are equal in it any one is the first.
    order: Vec<PhysicalSortExpr>,
    /// How rows come out; empty: in any order.
    sorted_by: Vec<KeySort>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl FirstRowsExec {
    /// Refuses to have no key, and what cannot be compared or is another thing each time.
    pub fn try_new(
        mode: FirstRowsMode,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        mut order: Vec<PhysicalSortExpr>,
        input: Arc<dyn ExecutionPlan>,
    ) -> Result<Self> {
        // A key has one value of itself.
        order.retain(|sort| !keys.contains(&sort.expr));
        if keys.is_empty() {
            return plan_err!("first rows without a key");
        }
        let schema = input.schema();
        let field = |expr: &Arc<dyn PhysicalExpr>| expr.data_type(&schema).map(SortField::new);
        let compared = keys.iter().chain(order.iter().map(|sort| &sort.expr));
        let is_volatile = |expr: &Arc<dyn PhysicalExpr>| expr.exists(|node| Ok(node.is_volatile_node()));
        for expr in compared {
            if !RowConverter::supports_fields(&[field(expr)?]) || is_volatile(expr)? {
                return plan_err!("first rows by {expr}");
            }
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            input.output_partitioning().clone(),
            EmissionType::Final,
            input.boundedness(),
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        let (properties, metrics) = (Arc::new(properties), ExecutionPlanMetricsSet::new());
        Ok(Self { input, mode, keys, order, sorted_by: Vec::new(), properties, metrics })
    }

    /// The same rows, sorted by their keys.
    pub fn sorted(self, sorted_by: Vec<KeySort>) -> Result<Self> {
        if self.mode == FirstRowsMode::Part && !sorted_by.is_empty() {
            return plan_err!("first rows of a part are not sorted");
        }
        let sort = |sort: &KeySort| match self.keys.get(sort.key) {
            Some(key) => Ok(PhysicalSortExpr { expr: Arc::clone(key), options: sort.options }),
            None => plan_err!("first rows are sorted by key {}, which they do not have", sort.key),
        };
        let ordering: Vec<_> = sorted_by.iter().map(sort).collect::<Result<_>>()?;
        let ordered = EquivalenceProperties::new_with_orderings(self.schema(), [ordering]);
        let properties = Arc::new(self.properties.as_ref().clone().with_eq_properties(ordered));
        Ok(Self { sorted_by, properties, ..self })
    }

    #[must_use]
    pub fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    #[must_use]
    pub fn mode(&self) -> FirstRowsMode {
        self.mode
    }

    #[must_use]
    pub fn keys(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.keys
    }

    #[must_use]
    pub fn sorted_by(&self) -> &[KeySort] {
        &self.sorted_by
    }

    #[must_use]
    pub fn order(&self) -> &[PhysicalSortExpr] {
        &self.order
    }

    /// All keys, those first by which rows are to come out sorted.
    fn key_sorts(&self) -> Vec<PhysicalSortExpr> {
        let wanted = self.sorted_by.iter().map(|sort| (sort.key, sort.options));
        let is_other = |key: &usize| self.sorted_by.iter().all(|sort| sort.key != *key);
        let others = (0..self.keys.len()).filter(is_other).map(|key| (key, SortOptions::default()));
        let sort =
            |(key, options): (usize, SortOptions)| PhysicalSortExpr { expr: Arc::clone(&self.keys[key]), options };
        wanted.chain(others).map(sort).collect()
    }
}

/// One partition while it runs.
struct FirstRows {
    input: SendableRecordBatchStream,
    mode: FirstRowsMode,
    batch_rows: usize,
    kept: Kept,
    leaving: Leaving,
    /// What comes out instead of what is kept, once that was too much.
    sorted: Option<SendableRecordBatchStream>,
    sorted_by: Vec<PhysicalSortExpr>,
    order: Vec<PhysicalSortExpr>,
    context: Arc<TaskContext>,
    has_ended: bool,
    memory: MemoryReservation,
    metrics: BaselineMetrics,
}

impl FirstRows {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(sorted) = &mut self.sorted {
                let batch = sorted.next().await.transpose()?;
                self.metrics.record_output(batch.as_ref().map_or(0, RecordBatch::num_rows));
                return Ok(batch);
            }
            if let Some(batch) = self.leaving.next(self.batch_rows)? {
                self.metrics.record_output(batch.num_rows());
                return Ok(Some(batch));
            }
            if self.has_ended {
                return Ok(None);
            }
            self.read().await?;
        }
    }

    /// Reads until the input has ended or no more is to be held.
    async fn read(&mut self) -> Result<()> {
        while let Some(batch) = self.input.next().await {
            self.kept.add(&batch?)?;
            if !self.is_full()? {
                continue;
            }
            self.leaving = self.kept.take()?;
            return if self.mode == FirstRowsMode::Whole { self.sort_instead() } else { Ok(()) };
        }
        self.has_ended = true;
        self.leaving = self.kept.take()?;
        Ok(())
    }

    fn is_full(&self) -> Result<bool> {
        let bytes = self.kept.size_bytes();
        let grown = self.memory.try_resize(bytes);
        match self.mode {
            FirstRowsMode::Part => Ok(grown.is_err() || self.kept.rows() >= PART_ROWS_MAX),
            FirstRowsMode::Whole if self.may_sort() => Ok(grown.is_err() || bytes > self.whole_bytes_max()),
            FirstRowsMode::Whole => grown.map(|()| false),
        }
    }

    /// Sorting is worth it only where it can leave memory for disk.
    fn may_sort(&self) -> bool {
        self.context.runtime_env().disk_manager.tmp_files_enabled()
    }

    fn whole_bytes_max(&self) -> usize {
        match self.context.memory_pool().memory_limit() {
            MemoryLimit::Finite(bytes) => bytes / WHOLE_SHARE,
            MemoryLimit::Infinite | MemoryLimit::Unknown => usize::MAX,
        }
    }

    /// Sorts what was kept and what is still to come.
    fn sort_instead(&mut self) -> Result<()> {
        let schema = self.input.schema();
        let leaving = (mem::take(&mut self.leaving), self.batch_rows);
        let kept = stream::try_unfold(leaving, |(mut leaving, rows_max)| async move {
            let batch = leaving.next(rows_max)?;
            Ok(batch.map(|batch| (batch, (leaving, rows_max))))
        });
        let rest = mem::replace(&mut self.input, nothing(Arc::clone(&schema)));
        let rows = Box::pin(RecordBatchStreamAdapter::new(schema, kept.chain(rest)));
        self.memory.free();
        let (keys, order) = (mem::take(&mut self.sorted_by), mem::take(&mut self.order));
        self.sorted = Some(firsts_by_sorting(rows, keys, order, &self.context)?);
        Ok(())
    }
}

impl DisplayAs for FirstRowsExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        let order: Vec<String> = self.order.iter().map(ToString::to_string).collect();
        write!(f, "{}: mode={:?}, key=[{}], order=[{}]", self.name(), self.mode, keys.join(", "), order.join(", "))?;
        let sort = |sort: &KeySort| format!("{} {}", self.keys[sort.key], sort.options);
        let sorted: Vec<String> = self.sorted_by.iter().map(sort).collect();
        if sorted.is_empty() { Ok(()) } else { write!(f, ", sorted=[{}]", sorted.join(", ")) }
    }
}

impl ExecutionPlan for FirstRowsExec {
    fn name(&self) -> &'static str {
        "FirstRows"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for expr in self.keys.iter().chain(self.order.iter().map(|sort| &sort.expr)) {
            if visit(expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return internal_err!("first rows of one input");
        };
        let first = Self::try_new(self.mode, self.keys.clone(), self.order.clone(), input)?;
        Ok(Arc::new(first.sorted(self.sorted_by.clone())?))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = FirstRows {
            kept: Kept::try_new(self.schema(), self.keys.clone(), self.order.clone(), self.sorted_by.clone())?,
            mode: self.mode,
            batch_rows: context.session_config().batch_size(),
            leaving: Leaving::default(),
            sorted: None,
            sorted_by: self.key_sorts(),
            order: self.order.clone(),
            context: Arc::clone(&context),
            has_ended: false,
            memory: MemoryConsumer::new(self.name()).register(context.memory_pool()),
            metrics: BaselineMetrics::new(&self.metrics, partition),
            input: self.input.execute(partition, context)?,
        };
        let rows = stream::try_unfold(rows, |mut rows| async move {
            let batch = rows.next().await?;
            Ok(batch.map(|batch| (batch, rows)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
