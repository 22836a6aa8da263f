//! How much room a disk has.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// What this user may still take.
    pub free_bytes: u64,
    pub used_bytes: u64,
}

impl DiskSpace {
    /// Of the disk that holds `path`.
    ///
    /// # Errors
    /// When there is no such path.
    pub fn of(path: &Path) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: all-zero is a valid value of this plain struct.
        let mut figures: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: the path ends with a NUL, and the kernel writes one statvfs, which we own.
        if unsafe { libc::statvfs(path.as_ptr(), &raw mut figures) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: only asks who this process is.
        let is_root = unsafe { libc::geteuid() } == 0;
        let free_blocks = if is_root { figures.f_bfree } else { figures.f_bavail };
        let used_blocks = figures.f_blocks.saturating_sub(figures.f_bfree);
        let block_bytes = figures.f_frsize;
        Ok(Self {
            free_bytes: free_blocks.saturating_mul(block_bytes),
            used_bytes: used_blocks.saturating_mul(block_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_says_how_much_room_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let space = DiskSpace::of(folder.path()).unwrap();
        assert!(space.free_bytes > 0 && space.free_bytes + space.used_bytes > 0);
        assert!(DiskSpace::of(&folder.path().join("no such folder")).is_err());
    }
}
