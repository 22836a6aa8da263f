//! One row group as a reader wants it: only rows that may lie within its bounds, or only the rows at the ends of series.
//! Predicate columns are read first, then only what survives needs the others; series are told apart by the directory.

use std::cell::RefCell;
use std::rc::Rc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, new_empty_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter, take};
use arrow::error::ArrowError;
use meridian_proto::ColumnId;
use meridian_proto::schema::{Column, TableSchema};

use super::cache::{LeafCache, Piece};
use super::newest::Newest;
use super::runs::Runs;
use super::within::within;
use crate::disk::DiskFile;
use crate::error::EngineError;
use crate::pace::breathe;
use crate::scan::{Bound, Ends, Series};
use crate::segment::{Commits, SegmentReader};
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
    commits: Option<Commits>,
    has_commits: bool,
    pub(super) bytes_read: u64,
}

impl Loaded {
    pub(super) fn get(&self, id: ColumnId) -> Option<&ArrayRef> {
        self.arrays.iter().find(|(known, _)| *known == id).map(|(_, array)| array)
    }
}

/// Rows that are still wanted; `None`: all.
type Wanted = Option<BooleanBuffer>;

fn narrow(wanted: &mut Wanted, rows: BooleanBuffer) {
    let rows = match wanted.take() {
        Some(known) => &known & &rows,
        None => rows,
    };
    *wanted = Some(rows);
}

