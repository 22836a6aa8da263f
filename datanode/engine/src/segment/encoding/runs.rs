//! Integers that repeat for many rows: the value of each run and its length.
//!
//! ```text
//! offset  size  field
//!      0     4  number of runs r
//!      4     n  their lengths, packed; each at least 1
//!     ..     n  their values, packed
//! ```

use std::ops::Range;

use super::selection::Selection;
use super::{Flaw, Input, check_decoded_bytes, packed};

/// Runs are worth a look where they have at least so many rows each.
const RUN_ROWS_MIN: usize = 8;

#[derive(Debug)]
pub struct Plan {
    lengths: Vec<i64>,
    values: Vec<i64>,
    packed_lengths: packed::Plan,
    packed_values: packed::Plan,
    pub bytes: usize,
}

/// `None` when runs are short.
pub fn estimate(values: &[i64]) -> Option<Plan> {
    let borders: usize = values.windows(2).map(|pair| usize::from(pair[0] != pair[1])).sum();
    if values.is_empty() || (borders + 1) * RUN_ROWS_MIN > values.len() {
        return None;
    }
    let (mut lengths, mut heads) = (Vec::with_capacity(borders + 1), Vec::with_capacity(borders + 1));
    for run in values.chunk_by(|a, b| a == b) {
        lengths.push(run.len() as i64);
        heads.push(run[0]);
    }
    let (packed_lengths, packed_values) = (packed::estimate(&lengths), packed::estimate(&heads));
    let bytes = 4 + packed_lengths.bytes + packed_values.bytes;
    Some(Plan { lengths, values: heads, packed_lengths, packed_values, bytes })
}

pub fn encode(plan: &Plan, out: &mut Vec<u8>) {
    out.extend_from_slice(&(plan.lengths.len() as u32).to_le_bytes());
    packed::encode(&plan.lengths, &plan.packed_lengths, out);
    packed::encode(&plan.values, &plan.packed_values, out);
}

/// Decodes the wanted ones of as many integers as the selection has rows, each passed through `convert`.
pub fn decode<T: Copy + Default>(
    input: &mut Input<'_>,
    selection: &Selection<'_>,
    convert: impl Fn(i64) -> T + Copy,
) -> Result<Vec<T>, Flaw> {
    check_decoded_bytes(selection.count(), size_of::<T>())?;
    let mut values = Vec::with_capacity(selection.count());
    for (rows, value) in decode_parts(input, selection, convert)? {
        values.resize(values.len() + rows, value);
    }
    Ok(values)
}

/// How many of the wanted rows have which value, in their order.
pub fn decode_parts<T: Copy + Default>(
    input: &mut Input<'_>,
    selection: &Selection<'_>,
    convert: impl Fn(i64) -> T + Copy,
) -> Result<Vec<(usize, T)>, Flaw> {
    let mut parts = Vec::new();
    let mut wanted = selection.ranges();
    for (rows, value) in decode_runs(input, selection.rows(), convert)? {
        let mut count = 0;
        while let [range, rest @ ..] = wanted
            && range.start < rows.end
        {
            count += range.end.min(rows.end) - range.start.max(rows.start);
            if range.end > rows.end {
                break;
            }
            wanted = rest;
        }
        if count > 0 {
            parts.push((count, value));
        }
    }
    Ok(parts)
}

/// The runs of as many rows: which rows each has, which follow one another without a gap, and its value.
pub fn decode_runs<T: Copy + Default>(
    input: &mut Input<'_>,
    rows: usize,
    convert: impl Fn(i64) -> T + Copy,
) -> Result<Vec<(Range<usize>, T)>, Flaw> {
    let runs = input.u32()? as usize;
    if runs > rows {
        return Err(Flaw("a page has more runs than rows"));
    }
    let lengths = packed::decode_all(input, runs, |length| usize::try_from(length).unwrap_or(0))?;
    let heads = packed::decode_all(input, runs, convert)?;
    let (mut runs, mut end) = (Vec::with_capacity(runs), 0);
    for (length, value) in lengths.into_iter().zip(heads) {
        if length == 0 || length > rows - end {
            return Err(Flaw("the lengths of runs are impossible"));
        }
        runs.push((end..end + length, value));
        end += length;
    }
    if end == rows { Ok(runs) } else { Err(Flaw("the runs have not as many rows as the page")) }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    fn check(values: &[i64]) -> Option<usize> {
        let plan = estimate(values)?;
        let mut bytes = Vec::new();
        encode(&plan, &mut bytes);
        assert_eq!(bytes.len(), plan.bytes, "the estimate is exact");
        let mut input = Input::new(&bytes);
        let all = 0..values.len();
        assert_eq!(decode(&mut input, &Selection::new(all.end, &[all]), |v| v).unwrap(), values);
        input.finish().unwrap();
        Some(bytes.len())
    }

    #[test]
    fn long_runs_come_back_and_short_ones_do_not_apply() {
        assert_eq!(check(&[]), None);
        assert!(check(&[i64::MIN; 8]).is_some());
        let values: Vec<i64> = (0..65_536).map(|row| [3, 70, -7, 0][row / 1000 % 4]).collect();
        assert!(check(&values).unwrap() < 1200);
        let short: Vec<i64> = (0..100).collect();
        assert_eq!(check(&short), None);
    }

    #[test]
    fn any_bytes_decode_or_are_refused() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let values: Vec<i64> = (0..1500).map(|row| row / 100).collect();
        let mut whole = Vec::new();
        encode(&estimate(&values).unwrap(), &mut whole);
        for _ in 0..3000 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            let _ = decode_runs(&mut Input::new(&bytes), 1500, |v| v);
        }
    }
}
