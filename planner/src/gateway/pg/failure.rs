//! How a request ends when it does not end well: with an error that the client may go on after, or with the connection.

use std::io;

use crate::error::SqlError;

/// The connection is over.
#[derive(Debug)]
pub enum Ended {
    /// The client went away or said goodbye; there is nobody to tell.
    Closed,
    /// To be told as FATAL before the socket closes.
    Fatal(SqlError),
}

#[derive(Debug)]
pub enum Failure {
    /// Told as ERROR; the connection goes on.
    Error(SqlError),
    Ended(Ended),
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Self::Error(error)
    }
}

impl From<Ended> for Failure {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

/// A socket that fails is a client that went away.
impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Ended(error.into())
    }
}

/// 08P01: the client broke the protocol.
pub fn violation(message: impl Into<String>) -> SqlError {
    SqlError::new("08P01", message)
}

/// 57P01: what clients hear when the node goes down.
pub fn shutting_down() -> SqlError {
    SqlError::new("57P01", "terminating connection due to administrator command")
}
