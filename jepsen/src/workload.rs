//! Appends: every client writes statements of a few rows over several chunks, each row with the append's number, by
//! INSERT, by COPY, or by several INSERTs in a transaction; readers count rows per append in one snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::Client;

use crate::Error;
use crate::history::{Event, History, OpId, Told, told_of};
use crate::lab::connect;

/// Rows of an append: they lie in several slots and two intervals.
const ROWS: i64 = 12;
/// Longest wait for one statement; a client that hears nothing does not know.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Shared by all clients of a run.
pub struct Appends {
    pub history: History,
    addresses: Vec<String>,
    next_op: AtomicI64,
    next_read: AtomicUsize,
    stop: AtomicBool,
}

impl Appends {
    /// Makes the table.
    pub async fn create(addresses: Vec<String>) -> Result<Arc<Self>, Error> {
        let client = connect(&addresses[0]).await?;
        client
            .batch_execute("CREATE TABLE appends (time timestamptz NOT NULL, host text, op bigint, n integer)")
            .await?;
        client.simple_query("SELECT create_hypertable('appends', 'time', 'host', 8)").await?;
        Ok(Arc::new(Self {
            history: History::default(),
            addresses,
            next_op: AtomicI64::new(1),
            next_read: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        }))
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Appends until stopped; a client that lost its connection goes to the next access node.
    pub async fn write(self: Arc<Self>, number: usize) {
        let mut turn = number;
        while !self.stop.load(Ordering::Relaxed) {
            let address = &self.addresses[turn % self.addresses.len()];
            turn += 1;
            let Ok(client) = connect(address).await else {
                tokio::time::sleep(RECONNECT_PAUSE).await;
                continue;
            };
            while !self.stop.load(Ordering::Relaxed) && !client.is_closed() {
                let op = self.next_op.fetch_add(1, Ordering::Relaxed);
                self.history.record(Event::Invoked { op, rows: ROWS });
                let append = tokio::time::timeout(STATEMENT_TIMEOUT, append(&client, op)).await;
                let told = match append {
                    Ok(Ok(())) => Told::Acknowledged,
                    Ok(Err(error)) => told_of(error.code().map(|code| code.code()), &error.to_string()),
                    Err(_) => Told::Unknown("no answer".to_owned()),
                };
                let lost = matches!(told, Told::Unknown(_));
                self.history.record(Event::Ended { op, told });
                if lost {
                    break;
                }
            }
        }
    }

    /// Reads until stopped.
    pub async fn read(self: Arc<Self>, number: usize) {
        let mut turn = number;
        while !self.stop.load(Ordering::Relaxed) {
            let address = &self.addresses[turn % self.addresses.len()];
            turn += 1;
            if let Ok(client) = connect(address).await {
                self.read_until_lost(&client).await;
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    async fn read_until_lost(&self, client: &Client) {
        while !self.stop.load(Ordering::Relaxed) {
            if self.read_once(client).await.is_err() {
                return;
            }
        }
    }

    /// One read of everything; the last one of a run is the final word.
    pub async fn read_once(&self, client: &Client) -> Result<(), Error> {
        let read = self.next_read.fetch_add(1, Ordering::Relaxed);
        self.history.record(Event::ReadInvoked { read });
        let query = client.query("SELECT op, count(*) FROM appends GROUP BY op", &[]);
        let rows = tokio::time::timeout(STATEMENT_TIMEOUT, query).await??;
        let rows: BTreeMap<OpId, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        self.history.record(Event::ReadEnded { read, rows });
        Ok(())
    }
}

/// One append, in one of three ways.
async fn append(client: &Client, op: OpId) -> Result<(), tokio_postgres::Error> {
    match op % 3 {
        0 => client.batch_execute(&insert(op, 0, ROWS)).await,
        1 => {
            let sink = client.copy_in("COPY appends FROM STDIN WITH (FORMAT csv)").await?;
            futures::pin_mut!(sink);
            let lines: String = (0..ROWS).map(|n| format!("{},host{n},{op},{n}\n", time(n))).collect();
            sink.send(Bytes::from(lines)).await?;
            sink.finish().await.map(|_| ())
        }
        _ => {
            client.batch_execute("BEGIN").await?;
            for (from, upto) in [(0, ROWS / 2), (ROWS / 2, ROWS)] {
                if let Err(error) = client.batch_execute(&insert(op, from, upto)).await {
                    // The statement's own refusal is what the client was told; the rollback may find no connection.
                    let _ = client.batch_execute("ROLLBACK").await;
                    return Err(error);
                }
            }
            client.batch_execute("COMMIT").await
        }
    }
}

fn insert(op: OpId, from: i64, upto: i64) -> String {
    let rows: Vec<String> = (from..upto).map(|n| format!("('{}', 'host{n}', {op}, {n})", time(n))).collect();
    format!("INSERT INTO appends VALUES {}", rows.join(", "))
}

/// Two chunk intervals.
fn time(n: i64) -> &'static str {
    if n % 2 == 0 { "2024-01-03 00:00:00+00" } else { "2024-01-13 00:00:00+00" }
}
