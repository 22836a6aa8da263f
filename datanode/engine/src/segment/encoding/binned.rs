//! Integers whose values, or whose differences, lie around one middle (noise, walks, counters, jittering clocks), near
//! their entropy: each is cut into a symbol, which says in which of 256 equal bins around the middle it lies and has a
//! Huffman code, and the bits within the bin, which are packed as they are. What lies outside all bins is kept apart. (Bins
//! and symbols are the idea of pcodec; equal bins and a Huffman code keep reading fast.) Blocks of 256 rows stand alone:
//! reading some rows decodes no more than their blocks, and four blocks are decoded side by side even of a thousand rows.
//!
//! ```text
//! offset  size  field
//!      0     1  bits l within a bin, 0..=56; bit 7: differences, else offsets
//!      1     1  binary logarithm of the rows in a block, 6..=10; 0: 1024 rows, as in version 3
//!      2     2  zero
//!      4     4  number of exceptions e
//!      8     8  what offsets count from, f; zero with differences
//!     16     8  base b
//!     24     8  unit u, greater than 0
//!     32     n  differences only: the first value of each block, Packed
//!     ..    ..  symbols s, one a row, with a Huffman code
//!     ..  128l  the low bits, packed, once per 1024 rows; the last ones tight
//!     ..   4*e  row of each exception, ascending
//!     ..   8*e  its whole number n, in place of s * 2^l + low bits
//! ```
//!
//! With n = s * 2^l + low bits, a row is x + (n + b) * u, where x is the value before it, or f. With differences the first
//! row of a block is its first value, whatever its n. All of it wraps.

use std::cell::RefCell;

use super::bitpack::{self, BLOCK, bit_length, packed_bytes, tight_bytes};
use super::exceptions::Exceptions;
use super::huffman::{self, Block, Codes, LANES, Symbols};
use super::selection::{BlockRows, Selection};
use super::{Flaw, Input, check_decoded_bytes, packed};

const DELTA_BIT: u8 = 0x80;
const HEADER_BYTES: usize = 32;
/// Smaller blocks are skipped more often, larger ones take fewer bytes: a random walk takes 2.27 bits a value in these and
/// 2.23 in blocks of 1024.
const BLOCK_ROWS: usize = 256;
const LOW_BITS_MAX: u32 = 56;
const EXCEPTION_BITS: f64 = 96.0;
/// Values that are looked at. The entropy of a sample of this size is a few per cent too low for a wide distribution.
const SAMPLE: usize = 1024;
/// Below this a code costs more than it saves.
const ROWS_MIN: usize = 256;
/// Of the bins; the one in which the middle of the values lies.
const MIDDLE_BIN: i64 = 127;
const BINS: u64 = 256;
/// What first values, the description of a code and its streams' lengths take, about.
const CODE_BYTES: usize = 64;

/// How to cut the values.
#[derive(Debug)]
pub struct Plan {
    delta: bool,
    low: u32,
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
    // First values of a byte or two, and what the streams of blocks lose.
    let blocks = values.len().div_ceil(BLOCK_ROWS) * 3;
    let bytes = HEADER_BYTES + CODE_BYTES + blocks + (bits * values.len() as f64 / 8.0) as usize;
    Some(Plan { delta, low, base, unit, bytes })
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
    let coded = huffman::Code::of(&counts).map_or(0, |code| code.bits(&counts));
    let bits = coded as f64 / count as f64 + f64::from(low) + f64::from(exceptions) * EXCEPTION_BITS / count as f64;
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
pub fn encode(values: &[i64], plan: &Plan, known: &mut Codes, out: &mut Vec<u8>) {
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
        if highest >= BINS {
            for (row, number) in numbers.iter().enumerate().filter(|(_, number)| *number >> plan.low >= BINS) {
                rows.extend_from_slice(&((start * BLOCK + row) as u32).to_le_bytes());
                wide.extend_from_slice(&number.to_le_bytes());
                symbols[row] = MIDDLE_BIN as u8;
                block[row] = 0;
            }
        }
        bitpack::pack_tight(&block[..numbers.len()], plan.low, &mut lows);
    }
    let head = plan.low as u8 | if plan.delta { DELTA_BIT } else { 0 };
    out.extend_from_slice(&[head, BLOCK_ROWS.ilog2() as u8, 0, 0]);
    out.extend_from_slice(&((rows.len() / 4) as u32).to_le_bytes());
    let from = if plan.delta { 0 } else { values[0] };
    for field in [from, plan.base, plan.unit] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    if plan.delta {
        let firsts: Vec<i64> = values.iter().step_by(BLOCK_ROWS).copied().collect();
        packed::encode(&firsts, &packed::estimate(&firsts), out);
    }
    huffman::encode(&symbols, BLOCK_ROWS, known, out);
    out.extend_from_slice(&lows);
    out.extend_from_slice(&rows);
    out.extend_from_slice(&wide);
}

