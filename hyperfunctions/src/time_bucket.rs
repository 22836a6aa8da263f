//! `time_bucket(width, time, ...)` as TimescaleDB has it.
//!
//! | width | time | third argument | fourth, fifth |
//! |---|---|---|---|
//! | interval | timestamptz | offset interval, origin timestamptz, or time zone text | origin, offset |
//! | interval | timestamp, date | offset interval, or origin of the time's type | |
//! | integer | the same integer type | offset of that type | |

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Field, FieldRef, Int16Type, Int32Type, Int64Type, IntervalMonthDayNano,
    IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, internal_err, plan_err};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use meridian_proto::time::{US_PER_DAY, bucket_start};

use crate::bucket::{Buckets, Width, out_of_range};
use crate::zone::Zone;

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct TimeBucket {
    signature: Signature,
}

impl Default for TimeBucket {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for TimeBucket {
    fn name(&self) -> &'static str {
        "time_bucket"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types.get(1) {
            Some(time) => Ok(time.clone()),
            None => plan_err!("time_bucket takes a width and a time"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let field = Field::new(self.name(), self.return_type(&types)?, true);
        let metadata = args.arg_fields[1].metadata().clone();
        Ok(Arc::new(field.with_metadata(metadata)))
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        coerce(arg_types).ok_or_else(|| {
            let types: Vec<_> = arg_types.iter().map(ToString::to_string).collect();
            DataFusionError::Plan(format!("function time_bucket({}) does not exist", types.join(", ")))
        })
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        // With a zone, the hour that a clock change repeats is out of order.
        match inputs {
            [width, time] if width.sort_properties == SortProperties::Singleton => Ok(time.sort_properties),
            _ => Ok(SortProperties::Unordered),
        }
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        Ok(inputs.len() == 2 && inputs[0].sort_properties == SortProperties::Singleton)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let time_type = args.return_type().clone();
        let whole: Option<Vec<ScalarValue>> = scalars(&args.args);
        let rows = if whole.is_some() { 1 } else { args.number_rows };
        let array = match &time_type {
            DataType::Int16 => bucket_integers::<Int16Type>(&args.args, rows)?,
            DataType::Int32 => bucket_integers::<Int32Type>(&args.args, rows)?,
            DataType::Int64 => bucket_integers::<Int64Type>(&args.args, rows)?,
            _ => bucket_times(&args.args, rows)?,
        };
        if whole.is_some() {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
        }
        Ok(ColumnarValue::Array(array))
    }
}

fn scalars(args: &[ColumnarValue]) -> Option<Vec<ScalarValue>> {
    let scalar = |arg: &ColumnarValue| match arg {
        ColumnarValue::Scalar(value) => Some(value.clone()),
        ColumnarValue::Array(_) => None,
    };
    args.iter().map(scalar).collect()
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null)
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_) | DataType::Duration(_))
}

fn coerce(arg_types: &[DataType]) -> Option<Vec<DataType>> {
    let (width, time, rest) = match arg_types {
        [width, time, rest @ ..] if rest.len() <= 3 => (width, time, rest),
        _ => return None,
    };
    if width.is_integer() && time.is_integer() && rest.len() <= 1 && rest.iter().all(DataType::is_integer) {
        let common = if arg_types.contains(&DataType::Int64) {
            DataType::Int64
        } else if arg_types.contains(&DataType::Int32) {
            DataType::Int32
        } else {
            DataType::Int16
        };
        return Some(vec![common; arg_types.len()]);
    }
    if !is_text(width) && !is_interval(width) {
        return None;
    }
    let time = match time {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        text if is_text(text) => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
        _ => return None,
    };
    let mut types = vec![INTERVAL, time.clone()];
    let zoned = matches!(time, DataType::Timestamp(_, Some(_)));
    for (index, argument) in rest.iter().enumerate() {
        types.push(match (index, argument) {
            (0, text) if is_text(text) && zoned => DataType::Utf8,
            (0, interval) if is_interval(interval) && rest.len() == 1 => INTERVAL,
            (0 | 1, origin) if is_text(origin) || is_time(origin) => time.clone(),
            (2, offset) if is_text(offset) || is_interval(offset) => INTERVAL,
            _ => return None,
        });
    }
    // Only the form with a time zone has more than three arguments.
    let long = rest.len() > 1;
    (!long || types[2] == DataType::Utf8).then_some(types)
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, _) | DataType::Date32)
}

fn bucket_integers<T: ArrowPrimitiveType>(args: &[ColumnarValue], rows: usize) -> Result<ArrayRef>
where
    T::Native: Into<i64> + TryFrom<i64>,
{
    let arrays: Vec<_> = args.iter().map(|arg| arg.to_array(rows)).collect::<Result<_>>()?;
    let columns: Vec<_> = arrays.iter().map(|array| array.as_primitive::<T>()).collect();
    let bucket = |row: usize| -> Result<Option<T::Native>> {
        if columns.iter().any(|column| column.is_null(row)) {
            return Ok(None);
        }
        let value = |index: usize| -> i64 { columns[index].value(row).into() };
        let offset = if columns.len() > 2 { value(2) } else { 0 };
        if value(0) <= 0 {
            return exec_err!("period must be greater than 0");
        }
        let start = bucket_start(value(1), value(0), offset).and_then(|start| T::Native::try_from(start).ok());
        start.map(Some).ok_or_else(out_of_range)
    };
    let values: Vec<_> = (0..rows).map(bucket).collect::<Result<_>>()?;
    Ok(Arc::new(values.into_iter().collect::<PrimitiveArray<T>>()))
}

