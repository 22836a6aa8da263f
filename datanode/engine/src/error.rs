//! Errors of the engine, sorted by who acts: damage and foreign folders are for the operator, the rest is the disk's.

use std::path::{Path, PathBuf};

use meridian_proto::Refusal;

use crate::disk::DiskError;

/// Why the engine could not do something. What a caller can act on travels as [`Refusal`].
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Stored bytes are not what was written.
    #[error("{} is damaged at byte {position}: {reason}", path.display())]
    Corruption { path: PathBuf, position: u64, reason: String },
    /// The folder belongs to another cluster, node or shard. Nothing in it was touched.
    #[error("{} belongs to {found}, not to {expected}", path.display())]
    Foreign { path: PathBuf, found: String, expected: String },
    /// Written by a newer release. Nothing was touched.
    #[error("{} has format version {found}; this release reads versions up to {known}", path.display())]
    NewerFormat { path: PathBuf, found: u32, known: u32 },
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Rows that cannot be put into a segment: a broken promise of ours.
    #[error("rows cannot be stored: {0}")]
    Rows(String),
    /// A segment whose rows are not sorted as its manifest says; they are as good as any, but cannot be merged as they are.
    #[error("rows of {} are not in the order that its manifest names", path.display())]
    OutOfOrder { path: PathBuf },
    /// Background work that gave way: the shard closes, or the chunk goes.
    #[error("interrupted: {0}")]
    Interrupted(&'static str),
}

impl EngineError {
    #[must_use]
    pub fn corruption(path: &Path, position: u64, reason: impl Into<String>) -> Self {
        Self::Corruption { path: path.to_owned(), position, reason: reason.into() }
    }

    /// Whether nothing but space is missing: the same may work later.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Disk(DiskError::DiskFull { .. }))
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Disk(disk) => disk.into(),
            EngineError::Rows(_) | EngineError::OutOfOrder { .. } => Self::Protocol(error.to_string()),
            EngineError::Interrupted(_) => Self::Unavailable(error.to_string()),
            EngineError::Corruption { .. } | EngineError::Foreign { .. } | EngineError::NewerFormat { .. } => {
                Self::Corruption(error.to_string())
            }
        }
    }
}

impl From<DiskError> for Refusal {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::DiskFull { .. } => Self::DiskFull(error.to_string()),
            // After a failed sync nobody knows what the disk holds; the process ends.
            DiskError::SyncFailed { .. } => Self::OutcomeUnknown(error.to_string()),
            DiskError::NotFound { .. } => Self::Corruption(error.to_string()),
            // A device that cannot read a sector answers EIO: a bad sector is damage, not absence.
            DiskError::Io { .. } => Self::Corruption(error.to_string()),
        }
    }
}
