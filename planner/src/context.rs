//! What all sessions of one access node share.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::execution::memory_pool::TrackConsumersPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, TaskContext};
use meridian_client::cluster::{Cluster, Transactions};
use meridian_fragment::OperatorPool;
use meridian_hyperfunctions::made::set_bytes_max;
use meridian_proto::NodeId;

use crate::error::SqlError;
use crate::exec::heavy::HeavyThreads;
use crate::plan_cache::PlanCache;
use crate::sql::plan::base_state;

/// The most that texts which functions make may take of the memory of statements.
const MADE_BYTES_MAX: usize = 128 << 20;

/// Operators that hold the most, which the error of one that gets no memory names.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(5).unwrap();

/// One per access node.
pub struct GatewayContext {
    pub cluster: Cluster,
    pub transactions: Transactions,
    pub node: NodeId,
    pub runtime: Arc<RuntimeEnv>,
    /// Functions, options and rules that every statement starts from.
    pub(crate) base: SessionState,
    /// What every plan is executed with.
    pub(crate) tasks: Arc<TaskContext>,
    pub(crate) heavy: HeavyThreads,
    pub(crate) plans: Arc<PlanCache>,
    queries: AtomicU64,
}

impl GatewayContext {
    /// `memory_bytes`: what all queries of this gateway may hold together.
    pub fn new(
        cluster: Cluster,
        transactions: Transactions,
        node: NodeId,
        memory_bytes: usize,
    ) -> Result<Arc<Self>, SqlError> {
        let pool = TrackConsumersPool::new(OperatorPool::new(memory_bytes), CONSUMERS_NAMED);
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).build_arc()?;
        set_bytes_max((memory_bytes / 4).min(MADE_BYTES_MAX));
        let base = base_state(Arc::clone(&runtime));
        let tasks = base.task_ctx();
        let heavy = HeavyThreads::start()
            .map_err(|error| SqlError::new("53000", format!("could not start the threads of queries: {error}")))?;
        Ok(Arc::new(Self {
            cluster,
            transactions,
            node,
            runtime,
            base,
            tasks,
            heavy,
            plans: Arc::default(),
            queries: AtomicU64::new(1),
        }))
    }

    /// A number for the next statement, for logs of all nodes.
    pub(crate) fn next_query(&self) -> u64 {
        self.queries.fetch_add(1, Ordering::Relaxed)
    }
}
