//! What is changed in a query's tree before DataFusion plans it: where both read the same text differently, the text is
//! put so that DataFusion reads what PostgreSQL means.

mod calls;
mod distinct_on;
mod nesting;
mod rows;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    GroupByExpr, Ident, LimitClause, ObjectName, OrderByKind, Query, Select, TableFactor, Value, ValueWithSpan, Visit,
    VisitMut, VisitorMut, WindowFrame, WindowFrameBound, WindowType,
};
use datafusion::sql::sqlparser::tokenizer::Span;
use meridian_proto::types::NUMERIC_UNLIMITED;

use super::calls::{Callable, Shape, function_name};
use super::names::{HIDDEN, name_columns, name_select};
use super::parse::parse_query_text;
use super::similar::similar_to_regex;
use super::types::modifier;
use crate::error::SqlError;

/// Begins the name of the operator that stands for ANY of an array, and for ALL.
const ANY: &str = "any ";
const ALL: &str = "all ";

/// The comparison in the name of such an operator, and whether it is ALL. `None`: another operator.
pub(super) fn parse_quantified(operator: &str) -> Option<(&str, bool)> {
    let any = operator.strip_prefix(ANY).map(|symbol| (symbol, false));
    any.or_else(|| operator.strip_prefix(ALL).map(|symbol| (symbol, true)))
}

/// Rewrites a query.
pub(crate) fn rewrite_query(query: &Query) -> Result<Query, SqlError> {
    let mut query = query.clone();
    name_columns(&mut query);
    run(&mut query)?;
    Ok(query)
}

/// Rewrites an expression that stands alone.
pub(crate) fn rewrite_expression(expr: &Expr) -> Result<Expr, SqlError> {
    let mut expr = expr.clone();
    run(&mut expr)?;
    Ok(expr)
}

fn run(tree: &mut (impl Visit + VisitMut)) -> Result<(), SqlError> {
    nesting::check_nesting(tree)?;
    match tree.visit(&mut Rewriter) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Rewriter;

/// Functions that DataFusion has under a name of PostgreSQL's, with other results. Refused rather than wrong.
const DIFFERENT: [&str; 10] = [
    "current_time",
    "to_char",
    "to_timestamp_millis",
    "to_date",
    "to_number",
    "to_time",
    "to_local_time",
    "regexp_instr",
    "digest",
    "array_dims",
];

impl VisitorMut for Rewriter {
    type Break = Box<SqlError>;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        // While expressions still read as written.
        name_select(select);
        if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
            *exprs = std::mem::take(exprs).into_iter().flat_map(columns_of_row).collect();
        }
        flow(lift_chunks(select).and_then(|()| calls::series_to_table(select)))
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<Self::Break> {
        flow(rewrite_table_function(table).and_then(|()| calls::name_function_column(table)))
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
            exprs.iter_mut().for_each(unwrap_number);
        }
        if let Some(ast::Distinct::On(exprs)) = &mut select.distinct {
            exprs.iter_mut().for_each(unwrap_number);
        }
        for ast::NamedWindowDefinition(_, definition) in &mut select.named_window {
            if let ast::NamedWindowExpr::WindowSpec(spec) = definition {
                spec.window_frame.iter_mut().for_each(unwrap_frame);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        if let Some(order_by) = &mut query.order_by
            && let OrderByKind::Expressions(exprs) = &mut order_by.kind
        {
            exprs.iter_mut().for_each(|order| unwrap_number(&mut order.expr));
        }
        distinct_on::order_as_sorted(query);
        if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause {
            limit.iter_mut().for_each(unwrap_number);
            offset.iter_mut().for_each(|offset| unwrap_number(&mut offset.value));
            // LIMIT NULL is LIMIT ALL.
            if limit.as_ref().is_some_and(is_null) {
                *limit = None;
            }
        }
        flow(fetch_to_limit(query).and_then(|()| check_limits(query)))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        // From outside in: what is left of rows where they are visited themselves is not part of a comparison.
        let rewritten = rows::compare_rows(expr).map(|compared| {
            if let Some(compared) = compared {
                *expr = compared;
            }
        });
        flow(rewritten)
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        flow(rewrite_node(expr))
    }
}

/// `GROUP BY (a, b)` is `GROUP BY a, b`.
fn columns_of_row(expr: Expr) -> Vec<Expr> {
    match expr {
        Expr::Tuple(columns) => columns,
        expr => vec![expr],
    }
}

/// Whether a literal with an exponent has more digits before and behind the point than a numeric.
fn is_beyond_numeric(number: &str) -> bool {
    let Some((mantissa, exponent)) = number.split_once(['e', 'E']) else { return false };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let Ok(exponent) = exponent.parse::<i64>() else { return false };
    let before = whole.trim_start_matches('0').len() as i64 + exponent;
    let behind = fraction.len() as i64 - exponent;
    before.max(0) + behind.max(0) > i64::from(NUMERIC_UNLIMITED.0)
}

fn flow(result: Result<(), SqlError>) -> ControlFlow<Box<SqlError>> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}

