//! The catalog at one version, immutable. A newer one shares with it whatever did not change.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use meridian_proto::catalog::{
    CatalogDelta, Cell, Chunk, Node, NodeRole, NodeState, Noun, NounKey, PlacementGroup, Table,
};
use meridian_proto::slot::shard_of;
use meridian_proto::{CatalogVersion, ChunkId, GroupId, NodeId, ShardId, TableId};

#[derive(Clone, Debug, Default)]
pub struct CatalogView {
    version: CatalogVersion,
    tables: Arc<BTreeMap<TableId, Arc<Table>>>,
    names: Arc<HashMap<(String, String), TableId>>,
    groups: Arc<BTreeMap<GroupId, Arc<PlacementGroup>>>,
    /// By table, slot and start, so that a table's chunks are one range.
    chunks: Arc<BTreeMap<Cell, Arc<Chunk>>>,
    cells: Arc<HashMap<ChunkId, Cell>>,
    nodes: Arc<BTreeMap<NodeId, Arc<Node>>>,
    settings: Arc<BTreeMap<String, String>>,
}

/// A delta that does not start at the view's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a change from catalog version {from} does not apply to version {have}")]
pub struct DeltaGap {
    pub from: CatalogVersion,
    pub have: CatalogVersion,
}

impl CatalogView {
    #[must_use]
    pub fn version(&self) -> CatalogVersion {
        self.version
    }

    #[must_use]
    pub fn table(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables.get(&id)
    }

    #[must_use]
    pub fn table_by_name(&self, namespace: &str, name: &str) -> Option<&Arc<Table>> {
        self.tables.get(self.names.get(&(namespace.to_owned(), name.to_owned()))?)
    }

    /// By id.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }

    #[must_use]
    pub fn chunk(&self, id: ChunkId) -> Option<&Arc<Chunk>> {
        self.chunks.get(self.cells.get(&id)?)
    }

    #[must_use]
    pub fn chunk_at(&self, cell: Cell) -> Option<&Arc<Chunk>> {
        self.chunks.get(&cell)
    }

    /// A table's chunks by slot and start.
    pub fn chunks_of(&self, table: TableId) -> impl Iterator<Item = &Arc<Chunk>> {
        let first = Cell { table, slot: 0.into(), start: meridian_proto::TimeUs::NEG_INFINITY };
        self.chunks.range(first..).take_while(move |(cell, _)| cell.table == table).map(|(_, chunk)| chunk)
    }

    pub fn chunks(&self) -> impl Iterator<Item = &Arc<Chunk>> {
        self.chunks.values()
    }

