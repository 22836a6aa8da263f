//! Floats without a decimal in sight: their high bits (sign, exponent, the first of the mantissa) take few values and
//! become symbols with a Huffman code through a dictionary, their low bits are packed as they are (ALP-RD, SIGMOD 2024,
//! with a Huffman code where ALP has codes of equal length). Blocks of 1024 rows stand alone.
//!
//! ```text
//! offset  size  field
//!      0     1  high bits h, 1..=16
//!      1     1  number of entries less 1, 0..=254
//!      2     2  zero
//!      4     4  number of exceptions e
//!      8   2*d  entries: high bits
//!     ..    ..  symbols, one a row, with a Huffman code; 255: an exception
//!     ..  128*w  the low bits, w = 64 - h for float8 and 32 - h for float4, packed, once per 1024 rows; the last ones
//!               tight
//!     ..   4*e  row of each exception, ascending
//!     ..   2*e  its high bits
//! ```

use super::bitpack::{self, BLOCK, tight_bytes};
use super::decimal::Float;
use super::exceptions::Exceptions;
use super::huffman::{self, Block, Codes, LANES, Symbols};
use super::selection::{BlockRows, Selection};
use super::{Flaw, Input, check_decoded_bytes};

const ENTRIES_MAX: usize = 255;
const ESCAPE: u8 = 255;
const HEADER_BYTES: usize = 8;
/// Of high bits that are tried: more say more, but take more entries.
const HIGH_BITS: [u32; 4] = [16, 14, 12, 10];
const SAMPLE: usize = 1024;
const ROWS_MIN: usize = 256;
/// What the description of a code and its streams' lengths take at least, about.
const CODE_BYTES: usize = 24;
const EXCEPTION_BITS: f64 = 48.0;

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
    let mut counts = [0; 256];
    for (slot, (count, _)) in counts.iter_mut().zip(&entries) {
        *slot = *count as u32;
    }
    counts[usize::from(ESCAPE)] = apart as u32;
    let coded = huffman::Code::of(&counts).map_or(0, |code| code.bits(&counts)) as f64;
    // Those seen once stand for as many that were not seen at all (Good, Turing 1953).
    let unseen = entries.iter().filter(|(count, _)| *count == 1).count();
    let bits = (coded + (apart + unseen) as f64 * EXCEPTION_BITS) / total + f64::from(low);
    let code_bytes = entries.len() / 2 + rows.div_ceil(BLOCK) * 2;
    let bytes = HEADER_BYTES + CODE_BYTES + code_bytes + 2 * entries.len() + (bits * rows as f64 / 8.0) as usize;
    Plan { high, entries: entries.into_iter().map(|(_, entry)| entry).collect(), bytes }
}

pub fn encode<T: Float>(values: &[T], plan: &Plan, known: &mut Codes, out: &mut Vec<u8>) {
    let low = T::BITS - plan.high;
    let mut codes = vec![ESCAPE; 1 << plan.high];
    for (code, entry) in plan.entries.iter().enumerate() {
        codes[usize::from(*entry)] = code as u8;
    }
    let mut symbols = Vec::with_capacity(values.len());
    let (mut lows, mut rows, mut exceptions) = (Vec::new(), Vec::new(), Vec::new());
    let mut block = [0u64; BLOCK];
    for chunk in values.chunks(BLOCK) {
        for (slot, value) in block.iter_mut().zip(chunk) {
            let bits = value.to_bits();
            let high = (bits >> low) as u16;
            let code = codes[usize::from(high)];
            if code == ESCAPE {
                rows.extend_from_slice(&(symbols.len() as u32).to_le_bytes());
                exceptions.extend_from_slice(&high.to_le_bytes());
            }
            symbols.push(code);
            *slot = bits;
        }
        bitpack::pack_tight(&block[..chunk.len()], low, &mut lows);
    }
    out.extend_from_slice(&[plan.high as u8, (plan.entries.len() - 1) as u8, 0, 0]);
    out.extend_from_slice(&((exceptions.len() / 2) as u32).to_le_bytes());
    for entry in &plan.entries {
        out.extend_from_slice(&entry.to_le_bytes());
    }
    huffman::encode(&symbols, BLOCK, known, out);
    out.extend_from_slice(&lows);
    out.extend_from_slice(&rows);
    out.extend_from_slice(&exceptions);
}

/// What stands before the values, checked.
struct Body<'a> {
    low: u32,
    /// High bits by symbol.
    entries: [u64; 256],
    symbols: Symbols<'a>,
    lows: &'a [u8],
    exceptions: Exceptions<'a>,
    highs: &'a [[u8; 2]],
}

