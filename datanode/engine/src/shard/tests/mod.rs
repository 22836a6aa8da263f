//! A whole shard: on a real folder where durability counts, on the simulated disk where faults do.

mod compaction;
mod compression;
mod corpora;
mod faults;
mod flushes;
mod leaves;
mod memory;
mod reads;
mod recovery;
mod sorted;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use meridian_proto::rows::encode_rows;
use meridian_proto::schema::{Column, TableSchema};
use meridian_proto::{
    ChunkId, ClusterId, ColumnId, CommandId, Epoch, NodeId, ProducerId, Refusal, SchemaVersion, Sequence, ShardId,
    SqlType, TableId, TransactionId, Ts,
};

use super::*;
use crate::disk::SimulatedDisk;
use crate::replica::WriteMode;
use crate::scan::{ScanStatistics, SortKey};

const EPOCH: Epoch = Epoch(1);
const CHUNK: ChunkId = ChunkId(7);
const OTHER: ChunkId = ChunkId(8);
const NOTHING: [i64; 0] = [];

fn column(id: u16, name: &str, sql_type: SqlType) -> Column {
    Column { id: ColumnId(id), name: name.to_owned(), sql_type, not_null: false, default: None, modifier: None }
}

fn schema() -> TableSchema {
    let columns = vec![
        column(1, "time", SqlType::Timestamptz),
        column(2, "host", SqlType::Text),
        column(3, "value", SqlType::Int8),
    ];
    TableSchema { version: SchemaVersion(1), columns }
}

fn spec(chunk: ChunkId, epoch: Epoch, max_read: u64) -> ChunkSpec {
    let sort = SortKey { segment_by: vec![ColumnId(2)], time: Some(ColumnId(1)) };
    ChunkSpec { chunk, table: TableId(16_400), epoch, schema: schema(), sort, max_read: Ts(max_read) }
}

fn options(directory: &Path) -> ShardOptions {
    ShardOptions {
        wal_file_bytes: 256 << 10,
        ..ShardOptions::new(ShardId(0), directory.to_owned(), ClusterId(9), NodeId(2))
    }
}

fn simulated() -> PathBuf {
    PathBuf::from("/data/shard0")
}

/// Rows whose values are `values`.
fn rows(values: impl IntoIterator<Item = i64>) -> Bytes {
    let values: Vec<i64> = values.into_iter().collect();
    let hosts = values.iter().map(|value| format!("host_{}", value % 5));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(values.iter().map(|value| value * 1000)).with_timezone("UTC"),
        ),
        Arc::new(hosts.map(Some).collect::<StringArray>()),
        Arc::new(values.iter().copied().collect::<Int64Array>()),
    ];
    encode_rows(&RecordBatch::try_new(schema().arrow(), columns).unwrap()).unwrap()
}

fn id(sequence: u64) -> TransactionId {
    TransactionId { producer: ProducerId(1), sequence: Sequence(sequence) }
}

fn write(sequence: u64, values: impl IntoIterator<Item = i64>) -> Write {
    Write {
        chunk: CHUNK,
        epoch: EPOCH,
        transaction: id(sequence),
        low_water: Sequence(0),
        piece: 0,
        command: CommandId(0),
        snapshot: Ts(1),
        schema_version: SchemaVersion(1),
        mode: WriteMode::OnePhase,
        rows: rows(values),
    }
}

fn stage(sequence: u64, piece: u32, holder: ChunkId, values: impl IntoIterator<Item = i64>) -> Write {
    Write { piece, mode: WriteMode::Stage { holder }, ..write(sequence, values) }
}

fn decide(sequence: u64, commit: bool, pieces: u32) -> Decide {
    let (transaction, participants) = (id(sequence), vec![CHUNK, OTHER]);
    Decide { chunk: CHUNK, epoch: EPOCH, transaction, commit, max_read: Ts(1), participants, pieces }
}

fn resolve(sequence: u64, commit: Option<u64>) -> Resolve {
    Resolve { chunk: CHUNK, epoch: EPOCH, transaction: id(sequence), commit: commit.map(Ts) }
}

fn scan_at(snapshot: u64) -> Scan {
    Scan {
        chunk: CHUNK,
        epoch: EPOCH,
        snapshot: Ts(snapshot),
        columns: vec![2],
        bounds: Vec::new(),
        any_of: vec![],
        own: None,
        resolved: Vec::new(),
        batch_rows: 8192,
    }
}

/// The values that a scan returns, sorted, and what it did.
async fn scanned<D: Disk>(shard: &Shard<D>, scan: Scan) -> Result<(Vec<i64>, ScanStatistics), Refusal> {
    let (mut found, batch_rows) = (Vec::new(), scan.batch_rows);
    let mut stream = shard.scan(scan)?;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        assert!(batch.num_rows() <= batch_rows);
        found.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
    }
    found.sort_unstable();
    Ok((found, stream.statistics()))
}

async fn values_at<D: Disk>(shard: &Shard<D>, snapshot: u64) -> Vec<i64> {
    shard.begin_read(CHUNK, EPOCH, Ts(snapshot)).await.unwrap();
    scanned(shard, scan_at(snapshot)).await.unwrap().0
}

/// A shard with the two chunks open.
async fn open<D: Disk>(disk: &D, options: ShardOptions) -> Result<(Shard<D>, RecoveryReport), EngineError> {
    let (shard, report) = Shard::open_on(disk.clone(), options).await?;
    shard.open_chunk(spec(CHUNK, EPOCH, 10)).await.unwrap();
    shard.open_chunk(spec(OTHER, EPOCH, 10)).await.unwrap();
    Ok((shard, report))
}

async fn open_simulated(seed: u64) -> (SimulatedDisk, Shard<SimulatedDisk>) {
    let disk = SimulatedDisk::new(seed);
    let (shard, _) = open(&disk, options(&simulated())).await.unwrap();
    (disk, shard)
}

fn up_to(count: i64) -> Vec<i64> {
    (0..count).collect()
}

/// A file of the disk whose name ends so.
fn file(disk: &SimulatedDisk, suffix: &str) -> PathBuf {
    let found = disk.files(&simulated()).into_iter().find(|path| path.to_string_lossy().ends_with(suffix));
    found.unwrap_or_else(|| panic!("no file ends with {suffix}"))
}

/// How often each value was found, for messages.
fn counts(values: &[i64]) -> BTreeMap<i64, usize> {
    values.iter().fold(BTreeMap::new(), |mut counts, value| {
        *counts.entry(*value).or_default() += 1;
        counts
    })
}
