//! Queries over tables in memory: planned as a session plans them, their fragments encoded, decoded and run as a shard
//! runs them.

mod chunks;
mod dialect;
mod first_rows;
mod plans;
mod sorted;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::SchemaRef;
use bytes::BytesMut;
use datafusion::common::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use meridian_client::cluster::split::split;
use meridian_client::cluster::{CatalogView, ChunkSizes, Fragment, Maintained, Maintenance};
use meridian_fragment::{ChunkScanExec, ChunkSource, SortColumn, Want, decode, leaf_of, task_context};
use meridian_pgtypes::Encoder;
use meridian_proto::time::US_PER_DAY;
use meridian_proto::{ChunkId, Refusal, SqlType, TableId};

use super::catalog::{Overlay, StatementCatalog};
use super::prune::Target;
use super::prune::tests::view;
use super::rules::distribute;
use super::source::{FragmentSource, PlannedFragment, Traffic};
use super::upkeep::Upkeep;
use crate::error::SqlError;
use crate::outcome::OutputColumn;
use crate::plan_cache::tests::check_kept;
use crate::sql::environment::Environment;
use crate::sql::environment::tests::environment;
use crate::sql::parse::parse;
use crate::sql::plan::{Planning, base_state, bind, output_columns};
use crate::sql::statement::Statement;

/// Shards in memory. Remembers how many rows each fragment returned.
#[derive(Debug)]
struct MemorySource {
    view: Arc<CatalogView>,
    tables: HashMap<TableId, RecordBatch>,
    returned: Mutex<Vec<usize>>,
    compressed: Arc<Mutex<BTreeSet<ChunkId>>>,
}

struct Rows(RecordBatch);

impl ChunkSource for Rows {
    fn open(&self, leaf: &ChunkScanExec) -> Result<SendableRecordBatchStream> {
        let rows = match leaf.want() {
            Want::Sorted(order) => sorted(&self.0, order)?,
            _ => self.0.clone(),
        };
        let batch = rows.project(leaf.projection())?;
        let schema = batch.schema();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::once(async move { Ok(batch) }))))
    }
}

fn sorted(rows: &RecordBatch, order: &[SortColumn]) -> Result<RecordBatch> {
    let column = |by: &SortColumn| arrow::compute::SortColumn {
        values: rows.column(by.column).clone(),
        options: Some(by.options),
    };
    let order = lexsort_to_indices(&order.iter().map(column).collect::<Vec<_>>(), None)?;
    Ok(take_record_batch(rows, &order)?)
}

impl FragmentSource for MemorySource {
    fn open(
        &self,
        target: Target,
        fragment: Arc<PlannedFragment>,
        _schema: SchemaRef,
        traffic: Arc<Traffic>,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let plan = decode(&fragment.encoded().unwrap()).unwrap();
        let leaf = leaf_of(&plan).unwrap();
        let table = Arc::clone(self.view.table(leaf.table()).unwrap());
        let parts = split(&table, &self.tables[&table.id]).unwrap();
        let here = parts.into_iter().filter(|part| {
            let chunk = self.view.chunk_at(part.cell).map(|chunk| chunk.id);
            target.chunks.iter().any(|(id, _)| Some(*id) == chunk)
        });
        let here: Vec<_> = here.map(|part| part.rows).collect();
        let rows = Rows(concat_batches(&table.schema.arrow(), &here).unwrap());
        let context = task_context(Arc::new(rows), Arc::new(RuntimeEnv::default()), 8192);
        let batches = futures::executor::block_on(collect(plan, context));
        if let Ok(batches) = &batches {
            let rows = batches.iter().map(RecordBatch::num_rows).sum();
            self.returned.lock().unwrap().push(rows);
            traffic.rows.fetch_add(rows as u64, std::sync::atomic::Ordering::Relaxed);
        }
        match batches {
            Ok(batches) => stream::iter(batches.into_iter().map(Ok)).boxed(),
            Err(error) => stream::once(async move { Err(error) }).boxed(),
        }
    }
}

/// Chunks of 40 rows and 1000 bytes, which compression makes 250. Nothing comes after it.
impl Upkeep for MemorySource {
    fn maintain(&self, chunk: ChunkId, maintenance: Maintenance) -> BoxFuture<'static, Result<Maintained, Refusal>> {
        let compressed = Arc::clone(&self.compressed);
        async move {
            let mut compressed = compressed.lock().unwrap();
            let was_compressed = compressed.contains(&chunk);
            let changed = match maintenance {
                Maintenance::Compress => compressed.insert(chunk),
                Maintenance::Recompress => false,
                Maintenance::Decompress => compressed.remove(&chunk),
            };
            Ok(Maintained { changed, was_compressed })
        }
        .boxed()
    }

    fn sizes(&self, chunks: Vec<ChunkId>) -> BoxFuture<'static, Result<BTreeMap<ChunkId, ChunkSizes>, Refusal>> {
        let compressed = self.compressed.lock().unwrap().clone();
        let of = move |chunk: ChunkId| {
            let is_compressed = compressed.contains(&chunk);
            let mut sizes = ChunkSizes { rows: 40, bytes: 1000, segments: 1, is_compressed, ..ChunkSizes::default() };
            if is_compressed {
                (sizes.bytes, sizes.bytes_before, sizes.bytes_after) = (250, 1000, 250);
            }
            (chunk, sizes)
        };
        async move { Ok(chunks.into_iter().map(of).collect()) }.boxed()
    }
}

/// A session over `metrics` (8 hosts, hourly over 3 days) and `hosts`.
pub(crate) struct Bench {
    pub(crate) base: SessionState,
    pub(crate) catalog: StatementCatalog,
    source: Arc<MemorySource>,
    zone: String,
    pub(crate) environment: Arc<Environment>,
}

