//! `kill -9` under load: every acknowledged row is there afterwards, once.

use std::time::{Duration, Instant};

use crate::common::{Cluster, Loader, Node, Sql, check_rows, sqlstate_of};

/// SQLSTATEs that a client may see while a node is gone.
const WHILE_A_NODE_IS_GONE: &[&str] = &["57P01", "57P02", "57P03", "08007", "40001"];

/// From the death of the meta leader to the next statement. Noticing it and electing another take 2 s at most (the
/// intervals of the meta group); the rest is the statement's. A debug build runs that, and the 200,000 rows that a COPY
/// sends beside it, a few times slower on the same cores.
const STATEMENT_AFTER_LEADER_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 4 } else { 3 });

#[tokio::test]
async fn a_killed_node_keeps_every_acknowledged_row() {
    let mut node = Node::start_with(&["--set", "data.memtable=1MiB"]);
    let load = Loader::start(&[node.sql_port()], 4).await;
    for _ in 0..3 {
        load.wait_acknowledged(40).await;
        node.kill();
        node.run();
        node.wait_ready();
    }
    load.wait_acknowledged(10).await;
    let outcomes = load.stop().await;
    check_rows(&node.connect().await, &outcomes).await;
    node.restart();
    check_rows(&node.connect().await, &outcomes).await;
    node.assert_no_panic();
}

#[tokio::test]
async fn killed_data_nodes_keep_every_acknowledged_row() {
    let mut cluster = Cluster::start(3, 3);
    let ports: Vec<u16> = cluster.access.iter().map(Node::sql_port).collect();
    let load = Loader::start(&ports, 3).await;
    for position in [0, 1, 2] {
        load.wait_acknowledged(15).await;
        cluster.data[position].kill();
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster.data[position].run();
        cluster.data[position].wait_ready();
    }
    load.wait_acknowledged(15).await;
    let outcomes = load.stop().await;
    check_rows(&cluster.connect().await, &outcomes).await;
    cluster.assert_no_panic();
}

#[tokio::test]
async fn killed_access_nodes_keep_every_acknowledged_row() {
    let mut cluster = Cluster::start(3, 2);
    // With fewer, the rest would be no majority.
    cluster.wait_voters(3);
    let ports: Vec<u16> = cluster.access.iter().map(Node::sql_port).collect();
    let load = Loader::start(&ports, 3).await;
    for position in [2, 0, 1] {
        load.wait_acknowledged(15).await;
        cluster.access[position].kill();
        load.wait_acknowledged(10).await;
        cluster.access[position].run();
        cluster.access[position].wait_ready();
    }
    let outcomes = load.stop().await;
    check_rows(&cluster.connect().await, &outcomes).await;
    cluster.assert_no_panic();
}

#[tokio::test]
async fn a_cluster_killed_as_a_whole_keeps_every_acknowledged_row() {
    let mut cluster = Cluster::start(3, 3);
    let ports: Vec<u16> = cluster.access.iter().map(Node::sql_port).collect();
    let load = Loader::start(&ports, 3).await;
    for _ in 0..2 {
        load.wait_acknowledged(20).await;
        cluster.kill_all();
        cluster.run_all();
    }
    load.wait_acknowledged(10).await;
    let outcomes = load.stop().await;
    check_rows(&cluster.connect().await, &outcomes).await;
    cluster.assert_no_panic();
}

