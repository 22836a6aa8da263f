//! Strings, bytes and uuids that repeat: the distinct values in order of first appearance, and packed codes.
//!
//! ```text
//! offset  size  field
//!      0     4  number of entries d, 1..=65536
//!      4    ..  entries: a section that holds their lengths, packed, then their bytes
//!     ..     n  a code 0..d for each row: integers with the number of their encoding; a NULL row repeats the one before
//! ```
//!
//! In version 1 the entries are no section and the codes always packed, without a number.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use arrow::buffer::NullBuffer;

use super::bytes::Decoded;
use super::section;
use super::selection::Selection;
use super::{Coders, DECODED_BYTES_MAX, Encoding, Flaw, Input, check_decoded_bytes, integers, packed, runs};

/// Entries of one page's dictionary.
pub const ENTRIES_MAX: usize = 1 << 16;
/// Rows before a dictionary is given up because most values are new.
const PATIENCE_ROWS: usize = 1024;
/// Entries up to this length are copied as one vector.
const SHORT_BYTES: usize = 16;

/// Distinct values and the codes of all rows.
#[derive(Debug)]
pub struct Plan<'a> {
    pub entries: Vec<&'a [u8]>,
    codes: Vec<i64>,
    lengths: packed::Plan,
    plan: integers::Plan,
    /// Before the entries are compressed.
    pub bytes: usize,
}

/// XXH3 of the whole key at once: the keys are single byte slices.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= xxhash_rust::xxh3::xxh3_64(bytes);
    }
    // The length that slices add: it is in the hash of the bytes already.
    #[inline]
    fn write_usize(&mut self, _: usize) {}
    fn finish(&self) -> u64 {
        self.0
    }
}

/// `None` when most values differ. `value` gives the bytes of a row, `None` for NULL.
pub fn estimate<'a>(rows: usize, value: impl Fn(usize) -> Option<&'a [u8]>) -> Option<Plan<'a>> {
    let mut codes = vec![0i64; rows];
    let mut entries: Vec<&[u8]> = Vec::new();
    let mut known: HashMap<&[u8], i64, BuildHasherDefault<KeyHasher>> = HashMap::default();
    let (mut last, mut last_code) = (None, 0);
    for (row, code) in codes.iter_mut().enumerate() {
        if let Some(bytes) = value(row)
            && last != Some(bytes)
        {
            last_code = *known.entry(bytes).or_insert_with(|| {
                entries.push(bytes);
                entries.len() as i64 - 1
            });
            last = Some(bytes);
            if entries.len() > ENTRIES_MAX || entries.len() > PATIENCE_ROWS + row / 2 {
                return None;
            }
        }
        *code = last_code;
    }
    if entries.is_empty() {
        return None;
    }
    let lengths = packed::estimate(&entry_lengths(&entries));
    let plan = integers::estimate(&codes);
    let bytes = 13 + lengths.bytes + entries.iter().map(|entry| entry.len()).sum::<usize>() + plan.bytes();
    Some(Plan { entries, codes, lengths, plan, bytes })
}

fn entry_lengths(entries: &[&[u8]]) -> Vec<i64> {
    entries.iter().map(|entry| entry.len() as i64).collect()
}

pub fn encode(plan: &Plan<'_>, coders: &mut Coders, out: &mut Vec<u8>) {
    out.extend_from_slice(&(plan.entries.len() as u32).to_le_bytes());
    let mut entries = Vec::new();
    packed::encode(&entry_lengths(&plan.entries), &plan.lengths, &mut entries);
    for entry in &plan.entries {
        entries.extend_from_slice(entry);
    }
    coders.sections.write(&entries, out);
    integers::encode_nested(&plan.codes, &plan.plan, &mut coders.codes, out);
}

/// Decoded entries and the codes of the wanted rows, before these are spelled out.
#[derive(Debug)]
pub struct Codes {
    pub entries: Decoded,
    pub rows: CodeRows,
}

/// Codes, each below the number of entries.
#[derive(Debug)]
pub enum CodeRows {
    /// How many rows have which code.
    Runs(Vec<(usize, u32)>),
    Each(Vec<u32>),
}

impl CodeRows {
    /// One code for each row.
    pub fn into_each(self) -> Vec<u32> {
        match self {
            Self::Each(codes) => codes,
            Self::Runs(runs) => runs.into_iter().flat_map(|(rows, code)| std::iter::repeat_n(code, rows)).collect(),
        }
    }

    fn max(&self) -> u32 {
        match self {
            Self::Each(codes) => codes.iter().fold(0, |max, code| max.max(*code)),
            Self::Runs(runs) => runs.iter().fold(0, |max, (_, code)| max.max(*code)),
        }
    }
}

/// Decodes a page that is [`Encoding::Terms`], or version 1's [`Encoding::Dictionary`].
pub fn decode_codes(encoding: Encoding, input: &mut Input<'_>, selection: &Selection<'_>) -> Result<Codes, Flaw> {
    let count = input.u32()? as usize;
    if count == 0 || count > ENTRIES_MAX {
        return Err(Flaw("a dictionary has an impossible number of entries"));
    }
    // A code that does not fit u32 must not come out as another one.
    let code = |code| u32::try_from(code).unwrap_or(u32::MAX);
    let (entries, rows) = if encoding == Encoding::Dictionary {
        (super::bytes::decode_all(input, count)?, CodeRows::Each(packed::decode(input, selection, code)?))
    } else {
        let stored = section::read(input, DECODED_BYTES_MAX)?;
        let mut stored = Input::new(&stored);
        let entries = super::bytes::decode_all(&mut stored, count)?;
        stored.finish()?;
        (entries, decode_rows(input, selection, code)?)
    };
    if rows.max() as usize >= count {
        return Err(Flaw("a code points outside its dictionary"));
    }
    Ok(Codes { entries, rows })
}

