//! Sends the workload by COPY or INSERT over one or several connections. Rows are made before the clock starts, so that
//! the generator's cost is not measured.

use std::time::Instant;

use bytes::Bytes;
use futures::SinkExt;
use futures::future::try_join_all;
use tokio_postgres::{Client, NoTls};

use crate::report::Figure;
use crate::tsbs::{Generator, METRICS, Workload};

/// Any failure of a measurement ends it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of a COPY message.
const COPY_MESSAGE_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Method {
    Copy,
    Insert,
}

#[derive(Clone, Debug)]
pub struct Ingest {
    pub url: String,
    pub workload: Workload,
    pub method: Method,
    pub connections: usize,
    /// Rows of one COPY statement (0: all of a connection's rows) or of one INSERT.
    pub batch_rows: usize,
    /// A plain table, for servers without hypertables.
    pub plain: bool,
}

/// Statements of one connection: each is what is sent, in messages.
type Script = Vec<Vec<Bytes>>;

/// Makes the table anew, loads it, checks the count.
pub async fn run(ingest: &Ingest) -> Result<Vec<Figure>, Error> {
    let client = connect(&ingest.url).await?;
    prepare(&client, ingest).await?;
    let scripts = scripts(ingest);
    let sent_bytes: usize = scripts.iter().flatten().flatten().map(Bytes::len).sum();
    let mut clients = Vec::new();
    for _ in 0..ingest.connections {
        clients.push(connect(&ingest.url).await?);
    }
    let started = Instant::now();
    let method = ingest.method;
    let loads = clients.into_iter().zip(scripts).map(|(client, script)| send(client, script, method));
    let latencies: Vec<f64> = try_join_all(loads).await?.concat();
    let seconds = started.elapsed().as_secs_f64();
    let rows = ingest.workload.rows();
    let count: i64 = client.query_one("SELECT count(*) FROM cpu", &[]).await?.get(0);
    if count != rows as i64 {
        return Err(format!("sent {rows} rows, the table has {count}").into());
    }
    Ok(figures(rows, sent_bytes, seconds, latencies))
}

fn figures(rows: u64, sent_bytes: usize, seconds: f64, mut latencies: Vec<f64>) -> Vec<Figure> {
    latencies.sort_by(f64::total_cmp);
    vec![
        Figure::new("rows", rows as f64, "rows"),
        Figure::new("time", seconds, "s"),
        Figure::new("rate", rows as f64 / seconds, "rows/s"),
        Figure::new("metrics", (rows * METRICS.len() as u64) as f64 / seconds, "metrics/s"),
        Figure::new("sent", sent_bytes as f64 / seconds / 1e6, "MB/s"),
        Figure::new("statement p50", crate::report::percentile(&latencies, 0.5), "ms"),
        Figure::new("statement p99", crate::report::percentile(&latencies, 0.99), "ms"),
    ]
}

/// Connects and lets the connection run in the background.
pub async fn connect(url: &str) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("connection ended: {error}");
        }
    });
    Ok(client)
}

async fn prepare(client: &Client, ingest: &Ingest) -> Result<(), Error> {
    client.batch_execute("DROP TABLE IF EXISTS cpu").await?;
    client.batch_execute(&ingest.workload.create_table()).await?;
    if !ingest.plain {
        client.simple_query("SELECT create_hypertable('cpu', 'time', 'hostname', 16)").await?;
    }
    Ok(())
}

/// What each connection sends: the statements in turn.
fn scripts(ingest: &Ingest) -> Vec<Script> {
    let mut generator = Generator::new(ingest.workload);
    let mut scripts: Vec<Script> = vec![Vec::new(); ingest.connections];
    let whole = ingest.workload.rows().div_ceil(ingest.connections as u64) as usize;
    let batch_rows = if ingest.batch_rows == 0 { whole } else { ingest.batch_rows };
    for turn in 0.. {
        let statement = match ingest.method {
            Method::Copy => copy_messages(&mut generator, batch_rows),
            Method::Insert => insert_message(&mut generator, batch_rows),
        };
        if statement.is_empty() {
            return scripts;
        }
        scripts[turn % ingest.connections].push(statement);
    }
    scripts
}

fn copy_messages(generator: &mut Generator, rows: usize) -> Vec<Bytes> {
    let mut messages = Vec::new();
    let mut left = rows;
    while left > 0 {
        let mut csv = String::with_capacity(COPY_MESSAGE_BYTES + 512);
        while csv.len() < COPY_MESSAGE_BYTES && left > 0 {
            let written = generator.csv(left.min(64), &mut csv);
            if written == 0 {
                left = 0;
            }
            left = left.saturating_sub(written);
        }
        if !csv.is_empty() {
            messages.push(Bytes::from(csv));
        }
    }
    messages
}

fn insert_message(generator: &mut Generator, rows: usize) -> Vec<Bytes> {
    let mut sql = String::from("INSERT INTO cpu VALUES ");
    if generator.values(rows, &mut sql) == 0 { Vec::new() } else { vec![Bytes::from(sql)] }
}

/// Latency of each statement in milliseconds.
async fn send(client: Client, script: Script, method: Method) -> Result<Vec<f64>, Error> {
    let mut latencies = Vec::with_capacity(script.len());
    for statement in script {
        let started = Instant::now();
        match method {
            Method::Copy => {
                let sink = client.copy_in("COPY cpu FROM STDIN WITH (FORMAT csv)").await?;
                futures::pin_mut!(sink);
                for message in statement {
                    sink.feed(message).await?;
                }
                sink.finish().await?;
            }
            Method::Insert => {
                for message in statement {
                    client.batch_execute(std::str::from_utf8(&message)?).await?;
                }
            }
        }
        latencies.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(latencies)
}
