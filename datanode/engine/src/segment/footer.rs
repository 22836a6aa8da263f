//! The footer: columns, sort key, row groups, pages, zone maps. Serialised with rkyv, so that it is checked once when a
//! file is opened and then read in place.

use meridian_proto::ids::ColumnId;
use meridian_proto::types::SqlType;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Serialize};

use super::ROW_GROUP_ROWS_LIMIT;
use super::encoding::Encoding;
use super::format::HEADER_BYTES;
use super::page::{PAGE_CHECKSUM_BYTES, PAGE_HEADER_BYTES};
use super::zone::Zone;

/// The longest name of a type, `numeric(38,-37)[]` and the like. Bounds the recursion of its parser.
const TYPE_NAME_BYTES_MAX: usize = 64;

/// Contents of a file of format version 1.
#[derive(Clone, Debug, Archive, Serialize)]
pub struct FooterV1 {
    /// In the order of the table's schema when the file was written.
    pub columns: Vec<FooterColumn>,
    pub segment_by: Vec<u16>,
    pub time_column: Option<u16>,
    pub rows: u64,
    /// Whether rows carry commit timestamps; those of staged runs do not.
    pub has_commits: bool,
    pub row_groups: Vec<FooterRowGroup>,
}

#[derive(Clone, Debug, Archive, Serialize)]
pub struct FooterColumn {
    pub id: u16,
    /// As `SqlType` prints it.
    pub sql_type: String,
}

#[derive(Clone, Debug, Archive, Serialize)]
pub struct FooterRowGroup {
    pub rows: u32,
    /// Range of the time column, both ends inclusive; absent without one or when all times are NULL.
    pub time: Option<FooterRange>,
    /// Range of the commit timestamps, both ends inclusive.
    pub commits: Option<FooterCommits>,
    /// One per column.
    pub pages: Vec<FooterPage>,
}

#[derive(Clone, Copy, Debug, Archive, Serialize)]
pub struct FooterRange {
    pub min: i64,
    pub max: i64,
}

#[derive(Clone, Debug, Archive, Serialize)]
pub struct FooterCommits {
    pub min: u64,
    pub max: u64,
    /// Absent when all are the same.
    pub page: Option<FooterPage>,
}

#[derive(Clone, Debug, Archive, Serialize)]
pub struct FooterPage {
    /// In the file.
    pub offset: u64,
    /// With header and checksum.
    pub bytes: u32,
    pub encoding: u8,
    pub null_count: u32,
    pub zone: Zone,
}

/// A footer that was validated.
pub struct Footer {
    bytes: AlignedVec,
    columns: Vec<(ColumnId, SqlType)>,
}

impl FooterV1 {
    pub fn encode(&self) -> Result<AlignedVec, rkyv::rancor::Error> {
        rkyv::to_bytes(self)
    }
}

impl Footer {
    /// Validates the bytes: the archive itself, then that every page lies between the header and `pages_end`.
    pub fn decode(bytes: &[u8], pages_end: u64) -> Result<Self, String> {
        let mut aligned = AlignedVec::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        let archived = rkyv::access::<ArchivedFooterV1, rkyv::rancor::Error>(&aligned)
            .map_err(|error| format!("the footer is not valid: {error}"))?;
        let columns = columns(archived)?;
        check_row_groups(archived, pages_end)?;
        Ok(Self { bytes: aligned, columns })
    }

    /// The footer in place.
    pub fn get(&self) -> &ArchivedFooterV1 {
        // SAFETY: `decode` validated exactly these bytes, and nothing changes them.
        unsafe { rkyv::access_unchecked::<ArchivedFooterV1>(&self.bytes) }
    }

    /// Columns in the order of pages.
    pub fn columns(&self) -> &[(ColumnId, SqlType)] {
        &self.columns
    }

    /// Bytes in memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.columns.len() * size_of::<(ColumnId, SqlType)>()
    }
}

fn columns(footer: &ArchivedFooterV1) -> Result<Vec<(ColumnId, SqlType)>, String> {
    let mut columns = Vec::with_capacity(footer.columns.len());
    for column in footer.columns.iter() {
        let name = column.sql_type.as_str();
        let sql_type = if name.len() <= TYPE_NAME_BYTES_MAX { SqlType::parse(name) } else { None };
        let sql_type = sql_type.ok_or_else(|| format!("column {} has the unknown type {name:?}", column.id))?;
        columns.push((ColumnId(column.id.to_native()), sql_type));
    }
    Ok(columns)
}

fn check_row_groups(footer: &ArchivedFooterV1, pages_end: u64) -> Result<(), String> {
    let mut rows = 0;
    for (number, group) in footer.row_groups.iter().enumerate() {
        let wrong = |what: &str| Err(format!("row group {number} {what}"));
        rows += u64::from(group.rows.to_native());
        if group.rows == 0 || group.rows > ROW_GROUP_ROWS_LIMIT as u32 {
            return wrong("has an impossible number of rows");
        }
        if group.pages.len() != footer.columns.len() || group.commits.is_some() != footer.has_commits {
            return wrong("has not one page for each column");
        }
        let commits = group.commits.as_ref().and_then(|commits| commits.page.as_ref());
        if !group.pages.iter().chain(commits).all(|page| is_inside(page, pages_end)) {
            return wrong("has a page outside the file");
        }
    }
    if rows != footer.rows { Err("the row groups have not as many rows as the file".to_owned()) } else { Ok(()) }
}

fn is_inside(page: &ArchivedFooterPage, pages_end: u64) -> bool {
    let (offset, bytes) = (page.offset.to_native(), u64::from(page.bytes.to_native()));
    offset >= HEADER_BYTES as u64
        && bytes >= (PAGE_HEADER_BYTES + PAGE_CHECKSUM_BYTES) as u64
        && offset.checked_add(bytes).is_some_and(|end| end <= pages_end)
        && Encoding::from_code(page.encoding).is_some()
}
