//! Budgets: writes, scans and open files stay within them; who waits too long is told.

use super::*;
use crate::pace::executor::{self, Queue, simulate};
use crate::testing::run;

fn apart(directory: &Path) -> ShardOptions {
    let compaction = CompactionLimits { overlap_max: 100, small_count: 100, ..CompactionLimits::default() };
    ShardOptions { compaction, ..options(directory) }
}

async fn with_segments(options: ShardOptions) -> Shard<SimulatedDisk> {
    let (shard, _) = open(&SimulatedDisk::new(1), options).await.unwrap();
    for n in 0..6 {
        shard.write(write(n + 1, n as i64 * 100..n as i64 * 100 + 100)).await.unwrap();
        shard.flush().await.unwrap();
    }
    shard
}

#[test]
fn few_segments_stay_open_and_all_are_read() {
    run(async {
        for budget in [(usize::MAX, 2), (1, 100)] {
            let (open_bytes_max, open_files_max) = budget;
            let shard = with_segments(ShardOptions { open_bytes_max, open_files_max, ..apart(&simulated()) }).await;
            assert_eq!(values_at(&shard, 99).await, up_to(600));
            let chunk = shard.inner().chunk(CHUNK).unwrap();
            let open = chunk.state.borrow().segments.iter().filter(|segment| segment.is_open()).count();
            assert!((1..=open_files_max.min(2)).contains(&open), "{budget:?}: {open}");
            assert_eq!(values_at(&shard, 999).await, up_to(600));
            assert!(shard.inner().opened.bytes() > 0);
        }
    });
}

#[test]
fn scans_wait_for_one_anothers_memory_and_are_refused_after_a_while() {
    simulate(1, async {
        let shard = with_segments(ShardOptions { scan_bytes_max: 1, ..apart(&simulated()) }).await;
        shard.begin_read(CHUNK, EPOCH, Ts(99)).await.unwrap();
        let mut first = shard.scan(Scan { batch_rows: 10, ..scan_at(99) }).unwrap();
        assert!(first.next().await.unwrap().is_ok());
        let start = executor::now();
        let refused = scanned(&shard, scan_at(99)).await.unwrap_err();
        assert_eq!((refused.sqlstate(), (executor::now() - start).as_secs()), ("53200", 5));
        let waiting = shard.clone();
        let second = Queue::Simulated.spawn(async move { scanned(&waiting, scan_at(99)).await });
        executor::sleep(Duration::from_secs(1)).await;
        drop(first);
        assert_eq!(second.await.unwrap().0, up_to(600));
    });
}

#[test]
fn writes_wait_for_memory_and_are_refused_after_a_while() {
    simulate(2, async {
        let disk = SimulatedDisk::new(2);
        let small = ShardOptions { memtable_bytes_max: 64 << 10, ..apart(&simulated()) };
        let (shard, _) = open(&disk, small).await.unwrap();
        let chunk = shard.inner().chunk(CHUNK).unwrap();
        let stuck = chunk.flushing.lock().await;
        let mut sequence = 0;
        let refused = loop {
            sequence += 1;
            match shard.write(write(sequence, 0..200)).await {
                Ok(_) => assert!(sequence < 1000, "memory has no end"),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.sqlstate(), "53200");
        let many = (0..300).map(|n| shard.write(write(1000 + n, 0..200)));
        let refused: Vec<_> = futures::future::join_all(many).await.into_iter().map(Result::unwrap_err).collect();
        assert!(refused.iter().any(|refusal| refusal.sqlstate() == "53300"), "some did not even wait");
        assert!(shard.status().memtable_bytes <= 64 << 10);
        drop(stuck);
        shard.write(write(sequence, 0..200)).await.unwrap();
    });
}

#[test]
fn a_write_that_needs_more_than_is_free_has_the_rest_flushed() {
    simulate(3, async {
        let disk = SimulatedDisk::new(3);
        let small = ShardOptions { memtable_bytes_max: 64 << 10, ..apart(&simulated()) };
        let (shard, _) = open(&disk, small).await.unwrap();
        let mut sequence = 0;
        while shard.status().memtable_bytes < 8 << 10 {
            sequence += 1;
            shard.write(write(sequence, 0..200)).await.unwrap();
        }
        // Less than a half is taken, which alone is no reason to flush.
        assert_eq!(shard.status().segments, 0);
        let large = write(sequence + 1, 0..3000);
        shard.write(large).await.unwrap();
        assert_eq!(shard.status().segments, 1);
    });
}

#[test]
fn pieces_of_one_transaction_wait_as_one_writer() {
    simulate(4, async {
        let disk = SimulatedDisk::new(4);
        let small = ShardOptions { memtable_bytes_max: 64 << 10, ..apart(&simulated()) };
        let (shard, _) = open(&disk, small).await.unwrap();
        let chunk = shard.inner().chunk(CHUNK).unwrap();
        let stuck = chunk.flushing.lock().await;
        let writer = shard.clone();
        let pieces = Queue::Simulated.spawn(async move {
            let pieces = (0..600).map(|piece| writer.write(stage(1, piece, CHUNK, 0..200)));
            futures::future::join_all(pieces).await
        });
        executor::sleep(Duration::from_secs(1)).await;
        let waiting: Vec<usize> = shard.inner().waiting_writers.borrow().values().map(|of| of.count).collect();
        assert!(waiting.len() == 1 && waiting[0] > 256, "{waiting:?}");
        drop(stuck);
        assert!(pieces.await.iter().all(Result::is_ok));
        assert!(shard.inner().memory_awaited_since().is_none());
    });
}

#[test]
fn the_next_row_group_is_read_ahead_and_no_page_twice() {
    run(async {
        let uncached = ShardOptions { page_cache_bytes_max: 0, ..apart(&simulated()) };
        let (shard, _) = open(&SimulatedDisk::new(1), uncached).await.unwrap();
        for n in 0..40 {
            shard.write(write(n + 1, n as i64 * 5000..n as i64 * 5000 + 5000)).await.unwrap();
        }
        shard.flush().await.unwrap();
        shard.begin_read(CHUNK, EPOCH, Ts(99)).await.unwrap();
        let mut stream = shard.scan(scan_at(99)).unwrap();
        let mut rows = 0;
        while let Some(batch) = stream.next().await {
            rows += batch.unwrap().num_rows();
        }
        let (read, status) = (stream.statistics(), shard.status());
        assert!(rows == 200_000 && read.row_groups_scanned > 2, "{read:?}");
        // One column of all but the first one.
        assert_eq!(status.page_cache.read_ahead, read.row_groups_scanned - 1, "{status:?}");
        assert!(read.bytes_read <= status.segment_bytes, "{read:?} {status:?}");
    });
}
