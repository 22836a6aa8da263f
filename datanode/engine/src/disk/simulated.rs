//! A disk in memory, from a seed. Writes that were not synced are lost or torn by sector at a crash, names of files and
//! folders that were not synced may go back, and single bits rot. Faults are chosen by the test through
//! [`SimulatedDisk`]'s methods.
//!
//! Within a simulation ([`crate::pace::executor::simulate`]) every operation is a moment at which other tasks may run, or
//! at which the power goes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::{AlignedBuffer, BLOCK_BYTES, Disk, DiskError, DiskFile, ReadBuffer};
use crate::pace::{Signal, executor};

/// What a device writes as a whole.
const SECTOR_BYTES: usize = 512;

thread_local! {
    static OVERLOOKED: Cell<Option<Overlooked>> = const { Cell::new(None) };
}

/// A bug of the program above that no disk can imitate: what it does not look at when it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlooked {
    /// Checksums of pages.
    Checksums,
    /// Batches of the log behind one that cannot be read.
    LaterBatches,
}

/// Plants such a bug in all shards of this thread; only in builds with debug assertions.
pub fn overlook(what: Option<Overlooked>) {
    OVERLOOKED.set(what);
}

/// Whether that bug is planted: never but in a simulation that must notice it.
pub(crate) fn overlooks(what: Overlooked) -> bool {
    cfg!(debug_assertions) && OVERLOOKED.get() == Some(what)
}

#[derive(Clone)]
pub struct SimulatedDisk(Rc<RefCell<State>>, Rc<Signal>);

/// A write that the disk acknowledged and did not do, or did elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misdeed {
    pub path: PathBuf,
    pub position: u64,
    /// Where it went instead, in its own file or another; `None`: nowhere.
    pub target: Option<(PathBuf, u64)>,
    /// Later writes of records into the log that were synced. With none, the log looks as if it ended before.
    pub later_log_writes: u64,
}

struct State {
    seed: u64,
    /// Names as programs see them, and as a power cut leaves them.
    names: BTreeMap<PathBuf, Rc<RefCell<Contents>>>,
    names_synced: BTreeMap<PathBuf, Rc<RefCell<Contents>>>,
    directories: BTreeSet<PathBuf>,
    directories_synced: BTreeSet<PathBuf>,
    operations: u64,
    faults: Faults,
    misdeeds: Vec<Misdeed>,
    /// Range of the last write of records into the log.
    log_end: Option<(PathBuf, u64, u64)>,
    is_log_dirty: bool,
}

/// A bug of the program above the disk, as the disk sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omission {
    /// Nobody syncs files whose name ends so.
    FileSync(&'static str),
    /// Nobody syncs folders for the names of files in them, or of folders.
    FileNameSync,
    FolderNameSync,
    /// Nobody looks at errors of writes or syncs, or at a full disk.
    WriteError,
    SyncError,
    DiskFull,
    /// Nobody waits for a sync that takes long.
    SlowSync,
}

/// An operation that was begun.
struct Moment {
    is_last: bool,
    is_slow: bool,
}

impl Moment {
    /// Returns, unless the power has gone.
    async fn end(self) {
        if self.is_last {
            std::future::pending::<()>().await;
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// Bytes that can still be allocated; `None` for no limit.
    space_bytes: Option<u64>,
    /// The n-th write or read from now fails with EIO, counted down.
    write_fails_in: Option<u64>,
    read_fails_in: Option<u64>,
    /// The n-th sync from now fails.
    sync_fails_in: Option<u64>,
    /// The n-th operation from now is the last one.
    power_fails_in: Option<u64>,
    is_off: bool,
    /// One operation in so many takes long; 0 for none.
    slow_one_in: u64,
    /// The n-th write from now is lost, or goes elsewhere.
    write_lost_in: Option<u64>,
    write_misdirected_in: Option<u64>,
    omission: Option<Omission>,
}

#[derive(Default)]
struct Contents {
    bytes: Vec<u8>,
    bytes_synced: Vec<u8>,
    /// Sectors that differ from what is synced.
    dirty: BTreeSet<usize>,
}

impl Contents {
    fn sync(&mut self) {
        self.bytes_synced.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let start = sector * SECTOR_BYTES;
            let end = self.bytes.len().min(start + SECTOR_BYTES);
            self.bytes_synced[start..end].copy_from_slice(&self.bytes[start..end]);
        }
    }
}

impl SimulatedDisk {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::of(State {
            seed,
            names: BTreeMap::new(),
            names_synced: BTreeMap::new(),
            directories: BTreeSet::new(),
            directories_synced: BTreeSet::new(),
            operations: 0,
            faults: Faults::default(),
            misdeeds: Vec::new(),
            log_end: None,
            is_log_dirty: false,
        })
    }

