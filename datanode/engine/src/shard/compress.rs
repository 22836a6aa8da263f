//! Compression of a chunk: all its decided rows in one order, encoded to the end. A compressed chunk takes rows as any
//! other; they stand beside what is compressed until it is compressed again.

use std::rc::Rc;

use meridian_proto::{ChunkId, ColumnId, Epoch, Refusal};
use tracing::info;

use super::chunk::{Chunk, ChunkState};
use super::rewrite::{CompressionChange, Rewrite};
use super::{Inner, Shard};
use crate::disk::Disk;
use crate::error::EngineError;
use crate::manifest::CompressionV2;
use crate::order::{OrderColumn, RowOrder};
use crate::pace::executor;

/// How a compressed chunk is sorted. Columns by their positions in the table's schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompressionOrder {
    pub segment_by: Vec<usize>,
    /// Empty: by time. The time column is added at the end when it is missing.
    pub order_by: Vec<OrderBy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderBy {
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
}

/// What [`Shard::compress`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressOutcome {
    /// Rows of the whole chunk; bytes of all its segments before, and of the compressed ones after. Both for a first
    /// compression and for one that took in rows that came since.
    Compressed { rows: u64, bytes_before: u64, bytes_after: u64 },
    /// In this order, and nothing came since.
    AlreadyCompressed,
}

/// What [`Shard::decompress`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecompressOutcome {
    Decompressed,
    NotCompressed,
}

/// How large a chunk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkSizes {
    /// In segments and in memory, those of undecided transactions included.
    pub rows: u64,
    /// Of all segments, on disk.
    pub bytes: u64,
    pub segments: u64,
    /// Rows and bytes of the compressed segments.
    pub compressed_rows: u64,
    pub compressed_bytes: u64,
    /// Bytes of the segments that the compressed ones were made from.
    pub bytes_before_compression: Option<u64>,
    pub is_compressed: bool,
    /// Compressed, but rows came since.
    pub has_uncompressed_rows: bool,
}

impl<D: Disk> Shard<D> {
    /// Rewrites the chunk's decided rows into fully sorted segments. Appends and reads go on meanwhile; a shard rewrites
    /// one chunk at a time. Goes on to its end when the caller goes away.
    pub async fn compress(
        &self,
        chunk: ChunkId,
        epoch: Epoch,
        order: CompressionOrder,
    ) -> Result<CompressOutcome, Refusal> {
        self.inner().check_alive()?;
        let chunk = self.inner().chunk(chunk)?;
        let order = {
            let state = chunk.state.borrow();
            state.replica.check(epoch)?;
            state.compression_order(&order)?
        };
        let inner = Rc::clone(self.inner());
        let compressed = self.in_background(async move { inner.compress_chunk(&chunk, epoch, order).await }).await;
        self.answered_background(compressed)
    }

    /// Makes the chunk an ordinary one again, its rows in the order of flushes.
    pub async fn decompress(&self, chunk: ChunkId, epoch: Epoch) -> Result<DecompressOutcome, Refusal> {
        self.inner().check_alive()?;
        let chunk = self.inner().chunk(chunk)?;
        chunk.state.borrow().replica.check(epoch)?;
        let inner = Rc::clone(self.inner());
        let decompressed = self.in_background(async move { inner.decompress_chunk(&chunk, epoch).await }).await;
        self.answered_background(decompressed)
    }

    /// `None` when the chunk is not here.
    #[must_use]
    pub fn chunk_sizes(&self, chunk: ChunkId) -> Option<ChunkSizes> {
        self.inner().chunk(chunk).ok().map(|chunk| chunk.state.borrow().sizes())
    }

    fn answered_background<T>(&self, result: Result<Result<T, Refusal>, EngineError>) -> Result<T, Refusal> {
        result.unwrap_or_else(|error| Err(self.inner().fail_if_unsynced(error).into()))
    }
}

impl<D: Disk> Inner<D> {
    async fn compress_chunk(
        self: &Rc<Self>,
        chunk: &Rc<Chunk<D>>,
        epoch: Epoch,
        order: RowOrder,
    ) -> Result<Result<CompressOutcome, Refusal>, EngineError> {
        let _turn = self.rewrite_turn.lock().await;
        let _rewriting = chunk.rewriting.lock().await;
        // The wait may have been long: rows of another configuration are another's to compress.
        if let Err(refusal) = chunk.state.borrow().replica.check(epoch) {
            return Ok(Err(refusal));
        }
        // What is decided must stand in the manifest, from which a rewrite works (R8).
        self.flush_chunk(chunk).await?;
        let Some((rewrite, bytes_before)) = self.plan_compression(chunk, order) else {
            return Ok(Ok(CompressOutcome::AlreadyCompressed));
        };
        let started = executor::now();
        let bytes_inputs = rewrite.inputs.iter().map(|input| input.stored.file_bytes).sum();
        let compression = CompressionV2 { order: (&rewrite.order).into(), bytes_before };
        let fresh = self.rewrite(&rewrite, CompressionChange::Set(compression)).await?;
        let (rows, bytes_after) = (fresh.iter().map(|s| s.rows).sum(), fresh.iter().map(|s| s.file_bytes).sum());
        info!(chunk = %chunk.id, rows, bytes_inputs, bytes_after, elapsed = ?(executor::now() - started), "compressed");
        self.finish_rewrite(rewrite).await?;
        chunk.is_compaction_due.set(true);
        Ok(Ok(CompressOutcome::Compressed { rows, bytes_before: bytes_inputs, bytes_after }))
    }

