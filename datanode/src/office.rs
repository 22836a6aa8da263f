//! Which chunks this node leads, and taking office for them (R3): a chunk is used only after its epoch was learned in
//! this incarnation and a timestamp was asked for after that.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use meridian_client::cluster::{CatalogView, Cluster, MetaClient};
use meridian_engine::{ChunkSpec, Shard, SortKey};
use meridian_proto::catalog::{Chunk, ChunkState, Table};
use meridian_proto::{CatalogVersion, ChunkId, Epoch, NodeId, Refusal, SchemaVersion, Ts};
use tokio::time::Instant;

use crate::bridge::{Lane, ShardHandle};
use crate::request::ChunkRef;
use crate::seal::Gates;

/// Longest wait for a view as new as a request's.
const CATALOG_WAIT: Duration = Duration::from_secs(2);
/// Longest wait for the timestamp with which office is taken. Longer than an election.
const ORACLE_WAIT: Duration = Duration::from_secs(10);

/// Distance above the newest timestamp seen here up to which a snapshot is taken on trust; beyond it the oracle is asked
/// whether it can have issued it. A window of timestamps: at a thousand statements a second, a question in 17 minutes.
const SNAPSHOT_TRUST: u64 = 1_000_000;

/// A chunk that this node leads by the newest view, and the shard that holds it.
#[derive(Clone)]
pub struct Seat {
    pub chunk: Arc<Chunk>,
    pub table: Arc<Table>,
    pub shard: ShardHandle<Shard>,
}

/// The chunks that this process was asked for.
pub struct Office {
    node: NodeId,
    cluster: Cluster,
    oracle: Arc<Oracle>,
    shards: Vec<ShardHandle<Shard>>,
    openings: Mutex<HashMap<ChunkId, Opening>>,
    /// What writers of a chunk pass.
    pub gates: Arc<Gates>,
}

/// The oracle, and the newest timestamp that it gave us.
struct Oracle {
    meta: MetaClient,
    seen: AtomicU64,
}

impl Oracle {
    async fn timestamp(&self, wait: Duration) -> Result<(Ts, CatalogVersion), Refusal> {
        let (timestamp, version) = self.meta.timestamp(Instant::now() + wait).await?;
        self.seen.fetch_max(timestamp.0, Ordering::Relaxed);
        Ok((timestamp, version))
    }
}

/// Opening a chunk, once for all who wait for it.
#[derive(Clone)]
struct Opening {
    epoch: Epoch,
    schema: SchemaVersion,
    outcome: Shared<BoxFuture<'static, Result<(), Refusal>>>,
}

impl Office {
    #[must_use]
    pub fn new(node: NodeId, cluster: Cluster, shards: Vec<ShardHandle<Shard>>) -> Self {
        let oracle = Arc::new(Oracle { meta: cluster.meta.clone(), seen: AtomicU64::new(0) });
        Self { node, cluster, oracle, shards, openings: Mutex::default(), gates: Arc::default() }
    }

    #[must_use]
    pub fn shards(&self) -> &[ShardHandle<Shard>] {
        &self.shards
    }

    /// A view at least as new as the one that a request was made under (R2).
    pub async fn view(&self, version: CatalogVersion) -> Result<Arc<CatalogView>, Refusal> {
        let view = self.cluster.catalog.current();
        if view.version() >= version {
            return Ok(view);
        }
        self.cluster.catalog.wait_for(version, Instant::now() + CATALOG_WAIT).await
    }

    /// R4: a snapshot from the future would push commit timestamps above those that statements begin at.
    pub async fn check_snapshot(&self, snapshot: Ts) -> Result<(), Refusal> {
        let trusted = self.oracle.seen.load(Ordering::Relaxed).saturating_add(SNAPSHOT_TRUST);
        if snapshot.0 <= trusted || snapshot <= self.oracle.timestamp(CATALOG_WAIT).await?.0 {
            return Ok(());
        }
        Err(Refusal::Snapshot { snapshot, reason: "the oracle has not issued it".to_owned() })
    }

    /// The chunk in office here, or the refusal that tells the sender to look again.
    pub async fn seat(&self, view: &CatalogView, reference: ChunkRef) -> Result<Seat, Refusal> {
        let seat = self.locate(view, reference).await?;
        self.take(&seat).await?;
        Ok(seat)
    }

