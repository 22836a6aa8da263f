//! The catalog's nouns. Meta owns and changes them; everyone else reads them through a `CatalogView`.

use crate::compression::Compression;
use crate::ids::{CatalogVersion, ChunkId, ColumnId, Epoch, GroupId, Incarnation, NodeId, ProducerId, Slot, TableId};
use crate::schema::TableSchema;
use crate::time::{TimeRange, TimeUs};

/// Default chunk interval of a timestamp or date dimension: 7 days, as TimescaleDB's.
pub const CHUNK_INTERVAL_US_DEFAULT: i64 = 7 * crate::time::US_PER_DAY;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub id: TableId,
    /// SQL schema, `public` unless said.
    pub namespace: String,
    pub name: String,
    pub schema: TableSchema,
    pub kind: TableKind,
    pub group: GroupId,
    /// Wanted number of copies of each chunk.
    pub replication_factor: u16,
    /// Version at which the table came to be.
    pub created: CatalogVersion,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// One chunk over all of time, kept whole (a reference table).
    Reference,
    Hypertable(Hypertable),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hypertable {
    /// TimescaleDB's hypertable_id: a small number of its own.
    pub id: u32,
    pub time_column: ColumnId,
    /// Width of a chunk, in [`TimeUs`] units of the time column.
    pub chunk_interval_us: i64,
    /// Hash dimensions, in order.
    pub space: Vec<SpaceDimension>,
    /// `None`: compression is not enabled.
    pub compression: Option<Compression>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceDimension {
    pub column: ColumnId,
    /// Cells that the hash is cut into; the product over all dimensions is the group's slot count.
    pub cells: u32,
}

/// Tables whose slots lie together: equal space-key types and cell counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementGroup {
    pub id: GroupId,
    /// Names of the space-key types with their cell counts: what makes two hypertables share a group.
    pub key: String,
    pub replication_factor: u16,
    /// Nodes that new chunks of each slot are put on, primary first; one entry per slot.
    pub slots: Vec<Vec<NodeId>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub id: ChunkId,
    /// Chunks are relations to SQL clients.
    pub oid: u32,
    pub table: TableId,
    pub slot: Slot,
    pub range: TimeRange,
    pub epoch: Epoch,
    pub primary: NodeId,
    /// Holds the primary.
    pub in_sync: Vec<NodeId>,
    pub followers: Vec<NodeId>,
    pub state: ChunkState,
    /// On each of its nodes the chunk lies so many shards behind the one of its slot.
    pub shard_turn: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkState {
    Active,
    /// Gone for every statement of this version or a newer one (R14); the files wait for older snapshots.
    Dropping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeRole {
    Access,
    Data,
}

impl NodeRole {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Data => "data",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    pub role: NodeRole,
    /// `host:port` of the node-to-node service.
    pub address: String,
    /// `host:port` of SQL, access nodes only.
    pub sql_address: Option<String>,
    /// User's name for it: `dn1`; unique per role.
    pub name: String,
    pub incarnation: Incarnation,
    /// Shards of a data node, 0 for an access node.
    pub shards: u16,
    pub state: NodeState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    Live,
    /// No heartbeat for longer than allowed.
    Dead,
    /// On its way out: takes no new chunks.
    Draining,
}

impl NodeState {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Dead => "dead",
            Self::Draining => "draining",
        }
    }
}

/// A cluster-wide setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub value: String,
}

/// One object of the catalog, as delivered to views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noun {
    Table(Table),
    Group(PlacementGroup),
    Chunk(Chunk),
    Node(Node),
    Setting(Setting),
}

/// Key of an object of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NounKey {
    Table(TableId),
    Group(GroupId),
    Chunk(ChunkId),
    Node(NodeId),
    Setting(String),
}

impl Noun {
    #[must_use]
    pub fn key(&self) -> NounKey {
        match self {
            Self::Table(table) => NounKey::Table(table.id),
            Self::Group(group) => NounKey::Group(group.id),
            Self::Chunk(chunk) => NounKey::Chunk(chunk.id),
            Self::Node(node) => NounKey::Node(node.id),
            Self::Setting(setting) => NounKey::Setting(setting.name.clone()),
        }
    }
}

/// A step from one catalog version to a later one, or, with `from` 0, a whole catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogDelta {
    pub from: CatalogVersion,
    pub to: CatalogVersion,
    pub changed: Vec<Noun>,
    pub removed: Vec<NounKey>,
}

/// A cell of a table that a writer needs a chunk for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell {
    pub table: TableId,
    pub slot: Slot,
    /// Start of the chunk interval; [`TimeUs::NEG_INFINITY`] for a reference table.
    pub start: TimeUs,
}

impl Table {
    #[must_use]
    pub fn hypertable(&self) -> Option<&Hypertable> {
        match &self.kind {
            TableKind::Hypertable(hypertable) => Some(hypertable),
            TableKind::Reference => None,
        }
    }

    /// Cells per space dimension; empty for a reference table and a hypertable without one.
    #[must_use]
    pub fn space_cells(&self) -> Vec<u32> {
        self.hypertable().map_or_else(Vec::new, |h| h.space.iter().map(|d| d.cells).collect())
    }

    /// The chunk range that holds `time`.
    #[must_use]
    pub fn chunk_range(&self, time: TimeUs) -> TimeRange {
        self.hypertable().map_or(TimeRange::ALL, |h| crate::time::chunk_range(time, h.chunk_interval_us))
    }
}

/// What a gateway is given at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    pub id: ProducerId,
}
