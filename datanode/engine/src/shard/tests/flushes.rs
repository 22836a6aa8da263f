//! Flushes: what they keep, what they free, and what happens beside them.

use futures::future::join_all;

use super::*;
use crate::disk::GlommioDisk;
use crate::pace::executor;
use crate::replica::Decision;
use crate::testing::{run, tick};

#[test]
fn flushed_rows_are_seen_and_the_log_is_let_go() {
    run(async {
        let (disk, shard) = open_simulated(1).await;
        for n in 0..60 {
            shard.write(write(n + 1, n as i64 * 400..(n as i64 + 1) * 400)).await.unwrap();
        }
        let before = shard.status();
        assert!(before.wal_bytes > 2 * (256 << 10), "{before:?}");
        shard.flush().await.unwrap();
        let after = shard.status();
        assert_eq!((after.memtable_bytes, after.segments, after.rows), (0, 1, 24_000));
        assert!(after.wal_bytes <= 256 << 10, "{after:?}");
        assert_eq!(values_at(&shard, 99).await, up_to(24_000));
        drop(shard);
        let (shard, report) = open(&disk.crash(), options(&simulated())).await.unwrap();
        assert!(report.wal_rows < 24_000, "{report:?}");
        assert_eq!(values_at(&shard, 99).await, up_to(24_000));
    });
}

#[test]
fn appends_and_reads_go_on_while_a_flush_runs() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let disk = GlommioDisk::open(folder.path()).await.unwrap();
        let (shard, _) = open(&disk, options(folder.path())).await.unwrap();
        shard.write(write(1, 0..60_000)).await.unwrap();
        let flusher = shard.clone();
        let flush = glommio::spawn_local(async move { flusher.flush().await.unwrap() }).detach();
        let (mut count, mut during) = (60_000, 0);
        while shard.status().segments == 0 {
            shard.write(write(2 + during, count..count + 10)).await.unwrap();
            count += 10;
            // Each read pushes the next commit above it.
            assert_eq!(values_at(&shard, 1000 + during).await.len(), count as usize);
            during += 1;
        }
        flush.await.unwrap();
        assert!(during > 1, "{during}");
        assert_eq!(values_at(&shard, 1000 + during).await, up_to(count));
    });
}

#[test]
fn memory_over_half_of_the_limit_is_flushed_and_writers_wait_at_the_limit() {
    run(async {
        let disk = SimulatedDisk::new(2);
        let small = ShardOptions { memtable_bytes_max: 400 << 10, ..options(&simulated()) };
        let (shard, _) = open(&disk, small).await.unwrap();
        let writes = (0..100).map(|n| shard.write(write(n + 1, n as i64 * 500..(n as i64 + 1) * 500)));
        for written in join_all(writes).await {
            written.unwrap();
        }
        assert!(shard.status().memtable_bytes <= 400 << 10);
        assert!(shard.status().segments > 2, "{:?}", shard.status());
        assert_eq!(values_at(&shard, 99).await, up_to(50_000));
    });
}

#[test]
fn a_large_stage_spills_into_runs_and_is_decided_later() {
    run(async {
        for commit in [true, false] {
            for restart in [false, true] {
                let disk = SimulatedDisk::new(3);
                let small = ShardOptions { staged_bytes_max: 100 << 10, ..options(&simulated()) };
                let (mut shard, _) = open(&disk, small.clone()).await.unwrap();
                for piece in 0..40 {
                    let first = i64::from(piece) * 500;
                    let staged = stage(1, piece, CHUNK, first..first + 500);
                    shard.write(Write { command: CommandId(piece / 20), ..staged }).await.unwrap();
                }
                while shard.status().segments < 2 || shard.status().memtable_bytes > 100 << 10 {
                    tick().await;
                }
                let own = Scan { own: Some((id(1), CommandId(1))), ..scan_at(50) };
                assert_eq!(scanned(&shard, own).await.unwrap().0, up_to(10_000), "the first command's rows");
                assert_eq!(values_at(&shard, 50).await, NOTHING);
                if restart {
                    drop(shard);
                    shard = open(&disk.crash(), small.clone()).await.unwrap().0;
                    shard.begin_read(CHUNK, EPOCH, Ts(50)).await.unwrap();
                }
                let decision = shard.decide(decide(1, commit, 40)).await.unwrap();
                let expected = if commit { up_to(20_000) } else { vec![] };
                assert_eq!(decision, if commit { Decision::Committed(Ts(51)) } else { Decision::Aborted });
                assert_eq!(values_at(&shard, 50).await, NOTHING);
                assert_eq!(values_at(&shard, 51).await, expected);
                // The decision goes into the manifest; then the log is not needed for it.
                shard.flush().await.unwrap();
                shard.flush().await.unwrap();
                if !commit {
                    assert_eq!(shard.status().segments, 0);
                }
                assert_eq!(values_at(&shard, 99).await, expected);
            }
        }
    });
}

