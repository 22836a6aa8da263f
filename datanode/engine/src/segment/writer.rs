//! Writes a segment file: sorted rows come in batches of any size, are cut into row groups, encoded column by column
//! and written as soon as enough bytes are there. One row group is in memory at a time.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use futures::{Stream, StreamExt};
use meridian_proto::ids::{ChunkId, ClusterId, SegmentId, TableId, Ts};
use meridian_proto::schema::TableSchema;

use super::encode::{ColumnEncoder, PageFacts};
use super::footer::{
    FooterColumn, FooterCommits, FooterPage, FooterPieceColumn, FooterPieces, FooterPlace, FooterRange, FooterRowGroup,
    FooterV1, FooterV3,
};
use super::format::{Header, TRAILER_BYTES, Trailer};
use super::piece_writer::{self, FoundPieces, WIDTHS_US};
use super::pieces::Pieces;
use super::zone::Zone;
use super::{ROW_GROUP_BYTES_MAX, ROW_GROUP_ROWS_MAX, SEGMENT_VERSION, page};
use crate::disk::{AlignedBuffer, BLOCK_BYTES, Disk, DiskError, DiskFile};
use crate::error::EngineError;
use crate::layout;
use crate::scan::SortKey;

/// Bytes that are written at once, about.
const WRITE_BYTES: usize = 1 << 20;
/// A row group may end up to this part of its rows early, where a series or a bucket of time ends.
const EARLY_CUT_PART: usize = 4;
/// The part of a row group's bytes that one column may have: long texts are cut at 4 MiB, since readers decode a page at a
/// time, and many of them at once. Columns of 64 bytes a row and less are never cut for it.
const COLUMN_PART: usize = 8;

/// Whose rows a new file holds.
#[derive(Clone, Debug)]
pub struct SegmentSpec {
    pub cluster: ClusterId,
    pub table: TableId,
    pub chunk: ChunkId,
    pub segment: SegmentId,
    /// Rows have exactly these columns, as [`TableSchema::arrow`] says.
    pub schema: TableSchema,
    /// How the rows are sorted already.
    pub sort: SortKey,
}

/// Some rows, in order.
#[derive(Clone, Debug)]
pub struct SegmentRows {
    pub batch: RecordBatch,
    /// Commit timestamp of each row; `None` for all rows of a staged run.
    pub commits: Option<Vec<u64>>,
}

#[derive(Clone, Copy, Debug)]
pub struct SegmentLimits {
    pub row_group_rows_max: usize,
    /// In Arrow's form, before encoding.
    pub row_group_bytes_max: usize,
}

impl Default for SegmentLimits {
    fn default() -> Self {
        Self { row_group_rows_max: ROW_GROUP_ROWS_MAX, row_group_bytes_max: ROW_GROUP_BYTES_MAX }
    }
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    pub segment: SegmentId,
    pub rows: u64,
    pub row_groups: usize,
    pub file_bytes: u64,
    /// Range of the time column, both ends inclusive; `None` without one, or when all times are NULL.
    pub time: Option<(i64, i64)>,
    /// Range of the commit timestamps, both ends inclusive; `None` for a staged run or without rows.
    pub commits: Option<(Ts, Ts)>,
}

/// Writes the rows into a new file of the directory. It is durable, name and contents, when this returns.
///
/// `pause` is awaited between columns: a place to let other tasks of the shard run. When something fails, the file is
/// removed again as far as the disk still allows; whoever names files in a manifest does so only after success.
pub async fn write<D: Disk>(
    disk: &D,
    directory: &Path,
    spec: &SegmentSpec,
    rows: impl Stream<Item = Result<SegmentRows, EngineError>> + Unpin,
    limits: SegmentLimits,
    pause: &impl AsyncFn(),
) -> Result<SegmentSummary, EngineError> {
    let path = layout::segment_path(directory, spec.segment);
    let written = write_file(disk, &path, spec, rows, limits, pause).await;
    match written {
        Ok(summary) => {
            disk.sync_directory(directory).await?;
            Ok(summary)
        }
        Err(error) => {
            // The first error is the one to report; what is left over is no segment, for no manifest names it.
            let _ = disk.remove(&path).await;
            Err(error)
        }
    }
}

