//! The admin port: health, metrics and version over HTTP.
//!
//! `health` is what the node says of itself, `figures` what its parts count, `metrics` their form.

mod figures;
mod health;
mod metrics;

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use meridian_client::cluster::MetaClient;
use serde_json::{Value, json};
use tokio::time::Instant;

pub use figures::{Figures, ShardFigures, Sources};
pub use health::{Health, Phase};

use crate::failure::Failure;
use crate::version::Version;

/// A node that cannot get a timestamp in this time cannot serve a statement in time either.
const QUORUM_TIMEOUT: Duration = Duration::from_secs(1);

/// What the handlers look at.
#[derive(Clone)]
pub struct Admin {
    pub health: Health,
    /// Asked for a timestamp: the answer proves a leader with a quorum.
    pub meta: MetaClient,
    pub sources: Sources,
}

/// Serves until the process ends: probes are answered also while it drains.
pub fn start(listener: std::net::TcpListener, admin: Admin) -> Result<(), Failure> {
    let listener = tokio::net::TcpListener::from_std(listener)
        .map_err(|error| Failure::failed(format!("could not listen for HTTP: {error}")))?;
    let router = Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics_text))
        .route("/version", get(version))
        .with_state(admin);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the admin port is no longer served");
        }
    });
    Ok(())
}

async fn live() -> Response {
    json_response(StatusCode::OK, &json!({ "live": true }))
}

async fn ready(State(admin): State<Admin>) -> Response {
    match admin.reason_not_ready().await {
        None => json_response(StatusCode::OK, &json!({ "ready": true })),
        Some(reason) => json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "reason": reason })),
    }
}

async fn metrics_text(State(admin): State<Admin>) -> Response {
    match metrics::render(&admin.sources.figures().await) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn version() -> Response {
    json_response(StatusCode::OK, &Version::current().to_json())
}

impl Admin {
    async fn reason_not_ready(&self) -> Option<String> {
        match self.health.phase() {
            Phase::Starting(waiting) => Some(format!("starting: {waiting}")),
            Phase::Draining => Some("draining".to_owned()),
            Phase::Serving => {
                let answer = self.meta.timestamp(Instant::now() + QUORUM_TIMEOUT).await;
                answer.err().map(|refusal| format!("no quorum: {refusal}"))
            }
        }
    }
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}
