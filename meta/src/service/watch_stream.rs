//! A stream of catalog changes to one follower.

use std::time::Duration;

use meridian_proto::{CatalogVersion, Refusal, wire};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Phase;
use crate::raft::Group;

/// A member that has not heard its leader for so long lets its followers go elsewhere.
const STALE_AFTER: Duration = Duration::from_secs(3);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Deltas that the follower has not taken yet; later changes gather in the next one.
const DELTAS_WAITING_MAX: usize = 1;

type Delta = Result<wire::CatalogDelta, Status>;

/// Changes after version `after`, the first one being a whole catalog where memory does not reach back.
pub(super) fn start(group: Group, phase: watch::Receiver<Phase>, after: CatalogVersion) -> ReceiverStream<Delta> {
    let (sender, receiver) = mpsc::channel(DELTAS_WAITING_MAX);
    tokio::spawn(follow(group, phase, after, sender));
    ReceiverStream::new(receiver)
}

async fn follow(
    group: Group,
    mut phase: watch::Receiver<Phase>,
    mut after: CatalogVersion,
    sender: mpsc::Sender<Delta>,
) {
    let mut progress = group.progress();
    loop {
        progress.borrow_and_update();
        let delta = group.read(|state| {
            // A member that is behind waits: views never go back.
            (state.catalog.version() > after).then(|| state.history.delta(&state.catalog, after))
        });
        if let Some(delta) = delta {
            after = delta.to;
            if sender.send(Ok(delta.into())).await.is_err() {
                return;
            }
            continue;
        }
        let ended = tokio::select! {
            changed = progress.changed() => changed.is_err(),
            () = sender.closed() => true,
            // The member stops, or cannot go on.
            changed = phase.changed() => changed.is_err() || matches!(*phase.borrow(), Phase::Failed(_)),
            () = tokio::time::sleep(LOOK) => !group.is_current(STALE_AFTER),
        };
        if ended {
            let refusal = Refusal::Unavailable("this access node does not hear the meta leader".to_owned());
            // A follower that has gone needs no answer.
            let _ = sender.try_send(Err(refusal.into()));
            return;
        }
    }
}
