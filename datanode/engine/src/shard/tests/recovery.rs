//! Restarts: after kill -9 on a real disk, after power cuts and rot on the simulated one.

use super::*;
use crate::disk::{BLOCK_BYTES, GlommioDisk};
use crate::replica::{Answer, Decision, Question};
use crate::testing::run;

/// The next start: a new epoch, as meta gives it.
async fn reopen<D: Disk>(disk: &D, directory: &Path) -> Result<Shard<D>, EngineError> {
    open(disk, options(directory)).await.map(|(shard, _)| shard)
}

#[test]
fn after_kill_9_every_acknowledged_row_is_there_once() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("shard");
        let disk = GlommioDisk::open(&directory).await.unwrap();
        let mut expected = 0;
        for life in 0..4 {
            let shard = reopen(&disk, &directory).await.unwrap();
            assert_eq!(values_at(&shard, 1_000_000 * (life + 1)).await, up_to(expected), "life {life}");
            for n in 0..20 {
                shard.write(write(life * 100 + n + 1, expected..expected + 50)).await.unwrap();
                expected += 50;
                if life == 1 && n == 10 {
                    shard.flush().await.unwrap();
                }
            }
        }
        let (shard, report) = Shard::open(options(&directory)).await.unwrap();
        assert_eq!((report.segments, report.cut.is_none()), (1, true));
        assert_eq!(shard.status().rows, expected as u64);
    });
}

#[test]
fn a_repeated_write_is_not_applied_again_after_a_restart() {
    run(async {
        for flush in [false, true] {
            let (disk, shard) = open_simulated(1).await;
            let written = shard.write(write(1, 0..5)).await.unwrap();
            if flush {
                shard.flush().await.unwrap();
            }
            drop(shard);
            let shard = reopen(&disk.crash(), &simulated()).await.unwrap();
            assert_eq!(shard.write(write(1, 0..5)).await.unwrap().commit, written.commit);
            assert_eq!(values_at(&shard, 99).await, up_to(5));
        }
    });
}

#[test]
fn power_cuts_at_any_moment_lose_nothing_acknowledged() {
    run(async {
        for seed in 0..40 {
            let (disk, shard) = open_simulated(seed).await;
            let mut acknowledged = 0;
            for n in 0..12 {
                shard.write(write(n + 1, acknowledged..acknowledged + 300)).await.unwrap();
                acknowledged += 300;
                if n % 5 == seed % 5 {
                    shard.flush().await.unwrap();
                }
            }
            // The last write dies on the way, or a flush does.
            disk.fail_sync(1 + seed % 4);
            let last = if seed % 2 == 0 {
                shard.write(write(99, acknowledged..acknowledged + 300)).await.is_ok()
            } else {
                let _ = shard.flush().await;
                false
            };
            drop(shard);
            let shard = reopen(&disk.crash(), &simulated()).await.unwrap();
            let found = values_at(&shard, 99).await;
            let with_last = up_to(acknowledged + 300);
            let is_right = found == with_last || (!last && found == up_to(acknowledged));
            assert!(is_right, "seed {seed}: {} rows, {:?}", found.len(), counts(&found).values().max());
        }
    });
}

#[test]
fn stages_and_decisions_survive_in_log_and_manifest() {
    run(async {
        for flush in [false, true] {
            let (disk, shard) = open_simulated(3).await;
            shard.write(stage(1, 0, CHUNK, 0..5)).await.unwrap();
            shard.write(stage(2, 0, CHUNK, 5..8)).await.unwrap();
            shard.write(stage(3, 0, OTHER, 8..9)).await.unwrap();
            shard.decide(decide(1, true, 1)).await.unwrap();
            if flush {
                shard.flush().await.unwrap();
            }
            drop(shard);
            let shard = reopen(&disk.crash(), &simulated()).await.unwrap();
            let question =
                |sequence| Question { chunk: CHUNK, epoch: EPOCH, transaction: id(sequence), snapshot: Ts(0) };
            let committed = Answer::Committed { commit: Ts(11), row_count: 5 };
            assert_eq!(shard.outcome(question(1)).await, Ok(committed));
            assert_eq!(shard.outcome(question(2)).await, Ok(Answer::Undecided));
            assert_eq!(values_at(&shard, 99).await, up_to(5));
            assert_eq!(shard.decide(decide(2, true, 1)).await, Ok(Decision::Committed(Ts(100))));
            shard.resolve(resolve(3, Some(100))).await.unwrap();
            assert_eq!(values_at(&shard, 100).await, up_to(9));
        }
    });
}

