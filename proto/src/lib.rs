//! What every part of Meridian agrees on: identities, time, types, the catalog's nouns, the slot hash, refusals, the
//! record frame of all logs, and the messages between nodes.
//!
//! The story: `ids`, `time`, `calendar`, `types` and `modifier` are words; `schema`, `compression` and `catalog` are nouns made of
//! them; `start` tells a node's processes apart; `command` changes nouns; `slot` places rows; `rows` and `frame` are how bytes travel and lie; `refusal` is how a
//! node says no; `convert` is the border to `wire`.

pub mod calendar;
pub mod catalog;
pub mod command;
pub mod compression;
pub mod convert;
pub mod frame;
pub mod ids;
pub mod modifier;
pub mod refusal;
pub mod rows;
pub mod schema;
pub mod slot;
pub mod start;
pub mod time;
pub mod types;

/// Messages between nodes, as generated from `proto/`. They end in the service file that receives them: inside, the
/// types of the other modules are used.
pub mod wire {
    #![allow(
        clippy::all,
        clippy::allow_attributes_without_reason,
        missing_docs,
        reason = "generated code is not held to our style"
    )]
    tonic::include_proto!("meridian.v1");
}

pub use ids::*;
pub use refusal::Refusal;
pub use time::{TimeRange, TimeUs};
pub use types::SqlType;

/// Version of the messages between nodes. A node refuses another one by name.
pub const WIRE_VERSION: u32 = 1;