/// Columns and rows as texts.
pub(crate) type Answer = (Vec<OutputColumn>, Vec<Vec<String>>);

impl Bench {
    pub(crate) fn new() -> Self {
        Self::in_zone("UTC")
    }

    pub(crate) fn in_zone(zone: &str) -> Self {
        let view = Arc::new(view());
        let tables = HashMap::from([
            (view.table_by_name("public", "metrics").unwrap().id, metrics(&view)),
            (view.table_by_name("public", "hosts").unwrap().id, hosts(&view)),
        ]);
        let (returned, compressed) = (Mutex::default(), Arc::default());
        let source = Arc::new(MemorySource { view: Arc::clone(&view), tables, returned, compressed });
        let catalog = StatementCatalog {
            view,
            overlay: Arc::new(Overlay::default()),
            source: Arc::clone(&source) as Arc<dyn FragmentSource>,
            upkeep: Arc::clone(&source) as Arc<dyn Upkeep>,
            database: "meridian".to_owned(),
            searches_public: true,
            leaves: true,
        };
        let base = base_state(Arc::new(RuntimeEnv::default()));
        Self { base, catalog, source, zone: zone.to_owned(), environment: environment(zone) }
    }

    fn plan(&self, sql: &str) -> Result<(Vec<OutputColumn>, Arc<dyn ExecutionPlan>), SqlError> {
        self.plan_with(sql, &[])
    }

    pub(crate) fn plan_with(
        &self,
        sql: &str,
        parameters: &[ScalarValue],
    ) -> Result<(Vec<OutputColumn>, Arc<dyn ExecutionPlan>), SqlError> {
        let query = match parse(sql)?.remove(0) {
            Statement::Query(query) => query.tree()?,
            Statement::Call(query) => query,
            Statement::Refused(error) => return Err(error),
            other => panic!("{sql}: {other:?}"),
        };
        let types: Vec<_> = parameters.iter().map(|value| SqlType::of_arrow(&value.data_type())).collect();
        let planning =
            Planning::new(&self.base, Arc::clone(&self.environment), &self.catalog).with_parameters(parameters);
        let plan = planning.analyze(bind(planning.query(&query, &types)?, parameters)?)?;
        let columns = output_columns(&plan)?;
        let plan = planning.optimize(plan)?;
        let physical = self.base.query_planner().create_physical_plan(&plan, &self.base);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Ok((columns, distribute(runtime.block_on(physical)?, self.catalog.leaves)?))
    }

    /// As a new plan answers, with which a kept one has to agree.
    pub(crate) fn rows(&self, sql: &str) -> Result<Answer, SqlError> {
        let answer = self.rows_by_new_plan(sql);
        check_kept(self, sql, &answer);
        answer
    }

    pub(crate) fn rows_by_new_plan(&self, sql: &str) -> Result<Answer, SqlError> {
        let (columns, plan) = self.plan(sql)?;
        self.run(columns, plan)
    }

    pub(crate) fn run(&self, columns: Vec<OutputColumn>, plan: Arc<dyn ExecutionPlan>) -> Result<Answer, SqlError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let batches = runtime.block_on(collect(plan, self.base.task_ctx()))?;
        let format = environment(&self.zone).format.clone();
        let mut rows = Vec::new();
        for batch in &batches {
            let encoders: Vec<_> = columns
                .iter()
                .zip(batch.columns())
                .map(|(c, array)| Encoder::new(&c.sql_type, array, &format))
                .collect();
            for row in 0..batch.num_rows() {
                let cell = |encoder: &Encoder| {
                    let mut text = BytesMut::new();
                    if encoder.is_null(row) {
                        return "NULL".to_owned();
                    }
                    encoder.text(row, &mut text);
                    String::from_utf8(text.to_vec()).unwrap()
                };
                rows.push(encoders.iter().map(cell).collect());
            }
        }
        Ok((columns, rows))
    }

    /// Rows as `a|b`, as psql prints them with -At.
    fn texts(&self, sql: &str) -> Vec<String> {
        match self.rows(sql) {
            Ok((_, rows)) => rows.into_iter().map(|row| row.join("|")).collect(),
            Err(error) => panic!("{sql}: {error:?}"),
        }
    }

    fn error(&self, sql: &str) -> SqlError {
        match self.rows(sql) {
            Ok((_, rows)) => panic!("{sql}: {rows:?}"),
            Err(error) => error,
        }
    }
}

/// One row an hour and host; `v` is the hour plus the host's number.
fn metrics(view: &CatalogView) -> RecordBatch {
    let table = view.table_by_name("public", "metrics").unwrap();
    let (mut times, mut hosts, mut values) = (vec![], vec![], vec![]);
    for hour in 0..72 {
        for host in 0..8 {
            times.push(hour * US_PER_DAY / 24);
            hosts.push(format!("host_{host}"));
            values.push(if host == 7 { None } else { Some((hour + host) as f64) });
        }
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        Arc::new(StringArray::from(hosts)),
        Arc::new(Float64Array::from(values)),
    ];
    RecordBatch::try_new(table.schema.arrow(), columns).unwrap()
}

fn hosts(view: &CatalogView) -> RecordBatch {
    let table = view.table_by_name("public", "hosts").unwrap();
    let names: Vec<_> = (0..8).map(|host| format!("host_{host}")).collect();
    let racks: Vec<_> = (0..8).map(|host| host % 2).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(names)), Arc::new(Int64Array::from(racks))];
    RecordBatch::try_new(table.schema.arrow(), columns).unwrap()
}
