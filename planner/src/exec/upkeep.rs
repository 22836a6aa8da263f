//! Functions about chunks as a whole, which ask their data nodes: `compress_chunk`, `decompress_chunk`,
//! `recompress_chunk`, `hypertable_size`, `approximate_row_count`. They are asynchronous, and run where a plan has them.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use async_trait::async_trait;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use meridian_client::cluster::{ChunkSizes, Maintained, Maintenance};
use meridian_proto::catalog::{Chunk, Table};
use meridian_proto::{ChunkId, Refusal, SqlType};

use super::catalog::StatementCatalog;
use super::relation::{Relation, qualified_chunk_name};
use super::source::ClusterSource;
use crate::error::SqlError;
use crate::outcome::Notice;
use crate::sql::calls::{hidden_name, no_such_function};
use crate::sql::environment::Environment;
use crate::sql::errors::external;

/// Chunks of one statement that are rewritten at a time. Those that follow one another mostly lie on other shards.
const CHUNKS_AT_A_TIME: usize = 8;

/// Who does it.
pub(crate) trait Upkeep: fmt::Debug + Send + Sync {
    fn maintain(&self, chunk: ChunkId, maintenance: Maintenance) -> BoxFuture<'static, Result<Maintained, Refusal>>;

    /// Of the chunks that are there.
    fn sizes(&self, chunks: Vec<ChunkId>) -> BoxFuture<'static, Result<BTreeMap<ChunkId, ChunkSizes>, Refusal>>;
}

impl Upkeep for ClusterSource {
    fn maintain(&self, chunk: ChunkId, maintenance: Maintenance) -> BoxFuture<'static, Result<Maintained, Refusal>> {
        let cluster = self.cluster.clone();
        async move { cluster.maintain_chunk(chunk, maintenance).await }.boxed()
    }

    fn sizes(&self, chunks: Vec<ChunkId>) -> BoxFuture<'static, Result<BTreeMap<ChunkId, ChunkSizes>, Refusal>> {
        let cluster = self.cluster.clone();
        async move { cluster.sizes_of(&chunks).await }.boxed()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Maintain(MaintenanceCall),
    HypertableSize,
    ApproximateRowCount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum MaintenanceCall {
    Compress,
    Decompress,
    Recompress,
}

/// The function of that name for a statement, if it is one of these.
pub(crate) fn find(name: &str, catalog: &StatementCatalog, environment: &Arc<Environment>) -> Option<Arc<ScalarUDF>> {
    let kind = match name {
        "compress_chunk" => Kind::Maintain(MaintenanceCall::Compress),
        "decompress_chunk" => Kind::Maintain(MaintenanceCall::Decompress),
        "hypertable_size" => Kind::HypertableSize,
        "approximate_row_count" => Kind::ApproximateRowCount,
        _ if name == hidden_name("recompress_chunk") => Kind::Maintain(MaintenanceCall::Recompress),
        _ => return None,
    };
    let arguments = (1..=kind.parameters()).map(TypeSignature::Any).collect();
    let signature = Signature::one_of(arguments, Volatility::Volatile);
    let call = Arc::new(Call { kind, catalog: catalog.clone(), environment: Arc::clone(environment) });
    let function = ChunkFunction { call, signature };
    Some(Arc::new(AsyncScalarUDF::new(Arc::new(function)).into_scalar_udf()))
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Maintain(MaintenanceCall::Compress) => "compress_chunk",
            Self::Maintain(MaintenanceCall::Decompress) => "decompress_chunk",
            Self::Maintain(MaintenanceCall::Recompress) => "recompress_chunk",
            Self::HypertableSize => "hypertable_size",
            Self::ApproximateRowCount => "approximate_row_count",
        }
    }

    fn parameters(self) -> usize {
        if matches!(self, Self::Maintain(_)) { 2 } else { 1 }
    }
}

#[derive(Debug)]
struct ChunkFunction {
    call: Arc<Call>,
    signature: Signature,
}

impl PartialEq for ChunkFunction {
    fn eq(&self, other: &Self) -> bool {
        self.call.kind == other.call.kind && Arc::ptr_eq(&self.call.environment, &other.call.environment)
    }
}

impl Eq for ChunkFunction {}

impl Hash for ChunkFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.call.kind.hash(state);
    }
}

