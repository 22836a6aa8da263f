//! Aggregates over buckets of time and series, added up by the leaf where rows lie sorted: below this operator a partial
//! aggregate runs over the rows that the leaf could not add up, and behind its states come those of the leaf's groups.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{CastOptions, cast_with_options, nullif};
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, IntervalMonthDayNano, Schema, SchemaRef, TimeUnit, i256,
};
use arrow::util::display::FormatOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, exec_err, internal_err, plan_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr, conjunction};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions};
use datafusion::scalar::ScalarValue;
use futures::{StreamExt, stream};
use meridian_proto::time::BUCKET_ORIGIN_US;

use crate::bound::{self, Bound, exact_bound_of};
use crate::leaf::{ChunkScanExec, ChunkSource, leaf_of, source_of};
use crate::metadata::properties_over;
use crate::trace::{Predicate, Trace, columns_of, trace, with_leaf};
use crate::want::{Buckets, Grid, Measure, Top, Want};

const US_PER_DAY: i64 = 86_400_000_000;

/// One column of the partial aggregate's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StateColumn {
    /// By position in the key.
    Key(usize),
    Bucket,
    /// By position in the measures.
    Measure(usize),
    /// The same, of how many values an average has; NULL for none, by which the final aggregate knows that it is NULL.
    AverageCount(usize),
}

/// A predicate on columns that are constant within a series.
pub struct KeyPredicate {
    /// Positions in the table's schema.
    pub columns: Vec<usize>,
    schema: SchemaRef,
    expr: Arc<dyn PhysicalExpr>,
}

impl KeyPredicate {
    /// Which rows of the columns it holds for.
    pub fn test(&self, columns: &[ArrayRef]) -> Result<BooleanBuffer> {
        let rows = columns.first().map_or(1, |column| column.len());
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns.to_vec(), &options)?;
        let tested = self.expr.evaluate(&batch)?.into_array(rows)?;
        let Some(tested) = tested.as_any().downcast_ref::<BooleanArray>() else {
            return internal_err!("a predicate that is not boolean");
        };
        Ok(match tested.nulls() {
            Some(nulls) => tested.values() & nulls.inner(),
            None => tested.values().clone(),
        })
    }
}

/// What an aggregate asks of the leaf.
struct Question<'a> {
    buckets: Buckets,
    columns: Vec<StateColumn>,
    bounds: Vec<Bound>,
    /// Predicates that are no bounds.
    others: Vec<Predicate<'a>>,
}

/// The aggregate over a leaf that adds up its groups itself, when its groups are made of series and buckets of time.
/// `is_series`: whether segments are sorted by a column before time.
pub(crate) fn over_buckets(
    partial: &Arc<dyn ExecutionPlan>,
    time: usize,
    is_series: impl Fn(usize) -> bool,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(node) = partial.downcast_ref::<AggregateExec>() else { return Ok(None) };
    let Some(trace) = trace(node.input()) else { return Ok(None) };
    let Some(question) = question_of(node, &trace, Some(time)) else { return Ok(None) };
    let read = question.others.iter().filter_map(|(predicate, columns)| columns_of(predicate, columns)).flatten();
    let bounded = question.bounds.iter().map(|bound| bound.column).filter(|column| *column != time);
    if !question.buckets.key.iter().copied().chain(read).chain(bounded).all(is_series) {
        return Ok(None);
    }
    let leaf = trace.leaf.with_bounds(question.bounds)?.with_want(Want::Buckets(question.buckets))?;
    Ok(Some(Arc::new(BucketAggregateExec::try_new(with_leaf(partial, leaf)?)?)))
}

