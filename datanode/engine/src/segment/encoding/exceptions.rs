//! Rows whose values do not fit an encoding and are kept apart: their numbers, ascending, 4 bytes each.

use std::ops::Range;

use super::{Flaw, Input};

/// The rows, which were checked.
#[derive(Clone, Copy, Debug)]
pub struct Exceptions<'a> {
    rows: &'a [[u8; 4]],
}

impl<'a> Exceptions<'a> {
    /// Reads so many, of a page with `rows` rows.
    pub fn read(input: &mut Input<'a>, count: usize, rows: usize) -> Result<Self, Flaw> {
        let exceptions = Self { rows: input.take(count * 4)?.as_chunks().0 };
        let is_sorted = exceptions.rows.windows(2).all(|pair| row(&pair[0]) < row(&pair[1]));
        if is_sorted && exceptions.rows.last().is_none_or(|last| row(last) < rows) {
            return Ok(exceptions);
        }
        Err(Flaw("an exception lies outside its page"))
    }

    /// Those among the rows: the place in the list, and the row counted from the first of `rows`.
    #[inline(always)]
    pub fn within(&self, rows: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        let first = if self.rows.is_empty() { 0 } else { self.rows.partition_point(|at| row(at) < rows.start) };
        let found = self.rows[first..].iter().map(row).take_while(move |at| *at < rows.end);
        found.enumerate().map(move |(place, at)| (first + place, at - rows.start))
    }
}

#[inline(always)]
fn row(bytes: &[u8; 4]) -> usize {
    u32::from_le_bytes(*bytes) as usize
}