/// Offsets or differences in units, from the base.
fn numbers(values: &[i64], plan: &Plan) -> Vec<u64> {
    let in_units = |residual: i64| if plan.unit == 1 { residual } else { residual / plan.unit };
    let number = |residual: i64| in_units(residual).wrapping_sub(plan.base) as u64;
    if !plan.delta {
        return values.iter().map(|value| number(value.wrapping_sub(values[0]))).collect();
    }
    let mut numbers = Vec::with_capacity(values.len());
    for block in values.chunks(BLOCK_ROWS) {
        // The first one is told apart: here it takes the most frequent symbol.
        numbers.push((MIDDLE_BIN as u64) << plan.low);
        numbers.extend(block.windows(2).map(|pair| number(pair[1].wrapping_sub(pair[0]))));
    }
    numbers
}

/// What stands before the values, checked.
struct Body<'a> {
    rows: usize,
    block_rows: usize,
    low: u32,
    from: u64,
    base: u64,
    unit: u64,
    /// Of differences, by block.
    firsts: Option<Vec<u64>>,
    symbols: Symbols<'a>,
    lows: &'a [u8],
    exceptions: Exceptions<'a>,
    numbers: &'a [[u8; 8]],
}

/// Decodes the wanted ones of as many integers as the selection has rows, each passed through `convert`.
pub fn decode<T: Copy + Default>(
    input: &mut Input<'_>,
    selection: &Selection<'_>,
    convert: impl Fn(i64) -> T + Copy,
) -> Result<Vec<T>, Flaw> {
    check_decoded_bytes(selection.count(), size_of::<T>())?;
    let body = read_body(input, selection)?;
    let mut values = Vec::with_capacity(selection.count());
    SCRATCH.with_borrow_mut(|scratch| {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
            // SAFETY: the processor has AVX2 and BMI2, as asked just now.
            return unsafe { decode_into_avx2(&body, selection, scratch, &mut values, convert) };
        }
        decode_into(&body, selection, scratch, &mut values, convert)
    })?;
    Ok(values)
}

thread_local! {
    /// Kept, since clearing it takes as long as decoding an hour of a series.
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

/// Blocks while they are decoded.
struct Scratch {
    lanes: [Block; LANES],
    numbers: [u64; BLOCK],
    sums: [u64; BLOCK],
}

impl Scratch {
    const fn new() -> Self {
        Self { lanes: [[0; size_of::<Block>()]; LANES], numbers: [0; BLOCK], sums: [0; BLOCK] }
    }
}

fn read_body<'a>(input: &mut Input<'a>, selection: &Selection<'_>) -> Result<Body<'a>, Flaw> {
    let rows = selection.rows();
    let [head, block, zeros @ ..] = input.array::<4>()?;
    let (low, delta) = (u32::from(head & !DELTA_BIT), head & DELTA_BIT != 0);
    let count = input.u32()? as usize;
    let (from, base, unit) = (input.i64()?, input.i64()?, input.i64()?);
    let block_rows = match block {
        0 => BLOCK,
        6..=10 => 1 << block,
        _ => return Err(Flaw("a page of binned integers has blocks of an impossible size")),
    };
    if low > LOW_BITS_MAX || zeros != [0; 2] || count > rows || unit <= 0 || rows == 0 {
        return Err(Flaw("a page of binned integers has an impossible header"));
    }
    let blocks = rows.div_ceil(block_rows);
    let firsts = if delta { Some(packed::decode_all(input, blocks, |first| first as u64)?) } else { None };
    let symbols = Symbols::read(input, rows, block_rows, selection.blocks(block_rows).count())?;
    let lows = input.take(rows / BLOCK * tight_bytes(low, BLOCK) + tight_bytes(low, rows % BLOCK))?;
    let exceptions = Exceptions::read(input, count, rows)?;
    let numbers = input.take(count * 8)?.as_chunks().0;
    Ok(Body {
        rows,
        block_rows,
        low,
        from: from as u64,
        base: base as u64,
        unit: unit as u64,
        firsts,
        symbols,
        lows,
        exceptions,
        numbers,
    })
}

/// The same code as [`decode_into`], compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn decode_into_avx2<T: Copy>(
    body: &Body<'_>,
    selection: &Selection<'_>,
    scratch: &mut Scratch,
    values: &mut Vec<T>,
    convert: impl Fn(i64) -> T + Copy,
) -> Result<(), Flaw> {
    decode_into(body, selection, scratch, values, convert)
}

