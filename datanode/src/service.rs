//! The data path's service. Each request: parse, catch up with its catalog version (R2), find the chunk in office here,
//! hand the work to its shard, encode the answer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::future::{join_all, try_join_all};
use futures::stream::{self, Stream};
use futures::{StreamExt, TryStreamExt};
use meridian_client::cluster::{CatalogView, Cluster, LocalDataNode, PlanObject, ScanPart, ScanParts};
use meridian_engine::{
    Answer as Outcome, Decide, Decision, Question, Resolve, ScanStatistics, Shard, ShardStatus, Write,
};
use meridian_fragment::leaf_of;
use meridian_proto::rows::encode_rows;
use meridian_proto::wire::data_node_server::DataNode as DataNodeService;
use meridian_proto::{
    CatalogVersion, ChunkId, Incarnation, NodeId, Refusal, ShardId, TransactionId, Ts, WIRE_VERSION, wire,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tracing::debug;

use crate::bridge::{Answer, Lane, ShardHandle};
use crate::office::{Office, Seat};
use crate::request::{
    ChunkRef, ChunkSizesCall, DecideCall, MaintainCall, OutcomeCall, ResolveCall, ScanCall, SealCall, WriteCall,
};
use crate::scan::{ChunkRead, RESULT_BATCHES_MAX, Ran, ScanWork, Undecided, begin_and_run, begin_reads, run_scan};
use crate::seal::seal;
use crate::upkeep::{Rewrite, sizes_on};

/// Bytes of rows that wait for or are in one shard's WAL: four of the longest messages.
const WRITE_BYTES_MAX: usize = 256 << 20;
/// Unit in which those are counted, since a semaphore counts in u32.
const WRITE_BYTES_UNIT: usize = 1024;
const WRITE_ROOM_WAIT: Duration = Duration::from_secs(5);
/// Longest message with result rows; a longer batch is split.
const RESPONSE_BYTES_MAX: usize = 16 << 20;
/// Longest time that a read asks for the outcome of one transaction.
const OUTCOME_WAIT: Duration = Duration::from_secs(5);
const OUTCOME_PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for a shard's figures.
const STATUS_WAIT: Duration = Duration::from_secs(2);
/// Looks at a chunk's undecided stages before a read gives up. The second finds what was settled meanwhile.
const BEGIN_TRIES_MAX: u32 = 4;
/// Questions of one read in flight.
const OUTCOMES_MAX: usize = 16;

/// The service, shared by all connections.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    node: NodeId,
    incarnation: Incarnation,
    cluster: Cluster,
    office: Arc<Office>,
    /// By shard.
    runtimes: Vec<Arc<RuntimeEnv>>,
    /// By shard, in units of [`WRITE_BYTES_UNIT`].
    write_bytes: Vec<Semaphore>,
    /// By shard: it rewrites one chunk at a time. The others wait here, where they take no place of a scan.
    rewrites: Vec<Semaphore>,
    draining: AtomicBool,
}

impl Service {
    #[must_use]
    pub fn new(
        node: NodeId,
        incarnation: Incarnation,
        cluster: Cluster,
        office: Arc<Office>,
        runtimes: Vec<Arc<RuntimeEnv>>,
    ) -> Self {
        let room = || Semaphore::new(WRITE_BYTES_MAX / WRITE_BYTES_UNIT);
        let write_bytes = office.shards().iter().map(|_| room()).collect();
        let rewrites = office.shards().iter().map(|_| Semaphore::new(1)).collect();
        let draining = AtomicBool::new(false);
        Self(Arc::new(Inner { node, incarnation, cluster, office, runtimes, write_bytes, rewrites, draining }))
    }

    /// From now on everything new is refused.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    pub async fn status(&self) -> wire::DataNodeStatusResponse {
        self.0.status().await
    }
}

type ScanResponses = Pin<Box<dyn Stream<Item = Result<wire::ScanResponse, Status>> + Send>>;

#[tonic::async_trait]
impl DataNodeService for Service {
    async fn write(&self, request: Request<wire::WriteRequest>) -> Result<Response<wire::WriteResponse>, Status> {
        let call = WriteCall::try_from(request.into_inner())?;
        Ok(Response::new(self.0.write(call).await?))
    }

