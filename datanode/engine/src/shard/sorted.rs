//! A scan of several chunks whose rows come out in an order: a merge of what is sorted in itself. Sources stand in a heap
//! by the least key that they may still have; one is opened, or read on, only when it is the least, so that a reader who
//! wants few rows reads few. Rows that no other source has anything between are passed on as slices.

mod fresh;
mod loose;
mod part;
mod rows;
mod stretch;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::SortField;
use futures::future::join;
use meridian_proto::Refusal;

use self::fresh::Fresh;
use self::loose::Loose;
pub(super) use self::part::Part;
use self::rows::SeriesRows;
use self::stretch::{Key, Stretch, Taken, gathered};
use super::Inner;
use super::budget::{Permit, ScanBudget};
use super::chunk::LiveSegment;
use super::open::OpenSegments;
use super::piece::Piece;
use super::stream::{row_bytes, rows as flaw};
use crate::disk::{Disk, GlommioDisk};
use crate::error::EngineError;
use crate::leaf::{LeafCache, SeriesPredicate, SortedBy};
use crate::order::Keys;
use crate::pace::{self, breathe_reading};
use crate::scan::{BATCH_ROWS_MAX, Scan, ScanStatistics, SortColumn};
use crate::segment::ReadAhead;

/// Decoded rows that wait in all sources together, about. 16 MiB are 40 Ki rows of 400 bytes.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// Rows of a source that are read at once: few at first, for those who want few, then more from time to time.
const LOAD_ROWS_MIN: usize = 1024;
const LOAD_ROWS_MAX: usize = 64 << 10;
/// Rows that are read at once where there is memory for no more.
const LOAD_ROWS_LEAST: usize = 256;
/// Rows of the first batch; the next ones are longer.
const FIRST_ROWS: usize = 1024;
/// Rows of a batch while a write is waited for: what a plan makes of more of them holds it up.
const ROWS_BESIDE_WRITES: usize = 2048;
/// Reads without handing anything out: some 10 ms.
const STEPS_MAX: usize = 16;
/// Rows that are read at once by then: who wanted few has them.
const AHEAD_ROWS_MIN: usize = 4 * LOAD_ROWS_MIN;

/// A scan of some chunks in an order.
pub struct SortedScan {
    /// All of the same columns, among which are those of the order.
    pub scans: Vec<Scan>,
    pub order: Vec<SortColumn>,
    /// Of series that one of them leaves out no row is wanted.
    pub predicates: Rc<Vec<SeriesPredicate>>,
}

pub struct SortedStream<D: Disk = GlommioDisk> {
    reading: Reading<D>,
    sources: Vec<Source<D>>,
    /// Sources that are not at their end, by the least key that they may have.
    least: BinaryHeap<Reverse<(Key, usize)>>,
    /// Pages of a source that was to come next, and which one.
    ahead: Option<(usize, ReadAhead)>,
    /// What the next batch is made of.
    taken: Vec<Taken>,
    taken_rows: usize,
    ready: VecDeque<RecordBatch>,
    batch_rows: usize,
    /// Rows of the batch that is being put together.
    target_rows: usize,
}

/// What all sources share.
struct Reading<D: Disk> {
    disk: D,
    opened: Rc<OpenSegments<D::File>>,
    cache: Rc<LeafCache<D::File>>,
    parts: Vec<Rc<Part<D>>>,
    predicates: Rc<Vec<SeriesPredicate>>,
    sorted_by: Rc<SortedBy>,
    projected: SchemaRef,
    row_bytes: usize,
    budget: Rc<ScanBudget>,
    permit: Option<Permit>,
    waiting_bytes: usize,
    /// Sources that hold them.
    waiting_sources: usize,
    load_rows: usize,
    statistics: ScanStatistics,
}

/// Something that is sorted in itself: rows that were read, and the rest.
struct Source<D: Disk> {
    stretches: VecDeque<Stretch>,
    rest: Rest<D>,
}

enum Rest<D: Disk> {
    Nothing,
    Segment(Rc<Part<D>>, Rc<LiveSegment<D::File>>),
    RowGroup(Rc<Part<D>>, Piece<D>),
    Series(Box<SeriesRows<D>>),
    Loose(Box<Loose<D>>),
    Fresh(Box<Fresh>),
}

