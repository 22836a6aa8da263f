//! `generate_series(start, stop [, step])` as a table of one column, made batch by batch.
//!
//! | start, stop | step | column |
//! |---|---|---|
//! | integer, bigint | the same, 1 if left out | the wider of them |
//! | numeric | numeric, 1 if left out | numeric |
//! | timestamp | interval | timestamp |
//! | timestamptz, date | interval | timestamptz, stepped on the session's clocks |

use std::fmt;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    ArrayRef, Decimal128Array, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, IntervalMonthDayNano, Schema, SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, Result, ScalarValue, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use futures::stream;
use meridian_pgtypes::{Format, TimeZone};
use meridian_proto::SqlType;
use meridian_proto::time::US_PER_DAY;

use super::convert::constant;
use crate::error::SqlError;
use crate::sql::comparisons::{base_name, known_type};
use crate::sql::errors::external;

const NAME: &str = "generate_series";
const NS_PER_US: i64 = 1000;
const DAYS_PER_MONTH: i64 = 30;

/// Plans a call. `evaluate` gives the value of a constant expression.
pub(crate) fn generate_series(
    args: Vec<Expr>,
    format: &Format,
    evaluate: impl Fn(Expr) -> Result<ScalarValue>,
) -> Result<Arc<dyn TableProvider>> {
    let schema = DFSchema::empty();
    let known: Vec<Option<SqlType>> = args.iter().map(|arg| known_type(arg, &schema)).collect();
    let Some((column, step)) = column_type(&known) else {
        let names: Vec<_> = known.iter().map(|t| t.as_ref().map_or_else(|| "unknown".to_owned(), base_name)).collect();
        return Err(external(SqlError::new("42883", format!("function {NAME}({}) does not exist", names.join(", ")))));
    };
    let mut values = Vec::with_capacity(args.len());
    for (index, (arg, known)) in args.into_iter().zip(known).enumerate() {
        let wanted = if index == 2 { &step } else { &column };
        let value = match arg {
            Expr::Literal(ScalarValue::Utf8(Some(text)), _) => constant(&text, wanted, format)?,
            // Numerics keep the digits that they have.
            arg if known.as_ref() == Some(wanted) || matches!(wanted, SqlType::Numeric(_)) => evaluate(arg)?,
            arg => evaluate(Expr::Cast(Cast::new(Box::new(arg), wanted.arrow())))?,
        };
        values.push(value);
    }
    let (column, series) = series(column, &values, format)?;
    let schema = Arc::new(Schema::new(vec![column.field(NAME, false)]));
    Ok(Arc::new(SeriesTable { schema, series }))
}

/// Types of the column and of the step.
fn column_type(args: &[Option<SqlType>]) -> Option<(SqlType, SqlType)> {
    use SqlType::{Date, Int2, Int4, Int8, Interval, Numeric, Timestamp, Timestamptz};
    if !(2..=3).contains(&args.len()) {
        return None;
    }
    let (ends, step) = (&args[..2], args.get(2));
    let all = |types: &[SqlType]| {
        ends.iter().flatten().all(|end| types.iter().any(|t| std::mem::discriminant(t) == std::mem::discriminant(end)))
    };
    let known: Vec<&SqlType> = args.iter().flatten().collect();
    if matches!(step, Some(Some(Interval) | None)) && all(&[Date, Timestamp, Timestamptz]) {
        let timestamps = ends.iter().flatten().any(|end| *end == Timestamp);
        let others = ends.iter().flatten().any(|end| *end == Timestamptz);
        let is_time = step.is_some_and(|step| step.is_some()) || ends.iter().flatten().next().is_some();
        return is_time.then_some((if timestamps && !others { Timestamp } else { Timestamptz }, Interval));
    }
    if known.iter().all(|t| matches!(t, Int2 | Int4)) {
        return Some((Int4, Int4));
    }
    if known.iter().all(|t| matches!(t, Int2 | Int4 | Int8)) {
        return Some((Int8, Int8));
    }
    let numeric = known.iter().all(|t| matches!(t, Int2 | Int4 | Int8 | Numeric(_)));
    numeric.then_some((Numeric(None), Numeric(None)))
}

