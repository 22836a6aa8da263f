//! Sorted segments become one stream of sorted rows. One row group of each is in memory; stretches of rows that no other
//! segment has anything between are passed on as they are.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use meridian_proto::Ts;
use meridian_proto::schema::TableSchema;

use crate::disk::DiskFile;
use crate::error::EngineError;
use crate::order::{KeyRows, Keys};
use crate::pace::breathe;
use crate::segment::{SegmentReader, SegmentRows};

/// Rows that are handed out at once, about.
const BATCH_ROWS: usize = 8192;
/// Stretches of at least so many rows are sliced instead of copied: the segment writer puts slices together itself.
const SLICE_ROWS: usize = 512;

/// A sorted segment.
pub struct Source<F: DiskFile> {
    pub reader: Rc<SegmentReader<F>>,
    /// Of a decided run, whose rows have no commit timestamps of their own.
    pub commit: Option<Ts>,
}

impl<F: DiskFile> Clone for Source<F> {
    fn clone(&self) -> Self {
        Self { reader: Rc::clone(&self.reader), commit: self.commit }
    }
}

/// What a merge is done for.
pub struct MergeTarget {
    pub schema: Arc<TableSchema>,
    pub keys: Keys,
    /// Commit timestamps up to here need not be told apart any more.
    pub history_upto: Ts,
}

/// Rows of one row group, all columns of the table.
pub struct GroupRows {
    pub batch: RecordBatch,
    pub commits: Vec<u64>,
}

impl MergeTarget {
    /// Reads a row group as rows of the table's current schema.
    pub async fn read<F: DiskFile>(&self, source: &Source<F>, group: usize) -> Result<GroupRows, EngineError> {
        let rows = source.reader.read(group, &self.schema.columns, &breathe).await?;
        let count = rows.batch.num_rows();
        let commits = match (source.commit, &rows.commits) {
            (Some(commit), _) => vec![self.kept(commit); count],
            (None, Some(commits)) => (0..count).map(|row| self.kept(commits.get(row))).collect(),
            (None, None) => {
                return Err(EngineError::Rows(format!("{} has no commits", source.reader.path().display())));
            }
        };
        Ok(GroupRows { batch: rows.batch, commits })
    }

    /// R9: versions are told apart as long as a snapshot may need it. Below the horizon every snapshot sees the row, and
    /// one timestamp for all of them takes no space.
    fn kept(&self, commit: Ts) -> u64 {
        if commit <= self.history_upto { 0 } else { commit.0 }
    }

    /// The table's columns; rows from before a column was NOT NULL may lack it.
    pub fn arrow(&self) -> SchemaRef {
        let nullable = |column: &meridian_proto::schema::Column| column.sql_type.field(&column.name, true);
        Arc::new(Schema::new(self.schema.columns.iter().map(nullable).collect::<Vec<Field>>()))
    }
}

/// A source at the row that comes next.
pub struct Cursor<F: DiskFile> {
    source: Source<F>,
    group_next: usize,
    current: Option<Current>,
}

struct Current {
    rows: GroupRows,
    keys: KeyRows,
    at: usize,
}

impl<F: DiskFile> Cursor<F> {
    /// At the first row, with the first row group in memory.
    pub async fn open(source: Source<F>, target: &MergeTarget) -> Result<Self, EngineError> {
        let mut cursor = Self { source, group_next: 0, current: None };
        cursor.load(target).await?;
        Ok(cursor)
    }

    pub fn into_source(self) -> Source<F> {
        self.source
    }

    pub fn memory_bytes(&self) -> usize {
        self.current.as_ref().map_or(0, |current| {
            current.rows.batch.get_array_memory_size() + current.rows.commits.len() * 8 + current.keys.memory_bytes()
        })
    }

