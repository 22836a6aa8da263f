//! Statements that can be stopped: by a cancel request, by `statement_timeout`, because their client went away, or
//! because the node goes down.
//!
//! A cancel request comes on a connection of its own and names another one by process number and secret:
//!
//! ```text
//! pid   0 | node, 11 bits | connection, 20 bits       node: the access node's id modulo 2048
//! ```

use std::collections::HashMap;
use std::future::{self, Future};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meridian_proto::NodeId;
use rand::RngCore;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::failure::{Ended, Failure, shutting_down};
use super::wire::Wire;
use crate::error::SqlError;

const CONNECTION_BITS: u32 = 20;
const CONNECTION_MASK: u32 = (1 << CONNECTION_BITS) - 1;
const NODE_MASK: u32 = (1 << (31 - CONNECTION_BITS)) - 1;

/// "transaction_resolution_unknown"
const OUTCOME_UNKNOWN: &str = "08007";

/// Who stopped a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Request,
    Timeout,
    Disconnect,
    Shutdown,
}

/// The connections of this gateway, by the low bits of their process number.
pub struct Registry {
    node_bits: u32,
    connections: Arc<Mutex<Connections>>,
}

#[derive(Default)]
struct Connections {
    last: u32,
    by_number: HashMap<u32, Entry>,
}

struct Entry {
    secret: Vec<u8>,
    slot: Arc<Slot>,
}

/// A connection's place in the [`Registry`]; leaves it when dropped.
pub struct Registered {
    pub pid: i32,
    pub secret: Vec<u8>,
    pub slot: Arc<Slot>,
    number: u32,
    connections: Arc<Mutex<Connections>>,
}

impl Registry {
    pub fn new(node: NodeId) -> Self {
        let node_bits = u32::try_from(node.0 & u64::from(NODE_MASK)).unwrap_or_default();
        Self { node_bits, connections: Arc::default() }
    }

    pub fn register(&self, secret_bytes: usize) -> Registered {
        let mut secret = vec![0; secret_bytes];
        rand::rng().fill_bytes(&mut secret);
        let slot = Arc::new(Slot::default());
        let mut connections = lock(&self.connections);
        let number = connections.free_number();
        connections.by_number.insert(number, Entry { secret: secret.clone(), slot: Arc::clone(&slot) });
        let pid = ((self.node_bits << CONNECTION_BITS) | number).cast_signed();
        Registered { pid, secret, slot, number, connections: Arc::clone(&self.connections) }
    }

    /// Stops what the named connection runs. Whether it hit something; the requester is never told.
    pub fn cancel(&self, pid: i32, secret: &[u8]) -> bool {
        let pid = pid.cast_unsigned();
        if pid >> CONNECTION_BITS != self.node_bits {
            return forward(pid >> CONNECTION_BITS);
        }
        let slot = match lock(&self.connections).by_number.get(&(pid & CONNECTION_MASK)) {
            Some(entry) if entry.secret == secret => Arc::clone(&entry.slot),
            _ => return false,
        };
        slot.cancel(Cause::Request)
    }

    pub fn cancel_all(&self, cause: Cause) {
        let slots: Vec<_> = lock(&self.connections).by_number.values().map(|entry| Arc::clone(&entry.slot)).collect();
        for slot in slots {
            slot.cancel(cause);
        }
    }
}

/// A request for another access node, as when a load balancer chose this one. Sending it on needs a call between access
/// nodes that does not exist yet; until then it is lost in silence, as PostgreSQL loses one with a wrong secret.
fn forward(node_bits: u32) -> bool {
    debug!(node = node_bits, "dropped a cancel request for another access node");
    false
}

impl Connections {
    fn free_number(&mut self) -> u32 {
        loop {
            self.last = (self.last + 1) & CONNECTION_MASK;
            // 0 stays free: a pid of 0 means "no connection" to some clients.
            if self.last != 0 && !self.by_number.contains_key(&self.last) {
                return self.last;
            }
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.connections).by_number.remove(&self.number);
    }
}

/// What one connection runs now, if anything.
#[derive(Default)]
pub struct Slot(Mutex<Option<Stop>>);

/// A statement's stop button.
#[derive(Clone)]
struct Stop {
    token: CancellationToken,
    cause: Arc<Mutex<Option<Cause>>>,
}

impl Slot {
    fn cancel(&self, cause: Cause) -> bool {
        match lock(&self.0).as_ref() {
            Some(stop) => stop.press(cause),
            None => false,
        }
    }
}

impl Stop {
    /// The first cause stays: a timeout that finds a canceled statement changes nothing.
    fn press(&self, cause: Cause) -> bool {
        let first = lock(&self.cause).get_or_insert(cause) == &cause && !self.token.is_cancelled();
        self.token.cancel();
        first
    }
}

/// A statement that runs. Dropping it takes it out of the connection's slot.
pub struct Running {
    slot: Arc<Slot>,
    stop: Stop,
    deadline: Option<Instant>,
}

impl Running {
    /// `token`: the statement's own, which a portal keeps from one Execute to the next.
    pub fn start(slot: &Arc<Slot>, token: CancellationToken, timeout: Option<Duration>) -> Self {
        let stop = Stop { token, cause: Arc::default() };
        *lock(&slot.0) = Some(stop.clone());
        Self { slot: Arc::clone(slot), stop, deadline: timeout.map(|timeout| Instant::now() + timeout) }
    }

    pub fn token(&self) -> CancellationToken {
        self.stop.token.clone()
    }

