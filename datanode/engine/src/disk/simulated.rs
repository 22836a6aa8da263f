//! A disk in memory, from a seed. Writes that were not synced are lost or torn by sector at a crash, names that were
//! not synced may go back, and single bits rot. Faults are chosen by the test through [`SimulatedDisk`]'s methods.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{AlignedBuffer, BLOCK_BYTES, Disk, DiskError, DiskFile, ReadBuffer};

/// What a device writes as a whole.
const SECTOR_BYTES: usize = 512;

#[derive(Clone)]
pub struct SimulatedDisk(Rc<RefCell<State>>);

struct State {
    seed: u64,
    /// Names as programs see them, and as a power cut leaves them.
    names: BTreeMap<PathBuf, Rc<RefCell<Contents>>>,
    names_synced: BTreeMap<PathBuf, Rc<RefCell<Contents>>>,
    directories: BTreeSet<PathBuf>,
    faults: Faults,
}

#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// Bytes that can still be allocated; `None` for no limit.
    space_bytes: Option<u64>,
    /// The n-th write from now fails with EIO, counted down.
    write_fails_in: Option<u64>,
    /// The n-th sync from now fails.
    sync_fails_in: Option<u64>,
}

#[derive(Default)]
struct Contents {
    bytes: Vec<u8>,
    bytes_synced: Vec<u8>,
    /// Sectors that differ from what is synced.
    dirty: BTreeSet<usize>,
}

impl SimulatedDisk {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(State {
            seed,
            names: BTreeMap::new(),
            names_synced: BTreeMap::new(),
            directories: BTreeSet::new(),
            faults: Faults::default(),
        })))
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
        Self(Rc::new(RefCell::new(State {
            seed: state.random(),
            names: after.clone(),
            names_synced: after,
            directories: state.directories.clone(),
            faults: Faults::default(),
        })))
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
        let mut state = self.0.borrow_mut();
        if !path.parent().is_some_and(|parent| state.directories.contains(parent)) {
            return Err(DiskError::NotFound { path: path.to_owned() });
        }
        let contents = Rc::new(RefCell::new(Contents::default()));
        state.names.insert(path.to_owned(), Rc::clone(&contents));
        Ok(SimulatedFile { disk: self.clone(), contents, path: path.to_owned() })
    }

    async fn open(&self, path: &Path) -> Result<SimulatedFile, DiskError> {
        Ok(SimulatedFile { disk: self.clone(), contents: self.contents(path)?, path: path.to_owned() })
    }

    async fn rename(&self, source: &Path, target: &Path) -> Result<(), DiskError> {
        let contents = self.contents(source)?;
        let mut state = self.0.borrow_mut();
        state.names.remove(source);
        state.names.insert(target.to_owned(), contents);
        Ok(())
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.contents(path)?;
        self.0.borrow_mut().names.remove(path);
        Ok(())
    }

    async fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        state.directories.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    async fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        let is_empty = !state.names.keys().any(|name| name.starts_with(path));
        if !is_empty {
            let source = io::Error::from_raw_os_error(libc::ENOTEMPTY);
            return Err(DiskError::of("remove", path, source));
        }
        state.directories.remove(path);
        Ok(())
    }

    async fn list(&self, path: &Path) -> Result<Vec<String>, DiskError> {
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
        let mut state = self.0.borrow_mut();
        if is_due(&mut state.faults.sync_fails_in) {
            return Err(DiskError::SyncFailed { path: path.to_owned(), source: failed() });
        }
        let live: Vec<_> = state
            .names
            .iter()
            .filter(|(name, _)| name.parent() == Some(path))
            .map(|(name, contents)| (name.clone(), Rc::clone(contents)))
            .collect();
        state.names_synced.retain(|name, _| name.parent() != Some(path));
        state.names_synced.extend(live);
        Ok(())
    }
}

pub struct SimulatedFile {
    disk: SimulatedDisk,
    contents: Rc<RefCell<Contents>>,
    path: PathBuf,
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
        let mut state = self.disk.0.borrow_mut();
        if is_due(&mut state.faults.write_fails_in) {
            return Err(DiskError::of("write", &self.path, failed()));
        }
        let mut contents = self.contents.borrow_mut();
        let start = usize::try_from(position).expect("a position in memory");
        let end = start + buffer.len();
        let grown = end.saturating_sub(contents.bytes.len());
        state.allocate(&self.path, grown as u64)?;
        if grown > 0 {
            contents.bytes.resize(end, 0);
        }
        contents.bytes[start..end].copy_from_slice(&buffer);
        contents.dirty.extend(start / SECTOR_BYTES..end / SECTOR_BYTES);
        Ok(buffer)
    }

    async fn read_at(&self, position: u64, length: usize) -> Result<ReadBuffer, DiskError> {
        let contents = self.contents.borrow();
        let start = usize::try_from(position).map_or(usize::MAX, |start| start).min(contents.bytes.len());
        let end = start.saturating_add(length).min(contents.bytes.len());
        Ok(ReadBuffer::Heap(contents.bytes[start..end].to_vec()))
    }

    async fn sync(&self) -> Result<(), DiskError> {
        let mut state = self.disk.0.borrow_mut();
        if is_due(&mut state.faults.sync_fails_in) {
            return Err(DiskError::SyncFailed { path: self.path.clone(), source: failed() });
        }
        let mut contents = self.contents.borrow_mut();
        contents.bytes_synced = contents.bytes.clone();
        contents.dirty.clear();
        Ok(())
    }
}
