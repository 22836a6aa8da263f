//! Calls that turn a table into a hypertable: `create_hypertable` and `create_distributed_hypertable`, with positional
//! and named arguments, in the classic form and in that with `by_range` and `by_hash`. They are taken out of a SELECT
//! before anything is planned.

use datafusion::sql::sqlparser::ast::{
    self, CastKind, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, SelectItem, SetExpr, TableFactor,
    Value,
};
use meridian_pgtypes::parse_interval;
use meridian_proto::time::US_PER_DAY;

use super::statement::{ChunkInterval, HypertableCall, Name, Statement};
use crate::error::SqlError;

const CLASSIC: [&str; 17] = [
    "relation",
    "time_column_name",
    "partitioning_column",
    "number_partitions",
    "associated_schema_name",
    "associated_table_prefix",
    "chunk_time_interval",
    "create_default_indexes",
    "if_not_exists",
    "partitioning_func",
    "migrate_data",
    "chunk_target_size",
    "chunk_sizing_func",
    "time_partitioning_func",
    "replication_factor",
    "data_nodes",
    "distributed",
];
const GENERALIZED: [&str; 5] = ["relation", "dimension", "create_default_indexes", "if_not_exists", "migrate_data"];

/// Functions of TimescaleDB that change the cluster, which other commands do here.
const NODE_FUNCTIONS: [&str; 8] = [
    "add_data_node",
    "delete_data_node",
    "attach_data_node",
    "detach_data_node",
    "alter_data_node",
    "add_dimension",
    "set_number_partitions",
    "set_replication_factor",
];

/// The special statement that a query is, if it is one.
pub(super) fn find_call(query: &ast::Query) -> Option<Result<Statement, SqlError>> {
    let (function, as_table) = sole_function(query)?;
    let name = function.name.0.last()?.as_ident()?.value.to_ascii_lowercase();
    let name = match name.as_str() {
        "create_hypertable" => "create_hypertable",
        "create_distributed_hypertable" => "create_distributed_hypertable",
        other if NODE_FUNCTIONS.contains(&other) => {
            let error = SqlError::unsupported(format!("function {other} is not supported"))
                .with_hint("Data nodes join by themselves: meridian start --role data --join; see meridian node list.");
            return Some(Err(error));
        }
        _ => return None,
    };
    let FunctionArguments::List(list) = &function.args else { return None };
    Some(parse_call(name, as_table, &list.args).map(|call| Statement::CreateHypertable(call.into())))
}

/// The function of `SELECT f(...)`, `SELECT (f(...)).*` or `SELECT * FROM f(...)`.
fn sole_function(query: &ast::Query) -> Option<(Function, bool)> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [item] = select.projection.as_slice() else { return None };
    match (item, select.from.as_slice()) {
        (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }, []) => match expr {
            Expr::Function(function) => Some((function.clone(), false)),
            _ => None,
        },
        (SelectItem::Wildcard(_), [from]) if from.joins.is_empty() => match &from.relation {
            TableFactor::Table { name, args: Some(args), .. } => {
                let list =
                    ast::FunctionArgumentList { duplicate_treatment: None, args: args.args.clone(), clauses: vec![] };
                let function = Function {
                    name: name.clone(),
                    uses_odbc_syntax: false,
                    parameters: FunctionArguments::None,
                    args: FunctionArguments::List(list),
                    filter: None,
                    null_treatment: None,
                    over: None,
                    within_group: vec![],
                };
                Some((function, true))
            }
            _ => None,
        },
        _ => None,
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Argument {
    Null,
    Text(String),
    Integer(i64),
    Bool(bool),
    IntervalUs(i64),
    Texts(Vec<String>),
    Range { column: String, interval: Option<ChunkInterval> },
    Hash { column: String, partitions: Option<u32> },
}

