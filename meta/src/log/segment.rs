//! The log's files: appended to, cut at the end where a new leader overrules, dropped at the front once an image covers
//! them.
//!
//! Recovery reads all of them. What it finds where a record should be, and what it does:
//!
//! | | where | bytes | how a disk could have made it | then |
//! |---|---|---|---|---|
//! | a | end of the last file | the file ends within the record | power cut during an append | cut off |
//! | b | end of the last file | from a block border on, zeros to the end | power cut: length was written, data was not | cut off |
//! | c | last file | not even a whole head | power cut while it was made | file removed |
//! | d | elsewhere | not a record | rot | error |
//! | e | a file of the middle | any of a, b | rot: the next file was begun after this one was synced | error |
//! | f | between records | an index that does not follow | a lost or foreign file | error |
//!
//! A flipped bit in the very last record is row d: its bytes are all there. So nothing that was acknowledged is taken
//! for torn, unless the disk lost the end of the file.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use meridian_proto::frame::{self, FRAME_HEADER_BYTES, FrameError};
use prost::Message;
use tracing::warn;

use super::encoding::{HeadMessage, decode_entry, encode_entry};
use super::files::sync_folder;
use super::{Entry, EntryId, LogError};

const HEAD_KIND: u8 = 1;
const ENTRY_KIND: u8 = 2;
const LOG_VERSION: u32 = 1;
/// A file is closed and the next one begun when it is longer: whole files are what a purge removes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Data of a torn write is missing in units of this: the smallest sector of a disk.
const SECTOR_BYTES: usize = 512;

/// The files of a log, in order, the last one open for appends.
#[derive(Debug)]
pub struct LogFiles {
    folder: PathBuf,
    files: Vec<LogFile>,
    /// Of the last file; positioned at its end.
    open: Option<File>,
    /// The last entry, or the one before the first file.
    last: Option<EntryId>,
    file_bytes_max: u64,
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    first: u64,
    previous: Option<EntryId>,
    /// Length in bytes.
    length: u64,
    /// Where each entry begins, in order, and its id.
    positions: Vec<(u64, EntryId)>,
}

/// What a log's files hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The entry before the first one.
    pub previous: Option<EntryId>,
    pub entries: BTreeMap<u64, Entry>,
    /// Bytes of a torn append that were cut off.
    pub torn_bytes: u64,
}

impl LogFiles {
    /// Reads all files of `folder`, which is made if it is not there, and cuts off a torn end.
    pub fn open(folder: &Path) -> Result<(Self, Recovered), LogError> {
        Self::open_with(folder, FILE_BYTES_MAX)
    }

    fn open_with(folder: &Path, file_bytes_max: u64) -> Result<(Self, Recovered), LogError> {
        fs::create_dir_all(folder).map_err(LogError::io("create", folder))?;
        let mut log = Self { folder: folder.to_owned(), files: Vec::new(), open: None, last: None, file_bytes_max };
        let mut recovered = Recovered::default();
        let found = list_files(folder)?;
        for (number, (first, path)) in found.iter().enumerate() {
            let is_last = number + 1 == found.len();
            let read = read_file(path, *first, is_last)?;
            recovered.torn_bytes += read.torn_bytes;
            let Some((file, entries)) = read.file else { continue };
            if log.files.is_empty() {
                recovered.previous = file.previous;
            } else if file.previous != log.last {
                // Row f.
                return Err(LogError::damaged(path, 0, format!("it does not follow entry {:?}", log.last)));
            }
            log.last = file.positions.last().map(|(_, id)| *id).or(file.previous);
            recovered.entries.extend(entries.into_iter().map(|entry| (entry.id.index, entry)));
            log.files.push(file);
        }
        log.reopen_last()?;
        Ok((log, recovered))
    }

