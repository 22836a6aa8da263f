//! A scan on its shard: the fragment runs as one task of the scan queue, its leaf reads the request's chunks one after
//! another as its plan wants them, or all together where it wants them sorted, and result batches leave through a small bounded channel. Whoever drops the other end ends it all.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{SortOptions, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::scalar::ScalarValue;
use futures::StreamExt;
use futures::future::{Either, select, try_join_all};
use meridian_engine::pace::breathe_reading;
use meridian_engine::scan::BATCH_ROWS_MAX;
use meridian_engine::{
    Answered, BucketSearch, Ends, Fact, Facts, GroupMemory, Scan, ScanStatistics, ScanStream, Series, SeriesPredicate,
    SeriesSearch, Shard, SortColumn, SortedScan, Value, Want,
};
use meridian_fragment::{
    Bound, BucketStates, ChunkScanExec, ChunkSource, KeyPredicate, OperatorPool, TopRows, any_of, key_predicate,
    leaf_of, row_predicates, task_context, top_rows,
};
use meridian_proto::{ChunkId, CommandId, Epoch, Refusal, TransactionId, Ts};

use crate::request::ChunkRef;
use crate::statement_error::refusal_of;

/// Batches between a leaf and the plan above it. One is read while one is computed on.
const LEAF_BATCHES_MAX: usize = 1;
/// Batches between a shard and the stream that sends them. 8192 rows x 100 bytes x 4 = 3.2 MiB.
pub const RESULT_BATCHES_MAX: usize = 4;
/// A top-N holds the batches that its rows came in, up to twenty times as many rows as a batch of its plan has.
const TOP_BATCH_ROWS: usize = 1024;
/// Texts and bytes of one batch between a leaf and the plan above it, about.
const PIECE_BYTES: usize = 512 << 10;
/// What a partial aggregate gets whatever others hold: some pieces, before it hands on what it has.
const OPERATOR_BYTES_MIN: usize = 4 * PIECE_BYTES;
/// So many rows are kept to be given with the answer, so that few rows wake their receiver once.
const KEPT_ROWS_MAX: usize = 512;

/// A scan whose questions are all answered.
pub struct ScanWork {
    pub plan: Arc<dyn ExecutionPlan>,
    pub chunks: Vec<ChunkRead>,
    pub snapshot: Ts,
    pub own: Option<(TransactionId, CommandId)>,
    /// Of the shard: its memory pool bounds all scans together.
    pub runtime: Arc<RuntimeEnv>,
}

/// One chunk of a scan, with the outcomes that were learned for it.
pub struct ChunkRead {
    pub chunk: ChunkId,
    pub epoch: Epoch,
    pub resolved: Vec<(TransactionId, Ts)>,
}

/// Foreign stages of a chunk whose outcome a reader must ask for: transaction and holder.
pub struct Undecided {
    pub chunk: ChunkRef,
    pub stages: Vec<(TransactionId, ChunkId)>,
}

