//! Scans of a plan that is kept. They know the table and their predicates with holes, and nothing of a statement: neither
//! chunks nor where they lie nor a snapshot. Each statement fills them by its own view.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, ScalarUDF, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use meridian_fragment::ChunkScanExec;
use meridian_proto::SqlType;
use meridian_proto::catalog::Table;

use super::catalog::{Found, StatementCatalog};
use super::filled::filled;
use super::table::{TableReader, leaf_of, predicates};
use crate::error::SqlError;
use crate::sql::environment::Environment;
use crate::sql::plan::Relations;
use crate::sql::set_function::SetCall;
use crate::sql::statement::Name;

/// What a statement fills a plan with.
#[derive(Debug)]
pub(crate) struct Filling {
    /// One per hole.
    pub values: Vec<ScalarValue>,
    pub reader: TableReader,
}

/// A statement's catalog for a plan that is kept. It has tables only: what else a catalog offers is made for the one
/// statement.
pub(crate) struct OpenCatalog<'a> {
    catalog: &'a StatementCatalog,
    found: Mutex<Vec<(Name, Arc<Table>)>>,
}

impl<'a> OpenCatalog<'a> {
    pub(crate) fn new(catalog: &'a StatementCatalog) -> Self {
        Self { catalog, found: Mutex::default() }
    }

    /// The tables that were asked for, by the names that they were asked for by.
    pub(crate) fn into_found(self) -> Vec<(Name, Arc<Table>)> {
        self.found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relations for OpenCatalog<'_> {
    fn find(&self, schema: Option<&str>, name: &str) -> Option<Arc<dyn TableProvider>> {
        let name = Name { schema: schema.map(str::to_owned), name: name.to_owned() };
        let Found::Stored(table) = self.catalog.resolve(&name)? else { return None };
        let schema = table.schema.arrow();
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if !found.iter().any(|(known, _)| *known == name) {
            found.push((name, Arc::clone(&table)));
        }
        Some(Arc::new(OpenTable { table, schema }))
    }

    fn function(&self, _name: &str, _environment: &Arc<Environment>) -> Option<Arc<ScalarUDF>> {
        None
    }

    fn time_type(&self, relation: &str) -> Result<SqlType, SqlError> {
        Err(SqlError::new("XX000", format!("{relation} is looked at by one statement")))
    }

    fn rows_of(&self, call: SetCall) -> Result<Arc<dyn TableProvider>, SqlError> {
        Err(SqlError::new("XX000", format!("the rows of {} are those of one statement", call.function.name())))
    }
}

#[derive(Debug)]
struct OpenTable {
    table: Arc<Table>,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for OpenTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // Plans differ by whether there is one partition or several, so the first statement tells how many.
        let Some(filling) = state.config().get_extension::<Filling>() else {
            return internal_err!("a plan that is kept is made without a filling");
        };
        let predicates = predicates(state, &self.schema, filters)?;
        let leaf = leaf_of(&self.table, &self.schema, projection)?;
        let table = Arc::clone(&self.table);
        let scan = OpenScanExec::new(table, leaf, predicates, limit.filter(|_| filters.is_empty()));
        let partitions = scan.partitions_for(&filling)?;
        Ok(Arc::new(scan.with_partitions(partitions)))
    }
}

/// The leaf of a kept plan. It cannot run.
#[derive(Clone, Debug)]
pub(crate) struct OpenScanExec {
    table: Arc<Table>,
    leaf: Arc<ChunkScanExec>,
    /// Over all columns of the table.
    predicates: Vec<Arc<dyn PhysicalExpr>>,
    /// Rows that are enough of each partition.
    fetch: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl OpenScanExec {
    fn new(
        table: Arc<Table>,
        leaf: ChunkScanExec,
        predicates: Vec<Arc<dyn PhysicalExpr>>,
        fetch: Option<usize>,
    ) -> Self {
        let properties = Arc::clone(leaf.properties());
        Self { table, leaf: Arc::new(leaf), predicates, fetch, properties }
    }

    fn with_partitions(self, partitions: usize) -> Self {
        let properties = PlanProperties::new(
            self.leaf.properties().equivalence_properties().clone(),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Self { properties: Arc::new(properties), ..self }
    }

    fn partitions(&self) -> usize {
        self.properties.output_partitioning().partition_count()
    }

    fn filled_predicates(&self, filling: &Filling) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        let schema = self.leaf.table_schema();
        self.predicates.iter().map(|predicate| filled(predicate, &filling.values, schema)).collect()
    }

    fn partitions_for(&self, filling: &Filling) -> Result<usize> {
        let predicates = self.filled_predicates(filling)?;
        let (_, targets) = filling.reader.targets(&self.table, &self.leaf, &predicates)?;
        // What reads nothing is one empty partition.
        Ok(targets.targets.len().max(1))
    }

    /// The scan of one statement. `None`: it has another number of partitions than the plan was made for.
    pub(crate) fn fill(&self, filling: &Filling) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let predicates = self.filled_predicates(filling)?;
        let (leaf, targets) = filling.reader.targets(&self.table, &self.leaf, &predicates)?;
        if targets.targets.len().max(1) != self.partitions() {
            return Ok(None);
        }
        filling.reader.scan(&self.table, leaf, targets, self.fetch).map(Some)
    }
}

impl DisplayAs for OpenScanExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenScanExec: table={}, partitions={}", self.table.name, self.partitions())
    }
}

impl ExecutionPlan for OpenScanExec {
    fn name(&self) -> &'static str {
        "OpenScanExec"
    }

    fn schema(&self) -> SchemaRef {
        self.leaf.schema()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("an open scan has no children") }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("an open scan has no children") }
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        internal_err!("a plan that is kept was not filled")
    }

    fn supports_limit_pushdown(&self) -> bool {
        false
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let limit = limit?;
        let fetch = Some(self.fetch.map_or(limit, |fetch| fetch.min(limit)));
        Some(Arc::new(Self { fetch, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }
}
