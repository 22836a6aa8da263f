//! Leaves that read less than all rows, against the plain scan of all rows, on random chunks: several segments, fresh
//! rows, stages, equal times, NULLs in the key, snapshots in between.

use std::collections::BTreeSet;
use std::rc::Rc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use arrow::array::{Decimal128Array, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use meridian_proto::time::bucket_start;

use super::*;
use crate::leaf::{BucketSearch, GroupMemory, GroupStates, SeriesPredicate, SeriesSearch, Want};
use crate::scan::{Bound, Buckets, Ends, Grid, Measure, Series, SortColumn, Top, Value};
use crate::statistics::{Answered, Fact};
use crate::testing::run;

/// time, host, rack, value, id: unique.
pub(super) type Row = (i64, Option<String>, Option<i64>, Option<i64>, i64);

pub(super) const TIME: usize = 0;
pub(super) const HOST: usize = 1;
pub(super) const RACK: usize = 2;
pub(super) const VALUE: usize = 3;
const ID: usize = 4;
const LOAD: usize = 5;
const PRICE: usize = 6;

fn series_schema() -> TableSchema {
    let columns = vec![
        Column { not_null: true, ..column(1, "time", SqlType::Timestamptz) },
        column(2, "host", SqlType::Text),
        column(3, "rack", SqlType::Int8),
        column(4, "value", SqlType::Int8),
        column(5, "id", SqlType::Int8),
        column(6, "load", SqlType::Float8),
        column(7, "price", SqlType::Numeric(Some((30, 3)))),
    ];
    TableSchema { version: SchemaVersion(1), columns }
}

pub(super) fn series_spec() -> ChunkSpec {
    let sort = SortKey { segment_by: vec![ColumnId(2), ColumnId(3)], time: Some(ColumnId(1)) };
    ChunkSpec { schema: series_schema(), sort, ..spec(CHUNK, EPOCH, 10) }
}

/// Half of the value, so that sums are exact; now and then one that statistics do not take in.
fn load_of(row: &Row) -> Option<f64> {
    let load = row.3? as f64 / 2.0;
    Some(match row.4 % 900 {
        0 => f64::NAN,
        300 => f64::INFINITY,
        600 => -0.0,
        _ => load,
    })
}

/// Of the value and the number; now and then one so great that the sum of a piece has too many digits for a bigint.
fn price_of(row: &Row) -> Option<i128> {
    let price = i128::from(row.3?) * 1000 + i128::from(row.4 % 1000);
    Some(if row.4 % 700 == 0 { price + 10i128.pow(25) } else { price })
}

pub(super) fn encode(rows: &[Row]) -> Bytes {
    let prices = rows.iter().map(price_of).collect::<Decimal128Array>();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0)).with_timezone("UTC")),
        Arc::new(rows.iter().map(|row| row.1.as_deref()).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.3).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.4).collect::<Int64Array>()),
        Arc::new(rows.iter().map(load_of).collect::<Float64Array>()),
        Arc::new(prices.with_data_type(DataType::Decimal128(30, 3))),
    ];
    encode_rows(&RecordBatch::try_new(series_schema().arrow(), columns).unwrap()).unwrap()
}

pub(super) fn decode(batch: &RecordBatch) -> Vec<Row> {
    use arrow::array::Array;
    use arrow::datatypes::TimestampMicrosecondType;
    let int = |column: usize, row: usize| {
        let array = batch.column(column).as_primitive::<Int64Type>();
        array.is_valid(row).then(|| array.value(row))
    };
    let row = |row: usize| {
        let time = batch.column(TIME).as_primitive::<TimestampMicrosecondType>().value(row);
        let hosts = batch.column(HOST).as_string::<i32>();
        let host = hosts.is_valid(row).then(|| hosts.value(row).to_owned());
        (time, host, int(RACK, row), int(VALUE, row), int(4, row).unwrap())
    };
    (0..batch.num_rows()).map(row).collect()
}

/// How much there is of everything.
#[derive(Clone, Copy)]
struct Scale {
    rows_max: usize,
    hosts: i64,
    racks: i64,
    times: i64,
}

const SMALL: Scale = Scale { rows_max: 40, hosts: 4, racks: 2, times: 40 };
/// Enough rows of a series for pieces: three hours with a row every seven seconds or so.
const LARGE: Scale = Scale { rows_max: 3000, hosts: 2, racks: 1, times: 3 * 3_600_000_000 };

