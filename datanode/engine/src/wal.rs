//! The log of a shard: what is in it and synced survives. Group commit: all records that wait go into one batch, one
//! write, one fdatasync. Files are written full of zeros before their first use and used again when every record in
//! them is in a segment or manifest, because an fdatasync over written blocks changes no metadata of the file system.
//!
//! One batch is in flight at a time; [`recovery`] depends on it.

pub mod batch;
pub mod header;
pub mod recovery;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use futures::lock::Mutex;

use self::batch::{KIND_MARK, KIND_START, Part};
use self::header::HEADER_BYTES;
use self::recovery::{FileState, Listed};
use crate::disk::{self, AlignedBuffer, Disk, DiskFile};
use crate::error::EngineError;
use crate::layout;
use crate::record::LogRecord;

pub use header::Owner;
pub use recovery::{Cut, WalReport};

/// Files kept ready for use beside the one in use.
const READY_FILES_MAX: usize = 2;

#[derive(Clone, Debug)]
pub struct WalOptions {
    pub directory: PathBuf,
    pub owner: Owner,
    /// Size of a file; a batch that is longer makes its file longer.
    pub file_bytes: u64,
}

/// A record with the rows that belong to it, as on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalEntry {
    pub record: LogRecord,
    pub rows: Bytes,
}

impl WalEntry {
    #[must_use]
    pub fn part(&self) -> Part {
        Part { kind: self.record.kind(), head: self.record.encode(), rows: self.rows.clone() }
    }
}

pub struct Wal<D: Disk> {
    disk: D,
    options: WalOptions,
    active: RefCell<Option<Rc<Active<D>>>>,
    ready: RefCell<VecDeque<Ready<D>>>,
    /// Files that have their name but no header yet, with their sizes: a failed write left them, and without them there
    /// would be a gap between the files.
    unfinished: RefCell<VecDeque<(u64, u64)>>,
    /// Files with records, the active one included, with their sizes.
    begun: RefCell<BTreeMap<u64, u64>>,
    sequence_next: Cell<u64>,
    /// Held while a file is made, renamed or removed.
    shape: Mutex<()>,
}

struct Ready<D: Disk> {
    sequence: u64,
    file: D::File,
    bytes: u64,
}

/// The file that batches go to.
struct Active<D: Disk> {
    sequence: u64,
    file: D::File,
    bytes: Cell<u64>,
    /// Where the next batch goes.
    position: Cell<u64>,
    /// End of the file before this one.
    previous_end: u64,
}

impl<D: Disk> Wal<D> {
    /// Opens the log, or makes it, and hands every record that counts to `visit` in order, with its file's sequence.
    pub async fn open(
        disk: &D,
        options: &WalOptions,
        visit: impl FnMut(u64, WalEntry) -> Result<(), EngineError>,
    ) -> Result<(Self, WalReport), EngineError> {
        disk.create_directory(&options.directory).await?;
        if let Some(parent) = options.directory.parent() {
            disk.sync_directory(parent).await?;
        }
        let (wal, report) = recovery::recover(disk, options, visit).await?;
        match wal.make_ready().await {
            // What is there can be read; whoever writes will be told.
            Err(error) if error.is_disk_full() => {}
            made => made?,
        }
        Ok((wal, report))
    }

    /// Takes over what recovery found; `ends` says where each file's next batch goes.
    async fn resume(disk: D, options: WalOptions, files: Vec<Listed>, ends: &[u64]) -> Result<Self, EngineError> {
        let wal = Self {
            disk,
            options,
            active: RefCell::new(None),
            ready: RefCell::new(VecDeque::new()),
            unfinished: RefCell::default(),
            begun: RefCell::new(BTreeMap::new()),
            sequence_next: Cell::new(files.last().map_or(1, |file| file.sequence + 1)),
            shape: Mutex::new(()),
        };
        let mut last_end = 0;
        for (listed, end) in files.into_iter().zip(ends) {
            let file = wal.disk.open(&listed.path).await?;
            match listed.state {
                FileState::Begun { previous_end } => {
                    wal.begun.borrow_mut().insert(listed.sequence, listed.bytes);
                    // Unknown when the first batch was torn: it is written again, and says it then.
                    let previous_end = previous_end.unwrap_or(last_end);
                    wal.activate(Ready { sequence: listed.sequence, file, bytes: listed.bytes }, *end, previous_end);
                    last_end = *end;
                }
                FileState::Ready => {
                    let ready = Ready { sequence: listed.sequence, file, bytes: listed.bytes };
                    wal.ready.borrow_mut().push_back(ready);
                }
                FileState::Raw => {
                    wal.write_header(&file, listed.sequence).await?;
                    let ready = Ready { sequence: listed.sequence, file, bytes: listed.bytes };
                    wal.ready.borrow_mut().push_back(ready);
                }
            }
        }
        Ok(wal)
    }

