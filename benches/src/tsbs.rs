//! Rows of the shape of TSBS's "cpu-only" use case (github.com/timescale/tsbs, `pkg/data/usecases/devops`): every 10
//! seconds one row per host, with ten tags and ten metrics that walk randomly between 0 and 100. Same seed, same rows.

use std::fmt::Write as _;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Seconds between two rows of a host.
pub const STEP_SECONDS: u64 = 10;
/// 2016-01-01 00:00:00 UTC, as TSBS starts.
pub const START_SECONDS: u64 = 1_451_606_400;
pub const METRICS: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];
pub const TAGS: [&str; 10] = [
    "hostname",
    "region",
    "datacenter",
    "rack",
    "os",
    "arch",
    "team",
    "service",
    "service_version",
    "service_environment",
];

/// What is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    pub hosts: u32,
    pub steps: u64,
    /// Decimals of the metrics: 0 (TSBS) or 2.
    pub decimals: u8,
    pub seed: u64,
}

impl Workload {
    #[must_use]
    pub fn rows(&self) -> u64 {
        u64::from(self.hosts) * self.steps
    }

    /// SQL of the table.
    #[must_use]
    pub fn create_table(&self) -> String {
        let tags: Vec<_> = TAGS.iter().map(|tag| format!("{tag} text")).collect();
        let metrics: Vec<_> = METRICS.iter().map(|metric| format!("{metric} double precision")).collect();
        format!("CREATE TABLE cpu (time timestamptz NOT NULL, {}, {})", tags.join(", "), metrics.join(", "))
    }
}

/// All rows of one host, by columns.
pub struct HostRows {
    /// Microseconds since 1970.
    pub times: Vec<i64>,
    pub tags: Vec<String>,
    /// Cut to the workload's decimals.
    pub metrics: Vec<Vec<f64>>,
}

impl HostRows {
    /// The rows that [`Generator`] gives for the host of this number.
    #[must_use]
    pub fn new(workload: Workload, number: u32) -> Self {
        let mut host = Host::new(number, workload.seed);
        let steps = workload.steps;
        let times = (0..steps).map(|step| ((START_SECONDS + step * STEP_SECONDS) * 1_000_000) as i64).collect();
        let mut metrics: Vec<Vec<f64>> = vec![Vec::with_capacity(steps as usize); METRICS.len()];
        for _ in 0..steps {
            for (metric, value) in metrics.iter_mut().zip(host.state) {
                metric.push(cut(value, workload.decimals));
            }
            host.advance();
        }
        Self { times, tags: host.tags.split(',').map(str::to_owned).collect(), metrics }
    }
}

struct Host {
    tags: String,
    state: [f64; 10],
    random: ChaCha8Rng,
}

/// Rows by time, and within one time by host, as TSBS sends them.
pub struct Generator {
    workload: Workload,
    hosts: Vec<Host>,
    step: u64,
    host: usize,
}

impl Generator {
    #[must_use]
    pub fn new(workload: Workload) -> Self {
        Self::from_step(workload, 0)
    }

    /// Begins at a later step, with hosts as they are at the first.
    #[must_use]
    pub fn from_step(workload: Workload, step: u64) -> Self {
        let hosts = (0..workload.hosts).map(|number| Host::new(number, workload.seed)).collect();
        Self { workload, hosts, step, host: 0 }
    }

    /// Appends up to `rows` rows to `csv`; the number appended, 0 at the end.
    pub fn csv(&mut self, rows: usize, csv: &mut String) -> usize {
        self.write(rows, csv, |time, host, decimals, csv| {
            csv.push_str(time);
            csv.push(',');
            csv.push_str(&host.tags);
            for value in host.state {
                csv.push(',');
                push_metric(value, decimals, csv);
            }
            csv.push('\n');
        })
    }

    /// Appends up to `rows` rows as the VALUES list of an INSERT; the number appended.
    pub fn values(&mut self, rows: usize, sql: &mut String) -> usize {
        let mut first = true;
        self.write(rows, sql, |time, host, decimals, sql| {
            sql.push_str(if first { "('" } else { ",('" });
            first = false;
            sql.push_str(time);
            sql.push('\'');
            for tag in host.tags.split(',') {
                // Tags hold no quotes.
                sql.push_str(",'");
                sql.push_str(tag);
                sql.push('\'');
            }
            for value in host.state {
                sql.push(',');
                push_metric(value, decimals, sql);
            }
            sql.push(')');
        })
    }

