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
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BufMut;
use meridian_client::cluster::CatalogView;
use meridian_proto::NodeId;
use meridian_proto::catalog::{Node, NodeRole};
use rand::RngCore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::failure::{Ended, Failure, shutting_down};
use super::wire::Wire;
use crate::error::SqlError;

const CONNECTION_BITS: u32 = 20;
const CONNECTION_MASK: u32 = (1 << CONNECTION_BITS) - 1;
const NODE_MASK: u32 = (1 << (31 - CONNECTION_BITS)) - 1;
/// First word of a cancel request after its length.
pub const CANCEL_REQUEST: u32 = 80_877_102;
/// Longest wait for another access node to take a request.
const FORWARD_MAX: Duration = Duration::from_secs(2);

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
    node: NodeId,
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
        Self { node, connections: Arc::default() }
    }

    pub fn register(&self, secret_bytes: usize) -> Registered {
        let mut secret = vec![0; secret_bytes];
        rand::rng().fill_bytes(&mut secret);
        let slot = Arc::new(Slot::default());
        let mut connections = lock(&self.connections);
        let number = connections.free_number();
        connections.by_number.insert(number, Entry { secret: secret.clone(), slot: Arc::clone(&slot) });
        let pid = ((bits_of(self.node) << CONNECTION_BITS) | number).cast_signed();
        Registered { pid, secret, slot, number, connections: Arc::clone(&self.connections) }
    }

    /// Stops what the named connection runs, here or at another access node: a load balancer may have chosen this one.
    /// Whether it hit something here; the requester is never told.
    pub async fn cancel(&self, catalog: &CatalogView, pid: i32, secret: &[u8]) -> bool {
        if self.is_here(pid) {
            return self.cancel_here(pid, secret);
        }
        forward(catalog, self.node, pid, secret).await;
        false
    }

    fn is_here(&self, pid: i32) -> bool {
        pid.cast_unsigned() >> CONNECTION_BITS == bits_of(self.node)
    }

    fn cancel_here(&self, pid: i32, secret: &[u8]) -> bool {
        let pid = pid.cast_unsigned();
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

/// Sends a request on to the access node that its pid names, as PostgreSQL's protocol has it: the node decides by the
/// secret, whoever brings it. Returns when that node has dealt with it: a cancel that is still on its way could hit the
/// connection's next statement.
async fn forward(catalog: &CatalogView, own: NodeId, pid: i32, secret: &[u8]) {
    let own_address = catalog.node(own).and_then(|node| node.sql_address.as_ref());
    for (node, address) in addressees(catalog, own, pid) {
        // Two nodes at one address: the other one is gone, and this one would ask itself for ever.
        if Some(&address) == own_address {
            continue;
        }
        match timeout(FORWARD_MAX, send(&address, pid, secret)).await {
            Ok(Ok(())) => debug!(%node, address, "sent a cancel request on"),
            Ok(Err(error)) => debug!(%node, address, %error, "could not send a cancel request on"),
            Err(_) => debug!(%node, address, "a cancel request was not taken in time"),
        }
    }
}

/// Access nodes that the pid may name, with their addresses for SQL.
fn addressees(catalog: &CatalogView, own: NodeId, pid: i32) -> Vec<(NodeId, String)> {
    let bits = pid.cast_unsigned() >> CONNECTION_BITS;
    let named = |node: &&Arc<Node>| node.role == NodeRole::Access && node.id != own && bits_of(node.id) == bits;
    let nodes = catalog.nodes().filter(named);
    nodes.filter_map(|node| Some((node.id, node.sql_address.clone()?))).collect()
}

async fn send(address: &str, pid: i32, secret: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let mut packet = Vec::with_capacity(12 + secret.len());
    packet.put_u32(u32::try_from(12 + secret.len()).unwrap_or(u32::MAX));
    packet.put_u32(CANCEL_REQUEST);
    packet.put_i32(pid);
    packet.put_slice(secret);
    stream.write_all(&packet).await?;
    // The node closes the connection when it is done, without a word.
    stream.read(&mut [0]).await.map(drop)
}

fn bits_of(node: NodeId) -> u32 {
    u32::try_from(node.0 & u64::from(NODE_MASK)).unwrap_or_default()
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
    use meridian_proto::catalog::{CatalogDelta, NodeState, Noun};
    use meridian_proto::{CatalogVersion, Incarnation};

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
        assert!(!registry.cancel_here(registered.pid, &registered.secret), "nothing runs");
        let running = start(&registered);
        assert!(!registry.cancel_here(registered.pid, &registered.secret[..4]), "short secret");
        assert!(!registry.is_here(registered.pid ^ (1 << 20)), "another node");
        assert!(!registry.cancel_here(registered.pid + 1, &registered.secret), "another connection");
        assert_eq!(explained(&running), "own");
        assert!(registry.cancel_here(registered.pid, &registered.secret));
        assert!(running.token().is_cancelled());
        assert_eq!(explained(&running), "canceling statement due to user request");
        assert_eq!(explained_as(&running, OUTCOME_UNKNOWN), "own");
        drop(running);
        assert!(!registry.cancel_here(registered.pid, &registered.secret), "it ended");
    }

    #[tokio::test]
    async fn a_request_for_another_access_node_is_sent_on_to_it_alone() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let node = |id: u64, role, address: &str| {
            Noun::Node(Node {
                id: NodeId(id),
                role,
                address: "127.0.0.1:9".to_owned(),
                sql_address: Some(address.to_owned()),
                name: format!("n{id}"),
                incarnation: Incarnation(1),
                shards: 1,
                state: NodeState::Live,
            })
        };
        let nodes = vec![
            node(3, NodeRole::Access, "127.0.0.1:1"),
            node(4, NodeRole::Access, &address),
            node(5, NodeRole::Access, "127.0.0.1:1"),
            node(6, NodeRole::Data, "127.0.0.1:1"),
        ];
        let whole =
            CatalogDelta { from: CatalogVersion(0), to: CatalogVersion(1), changed: nodes, removed: Vec::new() };
        let catalog = CatalogView::default().apply(&whole).unwrap();
        let pid_of = |node: i32| (node << CONNECTION_BITS) | 77;
        let named = |pid| addressees(&catalog, NodeId(3), pid).into_iter().map(|(node, _)| node.0).collect::<Vec<_>>();
        assert_eq!((named(pid_of(4)), named(pid_of(3)), named(pid_of(6))), (vec![4], vec![], vec![]));

        let taken = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut packet = [0; 20];
            stream.read_exact(&mut packet).await.unwrap();
            packet
        });
        assert!(!Registry::new(NodeId(3)).cancel(&catalog, pid_of(4), b"12345678").await);
        let packet = taken.await.unwrap();
        assert_eq!(packet[..4], 20u32.to_be_bytes());
        assert_eq!(packet[4..8], CANCEL_REQUEST.to_be_bytes());
        assert_eq!((&packet[8..12], &packet[12..]), (&pid_of(4).to_be_bytes()[..], &b"12345678"[..]));
        // Nobody there: the requester is answered all the same.
        assert!(!Registry::new(NodeId(3)).cancel(&catalog, pid_of(5), b"12345678").await);
        assert!(!Registry::new(NodeId(3)).cancel(&catalog, pid_of(9), b"12345678").await);
    }

    #[test]
    fn the_first_cause_is_told() {
        let registry = Registry::new(NodeId(3));
        let registered = registry.register(4);
        let running = start(&registered);
        registry.cancel_all(Cause::Shutdown);
        assert!(!registry.cancel_here(registered.pid, &registered.secret));
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