impl ScalarUDFImpl for ChunkFunction {
    fn name(&self) -> &str {
        self.call.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        // A regclass is a text or an OID here; a parameter without a type becomes a text.
        let is_relation = |t: &DataType| {
            matches!(t, DataType::Utf8 | DataType::Utf8View | DataType::Int32 | DataType::Int64 | DataType::Null)
        };
        let is_flag = |t: &DataType| matches!(t, DataType::Boolean | DataType::Utf8 | DataType::Null);
        let fit = types.first().is_some_and(is_relation) && types.iter().skip(1).all(is_flag);
        if !fit {
            let name =
                |t: &DataType| SqlType::of_arrow(t).map_or_else(|| t.to_string(), |sql_type| base_name(&sql_type));
            let names: Vec<_> = types.iter().map(name).collect();
            return Err(external(no_such_function(self.name(), &names.join(", "))));
        }
        Ok(if matches!(self.call.kind, Kind::Maintain(_)) { DataType::Utf8 } else { DataType::Int64 })
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{} runs asynchronously", self.name())
    }
}

fn base_name(sql_type: &SqlType) -> String {
    if matches!(sql_type, SqlType::Numeric(_)) { "numeric".to_owned() } else { sql_type.to_string() }
}

#[async_trait]
impl AsyncScalarUDFImpl for ChunkFunction {
    /// Row by row in their order, some at a time. The first error ends it; what was rewritten before stays so.
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let calls = rows_of(&args)?.into_iter().map(|row| Arc::clone(&self.call).run(row));
        let answers: Vec<Answer> =
            stream::iter(calls).buffered(CHUNKS_AT_A_TIME).try_collect().await.map_err(external)?;
        let array: ArrayRef = match self.call.kind {
            Kind::Maintain(_) => Arc::new(answers.into_iter().map(Answer::name).collect::<StringArray>()),
            _ => Arc::new(answers.into_iter().map(Answer::count).collect::<Int64Array>()),
        };
        Ok(ColumnarValue::Array(array))
    }
}

/// Arguments of one row: NULL, or the relation and the flag.
type Arguments = Option<(String, bool)>;

fn rows_of(args: &ScalarFunctionArgs) -> Result<Vec<Arguments>> {
    let columns = args.args.iter().map(|arg| arg.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
    let row = |row: usize| -> Result<Arguments> {
        // STRICT: NULL for NULL.
        if columns.iter().any(|column| column.is_null(row) || column.data_type().is_null()) {
            return Ok(None);
        }
        let flag = columns.get(1).map(|column| flag_at(column, row)).transpose()?;
        Ok(relation_at(&columns[0], row).map(|relation| (relation, flag.unwrap_or(false))))
    };
    (0..args.number_rows).map(row).collect()
}

fn relation_at(column: &ArrayRef, row: usize) -> Option<String> {
    Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Utf8View => column.as_string_view().value(row).to_owned(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        _ => return None,
    })
}

fn flag_at(column: &ArrayRef, row: usize) -> Result<bool> {
    if let Some(flags) = column.as_boolean_opt() {
        return Ok(flags.value(row));
    }
    let text = column.as_string_opt::<i32>().map(|texts| texts.value(row)).unwrap_or_default();
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "true" | "on" | "yes" | "1" => Ok(true),
        "f" | "false" | "off" | "no" | "0" => Ok(false),
        _ => Err(external(SqlError::new("22P02", format!("invalid input syntax for type boolean: \"{text}\"")))),
    }
}

enum Answer {
    Null,
    Name(String),
    Count(u64),
}

impl Answer {
    fn name(self) -> Option<String> {
        if let Self::Name(name) = self { Some(name) } else { None }
    }

    fn count(self) -> Option<i64> {
        if let Self::Count(count) = self { Some(i64::try_from(count).unwrap_or(i64::MAX)) } else { None }
    }
}

/// One statement's function.
#[derive(Debug)]
struct Call {
    kind: Kind,
    catalog: StatementCatalog,
    environment: Arc<Environment>,
}

impl Call {
    async fn run(self: Arc<Self>, arguments: Arguments) -> Result<Answer, SqlError> {
        let Some((relation, flag)) = arguments else { return Ok(Answer::Null) };
        match self.kind {
            Kind::Maintain(maintenance) => self.maintain(maintenance, &relation, flag).await,
            Kind::HypertableSize => self.hypertable_size(&relation).await,
            Kind::ApproximateRowCount => self.approximate_row_count(&relation).await,
        }
    }

    async fn maintain(
        &self,
        maintenance: MaintenanceCall,
        relation: &str,
        is_lenient: bool,
    ) -> Result<Answer, SqlError> {
        if self.environment.read_only {
            let message = format!("cannot execute {}() in a read-only transaction", self.kind.name());
            return Err(SqlError::new("25006", message));
        }
        let relation = self.catalog.relation(relation)?;
        let Relation::Chunk(table, chunk) = &relation else { return Err(not_a_chunk(&relation)) };
        match maintenance {
            MaintenanceCall::Compress => self.compress(table, chunk, is_lenient).await,
            MaintenanceCall::Decompress => self.decompress(table, chunk, is_lenient).await,
            MaintenanceCall::Recompress => self.recompress(table, chunk, is_lenient).await,
        }
    }

