//! Runs transactions over the data nodes: sends pieces of rows with bounded concurrency, repeats them under the same
//! identity until they are applied once (R10), asks the holder for the decision (R11), and tells the participants.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use meridian_proto::catalog::{Cell, Chunk, Table};
use meridian_proto::command::Command;
use meridian_proto::rows::encode_rows;
use meridian_proto::{
    CatalogVersion, ChunkId, CommandId, NodeId, ProducerId, Refusal, SchemaVersion, Sequence, TransactionId, Ts,
    WIRE_VERSION, wire,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::Cluster;
use super::coordinator::{Coordinator, Decide, End, Piece};
use super::data::SendError;
use super::split::{CellRows, split};
use super::view::CatalogView;

/// Longest time that a piece or a decision is repeated before the client hears of it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest time that a holder is asked to abort, or a participant told of a decision; after that it asks the holder.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(600);
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(10);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Rows on their way per transaction, in KiB: 32 MiB are two decoded COPY batches of a wide table.
const IN_FLIGHT_KIB: usize = 32 << 10;
/// Pieces of one transaction under way, at most: one for each of thousands of chunks would take all room of their shards.
const PIECES_MAX: usize = 128;

/// The transactions of one gateway. Cheap to clone.
#[derive(Clone)]
pub struct Transactions(Arc<Inner>);

struct Inner {
    cluster: Cluster,
    producer: ProducerId,
    sequence: AtomicU64,
    /// Sequences that are not settled at every participant; the lowest is the low-water mark (R10).
    open: Mutex<BTreeSet<u64>>,
}

/// Why a transaction is not known to be committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Surely not applied.
    #[error("{0}")]
    Aborted(Refusal),
    /// Perhaps applied (R25).
    #[error("the outcome of the commit is unknown: {0}")]
    Unknown(Refusal),
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Aborted(refusal) => refusal,
            CommitError::Unknown(refusal) => Self::OutcomeUnknown(refusal.to_string()),
        }
    }
}

/// What a statement's writes are made under.
#[derive(Clone, Copy, Debug)]
pub struct StatementStamp {
    pub snapshot: Ts,
    pub version: CatalogVersion,
    pub command: CommandId,
}

/// A transaction with its writes. Dropped without an end, it is aborted in the background.
pub struct Transaction {
    inner: Arc<Inner>,
    id: TransactionId,
    core: Coordinator,
    pieces: JoinSet<Result<wire::WriteResponse, Refusal>>,
    in_flight: Arc<Semaphore>,
    /// The first refusal of a piece; the transaction can only be aborted.
    failed: Option<Refusal>,
    ended: bool,
}

impl Transactions {
    /// `producer` must be fresh from the catalog ([`Command::AllocateProducer`]): one life of one gateway.
    #[must_use]
    pub fn new(cluster: Cluster, producer: ProducerId) -> Self {
        let inner = Inner { cluster, producer, sequence: AtomicU64::new(1), open: Mutex::default() };
        Self(Arc::new(inner))
    }

    #[must_use]
    pub fn begin(&self) -> Transaction {
        let sequence = self.0.sequence.fetch_add(1, Ordering::Relaxed);
        self.0.open().insert(sequence);
        Transaction {
            inner: Arc::clone(&self.0),
            id: TransactionId { producer: self.0.producer, sequence: Sequence(sequence) },
            core: Coordinator::default(),
            pieces: JoinSet::new(),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_KIB)),
            failed: None,
            ended: false,
        }
    }
}

impl Inner {
    fn open(&self) -> std::sync::MutexGuard<'_, BTreeSet<u64>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every sequence below it is settled everywhere.
    fn low_water(&self) -> u64 {
        let next = self.sequence.load(Ordering::Relaxed);
        self.open().first().copied().unwrap_or(next)
    }

    fn settle(&self, id: TransactionId) {
        self.open().remove(&id.sequence.0);
    }
}

impl Transaction {
    #[must_use]
    pub fn id(&self) -> TransactionId {
        self.id
    }

    #[must_use]
    pub fn has_writes(&self) -> bool {
        self.core.has_writes()
    }