    /// Writes the records as one batch; when it returns they are durable. Returns the sequence of the file they are in.
    /// After an error none of them is in the log, but for a failed sync, after which nobody knows: the process ends.
    pub async fn commit(&self, entries: &[WalEntry]) -> Result<u64, EngineError> {
        self.commit_parts(entries.iter().map(WalEntry::part).collect()).await
    }

    /// Writes a record that says, by its place, that everything before it was synced: if the last batch before a quiet
    /// time rots, it is then told from a torn one.
    pub async fn mark(&self) -> Result<(), EngineError> {
        self.commit_parts(vec![Part { kind: KIND_MARK, head: Vec::new(), rows: Bytes::new() }]).await.map(drop)
    }

    async fn commit_parts(&self, mut parts: Vec<Part>) -> Result<u64, EngineError> {
        let active = self.room_for(batch::batch_bytes(&parts)).await?;
        let start = active.position.get();
        if start == HEADER_BYTES as u64 {
            // A batch that failed here has left nothing that counts, so the file begins again.
            parts.insert(0, start_part(active.previous_end));
        }
        let batch_start = u32::try_from(start).expect("a file is shorter than 4 GiB");
        let buffer = batch::encode(active.sequence, batch_start, &parts);
        let end = start + buffer.len() as u64;
        active.file.write_at(start, buffer).await?;
        active.file.sync().await?;
        active.position.set(end);
        active.bytes.set(active.bytes.get().max(end));
        self.begun.borrow_mut().insert(active.sequence, active.bytes.get());
        Ok(active.sequence)
    }

    /// Whether the records fit without a new file.
    #[must_use]
    pub fn has_room(&self, entries: &[WalEntry]) -> bool {
        let bytes = batch::batch_bytes(&entries.iter().map(WalEntry::part).collect::<Vec<_>>()) as u64;
        let active = self.active.borrow();
        let fits = active.as_ref().is_some_and(|active| active.position.get() + bytes <= active.bytes.get());
        fits || !self.ready.borrow().is_empty()
    }

    /// The file that a batch of this size goes to: the active one, unless it is begun and too full.
    async fn room_for(&self, batch_bytes: usize) -> Result<Rc<Active<D>>, EngineError> {
        let active = self.active.borrow().clone();
        match active {
            Some(active)
                if active.position.get() == HEADER_BYTES as u64
                    || active.position.get() + batch_bytes as u64 <= active.bytes.get() =>
            {
                Ok(active)
            }
            _ => self.switch().await,
        }
    }

    /// Makes the next ready file the active one.
    async fn switch(&self) -> Result<Rc<Active<D>>, EngineError> {
        loop {
            let next = self.ready.borrow_mut().pop_front();
            if let Some(ready) = next {
                let previous_end = self.active.borrow().as_ref().map_or(0, |active| active.position.get());
                return Ok(self.activate(ready, HEADER_BYTES as u64, previous_end));
            }
            self.make_ready().await?;
        }
    }

    fn activate(&self, ready: Ready<D>, position: u64, previous_end: u64) -> Rc<Active<D>> {
        let active = Rc::new(Active {
            sequence: ready.sequence,
            file: ready.file,
            bytes: Cell::new(ready.bytes),
            position: Cell::new(position),
            previous_end,
        });
        *self.active.borrow_mut() = Some(Rc::clone(&active));
        active
    }

