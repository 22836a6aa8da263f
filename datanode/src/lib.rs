//! A data node.
//!
//! [`DataNode`] takes its folder (`identity`), starts a shard per core (`bridge`) and tells meta of its new incarnation;
//! then its `service` answers: it parses a request, catches up with the catalog that the request was made under, takes
//! office for a chunk when it is used for the first time (`office`), and hands the work to the shard that holds it. Reads
//! run a fragment there (`scan`), and whole chunks are rewritten there (`upkeep`). A chunk that the catalog is to lose is
//! sealed first (`seal`). `orders` reports to meta's leader and removes chunks that are no more.
//!
//! Modules in order; each uses only those above it.

pub mod bridge;
pub mod identity;
mod node;
mod office;
mod orders;
mod probe;
mod request;
mod scan;
mod seal;
mod service;
mod statement_error;
mod upkeep;

pub use node::{DataNode, DataNodeError, DataNodeOptions, SCAN_BYTES_MAX_DEFAULT};
pub use orders::HEARTBEAT;
pub use probe::probe_io_uring;
