//! Times as PostgreSQL computes with them: `timezone`, which is AT TIME ZONE, sums with intervals and differences that
//! count days, the order of intervals, and the way between dates and timestamps. Infinite times stay infinite.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, IntervalMonthDayNanoArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, internal_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use meridian_proto::time::US_PER_DAY;

use crate::bucket::{add_interval, negate, out_of_range};
use crate::zone::Zone;

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// `timezone(zone, timestamptz)` is the zone's local time, `timezone(zone, timestamp)` the other way.
    Zone,
    /// `time_difference(a, b)`: days and time.
    Difference,
    /// `interval_multiply(i, factor)`.
    Multiply,
    /// `interval_order(i)`: a number by which intervals compare, months of 30 days, days of 24 hours.
    Order,
    /// `time_add(timestamp, interval)`, or with a zone, whose clocks days and months are counted on.
    Add,
    /// `time_subtract(timestamp, interval)`, likewise.
    Subtract,
    /// `timestamp_to_date(timestamp)`
    ToDate,
    /// `date_to_timestamp(date)`
    FromDate,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeFunction {
    kind: Kind,
    signature: Signature,
}

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let function = |kind| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(TimeFunction { kind, signature }))
    };
    [Kind::Zone, Kind::Difference, Kind::Multiply, Kind::Order, Kind::Add, Kind::Subtract, Kind::ToDate, Kind::FromDate]
        .into_iter()
        .map(function)
        .collect()
});

/// All of them.
#[must_use]
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    FUNCTIONS.clone()
}

fn function(kind: Kind) -> Arc<ScalarUDF> {
    Arc::clone(&FUNCTIONS[kind as usize])
}

/// AT TIME ZONE.
#[must_use]
pub fn timezone() -> Arc<ScalarUDF> {
    function(Kind::Zone)
}

/// Difference of two timestamps.
#[must_use]
pub fn time_difference() -> Arc<ScalarUDF> {
    function(Kind::Difference)
}

/// What intervals compare by.
#[must_use]
pub fn interval_order() -> Arc<ScalarUDF> {
    function(Kind::Order)
}

/// An interval times a double precision number.
#[must_use]
pub fn interval_multiply() -> Arc<ScalarUDF> {
    function(Kind::Multiply)
}

/// A timestamp plus an interval.
#[must_use]
pub fn time_add() -> Arc<ScalarUDF> {
    function(Kind::Add)
}

/// A timestamp minus an interval.
#[must_use]
pub fn time_subtract() -> Arc<ScalarUDF> {
    function(Kind::Subtract)
}

/// The date of a timestamp.
#[must_use]
pub fn timestamp_to_date() -> Arc<ScalarUDF> {
    function(Kind::ToDate)
}

/// A date's midnight.
#[must_use]
pub fn date_to_timestamp() -> Arc<ScalarUDF> {
    function(Kind::FromDate)
}

fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")))
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

