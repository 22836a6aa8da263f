//! What the core promises, case by case.

use super::*;

const EPOCH: Epoch = Epoch(3);
const CHUNK: ChunkId = ChunkId(7);
const OTHER: ChunkId = ChunkId(8);

fn replica() -> Replica {
    let mut replica = Replica::new(CHUNK, SchemaVersion(1), ReplicaState::default());
    assert!(replica.take_office(EPOCH, Ts(10)).unwrap().is_some());
    replica.epoch_synced(EPOCH);
    replica
}

fn id(sequence: u64) -> TransactionId {
    TransactionId { producer: ProducerId(1), sequence: Sequence(sequence) }
}

fn write(sequence: u64, piece: u32, mode: WriteMode) -> WriteRequest {
    WriteRequest {
        epoch: EPOCH,
        transaction: id(sequence),
        low_water: Sequence(0),
        piece,
        command: CommandId(0),
        snapshot: Ts(5),
        schema_version: SchemaVersion(1),
        mode,
        row_count: 4,
    }
}

fn stage(sequence: u64, piece: u32, holder: ChunkId) -> WriteRequest {
    write(sequence, piece, WriteMode::Stage { holder })
}

fn decide(sequence: u64, commit: bool, pieces: u32) -> Decide {
    let participants = vec![CHUNK, OTHER];
    Decide { chunk: CHUNK, epoch: EPOCH, transaction: id(sequence), commit, max_read: Ts(20), participants, pieces }
}

fn resolve(sequence: u64, commit: Option<u64>) -> Resolve {
    Resolve { chunk: CHUNK, epoch: EPOCH, transaction: id(sequence), commit: commit.map(Ts) }
}

fn question(sequence: u64, snapshot: u64) -> Question {
    Question { chunk: CHUNK, epoch: EPOCH, transaction: id(sequence), snapshot: Ts(snapshot) }
}

fn appended<T>(step: Result<Step<T>, Refusal>) -> T {
    match step {
        Ok(Step::Append { answer, .. }) => answer,
        Ok(_) => panic!("nothing was appended"),
        Err(refusal) => panic!("refused: {refusal}"),
    }
}

fn sync(replica: &mut Replica) -> Vec<Effect> {
    let mut effects = Vec::new();
    while replica.synced() < replica.appended {
        effects.extend(replica.synced_next());
    }
    effects
}

#[test]
fn a_commit_timestamp_is_above_the_snapshot_and_everything_read() {
    let mut replica = replica();
    assert_eq!(appended(replica.write(&write(1, 0, WriteMode::OnePhase))).commit, Some(Ts(11)));
    assert_eq!(replica.begin_read(EPOCH, Ts(30)), Ok(Some(Lsn(1))));
    assert_eq!(appended(replica.write(&write(2, 0, WriteMode::OnePhase))).commit, Some(Ts(31)));
    let late = WriteRequest { snapshot: Ts(50), ..write(3, 0, WriteMode::OnePhase) };
    assert_eq!(appended(replica.write(&late)).commit, Some(Ts(51)));
}

#[test]
fn a_reader_waits_for_the_last_pending_record_at_or_below_its_snapshot() {
    let mut replica = replica();
    appended(replica.write(&write(1, 0, WriteMode::OnePhase)));
    assert_eq!(replica.begin_read(EPOCH, Ts(10)), Ok(None), "commits at 11");
    assert_eq!(replica.begin_read(EPOCH, Ts(11)), Ok(Some(Lsn(1))));
    sync(&mut replica);
    assert_eq!(replica.begin_read(EPOCH, Ts(11)), Ok(None));
}

#[test]
fn requests_of_another_epoch_are_refused() {
    let mut replica = replica();
    let stale = WriteRequest { epoch: Epoch(2), ..write(1, 0, WriteMode::OnePhase) };
    let refusal = Refusal::StaleEpoch { chunk: CHUNK, asked: Epoch(2), current: EPOCH };
    assert_eq!(replica.write(&stale), Err(refusal.clone()));
    assert_eq!(replica.begin_read(Epoch(2), Ts(1)), Err(refusal));
    assert!(replica.take_office(Epoch(2), Ts(1)).is_err());
}

#[test]
fn nothing_is_served_before_the_epoch_is_durable() {
    let mut replica = replica();
    assert!(replica.take_office(Epoch(4), Ts(10)).unwrap().is_some());
    let newer = WriteRequest { epoch: Epoch(4), ..write(1, 0, WriteMode::OnePhase) };
    assert!(matches!(replica.write(&newer), Err(Refusal::NotPrimary { .. })));
    assert!(matches!(replica.write(&write(1, 0, WriteMode::OnePhase)), Err(Refusal::StaleEpoch { .. })));
    replica.epoch_synced(Epoch(4));
    appended(replica.write(&newer));
}

