//! Integers as version 2 has them: like [`binned`](super::binned), but with one zstd frame of symbols and differences
//! that run through the whole page, so that it is decoded as a whole. Only read.
//!
//! ```text
//! offset  size  field
//!      0     1  bits l within a bin, 0..=56; bit 7: differences, else offsets from the first value
//!      1     3  zero
//!      4     4  number of exceptions e
//!      8     8  first value f
//!     16     8  base b
//!     24     8  unit u, greater than 0
//!     32    ..  symbols s, one a row: a section
//!     ..  128l  the low bits, packed, once per 1024 rows; rows after the last are zero
//!     ..   4*e  row of each exception, ascending
//!     ..   8*e  its whole number n, in place of s * 2^l + low bits
//! ```
//!
//! With n = s * 2^l + low bits, a row is x + (n + b) * u, where x is the value before it (the first value for the first
//! row) or the first value. All of it wraps.

use super::bitpack::{self, BLOCK, packed_bytes};
use super::section;
use super::{Flaw, Input, check_decoded_bytes};

const DELTA_BIT: u8 = 0x80;
const LOW_BITS_MAX: u32 = 56;

/// What stands before the values, checked.
struct Body<'a> {
    delta: bool,
    low: u32,
    first: u64,
    base: u64,
    unit: u64,
    symbols: std::borrow::Cow<'a, [u8]>,
    lows: &'a [u8],
    exceptions: Exceptions<'a>,
}

/// Exceptions that are still to come, by row.
struct Exceptions<'a> {
    rows: &'a [[u8; 4]],
    numbers: &'a [[u8; 8]],
}

/// Decodes `rows` integers, each passed through `convert`.
pub fn decode<T: Copy + Default>(
    input: &mut Input<'_>,
    rows: usize,
    convert: impl Fn(i64) -> T + Copy,
) -> Result<Vec<T>, Flaw> {
    check_decoded_bytes(rows, size_of::<T>())?;
    let mut body = read_body(input, rows)?;
    let mut values = vec![T::default(); rows];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as asked just now.
        unsafe { decode_into_avx2(&mut body, &mut values, convert) };
        return body.exceptions.finish().map(|()| values);
    }
    decode_into(&mut body, &mut values, convert);
    body.exceptions.finish().map(|()| values)
}

fn read_body<'a>(input: &mut Input<'a>, rows: usize) -> Result<Body<'a>, Flaw> {
    let [head, zeros @ ..] = input.array::<4>()?;
    let (low, delta) = (u32::from(head & !DELTA_BIT), head & DELTA_BIT != 0);
    let exceptions = input.u32()? as usize;
    let (first, base, unit) = (input.i64()?, input.i64()?, input.i64()?);
    if low > LOW_BITS_MAX || zeros != [0; 3] || exceptions > rows || unit <= 0 {
        return Err(Flaw("a page of coded integers has an impossible header"));
    }
    let symbols = section::read_symbols(input, rows)?;
    let lows = input.take(rows.div_ceil(BLOCK) * packed_bytes(low))?;
    let exceptions = Exceptions {
        rows: input.take(exceptions * 4)?.as_chunks().0,
        numbers: input.take(exceptions * 8)?.as_chunks().0,
    };
    Ok(Body { delta, low, first: first as u64, base: base as u64, unit: unit as u64, symbols, lows, exceptions })
}

/// The same code as [`decode_into`], compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn decode_into_avx2<T: Copy>(body: &mut Body<'_>, values: &mut [T], convert: impl Fn(i64) -> T + Copy) {
    decode_into(body, values, convert);
}

#[inline(always)]
fn decode_into<T: Copy>(body: &mut Body<'_>, values: &mut [T], convert: impl Fn(i64) -> T + Copy) {
    let mut block = [0u64; BLOCK];
    let block_bytes = packed_bytes(body.low);
    let mut before = body.first;
    for (number, targets) in values.chunks_mut(BLOCK).enumerate() {
        let symbols = &body.symbols[number * BLOCK..][..targets.len()];
        if body.low == 0 {
            for (slot, symbol) in block.iter_mut().zip(symbols) {
                *slot = u64::from(*symbol);
            }
        } else {
            bitpack::unpack(&body.lows[number * block_bytes..][..block_bytes], body.low, 0, &mut block);
            for (slot, symbol) in block.iter_mut().zip(symbols) {
                *slot |= u64::from(*symbol) << body.low;
            }
        }
        body.exceptions.patch(number * BLOCK, targets.len(), &mut block);
        let block = &mut block[..targets.len()];
        for slot in block.iter_mut() {
            *slot = slot.wrapping_add(body.base);
        }
        if body.unit != 1 {
            for slot in block.iter_mut() {
                *slot = slot.wrapping_mul(body.unit);
            }
        }
        if body.delta {
            for slot in block.iter_mut() {
                before = before.wrapping_add(*slot);
                *slot = before;
            }
        } else {
            for slot in block.iter_mut() {
                *slot = slot.wrapping_add(body.first);
            }
        }
        for (target, value) in targets.iter_mut().zip(block) {
            *target = convert(*value as i64);
        }
    }
}

impl Exceptions<'_> {
    /// Puts those of the block that begins at `start` in place.
    fn patch(&mut self, start: usize, rows: usize, block: &mut [u64; BLOCK]) {
        while let ([row, later_rows @ ..], [number, later_numbers @ ..]) = (self.rows, self.numbers) {
            let Some(at) = (u32::from_le_bytes(*row) as usize).checked_sub(start).filter(|at| *at < rows) else {
                return;
            };
            block[at] = u64::from_le_bytes(*number);
            (self.rows, self.numbers) = (later_rows, later_numbers);
        }
    }

    /// One that is left over has a row that does not exist, or that comes before the one ahead of it.
    fn finish(&self) -> Result<(), Flaw> {
        if self.rows.is_empty() { Ok(()) } else { Err(Flaw("an exception lies outside its page")) }
    }
}
