//! Type modifiers of times: `timestamp(3)`, `time(0)`, `interval day to second(3)`. Arrow's types and the formats on disk
//! know nothing of them: values are rounded, or cut, when they become values of such a type, as PostgreSQL does
//! (`AdjustTimestampForTypmod` and its kin).

use std::borrow::Cow;
use std::collections::HashMap;

use arrow::datatypes::{Field, IntervalMonthDayNano};

use crate::time::POSTGRES_EPOCH_US;
use crate::types::SqlType;

/// Key of the Arrow field metadata that holds a type modifier.
pub const MODIFIER_KEY: &str = "meridian.modifier";
/// Digits of a second that are kept at most.
pub const DIGITS_MAX: u8 = 6;

const US_PER_HOUR: i64 = 3_600_000_000;
const US_PER_MINUTE: i64 = 60_000_000;
/// What PostgreSQL has in the place of fields, and of digits, that are not limited.
const ALL_FIELDS: i32 = 0x7fff;
const ALL_DIGITS: i32 = 0xffff;

/// What a column of a time type keeps of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Modifier {
    /// Digits of the second: `timestamp(p)`, `time(p)`.
    Digits(u8),
    Interval {
        fields: Option<Fields>,
        digits: Option<u8>,
    },
}

/// Fields of an interval, from the largest to the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fields {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    YearToMonth,
    DayToHour,
    DayToMinute,
    DayToSecond,
    HourToMinute,
    HourToSecond,
    MinuteToSecond,
}

use Fields::{
    Day, DayToHour, DayToMinute, DayToSecond, Hour, HourToMinute, HourToSecond, Minute, MinuteToSecond, Month, Second,
    Year, YearToMonth,
};

/// Names, and a bit for each field that is in: what PostgreSQL keeps of them.
const FIELDS: [(Fields, &str, i32); 13] = [
    (Year, "year", 1 << 2),
    (Month, "month", 1 << 1),
    (Day, "day", 1 << 3),
    (Hour, "hour", 1 << 10),
    (Minute, "minute", 1 << 11),
    (Second, "second", 1 << 12),
    (YearToMonth, "year to month", 1 << 2 | 1 << 1),
    (DayToHour, "day to hour", 1 << 3 | 1 << 10),
    (DayToMinute, "day to minute", 1 << 3 | 1 << 10 | 1 << 11),
    (DayToSecond, "day to second", 1 << 3 | 1 << 10 | 1 << 11 | 1 << 12),
    (HourToMinute, "hour to minute", 1 << 10 | 1 << 11),
    (HourToSecond, "hour to second", 1 << 10 | 1 << 11 | 1 << 12),
    (MinuteToSecond, "minute to second", 1 << 11 | 1 << 12),
];

impl Fields {
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        FIELDS.iter().find(|(_, known, _)| name.eq_ignore_ascii_case(known)).map(|(fields, ..)| *fields)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().1
    }

    fn entry(self) -> (Self, &'static str, i32) {
        FIELDS[self as usize]
    }

    /// What a number without a unit counts: the smallest field.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Year => "year",
            Month | YearToMonth => "month",
            Day => "day",
            Hour | DayToHour => "hour",
            Minute | DayToMinute | HourToMinute => "minute",
            Second | DayToSecond | HourToSecond | MinuteToSecond => "second",
        }
    }

    /// An interval without its smaller fields.
    fn cut(self, interval: IntervalMonthDayNano) -> IntervalMonthDayNano {
        let IntervalMonthDayNano { months, days, nanoseconds } = interval;
        let time = |us: i64| nanoseconds / (us * 1000) * (us * 1000);
        let (months, days, nanoseconds) = match self {
            Year => (months / 12 * 12, 0, 0),
            Month | YearToMonth => (months, 0, 0),
            Day => (months, days, 0),
            Hour | DayToHour => (months, days, time(US_PER_HOUR)),
            Minute | DayToMinute | HourToMinute => (months, days, time(US_PER_MINUTE)),
            Second | DayToSecond | HourToSecond | MinuteToSecond => (months, days, nanoseconds),
        };
        IntervalMonthDayNano { months, days, nanoseconds }
    }
}

