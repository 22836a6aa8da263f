//! Dates, times, timestamps and intervals as ISO text.

use std::cell::Cell;

use arrow::datatypes::IntervalMonthDayNano;
use bytes::{BufMut, BytesMut};
use meridian_proto::time::US_PER_DAY;

use crate::calendar::{
    self, DATE_INFINITY, DATE_NEG_INFINITY, TIMESTAMP_INFINITY, TIMESTAMP_NEG_INFINITY, US_PER_HOUR, US_PER_MINUTE,
    US_PER_SECOND,
};
use crate::types::integer::{write as write_i64, write_two, write_u64};
use crate::zone::TimeZone;

pub(crate) fn write_date(days: i32, out: &mut impl BufMut) {
    match days {
        DATE_INFINITY => out.put_slice(b"infinity"),
        DATE_NEG_INFINITY => out.put_slice(b"-infinity"),
        _ => {
            let is_bc = write_ymd(i64::from(days), out);
            write_era(is_bc, out);
        }
    }
}

/// Writes year, month and day, says whether the year is before Christ.
fn write_ymd(days: i64, out: &mut impl BufMut) -> bool {
    let (year, month, day) = calendar::date_of(days);
    let shown = if year > 0 { year } else { 1 - year }.unsigned_abs();
    if shown < 10_000 {
        write_two((shown / 100) as u32, out);
        write_two((shown % 100) as u32, out);
    } else {
        write_u64(shown, out);
    }
    out.put_u8(b'-');
    write_two(month, out);
    out.put_u8(b'-');
    write_two(day, out);
    year <= 0
}

fn write_era(is_bc: bool, out: &mut impl BufMut) {
    if is_bc {
        out.put_slice(b" BC");
    }
}

/// Writes the time of day of up to 24:00.
pub(crate) fn write_time(us: i64, out: &mut impl BufMut) {
    let seconds = us / US_PER_SECOND;
    write_two((seconds / 3600) as u32, out);
    out.put_u8(b':');
    write_two((seconds / 60 % 60) as u32, out);
    out.put_u8(b':');
    write_two((seconds % 60) as u32, out);
    write_fraction(us % US_PER_SECOND, out);
}

