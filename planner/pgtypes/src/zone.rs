//! A session's time zone: names from the tz database, fixed offsets and PostgreSQL's POSIX-like forms, and the way from
//! UTC to local time and back.

use chrono::{DateTime, Offset, TimeZone as _};
use chrono_tz::Tz;

use crate::abbreviations;
use crate::calendar::{self, SECONDS_PER_DAY, US_PER_SECOND};

/// A time zone as `SET TIME ZONE` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeZone {
    rule: Rule,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Named(Tz),
    /// Seconds east of UTC.
    Fixed(i32),
}

/// PostgreSQL refuses hours from a week up.
const OFFSET_HOURS_MAX: i32 = 24 * 7 - 1;

impl TimeZone {
    #[must_use]
    pub fn utc() -> Self {
        Self { rule: Rule::Fixed(0), name: "UTC".to_owned() }
    }

    /// A zone that is always `east_s` seconds east of UTC, named as PostgreSQL names it: `<+02>-02`.
    #[must_use]
    pub fn fixed(east_s: i32) -> Self {
        let display = |seconds: i32| {
            let (sign, size) = (if seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs());
            let mut text = format!("{sign}{:02}", size / 3600);
            if size % 3600 != 0 {
                text.push_str(&format!(":{:02}", size / 60 % 60));
            }
            if size % 60 != 0 {
                text.push_str(&format!(":{:02}", size % 60));
            }
            text
        };
        let west = if east_s == 0 { "+00".to_owned() } else { display(-east_s) };
        Self { rule: Rule::Fixed(east_s), name: format!("<{}>{west}", display(east_s)) }
    }

