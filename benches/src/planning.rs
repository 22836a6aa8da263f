//! What a small SELECT costs before it reads a row: single-groupby-1-1-1 with other literals in every statement, by the
//! simple and the extended protocol, prepared and not, over hours that hold rows and over hours that hold none. An hour
//! without rows is planned, pruned and answered as any other, so its time is that of everything but the execution; a
//! statement that only answers a constant shows what the protocol takes of it.

use std::time::{Duration, Instant, SystemTime};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, SimpleQueryMessage, Statement};

use crate::digest::Digest;
use crate::ingest::{Error, connect};
use crate::report::{Figure, percentile};
use crate::tsbs::{START_SECONDS, STEP_SECONDS, Workload, time_text};

const STEPS_PER_HOUR: u64 = 3600 / STEP_SECONDS;
/// Statements before the clock starts, for caches and the allocator.
const WARM_UP: usize = 50;
/// Steps behind the data where nothing is: ten years.
const EMPTY_STEPS: u64 = 10 * 365 * 24 * STEPS_PER_HOUR;

const PARAMETERS: [Type; 3] = [Type::TEXT, Type::TIMESTAMPTZ, Type::TIMESTAMPTZ];

/// The literals of one statement.
struct Literals {
    host: String,
    start: u64,
}

impl Literals {
    fn select(&self) -> String {
        let (start, end) = (time_text(self.start), time_text(self.start + STEPS_PER_HOUR));
        select(&format!("'{}'", self.host), &format!("'{start}'"), &format!("'{end}'"))
    }

    fn times(&self) -> [SystemTime; 2] {
        [self.start, self.start + STEPS_PER_HOUR]
            .map(|step| SystemTime::UNIX_EPOCH + Duration::from_secs(START_SECONDS + step * STEP_SECONDS))
    }
}

fn select(host: &str, start: &str, end: &str) -> String {
    format!(
        "SELECT time_bucket('1 minute', time) AS minute, max(usage_user) AS max_usage_user FROM cpu \
         WHERE hostname IN ({host}) AND time >= {start} AND time < {end} GROUP BY minute ORDER BY minute"
    )
}

/// How a statement is sent.
#[derive(Clone, Copy)]
enum Sending {
    /// Text with literals, as psql and most dashboards do.
    Simple,
    /// The same text every time.
    Repeated,
    /// Parse, Bind and Execute in one turn, with parameters.
    Unprepared,
    /// Bind and Execute of a statement that was parsed once.
    Prepared,
    /// The plan as an answer.
    Explain,
}

const SENDINGS: [(Sending, &str); 5] = [
    (Sending::Simple, "simple, other literals"),
    (Sending::Repeated, "simple, same literals"),
    (Sending::Unprepared, "extended, unprepared"),
    (Sending::Prepared, "extended, prepared"),
    (Sending::Explain, "explain"),
];

/// Medians on the table that `ingest` loaded (same hosts, hours and seed), `runs` statements each.
pub async fn run(url: &str, workload: Workload, runs: usize) -> Result<Vec<Figure>, Error> {
    let client = connect(url).await?;
    let prepared = client.prepare_typed(&select("$1", "$2", "$3"), &PARAMETERS).await?;
    let asking = Asking { client, prepared };
    asking.compare(workload).await?;
    let floor = asking.floor(runs).await?;
    let mut figures = vec![Figure::new("constant, whole", floor, "us")];
    for (sending, name) in SENDINGS {
        let empty = asking.median(sending, &literals(workload, EMPTY_STEPS, runs)).await?;
        let whole = asking.median(sending, &literals(workload, 0, runs)).await?;
        figures.push(Figure::new(format!("{name}, planning"), empty - floor, "us"));
        figures.push(Figure::new(format!("{name}, execution"), whole - empty, "us"));
        figures.push(Figure::new(format!("{name}, whole"), whole, "us"));
    }
    Ok(figures)
}

/// Random hosts and hours, from so many steps on.
fn literals(workload: Workload, from: u64, runs: usize) -> Vec<Literals> {
    let mut random = ChaCha8Rng::seed_from_u64(workload.seed ^ 0x706c_616e);
    let last = workload.steps.saturating_sub(STEPS_PER_HOUR);
    let one = |_| Literals {
        host: format!("host_{}", random.random_range(0..workload.hosts)),
        start: from + random.random_range(0..=last),
    };
    (0..runs + WARM_UP).map(one).collect()
}

