//! ISO 8601 intervals: `P1Y2M3DT4H5M6.7S` with designators, `P0001-02-03T04:05:06` without.

use super::Fault;
use super::interval::Parts;
use super::words::Unit;

pub(super) fn decode(text: &str) -> Result<Parts, Fault> {
    let mut reader = Reader { rest: text.strip_prefix('P').ok_or(Fault::Syntax)?, parts: Parts::default() };
    if text.len() < 2 || !text.is_ascii() {
        return Err(Fault::Syntax);
    }
    let mut is_time = false;
    let mut has_field = false;
    while !reader.rest.is_empty() {
        if let Some(rest) = reader.rest.strip_prefix('T') {
            reader.rest = rest;
            is_time = true;
            has_field = false;
            continue;
        }
        let done = if is_time { reader.time_field(has_field)? } else { reader.date_field(has_field)? };
        if done {
            break;
        }
        has_field = true;
    }
    Ok(reader.parts)
}

struct Reader<'a> {
    rest: &'a str,
    parts: Parts,
}

impl Reader<'_> {
    /// Takes a number: its whole part and its fraction, both signed.
    fn number(&mut self) -> Result<(i64, f64), Fault> {
        let bytes = self.rest.as_bytes();
        let starts = bytes.first().is_some_and(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.'));
        if !starts {
            return Err(Fault::Syntax);
        }
        let sign = usize::from(matches!(bytes[0], b'-' | b'+'));
        let count = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let mut end = sign + count(sign);
        if bytes.get(end) == Some(&b'.') {
            end += 1 + count(end + 1);
        }
        let value = self.rest[..end].parse::<f64>().map_err(|_| Fault::Syntax)?;
        self.rest = &self.rest[end..];
        // Beyond, a double is no longer exact.
        if value.abs() > 1e15 {
            return Err(Fault::Overflow);
        }
        Ok((value.trunc() as i64, value.fract()))
    }

    fn take(&mut self) -> Option<u8> {
        let first = *self.rest.as_bytes().first()?;
        self.rest = &self.rest[1..];
        Some(first)
    }

    /// A field before the `T`; says whether the literal is at its end.
    fn date_field(&mut self, has_field: bool) -> Result<bool, Fault> {
        let field = self.rest;
        let (whole, fraction) = self.number()?;
        let unit = match self.take() {
            Some(b'Y') => Unit::Year,
            Some(b'M') => Unit::Month,
            Some(b'W') => Unit::Week,
            Some(b'D') => Unit::Day,
            // Without designators: years, months and days, or all together in eight digits.
            mark @ (None | Some(b'T' | b'-')) if !has_field => {
                return self.basic_date(field, mark, whole, fraction);
            }
            _ => return Err(Fault::Syntax),
        };
        self.parts.add(whole, fraction, unit)?;
        Ok(false)
    }

    fn basic_date(&mut self, field: &str, mark: Option<u8>, whole: i64, fraction: f64) -> Result<bool, Fault> {
        let digits = field.bytes().skip_while(|b| *b == b'-').take_while(u8::is_ascii_digit).count();
        if mark != Some(b'-') && digits == 8 {
            self.parts.add(whole / 10_000, 0.0, Unit::Year)?;
            self.parts.add(whole / 100 % 100, 0.0, Unit::Month)?;
            self.parts.add(whole % 100, fraction, Unit::Day)?;
            return self.basic_time_follows(mark);
        }
        self.parts.add(whole, fraction, Unit::Year)?;
        let mut mark = mark;
        for unit in [Unit::Month, Unit::Day] {
            if mark != Some(b'-') {
                break;
            }
            let (whole, fraction) = self.number()?;
            self.parts.add(whole, fraction, unit)?;
            mark = self.take();
        }
        self.basic_time_follows(mark)
    }

    fn basic_time_follows(&mut self, mark: Option<u8>) -> Result<bool, Fault> {
        match mark {
            None => Ok(true),
            Some(b'T') => self.time_field(false),
            Some(_) => Err(Fault::Syntax),
        }
    }

    /// A field behind the `T`.
    fn time_field(&mut self, has_field: bool) -> Result<bool, Fault> {
        let field = self.rest;
        let (whole, fraction) = self.number()?;
        let unit = match self.take() {
            Some(b'H') => Unit::Hour,
            Some(b'M') => Unit::Minute,
            Some(b'S') => Unit::Second,
            mark @ (None | Some(b':')) if !has_field => return self.basic_time(field, mark, whole, fraction),
            _ => return Err(Fault::Syntax),
        };
        self.parts.add(whole, fraction, unit)?;
        Ok(false)
    }

    fn basic_time(&mut self, field: &str, mark: Option<u8>, whole: i64, fraction: f64) -> Result<bool, Fault> {
        let digits = field.bytes().skip_while(|b| *b == b'-').take_while(u8::is_ascii_digit).count();
        if mark.is_none() && digits == 6 {
            self.parts.add(whole / 10_000, 0.0, Unit::Hour)?;
            self.parts.add(whole / 100 % 100, 0.0, Unit::Minute)?;
            self.parts.add(whole % 100, fraction, Unit::Second)?;
            return Ok(true);
        }
        self.parts.add(whole, fraction, Unit::Hour)?;
        let mut mark = mark;
        for unit in [Unit::Minute, Unit::Second] {
            if mark != Some(b':') {
                break;
            }
            let (whole, fraction) = self.number()?;
            self.parts.add(whole, fraction, unit)?;
            mark = self.take();
        }
        if mark.is_none() { Ok(true) } else { Err(Fault::Syntax) }
    }
}
