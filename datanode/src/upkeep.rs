//! Chunks as a whole, on the shard that holds them: compress, decompress, sizes.

use meridian_client::cluster::{Maintained, Maintenance};
use meridian_engine::{CompressOutcome, CompressionOrder, DecompressOutcome, OrderBy, Shard};
use meridian_proto::catalog::{Hypertable, Table};
use meridian_proto::{ChunkId, ColumnId, Refusal, wire};

use crate::request::ChunkRef;

/// A rewrite that is allowed by the table's settings.
pub struct Rewrite {
    maintenance: Maintenance,
    chunk: ChunkRef,
    /// `None`: compression is not enabled.
    order: Option<CompressionOrder>,
}

impl Rewrite {
    /// # Errors
    /// 0A000 when compression is not enabled.
    pub fn try_new(maintenance: Maintenance, chunk: ChunkRef, table: &Table) -> Result<Self, Refusal> {
        let order = table.hypertable().and_then(|hypertable| order_of(table, hypertable));
        // What was compressed can be decompressed whatever the settings are by now.
        if order.is_none() && maintenance != Maintenance::Decompress {
            return Err(Refusal::catalog("0A000", format!("compression not enabled on \"{}\"", table.name)));
        }
        Ok(Self { maintenance, chunk, order })
    }

    /// Runs on the shard. Answered when the new segments are in the manifest.
    pub async fn run(self, shard: Shard) -> Result<Maintained, Refusal> {
        let ChunkRef { chunk, epoch } = self.chunk;
        let before = shard.chunk_sizes(chunk);
        let was_compressed = before.as_ref().is_some_and(|sizes| sizes.is_compressed);
        let has_new_rows = before.as_ref().is_some_and(|sizes| sizes.has_uncompressed_rows);
        let changed = match (self.maintenance, self.order) {
            (Maintenance::Compress, Some(order)) if !was_compressed => {
                shard.compress(chunk, epoch, order).await? != CompressOutcome::AlreadyCompressed
            }
            (Maintenance::Recompress, Some(order)) if was_compressed && has_new_rows => {
                shard.compress(chunk, epoch, order).await? != CompressOutcome::AlreadyCompressed
            }
            (Maintenance::Decompress, _) if was_compressed => {
                shard.decompress(chunk, epoch).await? == DecompressOutcome::Decompressed
            }
            _ => false,
        };
        Ok(Maintained { changed, was_compressed })
    }
}

/// What the chunks take. One that has no files yet takes nothing.
pub fn sizes_on(shard: &Shard, chunks: &[ChunkId]) -> Vec<(ChunkId, wire::ChunkSizes)> {
    let of = |chunk: &ChunkId| {
        let sizes = shard.chunk_sizes(*chunk).map(|sizes| wire::ChunkSizes {
            chunk: chunk.0,
            rows: sizes.rows,
            bytes: sizes.bytes,
            segments: sizes.segments,
            is_compressed: sizes.is_compressed,
            has_uncompressed_rows: sizes.has_uncompressed_rows,
            bytes_before: sizes.bytes_before_compression.unwrap_or(0),
            bytes_after: sizes.compressed_bytes,
        });
        (*chunk, sizes.unwrap_or(wire::ChunkSizes { chunk: chunk.0, ..Default::default() }))
    };
    chunks.iter().map(of).collect()
}

/// The settings as positions in the table. Without segment-by columns the space key tells series apart.
fn order_of(table: &Table, hypertable: &Hypertable) -> Option<CompressionOrder> {
    let settings = hypertable.compression.as_ref()?;
    let position = |column: ColumnId| table.schema.position_of(column);
    let segment_by: Vec<usize> = if settings.segment_by.is_empty() {
        let ordered = |column: &ColumnId| settings.order_by.iter().any(|by| by.column == *column);
        let space = hypertable.space.iter().map(|dimension| dimension.column);
        space.filter(|column| !ordered(column)).filter_map(position).collect()
    } else {
        settings.segment_by.iter().copied().filter_map(position).collect()
    };
    let order_by = settings.order_by.iter().filter_map(|by| {
        Some(OrderBy { column: position(by.column)?, descending: by.descending, nulls_first: by.nulls_first })
    });
    Some(CompressionOrder { segment_by, order_by: order_by.collect() })
}

#[cfg(test)]
mod tests {
    use meridian_proto::catalog::{SpaceDimension, TableKind};
    use meridian_proto::compression::{self, Compression};
    use meridian_proto::schema::{Column, TableSchema};
    use meridian_proto::{CatalogVersion, Epoch, GroupId, SchemaVersion, SqlType, TableId};

    use super::*;

    fn table(compression: Option<Compression>) -> Table {
        let column = |id, name: &str, sql_type| Column {
            id: ColumnId(id),
            name: name.to_owned(),
            sql_type,
            not_null: id == 3,
            default: None,
            modifier: None,
        };
        let columns = vec![
            column(2, "host", SqlType::Text),
            column(3, "time", SqlType::Timestamptz),
            column(5, "rack", SqlType::Int4),
        ];
        Table {
            id: TableId(16_384),
            namespace: "public".to_owned(),
            name: "cpu".to_owned(),
            schema: TableSchema { version: SchemaVersion(1), columns },
            kind: TableKind::Hypertable(Hypertable {
                id: 1,
                time_column: ColumnId(3),
                chunk_interval_us: 1,
                space: vec![SpaceDimension { column: ColumnId(2), cells: 4 }],
                compression,
            }),
            group: GroupId(1),
            replication_factor: 1,
            created: CatalogVersion(1),
        }
    }

    fn settings(segment_by: &[u16], order_by: &[(u16, bool, bool)]) -> Compression {
        let order = |(column, descending, nulls_first): &(u16, bool, bool)| compression::OrderBy {
            column: ColumnId(*column),
            descending: *descending,
            nulls_first: *nulls_first,
        };
        Compression {
            segment_by: segment_by.iter().copied().map(ColumnId).collect(),
            order_by: order_by.iter().map(order).collect(),
        }
    }

    #[test]
    fn rows_are_by_the_settings_or_else_by_the_space_key() {
        let order = |settings: Compression| {
            let table = table(Some(settings));
            let order = order_of(&table, table.hypertable().unwrap()).unwrap();
            let by = order.order_by.iter().map(|by| (by.column, by.descending, by.nulls_first)).collect::<Vec<_>>();
            (order.segment_by, by)
        };
        assert_eq!(order(settings(&[], &[(3, true, true)])), (vec![0], vec![(1, true, true)]));
        assert_eq!(order(settings(&[5], &[(3, true, false)])), (vec![2], vec![(1, true, false)]));
        assert_eq!(order(settings(&[], &[(2, false, false), (3, true, true)])).0, Vec::<usize>::new());
    }

    #[test]
    fn only_a_table_with_compression_enabled_is_compressed() {
        let chunk = ChunkRef { chunk: ChunkId(1), epoch: Epoch(1) };
        let refusal = Rewrite::try_new(Maintenance::Compress, chunk, &table(None)).err().unwrap();
        assert_eq!(refusal.to_string(), "compression not enabled on \"cpu\"");
        assert!(Rewrite::try_new(Maintenance::Decompress, chunk, &table(None)).is_ok());
    }
}
