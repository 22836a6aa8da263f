//! A table of the catalog as DataFusion sees it.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::limit::LocalLimitExec;
use meridian_client::cluster::CatalogView;
use meridian_fragment::{Bound, ChunkScanExec, bounds_of, neighbour};
use meridian_proto::catalog::Table;

use super::prune::prune;
use super::remote_scan::RemoteScanExec;
use super::source::FragmentSource;
use crate::sql::errors::external;

/// One statement's look at a table: the view it plans by, the source it reads from.
#[derive(Debug)]
pub(crate) struct MeridianTable {
    table: Arc<Table>,
    schema: SchemaRef,
    view: Arc<CatalogView>,
    source: Arc<dyn FragmentSource>,
    leaves: bool,
}

impl MeridianTable {
    /// `leaves`: whether it may be read by other leaves than the plain scan.
    pub(crate) fn new(
        table: Arc<Table>,
        view: Arc<CatalogView>,
        source: Arc<dyn FragmentSource>,
        leaves: bool,
    ) -> Self {
        let schema = table.schema.arrow();
        Self { table, schema, view, source, leaves }
    }

    /// Bounds of columns that the filters prove, for pruning.
    fn bounds(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<Bound>> {
        let schema = DFSchema::try_from(Arc::clone(&self.schema))?;
        let positions: Vec<usize> = (0..self.schema.fields().len()).collect();
        let mut bounds = Vec::new();
        for filter in filters.iter().flat_map(split_conjunction) {
            let predicate = state.create_physical_expr(filter.clone(), &schema)?;
            let of_type = |bound: &Bound| {
                let wanted = self.schema.field(bound.column).data_type();
                [&bound.min, &bound.max].into_iter().flatten().all(|end| end.data_type() == *wanted && !end.is_null())
            };
            let found = bounds_of(&predicate, &positions).into_iter().filter(of_type);
            bounds.extend(found.map(|bound| without_excluded_end(bound, filter)));
        }
        Ok(bounds)
    }
}

/// Ends of bounds are inclusive: `time < midnight` ends just before, so that the next day's chunk is not touched.
fn without_excluded_end(mut bound: Bound, filter: &Expr) -> Bound {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return bound };
    let (value, op) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(_), Expr::Literal(value, _)) => (value, Some(*op)),
        (Expr::Literal(value, _), Expr::Column(_)) => (value, op.swap()),
        _ => return bound,
    };
    let (end, step) = match op {
        Some(Operator::Lt) => (&mut bound.max, -1),
        Some(Operator::Gt) => (&mut bound.min, 1),
        _ => return bound,
    };
    if end.as_ref() == Some(value)
        && let Some(next) = neighbour(value, step)
    {
        *end = Some(next);
    }
    bound
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
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let bounds = self.bounds(state, filters)?;
        let leaf = ChunkScanExec::try_new(
            self.table.id,
            self.table.schema.version,
            Arc::clone(&self.schema),
            projection,
            vec![],
        )?
        .with_bounds(bounds)?;
        let targets = prune(&self.view, &self.table, leaf.bounds(), filters).map_err(external)?;
        let leaf: Arc<dyn ExecutionPlan> = Arc::new(leaf);
        if targets.targets.is_empty() {
            return Ok(Arc::new(EmptyExec::new(leaf.schema())));
        }
        let fragment = match limit {
            Some(limit) if filters.is_empty() => Arc::new(LocalLimitExec::new(leaf, limit)),
            _ => leaf,
        };
        let source = Arc::clone(&self.source);
        let scan = RemoteScanExec::try_new(Arc::clone(&self.table), Arc::new(targets), fragment, source)?;
        Ok(Arc::new(scan.with_leaves(self.leaves)))
    }
}
