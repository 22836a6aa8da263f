//! Scalar subqueries give one row. DataFusion joins them to the rows of their query, and takes those of the second row
//! as more rows; this rule, after all others, makes each that may have several rows an aggregate that remembers whether
//! there was a second one, and looks at it where the value is used.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, JoinType, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Distinct, Expr, FetchType, LogicalPlan, LogicalPlanBuilder, Subquery};
use datafusion::optimizer::AnalyzerRule;

use super::functions::single::{only_one, up_to_two};

#[derive(Debug)]
pub(crate) struct SingleRows;

impl AnalyzerRule for SingleRows {
    fn name(&self) -> &str {
        "single_row_subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(rewrite_plan).data()
    }
}

fn rewrite_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&plan);
    let plan = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let rewritten = expr.transform_up(rewrite)?;
        Ok(rewritten.update_data(|expr| name.restore(expr)))
    })?;
    // Always: what changed may lie below.
    plan.map_data(LogicalPlan::recompute_schema)
}

fn rewrite(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        // With several columns it is refused by name later.
        Expr::ScalarSubquery(subquery)
            if subquery.subquery.schema().fields().len() == 1 && !has_one_row(&subquery.subquery) =>
        {
            Ok(Transformed::yes(only_one(Expr::ScalarSubquery(guarded(subquery)?))))
        }
        expr => Ok(Transformed::no(expr)),
    }
}

fn guarded(subquery: Subquery) -> Result<Subquery> {
    let (qualifier, field) = subquery.subquery.schema().qualified_field(0);
    let value = Expr::Column(Column::from((qualifier, field)));
    let mut plan = LogicalPlanBuilder::from(Arc::clone(&subquery.subquery));
    if subquery.outer_ref_columns.is_empty() {
        // A third row tells nothing new. Of a correlated one each outer row has its own.
        plan = plan.limit(0, Some(2))?;
    }
    let plan = plan.aggregate(Vec::<Expr>::new(), vec![up_to_two(value)])?.build()?;
    Ok(Subquery { subquery: Arc::new(plan), ..subquery })
}

/// Whether a plan surely has no second row. (`LogicalPlan::max_rows` counts none for `SELECT 1`.)
fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(values) => values.values.len() <= 1,
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Limit(limit) => {
            matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(0 | 1)))) || has_one_row(&limit.input)
        }
        LogicalPlan::Sort(sort) => sort.fetch.is_some_and(|rows| rows <= 1) || has_one_row(&sort.input),
        LogicalPlan::Projection(projection) => has_one_row(&projection.input),
        LogicalPlan::Filter(filter) => has_one_row(&filter.input),
        LogicalPlan::Window(window) => has_one_row(&window.input),
        LogicalPlan::SubqueryAlias(alias) => has_one_row(&alias.input),
        LogicalPlan::Distinct(Distinct::All(input)) => has_one_row(input),
        LogicalPlan::Join(join) if join.join_type != JoinType::Full => {
            has_one_row(&join.left) && has_one_row(&join.right)
        }
        _ => false,
    }
}
