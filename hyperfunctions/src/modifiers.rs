//! Times as values of types with a modifier: `timestamp(3)`, `interval day to minute`.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, IntervalMonthDayNanoArray, Time64MicrosecondArray, TimestampMicrosecondArray};
use arrow::datatypes::{
    DataType, FieldRef, IntervalMonthDayNanoType, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use meridian_proto::SqlType;
use meridian_proto::modifier::Modifier;

static ROUND: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::from(RoundTime { signature }))
});

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::clone(&ROUND)]
}

/// A time as a value of its type with a modifier.
#[must_use]
pub fn round_time(time: Expr, modifier: Modifier) -> Expr {
    ROUND.call(vec![time, lit(modifier.typmod())])
}

/// The same of an array.
pub fn round_array(times: &ArrayRef, modifier: Modifier) -> Result<ArrayRef> {
    let out_of_range = |what: &str| DataFusionError::Execution(format!("{what} out of range"));
    Ok(match times.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let round = |us: i64| modifier.round_timestamp(us).ok_or_else(|| out_of_range("timestamp"));
            let rounded: TimestampMicrosecondArray =
                times.as_primitive::<TimestampMicrosecondType>().try_unary(round)?;
            Arc::new(rounded.with_timezone_opt(zone.clone()))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let round = |us: i64| modifier.round_time(us).ok_or_else(|| out_of_range("time"));
            let rounded: Time64MicrosecondArray = times.as_primitive::<Time64MicrosecondType>().try_unary(round)?;
            Arc::new(rounded)
        }
        DataType::Interval(_) => {
            let round = |interval| modifier.round_interval(interval).ok_or_else(|| out_of_range("interval"));
            let rounded: IntervalMonthDayNanoArray =
                times.as_primitive::<IntervalMonthDayNanoType>().try_unary(round)?;
            Arc::new(rounded)
        }
        other => return internal_err!("rounding of {other}"),
    })
}

/// `round_time(time, typmod)`
#[derive(Debug, PartialEq, Eq, Hash)]
struct RoundTime {
    signature: Signature,
}

fn modifier_of(data_type: &DataType, typmod: i32) -> Result<Modifier> {
    let sql_type = SqlType::of_arrow(data_type);
    match sql_type.and_then(|sql_type| Modifier::of_typmod(&sql_type, typmod)) {
        Some(modifier) => Ok(modifier),
        None => exec_err!("type modifier {typmod} of {data_type} is unknown"),
    }
}

impl ScalarUDFImpl for RoundTime {
    fn name(&self) -> &'static str {
        "round_time"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [DataType::Timestamp(..) | DataType::Time64(_) | DataType::Interval(_), DataType::Int32] => {
                Ok(types.to_vec())
            }
            _ => {
                let types: Vec<_> = types.iter().map(ToString::to_string).collect();
                plan_err!("function {}({}) does not exist", self.name(), types.join(", "))
            }
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [time, _] => Ok(time.clone()),
            _ => internal_err!("{} takes two arguments", self.name()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let [time, _] = args.arg_fields else { return internal_err!("{} takes two arguments", self.name()) };
        let Some(sql_type) = SqlType::of_arrow(time.data_type()) else {
            return internal_err!("{} of {}", self.name(), time.data_type());
        };
        let field = sql_type.field(self.name(), true);
        Ok(Arc::new(match args.scalar_arguments {
            [_, Some(ScalarValue::Int32(Some(typmod)))] => modifier_of(time.data_type(), *typmod)?.mark(field),
            _ => field,
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [time, ColumnarValue::Scalar(ScalarValue::Int32(Some(typmod)))] = args.args.as_slice() else {
            return internal_err!("{} without a modifier", self.name());
        };
        let whole = matches!(time, ColumnarValue::Scalar(_));
        let times = time.to_array(if whole { 1 } else { args.number_rows })?;
        let rounded = round_array(&times, modifier_of(times.data_type(), *typmod)?)?;
        if whole {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&rounded, 0)?));
        }
        Ok(ColumnarValue::Array(rounded))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::common::DFSchema;
    use datafusion::logical_expr::ExprSchemable;

    use super::*;

    #[test]
    fn a_rounded_time_keeps_its_type_and_modifier() {
        let time = lit(ScalarValue::TimestampMicrosecond(Some(1_500), None));
        let rounded = round_time(time, Modifier::Digits(3));
        let (_, field) = rounded.to_field(&DFSchema::empty()).unwrap();
        assert_eq!(Modifier::of_field(&field), Some(Modifier::Digits(3)));
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(1_501), None, Some(i64::MAX)]));
        let rounded = round_array(&times, Modifier::Digits(3)).unwrap();
        let expected = [Some(2_000), None, Some(i64::MAX)];
        assert!(rounded.as_primitive::<TimestampMicrosecondType>().iter().eq(expected));
    }
}
