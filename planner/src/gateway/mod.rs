//! The gateway: where clients come in. Four doors over one session and one authorisation; PostgreSQL's protocol is the
//! first of them.

pub mod counters;
pub mod pg;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::counters::Counters;
use crate::context::GatewayContext;
use crate::plan_cache::PlanCache;

/// Clients served at the same time, unless configured otherwise.
pub const CONNECTIONS_MAX: usize = 1000;
/// Memory for long messages of all clients, unless configured otherwise: 12 batches of 10 MB from bulk loaders at a time.
pub const MESSAGE_BYTES_MAX: usize = 128 << 20;
/// How long running statements may go on after a shutdown began, unless configured otherwise.
pub const DRAIN: Duration = Duration::from_secs(10);

pub struct GatewayOptions {
    /// Bound by the caller, so that a port in use is told before anything else starts.
    pub sql_listener: TcpListener,
    pub context: Arc<GatewayContext>,
    pub connections_max: usize,
    /// What messages of all clients may take together beyond the share that each connection has.
    pub message_bytes_max: usize,
    pub drain: Duration,
}

impl GatewayOptions {
    #[must_use]
    pub fn new(sql_listener: TcpListener, context: Arc<GatewayContext>) -> Self {
        Self {
            sql_listener,
            context,
            connections_max: CONNECTIONS_MAX,
            message_bytes_max: MESSAGE_BYTES_MAX,
            drain: DRAIN,
        }
    }
}

/// A running gateway. Dropping it stops accepting and ends its connections, without waiting for them.
pub struct Gateway {
    counters: Arc<Counters>,
    plans: Arc<PlanCache>,
    closing: CancellationToken,
    accepting: Option<JoinHandle<()>>,
}

/// Opens the doors. Must be called within a tokio runtime.
#[must_use]
pub fn start(options: GatewayOptions) -> Gateway {
    let counters = Arc::new(Counters::default());
    let closing = CancellationToken::new();
    let GatewayOptions { sql_listener, context, connections_max, message_bytes_max, drain } = options;
    let plans = Arc::clone(&context.plans);
    let door = pg::Door::new(context, Arc::clone(&counters), connections_max, message_bytes_max, closing.clone());
    let accepting = tokio::spawn(pg::accept(Arc::new(door), sql_listener, drain));
    Gateway { counters, plans, closing, accepting: Some(accepting) }
}

impl Gateway {
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// The plans that its sessions keep.
    #[must_use]
    pub fn plans(&self) -> Arc<PlanCache> {
        Arc::clone(&self.plans)
    }

    /// Stops accepting, tells idle clients to go, and gives running statements the drain time to end.
    pub async fn shutdown(mut self) {
        self.closing.cancel();
        if let Some(accepting) = self.accepting.take()
            && let Err(error) = accepting.await
        {
            tracing::error!(error = %error, "the gateway did not stop cleanly");
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}
