//! Channels by address. An address served in this process is reached through memory, by the same gRPC service.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::local::{LocalDataNode, LocalMember, WeakDataNode, WeakMember};

/// Longest message between nodes: a piece of rows with its header, or a catalog.
pub const MESSAGE_BYTES_MAX: usize = 80 << 20;
/// HTTP/2 window of a stream. 8 MiB x a few pieces in flight keep a 25 GbE link busy at 1 ms round trip.
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// HTTP/2 window of a connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Bytes buffered between the two halves of an in-process connection.
const DUPLEX_BYTES: usize = 1 << 20;
/// In-process connections waiting to be accepted.
const LOCAL_BACKLOG: usize = 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A pool of channels, shared by all clones. Channels connect when first used and reconnect by themselves.
#[derive(Clone, Default)]
pub struct Channels(Arc<Mutex<Pool>>);

#[derive(Default)]
struct Pool {
    open: HashMap<String, Channel>,
    local: HashMap<String, mpsc::Sender<DuplexStream>>,
    data_nodes: HashMap<String, WeakDataNode>,
    members: HashMap<String, WeakMember>,
}

impl Channels {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The channel to the node at `address` (`host:port`).
    ///
    /// An address that is no authority gives a channel whose calls fail.
    #[must_use]
    pub fn channel(&self, address: &str) -> Channel {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = pool.open.get(address) {
            return channel.clone();
        }
        let channel = match pool.local.get(address) {
            Some(accept) => connect_local(accept.clone()),
            None => connect(address),
        };
        pool.open.insert(address.to_owned(), channel.clone());
        channel
    }

    /// From now on the data node at `address` is this one, as long as it lives.
    pub fn set_data_node(&self, address: &str, node: WeakDataNode) {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pool.data_nodes.insert(address.to_owned(), node);
    }

    /// The data node at `address`, if it lives in this process.
    #[must_use]
    pub fn data_node(&self, address: &str) -> Option<Arc<dyn LocalDataNode>> {
        let pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pool.data_nodes.get(address).and_then(WeakDataNode::upgrade)
    }

    /// From now on the access node at `address` is this one, as long as it lives.
    pub fn set_member(&self, address: &str, member: WeakMember) {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pool.members.insert(address.to_owned(), member);
    }

    /// The access node at `address`, if it lives in this process.
    #[must_use]
    pub fn member(&self, address: &str) -> Option<Arc<dyn LocalMember>> {
        let pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pool.members.get(address).and_then(WeakMember::upgrade)
    }

    /// From now on `address` is served in this process: the listener is handed to the server beside its TCP listener.
    #[must_use]
    pub fn listen_local(&self, address: &str) -> LocalListener {
        let (sender, receiver) = mpsc::channel(LOCAL_BACKLOG);
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pool.open.remove(address);
        pool.local.insert(address.to_owned(), sender);
        LocalListener(receiver)
    }
}

fn endpoint(uri: Uri) -> Endpoint {
    Endpoint::from(uri)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
}

fn connect(address: &str) -> Channel {
    let uri = format!("http://{address}").parse().unwrap_or_else(|_| Uri::from_static("http://invalid.invalid:1"));
    endpoint(uri).connect_lazy()
}

fn connect_local(accept: mpsc::Sender<DuplexStream>) -> Channel {
    let connector = service_fn(move |_: Uri| {
        let accept = accept.clone();
        async move {
            let (near, far) = tokio::io::duplex(DUPLEX_BYTES);
            let stopped = |_| io::Error::new(io::ErrorKind::ConnectionRefused, "this process no longer serves");
            accept.send(far).await.map_err(stopped)?;
            Ok::<_, io::Error>(TokioIo::new(near))
        }
    });
    endpoint(Uri::from_static("http://local")).connect_with_connector_lazy(connector)
}

/// In-process connections as they come in; for tonic's `serve_with_incoming`.
pub struct LocalListener(mpsc::Receiver<DuplexStream>);

impl Stream for LocalListener {
    type Item = io::Result<DuplexStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|stream| stream.map(Ok))
    }
}
