//! Reads a segment file: the footer once, then pages of the row groups and columns that are asked for, from the shard's
//! page cache where they are in it. Every checksum is verified when bytes come from the file; what does not match is an
//! error that names file, row group, column and byte, never data.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::Schema;
use meridian_proto::ids::{ChunkId, ClusterId, ColumnId, SchemaVersion, SegmentId, Ts};
use meridian_proto::schema::{Column, TableSchema};
use meridian_proto::types::SqlType;

use super::decode::{self, Terms};
use super::encoding::Encoding;
use super::encoding::selection::Selection;
use super::footer::{ArchivedFooterCommits, ArchivedFooterPage, ArchivedFooterPlace, ArchivedFooterRowGroup, Footer};
use super::format::{HEADER_BYTES, Header, TRAILER_BYTES, Trailer};
use super::page::{self, PAGE_CHECKSUM_BYTES};
use super::page_cache::{FilePages, Held, ReadAhead};
use super::writer::{SegmentSummary, widen};
use crate::disk::simulated::{Overlooked, overlooks};
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
/// Of the pages that a scan has read ahead. A row group of the TSBS shape has 0.2 MiB, or 0.8 MiB with two decimals.
const AHEAD_BYTES_MAX: usize = 4 << 20;

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
    /// Pages of this file in the shard's cache.
    cache: Option<Rc<FilePages>>,
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

/// Some columns of a row group, or some rows of them.
pub struct RowGroupColumns {
    /// In the order asked for.
    pub arrays: Vec<ArrayRef>,
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

/// How rows are read.
#[derive(Clone, Copy)]
struct Reading {
    has_commits: bool,
    /// Whether pages may stay in the cache.
    is_kept: bool,
}

impl Reading {
    const ALL: Self = Self { has_commits: true, is_kept: true };
}

/// A page to read: where it is, and which one, for messages.
#[derive(Clone, Copy)]
pub(super) struct PagePlace {
    offset: u64,
    bytes: usize,
    what: What,
}

#[derive(Clone, Copy)]
pub(super) enum What {
    Column { row_group: usize, column: ColumnId },
    Commits { row_group: usize },
    Pieces { row_group: usize },
    PieceColumn { row_group: usize, column: ColumnId },
}

impl fmt::Display for What {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column { row_group, column } => write!(out, "row group {row_group}, column {column}"),
            Self::Commits { row_group } => write!(out, "row group {row_group}, commit timestamps"),
            Self::Pieces { row_group } => write!(out, "row group {row_group}, directory of pieces"),
            Self::PieceColumn { row_group, column } => {
                write!(out, "row group {row_group}, statistics of column {column}")
            }
        }
    }
}

impl PagePlace {
    fn of_page(page: &ArchivedFooterPage, what: What) -> Self {
        Self { offset: page.offset.to_native(), bytes: page.bytes.to_native() as usize, what }
    }

