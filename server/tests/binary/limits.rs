//! A node at the limits of its memory: more clients than it can serve write and scan at once, with small budgets. Its
//! memory stays below what the budgets add up to and does not grow with time; clients wait and are then refused with a
//! hint; and everything that was acknowledged is there afterwards, once and whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use futures::future::join_all;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::DbError;

use crate::common::{Node, Sql, error_of};

const MIB: u64 = 1 << 20;

/// Budgets that the node is started with, and how often it may hold each: for scans, what was decoded and what is computed.
const BUDGETS: [(&str, u64, u64); 5] = [
    ("data.memtable", 2 * MIB, 1),
    ("data.scan_memory", 24 * MIB, 2),
    ("data.rewrite_memory", 24 * MIB, 1),
    ("data.page_cache", 16 * MIB, 1),
    ("sql.memory", 48 * MIB, 1),
];
/// Refusals are to come soon, not after the five seconds that clients have by default.
const MEMORY_WAIT: &str = "data.memory_wait=200ms";
/// What cannot be configured: two log files and a batch on their way to the disk, footers, caches, registered buffers.
const FIXED_BYTES: u64 = 64 * MIB;
/// What a connection may hold without asking: buffers, a plan, an INSERT; of a COPY, blocks and batches in each stage.
const CONNECTION_BYTES: u64 = MIB / 4;
const COPY_BYTES: u64 = 12 * MIB;
/// What a longer load may add while caches fill, within their budgets, and as allocators do: far less than it writes.
const GROWTH_BYTES: u64 = 64 * MIB;

/// More than the shard lets wait for memory at once.
const WRITERS: u64 = 280;
const COPIERS: u64 = 8;
const SCANNERS: usize = 8;
const ROWS_OF_INSERT: u64 = 20;
/// Longer than all memtables may be.
const ROWS_OF_COPY: u64 = 20_000;
/// Parts of the load, and how long each is. In all but the last one the node warms up: caches fill when they find room.
const ROUNDS: usize = 4;
const LOAD: Duration = Duration::from_secs(5);
/// Before the next statement of a client that was refused.
const PAUSE: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_at_its_limits_refuses_and_neither_grows_nor_forgets() {
    let node = start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE load (time timestamptz NOT NULL, device text, statement bigint, row bigint, filler text)")
        .await;
    sql.run("SELECT create_hypertable('load', 'time', 'device', 4)").await;
    let idle = node.memory_bytes("VmRSS");

    let numbers = Arc::new(AtomicU64::new(0));
    let mut seen = Seen::default();
    let mut peaks = Vec::new();
    for _ in 0..ROUNDS {
        node.reset_peak();
        seen.add(overload(&node, &numbers).await);
        peaks.push(node.memory_bytes("VmHWM"));
    }
    let budgets: u64 = BUDGETS.iter().map(|(_, bytes, times)| bytes * times).sum();
    let bound = idle + budgets + FIXED_BYTES + WRITERS * CONNECTION_BYTES + COPIERS * COPY_BYTES;
    println!(
        "idle {} MiB, peaks {:?} MiB, bound {} MiB, {seen:?}",
        idle / MIB,
        peaks.iter().map(|p| p / MIB).collect::<Vec<_>>(),
        bound / MIB
    );

    assert!(seen.acknowledged.len() > 100 && seen.scans > 0, "hardly anything was served: {seen:?}");
    for sqlstate in ["53200", "53300"] {
        assert!(seen.refused.contains_key(sqlstate), "nobody was refused with {sqlstate}: {seen:?}");
    }
    assert!(peaks.iter().all(|peak| *peak <= bound), "{peaks:?} bytes, at most {bound}");
    let warm = peaks[..ROUNDS - 1].iter().max().unwrap();
    assert!(peaks[ROUNDS - 1] <= warm + GROWTH_BYTES, "it grows with time: {peaks:?}");
    check_rows(&sql, &seen).await;
    node.assert_no_panic();
}

fn start() -> Node {
    let mut flags = vec!["--shards".to_owned(), "1".to_owned()];
    let budgets = BUDGETS.iter().map(|(key, bytes, _)| format!("{key}={bytes}"));
    for setting in budgets.chain([MEMORY_WAIT.to_owned(), format!("data.wal_file={MIB}")]) {
        flags.extend(["--set".to_owned(), setting]);
    }
    Node::start_with(&flags.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What the clients were told.
#[derive(Default)]
struct Seen {
    /// Statements, with their numbers of rows.
    acknowledged: BTreeMap<u64, u64>,
    /// How often, by SQLSTATE.
    refused: BTreeMap<String, u64>,
    scans: u64,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        for (sqlstate, count) in other.refused {
            *self.refused.entry(sqlstate).or_default() += count;
        }
        self.scans += other.scans;
    }

    /// Every refusal says by class 53 that nothing happened, and what to do about it.
    fn note_refusal(&mut self, error: &tokio_postgres::Error) {
        let refusal = error.as_db_error().filter(|db| db.code().code().starts_with("53"));
        let refusal = refusal.unwrap_or_else(|| panic!("not a refusal: {}", error_of(error)));
        assert!(refusal.hint().is_some(), "no hint: {refusal:?}");
        *self.refused.entry(DbError::code(refusal).code().to_owned()).or_default() += 1;
    }
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (acknowledged, refused, scans) = (self.acknowledged.len(), &self.refused, self.scans);
        write!(f, "{acknowledged} statements acknowledged, refused {refused:?}, {scans} scans")
    }
}