/// `time`: the only column whose buckets count; `None`: whichever it is.
fn question_of<'a>(node: &AggregateExec, trace: &Trace<'a>, time: Option<usize>) -> Option<Question<'a>> {
    let group = node.group_expr();
    let is_plain = *node.mode() == AggregateMode::Partial
        && !group.has_grouping_set()
        && node.filter_expr().iter().all(Option::is_none);
    if !is_plain {
        return None;
    }
    let mut question = Question {
        buckets: Buckets {
            key: Vec::new(),
            time: time.unwrap_or(usize::MAX),
            grid: None,
            measures: Vec::new(),
            top: None,
        },
        columns: Vec::new(),
        bounds: Vec::new(),
        others: Vec::new(),
    };
    for (expr, _) in group.expr() {
        question.add_group(expr, node.input())?;
    }
    for function in node.aggr_expr() {
        question.add_function(function, trace)?;
    }
    let time = question.buckets.time;
    let field = trace.leaf.table_schema().fields().get(time)?;
    if field.is_nullable() || (question.buckets.grid.is_some() && !has_grid(field.data_type())) {
        return None;
    }
    for (predicate, columns) in &trace.predicates {
        match exact_bound_of(predicate, columns).filter(|bound| trace.leaf.fits(bound)) {
            Some(bound) => question.bounds.push(bound),
            None => {
                columns_of(predicate, columns).filter(|read| !read.is_empty() && !read.contains(&time))?;
                question.others.push((predicate, columns.clone()));
            }
        }
    }
    Some(question)
}

impl Question<'_> {
    fn add_group(&mut self, expr: &Arc<dyn PhysicalExpr>, input: &Arc<dyn ExecutionPlan>) -> Option<()> {
        match source_of_group(expr, input)? {
            GroupSource::Column(column) => {
                let known = self.buckets.key.iter().position(|known| *known == column);
                let at = known.unwrap_or(self.buckets.key.len());
                if known.is_none() {
                    self.buckets.key.push(column);
                }
                self.columns.push(StateColumn::Key(at));
            }
            GroupSource::Bucket { time, grid } => {
                let is_time = self.buckets.time == usize::MAX || self.buckets.time == time;
                if !is_time || self.buckets.grid.is_some_and(|known| known != grid) {
                    return None;
                }
                self.buckets.time = time;
                self.buckets.grid = Some(grid);
                self.columns.push(StateColumn::Bucket);
            }
        }
        Some(())
    }

    fn add_function(&mut self, function: &AggregateFunctionExpr, trace: &Trace<'_>) -> Option<()> {
        let is_average = function.fun().name() == "avg";
        for measure in measures_of(function, trace, &mut self.buckets.time)? {
            let known = self.buckets.measures.iter().position(|known| *known == measure);
            let at = known.unwrap_or(self.buckets.measures.len());
            if known.is_none() {
                self.buckets.measures.push(measure);
            }
            let is_count = is_average && matches!(measure, Measure::Count(_));
            self.columns.push(if is_count { StateColumn::AverageCount(at) } else { StateColumn::Measure(at) });
        }
        Some(())
    }
}

/// The columns of a function's state.
fn measures_of(function: &AggregateFunctionExpr, trace: &Trace<'_>, time: &mut usize) -> Option<Vec<Measure>> {
    if function.is_distinct() || function.ignore_nulls() || !function.order_bys().is_empty() {
        return None;
    }
    let arguments = function.expressions();
    let source = |expr: &Arc<dyn PhysicalExpr>| *trace.columns.get(expr.downcast_ref::<Column>()?.index())?;
    let type_of = |column: usize| trace.leaf.table_schema().field(column).data_type();
    let summed = |expr: &Arc<dyn PhysicalExpr>| {
        let cast = expr.downcast_ref::<CastExpr>();
        let column = source(cast.map_or(expr, CastExpr::expr))?;
        let is_summed = match (type_of(column), cast.map(CastExpr::cast_type)) {
            (from, Some(to)) => is_wider(from, to),
            (from, None) => matches!(from, DataType::Float64 | DataType::Decimal128(..)),
        };
        is_summed.then_some(column)
    };
    let measures = match (function.fun().name(), arguments.as_slice()) {
        ("count", [of]) if of.downcast_ref::<Literal>().is_some_and(|literal| !literal.value().is_null()) => {
            vec![Measure::Rows]
        }
        ("count", [of]) => vec![Measure::Count(source(of)?)],
        ("sum", [of]) => vec![Measure::Sum(summed(of)?)],
        ("avg", [of]) => vec![Measure::Count(summed(of)?), Measure::Sum(summed(of)?)],
        ("min", [of]) if is_number(type_of(source(of)?)) => vec![Measure::Min(source(of)?)],
        ("max", [of]) if is_number(type_of(source(of)?)) => vec![Measure::Max(source(of)?)],
        (name @ ("first" | "last"), [of, at]) if is_number(type_of(source(of)?)) => {
            let at = source(at)?;
            if *time != usize::MAX && *time != at {
                return None;
            }
            *time = at;
            let of = source(of)?;
            if name == "first" {
                vec![Measure::First(of), Measure::FirstTime]
            } else {
                vec![Measure::Last(of), Measure::LastTime]
            }
        }
        _ => return None,
    };
    let states = function.state_fields().ok()?;
    (states.len() == measures.len()).then_some(measures)
}

