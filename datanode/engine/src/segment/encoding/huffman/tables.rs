//! Tables for decoding a code. Pages of like columns have the same few codes, so each thread keeps the tables that it made
//! last: reading one block of a page then costs no more than that block.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Code, LENGTH_MAX, WINDOW};
use crate::segment::encoding::{Flaw, Input};

/// Most symbols of one look-up in the wide table.
pub const WIDE_SYMBOLS: usize = 7;
/// Making the wide table takes as long as reading so many symbols without.
const WIDE_WANTED_MIN: usize = 6 * 1024;
/// Of 20 KiB each.
const KEPT: usize = 64;

/// From the next 11 bits of a stream to what they say.
pub type Narrow = [u16; WINDOW];
pub type Wide = [u64; WINDOW];

/// A code's tables.
pub struct Tables {
    /// Symbol (low byte) and the length of its code.
    pub narrow: Box<Narrow>,
    wide: OnceCell<Box<Wide>>,
    /// Symbols that were read with these tables.
    wanted: Cell<usize>,
}

impl Tables {
    /// Reads a code; its tables are made, or are there from another page. So many symbols are to be read with them.
    pub fn read(input: &mut Input<'_>, wanted: usize) -> Result<Rc<Self>, Flaw> {
        let description = Description::read(input)?;
        let tables = KEPT_TABLES.with_borrow_mut(|kept| kept.get(description))?;
        tables.wanted.set(tables.wanted.get().saturating_add(wanted));
        Ok(tables)
    }

    /// Up to seven symbols (low bytes first), the length of their codes (bits 56..60) and their number (above). There
    /// once it pays.
    pub fn wide(&self) -> Option<&Wide> {
        let is_worth_it = self.wide.get().is_some() || self.wanted.get() >= WIDE_WANTED_MIN;
        is_worth_it.then(|| &**self.wide.get_or_init(|| widened(&self.narrow)))
    }

    fn of(description: Description<'_>) -> Result<Self, Flaw> {
        let narrow = narrow(&description.code(), description.first)?;
        Ok(Self { narrow, wide: OnceCell::new(), wanted: Cell::new(0) })
    }
}

thread_local! {
    static KEPT_TABLES: RefCell<Kept> = RefCell::default();
}

/// Tables of codes that were met, the last used ones first.
#[derive(Default)]
struct Kept(VecDeque<KeptTables>);

struct KeptTables {
    hash: u64,
    first: u8,
    last: u8,
    nibbles: Box<[u8]>,
    tables: Rc<Tables>,
}

impl Kept {
    fn get(&mut self, description: Description<'_>) -> Result<Rc<Tables>, Flaw> {
        let Description { first, last, nibbles } = description;
        let hash = xxh3_64_with_seed(nibbles, u64::from_le_bytes([first, last, 0, 0, 0, 0, 0, 0]));
        let is_it =
            |kept: &KeptTables| kept.hash == hash && (kept.first, kept.last, &*kept.nibbles) == (first, last, nibbles);
        let known = self.0.iter().position(is_it).and_then(|at| self.0.remove(at));
        let kept = match known {
            Some(kept) => kept,
            None => {
                let tables = Rc::new(Tables::of(description)?);
                KeptTables { hash, first, last, nibbles: nibbles.into(), tables }
            }
        };
        let tables = Rc::clone(&kept.tables);
        self.0.truncate(KEPT - 1);
        self.0.push_front(kept);
        Ok(tables)
    }
}

/// A code as a page has it: least and greatest symbol, and half a byte for each from the one to the other.
#[derive(Clone, Copy)]
struct Description<'a> {
    first: u8,
    last: u8,
    nibbles: &'a [u8],
}

impl<'a> Description<'a> {
    fn read(input: &mut Input<'a>) -> Result<Self, Flaw> {
        let [first, last] = input.array()?;
        let count = usize::from(last.checked_sub(first).ok_or(Flaw("a code has no symbols"))?) + 1;
        Ok(Self { first, last, nibbles: input.take(count.div_ceil(2))? })
    }

    fn code(&self) -> Code {
        let mut code = Code { lengths: [0; 256] };
        for (at, length) in code.lengths[usize::from(self.first)..=usize::from(self.last)].iter_mut().enumerate() {
            *length = self.nibbles[at / 2] >> (at % 2 * 4) & 0xf;
        }
        code
    }
}

