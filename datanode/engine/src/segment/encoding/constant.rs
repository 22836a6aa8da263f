//! One value for all rows of a page. NULL rows do not count: they have their mask.

use super::plain::Fixed;
use super::{Flaw, Input, check_decoded_bytes};

/// Bytes of the one value, or `None` when there are several. `same` tells equality bit for bit.
pub fn estimate<T: Fixed>(values: &[T], same: impl Fn(&T, &T) -> bool) -> Option<usize> {
    let (first, rest) = values.split_first()?;
    // In runs, so that the comparison of a run can be done without a branch per value.
    rest.chunks(256).all(|run| run.iter().fold(true, |all, value| all & same(first, value))).then_some(T::WIDTH_BYTES)
}

pub fn encode<T: Fixed>(value: T, out: &mut Vec<u8>) {
    super::plain::encode(&[value], out);
}

pub fn decode<T: Fixed>(input: &mut Input<'_>, rows: usize) -> Result<Vec<T>, Flaw> {
    check_decoded_bytes(rows, T::WIDTH_BYTES)?;
    Ok(vec![T::read(input.take(T::WIDTH_BYTES)?); rows])
}
