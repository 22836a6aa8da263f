//! Footers of segments from libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| meridian_engine::arbitrary::footer_arbitrary(bytes));
