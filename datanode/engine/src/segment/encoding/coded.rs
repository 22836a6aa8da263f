//! Integers whose values, or whose differences, lie around one middle (noise, walks, counters, jittering clocks), near
//! their entropy: each is cut into a symbol, which says in which of 256 equal bins around the middle it lies and goes
//! through a Huffman code, and the bits within the bin, which are packed as they are. What lies outside all bins is kept
//! apart. (Bins and symbols are the idea of pcodec; equal bins and zstd's Huffman decoder keep reading fast.)
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

use super::bitpack::{self, BLOCK, bit_length, packed_bytes};
use super::section::{SectionReader, SectionWriter};
use super::{Flaw, Input, check_decoded_bytes};

const DELTA_BIT: u8 = 0x80;
const HEADER_BYTES: usize = 32;
const LOW_BITS_MAX: u32 = 56;
const EXCEPTION_BITS: f64 = 96.0;
/// Values that are looked at. The entropy of a sample of this size is a few per cent too low for a wide distribution.
const SAMPLE: usize = 1024;
/// Below this a table of symbols costs more than it saves.
const ROWS_MIN: usize = 256;
/// Of the bins; the one in which the middle of the values lies.
const MIDDLE_BIN: i64 = 127;
const BINS: u64 = 256;
/// What the header of a section and the description of a Huffman code take, about.
const TABLE_BYTES: usize = 64;

/// Numbers by row, and how to cut them.
#[derive(Debug)]
pub struct Plan {
    delta: bool,
    low: u32,
    first: i64,
    base: i64,
    unit: i64,
    /// About: only the encoded form tells.
    pub bytes: usize,
}

/// What a sample says about offsets or differences.
#[derive(Clone, Copy)]
struct Survey {
    low: u32,
    base: i64,
    unit: i64,
    bits: f64,
}

/// `None` for few values.
pub fn estimate(values: &[i64]) -> Option<Plan> {
    if values.len() < ROWS_MIN {
        return None;
    }
    let [offsets, deltas] = [false, true].map(|delta| survey(values, delta));
    let delta = deltas.bits <= offsets.bits;
    let Survey { low, base, unit, bits } = if delta { deltas } else { offsets };
    let bytes = HEADER_BYTES + TABLE_BYTES + (bits * values.len() as f64 / 8.0) as usize;
    Some(Plan { delta, low, first: values[0], base, unit, bytes })
}

fn survey(values: &[i64], delta: bool) -> Survey {
    let residual = |row: usize| values[row].wrapping_sub(if delta { values[row - 1] } else { values[0] });
    let count = SAMPLE.min(values.len() - 1);
    let mut sample: Vec<i64> = (0..count).map(|i| residual(1 + i * (values.len() - 1) / count)).collect();
    let unit = sample.iter().try_fold(0, |unit, value| divisor(unit, *value)).unwrap_or(1);
    let unit = if unit > 1 { unit_of_all(values, delta, unit) } else { 1 };
    for value in &mut sample {
        *value /= unit;
    }
    sample.sort_unstable();
    // Between them lie 31 of 32 values: 4.3 standard deviations of a normal distribution. 8 to 16 bins for them lose 0.01
    // bits against the curve.
    let (low_end, high_end) = (sample[count / 64], sample[count - 1 - count / 64]);
    let low = bit_length(high_end.wrapping_sub(low_end) as u64).saturating_sub(4).min(LOW_BITS_MAX);
    let base = sample[count / 2].wrapping_sub(MIDDLE_BIN << low);
    let mut counts = [0u32; BINS as usize];
    let mut exceptions = 0u32;
    for value in &sample {
        match counts.get_mut((value.wrapping_sub(base) as u64 >> low) as usize) {
            Some(bin) => *bin += 1,
            None => exceptions += 1,
        }
    }
    let total = count as f64;
    let entropy: f64 = counts.iter().filter(|c| **c > 0).map(|c| f64::from(*c) * (total / f64::from(*c)).log2()).sum();
    let bits = entropy / total + f64::from(low) + f64::from(exceptions) * EXCEPTION_BITS / total;
    Survey { low, base, unit, bits }
}

/// The greatest common divisor, `None` for 1: then there is nothing to find any more.
fn divisor(a: i64, b: i64) -> Option<i64> {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    // 2^63 has no positive i64.
    i64::try_from(a).ok().filter(|divisor| *divisor != 1)
}

fn unit_of_all(values: &[i64], delta: bool, sampled: i64) -> i64 {
    let mut unit = sampled;
    let mut before = values[0];
    for value in values {
        let residual = value.wrapping_sub(before);
        if residual % unit != 0 {
            match divisor(unit, residual) {
                Some(common) => unit = common,
                None => return 1,
            }
        }
        before = if delta { *value } else { before };
    }
    unit
}

/// Appends the values as the plan made from them says.
pub fn encode(values: &[i64], plan: &Plan, sections: &mut SectionWriter, out: &mut Vec<u8>) {
    let numbers = numbers(values, plan);
    let mut symbols = vec![0u8; values.len()];
    let (mut rows, mut wide) = (Vec::new(), Vec::new());
    let mut lows = Vec::new();
    let mut block = [0u64; BLOCK];
    for (start, (numbers, symbols)) in numbers.chunks(BLOCK).zip(symbols.chunks_mut(BLOCK)).enumerate() {
        let mut highest = 0;
        for ((number, symbol), low) in numbers.iter().zip(symbols.iter_mut()).zip(&mut block) {
            let bin = number >> plan.low;
            highest |= bin;
            *symbol = bin as u8;
            *low = *number;
        }
        block[numbers.len()..].fill(0);
        if highest >= BINS {
            for (row, number) in numbers.iter().enumerate().filter(|(_, number)| *number >> plan.low >= BINS) {
                rows.extend_from_slice(&((start * BLOCK + row) as u32).to_le_bytes());
                wide.extend_from_slice(&number.to_le_bytes());
                symbols[row] = MIDDLE_BIN as u8;
                block[row] = 0;
            }
        }
        bitpack::pack(&block, plan.low, &mut lows);
    }
    out.extend_from_slice(&[plan.low as u8 | if plan.delta { DELTA_BIT } else { 0 }, 0, 0, 0]);
    out.extend_from_slice(&((rows.len() / 4) as u32).to_le_bytes());
    for field in [plan.first, plan.base, plan.unit] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    sections.write_symbols(&symbols, out);
    out.extend_from_slice(&lows);
    out.extend_from_slice(&rows);
    out.extend_from_slice(&wide);
}

