//! What fuzzing of files and of pieces begins with: a file of each kind and its parts.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use meridian_proto::ids::ColumnId;
use meridian_proto::types::SqlType;

use super::super::arbitrary::{footer_arbitrary, pieces_arbitrary, segment_arbitrary, types};
use super::super::footer::{ArchivedFooterPlace, Footer};
use super::super::format::{HEADER_BYTES, TRAILER_BYTES};
use super::super::page::PAGE_CHECKSUM_BYTES;
use super::super::pieces::{PieceColumn, Pieces};
use super::super::{SEGMENT_VERSION, SegmentRows};
use super::{file_path, limits, schema, spec, write_to};
use crate::disk::SimulatedDisk;
use crate::scan::SortKey;
use crate::testing::keep_in_corpus;

const ROWS: i64 = 480;

/// Two series of an hour and 20 minutes, in two row groups with pieces and commit timestamps of their own.
fn file() -> Vec<u8> {
    let table = schema(&[SqlType::Text, SqlType::Timestamptz, SqlType::Int8, SqlType::Float8]);
    let rows = 0..ROWS;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("host_{}", row / 240)))),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(
                rows.clone().map(|row| 1_700_000_000_000_000 + row % 240 * 20_000_000),
            )
            .with_timezone("UTC"),
        ),
        Arc::new(rows.clone().map(|row| (row % 9 > 0).then_some(row * row % 97)).collect::<Int64Array>()),
        Arc::new(Float64Array::from_iter_values(rows.map(|row| (row * 7919 % 1000) as f64 / 100.0))),
    ];
    let batch = RecordBatch::try_new(table.arrow(), columns).unwrap();
    let commits = Some((0..ROWS as u64).map(|row| 100 + row % 3).collect());
    let sort = SortKey { segment_by: vec![ColumnId(1)], time: Some(ColumnId(2)) };
    let disk = SimulatedDisk::new(1);
    write_to(&disk, &spec(&table, sort), vec![SegmentRows { batch, commits }], limits(300)).unwrap();
    disk.bytes(&file_path()).unwrap()
}

/// Where the footer begins and ends.
fn footer_of(file: &[u8]) -> (usize, usize) {
    let trailer = &file[file.len() - TRAILER_BYTES..];
    let start = u64::from_le_bytes(trailer[..8].try_into().unwrap()) as usize;
    (start, start + u32::from_le_bytes(trailer[8..12].try_into().unwrap()) as usize)
}

/// What [`pieces_arbitrary`] takes: the bundle at that place without its checksum.
fn bundle(file: &[u8], place: &ArchivedFooterPlace, kind: u8, count: usize, rows: usize) -> Vec<u8> {
    let (start, bytes) = (place.offset.to_native() as usize, place.bytes.to_native() as usize);
    let [count, rows] = [count as u16, rows as u16].map(u16::to_le_bytes);
    [&[kind], &count[..], &rows, &file[start..start + bytes - PAGE_CHECKSUM_BYTES]].concat()
}

#[test]
fn what_fuzzing_of_pieces_begins_with_decodes() {
    let file = file();
    let (start, end) = footer_of(&file);
    let footer = Footer::decode(SEGMENT_VERSION, &file[start..end], start as u64).unwrap();
    let pieces = footer.pieces(0).expect("rows of every 20 seconds have pieces");
    let (rows, count) = (footer.get().row_groups[0].rows.to_native() as usize, pieces.count.to_native() as usize);
    let directory = bundle(&file, &pieces.directory, u8::MAX, count, rows);
    Pieces::decode(&directory[5..], pieces.width_us.to_native(), count, rows).expect("a directory decodes");
    pieces_arbitrary(&directory);
    keep_in_corpus("pieces", "directory", &directory);
    assert_eq!(pieces.columns.len(), 3, "of time, integers and floats");
    for column in pieces.columns.iter() {
        let sql_type = &footer.columns()[usize::from(column.position.to_native())].1;
        let kind = types().iter().position(|of| of == sql_type).unwrap() as u8;
        let statistics = bundle(&file, &column.place, kind, count, 0);
        PieceColumn::decode(&statistics[5..], sql_type, count).expect("statistics decode");
        pieces_arbitrary(&statistics);
        keep_in_corpus("pieces", &format!("statistics-{kind}"), &statistics);
    }
}

#[test]
fn what_fuzzing_of_files_begins_with_is_a_file_of_each_version() {
    let file = file();
    let (start, end) = footer_of(&file);
    // What came before version 3 is what stands before the pieces, a vector of 8 bytes.
    for (version, footer) in [(2, &file[start..end - 8]), (3, &file[start..end])] {
        Footer::decode(version, footer, start as u64).expect("a footer of its version decodes");
        footer_arbitrary(footer);
        keep_in_corpus("footer", &format!("v{version}"), footer);
        let length = (footer.len() as u16).to_le_bytes();
        let whole = [&[version as u8 - 1], &length[..], footer, &file[HEADER_BYTES..start]].concat();
        segment_arbitrary(&whole);
        keep_in_corpus("segment", &format!("v{version}"), &whole);
    }
}
