//! Where floating-point numbers meet numerics, PostgreSQL calculates with double precision
//! (<https://www.postgresql.org/docs/15/typeconv-oper.html>: the preferred type of its category), DataFusion with decimals.
//! This rule decides before types are coerced, so that `load > 90.0` is a comparison of doubles. So it does for sums of
//! integers.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Case, Cast, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Union, lit};
use datafusion::optimizer::AnalyzerRule;
use meridian_hyperfunctions::arithmetic::decimal_to_double;

use super::zeros;

/// Functions whose arguments take one common type.
pub(super) const COMMON_TYPE_FUNCTIONS: [&str; 4] = ["coalesce", "greatest", "least", "nullif"];

#[derive(Debug)]
pub(crate) struct Floats;

impl AnalyzerRule for Floats {
    fn name(&self) -> &str {
        "floats_with_numerics"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(rewrite_plan).data()
    }
}

fn rewrite_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let zeros = match plan {
        LogicalPlan::Union(union) => Transformed::no(rewrite_union(union)?),
        plan => zeros::of_plan(plan)?,
    };
    let plan = zeros.data;
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    let names = NamePreserver::new(&plan);
    let mut plan = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let rewritten =
            expr.transform_up(|expr| rewrite(expr, &schema)?.transform_data(|expr| Ok(zeros::of_expr(expr, &schema))))?;
        Ok(rewritten.update_data(|expr| name.restore(expr)))
    })?;
    plan.transformed |= zeros.transformed;
    if plan.transformed { plan.map_data(LogicalPlan::recompute_schema) } else { Ok(plan) }
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { mut left, op, mut right }) => {
            // Of the integers, too, a real takes none along: `real + int` is double precision.
            let types = (left.get_type(schema), right.get_type(schema));
            let widens = matches!(&types, (Ok(DataType::Float32), Ok(other)) | (Ok(other), Ok(DataType::Float32))
                if other.is_integer());
            let changed = if widens {
                *left = to_double(take(&mut left));
                *right = to_double(take(&mut right));
                true
            } else {
                unify([left.as_mut(), right.as_mut()], schema)
            };
            Ok(marked(Expr::BinaryExpr(BinaryExpr { left, op, right }), changed))
        }
        Expr::Between(mut between) => {
            let changed = unify([between.expr.as_mut(), between.low.as_mut(), between.high.as_mut()], schema);
            Ok(marked(Expr::Between(between), changed))
        }
        Expr::InList(InList { mut expr, mut list, negated }) => {
            let changed = unify(std::iter::once(expr.as_mut()).chain(&mut list), schema);
            Ok(marked(Expr::InList(InList { expr, list, negated }), changed))
        }
        Expr::Case(Case { expr, mut when_then_expr, mut else_expr }) => {
            let results = when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
            let changed = unify(results.chain(else_expr.as_mut().map(AsMut::as_mut)), schema);
            Ok(marked(Expr::Case(Case { expr, when_then_expr, else_expr }), changed))
        }
        Expr::ScalarFunction(mut function) if COMMON_TYPE_FUNCTIONS.contains(&function.func.name()) => {
            let changed = unify(&mut function.args, schema);
            Ok(marked(Expr::ScalarFunction(function), changed))
        }
        Expr::AggregateFunction(mut function) if function.func.name() == "sum" => {
            let changed = sum_as_numeric(&mut function.params.args, schema);
            Ok(marked(Expr::AggregateFunction(function), changed))
        }
        Expr::WindowFunction(mut function) if function.fun.name() == "sum" => {
            let changed = sum_as_numeric(&mut function.params.args, schema);
            Ok(marked(Expr::WindowFunction(function), changed))
        }
        expr => Ok(Transformed::no(expr)),
    }
}

/// The sum of int8 is a numeric, that of the smaller integers an int8. Decided here, since types are coerced more than
/// once, and an int4 that became an int8 would become a numeric the next time.
fn sum_as_numeric(arguments: &mut [Expr], schema: &DFSchema) -> bool {
    let [argument] = arguments else { return false };
    if !matches!(argument.get_type(schema), Ok(DataType::Int64)) {
        return false;
    }
    *argument = Expr::Cast(Cast::new(Box::new(take(argument)), DataType::Decimal128(28, 0)));
    true
}

fn marked(expr: Expr, changed: bool) -> Transformed<Expr> {
    if changed { Transformed::yes(expr) } else { Transformed::no(expr) }
}

/// Makes all of them doubles when floats and numerics are among them.
fn unify<'a>(operands: impl IntoIterator<Item = &'a mut Expr>, schema: &DFSchema) -> bool {
    let mut operands: Vec<_> = operands.into_iter().collect();
    let types: Vec<_> = operands.iter().filter_map(|operand| operand.get_type(schema).ok()).collect();
    let mixes = types.iter().any(DataType::is_floating) && types.iter().any(is_decimal);
    // An operand without a type is a parameter; its type comes from the others.
    if !mixes || types.len() < operands.len() {
        return false;
    }
    for operand in &mut operands {
        **operand = to_double(take(operand));
    }
    true
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, lit(0))
}

fn to_double(expr: Expr) -> Expr {
    match &expr {
        Expr::Literal(ScalarValue::Float64(_), _) => expr,
        // By its digits: the nearest double, as if it had been written as one.
        Expr::Literal(ScalarValue::Decimal128(Some(value), _, scale), _) => lit(decimal_to_double(*value, *scale)),
        _ => cast(expr),
    }
}

fn cast(expr: Expr) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), DataType::Float64))
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(..) | DataType::Decimal256(..))
}

/// Columns of a union that are floats here and numerics there are doubles everywhere.
fn rewrite_union(union: Union) -> Result<LogicalPlan> {
    let column = |input: &Arc<LogicalPlan>, index: usize| input.schema().field(index).data_type().clone();
    let mixed: Vec<usize> = (0..union.schema.fields().len())
        .filter(|index| {
            let types: Vec<_> = union.inputs.iter().map(|input| column(input, *index)).collect();
            types.iter().any(DataType::is_floating) && types.iter().any(is_decimal)
        })
        .collect();
    if mixed.is_empty() {
        return Ok(LogicalPlan::Union(union));
    }
    let inputs = union.inputs.into_iter().map(|input| doubled(input, &mixed)).collect::<Result<Vec<_>>>()?;
    Ok(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?))
}

fn doubled(input: Arc<LogicalPlan>, columns: &[usize]) -> Result<Arc<LogicalPlan>> {
    let schema = Arc::clone(input.schema());
    let exprs = schema.iter().enumerate().map(|(index, (qualifier, field))| {
        let column = Expr::Column((qualifier, field).into());
        if columns.contains(&index) && *field.data_type() != DataType::Float64 {
            cast(column).alias_qualified(qualifier.cloned(), field.name())
        } else {
            column
        }
    });
    Ok(Arc::new(LogicalPlanBuilder::from(input).project(exprs.collect::<Vec<_>>())?.build()?))
}
