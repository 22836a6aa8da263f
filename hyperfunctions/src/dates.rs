//! Dates with days, sums of intervals, and `date_bin`. They stay within what PostgreSQL's types hold; infinite dates stay
//! infinite.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, AsArray, Date32Array, Int32Array, IntervalMonthDayNanoArray, PrimitiveArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Int32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, Result, exec_err, internal_err};
use datafusion::logical_expr::ScalarUDF;
use meridian_proto::time::{US_PER_DAY, bucket_start};

use crate::bucket::{negate, out_of_range};
use crate::form::{Form, Kind, functions as of_forms};

/// 4714-11-24 BC to 5874897-12-31.
const DAYS: std::ops::RangeInclusive<i64> = -2_440_588..=2_145_042_905;

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    use Kind::{Date, Integer, Interval, Timestamp, Timestamptz};
    static ADD: &[Form] = &[Form::new(&[Date, Integer], Date, |columns| moved(columns, 1))];
    static SUBTRACT: &[Form] = &[Form::new(&[Date, Integer], Date, |columns| moved(columns, -1))];
    static DIFFERENCE: &[Form] = &[Form::new(&[Date, Date], Integer, differences)];
    static SUM: &[Form] = &[Form::new(&[Interval, Interval], Interval, |columns| sums(columns, Some))];
    static REST: &[Form] = &[Form::new(&[Interval, Interval], Interval, |columns| sums(columns, negate))];
    static BIN: &[Form] = &[
        Form::new(&[Interval, Timestamp, Timestamp], Timestamp, bins),
        Form::new(&[Interval, Timestamptz, Timestamptz], Timestamptz, bins),
    ];
    of_forms(&[
        ("date_add", ADD),
        ("date_subtract", SUBTRACT),
        ("date_difference", DIFFERENCE),
        ("interval_add", SUM),
        ("interval_subtract", REST),
        ("date_bin", BIN),
    ])
}

/// Calls `one` for rows where both columns have a value.
fn pairs<A: ArrowPrimitiveType, B: ArrowPrimitiveType, C: ArrowPrimitiveType>(
    columns: &[ArrayRef],
    one: impl Fn(A::Native, B::Native) -> Result<C::Native>,
) -> Result<PrimitiveArray<C>> {
    let [left, right] = columns else { return internal_err!("two columns were expected") };
    let rows = left.as_primitive::<A>().iter().zip(right.as_primitive::<B>().iter());
    rows.map(|(a, b)| a.zip(b).map(|(a, b)| one(a, b)).transpose()).collect()
}

fn is_infinite(days: i32) -> bool {
    days == i32::MIN || days == i32::MAX
}

fn moved(columns: &[ArrayRef], sign: i64) -> Result<ArrayRef> {
    let dates: Date32Array = pairs::<Date32Type, Int32Type, Date32Type>(columns, |days, by| {
        let moved = i64::from(days) + sign * i64::from(by);
        match i32::try_from(moved) {
            _ if is_infinite(days) => Ok(days),
            Ok(date) if DAYS.contains(&moved) => Ok(date),
            _ => exec_err!("date out of range"),
        }
    })?;
    Ok(Arc::new(dates))
}

fn differences(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let days: Int32Array = pairs::<Date32Type, Date32Type, Int32Type>(columns, |left, right| {
        if is_infinite(left) || is_infinite(right) {
            return exec_err!("cannot subtract infinite dates");
        }
        left.checked_sub(right).ok_or_else(|| DataFusionError::Execution("date out of range".to_owned()))
    })?;
    Ok(Arc::new(days))
}

fn sums(columns: &[ArrayRef], signed: fn(IntervalMonthDayNano) -> Option<IntervalMonthDayNano>) -> Result<ArrayRef> {
    type Interval = IntervalMonthDayNanoType;
    let sums: IntervalMonthDayNanoArray = pairs::<Interval, Interval, Interval>(columns, |left, right| {
        let sum = signed(right).and_then(|right| sum(left, right));
        sum.ok_or_else(|| DataFusionError::Execution("interval out of range".to_owned()))
    })?;
    Ok(Arc::new(sums))
}

