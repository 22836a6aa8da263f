//! INSERT: rows of expressions or of a query, through a transaction of the statement's own or the open one.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::collect;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{self, UnaryOperator, Value};
use futures::StreamExt;
use meridian_client::cluster::Transaction;
use meridian_pgtypes::{ColumnBuilder, Format};
use meridian_proto::SqlType;
use meridian_proto::catalog::Table;
use meridian_proto::schema::Column;
use tokio_util::sync::CancellationToken;

use super::Session;
use super::query::{check_parameters, types_of};
use super::rows::{RowMaker, assign, positions, read_by};
use super::transaction::Moment;
use crate::error::SqlError;
use crate::exec::catalog::{Found, StatementCatalog};
use crate::exec::stream::{cancellable, check, start};
use crate::exec::texts::texts_of;
use crate::outcome::Outcome;
use crate::sql::plan::{Planning, bind, one_row, parameter_types};
use crate::sql::statement::{Insert, InsertSource, Name};

/// Rows of a VALUES list that are sent in one batch.
const BATCH_ROWS: usize = 65_536;
/// Expressions of VALUES that are worked out by one plan.
const CELLS_PER_PLAN: usize = 500;

/// Where a statement's rows go.
pub(super) struct Sink {
    pub target: Found,
    pub table: Arc<Table>,
    pub moment: Moment,
    /// Of the statement's own transaction, if it has one.
    own: Option<Transaction>,
    /// The newest batch: the last one of all may be committed in one phase.
    held: Option<RecordBatch>,
    rows: u64,
}

impl Sink {
    pub(super) fn new(target: Found, table: Arc<Table>, moment: Moment) -> Self {
        Self { target, table, moment, own: None, held: None, rows: 0 }
    }
}

impl StatementCatalog {
    /// A table to write to.
    pub(super) fn target(&self, name: &Name) -> Result<(Found, Arc<Table>), SqlError> {
        let found = self.resolve(name).ok_or_else(|| name.not_found())?;
        let table = self.table_of(&found);
        Ok((found, table))
    }
}

impl Session {
    pub(super) async fn insert(
        &mut self,
        insert: &Insert,
        parameters: &[ScalarValue],
        cancel: &CancellationToken,
    ) -> Result<Outcome, SqlError> {
        self.check_may_write("INSERT")?;
        let moment = self.moment(cancel).await?;
        let catalog = self.statement_catalog(&moment);
        let (target, table) = catalog.target(&insert.table)?;
        let given = positions(&table, &insert.columns)?;
        let mut sink = Sink::new(target, table, moment);
        match &insert.source {
            InsertSource::Query(query) => {
                self.insert_query(&mut sink, &catalog, insert, query, given, parameters, cancel).await?;
            }
            InsertSource::Values(rows) => {
                check_widths(rows, &given, !insert.columns.is_empty())?;
                let width = rows.first().map_or(0, Vec::len);
                let rows: Vec<Vec<Cell>> =
                    rows.iter().map(|row| row.iter().map(|cell| Cell::of(cell.as_ref())).collect()).collect();
                self.insert_values(&mut sink, &catalog, &rows, given[..width].to_vec(), parameters, cancel).await?;
            }
            InsertSource::Defaults => {
                self.insert_values(&mut sink, &catalog, &[vec![]], vec![], parameters, cancel).await?;
            }
        }
        check(cancel)?;
        // From here on it is not cancelled: the outcome would be unknown.
        let rows = self.finish(sink).await?;
        Ok(Outcome::Done { tag: format!("INSERT 0 {rows}") })
    }

