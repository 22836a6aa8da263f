//! What readers and repeated requests see while nothing fails.

use futures::future::join_all;

use super::*;
use crate::replica::{Answer, Decision, Question};
use crate::scan::{Bound, Value};
use crate::testing::run;

#[test]
fn a_write_is_seen_at_its_commit_timestamp_and_not_below() {
    run(async {
        let (_, shard) = open_simulated(1).await;
        let written = shard.write(write(1, 0..10)).await.unwrap();
        assert_eq!((written.commit, written.row_count), (Some(Ts(11)), 10));
        assert_eq!(values_at(&shard, 10).await, NOTHING);
        assert_eq!(values_at(&shard, 11).await, up_to(10));
    });
}

#[test]
fn many_writers_share_the_log_and_lose_nothing() {
    run(async {
        let (_, shard) = open_simulated(1).await;
        let writes = (0..200).map(|n| shard.write(write(1 + n as u64, n * 3..n * 3 + 3)));
        for written in join_all(writes).await {
            written.unwrap();
        }
        assert_eq!(values_at(&shard, 1000).await, up_to(600));
    });
}

#[test]
fn a_read_waits_for_what_commits_at_or_below_its_snapshot() {
    run(async {
        let (_, shard) = open_simulated(1).await;
        let written = shard.write(write(1, 0..5));
        futures::pin_mut!(written);
        // Appended when the reader comes, not synced: it must be waited for, not skipped.
        assert!(futures::poll!(&mut written).is_pending());
        assert_eq!(values_at(&shard, 50).await, up_to(5));
        assert_eq!(written.await.unwrap().commit, Some(Ts(11)));
    });
}

#[test]
fn a_repeated_write_is_answered_and_not_applied_again() {
    run(async {
        let (_, shard) = open_simulated(1).await;
        let both = join_all([shard.write(write(1, 0..5)), shard.write(write(1, 0..5))]).await;
        assert_eq!(both[0], both[1]);
        shard.begin_read(CHUNK, EPOCH, Ts(40)).await.unwrap();
        let later = shard.write(write(1, 0..5)).await.unwrap();
        assert_eq!((later.commit, later.max_read), (Some(Ts(11)), Ts(40)));
        assert_eq!(values_at(&shard, 99).await, up_to(5));
    });
}

#[test]
fn a_stage_is_seen_after_the_decision_and_by_its_own_later_commands() {
    run(async {
        let (_, shard) = open_simulated(1).await;
        shard.write(stage(1, 0, CHUNK, 0..5)).await.unwrap();
        shard.write(Write { command: CommandId(1), ..stage(1, 1, CHUNK, 5..8) }).await.unwrap();
        assert_eq!(values_at(&shard, 50).await, NOTHING);
        let own = |command| Scan { own: Some((id(1), CommandId(command))), ..scan_at(50) };
        assert_eq!(scanned(&shard, own(1)).await.unwrap().0, up_to(5));
        assert_eq!(scanned(&shard, own(2)).await.unwrap().0, up_to(8));
        assert_eq!(shard.decide(decide(1, true, 2)).await, Ok(Decision::Committed(Ts(51))), "above the read at 50");
        assert_eq!(values_at(&shard, 50).await, NOTHING);
        assert_eq!(values_at(&shard, 51).await, up_to(8));
    });
}

#[test]
fn an_aborted_stage_is_never_seen() {
    run(async {
        let (_, shard) = open_simulated(1).await;
        shard.write(stage(1, 0, CHUNK, 0..5)).await.unwrap();
        assert_eq!(shard.decide(decide(1, false, 1)).await, Ok(Decision::Aborted));
        assert_eq!(values_at(&shard, 99).await, NOTHING);
        assert!(matches!(shard.write(stage(1, 1, CHUNK, 5..6)).await, Err(Refusal::Aborted(_))));
    });
}

#[test]
fn a_reader_asks_for_foreign_stages_and_brings_what_it_learned() {
    run(async {
        let (_, shard) = open_simulated(1).await;
        shard.write(stage(1, 0, OTHER, 0..5)).await.unwrap();
        assert_eq!(shard.begin_read(CHUNK, EPOCH, Ts(60)).await, Ok(vec![(id(1), OTHER)]));
        let question = Question { chunk: OTHER, epoch: EPOCH, transaction: id(1), snapshot: Ts(60) };
        assert_eq!(shard.outcome(question).await, Ok(Answer::Unknown), "its own stage is still on the way");
        let resolved = |snapshot| Scan { resolved: vec![(id(1), Ts(55))], ..scan_at(snapshot) };
        assert_eq!(scanned(&shard, resolved(60)).await.unwrap().0, up_to(5));
        assert_eq!(scanned(&shard, resolved(54)).await.unwrap().0, NOTHING);
        shard.resolve(resolve(1, Some(55))).await.unwrap();
        assert_eq!(scanned(&shard, resolved(60)).await.unwrap().0, up_to(5), "once, not twice");
        assert_eq!(values_at(&shard, 55).await, up_to(5));
    });
}