    /// Parses a value of `SET TIME ZONE`: a name of the tz database in any case (`Europe/Berlin`), hours east of UTC
    /// (`+2`, `-5.5`), or a POSIX form, whose hours count **west** (`UTC+3`, `<+02>-02`, and so `+05:30` too).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(hours) = text.parse::<f64>() {
            let seconds = (hours * 3600.0).trunc();
            let limit = f64::from(OFFSET_HOURS_MAX * 3600);
            return (seconds.abs() <= limit).then(|| Self::fixed(seconds as i32));
        }
        Self::named(text).or_else(|| Self::posix(text))
    }

    fn named(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("utc") || text.eq_ignore_ascii_case("etc/utc") {
            let name = if text.len() == 3 { "UTC" } else { "Etc/UTC" };
            return Some(Self { rule: Rule::Fixed(0), name: name.to_owned() });
        }
        let tz = match text.parse::<Tz>() {
            Ok(tz) => tz,
            Err(_) => *chrono_tz::TZ_VARIANTS.iter().find(|tz| tz.name().eq_ignore_ascii_case(text))?,
        };
        Some(Self { rule: Rule::Named(tz), name: tz.name().to_owned() })
    }

    fn posix(text: &str) -> Option<Self> {
        let rest = if let Some(quoted) = text.strip_prefix('<') {
            quoted.split_once('>')?.1
        } else {
            text.trim_start_matches(|c: char| c.is_ascii_alphabetic())
        };
        let (sign, digits) = match rest.as_bytes().first()? {
            b'-' => (1, &rest[1..]),
            b'+' => (-1, &rest[1..]),
            _ => (-1, rest),
        };
        let seconds = clock_seconds(digits)?;
        Some(Self { rule: Rule::Fixed(sign * seconds), name: text.to_ascii_uppercase() })
    }

    /// A zone as a date literal may end with it: also an abbreviation (`PST`), which `SET TIME ZONE` does not take.
    #[must_use]
    pub(crate) fn parse_in_literal(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        if let Some(east_s) = abbreviations::offset_of(&lower) {
            return Some(Self::fixed(east_s));
        }
        Self::named(text).or_else(|| Self::posix(text))
    }

    /// The name that `SHOW timezone` gives.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The zone as Arrow and DataFusion write it: a name of the tz database or `+hh:mm`. Seconds of an offset are lost.
    #[must_use]
    pub fn arrow_name(&self) -> String {
        match self.rule {
            Rule::Named(tz) => tz.name().to_owned(),
            Rule::Fixed(0) => "UTC".to_owned(),
            Rule::Fixed(east_s) => {
                let (sign, size) = (if east_s < 0 { '-' } else { '+' }, east_s.unsigned_abs());
                format!("{sign}{:02}:{:02}", size / 3600, size / 60 % 60)
            }
        }
    }

    #[inline]
    pub(crate) fn rule(&self) -> Rule {
        self.rule
    }

    /// Seconds east of UTC, where they never change.
    #[must_use]
    #[inline]
    pub fn fixed_offset_s(&self) -> Option<i32> {
        match self.rule {
            Rule::Fixed(east_s) => Some(east_s),
            Rule::Named(_) => None,
        }
    }

    /// Seconds east of UTC at a moment in seconds since 1970.
    #[must_use]
    pub fn offset_s_at(&self, utc_s: i64) -> i32 {
        match self.rule {
            Rule::Fixed(east_s) => east_s,
            Rule::Named(tz) => {
                let within = equivalent_second(utc_s);
                let Some(utc) = DateTime::from_timestamp(within, 0) else { return 0 };
                tz.offset_from_utc_datetime(&utc.naive_utc()).fix().local_minus_utc()
            }
        }
    }

    /// Seconds east of UTC at a local time in seconds since 1970 local.
    ///
    /// A time that a clock change skips counts as before the change, one that comes twice as after it (PostgreSQL's
    /// `DetermineTimeZoneOffset`).
    #[must_use]
    pub fn offset_s_at_local(&self, local_s: i64) -> i32 {
        let Rule::Named(_) = self.rule else { return self.offset_s_at(local_s) };
        let before = self.offset_s_at(local_s - SECONDS_PER_DAY);
        let after = self.offset_s_at(local_s + SECONDS_PER_DAY);
        if before == after {
            return before;
        }
        let is_before = self.offset_s_at(local_s - i64::from(before)) == before;
        let is_after = self.offset_s_at(local_s - i64::from(after)) == after;
        match (is_before, is_after) {
            (true, false) => before,
            (false, true) => after,
            _ if after > before => before,
            _ => after,
        }
    }

    /// The offset of a whole local day, where no clock change is near it.
    #[must_use]
    pub(crate) fn offset_s_of_day(&self, days: i64) -> Option<i32> {
        let Rule::Named(_) = self.rule else { return self.fixed_offset_s() };
        let noon = days.checked_mul(SECONDS_PER_DAY)? + SECONDS_PER_DAY / 2;
        let offsets = [-2, -1, 0, 1, 2].map(|day| self.offset_s_at(noon + day * SECONDS_PER_DAY));
        offsets.iter().all(|offset| *offset == offsets[0]).then_some(offsets[0])
    }

    /// Microseconds since 1970 local of a moment. Infinities stay.
    #[must_use]
    pub fn to_local_us(&self, utc_us: i64) -> i64 {
        let offset = self.offset_s_at(utc_us.div_euclid(US_PER_SECOND));
        shift(utc_us, i64::from(offset))
    }

    /// The moment of a local time in microseconds since 1970 local. Infinities stay.
    #[must_use]
    pub fn to_utc_us(&self, local_us: i64) -> i64 {
        let offset = self.offset_s_at_local(local_us.div_euclid(US_PER_SECOND));
        shift(local_us, -i64::from(offset))
    }
}

fn shift(us: i64, seconds: i64) -> i64 {
    if us == calendar::TIMESTAMP_INFINITY || us == calendar::TIMESTAMP_NEG_INFINITY {
        return us;
    }
    us.saturating_add(seconds * US_PER_SECOND)
}

/// Seconds of `h[h][:mm[:ss]]`.
fn clock_seconds(text: &str) -> Option<i32> {
    let mut seconds = 0;
    let mut parts = text.split(':');
    for (unit, limit) in [(3600, OFFSET_HOURS_MAX), (60, 59), (1, 59)] {
        let Some(part) = parts.next() else { break };
        if part.is_empty() || part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let value = part.parse::<i32>().ok()?;
        if value > limit {
            return None;
        }
        seconds += value * unit;
    }
    parts.next().is_none().then_some(seconds)
}

