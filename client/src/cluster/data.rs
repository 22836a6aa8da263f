//! The data path's calls: to a chunk's primary, with what a failed call leaves open.

use std::error::Error;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use meridian_proto::catalog::{Chunk, NodeState};
use meridian_proto::wire::SealState;
use meridian_proto::wire::data_node_client::DataNodeClient;
use meridian_proto::{NodeId, Refusal, WIRE_VERSION, wire};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{ConnectError, Response, Status, Streaming};

use super::Cluster;
use super::channel::MESSAGE_BYTES_MAX;
use super::local::LocalDataNode;
use super::view::CatalogView;

/// How long a node that counts as dead, and whose connections stand, is waited for.
const DEAD_GRACE: Duration = Duration::from_secs(2);

/// A call that failed. `sent` says that the request may have been applied all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendError {
    pub refusal: Refusal,
    pub sent: bool,
}

impl SendError {
    fn unsent(refusal: Refusal) -> Self {
        Self { refusal, sent: false }
    }

    pub(super) fn of_status(status: Status) -> Self {
        // A refusal with details is the node's own word: it did nothing, or says itself that it does not know.
        let answered = !status.details().is_empty();
        let sent = !answered && !never_connected(&status);
        Self { refusal: Refusal::from_status(status), sent }
    }
}

impl Cluster {
    pub async fn write(
        &self,
        node: NodeId,
        request: wire::WriteRequest,
        deadline: Instant,
    ) -> Result<wire::WriteResponse, SendError> {
        if let Some(local) = self.local(node) {
            return self.in_time_here(node, deadline, local.write(request)).await;
        }
        let mut client = self.data_node(node).map_err(SendError::unsent)?;
        self.in_time(node, deadline, client.write(request)).await
    }

    pub async fn decide(
        &self,
        node: NodeId,
        request: wire::DecideRequest,
        deadline: Instant,
    ) -> Result<wire::DecideResponse, SendError> {
        let mut client = self.data_node(node).map_err(SendError::unsent)?;
        self.in_time(node, deadline, client.decide(request)).await
    }

    pub async fn resolve(
        &self,
        node: NodeId,
        request: wire::ResolveRequest,
        deadline: Instant,
    ) -> Result<wire::ResolveResponse, SendError> {
        let mut client = self.data_node(node).map_err(SendError::unsent)?;
        self.in_time(node, deadline, client.resolve(request)).await
    }

    pub async fn outcome(
        &self,
        node: NodeId,
        request: wire::OutcomeRequest,
        deadline: Instant,
    ) -> Result<wire::OutcomeResponse, SendError> {
        let mut client = self.data_node(node).map_err(SendError::unsent)?;
        self.in_time(node, deadline, client.outcome(request)).await
    }

    /// Has the chunk's primary seal it, at the route of this view, if it holds no row.
    pub async fn seal(&self, view: &CatalogView, chunk: &Chunk, deadline: Instant) -> Result<SealState, SendError> {
        let mut client = self.data_node(chunk.primary).map_err(SendError::unsent)?;
        let request = wire::SealRequest {
            wire_version: WIRE_VERSION,
            catalog_version: view.version().0,
            chunk: Some(wire::ChunkRef { chunk: chunk.id.0, epoch: chunk.epoch.0 }),
        };
        self.in_time(chunk.primary, deadline, client.seal(request)).await.map(|response| response.state())
    }

    pub(super) async fn start_scan(
        &self,
        node: NodeId,
        request: wire::ScanRequest,
    ) -> Result<Streaming<wire::ScanResponse>, Refusal> {
        let mut client = self.data_node(node)?;
        self.unless_down(node, client.scan(request)).await.map(Response::into_inner)
    }

    /// What comes next of a fragment that runs at `node`.
    pub(super) async fn next_of_scan(
        &self,
        node: NodeId,
        rows: &mut Streaming<wire::ScanResponse>,
    ) -> Result<Option<wire::ScanResponse>, Refusal> {
        self.unless_down(node, rows.message()).await
    }

    pub async fn data_node_status(
        &self,
        node: NodeId,
        deadline: Instant,
    ) -> Result<wire::DataNodeStatusResponse, SendError> {
        let mut client = self.data_node(node).map_err(SendError::unsent)?;
        self.in_time(node, deadline, client.data_node_status(wire::DataNodeStatusRequest {})).await
    }

    /// Rewrites a chunk; the answer may take as long as its rows are many.
    pub async fn maintain(
        &self,
        node: NodeId,
        request: wire::MaintainRequest,
        deadline: Instant,
    ) -> Result<wire::MaintainResponse, SendError> {
        let mut client = self.data_node(node).map_err(SendError::unsent)?;
        self.in_time(node, deadline, client.maintain(request)).await
    }

