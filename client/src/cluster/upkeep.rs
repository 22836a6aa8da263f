//! Chunks as a whole: rewriting them and asking for their sizes, at whichever node leads them by the newest view.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use meridian_proto::catalog::{Chunk, ChunkState};
use meridian_proto::{ChunkId, NodeId, Refusal, WIRE_VERSION, wire};
use tokio::time::Instant;
use tracing::debug;

use super::{CatalogView, Cluster};

/// Longest rewrite of one chunk: 10 TiB at 150 MB/s take 20 hours.
const MAINTAIN_WAIT: Duration = Duration::from_secs(24 * 3600);
/// Longest wait for the sizes of one node's chunks.
const SIZES_WAIT: Duration = Duration::from_secs(10);
/// How long a request is sent again by newer views before the caller hears of it.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(15);
const ROUTE_PAUSE: Duration = Duration::from_millis(50);

/// What is done to a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maintenance {
    Compress,
    /// Compresses the rows that a compressed chunk got since.
    Recompress,
    Decompress,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maintained {
    /// Whether there was anything to do.
    pub changed: bool,
    pub was_compressed: bool,
}

/// What a chunk takes on the disk of its primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkSizes {
    /// In segments and in memory.
    pub rows: u64,
    pub bytes: u64,
    pub segments: u64,
    pub is_compressed: bool,
    /// A compressed chunk that got rows since.
    pub has_uncompressed_rows: bool,
    /// Of a compressed chunk: what its compressed rows took before, and take now; else 0.
    pub bytes_before: u64,
    pub bytes_after: u64,
}

impl From<Maintenance> for wire::MaintainAction {
    fn from(maintenance: Maintenance) -> Self {
        match maintenance {
            Maintenance::Compress => Self::Compress,
            Maintenance::Recompress => Self::Recompress,
            Maintenance::Decompress => Self::Decompress,
        }
    }
}

impl From<wire::ChunkSizes> for ChunkSizes {
    fn from(wire: wire::ChunkSizes) -> Self {
        Self {
            rows: wire.rows,
            bytes: wire.bytes,
            segments: wire.segments,
            is_compressed: wire.is_compressed,
            has_uncompressed_rows: wire.has_uncompressed_rows,
            bytes_before: wire.bytes_before,
            bytes_after: wire.bytes_after,
        }
    }
}

impl Cluster {
    /// Rewrites a chunk. Not waiting any longer does not end the rewrite.
    ///
    /// # Errors
    /// `Conflict` when the chunk is gone; else what its node says.
    pub async fn maintain_chunk(&self, chunk: ChunkId, maintenance: Maintenance) -> Result<Maintained, Refusal> {
        let mut routing = Routing::default();
        // A request whose answer was lost may have been carried out.
        let mut may_be_done = false;
        loop {
            let view = self.catalog.current();
            let known = view.chunk(chunk).ok_or_else(|| Refusal::Conflict(format!("chunk {chunk} was dropped")))?;
            let request = wire::MaintainRequest {
                wire_version: WIRE_VERSION,
                catalog_version: view.version().0,
                chunk: Some(reference(known)),
                action: wire::MaintainAction::from(maintenance).into(),
            };
            match self.maintain(known.primary, request, Instant::now() + MAINTAIN_WAIT).await {
                Ok(response) => {
                    let found_done = may_be_done && response.was_compressed == (maintenance != Maintenance::Decompress);
                    let changed = response.changed || found_done;
                    return Ok(Maintained { changed, was_compressed: response.was_compressed });
                }
                Err(error) => {
                    may_be_done |= error.sent;
                    routing.again(error.refusal).await?;
                }
            }
        }
    }

    /// Sizes of chunks; those that are gone are left out.
    ///
    /// # Errors
    /// When a node does not answer: a sum without it would be wrong.
    pub async fn sizes_of(&self, chunks: &[ChunkId]) -> Result<BTreeMap<ChunkId, ChunkSizes>, Refusal> {
        let mut routing = Routing::default();
        loop {
            let view = self.catalog.current();
            let asked = by_primary(&view, chunks).into_iter().map(|(node, chunks)| self.ask_sizes(&view, node, chunks));
            match try_join_all(asked).await {
                Ok(answers) => return Ok(answers.into_iter().flatten().collect()),
                Err(refusal) => routing.again(refusal).await?,
            }
        }
    }

    async fn ask_sizes(
        &self,
        view: &CatalogView,
        node: NodeId,
        chunks: Vec<Arc<Chunk>>,
    ) -> Result<Vec<(ChunkId, ChunkSizes)>, Refusal> {
        let request = wire::ChunkSizesRequest {
            wire_version: WIRE_VERSION,
            catalog_version: view.version().0,
            chunks: chunks.iter().map(|chunk| reference(chunk)).collect(),
        };
        let response = self.chunk_sizes(node, request, Instant::now() + SIZES_WAIT).await;
        let response = response.map_err(|error| error.refusal)?;
        if response.chunks.len() != chunks.len() {
            let (asked, answered) = (chunks.len(), response.chunks.len());
            return Err(Refusal::Protocol(format!("sizes of {answered} chunks for {asked}")));
        }
        Ok(response.chunks.into_iter().map(|sizes| (ChunkId(sizes.chunk), sizes.into())).collect())
    }
}

fn reference(chunk: &Chunk) -> wire::ChunkRef {
    wire::ChunkRef { chunk: chunk.id.0, epoch: chunk.epoch.0 }
}

fn by_primary(view: &CatalogView, chunks: &[ChunkId]) -> BTreeMap<NodeId, Vec<Arc<Chunk>>> {
    let mut nodes: BTreeMap<NodeId, Vec<Arc<Chunk>>> = BTreeMap::new();
    let known = chunks.iter().filter_map(|chunk| view.chunk(*chunk));
    for chunk in known.filter(|chunk| chunk.state == ChunkState::Active) {
        nodes.entry(chunk.primary).or_default().push(Arc::clone(chunk));
    }
    nodes
}

/// How often a request is sent again.
#[derive(Default)]
struct Routing {
    deadline: Option<Instant>,
}

impl Routing {
    /// Waits a little before the next try, or answers the refusal when there is to be none.
    async fn again(&mut self, refusal: Refusal) -> Result<(), Refusal> {
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + ROUTE_TIMEOUT);
        if !refusal.is_routing() || Instant::now() >= deadline {
            return Err(refusal);
        }
        debug!(error = %refusal, "request is routed again");
        tokio::time::sleep(ROUTE_PAUSE).await;
        Ok(())
    }
}
