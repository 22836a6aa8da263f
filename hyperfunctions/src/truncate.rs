//! `date_trunc`: infinities stay, and so does the whole range of a timestamp.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, IntervalMonthDayNanoArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err, plan_err};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use meridian_proto::calendar::{date_of, days_of, weekday};
use meridian_proto::time::US_PER_DAY;

use crate::bucket::out_of_range;
use crate::parts::{Unit, time_type};

#[derive(Debug, PartialEq, Eq, Hash)]
struct Truncate {
    signature: Signature,
}

/// The function.
#[must_use]
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(ScalarUDF::from(Truncate { signature: Signature::user_defined(Volatility::Immutable) }))]
}

impl ScalarUDFImpl for Truncate {
    fn name(&self) -> &str {
        "date_trunc"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if let [unit, time] = types
            && (unit.is_string() || unit.is_null())
        {
            match time_type(time) {
                // A date is its midnight with time zone, the preferred type of its category.
                Some(DataType::Date32) => {
                    let timestamptz = DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")));
                    return Ok(vec![DataType::Utf8, timestamptz]);
                }
                Some(time @ (DataType::Timestamp(..) | DataType::Interval(_))) => {
                    return Ok(vec![DataType::Utf8, time]);
                }
                _ => {}
            }
        }
        let types: Vec<_> = types.iter().map(ToString::to_string).collect();
        plan_err!("function date_trunc({}) does not exist", types.join(", "))
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [_, time] => Ok(time.clone()),
            _ => internal_err!("date_trunc of {} arguments", types.len()),
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        match inputs {
            [unit, time] if unit.sort_properties == SortProperties::Singleton => Ok(time.sort_properties),
            _ => Ok(SortProperties::Unordered),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(ScalarValue::Utf8(Some(name))), time] = args.args.as_slice() else {
            return exec_err!("the unit of date_trunc must be a constant");
        };
        let whole = matches!(time, ColumnarValue::Scalar(_));
        let times = time.to_array(if whole { 1 } else { args.number_rows })?;
        let unit = Unit::parse(name).filter(|unit| truncate(*unit, 0).is_some());
        let Some(unit) = unit else { return exec_err!("unit \"{name}\" not recognized for type of a time") };
        let result: ArrayRef = match times.data_type() {
            DataType::Timestamp(_, zone) => {
                let zone = zone.clone();
                let times = times.as_primitive::<TimestampMicrosecondType>();
                let truncated: TimestampMicrosecondArray =
                    times.try_unary(|us| truncate(unit, us).ok_or_else(out_of_range))?;
                Arc::new(truncated.with_timezone_opt(zone))
            }
            _ if unit == Unit::Week => return exec_err!("unit \"{name}\" not supported for type interval"),
            _ => {
                let intervals = times.as_primitive::<IntervalMonthDayNanoType>();
                let truncated: IntervalMonthDayNanoArray =
                    intervals.unary(|interval| truncate_interval(unit, interval));
                Arc::new(truncated)
            }
        };
        if whole {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// Microseconds of a unit that is always as long.
fn width_us(unit: Unit) -> Option<i64> {
    Some(match unit {
        Unit::Microsecond => 1,
        Unit::Millisecond => 1000,
        Unit::Second => 1_000_000,
        Unit::Minute => 60_000_000,
        Unit::Hour => 3_600_000_000,
        _ => return None,
    })
}

/// `None`: out of range, or not a unit to cut at.
fn truncate(unit: Unit, us: i64) -> Option<i64> {
    if us == i64::MIN || us == i64::MAX {
        return Some(us);
    }
    if let Some(width) = width_us(unit) {
        return us.checked_sub(us.rem_euclid(width));
    }
    let days = us.div_euclid(US_PER_DAY);
    let (year, month, _) = date_of(days);
    let first = |year: i64| days_of(year, 1, 1);
    let start = match unit {
        Unit::Day => days,
        Unit::Week => days - (weekday(days) + 6) % 7,
        Unit::Month => days_of(year, month, 1),
        Unit::Quarter => days_of(year, (month - 1) / 3 * 3 + 1, 1),
        Unit::Year => first(year),
        Unit::Decade => first(year - year.rem_euclid(10)),
        // Centuries and millennia begin with year 1.
        Unit::Century => first(year - (year - 1).rem_euclid(100)),
        Unit::Millennium => first(year - (year - 1).rem_euclid(1000)),
        _ => return None,
    };
    start.checked_mul(US_PER_DAY)
}

fn truncate_interval(unit: Unit, interval: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let IntervalMonthDayNano { months, days, nanoseconds } = interval;
    if let Some(width) = width_us(unit) {
        return IntervalMonthDayNano::new(months, days, nanoseconds - nanoseconds % (width * 1000));
    }
    let months_of = match unit {
        Unit::Day => return IntervalMonthDayNano::new(months, days, 0),
        Unit::Month => 1,
        Unit::Quarter => 3,
        Unit::Year => 12,
        Unit::Decade => 120,
        Unit::Century => 1200,
        _ => 12_000,
    };
    IntervalMonthDayNano::new(months - months % months_of, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_at_the_start_of_their_unit() {
        let us = |year, month, day| days_of(year, month, day) * US_PER_DAY;
        let time = us(2024, 8, 15) + 45_296_789_012;
        let check = |unit, expected| assert_eq!(truncate(unit, time), Some(expected), "{unit:?}");
        check(Unit::Millisecond, us(2024, 8, 15) + 45_296_789_000);
        check(Unit::Hour, us(2024, 8, 15) + 12 * 3_600_000_000);
        check(Unit::Day, us(2024, 8, 15));
        check(Unit::Week, us(2024, 8, 12));
        check(Unit::Quarter, us(2024, 7, 1));
        check(Unit::Decade, us(2020, 1, 1));
        check(Unit::Century, us(2001, 1, 1));
        check(Unit::Millennium, us(2001, 1, 1));
        assert_eq!(truncate(Unit::Day, -1), Some(-US_PER_DAY));
        assert_eq!(truncate(Unit::Month, i64::MAX), Some(i64::MAX));
        assert_eq!(truncate(Unit::Epoch, 0), None);
    }

    #[test]
    fn intervals_are_cut_towards_zero() {
        let interval = IntervalMonthDayNano::new(-14, 3, 3_661_000_000_000);
        assert_eq!(truncate_interval(Unit::Year, interval), IntervalMonthDayNano::new(-12, 0, 0));
        assert_eq!(truncate_interval(Unit::Minute, interval), IntervalMonthDayNano::new(-14, 3, 3_660_000_000_000));
    }
}
