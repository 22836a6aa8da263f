//! What travels between gateways and primaries.

use meridian_engine::replica::{Answer, Decide, Decision, Question, Resolve, WriteAnswer, WriteRequest};
use meridian_proto::{ChunkId, Epoch, TransactionId, Ts};

/// A gateway's call; the answer carries the same number.
pub type CallId = u64;

#[derive(Clone, Debug)]
pub enum Request {
    Write(WriteRequest),
    Decide(Decide),
    Resolve(Resolve),
    Outcome(Question),
    /// Raises `max_read_ts`, then waits for what is pending below the snapshot.
    BeginRead {
        epoch: Epoch,
        snapshot: Ts,
    },
    /// Rows at the snapshot, with what the reader learned of foreign stages.
    Read {
        epoch: Epoch,
        snapshot: Ts,
        resolved: Vec<(TransactionId, Ts)>,
    },
}

#[derive(Clone, Debug)]
pub enum Response {
    Written {
        answer: WriteAnswer,
        max_read: Ts,
    },
    Decided(Decision),
    Resolved,
    Outcome(Answer),
    ReadBegun {
        foreign: Vec<(TransactionId, ChunkId)>,
    },
    /// Pieces per transaction.
    Rows(Vec<(TransactionId, usize)>),
    /// Not here, not now, or not in this epoch.
    Refused {
        retry: bool,
    },
}

/// In flight.
#[derive(Clone, Debug)]
pub enum Message {
    ToChunk { chunk: ChunkId, call: CallId, gateway: usize, request: Request },
    ToGateway { gateway: usize, call: CallId, response: Response },
}
