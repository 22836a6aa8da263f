//! What the gateway counted since it started, for `/metrics` and status pages. Only ever added to, never reset.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number that many connections add to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn subtract(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub struct Counters {
    /// Clients connected at this moment, counted from the end of their start-up.
    pub connections_open: Counter,
    /// Clients that finished their start-up.
    pub connections: Counter,
    /// Clients refused at start-up, for whatever reason.
    pub connections_refused: Counter,
    /// Statements begun.
    pub statements: Counter,
    /// Rows sent to clients, COPY TO STDOUT included.
    pub rows_sent: Counter,
    /// Rows that COPY FROM STDIN wrote.
    pub rows_copied: Counter,
    /// Errors told to clients.
    pub errors: Counter,
    /// Cancel requests that hit a running statement.
    pub cancels: Counter,
    pub bytes_received: Counter,
    pub bytes_sent: Counter,
}
