//! Bit-packing of blocks of 1024 numbers. Values lie as 64 rows of 16 lanes; each lane is packed into words of its own,
//! so that the inner loops run over 16 neighbours with one shift and one mask, which the compiler turns into vector
//! instructions (the layout of FastLanes, VLDB 2023, without its reordering).
//!
//! Value `i` is row `i / 16` of lane `i % 16`. Word `k` of lane `l` is the `k * 16 + l`-th word; a lane's value of row
//! `r` at `w` bits takes its bits `r * w .. r * w + w`, lowest first.
//!
//! Fewer numbers than a block has lie one after another instead, lowest bit first: *tight*, where lanes would be filled up
//! with zeros.

/// Values in a block.
pub const BLOCK: usize = 1024;
const LANES: usize = 16;
const ROWS: usize = BLOCK / LANES;
const LANE_BYTES: usize = LANES * 8;

/// Bytes that a block takes at `width` bits a value.
pub const fn packed_bytes(width: u32) -> usize {
    width as usize * LANE_BYTES
}

/// Bytes that so many values take at `width` bits each: a whole block, or fewer values tightly.
pub const fn tight_bytes(width: u32, values: usize) -> usize {
    if values == BLOCK { packed_bytes(width) } else { (values * width as usize).div_ceil(8) }
}

/// Bits needed for the value.
pub const fn bit_length(value: u64) -> u32 {
    64 - value.leading_zeros()
}

const fn mask(width: u32) -> u64 {
    if width == 64 { u64::MAX } else { (1 << width) - 1 }
}

/// Appends the low `width` bits of each value.
pub fn pack(values: &[u64; BLOCK], width: u32, out: &mut Vec<u8>) {
    debug_assert!(width <= 64, "a value has 64 bits");
    if width == 0 {
        return;
    }
    let mut words = [0u64; BLOCK];
    let mask = mask(width);
    for (row, lanes) in values.as_chunks::<LANES>().0.iter().enumerate() {
        let bit = row * width as usize;
        let (word, shift) = (bit / 64, bit % 64);
        let (low, high) = words[word * LANES..].split_at_mut(LANES);
        for (target, value) in low.iter_mut().zip(lanes) {
            *target |= (value & mask) << shift;
        }
        if shift + width as usize > 64 {
            for (target, value) in high.iter_mut().zip(lanes) {
                *target |= (value & mask) >> (64 - shift);
            }
        }
    }
    let used = &words[..width as usize * LANES];
    let start = out.len();
    out.resize(start + packed_bytes(width), 0);
    for (target, word) in out[start..].as_chunks_mut::<8>().0.iter_mut().zip(used) {
        *target = word.to_le_bytes();
    }
}

/// Unpacks `packed_bytes(width)` bytes and adds `base` to every value, wrapping.
///
/// # Panics
/// When `bytes` is shorter, or `width` over 64: the caller has taken exactly that many.
#[inline(always)]
pub fn unpack(bytes: &[u8], width: u32, base: u64, out: &mut [u64; BLOCK]) {
    unpack_rows(bytes, width, base, 0, out);
}

/// Unpacks the values of as many rows of lanes as `out` has, from row `first` on, and adds `base` to each, wrapping.
#[inline(always)]
fn unpack_rows(bytes: &[u8], width: u32, base: u64, first: usize, out: &mut [u64]) {
    assert!(width <= 64 && bytes.len() == packed_bytes(width), "a packed block has its exact length");
    if width == 0 {
        out.fill(base);
        return;
    }
    let words = bytes.as_chunks::<LANE_BYTES>().0;
    let mask = mask(width);
    for (row, target) in (first..ROWS).zip(out.as_chunks_mut::<LANES>().0) {
        let bit = row * width as usize;
        let (word, shift) = (bit / 64, bit % 64);
        let low = words[word].as_chunks::<8>().0;
        if shift + width as usize <= 64 {
            for lane in 0..LANES {
                target[lane] = ((u64::from_le_bytes(low[lane]) >> shift) & mask).wrapping_add(base);
            }
        } else {
            let high = words[word + 1].as_chunks::<8>().0;
            for lane in 0..LANES {
                let both = (u64::from_le_bytes(low[lane]) >> shift) | (u64::from_le_bytes(high[lane]) << (64 - shift));
                target[lane] = (both & mask).wrapping_add(base);
            }
        }
    }
}

/// Appends the low `width` bits of the values: of a whole block as [`pack`] does, of fewer values tightly.
pub fn pack_tight(values: &[u64], width: u32, out: &mut Vec<u8>) {
    if let Ok(block) = values.try_into() {
        return pack(block, width, out);
    }
    let (mut bits, mut count) = (0u128, 0);
    for value in values {
        bits |= u128::from(value & mask(width)) << count;
        count += width;
        if count >= 64 {
            out.extend_from_slice(&(bits as u64).to_le_bytes());
            bits >>= 64;
            count -= 64;
        }
    }
    out.extend_from_slice(&bits.to_le_bytes()[..count.div_ceil(8) as usize]);
}

/// Unpacks the `tight_bytes` of so many values into the first of the block and adds `base` to each, wrapping.
///
/// # Panics
/// When `bytes` is shorter, or `width` over 64: the caller has taken exactly that many.
#[inline(always)]
pub fn unpack_tight(bytes: &[u8], width: u32, base: u64, out: &mut [u64; BLOCK], values: usize) {
    unpack_part(bytes, width, base, values, 0, &mut out[..values]);
}

