//! Space put by for a full disk: a file that gives itself up piece by piece, so that the group's own few bytes (windows of
//! timestamps, votes, who lives) can be written when nothing else can. It is made whole again when there is space.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{DiskSpace, LogError};

/// An entry of a full disk is some 100 bytes, in a block that is there mostly already: enough for weeks.
const RESERVE_BYTES: u64 = 2 << 20;
/// Less than what a data node's shard wants to see before it writes again (4 MiB), so that no shard takes it.
const PIECE_BYTES: u64 = 64 << 10;

/// So much stays free for others.
pub const FREE_BYTES_MIN: u64 = 4 << 20;

#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    /// What it holds now.
    bytes: u64,
}

impl Reserve {
    /// What a process before this one has put by.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let path = folder.join("reserve");
        let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self { path, bytes }
    }

    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.bytes >= RESERVE_BYTES
    }

    /// Gives a piece back to the disk; `false` when there is none left.
    pub fn give(&mut self) -> Result<bool, LogError> {
        if self.bytes == 0 {
            return Ok(false);
        }
        let file = OpenOptions::new().write(true).open(&self.path).map_err(LogError::io("open", &self.path))?;
        let left = self.bytes.saturating_sub(PIECE_BYTES);
        file.set_len(left).map_err(LogError::io("shorten", &self.path))?;
        self.bytes = left;
        // Some file systems give the blocks back only then.
        file.sync_all().map_err(LogError::io("sync", &self.path))?;
        Ok(true)
    }

    /// Puts by what is missing, all of it or nothing. Never the last space of the disk.
    pub fn fill(&mut self) -> Result<(), LogError> {
        if self.is_whole() {
            return Ok(());
        }
        let wanted = RESERVE_BYTES - self.bytes + FREE_BYTES_MIN;
        let folder = self.path.parent().unwrap_or(&self.path);
        // A file system that does not tell is tried.
        if DiskSpace::of(folder).is_ok_and(|space| space.free_bytes < wanted) {
            return Err(LogError::Full { what: "put by", path: self.path.clone() });
        }
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path);
        let mut file = open.map_err(LogError::writing("create", &self.path))?;
        let filled = self.append(&mut file);
        match &filled {
            Ok(()) => self.bytes = RESERVE_BYTES,
            Err(_) => file.set_len(self.bytes).map_err(LogError::io("shorten", &self.path))?,
        }
        filled
    }

    fn append(&self, file: &mut File) -> Result<(), LogError> {
        let piece = vec![0; PIECE_BYTES as usize];
        file.seek(SeekFrom::Start(self.bytes)).map_err(LogError::io("open", &self.path))?;
        let mut missing = RESERVE_BYTES - self.bytes;
        while missing > 0 {
            let part = &piece[..missing.min(PIECE_BYTES) as usize];
            file.write_all(part).map_err(LogError::writing("write", &self.path))?;
            missing -= part.len() as u64;
        }
        file.sync_all().map_err(LogError::writing("sync", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_given_up_by_pieces_and_made_whole_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::open(folder.path());
        assert!(!reserve.is_whole() && !reserve.give().unwrap(), "nothing is put by yet");
        reserve.fill().unwrap();
        assert!(reserve.is_whole() && reserve.give().unwrap() && !reserve.is_whole());
        let length = || std::fs::metadata(folder.path().join("reserve")).unwrap().len();
        assert_eq!(length(), RESERVE_BYTES - PIECE_BYTES);
        let mut again = Reserve::open(folder.path());
        let pieces = (0..).take_while(|_| again.give().unwrap()).count() as u64;
        assert_eq!((pieces, length()), (RESERVE_BYTES / PIECE_BYTES - 1, 0));
        again.fill().unwrap();
        assert_eq!(length(), RESERVE_BYTES);
    }
}
