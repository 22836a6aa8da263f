//! DISTINCT ON is a set of expressions; DataFusion reads it as a list that begins as ORDER BY does, and ends before it.

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, OrderByExpr, OrderByKind, OrderByOptions, Query, SelectItem, SetExpr, Value,
};

/// Puts the expressions in the order in which ORDER BY has them, those that it does not have last, and at the end of
/// ORDER BY, too. What ORDER BY begins with and the set does not have is an error that planning tells.
pub(super) fn order_as_sorted(query: &mut Query) {
    let Some(OrderByKind::Expressions(sorted)) = query.order_by.as_mut().map(|order| &mut order.kind) else { return };
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let Some(Distinct::On(exprs)) = &mut select.distinct else { return };
    let sorts = sorted.iter_mut().map(|sort| &mut sort.expr);
    exprs.iter_mut().chain(sorts).for_each(|expr| name_position(expr, &select.projection));
    for (ordered, sort) in sorted.iter().enumerate() {
        let Some(at) = exprs[ordered..].iter().position(|expr| *expr == sort.expr) else { return };
        exprs[ordered..=ordered + at].rotate_right(1);
    }
    let rest = exprs.iter().skip(sorted.len()).cloned();
    sorted.extend(rest.map(|expr| OrderByExpr { expr, options: OrderByOptions::default(), with_fill: None }));
}

/// A number is the place of a column in the select list.
fn name_position(expr: &mut Expr, columns: &[SelectItem]) {
    let Expr::Value(value) = &*expr else { return };
    let Value::Number(number, _) = &value.value else { return };
    let column = number.parse::<usize>().ok().and_then(|number| columns.get(number.checked_sub(1)?));
    if let Some(SelectItem::UnnamedExpr(column) | SelectItem::ExprWithAlias { expr: column, .. }) = column {
        *expr = column.clone();
    }
}