    /// Whether no file was ever written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Appends entries that follow the last one. Returns once they are durable. On a full disk none of them is there.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        let Some(first) = entries.first() else { return Ok(()) };
        let full = self.files.last().is_none_or(|file| file.length >= self.file_bytes_max);
        if full {
            self.begin_file(first.id.index)?;
        }
        let (Some(file), Some(open)) = (self.files.last_mut(), self.open.as_mut()) else { return Ok(()) };
        let (mut bytes, mut positions, mut last) = (Vec::new(), Vec::new(), self.last);
        for entry in entries {
            assert!(follows(last, entry.id.index), "entries follow one another");
            positions.push((file.length + bytes.len() as u64, entry.id));
            frame::encode(ENTRY_KIND, &encode_entry(entry), &mut bytes);
            last = Some(entry.id);
        }
        if let Err(error) = open.write_all(&bytes).map_err(LogError::writing("append to", &file.path)) {
            if error.is_disk_full() {
                // The part that was written goes again.
                open.set_len(file.length).map_err(LogError::io("cut", &file.path))?;
                open.seek(SeekFrom::Start(file.length)).map_err(LogError::io("cut", &file.path))?;
            }
            return Err(error);
        }
        open.sync_data().map_err(LogError::io("sync", &file.path))?;
        file.length += bytes.len() as u64;
        file.positions.extend(positions);
        self.last = last;
        Ok(())
    }

    /// Removes the entry of `index` and all after it, durably.
    pub fn truncate(&mut self, index: u64) -> Result<(), LogError> {
        self.open = None;
        // From the end, so that a crash in between leaves no hole.
        while let Some(file) = self.files.last()
            && file.first >= index
        {
            fs::remove_file(&file.path).map_err(LogError::io("remove", &file.path))?;
            self.last = file.previous;
            self.files.pop();
            sync_folder(&self.folder)?;
        }
        if let Some(file) = self.files.last_mut() {
            let kept = file.positions.partition_point(|(_, id)| id.index < index);
            if let Some((position, _)) = file.positions.get(kept) {
                let open = OpenOptions::new().write(true).open(&file.path).map_err(LogError::io("open", &file.path))?;
                open.set_len(*position).map_err(LogError::io("cut", &file.path))?;
                open.sync_all().map_err(LogError::io("sync", &file.path))?;
                file.length = *position;
                file.positions.truncate(kept);
            }
            self.last = file.positions.last().map(|(_, id)| *id).or(file.previous);
        }
        self.reopen_last()
    }

    /// Entries up to `upto` are no longer needed: removes the files that hold nothing else. The log may end before.
    pub fn purge(&mut self, upto: EntryId) -> Result<(), LogError> {
        if self.last.is_none_or(|last| last.index <= upto.index) {
            return self.start_over(upto);
        }
        while self.files.len() > 1
            && let Some(file) = self.files.first()
            && file.positions.last().is_none_or(|(_, id)| id.index <= upto.index)
        {
            fs::remove_file(&file.path).map_err(LogError::io("remove", &file.path))?;
            self.files.remove(0);
        }
        sync_folder(&self.folder)
    }

    /// All entries go; the next one follows `previous`.
    fn start_over(&mut self, previous: EntryId) -> Result<(), LogError> {
        self.open = None;
        let old: Vec<PathBuf> = self.files.drain(..).map(|file| file.path).collect();
        // The oldest first: what is left after a crash is a log that ends where it did.
        for path in old {
            fs::remove_file(&path).map_err(LogError::io("remove", &path))?;
        }
        sync_folder(&self.folder)?;
        self.last = Some(previous);
        self.begin_file(previous.index + 1)
    }

    fn begin_file(&mut self, first: u64) -> Result<(), LogError> {
        let path = self.folder.join(format!("{first:020}.log"));
        let head = HeadMessage { version: LOG_VERSION, first, previous: self.last.map(Into::into) };
        let mut bytes = Vec::new();
        frame::encode(HEAD_KIND, &head.encode_to_vec(), &mut bytes);
        let mut open = File::create(&path).map_err(LogError::writing("create", &path))?;
        if let Err(error) = open.write_all(&bytes).map_err(LogError::writing("write", &path)) {
            fs::remove_file(&path).map_err(LogError::io("remove", &path))?;
            return Err(error);
        }
        open.sync_all().map_err(LogError::io("sync", &path))?;
        sync_folder(&self.folder)?;
        let length = bytes.len() as u64;
        self.files.push(LogFile { path, first, previous: self.last, length, positions: Vec::new() });
        self.open = Some(open);
        Ok(())
    }

    fn reopen_last(&mut self) -> Result<(), LogError> {
        self.open = None;
        let Some(file) = self.files.last() else { return Ok(()) };
        let mut open = OpenOptions::new().write(true).open(&file.path).map_err(LogError::io("open", &file.path))?;
        open.seek(SeekFrom::Start(file.length)).map_err(LogError::io("open", &file.path))?;
        self.open = Some(open);
        Ok(())
    }
}

