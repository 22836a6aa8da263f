//! Scans in an order, against a plain sort of the plain scan's rows: on the random chunks of the other leaves, and on
//! chunks that are made to show one thing each.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::rc::Rc;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::leaves::{HOST, Look, RACK, Row, TIME, VALUE, decode, encode, is_within, of_column, once, series_spec};
use super::*;
use crate::scan::{Bound, SortColumn, Value};
use crate::testing::run;

fn by(column: usize) -> SortColumn {
    SortColumn { column, descending: false, nulls_first: false }
}

/// Orders that series lie in, those that they lie in without time, and some that they do not lie in.
pub(super) fn random_order(random: &mut ChaCha8Rng) -> Vec<SortColumn> {
    let orders: [&[usize]; 9] = [
        &[TIME],
        &[HOST, RACK, TIME],
        &[HOST, TIME],
        &[RACK, TIME],
        &[RACK, HOST, TIME],
        &[HOST],
        &[RACK, HOST],
        &[VALUE, TIME],
        &[TIME, HOST],
    ];
    let order = orders[random.random_range(0..orders.len())];
    let descending = random.random_bool(0.5);
    let column = |column: &usize| SortColumn {
        column: *column,
        descending: descending != random.random_bool(0.2),
        nulls_first: random.random_bool(0.5),
    };
    order.iter().map(column).collect()
}

/// By all or one of the series' columns, or none; by time in either direction, or behind another column.
pub(super) fn random_compression(random: &mut ChaCha8Rng) -> CompressionOrder {
    let segment_by: [&[usize]; 4] = [&[HOST, RACK], &[HOST], &[RACK], &[]];
    let descending = random.random_bool(0.5);
    let time = OrderBy { column: TIME, descending, nulls_first: descending };
    let value = OrderBy { column: VALUE, ..time };
    let order_by = [vec![time], vec![time, value], vec![value, time]];
    CompressionOrder {
        segment_by: segment_by[random.random_range(0..segment_by.len())].to_vec(),
        order_by: order_by[random.random_range(0..order_by.len())].clone(),
    }
}

fn part<T: Ord>(a: Option<&T>, b: Option<&T>, by: &SortColumn) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if by.descending => b.cmp(a),
        (Some(a), Some(b)) => a.cmp(b),
        (None, None) => Ordering::Equal,
        (None, Some(_)) if by.nulls_first => Ordering::Less,
        (Some(_), None) if !by.nulls_first => Ordering::Less,
        _ => Ordering::Greater,
    }
}

fn compare(a: &Row, b: &Row, order: &[SortColumn]) -> Ordering {
    let column = |by: &SortColumn| match by.column {
        TIME => part(Some(&a.0), Some(&b.0), by),
        HOST => part(a.1.as_ref(), b.1.as_ref(), by),
        RACK => part(a.2.as_ref(), b.2.as_ref(), by),
        _ => part(a.3.as_ref(), b.3.as_ref(), by),
    };
    order.iter().map(column).find(|compared| compared.is_ne()).unwrap_or(Ordering::Equal)
}

async fn read<D: Disk>(shard: &Shard<D>, scan: SortedScan) -> (Vec<Row>, ScanStatistics) {
    let mut stream = shard.scan_sorted(scan).unwrap();
    let mut rows = Vec::new();
    while let Some(batch) = stream.next().await {
        rows.extend(decode(&batch.unwrap()));
    }
    (rows, stream.statistics())
}

fn all_columns(snapshot: u64) -> Scan {
    Scan { columns: vec![0, 1, 2, 3, 4], ..scan_at(snapshot) }
}

fn check_order(rows: &[Row], order: &[SortColumn], message: &str) {
    let misplaced = rows.windows(2).find(|pair| compare(&pair[0], &pair[1], order).is_gt());
    assert_eq!(misplaced, None, "{message}");
}

/// What a look sees, in its order.
pub(super) async fn check(seed: u64, shard: &Shard<SimulatedDisk>, look: &Look, expected: &BTreeSet<Row>) {
    let message = format!("seed {seed}: {look:?}");
    let scan = Scan { bounds: look.bounds.clone(), batch_rows: 100, ..all_columns(look.snapshot) };
    let predicates = Rc::new(look.rack.map(|rack| of_column(RACK, rack)).into_iter().collect());
    let scan = SortedScan { scans: vec![scan], order: look.order.clone(), predicates };
    let rows = read(shard, scan).await.0;
    check_order(&rows, &look.order, &message);
    let wanted = |row: &Row| is_within(row, &look.bounds) && look.rack.is_none_or(|rack| row.2 == Some(rack));
    let found: BTreeSet<Row> = once(rows).into_iter().filter(wanted).collect();
    let expected: BTreeSet<Row> = expected.iter().filter(|row| wanted(row)).cloned().collect();
    assert_eq!(found, expected, "{message}");
}