fn parse_call(function: &'static str, as_table: bool, args: &[FunctionArg]) -> Result<HypertableCall, SqlError> {
    let generalized = args.iter().any(|arg| {
        let name = argument_name(arg);
        name.as_deref() == Some("dimension") || is_dimension(argument_expr(arg))
    });
    let names: &[&str] = if generalized { &GENERALIZED } else { &CLASSIC };
    let mut given: Vec<(&str, Argument)> = Vec::new();
    for (index, arg) in args.iter().enumerate() {
        let name = match argument_name(arg) {
            Some(name) => names.iter().find(|known| **known == name).copied(),
            None => names.get(index).copied(),
        };
        let name = name.ok_or_else(|| no_such_function(function, args.len()))?;
        if given.iter().any(|(known, _)| *known == name) {
            return Err(SqlError::new("42601", format!("argument name \"{name}\" used more than once")));
        }
        let expr = argument_expr(arg).ok_or_else(|| no_such_function(function, args.len()))?;
        given.push((name, evaluate(expr)?));
    }
    Arguments { function, given }.finish(as_table, generalized)
}

fn no_such_function(function: &str, arguments: usize) -> SqlError {
    SqlError::new("42883", format!("function {function} with these {arguments} arguments does not exist"))
        .with_hint("No function matches the given name and argument types. You might need to add explicit type casts.")
}

