//! Symbols of one byte with a Huffman code, in blocks that are decoded by themselves: one code for all, a stream of bits for
//! each block. zstd has the same code, but one table per frame, so that only a whole page is worth one.
//!
//! ```text
//! offset  size  field
//!      0     1  least symbol that is there, a
//!      1     1  greatest symbol, z
//!      2     n  lengths of the codes of a..=z in bits, 4 bits each, the first one low; 0: not there, or it is the only one
//!     ..     n  bytes of each block's stream: Packed
//!     ..    ..  the streams
//!     ..     8  zero
//! ```
//!
//! Codes are at most 11 bits long and canonical: shorter ones come first, those of one length in order of symbols. A
//! stream begins with its lowest bit; the first bit of a code is its highest.

use std::collections::VecDeque;
use std::rc::Rc;

use self::tables::{Narrow, Tables, WIDE_SYMBOLS, Wide};
use super::bitpack::BLOCK;
use super::{Flaw, Input, packed};

mod tables;

/// Longest code. As zstd has it: a window of so many bits indexes a table that fits the first cache.
const LENGTH_MAX: u32 = 11;
const WINDOW: usize = 1 << LENGTH_MAX;
/// Blocks that are decoded at once: each waits for its own loads only.
pub const LANES: usize = 4;
/// Look-ups between two refills of 56 bits.
const LOOKUPS: usize = 56 / LENGTH_MAX as usize;
const PADDING_BYTES: usize = 8;
/// Codes that a writer has in mind.
const KNOWN_CODES: usize = 16;
/// A known code may take one bit in so many more than the shortest.
const KNOWN_COSTS_PART: u64 = 100;
/// Symbols on each side of those that are there which a new code has, too: the next page may have them.
const MARGIN: usize = 2;

/// A block of symbols; what is after the last one is not defined.
pub type Block = [u8; BLOCK + 8];

/// Lengths of the codes by symbol.
#[derive(Clone, Debug)]
pub struct Code {
    lengths: [u8; 256],
}

impl Code {
    /// The code that is shortest for symbols that come so often; `None` when there are none.
    ///
    /// Package-merge (Larmore, Hirschberg 1990): of coins of each denomination, the cheapest ones are paired up into one
    /// of the next denomination, as often as a code may be long. A symbol's length is the number of its coins in use.
    pub fn of(counts: &[u32; 256]) -> Option<Self> {
        let mut symbols: Vec<u8> = (0..=u8::MAX).filter(|symbol| counts[usize::from(*symbol)] > 0).collect();
        symbols.sort_by_key(|symbol| counts[usize::from(*symbol)]);
        let weights: Vec<u64> = symbols.iter().map(|symbol| u64::from(counts[usize::from(*symbol)])).collect();
        let mut lengths = [0; 256];
        if symbols.len() < 2 {
            return symbols.first().map(|_| Self { lengths });
        }
        // Of each level, whether each coin is a symbol's own.
        let mut levels: Vec<Vec<bool>> = Vec::with_capacity(LENGTH_MAX as usize);
        let mut coins = weights.clone();
        levels.push(vec![true; coins.len()]);
        for _ in 1..LENGTH_MAX {
            let pairs: Vec<u64> = coins.as_chunks::<2>().0.iter().map(|[a, b]| a + b).collect();
            let (merged, own) = merge(&weights, &pairs);
            levels.push(own);
            coins = merged;
        }
        let mut used = 2 * symbols.len() - 2;
        for level in levels.iter().rev() {
            let own = level[..used].iter().filter(|is_own| **is_own).count();
            for symbol in &symbols[..own] {
                lengths[usize::from(*symbol)] += 1;
            }
            used = 2 * (used - own);
        }
        Some(Self { lengths })
    }

    /// Bits that symbols that come so often take.
    pub fn bits(&self, counts: &[u32; 256]) -> u64 {
        self.lengths.iter().zip(counts).map(|(length, count)| u64::from(*length) * u64::from(*count)).sum()
    }

