//! Operators with a jsonb among their operands: those that there are, and the names of the others.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::planner::RawBinaryExpr;
use datafusion::sql::sqlparser::ast::BinaryOperator;
use meridian_pgtypes::Format;
use meridian_proto::SqlType;

use super::comparisons::{known_type, no_operator};
use super::errors::external;
use super::functions::convert::constant;
use super::functions::json::json_get;
use crate::error::SqlError;

/// `None`: an operator that is not jsonb's.
pub(super) fn plan(expr: &RawBinaryExpr, schema: &DFSchema, format: &Format) -> Result<Option<Expr>> {
    use BinaryOperator::{
        Arrow, ArrowAt, AtArrow, AtAt, AtQuestion, HashArrow, HashLongArrow, HashMinus, LongArrow, Question,
        QuestionAnd, QuestionPipe, StringConcat,
    };
    if !matches!(
        expr.op,
        Arrow
            | ArrowAt
            | AtArrow
            | AtAt
            | AtQuestion
            | HashArrow
            | HashLongArrow
            | HashMinus
            | LongArrow
            | Question
            | QuestionAnd
            | QuestionPipe
            | StringConcat
    ) {
        return Ok(None);
    }
    let (left, right) = (known_type(&expr.left, schema), known_type(&expr.right, schema));
    let is_jsonb = |t: &Option<SqlType>| *t == Some(SqlType::Jsonb);
    match &expr.op {
        Arrow | LongArrow | HashArrow | HashLongArrow if is_jsonb(&left) => {}
        StringConcat if is_jsonb(&left) && matches!(right, None | Some(SqlType::Jsonb)) => return refused(&expr.op),
        StringConcat if is_jsonb(&right) && left.is_none() => return refused(&expr.op),
        AtArrow | ArrowAt if is_jsonb(&left) || is_jsonb(&right) => return refused(&expr.op),
        Question | QuestionAnd | QuestionPipe | AtQuestion | AtAt | HashMinus if is_jsonb(&left) => {
            return refused(&expr.op);
        }
        Arrow | LongArrow | HashArrow | HashLongArrow | Question | QuestionAnd | QuestionPipe | AtQuestion | AtAt
        | HashMinus => {
            return Err(no_operator(left.as_ref(), &expr.op.to_string(), right.as_ref()));
        }
        _ => return Ok(None),
    }
    let takes_path = matches!(expr.op, HashArrow | HashLongArrow);
    let place = place(&expr.right, right.as_ref(), takes_path, format)?;
    let Some(place) = place else {
        return Err(no_operator(left.as_ref(), &expr.op.to_string(), right.as_ref()));
    };
    Ok(Some(json_get(expr.left.clone(), place, matches!(expr.op, LongArrow | HashLongArrow))))
}

fn refused(op: &BinaryOperator) -> Result<Option<Expr>> {
    Err(external(SqlError::unsupported(format!("operator {op} of jsonb is not supported"))))
}

/// The key, index or path as [`json_get`] takes it. `None`: of another type.
fn place(expr: &Expr, known: Option<&SqlType>, takes_path: bool, format: &Format) -> Result<Option<Expr>> {
    let path = SqlType::Array(Box::new(SqlType::Text));
    Ok(Some(match known {
        None => match expr {
            Expr::Literal(ScalarValue::Utf8(Some(text)), _) if takes_path => {
                Expr::Literal(constant(text, &path, format)?, None)
            }
            Expr::Literal(ScalarValue::Utf8(_), _) if !takes_path => expr.clone(),
            expr => {
                let wanted = if takes_path { path.arrow() } else { DataType::Utf8 };
                Expr::Cast(Cast::new(Box::new(expr.clone()), wanted))
            }
        },
        Some(SqlType::Text | SqlType::Varchar(_)) if !takes_path => expr.clone(),
        Some(SqlType::Int2 | SqlType::Int4 | SqlType::Int8) if !takes_path => {
            Expr::Cast(Cast::new(Box::new(expr.clone()), DataType::Int64))
        }
        Some(SqlType::Array(element)) if takes_path && element.arrow() == DataType::Utf8 => expr.clone(),
        Some(_) => return Ok(None),
    }))
}