#[inline(always)]
fn decode_into<T: Copy>(
    body: &Body<'_>,
    selection: &Selection<'_>,
    scratch: &mut Scratch,
    values: &mut Vec<T>,
    convert: impl Fn(i64) -> T + Copy,
) -> Result<(), Flaw> {
    let Scratch { lanes, numbers, sums } = scratch;
    let mut blocks = selection.blocks(body.block_rows);
    loop {
        // As many at once as there are lanes.
        let wanted: [Option<BlockRows<'_>>; LANES] = std::array::from_fn(|_| blocks.next());
        let count = wanted.iter().flatten().count();
        if count == 0 {
            return Ok(());
        }
        let streams = wanted.map(|wanted| wanted.map_or((0, 0), |wanted| (wanted.block, wanted.end())));
        body.symbols.decode(&streams[..count], lanes)?;
        for (wanted, symbols) in wanted.iter().flatten().zip(lanes.iter()) {
            let symbols = &symbols[..wanted.end()];
            if body.has_numbers_apart(wanted) {
                let numbers = body.numbers_of(wanted, symbols, numbers);
                body.rows_of(wanted, numbers, sums, values, convert);
            } else {
                body.rows_of(wanted, symbols, sums, values, convert);
            }
        }
    }
}

impl Body<'_> {
    /// Whether a number of the wanted rows is more than its symbol.
    #[inline(always)]
    fn has_numbers_apart(&self, wanted: &BlockRows<'_>) -> bool {
        self.low > 0 || self.exceptions.within(wanted.start..wanted.start + wanted.end()).next().is_some()
    }

    /// Up to the last wanted one.
    #[inline(always)]
    fn numbers_of<'b>(&self, wanted: &BlockRows<'_>, symbols: &[u8], block: &'b mut [u64; BLOCK]) -> &'b [u64] {
        // Low bits lie in blocks of 1024.
        let (packed, from) = (wanted.start / BLOCK, wanted.start % BLOCK);
        let rows = BLOCK.min(self.rows - packed * BLOCK);
        let lows = &self.lows[packed * packed_bytes(self.low)..][..tight_bytes(self.low, rows)];
        bitpack::unpack_part(lows, self.low, 0, rows, from, &mut block[..wanted.rows]);
        for (slot, symbol) in block.iter_mut().zip(symbols) {
            *slot |= u64::from(*symbol) << self.low;
        }
        for (exception, row) in self.exceptions.within(wanted.start..wanted.start + symbols.len()) {
            block[row] = u64::from_le_bytes(self.numbers[exception]);
        }
        &block[..symbols.len()]
    }

    /// Appends the wanted rows, made from the numbers of the block up to the last of them.
    #[inline(always)]
    fn rows_of<T, N: Number>(
        &self,
        wanted: &BlockRows<'_>,
        numbers: &[N],
        sums: &mut [u64; BLOCK],
        values: &mut Vec<T>,
        convert: impl Fn(i64) -> T + Copy,
    ) {
        // (n + b) * u with one addition.
        let addend = self.base.wrapping_mul(self.unit);
        let Some(firsts) = &self.firsts else {
            let from = self.from.wrapping_add(addend);
            let value = |number: &N| convert((*number).into().wrapping_mul(self.unit).wrapping_add(from) as i64);
            return wanted.parts().for_each(|part| values.extend(numbers[part].iter().map(value)));
        };
        let steps = |numbers: &[N]| {
            let addends = addend.wrapping_mul(numbers.len() as u64);
            N::total(numbers).wrapping_mul(self.unit).wrapping_add(addends)
        };
        let mut before = firsts[wanted.block].wrapping_sub(steps(&numbers[..1]));
        if wanted.parts().nth(1).is_some() {
            // Several parts lie near one another: all sums at once cost less than a beginning and an end of each.
            N::add_up(numbers, before, self.unit, addend, &mut sums[..numbers.len()]);
            return wanted.parts().for_each(|part| values.extend(sums[part].iter().map(|sum| convert(*sum as i64))));
        }
        for part in wanted.parts() {
            before = before.wrapping_add(steps(&numbers[..part.start]));
            let sums = &mut sums[..part.len()];
            N::add_up(&numbers[part], before, self.unit, addend, sums);
            // Apart from the sums, since it can be done for several at once.
            values.extend(sums.iter().map(|sum| convert(*sum as i64)));
        }
    }
}

/// What a step is made of: a symbol, or a number where it is more.
trait Number: Copy + Into<u64> {
    /// Their sum.
    #[inline(always)]
    fn total(numbers: &[Self]) -> u64 {
        let mut total = 0u64;
        for number in numbers {
            total = total.wrapping_add((*number).into());
        }
        total
    }

