//! The tokens of a date literal put together to a date, a time and a zone.
//!
//! Each token is read by its kind and by what is known already; a part that comes twice is a fault. Numbers without a name
//! are taken in the order month, day, year, unless the first has three digits or more: then it is the year.

use super::Fault;
use super::tokens::{Kind, Token};
use super::words::{self, Label, Word};
use crate::calendar::{self, SECONDS_PER_DAY, US_PER_HOUR, US_PER_MINUTE, US_PER_SECOND};
use crate::format::Format;
use crate::zone::TimeZone;
use meridian_proto::time::US_PER_DAY;

/// What a literal says.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
    pub us: i64,
    pub zone: Option<Zone>,
    pub special: Option<Special>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Zone {
    /// Seconds east of UTC.
    Offset(i32),
    Named(TimeZone),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Epoch,
    Infinity,
    NegInfinity,
}

/// Bits of the parts that are known.
mod part {
    pub const YEAR: u32 = 1;
    pub const MONTH: u32 = 2;
    pub const DAY: u32 = 4;
    pub const DATE: u32 = YEAR | MONTH | DAY;
    pub const DAY_OF_YEAR: u32 = 8;
    pub const HOUR: u32 = 16;
    pub const MINUTE: u32 = 32;
    pub const SECOND: u32 = 64;
    pub const TIME: u32 = HOUR | MINUTE | SECOND;
    pub const ZONE: u32 = 128;
    pub const SUMMER: u32 = 256;
    pub const HALF: u32 = 512;
    pub const ERA: u32 = 1024;
    pub const WEEKDAY: u32 = 2048;
}

/// Hours that a zone can be away from UTC.
const ZONE_HOURS_MAX: i64 = 15;

/// Reads a date with or without a time.
pub(super) fn decode(tokens: &[Token], format: &Format) -> Result<Fields, Fault> {
    let decoder = run(tokens, format, false)?;
    if decoder.fields.special.is_some() {
        return Ok(decoder.fields);
    }
    let fields = decoder.finish()?;
    Ok(fields)
}

/// Reads a time of day; a date in front is checked and left out.
pub(super) fn decode_time(tokens: &[Token], format: &Format) -> Result<Fields, Fault> {
    let decoder = run(tokens, format, true)?;
    decoder.finish_time()
}

fn run<'a>(tokens: &'a [Token], format: &'a Format, is_time: bool) -> Result<Decoder<'a>, Fault> {
    let mut decoder = Decoder {
        tokens,
        format,
        is_time,
        fields: Fields::default(),
        seen: 0,
        label: None,
        has_text_month: false,
        is_julian: false,
        has_short_year: false,
        day_of_year: 0,
        is_bc: false,
        half: None,
    };
    for place in 0..tokens.len() {
        let found = decoder.token(place)?;
        if found & decoder.seen != 0 {
            return Err(Fault::Syntax);
        }
        decoder.seen |= found;
    }
    Ok(decoder)
}

struct Decoder<'a> {
    tokens: &'a [Token],
    format: &'a Format,
    is_time: bool,
    fields: Fields,
    seen: u32,
    /// What the next number is.
    label: Option<Label>,
    has_text_month: bool,
    is_julian: bool,
    has_short_year: bool,
    day_of_year: i64,
    is_bc: bool,
    /// am or pm.
    half: Option<Word>,
}

