//! How a session wants values written and ambiguous ones read.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::zone::TimeZone;

/// The settings of a session that decide how values look. DateStyle is always `ISO, MDY`, IntervalStyle `postgres`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    pub time_zone: TimeZone,
    /// Above 0: the shortest text that reads back as the same float. Else that many digits fewer than 15 (6 for real).
    pub extra_float_digits: i32,
    pub bytea_output: ByteaOutput,
    /// Start of the transaction in microseconds since 1970, what `now`, `today` and so on mean. `None`: the wall clock.
    pub now_us: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ByteaOutput {
    #[default]
    Hex,
    Escape,
}

/// PostgreSQL's defaults, in UTC.
impl Default for Format {
    fn default() -> Self {
        Self { time_zone: TimeZone::utc(), extra_float_digits: 1, bytea_output: ByteaOutput::Hex, now_us: None }
    }
}

impl Format {
    pub(crate) fn now_us(&self) -> i64 {
        self.now_us.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX - 1)
        })
    }
}
