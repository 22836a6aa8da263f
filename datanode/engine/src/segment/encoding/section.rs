//! Parts of a page that are squeezed on their own, so that what lies beside them stays as it is.
//!
//! ```text
//! offset  size  field
//!      0     4  bytes r before zstd
//!      4     4  bytes s as stored; s = r: not compressed
//!      8     s  the bytes, or a zstd frame of them
//! ```

use std::borrow::Cow;
use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use super::{DECODED_BYTES_MAX, Flaw, Input};

/// Sections below this gain nothing over zstd's own header.
const ZSTD_BYTES_MIN: usize = 48;
/// zstd must save one byte in so many, or the bytes stay as they are: reading them back then costs nothing.
pub const ZSTD_SAVES_PART: usize = 10;
/// Measured: 1 is as small as 3 on bit-packed values and twice as fast.
pub const ZSTD_LEVEL: i32 = 1;

/// Writes sections. One per writer: its context is reused.
pub struct SectionWriter {
    compressor: Compressor<'static>,
    squeezed: Vec<u8>,
}

impl SectionWriter {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { compressor: Compressor::new(ZSTD_LEVEL)?, squeezed: Vec::new() })
    }

    /// Appends a section of bytes.
    pub fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let stored = squeeze(&mut self.compressor, &mut self.squeezed, bytes, ZSTD_SAVES_PART);
        for length in [bytes.len(), stored.len()] {
            out.extend_from_slice(&u32::try_from(length).expect("a page is far below 4 GiB").to_le_bytes());
        }
        out.extend_from_slice(stored);
    }
}

/// The bytes compressed where that saves at least one byte in `saves_part`, else as they are.
pub fn squeeze<'a>(
    compressor: &mut Compressor<'_>,
    buffer: &'a mut Vec<u8>,
    bytes: &'a [u8],
    saves_part: usize,
) -> &'a [u8] {
    if bytes.len() >= ZSTD_BYTES_MIN {
        buffer.clear();
        buffer.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        if let Ok(length) = compressor.compress_to_buffer(bytes, buffer)
            && length <= bytes.len() - bytes.len() / saves_part
        {
            return buffer;
        }
    }
    bytes
}

thread_local! {
    /// One for all that a thread reads: a context is 94 KiB, and a shard has hundreds of segments open.
    static DECOMPRESSOR: RefCell<Decompressor<'static>> = RefCell::default();
}

/// Reads a section of at most `bytes_max` bytes.
pub fn read<'a>(input: &mut Input<'a>, bytes_max: usize) -> Result<Cow<'a, [u8]>, Flaw> {
    let (raw, stored) = (input.u32()? as usize, input.u32()? as usize);
    if raw > bytes_max.min(DECODED_BYTES_MAX) || stored > raw {
        return Err(Flaw("a section of the page is larger than it can be"));
    }
    let stored = input.take(stored)?;
    if stored.len() == raw {
        return Ok(Cow::Borrowed(stored));
    }
    expand(stored, raw).map(Cow::Owned)
}

/// Reads a section of exactly `rows` symbols, one a byte.
pub fn read_symbols<'a>(input: &mut Input<'a>, rows: usize) -> Result<Cow<'a, [u8]>, Flaw> {
    let symbols = read(input, rows)?;
    if symbols.len() == rows { Ok(symbols) } else { Err(Flaw("a page has not one symbol for each row")) }
}

/// Decompresses a frame of `raw` bytes, which the caller has found acceptable.
pub fn expand(frame: &[u8], raw: usize) -> Result<Vec<u8>, Flaw> {
    let mut bytes = Vec::with_capacity(raw);
    match DECOMPRESSOR.with_borrow_mut(|decompressor| decompressor.decompress_to_buffer(frame, &mut bytes)) {
        Ok(length) if length == raw => Ok(bytes),
        _ => Err(Flaw("a part of the page does not decompress")),
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    fn check(bytes: &[u8]) -> usize {
        let mut out = Vec::new();
        SectionWriter::new().unwrap().write(bytes, &mut out);
        let mut input = Input::new(&out);
        assert_eq!(read(&mut input, bytes.len()).unwrap(), bytes);
        input.finish().unwrap();
        out.len()
    }

    #[test]
    fn what_does_not_shrink_is_stored_as_it_is() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(2);
        let noise: Vec<u8> = (0..1000).map(|_| random.random()).collect();
        assert_eq!(check(&noise), 1008);
        assert_eq!(check(&[]), 8);
        assert!(check(&[7; 1000]) < 40);
    }

    #[test]
    fn a_section_larger_than_expected_is_refused_before_it_is_expanded() {
        let mut out = Vec::new();
        SectionWriter::new().unwrap().write(&[7; 1000], &mut out);
        assert!(read(&mut Input::new(&out), 999).is_err());
        assert!(read_symbols(&mut Input::new(&out), 1001).is_err());
    }
}
