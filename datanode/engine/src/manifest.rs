//! What a chunk consists of as of one position of its log: segments, staged runs, decisions, dedupe window, schemas.
//! Replaced as a whole; recovery starts from it and folds the WAL's later records.
//!
//! ```text
//! offset  size  field (little endian)
//!      0     8  "MERIDMAN"
//!      8     4  format version
//!     12     4  CRC-32C of the bytes 0..12 and 16..64
//!     16    16  cluster
//!     32     8  node
//!     40     8  chunk
//!     48     8  length of the payload in bytes
//!     56     4  CRC-32C of the payload
//!     60     4  zero
//!     64     -  payload: ManifestV2 (rkyv), in version 1 ManifestV1; then zeros up to the end of the block
//! ```

mod v1;

use std::path::Path;

use meridian_proto::{ChunkId, ClusterId, ColumnId, CommandId, NodeId, SegmentId, Ts};
use meridian_proto::{Epoch, Lsn, ProducerId, Sequence, TransactionId};
use rkyv::{Archive, Deserialize, Serialize};

use crate::disk::{self, Disk, DiskFile};
use crate::error::EngineError;
use crate::layout::MANIFEST_NAME;
use crate::order::{OrderColumn, RowOrder};
use crate::replica::{Phase, Piece, ReplicaState, Transaction};
use crate::stored::{self, SchemaV1, SortKeyV1};