#[tokio::test]
async fn a_killed_leader_ends_a_copy_cleanly_and_the_next_statement_works_soon() {
    let mut cluster = Cluster::start(3, 2);
    // With fewer, the rest would be no majority.
    cluster.wait_voters(3);
    let leader = cluster.leader();
    let gateway = (leader + 1) % 3;
    let sql = cluster.access[gateway].connect().await;
    sql.run("CREATE TABLE t (time timestamptz NOT NULL, device text, v int)").await;
    sql.run("SELECT create_distributed_hypertable('t', 'time', 'device', 4)").await;
    // Far more chunks than one: the COPY needs the leader while it runs.
    let data: String = (0..200_000)
        .map(|row| format!("20{:02}-{:02}-01Z,d{},{row}\n", row / 10_000, 1 + row / 1000 % 12, row % 16))
        .collect();
    let copying = tokio::spawn(async move { (sql.copy("COPY t FROM STDIN WITH (FORMAT csv)", &data).await, sql) });
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.access[leader].kill();
    let killed = Instant::now();

    let other = cluster.access[gateway].connect().await;
    let mut worked = None;
    while worked.is_none() && killed.elapsed() < Duration::from_secs(20) {
        match other.try_rows("SELECT count(*) FROM t").await {
            Ok(_) => worked = Some(killed.elapsed()),
            Err(error) => {
                let state = sqlstate_of(&error);
                assert!(WHILE_A_NODE_IS_GONE.contains(&state.as_str()), "{state}: {error}");
            }
        }
    }
    let worked = worked.expect("a statement works again");
    assert!(worked < STATEMENT_AFTER_LEADER_MAX, "only after {worked:?}");

    let (copied, sql) = copying.await.unwrap();
    let count: u64 = sql_count(&other).await;
    match copied {
        Ok(rows) => assert_eq!((rows, count), (200_000, 200_000)),
        Err(error) => {
            let state = sqlstate_of(&error);
            assert!(WHILE_A_NODE_IS_GONE.contains(&state.as_str()), "{state}: {error}");
            assert!(count == 0 || (state == "08007" && count == 200_000), "{count} rows after {state}");
        }
    }
    assert_eq!(sql.one("SELECT 1").await, "1", "the connection of the COPY goes on");
    cluster.access[leader].run();
    cluster.access[leader].wait_ready();
    cluster.assert_no_panic();
}

async fn sql_count(sql: &Sql) -> u64 {
    sql.one("SELECT count(*) FROM t").await.parse().unwrap()
}

#[tokio::test]
async fn a_transaction_whose_gateway_dies_is_not_visible() {
    let mut cluster = Cluster::start(3, 2);
    let survivor = cluster.access[0].connect().await;
    survivor.run("CREATE TABLE t (time timestamptz NOT NULL, device text)").await;
    survivor.run("SELECT create_distributed_hypertable('t', 'time', 'device', 4)").await;
    let dying = cluster.access[2].connect().await;
    dying.run("BEGIN").await;
    dying.run("INSERT INTO t VALUES ('2024-01-01Z', 'a'), ('2024-02-01Z', 'b'), ('2024-03-01Z', 'c')").await;
    cluster.access[2].kill();
    assert_eq!(survivor.one("SELECT count(*) FROM t").await, "0");
    survivor.run("INSERT INTO t VALUES ('2024-01-01Z', 'a'), ('2024-02-01Z', 'b')").await;
    assert_eq!(survivor.one("SELECT count(*) FROM t").await, "2");
}

#[tokio::test]
async fn a_table_whose_creation_got_no_answer_is_not_said_to_be_surely_missing() {
    let mut cluster = Cluster::start(3, 1);
    cluster.wait_voters(3);
    let leader = cluster.leader();
    let sql = cluster.access[leader].connect().await;
    assert_eq!(sql.one("SELECT 1").await, "1");
    let followers: Vec<usize> = (0..3).filter(|position| *position != leader).collect();
    // The leader takes the proposal into its log, where it may yet win.
    followers.iter().for_each(|follower| cluster.access[*follower].signal(libc::SIGSTOP));
    let (state, message) = sql.fail("CREATE TABLE t (v int)").await;
    followers.iter().for_each(|follower| cluster.access[*follower].signal(libc::SIGCONT));
    assert_eq!(state, "08007", "{message}");
    cluster.wait_ready();
    let sql = cluster.connect().await;
    sql.run("CREATE TABLE IF NOT EXISTS t (v int)").await;
    sql.run("INSERT INTO t VALUES (1)").await;
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "1");
    cluster.assert_no_panic();
}