/// `only` is the symbol of a code that has no bits.
fn narrow(code: &Code, only: u8) -> Result<Box<Narrow>, Flaw> {
    if code.lengths.iter().all(|length| *length == 0) {
        return Ok(Box::new([u16::from(only); WINDOW]));
    }
    let share = |length: &u8| if *length == 0 { 0 } else { WINDOW.checked_shr(u32::from(*length)).unwrap_or(0) };
    let is_too_long = code.lengths.iter().any(|length| u32::from(*length) > LENGTH_MAX);
    if is_too_long || code.lengths.iter().map(share).sum::<usize>() != WINDOW {
        return Err(Flaw("the lengths of a code do not fit together"));
    }
    let codes = code.codes();
    let symbols: Vec<usize> = (0..256).filter(|symbol| code.lengths[*symbol] > 0).collect();
    let mut table = Box::new([0u16; WINDOW]);
    for length in 1..=LENGTH_MAX {
        // Windows with one more bit begin like those without it, but for those that are codes now.
        let half = 1 << (length - 1);
        table.copy_within(..half, half);
        for symbol in symbols.iter().filter(|symbol| u32::from(code.lengths[**symbol]) == length) {
            table[usize::from(codes[*symbol])] = *symbol as u16 | (length as u16) << 8;
        }
    }
    Ok(table)
}

/// One in each byte.
const ONES: u64 = 0x01_01_01_01_01_01_01_01;

/// What follows a window's first symbol is what the rest of the window says, as far as the rest's bits are known: bits
/// from beyond the window are taken for zeros there.
fn widened(narrow: &Narrow) -> Box<Wide> {
    let mut table = Box::new([0u64; WINDOW]);
    // Of each window, the bits that are used by its first symbol, by its first two and so on, a byte each.
    let mut ends = Box::new([0u64; WINDOW]);
    for window in 0..WINDOW {
        let [symbol, bits] = narrow[window].to_le_bytes();
        let rest = window >> bits;
        let (symbols, used) = if rest == window {
            // Of zeros only, or without any bits: always the same symbol.
            let each = u64::from(bits) * ONES;
            (u64::from(symbol) * ONES, (0..8).fold(0u64, |sum, place| sum.wrapping_add(each << (8 * place))))
        } else {
            let of_rest = (ends[rest] << 8).wrapping_add(u64::from(bits) * ONES);
            (table[rest] << 8 | u64::from(symbol), of_rest)
        };
        ends[window] = used;
        // Uses ascend: those of at most 11 bits are the first ones.
        let fitting = (((0x80 | u64::from(LENGTH_MAX)) * ONES).wrapping_sub(used) & (0x80 * ONES)).count_ones();
        let count = fitting.min(WIDE_SYMBOLS as u32);
        let length = used >> (8 * (count - 1)) & 0xff;
        let kept = symbols & (u64::MAX >> (8 * (8 - count)));
        table[window] = kept | length << 56 | u64::from(count) << 60;
    }
    table
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn read(description: &[u8], wanted: usize) -> Result<Rc<Tables>, Flaw> {
        Tables::read(&mut Input::new(description), wanted)
    }

    #[test]
    fn a_code_that_was_read_before_has_its_tables() {
        // Symbols 5 and 6 of one bit each; 5 to 7 of one and two bits.
        let (two, three) = ([5, 6, 0x11], [5, 7, 0x21, 0x2]);
        let first = read(&two, 1).unwrap();
        assert_eq!(first.narrow[..4], [0x105, 0x106, 0x105, 0x106]);
        assert!(first.wide().is_none());
        assert_eq!(read(&three, 1).unwrap().narrow[..4], [0x105, 0x206, 0x105, 0x207]);
        let again = read(&two, WIDE_WANTED_MIN).unwrap();
        assert!(Rc::ptr_eq(&first, &again));
        let wide = again.wide().unwrap();
        assert_eq!(wide[0b1111_0101], 7 << 60 | 7 << 56 | 0x06_06_06_05_06_05_06);
    }

    #[test]
    fn one_look_up_says_what_many_say() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for round in 0..100 {
            let mut counts = [0u32; 256];
            for _ in 0..random.random_range(1..3000) {
                counts[random.random::<f64>().powf(f64::from(round)).mul_add(255.0, 0.0) as usize] += 1;
            }
            let code = Code::of(&counts).unwrap();
            let narrow = narrow(&code, 255).unwrap();
            for (window, entry) in widened(&narrow).into_iter().enumerate() {
                let [symbols @ .., meta] = entry.to_le_bytes();
                let (mut used, mut count) = (0, 0);
                while count < WIDE_SYMBOLS {
                    let [symbol, bits] = narrow[window >> used].to_le_bytes();
                    if used + u32::from(bits) > LENGTH_MAX {
                        break;
                    }
                    assert_eq!(symbols[count], symbol, "symbol {count} of {window:#b}");
                    used += u32::from(bits);
                    count += 1;
                }
                assert_eq!((u32::from(meta & 0xf), usize::from(meta >> 4)), (used, count), "{window:#b}");
            }
        }
    }

    #[test]
    fn a_code_that_is_none_is_refused_each_time() {
        for description in [&[5, 4, 0][..], &[5], &[5, 6], &[5, 6, 0x12], &[0, 1, 0xcc]] {
            assert!(read(description, 1).is_err() && read(description, 1).is_err());
        }
    }
}
