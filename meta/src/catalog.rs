//! The catalog: what exists in the cluster and where it lies. Every member applies the same commands in the same order
//! and so has the same catalog: applying is synchronous, total and pure. A refused command is an ordinary answer.

mod chunks;
mod compression;
mod groups;
mod history;
mod hypertables;
pub mod image;
mod nodes;
mod proposals;
mod settings;
mod tables;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use history::History;
use meridian_proto::catalog::{
    CatalogDelta, Cell, Chunk, Node, NodeRole, Noun, NounKey, PlacementGroup, Setting, Table,
};
use meridian_proto::command::{Command, Reply};
use meridian_proto::{CatalogVersion, ChunkId, GroupId, NodeId, Refusal, StartMark, TableId, Ts};
use proposals::Proposals;
pub use proposals::{Answer, Proposal};
pub use settings::REPLICATION_FACTOR_DEFAULT;

/// What a command came to.
pub type Outcome = Result<Reply, Refusal>;

/// The catalog's state. Nouns are shared between clones, so that a clone costs pointers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    version: CatalogVersion,
    counters: Counters,
    tables: BTreeMap<TableId, Arc<Table>>,
    /// By SQL schema and name.
    names: BTreeMap<(String, String), TableId>,
    groups: BTreeMap<GroupId, Arc<PlacementGroup>>,
    chunks: BTreeMap<ChunkId, Arc<Chunk>>,
    cells: BTreeMap<Cell, ChunkId>,
    nodes: BTreeMap<NodeId, Arc<Node>>,
    /// Of the last start of each node that says one.
    marks: BTreeMap<NodeId, StartMark>,
    settings: BTreeMap<String, String>,
    /// Timestamps up to this one may have been handed out.
    oracle_upto: Ts,
    proposals: Proposals,
    /// Keys of nouns that came, went or changed since the last [`Catalog::take_changed`].
    changed: BTreeSet<NounKey>,
}

/// The last id given of each kind: none is given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counters {
    oid: u32,
    hypertable: u32,
    group: u32,
    chunk: u64,
    node: u64,
    producer: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self { oid: meridian_proto::FIRST_OID - 1, hypertable: 0, group: 0, chunk: 0, node: 0, producer: 0 }
    }
}

impl Catalog {
    /// Applies a command that stands at `index` of the log. A refused one leaves everything as it was.
    ///
    /// # Panics
    /// When `index` is not above that of the last change: entries are applied in order, once.
    pub fn apply(&mut self, index: u64, command: Command) -> Outcome {
        let version = CatalogVersion(index);
        assert!(version > self.version, "entry {index} is applied after version {}", self.version);
        let changed_before = std::mem::take(&mut self.changed);
        let outcome = match command {
            Command::Batch(commands) => self.apply_batch(version, commands),
            command => self.apply_one(version, command),
        };
        // A batch that was undone, and a command without effect, make no version.
        if !self.changed.is_empty() {
            self.version = version;
        }
        self.changed.extend(changed_before);
        debug_assert_eq!(self.validate(), Ok(()));
        outcome
    }

    /// All or nothing (promise 4).
    fn apply_batch(&mut self, version: CatalogVersion, commands: Vec<Command>) -> Outcome {
        let before = self.clone();
        let replies: Result<Vec<_>, _> = commands.into_iter().map(|command| self.apply_one(version, command)).collect();
        match replies {
            Ok(replies) => Ok(Reply::Batch(replies)),
            Err(refusal) => {
                *self = before;
                Err(refusal)
            }
        }
    }

    fn apply_one(&mut self, version: CatalogVersion, command: Command) -> Outcome {
        match command {
            Command::CreateTable(create) => self.create_table(version, create),
            Command::DropTable { namespace, name, if_exists } => self.drop_table(&namespace, &name, if_exists),
            Command::CreateHypertable(create) => self.create_hypertable(create),
            Command::SetCompression(set) => self.set_compression(&set),
            Command::AllocateChunks { cells, takes_turns } => self.allocate_chunks(&cells, takes_turns),
            Command::JoinNode(join) => self.join_node(join),
            Command::StartNode { start, address, sql_address, shards } => {
                self.start_node(&start, nodes::Announcement { address, sql_address, shards })
            }
            Command::SetNodeState { node, state } => self.set_node_state(node, state),
            Command::RemoveNode { node } => self.remove_node(node),
            Command::SetSetting { name, value } => self.set_setting(name, value),
            Command::ReopenChunk { chunk, epoch } => self.reopen_chunk(chunk, epoch),
            Command::AllocateProducer => {
                self.counters.producer += 1;
                Ok(Reply::Producer(self.counters.producer.into()))
            }
            Command::ExtendOracle { upto } => self.extend_oracle(upto),
            Command::Batch(_) => Err(Refusal::Protocol("a batch within a batch".to_owned())),
        }
    }