    fn of(state: State) -> Self {
        Self(Rc::new(RefCell::new(state)), Rc::default())
    }

    /// The disk after a power cut: each sector that was not synced is kept or lost, and so are the names in each
    /// folder that was not synced. Files opened before write into the void.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut state = self.0.borrow_mut();
        let (names, directories) = state.names_after_crash();
        let after: BTreeMap<_, _> = names
            .into_iter()
            .map(|(path, contents)| {
                let bytes = state.torn(&contents.borrow());
                (path, Rc::new(RefCell::new(Contents { bytes_synced: bytes.clone(), bytes, dirty: BTreeSet::new() })))
            })
            .collect();
        Self::of(State {
            seed: state.random(),
            names: after.clone(),
            names_synced: after,
            directories: directories.clone(),
            directories_synced: directories,
            operations: 0,
            faults: state.faults.planted(),
            misdeeds: state.misdeeds.clone(),
            log_end: state.log_end.clone(),
            is_log_dirty: false,
        })
    }

    /// Limits what can still be allocated; `None` lifts the limit.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.0.borrow_mut().faults.space_bytes = bytes;
    }

    /// The n-th write from now, 1 for the next one, fails with EIO. Any first part of it may be done.
    pub fn fail_write(&self, nth: u64) {
        self.0.borrow_mut().faults.write_fails_in = Some(nth);
    }

    /// The n-th read from now, 1 for the next one, fails with EIO.
    pub fn fail_read(&self, nth: u64) {
        self.0.borrow_mut().faults.read_fails_in = Some(nth);
    }

    /// The n-th sync from now, 1 for the next one, fails, and part of what was to be synced is gone.
    pub fn fail_sync(&self, nth: u64) {
        self.0.borrow_mut().faults.sync_fails_in = Some(nth);
    }

    /// The power goes at the n-th operation from now: it and those after it never return.
    pub fn cut_power(&self, nth: u64) {
        self.0.borrow_mut().faults.power_fails_in = Some(nth);
    }

    /// Resolves when the power has gone.
    pub async fn power_lost(&self) {
        loop {
            let signal = self.1.next();
            if self.0.borrow().faults.is_off {
                return;
            }
            signal.await;
        }
    }

    /// One operation in so many takes up to 50 ms of the simulation's time; 0 for none.
    pub fn slow_down(&self, one_in: u64) {
        self.0.borrow_mut().faults.slow_one_in = one_in;
    }

    /// The n-th write from now is acknowledged and not done.
    pub fn lose_write(&self, nth: u64) {
        self.0.borrow_mut().faults.write_lost_in = Some(nth);
    }

    /// The n-th write from now is acknowledged and done at another block, of its own file or of another one.
    pub fn misdirect_write(&self, nth: u64) {
        self.0.borrow_mut().faults.write_misdirected_in = Some(nth);
    }

    /// Plants a bug, which stays over crashes.
    pub fn plant(&self, omission: Omission) {
        self.0.borrow_mut().faults.omission = Some(omission);
    }

    /// Lifts what faults are still to come.
    pub fn behave(&self) {
        let mut state = self.0.borrow_mut();
        state.faults = state.faults.planted();
    }

    /// Writes that were lost or went elsewhere, crashes before included.
    #[must_use]
    pub fn misdeeds(&self) -> Vec<Misdeed> {
        self.0.borrow().misdeeds.clone()
    }

    /// Rots a random bit of a random file below the folder, but not of the log's last records, which nobody can tell
    /// from a torn write. Returns the file, position and bit.
    pub fn rot(&self, directory: &Path) -> Option<(PathBuf, u64, u8)> {
        let (path, position, bit) = {
            let mut state = self.0.borrow_mut();
            let files: Vec<PathBuf> = state.names.keys().filter(|path| path.starts_with(directory)).cloned().collect();
            let path = files.get((state.random() % files.len().max(1) as u64) as usize)?.clone();
            let bytes = state.names[&path].borrow().bytes.len() as u64;
            let position = state.random() % bytes.max(1);
            let is_end = |(end, from, to): &(PathBuf, u64, u64)| *end == path && (*from..*to).contains(&position);
            if bytes == 0 || state.log_end.as_ref().is_some_and(is_end) {
                return None;
            }
            (path, position, (state.random() % 8) as u8)
        };
        self.flip_bit(&path, position, bit);
        Some((path, position, bit))
    }

    /// A step of the simulation: others may run, time may pass, the power may go. The last operation before it goes is
    /// done or not and never returns.
    async fn step(&self) -> Moment {
        executor::pause().await;
        let wait = {
            let mut state = self.0.borrow_mut();
            let one_in = state.faults.slow_one_in;
            let is_slow = one_in > 0 && executor::is_simulated() && state.random().is_multiple_of(one_in);
            is_slow.then(|| Duration::from_micros(state.random() % 50_000))
        };
        if let Some(wait) = wait {
            executor::sleep(wait).await;
        }
        let (is_last, is_done) = {
            let mut state = self.0.borrow_mut();
            state.operations += 1;
            let was_off = state.faults.is_off;
            let is_last = is_due(&mut state.faults.power_fails_in);
            state.faults.is_off |= is_last;
            (is_last, !was_off && (!is_last || state.coin()))
        };
        if is_last {
            self.1.raise();
        }
        if !is_done {
            std::future::pending::<()>().await;
        }
        Moment { is_last, is_slow: wait.is_some() }
    }

    /// Rots one bit, as synced and as seen.
    ///
    /// # Panics
    /// When there is no such file or byte.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) {
        let state = self.0.borrow();
        let mut contents = state.names[path].borrow_mut();
        let at = usize::try_from(position).expect("a position in memory");
        contents.bytes[at] ^= 1 << bit;
        if let Some(byte) = contents.bytes_synced.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }

    /// Operations so far, since the start or the last crash.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    /// A number that tells two disks with other files or contents apart.
    #[must_use]
    pub fn digest(&self) -> u32 {
        let state = self.0.borrow();
        state.names.iter().fold(0, |sum, (path, contents)| {
            let sum = crc32c::crc32c_append(sum, path.to_string_lossy().as_bytes());
            crc32c::crc32c_append(sum, &contents.borrow().bytes)
        })
    }

    /// Puts a file there, synced, with the folders above it.
    pub fn place(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.0.borrow_mut();
        let above: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_owned).collect();
        state.directories.extend(above.iter().cloned());
        state.directories_synced.extend(above);
        let contents = Contents { bytes: bytes.to_vec(), bytes_synced: bytes.to_vec(), dirty: BTreeSet::new() };
        let contents = Rc::new(RefCell::new(contents));
        state.names.insert(path.to_owned(), Rc::clone(&contents));
        state.names_synced.insert(path.to_owned(), contents);
    }

    /// Contents of a file as programs see them.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        self.0.borrow().names.get(path).map(|contents| contents.borrow().bytes.clone())
    }

    /// Files below a folder.
    #[must_use]
    pub fn files(&self, directory: &Path) -> Vec<PathBuf> {
        self.0.borrow().names.keys().filter(|path| path.starts_with(directory)).cloned().collect()
    }

    fn contents(&self, path: &Path) -> Result<Rc<RefCell<Contents>>, DiskError> {
        let state = self.0.borrow();
        state.names.get(path).cloned().ok_or_else(|| DiskError::NotFound { path: path.to_owned() })
    }
}

