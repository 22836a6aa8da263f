//! A chunk's description as files hold it: rkyv, versioned by type, never changed in place. Types are named by their
//! SQL text, which `proto` parses back.

use meridian_proto::schema::{Column, TableSchema};
use meridian_proto::{ColumnId, SchemaVersion, SqlType};
use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::scan::SortKey;

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SchemaV1 {
    pub version: u32,
    pub columns: Vec<ColumnV1>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ColumnV1 {
    pub id: u16,
    pub name: String,
    pub sql_type: String,
    pub not_null: bool,
    pub default: Option<String>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SortKeyV1 {
    pub segment_by: Vec<u16>,
    pub time: Option<u16>,
}

/// Body of a chunk spec record in the WAL.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SpecV1 {
    pub table: u32,
    pub schema: SchemaV1,
    pub sort: SortKeyV1,
}

impl From<&TableSchema> for SchemaV1 {
    fn from(schema: &TableSchema) -> Self {
        let columns = schema.columns.iter().map(|column| ColumnV1 {
            id: column.id.0,
            name: column.name.clone(),
            sql_type: column.sql_type.to_string(),
            not_null: column.not_null,
            default: column.default.clone(),
        });
        Self { version: schema.version.0, columns: columns.collect() }
    }
}

impl SchemaV1 {
    /// `None` when a type's name is unknown.
    #[must_use]
    pub fn schema(&self) -> Option<TableSchema> {
        let columns = self.columns.iter().map(|column| {
            Some(Column {
                id: ColumnId(column.id),
                name: column.name.clone(),
                sql_type: SqlType::parse(&column.sql_type)?,
                not_null: column.not_null,
                default: column.default.clone(),
                modifier: None,
            })
        });
        Some(TableSchema { version: SchemaVersion(self.version), columns: columns.collect::<Option<_>>()? })
    }
}

impl From<&SortKey> for SortKeyV1 {
    fn from(sort: &SortKey) -> Self {
        Self { segment_by: sort.segment_by.iter().map(|id| id.0).collect(), time: sort.time.map(|id| id.0) }
    }
}

impl SortKeyV1 {
    #[must_use]
    pub fn sort(&self) -> SortKey {
        SortKey { segment_by: self.segment_by.iter().map(|id| ColumnId(*id)).collect(), time: self.time.map(ColumnId) }
    }
}

/// Bytes of a stored value.
#[must_use]
pub fn to_bytes<T>(value: &T) -> AlignedVec
where
    T: for<'a> Serialize<
        rkyv::api::high::HighSerializer<AlignedVec, rkyv::ser::allocator::ArenaHandle<'a>, rancor::Error>,
    >,
{
    rkyv::to_bytes::<rancor::Error>(value).expect("plain values are always archived: memory is the only limit")
}

/// The stored value in bytes from outside, wherever they lie; validated.
pub fn from_bytes<T>(bytes: &[u8]) -> Result<T, String>
where
    T: Archive,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, rancor::Error>>
        + Deserialize<T, rkyv::api::high::HighDeserializer<rancor::Error>>,
{
    let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    rkyv::from_bytes::<T, rancor::Error>(&aligned).map_err(|error| error.to_string())
}