fn rewrite_node(expr: &mut Expr) -> Result<(), SqlError> {
    match expr {
        // Whole numbers are integer if they fit, else bigint; DataFusion's are all bigint.
        Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) if number.parse::<i32>().is_ok() => {
            *expr = cast(expr.clone(), DataType::Integer(None));
        }
        // PostgreSQL's numeric holds it, ours does not; as what it mostly stands beside it can be had.
        Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) if is_beyond_numeric(number) => {
            *expr = cast(string(number.clone()), DataType::DoublePrecision);
        }
        Expr::Function(function) => {
            rewrite_function(function)?;
            if let Some(WindowType::WindowSpec(spec)) = &mut function.over {
                spec.window_frame.iter_mut().for_each(unwrap_frame);
            }
            if let Some(replacement) = zoned_date_trunc(function)
                .or_else(|| modulo(function))
                .or_else(|| number_of_row(function))
                .or_else(|| calls::age_today(function))
                .or_else(|| calls::rounded_clock(function))
            {
                *expr = replacement;
            }
        }
        Expr::AtTimeZone { timestamp, time_zone } => {
            *expr = call("timezone", vec![(**time_zone).clone(), (**timestamp).clone()]);
        }
        Expr::AnyOp { left, compare_op, right, .. } if !matches!(**right, Expr::Subquery(_)) => {
            *expr = quantified(left, compare_op, right, false);
        }
        Expr::AllOp { left, compare_op, right } if !matches!(**right, Expr::Subquery(_)) => {
            *expr = quantified(left, compare_op, right, true);
        }
        Expr::Interval(interval) => {
            if let Some(cast) = interval_cast(interval)? {
                *expr = cast;
            }
        }
        Expr::Cast { expr: text, data_type: data_type @ DataType::Interval { .. }, .. } => give_unit(text, data_type)?,
        Expr::SimilarTo { negated, expr: text, pattern, escape_char } => {
            let regex = similar_pattern(pattern, escape_char.as_ref())?;
            let op = if *negated { ast::BinaryOperator::PGRegexNotMatch } else { ast::BinaryOperator::PGRegexMatch };
            let matched = Expr::BinaryOp { left: text.clone(), op, right: Box::new(string(regex)) };
            *expr = Expr::Nested(Box::new(matched));
        }
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedByteStringLiteral(_), .. }) => {
            return Err(SqlError::unsupported("bit string literals are not supported"));
        }
        Expr::Value(ValueWithSpan { value: Value::UnicodeStringLiteral(text), .. }) => {
            *expr = string(std::mem::take(text));
        }
        Expr::Collate { expr: inner, collation } => {
            *expr = collated(inner, collation)?;
        }
        Expr::Substring { expr: text, substring_from: Some(pattern), substring_for: None, .. } if is_text(pattern) => {
            *expr = call("substring_matching", vec![(**text).clone(), (**pattern).clone()]);
        }
        Expr::Tuple(_) => return Err(rows::unsupported()),
        Expr::UnaryOp { op, expr: inner } => {
            if let Some(function) = operator_function(*op)? {
                *expr = call(function, vec![(**inner).clone()]);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Texts are compared byte by byte, which is what these collations mean.
fn collated(expr: &Expr, collation: &ObjectName) -> Result<Expr, SqlError> {
    let name = collation.0.last().and_then(|part| part.as_ident()).map(|name| name.value.clone()).unwrap_or_default();
    if ["C", "POSIX", "ucs_basic"].contains(&name.as_str()) {
        return Ok(expr.clone());
    }
    Err(SqlError::unsupported(format!("COLLATE \"{name}\" is not supported"))
        .with_hint("Texts are ordered by their bytes, as with COLLATE \"C\"."))
}

/// The function behind a unary operator. `None`: DataFusion knows the operator.
fn operator_function(op: ast::UnaryOperator) -> Result<Option<&'static str>, SqlError> {
    use ast::UnaryOperator::{BitwiseNot, Minus, Not, PGAbs, PGCubeRoot, PGSquareRoot, Plus};
    match op {
        Plus | Minus | Not => Ok(None),
        BitwiseNot => Ok(Some("bitwise_not")),
        PGAbs => Ok(Some("abs")),
        PGSquareRoot => Ok(Some("sqrt")),
        PGCubeRoot => Ok(Some("cbrt")),
        other => Err(SqlError::unsupported(format!("operator {other} is not supported"))),
    }
}

fn rewrite_function(function: &mut Function) -> Result<(), SqlError> {
    if function.name.0.len() == 2
        && let Some(schema) = function.name.0[0].as_ident()
        && ["pg_catalog", "public", "timescaledb"].contains(&schema.value.to_ascii_lowercase().as_str())
    {
        function.name.0.remove(0);
    }
    if let Some(callable) = function_name(&function.name).and_then(|name| Callable::find(&name)) {
        return rewrite_call(function, callable);
    }
    let name = match function.name.0.as_slice() {
        [part] => part.as_ident().map(|name| name.value.to_ascii_lowercase()).unwrap_or_default(),
        _ => return Ok(()),
    };
    calls::place_arguments(&name, function)?;
    if name == "generate_series" {
        return Err(SqlError::unsupported("set-returning functions are not supported here")
            .with_hint("Put the function into FROM."));
    }
    let arguments = match &function.args {
        FunctionArguments::List(list) => list.args.len(),
        _ => 0,
    };
    if DIFFERENT.contains(&name.as_str()) || (name == "to_timestamp" && arguments != 1) {
        return Err(SqlError::unsupported(format!("function {name} is not supported yet")));
    }
    if matches!(name.as_str(), "round" | "trunc")
        && let FunctionArguments::List(list) = &mut function.args
        && let [_, FunctionArg::Unnamed(FunctionArgExpr::Expr(digits))] = list.args.as_mut_slice()
    {
        // A constant that is seen as one: it decides the type of the result.
        match digits {
            Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => unwrap_number(expr),
            digits => unwrap_number(digits),
        }
    }
    const OF_ROWS: [&str; 6] = ["first_value", "lag", "last_value", "lead", "nth_value", "ntile"];
    if OF_ROWS.contains(&name.as_str())
        && matches!(&function.args, FunctionArguments::List(list) if list.args.is_empty())
    {
        return Err(SqlError::new("42883", format!("function {name}() does not exist")));
    }
    if name == "nth_value"
        && let FunctionArguments::List(list) = &function.args
        && let [_, FunctionArg::Unnamed(FunctionArgExpr::Expr(place))] = list.args.as_slice()
        && (is_negative(place) || is_zero(place))
    {
        return Err(SqlError::new("22016", "argument of nth_value must be greater than zero"));
    }
    let postgres_name = match name.as_str() {
        "gen_random_uuid" => "uuid",
        "every" => "bool_and",
        "variance" => "var_samp",
        "stddev" => "stddev_samp",
        _ => return Ok(()),
    };
    function.name = ObjectName::from(vec![Ident::new(postgres_name)]);
    Ok(())
}

/// A call in an expression, with all its arguments by position.
fn rewrite_call(function: &mut Function, callable: &Callable) -> Result<(), SqlError> {
    let FunctionArguments::List(list) = &mut function.args else { return Ok(()) };
    let name = &function.name;
    match callable.shape {
        Shape::Scalar => list.args = callable.arguments(&list.args)?,
        Shape::Procedure => {
            let types = vec!["unknown"; list.args.len()].join(", ");
            return Err(SqlError::new("42809", format!("{name}({types}) is a procedure"))
                .with_hint("To call a procedure, use CALL."));
        }
        Shape::SetOfScalars | Shape::Table => {
            return Err(SqlError::unsupported(format!("{name} returns rows, which is not supported here"))
                .with_hint(format!("SELECT * FROM {name}(...).")));
        }
    }
    Ok(())
}

/// A function in FROM, with all its arguments by position.
fn rewrite_table_function(table: &mut TableFactor) -> Result<(), SqlError> {
    let (name, args, alias) = match table {
        TableFactor::Table { name, args: Some(args), alias, .. } => (name, &mut args.args, alias),
        TableFactor::Function { name, args, alias, .. } => (name, args, alias),
        _ => return Ok(()),
    };
    let Some(callable) = function_name(name).and_then(|name| Callable::find(&name)) else { return Ok(()) };
    if matches!(callable.shape, Shape::SetOfScalars | Shape::Table) {
        *args = callable.arguments(args)?;
        *name = ObjectName::from(vec![Ident::new(callable.name)]);
        callable.name_columns(alias);
    }
    Ok(())
}

/// `SELECT compress_chunk(show_chunks('t'))`: the chunks are read FROM a table of their own.
fn lift_chunks(select: &mut Select) -> Result<(), SqlError> {
    let mut lift = Lift::default();
    for item in &mut select.projection {
        if let ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. } = item {
            // Never broken off.
            let _ = expr.visit(&mut lift);
        }
    }
    let call = match lift.calls.as_slice() {
        [] => return Ok(()),
        [call] => call,
        _ => return Err(SqlError::unsupported("several calls of show_chunks in one SELECT list are not supported")),
    };
    if select
        .projection
        .iter()
        .any(|item| matches!(item, ast::SelectItem::Wildcard(_) | ast::SelectItem::QualifiedWildcard(..)))
    {
        return Err(SqlError::unsupported("show_chunks beside * is not supported").with_hint("Call it in FROM."));
    }
    let text = format!("SELECT 1 FROM {call} AS \"{HIDDEN}chunks\"");
    let query = parse_query_text(&text)?;
    if let ast::SetExpr::Select(lifted) = query.body.as_ref() {
        select.from.extend(lifted.from.iter().cloned());
    }
    Ok(())
}