/// Whether one type becomes the other before it is added up, and the sum is the same as that of the values as they are.
fn is_wider(from: &DataType, to: &DataType) -> bool {
    use DataType::{Decimal128, Float32, Float64, Int16, Int32, Int64};
    match (from, to) {
        (Int16 | Int32 | Int64, Int64 | Decimal128(..)) | (Float32, Float64) => true,
        (Decimal128(precision, scale), Decimal128(to_precision, to_scale)) => {
            let digits = |precision: u8, scale: i8| i16::from(precision) - i16::from(scale);
            to_scale >= scale && digits(*to_precision, *to_scale) >= digits(*precision, *scale)
        }
        _ => false,
    }
}

fn is_number(data_type: &DataType) -> bool {
    use DataType::{Date32, Decimal128, Float32, Float64, Int16, Int32, Int64, Time64, Timestamp};
    matches!(
        data_type,
        Int16
            | Int32
            | Int64
            | Float32
            | Float64
            | Decimal128(..)
            | Date32
            | Time64(TimeUnit::Microsecond)
            | Timestamp(TimeUnit::Microsecond, _)
    )
}

enum GroupSource {
    Column(usize),
    Bucket { time: usize, grid: Grid },
}

/// Where a group's value comes from, down to the leaf.
fn source_of_group(expr: &Arc<dyn PhysicalExpr>, input: &Arc<dyn ExecutionPlan>) -> Option<GroupSource> {
    if let Some(function) = expr.downcast_ref::<ScalarFunctionExpr>() {
        let [width, time, others @ ..] = function.args() else { return None };
        let GroupSource::Column(time) = source_of_group(time, input)? else { return None };
        let value =
            |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Literal>().map(|literal| literal.value().clone());
        let others = others.iter().map(value).collect::<Option<Vec<_>>>()?;
        let grid = grid_of(function.fun().name(), &value(width)?, &others)?;
        return Some(GroupSource::Bucket { time, grid });
    }
    let index = expr.downcast_ref::<Column>()?.index();
    if let Some(leaf) = input.downcast_ref::<ChunkScanExec>() {
        return leaf.projection().get(index).copied().map(GroupSource::Column);
    }
    if let Some(projection) = input.downcast_ref::<ProjectionExec>() {
        return source_of_group(&projection.expr().get(index)?.expr, projection.input());
    }
    let filter = input.downcast_ref::<FilterExec>()?;
    let index = match filter.projection() {
        Some(projection) => *projection.get(index)?,
        None => index,
    };
    let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new("", index));
    source_of_group(&column, filter.input())
}

/// `time_bucket` with a width that is always the same length, with an origin or an offset, or by the clocks of UTC.
fn grid_of(function: &str, width: &ScalarValue, others: &[ScalarValue]) -> Option<Grid> {
    if function != "time_bucket" {
        return None;
    }
    let (width, origin) = match width {
        ScalarValue::IntervalMonthDayNano(Some(width)) => (fixed_us(*width)?, origin_of(others)?),
        _ => {
            let offset = match others {
                [] => 0,
                [offset] => integer(offset)?,
                _ => return None,
            };
            (integer(width)?, offset)
        }
    };
    (width > 0).then_some(Grid { width, origin })
}