    fn has_all(&self, counts: &[u32; 256]) -> bool {
        self.lengths.iter().zip(counts).all(|(length, count)| *length > 0 || *count == 0)
    }

    /// Least and greatest symbol; of a code with one symbol, which has no bits, it is `only`.
    fn ends(&self, only: u8) -> (u8, u8) {
        let is_there = |symbol: &u8| self.lengths[usize::from(*symbol)] > 0;
        let first = (0..=u8::MAX).find(is_there).unwrap_or(only);
        (first, (first..=u8::MAX).rfind(is_there).unwrap_or(only))
    }

    /// Each symbol's code, to be written lowest bit first.
    fn codes(&self) -> [u16; 256] {
        // Of each length: how many there are, then the next one.
        let mut next = [0u32; 16];
        for length in self.lengths {
            next[usize::from(length)] += 1;
        }
        let mut first = 0;
        next[0] = 0;
        for next in &mut next {
            first <<= 1;
            first += std::mem::replace(next, first);
        }
        self.lengths.map(|length| {
            let code = next[usize::from(length)];
            next[usize::from(length)] += 1;
            if length == 0 { 0 } else { (code.reverse_bits() >> (32 - u32::from(length))) as u16 }
        })
    }
}

/// The codes that a writer used last. Pages whose symbols come about as often share a code, so that readers, who keep the
/// tables of some codes, seldom have to make new ones.
#[derive(Debug, Default)]
pub struct Codes {
    /// The last used one first.
    known: VecDeque<Code>,
}

impl Codes {
    /// A code for symbols that come so often; `None` when there are none.
    fn choose(&mut self, counts: &[u32; 256]) -> Option<Code> {
        let shortest = Code::of(counts)?;
        let bits = shortest.bits(counts);
        if bits == 0 {
            return Some(shortest);
        }
        let bits_max = bits + bits / KNOWN_COSTS_PART;
        let fits = |code: &Code| code.has_all(counts) && code.bits(counts) <= bits_max;
        let code = match self.known.iter().position(fits) {
            Some(at) => self.known.remove(at)?,
            None => Code::of(&with_margin(counts)).filter(fits).unwrap_or(shortest),
        };
        self.known.truncate(KNOWN_CODES - 1);
        self.known.push_front(code.clone());
        Some(code)
    }
}

/// With the symbols next to those that are there, as if each had come once.
fn with_margin(counts: &[u32; 256]) -> [u32; 256] {
    let is_there = |symbol: &usize| counts[*symbol] > 0;
    let (Some(first), Some(last)) = ((0..256).find(is_there), (0..256).rfind(is_there)) else { return *counts };
    let mut wider = *counts;
    for count in &mut wider[first.saturating_sub(MARGIN)..(last + MARGIN + 1).min(256)] {
        *count = (*count).max(1);
    }
    wider
}

/// Two ascending lists as one, and which came from the first.
fn merge(first: &[u64], second: &[u64]) -> (Vec<u64>, Vec<bool>) {
    let (mut a, mut b) = (first, second);
    let mut merged = Vec::with_capacity(a.len() + b.len());
    let mut from_first = Vec::with_capacity(a.len() + b.len());
    while !a.is_empty() || !b.is_empty() {
        let is_first = b.is_empty() || !a.is_empty() && a[0] <= b[0];
        let side = if is_first { &mut a } else { &mut b };
        merged.push(side[0]);
        from_first.push(is_first);
        *side = &side[1..];
    }
    (merged, from_first)
}

pub fn counts(symbols: &[u8]) -> [u32; 256] {
    // Four at a time: the same symbol again would wait for its own count.
    let mut counts = [[0u32; 256]; 4];
    let (fours, rest) = symbols.as_chunks::<4>();
    for four in fours {
        for (counts, symbol) in counts.iter_mut().zip(four) {
            counts[usize::from(*symbol)] += 1;
        }
    }
    for symbol in rest {
        counts[0][usize::from(*symbol)] += 1;
    }
    std::array::from_fn(|symbol| counts.iter().map(|counts| counts[symbol]).sum())
}