impl Modifier {
    /// PostgreSQL's `atttypmod`.
    #[must_use]
    pub fn typmod(self) -> i32 {
        match self {
            Self::Digits(digits) => digits.into(),
            Self::Interval { fields, digits } => {
                let fields = fields.map_or(ALL_FIELDS, |fields| fields.entry().2);
                (fields << 16) | digits.map_or(ALL_DIGITS, i32::from)
            }
        }
    }

    /// The modifier of a time type with that `atttypmod`; `None`: there is none such.
    #[must_use]
    pub fn of_typmod(sql_type: &SqlType, typmod: i32) -> Option<Self> {
        let digits = |digits: i32| u8::try_from(digits).ok().filter(|digits| *digits <= DIGITS_MAX);
        match sql_type {
            SqlType::Timestamp | SqlType::Timestamptz | SqlType::Time => digits(typmod).map(Self::Digits),
            SqlType::Interval => {
                let (bits, rest) = (typmod >> 16, typmod & ALL_DIGITS);
                let found = FIELDS.iter().find(|(.., known)| *known == bits).map(|(fields, ..)| *fields);
                if found.is_none() && bits != ALL_FIELDS {
                    return None;
                }
                let digits = if rest == ALL_DIGITS { None } else { Some(digits(rest)?) };
                Some(Self::Interval { fields: found, digits })
            }
            _ => None,
        }
    }

    /// The name of the type with it, as PostgreSQL's `format_type` gives it.
    #[must_use]
    pub fn type_name(self, sql_type: &SqlType) -> String {
        let name = sql_type.to_string();
        match self {
            Self::Digits(digits) => match name.split_once(' ') {
                Some((base, rest)) => format!("{base}({digits}) {rest}"),
                None => format!("{name}({digits})"),
            },
            Self::Interval { fields, digits } => {
                let fields = fields.map_or(String::new(), |fields| format!(" {}", fields.name()));
                let digits = digits.map_or(String::new(), |digits| format!("({digits})"));
                format!("{name}{fields}{digits}")
            }
        }
    }

    /// The field with this modifier in its metadata.
    #[must_use]
    pub fn mark(self, field: Field) -> Field {
        let mut metadata: HashMap<String, String> = field.metadata().clone();
        metadata.insert(MODIFIER_KEY.to_owned(), self.typmod().to_string());
        field.with_metadata(metadata)
    }

    /// The modifier that a field remembers.
    #[must_use]
    pub fn of_field(field: &Field) -> Option<Self> {
        let typmod = field.metadata().get(MODIFIER_KEY)?.parse().ok()?;
        Self::of_typmod(&SqlType::of_field(field)?, typmod)
    }

    fn digits(self) -> Option<u8> {
        match self {
            Self::Digits(digits) => Some(digits),
            Self::Interval { digits, .. } => digits,
        }
    }

    /// A timestamp with so many digits; infinities stay. Halves go away from PostgreSQL's epoch, the year 2000.
    #[must_use]
    pub fn round_timestamp(self, us: i64) -> Option<i64> {
        let Some(digits) = self.digits() else { return Some(us) };
        if us == i64::MIN || us == i64::MAX {
            return Some(us);
        }
        round(us.checked_sub(POSTGRES_EPOCH_US)?, digits)?.checked_add(POSTGRES_EPOCH_US)
    }

    /// A time of day, likewise.
    #[must_use]
    pub fn round_time(self, us: i64) -> Option<i64> {
        self.digits().map_or(Some(us), |digits| round(us, digits))
    }

    /// An interval without what its fields leave out.
    #[must_use]
    pub fn round_interval(self, interval: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
        let cut = match self {
            Self::Interval { fields: Some(fields), .. } => fields.cut(interval),
            _ => interval,
        };
        let Some(digits) = self.digits() else { return Some(cut) };
        let nanoseconds = round(cut.nanoseconds / 1000, digits)?.checked_mul(1000)?;
        Some(IntervalMonthDayNano { nanoseconds, ..cut })
    }

    /// An interval's text, with the unit of a number that has none.
    #[must_use]
    pub fn with_unit<'a>(self, text: &'a str) -> Cow<'a, str> {
        match self {
            Self::Interval { fields: Some(fields), .. } if text.trim().parse::<f64>().is_ok() => {
                Cow::Owned(format!("{text} {}", fields.unit()))
            }
            _ => Cow::Borrowed(text),
        }
    }
}

