//! WITH RECURSIVE: both terms give columns of the same types. DataFusion compares their fields with all that is noted on
//! them, which `n` and `n + 1` do not share; here both get fields that say the non-recursive term's SQL types.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, RecursiveQuery};
use datafusion::optimizer::AnalyzerRule;
use meridian_proto::SqlType;

use super::functions::typed::typed;

#[derive(Debug)]
pub(crate) struct RecursiveTerms;

impl AnalyzerRule for RecursiveTerms {
    fn name(&self) -> &str {
        "types_of_recursive_terms"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::RecursiveQuery(query) => Ok(Transformed::yes(same_fields(query)?)),
            // What reads a changed plan knows its fields.
            plan => Transformed::no(plan).map_data(LogicalPlan::recompute_schema),
        });
        rewritten.data()
    }
}

fn same_fields(query: RecursiveQuery) -> Result<LogicalPlan> {
    let schema = Arc::clone(query.static_term.schema());
    let of_term = |term: &Arc<LogicalPlan>| -> Result<Arc<LogicalPlan>> {
        let column = |index: usize| {
            let (declared, name) = (schema.field(index), schema.field(index).name());
            let (qualifier, field) = term.schema().qualified_field(index);
            let column = Expr::Column(Column::from((qualifier, field)));
            // DataFusion cast the recursive term to the other's types when it planned it.
            match SqlType::of_field(declared).filter(|sql_type| sql_type.arrow() == *field.data_type()) {
                Some(sql_type) => typed(column, sql_type).alias(name),
                None => column.alias(name),
            }
        };
        let columns: Vec<_> = (0..schema.fields().len()).map(column).collect();
        Ok(Arc::new(LogicalPlanBuilder::from(Arc::clone(term)).project(columns)?.build()?))
    };
    let (static_term, recursive_term) = (of_term(&query.static_term)?, of_term(&query.recursive_term)?);
    let query = RecursiveQuery::try_new(query.name, static_term, recursive_term, query.is_distinct)?;
    Ok(LogicalPlan::RecursiveQuery(query))
}
