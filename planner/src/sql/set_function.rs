//! Functions that return rows about chunks: `FROM show_chunks('t', older_than => ...)`. Their arguments are constants,
//! worked out while planning; their rows are the catalog's (`Relations::rows_of`).

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::BinaryOperator;
use meridian_client::cluster::split::date_time;
use meridian_proto::{SqlType, TimeUs};

use super::calls::no_such_function;
use super::errors::external;
use super::functions::convert::constant;
use super::operators::Operators;
use super::plan::Planning;
use super::types::row_schema;
use crate::error::SqlError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetFunction {
    ShowChunks,
    ChunkCompressionStats,
    HypertableCompressionStats,
    HypertableDetailedSize,
    ChunksDetailedSize,
}

/// A call with its arguments worked out.
#[derive(Clone, Debug)]
pub(crate) struct SetCall {
    pub function: SetFunction,
    /// `None`: NULL, or a parameter that has no value yet.
    pub relation: Option<String>,
    pub older_than: Option<TimeUs>,
    pub newer_than: Option<TimeUs>,
}

impl SetFunction {
    const ALL: [Self; 5] = [
        Self::ShowChunks,
        Self::ChunkCompressionStats,
        Self::HypertableCompressionStats,
        Self::HypertableDetailedSize,
        Self::ChunksDetailedSize,
    ];

    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ShowChunks => "show_chunks",
            Self::ChunkCompressionStats => "chunk_compression_stats",
            Self::HypertableCompressionStats => "hypertable_compression_stats",
            Self::HypertableDetailedSize => "hypertable_detailed_size",
            Self::ChunksDetailedSize => "chunks_detailed_size",
        }
    }

    /// Its columns, as TimescaleDB declares them.
    pub(crate) fn schema(self) -> SchemaRef {
        use SqlType::{Int8, Text};
        const BEFORE: [&str; 4] = [
            "before_compression_table_bytes",
            "before_compression_index_bytes",
            "before_compression_toast_bytes",
            "before_compression_total_bytes",
        ];
        const AFTER: [&str; 4] = [
            "after_compression_table_bytes",
            "after_compression_index_bytes",
            "after_compression_toast_bytes",
            "after_compression_total_bytes",
        ];
        const BYTES: [&str; 4] = ["table_bytes", "index_bytes", "toast_bytes", "total_bytes"];
        let of = |names: &[&'static str], sql_type: SqlType| -> Vec<(&'static str, SqlType)> {
            names.iter().map(|name| (*name, sql_type.clone())).collect()
        };
        let columns = match self {
            Self::ShowChunks => of(&["show_chunks"], Text),
            Self::ChunkCompressionStats => [
                of(&["chunk_schema", "chunk_name", "compression_status"], Text),
                of(&BEFORE, Int8),
                of(&AFTER, Int8),
                of(&["node_name"], Text),
            ]
            .concat(),
            Self::HypertableCompressionStats => [
                of(&["total_chunks", "number_compressed_chunks"], Int8),
                of(&BEFORE, Int8),
                of(&AFTER, Int8),
                of(&["node_name"], Text),
            ]
            .concat(),
            Self::HypertableDetailedSize => [of(&BYTES, Int8), of(&["node_name"], Text)].concat(),
            Self::ChunksDetailedSize => {
                [of(&["chunk_schema", "chunk_name"], Text), of(&BYTES, Int8), of(&["node_name"], Text)].concat()
            }
        };
        row_schema(&columns)
    }
}

