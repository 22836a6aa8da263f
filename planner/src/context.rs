//! What all sessions of one access node share.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::TrackConsumersPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, TaskContext};
use meridian_client::cluster::{Cluster, Transactions};
use meridian_fragment::OperatorPool;
use meridian_hyperfunctions::made::set_bytes_max;
use meridian_proto::NodeId;
use tokio::sync::Semaphore;

use crate::error::SqlError;
use crate::exec::heavy::HeavyThreads;
use crate::exec::texts::{TEXT_BATCH_ROWS, TURN_BYTES, Texts};
use crate::plan_cache::PlanCache;
use crate::sql::plan::base_state;

/// The most that texts which functions make may take of the memory of statements.
const MADE_BYTES_MAX: usize = 128 << 20;

/// What an operator that can spill gets whatever others hold: some batches of 1024 rows of 2 KB, of which a merge of spilled
/// runs has two each.
const OPERATOR_BYTES_MIN: usize = 8 << 20;

/// Operators that hold the most, which the error of one that gets no memory names.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(5).unwrap();

/// What all statements of a gateway may take together.
#[derive(Clone, Debug)]
pub struct StatementResources {
    pub memory_bytes: usize,
    /// Folder for what does not fit into memory, empty at the start.
    pub temporary_files: PathBuf,
    pub temporary_bytes_max: u64,
}

/// One per access node.
pub struct GatewayContext {
    pub cluster: Cluster,
    pub transactions: Transactions,
    pub node: NodeId,
    pub runtime: Arc<RuntimeEnv>,
    /// Functions, options and rules that every statement starts from.
    pub(crate) base: SessionState,
    /// What plans are executed with.
    tasks: Arc<TaskContext>,
    /// For plans that hold texts.
    text_tasks: Arc<TaskContext>,
    /// Of statements that hold long texts.
    pub(crate) turns: Arc<Semaphore>,
    pub(crate) heavy: HeavyThreads,
    pub(crate) plans: Arc<PlanCache>,
    queries: AtomicU64,
}

impl GatewayContext {
    pub fn new(
        cluster: Cluster,
        transactions: Transactions,
        node: NodeId,
        resources: &StatementResources,
    ) -> Result<Arc<Self>, SqlError> {
        let memory_bytes = resources.memory_bytes;
        let pool = TrackConsumersPool::new(OperatorPool::new(memory_bytes, OPERATOR_BYTES_MIN), CONSUMERS_NAMED);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(
                DiskManagerBuilder::default()
                    .with_mode(DiskManagerMode::Directories(vec![resources.temporary_files.clone()]))
                    .with_max_temp_directory_size(resources.temporary_bytes_max),
            )
            .build_arc()?;
        set_bytes_max((memory_bytes / 4).min(MADE_BYTES_MAX));
        let base = base_state(Arc::clone(&runtime));
        let tasks = base.task_ctx();
        let small = tasks.session_config().clone().with_batch_size(TEXT_BATCH_ROWS);
        let text_tasks = Arc::new(TaskContext::from(&base).with_session_config(small));
        let heavy = HeavyThreads::start()
            .map_err(|error| SqlError::new("53000", format!("could not start the threads of queries: {error}")))?;
        Ok(Arc::new(Self {
            cluster,
            transactions,
            node,
            runtime,
            base,
            tasks,
            text_tasks,
            turns: Arc::new(Semaphore::new((memory_bytes / TURN_BYTES).clamp(2, Semaphore::MAX_PERMITS))),
            heavy,
            plans: Arc::default(),
            queries: AtomicU64::new(1),
        }))
    }

    /// What a plan is executed with that holds such texts.
    pub(crate) fn tasks_for(&self, texts: Texts) -> Arc<TaskContext> {
        Arc::clone(if texts == Texts::None { &self.tasks } else { &self.text_tasks })
    }

    /// A number for the next statement, for logs of all nodes.
    pub(crate) fn next_query(&self) -> u64 {
        self.queries.fetch_add(1, Ordering::Relaxed)
    }
}
