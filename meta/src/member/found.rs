//! How an empty folder becomes a member: it begins a cluster, or is let into one.

use std::sync::Arc;
use std::time::Duration;

use meridian_proto::catalog::NodeRole;
use meridian_proto::command::JoinNode;
use meridian_proto::wire::meta_client::MetaClient as WireClient;
use meridian_proto::{ClusterId, NodeId, Refusal, WIRE_VERSION, wire};
use tokio::sync::mpsc;
use tracing::{debug, info};

use super::{Bootstrap, Shared};
use crate::error::MetaError;
use crate::identity::{Identity, Stage, random_bytes};
use crate::log::LogStore;
use crate::raft::Group;
use crate::service::InitRequest;

/// Pause between two rounds of asking the peers.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Longest wait for one peer's answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(6);
/// The first node of a cluster.
const FOUNDER: NodeId = NodeId(1);

impl Shared {
    /// Waits until this folder belongs to a member, and starts it.
    pub(super) async fn become_member(
        self: &Arc<Self>,
        init: &mut mpsc::Receiver<InitRequest>,
    ) -> Result<(Identity, Group), MetaError> {
        if let Bootstrap::Init { replication_factor } = self.options.bootstrap {
            return self.found(replication_factor.into()).await;
        }
        // One after the other: a node that is being let in does not begin a cluster.
        loop {
            if let Some(identity) = self.ask_peers().await? {
                self.identity_file.save(&identity)?;
                info!(cluster = %identity.cluster, node = %identity.node, "let into the cluster");
                return self.begin(identity, LogStore::open(&self.folder)?).await;
            }
            let Ok(Some(request)) = tokio::time::timeout(ASK_AGAIN, init.recv()).await else { continue };
            match self.found(request.replication_factor).await {
                Ok((identity, group)) => {
                    // An operator who has gone finds out by asking for the status.
                    let _ = request.answer.send(Ok((identity.cluster, identity.node)));
                    return Ok((identity, group));
                }
                Err(MetaError::Refused(refusal)) => {
                    let _ = request.answer.send(Err(refusal));
                }
                Err(error) => {
                    let _ = request.answer.send(Err(Refusal::Unavailable(error.to_string())));
                    return Err(error);
                }
            }
        }
    }

    /// Begins a cluster with this member alone.
    async fn found(&self, replication_factor: u32) -> Result<(Identity, Group), MetaError> {
        let replication_factor = check_replication_factor(replication_factor).map_err(MetaError::Refused)?;
        let cluster = ClusterId(u128::from_le_bytes(random_bytes()?));
        let stage = Stage::Founding { replication_factor };
        let identity = Identity::new(cluster, FOUNDER, stage);
        self.identity_file.save(&identity)?;
        info!(%cluster, "begins a cluster");
        self.begin(identity, LogStore::open(&self.folder)?).await
    }

    /// Asks each peer once to be let in.
    async fn ask_peers(&self) -> Result<Option<Identity>, MetaError> {
        let mut addresses: Vec<String> =
            self.options.peers.iter().filter(|peer| **peer != self.options.address).cloned().collect();
        let mut asked = 0;
        while let Some(address) = addresses.get(asked).cloned() {
            asked += 1;
            match self.ask(&address).await {
                Ok(response) if response.not_initialized => {}
                Ok(wire::JoinResponse { not_leader: Some(other), .. }) => {
                    if !other.leader.is_empty() && !addresses.contains(&other.leader) {
                        addresses.push(other.leader);
                    }
                }
                Ok(response) => return identity_of(&response).map(Some),
                Err(Refusal::Unavailable(reason)) => debug!(address, reason, "peer cannot let this node in"),
                Err(refusal) => return Err(MetaError::Refused(refusal)),
            }
        }
        Ok(None)
    }

    async fn ask(&self, address: &str) -> Result<wire::JoinResponse, Refusal> {
        let request = wire::JoinRequest {
            node: Some(self.join_command().into()),
            wire_version: WIRE_VERSION,
            cluster_id: String::new(),
            node_id: 0,
            incarnation: 0,
        };
        let mut client = WireClient::new(self.options.channels.channel(address));
        match tokio::time::timeout(ASK_TIMEOUT, client.join(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Refusal::from_status(status)),
            Err(_) => Err(Refusal::Unavailable("no answer in time".to_owned())),
        }
    }

    pub(super) fn join_command(&self) -> JoinNode {
        JoinNode {
            role: NodeRole::Access,
            name: self.options.name.clone(),
            address: self.options.address.clone(),
            sql_address: self.options.sql_address.clone(),
            shards: 0,
        }
    }
}

/// The cluster exists: a second `cluster init` is a mistake, and harmless.
pub(super) fn refuse_second_init(request: InitRequest, group: &Group) {
    let message = format!("the cluster is initialised already, as {}", group.cluster());
    // An operator who has gone needs no answer.
    let _ = request.answer.send(Err(Refusal::catalog("55000", message)));
}

/// 0 is what nobody said.
fn check_replication_factor(asked: u32) -> Result<u16, Refusal> {
    match asked {
        0 | 1 => Ok(1),
        factor => {
            let message = format!("a replication factor of {factor} is not available yet: chunks have one copy");
            Err(Refusal::Catalog {
                sqlstate: "0A000".to_owned(),
                message,
                hint: Some("Create the cluster with a replication factor of 1.".to_owned()),
            })
        }
    }
}

fn identity_of(response: &wire::JoinResponse) -> Result<Identity, MetaError> {
    let cluster = response.cluster_id.parse().map_err(|error| MetaError::Refused(Refusal::from(error)))?;
    if response.node == 0 {
        return Err(MetaError::Refused(Refusal::Protocol("the cluster gave no node id".to_owned())));
    }
    Ok(Identity::new(cluster, NodeId(response.node), Stage::Joining))
}