/// Times from `first` on, two rows for each of the hosts at each.
fn times(first: i64, count: i64, hosts: i64) -> Vec<Row> {
    let row =
        |n: i64| (first + n / (2 * hosts), Some(format!("host_{}", n % hosts)), Some(0), Some(n % 7), first * 1000 + n);
    (0..count * 2 * hosts).map(row).collect()
}

/// Two chunks of two segments each, the second one of which is late, and rows in memory.
async fn two_chunks() -> Shard<SimulatedDisk> {
    let (shard, _) = Shard::open_on(SimulatedDisk::new(1), options(&simulated())).await.unwrap();
    let mut sequence = 0;
    for (chunk, first) in [(CHUNK, 0), (OTHER, 10_000)] {
        shard.open_chunk(ChunkSpec { chunk, ..series_spec() }).await.unwrap();
        for (at, is_flushed) in [(first, true), (first + 500, true), (first + 900, false)] {
            sequence += 1;
            let rows = encode(&times(at, 1000, 4));
            shard.write(Write { chunk, rows, ..write(sequence, []) }).await.unwrap();
            if is_flushed {
                shard.flush().await.unwrap();
            }
        }
        shard.begin_read(chunk, EPOCH, Ts(99)).await.unwrap();
    }
    shard
}

fn of_both(order: &[SortColumn], bounds: &[Bound]) -> SortedScan {
    let scan = |chunk| Scan { chunk, bounds: bounds.to_vec(), ..all_columns(99) };
    SortedScan { scans: vec![scan(CHUNK), scan(OTHER)], order: order.to_vec(), predicates: Rc::default() }
}

fn host(name: &str) -> Bound {
    let value = Some(Value::Bytes(name.as_bytes().to_vec()));
    Bound { column: HOST, min: value.clone(), max: value }
}

#[test]
fn chunks_segments_and_memory_are_merged() {
    run(async {
        let shard = two_chunks().await;
        let newest = SortColumn { descending: true, ..by(TIME) };
        for order in [vec![by(HOST), by(TIME)], vec![newest], vec![by(HOST), newest], vec![by(HOST)], vec![by(VALUE)]] {
            let rows = read(&shard, of_both(&order, &[])).await.0;
            check_order(&rows, &order, "the order itself");
            assert_eq!(rows.len(), 2 * 3 * 1000 * 8);
            let one = read(&shard, of_both(&order, &[host("host_2")])).await.0;
            check_order(&one, &order, "one series");
            assert_eq!(one.iter().filter(|row| row.1.as_deref() == Some("host_2")).count(), 2 * 3 * 1000 * 2);
        }
    });
}

#[test]
fn who_wants_few_rows_reads_few() {
    run(async {
        let shard = two_chunks().await;
        let first_of = async |order: &[SortColumn], bounds: &[Bound]| {
            let mut stream = shard.scan_sorted(of_both(order, bounds)).unwrap();
            let rows = decode(&stream.next().await.unwrap().unwrap());
            (rows[0].0, rows[0].1.clone().unwrap(), stream.statistics())
        };
        let newest = [SortColumn { descending: true, ..by(TIME) }];
        let (time, name, read) = first_of(&newest, &[host("host_1")]).await;
        assert_eq!((time, name.as_str()), (11_899, "host_1"));
        let in_memory = 2 * 8000;
        // The older chunk's segments were opened by nobody.
        assert!(read.segments_scanned <= 2 && read.rows_scanned <= in_memory + 2 * 1024, "{read:?}");
        let (time, name, read) = first_of(&[by(HOST), by(TIME)], &[]).await;
        assert_eq!((time, name.as_str()), (0, "host_0"));
        assert!(read.rows_scanned <= in_memory + 4 * 2048, "{read:?}");
    });
}

