//! Measures segments on rows of the TSBS "cpu-only" shape: a timestamptz every 10 seconds, 10 text tags that are constant
//! for a host, 10 metrics that walk between 0 and 100 with normal steps.
//!
//! ```text
//! cargo run --release -p meridian-engine --example segment_speed -- [hosts] [rows per host]
//! ```
//!
//! Prints, for metrics as whole numbers (as TSBS cuts them), with two decimals, and as full doubles (those with a clock
//! that jitters by milliseconds): bytes per row and rows per second on one core, then the same column by column, all ten
//! metrics together, what pieces and their statistics take, and how long one host and one hour of two columns take with all
//! pages in the cache. Encoding goes into a file in memory; decoding verifies checksums, as always.

use std::hint::black_box;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use futures::executor::block_on;
use meridian_engine::leaf::{LEAF_CACHE_BYTES_MAX, LeafCache, RowGroupScan};
use meridian_engine::segment::{
    PageCache, SegmentExpectation, SegmentLimits, SegmentReader, SegmentRows, SegmentSpec, write,
};
use meridian_engine::{Bound, Disk, SimulatedDisk, SortKey, Value};
use meridian_proto::ids::{ChunkId, ClusterId, ColumnId, SchemaVersion, SegmentId, TableId};
use meridian_proto::schema::{Column, TableSchema};
use meridian_proto::types::SqlType;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const TAGS: usize = 10;
const METRICS: usize = 10;
const ROUNDS: usize = 7;
const DIRECTORY: &str = "/chunk";
/// 2016-01-01 00:00 UTC.
const START: i64 = 1_451_606_400_000_000;

#[derive(Clone, Copy, PartialEq)]
enum Metrics {
    Whole,
    TwoDecimals,
    Doubles,
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().expect("a number"));
    let hosts: usize = arguments.next().unwrap_or(100);
    let rows_per_host: usize = arguments.next().unwrap_or(8640);
    for (name, metrics) in
        [("whole numbers", Metrics::Whole), ("two decimals", Metrics::TwoDecimals), ("full doubles", Metrics::Doubles)]
    {
        measure(name, hosts, rows_per_host, metrics);
    }
}

fn measure(name: &str, hosts: usize, rows_per_host: usize, metrics: Metrics) {
    let schema = schema();
    let batches = batches(&schema, hosts, rows_per_host, metrics);
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
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
    let directory = Path::new(DIRECTORY);
    block_on(disk.create_directory(directory)).expect("a folder");

    let (file_bytes, encode_seconds) = written(&disk, &spec, &batches);
    let reader = block_on(SegmentReader::open(&disk, directory, expected)).expect("opened");
    let decode = |columns: &[Column]| {
        let mut bytes = 0;
        for row_group in 0..reader.row_groups().len() {
            bytes += black_box(block_on(reader.read(row_group, columns, &no_pause)).expect("read")).bytes_read;
        }
        bytes
    };
    let per_second = |seconds: f64| rows as f64 / seconds / 1e6;
    let all_seconds = best(|| decode(&schema.columns));
    println!(
        "{name}: {rows} rows, {:.3} bytes/row, encode {:.2} M rows/s, decode {:.2} M rows/s, {} KiB of footer in memory",
        decode(&schema.columns) as f64 / rows as f64,
        per_second(encode_seconds),
        per_second(all_seconds),
        reader.memory_bytes() >> 10,
    );
    for (label, at) in [("time", 0), ("hostname", 1), ("tag", 2), ("metric", TAGS + 1), ("metric", TAGS + 2)] {
        let columns = &schema.columns[at..=at];
        let bytes = decode(columns);
        let seconds = best(|| decode(columns));
        let arrow_bytes: usize =
            batches.iter().map(|batch| batch.column(at).to_data().get_slice_memory_size().unwrap()).sum();
        println!(
            "  {label:9} {:7.4} bytes/row, decode {:7.1} M values/s = {:5.1} GB/s",
            bytes as f64 / rows as f64,
            per_second(seconds),
            arrow_bytes as f64 / seconds / 1e9,
        );
    }
    println!("  {:.3} bytes/row of the file, its footer and pieces included", file_bytes as f64 / rows as f64);
    measure_reads(&schema, reader, rows, hosts);
}

