//! One row group as a reader wants it: only rows that may lie within its bounds, or only the rows at the ends of series.
//! Predicate columns are read first, then only what survives needs the others; series are told apart by the directory.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, new_empty_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter, take};
use arrow::error::ArrowError;
use meridian_proto::ColumnId;
use meridian_proto::schema::{Column, TableSchema};

use super::buckets::SeriesPredicate;
use super::cache::{EndRows, LeafCache};
use super::newest::Newest;
use super::ranges::RowRanges;
use super::runs::Runs;
use super::within::within;
use crate::disk::DiskFile;
use crate::error::EngineError;
use crate::pace::breathe_reading;
use crate::scan::{Bound, Ends, Series, Value};
use crate::segment::SegmentReader;
use crate::visibility::View;

pub struct RowGroupScan<'a, F: DiskFile> {
    pub reader: &'a Rc<SegmentReader<F>>,
    /// One that its zone maps do not exclude.
    pub row_group: usize,
    pub schema: &'a TableSchema,
    pub bounds: &'a [Bound],
    /// `None` in a staged run: that it is read at all says that its rows are seen.
    pub view: Option<&'a View>,
    pub cache: &'a LeafCache<F>,
}

/// Some rows of a row group.
pub struct Found {
    /// Those asked for, in that order.
    pub columns: Vec<ArrayRef>,
    pub rows: usize,
    /// Whether rows outside of the bounds were all left out.
    pub is_exact: bool,
    pub bytes_read: u64,
}

/// Columns that were read, whole.
#[derive(Default)]
pub(super) struct Loaded {
    arrays: Vec<(ColumnId, ArrayRef)>,
    pub(super) bytes_read: u64,
}

impl Loaded {
    pub(super) fn get(&self, id: ColumnId) -> Option<&ArrayRef> {
        self.arrays.iter().find(|(known, _)| *known == id).map(|(_, array)| array)
    }
}

/// A bound with its column.
type ColumnBound<'b> = (&'b Column, &'b Bound);

/// Rows that are still wanted, and what was read of them.
struct Narrowed {
    rows: RowRanges,
    columns: Loaded,
    /// Whether rows outside of the bounds were all left out.
    is_exact: bool,
}

impl Narrowed {
    /// Keeps those of the rows whose bit is set.
    fn keep(&mut self, bits: &BooleanBuffer) -> Result<(), EngineError> {
        if bits.count_set_bits() == bits.len() {
            return Ok(());
        }
        self.rows = self.rows.keep(bits);
        let bits = BooleanArray::new(bits.clone(), None);
        for (_, array) in &mut self.columns.arrays {
            *array = filter(array, &bits).map_err(flaw)?;
        }
        Ok(())
    }
}