/// What one step of a chunk's life does.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Row>),
    Stage(Vec<Row>, Option<bool>),
    Flush,
    Compress(CompressionOrder),
}

/// One look at the chunk.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) snapshot: u64,
    pub(super) bounds: Vec<Bound>,
    series: Series,
    grid: Option<Grid>,
    top: Option<Top>,
    /// Only rows of this rack, told by a predicate.
    pub(super) rack: Option<i64>,
    pub(super) order: Vec<SortColumn>,
    /// Memory for groups.
    group_bytes_max: usize,
}

fn some_of<T>(random: &mut ChaCha8Rng, part: f64, value: impl FnOnce(&mut ChaCha8Rng) -> T) -> Option<T> {
    random.random_bool(part).then(|| value(random))
}

fn random_rows(random: &mut ChaCha8Rng, scale: Scale) -> Vec<Row> {
    let count = random.random_range(1..scale.rows_max);
    let row = |_| {
        let host = some_of(random, 0.8, |random| format!("host_{}", random.random_range(0..scale.hosts)));
        let rack = some_of(random, 0.9, |random| random.random_range(0..scale.racks));
        (random.random_range(0..scale.times), host, rack, some_of(random, 0.8, |random| random.random_range(-9..9)), 0)
    };
    (0..count).map(row).collect()
}

fn random_step(random: &mut ChaCha8Rng, scale: Scale) -> Step {
    match random.random_range(0..8) {
        0..4 => Step::Write(random_rows(random, scale)),
        4 => Step::Stage(random_rows(random, scale), some_of(random, 0.7, |random| random.random_bool(0.5))),
        7 => Step::Compress(sorted::random_compression(random)),
        _ => Step::Flush,
    }
}

fn random_bound(random: &mut ChaCha8Rng, scale: Scale) -> Bound {
    let mut range = |column, low: i64, high: i64| Bound {
        column,
        min: some_of(random, 0.5, |random| Value::Int(random.random_range(low..high))),
        max: some_of(random, 0.5, |random| Value::Int(random.random_range(low..high))),
    };
    let (first, last) = (-scale.times / 8, scale.times + scale.times / 8);
    let ranges = [range(TIME, first, last), range(TIME, first, last), range(RACK, 0, 2), range(VALUE, -9, 9)];
    let host = Some(Value::Bytes(format!("host_{}", random.random_range(0..scale.hosts)).into_bytes()));
    match random.random_range(0..6) {
        4.. => Bound { column: HOST, min: host.clone(), max: host },
        range => ranges[range].clone(),
    }
}

/// Of a few rows each; where there are pieces, as wide as they are, narrower or wider, also beside their borders.
fn random_grid(random: &mut ChaCha8Rng, scale: Scale) -> Grid {
    if scale.times == SMALL.times {
        return Grid { width: random.random_range(1..20), origin: random.random_range(-9..9) };
    }
    let minutes = [1, 5, 15, 45, 60, 120, 1440][random.random_range(0..7)];
    let origin = some_of(random, 0.4, |random| random.random_range(-3600..3600) * 1_000_000);
    Grid { width: minutes * 60_000_000, origin: origin.unwrap_or_default() }
}

fn random_look(random: &mut ChaCha8Rng, scale: Scale) -> Look {
    let keys = [vec![], vec![HOST], vec![RACK], vec![RACK, HOST], vec![VALUE]];
    let bounds = (0..random.random_range(0..3)).map(|_| random_bound(random, scale)).collect();
    let ends = Ends { first: random.random_bool(0.4), last: random.random_bool(0.6) };
    Look {
        snapshot: random.random_range(8..40),
        bounds,
        series: Series { key: keys[random.random_range(0..keys.len())].clone(), time: TIME, ends },
        grid: some_of(random, 0.8, |random| random_grid(random, scale)),
        top: some_of(random, 0.3, |random| Top { count: random.random_range(1..4), newest: random.random_bool(0.7) }),
        rack: some_of(random, 0.3, |random| random.random_range(0..2)),
        order: sorted::random_order(random),
        group_bytes_max: some_of(random, 0.2, |random| random.random_range(0..10_000)).unwrap_or(usize::MAX),
    }
}