/// The column's type with its digits, and its values.
fn series(column: SqlType, values: &[ScalarValue], format: &Format) -> Result<(SqlType, Series)> {
    let empty = |column: SqlType| Ok((column, Series { next: None, stop: 0, step: Step::Number(1) }));
    if values.iter().any(ScalarValue::is_null) {
        return empty(column);
    }
    let scale = values.iter().map(scale_of).max().unwrap_or_default();
    let number = |index: usize| match values.get(index) {
        Some(value) => number_of(value, scale),
        None => Ok(10_i128.pow(scale.unsigned_abs().into())),
    };
    let step = match values.get(2) {
        Some(ScalarValue::IntervalMonthDayNano(Some(interval))) => {
            let zone = (column == SqlType::Timestamptz).then(|| format.time_zone.clone());
            Step::Interval { interval: *interval, zone }
        }
        _ => Step::Number(number(2)?),
    };
    if step.sign() == 0 {
        return Err(external(SqlError::new("22023", "step size cannot equal zero")));
    }
    let column = if matches!(column, SqlType::Numeric(_)) { SqlType::Numeric(Some((38, scale))) } else { column };
    Ok((column, Series { next: Some(number(0)?), stop: number(1)?, step }))
}

fn scale_of(value: &ScalarValue) -> i8 {
    match value {
        ScalarValue::Decimal128(_, _, scale) => *scale,
        _ => 0,
    }
}

fn number_of(value: &ScalarValue, scale: i8) -> Result<i128> {
    let whole = match value {
        ScalarValue::Int16(Some(number)) => i128::from(*number),
        ScalarValue::Int32(Some(number)) => i128::from(*number),
        ScalarValue::Int64(Some(number)) | ScalarValue::TimestampMicrosecond(Some(number), _) => i128::from(*number),
        ScalarValue::Decimal128(Some(number), _, _) => *number,
        other => return internal_err!("{NAME} over {}", other.data_type()),
    };
    let more = u32::from((scale - scale_of(value)).unsigned_abs());
    let scaled = 10_i128.checked_pow(more).and_then(|factor| whole.checked_mul(factor));
    scaled.ok_or_else(|| external(SqlError::new("22003", "numeric field overflow")))
}

/// The values to come. Times are microseconds, numerics whole numbers of their last digit.
#[derive(Clone, Debug)]
struct Series {
    /// `None`: it ended.
    next: Option<i128>,
    stop: i128,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    Number(i128),
    /// Months and days are those of the zone's clocks.
    Interval {
        interval: IntervalMonthDayNano,
        zone: Option<TimeZone>,
    },
}

impl Step {
    fn sign(&self) -> i128 {
        match self {
            Self::Number(step) => step.signum(),
            Self::Interval { interval, .. } => {
                let days = i128::from(interval.months) * i128::from(DAYS_PER_MONTH) + i128::from(interval.days);
                (days * i128::from(US_PER_DAY) * i128::from(NS_PER_US) + i128::from(interval.nanoseconds)).signum()
            }
        }
    }

    /// `None`: out of range.
    fn after(&self, value: i128) -> Option<i128> {
        match self {
            Self::Number(step) => value.checked_add(*step),
            Self::Interval { interval, zone } => {
                let us = i64::try_from(value).ok()?;
                let calendar = IntervalMonthDayNano { nanoseconds: 0, ..*interval };
                let moved = if calendar == IntervalMonthDayNano::ZERO {
                    us
                } else {
                    let utc: Tz = "UTC".parse().ok()?;
                    let local = zone.as_ref().map_or(us, |zone| zone.to_local_us(us));
                    let local = TimestampMicrosecondType::add_month_day_nano(local, calendar, utc)?;
                    zone.as_ref().map_or(local, |zone| zone.to_utc_us(local))
                };
                moved.checked_add(interval.nanoseconds / NS_PER_US).map(i128::from)
            }
        }
    }
}

impl Iterator for Series {
    type Item = i128;

    fn next(&mut self) -> Option<i128> {
        let value =
            self.next.filter(|value| if self.step.sign() > 0 { *value <= self.stop } else { *value >= self.stop })?;
        self.next = self.step.after(value);
        Some(value)
    }
}

#[derive(Debug)]
struct SeriesTable {
    schema: SchemaRef,
    series: Series,
}

#[async_trait]
impl TableProvider for SeriesTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        Ok(Arc::new(SeriesExec::new(self.schema.field(0).data_type().clone(), schema, self.series.clone())))
    }
}

