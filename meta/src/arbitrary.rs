//! Bytes from anywhere as what members keep and send: what fuzzing (`fuzz/`) and the replay of its corpus call. Nothing may
//! come of them but values, refusals or errors.

use crate::catalog::{Catalog, Proposal};
use crate::log::{CatalogImage, decode_entry, encode_entry};

/// Byte 0 says as what the rest is read: an entry of the log, an image of its file, a catalog in it, or proposals, each
/// behind its length (2 bytes, little endian), which are applied one after the other.
pub fn meta_arbitrary(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind {
        0 => {
            if let Some(entry) = decode_entry(rest) {
                assert_eq!(decode_entry(&encode_entry(&entry)), Some(entry), "an entry is read as it was written");
            }
        }
        1 => {
            if let Ok(image) = CatalogImage::decode(rest) {
                let encoded = image.encode().expect("what was read is written");
                assert_eq!(CatalogImage::decode(&encoded), Ok(image), "an image is read as it was written");
            }
        }
        2 => {
            if let Ok(catalog) = Catalog::decode(rest) {
                check_catalog(&catalog);
            }
        }
        _ => apply(rest),
    }
}

fn check_catalog(catalog: &Catalog) {
    assert_eq!(catalog.validate(), Ok(()), "a catalog keeps its promises");
    let again = Catalog::decode(&catalog.encode()).expect("what was written is read");
    assert!(again.encode() == catalog.encode(), "a catalog is read as it was written");
}

fn apply(bytes: &[u8]) {
    let (mut catalog, mut index, mut left) = (Catalog::default(), 0, bytes);
    while let Some((length, rest)) = left.split_first_chunk::<2>() {
        let (proposal, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        left = rest;
        index += 1;
        if let Some(proposal) = Proposal::decode(proposal) {
            let _ = catalog.apply_proposal(index, proposal);
        }
    }
    check_catalog(&catalog);
}
