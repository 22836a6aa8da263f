//! Literals without a type in BETWEEN and IN are read as what they stand beside, as beside an operator. DataFusion would
//! find a type that both can be brought into: of a time and a text one that has no infinity.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use meridian_proto::SqlType;

use super::comparisons::known_type;
use super::environment::Environment;
use super::functions::convert::constant;

#[derive(Debug)]
pub(crate) struct Untyped(pub Arc<Environment>);

impl AnalyzerRule for Untyped {
    fn name(&self) -> &str {
        "literals_without_type"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| self.plan(plan)).data()
    }
}

impl Untyped {
    fn plan(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let mut schema = merge_schema(&plan.inputs());
        if let LogicalPlan::TableScan(scan) = &plan {
            schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
        }
        // Conditions have no names, and elsewhere both stand seldom.
        let plan = plan.map_expressions(|expr| expr.transform_up(|expr| self.expr(expr, &schema)))?;
        if plan.transformed { plan.map_data(LogicalPlan::recompute_schema) } else { Ok(plan) }
    }

    fn expr(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        match expr {
            Expr::Between(mut between) if is_untyped(&between.low) || is_untyped(&between.high) => {
                let Some(wanted) = wanted_beside(&between.expr, schema) else {
                    return Ok(Transformed::no(Expr::Between(between)));
                };
                self.read(&mut between.low, &wanted)?;
                self.read(&mut between.high, &wanted)?;
                Ok(Transformed::yes(Expr::Between(between)))
            }
            // With a typed one among them it is the common type of all.
            Expr::InList(InList { expr, mut list, negated }) if list.iter().all(is_untyped) => {
                let wanted = wanted_beside(&expr, schema);
                if let Some(wanted) = &wanted {
                    list.iter_mut().try_for_each(|item| self.read(item, wanted))?;
                }
                let changed = Expr::InList(InList { expr, list, negated });
                Ok(if wanted.is_some() { Transformed::yes(changed) } else { Transformed::no(changed) })
            }
            expr => Ok(Transformed::no(expr)),
        }
    }

    fn read(&self, expr: &mut Expr, wanted: &SqlType) -> Result<()> {
        if let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = expr {
            let value = constant(text, wanted, &self.0.format)?;
            *expr = Expr::Literal(value, Some((&wanted.field("lit", true)).into()));
        }
        Ok(())
    }
}

fn is_untyped(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, _))
}

/// `None`: texts stay texts.
fn wanted_beside(expr: &Expr, schema: &DFSchema) -> Option<SqlType> {
    match known_type(expr, schema)? {
        sql_type if sql_type.arrow() == DataType::Utf8 => None,
        // A literal may have more digits than the column.
        SqlType::Numeric(_) => Some(SqlType::Numeric(None)),
        sql_type => Some(sql_type),
    }
}