#[test]
fn a_flipped_bit_in_the_middle_of_the_log_is_reported_with_file_and_position() {
    run(async {
        let (disk, shard) = open_simulated(4).await;
        for n in 0..6 {
            shard.write(write(n + 1, 0..100)).await.unwrap();
        }
        drop(shard);
        let log = file(&disk, "wal/0000000000000001.wal");
        disk.flip_bit(&log, 5 * BLOCK_BYTES as u64, 3);
        let error = reopen(&disk, &simulated()).await.map(drop).unwrap_err();
        assert!(matches!(&error, EngineError::Corruption { path, .. } if *path == log), "{error}");
        assert!(error.to_string().contains("wal/0000000000000001.wal is damaged at byte"), "{error}");
    });
}

#[test]
fn a_flipped_bit_in_the_manifest_is_reported() {
    run(async {
        let (disk, shard) = open_simulated(5).await;
        shard.write(write(1, 0..100)).await.unwrap();
        shard.flush().await.unwrap();
        drop(shard);
        let manifest = file(&disk, "chunks/7/MANIFEST");
        disk.flip_bit(&manifest, 100, 3);
        let error = reopen(&disk, &simulated()).await.map(drop).unwrap_err();
        assert!(matches!(&error, EngineError::Corruption { path, .. } if *path == manifest), "{error}");
    });
}

#[test]
fn a_flipped_bit_in_a_segment_ends_the_scan_with_damage() {
    run(async {
        let (disk, shard) = open_simulated(6).await;
        shard.write(write(1, 0..1000)).await.unwrap();
        shard.flush().await.unwrap();
        disk.flip_bit(&file(&disk, ".seg"), BLOCK_BYTES as u64 + 50, 3);
        let scan = Scan { columns: vec![0, 1, 2], ..scan_at(99) };
        let mut stream = shard.scan(scan).unwrap();
        assert!(matches!(stream.next().await, Some(Err(Refusal::Corruption(_)))));
        assert!(stream.next().await.is_none());
    });
}

#[test]
fn a_missing_segment_manifest_or_log_is_damage() {
    run(async {
        for victim in [".seg", "chunks/7/MANIFEST", ".wal"] {
            let (disk, shard) = open_simulated(7).await;
            shard.write(write(1, 0..1000)).await.unwrap();
            shard.flush().await.unwrap();
            // The log lets go of the chunk's description.
            for n in 0..40 {
                let other = Write { chunk: OTHER, ..write(100 + n, 0..1000) };
                shard.write(other).await.unwrap();
            }
            shard.flush().await.unwrap();
            drop(shard);
            let all = disk.files(&simulated());
            for path in all.iter().filter(|path| path.to_string_lossy().ends_with(victim)) {
                disk.remove(path).await.unwrap();
            }
            let error = reopen(&disk, &simulated()).await.map(drop).unwrap_err();
            assert!(matches!(error, EngineError::Corruption { .. }), "{victim}: {error}");
        }
    });
}

#[test]
fn the_folder_of_another_cluster_node_or_shard_is_refused_by_name() {
    run(async {
        let (disk, shard) = open_simulated(8).await;
        shard.write(write(1, 0..10)).await.unwrap();
        shard.flush().await.unwrap();
        drop(shard);
        let before: Vec<_> = disk.files(&simulated()).into_iter().map(|path| disk.bytes(&path)).collect();
        let mine = options(&simulated());
        let strangers = [
            ShardOptions { cluster: ClusterId(10), ..mine.clone() },
            ShardOptions { node: NodeId(3), ..mine.clone() },
            ShardOptions { shard: ShardId(1), ..mine },
        ];
        for stranger in strangers {
            let error = Shard::open_on(disk.clone(), stranger).await.map(drop).unwrap_err();
            assert!(matches!(error, EngineError::Foreign { .. }), "{error}");
        }
        let after: Vec<_> = disk.files(&simulated()).into_iter().map(|path| disk.bytes(&path)).collect();
        assert!(before == after, "files were touched");
    });
}

#[test]
fn a_closed_shard_has_a_marked_log() {
    run(async {
        let (disk, shard) = open_simulated(9).await;
        shard.write(write(1, 0..10)).await.unwrap();
        shard.close().await;
        // The rows stand in the third batch, after the two chunks; with the mark behind it this is surely rot.
        disk.flip_bit(&file(&disk, "wal/0000000000000001.wal"), 3 * BLOCK_BYTES as u64 + 200, 1);
        assert!(matches!(reopen(&disk, &simulated()).await, Err(EngineError::Corruption { .. })));
    });
}
