//! Time zones: names as PostgreSQL takes them, and the way between UTC and a zone's local time.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::LazyLock;

use chrono::{DateTime, FixedOffset, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};

/// Zones by their names in small letters.
static NAMES: LazyLock<HashMap<String, Tz>> =
    LazyLock::new(|| TZ_VARIANTS.iter().map(|zone| (zone.name().to_ascii_lowercase(), *zone)).collect());

/// A zone of the IANA database, or a fixed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Zone {
    Named(Tz),
    Fixed(FixedOffset),
}

impl Zone {
    pub const UTC: Self = Self::Named(Tz::UTC);

    /// Parses an IANA name in any case, or an offset as AT TIME ZONE reads it: POSIX's, **west** of Greenwich is
    /// positive, so that `-05:30` is India. `None`: there is no such zone.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim();
        if name.eq_ignore_ascii_case("z") {
            return Some(Self::UTC);
        }
        if let Some(offset) = parse_offset(name) {
            return Some(Self::Fixed(offset));
        }
        Tz::from_str(name).ok().or_else(|| NAMES.get(&name.to_ascii_lowercase()).copied()).map(Self::Named)
    }

    #[must_use]
    pub fn is_utc(self) -> bool {
        match self {
            Self::Named(zone) => matches!(zone, Tz::UTC | Tz::Etc__UTC | Tz::Zulu | Tz::Etc__UCT | Tz::UCT),
            Self::Fixed(offset) => offset.local_minus_utc() == 0,
        }
    }

    /// Local time, as microseconds since 1970-01-01 00:00 on the zone's clocks. Infinities stay; `None`: out of range.
    #[must_use]
    pub fn to_local(self, utc_us: i64) -> Option<i64> {
        if utc_us == i64::MIN || utc_us == i64::MAX || self.is_utc() {
            return Some(utc_us);
        }
        let utc = DateTime::from_timestamp_micros(utc_us)?.naive_utc();
        utc_us.checked_add(self.offset_at_utc(utc))
    }

    /// The point in time that a local time names. As PostgreSQL has it, a time that a clock change skips is read by the
    /// offset before the change, one that comes twice by the offset after it.
    #[must_use]
    pub fn to_utc(self, local_us: i64) -> Option<i64> {
        if local_us == i64::MIN || local_us == i64::MAX || self.is_utc() {
            return Some(local_us);
        }
        let local = DateTime::from_timestamp_micros(local_us)?.naive_utc();
        local_us.checked_sub(self.offset_at_local(local)?)
    }

    /// Seconds east of Greenwich at a point in time.
    #[must_use]
    pub fn offset_seconds(self, utc_us: i64) -> Option<i32> {
        let utc = DateTime::from_timestamp_micros(utc_us)?.naive_utc();
        Some((self.offset_at_utc(utc) / 1_000_000) as i32)
    }

    fn offset_at_utc(self, utc: NaiveDateTime) -> i64 {
        let offset = match self {
            Self::Named(zone) => zone.offset_from_utc_datetime(&utc).fix(),
            Self::Fixed(offset) => offset,
        };
        i64::from(offset.local_minus_utc()) * 1_000_000
    }

    fn offset_at_local(self, local: NaiveDateTime) -> Option<i64> {
        let zone = match self {
            Self::Named(zone) => zone,
            Self::Fixed(offset) => return Some(i64::from(offset.local_minus_utc()) * 1_000_000),
        };
        let seconds = match zone.offset_from_local_datetime(&local) {
            LocalResult::Single(offset) | LocalResult::Ambiguous(_, offset) => offset.fix().local_minus_utc(),
            // No gap is wider than a day (Samoa skipped one in 2011).
            LocalResult::None => [3, 25].iter().find_map(|hours| {
                let before = local.checked_sub_signed(TimeDelta::hours(*hours))?;
                zone.offset_from_local_datetime(&before).latest().map(|offset| offset.fix().local_minus_utc())
            })?,
        };
        Some(i64::from(seconds) * 1_000_000)
    }
}

fn parse_offset(text: &str) -> Option<FixedOffset> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (-1, &text[1..]),
        b'-' => (1, &text[1..]),
        _ => return None,
    };
    let mut parts = digits.splitn(3, ':');
    let hours: i32 = parts.next()?.parse().ok().filter(|hours| (0..=15).contains(hours))?;
    let minutes: i32 = parts.next().map_or(Some(0), |part| part.parse().ok()).filter(|m| (0..60).contains(m))?;
    let seconds: i32 = parts.next().map_or(Some(0), |part| part.parse().ok()).filter(|s| (0..60).contains(s))?;
    FixedOffset::east_opt(sign * (hours * 3600 + minutes * 60 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc().timestamp_micros()
    }

    #[test]
    fn skipped_and_repeated_local_times_are_read_as_postgresql_reads_them() {
        let berlin = Zone::parse("europe/berlin").unwrap();
        let check = |local: &str, utc: &str| assert_eq!(berlin.to_utc(us(local)), Some(us(utc)), "{local}");
        check("2024-01-01 00:00", "2023-12-31 23:00");
        check("2024-03-31 02:30", "2024-03-31 01:30");
        check("2024-10-27 02:30", "2024-10-27 01:30");
        assert_eq!(berlin.to_local(us("2024-07-01 00:00")), Some(us("2024-07-01 02:00")));
        assert_eq!(berlin.to_local(i64::MAX), Some(i64::MAX));
    }

    #[test]
    fn zones_are_names_or_offsets() {
        assert!(Zone::parse("utc").unwrap().is_utc());
        assert_eq!(Zone::parse("-05:30").unwrap().to_local(0), Some(19_800_000_000));
        assert_eq!(Zone::parse("+8").unwrap().offset_seconds(0), Some(-28_800));
        assert_eq!(Zone::parse("Mars/Olympus"), None);
        assert_eq!(Zone::parse("+99"), None);
    }
}