    /// Sends a batch of whole rows.
    pub(super) async fn send(&mut self, sink: &mut Sink, batch: RecordBatch) -> Result<(), SqlError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        sink.rows += batch.num_rows() as u64;
        if let Found::Pending(index) = sink.target {
            return self.keep_rows(index, batch);
        }
        let stamp = sink.moment.stamp();
        if let Some(open) = &mut self.transaction {
            let writes = open.writes.get_or_insert_with(|| self.gateway.transactions.begin());
            writes.send(&sink.table, batch, stamp).await?;
            return Ok(());
        }
        if let Some(held) = sink.held.replace(batch) {
            let own = sink.own.get_or_insert_with(|| self.gateway.transactions.begin());
            own.send(&sink.table, held, stamp).await?;
        }
        Ok(())
    }

    /// Waits until all rows are durable, and commits them unless a transaction is open. Number of rows.
    pub(super) async fn finish(&mut self, mut sink: Sink) -> Result<u64, SqlError> {
        if let Some(open) = &mut self.transaction {
            if let Some(writes) = &mut open.writes {
                writes.settle().await?;
            }
            return Ok(sink.rows);
        }
        if let Some(held) = sink.held.take() {
            let mut own = sink.own.take().unwrap_or_else(|| self.gateway.transactions.begin());
            own.finish_insert(&sink.table, held, sink.moment.stamp()).await?;
            own.commit().await.map_err(meridian_proto::Refusal::from)?;
        }
        Ok(sink.rows)
    }

    #[expect(clippy::too_many_arguments, reason = "one statement's whole state")]
    async fn insert_query(
        &mut self,
        sink: &mut Sink,
        catalog: &StatementCatalog,
        insert: &Insert,
        query: &ast::Query,
        given: Vec<usize>,
        parameters: &[ScalarValue],
        cancel: &CancellationToken,
    ) -> Result<(), SqlError> {
        let (plan, maker) = {
            let planning = Planning::new(&self.gateway.base, self.environment(), catalog);
            let plan = planning.query(query, &types_of(parameters))?;
            check_parameters(&plan, parameters)?;
            let plan = bind(plan, parameters)?;
            let width = plan.schema().fields().len();
            check_width(width, &given, !insert.columns.is_empty())?;
            let given = given[..width].to_vec();
            let plan = assigned(plan, &sink.table, &given, &planning.environment().format)?;
            let plan = planning.optimize(planning.analyze(plan)?)?;
            (plan, RowMaker::new(Arc::clone(&sink.table), given, &planning, &self.gateway.base)?)
        };
        let plan = self.physical(&plan, cancel).await?;
        let mut rows = start(plan, &self.gateway, cancel)?;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let batch = maker.complete(batch.columns(), batch.num_rows())?;
            self.send(sink, batch).await?;
        }
        Ok(())
    }

    async fn insert_values(
        &mut self,
        sink: &mut Sink,
        catalog: &StatementCatalog,
        rows: &[Vec<Cell<'_>>],
        given: Vec<usize>,
        parameters: &[ScalarValue],
        cancel: &CancellationToken,
    ) -> Result<(), SqlError> {
        let planning = Planning::new(&self.gateway.base, self.environment(), catalog);
        let maker = RowMaker::new(Arc::clone(&sink.table), given, &planning, &self.gateway.base)?;
        let slow = self.evaluate_cells(&planning, &maker, rows, parameters, cancel).await?;
        drop(planning);
        let mut slow = slow.into_iter().peekable();
        let mut start_row = 0;
        for slice in rows.chunks(BATCH_ROWS) {
            check(cancel)?;
            let format = self.format();
            let mut values: Vec<Vec<Option<ScalarValue>>> = Vec::new();
            values.resize_with(maker.given.len(), || vec![None; slice.len()]);
            while let Some((row, index, value)) = slow.next_if(|(row, ..)| *row < start_row + slice.len()) {
                values[index][row - start_row] = Some(value);
            }
            let columns = maker.given.iter().enumerate().zip(values);
            let columns: Vec<ArrayRef> = columns
                .map(|((index, position), values)| {
                    let column = &maker.table.schema.columns[*position];
                    build_column(column, slice.iter().map(|row| &row[index]), values, parameters, &format)
                })
                .collect::<Result<_, _>>()?;
            let batch = maker.complete(&columns, slice.len())?;
            self.send(sink, batch).await?;
            start_row += slice.len();
        }
        Ok(())
    }

    /// Values of the cells that are not plain constants, by row and column.
    async fn evaluate_cells(
        &self,
        planning: &Planning<'_>,
        maker: &RowMaker,
        rows: &[Vec<Cell<'_>>],
        parameters: &[ScalarValue],
        cancel: &CancellationToken,
    ) -> Result<Vec<(usize, usize, ScalarValue)>, SqlError> {
        let schema = DFSchema::empty();
        let types = types_of(parameters);
        let format = &planning.environment().format;
        let mut places = Vec::new();
        let mut exprs = Vec::new();
        for (row, cells) in rows.iter().enumerate() {
            for (index, cell) in cells.iter().enumerate() {
                let column = &maker.table.schema.columns[maker.given[index]];
                let expr = match cell {
                    Cell::Default => match &column.default {
                        Some(default) => crate::sql::parse::parse_expression(default)?,
                        None => continue,
                    },
                    _ if cell.is_plain_for(&column.sql_type) => continue,
                    Cell::Expression(expr) => (*expr).clone(),
                    Cell::Text(_) | Cell::Number(_) | Cell::Bool(_) | Cell::Null | Cell::Parameter(_) => {
                        cell.expression()
                    }
                };
                let expr = read_by(planning.expression(&expr, &schema, &types)?, column);
                let name = format!("c{}", exprs.len());
                exprs.push(assign(expr, &schema, &column.name, &column.sql_type, format)?.alias(name));
                places.push((row, index));
            }
        }
        let mut values = Vec::with_capacity(places.len());
        for (exprs, places) in exprs.chunks(CELLS_PER_PLAN).zip(places.chunks(CELLS_PER_PLAN)) {
            let row = self.evaluate_row(planning, exprs.to_vec(), parameters, cancel).await?;
            for ((row_number, index), array) in places.iter().zip(row.columns()) {
                values.push((*row_number, *index, ScalarValue::try_from_array(array, 0)?));
            }
        }
        Ok(values)
    }

    async fn evaluate_row(
        &self,
        planning: &Planning<'_>,
        exprs: Vec<Expr>,
        parameters: &[ScalarValue],
        cancel: &CancellationToken,
    ) -> Result<RecordBatch, SqlError> {
        let plan = one_row(exprs)?;
        check_parameters(&plan, parameters)?;
        let plan = planning.optimize(planning.analyze(bind(plan, parameters)?)?)?;
        let plan = self.physical(&plan, cancel).await?;
        let tasks = self.gateway.tasks_for(texts_of(plan.as_ref()));
        let batches = cancellable(cancel, collect(plan, tasks)).await?;
        let row = batches.into_iter().find(|batch| batch.num_rows() == 1);
        row.ok_or_else(|| SqlError::new("XX000", "an expression gave no row"))
    }

    /// Types of an INSERT's parameters: a bare one has its column's.
    pub(super) async fn describe_insert(
        &mut self,
        insert: &Insert,
        known: &[Option<SqlType>],
    ) -> Result<Vec<SqlType>, SqlError> {
        let mut confirmed = false;
        loop {
            let catalog = self.describing_catalog(confirmed).await?;
            let planning = Planning::new(&self.gateway.base, self.environment(), &catalog);
            match insert_types(&planning, &catalog, insert, known) {
                Err(error) if !confirmed && error.sqlstate.starts_with("42") => confirmed = true,
                result => return result,
            }
        }
    }
}

fn insert_types(
    planning: &Planning,
    catalog: &StatementCatalog,
    insert: &Insert,
    known: &[Option<SqlType>],
) -> Result<Vec<SqlType>, SqlError> {
    let (_, table) = catalog.target(&insert.table)?;
    let given = positions(&table, &insert.columns)?;
    let mut known = known.to_vec();
    match &insert.source {
        InsertSource::Defaults => Ok(vec![]),
        InsertSource::Values(rows) => {
            check_widths(rows, &given, !insert.columns.is_empty())?;
            let mut others = Vec::new();
            for row in rows {
                for (position, expr) in given.iter().zip(row) {
                    match Cell::of(expr.as_ref()) {
                        Cell::Parameter(number) => learn(&mut known, number, &table.schema.columns[*position].sql_type),
                        Cell::Expression(expr) => others.push(expr),
                        _ => {}
                    }
                }
            }
            let schema = DFSchema::empty();
            let named = |(index, expr): (usize, &&ast::Expr)| {
                let expr = planning.expression(expr, &schema, &known)?;
                Ok(expr.alias(format!("c{index}")))
            };
            let exprs = others.iter().enumerate().map(named).collect::<Result<Vec<_>, SqlError>>()?;
            if exprs.is_empty() {
                return Ok(known.into_iter().map(|t| t.unwrap_or(SqlType::Text)).collect());
            }
            parameter_types(&one_row(exprs)?, &known)
        }
        InsertSource::Query(query) => {
            let plan = planning.query(query, &known)?;
            if let LogicalPlan::Projection(projection) = &plan {
                for (position, expr) in given.iter().zip(&projection.expr) {
                    if let Expr::Placeholder(placeholder) = expr.clone().unalias()
                        && placeholder.field.is_none()
                        && let Some(number) = placeholder.id.strip_prefix('$').and_then(|id| id.parse().ok())
                        && number > 0
                    {
                        learn(&mut known, number, &table.schema.columns[*position].sql_type);
                    }
                }
            }
            parameter_types(&plan, &known)
        }
    }
}

fn learn(known: &mut Vec<Option<SqlType>>, number: usize, sql_type: &SqlType) {
    if known.len() < number {
        known.resize(number, None);
    }
    known[number - 1].get_or_insert_with(|| sql_type.clone());
}

/// The query's columns as values for the table's.
fn assigned(plan: LogicalPlan, table: &Table, given: &[usize], format: &Arc<Format>) -> Result<LogicalPlan, SqlError> {
    // A literal in the select list has no type of its own.
    let literals: Vec<Option<Expr>> = match &plan {
        LogicalPlan::Projection(projection) => {
            let literal = |expr: &Expr| match expr.clone().unalias() {
                literal @ Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, _) => Some(literal),
                _ => None,
            };
            projection.expr.iter().map(literal).collect()
        }
        _ => vec![None; given.len()],
    };
    let schema = Arc::clone(plan.schema());
    let mut exprs = Vec::with_capacity(given.len());
    for (index, (position, column)) in given.iter().zip(schema.columns()).enumerate() {
        let target = &table.schema.columns[*position];
        let expr = literals[index].clone().unwrap_or(Expr::Column(column));
        let expr = assign(read_by(expr, target), &schema, &target.name, &target.sql_type, format)?;
        exprs.push(expr.alias(format!("c{index}")));
    }
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
}