#[test]
fn a_restarted_process_serves_nothing_before_it_takes_office() {
    let mut before = replica();
    appended(before.write(&write(1, 0, WriteMode::OnePhase)));
    sync(&mut before);
    let mut replica = Replica::new(CHUNK, SchemaVersion(1), before.state().clone());
    assert!(matches!(replica.begin_read(EPOCH, Ts(1)), Err(Refusal::NotPrimary { .. })));
    assert!(replica.take_office(Epoch(4), Ts(99)).unwrap().is_some());
    replica.epoch_synced(Epoch(4));
    let next = WriteRequest { epoch: Epoch(4), ..write(2, 0, WriteMode::OnePhase) };
    assert_eq!(appended(replica.write(&next)).commit, Some(Ts(100)));
}

#[test]
fn a_duplicate_waits_for_its_original_and_gets_its_answer() {
    let mut replica = replica();
    let answer = appended(replica.write(&write(1, 0, WriteMode::OnePhase)));
    let again = write(1, 0, WriteMode::OnePhase);
    assert_eq!(replica.write(&again), Ok(Step::Wait { lsn: Lsn(1), answer }));
    sync(&mut replica);
    replica.begin_read(EPOCH, Ts(99)).unwrap();
    assert_eq!(replica.write(&again), Ok(Step::Done(answer)));
}

#[test]
fn an_old_schema_version_is_refused_but_a_duplicate_of_before_is_answered() {
    let mut replica = replica();
    let answer = appended(replica.write(&write(1, 0, WriteMode::OnePhase)));
    sync(&mut replica);
    replica.set_schema_version(SchemaVersion(2));
    assert_eq!(replica.write(&write(1, 0, WriteMode::OnePhase)), Ok(Step::Done(answer)));
    let refusal = Refusal::SchemaVersion { asked: SchemaVersion(1), current: SchemaVersion(2) };
    assert_eq!(replica.write(&write(2, 0, WriteMode::OnePhase)), Err(refusal));
}

#[test]
fn below_the_low_water_mark_the_outcome_is_unknown() {
    let mut replica = replica();
    appended(replica.write(&write(1, 0, WriteMode::OnePhase)));
    appended(replica.write(&WriteRequest { low_water: Sequence(5), ..write(5, 0, WriteMode::OnePhase) }));
    sync(&mut replica);
    assert!(matches!(replica.write(&write(1, 0, WriteMode::OnePhase)), Err(Refusal::OutcomeUnknown(_))));
    assert!(matches!(replica.outcome(&question(1, 0)), Err(Refusal::OutcomeUnknown(_))));
    assert_eq!(replica.state().transactions.len(), 1, "what is settled is forgotten");
}

#[test]
fn an_undecided_stage_outlives_the_low_water_mark() {
    let mut replica = replica();
    appended(replica.write(&stage(1, 0, OTHER)));
    appended(replica.write(&WriteRequest { low_water: Sequence(5), ..write(5, 0, WriteMode::OnePhase) }));
    sync(&mut replica);
    assert_eq!(replica.foreign_stages(), vec![(id(1), OTHER)]);
    appended(replica.resolve(&resolve(1, Some(40))));
    assert_eq!(sync(&mut replica), vec![Effect::Commit { transaction: id(1), commit: Ts(40) }]);
}

#[test]
fn the_holder_commits_above_every_participants_reads_and_its_own() {
    for (own_read, expected) in [(15, 21), (33, 34)] {
        let mut replica = replica();
        appended(replica.write(&stage(1, 0, CHUNK)));
        appended(replica.write(&stage(1, 1, CHUNK)));
        sync(&mut replica);
        replica.begin_read(EPOCH, Ts(own_read)).unwrap();
        let committed = Decision::Committed(Ts(expected));
        assert_eq!(appended(replica.decide(&decide(1, true, 2))), committed);
        assert_eq!(replica.decide(&decide(1, true, 2)), Ok(Step::Wait { lsn: Lsn(3), answer: committed }));
        let effect = Effect::Commit { transaction: id(1), commit: Ts(expected) };
        assert_eq!(sync(&mut replica), vec![effect]);
        assert_eq!(replica.decide(&decide(1, false, 2)), Ok(Step::Done(committed)), "decided is decided");
        let answer = Answer::Committed { commit: Ts(expected), row_count: 8 };
        assert_eq!(replica.outcome(&question(1, 0)), Ok(Step::Done(answer)));
    }
}

#[test]
fn a_commit_without_the_whole_stage_becomes_an_abort() {
    for staged in [0, 1] {
        let mut replica = replica();
        for piece in 0..staged {
            appended(replica.write(&stage(1, piece, CHUNK)));
        }
        sync(&mut replica);
        assert_eq!(appended(replica.decide(&decide(1, true, 2))), Decision::Aborted);
        sync(&mut replica);
        assert!(matches!(replica.write(&stage(1, 1, CHUNK)), Err(Refusal::Aborted(_))), "too late");
        assert_eq!(replica.outcome(&question(1, 0)), Ok(Step::Done(Answer::Aborted)));
    }
}