    async fn load(&mut self, target: &MergeTarget) -> Result<(), EngineError> {
        let before = self.current.take();
        if self.group_next == self.source.reader.row_groups().len() {
            return Ok(());
        }
        let rows = target.read(&self.source, self.group_next).await?;
        let keys = target.keys.of(&rows.batch).await.map_err(arrow)?;
        let follows = before.is_none_or(|before| before.keys.compare(before.at - 1, &keys, 0).is_le());
        let is_sorted = is_sorted(&keys, rows.batch.num_rows()).await;
        if !follows || !is_sorted {
            return Err(EngineError::OutOfOrder { path: self.source.reader.path().to_owned() });
        }
        self.group_next += 1;
        self.current = Some(Current { rows, keys, at: 0 });
        Ok(())
    }
}

/// Verified, not believed: a merge of unsorted rows would be a segment whose zone maps and order lie.
async fn is_sorted(keys: &KeyRows, count: usize) -> bool {
    for row in 1..count {
        if keys.compare(row - 1, keys, row).is_gt() {
            return false;
        }
        if row % BATCH_ROWS == 0 {
            breathe().await;
        }
    }
    true
}

impl Current {
    fn is_at_end(&self) -> bool {
        self.at == self.rows.batch.num_rows()
    }

    /// End of the rows that come before the row at which `other` stands, found by doubling steps.
    fn end_before(&self, other: &Self, wins_ties: bool) -> usize {
        let comes_before = |row: usize| {
            let compared = self.keys.compare(row, &other.keys, other.at);
            compared.is_lt() || wins_ties && compared.is_eq()
        };
        let count = self.rows.batch.num_rows();
        let (mut known, mut step) = (self.at, 1);
        while known + step < count && comes_before(known + step) {
            known += step;
            step *= 2;
        }
        let mut end = (known + step).min(count);
        while end - known > 1 {
            let middle = known + (end - known) / 2;
            if comes_before(middle) { known = middle } else { end = middle }
        }
        end
    }
}

/// The rows of all cursors in order; rows of equal key in the order of the cursors.
pub struct Merge<'a, F: DiskFile> {
    target: &'a MergeTarget,
    arrow: SchemaRef,
    cursors: Vec<Cursor<F>>,
    ready: VecDeque<SegmentRows>,
}

/// Consecutive rows of a cursor's row group.
struct Stretch {
    cursor: usize,
    rows: Range<usize>,
}

impl<'a, F: DiskFile> Merge<'a, F> {
    pub fn new(target: &'a MergeTarget, cursors: Vec<Cursor<F>>) -> Self {
        Self { target, arrow: target.arrow(), cursors, ready: VecDeque::new() }
    }

    /// Whether all rows were handed out.
    pub fn is_done(&self) -> bool {
        self.ready.is_empty() && self.cursors.iter().all(|cursor| cursor.current.is_none())
    }

    pub async fn next(&mut self) -> Result<Option<SegmentRows>, EngineError> {
        while self.ready.is_empty() && !self.is_done() {
            let stretches = self.take_stretches();
            self.gather(&stretches).map_err(arrow)?;
            for cursor in &mut self.cursors {
                if cursor.current.as_ref().is_some_and(Current::is_at_end) {
                    cursor.load(self.target).await?;
                }
            }
            breathe().await;
        }
        Ok(self.ready.pop_front())
    }

    /// The next rows, up to the end of a row group, whose rows are needed until these are gathered.
    fn take_stretches(&mut self) -> Vec<Stretch> {
        let (mut stretches, mut rows) = (Vec::new(), 0);
        while rows < BATCH_ROWS {
            let Some(first) = self.least(None) else { break };
            let second = self.least(Some(first));
            let current = |at: usize| self.cursors[at].current.as_ref();
            let Some(leading) = current(first) else { break };
            let end = match second.and_then(|second| Some((second, current(second)?))) {
                Some((second, other)) => leading.end_before(other, first < second),
                None => leading.rows.batch.num_rows(),
            };
            let taken = leading.at..end.min(leading.at + BATCH_ROWS - rows);
            rows += taken.len();
            let Some(leading) = self.cursors[first].current.as_mut() else { break };
            leading.at = taken.end;
            let is_at_end = leading.is_at_end();
            stretches.push(Stretch { cursor: first, rows: taken });
            if is_at_end {
                break;
            }
        }
        stretches
    }

