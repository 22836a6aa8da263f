//! Names of output columns as PostgreSQL gives them (`FigureColname` in parse_target.c), put into the statement as
//! aliases before it is planned. A name that occurs twice gets a hidden suffix, which is cut off where columns are told.

use std::collections::HashMap;

use datafusion::sql::sqlparser::ast::{
    self, AccessExpr, CastKind, DataType, Expr, Ident, Query, Select, SelectItem, SetExpr, TimezoneInfo, Value,
};

use super::ddl::identifier;

/// Begins the hidden part of a name. No client can write it.
pub(super) const HIDDEN: char = '\u{1}';

/// The name as a client sees it.
pub(crate) fn shown(name: &str) -> &str {
    name.split(HIDDEN).next().unwrap_or(name)
}

/// Names the columns of the leftmost SELECT of a query, which names those of the whole.
pub(crate) fn name_columns(query: &mut Query) {
    let mut body = query.body.as_mut();
    loop {
        match body {
            SetExpr::Select(select) => return name_select(select),
            SetExpr::Query(inner) => body = inner.body.as_mut(),
            SetExpr::SetOperation { left, .. } => body = left.as_mut(),
            _ => return,
        }
    }
}

/// Names what has no name in a SELECT list.
pub(crate) fn name_select(select: &mut Select) {
    let has_wildcard = select
        .projection
        .iter()
        .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, item) in select.projection.iter_mut().enumerate() {
        let (expr, name) = match item {
            SelectItem::UnnamedExpr(expr) => (expr, None),
            SelectItem::ExprWithAlias { expr, alias } => (expr, Some(identifier(alias))),
            _ => continue,
        };
        let is_column = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
        let given = name.is_some();
        let name = name.unwrap_or_else(|| column_name(expr));
        let count = seen.entry(name.clone()).or_default();
        *count += 1;
        // A column keeps its own name, and its qualifier; under a wildcard it would come twice.
        if is_column && !given && *count == 1 && !has_wildcard {
            continue;
        }
        let alias =
            if *count > 1 || (has_wildcard && is_column && !given) { format!("{name}{HIDDEN}{index}") } else { name };
        let expr = expr.clone();
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', alias) };
    }
}

/// PostgreSQL's name of an expression without alias.
pub(crate) fn column_name(expr: &Expr) -> String {
    figure(expr).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// The name and how strongly it speaks: 2 a column's or function's, 1 a type's or `case`.
fn figure(expr: &Expr) -> Option<(String, u8)> {
    let strong = |name: &str| Some((name.to_owned(), 2));
    match expr {
        Expr::Identifier(name) => strong(&identifier(name)),
        Expr::CompoundIdentifier(names) => names.last().and_then(|name| strong(&identifier(name))),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                AccessExpr::Dot(Expr::Identifier(name)) => Some(identifier(name)),
                _ => None,
            });
            field.map_or_else(|| figure(root), |name| strong(&name))
        }
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => figure(inner),
        Expr::Function(function) => {
            let name = function.name.0.last().and_then(|part| part.as_ident()).map(identifier)?;
            strong(&name)
        }
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, .. } => {
            figure(expr).filter(|(_, strength)| *strength > 1).or_else(|| Some((type_name(data_type), 1)))
        }
        Expr::TypedString(typed) => Some((type_name(&typed.data_type), 1)),
        Expr::Interval(_) => Some(("interval".to_owned(), 1)),
        Expr::Value(value) => matches!(value.value, Value::Boolean(_)).then(|| ("bool".to_owned(), 1)),
        Expr::Case { else_result, .. } => {
            let inner = else_result.as_deref().and_then(figure).filter(|(_, strength)| *strength > 1);
            inner.or_else(|| Some(("case".to_owned(), 1)))
        }
        Expr::Array(_) => strong("array"),
        Expr::Tuple(_) | Expr::Struct { .. } => strong("row"),
        Expr::Exists { .. } => strong("exists"),
        Expr::Subquery(query) => subquery_name(query),
        Expr::Extract { .. } => strong("extract"),
        Expr::Substring { shorthand, .. } => strong(if *shorthand { "substr" } else { "substring" }),
        Expr::Position { .. } => strong("position"),
        Expr::Overlay { .. } => strong("overlay"),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Floor { .. } => strong("floor"),
        Expr::Trim { trim_where, .. } => strong(match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim",
            Some(ast::TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        Expr::AtTimeZone { .. } => strong("timezone"),
        Expr::IsNormalized { .. } => strong("is_normalized"),
        _ => None,
    }
}

fn subquery_name(query: &Query) -> Option<(String, u8)> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    match select.projection.first()? {
        SelectItem::UnnamedExpr(expr) => figure(expr),
        SelectItem::ExprWithAlias { alias, .. } => Some((identifier(alias), 2)),
        _ => None,
    }
}

/// The type's name in pg_type.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) => "int4",
        DataType::BigInt(_) | DataType::Int8(_) => "int8",
        DataType::SmallInt(_) | DataType::Int2(_) => "int2",
        DataType::Float8 | DataType::DoublePrecision | DataType::Float(_) => "float8",
        DataType::Float4 | DataType::Real => "float4",
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => "numeric",
        DataType::Bool | DataType::Boolean => "bool",
        DataType::Varchar(_) | DataType::CharacterVarying(_) | DataType::CharVarying(_) => "varchar",
        DataType::Char(_) | DataType::Character(_) => "bpchar",
        DataType::Timestamp(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => "timestamptz",
        DataType::Timestamp(..) => "timestamp",
        DataType::Time(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => "timetz",
        DataType::Time(..) => "time",
        DataType::Interval { .. } => "interval",
        DataType::Array(ast::ArrayElemTypeDef::SquareBracket(element, _)) => return type_name(element),
        other => return other.to_string().to_ascii_lowercase(),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse_expression;
    use super::*;

    #[test]
    fn names_are_postgresqls() {
        let check = |sql: &str, name: &str| assert_eq!(column_name(&parse_expression(sql).unwrap()), name, "{sql}");
        check("1", "?column?");
        check("a + b", "?column?");
        check("t.Col", "col");
        check("count(*)", "count");
        check("time_bucket('1 hour', time)", "time_bucket");
        check("a::int", "a");
        check("1::int", "int4");
        check("'x'::timestamp with time zone", "timestamptz");
        check("CASE WHEN a THEN 1 END", "case");
        check("CASE WHEN a THEN 1 ELSE b END", "b");
        check("coalesce(a, 0)", "coalesce");
        check("extract(hour from t)", "extract");
        check("interval '1 day'", "interval");
        check("t AT TIME ZONE 'UTC'", "timezone");
        check("(SELECT max(v) FROM t)", "max");
        check("true", "bool");
        check("-a", "?column?");
        check("sum(a) OVER ()", "sum");
    }

    #[test]
    fn names_that_occur_twice_are_told_apart_and_shown_alike() {
        let query = super::super::parse::parse_query_text("SELECT a, a, count(*), count(b) FROM t").unwrap();
        let mut query = (*query).clone();
        name_columns(&mut query);
        let SetExpr::Select(select) = query.body.as_ref() else { panic!() };
        let aliases: Vec<_> = select
            .projection
            .iter()
            .map(|item| match item {
                SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
                other => other.to_string(),
            })
            .collect();
        assert_eq!(aliases, ["a", "a\u{1}1", "count", "count\u{1}3"]);
        assert_eq!(shown(&aliases[1]), "a");
    }
}
