//! Rows on their way into a table: expressions become values of the columns' types by PostgreSQL's assignment casts,
//! columns that are left out get their defaults, NOT NULL and lengths are checked.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow::datatypes::Schema;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use meridian_hyperfunctions::modifiers::round_array;
use meridian_pgtypes::{Format, fit_length, to_text};
use meridian_proto::SqlType;
use meridian_proto::catalog::Table;
use meridian_proto::schema::Column;

use crate::error::SqlError;
use crate::sql::functions::convert::{constant, from_text, to_text as text_of};
use crate::sql::parse::parse_expression;
use crate::sql::plan::Planning;

/// Makes whole rows of a table out of the columns that a statement gives.
pub(super) struct RowMaker {
    pub table: Arc<Table>,
    /// Positions in the table of the given columns, in the statement's order.
    pub given: Vec<usize>,
    sources: Vec<Source>,
    format: Arc<Format>,
}

enum Source {
    Given(usize),
    Default(Arc<dyn PhysicalExpr>),
    Null,
}

/// Positions of the named columns; all in table order when none is named.
pub(super) fn positions(table: &Table, columns: &[String]) -> Result<Vec<usize>, SqlError> {
    if columns.is_empty() {
        return Ok((0..table.schema.columns.len()).collect());
    }
    let mut positions = Vec::with_capacity(columns.len());
    for name in columns {
        let position = table.schema.position(name).ok_or_else(|| {
            let message = format!("column \"{name}\" of relation \"{}\" does not exist", table.name);
            SqlError::new("42703", message)
        })?;
        if positions.contains(&position) {
            return Err(SqlError::new("42701", format!("column \"{name}\" specified more than once")));
        }
        positions.push(position);
    }
    Ok(positions)
}

impl RowMaker {
    /// `given`: positions of the columns that come.
    pub(super) fn new(
        table: Arc<Table>,
        given: Vec<usize>,
        planning: &Planning,
        state: &SessionState,
    ) -> Result<Self, SqlError> {
        let mut sources = Vec::with_capacity(table.schema.columns.len());
        for (position, column) in table.schema.columns.iter().enumerate() {
            sources.push(match given.iter().position(|given| *given == position) {
                Some(index) => Source::Given(index),
                None => default_of(planning, state, column)?.map_or(Source::Null, Source::Default),
            });
        }
        let format = Arc::clone(&planning.environment().format);
        Ok(Self { table, given, sources, format })
    }

    /// Whole rows out of the given columns, which have their columns' Arrow types.
    pub(super) fn complete(&self, columns: &[ArrayRef], rows: usize) -> Result<RecordBatch, SqlError> {
        let mut arrays = Vec::with_capacity(self.sources.len());
        for (source, column) in self.sources.iter().zip(&self.table.schema.columns) {
            let array = match source {
                Source::Given(index) => Arc::clone(&columns[*index]),
                Source::Default(default) => evaluate(default, rows)?,
                Source::Null => new_null_array(&column.sql_type.arrow(), rows),
            };
            arrays.push(fit(array, column)?);
        }
        self.check_nulls(&arrays)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.table.schema.arrow(), arrays, &options)?)
    }

    fn check_nulls(&self, arrays: &[ArrayRef]) -> Result<(), SqlError> {
        let time = self.table.hypertable().map(|hypertable| hypertable.time_column);
        for (array, column) in arrays.iter().zip(&self.table.schema.columns) {
            let required = column.not_null || time == Some(column.id);
            if !required || array.null_count() == 0 {
                continue;
            }
            let row = (0..array.len()).find(|row| array.is_null(*row)).unwrap_or_default();
            let message = format!(
                "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                column.name, self.table.name
            );
            let values: Vec<String> = arrays
                .iter()
                .zip(&self.table.schema.columns)
                .map(|(array, column)| {
                    let text = to_text(&column.sql_type, array, row, &self.format);
                    text.map_or_else(|| "null".to_owned(), |text| cut(&text))
                })
                .collect();
            let detail = format!("Failing row contains ({}).", values.join(", "));
            return Err(SqlError::new("23502", message).with_detail(detail));
        }
        Ok(())
    }
}

/// PostgreSQL shows at most 64 bytes of each value.
fn cut(text: &str) -> String {
    if text.len() <= 64 {
        return text.to_owned();
    }
    let mut end = 64;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &text[..end])
}