/// Grants so many bytes in all.
fn memory(bytes_max: usize) -> GroupMemory {
    Box::new(move |bytes| bytes <= bytes_max)
}

pub(super) fn is_within(row: &Row, bounds: &[Bound]) -> bool {
    let value = |column: usize| match column {
        TIME => Some(Value::Int(row.0)),
        HOST => row.1.clone().map(|host| Value::Bytes(host.into_bytes())),
        RACK => row.2.map(Value::Int),
        _ => row.3.map(Value::Int),
    };
    let order = |a: &Value, b: &Value| match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        _ => panic!("{a:?} {b:?}"),
    };
    bounds.iter().filter(|bound| bound.min.is_some() || bound.max.is_some()).all(|bound| {
        value(bound.column).is_some_and(|value| {
            bound.min.as_ref().is_none_or(|min| order(min, &value).is_le())
                && bound.max.as_ref().is_none_or(|max| order(&value, max).is_le())
        })
    })
}

fn key_of(row: &Row, key: &[usize]) -> Vec<Option<String>> {
    let part = |column: &usize| match *column {
        HOST => row.1.clone(),
        RACK => row.2.map(|rack| rack.to_string()),
        _ => row.3.map(|value| value.to_string()),
    };
    key.iter().map(part).collect()
}

/// The rows that decide: of each key all with the least and the greatest time; or only the keys.
fn ends_of(rows: &BTreeSet<Row>, series: &Series) -> BTreeMap<Vec<Option<String>>, BTreeSet<Row>> {
    let mut by_key: BTreeMap<_, BTreeSet<Row>> = BTreeMap::new();
    for row in rows {
        by_key.entry(key_of(row, &series.key)).or_default().insert(row.clone());
    }
    for rows in by_key.values_mut() {
        let first = rows.iter().map(|row| row.0).min().filter(|_| series.ends.first);
        let last = rows.iter().map(|row| row.0).max().filter(|_| series.ends.last);
        rows.retain(|row| Some(row.0) == first || Some(row.0) == last);
    }
    by_key
}

async fn read(
    shard: &Shard<SimulatedDisk>,
    look: &Look,
    bounds: &[Bound],
    want: Want,
) -> (Vec<Row>, Option<crate::statistics::Facts>) {
    let scan = Scan { columns: vec![0, 1, 2, 3, 4], bounds: bounds.to_vec(), ..scan_at(look.snapshot) };
    let mut stream = shard.scan_for(scan, want).unwrap();
    let mut rows = Vec::new();
    while let Some(batch) = stream.next().await {
        rows.extend(decode(&batch.unwrap()));
    }
    (rows, stream.take_facts())
}

/// As a set: no row may be there twice.
pub(super) fn once(rows: Vec<Row>) -> BTreeSet<Row> {
    let count = rows.len();
    let set: BTreeSet<Row> = rows.into_iter().collect();
    assert_eq!(set.len(), count, "a row was returned twice");
    set
}

/// Holds where a bigint column has that value.
pub(super) fn of_column(column: usize, wanted: i64) -> SeriesPredicate {
    let test = move |columns: &[ArrayRef]| {
        let values = columns[0].as_primitive::<Int64Type>();
        Some(values.iter().map(|known| known == Some(wanted)).collect::<Vec<_>>().into())
    };
    SeriesPredicate { columns: vec![column], test: Box::new(test) }
}