    fn write(&mut self, rows: usize, out: &mut String, mut row: impl FnMut(&str, &Host, u8, &mut String)) -> usize {
        let mut written = 0;
        let mut time = time_text(self.step);
        while written < rows && self.step < self.workload.steps {
            let host = &mut self.hosts[self.host];
            row(&time, host, self.workload.decimals, out);
            host.advance();
            written += 1;
            self.host += 1;
            if self.host == self.hosts.len() {
                self.host = 0;
                self.step += 1;
                time = time_text(self.step);
            }
        }
        written
    }
}

impl Host {
    fn new(number: u32, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ (u64::from(number) << 20));
        let mut pick = |choices: &[&'static str]| choices[random.random_range(0..choices.len())];
        let region = pick(&["us-east-1", "us-west-1", "us-west-2", "eu-west-1", "eu-central-1", "ap-southeast-1"]);
        let zone = pick(&["a", "b", "c"]);
        let os = pick(&["Ubuntu16.10", "Ubuntu16.04LTS", "Ubuntu15.10"]);
        let arch = pick(&["x64", "x86"]);
        let team = pick(&["SF", "NYC", "LON", "CHI"]);
        let environment = pick(&["production", "staging", "test"]);
        let rack = random.random_range(0..100);
        let service = random.random_range(0..20);
        let version = random.random_range(0..2);
        let tags = format!(
            "host_{number},{region},{region}{zone},{rack},{os},{arch},{team},{service},{version},{environment}"
        );
        let state = std::array::from_fn(|_| random.random_range(0.0..100.0));
        Self { tags, state, random }
    }

    fn advance(&mut self) {
        for index in 0..self.state.len() {
            let step = normal(&mut self.random);
            self.state[index] = (self.state[index] + step).clamp(0.0, 100.0);
        }
    }
}

/// A standard normal value (Box and Muller, 1958).
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
}

/// The value whose shortest text is what [`push_metric`] writes.
fn cut(value: f64, decimals: u8) -> f64 {
    if decimals == 0 { value.trunc() } else { (value * 100.0).round() / 100.0 }
}

fn push_metric(value: f64, decimals: u8, out: &mut String) {
    // Writing into a String cannot fail.
    let _ = if decimals == 0 { write!(out, "{}", value as i64) } else { write!(out, "{value:.2}") };
}

/// Time of a step as `2016-01-01 00:00:00+00`. Steps stay within 2016-2018 for any workload of use.
#[must_use]
pub fn time_text(step: u64) -> String {
    let seconds = START_SECONDS + step * STEP_SECONDS;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days as i64);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}+00", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of a day since 1970 (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Workload = Workload { hosts: 3, steps: 4, decimals: 0, seed: 1 };

    #[test]
    fn the_same_seed_gives_the_same_rows_in_any_cut() {
        let mut whole = String::new();
        assert_eq!(Generator::new(SMALL).csv(100, &mut whole), 12);
        let mut generator = Generator::new(SMALL);
        let mut parts = String::new();
        while generator.csv(5, &mut parts) > 0 {}
        assert_eq!(whole, parts);
        let other = Workload { seed: 2, ..SMALL };
        let mut rows = String::new();
        Generator::new(other).csv(100, &mut rows);
        assert_ne!(whole, rows);
    }

    #[test]
    fn rows_have_a_time_ten_tags_and_ten_metrics() {
        let mut csv = String::new();
        Generator::new(SMALL).csv(100, &mut csv);
        for (number, line) in csv.lines().enumerate() {
            let fields: Vec<_> = line.split(',').collect();
            assert_eq!(fields.len(), 21);
            assert_eq!(fields[0], time_text(number as u64 / 3));
            assert_eq!(fields[1], format!("host_{}", number % 3));
            assert!(fields[11..].iter().all(|metric| (0..=100).contains(&metric.parse::<i64>().unwrap())));
        }
    }

    #[test]
    fn the_rows_of_a_host_are_those_of_the_generator() {
        for decimals in [0, 2] {
            let workload = Workload { decimals, steps: 200, ..SMALL };
            let mut csv = String::new();
            Generator::new(workload).csv(1000, &mut csv);
            let host = HostRows::new(workload, 1);
            for (step, line) in csv.lines().skip(1).step_by(3).enumerate() {
                let fields: Vec<_> = line.split(',').collect();
                assert_eq!(fields[1..11], host.tags);
                let metrics: Vec<f64> = fields[11..].iter().map(|field| field.parse().unwrap()).collect();
                assert_eq!(metrics, host.metrics.iter().map(|metric| metric[step]).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time_text(0), "2016-01-01 00:00:00+00");
        assert_eq!(time_text(6 * 60 * 24 * 59 + 1), "2016-02-29 00:00:10+00");
        assert_eq!(time_text(6 * 60 * 24 * 366), "2017-01-01 00:00:00+00");
    }
}
