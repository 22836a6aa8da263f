//! Pages and pieces that claim to be large do not make a reader take more memory than is stated: the corpora of the fuzz
//! targets, with lengths in them raised, decoded under an allocator that counts.

#[path = "../../../fuzz/src/lib.rs"]
mod memory;

use std::path::Path;
use std::sync::Mutex;

use meridian_engine::arbitrary::{decode_arbitrary, pieces_arbitrary};
use meridian_engine::segment::encoding::DECODED_BYTES_MAX;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// What is counted is one test's.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs the corpus of a target with each four bytes of the headers in turn raised to a length near the limit.
fn check(target: &str, run: fn(&[u8])) {
    let _alone = ALONE.lock();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let inputs: Vec<Vec<u8>> =
        std::fs::read_dir(corpus).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!inputs.is_empty());
    for input in inputs {
        for at in 3..input.len().min(160).saturating_sub(4) {
            for length in [u32::MAX, i32::MAX as u32, DECODED_BYTES_MAX as u32, DECODED_BYTES_MAX as u32 - 1] {
                let mut input = input.clone();
                input[at..at + 4].copy_from_slice(&length.to_le_bytes());
                run(&input);
            }
        }
    }
    memory::check_bound();
}

#[test]
fn a_page_takes_no_more_memory_than_is_stated() {
    check("decode", decode_arbitrary);
}

#[test]
fn pieces_take_no_more_memory_than_is_stated_for_pages() {
    check("pieces", pieces_arbitrary);
}
