//! The meta group: access nodes that keep one catalog by Raft, place new chunks, and hand out timestamps.
//!
//! A command becomes an entry of the log ([`log`], on disk), the entry is agreed on ([`raft`], which alone knows
//! openraft) and changes the [`catalog`] in the same way on every member. The leader in addition gives timestamps
//! ([`oracle`]), watches which nodes live and brings its own members into the group ([`leader`]). [`service`] is what
//! others ask it by gRPC, [`member`] starts and stops all of it over one folder.
//!
//! Modules in order; each uses only those above it.

pub mod placement;

pub mod catalog;
pub mod log;

pub mod error;
pub mod identity;
pub mod raft;

pub mod oracle;

pub mod leader;

pub mod service;

pub mod member;

#[doc(hidden)]
pub mod arbitrary;

pub use error::MetaError;
pub use member::{Bootstrap, Member, MemberOptions};
pub use raft::Intervals;
