//! The settings as the node uses them, checked as a whole.

use std::path::PathBuf;
use std::time::Duration;

use super::layers::{Origin, Settings};
use crate::failure::Failure;

/// What a process needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    pub role: Role,
    pub name: String,
    pub data_dir: PathBuf,
    pub sql_listen: String,
    /// `None`: what `sql_listen` turned out to be.
    pub sql_advertise: Option<String>,
    pub sql_memory_bytes: usize,
    pub temporary_bytes_max: u64,
    pub message_bytes_max: usize,
    pub cluster_listen: String,
    pub cluster_advertise: Option<String>,
    pub join: Vec<String>,
    pub voters_max: usize,
    pub heartbeat: Duration,
    pub dead_after: Duration,
    pub admin_listen: String,
    /// 0: one per core.
    pub shards: u16,
    pub memtable_bytes_max: usize,
    pub scan_bytes_max: usize,
    pub rewrite_bytes_max: usize,
    /// 0: nothing is kept.
    pub page_cache_bytes_max: usize,
    pub memory_wait: Duration,
    pub wal_file_bytes: usize,
    pub log_format: LogFormat,
    pub log_filter: String,
}

/// More often, nodes would keep the leader busy; more seldom, nobody would hear of a death in time.
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);
const DEAD_AFTER_MAX: Duration = Duration::from_secs(3600);
/// A smaller file would be changed with every few commits; of larger ones not even two fit what a restart is to read at
/// most (512 MiB), and flushes would never end.
const WAL_FILE_BYTES_MIN: usize = 1 << 20;
const WAL_FILE_BYTES_MAX: usize = 256 << 20;
const BLOCK_BYTES: usize = 4096;
/// As PostgreSQL's names.
const NAME_BYTES_MAX: usize = 63;
/// Longer than that, clients and the nodes between have given up.
const MEMORY_WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    All,
    Access,
    Data,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Pretty,
    Json,
}

impl Config {
    /// Reads the settings and checks what no single key can say.
    pub fn from_settings(settings: &Settings) -> Result<Self, Failure> {
        let config = Self {
            role: Role::from_name(&settings.text("node.role")),
            name: settings.text("node.name"),
            data_dir: PathBuf::from(settings.text("node.data_dir")),
            sql_listen: settings.text("sql.listen"),
            sql_advertise: Some(settings.text("sql.advertise")).filter(|address| !address.is_empty()),
            sql_memory_bytes: sql_memory(settings)?,
            temporary_bytes_max: settings.count("sql.temporary_files"),
            message_bytes_max: number(settings, "sql.message_memory")?,
            cluster_listen: settings.text("cluster.listen"),
            cluster_advertise: Some(settings.text("cluster.advertise")).filter(|address| !address.is_empty()),
            join: settings.list("cluster.join"),
            voters_max: number(settings, "cluster.voters")?,
            heartbeat: Duration::from_millis(settings.count("cluster.heartbeat")),
            dead_after: Duration::from_millis(settings.count("cluster.dead_after")),
            admin_listen: settings.text("admin.listen"),
            shards: number(settings, "data.shards")?,
            memtable_bytes_max: number(settings, "data.memtable")?,
            scan_bytes_max: number(settings, "data.scan_memory")?,
            rewrite_bytes_max: number(settings, "data.rewrite_memory")?,
            page_cache_bytes_max: number(settings, "data.page_cache")?,
            memory_wait: Duration::from_millis(settings.count("data.memory_wait")),
            wal_file_bytes: number(settings, "data.wal_file")?,
            log_format: if settings.text("log.format") == "json" { LogFormat::Json } else { LogFormat::Pretty },
            log_filter: settings.text("log.filter"),
        };
        config.validate(settings)?;
        Ok(config)
    }

