//! Reads a segment file: the footer once, then pages of the row groups and columns that are asked for. Every checksum is
//! verified on every read; what does not match is an error that names file, row group, column and byte, never data.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::Schema;
use meridian_proto::ids::{ChunkId, ClusterId, ColumnId, SchemaVersion, SegmentId, Ts};
use meridian_proto::schema::{Column, TableSchema};

use super::decode::ColumnDecoder;
use super::footer::{ArchivedFooterCommits, ArchivedFooterPage, ArchivedFooterRowGroup, Footer};
use super::format::{HEADER_BYTES, Header, TRAILER_BYTES, Trailer};
use super::page::{self, PAGE_CHECKSUM_BYTES};
use super::writer::{SegmentSummary, widen};
use crate::disk::{Disk, DiskFile, ReadBuffer};
use crate::error::EngineError;
use crate::layout;
use crate::scan::Bound;

/// Bytes read from the end when a file is opened: the footers of most files lie within, so that one read suffices.
const TAIL_BYTES: u64 = 64 << 10;
/// Pages with at most this much between them are read at once: reading 16 KiB more takes less time than another read.
const GAP_BYTES_MAX: u64 = 16 << 10;
/// Longest read that is put together from several pages.
const READ_BYTES_MAX: u64 = 2 << 20;

/// Which file it must be.
#[derive(Clone, Copy, Debug)]
pub struct SegmentExpectation {
    pub cluster: ClusterId,
    pub chunk: ChunkId,
    pub segment: SegmentId,
}

/// An open segment.
pub struct SegmentReader<F: DiskFile> {
    file: F,
    header: Header,
    footer: Footer,
    file_bytes: u64,
    /// Borrowed only between two awaits.
    decoder: RefCell<ColumnDecoder>,
}

/// Facts about a row group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowGroup {
    pub rows: usize,
    /// Range of the time column, both ends inclusive.
    pub time: Option<(i64, i64)>,
    /// Range of the commit timestamps, both ends inclusive; `None` in a staged run.
    pub commits: Option<(Ts, Ts)>,
    /// All pages, as stored.
    pub page_bytes: u64,
}

/// Decoded rows of one row group.
#[derive(Clone, Debug)]
pub struct RowGroupRows {
    /// The columns asked for, in that order.
    pub batch: RecordBatch,
    /// Commit timestamp of each row; `None` in a staged run.
    pub commits: Option<Commits>,
    /// Bytes that were read from the file.
    pub bytes_read: u64,
}

/// Commit timestamps of the rows of a row group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commits {
    /// All rows have the same one.
    All(Ts),
    Each(Vec<u64>),
}

/// A page to read: which one, for messages, and where.
#[derive(Clone, Copy)]
struct PagePlace {
    offset: u64,
    bytes: usize,
}

impl<F: DiskFile> SegmentReader<F> {
    /// Opens the segment's file in a chunk's directory and validates header, trailer and footer.
    pub async fn open<D: Disk<File = F>>(
        disk: &D,
        directory: &Path,
        expected: SegmentExpectation,
    ) -> Result<Self, EngineError> {
        let path = layout::segment_path(directory, expected.segment);
        let file = disk.open(&path).await?;
        let file_bytes = file.size().await?;
        let header = Header::decode(&path, &file.read_at(0, HEADER_BYTES).await?)?;
        check_identity(&path, &header, expected)?;
        if file_bytes < (HEADER_BYTES + TRAILER_BYTES) as u64 {
            return Err(EngineError::corruption(&path, file_bytes, "the file is cut off"));
        }
        let tail_start = file_bytes.saturating_sub(TAIL_BYTES).max(HEADER_BYTES as u64);
        let tail = read_exactly(&file, tail_start, (file_bytes - tail_start) as usize).await?;
        let trailer_offset = file_bytes - TRAILER_BYTES as u64;
        let trailer = Trailer::decode(&path, &header, trailer_offset, &tail[tail.len() - TRAILER_BYTES..])?;
        let footer = read_footer(&file, &header, trailer, tail_start, &tail).await?;
        Ok(Self { file, header, footer, file_bytes, decoder: RefCell::default() })
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    pub fn segment(&self) -> SegmentId {
        self.header.segment
    }

    /// The version of the table's schema that the rows were written under.
    pub fn schema_version(&self) -> SchemaVersion {
        self.header.schema_version
    }

    /// Bytes that the open reader takes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.footer.memory_bytes()
    }

