//! AND and OR look at what stands on their right only where the left leaves it open: `b <> 0 AND a / b > 1` never divides
//! by zero. DataFusion evaluates both sides over whole batches, and fails. Here, after everything else was optimized, what
//! may fail is put into a CASE, which is evaluated for the rows alone that need it:
//!
//! ```text
//! left AND right  ->  left AND CASE WHEN left IS NOT FALSE THEN right ELSE false END
//! left OR right   ->  left OR CASE WHEN left IS NOT TRUE THEN right ELSE true END
//! ```
//!
//! Where the left is the longer one, or another thing each time (`random() < 0.5`), it is written once:
//!
//! ```text
//! left AND right  ->  CASE left WHEN false THEN false WHEN true THEN right ELSE right AND NULL END
//! left OR right   ->  CASE left WHEN true THEN true WHEN false THEN right ELSE right OR NULL END
//! ```
//!
//! Conditions of one filter come from several places of a query. Those that cannot fail come first, where their bounds
//! are seen, too.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, Operator, Projection, lit};

use super::functions::spread::{is_spread, spread};

/// The plan with its conditions guarded, and with long constants kept from many rows.
pub(super) fn guard_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_down_with_subqueries(|plan| guard_node(plan).map(Transformed::yes)).data()
}

fn guard_node(plan: LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        // What a scan is told of filters prunes only.
        LogicalPlan::TableScan(_) => Ok(plan),
        LogicalPlan::Filter(filter) => guard_filter(filter).map(LogicalPlan::Filter),
        plan => {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let plan = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let guarded = guard(expr, &schema)?;
                Ok(guarded.update_data(|expr| name.restore(expr)))
            })?;
            Ok(match plan.data {
                LogicalPlan::Projection(projection) => LogicalPlan::Projection(spread_constants(projection)),
                plan => plan,
            })
        }
    }
}

fn guard_filter(mut filter: Filter) -> Result<Filter> {
    let schema = merge_schema(&[filter.input.as_ref()]);
    let conditions = operands(filter.predicate, Operator::And);
    let (risky, safe): (Vec<_>, Vec<_>) = conditions.into_iter().partition(|condition| may_fail(condition, &schema));
    let guarded = |conditions: Vec<Expr>| -> Result<Vec<Expr>> {
        conditions.into_iter().map(|condition| guard(condition, &schema).data()).collect()
    };
    let safe = guarded(safe)?.into_iter().reduce(|left, right| binary(left, Operator::And, right));
    let risky = Some(guarded(risky)?).filter(|risky| !risky.is_empty());
    let risky = risky.map(|risky| chain(risky, Operator::And, &schema));
    filter.predicate = match (safe, risky) {
        // In a case bounds would not be seen.
        (Some(safe), Some(risky)) => twice_guarded(safe, risky, Operator::And),
        (Some(condition), None) | (None, Some(condition)) => condition,
        (None, None) => lit(true),
    };
    Ok(filter)
}

fn spread_constants(mut projection: Projection) -> Projection {
    projection.expr = projection.expr.into_iter().map(spread).collect();
    projection
}

fn guard(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_down(|expr| match expr {
        Expr::AggregateFunction(mut function) => {
            function.params.args = function.params.args.into_iter().map(spread).collect();
            Ok(Transformed::yes(Expr::AggregateFunction(function)))
        }
        // What is spread holds a constant, which is not to be spread once more.
        Expr::ScalarFunction(function) if is_spread(&function) => {
            Ok(Transformed::new(Expr::ScalarFunction(function), false, TreeNodeRecursion::Jump))
        }
        Expr::ScalarFunction(mut function) => {
            function.args = function.args.into_iter().map(spread).collect();
            Ok(Transformed::yes(Expr::ScalarFunction(function)))
        }
        Expr::Case(mut case) => {
            let results = case.when_then_expr.iter_mut().map(|(_, result)| result).chain(&mut case.else_expr);
            for result in results {
                **result = spread(std::mem::replace(result, lit(0)));
            }
            Ok(Transformed::yes(Expr::Case(case)))
        }
        Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) => {
            let guarded = operands(expr, op).into_iter().map(|operand| guard(operand, schema).data());
            let expr = chain(guarded.collect::<Result<_>>()?, op, schema);
            Ok(Transformed::new(expr, true, TreeNodeRecursion::Jump))
        }
        expr => Ok(Transformed::no(expr)),
    })
}

/// What stands between the ANDs, or the ORs, from left to right.
fn operands(expr: Expr, op: Operator) -> Vec<Expr> {
    let (mut found, mut rest) = (Vec::new(), vec![expr]);
    while let Some(expr) = rest.pop() {
        match expr {
            Expr::BinaryExpr(binary) if binary.op == op => rest.extend([*binary.right, *binary.left]),
            expr => found.push(expr),
        }
    }
    found
}