#[test]
fn rows_under_an_older_schema_are_sorted_with_the_others() {
    run(async {
        let (shard, _) = Shard::open_on(SimulatedDisk::new(1), options(&simulated())).await.unwrap();
        let mut older = series_spec();
        older.schema.columns.remove(RACK);
        older.schema.columns.truncate(3);
        older.sort.segment_by = vec![ColumnId(2)];
        shard.open_chunk(older).await.unwrap();
        let values: Vec<i64> = up_to(50);
        shard.write(write(1, values.clone())).await.unwrap();
        shard.flush().await.unwrap();
        let mut newer = series_spec();
        newer.schema.version = SchemaVersion(2);
        shard.open_chunk(newer).await.unwrap();
        let rows = encode(&times(0, 10, 2));
        shard.write(Write { rows, schema_version: SchemaVersion(2), ..write(2, []) }).await.unwrap();
        for _ in 0..2 {
            shard.begin_read(CHUNK, EPOCH, Ts(99)).await.unwrap();
            for order in [vec![by(RACK), by(HOST), by(TIME)], vec![by(HOST), by(TIME)], vec![by(RACK)]] {
                let scan = Scan { columns: vec![TIME, HOST, RACK, VALUE, VALUE], ..scan_at(99) };
                let scan = SortedScan { scans: vec![scan], order: order.clone(), predicates: Rc::default() };
                let rows = read(&shard, scan).await.0;
                check_order(&rows, &order, "older and newer rows");
                assert_eq!(rows.len(), 50 + 40);
            }
            shard.flush().await.unwrap();
        }
    });
}

#[test]
fn a_scan_of_many_rows_holds_few_of_them() {
    run(async {
        let disk = SimulatedDisk::new(1);
        let (shard, _) = Shard::open_on(disk, options(&simulated())).await.unwrap();
        shard.open_chunk(series_spec()).await.unwrap();
        for part in 0..20 {
            let rows = encode(&times(part * 1000, 1000, 20));
            shard.write(Write { rows, ..write(1 + part as u64, []) }).await.unwrap();
            shard.flush().await.unwrap();
        }
        shard.begin_read(CHUNK, EPOCH, Ts(99)).await.unwrap();
        let order = vec![by(HOST), by(TIME)];
        let scan = SortedScan { scans: vec![all_columns(99)], order, predicates: Rc::default() };
        let mut stream = shard.scan_sorted(scan).unwrap();
        let (mut rows, mut most) = (0, 0);
        while let Some(batch) = stream.next().await {
            rows += batch.unwrap().num_rows();
            most = most.max(shard.status().scan_bytes);
        }
        assert_eq!(rows, 800_000);
        // Decoded, a row has 50 bytes.
        assert!((1..17 << 20).contains(&most), "{most} bytes of 800,000 rows");
        assert_eq!(shard.status().scan_bytes, 0);
    });
}

#[test]
fn the_next_row_group_is_read_ahead_of_those_who_want_many_rows() {
    run(async {
        let uncached = ShardOptions { page_cache_bytes_max: 0, ..options(&simulated()) };
        let (shard, _) = Shard::open_on(SimulatedDisk::new(1), uncached).await.unwrap();
        shard.open_chunk(series_spec()).await.unwrap();
        for part in 0..10 {
            let rows = encode(&times(part * 1000, 1000, 20));
            shard.write(Write { rows, ..write(1 + part as u64, []) }).await.unwrap();
        }
        shard.flush().await.unwrap();
        shard.begin_read(CHUNK, EPOCH, Ts(99)).await.unwrap();
        let scan = || {
            let order = vec![by(HOST), by(RACK), by(TIME)];
            shard.scan_sorted(SortedScan { scans: vec![all_columns(99)], order, predicates: Rc::default() }).unwrap()
        };
        let mut few = scan();
        assert!(few.next().await.unwrap().unwrap().num_rows() > 0);
        drop(few);
        assert_eq!(shard.status().page_cache.read_ahead, 0);
        let (mut stream, mut rows) = (scan(), 0);
        while let Some(batch) = stream.next().await {
            rows += batch.unwrap().num_rows();
        }
        let (row_groups, status) = (stream.statistics().row_groups_scanned, shard.status());
        assert!(rows == 400_000 && row_groups > 4, "{rows} rows, {row_groups} row groups");
        // Some page of each but the first one.
        assert!(status.page_cache.read_ahead >= row_groups - 1, "{status:?}");
        drop(stream);
        assert_eq!(shard.status().scan_bytes, 0);
    });
}