    pub fn summary(&self) -> SegmentSummary {
        let groups = || self.row_groups();
        SegmentSummary {
            segment: self.header.segment,
            rows: self.footer.get().rows.to_native(),
            row_groups: groups().len(),
            file_bytes: self.file_bytes,
            time: groups().filter_map(|group| group.time).reduce(widen),
            commits: groups().filter_map(|group| group.commits).reduce(widen),
        }
    }

    pub fn row_groups(&self) -> impl ExactSizeIterator<Item = RowGroup> {
        self.footer.get().row_groups.iter().map(describe)
    }

    /// A row group, whose number comes from this reader.
    pub fn row_group(&self, at: usize) -> RowGroup {
        describe(&self.footer.get().row_groups[at])
    }

    pub(super) fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The row groups that may hold a row within all bounds, in order. A bound with a side is met by no NULL, so that
    /// neither are columns that were added after the file was written.
    pub fn prune(&self, schema: &TableSchema, bounds: &[Bound]) -> Vec<usize> {
        let footer = self.footer.get();
        let may_match =
            |group: &ArchivedFooterRowGroup| bounds.iter().all(|bound| self.may_match(group, schema, bound));
        (0..footer.row_groups.len()).filter(|at| may_match(&footer.row_groups[*at])).collect()
    }

    fn may_match(&self, group: &ArchivedFooterRowGroup, schema: &TableSchema, bound: &Bound) -> bool {
        let Some(column) = schema.columns.get(bound.column) else { return true };
        if bound.min.is_none() && bound.max.is_none() {
            return true;
        }
        let Some(at) = self.position_of(column.id) else { return false };
        if self.footer.columns()[at].1.arrow() != column.sql_type.arrow() {
            return true;
        }
        let page = &group.pages[at];
        page.null_count < group.rows && page.zone.may_match(bound)
    }

    fn position_of(&self, id: ColumnId) -> Option<usize> {
        self.footer.columns().iter().position(|(column, _)| *column == id)
    }

    /// Reads the columns of a row group, those that the file does not have as NULLs. Pages that lie together are read
    /// together. `pause` is awaited between columns.
    ///
    /// # Panics
    /// When there is no such row group: its number comes from this reader.
    pub async fn read(
        &self,
        row_group: usize,
        columns: &[Column],
        pause: &impl AsyncFn(),
    ) -> Result<RowGroupRows, EngineError> {
        let group = &self.footer.get().row_groups[row_group];
        let rows = group.rows.to_native() as usize;
        let positions = self.positions(columns)?;
        let commit_page = group.commits.as_ref().and_then(|commits| commits.page.as_ref());
        let pages = positions.iter().flatten().map(|at| place(&group.pages[*at])).chain(commit_page.map(place));
        let stored = PageBytes::read(&self.file, pages.collect()).await?;

        let mut arrays = Vec::with_capacity(columns.len());
        for (column, position) in columns.iter().zip(&positions) {
            arrays.push(match position {
                Some(at) => self.decode(row_group, *at, rows, &stored)?,
                None => new_null_array(&column.sql_type.arrow(), rows),
            });
            pause().await;
        }
        let commits = match group.commits.as_ref() {
            Some(commits) => Some(self.decode_commits(row_group, commits, rows, &stored)?),
            None => None,
        };
        let batch = assemble(columns, &positions, arrays, rows).map_err(|error| {
            EngineError::Rows(format!("row group {row_group} of {}: {error}", self.path().display()))
        })?;
        Ok(RowGroupRows { batch, commits, bytes_read: stored.bytes_read })
    }

