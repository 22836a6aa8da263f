//! Dates, times, timestamps and intervals as ISO text.

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

pub(crate) fn write_timestamp(us: i64, out: &mut impl BufMut) {
    if write_infinity(us, out) {
        return;
    }
    let is_bc = write_ymd(us.div_euclid(US_PER_DAY), out);
    out.put_u8(b' ');
    write_time(us.rem_euclid(US_PER_DAY), out);
    write_era(is_bc, out);
}

pub(crate) fn write_timestamptz(us: i64, zone: &TimeZone, out: &mut impl BufMut) {
    if write_infinity(us, out) {
        return;
    }
    let east_s = zone.offset_s_at(us.div_euclid(US_PER_SECOND));
    let (days, us_of_day) = (us.div_euclid(US_PER_DAY), us.rem_euclid(US_PER_DAY));
    // In two parts, since the sum can leave an `i64` at its ends.
    let local_us = us_of_day + i64::from(east_s) * US_PER_SECOND;
    let is_bc = write_ymd(days + local_us.div_euclid(US_PER_DAY), out);
    out.put_u8(b' ');
    write_time(local_us.rem_euclid(US_PER_DAY), out);
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
