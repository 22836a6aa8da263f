//! The image file: the catalog as of one entry, so that the log before it can go.
//!
//! One record; its payload is an [`ImageV1`] in rkyv's archived form, which is never changed: a later form is another
//! type under another record type.

use std::path::{Path, PathBuf};

use rkyv::rancor;
use rkyv::util::AlignedVec;

use super::encoding::{decode_members, encode_members};
use super::files::{read_whole, write_whole};
use super::{EntryId, LogError, Members};

/// Record type of [`ImageV1`], the newest.
const IMAGE_V1: u8 = 1;

/// The catalog as of one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogImage {
    /// The last entry that it covers.
    pub last: Option<EntryId>,
    /// The members that were set last, and by which entry.
    pub members_set_by: Option<EntryId>,
    pub members: Members,
    /// As `Catalog::encode` wrote it.
    pub catalog: Vec<u8>,
}

/// Positions are (term, node, index); (0, 0, 0) is none, since the first term is 1.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct ImageV1 {
    last: (u64, u64, u64),
    has_last: bool,
    members_set_by: (u64, u64, u64),
    has_members: bool,
    /// As in log entries.
    members: Vec<u8>,
    catalog: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct ImageFile {
    path: PathBuf,
}

impl ImageFile {
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join("image") }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn read(&self) -> Result<Option<CatalogImage>, LogError> {
        let Some((kind, payload)) = read_whole(&self.path)? else { return Ok(None) };
        if kind > IMAGE_V1 {
            return Err(LogError::Newer { path: self.path.clone(), found: kind.into(), known: IMAGE_V1.into() });
        }
        CatalogImage::decode(&payload).map(Some).map_err(|what| LogError::damaged(&self.path, 0, what))
    }

    /// Returns once the image is durable.
    pub fn save(&self, image: &CatalogImage) -> Result<(), LogError> {
        let bytes = image.encode().map_err(|what| LogError::damaged(&self.path, 0, what))?;
        write_whole(&self.path, IMAGE_V1, &bytes)
    }
}

impl CatalogImage {
    /// In the form that files and members exchange.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        let image = ImageV1 {
            last: raw(self.last),
            has_last: self.last.is_some(),
            members_set_by: raw(self.members_set_by),
            has_members: self.members_set_by.is_some(),
            members: encode_members(&self.members),
            catalog: self.catalog.clone(),
        };
        let bytes = rkyv::to_bytes::<rancor::Error>(&image).map_err(|error| error.to_string())?;
        Ok(bytes.into_vec())
    }

    /// Reads what [`CatalogImage::encode`] wrote; the bytes are checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut aligned: AlignedVec = AlignedVec::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        let image = rkyv::from_bytes::<ImageV1, rancor::Error>(&aligned).map_err(|error| error.to_string())?;
        Ok(Self {
            last: image.has_last.then(|| entry_id(image.last)),
            members_set_by: image.has_members.then(|| entry_id(image.members_set_by)),
            members: decode_members(&image.members).ok_or("the members are unreadable")?,
            catalog: image.catalog,
        })
    }
}

fn raw(id: Option<EntryId>) -> (u64, u64, u64) {
    id.map_or((0, 0, 0), |id| (id.term, id.node, id.index))
}

fn entry_id((term, node, index): (u64, u64, u64)) -> EntryId {
    EntryId { term, node, index }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> CatalogImage {
        let id = EntryId { term: 3, node: 1, index: 900 };
        CatalogImage {
            last: Some(id),
            members_set_by: Some(EntryId { index: 5, ..id }),
            members: Members {
                voters: vec![[1, 2, 3].into()],
                addresses: [(1, "a:1".to_owned()), (4, "b:1".to_owned())].into(),
            },
            catalog: b"nouns".to_vec(),
        }
    }

    #[test]
    fn an_image_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = ImageFile::new(folder.path());
        assert_eq!(file.read().unwrap(), None);
        file.save(&image()).unwrap();
        assert_eq!(file.read().unwrap(), Some(image()));
        file.save(&CatalogImage::default()).unwrap();
        assert_eq!(file.read().unwrap(), Some(CatalogImage::default()));
    }

    #[test]
    fn every_flipped_bit_of_an_image_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = ImageFile::new(folder.path());
        file.save(&image()).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(file.path(), damaged).unwrap();
            assert!(file.read().is_err(), "bit {bit}");
        }
    }

    #[test]
    fn random_bytes_of_a_peer_are_an_error_and_no_panic() {
        for length in 0..200 {
            let bytes: Vec<u8> = (0..length).map(|n| (n * 37 + length) as u8).collect();
            assert!(CatalogImage::decode(&bytes).is_err(), "{length}");
        }
    }
}