/// Checks lengths of varchar(n) and char(n); rounds timestamp(p) and its like.
fn fit(array: ArrayRef, column: &Column) -> Result<ArrayRef, SqlError> {
    match column.modifier {
        Some(modifier) => Ok(round_array(&array, modifier)?),
        None => fit_text(array, &column.sql_type),
    }
}

fn fit_text(array: ArrayRef, sql_type: &SqlType) -> Result<ArrayRef, SqlError> {
    if !matches!(sql_type, SqlType::Varchar(Some(_)) | SqlType::Char(_)) {
        return Ok(array);
    }
    let Some(texts) = array.as_string_opt::<i32>() else { return Ok(array) };
    let fitted = texts.iter().map(|text| text.map(|text| fit_length(sql_type, text)).transpose());
    let fitted: Vec<Option<Cow<str>>> = fitted.collect::<Result<_, _>>()?;
    Ok(Arc::new(fitted.into_iter().collect::<StringArray>()))
}

fn evaluate(expr: &Arc<dyn PhysicalExpr>, rows: usize) -> Result<ArrayRef, SqlError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
    Ok(expr.evaluate(&batch)?.into_array(rows)?)
}

/// The compiled DEFAULT of a column.
fn default_of(
    planning: &Planning,
    state: &SessionState,
    column: &Column,
) -> Result<Option<Arc<dyn PhysicalExpr>>, SqlError> {
    let Some(text) = &column.default else { return Ok(None) };
    let schema = DFSchema::empty();
    let expr = planning.expression(&parse_expression(text)?, &schema, &[])?;
    let expr = read_by(expr, column);
    let expr = assign(expr, &schema, &column.name, &column.sql_type, &planning.environment().format)?;
    let expr = planning.simplify(planning.coerced(expr)?)?;
    Ok(Some(state.create_physical_expr(expr, &schema)?))
}

/// A constant as a value of `sql_type`.
pub(super) fn constant_of(planning: &Planning, expr: &ast::Expr, sql_type: &SqlType) -> Result<ScalarValue, SqlError> {
    let schema = DFSchema::empty();
    let planned = planning.expression(expr, &schema, &[])?;
    let assigned = assign(planned, &schema, "argument", sql_type, &planning.environment().format)?;
    match planning.simplify(planning.coerced(assigned)?)? {
        Expr::Literal(value, _) => Ok(value),
        _ => Err(SqlError::unsupported(format!("argument {expr} must be a constant"))),
    }
}

/// The expression as a value for a column, by the casts that an assignment may make.
pub(super) fn assign(
    expr: Expr,
    schema: &DFSchema,
    column: &str,
    wanted: &SqlType,
    format: &Arc<Format>,
) -> Result<Expr, SqlError> {
    if let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = &expr {
        // A literal without a type takes the column's.
        return Ok(typed(constant(text, &unpadded(wanted), format)?, wanted));
    }
    if matches!(&expr, Expr::Placeholder(placeholder) if placeholder.field.is_none()) {
        return Ok(expr);
    }
    let (_, field) = expr.to_field(schema)?;
    if field.data_type().is_null() {
        return Ok(typed(ScalarValue::try_from(&wanted.arrow())?, wanted));
    }
    let given = SqlType::of_field(&field).ok_or_else(|| mismatch(column, wanted, &field.data_type().to_string()))?;
    if matches!(&given, SqlType::Array(element) if matches!(**element, SqlType::Array(_))) {
        return Err(SqlError::unsupported("arrays of several dimensions are not supported"));
    }
    if !is_assignable(&given, wanted) {
        return Err(mismatch(column, wanted, &base_name(&given)));
    }
    if *field.data_type() == wanted.arrow() {
        return Ok(expr);
    }
    if let (SqlType::Numeric(Some((_, scale))), SqlType::Numeric(None)) = (&given, wanted)
        && *scale > meridian_proto::types::NUMERIC_UNLIMITED.1
    {
        // By its digits, so that one that does not fit is refused and not rounded.
        return Ok(from_text(text_of(expr, given, format), wanted.clone(), format));
    }
    // A cast to varchar(n) cuts, an assignment refuses: the length is looked at when the row is made.
    let mut field = unpadded(wanted).field("cast", true);
    if *wanted == SqlType::Numeric(None) {
        // A cast to "numeric" would keep the value's own scale; the column has one.
        field = field.with_metadata([].into());
    }
    Ok(Expr::Cast(Cast { expr: Box::new(expr), field: Arc::new(field) }))
}

