//! Order, visibility and accounting of rows in memory.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use meridian_proto::schema::Column;
use meridian_proto::{ColumnId, ProducerId, SchemaVersion, Sequence, SqlType};

use super::sort::{Unsorted, sorted};
use super::*;
use crate::scan::SortKey;
use crate::testing::run;

const NOTHING: [i64; 0] = [];

fn column(id: u16, name: &str, sql_type: SqlType) -> Column {
    Column { id: ColumnId(id), name: name.to_owned(), sql_type, not_null: false, default: None, modifier: None }
}

fn schema() -> TableSchema {
    let columns = vec![
        column(1, "time", SqlType::Timestamptz),
        column(2, "host", SqlType::Text),
        column(3, "value", SqlType::Int8),
    ];
    TableSchema { version: SchemaVersion(1), columns }
}

fn key() -> SortKey {
    SortKey { segment_by: vec![ColumnId(2)], time: Some(ColumnId(1)) }
}

fn batch(rows: &[(i64, Option<&str>, i64)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0)).with_timezone("UTC")),
        Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()),
    ];
    RecordBatch::try_new(schema().arrow(), columns).unwrap()
}

fn values(batch: &RecordBatch, column: usize) -> Vec<i64> {
    batch.column(column).as_primitive::<Int64Type>().values().to_vec()
}

fn id(sequence: u64) -> TransactionId {
    TransactionId { producer: ProducerId(1), sequence: Sequence(sequence) }
}

async fn sort_all(batches: Vec<RecordBatch>, commits: Vec<Commits>, key: &SortKey) -> (Vec<i64>, Vec<u64>) {
    let rows = Unsorted { schema: schema().arrow(), batches, commits };
    let mut sorted = sorted(rows, &schema(), key).await.unwrap();
    let (mut found, mut found_commits) = (Vec::new(), Vec::new());
    while let Some(next) = sorted.next().await {
        let (batch, commits) = next.unwrap();
        found.extend(values(&batch, 2));
        found_commits.extend(commits.unwrap_or_default());
    }
    (found, found_commits)
}

#[test]
fn rows_are_sorted_by_series_then_time_then_arrival() {
    run(async {
        let first = batch(&[(30, Some("b"), 1), (10, Some("a"), 2), (20, None, 3), (10, Some("b"), 4)]);
        let second = batch(&[(10, Some("a"), 5), (5, Some("a"), 6), (30, Some("b"), 7)]);
        let commits = vec![Commits::All(Ts(50)), Commits::Each([60, 61, 62].into())];
        let (found, found_commits) = sort_all(vec![first.clone(), second.clone()], commits, &key()).await;
        assert_eq!(found, [3, 6, 2, 5, 4, 1, 7]);
        assert_eq!(found_commits, [50, 61, 50, 60, 50, 50, 62]);
        let by_time = SortKey { segment_by: vec![], time: Some(ColumnId(1)) };
        assert_eq!(sort_all(vec![first.clone(), second.clone()], vec![], &by_time).await.0, [6, 2, 4, 5, 3, 1, 7]);
        assert_eq!(sort_all(vec![first, second], vec![], &SortKey::default()).await.0, [1, 2, 3, 4, 5, 6, 7]);
    });
}

#[test]
fn many_rows_are_sorted_as_a_plain_sort_would() {
    run(async {
        let hosts: Vec<String> = (0..37).map(|host| format!("host_{host}")).collect();
        let rows: Vec<_> =
            (0..20_000_i64).map(|n| ((n * 7919) % 4001, Some(hosts[(n * 31 % 37) as usize].as_str()), n)).collect();
        let batches = rows.chunks(3000).map(batch).collect();
        let mut expected = rows.clone();
        expected.sort_by_key(|row| (row.1, row.0));
        let expected: Vec<_> = expected.into_iter().map(|row| row.2).collect();
        assert_eq!(sort_all(batches, vec![], &key()).await.0, expected);
    });
}

fn seen(memtable: &Memtable, view: &View) -> Vec<i64> {
    let batches = memtable.contents().visible(view, &[2], |_| Outcome::Undecided).unwrap();
    batches.iter().flat_map(|batch| values(batch, 0)).collect()
}

fn at(snapshot: u64) -> View {
    View { snapshot: Ts(snapshot), ..View::default() }
}

#[test]
fn a_reader_sees_what_was_committed_at_or_below_its_snapshot() {
    let mut memtable = Memtable::default();
    memtable.insert(batch(&[(1, None, 1)]), Ts(10), 100).unwrap();
    memtable.insert(batch(&[(1, None, 2)]), Ts(20), 100).unwrap();
    assert_eq!(seen(&memtable, &at(9)), NOTHING);
    assert_eq!(seen(&memtable, &at(10)), [1]);
    assert_eq!(seen(&memtable, &at(20)), [1, 2]);
}

