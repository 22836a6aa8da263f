//! Sealing a table's chunks before a catalog change takes them away: a row that was acknowledged while somebody looked
//! whether there are any must not go with the chunk (R17).
//!
//! A seal holds for the chunk's epoch. The change names the epochs and is refused when one is another by now, so it does
//! not matter how long ago the seal was made, nor whether its node still lives.

use std::sync::Arc;
use std::time::Duration;

use meridian_proto::catalog::Chunk;
use meridian_proto::command::Command;
use meridian_proto::wire::SealState;
use meridian_proto::{CatalogVersion, ChunkId, Epoch, Refusal, TableId};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::Cluster;
use super::view::CatalogView;

const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Longest time that a seal is ended from here; after that its node ends it.
const REOPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// What became of the seals of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// All chunks, with the epochs in which they take no row.
    Empty(Vec<(ChunkId, Epoch)>),
    /// There are rows.
    Rows,
    /// There are rows of transactions that are not over.
    Undecided,
}

impl Cluster {
    /// Seals all chunks of a table as of a view at least as new as `version`. Unless all hold no row, none stays sealed.
    ///
    /// # Errors
    /// When a primary does not answer before `deadline`.
    pub async fn seal_table(
        &self,
        table: TableId,
        version: CatalogVersion,
        deadline: Instant,
    ) -> Result<Sealed, Refusal> {
        let view = self.catalog.wait_for(version, deadline).await?;
        let chunks: Vec<Arc<Chunk>> = view.chunks_of(table).cloned().collect();
        let mut sealed = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let state = self.seal_chunk(view.clone(), chunk.id, deadline).await;
            match state {
                Ok((SealState::Sealed, epoch)) => sealed.push((chunk.id, epoch)),
                Ok((state, _)) => {
                    self.reopen(sealed);
                    let has_rows = state == SealState::Rows;
                    return Ok(if has_rows { Sealed::Rows } else { Sealed::Undecided });
                }
                Err(refusal) => {
                    self.reopen(sealed);
                    return Err(refusal);
                }
            }
        }
        Ok(Sealed::Empty(sealed))
    }

    /// By ever newer routes, until the primary answers.
    async fn seal_chunk(
        &self,
        mut view: Arc<CatalogView>,
        id: ChunkId,
        deadline: Instant,
    ) -> Result<(SealState, Epoch), Refusal> {
        loop {
            let chunk = view.chunk(id).ok_or_else(|| Refusal::Conflict(format!("chunk {id} was dropped")))?;
            let refusal = match self.seal(&view, chunk, deadline).await {
                Ok(state) => return Ok((state, chunk.epoch)),
                // A seal that nobody heard of harms nobody: its node ends it.
                Err(error) => error.refusal,
            };
            if !refusal.is_routing() || Instant::now() + RETRY_PAUSE >= deadline {
                return Err(refusal);
            }
            debug!(chunk = %id, error = %refusal, "sealing again");
            let next = CatalogVersion(view.version().0 + 1);
            // A newer view or the end of the pause: either is a reason to ask again.
            let _ = self.catalog.wait_for(next, Instant::now() + RETRY_PAUSE).await;
            view = self.catalog.current();
        }
    }

    /// Ends seals whose change will not come. Nobody waits for it: their nodes end them, too, only later.
    pub fn reopen(&self, sealed: Vec<(ChunkId, Epoch)>) {
        if sealed.is_empty() {
            return;
        }
        let meta = self.meta.clone();
        tokio::spawn(async move {
            let reopen = |(chunk, epoch)| Command::ReopenChunk { chunk, epoch };
            let command = Command::Batch(sealed.into_iter().map(reopen).collect());
            if let Err(error) = meta.propose(command, Instant::now() + REOPEN_TIMEOUT).await {
                warn!(%error, "sealed chunks not opened again; their nodes will ask for it");
            }
        });
    }
}