impl<F: DiskFile> RowGroupScan<'_, F> {
    /// Whether all rows are seen and lie within all bounds, so that the row group can be answered for as a whole. R30:
    /// the greatest commit timestamp is at or below the snapshot; segments hold no deletes, stages are runs of their own.
    pub fn is_whole(&self) -> bool {
        self.is_all_seen() && self.open_bounds().is_empty()
    }

    pub(super) fn is_all_seen(&self) -> bool {
        let commits = self.reader.row_group(self.row_group).commits;
        self.view.is_none_or(|view| commits.is_none_or(|(_, max)| view.sees(max)))
    }

    /// Bounds that zone maps do not settle.
    pub(super) fn open_bounds(&self) -> Vec<&Bound> {
        let statistics = self.reader.statistics(self.row_group);
        self.bounds.iter().filter(|bound| !statistics.is_within(self.schema, bound)).collect()
    }

    pub(super) fn row_count(&self) -> usize {
        self.reader.row_group(self.row_group).rows
    }

    /// The seen rows that may lie within the bounds, of series that no predicate leaves out: first by series, then by time, both without reading a row where
    /// directories tell, then by the other columns of bounds. Only rows that are left are read of the columns wanted.
    pub async fn rows(&self, columns: &[Column], predicates: &[SeriesPredicate]) -> Result<Found, EngineError> {
        self.rows_among(RowRanges::all(self.row_count()), columns, predicates, None).await
    }

    /// As [`Self::rows`], of these rows only. `known`: the series directory, when the caller has it.
    pub(super) async fn rows_among(
        &self,
        mut rows: RowRanges,
        columns: &[Column],
        predicates: &[SeriesPredicate],
        known: Option<&Rc<Runs>>,
    ) -> Result<Found, EngineError> {
        let mut loaded = Loaded::default();
        let open = self.open_bounds();
        let (by_series, by_row) = self.split_bounds(&open);
        let judges = self.judges(predicates);
        let mut is_exact = true;
        let tells_series = !by_series.is_empty() || !judges.is_empty();
        let runs = match known {
            Some(known) => Some(Rc::clone(known)),
            None if tells_series => Some(self.runs(&mut loaded).await?),
            None => None,
        };
        if let Some(runs) = runs.as_ref().filter(|_| tells_series) {
            for (predicate, positions) in judges {
                let keys: Vec<ArrayRef> = positions.iter().map(|at| ArrayRef::clone(runs.keys(*at))).collect();
                if let Some(judged) = (predicate.test)(&keys).filter(|judged| judged.len() == runs.len()) {
                    rows = rows.and(&runs.rows_of(&judged));
                }
            }
            for (position, column, bound) in by_series {
                let found = within(runs.keys(position), &column.sql_type, bound);
                is_exact &= found.is_exact;
                rows = rows.and(&runs.rows_of(&found.rows));
            }
        }
        let mut left =
            Narrowed { rows, columns: Loaded { bytes_read: loaded.bytes_read, ..Loaded::default() }, is_exact };
        let by_row = self.narrow_by_time(&mut left, by_row).await?;
        self.narrow_by_row(&mut left, by_row).await?;
        self.gather(columns, runs.as_deref(), left).await
    }

    /// The predicates that the series directory can be asked, with the positions of their columns in it.
    pub(super) fn judges<'b>(&self, predicates: &'b [SeriesPredicate]) -> Vec<(&'b SeriesPredicate, Vec<usize>)> {
        let Some(segment_by) = self.segment_by().filter(|_| !predicates.is_empty()) else { return Vec::new() };
        let place = |position: &usize| {
            let id = self.schema.columns.get(*position)?.id;
            segment_by.iter().position(|column| column.id == id)
        };
        let places = |of: &SeriesPredicate| of.columns.iter().map(place).collect::<Option<Vec<_>>>();
        predicates.iter().filter_map(|predicate| Some((predicate, places(predicate)?))).collect()
    }

    /// Columns whose pages [`Self::rows`] reads first, of those wanted: the others wait for what bounds leave.
    pub fn first_read(&self, columns: &[Column], predicates: &[SeriesPredicate]) -> Vec<Column> {
        let open = self.open_bounds();
        let (by_series, by_row) = self.split_bounds(&open);
        match (by_series.is_empty() && self.judges(predicates).is_empty(), by_row.is_empty()) {
            (true, true) => columns.to_vec(),
            (true, false) => by_row.into_iter().map(|(column, _)| column.clone()).collect(),
            (false, _) => Vec::new(),
        }
    }

    /// Leaves out pieces outside of the bounds on time, and rows outside of them in pieces that one cuts; returns the other
    /// bounds, or all when there are no pieces.
    async fn narrow_by_time<'b>(
        &self,
        left: &mut Narrowed,
        bounds: Vec<(&'b Column, &'b Bound)>,
    ) -> Result<Vec<(&'b Column, &'b Bound)>, EngineError> {
        let (by_time, others) = self.split_time_bounds(bounds.iter().copied());
        let Some((column, _)) = by_time.first().copied().filter(|_| !left.rows.is_empty()) else { return Ok(bounds) };
        let Some(pieces) = self.reader.pieces(self.row_group).await? else { return Ok(bounds) };
        let (low, high) = time_range(&by_time);
        let (mut inside, mut cut) = (RowRanges::default(), RowRanges::default());
        for (piece, first) in pieces.buckets.iter().enumerate() {
            let last = first + (pieces.width_us - 1);
            if low <= *first && last <= high {
                inside.push(pieces.rows_of(piece));
            } else if low <= last && *first <= high {
                cut.push(pieces.rows_of(piece));
            }
        }
        let (inside, mut cut) = (left.rows.and(&inside), left.rows.and(&cut));
        if !cut.is_empty() {
            let columns = std::slice::from_ref(column);
            let read = self.reader.read_columns(self.row_group, columns, cut.as_slice(), &breathe_reading).await?;
            left.columns.bytes_read += read.bytes_read;
            let mut wanted = BooleanBuffer::new_set(cut.count());
            for (column, bound) in by_time {
                let found = within(&read.arrays[0], &column.sql_type, bound);
                left.is_exact &= found.is_exact;
                wanted = &wanted & &found.rows;
            }
            cut = cut.keep(&wanted);
        }
        left.rows = inside.or(cut);
        Ok(others)
    }

    /// Rows that may lie within the bounds on time, as far as pieces tell without any row. `None`: they do not.
    pub(super) async fn rows_in_time(&self) -> Result<Option<RowRanges>, EngineError> {
        let open = self.open_bounds();
        let (by_time, _) = self.split_time_bounds(self.split_bounds(&open).1.into_iter());
        if by_time.is_empty() {
            return Ok(None);
        }
        let Some(pieces) = self.reader.pieces(self.row_group).await? else { return Ok(None) };
        let (low, high) = time_range(&by_time);
        let overlaps = |first: i64| low <= first + (pieces.width_us - 1) && first <= high;
        let rows = (0..pieces.len()).filter(|piece| overlaps(pieces.buckets[*piece]));
        Ok(Some(rows.map(|piece| pieces.rows_of(piece)).collect()))
    }

    /// Bounds on time that say a range, and the others.
    fn split_time_bounds<'b>(
        &self,
        bounds: impl Iterator<Item = (&'b Column, &'b Bound)>,
    ) -> (Vec<ColumnBound<'b>>, Vec<ColumnBound<'b>>) {
        let time = self.reader.time_column();
        bounds.partition(|(column, bound)| Some(column.id) == time && ends_of(bound).is_some())
    }

    /// Leaves out rows outside of bounds on columns that are dictionaries here: the bound is asked of each distinct value
    /// once. Returns the other bounds.
    async fn narrow_by_term<'b>(
        &self,
        left: &mut Narrowed,
        bounds: Vec<(&'b Column, &'b Bound)>,
    ) -> Result<Vec<(&'b Column, &'b Bound)>, EngineError> {
        let mut others = Vec::with_capacity(bounds.len());
        for (column, bound) in bounds {
            let Some((terms, bytes_read)) =
                self.reader.read_terms(self.row_group, column, left.rows.as_slice()).await?
            else {
                others.push((column, bound));
                continue;
            };
            left.columns.bytes_read += bytes_read;
            let found = within(&terms.entries, &column.sql_type, bound);
            left.is_exact &= found.is_exact;
            let is_within: Vec<bool> = found.rows.iter().collect();
            let rows = BooleanBuffer::collect_bool(terms.codes.len(), |row| is_within[terms.codes[row] as usize]);
            left.keep(&match &terms.nulls {
                Some(nulls) => &rows & nulls.inner(),
                None => rows,
            })?;
            breathe_reading().await;
        }
        Ok(others)
    }

    /// Leaves out rows outside of bounds by reading their columns.
    async fn narrow_by_row(&self, left: &mut Narrowed, bounds: Vec<(&Column, &Bound)>) -> Result<(), EngineError> {
        if bounds.is_empty() || left.rows.is_empty() {
            return Ok(());
        }
        let bounds = self.narrow_by_term(left, bounds).await?;
        let columns: Vec<Column> = bounds.iter().map(|(column, _)| (*column).clone()).collect();
        self.load_rows(&columns, left).await?;
        let mut wanted = BooleanBuffer::new_set(left.rows.count());
        for (column, bound) in bounds {
            let Some(array) = left.columns.get(column.id) else { continue };
            let found = within(array, &column.sql_type, bound);
            left.is_exact &= found.is_exact;
            wanted = &wanted & &found.rows;
            breathe_reading().await;
        }
        left.keep(&wanted)
    }

    /// At least the rows at the ends of the series, of the seen rows within the bounds; more when they cannot be told.
    pub async fn series(
        &self,
        columns: &[Column],
        series: &Series,
        newest: &RefCell<Newest>,
    ) -> Result<Found, EngineError> {
        let segment_by = self.segment_by();
        let column = |position: &usize| self.schema.columns.get(*position);
        let key: Option<Vec<usize>> = series
            .key
            .iter()
            .map(|position| {
                let id = column(position)?.id;
                segment_by.as_ref()?.iter().position(|column| column.id == id)
            })
            .collect();
        let (Some(segment_by), Some(key), Some(time)) = (&segment_by, key, column(&series.time)) else {
            // Not sorted by these series.
            return self.rows(columns, &[]).await;
        };
        let search = Search { segment_by, key: &key, time, series, newest };
        // A bound on the key takes or leaves whole series: those too many fall to the filter above.
        let is_of_key = |bound: &&Bound| series.key.contains(&bound.column);
        let is_whole = self.is_all_seen() && self.open_bounds().iter().all(is_of_key);
        if is_whole { self.whole_ends(columns, &search).await } else { self.ragged_ends(columns, &search).await }
    }

    /// Of a row group that counts as a whole: from the cache, or into it.
    async fn whole_ends(&self, columns: &[Column], search: &Search<'_>) -> Result<Found, EngineError> {
        let ends = search.series.ends;
        let mut loaded = Loaded::default();
        let runs = self.runs(&mut loaded).await?;
        if self.is_older(&runs, search) {
            return Ok(self.nothing(columns, true, loaded.bytes_read));
        }
        let known = match self.cache.ends(self.reader, self.row_group, ends) {
            Some(known) => known,
            None => match self.find_ends(&runs, search, &mut loaded).await? {
                Some(rows) => Rc::new(EndRows::new(rows, &runs)),
                None => return self.rows(columns, &[]).await,
            },
        };
        let mut wanted: Vec<&Column> = columns.iter().collect();
        if ends != Ends::ANY {
            wanted.push(search.time);
        }
        let known = self.with_end_columns(known, &wanted, search, &runs, &mut loaded).await?;
        let mut held = Vec::with_capacity(wanted.len());
        for column in wanted {
            held.push(ArrayRef::clone(known.column(column).ok_or_else(|| missing_column(column))?));
        }
        if let Some(times) = held.get(columns.len()).filter(|_| ends.last) {
            let keys = search.keys(&runs, &known.run_of)?;
            search.newest.borrow_mut().note(&keys, times);
        }
        held.truncate(columns.len());
        Ok(Found { columns: held, rows: known.rows.len(), is_exact: true, bytes_read: loaded.bytes_read })
    }

    /// The rows at the ends with all of these columns: those that were not known are made from the directory, or read.
    async fn with_end_columns(
        &self,
        known: Rc<EndRows>,
        columns: &[&Column],
        search: &Search<'_>,
        runs: &Runs,
        loaded: &mut Loaded,
    ) -> Result<Rc<EndRows>, EngineError> {
        let mut added: Vec<(ColumnId, ArrayRef)> = Vec::new();
        let mut missing: Vec<Column> = Vec::new();
        for column in columns.iter().filter(|column| known.column(column).is_none()) {
            if added.iter().any(|(id, _)| *id == column.id) || missing.iter().any(|other| other.id == column.id) {
                continue;
            }
            match self.key_of(Some(runs), column) {
                Some(key) => added.push((column.id, take(key, &known.run_of, None).map_err(flaw)?)),
                None => missing.push((*column).clone()),
            }
        }
        if !missing.is_empty() {
            let ranges: RowRanges = known.rows.values().iter().map(|row| *row as usize..*row as usize + 1).collect();
            let read = self.reader.read_columns(self.row_group, &missing, ranges.as_slice(), &breathe_reading).await?;
            loaded.bytes_read += read.bytes_read;
            added.extend(missing.iter().map(|column| column.id).zip(read.arrays));
        }
        if added.is_empty() {
            return Ok(known);
        }
        let known = Rc::new(known.with_columns(added));
        self.cache.put_ends(self.reader, self.row_group, search.series.ends, &known);
        Ok(known)
    }

    async fn find_ends(
        &self,
        runs: &Runs,
        search: &Search<'_>,
        loaded: &mut Loaded,
    ) -> Result<Option<UInt32Array>, EngineError> {
        let ends = search.series.ends;
        let time = std::slice::from_ref(search.time);
        let known = if ends == Ends::ANY { None } else { self.end_pieces(runs, search).await? };
        Ok(match known {
            Some(among) => {
                let read = self.reader.read_columns(self.row_group, time, among.as_slice(), &breathe_reading).await?;
                loaded.bytes_read += read.bytes_read;
                runs.ends_among(&among, &read.arrays[0], ends)
            }
            None => {
                if ends != Ends::ANY {
                    self.load(time, loaded).await?;
                }
                runs.ends(loaded.get(search.time.id), ends)
            }
        })
    }

    /// Rows among which the ends of all series are, where pieces tell.
    async fn end_pieces(&self, runs: &Runs, search: &Search<'_>) -> Result<Option<RowRanges>, EngineError> {
        let Some(pieces) = self.reader.pieces(self.row_group).await? else { return Ok(None) };
        let times = self.reader.piece_statistics(self.row_group, search.time).await?;
        Ok(times.and_then(|times| runs.end_pieces(&pieces, &times, search.series.ends)))
    }

    /// Whether later rows of all these series were found before.
    fn is_older(&self, runs: &Runs, search: &Search<'_>) -> bool {
        // Looking for the first ones too, an older row group is just what is wanted.
        let ends = search.series.ends;
        let Some((_, max)) = self.reader.row_group(self.row_group).time.filter(|_| ends.last && !ends.first) else {
            return false;
        };
        let keys: Vec<ArrayRef> = search.key.iter().map(|position| ArrayRef::clone(runs.keys(*position))).collect();
        search.newest.borrow_mut().has_all_after(&keys, runs.len(), max)
    }

    /// Of a row group of which only some rows count.
    async fn ragged_ends(&self, columns: &[Column], search: &Search<'_>) -> Result<Found, EngineError> {
        let mut wanted = columns.to_vec();
        wanted.extend(search.segment_by.iter().map(|column| (*column).clone()));
        wanted.push(search.time.clone());
        let mut found = self.rows(&wanted, &[]).await?;
        let times = found.columns.pop();
        let keys = found.columns.split_off(columns.len());
        if !found.is_exact || found.rows == 0 {
            return Ok(found);
        }
        let runs = Runs::of(&keys, found.rows).map_err(flaw)?;
        let Some(rows) = runs.ends(times.as_ref(), search.series.ends) else { return Ok(found) };
        let run_of = runs.runs_of(rows.values().iter().map(|row| *row as usize));
        if let Some(times) = times.filter(|_| search.series.ends.last) {
            let times = take(&times, &rows, None).map_err(flaw)?;
            search.newest.borrow_mut().note(&search.keys(&runs, &run_of)?, &times);
        }
        for column in &mut found.columns {
            *column = take(column, &rows, None).map_err(flaw)?;
        }
        found.rows = rows.len();
        Ok(found)
    }

    /// Bounds on series with their column's position in the directory, and those on rows.
    #[expect(clippy::type_complexity, reason = "two lists that live for two lines")]
    pub(super) fn split_bounds<'b>(
        &'b self,
        open: &[&'b Bound],
    ) -> (Vec<(usize, &'b Column, &'b Bound)>, Vec<(&'b Column, &'b Bound)>) {
        let segment_by = self.reader.segment_by();
        let has_directory = self.segment_by().is_some();
        let (mut by_series, mut by_row) = (Vec::new(), Vec::new());
        for bound in open {
            let Some(column) = self.schema.columns.get(bound.column) else { continue };
            match segment_by.iter().position(|id| *id == column.id).filter(|_| has_directory) {
                Some(position) => by_series.push((position, column, *bound)),
                None => by_row.push((column, *bound)),
            }
        }
        (by_series, by_row)
    }

    /// The columns that rows are sorted by before time; `None` when the table has one of them no longer.
    pub(super) fn segment_by(&self) -> Option<Vec<&Column>> {
        let column = |id: &ColumnId| self.schema.position_of(*id).map(|at| &self.schema.columns[at]);
        self.reader.segment_by().iter().map(column).collect()
    }

    /// The series directory. Call only when the table has all columns of it.
    pub(super) async fn runs(&self, loaded: &mut Loaded) -> Result<Rc<Runs>, EngineError> {
        if let Some(runs) = self.cache.runs(self.reader, self.row_group) {
            return Ok(runs);
        }
        let columns: Vec<Column> = self.segment_by().unwrap_or_default().into_iter().cloned().collect();
        // Series begin with pieces: looking at the first row of each is enough.
        let heads = self.reader.pieces(self.row_group).await?.map(|pieces| pieces.starts.clone());
        let keys = match &heads {
            Some(heads) => {
                let rows: Vec<Range<usize>> = heads.iter().map(|row| *row as usize..*row as usize + 1).collect();
                let read = self.reader.read_columns(self.row_group, &columns, &rows, &breathe_reading).await?;
                loaded.bytes_read += read.bytes_read;
                read.arrays
            }
            None => {
                self.load(&columns, loaded).await?;
                columns.iter().filter_map(|column| loaded.get(column.id).cloned()).collect()
            }
        };
        let runs = Rc::new(Runs::of_heads(&keys, heads.as_deref(), self.row_count()).map_err(flaw)?);
        breathe_reading().await;
        self.cache.put_runs(self.reader, self.row_group, &runs);
        Ok(runs)
    }

    /// The column in the directory, when it is one of the series' own.
    fn key_of<'r>(&self, runs: Option<&'r Runs>, column: &Column) -> Option<&'r ArrayRef> {
        let position = self.reader.segment_by().iter().position(|id| *id == column.id)?;
        runs.map(|runs| runs.keys(position)).filter(|key| *key.data_type() == column.sql_type.arrow())
    }

    /// Reads those columns that were not read yet.
    pub(super) async fn load(&self, columns: &[Column], loaded: &mut Loaded) -> Result<(), EngineError> {
        self.load_into(columns, &RowRanges::all(self.row_count()), loaded).await
    }

    /// Reads those columns of the rows that are left that were not read yet.
    async fn load_rows(&self, columns: &[Column], left: &mut Narrowed) -> Result<(), EngineError> {
        self.load_into(columns, &left.rows, &mut left.columns).await
    }

    async fn load_into(&self, columns: &[Column], rows: &RowRanges, loaded: &mut Loaded) -> Result<(), EngineError> {
        let mut missing: Vec<Column> = Vec::new();
        for column in columns {
            if loaded.get(column.id).is_none() && missing.iter().all(|known| known.id != column.id) {
                missing.push(column.clone());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let read = self.reader.read_columns(self.row_group, &missing, rows.as_slice(), &breathe_reading).await?;
        loaded.bytes_read += read.bytes_read;
        loaded.arrays.extend(missing.iter().map(|column| column.id).zip(read.arrays));
        Ok(())
    }

    /// Leaves out rows that are not seen.
    async fn hide_unseen(&self, left: &mut Narrowed) -> Result<(), EngineError> {
        let Some(view) = self.view.filter(|_| !self.is_all_seen()) else { return Ok(()) };
        let read = self.reader.read_ranges(self.row_group, &[], left.rows.as_slice(), &breathe_reading).await?;
        left.columns.bytes_read += read.bytes_read;
        let Some(commits) = read.commits else { return Ok(()) };
        left.keep(&BooleanBuffer::collect_bool(left.rows.count(), |row| view.sees(commits.get(row))))
    }

    /// The columns of the rows that are left and seen; those that `runs` hold are made from the directory.
    async fn gather(&self, columns: &[Column], runs: Option<&Runs>, mut left: Narrowed) -> Result<Found, EngineError> {
        if !left.rows.is_empty() {
            self.hide_unseen(&mut left).await?;
        }
        if left.rows.is_empty() {
            return Ok(self.nothing(columns, left.is_exact, left.columns.bytes_read));
        }
        let is_stored = |column: &&Column| self.key_of(runs, column).is_none();
        let stored: Vec<Column> = columns.iter().filter(is_stored).cloned().collect();
        self.load_rows(&stored, &mut left).await?;
        let mut run_of = None;
        let mut found = Vec::with_capacity(columns.len());
        for column in columns {
            found.push(match (self.key_of(runs, column), runs) {
                (Some(key), Some(runs)) => {
                    let run_of = run_of.get_or_insert_with(|| runs.runs_of(left.rows.rows()));
                    take(key, run_of, None).map_err(flaw)?
                }
                _ => ArrayRef::clone(left.columns.get(column.id).ok_or_else(|| missing_column(column))?),
            });
            breathe_reading().await;
        }
        let (rows, bytes_read) = (left.rows.count(), left.columns.bytes_read);
        Ok(Found { columns: found, rows, is_exact: left.is_exact, bytes_read })
    }

    fn nothing(&self, columns: &[Column], is_exact: bool, bytes_read: u64) -> Found {
        let columns = columns.iter().map(|column| new_empty_array(&column.sql_type.arrow())).collect();
        Found { columns, rows: 0, is_exact, bytes_read }
    }
}

/// A search for ends of series in a row group that is sorted by them.
struct Search<'a> {
    segment_by: &'a [&'a Column],
    /// Positions of the key's columns among the segment-by columns.
    key: &'a [usize],
    time: &'a Column,
    series: &'a Series,
    newest: &'a RefCell<Newest>,
}

