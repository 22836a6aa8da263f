//! openraft's requests and answers between members, as prost messages in `RaftRequest.body`.

use meridian_proto::start::HeardStart;
use meridian_proto::{Incarnation, Refusal, StartMark, wire};
use openraft::Raft;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use prost::Message;

use super::machine::from_bytes;
use super::storage::{from_raft_entry, from_raft_vote, to_raft_entry, to_raft_vote};
use super::{TypeConfig, to_entry_id, to_raft_id};
use crate::log::{EntryId, Vote, decode_entry, encode_entry};

/// `RaftRequest.kind`.
pub(super) const APPEND: u32 = 1;
pub(super) const VOTE: u32 = 2;
pub(super) const SNAPSHOT: u32 = 3;

#[derive(Clone, PartialEq, Message)]
struct IdMessage {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    node: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
}

#[derive(Clone, PartialEq, Message)]
struct BallotMessage {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    node: u64,
    #[prost(bool, tag = "3")]
    committed: bool,
}

/// Who sends, and where it is reached: members may have moved since the catalog could be changed last. And for whom it
/// is: at an address there may be another member by now, whose answers must not count as the target's. Both are named
/// with their start, so that a copy of a folder neither sends nor answers in its member's name.
#[derive(Clone, PartialEq, Message)]
pub(super) struct EnvelopeMessage {
    #[prost(uint64, tag = "1")]
    pub sender: u64,
    #[prost(string, tag = "2")]
    pub address: String,
    #[prost(uint64, tag = "3")]
    pub target: u64,
    /// Of the sender; absent from members of before there were marks.
    #[prost(message, optional, tag = "4")]
    pub start: Option<wire::Start>,
    /// The last start of the target that the sender's catalog knows.
    #[prost(uint64, tag = "5")]
    pub target_incarnation: u64,
    #[prost(fixed64, tag = "6")]
    pub target_mark: u64,
}

impl EnvelopeMessage {
    /// The target's last start, as the sender knows it.
    pub(super) fn heard_of_target(&self) -> Option<HeardStart> {
        let incarnation = Incarnation(self.target_incarnation);
        let heard = HeardStart { incarnation, mark: StartMark(self.target_mark) };
        (incarnation > Incarnation(0)).then_some(heard)
    }
}

