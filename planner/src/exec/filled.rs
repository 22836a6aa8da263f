//! Physical expressions with holes, and the same with values in them.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::FieldMetadata;
use datafusion::physical_expr::expressions::{InListExpr, Literal, in_list};
use datafusion::physical_expr::simplifier::PhysicalExprSimplifier;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use crate::sql::functions::hole::number_of;

/// An expression over columns of `schema` with its holes filled, and what became constant by that worked out.
pub(super) fn filled(
    expr: &Arc<dyn PhysicalExpr>,
    values: &[ScalarValue],
    schema: &SchemaRef,
) -> Result<Arc<dyn PhysicalExpr>> {
    match with_literals(expr, values, schema)? {
        Some(filled) => PhysicalExprSimplifier::new(schema).simplify(filled),
        None => Ok(Arc::clone(expr)),
    }
}

/// `None`: there are no holes in it.
fn with_literals(
    expr: &Arc<dyn PhysicalExpr>,
    values: &[ScalarValue],
    schema: &SchemaRef,
) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    if let Some((number, function)) = hole_in(expr) {
        return literal(number, function, values, schema).map(Some);
    }
    let mut children: Vec<_> = expr.children().into_iter().cloned().collect();
    let mut has_changed = false;
    for child in &mut children {
        if let Some(filled) = with_literals(child, values, schema)? {
            *child = filled;
            has_changed = true;
        }
    }
    if !has_changed {
        return Ok(None);
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        // A list of constants is looked up in a set.
        let items = children.split_off(1);
        return in_list(children.swap_remove(0), items, &list.negated(), schema).map(Some);
    }
    Arc::clone(expr).with_new_children(children).map(Some)
}

fn literal(
    number: usize,
    function: &ScalarFunctionExpr,
    values: &[ScalarValue],
    schema: &SchemaRef,
) -> Result<Arc<dyn PhysicalExpr>> {
    let field = function.return_field(schema)?;
    match values.get(number) {
        Some(value) if value.data_type() == *field.data_type() => {
            let metadata = (!field.metadata().is_empty()).then(|| FieldMetadata::from(field.as_ref()));
            Ok(Arc::new(Literal::new_with_metadata(value.clone(), metadata)))
        }
        value => internal_err!("hole {number} of {} is to be filled with {value:?}", field.data_type()),
    }
}

fn hole_in(expr: &Arc<dyn PhysicalExpr>) -> Option<(usize, &ScalarFunctionExpr)> {
    let function = expr.downcast_ref::<ScalarFunctionExpr>()?;
    number_of(function.fun()).map(|number| (number, function))
}

pub(super) fn has_hole(expr: &Arc<dyn PhysicalExpr>) -> Result<bool> {
    expr.exists(|expr| Ok(hole_in(expr).is_some()))
}
