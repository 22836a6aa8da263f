//! Where a remote scan gets its rows: a fragment is sent to the shard that leads its chunks, rows come back as a stream.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::common::Result;
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use meridian_client::cluster::{Cluster, Fragment, PlanObject, ScanPart, ScanStream};
use meridian_fragment::{FRAGMENT_VERSION, SharedFragment, encode};
use meridian_proto::{CatalogVersion, CommandId, Refusal, TransactionId, Ts, WIRE_VERSION, wire};
use tokio::time::Instant;
use tracing::debug;

use super::prune::{Target, route};
use crate::sql::errors::external;

/// How long a fragment is sent again by newer views before the client hears of it.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(15);
const ROUTE_PAUSE: Duration = Duration::from_millis(50);

/// A fragment that was planned, in the forms in which data nodes take it.
#[derive(Debug)]
pub(crate) struct PlannedFragment {
    plan: Arc<dyn ExecutionPlan>,
    /// Once a data node elsewhere was sent it.
    encoded: OnceLock<Bytes>,
}

impl PlannedFragment {
    pub(crate) fn new(plan: Arc<dyn ExecutionPlan>) -> Self {
        Self { plan, encoded: OnceLock::new() }
    }

    pub(crate) fn plan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.plan
    }
}

impl Fragment for PlannedFragment {
    fn object(&self) -> Option<PlanObject> {
        SharedFragment::of(&self.plan).map(|shared| Arc::new(shared) as PlanObject)
    }

    fn encoded(&self) -> Result<Bytes, Refusal> {
        if let Some(bytes) = self.encoded.get() {
            return Ok(bytes.clone());
        }
        // Its operators are allowed, or it would not have been cut off: it nests too deeply.
        let bytes = encode(&self.plan).map_err(|error| Refusal::Statement {
            sqlstate: "54001".to_owned(),
            message: format!("statement too complex: {}", error.strip_backtrace()),
        })?;
        Ok(self.encoded.get_or_init(|| Bytes::from(bytes)).clone())
    }
}

/// Runs fragments.
pub(crate) trait FragmentSource: fmt::Debug + Send + Sync {
    /// Rows of the fragment over the target's chunks. Dropping the stream ends it there, too.
    fn open(
        &self,
        target: Target,
        fragment: Arc<PlannedFragment>,
        schema: SchemaRef,
        traffic: Arc<Traffic>,
    ) -> BoxStream<'static, Result<RecordBatch>>;
}

/// What came over the wire for one partition.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub rows: AtomicU64,
    pub bytes: AtomicU64,
    pub elapsed_us: AtomicU64,
    pub retries: AtomicU64,
    pub remote: Mutex<wire::ScanStatistics>,
}

impl Traffic {
    fn note_rows(&self, rows: usize, bytes: u64) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn note_remote(&self, more: &wire::ScanStatistics) {
        let mut sum = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        sum.rows_scanned += more.rows_scanned;
        sum.rows_returned += more.rows_returned;
        sum.segments_scanned += more.segments_scanned;
        sum.segments_pruned += more.segments_pruned;
        sum.row_groups_scanned += more.row_groups_scanned;
        sum.row_groups_pruned += more.row_groups_pruned;
        sum.bytes_read += more.bytes_read;
        sum.elapsed_us += more.elapsed_us;
    }

    pub(crate) fn remote(&self) -> wire::ScanStatistics {
        *self.remote.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a statement reads: its snapshot, and what its own transaction staged before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadStamp {
    pub snapshot: Ts,
    pub version: CatalogVersion,
    pub own: Option<(TransactionId, CommandId)>,
    /// Identifies the statement on its gateway, for logs.
    pub query: u64,
}

/// The data nodes of the cluster.
#[derive(Clone)]
pub(crate) struct ClusterSource {
    pub cluster: Cluster,
    pub stamp: ReadStamp,
}

impl fmt::Debug for ClusterSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterSource({:?})", self.stamp)
    }
}

impl FragmentSource for ClusterSource {
    fn open(
        &self,
        target: Target,
        fragment: Arc<PlannedFragment>,
        schema: SchemaRef,
        traffic: Arc<Traffic>,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let run = Run {
            source: self.clone(),
            fragment,
            schema,
            traffic,
            waiting: Some(target),
            current: None,
            deadline: None,
        };
        stream::try_unfold(run, |mut run| async move {
            match run.next().await {
                Ok(Some(batch)) => Ok(Some((batch, run))),
                Ok(None) => Ok(None),
                Err(refusal) => Err(external(refusal)),
            }
        })
        .boxed()
    }
}

