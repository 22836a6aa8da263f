//! One shard on a real disk: rows written, flushed, compressed and scanned in a second, beside what memory gives in the
//! same run. Every scan's rows are counted and summed, and compared with what was written.

use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use bytes::Bytes;
use futures::StreamExt;
use meridian_engine::{
    Bound, ChunkSpec, CompressOutcome, CompressionOrder, OrderBy, Scan, Shard, ShardOptions, SortKey, Value, Write,
    WriteMode,
};
use meridian_proto::rows::encode_rows;
use meridian_proto::schema::TableSchema;
use meridian_proto::{
    ChunkId, ClusterId, ColumnId, CommandId, Epoch, NodeId, ProducerId, SchemaVersion, Sequence, ShardId, TableId,
    TransactionId, Ts,
};

use super::data::{HOSTNAME, TIME, USAGE_USER, batches, schema, time_of};
use super::memory::Limits;
use super::on_executor;
use crate::ingest::Error;
use crate::report::Figure;
use crate::tsbs::{HostRows, Workload};

/// Rows of one write: what a gateway sends at once.
const WRITE_ROWS: usize = 8192;
/// Writes in flight: a connection sends the next piece while one is on its way to the disk.
const WRITES_AT_ONCE: usize = 4;
const BATCH_ROWS: usize = 8192;
/// So that flushes come only when they are measured.
const MEMORY_BYTES: usize = 8 << 30;
/// What flushing makes of a load that streams in: segments that lie side by side in time.
const FLUSHES: usize = 4;
const SCAN_ROUNDS: usize = 5;
const NEVER: Duration = Duration::from_secs(1 << 30);
/// Later than every commit of a measurement.
const SNAPSHOT: Ts = Ts(1 << 60);

/// The only chunk of a measurement.
pub struct TestChunk {
    id: ChunkId,
    epoch: Epoch,
    pub schema: TableSchema,
}

impl TestChunk {
    pub async fn open(shard: &Shard) -> Result<Self, Error> {
        let chunk = Self { id: ChunkId(1), epoch: Epoch(1), schema: schema() };
        let column = |position: usize| ColumnId(position as u16 + 1);
        let sort = SortKey { segment_by: vec![column(HOSTNAME)], time: Some(column(TIME)) };
        let (table, schema) = (TableId(16_384), chunk.schema.clone());
        let spec = ChunkSpec { chunk: chunk.id, table, epoch: chunk.epoch, schema, sort, max_read: Ts(1) };
        shard.open_chunk(spec).await?;
        Ok(chunk)
    }
}

/// One source of writes, each a transaction of its own.
pub struct Producer {
    id: ProducerId,
    sequence: u64,
}

impl Producer {
    #[must_use]
    pub fn new(number: u32) -> Self {
        Self { id: ProducerId(u64::from(number) + 1), sequence: 0 }
    }

    pub fn next(&mut self, chunk: &TestChunk, rows: Bytes) -> Write {
        self.sequence += 1;
        Write {
            chunk: chunk.id,
            epoch: chunk.epoch,
            transaction: TransactionId { producer: self.id, sequence: Sequence(self.sequence) },
            low_water: Sequence(self.sequence.saturating_sub(WRITES_AT_ONCE as u64)),
            piece: 0,
            command: CommandId(0),
            snapshot: Ts(1),
            schema_version: SchemaVersion(1),
            mode: WriteMode::OnePhase,
            rows,
        }
    }
}

/// Writes the workload into a new folder below `folder` and measures every step.
pub fn run(folder: &Path, workload: Workload) -> Result<Vec<Figure>, Error> {
    let folder = tempfile::tempdir_in(folder)?;
    let limits = Limits::measure();
    let mut figures = limits.figures();
    figures.extend(on_executor(measure(&folder.path().join("shard"), workload, &limits))?);
    Ok(figures)
}

