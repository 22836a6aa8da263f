//! Pages of a shard's segments in memory, all files together within one budget: as they are stored, their checksum
//! verified, or decoded where they are small. Reads go past the kernel's own cache, so that without this one every query
//! would wait for the disk.
//!
//! While there is room every page that was read gets in; then one only takes the place of a page that was asked for less
//! often, so that reading a large segment once leaves the others where they are (the idea of TinyLFU, ACM ToS 2017, with
//! a clock to find the page that may go). Segments never change, so nothing here is ever out of date.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::{Rc, Weak};

use xxhash_rust::xxh3::xxh3_64;

use super::pieces::{PieceColumn, Pieces};

/// Of an entry beside what it holds.
const ENTRY_BYTES: usize = 160;
/// A page that is larger than this part of all stays outside.
const LARGE_PART: usize = 8;
/// Counters of uses: 64 Ki for the 8192 pages of 16 KiB that fit into 128 MiB.
const COUNTERS: usize = 1 << 16;
const COUNTERS_PER_PAGE: u64 = 4;
const COUNT_MAX: u8 = 15;
/// All counts are halved after so many uses: what was asked for long ago is worth less.
const USES_MAX: usize = 4 * COUNTERS;

/// What is held of a page.
#[derive(Clone)]
pub enum Held {
    /// Without its checksum.
    Stored(Rc<[u8]>),
    Pieces(Rc<Pieces>),
    PieceColumn(Rc<PieceColumn>),
}

impl Held {
    fn bytes(&self) -> usize {
        match self {
            Self::Stored(page) => page.len(),
            Self::Pieces(pieces) => pieces.memory_bytes(),
            Self::PieceColumn(column) => column.memory_bytes(),
        }
    }
}

/// Of one shard.
pub struct PageCache {
    bytes_max: usize,
    bytes: Rc<Cell<usize>>,
    /// All entries, those that are gone among them, in the order in which they are looked at when one must go.
    clock: RefCell<VecDeque<Weak<Entry>>>,
    entries: Rc<Cell<usize>>,
    uses: RefCell<Uses>,
    file_next: Cell<u64>,
    hits: Cell<u64>,
    misses: Cell<u64>,
    read_ahead: Cell<u64>,
}

/// What became of requests for pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCacheFigures {
    pub bytes: u64,
    pub hits: u64,
    pub misses: u64,
    /// Pages that were there since a scan had them read before it came to them; neither hits nor misses.
    pub read_ahead: u64,
}

impl PageCache {
    #[must_use]
    pub fn new(bytes_max: usize) -> Rc<Self> {
        Rc::new(Self {
            bytes_max,
            bytes: Rc::default(),
            clock: RefCell::default(),
            entries: Rc::default(),
            uses: RefCell::new(Uses { counts: vec![0; COUNTERS], noted: 0 }),
            file_next: Cell::new(0),
            hits: Cell::new(0),
            misses: Cell::new(0),
            read_ahead: Cell::new(0),
        })
    }

    /// A place for the pages of one file. They go when it is dropped.
    #[must_use]
    pub fn file(self: &Rc<Self>) -> Rc<FilePages> {
        let number = self.file_next.replace(self.file_next.get() + 1);
        Rc::new_cyclic(|me| FilePages {
            me: Weak::clone(me),
            cache: Rc::clone(self),
            number,
            entries: RefCell::default(),
            ahead: RefCell::default(),
        })
    }

    #[must_use]
    pub fn figures(&self) -> PageCacheFigures {
        PageCacheFigures {
            bytes: self.bytes.get() as u64,
            hits: self.hits.get(),
            misses: self.misses.get(),
            read_ahead: self.read_ahead.get(),
        }
    }

    /// Whether there is room for a page, or pages that were asked for less often made some.
    fn makes_room(&self, key: u64, bytes: usize) -> bool {
        if bytes > self.bytes_max / LARGE_PART {
            return false;
        }
        while self.bytes.get() + bytes > self.bytes_max {
            let Some(oldest) = self.oldest() else { return false };
            let uses = self.uses.borrow();
            if uses.of(key) <= uses.of(oldest.key()) {
                self.clock.borrow_mut().push_back(Rc::downgrade(&oldest));
                return false;
            }
            drop(uses);
            if let Some(file) = oldest.file.upgrade() {
                file.entries.borrow_mut().remove(&oldest.offset);
            }
        }
        true
    }