async fn write_file<D: Disk>(
    disk: &D,
    path: &Path,
    spec: &SegmentSpec,
    mut rows: impl Stream<Item = Result<SegmentRows, EngineError>> + Unpin,
    limits: SegmentLimits,
    pause: &impl AsyncFn(),
) -> Result<SegmentSummary, EngineError> {
    let mut writer = SegmentWriter::new(disk.create(path).await?, spec)?;
    let mut pending = Pending::new(spec, limits)?;
    while let Some(rows) = rows.next().await {
        pending.push(rows?)?;
        while let Some(group) = pending.take_full()? {
            writer.write_row_group(group, pause).await?;
        }
        pause().await;
    }
    while let Some(group) = pending.take_last()? {
        writer.write_row_group(group, pause).await?;
    }
    writer.finish().await
}

/// Rows that make up no row group yet.
struct Pending {
    limits: SegmentLimits,
    schema: arrow::datatypes::SchemaRef,
    /// Positions of the segment-by columns, and of the time that rows are sorted by then.
    series: Vec<usize>,
    time: Option<usize>,
    has_commits: Option<bool>,
    queue: VecDeque<SegmentRows>,
    rows: usize,
    bytes: usize,
}

impl Pending {
    fn new(spec: &SegmentSpec, limits: SegmentLimits) -> Result<Self, EngineError> {
        let position = |id: &_| spec.schema.position_of(*id);
        let series: Option<Vec<usize>> = spec.sort.segment_by.iter().map(position).collect();
        Ok(Self {
            limits: SegmentLimits {
                row_group_rows_max: limits.row_group_rows_max.clamp(1, ROW_GROUP_ROWS_MAX),
                row_group_bytes_max: limits.row_group_bytes_max.clamp(1, ROW_GROUP_BYTES_MAX),
            },
            schema: spec.schema.arrow(),
            time: spec.sort.time.and_then(|time| spec.schema.position_of(time)),
            series: series.ok_or_else(|| EngineError::Rows("a column of the sort key is not in the schema".into()))?,
            has_commits: None,
            queue: VecDeque::new(),
            rows: 0,
            bytes: 0,
        })
    }

    fn push(&mut self, rows: SegmentRows) -> Result<(), EngineError> {
        let columns = rows.batch.columns();
        let fits = columns.len() == self.schema.fields().len()
            && columns.iter().zip(self.schema.fields()).all(|(column, field)| column.data_type() == field.data_type());
        if !fits {
            return Err(EngineError::Rows("the rows have other columns than the table".to_owned()));
        }
        let has_commits = rows.commits.is_some();
        if *self.has_commits.get_or_insert(has_commits) != has_commits {
            return Err(EngineError::Rows("some rows have commit timestamps and some have none".to_owned()));
        }
        if rows.commits.as_ref().is_some_and(|commits| commits.len() != rows.batch.num_rows()) {
            return Err(EngineError::Rows("there are not as many commit timestamps as rows".to_owned()));
        }
        if rows.batch.num_rows() > 0 {
            self.rows += rows.batch.num_rows();
            self.bytes += batch_bytes(&rows.batch);
            self.queue.push_back(rows);
        }
        Ok(())
    }

    /// A row group, when there are more rows than fit into one.
    fn take_full(&mut self) -> Result<Option<Vec<SegmentRows>>, EngineError> {
        let full = self.rows > self.limits.row_group_rows_max || self.bytes > self.limits.row_group_bytes_max;
        // A single row is as small as it gets.
        if full && self.rows > 1 { self.take() } else { Ok(None) }
    }

    /// A row group, when there are any rows.
    fn take_last(&mut self) -> Result<Option<Vec<SegmentRows>>, EngineError> {
        if self.rows > 0 { self.take() } else { Ok(None) }
    }

    fn take(&mut self) -> Result<Option<Vec<SegmentRows>>, EngineError> {
        let mut group = self.take_up_to_limits();
        if !self.queue.is_empty() {
            self.cut_early(&mut group)?;
        }
        Ok(Some(group))
    }