impl Search<'_> {
    /// The key of each end.
    fn keys(&self, runs: &Runs, run_of: &UInt32Array) -> Result<Vec<ArrayRef>, EngineError> {
        // Every run has an end, so as many ends as runs are one each.
        if run_of.len() == runs.len() {
            return Ok(self.key.iter().map(|position| ArrayRef::clone(runs.keys(*position))).collect());
        }
        self.key.iter().map(|position| take(runs.keys(*position), run_of, None).map_err(flaw)).collect()
    }
}

/// Both ends of what all bounds on time leave, included.
fn time_range(bounds: &[(&Column, &Bound)]) -> (i64, i64) {
    let ends = bounds.iter().filter_map(|(_, bound)| ends_of(bound));
    ends.fold((i64::MIN, i64::MAX), |all, ends| (all.0.max(ends.0), all.1.min(ends.1)))
}

/// Both ends of a bound on time, included; `None` when one is of another kind.
fn ends_of(bound: &Bound) -> Option<(i64, i64)> {
    let end = |end: &Option<Value>, open| match end {
        None => Some(open),
        Some(Value::Int(time)) => Some(*time),
        Some(_) => None,
    };
    Some((end(&bound.min, i64::MIN)?, end(&bound.max, i64::MAX)?))
}

fn missing_column(column: &Column) -> EngineError {
    EngineError::Rows(format!("column {} was not read", column.id))
}

pub(super) fn flaw(error: ArrowError) -> EngineError {
    EngineError::Rows(error.to_string())
}