async fn measure(directory: &Path, workload: Workload, limits: &Limits) -> Result<Vec<Figure>, Error> {
    let options = ShardOptions {
        memtable_bytes_max: MEMORY_BYTES,
        wal_bytes_max: MEMORY_BYTES as u64,
        flush_age: NEVER,
        ..ShardOptions::new(ShardId(0), directory.to_owned(), ClusterId(1), NodeId(1))
    };
    let (shard, _) = Shard::open(options).await?;
    let chunk = TestChunk::open(&shard).await?;
    let rows = workload.rows() as f64;
    let mut figures = Vec::new();

    let (mut write_seconds, mut flush_seconds) = (0.0, 0.0);
    for (producer, pieces) in (0..).zip(pieces(workload)?) {
        write_seconds += write(&shard, &chunk, Producer::new(producer), pieces).await?;
        let started = Instant::now();
        shard.flush().await?;
        flush_seconds += started.elapsed().as_secs_f64();
    }
    figures.push(Figure::new("write, durable", rows / write_seconds, "rows/s"));
    figures.push(Figure::new("flush", rows / flush_seconds, "rows/s"));
    shard.compact().await?;
    let bytes = shard.chunk_sizes(chunk.id).ok_or("no chunk")?.bytes;
    figures.push(Figure::new("flushed", bytes as f64 / rows, "bytes/row"));
    figures.extend(scans(&shard, &chunk, workload, limits, "flushed").await?);

    let started = Instant::now();
    let order_by = vec![OrderBy { column: TIME, descending: false, nulls_first: false }];
    let order = CompressionOrder { segment_by: vec![HOSTNAME], order_by };
    let CompressOutcome::Compressed { bytes_after, .. } = shard.compress(chunk.id, chunk.epoch, order).await? else {
        return Err("the chunk was compressed before".into());
    };
    figures.push(Figure::new("compress", rows / started.elapsed().as_secs_f64(), "rows/s"));
    figures.push(Figure::new("compressed", bytes_after as f64 / rows, "bytes/row"));
    figures.extend(scans(&shard, &chunk, workload, limits, "compressed").await?);
    shard.close().await;
    Ok(figures)
}

/// The rows of the workload on their way, in as many parts as there are flushes.
fn pieces(workload: Workload) -> Result<Vec<Vec<Bytes>>, Error> {
    let encoded: Vec<Bytes> =
        batches(workload, WRITE_ROWS).map(|batch| encode_rows(&batch)).collect::<Result<_, _>>()?;
    Ok(encoded.chunks(encoded.len().div_ceil(FLUSHES)).map(<[Bytes]>::to_vec).collect())
}