/// Takes the calls of `show_chunks` out of expressions.
#[derive(Default)]
struct Lift {
    calls: Vec<String>,
}

impl VisitorMut for Lift {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let callable = function_name(&function.name).and_then(|name| Callable::find(&name));
        if callable.is_some_and(|callable| callable.shape == Shape::SetOfScalars) {
            self.calls.push(function.to_string());
            *expr = Expr::Identifier(Ident::with_quote('"', format!("{HIDDEN}chunks")));
        }
        ControlFlow::Continue(())
    }
}

/// ANY and ALL of an array, as operators of their own that are planned by the types of their operands.
fn quantified(left: &Expr, op: &ast::BinaryOperator, right: &Expr, all: bool) -> Expr {
    let op = ast::BinaryOperator::Custom(format!("{}{op}", if all { ALL } else { ANY }));
    Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(left.clone()), op, right: Box::new(right.clone()) }))
}

/// Functions that count, with PostgreSQL's types; DataFusion's are unsigned.
fn number_of_row(function: &Function) -> Option<Expr> {
    let data_type = match function.name.0.last()?.as_ident()?.value.to_ascii_lowercase().as_str() {
        "row_number" | "rank" | "dense_rank" if function.over.is_some() => DataType::BigInt(None),
        "ntile" if function.over.is_some() => DataType::Integer(None),
        "array_position" | "array_ndims" => DataType::Integer(None),
        _ => return None,
    };
    Some(cast(Expr::Function(function.clone()), data_type))
}

