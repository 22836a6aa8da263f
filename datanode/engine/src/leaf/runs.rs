//! The series directory of a row group: where each series' rows lie. Rows are sorted by series, so a series is one run;
//! nothing here goes wrong if it is several.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, partition, take};
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;

use super::ranges::RowRanges;
use crate::scan::Ends;
use crate::segment::{PieceColumn, Pieces};

pub struct Runs {
    /// One row per run and array per segment-by column, in that order.
    keys: Vec<ArrayRef>,
    /// First row of each run; the first one is 0.
    starts: Vec<u32>,
    rows: usize,
}

impl Runs {
    /// Finds the runs of equal keys; NULL equals NULL. Without columns all rows are one run.
    pub fn of(columns: &[ArrayRef], rows: usize) -> Result<Self, ArrowError> {
        let starts: Vec<u32> = match columns {
            _ if rows == 0 => Vec::new(),
            [] => vec![0],
            columns => partition(columns)?.ranges().iter().map(|range| range.start as u32).collect(),
        };
        let firsts = UInt32Array::from(starts.clone());
        let keys = columns.iter().map(|column| take(column, &firsts, None)).collect::<Result<_, _>>()?;
        Ok(Self { keys, starts, rows })
    }

    /// As [`Self::of`], where the columns only have the rows in which runs may begin. `None`: they have all.
    pub fn of_heads(columns: &[ArrayRef], heads: Option<&[u32]>, rows: usize) -> Result<Self, ArrowError> {
        let Some(heads) = heads else { return Self::of(columns, rows) };
        let Self { keys, starts, .. } = Self::of(columns, heads.len())?;
        Ok(Self { keys, starts: starts.into_iter().map(|head| heads[head as usize]).collect(), rows })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// By position among the segment-by columns.
    #[must_use]
    pub fn keys(&self, position: usize) -> &ArrayRef {
        &self.keys[position]
    }

    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.starts.len() * 4 + self.keys.iter().map(Array::get_array_memory_size).sum::<usize>()
    }

    /// The rows of a run.
    #[must_use]
    pub fn range(&self, run: usize) -> Range<usize> {
        let end = self.starts.get(run + 1).map_or(self.rows, |start| *start as usize);
        self.starts[run] as usize..end
    }

    /// The rows of the runs.
    #[must_use]
    pub fn rows_of(&self, runs: &BooleanBuffer) -> RowRanges {
        runs.set_indices().map(|run| self.range(run)).collect()
    }

    /// The run of each of the rows, which ascend.
    #[must_use]
    pub fn runs_of(&self, rows: impl Iterator<Item = usize>) -> UInt32Array {
        let mut run = 0;
        let run_of = |row: usize| {
            while run + 1 < self.starts.len() && self.starts[run + 1] as usize <= row {
                run += 1;
            }
            run as u32
        };
        UInt32Array::from_iter_values(rows.map(run_of))
    }

    /// Rows that stand for their runs, ascending: of each run those with the least and the greatest time, all of them
    /// where times are equal; or its first row when neither is asked for. `None`: the times have no such ends.
    #[must_use]
    pub fn ends(&self, times: Option<&ArrayRef>, ends: Ends) -> Option<UInt32Array> {
        if ends == Ends::ANY {
            return Some(UInt32Array::from(self.starts.clone()));
        }
        let times = integers(times?)?;
        let times: &[i64] = times.as_primitive_opt::<Int64Type>()?.values();
        let mut rows = Vec::with_capacity(self.len());
        for run in 0..self.len() {
            let range = self.range(run);
            let within = &times[range.clone()];
            let first = within.iter().min().filter(|_| ends.first);
            let last = within.iter().max().filter(|_| ends.last);
            let is_end = |time: &i64| first == Some(time) || last == Some(time);
            rows.extend(range.filter(|row| is_end(&times[*row])).map(|row| row as u32));
        }
        Some(UInt32Array::from(rows))
    }

