//! Our log as openraft's log storage.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    BasicNode, Entry as RaftEntry, EntryPayload, LogId, LogState, Membership, OptionalSend, RaftLogReader,
    StorageError, StorageIOError, Vote as RaftVote,
};

use super::{CommandBytes, TypeConfig, to_entry_id, to_raft_id};
use crate::log::{Entry, LogStore, Members, Payload, Vote};

/// Bytes of entries read at once for a message to a member.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

type Result<T> = std::result::Result<T, StorageError<u64>>;

#[derive(Clone)]
pub(super) struct RaftStorage(pub(super) LogStore);

impl RaftLogReader<TypeConfig> for RaftStorage {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry<TypeConfig>>> {
        Ok(self.0.entries(range, usize::MAX).into_iter().map(to_raft_entry).collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<RaftEntry<TypeConfig>>> {
        Ok(self.0.entries(start..end, MESSAGE_BYTES_MAX).into_iter().map(to_raft_entry).collect())
    }
}

impl RaftLogStorage<TypeConfig> for RaftStorage {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>> {
        let (purged, last) = self.0.bounds();
        Ok(LogState { last_purged_log_id: purged.map(to_raft_id), last_log_id: last.map(to_raft_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote<u64>) -> Result<()> {
        let saved = self.0.save_vote(from_raft_vote(vote)).await;
        saved.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote<u64>>> {
        Ok(self.0.vote().map(to_raft_vote))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<()>
    where
        I: IntoIterator<Item = RaftEntry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(from_raft_entry).collect();
        self.0.append(entries, Box::new(|result| callback.log_io_completed(result)));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<()> {
        let truncated = self.0.truncate(log_id.index).await;
        truncated.map_err(|error| StorageIOError::write_logs(&error).into())
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<()> {
        let purged = self.0.purge(to_entry_id(&log_id)).await;
        purged.map_err(|error| StorageIOError::write_logs(&error).into())
    }
}

pub(super) fn to_raft_vote(vote: Vote) -> RaftVote<u64> {
    match vote.committed {
        true => RaftVote::new_committed(vote.term, vote.node),
        false => RaftVote::new(vote.term, vote.node),
    }
}

pub(super) fn from_raft_vote(vote: &RaftVote<u64>) -> Vote {
    Vote { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

pub(super) fn to_raft_entry(entry: Entry) -> RaftEntry<TypeConfig> {
    let payload = match entry.payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Command(bytes) => EntryPayload::Normal(CommandBytes(bytes)),
        Payload::Members(members) => EntryPayload::Membership(to_raft_membership(members)),
    };
    RaftEntry { log_id: to_raft_id(entry.id), payload }
}

pub(super) fn from_raft_entry(entry: RaftEntry<TypeConfig>) -> Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(CommandBytes(bytes)) => Payload::Command(bytes),
        EntryPayload::Membership(membership) => Payload::Members(from_raft_membership(&membership)),
    };
    Entry { id: to_entry_id(&entry.log_id), payload }
}

pub(super) fn to_raft_membership(members: Members) -> Membership<u64, BasicNode> {
    let nodes = members.addresses.into_iter().map(|(node, address)| (node, BasicNode::new(address)));
    Membership::new(members.voters, nodes.collect::<BTreeMap<_, _>>())
}

pub(super) fn from_raft_membership(membership: &Membership<u64, BasicNode>) -> Members {
    Members {
        voters: membership.get_joint_config().clone(),
        addresses: membership.nodes().map(|(node, basic)| (*node, basic.addr.clone())).collect(),
    }
}
