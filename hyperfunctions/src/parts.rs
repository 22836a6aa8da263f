//! Parts of dates and times: `date_part`, a double precision, and `extract`, a numeric with the digits that PostgreSQL
//! gives each part (`timestamp_part_common` and `interval_part_common` in timestamp.c).
//!
//! Of an infinite time only parts that grow with it are known: they are infinite, too. A numeric of ours cannot be.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array};
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use meridian_proto::calendar::{date_of, days_of, weekday};
use meridian_proto::time::US_PER_DAY;

use crate::arithmetic::decimal_to_double;

/// Days from Julian day 0 to 1970-01-01.
const JULIAN_EPOCH: i64 = 2_440_588;
const PRECISION: u8 = 38;

/// A unit of time as SQL names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Unit {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    DayOfWeek,
    IsoDayOfWeek,
    DayOfYear,
    IsoYear,
    Julian,
    Epoch,
}

impl Unit {
    /// By PostgreSQL's names (`deltatktbl` and `datetktbl` in datetime.c).
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name.trim().to_ascii_lowercase().as_str() {
            "microsecond" | "microseconds" | "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecon" => {
                Self::Microsecond
            }
            "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecon" => {
                Self::Millisecond
            }
            "second" | "seconds" | "s" | "sec" | "secs" => Self::Second,
            "minute" | "minutes" | "m" | "min" | "mins" => Self::Minute,
            "hour" | "hours" | "h" | "hr" | "hrs" => Self::Hour,
            "day" | "days" | "d" => Self::Day,
            "week" | "weeks" | "w" => Self::Week,
            "month" | "months" | "mon" | "mons" => Self::Month,
            "quarter" | "qtr" => Self::Quarter,
            "year" | "years" | "y" | "yr" | "yrs" => Self::Year,
            "decade" | "decades" | "dec" | "decs" => Self::Decade,
            "century" | "centuries" | "c" | "cent" => Self::Century,
            "millennium" | "millennia" | "mil" | "mils" => Self::Millennium,
            "dow" => Self::DayOfWeek,
            "isodow" => Self::IsoDayOfWeek,
            "doy" => Self::DayOfYear,
            "isoyear" => Self::IsoYear,
            "julian" | "j" | "jd" => Self::Julian,
            "epoch" => Self::Epoch,
            _ => return None,
        })
    }

    fn grows(self) -> bool {
        matches!(
            self,
            Self::Year | Self::Decade | Self::Century | Self::Millennium | Self::IsoYear | Self::Julian | Self::Epoch
        )
    }

    /// Digits behind the point of the unit's part of such a type.
    fn scale(self, data_type: &DataType) -> i8 {
        let is_date = *data_type == DataType::Date32;
        match self {
            Self::Second => 6,
            Self::Epoch if !is_date => 6,
            Self::Millisecond => 3,
            Self::Julian if !is_date => 20,
            _ => 0,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Part {
    is_numeric: bool,
    signature: Signature,
}

impl Part {
    fn new(is_numeric: bool) -> Self {
        Self { is_numeric, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

/// Both functions.
#[must_use]
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    [false, true].into_iter().map(|is_numeric| Arc::new(ScalarUDF::from(Part::new(is_numeric)))).collect()
}

/// `EXTRACT(unit FROM time)`.
#[must_use]
pub fn extract(args: Vec<Expr>) -> Expr {
    Arc::new(ScalarUDF::from(Part::new(true))).call(args)
}

/// The microseconds, days and intervals that functions of times compute with; `None`: of no such type.
pub(crate) fn time_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Interval(_) | DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        _ => return None,
    })
}

impl ScalarUDFImpl for Part {
    fn name(&self) -> &str {
        if self.is_numeric { "extract" } else { "date_part" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if let [unit, time] = types
            && (unit.is_string() || unit.is_null())
            && let Some(time) = time_type(time)
        {
            return Ok(vec![DataType::Utf8, time]);
        }
        let types: Vec<_> = types.iter().map(ToString::to_string).collect();
        plan_err!("function {}({}) does not exist", self.name(), types.join(", "))
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        internal_err!("the type of {} depends on its arguments", self.name())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let data_type = match (self.is_numeric, args.arg_fields, args.scalar_arguments) {
            (true, [_, time], [Some(ScalarValue::Utf8(Some(unit))), ..]) => {
                let scale = Unit::parse(unit).map_or(0, |unit| unit.scale(time.data_type()));
                DataType::Decimal128(PRECISION, scale)
            }
            (true, ..) => DataType::Decimal128(PRECISION, 6),
            (false, ..) => DataType::Float64,
        };
        Ok(Arc::new(Field::new(self.name(), data_type, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(ScalarValue::Utf8(Some(name))), time] = args.args.as_slice() else {
            return exec_err!("the unit of {} must be a constant", self.name());
        };
        let whole = matches!(time, ColumnarValue::Scalar(_));
        let times = time.to_array(if whole { 1 } else { args.number_rows })?;
        let Some(unit) = Unit::parse(name) else {
            return exec_err!("unit \"{name}\" not recognized for type {}", shown_type(times.data_type()));
        };
        let scale = unit.scale(times.data_type());
        let parts = parts(unit, &times, scale, self.is_numeric)?;
        let result: ArrayRef = if self.is_numeric {
            let numeric = |part: Option<Value>| match part {
                Some(Value::Infinity { .. }) => exec_err!("infinite numeric out of range"),
                Some(Value::Finite(value)) => Ok(Some(value)),
                None => Ok(None),
            };
            let values = parts.into_iter().map(numeric).collect::<Result<Vec<_>>>()?;
            Arc::new(Decimal128Array::from(values).with_precision_and_scale(PRECISION, scale)?)
        } else {
            let double = |value: Value| match value {
                Value::Infinity { is_negative: true } => f64::NEG_INFINITY,
                Value::Infinity { is_negative: false } => f64::INFINITY,
                Value::Finite(value) => decimal_to_double(value, scale),
            };
            Arc::new(parts.into_iter().map(|part| part.map(double)).collect::<Float64Array>())
        };
        if whole {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

enum Value {
    /// In units of the part's last digit.
    Finite(i128),
    Infinity {
        is_negative: bool,
    },
}

fn shown_type(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
        DataType::Timestamp(_, None) => "timestamp without time zone",
        DataType::Date32 => "date",
        DataType::Time64(_) => "time without time zone",
        _ => "interval",
    }
}

fn parts(unit: Unit, times: &ArrayRef, scale: i8, is_numeric: bool) -> Result<Vec<Option<Value>>> {
    let data_type = times.data_type();
    let unsupported = || {
        exec_err!("unit \"{}\" not supported for type {}", format!("{unit:?}").to_lowercase(), shown_type(data_type))
    };
    let infinite = |is_negative| unit.grows().then_some(Value::Infinity { is_negative });
    let finite = |value: i128| Some(Value::Finite(value));
    Ok(match data_type {
        DataType::Timestamp(..) => {
            let part = |us: i64| match us {
                i64::MIN | i64::MAX => infinite(us < 0),
                us => finite(timestamp_part(unit, us)),
            };
            times.as_primitive::<TimestampMicrosecondType>().iter().map(|us| us.and_then(part)).collect()
        }
        DataType::Date32 => {
            if is_numeric && clock_part(unit, 0).is_some() {
                return unsupported();
            }
            // Scaled down again where a date's part has no digits behind the point.
            let unit_scale = unit.scale(&DataType::Timestamp(TimeUnit::Microsecond, None));
            let divisor = 10_i128.pow(u32::from((unit_scale - scale).unsigned_abs()));
            let part = |days: i32| match days {
                i32::MIN | i32::MAX => infinite(days < 0),
                days => finite(date_time_part(unit, days.into(), 0) / divisor),
            };
            times.as_primitive::<Date32Type>().iter().map(|days| days.and_then(part)).collect()
        }
        DataType::Time64(_) => {
            let part = |us: i64| if unit == Unit::Epoch { Some(us.into()) } else { clock_part(unit, us) };
            if part(0).is_none() {
                return unsupported();
            }
            let times = times.as_primitive::<Time64MicrosecondType>().iter();
            times.map(|us| us.and_then(part).map(Value::Finite)).collect()
        }
        _ => {
            if interval_part(unit, IntervalMonthDayNano::ZERO).is_none() {
                return unsupported();
            }
            let intervals = times.as_primitive::<IntervalMonthDayNanoType>().iter();
            intervals.map(|i| i.and_then(|i| interval_part(unit, i)).map(Value::Finite)).collect()
        }
    })
}

fn timestamp_part(unit: Unit, us: i64) -> i128 {
    date_time_part(unit, us.div_euclid(US_PER_DAY), us.rem_euclid(US_PER_DAY))
}

/// Of a time of day, or the time of an interval; `None`: not a part of one.
fn clock_part(unit: Unit, us: i64) -> Option<i128> {
    let part = match unit {
        // With their fraction: 6 digits, 3, none.
        Unit::Second | Unit::Millisecond | Unit::Microsecond => us % 60_000_000,
        Unit::Minute => us / 60_000_000 % 60,
        Unit::Hour => us / 3_600_000_000,
        _ => return None,
    };
    Some(part.into())
}

fn date_time_part(unit: Unit, days: i64, us: i64) -> i128 {
    if let Some(part) = clock_part(unit, us) {
        return part;
    }
    let (year, month, day) = date_of(days);
    // There is no year 0: before 1 comes -1.
    let shown = |year: i64| if year > 0 { year } else { year - 1 };
    let part = match unit {
        Unit::Day => day.into(),
        Unit::Month => month.into(),
        Unit::Quarter => i64::from((month - 1) / 3 + 1),
        Unit::Year => shown(year),
        Unit::Decade => year.div_euclid(10),
        Unit::Century => count_of(year, 100),
        Unit::Millennium => count_of(year, 1000),
        Unit::DayOfWeek => weekday(days),
        Unit::IsoDayOfWeek => (weekday(days) + 6) % 7 + 1,
        Unit::DayOfYear => days - days_of(year, 1, 1) + 1,
        Unit::Week => iso_week(days).1,
        Unit::IsoYear => shown(iso_week(days).0),
        Unit::Epoch => return i128::from(days) * i128::from(US_PER_DAY) + i128::from(us),
        _ => {
            // Julian day: 20 digits behind the point.
            let unit = 10_i128.pow(20);
            let fraction = i128::from(us) * unit / i128::from(US_PER_DAY);
            return i128::from(days + JULIAN_EPOCH) * unit + fraction;
        }
    };
    part.into()
}

/// The century or millennium of a year: the first begins with year 1, the one before it is -1.
fn count_of(year: i64, years: i64) -> i64 {
    if year > 0 { (year + years - 1) / years } else { -((years - year) / years) }
}

/// Year and week by ISO 8601: the first week is that with the year's first Thursday.
pub(crate) fn iso_week(days: i64) -> (i64, i64) {
    let thursday = days - (weekday(days) + 6) % 7 + 3;
    let (year, _, _) = date_of(thursday);
    (year, (thursday - days_of(year, 1, 1)) / 7 + 1)
}

fn interval_part(unit: Unit, interval: IntervalMonthDayNano) -> Option<i128> {
    let us = interval.nanoseconds / 1000;
    let (years, months) = (interval.months / 12, interval.months % 12);
    let part = match unit {
        Unit::Day => interval.days,
        Unit::Month => months,
        Unit::Quarter => months / 3 + 1,
        Unit::Year => years,
        Unit::Decade => years / 10,
        Unit::Century => years / 100,
        Unit::Millennium => years / 1000,
        Unit::Epoch => {
            // A year is 365.25 days: counted in quarters of a day.
            let quarters = i128::from(years) * 1461 + (i128::from(months) * 30 + i128::from(interval.days)) * 4;
            return Some(quarters * i128::from(US_PER_DAY / 4) + i128::from(us));
        }
        unit => return clock_part(unit, us),
    };
    Some(part.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(year: i64, month: u32, day: u32) -> i64 {
        days_of(year, month, day)
    }

    #[test]
    fn parts_of_dates_are_postgresqls() {
        let check = |unit, days, expected| assert_eq!(date_time_part(unit, days, 0), expected, "{unit:?} of {days}");
        let day = at(2024, 2, 29);
        check(Unit::Year, day, 2024);
        check(Unit::Quarter, day, 1);
        check(Unit::Week, day, 9);
        check(Unit::DayOfYear, day, 60);
        check(Unit::DayOfWeek, day, 4);
        check(Unit::IsoDayOfWeek, at(2024, 3, 3), 7);
        check(Unit::Century, at(2000, 12, 31), 20);
        check(Unit::Century, at(2001, 1, 1), 21);
        check(Unit::Century, at(0, 1, 1), -1);
        check(Unit::Millennium, at(2001, 1, 1), 3);
        check(Unit::Year, at(0, 1, 1), -1);
        check(Unit::Decade, at(-1, 1, 1), -1);
        check(Unit::IsoYear, at(2021, 1, 3), 2020);
        check(Unit::Week, at(2021, 1, 3), 53);
        check(Unit::Julian, at(2006, 2, 3), 2_453_770 * 10_i128.pow(20));
        check(Unit::Epoch, 1, 86_400_000_000);
    }

    #[test]
    fn an_intervals_epoch_counts_years_of_365_and_a_quarter_days() {
        let interval = IntervalMonthDayNano::new(14, 3, 14_706_000_000_000);
        assert_eq!(interval_part(Unit::Epoch, interval), Some(37_015_506_000_000));
        assert_eq!(interval_part(Unit::Month, interval), Some(2));
        assert_eq!(interval_part(Unit::Second, interval), Some(6_000_000));
        assert_eq!(interval_part(Unit::Hour, interval), Some(4));
        assert_eq!(interval_part(Unit::DayOfWeek, interval), None);
    }

    #[test]
    fn extract_has_the_digits_of_its_unit() {
        let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
        assert_eq!(Unit::Epoch.scale(&timestamp), 6);
        assert_eq!(Unit::Epoch.scale(&DataType::Date32), 0);
        assert_eq!(Unit::parse("MILLISECONDS").map(|unit| unit.scale(&timestamp)), Some(3));
        assert_eq!(Unit::parse("fortnight"), None);
    }
}
