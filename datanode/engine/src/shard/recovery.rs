//! Opening a shard: manifests first, then the log's records that no manifest holds, in order; then what a crash left
//! behind is swept away.
//!
//! | | found | a crash could have left it | then |
//! |---|---|---|---|
//! | A | a manifest | | the chunk is as the manifest says, plus later records |
//! | B | no manifest, the log describes the chunk from its first record | before its first flush ended | from the log |
//! | C | records of a chunk without description, its removal later in the log | while it was removed | removed again |
//! | D | records of a chunk without description or removal | no | damage |
//! | E | a folder with segments, no manifest, not in the log | no | damage |
//! | F | segments that the manifest does not name | while a flush or a rewrite ran, or before its inputs were removed | swept |
//! | G | a segment that the manifest names is missing | no | damage |
//! | H | manifests, but no log | no | damage |

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::RecordBatch;
use meridian_proto::ChunkId;
use meridian_proto::ids::SegmentId;
use meridian_proto::rows::decode_rows;

use super::chunk::{Chunk, ChunkState};
use super::options::{RecoveryReport, ShardOptions};
use crate::disk::Disk;
use crate::error::EngineError;
use crate::layout::{self, MANIFEST_NAME, TEMPORARY_SUFFIX};
use crate::manifest::{self, ManifestOwner};
use crate::memtable;
use crate::pace::Signal;
use crate::record::{Body, RowsBody};
use crate::segment::SegmentReader;
use crate::wal::{Owner, Wal, WalEntry, WalOptions, WalReport};

pub(super) struct Recovered<D: Disk> {
    pub wal: Wal<D>,
    pub chunks: BTreeMap<ChunkId, Rc<Chunk<D>>>,
    pub report: RecoveryReport,
}

pub(super) async fn recover<D: Disk>(
    disk: &D,
    options: &ShardOptions,
    left: &Rc<Signal>,
) -> Result<Recovered<D>, EngineError> {
    let chunks_directory = layout::chunks_directory(&options.directory);
    disk.create_directory(&chunks_directory).await?;
    // A folder whose own name a power cut takes away takes all that is in it along.
    if let Some(above) = options.directory.parent().filter(|above| !above.as_os_str().is_empty()) {
        disk.sync_directory(above).await?;
    }
    disk.sync_directory(&options.directory).await?;
    let mut recovery = Recovery {
        chunks: BTreeMap::new(),
        unknown: BTreeMap::new(),
        removed: BTreeSet::new(),
        rows: 0,
        left: Rc::clone(left),
    };
    let folders = load_manifests(disk, options, &chunks_directory, &mut recovery).await?;
    refuse_missing_log(disk, options, &recovery).await?;

    let wal_options = WalOptions {
        directory: layout::wal_directory(&options.directory),
        owner: Owner { cluster: options.cluster, node: options.node, shard: options.shard },
        file_bytes: options.wal_file_bytes as u64,
    };
    let directory = &options.directory;
    let (wal, found) =
        Wal::open(disk, &wal_options, |sequence, entry| recovery.replay(directory, sequence, entry)).await?;
    if let Some((chunk, position)) = recovery.unknown.first_key_value() {
        // Row D.
        let path = wal_options.directory.join(layout::wal_name(*position));
        return Err(EngineError::corruption(&path, 0, format!("records of chunk {chunk}, which nothing describes")));
    }
    for folder in folders {
        sweep(disk, &chunks_directory, folder, &recovery).await?;
    }
    let report = recovery.report(found);
    Ok(Recovered { wal, chunks: recovery.chunks, report })
}

/// Row A. Returns the numbers of all chunk folders.
async fn load_manifests<D: Disk>(
    disk: &D,
    options: &ShardOptions,
    chunks_directory: &Path,
    recovery: &mut Recovery<D>,
) -> Result<Vec<ChunkId>, EngineError> {
    let mut folders = Vec::new();
    for name in disk.list(chunks_directory).await? {
        let Some(chunk) = name.parse().ok().map(ChunkId) else { continue };
        folders.push(chunk);
        let directory = chunks_directory.join(name);
        let owner = ManifestOwner { cluster: options.cluster, node: options.node, chunk };
        // The manifest that is read is the one that a power cut leaves.
        disk.sync_directory(&directory).await?;
        if let Some(manifest) = manifest::load(disk, &directory, owner).await? {
            // A newer release that has written segments has written the newest one.
            if let Some(newest) = manifest.segments.iter().map(|segment| segment.segment).max() {
                SegmentReader::refuse_newer(disk, &directory, SegmentId(newest)).await?;
            }
            let state = ChunkState::restore(chunk, &manifest).ok_or_else(|| {
                EngineError::corruption(&directory.join(MANIFEST_NAME), 0, "a column has an unknown type")
            })?;
            recovery.chunks.insert(chunk, Chunk::new(chunk, directory, state, &recovery.left));
        }
    }
    Ok(folders)
}

/// Row H.
async fn refuse_missing_log<D: Disk>(
    disk: &D,
    options: &ShardOptions,
    recovery: &Recovery<D>,
) -> Result<(), EngineError> {
    let directory = layout::wal_directory(&options.directory);
    let names = match disk.list(&directory).await {
        Err(error) if error.is_not_found() => Vec::new(),
        names => names?,
    };
    if !recovery.chunks.is_empty() && !names.iter().any(|name| layout::wal_sequence(name).is_some()) {
        return Err(EngineError::corruption(&directory, 0, "the log is missing"));
    }
    Ok(())
}

