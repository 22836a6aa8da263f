//! Plans that compute for long at the gateway by themselves: joins, windows, which do a partition at a time, and sources
//! that make rows out of nothing.
//!
//! Such work neither waits for anything nor comes back before its next batch, which may never come when a join's filter
//! lets no row through. So it runs on threads of its own, where it holds up no connection; its operators yield at every
//! batch; and join filters look at the statement's stop button at every evaluation, 8192 rows at most.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::error::SqlError;
use crate::outcome::RowStream;

/// Plans that run at the same time; more take turns batch by batch.
const THREADS: usize = 2;
/// As the node's threads have it: plans are walked recursively, and what is not used takes no memory.
const STACK_BYTES: usize = 32 << 20;
/// Batches that wait for the session.
const BATCHES_MAX: usize = 2;

/// The threads of a gateway for heavy plans.
pub(crate) struct HeavyThreads(Option<Runtime>);

impl HeavyThreads {
    pub(crate) fn start() -> std::io::Result<Self> {
        Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("query")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .map(|r| Self(Some(r)))
    }

    fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

impl Drop for HeavyThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Waiting is not allowed where a gateway is dropped, and nobody is left to want the rows.
            runtime.shutdown_background();
        }
    }
}

/// Whether a plan holds an operator that makes many rows out of few, or computes over many rows at once.
pub(crate) fn is_heavy(plan: &dyn ExecutionPlan) -> bool {
    multiplies(plan) || plan.children().into_iter().any(|child| is_heavy(child.as_ref()))
}

fn multiplies(plan: &dyn ExecutionPlan) -> bool {
    let name = plan.name();
    name.ends_with("JoinExec")
        || name.ends_with("WindowAggExec")
        || matches!(name, "UnnestExec" | "RecursiveQueryExec" | "LazyMemoryExec" | "SeriesExec")
}

/// The same plan, in which everything heavy yields at every batch and ends soon after `cancel`.
pub(crate) fn stoppable(plan: Arc<dyn ExecutionPlan>, cancel: &CancellationToken) -> Result<Arc<dyn ExecutionPlan>> {
    if !is_heavy(plan.as_ref()) {
        return Ok(plan);
    }
    let rewritten = plan.transform_up(|node| {
        if !multiplies(node.as_ref()) {
            return Ok(Transformed::no(node));
        }
        let node = with_stop(node, cancel)?;
        Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>))
    });
    rewritten.map(|rewritten| rewritten.data)
}

fn with_stop(node: Arc<dyn ExecutionPlan>, cancel: &CancellationToken) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>()
        && let Some(filter) = join.filter()
    {
        let filter = Some(stopped_by(filter, cancel));
        return Ok(Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(filter).build()?));
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>()
        && let Some(filter) = join.filter()
    {
        return join.builder().with_filter(Some(stopped_by(filter, cancel))).build_exec();
    }
    Ok(node)
}

fn stopped_by(filter: &JoinFilter, cancel: &CancellationToken) -> JoinFilter {
    let expression = Stop { inner: Arc::clone(filter.expression()), cancel: cancel.clone() };
    JoinFilter::new(Arc::new(expression), filter.column_indices().to_vec(), Arc::clone(filter.schema()))
}

/// An expression that fails once its statement is cancelled.
#[derive(Debug)]
struct Stop {
    inner: Arc<dyn PhysicalExpr>,
    cancel: CancellationToken,
}

impl PhysicalExpr for Stop {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.inner.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.inner.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        if self.cancel.is_cancelled() {
            return Err(DataFusionError::Execution("the statement was cancelled".to_owned()));
        }
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let [inner] = <[_; 1]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("a stop has one expression".to_owned()))?;
        Ok(Arc::new(Self { inner, cancel: self.cancel.clone() }))
    }

    fn fmt_sql(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(formatter)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(formatter)
    }
}

