//! Why a member cannot start or go on. For the operator: the process ends and says so.

use std::io;
use std::path::PathBuf;

use meridian_proto::Refusal;

use crate::log::LogError;

#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("could not {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The folder is of another cluster or node.
    #[error("{0}")]
    Identity(String),
    /// The cluster does not take this node.
    #[error("the cluster refused this node: {0}")]
    Refused(Refusal),
    /// The node was removed, or another process has taken its place.
    #[error("{0}")]
    Expelled(String),
    /// What a running member said when it ended.
    #[error("this access node cannot go on: {0}")]
    Failed(String),
    /// Raft has stopped, mostly since its files cannot be written.
    #[error("the meta group stopped on this node: {0}")]
    Stopped(String),
}
