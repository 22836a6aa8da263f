//! Figures in Prometheus' text form.

use prometheus::{
    Encoder, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::figures::{Figures, ShardFigures};
use crate::version::Version;

/// Of the text form, version 0.0.4.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

type Metric = (&'static str, &'static str, fn(&Figures) -> u64);
type ShardMetric = (&'static str, &'static str, fn(&ShardFigures) -> u64);

const COUNTERS: &[Metric] = &[
    ("meridian_sql_connections_total", "SQL connections accepted.", |f| f.connections_total),
    ("meridian_sql_statements_total", "SQL statements begun.", |f| f.statements_total),
    ("meridian_sql_errors_total", "SQL statements that ended in an error.", |f| f.errors_total),
    ("meridian_sql_rows_sent_total", "Rows sent to SQL clients.", |f| f.rows_sent_total),
    ("meridian_sql_rows_received_total", "Rows taken from SQL clients by COPY.", |f| f.rows_received_total),
    ("meridian_sql_sent_bytes_total", "Bytes sent to SQL clients.", |f| f.bytes_sent_total),
    ("meridian_sql_received_bytes_total", "Bytes received from SQL clients.", |f| f.bytes_received_total),
    ("meridian_plan_cache_hits_total", "Queries that used a kept plan.", |f| f.plan_cache_hits_total),
    ("meridian_plan_cache_misses_total", "Queries that were planned for want of one.", |f| f.plan_cache_misses_total),
];

const GAUGES: &[Metric] = &[
    ("meridian_sql_connections", "SQL connections open.", |f| f.connections_open),
    ("meridian_plan_cache_plans", "Plans that are kept.", |f| f.plan_cache_plans),
    ("meridian_plan_cache_bytes", "Memory of kept plans, estimated.", |f| f.plan_cache_bytes),
    ("meridian_catalog_version", "Version of the catalog that this node knows.", |f| f.catalog_version),
    ("meridian_raft_term", "Term of the meta group.", |f| f.raft_term),
    ("meridian_raft_applied_index", "Last entry of the meta group applied here.", |f| f.raft_applied),
    ("meridian_raft_is_leader", "1 if this node leads the meta group.", |f| u64::from(f.raft_is_leader)),
    ("meridian_raft_is_short_of_space", "1 if the disk of this node's part of the meta group is full.", |f| {
        u64::from(f.raft_is_short_of_space)
    }),
];

const SHARD_GAUGES: &[ShardMetric] = &[
    ("meridian_shard_chunks", "Chunks of the shard.", |s| s.chunks),
    ("meridian_shard_segments", "Segments of the shard.", |s| s.segments),
    ("meridian_shard_rows", "Rows of the shard, in memtables and segments.", |s| s.rows),
    ("meridian_shard_memtable_bytes", "Memory of the shard's memtables.", |s| s.memtable_bytes),
    ("meridian_shard_segment_bytes", "Size of the shard's segment files.", |s| s.segment_bytes),
    ("meridian_shard_wal_bytes", "Size of the shard's write-ahead log that is still needed.", |s| s.wal_bytes),
    ("meridian_shard_footer_bytes", "Memory of the footers of open segments.", |s| s.footer_bytes),
    ("meridian_shard_page_cache_bytes", "Memory of the shard's page cache.", |s| s.page_cache_bytes),
    ("meridian_shard_leaf_cache_bytes", "Memory of series directories and ends of series.", |s| s.leaf_cache_bytes),
    ("meridian_shard_scan_bytes", "Memory of rows that scans of the shard have decoded.", |s| s.scan_bytes),
];

const SHARD_COUNTERS: &[ShardMetric] = &[
    ("meridian_shard_page_cache_hits_total", "Pages that were found in the page cache.", |s| s.page_cache_hits),
    ("meridian_shard_page_cache_misses_total", "Pages that were not found in the page cache.", |s| s.page_cache_misses),
    ("meridian_shard_page_read_ahead_total", "Pages that a scan had read before it came to them.", |s| {
        s.page_read_ahead
    }),
];

/// The whole answer of `/metrics`.
pub fn render(figures: &Figures) -> prometheus::Result<String> {
    let registry = Registry::new();
    add_build(&registry)?;
    add_process(&registry)?;
    for (name, help, value) in COUNTERS {
        let counter = IntCounter::new(*name, *help)?;
        counter.inc_by(value(figures));
        registry.register(Box::new(counter))?;
    }
    for (name, help, value) in GAUGES {
        add_gauge(&registry, name, help, value(figures))?;
    }
    for (name, help, value) in SHARD_GAUGES {
        let gauge = IntGaugeVec::new(Opts::new(*name, *help), &["shard"])?;
        for shard in &figures.shards {
            gauge.with_label_values(&[shard.shard.to_string()]).set(as_gauge(value(shard)));
        }
        registry.register(Box::new(gauge))?;
    }
    for (name, help, value) in SHARD_COUNTERS {
        let counter = IntCounterVec::new(Opts::new(*name, *help), &["shard"])?;
        for shard in &figures.shards {
            counter.with_label_values(&[shard.shard.to_string()]).inc_by(value(shard));
        }
        registry.register(Box::new(counter))?;
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn add_build(registry: &Registry) -> prometheus::Result<()> {
    let build = GaugeVec::new(Opts::new("meridian_build_info", "What this binary is; always 1."), &["version"])?;
    build.with_label_values(&[Version::current().number]).set(1.0);
    registry.register(Box::new(build))
}

fn add_gauge(registry: &Registry, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
    let gauge = IntGauge::new(name, help)?;
    gauge.set(as_gauge(value));
    registry.register(Box::new(gauge))
}

/// The usual process metrics, by their usual names, as far as /proc tells them.
fn add_process(registry: &Registry) -> prometheus::Result<()> {
    let Some(process) = Process::read() else { return Ok(()) };
    let cpu = Gauge::new("process_cpu_seconds_total", "User and system CPU time.")?;
    cpu.set(process.cpu_seconds);
    registry.register(Box::new(cpu))?;
    add_gauge(registry, "process_resident_memory_bytes", "Resident memory.", process.resident_bytes)?;
    add_gauge(registry, "process_threads", "Threads.", process.threads)?;
    add_gauge(registry, "process_open_fds", "Open files and sockets.", process.open_files)
}

struct Process {
    cpu_seconds: f64,
    resident_bytes: u64,
    threads: u64,
    open_files: u64,
}

impl Process {
    /// From `/proc/self/stat` (proc(5)); `None` where there is none.
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the name in parentheses and may hold spaces.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        // SAFETY: `sysconf` touches no memory of ours.
        let (ticks, page) = unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)) };
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks as f64,
            resident_bytes: field(24)? * u64::try_from(page).ok()?,
            threads: field(20)?,
            open_files: std::fs::read_dir("/proc/self/fd").ok()?.count() as u64,
        })
    }
}

fn as_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rendered_by_name_and_shard() {
        let shards = vec![ShardFigures { shard: 1, rows: 42, ..ShardFigures::default() }];
        let text = render(&Figures { catalog_version: 7, shards, ..Figures::default() }).unwrap();
        for line in ["meridian_catalog_version 7", "meridian_shard_rows{shard=\"1\"} 42", "process_threads"] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
