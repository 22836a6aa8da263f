//! Seals: a chunk without rows is closed for writes, in its epoch, before a catalog change takes it away (R17).
//!
//! Writers pass a gate, which they hold until their rows are durable or refused. Whoever seals closes it, waits until
//! those inside are out, and looks: what is in the chunk then is all that will ever be in it in this epoch. The change
//! names the epoch, so that a seal that was ended meanwhile, by a newer epoch, lets no change through. No clock decides
//! anything: the wait after which this node ends a seal only bounds how long writers are held up by a gateway that died.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meridian_client::cluster::Cluster;
use meridian_engine::{Scan, Shard};
use meridian_proto::command::Command;
use meridian_proto::wire::SealState;
use meridian_proto::{ChunkId, Epoch, Refusal, Ts};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::bridge::Lane;
use crate::office::Seat;
use crate::request::ChunkRef;

/// Longest wait for transactions with rows in the chunk to end.
const UNDECIDED_WAIT: Duration = Duration::from_secs(2);
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Time that a catalog change has to follow its seal.
const CHANGE_WAIT: Duration = Duration::from_secs(10);
/// One try to have an epoch raised; tries follow one another.
const REOPEN_WAIT: Duration = Duration::from_secs(5);

/// The gates of this node's chunks.
#[derive(Default)]
pub struct Gates(Mutex<HashMap<ChunkId, Arc<RwLock<Gate>>>>);

/// Closed in one epoch at most.
#[derive(Debug, Default)]
pub struct Gate {
    epoch: Epoch,
    /// Who look at the chunk now.
    looking: u32,
    /// Somebody was told that the chunk is sealed: it stays so in this epoch.
    is_sealed: bool,
}

/// Held by a writer while its rows are on their way.
pub type Pass = OwnedRwLockReadGuard<Gate>;

impl Gate {
    fn is_closed_in(&self, epoch: Epoch) -> bool {
        self.epoch == epoch && (self.is_sealed || self.looking > 0)
    }

    /// Whether somebody may look in this epoch. Never in one that is over: the seal of the present one would be lost.
    fn close(&mut self, epoch: Epoch) -> bool {
        if self.epoch < epoch {
            *self = Self { epoch, looking: 0, is_sealed: false };
        }
        let is_present = self.epoch == epoch;
        self.looking += u32::from(is_present);
        is_present
    }

    /// One who looked is done.
    fn leave(&mut self, epoch: Epoch, seals: bool) {
        // A newer epoch's gate is not ours to touch.
        if self.epoch == epoch {
            self.looking -= 1;
            self.is_sealed |= seals;
        }
    }
}

impl Gates {
    /// Lets a writer in, unless the chunk is closed in its epoch.
    pub async fn enter(&self, chunk: ChunkRef) -> Result<Pass, Refusal> {
        let pass = self.gate(chunk.chunk).read_owned().await;
        if pass.is_closed_in(chunk.epoch) {
            // The chunk goes, or its epoch is raised: either way the writer looks again.
            return Err(Refusal::Unavailable(format!("chunk {} is sealed, its table is being changed", chunk.chunk)));
        }
        Ok(pass)
    }

    /// Forgets a chunk whose files were removed.
    pub fn forget(&self, chunk: ChunkId) {
        self.gates().remove(&chunk);
    }

    fn gate(&self, chunk: ChunkId) -> Arc<RwLock<Gate>> {
        Arc::clone(self.gates().entry(chunk).or_default())
    }

