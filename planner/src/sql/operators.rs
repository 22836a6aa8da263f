//! Operators that DataFusion cannot type, or types otherwise: decided while SQL becomes a logical plan, by the types of
//! the operands.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, TypePlanner};
use datafusion::logical_expr::{Expr, ExprSchemable, lit};
use datafusion::sql::sqlparser::ast::{self, BinaryOperator};
use meridian_hyperfunctions::parts::extract;
use meridian_hyperfunctions::times::interval_multiply;
use meridian_proto::SqlType;

use super::arrays;
use super::environment::Environment;
use super::errors::external;
use super::functions::called;
use super::functions::convert::constant;
use super::json;
use super::rewrite::parse_quantified;
use super::types::cast_field;

/// Type names in casts.
#[derive(Debug)]
pub(crate) struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, data_type: &ast::DataType) -> Result<Option<FieldRef>> {
        let field = match data_type {
            // Object identifiers are plain texts here.
            ast::DataType::Regclass => SqlType::Text.field("cast", true),
            ast::DataType::Custom(name, _) => match name.to_string().to_ascii_lowercase().as_str() {
                "name" | "regclass" | "regtype" | "regproc" | "regnamespace" | "\"char\"" => {
                    SqlType::Text.field("cast", true)
                }
                "oid" => SqlType::Int8.field("cast", true),
                _ => cast_field(data_type).map_err(external)?,
            },
            _ => cast_field(data_type).map_err(external)?,
        };
        Ok(Some(Arc::new(field)))
    }
}

/// Binary operators of one statement.
#[derive(Debug)]
pub(crate) struct Operators(pub Arc<Environment>);

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if let BinaryOperator::Custom(name) = &expr.op
            && let Some(quantified) = parse_quantified(name)
        {
            let planned = arrays::plan(expr.left, quantified, expr.right, schema, &self.0.format)?;
            return Ok(PlannerResult::Planned(planned));
        }
        if let Some(planned) = json::plan(&expr, schema, &self.0.format)? {
            return Ok(PlannerResult::Planned(planned));
        }
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            // A parameter without a type gets that of the other side later.
            return Ok(PlannerResult::Original(expr));
        };
        let expr = self.type_literals(expr, &left, &right, schema)?;
        let (left, right) = (expr.left.get_type(schema)?, expr.right.get_type(schema)?);
        if is_missing(&expr.op, &left, &right) {
            return plan_err!("Cannot coerce arithmetic expression {left} {} {right} to valid types", expr.op);
        }
        Ok(match calendar(&expr, &left, &right)? {
            Some(planned) => PlannerResult::Planned(planned),
            None => PlannerResult::Original(expr),
        })
    }

    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(called("substring", args)?))
    }

    fn plan_overlay(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(called("overlay", args)?))
    }

    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(extract(args)))
    }
}

impl Operators {
    /// A bare text literal takes the type that its operator wants on that side.
    fn type_literals(
        &self,
        mut expr: RawBinaryExpr,
        left: &DataType,
        right: &DataType,
        schema: &DFSchema,
    ) -> Result<RawBinaryExpr> {
        if let Some(text) = bare_text(&expr.left)
            && let Some(wanted) = wanted_type(&expr.op, &expr.right, right, schema, true)
        {
            expr.left = self.literal(text, &wanted)?;
        } else if let Some(text) = bare_text(&expr.right)
            && let Some(wanted) = wanted_type(&expr.op, &expr.left, left, schema, false)
        {
            expr.right = self.literal(text, &wanted)?;
        }
        Ok(expr)
    }

    fn literal(&self, text: &str, wanted: &SqlType) -> Result<Expr> {
        let value = constant(text, wanted, &self.0.format)?;
        let field = wanted.field("lit", true);
        Ok(Expr::Literal(value, Some((&field).into())))
    }
}

fn bare_text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(text),
        _ => None,
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

