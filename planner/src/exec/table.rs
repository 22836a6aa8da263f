//! A table of the catalog as DataFusion sees it.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::limit::LocalLimitExec;
use meridian_client::cluster::CatalogView;
use meridian_fragment::ChunkScanExec;
use meridian_proto::catalog::Table;

use super::prune::{Targets, bounds, prune};
use super::remote_scan::RemoteScanExec;
use super::source::FragmentSource;
use crate::sql::errors::external;

/// How one statement reads tables: the view it plans by, the source it reads from.
#[derive(Clone, Debug)]
pub(crate) struct TableReader {
    pub view: Arc<CatalogView>,
    pub source: Arc<dyn FragmentSource>,
    /// Whether it may read by other leaves than the plain scan.
    pub leaves: bool,
}

impl TableReader {
    /// What of the table `leaf` has to read. It gets the bounds that the predicates prove.
    pub(super) fn targets(
        &self,
        table: &Table,
        leaf: &ChunkScanExec,
        predicates: &[Arc<dyn PhysicalExpr>],
    ) -> Result<(ChunkScanExec, Targets)> {
        let leaf = leaf.with_bounds(bounds(predicates, leaf.table_schema()))?;
        let targets = prune(&self.view, table, leaf.bounds(), predicates).map_err(external)?;
        Ok((leaf, targets))
    }

    /// `fetch`: how many rows are enough of each target.
    pub(super) fn scan(
        &self,
        table: &Arc<Table>,
        leaf: ChunkScanExec,
        targets: Targets,
        fetch: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let leaf: Arc<dyn ExecutionPlan> = Arc::new(leaf);
        if targets.targets.is_empty() {
            return Ok(Arc::new(EmptyExec::new(leaf.schema())));
        }
        let fragment = match fetch {
            Some(rows) => Arc::new(LocalLimitExec::new(leaf, rows)),
            None => leaf,
        };
        let source = Arc::clone(&self.source);
        let scan = RemoteScanExec::try_new(Arc::clone(table), Arc::new(targets), fragment, source)?;
        Ok(Arc::new(scan.with_leaves(self.leaves)))
    }
}

/// One statement's look at a table.
#[derive(Debug)]
pub(crate) struct MeridianTable {
    table: Arc<Table>,
    schema: SchemaRef,
    reader: TableReader,
}

impl MeridianTable {
    pub(crate) fn new(table: Arc<Table>, reader: TableReader) -> Self {
        let schema = table.schema.arrow();
        Self { table, schema, reader }
    }
}

/// The leaf of a scan that DataFusion asks for, as yet without bounds.
pub(super) fn leaf_of(table: &Table, schema: &SchemaRef, projection: Option<&Vec<usize>>) -> Result<ChunkScanExec> {
    let projection = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
    ChunkScanExec::try_new(table.id, table.schema.version, Arc::clone(schema), projection, vec![])
}

/// The filters of a scan as predicates over all columns of its table.
pub(super) fn predicates(
    state: &dyn Session,
    schema: &SchemaRef,
    filters: &[Expr],
) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
    let schema = DFSchema::try_from(Arc::clone(schema))?;
    let conjuncts = filters.iter().flat_map(split_conjunction);
    conjuncts.map(|filter| state.create_physical_expr(filter.clone(), &schema)).collect()
}

#[async_trait]
impl TableProvider for MeridianTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // Chunks and segments are pruned by them; the filter stays in the plan, and moves into the fragment later.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let predicates = predicates(state, &self.schema, filters)?;
        let leaf = leaf_of(&self.table, &self.schema, projection)?;
        let (leaf, targets) = self.reader.targets(&self.table, &leaf, &predicates)?;
        self.reader.scan(&self.table, leaf, targets, limit.filter(|_| filters.is_empty()))
    }
}
