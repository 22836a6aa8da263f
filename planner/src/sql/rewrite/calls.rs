//! Calls of functions: named arguments in their places, and functions that give sets where tables stand.

use datafusion::sql::sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    Select, SelectItem, TableAlias, TableAliasColumnDef, TableFactor, TableFunctionArgs, TableWithJoins, TimezoneInfo,
    Value, ValueWithSpan,
};

use super::{call, cast, number, unwrap_number, value};
use crate::error::SqlError;

/// Arguments of `time_bucket` by name, in the order of its longest form.
const TIME_BUCKET: [&str; 5] = ["bucket_width", "ts", "timezone", "origin", "offset"];

/// The function whose column has the name of its alias.
const SERIES: &str = "generate_series";

/// Puts named arguments in their places.
pub(super) fn place_arguments(name: &str, function: &mut Function) -> Result<(), SqlError> {
    let FunctionArguments::List(list) = &mut function.args else { return Ok(()) };
    if !list.args.iter().any(is_named) {
        return Ok(());
    }
    if name == "make_interval" {
        return place_parts(list);
    }
    if name != "time_bucket" {
        return Err(SqlError::unsupported(format!("named arguments of function {name} are not supported")));
    }
    let mut places: [Option<Expr>; 5] = [const { None }; 5];
    let mut named = false;
    for (index, argument) in std::mem::take(&mut list.args).into_iter().enumerate() {
        let (place, expr) = match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(_)) if named => {
                return Err(SqlError::new("42601", "positional argument cannot follow named argument"));
            }
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => (Some(index), expr),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. }
            | FunctionArg::ExprNamed { name: Expr::Identifier(name), arg: FunctionArgExpr::Expr(expr), .. } => {
                named = true;
                (TIME_BUCKET.iter().position(|known| name.value.eq_ignore_ascii_case(known)), expr)
            }
            _ => (None, value(Value::Null)),
        };
        match place.and_then(|place| places.get_mut(place)) {
            Some(place) if place.is_none() => *place = Some(expr),
            _ => return Err(no_such_form()),
        }
    }
    list.args = positional(places)?.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
    Ok(())
}

/// Parts of an interval by name, in the order of `make_interval`.
const INTERVAL_PARTS: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];

/// Those that are not given are 0.
fn place_parts(list: &mut FunctionArgumentList) -> Result<(), SqlError> {
    let unknown = || SqlError::new("42883", "function make_interval does not exist with these arguments");
    let mut parts: [Option<Expr>; 7] = [const { None }; 7];
    for (index, argument) in std::mem::take(&mut list.args).into_iter().enumerate() {
        let (place, expr) = match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => (Some(index), expr),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. }
            | FunctionArg::ExprNamed { name: Expr::Identifier(name), arg: FunctionArgExpr::Expr(expr), .. } => {
                (INTERVAL_PARTS.iter().position(|known| name.value.eq_ignore_ascii_case(known)), expr)
            }
            _ => return Err(unknown()),
        };
        match place.and_then(|place| parts.get_mut(place)) {
            Some(part) if part.is_none() => *part = Some(expr),
            _ => return Err(unknown()),
        }
    }
    let zero = || cast(number(0), DataType::Integer(None));
    let parts = parts.into_iter().map(|part| FunctionArg::Unnamed(FunctionArgExpr::Expr(part.unwrap_or_else(zero))));
    list.args = parts.collect();
    Ok(())
}

fn is_named(argument: &FunctionArg) -> bool {
    !matches!(argument, FunctionArg::Unnamed(_))
}

fn no_such_form() -> SqlError {
    SqlError::new("42883", "function time_bucket does not exist with these arguments")
        .with_hint("No function matches the given name and argument types. You might need to add explicit type casts.")
}

/// Only behind a time zone are there both an origin and an offset.
fn positional(places: [Option<Expr>; 5]) -> Result<Vec<Expr>, SqlError> {
    let [Some(width), Some(time), timezone, origin, offset] = places else { return Err(no_such_form()) };
    let null = || value(Value::Null);
    Ok(match (timezone, origin, offset) {
        (Some(zone), None, None) => vec![width, time, zone],
        (Some(zone), origin, offset) => {
            vec![width, time, zone, origin.unwrap_or_else(null), offset.unwrap_or_else(null)]
        }
        (None, Some(_), Some(_)) => return Err(no_such_form()),
        (None, Some(origin), None) => {
            let timestamptz = DataType::Timestamp(None, TimezoneInfo::Tz);
            vec![width, time, typed(origin, timestamptz)]
        }
        (None, None, Some(offset)) => {
            vec![width, time, typed(offset, DataType::Interval { fields: None, precision: None })]
        }
        (None, None, None) => vec![width, time],
    })
}

