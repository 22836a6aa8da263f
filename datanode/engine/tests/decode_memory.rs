//! Pages that claim to be large do not make a reader take more memory than is stated: the corpus of the fuzz target, with
//! lengths in it raised, decoded under an allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use meridian_engine::segment::decode_arbitrary;
use meridian_engine::segment::encoding::{DECODED_BYTES_MAX, DECODED_PARTS_MAX};

/// zstd's context and what the test itself holds.
const OTHER_BYTES: usize = 4 << 20;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, and `alloc` is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_page_takes_no_more_memory_than_is_stated() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/decode");
    let pages: Vec<Vec<u8>> =
        std::fs::read_dir(corpus).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!pages.is_empty());
    for page in pages {
        // Each four bytes of the headers in turn become a length near the limit.
        for at in 3..page.len().min(160) - 4 {
            for length in [u32::MAX, i32::MAX as u32, DECODED_BYTES_MAX as u32, DECODED_BYTES_MAX as u32 - 1] {
                let mut page = page.clone();
                page[at..at + 4].copy_from_slice(&length.to_le_bytes());
                decode_arbitrary(&page);
            }
        }
    }
    let (most, largest) = (MOST.load(Ordering::Relaxed), LARGEST.load(Ordering::Relaxed));
    assert!(largest <= DECODED_BYTES_MAX + (64 << 10), "one allocation of {largest} bytes");
    assert!(most <= DECODED_PARTS_MAX * DECODED_BYTES_MAX + OTHER_BYTES, "{most} bytes at once");
}
