//! VALUES lists of several rows: each column gets the one type that PostgreSQL would find for it
//! (<https://www.postgresql.org/docs/15/typeconv-union-case.html>), as casts in the query's tree. DataFusion wants the
//! rows to agree in all that is noted on their fields, which `1.0::float8` and `2.0` do not.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::{self, CastKind, SetExpr, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use meridian_proto::SqlType;
use meridian_proto::types::NUMERIC_UNLIMITED;

use super::comparisons::base_name;
use crate::error::SqlError;

/// Plans one cell without any columns in sight. `None`: it needs some.
pub(super) type PlanCell<'a> = &'a dyn Fn(&ast::Expr) -> Option<Expr>;

/// Gives each column of each VALUES list in `query` one type.
pub(super) fn unify_values(query: &mut ast::Query, plan: PlanCell) -> Result<(), SqlError> {
    match query.visit(&mut Unifier { plan }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Unifier<'a> {
    plan: PlanCell<'a>,
}

impl VisitorMut for Unifier<'_> {
    type Break = Box<SqlError>;

    fn post_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<Self::Break> {
        match self.body(&mut query.body) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

impl Unifier<'_> {
    fn body(&self, body: &mut SetExpr) -> Result<(), SqlError> {
        match body {
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left)?;
                self.body(right)
            }
            SetExpr::Values(values) if values.rows.len() > 1 => {
                let columns = values.rows[0].content.len();
                if values.rows.iter().any(|row| row.content.len() != columns) {
                    return Err(SqlError::new("42601", "VALUES lists must all be the same length"));
                }
                (0..columns).try_for_each(|column| self.column(values, column))
            }
            _ => Ok(()),
        }
    }

    fn column(&self, values: &mut ast::Values, column: usize) -> Result<(), SqlError> {
        let schema = DFSchema::empty();
        let mut types: Vec<Option<SqlType>> = Vec::with_capacity(values.rows.len());
        let mut notes = Vec::with_capacity(values.rows.len());
        for row in &values.rows {
            let Some(cell) = (self.plan)(&row.content[column]) else { return Ok(()) };
            let Ok((_, field)) = cell.to_field(&schema) else { return Ok(()) };
            notes.push((field.data_type().clone(), field.metadata().clone()));
            types.push(match &cell {
                Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, _) => None,
                _ if *field.data_type() == DataType::Null => None,
                _ => SqlType::of_field(&field),
            });
        }
        if notes.windows(2).all(|pair| pair[0] == pair[1]) {
            return Ok(());
        }
        let has_untyped = types.iter().any(Option::is_none);
        let wanted = match common_type(types.into_iter().flatten(), "VALUES")? {
            // The length is that of the typed ones; it would cut the others.
            Some(SqlType::Varchar(Some(_))) if has_untyped => SqlType::Varchar(None),
            Some(SqlType::Char(_)) | None if has_untyped => SqlType::Text,
            wanted => wanted.unwrap_or(SqlType::Text),
        };
        let Some(wanted) = data_type(&wanted) else { return Ok(()) };
        for row in &mut values.rows {
            row.content[column] = ast::Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(row.content[column].clone()),
                data_type: wanted.clone(),
                array: false,
                format: None,
            };
        }
        Ok(())
    }
}

fn data_type(sql_type: &SqlType) -> Option<ast::DataType> {
    let text = sql_type.to_string();
    Parser::new(&PostgreSqlDialect {}).try_with_sql(&text).ok()?.parse_data_type().ok()
}

/// The type that values of these types meet in; `None` when there is none. 42804 when they cannot.
pub(super) fn common_type(types: impl Iterator<Item = SqlType>, what: &str) -> Result<Option<SqlType>, SqlError> {
    let mut common: Option<SqlType> = None;
    for next in types {
        common = Some(match common {
            None => next,
            Some(before) => meet(&before, &next).ok_or_else(|| {
                let (before, next) = (base_name(&before), base_name(&next));
                SqlError::new("42804", format!("{what} types {before} and {next} cannot be matched"))
            })?,
        });
    }
    Ok(common)
}

fn meet(left: &SqlType, right: &SqlType) -> Option<SqlType> {
    if left == right {
        return Some(left.clone());
    }
    if let (Some(a), Some(b)) = (number_rank(left), number_rank(right)) {
        const NUMERIC: u8 = 3;
        return Some(match a.max(b) {
            NUMERIC => wider_numeric(left, right),
            rank if rank == a => left.clone(),
            _ => right.clone(),
        });
    }
    if let (Some(a), Some(b)) = (time_rank(left), time_rank(right)) {
        return Some(if a > b { left.clone() } else { right.clone() });
    }
    match (left, right) {
        // Of one type with several lengths: the type without length. Text is what any of them becomes.
        (SqlType::Varchar(_), SqlType::Varchar(_)) => Some(SqlType::Varchar(None)),
        (
            SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_),
            SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_),
        ) => Some(SqlType::Text),
        _ => None,
    }
}

fn number_rank(sql_type: &SqlType) -> Option<u8> {
    Some(match sql_type {
        SqlType::Int2 => 0,
        SqlType::Int4 => 1,
        SqlType::Int8 => 2,
        SqlType::Numeric(_) => 3,
        SqlType::Float4 => 4,
        SqlType::Float8 => 5,
        _ => return None,
    })
}

fn time_rank(sql_type: &SqlType) -> Option<u8> {
    Some(match sql_type {
        SqlType::Date => 0,
        SqlType::Timestamp => 1,
        SqlType::Timestamptz => 2,
        _ => return None,
    })
}

/// Room for the digits of both before and behind the point.
fn wider_numeric(left: &SqlType, right: &SqlType) -> SqlType {
    let limits = |sql_type: &SqlType| match sql_type {
        SqlType::Int2 => (5, 0),
        SqlType::Int4 => (10, 0),
        SqlType::Int8 => (19, 0),
        SqlType::Numeric(Some((precision, scale))) => (i16::from(*precision), i16::from(*scale)),
        _ => (i16::from(NUMERIC_UNLIMITED.0), i16::from(NUMERIC_UNLIMITED.1)),
    };
    let ((p1, s1), (p2, s2)) = (limits(left), limits(right));
    let scale = s1.max(s2);
    let precision = ((p1 - s1).max(p2 - s2) + scale).min(38);
    SqlType::Numeric(Some((precision as u8, scale as i8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_meet_as_postgresqls_do() {
        use SqlType::{Bool, Date, Float4, Float8, Int4, Int8, Numeric, Text, Timestamptz, Varchar};
        let check = |types: &[SqlType], expected: SqlType| {
            assert_eq!(common_type(types.iter().cloned(), "VALUES").unwrap(), Some(expected), "{types:?}");
        };
        check(&[Int4, Int8, Int4], Int8);
        check(&[Float8, Numeric(Some((2, 1)))], Float8);
        check(&[Numeric(Some((2, 1))), Float4], Float4);
        check(&[Int4, Numeric(Some((3, 2)))], Numeric(Some((12, 2))));
        check(&[Date, Timestamptz], Timestamptz);
        check(&[Varchar(Some(3)), Text], Text);
        assert_eq!(common_type([Int4, Bool].into_iter(), "VALUES").unwrap_err().sqlstate, "42804");
        assert_eq!(common_type([].into_iter(), "VALUES").unwrap(), None);
    }
}