/// Makes the series. Its schema is the column, or nothing when only rows are counted.
#[derive(Debug)]
struct SeriesExec {
    column: DataType,
    schema: SchemaRef,
    series: Series,
    properties: Arc<PlanProperties>,
}

impl SeriesExec {
    fn new(column: DataType, schema: SchemaRef, series: Series) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { column, schema, series, properties: Arc::new(properties) }
    }
}

impl DisplayAs for SeriesExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeriesExec: {}", self.column)
    }
}

impl ExecutionPlan for SeriesExec {
    fn name(&self) -> &'static str {
        "SeriesExec"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("a series has no children") }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("a series has no children") }
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = context.session_config().batch_size();
        let (column, schema, mut series) = (self.column.clone(), Arc::clone(&self.schema), self.series.clone());
        let batches = std::iter::from_fn(move || {
            let values: Vec<i128> = series.by_ref().take(rows).collect();
            (!values.is_empty()).then(|| batch(&values, &column, &schema))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::iter(batches))))
    }
}

fn batch(values: &[i128], column: &DataType, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(values.len()));
    let columns = if schema.fields().is_empty() { vec![] } else { vec![array(values, column)?] };
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

fn array(values: &[i128], column: &DataType) -> Result<ArrayRef> {
    // All of them lie between the ends, which are of the column's type.
    let long = |value: &i128| *value as i64;
    Ok(match column {
        DataType::Int32 => Arc::new(values.iter().map(|value| *value as i32).collect::<Int32Array>()),
        DataType::Int64 => Arc::new(values.iter().map(long).collect::<Int64Array>()),
        DataType::Timestamp(_, zone) => Arc::new(
            TimestampMicrosecondArray::from_iter_values(values.iter().map(long)).with_timezone_opt(zone.clone()),
        ),
        DataType::Decimal128(precision, scale) => {
            let array: Decimal128Array = values.iter().copied().map(Some).collect();
            Arc::new(array.with_precision_and_scale(*precision, *scale)?)
        }
        other => return internal_err!("a series of {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const US_PER_SECOND: i64 = 1_000_000;

    fn numbers(start: i128, stop: i128, step: i128) -> Vec<i128> {
        Series { next: Some(start), stop, step: Step::Number(step) }.collect()
    }

    #[test]
    fn series_end_at_their_stop_in_both_directions() {
        assert_eq!(numbers(1, 3, 1), [1, 2, 3]);
        assert_eq!(numbers(5, 1, -2), [5, 3, 1]);
        assert_eq!(numbers(2, 1, 1), [] as [i128; 0]);
        assert_eq!(numbers(i128::MAX - 1, i128::MAX, 2), [i128::MAX - 1]);
    }

    #[test]
    fn days_are_those_of_the_clocks() {
        let zone = TimeZone::parse("Europe/Berlin");
        let interval = IntervalMonthDayNano::new(0, 1, 0);
        // Noon of the 30th of March 2024 in Berlin, and two days on: the clocks go forward between.
        let noon = i128::from(1_711_796_400 * US_PER_SECOND);
        let hours = i128::from(3600 * US_PER_SECOND);
        let step = Step::Interval { interval, zone };
        let series = Series { next: Some(noon), stop: noon + 48 * hours, step };
        assert_eq!(series.collect::<Vec<_>>(), [noon, noon + 23 * hours, noon + 47 * hours]);
    }

    #[test]
    fn types_are_found_as_postgresql_finds_them() {
        use SqlType::{Date, Float8, Int4, Int8, Interval, Numeric, Timestamp, Timestamptz};
        let check = |args: &[Option<SqlType>], expected: Option<SqlType>| {
            assert_eq!(column_type(args).map(|(column, _)| column), expected, "{args:?}");
        };
        check(&[Some(Int4), Some(Int4)], Some(Int4));
        check(&[Some(Int4), Some(Int8)], Some(Int8));
        check(&[Some(Int4), Some(Numeric(None))], Some(Numeric(None)));
        check(&[Some(Timestamp), None, None], Some(Timestamp));
        check(&[Some(Timestamptz), Some(Timestamptz), Some(Interval)], Some(Timestamptz));
        check(&[Some(Date), Some(Date), Some(Interval)], Some(Timestamptz));
        check(&[None, None, Some(Interval)], Some(Timestamptz));
        check(&[Some(Float8), Some(Float8)], None);
        check(&[Some(Timestamp), Some(Timestamp)], None);
        check(&[Some(Int4)], None);
    }
}