/// The operands in one condition again, from the last on; each that may fail guarded by those before it.
fn chain(operands: Vec<Expr>, op: Operator, schema: &DFSchema) -> Expr {
    let mut guarded: Option<Expr> = None;
    let mut run: Vec<Expr> = Vec::new();
    for operand in operands.into_iter().rev() {
        let is_risky = may_fail(&operand, schema);
        run.push(operand);
        if is_risky {
            // What follows a condition that may fail is not asked, either, unless it has to be.
            let rest = guarded.take();
            guarded = Some(guarded_by(joined(std::mem::take(&mut run), op), rest, op));
        }
    }
    if run.is_empty() {
        guarded.unwrap_or_else(|| lit(op == Operator::And))
    } else {
        guarded_by(joined(run, op), guarded, op)
    }
}

/// Operands in reverse as one condition.
fn joined(reversed: Vec<Expr>, op: Operator) -> Expr {
    let joined = reversed.into_iter().rev().reduce(|left, right| binary(left, op, right));
    joined.unwrap_or_else(|| lit(op == Operator::And))
}

fn guarded_by(left: Expr, right: Option<Expr>, op: Operator) -> Expr {
    let Some(right) = right else { return left };
    if left.is_volatile() || size(&left) > SHORT_SIZE.max(size(&right)) {
        once_guarded(left, right, op)
    } else {
        twice_guarded(left, right, op)
    }
}

/// Asks the left for every row, and once more for which rows the right is to be asked.
fn twice_guarded(left: Expr, right: Expr, op: Operator) -> Expr {
    let is_and = op == Operator::And;
    let is_open =
        if is_and { Expr::IsNotFalse(Box::new(left.clone())) } else { Expr::IsNotTrue(Box::new(left.clone())) };
    let case = Case::new(None, vec![(Box::new(is_open), Box::new(right))], Some(Box::new(lit(!is_and))));
    binary(left, op, Expr::Case(case))
}

/// Asks the left once; what stands on the right is written twice.
fn once_guarded(left: Expr, right: Expr, op: Operator) -> Expr {
    let closes = op == Operator::Or;
    let unknown = binary(right.clone(), op, lit(ScalarValue::Boolean(None)));
    let results = [(lit(closes), lit(closes)), (lit(!closes), right)];
    let results = results.map(|(is, result)| (Box::new(is), Box::new(result)));
    Expr::Case(Case::new(Some(Box::new(left)), results.into(), Some(Box::new(unknown))))
}

/// Up to here the left may be written twice: it is looked at less often.
const SHORT_SIZE: usize = 64;

fn size(expr: &Expr) -> usize {
    let mut count = 0;
    // It never fails.
    let _ = expr.apply(|_| {
        count += 1;
        Ok(TreeNodeRecursion::Continue)
    });
    count
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })
}

/// Whether a value may bring the expression's evaluation to an error.
fn may_fail(expr: &Expr, schema: &DFSchema) -> bool {
    expr.exists(|expr| Ok(fails_itself(expr, schema))).unwrap_or(true)
}

/// Functions with a value for every argument. Of others it is not known.
const TOTAL: [&str; 36] = [
    "ascii",
    "bit_length",
    "btrim",
    "cardinality",
    "cast_char",
    "cast_varchar",
    "char_length",
    "character_length",
    "coalesce",
    "compare_all",
    "compare_any",
    "greatest",
    "interval_order",
    "isfinite",
    "json_get",
    "json_get_text",
    "least",
    "left",
    "length",
    "lower",
    "ltrim",
    "md5",
    "nullif",
    "numeric_to_double",
    "octet_length",
    "pad_char",
    "reverse",
    "right",
    "round_half_even",
    "rtrim",
    "starts_with",
    "strpos",
    "timestamp_to_date",
    "to_text",
    "typed",
    "upper",
];

fn fails_itself(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::BinaryExpr(binary) => operator_fails(binary),
        Expr::Negative(inner) => !inner.get_type(schema).is_ok_and(|data_type| data_type.is_floating()),
        Expr::Cast(cast) => {
            let to = cast.field.data_type();
            !cast.expr.get_type(schema).is_ok_and(|from| fits_always(&from, to))
        }
        Expr::ScalarFunction(function) => !TOTAL.contains(&function.func.name()),
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => true,
        _ => false,
    }
}

fn operator_fails(binary: &BinaryExpr) -> bool {
    use Operator::{
        And, Eq, Gt, GtEq, ILikeMatch, IsDistinctFrom, IsNotDistinctFrom, LikeMatch, Lt, LtEq, NotEq, NotILikeMatch,
        NotLikeMatch, Or, RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch,
    };
    match binary.op {
        And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom => false,
        LikeMatch | ILikeMatch | NotLikeMatch | NotILikeMatch => false,
        RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch => !matches!(*binary.right, Expr::Literal(..)),
        _ => true,
    }
}

