//! Fragments planned from SQL, encoded, decoded and run, give the rows that DataFusion gives without us; foreign
//! operators and damaged bytes are refused.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, assert_contains};
use datafusion::datasource::MemTable;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext, col};
use datafusion::scalar::ScalarValue;
use futures::executor::block_on;
use meridian_fragment::{
    BucketStates, ChunkScanExec, ChunkSource, Fact, Measure, SeriesOrder, Want, check_allowed, choose_leaf, decode,
    encode, is_pushable, key_predicate, leaf_of,
};
use meridian_proto::types::SQL_TYPE_KEY;
use meridian_proto::{SchemaVersion, SqlType, TableId};

/// Rows of a table, in batches.
struct Rows(Vec<RecordBatch>);

impl ChunkSource for Rows {
    fn open(&self, leaf: &ChunkScanExec) -> Result<SendableRecordBatchStream> {
        let projection = leaf.projection();
        let batches: Vec<_> = self.0.iter().map(|batch| batch.project(projection)).collect::<Result<_, _>>()?;
        let schema = Arc::new(self.0[0].schema().project(projection)?);
        let stream = futures::stream::iter(batches.into_iter().map(Ok));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// A table whose scan is our leaf.
#[derive(Debug)]
struct LeafTable(SchemaRef);

#[async_trait::async_trait]
impl TableProvider for LeafTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Unsupported; filters.len()])
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projection = projection.cloned().unwrap_or_else(|| (0..self.0.fields().len()).collect());
        let leaf = ChunkScanExec::try_new(TableId(16384), SchemaVersion(1), self.schema(), projection, Vec::new())?;
        Ok(Arc::new(leaf))
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        SqlType::Timestamptz.field("time", false),
        SqlType::Varchar(Some(20)).field("host", true),
        SqlType::Float8.field("v", true),
        SqlType::Int8.field("n", true),
    ]))
}

fn batch(start: i64, rows: i64) -> RecordBatch {
    let numbers = || start..start + rows;
    let times = TimestampMicrosecondArray::from_iter_values(numbers().map(|i| i * 60_000_000)).with_timezone("UTC");
    let hosts: StringArray = numbers().map(|i| (i % 7 != 0).then(|| format!("host_{}", i % 5))).collect();
    let values: Float64Array = numbers().map(|i| (i % 11 != 0).then_some((i * 37 % 100) as f64)).collect();
    let counts: Int64Array = numbers().map(Some).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(times), Arc::new(hosts), Arc::new(values), Arc::new(counts)];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn batches() -> Vec<RecordBatch> {
    vec![batch(0, 500), batch(500, 1), batch(501, 300)]
}

fn context(partitions: usize) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions));
    // As a gateway's session does: some take the place of DataFusion's.
    meridian_hyperfunctions::scalar_functions()
        .iter()
        .for_each(|function| context.register_udf(function.as_ref().clone()));
    for function in meridian_hyperfunctions::aggregate_functions() {
        context.register_udaf(function.as_ref().clone());
    }
    context
}

fn plan(sql: &str) -> Arc<dyn ExecutionPlan> {
    let context = context(1);
    context.register_table("t", Arc::new(LeafTable(schema()))).unwrap();
    block_on(async { context.sql(sql).await.unwrap().create_physical_plan().await.unwrap() })
}

fn expected(sql: &str) -> String {
    let context = context(1);
    context.register_table("t", Arc::new(MemTable::try_new(schema(), vec![batches()]).unwrap())).unwrap();
    let rows = block_on(async { context.sql(sql).await.unwrap().collect().await.unwrap() });
    pretty_format_batches(&rows).unwrap().to_string()
}

