//! Expressions after DataFusion has coerced their types: casts, arithmetic and comparisons that PostgreSQL works out
//! otherwise are put in the words of our functions.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, InList, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF, binary_expr, lit};
use datafusion::optimizer::AnalyzerRule;
use meridian_hyperfunctions::arithmetic::{
    decimal_to_double, double_to_real, float_add, float_divide, float_multiply, float_subtract, int_add, int_multiply,
    int_subtract, numeric_divide, numeric_to_double, round_half_even,
};
use meridian_hyperfunctions::bounded::is_bounded;
use meridian_hyperfunctions::modifiers::round_time;
use meridian_hyperfunctions::texts::{cast_text, pad_char};
use meridian_hyperfunctions::times::{
    date_to_timestamp, time_add, time_difference, time_subtract, timestamp_to_date, timezone,
};
use meridian_pgtypes::Format;
use meridian_proto::SqlType;
use meridian_proto::modifier::{MODIFIER_KEY, Modifier};
use meridian_proto::types::{NUMERIC_UNLIMITED, UTC};

use super::environment::Environment;
use super::functions::called;
use super::functions::convert::{from_text, to_text, to_texts};
use super::intervals::{group_by_order, is_interval, ordered, sort_by_order};

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
        let plan = plan.map_data(LogicalPlan::recompute_schema)?;
        plan.map_data(|plan| group_by_order(sort_by_order(plan)?))
    }

    fn expr(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        match expr {
            Expr::Cast(cast) => match Modifier::of_field(&cast.field) {
                Some(modifier) => self.cast_rounded(cast, modifier, schema),
                None => self.cast(cast, schema),
            },
            Expr::BinaryExpr(binary) => self.binary(binary, schema),
            Expr::Negative(inner) => {
                let zero = match inner.get_type(schema)? {
                    DataType::Int16 => lit(0_i16),
                    DataType::Int32 => lit(0_i32),
                    DataType::Int64 => lit(0_i64),
                    data_type if is_interval(&data_type) => {
                        let zero = lit(ScalarValue::new_interval_mdn(0, 0, 0));
                        return Ok(Transformed::yes(called("interval_subtract", vec![zero, *inner])?));
                    }
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
            // char(n) has no spaces at its end; a constant beside it is one.
            Expr::InList(InList { expr, mut list, negated }) if char_length(&expr, schema).is_some() => {
                list.iter_mut().for_each(strip);
                Ok(Transformed::yes(Expr::InList(InList { expr, list, negated })))
            }
            Expr::Between(mut between) if char_length(&between.expr, schema).is_some() => {
                strip(&mut between.low);
                strip(&mut between.high);
                Ok(Transformed::yes(Expr::Between(between)))
            }
            Expr::Like(mut like) => match char_length(&like.expr, schema) {
                Some(length) => {
                    *like.expr = pad_char(*like.expr, length);
                    Ok(Transformed::yes(Expr::Like(like)))
                }
                None => Ok(Transformed::no(Expr::Like(like))),
            },
            Expr::AggregateFunction(mut function) if function.params.distinct && function.func.name() == "count" => {
                for argument in &mut function.params.args {
                    if is_interval(&argument.get_type(schema)?) {
                        *argument = ordered(std::mem::replace(argument, lit(0)));
                    }
                }
                Ok(Transformed::yes(Expr::AggregateFunction(function)))
            }
            Expr::ScalarFunction(function) => self.function(function, schema),
            expr => Ok(Transformed::no(expr)),
        }
    }

    /// A cast to a time type with a modifier.
    fn cast_rounded(&self, cast: Cast, modifier: Modifier, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let mut field = cast.field.as_ref().clone();
        field.metadata_mut().remove(MODIFIER_KEY);
        let casted = self.cast(Cast { expr: cast.expr, field: Arc::new(field) }, schema)?.data;
        Ok(Transformed::yes(round_time(casted, modifier)))
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
        let target = SqlType::of_field(&cast.field);
        if is_text(&from)
            && to == DataType::Utf8
            && target.as_ref().is_some_and(has_length)
            && !same_length(&from_field, &cast.field)
        {
            let text = if from == to { *cast.expr } else { Expr::Cast(Cast::new(cast.expr, to)) };
            return Ok(Transformed::yes(cast_text(text, &target.unwrap_or(SqlType::Text))));
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
        if is_text(&to) && !is_text(&from) {
            return Ok(self.cast_to_text(cast, &from_field));
        }
        if from.is_floating() && to.is_integer() {
            let inner = round_half_even().call(vec![*cast.expr]);
            return Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(inner), field: cast.field })));
        }
        match (&from, &to) {
            (DataType::Float64, DataType::Float32) => {
                return Ok(Transformed::yes(double_to_real().call(vec![*cast.expr])));
            }
            (DataType::Decimal128(..), to) if to.is_floating() => {
                return Ok(Transformed::yes(decimal_to_float(*cast.expr, to)));
            }
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

    fn cast_to_text(&self, cast: Cast, from: &Field) -> Transformed<Expr> {
        let to = cast.field.data_type().clone();
        let target = SqlType::of_field(&cast.field).filter(|target| to == target.arrow());
        // A boolean's cast is `true`, its output `t`: Arrow's cast is PostgreSQL's.
        let text = match SqlType::of_field(from) {
            Some(SqlType::Bool) => Expr::Cast(Cast::new(cast.expr, DataType::Utf8)),
            Some(sql_type) => to_text(*cast.expr, sql_type, &self.environment.format),
            None => return Transformed::no(Expr::Cast(cast)),
        };
        Transformed::yes(match target {
            Some(target) => cast_text(text, &target),
            None => Expr::Cast(Cast::new(Box::new(text), to)),
        })
    }

    /// Between timestamptz and what is read off a clock lies the session's time zone. Infinities stay on every way.
    fn zone_cast(&self, cast: Cast, from: &DataType, to: &DataType) -> Result<Transformed<Expr>> {
        let zone = self.zone.as_deref().unwrap_or(UTC);
        let shifted = |time: Expr| timezone().call(vec![lit(zone), time]);
        let local = match from {
            from if is_timestamptz(from) && is_timestamp(from) => match to {
                DataType::Timestamp(_, None) | DataType::Date32 | DataType::Time64(_) => shifted(*cast.expr),
                _ => return Ok(Transformed::no(Expr::Cast(cast))),
            },
            from if is_timestamp(from) && (*to == DataType::Date32 || is_timestamptz(to)) => *cast.expr,
            DataType::Date32 if matches!(to, DataType::Timestamp(..)) => date_to_timestamp().call(vec![*cast.expr]),
            _ => return Ok(Transformed::no(Expr::Cast(cast))),
        };
        let exact = |expr: Expr, is: SqlType| {
            if *to == is.arrow() { expr } else { Expr::Cast(Cast { expr: Box::new(expr), field: cast.field }) }
        };
        Ok(Transformed::yes(match to {
            DataType::Date32 => timestamp_to_date().call(vec![local]),
            DataType::Timestamp(_, Some(_)) => exact(shifted(local), SqlType::Timestamptz),
            _ => exact(local, SqlType::Timestamp),
        }))
    }

    fn binary(&self, binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let (left, right) = (binary.left.get_type(schema)?, binary.right.get_type(schema)?);
        let BinaryExpr { left: l, op, right: r } = binary;
        if is_text(&left) && is_text(&right) {
            if op == Operator::StringConcat {
                return Ok(Transformed::yes(called("text_concat", vec![*l, *r])?));
            }
            return Ok(char_operands(l, op, r, schema));
        }
        let call =
            |function: Arc<ScalarUDF>, l: Box<Expr>, r: Box<Expr>| Ok(Transformed::yes(function.call(vec![*l, *r])));
        let integers = left.is_integer() && left == right;
        match op {
            Operator::Plus if integers => return call(int_add(), l, r),
            Operator::Minus if integers => return call(int_subtract(), l, r),
            Operator::Multiply if integers => return call(int_multiply(), l, r),
            Operator::Plus if left.is_floating() && left == right => return call(float_add(), l, r),
            Operator::Minus if left.is_floating() && left == right => return call(float_subtract(), l, r),
            Operator::Multiply if left.is_floating() && left == right => return call(float_multiply(), l, r),
            Operator::Divide if left.is_floating() && left == right => return call(float_divide(), l, r),
            Operator::Divide if is_decimal(&left) && is_decimal(&right) => return call(numeric_divide(), l, r),
            Operator::Minus if is_timestamp(&left) && is_timestamp(&right) => return call(time_difference(), l, r),
            Operator::Plus if is_timestamp(&left) && is_interval(&right) => {
                return Ok(Transformed::yes(self.add_interval(time_add(), *l, *r, &left)));
            }
            Operator::Minus if is_timestamp(&left) && is_interval(&right) => {
                return Ok(Transformed::yes(self.add_interval(time_subtract(), *l, *r, &left)));
            }
            Operator::Plus if is_interval(&left) && is_timestamp(&right) => {
                return Ok(Transformed::yes(self.add_interval(time_add(), *r, *l, &right)));
            }
            Operator::Plus if is_interval(&left) && is_interval(&right) => {
                return Ok(Transformed::yes(called("interval_add", vec![*l, *r])?));
            }
            Operator::Minus if is_interval(&left) && is_interval(&right) => {
                return Ok(Transformed::yes(called("interval_subtract", vec![*l, *r])?));
            }
            _ if is_comparison(op) && is_interval(&left) && is_interval(&right) => {
                return Ok(Transformed::yes(binary_expr(ordered(*l), op, ordered(*r))));
            }
            _ => {}
        }
        Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left: l, op, right: r })))
    }

    /// Days and months are added on the session's clocks, hours to the point in time.
    fn add_interval(&self, function: Arc<ScalarUDF>, time: Expr, interval: Expr, time_type: &DataType) -> Expr {
        let has_changes = self.environment.format.time_zone.fixed_offset_s().is_none();
        let mut arguments = vec![time, interval];
        if let Some(zone) = self.zone.as_deref().filter(|_| has_changes && is_timestamptz(time_type)) {
            arguments.push(lit(zone));
        }
        function.call(arguments)
    }

    fn function(&self, mut function: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
        match function.func.name() {
            // Of the text that is shown.
            "octet_length" => {
                for argument in &mut function.args {
                    if let Some(length) = char_length(argument, schema) {
                        *argument = pad_char(std::mem::replace(argument, lit(0)), length);
                    }
                }
                Ok(Transformed::yes(Expr::ScalarFunction(function)))
            }
            "concat" | "concat_ws" | "format" => self.texts_of_arguments(function, schema),
            "array_to_string" => self.texts_of_array(function, schema),
            name if is_bounded(name) => Ok(Transformed::yes(called(name, function.args)?)),
            "age" => self.shown_in_zone(function, schema),
            "make_timestamptz" if function.args.len() == 6 => {
                function.args.extend(self.zone.as_deref().map(lit));
                Ok(Transformed::yes(Expr::ScalarFunction(function)))
            }
            _ => self.time_function(function, schema),
        }
    }

    /// All arguments as the texts that are shown of them.
    fn texts_of_arguments(&self, mut function: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
        for argument in &mut function.args {
            let (_, field) = argument.to_field(schema)?;
            let sql_type = match SqlType::of_field(&field) {
                Some(SqlType::Text | SqlType::Varchar(_)) | None => continue,
                Some(sql_type) => sql_type,
            };
            let value = std::mem::replace(argument, lit(0));
            *argument = match sql_type {
                SqlType::Char(length) => pad_char(value, length),
                sql_type => to_text(value, sql_type, &self.environment.format),
            };
        }
        Ok(Transformed::yes(Expr::ScalarFunction(function)))
    }

    /// The first argument as an array of texts.
    fn texts_of_array(&self, mut function: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let Some(array) = function.args.first_mut() else {
            return Ok(Transformed::no(Expr::ScalarFunction(function)));
        };
        let (_, field) = array.to_field(schema)?;
        if let Some(SqlType::Array(element)) = SqlType::of_field(&field)
            && *element != SqlType::Text
        {
            *array = to_texts(std::mem::replace(array, lit(0)), *element, &self.environment.format);
        }
        Ok(Transformed::yes(Expr::ScalarFunction(function)))
    }

    /// Points in time are looked at on the session's clocks.
    fn shown_in_zone(&self, mut function: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let Some(zone) = self.zone.as_deref() else { return Ok(Transformed::no(Expr::ScalarFunction(function))) };
        for argument in &mut function.args {
            if is_timestamptz(&argument.get_type(schema)?) {
                *argument = timezone().call(vec![lit(zone), std::mem::replace(argument, lit(0))]);
            }
        }
        Ok(Transformed::yes(Expr::ScalarFunction(function)))
    }

    /// `date_trunc`, `date_part` and `extract` look at the session's clocks.
    fn time_function(&self, mut function: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let Some(zone) = &self.zone else { return Ok(Transformed::no(Expr::ScalarFunction(function))) };
        let name = function.func.name();
        let truncates = name == "date_trunc";
        if !(truncates || matches!(name, "date_part" | "extract")) || function.args.len() != 2 {
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

/// A decimal as the nearest float; a constant by its digits.
fn decimal_to_float(expr: Expr, to: &DataType) -> Expr {
    if let Expr::Literal(ScalarValue::Decimal128(Some(value), _, scale), _) = &expr {
        let double = decimal_to_double(*value, *scale);
        if *to == DataType::Float64 {
            return lit(double);
        }
    }
    let double = numeric_to_double().call(vec![expr]);
    if *to == DataType::Float64 { double } else { double_to_real().call(vec![double]) }
}

/// The length of a char(n) expression.
fn char_length(expr: &Expr, schema: &DFSchema) -> Option<u32> {
    // Only these tell a type beyond Arrow's.
    if !matches!(expr, Expr::Column(_) | Expr::ScalarFunction(_) | Expr::Cast(_) | Expr::Alias(_)) {
        return None;
    }
    match SqlType::of_field(&expr.to_field(schema).ok()?.1) {
        Some(SqlType::Char(length)) => Some(length),
        _ => None,
    }
}

/// Takes the spaces off the end of a constant without a type.
fn strip(expr: &mut Expr) {
    if let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = expr {
        text.truncate(text.trim_end_matches(' ').len());
    }
}

/// An operator of texts: a constant beside a char(n) is one, patterns look at its spaces.
fn char_operands(mut left: Box<Expr>, op: Operator, mut right: Box<Expr>, schema: &DFSchema) -> Transformed<Expr> {
    use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
    let changed = match op {
        RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch => match char_length(&left, schema) {
            Some(length) => {
                *left = pad_char(*left, length);
                true
            }
            None => false,
        },
        op if is_comparison(op) && char_length(&left, schema).is_some() => {
            strip(&mut right);
            true
        }
        op if is_comparison(op) && char_length(&right, schema).is_some() => {
            strip(&mut left);
            true
        }
        _ => false,
    };
    let expr = Expr::BinaryExpr(BinaryExpr { left, op, right });
    if changed { Transformed::yes(expr) } else { Transformed::no(expr) }
}

fn has_length(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::Varchar(Some(_)) | SqlType::Char(_))
}

fn same_length(from: &Field, to: &Field) -> bool {
    SqlType::of_field(from) == SqlType::of_field(to)
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
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
