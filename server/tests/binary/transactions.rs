//! BEGIN, COMMIT, ROLLBACK, and who sees what when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{Cluster, Node, Sql, sqlstate_of};

#[tokio::test]
async fn own_writes_are_seen_and_others_only_after_commit() {
    let node = Node::start();
    let (writer, reader) = (node.connect().await, node.connect().await);
    writer.run("CREATE TABLE t (time timestamptz NOT NULL, device text, v int)").await;
    writer.run("SELECT create_hypertable('t', 'time', 'device', 4)").await;
    writer.run("BEGIN").await;
    writer.run("INSERT INTO t VALUES ('2024-01-01Z', 'a', 1), ('2024-06-01Z', 'b', 2)").await;
    assert_eq!(writer.copy("COPY t FROM STDIN WITH (FORMAT csv)", "2024-09-01Z,c,3\n").await.unwrap(), 1);
    assert_eq!(writer.one("SELECT count(*) FROM t").await, "3");
    assert_eq!(reader.one("SELECT count(*) FROM t").await, "0");
    writer.run("COMMIT").await;
    assert_eq!(reader.rows("SELECT v FROM t ORDER BY v").await, ["1", "2", "3"]);
}

#[tokio::test]
async fn rolled_back_and_failed_transactions_leave_nothing() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (time timestamptz NOT NULL, v int)").await;
    sql.run("SELECT create_hypertable('t', 'time')").await;
    sql.run("BEGIN; INSERT INTO t VALUES ('2024-01-01Z', 1), ('2025-01-01Z', 1)").await;
    sql.run("ROLLBACK").await;
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "0");

    sql.run("BEGIN").await;
    sql.run("INSERT INTO t VALUES ('2024-01-01Z', 1)").await;
    assert_eq!(sql.fail("SELECT nothing FROM t").await.0, "42703");
    let (sqlstate, message) = sql.fail("INSERT INTO t VALUES ('2024-01-01Z', 2)").await;
    assert_eq!(sqlstate, "25P02");
    assert_eq!(message, "current transaction is aborted, commands ignored until end of transaction block");
    sql.run("COMMIT").await;
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "0", "COMMIT of a failed transaction rolls back");
}

#[tokio::test]
async fn a_connection_that_goes_away_takes_its_transaction_with_it() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (v int)").await;
    {
        let other = node.connect().await;
        other.run("BEGIN").await;
        other.run("INSERT INTO t VALUES (1)").await;
    }
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn statements_of_one_message_are_one_transaction() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (v int)").await;
    assert_eq!(sql.fail("INSERT INTO t VALUES (1); SELECT 1/0").await.0, "22012");
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "0");
    sql.run("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)").await;
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "2");
}

#[tokio::test]
async fn a_transaction_over_several_data_nodes_appears_at_once() {
    let cluster = Cluster::start(1, 3);
    let sql = cluster.connect().await;
    sql.run("CREATE TABLE t (time timestamptz NOT NULL, device text, batch int)").await;
    sql.run("SELECT create_distributed_hypertable('t', 'time', 'device', 8)").await;
    let values = |batch: usize| -> String {
        let rows = (0..64).map(|row| format!("('2024-{:02}-01Z', 'd{row}', {batch})", 1 + row % 12));
        rows.collect::<Vec<_>>().join(",")
    };
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reader = cluster.connect().await;
    let finished = std::sync::Arc::clone(&done);
    let reading = tokio::spawn(async move {
        let mut seen = 0;
        while !finished.load(std::sync::atomic::Ordering::Relaxed) {
            for row in reader.rows("SELECT batch, count(*) FROM t GROUP BY batch").await {
                let count: usize = row.split('|').nth(1).unwrap().parse().unwrap();
                assert_eq!(count, 64, "a part of a transaction is visible: {row}");
            }
            seen += 1;
        }
        seen
    });
    for batch in 0..20 {
        sql.run("BEGIN").await;
        sql.run(&format!("INSERT INTO t VALUES {}", values(batch))).await;
        sql.run(if batch % 4 == 3 { "ROLLBACK" } else { "COMMIT" }).await;
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(reading.await.unwrap() > 0);
    assert_eq!(sql.one("SELECT count(*) FROM t").await, (15 * 64).to_string());
    let hosts = sql.one("SELECT count(DISTINCT batch) FROM t").await;
    assert_eq!(hosts, "15");
}

/// Inserts rows of its own until told to stop; answers those that were acknowledged.
async fn insert_until(stop: Arc<AtomicBool>, port: u16, table: String, writer: u64) -> u64 {
    let sql = Sql::connect(port).await;
    let mut acknowledged = 0;
    for row in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let insert = format!("INSERT INTO {table} VALUES ('2024-01-01Z', 'w{writer}', {row})");
        match sql.client.batch_execute(&insert).await {
            Ok(()) => acknowledged += 1,
            Err(error) => {
                let state = sqlstate_of(&error);
                assert!(["40001", "57P03"].contains(&state.as_str()), "{table}: {state}: {error}");
            }
        }
    }
    acknowledged
}

