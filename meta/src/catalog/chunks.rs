//! Chunks: made when a writer first needs their cell.

use std::collections::BTreeSet;

use meridian_proto::catalog::{Cell, Chunk, ChunkState, NodeState, PlacementGroup, Table};
use meridian_proto::command::Reply;
use meridian_proto::{ChunkId, Epoch, NodeId, Refusal, Slot, TableId, TimeRange, TimeUs};

use super::groups::is_rotating;
use super::{Catalog, Outcome};

/// A number that most numbers of shards divide.
const SHARD_TURNS: i128 = 5040 << 10;

impl Catalog {
    /// Idempotent: cells that have a chunk keep it. All of the cells or none.
    pub(super) fn allocate_chunks(&mut self, cells: &[Cell], takes_turns: bool) -> Outcome {
        let mut places = Vec::with_capacity(cells.len());
        for cell in cells {
            let (table, range) = self.check_cell(*cell)?;
            let primary = match self.cells.contains_key(cell) {
                true => None,
                false => Some(self.pick_primary(table, *cell)?),
            };
            let shard_turn = if takes_turns { shard_turn(&self.groups[&table.group], table, *cell) } else { 0 };
            places.push((range, shard_turn, primary));
        }
        let chunks = cells.iter().zip(places).map(|(cell, (range, shard_turn, primary))| match primary {
            // A cell that is named twice in one command was made by its first mention.
            Some(primary) if !self.cells.contains_key(cell) => self.create_chunk(*cell, range, shard_turn, primary),
            _ => self.cells[cell],
        });
        Ok(Reply::Chunks(chunks.collect()))
    }

    fn create_chunk(&mut self, cell: Cell, range: TimeRange, shard_turn: u32, primary: NodeId) -> ChunkId {
        self.counters.chunk += 1;
        let id = ChunkId(self.counters.chunk);
        let oid = self.next_oid();
        self.put_chunk(Chunk {
            id,
            oid,
            table: cell.table,
            slot: cell.slot,
            range,
            epoch: Epoch(1),
            primary,
            in_sync: vec![primary],
            followers: Vec::new(),
            state: ChunkState::Active,
            shard_turn,
        });
        id
    }

    /// A seal holds for one epoch (R17): the next one has none.
    pub(super) fn reopen_chunk(&mut self, id: ChunkId, epoch: Epoch) -> Outcome {
        if let Some(chunk) = self.chunks.get(&id).filter(|chunk| chunk.epoch == epoch) {
            self.put_chunk(Chunk { epoch: epoch.next(), ..Chunk::clone(chunk) });
        }
        Ok(Reply::Done)
    }

    /// The table's chunks must all be sealed in the epochs that they have now: then none of them holds a row.
    pub(super) fn check_sealed(&self, table: &Table, sealed: &[(ChunkId, Epoch)]) -> Result<(), Refusal> {
        let open = self.chunks_of(table.id).find(|chunk| !sealed.contains(&(chunk.id, chunk.epoch)));
        match open {
            // R17: whoever looked at the rows looks again.
            Some(chunk) => {
                Err(Refusal::Conflict(format!("rows may have come into chunk {} of \"{}\"", chunk.id, table.name)))
            }
            None => Ok(()),
        }
    }

    fn chunks_of(&self, table: TableId) -> impl Iterator<Item = &Chunk> {
        let first = Cell { table, slot: Slot(0), start: TimeUs::NEG_INFINITY };
        let cells = self.cells.range(first..).take_while(move |(cell, _)| cell.table == table);
        cells.map(|(_, chunk)| &*self.chunks[chunk])
    }

    /// The cell's table and time range.
    fn check_cell(&self, cell: Cell) -> Result<(&Table, TimeRange), Refusal> {
        let Some(table) = self.tables.get(&cell.table) else {
            // It was there in the writer's view (R2).
            return Err(Refusal::Conflict(format!("table {} was dropped", cell.table)));
        };
        // Likewise: in the writer's view it may have had no dimensions yet.
        let group = &self.groups[&table.group];
        if cell.slot.0 as usize >= group.slots.len() {
            return Err(Refusal::Conflict(format!("table {} has no slot {}", cell.table, cell.slot)));
        }
        let range = table.chunk_range(cell.start);
        if range.start != cell.start {
            return Err(Refusal::Conflict(format!("no chunk of table {} starts at {}", cell.table, cell.start)));
        }
        Ok((table, range))
    }

    fn pick_primary(&self, table: &Table, cell: Cell) -> Result<NodeId, Refusal> {
        let group = &self.groups[&table.group];
        let wanted = preferred_nodes(group, table, cell);
        let lives = |id: &&NodeId| self.nodes.get(id).is_some_and(|node| node.state == NodeState::Live);
        if let Some(node) = wanted.iter().find(lives) {
            return Ok(*node);
        }
        // The slot's nodes are down: writing goes on elsewhere, placement brings the slot together later.
        let counts = |node: NodeId| self.chunks.values().filter(|chunk| chunk.primary == node).count();
        let emptiest = self.live_data_nodes().min_by_key(|node| (counts(node.id), node.id));
        emptiest.map(|node| node.id).ok_or_else(|| Refusal::Unavailable("no data node is alive".to_owned()))
    }

    /// Epochs of all chunks that a node leads go up by one, in one entry (R3).
    pub(super) fn raise_epochs_of(&mut self, node: NodeId) {
        let led: BTreeSet<ChunkId> =
            self.chunks.values().filter(|chunk| chunk.primary == node).map(|chunk| chunk.id).collect();
        for id in led {
            let chunk = Chunk::clone(&self.chunks[&id]);
            self.put_chunk(Chunk { epoch: chunk.epoch.next(), ..chunk });
        }
    }
}

/// Nodes for a new chunk, best first.
fn preferred_nodes(group: &PlacementGroup, table: &Table, cell: Cell) -> Vec<NodeId> {
    let mut nodes = group.slots[cell.slot.0 as usize].clone();
    if is_rotating(group) && !nodes.is_empty() {
        // Intervals start on the nodes in turn, each table at another one.
        let turn = (interval_number(table, cell) + i128::from(group.id.0)).rem_euclid(nodes.len() as i128);
        nodes.rotate_left(turn as usize);
    }
    nodes
}

/// Without a space key intervals start on the shards in turn, too: once all nodes had theirs, on the next shard of each.
fn shard_turn(group: &PlacementGroup, table: &Table, cell: Cell) -> u32 {
    if !is_rotating(group) {
        return 0;
    }
    let nodes = group.slots[cell.slot.0 as usize].len().max(1) as i128;
    (interval_number(table, cell) + i128::from(group.id.0)).div_euclid(nodes).rem_euclid(SHARD_TURNS) as u32
}

/// Which interval from the epoch on it is.
fn interval_number(table: &Table, cell: Cell) -> i128 {
    let interval = table.hypertable().map_or(1, |hypertable| hypertable.chunk_interval_us);
    let number = if cell.start == TimeUs::NEG_INFINITY { 0 } else { cell.start.0.div_euclid(interval) };
    i128::from(number)
}