impl Decoder<'_> {
    fn has(&self, parts: u32) -> bool {
        self.seen & parts == parts
    }

    /// Reads one token, returns the parts that it gave.
    fn token(&mut self, place: usize) -> Result<u32, Fault> {
        let text = self.tokens[place].text.as_str();
        match self.tokens[place].kind {
            Kind::Date if self.is_time => self.date_in_time(place, text),
            Kind::Date => self.date_token(text),
            Kind::Time => self.clock(text),
            Kind::Signed => {
                self.fields.zone = Some(Zone::Offset(displacement(text)?));
                Ok(part::ZONE)
            }
            Kind::Number => match self.label.take() {
                Some(label) => self.labelled(label, text),
                None if self.is_time => self.number_in_time(place, text),
                None => self.number_token(text),
            },
            Kind::Word | Kind::Special => self.word(place, text),
        }
    }

    fn date_token(&mut self, text: &str) -> Result<u32, Fault> {
        match self.label {
            Some(Label::Julian) => {
                let mark = text.find('-').ok_or(Fault::Syntax)?;
                self.label = None;
                self.julian(&text[..mark])?;
                self.fields.zone = Some(Zone::Offset(displacement(&text[mark..])?));
                return Ok(part::DATE | part::TIME | part::ZONE);
            }
            None if !self.has(part::MONTH | part::DAY) => return self.date(text),
            _ => {}
        }
        // The date is known: a name of a zone, or a time with an offset as in `040506-08`.
        if text.starts_with(|c: char| c.is_ascii_digit()) || self.label.is_some() {
            if self.label.take().is_some_and(|label| label != Label::Time) {
                return Err(Fault::Syntax);
            }
            return self.time_with_offset(text, self.seen);
        }
        self.named_zone(text)
    }

    fn date_in_time(&mut self, place: usize, text: &str) -> Result<u32, Fault> {
        let last = self.tokens.last().map(|token| token.kind);
        let follows = self.tokens.get(1).map(|token| token.kind);
        if place == 0 && self.tokens.len() >= 2 && (last == Some(Kind::Date) || follows == Some(Kind::Time)) {
            return self.date(text);
        }
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return self.time_with_offset(text, self.seen | part::DATE);
        }
        self.named_zone(text)
    }

    fn time_with_offset(&mut self, text: &str, seen: u32) -> Result<u32, Fault> {
        if self.has(part::TIME) {
            return Err(Fault::Syntax);
        }
        let mark = text.find('-').ok_or(Fault::Syntax)?;
        self.fields.zone = Some(Zone::Offset(displacement(&text[mark..])?));
        Ok(self.run_together(&text[..mark], seen)? | part::ZONE)
    }

    fn named_zone(&mut self, text: &str) -> Result<u32, Fault> {
        let zone = TimeZone::parse_in_literal(text).ok_or_else(|| Fault::Zone(text.to_owned()))?;
        self.fields.zone = Some(Zone::Named(zone));
        Ok(part::ZONE)
    }

    /// `2024-01-02`, `1/2/2024`, `2-jan-2024`: text is the month, numbers the rest.
    fn date(&mut self, text: &str) -> Result<u32, Fault> {
        let mut parts = date_parts(text)?;
        let mut found = 0;
        for part_text in &mut parts {
            if !part_text.starts_with(|c: char| c.is_ascii_alphabetic()) {
                continue;
            }
            match words::date_word(part_text) {
                Some(Word::Ignored) => continue,
                Some(Word::Month(month)) if (self.seen | found) & part::MONTH == 0 => {
                    self.fields.month = month;
                    self.has_text_month = true;
                    found |= part::MONTH;
                    *part_text = "";
                }
                _ => return Err(Fault::Syntax),
            }
        }
        for part_text in parts {
            if part_text.is_empty() {
                continue;
            }
            let part_found = self.number(part_text, self.seen | found)?;
            if part_found & (self.seen | found) != 0 {
                return Err(Fault::Syntax);
            }
            found |= part_found;
        }
        let complete = (self.seen | found) & !(part::DAY_OF_YEAR | part::ZONE);
        if complete == part::DATE { Ok(found) } else { Err(Fault::Syntax) }
    }

    /// `04:05`, `04:05:06.789`.
    fn clock(&mut self, text: &str) -> Result<u32, Fault> {
        if self.label.take().is_some_and(|label| label != Label::Time) {
            return Err(Fault::Syntax);
        }
        let clock = Clock::parse(text)?;
        self.fields.hour = clock.hour;
        self.fields.minute = clock.minute;
        self.fields.second = clock.second;
        self.fields.us = clock.us;
        if self.fields.time_us() > US_PER_DAY {
            return Err(Fault::Overflow);
        }
        Ok(part::TIME)
    }

    fn labelled(&mut self, label: Label, text: &str) -> Result<u32, Fault> {
        let whole = text.split('.').next().unwrap_or_default();
        let has_point = whole.len() < text.len();
        if has_point && !matches!(label, Label::Julian | Label::Time | Label::Second) {
            return Err(Fault::Syntax);
        }
        let value = || integer(whole);
        Ok(match label {
            Label::Year => {
                self.fields.year = value()?;
                part::YEAR
            }
            Label::Month if self.has(part::MONTH) && self.has(part::HOUR) => {
                self.fields.minute = value()?;
                part::MINUTE
            }
            Label::Month => {
                self.fields.month = value()?;
                part::MONTH
            }
            Label::Day => {
                self.fields.day = value()?;
                part::DAY
            }
            Label::Hour => {
                self.fields.hour = value()?;
                part::HOUR
            }
            Label::Minute => {
                self.fields.minute = value()?;
                part::MINUTE
            }
            Label::Second => {
                self.fields.second = value()?;
                if has_point {
                    self.fields.us = fraction_us(&text[whole.len()..])?;
                }
                part::SECOND
            }
            Label::Julian => self.julian(text)?,
            Label::Time => {
                let found = self.run_together(text, self.seen | part::DATE)?;
                if found == part::TIME { found } else { return Err(Fault::Syntax) }
            }
            Label::Unusable => return Err(Fault::Syntax),
        })
    }

    /// A Julian day, its fraction the time of day.
    fn julian(&mut self, text: &str) -> Result<u32, Fault> {
        let whole = text.split('.').next().unwrap_or_default();
        let days = integer(whole)? + calendar::DAYS_MIN;
        let (year, month, day) = calendar::date_of(days);
        (self.fields.year, self.fields.month, self.fields.day) = (year, month.into(), day.into());
        self.is_julian = true;
        if whole.len() == text.len() {
            return Ok(part::DATE);
        }
        let fraction = text[whole.len()..].parse::<f64>().map_err(|_| Fault::Syntax)?;
        self.fields.set_time_us((fraction * US_PER_DAY as f64) as i64);
        Ok(part::DATE | part::TIME)
    }

    fn number_token(&mut self, text: &str) -> Result<u32, Fault> {
        let whole = text.split('.').next().unwrap_or_default();
        let has_point = whole.len() < text.len();
        if has_point && self.seen & part::DATE == 0 {
            return self.date(text);
        }
        if has_point && whole.len() > 2 {
            return self.run_together(text, self.seen);
        }
        if text.len() >= 6 && (self.seen & part::DATE == 0 || self.seen & part::TIME == 0) {
            return self.run_together(text, self.seen);
        }
        self.number(text, self.seen)
    }

    fn number_in_time(&mut self, place: usize, text: &str) -> Result<u32, Fault> {
        let whole = text.split('.').next().unwrap_or_default();
        let has_point = whole.len() < text.len();
        let last = self.tokens.last().map(|token| token.kind);
        if has_point && place == 0 && self.tokens.len() >= 2 && last == Some(Kind::Date) {
            return self.date(text);
        }
        match (has_point, whole.len(), text.len()) {
            (true, 0..=2, _) => Err(Fault::Syntax),
            (true, ..) | (false, _, 5..) => self.run_together(text, self.seen | part::DATE),
            _ => self.number(text, self.seen | part::DATE),
        }
    }

    /// A number alone: what it is follows from what is known.
    fn number(&mut self, text: &str, seen: u32) -> Result<u32, Fault> {
        let whole = text.split('.').next().unwrap_or_default();
        let value = integer(whole)?;
        if whole.len() < text.len() {
            if whole.len() > 2 {
                return self.run_together(text, seen | part::DATE);
            }
            self.fields.us = fraction_us(&text[whole.len()..])?;
        }
        if text.len() == 3 && seen & part::DATE == part::YEAR && (1..=366).contains(&value) {
            self.day_of_year = value;
            return Ok(part::DAY_OF_YEAR | part::MONTH | part::DAY);
        }
        let is_long = text.len() >= 3;
        const YEAR_MONTH: u32 = part::YEAR | part::MONTH;
        const MONTH_DAY: u32 = part::MONTH | part::DAY;
        let found = match seen & part::DATE {
            0 if is_long => part::YEAR,
            0 | part::YEAR | part::DAY => part::MONTH,
            part::MONTH if self.has_text_month && is_long => part::YEAR,
            part::MONTH => part::DAY,
            YEAR_MONTH if self.has_text_month && is_long && self.has_short_year => {
                // What was taken for the year must have been the day.
                self.fields.day = self.fields.year;
                self.fields.year = value;
                self.has_short_year = false;
                return Ok(part::DAY);
            }
            YEAR_MONTH => part::DAY,
            MONTH_DAY => part::YEAR,
            part::DATE => return self.run_together(text, seen),
            _ => return Err(Fault::Syntax),
        };
        match found {
            part::YEAR => {
                self.fields.year = value;
                self.has_short_year = text.len() <= 2;
            }
            part::MONTH => self.fields.month = value,
            _ => self.fields.day = value,
        }
        Ok(found)
    }

    /// Digits without marks: `20240102`, `040506.789`, `0405`.
    fn run_together(&mut self, text: &str, seen: u32) -> Result<u32, Fault> {
        let whole = text.split('.').next().unwrap_or_default();
        let has_point = whole.len() < text.len();
        if whole.is_empty() || !whole.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Fault::Syntax);
        }
        let two = |end: usize| whole[end - 2..end].parse::<i64>().map_err(|_| Fault::Syntax);
        if has_point {
            self.fields.us = fraction_us(&text[whole.len()..])?;
        } else if seen & part::DATE != part::DATE && whole.len() >= 6 {
            let year_end = whole.len() - 4;
            self.fields.day = two(whole.len())?;
            self.fields.month = two(whole.len() - 2)?;
            self.fields.year = integer(&whole[..year_end])?;
            self.has_short_year = year_end == 2;
            return Ok(part::DATE);
        }
        if seen & part::TIME != part::TIME && matches!(whole.len(), 4 | 6) {
            self.fields.hour = two(2)?;
            self.fields.minute = two(4)?;
            self.fields.second = if whole.len() == 6 { two(6)? } else { 0 };
            return Ok(part::TIME);
        }
        Err(Fault::Syntax)
    }

    fn word(&mut self, place: usize, text: &str) -> Result<u32, Fault> {
        if let Some(east_s) = crate::abbreviations::offset_of(text) {
            self.fields.zone = Some(Zone::Offset(east_s));
            return Ok(part::ZONE);
        }
        let Some(word) = words::date_word(text) else {
            let zone = TimeZone::parse_in_literal(text).ok_or(Fault::Syntax)?;
            self.fields.zone = Some(Zone::Named(zone));
            return Ok(part::ZONE);
        };
        Ok(match word {
            Word::Ignored => 0,
            Word::Now | Word::Today | Word::Tomorrow | Word::Yesterday => self.relative(word)?,
            Word::Epoch => self.special(Special::Epoch)?,
            Word::Infinity => self.special(Special::Infinity)?,
            Word::NegInfinity => self.special(Special::NegInfinity)?,
            Word::AllBalls => {
                self.fields.set_time_us(0);
                self.fields.zone = Some(Zone::Offset(0));
                part::TIME | part::ZONE
            }
            Word::Month(_) if self.is_time => return Err(Fault::Syntax),
            Word::Month(month) => self.text_month(month),
            Word::DayOfWeek if self.is_time => return Err(Fault::Syntax),
            Word::DayOfWeek => part::WEEKDAY,
            Word::Am | Word::Pm => {
                self.half = Some(word);
                part::HALF
            }
            Word::Ad | Word::Bc => {
                self.is_bc = word == Word::Bc;
                part::ERA
            }
            Word::SummerTime => match &mut self.fields.zone {
                Some(Zone::Offset(east_s)) => {
                    *east_s += 3600;
                    part::SUMMER
                }
                _ => return Err(Fault::Syntax),
            },
            Word::Label(Label::Hour | Label::Minute | Label::Second) if self.is_time => return Err(Fault::Syntax),
            Word::Label(label) => {
                self.label = Some(label);
                0
            }
            Word::IsoTime => self.iso_time(place)?,
        })
    }

    fn text_month(&mut self, month: i64) -> u32 {
        // `15 jan`: the number that was taken for the month is the day.
        let is_swapped = self.has(part::MONTH)
            && !self.has_text_month
            && !self.has(part::DAY)
            && (1..=31).contains(&self.fields.month);
        self.has_text_month = true;
        if is_swapped {
            self.fields.day = self.fields.month;
        }
        self.fields.month = month;
        if is_swapped { part::DAY } else { part::MONTH }
    }

    /// `t` between a date and a time.
    fn iso_time(&mut self, place: usize) -> Result<u32, Fault> {
        let next = self.tokens.get(place + 1).map(|token| token.kind);
        let is_sensible = matches!(next, Some(Kind::Number | Kind::Time | Kind::Date));
        if !is_sensible || (!self.is_time && !self.has(part::DATE)) {
            return Err(Fault::Syntax);
        }
        self.label = Some(Label::Time);
        Ok(0)
    }

    fn special(&mut self, special: Special) -> Result<u32, Fault> {
        if self.is_time {
            return Err(Fault::Syntax);
        }
        self.fields.special = Some(special);
        Ok(part::DATE | part::TIME | part::ZONE)
    }

    /// `now`, `today` and its neighbours, in the session's zone.
    fn relative(&mut self, word: Word) -> Result<u32, Fault> {
        if self.is_time && word != Word::Now {
            return Err(Fault::Syntax);
        }
        let now_us = self.format.now_us();
        let local_us = self.format.time_zone.to_local_us(now_us);
        let days = local_us.div_euclid(US_PER_DAY);
        let days = match word {
            Word::Tomorrow => days + 1,
            Word::Yesterday => days - 1,
            _ => days,
        };
        if word == Word::Now {
            self.fields.set_time_us(local_us.rem_euclid(US_PER_DAY));
        }
        if self.is_time {
            return Ok(part::TIME);
        }
        let (year, month, day) = calendar::date_of(days);
        (self.fields.year, self.fields.month, self.fields.day) = (year, month.into(), day.into());
        self.is_julian = true;
        if word != Word::Now {
            return Ok(part::DATE);
        }
        let east_s = self.format.time_zone.offset_s_at(now_us.div_euclid(US_PER_SECOND));
        self.fields.zone = Some(Zone::Offset(east_s));
        Ok(part::DATE | part::TIME | part::ZONE)
    }

    fn finish(mut self) -> Result<Fields, Fault> {
        self.check_date()?;
        self.apply_half()?;
        if !self.has(part::DATE) {
            return Err(Fault::Syntax);
        }
        if self.fields.time_us() > US_PER_DAY {
            return Err(Fault::Overflow);
        }
        Ok(self.fields)
    }

    fn finish_time(mut self) -> Result<Fields, Fault> {
        self.check_date()?;
        self.apply_half()?;
        let fields = &self.fields;
        let is_in_range = fields.hour <= 24 && fields.minute <= 59 && fields.second <= 60;
        if !is_in_range || fields.time_us() > US_PER_DAY {
            return Err(Fault::Overflow);
        }
        if !self.has(part::TIME) {
            return Err(Fault::Syntax);
        }
        if let Some(Zone::Named(zone)) = &fields.zone
            && zone.fixed_offset_s().is_none()
            && !self.has(part::DATE)
        {
            return Err(Fault::Syntax);
        }
        Ok(self.fields)
    }

    fn apply_half(&mut self) -> Result<(), Fault> {
        let Some(half) = self.half else { return Ok(()) };
        let hour = &mut self.fields.hour;
        if *hour > 12 {
            return Err(Fault::Overflow);
        }
        match half {
            Word::Am if *hour == 12 => *hour = 0,
            Word::Pm if *hour != 12 => *hour += 12,
            _ => {}
        }
        Ok(())
    }

    /// Settles the year's century and era; checks month and day.
    fn check_date(&mut self) -> Result<(), Fault> {
        let fields = &mut self.fields;
        if self.seen & part::YEAR != 0 && !self.is_julian {
            match (self.is_bc, self.has_short_year) {
                (true, _) if fields.year <= 0 => return Err(Fault::Overflow),
                (true, _) => fields.year = 1 - fields.year,
                (false, true) if fields.year < 70 => fields.year += 2000,
                (false, true) => fields.year += 1900,
                (false, false) if fields.year <= 0 => return Err(Fault::Overflow),
                (false, false) => {}
            }
        }
        if self.seen & part::DAY_OF_YEAR != 0 {
            let days = calendar::days_of(fields.year, 1, 1) + self.day_of_year - 1;
            let (year, month, day) = calendar::date_of(days);
            (fields.year, fields.month, fields.day) = (year, month.into(), day.into());
        }
        if self.seen & part::MONTH != 0 && !(1..=12).contains(&fields.month) {
            return Err(Fault::MonthOrDay);
        }
        if self.seen & part::DAY != 0 && !(1..=31).contains(&fields.day) {
            return Err(Fault::MonthOrDay);
        }
        let is_complete = self.seen & part::DATE == part::DATE;
        if is_complete && fields.day > calendar::month_days(fields.year, fields.month as u32).into() {
            return Err(Fault::Overflow);
        }
        Ok(())
    }
}

