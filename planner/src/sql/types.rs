//! Type names as written, to our types.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, CharacterLength, DataType, ExactNumberInfo, TimezoneInfo};
use meridian_proto::SqlType;
use meridian_proto::modifier::{DIGITS_MAX, Fields, Modifier};

use crate::error::SqlError;

/// The schema of rows that a gateway makes itself.
pub(crate) fn row_schema(columns: &[(&str, SqlType)]) -> SchemaRef {
    let field = |(name, sql_type): &(&str, SqlType)| sql_type.field(name, true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

const NUMERIC_DIGITS_MAX: u64 = 38;
const VARCHAR_LENGTH_MAX: u64 = 10_485_760;

/// The SQL type of a type name.
pub(crate) fn sql_type(data_type: &DataType) -> Result<SqlType, SqlError> {
    Ok(match data_type {
        DataType::Bool | DataType::Boolean => SqlType::Bool,
        DataType::Int2(None) | DataType::SmallInt(None) => SqlType::Int2,
        DataType::Int(None) | DataType::Int4(None) | DataType::Integer(None) => SqlType::Int4,
        DataType::Int8(None) | DataType::BigInt(None) => SqlType::Int8,
        DataType::Float4 | DataType::Real => SqlType::Float4,
        DataType::Float8 | DataType::DoublePrecision => SqlType::Float8,
        DataType::Float(precision) => float(*precision)?,
        DataType::Numeric(limits) | DataType::Decimal(limits) | DataType::Dec(limits) => numeric(*limits)?,
        DataType::Text => SqlType::Text,
        DataType::Varchar(length) | DataType::CharacterVarying(length) | DataType::CharVarying(length) => {
            SqlType::Varchar(character_length(*length)?)
        }
        DataType::Char(length) | DataType::Character(length) => SqlType::Char(character_length(*length)?.unwrap_or(1)),
        DataType::Timestamp(_, zone) => match zone {
            TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => SqlType::Timestamp,
            TimezoneInfo::WithTimeZone | TimezoneInfo::Tz => SqlType::Timestamptz,
        },
        DataType::Date => SqlType::Date,
        DataType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => SqlType::Time,
        DataType::Time(..) => {
            return Err(SqlError::unsupported("type time with time zone is not supported")
                .with_hint("Use timestamp with time zone."));
        }
        DataType::Interval { .. } => SqlType::Interval,
        DataType::Uuid => SqlType::Uuid,
        DataType::Bytea => SqlType::Bytea,
        DataType::JSONB => SqlType::Jsonb,
        DataType::JSON => {
            return Err(SqlError::unsupported("type json is not supported").with_hint("Use jsonb."));
        }
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) if modifier(element)?.is_some() => {
            let element = element.to_string().to_ascii_lowercase();
            return Err(SqlError::unsupported(format!("arrays of type {element} are not supported"))
                .with_hint("Leave out the digits: arrays keep microseconds."));
        }
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => match sql_type(element)? {
            // PostgreSQL does not tell int[][] from int[] either, but its values may have any number of dimensions.
            SqlType::Array(_) => return Err(SqlError::unsupported("arrays of several dimensions are not supported")),
            element => SqlType::Array(Box::new(element)),
        },
        DataType::Custom(name, arguments) => custom(&name.to_string(), arguments)?,
        other => return Err(unknown(&other.to_string())),
    })
}

fn custom(name: &str, arguments: &[String]) -> Result<SqlType, SqlError> {
    let folded = name.to_ascii_lowercase();
    let folded = folded.strip_prefix("pg_catalog.").unwrap_or(&folded);
    if matches!(folded, "serial" | "bigserial" | "smallserial" | "serial4" | "serial8" | "serial2") {
        return Err(SqlError::unsupported(format!("type {folded} is not supported"))
            .with_hint("Sequences are not supported; use an integer type, and a time column as the key."));
    }
    let element = folded.strip_prefix('_');
    if let Some(element) = element.and_then(SqlType::parse) {
        return Ok(SqlType::Array(Box::new(element)));
    }
    let text = if arguments.is_empty() { folded.to_owned() } else { format!("{folded}({})", arguments.join(",")) };
    if folded == "bpchar" && arguments.is_empty() {
        return Ok(SqlType::Text);
    }
    SqlType::parse(&text).ok_or_else(|| unknown(name))
}

pub(crate) fn unknown(name: &str) -> SqlError {
    let name = name.to_ascii_lowercase();
    SqlError::new("42704", format!("type \"{}\" does not exist", name.trim_matches('"')))
}

fn float(precision: ExactNumberInfo) -> Result<SqlType, SqlError> {
    match precision {
        ExactNumberInfo::None => Ok(SqlType::Float8),
        ExactNumberInfo::Precision(1..=24) => Ok(SqlType::Float4),
        ExactNumberInfo::Precision(25..=53) => Ok(SqlType::Float8),
        ExactNumberInfo::Precision(0) => Err(SqlError::new("22023", "precision for type float must be at least 1 bit")),
        _ => Err(SqlError::new("22023", "precision for type float must be less than 54 bits")),
    }
}

fn numeric(limits: ExactNumberInfo) -> Result<SqlType, SqlError> {
    let (precision, scale) = match limits {
        ExactNumberInfo::None => return Ok(SqlType::Numeric(None)),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    if !(1..=1000).contains(&precision) {
        let message = format!("NUMERIC precision {precision} must be between 1 and 1000");
        return Err(SqlError::new("22023", message));
    }
    if precision > NUMERIC_DIGITS_MAX {
        return Err(SqlError::unsupported(format!(
            "numeric with more than {NUMERIC_DIGITS_MAX} digits is not supported"
        )));
    }
    match i8::try_from(scale) {
        Ok(scale) if scale >= 0 && scale.unsigned_abs() <= precision as u8 => {
            Ok(SqlType::Numeric(Some((precision as u8, scale))))
        }
        _ => Err(SqlError::unsupported(format!("numeric scale {scale} must be between 0 and its precision"))),
    }
}

fn character_length(length: Option<CharacterLength>) -> Result<Option<u32>, SqlError> {
    match length {
        None => Ok(None),
        Some(CharacterLength::IntegerLength { length: 0, .. }) => {
            Err(SqlError::new("22023", "length for type varchar must be at least 1"))
        }
        Some(CharacterLength::IntegerLength { length, .. }) if length <= VARCHAR_LENGTH_MAX => Ok(Some(length as u32)),
        Some(_) => Err(SqlError::new("22023", "length for type varchar cannot exceed 10485760")),
    }
}

/// The type modifier of a time type's name.
pub(crate) fn modifier(data_type: &DataType) -> Result<Option<Modifier>, SqlError> {
    let of = |digits: &Option<u64>| digits.map(|digits| Modifier::Digits(kept_digits(digits)));
    Ok(match data_type {
        DataType::Timestamp(digits, _) | DataType::Time(digits, _) => of(digits),
        DataType::Interval { fields: None, precision: None } => None,
        DataType::Interval { fields, precision } => {
            let fields = fields.as_ref().map(|fields| interval_fields(&fields.to_string())).transpose()?;
            Some(Modifier::Interval { fields, digits: precision.map(kept_digits) })
        }
        _ => None,
    })
}

/// PostgreSQL takes more digits than there are for the most that it has.
fn kept_digits(digits: u64) -> u8 {
    u8::try_from(digits).unwrap_or(DIGITS_MAX).min(DIGITS_MAX)
}

fn interval_fields(name: &str) -> Result<Fields, SqlError> {
    Fields::parse(name).ok_or_else(|| SqlError::new("42601", format!("syntax error at or near \"{name}\"")))
}

/// The field of a cast to a type of that name.
pub(crate) fn cast_field(data_type: &DataType) -> Result<Field, SqlError> {
    let field = sql_type(data_type)?.field("cast", true);
    Ok(match modifier(data_type)? {
        Some(modifier) => modifier.mark(field),
        None => field,
    })
}
