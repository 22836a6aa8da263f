//! Bytes from anywhere as a whole file, whose checksums are made to fit, so that a reader goes on to what they cover.
//!
//! ```text
//! offset  size  field
//!      0     1  the format version, less 1, modulo those that are read
//!      1     2  bytes f of the footer, little endian
//!      3     f  the footer
//!    3+f     -  what stands between header and footer
//! ```

use std::path::{Path, PathBuf};

use futures::executor::block_on;
use meridian_proto::ids::{ChunkId, ClusterId, ColumnId, SchemaVersion, SegmentId, TableId};
use meridian_proto::schema::Column;
use meridian_proto::types::SqlType;

use super::super::footer::{ArchivedFooterPage, ArchivedFooterPlace, Footer};
use super::super::format::{Header, Trailer};
use super::super::page::{self, PAGE_CHECKSUM_BYTES};
use super::super::{SEGMENT_VERSION, SegmentExpectation, SegmentReader};
use super::{ROWS_MAX, check_column, check_pieces};
use crate::disk::SimulatedDisk;
use crate::disk::simulated::SimulatedFile;
use crate::error::EngineError;
use crate::layout;

const CLUSTER: ClusterId = ClusterId(9);
const CHUNK: ChunkId = ChunkId(7);
const SEGMENT: SegmentId = SegmentId(41);
/// Row groups and columns that are read, of those that a footer names.
const ROW_GROUPS_MAX: usize = 4;
const COLUMNS_MAX: usize = 8;

/// Opens the file and reads what is in it: nothing may come of it but columns or an error.
#[doc(hidden)]
pub fn segment_arbitrary(bytes: &[u8]) {
    let Some(file) = file_of(bytes) else { return };
    let (disk, directory) = (SimulatedDisk::new(1), PathBuf::from("/chunk"));
    disk.place(&layout::segment_path(&directory, SEGMENT), &file);
    block_on(async {
        if let Ok((reader, columns)) = open(&disk, &directory, &file).await {
            for row_group in 0..reader.row_groups().len().min(ROW_GROUPS_MAX) {
                if reader.row_group(row_group).rows <= usize::from(ROWS_MAX) {
                    read(&reader, row_group, &columns).await;
                }
            }
        }
    });
}

/// The file with an owner, and with the checksums that it needs.
fn file_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let ([version, length @ ..], rest) = bytes.split_first_chunk::<3>()?;
    let version = u32::from(*version) % SEGMENT_VERSION + 1;
    let (footer, body) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    let header = Header {
        version,
        cluster: CLUSTER,
        chunk: CHUNK,
        segment: SEGMENT,
        table: TableId(16_400),
        schema_version: SchemaVersion(1),
    };
    let mut file = header.encode();
    file.extend_from_slice(body);
    let footer_offset = file.len() as u64;
    if let Ok(footer) = Footer::decode(version, footer, footer_offset) {
        vouch_for_pages(&mut file, &footer);
    }
    file.extend_from_slice(footer);
    let trailer = Trailer {
        footer_offset,
        footer_bytes: footer.len(),
        footer_checksum: page::checksum(CHUNK, SEGMENT, footer_offset, footer),
    };
    let offset = file.len() as u64;
    file.extend_from_slice(&trailer.encode(&header, offset));
    Some(file)
}

/// Writes the checksum behind each page and bundle that the footer names, all of which lie within the file.
fn vouch_for_pages(file: &mut [u8], footer: &Footer) {
    let place = |place: &ArchivedFooterPlace| (place.offset.to_native(), place.bytes.to_native());
    let page = |page: &ArchivedFooterPage| (page.offset.to_native(), page.bytes.to_native());
    for (at, group) in footer.get().row_groups.iter().enumerate().take(ROW_GROUPS_MAX) {
        let commits = group.commits.as_ref().and_then(|commits| commits.page.as_ref());
        let mut places: Vec<(u64, u32)> = group.pages.iter().chain(commits).map(page).collect();
        if let Some(pieces) = footer.pieces(at) {
            places.push(place(&pieces.directory));
            places.extend(pieces.columns.iter().map(|column| place(&column.place)));
        }
        for (offset, bytes) in places {
            let (start, end) = (offset as usize, offset as usize + bytes as usize - PAGE_CHECKSUM_BYTES);
            let checksum = page::checksum(CHUNK, SEGMENT, offset, &file[start..end]);
            file[end..end + PAGE_CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
        }
    }
}

/// The reader, and the columns that the file says it has.
async fn open(
    disk: &SimulatedDisk,
    directory: &Path,
    file: &[u8],
) -> Result<(SegmentReader<SimulatedFile>, Vec<Column>), EngineError> {
    let expected = SegmentExpectation { cluster: CLUSTER, chunk: CHUNK, segment: SEGMENT };
    let reader = SegmentReader::open(disk, directory, expected).await?;
    assert_eq!(reader.summary().file_bytes, file.len() as u64);
    let column = |(id, sql_type): &(ColumnId, SqlType)| Column {
        id: *id,
        name: format!("c{}", id.0),
        sql_type: sql_type.clone(),
        not_null: false,
        default: None,
        modifier: None,
    };
    let columns = reader.footer().columns().iter().take(COLUMNS_MAX).map(column).collect();
    Ok((reader, columns))
}

async fn read(reader: &SegmentReader<SimulatedFile>, row_group: usize, columns: &[Column]) {
    let rows = reader.row_group(row_group).rows;
    let whole = reader.read(row_group, columns, &async || ()).await;
    if let Ok(whole) = &whole {
        assert_eq!(whole.batch.num_rows(), rows, "a row group has its rows");
    }
    let ranges = [rows / 7..rows / 3, rows / 2..rows - rows / 4];
    let wanted = ranges.iter().map(ExactSizeIterator::len).sum::<usize>();
    if let Ok(part) = reader.read_ranges(row_group, columns, &ranges, &async || ()).await {
        assert_eq!(part.batch.num_rows(), wanted, "a part has the rows that are wanted");
    }
    for column in columns {
        let _ = reader.read_terms(row_group, column, &ranges).await;
    }
    if let Ok(Some(pieces)) = reader.pieces(row_group).await {
        check_pieces(&pieces, pieces.len(), rows);
        for known in reader.piece_columns(row_group, columns).await.into_iter().flatten().flatten() {
            check_column(&known, pieces.len());
        }
    }
}
