//! Commands to the catalog: what a Raft entry asks for. Meta answers each with a [`Reply`] or a refusal.

use crate::catalog::{Cell, NodeRole, NodeState};
use crate::compression::CompressionChange;
use crate::ids::{ChunkId, Epoch, GroupId, NodeId, ProducerId, TableId, Ts};
use crate::schema::Column;
use crate::start::Start;

/// A change of the catalog. Applying one is synchronous and total; a refused one is an ordinary answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    CreateTable(CreateTable),
    DropTable {
        namespace: String,
        name: String,
        if_exists: bool,
    },
    CreateHypertable(CreateHypertable),
    SetCompression(SetCompression),
    /// Idempotent: cells that have a chunk keep it.
    AllocateChunks {
        cells: Vec<Cell>,
        /// Whether chunks of tables without space key are put on the shards of their node in turn.
        takes_turns: bool,
    },
    /// A node comes into the cluster, or comes back under another address. Idempotent by (role, name).
    JoinNode(JoinNode),
    /// A process of a node has started (R3): raises the epoch of every chunk that it led, in this one entry.
    StartNode {
        start: Start,
        address: String,
        sql_address: Option<String>,
        shards: u16,
    },
    SetNodeState {
        node: NodeId,
        state: NodeState,
    },
    /// Refused while the node holds chunks.
    RemoveNode {
        node: NodeId,
    },
    SetSetting {
        name: String,
        value: Option<String>,
    },
    /// Ends the seal of a chunk by raising its epoch, unless that is another one by now.
    ReopenChunk {
        chunk: ChunkId,
        epoch: Epoch,
    },
    AllocateProducer,
    /// Timestamps up to this one may be handed out by the leader that proposed it (R1). Not a catalog change.
    ExtendOracle {
        upto: Ts,
    },
    /// DDL of one transaction: all or none, one catalog version (promise 4).
    Batch(Vec<Command>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTable {
    pub namespace: String,
    pub name: String,
    /// Ids are given by the catalog, in order, from 1; those here are ignored.
    pub columns: Vec<Column>,
    pub if_not_exists: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateHypertable {
    pub namespace: String,
    pub table: String,
    pub time_column: String,
    /// Hash dimensions: column, and cells or `None` for the default.
    pub space: Vec<(String, Option<u32>)>,
    /// `None`: the default of the column's type.
    pub chunk_interval_us: Option<i64>,
    /// `None`: the setting `timescaledb.hypertable_replication_factor_default`, else 1.
    pub replication_factor: Option<u16>,
    /// Names of the data nodes to use; empty for all.
    pub data_nodes: Vec<String>,
    pub if_not_exists: bool,
    /// The table's chunks, sealed by their primaries without a row in these epochs. Refused when there is another one.
    pub sealed: Vec<(ChunkId, Epoch)>,
}

/// `ALTER TABLE ... SET (timescaledb.compress ...)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetCompression {
    pub namespace: String,
    pub table: String,
    /// `None`: compression is turned off.
    pub change: Option<CompressionChange>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinNode {
    pub role: NodeRole,
    /// Empty: the catalog names it `an1`, `dn1`, ...
    pub name: String,
    pub address: String,
    pub sql_address: Option<String>,
    pub shards: u16,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done, with nothing to say.
    Done,
    /// Nothing to do: it exists already, or does not (IF [NOT] EXISTS). Text for a NOTICE.
    Skipped(String),
    Table {
        id: TableId,
        group: GroupId,
    },
    Hypertable {
        id: u32,
        table: TableId,
        created: bool,
    },
    Chunks(Vec<ChunkId>),
    Node(NodeId),
    Producer(ProducerId),
    Batch(Vec<Reply>),
}