impl<D: Disk> SortedStream<D> {
    pub(super) fn new(inner: &Inner<D>, scan: SortedScan, parts: Vec<Part<D>>) -> Result<Self, Refusal> {
        let Some(first) = parts.first() else {
            return Err(Refusal::Protocol("a sorted scan of no chunk".to_owned()));
        };
        let sorted_by = sorted_by(scan.order, first, &scan.scans[0].columns)?;
        let fields = first.columns.iter().map(|column| column.sql_type.field(&column.name, !column.not_null));
        let reading = Reading {
            disk: inner.disk.clone(),
            opened: Rc::clone(&inner.opened),
            cache: Rc::clone(&inner.leaf_cache),
            predicates: scan.predicates,
            sorted_by: Rc::new(sorted_by),
            projected: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            row_bytes: row_bytes(&first.columns),
            parts: parts.into_iter().map(Rc::new).collect(),
            budget: Rc::clone(&inner.scan_budget),
            permit: None,
            waiting_bytes: 0,
            waiting_sources: 0,
            load_rows: LOAD_ROWS_MIN,
            statistics: ScanStatistics::default(),
        };
        let batch_rows = scan.scans[0].batch_rows.clamp(1, BATCH_ROWS_MAX);
        let mut stream = Self {
            reading,
            sources: Vec::new(),
            least: BinaryHeap::new(),
            ahead: None,
            taken: Vec::new(),
            taken_rows: 0,
            ready: VecDeque::new(),
            batch_rows,
            target_rows: FIRST_ROWS.min(batch_rows),
        };
        for part in stream.reading.parts.clone() {
            stream.add_part(&part)?;
        }
        Ok(stream)
    }

