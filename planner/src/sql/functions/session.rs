//! Functions about the session and its time: `current_setting`, `version`, `now` and the like. Each statement has its
//! own, which know its environment; what cannot change while it runs is worked out while planning.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Field, Float64Type, TimeUnit};
use async_trait::async_trait;
use datafusion::common::types::{NativeType, logical_float64, logical_string};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    Coercion, ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignatureClass, Volatility,
};
use meridian_proto::SqlType;
use meridian_proto::time::US_PER_DAY;

use crate::error::SqlError;
use crate::settings::SERVER_VERSION;
use crate::sql::environment::Environment;
use crate::sql::errors::external;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Version,
    Database,
    User,
    Schema,
    Setting,
    SetConfig,
    BackendPid,
    TypeOf,
    TransactionTime,
    StatementTime,
    ClockTime,
    Date,
    LocalTimestamp,
    LocalTime,
    InRecovery,
    Sleep,
}

/// The function of that name for a statement, if it is one of these.
pub(crate) fn find(name: &str, environment: &Arc<Environment>) -> Option<Arc<ScalarUDF>> {
    let kind = Kind::find(name)?;
    let function = SessionFunction {
        kind,
        name: name.to_owned(),
        environment: Arc::clone(environment),
        signature: kind.signature(),
    };
    Some(Arc::new(match kind {
        Kind::Sleep => AsyncScalarUDF::new(Arc::new(function)).into_scalar_udf(),
        _ => ScalarUDF::from(function),
    }))
}

/// Whether a name is that of one of these.
pub(crate) fn is_known(name: &str) -> bool {
    Kind::find(name).is_some()
}

/// One of these that tells the time at which its statement or transaction began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock(Kind);

impl Clock {
    pub(crate) fn find(name: &str) -> Option<Self> {
        Kind::find(name).filter(|kind| kind.is_clock()).map(Self)
    }

    pub(crate) fn data_type(self) -> DataType {
        self.0.return_type()
    }

    /// What it answers in a statement.
    pub(crate) fn value(self, environment: &Environment) -> ScalarValue {
        self.0.time(environment)
    }
}

impl Kind {
    fn find(name: &str) -> Option<Self> {
        Some(match name {
            "version" => Self::Version,
            "current_database" | "current_catalog" => Self::Database,
            "current_user" | "session_user" | "user" | "current_role" => Self::User,
            "current_schema" => Self::Schema,
            "current_setting" => Self::Setting,
            "set_config" => Self::SetConfig,
            "pg_backend_pid" => Self::BackendPid,
            "pg_typeof" => Self::TypeOf,
            "now" | "transaction_timestamp" | "current_timestamp" => Self::TransactionTime,
            "statement_timestamp" => Self::StatementTime,
            "clock_timestamp" => Self::ClockTime,
            "current_date" | "today" => Self::Date,
            "localtimestamp" => Self::LocalTimestamp,
            "localtime" => Self::LocalTime,
            "pg_is_in_recovery" => Self::InRecovery,
            "pg_sleep" => Self::Sleep,
            _ => return None,
        })
    }

    fn is_clock(self) -> bool {
        matches!(
            self,
            Self::TransactionTime | Self::StatementTime | Self::Date | Self::LocalTimestamp | Self::LocalTime
        )
    }

    /// What a clock shows; NULL of any other function.
    fn time(self, environment: &Environment) -> ScalarValue {
        let time = |us: i64| ScalarValue::TimestampMicrosecond(Some(us), Some(Arc::from("UTC")));
        let local_us = || environment.format.time_zone.to_local_us(environment.transaction_us);
        match self {
            Self::TransactionTime => time(environment.transaction_us),
            Self::StatementTime => time(environment.statement_us),
            Self::Date => ScalarValue::Date32(i32::try_from(local_us().div_euclid(US_PER_DAY)).ok()),
            Self::LocalTimestamp => ScalarValue::TimestampMicrosecond(Some(local_us()), None),
            Self::LocalTime => ScalarValue::Time64Microsecond(Some(local_us().rem_euclid(US_PER_DAY))),
            _ => ScalarValue::Null,
        }
    }
}

#[derive(Debug)]
struct SessionFunction {
    kind: Kind,
    name: String,
    environment: Arc<Environment>,
    signature: Signature,
}

impl PartialEq for SessionFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.environment, &other.environment)
    }
}

impl Eq for SessionFunction {}

impl Hash for SessionFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Kind {
    fn volatility(self) -> Volatility {
        match self {
            Self::SetConfig | Self::ClockTime | Self::Sleep => Volatility::Volatile,
            // For the one statement that has it.
            _ => Volatility::Immutable,
        }
    }

    fn signature(self) -> Signature {
        match self {
            // An asynchronous function is not asked for coercions of its own.
            Self::Sleep => {
                let sources = vec![TypeSignatureClass::Numeric, TypeSignatureClass::Native(logical_string())];
                let float = TypeSignatureClass::Native(logical_float64());
                let seconds = Coercion::new_implicit(float, sources, NativeType::Float64);
                Signature::coercible(vec![seconds], self.volatility())
            }
            _ => Signature::user_defined(self.volatility()),
        }
    }

    fn coerce(self, types: &[DataType]) -> Option<Vec<DataType>> {
        match (self, types) {
            (Self::Setting, [_]) => Some(vec![DataType::Utf8]),
            (Self::Setting, [_, _]) => Some(vec![DataType::Utf8, DataType::Boolean]),
            (Self::SetConfig, [_, _, _]) => Some(vec![DataType::Utf8, DataType::Utf8, DataType::Boolean]),
            (Self::TypeOf, [argument]) => Some(vec![argument.clone()]),
            (Self::Setting | Self::SetConfig | Self::TypeOf | Self::Sleep, _) => None,
            (_, []) => Some(vec![]),
            _ => None,
        }
    }

