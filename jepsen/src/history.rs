//! What clients asked and what they were told, in the order in which it happened.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// An append: its number is in every row that it writes.
pub type OpId = i64;

/// What a client knows of an append that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Acknowledged,
    /// An SQLSTATE that means surely not applied.
    Refused(String),
    /// 08007, or the connection broke.
    Unknown(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Invoked {
        op: OpId,
        rows: i64,
    },
    Ended {
        op: OpId,
        told: Told,
    },
    /// A read was sent; `read` numbers it.
    ReadInvoked {
        read: usize,
    },
    /// Rows per append, in one snapshot.
    ReadEnded {
        read: usize,
        rows: BTreeMap<OpId, i64>,
    },
}

/// Events of all clients in one order: an event that is recorded before another one happened before it.
#[derive(Debug, Default)]
pub struct History(Mutex<Vec<Event>>);

impl History {
    pub fn record(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sorts a failure by what its SQLSTATE promises: 40001, 53xxx, 57P0x mean surely not applied (R25).
#[must_use]
pub fn told_of(sqlstate: Option<&str>, message: &str) -> Told {
    match sqlstate {
        Some(code) if code == "40001" || code.starts_with("53") || code.starts_with("57P0") => {
            Told::Refused(code.to_owned())
        }
        Some(code) => Told::Unknown(code.to_owned()),
        None => Told::Unknown(message.to_owned()),
    }
}