fn integer(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int16(value) => value.map(i64::from),
        ScalarValue::Int32(value) => value.map(i64::from),
        ScalarValue::Int64(value) => *value,
        _ => None,
    }
}

/// `None` where its length depends on the calendar.
fn fixed_us(interval: IntervalMonthDayNano) -> Option<i64> {
    let IntervalMonthDayNano { months: 0, days, nanoseconds } = interval else { return None };
    i64::from(days).checked_mul(US_PER_DAY)?.checked_add(nanoseconds / 1000)
}

/// Where buckets begin that have such arguments behind the time.
fn origin_of(others: &[ScalarValue]) -> Option<i64> {
    let others = match others {
        [ScalarValue::Utf8(Some(zone)), others @ ..] if zone.eq_ignore_ascii_case("utc") => others,
        others => others,
    };
    match others {
        [] => Some(BUCKET_ORIGIN_US),
        [ScalarValue::TimestampMicrosecond(Some(origin), _)] => {
            (*origin != i64::MIN && *origin != i64::MAX).then_some(*origin)
        }
        // Buckets of times that the offset was taken from, put back behind them.
        [ScalarValue::IntervalMonthDayNano(Some(offset))] => BUCKET_ORIGIN_US.checked_add(fixed_us(*offset)?),
        _ => None,
    }
}

/// Types whose buckets are found by adding and dividing their numbers.
fn has_grid(data_type: &DataType) -> bool {
    use DataType::{Int16, Int32, Int64, Timestamp};
    matches!(data_type, Int16 | Int32 | Int64 | Timestamp(TimeUnit::Microsecond, _))
}

#[derive(Debug)]
pub struct BucketAggregateExec {
    input: Arc<dyn ExecutionPlan>,
    columns: Vec<StateColumn>,
    properties: Arc<PlanProperties>,
}

impl BucketAggregateExec {
    /// `input`: a partial aggregate over a leaf that wants just its groups and measures.
    pub fn try_new(input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let Some(node) = input.downcast_ref::<AggregateExec>() else {
            return plan_err!("buckets are aggregated, not {}", input.name());
        };
        let wanted = trace(node.input()).and_then(|trace| match trace.leaf.want() {
            Want::Buckets(buckets) => question_of(node, &trace, Some(buckets.time)).zip(Some(buckets.clone())),
            _ => None,
        });
        let Some((question, buckets)) = wanted else {
            return plan_err!("an aggregate of buckets over a leaf that wants none");
        };
        let is_asked = question.buckets == Buckets { top: None, ..buckets };
        if !is_asked || question.columns.len() != input.schema().fields().len() {
            return plan_err!("a leaf wants other buckets than the aggregate above it");
        }
        let columns = question.columns;
        let properties = properties_over(&input);
        Ok(Self { input, columns, properties })
    }

    /// Whether a column of the output is the bucket of time.
    #[must_use]
    pub fn is_bucket(&self, column: usize) -> bool {
        self.columns.get(column) == Some(&StateColumn::Bucket)
    }

    /// The same when only the groups at one end of time are wanted.
    pub fn with_top(&self, top: Top) -> Result<Self> {
        let Some(leaf) = leaf_of(&self.input) else { return internal_err!("buckets without a leaf") };
        let Want::Buckets(buckets) = leaf.want() else { return internal_err!("a leaf that wants no buckets") };
        let leaf = leaf.with_want(Want::Buckets(Buckets { top: Some(top), ..buckets.clone() }))?;
        Self::try_new(with_leaf(&self.input, leaf)?)
    }
}

