//! Types of `value op ANY (array)` and ALL: a literal or parameter without a type takes that of the other side, numbers
//! of several types meet in a common one.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, Placeholder};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{Expr, ExprSchemable};
use meridian_pgtypes::Format;
use meridian_proto::SqlType;

use super::comparisons::{known_type, no_operator};
use super::errors::external;
use super::functions::convert::constant;
use super::functions::quantified::{Comparison, quantified};
use crate::error::SqlError;

/// `value symbol ANY (array)`, typed.
pub(super) fn plan(
    value: Expr,
    (symbol, all): (&str, bool),
    array: Expr,
    schema: &DFSchema,
    format: &Format,
) -> Result<Expr> {
    let Some(comparison) = Comparison::parse(symbol) else {
        let quantifier = if all { "ALL" } else { "ANY" };
        return Err(external(SqlError::unsupported(format!(
            "operator {symbol} {quantifier} (array) is not supported"
        ))));
    };
    let value_type = known_type(&value, schema);
    let element_type = match known_type(&array, schema) {
        Some(SqlType::Array(element)) => Some(*element),
        Some(_) => {
            let message = "op ANY/ALL (array) requires array on right side";
            return Err(external(SqlError::new("42809", message)));
        }
        None => None,
    };
    let fallback = value_type.clone().or_else(|| element_type.clone()).map_or(SqlType::Text, unlimited);
    let value = typed(value, value_type.as_ref(), element_type.clone().map_or(fallback.clone(), unlimited), format)?;
    let array = typed(array, element_type.as_ref(), SqlType::Array(Box::new(fallback.clone())), format)?;
    let left = value_type.unwrap_or_else(|| element_type.clone().unwrap_or_else(|| fallback.clone()));
    let right = element_type.unwrap_or(fallback);
    let (value, array) = common(value, array, schema)?.ok_or_else(|| no_operator(Some(&left), symbol, Some(&right)))?;
    Ok(quantified(value, comparison, all, array))
}

/// Literals may have more digits, and more letters, than the column.
fn unlimited(sql_type: SqlType) -> SqlType {
    match sql_type {
        SqlType::Numeric(_) => SqlType::Numeric(None),
        SqlType::Varchar(_) => SqlType::Text,
        other => other,
    }
}

/// An operand without a type as one of `wanted`.
fn typed(expr: Expr, known: Option<&SqlType>, wanted: SqlType, format: &Format) -> Result<Expr> {
    if known.is_some() {
        return Ok(expr);
    }
    let field = wanted.field("lit", true);
    let literal = |value: ScalarValue| Expr::Literal(value, Some((&field).into()));
    Ok(match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => literal(constant(&text, &wanted, format)?),
        Expr::Literal(..) => literal(ScalarValue::try_from(field.data_type())?),
        Expr::Placeholder(Placeholder { id, field: None }) => {
            Expr::Placeholder(Placeholder { id, field: Some(Arc::new(field.with_name(""))) })
        }
        expr => Expr::Cast(Cast::new(Box::new(expr), wanted.arrow())),
    })
}

/// Both in one type. `None`: there is no operator between them.
fn common(value: Expr, array: Expr, schema: &DFSchema) -> Result<Option<(Expr, Expr)>> {
    let (left, list) = (value.get_type(schema)?, array.get_type(schema)?);
    let DataType::List(item) = &list else { return Ok(None) };
    let right = item.data_type().clone();
    if left == right {
        return Ok(Some((value, array)));
    }
    if !(left.is_numeric() && right.is_numeric()) {
        return Ok(None);
    }
    // A numeric beside a float is compared as a double.
    let wanted = if left.is_floating() || right.is_floating() {
        DataType::Float64
    } else {
        match comparison_coercion(&left, &right) {
            Some(wanted) => wanted,
            None => return Ok(None),
        }
    };
    let cast = |expr: Expr, from: &DataType, to: DataType| {
        if *from == to { expr } else { Expr::Cast(Cast::new(Box::new(expr), to)) }
    };
    let list_type = DataType::List(Arc::new(Field::new("item", wanted.clone(), true)));
    Ok(Some((cast(value, &left, wanted), cast(array, &list, list_type))))
}