impl ScalarUDFImpl for TimeFunction {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Zone => "timezone",
            Kind::Difference => "time_difference",
            Kind::Order => "interval_order",
            Kind::Multiply => "interval_multiply",
            Kind::Add => "time_add",
            Kind::Subtract => "time_subtract",
            Kind::ToDate => "timestamp_to_date",
            Kind::FromDate => "date_to_timestamp",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.kind, types) {
            (Kind::Zone, [zone, DataType::Timestamp(_, None)]) if is_text(zone) => {
                return Ok(vec![DataType::Utf8, TIMESTAMP]);
            }
            (Kind::Zone, [zone, time]) if is_text(zone) => {
                let is_time = matches!(time, DataType::Timestamp(_, Some(_)) | DataType::Date32) || is_text(time);
                if is_time {
                    return Ok(vec![DataType::Utf8, timestamptz()]);
                }
            }
            (Kind::Difference, [DataType::Timestamp(_, a), DataType::Timestamp(_, b)])
                if a.is_some() == b.is_some() =>
            {
                let data_type = if a.is_some() { timestamptz() } else { TIMESTAMP };
                return Ok(vec![data_type.clone(), data_type]);
            }
            (Kind::Order, [DataType::Interval(_)]) => return Ok(vec![INTERVAL]),
            (Kind::Multiply, [DataType::Interval(_), factor]) if factor.is_numeric() => {
                return Ok(vec![INTERVAL, DataType::Float64]);
            }
            (Kind::Add | Kind::Subtract, [DataType::Timestamp(_, zone), DataType::Interval(_)]) => {
                return Ok(vec![if zone.is_some() { timestamptz() } else { TIMESTAMP }, INTERVAL]);
            }
            (Kind::Add | Kind::Subtract, [DataType::Timestamp(_, Some(_)), DataType::Interval(_), zone])
                if is_text(zone) =>
            {
                return Ok(vec![timestamptz(), INTERVAL, DataType::Utf8]);
            }
            (Kind::ToDate, [DataType::Timestamp(_, None)]) => return Ok(vec![TIMESTAMP]),
            (Kind::FromDate, [DataType::Date32]) => return Ok(types.to_vec()),
            _ => {}
        }
        let types: Vec<_> = types.iter().map(ToString::to_string).collect();
        plan_err!("function {}({}) does not exist", self.name(), types.join(", "))
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match (self.kind, types) {
            (Kind::Zone, [_, DataType::Timestamp(_, None)]) => timestamptz(),
            (Kind::Zone, _) => TIMESTAMP,
            (Kind::Difference | Kind::Multiply, _) => INTERVAL,
            (Kind::Order, _) => DataType::Decimal128(38, 0),
            (Kind::Add | Kind::Subtract, [time, ..]) => time.clone(),
            (Kind::ToDate, _) => DataType::Date32,
            (Kind::FromDate | Kind::Add | Kind::Subtract, _) => TIMESTAMP,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let whole = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if whole { 1 } else { args.number_rows };
        let result = match (self.kind, args.args.as_slice()) {
            (Kind::Zone, [zone, time]) => shift(zone, &time.to_array(rows)?)?,
            (Kind::Difference, [left, right]) => difference(&left.to_array(rows)?, &right.to_array(rows)?)?,
            (Kind::Order, [interval]) => order(&interval.to_array(rows)?)?,
            (Kind::Add | Kind::Subtract, [time, interval, zone @ ..]) => {
                let zone = match zone {
                    [] => None,
                    [ColumnarValue::Scalar(ScalarValue::Utf8(Some(name)))] => Some(parse_zone(name)?),
                    _ => return internal_err!("{} with a zone that is not a constant", self.name()),
                };
                let subtracts = self.kind == Kind::Subtract;
                add(&time.to_array(rows)?, &interval.to_array(rows)?, zone, subtracts)?
            }
            (Kind::ToDate, [time]) => to_date(&time.to_array(rows)?)?,
            (Kind::FromDate, [date]) => from_date(&date.to_array(rows)?)?,
            (Kind::Multiply, [interval, factor]) => multiply(&interval.to_array(rows)?, &factor.to_array(rows)?)?,
            _ => return internal_err!("{} with {} arguments", self.name(), args.args.len()),
        };
        if whole {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

fn parse_zone(name: &str) -> Result<Zone> {
    let unknown = || DataFusionError::Execution(format!("time zone \"{name}\" not recognized"));
    Zone::parse(name).ok_or_else(unknown)
}

fn shift(zone: &ColumnarValue, times: &ArrayRef) -> Result<ArrayRef> {
    let DataType::Timestamp(TimeUnit::Microsecond, from) = times.data_type() else {
        return internal_err!("timezone of {}", times.data_type());
    };
    let to_local = from.is_some();
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let move_one = |zone: Zone, time: i64| {
        let moved = if to_local { zone.to_local(time) } else { zone.to_utc(time) };
        moved.ok_or_else(out_of_range)
    };
    let moved: TimestampMicrosecondArray = match zone {
        ColumnarValue::Scalar(ScalarValue::Utf8(Some(name))) => {
            let zone = parse_zone(name)?;
            times.try_unary(|time| move_one(zone, time))?
        }
        ColumnarValue::Scalar(value) if value.is_null() => TimestampMicrosecondArray::new_null(times.len()),
        ColumnarValue::Scalar(other) => return internal_err!("a zone of type {}", other.data_type()),
        ColumnarValue::Array(zones) => {
            let rows = zones.as_string::<i32>().iter().zip(times);
            let moved = rows.map(|(zone, time)| match (zone, time) {
                (Some(zone), Some(time)) => move_one(parse_zone(zone)?, time).map(Some),
                _ => Ok(None),
            });
            moved.collect::<Result<Vec<_>>>()?.into()
        }
    };
    Ok(Arc::new(if to_local { moved } else { moved.with_timezone("UTC") }))
}

fn add(times: &ArrayRef, intervals: &ArrayRef, zone: Option<Zone>, subtracts: bool) -> Result<ArrayRef> {
    let DataType::Timestamp(_, type_zone) = times.data_type() else {
        return internal_err!("time_add of {}", times.data_type());
    };
    let move_one = |us: i64, interval: IntervalMonthDayNano| {
        let interval = if subtracts { negate(interval)? } else { interval };
        let Some(zone) = zone.filter(|_| interval.months != 0 || interval.days != 0) else {
            return add_interval(us, interval);
        };
        // Days and months on the zone's clocks, hours in time that passes.
        let date_part = IntervalMonthDayNano { nanoseconds: 0, ..interval };
        let time_part = IntervalMonthDayNano { months: 0, days: 0, nanoseconds: interval.nanoseconds };
        let local = add_interval(zone.to_local(us)?, date_part)?;
        add_interval(zone.to_utc(local)?, time_part)
    };
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
    let one = |(time, interval): (Option<i64>, Option<IntervalMonthDayNano>)| {
        let both = time.zip(interval);
        both.map(|(time, interval)| move_one(time, interval).ok_or_else(out_of_range)).transpose()
    };
    let moved = times.iter().zip(intervals.iter()).map(one).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(TimestampMicrosecondArray::from(moved).with_timezone_opt(type_zone.clone())))
}

fn to_date(times: &ArrayRef) -> Result<ArrayRef> {
    let date = |us: i64| match us {
        i64::MIN => i32::MIN,
        i64::MAX => i32::MAX,
        // Days of any timestamp fit.
        us => us.div_euclid(US_PER_DAY) as i32,
    };
    let dates: Date32Array = times.as_primitive::<TimestampMicrosecondType>().unary(date);
    Ok(Arc::new(dates))
}

fn from_date(dates: &ArrayRef) -> Result<ArrayRef> {
    let midnight = |days: i32| match days {
        i32::MIN => Ok(i64::MIN),
        i32::MAX => Ok(i64::MAX),
        days => {
            let out_of_range = || DataFusionError::Execution("date out of range for timestamp".to_owned());
            i64::from(days).checked_mul(US_PER_DAY).ok_or_else(out_of_range)
        }
    };
    let times: TimestampMicrosecondArray = dates.as_primitive::<Date32Type>().try_unary(midnight)?;
    Ok(Arc::new(times))
}

fn difference(left: &ArrayRef, right: &ArrayRef) -> Result<ArrayRef> {
    let left = left.as_primitive::<TimestampMicrosecondType>();
    let right = right.as_primitive::<TimestampMicrosecondType>();
    let subtract = |(a, b): (Option<i64>, Option<i64>)| -> Result<Option<IntervalMonthDayNano>> {
        let (Some(a), Some(b)) = (a, b) else { return Ok(None) };
        let infinite = |time: i64| time == i64::MAX || time == i64::MIN;
        if infinite(a) || infinite(b) {
            return exec_err!("cannot subtract infinite timestamps");
        }
        let out_of_range = || DataFusionError::Execution("interval out of range".to_owned());
        let us = a.checked_sub(b).ok_or_else(out_of_range)?;
        // Both parts have the sign of the whole, as after justify_hours.
        let days = i32::try_from(us / US_PER_DAY).map_err(|_| out_of_range())?;
        Ok(Some(IntervalMonthDayNano { months: 0, days, nanoseconds: us % US_PER_DAY * 1000 }))
    };
    let values: Vec<_> = left.iter().zip(right.iter()).map(subtract).collect::<Result<_>>()?;
    Ok(Arc::new(IntervalMonthDayNanoArray::from(values)))
}

/// Parts of months become days of a 30-day month, parts of days time (`interval_mul` in timestamp.c).
fn multiply(intervals: &ArrayRef, factors: &ArrayRef) -> Result<ArrayRef> {
    let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
    let factors = factors.as_primitive::<Float64Type>();
    let scale = |(interval, factor): (Option<IntervalMonthDayNano>, Option<f64>)| match (interval, factor) {
        (Some(interval), Some(factor)) => {
            let scaled = multiply_one(interval, factor);
            scaled.map(Some).ok_or_else(|| DataFusionError::Execution("interval out of range".to_owned()))
        }
        _ => Ok(None),
    };
    let values: Vec<_> = intervals.iter().zip(factors.iter()).map(scale).collect::<Result<_>>()?;
    Ok(Arc::new(IntervalMonthDayNanoArray::from(values)))
}

fn multiply_one(interval: IntervalMonthDayNano, factor: f64) -> Option<IntervalMonthDayNano> {
    const SECONDS_PER_DAY: f64 = 86_400.0;
    // Beyond microseconds lies only what floats made up.
    let tidy = |value: f64| (value * 1e6).round_ties_even() / 1e6;
    let whole = |value: f64| (value.abs() <= f64::from(i32::MAX)).then_some(value as i32);
    let months = f64::from(interval.months) * factor;
    let days = f64::from(interval.days) * factor;
    let (months_whole, mut days_whole) = (whole(months)?, whole(days)?);
    let month_days = tidy((months - f64::from(months_whole)) * 30.0);
    let month_days_whole = month_days.trunc();
    let mut seconds = tidy((days - f64::from(days_whole) + month_days - month_days_whole) * SECONDS_PER_DAY);
    if seconds.abs() >= SECONDS_PER_DAY {
        days_whole = days_whole.checked_add((seconds / SECONDS_PER_DAY) as i32)?;
        seconds %= SECONDS_PER_DAY;
    }
    let days_whole = days_whole.checked_add(month_days_whole as i32)?;
    let us = ((interval.nanoseconds / 1000) as f64 * factor + seconds * 1e6).round_ties_even();
    let nanoseconds = (us.abs() < 9.2e15).then(|| us as i64 * 1000)?;
    Some(IntervalMonthDayNano { months: months_whole, days: days_whole, nanoseconds })
}

fn order(intervals: &ArrayRef) -> Result<ArrayRef> {
    let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
    let nanoseconds = |interval: IntervalMonthDayNano| {
        let days = i128::from(interval.months) * 30 + i128::from(interval.days);
        days * i128::from(US_PER_DAY) * 1000 + i128::from(interval.nanoseconds)
    };
    let values: Decimal128Array = intervals.iter().map(|interval| interval.map(nanoseconds)).collect();
    Ok(Arc::new(values.with_precision_and_scale(38, 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(values: &[i64]) -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values.to_vec()))
    }

    #[test]
    fn at_time_zone_goes_both_ways() {
        let zone = ColumnarValue::Scalar(ScalarValue::from("Europe/Berlin"));
        let utc = shift(&zone, &times(&[0])).unwrap();
        assert_eq!(*utc.data_type(), timestamptz());
        assert_eq!(utc.as_primitive::<TimestampMicrosecondType>().value(0), -3_600_000_000);
        let local = shift(&zone, &utc).unwrap();
        assert_eq!(*local.data_type(), TIMESTAMP);
        assert_eq!(local.as_primitive::<TimestampMicrosecondType>().value(0), 0);
        let unknown = ColumnarValue::Scalar(ScalarValue::from("Mars"));
        assert!(shift(&unknown, &utc).is_err());
    }

    #[test]
    fn differences_count_days() {
        let result = difference(&times(&[US_PER_DAY + 1, 0]), &times(&[0, US_PER_DAY + 1])).unwrap();
        let result = result.as_primitive::<IntervalMonthDayNanoType>();
        let expect = |days, nanoseconds| IntervalMonthDayNano { months: 0, days, nanoseconds };
        assert_eq!((result.value(0), result.value(1)), (expect(1, 1000), expect(-1, -1000)));
        assert!(difference(&times(&[i64::MAX]), &times(&[0])).is_err());
    }

    #[test]
    fn sums_keep_infinities_and_the_ends_of_months() {
        let months = |months| -> ArrayRef {
            Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano { months, days: 0, nanoseconds: 0 }; 2]))
        };
        // 2024-03-31 00:00
        let result = add(&times(&[i64::MAX, 1_711_843_200_000_000]), &months(1), None, true).unwrap();
        // 2024-02-29 00:00
        assert_eq!(result.as_primitive::<TimestampMicrosecondType>().values(), &[i64::MAX, 1_709_164_800_000_000]);
        assert!(add(&times(&[i64::MAX - 1, 0]), &months(1), None, false).is_err());
        // A day over the clock change is an hour short.
        let berlin = Zone::parse("Europe/Berlin");
        let day: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(0, 1, 0)]));
        let result = add(&times(&[1_711_839_600_000_000]), &day, berlin, false).unwrap();
        assert_eq!(
            result.as_primitive::<TimestampMicrosecondType>().value(0),
            1_711_839_600_000_000 + 23 * 3_600_000_000
        );
    }

    #[test]
    fn dates_and_timestamps_keep_infinities() {
        let dates = to_date(&times(&[i64::MIN, -1, i64::MAX])).unwrap();
        assert_eq!(dates.as_primitive::<Date32Type>().values(), &[i32::MIN, -1, i32::MAX]);
        let back = from_date(&dates).unwrap();
        assert_eq!(back.as_primitive::<TimestampMicrosecondType>().values(), &[i64::MIN, -US_PER_DAY, i64::MAX]);
    }

    #[test]
    fn parts_of_months_become_days() {
        let interval =
            |months, days, hours: i64| IntervalMonthDayNano { months, days, nanoseconds: hours * 3_600_000_000_000 };
        assert_eq!(multiply_one(interval(0, 1, 0), 2.5), Some(interval(0, 2, 12)));
        assert_eq!(multiply_one(interval(1, 0, 0), 1.5), Some(interval(1, 15, 0)));
        assert_eq!(multiply_one(interval(0, 0, 1), 0.5).map(|i| i.nanoseconds), Some(1_800_000_000_000));
        assert_eq!(multiply_one(interval(1, 0, 0), 1e12), None);
    }

    #[test]
    fn a_day_is_less_than_25_hours() {
        let interval =
            |days, hours: i64| IntervalMonthDayNano { months: 0, days, nanoseconds: hours * 3_600_000_000_000 };
        let values: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![interval(1, 0), interval(0, 25)]));
        let keys = order(&values).unwrap();
        let keys = keys.as_primitive::<arrow::datatypes::Decimal128Type>();
        assert!(keys.value(0) < keys.value(1));
    }
}
