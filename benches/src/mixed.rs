//! How much a full scan lifts the latency of a steady ingest: the same INSERTs at the same rate, first alone, then beside
//! scans in a loop, then alone again.
//!
//! The loop is open: statements are due by the clock, not when the one before was answered, and a latency counts from
//! when its statement was due. So a stall is seen by every statement that it held up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tokio::sync::mpsc;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::ingest::{Error, Ingest, Method, connect};
use crate::report::{Figure, percentile};
use crate::tsbs::{Generator, METRICS, Workload, time_text};
use crate::{compress, ingest};

/// The scan's sums are of products of whole numbers, exact in any order of adding.
const DECIMALS: u8 = 0;

#[derive(Clone, Debug)]
pub struct Mixed {
    pub url: String,
    /// What the table holds before.
    pub workload: Workload,
    /// INSERTs a second, over all connections.
    pub rate: u32,
    pub batch_rows: usize,
    pub connections: usize,
    /// Connections that scan.
    pub scanners: usize,
    /// Of each of the three phases.
    pub phase: Duration,
    /// Compress what was loaded before anything is measured.
    pub compress: bool,
}

/// Latencies of a phase in milliseconds, sorted.
struct Phase {
    latencies: Vec<f64>,
    /// How late the client itself started statements whose connection was free: what the machine adds.
    delays: Vec<f64>,
}

/// A statement and when it is due.
struct Due {
    at: Instant,
    sql: String,
}

/// Loads the table, runs the three phases, and checks that every row is there.
pub async fn run(mixed: &Mixed) -> Result<Vec<Figure>, Error> {
    let workload = Workload { decimals: DECIMALS, ..mixed.workload };
    let load =
        Ingest { url: mixed.url.clone(), workload, method: Method::Copy, connections: 1, batch_rows: 0, plain: false };
    ingest::run(&load).await?;
    let control = connect(&mixed.url).await?;
    if mixed.compress {
        compress::run(&control).await?;
    }
    let writers = Writers::connect(mixed).await?;
    let mut statements = Statements::new(mixed, workload);
    let scan = Scan::prepare(&control, workload).await?;
    let alone = scan.rate_alone(&control, mixed.phase).await?;

    let before = writers.phase(statements.take(mixed), mixed.rate).await?;
    let scanning = Scanning::start(&mixed.url, &scan, mixed.scanners).await?;
    let beside = writers.phase(statements.take(mixed), mixed.rate).await?;
    let scanned = scanning.stop().await?;
    let after = writers.phase(statements.take(mixed), mixed.rate).await?;

    let sent = statements.rows_taken;
    let count: i64 = control.query_one("SELECT count(*) FROM cpu", &[]).await?.get(0);
    if count as u64 != workload.rows() + sent {
        return Err(format!("loaded {} rows and sent {sent}, the table has {count}", workload.rows()).into());
    }
    Ok(figures(workload, [before, beside, after], alone, scanned))
}

fn figures(workload: Workload, [before, beside, after]: [Phase; 3], alone: f64, scanned: f64) -> Vec<Figure> {
    let rows = workload.rows() as f64;
    let mut figures = Vec::new();
    for (name, phase) in [("alone", &before), ("beside scans", &beside), ("alone again", &after)] {
        for (share, label) in [(0.5, "p50"), (0.99, "p99"), (1.0, "max")] {
            figures.push(Figure::new(format!("insert {label}, {name}"), percentile(&phase.latencies, share), "ms"));
        }
        figures.push(Figure::new(format!("client late p99, {name}"), percentile(&phase.delays, 0.99), "ms"));
    }
    let mut quiet = [before.latencies, after.latencies].concat();
    quiet.sort_by(f64::total_cmp);
    let ratio = percentile(&beside.latencies, 0.99) / percentile(&quiet, 0.99);
    figures.push(Figure::new("insert p99, beside scans / alone", ratio, "times"));
    figures.push(Figure::new("scan rate, alone", rows * alone, "rows/s"));
    figures.push(Figure::new("scan rate, beside inserts", rows * scanned, "rows/s"));
    figures
}

/// INSERTs of rows behind those that were loaded.
struct Statements {
    generator: Generator,
    rows_taken: u64,
}

impl Statements {
    fn new(mixed: &Mixed, workload: Workload) -> Self {
        let rows = 3 * u64::from(mixed.rate) * mixed.phase.as_secs().max(1) * mixed.batch_rows as u64;
        let steps = rows.div_ceil(u64::from(workload.hosts));
        let all = Workload { steps: workload.steps + steps, ..workload };
        Self { generator: Generator::from_step(all, workload.steps), rows_taken: 0 }
    }

    /// Those of one phase.
    fn take(&mut self, mixed: &Mixed) -> Vec<String> {
        let count = u64::from(mixed.rate) * mixed.phase.as_secs().max(1);
        let statement = |_| {
            let mut sql = String::from("INSERT INTO cpu VALUES ");
            self.rows_taken += self.generator.values(mixed.batch_rows, &mut sql) as u64;
            sql
        };
        (0..count).map(statement).collect()
    }
}

