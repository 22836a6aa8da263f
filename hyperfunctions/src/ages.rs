//! Spans of time as people count them: `age`, `justify_days`, `justify_hours`, `justify_interval`; and seconds since 1970.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, IntervalMonthDayNanoArray, TimestampMicrosecondArray};
use arrow::datatypes::{Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimestampMicrosecondType};
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::logical_expr::ScalarUDF;
use meridian_proto::calendar::{date_of, month_days};
use meridian_proto::time::US_PER_DAY;

use crate::form::{Form, Kind, functions as of_forms};

const DAYS_PER_MONTH: i32 = 30;
const NS_PER_DAY: i64 = US_PER_DAY * 1000;
const US_PER_SECOND: f64 = 1e6;
/// Julian day 0, where PostgreSQL's timestamps begin.
const TIMESTAMP_MIN_US: i64 = -2_440_588 * US_PER_DAY;

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    static AGE: &[Form] = &[
        Form::new(&[Kind::Timestamp, Kind::Timestamp], Kind::Interval, ages),
        Form::new(&[Kind::Timestamptz, Kind::Timestamptz], Kind::Interval, ages),
    ];
    static DAYS: &[Form] = &[Form::new(&[Kind::Interval], Kind::Interval, |columns| justified(columns, justify_days))];
    static HOURS: &[Form] =
        &[Form::new(&[Kind::Interval], Kind::Interval, |columns| justified(columns, justify_hours))];
    static BOTH: &[Form] =
        &[Form::new(&[Kind::Interval], Kind::Interval, |columns| justified(columns, justify_interval))];
    static SECONDS: &[Form] = &[Form::new(&[Kind::Double], Kind::Timestamptz, of_seconds)];
    of_forms(&[
        ("age", AGE),
        ("justify_days", DAYS),
        ("justify_hours", HOURS),
        ("justify_interval", BOTH),
        ("to_timestamp", SECONDS),
    ])
}

fn ages(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [later, earlier] = columns else { return exec_err!("age takes two timestamps") };
    let later = later.as_primitive::<TimestampMicrosecondType>().iter();
    let earlier = earlier.as_primitive::<TimestampMicrosecondType>().iter();
    let age = |(later, earlier): (Option<i64>, Option<i64>)| -> Result<Option<IntervalMonthDayNano>> {
        let (Some(later), Some(earlier)) = (later, earlier) else { return Ok(None) };
        if [later, earlier].iter().any(|us| matches!(*us, i64::MIN | i64::MAX)) {
            return exec_err!("timestamp out of range");
        }
        Ok(Some(age(later, earlier)))
    };
    Ok(Arc::new(later.zip(earlier).map(age).collect::<Result<IntervalMonthDayNanoArray>>()?))
}

/// Years, months, days and time between two timestamps; a month is as long as the one of the earlier.
fn age(later: i64, earlier: i64) -> IntervalMonthDayNano {
    let is_negative = later < earlier;
    let (later, earlier) = if is_negative { (earlier, later) } else { (later, earlier) };
    let split = |us: i64| (date_of(us.div_euclid(US_PER_DAY)), us.rem_euclid(US_PER_DAY));
    let (((later_year, later_month, later_day), later_us), ((year, month, day), us)) = (split(later), split(earlier));
    let mut time = later_us - us;
    let mut days = i64::from(later_day) - i64::from(day);
    let mut months = (later_year - year) * 12 + i64::from(later_month) - i64::from(month);
    if time < 0 {
        time += US_PER_DAY;
        days -= 1;
    }
    while days < 0 {
        days += i64::from(month_days(year, month));
        months -= 1;
    }
    let sign = if is_negative { -1 } else { 1 };
    // Of two timestamps both fit by far.
    IntervalMonthDayNano {
        months: sign * months as i32,
        days: sign * days as i32,
        nanoseconds: i64::from(sign) * time * 1000,
    }
}

fn justified(
    columns: &[ArrayRef],
    justify: fn(IntervalMonthDayNano) -> Option<IntervalMonthDayNano>,
) -> Result<ArrayRef> {
    let one = |interval: Option<IntervalMonthDayNano>| {
        let out_of_range = || DataFusionError::Execution("interval out of range".to_owned());
        interval.map(|interval| justify(interval).ok_or_else(out_of_range)).transpose()
    };
    let intervals = columns[0].as_primitive::<IntervalMonthDayNanoType>().iter();
    Ok(Arc::new(intervals.map(one).collect::<Result<IntervalMonthDayNanoArray>>()?))
}

fn justify_days(interval: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let mut justified = carry_days(interval)?;
    if justified.months > 0 && justified.days < 0 {
        justified.days += DAYS_PER_MONTH;
        justified.months -= 1;
    } else if justified.months < 0 && justified.days > 0 {
        justified.days -= DAYS_PER_MONTH;
        justified.months += 1;
    }
    Some(justified)
}