async fn check_look(seed: u64, shard: &Shard<SimulatedDisk>, look: &Look) {
    shard.begin_read(CHUNK, EPOCH, Ts(look.snapshot)).await.unwrap();
    let all = once(read(shard, look, &[], Want::default()).await.0);
    let expected: BTreeSet<Row> = all.iter().filter(|row| is_within(row, &look.bounds)).cloned().collect();
    // What the filter above a leaf makes of its rows.
    let filtered = |rows: Vec<Row>| -> BTreeSet<Row> {
        let rows = once(rows);
        assert!(rows.is_subset(&all), "a row came from nowhere");
        rows.into_iter().filter(|row| is_within(row, &look.bounds)).collect()
    };
    let rows = filtered(read(shard, look, &look.bounds, Want::default()).await.0);
    assert_eq!(rows, expected, "seed {seed}: {look:?}");
    if let Some(rack) = look.rack {
        // One that is asked of each series, and one that no directory can be asked.
        let predicates = Rc::new(vec![of_column(RACK, rack), of_column(VALUE, -1)]);
        let rows = filtered(read(shard, look, &look.bounds, Want::Rows(predicates)).await.0);
        let of_rack = |rows: &BTreeSet<Row>| -> BTreeSet<Row> {
            rows.iter().filter(|row| row.2 == Some(rack)).cloned().collect()
        };
        assert_eq!(of_rack(&rows), of_rack(&expected), "seed {seed}: {look:?}");
    }

    // Twice: from the file, then from the cache.
    for _ in 0..2 {
        let search = SeriesSearch::new(look.series.clone());
        let ends = filtered(read(shard, look, &look.bounds, Want::Series(search)).await.0);
        assert_eq!(ends_of(&ends, &look.series), ends_of(&expected, &look.series), "seed {seed}: {look:?}");
    }

    let extremes = [Fact::Min(VALUE), Fact::Max(TIME), Fact::Max(HOST), Fact::Min(PRICE)];
    let questions = [Fact::Rows, Fact::Count(VALUE)].into_iter().chain(extremes).collect();
    let (rows, facts) = read(shard, look, &look.bounds, Want::Facts(questions)).await;
    check_facts(&filtered(rows), facts.unwrap().answers(), &expected, look);
    check_buckets(seed, shard, look, &filtered, &expected).await;
    sorted::check(seed, shard, look, &expected).await;
}

/// A double by SQL's order: NaN equals NaN and is the greatest.
#[derive(Clone, Copy, Debug)]
struct Load(f64);

impl PartialEq for Load {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || (self.0.is_nan() && other.0.is_nan())
    }
}

impl Load {
    fn greater(self, other: Self) -> Self {
        if other.0 > self.0 || other.0.is_nan() { other } else { self }
    }

    fn lesser(self, other: Self) -> Self {
        if self.0 > other.0 || self.0.is_nan() { other } else { self }
    }
}

/// Rows, values, the least and the greatest value, the first and the last time; sum and ends of the loads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    rows: i64,
    values: i64,
    sum: Option<i128>,
    min: Option<i64>,
    max: Option<i64>,
    first: Option<i64>,
    last: Option<i64>,
    load: Option<Load>,
    load_min: Option<Load>,
    load_max: Option<Load>,
    /// Sum, least and greatest.
    prices: [Option<i128>; 3],
}

const MEASURES: [Measure; 15] = [
    Measure::Rows,
    Measure::Count(VALUE),
    Measure::Min(VALUE),
    Measure::Max(VALUE),
    Measure::FirstTime,
    Measure::LastTime,
    Measure::First(ID),
    Measure::Last(ID),
    Measure::Sum(LOAD),
    Measure::Min(LOAD),
    Measure::Max(LOAD),
    Measure::Sum(VALUE),
    Measure::Sum(PRICE),
    Measure::Min(PRICE),
    Measure::Max(PRICE),
];

type Group = (Vec<Option<String>>, i64);

impl Sums {
    fn of(row: &Row) -> Self {
        let (time, value, load) = (Some(row.0), row.3, load_of(row).map(Load));
        let values = value.is_some().into();
        let loads = Self { load, load_min: load, load_max: load, ..Self::default() };
        let sum = value.map(i128::from);
        let prices = [price_of(row); 3];
        Self { rows: 1, values, sum, min: value, max: value, first: time, last: time, prices, ..loads }
    }

    fn add(&mut self, more: Self) {
        let least = |a: Option<i64>, b: Option<i64>| a.into_iter().chain(b).min();
        let most = |a: Option<i64>, b: Option<i64>| a.into_iter().chain(b).max();
        self.rows += more.rows;
        self.values += more.values;
        self.sum = self.sum.into_iter().chain(more.sum).reduce(|a, b| a + b);
        self.min = least(self.min, more.min);
        self.max = most(self.max, more.max);
        self.first = least(self.first, more.first);
        self.last = most(self.last, more.last);
        let merge =
            |a: Option<Load>, b: Option<Load>, both: fn(Load, Load) -> Load| a.into_iter().chain(b).reduce(both);
        self.load = merge(self.load, more.load, |a, b| Load(a.0 + b.0));
        self.load_min = merge(self.load_min, more.load_min, Load::lesser);
        self.load_max = merge(self.load_max, more.load_max, Load::greater);
        let both: [fn(i128, i128) -> i128; 3] = [|a, b| a + b, i128::min, i128::max];
        for ((price, more), both) in self.prices.iter_mut().zip(more.prices).zip(both) {
            *price = (*price).into_iter().chain(more).reduce(both);
        }
    }
}