fn run(plan: Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>> {
    let source = Arc::new(Rows(batches()));
    block_on(collect(plan, meridian_fragment::task_context(source, Arc::new(RuntimeEnv::default()), 8192)))
}

/// The fragment of a statement, over the wire, gives the rows of the statement.
fn check(sql: &str) -> Arc<dyn ExecutionPlan> {
    let plan = plan(sql);
    let decoded = decode(&encode(&plan).unwrap()).unwrap();
    let show = |plan: &Arc<dyn ExecutionPlan>| displayable(plan.as_ref()).indent(false).to_string();
    assert_eq!(show(&decoded), show(&plan));
    let rows = run(Arc::clone(&decoded)).unwrap();
    assert_eq!(pretty_format_batches(&rows).unwrap().to_string(), expected(sql), "{sql}");
    decoded
}

#[test]
fn statements_give_the_same_rows_over_the_wire() {
    check("select * from t");
    check("select v, time from t where v > 50 and host = 'host_1'");
    check("select n * 2 as twice, upper(host) as host from t where host in ('host_1', 'host_2', 'host_3', 'host_4')");
    check("select count(*), sum(v), avg(n), min(time), max(time) from t");
    check(
        "select host, date_bin(interval '1 hour', time, '2001-01-01') as hour, avg(v) from t group by 1, 2 order by 1, 2",
    );
    check("select host, count(distinct v), stddev(v) from t group by host order by host");
    check("select * from t order by v desc nulls last, time limit 10");
    check("select * from t where n >= 490 limit 20");
    check("select case when v is null then -1 else v end as v from t where not (host like 'host_1%') limit 7 offset 3");
    check("select array_agg(n order by n) from t where n between 5 and 9");
}

#[test]
fn a_leaf_is_shown_with_its_columns_and_bounds() {
    let decoded = check("select v from t where n >= 5 and n < 9");
    let shown = displayable(decoded.as_ref()).indent(false).to_string();
    assert_contains!(shown, "ChunkScan: table=16384, columns=[v, n], bounds=[n >= 5, n <= 8]");
    let leaf = leaf_of(&decoded).unwrap();
    assert_eq!((leaf.table(), leaf.schema_version()), (TableId(16384), SchemaVersion(1)));
    assert_eq!(*leaf.table_schema(), schema());
}

/// The uppermost aggregate of a statement.
fn aggregate_of(sql: &str) -> Arc<dyn ExecutionPlan> {
    let mut node = plan(sql);
    while !node.is::<AggregateExec>() {
        let child = Arc::clone(node.children()[0]);
        node = child;
    }
    node
}

/// Its first half.
fn partial_of(sql: &str) -> Arc<dyn ExecutionPlan> {
    let whole = aggregate_of(sql);
    let aggregate = whole.downcast_ref::<AggregateExec>().unwrap();
    let partial = AggregateExec::try_new(
        AggregateMode::Partial,
        aggregate.group_expr().clone(),
        aggregate.aggr_expr().to_vec(),
        aggregate.filter_expr().to_vec(),
        Arc::clone(aggregate.input()),
        aggregate.input_schema(),
    );
    Arc::new(partial.unwrap())
}

/// Answers for the first batch instead of returning it.
struct Metadata;

impl ChunkSource for Metadata {
    fn open(&self, leaf: &ChunkScanExec) -> Result<SendableRecordBatchStream> {
        Rows(batches()[1..].to_vec()).open(leaf)
    }

    fn facts(&self) -> Option<Vec<ScalarValue>> {
        let first = &batches()[0];
        let valid =
            |column: usize| ScalarValue::Int64(Some((first.num_rows() - first.column(column).null_count()) as i64));
        let rows = ScalarValue::Int64(Some(first.num_rows() as i64));
        Some(vec![rows, valid(2), ScalarValue::Int64(Some(0)), ScalarValue::Int64(Some(499))])
    }
}

#[test]
fn metadata_adds_to_what_is_read() {
    let sql = "select count(*), count(v), min(n), max(n) from t";
    let partial = partial_of(sql);
    let chosen = choose_leaf(&partial, &SeriesOrder::default()).unwrap().unwrap();
    let facts = vec![Fact::Rows, Fact::Count(2), Fact::Min(3), Fact::Max(3)];
    assert_eq!(*leaf_of(&chosen).unwrap().want(), Want::Facts(facts));
    let decoded = decode(&encode(&chosen).unwrap()).unwrap();
    let context = meridian_fragment::task_context(Arc::new(Metadata), Arc::new(RuntimeEnv::default()), 8192);
    let states = block_on(collect(decoded, context)).unwrap();
    assert_eq!(states.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    let states = concat_batches(&states[0].schema(), &states).unwrap();
    let int = |column: usize| states.column(column).as_primitive::<Int64Type>().values().to_vec();
    let read: usize = batches()[1..].iter().map(RecordBatch::num_rows).sum();
    assert_eq!(int(0), [read as i64, 500]);
    assert_eq!((int(2), int(3)), (vec![500, 0], vec![800, 499]));
}

const SERIES: SeriesOrder = SeriesOrder { segment_by: Vec::new(), flushed_by: Vec::new(), time: Some(0) };

/// Has added up the first batch, as one group.
struct Added;

impl ChunkSource for Added {
    fn open(&self, leaf: &ChunkScanExec) -> Result<SendableRecordBatchStream> {
        Rows(batches()[1..].to_vec()).open(leaf)
    }

    fn groups(&self) -> Result<Option<BucketStates>> {
        let of = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
        let float = |value: f64| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
        Ok(Some(BucketStates {
            keys: vec![Arc::new(StringArray::from(vec!["host_1"]))],
            buckets: of(3_600_000_000),
            measures: vec![of(500), of(400), float(1000.0), float(99.0)],
        }))
    }
}

#[test]
fn groups_of_a_leaf_come_behind_those_that_are_read() {
    let sql = "select time_bucket('1 hour', time), host, count(*), avg(v), max(v) from t \
               where host like 'host%' and time >= '1970-01-01T00:00:00Z' group by 1, 2";
    let order = SeriesOrder { segment_by: vec![1], ..SERIES };
    let chosen = choose_leaf(&partial_of(sql), &order).unwrap().unwrap();
    let Want::Buckets(buckets) = leaf_of(&chosen).unwrap().want() else { panic!("{chosen:?}") };
    assert_eq!((buckets.key.as_slice(), buckets.time), (&[1][..], 0));
    let hour = 3_600_000_000;
    assert_eq!(buckets.grid.map(|grid| (grid.width, grid.origin % hour)), Some((hour, 0)));
    assert_eq!(buckets.measures, [Measure::Rows, Measure::Count(2), Measure::Sum(2), Measure::Max(2)]);

    let decoded = decode(&encode(&chosen).unwrap()).unwrap();
    assert_eq!(leaf_of(&decoded).unwrap().want(), leaf_of(&chosen).unwrap().want());
    let predicate = key_predicate(&decoded).unwrap().unwrap();
    let hosts: ArrayRef = Arc::new(StringArray::from(vec![Some("host_1"), None, Some("other")]));
    assert_eq!(predicate.columns, [1]);
    assert_eq!(predicate.test(&[hosts]).unwrap().iter().collect::<Vec<_>>(), [true, false, false]);

    let context = meridian_fragment::task_context(Arc::new(Added), Arc::new(RuntimeEnv::default()), 8192);
    let states = block_on(collect(decoded, context)).unwrap();
    let last = states.last().unwrap();
    assert_eq!(last.num_rows(), 1);
    let row: Vec<_> = last.columns().iter().map(|column| ScalarValue::try_from_array(column, 0).unwrap()).collect();
    assert_eq!(row[0].to_string(), "3600000000");
    let shown: Vec<_> = row[1..].iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["host_1", "500", "400", "1000", "99"]);
}

#[test]
fn only_series_and_buckets_of_time_are_added_up_by_a_leaf() {
    let order = SeriesOrder { segment_by: vec![1], ..SERIES };
    let is_chosen = |sql: &str| match choose_leaf(&partial_of(sql), &order).unwrap() {
        Some(plan) => matches!(leaf_of(&plan).unwrap().want(), Want::Buckets(_)),
        None => false,
    };
    let day = "time_bucket('1 day', time)";
    assert!(is_chosen(&format!("select {day}, sum(v), min(n), last(v, time) from t group by 1")));
    assert!(is_chosen(
        "select host, avg(v) from t where time < '1970-01-02T00:00:00Z' and host in ('a', 'b') group by host"
    ));
    assert!(is_chosen("select avg(v) from t where host = 'host_3'"));
    for sql in [
        "select n, avg(v) from t group by n",
        "select host, avg(v) from t where v > 5 group by host",
        "select host, avg(v) from t where n > 5 group by host",
        "select host, sum(n) from t group by host",
        "select host, avg(distinct v) from t group by host",
        "select host, avg(v) filter (where n > 3) from t group by host",
        "select host, last(v, n) from t group by host",
        "select time_bucket('1 month', time), avg(v) from t group by 1",
        "select time_bucket('1 day', time, 'Europe/Berlin'), avg(v) from t group by 1",
        "select time_bucket('1 day', time), time_bucket('1 hour', time), avg(v) from t group by 1, 2",
        "select host, avg(v) from t where host = 'a' or time < '1970-01-02T00:00:00Z' group by host",
    ] {
        assert!(!is_chosen(sql), "{sql}");
    }
}

#[test]
fn a_leaf_of_series_travels_and_is_shown() {
    let order = SeriesOrder { segment_by: vec![1], ..SERIES };
    let chosen = |sql: &str| choose_leaf(&aggregate_of(sql), &order).unwrap();
    let shown = |sql: &str| {
        let plan = chosen(sql).unwrap_or_else(|| panic!("{sql}"));
        let decoded = decode(&encode(&plan).unwrap()).unwrap();
        assert_eq!(leaf_of(&decoded).unwrap().want(), leaf_of(&plan).unwrap().want());
        displayable(decoded.as_ref()).indent(false).to_string()
    };
    assert_contains!(shown("select distinct host from t"), "SkipScan: table=16384, columns=[host], key=[host]");
    assert_contains!(shown("select host, last(v, time) from t group by host"), "LastPointScan: table=16384");
    assert_contains!(shown("select host, min(time) from t where n > 5 group by host"), "bounds=[n >= 6]");
    assert!(chosen("select host, last(v, n) from t group by host").is_none());
    assert!(chosen("select distinct v from t").is_none());
    assert!(chosen("select host, max(time) from t where v > 5 group by host").is_none());
    assert!(chosen("select host, max(time) from t where random() > 0.5 group by host").is_none());
}

#[test]
fn groups_of_series_are_held_one_at_a_time_where_all_rows_are_sorted_by_them() {
    let order = SeriesOrder { segment_by: vec![1], flushed_by: vec![1], time: Some(0) };
    let sql = "select host, median(v), stddev(v) from t group by host";
    let chosen = choose_leaf(&partial_of(sql), &order).unwrap().unwrap();
    let decoded = decode(&encode(&chosen).unwrap()).unwrap();
    let shown = displayable(decoded.as_ref()).indent(false).to_string();
    assert_contains!(&shown, "ordering_mode=Sorted");
    assert_contains!(&shown, "MergeScan: table=16384, columns=[host, v], order=[host ASC NULLS LAST]");
    for sql in [
        "select n, median(v) from t group by n",
        "select host, n, median(v) from t group by host, n",
        "select upper(host), median(v) from t group by 1",
        "select median(v) from t where host = 'host_1' group by host",
        "select host, stddev(v) from t group by host",
    ] {
        let chosen = choose_leaf(&partial_of(sql), &order).unwrap();
        assert!(chosen.is_none_or(|plan| !matches!(leaf_of(&plan).unwrap().want(), Want::Sorted(_))), "{sql}");
    }
    // Some segments are not sorted by hosts.
    let mixed = SeriesOrder { flushed_by: vec![], ..order };
    assert!(choose_leaf(&partial_of(sql), &mixed).unwrap().is_none());
}

#[test]
fn fields_remember_their_sql_type() {
    let decoded = decode(&encode(&plan("select host, time from t")).unwrap()).unwrap();
    let leaf = leaf_of(&decoded).unwrap();
    // The leaf has the columns in the table's order, the operators above it have them in the statement's.
    for schema in [leaf.schema(), decoded.schema()] {
        let host = schema.field_with_name("host").unwrap();
        assert_eq!(host.metadata()[SQL_TYPE_KEY], "character varying(20)");
    }
}

#[test]
fn arithmetic_fails_on_overflow() {
    let decoded = decode(&encode(&plan("select n + 1 + 9223372036854775807 from t")).unwrap()).unwrap();
    assert_contains!(run(decoded).unwrap_err().to_string(), "verflow");
}

#[test]
fn a_foreign_operator_is_refused_by_name() {
    let refused = |plan: &Arc<dyn ExecutionPlan>, name: &str| {
        assert_contains!(check_allowed(plan).unwrap_err().to_string(), name);
        assert_contains!(encode(plan).unwrap_err().to_string(), name);
    };
    let coalesce: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(plan("select * from t")));
    assert!(!is_pushable(coalesce.as_ref()));
    refused(&coalesce, "CoalescePartitionsExec");
    refused(&plan("select a.n from t a join t b on a.n = b.n"), "HashJoin");
    refused(&plan("select row_number() over (order by n) from t"), "WindowAgg");
}