/// One partition while it runs.
struct Run {
    source: ClusterSource,
    fragment: Arc<PlannedFragment>,
    schema: SchemaRef,
    traffic: Arc<Traffic>,
    /// To be sent: at first, and when it is routed again.
    waiting: Option<Target>,
    current: Option<Current>,
    /// Of the attempts since the last answer.
    deadline: Option<Instant>,
}

struct Current {
    target: Target,
    started: Instant,
    stream: ScanStream,
    has_returned: bool,
}

impl Run {
    async fn next(&mut self) -> Result<Option<RecordBatch>, Refusal> {
        loop {
            let Some(mut current) = self.current.take() else {
                let Some(target) = self.waiting.take() else { return Ok(None) };
                self.start(target).await?;
                continue;
            };
            let bytes = current.stream.bytes();
            match current.stream.next().await {
                Ok(Some(ScanPart::Done(statistics))) => {
                    self.traffic.note_remote(&statistics);
                    self.current = Some(current);
                }
                Ok(Some(ScanPart::Rows(batch))) => {
                    self.traffic.note_rows(batch.num_rows(), current.stream.bytes() - bytes);
                    // An empty batch shows nothing to anybody, so the fragment may still be run again.
                    current.has_returned |= batch.num_rows() > 0;
                    self.current = Some(current);
                    return Ok(Some(batch));
                }
                Ok(None) => {
                    let elapsed = current.started.elapsed().as_micros();
                    self.traffic.elapsed_us.fetch_add(u64::try_from(elapsed).unwrap_or(u64::MAX), Ordering::Relaxed);
                    self.deadline = None;
                }
                Err(refusal) => {
                    // Rows that went out cannot be taken back: only a fragment that returned nothing runs again.
                    if current.has_returned || !refusal.is_routing() {
                        return Err(refusal);
                    }
                    self.route_again(current.target, refusal).await?;
                }
            }
        }
    }

    async fn start(&mut self, target: Target) -> Result<(), Refusal> {
        let started = Instant::now();
        let request = self.request(&target);
        match self.source.cluster.scan(target.node, request, self.fragment.as_ref(), &self.schema).await {
            Ok(stream) => {
                self.current = Some(Current { target, started, stream, has_returned: false });
                Ok(())
            }
            Err(refusal) if refusal.is_routing() => self.route_again(target, refusal).await,
            Err(refusal) => Err(refusal),
        }
    }

    /// Puts the target's chunks back by the newest view (R2: routes are always the newest).
    async fn route_again(&mut self, target: Target, refusal: Refusal) -> Result<(), Refusal> {
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + ROUTE_TIMEOUT);
        if Instant::now() >= deadline {
            return Err(refusal);
        }
        debug!(node = %target.node, error = %refusal, "fragment is routed again");
        self.traffic.retries.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(ROUTE_PAUSE).await;
        let view = self.source.cluster.catalog.current();
        let mut chunks = Vec::with_capacity(target.chunks.len());
        for (id, _) in &target.chunks {
            let chunk = view
                .chunk(*id)
                .ok_or_else(|| Refusal::Conflict(format!("chunk {id} was dropped while the statement ran")))?;
            chunks.push(Arc::clone(chunk));
        }
        let mut targets = route(&view, chunks.iter().map(AsRef::as_ref))?;
        // Whole aggregates and limits hold for one partition: a fragment may follow its chunks, but not be cut in two.
        if targets.len() > 1 {
            return Err(Refusal::Unavailable("chunks moved apart while the statement ran".to_owned()));
        }
        self.waiting = targets.pop();
        Ok(())
    }

    /// The plan is put in, or handed over, when it is known where to.
    fn request(&self, target: &Target) -> wire::ScanRequest {
        let stamp = self.source.stamp;
        // A chunk's epoch may come from a view that is newer than the statement's.
        let version = stamp.version.max(self.source.cluster.catalog.current().version());
        wire::ScanRequest {
            wire_version: WIRE_VERSION,
            fragment_version: FRAGMENT_VERSION,
            catalog_version: version.0,
            snapshot: stamp.snapshot.0,
            transaction: stamp
                .own
                .map(|(id, _)| wire::Transaction { producer: id.producer.0, sequence: id.sequence.0 }),
            command: stamp.own.map_or(0, |(_, command)| command.0),
            shard: target.shard.0.into(),
            chunks: target
                .chunks
                .iter()
                .map(|(chunk, epoch)| wire::ChunkRef { chunk: chunk.0, epoch: epoch.0 })
                .collect(),
            plan: Vec::new(),
            query: stamp.query,
        }
    }
}
