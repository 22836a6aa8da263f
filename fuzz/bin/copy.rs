//! COPY data from libFuzzer, in each format and cut anywhere.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| meridian_pgtypes::arbitrary::copy_arbitrary(bytes));
