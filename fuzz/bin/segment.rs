//! Whole segment files from libFuzzer, with checksums that fit: rows, or what is wrong.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| meridian_engine::arbitrary::segment_arbitrary(bytes));
