//! The system's allocator, counted: what is taken at once, and by one allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use meridian_engine::segment::encoding::{DECODED_BYTES_MAX, DECODED_PARTS_MAX};

/// zstd's context and what is held beside the page.
const OTHER_BYTES: usize = 4 << 20;
/// By which one allocation may be larger: what a decoder reads past the end of the last value.
const PADDING_BYTES: usize = 64 << 10;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

pub struct Counting;

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

/// What decoding pages has taken so far is within what is stated.
pub fn check_bound() {
    let (most, largest) = (MOST.load(Ordering::Relaxed), LARGEST.load(Ordering::Relaxed));
    assert!(largest <= DECODED_BYTES_MAX + PADDING_BYTES, "one allocation of {largest} bytes");
    assert!(most <= DECODED_PARTS_MAX * DECODED_BYTES_MAX + OTHER_BYTES, "{most} bytes at once");
}