fn decode_rows(
    input: &mut Input<'_>,
    selection: &Selection<'_>,
    code: impl Fn(i64) -> u32 + Copy,
) -> Result<CodeRows, Flaw> {
    check_decoded_bytes(selection.count(), size_of::<u32>())?;
    match integers::nested_encoding(input)? {
        Encoding::Runs => Ok(CodeRows::Runs(runs::decode_parts(input, selection, code)?)),
        encoding => Ok(CodeRows::Each(integers::decode(encoding, input, selection, code)?)),
    }
}

/// Spells out every row; NULL rows are empty.
pub fn spell(codes: Codes, nulls: Option<&NullBuffer>) -> Result<Decoded, Flaw> {
    let spelled = match codes.rows {
        CodeRows::Runs(runs) if nulls.is_none() => spell_runs(&codes.entries, &runs),
        rows => spell_each(&codes.entries, &rows.into_each(), nulls),
    }?;
    // Looking at few entries saves looking at many rows.
    let is_text = codes.entries.offsets.len() <= spelled.offsets.len() && are_texts(&codes.entries);
    Ok(Decoded { is_text, ..spelled })
}

fn are_texts(entries: &Decoded) -> bool {
    let entry = |span: &[i32]| std::str::from_utf8(&entries.bytes[span[0] as usize..span[1] as usize]);
    entries.offsets.windows(2).all(|span| entry(span).is_ok())
}

fn spell_runs(entries: &Decoded, runs: &[(usize, u32)]) -> Result<Decoded, Flaw> {
    let entry = |code: u32| entries.offsets[code as usize] as usize..entries.offsets[code as usize + 1] as usize;
    let rows: usize = runs.iter().map(|(rows, _)| rows).sum();
    check_decoded_bytes(rows + 1, 4)?;
    let mut total = 0usize;
    for (rows, code) in runs {
        // Neither factor is larger than a page may have bytes, and neither is the sum so far.
        total += rows * entry(*code).len();
        check_decoded_bytes(total, 1)?;
    }
    let (mut offsets, mut bytes) = (Vec::with_capacity(rows + 1), Vec::with_capacity(total));
    offsets.push(0);
    for (rows, code) in runs {
        let (entry, start) = (&entries.bytes[entry(*code)], bytes.len());
        offsets.extend((1..=*rows).map(|row| (start + row * entry.len()) as i32));
        let end = start + rows * entry.len();
        bytes.extend_from_slice(if *rows > 0 { entry } else { &[] });
        while bytes.len() < end {
            // Twice as much each time.
            let more = (bytes.len() - start).min(end - bytes.len());
            bytes.extend_from_within(start..start + more);
        }
    }
    Ok(Decoded { offsets, bytes, is_text: false })
}

fn spell_each(entries: &Decoded, codes: &[u32], nulls: Option<&NullBuffer>) -> Result<Decoded, Flaw> {
    let rows = codes.len();
    check_decoded_bytes(rows + 1, 4)?;
    let mut offsets = vec![0i32; rows + 1];
    let mut end = 0usize;
    for (row, (code, offset)) in codes.iter().zip(&mut offsets[1..]).enumerate() {
        let null = nulls.is_some_and(|nulls| nulls.is_null(row));
        let span = &entries.offsets[*code as usize..][..2];
        end += if null { 0 } else { (span[1] - span[0]) as usize };
        // One more than a page may hold ends the loop before an offset can overflow.
        if end > DECODED_BYTES_MAX {
            return Err(Flaw("the decoded values would be larger than a page may be"));
        }
        *offset = end as i32;
    }
    let mut bytes = vec![0; end + SHORT_BYTES];
    match short_entries(entries) {
        Some(table) => {
            for (code, start) in codes.iter().zip(&offsets) {
                // A short entry is copied with its padding; the next row overwrites that.
                bytes[*start as usize..][..SHORT_BYTES].copy_from_slice(&table[*code as usize]);
            }
        }
        None => {
            for (code, span) in codes.iter().zip(offsets.windows(2)) {
                let from = entries.offsets[*code as usize] as usize;
                let length = (span[1] - span[0]) as usize;
                bytes[span[0] as usize..span[1] as usize].copy_from_slice(&entries.bytes[from..from + length]);
            }
        }
    }
    bytes.truncate(end);
    Ok(Decoded { offsets, bytes, is_text: false })
}

/// All entries padded to one length, when all are short.
fn short_entries(entries: &Decoded) -> Option<Vec<[u8; SHORT_BYTES]>> {
    let mut table = Vec::with_capacity(entries.offsets.len() - 1);
    for span in entries.offsets.windows(2) {
        let entry = &entries.bytes[span[0] as usize..span[1] as usize];
        let mut padded = [0; SHORT_BYTES];
        padded.get_mut(..entry.len())?.copy_from_slice(entry);
        table.push(padded);
    }
    Some(table)
}
