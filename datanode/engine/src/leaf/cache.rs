//! What was found in row groups and is small: series directories, and the columns of the rows at the ends of series (the
//! last-value cache). Segments never change, so nothing here is ever out of date; whether its rows are seen is the
//! reader's question (R30). Bounded by bytes: what was not used for longest goes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use arrow::array::{Array, ArrayRef, UInt32Array};
use meridian_proto::ColumnId;
use meridian_proto::schema::Column;

use super::runs::Runs;
use crate::disk::DiskFile;
use crate::scan::Ends;
use crate::segment::SegmentReader;

/// Per shard. The last rows of 4000 series with 12 columns, in 20 row groups of 200 series: 20 x 12 x (200 x 8 bytes +
/// 120 of an array) = 0.4 MiB.
pub const LEAF_CACHE_BYTES_MAX: usize = 32 << 20;
/// Of an entry beside what it holds.
const ENTRY_BYTES: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Piece {
    Runs,
    Ends(Ends),
}

#[derive(Clone)]
enum Held {
    Runs(Rc<Runs>),
    Ends(Rc<EndRows>),
}

/// The rows at the ends of a row group's series. One entry for all of their columns: looking up each of twenty would cost
/// more than all else that is done for a row group.
pub(super) struct EndRows {
    pub rows: UInt32Array,
    /// The run of each row.
    pub run_of: UInt32Array,
    columns: Vec<(ColumnId, ArrayRef)>,
}

impl EndRows {
    pub fn new(rows: UInt32Array, runs: &Runs) -> Self {
        let run_of = runs.runs_of(rows.values().iter().map(|row| *row as usize));
        Self { rows, run_of, columns: Vec::new() }
    }

    /// `None` also when it was read as another type.
    pub fn column(&self, column: &Column) -> Option<&ArrayRef> {
        let (_, array) = self.columns.iter().find(|(id, _)| *id == column.id)?;
        (*array.data_type() == column.sql_type.arrow()).then_some(array)
    }

    pub fn with_columns(&self, added: Vec<(ColumnId, ArrayRef)>) -> Self {
        let is_replaced = |id: ColumnId| added.iter().any(|(other, _)| *other == id);
        let mut columns: Vec<_> = self.columns.iter().filter(|(id, _)| !is_replaced(*id)).cloned().collect();
        columns.extend(added);
        Self { rows: self.rows.clone(), run_of: self.run_of.clone(), columns }
    }

    fn memory_bytes(&self) -> usize {
        let numbers = self.rows.get_array_memory_size() + self.run_of.get_array_memory_size();
        numbers + self.columns.iter().map(|(_, array)| array.get_array_memory_size()).sum::<usize>()
    }
}

/// The reader's address, which no other reader can have while the entry holds its place; row group; what of it.
type Key = (usize, usize, Piece);

struct Entry<F: DiskFile> {
    reader: Weak<SegmentReader<F>>,
    held: Held,
    bytes: usize,
    /// Count of uses when this was last used.
    used: u64,
}

pub struct LeafCache<F: DiskFile> {
    entries: RefCell<HashMap<Key, Entry<F>>>,
    bytes: Cell<usize>,
    bytes_max: usize,
    uses: Cell<u64>,
}

impl<F: DiskFile> LeafCache<F> {
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { entries: RefCell::default(), bytes: Cell::new(0), bytes_max, uses: Cell::new(0) }
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    pub(super) fn runs(&self, reader: &Rc<SegmentReader<F>>, row_group: usize) -> Option<Rc<Runs>> {
        match self.get(reader, row_group, Piece::Runs)? {
            Held::Runs(runs) => Some(runs),
            Held::Ends(_) => None,
        }
    }

    pub(super) fn ends(&self, reader: &Rc<SegmentReader<F>>, row_group: usize, ends: Ends) -> Option<Rc<EndRows>> {
        match self.get(reader, row_group, Piece::Ends(ends))? {
            Held::Ends(rows) => Some(rows),
            Held::Runs(_) => None,
        }
    }

    pub(super) fn put_runs(&self, reader: &Rc<SegmentReader<F>>, row_group: usize, runs: &Rc<Runs>) {
        let bytes = runs.memory_bytes();
        self.put(reader, row_group, Piece::Runs, Held::Runs(Rc::clone(runs)), bytes);
    }

    pub(super) fn put_ends(&self, reader: &Rc<SegmentReader<F>>, row_group: usize, ends: Ends, rows: &Rc<EndRows>) {
        let bytes = rows.memory_bytes();
        self.put(reader, row_group, Piece::Ends(ends), Held::Ends(Rc::clone(rows)), bytes);
    }

    fn get(&self, reader: &Rc<SegmentReader<F>>, row_group: usize, piece: Piece) -> Option<Held> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(&key(reader, row_group, piece))?;
        entry.used = self.next_use();
        Some(entry.held.clone())
    }

    fn put(&self, reader: &Rc<SegmentReader<F>>, row_group: usize, piece: Piece, held: Held, bytes: usize) {
        let bytes = bytes + ENTRY_BYTES;
        // One that would push out half of all others is not worth it.
        if bytes > self.bytes_max / 2 {
            return;
        }
        let entry = Entry { reader: Rc::downgrade(reader), held, bytes, used: self.next_use() };
        let replaced = self.entries.borrow_mut().insert(key(reader, row_group, piece), entry);
        self.bytes.set(self.bytes.get() + bytes - replaced.map_or(0, |entry| entry.bytes));
        if self.bytes.get() > self.bytes_max {
            self.evict();
        }
    }

    fn next_use(&self) -> u64 {
        self.uses.set(self.uses.get() + 1);
        self.uses.get()
    }

    /// Down to three quarters, so that it is looked through seldom. Those of segments that are gone go first.
    fn evict(&self) {
        let mut entries = self.entries.borrow_mut();
        let mut bytes = self.bytes.get();
        entries.retain(|_, entry| {
            let is_live = entry.reader.strong_count() > 0;
            bytes -= if is_live { 0 } else { entry.bytes };
            is_live
        });
        let mut by_use: Vec<(u64, Key)> = entries.iter().map(|(key, entry)| (entry.used, *key)).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in by_use {
            if bytes <= self.bytes_max / 4 * 3 {
                break;
            }
            bytes -= entries.remove(&key).map_or(0, |entry| entry.bytes);
        }
        self.bytes.set(bytes);
    }
}

fn key<F: DiskFile>(reader: &Rc<SegmentReader<F>>, row_group: usize, piece: Piece) -> Key {
    (Rc::as_ptr(reader).addr(), row_group, piece)
}
