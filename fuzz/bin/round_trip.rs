//! Columns that libFuzzer describes: encoded and decoded they are the same, bit for bit.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| meridian_engine::arbitrary::round_trip_arbitrary(bytes));
