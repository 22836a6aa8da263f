//! Appends to a shard's log by several writers at once, which share group commits, beside what the disk itself does: a
//! loop of writes, each followed by fdatasync, into a file of the same kind.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use meridian_engine::disk::{AlignedBuffer, BLOCK_BYTES};
use meridian_engine::{Shard, ShardOptions};
use meridian_proto::rows::encode_rows;
use meridian_proto::{ClusterId, NodeId, ShardId};

use super::data::batches;
use super::on_executor;
use super::shard::{Producer, TestChunk};
use crate::ingest::Error;
use crate::report::{Figure, percentile};
use crate::tsbs::Workload;

/// Writers at once.
const WRITERS: [u32; 3] = [1, 8, 64];
/// So that nothing is flushed while it is measured.
const MEMORY_BYTES: usize = 4 << 30;
/// Of the plain file, which is written round and round: as large as a file of the log.
const FILE_BYTES: usize = 64 << 20;

/// Appends of `batch_rows` rows for `time` each, in a new folder below `folder`.
pub fn run(folder: &Path, batch_rows: usize, time: Duration) -> Result<Vec<Figure>, Error> {
    let folder = tempfile::tempdir_in(folder)?;
    let workload = Workload { hosts: batch_rows.max(1) as u32, steps: 1, decimals: 2, seed: 1 };
    let batch = batches(workload, batch_rows).next().ok_or("no rows")?;
    let rows = encode_rows(&batch)?;
    let mut figures = vec![Figure::new("append", rows.len() as f64, "bytes")];
    let before = sync_loop(folder.path(), rows.len(), time / 2)?;
    let mut measured = Vec::new();
    for writers in WRITERS {
        let directory = folder.path().join(format!("shard-{writers}"));
        let appends = on_executor(append(&directory, rows.clone(), writers, time))?;
        let plural = if writers == 1 { "" } else { "s" };
        measured.push((format!("{writers} writer{plural}"), appends));
    }
    let after = sync_loop(folder.path(), rows.len(), time / 2)?;
    let plain = before.joined(after);
    for (name, appends) in std::iter::once(("plain loop".to_owned(), plain)).chain(measured) {
        figures.extend(appends.figures(&name));
    }
    Ok(figures)
}

/// Microseconds of each append, sorted, and how long all took together.
struct Appends {
    latencies: Vec<f64>,
    seconds: f64,
}

impl Appends {
    fn joined(self, other: Self) -> Self {
        let mut latencies = [self.latencies, other.latencies].concat();
        latencies.sort_by(f64::total_cmp);
        Self { latencies, seconds: self.seconds + other.seconds }
    }

    fn figures(&self, name: &str) -> [Figure; 3] {
        [
            Figure::new(format!("{name}: appends"), self.latencies.len() as f64 / self.seconds, "1/s"),
            Figure::new(format!("{name}: p50"), percentile(&self.latencies, 0.5), "us"),
            Figure::new(format!("{name}: p99"), percentile(&self.latencies, 0.99), "us"),
        ]
    }
}

/// The shard acknowledges each append when it is durable; every writer sends its next one then.
async fn append(directory: &Path, rows: Bytes, writers: u32, time: Duration) -> Result<Appends, Error> {
    let options = ShardOptions {
        memtable_bytes_max: MEMORY_BYTES,
        wal_bytes_max: MEMORY_BYTES as u64,
        ..ShardOptions::new(ShardId(0), directory.to_owned(), ClusterId(1), NodeId(1))
    };
    let (shard, _) = Shard::open(options).await?;
    let chunk = Rc::new(TestChunk::open(&shard).await?);
    let start = Instant::now();
    let writing = (0..writers).map(|number| {
        let (shard, chunk, rows) = (shard.clone(), Rc::clone(&chunk), rows.clone());
        async move {
            let mut producer = Producer::new(number);
            let mut latencies = Vec::new();
            while start.elapsed() < time {
                let sent = Instant::now();
                shard.write(producer.next(&chunk, rows.clone())).await?;
                latencies.push(sent.elapsed().as_secs_f64() * 1e6);
            }
            Ok::<_, Error>(latencies)
        }
    });
    let mut latencies = try_join_all(writing).await?.concat();
    let seconds = start.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    shard.close().await;
    Ok(Appends { latencies, seconds })
}

/// Writes of as many blocks as one append takes, each synced.
fn sync_loop(folder: &Path, append_bytes: usize, time: Duration) -> Result<Appends, Error> {
    let path = folder.join("plain");
    let file = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT).open(&path)?;
    let zeros = AlignedBuffer::zeroed(1 << 20);
    for position in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, position as u64)?;
    }
    file.sync_all()?;
    let buffer = AlignedBuffer::zeroed(append_bytes.next_multiple_of(BLOCK_BYTES));
    let (start, mut position, mut latencies) = (Instant::now(), 0, Vec::new());
    while start.elapsed() < time {
        let sent = Instant::now();
        file.write_all_at(&buffer, position as u64)?;
        file.sync_data()?;
        latencies.push(sent.elapsed().as_secs_f64() * 1e6);
        position += buffer.len();
        if position + buffer.len() > FILE_BYTES {
            position = 0;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(Appends { latencies, seconds })
}
