//! The server on the cluster port: both services over TCP and, for roles of the same process, over memory.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use meridian_client::cluster::LocalListener;
use meridian_client::cluster::channel::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use meridian_proto::Refusal;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::failure::Failure;

/// Requests of one connection that run at a time; further ones wait in its own window.
const STREAMS_PER_CONNECTION_MAX: u32 = 1024;
/// Time that requests in flight have to end in.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;
type Handler = Arc<dyn Fn(http::Request<Body>) -> Answer + Send + Sync>;

/// The services of a node, told apart by the path. They come up after the port is open; until then their requests are
/// refused.
#[derive(Clone, Default)]
pub struct Services(Arc<RwLock<Vec<(&'static str, Handler)>>>);

impl Services {
    /// From now on `service` answers.
    pub fn add<S>(&self, service: S)
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        // tonic's services are always ready: `poll_ready` need not be asked.
        let handler: Handler = Arc::new(move |request| Box::pin(service.clone().call(request)));
        self.0.write().unwrap_or_else(PoisonError::into_inner).push((S::NAME, handler));
    }

    fn find(&self, name: &str) -> Option<Handler> {
        let services = self.0.read().unwrap_or_else(PoisonError::into_inner);
        services.iter().find(|(own, _)| *own == name).map(|(_, handler)| Arc::clone(handler))
    }
}

impl Service<http::Request<Body>> for Services {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        // `/meridian.v1.Meta/Propose`
        let name = request.uri().path().split('/').nth(1).unwrap_or_default();
        match self.find(name) {
            Some(handler) => handler(request),
            None => {
                let refusal = Refusal::Unavailable(format!("{name} is not served here (yet)"));
                Box::pin(std::future::ready(Ok(tonic::Status::from(refusal).into_http())))
            }
        }
    }
}

/// The running server.
pub struct Grpc {
    stop: CancellationToken,
    /// A server ended without being told to.
    failed: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Grpc {
    pub fn start(listener: std::net::TcpListener, local: LocalListener, services: Services) -> Result<Self, Failure> {
        let listener = tokio::net::TcpListener::from_std(listener)
            .map_err(|error| Failure::failed(format!("could not listen for other nodes: {error}")))?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let (stop, failed) = (CancellationToken::new(), CancellationToken::new());
        let over_tcp =
            server().serve_with_incoming_shutdown(services.clone(), incoming, stop.clone().cancelled_owned());
        let over_memory = server().serve_with_incoming_shutdown(services, local, stop.clone().cancelled_owned());
        let run = |over: &'static str, serving: Pin<Box<dyn Future<Output = _> + Send>>| {
            tokio::spawn(run(over, serving, stop.clone(), failed.clone()))
        };
        let tasks = vec![run("TCP", Box::pin(over_tcp)), run("memory", Box::pin(over_memory))];
        Ok(Self { stop, failed, tasks })
    }

    /// Waits until the port is no longer served.
    pub async fn failed(&self) -> Failure {
        self.failed.cancelled().await;
        Failure::failed("the cluster port is no longer served")
    }

    /// Takes no more requests, lets those in flight end, within limits: a watch stream never ends by itself.
    pub async fn shutdown(self) {
        self.stop.cancel();
        let deadline = tokio::time::Instant::now() + DRAIN_TIMEOUT;
        for mut task in self.tasks {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

async fn run(
    over: &str,
    serving: impl Future<Output = Result<(), tonic::transport::Error>>,
    stop: CancellationToken,
    failed: CancellationToken,
) {
    let ended = serving.await;
    if !stop.is_cancelled() {
        let error = ended.err().map(|error| error.to_string()).unwrap_or_default();
        tracing::error!(error, over, "the cluster port is no longer served");
        failed.cancel();
    }
}

fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
}
