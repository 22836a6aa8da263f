//! `make_date`, `make_timestamp` and their kin, and `isfinite`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, IntervalMonthDayNanoArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Float64Type, Int32Type, IntervalMonthDayNano, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use meridian_proto::calendar::{days_of, month_days};
use meridian_proto::time::US_PER_DAY;

use crate::form::{Form, functions as of_forms, texts_of};
use crate::parts::time_type;
use crate::zone::Zone;

/// 4714-11-24 BC, the first day of a date.
const DAYS_MIN: i64 = -2_440_588;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Date,
    Timestamp,
    IsFinite,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Make {
    kind: Kind,
    signature: Signature,
}

/// All of them.
#[must_use]
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |kind| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Make { kind, signature }))
    };
    let mut functions: Vec<_> = [Kind::Date, Kind::Timestamp, Kind::IsFinite].into_iter().map(function).collect();
    functions.extend(by_forms());
    functions
}

fn by_forms() -> Vec<Arc<ScalarUDF>> {
    use crate::form::Kind::{Double, Integer, Interval, Text, Time, Timestamptz};
    static INTERVAL: &[Form] = &[
        Form::new(&[], Interval, intervals),
        Form::new(&[Integer], Interval, intervals),
        Form::new(&[Integer; 2], Interval, intervals),
        Form::new(&[Integer; 3], Interval, intervals),
        Form::new(&[Integer; 4], Interval, intervals),
        Form::new(&[Integer; 5], Interval, intervals),
        Form::new(&[Integer; 6], Interval, intervals),
        Form::new(&[Integer, Integer, Integer, Integer, Integer, Integer, Double], Interval, intervals),
    ];
    static TIME: &[Form] = &[Form::new(&[Integer, Integer, Double], Time, times)];
    static TIMESTAMPTZ: &[Form] = &[
        Form::new(&[Integer, Integer, Integer, Integer, Integer, Double], Timestamptz, zoned),
        Form::new(&[Integer, Integer, Integer, Integer, Integer, Double, Text], Timestamptz, zoned),
    ];
    of_forms(&[("make_interval", INTERVAL), ("make_time", TIME), ("make_timestamptz", TIMESTAMPTZ)])
}

/// Years, months, weeks, days, hours, minutes and seconds; those that are left out are 0.
fn intervals(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let rows = columns.first().map_or(1, |column| column.len());
    let (whole, seconds) = columns.split_at(columns.len().min(6));
    let one = |row: usize| -> Result<Option<IntervalMonthDayNano>> {
        let Some(parts) = ints(whole, row) else { return Ok(None) };
        let seconds = match seconds.first().map(|seconds| seconds.as_primitive::<Float64Type>()) {
            Some(seconds) if seconds.is_null(row) => return Ok(None),
            seconds => seconds.map_or(0.0, |seconds| seconds.value(row)),
        };
        let part = |place: usize| i64::from(parts.get(place).copied().unwrap_or(0));
        let months = i32::try_from(part(0) * 12 + part(1));
        let days = i32::try_from(part(2) * 7 + part(3));
        let us = (part(4) * 60 + part(5)) as f64 * 60e6 + (seconds * 1e6).round_ties_even();
        match (months, days) {
            (Ok(months), Ok(days)) if us.abs() < 9.2e15 => {
                Ok(Some(IntervalMonthDayNano { months, days, nanoseconds: us as i64 * 1000 }))
            }
            _ => exec_err!("interval out of range"),
        }
    };
    Ok(Arc::new((0..rows).map(one).collect::<Result<IntervalMonthDayNanoArray>>()?))
}

fn times(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let seconds = columns[2].as_primitive::<Float64Type>();
    let one = |row: usize| -> Result<Option<i64>> {
        match ints(&columns[..2], row) {
            Some(parts) if seconds.is_valid(row) => time_of_day(parts[0], parts[1], seconds.value(row)).map(Some),
            _ => Ok(None),
        }
    };
    Ok(Arc::new((0..seconds.len()).map(one).collect::<Result<Time64MicrosecondArray>>()?))
}

/// A timestamptz of parts that are read on the clocks of a zone.
fn zoned(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let seconds = columns[5].as_primitive::<Float64Type>();
    let zones = columns.get(6).map(texts_of);
    let one = |row: usize| -> Result<Option<i64>> {
        let Some(parts) = ints(&columns[..5], row).filter(|_| seconds.is_valid(row)) else { return Ok(None) };
        let local_us = timestamp(&parts, seconds.value(row))?;
        let zone = match zones {
            None => Zone::UTC,
            Some(zones) if zones.is_null(row) => return Ok(None),
            Some(zones) => match Zone::parse(zones.value(row)) {
                Some(zone) => zone,
                None => return exec_err!("time zone \"{}\" not recognized", zones.value(row)),
            },
        };
        match zone.to_utc(local_us) {
            Some(us) => Ok(Some(us)),
            None => exec_err!("timestamp out of range"),
        }
    };
    let times = (0..seconds.len()).map(one).collect::<Result<TimestampMicrosecondArray>>()?;
    Ok(Arc::new(times.with_timezone("UTC")))
}

fn is_int(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int16 | DataType::Int32 | DataType::Null)
}