    /// Stages rows of `table` (all columns, in table order) and waits until they are durable.
    ///
    /// # Errors
    /// The first refusal; the transaction can only be aborted then.
    pub async fn insert(
        &mut self,
        table: &Arc<Table>,
        batch: RecordBatch,
        stamp: StatementStamp,
    ) -> Result<u64, Refusal> {
        let rows = self.send(table, batch, stamp).await?;
        self.settle().await?;
        Ok(rows)
    }

    /// Stages rows without waiting for them, only for room. [`Self::settle`] waits.
    pub async fn send(
        &mut self,
        table: &Arc<Table>,
        batch: RecordBatch,
        stamp: StatementStamp,
    ) -> Result<u64, Refusal> {
        self.check_failed()?;
        let rows = batch.num_rows() as u64;
        if rows > 0 {
            self.core.note_snapshot(stamp.snapshot);
            for (chunk, part) in self.inner.locate(table, &batch, stamp.version).await? {
                let piece = self.core.stage(chunk);
                self.start_piece(piece, part.rows, table.schema.version, stamp).await?;
            }
            self.collect_finished()?;
        }
        Ok(rows)
    }

    /// The last rows of an autocommit statement: when they are all of it and lie in one chunk, they are committed in
    /// one phase; else they are staged. [`Self::commit`] must follow.
    pub async fn finish_insert(
        &mut self,
        table: &Arc<Table>,
        batch: RecordBatch,
        stamp: StatementStamp,
    ) -> Result<u64, Refusal> {
        self.check_failed()?;
        if self.core.has_writes() || batch.num_rows() == 0 {
            return self.insert(table, batch, stamp).await;
        }
        self.core.note_snapshot(stamp.snapshot);
        let rows = batch.num_rows() as u64;
        let mut parts = self.inner.locate(table, &batch, stamp.version).await?;
        if let [(chunk, _)] = parts[..]
            && let Some((_, part)) = parts.pop()
        {
            let piece = self.core.only(chunk);
            let request = self.inner.piece_request(self.id, piece, &part.rows, table.schema.version, stamp)?;
            let response = self.inner.send_piece(piece, request).await.inspect_err(|refusal| {
                self.failed = Some(refusal.clone());
            })?;
            self.core.committed_at_once(Ts(response.commit));
            return Ok(rows);
        }
        for (chunk, part) in parts {
            let piece = self.core.stage(chunk);
            self.start_piece(piece, part.rows, table.schema.version, stamp).await?;
        }
        self.settle().await?;
        Ok(rows)
    }

    /// Waits until everything sent is durable.
    pub async fn settle(&mut self) -> Result<(), Refusal> {
        while let Some(joined) = self.pieces.join_next().await {
            self.note(joined);
        }
        self.check_failed()
    }

    /// Commits. `None`: there was nothing to commit.
    pub async fn commit(mut self) -> Result<Option<Ts>, CommitError> {
        if let Err(refusal) = self.settle().await {
            let unknown = matches!(refusal, Refusal::OutcomeUnknown(_)) && !self.core.has_writes();
            self.abort().await;
            return Err(if unknown { CommitError::Unknown(refusal) } else { CommitError::Aborted(refusal) });
        }
        match self.core.end() {
            End::Nothing => {
                self.finish();
                Ok(None)
            }
            End::Committed(commit) => {
                self.finish();
                Ok(Some(commit))
            }
            End::Decide(decide) => {
                // From here on the decision may stand even if this future is dropped: an abort would then be asked of
                // the holder, which answers with what it decided.
                let commit = self.inner.decide(self.id, &decide, true, Patience::statement()).await?;
                self.ended = true;
                tokio::spawn(resolve_all(Arc::clone(&self.inner), self.id, decide, commit));
                if commit == Ts(0) {
                    return Err(CommitError::Aborted(Refusal::Aborted("by its decision holder".to_owned())));
                }
                Ok(Some(commit))
            }
        }
    }