async fn check_buckets(
    seed: u64,
    shard: &Shard<SimulatedDisk>,
    look: &Look,
    filtered: &impl Fn(Vec<Row>) -> BTreeSet<Row>,
    expected: &BTreeSet<Row>,
) {
    let key = look.series.key.clone();
    let top = look.top.filter(|_| look.grid.is_some());
    let buckets = Buckets { key: key.clone(), time: TIME, grid: look.grid, measures: MEASURES.to_vec(), top };
    let is_wanted = |row: &&Row| look.rack.is_none_or(|rack| row.2 == Some(rack));
    let search = BucketSearch::new(buckets, look.rack.map(|rack| of_column(RACK, rack)), memory(look.group_bytes_max));
    let rest = filtered(read(shard, look, &look.bounds, Want::Buckets(Rc::clone(&search))).await.0);
    let group = |row: &Row| {
        let start = look.grid.map_or(0, |grid| bucket_start(row.0, grid.width, grid.origin).unwrap());
        (key_of(row, &key), start)
    };
    let mut found: BTreeMap<Group, Sums> = BTreeMap::new();
    rest.iter().filter(is_wanted).for_each(|row| found.entry(group(row)).or_default().add(Sums::of(row)));
    if let Some(states) = search.take_states(&types()).unwrap() {
        check_ends(&states, expected);
        groups_of(&states).into_iter().for_each(|(group, sums)| found.entry(group).or_default().add(sums));
    }
    let mut wanted: BTreeMap<Group, Sums> = BTreeMap::new();
    expected.iter().filter(is_wanted).for_each(|row| wanted.entry(group(row)).or_default().add(Sums::of(row)));
    if let Some(top) = top {
        let mut starts: Vec<i64> =
            wanted.keys().map(|(_, start)| *start).collect::<BTreeSet<_>>().into_iter().collect();
        if top.newest {
            starts.reverse();
        }
        starts.truncate(top.count);
        // Of the others some may have come, not all of their rows.
        found.retain(|(_, start), _| starts.contains(start));
        wanted.retain(|(_, start), _| starts.contains(start));
    }
    assert_eq!(found, wanted, "seed {seed}: {look:?}");
}

fn types() -> Vec<DataType> {
    series_schema().columns.iter().map(|column| column.sql_type.arrow()).collect()
}

fn groups_of(states: &GroupStates) -> Vec<(Group, Sums)> {
    use arrow::array::Array;
    use arrow::datatypes::{Decimal128Type, Decimal256Type, TimestampMicrosecondType};
    let key = |row: usize| {
        let part = |column: &ArrayRef| match column.as_string_opt::<i32>() {
            Some(texts) => texts.is_valid(row).then(|| texts.value(row).to_owned()),
            None => {
                let ints = column.as_primitive::<Int64Type>();
                ints.is_valid(row).then(|| ints.value(row).to_string())
            }
        };
        states.keys.iter().map(part).collect::<Vec<_>>()
    };
    let int = |at: usize, row: usize| {
        let column = &states.measures[at];
        column.is_valid(row).then(|| match column.as_primitive_opt::<Int64Type>() {
            Some(ints) => ints.value(row),
            None => column.as_primitive::<TimestampMicrosecondType>().value(row),
        })
    };
    let numeric = |at: usize, row: usize| {
        let column = &states.measures[at];
        column.is_valid(row).then(|| match column.as_primitive_opt::<Decimal128Type>() {
            Some(numerics) => numerics.value(row),
            None => column.as_primitive::<Decimal256Type>().value(row).to_i128().unwrap(),
        })
    };
    let load = |at: usize, row: usize| {
        let loads = states.measures[at].as_primitive::<Float64Type>();
        loads.is_valid(row).then(|| Load(loads.value(row)))
    };
    let sums = |row: usize| Sums {
        rows: int(0, row).unwrap(),
        values: int(1, row).unwrap(),
        sum: numeric(11, row),
        min: int(2, row),
        max: int(3, row),
        first: int(4, row),
        last: int(5, row),
        load: load(8, row),
        load_min: load(9, row),
        load_max: load(10, row),
        prices: [12, 13, 14].map(|at| numeric(at, row)),
    };
    (0..states.buckets.len()).map(|row| ((key(row), states.buckets.value(row)), sums(row))).collect()
}

