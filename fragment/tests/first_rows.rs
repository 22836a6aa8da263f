//! First rows are those that a plain loop finds, whatever the keys and orders, in one part or several, over the wire, and
//! with little memory.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{Float64Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{binary, col, lit};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use futures::executor::block_on;
use meridian_fragment::{
    ChunkScanExec, ChunkSource, FirstRowsExec, FirstRowsMode, KeySort, SeriesOrder, Want, choose_leaf, decode, encode,
    is_pushable, leaf_of, task_context,
};
use meridian_proto::{SchemaVersion, SqlType, TableId};

use FirstRowsMode::{Part, Whole};

/// `host`, `time` and `v` may be NULL; `n` numbers the rows.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    host: Option<String>,
    time: Option<i64>,
    v: Option<f64>,
    n: i64,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        SqlType::Text.field("host", true),
        SqlType::Timestamptz.field("time", true),
        SqlType::Float8.field("v", true),
        SqlType::Int8.field("n", false),
    ]))
}

fn batch_of(rows: &[Row]) -> RecordBatch {
    let hosts: StringArray = rows.iter().map(|row| row.host.as_deref()).collect();
    let times: TimestampMicrosecondArray = rows.iter().map(|row| row.time).collect();
    let values: Float64Array = rows.iter().map(|row| row.v).collect();
    let numbers: Int64Array = rows.iter().map(|row| Some(row.n)).collect();
    let columns: Vec<ArrayRef> =
        vec![Arc::new(hosts), Arc::new(times.with_timezone("UTC")), Arc::new(values), Arc::new(numbers)];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn rows_of(batches: &[RecordBatch]) -> Vec<Row> {
    let mut rows = Vec::new();
    for batch in batches {
        let hosts = batch.column(0).as_string::<i32>();
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        let values = batch.column(2).as_primitive::<Float64Type>();
        let numbers = batch.column(3).as_primitive::<Int64Type>();
        rows.extend((0..batch.num_rows()).map(|row| Row {
            host: hosts.iter().nth(row).flatten().map(str::to_owned),
            time: times.iter().nth(row).flatten(),
            v: values.iter().nth(row).flatten(),
            n: numbers.value(row),
        }));
    }
    rows
}

struct Batches(Vec<RecordBatch>);

impl ChunkSource for Batches {
    fn open(&self, leaf: &ChunkScanExec) -> Result<SendableRecordBatchStream> {
        let stream = futures::stream::iter(self.0.clone().into_iter().map(Ok));
        Ok(Box::pin(RecordBatchStreamAdapter::new(leaf.schema(), stream)))
    }
}

fn leaf() -> Arc<dyn ExecutionPlan> {
    let leaf = ChunkScanExec::try_new(TableId(16384), SchemaVersion(1), schema(), vec![0, 1, 2, 3], vec![]);
    Arc::new(leaf.unwrap())
}

fn sort(column: &str, descending: bool, nulls_first: bool) -> PhysicalSortExpr {
    PhysicalSortExpr { expr: column_of(column), options: SortOptions { descending, nulls_first } }
}

fn column_of(name: &str) -> Arc<dyn PhysicalExpr> {
    col(name, &schema()).unwrap()
}

fn first_rows(mode: FirstRowsMode, keys: &[&str], order: &[PhysicalSortExpr]) -> Arc<dyn ExecutionPlan> {
    let keys = keys.iter().map(|key| column_of(key)).collect();
    Arc::new(FirstRowsExec::try_new(mode, keys, order.to_vec(), leaf()).unwrap())
}

/// Through bytes, as a shard runs it.
fn run_in(
    plan: &Arc<dyn ExecutionPlan>,
    batches: &[RecordBatch],
    runtime: Arc<RuntimeEnv>,
) -> Result<Vec<RecordBatch>> {
    let decoded = decode(&encode(plan).unwrap()).unwrap();
    let show = |plan: &Arc<dyn ExecutionPlan>| displayable(plan.as_ref()).indent(false).to_string();
    assert_eq!(show(&decoded), show(plan));
    block_on(collect(decoded, task_context(Arc::new(Batches(batches.to_vec())), runtime, 1000)))
}

fn run(plan: &Arc<dyn ExecutionPlan>, batches: &[RecordBatch]) -> Vec<RecordBatch> {
    run_in(plan, batches, Arc::default()).unwrap()
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Few hosts and times, so that there are ties, in batches of any length, some of them empty.
fn random_batches(random: &mut Random, hosts: u64, batches: usize) -> Vec<Vec<Row>> {
    let mut n = 0;
    let mut row = |random: &mut Random| {
        n += 1;
        let host = random.below(hosts + 1);
        let time = random.below(40);
        Row {
            host: (host > 0).then(|| format!("host_{host}")),
            time: (time > 0).then_some(time as i64),
            v: [None, Some(f64::NAN), Some(f64::INFINITY), Some(1.5), Some(-7.25)][random.below(5) as usize],
            n,
        }
    };
    (0..batches)
        .map(|_| {
            let rows = random.below(300) * random.below(2);
            (0..rows).map(|_| row(random)).collect()
        })
        .collect()
}

/// A column of the order, of which rows are compared.
type Column = (fn(&Row) -> Option<f64>, bool, bool);

const TIME: fn(&Row) -> Option<f64> = |row| row.time.map(|time| time as f64);
const V: fn(&Row) -> Option<f64> = |row| row.v;

fn compare(a: &Row, b: &Row, order: &[Column]) -> Ordering {
    let by = |(of, descending, nulls_first): &Column| match (of(a), of(b)) {
        (None, None) => Ordering::Equal,
        (None, _) => {
            if *nulls_first {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (_, None) => {
            if *nulls_first {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (Some(a), Some(b)) => {
            if *descending {
                b.total_cmp(&a)
            } else {
                a.total_cmp(&b)
            }
        }
    };
    order.iter().map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// Each key once, with a row before which no other one of the key comes.
fn check_first(found: &[Row], all: &[Row], key: impl Fn(&Row) -> String, order: &[Column]) {
    let mut best: BTreeMap<String, &Row> = BTreeMap::new();
    for row in all {
        let known = best.entry(key(row)).or_insert(row);
        if compare(row, known, order).is_lt() {
            *known = row;
        }
    }
    assert_eq!(found.len(), best.len());
    let by_number: BTreeMap<i64, &Row> = all.iter().map(|row| (row.n, row)).collect();
    for row in found {
        // NaN is no equal of itself.
        assert_eq!(format!("{row:?}"), format!("{:?}", by_number[&row.n]), "a row goes through whole");
        let first = best.remove(&key(row)).unwrap_or_else(|| panic!("{row:?} is of a key that came before"));
        assert_eq!(compare(row, first, order), Ordering::Equal, "{row:?} for {first:?}");
    }
}

fn host(row: &Row) -> String {
    format!("{:?}", row.host)
}

#[test]
fn rows_are_those_of_a_plain_loop_in_one_part_or_several() {
    let orders: Vec<(Vec<PhysicalSortExpr>, Vec<Column>)> = vec![
        (vec![], vec![]),
        (vec![sort("time", true, true)], vec![(TIME, true, true)]),
        (vec![sort("time", true, false)], vec![(TIME, true, false)]),
        (vec![sort("time", false, false), sort("v", true, true)], vec![(TIME, false, false), (V, true, true)]),
        (vec![sort("v", false, true), sort("time", true, false)], vec![(V, false, true), (TIME, true, false)]),
    ];
    for seed in 0..30 {
        let mut random = Random(seed);
        let hosts = [1, 7, 400][seed as usize % 3];
        let rows = random_batches(&mut random, hosts, 40);
        let batches: Vec<_> = rows.iter().map(|rows| batch_of(rows)).collect();
        let all = rows.concat();
        let (order, columns) = &orders[seed as usize % orders.len()];
        let whole = run(&first_rows(Whole, &["host"], order), &batches);
        check_first(&rows_of(&whole), &all, host, columns);
        // What is first of all is first among the first of parts, whatever a part is.
        let (one, other) = batches.split_at(random.below(40) as usize);
        let part = first_rows(Part, &["host"], order);
        let parts = [run(&part, one), run(&part, other)].concat();
        check_first(&rows_of(&run(&first_rows(Whole, &["host"], order), &parts)), &all, host, columns);
        let by_two = run(&first_rows(Whole, &["host", "time"], order), &batches);
        check_first(&rows_of(&by_two), &all, |row| format!("{:?} {:?}", row.host, row.time), columns);
    }
}

#[test]
fn keys_and_orders_are_expressions_too() {
    let mut random = Random(77);
    let rows = random_batches(&mut random, 9, 30);
    let batches: Vec<_> = rows.iter().map(|rows| batch_of(rows)).collect();
    let expr = |operator, right: i64| binary(column_of("n"), operator, lit(right), &schema()).unwrap();
    let order = PhysicalSortExpr { expr: expr(Operator::Minus, 5), options: SortOptions::default().desc() };
    let plan = FirstRowsExec::try_new(Whole, vec![expr(Operator::Modulo, 3)], vec![order], leaf()).unwrap();
    let number: fn(&Row) -> Option<f64> = |row| Some(row.n as f64);
    let found = run(&(Arc::new(plan) as _), &batches);
    check_first(&rows_of(&found), &rows.concat(), |row| (row.n % 3).to_string(), &[(number, true, false)]);
}

#[test]
fn rows_come_out_in_the_order_of_their_keys() {
    for seed in 100..110 {
        let mut random = Random(seed);
        let rows = random_batches(&mut random, 300, 30);
        let batches: Vec<_> = rows.iter().map(|rows| batch_of(rows)).collect();
        let latest = sort("n", true, false);
        let keys = vec![column_of("host"), column_of("time")];
        let options = |descending, nulls_first| SortOptions { descending, nulls_first };
        let sorted_by =
            vec![KeySort { key: 1, options: options(true, false) }, KeySort { key: 0, options: options(false, true) }];
        let plan = FirstRowsExec::try_new(Whole, keys, vec![latest], leaf()).unwrap().sorted(sorted_by).unwrap();
        let found = rows_of(&run(&(Arc::new(plan) as _), &batches));
        let number: fn(&Row) -> Option<f64> = |row| Some(row.n as f64);
        check_first(&found, &rows.concat(), |row| format!("{:?} {:?}", row.host, row.time), &[(number, true, false)]);
        let is_sorted = found.is_sorted_by(|a, b| match compare(a, b, &[(TIME, true, false)]) {
            Ordering::Equal => a.host <= b.host,
            order => order.is_lt(),
        });
        assert!(is_sorted, "{found:?}");
    }
}

#[test]
fn a_part_is_not_sorted_and_nothing_is_by_a_key_that_is_not_there() {
    let first = |mode| FirstRowsExec::try_new(mode, vec![column_of("host")], vec![], leaf()).unwrap();
    let by = |key| vec![KeySort { key, options: SortOptions::default() }];
    assert!(first(Whole).sorted(by(0)).is_ok());
    assert!(first(Part).sorted(by(0)).is_err());
    assert!(first(Whole).sorted(by(1)).is_err());
}

/// Row `n` of the key `n % keys`, later ones before earlier ones.
fn numbered(rows: i64, keys: i64) -> Vec<RecordBatch> {
    let row = |n: i64| Row { host: Some((n % keys).to_string()), time: Some(n), v: None, n };
    let rows: Vec<Row> = (0..rows).map(row).collect();
    rows.chunks(8192).map(batch_of).collect()
}

#[test]
fn no_keys_row_is_lost_when_a_part_lets_go_of_what_it_holds() {
    // More keys than a part holds.
    let (rows, keys) = (300_000, 200_000);
    let batches = numbered(rows, keys);
    let latest = [sort("time", true, false)];
    let parts = run(&first_rows(Part, &["host"], &latest), &batches);
    assert!(parts.iter().map(RecordBatch::num_rows).sum::<usize>() > keys as usize, "it let go");
    let mut found: Vec<i64> = run(&first_rows(Whole, &["host"], &latest), &parts)
        .iter()
        .flat_map(|batch| batch.column(3).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    found.sort_unstable();
    assert_eq!(found, (rows - keys..rows).collect::<Vec<_>>());
}

#[test]
fn without_memory_a_part_lets_go_early_and_the_whole_says_so() {
    let runtime = || RuntimeEnvBuilder::new().with_memory_limit(1 << 20, 1.0).build_arc().unwrap();
    let batches = numbered(100_000, 50_000);
    let latest = [sort("time", true, false)];
    let parts = run_in(&first_rows(Part, &["host"], &latest), &batches, runtime()).unwrap();
    assert_eq!(
        run(&first_rows(Whole, &["host"], &latest), &parts).iter().map(RecordBatch::num_rows).sum::<usize>(),
        50_000
    );
    let whole = run_in(&first_rows(Whole, &["host"], &latest), &batches, runtime());
    assert!(matches!(whole.unwrap_err().find_root(), DataFusionError::ResourcesExhausted(_)));
    // A few keys need little memory, however many rows there are.
    let few = run_in(&first_rows(Whole, &["host"], &latest), &numbered(300_000, 100), runtime()).unwrap();
    assert_eq!(few.iter().map(RecordBatch::num_rows).sum::<usize>(), 100);
}

#[test]
fn the_leaf_is_that_of_the_rows_that_come_first() {
    let order = SeriesOrder { segment_by: vec![0], flushed_by: vec![0], time: Some(3) };
    let chosen = |keys: &[&str], sorts: &[PhysicalSortExpr]| {
        let plan = choose_leaf(&first_rows(Whole, keys, sorts), &order).unwrap()?;
        let Want::Series(series) = leaf_of(&plan).unwrap().want() else { panic!("{plan:?}") };
        assert_eq!(leaf_of(&decode(&encode(&plan).unwrap()).unwrap()).unwrap().want(), leaf_of(&plan).unwrap().want());
        Some((series.first, series.last))
    };
    assert_eq!(chosen(&["host"], &[sort("n", true, false)]), Some((false, true)));
    assert_eq!(chosen(&["host"], &[sort("host", false, false), sort("n", false, false)]), Some((true, false)));
    assert_eq!(chosen(&["host"], &[sort("n", true, true), sort("v", false, false)]), Some((false, true)));
    assert_eq!(chosen(&["host"], &[]), Some((false, false)));
    assert_eq!(chosen(&["host"], &[sort("v", true, false)]), None);
    assert_eq!(chosen(&["v"], &[sort("n", true, false)]), None);
}

#[test]
fn both_are_pushable_over_one_partition_and_nothing_goes_without_a_key() {
    assert!(is_pushable(first_rows(Part, &["host"], &[]).as_ref()));
    assert!(is_pushable(first_rows(Whole, &["host"], &[]).as_ref()));
    assert!(FirstRowsExec::try_new(Whole, vec![], vec![], leaf()).is_err());
}

#[test]
fn damaged_bytes_give_an_error_or_another_plan() {
    let bytes =
        encode(&first_rows(Part, &["host", "v"], &[sort("time", true, false), sort("n", false, true)])).unwrap();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "cut at {length}");
    }
    for at in 0..bytes.len() {
        for flip in [0x01, 0x10, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            let _ = decode(&damaged);
        }
    }
    std::panic::set_hook(hook);
}
