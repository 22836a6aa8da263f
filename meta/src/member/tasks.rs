//! What a member does all the time: it tells the cluster of its start, sends the leader heartbeats, and finds members
//! that have moved.

use std::path::PathBuf;
use std::time::Duration;

use meridian_client::cluster::{Channels, MetaClient};
use meridian_proto::command::{Command, Reply};
use meridian_proto::wire::meta_client::MetaClient as WireClient;
use meridian_proto::{ClusterId, NodeId, ProducerId, Refusal, Sequence, wire};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tracing::debug;

use super::{MemberOptions, Shared};
use crate::catalog::{Proposal, REPLICATION_FACTOR_DEFAULT};
use crate::error::MetaError;
use crate::identity::{Identity, Stage};
use crate::leader::{self, Sign};
use crate::log::DiskSpace;
use crate::raft::{Failure, Group};
use crate::service::{Phase, Running};

/// Longest wait for one attempt to tell the cluster of this start.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after an attempt that failed.
const ANNOUNCE_AGAIN: Duration = Duration::from_millis(50);
/// How often peers are asked who they are while there is no leader.
const DISCOVER: Duration = Duration::from_millis(500);
/// A member that heard its leader within it knows where the others are.
const LEADER_SILENCE: Duration = Duration::from_secs(1);

impl Shared {
    pub(super) fn start_tasks(&self, running: &Running, identity: &Identity) {
        let group = running.group.clone();
        let observed = std::sync::Arc::clone(&running.observed);
        let (voters_max, dead_after) = (self.options.voters_max, self.options.dead_after);
        self.keep(tokio::spawn(leader::run(group, observed, voters_max, dead_after)));
        let reporter = Reporter {
            group: running.group.clone(),
            cluster: identity.cluster,
            folder: self.folder.clone(),
            channels: self.options.channels.clone(),
            heartbeat: self.options.heartbeat,
        };
        self.keep(tokio::spawn(reporter.run(std::sync::Arc::clone(&running.observed))));
        let discovery =
            Discovery { group: running.group.clone(), phase: self.phase.subscribe(), options: self.options.clone() };
        self.keep(tokio::spawn(discovery.run()));
    }

    /// Tells the cluster that this process has started, until it has heard it (R3).
    pub(super) async fn announce(&self, group: &Group, identity: &Identity) -> Result<(), MetaError> {
        let start = Command::StartNode {
            start: identity.start(),
            address: self.options.address.clone(),
            sql_address: self.options.sql_address.clone(),
            shards: 0,
        };
        loop {
            let announced = if group.reign().is_some() {
                self.announce_as_leader(group, identity, &start).await
            } else {
                self.announce_to_leader(group, &start).await
            };
            match announced {
                Ok(()) => return Ok(()),
                Err(Refusal::Unavailable(reason)) => debug!(reason, "the cluster has not heard of this start yet"),
                Err(refusal) => return Err(MetaError::Refused(refusal)),
            }
            tokio::time::sleep(ANNOUNCE_AGAIN).await;
        }
    }

    /// Only to a leader that was heard from: at the peers' addresses there may be another cluster, where this node's
    /// id is somebody else's.
    async fn announce_to_leader(&self, group: &Group, start: &Command) -> Result<(), Refusal> {
        let leader = group.leader_address();
        if leader.is_empty() || !group.is_current(LEADER_SILENCE) {
            return Err(Refusal::Unavailable("no leader was heard".to_owned()));
        }
        let meta = MetaClient::new(self.options.channels.clone(), vec![leader]);
        let proposed = meta.propose(start.clone(), Instant::now() + ANNOUNCE_TIMEOUT).await;
        proposed.map(|_| ()).map_err(|refusal| match refusal {
            // A start may be told twice.
            Refusal::OutcomeUnknown(reason) => Refusal::Unavailable(reason),
            refusal => refusal,
        })
    }

