//! Zero equals minus zero, as IEEE 754 and PostgreSQL have it, also where values are told apart by their bits or their
//! order instead of being compared: in IN lists, in groups, in DISTINCT and in windows. There a float has zero added, which
//! makes one zero of the two.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, Alias, Case, InList, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, disjunction, merge_schema};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, binary_expr, lit,
};

/// Elements of a list that are compared one by one at most; a longer one with parameters is left as it is.
const COMPARED_MAX: usize = 64;

/// The plan with one zero in its groups or distinct rows.
pub(super) fn of_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => of_groups(aggregate),
        LogicalPlan::Distinct(Distinct::All(input)) if input.schema().fields().iter().any(|f| is_floating(f)) => {
            of_rows(Arc::unwrap_or_clone(input))
        }
        plan => Ok(Transformed::no(plan)),
    }
}

fn of_groups(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new_for_projection();
    let schema = merge_schema(&[&aggregate.input]);
    let is_open = |group: &Expr| is_float(group, &schema) && !is_sum_with_zero(group);
    if !aggregate.group_expr.iter().any(is_open) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let of_group = |group: Expr| {
        let name = names.save(&group);
        name.restore(with_one_zero(group, &schema))
    };
    let groups = aggregate.group_expr.into_iter().map(of_group).collect();
    let aggregate = Aggregate::try_new(aggregate.input, groups, aggregate.aggr_expr)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

fn of_rows(input: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = Arc::clone(input.schema());
    if let LogicalPlan::Projection(projection) = &input
        && projection.expr.iter().all(|expr| !is_float(expr, projection.input.schema()) || is_sum_with_zero(expr))
    {
        return Ok(Transformed::no(LogicalPlan::Distinct(Distinct::All(Arc::new(input)))));
    }
    let names = NamePreserver::new_for_projection();
    let of_column = |column: Expr| {
        let name = names.save(&column);
        name.restore(with_one_zero(column, &schema))
    };
    let columns = schema.columns().into_iter().map(Expr::Column).map(of_column);
    LogicalPlanBuilder::from(input).project(columns)?.distinct()?.build().map(Transformed::yes)
}

/// The expression with one zero wherever it tells values apart.
pub(super) fn of_expr(mut expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let changed = match &mut expr {
        Expr::InList(list) if is_float(&list.expr, schema) => {
            let is_known = list.list.iter().all(|item| matches!(item, Expr::Literal(..)));
            if !is_known && list.list.len() <= COMPARED_MAX {
                return Transformed::yes(comparisons(list));
            }
            add_zeros(list)
        }
        Expr::Case(case) => of_case(case, schema),
        Expr::AggregateFunction(AggregateFunction { params, .. }) if params.distinct => each(&mut params.args, schema),
        Expr::ScalarFunction(function) if function.func.name() == "nullif" => each(&mut function.args, schema),
        Expr::WindowFunction(function) => of_window(function, schema),
        _ => false,
    };
    if changed { Transformed::yes(expr) } else { Transformed::no(expr) }
}

/// Each zero among the literals stands for both.
fn add_zeros(InList { list, .. }: &mut InList) -> bool {
    let signs: Vec<bool> = list.iter().filter_map(zero_sign).collect();
    let missing: Vec<_> = [false, true].into_iter().filter(|sign| !signs.is_empty() && !signs.contains(sign)).collect();
    list.extend(missing.iter().map(|is_negative| lit(if *is_negative { -0.0_f64 } else { 0.0 })));
    !missing.is_empty()
}

/// What is not known yet may be a zero.
fn comparisons(InList { expr, list, negated }: &InList) -> Expr {
    let (compare, join): (_, fn(_) -> _) =
        if *negated { (Operator::NotEq, conjunction) } else { (Operator::Eq, disjunction) };
    let compared = list.iter().map(|item| binary_expr(Expr::clone(expr), compare, item.clone()));
    join(compared).unwrap_or_else(|| lit(*negated))
}

/// Whether a literal that is zero is a negative one; `None` for others.
fn zero_sign(expr: &Expr) -> Option<bool> {
    let Expr::Literal(value, _) = expr else { return None };
    match value {
        ScalarValue::Float64(Some(value)) if *value == 0.0 => Some(value.is_sign_negative()),
        ScalarValue::Float32(Some(value)) if *value == 0.0 => Some(value.is_sign_negative()),
        ScalarValue::Decimal128(Some(0), ..)
        | ScalarValue::Int64(Some(0))
        | ScalarValue::Int32(Some(0))
        | ScalarValue::Int16(Some(0)) => Some(false),
        _ => None,
    }
}

/// `CASE x WHEN 0 ...` compares as lists do.
fn of_case(case: &mut Case, schema: &DFSchema) -> bool {
    let Some(subject) = case.expr.as_mut().filter(|subject| is_float(subject, schema)) else { return false };
    let mut changed = one(subject, schema);
    for (when, _) in &mut case.when_then_expr {
        changed |= one(when, schema);
    }
    changed
}

fn of_window(function: &mut WindowFunction, schema: &DFSchema) -> bool {
    let mut changed = each(&mut function.params.partition_by, schema);
    for sort in &mut function.params.order_by {
        changed |= one(&mut sort.expr, schema);
    }
    changed
}

fn each(exprs: &mut [Expr], schema: &DFSchema) -> bool {
    exprs.iter_mut().fold(false, |changed, expr| one(expr, schema) | changed)
}

fn one(expr: &mut Expr, schema: &DFSchema) -> bool {
    if !is_float(expr, schema) || is_sum_with_zero(expr) {
        return false;
    }
    *expr = with_one_zero(std::mem::replace(expr, lit(0)), schema);
    true
}

/// A float with zero added; anything else as it is.
fn with_one_zero(expr: Expr, schema: &DFSchema) -> Expr {
    match expr.get_type(schema) {
        _ if is_sum_with_zero(&expr) => expr,
        Ok(DataType::Float64) => binary_expr(expr, Operator::Plus, lit(0.0_f64)),
        Ok(DataType::Float32) => binary_expr(expr, Operator::Plus, lit(0.0_f32)),
        _ => expr,
    }
}

/// Rules are applied more than once.
fn is_sum_with_zero(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(Alias { expr, .. }) => is_sum_with_zero(expr),
        Expr::BinaryExpr(BinaryExpr { op: Operator::Plus, right, .. }) => {
            matches!(&**right, Expr::Literal(ScalarValue::Float64(_) | ScalarValue::Float32(_), _))
                && zero_sign(right) == Some(false)
        }
        _ => false,
    }
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|data_type| data_type.is_floating())
}

fn is_floating(field: &Field) -> bool {
    field.data_type().is_floating()
}