    async fn decide(&self, request: Request<wire::DecideRequest>) -> Result<Response<wire::DecideResponse>, Status> {
        let call = DecideCall::try_from(request.into_inner())?;
        Ok(Response::new(self.0.decide(call).await?))
    }

    async fn resolve(&self, request: Request<wire::ResolveRequest>) -> Result<Response<wire::ResolveResponse>, Status> {
        let call = ResolveCall::try_from(request.into_inner())?;
        self.0.resolve(call).await?;
        Ok(Response::new(wire::ResolveResponse {}))
    }

    async fn outcome(&self, request: Request<wire::OutcomeRequest>) -> Result<Response<wire::OutcomeResponse>, Status> {
        let call = OutcomeCall::try_from(request.into_inner())?;
        Ok(Response::new(outcome_response(self.0.outcome(call).await?)))
    }

    async fn seal(&self, request: Request<wire::SealRequest>) -> Result<Response<wire::SealResponse>, Status> {
        let call = SealCall::try_from(request.into_inner())?;
        Ok(Response::new(self.0.seal(call).await?))
    }

    type ScanStream = ScanResponses;

    async fn scan(&self, request: Request<wire::ScanRequest>) -> Result<Response<ScanResponses>, Status> {
        let call = ScanCall::try_from(request.into_inner())?;
        let messages = Messages { results: self.0.scan(call).await?, ready: VecDeque::new() };
        Ok(Response::new(Box::pin(stream::try_unfold(messages, Messages::next))))
    }

    async fn maintain(
        &self,
        request: Request<wire::MaintainRequest>,
    ) -> Result<Response<wire::MaintainResponse>, Status> {
        let call = MaintainCall::try_from(request.into_inner())?;
        Ok(Response::new(self.0.maintain(call).await?))
    }

    async fn chunk_sizes(
        &self,
        request: Request<wire::ChunkSizesRequest>,
    ) -> Result<Response<wire::ChunkSizesResponse>, Status> {
        let call = ChunkSizesCall::try_from(request.into_inner())?;
        Ok(Response::new(self.0.chunk_sizes(call).await?))
    }

    async fn data_node_status(
        &self,
        _request: Request<wire::DataNodeStatusRequest>,
    ) -> Result<Response<wire::DataNodeStatusResponse>, Status> {
        Ok(Response::new(self.0.status().await))
    }
}

#[tonic::async_trait]
impl LocalDataNode for Service {
    async fn write(&self, request: wire::WriteRequest) -> Result<wire::WriteResponse, Refusal> {
        self.0.write(WriteCall::try_from(request)?).await
    }

    async fn scan(&self, request: wire::ScanRequest, plan: Option<PlanObject>) -> Result<ScanParts, Refusal> {
        let call = match plan {
            Some(plan) => ScanCall::of_object(request, &plan)?,
            None => ScanCall::try_from(request)?,
        };
        let results = self.0.scan(call).await?;
        Ok(Box::pin(stream::try_unfold(results, |mut results| async move {
            Ok(results.next().await?.map(|part| (part, results)))
        })))
    }
}

impl Inner {
    async fn write(&self, call: WriteCall) -> Result<wire::WriteResponse, Refusal> {
        let seat = self.seat(call.version, call.chunk).await?;
        self.office.check_snapshot(call.snapshot).await?;
        let _room = self.write_room(&seat, call.rows.len()).await?;
        let write = Write {
            chunk: call.chunk.chunk,
            epoch: call.chunk.epoch,
            transaction: call.transaction,
            low_water: call.low_water,
            piece: call.piece,
            command: call.command,
            snapshot: call.snapshot,
            schema_version: call.schema_version,
            mode: call.mode,
            rows: call.rows,
        };
        // R17: the pass goes with the rows: also when the caller goes away, it is given back only when they are durable.
        let pass = self.office.gates.enter(call.chunk).await?;
        let append = move |shard: Shard| async move {
            let _pass = pass;
            shard.write(write).await
        };
        let written = seat.shard.call(Lane::Write, append).await?;
        Ok(wire::WriteResponse {
            commit: written.commit.map_or(0, |commit| commit.0),
            max_read: written.max_read.0,
            row_count: written.row_count,
        })
    }

