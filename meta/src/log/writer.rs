//! The log as Raft uses it: entries are read from memory, and written by one thread, in order. Appends that wait
//! together share one sync. After a failed write or sync nothing more is written: what the disk holds is unknown, and a
//! retry could report as durable what is not.
//!
//! A full disk is another matter: then nothing was written, and space comes back. The writer lives on its reserve, says
//! that it is short of space, so that the leader takes no more than the group itself needs, and waits when the reserve is
//! used up. A member that waits neither votes nor leads; it goes on by itself.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use super::reserve::{FREE_BYTES_MIN, Reserve};
use super::{CatalogImage, DiskSpace, Entry, EntryId, ImageFile, LogError, LogFiles, Vote, VoteFile};

/// Between two attempts to make the reserve whole.
const LOOK_FOR_SPACE: Duration = Duration::from_secs(1);
/// Between two attempts to write on a full disk, when the reserve is used up.
const WAIT_FOR_SPACE: Duration = Duration::from_millis(200);

/// Called once the write is durable, or with the reason why it is not.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Cheap to clone; clones are the same log.
#[derive(Clone)]
pub struct LogStore(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    memory: Mutex<Memory>,
    operations: Mutex<Sender<Operation>>,
    space: Arc<Space>,
}

/// What the writer says of its disk, and is told.
#[derive(Default)]
struct Space {
    is_short: AtomicBool,
    /// Nobody waits for space any more.
    is_closing: AtomicBool,
}

#[derive(Default)]
struct Memory {
    /// All since the last purge: some 10,000 x a few hundred bytes.
    entries: BTreeMap<u64, Entry>,
    purged: Option<EntryId>,
    vote: Option<Vote>,
}

enum Operation {
    Append(Vec<Entry>, Done),
    Truncate(u64, Done),
    Purge(EntryId, Done),
    Vote(Vote, Done),
    /// Ends the thread.
    Close(Done),
}

/// What a folder held.
pub struct Opened {
    pub store: LogStore,
    pub image: Option<CatalogImage>,
    pub image_file: ImageFile,
    /// Bytes of a torn append that were cut off.
    pub torn_bytes: u64,
}

