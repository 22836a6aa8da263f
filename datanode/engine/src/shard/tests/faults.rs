//! A disk that is full, and one that fails.

use super::*;
use crate::disk::DiskError;
use crate::testing::run;

#[test]
fn a_full_disk_refuses_writes_until_there_is_space_again() {
    run(async {
        let (disk, shard) = open_simulated(1).await;
        disk.limit_space(Some(0));
        let (mut count, mut sequence) = (0, 1);
        let refusal = loop {
            match shard.write(write(sequence, count..count + 500)).await {
                Ok(_) => (count, sequence) = (count + 500, sequence + 1),
                Err(refusal) => break refusal,
            }
        };
        assert!(matches!(refusal, Refusal::DiskFull(_)), "{refusal}");
        assert!(count > 1000, "the log's files were made before");
        assert!(shard.flush().await.unwrap_err().is_disk_full());
        assert_eq!(values_at(&shard, 99).await, up_to(count), "what was acknowledged stays readable");
        assert!(matches!(shard.write(write(sequence, count..count + 500)).await, Err(Refusal::DiskFull(_))));

        disk.limit_space(None);
        shard.write(write(sequence, count..count + 500)).await.unwrap();
        shard.flush().await.unwrap();
        assert_eq!(values_at(&shard, 999).await, up_to(count + 500));
        drop(shard);
        let (shard, _) = open(&disk.crash(), options(&simulated())).await.unwrap();
        assert_eq!(values_at(&shard, 999).await, up_to(count + 500));
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