impl State {
    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.random() & 1 == 1
    }

    /// Each folder either kept the names of the files and folders in it as they were, or went back to what was synced.
    /// What stands below a folder that is gone is gone with it.
    fn names_after_crash(&mut self) -> (BTreeMap<PathBuf, Rc<RefCell<Contents>>>, BTreeSet<PathBuf>) {
        let mut names = self.names_synced.clone();
        let mut directories = self.directories_synced.clone();
        for directory in &self.directories.clone() {
            if self.coin() {
                names.retain(|path, _| path.parent() != Some(directory));
                names.extend(children(&self.names, directory));
                directories.retain(|path| path.parent() != Some(directory));
                directories.extend(self.directories.iter().filter(|path| path.parent() == Some(directory)).cloned());
            }
        }
        let is_whole = |path: &Path| path.ancestors().skip(1).all(|above| directories.contains(above));
        names.retain(|path, _| is_whole(path));
        let directories = directories.iter().filter(|path| is_whole(path)).cloned().collect();
        (names, directories)
    }

    /// Gives back the space of a file that has no name any more.
    fn free(&mut self, contents: Option<Rc<RefCell<Contents>>>) {
        if let (Some(contents), Some(left)) = (contents, &mut self.faults.space_bytes) {
            *left += contents.borrow().bytes.len() as u64;
        }
    }

    /// After a failed sync the device has dropped some of what it was given, and says nothing more of it.
    fn lose_some(&mut self, contents: &mut Contents) {
        for sector in std::mem::take(&mut contents.dirty) {
            if self.coin() {
                contents.dirty.insert(sector);
                continue;
            }
            let start = sector * SECTOR_BYTES;
            let end = contents.bytes.len().min(start + SECTOR_BYTES);
            contents.bytes[start..end].fill(0);
            let synced = contents.bytes_synced.get(start..).unwrap_or_default();
            let kept = synced.len().min(end - start);
            contents.bytes[start..start + kept].copy_from_slice(&synced[..kept]);
        }
    }

    fn torn(&mut self, contents: &Contents) -> Vec<u8> {
        let mut bytes = contents.bytes_synced.clone();
        for sector in &contents.dirty {
            if self.coin() {
                let start = sector * SECTOR_BYTES;
                let end = contents.bytes.len().min(start + SECTOR_BYTES);
                bytes.resize(bytes.len().max(end), 0);
                bytes[start..end].copy_from_slice(&contents.bytes[start..end]);
            }
        }
        bytes
    }

    fn space_left(&self) -> usize {
        // Far more than any file has, but no number that a sum would overflow with.
        const ENDLESS: usize = usize::MAX / 4;
        self.faults.space_bytes.map_or(ENDLESS, |left| usize::try_from(left).unwrap_or(ENDLESS))
    }

    fn allocate(&mut self, bytes: u64) {
        if let Some(left) = &mut self.faults.space_bytes {
            *left -= bytes;
        }
    }
}

