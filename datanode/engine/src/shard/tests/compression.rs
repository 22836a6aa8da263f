//! Compression: states, orders, sizes, and that rows stay what they were.

use super::*;
use crate::testing::run;

fn by_host() -> CompressionOrder {
    let time = OrderBy { column: 0, descending: true, nulls_first: true };
    CompressionOrder { segment_by: vec![1], order_by: vec![time] }
}

fn by_value_descending() -> CompressionOrder {
    let value = OrderBy { column: 2, descending: true, nulls_first: false };
    CompressionOrder { segment_by: vec![], order_by: vec![value] }
}

/// Values as a scan returns them, without sorting.
async fn in_order(shard: &Shard<SimulatedDisk>) -> Vec<i64> {
    let mut stream = shard.scan(scan_at(99)).unwrap();
    let mut found = Vec::new();
    while let Some(batch) = stream.next().await {
        found.extend_from_slice(batch.unwrap().column(0).as_primitive::<Int64Type>().values());
    }
    found
}

async fn filled(seed: u64) -> (SimulatedDisk, Shard<SimulatedDisk>) {
    let (disk, shard) = open_simulated(seed).await;
    for n in 0..5 {
        shard.write(write(n + 1, n as i64 * 1000..n as i64 * 1000 + 1000)).await.unwrap();
        shard.flush().await.unwrap();
    }
    shard.write(write(10, 5000..5100)).await.unwrap();
    (disk, shard)
}

#[test]
fn a_compressed_chunk_is_one_sorted_segment_and_says_so() {
    run(async {
        let (disk, shard) = filled(1).await;
        let before = shard.chunk_sizes(CHUNK).unwrap();
        assert_eq!((before.rows, before.segments, before.is_compressed), (5100, 5, false));
        let compressed = shard.compress(CHUNK, EPOCH, by_host()).await.unwrap();
        let after = shard.chunk_sizes(CHUNK).unwrap();
        let CompressOutcome::Compressed { rows, bytes_before, bytes_after } = compressed else {
            panic!("{compressed:?}")
        };
        assert_eq!((rows, bytes_after), (5100, after.compressed_bytes));
        assert!(bytes_before > before.bytes, "what was in memory was flushed first");
        assert_eq!((after.rows, after.segments, after.compressed_rows), (5100, 1, 5100));
        assert_eq!(after.bytes_before_compression, Some(bytes_before));
        assert!(after.is_compressed && !after.has_uncompressed_rows);
        assert_eq!(values_at(&shard, 99).await, up_to(5100));
        drop(shard);
        let (shard, _) = open(&disk.crash(), options(&simulated())).await.unwrap();
        assert_eq!(shard.chunk_sizes(CHUNK), Some(after));
        assert_eq!(values_at(&shard, 99).await, up_to(5100));
    });
}

#[test]
fn compressing_again_does_nothing_until_rows_came() {
    run(async {
        let (_, shard) = filled(2).await;
        shard.compress(CHUNK, EPOCH, by_host()).await.unwrap();
        assert_eq!(shard.compress(CHUNK, EPOCH, by_host()).await, Ok(CompressOutcome::AlreadyCompressed));
        shard.write(write(20, 5100..5150)).await.unwrap();
        let sizes = shard.chunk_sizes(CHUNK).unwrap();
        assert!(sizes.has_uncompressed_rows && sizes.is_compressed);
        assert_eq!(values_at(&shard, 99).await, up_to(5150));
        let again = shard.compress(CHUNK, EPOCH, by_host()).await;
        assert!(matches!(again, Ok(CompressOutcome::Compressed { rows: 5150, .. })), "{again:?}");
        assert!(!shard.chunk_sizes(CHUNK).unwrap().has_uncompressed_rows);
        assert_eq!(values_at(&shard, 999).await, up_to(5150));
        assert!(matches!(
            shard.compress(CHUNK, EPOCH, by_value_descending()).await,
            Ok(CompressOutcome::Compressed { .. })
        ));
        assert_eq!(values_at(&shard, 9999).await, up_to(5150));
    });
}

#[test]
fn rows_lie_in_the_order_that_was_asked_for() {
    run(async {
        let (_, shard) = filled(3).await;
        shard.compress(CHUNK, EPOCH, by_value_descending()).await.unwrap();
        assert_eq!(in_order(&shard).await, (0..5100).rev().collect::<Vec<_>>());
        shard.write(write(20, 5100..5200)).await.unwrap();
        shard.compress(CHUNK, EPOCH, by_value_descending()).await.unwrap();
        assert_eq!(in_order(&shard).await, (0..5200).rev().collect::<Vec<_>>());
        shard.compress(CHUNK, EPOCH, by_host()).await.unwrap();
        let by_series: Vec<i64> = (0..5).flat_map(|host| (0..1040).map(move |row| row * 5 + host)).collect();
        assert_eq!(in_order(&shard).await, by_series);
        shard.compress(CHUNK, EPOCH, CompressionOrder::default()).await.unwrap();
        assert_eq!(in_order(&shard).await, up_to(5200));
    });
}

