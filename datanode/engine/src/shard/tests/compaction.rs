//! Compaction: what it puts together, what it leaves alone, and what happens beside it.

use super::super::compact::overlap;
use super::*;
use crate::disk::GlommioDisk;
use crate::pace::executor::{self, simulate};
use crate::testing::run;

/// Compacts by hand only, with limits that few rows reach.
fn by_hand(directory: &Path) -> ShardOptions {
    let compaction = CompactionLimits { overlap_max: 100, small_count: 100, ..CompactionLimits::default() };
    ShardOptions { compaction, ..options(directory) }
}

fn eager(directory: &Path) -> ShardOptions {
    let compaction = CompactionLimits { overlap_max: 2, ..CompactionLimits::default() };
    ShardOptions { compaction, ..options(directory) }
}

/// Flushes so many segments of a thousand rows each over the same times; values from 0 on.
async fn fill<D: Disk>(shard: &Shard<D>, segments: u64) -> i64 {
    for n in 0..segments as i64 {
        let values = (0..1000).map(|row| row * segments as i64 + n);
        shard.write(write(100 + n as u64, values)).await.unwrap();
        shard.flush().await.unwrap();
    }
    segments as i64 * 1000
}

async fn reopened(disk: &SimulatedDisk, options: ShardOptions) -> Shard<SimulatedDisk> {
    open(&disk.crash(), options).await.unwrap().0
}

#[test]
fn overlapping_segments_become_one_and_their_files_go() {
    run(async {
        let disk = SimulatedDisk::new(1);
        let (shard, _) = open(&disk, by_hand(&simulated())).await.unwrap();
        let count = fill(&shard, 12).await;
        assert_eq!(shard.status().segments, 12);
        drop(shard);
        let shard = reopened(&disk, eager(&simulated())).await;
        while shard.status().segments > 2 {
            shard.compact().await.unwrap();
        }
        assert_eq!(values_at(&shard, 99).await, up_to(count));
        let files = |disk: &SimulatedDisk| {
            disk.files(&simulated()).iter().filter(|path| path.to_string_lossy().ends_with(".seg")).count()
        };
        drop(shard);
        let disk = disk.crash();
        let shard = open(&disk, eager(&simulated())).await.unwrap().0;
        assert_eq!(values_at(&shard, 999).await, up_to(count));
        assert_eq!(files(&disk) as u64, shard.status().segments);
    });
}

