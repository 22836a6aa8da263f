//! Floats as version 2 has them where they are no decimals: like [`split`](super::split), but with one zstd frame of
//! symbols and exceptions without their rows, so that a page is decoded as a whole. Only read.
//!
//! ```text
//! offset  size  field
//!      0     1  high bits h, 1..=16
//!      1     1  number of entries less 1, 0..=254
//!      2     2  zero
//!      4     4  number of exceptions e
//!      8   2*d  entries: high bits
//!     ..    ..  symbols, one a row: a section; 255: an exception
//!     ..  128*w  the low bits, w = 64 - h for float8 and 32 - h for float4, packed, once per 1024 rows
//!     ..   2*e  the high bits of each exception, in order of rows
//! ```

use super::bitpack::{self, BLOCK, packed_bytes};
use super::decimal::Float;
use super::section;
use super::{Flaw, Input, check_decoded_bytes};

const ENTRIES_MAX: usize = 255;
const ESCAPE: u8 = 255;

pub fn decode<T: Float>(input: &mut Input<'_>, rows: usize) -> Result<Vec<T>, Flaw> {
    check_decoded_bytes(rows, T::WIDTH_BYTES)?;
    let [high, last_entry, zeros @ ..] = input.array::<4>()?;
    let (high, entries) = (u32::from(high), usize::from(last_entry) + 1);
    let exceptions = input.u32()? as usize;
    if !(1..=16).contains(&high) || entries > ENTRIES_MAX || zeros != [0; 2] || exceptions > rows {
        return Err(Flaw("a page of reals has an impossible header"));
    }
    let low = T::BITS - high;
    // A code without entry reads as zeros; none is written.
    let mut table = [0u64; 256];
    for (slot, entry) in table.iter_mut().zip(input.take(entries * 2)?.as_chunks::<2>().0) {
        *slot = u64::from(u16::from_le_bytes(*entry)) << low;
    }
    let symbols = section::read_symbols(input, rows)?;
    let lows = input.take(rows.div_ceil(BLOCK) * packed_bytes(low))?;
    let mut exceptions = input.take(exceptions * 2)?.as_chunks::<2>().0.iter();
    let mut values = Vec::with_capacity(rows);
    let mut block = [0u64; BLOCK];
    for (symbols, lows) in symbols.chunks(BLOCK).zip(lows.chunks_exact(packed_bytes(low))) {
        bitpack::unpack(lows, low, 0, &mut block);
        for (slot, symbol) in block.iter_mut().zip(symbols) {
            *slot |= table[usize::from(*symbol)];
        }
        for at in (0..symbols.len()).filter(|at| symbols[*at] == ESCAPE) {
            let high = exceptions.next().ok_or(Flaw("an exception of a page of reals is missing"))?;
            block[at] |= u64::from(u16::from_le_bytes(*high)) << low;
        }
        values.extend(block[..symbols.len()].iter().map(|bits| T::of_bits(*bits)));
    }
    if exceptions.next().is_some() {
        return Err(Flaw("a page of reals has more exceptions than rows of them"));
    }
    Ok(values)
}