fn justify_hours(interval: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let mut justified = carry_hours(interval)?;
    align_time(&mut justified);
    Some(justified)
}

fn justify_interval(interval: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    // Days first where both have one sign: their sum might be too many.
    let is_uniform = i64::from(interval.days).signum() * interval.nanoseconds.signum() > 0;
    let interval = if is_uniform { carry_days(interval)? } else { interval };
    let mut justified = carry_days(carry_hours(interval)?)?;
    let IntervalMonthDayNano { months, days, nanoseconds } = justified;
    if months > 0 && (days < 0 || (days == 0 && nanoseconds < 0)) {
        justified.days += DAYS_PER_MONTH;
        justified.months -= 1;
    } else if months < 0 && (days > 0 || (days == 0 && nanoseconds > 0)) {
        justified.days -= DAYS_PER_MONTH;
        justified.months += 1;
    }
    align_time(&mut justified);
    Some(justified)
}

/// Whole months of the days.
fn carry_days(interval: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let months = interval.months.checked_add(interval.days / DAYS_PER_MONTH)?;
    Some(IntervalMonthDayNano { months, days: interval.days % DAYS_PER_MONTH, ..interval })
}

/// Whole days of the hours.
fn carry_hours(interval: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let days = interval.days.checked_add(i32::try_from(interval.nanoseconds / NS_PER_DAY).ok()?)?;
    Some(IntervalMonthDayNano { days, nanoseconds: interval.nanoseconds % NS_PER_DAY, ..interval })
}

/// Gives the time the sign of the days.
fn align_time(interval: &mut IntervalMonthDayNano) {
    if interval.days > 0 && interval.nanoseconds < 0 {
        interval.nanoseconds += NS_PER_DAY;
        interval.days -= 1;
    } else if interval.days < 0 && interval.nanoseconds > 0 {
        interval.nanoseconds -= NS_PER_DAY;
        interval.days += 1;
    }
}

/// `to_timestamp` of seconds.
fn of_seconds(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let seconds = columns[0].as_primitive::<Float64Type>().iter();
    let times = seconds.map(|seconds| seconds.map(timestamp).transpose());
    let times: TimestampMicrosecondArray = times.collect::<Result<_>>()?;
    Ok(Arc::new(times.with_timezone("UTC")))
}

fn timestamp(seconds: f64) -> Result<i64> {
    if seconds.is_nan() {
        return exec_err!("timestamp cannot be NaN");
    }
    if seconds.is_infinite() {
        return Ok(if seconds > 0.0 { i64::MAX } else { i64::MIN });
    }
    let us = (seconds * US_PER_SECOND).round_ties_even();
    if us < TIMESTAMP_MIN_US as f64 || us >= i64::MAX as f64 {
        let digits = format!("{seconds:e}").replace('e', "e+");
        return exec_err!("timestamp out of range: \"{digits}\"");
    }
    Ok(us as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc().timestamp_micros()
    }

    fn interval(months: i32, days: i32, hours: i64) -> IntervalMonthDayNano {
        IntervalMonthDayNano { months, days, nanoseconds: hours * 3_600_000_000_000 }
    }

    #[test]
    fn ages_count_months_and_days() {
        let check = |later, earlier, expected| assert_eq!(age(us(later), us(earlier)), expected, "{later} {earlier}");
        check("2001-04-10 00:00", "1957-06-13 00:00", interval(43 * 12 + 9, 27, 0));
        check("1957-06-13 00:00", "2001-04-10 00:00", interval(-(43 * 12 + 9), -27, 0));
        check("2024-03-01 00:00", "2024-01-31 00:00", interval(1, 1, 0));
        check("2024-03-01 01:00", "2024-02-29 03:00", interval(0, 0, 22));
    }

    #[test]
    fn intervals_are_justified() {
        assert_eq!(justify_days(interval(0, 35, 0)), Some(interval(1, 5, 0)));
        assert_eq!(justify_days(interval(2, -5, 0)), Some(interval(1, 25, 0)));
        assert_eq!(justify_hours(interval(0, 0, 27)), Some(interval(0, 1, 3)));
        assert_eq!(justify_hours(interval(0, 1, -1)), Some(interval(0, 0, 23)));
        assert_eq!(justify_interval(interval(1, 0, -1)), Some(interval(0, 29, 23)));
        assert_eq!(justify_interval(interval(0, 29, 25)), Some(interval(1, 0, 1)));
    }

    #[test]
    fn seconds_are_timestamps() {
        assert_eq!(timestamp(1_284_352_323.5).unwrap(), 1_284_352_323_500_000);
        assert_eq!(timestamp(f64::INFINITY).unwrap(), i64::MAX);
        assert!(timestamp(f64::NAN).is_err() && timestamp(1e300).is_err());
    }
}