/// What the scans of one shard share. Never spills: that would need tokio, and the gateway can.
pub fn shard_runtime(memory_bytes_max: usize) -> Result<Arc<RuntimeEnv>, Refusal> {
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(OperatorPool::new(memory_bytes_max, OPERATOR_BYTES_MIN)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()
        .map_err(|error| refusal_of(&error))
}

/// Begins to read all chunks at the snapshot. Runs on the shard.
pub async fn begin_reads(shard: Shard, chunks: Vec<ChunkRef>, snapshot: Ts) -> Result<Vec<Undecided>, Refusal> {
    // R4: max_read is raised in all of them before the first row of any is read. R5: pending records are waited for,
    // those of all chunks together, since one group commit brings them.
    let begun = chunks.into_iter().map(|chunk| {
        let shard = shard.clone();
        async move {
            let stages = shard.begin_read(chunk.chunk, chunk.epoch, snapshot).await?;
            Ok(Undecided { chunk, stages })
        }
    });
    try_join_all(begun).await
}

/// A scan that came to its end.
pub struct Finished {
    pub statistics: ScanStatistics,
    /// Rows that were not sent.
    pub rest: Vec<RecordBatch>,
    /// The receiver is woken by the answer alone, not by the end of the channel before it.
    _results: flume::Sender<RecordBatch>,
}

/// How a scan that was begun went on.
pub enum Ran {
    Done(Finished),
    /// Nothing was read: there are stages of others whose outcome must be asked for first.
    Undecided(Vec<Undecided>),
}

/// Begins to read all chunks of a scan and, when no outcome must be asked for, runs it to its end, in one visit. Runs on
/// the shard.
pub async fn begin_and_run(
    shard: Shard,
    work: ScanWork,
    chunks: Vec<ChunkRef>,
    results: flume::Sender<RecordBatch>,
) -> Result<Ran, Refusal> {
    let begun = begin_reads(shard.clone(), chunks, work.snapshot).await?;
    let own = work.own.map(|(transaction, _)| transaction);
    if begun.iter().flat_map(|chunk| &chunk.stages).any(|(transaction, _)| Some(*transaction) != own) {
        return Ok(Ran::Undecided(begun));
    }
    let read =
        |begun: Undecided| ChunkRead { chunk: begun.chunk.chunk, epoch: begun.chunk.epoch, resolved: Vec::new() };
    let work = ScanWork { chunks: begun.into_iter().map(read).collect(), ..work };
    run_scan(shard, work, results).await
}

/// Runs a scan to its end. Runs on the shard.
///
/// # Errors
/// `Canceled` when nobody takes the results any more.
pub async fn run_scan(shard: Shard, work: ScanWork, results: flume::Sender<RecordBatch>) -> Result<Ran, Refusal> {
    if leaf_of(&work.plan).is_none() {
        return Err(Refusal::Protocol("no chunk scan".to_owned()));
    }
    let (opens, opened) = flume::bounded(1);
    let source = Arc::new(ChunkRows { opens, facts: Mutex::default(), groups: Mutex::default() });
    let batch_rows = if keeps_top(&work.plan) { TOP_BATCH_ROWS } else { BATCH_ROWS_MAX };
    let context = task_context(Arc::clone(&source) as Arc<dyn ChunkSource>, Arc::clone(&work.runtime), batch_rows);
    let stream = work.plan.execute(0, context).map_err(|error| refusal_of(&error))?;

    let statistics = RefCell::new(ScanStatistics::default());
    let group_memory = Rc::new(MemoryConsumer::new("groups").register(&work.runtime.memory_pool));
    let reader = LeafReader {
        shard: &shard,
        work: &work,
        results: &results,
        statistics: &statistics,
        source: &source,
        group_memory: Rc::clone(&group_memory),
    };
    let reading = pin!(reader.serve(opened));
    // Among those that hand on what they have: a client that does not read must not take what the others have for sure.
    let sent_memory = MemoryConsumer::new("results").with_can_spill(true).register(&work.runtime.memory_pool);
    let sending = pin!(send_results(stream, &results, sent_memory));
    // The plan may end before its leaf does (LIMIT); what is left is not read.
    let (rows_returned, rest) = match select(sending, reading).await {
        Either::Left((sent, _)) => sent?,
        Either::Right(((), sending)) => sending.await?,
    };
    // Groups were in memory until now.
    drop(group_memory);
    let statistics = ScanStatistics { rows_returned, ..*statistics.borrow() };
    Ok(Ran::Done(Finished { statistics, rest, _results: results.clone() }))
}

/// Sends all rows but the last few. Returns how many there were, and those. An aggregate hands out all its groups as slices
/// of one batch: what it held before is counted in `memory` until they are sent.
async fn send_results(
    mut stream: SendableRecordBatchStream,
    results: &flume::Sender<RecordBatch>,
    memory: MemoryReservation,
) -> Result<(u64, Vec<RecordBatch>), Refusal> {
    let (mut rows, mut kept) = (0, Vec::new());
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(|error| refusal_of(&error))?;
        if batch.num_rows() > 0 {
            rows += batch.num_rows() as u64;
            // Not asked for: it is there already, and the others have a lesser share.
            memory.resize(batch.get_array_memory_size());
            kept.push(batch);
        }
        if kept.iter().map(RecordBatch::num_rows).sum::<usize>() > KEPT_ROWS_MAX {
            for batch in kept.drain(..) {
                results.send_async(batch).await.map_err(|_| Refusal::Canceled)?;
            }
        }
        breathe_reading().await;
    }
    Ok((rows, kept))
}

