//! Refusals: what a node answers when the caller, an operator or time has to act. Each has the SQLSTATE that tells a
//! client what it may do (R25): 40001, 53xxx and 57P0x mean surely not applied, 08007 means unknown.

use crate::ids::{CatalogVersion, ChunkId, Epoch, SchemaVersion, Ts};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller routed by an old configuration; it looks at a newer view and tries again.
    #[error("chunk {chunk} is at epoch {current}, the request was made for {asked}")]
    StaleEpoch { chunk: ChunkId, asked: Epoch, current: Epoch },
    /// The node does not lead this chunk, by the catalog version it knows.
    #[error("chunk {chunk} is not led here as of catalog version {known}")]
    NotPrimary { chunk: ChunkId, known: CatalogVersion },
    #[error("chunk {0} is being dropped")]
    Dropping(ChunkId),
    /// The rows were made under another schema version (R18).
    #[error("rows have schema version {asked}, the table is at {current}")]
    SchemaVersion { asked: SchemaVersion, current: SchemaVersion },
    /// A snapshot that the oracle cannot have issued, or below the history horizon.
    #[error("snapshot {snapshot} cannot be read here: {reason}")]
    Snapshot { snapshot: Ts, reason: String },
    /// The transaction was aborted, or its stage is gone.
    #[error("the transaction was aborted: {0}")]
    Aborted(String),
    /// A concurrent change; run again with a new snapshot.
    #[error("could not serialize access: {0}")]
    Conflict(String),
    /// Below the low-water mark of the dedupe window (R10): neither applied nor acknowledged now, perhaps earlier.
    #[error("the outcome of the request is unknown: {0}")]
    OutcomeUnknown(String),
    #[error("out of memory: {0}")]
    Memory(String),
    /// A queue is full.
    #[error("too many requests: {0}")]
    Overloaded(String),
    #[error("no space left: {0}")]
    DiskFull(String),
    /// Starting, draining, without a quorum, or not reachable; surely not applied.
    #[error("not available: {0}")]
    Unavailable(String),
    /// A data node that counts as dead and does not answer: nobody waits for it. Surely not applied.
    #[error("not available: {0}")]
    NodeDown(String),
    /// Stored bytes are not what was written. For the operator.
    #[error("data is damaged: {0}")]
    Corruption(String),
    /// The caller broke the protocol; a bug, or another version.
    #[error("bad request: {0}")]
    Protocol(String),
    #[error("canceling statement due to user request")]
    Canceled,
    /// A catalog command that cannot be applied, with the SQLSTATE that PostgreSQL gives.
    #[error("{message}")]
    Catalog { sqlstate: String, message: String, hint: Option<String> },
    /// A statement failed while it ran on a data node, with its own SQLSTATE (22012 and the like).
    #[error("{message}")]
    Statement { sqlstate: String, message: String },
}

impl Refusal {
    /// A refused catalog command.
    #[must_use]
    pub fn catalog(sqlstate: &str, message: impl Into<String>) -> Self {
        Self::Catalog { sqlstate: sqlstate.to_owned(), message: message.into(), hint: None }
    }

    /// The SQLSTATE that a client sees when nobody on the way can help.
    #[must_use]
    pub fn sqlstate(&self) -> &str {
        match self {
            Self::StaleEpoch { .. } | Self::NotPrimary { .. } | Self::Unavailable(_) | Self::NodeDown(_) => "57P03",
            Self::Dropping(_) | Self::SchemaVersion { .. } | Self::Aborted(_) | Self::Conflict(_) => "40001",
            Self::Snapshot { .. } => "72000",
            Self::OutcomeUnknown(_) => "08007",
            Self::Memory(_) => "53200",
            Self::Overloaded(_) => "53300",
            Self::DiskFull(_) => "53100",
            Self::Corruption(_) => "XX001",
            Self::Protocol(_) => "08P01",
            Self::Canceled => "57014",
            Self::Catalog { sqlstate, .. } | Self::Statement { sqlstate, .. } => sqlstate,
        }
    }

    /// Whether the same request, sent by a newer view or a little later, may succeed.
    #[must_use]
    pub fn is_routing(&self) -> bool {
        matches!(self, Self::StaleEpoch { .. } | Self::NotPrimary { .. } | Self::Unavailable(_))
    }
}