    async fn announce_as_leader(&self, group: &Group, identity: &Identity, start: &Command) -> Result<(), Refusal> {
        // A leader may be elected and not have applied what was before.
        let caught_up = async {
            let confirmed = group.confirm().await?;
            group.wait_applied(confirmed.index).await
        };
        // It may be deposed meanwhile: then another one is told.
        let late = |_| Refusal::Unavailable("no quorum in time".to_owned());
        tokio::time::timeout(ANNOUNCE_TIMEOUT, caught_up).await.map_err(late)?.map_err(unavailable)?;
        let is_new = group.read(|state| !state.catalog.gave_node_id(identity.node));
        if let Stage::Founding { replication_factor } = identity.stage
            && is_new
        {
            let setting = Command::SetSetting {
                name: REPLICATION_FACTOR_DEFAULT.to_owned(),
                value: Some(replication_factor.to_string()),
            };
            // One entry: a founder that is known has said all.
            match propose(group, Command::Batch(vec![Command::JoinNode(self.join_command()), setting])).await? {
                Reply::Batch(replies) if replies.first() == Some(&Reply::Node(identity.node)) => {}
                reply => return Err(Refusal::Protocol(format!("the founder's join came to {reply:?}"))),
            }
        }
        propose(group, start.clone()).await.map(|_| ())
    }
}

async fn propose(group: &Group, command: Command) -> Result<Reply, Refusal> {
    let proposal = Proposal { producer: ProducerId(0), sequence: Sequence(0), command };
    match tokio::time::timeout(ANNOUNCE_TIMEOUT, group.propose(&proposal)).await {
        Ok(Ok((answer, _))) => answer.outcome,
        Ok(Err(failure)) => Err(unavailable(failure)),
        Err(_) => Err(Refusal::Unavailable("no quorum in time".to_owned())),
    }
}

fn unavailable(failure: Failure) -> Refusal {
    match failure {
        Failure::NotLeader(leader) => Refusal::Unavailable(format!("the meta leader is at \"{leader}\"")),
        Failure::Unavailable(reason) => Refusal::Unavailable(reason),
    }
}

/// Sends heartbeats to whoever leads.
struct Reporter {
    group: Group,
    cluster: ClusterId,
    /// For the figures of its disk.
    folder: PathBuf,
    channels: Channels,
    heartbeat: Duration,
}

impl Reporter {
    async fn run(self, observed: std::sync::Arc<leader::Observed>) {
        loop {
            if self.group.reign().is_some() {
                observed.note(self.group.node(), self.own_sign());
            } else if let Some(leader) = self.group.leader()
                && leader != self.group.node()
                && let Some(address) = self.group.address_of(leader)
            {
                self.report_to(leader, WireClient::new(self.channels.channel(&address))).await;
            }
            tokio::time::sleep(self.heartbeat).await;
        }
    }

    fn own_sign(&self) -> Sign {
        let space = self.space();
        Sign {
            at: Instant::now(),
            was_heard: true,
            incarnation: self.group.own_start().incarnation,
            catalog_version: self.group.read(|state| state.catalog.version()),
            disk_free_bytes: space.free_bytes,
            disk_used_bytes: space.used_bytes,
        }
    }

    /// Zeros when it is not known.
    fn space(&self) -> DiskSpace {
        DiskSpace::of(&self.folder).unwrap_or_default()
    }

    fn report(&self) -> wire::NodeReport {
        let space = self.space();
        let start = self.group.own_start();
        wire::NodeReport {
            node: start.node.0,
            incarnation: start.incarnation.0,
            mark: start.mark.0,
            cluster_id: self.cluster.to_string(),
            catalog_version: self.group.read(|state| state.catalog.version()).0,
            disk_free_bytes: space.free_bytes,
            disk_used_bytes: space.used_bytes,
            access_nodes: Vec::new(),
        }
    }

