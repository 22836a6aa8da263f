//! The footer: columns, sort key, row groups, pages, zone maps, and since version 3 the pieces of row groups. Serialised
//! with rkyv, so that it is checked once when a file is opened and then read in place.

use meridian_proto::ids::ColumnId;
use meridian_proto::types::SqlType;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Serialize};

use super::ROW_GROUP_ROWS_LIMIT;
use super::encoding::Encoding;
use super::format::HEADER_BYTES;
use super::page::{PAGE_CHECKSUM_BYTES, PAGE_HEADER_BYTES};
use super::zone::Zone;

/// Since when footers say where pieces lie.
const PIECES_VERSION: u32 = 3;
/// The longest name of a type, `numeric(38,-37)[]` and the like. Bounds the recursion of its parser.
const TYPE_NAME_BYTES_MAX: usize = 64;

/// Contents of a file of format version 1 or 2.
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

/// Contents of a file of format version 3.
#[derive(Clone, Debug, Archive, Serialize)]
pub struct FooterV3 {
    pub contents: FooterV1,
    /// One per row group; absent where pieces would not pay.
    pub pieces: Vec<Option<FooterPieces>>,
}

/// Runs of rows of one series and one bucket of time.
#[derive(Clone, Debug, Archive, Serialize)]
pub struct FooterPieces {
    /// Of a bucket.
    pub width_us: i64,
    pub count: u32,
    pub directory: FooterPlace,
    /// Of the columns that have statistics, in order.
    pub columns: Vec<FooterPieceColumn>,
}

#[derive(Clone, Copy, Debug, Archive, Serialize)]
pub struct FooterPieceColumn {
    /// Position among the footer's columns.
    pub position: u16,
    pub place: FooterPlace,
}

/// Where bytes with a checksum of their own lie.
#[derive(Clone, Copy, Debug, Archive, Serialize)]
pub struct FooterPlace {
    /// In the file.
    pub offset: u64,
    /// With the checksum.
    pub bytes: u32,
}

/// A footer that was validated.
pub struct Footer {
    bytes: AlignedVec,
    has_pieces: bool,
    columns: Vec<(ColumnId, SqlType)>,
}

impl FooterV3 {
    pub fn encode(&self) -> Result<AlignedVec, rkyv::rancor::Error> {
        rkyv::to_bytes(self)
    }
}

impl Footer {
    /// Validates the bytes of a file of that version: the archive itself, then that every page lies between the header
    /// and `pages_end`.
    pub fn decode(version: u32, bytes: &[u8], pages_end: u64) -> Result<Self, String> {
        let mut aligned = AlignedVec::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        let invalid = |error: rkyv::rancor::Error| format!("the footer is not valid: {error}");
        let has_pieces = version >= PIECES_VERSION;
        let contents = if has_pieces {
            let archived = rkyv::access::<ArchivedFooterV3, _>(&aligned).map_err(invalid)?;
            check_pieces(archived, pages_end)?;
            &archived.contents
        } else {
            rkyv::access::<ArchivedFooterV1, _>(&aligned).map_err(invalid)?
        };
        let columns = columns(contents)?;
        check_row_groups(contents, pages_end)?;
        Ok(Self { bytes: aligned, has_pieces, columns })
    }

    /// The footer in place.
    pub fn get(&self) -> &ArchivedFooterV1 {
        match self.with_pieces() {
            Some(footer) => &footer.contents,
            // SAFETY: `decode` validated exactly these bytes as this type, and nothing changes them.
            None => unsafe { rkyv::access_unchecked::<ArchivedFooterV1>(&self.bytes) },
        }
    }

    /// The pieces of a row group.
    pub fn pieces(&self, row_group: usize) -> Option<&ArchivedFooterPieces> {
        self.with_pieces()?.pieces[row_group].as_ref()
    }

    fn with_pieces(&self) -> Option<&ArchivedFooterV3> {
        // SAFETY: `decode` validated exactly these bytes as this type, and nothing changes them.
        self.has_pieces.then(|| unsafe { rkyv::access_unchecked::<ArchivedFooterV3>(&self.bytes) })
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

fn check_pieces(footer: &ArchivedFooterV3, pages_end: u64) -> Result<(), String> {
    let contents = &footer.contents;
    if footer.pieces.len() != contents.row_groups.len() {
        return Err("the footer has not one list of pieces for each row group".to_owned());
    }
    for (number, (pieces, group)) in footer.pieces.iter().zip(contents.row_groups.iter()).enumerate() {
        let Some(pieces) = pieces.as_ref() else { continue };
        let is_inside = |place: &ArchivedFooterPlace| is_between(place.offset.into(), place.bytes.into(), pages_end);
        let columns = pieces.columns.as_slice();
        let are_columns = columns.windows(2).all(|pair| pair[0].position < pair[1].position)
            && columns.last().is_none_or(|last| usize::from(last.position.to_native()) < contents.columns.len())
            && columns.iter().all(|column| is_inside(&column.place));
        let count = pieces.count.to_native();
        if pieces.width_us <= 0 || !(1..=group.rows.to_native()).contains(&count) || !is_inside(&pieces.directory) {
            return Err(format!("row group {number} has impossible pieces"));
        }
        if !are_columns {
            return Err(format!("row group {number} has impossible statistics of pieces"));
        }
    }
    Ok(())
}

fn is_inside(page: &ArchivedFooterPage, pages_end: u64) -> bool {
    page.bytes >= (PAGE_HEADER_BYTES + PAGE_CHECKSUM_BYTES) as u32
        && is_between(page.offset.into(), page.bytes.into(), pages_end)
        && Encoding::from_code(page.encoding).is_some()
}

fn is_between(offset: u64, bytes: u32, pages_end: u64) -> bool {
    let end = offset.checked_add(bytes.into());
    offset >= HEADER_BYTES as u64 && bytes >= PAGE_CHECKSUM_BYTES as u32 && end.is_some_and(|end| end <= pages_end)
}