/// `mod(a, b)` is `a % b`.
fn modulo(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    if !function.name.0.last()?.as_ident()?.value.eq_ignore_ascii_case("mod") {
        return None;
    }
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(left)), FunctionArg::Unnamed(FunctionArgExpr::Expr(right))] =
        list.args.as_slice()
    else {
        return None;
    };
    let nested = |expr: &Expr| Box::new(Expr::Nested(Box::new(expr.clone())));
    let remainder = Expr::BinaryOp { left: nested(left), op: ast::BinaryOperator::Modulo, right: nested(right) };
    Some(Expr::Nested(Box::new(remainder)))
}

/// `date_trunc(unit, time, zone)`.
fn zoned_date_trunc(function: &Function) -> Option<Expr> {
    let name = function.name.0.last()?.as_ident()?;
    let FunctionArguments::List(list) = &function.args else { return None };
    if !name.value.eq_ignore_ascii_case("date_trunc") {
        return None;
    }
    let [unit, time, zone] = list.args.as_slice() else { return None };
    let plain = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    let (unit, time, zone) = (plain(unit)?, plain(time)?, plain(zone)?);
    let local = call("timezone", vec![zone.clone(), time]);
    Some(call("timezone", vec![zone, call("date_trunc", vec![unit, local])]))
}

