//! Values that clients send, as text and binary, from libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| meridian_pgtypes::arbitrary::value_arbitrary(bytes));