#[derive(Clone, PartialEq, Message)]
struct AppendMessage {
    #[prost(message, optional, tag = "1")]
    envelope: Option<EnvelopeMessage>,
    #[prost(message, optional, tag = "2")]
    vote: Option<BallotMessage>,
    #[prost(message, optional, tag = "3")]
    previous: Option<IdMessage>,
    /// As in the log.
    #[prost(bytes = "vec", repeated, tag = "4")]
    entries: Vec<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    committed: Option<IdMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct AppendAnswer {
    #[prost(enumeration = "AppendOutcome", tag = "1")]
    outcome: i32,
    /// Of a partial success.
    #[prost(message, optional, tag = "2")]
    matched: Option<IdMessage>,
    /// Of a higher vote.
    #[prost(message, optional, tag = "3")]
    vote: Option<BallotMessage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum AppendOutcome {
    Unspecified = 0,
    Success = 1,
    Partial = 2,
    Conflict = 3,
    HigherVote = 4,
}

#[derive(Clone, PartialEq, Message)]
struct VoteMessage {
    #[prost(message, optional, tag = "1")]
    envelope: Option<EnvelopeMessage>,
    #[prost(message, optional, tag = "2")]
    vote: Option<BallotMessage>,
    #[prost(message, optional, tag = "3")]
    last: Option<IdMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct VoteAnswer {
    #[prost(message, optional, tag = "1")]
    vote: Option<BallotMessage>,
    #[prost(bool, tag = "2")]
    granted: bool,
    #[prost(message, optional, tag = "3")]
    last: Option<IdMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct SnapshotMessage {
    #[prost(message, optional, tag = "1")]
    envelope: Option<EnvelopeMessage>,
    #[prost(message, optional, tag = "2")]
    vote: Option<BallotMessage>,
    /// A catalog image, as on disk.
    #[prost(bytes = "vec", tag = "3")]
    image: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct SnapshotAnswer {
    #[prost(message, optional, tag = "1")]
    vote: Option<BallotMessage>,
}

type Id = openraft::LogId<u64>;
type Ballot = openraft::Vote<u64>;

fn id_message(id: &Id) -> IdMessage {
    let EntryId { term, node, index } = to_entry_id(id);
    IdMessage { term, node, index }
}

fn raft_id(message: &IdMessage) -> Id {
    to_raft_id(EntryId { term: message.term, node: message.node, index: message.index })
}

fn ballot_message(vote: &Ballot) -> BallotMessage {
    let Vote { term, node, committed } = from_raft_vote(vote);
    BallotMessage { term, node, committed }
}

fn ballot(message: Option<BallotMessage>) -> Option<Ballot> {
    let BallotMessage { term, node, committed } = message?;
    Some(to_raft_vote(Vote { term, node, committed }))
}

pub(super) fn encode_append(envelope: EnvelopeMessage, request: AppendEntriesRequest<TypeConfig>) -> Vec<u8> {
    AppendMessage {
        envelope: Some(envelope),
        vote: Some(ballot_message(&request.vote)),
        previous: request.prev_log_id.as_ref().map(id_message),
        entries: request.entries.into_iter().map(|entry| encode_entry(&from_raft_entry(entry))).collect(),
        committed: request.leader_commit.as_ref().map(id_message),
    }
    .encode_to_vec()
}

pub(super) fn decode_append_answer(body: &[u8]) -> Option<AppendEntriesResponse<u64>> {
    let answer = AppendAnswer::decode(body).ok()?;
    Some(match answer.outcome() {
        AppendOutcome::Success => AppendEntriesResponse::Success,
        AppendOutcome::Partial => AppendEntriesResponse::PartialSuccess(answer.matched.as_ref().map(raft_id)),
        AppendOutcome::Conflict => AppendEntriesResponse::Conflict,
        AppendOutcome::HigherVote => AppendEntriesResponse::HigherVote(ballot(answer.vote)?),
        AppendOutcome::Unspecified => return None,
    })
}

pub(super) fn encode_vote(envelope: EnvelopeMessage, request: &VoteRequest<u64>) -> Vec<u8> {
    VoteMessage {
        envelope: Some(envelope),
        vote: Some(ballot_message(&request.vote)),
        last: request.last_log_id.as_ref().map(id_message),
    }
    .encode_to_vec()
}

pub(super) fn decode_vote_answer(body: &[u8]) -> Option<VoteResponse<u64>> {
    let answer = VoteAnswer::decode(body).ok()?;
    let last = answer.last.as_ref().map(raft_id);
    Some(VoteResponse { vote: ballot(answer.vote)?, vote_granted: answer.granted, last_log_id: last })
}

pub(super) fn encode_snapshot(envelope: EnvelopeMessage, vote: &Ballot, image: Vec<u8>) -> Vec<u8> {
    SnapshotMessage { envelope: Some(envelope), vote: Some(ballot_message(vote)), image }.encode_to_vec()
}

pub(super) fn decode_snapshot_answer(body: &[u8]) -> Option<SnapshotResponse<u64>> {
    let answer = SnapshotAnswer::decode(body).ok()?;
    Some(SnapshotResponse::new(ballot(answer.vote)?))
}

/// What a message of another member came to.
pub(super) struct Handled {
    pub body: Vec<u8>,
    pub sender: Option<(u64, String)>,
    /// The sender leads, as far as this member knows.
    pub heard_leader: bool,
}

/// Hands a message to Raft.
pub(super) async fn dispatch(raft: &Raft<TypeConfig>, kind: u32, body: &[u8]) -> Result<Handled, Refusal> {
    match kind {
        APPEND => handle_append(raft, body).await,
        VOTE => handle_vote(raft, body).await,
        SNAPSHOT => handle_snapshot(raft, body).await,
        other => Err(Refusal::Protocol(format!("unknown Raft message {other}"))),
    }
}

fn malformed<T>() -> Result<T, Refusal> {
    Err(Refusal::Protocol("the Raft message is malformed".to_owned()))
}

fn stopped(error: impl std::fmt::Display) -> Refusal {
    Refusal::Unavailable(error.to_string())
}

fn sender(message: Option<EnvelopeMessage>) -> Option<(u64, String)> {
    message.filter(|envelope| !envelope.address.is_empty()).map(|envelope| (envelope.sender, envelope.address))
}

/// What all messages begin with.
#[derive(Clone, PartialEq, Message)]
struct AnyMessage {
    #[prost(message, optional, tag = "1")]
    envelope: Option<EnvelopeMessage>,
}

/// Who sends a message of whatever kind, and to whom.
pub(super) fn envelope_of(body: &[u8]) -> Result<EnvelopeMessage, Refusal> {
    match AnyMessage::decode(body) {
        Ok(AnyMessage { envelope: Some(envelope) }) => Ok(envelope),
        _ => malformed(),
    }
}

async fn handle_append(raft: &Raft<TypeConfig>, body: &[u8]) -> Result<Handled, Refusal> {
    let Ok(message) = AppendMessage::decode(body) else { return malformed() };
    let entries: Option<Vec<_>> = message.entries.iter().map(|bytes| decode_entry(bytes).map(to_raft_entry)).collect();
    let (Some(vote), Some(entries)) = (ballot(message.vote), entries) else { return malformed() };
    let request = AppendEntriesRequest {
        vote,
        prev_log_id: message.previous.as_ref().map(raft_id),
        entries,
        leader_commit: message.committed.as_ref().map(raft_id),
    };
    let response = raft.append_entries(request).await.map_err(stopped)?;
    let heard_leader = !matches!(response, AppendEntriesResponse::HigherVote(_));
    let (outcome, matched, vote) = match response {
        AppendEntriesResponse::Success => (AppendOutcome::Success, None, None),
        AppendEntriesResponse::PartialSuccess(matched) => (AppendOutcome::Partial, matched, None),
        AppendEntriesResponse::Conflict => (AppendOutcome::Conflict, None, None),
        AppendEntriesResponse::HigherVote(vote) => (AppendOutcome::HigherVote, None, Some(vote)),
    };
    let answer = AppendAnswer {
        outcome: outcome.into(),
        matched: matched.as_ref().map(id_message),
        vote: vote.as_ref().map(ballot_message),
    };
    Ok(Handled { body: answer.encode_to_vec(), sender: sender(message.envelope), heard_leader })
}

async fn handle_vote(raft: &Raft<TypeConfig>, body: &[u8]) -> Result<Handled, Refusal> {
    let Ok(message) = VoteMessage::decode(body) else { return malformed() };
    let Some(vote) = ballot(message.vote) else { return malformed() };
    let request = VoteRequest { vote, last_log_id: message.last.as_ref().map(raft_id) };
    let response = raft.vote(request).await.map_err(stopped)?;
    let answer = VoteAnswer {
        vote: Some(ballot_message(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(id_message),
    };
    Ok(Handled { body: answer.encode_to_vec(), sender: sender(message.envelope), heard_leader: false })
}

async fn handle_snapshot(raft: &Raft<TypeConfig>, body: &[u8]) -> Result<Handled, Refusal> {
    let Ok(message) = SnapshotMessage::decode(body) else { return malformed() };
    let (Some(vote), Ok(snapshot)) = (ballot(message.vote), from_bytes(&message.image)) else { return malformed() };
    let response = raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
    let heard_leader = response.vote == vote;
    let answer = SnapshotAnswer { vote: Some(ballot_message(&response.vote)) };
    Ok(Handled { body: answer.encode_to_vec(), sender: sender(message.envelope), heard_leader })
}