/// Whether every value of one type is one of the other.
fn fits_always(from: &DataType, to: &DataType) -> bool {
    use DataType::{Decimal128, Float32, Float64, Int16, Int32, Int64, Null, Timestamp, Utf8};
    match (from, to) {
        (from, to) if from == to => true,
        (Null, _) | (_, Utf8) => true,
        (Int16, Int32 | Int64 | Float32 | Float64) | (Int32, Int64 | Float64) | (Int64, Float64) => true,
        (Float32, Float64) => true,
        (Int16 | Int32 | Int64, Decimal128(precision, scale)) => i16::from(*precision) - i16::from(*scale) >= 19,
        (Timestamp(from, _), Timestamp(to, _)) => from == to,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use datafusion::logical_expr::col;

    use super::*;

    fn check(expr: Expr, expected: &str) {
        let fields = ["a", "b"].map(|name| Field::new(name, DataType::Int32, true));
        let schema = DFSchema::try_from(Schema::new(fields.to_vec())).unwrap();
        assert_eq!(guard(expr, &schema).unwrap().data.to_string(), expected);
    }

    #[test]
    fn what_may_fail_is_asked_for_open_rows_only() {
        let safe = || col("b").not_eq(lit(0));
        let risky = || (col("a") / col("b")).gt(lit(1));
        check(safe().and(col("a").gt(lit(5))), "b != Int32(0) AND a > Int32(5)");
        check(
            safe().and(risky()),
            "b != Int32(0) AND CASE WHEN b != Int32(0) IS NOT FALSE THEN a / b > Int32(1) ELSE Boolean(false) END",
        );
        check(
            safe().or(risky()),
            "b != Int32(0) OR CASE WHEN b != Int32(0) IS NOT TRUE THEN a / b > Int32(1) ELSE Boolean(true) END",
        );
        check(risky().and(safe()), "a / b > Int32(1) AND b != Int32(0)");
        check(
            Expr::Not(Box::new(safe().or(risky()))),
            "NOT b != Int32(0) OR CASE WHEN b != Int32(0) IS NOT TRUE THEN a / b > Int32(1) ELSE Boolean(true) END",
        );
    }

    #[test]
    fn what_is_another_thing_each_time_is_asked_for_once() {
        let random = datafusion::functions::math::expr_fn::random().lt(lit(0.5));
        let risky = (col("a") / col("b")).gt(lit(1));
        check(
            random.and(risky),
            "CASE random() < Float64(0.5) WHEN Boolean(false) THEN Boolean(false) WHEN Boolean(true) THEN \
             a / b > Int32(1) ELSE a / b > Int32(1) AND Boolean(NULL) END",
        );
    }

    #[test]
    fn conditions_grow_little_however_they_nest() {
        let fields = ["a", "b"].map(|name| Field::new(name, DataType::Int32, true));
        let schema = DFSchema::try_from(Schema::new(fields.to_vec())).unwrap();
        let risky = |n: i32| (lit(n) / col("b")).gt(lit(1));
        let mut left = risky(0);
        let mut right = risky(0);
        for n in 1..20 {
            left = if n % 2 == 0 { left.and(risky(n)) } else { left.or(risky(n)) };
            right = if n % 2 == 0 { risky(n).and(right) } else { risky(n).or(right) };
        }
        for expr in [left, right] {
            let guarded = guard(expr.clone(), &schema).unwrap().data;
            assert!(size(&guarded) < size(&expr) * size(&expr), "{} from {}", size(&guarded), size(&expr));
        }
    }

    #[test]
    fn a_long_constant_is_spread_once() {
        let long = || lit("x".repeat(100_000));
        let expr = datafusion::functions::string::expr_fn::replace(long(), lit("x"), lit("y"));
        let schema = DFSchema::empty();
        let guarded = guard(expr, &schema).unwrap().data;
        assert_eq!(guarded.to_string().matches("spread(").count(), 1);
        assert_eq!(guard(guarded.clone(), &schema).unwrap().data, guarded, "nor when it is guarded again");
    }

    #[test]
    fn conditions_that_cannot_fail_come_first_in_a_filter() {
        use datafusion::logical_expr::LogicalPlanBuilder;
        let fields = ["a", "b"].map(|name| Field::new(name, DataType::Int32, true));
        let schema = Schema::new(fields.to_vec());
        let scan = LogicalPlanBuilder::scan(
            "t",
            datafusion::datasource::provider_as_source(std::sync::Arc::new(
                datafusion::datasource::empty::EmptyTable::new(std::sync::Arc::new(schema)),
            )),
            None,
        );
        let filter = (col("a") / col("b")).gt(lit(1)).and(col("b").not_eq(lit(0)));
        let plan = scan.unwrap().filter(filter).unwrap().build().unwrap();
        let guarded = guard_plan(plan).unwrap().display_indent().to_string();
        assert!(
            guarded.starts_with("Filter: t.b != Int32(0) AND CASE WHEN t.b != Int32(0) IS NOT FALSE THEN"),
            "{guarded}"
        );
    }
}
