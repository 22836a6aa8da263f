//! Pieces that answer for their rows: those that lie in one bucket and between the bounds on time, and of which all measures
//! are known. Rows of the others are read, as far as they may lie between the bounds.

use std::ops::Range;
use std::rc::Rc;

use arrow::buffer::BooleanBuffer;
use meridian_proto::time::bucket_start;

use super::measured::{Measured, Values};
use super::runs::integers;
use crate::error::EngineError;
use crate::scan::{Grid, Measure};
use crate::segment::{PieceColumn, Pieces};

/// The pieces of a row group.
pub(super) struct KnownPieces {
    pieces: Rc<Pieces>,
    /// Times alone, one entry per piece.
    times: Measured,
    /// `None`: no piece answers for its rows.
    pub measured: Option<Measured>,
    /// Those of which all measures are known; `None`: all of them.
    known: Option<BooleanBuffer>,
}

/// What becomes of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// No row lies between the bounds.
    Nothing,
    /// It answers for all of its rows.
    Whole,
    Rows,
}

impl KnownPieces {
    /// `times`: statistics of the time column; those of each measure's column come with it. `None`: they do not fit.
    pub fn new(
        pieces: Rc<Pieces>,
        times: &PieceColumn,
        measures: &[(Measure, Option<Rc<PieceColumn>>)],
    ) -> Result<Option<Self>, EngineError> {
        let (Some(firsts), Some(lasts)) = (integers(&times.mins), integers(&times.maxs)) else { return Ok(None) };
        let mut values = Vec::with_capacity(measures.len());
        let mut known: Option<BooleanBuffer> = None;
        let mut are_measured = true;
        for (measure, column) in measures {
            let found = values_of(*measure, column.as_deref(), times)?;
            are_measured &= found.is_some() || matches!(measure, Measure::FirstTime | Measure::LastTime);
            values.push(found);
            let is_exact = !matches!(measure, Measure::Sum(_) | Measure::Min(_) | Measure::Max(_));
            let of_column = column.as_ref().filter(|_| !is_exact).and_then(|column| column.known.as_ref());
            known = match (known, of_column) {
                (Some(known), Some(of_column)) => Some(&known & of_column),
                (known, of_column) => known.or_else(|| of_column.cloned()),
            };
        }
        let measured = are_measured.then(|| Measured::of_times(&firsts, &lasts, values));
        Ok(Some(Self { pieces, times: Measured::of_times(&firsts, &lasts, Vec::new()), measured, known }))
    }

    /// Tells which pieces answer for rows of a series, and which of its rows must be read. Both ascend.
    pub fn split(
        &self,
        series: Range<usize>,
        grid: Option<Grid>,
        times: (i64, i64),
        mut whole: impl FnMut(Range<usize>),
        mut read: impl FnMut(Range<usize>),
    ) {
        let place = |row: usize| self.pieces.starts.partition_point(|start| (*start as usize) < row);
        let end = place(series.end);
        let mut next = place(series.start);
        while next < end {
            let what = self.use_of(next, grid, times);
            let from = next;
            while next < end && self.use_of(next, grid, times) == what {
                next += 1;
            }
            match what {
                Use::Nothing => {}
                Use::Whole => whole(from..next),
                Use::Rows => read(self.pieces.rows_of(from).start..self.pieces.rows_of(next - 1).end),
            }
        }
    }

    fn use_of(&self, piece: usize, grid: Option<Grid>, (low, high): (i64, i64)) -> Use {
        let (first, last) = (self.times.firsts()[piece], self.times.lasts()[piece]);
        if last < low || first > high {
            return Use::Nothing;
        }
        let start = |time, grid: Grid| bucket_start(time, grid.width, grid.origin);
        let is_one_bucket = grid.is_none_or(|grid| start(first, grid) == start(last, grid));
        let is_known = self.measured.is_some() && self.known.as_ref().is_none_or(|known| known.value(piece));
        if low <= first && last <= high && is_one_bucket && is_known { Use::Whole } else { Use::Rows }
    }
}

/// What a measure looks at in pieces; `None`: that is not known.
fn values_of(
    measure: Measure,
    column: Option<&PieceColumn>,
    times: &PieceColumn,
) -> Result<Option<Values>, EngineError> {
    let array = match (measure, column) {
        (Measure::Rows, _) => return Ok(Some(Values::Counts(times.counts.clone()))),
        (Measure::Count(_), Some(column)) => return Ok(Some(Values::Counts(column.counts.clone()))),
        (Measure::Sum(_), Some(column)) => column.sums.as_ref(),
        (Measure::Min(_), Some(column)) => Some(&column.mins),
        (Measure::Max(_), Some(column)) => Some(&column.maxs),
        (Measure::First(_), Some(column)) => Some(&column.firsts),
        (Measure::Last(_), Some(column)) => Some(&column.lasts),
        _ => None,
    };
    array.map(Values::of).transpose()
}