fn sum(left: IntervalMonthDayNano, right: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    Some(IntervalMonthDayNano {
        months: left.months.checked_add(right.months)?,
        days: left.days.checked_add(right.days)?,
        nanoseconds: left.nanoseconds.checked_add(right.nanoseconds)?,
    })
}

fn bins(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [strides, times, origins] = columns else { return internal_err!("date_bin takes three arguments") };
    let DataType::Timestamp(_, zone) = times.data_type() else { return internal_err!("date_bin of no timestamps") };
    let strides = strides.as_primitive::<IntervalMonthDayNanoType>().iter();
    let times = times.as_primitive::<TimestampMicrosecondType>().iter();
    let origins = origins.as_primitive::<TimestampMicrosecondType>().iter();
    let one = |((stride, time), origin): ((Option<IntervalMonthDayNano>, Option<i64>), Option<i64>)| {
        let (Some(stride), Some(time), Some(origin)) = (stride, time, origin) else { return Ok(None) };
        bin(stride, time, origin).map(Some)
    };
    let bins: TimestampMicrosecondArray = strides.zip(times).zip(origins).map(one).collect::<Result<_>>()?;
    Ok(Arc::new(bins.with_timezone_opt(zone.clone())))
}

/// Start of the bin of so wide ones from `origin_us` on that holds a time.
fn bin(stride: IntervalMonthDayNano, time_us: i64, origin_us: i64) -> Result<i64> {
    let is_infinite = |us: i64| us == i64::MIN || us == i64::MAX;
    if is_infinite(time_us) {
        return Ok(time_us);
    }
    if is_infinite(origin_us) {
        return exec_err!("origin out of range");
    }
    if stride.months != 0 {
        return exec_err!("timestamps cannot be binned into intervals containing months or years");
    }
    let days_us = i64::from(stride.days).checked_mul(US_PER_DAY);
    let Some(stride_us) = days_us.and_then(|days| days.checked_add(stride.nanoseconds / 1000)) else {
        return exec_err!("interval out of range");
    };
    if stride_us <= 0 {
        return exec_err!("stride must be greater than zero");
    }
    bucket_start(time_us, stride_us, origin_us).ok_or_else(out_of_range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_stay_in_their_range() {
        let column = |days: i32| -> ArrayRef { Arc::new(Date32Array::from(vec![days])) };
        let number = |number: i32| -> ArrayRef { Arc::new(Int32Array::from(vec![number])) };
        let add = |days, by| {
            moved(&[column(days), number(by)], 1).map(|dates| dates.as_primitive::<Date32Type>().value(0)).ok()
        };
        assert_eq!((add(10, -3), add(i32::MAX, -1), add(i32::MIN, 5)), (Some(7), Some(i32::MAX), Some(i32::MIN)));
        assert_eq!((add(2_145_042_905, 1), add(0, i32::MAX), add(-2_440_588, -1)), (None, None, None));
        assert!(differences(&[column(5), column(i32::MAX)]).is_err());
    }

    #[test]
    fn sums_of_intervals_do_not_wrap_around() {
        let days = |days| IntervalMonthDayNano::new(0, days, 0);
        assert_eq!(sum(days(1), days(2)), Some(days(3)));
        assert_eq!(sum(days(i32::MAX), days(1)), None);
    }

    #[test]
    fn bins_begin_at_their_origin() {
        let hour = IntervalMonthDayNano::new(0, 0, 3_600_000_000_000);
        let us = 3_600_000_000;
        assert_eq!((bin(hour, us + 5, 0).unwrap(), bin(hour, -5, 0).unwrap()), (us, -us));
        assert_eq!((bin(hour, -us, 0).unwrap(), bin(hour, 5, 7).unwrap()), (-us, 7 - us));
        assert!(bin(IntervalMonthDayNano::new(1, 0, 0), 0, 0).is_err());
        assert!(bin(IntervalMonthDayNano::new(0, 0, 0), 0, 0).is_err());
    }
}