    pub async fn chunk_sizes(
        &self,
        node: NodeId,
        request: wire::ChunkSizesRequest,
        deadline: Instant,
    ) -> Result<wire::ChunkSizesResponse, SendError> {
        let mut client = self.data_node(node).map_err(SendError::unsent)?;
        self.in_time(node, deadline, client.chunk_sizes(request)).await
    }

    /// The node, if it lives in this process.
    pub(super) fn local(&self, node: NodeId) -> Option<Arc<dyn LocalDataNode>> {
        self.channels.data_node(&self.catalog.current().node(node)?.address)
    }

    fn data_node(&self, node: NodeId) -> Result<DataNodeClient<Channel>, Refusal> {
        let view = self.catalog.current();
        let node = view.node(node).ok_or_else(|| Refusal::Unavailable(format!("node {node} is not in the catalog")))?;
        Ok(DataNodeClient::new(self.channels.channel(&node.address))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    async fn in_time<T>(
        &self,
        node: NodeId,
        deadline: Instant,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, SendError> {
        let answered = tokio::select! {
            answered = tokio::time::timeout_at(deadline, call) => answered,
            refusal = self.down(node) => return Err(SendError { refusal, sent: true }),
        };
        match answered {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.error_of(node, status)),
            Err(_) => Err(SendError { refusal: self.late(node), sent: true }),
        }
    }

    /// As [`Self::in_time`], of a node in this process, whose every refusal is its own word.
    async fn in_time_here<T>(
        &self,
        node: NodeId,
        deadline: Instant,
        call: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, SendError> {
        match tokio::time::timeout_at(deadline, call).await {
            Ok(answered) => answered.map_err(SendError::unsent),
            Err(_) => Err(SendError { refusal: self.late(node), sent: true }),
        }
    }

    fn late(&self, node: NodeId) -> Refusal {
        Refusal::Unavailable(format!("{} gave no answer in time", self.tell(node)))
    }

    async fn unless_down<T>(&self, node: NodeId, call: impl Future<Output = Result<T, Status>>) -> Result<T, Refusal> {
        tokio::select! {
            answered = call => answered.map_err(|status| self.error_of(node, status).refusal),
            refusal = self.down(node) => Err(refusal),
        }
    }

    /// Returns when the node has counted as dead for a while. A node that is only late with its heartbeats is waited for.
    async fn down(&self, node: NodeId) -> Refusal {
        let mut views = self.catalog.subscribe();
        loop {
            let has_died = views.wait_for(|view| is_dead(view, node)).await.is_ok();
            let lives_again = async { views.wait_for(|view| !is_dead(view, node)).await.is_ok() };
            match tokio::time::timeout(DEAD_GRACE, lives_again).await {
                Ok(true) if has_died => {}
                // The catalog is no longer followed: nobody is told dead any more.
                Ok(_) => return std::future::pending().await,
                Err(_) => return Refusal::NodeDown(format!("{} is down: it does not answer", self.tell(node))),
            }
        }
    }

    /// What a connection says of its failure does not name whom it led to.
    fn error_of(&self, node: NodeId, status: Status) -> SendError {
        let answered = !status.details().is_empty();
        let error = SendError::of_status(status);
        let refusal = match error.refusal {
            Refusal::Unavailable(reason) if !answered && is_dead(&self.catalog.current(), node) => {
                Refusal::NodeDown(format!("{} is down: {reason}", self.tell(node)))
            }
            Refusal::Unavailable(reason) if !answered => {
                Refusal::Unavailable(format!("{} cannot be reached: {reason}", self.tell(node)))
            }
            refusal => refusal,
        };
        SendError { refusal, ..error }
    }

    fn tell(&self, node: NodeId) -> String {
        match self.catalog.current().node(node) {
            Some(known) => format!("data node {} at {}", known.name, known.address),
            None => format!("data node {node}"),
        }
    }
}

fn is_dead(view: &CatalogView, node: NodeId) -> bool {
    view.node(node).is_some_and(|node| node.state == NodeState::Dead)
}

/// Whether there was no connection over which anything could be sent.
fn never_connected(status: &Status) -> bool {
    let mut source: Option<&(dyn Error + 'static)> = Some(status);
    while let Some(error) = source {
        let is_refused = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
        if error.is::<ConnectError>() || error.downcast_ref::<io::Error>().is_some_and(is_refused) {
            return true;
        }
        source = error.source();
    }
    false
}