    /// Takes rows from the front: at least one, then as many as the limits allow.
    fn take_up_to_limits(&mut self) -> Vec<SegmentRows> {
        let (mut rows, mut bytes) = (0, 0);
        let mut group = Vec::new();
        while let Some(next) = self.queue.pop_front() {
            let rows_left = self.limits.row_group_rows_max - rows;
            let bytes_left = self.limits.row_group_bytes_max.saturating_sub(bytes);
            let fit = rows_that_fit(&next.batch, rows_left, bytes_left);
            let fit = if rows == 0 { fit.max(1) } else { fit };
            let (taken, left) = split(next, fit);
            if let Some(taken) = taken {
                rows += taken.batch.num_rows();
                bytes += batch_bytes(&taken.batch);
                group.push(taken);
            }
            if let Some(left) = left {
                self.queue.push_front(left);
                break;
            }
        }
        self.rows -= rows;
        self.bytes = self.queue.iter().map(|rows| batch_bytes(&rows.batch)).sum();
        group
    }

    /// Gives back the rows of a series, or else of a bucket of time, that only begins in the last part of the group: one
    /// that ends with its series has narrower zone maps, and the next one needs not begin in the middle.
    fn cut_early(&mut self, group: &mut Vec<SegmentRows>) -> Result<(), EngineError> {
        let rows: usize = group.iter().map(|rows| rows.batch.num_rows()).sum();
        let tail = rows / EARLY_CUT_PART;
        if tail < 2 {
            return Ok(());
        }
        let rows_error = |error: ArrowError| EngineError::Rows(error.to_string());
        let keys = self.series.iter().map(|at| tail_of(group, *at, tail)).collect::<Result<Vec<_>, _>>();
        let series = piece_writer::series_of(&keys.map_err(rows_error)?, tail).map_err(rows_error)?;
        let kept = match series.as_slice() {
            [.., last] if last.start > 0 => Some(last.start),
            _ => match self.time.map(|at| tail_of(group, at, tail)).transpose().map_err(rows_error)? {
                Some(times) => last_bucket(&times),
                None => None,
            },
        };
        if let Some(kept) = kept {
            self.give_back(group, tail - kept);
        }
        Ok(())
    }

    fn give_back(&mut self, group: &mut Vec<SegmentRows>, mut rows: usize) {
        while rows > 0
            && let Some(last) = group.pop()
        {
            let count = last.batch.num_rows();
            let (kept, left) = split(last, count.saturating_sub(rows));
            rows -= rows.min(count);
            group.extend(kept);
            if let Some(left) = left {
                self.rows += left.batch.num_rows();
                self.bytes += batch_bytes(&left.batch);
                self.queue.push_front(left);
            }
        }
    }
}

/// A column of the last rows.
fn tail_of(group: &[SegmentRows], at: usize, rows: usize) -> Result<ArrayRef, ArrowError> {
    let (mut parts, mut left) = (Vec::new(), rows);
    for rows in group.iter().rev() {
        let taken = rows.batch.num_rows().min(left);
        parts.push(rows.batch.column(at).slice(rows.batch.num_rows() - taken, taken));
        left -= taken;
        if left == 0 {
            break;
        }
    }
    let parts: Vec<&dyn Array> = parts.iter().rev().map(AsRef::as_ref).collect();
    arrow::compute::concat(&parts)
}

/// The row in which the last of the widest buckets begins that end among these times.
fn last_bucket(times: &ArrayRef) -> Option<usize> {
    let times = piece_writer::times_of(times)?;
    WIDTHS_US.iter().rev().find_map(|width| {
        let bucket = piece_writer::bucket_of(*times.last()?, *width)?;
        let start = times.iter().rposition(|time| !bucket.contains(time))? + 1;
        Some(start)
    })
}

/// The first `rows` and the rest.
fn split(rows: SegmentRows, at: usize) -> (Option<SegmentRows>, Option<SegmentRows>) {
    let count = rows.batch.num_rows();
    if at == 0 {
        return (None, Some(rows));
    }
    if at >= count {
        return (Some(rows), None);
    }
    let SegmentRows { batch, commits } = rows;
    let (head, tail) = match commits {
        Some(mut head) => {
            let tail = head.split_off(at);
            (Some(head), Some(tail))
        }
        None => (None, None),
    };
    let head = SegmentRows { batch: batch.slice(0, at), commits: head };
    (Some(head), Some(SegmentRows { batch: batch.slice(at, count - at), commits: tail }))
}