impl Planning<'_> {
    /// The rows of a call; `args` has all arguments by position.
    pub(super) fn set_function(
        &self,
        function: SetFunction,
        args: Vec<Expr>,
    ) -> Result<Arc<dyn TableProvider>, SqlError> {
        let mut call = SetCall { function, relation: None, older_than: None, newer_than: None };
        let args = args.into_iter().map(|arg| self.with_values(arg)).collect::<Result<Vec<_>, _>>()?;
        if args.iter().all(Option::is_some) {
            let mut args = args.into_iter().flatten();
            let relation = args.next().map(|arg| self.relation_name(function, arg)).transpose()?;
            call.relation = relation.flatten();
            if let Some(relation) = &call.relation
                && function == SetFunction::ShowChunks
            {
                let time = self.relations().time_type(relation)?;
                let mut bound = || args.next().map(|arg| self.time_bound(arg, &time)).transpose().map(Option::flatten);
                (call.older_than, call.newer_than) = (bound()?, bound()?);
                for created in args {
                    if !self.constant(created)?.is_null() {
                        let message = "created_before and created_after of show_chunks are not supported";
                        return Err(SqlError::unsupported(message).with_hint("Use older_than and newer_than."));
                    }
                }
                if call.older_than.zip(call.newer_than).is_some_and(|(older, newer)| older <= newer) {
                    return Err(SqlError::new("22023", "invalid time range")
                        .with_hint("The start of the time range must be before the end."));
                }
            }
        }
        self.relations().rows_of(call)
    }

    /// The argument with its parameters' values; `None` while they have none.
    fn with_values(&self, arg: Expr) -> Result<Option<Expr>, SqlError> {
        let mut known = true;
        let arg = arg.transform(|expr| match &expr {
            Expr::Placeholder(placeholder) => match self.value_of(&placeholder.id).map_err(external)? {
                Some(value) => Ok(Transformed::yes(Expr::Literal(value, None))),
                None => {
                    known = false;
                    Ok(Transformed::no(expr))
                }
            },
            _ => Ok(Transformed::no(expr)),
        })?;
        Ok(known.then_some(arg.data))
    }

    /// A `regclass`: a name, or the digits of an OID.
    fn relation_name(&self, function: SetFunction, arg: Expr) -> Result<Option<String>, SqlError> {
        let sql_type = type_of(&arg)?;
        match self.constant(arg)? {
            ScalarValue::Utf8(text) => Ok(text),
            ScalarValue::Int32(oid) => Ok(oid.map(|oid| oid.to_string())),
            ScalarValue::Int64(oid) => Ok(oid.map(|oid| oid.to_string())),
            value if value.is_null() => Ok(None),
            _ => Err(no_such_function(function.name(), &sql_type)),
        }
    }

    /// A bound of `older_than` or `newer_than` in units of the time column; an interval counts back from now.
    fn time_bound(&self, arg: Expr, time: &SqlType) -> Result<Option<TimeUs>, SqlError> {
        let environment = self.environment();
        let integer = |data_type: &DataType| data_type.is_integer();
        let given = arg.get_type(&DFSchema::empty())?;
        let arg = match &given {
            DataType::Null => return Ok(None),
            DataType::Utf8 => match self.constant(arg)? {
                ScalarValue::Utf8(Some(text)) => Expr::Literal(constant(&text, time, &environment.format)?, None),
                _ => return Ok(None),
            },
            given if integer(given) && integer(&time.arrow()) => arg,
            DataType::Interval(_) if !integer(&time.arrow()) => self.before_now(arg, time)?,
            _ if self.is_time_for(&arg, time)? => arg.cast_to(&time.arrow(), &DFSchema::empty())?,
            _ => {
                let message = format!("invalid time argument type \"{}\"", type_of(&arg)?);
                return Err(
                    SqlError::new("22023", message).with_hint(format!("Try casting the argument to \"{time}\"."))
                );
            }
        };
        Ok(match self.constant(arg)? {
            ScalarValue::TimestampMicrosecond(us, _) => us.map(TimeUs),
            ScalarValue::Date32(days) => days.map(date_time),
            ScalarValue::Int16(value) => value.map(|value| TimeUs(value.into())),
            ScalarValue::Int32(value) => value.map(|value| TimeUs(value.into())),
            ScalarValue::Int64(value) => value.map(TimeUs),
            other => return Err(SqlError::new("XX000", format!("a time bound of type {}", other.data_type()))),
        })
    }

    /// `now() - interval`, as the time column's type.
    fn before_now(&self, interval: Expr, time: &SqlType) -> Result<Expr, SqlError> {
        let schema = DFSchema::empty();
        let environment = self.environment();
        let field = SqlType::Timestamptz.field("now", true);
        let now = ScalarValue::TimestampMicrosecond(Some(environment.transaction_us), Some(Arc::from("UTC")));
        let now = Expr::Literal(now, Some((&field).into())).cast_to(&time.arrow(), &schema)?;
        let minus = RawBinaryExpr { op: BinaryOperator::Minus, left: now, right: interval };
        let difference = match Operators(Arc::clone(environment)).plan_binary_op(minus, &schema)? {
            PlannerResult::Planned(expr) => expr,
            PlannerResult::Original(RawBinaryExpr { left, right, .. }) => left - right,
        };
        Ok(difference.cast_to(&time.arrow(), &schema)?)
    }

    /// Whether PostgreSQL casts it to the time column's type by itself.
    fn is_time_for(&self, arg: &Expr, time: &SqlType) -> Result<bool, SqlError> {
        let (_, field) = arg.to_field(&DFSchema::empty())?;
        let given = SqlType::of_field(&field);
        Ok(match time {
            SqlType::Timestamptz => {
                matches!(given, Some(SqlType::Timestamptz | SqlType::Timestamp | SqlType::Date))
            }
            SqlType::Timestamp => matches!(given, Some(SqlType::Timestamp | SqlType::Date)),
            SqlType::Date => given == Some(SqlType::Date),
            _ => false,
        })
    }
}

/// PostgreSQL's name of an expression's type.
fn type_of(expr: &Expr) -> Result<String, SqlError> {
    let (_, field) = expr.to_field(&DFSchema::empty())?;
    Ok(SqlType::of_field(&field).map_or_else(|| field.data_type().to_string(), |sql_type| sql_type.to_string()))
}