    /// The cursor whose row comes first, but for one of them.
    fn least(&self, except: Option<usize>) -> Option<usize> {
        let mut least: Option<(usize, &Current)> = None;
        for (at, cursor) in self.cursors.iter().enumerate() {
            let Some(current) = cursor.current.as_ref().filter(|current| Some(at) != except && !current.is_at_end())
            else {
                continue;
            };
            if least.is_none_or(|(_, best)| current.keys.compare(current.at, &best.keys, best.at).is_lt()) {
                least = Some((at, current));
            }
        }
        least.map(|(at, _)| at)
    }

    fn gather(&mut self, stretches: &[Stretch]) -> Result<(), ArrowError> {
        let groups: Vec<Option<&GroupRows>> =
            self.cursors.iter().map(|cursor| cursor.current.as_ref().map(|current| &current.rows)).collect();
        let taken: Vec<(&Stretch, &GroupRows)> =
            stretches.iter().filter_map(|stretch| Some((stretch, groups[stretch.cursor]?))).collect();
        let count: usize = stretches.iter().map(|stretch| stretch.rows.len()).sum();
        let mut gathered = Vec::new();
        if count >= stretches.len() * SLICE_ROWS {
            for (Stretch { rows, .. }, group) in taken {
                let commits = Some(group.commits[rows.clone()].to_vec());
                gathered.push(SegmentRows { batch: group.batch.slice(rows.start, rows.len()), commits });
            }
        } else {
            let commits = taken.iter().flat_map(|(stretch, group)| &group.commits[stretch.rows.clone()]);
            let commits = Some(commits.copied().collect());
            gathered.push(SegmentRows { batch: interleaved(&self.arrow, &groups, stretches)?, commits });
        }
        self.ready.extend(gathered);
        Ok(())
    }
}

/// The stretches copied into one batch.
fn interleaved(
    arrow: &SchemaRef,
    groups: &[Option<&GroupRows>],
    stretches: &[Stretch],
) -> Result<RecordBatch, ArrowError> {
    // Only cursors that take part, each with its place among them.
    let mut places = vec![usize::MAX; groups.len()];
    let mut used = Vec::new();
    for stretch in stretches {
        if let (usize::MAX, Some(group)) = (places[stretch.cursor], groups[stretch.cursor]) {
            places[stretch.cursor] = used.len();
            used.push(group);
        }
    }
    let rows = |stretch: &Stretch| {
        let place = places[stretch.cursor];
        stretch.rows.clone().map(move |row| (place, row))
    };
    let indices: Vec<(usize, usize)> = stretches.iter().flat_map(rows).collect();
    let column = |column: usize| {
        let arrays: Vec<&dyn Array> = used.iter().map(|group| group.batch.column(column).as_ref()).collect();
        interleave(&arrays, &indices)
    };
    let columns = (0..arrow.fields().len()).map(column).collect::<Result<Vec<ArrayRef>, _>>()?;
    RecordBatch::try_new(Arc::clone(arrow), columns)
}

/// The rows (number of the group, row within it) as one batch.
pub fn gathered(arrow: &SchemaRef, groups: &[GroupRows], rows: &[(u32, u32)]) -> Result<SegmentRows, ArrowError> {
    let indices: Vec<(usize, usize)> = rows.iter().map(|(group, row)| (*group as usize, *row as usize)).collect();
    let column = |column: usize| {
        let arrays: Vec<&dyn Array> = groups.iter().map(|group| group.batch.column(column).as_ref()).collect();
        interleave(&arrays, &indices)
    };
    let columns = (0..arrow.fields().len()).map(column).collect::<Result<Vec<ArrayRef>, _>>()?;
    let commits = indices.iter().map(|(group, row)| groups[*group].commits[*row]).collect();
    Ok(SegmentRows { batch: RecordBatch::try_new(Arc::clone(arrow), columns)?, commits: Some(commits) })
}

fn arrow(error: ArrowError) -> EngineError {
    EngineError::Rows(error.to_string())
}
