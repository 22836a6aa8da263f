//! Interval literals: `1 day 02:03:04`, `1.5 hours`, `300.000s`, `5m`, `@ 1 day ago`, `1-2` (years and months), ISO 8601.
//!
//! The tokens are read from the last to the first, so that a unit is known when its number comes.

use arrow::datatypes::IntervalMonthDayNano;

use super::fields::Clock;
use super::tokens::{self, Kind, Token};
use super::words::{self, Unit};
use super::{Fault, iso_interval};
use crate::calendar::{US_PER_HOUR, US_PER_MINUTE, US_PER_SECOND};
use crate::error::{DATETIME_OVERFLOW, ValueError};
use meridian_proto::time::US_PER_DAY;

/// Days of a month, where a fraction of one is asked for.
const DAYS_PER_MONTH: f64 = 30.0;

/// Reads an interval literal.
pub fn parse_interval(text: &str) -> Result<IntervalMonthDayNano, ValueError> {
    let input = text.as_bytes();
    let mut result = tokens::split(input).and_then(|tokens| decode(&tokens));
    if result == Err(Fault::Syntax) {
        result = iso_interval::decode(text);
    }
    let parts = result.map_err(|fault| fault.into_error("interval", input))?;
    parts.finish().ok_or_else(|| ValueError::new(DATETIME_OVERFLOW, "interval out of range"))
}

/// The parts of an interval while it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    years: i32,
    months: i32,
    days: i32,
    us: i64,
}

impl Parts {
    fn finish(self) -> Option<IntervalMonthDayNano> {
        let months = self.years.checked_mul(12)?.checked_add(self.months)?;
        Some(IntervalMonthDayNano::new(months, self.days, self.us.checked_mul(1000)?))
    }

    /// Adds `whole` and a fraction of a unit.
    pub(super) fn add(&mut self, whole: i64, fraction: f64, unit: Unit) -> Result<(), Fault> {
        self.try_add(whole, fraction, unit).ok_or(Fault::Overflow)
    }

    fn try_add(&mut self, whole: i64, fraction: f64, unit: Unit) -> Option<()> {
        match unit {
            Unit::Microsecond => self.add_us(whole, fraction, 1),
            Unit::Millisecond => self.add_us(whole, fraction, 1000),
            Unit::Second => self.add_us(whole, fraction, US_PER_SECOND),
            Unit::Minute => self.add_us(whole, fraction, US_PER_MINUTE),
            Unit::Hour => self.add_us(whole, fraction, US_PER_HOUR),
            Unit::Day => self.add_days(whole, fraction, 1.0),
            Unit::Week => self.add_days(whole.checked_mul(7)?, fraction, 7.0),
            Unit::Month => {
                self.months = self.months.checked_add(i32::try_from(whole).ok()?)?;
                self.add_days(0, fraction, DAYS_PER_MONTH)
            }
            Unit::Year => self.add_years(whole, fraction, 1),
            Unit::Decade => self.add_years(whole, fraction, 10),
            Unit::Century => self.add_years(whole, fraction, 100),
            Unit::Millennium => self.add_years(whole, fraction, 1000),
        }
    }

    fn add_us(&mut self, whole: i64, fraction: f64, scale: i64) -> Option<()> {
        self.us = self.us.checked_add(whole.checked_mul(scale)?)?;
        self.add_fraction_us(fraction, scale as f64)
    }

    fn add_fraction_us(&mut self, fraction: f64, scale: f64) -> Option<()> {
        let scaled = fraction * scale;
        let mut us = scaled.trunc() as i64;
        let rest = scaled - us as f64;
        if rest > 0.5 {
            us += 1;
        } else if rest < -0.5 {
            us -= 1;
        }
        self.us = self.us.checked_add(us)?;
        Some(())
    }

    fn add_days(&mut self, whole: i64, fraction: f64, scale: f64) -> Option<()> {
        let scaled = fraction * scale;
        let days = scaled.trunc();
        self.days = self.days.checked_add(i32::try_from(whole).ok()?)?.checked_add(days as i32)?;
        self.add_fraction_us(scaled - days, US_PER_DAY as f64)
    }

    fn add_years(&mut self, whole: i64, fraction: f64, scale: i32) -> Option<()> {
        let years = i32::try_from(whole.checked_mul(scale.into())?).ok()?;
        self.years = self.years.checked_add(years)?;
        let months = (fraction * f64::from(scale) * 12.0).round_ties_even();
        self.months = self.months.checked_add(months as i32)?;
        Some(())
    }

    fn negate(&mut self) -> Option<()> {
        self.years = self.years.checked_neg()?;
        self.months = self.months.checked_neg()?;
        self.days = self.days.checked_neg()?;
        self.us = self.us.checked_neg()?;
        Some(())
    }
}

