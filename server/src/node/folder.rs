//! The data folder: created, tried, locked. One process at a time works in it.
//!
//! ```text
//! <data_dir>/lock     held by the running process, names it
//! <data_dir>/meta/    an access node's log, vote and catalog images
//! <data_dir>/data/    a data node's identity and shards
//! <data_dir>/sql/     what running statements of an access node do not hold in memory
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use meridian_datanode::identity as data_identity;
use meridian_meta::identity::{IdentityFile, Stage};
use meridian_meta::log::DiskSpace;

use crate::config::Role;
use crate::failure::Failure;

/// Far more than a start writes.
const SPACE_BYTES_MIN: u64 = 4 << 20;

/// Statements leave at least half of the space that is free at the start to the data.
const TEMPORARY_PART: u64 = 2;

/// Held until the process ends.
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Creates the folder if need be, and takes it.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(path).map_err(|error| Failure::path("create data folder", path, &error))?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|error| Failure::path("write to data folder", path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, &mut lock)),
            Err(TryLockError::Error(error)) => return Err(Failure::path("lock data folder", path, &error)),
        }
        // Better refused here than with half a start behind us.
        check_space(path)?;
        write_owner(&mut lock).map_err(|error| Failure::path("write to data folder", path, &error))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Refuses a folder that this start does not mean, before any part of it is touched: one part may be fine, and would
    /// have counted its start before the other one is looked at.
    pub fn check(&self, role: Role) -> Result<(), Failure> {
        let meta = IdentityFile::new(&self.path.join("meta")).read().map_err(Failure::failed)?;
        let data = data_identity::read(&self.data()).map_err(Failure::failed)?;
        let path = self.path.display();
        let other = match (&meta, &data) {
            (Some(meta), Some(data)) if meta.cluster != data.cluster => {
                return Err(Failure::failed(format!(
                    "data folder {path} holds an access node of cluster {} and a data node of cluster {}",
                    meta.cluster, data.cluster
                )));
            }
            (Some(meta), _) if !role.has_access() => format!("access node {}", meta.node),
            (_, Some(data)) if !role.has_data() => format!("data node {}", data.node),
            _ => return Ok(()),
        };
        let role = role.name();
        Err(Failure::failed(format!("data folder {path} belongs to {other}, this process was started as role {role}")))
    }

    /// Whether an access node has begun here, or joined.
    pub fn has_member(&self) -> Result<bool, Failure> {
        let identity = IdentityFile::new(&self.path.join("meta")).read().map_err(Failure::failed)?;
        Ok(identity.is_some_and(|identity| identity.stage == Stage::Settled))
    }

    /// The folder for what statements do not hold in memory, without what those of an earlier life left, and the bytes that
    /// they may take of its disk. The folder itself stays: it may be a mount, or a link to another disk.
    pub fn temporary_files(&self) -> Result<(PathBuf, u64), Failure> {
        let path = self.path.join("sql");
        let failed = |error: std::io::Error| Failure::path("empty folder", &path, &error);
        std::fs::create_dir_all(&path).map_err(failed)?;
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            let left = entry.path();
            let removed = if is_folder { std::fs::remove_dir_all(left) } else { std::fs::remove_file(left) };
            removed.map_err(failed)?;
        }
        let space = DiskSpace::of(&path).map_err(failed)?;
        Ok((path, space.free_bytes / TEMPORARY_PART))
    }

    /// The member makes its own folder in it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }
}

/// A start counts itself, votes, opens logs; on a disk without room for that it has not begun.
fn check_space(path: &Path) -> Result<(), Failure> {
    // A file system that does not tell is tried.
    let Ok(space) = DiskSpace::of(path) else { return Ok(()) };
    if space.free_bytes >= SPACE_BYTES_MIN {
        return Ok(());
    }
    let (path, free, needed) = (path.display(), space.free_bytes >> 10, SPACE_BYTES_MIN >> 10);
    Err(Failure::failed(format!(
        "could not start in data folder {path}: the disk is full; free some space and start again ({free} KiB are free, \
         {needed} KiB are needed)"
    )))
}

fn write_owner(lock: &mut File) -> std::io::Result<()> {
    lock.set_len(0)?;
    write!(lock, "{}", std::process::id())?;
    lock.sync_all()
}

fn in_use(path: &Path, lock: &mut File) -> Failure {
    let mut owner = String::new();
    // Only for the message; the lock is what counts.
    let _ = lock.read_to_string(&mut owner);
    let owner = owner.trim();
    let by = if owner.is_empty() { String::new() } else { format!(" by process {owner}") };
    Failure::failed(format!("data folder {} is in use{by}", path.display()))
}

#[cfg(test)]
mod tests {
    use meridian_meta::identity::Identity;
    use meridian_proto::{ClusterId, NodeId};

    use super::*;

    #[test]
    fn a_folder_in_use_is_refused_and_names_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let held = DataFolder::open(&path).unwrap();
        let refused = DataFolder::open(&path).err().unwrap().to_string();
        assert_eq!(refused, format!("data folder {} is in use by process {}", path.display(), std::process::id()));
        drop(held);
        assert!(DataFolder::open(&path).is_ok());
    }

    #[test]
    fn a_folder_of_another_role_or_of_two_clusters_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let held = DataFolder::open(folder.path()).unwrap();
        for role in [Role::All, Role::Access, Role::Data] {
            assert_eq!(held.check(role), Ok(()), "new");
        }
        let (cluster, node) = (ClusterId(7), NodeId(3));
        data_identity::Folder::lock(&held.data()).unwrap().begin(cluster, node, 1).unwrap();
        assert_eq!((held.check(Role::Data), held.check(Role::All)), (Ok(()), Ok(())));
        let refused = held.check(Role::Access).unwrap_err().to_string();
        assert!(refused.ends_with("belongs to data node 3, this process was started as role access"), "{refused}");

        std::fs::create_dir(folder.path().join("meta")).unwrap();
        let mut identity = Identity::new(cluster, NodeId(1), Stage::Settled);
        let meta = IdentityFile::new(&folder.path().join("meta"));
        meta.save(&identity).unwrap();
        assert_eq!(held.check(Role::All), Ok(()));
        let refused = held.check(Role::Data).unwrap_err().to_string();
        assert!(refused.ends_with("belongs to access node 1, this process was started as role data"), "{refused}");
        identity.cluster = ClusterId(8);
        meta.save(&identity).unwrap();
        let refused = held.check(Role::All).unwrap_err().to_string();
        assert!(refused.contains("of cluster 0000"), "{refused}");
    }
}
