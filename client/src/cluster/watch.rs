//! Follows the meta group's watch stream and keeps the newest catalog view.

use std::sync::Arc;
use std::time::Duration;

use meridian_proto::catalog::CatalogDelta;
use meridian_proto::{CatalogVersion, Refusal, wire};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::meta::MetaClient;
use super::view::CatalogView;

const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// The newest view. Cheap to clone. The task that follows ends when the last clone is gone.
#[derive(Clone)]
pub struct CatalogWatch(watch::Receiver<Arc<CatalogView>>);

impl CatalogWatch {
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn start(meta: MetaClient) -> Self {
        let (sender, receiver) = watch::channel(Arc::new(CatalogView::default()));
        tokio::spawn(follow(meta, sender));
        Self(receiver)
    }

    #[must_use]
    pub fn current(&self) -> Arc<CatalogView> {
        Arc::clone(&self.0.borrow())
    }

    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<CatalogView>> {
        self.0.clone()
    }

    /// A view at least as new as `version` (R2).
    ///
    /// # Errors
    /// `Unavailable` when it does not come before `deadline`.
    pub async fn wait_for(&self, version: CatalogVersion, deadline: Instant) -> Result<Arc<CatalogView>, Refusal> {
        let mut receiver = self.0.clone();
        let newer = receiver.wait_for(|view| view.version() >= version);
        match tokio::time::timeout_at(deadline, newer).await {
            Ok(Ok(view)) => Ok(Arc::clone(&view)),
            Ok(Err(_)) => Err(Refusal::Unavailable("the catalog is no longer followed".to_owned())),
            Err(_) => Err(Refusal::Unavailable(format!(
                "catalog version {version} has not arrived, have {}",
                self.current().version()
            ))),
        }
    }
}

async fn follow(meta: MetaClient, sender: watch::Sender<Arc<CatalogView>>) {
    while !sender.is_closed() {
        if let Some(address) = meta.pick_member() {
            tokio::select! {
                () = follow_member(&meta, &address, &sender) => {}
                () = sender.closed() => return,
            }
            meta.forget_leader(&address);
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

/// Follows one member until its stream ends or skips.
async fn follow_member(meta: &MetaClient, address: &str, sender: &watch::Sender<Arc<CatalogView>>) {
    let after = sender.borrow().version().0;
    let mut stream = match meta.client(address).watch(wire::WatchRequest { after }).await {
        Ok(response) => response.into_inner(),
        Err(status) => {
            debug!(address, error = %status.message(), "cannot follow the catalog here");
            return;
        }
    };
    loop {
        match stream.message().await {
            Ok(Some(delta)) => {
                if let Err(error) = apply(delta, sender) {
                    warn!(address, %error, "catalog change not usable, asking again");
                    return;
                }
            }
            Ok(None) => return,
            Err(status) => {
                debug!(address, error = %status.message(), "catalog stream ended");
                return;
            }
        }
    }
}

fn apply(delta: wire::CatalogDelta, sender: &watch::Sender<Arc<CatalogView>>) -> Result<(), String> {
    let delta = CatalogDelta::try_from(delta).map_err(|error| error.to_string())?;
    let view = sender.borrow().clone();
    if delta.to <= view.version() {
        // A member that is behind sends a whole catalog that is older: views never go back.
        return Ok(());
    }
    let next = view.apply(&delta).map_err(|error| error.to_string())?;
    sender.send_replace(Arc::new(next));
    Ok(())
}
