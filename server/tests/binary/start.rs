//! `meridian start`: the embedded default, restarts, and an end in order.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{Cluster, Node, PATIENCE, Port, Sql, binary, run};

/// psql against a node; a machine without psql fails the test.
fn psql(port: u16, sql: &str) -> crate::common::Output {
    let mut command = Command::new("psql");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "meridian", "-X", "-A", "-t", "-c", sql]);
    run(command)
}

#[test]
fn the_embedded_default_says_what_it_started_and_psql_connects() {
    let folder = tempfile::tempdir().unwrap();
    let (sql, cluster, admin) = (Port::take(), Port::take(), Port::take());
    let mut command = binary();
    command.current_dir(folder.path()).arg("start");
    command.env("MERIDIAN_SQL__LISTEN", sql.address());
    command.env("MERIDIAN_CLUSTER__LISTEN", cluster.address());
    command.env("MERIDIAN_ADMIN__LISTEN", admin.address());
    let printed = std::fs::File::create(folder.path().join("stdout")).unwrap();
    command.stdout(printed).stderr(std::process::Stdio::null());
    let started = Instant::now();
    let mut child = command.spawn().unwrap();
    let expected = format!("psql -h 127.0.0.1 -p {} -U meridian", sql.number());
    let mut text = String::new();
    while !text.contains(&expected) && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
        text = std::fs::read_to_string(folder.path().join("stdout")).unwrap();
    }
    let answer = psql(sql.number(), "SELECT current_user, current_database(), 40 + 2");
    // SAFETY: touches no memory; the child is not waited for yet.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    let status = child.wait().unwrap();
    assert!(text.contains(&expected), "{text}");
    for word in ["one access node", "one data node", "trust", "./meridian-data", "superuser"] {
        assert!(text.contains(word), "`{word}` is missing in:\n{text}");
    }
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(0), "meridian|meridian|42\n"), "{answer:?}");
    assert_eq!(status.code(), Some(0));
    assert!(folder.path().join("meridian-data/lock").exists());
}

#[tokio::test]
async fn what_was_written_is_there_after_sigterm_and_after_kill() {
    let mut node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE plain (id int NOT NULL, name text DEFAULT 'nobody')").await;
    sql.run("CREATE TABLE series (time timestamptz NOT NULL, device text, value float8)").await;
    sql.run("SELECT create_hypertable('series', 'time')").await;
    sql.run("INSERT INTO plain (id) VALUES (1)").await;
    sql.run("INSERT INTO series VALUES ('2024-01-01 00:00+00', 'a', 1.5), ('2025-01-01 00:00+00', 'b', NULL)").await;
    drop(sql);
    assert_eq!(node.stop(), Some(0), "{}", node.log());
    for _ in 0..2 {
        node.run();
        node.wait_ready();
        let sql = node.connect().await;
        assert_eq!(sql.rows("SELECT id, name FROM plain").await, ["1|nobody"]);
        assert_eq!(sql.rows("SELECT device, value FROM series ORDER BY time").await, ["a|1.5", "b|-"]);
        node.kill();
    }
    node.run();
    node.wait_ready();
    let sql = node.connect().await;
    sql.run("INSERT INTO plain VALUES (2, 'x')").await;
    assert_eq!(sql.one("SELECT count(*) FROM plain").await, "2");
    node.assert_no_panic();
}

#[tokio::test]
async fn a_stop_waits_for_the_answer_of_a_running_statement() {
    let mut node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (v int)").await;
    let rows = "1\n".repeat(50_000);
    let copying = tokio::spawn(async move { sql.copy("COPY t FROM STDIN", &rows).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    node.signal(libc::SIGTERM);
    let copied = copying.await.unwrap();
    assert_eq!(node.wait_end().code(), Some(0));
    node.run();
    node.wait_ready();
    let count = node.connect().await.one("SELECT count(*) FROM t").await;
    match copied {
        Ok(rows) => assert_eq!(count, rows.to_string()),
        Err(_) => assert_eq!(count, "0"),
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let mut node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (v int)").await;
    sql.run("BEGIN").await;
    sql.run("INSERT INTO t VALUES (1)").await;
    node.signal(libc::SIGTERM);
    tokio::time::sleep(Duration::from_millis(100)).await;
    if node.is_running() {
        node.signal(libc::SIGTERM);
    }
    let started = Instant::now();
    node.wait_end();
    assert!(started.elapsed() < Duration::from_secs(2));
    node.run();
    node.wait_ready();
    assert_eq!(node.connect().await.one("SELECT count(*) FROM t").await, "0");
}

/// From the start of a node to its first answer. A debug build starts with our crates lightly optimised and their
/// assertions on, and another test's processes on the same cores.
const SQL_AFTER_START_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 3 } else { 1 });

#[tokio::test]
async fn a_started_node_accepts_sql_soon() {
    let mut node = Node::start();
    node.kill();
    let started = Instant::now();
    node.run();
    let sql = Sql::connect(node.sql_port()).await;
    assert_eq!(sql.one("SELECT 1").await, "1");
    assert!(started.elapsed() < SQL_AFTER_START_MAX, "{:?}", started.elapsed());
}

#[tokio::test]
async fn every_access_node_serves_the_same_database() {
    let cluster = Cluster::start(3, 3);
    let first = cluster.access[0].connect().await;
    first.run("CREATE TABLE t (time timestamptz NOT NULL, device text, v int)").await;
    first.run("SELECT create_distributed_hypertable('t', 'time', 'device')").await;
    for (position, node) in cluster.access.iter().enumerate() {
        let sql = node.connect().await;
        sql.run(&format!("INSERT INTO t VALUES ('2024-01-0{} 00:00Z', 'd{position}', {position})", position + 1)).await;
        for reader in &cluster.access {
            // What was acknowledged anywhere is seen everywhere, at once.
            let count = reader.connect().await.one("SELECT count(*) FROM t").await;
            assert_eq!(count, (position + 1).to_string());
        }
    }
}
