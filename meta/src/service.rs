//! The meta group's gRPC service: each handler decodes, calls and encodes.

mod watch_stream;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use meridian_client::cluster::LocalMember;
use meridian_proto::catalog::{NodeRole, NodeState};
use meridian_proto::command::{Command, JoinNode, Reply};
use meridian_proto::start::{HeardStart, Start};
use meridian_proto::wire::meta_server::Meta;
use meridian_proto::{
    CatalogVersion, ClusterId, Incarnation, NodeId, ProducerId, Refusal, Sequence, StartMark, Ts, WIRE_VERSION, wire,
};
use prost::Message;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::catalog::Proposal;
use crate::leader::{Observed, Sign};
use crate::log::COMMAND_BYTES_MAX;
use crate::oracle::Timestamps;
use crate::raft::{Failure, Group};

/// Longest wait for a quorum to take a proposal; the proposer then asks again, under the same identity.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an access node to be out of the group; its caller then asks again.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers to heartbeats that a node has not taken yet.
const ORDERS_WAITING_MAX: usize = 4;

/// Where this member stands in its life.
#[derive(Clone)]
pub enum Phase {
    /// For `cluster init`, or for a cluster that lets it in.
    Waiting,
    Running(Running),
    /// It cannot go on; why.
    Failed(String),
}

/// A member of an initialised cluster.
#[derive(Clone)]
pub struct Running {
    pub group: Group,
    pub timestamps: Timestamps,
    pub observed: Arc<Observed>,
    /// The cluster knows of this start of the process.
    pub is_announced: bool,
}

/// Makes the cluster here; answered with its name and this node's.
pub struct InitRequest {
    pub replication_factor: u32,
    pub answer: oneshot::Sender<Result<(ClusterId, NodeId), Refusal>>,
}

/// The service of one member. Cheap to clone.
#[derive(Clone)]
pub struct MetaService {
    pub phase: watch::Receiver<Phase>,
    pub init: mpsc::Sender<InitRequest>,
}

type Answered<T> = Result<Response<T>, Status>;
type BoxedStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl MetaService {
    fn running(&self) -> Option<Running> {
        match &*self.phase.borrow() {
            Phase::Running(running) => Some(running.clone()),
            Phase::Waiting | Phase::Failed(_) => None,
        }
    }

    fn expect_running(&self) -> Result<Running, Refusal> {
        self.running().ok_or_else(|| Refusal::Unavailable("this access node is not in a cluster yet".to_owned()))
    }
}

#[tonic::async_trait]
impl LocalMember for MetaService {
    async fn timestamp(&self) -> Option<(Ts, CatalogVersion)> {
        let stamp = self.running()?.timestamps.next().await.ok()?;
        Some((stamp.timestamp, stamp.version))
    }
}

#[tonic::async_trait]
impl Meta for MetaService {
    type WatchStream = BoxedStream<wire::CatalogDelta>;
    type ReportStream = BoxedStream<wire::NodeOrder>;

    async fn raft(&self, request: Request<wire::RaftRequest>) -> Answered<wire::RaftResponse> {
        let running = self.expect_running()?;
        Ok(Response::new(running.group.handle(request.into_inner()).await?))
    }

    async fn propose(&self, request: Request<wire::ProposeRequest>) -> Answered<wire::ProposeResponse> {
        let Some(running) = self.running() else { return Ok(Response::new(propose_elsewhere(String::new()))) };
        let proposal = decode_proposal(request.into_inner())?;
        Ok(Response::new(running.propose(&proposal).await?))
    }

