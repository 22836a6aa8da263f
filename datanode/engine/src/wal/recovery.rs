//! What a log file holds after a crash. A batch is written only after the one before it was synced, and the first
//! record of a file says where the file before it ends; so a valid batch behind an unreadable one means that acknowledged
//! bytes changed.
//!
//! | | at the end of what can be read | behind it in the file | a later file begun | then |
//! |---|---|---|---|---|
//! | A | zeros, or records of the file's previous life | nothing | no | the log ends here |
//! | B | a batch that is whole | | | it counts, acknowledged or not |
//! | C | a batch that is not whole: the power went while it was written | nothing | no | cut: nobody was told of it |
//! | D | anything else than a whole batch | a valid record of a later batch | | damage |
//! | E | anything else than a whole batch, before the end that the next file names | | yes | damage |
//! | F | no readable header, or that of the previous life | no valid record | no | never used: made ready again |
//! | G | no readable header, or that of the previous life | a valid record | | damage |
//! | H | a file missing between two others | | yes | damage |

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::batch::{self, KIND_MARK, KIND_START, Unreadable};
use super::header::{self, HEADER_BYTES, Owner};
use super::{Wal, WalEntry, WalOptions};
use crate::disk::simulated::{Overlooked, overlooks};
use crate::disk::{BLOCK_BYTES, Disk, DiskFile};
use crate::error::EngineError;
use crate::layout;
use crate::record::LogRecord;

/// A torn batch that was cut off: nobody was told that it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub path: PathBuf,
    pub position: u64,
    pub reason: String,
}

/// What was found in the log.
#[derive(Clone, Debug, Default)]
pub struct WalReport {
    pub file_count: usize,
    pub records: u64,
    pub bytes: u64,
    pub cut: Option<Cut>,
}

/// A log file by its name.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub sequence: u64,
    pub path: PathBuf,
    pub bytes: u64,
    pub state: FileState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    /// Holds records; names the end of the file before it, unless its first batch cannot be read.
    Begun { previous_end: Option<u64> },
    /// Has its header and no record.
    Ready,
    /// Row F: to be made ready again.
    Raw,
}

/// Reads all files in order and hands each record to `visit` with the sequence of its file.
pub async fn recover<D: Disk>(
    disk: &D,
    options: &WalOptions,
    mut visit: impl FnMut(u64, WalEntry) -> Result<(), EngineError>,
) -> Result<(Wal<D>, WalReport), EngineError> {
    let files = list(disk, options).await?;
    check_sequences(&files)?;
    let mut report = WalReport { file_count: files.len(), ..WalReport::default() };
    let mut ends = Vec::with_capacity(files.len());
    // What an earlier life wrote and did not sync can be read now and gone after a power cut: made durable before anybody
    // is told of it.
    disk.sync_directory(&options.directory).await?;
    for (index, file) in files.iter().enumerate() {
        let next = files.get(index + 1..).unwrap_or_default();
        let until = next.iter().find_map(|next| match next.state {
            FileState::Begun { previous_end } if next.sequence == file.sequence + 1 => Some(previous_end),
            _ => None,
        });
        let end = match file.state {
            FileState::Begun { .. } => {
                disk.open(&file.path).await?.sync().await?;
                let bytes = read_all(disk, &file.path).await?;
                read_file(file, &bytes, until, &mut report, &mut visit)?
            }
            FileState::Ready | FileState::Raw => HEADER_BYTES as u64,
        };
        ends.push(end);
    }
    Ok((Wal::resume(disk.clone(), options.clone(), files, &ends).await?, report))
}

async fn read_all<D: Disk>(disk: &D, path: &Path) -> Result<Vec<u8>, EngineError> {
    const STEP_BYTES: usize = 4 << 20;
    let file = disk.open(path).await?;
    let size = usize::try_from(file.size().await?).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        let read = file.read_at(bytes.len() as u64, STEP_BYTES.min(size - bytes.len())).await?;
        if read.is_empty() {
            break;
        }
        bytes.extend_from_slice(&read);
    }
    Ok(bytes)
}

async fn list<D: Disk>(disk: &D, options: &WalOptions) -> Result<Vec<Listed>, EngineError> {
    let mut files = Vec::new();
    for name in disk.list(&options.directory).await? {
        let path = options.directory.join(&name);
        if let Some(sequence) = layout::wal_sequence(&name) {
            files.push(examine(disk, options.owner, sequence, path).await?);
        }
    }
    // Only now, after every header was found to be ours: a foreign folder is not touched.
    for name in disk.list(&options.directory).await? {
        if name.ends_with(layout::TEMPORARY_SUFFIX) {
            disk.remove(&options.directory.join(name)).await?;
        }
    }
    files.sort_by_key(|file| file.sequence);
    Ok(files)
}

