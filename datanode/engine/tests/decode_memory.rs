//! Pages that claim to be large do not make a reader take more memory than is stated: the corpus of the fuzz target, with
//! lengths in it raised, decoded under an allocator that counts.

#[path = "../../../fuzz/src/lib.rs"]
mod memory;

use std::path::Path;

use meridian_engine::arbitrary::decode_arbitrary;
use meridian_engine::segment::encoding::DECODED_BYTES_MAX;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

#[test]
fn a_page_takes_no_more_memory_than_is_stated() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/decode");
    let pages: Vec<Vec<u8>> =
        std::fs::read_dir(corpus).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!pages.is_empty());
    for page in pages {
        // Each four bytes of the headers in turn become a length near the limit.
        for at in 3..page.len().min(160).saturating_sub(4) {
            for length in [u32::MAX, i32::MAX as u32, DECODED_BYTES_MAX as u32, DECODED_BYTES_MAX as u32 - 1] {
                let mut page = page.clone();
                page[at..at + 4].copy_from_slice(&length.to_le_bytes());
                decode_arbitrary(&page);
            }
        }
    }
    memory::check_bound();
}