#[test]
fn a_decision_during_a_flush_counts_for_what_is_being_flushed() {
    run(async {
        for commit in [true, false] {
            let mut met = false;
            // On a quick disk the flush may be over before the decision is durable; then it is tried again.
            for _ in 0..20 {
                met |= decided_while_flushing(commit).await;
                if met {
                    break;
                }
            }
            assert!(met, "commit {commit}: no decision came during a flush");
        }
    });
}

/// Whether the decision came before the flush was over. The rows must be right in any case.
async fn decided_while_flushing(commit: bool) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let disk = GlommioDisk::open(folder.path()).await.unwrap();
    let (shard, _) = open(&disk, options(folder.path())).await.unwrap();
    shard.write(write(1, 0..30_000)).await.unwrap();
    shard.write(stage(2, 0, CHUNK, 30_000..60_000)).await.unwrap();
    let flusher = shard.clone();
    let flush = glommio::spawn_local(async move { flusher.flush().await.unwrap() }).detach();
    while !is_flushing(&shard) && shard.status().segments == 0 {
        tick().await;
    }
    shard.decide(decide(2, commit, 1)).await.unwrap();
    let met = is_flushing(&shard);
    let expected = up_to(if commit { 60_000 } else { 30_000 });
    assert_eq!(values_at(&shard, 99).await, expected);
    flush.await.unwrap();
    assert_eq!(values_at(&shard, 99).await, expected);
    drop(shard);
    let (shard, _) = open(&disk, options(folder.path())).await.unwrap();
    assert_eq!(values_at(&shard, 99).await, expected);
    met
}

fn is_flushing<D: Disk>(shard: &Shard<D>) -> bool {
    shard.0.inner.chunks.borrow()[&CHUNK].state.borrow().frozen.is_some()
}

#[test]
fn old_rows_are_flushed_by_age() {
    run(async {
        let disk = SimulatedDisk::new(6);
        let (shard, _) =
            open(&disk, ShardOptions { flush_age: Duration::ZERO, ..options(&simulated()) }).await.unwrap();
        shard.write(write(1, 0..10)).await.unwrap();
        while shard.status().segments == 0 {
            tick().await;
        }
        assert_eq!(values_at(&shard, 99).await, up_to(10));
    });
}

#[test]
fn what_was_decided_after_its_flush_is_settled_without_rows_to_flush() {
    run(async {
        let disk = SimulatedDisk::new(7);
        let (shard, _) =
            open(&disk, ShardOptions { flush_age: Duration::ZERO, ..options(&simulated()) }).await.unwrap();
        shard.write(stage(1, 0, CHUNK, 0..10)).await.unwrap();
        shard.write(stage(2, 0, CHUNK, 10..20)).await.unwrap();
        shard.flush().await.unwrap();
        let segment_files =
            || disk.files(&simulated()).iter().filter(|path| path.to_string_lossy().ends_with(".seg")).count();
        assert_eq!(segment_files(), 2);
        shard.decide(decide(1, true, 1)).await.unwrap();
        shard.decide(decide(2, false, 1)).await.unwrap();
        let is_settled = || {
            let chunk = Rc::clone(&shard.0.inner.chunks.borrow()[&CHUNK]);
            let state = chunk.state.borrow();
            state.segments.iter().all(|segment| segment.is_settled.get()) && state.is_at_rest()
        };
        while segment_files() > 1 || !is_settled() {
            tick().await;
        }
        assert_eq!(values_at(&shard, 99).await, up_to(10));
    });
}

#[test]
fn small_chunks_are_flushed_several_at_once_and_large_ones_one_by_one() {
    run(async {
        for (memtable_bytes_max, expected) in [(64 << 20, vec![CHUNK, OTHER]), (64 << 10, vec![CHUNK])] {
            let options = ShardOptions { memtable_bytes_max, ..options(&simulated()) };
            let old = options.flush_age + Duration::from_secs(60);
            let (shard, _) = open(&SimulatedDisk::new(8), options).await.unwrap();
            shard.write(write(1, 0..500)).await.unwrap();
            tick().await;
            shard.write(Write { chunk: OTHER, ..write(2, 0..500) }).await.unwrap();
            let due = shard.0.inner.pick_flushes(executor::now() + old);
            assert_eq!(due.iter().map(|chunk| chunk.id).collect::<Vec<_>>(), expected);
        }
    });
}
