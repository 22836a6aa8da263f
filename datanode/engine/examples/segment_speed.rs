//! Measures segments on rows of the TSBS "cpu-only" shape: a timestamptz, 10 text tags of low cardinality, 10 metrics.
//!
//! ```text
//! cargo run --release -p meridian-engine --example segment_speed -- [hosts] [rows per host]
//! ```
//!
//! Prints, for whole-number and two-decimal metrics, bytes per row and rows per second on one core: encoding into a file
//! in memory, decoding all columns, decoding time and one metric.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use futures::executor::block_on;
use meridian_engine::segment::{SegmentExpectation, SegmentLimits, SegmentReader, SegmentRows, SegmentSpec, write};
use meridian_engine::{Disk, SimulatedDisk, SortKey};
use meridian_proto::ids::{ChunkId, ClusterId, ColumnId, SchemaVersion, SegmentId, TableId};
use meridian_proto::schema::{Column, TableSchema};
use meridian_proto::types::SqlType;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const TAGS: usize = 10;
const METRICS: usize = 10;
const ROUNDS: usize = 5;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().expect("a number"));
    let hosts: usize = arguments.next().unwrap_or(100);
    let rows_per_host: usize = arguments.next().unwrap_or(8640);
    for (name, step) in [("whole numbers", 1.0), ("two decimals", 0.01), ("full doubles", 0.0)] {
        measure(name, hosts, rows_per_host, step);
    }
}

fn measure(name: &str, hosts: usize, rows_per_host: usize, step: f64) {
    let schema = schema();
    let batches = batches(&schema, hosts, rows_per_host, step);
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let directory = Path::new("/chunk");
    let spec = SegmentSpec {
        cluster: ClusterId(1),
        table: TableId(16_384),
        chunk: ChunkId(1),
        segment: SegmentId(1),
        schema: schema.clone(),
        sort: SortKey { segment_by: vec![ColumnId(2)], time: Some(ColumnId(1)) },
    };
    let expected = SegmentExpectation { cluster: spec.cluster, chunk: spec.chunk, segment: spec.segment };
    let disk = SimulatedDisk::new(1);
    block_on(disk.create_directory(directory)).expect("a folder");

    let encode = || {
        let source = batches
            .iter()
            .map(|batch| Ok(SegmentRows { batch: batch.clone(), commits: Some(vec![7; batch.num_rows()]) }));
        block_on(write(&disk, directory, &spec, futures::stream::iter(source), SegmentLimits::default(), &no_pause))
            .expect("written")
    };
    let summary = encode();
    let encode_seconds = best(|| {
        black_box(encode());
    });
    let reader = block_on(SegmentReader::open(&disk, directory, expected)).expect("opened");
    let decode = |columns: &[Column]| {
        for row_group in 0..reader.row_groups().len() {
            black_box(block_on(reader.read(row_group, columns, &no_pause)).expect("read"));
        }
    };
    let all_seconds = best(|| decode(&schema.columns));
    let two = [schema.columns[0].clone(), schema.columns[TAGS + 1].clone()];
    let two_seconds = best(|| decode(&two));
    let per_second = |seconds: f64| rows as f64 / seconds / 1e6;
    println!(
        "{name:14} {rows} rows: {:6.2} bytes/row, encode {:5.2} M rows/s, decode {:5.2} M rows/s, 2 columns {:6.1} M rows/s",
        summary.file_bytes as f64 / rows as f64,
        per_second(encode_seconds),
        per_second(all_seconds),
        per_second(two_seconds),
    );
}

async fn no_pause() {}

fn best(mut run: impl FnMut()) -> f64 {
    let seconds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    });
    seconds.fold(f64::MAX, f64::min)
}

fn schema() -> TableSchema {
    let types = std::iter::once(SqlType::Timestamptz)
        .chain(std::iter::repeat_n(SqlType::Text, TAGS))
        .chain(std::iter::repeat_n(SqlType::Float8, METRICS));
    let column = |(number, sql_type)| Column {
        id: ColumnId(number),
        name: format!("c{number}"),
        sql_type,
        not_null: number == 1,
        default: None,
    };
    TableSchema { version: SchemaVersion(1), columns: (1..).zip(types).map(column).collect() }
}

/// One batch per host, hosts in order of their name. Metrics are random walks in 0..=100 with steps of a normal
/// distribution, rounded to `step`; 0 for not rounded.
fn batches(schema: &TableSchema, hosts: usize, rows_per_host: usize, step: f64) -> Vec<RecordBatch> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    (0..hosts).map(|host| batch(schema, &mut random, host, rows_per_host, step)).collect()
}

fn batch(schema: &TableSchema, random: &mut ChaCha8Rng, host: usize, rows: usize, step: f64) -> RecordBatch {
    let start = 1_451_606_400_000_000_i64;
    let times = TimestampMicrosecondArray::from_iter_values((0..rows as i64).map(|row| start + row * 10_000_000));
    let mut columns: Vec<ArrayRef> = vec![Arc::new(times.with_timezone("UTC"))];
    for tag in 0..TAGS {
        let value = match tag {
            0 => format!("host_{host:05}"),
            _ => format!("tag-{tag}-{}", host * (tag + 7) % (3 * tag + 2)),
        };
        columns.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows))));
    }
    for _ in 0..METRICS {
        let mut value = (random.random::<f64>() * 100.0).floor();
        let walk = (0..rows).map(|_| {
            let change = normal(random);
            let change = if step > 0.0 { (change / step).trunc() * step } else { change };
            value = (value + change).clamp(0.0, 100.0);
            if step > 0.0 {
                value = (value / step).round() / (1.0 / step).round();
            }
            value
        });
        columns.push(Arc::new(Float64Array::from_iter_values(walk)));
    }
    RecordBatch::try_new(schema.arrow(), columns).expect("columns of the schema")
}

/// Box-Muller.
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let (a, b) = (1.0 - random.random::<f64>(), random.random::<f64>());
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}
