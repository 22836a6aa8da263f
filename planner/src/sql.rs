//! SQL.

/// One statement of a client.
#[derive(Clone, Debug)]
pub enum Statement {
    Empty,
}
