//! The data folder: created, tried, locked. One process at a time works in it.
//!
//! ```text
//! <data_dir>/lock     held by the running process, names it
//! <data_dir>/meta/    an access node's log, vote and catalog images
//! <data_dir>/data/    a data node's identity and shards
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

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
        // Also tries the disk: better refused here than with half a start behind us.
        write_owner(&mut lock).map_err(|error| Failure::path("write to data folder", path, &error))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The member makes its own folder in it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }
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
}
