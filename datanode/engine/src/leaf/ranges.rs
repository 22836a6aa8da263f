//! Rows of a row group as ascending ranges: what a reader still wants of it.

use std::ops::Range;

use arrow::buffer::BooleanBuffer;

/// Ranges that ascend, are not empty and do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowRanges(Vec<Range<usize>>);

impl RowRanges {
    #[must_use]
    pub fn all(rows: usize) -> Self {
        let mut ranges = Self::default();
        ranges.push(0..rows);
        ranges
    }

    #[must_use]
    pub fn as_slice(&self) -> &[Range<usize>] {
        &self.0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.0.iter().map(ExactSizeIterator::len).sum()
    }

    /// The range from the first to the last of these rows that lie within `range`.
    #[must_use]
    pub fn hull_within(&self, range: Range<usize>) -> Range<usize> {
        let from = self.0.partition_point(|rows| rows.end <= range.start);
        let upto = self.0.partition_point(|rows| rows.start < range.end);
        match self.0.get(from..upto) {
            Some([first, .., last]) => first.start.max(range.start)..last.end.min(range.end),
            Some([only]) => only.start.max(range.start)..only.end.min(range.end),
            _ => range.start..range.start,
        }
    }

    pub fn rows(&self) -> impl Iterator<Item = usize> {
        self.0.iter().cloned().flatten()
    }

    /// Adds rows behind all others.
    pub fn push(&mut self, rows: Range<usize>) {
        if rows.is_empty() {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.end == rows.start => last.end = rows.end,
            _ => self.0.push(rows),
        }
    }

    /// Rows that are in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let (mut a, mut b) = (self.0.as_slice(), other.0.as_slice());
        let mut both = Self::default();
        while let ([first, rest_a @ ..], [second, rest_b @ ..]) = (a, b) {
            let start = first.start.max(second.start);
            both.push(start..first.end.min(second.end).max(start));
            // The one that ends first has nothing in common with what follows in the other.
            if first.end <= second.end {
                a = rest_a;
            } else {
                b = rest_b;
            }
        }
        both
    }

    /// Rows that are in either; none is in both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let mut ranges = self.0;
        ranges.extend(other.0);
        ranges.sort_unstable_by_key(|range| range.start);
        let mut either = Self::default();
        ranges.into_iter().for_each(|range| either.push(range));
        either
    }

    /// Those of the rows whose bit is set: one bit for each of these rows.
    #[must_use]
    pub fn keep(&self, bits: &BooleanBuffer) -> Self {
        let mut kept = Self::default();
        let mut from = 0;
        for range in &self.0 {
            for (start, end) in bits.slice(from, range.len()).set_slices() {
                kept.push(range.start + start..range.start + end);
            }
            from += range.len();
        }
        kept
    }
}

impl FromIterator<Range<usize>> for RowRanges {
    fn from_iter<T: IntoIterator<Item = Range<usize>>>(ranges: T) -> Self {
        let mut collected = Self::default();
        ranges.into_iter().for_each(|range| collected.push(range));
        collected
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn of(rows: &[bool]) -> RowRanges {
        RowRanges::all(rows.len()).keep(&BooleanBuffer::from(rows.to_vec()))
    }

    fn set(rows: &[bool]) -> Vec<usize> {
        (0..rows.len()).filter(|row| rows[*row]).collect()
    }

    #[test]
    fn ranges_are_sets_of_rows() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for round in 0..500 {
            let count = random.random_range(0..80);
            let bits = |random: &mut ChaCha8Rng| -> Vec<bool> {
                let part = random.random_range(0..=10);
                (0..count).map(|_| random.random_ratio(part, 10)).collect()
            };
            let (a, b) = (bits(&mut random), bits(&mut random));
            let both: Vec<bool> = a.iter().zip(&b).map(|(a, b)| a & b).collect();
            let rest: Vec<bool> = a.iter().zip(&b).map(|(a, b)| a & !b).collect();
            assert_eq!(of(&a).rows().collect::<Vec<_>>(), set(&a), "{round}");
            assert_eq!(of(&a).count(), set(&a).len());
            assert_eq!(of(&a).and(&of(&b)), of(&both));
            assert_eq!(of(&both).or(of(&rest)), of(&a));
            let among: Vec<bool> = set(&a).into_iter().map(|row| b[row]).collect();
            assert_eq!(of(&a).keep(&BooleanBuffer::from(among)), of(&both));
            let (start, end) = (random.random_range(0..=count), random.random_range(0..=count));
            let range = start.min(end)..start.max(end);
            let within: Vec<usize> = set(&a).into_iter().filter(|row| range.contains(row)).collect();
            let hull = of(&a).hull_within(range);
            assert_eq!(hull.is_empty(), within.is_empty());
            let ends = (!hull.is_empty()).then(|| (hull.start, hull.end - 1));
            assert_eq!(ends, within.first().copied().zip(within.last().copied()));
            assert!(of(&a).as_slice().windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