/// Bytes that symbols that come so often take, about.
pub fn estimate(counts: &[u32; 256]) -> usize {
    let Some(code) = Code::of(counts) else { return 0 };
    let rows: usize = counts.iter().map(|count| *count as usize).sum();
    let (first, last) = code.ends(0);
    // A length of some 11 bits and half a byte lost for each block.
    let blocks = rows.div_ceil(BLOCK) * 2;
    2 + usize::from(last - first) / 2 + 12 + blocks + PADDING_BYTES + code.bits(counts) as usize / 8
}

/// Appends the symbols, in blocks of so many.
pub fn encode(symbols: &[u8], block_rows: usize, codes: &mut Codes, out: &mut Vec<u8>) {
    let Some(code) = codes.choose(&counts(symbols)) else { return };
    let (first, last) = code.ends(symbols[0]);
    out.extend_from_slice(&[first, last]);
    for pair in code.lengths[usize::from(first)..=usize::from(last)].chunks(2) {
        out.push(pair[0] | pair.get(1).map_or(0, |length| length << 4));
    }
    let mut streams = Vec::with_capacity(symbols.len());
    let mut lengths = Vec::with_capacity(symbols.len().div_ceil(block_rows));
    let codes = code.codes();
    for block in symbols.chunks(block_rows) {
        let before = streams.len();
        write_stream(block, &codes, &code.lengths, &mut streams);
        lengths.push((streams.len() - before) as i64);
    }
    packed::encode(&lengths, &packed::estimate(&lengths), out);
    out.extend_from_slice(&streams);
    out.extend_from_slice(&[0; PADDING_BYTES]);
}

fn write_stream(symbols: &[u8], codes: &[u16; 256], lengths: &[u8; 256], out: &mut Vec<u8>) {
    let (mut bits, mut count) = (0u64, 0u32);
    for symbol in symbols {
        bits |= u64::from(codes[usize::from(*symbol)]) << count;
        count += u32::from(lengths[usize::from(*symbol)]);
        if count >= 48 {
            out.extend_from_slice(&bits.to_le_bytes()[..6]);
            bits >>= 48;
            count -= 48;
        }
    }
    out.extend_from_slice(&bits.to_le_bytes()[..count.div_ceil(8) as usize]);
}

/// Symbols that were found in a page, not decoded yet.
pub struct Symbols<'a> {
    rows: usize,
    block_rows: usize,
    /// All streams, and eight bytes more.
    streams: &'a [u8],
    /// Where each block's stream begins, and where the last one ends.
    starts: Vec<u32>,
    tables: Rc<Tables>,
}

impl<'a> Symbols<'a> {
    /// Reads what comes before the streams of `rows` symbols in blocks of `block_rows`, at most 1024, of which `wanted`
    /// are going to be decoded.
    pub fn read(input: &mut Input<'a>, rows: usize, block_rows: usize, wanted: usize) -> Result<Self, Flaw> {
        let tables = Tables::read(input, wanted.saturating_mul(block_rows))?;
        let lengths = packed::decode_all(input, rows.div_ceil(block_rows), |length| length)?;
        let mut starts = Vec::with_capacity(lengths.len() + 1);
        let mut end = 0u32;
        starts.push(end);
        for length in lengths {
            // The longest code for each row of a block.
            if !(0..=(block_rows * LENGTH_MAX as usize / 8) as i64).contains(&length) {
                return Err(Flaw("a block of symbols has an impossible length"));
            }
            end += length as u32;
            starts.push(end);
        }
        let streams = input.take(end as usize + PADDING_BYTES)?;
        Ok(Self { rows, block_rows, streams, starts, tables })
    }

