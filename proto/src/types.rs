//! SQL types and how they are held: SQL -> Arrow -> page.
//!
//! | SQL | Arrow | note |
//! |---|---|---|
//! | boolean | Boolean | |
//! | smallint, integer, bigint | Int16, Int32, Int64 | |
//! | real, double precision | Float32, Float64 | |
//! | numeric(p,s) | Decimal128(p,s) | |
//! | numeric | Decimal128(38,16) | a value that needs more digits is refused, never rounded |
//! | text, varchar(n), char(n) | Utf8 | char(n) without the spaces at its end |
//! | timestamptz, timestamp | Timestamp(us, UTC), Timestamp(us) | infinities at the ends of i64 |
//! | date | Date32 | infinities at the ends of i32 |
//! | time | Time64(us) | |
//! | interval | Interval(MonthDayNano) | |
//! | uuid | FixedSizeBinary(16) | |
//! | bytea | Binary | |
//! | jsonb | Utf8 | PostgreSQL's normal form |
//! | T[] | List(T) | one dimension |

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};

/// A column's SQL type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SqlType {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// Precision and scale, or `None` for a numeric without limits of its own.
    Numeric(Option<(u8, i8)>),
    Text,
    /// Length in characters, or `None`.
    Varchar(Option<u32>),
    /// Length in characters; values are held without the spaces at their end, and shown padded.
    Char(u32),
    Timestamptz,
    Timestamp,
    Date,
    Time,
    Interval,
    Uuid,
    Bytea,
    Jsonb,
    Array(Box<SqlType>),
}

/// Key of the Arrow field metadata that holds the SQL type's name, where the Arrow type alone does not tell it.
pub const SQL_TYPE_KEY: &str = "meridian.type";
/// Precision and scale of a `numeric` that was declared without them.
pub const NUMERIC_UNLIMITED: (u8, i8) = (38, 16);
/// Time zone of every timestamptz array; sessions render in their own.
pub const UTC: &str = "UTC";

impl SqlType {
    /// The Arrow type that holds a column of this type.
    #[must_use]
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 => DataType::Int64,
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Numeric(limits) => {
                let (precision, scale) = limits.unwrap_or(NUMERIC_UNLIMITED);
                DataType::Decimal128(precision, scale)
            }
            Self::Text | Self::Varchar(_) | Self::Char(_) | Self::Jsonb => DataType::Utf8,
            Self::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from(UTC))),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::Bytea => DataType::Binary,
            Self::Array(element) => DataType::List(Arc::new(Field::new("item", element.arrow(), true))),
        }
    }

    /// An Arrow field of this type that remembers its SQL type.
    #[must_use]
    pub fn field(&self, name: &str, nullable: bool) -> Field {
        Field::new(name, self.arrow(), nullable).with_metadata([(SQL_TYPE_KEY.to_owned(), self.to_string())].into())
    }

    /// The SQL type of an Arrow field: the one it remembers, else the natural one of its Arrow type.
    ///
    /// `None` for Arrow types that no SQL type of ours is held in.
    #[must_use]
    pub fn of_field(field: &Field) -> Option<Self> {
        if let Some(name) = field.metadata().get(SQL_TYPE_KEY)
            && let Some(sql_type) = Self::parse(name)
            && sql_type.arrow() == *field.data_type()
        {
            return Some(sql_type);
        }
        Self::of_arrow(field.data_type())
    }

    /// The natural SQL type of an Arrow type.
    #[must_use]
    pub fn of_arrow(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Bool,
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => Self::Int2,
            DataType::UInt16 | DataType::Int32 => Self::Int4,
            DataType::UInt32 | DataType::Int64 => Self::Int8,
            DataType::UInt64 => Self::Numeric(Some((20, 0))),
            DataType::Float16 | DataType::Float32 => Self::Float4,
            DataType::Float64 => Self::Float8,
            DataType::Decimal128(p, s) => Self::Numeric(Some((*p, *s))),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Self::Text,
            DataType::Timestamp(_, Some(_)) => Self::Timestamptz,
            DataType::Timestamp(_, None) => Self::Timestamp,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Time32(_) | DataType::Time64(_) => Self::Time,
            DataType::Interval(_) | DataType::Duration(_) => Self::Interval,
            DataType::FixedSizeBinary(16) => Self::Uuid,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Self::Bytea,
            DataType::List(f) | DataType::LargeList(f) => Self::Array(Box::new(Self::of_field(f)?)),
            DataType::Dictionary(_, value) => Self::of_arrow(value)?,
            _ => return None,
        })
    }

    /// PostgreSQL's OID of the type (`pg_type.oid`).
    #[must_use]
    pub fn oid(&self) -> u32 {
        match self {
            Self::Bool => 16,
            Self::Bytea => 17,
            Self::Int8 => 20,
            Self::Int2 => 21,
            Self::Int4 => 23,
            Self::Text => 25,
            Self::Float4 => 700,
            Self::Float8 => 701,
            Self::Char(_) => 1042,
            Self::Varchar(_) => 1043,
            Self::Date => 1082,
            Self::Time => 1083,
            Self::Timestamp => 1114,
            Self::Timestamptz => 1184,
            Self::Interval => 1186,
            Self::Numeric(_) => 1700,
            Self::Uuid => 2950,
            Self::Jsonb => 3802,
            Self::Array(element) => match **element {
                Self::Bool => 1000,
                Self::Bytea => 1001,
                Self::Int8 => 1016,
                Self::Int2 => 1005,
                Self::Int4 => 1007,
                Self::Text | Self::Array(_) => 1009,
                Self::Float4 => 1021,
                Self::Float8 => 1022,
                Self::Char(_) => 1014,
                Self::Varchar(_) => 1015,
                Self::Date => 1182,
                Self::Time => 1183,
                Self::Timestamp => 1115,
                Self::Timestamptz => 1185,
                Self::Interval => 1187,
                Self::Numeric(_) => 1231,
                Self::Uuid => 2951,
                Self::Jsonb => 3807,
            },
        }
    }

    /// PostgreSQL's type modifier (`pg_attribute.atttypmod`), -1 for none.
    #[must_use]
    pub fn typmod(&self) -> i32 {
        match self {
            Self::Numeric(Some((precision, scale))) => ((i32::from(*precision) << 16) | i32::from(*scale)) + 4,
            Self::Varchar(Some(length)) | Self::Char(length) => i32::try_from(*length).map_or(-1, |n| n + 4),
            Self::Array(element) => element.typmod(),
            _ => -1,
        }
    }

    /// PostgreSQL's size of a value in bytes (`pg_type.typlen`), -1 for a variable one.
    #[must_use]
    pub fn typlen(&self) -> i16 {
        match self {
            Self::Bool => 1,
            Self::Int2 => 2,
            Self::Int4 | Self::Float4 | Self::Date => 4,
            Self::Int8 | Self::Float8 | Self::Timestamp | Self::Timestamptz | Self::Time => 8,
            Self::Interval | Self::Uuid => 16,
            _ => -1,
        }
    }

    /// Parses a name as [`fmt::Display`] prints it, or one of PostgreSQL's short names (`int4`, `timestamptz`, `_int4` not).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        if let Some(element) = name.strip_suffix("[]") {
            return Some(Self::Array(Box::new(Self::parse(element)?)));
        }
        let (base, args) = match name.split_once('(') {
            Some((base, rest)) => (base.trim_end(), Some(rest.strip_suffix(')')?)),
            None => (name.as_str(), None),
        };
        let length = || args.map(|a| a.trim().parse::<u32>()).transpose().ok();
        Some(match (base, args) {
            ("boolean" | "bool", None) => Self::Bool,
            ("smallint" | "int2", None) => Self::Int2,
            ("integer" | "int" | "int4", None) => Self::Int4,
            ("bigint" | "int8", None) => Self::Int8,
            ("real" | "float4", None) => Self::Float4,
            ("double precision" | "float8", None) => Self::Float8,
            ("numeric" | "decimal", None) => Self::Numeric(None),
            ("numeric" | "decimal", Some(args)) => {
                let (precision, scale) = args.split_once(',').unwrap_or((args, "0"));
                let limits = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
                Self::Numeric(Some(limits))
            }
            ("text", None) => Self::Text,
            ("character varying" | "varchar", _) => Self::Varchar(length()?),
            ("character" | "char" | "bpchar", _) => Self::Char(length()?.unwrap_or(1)),
            ("timestamp with time zone" | "timestamptz", None) => Self::Timestamptz,
            ("timestamp without time zone" | "timestamp", None) => Self::Timestamp,
            ("date", None) => Self::Date,
            ("time without time zone" | "time", None) => Self::Time,
            ("interval", None) => Self::Interval,
            ("uuid", None) => Self::Uuid,
            ("bytea", None) => Self::Bytea,
            ("jsonb", None) => Self::Jsonb,
            _ => return None,
        })
    }

    /// Whether a hypertable can have its time dimension on a column of this type.
    #[must_use]
    pub fn is_time(&self) -> bool {
        matches!(self, Self::Timestamptz | Self::Timestamp | Self::Date | Self::Int2 | Self::Int4 | Self::Int8)
    }
}