/// To the nearest, halves away from zero.
fn round(us: i64, digits: u8) -> Option<i64> {
    let unit = 10_i64.pow(u32::from(DIGITS_MAX.saturating_sub(digits)));
    let half = unit / 2;
    Some(if us >= 0 {
        us.checked_add(half)? / unit * unit
    } else {
        -(us.checked_neg()?.checked_add(half)? / unit * unit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(fields: Option<Fields>, digits: Option<u8>) -> Modifier {
        Modifier::Interval { fields, digits }
    }

    #[test]
    fn modifiers_are_postgresqls_numbers() {
        let check = |sql_type: &SqlType, modifier: Modifier, typmod: i32, name: &str| {
            assert_eq!((modifier.typmod(), modifier.type_name(sql_type).as_str()), (typmod, name));
            assert_eq!(Modifier::of_typmod(sql_type, typmod), Some(modifier));
            assert_eq!(Modifier::of_field(&modifier.mark(sql_type.field("c", true))), Some(modifier));
        };
        check(&SqlType::Timestamp, Modifier::Digits(3), 3, "timestamp(3) without time zone");
        check(&SqlType::Timestamptz, Modifier::Digits(6), 6, "timestamp(6) with time zone");
        check(&SqlType::Time, Modifier::Digits(0), 0, "time(0) without time zone");
        check(&SqlType::Interval, interval(None, Some(3)), 2_147_418_115, "interval(3)");
        check(&SqlType::Interval, interval(Some(YearToMonth), None), 458_751, "interval year to month");
        check(&SqlType::Interval, interval(Some(DayToSecond), Some(2)), 470_286_338, "interval day to second(2)");
        for (fields, name, _) in FIELDS {
            assert_eq!((Fields::parse(name), fields.entry().0), (Some(fields), fields), "{name}");
        }
        assert_eq!(Modifier::of_typmod(&SqlType::Timestamp, 7), None);
        assert_eq!(Modifier::of_typmod(&SqlType::Text, 3), None);
    }

    #[test]
    fn times_are_rounded_away_from_the_year_2000() {
        let check = |digits, us: i64, expected: i64| {
            let rounded = Modifier::Digits(digits).round_timestamp(us + POSTGRES_EPOCH_US);
            assert_eq!(rounded, Some(expected + POSTGRES_EPOCH_US), "{us} to {digits} digits");
        };
        check(3, 1_234_500, 1_235_000);
        check(3, 1_234_499, 1_234_000);
        check(0, -500_000, -1_000_000);
        check(6, 123_457, 123_457);
        assert_eq!(Modifier::Digits(0).round_timestamp(i64::MAX), Some(i64::MAX));
        assert_eq!(Modifier::Digits(1).round_time(86_399_960_000), Some(86_400_000_000));
    }

    #[test]
    fn intervals_lose_what_their_fields_leave_out() {
        let ns = |hours: i64, minutes: i64, us: i64| ((hours * 60 + minutes) * 60_000_000 + us) * 1000;
        let whole = IntervalMonthDayNano::new(14, 3, ns(4, 5, 6_789_123));
        let check = |modifier: Modifier, months, days, nanoseconds| {
            let expected = IntervalMonthDayNano::new(months, days, nanoseconds);
            assert_eq!(modifier.round_interval(whole), Some(expected), "{modifier:?}");
        };
        check(interval(Some(Year), None), 12, 0, 0);
        check(interval(Some(YearToMonth), None), 14, 0, 0);
        check(interval(Some(Day), None), 14, 3, 0);
        check(interval(Some(DayToHour), None), 14, 3, ns(4, 0, 0));
        check(interval(Some(HourToMinute), None), 14, 3, ns(4, 5, 0));
        check(interval(Some(Second), Some(1)), 14, 3, ns(4, 5, 6_800_000));
        check(interval(None, Some(0)), 14, 3, ns(4, 5, 7_000_000));
        assert_eq!(interval(Some(HourToMinute), None).with_unit("90"), "90 minute");
        assert_eq!(interval(Some(HourToMinute), None).with_unit("1:30"), "1:30");
    }
}