    async fn decide(&self, call: DecideCall) -> Result<wire::DecideResponse, Refusal> {
        let seat = self.seat(call.version, call.holder).await?;
        self.office.check_snapshot(call.max_read).await?;
        let decide = Decide {
            chunk: call.holder.chunk,
            epoch: call.holder.epoch,
            transaction: call.transaction,
            commit: call.commit,
            max_read: call.max_read,
            participants: call.participants,
            pieces: call.pieces,
        };
        let decision = seat.shard.call(Lane::Write, |shard: Shard| async move { shard.decide(decide).await }).await?;
        let commit = match decision {
            Decision::Committed(commit) => commit.0,
            Decision::Aborted => 0,
        };
        Ok(wire::DecideResponse { commit })
    }

    async fn resolve(&self, call: ResolveCall) -> Result<(), Refusal> {
        let seat = self.seat(call.version, call.chunk).await?;
        resolve_at(&seat.shard, call.chunk, call.transaction, call.commit).await
    }

    async fn seal(&self, call: SealCall) -> Result<wire::SealResponse, Refusal> {
        let seat = self.seat(call.version, call.chunk).await?;
        let sealing = tokio::spawn(seal(Arc::clone(&self.office.gates), self.cluster.clone(), seat));
        let sealed = sealing.await.map_err(|error| Refusal::Unavailable(format!("the seal was given up: {error}")))?;
        Ok(wire::SealResponse { state: sealed?.into() })
    }

    async fn outcome(&self, call: OutcomeCall) -> Result<Outcome, Refusal> {
        let seat = self.seat(call.version, call.holder).await?;
        self.office.check_snapshot(call.snapshot).await?;
        let question = Question {
            chunk: call.holder.chunk,
            epoch: call.holder.epoch,
            transaction: call.transaction,
            snapshot: call.snapshot,
        };
        seat.shard.call(Lane::Write, move |shard: Shard| async move { shard.outcome(question).await }).await
    }

    async fn scan(self: &Arc<Self>, call: ScanCall) -> Result<Results, Refusal> {
        let started = Instant::now();
        let seats = self.scan_seats(&call).await?;
        self.office.check_snapshot(call.snapshot).await?;
        // All chunks lie on the shard that the request names.
        let shard = seats[0].shard.clone();
        let (sender, batches) = flume::bounded(RESULT_BATCHES_MAX);
        let (work, chunks) = (self.work(&call, Vec::new()), call.chunks.clone());
        let run = move |shard: Shard| begin_and_run(shard, work, chunks, sender);
        let answer = Some(shard.submit(Lane::Scan, run).await?);
        let service = Arc::clone(self);
        Ok(Results { service, shard, call, batches, answer, rest: VecDeque::new(), done: None, started })
    }

    fn work(&self, call: &ScanCall, chunks: Vec<ChunkRead>) -> ScanWork {
        let (plan, runtime) = (Arc::clone(&call.plan), Arc::clone(&self.runtimes[usize::from(call.shard.0)]));
        ScanWork { plan, chunks, snapshot: call.snapshot, own: call.own, runtime }
    }

    /// The chunks of a scan in office, all of one table and on the shard that the request names.
    async fn scan_seats(&self, call: &ScanCall) -> Result<Vec<Seat>, Refusal> {
        self.admit()?;
        let view = self.office.view(call.version).await?;
        let seats = try_join_all(call.chunks.iter().map(|chunk| self.office.seat(&view, *chunk))).await?;
        for seat in &seats {
            if seat.shard.shard() != call.shard {
                return Err(Refusal::Protocol(format!(
                    "chunk {} lies on shard {}, not {}",
                    seat.chunk.id,
                    seat.shard.shard(),
                    call.shard
                )));
            }
            check_table(seat, call)?;
        }
        Ok(seats)
    }