#[test]
fn the_shard_compacts_by_itself() {
    run(async {
        let disk = SimulatedDisk::new(2);
        let (shard, _) = open(&disk, eager(&simulated())).await.unwrap();
        let count = fill(&shard, 30).await;
        while shard.status().segments > 2 {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(values_at(&shard, 99).await, up_to(count));
    });
}

#[test]
fn a_scan_that_began_before_reads_its_segments_to_the_end() {
    run(async {
        let disk = SimulatedDisk::new(3);
        let (shard, _) = open(&disk, eager(&simulated())).await.unwrap();
        let count = fill(&shard, 2).await;
        let mut scan = shard.scan(scan_at(99)).unwrap();
        let mut found = scan.next().await.unwrap().unwrap().num_rows();
        fill(&shard, 5).await;
        shard.compact().await.unwrap();
        while let Some(batch) = scan.next().await {
            found += batch.unwrap().num_rows();
        }
        assert_eq!(found as i64, count);
        drop(scan);
        let files = || disk.files(&simulated()).iter().filter(|path| path.to_string_lossy().ends_with(".seg")).count();
        while files() as u64 > shard.status().segments {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn older_snapshots_see_what_they_saw_before() {
    run(async {
        let disk = SimulatedDisk::new(4);
        let (shard, _) = open(&disk, eager(&simulated())).await.unwrap();
        let mut seen = Vec::new();
        for n in 0..10_u64 {
            shard
                .write(Write { snapshot: Ts(100 * n), ..write(n + 1, n as i64 * 100..n as i64 * 100 + 100) })
                .await
                .unwrap();
            shard.flush().await.unwrap();
            seen.push((100 * n + 50, up_to(n as i64 * 100 + 100)));
        }
        shard.compact().await.unwrap();
        assert!(shard.status().segments < 10);
        for (snapshot, expected) in &seen {
            assert_eq!(scanned(&shard, scan_at(*snapshot)).await.unwrap().0, *expected, "at {snapshot}");
        }
        // R24: what no snapshot needs is not told apart any more, and not answered either.
        shard.raise_history_horizon(Ts(500));
        shard.compress(CHUNK, EPOCH, CompressionOrder::default()).await.unwrap();
        assert!(matches!(shard.begin_read(CHUNK, EPOCH, Ts(499)).await, Err(Refusal::Snapshot { .. })));
        assert!(matches!(scanned(&shard, scan_at(499)).await, Err(Refusal::Snapshot { .. })));
        for (snapshot, expected) in seen.iter().filter(|(snapshot, _)| *snapshot >= 500) {
            assert_eq!(scanned(&shard, scan_at(*snapshot)).await.unwrap().0, *expected, "at {snapshot}");
        }
        drop(shard);
        let shard = reopened(&disk, eager(&simulated())).await;
        assert!(matches!(shard.begin_read(CHUNK, EPOCH, Ts(499)).await, Err(Refusal::Snapshot { .. })));
    });
}

#[test]
fn undecided_rows_stay_apart_until_a_manifest_knows_their_outcome() {
    run(async {
        let disk = SimulatedDisk::new(5);
        let (shard, _) = open(&disk, eager(&simulated())).await.unwrap();
        shard.write(stage(1, 0, CHUNK, 50_000..50_100)).await.unwrap();
        shard.write(stage(2, 0, CHUNK, 60_000..60_100)).await.unwrap();
        let count = fill(&shard, 6).await;
        shard.compact().await.unwrap();
        assert_eq!(values_at(&shard, 99).await, up_to(count));
        shard.decide(decide(1, true, 1)).await.unwrap();
        shard.decide(decide(2, false, 1)).await.unwrap();
        let expected: Vec<i64> = (0..count).chain(50_000..50_100).collect();
        shard.compact().await.unwrap();
        assert_eq!(values_at(&shard, 999).await, expected);
        // The decision is in the log alone.
        drop(shard);
        let shard = reopened(&disk, eager(&simulated())).await;
        assert_eq!(values_at(&shard, 999).await, expected);
        fill(&shard, 0).await;
        shard.flush().await.unwrap();
        shard.compact().await.unwrap();
        assert_eq!(values_at(&shard, 9999).await, expected);
    });
}

#[test]
fn rows_of_equal_time_stay_in_order_of_arrival() {
    run(async {
        let disk = SimulatedDisk::new(6);
        let (shard, _) = open(&disk, by_hand(&simulated())).await.unwrap();
        // One series and one time for all: only arrival tells them apart.
        for n in 0..10_u64 {
            let values: Vec<i64> = (0..50).map(|row| n as i64 * 50 + row).collect();
            let same = vec![0_i64; 50];
            let columns: Vec<ArrayRef> = vec![
                Arc::new(TimestampMicrosecondArray::from_iter_values(same).with_timezone("UTC")),
                Arc::new((0..50).map(|_| Some("one")).collect::<StringArray>()),
                Arc::new(values.into_iter().collect::<Int64Array>()),
            ];
            let rows = encode_rows(&RecordBatch::try_new(schema().arrow(), columns).unwrap()).unwrap();
            shard.write(Write { rows, ..write(n + 1, []) }).await.unwrap();
            shard.flush().await.unwrap();
        }
        shard.compress(CHUNK, EPOCH, CompressionOrder { segment_by: vec![1], order_by: vec![] }).await.unwrap();
        let mut stream = shard.scan(scan_at(99)).unwrap();
        let mut found = Vec::new();
        while let Some(batch) = stream.next().await {
            found.extend_from_slice(batch.unwrap().column(0).as_primitive::<Int64Type>().values());
        }
        assert_eq!(found, up_to(500));
    });
}

#[test]
fn many_segments_are_put_together_in_rounds_when_memory_is_small() {
    run(async {
        let disk = SimulatedDisk::new(7);
        let small = ShardOptions { rewrite_bytes_max: 1, ..by_hand(&simulated()) };
        let (shard, _) = open(&disk, small).await.unwrap();
        let count = fill(&shard, 11).await;
        shard.compress(CHUNK, EPOCH, CompressionOrder { segment_by: vec![1], order_by: vec![] }).await.unwrap();
        assert_eq!(shard.status().segments, 1);
        assert_eq!(values_at(&shard, 99).await, up_to(count));
        let files = disk.files(&simulated());
        assert_eq!(files.iter().filter(|path| path.to_string_lossy().ends_with(".seg")).count(), 1, "{files:?}");
    });
}

#[test]
fn a_failed_rewrite_changes_nothing_and_leaves_nothing() {
    run(async {
        for nth in 1..5 {
            let disk = SimulatedDisk::new(8);
            let (shard, _) = open(&disk, by_hand(&simulated())).await.unwrap();
            let count = fill(&shard, 4).await;
            disk.fail_write(nth);
            let compressed = shard.compress(CHUNK, EPOCH, CompressionOrder::default()).await;
            if compressed.is_err() {
                assert_eq!(shard.status().segments, 4, "write {nth}");
            }
            assert_eq!(values_at(&shard, 99).await, up_to(count));
            let compressed = shard.compress(CHUNK, EPOCH, CompressionOrder::default()).await;
            assert!(compressed.is_ok(), "write {nth}: {compressed:?}");
            drop(shard);
            let shard = reopened(&disk, by_hand(&simulated())).await;
            assert_eq!(values_at(&shard, 99).await, up_to(count));
        }
    });
}

#[test]
fn appends_reads_flushes_and_removal_go_on_beside_a_rewrite() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let disk = GlommioDisk::open(folder.path()).await.unwrap();
        let (shard, _) = open(&disk, by_hand(folder.path())).await.unwrap();
        for n in 0..4 {
            shard.write(write(n + 1, n as i64 * 30_000..(n as i64 + 1) * 30_000)).await.unwrap();
            shard.flush().await.unwrap();
        }
        let (mut count, mut during) = (120_000, 0);
        let compressor = shard.clone();
        let compressing = glommio::spawn_local(async move {
            compressor.compress(CHUNK, EPOCH, CompressionOrder { segment_by: vec![1], order_by: vec![] }).await
        });
        let compressing = compressing.detach();
        while !shard.chunk_sizes(CHUNK).unwrap().is_compressed {
            shard.write(write(1000 + during, count..count + 10)).await.unwrap();
            count += 10;
            if during % 8 == 3 {
                shard.flush().await.unwrap();
            }
            assert_eq!(values_at(&shard, 1000 + during).await.len(), count as usize);
            during += 1;
        }
        assert!(matches!(compressing.await.unwrap(), Ok(CompressOutcome::Compressed { .. })));
        assert!(during > 0, "too quick to test anything");
        assert_eq!(values_at(&shard, 10_000).await, up_to(count));
        let sizes = shard.chunk_sizes(CHUNK).unwrap();
        assert!(sizes.has_uncompressed_rows && sizes.rows == count as u64, "{sizes:?}");

        // A chunk that goes takes no notice of who rewrites it.
        let compressor = shard.clone();
        let compressing = glommio::spawn_local(async move {
            compressor.compress(CHUNK, EPOCH, CompressionOrder { segment_by: vec![0], order_by: vec![] }).await
        });
        let compressing = compressing.detach();
        glommio::timer::sleep(Duration::from_millis(5)).await;
        shard.remove_chunk(CHUNK).await.unwrap();
        assert!(compressing.await.unwrap().is_err());
        assert_eq!(shard.chunk_sizes(CHUNK), None);
        assert!(!folder.path().join("chunks/7").exists());
        shard.close().await;
    });
}

#[test]
fn flushes_wait_for_compaction_so_that_overlap_stays_bounded() {
    simulate(5, async {
        let small = ShardOptions { memtable_bytes_max: 64 << 10, ..options(&simulated()) };
        let (shard, _) = open(&SimulatedDisk::new(5), small).await.unwrap();
        let chunk = shard.inner().chunk(CHUNK).unwrap();
        // Held, nothing is put together; flushes go on all the same, though slowly.
        let turn = shard.inner().rewrite_turn.lock().await;
        let mut sequence = 0;
        let mut most = async |shard: &Shard<SimulatedDisk>, writes: u64| {
            let mut most = 0;
            for _ in 0..writes {
                sequence += 1;
                shard.write(write(sequence, 0..200)).await.unwrap();
                most = most.max(overlap(&chunk));
            }
            most
        };
        let started = executor::now();
        assert!(most(&shard, 300).await > 10);
        assert!(executor::now() - started > Duration::from_secs(4), "some flushes waited");
        drop(turn);
        shard.compact().await.unwrap();
        // The one that is made while nine are put together is the tenth.
        assert!(most(&shard, 600).await <= 10);
    });
}

#[test]
fn a_write_does_not_wait_for_the_compaction_of_one_chunk_after_another() {
    simulate(6, async {
        let memory_wait = Duration::from_secs(3);
        let small = ShardOptions { memtable_bytes_max: 64 << 10, memory_wait, ..options(&simulated()) };
        let (shard, _) = open(&SimulatedDisk::new(6), small).await.unwrap();
        let _turn = shard.inner().rewrite_turn.lock().await;
        let mut sequence = 0;
        let mut fill = async |chunk: ChunkId, until: usize| {
            let state = shard.inner().chunk(chunk).unwrap();
            while overlap(&state) < until {
                sequence += 1;
                shard.write(Write { chunk, ..write(sequence, 0..200) }).await.unwrap();
            }
        };
        fill(CHUNK, 10).await;
        fill(OTHER, 10).await;
        // Some rows of each wait in memory, and one write needs all of it.
        for chunk in [CHUNK, OTHER] {
            shard.write(Write { chunk, ..write(10_000 + chunk.0, 0..200) }).await.unwrap();
        }
        let started = executor::now();
        shard.write(write(20_000, 0..3000)).await.unwrap();
        assert!(executor::now() - started < memory_wait, "{:?}", executor::now() - started);
    });
}