/// How many of the first rows stay within both limits.
fn rows_that_fit(batch: &RecordBatch, rows_max: usize, bytes_max: usize) -> usize {
    let rows = batch.num_rows().min(rows_max);
    if batch_bytes(&batch.slice(0, rows)) <= bytes_max {
        return rows;
    }
    let (mut fits, mut over) = (0, rows);
    while over - fits > 1 {
        let middle = fits + (over - fits) / 2;
        if batch_bytes(&batch.slice(0, middle)) <= bytes_max { fits = middle } else { over = middle }
    }
    fits
}

/// Bytes of the rows in Arrow's form; those that a slice leaves out do not count. A column that has more than its part
/// counts as if all were like it.
fn batch_bytes(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter().map(array_bytes);
    let widest = columns.clone().max().unwrap_or(0);
    columns.sum::<usize>().max(widest * COLUMN_PART)
}

fn array_bytes(array: &ArrayRef) -> usize {
    let span = |offsets: &[i32]| (offsets[array.len()] - offsets[0]) as usize;
    match array.data_type() {
        DataType::Utf8 => array.len() * 4 + span(array.as_string::<i32>().value_offsets()),
        DataType::Binary => array.len() * 4 + span(array.as_binary::<i32>().value_offsets()),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let first = list.value_offsets()[0] as usize;
            array.len() * 4 + array_bytes(&list.values().slice(first, span(list.value_offsets())))
        }
        DataType::FixedSizeBinary(width) => array.len() * *width as usize,
        DataType::Boolean => array.len().div_ceil(8),
        fixed => array.len() * fixed.primitive_width().unwrap_or(16),
    }
}

/// The open file.
struct SegmentWriter<'a, F: DiskFile> {
    file: F,
    path: PathBuf,
    header: Header,
    spec: &'a SegmentSpec,
    time_column: Option<usize>,
    encoder: ColumnEncoder,
    /// Bytes after `position`, not written yet.
    buffer: Vec<u8>,
    /// Bytes written, whole blocks.
    position: u64,
    row_groups: Vec<FooterRowGroup>,
    pieces: Vec<Option<FooterPieces>>,
}

impl<'a, F: DiskFile> SegmentWriter<'a, F> {
    fn new(file: F, spec: &'a SegmentSpec) -> Result<Self, EngineError> {
        let header = Header {
            version: SEGMENT_VERSION,
            cluster: spec.cluster,
            chunk: spec.chunk,
            segment: spec.segment,
            table: spec.table,
            schema_version: spec.schema.version,
        };
        let path = file.path().to_owned();
        let encoder = ColumnEncoder::new().map_err(|error| DiskError::of("compress", &path, error))?;
        Ok(Self {
            time_column: spec.sort.time.and_then(|time| spec.schema.position_of(time)),
            buffer: header.encode(),
            position: 0,
            row_groups: Vec::new(),
            pieces: Vec::new(),
            file,
            path,
            header,
            spec,
            encoder,
        })
    }

    async fn write_row_group(&mut self, group: Vec<SegmentRows>, pause: &impl AsyncFn()) -> Result<(), EngineError> {
        let rows: usize = group.iter().map(|rows| rows.batch.num_rows()).sum();
        let found = self.find_pieces(&group)?;
        pause().await;
        // Statistics lie together behind the pages, so that they are read without them.
        let (mut statistics, mut parts) = (Vec::new(), Vec::new());
        let mut pages = Vec::with_capacity(self.spec.schema.columns.len());
        let mut time = None;
        for at in 0..self.spec.schema.columns.len() {
            let column = whole(&group, at)?;
            let page = self.write_page(at, &column)?;
            if self.time_column == Some(at)
                && let Zone::Int { min, max } = page.zone
            {
                time = Some(FooterRange { min, max });
            }
            pages.push(page);
            if let Some(found) = &found
                && self.encode_statistics(found, at, &column, &mut statistics)?
            {
                parts.push((at, statistics.len()));
            }
            pause().await;
        }
        let commits = self.write_commits(&group);
        self.row_groups.push(FooterRowGroup { rows: rows as u32, time, commits, pages });
        let pieces = match found {
            Some(found) => Some(self.write_pieces(&found, &statistics, &parts)?),
            None => None,
        };
        self.pieces.push(pieces);
        if self.buffer.len() >= WRITE_BYTES {
            self.write_whole_blocks().await?;
        }
        Ok(())
    }