    fn validate(&self, settings: &Settings) -> Result<(), Failure> {
        let wrong = |key: &str, reason: &str| match settings.origin(key) {
            Origin::Default => Err(Failure::usage(format!("`{key}` {reason}"))),
            origin => Err(Failure::usage(format!("{origin}: `{key}` {reason}"))),
        };
        if self.role == Role::Data && self.join.is_empty() {
            return wrong("cluster.join", "must name an access node: a data node has no cluster of its own");
        }
        if self.name.len() > NAME_BYTES_MAX || self.name.chars().any(char::is_control) {
            return wrong("node.name", &format!("must have at most {NAME_BYTES_MAX} bytes, and no control characters"));
        }
        if ![1, 3, 5].contains(&self.voters_max) {
            return wrong("cluster.voters", "must be 1, 3 or 5");
        }
        if !(HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(&self.heartbeat) {
            return wrong("cluster.heartbeat", "must be from 50ms to 60s");
        }
        if self.dead_after < self.heartbeat * 2 || self.dead_after > DEAD_AFTER_MAX {
            let heartbeat = self.heartbeat.as_millis();
            let reason =
                format!("must be at least two heartbeats (`cluster.heartbeat` is {heartbeat}ms) and at most 1h");
            return wrong("cluster.dead_after", &reason);
        }
        for (key, bytes) in [
            ("sql.message_memory", self.message_bytes_max),
            ("data.memtable", self.memtable_bytes_max),
            ("data.scan_memory", self.scan_bytes_max),
            ("data.rewrite_memory", self.rewrite_bytes_max),
        ] {
            if bytes < 1 << 20 {
                return wrong(key, "must be at least 1MiB");
            }
        }
        if self.memory_wait > MEMORY_WAIT_MAX {
            return wrong("data.memory_wait", "must be at most 60s");
        }
        if !(WAL_FILE_BYTES_MIN..=WAL_FILE_BYTES_MAX).contains(&self.wal_file_bytes) {
            return wrong("data.wal_file", "must be from 1MiB to 256MiB");
        }
        if !self.wal_file_bytes.is_multiple_of(BLOCK_BYTES) {
            return wrong("data.wal_file", "must be a multiple of 4KiB: a log is written in blocks");
        }
        for (key, address, advertised) in [
            ("sql.listen", &self.sql_listen, &self.sql_advertise),
            ("cluster.listen", &self.cluster_listen, &self.cluster_advertise),
        ] {
            let any = ["0.0.0.0:", "[::]:"].iter().any(|prefix| address.starts_with(prefix));
            if any && advertised.is_none() && key == "cluster.listen" {
                return wrong(key, "is every address of the machine; say in `cluster.advertise` which one others use");
            }
        }
        if let Err(error) = self.log_filter.parse::<tracing_subscriber::EnvFilter>() {
            return wrong("log.filter", &format!("cannot be read: {error}"));
        }
        Ok(())
    }
}

impl Role {
    fn from_name(name: &str) -> Self {
        match name {
            "access" => Self::Access,
            "data" => Self::Data,
            _ => Self::All,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Access => "access",
            Self::Data => "data",
        }
    }

    pub fn has_access(self) -> bool {
        self != Self::Data
    }

    pub fn has_data(self) -> bool {
        self != Self::Access
    }
}

/// A quarter of the machine unless said.
fn sql_memory(settings: &Settings) -> Result<usize, Failure> {
    match number(settings, "sql.memory")? {
        0 => Ok(machine_memory_bytes() / 4),
        bytes => Ok(bytes),
    }
}

fn number<T: TryFrom<u64>>(settings: &Settings, key: &str) -> Result<T, Failure> {
    T::try_from(settings.count(key))
        .map_err(|_| Failure::usage(format!("{}: `{key}` is too large", settings.origin(key))))
}

/// Physical memory, or 4 GiB where it cannot be read.
fn machine_memory_bytes() -> usize {
    let kib = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<usize>().ok()
    });
    kib.map_or(4 << 30, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::super::layers::Sources;
    use super::*;

    fn check(flags: &[(&str, &str)], expected: &str) {
        let flags =
            flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned(), format!("--set {key}"))).collect();
        let settings = Settings::load(&Sources { flags, ..Sources::default() }).unwrap();
        let result = Config::from_settings(&settings).map(|_| String::new());
        assert_eq!(result.unwrap_or_else(|failure| failure.to_string()), expected);
    }

    #[test]
    fn the_whole_is_checked() {
        check(&[], "");
        check(&[("node.role", "data"), ("cluster.join", "a:1")], "");
        check(
            &[("node.role", "data")],
            "`cluster.join` must name an access node: a data node has no cluster of its own",
        );
        check(&[("cluster.voters", "2")], "--set cluster.voters: `cluster.voters` must be 1, 3 or 5");
        check(
            &[("cluster.listen", "0.0.0.0:5435")],
            "--set cluster.listen: `cluster.listen` is every address of the machine; \
             say in `cluster.advertise` which one others use",
        );
        check(&[("data.shards", "70000")], "--set data.shards: `data.shards` is too large");
        check(&[("cluster.heartbeat", "100ms"), ("cluster.dead_after", "200")], "");
        check(
            &[("cluster.heartbeat", "1s"), ("cluster.dead_after", "1999ms")],
            "--set cluster.dead_after: `cluster.dead_after` must be at least two heartbeats (`cluster.heartbeat` is \
             1000ms) and at most 1h",
        );
        check(&[("cluster.heartbeat", "1")], "--set cluster.heartbeat: `cluster.heartbeat` must be from 50ms to 60s");
        check(
            &[("node.name", "a\nb")],
            "--set node.name: `node.name` must have at most 63 bytes, and no control characters",
        );
        check(&[("data.scan_memory", "1000")], "--set data.scan_memory: `data.scan_memory` must be at least 1MiB");
        check(&[("data.memory_wait", "61s")], "--set data.memory_wait: `data.memory_wait` must be at most 60s");
        check(&[("data.wal_file", "1MiB")], "");
        check(&[("data.wal_file", "4GiB")], "--set data.wal_file: `data.wal_file` must be from 1MiB to 256MiB");
        check(
            &[("data.wal_file", "1048577")],
            "--set data.wal_file: `data.wal_file` must be a multiple of 4KiB: a log is written in blocks",
        );
    }
}