    /// Decodes the first symbols of up to as many blocks as there are lanes, each into a lane of its own. A block is
    /// named with how many of its symbols are wanted.
    ///
    /// # Panics
    /// When there is no such block, or there are more than lanes.
    #[inline(always)]
    pub fn decode(&self, blocks: &[(usize, usize)], lanes: &mut [Block; LANES]) -> Result<(), Flaw> {
        let mut streams = [(0, 0); LANES];
        streams[..blocks.len()].copy_from_slice(blocks);
        // One that is not wanted costs nothing but its look at the first block.
        let streams = streams.map(|block| self.stream(&block));
        let is_within = match (blocks.len(), streams) {
            (0..=1, [a, ..]) => self.decode_streams([a], lanes),
            (2, [a, b, ..]) => self.decode_streams([a, b], lanes),
            (3, [a, b, c, _]) => self.decode_streams([a, b, c], lanes),
            (_, all) => self.decode_streams(all, lanes),
        };
        if is_within { Ok(()) } else { Err(Flaw("a block of symbols ends early")) }
    }

    /// Whether the streams were as long as they had to be.
    #[inline(always)]
    fn decode_streams<const N: usize>(&self, mut streams: [Stream<'a>; N], lanes: &mut [Block; LANES]) -> bool {
        let Some(lanes) = lanes.first_chunk_mut() else { return false };
        read(&mut streams, &self.tables, lanes);
        streams.iter().all(Stream::is_within)
    }

    #[inline(always)]
    fn stream(&self, (block, symbols): &(usize, usize)) -> Stream<'a> {
        let (start, end) = (self.starts[*block] as usize, self.starts[block + 1] as usize);
        Stream {
            bytes: &self.streams[start..],
            bytes_max: end - start,
            at: 0,
            bits: 0,
            count: 0,
            done: 0,
            symbols: (self.rows - block * self.block_rows).min(self.block_rows).min(*symbols),
        }
    }
}

/// A block's stream while it is read.
struct Stream<'a> {
    /// From its first byte to the end of all streams and their padding.
    bytes: &'a [u8],
    bytes_max: usize,
    at: usize,
    bits: u64,
    /// Of `bits`, which were read from before `at`.
    count: u32,
    /// Symbols that were decoded, of so many.
    done: usize,
    symbols: usize,
}

impl Stream<'_> {
    /// At least 56 bits are there afterwards; beyond the end they are zeros.
    #[inline(always)]
    fn refill(&mut self) {
        let word =
            self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_le_bytes(*word));
        self.bits |= word << self.count;
        self.at += (63 - self.count as usize) >> 3;
        self.count |= 56;
    }

    #[inline(always)]
    fn skip(&mut self, bits: u32) {
        self.bits >>= bits;
        self.count -= bits;
    }

    /// Decodes up to seven symbols; goes on only where `mask` is all ones, not zero.
    #[inline(always)]
    fn next_wide(&mut self, table: &Wide, out: &mut Block, mask: u64) {
        let entry = table[self.bits as usize % WINDOW];
        if let Some(slots) = out[self.done..].first_chunk_mut::<8>() {
            *slots = entry.to_le_bytes();
        }
        let entry = entry & mask;
        self.skip((entry >> 56) as u32 & 0xf);
        self.done += (entry >> 60) as usize;
    }

    /// Decodes one symbol; goes on only where `mask` is all ones, not zero.
    #[inline(always)]
    fn next_narrow(&mut self, table: &Narrow, out: &mut Block, mask: u32) {
        let [symbol, bits] = table[self.bits as usize % WINDOW].to_le_bytes();
        out[self.done] = symbol;
        self.skip(u32::from(bits) & mask);
        self.done += (mask & 1) as usize;
    }

    /// Whether so many look-ups in the wide table give no symbol too many.
    #[inline(always)]
    fn has_wide(&self, lookups: usize) -> bool {
        self.done + lookups * WIDE_SYMBOLS <= self.symbols
    }

    #[inline(always)]
    fn is_done(&self) -> bool {
        self.done >= self.symbols
    }

    /// Whether the bits that were used are its own, but for those of one look-up.
    fn is_within(&self) -> bool {
        self.at * 8 <= self.bytes_max * 8 + self.count as usize + LENGTH_MAX as usize
    }
}