/// The predicates of a fragment that are no bounds of its leaf, when that wants buckets and they read columns only that may
/// be constant within a series. The outer `None`: something else decides about rows, too.
#[must_use]
pub fn key_predicate(fragment: &Arc<dyn ExecutionPlan>) -> Option<Option<KeyPredicate>> {
    let mut node = fragment;
    let aggregate = loop {
        if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
            break aggregate;
        }
        let [child] = node.children()[..] else { return None };
        node = child;
    };
    let trace = trace(aggregate.input())?;
    let Want::Buckets(buckets) = trace.leaf.want() else { return None };
    let question = question_of(aggregate, &trace, Some(buckets.time))?;
    // The bounds of the leaf are those of the predicate, or nothing could be left to them.
    let known = trace.leaf.with_bounds(question.bounds).ok()?;
    if known.bounds() != trace.leaf.bounds() {
        return None;
    }
    if question.others.is_empty() {
        return Some(None);
    }
    predicate_on_columns(&question.others, trace.leaf.table_schema()).map(Some)
}

/// The predicates by which a fragment takes rows of its leaf and that are no bounds of it, each over the columns that it
/// reads. Whoever knows that all rows of a kind fail one need not read them.
#[must_use]
pub fn row_predicates(fragment: &Arc<dyn ExecutionPlan>) -> Vec<KeyPredicate> {
    let Some(trace) = trace_of_rows(fragment) else { return Vec::new() };
    let is_open = |(predicate, sources): &&Predicate<'_>| {
        let reads = columns_of(predicate, sources).is_some_and(|columns| !columns.is_empty());
        reads && exact_bound_of(predicate, sources).is_none()
    };
    let moved = |predicate| predicate_on_columns(std::slice::from_ref(predicate), trace.leaf.table_schema());
    trace.predicates.iter().filter(is_open).filter_map(moved).collect()
}

/// Lists of bounds, of each of which a row must keep one to be taken.
#[must_use]
pub fn any_of(fragment: &Arc<dyn ExecutionPlan>) -> Vec<Vec<Bound>> {
    let Some(trace) = trace_of_rows(fragment) else { return Vec::new() };
    trace.predicates.iter().flat_map(|(predicate, sources)| bound::any_of(predicate, sources)).collect()
}

/// From the topmost operator by which rows are taken or left, and that computes with nothing but rows.
fn trace_of_rows(fragment: &Arc<dyn ExecutionPlan>) -> Option<Trace<'_>> {
    let mut node = fragment;
    loop {
        if let Some(trace) = trace(node) {
            return Some(trace);
        }
        let [child] = node.children()[..] else { return None };
        node = child;
    }
}