    /// Sees to it that a file is ready for when the active one is full. To be called after each switch.
    pub async fn make_ready(&self) -> Result<(), EngineError> {
        let _shape = self.shape.lock().await;
        self.finish_files().await?;
        if !self.ready.borrow().is_empty() {
            return Ok(());
        }
        let sequence = self.sequence_next.get();
        let path = self.options.directory.join(layout::wal_name(sequence));
        let temporary = path.with_extension("wal.tmp");
        let made = self.create_zeroed(sequence, &temporary).await;
        if made.is_err() {
            // Gives the space back; what is left of the file is worth nothing.
            let _ = self.disk.remove(&temporary).await;
        }
        made?;
        self.disk.rename(&temporary, &path).await?;
        self.disk.sync_directory(&self.options.directory).await?;
        self.sequence_next.set(sequence + 1);
        self.unfinished.borrow_mut().push_back((sequence, self.options.file_bytes));
        self.finish_files().await
    }

    /// Makes files ready that have their name already, in order. `shape` is held.
    async fn finish_files(&self) -> Result<(), EngineError> {
        loop {
            let next = self.unfinished.borrow().front().copied();
            let Some((sequence, bytes)) = next else { return Ok(()) };
            let file = self.disk.open(&self.options.directory.join(layout::wal_name(sequence))).await?;
            self.write_header(&file, sequence).await?;
            self.unfinished.borrow_mut().pop_front();
            self.ready.borrow_mut().push_back(Ready { sequence, file, bytes });
        }
    }

    async fn create_zeroed(&self, sequence: u64, path: &std::path::Path) -> Result<(), EngineError> {
        let file = self.disk.create(path).await?;
        disk::fill_zero(&file, HEADER_BYTES as u64, self.options.file_bytes).await?;
        self.write_header(&file, sequence).await
    }

    async fn write_header(&self, file: &D::File, sequence: u64) -> Result<(), EngineError> {
        let block = AlignedBuffer::of(&header::encode(self.options.owner, sequence));
        file.write_at(0, block).await?;
        file.sync().await?;
        Ok(())
    }

    /// Lets go of all files before this sequence: none of their records is needed any more. Some are used again.
    pub async fn release_before(&self, sequence: u64) -> Result<(), EngineError> {
        // The active file as of now, when the caller looked at what is needed: while files are let go, records come into
        // force in it, and it may be full and no longer the active one before the end of this.
        let active = self.active.borrow().as_ref().map_or(0, |active| active.sequence);
        let before = sequence.min(active);
        let _shape = self.shape.lock().await;
        loop {
            let oldest = self.begun.borrow().first_key_value().map(|(oldest, bytes)| (*oldest, *bytes));
            let Some((oldest, bytes)) = oldest.filter(|(oldest, _)| *oldest < before) else {
                return Ok(());
            };
            if self.ready.borrow().len() < READY_FILES_MAX && bytes == self.options.file_bytes {
                self.recycle(oldest, bytes).await?;
            } else {
                self.disk.remove(&self.options.directory.join(layout::wal_name(oldest))).await?;
                // One by one, oldest first: a gap in the middle would look like a lost file.
                self.disk.sync_directory(&self.options.directory).await?;
                self.begun.borrow_mut().remove(&oldest);
            }
        }
    }

    /// Gives an old file a new name, then a new header. Its old records carry the old sequence and count no more.
    async fn recycle(&self, oldest: u64, bytes: u64) -> Result<(), EngineError> {
        let sequence = self.sequence_next.get();
        let path = self.options.directory.join(layout::wal_name(sequence));
        self.disk.rename(&self.options.directory.join(layout::wal_name(oldest)), &path).await?;
        self.begun.borrow_mut().remove(&oldest);
        self.sequence_next.set(sequence + 1);
        self.disk.sync_directory(&self.options.directory).await?;
        self.unfinished.borrow_mut().push_back((sequence, bytes));
        self.finish_files().await
    }

    /// Whether the next switch would have to wait for a file to be made.
    #[must_use]
    pub fn wants_ready(&self) -> bool {
        self.ready.borrow().is_empty()
    }

    /// Bytes of the files that hold records.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.begun.borrow().values().sum()
    }

    /// Sequence of the oldest file that holds records.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.begun.borrow().first_key_value().map(|(sequence, _)| *sequence)
    }
}

fn start_part(previous_end: u64) -> Part {
    Part { kind: KIND_START, head: previous_end.to_le_bytes().to_vec(), rows: Bytes::new() }
}

#[cfg(test)]
mod tests;
