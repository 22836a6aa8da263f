//! The manifest of format version 1: nothing compressed, all segments in the chunk's one order, times not known.

use rkyv::{Archive, Deserialize, Serialize};

use super::{LowWaterV1, ManifestV2, OrderV2, RunV1, SegmentV2, TransactionV1};
use crate::order::RowOrder;
use crate::stored::{SchemaV1, SortKeyV1};

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ManifestV1 {
    pub table: u32,
    pub schemas: Vec<SchemaV1>,
    pub sort: SortKeyV1,
    pub epoch: u64,
    pub flushed_upto: u64,
    pub segment_next: u64,
    pub segments: Vec<SegmentV1>,
    pub low_waters: Vec<LowWaterV1>,
    pub transactions: Vec<TransactionV1>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SegmentV1 {
    pub segment: u64,
    pub rows: u64,
    pub file_bytes: u64,
    pub commits: Option<(u64, u64)>,
    pub run: Option<RunV1>,
}

impl ManifestV1 {
    /// The same in the newest version.
    pub fn upgrade(self) -> ManifestV2 {
        let order = OrderV2::from(&RowOrder::from(&self.sort.sort()));
        let segment = |old: SegmentV1| SegmentV2 {
            segment: old.segment,
            rows: old.rows,
            file_bytes: old.file_bytes,
            commits: old.commits,
            time: None,
            run: old.run,
            order: order.clone(),
            is_compressed: false,
        };
        ManifestV2 {
            table: self.table,
            schemas: self.schemas,
            sort: self.sort,
            epoch: self.epoch,
            flushed_upto: self.flushed_upto,
            segment_next: self.segment_next,
            segments: self.segments.into_iter().map(segment).collect(),
            low_waters: self.low_waters,
            transactions: self.transactions,
            compression: None,
            history_upto: 0,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::{PhaseV1, PieceV1};
    use super::*;
    use crate::stored::ColumnV1;

    /// What the fixture holds.
    pub fn manifest() -> ManifestV1 {
        let column = |id, name: &str, sql_type: &str| ColumnV1 {
            id,
            name: name.to_owned(),
            sql_type: sql_type.to_owned(),
            not_null: id == 1,
            default: (id == 1).then(|| "now()".to_owned()),
        };
        let columns = vec![column(1, "time", "timestamp with time zone"), column(2, "host", "text")];
        let run = RunV1 { producer: 9, sequence: 4, command: 1, commit: None };
        let segment = |segment, commits, run| SegmentV1 { segment, rows: 10, file_bytes: 8192, commits, run };
        let piece = PieceV1 { piece: 0, command: 1, row_count: 10, is_one_phase: false };
        ManifestV1 {
            table: 16_384,
            schemas: vec![SchemaV1 { version: 1, columns }],
            sort: SortKeyV1 { segment_by: vec![2], time: Some(1) },
            epoch: 4,
            flushed_upto: 100,
            segment_next: 5,
            segments: vec![segment(3, Some((7, 9)), None), segment(4, None, Some(run))],
            low_waters: vec![LowWaterV1 { producer: 9, sequence: 2 }],
            transactions: vec![TransactionV1 {
                producer: 9,
                sequence: 4,
                phase: PhaseV1::Staged { holder: 8 },
                pieces: vec![piece],
                participants: vec![8],
            }],
        }
    }
}