    /// `None` where they would not pay.
    fn find_pieces(&self, group: &[SegmentRows]) -> Result<Option<FoundPieces>, EngineError> {
        let Some(time) = self.time_column else { return Ok(None) };
        let times = whole(group, time)?;
        let Some(times) = piece_writer::times_of(&times) else { return Ok(None) };
        let positions = self.spec.sort.segment_by.iter().filter_map(|id| self.spec.schema.position_of(*id));
        let keys = positions.map(|at| whole(group, at)).collect::<Result<Vec<_>, _>>()?;
        let series = piece_writer::series_of(&keys, times.len());
        Ok(piece_writer::find(&series.map_err(|error| EngineError::Rows(error.to_string()))?, times))
    }

    /// Whether the column has any.
    fn encode_statistics(
        &mut self,
        found: &FoundPieces,
        at: usize,
        column: &ArrayRef,
        out: &mut Vec<u8>,
    ) -> Result<bool, EngineError> {
        let sql_type = &self.spec.schema.columns[at].sql_type;
        let statistics = found.statistics(column, sql_type, self.time_column == Some(at));
        match statistics.map_err(|error| EngineError::Rows(error.to_string()))? {
            Some(statistics) => statistics.encode(sql_type, &mut self.encoder, out).map(|()| true),
            None => Ok(false),
        }
    }

    /// `parts`: the column of each part of the statistics, and where it ends.
    fn write_pieces(
        &mut self,
        found: &FoundPieces,
        statistics: &[u8],
        parts: &[(usize, usize)],
    ) -> Result<FooterPieces, EngineError> {
        let start = self.buffer.len();
        found.pieces.encode(&mut self.encoder, &mut self.buffer)?;
        let directory = self.seal(start);
        let (mut columns, mut from) = (Vec::with_capacity(parts.len()), 0);
        for (at, end) in parts {
            let start = self.buffer.len();
            self.buffer.extend_from_slice(&statistics[from..*end]);
            columns.push(FooterPieceColumn { position: *at as u16, place: self.seal(start) });
            from = *end;
        }
        let Pieces { width_us, starts, .. } = &found.pieces;
        Ok(FooterPieces { width_us: *width_us, count: starts.len() as u32, directory, columns })
    }

    fn write_page(&mut self, at: usize, array: &ArrayRef) -> Result<FooterPage, EngineError> {
        let column = &self.spec.schema.columns[at];
        let start = self.buffer.len();
        let facts = self.encoder.encode(array, &column.sql_type, &mut self.buffer)?;
        Ok(self.seal_page(start, facts))
    }

    /// `None` for a staged run.
    fn write_commits(&mut self, group: &[SegmentRows]) -> Option<FooterCommits> {
        let commits: Vec<u64> = group.iter().filter_map(|rows| rows.commits.as_deref()).flatten().copied().collect();
        let (min, max) = (commits.iter().min().copied()?, commits.iter().max().copied()?);
        if min == max {
            return Some(FooterCommits { min, max, page: None });
        }
        let start = self.buffer.len();
        let encoding = self.encoder.encode_commits(&commits, &mut self.buffer);
        let page = self.seal_page(start, PageFacts { encoding, null_count: 0, zone: Zone::Unknown });
        Some(FooterCommits { min, max, page: Some(page) })
    }

    /// Appends the checksum to the page that begins at `start` of the buffer.
    fn seal_page(&mut self, start: usize, facts: PageFacts) -> FooterPage {
        let FooterPlace { offset, bytes } = self.seal(start);
        let null_count = facts.null_count as u32;
        FooterPage { offset, bytes, encoding: facts.encoding.code(), null_count, zone: facts.zone }
    }

