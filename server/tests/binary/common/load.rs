//! A load that knows what was acknowledged, and the check of what is there afterwards.
//!
//! Every statement writes `ROWS_PER_STATEMENT` rows that carry its number, spread over several chunks. A statement is
//! acknowledged, refused, or of unknown outcome; afterwards it must be there as a whole, not at all, or either.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::sql::{Sql, sqlstate_of};

pub const ROWS_PER_STATEMENT: u64 = 40;
/// The SQLSTATE classes that say that surely nothing was applied.
const SURELY_NOT: &[&str] = &["40001", "53", "57P0"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged,
    Refused,
    Unknown,
}

/// Writes from its creation until [`Loader::stop`], over connections that it opens anew as often as needed.
pub struct Loader {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<(u64, Outcome, String)>>>,
}

impl Loader {
    /// Creates the table `load` and starts writers; writer n connects to the n-th of `ports`, round and round.
    pub async fn start(ports: &[u16], writers: usize) -> Self {
        let sql = Sql::connect(ports[0]).await;
        sql.run("CREATE TABLE load (time timestamptz NOT NULL, device text NOT NULL, statement bigint, row bigint)")
            .await;
        sql.run("SELECT create_hypertable('load', 'time', 'device', 4)").await;
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let tasks = (0..writers).map(|writer| {
            let write = Writer {
                ports: ports.to_vec(),
                number: writer as u64,
                stop: Arc::clone(&stop),
                acknowledged: Arc::clone(&acknowledged),
            };
            tokio::spawn(write.run())
        });
        let tasks = tasks.collect();
        Self { stop, acknowledged, tasks }
    }

    /// Waits until so many more statements are acknowledged.
    pub async fn wait_acknowledged(&self, count: u64) {
        let target = self.acknowledged.load(Ordering::Relaxed) + count;
        let waiting = async {
            while self.acknowledged.load(Ordering::Relaxed) < target {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(super::PATIENCE, waiting).await.expect("the load makes progress");
    }

    /// Every statement that was sent, with how it ended.
    pub async fn stop(self) -> Vec<(u64, Outcome, String)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in self.tasks {
            all.extend(task.await.expect("a writer"));
        }
        all
    }
}

struct Writer {
    ports: Vec<u16>,
    number: u64,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Writer {
    async fn run(self) -> Vec<(u64, Outcome, String)> {
        let mut outcomes = Vec::new();
        let mut attempt = self.number as usize;
        while !self.stop.load(Ordering::Relaxed) {
            let port = self.ports[attempt % self.ports.len()];
            attempt += 1;
            let Ok(sql) = Sql::try_connect(port).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            while !self.stop.load(Ordering::Relaxed) {
                let statement = self.number * 1_000_000 + outcomes.len() as u64;
                let (outcome, reason, broken) = self.write(&sql, statement).await;
                outcomes.push((statement, outcome, reason));
                if broken {
                    break;
                }
            }
        }
        outcomes
    }

    /// One statement; also whether the connection is gone.
    async fn write(&self, sql: &Sql, statement: u64) -> (Outcome, String, bool) {
        // INSERT and COPY in turn; every third one is a single row group of one chunk.
        let spread = if statement.is_multiple_of(3) { 1 } else { 4 };
        let rows = (0..ROWS_PER_STATEMENT).map(|row| {
            let day = 1 + (row % spread) * 7;
            (format!("2024-01-{day:02} 00:00:{:02}+00", statement % 60), format!("d{}", row % spread), row)
        });
        let result = if statement.is_multiple_of(2) {
            let values: Vec<_> =
                rows.map(|(time, device, row)| format!("('{time}', '{device}', {statement}, {row})")).collect();
            sql.client.simple_query(&format!("INSERT INTO load VALUES {}", values.join(","))).await.map(|_| ())
        } else {
            let lines: Vec<_> =
                rows.map(|(time, device, row)| format!("{time},{device},{statement},{row}\n")).collect();
            sql.copy("COPY load FROM STDIN WITH (FORMAT csv)", &lines.concat()).await.map(|_| ())
        };
        match result {
            Ok(()) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                (Outcome::Acknowledged, String::new(), false)
            }
            Err(error) => {
                let state = sqlstate_of(&error);
                let surely_not = SURELY_NOT.iter().any(|class| state.starts_with(class));
                // A server that ends a connection says so by 57P01 and closes it.
                let broken = sql.client.is_closed() || state.is_empty();
                (if surely_not { Outcome::Refused } else { Outcome::Unknown }, state, broken)
            }
        }
    }
}

/// Every acknowledged statement is there, once and whole; a refused one is not; an unknown one is whole or not there.
#[track_caller]
pub fn check_rows(sql: &Sql, outcomes: &[(u64, Outcome, String)]) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let mut found: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let rows = sql.rows("SELECT statement, count(*), count(DISTINCT row) FROM load GROUP BY statement").await;
        for row in rows {
            let numbers: Vec<u64> = row.split('|').map(|number| number.parse().expect("a number")).collect();
            found.insert(numbers[0], (numbers[1], numbers[2]));
        }
        let whole = (ROWS_PER_STATEMENT, ROWS_PER_STATEMENT);
        for (statement, outcome, reason) in outcomes {
            let there = found.remove(statement);
            let right = match outcome {
                Outcome::Acknowledged => there == Some(whole),
                Outcome::Refused => there.is_none(),
                Outcome::Unknown => there.is_none_or(|there| there == whole),
            };
            assert!(right, "{place}: statement {statement} ended {outcome:?} ({reason}), found {there:?} of {whole:?}");
        }
        assert!(found.is_empty(), "{place}: rows that nobody wrote: {found:?}");
    }
}