/// Rows F and G, and whether the file was begun.
async fn examine<D: Disk>(disk: &D, owner: Owner, sequence: u64, path: PathBuf) -> Result<Listed, EngineError> {
    let file = disk.open(&path).await?;
    let bytes = file.size().await?;
    let head = file.read_at(0, HEADER_BYTES + BLOCK_BYTES).await?;
    let named = header::decode(&head, owner, &path)?;
    if let Some(found) = named.filter(|found| *found > sequence) {
        return Err(EngineError::corruption(&path, 40, format!("the header is that of file {found}")));
    }
    let first = batch::record_at(&head, sequence, HEADER_BYTES).ok();
    let previous_end = first
        .filter(|first| first.kind == KIND_START)
        .and_then(|first| first.payload.first_chunk().map(|end| u64::from_le_bytes(*end)));
    drop(head);
    let has_records = previous_end.is_some() || {
        let all = read_all(disk, &path).await?;
        batch::later_batch(&all, sequence, 0).is_some()
    };
    let state = match (named, has_records) {
        (Some(found), true) if found == sequence => FileState::Begun { previous_end },
        (Some(found), false) if found == sequence => FileState::Ready,
        (_, true) => return Err(EngineError::corruption(&path, 0, "the header cannot be read")),
        (_, false) => FileState::Raw,
    };
    Ok(Listed { sequence, path, bytes, state })
}

/// Row H: the files up to the last one that was begun follow one another.
fn check_sequences(files: &[Listed]) -> Result<(), EngineError> {
    let begun = |file: &Listed| matches!(file.state, FileState::Begun { .. });
    let used = files.iter().rposition(begun).map_or(0, |last| last + 1);
    for (index, file) in files[..used].iter().enumerate() {
        if !begun(file) {
            return Err(EngineError::corruption(&file.path, 0, "no record in a file that is followed by others"));
        }
        if index > 0 && files[index - 1].sequence + 1 != file.sequence {
            let reason = format!("the files between {} and {} are missing", files[index - 1].sequence, file.sequence);
            return Err(EngineError::corruption(&file.path, 0, reason));
        }
    }
    Ok(())
}

/// Rows A to E. `until`: whether a later file was begun, and where that says this one ends. Returns where the next
/// batch goes.
fn read_file(
    file: &Listed,
    bytes: &[u8],
    until: Option<Option<u64>>,
    report: &mut WalReport,
    visit: &mut impl FnMut(u64, WalEntry) -> Result<(), EngineError>,
) -> Result<u64, EngineError> {
    let mut start = HEADER_BYTES;
    loop {
        if until.flatten() == Some(start as u64) {
            return Ok(start as u64);
        }
        match batch::batch_at(bytes, file.sequence, start) {
            Ok(records) => {
                for record in &records {
                    report.records += 1;
                    visit_record(file, record, visit)?;
                }
                let batch_bytes = records[0].batch_bytes;
                report.bytes += batch_bytes as u64;
                start = batch::next_start(start, batch_bytes);
            }
            Err(unreadable) => return end_of(file, bytes, start, until, unreadable, report),
        }
    }
}

fn end_of(
    file: &Listed,
    bytes: &[u8],
    start: usize,
    until: Option<Option<u64>>,
    unreadable: Unreadable,
    report: &mut WalReport,
) -> Result<u64, EngineError> {
    let damage = |reason: String| Err(EngineError::corruption(&file.path, unreadable.position as u64, reason));
    if let Some(end) = until.flatten() {
        return damage(format!("{}; the log goes on to byte {end} and into the next file", unreadable.reason));
    }
    let later = batch::later_batch(bytes, file.sequence, start).filter(|_| !overlooks(Overlooked::LaterBatches));
    if let Some(later) = later {
        return damage(format!("{}; a later record can be read at byte {later}", unreadable.reason));
    }
    if until.is_some() {
        // The next file's first batch is torn or rotten, so nothing says where this one ends; `examine` found records
        // behind that batch, which makes it rot, and reading that file will say so.
        return Ok(start as u64);
    }
    // Rows A and C do the same; what was begun in this life of the file is worth a line in the report.
    if batch::begins_at(bytes, file.sequence, start) {
        report.cut =
            Some(Cut { path: file.path.clone(), position: unreadable.position as u64, reason: unreadable.reason });
    }
    Ok(start as u64)
}

fn visit_record(
    file: &Listed,
    found: &batch::Found<'_>,
    visit: &mut impl FnMut(u64, WalEntry) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    if matches!(found.kind, KIND_START | KIND_MARK) {
        return Ok(());
    }
    // The checksum was right, so these bytes were meant: a newer release wrote them, or a bug of ours.
    let (record, rows_at) = LogRecord::decode(found.kind, found.payload)
        .map_err(|reason| EngineError::corruption(&file.path, found.position as u64, reason))?;
    let rows = Bytes::copy_from_slice(&found.payload[rows_at..]);
    let entry = WalEntry { record, rows };
    visit(file.sequence, entry).map_err(|error| match error {
        EngineError::Rows(reason) => EngineError::corruption(&file.path, found.position as u64, reason),
        other => other,
    })
}
