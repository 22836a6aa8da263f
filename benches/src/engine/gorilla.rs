//! Gorilla (Pelkonen et al., VLDB 2015), plain and short, to compare with: a double is kept as the meaningful bits of its
//! XOR with the one before, an integer as the delta of its delta in classes of 7, 9, 12 or 64 bits.

/// Bits, the first in the highest place.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    pending: u128,
    count: u32,
}

impl BitWriter {
    fn push(&mut self, value: u64, bits: u32) {
        let value = u128::from(if bits < 64 { value & ((1 << bits) - 1) } else { value });
        self.pending = self.pending << bits | value;
        self.count += bits;
        while self.count >= 8 {
            self.count -= 8;
            self.bytes.push((self.pending >> self.count) as u8);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.push(0, 8 - self.count);
        }
        self.bytes
    }
}

struct BitReader<'a> {
    bytes: std::slice::Iter<'a, u8>,
    pending: u128,
    count: u32,
}

impl<'a> BitReader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter(), pending: 0, count: 0 }
    }

    fn take(&mut self, bits: u32) -> u64 {
        while self.count < bits {
            self.pending = self.pending << 8 | u128::from(self.bytes.next().copied().unwrap_or(0));
            self.count += 8;
        }
        self.count -= bits;
        let value = (self.pending >> self.count) as u64;
        if bits < 64 { value & ((1 << bits) - 1) } else { value }
    }
}

/// Of the bits of doubles.
pub fn encode_xor(values: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut out = BitWriter::default();
    // No window yet: none is wider than this.
    let (mut before, mut leading, mut trailing) = (0, 64, 0);
    for value in values {
        let xor = value ^ before;
        before = value;
        let (zeros, tail) = (xor.leading_zeros().min(31), xor.trailing_zeros());
        if xor == 0 {
            out.push(0, 1);
        } else if leading < 64 && zeros >= leading && tail >= trailing {
            out.push(0b10, 2);
            out.push(xor >> trailing, 64 - leading - trailing);
        } else {
            (leading, trailing) = (zeros, tail);
            out.push(0b11, 2);
            out.push(u64::from(leading), 5);
            out.push(u64::from(64 - leading - trailing - 1), 6);
            out.push(xor >> trailing, 64 - leading - trailing);
        }
    }
    out.finish()
}

pub fn decode_xor<T>(bytes: &[u8], rows: usize, convert: impl Fn(u64) -> T) -> Vec<T> {
    let mut input = BitReader::new(bytes);
    let (mut value, mut leading, mut trailing) = (0, 0, 0);
    let next = |_| {
        if input.take(1) == 1 {
            if input.take(1) == 1 {
                leading = input.take(5) as u32;
                trailing = 64 - leading - (input.take(6) as u32 + 1);
            }
            value ^= input.take(64 - leading - trailing) << trailing;
        }
        convert(value)
    };
    (0..rows).map(next).collect()
}

/// Widths of the classes; before each stands one more 1 than before the last, and a 0 ends all but the last.
const CLASSES: [u32; 4] = [7, 9, 12, 64];

pub fn encode_deltas(values: impl Iterator<Item = i64>) -> Vec<u8> {
    let mut out = BitWriter::default();
    let (mut before, mut delta_before) = (0i64, 0i64);
    for value in values {
        let delta = value.wrapping_sub(before);
        let second = delta.wrapping_sub(delta_before);
        (before, delta_before) = (value, delta);
        if second == 0 {
            out.push(0, 1);
            continue;
        }
        let fits = |width: &u32| *width == 64 || (-(1i64 << (width - 1))..1i64 << (width - 1)).contains(&second);
        let class = CLASSES.iter().position(fits).unwrap_or(CLASSES.len() - 1);
        for _ in 0..=class {
            out.push(1, 1);
        }
        if class + 1 < CLASSES.len() {
            out.push(0, 1);
        }
        out.push(second as u64, CLASSES[class]);
    }
    out.finish()
}

pub fn decode_deltas(bytes: &[u8], rows: usize) -> Vec<i64> {
    let mut input = BitReader::new(bytes);
    let (mut value, mut delta) = (0i64, 0i64);
    let next = |_| {
        let mut ones = 0;
        while ones < CLASSES.len() && input.take(1) == 1 {
            ones += 1;
        }
        if ones > 0 {
            let width = CLASSES[ones - 1];
            let second = (input.take(width) << (64 - width)) as i64 >> (64 - width);
            delta = delta.wrapping_add(second);
        }
        value = value.wrapping_add(delta);
        value
    };
    (0..rows).map(next).collect()
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn any_bits_come_back() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..50 {
            let shift = random.random_range(0..64);
            let bits: Vec<u64> = (0..500).map(|_| random.random::<u64>() >> shift << (shift / 2)).collect();
            assert_eq!(decode_xor(&encode_xor(bits.iter().copied()), bits.len(), |bits| bits), bits);
            let values: Vec<i64> = bits.iter().map(|bits| *bits as i64).collect();
            assert_eq!(decode_deltas(&encode_deltas(values.iter().copied()), values.len()), values);
        }
    }

    #[test]
    fn a_regular_clock_takes_a_bit_a_value_and_so_does_a_constant() {
        let times = (0..8000).map(|step| step * 10_000_000);
        assert!(encode_deltas(times).len() < 1100);
        assert!(encode_xor([7.5f64.to_bits(); 8000].into_iter()).len() < 1100);
    }
}