fn bucket_times(args: &[ColumnarValue], rows: usize) -> Result<ArrayRef> {
    let times = args[1].to_array(rows)?;
    let others: Vec<&ColumnarValue> =
        args.iter().enumerate().filter(|(index, _)| *index != 1).map(|(_, a)| a).collect();
    // Width, origin, offset and zone are constants in all but odd queries: worked out once then.
    if let Some(constants) = others.iter().map(|arg| scalar_of(arg)).collect::<Option<Vec<_>>>() {
        let buckets = parse_buckets(&constants, times.data_type())?;
        return map_times(&times, |_| Ok(buckets));
    }
    let arrays: Vec<_> = others.iter().map(|arg| arg.to_array(rows)).collect::<Result<_>>()?;
    map_times(&times, |row| {
        let values: Vec<_> = arrays.iter().map(|a| ScalarValue::try_from_array(a, row)).collect::<Result<_>>()?;
        parse_buckets(&values, times.data_type())
    })
}

fn scalar_of(arg: &ColumnarValue) -> Option<ScalarValue> {
    match arg {
        ColumnarValue::Scalar(value) => Some(value.clone()),
        ColumnarValue::Array(_) => None,
    }
}

/// Every argument but the time. `None`: one that makes the result NULL is NULL.
fn parse_buckets(values: &[ScalarValue], time_type: &DataType) -> Result<Option<Buckets>> {
    let Some(width) = interval_of(&values[0]) else { return Ok(None) };
    let width = Width::try_new(width)?;
    if *time_type == DataType::Date32
        && let Width::Fixed { us } = width
        && us % US_PER_DAY != 0
    {
        return exec_err!("interval must not have sub-day precision");
    }
    let mut buckets = Buckets { width, origin_us: None, offset: None, zone: None };
    for (index, value) in values[1..].iter().enumerate() {
        match value {
            ScalarValue::Utf8(Some(name)) => {
                let zone = Zone::parse(name);
                buckets.zone = Some(
                    zone.ok_or_else(|| DataFusionError::Execution(format!("time zone \"{name}\" not recognized")))?,
                );
            }
            // Origin and offset behind a time zone may be left NULL; elsewhere the function is strict.
            value if value.is_null() && index > 0 => {}
            value if value.is_null() => return Ok(None),
            ScalarValue::IntervalMonthDayNano(offset) => buckets.offset = *offset,
            ScalarValue::Date32(Some(days)) => buckets.origin_us = Some(i64::from(*days) * US_PER_DAY),
            ScalarValue::TimestampMicrosecond(Some(us), _) => {
                let local = buckets.zone.map_or(Some(*us), |zone| zone.to_local(*us));
                buckets.origin_us = Some(local.ok_or_else(out_of_range)?);
            }
            other => return internal_err!("time_bucket with an argument of type {}", other.data_type()),
        }
    }
    Ok(Some(buckets))
}

fn interval_of(value: &ScalarValue) -> Option<IntervalMonthDayNano> {
    match value {
        ScalarValue::IntervalMonthDayNano(interval) => *interval,
        _ => None,
    }
}

fn map_times(times: &ArrayRef, buckets: impl Fn(usize) -> Result<Option<Buckets>>) -> Result<ArrayRef> {
    match times.data_type() {
        DataType::Date32 => {
            let days = times.as_primitive::<Date32Type>();
            let starts = map_rows(days, |row, value| match buckets(row)? {
                _ if value == i32::MIN || value == i32::MAX => Ok(Some(value)),
                Some(buckets) => {
                    let time_us = i64::from(value).checked_mul(US_PER_DAY).ok_or_else(out_of_range)?;
                    let start = buckets.start(time_us)?.div_euclid(US_PER_DAY);
                    i32::try_from(start).map(Some).map_err(|_| out_of_range())
                }
                None => Ok(None),
            })?;
            Ok(Arc::new(starts))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let times = times.as_primitive::<TimestampMicrosecondType>();
            let starts = map_rows(times, |row, value| match buckets(row)? {
                Some(buckets) => buckets.start(value).map(Some),
                None => Ok(None),
            })?;
            Ok(Arc::new(starts.with_timezone_opt(zone.clone())))
        }
        other => internal_err!("time_bucket of type {other}"),
    }
}