fn check_widths(rows: &[Vec<Option<ast::Expr>>], given: &[usize], named: bool) -> Result<(), SqlError> {
    let width = rows.first().map_or(0, Vec::len);
    if rows.iter().any(|row| row.len() != width) {
        return Err(SqlError::new("42601", "VALUES lists must all be the same length"));
    }
    check_width(width, given, named)
}

fn check_width(width: usize, given: &[usize], named: bool) -> Result<(), SqlError> {
    if width > given.len() {
        return Err(SqlError::new("42601", "INSERT has more expressions than target columns"));
    }
    if width < given.len() && named {
        return Err(SqlError::new("42601", "INSERT has more target columns than expressions"));
    }
    Ok(())
}

/// One value of a VALUES list. Most are constants, which need no plan.
enum Cell<'a> {
    Default,
    Null,
    Text(&'a str),
    Number(String),
    Bool(bool),
    /// From 1.
    Parameter(usize),
    Expression(&'a ast::Expr),
}

impl<'a> Cell<'a> {
    fn of(expr: Option<&'a ast::Expr>) -> Self {
        let Some(expr) = expr else { return Self::Default };
        match expr {
            ast::Expr::Value(value) => match &value.value {
                Value::Null => Self::Null,
                Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Self::Text(text),
                Value::DollarQuotedString(text) => Self::Text(&text.value),
                Value::Number(number, _) => Self::Number(number.clone()),
                Value::Boolean(value) => Self::Bool(*value),
                Value::Placeholder(name) => match name.strip_prefix('$').and_then(|number| number.parse().ok()) {
                    Some(number) if number > 0 => Self::Parameter(number),
                    _ => Self::Expression(expr),
                },
                _ => Self::Expression(expr),
            },
            ast::Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } => match inner.as_ref() {
                ast::Expr::Value(value) => match &value.value {
                    // A number is a numeric, which has no negative zero.
                    Value::Number(number, _) if number.bytes().all(|b| matches!(b, b'0' | b'.')) => {
                        Self::Number(number.clone())
                    }
                    Value::Number(number, _) => Self::Number(format!("-{number}")),
                    _ => Self::Expression(expr),
                },
                _ => Self::Expression(expr),
            },
            expr => Self::Expression(expr),
        }
    }

    /// Whether its text is what a value of the type is read from.
    fn is_plain_for(&self, sql_type: &SqlType) -> bool {
        match self {
            Self::Null | Self::Text(_) | Self::Parameter(_) => true,
            Self::Bool(_) => *sql_type == SqlType::Bool,
            Self::Number(number) => match sql_type {
                // `1.5` is rounded by a cast.
                SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => !number.contains(['.', 'e', 'E', '_', 'x', 'o', 'b']),
                SqlType::Float4 | SqlType::Float8 | SqlType::Numeric(_) => !number.contains(['_', 'x', 'o', 'b']),
                _ => false,
            },
            Self::Default | Self::Expression(_) => false,
        }
    }

    /// A constant that its column cannot take as it stands, for the casts and their errors.
    fn expression(&self) -> ast::Expr {
        let value = match self {
            Self::Number(number) => Value::Number(number.clone(), false),
            Self::Bool(value) => Value::Boolean(*value),
            Self::Text(text) => Value::SingleQuotedString((*text).to_owned()),
            _ => Value::Null,
        };
        ast::Expr::value(value)
    }
}

