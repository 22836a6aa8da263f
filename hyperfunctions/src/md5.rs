//! `md5` (RFC 1321). A checksum that dashboards and scripts ask for, no protection against anybody.

use std::fmt::Write;
use std::sync::LazyLock;

/// Bits that a step turns its sum by: four in turn per round.
const TURNS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
const START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
/// 2^32 x |sin(step + 1)|
static CONSTANTS: LazyLock<[u32; 64]> =
    LazyLock::new(|| std::array::from_fn(|step| (((step + 1) as f64).sin().abs() * 4_294_967_296.0) as u32));
const BLOCK_BYTES: usize = 64;

/// The digest in hexadecimal digits.
pub(crate) fn hex_digest(bytes: &[u8]) -> String {
    let mut state = START;
    let blocks = bytes.chunks_exact(BLOCK_BYTES);
    let mut tail = blocks.remainder().to_vec();
    blocks.for_each(|block| add_block(&mut state, block));
    // A one bit, zeros, and the length in bits at the end of the last block.
    tail.push(0x80);
    while tail.len() % BLOCK_BYTES != BLOCK_BYTES - 8 {
        tail.push(0);
    }
    tail.extend((bytes.len() as u64).wrapping_mul(8).to_le_bytes());
    tail.chunks_exact(BLOCK_BYTES).for_each(|block| add_block(&mut state, block));
    let mut hex = String::with_capacity(32);
    for byte in state.iter().flat_map(|word| word.to_le_bytes()) {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

fn add_block(state: &mut [u32; 4], block: &[u8]) {
    let mut words = [0_u32; 16];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    let [mut a, mut b, mut c, mut d] = *state;
    for step in 0..64_usize {
        let (mixed, word) = match step / 16 {
            0 => ((b & c) | (!b & d), step),
            1 => ((d & b) | (!d & c), (5 * step + 1) % 16),
            2 => (b ^ c ^ d, (3 * step + 5) % 16),
            _ => (c ^ (b | !d), 7 * step % 16),
        };
        let sum = a.wrapping_add(mixed).wrapping_add(words[word]).wrapping_add(CONSTANTS[step]);
        (a, d, c) = (d, c, b);
        b = b.wrapping_add(sum.rotate_left(TURNS[step / 16][step % 4]));
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_rfc() {
        let check = |text: &str, digest: &str| assert_eq!(hex_digest(text.as_bytes()), digest, "{text}");
        check("", "d41d8cd98f00b204e9800998ecf8427e");
        check("a", "0cc175b9c0f1b6a831c399e269772661");
        check("message digest", "f96b697d7cb7938d525a2f31aaf161d0");
        check(
            "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
            "57edf4a22be3c955ac49da2e2107b67a",
        );
        check("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f");
    }
}
