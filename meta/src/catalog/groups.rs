//! Placement groups. Hypertables with the same hash dimensions, replication factor and nodes share one; every table
//! without hash dimension has its own, so that small tables spread over nodes and shards.

use std::collections::BTreeMap;

use meridian_proto::catalog::{Hypertable, Node, NodeRole, NodeState, NounKey, PlacementGroup, Table};
use meridian_proto::{GroupId, NodeId, TableId};

use super::Catalog;
use super::hypertables::hash_class;
use crate::placement::{Candidate, Placement, Problem, place};

/// Start of the key of a group whose one slot lists every node, and whose chunks start on them in turn.
const ROTATING: &str = "time";
/// What stands between the dimensions of a key and the nodes that the user chose.
const PINNED: &str = " on ";

impl Catalog {
    pub(super) fn create_reference_group(&mut self, table: TableId) -> GroupId {
        self.create_group(format!("reference({table})"), 1, 1)
    }

    /// The group of a new hypertable: an existing one with the same key, or its own.
    pub(super) fn hypertable_group(
        &mut self,
        table: &Table,
        hypertable: &Hypertable,
        replication_factor: u16,
        pinned: &[NodeId],
    ) -> GroupId {
        let key = group_key(table, hypertable, pinned);
        let existing = self.groups.values().find(|g| g.key == key && g.replication_factor == replication_factor);
        if let Some(group) = existing {
            return group.id;
        }
        let slots = hypertable.space.iter().map(|dimension| dimension.cells as usize).product();
        self.create_group(key, replication_factor, slots)
    }

    fn create_group(&mut self, key: String, replication_factor: u16, slot_count: usize) -> GroupId {
        self.counters.group += 1;
        let id = GroupId(self.counters.group);
        let mut group = PlacementGroup { id, key, replication_factor, slots: vec![Vec::new(); slot_count] };
        group.slots = self.place_group(&group, true);
        self.put_group(group);
        id
    }

    pub(super) fn drop_group_if_unused(&mut self, id: GroupId) {
        if self.tables.values().all(|table| table.group != id) {
            self.remove_group(id);
        }
    }

    pub(super) fn remove_group(&mut self, id: GroupId) {
        if self.groups.remove(&id).is_some() {
            self.changed.insert(NounKey::Group(id));
        }
    }

    /// After data nodes came or went: groups without chunks are placed anew, others only where they lost a node.
    pub(super) fn replace_groups(&mut self) {
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        let in_use: Vec<GroupId> =
            self.chunks.values().filter_map(|chunk| Some(self.tables.get(&chunk.table)?.group)).collect();
        for id in groups {
            let group = &self.groups[&id];
            let slots = self.place_group(group, !in_use.contains(&id));
            if slots != group.slots {
                let group = PlacementGroup { slots, ..PlacementGroup::clone(group) };
                self.put_group(group);
            }
        }
    }

    fn place_group(&self, group: &PlacementGroup, may_move: bool) -> Placement {
        let pinned = pinned_nodes(&group.key);
        let chosen = |node: &&Node| pinned.as_ref().is_none_or(|pinned| pinned.contains(&node.id));
        let stays = |node: &&Node| node.state != NodeState::Draining;
        let eligible: Vec<&Node> = self.data_nodes().filter(stays).filter(chosen).collect();
        if is_rotating(group) {
            return vec![eligible.iter().map(|node| node.id).collect()];
        }
        // A node that is down now keeps what it has, but is given nothing while others live.
        let holds = |node: &Node| group.slots.iter().any(|slot| slot.contains(&node.id));
        let nobody_lives = eligible.iter().all(|node| node.state != NodeState::Live);
        let loads = self.slots_per_node(group.id);
        let candidates = eligible
            .iter()
            .filter(|node| nobody_lives || node.state == NodeState::Live || (!may_move && holds(node)))
            .map(|node| Candidate {
                node: node.id,
                weight: u32::from(node.shards),
                load: loads.get(&node.id).copied().unwrap_or(0),
            })
            .collect();
        let copies = usize::from(group.replication_factor);
        place(&Problem { candidates, slot_count: group.slots.len(), copies, may_move }, &group.slots)
    }

    /// Slots that each node leads in groups other than `except`.
    fn slots_per_node(&self, except: GroupId) -> BTreeMap<NodeId, u64> {
        let mut counts = BTreeMap::new();
        for group in self.groups.values().filter(|group| group.id != except && !is_rotating(group)) {
            for primary in group.slots.iter().filter_map(|nodes| nodes.first()) {
                *counts.entry(*primary).or_default() += 1;
            }
        }
        counts
    }

    pub(super) fn data_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().map(|node| &**node).filter(|node| node.role == NodeRole::Data)
    }

    pub(super) fn live_data_nodes(&self) -> impl Iterator<Item = &Node> {
        self.data_nodes().filter(|node| node.state == NodeState::Live)
    }
}

/// Whether the one slot of a group lists all its nodes, whose turn goes by the interval.
pub(super) fn is_rotating(group: &PlacementGroup) -> bool {
    group.key.starts_with(ROTATING)
}

/// For `hash(text:4, int:16) on 3,4`: two dimensions, kept on nodes 3 and 4.
fn group_key(table: &Table, hypertable: &Hypertable, pinned: &[NodeId]) -> String {
    let dimension = |column, cells| {
        let class = table.schema.column(column).and_then(|column| hash_class(&column.sql_type)).unwrap_or("none");
        format!("{class}:{cells}")
    };
    let dimensions: Vec<String> = hypertable.space.iter().map(|d| dimension(d.column, d.cells)).collect();
    let mut key = if dimensions.is_empty() {
        format!("{ROTATING}({})", table.id)
    } else {
        format!("hash({})", dimensions.join(", "))
    };
    if !pinned.is_empty() {
        let nodes: Vec<String> = pinned.iter().map(NodeId::to_string).collect();
        key.push_str(PINNED);
        key.push_str(&nodes.join(","));
    }
    key
}

/// The nodes that the user chose, or `None` for all.
fn pinned_nodes(key: &str) -> Option<Vec<NodeId>> {
    let (_, nodes) = key.split_once(PINNED)?;
    Some(nodes.split(',').filter_map(|node| node.parse().ok().map(NodeId)).collect())
}
