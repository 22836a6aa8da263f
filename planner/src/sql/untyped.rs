//! Literals without a type in BETWEEN, IN and UNION, among the results of CASE and the arguments of COALESCE and its kin
//! are read as what they stand beside, as beside an operator. DataFusion would find a type that both can be brought into:
//! of a time and a text one that has no infinity. And what has to be a boolean is one.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Case, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, Projection, Union};
use datafusion::optimizer::AnalyzerRule;
use meridian_proto::SqlType;

use super::comparisons::{base_name, known_type};
use super::environment::Environment;
use super::errors::external;
use super::floats::COMMON_TYPE_FUNCTIONS;
use super::functions::convert::constant;
use super::values::common_type;
use crate::error::SqlError;

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
        if let LogicalPlan::Union(union) = plan {
            return self.union(union);
        }
        let mut schema = merge_schema(&plan.inputs());
        if let LogicalPlan::TableScan(scan) = &plan {
            schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
        }
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|expr| self.expr(expr, &schema))?;
            Ok(rewritten.update_data(|expr| name.restore(expr)))
        })?;
        if plan.transformed { plan.map_data(LogicalPlan::recompute_schema) } else { Ok(plan) }
    }

    /// Literals in the select lists of a union.
    fn union(&self, mut union: Union) -> Result<Transformed<LogicalPlan>> {
        let mut changed = false;
        for column in 0..union.schema.fields().len() {
            changed |= self.union_column(&mut union.inputs, column)?;
        }
        if changed {
            // The first one's types are those of the union.
            union = Union::try_new_with_loose_types(union.inputs)?;
        }
        Ok(marked_plan(LogicalPlan::Union(union), changed))
    }

    fn union_column(&self, inputs: &mut [Arc<LogicalPlan>], column: usize) -> Result<bool> {
        let types = inputs.iter().filter(|input| selected(input, column).is_none_or(|expr| !is_untyped(expr)));
        let types: Option<Vec<SqlType>> = types.map(|input| SqlType::of_field(input.schema().field(column))).collect();
        // A type of DataFusion's own.
        let Some(types) = types else { return Ok(false) };
        let is_text = |sql_type: &SqlType| sql_type.arrow() == DataType::Utf8;
        // Whatever else does not meet is told of when types are coerced.
        let has_texts = types.iter().any(is_text) && !types.iter().all(is_text);
        let wanted = match common_type(types.into_iter(), "UNION") {
            Ok(wanted) => wanted.and_then(read_as),
            Err(refusal) if has_texts => return Err(external(refusal)),
            Err(_) => None,
        };
        let Some(wanted) = wanted else { return Ok(false) };
        let mut changed = false;
        for input in inputs.iter_mut().filter(|input| selected(input, column).is_some_and(is_untyped)) {
            if let LogicalPlan::Projection(projection) = Arc::unwrap_or_clone(Arc::clone(input)) {
                let mut columns = projection.expr;
                let name = columns[column].schema_name().to_string();
                let mut literal = columns[column].clone().unalias();
                self.read(&mut literal, &wanted)?;
                columns[column] = literal.alias(name);
                *input = Arc::new(LogicalPlan::Projection(Projection::try_new(columns, projection.input)?));
                changed = true;
            }
        }
        Ok(changed)
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
            Expr::InList(InList { expr, mut list, negated }) if list.iter().any(is_untyped) => {
                let typed = std::iter::once(expr.as_ref()).chain(&list);
                let wanted = match wanted_among(typed, "IN", schema) {
                    Ok(wanted) => wanted,
                    // Numbers and times that are compared one by one.
                    Err(_) => wanted_beside(&expr, schema),
                };
                let changed = self.read_all(list.iter_mut(), wanted.as_ref())?;
                Ok(marked(Expr::InList(InList { expr, list, negated }), changed))
            }
            Expr::BinaryExpr(BinaryExpr {
                mut left,
                op: op @ (Operator::IsDistinctFrom | Operator::IsNotDistinctFrom),
                mut right,
            }) => {
                let (literal, other) = if is_untyped(&left) { (&mut left, &right) } else { (&mut right, &left) };
                let wanted = wanted_beside(other, schema).filter(|_| is_untyped(literal));
                if let Some(wanted) = &wanted {
                    self.read(literal, wanted)?;
                }
                Ok(marked(Expr::BinaryExpr(BinaryExpr { left, op, right }), wanted.is_some()))
            }
            Expr::Case(mut case) => {
                let changed = self.case(&mut case, schema)?;
                Ok(marked(Expr::Case(case), changed))
            }
            Expr::ScalarFunction(mut function) if COMMON_TYPE_FUNCTIONS.contains(&function.func.name()) => {
                let what = function.func.name().to_ascii_uppercase();
                let wanted = wanted_among(function.args.iter(), &what, schema)?;
                let changed = self.read_all(function.args.iter_mut(), wanted.as_ref())?;
                Ok(marked(Expr::ScalarFunction(function), changed))
            }
            expr => {
                check_booleans(&expr, schema)?;
                Ok(Transformed::no(expr))
            }
        }
    }

    fn case(&self, case: &mut Case, schema: &DFSchema) -> Result<bool> {
        let mut changed = false;
        if let Some(operand) = &case.expr {
            let wanted = wanted_beside(operand, schema);
            let conditions = case.when_then_expr.iter_mut().map(|(when, _)| when.as_mut());
            changed |= self.read_all(conditions, wanted.as_ref())?;
        } else {
            let mut conditions = case.when_then_expr.iter().map(|(when, _)| when.as_ref());
            conditions.try_for_each(|when| check_boolean(when, "CASE/WHEN", schema))?;
        }
        let results = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr).map(AsRef::as_ref);
        let wanted = wanted_among(results, "CASE", schema)?;
        let results = case.when_then_expr.iter_mut().map(|(_, then)| then).chain(&mut case.else_expr);
        changed |= self.read_all(results.map(AsMut::as_mut), wanted.as_ref())?;
        Ok(changed)
    }

    /// Reads the literals among them; whether there were any.
    fn read_all<'a>(&self, exprs: impl Iterator<Item = &'a mut Expr>, wanted: Option<&SqlType>) -> Result<bool> {
        let Some(wanted) = wanted else { return Ok(false) };
        let mut changed = false;
        for expr in exprs.filter(|expr| is_untyped(expr)) {
            self.read(expr, wanted)?;
            changed = true;
        }
        Ok(changed)
    }

    fn read(&self, expr: &mut Expr, wanted: &SqlType) -> Result<()> {
        if let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = expr {
            let value = constant(text, wanted, &self.0.format)?;
            *expr = Expr::Literal(value, Some((&wanted.field("lit", true)).into()));
        }
        Ok(())
    }
}