/// `INTERVAL '90' MINUTE` and the like as a cast of the text. `None`: not a plain literal.
fn interval_cast(interval: &ast::Interval) -> Result<Option<Expr>, SqlError> {
    let text = match interval.value.as_ref() {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => text.as_str(),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    // What stands behind the first field is of it: only seconds have digits.
    let digits = interval.fractional_seconds_precision.or(interval.leading_precision);
    let data_type = DataType::Interval { fields: fields_of(interval)?, precision: digits };
    let text = match modifier(&data_type)? {
        Some(modifier) => modifier.with_unit(text).into_owned(),
        None => text.to_owned(),
    };
    Ok(Some(cast(string(text), data_type)))
}

/// The fields that stand behind an interval's text.
fn fields_of(interval: &ast::Interval) -> Result<Option<ast::IntervalFields>, SqlError> {
    use ast::DateTimeField::{Day, Hour, Minute, Month, Second, Year};
    use ast::IntervalFields as Fields;
    let fields = match (&interval.leading_field, &interval.last_field) {
        (None, None) => return Ok(None),
        (Some(Year), None) => Fields::Year,
        (Some(Month), None) => Fields::Month,
        (Some(Day), None) => Fields::Day,
        (Some(Hour), None) => Fields::Hour,
        (Some(Minute), None) => Fields::Minute,
        (Some(Second), None) => Fields::Second,
        (Some(Year), Some(Month)) => Fields::YearToMonth,
        (Some(Day), Some(Hour)) => Fields::DayToHour,
        (Some(Day), Some(Minute)) => Fields::DayToMinute,
        (Some(Day), Some(Second)) => Fields::DayToSecond,
        (Some(Hour), Some(Minute)) => Fields::HourToMinute,
        (Some(Hour), Some(Second)) => Fields::HourToSecond,
        (Some(Minute), Some(Second)) => Fields::MinuteToSecond,
        _ => return Err(SqlError::new("42601", format!("syntax error in {interval}"))),
    };
    Ok(Some(fields))
}

/// A text that is cast to an interval of some fields: a number alone counts the smallest of them.
fn give_unit(text: &mut Expr, data_type: &DataType) -> Result<(), SqlError> {
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = text else { return Ok(()) };
    if let Some(modifier) = modifier(data_type)? {
        *text = modifier.with_unit(text).into_owned();
    }
    Ok(())
}

fn similar_pattern(pattern: &Expr, escape: Option<&ValueWithSpan>) -> Result<String, SqlError> {
    let literal = |expr: &Expr| match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    };
    let escape = match escape.map(|value| &value.value) {
        None => Some('\\'),
        Some(Value::SingleQuotedString(text)) if text.chars().count() <= 1 => text.chars().next(),
        Some(_) => {
            return Err(SqlError::new("22019", "invalid escape string")
                .with_hint("Escape string must be empty or one character."));
        }
    };
    match literal(pattern) {
        Some(pattern) => similar_to_regex(&pattern, escape),
        None => Err(SqlError::unsupported("SIMILAR TO with a pattern that is not a constant is not supported")),
    }
}