#[test]
fn foreign_bytes_are_refused_by_name() {
    let foreign = block_on(async {
        let context = context(1);
        context.sql("select 1 as one union all select 2").await.unwrap().create_physical_plan().await.unwrap()
    });
    let bytes = datafusion_proto::bytes::physical_plan_to_bytes(foreign).unwrap();
    assert_contains!(decode(&bytes).unwrap_err().to_string(), "Union");
}

#[test]
fn an_unknown_function_is_refused_by_name() {
    use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
    let function = create_udf(
        "only_here",
        vec![arrow::datatypes::DataType::Int64],
        arrow::datatypes::DataType::Int64,
        Volatility::Immutable,
        Arc::new(|args: &[ColumnarValue]| Ok(args[0].clone())),
    );
    let context = context(1);
    context.register_table("t", Arc::new(LeafTable(schema()))).unwrap();
    context.register_udf(function);
    let sql = "select only_here(n) from t";
    let plan = block_on(async { context.sql(sql).await.unwrap().create_physical_plan().await.unwrap() });
    assert_contains!(encode(&plan).unwrap_err().to_string(), "only_here");
    assert!(!is_pushable(plan.as_ref()));
}

#[test]
fn operators_that_need_one_partition_are_pushable_over_one() {
    for sql in [
        "select n from t where n > 1",
        "select n + 1 from t",
        "select count(*) from t",
        "select * from t order by n limit 3",
        "select * from t where n > 3 limit 3",
    ] {
        assert!(is_pushable(plan(sql).as_ref()), "{sql}");
    }
}