/// The first and the last value come from rows that have the first and the last time.
fn check_ends(states: &GroupStates, expected: &BTreeSet<Row>) {
    let time_of = |id: i64| expected.iter().find(|row| row.4 == id).map(|row| row.0);
    let groups = groups_of(states);
    for (row, (_, sums)) in groups.iter().enumerate() {
        let id = |at: usize| states.measures[at].as_primitive::<Int64Type>().value(row);
        assert_eq!((time_of(id(6)), time_of(id(7))), (sums.first, sums.last));
    }
}

fn check_facts(rest: &BTreeSet<Row>, facts: &[Answered], expected: &BTreeSet<Row>, look: &Look) {
    let count = |answered: &Answered| if let Answered::Count(count) = answered { *count } else { panic!() };
    let int = |answered: &Answered| match answered {
        Answered::Value(None) => None,
        Answered::Value(Some(Value::Int(value))) => Some(*value),
        other => panic!("{other:?}"),
    };
    let host = match &facts[4] {
        Answered::Value(None) => None,
        Answered::Value(Some(Value::Bytes(host))) => Some(String::from_utf8(host.clone()).unwrap()),
        other => panic!("{other:?}"),
    };
    let price = match &facts[5] {
        Answered::Value(None) => None,
        Answered::Value(Some(Value::Decimal(price))) => Some(*price),
        other => panic!("{other:?}"),
    };
    let values = |rows: &BTreeSet<Row>| rows.iter().filter_map(|row| row.3).collect::<Vec<_>>();
    assert_eq!(rest.len() as u64 + count(&facts[0]), expected.len() as u64, "{look:?}");
    assert_eq!(values(rest).len() as u64 + count(&facts[1]), values(expected).len() as u64, "{look:?}");
    let min = values(rest).into_iter().chain(int(&facts[2])).min();
    assert_eq!(min, values(expected).into_iter().min(), "{look:?}");
    let max = rest.iter().map(|row| row.0).chain(int(&facts[3])).max();
    assert_eq!(max, expected.iter().map(|row| row.0).max(), "{look:?}");
    let max = rest.iter().filter_map(|row| row.1.clone()).chain(host).max();
    assert_eq!(max, expected.iter().filter_map(|row| row.1.clone()).max(), "{look:?}");
    let min = rest.iter().filter_map(price_of).chain(price).min();
    assert_eq!(min, expected.iter().filter_map(price_of).min(), "{look:?}");
}

/// Lives through the steps, looking once after each.
async fn check_life(seed: u64, steps: Vec<Step>, looks: Vec<Look>) {
    let disk = SimulatedDisk::new(seed);
    let (shard, _) = Shard::open_on(disk, options(&simulated())).await.unwrap();
    shard.open_chunk(series_spec()).await.unwrap();
    let mut ids = 0;
    let mut looks = looks.iter().cycle();
    for (number, step) in steps.into_iter().enumerate() {
        let sequence = number as u64 + 1;
        let mut number_rows = |mut rows: Vec<Row>| {
            for row in &mut rows {
                ids += 1;
                row.4 = ids;
            }
            encode(&rows)
        };
        match step {
            Step::Write(rows) => {
                let rows = number_rows(rows);
                shard.write(Write { rows, ..write(sequence, []) }).await.unwrap();
            }
            Step::Stage(rows, outcome) => {
                let rows = number_rows(rows);
                shard.write(Write { rows, ..stage(sequence, 0, CHUNK, []) }).await.unwrap();
                if number % 2 == 0 {
                    shard.flush().await.unwrap();
                }
                if let Some(commit) = outcome {
                    shard.decide(decide(sequence, commit, 1)).await.unwrap();
                }
            }
            Step::Flush => shard.flush().await.unwrap(),
            Step::Compress(order) => drop(shard.compress(CHUNK, EPOCH, order).await.unwrap()),
        }
        check_look(seed, &shard, looks.next().unwrap()).await;
    }
}

fn check_lives(seeds: std::ops::Range<u64>, scale: Scale) {
    for seed in seeds {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let steps = (0..random.random_range(1..10)).map(|_| random_step(&mut random, scale)).collect();
        let looks = (0..random.random_range(1..6)).map(|_| random_look(&mut random, scale)).collect();
        run(check_life(seed, steps, looks));
    }
}