fn map_rows<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    map: impl Fn(usize, T::Native) -> Result<Option<T::Native>>,
) -> Result<PrimitiveArray<T>> {
    let value = |row: usize| if array.is_null(row) { Ok(None) } else { map(row, array.value(row)) };
    let values: Vec<_> = (0..array.len()).map(value).collect::<Result<_>>()?;
    Ok(values.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;
    use chrono::NaiveDateTime;
    use datafusion::common::config::ConfigOptions;
    use datafusion::logical_expr::ScalarUDF;

    use super::*;

    fn us(text: &str) -> i64 {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc().timestamp_micros()
    }

    fn timestamp(text: &str) -> ScalarValue {
        ScalarValue::TimestampMicrosecond(Some(us(text)), Some(Arc::from("UTC")))
    }

    fn interval(months: i32, days: i32, minutes: i64) -> ScalarValue {
        let nanoseconds = minutes * 60_000_000_000;
        ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months, days, nanoseconds }))
    }

    fn call(values: Vec<ScalarValue>) -> Result<ScalarValue> {
        let function = ScalarUDF::from(TimeBucket::default());
        let fields = values.iter().map(|value| Arc::new(Field::new("a", value.data_type(), true))).collect::<Vec<_>>();
        let return_field = Arc::new(Field::new("b", fields[1].data_type().clone(), true));
        let args = ScalarFunctionArgs {
            args: values.into_iter().map(ColumnarValue::Scalar).collect(),
            arg_fields: fields,
            number_rows: 1,
            return_field,
            config_options: Arc::new(ConfigOptions::default()),
        };
        match function.invoke_with_args(args)? {
            ColumnarValue::Scalar(value) => Ok(value),
            ColumnarValue::Array(_) => internal_err!("an array"),
        }
    }

    fn check(values: Vec<ScalarValue>, expected: &str) {
        assert_eq!(call(values).unwrap(), timestamp(expected));
    }

    #[test]
    fn days_weeks_and_months_start_where_timescaledb_has_them() {
        let time = || timestamp("2013-01-02 15:47");
        check(vec![interval(0, 0, 5), time()], "2013-01-02 15:45");
        check(vec![interval(0, 7, 0), time()], "2012-12-31 00:00");
        check(vec![interval(1, 0, 0), time()], "2013-01-01 00:00");
        // Months count from January 2000: 155 of the 156 since then make whole buckets.
        check(vec![interval(5, 0, 0), time()], "2012-12-01 00:00");
        check(vec![interval(0, 7, 0), time(), interval(0, 1, 0)], "2013-01-01 00:00");
        check(vec![interval(0, 7, 0), time(), timestamp("2013-01-02 00:00")], "2013-01-02 00:00");
    }

    #[test]
    fn dates_beyond_all_timestamps_are_out_of_range() {
        let bucket = |days| call(vec![interval(0, 1, 0), ScalarValue::Date32(Some(days))]);
        assert_eq!(bucket(19_000).unwrap(), ScalarValue::Date32(Some(19_000)));
        for days in [i32::MAX - 1, i32::MIN + 1] {
            assert!(bucket(days).unwrap_err().to_string().contains("timestamp out of range"));
        }
    }

    #[test]
    fn buckets_of_a_zone_start_at_its_midnight() {
        let zone = || ScalarValue::from("Europe/Berlin");
        check(vec![interval(0, 1, 0), timestamp("2024-07-01 23:30"), zone()], "2024-07-01 22:00");
        check(vec![interval(0, 1, 0), timestamp("2024-01-01 23:30"), zone()], "2024-01-01 23:00");
    }

    #[test]
    fn widths_that_make_no_sense_are_refused() {
        let refused = |width, expected: &str| {
            let error = call(vec![width, timestamp("2024-01-01 00:00")]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        refused(interval(0, 0, 0), "period must be greater than 0");
        refused(interval(1, 1, 0), "month intervals cannot have day or time component");
    }

    #[test]
    fn integers_have_buckets_with_an_offset() {
        let int = |value| ScalarValue::Int64(Some(value));
        assert_eq!(call(vec![int(5), int(-1)]).unwrap(), int(-5));
        assert_eq!(call(vec![int(5), int(7), int(1)]).unwrap(), int(6));
        assert!(call(vec![int(5), int(i64::MIN)]).is_err());
    }

    #[test]
    fn a_column_keeps_its_time_zone_and_its_infinities() {
        let times = TimestampMicrosecondArray::from(vec![Some(i64::MAX), None, Some(1)]).with_timezone("UTC");
        let args = [ColumnarValue::Scalar(interval(0, 1, 0)), ColumnarValue::Array(Arc::new(times))];
        let result = bucket_times(&args, 3).unwrap();
        assert_eq!(*result.data_type(), DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))));
        let values: Vec<_> = result.as_primitive::<TimestampMicrosecondType>().iter().collect();
        assert_eq!(values, [Some(i64::MAX), None, Some(0)]);
    }

    #[test]
    fn an_untyped_third_argument_is_a_zone_only_for_timestamptz() {
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")));
        let text = DataType::Utf8;
        assert_eq!(coerce(&[text.clone(), zoned.clone(), text.clone()]).unwrap(), [INTERVAL, zoned, text.clone()]);
        assert!(coerce(&[DataType::Int64, DataType::Date32]).is_none());
        assert_eq!(coerce(&[DataType::Int32, DataType::Int16]).unwrap(), vec![DataType::Int32; 2]);
    }
}
