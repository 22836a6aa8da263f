//! `first(value, time)` and `last(value, time)`: the value of the row with the least or greatest time. Rows whose time
//! is NULL do not count; a NULL value does. Of equal times, the row that came first stays.
//!
//! The partial state is (value, time), and states merge by the rule by which rows do.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, make_comparator};
use arrow::buffer::NullBuffer;
use arrow::compute::{SortOptions, cast, nullif};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility};

/// One of the two aggregates.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct EndValue {
    end: End,
    signature: Signature,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    First,
    Last,
}

impl End {
    /// Whether a row whose time compares like this to the current one takes its place.
    fn replaces(self, candidate_to_current: Ordering) -> bool {
        candidate_to_current == if self == Self::First { Ordering::Less } else { Ordering::Greater }
    }
}

impl EndValue {
    pub(crate) fn first() -> Self {
        Self { end: End::First, signature: Signature::any(2, Volatility::Immutable) }
    }

    pub(crate) fn last() -> Self {
        Self { end: End::Last, signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for EndValue {
    fn name(&self) -> &str {
        match self.end {
            End::First => "first",
            End::Last => "last",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [value, _] => Ok(value.clone()),
            _ => plan_err!("{} takes a value and a time", self.name()),
        }
    }

    /// Keeps the value's metadata, which tells its SQL type.
    fn return_field(&self, arg_fields: &[FieldRef]) -> Result<FieldRef> {
        let [value, _] = arg_fields else {
            return plan_err!("{} takes a value and a time", self.name());
        };
        let field = Field::new(self.name(), value.data_type().clone(), true);
        Ok(Arc::new(field.with_metadata(value.metadata().clone())))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let [value, time] = args.input_fields else {
            return internal_err!("{} without its two arguments", self.name());
        };
        let field = |part: &str, of: &FieldRef| {
            Arc::new(Field::new(format!("{}[{part}]", args.name), of.data_type().clone(), true))
        };
        Ok(vec![field("value", value), field("time", time)])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (value_type, time_type) = argument_types(&args)?;
        if args.is_distinct {
            return plan_err!("DISTINCT is not supported for {}", self.name());
        }
        Ok(Box::new(EndAccumulator {
            end: self.end,
            value: ScalarValue::try_from(&value_type)?,
            time: ScalarValue::try_from(&time_type)?,
        }))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        argument_types(&args).is_ok_and(|(_, time_type)| is_integer_like(&time_type)) && !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let (value_type, time_type) = argument_types(&args)?;
        Ok(Box::new(GroupsEnd {
            end: self.end,
            no_value: ScalarValue::try_from(&value_type)?,
            value_type,
            time_type,
            times: Vec::new(),
            values: Vec::new(),
            winners: Vec::new(),
            touched: Vec::new(),
        }))
    }
}

fn argument_types(args: &AccumulatorArgs) -> Result<(DataType, DataType)> {
    match args.expr_fields {
        [value, time] => Ok((value.data_type().clone(), time.data_type().clone())),
        // A final aggregate is made over the state's columns, with the same arguments.
        _ => internal_err!("{} without its two arguments", args.name),
    }
}

/// Types that compare like the i64 they are cast to.
fn is_integer_like(time_type: &DataType) -> bool {
    matches!(
        time_type,
        DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Date32
            | DataType::Timestamp(_, _)
            | DataType::Time64(_)
    )
}

fn integers(times: &ArrayRef) -> Result<Int64Array> {
    let times = match times.data_type() {
        DataType::Date32 => cast(&cast(times, &DataType::Int32)?, &DataType::Int64)?,
        _ => cast(times, &DataType::Int64)?,
    };
    Ok(times.as_primitive::<Int64Type>().clone())
}

fn from_integers(times: Int64Array, time_type: &DataType) -> Result<ArrayRef> {
    let times: ArrayRef = Arc::new(times);
    Ok(match time_type {
        DataType::Date32 => cast(&cast(&times, &DataType::Int32)?, time_type)?,
        _ => cast(&times, time_type)?,
    })
}

/// The end of one group.
#[derive(Debug)]
struct EndAccumulator {
    end: End,
    value: ScalarValue,
    /// NULL: no row yet.
    time: ScalarValue,
}

impl EndAccumulator {
    /// The row of a batch that stands first or last.
    fn winner(&self, times: &ArrayRef) -> Result<Option<usize>> {
        let compare = make_comparator(times, times, SortOptions::default())?;
        let rows = (0..times.len()).filter(|row| times.is_valid(*row));
        Ok(rows.reduce(|best, row| if self.end.replaces(compare(row, best)) { row } else { best }))
    }
}

impl Accumulator for EndAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [values, times] = values else { return internal_err!("two columns expected") };
        let Some(row) = self.winner(times)? else { return Ok(()) };
        let time = ScalarValue::try_from_array(times, row)?;
        let better = match time.partial_cmp(&self.time) {
            _ if self.time.is_null() => true,
            Some(order) => self.end.replaces(order),
            None => return exec_err!("times of type {} have no order", times.data_type()),
        };
        if better {
            self.value = ScalarValue::try_from_array(values, row)?;
            self.value.compact();
            self.time = time;
            self.time.compact();
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size() + self.time.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone(), self.time.clone()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

const NO_ROW: u32 = u32::MAX;

/// The ends of many groups. A batch first finds each group's winner by time alone; only winners' values are copied.
struct GroupsEnd {
    end: End,
    value_type: DataType,
    time_type: DataType,
    no_value: ScalarValue,
    /// `None`: no row yet.
    times: Vec<Option<i64>>,
    values: Vec<ScalarValue>,
    /// Row of the current batch by group; all [`NO_ROW`] between batches.
    winners: Vec<u32>,
    touched: Vec<usize>,
}

impl GroupsEnd {
    fn grow(&mut self, groups: usize) {
        self.times.resize(groups, None);
        self.values.resize(groups, self.no_value.clone());
        self.winners.resize(groups, NO_ROW);
    }

    fn offer(&mut self, group: usize, time: i64, row: usize) {
        let better = self.times[group].is_none_or(|current| self.end.replaces(time.cmp(&current)));
        if better {
            self.times[group] = Some(time);
            if self.winners[group] == NO_ROW {
                self.touched.push(group);
            }
            self.winners[group] = row as u32;
        }
    }

    fn take_values(&mut self, values: &ArrayRef) -> Result<()> {
        for group in std::mem::take(&mut self.touched) {
            let row = std::mem::replace(&mut self.winners[group], NO_ROW) as usize;
            let mut value = ScalarValue::try_from_array(values, row)?;
            value.compact();
            self.values[group] = value;
        }
        Ok(())
    }

    fn emit_values(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let values = emit_to.take_needed(&mut self.values);
        let groups = values.len();
        let left = self.values.len();
        self.winners.truncate(left);
        if groups == 0 {
            return Ok(arrow::array::new_empty_array(&self.value_type));
        }
        ScalarValue::iter_to_array(values)
    }
}

impl GroupsAccumulator for GroupsEnd {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let [values, times] = values else { return internal_err!("two columns expected") };
        self.grow(total_num_groups);
        let times = integers(times)?;
        for (row, (group, time)) in group_indices.iter().zip(&times).enumerate() {
            let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if let Some(time) = time.filter(|_| passes) {
                self.offer(*group, time, row);
            }
        }
        self.take_values(values)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let _ = emit_to.take_needed(&mut self.times);
        self.emit_values(emit_to)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let times = Int64Array::from(emit_to.take_needed(&mut self.times));
        Ok(vec![self.emit_values(emit_to)?, from_integers(times, &self.time_type)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.update_batch(values, group_indices, None, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let [values, times] = values else { return internal_err!("two columns expected") };
        let times = match filter {
            // A row without a time does not count.
            Some(filter) => {
                let passes = filter.values()
                    & &filter.nulls().map_or_else(
                        || arrow::buffer::BooleanBuffer::new_set(filter.len()),
                        |nulls: &NullBuffer| nulls.inner().clone(),
                    );
                nullif(times, &BooleanArray::from(!&passes))?
            }
            None => Arc::clone(times),
        };
        Ok(vec![Arc::clone(values), times])
    }

    fn size(&self) -> usize {
        let values: usize = self.values.iter().map(ScalarValue::size).sum();
        values + self.times.capacity() * size_of::<Option<i64>>() + self.winners.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{StringArray, TimestampMicrosecondArray};

    use super::*;

    fn columns(rows: &[(Option<&str>, Option<i64>)]) -> Vec<ArrayRef> {
        let values: StringArray = rows.iter().map(|(value, _)| *value).collect();
        let times: TimestampMicrosecondArray = rows.iter().map(|(_, time)| *time).collect();
        vec![Arc::new(values), Arc::new(times)]
    }

    fn groups(end: End) -> GroupsEnd {
        let time_type = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
        GroupsEnd {
            end,
            no_value: ScalarValue::Utf8(None),
            value_type: DataType::Utf8,
            time_type,
            times: vec![],
            values: vec![],
            winners: vec![],
            touched: vec![],
        }
    }

    fn texts(array: &ArrayRef) -> Vec<Option<&str>> {
        array.as_string::<i32>().iter().collect()
    }

    #[test]
    fn the_value_at_the_greatest_time_is_last_even_if_it_is_null() {
        let rows = [(Some("a"), Some(5)), (Some("b"), None), (None, Some(9)), (Some("c"), Some(9))];
        let mut last = groups(End::Last);
        last.update_batch(&columns(&rows), &[0, 0, 0, 0], None, 1).unwrap();
        assert_eq!(texts(&last.evaluate(EmitTo::All).unwrap()), [None]);
        let mut first = EndAccumulator {
            end: End::First,
            value: ScalarValue::Utf8(None),
            time: ScalarValue::TimestampMicrosecond(None, None),
        };
        first.update_batch(&columns(&rows)).unwrap();
        assert_eq!(first.evaluate().unwrap(), ScalarValue::from("a"));
    }

    #[test]
    fn states_merge_as_rows_do() {
        let (mut left, mut right) = (groups(End::Last), groups(End::Last));
        left.update_batch(&columns(&[(Some("a"), Some(1)), (Some("b"), Some(7))]), &[0, 1], None, 3).unwrap();
        right.update_batch(&columns(&[(Some("c"), Some(2)), (Some("d"), Some(6))]), &[0, 1], None, 2).unwrap();
        let state = right.state(EmitTo::All).unwrap();
        left.merge_batch(&state, &[0, 1], 3).unwrap();
        assert_eq!(texts(&left.evaluate(EmitTo::First(2)).unwrap()), [Some("c"), Some("b")]);
        assert_eq!(texts(&left.evaluate(EmitTo::All).unwrap()), [None]);
    }

    #[test]
    fn rows_that_a_filter_leaves_out_do_not_count() {
        let filter = BooleanArray::from(vec![Some(true), Some(false), None]);
        let rows = columns(&[(Some("a"), Some(1)), (Some("b"), Some(2)), (Some("c"), Some(3))]);
        let mut last = groups(End::Last);
        last.update_batch(&rows, &[0, 0, 0], Some(&filter), 1).unwrap();
        assert_eq!(texts(&last.evaluate(EmitTo::All).unwrap()), [Some("a")]);
        let state = last.convert_to_state(&rows, Some(&filter)).unwrap();
        assert_eq!(state[1].null_count(), 2);
    }
}