/// Prints what ten metrics and narrow reads take.
fn measure_reads(
    schema: &TableSchema,
    reader: SegmentReader<<SimulatedDisk as Disk>::File>,
    rows: usize,
    hosts: usize,
) {
    let cache = PageCache::new(1 << 30);
    let reader = Rc::new(reader.cached(cache.file()));
    let metrics = &schema.columns[TAGS + 1..];
    let groups: Vec<usize> = (0..reader.row_groups().len()).collect();
    let read_all = || {
        for group in &groups {
            let all = 0..reader.row_group(*group).rows;
            let read = reader.read_columns(*group, metrics, std::slice::from_ref(&all), &no_pause);
            black_box(block_on(read).expect("read"));
        }
    };
    read_all();
    let seconds = best(read_all);
    println!("  ten metrics from the cache: {:.1} M values/s", (rows * METRICS) as f64 / seconds / 1e6);

    let pieces = |group: &usize| block_on(reader.pieces(*group)).expect("read").map_or(0, |pieces| pieces.len());
    let statistics = |group: &usize| black_box(block_on(reader.piece_columns(*group, metrics)).expect("read")).len();
    let count: usize = groups.iter().map(pieces).sum();
    black_box(groups.iter().map(statistics).sum::<usize>());
    println!("  {} row groups, {count} pieces, {} KiB in the cache", groups.len(), cache.figures().bytes >> 10);

    let leaf_cache = LeafCache::new(LEAF_CACHE_BYTES_MAX);
    let columns = [schema.columns[0].clone(), schema.columns[TAGS + 1].clone()];
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let hours = rows / hosts / 360 - 1;
    for (name, shift) in [("aligned", 0), ("ragged", 1_234_000_000)] {
        let looks: Vec<[Bound; 2]> =
            (0..2000).map(|_| look(random.random_range(0..hosts), random.random_range(0..hours), shift)).collect();
        let mut found = 0;
        let mut look_all = || {
            found = 0;
            for bounds in &looks {
                for row_group in reader.prune(schema, bounds) {
                    let (reader, cache) = (&reader, &leaf_cache);
                    let scan = RowGroupScan { reader, row_group, schema, bounds, view: None, cache };
                    found += black_box(block_on(scan.rows(&columns, &[])).expect("read")).rows;
                }
            }
        };
        look_all();
        let seconds = best(look_all);
        let (micros, rows) = (seconds * 1e6 / looks.len() as f64, found as f64 / looks.len() as f64);
        println!("  one host, one {name} hour, two columns: {micros:.2} us for {rows:.1} rows");
    }
}

/// One host and one hour.
fn look(host: usize, hour: usize, shift: i64) -> [Bound; 2] {
    let name = Some(Value::Bytes(format!("host_{host:05}").into_bytes()));
    let first = START + hour as i64 * 3_600_000_000 + shift;
    [
        Bound { column: 1, min: name.clone(), max: name },
        Bound { column: 0, min: Some(Value::Int(first)), max: Some(Value::Int(first + 3_600_000_000 - 1)) },
    ]
}

/// Bytes of the file, and how long writing it takes.
fn written(disk: &SimulatedDisk, spec: &SegmentSpec, batches: &[RecordBatch]) -> (u64, f64) {
    let write_once = || {
        let source = batches
            .iter()
            .map(|batch| Ok(SegmentRows { batch: batch.clone(), commits: Some(vec![7; batch.num_rows()]) }));
        let rows = futures::stream::iter(source);
        block_on(write(disk, Path::new(DIRECTORY), spec, rows, SegmentLimits::default(), &no_pause)).expect("written")
    };
    let bytes = write_once().file_bytes;
    (bytes, best(write_once))
}

async fn no_pause() {}

fn best<T>(mut run: impl FnMut() -> T) -> f64 {
    let seconds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        black_box(run());
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
        modifier: None,
    };
    TableSchema { version: SchemaVersion(1), columns: (1..).zip(types).map(column).collect() }
}

/// One batch per host, hosts in order of their name.
fn batches(schema: &TableSchema, hosts: usize, rows_per_host: usize, metrics: Metrics) -> Vec<RecordBatch> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    (0..hosts).map(|host| batch(schema, &mut random, host, rows_per_host, metrics)).collect()
}

fn batch(schema: &TableSchema, random: &mut ChaCha8Rng, host: usize, rows: usize, metrics: Metrics) -> RecordBatch {
    let jitter = if metrics == Metrics::Doubles { 2000 } else { 0 };
    let time = |row: i64| START + row * 10_000_000 + random.random_range(-jitter..=jitter) * 1000;
    let times = TimestampMicrosecondArray::from_iter_values((0..rows as i64).map(time).collect::<Vec<_>>());
    let mut columns: Vec<ArrayRef> = vec![Arc::new(times.with_timezone("UTC"))];
    for tag in 0..TAGS {
        let value = match tag {
            0 => format!("host_{host:05}"),
            _ => format!("tag-{tag}-{}", host * (tag + 7) % (3 * tag + 2)),
        };
        columns.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows))));
    }
    for _ in 0..METRICS {
        let mut state = random.random::<f64>() * 100.0;
        let walk = (0..rows).map(|_| {
            state = (state + normal(random)).clamp(0.0, 100.0);
            match metrics {
                Metrics::Whole => state.trunc(),
                Metrics::TwoDecimals => (state * 100.0).round() / 100.0,
                Metrics::Doubles => state,
            }
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
