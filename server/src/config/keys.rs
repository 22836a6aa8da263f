//! The list of keys: name, form, default, meaning. `config show` and the error texts follow it.

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// `section.key`, as in the file.
    pub name: &'static str,
    pub form: Form,
    pub default: &'static str,
    pub meaning: &'static str,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    /// `host:port`.
    Address,
    /// A list of `host:port`; on a command line and in the environment separated by commas.
    Addresses,
    Path,
    /// A whole number.
    Count,
    /// A number of bytes, or with a unit: `512MiB`.
    Bytes,
    /// A time in milliseconds, or with a unit: `500ms`, `2s`.
    Duration,
    Choice(&'static [&'static str]),
}

const ROLES: &[&str] = &["all", "access", "data"];
const LOG_FORMATS: &[&str] = &["pretty", "json"];

/// Every key there is.
pub const KEYS: &[Key] = &[
    Key {
        name: "node.name",
        form: Form::Text,
        default: "",
        meaning: "name of the node, unique per role; empty: the cluster names it an1, dn1, ...",
    },
    Key { name: "node.role", form: Form::Choice(ROLES), default: "all", meaning: "what this process is" },
    Key {
        name: "node.data_dir",
        form: Form::Path,
        default: "./meridian-data",
        meaning: "folder that this node alone writes to",
    },
    Key { name: "sql.listen", form: Form::Address, default: "127.0.0.1:5433", meaning: "PostgreSQL protocol" },
    Key {
        name: "sql.advertise",
        form: Form::Address,
        default: "",
        meaning: "address that SQL clients are told; empty: sql.listen",
    },
    Key {
        name: "sql.memory",
        form: Form::Bytes,
        default: "0",
        meaning: "memory for running statements of an access node; 0: a quarter of the machine's",
    },
    Key {
        name: "sql.temporary_files",
        form: Form::Bytes,
        default: "16GiB",
        meaning: "disk for what the statements of an access node cannot hold in memory; at most half of what is free at its start",
    },
    Key {
        name: "sql.message_memory",
        form: Form::Bytes,
        default: "128MiB",
        meaning: "memory for long messages of all SQL clients; a message that it cannot hold is refused",
    },
    Key { name: "cluster.listen", form: Form::Address, default: "127.0.0.1:5435", meaning: "node to node" },
    Key {
        name: "cluster.advertise",
        form: Form::Address,
        default: "",
        meaning: "address at which other nodes reach this one; empty: cluster.listen",
    },
    Key {
        name: "cluster.join",
        form: Form::Addresses,
        default: "",
        meaning: "access nodes of the cluster to join; empty on its first access node",
    },
    Key {
        name: "cluster.voters",
        form: Form::Count,
        default: "3",
        meaning: "access nodes that vote on the catalog, 1, 3 or 5; further ones learn",
    },
    Key {
        name: "cluster.heartbeat",
        form: Form::Duration,
        default: "500ms",
        meaning: "how often a node tells the leader of the access nodes that it lives",
    },
    Key {
        name: "cluster.dead_after",
        form: Form::Duration,
        default: "2s",
        meaning: "silence after which the leader counts a node as dead; the same on every access node",
    },
    Key {
        name: "admin.listen",
        form: Form::Address,
        default: "127.0.0.1:5436",
        meaning: "HTTP: /health/live, /health/ready, /metrics, /version",
    },
    Key { name: "data.shards", form: Form::Count, default: "0", meaning: "shards of a data node; 0: one per core" },
    Key {
        name: "data.memtable",
        form: Form::Bytes,
        default: "256MiB",
        meaning: "memory for rows of a shard that are not in segments yet",
    },
    Key {
        name: "data.scan_memory",
        form: Form::Bytes,
        default: "256MiB",
        meaning: "memory for rows that scans of a shard have decoded, and as much again for what they compute of them",
    },
    Key {
        name: "data.rewrite_memory",
        form: Form::Bytes,
        default: "256MiB",
        meaning: "memory of a shard's compaction and compression",
    },
    Key {
        name: "data.page_cache",
        form: Form::Bytes,
        default: "128MiB",
        meaning: "memory for pages of a shard's segments that may be read again; 0: none",
    },
    Key {
        name: "data.memory_wait",
        form: Form::Duration,
        default: "5s",
        meaning: "how long a write or a scan waits for memory of a shard before it is refused",
    },
    Key {
        name: "data.wal_file",
        form: Form::Bytes,
        default: "64MiB",
        meaning: "size of a file of a shard's log; up to two stand ready beside the one in use",
    },
    Key {
        name: "log.format",
        form: Form::Choice(LOG_FORMATS),
        default: "pretty",
        meaning: "lines for people or JSON objects, on stderr",
    },
    Key {
        name: "log.filter",
        form: Form::Text,
        default: "info,openraft=warn",
        meaning: "levels per module: `info,meridian_meta=debug`",
    },
];

/// The key of that name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key that was probably meant.
pub fn nearest(name: &str) -> Option<&'static str> {
    // Below it, two names have little more than their section in common.
    const SIMILARITY_MIN: f64 = 0.7;
    let name = name.to_lowercase();
    let bare = name.rsplit('.').next().unwrap_or(&name);
    KEYS.iter()
        .map(|key| {
            let own = key.name.rsplit('.').next().unwrap_or(key.name);
            let whole = strsim::jaro_winkler(key.name, &name);
            // The right key in the wrong section, or without one.
            let moved = if own == bare { 0.9 } else { 0.0 };
            (whole.max(moved), key.name)
        })
        // The first of equals.
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .map(|(_, name)| name)
}

impl Key {
    /// Name of the environment variable: `MERIDIAN_SQL__LISTEN`.
    pub fn variable(&self) -> String {
        format!("MERIDIAN_{}", self.name.replace('.', "__").to_uppercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_keys_find_their_neighbour() {
        assert_eq!(nearest("sql.lisen"), Some("sql.listen"));
        assert_eq!(nearest("cluster.advertize"), Some("cluster.advertise"));
        assert_eq!(nearest("data.data_dir"), Some("node.data_dir"));
        assert_eq!(nearest("zzz"), None);
    }

    #[test]
    fn names_are_unique_and_have_a_section() {
        for (position, key) in KEYS.iter().enumerate() {
            assert_eq!(key.name.split('.').count(), 2, "{}", key.name);
            assert!(KEYS[..position].iter().all(|other| other.name != key.name), "{} twice", key.name);
        }
    }
}
