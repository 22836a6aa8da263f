//! ISO dates, times and timestamps, read digit by digit without tokens. What is not of that form is left to the long way.

use meridian_proto::time::US_PER_DAY;

use crate::calendar::{self, SECONDS_PER_DAY, US_PER_HOUR, US_PER_MINUTE, US_PER_SECOND};
use crate::zone::{Rule, TimeZone};

/// The last date that a column read, and what its day is: neighbouring rows are mostly of one day.
#[derive(Clone, Debug)]
pub(crate) struct DayCache {
    /// `YYYY-MM-DD`.
    text: [u8; 10],
    days: i64,
    /// Zone, local day and offset of the last day without a clock change near it.
    offset: Option<(Rule, i64, i32)>,
}

/// A local time and, if the text gave it, its zone's seconds east of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Iso {
    pub local_us: i64,
    pub east_s: Option<i32>,
}

impl Default for DayCache {
    fn default() -> Self {
        Self { text: *b"1970-01-01", days: 0, offset: None }
    }
}

impl DayCache {
    /// Days since 1970 of a `YYYY-MM-DD`.
    #[inline]
    fn days(&mut self, text: &[u8; 10]) -> Option<i64> {
        if *text != self.text {
            self.days = days(text)?;
            self.text = *text;
        }
        Some(self.days)
    }

    /// Seconds east of UTC of a local time in the session's zone.
    #[inline]
    pub(super) fn offset_s(&mut self, local_us: i64, zone: &TimeZone) -> i32 {
        if let Some(east_s) = zone.fixed_offset_s() {
            return east_s;
        }
        let day = local_us.div_euclid(US_PER_DAY);
        match self.offset {
            Some((rule, cached_day, east_s)) if cached_day == day && rule == zone.rule() => east_s,
            _ => self.offset_s_uncached(local_us, day, zone),
        }
    }

    #[cold]
    fn offset_s_uncached(&mut self, local_us: i64, day: i64, zone: &TimeZone) -> i32 {
        match zone.offset_s_of_day(day) {
            Some(east_s) => {
                self.offset = Some((zone.rule(), day, east_s));
                east_s
            }
            None => {
                let second_of_day = local_us.rem_euclid(US_PER_DAY) / US_PER_SECOND;
                zone.offset_s_at_local(day * SECONDS_PER_DAY + second_of_day)
            }
        }
    }
}

fn days(text: &[u8; 10]) -> Option<i64> {
    if text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let year = i64::from(two(text[0], text[1])? * 100 + two(text[2], text[3])?);
    let (month, day) = (two(text[5], text[6])?, two(text[8], text[9])?);
    let is_valid = year > 0 && (1..=12).contains(&month) && day >= 1 && day <= calendar::month_days(year, month);
    is_valid.then(|| calendar::days_of(year, month, day))
}

#[inline]
fn two(high: u8, low: u8) -> Option<u32> {
    let (high, low) = (high.wrapping_sub(b'0'), low.wrapping_sub(b'0'));
    (high <= 9 && low <= 9).then(|| u32::from(high) * 10 + u32::from(low))
}

/// `YYYY-MM-DD` alone.
#[inline]
pub(super) fn read_date(input: &[u8], cache: &mut DayCache) -> Option<i32> {
    let text: &[u8; 10] = input.try_into().ok()?;
    i32::try_from(cache.days(text)?).ok()
}

/// `hh:mm:ss[.ffffff]` alone.
#[inline]
pub(super) fn read_time(input: &[u8]) -> Option<i64> {
    let (us, rest) = clock(input)?;
    rest.is_empty().then_some(us)
}

/// `YYYY-MM-DD[( |T)hh:mm:ss[.ffffff][Z|(+|-)hh[[:]mm]]]`
#[inline]
pub(super) fn read(input: &[u8], cache: &mut DayCache) -> Option<Iso> {
    let (date, rest) = input.split_first_chunk::<10>()?;
    let midnight_us = cache.days(date)? * US_PER_DAY;
    let rest = match rest {
        [] => return Some(Iso { local_us: midnight_us, east_s: None }),
        [b' ' | b'T', rest @ ..] => rest,
        _ => return None,
    };
    let (us, rest) = clock(rest)?;
    let east_s = match *rest {
        [] => None,
        [b'Z'] => Some(0),
        [sign @ (b'+' | b'-'), a, b] => Some(signed(sign, two(a, b)?, 0)?),
        [sign @ (b'+' | b'-'), a, b, b':', c, d] | [sign @ (b'+' | b'-'), a, b, c, d] => {
            Some(signed(sign, two(a, b)?, two(c, d)?)?)
        }
        _ => return None,
    };
    Some(Iso { local_us: midnight_us + us, east_s })
}

#[inline]
fn signed(sign: u8, hours: u32, minutes: u32) -> Option<i32> {
    let east_s = (hours * 3600 + minutes * 60) as i32;
    let is_valid = hours <= 15 && minutes <= 59;
    is_valid.then_some(if sign == b'-' { -east_s } else { east_s })
}

/// Microseconds of `hh:mm:ss[.ffffff]` in front, and the rest.
#[inline]
fn clock(input: &[u8]) -> Option<(i64, &[u8])> {
    let (text, rest) = input.split_first_chunk::<8>()?;
    if text[2] != b':' || text[5] != b':' {
        return None;
    }
    let (hour, minute, second) = (two(text[0], text[1])?, two(text[3], text[4])?, two(text[6], text[7])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let whole_us =
        i64::from(hour) * US_PER_HOUR + i64::from(minute) * US_PER_MINUTE + i64::from(second) * US_PER_SECOND;
    let [b'.', rest @ ..] = rest else { return Some((whole_us, rest)) };
    let (mut fraction, mut digits) = (0_i64, 0);
    while let Some(digit) = rest.get(digits).map(|b| b.wrapping_sub(b'0')).filter(|d| *d <= 9) {
        fraction = fraction * 10 + i64::from(digit);
        digits += 1;
        if digits > 6 {
            return None;
        }
    }
    const POWERS: [i64; 7] = [1_000_000, 100_000, 10_000, 1000, 100, 10, 1];
    (digits > 0).then(|| (whole_us + fraction * POWERS[digits], &rest[digits..]))
}
