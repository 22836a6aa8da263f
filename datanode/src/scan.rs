//! A scan on its shard: the fragment runs as one task of the scan queue, its leaf reads the request's chunks one after
//! another, and result batches leave through a small bounded channel. Whoever drops the other end ends it all.

use std::cell::RefCell;
use std::pin::pin;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::scalar::ScalarValue;
use futures::StreamExt;
use futures::future::{Either, select, try_join_all};
use meridian_engine::pace::breathe;
use meridian_engine::scan::BATCH_ROWS_MAX;
use meridian_engine::{Scan, ScanStatistics, ScanStream, Shard, Value};
use meridian_fragment::{Bound, ChunkSource, leaf_of, task_context};
use meridian_proto::{ChunkId, CommandId, Epoch, Refusal, TransactionId, Ts};

use crate::request::ChunkRef;
use crate::statement_error::refusal_of;

/// Batches between a leaf and the plan above it. One is read while one is computed on.
const LEAF_BATCHES_MAX: usize = 1;
/// Batches between a shard and the stream that sends them. 8192 rows x 100 bytes x 4 = 3.2 MiB.
pub const RESULT_BATCHES_MAX: usize = 4;

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
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory_bytes_max)))
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

/// Runs a scan to its end. Runs on the shard.
///
/// # Errors
/// `Canceled` when nobody takes the results any more.
pub async fn run_scan(
    shard: Shard,
    work: ScanWork,
    results: flume::Sender<RecordBatch>,
) -> Result<ScanStatistics, Refusal> {
    let Some(leaf) = leaf_of(&work.plan) else { return Err(Refusal::Protocol("no chunk scan".to_owned())) };
    let (opens, opened) = flume::bounded(1);
    let source = ChunkRows { table_schema: Arc::clone(leaf.table_schema()), opens };
    let context = task_context(Arc::new(source), Arc::clone(&work.runtime), BATCH_ROWS_MAX);
    let stream = work.plan.execute(0, context).map_err(|error| refusal_of(&error))?;

    let statistics = RefCell::new(ScanStatistics::default());
    let reader = LeafReader { shard: &shard, work: &work, results: &results, statistics: &statistics };
    let reading = pin!(reader.serve(opened));
    let sending = pin!(send_results(stream, &results));
    // The plan may end before its leaf does (LIMIT); what is left is not read.
    let rows_sent = match select(sending, reading).await {
        Either::Left((rows_sent, _)) => rows_sent?,
        Either::Right(((), sending)) => sending.await?,
    };
    let read = *statistics.borrow();
    Ok(ScanStatistics { rows_returned: rows_sent, ..read })
}

async fn send_results(
    mut stream: SendableRecordBatchStream,
    results: &flume::Sender<RecordBatch>,
) -> Result<u64, Refusal> {
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(|error| refusal_of(&error))?;
        if batch.num_rows() > 0 {
            rows += batch.num_rows() as u64;
            results.send_async(batch).await.map_err(|_| Refusal::Canceled)?;
        }
        breathe().await;
    }
    Ok(rows)
}

/// The source that a leaf finds in its context. It may travel; the rows are read by the shard's own task.
struct ChunkRows {
    table_schema: SchemaRef,
    opens: flume::Sender<Open>,
}

/// A leaf that wants rows.
struct Open {
    projection: Vec<usize>,
    bounds: Vec<Bound>,
    schema: SchemaRef,
    rows: flume::Sender<DataFusionResult<RecordBatch>>,
}

impl ChunkSource for ChunkRows {
    fn open(&self, projection: &[usize], bounds: &[Bound]) -> DataFusionResult<SendableRecordBatchStream> {
        let schema = Arc::new(self.table_schema.project(projection)?);
        let (rows, receiver) = flume::bounded(LEAF_BATCHES_MAX);
        let (projection, bounds) = (projection.to_vec(), bounds.to_vec());
        let open = Open { projection, bounds, schema: Arc::clone(&schema), rows };
        self.opens
            .try_send(open)
            .map_err(|_| DataFusionError::Internal("the chunk scan was executed twice".to_owned()))?;
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, receiver.into_stream())))
    }
}

struct LeafReader<'a> {
    shard: &'a Shard,
    work: &'a ScanWork,
    results: &'a flume::Sender<RecordBatch>,
    statistics: &'a RefCell<ScanStatistics>,
}

/// Nobody wants more rows.
struct Enough;

impl LeafReader<'_> {
    async fn serve(self, opened: flume::Receiver<Open>) {
        let Ok(open) = opened.recv_async().await else { return };
        let bounds: Vec<_> = open.bounds.iter().filter_map(engine_bound).collect();
        for chunk in &self.work.chunks {
            let scan = Scan {
                chunk: chunk.chunk,
                epoch: chunk.epoch,
                snapshot: self.work.snapshot,
                columns: open.projection.clone(),
                bounds: bounds.clone(),
                own: self.work.own,
                resolved: chunk.resolved.clone(),
                batch_rows: BATCH_ROWS_MAX,
            };
            let read = match self.shard.scan(scan) {
                Ok(stream) => self.read_chunk(stream, &open).await,
                Err(refusal) => self.hand_over(&open, Err(refusal)).await,
            };
            if read.is_err() {
                return;
            }
        }
    }

    async fn read_chunk(&self, mut stream: ScanStream, open: &Open) -> Result<(), Enough> {
        let before = *self.statistics.borrow();
        while let Some(batch) = stream.next().await {
            *self.statistics.borrow_mut() = sum(before, stream.statistics());
            self.hand_over(open, batch).await?;
            breathe().await;
        }
        *self.statistics.borrow_mut() = sum(before, stream.statistics());
        Ok(())
    }

    async fn hand_over(&self, open: &Open, batch: Result<RecordBatch, Refusal>) -> Result<(), Enough> {
        // A plan that filters everything away sends nothing and would not notice that its reader is gone.
        if self.results.is_disconnected() {
            return Err(Enough);
        }
        let failed = batch.is_err();
        let batch = match batch {
            Ok(batch) => with_schema(&batch, &open.schema),
            Err(refusal) => Err(DataFusionError::External(Box::new(refusal))),
        };
        open.rows.send_async(batch).await.map_err(|_| Enough)?;
        if failed { Err(Enough) } else { Ok(()) }
    }
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

/// A bound in the form of zone maps; `None` for types that have none, which then prune nothing.
fn engine_bound(bound: &Bound) -> Option<meridian_engine::Bound> {
    let min = bound.min.as_ref().map(engine_value);
    let max = bound.max.as_ref().map(engine_value);
    // One end that cannot be said still leaves the other.
    let (min, max) = (min.flatten(), max.flatten());
    (min.is_some() || max.is_some()).then_some(meridian_engine::Bound { column: bound.column, min, max })
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
