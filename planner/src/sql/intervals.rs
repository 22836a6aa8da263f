//! Intervals that PostgreSQL takes for equal are equal in groups, DISTINCT and ORDER BY, too: `1 mon` and `30 days`. What
//! is compared is their order, what is shown is one of those given.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::functions_aggregate::first_last::first_value;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, ExprSchemable, LogicalPlan, Projection, lit};
use meridian_hyperfunctions::times::interval_order;

pub(super) fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_))
}

/// What an interval is compared by.
pub(super) fn ordered(interval: Expr) -> Expr {
    interval_order().call(vec![interval])
}

/// ORDER BY an interval is by its order.
pub(super) fn sort_by_order(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Sort(mut sort) = plan else { return Ok(plan) };
    for key in &mut sort.expr {
        if is_interval(&key.expr.get_type(sort.input.schema())?) {
            key.expr = ordered(std::mem::replace(&mut key.expr, lit(0)));
        }
    }
    Ok(LogicalPlan::Sort(sort))
}

/// GROUP BY and DISTINCT of an interval are by its order.
pub(super) fn group_by_order(plan: LogicalPlan) -> Result<LogicalPlan> {
    let has_interval = |plan: &LogicalPlan| plan.schema().fields().iter().any(|field| is_interval(field.data_type()));
    match plan {
        LogicalPlan::Distinct(Distinct::All(input)) if has_interval(&input) => {
            let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
            group(Aggregate::try_new(input, columns, vec![])?)
        }
        LogicalPlan::Aggregate(aggregate) if has_interval(aggregate.input.as_ref()) => group(aggregate),
        plan => Ok(plan),
    }
}

fn group(aggregate: Aggregate) -> Result<LogicalPlan> {
    let Aggregate { input, group_expr, mut aggr_expr, schema, .. } = aggregate;
    let is_set = group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)));
    let mut keys = group_expr.clone();
    let mut output: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
    let mut changed = false;
    for (index, expr) in group_expr.into_iter().enumerate() {
        if is_set || !is_interval(&expr.get_type(input.schema())?) {
            continue;
        }
        let (key, value) = (format!("interval_order_{index}"), format!("interval_value_{index}"));
        let expr = expr.unalias();
        keys[index] = ordered(expr.clone()).alias(key);
        aggr_expr.push(first_value(expr, vec![]).alias(&value));
        let (qualifier, field) = schema.qualified_field(index);
        let value = Expr::Column(datafusion::common::Column::new_unqualified(value));
        output[index] = value.alias_qualified(qualifier.cloned(), field.name());
        changed = true;
    }
    let aggregate = Aggregate::try_new(input, keys, aggr_expr)?;
    if !changed {
        return Ok(LogicalPlan::Aggregate(aggregate));
    }
    let input = Arc::new(LogicalPlan::Aggregate(aggregate));
    Ok(LogicalPlan::Projection(Projection::try_new(output, input)?))
}