pub(super) fn argument_name(arg: &FunctionArg) -> Option<String> {
    match arg {
        FunctionArg::Named { name, .. } => Some(name.value.to_ascii_lowercase()),
        FunctionArg::ExprNamed { name: Expr::Identifier(name), .. } => Some(name.value.to_ascii_lowercase()),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => match assignment(expr)? {
            (Expr::Identifier(name), _) => Some(name.value.to_ascii_lowercase()),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn argument_expr(arg: &FunctionArg) -> Option<&Expr> {
    match arg {
        FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. }
        | FunctionArg::ExprNamed { arg: FunctionArgExpr::Expr(expr), .. } => Some(expr),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(assignment(expr).map_or(expr, |(_, value)| value)),
        _ => None,
    }
}

/// `name := value`, which the parser takes for an operator.
fn assignment(expr: &Expr) -> Option<(&Expr, &Expr)> {
    match expr {
        Expr::BinaryOp { left, op: ast::BinaryOperator::Assignment, right } => Some((left.as_ref(), right.as_ref())),
        _ => None,
    }
}

fn is_dimension(expr: Option<&Expr>) -> bool {
    let Some(Expr::Function(function)) = expr else { return false };
    let name = function.name.to_string().to_ascii_lowercase();
    name == "by_range" || name == "by_hash"
}

struct Arguments {
    function: &'static str,
    given: Vec<(&'static str, Argument)>,
}

impl Arguments {
    fn finish(mut self, as_table: bool, generalized: bool) -> Result<HypertableCall, SqlError> {
        let relation = self.text("relation")?.ok_or_else(|| SqlError::new("22023", "relation cannot be NULL"))?;
        let mut call = HypertableCall {
            function: self.function,
            as_table,
            generalized,
            table: Name::parse(&relation)?,
            time_column: String::new(),
            space: vec![],
            interval: None,
            replication_factor: self.integer("replication_factor")?,
            data_nodes: self.texts("data_nodes")?,
            if_not_exists: self.bool("if_not_exists")?.unwrap_or(false),
            migrate_data: self.bool("migrate_data")?.unwrap_or(false),
        };
        // Indexes are what segments are sorted by; asking for them changes nothing.
        let _ = self.bool("create_default_indexes")?;
        if generalized {
            match self.take("dimension") {
                Some(Argument::Range { column, interval }) => (call.time_column, call.interval) = (column, interval),
                Some(Argument::Hash { .. }) => {
                    return Err(SqlError::new("0A000", "cannot use hash partitioning as the first dimension")
                        .with_hint(
                            "Use by_range for the time column, and a space key by create_hypertable's \
                                    partitioning_column.",
                        ));
                }
                _ => return Err(SqlError::new("22023", "dimension cannot be NULL")),
            }
        } else {
            self.classic_dimensions(&mut call)?;
        }
        if let Some(Argument::Bool(false)) = self.take("distributed") {
            return Err(SqlError::unsupported("every hypertable is distributed").with_hint("Leave out distributed."));
        }
        self.refuse_rest()?;
        Ok(call)
    }

    fn classic_dimensions(&mut self, call: &mut HypertableCall) -> Result<(), SqlError> {
        let time = self.text("time_column_name")?;
        call.time_column = time.ok_or_else(|| SqlError::new("22023", "time column cannot be NULL"))?;
        call.interval = match self.take("chunk_time_interval") {
            None | Some(Argument::Null) => None,
            Some(Argument::IntervalUs(us)) => Some(ChunkInterval::Us(us)),
            Some(Argument::Integer(number)) => Some(ChunkInterval::Integer(number)),
            Some(Argument::Text(text)) => Some(ChunkInterval::Us(interval_us(&text)?)),
            Some(_) => return Err(SqlError::new("22023", "invalid interval type for chunk_time_interval")),
        };
        let partitions = self.integer("number_partitions")?;
        if let Some(column) = self.text("partitioning_column")? {
            if partitions.is_none() && self.function == "create_hypertable" {
                return Err(SqlError::new("22023", "invalid number of partitions for dimension")
                    .with_detail(format!("The dimension \"{column}\" needs a number of partitions."))
                    .with_hint("Set number_partitions, or use create_distributed_hypertable."));
            }
            let partitions = partitions.map(partition_count).transpose()?;
            call.space.push((column, partitions));
        }
        Ok(())
    }

    /// What is left must say nothing.
    fn refuse_rest(self) -> Result<(), SqlError> {
        match self.given.into_iter().find(|(_, value)| *value != Argument::Null) {
            Some((name, _)) => {
                Err(SqlError::unsupported(format!("argument {name} of {} is not supported", self.function)))
            }
            None => Ok(()),
        }
    }

    fn take(&mut self, name: &str) -> Option<Argument> {
        let index = self.given.iter().position(|(known, _)| *known == name)?;
        Some(self.given.swap_remove(index).1)
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, SqlError> {
        match self.take(name) {
            None | Some(Argument::Null) => Ok(None),
            Some(Argument::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong_type(name, "name")),
        }
    }

    fn integer(&mut self, name: &str) -> Result<Option<i64>, SqlError> {
        match self.take(name) {
            None | Some(Argument::Null) => Ok(None),
            Some(Argument::Integer(number)) => Ok(Some(number)),
            Some(_) => Err(self.wrong_type(name, "integer")),
        }
    }

    fn bool(&mut self, name: &str) -> Result<Option<bool>, SqlError> {
        match self.take(name) {
            None | Some(Argument::Null) => Ok(None),
            Some(Argument::Bool(value)) => Ok(Some(value)),
            Some(Argument::Text(text)) if matches!(text.as_str(), "t" | "true" | "on") => Ok(Some(true)),
            Some(Argument::Text(text)) if matches!(text.as_str(), "f" | "false" | "off") => Ok(Some(false)),
            Some(_) => Err(self.wrong_type(name, "boolean")),
        }
    }

    fn texts(&mut self, name: &str) -> Result<Vec<String>, SqlError> {
        match self.take(name) {
            None | Some(Argument::Null) => Ok(vec![]),
            Some(Argument::Texts(texts)) => Ok(texts),
            Some(Argument::Text(text)) if text.starts_with('{') && text.ends_with('}') => {
                let inner = &text[1..text.len() - 1];
                let names = inner.split(',').map(|name| name.trim().trim_matches('"').to_owned());
                Ok(names.filter(|name| !name.is_empty()).collect())
            }
            Some(_) => Err(self.wrong_type(name, "name[]")),
        }
    }

    fn wrong_type(&self, name: &str, wanted: &str) -> SqlError {
        SqlError::new("42883", format!("argument {name} of {} must be of type {wanted}", self.function))
    }
}

fn partition_count(count: i64) -> Result<u32, SqlError> {
    match u32::try_from(count) {
        Ok(count @ 1..=32767) => Ok(count),
        _ => Err(SqlError::new("22023", "invalid number of partitions: must be between 1 and 32767")),
    }
}

/// Months count 30 days, as TimescaleDB counts them for chunks.
fn interval_us(text: &str) -> Result<i64, SqlError> {
    let interval = parse_interval(text).map_err(|error| SqlError::new(error.sqlstate, error.message))?;
    let days = i64::from(interval.months) * 30 + i64::from(interval.days);
    let us = days.checked_mul(US_PER_DAY).and_then(|us| us.checked_add(interval.nanoseconds / 1000));
    us.ok_or_else(|| SqlError::new("22008", "interval out of range"))
}

fn evaluate(expr: &Expr) -> Result<Argument, SqlError> {
    let not_constant = || SqlError::unsupported(format!("argument {expr} must be a constant"));
    Ok(match expr {
        Expr::Nested(inner) => evaluate(inner)?,
        Expr::Value(value) => constant(&value.value).ok_or_else(not_constant)?,
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, .. } => {
            let inner = evaluate(expr)?;
            match (&inner, data_type) {
                (Argument::Text(text), ast::DataType::Interval { .. }) => Argument::IntervalUs(interval_us(text)?),
                _ => inner,
            }
        }
        Expr::Interval(interval) => match evaluate(&interval.value)? {
            Argument::Text(text) => {
                let unit = interval.leading_field.as_ref().map(ToString::to_string).unwrap_or_default();
                Argument::IntervalUs(interval_us(&format!("{text} {unit}"))?)
            }
            _ => return Err(not_constant()),
        },
        Expr::TypedString(typed) => match (&typed.data_type, constant(&typed.value.value)) {
            (ast::DataType::Interval { .. }, Some(Argument::Text(text))) => Argument::IntervalUs(interval_us(&text)?),
            (_, Some(value)) => value,
            _ => return Err(not_constant()),
        },
        Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match evaluate(expr)? {
            Argument::Integer(number) => Argument::Integer(-number),
            _ => return Err(not_constant()),
        },
        Expr::Array(array) => {
            let texts = array.elem.iter().map(|element| match evaluate(element)? {
                Argument::Text(text) => Ok(text),
                _ => Err(not_constant()),
            });
            Argument::Texts(texts.collect::<Result<_, _>>()?)
        }
        Expr::Function(function) => dimension(function)?.ok_or_else(not_constant)?,
        _ => return Err(not_constant()),
    })
}

fn constant(value: &Value) -> Option<Argument> {
    Some(match value {
        Value::Null => Argument::Null,
        Value::Boolean(value) => Argument::Bool(*value),
        Value::Number(number, _) => Argument::Integer(number.parse().ok()?),
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Argument::Text(text.clone()),
        Value::DollarQuotedString(text) => Argument::Text(text.value.clone()),
        _ => return None,
    })
}

/// `by_range('time', INTERVAL '1 day')` or `by_hash('device', 4)`.
fn dimension(function: &Function) -> Result<Option<Argument>, SqlError> {
    let name = function.name.to_string().to_ascii_lowercase();
    let names: [&str; 2] = match name.as_str() {
        "by_range" => ["column_name", "partition_interval"],
        "by_hash" => ["column_name", "number_partitions"],
        _ => return Ok(None),
    };
    let FunctionArguments::List(list) = &function.args else { return Ok(None) };
    let mut values = [Argument::Null, Argument::Null];
    for (index, arg) in list.args.iter().enumerate() {
        let index = match argument_name(arg) {
            Some(name) => names.iter().position(|known| *known == name),
            None => (index < 2).then_some(index),
        };
        match (index, argument_expr(arg)) {
            (Some(index), Some(expr)) => values[index] = evaluate(expr)?,
            _ => return Err(SqlError::unsupported(format!("these arguments of {name} are not supported"))),
        }
    }
    let [Argument::Text(column), second] = values else {
        return Err(SqlError::new("22023", "column_name cannot be NULL"));
    };
    Ok(Some(if name == "by_range" {
        let interval = match second {
            Argument::Null => None,
            Argument::IntervalUs(us) => Some(ChunkInterval::Us(us)),
            Argument::Integer(number) => Some(ChunkInterval::Integer(number)),
            Argument::Text(text) => Some(ChunkInterval::Us(interval_us(&text)?)),
            _ => return Err(SqlError::new("22023", "invalid interval type for by_range")),
        };
        Argument::Range { column, interval }
    } else {
        let partitions = match second {
            Argument::Integer(number) => Some(partition_count(number)?),
            _ => None,
        };
        Argument::Hash { column, partitions }
    }))
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    fn call(sql: &str) -> HypertableCall {
        match parse(sql).unwrap().remove(0) {
            Statement::CreateHypertable(call) => (*call).clone(),
            other => panic!("{other:?}"),
        }
    }

    fn refused(sql: &str) -> SqlError {
        match parse(sql) {
            Err(error) => error,
            Ok(statements) => match statements.into_iter().next() {
                Some(Statement::Refused(error)) => error,
                other => panic!("{other:?}"),
            },
        }
    }

    const DAY: i64 = US_PER_DAY;

    #[test]
    fn arguments_come_by_position_or_by_name() {
        let expected = call("SELECT create_distributed_hypertable('conditions', 'time', 'device', 4)");
        assert_eq!(expected.space, [("device".to_owned(), Some(4))]);
        assert_eq!((expected.time_column.as_str(), expected.as_table), ("time", false));
        for named in [
            "SELECT create_distributed_hypertable('conditions', 'time', number_partitions => 4, partitioning_column => 'device')",
            "SELECT create_distributed_hypertable(relation := 'conditions', time_column_name := 'time', \
             partitioning_column := 'device', number_partitions := 4)",
        ] {
            assert_eq!(call(named), expected);
        }
    }

    #[test]
    fn intervals_are_intervals_texts_or_numbers() {
        let interval = |argument: &str| {
            call(&format!("SELECT * FROM create_hypertable('t', 'time', chunk_time_interval => {argument})")).interval
        };
        assert_eq!(interval("INTERVAL '1 day'"), Some(ChunkInterval::Us(DAY)));
        assert_eq!(interval("'2 days'::interval"), Some(ChunkInterval::Us(2 * DAY)));
        assert_eq!(interval("'1 month'"), Some(ChunkInterval::Us(30 * DAY)));
        assert_eq!(interval("86400000000"), Some(ChunkInterval::Integer(DAY)));
        assert_eq!(interval("NULL"), None);
    }

    #[test]
    fn the_form_with_dimensions_is_known() {
        let found = call(
            "SELECT * FROM create_hypertable('public.\"T\"', by_range('ts', INTERVAL '1 hour'), if_not_exists => TRUE)",
        );
        assert_eq!(found.table, Name { schema: Some("public".to_owned()), name: "T".to_owned() });
        assert_eq!(found.interval, Some(ChunkInterval::Us(3_600_000_000)));
        assert!(found.generalized && found.if_not_exists && found.as_table);
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_name() {
        assert_eq!(refused("SELECT create_hypertable('t', 'time', partitioning_func => 'f')").sqlstate, "0A000");
        assert_eq!(refused("SELECT create_hypertable('t', 'time', nonsense => 1)").sqlstate, "42883");
        assert_eq!(refused("SELECT create_hypertable('t', 'time', 'd', 0)").sqlstate, "22023");
        assert_eq!(refused("SELECT add_data_node('dn1', host => 'dn1')").sqlstate, "0A000");
    }
}