    /// Takes the entry out of the clock that was not used since the hand last came by.
    fn oldest(&self) -> Option<Rc<Entry>> {
        let mut clock = self.clock.borrow_mut();
        loop {
            let Some(entry) = clock.pop_front()?.upgrade() else { continue };
            if !entry.is_used.replace(false) {
                return Some(entry);
            }
            clock.push_back(Rc::downgrade(&entry));
        }
    }

    fn remember(&self, entry: &Rc<Entry>) {
        let mut clock = self.clock.borrow_mut();
        clock.push_back(Rc::downgrade(entry));
        // Of files that are gone, entries stay here until the hand comes by, which it does not while there is room.
        if clock.len() > 2 * self.entries.get() + 64 {
            clock.retain(|entry| entry.strong_count() > 0);
        }
    }
}

/// The pages of one file, by their place in it.
pub struct FilePages {
    me: Weak<Self>,
    cache: Rc<PageCache>,
    number: u64,
    entries: RefCell<ByOffset<Rc<Entry>>>,
    /// Stored pages that a scan will ask for next, beside the cache: who had them read bounds them.
    ahead: RefCell<ByOffset<Rc<[u8]>>>,
}

type ByOffset<T> = HashMap<u64, T, BuildHasherDefault<OffsetHasher>>;

/// Multiplies by the golden ratio: offsets are no input that somebody could choose so that they collide.
#[derive(Default)]
struct OffsetHasher(u64);

impl Hasher for OffsetHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= xxh3_64(bytes);
    }

    #[inline]
    fn write_u64(&mut self, offset: u64) {
        self.0 = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl FilePages {
    pub fn get(&self, offset: u64) -> Option<Held> {
        self.cache.uses.borrow_mut().note(self.key(offset));
        let ahead = self.ahead.borrow_mut().remove(&offset);
        if let Some(page) = ahead {
            self.cache.read_ahead.set(self.cache.read_ahead.get() + 1);
            let held = Held::Stored(page);
            self.put(offset, &held);
            return Some(held);
        }
        let entries = self.entries.borrow();
        let found = entries.get(&offset);
        let count = if found.is_some() { &self.cache.hits } else { &self.cache.misses };
        count.set(count.get() + 1);
        found.map(|entry| {
            entry.is_used.set(true);
            entry.held.clone()
        })
    }

    /// Keeps it if it is worth its memory.
    pub fn put(&self, offset: u64, held: &Held) {
        let (key, bytes) = (self.key(offset), held.bytes() + ENTRY_BYTES);
        let replaced = self.entries.borrow_mut().remove(&offset);
        drop(replaced);
        if !self.cache.makes_room(key, bytes) {
            return;
        }
        let (total, entries) = (Rc::clone(&self.cache.bytes), Rc::clone(&self.cache.entries));
        total.set(total.get() + bytes);
        entries.set(entries.get() + 1);
        let (file, held, is_used) = (Weak::clone(&self.me), held.clone(), Cell::new(false));
        let entry = Rc::new(Entry { file, number: self.number, offset, held, bytes, is_used, total, entries });
        self.cache.remember(&entry);
        self.entries.borrow_mut().insert(offset, entry);
    }

    /// Whether it is there, without that counting as a use.
    pub fn has(&self, offset: u64) -> bool {
        self.entries.borrow().contains_key(&offset) || self.ahead.borrow().contains_key(&offset)
    }

    /// Holds pages, their checksums verified, until they are asked for or the result is dropped.
    #[must_use]
    pub fn hold_ahead(&self, pages: Vec<(u64, Rc<[u8]>)>) -> ReadAhead {
        let offsets = pages.iter().map(|(offset, _)| *offset).collect();
        self.ahead.borrow_mut().extend(pages);
        ReadAhead { file: Weak::clone(&self.me), offsets }
    }

    fn key(&self, offset: u64) -> u64 {
        key(self.number, offset)
    }
}

/// Pages that were read before they are asked for.
pub struct ReadAhead {
    file: Weak<FilePages>,
    offsets: Vec<u64>,
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        let Some(file) = self.file.upgrade() else { return };
        let mut ahead = file.ahead.borrow_mut();
        self.offsets.iter().for_each(|offset| _ = ahead.remove(offset));
    }
}

struct Entry {
    file: Weak<FilePages>,
    number: u64,
    offset: u64,
    held: Held,
    bytes: usize,
    /// Since the hand of the clock last came by.
    is_used: Cell<bool>,
    total: Rc<Cell<usize>>,
    entries: Rc<Cell<usize>>,
}

impl Entry {
    fn key(&self) -> u64 {
        key(self.number, self.offset)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.bytes);
        self.entries.set(self.entries.get() - 1);
    }
}