/// The conjunction over just the columns that it reads.
fn predicate_on_columns(predicates: &[Predicate<'_>], table: &SchemaRef) -> Option<KeyPredicate> {
    let mut columns: Vec<usize> = Vec::new();
    let mut moved = Vec::with_capacity(predicates.len());
    for (predicate, sources) in predicates {
        let expr = Arc::clone(*predicate).transform(|node| {
            let Some(column) = node.downcast_ref::<Column>() else { return Ok(Transformed::no(node)) };
            let Some(Some(source)) = sources.get(column.index()).copied() else {
                return internal_err!("a predicate on a column that is computed");
            };
            let known = columns.iter().position(|known| *known == source);
            let at = known.unwrap_or(columns.len());
            if known.is_none() {
                columns.push(source);
            }
            let moved: Arc<dyn PhysicalExpr> = Arc::new(Column::new(column.name(), at));
            Ok(Transformed::yes(moved))
        });
        moved.push(expr.data().ok()?);
    }
    let schema = Arc::new(Schema::new(columns.iter().map(|column| table.field(*column).clone()).collect::<Vec<_>>()));
    Some(KeyPredicate { columns, schema, expr: conjunction(moved) })
}

/// The leaf's groups as states.
fn states(source: &dyn ChunkSource, columns: &[StateColumn], schema: &SchemaRef) -> Result<Option<RecordBatch>> {
    let Some(states) = source.groups()? else { return Ok(None) };
    let rows = states.buckets.len();
    let mut arrays = Vec::with_capacity(columns.len());
    for (column, field) in columns.iter().zip(schema.fields()) {
        let array = match column {
            StateColumn::Key(at) => states.keys.get(*at),
            StateColumn::Bucket => Some(&states.buckets),
            StateColumn::Measure(at) | StateColumn::AverageCount(at) => states.measures.get(*at),
        };
        let Some(array) = array else { return internal_err!("groups without {}", field.name()) };
        let array = match column {
            StateColumn::AverageCount(_) => nullif(array, &eq(array, &Int64Array::new_scalar(0))?)?,
            _ => Arc::clone(array),
        };
        arrays.push(match (array.data_type(), field.data_type()) {
            (held, wanted) if held == wanted => array,
            (DataType::Decimal256(_, held), wanted) if wanted.is_decimal() => narrowed(&array, *held, wanted)?,
            (DataType::Decimal128(_, held), wanted @ DataType::Decimal128(_, scale)) if scale >= held => {
                scaled(&array, scale - held, wanted)?
            }
            (_, wanted) => cast_with_options(&array, wanted, &STRICT)?,
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(Some(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?))
}

/// What does not fit is an error, not NULL.
const STRICT: CastOptions<'_> = CastOptions { safe: false, format_options: FormatOptions::new() };

/// Sums as an average of numerics holds them, with so many digits more behind the point: they may have more digits than its
/// type says.
fn scaled(sums: &ArrayRef, more: i8, data_type: &DataType) -> Result<ArrayRef> {
    let factor = 10_i128.checked_pow(more.unsigned_abs().into());
    let scaled = |sum: i128| match factor.and_then(|factor| sum.checked_mul(factor)) {
        Some(scaled) => Ok(scaled),
        None => exec_err!("numeric field overflow"),
    };
    let sums = sums.as_primitive::<Decimal128Type>().try_unary::<_, Decimal128Type, DataFusionError>(scaled)?;
    Ok(Arc::new(sums.with_data_type(data_type.clone())))
}

/// Sums of numerics as sums and averages hold them.
fn narrowed(sums: &ArrayRef, held: i8, wanted: &DataType) -> Result<ArrayRef> {
    let overflow = || DataFusionError::Execution("numeric field overflow".to_owned());
    let (DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale)) = wanted else {
        return internal_err!("sums of numerics as {wanted}");
    };
    let more = u32::try_from(scale - held).map_err(|_| overflow())?;
    let factor = i256::from_i128(10).checked_pow(more);
    let sums = sums.as_primitive::<Decimal256Type>();
    let wide = |sum: i256| factor.and_then(|factor| sum.checked_mul(factor)).ok_or_else(overflow);
    Ok(match wanted {
        DataType::Decimal256(..) => {
            let sums = sums.try_unary::<_, Decimal256Type, DataFusionError>(wide)?;
            Arc::new(sums.with_data_type(wanted.clone()))
        }
        _ => {
            let narrow = |sum: i256| wide(sum)?.to_i128().ok_or_else(overflow);
            let sums = sums.try_unary::<_, Decimal128Type, DataFusionError>(narrow)?;
            Arc::new(sums.with_data_type(wanted.clone()))
        }
    })
}

fn over(mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    match (children.pop(), children.as_slice()) {
        (Some(child), []) => Ok(Arc::new(BucketAggregateExec::try_new(child)?)),
        _ => internal_err!("buckets of one aggregate"),
    }
}

impl DisplayAs for BucketAggregateExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BucketAggregate")
    }
}

impl ExecutionPlan for BucketAggregateExec {
    fn name(&self) -> &'static str {
        "BucketAggregate"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
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
        over(children)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        over(children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let source = source_of(&context)?;
        let (schema, columns) = (self.schema(), self.columns.clone());
        let rest = self.input.execute(partition, context)?;
        // Only when the aggregate has ended has the leaf read everything.
        let last = {
            let schema = Arc::clone(&schema);
            stream::once(async move { states(source.as_ref(), &columns, &schema) })
                .filter_map(|states| std::future::ready(states.transpose()))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rest.chain(last))))
    }
}
