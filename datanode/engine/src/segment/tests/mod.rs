//! What all tests of segments share: a file in memory, random columns of every type, whole files written and read.

mod corpora;
mod damage;
mod every_encoding;
mod fixture;
mod mutation;
mod pieces;
mod pruning;
mod ranges;
mod round_trip;
mod rows;

use std::cell::Cell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use arrow::array::RecordBatch;
use futures::executor::block_on;
use meridian_proto::ids::{ChunkId, ClusterId, ColumnId, SchemaVersion, SegmentId, TableId};
use meridian_proto::schema::{Column, TableSchema};
use meridian_proto::types::SqlType;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::reader::Commits;
use super::{SegmentExpectation, SegmentLimits, SegmentReader, SegmentRows, SegmentSpec, SegmentSummary, write};
use crate::disk::{AlignedBuffer, Disk, DiskError, DiskFile, ReadBuffer, SimulatedDisk};
use crate::error::EngineError;
use crate::layout;
use crate::scan::SortKey;

const CLUSTER: ClusterId = ClusterId(0x1234_5678_9abc_def0_0fed_cba9_8765_4321);
const CHUNK: ChunkId = ChunkId(7);
const SEGMENT: SegmentId = SegmentId(41);
const EXPECTED: SegmentExpectation = SegmentExpectation { cluster: CLUSTER, chunk: CHUNK, segment: SEGMENT };

async fn no_pause() {}

fn directory() -> PathBuf {
    PathBuf::from("/chunk")
}

fn file_path() -> PathBuf {
    layout::segment_path(&directory(), SEGMENT)
}

/// A table with these columns, named and numbered in order.
fn schema(types: &[SqlType]) -> TableSchema {
    let column = |(number, sql_type): (u16, &SqlType)| Column {
        id: ColumnId(number),
        name: format!("c{number}"),
        sql_type: sql_type.clone(),
        not_null: false,
        default: None,
        modifier: None,
    };
    TableSchema { version: SchemaVersion(3), columns: (1..).zip(types).map(column).collect() }
}

fn spec(schema: &TableSchema, sort: SortKey) -> SegmentSpec {
    SegmentSpec {
        cluster: CLUSTER,
        table: TableId(16_400),
        chunk: CHUNK,
        segment: SEGMENT,
        schema: schema.clone(),
        sort,
    }
}

/// Some of so many rows: up to a dozen ranges.
fn some_ranges(random: &mut ChaCha8Rng, rows: usize) -> Vec<Range<usize>> {
    let count = random.random_range(0..13) * 2;
    let mut borders: Vec<usize> = (0..count).map(|_| random.random_range(0..=rows)).collect();
    borders.sort_unstable();
    borders.as_chunks::<2>().0.iter().map(|[start, end]| *start..*end).collect()
}

fn write_to(
    disk: &SimulatedDisk,
    spec: &SegmentSpec,
    rows: Vec<SegmentRows>,
    limits: SegmentLimits,
) -> Result<SegmentSummary, EngineError> {
    let rows = futures::stream::iter(rows.into_iter().map(Ok));
    block_on(async {
        disk.create_directory(&directory()).await?;
        write(disk, &directory(), spec, rows, limits, &no_pause).await
    })
}

/// The bytes of a file with these rows.
fn file_of(schema: &TableSchema, rows: Vec<SegmentRows>, limits: SegmentLimits) -> Vec<u8> {
    let disk = SimulatedDisk::new(1);
    write_to(&disk, &spec(schema, SortKey::default()), rows, limits).unwrap();
    disk.bytes(&file_path()).unwrap()
}

fn limits(rows: usize) -> SegmentLimits {
    SegmentLimits { row_group_rows_max: rows, ..SegmentLimits::default() }
}

/// All that a file holds: one batch and the commit timestamps for each row group.
type Contents = Vec<(RecordBatch, Option<Commits>)>;

fn read_all(disk: &OneFile, columns: &[Column]) -> Result<Contents, EngineError> {
    block_on(async {
        let reader = SegmentReader::open(disk, &directory(), EXPECTED).await?;
        let mut contents = Vec::new();
        for row_group in 0..reader.row_groups().len() {
            let rows = reader.read(row_group, columns, &no_pause).await?;
            contents.push((rows.batch, rows.commits));
        }
        Ok(contents)
    })
}

fn open(disk: &OneFile) -> SegmentReader<OneFile> {
    block_on(SegmentReader::open(disk, &directory(), EXPECTED)).unwrap()
}

/// A disk with one file, under every name, whose bytes the test chooses. Counts what is read.
#[derive(Clone, Default)]
struct OneFile {
    bytes: Rc<Vec<u8>>,
    reads: Rc<Cell<u64>>,
}

impl OneFile {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Rc::new(bytes), reads: Rc::default() }
    }
}

const READ_ONLY: DiskError = DiskError::DiskFull { operation: "change", path: PathBuf::new() };

impl Disk for OneFile {
    type File = Self;

    async fn create(&self, _: &Path) -> Result<Self, DiskError> {
        Err(READ_ONLY)
    }

    async fn open(&self, _: &Path) -> Result<Self, DiskError> {
        Ok(self.clone())
    }

    async fn rename(&self, _: &Path, _: &Path) -> Result<(), DiskError> {
        Err(READ_ONLY)
    }

    async fn remove(&self, _: &Path) -> Result<(), DiskError> {
        Err(READ_ONLY)
    }

    async fn create_directory(&self, _: &Path) -> Result<(), DiskError> {
        Err(READ_ONLY)
    }

    async fn remove_directory(&self, _: &Path) -> Result<(), DiskError> {
        Err(READ_ONLY)
    }

    async fn list(&self, _: &Path) -> Result<Vec<String>, DiskError> {
        Ok(Vec::new())
    }

    async fn sync_directory(&self, _: &Path) -> Result<(), DiskError> {
        Err(READ_ONLY)
    }
}

impl DiskFile for OneFile {
    fn path(&self) -> &Path {
        Path::new("/chunk/0000000000000029.seg")
    }

    async fn size(&self) -> Result<u64, DiskError> {
        Ok(self.bytes.len() as u64)
    }

    async fn write_at(&self, _: u64, _: AlignedBuffer) -> Result<AlignedBuffer, DiskError> {
        Err(READ_ONLY)
    }

    async fn read_at(&self, position: u64, length: usize) -> Result<ReadBuffer, DiskError> {
        self.reads.set(self.reads.get() + 1);
        let start = usize::try_from(position).unwrap().min(self.bytes.len());
        let end = start.saturating_add(length).min(self.bytes.len());
        Ok(ReadBuffer::Heap(self.bytes[start..end].to_vec()))
    }

    async fn sync(&self) -> Result<(), DiskError> {
        Err(READ_ONLY)
    }
}
