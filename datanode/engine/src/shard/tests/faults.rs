//! A disk that is full, and one that fails.

use super::*;
use crate::disk::DiskError;
use crate::pace::executor::{self, simulate};
use crate::testing::run;

/// Writes as soon as the shard takes rows again; the seconds of waiting.
async fn write_when_possible(shard: &Shard<SimulatedDisk>, write: Write) -> u64 {
    let start = executor::now();
    loop {
        match shard.write(write.clone()).await {
            Ok(_) => return (executor::now() - start).as_secs(),
            Err(Refusal::DiskFull(_)) => executor::sleep(Duration::from_millis(100)).await,
            Err(refusal) => panic!("{refusal}"),
        }
    }
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space_again() {
    simulate(1, async {
        let (disk, shard) = open_simulated(1).await;
        disk.limit_space(Some(0));
        let (mut count, mut sequence) = (0, 1);
        let refusal = loop {
            match shard.write(write(sequence, count..count + 500)).await {
                Ok(_) => (count, sequence) = (count + 500, sequence + 1),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refusal.sqlstate(), "53100");
        assert!(count > 1000, "the log's files were made before");
        assert!(shard.flush().await.unwrap_err().is_disk_full());
        assert_eq!(values_at(&shard, 99).await, up_to(count), "what was acknowledged stays readable");
        executor::sleep(Duration::from_secs(600)).await;
        assert!(matches!(shard.write(write(sequence, count..count + 500)).await, Err(Refusal::DiskFull(_))));
        let left = disk.files(&simulated()).iter().filter(|path| path.to_string_lossy().contains("tmp")).count();
        assert_eq!(left, 0, "looking for space takes none");

        disk.limit_space(None);
        assert!(write_when_possible(&shard, write(sequence, count..count + 500)).await <= 2);
        shard.flush().await.unwrap();
        assert_eq!(values_at(&shard, 999).await, up_to(count + 500));
        drop(shard);
        let (shard, _) = open(&disk.crash(), options(&simulated())).await.unwrap();
        assert_eq!(values_at(&shard, 999).await, up_to(count + 500));
    });
}

#[test]
fn on_a_full_disk_reads_and_decisions_go_on_even_over_a_restart() {
    simulate(2, async {
        let (disk, shard) = open_simulated(2).await;
        shard.write(write(1, 0..100)).await.unwrap();
        shard.write(stage(2, 0, CHUNK, 100..200)).await.unwrap();
        disk.limit_space(Some(0));
        assert!(shard.flush().await.unwrap_err().is_disk_full());
        assert!(matches!(shard.write(write(3, 200..201)).await, Err(Refusal::DiskFull(_))));
        assert!(matches!(shard.write(stage(4, 0, CHUNK, 300..301)).await, Err(Refusal::DiskFull(_))));
        shard.decide(decide(2, true, 1)).await.unwrap();
        assert_eq!(values_at(&shard, 99).await, up_to(200));
        assert!(shard.write(write(1, 0..100)).await.is_ok(), "what was written is still answered");
        drop(shard);
        let (shard, _) = open(&disk, options(&simulated())).await.unwrap();
        assert_eq!(values_at(&shard, 99).await, up_to(200));
        disk.limit_space(None);
        write_when_possible(&shard, write(3, 200..300)).await;
        assert_eq!(values_at(&shard, 999).await, up_to(300));
    });
}

#[test]
fn a_rewrite_that_finds_no_space_leaves_everything_as_it_was() {
    simulate(3, async {
        let (disk, shard) = open_simulated(3).await;
        for n in 0..5 {
            shard.write(write(n + 1, n as i64 * 1000..n as i64 * 1000 + 1000)).await.unwrap();
            shard.flush().await.unwrap();
        }
        let before = disk.files(&simulated());
        for space in [0, 4096, 16 << 10, 24 << 10] {
            disk.limit_space(Some(space));
            let refused = shard.compress(CHUNK, EPOCH, CompressionOrder::default()).await;
            assert!(matches!(refused, Err(Refusal::DiskFull(_))), "{space}: {refused:?}");
            assert_eq!(disk.files(&simulated()), before, "{space}");
        }
        disk.limit_space(None);
        shard.compress(CHUNK, EPOCH, CompressionOrder::default()).await.unwrap();
        assert_eq!(values_at(&shard, 99).await, up_to(5000));
    });
}

#[test]
fn after_a_failed_sync_the_shard_ends_and_tells_its_owner() {
    run(async {
        let (disk, shard) = open_simulated(2).await;
        shard.write(write(1, 0..10)).await.unwrap();
        disk.fail_sync(1);
        assert!(matches!(shard.write(write(2, 10..20)).await, Err(Refusal::OutcomeUnknown(_))));
        assert!(matches!(&*shard.failed().await, EngineError::Disk(DiskError::SyncFailed { .. })));
        assert!(matches!(shard.write(write(3, 20..30)).await, Err(Refusal::Unavailable(_))));
        assert!(matches!(shard.begin_read(CHUNK, EPOCH, Ts(5)).await, Err(Refusal::Unavailable(_))));
    });
}

#[test]
fn a_failed_sync_in_a_flush_ends_the_shard_too() {
    run(async {
        let (disk, shard) = open_simulated(3).await;
        shard.write(write(1, 0..10)).await.unwrap();
        disk.fail_sync(1);
        assert!(shard.flush().await.is_err());
        assert!(matches!(&*shard.failed().await, EngineError::Disk(DiskError::SyncFailed { .. })));
    });
}

#[test]
fn a_failed_write_in_a_flush_changes_nothing() {
    run(async {
        for nth in 1..4 {
            let (disk, shard) = open_simulated(4).await;
            shard.write(write(1, 0..1000)).await.unwrap();
            shard.write(stage(2, 0, CHUNK, 1000..1500)).await.unwrap();
            disk.fail_write(nth);
            assert!(shard.flush().await.is_err(), "write {nth}");
            assert_eq!(values_at(&shard, 99).await, up_to(1000));
            shard.decide(decide(2, true, 1)).await.unwrap();
            assert_eq!(values_at(&shard, 999).await, up_to(1500));
            shard.flush().await.unwrap();
            assert_eq!(values_at(&shard, 999).await, up_to(1500));
            drop(shard);
            let (shard, _) = open(&disk.crash(), options(&simulated())).await.unwrap();
            assert_eq!(values_at(&shard, 999).await, up_to(1500));
        }
    });
}
