//! Whose data folder this is. The file `identity` says so, and every start writes the incarnation that it begins; the
//! file `lock` is held while a process uses the folder.
//!
//! `identity` is one record of `meridian_proto::frame`, replaced as a whole:
//!
//! ```text
//! offset  size  field
//!      0    16  frame header, record type 1
//!     16     4  format version of the folder, little endian as all that follows
//!     20    16  cluster id
//!     36     8  node id
//!     44     8  incarnation
//!     52     2  shards
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use meridian_proto::frame::{self, FrameError};
use meridian_proto::{ClusterId, Incarnation, NodeId};

/// Version of the folder's layout. A newer one is refused by name.
pub const FORMAT_VERSION: u32 = 1;

const IDENTITY_FILE: &str = "identity";
const IDENTITY_FILE_NEW: &str = "identity.new";
const LOCK_FILE: &str = "lock";
const RECORD_TYPE: u8 = 1;
const PAYLOAD_BYTES: usize = 38;

/// What a data folder says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// Of the process that uses the folder now.
    pub incarnation: Incarnation,
    /// Shards that the folder's files are spread over. Stays what it was made with: another core count does not move
    /// chunks between shards.
    pub shards: u16,
}

/// Why a folder cannot be used. Nothing in it was touched.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("data folder {} is in use by another process", .0.display())]
    InUse(PathBuf),
    #[error("data folder {} belongs to cluster {found}, not to {expected}", path.display())]
    OtherCluster { path: PathBuf, found: ClusterId, expected: ClusterId },
    #[error("data folder {} belongs to node {found}, not to node {expected}", path.display())]
    OtherNode { path: PathBuf, found: NodeId, expected: NodeId },
    #[error(
        "data folder {} has format version {found}; this release reads versions up to {FORMAT_VERSION}",
        path.display()
    )]
    NewerFormat { path: PathBuf, found: u32 },
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("data folder {} holds data but no file `{IDENTITY_FILE}`", .0.display())]
    Missing(PathBuf),
    #[error("could not {action} {}: {error}", path.display())]
    Io { action: &'static str, path: PathBuf, error: io::Error },
    #[error("could not {action} {}: the disk is full; free some space", path.display())]
    Full { action: &'static str, path: PathBuf },
}

/// A data folder that this process holds alone, until dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    // Locked; the lock ends with the process, however it ends.
    _lock: File,
}

impl Folder {
    /// Makes the folder if there is none, and locks it.
    pub fn lock(path: &Path) -> Result<Self, IdentityError> {
        fs::create_dir_all(path).map_err(io_error("create", path))?;
        let lock_path = path.join(LOCK_FILE);
        let options = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = options.map_err(io_error("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(IdentityError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(io_error("lock", &lock_path)(error)),
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the folder says about itself, or `None` for a new one.
    pub fn read(&self) -> Result<Option<Identity>, IdentityError> {
        read(&self.path)
    }

    /// As [`Self::read`], and refuses a folder of another cluster or node.
    pub fn check(&self, cluster: ClusterId, node: NodeId) -> Result<Option<Identity>, IdentityError> {
        let Some(found) = self.read()? else { return Ok(None) };
        let path = || self.path.clone();
        if found.cluster != cluster {
            return Err(IdentityError::OtherCluster { path: path(), found: found.cluster, expected: cluster });
        }
        if found.node != node {
            return Err(IdentityError::OtherNode { path: path(), found: found.node, expected: node });
        }
        Ok(Some(found))
    }

    /// Begins a new incarnation of `node`: refuses a folder of another one, else counts up, durably (R3).
    ///
    /// `shards` counts for a new folder only.
    pub fn begin(&self, cluster: ClusterId, node: NodeId, shards: u16) -> Result<Identity, IdentityError> {
        let new = Identity { cluster, node, incarnation: Incarnation(0), shards };
        let found = self.check(cluster, node)?.unwrap_or(new);
        let next = Identity { incarnation: Incarnation(found.incarnation.0 + 1), ..found };
        self.write(&next)?;
        Ok(next)
    }

    fn write(&self, identity: &Identity) -> Result<(), IdentityError> {
        let (new, path) = (self.path.join(IDENTITY_FILE_NEW), self.path.join(IDENTITY_FILE));
        let mut file = File::create(&new).map_err(io_error("create", &new))?;
        file.write_all(&encode(identity)).and_then(|()| file.sync_all()).map_err(io_error("write", &new))?;
        fs::rename(&new, &path).map_err(io_error("replace", &path))?;
        // Else a power cut brings the former incarnation back, and two lives would share one.
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(io_error("sync", &self.path))
    }
}

/// What a folder says about itself, or `None` for one that is new or not there. Touches nothing.
pub fn read(folder: &Path) -> Result<Option<Identity>, IdentityError> {
    let path = folder.join(IDENTITY_FILE);
    match fs::read(&path) {
        Ok(bytes) => decode(&path, folder, &bytes).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => check_empty(folder).map(|()| None),
        Err(error) => Err(io_error("read", &path)(error)),
    }
}

/// A folder without identity is new only when it holds nothing of ours; else the file was lost.
fn check_empty(folder: &Path) -> Result<(), IdentityError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("read", folder)(error)),
    };
    for entry in entries {
        let name = entry.map_err(io_error("read", folder))?.file_name();
        if name != LOCK_FILE && name != IDENTITY_FILE_NEW && name != "lost+found" {
            return Err(IdentityError::Missing(folder.to_owned()));
        }
    }
    Ok(())
}

