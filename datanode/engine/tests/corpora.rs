//! What fuzzing starts from and what it has found, once more: nothing may come of it but values and errors.

use std::path::Path;

use meridian_engine::arbitrary::{
    decode_arbitrary, footer_arbitrary, log_arbitrary, manifest_arbitrary, pieces_arbitrary, round_trip_arbitrary,
    rows_arbitrary, segment_arbitrary,
};

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut count = 0;
    for file in std::fs::read_dir(&corpus).unwrap() {
        let path = file.unwrap().path();
        // Named before it is run: a panic shows which one it was.
        println!("{}", path.display());
        run(&std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0, "the corpus of {target} is not in the tree");
}

#[test]
fn pages_decode_or_are_refused() {
    replay("decode", decode_arbitrary);
}

#[test]
fn columns_come_back_bit_for_bit() {
    replay("round_trip", round_trip_arbitrary);
}

#[test]
fn footers_decode_or_are_refused() {
    replay("footer", footer_arbitrary);
}

#[test]
fn pieces_decode_or_are_refused() {
    replay("pieces", pieces_arbitrary);
}

#[test]
fn files_are_read_or_refused() {
    replay("segment", segment_arbitrary);
}

#[test]
fn shards_open_with_any_log_or_say_why_not() {
    replay("log", log_arbitrary);
}

#[test]
fn shards_open_with_any_manifest_or_say_why_not() {
    replay("manifest", manifest_arbitrary);
}

#[test]
fn rows_decode_or_are_refused() {
    replay("rows", rows_arbitrary);
}