/// Decodes the wanted ones of as many floats as the selection has rows.
pub fn decode<T: Float>(input: &mut Input<'_>, selection: &Selection<'_>) -> Result<Vec<T>, Flaw> {
    check_decoded_bytes(selection.count(), T::WIDTH_BYTES)?;
    let body = read_body::<T>(input, selection)?;
    let mut values = Vec::with_capacity(selection.count());
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
        // SAFETY: the processor has AVX2 and BMI2, as asked just now.
        unsafe { decode_into_avx2(&body, selection, &mut values)? };
        return Ok(values);
    }
    decode_into(&body, selection, &mut values)?;
    Ok(values)
}

fn read_body<'a, T: Float>(input: &mut Input<'a>, selection: &Selection<'_>) -> Result<Body<'a>, Flaw> {
    let rows = selection.rows();
    let [high, last_entry, zeros @ ..] = input.array::<4>()?;
    let (high, entry_count) = (u32::from(high), usize::from(last_entry) + 1);
    let count = input.u32()? as usize;
    if !(1..=16).contains(&high) || entry_count > ENTRIES_MAX || zeros != [0; 2] || count > rows || rows == 0 {
        return Err(Flaw("a page of split floats has an impossible header"));
    }
    let low = T::BITS - high;
    // A symbol without entry reads as zeros; none is written.
    let mut entries = [0u64; 256];
    for (slot, entry) in entries.iter_mut().zip(input.take(entry_count * 2)?.as_chunks::<2>().0) {
        *slot = u64::from(u16::from_le_bytes(*entry)) << low;
    }
    let symbols = Symbols::read(input, rows, BLOCK, selection.blocks(BLOCK).count())?;
    let lows = input.take(rows / BLOCK * tight_bytes(low, BLOCK) + tight_bytes(low, rows % BLOCK))?;
    let exceptions = Exceptions::read(input, count, rows)?;
    let highs = input.take(count * 2)?.as_chunks().0;
    Ok(Body { low, entries, symbols, lows, exceptions, highs })
}

/// The same code as [`decode_into`], compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn decode_into_avx2<T: Float>(body: &Body<'_>, selection: &Selection<'_>, values: &mut Vec<T>) -> Result<(), Flaw> {
    decode_into(body, selection, values)
}

#[inline(always)]
fn decode_into<T: Float>(body: &Body<'_>, selection: &Selection<'_>, values: &mut Vec<T>) -> Result<(), Flaw> {
    let mut lanes = [[0; size_of::<Block>()]; LANES];
    let mut block = [0u64; BLOCK];
    let mut blocks = selection.blocks(BLOCK);
    loop {
        // As many at once as there are lanes.
        let wanted: [Option<BlockRows<'_>>; LANES] = std::array::from_fn(|_| blocks.next());
        let count = wanted.iter().flatten().count();
        if count == 0 {
            return Ok(());
        }
        let streams = wanted.map(|wanted| wanted.map_or((0, 0), |wanted| (wanted.block, wanted.end())));
        body.symbols.decode(&streams[..count], &mut lanes)?;
        for (wanted, symbols) in wanted.iter().flatten().zip(&lanes) {
            body.decode_block(wanted, &symbols[..wanted.end()], &mut block);
            for part in wanted.parts() {
                values.extend(block[part].iter().map(|bits| T::of_bits(*bits)));
            }
        }
    }
}

impl Body<'_> {
    #[inline(always)]
    fn decode_block(&self, wanted: &BlockRows<'_>, symbols: &[u8], block: &mut [u64; BLOCK]) {
        let lows = &self.lows[wanted.block * tight_bytes(self.low, BLOCK)..][..tight_bytes(self.low, wanted.rows)];
        bitpack::unpack_tight(lows, self.low, 0, block, wanted.rows);
        for (slot, symbol) in block.iter_mut().zip(symbols) {
            *slot |= self.entries[usize::from(*symbol)];
        }
        for (exception, row) in self.exceptions.within(wanted.start..wanted.start + symbols.len()) {
            block[row] |= u64::from(u16::from_le_bytes(self.highs[exception])) << self.low;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn decode_whole<T: Float>(input: &mut Input<'_>, rows: usize) -> Result<Vec<T>, Flaw> {
        decode(input, &Selection::new(rows, std::slice::from_ref(&(0..rows))))
    }

    fn check<T: Float>(values: &[T]) -> Option<usize> {
        let plan = estimate(values)?;
        let mut bytes = Vec::new();
        encode(values, &plan, &mut Codes::default(), &mut bytes);
        let mut input = Input::new(&bytes);
        let back = decode_whole::<T>(&mut input, values.len()).unwrap();
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
        encode(&values, &estimate(&values).unwrap(), &mut Codes::default(), &mut whole);
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..4) {
                let end = if random.random() { 100 } else { bytes.len() };
                bytes[random.random_range(0..end)] = random.random();
            }
            let _ = decode_whole::<f64>(&mut Input::new(&bytes), 1500);
        }
    }
}