    /// Rewrites a chunk in the lane of the long requests.
    async fn maintain(&self, call: MaintainCall) -> Result<wire::MaintainResponse, Refusal> {
        let seat = self.seat(call.version, call.chunk).await?;
        let rewrite = Rewrite::try_new(call.maintenance, call.chunk, &seat.table)?;
        let turn = self.rewrites[usize::from(seat.shard.shard().0)].acquire().await;
        let _turn = turn.map_err(|_| Refusal::Unavailable(format!("node {} is stopping", self.node)))?;
        self.admit()?;
        let maintained = seat.shard.call(Lane::Scan, |shard: Shard| rewrite.run(shard)).await?;
        Ok(wire::MaintainResponse { changed: maintained.changed, was_compressed: maintained.was_compressed })
    }

    async fn chunk_sizes(&self, call: ChunkSizesCall) -> Result<wire::ChunkSizesResponse, Refusal> {
        self.admit()?;
        let view = self.office.view(call.version).await?;
        let seats = try_join_all(call.chunks.iter().map(|chunk| self.office.locate(&view, *chunk))).await?;
        let mut by_shard: BTreeMap<ShardId, (ShardHandle<Shard>, Vec<ChunkId>)> = BTreeMap::new();
        for seat in seats {
            let shard = seat.shard.shard();
            by_shard.entry(shard).or_insert_with(|| (seat.shard, Vec::new())).1.push(seat.chunk.id);
        }
        let asked = by_shard.into_values().map(|(shard, chunks)| async move {
            shard.call(Lane::Write, move |shard: Shard| async move { Ok(sizes_on(&shard, &chunks)) }).await
        });
        let mut found: HashMap<ChunkId, wire::ChunkSizes> = try_join_all(asked).await?.into_iter().flatten().collect();
        let in_order = call.chunks.iter().filter_map(|chunk| found.remove(&chunk.chunk));
        Ok(wire::ChunkSizesResponse { chunks: in_order.collect() })
    }

    async fn seat(&self, version: CatalogVersion, chunk: ChunkRef) -> Result<Seat, Refusal> {
        self.admit()?;
        let view = self.office.view(version).await?;
        self.office.seat(&view, chunk).await
    }

