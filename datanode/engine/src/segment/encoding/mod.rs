//! Light encodings of pages. Each file is one encoding with three moments: `estimate` (bytes it would take, before
//! zstd, or `None` where it does not apply), `encode`, `decode`. All are lossless for every bit pattern.
//!
//! Reading takes which rows are wanted ([`selection`]): blocks without such rows are not decoded, where an encoding has
//! blocks.
//!
//! Decoding takes any bytes: it gives a [`Flaw`] or values, never panics, and no allocation of it is larger than
//! [`DECODED_BYTES_MAX`]; at most [`DECODED_PARTS_MAX`] such are alive at once.

pub mod binned;
pub mod bitmap;
pub mod bitpack;
pub mod bytes;
pub mod coded;
pub mod constant;
pub mod decimal;
pub mod dictionary;
pub mod exceptions;
pub mod huffman;
pub mod integers;
pub mod packed;
pub mod plain;
pub mod real;
pub mod runs;
pub mod section;
pub mod selection;
pub mod split;

use huffman::Codes;
use section::SectionWriter;

/// Most bytes that one decoded page may take. A row group is cut at far less
/// ([`ROW_GROUP_BYTES_MAX`](crate::segment::ROW_GROUP_BYTES_MAX)); only a single value of the longest message can come
/// near: 64 MiB on the wire.
pub const DECODED_BYTES_MAX: usize = 128 << 20;

/// The values as stored before zstd, codes, entries and rows of a dictionary: the most that a page has at one time.
pub const DECODED_PARTS_MAX: usize = 4;

/// How the values of a page are encoded. The numbers are part of the file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Every row is NULL; there is no body.
    Null = 0,
    /// Values of fixed width, one after another, little endian.
    Plain = 1,
    /// One value for all rows.
    Constant = 2,
    /// Integers in blocks of 1024: frame of reference or deltas, bit-packed, outliers apart.
    Packed = 3,
    /// Floats that are whole numbers of some 10^-s, as packed integers, the others apart.
    Decimal = 4,
    /// Distinct values and packed codes.
    Dictionary = 5,
    /// Packed lengths and all bytes.
    Bytes = 6,
    /// One bit per row.
    Bitmap = 7,
    /// Packed lengths and a page of the elements.
    List = 8,
    /// Integers as Huffman-coded symbols and packed low bits. Only in version 2.
    Coded = 9,
    /// Integers as packed lengths and values of runs. Since version 2, like all below.
    Runs = 10,
    /// Floats that are whole numbers of some 10^-s, as integers of any encoding, the others apart.
    Scaled = 11,
    /// Floats whose bits, in the order of their values, are integers of any encoding.
    Ordered = 12,
    /// Floats as a coded dictionary of their high bits and packed low bits. Only in version 2.
    Real = 13,
    /// Distinct values, compressed, and codes of any encoding of integers.
    Terms = 14,
    /// Integers as Huffman-coded bins and packed bits within them, in blocks that stand alone (of 1024 rows in version 3,
    /// of 256 since version 4). Since version 3, like all below.
    Binned = 15,
    /// Floats as Huffman-coded high bits and packed low bits, in blocks that stand alone.
    Split = 16,
}

impl Encoding {
    /// The encoding of that number in a file.
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Null,
            1 => Self::Plain,
            2 => Self::Constant,
            3 => Self::Packed,
            4 => Self::Decimal,
            5 => Self::Dictionary,
            6 => Self::Bytes,
            7 => Self::Bitmap,
            8 => Self::List,
            9 => Self::Coded,
            10 => Self::Runs,
            11 => Self::Scaled,
            12 => Self::Ordered,
            13 => Self::Real,
            14 => Self::Terms,
            15 => Self::Binned,
            16 => Self::Split,
            _ => return None,
        })
    }

    /// The number that stands for it in a file.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// What a writer has for all its pages.
pub struct Coders {
    pub sections: SectionWriter,
    pub codes: Codes,
}

impl Coders {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { sections: SectionWriter::new()?, codes: Codes::default() })
    }
}

/// What is wrong with bytes that do not decode. Whoever knows the place adds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Flaw(pub &'static str);

/// Bytes to decode, taken from the front.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Flaw> {
        let (head, tail) = self.bytes.split_at_checked(count).ok_or(Flaw("the encoded values end early"))?;
        self.bytes = tail;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let (head, tail) = self.bytes.split_first_chunk().ok_or(Flaw("the encoded values end early"))?;
        self.bytes = tail;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, Flaw> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Result<u16, Flaw> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Flaw> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, Flaw> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    /// Refuses bytes after the last value: an encoder leaves none.
    pub fn finish(self) -> Result<(), Flaw> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Flaw("bytes are left over after the last value")) }
    }
}

/// Refuses what would take more memory than a page may.
pub fn check_decoded_bytes(rows: usize, width_bytes: usize) -> Result<(), Flaw> {
    match rows.checked_mul(width_bytes) {
        Some(bytes) if bytes <= DECODED_BYTES_MAX => Ok(()),
        _ => Err(Flaw("the decoded values would be larger than a page may be")),
    }
}