/// What an untyped literal beside an operand of `other` is; `None`: it stays a text.
pub(super) fn wanted_type(
    op: &BinaryOperator,
    operand: &Expr,
    other: &DataType,
    schema: &DFSchema,
    literal_is_left: bool,
) -> Option<SqlType> {
    use BinaryOperator::{Divide, Minus, Modulo, Multiply, Plus};
    let is_text = matches!(other, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null);
    if is_text || bare_text(operand).is_some() {
        return None;
    }
    let (_, field) = operand.to_field(schema).ok()?;
    let same = SqlType::of_field(&field)?;
    // A literal may have more digits than the column.
    let same = if matches!(same, SqlType::Numeric(_)) { SqlType::Numeric(None) } else { same };
    if is_comparison(op) {
        return Some(same);
    }
    match (op, &same) {
        (Plus, SqlType::Timestamp | SqlType::Timestamptz | SqlType::Date | SqlType::Interval) => {
            Some(SqlType::Interval)
        }
        (Minus, SqlType::Interval) if !literal_is_left => Some(SqlType::Interval),
        (Minus, SqlType::Timestamp | SqlType::Timestamptz | SqlType::Date) => Some(same),
        (Multiply | Divide, SqlType::Interval) => Some(SqlType::Float8),
        (Plus | Minus | Multiply | Divide | Modulo, _) if other.is_numeric() => Some(same),
        _ => None,
    }
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), data_type))
}

fn binary(left: Expr, op: datafusion::logical_expr::Operator, right: Expr) -> Expr {
    datafusion::logical_expr::binary_expr(left, op, right)
}

/// Operators that PostgreSQL has not for these types, and DataFusion has.
fn is_missing(op: &BinaryOperator, left: &DataType, right: &DataType) -> bool {
    use BinaryOperator::{
        BitwiseAnd, BitwiseOr, Minus, Modulo, PGBitwiseShiftLeft, PGBitwiseShiftRight, PGBitwiseXor, Plus,
    };
    let is_date = |data_type: &DataType| *data_type == DataType::Date32;
    match op {
        Modulo => left.is_floating() || right.is_floating(),
        BitwiseAnd | BitwiseOr | PGBitwiseXor | PGBitwiseShiftLeft | PGBitwiseShiftRight => {
            [left, right].iter().any(|side| side.is_floating() || side.is_decimal())
        }
        Plus | Minus => (is_date(left) && *right == DataType::Int64) || (is_date(right) && *left == DataType::Int64),
        _ => false,
    }
}

/// Dates and intervals with numbers.
fn calendar(expr: &RawBinaryExpr, left: &DataType, right: &DataType) -> Result<Option<Expr>> {
    use BinaryOperator::{Divide, Minus, Multiply, Plus};
    use datafusion::logical_expr::Operator;
    let is_interval = |t: &DataType| matches!(t, DataType::Interval(_));
    let (l, r) = (&expr.left, &expr.right);
    let days = |number: &Expr| cast(number.clone(), DataType::Int32);
    Ok(Some(match (&expr.op, left, right) {
        (Plus, DataType::Date32, number) if number.is_integer() => called("date_add", vec![l.clone(), days(r)])?,
        (Plus, number, DataType::Date32) if number.is_integer() => called("date_add", vec![r.clone(), days(l)])?,
        (Minus, DataType::Date32, number) if number.is_integer() => called("date_subtract", vec![l.clone(), days(r)])?,
        (Minus, DataType::Date32, DataType::Date32) => called("date_difference", vec![l.clone(), r.clone()])?,
        // The sum of a date and an interval is a timestamp.
        (Plus, DataType::Date32, interval) if is_interval(interval) => {
            binary(cast(l.clone(), SqlType::Timestamp.arrow()), Operator::Plus, r.clone())
        }
        (Plus, interval, DataType::Date32) if is_interval(interval) => {
            binary(cast(r.clone(), SqlType::Timestamp.arrow()), Operator::Plus, l.clone())
        }
        (Minus, DataType::Date32, interval) if is_interval(interval) => {
            binary(cast(l.clone(), SqlType::Timestamp.arrow()), Operator::Minus, r.clone())
        }
        (Multiply, interval, number) if is_interval(interval) && number.is_numeric() => {
            interval_multiply().call(vec![l.clone(), r.clone()])
        }
        (Multiply, number, interval) if is_interval(interval) && number.is_numeric() => {
            interval_multiply().call(vec![r.clone(), l.clone()])
        }
        (Divide, interval, number) if is_interval(interval) && number.is_numeric() => {
            let inverse = binary(lit(1.0_f64), Operator::Divide, cast(r.clone(), DataType::Float64));
            interval_multiply().call(vec![l.clone(), inverse])
        }
        _ => return Ok(None),
    }))
}
