//! TimescaleDB's functions that a gateway answers itself: their parameters in order, with what is taken for those left
//! out, so that what is planned has them by position.

use datafusion::sql::sqlparser::ast::{
    self, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart,
    SelectItem, SetExpr, TableAlias, TableAliasColumnDef, Value, ValueWithSpan,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::hypertable::{argument_expr, argument_name};
use super::names::HIDDEN;
use crate::error::SqlError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One value per call.
    Scalar,
    /// Rows of one column, which is named as the table.
    SetOfScalars,
    Table,
    /// Called by CALL only.
    Procedure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Otherwise {
    /// Must be given.
    Refuse,
    Null,
    /// Only the last can be.
    LeaveOut,
}

pub(super) struct Callable {
    pub name: &'static str,
    pub shape: Shape,
    parameters: &'static [(&'static str, Otherwise)],
}

const OF_HYPERTABLE: &[(&str, Otherwise)] = &[("hypertable", Otherwise::Refuse)];

const CALLABLES: [Callable; 10] = [
    Callable {
        name: "show_chunks",
        shape: Shape::SetOfScalars,
        parameters: &[
            ("relation", Otherwise::Refuse),
            ("older_than", Otherwise::Null),
            ("newer_than", Otherwise::Null),
            ("created_before", Otherwise::Null),
            ("created_after", Otherwise::Null),
        ],
    },
    Callable { name: "chunk_compression_stats", shape: Shape::Table, parameters: OF_HYPERTABLE },
    Callable { name: "hypertable_compression_stats", shape: Shape::Table, parameters: OF_HYPERTABLE },
    Callable { name: "hypertable_detailed_size", shape: Shape::Table, parameters: OF_HYPERTABLE },
    Callable { name: "chunks_detailed_size", shape: Shape::Table, parameters: OF_HYPERTABLE },
    Callable { name: "hypertable_size", shape: Shape::Scalar, parameters: OF_HYPERTABLE },
    Callable { name: "approximate_row_count", shape: Shape::Scalar, parameters: &[("relation", Otherwise::Refuse)] },
    Callable {
        name: "compress_chunk",
        shape: Shape::Scalar,
        parameters: &[("uncompressed_chunk", Otherwise::Refuse), ("if_not_compressed", Otherwise::LeaveOut)],
    },
    Callable {
        name: "decompress_chunk",
        shape: Shape::Scalar,
        parameters: &[("uncompressed_chunk", Otherwise::Refuse), ("if_compressed", Otherwise::LeaveOut)],
    },
    Callable {
        name: "recompress_chunk",
        shape: Shape::Procedure,
        parameters: &[("chunk", Otherwise::Refuse), ("if_not_compressed", Otherwise::LeaveOut)],
    },
];

/// The name under which a procedure is planned: no client can write it.
pub(crate) fn hidden_name(name: &str) -> String {
    format!("{HIDDEN}{name}")
}

impl Callable {
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        CALLABLES.iter().find(|callable| callable.name == name)
    }

    /// The arguments by position.
    pub(super) fn arguments(&self, given: &[FunctionArg]) -> Result<Vec<FunctionArg>, SqlError> {
        let mut values: Vec<Option<Expr>> = vec![None; self.parameters.len()];
        let mut named = false;
        for (index, arg) in given.iter().enumerate() {
            let name = argument_name(arg);
            let position = match &name {
                Some(name) => self.parameters.iter().position(|(known, _)| known == name),
                None if named => {
                    let message = "positional argument cannot follow named argument";
                    return Err(SqlError::new("42601", message));
                }
                None => Some(index),
            };
            named |= name.is_some();
            let slot = position.and_then(|position| values.get_mut(position));
            let (Some(slot), Some(expr)) = (slot, argument_expr(arg)) else {
                return Err(self.no_such_function(given.len()));
            };
            if slot.replace(expr.clone()).is_some() {
                let name = name.unwrap_or_default();
                return Err(SqlError::new("42601", format!("argument name \"{name}\" used more than once")));
            }
        }
        let filled = values.into_iter().zip(self.parameters).filter_map(|(value, (_, otherwise))| {
            let expr = match (value, otherwise) {
                (Some(value), Otherwise::LeaveOut) => typed_flag(value),
                (Some(value), _) => value,
                (None, Otherwise::Null) => Expr::Value(ValueWithSpan { value: Value::Null, span: Span::empty() }),
                (None, Otherwise::LeaveOut) => return None,
                (None, Otherwise::Refuse) => return Some(Err(self.no_such_function(given.len()))),
            };
            Some(Ok(FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))))
        });
        filled.collect()
    }

    fn no_such_function(&self, arguments: usize) -> SqlError {
        let arguments = vec!["unknown"; arguments].join(", ");
        no_such_function(self.name, &arguments)
    }

    /// `FROM show_chunks('t') c`: the column is named as the table.
    pub(super) fn name_columns(&self, alias: &mut Option<TableAlias>) {
        if let (Shape::SetOfScalars, Some(alias)) = (self.shape, alias)
            && alias.columns.is_empty()
        {
            alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
        }
    }
}

/// A flag. A parameter alone does not tell its type, compared it does.
fn typed_flag(value: Expr) -> Expr {
    match &value {
        Expr::Value(ValueWithSpan { value: Value::Placeholder(_), .. }) => {
            let right = Expr::Value(ValueWithSpan { value: Value::Boolean(true), span: Span::empty() });
            Expr::BinaryOp { left: Box::new(value), op: ast::BinaryOperator::Eq, right: Box::new(right) }
        }
        _ => value,
    }
}