#[test]
fn deep_nesting_is_refused_where_it_is_made() {
    let long = (0..500).map(|n| format!("n <> {n}")).collect::<Vec<_>>().join(" and ");
    let chained = plan(&format!("select * from t where {long}"));
    assert!(decode(&encode(&chained).unwrap()).is_ok(), "what stands side by side does not nest");
    let context = context(1);
    context.register_table("t", Arc::new(LeafTable(schema()))).unwrap();
    let nested = (0..120).fold(col("n"), |expression, _| col("n") + expression);
    let plan = block_on(async {
        let frame = context.table("t").await.unwrap().select(vec![nested]).unwrap();
        frame.create_physical_plan().await.unwrap()
    });
    let refused = encode(&plan).unwrap_err().to_string();
    assert_contains!(refused, "a fragment cannot hold an expression that nests so deep");
}

#[test]
fn damaged_bytes_give_an_error_or_another_allowed_plan() {
    let sql = "select host, avg(v) from t where n > 5 and host like 'h%' group by host order by 2 limit 3";
    let bytes = encode(&plan(sql)).unwrap();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for length in 0..bytes.len() {
        let _ = decode(&bytes[..length]);
    }
    for at in 0..bytes.len() {
        for flip in [0x01, 0x10, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            if let Ok(plan) = decode(&damaged) {
                check_allowed(&plan).unwrap();
            }
        }
    }
    let mut state = 1u64;
    for _ in 0..2000 {
        let noise: Vec<u8> = (0..64)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as u8
            })
            .collect();
        let _ = decode(&noise);
    }
    std::panic::set_hook(hook);
}
