//! Rows of the functions about a hypertable's chunks: `show_chunks`, sizes, compression statistics. Columns and meaning
//! are TimescaleDB's (`sql/size_utils.sql`); indexes and out-of-line values are part of a segment here, their bytes 0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::scalar::ScalarValue;
use futures::FutureExt;
use meridian_client::cluster::ChunkSizes;
use meridian_proto::NodeId;
use meridian_proto::catalog::{Chunk, Hypertable, Table};

use super::catalog::StatementCatalog;
use super::relation::{INTERNAL, Relation, chunk_name, qualified_chunk_name};
use super::virtual_table::{Row, VirtualTable, count, text};
use crate::error::SqlError;
use crate::sql::set_function::{SetCall, SetFunction};

pub(super) fn rows_of(catalog: &StatementCatalog, call: SetCall) -> Result<Arc<dyn TableProvider>, SqlError> {
    // A mistake in the name is told while planning.
    if let Some(relation) = &call.relation {
        match call.function {
            SetFunction::ShowChunks => catalog.hypertable(relation).map(|_| ())?,
            _ => catalog.relation(relation).map(|_| ())?,
        }
    }
    let (catalog, schema) = (catalog.clone(), call.function.schema());
    let call = Arc::new(call);
    Ok(VirtualTable::provider(schema, move |_| read(catalog.clone(), Arc::clone(&call)).boxed()))
}

async fn read(catalog: StatementCatalog, call: Arc<SetCall>) -> Result<Vec<Row>, SqlError> {
    if call.function == SetFunction::ShowChunks {
        return show_chunks(&catalog, &call);
    }
    // STRICT; and no rows for a table that is no hypertable.
    let Some(relation) = &call.relation else { return Ok(vec![]) };
    let Relation::Table(table) = catalog.relation(relation)? else { return Ok(vec![]) };
    let Some(hypertable) = table.hypertable() else { return Ok(vec![]) };
    let look = Look::take(&catalog, &table, hypertable).await?;
    Ok(match call.function {
        SetFunction::ShowChunks => vec![],
        SetFunction::ChunkCompressionStats => look.compression_stats(),
        SetFunction::HypertableCompressionStats => look.compression_sums(),
        SetFunction::HypertableDetailedSize => look.detailed_size(&catalog),
        SetFunction::ChunksDetailedSize => look.chunk_sizes(),
    })
}

fn show_chunks(catalog: &StatementCatalog, call: &SetCall) -> Result<Vec<Row>, SqlError> {
    let Some(relation) = &call.relation else {
        return Err(SqlError::new("42P01", "invalid hypertable or continuous aggregate"));
    };
    let table = catalog.hypertable(relation)?;
    let Some(hypertable) = table.hypertable() else { return Ok(vec![]) };
    let fits = |chunk: &&Arc<Chunk>| {
        call.older_than.is_none_or(|older| chunk.range.end <= older)
            && call.newer_than.is_none_or(|newer| chunk.range.start >= newer)
    };
    let chunks = catalog.chunks_of(&table);
    Ok(chunks.iter().filter(fits).map(|chunk| vec![text(qualified_chunk_name(hypertable, chunk.id))]).collect())
}

/// A hypertable's chunks with what they take, as of one moment.
struct Look<'a> {
    table: &'a Table,
    hypertable: &'a Hypertable,
    /// With the name of the node that leads it.
    chunks: Vec<(Arc<Chunk>, String, ChunkSizes)>,
}

impl<'a> Look<'a> {
    async fn take(catalog: &StatementCatalog, table: &'a Table, hypertable: &'a Hypertable) -> Result<Self, SqlError> {
        let sizes = catalog.sizes_of(table).await?;
        // One that was dropped meanwhile has none.
        let of = |chunk: Arc<Chunk>| {
            let sizes = *sizes.get(&chunk.id)?;
            let node = node_name(catalog, chunk.primary);
            Some((chunk, node, sizes))
        };
        let chunks = catalog.chunks_of(table).into_iter().filter_map(of).collect();
        Ok(Self { table, hypertable, chunks })
    }