    fn gates(&self) -> std::sync::MutexGuard<'_, HashMap<ChunkId, Arc<RwLock<Gate>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seals the chunk in its epoch if it holds no row. To be run to its end, whatever becomes of who asked.
pub async fn seal(gates: Arc<Gates>, cluster: Cluster, seat: Seat) -> Result<SealState, Refusal> {
    let chunk = ChunkRef { chunk: seat.chunk.id, epoch: seat.chunk.epoch };
    let gate = gates.gate(chunk.chunk);
    let closed = {
        let mut gate = gate.write().await;
        gate.close(chunk.epoch).then_some(()).ok_or(gate.epoch)
    };
    if let Err(current) = closed {
        return Err(Refusal::StaleEpoch { chunk: chunk.chunk, asked: chunk.epoch, current });
    }
    let looked = look_until_decided(&cluster, &seat, chunk).await;
    let seals = matches!(looked, Ok(SealState::Sealed));
    gate.write().await.leave(chunk.epoch, seals);
    if seals {
        info!(chunk = %chunk.chunk, epoch = %chunk.epoch, "sealed");
        tokio::spawn(end_seal(cluster, chunk));
    }
    looked
}

async fn look_until_decided(cluster: &Cluster, seat: &Seat, chunk: ChunkRef) -> Result<SealState, Refusal> {
    let deadline = Instant::now() + UNDECIDED_WAIT;
    loop {
        // Asked for while nobody writes: what is committed lies at or below it (R4).
        let (snapshot, _) = cluster.meta.timestamp(deadline + UNDECIDED_WAIT).await?;
        let looked = seat.shard.call(Lane::Write, move |shard: Shard| look(shard, chunk, snapshot)).await?;
        if looked != SealState::Undecided || Instant::now() + LOOK_PAUSE >= deadline {
            return Ok(looked);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Whether the chunk holds rows. Runs on the shard.
async fn look(shard: Shard, chunk: ChunkRef, snapshot: Ts) -> Result<SealState, Refusal> {
    let ChunkRef { chunk, epoch } = chunk;
    let stages = shard.begin_read(chunk, epoch, snapshot).await?;
    let scan = Scan {
        chunk,
        epoch,
        snapshot,
        // Any column will do; a table has one at least.
        columns: vec![0],
        bounds: Vec::new(),
        any_of: vec![],
        own: None,
        resolved: Vec::new(),
        batch_rows: 1,
    };
    let mut rows = shard.scan(scan)?;
    while let Some(batch) = rows.next().await {
        if batch?.num_rows() > 0 {
            return Ok(SealState::Rows);
        }
    }
    let seen = rows.statistics();
    // Rows that are there and not seen belong to a transaction that this chunk itself may still commit.
    let is_empty = seen.rows_scanned == 0 && seen.segments_scanned == 0 && seen.segments_pruned == 0;
    Ok(if stages.is_empty() && is_empty { SealState::Sealed } else { SealState::Undecided })
}

/// Has the epoch raised when no change followed the seal.
async fn end_seal(cluster: Cluster, chunk: ChunkRef) {
    let ChunkRef { chunk, epoch } = chunk;
    loop {
        tokio::time::sleep(CHANGE_WAIT).await;
        if cluster.catalog.current().chunk(chunk).is_none_or(|known| known.epoch != epoch) {
            return;
        }
        let command = Command::ReopenChunk { chunk, epoch };
        if let Err(error) = cluster.meta.propose(command, Instant::now() + REOPEN_WAIT).await {
            warn!(%chunk, %error, "the chunk is still sealed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64) -> ChunkRef {
        ChunkRef { chunk: ChunkId(7), epoch: Epoch(epoch) }
    }

    #[tokio::test]
    async fn a_sealed_chunk_takes_no_writer_of_its_epoch_and_those_of_the_next() {
        let gates = Gates::default();
        let gate = gates.gate(ChunkId(7));
        assert!(gates.enter(at(3)).await.is_ok());
        gate.write().await.close(Epoch(3));
        assert!(gates.enter(at(3)).await.is_err(), "somebody looks");
        gate.write().await.leave(Epoch(3), true);
        assert!(gates.enter(at(3)).await.is_err(), "sealed");
        assert!(!gate.write().await.close(Epoch(2)), "an epoch that is over");
        assert!(gates.enter(at(3)).await.is_err(), "still sealed");
        assert!(gates.enter(at(4)).await.is_ok(), "the next epoch");
        assert!(gates.enter(ChunkRef { chunk: ChunkId(8), epoch: Epoch(3) }).await.is_ok(), "another chunk");
    }

    #[tokio::test]
    async fn a_gate_opens_only_when_the_last_one_has_looked() {
        let gates = Gates::default();
        let gate = gates.gate(ChunkId(7));
        gate.write().await.close(Epoch(3));
        gate.write().await.close(Epoch(3));
        gate.write().await.leave(Epoch(3), false);
        assert!(gates.enter(at(3)).await.is_err(), "another one still looks");
        gate.write().await.leave(Epoch(3), false);
        assert!(gates.enter(at(3)).await.is_ok());
        // A seal that began in an older epoch ends in a newer one.
        gate.write().await.close(Epoch(3));
        gate.write().await.close(Epoch(4));
        gate.write().await.leave(Epoch(3), true);
        assert!(gates.enter(at(4)).await.is_err());
        gate.write().await.leave(Epoch(4), false);
        assert!(gates.enter(at(4)).await.is_ok());
    }

    #[tokio::test]
    async fn whoever_closes_waits_for_the_writers_inside() {
        let gates = Gates::default();
        let pass = gates.enter(at(3)).await.unwrap();
        let gate = gates.gate(ChunkId(7));
        let closing = tokio::spawn(async move { gate.write().await.close(Epoch(3)) });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!closing.is_finished());
        drop(pass);
        closing.await.unwrap();
        assert!(gates.enter(at(3)).await.is_err());
    }
}