fn fetch_to_limit(query: &mut Query) -> Result<(), SqlError> {
    let Some(fetch) = query.fetch.take() else { return Ok(()) };
    if fetch.with_ties || fetch.percent {
        return Err(SqlError::unsupported("FETCH FIRST ... WITH TIES is not supported"));
    }
    let mut quantity = fetch.quantity.unwrap_or_else(|| number(1));
    unwrap_number(&mut quantity);
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit, .. }) => *limit = Some(quantity),
        clause => *clause = Some(LimitClause::LimitOffset { limit: Some(quantity), offset: None, limit_by: vec![] }),
    }
    Ok(())
}

/// A count below zero is refused by name; DataFusion reads it otherwise.
fn check_limits(query: &Query) -> Result<(), SqlError> {
    let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause else { return Ok(()) };
    if limit.as_ref().is_some_and(is_negative) {
        return Err(SqlError::new("2201W", "LIMIT must not be negative"));
    }
    if offset.as_ref().is_some_and(|offset| is_negative(&offset.value)) {
        return Err(SqlError::new("2201X", "OFFSET must not be negative"));
    }
    Ok(())
}

fn is_negative(expr: &Expr) -> bool {
    let mut inner = match expr {
        Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => (**expr).clone(),
        Expr::Nested(inner) => return is_negative(inner),
        _ => return false,
    };
    unwrap_number(&mut inner);
    matches!(&inner, Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. })
        if number.parse::<f64>().is_ok_and(|number| number > 0.0))
}

fn is_zero(expr: &Expr) -> bool {
    let mut inner = expr.clone();
    unwrap_number(&mut inner);
    matches!(&inner, Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. })
        if number.parse::<f64>().is_ok_and(|number| number == 0.0))
}

/// A literal in quotes.
fn is_text(expr: &Expr) -> bool {
    let Expr::Value(ValueWithSpan { value, .. }) = expr else { return false };
    matches!(value, Value::SingleQuotedString(_) | Value::EscapedStringLiteral(_) | Value::DollarQuotedString(_))
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(ValueWithSpan { value: Value::Null, .. }))
}

fn unwrap_frame(frame: &mut WindowFrame) {
    let bound = |bound: &mut WindowFrameBound| {
        if let WindowFrameBound::Preceding(Some(expr)) | WindowFrameBound::Following(Some(expr)) = bound {
            unwrap_number(expr);
            unwrap_interval(expr);
        }
    };
    bound(&mut frame.start_bound);
    frame.end_bound.iter_mut().for_each(bound);
}

/// Undoes the cast of a number where it is a position or a count.
fn unwrap_number(expr: &mut Expr) {
    if let Expr::Cast { expr: inner, data_type: DataType::Integer(None), .. } = expr
        && matches!(**inner, Expr::Value(ValueWithSpan { value: Value::Number(..), .. }))
    {
        *expr = (**inner).clone();
    }
}

/// DataFusion takes a frame's interval as a literal only.
fn unwrap_interval(expr: &mut Expr) {
    if let Expr::Cast { expr: inner, data_type: DataType::Interval { .. }, .. } = expr {
        *expr = Expr::Interval(ast::Interval {
            value: inner.clone(),
            leading_field: None,
            leading_precision: None,
            last_field: None,
            fractional_seconds_precision: None,
        });
    }
}

fn value(value: Value) -> Expr {
    Expr::Value(ValueWithSpan { value, span: Span::empty() })
}

fn string(text: String) -> Expr {
    value(Value::SingleQuotedString(text))
}

