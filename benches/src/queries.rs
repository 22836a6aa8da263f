//! The TSBS query set on the table that `ingest` made, over the PostgreSQL protocol: medians and p95.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::ingest::Error;
use crate::reader::Reader;
use crate::report::{Figure, percentile};
use crate::tsbs::{METRICS, STEP_SECONDS, Workload, time_text};

const STEPS_PER_HOUR: u64 = 3600 / STEP_SECONDS;

/// One query of the set: its name in TSBS, and how to make one of it.
pub struct Query {
    pub name: &'static str,
    make: fn(&mut Maker) -> String,
}

/// The set, in the order in which TSBS lists it.
pub const QUERIES: [Query; 15] = [
    Query { name: "single-groupby-1-1-1", make: |m| m.single_groupby(1, 1, 1) },
    Query { name: "single-groupby-1-1-12", make: |m| m.single_groupby(1, 1, 12) },
    Query { name: "single-groupby-1-8-1", make: |m| m.single_groupby(1, 8, 1) },
    Query { name: "single-groupby-5-1-1", make: |m| m.single_groupby(5, 1, 1) },
    Query { name: "single-groupby-5-1-12", make: |m| m.single_groupby(5, 1, 12) },
    Query { name: "single-groupby-5-8-1", make: |m| m.single_groupby(5, 8, 1) },
    Query { name: "cpu-max-all-1", make: |m| m.max_all(1) },
    Query { name: "cpu-max-all-8", make: |m| m.max_all(8) },
    Query { name: "double-groupby-1", make: |m| m.double_groupby(1) },
    Query { name: "double-groupby-5", make: |m| m.double_groupby(5) },
    Query { name: "double-groupby-all", make: |m| m.double_groupby(10) },
    Query { name: "high-cpu-1", make: |m| m.high_cpu(true) },
    Query { name: "high-cpu-all", make: |m| m.high_cpu(false) },
    Query { name: "lastpoint", make: |_| Maker::lastpoint() },
    Query { name: "groupby-orderby-limit", make: |m| m.groupby_orderby_limit() },
];

/// Makes queries with random hosts and windows. Same seed, same queries.
pub struct Maker {
    workload: Workload,
    random: ChaCha8Rng,
}

impl Maker {
    #[must_use]
    pub fn new(workload: Workload) -> Self {
        Self { workload, random: ChaCha8Rng::seed_from_u64(workload.seed ^ 0x7573_6273) }
    }

    /// A condition on a window of some hours within the data (all of it, when it is shorter).
    fn window(&mut self, hours: u64) -> String {
        let steps = (hours * STEPS_PER_HOUR).min(self.workload.steps);
        let start = self.random.random_range(0..=self.workload.steps - steps);
        format!("time >= '{}' AND time < '{}'", time_text(start), time_text(start + steps))
    }

    fn hosts(&mut self, count: usize) -> String {
        let hosts = self.workload.hosts as usize;
        let picked = rand::seq::index::sample(&mut self.random, hosts, count.min(hosts));
        let names: Vec<_> = picked.iter().map(|host| format!("'host_{host}'")).collect();
        format!("hostname IN ({})", names.join(", "))
    }

    fn single_groupby(&mut self, metrics: usize, hosts: usize, hours: u64) -> String {
        format!(
            "SELECT time_bucket('1 minute', time) AS minute, {} FROM cpu WHERE {} AND {} GROUP BY minute ORDER BY minute",
            aggregates("max", metrics),
            self.hosts(hosts),
            self.window(hours)
        )
    }

    fn max_all(&mut self, hosts: usize) -> String {
        format!(
            "SELECT time_bucket('1 hour', time) AS hour, {} FROM cpu WHERE {} AND {} GROUP BY hour ORDER BY hour",
            aggregates("max", METRICS.len()),
            self.hosts(hosts),
            self.window(8)
        )
    }

    fn double_groupby(&mut self, metrics: usize) -> String {
        format!(
            "SELECT time_bucket('1 hour', time) AS hour, hostname, {} FROM cpu WHERE {} GROUP BY hour, hostname \
             ORDER BY hour, hostname",
            aggregates("avg", metrics),
            self.window(12)
        )
    }

    fn high_cpu(&mut self, one_host: bool) -> String {
        let hosts = if one_host { format!(" AND {}", self.hosts(1)) } else { String::new() };
        format!("SELECT * FROM cpu WHERE usage_user > 90.0 AND {}{hosts}", self.window(12))
    }

    fn lastpoint() -> String {
        "SELECT DISTINCT ON (hostname) * FROM cpu ORDER BY hostname, time DESC".to_owned()
    }

    fn groupby_orderby_limit(&mut self) -> String {
        let end = self.random.random_range(self.workload.steps / 2..=self.workload.steps);
        format!(
            "SELECT time_bucket('1 minute', time) AS minute, max(usage_user) FROM cpu WHERE time < '{}' \
             GROUP BY minute ORDER BY minute DESC LIMIT 5",
            time_text(end)
        )
    }
}

fn aggregates(function: &str, metrics: usize) -> String {
    let calls: Vec<_> =
        METRICS[..metrics].iter().map(|metric| format!("{function}({metric}) AS {function}_{metric}")).collect();
    calls.join(", ")
}

/// Runs each query `runs` times after one that is not counted; median and p95 in milliseconds, and rows of the last.
pub fn run(url: &str, workload: Workload, runs: usize, only: Option<&str>) -> Result<Vec<Figure>, Error> {
    let mut reader = Reader::connect(url)?;
    let mut figures = Vec::new();
    for query in QUERIES.iter().filter(|query| only.is_none_or(|name| query.name == name)) {
        let mut maker = Maker::new(workload);
        reader.query(&(query.make)(&mut maker))?;
        let mut samples = Vec::with_capacity(runs);
        let mut rows = 0;
        for _ in 0..runs {
            let (time, count) = reader.query(&(query.make)(&mut maker))?;
            samples.push(time.as_secs_f64() * 1e3);
            rows = count;
        }
        samples.sort_by(f64::total_cmp);
        figures.push(Figure::new(format!("{} p50", query.name), percentile(&samples, 0.5), "ms"));
        figures.push(Figure::new(format!("{} p95", query.name), percentile(&samples, 0.95), "ms"));
        figures.push(Figure::new(format!("{} rows", query.name), rows as f64, "rows"));
    }
    Ok(figures)
}

/// The set as a JSON array of `{name, queries}`, with `runs` queries each.
#[must_use]
pub fn sql(workload: Workload, runs: usize) -> serde_json::Value {
    let set = |query: &Query| {
        let mut maker = Maker::new(workload);
        let queries: Vec<_> = (0..runs).map(|_| (query.make)(&mut maker)).collect();
        serde_json::json!({ "name": query.name, "queries": queries })
    };
    QUERIES.iter().map(set).collect()
}

/// Milliseconds of each statement, on one connection.
pub fn times(url: &str, statements: &[String]) -> Result<Vec<f64>, Error> {
    let mut reader = Reader::connect(url)?;
    let mut times = Vec::with_capacity(statements.len());
    for statement in statements {
        times.push(reader.query(statement)?.0.as_secs_f64() * 1e3);
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_is_made_within_the_data() {
        let workload = Workload { hosts: 4, steps: 400, decimals: 0, seed: 1 };
        for query in &QUERIES {
            let mut maker = Maker::new(workload);
            let sql = (query.make)(&mut maker);
            assert!(sql.starts_with("SELECT ") && sql.contains("FROM cpu"), "{sql}");
            assert_eq!(sql, (query.make)(&mut Maker::new(workload)), "same seed, same query");
        }
    }
}
