//! The group: agreement on entries by openraft, which this module alone knows. Everyone else sees a [`Group`].

mod machine;
mod messages;
mod network;
mod storage;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machine::{Machine, Published};
pub use machine::{Progress, State};
use meridian_client::cluster::Channels;
use meridian_proto::start::Start;
use meridian_proto::{ClusterId, NodeId, Refusal, WIRE_VERSION, wire};
use messages::EnvelopeMessage;
use network::{AddressBook, Expelled, Network};
use openraft::error::{CheckIsLeaderError, ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers, Config, Raft, ServerState, SnapshotPolicy};
use prost::Message;
use storage::RaftStorage;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::catalog::{Answer, Proposal};
use crate::error::MetaError;
use crate::log::{EntryId, LogStore, Opened, Vote};

openraft::declare_raft_types!(
    /// What openraft is told of our types.
    pub(crate) TypeConfig:
        D = CommandBytes,
        R = Applied,
        NodeId = u64,
        Node = BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Vec<u8>,
);

/// A proposal as the log holds it: an encoded `ProposeRequest`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct CommandBytes(Vec<u8>);

/// What an entry came to. Never serialised: it goes from the state machine to the proposer in one process.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Applied {
    #[serde(skip)]
    answer: Option<Answer>,
}

/// Entries sent to a member in one message.
const ENTRIES_PER_MESSAGE: u64 = 256;
/// Entries kept behind an image, for members that are a little behind.
const ENTRIES_KEPT: u64 = 1000;
/// Longest transfer of an image to a member.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest wait for Raft to tell what it found on disk.
const FIRST_METRICS: Duration = Duration::from_millis(300);

/// How quickly the loss of a leader is noticed. A follower elects after a silence of `election_max` (the leader's
/// lease) and a further random time from `election_min` to `election_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
}

impl Default for Intervals {
    /// Silence of 1.1 to 1.4 s, noticed by a tick of 0.4 s: a new leader within 2 s.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(250),
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(700),
        }
    }
}

pub struct GroupOptions {
    pub cluster: ClusterId,
    pub start: Start,
    /// Where others reach this member.
    pub address: String,
    pub channels: Channels,
    pub intervals: Intervals,
    /// Entries after which a new image is made and the log before it goes.
    pub image_every_entries: u64,
}

/// One reign: a member that a quorum made leader of a term. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reign {
    pub term: u64,
    pub leader: NodeId,
}

/// Why the group did not do it here and now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Surely not proposed. The leader's address as far as known, else empty.
    NotLeader(String),
    /// No quorum, stopping, or no answer: a proposal may still be applied.
    Unavailable(String),
}

/// The leadership that a quorum confirmed, and the entry up to which a linearizable read must have applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    pub reign: Reign,
    pub index: u64,
}

/// A member of the group in its present form.
#[derive(Clone, Debug, Default)]
pub struct Membership {
    pub voters: BTreeSet<u64>,
    pub learners: BTreeSet<u64>,
    /// Index of the last entry known to be on each member; leader only.
    pub matched: BTreeMap<u64, u64>,
    /// Between two sets of voters.
    pub is_changing: bool,
}

/// Cheap to clone; clones are the same member.
#[derive(Clone)]
pub struct Group(Arc<Inner>);

struct Inner {
    raft: Raft<TypeConfig>,
    store: LogStore,
    published: Arc<Published>,
    book: AddressBook,
    cluster: ClusterId,
    start: Start,
    address: String,
    expelled: Expelled,
    intervals: Intervals,
    /// When a leader was last heard.
    heard_leader: Mutex<Option<Instant>>,
    /// It leads, and wants another one to.
    is_resting: AtomicBool,
}

impl Group {
    /// Starts this member on what its folder held.
    ///
    /// # Errors
    /// When the image is unreadable.
    pub async fn start(options: GroupOptions, opened: Opened) -> Result<Self, MetaError> {
        let config = Arc::new(config(&options)?);
        let book = AddressBook::default();
        let machine = Machine::open(opened.image, opened.image_file, book.clone())?;
        let published = machine.published();
        let expelled = Expelled::default();
        let node = options.start.node;
        let network = Network {
            cluster: options.cluster,
            channels: options.channels,
            book: book.clone(),
            start: options.start.clone(),
            address: options.address.clone(),
            published: Arc::clone(&published),
            expelled: expelled.clone(),
        };
        resign(&opened.store, node).await?;
        let storage = RaftStorage(opened.store.clone());
        let raft = Raft::new(node.0, config, network, storage, machine).await;
        let raft = raft.map_err(|error| MetaError::Stopped(error.to_string()))?;
        Ok(Self(Arc::new(Inner {
            raft,
            store: opened.store,
            published,
            book,
            cluster: options.cluster,
            start: options.start,
            address: options.address,
            expelled,
            intervals: options.intervals,
            heard_leader: Mutex::new(None),
            is_resting: AtomicBool::new(false),
        })))
    }