fn number(number: u64) -> Expr {
    value(Value::Number(number.to_string(), false))
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse::{parse_expression, parse_query_text};
    use super::*;

    fn check(sql: &str, expected: &str) {
        assert_eq!(rewrite_expression(&parse_expression(sql).unwrap()).unwrap().to_string(), expected);
    }

    #[test]
    fn expressions_are_put_in_datafusions_words() {
        check("a + 1", "a + CAST(1 AS INTEGER)");
        check("3000000000", "3000000000");
        check("INTERVAL '90' MINUTE", "CAST('90 minute' AS INTERVAL MINUTE)");
        check("t AT TIME ZONE 'UTC'", "timezone('UTC', t)");
        check("pg_catalog.version()", "version()");
        check("mod(a, b)", "((a) % (b))");
        check("round(a, -2)", "round(a, -2)");
        check("row_number() OVER ()", "CAST(row_number() OVER () AS BIGINT)");
        check("a SIMILAR TO '(b|c)%'", "(a ~ '^(?:(?:b|c).*)$')");
        check("date_trunc('day', t, 'UTC')", "timezone('UTC', date_trunc('day', timezone('UTC', t)))");
    }

    #[test]
    fn positions_and_counts_stay_numbers() {
        let query =
            parse_query_text("SELECT a, 1 FROM t GROUP BY 1 ORDER BY 2 OFFSET 3 FETCH FIRST 5 ROWS ONLY").unwrap();
        let text = rewrite_query(&query).unwrap().to_string();
        assert_eq!(text, "SELECT a, CAST(1 AS INTEGER) AS \"?column?\" FROM t GROUP BY 1 ORDER BY 2 LIMIT 5 OFFSET 3");
    }

    #[test]
    fn distinct_on_is_put_in_the_order_of_order_by() {
        let check = |on: &str, order: &str, expected: &str| {
            let query = parse_query_text(&format!("SELECT DISTINCT ON ({on}) a FROM t ORDER BY {order}")).unwrap();
            let text = rewrite_query(&query).unwrap().to_string();
            assert_eq!(text, format!("SELECT DISTINCT ON ({expected}"));
        };
        check("a, b, c", "c DESC, a, b, d", "c, a, b) a FROM t ORDER BY c DESC, a, b, d");
        check("a, upper(b)", "upper(b) DESC", "upper(b), a) a FROM t ORDER BY upper(b) DESC, a");
        check("a, b", "b, c", "b, a) a FROM t ORDER BY b, c");
        check("1, b", "b, 1", "b, a) a FROM t ORDER BY b, a");
        check("a, b", "c, b", "a, b) a FROM t ORDER BY c, b");
    }

    #[test]
    fn chunks_in_a_select_list_are_read_from_a_table() {
        let check = |sql: &str, expected: &str| {
            let text = rewrite_query(&parse_query_text(sql).unwrap()).unwrap().to_string();
            assert_eq!(text.replace(HIDDEN, "%"), expected, "{sql}");
        };
        check(
            "SELECT c FROM public.Show_Chunks('t', newer_than => a) c",
            "SELECT c FROM show_chunks('t', NULL, a, NULL, NULL) c (c)",
        );
        check(
            "SELECT compress_chunk(show_chunks('t'), if_not_compressed => true)",
            "SELECT compress_chunk(\"%chunks\", true) AS \"compress_chunk\" \
             FROM show_chunks('t', NULL, NULL, NULL, NULL) AS \"%chunks\" (\"%chunks\")",
        );
        let refused = |sql: &str| rewrite_query(&parse_query_text(sql).unwrap()).unwrap_err();
        assert_eq!(refused("SELECT recompress_chunk('c')").message, "recompress_chunk(unknown) is a procedure");
        assert_eq!(refused("SELECT chunk_compression_stats('t')").sqlstate, "0A000");
        assert_eq!(refused("SELECT * FROM show_chunks()").message, "function show_chunks() does not exist");
    }

    #[test]
    fn functions_that_mean_something_else_are_refused() {
        let error = rewrite_expression(&parse_expression("to_char(t, 'YYYY')").unwrap()).unwrap_err();
        assert_eq!(error.sqlstate, "0A000");
    }
}