impl ScalarUDFImpl for Make {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Date => "make_date",
            Kind::Timestamp => "make_timestamp",
            Kind::IsFinite => "isfinite",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.kind, types) {
            (Kind::Date, [_, _, _]) if types.iter().all(is_int) => return Ok(vec![DataType::Int32; 3]),
            (Kind::Timestamp, [parts @ .., seconds])
                if parts.len() == 5 && parts.iter().all(is_int) && (seconds.is_numeric() || seconds.is_null()) =>
            {
                let mut types = vec![DataType::Int32; 5];
                types.push(DataType::Float64);
                return Ok(types);
            }
            (Kind::IsFinite, [time]) => {
                if let Some(time) = time_type(time).filter(|time| !matches!(time, DataType::Time64(_))) {
                    return Ok(vec![time]);
                }
            }
            _ => {}
        }
        let types: Vec<_> = types.iter().map(ToString::to_string).collect();
        plan_err!("function {}({}) does not exist", self.name(), types.join(", "))
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Date => DataType::Date32,
            Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Kind::IsFinite => DataType::Boolean,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let whole = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if whole { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let result: ArrayRef = match (self.kind, columns.as_slice()) {
            (Kind::Date, [_, _, _]) => Arc::new(make(&columns, rows, date)?.into_iter().collect::<Date32Array>()),
            (Kind::Timestamp, [parts @ .., seconds]) => {
                let seconds = seconds.as_primitive::<Float64Type>();
                let mut times = Vec::with_capacity(rows);
                for row in 0..rows {
                    times.push(match ints(parts, row) {
                        Some(parts) if seconds.is_valid(row) => Some(timestamp(&parts, seconds.value(row))?),
                        _ => None,
                    });
                }
                Arc::new(TimestampMicrosecondArray::from(times))
            }
            (Kind::IsFinite, [times]) => is_finite(times),
            _ => return internal_err!("{} with {} arguments", self.name(), columns.len()),
        };
        if whole {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

fn ints(columns: &[ArrayRef], row: usize) -> Option<Vec<i32>> {
    let value = |column: &ArrayRef| column.is_valid(row).then(|| column.as_primitive::<Int32Type>().value(row));
    columns.iter().map(value).collect()
}

fn make<T>(columns: &[ArrayRef], rows: usize, make_one: fn(&[i32]) -> Result<T>) -> Result<Vec<Option<T>>> {
    (0..rows).map(|row| ints(columns, row).map(|parts| make_one(&parts)).transpose()).collect()
}

/// Year, month, day. A negative year is BC; there is no year 0.
fn date(parts: &[i32]) -> Result<i32> {
    let &[year, month, day] = parts else { return internal_err!("a date of {} parts", parts.len()) };
    let astronomical = i64::from(if year < 0 { year + 1 } else { year });
    let month_of_year = u32::try_from(month).ok().filter(|month| year != 0 && (1..=12).contains(month));
    let days = month_of_year.and_then(|month| {
        let day = u32::try_from(day).ok().filter(|day| (1..=month_days(astronomical, month)).contains(day))?;
        i32::try_from(days_of(astronomical, month, day)).ok().filter(|days| i64::from(*days) >= DAYS_MIN)
    });
    match days {
        Some(days) => Ok(days),
        None => exec_err!("date field value out of range: {year}-{month:02}-{day:02}"),
    }
}

fn timestamp(parts: &[i32], seconds: f64) -> Result<i64> {
    let &[year, month, day, hour, minute] = parts else {
        return internal_err!("a timestamp of {} parts", parts.len());
    };
    let days = date(&[year, month, day])?;
    let us = time_of_day(hour, minute, seconds)?;
    match i64::from(days).checked_mul(US_PER_DAY).and_then(|midnight| midnight.checked_add(us)) {
        Some(us) if us != i64::MAX => Ok(us),
        _ => exec_err!("timestamp out of range"),
    }
}

fn time_of_day(hour: i32, minute: i32, seconds: f64) -> Result<i64> {
    let in_range = (0..=23).contains(&hour) && (0..=59).contains(&minute) && (0.0..=60.0).contains(&seconds);
    if !in_range {
        return exec_err!("time field value out of range: {hour}:{minute:02}:{seconds}");
    }
    // At most a minute: exact in microseconds.
    Ok(i64::from(hour * 60 + minute) * 60_000_000 + (seconds * 1e6).round_ties_even() as i64)
}

fn is_finite(times: &ArrayRef) -> ArrayRef {
    Arc::new(match times.data_type() {
        DataType::Timestamp(..) => BooleanArray::from_unary(times.as_primitive::<TimestampMicrosecondType>(), |us| {
            us != i64::MIN && us != i64::MAX
        }),
        DataType::Date32 => {
            BooleanArray::from_unary(times.as_primitive::<Date32Type>(), |days| days != i32::MIN && days != i32::MAX)
        }
        // No interval is infinite.
        _ => (0..times.len()).map(|row| times.is_valid(row).then_some(true)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_made_of_parts_that_exist() {
        assert_eq!(date(&[2000, 1, 1]).unwrap(), 10_957);
        assert_eq!(i64::from(date(&[-1, 1, 1]).unwrap()), days_of(0, 1, 1));
        for parts in [[0, 1, 1], [2023, 2, 29], [2024, 13, 1], [2024, 1, 0]] {
            assert!(date(&parts).is_err(), "{parts:?}");
        }
        assert_eq!(timestamp(&[1970, 1, 2, 1, 2], 3.5).unwrap(), US_PER_DAY + 3_723_500_000);
        assert!(timestamp(&[1970, 1, 1, 24, 0], 0.0).is_err());
    }
}