/// Streams side by side, since each waits for its own loads only.
#[inline(always)]
fn read<const N: usize>(streams: &mut [Stream<'_>; N], tables: &Tables, lanes: &mut [Block; N]) {
    match tables.wide() {
        Some(wide) => read_wide(streams, wide, lanes),
        None => read_narrowly(streams, &tables.narrow, lanes),
    }
}

#[inline(always)]
fn read_wide<const N: usize>(streams: &mut [Stream<'_>; N], table: &Wide, lanes: &mut [Block; N]) {
    while streams.iter().all(|stream| stream.has_wide(LOOKUPS)) {
        for stream in streams.iter_mut() {
            stream.refill();
        }
        for _ in 0..LOOKUPS {
            for (stream, lane) in streams.iter_mut().zip(lanes.iter_mut()) {
                stream.next_wide(table, lane, u64::MAX);
            }
        }
    }
    // Those that are done stay where they are, while the others go on beside them.
    while !streams.iter().all(Stream::is_done) {
        for stream in streams.iter_mut() {
            stream.refill();
        }
        for _ in 0..LOOKUPS {
            for (stream, lane) in streams.iter_mut().zip(lanes.iter_mut()) {
                stream.next_wide(table, lane, u64::from(stream.is_done()).wrapping_sub(1));
            }
        }
    }
}

#[inline(always)]
fn read_narrowly<const N: usize>(streams: &mut [Stream<'_>; N], table: &Narrow, lanes: &mut [Block; N]) {
    while !streams.iter().all(Stream::is_done) {
        for stream in streams.iter_mut() {
            stream.refill();
        }
        for _ in 0..LOOKUPS {
            for (stream, lane) in streams.iter_mut().zip(lanes.iter_mut()) {
                stream.next_narrow(table, lane, u32::from(stream.is_done()).wrapping_sub(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn decode(bytes: &[u8], rows: usize, block_rows: usize, wanted_blocks: usize) -> Result<Vec<u8>, Flaw> {
        let mut input = Input::new(bytes);
        let symbols = Symbols::read(&mut input, rows, block_rows, wanted_blocks)?;
        input.finish()?;
        let mut lanes = [[0; size_of::<Block>()]; LANES];
        let mut decoded = Vec::new();
        let blocks: Vec<usize> = (0..rows.div_ceil(block_rows)).collect();
        for some in blocks.chunks(LANES) {
            symbols.decode(&some.iter().map(|block| (*block, block_rows)).collect::<Vec<_>>(), &mut lanes)?;
            for (block, lane) in some.iter().zip(&lanes) {
                decoded.extend_from_slice(&lane[..block_rows.min(rows - block * block_rows)]);
            }
        }
        Ok(decoded)
    }

    fn encoded(symbols: &[u8], block_rows: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(symbols, block_rows, &mut Codes::default(), &mut bytes);
        bytes
    }

    /// Their bytes in blocks of 1024.
    fn check(symbols: &[u8]) -> usize {
        let mut bytes = Vec::new();
        for block_rows in [64, 256, BLOCK] {
            bytes = encoded(symbols, block_rows);
            // With the narrow table alone, unless the code is known, and with the wide one.
            for wanted_blocks in [1, usize::MAX] {
                assert!(decode(&bytes, symbols.len(), block_rows, wanted_blocks).unwrap() == symbols);
            }
        }
        let estimated = estimate(&counts(symbols));
        assert!(estimated.abs_diff(bytes.len()) <= 20 + bytes.len() / 20, "{} bytes, not {estimated}", bytes.len());
        bytes.len()
    }

    #[test]
    fn symbols_come_near_their_entropy() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        // Eight fair bits, one symbol per number of ones: 2.54 bits of entropy.
        let symbols: Vec<u8> = (0..65_536).map(|_| random.random::<u8>().count_ones() as u8).collect();
        let bits = check(&symbols) as f64 * 8.0 / symbols.len() as f64;
        assert!((2.54..2.61).contains(&bits), "{bits} bits a symbol");
    }

    #[test]
    fn the_first_symbols_of_a_block_come_without_the_others() {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let symbols: Vec<u8> = (0..5 * BLOCK - 100).map(|_| random.random::<u8>().count_ones() as u8).collect();
        let bytes = encoded(&symbols, BLOCK);
        for round in 0..500 {
            let read = Symbols::read(&mut Input::new(&bytes), symbols.len(), BLOCK, round).unwrap();
            let count = random.random_range(1..=LANES);
            let wanted: Vec<_> =
                (0..count).map(|_| (random.random_range(0..5), random.random_range(0..=BLOCK))).collect();
            let mut lanes = [[0; size_of::<Block>()]; LANES];
            read.decode(&wanted, &mut lanes).unwrap();
            for ((block, count), lane) in wanted.iter().zip(&lanes) {
                let of_block = symbols.chunks(BLOCK).nth(*block).unwrap();
                let count = (*count).min(of_block.len());
                assert!(lane[..count] == of_block[..count]);
            }
        }
    }

    #[test]
    fn pages_of_like_symbols_share_a_code() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut codes = Codes::default();
        let mut page = |highest: u8| {
            let symbols: Vec<u8> =
                (0..9000).map(|_| (random.random::<u16>().count_ones() as u8).min(highest)).collect();
            let mut bytes = Vec::new();
            encode(&symbols, 256, &mut codes, &mut bytes);
            assert!(decode(&bytes, symbols.len(), 256, 1).unwrap() == symbols);
            // Up to 17 symbols, two more on each side as far as there are such, half a byte each.
            bytes[..11].to_vec()
        };
        let first = page(16);
        assert!((0..20).all(|_| page(16) == first));
        assert_ne!(page(5), first, "others have a code of their own");
        assert_eq!(page(16), first, "which is not forgotten");
    }

    #[test]
    fn any_alphabet_comes_back() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        for round in 0..200 {
            let rows = random.random_range(1..9000);
            let (low, count) = (random.random_range(0..=255u8), random.random_range(0..=255u8));
            // From all alike to a few that are nearly everything.
            let power = f64::from(round % 20);
            let symbol = |random: &mut ChaCha8Rng| {
                low.saturating_add((random.random::<f64>().powf(power) * f64::from(count)) as u8)
            };
            check(&(0..rows).map(|_| symbol(&mut random)).collect::<Vec<_>>());
        }
        check(&[7; 5000]);
        check(&[0, 255]);
        check(&(0..=255).collect::<Vec<_>>());
        // Fibonacci numbers ask for the longest codes.
        let mut fibonacci = Vec::new();
        let (mut a, mut b) = (1usize, 1);
        for symbol in 0..20 {
            fibonacci.extend(std::iter::repeat_n(symbol, a));
            (a, b) = (b, a + b);
        }
        check(&fibonacci);
    }

    #[test]
    fn any_bytes_decode_or_are_refused() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let symbols: Vec<u8> = (0..3000).map(|_| random.random::<u8>().count_ones() as u8).collect();
        let whole = encoded(&symbols, BLOCK);
        for _ in 0..5000 {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..4) {
                let end = if random.random() { 24 } else { bytes.len() };
                bytes[random.random_range(0..end)] = random.random();
            }
            let _ = decode(&bytes, 3000, BLOCK, if random.random() { 1 } else { usize::MAX });
        }
    }
}
