//! Expressions after DataFusion has coerced their types: casts, arithmetic and comparisons that PostgreSQL works out
//! otherwise are put in the words of our functions.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, binary_expr, lit};
use datafusion::optimizer::AnalyzerRule;
use meridian_hyperfunctions::arithmetic::{
    float_divide, int_add, int_multiply, int_subtract, numeric_divide, round_half_even,
};
use meridian_hyperfunctions::times::{interval_order, time_difference, timezone};
use meridian_pgtypes::Format;
use meridian_proto::SqlType;
use meridian_proto::types::NUMERIC_UNLIMITED;

use super::environment::Environment;
use super::errors::external;
use super::functions::convert::{from_text, to_text};
use crate::error::SqlError;

/// The rule of one statement: it knows the session's time zone and formats.
#[derive(Debug)]
pub(crate) struct Semantics(pub Arc<Environment>);

impl AnalyzerRule for Semantics {
    fn name(&self) -> &str {
        "postgresql_semantics"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewrite = Rewrite { environment: &self.0, zone: self.0.zone() };
        plan.transform_up_with_subqueries(|plan| rewrite.plan(plan)).data()
    }
}

struct Rewrite<'a> {
    environment: &'a Environment,
    /// `None`: UTC.
    zone: Option<String>,
}

