//! Types that casts give to parameters: `$1::int` makes `$1` an integer, as long as it stands nowhere else.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, CastKind, Expr, Value, ValueWithSpan, visit_expressions};
use meridian_proto::SqlType;

use super::types::sql_type;

/// `known`, with what the casts of a query tell about the others.
pub(crate) fn with_casts(query: &ast::Query, known: &[Option<SqlType>]) -> Vec<Option<SqlType>> {
    let mut found: Vec<Uses> = Vec::new();
    let _: ControlFlow<()> = visit_expressions(query, |expr| {
        match expr {
            Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, .. } => {
                if let Some(uses) = parameter(expr).and_then(|number| uses_of(&mut found, number)) {
                    uses.casts.push(sql_type(data_type).ok().map(unlimited));
                }
            }
            expr => {
                if let Some(uses) = parameter(expr).and_then(|number| uses_of(&mut found, number)) {
                    uses.all += 1;
                }
            }
        }
        ControlFlow::Continue(())
    });
    let mut types = known.to_vec();
    types.resize(known.len().max(found.len()), None);
    for (known, uses) in types.iter_mut().zip(&found) {
        if known.is_none() {
            *known = uses.agreed();
        }
    }
    types
}

/// Most parameters that a statement can have.
const PARAMETERS_MAX: usize = 65_535;

#[derive(Clone, Default)]
struct Uses {
    /// Those in casts, too.
    all: usize,
    casts: Vec<Option<SqlType>>,
}

impl Uses {
    /// The type of which all uses are casts.
    fn agreed(&self) -> Option<SqlType> {
        let first = self.casts.first()?.clone();
        let agree = self.all == self.casts.len() && self.casts.iter().all(|cast| *cast == first);
        if agree { first } else { None }
    }
}

fn uses_of(found: &mut Vec<Uses>, number: usize) -> Option<&mut Uses> {
    let index = number.checked_sub(1).filter(|index| *index < PARAMETERS_MAX)?;
    if found.len() <= index {
        found.resize(index + 1, Uses::default());
    }
    found.get_mut(index)
}

fn parameter(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) => name.strip_prefix('$')?.parse().ok(),
        _ => None,
    }
}

/// A parameter's length is the client's.
fn unlimited(sql_type: SqlType) -> SqlType {
    match sql_type {
        SqlType::Numeric(_) => SqlType::Numeric(None),
        SqlType::Varchar(_) => SqlType::Varchar(None),
        SqlType::Char(_) => SqlType::Text,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse_query_text;
    use super::*;

    #[test]
    fn a_cast_tells_a_parameters_type_where_nothing_else_can() {
        let check = |sql: &str, expected: &[Option<SqlType>]| {
            assert_eq!(with_casts(&parse_query_text(sql).unwrap(), &[]), expected, "{sql}");
        };
        check("SELECT $1::int, CAST($2 AS numeric(5,2))", &[Some(SqlType::Int4), Some(SqlType::Numeric(None))]);
        check("SELECT $1::int, $1::int", &[Some(SqlType::Int4)]);
        check("SELECT $1::int, $1::text", &[None]);
        check("SELECT $1::text FROM t WHERE k = $1", &[None]);
        check("SELECT a FROM t WHERE a = ANY ($1::text[])", &[Some(SqlType::Array(Box::new(SqlType::Text)))]);
        let query = parse_query_text("SELECT $1::int").unwrap();
        assert_eq!(with_casts(&query, &[Some(SqlType::Text)]), [Some(SqlType::Text)]);
    }
}