    /// Appends the checksum to what begins at `start` of the buffer.
    fn seal(&mut self, start: usize) -> FooterPlace {
        let offset = self.position + start as u64;
        let checksum = page::checksum(self.header.chunk, self.header.segment, offset, &self.buffer[start..]);
        self.buffer.extend_from_slice(&checksum.to_le_bytes());
        let bytes = u32::try_from(self.buffer.len() - start).expect("a page is far below 4 GiB");
        FooterPlace { offset, bytes }
    }

    async fn write_whole_blocks(&mut self) -> Result<(), EngineError> {
        let whole = self.buffer.len() - self.buffer.len() % BLOCK_BYTES;
        let mut start = 0;
        while start < whole {
            let end = (start + WRITE_BYTES).min(whole);
            self.file.write_at(self.position, AlignedBuffer::of(&self.buffer[start..end])).await?;
            self.position += (end - start) as u64;
            start = end;
        }
        self.buffer.drain(..whole);
        Ok(())
    }

    async fn finish(mut self) -> Result<SegmentSummary, EngineError> {
        let footer = FooterV3 { pieces: std::mem::take(&mut self.pieces), contents: self.contents() };
        let bytes = footer.encode().map_err(|error| EngineError::Rows(format!("the footer: {error}")))?;
        let footer_offset = self.position + self.buffer.len() as u64;
        let trailer = Trailer {
            footer_offset,
            footer_bytes: bytes.len(),
            footer_checksum: page::checksum(self.header.chunk, self.header.segment, footer_offset, &bytes),
        };
        self.buffer.extend_from_slice(&bytes);
        // The trailer ends the last block, so that the file consists of whole blocks and has no length of its own.
        let end = (self.buffer.len() + TRAILER_BYTES).next_multiple_of(BLOCK_BYTES);
        self.buffer.resize(end - TRAILER_BYTES, 0);
        let trailer = trailer.encode(&self.header, self.position + self.buffer.len() as u64);
        self.buffer.extend_from_slice(&trailer);
        self.write_whole_blocks().await?;
        self.file.sync().await?;
        let footer = footer.contents;
        tracing::debug!(path = %self.path.display(), rows = footer.rows, bytes = self.position, "segment written");
        Ok(summary(self.header.segment, self.position, &footer))
    }

    fn contents(&mut self) -> FooterV1 {
        let column = |column: &meridian_proto::schema::Column| FooterColumn {
            id: column.id.0,
            sql_type: column.sql_type.to_string(),
        };
        let row_groups = std::mem::take(&mut self.row_groups);
        FooterV1 {
            columns: self.spec.schema.columns.iter().map(column).collect(),
            segment_by: self.spec.sort.segment_by.iter().map(|id| id.0).collect(),
            time_column: self.spec.sort.time.map(|id| id.0),
            rows: row_groups.iter().map(|group| u64::from(group.rows)).sum(),
            has_commits: row_groups.iter().any(|group| group.commits.is_some()),
            row_groups,
        }
    }
}

/// A column of all rows.
fn whole(group: &[SegmentRows], at: usize) -> Result<ArrayRef, EngineError> {
    match group {
        [only] => Ok(ArrayRef::clone(only.batch.column(at))),
        parts => {
            let parts: Vec<&dyn Array> = parts.iter().map(|rows| rows.batch.column(at).as_ref()).collect();
            arrow::compute::concat(&parts).map_err(|error| EngineError::Rows(error.to_string()))
        }
    }
}

fn summary(segment: SegmentId, file_bytes: u64, footer: &FooterV1) -> SegmentSummary {
    let times = footer.row_groups.iter().filter_map(|group| group.time).map(|time| (time.min, time.max));
    let commits = footer.row_groups.iter().filter_map(|group| group.commits.as_ref());
    let commits = commits.map(|commits| (Ts(commits.min), Ts(commits.max)));
    SegmentSummary {
        segment,
        rows: footer.rows,
        row_groups: footer.row_groups.len(),
        file_bytes,
        time: times.reduce(widen),
        commits: commits.reduce(widen),
    }
}

/// The range that holds both.
pub(super) fn widen<T: Ord>(a: (T, T), b: (T, T)) -> (T, T) {
    (a.0.min(b.0), a.1.max(b.1))
}