    /// The chunk as this node leads it, at the epoch that the sender knows.
    pub async fn locate(&self, view: &CatalogView, reference: ChunkRef) -> Result<Seat, Refusal> {
        match view.chunk(reference.chunk) {
            Some(chunk) if chunk.epoch >= reference.epoch => self.find(view, reference),
            // Unknown, or newer than what we know: meta is asked before anything is refused.
            _ => {
                let (_, version) = self.oracle.timestamp(CATALOG_WAIT).await?;
                self.find(&*self.view(version).await?, reference)
            }
        }
    }

    fn find(&self, view: &CatalogView, reference: ChunkRef) -> Result<Seat, Refusal> {
        let ChunkRef { chunk: id, epoch } = reference;
        let elsewhere = || Refusal::NotPrimary { chunk: id, known: view.version() };
        let chunk = view.chunk(id).ok_or_else(elsewhere)?;
        // R15: what was said under an older configuration is not done under this one.
        if chunk.epoch != epoch {
            return Err(Refusal::StaleEpoch { chunk: id, asked: epoch, current: chunk.epoch });
        }
        if chunk.primary != self.node {
            return Err(elsewhere());
        }
        if chunk.state == ChunkState::Dropping {
            return Err(Refusal::Dropping(id));
        }
        let table = view.table(chunk.table).ok_or_else(elsewhere)?;
        let (_, shard) = view.shard_of(chunk).ok_or_else(elsewhere)?;
        let shard = self.shards.get(usize::from(shard.0)).ok_or_else(elsewhere)?;
        Ok(Seat { chunk: Arc::clone(chunk), table: Arc::clone(table), shard: shard.clone() })
    }

    /// Takes office for the chunk unless that was done in this epoch, by this process, under this schema.
    pub async fn take(&self, seat: &Seat) -> Result<(), Refusal> {
        let opening = self.opening(seat);
        let outcome = opening.outcome.clone().await;
        if outcome.is_err() {
            // The next one tries again.
            let mut openings = self.openings();
            let same = |known: &Opening| known.outcome.ptr_eq(&opening.outcome);
            if openings.get(&seat.chunk.id).is_some_and(same) {
                openings.remove(&seat.chunk.id);
            }
        }
        outcome
    }

    /// Forgets a chunk whose files were removed.
    pub fn forget(&self, chunk: ChunkId) {
        self.openings().remove(&chunk);
        self.gates.forget(chunk);
    }

    fn opening(&self, seat: &Seat) -> Opening {
        let (epoch, schema) = (seat.chunk.epoch, seat.table.schema.version);
        let mut openings = self.openings();
        if let Some(known) = openings.get(&seat.chunk.id)
            && (known.epoch > epoch || known.epoch == epoch && known.schema >= schema)
        {
            return known.clone();
        }
        // A task of its own: the request that began it may be canceled, those that joined it may not.
        let task = tokio::spawn(open(Arc::clone(&self.oracle), seat.clone()));
        let outcome = async move {
            task.await.unwrap_or_else(|error| Err(Refusal::Unavailable(format!("the chunk was not opened: {error}"))))
        };
        let opening = Opening { epoch, schema, outcome: outcome.boxed().shared() };
        openings.insert(seat.chunk.id, opening.clone());
        opening
    }

    fn openings(&self) -> MutexGuard<'_, HashMap<ChunkId, Opening>> {
        self.openings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn open(oracle: Arc<Oracle>, seat: Seat) -> Result<(), Refusal> {
    // R3: asked for now that the epoch is known. Whoever read at a lower timestamp read what the former primary ordered.
    let (max_read, _) = oracle.timestamp(ORACLE_WAIT).await?;
    let spec = ChunkSpec {
        chunk: seat.chunk.id,
        table: seat.table.id,
        epoch: seat.chunk.epoch,
        schema: seat.table.schema.clone(),
        sort: sort_key(&seat.table),
        max_read,
    };
    seat.shard.call(Lane::Write, |shard: Shard| async move { shard.open_chunk(spec).await }).await
}

/// By series, which the space key tells apart, then by time.
fn sort_key(table: &Table) -> SortKey {
    table.hypertable().map_or_else(SortKey::default, |hypertable| SortKey {
        segment_by: hypertable.space.iter().map(|dimension| dimension.column).collect(),
        time: Some(hypertable.time_column),
    })
}
