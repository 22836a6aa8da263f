//! Nodes: they join under an id that is never given again, and count their starts.

use meridian_proto::catalog::{Node, NodeRole, NodeState, NounKey};
use meridian_proto::command::{JoinNode, Reply};
use meridian_proto::start::{HeardStart, Start};
use meridian_proto::{Incarnation, NodeId, Refusal};

use super::{Catalog, Outcome};

/// What a process of a node tells with its start.
pub(super) struct Announcement {
    pub address: String,
    pub sql_address: Option<String>,
    pub shards: u16,
}

impl Catalog {
    /// A node comes in. It counts as dead until its first process has started.
    pub(super) fn join_node(&mut self, join: JoinNode) -> Outcome {
        if join.address.is_empty() {
            return Err(Refusal::catalog("22023", "a node needs an address"));
        }
        if join.role == NodeRole::Data && join.shards == 0 {
            return Err(Refusal::catalog("22023", "a data node needs at least one shard"));
        }
        let same = |node: &&Node| match join.name.is_empty() {
            true => node.address == join.address,
            false => node.name == join.name,
        };
        let existing = self.nodes.values().map(|node| &**node).filter(|node| node.role == join.role).find(same);
        let Some(existing) = existing else { return Ok(self.create_node(join)) };
        // Its answer may have been lost. Once it has started it has its identity on disk and does not join again:
        // who comes with its name now has an empty folder, and would be taken for having its data.
        if existing.incarnation != Incarnation(0) {
            let message = format!("{} node \"{}\" already exists", existing.role.name(), existing.name);
            return Err(Refusal::catalog("42710", message));
        }
        let node =
            Node { address: join.address, sql_address: join.sql_address, shards: join.shards, ..existing.clone() };
        let id = node.id;
        if node != *existing {
            self.put_node(node);
        }
        Ok(Reply::Node(id))
    }

    fn create_node(&mut self, join: JoinNode) -> Reply {
        self.counters.node += 1;
        let id = NodeId(self.counters.node);
        let name = if join.name.is_empty() { self.free_name(join.role) } else { join.name };
        self.put_node(Node {
            id,
            role: join.role,
            address: join.address,
            sql_address: join.sql_address,
            name,
            incarnation: Incarnation(0),
            shards: join.shards,
            state: NodeState::Dead,
        });
        Reply::Node(id)
    }

    fn free_name(&self, role: NodeRole) -> String {
        let prefix = match role {
            NodeRole::Access => "an",
            NodeRole::Data => "dn",
        };
        let taken = |name: &String| self.nodes.values().any(|node| node.role == role && node.name == *name);
        (1_u64..).map(|n| format!("{prefix}{n}")).find(|name| !taken(name)).unwrap_or_default()
    }

    pub(super) fn start_node(&mut self, start: &Start, announced: Announcement) -> Outcome {
        let id = start.node;
        let node = self.known_node(id)?;
        if let Some(objection) = self.objection(start) {
            return Err(Refusal::catalog("55000", objection));
        }
        let started = Node {
            incarnation: start.incarnation,
            address: announced.address,
            sql_address: announced.sql_address,
            shards: announced.shards,
            state: if node.state == NodeState::Draining { NodeState::Draining } else { NodeState::Live },
            ..node.clone()
        };
        if start.incarnation == node.incarnation {
            let same = started.address == node.address && started.shards == node.shards;
            let message = format!("start {} of node {id} is known from another process", start.incarnation);
            return if same { Ok(Reply::Done) } else { Err(Refusal::catalog("55000", message)) };
        }
        let is_first = node.incarnation == Incarnation(0) && node.role == NodeRole::Data;
        self.put_node(started);
        if start.mark.is_said() {
            self.marks.insert(id, start.mark);
        }
        // R3: nobody acts in an epoch that was given to an earlier incarnation.
        self.raise_epochs_of(id);
        if is_first {
            self.replace_groups();
        }
        Ok(Reply::Done)
    }

    /// Why a process of that start must not act; it holds for good, also when this catalog is behind.
    #[must_use]
    pub fn objection(&self, start: &Start) -> Option<String> {
        let id = start.node;
        match self.nodes.get(&id) {
            // Ids are never given again.
            None => self.gave_node_id(id).then(|| format!("node {id} was removed from the cluster")),
            Some(_) => self.heard_start(id)?.objection(start),
        }
    }

    /// The last start of a node that was announced here.
    #[must_use]
    pub fn heard_start(&self, id: NodeId) -> Option<HeardStart> {
        let incarnation = self.nodes.get(&id)?.incarnation;
        let mark = self.marks.get(&id).copied().unwrap_or_default();
        (incarnation > Incarnation(0)).then_some(HeardStart { incarnation, mark })
    }

    pub(super) fn set_node_state(&mut self, id: NodeId, state: NodeState) -> Outcome {
        let node = self.known_node(id)?;
        // Who is on the way out stays so, alive or not.
        if node.state == state || node.state == NodeState::Draining {
            return Ok(Reply::Done);
        }
        let node = Node { state, ..node.clone() };
        self.put_node(node);
        Ok(Reply::Done)
    }

    pub(super) fn remove_node(&mut self, id: NodeId) -> Outcome {
        let node = self.known_node(id)?;
        let name = node.name.clone();
        let holds =
            self.chunks.values().find(|c| c.primary == id || c.in_sync.contains(&id) || c.followers.contains(&id));
        if let Some(chunk) = holds {
            let table = self.tables.get(&chunk.table).map_or("", |table| table.name.as_str());
            let message = format!("data node \"{name}\" still holds data for distributed hypertable \"{table}\"");
            return Err(Refusal::catalog("55006", message));
        }
        self.nodes.remove(&id);
        self.marks.remove(&id);
        self.changed.insert(NounKey::Node(id));
        self.replace_groups();
        Ok(Reply::Done)
    }

    fn known_node(&self, id: NodeId) -> Result<&Node, Refusal> {
        let node = self.nodes.get(&id).map(|node| &**node);
        node.ok_or_else(|| Refusal::catalog("42704", format!("node {id} does not exist")))
    }
}
