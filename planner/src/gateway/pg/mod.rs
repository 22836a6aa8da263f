//! The PostgreSQL door: protocol 3.0 and 3.2 on TCP.
//!
//! Message layouts of the answers are pgwire's; the connection loop is ours, because cancel, COPY, pipelining and the
//! recovery after errors all need the socket and the session in one hand. One task per connection; it ends alone when
//! its client breaks the protocol.
//!
//! Modules in order: memory for messages ([`budget`]), messages in ([`frontend`]), messages out ([`backend`]), the
//! buffered socket ([`wire`]), statements that can be stopped ([`cancel`]), start-up, values and rows, COPY, and the loop
//! ([`connection`]) with its two dialects, simple and extended queries.

mod backend;
mod budget;
mod cancel;
mod connection;
mod copy_in;
mod copy_out;
mod extended;
mod failure;
mod frontend;
mod parameters;
mod rows;
mod simple;
mod startup;
mod wire;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::budget::Budget;
use self::cancel::{Cause, Registry};
use self::failure::Ended;
use self::wire::Wire;
use super::counters::Counters;
use crate::context::GatewayContext;
use crate::error::SqlError;

/// Pause after a failed accept. The usual cause, no free file descriptor, does not pass by asking again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What statements that outlived the drain time get to notice their cancellation.
const CANCEL_GRACE: Duration = Duration::from_secs(1);
/// What a client gets to read its last error before the socket closes.
const FAREWELL: Duration = Duration::from_millis(500);

/// What all connections of this door share.
pub struct Door {
    context: Arc<GatewayContext>,
    counters: Arc<Counters>,
    registry: Registry,
    connections_max: usize,
    budget: Arc<Budget>,
    closing: CancellationToken,
}

impl Door {
    pub fn new(
        context: Arc<GatewayContext>,
        counters: Arc<Counters>,
        connections_max: usize,
        message_bytes_max: usize,
        closing: CancellationToken,
    ) -> Self {
        let registry = Registry::new(context.node);
        let budget = Arc::new(Budget::new(message_bytes_max));
        Self { context, counters, registry, connections_max, budget, closing }
    }
}

/// Accepts clients until the door closes, then waits for them up to `drain`.
pub async fn accept(door: Arc<Door>, listener: TcpListener, drain: Duration) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = door.closing.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Cancel requests and start-ups come on top of the sessions; beyond twice the limit nobody is heard.
                    let crowded = tasks.len() >= door.connections_max.saturating_mul(2);
                    tasks.spawn(serve(Arc::clone(&door), stream, peer, crowded));
                }
                Err(error) => {
                    warn!(error = %error, "could not accept a client");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => log_join(ended),
        }
    }
    drop(listener);
    finish(&door, tasks, drain).await;
}

async fn finish(door: &Door, mut tasks: JoinSet<()>, drain: Duration) {
    if !wait_for_all(&mut tasks, Instant::now() + drain).await {
        info!(connections = tasks.len(), "drain time is over, canceling what still runs");
        door.registry.cancel_all(Cause::Shutdown);
        wait_for_all(&mut tasks, Instant::now() + CANCEL_GRACE).await;
    }
    tasks.shutdown().await;
}

/// Whether all tasks ended before `deadline`.
async fn wait_for_all(tasks: &mut JoinSet<()>, deadline: Instant) -> bool {
    loop {
        match timeout_at(deadline, tasks.join_next()).await {
            Ok(Some(ended)) => log_join(ended),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

fn log_join(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(error = %error, "a connection's task panicked");
    }
}

/// One client, from its first byte to its last.
async fn serve(door: Arc<Door>, stream: TcpStream, peer: SocketAddr, crowded: bool) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, error = %error, "could not set TCP_NODELAY");
    }
    let mut wire = Wire::new(stream, Arc::clone(&door.counters), Arc::clone(&door.budget));
    let served = AssertUnwindSafe(async {
        if crowded { Err(Ended::Fatal(startup::too_many())) } else { connection::serve(&door, &mut wire, peer).await }
    });
    let ended = match served.catch_unwind().await {
        Ok(Ok(())) => return,
        Ok(Err(ended)) => ended,
        Err(_) => {
            error!(%peer, "a connection panicked; it is closed, the others go on");
            Ended::Fatal(SqlError::new("XX000", "internal error: the connection's task panicked"))
        }
    };
    if let Ended::Fatal(error) = ended {
        debug!(%peer, error = %error, "connection refused or ended");
        door.counters.errors.add(1);
        farewell(&mut wire, &error).await;
    }
}

/// Tells the last error and lets the client read it: closing at once, with its bytes unread, would reset the connection
/// and take the message with it.
async fn farewell(wire: &mut Wire, error: &SqlError) {
    backend::error(wire.output(), backend::Severity::Fatal, error);
    let deadline = Instant::now() + FAREWELL;
    if let Ok(Ok(())) = timeout_at(deadline, wire.flush()).await {
        let _ = timeout_at(deadline, wire.finish()).await;
    }
}