#[test]
fn leaves_answer_as_the_plain_scan_does() {
    check_lives(0..300, SMALL);
}

#[test]
fn leaves_answer_as_the_plain_scan_does_where_there_are_pieces() {
    check_lives(1000..1040, LARGE);
}

/// Four hosts with hourly rows, in two segments; nothing is in memory.
async fn two_segments() -> Shard<SimulatedDisk> {
    let (shard, _) = Shard::open_on(SimulatedDisk::new(1), options(&simulated())).await.unwrap();
    shard.open_chunk(series_spec()).await.unwrap();
    for half in 0..2 {
        let row = |n: i64| {
            let time = half * 1000 + n / 4;
            (time, Some(format!("host_{}", n % 4)), Some(0), (n % 3 != 0).then_some(n), half * 1000 + n)
        };
        let rows: Vec<Row> = (0..400).map(row).collect();
        shard.write(Write { rows: encode(&rows), ..write(1 + half as u64, []) }).await.unwrap();
        shard.flush().await.unwrap();
    }
    shard.begin_read(CHUNK, EPOCH, Ts(99)).await.unwrap();
    shard
}

#[test]
fn facts_of_whole_segments_cost_no_reading() {
    run(async {
        let shard = two_segments().await;
        let ask = |bounds| async {
            let scan = Scan { columns: vec![], bounds, ..scan_at(99) };
            let mut stream = shard.scan_for(scan, Want::Facts(vec![Fact::Rows, Fact::Max(VALUE)])).unwrap();
            let mut rows = 0;
            while let Some(batch) = stream.next().await {
                rows += batch.unwrap().num_rows();
            }
            let answers = stream.take_facts().unwrap().answers().to_vec();
            (rows, answers, stream.statistics().bytes_read > 0)
        };
        let max = || Answered::Value(Some(Value::Int(398)));
        assert_eq!(ask(vec![]).await, (0, vec![Answered::Count(800), max()], false));
        // One segment lies within the bound, of the other one some rows.
        let bound = Bound { column: TIME, min: Some(Value::Int(90)), max: None };
        assert_eq!(ask(vec![bound]).await, (40, vec![Answered::Count(400), max()], true));
    });
}

#[test]
fn last_points_come_from_the_newest_rows_and_then_from_the_cache() {
    run(async {
        let shard = two_segments().await;
        let look = |key| async {
            let series = Series { key, time: TIME, ends: Ends { first: false, last: true } };
            let scan = Scan { columns: vec![0, 1, 2, 3, 4], ..scan_at(99) };
            let mut stream = shard.scan_for(scan, Want::Series(SeriesSearch::new(series))).unwrap();
            let mut rows = Vec::new();
            while let Some(batch) = stream.next().await {
                rows.extend(decode(&batch.unwrap()));
            }
            (rows.iter().map(|row| row.0).collect::<Vec<_>>(), rows.len(), stream.statistics())
        };
        let (times, count, first) = look(vec![HOST]).await;
        assert_eq!((times, count), (vec![1099; 4], 4), "the older segment has no later row of any series");
        let (_, _, second) = look(vec![HOST]).await;
        assert!(first.bytes_read > 0);
        assert_eq!((second.bytes_read, second.rows_scanned), (0, 4));
    });
}

#[test]
fn distinct_series_are_read_once_and_then_known() {
    run(async {
        let shard = two_segments().await;
        let series = || Series { key: vec![HOST, RACK], time: TIME, ends: Ends::ANY };
        for bytes_are_read in [true, false] {
            let scan = Scan { columns: vec![HOST], ..scan_at(99) };
            let mut stream = shard.scan_for(scan, Want::Series(SeriesSearch::new(series()))).unwrap();
            let mut rows = 0;
            while let Some(batch) = stream.next().await {
                rows += batch.unwrap().num_rows();
            }
            assert_eq!(rows, 8, "each host once per segment");
            assert_eq!(stream.statistics().bytes_read > 0, bytes_are_read);
        }
    });
}

