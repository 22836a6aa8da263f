//! Floats without a decimal in sight: their high bits (sign, exponent, the first of the mantissa) take few values and
//! become coded symbols through a dictionary, their low bits are packed as they are (ALP-RD, SIGMOD 2024, with a Huffman
//! code where ALP has codes of equal length).
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
use super::section::{SectionReader, SectionWriter};
use super::{Flaw, Input, check_decoded_bytes};

const ENTRIES_MAX: usize = 255;
const ESCAPE: u8 = 255;
const HEADER_BYTES: usize = 8;
/// Of high bits that are tried: more say more, but take more entries.
const HIGH_BITS: [u32; 4] = [16, 14, 12, 10];
const SAMPLE: usize = 1024;
const ROWS_MIN: usize = 256;
/// What a section's header and the description of a Huffman code take, about.
const TABLE_BYTES: usize = 72;
const EXCEPTION_BITS: f64 = 24.0;

#[derive(Debug)]
pub struct Plan {
    high: u32,
    /// The most frequent first.
    entries: Vec<u16>,
    /// About: only the encoded form tells.
    pub bytes: usize,
}

/// `None` for few values.
pub fn estimate<T: Float>(values: &[T]) -> Option<Plan> {
    if values.len() < ROWS_MIN {
        return None;
    }
    let count = SAMPLE.min(values.len());
    let sample: Vec<u64> = (0..count).map(|i| values[i * values.len() / count].to_bits()).collect();
    let plans = HIGH_BITS.map(|high| survey::<T>(&sample, high, values.len()));
    plans.into_iter().min_by_key(|plan| plan.bytes)
}

fn survey<T: Float>(sample: &[u64], high: u32, rows: usize) -> Plan {
    let low = T::BITS - high;
    let mut highs: Vec<u16> = sample.iter().map(|bits| (bits >> low) as u16).collect();
    highs.sort_unstable();
    let mut entries: Vec<(usize, u16)> = highs.chunk_by(|a, b| a == b).map(|run| (run.len(), run[0])).collect();
    entries.sort_unstable_by(|a, b| b.cmp(a));
    let apart: usize = entries.iter().skip(ENTRIES_MAX).map(|(count, _)| count).sum();
    entries.truncate(ENTRIES_MAX);
    let total = sample.len() as f64;
    let entropy: f64 = entries.iter().map(|(count, _)| *count as f64 * (total / *count as f64).log2()).sum();
    let bits = (entropy + apart as f64 * EXCEPTION_BITS) / total + f64::from(low);
    let bytes = HEADER_BYTES + TABLE_BYTES + 2 * entries.len() + (bits * rows as f64 / 8.0) as usize;
    Plan { high, entries: entries.into_iter().map(|(_, entry)| entry).collect(), bytes }
}

pub fn encode<T: Float>(values: &[T], plan: &Plan, sections: &mut SectionWriter, out: &mut Vec<u8>) {
    let low = T::BITS - plan.high;
    let mut codes = vec![ESCAPE; 1 << plan.high];
    for (code, entry) in plan.entries.iter().enumerate() {
        codes[usize::from(*entry)] = code as u8;
    }
    let mut symbols = Vec::with_capacity(values.len());
    let (mut lows, mut exceptions) = (Vec::new(), Vec::new());
    let mut block = [0u64; BLOCK];
    for chunk in values.chunks(BLOCK) {
        for (slot, value) in block.iter_mut().zip(chunk) {
            let bits = value.to_bits();
            let high = (bits >> low) as u16;
            let code = codes[usize::from(high)];
            if code == ESCAPE {
                exceptions.extend_from_slice(&high.to_le_bytes());
            }
            symbols.push(code);
            *slot = bits;
        }
        block[chunk.len()..].fill(0);
        bitpack::pack(&block, low, &mut lows);
    }
    out.extend_from_slice(&[plan.high as u8, (plan.entries.len() - 1) as u8, 0, 0]);
    out.extend_from_slice(&((exceptions.len() / 2) as u32).to_le_bytes());
    for entry in &plan.entries {
        out.extend_from_slice(&entry.to_le_bytes());
    }
    sections.write_symbols(&symbols, out);
    out.extend_from_slice(&lows);
    out.extend_from_slice(&exceptions);
}

pub fn decode<T: Float>(input: &mut Input<'_>, rows: usize, sections: &mut SectionReader) -> Result<Vec<T>, Flaw> {
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
    let symbols = sections.read_symbols(input, rows)?;
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

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn check<T: Float>(values: &[T]) -> Option<usize> {
        let plan = estimate(values)?;
        let mut bytes = Vec::new();
        encode(values, &plan, &mut SectionWriter::new().unwrap(), &mut bytes);
        let mut input = Input::new(&bytes);
        let back = decode::<T>(&mut input, values.len(), &mut SectionReader::default()).unwrap();
        input.finish().unwrap();
        assert!(values.iter().zip(&back).all(|(a, b)| a.same_bits(*b)));
        Some(bytes.len())
    }

    #[test]
    fn random_doubles_lose_their_exponents() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let values: Vec<f64> = (0..65_536).map(|_| random.random()).collect();
        let bits = check(&values).unwrap() as f64 * 8.0 / 65_536.0;
        assert!(bits < 54.6, "{bits} bits a value");
        let values: Vec<f32> = (0..65_536).map(|_| random.random()).collect();
        assert!(check(&values).unwrap() < 65_536 * 4 - 65_536 / 2);
    }

    #[test]
    fn any_bit_pattern_comes_back() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        for round in 0..60 {
            let rows = random.random_range(ROWS_MIN..3000);
            let share = random.random_range(0..=100);
            let value = |random: &mut ChaCha8Rng| match random.random_ratio(share, 100) {
                true => random.random::<u64>(),
                false => (random.random::<f64>() * f64::from(round)).to_bits(),
            };
            let bits: Vec<u64> = (0..rows).map(|_| value(&mut random)).collect();
            check(&bits.iter().map(|bits| f64::from_bits(*bits)).collect::<Vec<_>>());
            check(&bits.iter().map(|bits| f32::from_bits(*bits as u32)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn any_bytes_decode_or_are_refused() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let values: Vec<f64> = (0..1500).map(|_| random.random()).collect();
        let mut whole = Vec::new();
        encode(&values, &estimate(&values).unwrap(), &mut SectionWriter::new().unwrap(), &mut whole);
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..4) {
                let end = if random.random() { 100 } else { bytes.len() };
                bytes[random.random_range(0..end)] = random.random();
            }
            let _ = decode::<f64>(&mut Input::new(&bytes), 1500, &mut SectionReader::default());
        }
    }
}
