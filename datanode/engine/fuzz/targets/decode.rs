//! Pages and footers from libFuzzer. Needs no nightly compiler:
//!
//! ```text
//! cd datanode/engine/fuzz
//! RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
//!   -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table" \
//!   cargo run --release --bin decode -- corpus/decode -max_len=65536 -rss_limit_mb=1024
//! ```
//!
//! What it finds goes into `corpus/decode`, which the tests of the segments replay.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| meridian_engine::segment::decode_arbitrary(bytes));
