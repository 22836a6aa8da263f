//! Starting nodes and clusters of the real binary, and talking to them.

mod cluster;
mod command;
mod load;
mod node;
mod ports;
mod small_disk;
mod sql;

pub use cluster::Cluster;
pub use command::{Output, binary, meridian, run};
pub use load::{Loader, check_rows};
pub use node::{Node, NodeSpec, changes, snapshot};
pub use ports::Port;
pub use small_disk::SmallDisk;
pub use sql::{Sql, error_of, sqlstate_of};

use std::time::Duration;

/// Longest wait for anything that should come about by itself. Machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(30);
