//! The frame of a page: one column of one row group, its null mask and values each compressed with zstd where that
//! saves enough, and a checksum that also covers the place where the page belongs.
//!
//! ```text
//! offset  size  field
//!      0     1  encoding of the values
//!      1     1  flags: 1 a null mask is there, 2 the mask is zstd, 4 the values are zstd
//!      2     2  zero
//!      4     4  rows
//!      8     4  mask bytes m as stored
//!     12     4  value bytes v as stored
//!     16     4  value bytes before zstd
//!     20     m  null mask, one bit per row, 1 = not NULL
//!   20+m     v  values
//! 20+m+v     4  CRC-32C of (chunk, segment, file offset: 8 bytes each) and of all before; not in a page within a page
//! ```

use std::borrow::Cow;

use meridian_proto::ids::{ChunkId, SegmentId};
use zstd::bulk::Compressor;

use super::encoding::section::{self, ZSTD_LEVEL, ZSTD_SAVES_PART, squeeze};
use super::encoding::{DECODED_BYTES_MAX, Encoding, Flaw, Input};

/// Bytes before the null mask.
pub const PAGE_HEADER_BYTES: usize = 20;
/// Bytes of the checksum at the end.
pub const PAGE_CHECKSUM_BYTES: usize = 4;

/// Values shorter than this are not compressed as a whole: what that saves is not worth a reader's time.
const SQUEEZED_BYTES_MIN: usize = 2048;
/// Values of which a part can be read must save one byte in so many, since compressed they are read as a whole.
const PART_SAVES_PART: usize = 4;

const NULLS: u8 = 1;
const MASK_ZSTD: u8 = 2;
const VALUES_ZSTD: u8 = 4;

/// What compressing the values of a page with zstd may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Squeeze {
    /// Nothing: they have the entropy of their bits already.
    No,
    /// Blocks of them can be read by themselves as long as they are not compressed.
    Blocks,
    Whole,
}

/// Compresses the parts of pages. One per writer: its context is reused.
pub struct Framer {
    compressor: Compressor<'static>,
    squeezed: Vec<u8>,
}

impl Framer {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { compressor: Compressor::new(ZSTD_LEVEL)?, squeezed: Vec::new() })
    }

    /// Appends a page without checksum. `mask` is empty when no row is NULL.
    pub fn frame(
        &mut self,
        (encoding, may_squeeze): (Encoding, Squeeze),
        rows: usize,
        mask: &[u8],
        values: &[u8],
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        let mut flags = if mask.is_empty() { 0 } else { NULLS };
        out.resize(start + PAGE_HEADER_BYTES, 0);
        if self.squeeze(mask, ZSTD_SAVES_PART, out) {
            flags |= MASK_ZSTD;
        }
        let mask_end = out.len();
        let saves_part = match may_squeeze {
            Squeeze::Blocks => PART_SAVES_PART,
            Squeeze::No | Squeeze::Whole => ZSTD_SAVES_PART,
        };
        if may_squeeze == Squeeze::No || values.len() < SQUEEZED_BYTES_MIN {
            out.extend_from_slice(values);
        } else if self.squeeze(values, saves_part, out) {
            flags |= VALUES_ZSTD;
        }
        let lengths = [rows, mask_end - start - PAGE_HEADER_BYTES, out.len() - mask_end, values.len()];
        let header = &mut out[start..start + PAGE_HEADER_BYTES];
        header[0] = encoding.code();
        header[1] = flags;
        for (field, length) in header[4..].as_chunks_mut::<4>().0.iter_mut().zip(lengths) {
            *field = u32::try_from(length).expect("a page is far below 4 GiB").to_le_bytes();
        }
    }

    /// Appends the part, compressed where that saves enough, and tells whether it is.
    fn squeeze(&mut self, part: &[u8], saves_part: usize, out: &mut Vec<u8>) -> bool {
        let stored = squeeze(&mut self.compressor, &mut self.squeezed, part, saves_part);
        out.extend_from_slice(stored);
        stored.len() < part.len()
    }
}

/// The checksum of a page at its place.
pub fn checksum(chunk: ChunkId, segment: SegmentId, offset: u64, page: &[u8]) -> u32 {
    let mut place = [0; 24];
    place[..8].copy_from_slice(&chunk.0.to_le_bytes());
    place[8..16].copy_from_slice(&segment.0.to_le_bytes());
    place[16..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), page)
}

/// A page's parts, still encoded but no longer compressed.
#[derive(Debug)]
pub struct Parts<'a> {
    pub encoding: Encoding,
    pub mask: Option<Vec<u8>>,
    pub values: Cow<'a, [u8]>,
}

/// Takes a page apart that must have `rows` rows and at most `values_max` bytes of values.
pub fn unframe<'a>(page: &'a [u8], rows: usize, values_max: usize) -> Result<Parts<'a>, Flaw> {
    let mut input = Input::new(page);
    let [code, flags, zero_a, zero_b] = input.array::<4>()?;
    let encoding = Encoding::from_code(code).ok_or(Flaw("the page's encoding is unknown"))?;
    if flags & !(NULLS | MASK_ZSTD | VALUES_ZSTD) != 0 || [zero_a, zero_b] != [0; 2] {
        return Err(Flaw("the page's header has unknown flags"));
    }
    if input.u32()? as usize != rows {
        return Err(Flaw("the page has another number of rows than its row group"));
    }
    let (mask_bytes, value_bytes) = (input.u32()? as usize, input.u32()? as usize);
    let values_raw = input.u32()? as usize;
    if values_raw > values_max.min(DECODED_BYTES_MAX) {
        return Err(Flaw("the page's values are larger than they can be"));
    }
    let mask = input.take(mask_bytes)?;
    let mask = match flags & NULLS {
        0 if mask_bytes == 0 => None,
        0 => return Err(Flaw("the page has a null mask that its header does not mention")),
        _ => Some(part(mask, flags & MASK_ZSTD != 0, rows.div_ceil(8))?.into_owned()),
    };
    let values = part(input.take(value_bytes)?, flags & VALUES_ZSTD != 0, values_raw)?;
    input.finish()?;
    Ok(Parts { encoding, mask, values })
}

/// One part of `raw` bytes.
fn part<'a>(stored: &'a [u8], zstd: bool, raw: usize) -> Result<Cow<'a, [u8]>, Flaw> {
    match zstd {
        true => section::expand(stored, raw).map(Cow::Owned),
        false if stored.len() == raw => Ok(Cow::Borrowed(stored)),
        false => Err(Flaw("a part of the page has another length than its header says")),
    }
}
