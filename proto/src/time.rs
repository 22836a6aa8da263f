//! A user's point in time, ranges of it, and bucket arithmetic.

use std::fmt;

/// A user's point in time: microseconds since 1970-01-01 00:00 UTC for timestamps and dates, the plain number for an
/// integer time column. `i64::MIN` and `i64::MAX` are PostgreSQL's `-infinity` and `infinity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeUs(pub i64);

/// Microseconds in a day, as PostgreSQL counts them (no leap seconds).
pub const US_PER_DAY: i64 = 86_400_000_000;
/// Microseconds between 1970-01-01, our origin, and 2000-01-01, that of PostgreSQL's binary format.
pub const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
/// Days between 1970-01-01 and 2000-01-01.
pub const POSTGRES_EPOCH_DAYS: i32 = 10_957;
/// Origin of `time_bucket`: 2000-01-03, a Monday, so that weeks start on Mondays (TimescaleDB's `time_bucket` page).
pub const BUCKET_ORIGIN_US: i64 = POSTGRES_EPOCH_US + 2 * US_PER_DAY;

impl TimeUs {
    pub const NEG_INFINITY: Self = Self(i64::MIN);
    pub const INFINITY: Self = Self(i64::MAX);

    #[must_use]
    pub fn is_finite(self) -> bool {
        self != Self::NEG_INFINITY && self != Self::INFINITY
    }
}

impl fmt::Display for TimeUs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A range of time, start-inclusive, end-exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeRange {
    pub start: TimeUs,
    pub end: TimeUs,
}

impl TimeRange {
    /// All of time, both infinities included by convention.
    pub const ALL: Self = Self { start: TimeUs::NEG_INFINITY, end: TimeUs::INFINITY };

    #[must_use]
    pub fn contains(self, time: TimeUs) -> bool {
        self.start <= time && (time < self.end || self.end == TimeUs::INFINITY)
    }

    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// Start of the bucket of `width` that holds `value`, with buckets aligned to `origin`.
///
/// `None` when `width` is not positive or the start lies outside `i64`.
#[must_use]
pub fn bucket_start(value: i64, width: i64, origin: i64) -> Option<i64> {
    if width <= 0 {
        return None;
    }
    // The origin is reduced to one width first, so that only the true result can overflow.
    let shift = origin.rem_euclid(width);
    let offset = i128::from(value) - i128::from(shift);
    let start = offset.div_euclid(i128::from(width)) * i128::from(width) + i128::from(shift);
    i64::try_from(start).ok()
}

/// The chunk interval that holds `time`: aligned to 1970-01-01 as TimescaleDB's chunks are, cut at the ends of time. It is
/// never empty: the last moment is in the last interval, also where the next one would begin with it.
#[must_use]
pub fn chunk_range(time: TimeUs, interval_us: i64) -> TimeRange {
    assert!(interval_us > 0, "a chunk interval is positive");
    let time = time.0.min(i64::MAX - 1);
    let start = i128::from(time).div_euclid(i128::from(interval_us)) * i128::from(interval_us);
    let end = start + i128::from(interval_us);
    TimeRange {
        start: TimeUs(i64::try_from(start).unwrap_or(i64::MIN)),
        end: TimeUs(i64::try_from(end).unwrap_or(i64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_start_at_multiples_of_their_width_from_the_origin() {
        let check = |value, width, origin, expected| assert_eq!(bucket_start(value, width, origin), expected);
        check(7, 5, 0, Some(5));
        check(-1, 5, 0, Some(-5));
        check(7, 5, 1, Some(6));
        check(0, 5, 1, Some(-4));
        check(i64::MIN, 10, 0, None);
        check(i64::MAX, 10, 0, Some(i64::MAX - 7));
        check(1, 0, 0, None);
    }

    #[test]
    fn weeks_start_on_mondays() {
        // 2013-01-02 (a Wednesday) falls into the week of 2012-12-31.
        let wednesday = 1_357_084_800_000_000;
        let monday = 1_356_912_000_000_000;
        assert_eq!(bucket_start(wednesday, 7 * US_PER_DAY, BUCKET_ORIGIN_US), Some(monday));
    }

    #[test]
    fn chunk_ranges_cover_the_ends_of_time() {
        assert_eq!(chunk_range(TimeUs(5), 10), TimeRange { start: TimeUs(0), end: TimeUs(10) });
        assert_eq!(chunk_range(TimeUs(-1), 10), TimeRange { start: TimeUs(-10), end: TimeUs(0) });
        assert!(chunk_range(TimeUs(i64::MAX), 10).contains(TimeUs(i64::MAX)));
        assert!(chunk_range(TimeUs(i64::MIN), 10).contains(TimeUs(i64::MIN)));
        for interval in [1, 7, 49, 10, i64::MAX - 1, i64::MAX] {
            for time in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 8, i64::MAX - 1, i64::MAX] {
                let range = chunk_range(TimeUs(time), interval);
                assert!(range.start < range.end && range.contains(TimeUs(time)), "{time} in {range:?} of {interval}");
                assert_eq!(chunk_range(range.start, interval), range);
            }
        }
    }
}