    /// Does `work` while the client stays and the time lasts; else tells the statement to stop and waits for `work` to
    /// heed it. What comes back after that is explained by [`Self::explain`].
    pub async fn watch<T>(&self, wire: &mut Wire, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        // Work that has used up its turn leaves none to a timer polled after it, and would never be found late.
        let mut timeout = pin!(tokio::task::unconstrained(self.timeout()));
        loop {
            let stopped = self.stop.token.is_cancelled();
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = &mut timeout, if !stopped => { self.stop.press(Cause::Timeout); }
                () = wire.watch(), if !wire.is_closed() => { self.stop.press(Cause::Disconnect); }
            }
        }
    }

    /// As [`Self::watch`], for work that need not heed the stop but can be dropped.
    pub async fn guard<T>(
        &self,
        wire: &mut Wire,
        work: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, Failure> {
        // A stream that always has a next batch ready would never let the timer speak.
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.stop.press(Cause::Timeout);
        }
        let token = self.token();
        let droppable = async {
            tokio::select! {
                biased;
                () = token.cancelled() => Err(canceled("user request")),
                done = work => done,
            }
        };
        self.watch(wire, droppable).await.map_err(|error| self.explain(error))
    }

    /// Returns when the statement is to stop. For work that reads the socket itself.
    pub async fn stopped(&self) {
        tokio::select! {
            () = self.stop.token.cancelled() => {}
            () = self.timeout() => { self.stop.press(Cause::Timeout); }
        }
    }

    /// The error to tell for `error`: when the statement was stopped, what stopped it. An unknown outcome stays one: the
    /// client must not take it for a statement that surely did nothing.
    pub fn explain(&self, error: SqlError) -> Failure {
        if error.sqlstate == OUTCOME_UNKNOWN {
            return Failure::Error(error);
        }
        match *lock(&self.stop.cause) {
            None => Failure::Error(error),
            Some(Cause::Request) => Failure::Error(canceled("user request")),
            Some(Cause::Timeout) => Failure::Error(canceled("statement timeout")),
            Some(Cause::Disconnect) => Failure::Ended(Ended::Closed),
            Some(Cause::Shutdown) => Failure::Ended(Ended::Fatal(shutting_down())),
        }
    }

    async fn timeout(&self) {
        match self.deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => future::pending().await,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *lock(&self.slot.0) = None;
    }
}

fn canceled(by: &str) -> SqlError {
    SqlError::new("57014", format!("canceling statement due to {by}"))
}

/// A panic elsewhere while the lock was held leaves plain data in a usable state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(registered: &Registered) -> Running {
        Running::start(&registered.slot, CancellationToken::new(), None)
    }

    fn explained(running: &Running) -> String {
        explained_as(running, "XX000")
    }

    fn explained_as(running: &Running, sqlstate: &'static str) -> String {
        match running.explain(SqlError::new(sqlstate, "own")) {
            Failure::Error(error) => error.message,
            Failure::Ended(Ended::Fatal(error)) => format!("FATAL {}", error.message),
            Failure::Ended(Ended::Closed) => "closed".to_owned(),
        }
    }

    #[test]
    fn the_pid_holds_the_node_and_is_positive() {
        let registry = Registry::new(NodeId(2047));
        let registered = registry.register(4);
        assert_eq!(registered.pid, (2047 << 20) | 1);
        assert_eq!(Registry::new(NodeId(2048 + 5)).register(4).pid >> 20, 5);
    }

    #[test]
    fn a_cancel_needs_the_secret_the_node_and_a_running_statement() {
        let registry = Registry::new(NodeId(3));
        let registered = registry.register(32);
        assert!(!registry.cancel(registered.pid, &registered.secret), "nothing runs");
        let running = start(&registered);
        assert!(!registry.cancel(registered.pid, &registered.secret[..4]), "short secret");
        assert!(!registry.cancel(registered.pid ^ (1 << 20), &registered.secret), "another node");
        assert!(!registry.cancel(registered.pid + 1, &registered.secret), "another connection");
        assert_eq!(explained(&running), "own");
        assert!(registry.cancel(registered.pid, &registered.secret));
        assert!(running.token().is_cancelled());
        assert_eq!(explained(&running), "canceling statement due to user request");
        assert_eq!(explained_as(&running, OUTCOME_UNKNOWN), "own");
        drop(running);
        assert!(!registry.cancel(registered.pid, &registered.secret), "it ended");
    }

    #[test]
    fn the_first_cause_is_told() {
        let registry = Registry::new(NodeId(3));
        let registered = registry.register(4);
        let running = start(&registered);
        registry.cancel_all(Cause::Shutdown);
        assert!(!registry.cancel(registered.pid, &registered.secret));
        assert_eq!(explained(&running), "FATAL terminating connection due to administrator command");
    }

    #[test]
    fn a_connection_that_ended_leaves_the_registry() {
        let registry = Registry::new(NodeId(3));
        drop(registry.register(4));
        assert!(lock(&registry.connections).by_number.is_empty());
        assert_eq!(registry.register(4).pid & 0xf_ffff, 2, "a number is not given again at once");
    }

    #[tokio::test]
    async fn a_statement_that_takes_too_long_is_stopped() {
        let slot = Arc::default();
        let running = Running::start(&slot, CancellationToken::new(), Some(Duration::from_millis(5)));
        running.stopped().await;
        assert_eq!(explained(&running), "canceling statement due to statement timeout");
    }
}
