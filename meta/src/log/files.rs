//! Files that hold one record and are replaced as a whole: written beside, synced, renamed, and the folder synced, so
//! that after a power cut there is the old content or the new one.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use meridian_proto::frame;

use super::LogError;

/// Replaces the file's content by one record, durably.
///
/// # Errors
/// When a write or sync fails; the old content is then still there, or the new one is. On a full disk it is the old one.
pub fn write_whole(path: &Path, kind: u8, payload: &[u8]) -> Result<(), LogError> {
    let beside = path.with_extension("new");
    let written = write_beside(&beside, kind, payload);
    if written.as_ref().is_err_and(LogError::is_disk_full) {
        // Gives its part of the space back; what cannot be removed is overwritten by the next attempt.
        let _ = fs::remove_file(&beside);
    }
    written?;
    fs::rename(&beside, path).map_err(LogError::io("replace", path))?;
    sync_parent(path)
}

fn write_beside(beside: &Path, kind: u8, payload: &[u8]) -> Result<(), LogError> {
    let mut file = File::create(beside).map_err(LogError::writing("create", beside))?;
    file.write_all(&frame::header(kind, &[payload])).map_err(LogError::writing("write", beside))?;
    file.write_all(payload).map_err(LogError::writing("write", beside))?;
    // Of a file that is not in its place yet: unlike the log's, its content is written again as a whole.
    file.sync_all().map_err(LogError::writing("sync", beside))
}

/// The record's type and payload; `None` when there is no such file.
pub fn read_whole(path: &Path) -> Result<Option<(u8, Vec<u8>)>, LogError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io("read", path)(error)),
    };
    let record = frame::decode(&bytes).map_err(|error| LogError::damaged(path, 0, error))?;
    if record.frame_bytes() != bytes.len() {
        return Err(LogError::damaged(path, record.frame_bytes() as u64, "bytes after the record"));
    }
    Ok(Some((record.kind, record.payload.to_vec())))
}

/// Makes the names in a file's folder durable.
pub fn sync_parent(path: &Path) -> Result<(), LogError> {
    path.parent().map_or(Ok(()), sync_folder)
}

pub fn sync_folder(path: &Path) -> Result<(), LogError> {
    let folder = File::open(path).map_err(LogError::io("open", path))?;
    folder.sync_all().map_err(LogError::io("sync", path))
}