    /// Heartbeats to one leader, until it is none any more. A node that is none any more gets no log, but hears it here.
    async fn report_to(&self, leader: NodeId, mut client: WireClient<tonic::transport::Channel>) {
        let (sender, receiver) = mpsc::channel(1);
        // The channel is empty and has room for one.
        let _ = sender.try_send(self.report());
        let call = client.report(ReceiverStream::new(receiver));
        let Ok(Ok(answer)) = tokio::time::timeout(ANNOUNCE_TIMEOUT, call).await else { return };
        let mut orders = answer.into_inner();
        while self.group.leader() == Some(leader) {
            match tokio::time::timeout(ANNOUNCE_TIMEOUT, orders.message()).await {
                Ok(Ok(Some(_))) => {}
                Ok(Err(status)) => return self.group.note_answer(&status),
                Ok(Ok(None)) | Err(_) => return,
            }
            tokio::time::sleep(self.heartbeat).await;
            if sender.send(self.report()).await.is_err() {
                return;
            }
        }
    }
}

/// While no leader is heard, asks who is there: all members may have moved at once, this one may have been removed or
/// started elsewhere, or it was sent to another cluster.
struct Discovery {
    group: Group,
    phase: watch::Receiver<Phase>,
    options: MemberOptions,
}

impl Discovery {
    async fn run(self) {
        loop {
            tokio::time::sleep(DISCOVER).await;
            if self.group.is_current(LEADER_SILENCE) {
                continue;
            }
            let mut addresses = self.addresses();
            let mut asked = 0;
            while let Some(peer) = addresses.get(asked).cloned() {
                asked += 1;
                let mut client = WireClient::new(self.options.channels.channel(&peer));
                let answer = tokio::time::timeout(ANNOUNCE_TIMEOUT, client.status(self.question())).await;
                let Ok(Ok(status)) = answer else { continue };
                let status = status.into_inner();
                if let Err(reason) = self.learn(&peer, &status) {
                    self.group.expel(reason);
                    return;
                }
                // The leader may have come after this node's list of peers was written.
                let leader = status.leader_address;
                if leader != self.options.address && !leader.is_empty() && !addresses.contains(&leader) {
                    addresses.push(leader);
                }
            }
        }
    }

    /// Of everybody who may know: the peers, and the access nodes of the catalog. This one's last address among them, if
    /// it is another one: there may be a process on a copy of its folder.
    fn addresses(&self) -> Vec<String> {
        let mut addresses = self.options.peers.clone();
        let known = self.group.read(|state| {
            let nodes = state.catalog.access_nodes();
            nodes.map(|node| (node.id, node.address.clone())).collect::<Vec<_>>()
        });
        for (node, address) in known {
            addresses.push(self.group.address_of(node).unwrap_or_default());
            addresses.push(address);
        }
        let mut seen = std::collections::HashSet::from([String::new(), self.options.address.clone()]);
        addresses.retain(|address| seen.insert(address.clone()));
        addresses
    }

    fn question(&self) -> wire::StatusRequest {
        let is_announced = matches!(&*self.phase.borrow(), Phase::Running(running) if running.is_announced);
        let stage = if is_announced { wire::StartStage::Announced } else { wire::StartStage::Running };
        wire::StatusRequest {
            cluster_id: self.group.cluster().to_string(),
            start: Some(self.group.own_start().clone().into()),
            stage: stage.into(),
        }
    }

    fn learn(&self, peer: &str, status: &wire::StatusResponse) -> Result<(), String> {
        let own = self.group.cluster().to_string();
        if status.cluster_id.is_empty() {
            return Ok(());
        }
        if status.cluster_id != own && !self.options.peers.iter().any(|configured| configured == peer) {
            // Where members once were there may be anybody by now.
            return Ok(());
        }
        if status.cluster_id != own {
            return Err(format!("this folder is of cluster {own}, but {peer} is of cluster {}", status.cluster_id));
        }
        if !status.objection.is_empty() {
            return Err(status.objection.clone());
        }
        // At another name of its own address it finds itself.
        if status.node != self.group.node().0 {
            self.group.learn_address(NodeId(status.node), peer);
        }
        Ok(())
    }
}