    /// Aborts and waits for the holder's word, as long as it is there; the rest goes on in the background.
    pub async fn abort(mut self) {
        self.pieces.abort_all();
        while self.pieces.join_next().await.is_some() {}
        self.ended = true;
        let Some(decide) = self.core.abort() else { return self.inner.settle(self.id) };
        let told = self.inner.decide(self.id, &decide, false, Patience::statement()).await;
        let (inner, id) = (Arc::clone(&self.inner), self.id);
        match told {
            Ok(outcome) => tokio::spawn(resolve_all(inner, id, decide, outcome)),
            Err(_) => tokio::spawn(abort_all(inner, id, decide)),
        };
    }

    fn finish(&mut self) {
        self.ended = true;
        self.inner.settle(self.id);
    }

    fn check_failed(&self) -> Result<(), Refusal> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    async fn start_piece(
        &mut self,
        piece: Piece,
        rows: RecordBatch,
        schema_version: SchemaVersion,
        stamp: StatementStamp,
    ) -> Result<(), Refusal> {
        let permit = self.room_for(&rows).await?;
        let (inner, id) = (Arc::clone(&self.inner), self.id);
        self.pieces.spawn(async move {
            let request = inner.piece_request(id, piece, &rows, schema_version, stamp)?;
            drop(rows);
            let response = inner.send_piece(piece, request).await;
            drop(permit);
            response
        });
        Ok(())
    }

    async fn room_for(&self, rows: &RecordBatch) -> Result<OwnedSemaphorePermit, Refusal> {
        let kib = (rows.get_array_memory_size() >> 10).clamp(IN_FLIGHT_KIB / PIECES_MAX, IN_FLIGHT_KIB);
        let permit = Arc::clone(&self.in_flight).acquire_many_owned(kib as u32).await;
        permit.map_err(|_| Refusal::Unavailable("the transaction is over".to_owned()))
    }

    fn collect_finished(&mut self) -> Result<(), Refusal> {
        while let Some(joined) = self.pieces.try_join_next() {
            self.note(joined);
        }
        self.check_failed()
    }

    fn note(&mut self, joined: Result<Result<wire::WriteResponse, Refusal>, tokio::task::JoinError>) {
        let result = joined.unwrap_or_else(|error| Err(Refusal::Unavailable(error.to_string())));
        match result {
            Ok(response) => self.core.staged(Ts(response.max_read)),
            Err(refusal) => {
                self.failed.get_or_insert(refusal);
            }
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        match (self.core.abort(), tokio::runtime::Handle::try_current()) {
            (Some(decide), Ok(runtime)) => {
                runtime.spawn(abort_all(Arc::clone(&self.inner), self.id, decide));
            }
            // Without a runtime the stages stay undecided until their holder is asked.
            (Some(_), Err(_)) => {}
            (None, _) => self.inner.settle(self.id),
        }
    }
}

impl Inner {
    /// The rows by chunk; chunks that are missing are allocated.
    async fn locate(
        &self,
        table: &Arc<Table>,
        batch: &RecordBatch,
        version: CatalogVersion,
    ) -> Result<Vec<(ChunkId, CellRows)>, Refusal> {
        let deadline = Instant::now() + WRITE_TIMEOUT;
        let parts = split(table, batch)?;
        let mut view = self.cluster.catalog.wait_for(version, deadline).await?;
        let missing: Vec<Cell> =
            parts.iter().map(|part| part.cell).filter(|cell| view.chunk_at(*cell).is_none()).collect();
        if !missing.is_empty() {
            let command = Command::AllocateChunks { cells: missing, takes_turns: true };
            let proposed = self.cluster.meta.propose(command, deadline).await;
            // A chunk that may have come to be holds none of the statement's rows: those are surely not there.
            let (_, allocated) = proposed.map_err(|refusal| match refusal {
                Refusal::OutcomeUnknown(reason) => Refusal::Unavailable(reason),
                refusal => refusal,
            })?;
            view = self.cluster.catalog.wait_for(allocated, deadline).await?;
        }
        let locate = |part: CellRows| match view.chunk_at(part.cell) {
            Some(chunk) => Ok((chunk.id, part)),
            // Dropped meanwhile.
            None => Err(Refusal::Conflict(format!("table {} was changed", table.name))),
        };
        parts.into_iter().map(locate).collect()
    }