/// Offsets or differences in units, from the base.
fn numbers(values: &[i64], plan: &Plan) -> Vec<u64> {
    let mut numbers = Vec::with_capacity(values.len());
    let in_units = |residual: i64| if plan.unit == 1 { residual } else { residual / plan.unit };
    let number = |residual: i64| in_units(residual).wrapping_sub(plan.base) as u64;
    if plan.delta {
        numbers.extend(values.first().map(|_| number(0)));
        numbers.extend(values.windows(2).map(|pair| number(pair[1].wrapping_sub(pair[0]))));
    } else {
        numbers.extend(values.iter().map(|value| number(value.wrapping_sub(plan.first))));
    }
    numbers
}

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
    sections: &mut SectionReader,
    convert: impl Fn(i64) -> T + Copy,
) -> Result<Vec<T>, Flaw> {
    check_decoded_bytes(rows, size_of::<T>())?;
    let mut body = read_body(input, rows, sections)?;
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

fn read_body<'a>(input: &mut Input<'a>, rows: usize, sections: &mut SectionReader) -> Result<Body<'a>, Flaw> {
    let [head, zeros @ ..] = input.array::<4>()?;
    let (low, delta) = (u32::from(head & !DELTA_BIT), head & DELTA_BIT != 0);
    let exceptions = input.u32()? as usize;
    let (first, base, unit) = (input.i64()?, input.i64()?, input.i64()?);
    if low > LOW_BITS_MAX || zeros != [0; 3] || exceptions > rows || unit <= 0 {
        return Err(Flaw("a page of coded integers has an impossible header"));
    }
    let symbols = sections.read_symbols(input, rows)?;
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

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn check(values: &[i64]) -> Option<usize> {
        let plan = estimate(values)?;
        let mut bytes = Vec::new();
        encode(values, &plan, &mut SectionWriter::new().unwrap(), &mut bytes);
        let mut input = Input::new(&bytes);
        let back = decode(&mut input, values.len(), &mut SectionReader::default(), |v| v).unwrap();
        assert!(back == values);
        input.finish().unwrap();
        Some(bytes.len())
    }

    #[test]
    fn small_steps_take_little_more_than_their_entropy() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut value = 50i64;
        // Steps of -4..=4, binomial: 2.54 bits.
        let mut walk = || {
            value += i64::from(random.random::<u8>().count_ones()) - 4;
            value
        };
        let values: Vec<i64> = (0..65_536).map(|_| walk()).collect();
        let bits = check(&values).unwrap() as f64 * 8.0 / 65_536.0;
        assert!(bits < 2.68, "{bits} bits a value");
    }

    #[test]
    fn milliseconds_in_microseconds_cost_what_milliseconds_do() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let jitter: Vec<i64> = (0..20_000).map(|row| row * 10_000 + random.random_range(-2000..2000)).collect();
        let micros: Vec<i64> = jitter.iter().map(|millis| millis * 1000).collect();
        assert_eq!(check(&jitter), check(&micros));
    }

    #[test]
    fn extreme_and_random_values_come_back() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let extremes = [i64::MIN, i64::MAX, 0, -1, 1, i64::MIN + 1];
        for round in 0..150i64 {
            let rows = random.random_range(ROWS_MIN..3000) as i64;
            let shift = random.random_range(0..64);
            let outliers = random.random_range(0..20u32);
            let unit = [1, 1, 7, 1000, 1 << 40][round as usize % 5];
            let mut last = 0i64;
            let values: Vec<i64> = (0..rows)
                .map(|row| {
                    let noise = (random.random::<i64>() >> shift).wrapping_mul(unit);
                    last = last.wrapping_add(noise);
                    match random.random_ratio(outliers, 200) {
                        true => extremes[row as usize % extremes.len()],
                        false if round % 2 == 0 => last,
                        false => noise,
                    }
                })
                .collect();
            check(&values);
        }
        check(&[i64::MIN; ROWS_MIN]);
        let halves: Vec<i64> = (0..1000).map(|row| if row % 2 == 0 { i64::MIN } else { 0 }).collect();
        check(&halves);
    }

    #[test]
    fn any_bytes_decode_or_are_refused() {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let values: Vec<i64> = (0..1500).map(|_| random.random_range(0..100_000)).collect();
        let mut whole = Vec::new();
        encode(&values, &estimate(&values).unwrap(), &mut SectionWriter::new().unwrap(), &mut whole);
        for _ in 0..3000 {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..4) {
                let end = if random.random() { 48 } else { bytes.len() };
                bytes[random.random_range(0..end)] = random.random();
            }
            bytes.truncate(random.random_range(bytes.len() / 2..=bytes.len() * 2).min(bytes.len()));
            let _ = decode(&mut Input::new(&bytes), 1500, &mut SectionReader::default(), |v| v);
        }
    }
}
