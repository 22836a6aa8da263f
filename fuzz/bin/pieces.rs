//! Directories and statistics of pieces from libFuzzer, within the memory that is stated for pages.

#![no_main]

#[global_allocator]
static ALLOCATOR: meridian_fuzz::Counting = meridian_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    meridian_engine::arbitrary::pieces_arbitrary(bytes);
    meridian_fuzz::check_bound();
});