#[tokio::test]
async fn rows_that_come_while_a_table_becomes_a_hypertable_are_not_lost() {
    let cluster = Cluster::start(2, 2);
    let sql = cluster.connect().await;
    let (mut made, mut refused) = (0, 0);
    for round in 0..12 {
        let table = format!("t{round}");
        sql.run(&format!("CREATE TABLE {table} (time timestamptz NOT NULL, device text, v bigint)")).await;
        if round % 2 == 1 {
            // The plain table has a chunk already, and it is empty.
            sql.run(&format!("BEGIN; INSERT INTO {table} VALUES ('2024-01-01Z', 'x', 0); ROLLBACK")).await;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let port = cluster.access[writer % 2].sql_port();
                let (stop, table) = (Arc::clone(&stop), table.clone());
                tokio::spawn(async move {
                    // Now and then the table is first, also where writers are quick.
                    tokio::time::sleep(std::time::Duration::from_millis(if round % 4 == 0 { 100 } else { 0 })).await;
                    insert_until(stop, port, table, writer as u64).await
                })
            })
            .collect();
        // A little later each time: before the first row, among the first, after them.
        tokio::time::sleep(std::time::Duration::from_millis(3 * round)).await;
        let create = format!("SELECT create_hypertable('{table}', 'time', 'device', 4)");
        match sql.client.batch_execute(&create).await {
            Ok(()) => made += 1,
            Err(error) => {
                let state = sqlstate_of(&error);
                assert!(["0A000", "40001", "55006"].contains(&state.as_str()), "{state}: {error}");
                refused += 1;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        stop.store(true, Ordering::Relaxed);
        let mut acknowledged = 0;
        for writer in writers {
            acknowledged += writer.await.unwrap();
        }
        let count = sql.one(&format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(count, acknowledged.to_string(), "round {round}, {made} made, {refused} refused");
        assert!(acknowledged > 0, "round {round}: nobody could write afterwards");
    }
    assert!(made > 0, "no table became a hypertable");
}

#[tokio::test]
async fn a_table_that_stays_plain_takes_rows_again() {
    let node = Node::start();
    let (sql, other) = (node.connect().await, node.connect().await);
    sql.run("CREATE TABLE t (time timestamptz NOT NULL, v int)").await;
    other.run("BEGIN; INSERT INTO t VALUES ('2024-01-01Z', 1)").await;
    let (state, message) = sql.fail("SELECT create_hypertable('t', 'time')").await;
    assert_eq!(state, "55006", "{message}");
    // The transaction was not harmed, and the table is as open as before.
    other.run("INSERT INTO t VALUES ('2024-01-01Z', 2)").await;
    other.run("COMMIT").await;
    sql.run("INSERT INTO t VALUES ('2024-01-01Z', 3)").await;
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "3");
    assert_eq!(sql.fail("SELECT create_hypertable('t', 'time')").await.0, "0A000");
    // In a transaction the table is sealed at COMMIT, when it may no longer be empty.
    sql.run("CREATE TABLE u (time timestamptz NOT NULL, v int)").await;
    sql.run("BEGIN").await;
    sql.run("SELECT create_hypertable('u', 'time')").await;
    other.run("INSERT INTO u VALUES ('2024-01-01Z', 1)").await;
    assert_eq!(sql.fail("COMMIT").await.0, "40001");
    other.run("INSERT INTO u VALUES ('2024-01-01Z', 2)").await;
    assert_eq!(sql.one("SELECT count(*) FROM u").await, "2");
}