    fn piece_request(
        &self,
        id: TransactionId,
        piece: Piece,
        rows: &RecordBatch,
        schema_version: SchemaVersion,
        stamp: StatementStamp,
    ) -> Result<wire::WriteRequest, Refusal> {
        let mode = match piece.holder {
            None => wire::write_request::Mode::OnePhase(wire::OnePhase {}),
            Some(holder) => wire::write_request::Mode::Stage(wire::Stage { holder: holder.0 }),
        };
        Ok(wire::WriteRequest {
            wire_version: WIRE_VERSION,
            catalog_version: stamp.version.0,
            chunk: None,
            transaction: Some(wire_transaction(id)),
            low_water: self.low_water(),
            piece: piece.number,
            command: stamp.command.0,
            snapshot: stamp.snapshot.0,
            schema_version: schema_version.0,
            mode: Some(mode),
            rows: encode_rows(rows)?,
        })
    }

    /// Sends a piece until it is applied: repeated under one identity, it is applied once (R10).
    async fn send_piece(&self, piece: Piece, request: wire::WriteRequest) -> Result<wire::WriteResponse, Refusal> {
        let attempt = |route: Route, deadline| {
            let mut request = request.clone();
            request.chunk = Some(route.chunk);
            request.catalog_version = request.catalog_version.max(route.version.0);
            async move { self.cluster.write(route.node, request, deadline).await }
        };
        let result = self.until(piece.chunk, Patience::statement(), attempt).await;
        result.map_err(|error| match piece.holder {
            // R25: one phase, perhaps applied.
            None if error.sent => Refusal::OutcomeUnknown(error.refusal.to_string()),
            // A stage that nobody decides is surely not applied.
            _ => error.refusal,
        })
    }

    /// The commit timestamp, or 0 when the holder had aborted.
    async fn decide(
        &self,
        id: TransactionId,
        decide: &Decide,
        commit: bool,
        patience: Patience,
    ) -> Result<Ts, CommitError> {
        let request = wire::DecideRequest {
            wire_version: WIRE_VERSION,
            catalog_version: 0,
            holder: None,
            transaction: Some(wire_transaction(id)),
            commit,
            max_read: decide.floor.0,
            participants: decide.participants.iter().map(|chunk| chunk.0).collect(),
            pieces: decide.pieces,
        };
        let attempt = |route: Route, deadline| {
            let mut request = request.clone();
            request.holder = Some(route.chunk);
            request.catalog_version = route.version.0;
            async move { self.cluster.decide(route.node, request, deadline).await }
        };
        let result = self.until(decide.holder, patience, attempt).await;
        match result {
            Ok(response) => Ok(Ts(response.commit)),
            Err(error) if error.sent => Err(CommitError::Unknown(error.refusal)),
            Err(error) => Err(CommitError::Aborted(error.refusal)),
        }
    }

    async fn resolve(&self, id: TransactionId, chunk: ChunkId, commit: Ts) -> Result<(), SendError> {
        let attempt = |route: Route, deadline| {
            let request = wire::ResolveRequest {
                wire_version: WIRE_VERSION,
                catalog_version: route.version.0,
                chunk: Some(route.chunk),
                transaction: Some(wire_transaction(id)),
                commit: commit.0,
            };
            async move { self.cluster.resolve(route.node, request, deadline).await }
        };
        self.until(chunk, Patience::background(), attempt).await.map(|_| ())
    }