#[test]
fn a_series_is_read_without_the_others() {
    run(async {
        let shard = two_segments().await;
        let host = Some(Value::Bytes(b"host_2".to_vec()));
        let bounds = vec![
            Bound { column: HOST, min: host.clone(), max: host },
            Bound { column: TIME, min: Some(Value::Int(5)), max: Some(Value::Int(8)) },
        ];
        let scan = Scan { columns: vec![HOST, VALUE], bounds, ..scan_at(99) };
        let mut stream = shard.scan(scan).unwrap();
        let mut rows = 0;
        while let Some(batch) = stream.next().await {
            let batch = batch.unwrap();
            assert!(batch.column(0).as_string::<i32>().iter().all(|host| host == Some("host_2")));
            rows += batch.num_rows();
        }
        assert_eq!((rows, stream.statistics().rows_returned), (4, 4));
    });
}

#[test]
fn series_that_a_predicate_leaves_out_are_not_read() {
    run(async {
        let shard = two_segments().await;
        let test = |columns: &[ArrayRef]| {
            let hosts = columns[0].as_string::<i32>();
            Some(hosts.iter().map(|host| matches!(host, Some("host_0" | "host_2"))).collect::<Vec<_>>().into())
        };
        let predicates = Rc::new(vec![SeriesPredicate { columns: vec![HOST], test: Box::new(test) }]);
        let scan = Scan { columns: vec![HOST, VALUE], ..scan_at(99) };
        let mut stream = shard.scan_for(scan, Want::Rows(predicates)).unwrap();
        let mut hosts = BTreeSet::new();
        while let Some(batch) = stream.next().await {
            hosts.extend(batch.unwrap().column(0).as_string::<i32>().iter().map(|host| host.unwrap().to_owned()));
        }
        assert_eq!(hosts, ["host_0", "host_2"].map(str::to_owned).into());
    });
}

/// One host with a row every ten seconds for six hours.
async fn six_hours() -> Shard<SimulatedDisk> {
    let (shard, _) = Shard::open_on(SimulatedDisk::new(1), options(&simulated())).await.unwrap();
    shard.open_chunk(series_spec()).await.unwrap();
    let row = |n: i64| (n * 10_000_000, Some("host_0".to_owned()), Some(0), Some(n % 7), n / 4 + 1);
    let rows: Vec<Row> = (0..6 * 360).map(row).collect();
    shard.write(Write { rows: encode(&rows), ..write(1, []) }).await.unwrap();
    shard.flush().await.unwrap();
    shard.begin_read(CHUNK, EPOCH, Ts(99)).await.unwrap();
    shard
}

#[test]
fn rows_are_decoded_only_where_pieces_do_not_tell() {
    const HOUR: i64 = 3_600_000_000;
    run(async {
        let shard = six_hours().await;
        let decoded = async |measure, grid: Grid, first_hour: Option<i64>| {
            let measures = vec![Measure::Rows, measure];
            let buckets = Buckets { key: vec![HOST], time: TIME, grid: Some(grid), measures, top: None };
            let search = BucketSearch::new(buckets, None, memory(usize::MAX));
            let first = first_hour.map(|hour| Bound { column: TIME, min: Some(Value::Int(hour)), max: None });
            let scan = Scan { columns: vec![], bounds: first.into_iter().collect(), ..scan_at(99) };
            let mut stream = shard.scan_for(scan, Want::Buckets(search)).unwrap();
            assert!(stream.next().await.is_none());
            stream.statistics().rows_scanned
        };
        let grid = |width, origin| Grid { width, origin };
        assert_eq!(decoded(Measure::Sum(LOAD), grid(HOUR, 0), None).await, 360, "the hour with an infinite load");
        assert_eq!(decoded(Measure::Last(LOAD), grid(2 * HOUR, HOUR), None).await, 0);
        assert_eq!(decoded(Measure::Sum(PRICE), grid(HOUR, 0), None).await, 0);
        assert_eq!(decoded(Measure::Last(PRICE), grid(HOUR, 0), None).await, 0);
        assert_eq!(decoded(Measure::Min(VALUE), grid(HOUR, 0), Some(HOUR / 2)).await, 360, "the hour that is cut");
        assert_eq!(decoded(Measure::Min(VALUE), grid(HOUR, HOUR / 2), None).await, 6 * 360);
        assert_eq!(
            decoded(Measure::Min(VALUE), grid(HOUR / 60, 0), Some(5 * HOUR)).await,
            360,
            "the other hours lie outside"
        );
    });
}
