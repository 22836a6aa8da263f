//! Pages of every encoding and type from libFuzzer: values or an error, within the memory that is stated.

#![no_main]

#[global_allocator]
static ALLOCATOR: meridian_fuzz::Counting = meridian_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    meridian_engine::arbitrary::decode_arbitrary(bytes);
    meridian_fuzz::check_bound();
});
