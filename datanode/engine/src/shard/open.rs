//! Open segments of a shard: files and footers, within a budget, and the cache of their pages. The one that was not used
//! for longest is closed first; it is opened again at its next use.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use super::chunk::LiveSegment;
use crate::disk::DiskFile;
use crate::segment::{PageCache, SegmentReader};

pub struct OpenSegments<F: DiskFile> {
    pub pages: Rc<PageCache>,
    bytes_max: usize,
    files_max: usize,
    opened: RefCell<Opened<F>>,
}

struct Opened<F: DiskFile> {
    /// By use, the oldest first.
    by_use: BTreeMap<u64, (Weak<LiveSegment<F>>, usize)>,
    bytes: usize,
    uses: u64,
}

impl<F: DiskFile> OpenSegments<F> {
    pub fn new(bytes_max: usize, files_max: usize, page_bytes_max: usize) -> Self {
        let opened = Opened { by_use: BTreeMap::new(), bytes: 0, uses: 0 };
        let pages = PageCache::new(page_bytes_max);
        Self { pages, bytes_max, files_max: files_max.max(1), opened: RefCell::new(opened) }
    }

    /// The segment was used, or opened with this reader. Closes others until all fit; those that are being read stay
    /// open until that is done.
    pub fn note(&self, segment: &Rc<LiveSegment<F>>, reader: &Rc<SegmentReader<F>>) {
        let mut closing = Vec::new();
        {
            let mut opened = self.opened.borrow_mut();
            let bytes = match segment.last_use.get().and_then(|last| opened.by_use.remove(&last)) {
                Some((_, bytes)) => bytes,
                None => {
                    let bytes = reader.memory_bytes();
                    opened.bytes += bytes;
                    bytes
                }
            };
            opened.uses += 1;
            let number = opened.uses;
            opened.by_use.insert(number, (Rc::downgrade(segment), bytes));
            segment.last_use.set(Some(number));
            while opened.by_use.len() > 1 && (opened.bytes > self.bytes_max || opened.by_use.len() > self.files_max) {
                let Some((_, (oldest, bytes))) = opened.by_use.pop_first() else { break };
                opened.bytes -= bytes;
                closing.push(oldest);
            }
        }
        closing.iter().filter_map(Weak::upgrade).for_each(|segment| segment.close());
    }

    /// Bytes of footers in memory, about.
    pub fn bytes(&self) -> usize {
        self.opened.borrow().bytes
    }
}