    fn admit(&self) -> Result<(), Refusal> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Refusal::Unavailable(format!("node {} is stopping", self.node)));
        }
        Ok(())
    }

    async fn write_room(&self, seat: &Seat, bytes: usize) -> Result<SemaphorePermit<'_>, Refusal> {
        let room = &self.write_bytes[usize::from(seat.shard.shard().0)];
        let units = bytes.div_ceil(WRITE_BYTES_UNIT).min(WRITE_BYTES_MAX / WRITE_BYTES_UNIT);
        match tokio::time::timeout(WRITE_ROOM_WAIT, room.acquire_many(units as u32)).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Refusal::Overloaded(format!("shard {} has too many rows to write", seat.shard.shard()))),
        }
    }

    /// A read that was begun, with every outcome known that counts for it.
    async fn settle(
        self: &Arc<Self>,
        shard: &ShardHandle<Shard>,
        mut begun: Vec<Undecided>,
        call: &ScanCall,
    ) -> Result<Vec<ChunkRead>, Refusal> {
        let mut tries = 1;
        loop {
            match self.learn_outcomes(shard, begun, call).await {
                // Settled between the two looks: everybody was told, and the holder has forgotten. Then the stage is no
                // longer undecided here either.
                Err(Refusal::OutcomeUnknown(reason)) if tries < BEGIN_TRIES_MAX => {
                    debug!(query = call.query, reason, "beginning the read again");
                    tries += 1;
                }
                learned => return learned,
            }
            let (chunks, snapshot) = (call.chunks.clone(), call.snapshot);
            begun = shard.call(Lane::Write, move |shard: Shard| begin_reads(shard, chunks, snapshot)).await?;
        }
    }

    /// Asks the holders of a read's foreign stages what became of them (R12).
    async fn learn_outcomes(
        self: &Arc<Self>,
        shard: &ShardHandle<Shard>,
        begun: Vec<Undecided>,
        call: &ScanCall,
    ) -> Result<Vec<ChunkRead>, Refusal> {
        let own = call.own.map(|(transaction, _)| transaction);
        let mut questions: Vec<_> = begun.iter().flat_map(|chunk| chunk.stages.iter().copied()).collect();
        questions.retain(|(transaction, _)| Some(*transaction) != own);
        questions.sort_unstable();
        questions.dedup();
        let answers: HashMap<TransactionId, Outcome> = stream::iter(questions)
            .map(|(transaction, holder)| async move {
                Ok::<_, Refusal>((transaction, self.ask_holder(transaction, holder, call.snapshot).await?))
            })
            .buffer_unordered(OUTCOMES_MAX)
            .try_collect()
            .await?;
        let mut chunks = Vec::with_capacity(begun.len());
        for Undecided { chunk, stages } in begun {
            let mut resolved = Vec::new();
            for (transaction, _) in stages {
                match answers.get(&transaction) {
                    Some(Outcome::Committed { commit, .. }) => {
                        resolved.push((transaction, *commit));
                        tell_chunk(shard, chunk, transaction, Some(*commit));
                    }
                    Some(Outcome::Aborted) => tell_chunk(shard, chunk, transaction, None),
                    // Undecided, or not heard of: the holder's max_read is now at the snapshot, so that whatever it
                    // decides lies above.
                    Some(Outcome::Undecided | Outcome::Unknown) | None => {}
                }
            }
            chunks.push(ChunkRead { chunk: chunk.chunk, epoch: chunk.epoch, resolved });
        }
        Ok(chunks)
    }

    /// Asks the holder by the newest route, until it answers.
    async fn ask_holder(&self, transaction: TransactionId, holder: ChunkId, snapshot: Ts) -> Result<Outcome, Refusal> {
        let deadline = Instant::now() + OUTCOME_WAIT;
        loop {
            let view = self.cluster.catalog.current();
            let refusal = match self.ask_holder_once(&view, transaction, holder, snapshot, deadline).await {
                Ok(outcome) => return Ok(outcome),
                Err(refusal) => refusal,
            };
            if !refusal.is_routing() || Instant::now() + OUTCOME_PAUSE >= deadline {
                return Err(refusal);
            }
            debug!(%transaction, %holder, error = %refusal, "asking the holder again");
            // A newer view or the end of the pause: either is a reason to ask again.
            let next = CatalogVersion(view.version().0 + 1);
            let _ = self.cluster.catalog.wait_for(next, Instant::now() + OUTCOME_PAUSE).await;
        }
    }

    async fn ask_holder_once(
        &self,
        view: &CatalogView,
        transaction: TransactionId,
        holder: ChunkId,
        snapshot: Ts,
        deadline: Instant,
    ) -> Result<Outcome, Refusal> {
        let Some(chunk) = view.chunk(holder) else {
            return Err(Refusal::Conflict(format!(
                "chunk {holder}, which decides transaction {transaction}, was dropped"
            )));
        };
        let reference = ChunkRef { chunk: holder, epoch: chunk.epoch };
        if chunk.primary == self.node {
            let version = view.version();
            return self.outcome(OutcomeCall { version, holder: reference, transaction, snapshot }).await;
        }
        let request = wire::OutcomeRequest {
            wire_version: WIRE_VERSION,
            catalog_version: view.version().0,
            holder: Some(wire::ChunkRef { chunk: holder.0, epoch: chunk.epoch.0 }),
            transaction: Some(transaction.into()),
            snapshot: snapshot.0,
        };
        let response = self.cluster.outcome(chunk.primary, request, deadline).await;
        outcome_of(response.map_err(|error| error.refusal)?)
    }

    async fn status(&self) -> wire::DataNodeStatusResponse {
        let asked = self.office.shards().iter().map(|handle| async move {
            let status = handle.call(Lane::Control, |shard: Shard| async move { Ok(shard.status()) });
            let status = tokio::time::timeout(STATUS_WAIT, status).await.ok()?.ok()?;
            Some(wire_status(handle, &status))
        });
        // A shard that stops, or does not answer, is left out.
        let shards = join_all(asked).await.into_iter().flatten().collect();
        wire::DataNodeStatusResponse {
            node: self.node.0,
            incarnation: self.incarnation.0,
            catalog_version: self.cluster.catalog.current().version().0,
            shards,
        }
    }
}