impl Fields {
    pub(super) fn time_us(&self) -> i64 {
        self.hour * US_PER_HOUR + self.minute * US_PER_MINUTE + self.second * US_PER_SECOND + self.us
    }

    fn set_time_us(&mut self, us: i64) {
        self.hour = us / US_PER_HOUR;
        self.minute = us / US_PER_MINUTE % 60;
        self.second = us / US_PER_SECOND % 60;
        self.us = us % US_PER_SECOND;
    }

    pub(super) fn days(&self) -> i64 {
        calendar::days_of(self.year, self.month as u32, self.day as u32)
    }

    /// Seconds east of UTC of the zone in the literal, else of the session's.
    pub(super) fn offset_s(&self, local_us: i64, session: &TimeZone) -> i32 {
        let zone = match &self.zone {
            Some(Zone::Offset(east_s)) => return *east_s,
            Some(Zone::Named(zone)) => zone,
            None => session,
        };
        zone.offset_s_at_local(
            local_us.div_euclid(SECONDS_PER_DAY * US_PER_SECOND) * SECONDS_PER_DAY
                + local_us.rem_euclid(US_PER_DAY) / US_PER_SECOND,
        )
    }
}

/// `h:m`, `h:m:s` or `h:m:s.f`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
    pub us: i64,
}