    /// Makes this member the only one of a new group, unless the group exists.
    pub async fn initialize(&self, address: &str) -> Result<(), MetaError> {
        let stopped = |error: &dyn std::fmt::Display| MetaError::Stopped(error.to_string());
        if self.0.raft.is_initialized().await.map_err(|error| stopped(&error))? {
            return Ok(());
        }
        let members = BTreeMap::from([(self.node().0, BasicNode::new(address))]);
        self.0.raft.initialize(members).await.map_err(|error| stopped(&error))
    }

    /// Elects at once if there is nobody to wait for.
    pub async fn elect_if_alone(&self) {
        let mut metrics = self.0.raft.metrics();
        // Raft tells of the membership that it found on disk a moment after it started; else its timer elects.
        let known = metrics.wait_for(|metrics| metrics.membership_config.membership().nodes().next().is_some());
        let _ = tokio::time::timeout(FIRST_METRICS, known).await;
        let alone = self.membership().voters == BTreeSet::from([self.node().0]);
        if alone && self.reign().is_none() {
            // A member that stops does not elect; whoever waits for it is told so.
            let _ = self.0.raft.trigger().elect().await;
        }
    }

    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.start.node
    }

    /// The start of this process.
    #[must_use]
    pub fn own_start(&self) -> &Start {
        &self.0.start
    }

    /// Where others reach this member.
    #[must_use]
    pub fn own_address(&self) -> &str {
        &self.0.address
    }

    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.0.cluster
    }

    #[must_use]
    pub fn intervals(&self) -> Intervals {
        self.0.intervals
    }

    /// Reads this member's state; it may be behind.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        self.0.published.read(read)
    }

    /// What was applied last, as it goes on.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.0.published.subscribe()
    }

    /// Proposes an entry and waits until it is applied here. Also tells in which reign it was proposed.
    pub async fn propose(&self, proposal: &Proposal) -> Result<(Answer, Reign), Failure> {
        if self.reign().is_none() || self.is_resting() {
            return Err(self.not_leader());
        }
        let request = wire::ProposeRequest {
            command: Some(proposal.command.clone().into()),
            producer: proposal.producer.0,
            sequence: proposal.sequence.0,
        };
        match self.0.raft.client_write(CommandBytes(request.encode_to_vec())).await {
            Ok(response) => {
                let reign = reign_of(&response.log_id);
                let answer = response.data.answer.map(|answer| (answer, reign));
                answer.ok_or_else(|| Failure::Unavailable("an entry without answer".to_owned()))
            }
            // Also for an entry that the next leader's log displaced here: a copy of it on another member may come back
            // with that member as leader.
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                Err(Failure::Unavailable("the leader lost its office".to_owned()))
            }
            Err(error) => Err(Failure::Unavailable(error.to_string())),
        }
    }

    /// Has a quorum confirm that this member leads now.
    pub async fn confirm(&self) -> Result<Confirmed, Failure> {
        // What asks the others would keep them from electing.
        if self.is_resting() {
            return Err(self.not_leader());
        }
        match self.0.raft.get_read_log_id().await {
            // What a leader reads at is at least its own first entry, so that the entry's reign is its own.
            Ok((Some(read), _)) => Ok(Confirmed { reign: reign_of(&read), index: read.index }),
            Ok((None, _)) => Err(Failure::Unavailable("the leader has just taken office".to_owned())),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_))) => Err(self.not_leader()),
            Err(error) => Err(Failure::Unavailable(error.to_string())),
        }
    }

    /// Waits until the entry of `index` is applied here.
    pub async fn wait_applied(&self, index: u64) -> Result<(), Failure> {
        let mut progress = self.progress();
        let applied = progress.wait_for(|progress| progress.applied >= index).await;
        applied.map(|_| ()).map_err(|_| Failure::Unavailable("the meta group stops".to_owned()))
    }

    fn not_leader(&self) -> Failure {
        Failure::NotLeader(if self.is_resting() { String::new() } else { self.leader_address() })
    }

    fn is_resting(&self) -> bool {
        self.0.is_resting.load(Ordering::Acquire)
    }

    /// A leader that rests answers nothing that needs the others; together with [`Self::set_heartbeats`] it is replaced.
    pub fn set_resting(&self, is_resting: bool) {
        self.0.is_resting.store(is_resting, Ordering::Release);
    }

    /// This member's reign, if it believes to lead.
    #[must_use]
    pub fn reign(&self) -> Option<Reign> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow();
        let leads = metrics.state == ServerState::Leader && metrics.vote.committed;
        leads.then(|| Reign { term: metrics.vote.leader_id.term, leader: self.node() })
    }

    /// Waits until the leader, as this member sees it, is another one than `known`, or leads again.
    pub async fn reign_changed(&self, known: Option<Reign>) {
        let mut metrics = self.0.raft.metrics();
        while self.reign() == known {
            if metrics.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.0.raft.metrics().borrow().current_leader.map(NodeId)
    }

    #[must_use]
    pub fn term(&self) -> u64 {
        self.0.raft.metrics().borrow().current_term
    }

    /// Address of the leader as far as known, else empty.
    #[must_use]
    pub fn leader_address(&self) -> String {
        self.leader().and_then(|leader| self.address_of(leader)).unwrap_or_default()
    }

    /// Address of a member as far as known.
    #[must_use]
    pub fn address_of(&self, node: NodeId) -> Option<String> {
        let metrics = self.0.raft.metrics();
        let at_joining = metrics.borrow().membership_config.membership().get_node(&node.0).map(|n| n.addr.clone());
        self.0.book.get(node.0).or(at_joining)
    }

    /// Notes that a member said where it is.
    pub fn learn_address(&self, node: NodeId, address: &str) {
        self.0.book.set(node.0, address);
    }

    /// Whether this member leads or has heard a leader in the last `within`.
    #[must_use]
    pub fn is_current(&self, within: Duration) -> bool {
        let heard = *self.0.heard_leader.lock().unwrap_or_else(PoisonError::into_inner);
        self.reign().is_some() || heard.is_some_and(|heard| heard.elapsed() < within)
    }

    #[must_use]
    pub fn membership(&self) -> Membership {
        let metrics = self.0.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let matched = metrics.replication.unwrap_or_default();
        Membership {
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            matched: matched.into_iter().map(|(node, last)| (node, last.map_or(0, |last| last.index))).collect(),
            is_changing: membership.get_joint_config().len() > 1,
        }
    }

    /// Index of the last entry of this member's log.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.0.raft.metrics().borrow().last_log_index.unwrap_or(0)
    }

    /// Adds a member that gets the log and does not vote.
    pub async fn add_learner(&self, node: NodeId, address: &str) -> Result<(), Failure> {
        let added = self.0.raft.add_learner(node.0, BasicNode::new(address), false).await;
        added.map(|_| ()).map_err(|error| Failure::Unavailable(error.to_string()))
    }

    /// Makes these members, and no others, vote. Who voted and does not any more stays as a learner.
    pub async fn set_voters(&self, voters: BTreeSet<u64>) -> Result<(), Failure> {
        let changed = self.0.raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), true).await;
        changed.map(|_| ()).map_err(|error| Failure::Unavailable(error.to_string()))
    }

    /// Takes a learner out.
    pub async fn remove_learner(&self, node: NodeId) -> Result<(), Failure> {
        let nodes = BTreeSet::from([node.0]);
        let removed = self.0.raft.change_membership(ChangeMembers::RemoveNodes(nodes), true).await;
        removed.map(|_| ()).map_err(|error| Failure::Unavailable(error.to_string()))
    }

    /// How long ago a quorum last answered this leader; `None` when it leads nobody.
    #[must_use]
    pub fn quorum_silence(&self) -> Option<Duration> {
        let metrics = self.0.raft.metrics().borrow().clone();
        let leads_others = metrics.state == ServerState::Leader && self.membership().voters.len() > 1;
        metrics.millis_since_quorum_ack.filter(|_| leads_others).map(Duration::from_millis)
    }

    /// A leader without heartbeats is replaced by those who can hear one another.
    pub fn set_heartbeats(&self, enabled: bool) {
        self.0.raft.runtime_config().heartbeat(enabled);
    }

    /// Answers a message of another member.
    pub async fn handle(&self, request: wire::RaftRequest) -> Result<wire::RaftResponse, Refusal> {
        if request.wire_version != WIRE_VERSION {
            let message = format!("wire version {} is spoken here, not {}", WIRE_VERSION, request.wire_version);
            return Err(Refusal::Protocol(message));
        }
        if request.cluster_id != self.0.cluster.to_string() {
            return Err(Refusal::Protocol("the message is from another cluster".to_owned()));
        }
        let envelope = messages::envelope_of(&request.body)?;
        if envelope.target != self.node().0 {
            return Err(Refusal::Protocol(format!("this is node {}, not {}", self.node(), envelope.target)));
        }
        self.judge(&envelope)?;
        let answer = messages::dispatch(&self.0.raft, request.kind, &request.body).await?;
        if let Some((node, address)) = answer.sender {
            self.0.book.set(node, &address);
        }
        if answer.heard_leader {
            *self.0.heard_leader.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        Ok(wire::RaftResponse { body: answer.body })
    }

    /// R3: of two processes that claim to be one member, the wrong one neither votes nor is voted for.
    fn judge(&self, envelope: &EnvelopeMessage) -> Result<(), Refusal> {
        let start = envelope.start.clone().map(Start::from);
        if let Some(objection) = start.and_then(|start| self.objection(&start)) {
            return Err(Refusal::catalog("55000", objection));
        }
        match envelope.heard_of_target().and_then(|heard| heard.objection(&self.0.start)) {
            Some(objection) => {
                self.expel(objection);
                Err(Refusal::Unavailable("another process has taken this member's place".to_owned()))
            }
            None => Ok(()),
        }
    }

    /// Why the process of that start must not act, as far as this member knows.
    #[must_use]
    pub fn objection(&self, start: &Start) -> Option<String> {
        self.read(|state| state.catalog.objection(start))
    }

    /// This process must not act for its member any more.
    pub fn expel(&self, reason: String) {
        self.0.expelled.note(reason);
    }

    /// An answer of another member that may say so.
    pub fn note_answer(&self, status: &tonic::Status) {
        self.0.expelled.note_answer(status);
    }

    /// Waits until this member cannot go on: its files failed, or it must not act any more.
    pub async fn failed(&self) -> MetaError {
        tokio::select! {
            error = self.stopped() => error,
            reason = self.expelled() => MetaError::Expelled(reason),
        }
    }

    /// Waits until this process must not act for its member any more. Its own catalog may say so, too.
    async fn expelled(&self) -> String {
        let (mut expelled, mut progress) = (self.0.expelled.subscribe(), self.progress());
        loop {
            progress.borrow_and_update();
            let told = expelled.borrow_and_update().clone();
            if let Some(reason) = told.or_else(|| self.objection(&self.0.start)) {
                return reason;
            }
            let changed = tokio::select! {
                changed = expelled.changed() => changed,
                changed = progress.changed() => changed,
            };
            if changed.is_err() {
                // It stops for another reason.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn stopped(&self) -> MetaError {
        let mut metrics = self.0.raft.metrics();
        loop {
            let state = metrics.borrow_and_update().running_state.clone();
            if let Err(fatal) = state {
                return MetaError::Stopped(fatal.to_string());
            }
            if metrics.changed().await.is_err() {
                return MetaError::Stopped("it was shut down".to_owned());
            }
        }
    }

    /// Whether this member's disk is full: it takes what the group itself needs, and nothing else.
    #[must_use]
    pub fn is_short_of_space(&self) -> bool {
        self.0.store.is_short_of_space(0)
    }

    /// The same, were an entry of `bytes` to be taken.
    #[must_use]
    pub fn is_short_of_space_for(&self, bytes: usize) -> bool {
        self.0.store.is_short_of_space(bytes)
    }

    /// Stops, and closes the files.
    pub async fn shutdown(&self) {
        self.0.store.stop_waiting();
        // It fails only when it has stopped already.
        let _ = self.0.raft.shutdown().await;
        self.0.store.close().await;
    }

    /// Makes an image now.
    pub async fn make_image(&self) {
        // A member that stops makes none.
        let _ = self.0.raft.trigger().snapshot().await;
    }
}

fn config(options: &GroupOptions) -> Result<Config, MetaError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: options.cluster.to_string(),
        heartbeat_interval: millis(options.intervals.heartbeat),
        election_timeout_min: millis(options.intervals.election_min),
        election_timeout_max: millis(options.intervals.election_max),
        install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
        max_payload_entries: ENTRIES_PER_MESSAGE,
        replication_lag_threshold: options.image_every_entries * 2,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.image_every_entries),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT.min(options.image_every_entries),
        ..Config::default()
    };
    config.validate().map_err(|error| MetaError::Stopped(error.to_string()))
}

/// A process does not go on with the reign of the one before it. openraft would restore it, without asking anybody: a
/// member that was removed, or whose peers have moved, would believe to lead and look for nobody.
async fn resign(store: &LogStore, node: NodeId) -> Result<(), MetaError> {
    match store.vote() {
        Some(vote) if vote.committed && vote.node == node.0 => {
            let resigned = store.save_vote(Vote { committed: false, ..vote }).await;
            resigned.map_err(|error| MetaError::Stopped(error.to_string()))
        }
        _ => Ok(()),
    }
}

fn reign_of(id: &openraft::LogId<u64>) -> Reign {
    Reign { term: id.leader_id.term, leader: NodeId(id.leader_id.node_id) }
}

fn to_raft_id(id: EntryId) -> openraft::LogId<u64> {
    openraft::LogId::new(openraft::CommittedLeaderId::new(id.term, id.node), id.index)
}

fn to_entry_id(id: &openraft::LogId<u64>) -> EntryId {
    EntryId { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}
