//! Literals of date, time, timestamp and timestamptz into numbers.

use super::fast::{self, DayCache};
use super::fields::{self, Fields, Special};
use super::{Fault, tokens};
use crate::calendar::{
    DATE_DAYS_MAX, DATE_INFINITY, DATE_NEG_INFINITY, DAYS_MIN, TIMESTAMP_INFINITY, TIMESTAMP_MAX_US, TIMESTAMP_MIN_US,
    TIMESTAMP_NEG_INFINITY, US_PER_SECOND,
};
use crate::error::{DATETIME_OVERFLOW, ValueError, lossy};
use crate::format::Format;
use meridian_proto::time::US_PER_DAY;

/// Microseconds since 1970 UTC.
#[inline]
pub(crate) fn parse_timestamptz(input: &[u8], format: &Format, cache: &mut DayCache) -> Result<i64, ValueError> {
    match fast::read(input, cache) {
        Some(iso) => {
            let east_s = iso.east_s.unwrap_or_else(|| cache.offset_s(iso.local_us, &format.time_zone));
            Ok(iso.local_us - i64::from(east_s) * US_PER_SECOND)
        }
        None => timestamptz_slow(input, format),
    }
}

/// Microseconds since 1970 local; a zone in the literal is left out.
#[inline]
pub(crate) fn parse_timestamp(input: &[u8], format: &Format, cache: &mut DayCache) -> Result<i64, ValueError> {
    match fast::read(input, cache) {
        Some(iso) => Ok(iso.local_us),
        None => timestamp_slow(input, format),
    }
}

#[cold]
fn timestamptz_slow(input: &[u8], format: &Format) -> Result<i64, ValueError> {
    const TYPE: &str = "timestamp with time zone";
    let fields = read(input, format).map_err(|fault| fault.into_error(TYPE, input))?;
    if let Some(special) = fields.special {
        return Ok(special_us(special));
    }
    let local_us = local_us(&fields, input)?;
    let east_s = fields.offset_s(local_us, &format.time_zone);
    in_range(local_us.checked_sub(i64::from(east_s) * US_PER_SECOND), input)
}

#[cold]
fn timestamp_slow(input: &[u8], format: &Format) -> Result<i64, ValueError> {
    let fields = read(input, format).map_err(|fault| fault.into_error("timestamp", input))?;
    match fields.special {
        Some(special) => Ok(special_us(special)),
        None => local_us(&fields, input),
    }
}

fn read(input: &[u8], format: &Format) -> Result<Fields, Fault> {
    fields::decode(&tokens::split(input)?, format)
}

fn special_us(special: Special) -> i64 {
    match special {
        Special::Epoch => 0,
        Special::Infinity => TIMESTAMP_INFINITY,
        Special::NegInfinity => TIMESTAMP_NEG_INFINITY,
    }
}

fn local_us(fields: &Fields, input: &[u8]) -> Result<i64, ValueError> {
    let us = fields.days().checked_mul(US_PER_DAY).and_then(|us| us.checked_add(fields.time_us()));
    in_range(us, input)
}

fn in_range(us: Option<i64>, input: &[u8]) -> Result<i64, ValueError> {
    us.filter(|us| (TIMESTAMP_MIN_US..=TIMESTAMP_MAX_US).contains(us))
        .ok_or_else(|| ValueError::new(DATETIME_OVERFLOW, format!("timestamp out of range: \"{}\"", lossy(input))))
}

/// Days since 1970; a time in the literal is left out.
pub(crate) fn parse_date(input: &[u8], format: &Format, cache: &mut DayCache) -> Result<i32, ValueError> {
    if let Some(days) = fast::read_date(input, cache) {
        return Ok(days);
    }
    let fields = read(input, format).map_err(|fault| fault.into_error("date", input))?;
    match fields.special {
        Some(Special::Epoch) => return Ok(0),
        Some(Special::Infinity) => return Ok(DATE_INFINITY),
        Some(Special::NegInfinity) => return Ok(DATE_NEG_INFINITY),
        None => {}
    }
    let days = fields.days();
    let days = i32::try_from(days).ok().filter(|_| (DAYS_MIN..=DATE_DAYS_MAX).contains(&days));
    days.ok_or_else(|| ValueError::new(DATETIME_OVERFLOW, format!("date out of range: \"{}\"", lossy(input))))
}

/// Microseconds since midnight, 24:00 included; a zone in the literal is left out.
pub(crate) fn parse_time(input: &[u8], format: &Format) -> Result<i64, ValueError> {
    if let Some(us) = fast::read_time(input) {
        return Ok(us);
    }
    let fields = tokens::split(input).and_then(|tokens| fields::decode_time(&tokens, format));
    fields.map(|fields| fields.time_us()).map_err(|fault| fault.into_error("time", input))
}