/// The fragment must have been planned for the table as it is (R18).
fn check_table(seat: &Seat, call: &ScanCall) -> Result<(), Refusal> {
    let Some(leaf) = leaf_of(&call.plan) else { return Err(Refusal::Protocol("no chunk scan".to_owned())) };
    if leaf.table() != seat.table.id {
        return Err(Refusal::Protocol(format!(
            "chunk {} belongs to table {}, the plan reads {}",
            seat.chunk.id,
            seat.table.id,
            leaf.table()
        )));
    }
    let schema = &seat.table.schema;
    if leaf.schema_version() != schema.version {
        return Err(Refusal::SchemaVersion { asked: leaf.schema_version(), current: schema.version });
    }
    let types =
        |fields: &arrow::datatypes::Fields| fields.iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
    if types(leaf.table_schema().fields()) != types(schema.arrow().fields()) {
        return Err(Refusal::Protocol(format!("the plan has other columns than table {}", seat.table.id)));
    }
    Ok(())
}

/// Tells a chunk what its reader learned, so that the next reader need not ask. Nobody waits for it.
fn tell_chunk(shard: &ShardHandle<Shard>, chunk: ChunkRef, transaction: TransactionId, commit: Option<Ts>) {
    let shard = shard.clone();
    tokio::spawn(async move {
        if let Err(error) = resolve_at(&shard, chunk, transaction, commit).await {
            debug!(%transaction, chunk = %chunk.chunk, %error, "outcome not noted");
        }
    });
}

async fn resolve_at(
    shard: &ShardHandle<Shard>,
    chunk: ChunkRef,
    transaction: TransactionId,
    commit: Option<Ts>,
) -> Result<(), Refusal> {
    let resolve = Resolve { chunk: chunk.chunk, epoch: chunk.epoch, transaction, commit };
    shard.call(Lane::Write, move |shard: Shard| async move { shard.resolve(resolve).await }).await
}

fn outcome_response(outcome: Outcome) -> wire::OutcomeResponse {
    use wire::OutcomeState;
    let (state, commit, row_count) = match outcome {
        Outcome::Undecided => (OutcomeState::Undecided, 0, 0),
        Outcome::Committed { commit, row_count } => (OutcomeState::Committed, commit.0, row_count),
        Outcome::Aborted => (OutcomeState::Aborted, 0, 0),
        Outcome::Unknown => (OutcomeState::Unknown, 0, 0),
    };
    wire::OutcomeResponse { state: state.into(), commit, row_count }
}

fn outcome_of(response: wire::OutcomeResponse) -> Result<Outcome, Refusal> {
    use wire::OutcomeState;
    Ok(match response.state() {
        OutcomeState::Undecided => Outcome::Undecided,
        OutcomeState::Committed => Outcome::Committed { commit: Ts(response.commit), row_count: response.row_count },
        OutcomeState::Aborted => Outcome::Aborted,
        OutcomeState::Unknown => Outcome::Unknown,
        OutcomeState::Unspecified => return Err(Refusal::Protocol("an outcome without state".to_owned())),
    })
}

fn wire_status(handle: &ShardHandle<Shard>, status: &ShardStatus) -> wire::ShardStatus {
    wire::ShardStatus {
        shard: u32::from(handle.shard().0),
        chunks: status.chunks,
        segments: status.segments,
        rows: status.rows,
        memtable_bytes: status.memtable_bytes,
        segment_bytes: status.segment_bytes,
        wal_bytes: status.wal_bytes,
        footer_bytes: status.footer_bytes,
        page_cache_bytes: status.page_cache.bytes,
        page_cache_hits: status.page_cache.hits,
        page_cache_misses: status.page_cache.misses,
        leaf_cache_bytes: status.leaf_cache_bytes,
        scan_bytes: status.scan_bytes,
        page_read_ahead: status.page_cache.read_ahead,
    }
}