    /// Where each column is in the file, `None` for one that was added later.
    fn positions(&self, columns: &[Column]) -> Result<Vec<Option<usize>>, EngineError> {
        let position = |column: &Column| {
            let Some(at) = self.position_of(column.id) else { return Ok(None) };
            let stored = &self.footer.columns()[at].1;
            if stored.arrow() == column.sql_type.arrow() {
                return Ok(Some(at));
            }
            let (path, wanted) = (self.path().display(), &column.sql_type);
            Err(EngineError::Rows(format!("column {} of {path} is {stored}, not {wanted}", column.id)))
        };
        columns.iter().map(position).collect()
    }

    fn decode(&self, row_group: usize, at: usize, rows: usize, stored: &PageBytes) -> Result<ArrayRef, EngineError> {
        let (id, sql_type) = &self.footer.columns()[at];
        let what = || format!("row group {row_group}, column {id}");
        let place = place(&self.footer.get().row_groups[row_group].pages[at]);
        let page = self.checked_page(place, stored, &what)?;
        let decoded = self.decoder.borrow_mut().decode(page, sql_type, rows);
        decoded.map_err(|flaw| self.damage(place.offset, &what, flaw.0))
    }

    fn decode_commits(
        &self,
        row_group: usize,
        commits: &ArchivedFooterCommits,
        rows: usize,
        stored: &PageBytes,
    ) -> Result<Commits, EngineError> {
        let Some(page) = commits.page.as_ref() else { return Ok(Commits::All(Ts(commits.min.to_native()))) };
        let what = || format!("row group {row_group}, commit timestamps");
        let place = place(page);
        let page = self.checked_page(place, stored, &what)?;
        let decoded = self.decoder.borrow_mut().decode_commits(page, rows);
        Ok(Commits::Each(decoded.map_err(|flaw| self.damage(place.offset, &what, flaw.0))?))
    }

    /// The page without its checksum, which matched.
    fn checked_page<'a>(
        &self,
        place: PagePlace,
        stored: &'a PageBytes,
        what: &impl Fn() -> String,
    ) -> Result<&'a [u8], EngineError> {
        let cut_off = || self.damage(place.offset, what, "the file ends within the page");
        let bytes = stored.get(place).ok_or_else(cut_off)?;
        let (page, checksum) = bytes.split_last_chunk::<PAGE_CHECKSUM_BYTES>().ok_or_else(cut_off)?;
        let expected = page::checksum(self.header.chunk, self.header.segment, place.offset, page);
        if u32::from_le_bytes(*checksum) != expected {
            return Err(self.damage(place.offset, what, "page checksum mismatch"));
        }
        Ok(page)
    }

    fn damage(&self, offset: u64, what: &impl Fn() -> String, reason: &str) -> EngineError {
        EngineError::corruption(self.path(), offset, format!("{}: {reason}", what()))
    }
}

impl Commits {
    pub fn get(&self, row: usize) -> Ts {
        match self {
            Self::All(commit) => *commit,
            Self::Each(commits) => Ts(commits[row]),
        }
    }
}

fn check_identity(path: &Path, header: &Header, expected: SegmentExpectation) -> Result<(), EngineError> {
    let found = SegmentExpectation { cluster: header.cluster, chunk: header.chunk, segment: header.segment };
    let name =
        |of: SegmentExpectation| format!("segment {} of chunk {} of cluster {}", of.segment, of.chunk, of.cluster);
    if (found.cluster, found.chunk, found.segment) == (expected.cluster, expected.chunk, expected.segment) {
        return Ok(());
    }
    Err(EngineError::Foreign { path: path.to_owned(), found: name(found), expected: name(expected) })
}

async fn read_exactly<F: DiskFile>(file: &F, position: u64, length: usize) -> Result<ReadBuffer, EngineError> {
    let bytes = file.read_at(position, length).await?;
    if bytes.len() == length {
        return Ok(bytes);
    }
    Err(EngineError::corruption(file.path(), position + bytes.len() as u64, "the file is cut off"))
}

