//! What fuzzing begins with, from a shard that has done a bit of everything: its log, manifests, footers and rows, and
//! small programs for columns.

use arrow::array::{BooleanArray, Float64Array, ListArray};
use arrow::datatypes::Int32Type;

use super::*;
use crate::arbitrary::{
    footer_arbitrary, log_arbitrary, manifest_arbitrary, round_trip_arbitrary, rows_arbitrary, rows_schema,
};
use crate::disk::BLOCK_BYTES;
use crate::testing::keep_in_corpus;
use crate::wal::batch;

type Seeds = Vec<(&'static str, String, Vec<u8>)>;

async fn lived() -> SimulatedDisk {
    let (disk, shard) = open_simulated(1).await;
    shard.write(write(1, 0..3)).await.unwrap();
    shard.write(stage(2, 0, CHUNK, 3..5)).await.unwrap();
    shard.write(stage(3, 0, OTHER, 5..6)).await.unwrap();
    shard.decide(decide(2, true, 1)).await.unwrap();
    shard.resolve(resolve(3, None)).await.unwrap();
    shard.write(stage(4, 0, OTHER, 6..8)).await.unwrap();
    shard.flush().await.unwrap();
    shard.compress(CHUNK, EPOCH, CompressionOrder::default()).await.unwrap();
    shard.write(write(5, 8..9)).await.unwrap();
    shard.remove_chunk(OTHER).await.unwrap();
    shard.close().await;
    disk
}

fn seeds(disk: &SimulatedDisk) -> Seeds {
    let mut seeds = Seeds::new();
    let log = disk.bytes(&file(disk, "0000000000000001.wal")).unwrap();
    let (mut records, mut start) = (vec![1], BLOCK_BYTES);
    while let Ok(found) = batch::batch_at(&log, 1, start) {
        for record in &found {
            let is_first = record.position == start;
            records.push(record.kind | if is_first { 0x80 } else { 0 });
            records.extend_from_slice(&(record.payload.len() as u16).to_le_bytes());
            records.extend_from_slice(record.payload);
            seeds.push(("log", format!("kind-{}", record.kind), records.clone()));
        }
        start = batch::next_start(start, found[0].batch_bytes);
    }
    seeds.push(("log", "file".to_owned(), [&[0], &log[BLOCK_BYTES..start]].concat()));

    let manifest = disk.bytes(&file(disk, "7/MANIFEST")).unwrap();
    let length = u64::from_le_bytes(manifest[48..56].try_into().unwrap()) as usize;
    seeds.push(("manifest", "file".to_owned(), [&[0], manifest.as_slice()].concat()));
    seeds.push(("manifest", "payload-v2".to_owned(), [&[2], &manifest[64..64 + length]].concat()));
    let old = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/manifest-v1")).unwrap();
    seeds.push(("manifest", "payload-v1".to_owned(), [&[1], &old[64..]].concat()));

    let segment = disk.bytes(&file(disk, ".seg")).unwrap();
    let trailer = &segment[segment.len() - 32..];
    let at = u64::from_le_bytes(trailer[..8].try_into().unwrap()) as usize;
    let length = u32::from_le_bytes(trailer[8..12].try_into().unwrap()) as usize;
    seeds.push(("footer", "of-segment".to_owned(), segment[at..at + length].to_vec()));
    seeds.push(("rows", "batch".to_owned(), encode_rows(&rows_batch()).unwrap().to_vec()));
    seeds
}

fn rows_batch() -> RecordBatch {
    let lists = [Some(vec![Some(1), None]), None, Some(vec![])];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values([1, 2, 3]).with_timezone("UTC")),
        Arc::new(StringArray::from(vec![Some("host_1"), None, Some("")])),
        Arc::new(Float64Array::from(vec![Some(1.5), Some(f64::NAN), None])),
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
    ];
    RecordBatch::try_new(rows_schema(), columns).unwrap()
}

/// Programs of `arbitrary::values`: as they stand, small, repeated, NULL, a ramp, noise, a walk, again.
fn programs() -> Seeds {
    let steps: [&[u8]; 8] = [
        &[0x08, 1, 2, 3, 4, 5, 6, 7, 0xff, 0, 0, 0, 0, 0, 0, 0xf0, 0x7f],
        &[0x09, 5, 0x11, 9],
        &[0x3a],
        &[0x1b],
        &[0x3c, 10, 5],
        &[0x3d, 17, 3],
        &[0x3e, 4, 8],
        &[0x3f, 200],
    ];
    let mut seeds = Seeds::new();
    for kind in 0..18u8 {
        let places = [0, 1, 3][usize::from(kind) % 3];
        let program: Vec<u8> = steps.concat();
        seeds.push(("round_trip", format!("all-{kind:02}"), [&[kind, 80, places], program.as_slice()].concat()));
        let some = [steps[usize::from(kind) % 8], steps[5], steps[3], steps[6]].concat();
        seeds.push(("round_trip", format!("some-{kind:02}"), [&[kind, 0, 3 - places], some.as_slice()].concat()));
    }
    seeds
}

#[test]
fn what_fuzzing_begins_with_is_sound() {
    let disk = crate::pace::executor::simulate(1, lived());
    let seeds: Seeds = seeds(&disk).into_iter().chain(programs()).collect();
    for (target, name, bytes) in &seeds {
        match *target {
            "log" => log_arbitrary(bytes),
            "manifest" => manifest_arbitrary(bytes),
            "footer" => footer_arbitrary(bytes),
            "rows" => rows_arbitrary(bytes),
            _ => round_trip_arbitrary(bytes),
        }
        keep_in_corpus(target, name, bytes);
    }
}