/// 42883 as PostgreSQL says it.
pub(crate) fn no_such_function(name: &str, types: &str) -> SqlError {
    SqlError::new("42883", format!("function {name}({types}) does not exist"))
        .with_hint("No function matches the given name and argument types. You might need to add explicit type casts.")
}

/// The last part of a function's name, in small letters unless quoted, without a schema that functions may be in.
pub(super) fn function_name(name: &ObjectName) -> Option<String> {
    let folded = |part: &ObjectNamePart| {
        let name = part.as_ident()?;
        Some(if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() })
    };
    match name.0.as_slice() {
        [name] => folded(name),
        [schema, name] => {
            let schema = folded(schema)?;
            ["pg_catalog", "public", "timescaledb"].contains(&schema.as_str()).then(|| folded(name)).flatten()
        }
        _ => None,
    }
}

/// The query that runs a procedure. `None`: it is no call.
pub(super) fn procedure_call(query: &ast::Query) -> Option<Result<ast::Query, SqlError>> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let ([SelectItem::UnnamedExpr(Expr::Function(function))], []) =
        (select.projection.as_slice(), select.from.as_slice())
    else {
        return None;
    };
    Some(checked_call(query, function))
}

fn checked_call(query: &ast::Query, function: &Function) -> Result<ast::Query, SqlError> {
    let name = function_name(&function.name).unwrap_or_else(|| function.name.to_string());
    let given = match &function.args {
        FunctionArguments::List(list) => list.args.as_slice(),
        _ => &[],
    };
    let types = vec!["unknown"; given.len()].join(", ");
    let callable = match Callable::find(&name) {
        Some(callable) if callable.shape == Shape::Procedure => callable,
        Some(_) => {
            return Err(SqlError::new("42809", format!("{name}({types}) is not a procedure"))
                .with_hint("To call a function, use SELECT."));
        }
        None if ["distributed_exec", "run_job", "refresh_continuous_aggregate"].contains(&name.as_str()) => {
            return Err(SqlError::unsupported(format!("procedure {name} is not supported")));
        }
        None => {
            let error = SqlError::new("42883", format!("procedure {name}({types}) does not exist"));
            return Err(error.with_hint(
                "No procedure matches the given name and argument types. You might need to add explicit type casts.",
            ));
        }
    };
    let args = callable.arguments(given)?;
    let mut function = function.clone();
    function.name = ObjectName::from(vec![Ident::with_quote('"', hidden_name(&name))]);
    if let FunctionArguments::List(list) = &mut function.args {
        list.args = args;
    }
    let mut query = query.clone();
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = vec![SelectItem::UnnamedExpr(Expr::Function(function))];
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::super::statement::Statement;
    use super::*;

    fn filled(name: &str, call: &str) -> Result<String, SqlError> {
        let Expr::Function(function) = super::super::parse::parse_expression(call).unwrap() else { panic!() };
        let FunctionArguments::List(list) = &function.args else { panic!() };
        let args = Callable::find(name).unwrap().arguments(&list.args)?;
        Ok(args.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn arguments_come_by_position_or_name_and_the_rest_by_default() {
        let check = |call: &str, expected: &str| {
            let name = call.split('(').next().unwrap();
            assert_eq!(filled(name, call).unwrap(), expected, "{call}");
        };
        check("show_chunks('t')", "'t', NULL, NULL, NULL, NULL");
        check("show_chunks('t', newer_than => 5)", "'t', NULL, 5, NULL, NULL");
        check("show_chunks(older_than := 5, relation := 't')", "'t', 5, NULL, NULL, NULL");
        check("compress_chunk(c)", "c");
        check("compress_chunk(c, if_not_compressed => true)", "c, true");
        check("compress_chunk($1, $2)", "$1, $2 = true");
        check("decompress_chunk(uncompressed_chunk => c, if_compressed => true)", "c, true");
    }

    #[test]
    fn calls_that_fit_no_function_are_refused() {
        let check = |call: &str, sqlstate: &str, message: &str| {
            let name = call.split('(').next().unwrap();
            let error = filled(name, call).unwrap_err();
            assert_eq!((error.sqlstate.as_str(), error.message.as_str()), (sqlstate, message), "{call}");
        };
        check("compress_chunk()", "42883", "function compress_chunk() does not exist");
        check("compress_chunk(a, b, c)", "42883", "function compress_chunk(unknown, unknown, unknown) does not exist");
        check("compress_chunk(a, nothing => b)", "42883", "function compress_chunk(unknown, unknown) does not exist");
        check("show_chunks('t', relation => 't')", "42601", "argument name \"relation\" used more than once");
        check("show_chunks(relation => 't', 5)", "42601", "positional argument cannot follow named argument");
    }

    #[test]
    fn procedures_are_called_and_functions_are_not() {
        let Statement::Call(query) = parse("CALL public.recompress_chunk('c', true)").unwrap().remove(0) else {
            panic!()
        };
        assert_eq!(query.to_string(), format!("SELECT \"{}\"('c', true)", hidden_name("recompress_chunk")));
        let refused = |sql: &str| match parse(sql) {
            Err(error) => (error.sqlstate, error.message),
            Ok(mut statements) => match statements.remove(0) {
                Statement::Refused(error) => (error.sqlstate, error.message),
                other => panic!("{sql}: {other:?}"),
            },
        };
        assert_eq!(refused("CALL compress_chunk('c')").1, "compress_chunk(unknown) is not a procedure");
        assert_eq!(refused("CALL nothing()").1, "procedure nothing() does not exist");
        assert_eq!(refused("CALL distributed_exec('SELECT 1')").0, "0A000");
        assert_eq!(refused("CALL recompress_chunk").0, "42601");
        assert_eq!(refused("CALL recompress_chunk('c') x").0, "42601");
        assert_eq!(refused("CALL 1").0, "42601");
    }
}