async fn read_footer<F: DiskFile>(
    file: &F,
    header: &Header,
    trailer: Trailer,
    tail_start: u64,
    tail: &[u8],
) -> Result<Footer, EngineError> {
    let apart;
    let bytes = if trailer.footer_offset >= tail_start {
        &tail[(trailer.footer_offset - tail_start) as usize..][..trailer.footer_bytes]
    } else {
        apart = read_exactly(file, trailer.footer_offset, trailer.footer_bytes).await?;
        &apart
    };
    let damage = |reason: String| EngineError::corruption(file.path(), trailer.footer_offset, reason);
    if page::checksum(header.chunk, header.segment, trailer.footer_offset, bytes) != trailer.footer_checksum {
        return Err(damage("footer checksum mismatch".to_owned()));
    }
    Footer::decode(bytes, trailer.footer_offset).map_err(damage)
}

fn describe(group: &ArchivedFooterRowGroup) -> RowGroup {
    let commits = group.commits.as_ref();
    let pages = group.pages.iter().chain(commits.and_then(|commits| commits.page.as_ref()));
    RowGroup {
        rows: group.rows.to_native() as usize,
        time: group.time.as_ref().map(|time| (time.min.to_native(), time.max.to_native())),
        commits: commits.map(|commits| (Ts(commits.min.to_native()), Ts(commits.max.to_native()))),
        page_bytes: pages.map(|page| u64::from(page.bytes.to_native())).sum(),
    }
}

fn place(page: &ArchivedFooterPage) -> PagePlace {
    PagePlace { offset: page.offset.to_native(), bytes: page.bytes.to_native() as usize }
}

/// The columns as a batch of their SQL types.
fn assemble(
    columns: &[Column],
    positions: &[Option<usize>],
    arrays: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    // A column that the file does not have is NULL, whatever the table demands of new rows.
    let field = |(column, position): (&Column, &Option<usize>)| {
        column.sql_type.field(&column.name, !column.not_null || position.is_none())
    };
    let schema = Schema::new(columns.iter().zip(positions).map(field).collect::<Vec<_>>());
    RecordBatch::try_new_with_options(Arc::new(schema), arrays, &RecordBatchOptions::new().with_row_count(Some(rows)))
}

/// Bytes of several pages, read with few reads.
struct PageBytes {
    /// In order of their place in the file, without overlap.
    reads: Vec<(u64, ReadBuffer)>,
    bytes_read: u64,
}

impl PageBytes {
    async fn read<F: DiskFile>(file: &F, mut pages: Vec<PagePlace>) -> Result<Self, EngineError> {
        pages.sort_unstable_by_key(|page| page.offset);
        let mut reads = Vec::new();
        let mut bytes_read = 0;
        for (start, end) in coalesce(&pages) {
            let bytes = file.read_at(start, (end - start) as usize).await?;
            bytes_read += bytes.len() as u64;
            reads.push((start, bytes));
        }
        Ok(Self { reads, bytes_read })
    }

    fn get(&self, page: PagePlace) -> Option<&[u8]> {
        let at = self.reads.partition_point(|(start, _)| *start <= page.offset).checked_sub(1)?;
        let (start, bytes) = &self.reads[at];
        let from = usize::try_from(page.offset - start).ok()?;
        bytes.get(from..from.checked_add(page.bytes)?)
    }
}

/// Puts neighbouring pages (sorted by offset) together into ranges of the file.
fn coalesce(pages: &[PagePlace]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for page in pages {
        let end = page.offset + page.bytes as u64;
        match ranges.last_mut() {
            Some(last) if page.offset <= last.1 + GAP_BYTES_MAX && end - last.0 <= READ_BYTES_MAX => {
                last.1 = last.1.max(end);
            }
            _ => ranges.push((page.offset, end)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_pages_are_read_together() {
        let check = |pages: &[(u64, usize)], expected: &[(u64, u64)]| {
            let pages: Vec<PagePlace> =
                pages.iter().map(|(offset, bytes)| PagePlace { offset: *offset, bytes: *bytes }).collect();
            assert_eq!(coalesce(&pages), expected);
        };
        check(&[], &[]);
        check(&[(4096, 100), (4196, 50)], &[(4096, 4246)]);
        check(&[(4096, 100), (20_000, 50), (1 << 20, 8)], &[(4096, 20_050), (1 << 20, (1 << 20) + 8)]);
        check(&[(0, 3 << 20), (3 << 20, 5)], &[(0, 3 << 20), (3 << 20, (3 << 20) + 5)]);
    }
}