fn marked_plan(plan: LogicalPlan, changed: bool) -> Transformed<LogicalPlan> {
    if changed { Transformed::yes(plan) } else { Transformed::no(plan) }
}

fn marked(expr: Expr, changed: bool) -> Transformed<Expr> {
    if changed { Transformed::yes(expr) } else { Transformed::no(expr) }
}

/// What has to be a boolean, and is of another type.
fn check_booleans(expr: &Expr, schema: &DFSchema) -> Result<()> {
    match expr {
        Expr::Not(inner) => check_boolean(inner, "NOT", schema),
        Expr::IsTrue(inner) => check_boolean(inner, "IS TRUE", schema),
        Expr::IsFalse(inner) => check_boolean(inner, "IS FALSE", schema),
        Expr::IsUnknown(inner) => check_boolean(inner, "IS UNKNOWN", schema),
        Expr::IsNotTrue(inner) => check_boolean(inner, "IS NOT TRUE", schema),
        Expr::IsNotFalse(inner) => check_boolean(inner, "IS NOT FALSE", schema),
        Expr::IsNotUnknown(inner) => check_boolean(inner, "IS NOT UNKNOWN", schema),
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            check_boolean(left, &op.to_string(), schema)?;
            check_boolean(right, &op.to_string(), schema)
        }
        _ => Ok(()),
    }
}

fn check_boolean(expr: &Expr, what: &str, schema: &DFSchema) -> Result<()> {
    match known_type(expr, schema) {
        None | Some(SqlType::Bool) => Ok(()),
        Some(other) => {
            let message = format!("argument of {what} must be type boolean, not type {}", base_name(&other));
            Err(external(SqlError::new("42804", message)))
        }
    }
}

/// The type that literals among these have: the common one of the others. `None`: texts stay texts. 42804 where the others
/// have none.
fn wanted_among<'a>(
    exprs: impl Iterator<Item = &'a Expr> + Clone,
    what: &str,
    schema: &DFSchema,
) -> Result<Option<SqlType>> {
    if !exprs.clone().any(is_untyped) {
        return Ok(None);
    }
    let mut known = Vec::new();
    for expr in exprs.filter(|expr| !is_untyped(expr)) {
        match known_type(expr, schema) {
            Some(sql_type) => known.push(sql_type),
            // A parameter, or a type of DataFusion's own: it is left to the rules that follow.
            None => return Ok(None),
        }
    }
    let common = common_type(known.into_iter(), what).map_err(external)?;
    Ok(common.and_then(read_as))
}

/// What a literal is read as where a value of this type is wanted; `None`: it stays a text.
fn read_as(sql_type: SqlType) -> Option<SqlType> {
    match sql_type {
        sql_type if sql_type.arrow() == DataType::Utf8 => None,
        // A literal may have more digits than the column.
        SqlType::Numeric(_) => Some(SqlType::Numeric(None)),
        sql_type => Some(sql_type),
    }
}

/// What a plan's select list has in this place.
fn selected(plan: &LogicalPlan, column: usize) -> Option<&Expr> {
    match plan {
        LogicalPlan::Projection(projection) => match projection.expr.get(column)? {
            Expr::Alias(alias) => Some(&alias.expr),
            expr => Some(expr),
        },
        _ => None,
    }
}

fn is_untyped(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, _))
}

/// `None`: texts stay texts.
fn wanted_beside(expr: &Expr, schema: &DFSchema) -> Option<SqlType> {
    known_type(expr, schema).and_then(read_as)
}