#[test]
fn bounds_prune_segments() {
    run(async {
        let (_, shard) = open_simulated(1).await;
        for part in 0..4 {
            shard.write(write(1 + part, part as i64 * 100..part as i64 * 100 + 100)).await.unwrap();
            shard.flush().await.unwrap();
        }
        let bound = Bound { column: 2, min: Some(Value::Int(250)), max: Some(Value::Int(260)) };
        let (found, statistics) = scanned(&shard, Scan { bounds: vec![bound], ..scan_at(99) }).await.unwrap();
        assert!((250..=260).all(|value| found.contains(&value)));
        assert_eq!((statistics.segments_scanned, statistics.segments_pruned), (1, 3), "{statistics:?}");
        assert_eq!(values_at(&shard, 99).await, up_to(400));
    });
}

#[test]
fn a_scan_of_no_columns_still_counts_rows() {
    run(async {
        let (_, shard) = open_simulated(1).await;
        shard.write(write(1, 0..100)).await.unwrap();
        shard.flush().await.unwrap();
        shard.write(write(2, 100..130)).await.unwrap();
        let mut stream = shard.scan(Scan { columns: vec![], batch_rows: 50, ..scan_at(99) }).unwrap();
        let mut found = 0;
        while let Some(batch) = stream.next().await {
            found += batch.unwrap().num_rows();
        }
        assert_eq!(found, 130);
    });
}

#[test]
fn rows_under_an_old_schema_are_seen_under_the_new_one() {
    run(async {
        let (disk, shard) = open_simulated(1).await;
        shard.write(write(1, 0..5)).await.unwrap();
        shard.flush().await.unwrap();
        shard.write(write(2, 5..8)).await.unwrap();
        let mut newer = spec(CHUNK, EPOCH, 10);
        newer.schema.version = SchemaVersion(2);
        newer.schema.columns.insert(0, column(4, "extra", SqlType::Float8));
        shard.open_chunk(newer.clone()).await.unwrap();
        let refused = shard.write(write(3, 8..9)).await;
        let versions = Refusal::SchemaVersion { asked: SchemaVersion(1), current: SchemaVersion(2) };
        assert_eq!(refused, Err(versions));
        let all = Scan { columns: vec![3], ..scan_at(99) };
        assert_eq!(scanned(&shard, all.clone()).await.unwrap().0, up_to(8));
        drop(shard);
        let (shard, _) = Shard::open_on(disk, options(&simulated())).await.unwrap();
        shard.open_chunk(newer).await.unwrap();
        assert_eq!(scanned(&shard, all).await.unwrap().0, up_to(8));
    });
}

#[test]
fn a_removed_chunk_is_gone_with_its_files_and_stays_gone() {
    run(async {
        let (disk, shard) = open_simulated(1).await;
        shard.write(write(1, 0..50)).await.unwrap();
        shard.flush().await.unwrap();
        shard.write(write(2, 50..60)).await.unwrap();
        shard.remove_chunk(CHUNK).await.unwrap();
        shard.remove_chunk(CHUNK).await.unwrap();
        assert!(matches!(shard.write(write(3, 0..1)).await, Err(Refusal::NotPrimary { .. })));
        assert!(!disk.files(&simulated()).iter().any(|path| path.to_string_lossy().contains("chunks/7/")));
        assert_eq!(shard.status().memtable_bytes, 0);
        drop(shard);
        let (shard, report) = Shard::open_on(disk.crash(), options(&simulated())).await.unwrap();
        assert_eq!(report.chunks, 1);
        assert_eq!(shard.chunk_epoch(CHUNK), None);
    });
}

#[test]
fn rows_that_are_not_of_the_schema_are_refused() {
    run(async {
        let (_, shard) = open_simulated(1).await;
        let garbage = Write { rows: Bytes::from_static(b"no rows at all"), ..write(1, []) };
        assert!(matches!(shard.write(garbage).await, Err(Refusal::Protocol(_))));
        let cut = rows(0..100);
        let cut = Write { rows: cut.slice(..cut.len() / 2), ..write(1, []) };
        assert!(matches!(shard.write(cut).await, Err(Refusal::Protocol(_))));
        shard.write(write(1, 0..5)).await.unwrap();
        assert_eq!(values_at(&shard, 99).await, up_to(5));
    });
}