pub const MANIFEST_FORMAT_VERSION: u32 = 2;
const MAGIC: &[u8; 8] = b"MERIDMAN";
const HEADER_BYTES: usize = 64;

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ManifestV2 {
    pub table: u32,
    /// All versions that rows in the WAL may have, oldest first; the last one is current.
    pub schemas: Vec<SchemaV1>,
    pub sort: SortKeyV1,
    pub epoch: u64,
    /// Everything up to this position is in here.
    pub flushed_upto: u64,
    /// Numbers from here on were never used for a segment.
    pub segment_next: u64,
    /// In order of arrival.
    pub segments: Vec<SegmentV2>,
    pub low_waters: Vec<LowWaterV1>,
    pub transactions: Vec<TransactionV1>,
    /// How the chunk is compressed; its segments say which of them are.
    pub compression: Option<CompressionV2>,
    /// Commit timestamps of rows up to here were dropped: no snapshot below it can be read (R24).
    pub history_upto: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SegmentV2 {
    pub segment: u64,
    pub rows: u64,
    pub file_bytes: u64,
    pub commits: Option<(u64, u64)>,
    /// Range of the time column, both ends inclusive; absent when it is not known or all are NULL.
    pub time: Option<(i64, i64)>,
    /// Of a staged run: whose it is, and its commit timestamp once it is decided.
    pub run: Option<RunV1>,
    pub order: OrderV2,
    pub is_compressed: bool,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CompressionV2 {
    pub order: OrderV2,
    /// Bytes of the segments that the compressed ones were made from.
    pub bytes_before: u64,
}

/// A [`RowOrder`].
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct OrderV2 {
    pub segment_by: Vec<u16>,
    pub order_by: Vec<OrderColumnV2>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct OrderColumnV2 {
    pub column: u16,
    pub descending: bool,
    pub nulls_first: bool,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct RunV1 {
    pub producer: u64,
    pub sequence: u64,
    pub command: u32,
    pub commit: Option<u64>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct LowWaterV1 {
    pub producer: u64,
    pub sequence: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct TransactionV1 {
    pub producer: u64,
    pub sequence: u64,
    pub phase: PhaseV1,
    pub pieces: Vec<PieceV1>,
    pub participants: Vec<u64>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum PhaseV1 {
    Staged { holder: u64 },
    Committed { commit: u64 },
    Aborted,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PieceV1 {
    pub piece: u32,
    pub command: u32,
    pub row_count: u64,
    pub is_one_phase: bool,
}

/// Whose a manifest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestOwner {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub chunk: ChunkId,
}

/// Replaces the chunk's manifest; the old one or the new one survives a power cut.
pub async fn store<D: Disk>(
    disk: &D,
    directory: &Path,
    owner: ManifestOwner,
    manifest: &ManifestV2,
) -> Result<(), EngineError> {
    disk::replace(disk, directory, MANIFEST_NAME, &encode(owner, manifest)).await?;
    Ok(())
}

/// The chunk's manifest, or `None` when it has none.
pub async fn load<D: Disk>(
    disk: &D,
    directory: &Path,
    owner: ManifestOwner,
) -> Result<Option<ManifestV2>, EngineError> {
    let path = directory.join(MANIFEST_NAME);
    let file = match disk.open(&path).await {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let size = usize::try_from(file.size().await?).unwrap_or(usize::MAX);
    let bytes = file.read_at(0, size).await?;
    decode(&bytes, owner, &path).map(Some)
}

fn encode(owner: ManifestOwner, manifest: &ManifestV2) -> Vec<u8> {
    frame(owner, MANIFEST_FORMAT_VERSION, &stored::to_bytes(manifest))
}

/// The file of a manifest with this payload.
pub(crate) fn frame(owner: ManifestOwner, version: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[0..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    bytes[16..32].copy_from_slice(&owner.cluster.0.to_le_bytes());
    bytes[32..40].copy_from_slice(&owner.node.0.to_le_bytes());
    bytes[40..48].copy_from_slice(&owner.chunk.0.to_le_bytes());
    bytes[48..56].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes[56..60].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let checksum = header_checksum(&bytes);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn header_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[0..12]), &bytes[16..HEADER_BYTES])
}

fn decode(bytes: &[u8], owner: ManifestOwner, path: &Path) -> Result<ManifestV2, EngineError> {
    let damage = |position: usize, reason: &str| EngineError::corruption(path, position as u64, reason);
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Err(damage(0, "the file is cut off")) };
    let half = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let word = |at: usize| u64::from(half(at)) | u64::from(half(at + 4)) << 32;
    if &header[0..8] != MAGIC || half(12) != header_checksum(header) {
        return Err(damage(0, "header checksum mismatch"));
    }
    if half(8) > MANIFEST_FORMAT_VERSION {
        let (found, known) = (half(8), MANIFEST_FORMAT_VERSION);
        return Err(EngineError::NewerFormat { path: path.to_owned(), found, known });
    }
    let cluster = ClusterId(u128::from(word(16)) | u128::from(word(24)) << 64);
    let found = ManifestOwner { cluster, node: NodeId(word(32)), chunk: ChunkId(word(40)) };
    if found != owner {
        let name =
            |owner: ManifestOwner| format!("chunk {} of node {} of cluster {}", owner.chunk, owner.node, owner.cluster);
        return Err(EngineError::Foreign { path: path.to_owned(), found: name(found), expected: name(owner) });
    }
    let length = usize::try_from(word(48)).unwrap_or(usize::MAX);
    let payload = bytes.get(HEADER_BYTES..HEADER_BYTES.saturating_add(length));
    let payload = payload.ok_or_else(|| damage(bytes.len(), "the file is cut off"))?;
    if crc32c::crc32c(payload) != half(56) {
        return Err(damage(HEADER_BYTES, "payload checksum mismatch"));
    }
    let manifest = match half(8) {
        1 => stored::from_bytes(payload).map(v1::ManifestV1::upgrade),
        _ => stored::from_bytes(payload),
    };
    manifest.map_err(|reason| damage(HEADER_BYTES, &reason))
}

impl ManifestV2 {
    /// The core's state as of `flushed_upto`.
    #[must_use]
    pub fn replica_state(&self) -> ReplicaState {
        let low_water = |low: &LowWaterV1| (ProducerId(low.producer), Sequence(low.sequence));
        ReplicaState {
            epoch: Epoch(self.epoch),
            synced: Lsn(self.flushed_upto),
            low_waters: self.low_waters.iter().map(low_water).collect(),
            transactions: self.transactions.iter().map(TransactionV1::restore).collect(),
        }
    }
}

/// The core's state in the form of a manifest: low-water marks and transactions.
#[must_use]
pub fn store_state(state: &ReplicaState) -> (Vec<LowWaterV1>, Vec<TransactionV1>) {
    let low_waters = state.low_waters.iter();
    let low_waters = low_waters.map(|(producer, sequence)| LowWaterV1 { producer: producer.0, sequence: sequence.0 });
    (low_waters.collect(), state.transactions.iter().map(|(id, of)| TransactionV1::of(*id, of)).collect())
}

impl TransactionV1 {
    fn of(id: TransactionId, transaction: &Transaction) -> Self {
        let pieces = transaction.pieces.iter().map(|(number, piece)| PieceV1 {
            piece: *number,
            command: piece.command.0,
            row_count: piece.row_count,
            is_one_phase: piece.is_one_phase,
        });
        Self {
            producer: id.producer.0,
            sequence: id.sequence.0,
            phase: match transaction.phase {
                Phase::Staged { holder } => PhaseV1::Staged { holder: holder.0 },
                Phase::Committed(commit) => PhaseV1::Committed { commit: commit.0 },
                Phase::Aborted => PhaseV1::Aborted,
            },
            pieces: pieces.collect(),
            participants: transaction.participants.iter().map(|chunk| chunk.0).collect(),
        }
    }

    fn restore(&self) -> (TransactionId, Transaction) {
        let id = TransactionId { producer: ProducerId(self.producer), sequence: Sequence(self.sequence) };
        let phase = match self.phase {
            PhaseV1::Staged { holder } => Phase::Staged { holder: ChunkId(holder) },
            PhaseV1::Committed { commit } => Phase::Committed(Ts(commit)),
            PhaseV1::Aborted => Phase::Aborted,
        };
        let piece = |stored: &PieceV1| {
            let (row_count, command) = (stored.row_count, CommandId(stored.command));
            (stored.piece, Piece { row_count, command, is_one_phase: stored.is_one_phase })
        };
        let participants = self.participants.iter().map(|chunk| ChunkId(*chunk)).collect();
        (id, Transaction { phase, pieces: self.pieces.iter().map(piece).collect(), participants })
    }
}

impl From<&RowOrder> for OrderV2 {
    fn from(order: &RowOrder) -> Self {
        let column = |by: &OrderColumn| OrderColumnV2 {
            column: by.column.0,
            descending: by.descending,
            nulls_first: by.nulls_first,
        };
        let segment_by = order.segment_by.iter().map(|id| id.0).collect();
        Self { segment_by, order_by: order.order_by.iter().map(column).collect() }
    }
}

impl OrderV2 {
    #[must_use]
    pub fn order(&self) -> RowOrder {
        let column = |by: &OrderColumnV2| OrderColumn {
            column: ColumnId(by.column),
            descending: by.descending,
            nulls_first: by.nulls_first,
        };
        let segment_by = self.segment_by.iter().map(|id| ColumnId(*id)).collect();
        RowOrder { segment_by, order_by: self.order_by.iter().map(column).collect() }
    }
}

impl SegmentV2 {
    #[must_use]
    pub fn id(&self) -> SegmentId {
        SegmentId(self.segment)
    }
}

impl RunV1 {
    #[must_use]
    pub fn transaction(&self) -> TransactionId {
        TransactionId { producer: ProducerId(self.producer), sequence: Sequence(self.sequence) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;
    use crate::disk::SimulatedDisk;
    use crate::testing::run;

    fn owner() -> ManifestOwner {
        ManifestOwner { cluster: ClusterId(1 << 100 | 5), node: NodeId(3), chunk: ChunkId(7) }
    }

    fn manifest() -> ManifestV2 {
        let piece = Piece { row_count: 5, command: CommandId(1), is_one_phase: false };
        let transaction = |phase| Transaction {
            phase,
            pieces: BTreeMap::from([(0, piece), (4, piece)]),
            participants: vec![ChunkId(7), ChunkId(8)],
        };
        let id = |sequence| TransactionId { producer: ProducerId(9), sequence: Sequence(sequence) };
        let state = ReplicaState {
            epoch: Epoch(4),
            synced: Lsn(100),
            low_waters: BTreeMap::from([(ProducerId(9), Sequence(2))]),
            transactions: BTreeMap::from([
                (id(2), transaction(Phase::Aborted)),
                (id(3), transaction(Phase::Committed(Ts(77)))),
                (id(4), transaction(Phase::Staged { holder: ChunkId(8) })),
            ]),
        };
        let (low_waters, transactions) = store_state(&state);
        let run = RunV1 { producer: 9, sequence: 4, command: 1, commit: None };
        let descending = OrderColumn { column: ColumnId(2), descending: true, nulls_first: false };
        let order = RowOrder { segment_by: vec![ColumnId(1)], order_by: vec![descending] };
        assert_eq!(OrderV2::from(&order).order(), order);
        let staged = SegmentV2 {
            segment: 3,
            rows: 10,
            file_bytes: 8192,
            commits: None,
            time: Some((-5, 5)),
            run: Some(run),
            order: (&order).into(),
            is_compressed: false,
        };
        let manifest = ManifestV2 {
            table: 16_384,
            schemas: Vec::new(),
            sort: SortKeyV1 { segment_by: vec![1], time: None },
            epoch: 4,
            flushed_upto: 100,
            segment_next: 4,
            segments: vec![staged],
            low_waters,
            transactions,
            compression: Some(CompressionV2 { order: (&order).into(), bytes_before: 5 }),
            history_upto: 6,
        };
        assert_eq!(manifest.replica_state(), state);
        manifest
    }

    #[test]
    fn a_manifest_is_read_back() {
        run(async {
            let (disk, directory) = (SimulatedDisk::new(1), PathBuf::from("/chunk"));
            disk.create_directory(&directory).await.unwrap();
            assert_eq!(load(&disk, &directory, owner()).await.unwrap(), None);
            store(&disk, &directory, owner(), &manifest()).await.unwrap();
            assert_eq!(load(&disk.crash(), &directory, owner()).await.unwrap(), Some(manifest()));
            let stranger = ManifestOwner { node: NodeId(4), ..owner() };
            assert!(matches!(load(&disk, &directory, stranger).await, Err(EngineError::Foreign { .. })));
        });
    }

    #[test]
    fn a_crash_while_it_is_replaced_leaves_the_old_or_the_new_one() {
        run(async {
            for seed in 0..40 {
                let (disk, directory) = (SimulatedDisk::new(seed), PathBuf::from("/chunk"));
                disk.create_directory(&directory).await.unwrap();
                store(&disk, &directory, owner(), &manifest()).await.unwrap();
                let newer = ManifestV2 { flushed_upto: 200, ..manifest() };
                disk.fail_sync(1 + seed % 2);
                assert!(store(&disk, &directory, owner(), &newer).await.is_err());
                let found = load(&disk.crash(), &directory, owner()).await.unwrap().unwrap();
                assert!(found == manifest() || found == newer);
            }
        });
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encode(owner(), &manifest());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged, owner(), Path::new("MANIFEST")).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], owner(), Path::new("MANIFEST")).is_err(), "{length}");
        }
    }

    fn fixture(version: u32) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/manifest-v{version}"))
    }

    #[test]
    #[ignore = "writes the fixtures, which a released format never does again"]
    fn write_fixtures() {
        std::fs::write(fixture(1), frame(owner(), 1, &stored::to_bytes(&v1::tests::manifest()))).unwrap();
        std::fs::write(fixture(2), encode(owner(), &manifest())).unwrap();
    }

    #[test]
    fn a_manifest_of_version_2_is_read() {
        let bytes = std::fs::read(fixture(2)).unwrap();
        assert!(encode(owner(), &manifest()) == bytes, "version 2 never changes");
        assert_eq!(decode(&bytes, owner(), Path::new("MANIFEST")).unwrap(), manifest());
    }

    #[test]
    fn a_manifest_of_version_1_is_read() {
        let bytes = std::fs::read(fixture(1)).unwrap();
        let old = v1::tests::manifest();
        assert!(frame(owner(), 1, &stored::to_bytes(&old)) == bytes, "version 1 never changes");
        let read = decode(&bytes, owner(), Path::new("MANIFEST")).unwrap();
        assert_eq!((read.flushed_upto, read.segments.len(), read.compression), (old.flushed_upto, 2, None));
        let hot = OrderV2 {
            segment_by: vec![2],
            order_by: vec![OrderColumnV2 { column: 1, descending: false, nulls_first: true }],
        };
        assert!(read.segments.iter().all(|segment| segment.order == hot && segment.time.is_none()));
    }
}