fn is_none_left(wanted: &Wanted) -> bool {
    wanted.as_ref().is_some_and(|rows| rows.count_set_bits() == 0)
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

    /// The seen rows that may lie within the bounds.
    pub async fn rows(&self, columns: &[Column]) -> Result<Found, EngineError> {
        let open = self.open_bounds();
        let mut loaded = Loaded::default();
        let mut wanted: Wanted = None;
        let mut is_exact = true;
        let (by_series, by_row) = self.split_bounds(&open);

        let runs = if by_series.is_empty() { None } else { Some(self.runs(&mut loaded).await?) };
        if let Some(runs) = &runs {
            for (position, column, bound) in by_series {
                let found = within(runs.keys(position), &column.sql_type, bound);
                is_exact &= found.is_exact;
                narrow(&mut wanted, runs.rows_of(&found.rows));
            }
            if is_none_left(&wanted) {
                return Ok(self.nothing(columns, is_exact, loaded.bytes_read));
            }
        }
        if !by_row.is_empty() {
            let predicate: Vec<Column> = by_row.iter().map(|(column, _)| (*column).clone()).collect();
            self.load(&predicate, &mut loaded).await?;
            for (column, bound) in by_row {
                let Some(array) = loaded.get(column.id) else { continue };
                let found = within(array, &column.sql_type, bound);
                is_exact &= found.is_exact;
                narrow(&mut wanted, found.rows);
                breathe().await;
            }
            if is_none_left(&wanted) {
                return Ok(self.nothing(columns, is_exact, loaded.bytes_read));
            }
        }
        let known = runs.as_deref().filter(|_| wanted.is_some());
        let rest: Vec<Column> = columns.iter().filter(|column| self.key_of(known, column).is_none()).cloned().collect();
        self.load(&rest, &mut loaded).await?;
        self.hide_unseen(&loaded, &mut wanted);
        self.gather(columns, known, &loaded, wanted, is_exact).await
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
            return self.rows(columns).await;
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
        let rows = match self.cache.array(self.reader, self.row_group, Piece::EndRows(ends)) {
            Some(rows) => Some(rows),
            None => self.find_ends(&runs, search, &mut loaded).await?,
        };
        let Some(rows) = rows.as_ref().and_then(|rows| rows.as_any().downcast_ref::<UInt32Array>()) else {
            return self.rows(columns).await;
        };
        let run_of = runs.runs_of(rows.values().iter().map(|row| *row as usize));
        let mut wanted: Vec<Column> = columns.to_vec();
        if ends != Ends::ANY {
            wanted.push(search.time.clone());
        }
        let held = self.end_columns(&wanted, search, &runs, rows, &run_of, &mut loaded).await?;
        if let Some(times) = held.get(columns.len()).filter(|_| ends.last) {
            let keys = search.keys(&runs, &run_of)?;
            search.newest.borrow_mut().note(&keys, times);
        }
        let columns = held.into_iter().take(columns.len()).collect();
        Ok(Found { columns, rows: rows.len(), is_exact: true, bytes_read: loaded.bytes_read })
    }

    /// The columns of the rows at the ends: keys from the directory, others from the cache or the file.
    async fn end_columns(
        &self,
        columns: &[Column],
        search: &Search<'_>,
        runs: &Runs,
        rows: &UInt32Array,
        run_of: &UInt32Array,
        loaded: &mut Loaded,
    ) -> Result<Vec<ArrayRef>, EngineError> {
        let ends = search.series.ends;
        let cached = |column: &Column| {
            let piece = Piece::EndColumn(ends, column.id);
            let array = self.cache.array(self.reader, self.row_group, piece);
            array.filter(|array| *array.data_type() == column.sql_type.arrow() && array.len() == rows.len())
        };
        let mut held: Vec<Option<ArrayRef>> = Vec::with_capacity(columns.len());
        for column in columns {
            held.push(match self.key_of(Some(runs), column) {
                Some(key) => Some(take(key, run_of, None).map_err(flaw)?),
                None => cached(column),
            });
        }
        let missing: Vec<Column> =
            columns.iter().zip(&held).filter(|(_, held)| held.is_none()).map(|(column, _)| column.clone()).collect();
        self.load(&missing, loaded).await?;
        let mut found = Vec::with_capacity(columns.len());
        for (column, held) in columns.iter().zip(held) {
            found.push(match held {
                Some(array) => array,
                None => {
                    let whole = loaded.get(column.id).ok_or_else(|| missing_column(column))?;
                    let array = take(whole, rows, None).map_err(flaw)?;
                    let piece = Piece::EndColumn(ends, column.id);
                    self.cache.put_array(self.reader, self.row_group, piece, &array);
                    array
                }
            });
        }
        Ok(found)
    }

    async fn find_ends(
        &self,
        runs: &Runs,
        search: &Search<'_>,
        loaded: &mut Loaded,
    ) -> Result<Option<ArrayRef>, EngineError> {
        let ends = search.series.ends;
        if ends != Ends::ANY {
            self.load(std::slice::from_ref(search.time), loaded).await?;
        }
        let Some(rows) = runs.ends(loaded.get(search.time.id), ends) else { return Ok(None) };
        let rows: ArrayRef = std::sync::Arc::new(rows);
        self.cache.put_array(self.reader, self.row_group, Piece::EndRows(ends), &rows);
        Ok(Some(rows))
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
        let mut found = self.rows(&wanted).await?;
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
    fn split_bounds<'b>(
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
        self.load(&columns, loaded).await?;
        let keys: Vec<ArrayRef> = columns.iter().filter_map(|column| loaded.get(column.id).cloned()).collect();
        let runs = Rc::new(Runs::of(&keys, self.row_count()).map_err(flaw)?);
        breathe().await;
        self.cache.put_runs(self.reader, self.row_group, &runs);
        Ok(runs)
    }

    /// The column in the directory, when it is one of the series' own.
    fn key_of<'r>(&self, runs: Option<&'r Runs>, column: &Column) -> Option<&'r ArrayRef> {
        let position = self.reader.segment_by().iter().position(|id| *id == column.id)?;
        runs.map(|runs| runs.keys(position)).filter(|key| *key.data_type() == column.sql_type.arrow())
    }

    /// Reads those columns that were not read yet, and commit timestamps the first time.
    pub(super) async fn load(&self, columns: &[Column], loaded: &mut Loaded) -> Result<(), EngineError> {
        let mut missing: Vec<Column> = Vec::new();
        for column in columns {
            if loaded.get(column.id).is_none() && missing.iter().all(|known| known.id != column.id) {
                missing.push(column.clone());
            }
        }
        let wants_commits = !loaded.has_commits && !self.is_all_seen();
        if missing.is_empty() && !wants_commits {
            return Ok(());
        }
        let read = self.reader.read(self.row_group, &missing, &breathe).await?;
        loaded.bytes_read += read.bytes_read;
        loaded.has_commits = true;
        loaded.commits = read.commits;
        let arrays = read.batch.columns().iter().cloned();
        loaded.arrays.extend(missing.iter().map(|column| column.id).zip(arrays));
        Ok(())
    }

    fn hide_unseen(&self, loaded: &Loaded, wanted: &mut Wanted) {
        let (Some(view), Some(commits)) = (self.view, &loaded.commits) else { return };
        if self.is_all_seen() {
            return;
        }
        narrow(wanted, BooleanBuffer::collect_bool(self.row_count(), |row| view.sees(commits.get(row))));
    }

    /// The wanted rows of the columns; those that `known` holds are made from the directory.
    async fn gather(
        &self,
        columns: &[Column],
        known: Option<&Runs>,
        loaded: &Loaded,
        wanted: Wanted,
        is_exact: bool,
    ) -> Result<Found, EngineError> {
        let all = self.row_count();
        let wanted = wanted.filter(|rows| rows.count_set_bits() < all).map(|rows| BooleanArray::new(rows, None));
        let rows = wanted.as_ref().map_or(all, BooleanArray::true_count);
        let mut run_of = None;
        let mut found = Vec::with_capacity(columns.len());
        for column in columns {
            let array = match (self.key_of(known, column), known) {
                (Some(key), Some(runs)) => {
                    let run_of = run_of.get_or_insert_with(|| match &wanted {
                        Some(rows) => runs.runs_of(rows.values().set_indices()),
                        None => runs.runs_of(0..all),
                    });
                    take(key, run_of, None).map_err(flaw)?
                }
                _ => {
                    let whole = loaded.get(column.id).ok_or_else(|| missing_column(column))?;
                    match &wanted {
                        Some(rows) => filter(whole, rows).map_err(flaw)?,
                        None => ArrayRef::clone(whole),
                    }
                }
            };
            found.push(array);
            breathe().await;
        }
        Ok(Found { columns: found, rows, is_exact, bytes_read: loaded.bytes_read })
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
        self.key.iter().map(|position| take(runs.keys(*position), run_of, None).map_err(flaw)).collect()
    }
}

fn missing_column(column: &Column) -> EngineError {
    EngineError::Rows(format!("column {} was not read", column.id))
}

pub(super) fn flaw(error: ArrowError) -> EngineError {
    EngineError::Rows(error.to_string())
}