/// The connections that ingest.
struct Writers(Vec<Arc<Client>>);

impl Writers {
    async fn connect(mixed: &Mixed) -> Result<Self, Error> {
        let mut clients = Vec::new();
        for _ in 0..mixed.connections.max(1) {
            clients.push(Arc::new(connect(&mixed.url).await?));
        }
        Ok(Self(clients))
    }

    /// Sends each statement when it is due, on the connections in turn.
    async fn phase(&self, statements: Vec<String>, rate: u32) -> Result<Phase, Error> {
        let (senders, receivers): (Vec<_>, Vec<_>) = self.0.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let pace = std::thread::spawn(move || hand_out(statements, rate, &senders));
        let sending = self.0.iter().zip(receivers).map(|(client, dues)| tokio::spawn(send(Arc::clone(client), dues)));
        let parts = try_join_all(sending.collect::<Vec<_>>()).await?;
        pace.join().map_err(|_| "the pace ended early")?;
        let mut phase = Phase { latencies: Vec::new(), delays: Vec::new() };
        for part in parts {
            let part = part?;
            phase.latencies.extend(part.latencies);
            phase.delays.extend(part.delays);
        }
        phase.latencies.sort_by(f64::total_cmp);
        phase.delays.sort_by(f64::total_cmp);
        Ok(phase)
    }
}

/// A thread of its own: timers of a runtime are a millisecond coarse.
fn hand_out(statements: Vec<String>, rate: u32, senders: &[mpsc::UnboundedSender<Due>]) {
    let start = Instant::now() + Duration::from_millis(50);
    for (number, sql) in statements.into_iter().enumerate() {
        let at = start + Duration::from_secs(1) * number as u32 / rate;
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        // A connection that failed reports it itself.
        let _ = senders[number % senders.len()].send(Due { at, sql });
    }
}

async fn send(client: Arc<Client>, mut dues: mpsc::UnboundedReceiver<Due>) -> Result<Phase, Error> {
    let mut phase = Phase { latencies: Vec::new(), delays: Vec::new() };
    let mut free_since = Instant::now();
    while let Some(Due { at, sql }) = dues.recv().await {
        phase.delays.push(milliseconds(at.max(free_since).elapsed()));
        client.batch_execute(&sql).await?;
        phase.latencies.push(milliseconds(at.elapsed()));
        free_since = Instant::now();
    }
    Ok(phase)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A statement that no metadata can answer: it decodes every metric of every loaded row.
#[derive(Clone)]
struct Scan {
    sql: String,
    answer: String,
}

impl Scan {
    async fn prepare(client: &Client, workload: Workload) -> Result<Self, Error> {
        let products: Vec<_> = METRICS.chunks(2).map(|pair| format!("sum({} * {})", pair[0], pair[1])).collect();
        let end = time_text(workload.steps);
        let sql = format!("SELECT count(*), {} FROM cpu WHERE time < '{end}'", products.join(", "));
        let answer = answer(client, &sql).await?;
        let count = answer.split('|').next().unwrap_or_default();
        if count != workload.rows().to_string() {
            return Err(format!("the scan sees {count} rows of {}", workload.rows()).into());
        }
        Ok(Self { sql, answer })
    }

    /// Scans a second when nothing else runs.
    async fn rate_alone(&self, client: &Client, time: Duration) -> Result<f64, Error> {
        let (start, mut scans) = (Instant::now(), 0);
        while scans == 0 || start.elapsed() < time / 2 {
            self.check(client).await?;
            scans += 1;
        }
        Ok(f64::from(scans) / start.elapsed().as_secs_f64())
    }

    async fn check(&self, client: &Client) -> Result<(), Error> {
        let found = answer(client, &self.sql).await?;
        if found == self.answer { Ok(()) } else { Err(format!("a scan gave {found} after {}", self.answer).into()) }
    }
}

/// The only row as text.
async fn answer(client: &Client, sql: &str) -> Result<String, Error> {
    let messages = client.simple_query(sql).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.ok_or("no row")?;
    let cells: Vec<_> = (0..row.len()).map(|column| row.get(column).unwrap_or("-")).collect();
    Ok(cells.join("|"))
}

/// Scans that run until they are stopped.
struct Scanning {
    start: Instant,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Result<u64, Error>>>,
}

impl Scanning {
    async fn start(url: &str, scan: &Scan, scanners: usize) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for _ in 0..scanners.max(1) {
            let (client, scan, stop) = (connect(url).await?, scan.clone(), Arc::clone(&stop));
            tasks.push(tokio::spawn(async move {
                let mut scans = 0;
                while !stop.load(Ordering::Relaxed) {
                    scan.check(&client).await?;
                    scans += 1;
                }
                Ok(scans)
            }));
        }
        Ok(Self { start: Instant::now(), stop, tasks })
    }

    /// Scans a second, over all connections.
    async fn stop(self) -> Result<f64, Error> {
        self.stop.store(true, Ordering::Relaxed);
        let mut scans = 0;
        for task in self.tasks {
            scans += task.await??;
        }
        Ok(scans as f64 / self.start.elapsed().as_secs_f64())
    }
}
