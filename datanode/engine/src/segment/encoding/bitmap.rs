//! One bit per row, lowest bit first: booleans and null masks, in Arrow's own layout.

use arrow::buffer::BooleanBuffer;

use super::selection::Selection;
use super::{Flaw, Input};

pub fn estimate(rows: usize) -> usize {
    rows.div_ceil(8)
}

/// Appends the bits; those after the last row are zero.
pub fn encode(bits: &BooleanBuffer, out: &mut Vec<u8>) {
    let start = out.len();
    if bits.offset().is_multiple_of(8) {
        let first = bits.offset() / 8;
        out.extend_from_slice(&bits.values()[first..first + estimate(bits.len())]);
    } else {
        let aligned = bits.sliced();
        out.extend_from_slice(&aligned.as_slice()[..estimate(bits.len())]);
    }
    if !bits.len().is_multiple_of(8)
        && let Some(last) = out[start..].last_mut()
    {
        *last &= (1 << (bits.len() % 8)) - 1;
    }
}

pub fn decode(input: &mut Input<'_>, selection: &Selection<'_>) -> Result<BooleanBuffer, Flaw> {
    let bytes = input.take(estimate(selection.rows()))?;
    Ok(selection.pick_bits(BooleanBuffer::new(bytes.to_vec().into(), 0, selection.rows())))
}