impl LogStore {
    /// Opens the files in `folder` and starts the writing thread.
    ///
    /// # Errors
    /// When a file is damaged, or files do not belong together.
    pub fn open(folder: &Path) -> Result<Opened, LogError> {
        let vote_file = VoteFile::new(folder);
        let image_file = ImageFile::new(folder);
        // First: opening the log cuts off a torn end, and a folder with a newer file stays as it is.
        let (vote, image) = (vote_file.read()?, image_file.read()?);
        let (files, recovered) = LogFiles::open(&folder.join("log"))?;
        let has_log = !recovered.entries.is_empty() || recovered.previous.is_some();
        if vote.is_none() && has_log {
            return Err(LogError::damaged(vote_file.path(), 0, "it is missing, but there is a log"));
        }
        check_covered(&image_file, image.as_ref(), recovered.previous)?;

        let torn_bytes = recovered.torn_bytes;
        let memory = Memory { entries: recovered.entries, purged: recovered.previous, vote };
        let (sender, receiver) = channel();
        let space = Arc::<Space>::default();
        let writer = Writer {
            files,
            vote_file,
            reserve: Reserve::open(folder),
            space: Arc::clone(&space),
            looked: Instant::now(),
            is_used: false,
            failed: None,
        };
        thread::Builder::new()
            .name("meta-log".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(LogError::io("start the writer of", folder))?;
        let (folder, memory, operations) = (folder.to_owned(), Mutex::new(memory), Mutex::new(sender));
        let store = Self(Arc::new(Inner { folder, memory, operations, space }));
        Ok(Opened { store, image, image_file, torn_bytes })
    }

    #[must_use]
    pub fn vote(&self) -> Option<Vote> {
        self.memory().vote
    }

    /// The last entry that was purged, and the last one there is.
    #[must_use]
    pub fn bounds(&self) -> (Option<EntryId>, Option<EntryId>) {
        let memory = self.memory();
        let last = memory.entries.last_key_value().map(|(_, entry)| entry.id);
        (memory.purged, last.or(memory.purged))
    }

    /// Entries of `range` in order, as many as fit `bytes_max`, at least one.
    #[must_use]
    pub fn entries(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> Vec<Entry> {
        let memory = self.memory();
        let mut bytes = 0;
        let mut entries = Vec::new();
        for (_, entry) in memory.entries.range(range) {
            bytes += entry.payload_bytes();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        entries
    }

    /// Entries are readable when this returns, and durable when `done` is called.
    pub fn append(&self, entries: Vec<Entry>, done: Done) {
        self.memory().entries.extend(entries.iter().map(|entry| (entry.id.index, entry.clone())));
        self.send(Operation::Append(entries, done));
    }

    /// Removes the entry of `index` and all after it.
    pub async fn truncate(&self, index: u64) -> io::Result<()> {
        self.memory().entries.split_off(&index);
        self.wait(|done| Operation::Truncate(index, done)).await
    }

    /// Removes all entries up to `upto`, which need not be in the log.
    pub async fn purge(&self, upto: EntryId) -> io::Result<()> {
        {
            let mut memory = self.memory();
            memory.entries = memory.entries.split_off(&(upto.index + 1));
            memory.purged = memory.purged.max(Some(upto));
        }
        self.wait(|done| Operation::Purge(upto, done)).await
    }

    pub async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        self.wait(|done| Operation::Vote(vote, done)).await?;
        self.memory().vote = Some(vote);
        Ok(())
    }

    /// Whether the disk is full, or would be with `bytes` more: only what the group itself needs should be appended.
    ///
    /// Looks at the disk, too: the writer learns of it only from an entry that found no room, and lies in the log then.
    #[must_use]
    pub fn is_short_of_space(&self, bytes: usize) -> bool {
        let wanted = FREE_BYTES_MIN + bytes as u64;
        // A file system that does not tell is tried.
        let is_full = || DiskSpace::of(&self.0.folder).is_ok_and(|space| space.free_bytes < wanted);
        self.0.space.is_short.load(Ordering::Acquire) || is_full()
    }

    /// From now on a full disk is a failure. Before the group is stopped: it would wait for its writes.
    pub fn stop_waiting(&self) {
        self.0.space.is_closing.store(true, Ordering::Release);
    }

    /// Ends the thread, once all before it is written.
    pub async fn close(&self) {
        self.stop_waiting();
        // Only a thread that has ended already does not answer.
        let _ = self.wait(Operation::Close).await;
    }

    async fn wait(&self, operation: impl FnOnce(Done) -> Operation) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        // Nobody waits any more when the receiver is gone.
        self.send(operation(Box::new(|result| drop(sender.send(result)))));
        receiver.await.unwrap_or_else(|_| Err(closed()))
    }

    fn send(&self, operation: Operation) {
        let sent = self.0.operations.lock().unwrap_or_else(PoisonError::into_inner).send(operation);
        if let Err(unsent) = sent {
            unsent.0.answer(&Err(closed()));
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed")
}

/// The log must begin where the image ends, or before.
fn check_covered(file: &ImageFile, image: Option<&CatalogImage>, before_log: Option<EntryId>) -> Result<(), LogError> {
    let Some(before) = before_log else { return Ok(()) };
    let covered = image.and_then(|image| image.last);
    if covered.is_none_or(|covered| covered.index < before.index) {
        let what = format!("it is missing or old: the log begins after entry {}", before.index);
        return Err(LogError::damaged(file.path(), 0, what));
    }
    Ok(())
}

impl Entry {
    fn payload_bytes(&self) -> usize {
        match &self.payload {
            super::Payload::Command(bytes) => bytes.len() + 64,
            super::Payload::Blank | super::Payload::Members(_) => 256,
        }
    }
}

impl Operation {
    fn answer(self, result: &io::Result<()>) {
        let (Self::Append(_, done)
        | Self::Truncate(_, done)
        | Self::Purge(_, done)
        | Self::Vote(_, done)
        | Self::Close(done)) = self;
        done(copy(result));
    }
}

fn copy(result: &io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    }
}

struct Writer {
    files: LogFiles,
    vote_file: VoteFile,
    reserve: Reserve,
    space: Arc<Space>,
    /// When it was last tried to make the reserve whole.
    looked: Instant,
    /// Something was written: a folder that is only looked at stays as it is.
    is_used: bool,
    failed: Option<String>,
}

impl Writer {
    fn run(mut self, operations: &Receiver<Operation>) {
        let mut next = self.wait(operations);
        while let Some(operation) = next.take() {
            match operation {
                Operation::Append(entries, done) => next = self.append_waiting(entries, done, operations),
                Operation::Truncate(index, done) => {
                    let result = self.attempt(|writer| writer.files.truncate(index));
                    done(result);
                }
                Operation::Purge(upto, done) => {
                    let result = self.attempt(|writer| writer.files.purge(upto));
                    done(result);
                }
                Operation::Vote(vote, done) => {
                    let result = self.attempt(|writer| writer.vote_file.save(vote));
                    done(result);
                }
                Operation::Close(done) => {
                    // The files are closed before the answer: the next owner may open them at once.
                    drop(self.files);
                    done(Ok(()));
                    return;
                }
            }
            next = next.or_else(|| self.wait(operations));
        }
    }

    /// The next operation; `None` when there will be none. Meanwhile the reserve is made whole.
    fn wait(&mut self, operations: &Receiver<Operation>) -> Option<Operation> {
        loop {
            if !self.is_used || self.reserve.is_whole() {
                return operations.recv().ok();
            }
            let left = LOOK_FOR_SPACE.saturating_sub(self.looked.elapsed());
            if left.is_zero() {
                self.look_for_space();
                continue;
            }
            match operations.recv_timeout(left) {
                Ok(operation) => return Some(operation),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn look_for_space(&mut self) {
        self.looked = Instant::now();
        match self.reserve.fill() {
            Ok(()) => {
                if self.space.is_short.swap(false, Ordering::AcqRel) {
                    info!("there is space for the meta log again");
                }
            }
            Err(error) if error.is_disk_full() => self.note_short(&error),
            Err(error) => debug!(%error, "no space is put by for the meta log"),
        }
    }

    fn note_short(&self, error: &LogError) {
        if !self.space.is_short.swap(true, Ordering::AcqRel) {
            warn!(%error, "the meta log takes only what the group itself needs until there is space again");
        }
    }

    /// Appends, together with the appends that wait; returns the operation after them.
    fn append_waiting(
        &mut self,
        mut entries: Vec<Entry>,
        done: Done,
        operations: &Receiver<Operation>,
    ) -> Option<Operation> {
        let mut waiting = vec![done];
        let mut next = None;
        while let Ok(operation) = operations.try_recv() {
            match operation {
                Operation::Append(more, done) => {
                    entries.extend(more);
                    waiting.push(done);
                }
                other => {
                    next = Some(other);
                    break;
                }
            }
        }
        let result = self.attempt(|writer| writer.files.append(&entries));
        for done in waiting {
            done(copy(&result));
        }
        next
    }

    fn attempt(&mut self, mut write: impl FnMut(&mut Self) -> Result<(), LogError>) -> io::Result<()> {
        if let Some(reason) = &self.failed {
            return Err(io::Error::other(format!("an earlier write failed: {reason}")));
        }
        let mut is_waiting = false;
        let error = loop {
            match write(self) {
                Ok(()) => {
                    // Before anything is answered: the disk may be full in the next moment.
                    if !std::mem::replace(&mut self.is_used, true) {
                        self.look_for_space();
                    }
                    return Ok(());
                }
                Err(error) if error.is_disk_full() && !self.space.is_closing.load(Ordering::Acquire) => {
                    self.make_room(&error, &mut is_waiting);
                }
                Err(error) => break error,
            }
        };
        error!(%error, "the meta log cannot be written any more");
        self.failed = Some(error.to_string());
        Err(io::Error::other(error.to_string()))
    }

    /// A piece of the reserve, or time.
    fn make_room(&mut self, error: &LogError, is_waiting: &mut bool) {
        self.note_short(error);
        match self.reserve.give() {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => debug!(%error, "the reserve cannot be used"),
        }
        if !std::mem::replace(is_waiting, true) {
            warn!(%error, "this access node neither votes nor leads until there is space for its log");
        }
        thread::sleep(WAIT_FOR_SPACE);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Payload;
    use super::*;

    fn entry(index: u64) -> Entry {
        Entry { id: EntryId { term: 1, node: 1, index }, payload: Payload::Command(vec![1; 100]) }
    }

    async fn append(store: &LogStore, entries: Vec<Entry>) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        store.append(entries, Box::new(|result| drop(sender.send(result))));
        receiver.await.unwrap()
    }

    fn vote() -> Vote {
        Vote { term: 1, node: 1, committed: true }
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = LogStore::open(folder.path()).unwrap().store;
        store.save_vote(vote()).await.unwrap();
        append(&store, (0..10).map(entry).collect()).await.unwrap();
        store.truncate(8).await.unwrap();
        store.close().await;
        let opened = LogStore::open(folder.path()).unwrap();
        assert_eq!(opened.store.vote(), Some(vote()));
        assert_eq!(opened.store.bounds(), (None, Some(entry(7).id)));
        assert_eq!(opened.store.entries(3..5, usize::MAX), [entry(3), entry(4)]);
        assert_eq!(opened.store.entries(3..8, 200).len(), 1, "at least one, however long");
    }

    #[tokio::test]
    async fn a_purged_log_needs_the_image_that_covers_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = LogStore::open(folder.path()).unwrap().store;
        store.save_vote(vote()).await.unwrap();
        append(&store, (0..10).map(entry).collect()).await.unwrap();
        store.purge(entry(20).id).await.unwrap();
        assert_eq!(store.bounds(), (Some(entry(20).id), Some(entry(20).id)));
        store.close().await;
        let error = LogStore::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("image is damaged"), "{error}");
        let file = ImageFile::new(folder.path());
        file.save(&CatalogImage { last: Some(entry(20).id), ..CatalogImage::default() }).unwrap();
        assert!(LogStore::open(folder.path()).is_ok());
    }

    #[tokio::test]
    async fn a_log_whose_vote_is_gone_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let store = LogStore::open(folder.path()).unwrap().store;
        store.save_vote(vote()).await.unwrap();
        append(&store, vec![entry(0)]).await.unwrap();
        store.close().await;
        std::fs::remove_file(folder.path().join("vote")).unwrap();
        let error = LogStore::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("vote is damaged") && error.contains("missing"), "{error}");
    }

    #[tokio::test]
    async fn after_a_failed_write_nothing_more_is_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let store = LogStore::open(folder.path()).unwrap().store;
        store.save_vote(vote()).await.unwrap();
        append(&store, vec![entry(0)]).await.unwrap();
        // The vote's neighbour is a folder now: it cannot be written.
        std::fs::create_dir(folder.path().join("vote.new")).unwrap();
        assert!(store.save_vote(Vote { term: 2, ..vote() }).await.is_err());
        std::fs::remove_dir(folder.path().join("vote.new")).unwrap();
        assert!(append(&store, vec![entry(1)]).await.is_err());
        assert!(store.save_vote(vote()).await.is_err());
        assert_eq!(store.vote(), Some(vote()));
    }

    #[tokio::test]
    async fn a_closed_log_answers_with_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let store = LogStore::open(folder.path()).unwrap().store;
        store.close().await;
        assert!(store.save_vote(vote()).await.is_err());
    }
}
