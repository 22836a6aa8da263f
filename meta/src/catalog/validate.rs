//! What always holds in a catalog.

use std::collections::BTreeSet;

use meridian_proto::FIRST_OID;
use meridian_proto::catalog::{Chunk, NodeRole, Table};

use super::{Catalog, chunk_cell};

impl Catalog {
    /// The first broken promise.
    ///
    /// # Errors
    /// Says what does not hold, with the ids.
    pub fn validate(&self) -> Result<(), String> {
        self.tables.values().try_for_each(|table| self.validate_table(table))?;
        self.chunks.values().try_for_each(|chunk| self.validate_chunk(chunk))?;
        self.validate_indexes()?;
        self.validate_counters()?;
        let stray = self.marks.keys().find(|node| !self.nodes.contains_key(node));
        check(stray.is_none(), || format!("there is a mark of node {stray:?}, which is not there"))?;
        for group in self.groups.values() {
            let used = self.tables.values().any(|table| table.group == group.id);
            check(used && !group.slots.is_empty(), || format!("group {} has no table or no slot", group.id))?;
            for node in group.slots.iter().flatten() {
                let is_data = self.nodes.get(node).is_some_and(|node| node.role == NodeRole::Data);
                check(is_data, || format!("group {} is placed on {node}, which is no data node", group.id))?;
            }
        }
        Ok(())
    }

    fn validate_table(&self, table: &Table) -> Result<(), String> {
        let id = table.id;
        let Some(group) = self.groups.get(&table.group) else {
            return Err(format!("table {id} is in group {}, which is not there", table.group));
        };
        let slots = table.space_cells().iter().fold(1_usize, |slots, cells| slots.saturating_mul(*cells as usize));
        check(group.slots.len() == slots, || format!("table {id} has {slots} slots, its group {}", group.slots.len()))?;
        let ids: BTreeSet<_> = table.schema.columns.iter().map(|column| column.id).collect();
        let names: BTreeSet<_> = table.schema.columns.iter().map(|column| &column.name).collect();
        let count = table.schema.columns.len();
        check(count > 0 && ids.len() == count && names.len() == count, || format!("table {id} repeats a column"))?;
        let Some(hypertable) = table.hypertable() else { return Ok(()) };
        let time = table.schema.column(hypertable.time_column);
        check(time.is_some_and(|column| column.not_null), || format!("table {id} has times that may be null"))?;
        check(hypertable.chunk_interval_us > 0, || format!("table {id} has no chunk interval"))?;
        let known = hypertable.space.iter().all(|dimension| ids.contains(&dimension.column));
        check(known, || format!("table {id} has a dimension without column"))?;
        let Some(compression) = &hypertable.compression else { return Ok(()) };
        let order = compression.order_by.iter().map(|by| by.column);
        let columns: Vec<_> = compression.segment_by.iter().copied().chain(order.clone()).collect();
        let unique: BTreeSet<_> = columns.iter().collect();
        let known = columns.iter().all(|column| ids.contains(column)) && unique.len() == columns.len();
        check(known, || format!("table {id} is compressed by a column twice, or by one that is not there"))?;
        let has_time = order.clone().any(|column| column == hypertable.time_column);
        check(has_time, || format!("table {id} is compressed without an order in time"))
    }

    fn validate_chunk(&self, chunk: &Chunk) -> Result<(), String> {
        let id = chunk.id;
        let Some(table) = self.tables.get(&chunk.table) else {
            return Err(format!("chunk {id} belongs to table {}, which is not there", chunk.table));
        };
        check(table.chunk_range(chunk.range.start) == chunk.range, || format!("chunk {id} has a range of its own"))?;
        let slots = self.groups.get(&table.group).map_or(0, |group| group.slots.len());
        check((chunk.slot.0 as usize) < slots, || format!("chunk {id} is in slot {} of {slots}", chunk.slot))?;
        check(chunk.epoch.0 > 0, || format!("chunk {id} has no epoch"))?;
        check(chunk.in_sync.contains(&chunk.primary), || format!("the primary of chunk {id} is not in sync"))?;
        let replicas: Vec<_> = chunk.in_sync.iter().chain(&chunk.followers).collect();
        let unique: BTreeSet<_> = replicas.iter().collect();
        check(unique.len() == replicas.len(), || format!("chunk {id} is on one node twice"))?;
        let is_data = |id| self.nodes.get(id).is_some_and(|node| node.role == NodeRole::Data);
        check(replicas.iter().all(|id| is_data(*id)), || format!("chunk {id} is on no data node"))
    }

    fn validate_indexes(&self) -> Result<(), String> {
        let named = self
            .tables
            .values()
            .all(|table| self.names.get(&(table.namespace.clone(), table.name.clone())) == Some(&table.id));
        check(named && self.names.len() == self.tables.len(), || "names and tables differ".to_owned())?;
        let placed = self.chunks.values().all(|chunk| self.cells.get(&chunk_cell(chunk)) == Some(&chunk.id));
        check(placed && self.cells.len() == self.chunks.len(), || "cells and chunks differ".to_owned())
    }

    fn validate_counters(&self) -> Result<(), String> {
        let counters = &self.counters;
        let table_oids = self.tables.keys().map(|id| id.0);
        let mut oids = BTreeSet::new();
        for oid in table_oids.chain(self.chunks.values().map(|chunk| chunk.oid)) {
            check((FIRST_OID..=counters.oid).contains(&oid), || format!("oid {oid} was never given"))?;
            check(oids.insert(oid), || format!("oid {oid} was given twice"))?;
        }
        let last_chunk = self.chunks.keys().next_back().map_or(0, |id| id.0);
        let last_node = self.nodes.keys().next_back().map_or(0, |id| id.0);
        let last_group = self.groups.keys().next_back().map_or(0, |id| id.0);
        check(last_chunk <= counters.chunk, || format!("chunk {last_chunk} was never given"))?;
        check(last_node <= counters.node, || format!("node {last_node} was never given"))?;
        check(last_group <= counters.group, || format!("group {last_group} was never given"))
    }
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