/// All clients at once, for [`LOAD`].
async fn overload(node: &Node, numbers: &Arc<AtomicU64>) -> Seen {
    let port = node.sql_port();
    let end = Instant::now() + LOAD;
    let writers =
        (0..WRITERS + COPIERS).map(|number| tokio::spawn(write(port, number < COPIERS, Arc::clone(numbers), end)));
    let scanners = (0..SCANNERS).map(|number| tokio::spawn(scan(port, number, end)));
    let mut seen = Seen::default();
    for part in join_all(writers.chain(scanners).collect::<Vec<_>>()).await {
        seen.add(part.expect("a client"));
    }
    seen
}

async fn write(port: u16, copies: bool, numbers: Arc<AtomicU64>, end: Instant) -> Seen {
    let sql = Sql::connect(port).await;
    let mut seen = Seen::default();
    while Instant::now() < end {
        let statement = numbers.fetch_add(1, Ordering::Relaxed);
        let (rows, written) = if copies {
            (ROWS_OF_COPY, sql.copy("COPY load FROM STDIN WITH (FORMAT csv)", &csv(statement)).await.map(drop))
        } else {
            (ROWS_OF_INSERT, sql.client.batch_execute(&insert(statement)).await)
        };
        match written {
            Ok(()) => drop(seen.acknowledged.insert(statement, rows)),
            Err(error) => {
                seen.note_refusal(&error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    seen
}

fn csv(statement: u64) -> String {
    let mut csv = String::new();
    for row in 0..ROWS_OF_COPY {
        // Writing into a String cannot fail.
        let _ = writeln!(csv, "{},d{},{statement},{row},{}", time(row), row % 16, filler(statement, row));
    }
    csv
}

fn insert(statement: u64) -> String {
    let value = |row| format!("('{}', 'd{}', {statement}, {row}, '{}')", time(row), row % 16, filler(statement, row));
    let values: Vec<_> = (0..ROWS_OF_INSERT).map(value).collect();
    format!("INSERT INTO load VALUES {}", values.join(","))
}

fn time(row: u64) -> String {
    format!("2024-01-01 {:02}:{:02}:{:02}+00", row / 3600 % 24, row / 60 % 60, row % 60)
}

/// Hard to compress, so that a flush has work to do.
fn filler(statement: u64, row: u64) -> String {
    let mut state = (statement << 20 | row).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    format!("{:016x}{:016x}{:016x}", word(), word(), word())
}

/// Whole tables over the wire, many groups, and a sort, in turn.
async fn scan(port: u16, number: usize, end: Instant) -> Seen {
    let sql = Sql::connect(port).await;
    let mut seen = Seen::default();
    let questions = [
        "SELECT * FROM load",
        "SELECT statement, row, count(*), max(filler) FROM load GROUP BY statement, row",
        "SELECT device, time_bucket('1 second', time), count(*), max(row), last(statement, time) FROM load GROUP BY 1, 2",
        "SELECT * FROM load ORDER BY filler",
    ];
    for question in questions.iter().cycle().skip(number) {
        if Instant::now() >= end {
            return seen;
        }
        match rows_of(&sql, question).await {
            Ok(_) => seen.scans += 1,
            Err(error) => {
                seen.note_refusal(&error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    seen
}

/// Takes the rows one by one and keeps none.
async fn rows_of(sql: &Sql, question: &str) -> Result<u64, tokio_postgres::Error> {
    let mut messages = std::pin::pin!(sql.client.simple_query_raw(question).await?);
    let mut rows = 0;
    while let Some(message) = messages.try_next().await? {
        rows += u64::from(matches!(message, SimpleQueryMessage::Row(_)));
    }
    Ok(rows)
}

/// Every acknowledged statement is there once and whole, and no other.
async fn check_rows(sql: &Sql, seen: &Seen) {
    let question = "SELECT statement, count(*), sum(row) FROM load GROUP BY statement";
    let numbers =
        |row: String| row.split('|').map(|number| number.parse::<u64>().expect("a number")).collect::<Vec<_>>();
    let found = sql.rows(question).await.into_iter().map(numbers);
    let mut found: BTreeMap<u64, (u64, u64)> = found.map(|row| (row[0], (row[1], row[2]))).collect();
    for (statement, rows) in &seen.acknowledged {
        assert_eq!(found.remove(statement), Some((*rows, rows * (rows - 1) / 2)), "statement {statement}");
    }
    assert!(found.is_empty(), "rows of statements that were refused: {found:?}");
}
