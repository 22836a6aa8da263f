//! One entry of a chunk's log, and its binary form within a WAL record.
//!
//! ```text
//! offset  size  field (all little endian)
//!      0     8  chunk
//!      8     8  epoch
//!     16     8  LSN; records that belong to this replica alone (spec, epoch, removed) carry that of the last record
//!     24     -  body, by type
//!
//! rows:      0 producer, 8 sequence, 16 low water, 24 snapshot, 32 commit timestamp or holder, 40 row count,
//!            48 piece (4), 52 command (4), 56 schema version (4), 60 mode (1: 1 committed, 2 staged), 61 zero (3),
//!            64 rows as on the wire
//! decision:  0 producer, 8 sequence, 16 commit timestamp (0: aborted), 24 row count, 32 participants (8 each)
//! resolve:   0 producer, 8 sequence, 16 commit timestamp (0: aborted)
//! spec:      SpecV1 (rkyv)
//! epoch, removed: empty
//! ```

use meridian_proto::schema::TableSchema;
use meridian_proto::{ChunkId, CommandId, Epoch, Lsn, ProducerId, SchemaVersion, Sequence, TableId, TransactionId, Ts};

use crate::scan::SortKey;
use crate::stored;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    pub chunk: ChunkId,
    pub epoch: Epoch,
    pub lsn: Lsn,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A batch of rows; the rows follow the body.
    Rows(RowsBody),
    /// The holder's word on a transaction.
    Decision(DecisionBody),
    /// A participant learned the holder's word; `None`: aborted.
    Resolve { transaction: TransactionId, commit: Option<Ts> },
    /// The chunk is known here, or has a new schema: recovery needs no catalog.
    Spec(Box<SpecBody>),
    /// Nothing older counts any more.
    Epoch,
    /// The chunk is gone.
    Removed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowsBody {
    pub transaction: TransactionId,
    pub low_water: Sequence,
    pub piece: u32,
    pub command: CommandId,
    pub snapshot: Ts,
    pub schema_version: SchemaVersion,
    pub row_count: u64,
    pub standing: Standing,
}

/// What makes a batch of rows visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// One phase: this commit timestamp.
    Committed(Ts),
    /// The decision of this chunk.
    Staged { holder: ChunkId },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionBody {
    pub transaction: TransactionId,
    /// `None`: aborted.
    pub commit: Option<Ts>,
    /// Rows staged at the holder.
    pub row_count: u64,
    pub participants: Vec<ChunkId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecBody {
    pub table: TableId,
    pub schema: TableSchema,
    pub sort: SortKey,
}

/// Record types within the WAL. 1 and 2 are the WAL's own.
pub const KIND_ROWS: u8 = 3;
pub const KIND_DECISION: u8 = 4;
pub const KIND_RESOLVE: u8 = 5;
pub const KIND_SPEC: u8 = 6;
pub const KIND_EPOCH: u8 = 7;
pub const KIND_REMOVED: u8 = 8;

const MODE_COMMITTED: u8 = 1;
const MODE_STAGED: u8 = 2;
/// Bytes of a rows record before the rows.
pub const ROWS_HEAD_BYTES: usize = 24 + 64;

impl LogRecord {
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self.body {
            Body::Rows(_) => KIND_ROWS,
            Body::Decision(_) => KIND_DECISION,
            Body::Resolve { .. } => KIND_RESOLVE,
            Body::Spec(_) => KIND_SPEC,
            Body::Epoch => KIND_EPOCH,
            Body::Removed => KIND_REMOVED,
        }
    }

    /// Whether the record has a position of its own in the chunk's replicated log.
    #[must_use]
    pub fn is_replicated(&self) -> bool {
        matches!(self.body, Body::Rows(_) | Body::Decision(_) | Body::Resolve { .. })
    }

    /// Everything but the rows, which follow.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ROWS_HEAD_BYTES);
        put(&mut bytes, &[self.chunk.0, self.epoch.0, self.lsn.0]);
        match &self.body {
            Body::Rows(rows) => rows.encode(&mut bytes),
            Body::Decision(decision) => {
                put_transaction(&mut bytes, decision.transaction);
                put(&mut bytes, &[decision.commit.unwrap_or_default().0, decision.row_count]);
                decision.participants.iter().for_each(|chunk| put(&mut bytes, &[chunk.0]));
            }
            Body::Resolve { transaction, commit } => {
                put_transaction(&mut bytes, *transaction);
                put(&mut bytes, &[commit.unwrap_or_default().0]);
            }
            Body::Spec(spec) => {
                let stored =
                    stored::SpecV1 { table: spec.table.0, schema: (&spec.schema).into(), sort: (&spec.sort).into() };
                bytes.extend_from_slice(&stored::to_bytes(&stored));
            }
            Body::Epoch | Body::Removed => {}
        }
        bytes
    }

    /// The record in a WAL payload, and where its rows begin.
    pub fn decode(kind: u8, bytes: &[u8]) -> Result<(Self, usize), String> {
        let mut cursor = Cursor { bytes, at: 0 };
        let head = (cursor.word(), cursor.word(), cursor.word());
        let (Some(chunk), Some(epoch), Some(lsn)) = head else { return Err("record without a head".to_owned()) };
        let body = match kind {
            KIND_ROWS => RowsBody::decode(&mut cursor).map(Body::Rows),
            KIND_DECISION => decode_decision(&mut cursor).map(Body::Decision),
            KIND_RESOLVE => decode_resolve(&mut cursor),
            KIND_SPEC => {
                return decode_spec(&bytes[cursor.at..]).map(|spec| {
                    let body = Body::Spec(Box::new(spec));
                    (Self { chunk: ChunkId(chunk), epoch: Epoch(epoch), lsn: Lsn(lsn), body }, bytes.len())
                });
            }
            KIND_EPOCH => Some(Body::Epoch),
            KIND_REMOVED => Some(Body::Removed),
            _ => return Err(format!("unknown record type {kind}")),
        };
        let body = body.ok_or_else(|| format!("record of type {kind} is cut off"))?;
        Ok((Self { chunk: ChunkId(chunk), epoch: Epoch(epoch), lsn: Lsn(lsn), body }, cursor.at))
    }
}