fn encode(identity: &Identity) -> Vec<u8> {
    let mut payload = Vec::with_capacity(PAYLOAD_BYTES);
    payload.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    payload.extend_from_slice(&identity.cluster.0.to_le_bytes());
    payload.extend_from_slice(&identity.node.0.to_le_bytes());
    payload.extend_from_slice(&identity.incarnation.0.to_le_bytes());
    payload.extend_from_slice(&identity.shards.to_le_bytes());
    let mut bytes = Vec::new();
    frame::encode(RECORD_TYPE, &payload, &mut bytes);
    bytes
}

fn decode(path: &Path, folder: &Path, bytes: &[u8]) -> Result<Identity, IdentityError> {
    let damaged = |reason: String| IdentityError::Damaged { path: path.to_owned(), reason };
    let record = frame::decode(bytes).map_err(|error: FrameError| damaged(error.to_string()))?;
    if record.kind != RECORD_TYPE {
        return Err(damaged(format!("record type {}", record.kind)));
    }
    let Some((version, rest)) = record.payload.split_first_chunk::<4>() else {
        return Err(damaged("too short".to_owned()));
    };
    // Before anything else is read: a newer release may have laid out the rest in another way.
    let version = u32::from_le_bytes(*version);
    if version > FORMAT_VERSION {
        return Err(IdentityError::NewerFormat { path: folder.to_owned(), found: version });
    }
    let Ok(rest) = <[u8; PAYLOAD_BYTES - 4]>::try_from(rest) else {
        return Err(damaged(format!("{} bytes of payload", record.payload.len())));
    };
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| rest[at + index]));
    let identity = Identity {
        cluster: ClusterId(u128::from(word(8)) << 64 | u128::from(word(0))),
        node: NodeId(word(16)),
        incarnation: Incarnation(word(24)),
        shards: u16::from_le_bytes([rest[32], rest[33]]),
    };
    if identity.shards == 0 {
        return Err(damaged("no shards".to_owned()));
    }
    Ok(identity)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |error| match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => IdentityError::Full { action, path },
        _ => IdentityError::Io { action, path, error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
    const NODE: NodeId = NodeId(7);

    #[test]
    fn each_start_counts_a_new_incarnation_and_keeps_the_shards() {
        let folder = tempfile::tempdir().unwrap();
        let first = Folder::lock(folder.path()).unwrap().begin(CLUSTER, NODE, 4).unwrap();
        assert_eq!(first, Identity { cluster: CLUSTER, node: NODE, incarnation: Incarnation(1), shards: 4 });
        let second = Folder::lock(folder.path()).unwrap().begin(CLUSTER, NODE, 2).unwrap();
        assert_eq!(second, Identity { incarnation: Incarnation(2), ..first });
    }

    #[test]
    fn a_folder_is_used_by_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::lock(folder.path()).unwrap();
        assert!(matches!(Folder::lock(folder.path()), Err(IdentityError::InUse(_))));
        drop(held);
        assert!(Folder::lock(folder.path()).is_ok());
    }

    #[test]
    fn a_foreign_folder_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::lock(folder.path()).unwrap();
        held.begin(CLUSTER, NODE, 4).unwrap();
        let refusal = held.begin(ClusterId(1), NODE, 4).unwrap_err().to_string();
        assert!(refusal.contains("belongs to cluster 0123456789abcdef0011223344556677"), "{refusal}");
        let refusal = held.begin(CLUSTER, NodeId(8), 4).unwrap_err().to_string();
        assert!(refusal.contains("belongs to node 7, not to node 8"), "{refusal}");
        assert!(held.check(CLUSTER, NodeId(8)).is_err() && held.check(CLUSTER, NODE).is_ok());
        assert_eq!(held.read().unwrap().unwrap().incarnation, Incarnation(1), "untouched");
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::lock(folder.path()).unwrap();
        let mut bytes = Vec::new();
        frame::encode(RECORD_TYPE, &[9, 0, 0, 0, 1, 2, 3], &mut bytes);
        fs::write(folder.path().join(IDENTITY_FILE), bytes).unwrap();
        let refusal = held.read().unwrap_err().to_string();
        assert!(refusal.ends_with("has format version 9; this release reads versions up to 1"), "{refusal}");
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::lock(folder.path()).unwrap();
        held.begin(CLUSTER, NODE, 4).unwrap();
        let path = folder.path().join(IDENTITY_FILE);
        let bytes = fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, damaged).unwrap();
            assert!(matches!(held.read(), Err(IdentityError::Damaged { .. })), "bit {bit}");
        }
        fs::write(&path, &bytes[..20]).unwrap();
        assert!(matches!(held.read(), Err(IdentityError::Damaged { .. })));
    }

    #[test]
    fn a_lost_identity_is_told_from_a_new_folder() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::lock(folder.path()).unwrap();
        assert_eq!(held.read().unwrap(), None);
        assert_eq!(read(&folder.path().join("not there")).unwrap(), None);
        fs::create_dir(folder.path().join("shard-0")).unwrap();
        assert!(matches!(held.read(), Err(IdentityError::Missing(_))));
    }
}