impl Faults {
    /// What stays over a crash.
    fn planted(self) -> Self {
        Self { omission: self.omission, ..Self::default() }
    }

    fn has(&self, omission: Omission) -> bool {
        self.omission == Some(omission)
    }
}

/// The files of a folder.
fn children(
    names: &BTreeMap<PathBuf, Rc<RefCell<Contents>>>,
    directory: &Path,
) -> impl Iterator<Item = (PathBuf, Rc<RefCell<Contents>>)> {
    let of_directory = names.iter().filter(move |(path, _)| path.parent() == Some(directory));
    of_directory.map(|(path, contents)| (path.clone(), Rc::clone(contents)))
}

/// Whether a write at this place is one of records into the log, not of a header or of zeros.
fn is_log(path: &Path, position: u64) -> bool {
    path.extension().is_some_and(|extension| extension == "wal") && position > 0
}

/// Whether a folder is one that nobody has to sync.
fn is_mounted(path: &Path) -> bool {
    path.components().count() <= 2
}

/// Counts a fault down; true when it is due.
fn is_due(countdown: &mut Option<u64>) -> bool {
    match countdown {
        Some(left) if *left <= 1 => {
            *countdown = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

fn failed() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;

    async fn create(&self, path: &Path) -> Result<SimulatedFile, DiskError> {
        let moment = self.step().await;
        let file = {
            let mut state = self.0.borrow_mut();
            if !path.parent().is_some_and(|parent| state.directories.contains(parent)) {
                return Err(DiskError::NotFound { path: path.to_owned() });
            }
            let contents = Rc::new(RefCell::new(Contents::default()));
            let replaced = state.names.insert(path.to_owned(), Rc::clone(&contents));
            state.free(replaced);
            SimulatedFile { disk: self.clone(), contents, path: path.to_owned() }
        };
        moment.end().await;
        Ok(file)
    }

    async fn open(&self, path: &Path) -> Result<SimulatedFile, DiskError> {
        let moment = self.step().await;
        moment.end().await;
        Ok(SimulatedFile { disk: self.clone(), contents: self.contents(path)?, path: path.to_owned() })
    }

    async fn rename(&self, source: &Path, target: &Path) -> Result<(), DiskError> {
        let moment = self.step().await;
        let contents = self.contents(source)?;
        {
            let mut state = self.0.borrow_mut();
            state.names.remove(source);
            let replaced = state.names.insert(target.to_owned(), contents);
            state.free(replaced);
        }
        moment.end().await;
        Ok(())
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        let moment = self.step().await;
        self.contents(path)?;
        {
            let mut state = self.0.borrow_mut();
            let removed = state.names.remove(path);
            state.free(removed);
        }
        moment.end().await;
        Ok(())
    }

    async fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        let moment = self.step().await;
        {
            let mut state = self.0.borrow_mut();
            state.directories.extend(path.ancestors().map(Path::to_owned));
            // The root, and what is mounted in it, were there before.
            state.directories_synced.extend(path.ancestors().filter(|above| is_mounted(above)).map(Path::to_owned));
        }
        moment.end().await;
        Ok(())
    }

    async fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        let moment = self.step().await;
        {
            let mut state = self.0.borrow_mut();
            let is_empty = !state.names.keys().any(|name| name.starts_with(path));
            if !is_empty {
                let source = io::Error::from_raw_os_error(libc::ENOTEMPTY);
                return Err(DiskError::of("remove", path, source));
            }
            state.directories.remove(path);
        }
        moment.end().await;
        Ok(())
    }

    async fn list(&self, path: &Path) -> Result<Vec<String>, DiskError> {
        let moment = self.step().await;
        moment.end().await;
        let state = self.0.borrow();
        if !state.directories.contains(path) {
            return Err(DiskError::NotFound { path: path.to_owned() });
        }
        let all = state.names.keys().chain(&state.directories);
        let names: BTreeSet<_> = all
            .filter(|name| name.parent() == Some(path))
            .filter_map(|name| Some(name.file_name()?.to_str()?.to_owned()))
            .collect();
        Ok(names.into_iter().collect())
    }

    async fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        let moment = self.step().await;
        {
            let mut state = self.0.borrow_mut();
            if is_due(&mut state.faults.sync_fails_in) && !state.faults.has(Omission::SyncError) {
                return Err(DiskError::SyncFailed { path: path.to_owned(), source: failed() });
            }
            if !state.faults.has(Omission::FileNameSync) {
                let live: Vec<_> = children(&state.names, path).collect();
                state.names_synced.retain(|name, _| name.parent() != Some(path));
                state.names_synced.extend(live);
            }
            if !state.faults.has(Omission::FolderNameSync) {
                let folders = state.directories.iter().filter(|folder| folder.parent() == Some(path));
                let folders: Vec<PathBuf> = folders.cloned().collect();
                state.directories_synced.retain(|folder| folder.parent() != Some(path));
                state.directories_synced.extend(folders);
            }
        }
        moment.end().await;
        Ok(())
    }
}

