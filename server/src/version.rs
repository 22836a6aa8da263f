//! What this binary is, in the one form that `version`, `/version` and the log's first line share.

use std::fmt;

use serde_json::json;

#[derive(Debug)]
pub struct Version {
    /// Of the package.
    pub number: &'static str,
    /// Of the messages between nodes.
    pub wire: u32,
    /// PostgreSQL version that clients are told.
    pub postgres: &'static str,
}

impl Version {
    pub fn current() -> Self {
        Self { number: env!("CARGO_PKG_VERSION"), wire: meridian_proto::WIRE_VERSION, postgres: "15" }
    }

    pub fn to_json(&self) -> serde_json::Value {
        json!({ "version": self.number, "wire_version": self.wire, "postgres_version": self.postgres })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "meridian {} (node protocol {}, speaks PostgreSQL {})", self.number, self.wire, self.postgres)
    }
}