/// A literal without a type, which would be read as a time zone there.
fn typed(expr: Expr, data_type: DataType) -> Expr {
    match &expr {
        Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(_) | Value::EscapedStringLiteral(_) | Value::DollarQuotedString(_),
            ..
        }) => cast(expr, data_type),
        _ => expr,
    }
}

/// `age(time)` is counted from the midnight that today began with.
pub(super) fn age_today(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(time))] = list.args.as_slice() else { return None };
    let today = call("current_date", vec![]);
    (function_name(&function.name)? == "age").then(|| call("age", vec![today, time.clone()]))
}

/// `current_timestamp(3)`: with so many digits.
pub(super) fn rounded_clock(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(digits))] = list.args.as_slice() else { return None };
    let mut digits = digits.clone();
    unwrap_number(&mut digits);
    let Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) = digits else { return None };
    let digits = Some(digits.parse().ok()?);
    let name = function_name(&function.name)?;
    let data_type = match name.as_str() {
        "current_timestamp" => DataType::Timestamp(digits, TimezoneInfo::Tz),
        "localtimestamp" => DataType::Timestamp(digits, TimezoneInfo::None),
        "localtime" => DataType::Time(digits, TimezoneInfo::None),
        _ => return None,
    };
    Some(cast(call(&name, vec![]), data_type))
}

/// The column of a function in FROM has the name of the function's alias, or of the function.
pub(super) fn name_function_column(table: &mut TableFactor) -> Result<(), SqlError> {
    let unsupported = || SqlError::unsupported("WITH ORDINALITY is not supported");
    match table {
        TableFactor::Table { name, args: Some(_), alias, with_ordinality, .. } => {
            if *with_ordinality {
                return Err(unsupported());
            }
            let Some(function) = function_name(name) else { return Ok(()) };
            *name = ObjectName::from(vec![Ident::new(function.clone())]);
            if function == SERIES {
                name_column(alias, &function);
            }
        }
        TableFactor::Function { name, alias, .. } if function_name(name).is_some_and(|name| name == SERIES) => {
            *name = ObjectName::from(vec![Ident::new(SERIES)]);
            name_column(alias, SERIES);
        }
        TableFactor::UNNEST { array_exprs, alias, with_ordinality, .. } => {
            if *with_ordinality {
                return Err(unsupported());
            }
            if array_exprs.len() == 1 {
                name_column(alias, "unnest");
            }
        }
        _ => {}
    }
    Ok(())
}

/// The function's name in small letters, without PostgreSQL's own schema.
fn function_name(name: &ObjectName) -> Option<String> {
    let parts = match name.0.as_slice() {
        [schema, rest @ ..] if schema.as_ident().is_some_and(|s| s.value.eq_ignore_ascii_case("pg_catalog")) => rest,
        parts => parts,
    };
    match parts {
        [name] => name.as_ident().map(|name| match name.quote_style {
            Some(_) => name.value.clone(),
            None => name.value.to_lowercase(),
        }),
        _ => None,
    }
}

fn name_column(alias: &mut Option<TableAlias>, function: &str) {
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::new(function),
        columns: vec![],
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
    }
}

/// `SELECT generate_series(...)` without FROM reads the series as a table.
pub(super) fn series_to_table(select: &mut Select) -> Result<(), SqlError> {
    let is_series = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => series_call(expr).is_some(),
        _ => false,
    };
    if !select.projection.iter().any(is_series) {
        return Ok(());
    }
    let [item] = select.projection.as_mut_slice() else { return Err(set_beside_rows()) };
    if !select.from.is_empty() {
        return Err(set_beside_rows());
    }
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { return Ok(()) };
    let Some(args) = series_call(expr) else { return Ok(()) };
    let table = TableFactor::Table {
        name: ObjectName::from(vec![Ident::new(SERIES)]),
        alias: None,
        args: Some(TableFunctionArgs { args, settings: None }),
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    };
    *expr = Expr::Identifier(Ident::new(SERIES));
    select.from = vec![TableWithJoins { relation: table, joins: vec![] }];
    Ok(())
}

fn set_beside_rows() -> SqlError {
    SqlError::unsupported("set-returning functions in a SELECT list with other columns or FROM are not supported")
        .with_hint("Put the function into FROM.")
}

fn series_call(expr: &Expr) -> Option<Vec<FunctionArg>> {
    match expr {
        Expr::Function(Function { name, args: FunctionArguments::List(list), over: None, .. })
            if function_name(name).is_some_and(|name| name == SERIES) =>
        {
            Some(list.args.clone())
        }
        _ => None,
    }
}