    fn return_type(self) -> DataType {
        match self {
            Self::BackendPid => DataType::Int32,
            Self::TransactionTime | Self::StatementTime | Self::ClockTime => SqlType::Timestamptz.arrow(),
            Self::Date => DataType::Date32,
            Self::LocalTimestamp => SqlType::Timestamp.arrow(),
            Self::LocalTime => DataType::Time64(TimeUnit::Microsecond),
            Self::InRecovery => DataType::Boolean,
            _ => DataType::Utf8,
        }
    }
}

impl ScalarUDFImpl for SessionFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match self.kind.coerce(types) {
            Some(types) => Ok(types),
            None => {
                let types: Vec<_> = types.iter().map(ToString::to_string).collect();
                plan_err!("function {}({}) does not exist", self.name, types.join(", "))
            }
        }
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.kind.return_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let environment = &self.environment;
        let text = |text: String| ScalarValue::Utf8(Some(text));
        let time = |us: i64| ScalarValue::TimestampMicrosecond(Some(us), Some(Arc::from("UTC")));
        let value = match self.kind {
            kind if kind.is_clock() => kind.time(environment),
            Kind::Version => text(version()),
            Kind::Database => text(environment.database.clone()),
            Kind::User => text(environment.user.clone()),
            Kind::Schema => text("public".to_owned()),
            Kind::Setting => return self.current_setting(&args),
            Kind::SetConfig => return self.set_config(&args),
            Kind::BackendPid => ScalarValue::Int32(Some(environment.pid)),
            Kind::TypeOf => {
                let field: Option<&Arc<Field>> = args.arg_fields.first();
                let name = field.and_then(|field| SqlType::of_field(field)).map(|sql_type| match sql_type {
                    // The name of the type without its limits.
                    SqlType::Numeric(_) => "numeric".to_owned(),
                    SqlType::Varchar(_) => "character varying".to_owned(),
                    SqlType::Char(_) => "character".to_owned(),
                    other => other.to_string(),
                });
                ScalarValue::Utf8(Some(name.unwrap_or_else(|| "unknown".to_owned())))
            }
            Kind::ClockTime => time(clock_us()),
            Kind::InRecovery => ScalarValue::Boolean(Some(false)),
            Kind::Sleep => return internal_err!("pg_sleep runs asynchronously"),
            _ => return internal_err!("{} has no value", self.name),
        };
        Ok(ColumnarValue::Scalar(value))
    }
}

/// Microseconds since 1970 by the machine's clock.
pub(crate) fn clock_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX - 1)
}

fn version() -> String {
    format!(
        "PostgreSQL {SERVER_VERSION} (Meridian {}) on {}-unknown-linux-gnu, compiled by rustc, 64-bit",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH
    )
}

impl SessionFunction {
    fn current_setting(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let names = columns[0].as_string::<i32>();
        let settings = self.environment.settings();
        let value = |row: usize| {
            if names.is_null(row) {
                return Ok(None);
            }
            let missing_ok = columns.get(1).is_some_and(|c| c.is_valid(row) && c.as_boolean().value(row));
            match settings.get(names.value(row)) {
                Ok(value) => Ok(Some(value)),
                Err(_) if missing_ok => Ok(None),
                Err(error) => Err(external(error)),
            }
        };
        let values: Vec<Option<String>> = (0..names.len()).map(value).collect::<Result<_>>()?;
        drop(settings);
        answer(args, values)
    }

    fn set_config(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let (names, values) = (columns[0].as_string::<i32>(), columns[1].as_string::<i32>());
        let locals = columns[2].as_boolean();
        let mut settings = self.environment.settings();
        let mut results = Vec::with_capacity(names.len());
        for row in 0..names.len() {
            if names.is_null(row) {
                return Err(external(SqlError::new("22004", "SET requires parameter name")));
            }
            let local = locals.is_valid(row) && locals.value(row);
            let name = names.value(row);
            let shown = if values.is_null(row) {
                settings.reset(name, local).and_then(|()| settings.get(name))
            } else {
                settings.set(name, values.value(row), local)
            };
            results.push(Some(shown.map_err(external)?));
        }
        drop(settings);
        answer(args, results)
    }
}

fn answer(args: &ScalarFunctionArgs, values: Vec<Option<String>>) -> Result<ColumnarValue> {
    let array: ArrayRef = Arc::new(StringArray::from(values));
    if args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
    }
    Ok(ColumnarValue::Array(array))
}

#[async_trait]
impl AsyncScalarUDFImpl for SessionFunction {
    /// Sleeps once per row. Cancelled by dropping it.
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(seconds) = args.args.first() else { return internal_err!("pg_sleep without its argument") };
        let seconds = seconds.to_array(args.number_rows)?;
        let seconds = seconds.as_primitive::<Float64Type>();
        for seconds in seconds.iter().flatten() {
            // A day at a time is more than enough; what is not a number does not sleep.
            let duration = Duration::try_from_secs_f64(seconds.clamp(0.0, 86_400.0)).unwrap_or_default();
            tokio::time::sleep(duration).await;
        }
        let texts: StringArray = seconds.iter().map(|seconds| seconds.map(|_| "")).collect();
        Ok(ColumnarValue::Array(Arc::new(texts)))
    }
}