    fn extend_oracle(&mut self, upto: Ts) -> Outcome {
        if upto <= self.oracle_upto {
            return Err(Refusal::Protocol(format!("timestamps up to {} are given out already", self.oracle_upto)));
        }
        self.oracle_upto = upto;
        Ok(Reply::Done)
    }

    #[must_use]
    pub fn version(&self) -> CatalogVersion {
        self.version
    }

    /// Timestamps up to this one may have been handed out.
    #[must_use]
    pub fn oracle_upto(&self) -> Ts {
        self.oracle_upto
    }

    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// By id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    pub fn access_nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes().filter(|node| node.role == NodeRole::Access)
    }

    /// Whether a node of this id is or was in the cluster.
    #[must_use]
    pub fn gave_node_id(&self, id: NodeId) -> bool {
        id.0 > 0 && id.0 <= self.counters.node
    }

    pub fn chunks(&self) -> impl Iterator<Item = &Arc<Chunk>> {
        self.chunks.values()
    }

    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// The newest state of a noun, unless it is gone.
    #[must_use]
    pub fn noun(&self, key: &NounKey) -> Option<Noun> {
        Some(match key {
            NounKey::Table(id) => Noun::Table(Table::clone(self.tables.get(id)?)),
            NounKey::Group(id) => Noun::Group(PlacementGroup::clone(self.groups.get(id)?)),
            NounKey::Chunk(id) => Noun::Chunk(Chunk::clone(self.chunks.get(id)?)),
            NounKey::Node(id) => Noun::Node(Node::clone(self.nodes.get(id)?)),
            NounKey::Setting(name) => {
                Noun::Setting(Setting { name: name.clone(), value: self.settings.get(name)?.clone() })
            }
        })
    }

    /// The whole catalog as a change from nothing.
    #[must_use]
    pub fn whole(&self) -> CatalogDelta {
        let settings = self.settings.iter();
        let changed = (self.groups.values().map(|group| Noun::Group(PlacementGroup::clone(group))))
            .chain(self.nodes.values().map(|node| Noun::Node(Node::clone(node))))
            .chain(self.tables.values().map(|table| Noun::Table(Table::clone(table))))
            .chain(self.chunks.values().map(|chunk| Noun::Chunk(Chunk::clone(chunk))))
            .chain(settings.map(|(name, value)| Noun::Setting(Setting { name: name.clone(), value: value.clone() })))
            .collect();
        CatalogDelta { from: CatalogVersion(0), to: self.version, changed, removed: Vec::new() }
    }

    /// Keys of the nouns that came, went or changed since this was last asked.
    pub fn take_changed(&mut self) -> Vec<NounKey> {
        std::mem::take(&mut self.changed).into_iter().collect()
    }

    fn next_oid(&mut self) -> u32 {
        self.counters.oid += 1;
        self.counters.oid
    }

    fn put_table(&mut self, table: Table) {
        self.changed.insert(NounKey::Table(table.id));
        self.names.insert((table.namespace.clone(), table.name.clone()), table.id);
        self.tables.insert(table.id, Arc::new(table));
    }

    fn put_group(&mut self, group: PlacementGroup) {
        self.changed.insert(NounKey::Group(group.id));
        self.groups.insert(group.id, Arc::new(group));
    }

    fn put_chunk(&mut self, chunk: Chunk) {
        self.changed.insert(NounKey::Chunk(chunk.id));
        self.cells.insert(chunk_cell(&chunk), chunk.id);
        self.chunks.insert(chunk.id, Arc::new(chunk));
    }

    fn put_node(&mut self, node: Node) {
        self.changed.insert(NounKey::Node(node.id));
        self.nodes.insert(node.id, Arc::new(node));
    }
}

fn chunk_cell(chunk: &Chunk) -> Cell {
    Cell { table: chunk.table, slot: chunk.slot, start: chunk.range.start }
}
