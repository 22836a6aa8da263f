//! Types that the places of parameters tell: `$1::int` makes `$1` an integer, `LIMIT $1` a bigint, as long as it stands
//! nowhere else.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, CastKind, Expr, LimitClause, Value, ValueWithSpan, Visit, Visitor, visit_expressions,
};
use meridian_proto::SqlType;

use super::types::sql_type;

/// `known`, with what casts and counts of rows in a query tell about the others.
pub(crate) fn with_places(query: &ast::Query, known: &[Option<SqlType>]) -> Vec<Option<SqlType>> {
    let mut places = Places::default();
    let _: ControlFlow<()> = query.visit(&mut places);
    let mut types = known.to_vec();
    types.resize(known.len().max(places.uses.len()), None);
    for (known, uses) in types.iter_mut().zip(&places.uses) {
        if known.is_none() {
            *known = uses.agreed();
        }
    }
    types
}

/// How often each parameter stands in a query.
pub(crate) fn parameter_uses(query: &ast::Query) -> BTreeMap<usize, usize> {
    let mut uses = BTreeMap::new();
    let _: ControlFlow<()> = visit_expressions(query, |expr| {
        if let Some(number) = parameter(expr) {
            *uses.entry(number).or_default() += 1;
        }
        ControlFlow::Continue(())
    });
    uses
}

/// Most parameters that a statement can have.
const PARAMETERS_MAX: usize = 65_535;

/// Where the parameters of a query stand.
#[derive(Default)]
struct Places {
    uses: Vec<Uses>,
}

#[derive(Clone, Default)]
struct Uses {
    all: usize,
    /// Of those that tell a type, which.
    types: Vec<Option<SqlType>>,
}

impl Uses {
    /// The type that all uses tell.
    fn agreed(&self) -> Option<SqlType> {
        let first = self.types.first()?.clone();
        let agree = self.all == self.types.len() && self.types.iter().all(|told| *told == first);
        if agree { first } else { None }
    }
}

impl Places {
    /// `None`: not a parameter.
    fn uses_of(&mut self, expr: &Expr) -> Option<&mut Uses> {
        let index = parameter(expr)?.checked_sub(1).filter(|index| *index < PARAMETERS_MAX)?;
        if self.uses.len() <= index {
            self.uses.resize(index + 1, Uses::default());
        }
        self.uses.get_mut(index)
    }

    fn tell(&mut self, expr: &Expr, sql_type: Option<SqlType>) {
        if let Some(uses) = self.uses_of(expr) {
            uses.types.push(sql_type);
        }
    }
}

impl Visitor for Places {
    type Break = ();

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
        let (mut limit, mut offset) = (None, None);
        if let Some(LimitClause::LimitOffset { limit: rows, offset: skipped, .. }) = &query.limit_clause {
            (limit, offset) = (rows.as_ref(), skipped.as_ref().map(|offset| &offset.value));
        }
        let fetch = query.fetch.as_ref().and_then(|fetch| fetch.quantity.as_ref());
        [limit, offset, fetch].into_iter().flatten().for_each(|count| self.tell(count, Some(SqlType::Int8)));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, .. } = expr {
            self.tell(expr, sql_type(data_type).ok().map(unlimited));
        } else if let Some(uses) = self.uses_of(expr) {
            uses.all += 1;
        }
        ControlFlow::Continue(())
    }
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
    fn a_parameters_place_tells_its_type_where_nothing_else_can() {
        let check = |sql: &str, expected: &[Option<SqlType>]| {
            assert_eq!(with_places(&parse_query_text(sql).unwrap(), &[]), expected, "{sql}");
        };
        check("SELECT $1::int, CAST($2 AS numeric(5,2))", &[Some(SqlType::Int4), Some(SqlType::Numeric(None))]);
        check("SELECT $1::int, $1::int", &[Some(SqlType::Int4)]);
        check("SELECT $1::int, $1::text", &[None]);
        check("SELECT $1::text FROM t WHERE k = $1", &[None]);
        check("SELECT a FROM t WHERE a = ANY ($1::text[])", &[Some(SqlType::Array(Box::new(SqlType::Text)))]);
        let count = Some(SqlType::Int8);
        check("SELECT a FROM t LIMIT $1 OFFSET $2", &[count.clone(), count.clone()]);
        check("SELECT a FROM (SELECT a FROM t OFFSET $2) t FETCH FIRST $1 ROWS ONLY", &[count.clone(), count.clone()]);
        check("SELECT a FROM t WHERE b = $1 LIMIT $1", &[None]);
        let query = parse_query_text("SELECT $1::int").unwrap();
        assert_eq!(with_places(&query, &[Some(SqlType::Text)]), [Some(SqlType::Text)]);
    }
}
