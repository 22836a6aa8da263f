//! Bytes from anywhere as a shard's log or as a chunk's manifest, with checksums that are right where that is what it
//! takes to get further: what fuzzing and the replay of its corpora call.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use meridian_proto::{ChunkId, ClusterId, NodeId, ShardId};

use super::{Shard, ShardOptions};
use crate::disk::SimulatedDisk;
use crate::layout::{self, MANIFEST_NAME};
use crate::manifest::{self, ManifestOwner};
use crate::pace::executor::simulate;
use crate::wal::batch::{self, KIND_START, Part};
use crate::wal::{Owner, header};

const CLUSTER: ClusterId = ClusterId(9);
const NODE: NodeId = NodeId(2);
const SHARD: ShardId = ShardId(0);
const CHUNK: ChunkId = ChunkId(7);
const WAL_FILE_BYTES: usize = 64 << 10;
/// A step that begins a new batch of the log.
const BATCH_BIT: u8 = 0x80;

/// Opens a shard whose log the bytes are, and flushes what it found. Byte 0: whether they are the file behind its
/// header, or records: kind (bit 7: the first one of a batch), length (2 bytes, little endian), payload.
#[doc(hidden)]
pub fn log_arbitrary(bytes: &[u8]) {
    let Some((form, bytes)) = bytes.split_first() else { return };
    let file = if form & 1 == 0 { bytes.to_vec() } else { records(bytes) };
    let owner = Owner { cluster: CLUSTER, node: NODE, shard: SHARD };
    let file = [header::encode(owner, 1).as_slice(), &file].concat();
    open_and_flush(&layout::wal_directory(&directory()).join(layout::wal_name(1)), &file, None);
}

/// Opens a shard with a chunk whose manifest the bytes are, and flushes what it found. Byte 0: the format version of
/// which they are the payload, 0 for the whole file.
#[doc(hidden)]
pub fn manifest_arbitrary(bytes: &[u8]) {
    let Some((version, bytes)) = bytes.split_first() else { return };
    let owner = ManifestOwner { cluster: CLUSTER, node: NODE, chunk: CHUNK };
    let file = match version % 3 {
        0 => bytes.to_vec(),
        version => manifest::frame(owner, u32::from(version), bytes),
    };
    let log = records(&[]);
    let owner = Owner { cluster: CLUSTER, node: NODE, shard: SHARD };
    let log = [header::encode(owner, 1).as_slice(), &log].concat();
    open_and_flush(&layout::chunk_directory(&directory(), CHUNK).join(MANIFEST_NAME), &file, Some(&log));
}

fn directory() -> PathBuf {
    PathBuf::from("/data/shard0")
}

/// Batches of the records in the bytes, one behind the other as in a log file.
fn records(bytes: &[u8]) -> Vec<u8> {
    let start = Part { kind: KIND_START, head: 0u64.to_le_bytes().to_vec(), rows: Bytes::new() };
    let (mut file, mut parts, mut left) = (Vec::new(), vec![start], bytes);
    while let Some(([kind, length @ ..], rest)) = left.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        if kind & BATCH_BIT != 0 {
            push_batch(&mut file, &std::mem::take(&mut parts));
        }
        // 0 is no kind of a frame.
        let kind = (kind & !BATCH_BIT).max(1);
        parts.push(Part { kind, head: rest[..length].to_vec(), rows: Bytes::new() });
        left = &rest[length..];
    }
    push_batch(&mut file, &parts);
    file
}

fn push_batch(file: &mut Vec<u8>, parts: &[Part]) {
    if !parts.is_empty() {
        let start = header::HEADER_BYTES + file.len();
        file.extend_from_slice(&batch::encode(1, start as u32, parts));
    }
}

/// Nothing may come of it but a shard or an error.
fn open_and_flush(path: &Path, file: &[u8], log: Option<&[u8]>) {
    simulate(1, async {
        let disk = SimulatedDisk::new(1);
        disk.place(path, file);
        if let Some(log) = log {
            let path = layout::wal_directory(&directory()).join(layout::wal_name(1));
            disk.place(&path, log);
        }
        let options =
            ShardOptions { wal_file_bytes: WAL_FILE_BYTES, ..ShardOptions::new(SHARD, directory(), CLUSTER, NODE) };
        if let Ok((shard, _)) = Shard::open_on(disk, options).await {
            let _ = shard.status();
            let _ = shard.flush().await;
            shard.close().await;
        }
    });
}