impl RowsBody {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let (mode, standing) = match self.standing {
            Standing::Committed(commit) => (MODE_COMMITTED, commit.0),
            Standing::Staged { holder } => (MODE_STAGED, holder.0),
        };
        put_transaction(bytes, self.transaction);
        put(bytes, &[self.low_water.0, self.snapshot.0, standing, self.row_count]);
        for word in [self.piece, self.command.0, self.schema_version.0, u32::from(mode)] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn decode(cursor: &mut Cursor<'_>) -> Option<Self> {
        let transaction = cursor.transaction()?;
        let (low_water, snapshot) = (Sequence(cursor.word()?), Ts(cursor.word()?));
        let (standing, row_count) = (cursor.word()?, cursor.word()?);
        let (piece, command, schema_version) = (cursor.half()?, cursor.half()?, cursor.half()?);
        let standing = match u8::try_from(cursor.half()?).ok()? {
            MODE_COMMITTED => Standing::Committed(Ts(standing)),
            MODE_STAGED => Standing::Staged { holder: ChunkId(standing) },
            _ => return None,
        };
        let (command, schema_version) = (CommandId(command), SchemaVersion(schema_version));
        Some(Self { transaction, low_water, piece, command, snapshot, schema_version, row_count, standing })
    }
}

fn decode_decision(cursor: &mut Cursor<'_>) -> Option<DecisionBody> {
    let transaction = cursor.transaction()?;
    let (commit, row_count) = (cursor.commit()?, cursor.word()?);
    let mut participants = Vec::new();
    while let Some(chunk) = cursor.word() {
        participants.push(ChunkId(chunk));
    }
    Some(DecisionBody { transaction, commit, row_count, participants })
}

fn decode_resolve(cursor: &mut Cursor<'_>) -> Option<Body> {
    Some(Body::Resolve { transaction: cursor.transaction()?, commit: cursor.commit()? })
}

fn decode_spec(bytes: &[u8]) -> Result<SpecBody, String> {
    let stored: stored::SpecV1 = stored::from_bytes(bytes)?;
    let schema = stored.schema.schema().ok_or("a column has an unknown type")?;
    Ok(SpecBody { table: TableId(stored.table), schema, sort: stored.sort.sort() })
}

fn put(bytes: &mut Vec<u8>, words: &[u64]) {
    words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
}

fn put_transaction(bytes: &mut Vec<u8>, transaction: TransactionId) {
    put(bytes, &[transaction.producer.0, transaction.sequence.0]);
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = *self.bytes.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(taken)
    }

    fn word(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn half(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn transaction(&mut self) -> Option<TransactionId> {
        Some(TransactionId { producer: ProducerId(self.word()?), sequence: Sequence(self.word()?) })
    }

    /// A commit timestamp, 0 for an abort.
    fn commit(&mut self) -> Option<Option<Ts>> {
        let commit = self.word()?;
        Some((commit != 0).then_some(Ts(commit)))
    }
}

#[cfg(test)]
mod tests {
    use meridian_proto::ColumnId;
    use meridian_proto::SqlType;
    use meridian_proto::schema::Column;

    use super::*;

    fn bodies() -> Vec<Body> {
        let transaction = TransactionId { producer: ProducerId(3), sequence: Sequence(9) };
        let rows = RowsBody {
            transaction,
            low_water: Sequence(4),
            piece: 5,
            command: CommandId(6),
            snapshot: Ts(7),
            schema_version: SchemaVersion(8),
            row_count: 10,
            standing: Standing::Committed(Ts(11)),
        };
        let staged = RowsBody { standing: Standing::Staged { holder: ChunkId(12) }, ..rows.clone() };
        let participants = vec![ChunkId(1), ChunkId(2)];
        let columns = vec![Column {
            id: ColumnId(1),
            name: "t".to_owned(),
            sql_type: SqlType::Numeric(Some((12, 2))),
            not_null: true,
            default: Some("now()".to_owned()),
            modifier: None,
        }];
        let schema = TableSchema { version: SchemaVersion(2), columns };
        let sort = SortKey { segment_by: vec![], time: Some(ColumnId(1)) };
        vec![
            Body::Rows(rows),
            Body::Rows(staged),
            Body::Decision(DecisionBody { transaction, commit: Some(Ts(5)), row_count: 7, participants }),
            Body::Resolve { transaction, commit: None },
            Body::Spec(Box::new(SpecBody { table: TableId(16_384), schema, sort })),
            Body::Epoch,
            Body::Removed,
        ]
    }

    #[test]
    fn every_record_is_read_back() {
        for body in bodies() {
            let record = LogRecord { chunk: ChunkId(7), epoch: Epoch(2), lsn: Lsn(40), body };
            let bytes = record.encode();
            assert_eq!(LogRecord::decode(record.kind(), &bytes), Ok((record.clone(), bytes.len())));
            for length in 0..bytes.len() {
                let _ = LogRecord::decode(record.kind(), &bytes[..length]);
            }
        }
    }

    #[test]
    fn the_rows_follow_a_head_of_known_size() {
        let record = LogRecord { chunk: ChunkId(7), epoch: Epoch(2), lsn: Lsn(40), body: bodies().remove(0) };
        assert_eq!(record.encode().len(), ROWS_HEAD_BYTES);
    }
}