struct Asking {
    client: Client,
    prepared: Statement,
}

impl Asking {
    /// Median microseconds of a statement that reads nothing.
    async fn floor(&self, runs: usize) -> Result<f64, Error> {
        let mut samples = Vec::with_capacity(runs);
        for turn in 0..runs + WARM_UP {
            let started = Instant::now();
            self.client.simple_query("SELECT 1").await?;
            if turn >= WARM_UP {
                samples.push(microseconds(started));
            }
        }
        Ok(median(samples))
    }

    async fn median(&self, sending: Sending, all: &[Literals]) -> Result<f64, Error> {
        let mut samples = Vec::with_capacity(all.len());
        for (turn, literals) in all.iter().enumerate() {
            let literals = if matches!(sending, Sending::Repeated) { &all[0] } else { literals };
            let taken = self.ask(sending, literals).await?;
            if turn >= WARM_UP {
                samples.push(taken);
            }
        }
        Ok(median(samples))
    }

    /// Microseconds of one statement.
    async fn ask(&self, sending: Sending, literals: &Literals) -> Result<f64, Error> {
        let sql = match sending {
            Sending::Simple | Sending::Repeated => literals.select(),
            Sending::Explain => format!("EXPLAIN {}", literals.select()),
            Sending::Unprepared => select("$1", "$2", "$3"),
            Sending::Prepared => String::new(),
        };
        let started = Instant::now();
        match sending {
            Sending::Simple | Sending::Repeated | Sending::Explain => drop(self.client.simple_query(&sql).await?),
            Sending::Unprepared => drop(self.unprepared(&sql, literals).await?),
            Sending::Prepared => drop(self.prepared(literals).await?),
        }
        Ok(microseconds(started))
    }

    async fn unprepared(&self, sql: &str, literals: &Literals) -> Result<Vec<Row>, Error> {
        let [start, end] = literals.times();
        let values: [&(dyn ToSql + Sync); 3] = [&literals.host, &start, &end];
        let typed: Vec<_> = values.into_iter().zip(PARAMETERS).collect();
        Ok(self.client.query_typed(sql, &typed).await?)
    }

    async fn prepared(&self, literals: &Literals) -> Result<Vec<Row>, Error> {
        let [start, end] = literals.times();
        Ok(self.client.query(&self.prepared, &[&literals.host, &start, &end]).await?)
    }

    /// The three ways give the same rows, and rows where there are some.
    async fn compare(&self, workload: Workload) -> Result<(), Error> {
        for literals in literals(workload, 0, 0) {
            let simple = simple_digest(&self.client.simple_query(&literals.select()).await?)?;
            let minutes = workload.steps.min(STEPS_PER_HOUR) / (60 / STEP_SECONDS);
            if simple.rows < minutes {
                return Err(format!("{}: {} rows of {minutes}", literals.select(), simple.rows).into());
            }
            let sql = select("$1", "$2", "$3");
            rows_digest(&self.unprepared(&sql, &literals).await?).check(simple, "extended protocol, unprepared")?;
            rows_digest(&self.prepared(&literals).await?).check(simple, "extended protocol, prepared")?;
        }
        let [nothing, ..] = &literals(workload, EMPTY_STEPS, 0)[..] else { return Ok(()) };
        let empty = simple_digest(&self.client.simple_query(&nothing.select()).await?)?;
        Ok(empty.check(Digest::default(), "hours without rows")?)
    }
}

fn simple_digest(messages: &[SimpleQueryMessage]) -> Result<Digest, Error> {
    let mut digest = Digest::default();
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            let value: f64 = row.get("max_usage_user").unwrap_or_default().parse()?;
            digest.add(&value.to_bits().to_le_bytes());
        }
    }
    Ok(digest)
}

fn rows_digest(rows: &[Row]) -> Digest {
    rows.iter().map(|row| row.get::<_, f64>("max_usage_user").to_bits().to_le_bytes()).collect()
}

fn microseconds(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e6
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    percentile(&samples, 0.5)
}