fn typed(value: ScalarValue, wanted: &SqlType) -> Expr {
    let field = wanted.field("lit", true);
    Expr::Literal(value, Some((&field).into()))
}

/// A text without a type, as a column reads it.
pub(super) fn read_by(expr: Expr, column: &Column) -> Expr {
    match (expr, column.modifier) {
        (Expr::Literal(ScalarValue::Utf8(Some(text)), metadata), Some(modifier)) => {
            Expr::Literal(ScalarValue::Utf8(Some(modifier.with_unit(&text).into_owned())), metadata)
        }
        (expr, _) => expr,
    }
}

/// Texts are measured when the row is made, with the column's name at hand.
fn unpadded(sql_type: &SqlType) -> SqlType {
    match sql_type {
        SqlType::Varchar(_) | SqlType::Char(_) => SqlType::Text,
        other => other.clone(),
    }
}

fn is_assignable(given: &SqlType, wanted: &SqlType) -> bool {
    use SqlType::{Char, Date, Float4, Float8, Int2, Int4, Int8, Numeric, Text, Timestamp, Timestamptz, Varchar};
    let is_number = |t: &SqlType| matches!(t, Int2 | Int4 | Int8 | Float4 | Float8 | Numeric(_));
    let is_time = |t: &SqlType| matches!(t, Timestamptz | Timestamp | Date);
    let is_text = |t: &SqlType| matches!(t, Text | Varchar(_) | Char(_));
    given == wanted
        || (is_number(given) && is_number(wanted))
        || (is_time(given) && is_time(wanted))
        || is_text(wanted)
        || matches!((given, wanted), (SqlType::Array(a), SqlType::Array(b)) if is_element(a, b))
}

/// Elements that a cast of the whole array makes right: numbers, where no digits behind the point are to be rounded.
fn is_element(given: &SqlType, wanted: &SqlType) -> bool {
    use SqlType::{Float4, Float8, Int2, Int4, Int8, Numeric};
    let is_number = |t: &SqlType| matches!(t, Int2 | Int4 | Int8 | Float4 | Float8 | Numeric(_));
    let is_whole = |t: &SqlType| matches!(t, Int2 | Int4 | Int8);
    given.arrow() == wanted.arrow() || (is_number(given) && is_number(wanted) && (is_whole(given) || !is_whole(wanted)))
}

fn base_name(sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::Numeric(_) => "numeric".to_owned(),
        SqlType::Varchar(_) => "character varying".to_owned(),
        SqlType::Char(_) => "character".to_owned(),
        other => other.to_string(),
    }
}

fn mismatch(column: &str, wanted: &SqlType, given: &str) -> SqlError {
    let wanted = base_name(wanted);
    SqlError::new("42804", format!("column \"{column}\" is of type {wanted} but expression is of type {given}"))
        .with_hint("You will need to rewrite or cast the expression.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_follow_postgresqls_casts() {
        use SqlType::{Bool, Date, Float8, Int4, Int8, Jsonb, Numeric, Text, Timestamptz, Varchar};
        for (given, wanted) in [
            (Int8, Int4),
            (Float8, Int4),
            (Numeric(None), Float8),
            (Int4, Text),
            (Date, Timestamptz),
            (Text, Varchar(Some(3))),
        ] {
            assert!(is_assignable(&given, &wanted), "{given} to {wanted}");
        }
        for (given, wanted) in [(Text, Int4), (Int4, Bool), (Text, Jsonb), (Int8, Timestamptz)] {
            assert!(!is_assignable(&given, &wanted), "{given} to {wanted}");
        }
    }

    #[test]
    fn texts_are_cut_to_their_columns_or_refused() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("ab  "), None]));
        let fitted = fit_text(Arc::clone(&texts), &SqlType::Varchar(Some(3))).unwrap();
        assert_eq!(fitted.as_string::<i32>().value(0), "ab ");
        assert_eq!(fit_text(Arc::clone(&texts), &SqlType::Varchar(Some(1))).unwrap_err().sqlstate, "22001");
        let fitted = fit_text(texts, &SqlType::Char(5)).unwrap();
        assert_eq!(fitted.as_string::<i32>().value(0), "ab");
    }
}