/// A second with the same clock rules that the tables of the tz database cover: they end in 2100, and PostgreSQL applies
/// the last rules for ever. Years before 1800 have local mean time, as that year.
fn equivalent_second(utc_s: i64) -> i64 {
    const FIRST_S: i64 = -5_364_662_400; // 1800-01-01
    const LAST_S: i64 = 3_786_912_000; // 2090-01-01
    if utc_s < FIRST_S {
        return FIRST_S;
    }
    if utc_s < LAST_S {
        return utc_s;
    }
    let days = utc_s.div_euclid(SECONDS_PER_DAY);
    let (year, _, _) = calendar::date_of(days);
    let first_day = calendar::days_of(year, 1, 1);
    // Some year of 28 in a row without a century in between has the same leap day and weekdays.
    let twin = (2062..2090)
        .find(|&twin| {
            calendar::is_leap_year(twin) == calendar::is_leap_year(year)
                && calendar::weekday(calendar::days_of(twin, 1, 1)) == calendar::weekday(first_day)
        })
        .unwrap_or(2089);
    utc_s - (first_day - calendar::days_of(twin, 1, 1)) * SECONDS_PER_DAY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(zone: &TimeZone, year: i64, month: u32, day: u32, hour: i64) -> i32 {
        zone.offset_s_at(calendar::days_of(year, month, day) * SECONDS_PER_DAY + hour * 3600)
    }

    #[test]
    fn zones_are_named_as_postgresql_names_them() {
        for (text, name, east_s) in [
            ("utc", "UTC", 0),
            ("+2", "<+02>-02", 7200),
            ("-3", "<-03>+03", -10_800),
            ("5.5", "<+05:30>-05:30", 19_800),
            ("0", "<+00>+00", 0),
            ("UTC+3", "UTC+3", -10_800),
            ("foo-5:30", "FOO-5:30", 19_800),
            ("<+02>-02", "<+02>-02", 7200),
            ("+05:30", "+05:30", -19_800),
        ] {
            let zone = TimeZone::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((zone.name(), zone.offset_s_at(0)), (name, east_s), "{text}");
        }
        assert_eq!(TimeZone::parse("europe/berlin").map(|z| z.name().to_owned()).as_deref(), Some("Europe/Berlin"));
        for text in ["PST", "Z", " UTC", "UTC+0530", "200", "", "ABC", "nan", "<x", "é+1"] {
            assert_eq!(TimeZone::parse(text), None, "{text}");
        }
    }

    #[test]
    fn clock_changes_are_seen_in_every_century() {
        let berlin = TimeZone::parse("Europe/Berlin").expect("zone");
        assert_eq!(at(&berlin, 2024, 1, 15, 0), 3600);
        assert_eq!(at(&berlin, 2024, 7, 15, 0), 7200);
        assert_eq!(at(&berlin, 2500, 7, 15, 0), 7200);
        assert_eq!(at(&berlin, 290_000, 1, 15, 0), 3600);
        assert_eq!(at(&berlin, -3000, 1, 15, 0), 3208);
    }

    #[test]
    fn skipped_times_count_as_before_and_double_ones_as_after() {
        let york = TimeZone::parse("America/New_York").expect("zone");
        let local = |month, day, us_of_day: i64| calendar::days_of(2024, month, day) * 86_400_000_000 + us_of_day;
        let half_past = |hour: i64| (hour * 60 + 30) * 60 * US_PER_SECOND;
        assert_eq!(york.to_utc_us(local(3, 10, half_past(2))), local(3, 10, half_past(7)));
        assert_eq!(york.to_utc_us(local(11, 3, half_past(1))), local(11, 3, half_past(6)));
        assert_eq!(york.to_utc_us(local(7, 4, half_past(1))), local(7, 4, half_past(5)));
        assert_eq!(york.to_local_us(i64::MAX), i64::MAX);
    }
}