    async fn compress(&self, table: &Table, chunk: &Chunk, if_not_compressed: bool) -> Result<Answer, SqlError> {
        check_enabled(table)?;
        let maintained = self.catalog.upkeep.maintain(chunk.id, Maintenance::Compress).await?;
        if !maintained.changed {
            let message = format!("chunk \"{}\" is already compressed", name_of(table, chunk).name());
            self.tell("42710", message, if_not_compressed)?;
        }
        Ok(chunk_answer(table, chunk))
    }

    async fn decompress(&self, table: &Table, chunk: &Chunk, if_compressed: bool) -> Result<Answer, SqlError> {
        let maintained = self.catalog.upkeep.maintain(chunk.id, Maintenance::Decompress).await?;
        if maintained.changed {
            return Ok(chunk_answer(table, chunk));
        }
        let message = format!("chunk \"{}\" is not compressed", name_of(table, chunk).name());
        self.tell("55000", message, if_compressed)?;
        Ok(Answer::Null)
    }

    async fn recompress(&self, table: &Table, chunk: &Chunk, if_not_compressed: bool) -> Result<Answer, SqlError> {
        check_enabled(table)?;
        let maintained = self.catalog.upkeep.maintain(chunk.id, Maintenance::Recompress).await?;
        if !maintained.was_compressed {
            return Err(SqlError::new("P0001", "call compress_chunk instead of recompress_chunk"));
        }
        if !maintained.changed {
            let message = format!("nothing to recompress in chunk \"{}\"", name_of(table, chunk).name());
            let sqlstate = if if_not_compressed { "00000" } else { "P0001" };
            self.tell(sqlstate, message, if_not_compressed)?;
        }
        Ok(Answer::Null)
    }

    /// A notice, or an error.
    fn tell(&self, sqlstate: &str, message: String, as_notice: bool) -> Result<(), SqlError> {
        if !as_notice {
            return Err(SqlError::new(sqlstate, message));
        }
        let notice = Notice { severity: "NOTICE", sqlstate: sqlstate.to_owned(), message, hint: None };
        self.environment.notices.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
        Ok(())
    }

    /// NULL for what is no hypertable, as TimescaleDB's sum over no rows.
    async fn hypertable_size(&self, relation: &str) -> Result<Answer, SqlError> {
        match self.catalog.relation(relation)? {
            Relation::Table(table) if table.hypertable().is_some() => {
                let sizes = self.catalog.sizes_of(&table).await?;
                Ok(Answer::Count(sizes.values().map(|sizes| sizes.bytes).sum()))
            }
            _ => Ok(Answer::Null),
        }
    }

    async fn approximate_row_count(&self, relation: &str) -> Result<Answer, SqlError> {
        let sizes = match self.catalog.relation(relation)? {
            Relation::Table(table) => self.catalog.sizes_of(&table).await?,
            Relation::Chunk(_, chunk) => self.catalog.upkeep.sizes(vec![chunk.id]).await?,
        };
        Ok(Answer::Count(sizes.values().map(|sizes| sizes.rows).sum()))
    }
}

impl StatementCatalog {
    /// Sizes of a table's chunks.
    pub(crate) async fn sizes_of(&self, table: &Table) -> Result<BTreeMap<ChunkId, ChunkSizes>, SqlError> {
        let chunks: Vec<_> = self.chunks_of(table).iter().map(|chunk| chunk.id).collect();
        if chunks.is_empty() {
            return Ok(BTreeMap::new());
        }
        Ok(self.upkeep.sizes(chunks).await?)
    }
}

fn name_of(table: &Table, chunk: &Chunk) -> Relation {
    Relation::Chunk(Arc::new(table.clone()), Arc::new(chunk.clone()))
}

fn chunk_answer(table: &Table, chunk: &Chunk) -> Answer {
    table.hypertable().map_or(Answer::Null, |h| Answer::Name(qualified_chunk_name(h, chunk.id)))
}

fn check_enabled(table: &Table) -> Result<(), SqlError> {
    if table.hypertable().is_some_and(|hypertable| hypertable.compression.is_some()) {
        return Ok(());
    }
    Err(SqlError::unsupported(format!("compression not enabled on \"{}\"", table.name))
        .with_detail(
            "It is not possible to compress chunks on a hypertable or continuous aggregate that does not have \
             compression enabled.",
        )
        .with_hint("Enable compression using ALTER TABLE/MATERIALIZED VIEW with the timescaledb.compress option."))
}

fn not_a_chunk(relation: &Relation) -> SqlError {
    let schema = match relation {
        Relation::Table(table) => &table.namespace,
        Relation::Chunk(..) => super::relation::INTERNAL,
    };
    let detail = format!("schema_name: {schema}, table_name: {}", relation.name());
    SqlError::new("42704", "chunk not found").with_detail(detail)
}