    fn compression_stats(&self) -> Vec<Row> {
        if self.hypertable.compression.is_none() {
            return vec![];
        }
        let row = |(chunk, node, sizes): &(Arc<Chunk>, String, ChunkSizes)| {
            let status = if sizes.is_compressed { "Compressed" } else { "Uncompressed" };
            let name = chunk_name(self.hypertable, chunk.id);
            let mut row = vec![text(INTERNAL), text(name), text(status)];
            let known = sizes.is_compressed;
            row.extend(parts(known.then_some(sizes.bytes_before)));
            row.extend(parts(known.then_some(sizes.bytes_after)));
            row.push(text(node.clone()));
            row
        };
        self.chunks.iter().map(row).collect()
    }

    /// One row per node that has chunks. Sums are over compressed chunks, NULL without one.
    fn compression_sums(&self) -> Vec<Row> {
        #[derive(Default)]
        struct Sums {
            chunks: u64,
            compressed: u64,
            before: u64,
            after: u64,
        }
        if self.hypertable.compression.is_none() {
            return vec![];
        }
        let mut nodes: BTreeMap<&str, Sums> = BTreeMap::new();
        for (_, node, sizes) in &self.chunks {
            let sums = nodes.entry(node).or_default();
            sums.chunks += 1;
            if sizes.is_compressed {
                sums.compressed += 1;
                sums.before += sizes.bytes_before;
                sums.after += sizes.bytes_after;
            }
        }
        let row = |(node, sums): (&str, Sums)| {
            let known = sums.compressed > 0;
            let mut row = vec![count(sums.chunks), count(sums.compressed)];
            row.extend(parts(known.then_some(sums.before)));
            row.extend(parts(known.then_some(sums.after)));
            row.push(text(node));
            row
        };
        nodes.into_iter().map(row).collect()
    }

    /// One row per data node of the table, and one without a name for the access node, which holds no rows.
    fn detailed_size(&self, catalog: &StatementCatalog) -> Vec<Row> {
        let mut nodes: BTreeMap<String, u64> =
            data_nodes_of(catalog, self.table).into_iter().map(|node| (node, 0)).collect();
        for (_, node, sizes) in &self.chunks {
            *nodes.entry(node.clone()).or_default() += sizes.bytes;
        }
        let row = |bytes: u64, node: ScalarValue| {
            let mut row: Row = parts(Some(bytes)).into();
            row.push(node);
            row
        };
        let mut rows: Vec<Row> = nodes.into_iter().map(|(node, bytes)| row(bytes, text(node))).collect();
        rows.push(row(0, ScalarValue::Utf8(None)));
        rows
    }

    fn chunk_sizes(&self) -> Vec<Row> {
        let row = |(chunk, node, sizes): &(Arc<Chunk>, String, ChunkSizes)| {
            let mut row = vec![text(INTERNAL), text(chunk_name(self.hypertable, chunk.id))];
            row.extend(parts(Some(sizes.bytes)));
            row.push(text(node.clone()));
            row
        };
        self.chunks.iter().map(row).collect()
    }
}

/// Bytes of the table, its indexes, its out-of-line values, and all together.
fn parts(bytes: Option<u64>) -> [ScalarValue; 4] {
    let known = |value: u64| bytes.map_or(ScalarValue::Int64(None), |_| count(value));
    let all = bytes.unwrap_or_default();
    [known(all), known(0), known(0), known(all)]
}

pub(super) fn node_name(catalog: &StatementCatalog, node: NodeId) -> String {
    catalog.view.node(node).map_or_else(|| node.to_string(), |node| node.name.clone())
}

/// Names of the data nodes that a table's chunks are put on, in order.
pub(super) fn data_nodes_of(catalog: &StatementCatalog, table: &Table) -> BTreeSet<String> {
    let group = catalog.view.group(table.group);
    let nodes = group.into_iter().flat_map(|group| group.slots.iter().flatten());
    nodes.map(|node| node_name(catalog, *node)).collect()
}