    /// Repeats a call to a chunk's primary, by ever newer routes, while the refusal is one of routing or the answer was
    /// lost. `sent` of the error tells whether any attempt may have been applied.
    async fn until<T, F, Fut>(&self, chunk: ChunkId, patience: Patience, attempt: F) -> Result<T, SendError>
    where
        F: Fn(Route, Instant) -> Fut,
        Fut: Future<Output = Result<T, SendError>>,
    {
        let mut sent = false;
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            let view = self.cluster.catalog.current();
            let error = match route(&view, chunk) {
                Ok(route) => match attempt(route, patience.deadline).await {
                    Ok(response) => return Ok(response),
                    Err(error) => error,
                },
                Err(refusal) => SendError { refusal, sent: false },
            };
            sent |= error.sent;
            if !patience.allows(&error.refusal) || Instant::now() + pause >= patience.deadline {
                return Err(SendError { refusal: error.refusal, sent });
            }
            debug!(%chunk, error = %error.refusal, "trying again");
            self.newer_view_or_pause(&view, pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    /// Waits for a newer view, at most for `pause`.
    async fn newer_view_or_pause(&self, view: &CatalogView, pause: Duration) {
        let next = CatalogVersion(view.version().0 + 1);
        // Either a newer view has come or the pause is over; both are a reason to try again.
        let _ = self.cluster.catalog.wait_for(next, Instant::now() + pause).await;
    }
}

/// How long a call is repeated.
#[derive(Clone, Copy)]
struct Patience {
    deadline: Instant,
    /// Whether a node that is down may come back meanwhile.
    outlasts_nodes: bool,
}

impl Patience {
    /// A client waits.
    fn statement() -> Self {
        Self { deadline: Instant::now() + WRITE_TIMEOUT, outlasts_nodes: false }
    }

    /// Nobody waits, but stages stay undecided until it is done.
    fn background() -> Self {
        Self { deadline: Instant::now() + RESOLVE_TIMEOUT, outlasts_nodes: true }
    }

    fn allows(self, refusal: &Refusal) -> bool {
        refusal.is_routing() || (self.outlasts_nodes && matches!(refusal, Refusal::NodeDown(_)))
    }
}

/// Where a chunk is led.
#[derive(Clone, Copy)]
struct Route {
    node: NodeId,
    chunk: wire::ChunkRef,
    version: CatalogVersion,
}

fn route(view: &CatalogView, chunk: ChunkId) -> Result<Route, Refusal> {
    let chunk: &Arc<Chunk> =
        view.chunk(chunk).ok_or_else(|| Refusal::Conflict(format!("chunk {chunk} was dropped")))?;
    Ok(Route {
        node: chunk.primary,
        chunk: wire::ChunkRef { chunk: chunk.id.0, epoch: chunk.epoch.0 },
        version: view.version(),
    })
}

fn wire_transaction(id: TransactionId) -> wire::Transaction {
    wire::Transaction { producer: id.producer.0, sequence: id.sequence.0 }
}

/// Tells the participants what the holder decided; the transaction is settled when all have logged it.
async fn resolve_all(inner: Arc<Inner>, id: TransactionId, decide: Decide, commit: Ts) {
    let mut tasks = JoinSet::new();
    for chunk in decide.participants.into_iter().filter(|chunk| *chunk != decide.holder) {
        let inner = Arc::clone(&inner);
        tasks.spawn(async move { (chunk, inner.resolve(id, chunk, commit).await) });
    }
    let mut settled = true;
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok((_, Ok(()))) => {}
            // A dropped chunk needs no outcome.
            Ok((_, Err(error))) if matches!(error.refusal, Refusal::Conflict(_)) => {}
            Ok((chunk, Err(error))) => {
                warn!(transaction = %id, %chunk, error = %error.refusal, "participant not told of the decision");
                settled = false;
            }
            Err(error) => {
                warn!(transaction = %id, %error, "participant not told of the decision");
                settled = false;
            }
        }
    }
    // R10: while a participant may still ask, the low-water mark stays below this transaction.
    if settled {
        inner.settle(id);
    }
}

/// Asks the holder to abort and tells the participants what it says, which may be a commit that was decided before.
async fn abort_all(inner: Arc<Inner>, id: TransactionId, decide: Decide) {
    match inner.decide(id, &decide, false, Patience::background()).await {
        Ok(outcome) => resolve_all(inner, id, decide, outcome).await,
        Err(error) => warn!(transaction = %id, %error, "abort not acknowledged; participants will ask the holder"),
    }
}