fn write_fraction(us: i64, out: &mut impl BufMut) {
    if us == 0 {
        return;
    }
    let mut digits = [b'.'; 7];
    let (mut rest, mut end) = (us, 7);
    for place in (1..7).rev() {
        digits[place] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    while digits[end - 1] == b'0' {
        end -= 1;
    }
    out.put_slice(&digits[..end]);
}

fn write_infinity(us: i64, out: &mut impl BufMut) -> bool {
    match us {
        TIMESTAMP_INFINITY => out.put_slice(b"infinity"),
        TIMESTAMP_NEG_INFINITY => out.put_slice(b"-infinity"),
        _ => return false,
    }
    true
}

/// Year to hour, `2013-07-04 16:`, of the time that was written last: times of a result mostly follow one another.
#[derive(Default)]
pub(crate) struct RecentHour {
    start: Cell<Option<(i64, [u8; HOUR_BYTES])>>,
    field: Cell<Option<HourField>>,
}

/// A field of a DataRow, of which all times of one hour without a fraction differ in minutes and seconds only.
#[derive(Clone, Copy)]
struct HourField {
    start_us: i64,
    bytes: [u8; HOUR_FIELD_BYTES],
    length: usize,
}

/// Length, `2013-07-04 16:mm:ss` and up to nine bytes of an offset.
const HOUR_FIELD_BYTES: usize = 32;
/// Where minutes and seconds are in it.
const MINUTE_PLACE: usize = 18;
const SECOND_PLACE: usize = 21;

/// With four digits of a year.
const HOUR_BYTES: usize = 14;
/// With a year of any length.
const TIMESTAMP_BYTES_MAX: usize = 40;

impl RecentHour {
    /// Writes date and time of day, says whether the year is before Christ.
    #[inline]
    fn write(&self, days: i64, us_of_day: i64, out: &mut impl BufMut) -> bool {
        let hour = days * 24 + us_of_day / US_PER_HOUR;
        match self.start.get() {
            Some((recent, text)) if recent == hour => {
                out.put_slice(&text);
                write_within_hour(us_of_day % US_PER_HOUR, out);
                false
            }
            _ => self.write_anew(hour, days, us_of_day, out),
        }
    }

    /// Writes a time of the hour whose field is known, and returns the field's bytes.
    #[inline]
    pub fn write_field(&self, us: i64, field: &mut [u8]) -> Option<usize> {
        let known = self.field.get()?;
        let within = us.wrapping_sub(known.start_us) as u64;
        if within >= US_PER_HOUR as u64 {
            return None;
        }
        let seconds = within as u32 / US_PER_SECOND as u32;
        let target = field
            .first_chunk_mut::<HOUR_FIELD_BYTES>()
            .filter(|_| u64::from(seconds) * US_PER_SECOND as u64 == within)?;
        *target = known.bytes;
        [target[MINUTE_PLACE], target[MINUTE_PLACE + 1]] = two_digits(seconds / 60);
        [target[SECOND_PLACE], target[SECOND_PLACE + 1]] = two_digits(seconds % 60);
        Some(known.length)
    }

    /// Keeps the field of a time, when all of its hour are alike. `offset_s_at`: seconds east of UTC, by seconds of UTC.
    pub fn keep_field(&self, us: i64, field: &[u8], offset_s_at: impl Fn(i64) -> i32) {
        let east_s = offset_s_at(us.div_euclid(US_PER_SECOND));
        let within = (us.rem_euclid(US_PER_DAY) + i64::from(east_s) * US_PER_SECOND).rem_euclid(US_PER_HOUR);
        let Some((start_us, end_us)) =
            us.checked_sub(within).and_then(|start| Some((start, start.checked_add(US_PER_HOUR)?)))
        else {
            return;
        };
        let is_one_offset = [start_us, end_us - 1].iter().all(|at| offset_s_at(at.div_euclid(US_PER_SECOND)) == east_s);
        let has_shape = |place: usize, byte: u8| field.get(place) == Some(&byte);
        let is_plain = has_shape(8, b'-')
            && has_shape(14, b' ')
            && has_shape(MINUTE_PLACE - 1, b':')
            && has_shape(SECOND_PLACE - 1, b':');
        let has_more = field.len() > HOUR_FIELD_BYTES || field.ends_with(b"BC") || us % US_PER_SECOND != 0;
        if is_plain && is_one_offset && !has_more {
            let mut bytes = [0; HOUR_FIELD_BYTES];
            bytes[..field.len()].copy_from_slice(field);
            self.field.set(Some(HourField { start_us, bytes, length: field.len() }));
        }
    }

    fn write_anew(&self, hour: i64, days: i64, us_of_day: i64, out: &mut impl BufMut) -> bool {
        let mut text = [0; TIMESTAMP_BYTES_MAX];
        let mut rest = &mut text[..];
        let is_bc = write_ymd(days, &mut rest);
        rest.put_u8(b' ');
        write_time(us_of_day, &mut rest);
        let length = TIMESTAMP_BYTES_MAX - rest.remaining_mut();
        out.put_slice(&text[..length]);
        if !is_bc && let Some(start) = text.first_chunk().filter(|start: &&[u8; HOUR_BYTES]| start.ends_with(b":")) {
            self.start.set(Some((hour, *start)));
        }
        is_bc
    }
}

#[inline]
fn two_digits(value: u32) -> [u8; 2] {
    [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]
}

/// `mm:ss[.ffffff]`
#[inline]
fn write_within_hour(us: i64, out: &mut impl BufMut) {
    let seconds = (us / US_PER_SECOND) as u32;
    let ([a, b], [c, d]) = (two_digits(seconds / 60), two_digits(seconds % 60));
    out.put_slice(&[a, b, b':', c, d]);
    write_fraction(us % US_PER_SECOND, out);
}

pub(crate) fn write_timestamp(us: i64, recent: &RecentHour, out: &mut impl BufMut) {
    if write_infinity(us, out) {
        return;
    }
    let is_bc = recent.write(us.div_euclid(US_PER_DAY), us.rem_euclid(US_PER_DAY), out);
    write_era(is_bc, out);
}

pub(crate) fn write_timestamptz(us: i64, zone: &TimeZone, recent: &RecentHour, out: &mut impl BufMut) {
    if write_infinity(us, out) {
        return;
    }
    let east_s = zone.offset_s_at(us.div_euclid(US_PER_SECOND));
    let (days, us_of_day) = (us.div_euclid(US_PER_DAY), us.rem_euclid(US_PER_DAY));
    // In two parts, since the sum can leave an `i64` at its ends.
    let local_us = us_of_day + i64::from(east_s) * US_PER_SECOND;
    let is_bc = recent.write(days + local_us.div_euclid(US_PER_DAY), local_us.rem_euclid(US_PER_DAY), out);
    write_offset(east_s, out);
    write_era(is_bc, out);
}

/// `+hh[:mm[:ss]]`
fn write_offset(east_s: i32, out: &mut impl BufMut) {
    out.put_u8(if east_s < 0 { b'-' } else { b'+' });
    let size = east_s.unsigned_abs();
    write_two(size / 3600, out);
    if !size.is_multiple_of(3600) {
        out.put_u8(b':');
        write_two(size / 60 % 60, out);
    }
    if !size.is_multiple_of(60) {
        out.put_u8(b':');
        write_two(size % 60, out);
    }
}

/// Microseconds of an interval's time part; nanoseconds are cut.
pub(crate) fn interval_us(interval: IntervalMonthDayNano) -> i64 {
    interval.nanoseconds / 1000
}

/// Writes `1 year 2 mons 3 days 04:05:06.789`; behind a negative part, a positive one carries a `+`.
pub(crate) fn write_interval(interval: IntervalMonthDayNano, out: &mut BytesMut) {
    let start = out.len();
    let mut is_after_negative = false;
    let units = [(interval.months / 12, "year"), (interval.months % 12, "mon"), (interval.days, "day")];
    for (value, unit) in units {
        if value == 0 {
            continue;
        }
        if out.len() > start {
            out.put_u8(b' ');
        }
        if is_after_negative && value > 0 {
            out.put_u8(b'+');
        }
        write_i64(value.into(), out);
        out.put_u8(b' ');
        out.put_slice(unit.as_bytes());
        if value != 1 {
            out.put_u8(b's');
        }
        is_after_negative = value < 0;
    }
    let us = interval_us(interval);
    if us == 0 && out.len() > start {
        return;
    }
    if out.len() > start {
        out.put_u8(b' ');
    }
    if us < 0 {
        out.put_u8(b'-');
    } else if is_after_negative {
        out.put_u8(b'+');
    }
    let size = us.unsigned_abs();
    let hours = size / US_PER_HOUR.unsigned_abs();
    if hours < 100 {
        write_two(hours as u32, out);
    } else {
        write_u64(hours, out);
    }
    let rest = (size % US_PER_HOUR.unsigned_abs()) as i64;
    out.put_u8(b':');
    write_two((rest / US_PER_MINUTE) as u32, out);
    out.put_u8(b':');
    write_two((rest % US_PER_MINUTE / US_PER_SECOND) as u32, out);
    write_fraction(rest % US_PER_SECOND, out);
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn times_after_one_another_are_written_as_each_by_itself() {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        for name in ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"] {
            let zone = TimeZone::parse(name).unwrap();
            let recent = RecentHour::default();
            let mut us = 0i64;
            for _ in 0..20_000 {
                us = match random.random_range(0..50) {
                    // Any time that there is, years before Christ and beyond 9999 among them.
                    0 => random.random_range(-210_866_803_200_000_000..9_223_371_331_199_999_999),
                    1..5 => us.saturating_add(random.random_range(-US_PER_DAY..US_PER_DAY)),
                    step => {
                        us.saturating_add(i64::from(step) * [1, 1000, US_PER_SECOND, US_PER_MINUTE][step as usize % 4])
                    }
                };
                let (mut after_others, mut alone) = (BytesMut::new(), BytesMut::new());
                write_timestamptz(us, &zone, &recent, &mut after_others);
                write_timestamptz(us, &zone, &RecentHour::default(), &mut alone);
                assert_eq!(after_others, alone, "{us}");
            }
        }
        let mut text = BytesMut::new();
        let recent = RecentHour::default();
        for us in [1_372_953_599_000_000, 1_372_953_599_000_001, 1_372_953_600_000_000] {
            write_timestamp(us, &recent, &mut text);
            text.put_u8(b'|');
        }
        assert_eq!(text, "2013-07-04 15:59:59|2013-07-04 15:59:59.000001|2013-07-04 16:00:00|");
    }
}