    /// All decided segments, and what they were made from; `None` when they are compressed in this order.
    fn plan_compression(&self, chunk: &Rc<Chunk<D>>, order: RowOrder) -> Option<(Rewrite<D>, u64)> {
        let state = chunk.state.borrow();
        let inputs: Vec<_> = state.segments.iter().filter(|segment| segment.is_settled.get()).cloned().collect();
        let is_same = state.compression.as_ref().is_some_and(|compression| compression.order.order() == order);
        if is_same && inputs.iter().all(|segment| segment.is_compressed.get()) {
            return None;
        }
        let plain = inputs.iter().filter(|segment| !segment.is_compressed.get());
        let plain_bytes: u64 = plain.map(|segment| segment.stored.file_bytes).sum();
        let before = state.compression.as_ref().map_or(0, |compression| compression.bytes_before);
        Some((Rewrite { chunk: Rc::clone(chunk), inputs, order, is_compressed: true }, before + plain_bytes))
    }

    async fn decompress_chunk(
        self: &Rc<Self>,
        chunk: &Rc<Chunk<D>>,
        epoch: Epoch,
    ) -> Result<Result<DecompressOutcome, Refusal>, EngineError> {
        let _turn = self.rewrite_turn.lock().await;
        let _rewriting = chunk.rewriting.lock().await;
        if let Err(refusal) = chunk.state.borrow().replica.check(epoch) {
            return Ok(Err(refusal));
        }
        let rewrite = {
            let state = chunk.state.borrow();
            if state.compression.is_none() {
                return Ok(Ok(DecompressOutcome::NotCompressed));
            }
            let compressed = state.segments.iter().filter(|segment| segment.is_compressed.get());
            let order = RowOrder::from(&state.sort);
            Rewrite { chunk: Rc::clone(chunk), inputs: compressed.cloned().collect(), order, is_compressed: false }
        };
        self.rewrite(&rewrite, CompressionChange::Clear).await?;
        self.finish_rewrite(rewrite).await?;
        chunk.is_compaction_due.set(true);
        self.compaction_wanted.raise();
        Ok(Ok(DecompressOutcome::Decompressed))
    }
}

impl<D: Disk> ChunkState<D> {
    /// The order by column ids, as segments are written: ends with the time, and leaves the direction of time alone where
    /// nothing else says how rows of a series are sorted. Segments are read in either direction, and one that is sorted
    /// as flushes are is merged instead of sorted anew.
    fn compression_order(&self, asked: &CompressionOrder) -> Result<RowOrder, Refusal> {
        let column = |position: usize| {
            let column = self.schema.columns.get(position).map(|column| column.id);
            column.ok_or_else(|| Refusal::Protocol(format!("compression by column {position}, which is not there")))
        };
        let segment_by = asked.segment_by.iter().map(|position| column(*position)).collect::<Result<Vec<_>, _>>()?;
        let mut order_by: Vec<OrderColumn> = Vec::new();
        for by in &asked.order_by {
            let OrderBy { descending, nulls_first, .. } = *by;
            let by = OrderColumn { column: column(by.column)?, descending, nulls_first };
            let is_new = |known: ColumnId| known != by.column;
            if order_by.iter().all(|known| is_new(known.column)) && segment_by.iter().all(|known| is_new(*known)) {
                order_by.push(by);
            }
        }
        if let Some(time) = self.sort.time.filter(|time| !segment_by.contains(time)) {
            if order_by.iter().all(|by| by.column != time) {
                order_by.push(OrderColumn::ascending(time));
            }
            if let [only] = order_by.as_mut_slice() {
                *only = OrderColumn::ascending(time);
            }
        }
        Ok(RowOrder { segment_by, order_by })
    }

    fn sizes(&self) -> ChunkSizes {
        let in_memory = self.memtable.rows() + self.frozen.as_ref().map_or(0, |frozen| frozen.rows());
        let mut sizes = ChunkSizes {
            rows: in_memory,
            segments: self.segments.len() as u64,
            bytes_before_compression: self.compression.as_ref().map(|compression| compression.bytes_before),
            is_compressed: self.compression.is_some(),
            ..ChunkSizes::default()
        };
        let mut has_plain = in_memory > 0;
        for segment in &self.segments {
            sizes.rows += segment.stored.rows;
            sizes.bytes += segment.stored.file_bytes;
            if segment.is_compressed.get() {
                sizes.compressed_rows += segment.stored.rows;
                sizes.compressed_bytes += segment.stored.file_bytes;
            } else {
                has_plain = true;
            }
        }
        sizes.has_uncompressed_rows = sizes.is_compressed && has_plain;
        sizes
    }
}