pub struct SimulatedFile {
    disk: SimulatedDisk,
    contents: Rc<RefCell<Contents>>,
    path: PathBuf,
}

impl SimulatedFile {
    /// Does a write that the disk acknowledges, in its place unless a misdeed is due.
    fn write(&self, state: &mut State, position: u64, buffer: &[u8]) -> Result<(), DiskError> {
        if is_due(&mut state.faults.write_lost_in) {
            self.note_misdeed(state, position, None);
            return Ok(());
        }
        if is_due(&mut state.faults.write_misdirected_in)
            && let Some((path, contents, elsewhere)) = self.elsewhere(state, position)
        {
            self.note_misdeed(state, position, Some((path.clone(), elsewhere)));
            return put(state, &path, &contents, elsewhere, buffer);
        }
        let done = put(state, &self.path, &self.contents, position, buffer);
        if is_log(&self.path, position) {
            state.log_end = Some((self.path.clone(), position, position + buffer.len() as u64));
            state.is_log_dirty = done.is_ok();
        }
        done
    }

    /// Another block, of this file as often as of any; `None` when it happens to be the right one.
    fn elsewhere(&self, state: &mut State, position: u64) -> Option<(PathBuf, Rc<RefCell<Contents>>, u64)> {
        let mut target = (self.path.clone(), Rc::clone(&self.contents));
        let others = state.names.len() as u64;
        if others > 0 && state.coin() {
            let at = (state.random() % others) as usize;
            target = state.names.iter().nth(at).map(|(path, other)| (path.clone(), Rc::clone(other)))?;
        }
        let (path, contents) = target;
        let blocks = contents.borrow().bytes.len().div_ceil(BLOCK_BYTES) as u64;
        let elsewhere = state.random() % (blocks + 1) * BLOCK_BYTES as u64;
        let is_right = Rc::ptr_eq(&contents, &self.contents) && elsewhere == position;
        (!is_right).then_some((path, contents, elsewhere))
    }