/// The source that a leaf finds in its context. It may travel; the rows are read by the shard's own task.
struct ChunkRows {
    opens: flume::Sender<Open>,
    /// Of the rows that were left out.
    facts: Mutex<Option<Vec<ScalarValue>>>,
    groups: Mutex<Option<BucketStates>>,
}

/// A leaf that wants rows.
struct Open {
    projection: Vec<usize>,
    bounds: Vec<Bound>,
    want: meridian_fragment::Want,
    table_schema: SchemaRef,
    schema: SchemaRef,
    rows: flume::Sender<DataFusionResult<RecordBatch>>,
}

impl ChunkSource for ChunkRows {
    fn open(&self, leaf: &ChunkScanExec) -> DataFusionResult<SendableRecordBatchStream> {
        let (rows, receiver) = flume::bounded(LEAF_BATCHES_MAX);
        let schema = leaf.schema();
        let open = Open {
            projection: leaf.projection().to_vec(),
            bounds: leaf.bounds().to_vec(),
            want: leaf.want().clone(),
            table_schema: Arc::clone(leaf.table_schema()),
            schema: Arc::clone(&schema),
            rows,
        };
        self.opens
            .try_send(open)
            .map_err(|_| DataFusionError::Internal("the chunk scan was executed twice".to_owned()))?;
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, receiver.into_stream())))
    }

    fn facts(&self) -> Option<Vec<ScalarValue>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn groups(&self) -> DataFusionResult<Option<BucketStates>> {
        Ok(self.groups.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

struct LeafReader<'a> {
    shard: &'a Shard,
    work: &'a ScanWork,
    results: &'a flume::Sender<RecordBatch>,
    statistics: &'a RefCell<ScanStatistics>,
    source: &'a ChunkRows,
    group_memory: Rc<MemoryReservation>,
}

/// Nobody wants more rows.
struct Enough;

impl LeafReader<'_> {
    async fn serve(self, opened: flume::Receiver<Open>) {
        let Ok(open) = opened.recv_async().await else { return };
        let bounds: Vec<_> = open.bounds.iter().filter_map(engine_bound).collect();
        let any_of: Vec<_> = any_of(&self.work.plan).iter().filter_map(|bounds| engine_bounds(bounds)).collect();
        if let meridian_fragment::Want::Sorted(order) = &open.want {
            return self.serve_sorted(order, bounds, any_of, &open).await;
        }
        // A bound that the engine cannot be told would be missing from a predicate that it must know whole.
        let want = if bounds.len() == open.bounds.len() { self.engine_want(&open) } else { Want::default() };
        let mut facts = if let Want::Facts(facts) = &want { Some(Facts::new(facts.clone())) } else { None };
        let top = top_rows(&self.work.plan);
        for chunk in self.chunks_for(&want, top.as_ref()) {
            let mut bounds = bounds.clone();
            if let Some(top) = &top {
                // What was handed over tells what is still wanted.
                give_turn().await;
                bounds.extend(top.bound().as_ref().and_then(engine_bound));
            }
            let scan = self.scan_of(chunk, &bounds, &any_of, &open);
            let read = match self.shard.scan_for(scan, want.clone()) {
                Ok(stream) => self.read_chunk(stream, &open).await,
                Err(refusal) => self.hand_over(&open, Err(refusal)).await.map(|()| None),
            };
            match (read, &mut facts) {
                (Ok(Some(of_chunk)), Some(facts)) => facts.add_all(of_chunk),
                (Ok(_), _) => {}
                (Err(Enough), _) => return,
            }
        }
        // Before the rows end, which is when they are asked for.
        if let Want::Buckets(search) = &want
            && let Err(error) = self.hand_over_groups(search, &open)
        {
            // Nobody waits for more rows when this cannot be sent.
            drop(open.rows.send_async(Err(error)).await);
            return;
        }
        let answered = facts.filter(|facts| facts.pieces() > 0).map(|facts| answers(&facts, &open));
        match answered.transpose() {
            Ok(answers) => *self.source.facts.lock().unwrap_or_else(PoisonError::into_inner) = answers,
            // Nobody waits for more rows when this cannot be sent.
            Err(error) => drop(open.rows.send_async(Err(error)).await),
        }
    }

    fn scan_of(
        &self,
        chunk: &ChunkRead,
        bounds: &[meridian_engine::Bound],
        any_of: &[Vec<meridian_engine::Bound>],
        open: &Open,
    ) -> Scan {
        Scan {
            chunk: chunk.chunk,
            epoch: chunk.epoch,
            snapshot: self.work.snapshot,
            columns: open.projection.clone(),
            bounds: bounds.to_vec(),
            any_of: any_of.to_vec(),
            own: self.work.own,
            resolved: chunk.resolved.clone(),
            batch_rows: BATCH_ROWS_MAX,
        }
    }

    /// All chunks at once, since each of them may have what comes next.
    async fn serve_sorted(
        &self,
        order: &[meridian_fragment::SortColumn],
        bounds: Vec<meridian_engine::Bound>,
        any_of: Vec<Vec<meridian_engine::Bound>>,
        open: &Open,
    ) {
        let scans = self.work.chunks.iter().map(|chunk| self.scan_of(chunk, &bounds, &any_of, open)).collect();
        let predicates = row_predicates(&self.work.plan).into_iter().map(series_predicate).collect();
        let order = order.iter().map(engine_sort).collect();
        let scan = SortedScan { scans, order, predicates: Rc::new(predicates) };
        let mut stream = match self.shard.scan_sorted(scan) {
            Ok(stream) => stream,
            // Nobody waits for more rows when this cannot be sent.
            Err(refusal) => return drop(self.hand_over(open, Err(refusal)).await),
        };
        while let Some(batch) = stream.next().await {
            *self.statistics.borrow_mut() = stream.statistics();
            if self.hand_over(open, batch).await.is_err() {
                return;
            }
            breathe_reading().await;
            // These rows may be all that the plan wanted.
            give_turn().await;
        }
        *self.statistics.borrow_mut() = stream.statistics();
    }

    /// The chunks in the order in which they are read best: last points and last rows from the newest one on. Numbers of
    /// chunks grow with time but for rows that came late.
    fn chunks_for(&self, want: &Want, top: Option<&TopRows>) -> Vec<&ChunkRead> {
        let mut chunks: Vec<_> = self.work.chunks.iter().collect();
        let newest_first = match want {
            Want::Series(search) => search.series.ends.last,
            Want::Buckets(search) => search.buckets.top.is_some_and(|top| top.newest),
            Want::Rows(_) => top.is_some_and(|top| top.is_descending),
            Want::Facts(_) => false,
        };
        if newest_first {
            chunks.sort_unstable_by_key(|chunk| Reverse(chunk.chunk));
        }
        chunks
    }

    async fn read_chunk(&self, mut stream: ScanStream, open: &Open) -> Result<Option<Facts>, Enough> {
        let before = *self.statistics.borrow();
        while let Some(batch) = stream.next().await {
            *self.statistics.borrow_mut() = sum(before, stream.statistics());
            self.hand_over(open, batch).await?;
            breathe_reading().await;
        }
        *self.statistics.borrow_mut() = sum(before, stream.statistics());
        Ok(stream.take_facts())
    }

    fn engine_want(&self, open: &Open) -> Want {
        match &open.want {
            meridian_fragment::Want::Rows | meridian_fragment::Want::Sorted(_) => {
                let predicates = row_predicates(&self.work.plan);
                Want::Rows(Rc::new(predicates.into_iter().map(series_predicate).collect()))
            }
            meridian_fragment::Want::Series(series) => {
                let ends = Ends { first: series.first, last: series.last };
                Want::Series(SeriesSearch::new(Series { key: series.key.clone(), time: series.time, ends }))
            }
            meridian_fragment::Want::Facts(facts) => Want::Facts(facts.iter().map(engine_fact).collect()),
            // Where the predicate is not known whole, the plain rows are right.
            meridian_fragment::Want::Buckets(buckets) => match key_predicate(&self.work.plan) {
                Some(predicate) => {
                    let predicate = predicate.map(series_predicate);
                    Want::Buckets(BucketSearch::new(engine_buckets(buckets), predicate, self.group_memory()))
                }
                None => Want::default(),
            },
        }
    }

    /// Of the shard's scans together; given back when the scan ends, since its groups are sent last.
    fn group_memory(&self) -> GroupMemory {
        let reservation = Rc::clone(&self.group_memory);
        Box::new(move |bytes| bytes <= reservation.size() || reservation.try_resize(bytes).is_ok())
    }

    /// Leaves the groups where the plan asks for them.
    fn hand_over_groups(&self, search: &BucketSearch, open: &Open) -> DataFusionResult<()> {
        let types: Vec<_> = open.table_schema.fields().iter().map(|field| field.data_type().clone()).collect();
        let states =
            search.take_states(&types).map_err(|error| DataFusionError::External(Box::new(Refusal::from(error))))?;
        let states = states.map(|states| BucketStates {
            keys: states.keys,
            buckets: Arc::new(states.buckets),
            measures: states.measures,
        });
        *self.source.groups.lock().unwrap_or_else(PoisonError::into_inner) = states;
        Ok(())
    }

    async fn hand_over(&self, open: &Open, batch: Result<RecordBatch, Refusal>) -> Result<(), Enough> {
        // A plan that filters everything away sends nothing and would not notice that its reader is gone.
        if self.results.is_disconnected() {
            return Err(Enough);
        }
        if batch.as_ref().is_ok_and(|batch| batch.num_rows() == 0) {
            return Ok(());
        }
        let batch = match batch {
            Ok(batch) => with_schema(&batch, &open.schema),
            Err(refusal) => Err(DataFusionError::External(Box::new(refusal))),
        };
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                let _ = open.rows.send_async(Err(error)).await;
                return Err(Enough);
            }
        };
        let (rows, piece_rows) = (batch.num_rows(), piece_rows(&batch));
        if piece_rows >= rows {
            return open.rows.send_async(Ok(batch)).await.map_err(|_| Enough);
        }
        for first in (0..rows).step_by(piece_rows) {
            // A copy, so that who keeps a piece does not hold, and count, all of them.
            let wanted = UInt32Array::from_iter_values((first..(first + piece_rows).min(rows)).map(|row| row as u32));
            let piece = take_record_batch(&batch, &wanted).map_err(DataFusionError::from);
            open.rows.send_async(piece).await.map_err(|_| Enough)?;
        }
        Ok(())
    }
}

