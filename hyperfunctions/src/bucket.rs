//! Bucket arithmetic over timestamps: widths of days and time from an origin, or of months by the calendar.

use arrow::datatypes::IntervalMonthDayNano;
use chrono::{DateTime, Datelike, NaiveDate, NaiveTime};
use datafusion::common::{DataFusionError, Result, exec_err};
use meridian_proto::calendar::{date_of, days_of, month_days};
use meridian_proto::time::{BUCKET_ORIGIN_US, US_PER_DAY, bucket_start};

use crate::zone::Zone;

/// Julian day 0, 4714-11-24 BC: where PostgreSQL's timestamps begin.
const TIMESTAMP_MIN_US: i64 = -2_440_588 * US_PER_DAY;

/// How a timestamp finds its bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Buckets {
    pub width: Width,
    /// Local time, where there is a zone.
    pub origin_us: Option<i64>,
    pub offset: Option<IntervalMonthDayNano>,
    /// Buckets are cut on this zone's clocks.
    pub zone: Option<Zone>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Width {
    Fixed { us: i64 },
    Months(i32),
}

impl Width {
    /// Refuses what TimescaleDB refuses: months mixed with days or time, and widths that are not positive.
    pub(crate) fn try_new(interval: IntervalMonthDayNano) -> Result<Self> {
        if interval.months != 0 {
            if interval.days != 0 || interval.nanoseconds != 0 {
                return exec_err!("month intervals cannot have day or time component");
            }
            if interval.months < 0 {
                return exec_err!("period must be greater than 0");
            }
            return Ok(Self::Months(interval.months));
        }
        let us = interval_us(interval).filter(|us| *us > 0);
        us.map(|us| Self::Fixed { us })
            .ok_or_else(|| DataFusionError::Execution("period must be greater than 0".to_owned()))
    }
}

impl Buckets {
    /// Start of the bucket that holds `time_us`. Infinities are their own buckets.
    pub(crate) fn start(&self, time_us: i64) -> Result<i64> {
        if time_us == i64::MIN || time_us == i64::MAX {
            return Ok(time_us);
        }
        self.try_start(time_us).ok_or_else(out_of_range)
    }

    fn try_start(&self, time_us: i64) -> Option<i64> {
        let mut local = match self.zone {
            Some(zone) => zone.to_local(time_us)?,
            None => time_us,
        };
        if let Some(offset) = self.offset {
            local = add_interval(local, negate(offset)?)?;
        }
        let mut start = match self.width {
            Width::Fixed { us } => bucket_start(local, us, self.origin_us.unwrap_or(BUCKET_ORIGIN_US))?,
            Width::Months(months) => month_start(local, months, self.origin_us)?,
        };
        if let Some(offset) = self.offset {
            start = add_interval(start, offset)?;
        }
        match self.zone {
            Some(zone) => zone.to_utc(start),
            None => Some(start),
        }
    }
}

pub(crate) fn out_of_range() -> DataFusionError {
    DataFusionError::Execution("timestamp out of range".to_owned())
}

/// Days and time of an interval without months, in microseconds.
fn interval_us(interval: IntervalMonthDayNano) -> Option<i64> {
    i64::from(interval.days).checked_mul(US_PER_DAY)?.checked_add(interval.nanoseconds / 1000)
}

pub(crate) fn negate(interval: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    Some(IntervalMonthDayNano {
        months: interval.months.checked_neg()?,
        days: interval.days.checked_neg()?,
        nanoseconds: interval.nanoseconds.checked_neg()?,
    })
}

/// Months first, then days and time, as PostgreSQL adds them: the day of a month that is too short is its last.
/// Infinities stay; `None`: out of range.
pub(crate) fn add_interval(time_us: i64, interval: IntervalMonthDayNano) -> Option<i64> {
    if time_us == i64::MIN || time_us == i64::MAX {
        return Some(time_us);
    }
    let mut days = time_us.div_euclid(US_PER_DAY);
    if interval.months != 0 {
        let (year, month, day) = date_of(days);
        let months = year * 12 + i64::from(month) - 1 + i64::from(interval.months);
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) as u32 + 1);
        days = days_of(year, month, day.min(month_days(year, month)));
    }
    let moved = days.checked_mul(US_PER_DAY)?.checked_add(time_us.rem_euclid(US_PER_DAY))?;
    moved.checked_add(interval_us(interval)?).filter(|us| *us >= TIMESTAMP_MIN_US && *us != i64::MAX)
}

/// Only the month of the origin counts; without one it is January 2000.
fn month_start(time_us: i64, months: i32, origin_us: Option<i64>) -> Option<i64> {
    let month_number = |us: i64| {
        let date = DateTime::from_timestamp_micros(us)?.date_naive();
        Some(i64::from(date.year()) * 12 + i64::from(date.month0()))
    };
    let origin = origin_us.map_or(Some(2000 * 12), month_number)?;
    let month = bucket_start(month_number(time_us)?, months.into(), origin)?;
    let year = i32::try_from(month.div_euclid(12)).ok()?;
    let first = NaiveDate::from_ymd_opt(year, month.rem_euclid(12) as u32 + 1, 1)?;
    Some(first.and_time(NaiveTime::MIN).and_utc().timestamp_micros())
}
