//! The protocol cores under seeds: the replica core of the engine and the coordinator core of the client, in a world
//! whose time, network and crashes come from one random sequence. Same seed, same run.
//!
//! `chunk` is a primary with its log; `gateway` runs transactions and reads; `world` moves messages between them, loses,
//! doubles and delays them, and crashes primaries; the checks are in `promises`. A simulator is trusted only after it has
//! caught planted bugs: [`Plant`] names those that it must catch.
//!
//! `engine` is another world: a whole shard, with its log, flushes, compaction and compression as they are, on a disk that
//! tears, loses, misdirects and rots, under crashes at any operation; `ledger` is what its clients know.

pub mod chunk;
pub mod engine;
pub mod gateway;
pub mod ledger;
pub mod message;
pub mod promises;
pub mod seeds;
pub mod steps;
pub mod world;

/// A bug that is built into a run on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// R3: whoever takes office does not ask the oracle and begins with a `max_read_ts` of 0.
    MaxReadZeroInOffice,
    /// R5: readers skip records that are appended but not synced.
    ReaderSkipsPending,
    /// R12: readers take foreign stages for uncommitted without asking their holder.
    ReaderAsksNobody,
    /// R4: the commit timestamp ignores what the participants answered.
    FloorIgnoresParticipants,
    /// R10: the gateway repeats an unanswered write under a new identity.
    RepeatUnderNewIdentity,
}

impl Plant {
    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        PLANTS.into_iter().find(|plant| format!("{plant:?}") == name)
    }
}

/// All of them.
pub const PLANTS: [Plant; 5] = [
    Plant::MaxReadZeroInOffice,
    Plant::ReaderSkipsPending,
    Plant::ReaderAsksNobody,
    Plant::FloorIgnoresParticipants,
    Plant::RepeatUnderNewIdentity,
];
