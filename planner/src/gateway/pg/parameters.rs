//! Parameters of a Bind into values.
//!
//! Clients declare types that we do not hold in columns, because PostgreSQL's catalogs have them. Such a value is read
//! as the type that it is written like.

use bytes::Bytes;
use datafusion::common::ScalarValue;
use meridian_pgtypes::{Format, ValueError, from_binary, from_text};
use meridian_proto::SqlType;

use crate::error::SqlError;

const OID_JSON: u32 = 114;

/// The type that a client declared by OID; `None` where it left the choice to us or named one that we do not know.
pub fn declared_type(oid: u32) -> Option<SqlType> {
    Some(match oid {
        16 => SqlType::Bool,
        17 => SqlType::Bytea,
        20 => SqlType::Int8,
        21 => SqlType::Int2,
        23 => SqlType::Int4,
        // "char", name, text, xml, cstring, bpchar
        18 | 19 | 25 | 142 | 2275 | 1042 => SqlType::Text,
        _ if is_oid(oid) => SqlType::Int8,
        700 => SqlType::Float4,
        701 => SqlType::Float8,
        1043 => SqlType::Varchar(None),
        1082 => SqlType::Date,
        1083 => SqlType::Time,
        1114 => SqlType::Timestamp,
        1184 => SqlType::Timestamptz,
        1186 => SqlType::Interval,
        1700 => SqlType::Numeric(None),
        2950 => SqlType::Uuid,
        OID_JSON | 3802 => SqlType::Jsonb,
        _ => SqlType::Array(Box::new(array_element(oid)?)),
    })
}

/// oid and its aliases: regproc, xid, cid, regclass, regtype, regnamespace, regrole.
fn is_oid(oid: u32) -> bool {
    matches!(oid, 24 | 26 | 28 | 29 | 2205 | 2206 | 4089 | 4096)
}

fn array_element(oid: u32) -> Option<SqlType> {
    Some(match oid {
        1000 => SqlType::Bool,
        1001 => SqlType::Bytea,
        1016 => SqlType::Int8,
        1005 => SqlType::Int2,
        1007 => SqlType::Int4,
        // name[], text[], bpchar[]
        1003 | 1009 | 1014 => SqlType::Text,
        1015 => SqlType::Varchar(None),
        1021 => SqlType::Float4,
        1022 => SqlType::Float8,
        1182 => SqlType::Date,
        1183 => SqlType::Time,
        1115 => SqlType::Timestamp,
        1185 => SqlType::Timestamptz,
        1187 => SqlType::Interval,
        1231 => SqlType::Numeric(None),
        2951 => SqlType::Uuid,
        3807 => SqlType::Jsonb,
        _ => return None,
    })
}

/// One parameter as the statement wants it. `declared`: the client's OID for it, 0 for none; the bytes follow that type.
pub fn read_parameter(
    wanted: &SqlType,
    declared: u32,
    is_binary: bool,
    bytes: Option<&Bytes>,
    format: &Format,
) -> Result<ScalarValue, SqlError> {
    let Some(bytes) = bytes else {
        return ScalarValue::try_from(&wanted.arrow()).map_err(|error| internal(&error));
    };
    let sent = declared_type(declared).unwrap_or_else(|| wanted.clone());
    let array = match (is_binary, <[u8; 4]>::try_from(&bytes[..])) {
        (true, Ok(oid)) if is_oid(declared) => from_text(&sent, u32::from_be_bytes(oid).to_string().as_bytes(), format),
        // json has no binary form of its own, jsonb's starts with a version.
        (true, _) if declared != OID_JSON => from_binary(&sent, bytes),
        _ => from_text(&sent, bytes, format),
    };
    let value = ScalarValue::try_from_array(&array?, 0).map_err(|error| internal(&error))?;
    if value.data_type() == wanted.arrow() {
        return Ok(value);
    }
    let message = || format!("parameter of type {sent} cannot be taken as {wanted}");
    value.cast_to(&wanted.arrow()).map_err(|_| SqlError::new("42804", message()))
}

fn internal(error: &datafusion::error::DataFusionError) -> SqlError {
    SqlError::new("XX000", format!("internal error: {error}"))
}

impl From<ValueError> for SqlError {
    fn from(error: ValueError) -> Self {
        let mut refused = Self::new(error.sqlstate, error.message);
        refused.detail = error.detail;
        refused.hint = error.hint;
        refused.context = error.context;
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wanted: &SqlType, declared: u32, is_binary: bool, bytes: &'static [u8]) -> Result<ScalarValue, String> {
        let bytes = Bytes::from_static(bytes);
        read_parameter(wanted, declared, is_binary, Some(&bytes), &Format::default()).map_err(|error| error.sqlstate)
    }

    #[test]
    fn our_own_types_are_known_by_their_oids() {
        let scalars = [
            SqlType::Bool,
            SqlType::Int2,
            SqlType::Int4,
            SqlType::Int8,
            SqlType::Float4,
            SqlType::Float8,
            SqlType::Numeric(None),
            SqlType::Text,
            SqlType::Varchar(None),
            SqlType::Timestamptz,
            SqlType::Timestamp,
            SqlType::Date,
            SqlType::Time,
            SqlType::Interval,
            SqlType::Uuid,
            SqlType::Bytea,
            SqlType::Jsonb,
        ];
        for scalar in scalars {
            assert_eq!(declared_type(scalar.oid()), Some(scalar.clone()));
            let array = SqlType::Array(Box::new(scalar));
            assert_eq!(declared_type(array.oid()), Some(array));
        }
        assert_eq!([0, 705, 600].map(declared_type), [None, None, None]);
    }

    #[test]
    fn values_are_read_as_declared_and_given_as_wanted() {
        assert_eq!(read(&SqlType::Int4, 0, false, b"7"), Ok(ScalarValue::Int32(Some(7))));
        assert_eq!(read(&SqlType::Int4, 23, true, b"\0\0\0\x07"), Ok(ScalarValue::Int32(Some(7))));
        assert_eq!(read(&SqlType::Int8, 23, true, b"\0\0\0\x07"), Ok(ScalarValue::Int64(Some(7))));
        assert_eq!(read(&SqlType::Int8, 26, true, b"\xff\0\0\0"), Ok(ScalarValue::Int64(Some(0xff00_0000))));
        assert_eq!(read(&SqlType::Int4, 0, true, b"\0\x07"), Err("08P01".to_owned()));
        assert_eq!(read(&SqlType::Int4, 0, true, b"\0\0\0\x07\0"), Err("22P03".to_owned()));
        assert_eq!(read(&SqlType::Int4, 0, false, b"x"), Err("22P02".to_owned()));
    }

    #[test]
    fn null_has_the_wanted_type() {
        let null = read_parameter(&SqlType::Float8, 0, true, None, &Format::default());
        assert_eq!(null, Ok(ScalarValue::Float64(None)));
    }
}