struct Recovery<D: Disk> {
    chunks: BTreeMap<ChunkId, Rc<Chunk<D>>>,
    /// Chunks with records that nothing described so far, with the first log file of each.
    unknown: BTreeMap<ChunkId, u64>,
    removed: BTreeSet<ChunkId>,
    rows: u64,
    left: Rc<Signal>,
}

impl<D: Disk> Recovery<D> {
    fn replay(&mut self, directory: &Path, sequence: u64, entry: WalEntry) -> Result<(), EngineError> {
        let id = entry.record.chunk;
        match &entry.record.body {
            Body::Removed => {
                // Row C.
                self.chunks.remove(&id);
                self.unknown.remove(&id);
                self.removed.insert(id);
                return Ok(());
            }
            Body::Spec(spec) if entry.record.lsn.0 == 0 && !self.chunks.contains_key(&id) => {
                // Row B.
                let state = ChunkState::fresh(id, spec);
                let chunk = Chunk::new(id, layout::chunk_directory(directory, id), state, &self.left);
                self.chunks.insert(id, chunk);
            }
            _ => {}
        }
        let Some(chunk) = self.chunks.get(&id) else {
            self.unknown.entry(id).or_insert(sequence);
            return Ok(());
        };
        let mut state = chunk.state.borrow_mut();
        state.pins.insert(sequence);
        self.rows += replay_into(&mut state, &entry).map_err(EngineError::Rows)?;
        Ok(())
    }

    fn report(&self, found: WalReport) -> RecoveryReport {
        let segments = |chunk: &Rc<Chunk<D>>| chunk.state.borrow().segments.len();
        RecoveryReport {
            chunks: self.chunks.len(),
            segments: self.chunks.values().map(segments).sum(),
            wal_files: found.file_count,
            wal_records: found.records,
            wal_bytes: found.bytes,
            wal_rows: self.rows,
            cut: found.cut,
        }
    }
}

/// Folds one record; returns the rows that entered.
fn replay_into<D: Disk>(state: &mut ChunkState<D>, entry: &WalEntry) -> Result<u64, String> {
    let effects = state.replica.replay(&entry.record)?;
    let Some(effects) = effects else {
        if let Body::Spec(spec) = &entry.record.body {
            state.apply_spec(spec).map_err(|error| error.to_string())?;
            let schema = Arc::clone(&state.schema);
            state.expect_schema(schema);
        }
        return Ok(0);
    };
    let mut rows = match &entry.record.body {
        Body::Rows(body) => Some(decode(state, body, entry)?),
        _ => None,
    };
    let row_count = rows.as_ref().map_or(0, |(batch, _)| batch.num_rows() as u64);
    for effect in effects {
        state.apply(effect, rows.take()).map_err(|error| error.to_string())?;
    }
    Ok(row_count)
}

fn decode<D: Disk>(state: &ChunkState<D>, body: &RowsBody, entry: &WalEntry) -> Result<(RecordBatch, usize), String> {
    let version = body.schema_version;
    let schema = state.schemas.get(&version).ok_or_else(|| format!("rows of unknown schema version {version}"))?;
    let mut batch = decode_rows(&entry.rows, &schema.arrow()).map_err(|error| error.to_string())?;
    if schema.version != state.schema.version {
        batch = memtable::to_schema(&batch, schema, &state.schema).map_err(|error| error.to_string())?;
    }
    if batch.num_rows() as u64 != body.row_count {
        return Err(format!("{} rows instead of {}", batch.num_rows(), body.row_count));
    }
    let bytes = memtable::memory_bytes(entry.rows.len(), batch.num_columns());
    Ok((batch, bytes))
}

/// Rows E, F, G: makes the folder hold what its manifest names.
async fn sweep<D: Disk>(
    disk: &D,
    chunks_directory: &Path,
    id: ChunkId,
    recovery: &Recovery<D>,
) -> Result<(), EngineError> {
    let directory = chunks_directory.join(id.to_string());
    if recovery.removed.contains(&id) {
        return remove_folder(disk, chunks_directory, id).await;
    }
    let names = disk.list(&directory).await?;
    let Some(chunk) = recovery.chunks.get(&id) else {
        if names.iter().any(|name| name.ends_with(".seg")) {
            return Err(EngineError::corruption(&directory, 0, "segments without a manifest"));
        }
        return Ok(());
    };
    let named: BTreeSet<String> = {
        let state = chunk.state.borrow();
        // Runs that the log discarded stay until the next manifest no longer names them.
        let all = state.segments.iter().chain(&state.garbage);
        all.map(|segment| layout::segment_name(segment.stored.id())).collect()
    };
    if let Some(missing) = named.iter().find(|name| !names.contains(name)) {
        return Err(EngineError::corruption(&directory.join(missing), 0, "the segment is missing"));
    }
    for name in names {
        let is_segment = name.ends_with(".seg") && !named.contains(&name);
        if is_segment || name.ends_with(TEMPORARY_SUFFIX) {
            disk.remove(&directory.join(name)).await?;
        }
    }
    Ok(())
}

/// Removes a chunk's folder, the manifest first: without it the rest is nothing.
pub(super) async fn remove_folder<D: Disk>(disk: &D, chunks_directory: &Path, id: ChunkId) -> Result<(), EngineError> {
    let directory = chunks_directory.join(id.to_string());
    let mut names = match disk.list(&directory).await {
        Err(error) if error.is_not_found() => return Ok(()),
        names => names?,
    };
    names.sort_by_key(|name| name != MANIFEST_NAME);
    for name in names {
        disk.remove(&directory.join(&name)).await?;
        if name == MANIFEST_NAME {
            disk.sync_directory(&directory).await?;
        }
    }
    disk.remove_directory(&directory).await?;
    disk.sync_directory(chunks_directory).await?;
    Ok(())
}