    /// As [`Self::ends`], where only some rows were read, all ends among them; `times` are those of these rows.
    #[must_use]
    pub fn ends_among(&self, read: &RowRanges, times: &ArrayRef, ends: Ends) -> Option<UInt32Array> {
        let rows: Vec<u32> = read.rows().map(|row| row as u32).collect();
        let starts = self.starts.iter().map(|start| rows.partition_point(|row| row < start) as u32).collect();
        let among = Self { keys: Vec::new(), starts, rows: rows.len() };
        let found = among.ends(Some(times), ends)?;
        Some(found.values().iter().map(|at| rows[*at as usize]).collect::<Vec<_>>().into())
    }

    /// The pieces with the least and the greatest time of each run. `None`: they do not fit the runs.
    #[must_use]
    pub fn end_pieces(&self, pieces: &Pieces, times: &PieceColumn, ends: Ends) -> Option<RowRanges> {
        let (firsts, lasts) = (integers(&times.mins)?, integers(&times.maxs)?);
        let (firsts, lasts) = (firsts.as_primitive::<Int64Type>().values(), lasts.as_primitive::<Int64Type>().values());
        let mut chosen = RowRanges::default();
        for run in 0..self.len() {
            let rows = self.range(run);
            let from = pieces.starts.binary_search(&(rows.start as u32)).ok()?;
            let upto = pieces.starts.partition_point(|start| (*start as usize) < rows.end);
            let first = firsts[from..upto].iter().min().filter(|_| ends.first);
            let last = lasts[from..upto].iter().max().filter(|_| ends.last);
            let is_end = |piece: &usize| first == Some(&firsts[*piece]) || last == Some(&lasts[*piece]);
            (from..upto).filter(is_end).for_each(|piece| chosen.push(pieces.rows_of(piece)));
        }
        Some(chosen)
    }
}

/// Times as numbers of the same order; `None` for other types, and where one is NULL.
pub fn integers(times: &ArrayRef) -> Option<ArrayRef> {
    if times.null_count() > 0 {
        return None;
    }
    match times.data_type() {
        DataType::Int64 => Some(Arc::clone(times)),
        DataType::Date32 => cast(&cast(times, &DataType::Int32).ok()?, &DataType::Int64).ok(),
        DataType::Timestamp(..) | DataType::Int16 | DataType::Int32 => cast(times, &DataType::Int64).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn runs() -> Runs {
        let hosts: ArrayRef = Arc::new(StringArray::from(vec![None, None, Some("a"), Some("a"), Some("a"), Some("b")]));
        let racks: ArrayRef = Arc::new(Int64Array::from(vec![1, 1, 1, 2, 2, 2]));
        Runs::of(&[hosts, racks], 6).unwrap()
    }

    #[test]
    fn equal_keys_are_one_run_and_so_are_nulls() {
        let runs = runs();
        assert_eq!(runs.starts, [0, 2, 3, 5]);
        assert!(runs.keys(0).is_null(0));
        let chosen = BooleanBuffer::from(vec![false, true, false, true]);
        assert_eq!(runs.rows_of(&chosen).as_slice(), [2..3, 5..6]);
        assert_eq!(runs.runs_of([0, 1, 4, 5].into_iter()).values(), &[0, 0, 2, 3]);
        assert_eq!(Runs::of(&[], 4).unwrap().starts, [0]);
        assert_eq!(Runs::of(&[], 0).unwrap().len(), 0);
    }

    #[test]
    fn ends_are_all_rows_of_the_least_or_greatest_time() {
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![3, 3, 9, 1, 4, 4]));
        let ends = |first, last| runs().ends(Some(&times), Ends { first, last }).unwrap().values().to_vec();
        assert_eq!(ends(false, true), [0, 1, 2, 4, 5]);
        assert_eq!(ends(true, false), [0, 1, 2, 3, 5]);
        assert_eq!(ends(true, true), [0, 1, 2, 3, 4, 5]);
        assert_eq!(runs().ends(None, Ends::ANY).unwrap().values(), &[0, 2, 3, 5]);
        let holes: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, None, None, None, None]));
        assert_eq!(runs().ends(Some(&holes), Ends { first: true, last: false }), None);
    }
}