#[test]
fn only_the_holder_decides_and_only_participants_resolve() {
    let mut replica = replica();
    appended(replica.write(&stage(1, 0, OTHER)));
    appended(replica.write(&stage(2, 0, CHUNK)));
    sync(&mut replica);
    assert!(matches!(replica.decide(&decide(1, true, 1)), Err(Refusal::Protocol(_))));
    assert!(matches!(replica.resolve(&resolve(2, Some(50))), Err(Refusal::Protocol(_))));
    assert!(matches!(replica.resolve(&resolve(3, Some(50))), Err(Refusal::Protocol(_))), "no stage here");
}

#[test]
fn undecided_is_a_promise_to_commit_above_the_askers_snapshot() {
    let mut replica = replica();
    appended(replica.write(&stage(1, 0, CHUNK)));
    sync(&mut replica);
    assert_eq!(replica.outcome(&question(1, 60)), Ok(Step::Done(Answer::Undecided)));
    assert_eq!(appended(replica.decide(&decide(1, true, 1))), Decision::Committed(Ts(61)));
    let wait = Step::Wait { lsn: Lsn(2), answer: Answer::Committed { commit: Ts(61), row_count: 4 } };
    assert_eq!(replica.outcome(&question(1, 70)), Ok(wait), "a decision that is not synced yet is waited for");
}

#[test]
fn unknown_is_the_same_promise() {
    let mut replica = replica();
    assert_eq!(replica.outcome(&question(1, 60)), Ok(Step::Done(Answer::Unknown)));
    appended(replica.write(&stage(1, 0, CHUNK)));
    sync(&mut replica);
    assert_eq!(appended(replica.decide(&decide(1, true, 1))), Decision::Committed(Ts(61)));
}

#[test]
fn the_outcome_of_a_one_phase_write_is_told_once_it_is_synced() {
    let mut replica = replica();
    appended(replica.write(&write(1, 0, WriteMode::OnePhase)));
    let answer = Answer::Committed { commit: Ts(11), row_count: 4 };
    assert_eq!(replica.outcome(&question(1, 0)), Ok(Step::Wait { lsn: Lsn(1), answer }));
    sync(&mut replica);
    assert_eq!(replica.outcome(&question(1, 0)), Ok(Step::Done(answer)));
}

#[test]
fn a_reader_asks_for_foreign_stages_only() {
    let mut replica = replica();
    appended(replica.write(&stage(1, 0, OTHER)));
    assert!(replica.foreign_stages().is_empty(), "not synced: its acknowledgement will carry this read");
    appended(replica.write(&stage(2, 0, CHUNK)));
    sync(&mut replica);
    assert_eq!(replica.foreign_stages(), vec![(id(1), OTHER)]);
    appended(replica.resolve(&resolve(1, None)));
    sync(&mut replica);
    assert!(replica.foreign_stages().is_empty());
}

#[test]
fn an_abort_is_kept_even_where_no_stage_came() {
    let mut replica = replica();
    appended(replica.resolve(&resolve(1, None)));
    sync(&mut replica);
    assert_eq!(replica.resolve(&resolve(1, None)), Ok(Step::Done(())));
    assert!(matches!(replica.write(&stage(1, 0, OTHER)), Err(Refusal::Aborted(_))));
    assert!(matches!(replica.resolve(&resolve(1, Some(9))), Err(Refusal::Protocol(_))));
}

#[test]
fn what_was_given_up_can_be_appended_again() {
    let mut replica = replica();
    appended(replica.write(&write(1, 0, WriteMode::OnePhase)));
    sync(&mut replica);
    appended(replica.write(&write(2, 0, WriteMode::OnePhase)));
    appended(replica.write(&stage(3, 0, OTHER)));
    replica.forget_pending();
    assert_eq!(replica.begin_read(EPOCH, Ts(99)), Ok(None));
    let Ok(Step::Append { record, .. }) = replica.write(&write(2, 0, WriteMode::OnePhase)) else { panic!() };
    assert_eq!(record.lsn, Lsn(2), "without a gap");
}

#[test]
fn a_gap_in_the_log_is_noticed() {
    let mut source = replica();
    let mut records = Vec::new();
    for sequence in 1..=3 {
        let Ok(Step::Append { record, .. }) = source.write(&write(sequence, 0, WriteMode::OnePhase)) else { panic!() };
        records.push(record);
    }
    let mut replica = Replica::new(CHUNK, SchemaVersion(1), ReplicaState::default());
    assert!(replica.replay(&records[0]).unwrap().is_some());
    assert_eq!(replica.replay(&records[0]), Ok(None), "folded before");
    assert!(replica.replay(&records[2]).is_err());
}