fn keeps_top(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.downcast_ref::<SortExec>().is_some() || plan.children().into_iter().any(keeps_top)
}

/// Rows of long texts go on in pieces of about [`PIECE_BYTES`]: operators count what they hold once for each.
fn piece_rows(batch: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8 => span(column.as_string::<i32>().value_offsets()),
        DataType::Binary => span(column.as_binary::<i32>().value_offsets()),
        _ => 0,
    };
    let rows = batch.num_rows().max(1);
    let bytes: usize = batch.columns().iter().map(bytes).sum();
    if bytes <= PIECE_BYTES { rows } else { (rows * PIECE_BYTES / bytes).max(1) }
}

fn span(offsets: &[i32]) -> usize {
    offsets.last().zip(offsets.first()).map_or(0, |(last, first)| (last - first) as usize)
}

/// Lets the other half of the task run, which looks at what was handed over.
async fn give_turn() {
    let mut was_given = false;
    poll_fn(|context| {
        if was_given {
            return Poll::Ready(());
        }
        was_given = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The same columns under the fields that the plan knows, which carry the SQL types.
fn with_schema(batch: &RecordBatch, schema: &SchemaRef) -> DataFusionResult<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

fn sum(a: ScanStatistics, b: ScanStatistics) -> ScanStatistics {
    ScanStatistics {
        rows_scanned: a.rows_scanned + b.rows_scanned,
        rows_returned: a.rows_returned + b.rows_returned,
        segments_scanned: a.segments_scanned + b.segments_scanned,
        segments_pruned: a.segments_pruned + b.segments_pruned,
        row_groups_scanned: a.row_groups_scanned + b.row_groups_scanned,
        row_groups_pruned: a.row_groups_pruned + b.row_groups_pruned,
        bytes_read: a.bytes_read + b.bytes_read,
    }
}

fn engine_buckets(buckets: &meridian_fragment::Buckets) -> meridian_engine::Buckets {
    let grid = |grid: meridian_fragment::Grid| meridian_engine::Grid { width: grid.width, origin: grid.origin };
    let top = |top: meridian_fragment::Top| meridian_engine::Top { count: top.count, newest: top.newest };
    meridian_engine::Buckets {
        key: buckets.key.clone(),
        time: buckets.time,
        grid: buckets.grid.map(grid),
        measures: buckets.measures.iter().map(|measure| engine_measure(*measure)).collect(),
        top: buckets.top.map(top),
    }
}

fn engine_measure(measure: meridian_fragment::Measure) -> meridian_engine::Measure {
    use meridian_engine::Measure as To;
    use meridian_fragment::Measure as From;
    match measure {
        From::Rows => To::Rows,
        From::Count(column) => To::Count(column),
        From::Sum(column) => To::Sum(column),
        From::Min(column) => To::Min(column),
        From::Max(column) => To::Max(column),
        From::First(column) => To::First(column),
        From::FirstTime => To::FirstTime,
        From::Last(column) => To::Last(column),
        From::LastTime => To::LastTime,
    }
}

/// A predicate that fails judges nothing: the plain scan will fail by it, and say so.
fn series_predicate(predicate: KeyPredicate) -> SeriesPredicate {
    let columns = predicate.columns.clone();
    SeriesPredicate { columns, test: Box::new(move |columns| predicate.test(columns).ok()) }
}

fn engine_sort(by: &meridian_fragment::SortColumn) -> SortColumn {
    let SortOptions { descending, nulls_first } = by.options;
    SortColumn { column: by.column, descending, nulls_first }
}

fn engine_fact(fact: &meridian_fragment::Fact) -> Fact {
    match *fact {
        meridian_fragment::Fact::Rows => Fact::Rows,
        meridian_fragment::Fact::Count(column) => Fact::Count(column),
        meridian_fragment::Fact::Min(column) => Fact::Min(column),
        meridian_fragment::Fact::Max(column) => Fact::Max(column),
    }
}

/// The answers as the plan's values, in the order of what the leaf wants.
fn answers(facts: &Facts, open: &Open) -> DataFusionResult<Vec<ScalarValue>> {
    let meridian_fragment::Want::Facts(wanted) = &open.want else { return Ok(Vec::new()) };
    let answer = |(fact, answered): (&meridian_fragment::Fact, &Answered)| match (fact.column(), answered) {
        (_, Answered::Count(count)) => Ok(ScalarValue::Int64(Some(i64::try_from(*count).unwrap_or(i64::MAX)))),
        (Some(column), Answered::Value(value)) => {
            plan_value(value.as_ref(), open.table_schema.field(column).data_type())
        }
        (None, Answered::Value(_)) => Err(DataFusionError::Internal("a value for a count of rows".to_owned())),
    };
    wanted.iter().zip(facts.answers()).map(answer).collect()
}

/// The reverse of [`engine_value`].
fn plan_value(value: Option<&Value>, data_type: &DataType) -> DataFusionResult<ScalarValue> {
    let Some(value) = value else { return ScalarValue::try_from(data_type) };
    let other = || DataFusionError::Internal(format!("{value:?} as {data_type}"));
    Ok(match (value, data_type) {
        (Value::Int(value), DataType::Int16) => ScalarValue::Int16(Some(i16::try_from(*value).map_err(|_| other())?)),
        (Value::Int(value), DataType::Int32) => ScalarValue::Int32(Some(i32::try_from(*value).map_err(|_| other())?)),
        (Value::Int(value), DataType::Date32) => ScalarValue::Date32(Some(i32::try_from(*value).map_err(|_| other())?)),
        (Value::Int(value), DataType::Int64) => ScalarValue::Int64(Some(*value)),
        (Value::Int(value), DataType::Time64(_)) => ScalarValue::Time64Microsecond(Some(*value)),
        (Value::Int(value), DataType::Timestamp(_, zone)) => {
            ScalarValue::TimestampMicrosecond(Some(*value), zone.clone())
        }
        (Value::Float(value), DataType::Float32) => ScalarValue::Float32(Some(*value as f32)),
        (Value::Float(value), DataType::Float64) => ScalarValue::Float64(Some(*value)),
        (Value::Decimal(value), DataType::Decimal128(precision, scale)) => {
            ScalarValue::Decimal128(Some(*value), *precision, *scale)
        }
        (Value::Bytes(value), DataType::Utf8) => {
            ScalarValue::Utf8(Some(String::from_utf8(value.clone()).map_err(|_| other())?))
        }
        _ => return Err(other()),
    })
}

/// A bound in the form of zone maps; `None` for types that have none, which then prune nothing.
fn engine_bound(bound: &Bound) -> Option<meridian_engine::Bound> {
    let min = bound.min.as_ref().map(engine_value);
    let max = bound.max.as_ref().map(engine_value);
    // One end that cannot be said still leaves the other.
    let (min, max) = (min.flatten(), max.flatten());
    (min.is_some() || max.is_some()).then_some(meridian_engine::Bound { column: bound.column, min, max })
}

/// All of them, or nothing is known.
fn engine_bounds(bounds: &[Bound]) -> Option<Vec<meridian_engine::Bound>> {
    bounds.iter().map(engine_bound).collect()
}

fn engine_value(value: &ScalarValue) -> Option<Value> {
    Some(match value {
        ScalarValue::Boolean(Some(value)) => Value::Int(i64::from(*value)),
        ScalarValue::Int16(Some(value)) => Value::Int(i64::from(*value)),
        ScalarValue::Int32(Some(value)) | ScalarValue::Date32(Some(value)) => Value::Int(i64::from(*value)),
        ScalarValue::Int64(Some(value))
        | ScalarValue::Time64Microsecond(Some(value))
        | ScalarValue::TimestampMicrosecond(Some(value), _) => Value::Int(*value),
        ScalarValue::Float32(Some(value)) => Value::Float(f64::from(*value)),
        ScalarValue::Float64(Some(value)) => Value::Float(*value),
        ScalarValue::Utf8(Some(value)) => Value::Bytes(value.clone().into_bytes()),
        ScalarValue::Binary(Some(value)) | ScalarValue::FixedSizeBinary(_, Some(value)) => Value::Bytes(value.clone()),
        ScalarValue::Decimal128(Some(value), _, _) => Value::Decimal(*value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn long_texts_go_on_in_pieces_and_short_ones_as_they_are() {
        let batch = |text: &str| {
            let texts: ArrayRef = Arc::new(StringArray::from(vec![text; 8]));
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..8));
            RecordBatch::try_from_iter([("t", texts), ("n", numbers)]).unwrap()
        };
        assert_eq!(piece_rows(&batch("short")), 8);
        assert_eq!(piece_rows(&batch(&"x".repeat(PIECE_BYTES / 2))), 2);
        assert_eq!(piece_rows(&batch(&"x".repeat(PIECE_BYTES * 2))), 1);
        // A slice counts for what it shows.
        assert_eq!(piece_rows(&batch(&"x".repeat(PIECE_BYTES / 2)).slice(3, 2)), 2);
    }
}