/// Page and file as one well mixed number.
fn key(number: u64, offset: u64) -> u64 {
    let mixed = (number << 40 ^ offset ^ 1 << 63).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// How often pages were asked for lately, about: pages share counters, so that a count may be too high, never too low.
struct Uses {
    counts: Vec<u8>,
    noted: usize,
}

impl Uses {
    fn note(&mut self, key: u64) {
        // Only the least ones are sure to be this page's alone.
        let count = self.of(key);
        for at in places(key) {
            if self.counts[at] == count {
                self.counts[at] = (count + 1).min(COUNT_MAX);
            }
        }
        self.noted += 1;
        if self.noted == USES_MAX {
            self.noted = 0;
            self.counts.iter_mut().for_each(|count| *count /= 2);
        }
    }

    fn of(&self, key: u64) -> u8 {
        places(key).map(|at| self.counts[at]).min().unwrap_or(0)
    }
}

fn places(key: u64) -> impl Iterator<Item = usize> {
    (0..COUNTERS_PER_PAGE).map(move |n| (key >> (16 * n)) as usize % COUNTERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_BYTES: usize = 1000;

    fn page() -> Held {
        Held::Stored(vec![7; PAGE_BYTES].into())
    }

    /// Asks for a page, and reads it when it is not there; whether it was.
    fn ask(file: &FilePages, number: u64) -> bool {
        let is_there = file.get(number).is_some();
        if !is_there {
            file.put(number, &page());
        }
        is_there
    }

    fn cache_of(pages: usize) -> Rc<PageCache> {
        PageCache::new(pages * (PAGE_BYTES + ENTRY_BYTES))
    }

    #[test]
    fn what_is_asked_for_again_stays_while_a_long_scan_goes_by() {
        let cache = cache_of(100);
        let (hot, long) = (cache.file(), cache.file());
        for _ in 0..2 {
            (0..80).for_each(|number| _ = ask(&hot, number));
        }
        (0..10_000).for_each(|number| _ = ask(&long, number));
        assert!((0..80).all(|number| ask(&hot, number)), "a scan washed out a page in use");
        assert!(cache.figures().bytes <= 100 * (PAGE_BYTES + ENTRY_BYTES) as u64);
    }

    #[test]
    fn new_favourites_take_the_place_of_old_ones() {
        let cache = cache_of(100);
        let (old, new) = (cache.file(), cache.file());
        for _ in 0..5 {
            (0..100).for_each(|number| _ = ask(&old, number));
        }
        for _ in 0..10 {
            (0..100).for_each(|number| _ = ask(&new, number));
        }
        let found = (0..100).filter(|number| ask(&new, *number)).count();
        assert!(found > 90, "{found} of 100 pages that are asked for all the time");
    }

    #[test]
    fn a_file_that_is_gone_takes_its_pages_along() {
        let cache = cache_of(100);
        let kept = cache.file();
        ask(&kept, 1);
        for _ in 0..1000 {
            let file = cache.file();
            (0..50).for_each(|number| _ = ask(&file, number));
        }
        assert_eq!(cache.figures().bytes, (PAGE_BYTES + ENTRY_BYTES) as u64);
        assert!(cache.clock.borrow().len() < 300, "entries of files that are gone are forgotten");
        assert!(ask(&kept, 1));
    }

    #[test]
    fn pages_read_ahead_are_there_until_they_are_asked_for_or_given_up() {
        // The cache itself has no room.
        let file = cache_of(0).file();
        let page: Rc<[u8]> = vec![7; PAGE_BYTES].into();
        let ahead = file.hold_ahead(vec![(1, Rc::clone(&page)), (2, Rc::clone(&page))]);
        assert!(file.has(1) && file.has(2));
        assert!(matches!(file.get(1), Some(Held::Stored(held)) if held == page));
        assert!(file.get(1).is_none(), "asked for");
        drop(ahead);
        assert!(file.get(2).is_none(), "given up");
        let figures = file.cache.figures();
        assert_eq!((figures.read_ahead, figures.hits, figures.misses), (1, 0, 2));
    }

    #[test]
    fn a_page_that_is_too_large_stays_outside_and_the_same_one_is_held_once() {
        let cache = cache_of(16);
        let file = cache.file();
        file.put(1, &Held::Stored(vec![0; 4 * PAGE_BYTES].into()));
        assert!(file.get(1).is_none());
        file.put(2, &page());
        file.put(2, &page());
        let figures = cache.figures();
        assert_eq!((figures.bytes, figures.misses), ((PAGE_BYTES + ENTRY_BYTES) as u64, 1));
    }
}
