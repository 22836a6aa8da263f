//! Strings and bytes of high cardinality: packed lengths, then all bytes.

use arrow::buffer::NullBuffer;

use super::selection::Selection;
use super::{Flaw, Input, check_decoded_bytes, packed};

/// The lengths to pack.
#[derive(Debug)]
pub struct Plan {
    lengths: Vec<i64>,
    packed: packed::Plan,
    pub bytes: usize,
}

/// Offsets and bytes of decoded values, as Arrow holds them.
#[derive(Debug, Default)]
pub struct Decoded {
    pub offsets: Vec<i32>,
    pub bytes: Vec<u8>,
    /// Each value is known to be UTF-8; else none of them was looked at.
    pub is_text: bool,
}

/// `value` gives the bytes of each row; a NULL row is empty.
pub fn estimate<'a>(rows: usize, value: impl Fn(usize) -> &'a [u8]) -> Plan {
    let lengths: Vec<i64> = (0..rows).map(|row| value(row).len() as i64).collect();
    let packed = packed::estimate(&lengths);
    let bytes = packed.bytes + lengths.iter().sum::<i64>() as usize;
    Plan { lengths, packed, bytes }
}

pub fn encode<'a>(plan: &Plan, value: impl Fn(usize) -> &'a [u8], out: &mut Vec<u8>) {
    packed::encode(&plan.lengths, &plan.packed, out);
    for row in 0..plan.lengths.len() {
        out.extend_from_slice(value(row));
    }
}

pub fn decode(input: &mut Input<'_>, selection: &Selection<'_>) -> Result<Decoded, Flaw> {
    let offsets = decode_offsets(input, selection.rows())?;
    let total = offsets.last().copied().unwrap_or(0) as usize;
    let bytes = input.take(total)?;
    if selection.is_whole() {
        return Ok(Decoded { bytes: bytes.to_vec(), offsets, is_text: false });
    }
    let mut picked = Decoded { offsets: Vec::with_capacity(selection.count() + 1), ..Decoded::default() };
    picked.offsets.push(0);
    for range in selection.ranges() {
        let (first, before) = (offsets[range.start], picked.bytes.len() as i32);
        picked.offsets.extend(offsets[range.start + 1..=range.end].iter().map(|end| end - first + before));
        picked.bytes.extend_from_slice(&bytes[first as usize..offsets[range.end] as usize]);
    }
    Ok(picked)
}

pub fn decode_all(input: &mut Input<'_>, rows: usize) -> Result<Decoded, Flaw> {
    decode(input, &Selection::new(rows, std::slice::from_ref(&(0..rows))))
}

/// Reads `rows` packed lengths and sums them up: `rows + 1` offsets from 0, none over what a page may hold.
pub fn decode_offsets(input: &mut Input<'_>, rows: usize) -> Result<Vec<i32>, Flaw> {
    check_decoded_bytes(rows + 1, 4)?;
    let lengths = packed::decode_all(input, rows, |length| length)?;
    let mut offsets = Vec::with_capacity(rows + 1);
    let mut end = 0i64;
    offsets.push(0);
    let mut sound = true;
    for length in lengths {
        sound &= (0..=super::DECODED_BYTES_MAX as i64).contains(&length) && end <= super::DECODED_BYTES_MAX as i64;
        end = end.wrapping_add(length);
        offsets.push(end as i32);
    }
    if sound && end <= super::DECODED_BYTES_MAX as i64 {
        Ok(offsets)
    } else {
        Err(Flaw("the lengths of values are impossible"))
    }
}

/// `rows` times the same value; NULL rows are empty.
pub fn decode_constant(value: &[u8], rows: usize, nulls: Option<&NullBuffer>) -> Result<Decoded, Flaw> {
    check_decoded_bytes(rows + 1, value.len().max(4))?;
    let is_text = std::str::from_utf8(value).is_ok();
    if nulls.is_none() {
        let offsets = (0..=rows).map(|row| (row * value.len()) as i32).collect();
        return Ok(Decoded { offsets, bytes: value.repeat(rows), is_text });
    }
    let (offsets, bytes) = (Vec::with_capacity(rows + 1), Vec::with_capacity(rows * value.len()));
    let mut decoded = Decoded { offsets, bytes, is_text };
    decoded.offsets.push(0);
    for row in 0..rows {
        if nulls.is_none_or(|nulls| nulls.is_valid(row)) {
            decoded.bytes.extend_from_slice(value);
        }
        decoded.offsets.push(decoded.bytes.len() as i32);
    }
    Ok(decoded)
}