    #[must_use]
    pub fn group(&self, id: GroupId) -> Option<&Arc<PlacementGroup>> {
        self.groups.get(&id)
    }

    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// By id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    pub fn data_nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes().filter(|node| node.role == NodeRole::Data)
    }

    pub fn live_data_nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.data_nodes().filter(|node| node.state == NodeState::Live)
    }

    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// The primary of a chunk and the shard there.
    #[must_use]
    pub fn shard_of(&self, chunk: &Chunk) -> Option<(NodeId, ShardId)> {
        let node = self.node(chunk.primary)?;
        let group = self.table(chunk.table)?.group;
        (node.shards > 0).then(|| (node.id, shard_of(group, chunk.slot, chunk.shard_turn, node.shards)))
    }

    /// The view after a change.
    pub fn apply(&self, delta: &CatalogDelta) -> Result<Self, DeltaGap> {
        let whole = delta.from == CatalogVersion(0);
        if !whole && delta.from != self.version {
            return Err(DeltaGap { from: delta.from, have: self.version });
        }
        let mut next = if whole { Self::default() } else { self.clone() };
        next.version = delta.to;
        for key in &delta.removed {
            next.remove(key);
        }
        for noun in &delta.changed {
            next.remove(&noun.key());
            next.insert(noun);
        }
        Ok(next)
    }

    fn remove(&mut self, key: &NounKey) {
        match key {
            NounKey::Table(id) => {
                if let Some(table) = Arc::make_mut(&mut self.tables).remove(id) {
                    Arc::make_mut(&mut self.names).remove(&(table.namespace.clone(), table.name.clone()));
                }
            }
            NounKey::Group(id) => {
                Arc::make_mut(&mut self.groups).remove(id);
            }
            NounKey::Chunk(id) => {
                if let Some(cell) = Arc::make_mut(&mut self.cells).remove(id) {
                    Arc::make_mut(&mut self.chunks).remove(&cell);
                }
            }
            NounKey::Node(id) => {
                Arc::make_mut(&mut self.nodes).remove(id);
            }
            NounKey::Setting(name) => {
                Arc::make_mut(&mut self.settings).remove(name);
            }
        }
    }

    fn insert(&mut self, noun: &Noun) {
        match noun {
            Noun::Table(table) => {
                Arc::make_mut(&mut self.names).insert((table.namespace.clone(), table.name.clone()), table.id);
                Arc::make_mut(&mut self.tables).insert(table.id, Arc::new(table.clone()));
            }
            Noun::Group(group) => {
                Arc::make_mut(&mut self.groups).insert(group.id, Arc::new(group.clone()));
            }
            Noun::Chunk(chunk) => {
                let cell = Cell { table: chunk.table, slot: chunk.slot, start: chunk.range.start };
                Arc::make_mut(&mut self.cells).insert(chunk.id, cell);
                Arc::make_mut(&mut self.chunks).insert(cell, Arc::new(chunk.clone()));
            }
            Noun::Node(node) => {
                Arc::make_mut(&mut self.nodes).insert(node.id, Arc::new(node.clone()));
            }
            Noun::Setting(setting) => {
                Arc::make_mut(&mut self.settings).insert(setting.name.clone(), setting.value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use meridian_proto::catalog::{ChunkState, Setting};
    use meridian_proto::{Epoch, Slot, TimeRange, TimeUs};

    use super::*;

    fn chunk(id: u64, table: u32, slot: u32, start: i64) -> Noun {
        Noun::Chunk(Chunk {
            id: ChunkId(id),
            oid: 20_000 + id as u32,
            table: TableId(table),
            slot: Slot(slot),
            range: TimeRange { start: TimeUs(start), end: TimeUs(start + 10) },
            epoch: Epoch(1),
            primary: NodeId(2),
            in_sync: vec![NodeId(2)],
            followers: vec![],
            state: ChunkState::Active,
            shard_turn: 0,
        })
    }

    fn delta(from: u64, to: u64, changed: Vec<Noun>, removed: Vec<NounKey>) -> CatalogDelta {
        CatalogDelta { from: CatalogVersion(from), to: CatalogVersion(to), changed, removed }
    }

    #[test]
    fn chunks_of_a_table_come_by_slot_and_start() {
        let changed = vec![chunk(1, 7, 1, 0), chunk(2, 7, 0, 10), chunk(3, 7, 0, -10), chunk(4, 8, 0, 0)];
        let view = CatalogView::default().apply(&delta(0, 5, changed, vec![])).unwrap();
        let ids: Vec<_> = view.chunks_of(TableId(7)).map(|chunk| chunk.id.0).collect();
        assert_eq!(ids, [3, 2, 1]);
        let next = view.apply(&delta(5, 6, vec![], vec![NounKey::Chunk(ChunkId(2))])).unwrap();
        assert!(next.chunk(ChunkId(2)).is_none());
        assert!(view.chunk(ChunkId(2)).is_some(), "an older view keeps what it had");
    }

    #[test]
    fn a_gap_is_refused_and_a_whole_catalog_is_not() {
        let setting = Noun::Setting(Setting { name: "a".to_owned(), value: "1".to_owned() });
        let view = CatalogView::default().apply(&delta(0, 5, vec![setting], vec![])).unwrap();
        assert!(view.apply(&delta(4, 6, vec![], vec![])).is_err());
        let whole = view.apply(&delta(0, 9, vec![], vec![])).unwrap();
        assert_eq!((whole.version(), whole.setting("a")), (CatalogVersion(9), None));
    }
}