/// The name that PostgreSQL's `format_type` gives.
impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("boolean"),
            Self::Int2 => f.write_str("smallint"),
            Self::Int4 => f.write_str("integer"),
            Self::Int8 => f.write_str("bigint"),
            Self::Float4 => f.write_str("real"),
            Self::Float8 => f.write_str("double precision"),
            Self::Numeric(None) => f.write_str("numeric"),
            Self::Numeric(Some((precision, scale))) => write!(f, "numeric({precision},{scale})"),
            Self::Text => f.write_str("text"),
            Self::Varchar(None) => f.write_str("character varying"),
            Self::Varchar(Some(length)) => write!(f, "character varying({length})"),
            Self::Char(length) => write!(f, "character({length})"),
            Self::Timestamptz => f.write_str("timestamp with time zone"),
            Self::Timestamp => f.write_str("timestamp without time zone"),
            Self::Date => f.write_str("date"),
            Self::Time => f.write_str("time without time zone"),
            Self::Interval => f.write_str("interval"),
            Self::Uuid => f.write_str("uuid"),
            Self::Bytea => f.write_str("bytea"),
            Self::Jsonb => f.write_str("jsonb"),
            Self::Array(element) => write!(f, "{element}[]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_parsed_from_its_own_name() {
        for sql_type in [
            SqlType::Bool,
            SqlType::Numeric(Some((12, 2))),
            SqlType::Numeric(None),
            SqlType::Varchar(Some(10)),
            SqlType::Varchar(None),
            SqlType::Char(3),
            SqlType::Timestamptz,
            SqlType::Array(Box::new(SqlType::Int4)),
            SqlType::Uuid,
        ] {
            assert_eq!(SqlType::parse(&sql_type.to_string()), Some(sql_type.clone()));
            assert_eq!(SqlType::of_field(&sql_type.field("c", true)), Some(sql_type));
        }
        assert_eq!(SqlType::parse("geometry"), None);
        assert_eq!(SqlType::parse("numeric(12"), None);
    }

    #[test]
    fn type_modifiers_are_postgresqls() {
        assert_eq!(SqlType::Numeric(Some((12, 2))).typmod(), 786_438);
        assert_eq!(SqlType::Varchar(Some(10)).typmod(), 14);
        assert_eq!(SqlType::Text.typmod(), -1);
    }
}