/// Bits of the units that were given; none may come twice.
fn bit(unit: Unit) -> u32 {
    1 << unit as u32
}

const CLOCK_BITS: u32 = 1 << Unit::Hour as u32 | 1 << Unit::Minute as u32 | SECOND_BITS;
/// Seconds with a fraction stand for milliseconds and microseconds too.
const SECOND_BITS: u32 = 1 << Unit::Second as u32 | 1 << Unit::Millisecond as u32 | 1 << Unit::Microsecond as u32;

fn decode(tokens: &[Token]) -> Result<Parts, Fault> {
    let mut reader = Reader { parts: Parts::default(), unit: None, is_ago: false };
    let mut seen = 0;
    for token in tokens.iter().rev() {
        let found = reader.token(token)?;
        if found & seen != 0 {
            return Err(Fault::Syntax);
        }
        seen |= found;
    }
    if seen == 0 {
        return Err(Fault::Syntax);
    }
    let mut parts = reader.parts;
    if reader.is_ago {
        parts.negate().ok_or(Fault::Overflow)?;
    }
    Ok(parts)
}

struct Reader {
    parts: Parts,
    /// The unit of the next number.
    unit: Option<Unit>,
    is_ago: bool,
}

impl Reader {
    /// Reads a token, returns the units that it gave.
    fn token(&mut self, token: &Token) -> Result<u32, Fault> {
        match token.kind {
            Kind::Time => self.clock(&token.text, 1),
            Kind::Signed => {
                if token.text[1..].contains(':') {
                    let sign = if token.text.starts_with('-') { -1 } else { 1 };
                    if let Ok(found) = self.clock(&token.text[1..], sign) {
                        return Ok(found);
                    }
                }
                self.number(&token.text)
            }
            Kind::Date | Kind::Number => self.number(&token.text),
            Kind::Word | Kind::Special => self.word(&token.text),
        }
    }

    fn clock(&mut self, text: &str, sign: i64) -> Result<u32, Fault> {
        let Clock { hour, minute, second, us } = Clock::parse(text)?;
        let us = sign * (hour * US_PER_HOUR + minute * US_PER_MINUTE + second * US_PER_SECOND + us);
        self.parts.us = self.parts.us.checked_add(us).ok_or(Fault::Overflow)?;
        // A number without unit in front counts days.
        self.unit = Some(Unit::Day);
        Ok(CLOCK_BITS)
    }

    fn number(&mut self, text: &str) -> Result<u32, Fault> {
        let mut unit = self.unit.unwrap_or(Unit::Second);
        self.unit = Some(unit);
        let (is_negative, digits) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let length = digits.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, rest) = digits.split_at(length);
        let mut whole = if whole.is_empty() { 0 } else { signed(whole, is_negative)? };
        let mut fraction = 0.0;
        match rest.as_bytes().first() {
            None => {}
            Some(b'.') if rest.len() == 1 => {}
            Some(b'.') => {
                fraction = rest.parse::<f64>().map_err(|_| Fault::Syntax)?;
                if is_negative {
                    fraction = -fraction;
                }
            }
            Some(b'-') => {
                unit = Unit::Month;
                self.unit = Some(unit);
                whole = years_and_months(whole, &rest[1..], is_negative)?;
            }
            Some(_) => return Err(Fault::Syntax),
        }
        self.parts.add(whole, fraction, unit)?;
        if unit == Unit::Hour {
            self.unit = Some(Unit::Day);
        }
        Ok(if unit == Unit::Second && fraction != 0.0 { SECOND_BITS } else { bit(unit) })
    }

    fn word(&mut self, text: &str) -> Result<u32, Fault> {
        if text == "ago" {
            self.is_ago = true;
            self.unit = None;
            return Ok(0);
        }
        self.unit = Some(words::interval_unit(text).ok_or(Fault::Syntax)?);
        Ok(0)
    }
}

fn signed(digits: &str, is_negative: bool) -> Result<i64, Fault> {
    let text = if is_negative { format!("-{digits}") } else { digits.to_owned() };
    text.parse().map_err(|_| Fault::Overflow)
}

/// Months of the SQL standard's `years-months`.
fn years_and_months(years: i64, months: &str, is_negative: bool) -> Result<i64, Fault> {
    let length = months.bytes().take_while(u8::is_ascii_digit).count();
    let value = if length == 0 { 0 } else { signed(&months[..length], false)? };
    if value >= 12 {
        return Err(Fault::Overflow);
    }
    if length < months.len() {
        return Err(Fault::Syntax);
    }
    let value = if is_negative { -value } else { value };
    years.checked_mul(12).and_then(|total| total.checked_add(value)).ok_or(Fault::Overflow)
}