#[test]
fn a_stage_is_seen_by_later_commands_of_its_transaction_and_by_who_knows_its_outcome() {
    let mut memtable = Memtable::default();
    memtable.stage(id(1), CommandId(0), batch(&[(1, None, 1)]), 100).unwrap();
    memtable.stage(id(1), CommandId(1), batch(&[(1, None, 2)]), 100).unwrap();
    assert_eq!(seen(&memtable, &at(99)), NOTHING);
    let own = |command| View { own: Some((id(1), CommandId(command))), ..at(5) };
    assert_eq!(seen(&memtable, &own(0)), NOTHING);
    assert_eq!(seen(&memtable, &own(1)), [1]);
    assert_eq!(seen(&memtable, &own(2)), [1, 2]);
    let resolved = |snapshot| View { resolved: BTreeMap::from([(id(1), Ts(30))]), ..at(snapshot) };
    assert_eq!(seen(&memtable, &resolved(29)), NOTHING);
    assert_eq!(seen(&memtable, &resolved(30)), [1, 2]);
    memtable.commit(id(1), Ts(30));
    assert_eq!(seen(&memtable, &at(29)), NOTHING);
    assert_eq!(seen(&memtable, &at(30)), [1, 2]);
    assert_eq!((memtable.staged_bytes(), memtable.bytes(), memtable.rows()), (0, 200, 2));
}

#[test]
fn a_discarded_stage_is_gone() {
    let mut memtable = Memtable::default();
    memtable.stage(id(1), CommandId(0), batch(&[(1, None, 1)]), 100).unwrap();
    memtable.discard(id(1));
    assert_eq!(seen(&memtable, &View { own: Some((id(1), CommandId(9))), ..at(99) }), NOTHING);
    assert_eq!((memtable.staged_bytes(), memtable.bytes(), memtable.is_empty()), (0, 0, true));
}

#[test]
fn small_batches_are_put_together_and_keep_their_timestamps() {
    let mut memtable = Memtable::default();
    for n in 0..1000 {
        memtable.insert(batch(&[(n, Some("host"), n)]), Ts(n as u64), 2000).unwrap();
        memtable.stage(id(1), CommandId(0), batch(&[(n, Some("host"), n)]), 2000).unwrap();
    }
    assert!(memtable.contents().committed.len() < 100);
    assert!(memtable.contents().stages[&id(1)].len() < 100);
    assert!(memtable.bytes() < 1_000_000, "{}", memtable.bytes());
    assert_eq!(seen(&memtable, &at(499)), (0..500).collect::<Vec<_>>());
    memtable.commit(id(1), Ts(5000));
    assert_eq!(seen(&memtable, &at(9999)).len(), 2000);
    assert_eq!(memtable.staged_bytes(), 0);
}

#[test]
fn what_could_not_be_flushed_comes_back_with_what_was_decided_meanwhile() {
    let mut memtable = Memtable::default();
    memtable.insert(batch(&[(1, None, 1)]), Ts(10), 100).unwrap();
    for sequence in 1..=3 {
        memtable.stage(id(sequence), CommandId(0), batch(&[(1, None, 1 + sequence as i64)]), 100).unwrap();
    }
    let mut frozen = memtable.freeze();
    assert!(memtable.is_empty());
    memtable.insert(batch(&[(1, None, 5)]), Ts(12), 100).unwrap();
    memtable.stage(id(3), CommandId(1), batch(&[(1, None, 6)]), 100).unwrap();
    frozen.settle(id(1), Outcome::Committed(Ts(11)));
    frozen.settle(id(2), Outcome::Aborted);
    memtable.restore(frozen);
    assert_eq!(seen(&memtable, &at(11)), [1, 2]);
    assert_eq!(seen(&memtable, &at(12)), [1, 2, 5]);
    assert_eq!(seen(&memtable, &View { own: Some((id(3), CommandId(2))), ..at(0) }), [4, 6]);
    assert_eq!((memtable.bytes(), memtable.staged_bytes(), memtable.rows()), (500, 200, 5));
}

#[test]
fn rows_take_a_newer_schema_by_the_ids_of_its_columns() {
    let mut newer = schema();
    newer.version = SchemaVersion(2);
    newer.columns.remove(1);
    newer.columns.push(column(4, "extra", SqlType::Float8));
    newer.columns.swap(0, 1);
    let converted = to_schema(&batch(&[(7, Some("a"), 1)]), &schema(), &newer).unwrap();
    assert_eq!(converted.schema(), newer.arrow());
    assert_eq!(values(&converted, 0), [1]);
    assert_eq!(converted.column(1).as_primitive::<TimestampMicrosecondType>().value(0), 7);
    assert!(converted.column(2).is_null(0));
}