    pub(super) fn of_bundle(place: &ArchivedFooterPlace, what: What) -> Self {
        Self { offset: place.offset.to_native(), bytes: place.bytes.to_native() as usize, what }
    }
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
        Ok(Self { file, header, footer, file_bytes, cache: None })
    }

    /// Refuses a file that a newer release has written, by its first block. What else may be wrong with it is told when
    /// it is opened.
    pub async fn refuse_newer<D: Disk<File = F>>(
        disk: &D,
        directory: &Path,
        segment: SegmentId,
    ) -> Result<(), EngineError> {
        let path = layout::segment_path(directory, segment);
        let Ok(file) = disk.open(&path).await else { return Ok(()) };
        let Ok(head) = file.read_at(0, HEADER_BYTES).await else { return Ok(()) };
        match Header::decode(&path, &head) {
            Err(newer @ EngineError::NewerFormat { .. }) => Err(newer),
            _ => Ok(()),
        }
    }

    /// Keeps pages in this part of a cache from now on.
    #[must_use]
    pub fn cached(self, pages: Rc<FilePages>) -> Self {
        Self { cache: Some(pages), ..self }
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

    /// The column by which the rows of a series are sorted.
    pub fn time_column(&self) -> Option<ColumnId> {
        self.footer.get().time_column.as_ref().map(|id| ColumnId(id.to_native()))
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

    /// Whether a row group may hold a row that meets one bound of each list.
    pub fn may_hold(&self, row_group: usize, schema: &TableSchema, any_of: &[Vec<Bound>]) -> bool {
        let group = &self.footer.get().row_groups[row_group];
        any_of.iter().all(|bounds| bounds.iter().any(|bound| self.may_match(group, schema, bound)))
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

    pub(super) fn position_of(&self, id: ColumnId) -> Option<usize> {
        self.footer.columns().iter().position(|(column, _)| *column == id)
    }

    /// Reads the columns of a row group, those that the file does not have as NULLs. Pages that lie together are read
    /// together, and not kept in the cache: this is for who reads the file once. `pause` is awaited between columns.
    ///
    /// # Panics
    /// When there is no such row group: its number comes from this reader.
    pub async fn read(
        &self,
        row_group: usize,
        columns: &[Column],
        pause: &impl AsyncFn(),
    ) -> Result<RowGroupRows, EngineError> {
        let all = 0..self.row_group(row_group).rows;
        let selection = Selection::new(all.end, std::slice::from_ref(&all));
        self.read_selection(row_group, columns, &selection, Reading { is_kept: false, ..Reading::ALL }, pause).await
    }

    /// As [`Self::read`], of some rows only, whose blocks alone are decoded: `ranges` ascend and do not overlap. Pages are
    /// kept in the cache.
    ///
    /// # Panics
    /// When there is no such row group, or a range lies outside of it.
    pub async fn read_ranges(
        &self,
        row_group: usize,
        columns: &[Column],
        ranges: &[Range<usize>],
        pause: &impl AsyncFn(),
    ) -> Result<RowGroupRows, EngineError> {
        let selection = Selection::new(self.row_group(row_group).rows, ranges);
        self.read_selection(row_group, columns, &selection, Reading::ALL, pause).await
    }

    /// As [`Self::read_ranges`], the columns alone, without commit timestamps.
    ///
    /// # Panics
    /// As [`Self::read_ranges`].
    pub async fn read_columns(
        &self,
        row_group: usize,
        columns: &[Column],
        ranges: &[Range<usize>],
        pause: &impl AsyncFn(),
    ) -> Result<RowGroupColumns, EngineError> {
        let selection = Selection::new(self.row_group(row_group).rows, ranges);
        let positions = self.positions(columns)?;
        let reading = Reading { has_commits: false, ..Reading::ALL };
        let (read, _) = self.read_arrays(row_group, (columns, &positions), &selection, reading, pause).await?;
        Ok(read)
    }

    async fn read_selection(
        &self,
        row_group: usize,
        columns: &[Column],
        selection: &Selection<'_>,
        reading: Reading,
        pause: &impl AsyncFn(),
    ) -> Result<RowGroupRows, EngineError> {
        let positions = self.positions(columns)?;
        let (read, commits) = self.read_arrays(row_group, (columns, &positions), selection, reading, pause).await?;
        let batch = assemble(columns, &positions, read.arrays, selection.count()).map_err(|error| {
            EngineError::Rows(format!("row group {row_group} of {}: {error}", self.path().display()))
        })?;
        Ok(RowGroupRows { batch, commits, bytes_read: read.bytes_read })
    }

    /// The columns, which lie at these positions of the file, and the commit timestamps.
    async fn read_arrays(
        &self,
        row_group: usize,
        (columns, positions): (&[Column], &[Option<usize>]),
        selection: &Selection<'_>,
        reading: Reading,
        pause: &impl AsyncFn(),
    ) -> Result<(RowGroupColumns, Option<Commits>), EngineError> {
        let group = &self.footer.get().row_groups[row_group];
        let place = |at: usize| {
            let what = What::Column { row_group, column: self.footer.columns()[at].0 };
            PagePlace::of_page(&group.pages[at], what)
        };
        let commits = group.commits.as_ref().filter(|_| reading.has_commits);
        let commit_page = commits.and_then(|commits| commits.page.as_ref());
        let commit_page = commit_page.map(|page| PagePlace::of_page(page, What::Commits { row_group }));
        let pages = positions.iter().flatten().map(|at| place(*at)).chain(commit_page);
        let stored = self.load(pages.collect(), reading.is_kept).await?;

        let mut arrays = Vec::with_capacity(columns.len());
        for (column, position) in columns.iter().zip(positions) {
            arrays.push(match position {
                Some(at) => self.decode(place(*at), &self.footer.columns()[*at].1, selection, &stored)?,
                None => new_null_array(&column.sql_type.arrow(), selection.count()),
            });
            pause().await;
        }
        let commits = match commits {
            Some(commits) => Some(self.decode_commits(commits, commit_page, selection, &stored)?),
            None => None,
        };
        Ok((RowGroupColumns { arrays, bytes_read: stored.bytes_read }, commits))
    }

    /// Reads the stored pages of columns that will be asked for next, beside the cache; `None` when there is nothing to
    /// read, or too much. The bytes read come with it.
    ///
    /// # Panics
    /// When there is no such row group.
    pub async fn read_ahead(
        &self,
        row_group: usize,
        columns: &[Column],
    ) -> Result<Option<(ReadAhead, u64)>, EngineError> {
        let Some(cache) = &self.cache else { return Ok(None) };
        let group = &self.footer.get().row_groups[row_group];
        let place = |at: usize| {
            let what = What::Column { row_group, column: self.footer.columns()[at].0 };
            PagePlace::of_page(&group.pages[at], what)
        };
        let mut pages: Vec<PagePlace> = self.positions(columns)?.into_iter().flatten().map(place).collect();
        pages.retain(|page| !cache.has(page.offset));
        if pages.is_empty() || pages.iter().map(|page| page.bytes).sum::<usize>() > AHEAD_BYTES_MAX {
            return Ok(None);
        }
        pages.sort_unstable_by_key(|page| page.offset);
        pages.dedup_by_key(|page| page.offset);
        let (mut held, mut bytes_read) = (Vec::with_capacity(pages.len()), 0);
        for read in coalesce(&pages) {
            let bytes = self.file.read_at(read.start, (read.end - read.start) as usize).await?;
            bytes_read += bytes.len() as u64;
            for page in pages.iter().filter(|page| read.contains(&page.offset)) {
                let start = (page.offset - read.start) as usize;
                let end = self.verify(*page, start, &bytes)?;
                held.push((page.offset, bytes[start..end].into()));
            }
        }
        Ok(Some((cache.hold_ahead(held), bytes_read)))
    }

    /// Distinct values of a text or bytea column and which of them each of the rows has, with the bytes read; `None` where
    /// its page is no dictionary.
    ///
    /// # Panics
    /// As [`Self::read_ranges`].
    pub async fn read_terms(
        &self,
        row_group: usize,
        column: &Column,
        ranges: &[Range<usize>],
    ) -> Result<Option<(Terms, u64)>, EngineError> {
        let is_bytes = matches!(column.sql_type, SqlType::Text | SqlType::Varchar(_) | SqlType::Bytea);
        let Some(at) = self.positions(std::slice::from_ref(column))?[0].filter(|_| is_bytes) else { return Ok(None) };
        let page = &self.footer.get().row_groups[row_group].pages[at];
        if !matches!(Encoding::from_code(page.encoding), Some(Encoding::Terms | Encoding::Dictionary)) {
            return Ok(None);
        }
        let place = PagePlace::of_page(page, What::Column { row_group, column: column.id });
        let stored = self.load(vec![place], true).await?;
        let selection = Selection::new(self.row_group(row_group).rows, ranges);
        let terms = decode::decode_terms(stored.get(place), &column.sql_type, &selection);
        Ok(Some((terms.map_err(|flaw| self.damage(place, flaw.0))?, stored.bytes_read)))
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

    fn decode(
        &self,
        place: PagePlace,
        sql_type: &SqlType,
        selection: &Selection<'_>,
        stored: &StoredPages,
    ) -> Result<ArrayRef, EngineError> {
        let decoded = decode::decode_rows(stored.get(place), sql_type, selection);
        decoded.map_err(|flaw| self.damage(place, flaw.0))
    }

    fn decode_commits(
        &self,
        commits: &ArchivedFooterCommits,
        page: Option<PagePlace>,
        selection: &Selection<'_>,
        stored: &StoredPages,
    ) -> Result<Commits, EngineError> {
        let Some(place) = page else { return Ok(Commits::All(Ts(commits.min.to_native()))) };
        let decoded = decode::decode_commits(stored.get(place), selection);
        Ok(Commits::Each(decoded.map_err(|flaw| self.damage(place, flaw.0))?))
    }

    /// What the cache holds of a page.
    pub(super) fn held(&self, place: PagePlace) -> Option<Held> {
        self.cache.as_ref()?.get(place.offset)
    }

    pub(super) fn hold(&self, place: PagePlace, held: &Held) {
        if let Some(cache) = &self.cache {
            cache.put(place.offset, held);
        }
    }

    /// The pages, from the cache or from the file; those from the file with few reads and verified.
    pub(super) async fn load(&self, mut pages: Vec<PagePlace>, is_kept: bool) -> Result<StoredPages, EngineError> {
        pages.sort_unstable_by_key(|page| page.offset);
        pages.dedup_by_key(|page| page.offset);
        let mut stored = StoredPages { pages: Vec::with_capacity(pages.len()), bytes_read: 0 };
        let mut missing = Vec::new();
        for page in pages {
            match self.held(page) {
                Some(Held::Stored(bytes)) => stored.pages.push((page.offset, StoredPage::Held(bytes))),
                _ => missing.push(page),
            }
        }
        for read in coalesce(&missing) {
            let bytes = Rc::new(self.file.read_at(read.start, (read.end - read.start) as usize).await?);
            stored.bytes_read += bytes.len() as u64;
            for page in missing.iter().filter(|page| read.contains(&page.offset)) {
                let start = (page.offset - read.start) as usize;
                let rows = start..self.verify(*page, start, &bytes)?;
                if is_kept && let Some(cache) = &self.cache {
                    cache.put(page.offset, &Held::Stored(bytes[rows.clone()].into()));
                }
                stored.pages.push((page.offset, StoredPage::Read(Rc::clone(&bytes), rows)));
            }
        }
        stored.pages.sort_unstable_by_key(|(offset, _)| *offset);
        Ok(stored)
    }

    /// Where the page that begins at `start` of the bytes ends before its checksum, which matches.
    fn verify(&self, page: PagePlace, start: usize, bytes: &[u8]) -> Result<usize, EngineError> {
        let stored = bytes.get(start..start + page.bytes);
        let Some((contents, checksum)) = stored.and_then(|stored| stored.split_last_chunk::<PAGE_CHECKSUM_BYTES>())
        else {
            return Err(self.damage(page, "the file ends within the page"));
        };
        let expected = page::checksum(self.header.chunk, self.header.segment, page.offset, contents);
        if u32::from_le_bytes(*checksum) == expected || overlooks(Overlooked::Checksums) {
            return Ok(start + contents.len());
        }
        Err(self.damage(page, "page checksum mismatch"))
    }

    pub(super) fn damage(&self, page: PagePlace, reason: &str) -> EngineError {
        EngineError::corruption(self.path(), page.offset, format!("{}: {reason}", page.what))
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
    Footer::decode(header.version, bytes, trailer.footer_offset).map_err(damage)
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

/// Pages that were found, without their checksums.
pub(super) struct StoredPages {
    /// By their place in the file.
    pages: Vec<(u64, StoredPage)>,
    bytes_read: u64,
}

enum StoredPage {
    Held(Rc<[u8]>),
    Read(Rc<ReadBuffer>, Range<usize>),
}

impl StoredPages {
    /// One of those that were asked for.
    pub(super) fn get(&self, page: PagePlace) -> &[u8] {
        match self.pages.binary_search_by_key(&page.offset, |(offset, _)| *offset).map(|at| &self.pages[at].1) {
            Ok(StoredPage::Held(bytes)) => bytes,
            Ok(StoredPage::Read(bytes, range)) => &bytes[range.clone()],
            // A page that was not asked for is empty, which no decoder takes.
            Err(_) => &[],
        }
    }
}

/// Puts neighbouring pages (sorted by offset) together into ranges of the file.
fn coalesce(pages: &[PagePlace]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for page in pages {
        let end = page.offset + page.bytes as u64;
        match ranges.last_mut() {
            Some(last) if page.offset <= last.end + GAP_BYTES_MAX && end - last.start <= READ_BYTES_MAX => {
                last.end = last.end.max(end);
            }
            _ => ranges.push(page.offset..end),
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
            let what = What::Commits { row_group: 0 };
            let place = |(offset, bytes): &(u64, usize)| PagePlace { offset: *offset, bytes: *bytes, what };
            let pages: Vec<PagePlace> = pages.iter().map(place).collect();
            let read: Vec<(u64, u64)> = coalesce(&pages).iter().map(|read| (read.start, read.end)).collect();
            assert_eq!(read, expected);
        };
        check(&[], &[]);
        check(&[(4096, 100), (4196, 50)], &[(4096, 4246)]);
        check(&[(4096, 100), (20_000, 50), (1 << 20, 8)], &[(4096, 20_050), (1 << 20, (1 << 20) + 8)]);
        check(&[(0, 3 << 20), (3 << 20, 5)], &[(0, 3 << 20), (3 << 20, (3 << 20) + 5)]);
    }
}