    /// The Arrow schema of the batches.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.reading.projected.clone()
    }

    /// The next rows, at most `batch_rows` of them. An empty batch, now and then, only lets the caller give up.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, Refusal>> {
        let mut steps = 0;
        loop {
            breathe_reading().await;
            if let Some(batch) = self.take_ready() {
                return Some(Ok(batch));
            }
            let is_drained = self.least.is_empty();
            if self.taken_rows >= self.target_rows || (is_drained || steps == STEPS_MAX) && self.taken_rows > 0 {
                if let Err(error) = self.put_together() {
                    return Some(Err(self.give_up(error.into())));
                }
                continue;
            }
            if is_drained {
                self.reading.permit = None;
                return None;
            }
            if steps == STEPS_MAX {
                return Some(Ok(RecordBatch::new_empty(self.schema())));
            }
            match self.step().await {
                Ok(has_read) => steps += usize::from(has_read),
                Err(refusal) => return Some(Err(self.give_up(refusal))),
            }
        }
    }

    #[must_use]
    pub fn statistics(&self) -> ScanStatistics {
        self.reading.statistics
    }

    fn add_part(&mut self, part: &Rc<Part<D>>) -> Result<(), Refusal> {
        let (segments, unseen) = part.segments();
        self.reading.statistics.segments_pruned += unseen;
        for segment in segments {
            let bound = part.least_key(&segment, &self.reading.sorted_by)?;
            self.add(bound, Rest::Segment(Rc::clone(part), segment));
        }
        let (rows_seen, memory) = part.memory()?;
        self.reading.statistics.rows_scanned += rows_seen;
        if !memory.is_empty() {
            self.add(Key::default(), Rest::Fresh(Box::new(Fresh::new(memory))));
        }
        Ok(())
    }

    fn add(&mut self, bound: Key, rest: Rest<D>) {
        self.least.push(Reverse((bound, self.sources.len())));
        self.sources.push(Source { stretches: VecDeque::new(), rest });
    }

    /// Damage ends the scan: no partial answers.
    fn give_up(&mut self, refusal: Refusal) -> Refusal {
        self.least.clear();
        self.ahead = None;
        self.sources.clear();
        self.taken.clear();
        self.taken_rows = 0;
        self.ready.clear();
        self.reading.permit = None;
        refusal
    }

    fn take_ready(&mut self) -> Option<RecordBatch> {
        let rows_max = if pace::is_awaited() { self.batch_rows.min(ROWS_BESIDE_WRITES) } else { self.batch_rows };
        let mut batch = self.ready.pop_front()?;
        if batch.num_rows() > rows_max {
            self.ready.push_front(batch.slice(rows_max, batch.num_rows() - rows_max));
            batch = batch.slice(0, rows_max);
        }
        self.reading.statistics.rows_returned += batch.num_rows() as u64;
        Some(batch)
    }

    fn put_together(&mut self) -> Result<(), EngineError> {
        let taken = std::mem::take(&mut self.taken);
        self.taken_rows = 0;
        self.target_rows = (self.target_rows * 2).min(self.batch_rows);
        self.ready.extend(gathered(&self.reading.projected, &taken).map_err(flaw)?);
        Ok(())
    }

    /// Takes rows from the source that has the least key, or reads on there; true when it has read.
    async fn step(&mut self) -> Result<bool, Refusal> {
        let Some(Reverse((_, at))) = self.least.pop() else { return Ok(false) };
        let has_read = self.sources[at].stretches.is_empty();
        if has_read {
            let ahead = self.read_ahead();
            let (read, ahead) = join(self.read_on(at), ahead).await;
            if let Some((source, pages, bytes)) = ahead {
                self.reading.statistics.bytes_read += bytes;
                self.ahead = Some((source, pages));
            }
            read?;
            self.ahead.take_if(|(source, _)| *source == at && !self.sources[at].stretches.is_empty());
        } else {
            self.take_from(at).await?
        }
        if let Some(bound) = self.sources[at].bound() {
            self.least.push(Reverse((bound, at)));
        } else {
            // What it holds is needed no longer.
            self.sources[at].rest = Rest::Nothing;
        }
        Ok(has_read)
    }

    /// Has the disk read for the row group that comes next while one is decoded. What fails is told when its turn comes.
    fn read_ahead(&self) -> impl Future<Output = Option<(usize, ReadAhead, u64)>> + use<D> {
        let next = self.least.peek().map(|Reverse((_, next))| *next);
        let is_known = |next: &usize| self.ahead.as_ref().is_some_and(|(source, _)| source == next);
        let next = next.filter(|next| self.reading.load_rows >= AHEAD_ROWS_MIN && !is_known(next));
        let next = next.and_then(|next| match &self.sources[next].rest {
            Rest::RowGroup(part, piece) => {
                let scan = part.scan_of(piece, &self.reading.cache);
                let columns = scan.first_read(&part.columns, &self.reading.predicates);
                Some((next, Rc::clone(&piece.reader), piece.row_group, columns))
            }
            _ => None,
        });
        async move {
            let (next, reader, row_group, columns) = next?;
            let (pages, bytes) = reader.read_ahead(row_group, &columns).await.ok().flatten()?;
            Some((next, pages, bytes))
        }
    }

    /// Takes what no other source may have anything before.
    async fn take_from(&mut self, at: usize) -> Result<(), Refusal> {
        let other = self.least.peek().map(|Reverse((key, _))| key);
        let Some(stretch) = self.sources[at].stretches.front_mut() else { return Ok(()) };
        let rows = stretch.take_upto(other, &self.reading.sorted_by.keys).await.map_err(flaw)?;
        self.taken_rows += rows.rows.len();
        self.taken.push(rows);
        if stretch.is_at_end() {
            self.reading.waiting_bytes -= stretch.bytes;
            self.sources[at].stretches.pop_front();
            self.reading.waiting_sources -= usize::from(self.sources[at].stretches.is_empty());
        }
        Ok(())
    }

    async fn read_on(&mut self, at: usize) -> Result<(), Refusal> {
        let rest = std::mem::replace(&mut self.sources[at].rest, Rest::Nothing);
        match rest {
            Rest::Nothing => Ok(()),
            Rest::Segment(part, segment) => {
                for piece in self.reading.open(&part, segment).await? {
                    let bound = part.scan_of(&piece, &self.reading.cache).least_key(&self.reading.sorted_by)?;
                    self.add(bound, Rest::RowGroup(Rc::clone(&part), piece));
                }
                Ok(())
            }
            Rest::RowGroup(part, piece) => {
                self.sources[at].rest = self.reading.open_row_group(part, piece).await?;
                Ok(())
            }
            mut rest => {
                let stretches = match &mut rest {
                    Rest::Series(series) => series.read_on(&mut self.reading).await?,
                    Rest::Loose(loose) => loose.read_on(&mut self.reading).await?,
                    Rest::Fresh(fresh) => fresh.read_on(&self.reading).await?,
                    Rest::Nothing | Rest::Segment(..) | Rest::RowGroup(..) => Vec::new(),
                };
                self.reading.waiting_bytes += stretches.iter().map(|stretch| stretch.bytes).sum::<usize>();
                self.reading.waiting_sources += usize::from(!stretches.is_empty());
                self.sources[at].stretches.extend(stretches);
                self.sources[at].rest = rest;
                self.reading.note_memory();
                Ok(())
            }
        }
    }
}

