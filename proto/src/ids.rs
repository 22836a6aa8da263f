//! Identities. Every one is its own type, so that two of them cannot be swapped in a call.

use std::fmt;

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $raw);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl From<$raw> for $name {
            fn from(raw: $raw) -> Self {
                Self(raw)
            }
        }

        impl From<$name> for $raw {
            fn from(id: $name) -> $raw {
                id.0
            }
        }
    };
}

identity!(
    /// A process of the cluster with one role. Given once by the catalog, never reused.
    NodeId(u64)
);
identity!(
    /// A shard within one data node, from 0.
    ShardId(u16)
);
identity!(
    /// A table: its PostgreSQL OID, at least [`FIRST_OID`].
    TableId(u32)
);
identity!(
    /// A column within its table, from 1, never reused: PostgreSQL's `attnum`.
    ColumnId(u16)
);
identity!(
    /// A placement group.
    GroupId(u32)
);
identity!(
    /// A hash cell of a space key.
    Slot(u32)
);
identity!(
    /// A time x space cell of a table.
    ChunkId(u64)
);
identity!(
    /// An immutable file of a chunk, counted per chunk.
    SegmentId(u64)
);
identity!(
    /// Number of a chunk's replica configuration; a higher one fences the lower ones.
    Epoch(u64)
);
identity!(
    /// Position in a chunk's replicated log, from 1, equal on all replicas. 0 is before the first record.
    Lsn(u64)
);
identity!(
    /// Oracle timestamp. 0 is before everything.
    Ts(u64)
);
identity!(
    /// Version of the catalog: the index of the last Raft entry that changed it.
    CatalogVersion(u64)
);
identity!(
    /// Version of one table's schema, from 1.
    SchemaVersion(u32)
);
identity!(
    /// Start of a node's process, counted on its disk and in meta.
    Incarnation(u64)
);
identity!(
    /// Random number of one start of a process: tells it from one that was started on a copy of its folder.
    StartMark(u64)
);
identity!(
    /// One life of a gateway, as far as deduplication goes. Given by the catalog at each start of a gateway.
    ProducerId(u64)
);
identity!(
    /// A transaction of one producer, from 1.
    Sequence(u64)
);
identity!(
    /// A statement within its transaction, from 0. A statement sees what lower ones of its transaction staged.
    CommandId(u32)
);

impl StartMark {
    /// Not said: by data nodes, and in folders of before there were marks.
    pub const NONE: Self = Self(0);

    #[must_use]
    pub fn is_said(self) -> bool {
        self != Self::NONE
    }
}

/// First OID that the catalog hands out; those below belong to PostgreSQL's own objects.
pub const FIRST_OID: u32 = 16_384;

/// The cluster's own name for itself, random, given at `cluster init`. Written into every data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A transaction's identity, carried by every message that appends (R10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId {
    pub producer: ProducerId,
    pub sequence: Sequence,
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.producer, self.sequence)
    }
}

impl Lsn {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Epoch {
    /// The configuration after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
