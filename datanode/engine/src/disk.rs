//! Files as the engine sees them: block-aligned direct writes, reads anywhere, explicit syncs. [`glommio`] is the real
//! disk, [`simulated`] one in memory that tears, fails and rots from a seed.
//!
//! Nothing is durable before [`DiskFile::sync`] (contents and size) and [`Disk::sync_directory`] (names) returned.

pub mod glommio;
pub mod simulated;

use std::io;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

pub use glommio::GlommioDisk;
pub use simulated::SimulatedDisk;

/// Unit of writes: positions and lengths are multiples of it. Covers devices with sectors of 512 and 4096 bytes.
pub const BLOCK_BYTES: usize = 4096;
/// Zeros written at once when a file is pre-written.
const ZERO_FILL_BYTES: usize = 1 << 20;

/// Why the disk did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("no space left on the disk: {operation} {}", path.display())]
    DiskFull { operation: &'static str, path: PathBuf },
    #[error("{} does not exist", path.display())]
    NotFound { path: PathBuf },
    /// What the disk holds is unknown from here on: pages may have been dropped, a second sync would lie. The owner of
    /// the shard ends the process.
    #[error("could not sync {}: {source}", path.display())]
    SyncFailed { path: PathBuf, source: io::Error },
    #[error("could not {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

impl DiskError {
    /// Sorts an error of the operating system.
    #[must_use]
    pub fn of(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::DiskFull { operation, path },
            Some(libc::ENOENT) => Self::NotFound { path },
            _ => Self::Io { operation, path, source },
        }
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// A folder tree on one disk. Clones are the same disk.
#[expect(async_fn_in_trait, reason = "a shard's futures stay on its thread and need not be Send")]
pub trait Disk: Clone + 'static {
    type File: DiskFile;

    /// Makes an empty file, readable and writable; an existing one is emptied.
    async fn create(&self, path: &Path) -> Result<Self::File, DiskError>;
    /// Opens an existing file, readable and writable.
    async fn open(&self, path: &Path) -> Result<Self::File, DiskError>;
    /// Replaces `target` when it exists.
    async fn rename(&self, source: &Path, target: &Path) -> Result<(), DiskError>;
    async fn remove(&self, path: &Path) -> Result<(), DiskError>;
    /// Makes a folder and those above it; not an error when it exists.
    async fn create_directory(&self, path: &Path) -> Result<(), DiskError>;
    /// Removes an empty folder.
    async fn remove_directory(&self, path: &Path) -> Result<(), DiskError>;
    /// Names in a folder, files and folders, sorted.
    async fn list(&self, path: &Path) -> Result<Vec<String>, DiskError>;
    /// Makes the names in a folder durable.
    async fn sync_directory(&self, path: &Path) -> Result<(), DiskError>;
}

/// An open file. Dropped, it is closed.
#[expect(async_fn_in_trait, reason = "a shard's futures stay on its thread and need not be Send")]
pub trait DiskFile: 'static {
    fn path(&self) -> &Path;
    async fn size(&self) -> Result<u64, DiskError>;
    /// Writes the whole buffer at a multiple of [`BLOCK_BYTES`]; gives the buffer back. Not durable before a sync.
    async fn write_at(&self, position: u64, buffer: AlignedBuffer) -> Result<AlignedBuffer, DiskError>;
    /// Reads `length` bytes from anywhere; fewer only where the file ends.
    async fn read_at(&self, position: u64, length: usize) -> Result<ReadBuffer, DiskError>;
    /// fdatasync: contents and size are durable when it returns. [`DiskError::SyncFailed`] ends the process.
    async fn sync(&self) -> Result<(), DiskError>;
}

/// Memory that direct writes accept. Its length is a multiple of [`BLOCK_BYTES`]; fresh memory is not zeroed.
pub struct AlignedBuffer(::glommio::io::DmaBuffer);

impl AlignedBuffer {
    /// At least `bytes` long, rounded up to whole blocks. Its contents are unspecified.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(::glommio::allocate_dma_buffer_global(bytes.max(1).next_multiple_of(BLOCK_BYTES)))
    }

    #[must_use]
    pub fn zeroed(bytes: usize) -> Self {
        let mut buffer = Self::new(bytes);
        buffer.fill(0);
        buffer
    }

    /// A buffer that holds `bytes`, zero-padded to whole blocks.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut buffer = Self::new(bytes.len());
        buffer[..bytes.len()].copy_from_slice(bytes);
        buffer[bytes.len()..].fill(0);
        buffer
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_bytes_mut()
    }
}

/// Bytes that were read.
pub enum ReadBuffer {
    Direct(::glommio::io::ReadResult),
    Heap(Vec<u8>),
}

impl Deref for ReadBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Direct(result) => result,
            Self::Heap(bytes) => bytes,
        }
    }
}

/// Writes zeros over `start..end` (multiples of [`BLOCK_BYTES`]), so that later writes there change no metadata of the
/// file system: an fdatasync then costs 120-200 us instead of 250 us, and does not queue behind its journal. Plain
/// fallocate would leave unwritten extents, whose conversion is such a change.
pub async fn fill_zero(file: &impl DiskFile, start: u64, end: u64) -> Result<(), DiskError> {
    let mut buffer = AlignedBuffer::zeroed(ZERO_FILL_BYTES.min(usize::try_from(end - start).unwrap_or(usize::MAX)));
    let mut position = start;
    while position < end {
        let left = usize::try_from(end - position).unwrap_or(usize::MAX);
        if left < buffer.len() {
            buffer = AlignedBuffer::zeroed(left);
        }
        position += buffer.len() as u64;
        buffer = file.write_at(position - buffer.len() as u64, buffer).await?;
    }
    Ok(())
}

/// Writes a small file so that after a power cut either the old or the new contents stand under its name.
pub async fn replace<D: Disk>(disk: &D, directory: &Path, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
    let temporary = directory.join(format!("{name}.tmp"));
    let file = disk.create(&temporary).await?;
    file.write_at(0, AlignedBuffer::of(bytes)).await?;
    // Sync before the rename: a name may never show contents that a power cut can take away.
    file.sync().await?;
    disk.rename(&temporary, &directory.join(name)).await?;
    disk.sync_directory(directory).await
}