/// A scan as the receiver takes it. Dropped with the stream, which ends the scan.
struct Results {
    service: Arc<Inner>,
    shard: ShardHandle<Shard>,
    call: ScanCall,
    batches: flume::Receiver<RecordBatch>,
    answer: Option<Answer<Ran>>,
    /// What is left when the shard is done.
    rest: VecDeque<RecordBatch>,
    done: Option<wire::ScanStatistics>,
    started: Instant,
}

impl Results {
    async fn next(&mut self) -> Result<Option<ScanPart>, Refusal> {
        loop {
            if let Some(batch) = self.rest.pop_front() {
                return Ok(Some(ScanPart::Rows(batch)));
            }
            let Some(answer) = &mut self.answer else { return Ok(self.done.take().map(ScanPart::Done)) };
            // The answer of a scan that is done holds the channel open: one of the two becomes ready, once.
            let ran = tokio::select! {
                biased;
                Ok(batch) = self.batches.recv_async() => return Ok(Some(ScanPart::Rows(batch))),
                ran = answer => ran,
            };
            self.answer = None;
            let ran = ran.inspect_err(|error| debug!(query = self.call.query, %error, "scan failed"))?;
            match ran {
                Ran::Done(finished) => {
                    let elapsed_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
                    self.done = Some(wire_statistics(&finished.statistics, elapsed_us));
                    // What was sent came before what was kept.
                    self.rest = self.batches.drain().chain(finished.rest).collect();
                }
                Ran::Undecided(begun) => self.run_settled(begun).await?,
            }
        }
    }

    /// Runs the scan after all, when the stages' outcomes are known.
    async fn run_settled(&mut self, begun: Vec<Undecided>) -> Result<(), Refusal> {
        let chunks = self.service.settle(&self.shard, begun, &self.call).await?;
        let work = self.service.work(&self.call, chunks);
        let (sender, batches) = flume::bounded(RESULT_BATCHES_MAX);
        let run = move |shard: Shard| async move { run_scan(shard, work, sender).await };
        self.answer = Some(self.shard.submit(Lane::Scan, run).await?);
        self.batches = batches;
        Ok(())
    }
}

/// A scan as messages.
struct Messages {
    results: Results,
    ready: VecDeque<Bytes>,
}

impl Messages {
    async fn next(mut self) -> Result<Option<(wire::ScanResponse, Self)>, Status> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some((wire::ScanResponse { batch, statistics: None }, self)));
            }
            match self.results.next().await? {
                Some(ScanPart::Rows(batch)) => encode_batch(&batch, &mut self.ready)?,
                Some(ScanPart::Done(statistics)) => {
                    let response = wire::ScanResponse { batch: Bytes::new(), statistics: Some(statistics) };
                    return Ok(Some((response, self)));
                }
                None => return Ok(None),
            }
        }
    }
}

fn wire_statistics(statistics: &ScanStatistics, elapsed_us: u64) -> wire::ScanStatistics {
    wire::ScanStatistics {
        rows_scanned: statistics.rows_scanned,
        rows_returned: statistics.rows_returned,
        segments_scanned: statistics.segments_scanned,
        segments_pruned: statistics.segments_pruned,
        row_groups_scanned: statistics.row_groups_scanned,
        row_groups_pruned: statistics.row_groups_pruned,
        bytes_read: statistics.bytes_read,
        elapsed_us,
    }
}

/// Encodes a batch into messages of bearable length.
fn encode_batch(batch: &RecordBatch, ready: &mut VecDeque<Bytes>) -> Result<(), Refusal> {
    let bytes = encode_rows(batch).map_err(|error| Refusal::Protocol(error.to_string()))?;
    if bytes.len() <= RESPONSE_BYTES_MAX || batch.num_rows() <= 1 {
        ready.push_back(bytes);
        return Ok(());
    }
    drop(bytes);
    let half = batch.num_rows() / 2;
    encode_batch(&batch.slice(0, half), ready)?;
    encode_batch(&batch.slice(half, batch.num_rows() - half), ready)
}