#[test]
fn a_decompressed_chunk_is_an_ordinary_one_again() {
    run(async {
        let (disk, shard) = filled(4).await;
        assert_eq!(shard.decompress(CHUNK, EPOCH).await, Ok(DecompressOutcome::NotCompressed));
        shard.compress(CHUNK, EPOCH, by_value_descending()).await.unwrap();
        shard.write(write(20, 5100..5200)).await.unwrap();
        assert_eq!(shard.decompress(CHUNK, EPOCH).await, Ok(DecompressOutcome::Decompressed));
        let sizes = shard.chunk_sizes(CHUNK).unwrap();
        assert_eq!((sizes.rows, sizes.compressed_rows, sizes.bytes_before_compression), (5200, 0, None));
        assert!(!sizes.is_compressed && !sizes.has_uncompressed_rows);
        assert_eq!(values_at(&shard, 99).await, up_to(5200));
        assert_eq!(shard.decompress(CHUNK, EPOCH).await, Ok(DecompressOutcome::NotCompressed));
        drop(shard);
        let (shard, _) = open(&disk.crash(), options(&simulated())).await.unwrap();
        assert_eq!(values_at(&shard, 999).await, up_to(5200));
        assert!(!shard.chunk_sizes(CHUNK).unwrap().is_compressed);
    });
}

#[test]
fn an_empty_chunk_can_be_compressed_and_takes_rows() {
    run(async {
        let (_, shard) = open_simulated(5).await;
        let compressed = shard.compress(CHUNK, EPOCH, by_host()).await;
        assert_eq!(compressed, Ok(CompressOutcome::Compressed { rows: 0, bytes_before: 0, bytes_after: 0 }));
        assert_eq!(shard.compress(CHUNK, EPOCH, by_host()).await, Ok(CompressOutcome::AlreadyCompressed));
        shard.write(write(1, 0..10)).await.unwrap();
        assert!(shard.chunk_sizes(CHUNK).unwrap().has_uncompressed_rows);
        shard.compress(CHUNK, EPOCH, by_host()).await.unwrap();
        assert_eq!(values_at(&shard, 99).await, up_to(10));
    });
}

#[test]
fn rows_under_an_old_schema_are_compressed_under_the_new_one() {
    run(async {
        let (_, shard) = filled(6).await;
        let mut newer = spec(CHUNK, EPOCH, 10);
        newer.schema.version = SchemaVersion(2);
        newer.schema.columns.insert(0, column(4, "extra", SqlType::Float8));
        shard.open_chunk(newer).await.unwrap();
        shard.compress(CHUNK, EPOCH, CompressionOrder { segment_by: vec![0, 2], order_by: vec![] }).await.unwrap();
        let values = Scan { columns: vec![3], ..scan_at(99) };
        assert_eq!(scanned(&shard, values).await.unwrap().0, up_to(5100));
    });
}

#[test]
fn what_cannot_be_compressed_is_refused() {
    run(async {
        let (_, shard) = filled(7).await;
        let stale = shard.compress(CHUNK, Epoch(9), by_host()).await;
        assert!(matches!(stale, Err(Refusal::StaleEpoch { .. })), "{stale:?}");
        let beyond = CompressionOrder { segment_by: vec![7], order_by: vec![] };
        assert!(matches!(shard.compress(CHUNK, EPOCH, beyond).await, Err(Refusal::Protocol(_))));
        let unknown = shard.compress(ChunkId(99), EPOCH, by_host()).await;
        assert!(matches!(unknown, Err(Refusal::NotPrimary { .. })), "{unknown:?}");
        assert_eq!(values_at(&shard, 99).await, up_to(5100));
    });
}

#[test]
fn a_damaged_segment_is_reported_and_not_compressed_away() {
    run(async {
        let (disk, shard) = filled(8).await;
        disk.flip_bit(&file(&disk, ".seg"), crate::disk::BLOCK_BYTES as u64 + 50, 3);
        assert!(matches!(shard.compress(CHUNK, EPOCH, by_host()).await, Err(Refusal::Corruption(_))));
        assert!(!shard.chunk_sizes(CHUNK).unwrap().is_compressed);
        assert!(matches!(
            scanned(&shard, Scan { columns: vec![0, 1, 2], ..scan_at(99) }).await,
            Err(Refusal::Corruption(_))
        ));
    });
}