// The stop is no part of what is computed.
impl PartialEq for Stop {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Stop {}

impl Hash for Stop {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

/// Runs a plan on the threads for heavy ones. Dropping the stream ends it at its next yield.
pub(crate) fn run(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>, threads: &HeavyThreads) -> RowStream {
    let Some(threads) = threads.handle() else { return Box::pin(futures::stream::empty()) };
    let (sender, receiver) = mpsc::channel(BATCHES_MAX);
    let task = Task(threads.spawn(async move {
        let mut rows = match execute_stream(plan, context) {
            Ok(rows) => rows,
            Err(error) => {
                // Nobody listens once the statement ended.
                let _ = sender.send(Err(error)).await;
                return;
            }
        };
        while let Some(batch) = rows.next().await {
            if sender.send(batch).await.is_err() {
                return;
            }
        }
    }));
    Box::pin(futures::stream::unfold(Some((receiver, task)), |running| async move {
        let (mut receiver, mut task) = running?;
        match receiver.recv().await {
            Some(Ok(batch)) => Some((Ok(batch), Some((receiver, task)))),
            Some(Err(error)) => Some((Err(SqlError::from(error)), None)),
            None => (&mut task.0).await.err().map(|error| (Err(ended(&error)), None)),
        }
    }))
}

/// Aborted when nobody waits for it any more.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn ended(error: &JoinError) -> SqlError {
    // Arrow gives up where a batch's texts have more than 2 GiB: a long value stands in many rows of a join.
    if error.is_panic() && error.to_string().contains("offset overflow") {
        return SqlError::new("54000", "values of a batch of rows are too long together")
            .with_hint("Join fewer rows, or leave the long values out.");
    }
    SqlError::new("XX000", format!("internal error: the query's task ended: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use datafusion::prelude::SessionContext;

    use super::*;

    async fn plan(sql: &str) -> (Arc<dyn ExecutionPlan>, Arc<TaskContext>) {
        let context = SessionContext::new();
        let frame = context.sql(sql).await.unwrap();
        (frame.create_physical_plan().await.unwrap(), context.task_ctx())
    }

    async fn stops(sql: &str) {
        let (plan, context) = plan(sql).await;
        let cancel = CancellationToken::new();
        let plan = stoppable(plan, &cancel).unwrap();
        let threads = HeavyThreads::start().unwrap();
        let mut rows = run(plan, context, &threads);
        let first = tokio::time::timeout(Duration::from_millis(300), rows.next()).await;
        assert!(first.is_err(), "{sql}: too short to be stopped");
        cancel.cancel();
        drop(rows);
        // Whoever comes next finds the threads free.
        let began = Instant::now();
        let next: Vec<_> = (0..THREADS)
            .map(|_| threads.handle().unwrap().spawn(async { std::thread::sleep(Duration::from_millis(10)) }))
            .collect();
        for task in next {
            task.await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{sql}: still runs");
    }

    #[tokio::test]
    async fn a_cross_join_is_stopped() {
        stops("SELECT count(*) FROM generate_series(1, 10000000) a(x), generate_series(1, 10000000) b(y)").await;
    }

    #[tokio::test]
    async fn a_join_that_lets_no_row_through_is_stopped() {
        let series = "generate_series(1, 3000000) a(x) JOIN generate_series(1, 3000000) b(y)";
        stops(&format!("SELECT count(*) FROM {series} ON x * y = -1")).await;
        stops(&format!("SELECT count(*) FROM {series} ON x % 2 = y % 2 AND x + y < 0")).await;
    }

    #[tokio::test]
    async fn rows_come_in_order_and_errors_are_told() {
        let (plan, context) = plan("SELECT x FROM generate_series(1, 20000) a(x) ORDER BY x").await;
        let threads = HeavyThreads::start().unwrap();
        let plan = stoppable(plan, &CancellationToken::new()).unwrap();
        let batches: Vec<_> = run(plan, context, &threads).map(Result::unwrap).collect().await;
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 20_000);
        let (plan, context) = self::plan("SELECT 1 / (x - 5) FROM generate_series(1, 10) a(x)").await;
        let last = run(plan, context, &threads).collect::<Vec<_>>().await.pop().unwrap();
        assert!(last.is_err());
    }
}