/// Unpacks as many of so many values as `out` has, from the one at `from` on, and adds `base` to each, wrapping. Whole
/// rows of lanes: `from` is a multiple of 16, and so is the length of `out` when the values are a whole block.
///
/// # Panics
/// When `bytes` is shorter, or `width` over 64: the caller has taken exactly that many. Or when `from` or `out` are not as
/// said.
#[inline(always)]
pub fn unpack_part(bytes: &[u8], width: u32, base: u64, values: usize, from: usize, out: &mut [u64]) {
    assert!(from.is_multiple_of(LANES) && from + out.len() <= values, "a part begins with a row and lies within");
    if values == BLOCK {
        assert!(out.len().is_multiple_of(LANES), "a part of a block has whole rows");
        return unpack_rows(bytes, width, base, from / LANES, out);
    }
    assert!(width <= 64 && bytes.len() == tight_bytes(width, values), "tight values have their exact length");
    unpack_tightly(&bytes[from / 8 * width as usize..], width, base, out);
}

/// Widest value that lies within eight bytes wherever it begins.
const WIDTH_OF_ONE_LOAD: u32 = 57;

#[inline(always)]
fn unpack_tightly(bytes: &[u8], width: u32, base: u64, out: &mut [u64]) {
    if width > WIDTH_OF_ONE_LOAD {
        return unpack_widely(bytes, width, base, out);
    }
    let (width, mask) = (width as usize, mask(width));
    let value = |bytes: &[u8; 8], bit: usize| (u64::from_le_bytes(*bytes) >> (bit % 8) & mask).wrapping_add(base);
    // Values of which eight bytes are there, each with a load of its own; then those at the end of all bytes.
    let loads = bytes.len().saturating_sub(7) * 8;
    let count = if width == 0 { 0 } else { loads.div_ceil(width).min(out.len()) };
    let (out, last) = out.split_at_mut(count);
    for (place, slot) in out.iter_mut().enumerate() {
        let bit = place * width;
        *slot = bytes[bit / 8..].first_chunk().map_or(0, |eight| value(eight, bit));
    }
    for (place, slot) in last.iter_mut().enumerate() {
        let bit = (count + place) * width;
        let mut eight = [0; 8];
        let there = &bytes[(bit / 8).min(bytes.len())..];
        let there = &there[..there.len().min(8)];
        eight[..there.len()].copy_from_slice(there);
        *slot = value(&eight, bit);
    }
}

/// Of any width.
fn unpack_widely(bytes: &[u8], width: u32, base: u64, out: &mut [u64]) {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mut words = words.iter().chain(std::iter::once(&last));
    let (mut bits, mut count) = (0u128, 0);
    for slot in out {
        if count < width {
            bits |= u128::from(words.next().map_or(0, |word| u64::from_le_bytes(*word))) << count;
            count += 64;
        }
        *slot = (bits as u64 & mask(width)).wrapping_add(base);
        bits >>= width;
        count -= width;
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn every_width_gives_back_what_it_packed() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        for width in 0..=64 {
            let values: [u64; BLOCK] = std::array::from_fn(|_| random.random::<u64>() & mask(width));
            let mut bytes = Vec::new();
            pack(&values, width, &mut bytes);
            assert_eq!(bytes.len(), packed_bytes(width));
            let mut back = [0; BLOCK];
            unpack(&bytes, width, 7, &mut back);
            assert!(values.iter().zip(&back).all(|(a, b)| a.wrapping_add(7) == *b), "width {width}");
        }
    }

    #[test]
    fn fewer_values_lie_one_after_another() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(2);
        for width in 0..=64 {
            for count in [0, 1, 2, 7, 63, 500, BLOCK - 1, BLOCK] {
                let values: Vec<u64> = (0..count).map(|_| random.random::<u64>()).collect();
                let mut bytes = Vec::new();
                pack_tight(&values, width, &mut bytes);
                assert_eq!(bytes.len(), tight_bytes(width, count));
                let mut back = [0; BLOCK];
                unpack_tight(&bytes, width, 7, &mut back, count);
                let is_same = |(a, b): (&u64, &u64)| (a & mask(width)).wrapping_add(7) == *b;
                assert!(values.iter().zip(&back).all(is_same), "{count} values of {width} bits");
            }
        }
    }

    #[test]
    fn a_part_is_what_the_whole_has_there() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        for width in 0..=64 {
            for count in [16, 300, BLOCK - 1, BLOCK] {
                let values: Vec<u64> = (0..count).map(|_| random.random::<u64>() & mask(width)).collect();
                let mut bytes = Vec::new();
                pack_tight(&values, width, &mut bytes);
                let from = random.random_range(0..=count / LANES) * LANES;
                let part = &values[from..count.min(from + 256)];
                let mut back = vec![0; part.len()];
                unpack_part(&bytes, width, 0, count, from, &mut back);
                assert!(back == part, "{} values of {width} bits from {from} of {count} on", part.len());
            }
        }
    }

    #[test]
    fn bits_over_the_width_are_left_out() {
        let mut bytes = Vec::new();
        pack(&[u64::MAX; BLOCK], 3, &mut bytes);
        let mut back = [0; BLOCK];
        unpack(&bytes, 3, 0, &mut back);
        assert_eq!(back, [7; BLOCK]);
    }
}