fn build_column<'a>(
    column: &Column,
    cells: impl ExactSizeIterator<Item = &'a Cell<'a>>,
    values: Vec<Option<ScalarValue>>,
    parameters: &[ScalarValue],
    format: &Format,
) -> Result<ArrayRef, SqlError> {
    // Lengths are looked at when the row is made.
    let read_as = match &column.sql_type {
        SqlType::Varchar(_) | SqlType::Char(_) => &SqlType::Text,
        other => other,
    };
    let mut builder = ColumnBuilder::new(read_as, cells.len());
    let mut scalars: Option<Vec<ScalarValue>> = None;
    for (cell, value) in cells.zip(values) {
        let scalar = match (cell, value) {
            (_, Some(value)) => value,
            (Cell::Parameter(number), None) => parameter(parameters, *number, column)?,
            (cell, None) => {
                match cell {
                    Cell::Text(text) => {
                        let text = column.modifier.map_or(Cow::Borrowed(*text), |modifier| modifier.with_unit(text));
                        builder.push_text(text.as_bytes(), format)?;
                    }
                    Cell::Number(number) => builder.push_text(number.as_bytes(), format)?,
                    Cell::Bool(value) => builder.push_text(if *value { b"t" } else { b"f" }, format)?,
                    _ => builder.push_null(),
                }
                if let Some(scalars) = &mut scalars {
                    scalars.push(ScalarValue::try_from_array(&builder.finish(), 0)?);
                }
                continue;
            }
        };
        // The first value that is not read from text: those before it become values, too.
        if scalars.is_none() {
            let read = builder.finish();
            let before = (0..read.len()).map(|row| ScalarValue::try_from_array(&read, row));
            scalars = Some(before.collect::<Result<_, _>>()?);
        }
        scalars.get_or_insert_default().push(scalar);
    }
    match scalars {
        Some(scalars) if !scalars.is_empty() => Ok(ScalarValue::iter_to_array(scalars)?),
        _ => Ok(builder.finish()),
    }
}

fn parameter(parameters: &[ScalarValue], number: usize, column: &Column) -> Result<ScalarValue, SqlError> {
    let value = parameters.get(number - 1);
    let value = value.ok_or_else(|| SqlError::new("42P02", format!("there is no parameter ${number}")))?;
    let wanted = column.sql_type.arrow();
    if value.data_type() == wanted {
        return Ok(value.clone());
    }
    let message = format!(
        "column \"{}\" is of type {} but parameter ${number} is not of that type",
        column.name, column.sql_type
    );
    value.cast_to(&wanted).map_err(|_| SqlError::new("42804", message))
}
