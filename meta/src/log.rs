//! What a member keeps on disk under `meta/`: the log of entries, its vote, and the newest image of the catalog. All of
//! it is framed and checksummed, so that damage is told from absence: a torn tail of the log is cut, anything else that
//! is not what was written is an error that names file and position.
//!
//! ```text
//! meta/vote                          one record, replaced by rename
//! meta/image                         one record, replaced by rename
//! meta/log/00000000000000000001.log  records: head, entry, entry ...; the name is the index of the first entry
//! meta/reserve                       zeros: space for entries when the disk is full
//! ```

mod encoding;
mod files;
mod image;
mod reserve;
mod segment;
mod space;
mod vote;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

pub use encoding::{COMMAND_BYTES_MAX, decode_entry, encode_entry};
pub use files::{read_whole, write_whole};
pub use image::{CatalogImage, ImageFile};
pub use segment::LogFiles;
pub use space::DiskSpace;
pub use vote::VoteFile;
pub use writer::{LogStore, Opened};

/// Who proposed an entry, and where in the log it stands. Ordered as Raft compares logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId {
    pub term: u64,
    /// The leader of that term.
    pub node: u64,
    pub index: u64,
}

/// Members of the group as an entry sets them: one set of voters, or two while it changes; addresses of all members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    pub voters: Vec<BTreeSet<u64>>,
    pub addresses: BTreeMap<u64, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// What a new leader begins with.
    Blank,
    /// An encoded proposal.
    Command(Vec<u8>),
    Members(Members),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: EntryId,
    pub payload: Payload,
}

/// A promise to follow nobody older.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    pub term: u64,
    pub node: u64,
    /// Whether a quorum made that node leader.
    pub committed: bool,
}

/// Why a folder's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("could not {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// Nothing was written, and the same may be tried again when there is space.
    #[error("could not {what} {}: the disk is full; free some space", path.display())]
    Full { what: &'static str, path: PathBuf },
    /// Bytes are not what was written.
    #[error("{} is damaged at byte {position}: {what}", path.display())]
    Damaged { path: PathBuf, position: u64, what: String },
    #[error("{} has format version {found}, this program reads up to {known}", path.display())]
    Newer { path: PathBuf, found: u32, known: u32 },
}

impl LogError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }

    /// Of a write, whose failure for want of space leaves nothing behind. A sync that fails is never told so: what it
    /// left on the disk is unknown.
    fn writing(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { what, path: path.to_owned() },
            _ => Self::io(what, path)(source),
        }
    }

    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    fn damaged(path: &Path, position: u64, what: impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), position, what: what.to_string() }
    }
}