impl<D: Disk> Source<D> {
    /// The least key that it may still have; `None` at its end.
    fn bound(&self) -> Option<Key> {
        if let Some(stretch) = self.stretches.front() {
            return Some(stretch.least_key());
        }
        match &self.rest {
            Rest::Nothing => None,
            Rest::Segment(..) | Rest::RowGroup(..) => Some(Key::default()),
            Rest::Series(series) => series.bound(),
            Rest::Loose(loose) => loose.bound(),
            Rest::Fresh(fresh) => fresh.bound(),
        }
    }
}

impl<D: Disk> Reading<D> {
    /// The row groups of a segment that may have rows within the bounds.
    async fn open(&mut self, part: &Part<D>, segment: Rc<LiveSegment<D::File>>) -> Result<Vec<Piece<D>>, EngineError> {
        let reader = segment.reader(&self.disk, &part.chunk, part.cluster, &self.opened).await?;
        let pieces = part.pieces(&reader, &segment);
        self.statistics.row_groups_pruned += (reader.row_groups().len() - pieces.len()) as u64;
        if pieces.is_empty() {
            self.statistics.segments_pruned += 1;
        } else {
            self.statistics.segments_scanned += 1;
        }
        Ok(pieces)
    }

    async fn open_row_group(&mut self, part: Rc<Part<D>>, piece: Piece<D>) -> Result<Rest<D>, EngineError> {
        let times = part.times_descend(&piece);
        let scan = part.scan_of(&piece, &self.cache);
        self.statistics.row_groups_scanned += 1;
        Ok(match scan.strips(&self.sorted_by, times, &self.predicates).await? {
            Some(strips) => Rest::Series(Box::new(SeriesRows::new(part, piece, strips))),
            None => Rest::Loose(Box::new(Loose::new(part, piece))),
        })
    }

    /// Rows to be read at once, now that so much is in memory: a fair part of what all sources may hold. Waits for memory at
    /// first.
    async fn rows_wanted(&mut self) -> Result<usize, Refusal> {
        if self.permit.is_none() {
            self.permit = Some(self.budget.take(self.row_bytes * self.load_rows).await?);
        }
        let left = WAITING_BYTES_MAX.saturating_sub(self.waiting_bytes).min(self.budget.bytes_left()) / 2;
        let part = WAITING_BYTES_MAX / (self.waiting_sources + 2);
        let wanted = self.load_rows.min(left.min(part) / self.row_bytes);
        self.load_rows = (self.load_rows * 2).min(LOAD_ROWS_MAX);
        Ok(wanted.max(LOAD_ROWS_LEAST))
    }

    fn note_memory(&mut self) {
        if let Some(permit) = &mut self.permit {
            permit.set(self.waiting_bytes);
        }
    }
}

/// Checks that the order's columns are among those read.
fn sorted_by<D: Disk>(order: Vec<SortColumn>, part: &Part<D>, columns: &[usize]) -> Result<SortedBy, Refusal> {
    let (mut positions, mut fields) = (Vec::new(), Vec::new());
    for by in &order {
        let position = columns.iter().position(|column| *column == by.column);
        let position = position.ok_or_else(|| Refusal::Protocol("an order by a column that is not read".to_owned()))?;
        let options = arrow::compute::SortOptions { descending: by.descending, nulls_first: by.nulls_first };
        positions.push(position);
        fields.push(SortField::new_with_options(part.columns[position].sql_type.arrow(), options));
    }
    let keys = Keys::over(positions, fields).map_err(|error: ArrowError| Refusal::from(flaw(error)))?;
    Ok(SortedBy { columns: order, keys })
}