impl Clock {
    /// Checks minutes and seconds; hours are the caller's to check. `a:b.c` is minutes and seconds.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let (clock, fraction) = match text.find('.') {
            Some(mark) => (&text[..mark], fraction_us(&text[mark..])?),
            None => (text, 0),
        };
        let mut parts = clock.split(':');
        let mut next = || parts.next().map(integer_or_none).transpose();
        let (first, second, third) = (next()?, next()?, next()?);
        let has_more = parts.next().is_some();
        let mut clock = match (first, second, third) {
            (Some(hour), Some(minute), Some(second)) => Self { hour, minute, second, us: 0 },
            (Some(minute), Some(second), None) if text.contains('.') => Self { hour: 0, minute, second, us: 0 },
            (Some(hour), Some(minute), None) => Self { hour, minute, second: 0, us: 0 },
            _ => return Err(Fault::Syntax),
        };
        clock.us = fraction;
        if has_more {
            return Err(Fault::Syntax);
        }
        if clock.minute > 59 || clock.second > 60 {
            return Err(Fault::Overflow);
        }
        Ok(clock)
    }
}

/// Seconds east of UTC of `+hh`, `+hh:mm[:ss]`, `+hhmm`.
pub(super) fn displacement(text: &str) -> Result<i32, Fault> {
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => return Err(Fault::Syntax),
    };
    let length = digits.find(|c: char| !c.is_ascii_digit() && c != ':').unwrap_or(digits.len());
    let mut parts = digits[..length].split(':');
    let mut number = || parts.next().map(|part| integer_or_none(part).map_err(|_| Fault::Displacement)).transpose();
    let mut hours = number()?.unwrap_or(0);
    let (mut minutes, seconds) = (number()?, number()?.unwrap_or(0));
    if minutes.is_none() && text.len() > 3 && length == digits.len() {
        minutes = Some(hours % 100);
        hours /= 100;
    }
    let minutes = minutes.unwrap_or(0);
    if hours > ZONE_HOURS_MAX || minutes > 59 || seconds > 59 {
        return Err(Fault::Displacement);
    }
    if parts.next().is_some() || length < digits.len() {
        return Err(Fault::Syntax);
    }
    i32::try_from(hours * 3600 + minutes * 60 + seconds).map(|east_s| sign * east_s).map_err(|_| Fault::Displacement)
}