    async fn timestamp(&self, _: Request<wire::TimestampRequest>) -> Answered<wire::TimestampResponse> {
        let elsewhere = |leader| wire::TimestampResponse {
            not_leader: Some(wire::NotLeader { leader }),
            ..wire::TimestampResponse::default()
        };
        let Some(running) = self.running() else { return Ok(Response::new(elsewhere(String::new()))) };
        match running.timestamps.next().await {
            Ok(stamp) => Ok(Response::new(wire::TimestampResponse {
                timestamp: stamp.timestamp.0,
                version: stamp.version.0,
                not_leader: None,
            })),
            Err(Failure::NotLeader(leader)) => Ok(Response::new(elsewhere(leader))),
            Err(Failure::Unavailable(reason)) => Err(Refusal::Unavailable(reason).into()),
        }
    }

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Answered<Self::WatchStream> {
        let running = self.expect_running()?;
        let after = CatalogVersion(request.into_inner().after);
        let stream = watch_stream::start(running.group, self.phase.clone(), after);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn report(&self, request: Request<Streaming<wire::NodeReport>>) -> Answered<Self::ReportStream> {
        let running = self.expect_running()?;
        let (sender, receiver) = mpsc::channel(ORDERS_WAITING_MAX);
        tokio::spawn(running.follow_reports(request.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn init_cluster(&self, request: Request<wire::InitClusterRequest>) -> Answered<wire::InitClusterResponse> {
        let (answer, answered) = oneshot::channel();
        let request = InitRequest { replication_factor: request.into_inner().replication_factor, answer };
        let stopping = || Refusal::Unavailable("this access node stops".to_owned());
        self.init.send(request).await.map_err(|_| stopping())?;
        let (cluster, node) = answered.await.map_err(|_| stopping())??;
        Ok(Response::new(wire::InitClusterResponse { cluster_id: cluster.to_string(), node: node.0 }))
    }

    async fn join(&self, request: Request<wire::JoinRequest>) -> Answered<wire::JoinResponse> {
        let request = request.into_inner();
        if request.wire_version != WIRE_VERSION {
            let message = format!("wire version {WIRE_VERSION} is spoken here, not {}", request.wire_version);
            return Err(Refusal::Protocol(message).into());
        }
        let Some(running) = self.running() else {
            return Ok(Response::new(wire::JoinResponse { not_initialized: true, ..Default::default() }));
        };
        Ok(Response::new(running.join(request).await?))
    }

    async fn leave(&self, request: Request<wire::LeaveRequest>) -> Answered<wire::LeaveResponse> {
        let running = self.expect_running()?;
        let not_leader = running.leave(NodeId(request.into_inner().node)).await?;
        Ok(Response::new(wire::LeaveResponse { not_leader: not_leader.map(|leader| wire::NotLeader { leader }) }))
    }

    async fn status(&self, request: Request<wire::StatusRequest>) -> Answered<wire::StatusResponse> {
        let status = match self.running() {
            Some(running) => running.status(request.into_inner()),
            None => wire::StatusResponse { state: "waiting".to_owned(), ..Default::default() },
        };
        Ok(Response::new(status))
    }
}

fn propose_elsewhere(leader: String) -> wire::ProposeResponse {
    let outcome = wire::propose_response::Outcome::NotLeader(wire::NotLeader { leader });
    wire::ProposeResponse { outcome: Some(outcome), version: 0 }
}

fn decode_proposal(request: wire::ProposeRequest) -> Result<Proposal, Refusal> {
    if request.encoded_len() > COMMAND_BYTES_MAX {
        return Err(Refusal::Protocol(format!("a command of {} bytes is too long", request.encoded_len())));
    }
    let command = request.command.ok_or_else(|| Refusal::Protocol("a proposal without command".to_owned()))?;
    let command = Command::try_from(command)?;
    if matches!(command, Command::ExtendOracle { .. }) {
        return Err(Refusal::Protocol("only the leader extends the oracle".to_owned()));
    }
    Ok(Proposal { producer: ProducerId(request.producer), sequence: Sequence(request.sequence), command })
}

impl Running {
    async fn propose(&self, proposal: &Proposal) -> Result<wire::ProposeResponse, Refusal> {
        use wire::propose_response::Outcome;
        self.check_space(&proposal.command)?;
        let proposed = tokio::time::timeout(PROPOSE_TIMEOUT, self.group.propose(proposal)).await;
        match proposed {
            Ok(Ok((answer, _))) => {
                let outcome = match answer.outcome {
                    Ok(reply) => Outcome::Reply(reply.into()),
                    Err(refusal) => Outcome::Refusal(refusal.into()),
                };
                Ok(wire::ProposeResponse { outcome: Some(outcome), version: answer.version.0 })
            }
            Ok(Err(Failure::NotLeader(leader))) => Ok(propose_elsewhere(leader)),
            // R25: the log may hold it. The proposer asks again, under the same identity.
            Ok(Err(Failure::Unavailable(reason))) => Err(Refusal::OutcomeUnknown(reason)),
            Err(_) => Err(Refusal::OutcomeUnknown("no quorum took the proposal in time".to_owned())),
        }
    }

    /// On a full disk the log takes what keeps the cluster going, and what frees space.
    fn check_space(&self, command: &Command) -> Result<(), Refusal> {
        if !takes_space(command) || self.group.reign().is_none() {
            return Ok(());
        }
        // An entry that is longer than the reserve would make the group wait for space.
        let bytes = wire::Command::from(command.clone()).encoded_len();
        if !self.group.is_short_of_space_for(bytes) {
            return Ok(());
        }
        let address = self.group.own_address();
        Err(Refusal::DiskFull(format!("the disk of the meta leader at {address} is full")))
    }

    /// Proposes a command of this service; the address of the leader when that is another member.
    async fn command(&self, command: Command) -> Result<Result<Reply, String>, Refusal> {
        self.check_space(&command)?;
        let proposal = Proposal { producer: ProducerId(0), sequence: Sequence(0), command };
        match tokio::time::timeout(PROPOSE_TIMEOUT, self.group.propose(&proposal)).await {
            Ok(Ok((answer, _))) => answer.outcome.map(Ok),
            Ok(Err(Failure::NotLeader(leader))) => Ok(Err(leader)),
            Ok(Err(Failure::Unavailable(reason))) => Err(Refusal::Unavailable(reason)),
            Err(_) => Err(Refusal::Unavailable("no quorum took the proposal in time".to_owned())),
        }
    }

    async fn join(&self, request: wire::JoinRequest) -> Result<wire::JoinResponse, Refusal> {
        let elsewhere = |leader| wire::JoinResponse {
            not_leader: Some(wire::NotLeader { leader }),
            ..wire::JoinResponse::default()
        };
        if let Some(leader) = self.catch_up().await? {
            return Ok(elsewhere(leader));
        }
        let cluster = self.group.cluster().to_string();
        if !request.cluster_id.is_empty() && request.cluster_id != cluster {
            let message = format!("the node is of cluster {}, this is cluster {cluster}", request.cluster_id);
            return Err(Refusal::catalog("55000", message));
        }
        let join = request.node.ok_or_else(|| Refusal::Protocol("a join without node".to_owned()))?;
        let join = JoinNode::try_from(join)?;
        let node = if request.node_id == 0 {
            match self.command(Command::JoinNode(join)).await? {
                Ok(Reply::Node(node)) => node,
                Ok(reply) => return Err(Refusal::Protocol(format!("a join came to {reply:?}"))),
                Err(leader) => return Ok(elsewhere(leader)),
            }
        } else {
            self.check_returning(NodeId(request.node_id), &join, Incarnation(request.incarnation))?
        };
        let access_nodes =
            self.group.read(|state| state.catalog.access_nodes().map(|node| node.address.clone()).collect());
        Ok(wire::JoinResponse { cluster_id: cluster, node: node.0, access_nodes, ..Default::default() })
    }

    /// Confirms that this member leads and has applied all that was committed: a leader that has just taken office after
    /// a restart may know less of the catalog than it has promised. The leader's address when that is another member.
    async fn catch_up(&self) -> Result<Option<String>, Refusal> {
        let confirmed = async {
            let confirmed = self.group.confirm().await?;
            self.group.wait_applied(confirmed.index).await
        };
        match tokio::time::timeout(PROPOSE_TIMEOUT, confirmed).await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(Failure::NotLeader(leader))) => Ok(Some(leader)),
            Ok(Err(Failure::Unavailable(reason))) => Err(Refusal::Unavailable(reason)),
            Err(_) => Err(Refusal::Unavailable("no quorum confirmed the leader in time".to_owned())),
        }
    }

    /// A node that was a member comes back as itself or not at all. Asked before it counts its start: a folder that does
    /// not belong to it stays as it is.
    fn check_returning(&self, id: NodeId, join: &JoinNode, incarnation: Incarnation) -> Result<NodeId, Refusal> {
        let Some(known) = self.group.read(|state| state.catalog.node(id).cloned()) else {
            return Err(Refusal::catalog("42704", format!("node {id} was removed from the cluster")));
        };
        let message = if known.role != join.role {
            format!("node {id} has the role {}, not {}", known.role.name(), join.role.name())
        } else if !join.name.is_empty() && known.name != join.name {
            format!("the folder belongs to node \"{}\", this process was started as \"{}\"", known.name, join.name)
        } else if incarnation < known.incarnation {
            format!("node {id} was started {} times, its folder knows of {incarnation}: an old copy", known.incarnation)
        } else {
            return Ok(id);
        };
        Err(Refusal::catalog("55000", message))
    }

    /// Takes a node out; the leader's address when that is another member.
    async fn leave(&self, node: NodeId) -> Result<Option<String>, Refusal> {
        if let Some(leader) = self.catch_up().await? {
            return Ok(Some(leader));
        }
        let (known, was_known, access_count) = self.group.read(|state| {
            let catalog = &state.catalog;
            let known = catalog.node(node).map(|node| node.role);
            (known, catalog.gave_node_id(node), catalog.access_nodes().count())
        });
        let command = match known {
            // A repeated call finds it done.
            None if was_known => return Ok(None),
            None => return Err(Refusal::catalog("42704", format!("node {node} does not exist"))),
            Some(NodeRole::Data) => Command::RemoveNode { node },
            Some(NodeRole::Access) if access_count == 1 => {
                return Err(Refusal::catalog("55000", "the last access node cannot leave"));
            }
            Some(NodeRole::Access) => Command::SetNodeState { node, state: NodeState::Draining },
        };
        match self.command(command).await? {
            Ok(_) => self.wait_gone(node).await,
            Err(leader) => Ok(Some(leader)),
        }
    }

    /// The leader's own loop takes the node out of the group, then out of the catalog.
    async fn wait_gone(&self, node: NodeId) -> Result<Option<String>, Refusal> {
        let mut progress = self.group.progress();
        let reign = self.group.reign();
        let gone = async {
            while self.group.read(|state| state.catalog.node(node).is_some()) {
                tokio::select! {
                    changed = progress.changed() => if changed.is_err() { break },
                    // It was the leader itself that had to go.
                    () = self.group.reign_changed(reign) => return Some(self.group.leader_address()),
                }
            }
            None
        };
        let late = |_| Refusal::Unavailable(format!("node {node} is still on its way out"));
        tokio::time::timeout(LEAVE_TIMEOUT, gone).await.map_err(late)
    }

    /// Notes a node's heartbeats and answers each, while this member leads.
    async fn follow_reports(
        self,
        mut reports: Streaming<wire::NodeReport>,
        orders: mpsc::Sender<Result<wire::NodeOrder, Status>>,
    ) {
        while let Some(Ok(report)) = reports.next().await {
            if let Err(refusal) = self.judge(&report) {
                // As below.
                let _ = orders.send(Err(refusal.into())).await;
                return;
            }
            if self.group.reign().is_none() {
                let leader = self.group.leader_address();
                let refusal = Refusal::Unavailable(format!("the meta leader is at \"{leader}\""));
                // A node that has gone needs no answer.
                let _ = orders.send(Err(refusal.into())).await;
                return;
            }
            self.observed.note(NodeId(report.node), sign_of(&report));
            let version = self.group.read(|state| state.catalog.version());
            let order = Some(wire::node_order::Order::Noted(wire::Done {}));
            if orders.send(Ok(wire::NodeOrder { catalog_version: version.0, order })).await.is_err() {
                return;
            }
        }
    }

    /// Whether the sender of a report is who it says. By what it knows of this member, that may be the one that is not.
    fn judge(&self, report: &wire::NodeReport) -> Result<(), Refusal> {
        let cluster = self.group.cluster().to_string();
        if report.cluster_id.is_empty() {
            return Ok(());
        }
        if report.cluster_id != cluster {
            // No objection: at the address of the sender's leader there is another cluster now.
            return Err(Refusal::Protocol("the report is from another cluster".to_owned()));
        }
        let start = Start {
            mark: StartMark(report.mark),
            ..Start::unmarked(NodeId(report.node), Incarnation(report.incarnation))
        };
        if let Some(objection) = self.group.objection(&start) {
            return Err(Refusal::catalog("55000", objection));
        }
        let own = report.access_nodes.iter().find(|known| known.node == self.group.node().0);
        let heard = own.map(|own| HeardStart { incarnation: Incarnation(own.incarnation), mark: StartMark::NONE });
        if let Some(objection) = heard.and_then(|heard| heard.objection(self.group.own_start())) {
            self.group.expel(objection);
            return Err(Refusal::Unavailable("another process has taken this member's place".to_owned()));
        }
        Ok(())
    }

    /// What is known here against the start that an access node tells of itself.
    fn object_to(&self, request: wire::StatusRequest) -> Option<String> {
        let (cluster_id, stage) = (request.cluster_id.clone(), request.stage());
        let start = Start::from(request.start?);
        if cluster_id != self.group.cluster().to_string() {
            return None;
        }
        self.group.objection(&start).or_else(|| self.meet(&start, stage))
    }

    /// Two processes of one node meet: the one that has come further goes on, the other one ends.
    fn meet(&self, other: &Start, stage: wire::StartStage) -> Option<String> {
        let own = self.group.own_start();
        if other.node != own.node || other.mark == own.mark {
            return None;
        }
        let own_stage = if self.is_announced { wire::StartStage::Announced } else { wire::StartStage::Running };
        let tell = |start: &Start, at: &str| {
            format!("node {} runs as start {} on another copy of this data folder{at}", start.node, start.incarnation)
        };
        if (stage, other.incarnation, other.mark) > (own_stage, own.incarnation, own.mark) {
            self.group.expel(tell(other, ""));
            return None;
        }
        let at = self.group.own_address();
        Some(tell(own, &format!(", at {at}")))
    }

    fn status(&self, request: wire::StatusRequest) -> wire::StatusResponse {
        let membership = self.group.membership();
        let members = membership.voters.iter().chain(&membership.learners).map(|node| wire::MemberStatus {
            node: *node,
            address: self.group.address_of(NodeId(*node)).unwrap_or_default(),
            voter: membership.voters.contains(node),
            matched: membership.matched.get(node).copied().unwrap_or(0),
        });
        let progress = *self.group.progress().borrow();
        wire::StatusResponse {
            cluster_id: self.group.cluster().to_string(),
            node: self.group.node().0,
            leader: self.group.leader().map_or(0, |leader| leader.0),
            leader_address: self.group.leader_address(),
            term: self.group.term(),
            applied: progress.applied,
            catalog_version: progress.version.0,
            members: members.collect(),
            nodes: self.node_status(),
            state: if self.is_announced { "member" } else { "joining" }.to_owned(),
            objection: self.object_to(request).unwrap_or_default(),
            mark: self.group.own_start().mark.0,
        }
    }

    fn node_status(&self) -> Vec<wire::NodeStatus> {
        self.group.read(|state| {
            let catalog = &state.catalog;
            let mut chunks = std::collections::BTreeMap::<NodeId, u64>::new();
            for node in catalog.chunks().flat_map(|chunk| chunk.in_sync.iter().chain(&chunk.followers)) {
                *chunks.entry(*node).or_default() += 1;
            }
            let status = |node: &Arc<meridian_proto::catalog::Node>| {
                let sign = self.observed.sign(node.id);
                wire::NodeStatus {
                    node: Some(meridian_proto::catalog::Node::clone(node).into()),
                    heartbeat_age_ms: sign.map(|sign| sign.at.elapsed().as_millis() as u64),
                    disk_free_bytes: sign.map_or(0, |sign| sign.disk_free_bytes),
                    disk_used_bytes: sign.map_or(0, |sign| sign.disk_used_bytes),
                    chunks: chunks.get(&node.id).copied().unwrap_or(0),
                }
            };
            catalog.nodes().map(status).collect()
        })
    }
}

/// Whether a command makes something new.
fn takes_space(command: &Command) -> bool {
    match command {
        Command::CreateTable(_)
        | Command::CreateHypertable(_)
        | Command::SetCompression(_)
        | Command::AllocateChunks { .. }
        | Command::JoinNode(_)
        | Command::SetSetting { .. } => true,
        Command::Batch(commands) => commands.iter().any(takes_space),
        Command::DropTable { .. }
        | Command::StartNode { .. }
        | Command::SetNodeState { .. }
        | Command::RemoveNode { .. }
        | Command::ReopenChunk { .. }
        | Command::AllocateProducer
        | Command::ExtendOracle { .. } => false,
    }
}

fn sign_of(report: &wire::NodeReport) -> Sign {
    Sign {
        at: Instant::now(),
        was_heard: true,
        incarnation: Incarnation(report.incarnation),
        catalog_version: CatalogVersion(report.catalog_version),
        disk_free_bytes: report.disk_free_bytes,
        disk_used_bytes: report.disk_used_bytes,
    }
}