/// Whether an entry of `index` may come after `last`. An empty log begins anywhere.
fn follows(last: Option<EntryId>, index: u64) -> bool {
    last.is_none_or(|last| last.index.checked_add(1) == Some(index))
}

/// Files by the index in their name.
fn list_files(folder: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder).map_err(LogError::io("read", folder))? {
        let path = item.map_err(LogError::io("read", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name.strip_suffix(".log").and_then(|stem| stem.parse::<u64>().ok()) {
            Some(first) => found.push((first, path)),
            None => warn!(path = %path.display(), "not a log file, left alone"),
        }
    }
    found.sort();
    Ok(found)
}

struct ReadFile {
    /// `None` when the file was begun and no more (row c).
    file: Option<(LogFile, Vec<Entry>)>,
    torn_bytes: u64,
}

fn read_file(path: &Path, first: u64, is_last: bool) -> Result<ReadFile, LogError> {
    let bytes = fs::read(path).map_err(LogError::io("read", path))?;
    let (head, head_bytes) = match read_head(path, first, &bytes) {
        Err(_) if is_last && is_torn(&bytes, 0) => {
            warn!(path = %path.display(), "the file was begun and not finished, removed");
            fs::remove_file(path).map_err(LogError::io("remove", path))?;
            return Ok(ReadFile { file: None, torn_bytes: bytes.len() as u64 });
        }
        head => head?,
    };
    let previous = head.previous.map(EntryId::from);
    let mut file = LogFile { path: path.to_owned(), first, previous, length: head_bytes as u64, positions: Vec::new() };
    let mut entries = Vec::new();
    let mut torn_bytes = 0;
    let mut position = head_bytes;
    while position < bytes.len() {
        match read_entry(path, &bytes, position, first + entries.len() as u64) {
            Ok((entry, length)) => {
                file.positions.push((position as u64, entry.id));
                entries.push(entry);
                position += length;
            }
            // Rows a and b.
            Err(_) if is_last && is_torn(&bytes, position) => {
                torn_bytes = (bytes.len() - position) as u64;
                cut(path, position as u64)?;
                warn!(path = %path.display(), position, torn_bytes, "cut off the torn end of the log");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    file.length = position as u64;
    Ok(ReadFile { file: Some((file, entries)), torn_bytes })
}

fn read_head(path: &Path, first: u64, bytes: &[u8]) -> Result<(HeadMessage, usize), LogError> {
    let record = frame::decode(bytes).map_err(|error| LogError::damaged(path, 0, error))?;
    let head = HeadMessage::decode(record.payload);
    let (HEAD_KIND, Ok(head)) = (record.kind, head) else {
        return Err(LogError::damaged(path, 0, "the file does not begin as a log file"));
    };
    if head.version > LOG_VERSION {
        return Err(LogError::Newer { path: path.to_owned(), found: head.version, known: LOG_VERSION });
    }
    if head.first != first || !follows(head.previous.map(EntryId::from), first) {
        return Err(LogError::damaged(path, 0, format!("the file begins with entry {}", head.first)));
    }
    Ok((head, record.frame_bytes()))
}

fn read_entry(path: &Path, bytes: &[u8], position: usize, index: u64) -> Result<(Entry, usize), LogError> {
    let damaged = |what: String| LogError::damaged(path, position as u64, what);
    let record = frame::decode(&bytes[position..]).map_err(|error| damaged(error.to_string()))?;
    let entry = decode_entry(record.payload).filter(|_| record.kind == ENTRY_KIND);
    let entry = entry.ok_or_else(|| damaged("the record is no log entry".to_owned()))?;
    if entry.id.index != index {
        return Err(damaged(format!("entry {} stands where {index} should", entry.id.index)));
    }
    Ok((entry, record.frame_bytes()))
}

/// Whether what begins at `position` and is no record looks like an append that a power cut interrupted.
fn is_torn(bytes: &[u8], position: usize) -> bool {
    let tail = &bytes[position..];
    match frame::decode(tail) {
        // Row a. The header is checksummed: a length that reaches over the end was written so.
        Err(FrameError::Short { .. }) => return true,
        Err(FrameError::Empty) => return tail.iter().all(|byte| *byte == 0),
        Ok(_) | Err(_) => {}
    }
    // Row b: zeros from a sector border within this record to the end of the file.
    let zeros = tail.iter().rev().take_while(|byte| **byte == 0).count();
    let border = (bytes.len() - zeros).next_multiple_of(SECTOR_BYTES);
    let record_end = match frame::decode_header(tail) {
        Ok((_, length)) => position + FRAME_HEADER_BYTES + length,
        Err(_) => position + FRAME_HEADER_BYTES,
    };
    zeros > 0 && border < bytes.len() && border < record_end.max(position + 1)
}

fn cut(path: &Path, length: u64) -> Result<(), LogError> {
    let file = OpenOptions::new().write(true).open(path).map_err(LogError::io("open", path))?;
    file.set_len(length).map_err(LogError::io("cut", path))?;
    file.sync_all().map_err(LogError::io("sync", path))
}

#[cfg(test)]
mod tests {
    use super::super::Payload;
    use super::*;

    fn entry(index: u64) -> Entry {
        let payload = match index % 3 {
            0 => Payload::Blank,
            _ => Payload::Command(vec![index as u8; (index % 40) as usize]),
        };
        Entry { id: EntryId { term: 1, node: 1, index }, payload }
    }

    fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
        range.map(entry).collect()
    }

    fn indexes(recovered: &Recovered) -> Vec<u64> {
        recovered.entries.keys().copied().collect()
    }

    /// A log of three files of about three entries each.
    fn small_log(folder: &Path) {
        let (mut log, _) = LogFiles::open_with(folder, 100).unwrap();
        for index in 0..9 {
            log.append(&[entry(index)]).unwrap();
        }
        assert!(log.files.len() >= 3, "{} files", log.files.len());
    }

    fn last_file(folder: &Path) -> PathBuf {
        list_files(folder).unwrap().pop().unwrap().1
    }

    #[test]
    fn entries_are_there_after_a_restart_and_more_can_follow() {
        let folder = tempfile::tempdir().unwrap();
        for start in [0, 10, 20] {
            let (mut log, recovered) = LogFiles::open_with(folder.path(), 300).unwrap();
            assert_eq!(recovered.entries.into_values().collect::<Vec<_>>(), entries(0..start));
            log.append(&entries(start..start + 10)).unwrap();
        }
    }

    #[test]
    fn every_truncation_of_the_last_file_leaves_the_whole_entries_before() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = LogFiles::open(folder.path()).unwrap();
        log.append(&entries(0..6)).unwrap();
        let path = last_file(folder.path());
        let whole = fs::read(&path).unwrap();
        let ends: Vec<usize> =
            log.files[0].positions.iter().skip(1).map(|(at, _)| *at as usize).chain([whole.len()]).collect();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let (mut log, recovered) = LogFiles::open(folder.path()).unwrap();
            let kept = ends.iter().filter(|end| **end <= length).count() as u64;
            assert_eq!(recovered.entries.into_values().collect::<Vec<_>>(), entries(0..kept), "{length} bytes");
            // The cut log goes on as if the torn entry had never been.
            log.append(&entries(kept..kept + 1)).unwrap();
            drop(log);
            let (_, again) = LogFiles::open(folder.path()).unwrap();
            assert_eq!((again.entries.len() as u64, again.torn_bytes), (kept + 1, 0));
        }
    }

    #[test]
    fn an_append_whose_length_was_written_but_not_its_data_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = LogFiles::open(folder.path()).unwrap();
        log.append(&entries(0..3)).unwrap();
        let big = Entry { payload: Payload::Command(vec![7; 3000]), ..entry(3) };
        log.append(&[big]).unwrap();
        let path = last_file(folder.path());
        let whole = fs::read(&path).unwrap();
        let begin = log.files[0].positions[3].0 as usize;
        for border in (begin.next_multiple_of(SECTOR_BYTES)..whole.len()).step_by(SECTOR_BYTES).chain([begin]) {
            let mut torn = whole.clone();
            torn[border..].fill(0);
            fs::write(&path, torn).unwrap();
            let (_, recovered) = LogFiles::open(folder.path()).unwrap();
            assert_eq!(indexes(&recovered), [0, 1, 2], "zeros from {border}");
            assert_eq!(recovered.torn_bytes as usize, whole.len() - begin);
        }
    }

    #[test]
    fn every_flipped_bit_is_damage_with_file_and_position_and_never_a_shorter_log() {
        let folder = tempfile::tempdir().unwrap();
        small_log(folder.path());
        for (_, path) in list_files(folder.path()).unwrap() {
            let whole = fs::read(&path).unwrap();
            for bit in 0..whole.len() * 8 {
                let mut damaged = whole.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, &damaged).unwrap();
                let error = LogFiles::open_with(folder.path(), 100).unwrap_err();
                let LogError::Damaged { path: named, position, .. } = &error else { panic!("{error}") };
                assert!(*named == path && *position <= (bit / 8) as u64, "bit {bit}: {error}");
                assert_eq!(fs::read(&path).unwrap(), damaged, "nothing is cut off");
            }
            fs::write(&path, whole).unwrap();
        }
    }

    #[test]
    fn a_torn_file_before_the_last_one_and_a_missing_file_are_damage() {
        let folder = tempfile::tempdir().unwrap();
        small_log(folder.path());
        let files = list_files(folder.path()).unwrap();
        let (_, middle) = &files[1];
        let whole = fs::read(middle).unwrap();
        fs::write(middle, &whole[..whole.len() - 1]).unwrap();
        assert!(LogFiles::open_with(folder.path(), 100).is_err());
        fs::remove_file(middle).unwrap();
        let error = LogFiles::open_with(folder.path(), 100).unwrap_err();
        assert!(matches!(&error, LogError::Damaged { path, .. } if *path == files[2].1), "{error}");
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let head = HeadMessage { version: LOG_VERSION + 1, first: 0, previous: None };
        let mut bytes = Vec::new();
        frame::encode(HEAD_KIND, &head.encode_to_vec(), &mut bytes);
        fs::write(folder.path().join(format!("{:020}.log", 0)), bytes).unwrap();
        assert!(matches!(LogFiles::open(folder.path()), Err(LogError::Newer { found: 2, known: 1, .. })));
    }

    #[test]
    fn what_is_overruled_goes_and_what_follows_takes_its_place() {
        for cut_at in 0..9 {
            let folder = tempfile::tempdir().unwrap();
            small_log(folder.path());
            let (mut log, _) = LogFiles::open_with(folder.path(), 100).unwrap();
            log.truncate(cut_at).unwrap();
            let replaced = Entry { id: EntryId { term: 2, node: 3, index: cut_at }, payload: Payload::Blank };
            log.append(std::slice::from_ref(&replaced)).unwrap();
            drop(log);
            let (_, recovered) = LogFiles::open_with(folder.path(), 100).unwrap();
            let mut expected = entries(0..cut_at);
            expected.push(replaced);
            assert_eq!(recovered.entries.into_values().collect::<Vec<_>>(), expected, "cut at {cut_at}");
        }
    }

    #[test]
    fn purged_files_go_and_the_log_knows_what_was_before_it() {
        let folder = tempfile::tempdir().unwrap();
        small_log(folder.path());
        let (mut log, _) = LogFiles::open_with(folder.path(), 100).unwrap();
        log.purge(entry(5).id).unwrap();
        drop(log);
        let (_, recovered) = LogFiles::open_with(folder.path(), 100).unwrap();
        let first = *indexes(&recovered).first().unwrap();
        assert!((1..=6).contains(&first) && recovered.previous == Some(entry(first - 1).id), "begins with {first}");
        assert_eq!(*indexes(&recovered).last().unwrap(), 8);
    }

    #[test]
    fn after_an_image_that_is_ahead_of_it_the_log_starts_over() {
        let folder = tempfile::tempdir().unwrap();
        small_log(folder.path());
        let (mut log, _) = LogFiles::open_with(folder.path(), 100).unwrap();
        log.purge(entry(99).id).unwrap();
        log.append(&entries(100..103)).unwrap();
        drop(log);
        let (_, recovered) = LogFiles::open_with(folder.path(), 100).unwrap();
        assert_eq!(recovered.previous, Some(entry(99).id));
        assert_eq!(indexes(&recovered), [100, 101, 102]);
    }
}