/// The parts of a date, without what stands between them.
fn date_parts(text: &str) -> Result<Vec<&str>, Fault> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        rest = rest.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let Some(first) = rest.chars().next() else { return Err(Fault::Syntax) };
        let is_digit = first.is_ascii_digit();
        let inside = |c: char| if is_digit { c.is_ascii_digit() } else { c.is_ascii_alphabetic() };
        let length = rest.find(|c| !inside(c)).unwrap_or(rest.len());
        parts.push(&rest[..length]);
        // The character behind a part is its end and nothing else, whatever it is.
        rest = rest.get(length + 1..).unwrap_or_default();
    }
    Ok(parts)
}

/// A number without sign that C's `int` holds.
pub(super) fn integer(text: &str) -> Result<i64, Fault> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::Syntax);
    }
    text.parse::<i32>().map(i64::from).map_err(|_| Fault::Overflow)
}

/// As [`integer`]; no digits at all are 0, as C has it.
fn integer_or_none(text: &str) -> Result<i64, Fault> {
    if text.is_empty() { Ok(0) } else { integer(text) }
}

/// Microseconds of `.fff`, rounded.
pub(super) fn fraction_us(text: &str) -> Result<i64, Fault> {
    if text == "." {
        return Ok(0);
    }
    let fraction = text.parse::<f64>().map_err(|_| Fault::Syntax)?;
    Ok((fraction * US_PER_SECOND as f64).round_ties_even() as i64)
}
