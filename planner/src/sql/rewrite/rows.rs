//! Row values: comparisons of two rows are put as comparisons of their columns.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr};

use crate::error::SqlError;

/// `(a, b) op (c, d)` and `(a, b) IN ((c, d), ...)`. `None`: no row is among the operands.
pub(super) fn compare_rows(expr: &Expr) -> Result<Option<Expr>, SqlError> {
    match expr {
        Expr::BinaryOp { left, op, right } => match (row(left), row(right)) {
            (Some(left), Some(right)) => compare(left, op, right).map(Some),
            _ => Ok(None),
        },
        Expr::InList { expr, list, negated } => {
            let Some(left) = row(expr) else { return Ok(None) };
            let equal = |item: &Expr| match row(item) {
                Some(right) => compare(left, &BinaryOperator::Eq, right),
                None => Err(unsupported()),
            };
            let equal = list.iter().map(equal).collect::<Result<Vec<_>, _>>()?;
            let Some(found) = join(equal, &BinaryOperator::Or) else { return Err(unsupported()) };
            let found = Expr::Nested(Box::new(found));
            Ok(Some(if *negated {
                let op = datafusion::sql::sqlparser::ast::UnaryOperator::Not;
                Expr::Nested(Box::new(Expr::UnaryOp { op, expr: Box::new(found) }))
            } else {
                found
            }))
        }
        _ => Ok(None),
    }
}

/// What is left of rows after all comparisons were put otherwise.
pub(super) fn unsupported() -> SqlError {
    SqlError::unsupported("row values are not supported here")
}

fn row(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Tuple(columns) => Some(columns),
        Expr::Nested(inner) => row(inner),
        _ => None,
    }
}

fn compare(left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Result<Expr, SqlError> {
    if left.len() != right.len() {
        return Err(SqlError::new("42601", "unequal number of entries in row expressions"));
    }
    let each = |op: &BinaryOperator| left.iter().zip(right).map(|(l, r)| binary(l, op, r)).collect::<Vec<_>>();
    let whole = match op {
        BinaryOperator::Eq => join(each(op), &BinaryOperator::And),
        BinaryOperator::NotEq => join(each(op), &BinaryOperator::Or),
        BinaryOperator::Lt | BinaryOperator::LtEq => ordered(left, &BinaryOperator::Lt, op, right),
        BinaryOperator::Gt | BinaryOperator::GtEq => ordered(left, &BinaryOperator::Gt, op, right),
        _ => None,
    };
    whole.map(|whole| Expr::Nested(Box::new(whole))).ok_or_else(unsupported)
}

/// `a < c OR (a = c AND b <= d)`: the last columns are compared by the operator itself.
fn ordered(left: &[Expr], strict: &BinaryOperator, op: &BinaryOperator, right: &[Expr]) -> Option<Expr> {
    let ([l, left @ ..], [r, right @ ..]) = (left, right) else { return None };
    if left.is_empty() {
        return Some(binary(l, op, r));
    }
    let rest = Expr::Nested(Box::new(ordered(left, strict, op, right)?));
    let equal = binary(&binary(l, &BinaryOperator::Eq, r), &BinaryOperator::And, &rest);
    Some(binary(&binary(l, strict, r), &BinaryOperator::Or, &Expr::Nested(Box::new(equal))))
}

fn join(parts: Vec<Expr>, op: &BinaryOperator) -> Option<Expr> {
    parts.into_iter().reduce(|left, right| binary(&left, op, &right))
}

fn binary(left: &Expr, op: &BinaryOperator, right: &Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left.clone()), op: op.clone(), right: Box::new(right.clone()) }
}
