//! Comparisons that PostgreSQL has no operator for. DataFusion makes texts of whatever meets a text; PostgreSQL knows no
//! `text = integer`, and reads only literals without a type as what they stand beside. Asked before types are coerced.

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;
use meridian_proto::SqlType;

use super::errors::external;
use super::floats::COMMON_TYPE_FUNCTIONS;
use crate::error::SqlError;

#[derive(Debug)]
pub(crate) struct Comparisons;

impl AnalyzerRule for Comparisons {
    fn name(&self) -> &str {
        "comparisons_of_texts"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.apply_with_subqueries(|plan| {
            let mut schema = merge_schema(&plan.inputs());
            if let LogicalPlan::TableScan(scan) = plan {
                schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
            }
            plan.apply_expressions(|expr| expr.apply(|expr| check(expr, &schema).map(|()| TreeNodeRecursion::Continue)))
        })?;
        Ok(plan)
    }
}

fn check(expr: &Expr, schema: &DFSchema) -> Result<()> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match symbol(*op) {
            Some(symbol) => check_pair(left, symbol, right, schema),
            None => Ok(()),
        },
        Expr::InList(InList { expr, list, negated }) => {
            let symbol = if *negated { "<>" } else { "=" };
            list.iter().try_for_each(|item| check_pair(expr, symbol, item, schema))
        }
        Expr::Between(between) => {
            check_pair(&between.expr, ">=", &between.low, schema)?;
            check_pair(&between.expr, "<=", &between.high, schema)
        }
        _ => Ok(()),
    }
}

fn symbol(op: Operator) -> Option<&'static str> {
    Some(match op {
        // IS DISTINCT FROM is the equality's.
        Operator::Eq | Operator::IsDistinctFrom | Operator::IsNotDistinctFrom => "=",
        Operator::NotEq => "<>",
        Operator::Lt => "<",
        Operator::LtEq => "<=",
        Operator::Gt => ">",
        Operator::GtEq => ">=",
        _ => return None,
    })
}

fn check_pair(left: &Expr, symbol: &str, right: &Expr, schema: &DFSchema) -> Result<()> {
    let (Some(l), Some(r)) = (known_type(left, schema), known_type(right, schema)) else { return Ok(()) };
    let are_kin = [is_text, is_number, is_bool].iter().all(|is_one| is_one(&l) == is_one(&r));
    if are_kin || !is_settled(left) || !is_settled(right) {
        Ok(())
    } else {
        Err(no_operator(Some(&l), symbol, Some(&r)))
    }
}

/// Whether an expression's type is PostgreSQL's already: literals among the results of these get theirs when types are
/// coerced.
fn is_settled(expr: &Expr) -> bool {
    match expr {
        Expr::Case(_) => false,
        Expr::ScalarFunction(function) => !COMMON_TYPE_FUNCTIONS.contains(&function.func.name()),
        _ => true,
    }
}

/// `None`: a literal or parameter that takes its type from the other side, or a type of DataFusion's own.
pub(crate) fn known_type(expr: &Expr, schema: &DFSchema) -> Option<SqlType> {
    if let Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, _) = expr {
        return None;
    }
    // DataFusion writes out the names of all that stand within for it, which takes long in long conditions.
    if is_condition(expr) {
        return Some(SqlType::Bool);
    }
    let (_, field) = expr.to_field(schema).ok()?;
    if *field.data_type() == DataType::Null { None } else { SqlType::of_field(&field) }
}

fn is_condition(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(binary) => binary.op.is_logic_operator() || symbol(binary.op).is_some(),
        Expr::Not(_) | Expr::IsNull(_) | Expr::IsNotNull(_) | Expr::InList(_) | Expr::Between(_) => true,
        _ => false,
    }
}

fn is_number(sql_type: &SqlType) -> bool {
    use SqlType::{Float4, Float8, Int2, Int4, Int8, Numeric};
    matches!(sql_type, Int2 | Int4 | Int8 | Float4 | Float8 | Numeric(_))
}

fn is_bool(sql_type: &SqlType) -> bool {
    *sql_type == SqlType::Bool
}

fn is_text(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_))
}

/// 42883. `None`: a literal without a type.
pub(super) fn no_operator(left: Option<&SqlType>, symbol: &str, right: Option<&SqlType>) -> DataFusionError {
    let name = |sql_type: Option<&SqlType>| sql_type.map_or_else(|| "unknown".to_owned(), base_name);
    let message = format!("operator does not exist: {} {symbol} {}", name(left), name(right));
    external(
        SqlError::new("42883", message).with_hint(
            "No operator matches the given name and argument types. You might need to add explicit type casts.",
        ),
    )
}

/// The type's name without its limits.
pub(crate) fn base_name(sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::Numeric(_) => "numeric".to_owned(),
        SqlType::Varchar(_) => "character varying".to_owned(),
        SqlType::Char(_) => "character".to_owned(),
        SqlType::Array(element) => format!("{}[]", base_name(element)),
        other => other.to_string(),
    }
}