    fn note_misdeed(&self, state: &mut State, position: u64, target: Option<(PathBuf, u64)>) {
        // A write of the log before this one says nothing about it.
        state.is_log_dirty = false;
        state.misdeeds.push(Misdeed { path: self.path.clone(), position, target, later_log_writes: 0 });
    }

    /// The write fails: nobody knows how much of it was done, all of it perhaps.
    fn fail(&self, state: &mut State, position: u64, buffer: &[u8]) -> DiskError {
        let done = (state.random() % (buffer.len() / SECTOR_BYTES + 1) as u64) as usize * SECTOR_BYTES;
        let _ = put(state, &self.path, &self.contents, position, &buffer[..done]);
        DiskError::of("write", &self.path, failed())
    }
}

/// Puts bytes into a file; where space ends, the sectors that fit.
fn put(
    state: &mut State,
    path: &Path,
    contents: &RefCell<Contents>,
    position: u64,
    bytes: &[u8],
) -> Result<(), DiskError> {
    let mut contents = contents.borrow_mut();
    let start = usize::try_from(position).expect("a position in memory");
    let room = contents.bytes.len() + state.space_left();
    let fitting = bytes.len().min(room.saturating_sub(start)) / SECTOR_BYTES * SECTOR_BYTES;
    let end = start + fitting;
    if fitting > 0 && end > contents.bytes.len() {
        state.allocate((end - contents.bytes.len()) as u64);
        contents.bytes.resize(end, 0);
    }
    if fitting > 0 {
        contents.bytes[start..end].copy_from_slice(&bytes[..fitting]);
        contents.dirty.extend(start / SECTOR_BYTES..end / SECTOR_BYTES);
    }
    if fitting == bytes.len() { Ok(()) } else { Err(DiskError::DiskFull { operation: "write", path: path.to_owned() }) }
}

impl DiskFile for SimulatedFile {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn size(&self) -> Result<u64, DiskError> {
        Ok(self.contents.borrow().bytes.len() as u64)
    }

    async fn write_at(&self, position: u64, buffer: AlignedBuffer) -> Result<AlignedBuffer, DiskError> {
        assert_eq!(position % BLOCK_BYTES as u64, 0, "direct writes are aligned");
        let moment = self.disk.step().await;
        {
            let mut state = self.disk.0.borrow_mut();
            let done = if is_due(&mut state.faults.write_fails_in) {
                Err(self.fail(&mut state, position, &buffer))
            } else {
                self.write(&mut state, position, &buffer)
            };
            match done {
                Err(DiskError::DiskFull { .. }) if state.faults.has(Omission::DiskFull) => {}
                Err(DiskError::Io { .. }) if state.faults.has(Omission::WriteError) => {}
                done => done?,
            }
        }
        moment.end().await;
        Ok(buffer)
    }

    async fn read_at(&self, position: u64, length: usize) -> Result<ReadBuffer, DiskError> {
        let moment = self.disk.step().await;
        moment.end().await;
        if is_due(&mut self.disk.0.borrow_mut().faults.read_fails_in) {
            return Err(DiskError::of("read", &self.path, failed()));
        }
        let contents = self.contents.borrow();
        let start = usize::try_from(position).map_or(usize::MAX, |start| start).min(contents.bytes.len());
        let end = start.saturating_add(length).min(contents.bytes.len());
        Ok(ReadBuffer::Heap(contents.bytes[start..end].to_vec()))
    }

    async fn sync(&self) -> Result<(), DiskError> {
        let moment = self.disk.step().await;
        {
            let mut state = self.disk.0.borrow_mut();
            if is_due(&mut state.faults.sync_fails_in) {
                state.lose_some(&mut self.contents.borrow_mut());
                // What it held may be gone, and then tells nothing of the records before it.
                state.is_log_dirty &= !is_log(&self.path, 1);
                if !state.faults.has(Omission::SyncError) {
                    return Err(DiskError::SyncFailed { path: self.path.clone(), source: failed() });
                }
            }
            let is_omitted = match state.faults.omission {
                Some(Omission::FileSync(suffix)) => self.path.to_string_lossy().ends_with(suffix),
                Some(Omission::SlowSync) => moment.is_slow,
                _ => false,
            };
            if !is_omitted {
                self.contents.borrow_mut().sync();
            }
            let is_of_log = is_log(&self.path, 1);
            if is_of_log && std::mem::take(&mut state.is_log_dirty) {
                state.misdeeds.iter_mut().for_each(|misdeed| misdeed.later_log_writes += 1);
            }
        }
        moment.end().await;
        Ok(())
    }
}