/// Seconds until all are durable.
async fn write(shard: &Shard, chunk: &TestChunk, mut producer: Producer, pieces: Vec<Bytes>) -> Result<f64, Error> {
    let writes: Vec<_> = pieces.into_iter().map(|rows| producer.next(chunk, rows)).collect();
    let started = Instant::now();
    let mut written = futures::stream::iter(writes).map(|write| shard.write(write)).buffered(WRITES_AT_ONCE);
    while let Some(one) = written.next().await {
        one?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// A scan of the measurement and what it must find.
struct Question {
    name: &'static str,
    columns: Vec<usize>,
    bounds: Vec<Bound>,
    expected: Found,
}

/// Rows within the question's time, and the sum of `usage_user` over them.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    rows: u64,
    sum: f64,
}

impl Found {
    /// Doubles are added in another order.
    fn is_same(self, other: Self) -> bool {
        self.rows == other.rows && (self.sum - other.sum).abs() <= 1e-9 * other.sum.abs()
    }
}

/// What one scan did.
struct Pass {
    found: Found,
    /// Rows handed out, those outside the bounds included.
    rows: u64,
    bytes: usize,
}

async fn scans(
    shard: &Shard,
    chunk: &TestChunk,
    workload: Workload,
    limits: &Limits,
    state: &str,
) -> Result<Vec<Figure>, Error> {
    let mut figures = Vec::new();
    for question in questions(chunk, workload) {
        let (mut seconds, mut pass) = (f64::MAX, Pass { found: Found::default(), rows: 0, bytes: 0 });
        for _ in 0..SCAN_ROUNDS {
            let started = Instant::now();
            pass = scan(shard, chunk, &question).await?;
            seconds = seconds.min(started.elapsed().as_secs_f64());
            if !pass.found.is_same(question.expected) {
                return Err(format!("{}: {:?}, expected {:?}", question.name, pass.found, question.expected).into());
            }
        }
        let name = |what: &str| format!("scan {}, {state}: {what}", question.name);
        let rate = pass.bytes as f64 / seconds / 1e9;
        figures.push(Figure::new(name("time"), seconds * 1e3, "ms"));
        figures.push(Figure::new(name("rows"), pass.rows as f64 / seconds, "rows/s"));
        figures.push(Figure::new(name("values"), rate, "GB/s"));
        figures.push(Figure::new(name("of a memory copy"), rate / limits.copy, "times"));
    }
    Ok(figures)
}

fn questions(chunk: &TestChunk, workload: Workload) -> Vec<Question> {
    let all = expected(workload, 0, workload.steps);
    // A twelfth in the middle: two hours of a day.
    let (start, end) = (workload.steps / 2, workload.steps / 2 + (workload.steps / 12).max(1));
    let bound = Bound { column: TIME, min: Some(Value::Int(time_of(start))), max: Some(Value::Int(time_of(end) - 1)) };
    let every = (0..chunk.schema.columns.len()).collect();
    vec![
        Question { name: "all columns", columns: every, bounds: Vec::new(), expected: all },
        Question { name: "one column", columns: vec![TIME, USAGE_USER], bounds: Vec::new(), expected: all },
        Question {
            name: "a twelfth of the time",
            columns: vec![TIME, USAGE_USER],
            bounds: vec![bound],
            expected: expected(workload, start, end),
        },
    ]
}

fn expected(workload: Workload, start: u64, end: u64) -> Found {
    let hosts = (0..workload.hosts).map(|number| HostRows::new(workload, number));
    let sum = hosts.map(|host| host.metrics[0][start as usize..end as usize].iter().sum::<f64>()).sum();
    Found { rows: (end - start) * u64::from(workload.hosts), sum }
}

async fn scan(shard: &Shard, chunk: &TestChunk, question: &Question) -> Result<Pass, Error> {
    shard.begin_read(chunk.id, chunk.epoch, SNAPSHOT).await?;
    let (columns, bounds) = (question.columns.clone(), question.bounds.clone());
    let mut stream = shard.scan(Scan {
        chunk: chunk.id,
        epoch: chunk.epoch,
        snapshot: SNAPSHOT,
        columns,
        bounds,
        any_of: Vec::new(),
        own: None,
        resolved: Vec::new(),
        batch_rows: BATCH_ROWS,
    })?;
    let mut pass = Pass { found: Found::default(), rows: 0, bytes: 0 };
    while let Some(batch) = stream.next().await {
        pass.take(&batch?, question);
    }
    Ok(pass)
}

impl Pass {
    fn take(&mut self, batch: &RecordBatch, question: &Question) {
        self.rows += batch.num_rows() as u64;
        let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0));
        self.bytes += sizes.sum::<usize>();
        let at = question.columns.iter().position(|column| *column == USAGE_USER).unwrap_or(0);
        let values = batch.column(at).as_primitive::<Float64Type>().values();
        match question.bounds.first() {
            None => {
                self.found.rows += values.len() as u64;
                self.found.sum += values.iter().sum::<f64>();
            }
            Some(Bound { min: Some(Value::Int(min)), max: Some(Value::Int(max)), .. }) => {
                let times = batch.column(0).as_primitive::<arrow::datatypes::TimestampMicrosecondType>().values();
                let inside = times.iter().zip(values).filter(|(time, _)| (*min..=*max).contains(*time));
                let (rows, sum) = inside.fold((0, 0.0), |(rows, sum), (_, value)| (rows + 1, sum + value));
                self.found.rows += rows;
                self.found.sum += sum;
            }
            Some(_) => {}
        }
    }
}