    /// The sums of the first one, of the first two and so on, in steps of `unit * number + addend`, from a start on.
    #[inline(always)]
    fn add_up(numbers: &[Self], start: u64, unit: u64, addend: u64, sums: &mut [u64]) {
        add_up_each(numbers, start, unit, addend, sums);
    }
}

impl Number for u64 {}

impl Number for u8 {
    #[inline(always)]
    fn add_up(symbols: &[u8], start: u64, unit: u64, addend: u64, sums: &mut [u64]) {
        #[cfg(target_arch = "x86_64")]
        if unit == 1 && is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2, as asked just now.
            return unsafe { add_up_avx2(symbols, start, addend, sums) };
        }
        add_up_each(symbols, start, unit, addend, sums);
    }
}

#[inline(always)]
fn add_up_each<N: Copy + Into<u64>>(numbers: &[N], start: u64, unit: u64, addend: u64, sums: &mut [u64]) {
    let mut before = start;
    for (sum, number) in sums.iter_mut().zip(numbers) {
        before = before.wrapping_add((*number).into().wrapping_mul(unit).wrapping_add(addend));
        *sum = before;
    }
}

/// Eight symbols side by side: their sums fit 16 bits each, and the next eight wait for one addition only.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_up_avx2(symbols: &[u8], start: u64, addend: u64, sums: &mut [u64]) {
    use std::arch::x86_64::{
        _mm_add_epi16, _mm_cvtepu8_epi16, _mm_cvtsi64_si128, _mm_extract_epi16, _mm_slli_si128, _mm_unpackhi_epi64,
        _mm256_add_epi64, _mm256_cvtepu16_epi64, _mm256_set_epi64x, _mm256_set1_epi64x, _mm256_storeu_si256,
    };
    let times = |count: i64| (addend as i64).wrapping_mul(count);
    let addends_low = _mm256_set_epi64x(times(4), times(3), times(2), times(1));
    let addends_high = _mm256_set_epi64x(times(8), times(7), times(6), times(5));
    let (eights, rest) = symbols.as_chunks::<8>();
    let (sums_of_eights, sums_of_rest) = sums.as_chunks_mut::<8>();
    let mut before = start;
    for (sums, eight) in sums_of_eights.iter_mut().zip(eights) {
        let mut within = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(i64::from_le_bytes(*eight)));
        within = _mm_add_epi16(within, _mm_slli_si128::<2>(within));
        within = _mm_add_epi16(within, _mm_slli_si128::<4>(within));
        within = _mm_add_epi16(within, _mm_slli_si128::<8>(within));
        let base = _mm256_set1_epi64x(before as i64);
        let low = _mm256_add_epi64(_mm256_add_epi64(_mm256_cvtepu16_epi64(within), addends_low), base);
        let high = _mm256_cvtepu16_epi64(_mm_unpackhi_epi64(within, within));
        let high = _mm256_add_epi64(_mm256_add_epi64(high, addends_high), base);
        // SAFETY: eight sums are 64 bytes; no alignment is asked for.
        unsafe {
            _mm256_storeu_si256(sums.as_mut_ptr().cast(), low);
            _mm256_storeu_si256(sums.as_mut_ptr().add(4).cast(), high);
        }
        let sum = _mm_extract_epi16::<7>(within) as u64;
        before = before.wrapping_add(sum).wrapping_add(times(8) as u64);
    }
    add_up_each(rest, before, 1, addend, sums_of_rest);
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn decode_whole(input: &mut Input<'_>, rows: usize) -> Result<Vec<i64>, Flaw> {
        decode(input, &Selection::new(rows, std::slice::from_ref(&(0..rows))), |value| value)
    }

    fn check(values: &[i64]) -> Option<usize> {
        let plan = estimate(values)?;
        let mut bytes = Vec::new();
        encode(values, &plan, &mut Codes::default(), &mut bytes);
        let mut input = Input::new(&bytes);
        assert!(decode_whole(&mut input, values.len()).unwrap() == values);
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
        // First values of blocks take ten bits more.
        let (millis, micros) = (check(&jitter).unwrap(), check(&micros).unwrap());
        assert!(
            micros <= millis + (jitter.len().div_ceil(BLOCK_ROWS) * 10).div_ceil(8),
            "{micros} bytes, not {millis}"
        );
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
        encode(&values, &estimate(&values).unwrap(), &mut Codes::default(), &mut whole);
        for _ in 0..3000 {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..4) {
                let end = if random.random() { 48 } else { bytes.len() };
                bytes[random.random_range(0..end)] = random.random();
            }
            bytes.truncate(random.random_range(bytes.len() / 2..=bytes.len() * 2).min(bytes.len()));
            let _ = decode_whole(&mut Input::new(&bytes), 1500);
        }
    }
}
