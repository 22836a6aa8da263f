//! Which rows of a page are wanted: ascending ranges without overlap. Encodings in blocks decode only the blocks that
//! hold such rows.

use std::ops::Range;

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;

/// Rows of a page that are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    rows: usize,
    count: usize,
    ranges: &'a [Range<usize>],
}

/// The wanted rows of one block.
#[derive(Clone, Copy, Debug)]
pub struct BlockRows<'a> {
    /// Number of the block.
    pub block: usize,
    /// Rows of the page before the block, and in it.
    pub start: usize,
    pub rows: usize,
    /// Of the page; the first and the last may reach out of the block.
    ranges: &'a [Range<usize>],
}

impl<'a> Selection<'a> {
    /// Of a page with `rows` rows. `ranges` ascend, do not overlap and end within the page: the caller made them.
    pub fn new(rows: usize, ranges: &'a [Range<usize>]) -> Self {
        assert!(
            ranges.windows(2).all(|pair| pair[0].end <= pair[1].start)
                && ranges.iter().all(|range| range.start <= range.end)
                && ranges.last().is_none_or(|last| last.end <= rows),
            "wanted rows ascend within their page"
        );
        Self { rows, count: ranges.iter().map(ExactSizeIterator::len).sum(), ranges }
    }

    /// Rows of the page.
    #[inline(always)]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that are wanted.
    #[inline(always)]
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn is_whole(&self) -> bool {
        self.count == self.rows
    }

    pub fn ranges(&self) -> &'a [Range<usize>] {
        self.ranges
    }

    /// The blocks of `size` rows in which wanted rows lie.
    #[inline(always)]
    pub fn blocks(&self, size: usize) -> impl Iterator<Item = BlockRows<'a>> {
        let (all, mut ranges, mut from) = (self.rows, self.ranges, 0);
        std::iter::from_fn(move || {
            while let [first, rest @ ..] = ranges
                && first.end <= from.max(first.start)
            {
                ranges = rest;
            }
            let block = ranges.first()?.start.max(from) / size;
            let (start, end) = (block * size, ((block + 1) * size).min(all));
            let within = ranges.iter().take_while(|range| range.start < end).count();
            let rows = BlockRows { block, start, rows: end - start, ranges: &ranges[..within] };
            // The last of them may go on in the next block.
            ranges = &ranges[within - 1..];
            from = end;
            Some(rows)
        })
    }

    /// The wanted ones of a value for each row of the page.
    pub fn pick<T: Copy>(&self, values: Vec<T>) -> Vec<T> {
        if self.is_whole() {
            return values;
        }
        let mut picked = Vec::with_capacity(self.count);
        for range in self.ranges {
            picked.extend_from_slice(&values[range.clone()]);
        }
        picked
    }

    /// The wanted ones of a bit for each row of the page.
    pub fn pick_bits(&self, bits: BooleanBuffer) -> BooleanBuffer {
        match self.ranges {
            _ if self.is_whole() => bits,
            [only] => bits.slice(only.start, only.len()),
            ranges => {
                let mut picked = BooleanBufferBuilder::new(self.count);
                for range in ranges {
                    picked.append_buffer(&bits.slice(range.start, range.len()));
                }
                picked.finish()
            }
        }
    }
}

impl BlockRows<'_> {
    /// The wanted rows, counted from the block's first.
    #[inline(always)]
    pub fn parts(&self) -> impl Iterator<Item = Range<usize>> {
        let (start, rows) = (self.start, self.rows);
        self.ranges.iter().map(move |range| range.start.saturating_sub(start)..(range.end - start).min(rows))
    }

    /// Rows of the block up to the last wanted one.
    #[inline(always)]
    pub fn end(&self) -> usize {
        self.ranges.last().map_or(0, |range| (range.end - self.start).min(self.rows))
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Ranges over some of so many rows.
    pub fn random_ranges(random: &mut impl Rng, rows: usize) -> Vec<Range<usize>> {
        let mut borders: Vec<usize> = (0..random.random_range(0..12)).map(|_| random.random_range(0..=rows)).collect();
        borders.sort_unstable();
        borders.as_chunks::<2>().0.iter().map(|[start, end]| *start..*end).collect()
    }

    #[test]
    fn blocks_hold_each_wanted_row_once_and_no_block_comes_in_vain() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        for _ in 0..2000 {
            let (rows, size) = (random.random_range(0..100), random.random_range(1..20));
            let ranges = random_ranges(&mut random, rows);
            let selection = Selection::new(rows, &ranges);
            let mut found = Vec::new();
            for block in selection.blocks(size) {
                let before = found.len();
                for part in block.parts() {
                    assert!(part.end <= block.rows && block.rows <= size && block.start == block.block * size);
                    found.extend(part.map(|row| block.start + row));
                }
                assert!(found.len() > before, "a block without wanted rows");
                assert!(found.last().is_some_and(|row| *row < block.start + block.end()));
            }
            let expected: Vec<usize> = ranges.iter().cloned().flatten().collect();
            assert_eq!((&found, selection.count()), (&expected, expected.len()));
            assert_eq!(selection.pick((0..rows).collect()), expected);
            let bits = BooleanBuffer::collect_bool(rows, |row| row % 3 == 0);
            let picked: Vec<bool> = selection.pick_bits(bits).iter().collect();
            assert_eq!(picked, expected.iter().map(|row| row % 3 == 0).collect::<Vec<_>>());
        }
    }
}
