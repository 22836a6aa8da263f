//! The real disk: O_DIRECT files over io_uring. Names are changed by blocking calls on the executor's helper thread,
//! because fdatasync of a folder, all that the ring offers, does not promise to keep its names on ext4.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::io::{DmaFile, OpenOptions, ReadResult};

use super::{AlignedBuffer, BLOCK_BYTES, Disk, DiskError, DiskFile, ReadBuffer};

const PROBE_NAME: &str = ".probe";

/// The disk below one folder. Made and used inside a glommio executor.
#[derive(Clone)]
pub struct GlommioDisk(());

impl GlommioDisk {
    /// Makes the folder when it is missing and settles how the device is read.
    ///
    /// glommio asks a device once per process whether it can be polled, by reading from the first file opened on it.
    /// When that is new and empty the read succeeds with nothing, glommio concludes that polling works, and every later
    /// read fails with EOPNOTSUPP. So the first file is one with contents.
    pub async fn open(directory: &Path) -> Result<Self, DiskError> {
        let path = directory.join(PROBE_NAME);
        let probe = path.clone();
        blocking("make", directory, move || {
            fs::create_dir_all(probe.parent().unwrap_or(Path::new("/")))?;
            fs::write(&probe, [0; BLOCK_BYTES])
        })
        .await?;
        let file = DmaFile::open(&path).await.map_err(|error| DiskError::of("open", &path, os_error(error)))?;
        let read = file.read_at_aligned(0, BLOCK_BYTES).await;
        let _ = file.close().await;
        let removed = path.clone();
        blocking("remove", &path, move || fs::remove_file(removed)).await?;
        read.map_err(|error| DiskError::of("read", &path, os_error(error)))?;
        Ok(Self(()))
    }

    async fn open_with(&self, path: &Path, create: bool) -> Result<GlommioFile, DiskError> {
        let operation = if create { "create" } else { "open" };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(create)
            .dma_open(path)
            .await
            .map_err(|error| DiskError::of(operation, path, os_error(error)))?;
        Ok(GlommioFile { file, path: path.to_owned() })
    }
}

impl Disk for GlommioDisk {
    type File = GlommioFile;

    async fn create(&self, path: &Path) -> Result<GlommioFile, DiskError> {
        self.open_with(path, true).await
    }

    async fn open(&self, path: &Path) -> Result<GlommioFile, DiskError> {
        self.open_with(path, false).await
    }

    async fn rename(&self, source: &Path, target: &Path) -> Result<(), DiskError> {
        let (from, to) = (source.to_owned(), target.to_owned());
        blocking("rename", source, move || fs::rename(from, to)).await
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        let owned = path.to_owned();
        blocking("remove", path, move || fs::remove_file(owned)).await
    }

    async fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        let owned = path.to_owned();
        blocking("make", path, move || fs::create_dir_all(owned)).await
    }

    async fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        let owned = path.to_owned();
        blocking("remove", path, move || fs::remove_dir(owned)).await
    }

    async fn list(&self, path: &Path) -> Result<Vec<String>, DiskError> {
        let owned = path.to_owned();
        blocking("list", path, move || {
            let mut names = Vec::new();
            for entry in fs::read_dir(owned)? {
                // A name that is no UTF-8 is none of ours.
                if let Ok(name) = entry?.file_name().into_string() {
                    names.push(name);
                }
            }
            names.sort();
            Ok(names)
        })
        .await
    }

    async fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        let owned = path.to_owned();
        match blocking("sync", path, move || fs::File::open(owned)?.sync_all()).await {
            Err(DiskError::Io { path, source, .. }) => Err(DiskError::SyncFailed { path, source }),
            other => other,
        }
    }
}

/// Runs calls that may block on the executor's helper thread.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    path: &Path,
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DiskError> {
    let result = glommio::executor().spawn_blocking(call).await;
    result.map_err(|error| DiskError::of(operation, path, error))
}

/// The error of the operating system within; glommio's own conversion loses its number.
fn os_error(error: glommio::GlommioError<()>) -> io::Error {
    match error {
        glommio::GlommioError::IoError(source) | glommio::GlommioError::EnhancedIoError { source, .. } => source,
        other => other.into(),
    }
}

/// An open file.
pub struct GlommioFile {
    file: DmaFile,
    path: PathBuf,
}

impl GlommioFile {
    fn error(&self, operation: &'static str, error: glommio::GlommioError<()>) -> DiskError {
        DiskError::of(operation, &self.path, os_error(error))
    }

    /// Reads whole blocks; fewer bytes only where the file ends or the kernel stopped early.
    async fn read_blocks(&self, position: u64, length: usize) -> Result<ReadResult, DiskError> {
        self.file.read_at_aligned(position, length).await.map_err(|error| self.error("read", error))
    }

    /// The slow way: piece by piece until the file ends.
    async fn read_pieces(&self, start: u64, end: u64) -> Result<ReadBuffer, DiskError> {
        let mut bytes = Vec::with_capacity((end - start) as usize);
        let mut position = start;
        while position < end {
            let (block, skip) = split(position);
            let length = (end - block).next_multiple_of(BLOCK_BYTES as u64) as usize;
            let read = self.read_blocks(block, length).await?;
            let Some(fresh) = read.get(skip..).filter(|fresh| !fresh.is_empty()) else { break };
            let fresh = &fresh[..fresh.len().min((end - position) as usize)];
            bytes.extend_from_slice(fresh);
            position += fresh.len() as u64;
        }
        Ok(ReadBuffer::Heap(bytes))
    }
}

/// The block that holds a position, and the position within it.
fn split(position: u64) -> (u64, usize) {
    let skip = position % BLOCK_BYTES as u64;
    (position - skip, skip as usize)
}

impl DiskFile for GlommioFile {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn size(&self) -> Result<u64, DiskError> {
        self.file.file_size().await.map_err(|error| self.error("measure", error))
    }

    async fn write_at(&self, position: u64, buffer: AlignedBuffer) -> Result<AlignedBuffer, DiskError> {
        let shared = Rc::new(buffer.0);
        let written =
            self.file.write_rc_at(shared.clone(), position).await.map_err(|error| self.error("write", error))?;
        if written < shared.len() {
            // A short write is how a full disk begins; the rest tells the reason.
            let done = written - written % BLOCK_BYTES;
            if written == 0 {
                return Err(DiskError::DiskFull { operation: "write", path: self.path.clone() });
            }
            let rest = AlignedBuffer::of(&shared.as_bytes()[done..]);
            Box::pin(self.write_at(position + done as u64, rest)).await?;
        }
        let bytes = shared.len();
        Ok(Rc::try_unwrap(shared).map_or_else(|_| AlignedBuffer::zeroed(bytes), AlignedBuffer))
    }

    async fn read_at(&self, position: u64, length: usize) -> Result<ReadBuffer, DiskError> {
        if length == 0 {
            return Ok(ReadBuffer::Heap(Vec::new()));
        }
        let (block, skip) = split(position);
        let read = self.read_blocks(block, (skip + length).next_multiple_of(BLOCK_BYTES)).await?;
        match ReadResult::slice(&read, skip, length) {
            Some(slice) => Ok(ReadBuffer::Direct(slice)),
            None => self.read_pieces(position, position + length as u64).await,
        }
    }

    async fn sync(&self) -> Result<(), DiskError> {
        self.file
            .fdatasync()
            .await
            .map_err(|error| DiskError::SyncFailed { path: self.path.clone(), source: os_error(error) })
    }
}
