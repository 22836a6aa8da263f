//! Groups of long texts, more than memory holds: they go on on disk, in turns, within the budgets.

use futures::future::join_all;

use crate::common::{Node, PATIENCE, Sql};

const MIB: u64 = 1 << 20;
const ROWS: u64 = 40_000;
/// Of one text, about.
const TEXT_BYTES: u64 = 1600;
/// Many times as many as have a turn at once.
const CLIENTS: usize = 16;
/// What the node may hold beside its caches and memtables: the statements', and what was decoded and computed on each of
/// two shards.
const BUDGETS: u64 = 32 * MIB + 2 * 2 * 16 * MIB;
/// Above it: pages on their way, a batch or two of each client between two operators, and what is freed but not given back.
const SLACK: u64 = 96 * MIB;

const GROUPS: &str = "SELECT count(*) || ' ' || sum(n) FROM (SELECT text, count(*) AS n FROM m GROUP BY text) AS texts";
const LAST: &str = "SELECT count(*) || ' ' || sum(length(last)) \
    FROM (SELECT device, time_bucket('1 min', time), last(text, time) FROM m GROUP BY 1, 2) AS latest";

fn node(flags: &[&str]) -> Node {
    let mut all = vec!["--shards", "2", "--set", "sql.memory=32MiB", "--set", "data.scan_memory=16MiB"];
    all.extend(["--set", "data.memtable=8MiB", "--set", "data.page_cache=8MiB", "--set", "data.rewrite_memory=16MiB"]);
    all.extend(flags);
    Node::start_with(&all)
}

/// Every row has a text of its own, which begins with some that others have.
async fn fill(sql: &Sql) {
    sql.run("CREATE TABLE m (time timestamptz NOT NULL, device text, text text)").await;
    sql.run("SELECT create_hypertable('m', 'time', 'device', 2, chunk_time_interval => interval '1 day')").await;
    for first in (0..ROWS).step_by(2000) {
        sql.run(&format!(
            "INSERT INTO m SELECT timestamptz '2024-01-01Z' + n * 7919 % {ROWS} * interval '1 s', 'd' || n % 100, \
             repeat(md5((n % 1000)::text), {}) || lpad(n::text, 8, '0') FROM generate_series({first}, {}) AS n",
            TEXT_BYTES / 32,
            first + 1999
        ))
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_group_more_texts_than_memory_holds() {
    let mut node = node(&[]);
    fill(&node.connect().await).await;
    let text_bytes = TEXT_BYTES / 32 * 32 + 8;
    let groups = format!("{ROWS} {ROWS}");
    // A device has a row every hundred seconds, so each is the last one of its minute.
    let last = format!("{ROWS} {}", ROWS * text_bytes);
    let before = node.memory_bytes("VmRSS");
    node.reset_peak();
    let ask = async |number: usize| {
        let sql = node.connect().await;
        let (question, answer) = if number.is_multiple_of(2) { (GROUPS, &groups) } else { (LAST, &last) };
        assert_eq!(sql.one(question).await, *answer);
    };
    join_all((0..CLIENTS).map(ask)).await;
    let grown = node.memory_bytes("VmHWM").saturating_sub(before);
    assert!(grown <= BUDGETS + SLACK, "grew by {} MiB", grown / MIB);

    // What is spilled is gone with its statement, and with the process.
    let spilled = node.folder().join("sql");
    let files = || walk(&spilled);
    assert_eq!(files(), 0);
    node.kill();
    std::fs::create_dir_all(spilled.join("left")).unwrap();
    std::fs::write(spilled.join("left/over"), "x").unwrap();
    node.run();
    node.wait_ready();
    assert_eq!(files(), 0);
    assert_eq!(node.connect().await.one(GROUPS).await, groups);
}

/// Files below a folder.
fn walk(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { 1 }).sum()
}

#[tokio::test]
async fn temporary_files_have_a_limit() {
    let node = node(&["--set", "sql.temporary_files=1MiB"]);
    let sql = node.connect().await;
    fill(&sql).await;
    let (sqlstate, message) = sql.fail(GROUPS).await;
    assert_eq!(sqlstate, "53400", "{message}");
    assert!(message.contains("sql.temporary_files"), "{message}");
    // The session goes on, and so do statements that need no file.
    assert_eq!(sql.one("SELECT count(*) FROM m").await, ROWS.to_string());
}

/// The first rows of a statement may come before it holds anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_lasts_while_rows_are_read() {
    let node = node(&[]);
    fill(&node.connect().await).await;
    let ask = async || {
        let sql = node.connect().await;
        let rows =
            sql.rows("SELECT 'first' UNION ALL (SELECT max(text) FROM (SELECT text, count(*) FROM m GROUP BY text) x)");
        assert_eq!(rows.await.len(), 2);
    };
    join_all((0..CLIENTS).map(|_| ask())).await;
}

/// A statement whose client does not read on holds up nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_ends_when_nobody_reads() {
    let node = node(&[]);
    let sql = node.connect().await;
    fill(&sql).await;
    // More than there are turns.
    let mut readers = Vec::new();
    for _ in 0..4 {
        readers.push(node.connect().await);
    }
    let mut suspended = Vec::new();
    for reader in &mut readers {
        let transaction = reader.client.transaction().await.unwrap();
        let portal = transaction.bind("SELECT text, count(*) FROM m GROUP BY text", &[]).await.unwrap();
        assert_eq!(transaction.query_portal(&portal, 1).await.unwrap().len(), 1);
        suspended.push((transaction, portal));
    }
    let answer = tokio::time::timeout(PATIENCE, sql.one(GROUPS)).await;
    assert_eq!(answer.unwrap(), format!("{ROWS} {ROWS}"));
    // What they hold leaves something to small statements.
    for question in
        ["SELECT device FROM m WHERE device < 'd1' ORDER BY device, time", "SELECT time FROM m ORDER BY time"]
    {
        assert!(!sql.rows(&format!("{question} LIMIT 5")).await.is_empty());
    }
    let by_device = "SELECT device, count(*) FROM m GROUP BY device ORDER BY count(*), device LIMIT 1";
    assert_eq!(sql.rows(by_device).await, [format!("d0|{}", ROWS / 100)]);
    for (transaction, portal) in &suspended {
        assert_eq!(transaction.query_portal(portal, 2).await.unwrap().len(), 2);
    }
}
