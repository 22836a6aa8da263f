//! Messages to other members, over their `Meta.Raft`.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use meridian_client::cluster::Channels;
use meridian_client::cluster::channel::MESSAGE_BYTES_MAX;
use meridian_proto::start::Start;
use meridian_proto::wire::meta_client::MetaClient as WireClient;
use meridian_proto::{ClusterId, NodeId, Refusal, WIRE_VERSION, wire};
use openraft::error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{AnyError, BasicNode, Snapshot, Vote};
use tokio::sync::watch;

use super::TypeConfig;
use super::machine::Published;
use super::messages::{self, EnvelopeMessage};

/// Pause before a member that could not be reached is tried again.
const BACKOFF: Duration = Duration::from_millis(100);

type CallError = RPCError<u64, BasicNode, RaftError<u64>>;

/// Addresses remembered per member.
const ADDRESSES_MAX: usize = 4;

/// Where members are, the likeliest address first. Words of it come from the catalog, whose entries may be old ones
/// that are applied again, and from members themselves; so an address that fails goes last, not away.
#[derive(Clone, Default)]
pub(super) struct AddressBook(Arc<RwLock<BTreeMap<u64, VecDeque<String>>>>);

impl AddressBook {
    pub(super) fn get(&self, node: u64) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&node)?.front().cloned()
    }

    pub(super) fn set(&self, node: u64, address: &str) {
        if self.get(node).as_deref() == Some(address) {
            return;
        }
        let mut book = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = book.entry(node).or_default();
        known.retain(|other| other != address);
        known.push_front(address.to_owned());
        known.truncate(ADDRESSES_MAX);
    }

    /// The member did not answer there: the next attempt takes another address, if there is one.
    pub(super) fn note_failure(&self, node: u64, address: &str) {
        let mut book = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = book.get_mut(&node)
            && known.front().is_some_and(|first| first == address)
        {
            known.rotate_left(1);
        }
    }
}

/// Why this process must not act for its member any more, once that is known.
#[derive(Clone)]
pub(super) struct Expelled(Arc<watch::Sender<Option<String>>>);

impl Default for Expelled {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Expelled {
    /// The first reason stays.
    pub(super) fn note(&self, reason: String) {
        self.0.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(reason);
            is_first
        });
    }

    /// Another member of the cluster refuses this one with an objection to its start.
    pub(super) fn note_answer(&self, status: &tonic::Status) {
        if let Refusal::Catalog { message, .. } = Refusal::from_status(status.clone()) {
            self.note(message);
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<String>> {
        self.0.subscribe()
    }
}

/// Dials members of the group and nobody else.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) cluster: ClusterId,
    pub(super) channels: Channels,
    pub(super) book: AddressBook,
    /// Of this process, and where others reach it.
    pub(super) start: Start,
    pub(super) address: String,
    pub(super) published: Arc<Published>,
    pub(super) expelled: Expelled,
}

/// One member as the target of messages.
pub(super) struct Peer {
    network: Network,
    node: u64,
    /// Its address when it joined.
    address: String,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer { network: self.clone(), node: target, address: node.addr.clone() }
    }
}

impl Peer {
    async fn send(&self, kind: u32, body: Vec<u8>, timeout: Duration) -> Result<Vec<u8>, tonic::Status> {
        let address = self.network.book.get(self.node).unwrap_or_else(|| self.address.clone());
        let mut client = WireClient::new(self.network.channels.channel(&address))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let cluster_id = self.network.cluster.to_string();
        let request = wire::RaftRequest { wire_version: WIRE_VERSION, kind, body, cluster_id };
        let answer = match tokio::time::timeout(timeout, client.raft(request)).await {
            Ok(response) => response.map(|response| response.into_inner().body),
            Err(_) => Err(tonic::Status::deadline_exceeded("no answer in time")),
        };
        if let Err(status) = &answer {
            self.network.book.note_failure(self.node, &address);
            self.network.expelled.note_answer(status);
        }
        answer
    }

    fn envelope(&self) -> EnvelopeMessage {
        let heard = self.network.published.read(|state| state.catalog.heard_start(NodeId(self.node)));
        EnvelopeMessage {
            sender: self.network.start.node.0,
            address: self.network.address.clone(),
            target: self.node,
            start: Some(self.network.start.clone().into()),
            target_incarnation: heard.map_or(0, |heard| heard.incarnation.0),
            target_mark: heard.map_or(0, |heard| heard.mark.0),
        }
    }
}

fn malformed() -> NetworkError {
    NetworkError::from(AnyError::error("the answer is malformed"))
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, CallError> {
        let body = messages::encode_append(self.envelope(), request);
        let answer = self.send(messages::APPEND, body, option.hard_ttl()).await;
        let answer = answer.map_err(|status| RPCError::Unreachable(Unreachable::new(&status)))?;
        messages::decode_append_answer(&answer).ok_or_else(|| malformed().into())
    }

    async fn vote(&mut self, request: VoteRequest<u64>, option: RPCOption) -> Result<VoteResponse<u64>, CallError> {
        let body = messages::encode_vote(self.envelope(), &request);
        let answer = self.send(messages::VOTE, body, option.hard_ttl()).await;
        let answer = answer.map_err(|status| RPCError::Unreachable(Unreachable::new(&status)))?;
        messages::decode_vote_answer(&answer).ok_or_else(|| malformed().into())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let body = messages::encode_snapshot(self.envelope(), &vote, *snapshot.snapshot);
        let answer = tokio::select! {
            answer = self.send(messages::SNAPSHOT, body, option.hard_ttl()) => answer,
            closed = cancel => return Err(closed.into()),
        };
        let answer = answer.map_err(|status| StreamingError::Unreachable(Unreachable::new(&status)))?;
        messages::decode_snapshot_answer(&answer).ok_or_else(|| malformed().into())
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
