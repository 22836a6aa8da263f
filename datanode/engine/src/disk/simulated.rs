//! A disk in memory, from a seed. Writes that were not synced are lost or torn by sector at a crash, names that were
//! not synced may go back, and single bits rot. Faults are chosen by the test through [`SimulatedDisk`]'s methods.
//!
//! Within a simulation ([`crate::pace::executor::simulate`]) every operation is a moment at which other tasks may run, or
//! at which the power goes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::{AlignedBuffer, BLOCK_BYTES, Disk, DiskError, DiskFile, ReadBuffer};
use crate::pace::{Signal, executor};

/// What a device writes as a whole.
const SECTOR_BYTES: usize = 512;

#[derive(Clone)]
pub struct SimulatedDisk(Rc<RefCell<State>>, Rc<Signal>);

/// A write that the disk acknowledged and did not do, or did elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misdeed {
    pub path: PathBuf,
    pub position: u64,
    /// Where it went instead; `None`: nowhere.
    pub target: Option<u64>,
    /// Later writes of records into the log that were synced. With none, the log looks as if it ended before.
    pub later_log_writes: u64,
}

struct State {
    seed: u64,
    /// Names as programs see them, and as a power cut leaves them.
    names: BTreeMap<PathBuf, Rc<RefCell<Contents>>>,
    names_synced: BTreeMap<PathBuf, Rc<RefCell<Contents>>>,
    directories: BTreeSet<PathBuf>,
    faults: Faults,
    misdeeds: Vec<Misdeed>,
    /// Range of the last write of records into the log.
    log_end: Option<(PathBuf, u64, u64)>,
    is_log_dirty: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// Bytes that can still be allocated; `None` for no limit.
    space_bytes: Option<u64>,
    /// The n-th write from now fails with EIO, counted down.
    write_fails_in: Option<u64>,
    /// The n-th sync from now fails.
    sync_fails_in: Option<u64>,
    /// The n-th operation from now is the last one.
    power_fails_in: Option<u64>,
    is_off: bool,
    /// One operation in so many takes long; 0 for none.
    slow_one_in: u64,
    /// The n-th write from now is lost, or goes elsewhere in its file.
    write_lost_in: Option<u64>,
    write_misdirected_in: Option<u64>,
    /// Planted: syncs of files with this end of the name, or of all folders, do nothing.
    unsynced_suffix: Option<&'static str>,
    unsynced_names: bool,
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
            faults: Faults::default(),
            misdeeds: Vec::new(),
            log_end: None,
            is_log_dirty: false,
        })
    }

    fn of(state: State) -> Self {
        Self(Rc::new(RefCell::new(state)), Rc::default())
    }

    /// The disk after a power cut: each sector that was not synced is kept or lost, and so are the names of each
    /// folder that was not synced. Files opened before write into the void.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut state = self.0.borrow_mut();
        let mut names = state.names_synced.clone();
        for directory in state.directories.clone() {
            if state.coin() {
                names.retain(|path, _| path.parent() != Some(&directory));
                let live = state.names.iter().filter(|(path, _)| path.parent() == Some(&directory));
                names.extend(live.map(|(path, contents)| (path.clone(), Rc::clone(contents))));
            }
        }
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
            directories: state.directories.clone(),
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

    /// The n-th write from now, 1 for the next one, fails with EIO.
    pub fn fail_write(&self, nth: u64) {
        self.0.borrow_mut().faults.write_fails_in = Some(nth);
    }

    /// The n-th sync from now, 1 for the next one, fails.
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

    /// The n-th write from now is acknowledged and done at another block of its file.
    pub fn misdirect_write(&self, nth: u64) {
        self.0.borrow_mut().faults.write_misdirected_in = Some(nth);
    }

    /// Plants a bug: as if nobody synced files whose name ends so.
    pub fn forget_syncs(&self, suffix: &'static str) {
        self.0.borrow_mut().faults.unsynced_suffix = Some(suffix);
    }

    /// Plants a bug: as if nobody synced folders.
    pub fn forget_directory_syncs(&self) {
        self.0.borrow_mut().faults.unsynced_names = true;
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

    /// A step of the simulation: others may run, time may pass, the power may go. False for the last operation before it
    /// goes, which is done or not and never returns.
    async fn step(&self) -> bool {
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
        !is_last
    }

    async fn stop_unless(is_on: bool) {
        if !is_on {
            std::future::pending::<()>().await;
        }
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

    /// Gives back the space of a file that has no name any more.
    fn free(&mut self, contents: Option<Rc<RefCell<Contents>>>) {
        if let (Some(contents), Some(left)) = (contents, &mut self.faults.space_bytes) {
            *left += contents.borrow().bytes.len() as u64;
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

    fn allocate(&mut self, path: &Path, bytes: u64) -> Result<(), DiskError> {
        match &mut self.faults.space_bytes {
            Some(left) if *left < bytes => Err(DiskError::DiskFull { operation: "write", path: path.to_owned() }),
            Some(left) => {
                *left -= bytes;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Faults {
    /// What stays over a crash.
    fn planted(self) -> Self {
        let Self { unsynced_suffix, unsynced_names, .. } = self;
        Self { unsynced_suffix, unsynced_names, ..Self::default() }
    }
}

/// Whether a write at this place is one of records into the log, not of a header or of zeros.
fn is_log(path: &Path, position: u64) -> bool {
    path.extension().is_some_and(|extension| extension == "wal") && position > 0
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
        let is_on = self.step().await;
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
        Self::stop_unless(is_on).await;
        Ok(file)
    }

    async fn open(&self, path: &Path) -> Result<SimulatedFile, DiskError> {
        let is_on = self.step().await;
        Self::stop_unless(is_on).await;
        Ok(SimulatedFile { disk: self.clone(), contents: self.contents(path)?, path: path.to_owned() })
    }

    async fn rename(&self, source: &Path, target: &Path) -> Result<(), DiskError> {
        let is_on = self.step().await;
        let contents = self.contents(source)?;
        {
            let mut state = self.0.borrow_mut();
            state.names.remove(source);
            let replaced = state.names.insert(target.to_owned(), contents);
            state.free(replaced);
        }
        Self::stop_unless(is_on).await;
        Ok(())
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        let is_on = self.step().await;
        self.contents(path)?;
        {
            let mut state = self.0.borrow_mut();
            let removed = state.names.remove(path);
            state.free(removed);
        }
        Self::stop_unless(is_on).await;
        Ok(())
    }

    async fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        let is_on = self.step().await;
        self.0.borrow_mut().directories.extend(path.ancestors().map(Path::to_owned));
        Self::stop_unless(is_on).await;
        Ok(())
    }

    async fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        let is_on = self.step().await;
        {
            let mut state = self.0.borrow_mut();
            let is_empty = !state.names.keys().any(|name| name.starts_with(path));
            if !is_empty {
                let source = io::Error::from_raw_os_error(libc::ENOTEMPTY);
                return Err(DiskError::of("remove", path, source));
            }
            state.directories.remove(path);
        }
        Self::stop_unless(is_on).await;
        Ok(())
    }

    async fn list(&self, path: &Path) -> Result<Vec<String>, DiskError> {
        let is_on = self.step().await;
        Self::stop_unless(is_on).await;
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
        let is_on = self.step().await;
        {
            let mut state = self.0.borrow_mut();
            if is_due(&mut state.faults.sync_fails_in) {
                return Err(DiskError::SyncFailed { path: path.to_owned(), source: failed() });
            }
            if !state.faults.unsynced_names {
                let live = state.names.iter().filter(|(name, _)| name.parent() == Some(path));
                let live: Vec<_> = live.map(|(name, contents)| (name.clone(), Rc::clone(contents))).collect();
                state.names_synced.retain(|name, _| name.parent() != Some(path));
                state.names_synced.extend(live);
            }
        }
        Self::stop_unless(is_on).await;
        Ok(())
    }
}

pub struct SimulatedFile {
    disk: SimulatedDisk,
    contents: Rc<RefCell<Contents>>,
    path: PathBuf,
}

impl SimulatedFile {
    /// Where the write goes: `None` when it is lost.
    fn misdeed(&self, state: &mut State, position: u64) -> Option<u64> {
        let is_lost = is_due(&mut state.faults.write_lost_in);
        let is_misdirected = is_due(&mut state.faults.write_misdirected_in);
        if !is_lost && !is_misdirected {
            return Some(position);
        }
        let blocks = self.contents.borrow().bytes.len().div_ceil(BLOCK_BYTES) as u64;
        let elsewhere = (state.random() % (blocks + 1)) * BLOCK_BYTES as u64;
        if is_misdirected && elsewhere == position {
            return Some(position);
        }
        let target = is_misdirected.then_some(elsewhere);
        state.misdeeds.push(Misdeed { path: self.path.clone(), position, target, later_log_writes: 0 });
        target
    }

    fn write(&self, state: &mut State, position: u64, buffer: &[u8]) -> Result<(), DiskError> {
        let target = self.misdeed(state, position);
        if is_log(&self.path, position) && target == Some(position) {
            state.log_end = Some((self.path.clone(), position, position + buffer.len() as u64));
            state.is_log_dirty = true;
        }
        let Some(target) = target else { return Ok(()) };
        let mut contents = self.contents.borrow_mut();
        let start = usize::try_from(target).expect("a position in memory");
        let end = start + buffer.len();
        let grown = end.saturating_sub(contents.bytes.len());
        state.allocate(&self.path, grown as u64)?;
        if grown > 0 {
            contents.bytes.resize(end, 0);
        }
        contents.bytes[start..end].copy_from_slice(buffer);
        contents.dirty.extend(start / SECTOR_BYTES..end / SECTOR_BYTES);
        Ok(())
    }
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
        let is_on = self.disk.step().await;
        {
            let mut state = self.disk.0.borrow_mut();
            if is_due(&mut state.faults.write_fails_in) {
                return Err(DiskError::of("write", &self.path, failed()));
            }
            self.write(&mut state, position, &buffer)?;
        }
        SimulatedDisk::stop_unless(is_on).await;
        Ok(buffer)
    }

    async fn read_at(&self, position: u64, length: usize) -> Result<ReadBuffer, DiskError> {
        let is_on = self.disk.step().await;
        SimulatedDisk::stop_unless(is_on).await;
        let contents = self.contents.borrow();
        let start = usize::try_from(position).map_or(usize::MAX, |start| start).min(contents.bytes.len());
        let end = start.saturating_add(length).min(contents.bytes.len());
        Ok(ReadBuffer::Heap(contents.bytes[start..end].to_vec()))
    }

    async fn sync(&self) -> Result<(), DiskError> {
        let is_on = self.disk.step().await;
        {
            let mut state = self.disk.0.borrow_mut();
            if is_due(&mut state.faults.sync_fails_in) {
                return Err(DiskError::SyncFailed { path: self.path.clone(), source: failed() });
            }
            let suffix = state.faults.unsynced_suffix;
            if !suffix.is_some_and(|suffix| self.path.to_string_lossy().ends_with(suffix)) {
                self.contents.borrow_mut().sync();
            }
            let is_of_log = is_log(&self.path, 1);
            if is_of_log && std::mem::take(&mut state.is_log_dirty) {
                state.misdeeds.iter_mut().for_each(|misdeed| misdeed.later_log_writes += 1);
            }
        }
        SimulatedDisk::stop_unless(is_on).await;
        Ok(())
    }
}
