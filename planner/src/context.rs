//! What all sessions of one access node share.

use std::sync::Arc;

use datafusion::execution::runtime_env::RuntimeEnv;
use meridian_client::cluster::Cluster;
use meridian_client::cluster::transaction::Transactions;
use meridian_proto::NodeId;

use crate::error::SqlError;

pub struct GatewayContext {
    pub cluster: Cluster,
    pub transactions: Transactions,
    pub node: NodeId,
    pub runtime: Arc<RuntimeEnv>,
}

impl GatewayContext {
    /// `memory_bytes`: what all queries of this gateway may hold together.
    pub fn new(
        cluster: Cluster,
        transactions: Transactions,
        node: NodeId,
        memory_bytes: usize,
    ) -> Result<Arc<Self>, SqlError> {
        let _ = memory_bytes;
        Ok(Arc::new(Self { cluster, transactions, node, runtime: Arc::new(RuntimeEnv::default()) }))
    }
}
