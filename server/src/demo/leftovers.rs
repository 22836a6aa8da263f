//! Folders of demos that were killed: their nodes died with them, their files did not. A demo holds a lock in its folder
//! as long as it lives, so the next one knows which folders are nobody's.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Start of the name of a demo's folder.
pub const FOLDER_PREFIX: &str = "meridian-demo-";
const LOCK_FILE: &str = "demo.lock";
/// What a running node holds in its own folder.
const NODE_LOCK_FILE: &str = "lock";

/// Says that the folder's demo lives, until dropped or the process ends, however it ends.
pub fn hold(folder: &Path) -> io::Result<File> {
    let lock = File::create(folder.join(LOCK_FILE))?;
    lock.try_lock().map_err(io::Error::from)?;
    Ok(lock)
}

/// Removes the folders of this user's dead demos below `temporary`; answers those that are gone. What cannot be removed
/// is left to the next one.
pub fn remove(temporary: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(temporary) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(FOLDER_PREFIX));
    let mut removed = Vec::new();
    for path in folders.map(|entry| entry.path()) {
        // Held until the folder is gone: two demos that start at once do not remove one folder.
        if is_ours(&path) && take_lock(&path.join(LOCK_FILE)).is_some() && !has_live_node(&path) {
            match fs::remove_dir_all(&path) {
                Ok(()) => removed.push(path),
                Err(error) => tracing::debug!(path = %path.display(), %error, "a demo's folder stays"),
            }
        }
    }
    removed
}

/// A folder and no link to one, and nobody else's.
fn is_ours(path: &Path) -> bool {
    // SAFETY: only asks who this process is.
    let user = unsafe { libc::geteuid() };
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user)
}

/// The lock, if there is such a file and nobody holds it. A folder without it is one that is just being made.
fn take_lock(path: &Path) -> Option<File> {
    let lock = OpenOptions::new().read(true).write(true).open(path).ok()?;
    lock.try_lock().is_ok().then_some(lock)
}

fn has_live_node(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let locks = entries.flatten().map(|entry| entry.path().join(NODE_LOCK_FILE)).filter(|lock| lock.exists());
    locks.into_iter().any(|lock| take_lock(&lock).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_dead_demos_without_live_nodes_are_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = temporary.path().join(name);
            fs::create_dir_all(path.join("an1")).unwrap();
            path
        };
        let alive = make("meridian-demo-alive");
        let _held = hold(&alive).unwrap();
        let dead = make("meridian-demo-dead");
        drop(hold(&dead).unwrap());
        let orphaned = make("meridian-demo-orphaned");
        drop(hold(&orphaned).unwrap());
        let node = hold(&orphaned.join("an1")).unwrap();
        fs::rename(orphaned.join("an1").join(LOCK_FILE), orphaned.join("an1").join(NODE_LOCK_FILE)).unwrap();
        let being_made = make("meridian-demo-being-made");
        let other = make("something-else");
        drop(hold(&other).unwrap());
        std::os::unix::fs::symlink(&other, temporary.path().join("meridian-demo-link")).unwrap();

        assert_eq!(remove(temporary.path()), std::slice::from_ref(&dead));
        for stays in [&alive, &orphaned, &being_made, &other] {
            assert!(stays.join("an1").exists(), "{}", stays.display());
        }
        drop(node);
        assert_eq!(remove(temporary.path()), [orphaned]);
    }
}
