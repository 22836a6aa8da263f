//! Entries, votes and file heads as prost messages: fields may be added, none changes its meaning.

use meridian_proto::frame::FRAME_PAYLOAD_BYTES_MAX;
use prost::Message;

use super::{Entry, EntryId, Members, Payload, Vote};

/// Longest command: an entry must fit a record.
pub const COMMAND_BYTES_MAX: usize = FRAME_PAYLOAD_BYTES_MAX - 1024;

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct EntryIdMessage {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(uint64, tag = "2")]
    pub node: u64,
    #[prost(uint64, tag = "3")]
    pub index: u64,
}

#[derive(Clone, PartialEq, Message)]
struct EntryMessage {
    #[prost(message, optional, tag = "1")]
    id: Option<EntryIdMessage>,
    #[prost(oneof = "PayloadMessage", tags = "2, 3")]
    payload: Option<PayloadMessage>,
}

/// Absent for a blank entry.
#[derive(Clone, PartialEq, prost::Oneof)]
enum PayloadMessage {
    #[prost(bytes, tag = "2")]
    Command(Vec<u8>),
    #[prost(message, tag = "3")]
    Members(MembersMessage),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MembersMessage {
    #[prost(message, repeated, tag = "1")]
    voters: Vec<VotersMessage>,
    #[prost(btree_map = "uint64, string", tag = "2")]
    addresses: std::collections::BTreeMap<u64, String>,
}

#[derive(Clone, PartialEq, Message)]
struct VotersMessage {
    #[prost(uint64, repeated, tag = "1")]
    nodes: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct VoteMessage {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(uint64, tag = "2")]
    pub term: u64,
    #[prost(uint64, tag = "3")]
    pub node: u64,
    #[prost(bool, tag = "4")]
    pub committed: bool,
}

/// First record of a log file.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct HeadMessage {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Index of the file's first entry, as in its name.
    #[prost(uint64, tag = "2")]
    pub first: u64,
    /// The entry before the first one, absent at the start of the log.
    #[prost(message, optional, tag = "3")]
    pub previous: Option<EntryIdMessage>,
}

impl From<EntryId> for EntryIdMessage {
    fn from(id: EntryId) -> Self {
        Self { term: id.term, node: id.node, index: id.index }
    }
}

impl From<EntryIdMessage> for EntryId {
    fn from(message: EntryIdMessage) -> Self {
        Self { term: message.term, node: message.node, index: message.index }
    }
}

impl From<Members> for MembersMessage {
    fn from(members: Members) -> Self {
        let voters = members.voters.into_iter().map(|nodes| VotersMessage { nodes: nodes.into_iter().collect() });
        Self { voters: voters.collect(), addresses: members.addresses }
    }
}

impl From<MembersMessage> for Members {
    fn from(message: MembersMessage) -> Self {
        let voters = message.voters.into_iter().map(|voters| voters.nodes.into_iter().collect());
        Self { voters: voters.collect(), addresses: message.addresses }
    }
}

impl From<VoteMessage> for Vote {
    fn from(message: VoteMessage) -> Self {
        Self { term: message.term, node: message.node, committed: message.committed }
    }
}

/// An entry as bytes, on disk and between members.
#[must_use]
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    let payload = match &entry.payload {
        Payload::Blank => None,
        Payload::Command(bytes) => Some(PayloadMessage::Command(bytes.clone())),
        Payload::Members(members) => Some(PayloadMessage::Members(members.clone().into())),
    };
    EntryMessage { id: Some(entry.id.into()), payload }.encode_to_vec()
}

/// Reads what [`encode_entry`] wrote; `None` for anything else.
#[must_use]
pub fn decode_entry(bytes: &[u8]) -> Option<Entry> {
    let message = EntryMessage::decode(bytes).ok()?;
    let payload = match message.payload {
        None => Payload::Blank,
        Some(PayloadMessage::Command(bytes)) => Payload::Command(bytes),
        Some(PayloadMessage::Members(members)) => Payload::Members(members.into()),
    };
    Some(Entry { id: message.id?.into(), payload })
}

pub(super) fn encode_members(members: &Members) -> Vec<u8> {
    MembersMessage::from(members.clone()).encode_to_vec()
}

pub(super) fn decode_members(bytes: &[u8]) -> Option<Members> {
    MembersMessage::decode(bytes).ok().map(Into::into)
}
