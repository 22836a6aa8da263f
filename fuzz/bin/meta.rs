//! Entries, images, catalogs and proposals of the meta group from libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| meridian_meta::arbitrary::meta_arbitrary(bytes));
