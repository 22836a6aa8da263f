//! The proleptic Gregorian calendar as PostgreSQL counts it, in days and microseconds since 1970-01-01, and the ends of
//! what each date and time type can hold. Year 0 is 1 BC.

pub use meridian_proto::calendar::{date_of, days_of, is_leap_year, month_days, weekday};
use meridian_proto::time::US_PER_DAY;

pub const US_PER_SECOND: i64 = 1_000_000;
pub const US_PER_MINUTE: i64 = 60 * US_PER_SECOND;
pub const US_PER_HOUR: i64 = 60 * US_PER_MINUTE;
pub const SECONDS_PER_DAY: i64 = 86_400;

/// `infinity` and `-infinity` of timestamps, in microseconds.
pub const TIMESTAMP_INFINITY: i64 = i64::MAX;
pub const TIMESTAMP_NEG_INFINITY: i64 = i64::MIN;
/// `infinity` and `-infinity` of dates, in days.
pub const DATE_INFINITY: i32 = i32::MAX;
pub const DATE_NEG_INFINITY: i32 = i32::MIN;

/// Julian day 0, 4714-11-24 BC: the first day of both dates and timestamps.
pub const DAYS_MIN: i64 = -2_440_588;
/// 5874897-12-31, the last day that a date can hold.
pub const DATE_DAYS_MAX: i64 = 2_147_483_494 - 2_440_588 - 1;
pub const TIMESTAMP_MIN_US: i64 = DAYS_MIN * US_PER_DAY;
/// PostgreSQL goes on to the year 294276, since it counts from 2000; we end in January 294247.
pub const TIMESTAMP_MAX_US: i64 = TIMESTAMP_INFINITY - 1;
