//! Manifests of a chunk from libFuzzer: the shard opens, or says why not.

#![no_main]

libfuzzer_sys::fuzz_target!(
    // Panics that Arrow raises and `decode_rows` catches are refusals; those that nobody catches still end the run.
    init: std::panic::set_hook(Box::new(|_| ())),
    |bytes: &[u8]| meridian_engine::arbitrary::manifest_arbitrary(bytes)
);