impl Rewrite<'_> {
    fn plan(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let mut schema = merge_schema(&plan.inputs());
        if let LogicalPlan::TableScan(scan) = &plan {
            schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
        }
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|expr| self.expr(expr, &schema))?;
            Ok(rewritten.update_data(|expr| name.restore(expr)))
        })?;
        // Always: what changed may lie below.
        plan.map_data(LogicalPlan::recompute_schema)
    }

    fn expr(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        match expr {
            Expr::Cast(cast) => self.cast(cast, schema),
            Expr::BinaryExpr(binary) => self.binary(binary, schema),
            Expr::Negative(inner) => {
                let zero = match inner.get_type(schema)? {
                    DataType::Int16 => lit(0_i16),
                    DataType::Int32 => lit(0_i32),
                    DataType::Int64 => lit(0_i64),
                    _ => return Ok(Transformed::no(Expr::Negative(inner))),
                };
                Ok(Transformed::yes(int_subtract().call(vec![zero, *inner])))
            }
            Expr::Between(mut between) if is_interval(&between.expr.get_type(schema)?) => {
                for side in [&mut between.expr, &mut between.low, &mut between.high] {
                    **side = ordered(std::mem::replace(side, lit(0)));
                }
                Ok(Transformed::yes(Expr::Between(between)))
            }
            Expr::InList(InList { expr, list, negated }) if is_interval(&expr.get_type(schema)?) => {
                let list = list.into_iter().map(ordered).collect();
                Ok(Transformed::yes(Expr::InList(InList { expr: Box::new(ordered(*expr)), list, negated })))
            }
            Expr::ScalarFunction(function) => self.time_function(function, schema),
            expr => Ok(Transformed::no(expr)),
        }
    }

    fn cast(&self, cast: Cast, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let (_, from_field) = cast.expr.to_field(schema)?;
        let (from, to) = (from_field.data_type().clone(), cast.field.data_type().clone());
        let format = &self.environment.format;
        let is_jsonb = |field: &Field| SqlType::of_field(field) == Some(SqlType::Jsonb);
        if is_text(&from) && is_jsonb(&cast.field) && !is_jsonb(&from_field) {
            // Both are held as text; jsonb is checked and brought into its normal form.
            return Ok(Transformed::yes(from_text(*cast.expr, SqlType::Jsonb, format)));
        }
        if from == to || from.is_null() {
            return Ok(Transformed::no(Expr::Cast(cast)));
        }
        if is_text(&from) && !is_text(&to) {
            return Ok(match SqlType::of_field(&cast.field) {
                Some(sql_type) => {
                    let is_exact = sql_type.arrow() == to;
                    let read = from_text(*cast.expr, sql_type, format);
                    Transformed::yes(if is_exact { read } else { Expr::Cast(Cast::new(Box::new(read), to)) })
                }
                None => Transformed::no(Expr::Cast(cast)),
            });
        }
        // A boolean's cast is `true`, its output `t`: Arrow's cast is PostgreSQL's.
        if is_text(&to) && !is_text(&from) && from != DataType::Boolean {
            return Ok(match SqlType::of_field(&from_field) {
                Some(sql_type) => {
                    let text = to_text(*cast.expr, sql_type, format);
                    Transformed::yes(if to == DataType::Utf8 {
                        text
                    } else {
                        Expr::Cast(Cast::new(Box::new(text), to))
                    })
                }
                None => Transformed::no(Expr::Cast(cast)),
            });
        }
        if from.is_floating() && to.is_integer() {
            let inner = round_half_even().call(vec![*cast.expr]);
            return Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(inner), field: cast.field })));
        }
        match (&from, &to) {
            (DataType::Decimal128(_, scale), to) if to.is_integer() && *scale > 0 => {
                // Arrow cuts the digits off; a decimal without them is rounded.
                let whole = Expr::Cast(Cast::new(cast.expr, DataType::Decimal128(NUMERIC_UNLIMITED.0, 0)));
                return Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(whole), field: cast.field })));
            }
            (from, DataType::Decimal128(..)) if SqlType::of_field(&cast.field) == Some(SqlType::Numeric(None)) => {
                // A numeric without limits has the digits that the value has.
                if matches!(from, DataType::Decimal128(..)) {
                    return Ok(Transformed::yes(*cast.expr));
                }
                if from.is_integer() {
                    return Ok(Transformed::yes(Expr::Cast(Cast::new(cast.expr, DataType::Decimal128(20, 0)))));
                }
                if from.is_floating() {
                    return Ok(Transformed::yes(self.float_to_numeric(*cast.expr, from, SqlType::Numeric(None))));
                }
            }
            (from, DataType::Decimal128(precision, scale)) if from.is_floating() => {
                let wanted = SqlType::Numeric(Some((*precision, *scale)));
                return Ok(Transformed::yes(self.float_to_numeric(*cast.expr, from, wanted)));
            }
            _ => {}
        }
        self.zone_cast(cast, &from, &to)
    }

    /// By the digits that a float surely has: 15, or 6 of a real.
    fn float_to_numeric(&self, expr: Expr, from: &DataType, wanted: SqlType) -> Expr {
        let format = Format { extra_float_digits: 0, ..(*self.environment.format).clone() };
        let float = if *from == DataType::Float64 { SqlType::Float8 } else { SqlType::Float4 };
        from_text(to_text(expr, float, &Arc::new(format)), wanted, &self.environment.format)
    }

    /// Between timestamptz and what is read off a clock lies the session's time zone.
    fn zone_cast(&self, cast: Cast, from: &DataType, to: &DataType) -> Result<Transformed<Expr>> {
        let Some(zone) = &self.zone else { return Ok(Transformed::no(Expr::Cast(cast))) };
        let is_local =
            |t: &DataType| matches!(t, DataType::Timestamp(_, None) | DataType::Date32 | DataType::Time64(_));
        if is_timestamptz(from) && is_local(to) {
            let local = timezone().call(vec![lit(zone.as_str()), *cast.expr]);
            return Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(local), field: cast.field })));
        }
        if is_local(from) && is_timestamptz(to) {
            let local = Expr::Cast(Cast::new(cast.expr, SqlType::Timestamp.arrow()));
            return Ok(Transformed::yes(timezone().call(vec![lit(zone.as_str()), local])));
        }
        Ok(Transformed::no(Expr::Cast(cast)))
    }

    fn binary(&self, binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let (left, right) = (binary.left.get_type(schema)?, binary.right.get_type(schema)?);
        let BinaryExpr { left: l, op, right: r } = binary;
        let call = |function: Arc<datafusion::logical_expr::ScalarUDF>, l: Box<Expr>, r: Box<Expr>| {
            Ok(Transformed::yes(function.call(vec![*l, *r])))
        };
        let integers = left.is_integer() && left == right;
        match op {
            Operator::Plus if integers => return call(int_add(), l, r),
            Operator::Minus if integers => return call(int_subtract(), l, r),
            Operator::Multiply if integers => return call(int_multiply(), l, r),
            Operator::Divide if left.is_floating() && left == right => return call(float_divide(), l, r),
            Operator::Divide if is_decimal(&left) && is_decimal(&right) => return call(numeric_divide(), l, r),
            Operator::Minus if is_timestamp(&left) && is_timestamp(&right) => return call(time_difference(), l, r),
            Operator::Plus | Operator::Minus if is_timestamptz(&left) && is_interval(&right) => {
                return self.add_interval(*l, op, *r);
            }
            Operator::Plus if is_interval(&left) && is_timestamptz(&right) => return self.add_interval(*r, op, *l),
            _ if is_comparison(op) && is_interval(&left) && is_interval(&right) => {
                return Ok(Transformed::yes(binary_expr(ordered(*l), op, ordered(*r))));
            }
            _ => {}
        }
        Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left: l, op, right: r })))
    }

    /// Days and months are added on the session's clocks, hours to the point in time.
    fn add_interval(&self, time: Expr, op: Operator, interval: Expr) -> Result<Transformed<Expr>> {
        let Some(zone) = self.zone.as_deref().filter(|_| self.environment.format.time_zone.fixed_offset_s().is_none())
        else {
            return Ok(Transformed::no(binary_expr(time, op, interval)));
        };
        let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _) = evaluate_cast(&interval) else {
            let message = "adding an interval that is not a constant to a timestamp with time zone is not supported \
                           in a time zone with clock changes";
            return Err(external(SqlError::unsupported(message).with_hint("SET TIME ZONE 'UTC'.")));
        };
        let (date, time_part) = (
            IntervalMonthDayNano { nanoseconds: 0, ..value },
            IntervalMonthDayNano { months: 0, days: 0, nanoseconds: value.nanoseconds },
        );
        if value.months == 0 && value.days == 0 {
            return Ok(Transformed::no(binary_expr(time, op, interval)));
        }
        let zone = || lit(zone);
        let local = timezone().call(vec![zone(), time]);
        let moved = binary_expr(local, op, lit(ScalarValue::IntervalMonthDayNano(Some(date))));
        let moved = timezone().call(vec![zone(), moved]);
        let time_part = lit(ScalarValue::IntervalMonthDayNano(Some(time_part)));
        Ok(Transformed::yes(binary_expr(moved, op, time_part)))
    }

    /// `date_trunc` and `date_part` look at the session's clocks.
    fn time_function(
        &self,
        mut function: datafusion::logical_expr::expr::ScalarFunction,
        schema: &DFSchema,
    ) -> Result<Transformed<Expr>> {
        let Some(zone) = &self.zone else { return Ok(Transformed::no(Expr::ScalarFunction(function))) };
        let name = function.func.name();
        let truncates = name == "date_trunc";
        if !(truncates || name == "date_part") || function.args.len() != 2 {
            return Ok(Transformed::no(Expr::ScalarFunction(function)));
        }
        // Seconds since 1970 are the same everywhere.
        let epoch = matches!(&function.args[0], Expr::Literal(ScalarValue::Utf8(Some(part)), _)
            if part.eq_ignore_ascii_case("epoch"));
        if epoch || !is_timestamptz(&function.args[1].get_type(schema)?) {
            return Ok(Transformed::no(Expr::ScalarFunction(function)));
        }
        let time = function.args.remove(1);
        function.args.push(timezone().call(vec![lit(zone.as_str()), time]));
        let local = Expr::ScalarFunction(function);
        Ok(Transformed::yes(if truncates { timezone().call(vec![lit(zone.as_str()), local]) } else { local }))
    }
}

/// An interval written as text is a cast of a constant until it is worked out; look through it.
fn evaluate_cast(interval: &Expr) -> Expr {
    if let Expr::ScalarFunction(function) = interval
        && function.func.name() == "from_text"
        && let [Expr::Literal(ScalarValue::Utf8(Some(text)), _)] = function.args.as_slice()
        && let Ok(value) = meridian_pgtypes::parse_interval(text)
    {
        return lit(ScalarValue::IntervalMonthDayNano(Some(value)));
    }
    interval.clone()
}

fn ordered(interval: Expr) -> Expr {
    interval_order().call(vec![interval])
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_))
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(..))
}

fn is_timestamp(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond, _))
}

fn is_timestamptz(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, Some(_)))
}
