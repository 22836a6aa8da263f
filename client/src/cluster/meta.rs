//! The meta group as its clients see it: one leader, found by asking any member, and again when it changed.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meridian_proto::command::{Command, Reply};
use meridian_proto::wire::meta_client::MetaClient as WireClient;
use meridian_proto::{CatalogVersion, Refusal, Ts, wire};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::channel::{Channels, MESSAGE_BYTES_MAX};
use super::data::SendError;

/// Longest wait for one member's answer before the next is asked.
const CALL_TIMEOUT: Duration = Duration::from_millis(1500);
/// Longest wait of a call that waiting statements share.
const TIMESTAMP_TIMEOUT: Duration = Duration::from_secs(10);
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(200);

/// Asks the meta group. Cheap to clone; clones share what they know of the leader.
#[derive(Clone)]
pub struct MetaClient(Arc<Inner>);

struct Inner {
    channels: Channels,
    members: Mutex<Members>,
    timestamps: Mutex<TimestampQueue>,
    proposals: Mutex<(u64, u64)>,
}

struct Members {
    addresses: Vec<String>,
    leader: Option<String>,
    /// Whom to ask next while no leader is known.
    next: usize,
}

type TimestampAnswer = Result<(Ts, CatalogVersion), Refusal>;

#[derive(Default)]
struct TimestampQueue {
    waiting: Vec<oneshot::Sender<TimestampAnswer>>,
    in_flight: bool,
}

/// A member's answer to a call that only the leader serves.
enum Answer<T> {
    Done(T),
    NotLeader(String),
}

impl MetaClient {
    /// `addresses`: node-to-node addresses of some access nodes.
    #[must_use]
    pub fn new(channels: Channels, addresses: Vec<String>) -> Self {
        // A proposal is told from others by (producer, sequence); a producer is one life of one client.
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos() as u64);
        let producer = (nanos ^ (u64::from(std::process::id()) << 40)).max(1);
        Self(Arc::new(Inner {
            channels,
            members: Mutex::new(Members { addresses, leader: None, next: 0 }),
            timestamps: Mutex::default(),
            proposals: Mutex::new((producer, 0)),
        }))
    }

    /// Addresses of access nodes that are asked.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.members().addresses.clone()
    }

    /// Also asks these from now on.
    pub fn learn_addresses(&self, addresses: impl IntoIterator<Item = String>) {
        let mut members = self.members();
        for address in addresses {
            if !members.addresses.contains(&address) {
                members.addresses.push(address);
            }
        }
    }

    /// Proposes a command and waits until it is applied. Repeated over leader changes until `deadline`; the group
    /// applies a repeated proposal once.
    ///
    /// # Errors
    /// The catalog's refusal; without an answer in time `Unavailable` when no member can have taken the proposal, else
    /// `OutcomeUnknown` (R25).
    pub async fn propose(&self, command: Command, deadline: Instant) -> Result<(Reply, CatalogVersion), Refusal> {
        let (producer, sequence) = self.next_proposal();
        let request = wire::ProposeRequest { command: Some(command.into()), producer, sequence };
        let (outcome, version) = self
            .at_leader(deadline, CALL_TIMEOUT * 4, |mut client| {
                let request = request.clone();
                async move {
                    let response = client.propose(request).await?.into_inner();
                    Ok(match response.outcome {
                        Some(wire::propose_response::Outcome::NotLeader(other)) => Answer::NotLeader(other.leader),
                        outcome => Answer::Done((outcome, response.version)),
                    })
                }
            })
            .await
            .map_err(|error| match error.refusal {
                // Also when the leader of now has no space for it: the one before may have taken it.
                Refusal::Unavailable(reason) | Refusal::DiskFull(reason) if error.sent => {
                    Refusal::OutcomeUnknown(reason)
                }
                refusal => refusal,
            })?;
        match outcome {
            Some(wire::propose_response::Outcome::Reply(reply)) => {
                let reply = Reply::try_from(reply).map_err(|error| Refusal::Protocol(error.to_string()))?;
                Ok((reply, CatalogVersion(version)))
            }
            Some(wire::propose_response::Outcome::Refusal(refusal)) => {
                Err(Refusal::try_from(refusal).unwrap_or_else(|error| Refusal::Protocol(error.to_string())))
            }
            _ => Err(Refusal::Protocol("an answer without outcome".to_owned())),
        }
    }

    /// A timestamp with the catalog version that a statement at it needs (R1).
    ///
    /// Callers that wait together share one call, but none joins a call that was sent before it came.
    pub async fn timestamp(&self, deadline: Instant) -> Result<(Ts, CatalogVersion), Refusal> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut queue = self.0.timestamps.lock().unwrap_or_else(PoisonError::into_inner);
            queue.waiting.push(sender);
            if !queue.in_flight {
                queue.in_flight = true;
                tokio::spawn(self.clone().serve_timestamps());
            }
        }
        match tokio::time::timeout_at(deadline, receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Refusal::Unavailable("the timestamp call was given up".to_owned())),
            Err(_) => Err(Refusal::Unavailable("no timestamp from the meta group in time".to_owned())),
        }
    }

    async fn serve_timestamps(self) {
        loop {
            let waiting = {
                let mut queue = self.0.timestamps.lock().unwrap_or_else(PoisonError::into_inner);
                // R1: a call serves those that waited when it was sent; whoever comes later waits for the next.
                let waiting: Vec<_> = queue.waiting.drain(..).filter(|sender| !sender.is_closed()).collect();
                if waiting.is_empty() {
                    queue.in_flight = false;
                    return;
                }
                waiting
            };
            let answer = self.ask_timestamp(Instant::now() + TIMESTAMP_TIMEOUT).await;
            for sender in waiting {
                // A receiver that is gone has run into its own deadline.
                let _ = sender.send(answer.clone());
            }
        }
    }

    async fn ask_timestamp(&self, deadline: Instant) -> TimestampAnswer {
        if let Some(stamp) = self.timestamp_here(deadline).await {
            return Ok(stamp);
        }
        let asked = self.at_leader(deadline, CALL_TIMEOUT, |mut client| async move {
            let response = client.timestamp(wire::TimestampRequest {}).await?.into_inner();
            Ok(match response.not_leader {
                Some(other) => Answer::NotLeader(other.leader),
                None => Answer::Done((Ts(response.timestamp), CatalogVersion(response.version))),
            })
        });
        asked.await.map_err(|error| error.refusal)
    }

    /// From the leader, if it is known and lives in this process.
    async fn timestamp_here(&self, deadline: Instant) -> Option<(Ts, CatalogVersion)> {
        let leader = self.members().leader.clone()?;
        let member = self.0.channels.member(&leader)?;
        tokio::time::timeout_at(deadline, member.timestamp()).await.ok().flatten()
    }

    /// Asks to come into the cluster. `Unavailable` while it is not initialised.
    pub async fn join(&self, request: wire::JoinRequest, deadline: Instant) -> Result<wire::JoinResponse, Refusal> {
        let response = self
            .at_leader(deadline, CALL_TIMEOUT * 4, |mut client| {
                let request = request.clone();
                async move {
                    let response = client.join(request).await?.into_inner();
                    if response.not_initialized {
                        return Ok(Answer::NotLeader(String::new()));
                    }
                    Ok(match response.not_leader {
                        Some(other) => Answer::NotLeader(other.leader),
                        None => Answer::Done(response),
                    })
                }
            })
            .await
            .map_err(|error| error.refusal)?;
        self.learn_addresses(response.access_nodes.iter().cloned());
        Ok(response)
    }

    /// Takes a node out of the cluster.
    pub async fn leave(&self, node: u64, deadline: Instant) -> Result<(), Refusal> {
        let asked = self.at_leader(deadline, CALL_TIMEOUT * 8, |mut client| async move {
            let response = client.leave(wire::LeaveRequest { node }).await?.into_inner();
            Ok(match response.not_leader {
                Some(other) => Answer::NotLeader(other.leader),
                None => Answer::Done(()),
            })
        });
        asked.await.map_err(|error| error.refusal)
    }

    /// The status that the leader sees, or, without a leader, that of any member.
    pub async fn status(&self, deadline: Instant) -> Result<wire::StatusResponse, Refusal> {
        let mut last = None;
        let mut backoff = BACKOFF_MIN;
        loop {
            for address in self.addresses() {
                let Ok(response) =
                    timed(CALL_TIMEOUT, self.client(&address).status(wire::StatusRequest::default())).await
                else {
                    continue;
                };
                let status = response.into_inner();
                if status.leader != 0 && status.leader == status.node {
                    return Ok(status);
                }
                if !status.leader_address.is_empty() {
                    self.learn_addresses([status.leader_address.clone()]);
                }
                last = Some(status);
            }
            if Instant::now() + backoff >= deadline {
                return last.ok_or_else(|| Refusal::Unavailable("no access node answers".to_owned()));
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// A client of the member at `address`.
    #[must_use]
    pub fn client(&self, address: &str) -> WireClient<Channel> {
        WireClient::new(self.0.channels.channel(address))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The member to ask: the leader as far as known, else the members in turn.
    #[must_use]
    pub fn pick_member(&self) -> Option<String> {
        let mut members = self.members();
        if let Some(leader) = &members.leader {
            return Some(leader.clone());
        }
        members.next += 1;
        let index = members.next % members.addresses.len().max(1);
        members.addresses.get(index).cloned()
    }

    /// Forgets the leader if it is still `address`.
    pub fn forget_leader(&self, address: &str) {
        let mut members = self.members();
        if members.leader.as_deref() == Some(address) {
            members.leader = None;
        }
    }

    /// Repeats a call until the leader answers it. `sent` of the error tells whether any attempt may have been applied.
    async fn at_leader<T, F, Fut>(&self, deadline: Instant, call_timeout: Duration, call: F) -> Result<T, SendError>
    where
        F: Fn(WireClient<Channel>) -> Fut,
        Fut: Future<Output = Result<Answer<T>, Status>>,
    {
        let mut sent = false;
        let mut is_anybody_there = false;
        let mut backoff = BACKOFF_MIN;
        loop {
            let unavailable = |reason: &str| Refusal::Unavailable(reason.to_owned());
            let Some(address) = self.pick_member() else {
                return Err(SendError { refusal: unavailable("no access node is known"), sent });
            };
            let call_deadline = deadline.min(Instant::now() + call_timeout);
            match tokio::time::timeout_at(call_deadline, call(self.client(&address))).await {
                Ok(Ok(Answer::Done(value))) => {
                    self.members().leader = Some(address);
                    return Ok(value);
                }
                Ok(Ok(Answer::NotLeader(leader))) => {
                    is_anybody_there = true;
                    self.redirect(&address, leader);
                }
                Ok(Err(status)) => {
                    self.forget_leader(&address);
                    is_anybody_there |= !status.details().is_empty();
                    let error = SendError::of_status(status);
                    let is_unknown = matches!(error.refusal, Refusal::OutcomeUnknown(_));
                    sent |= error.sent || is_unknown;
                    if !is_unknown && !matches!(error.refusal, Refusal::Unavailable(_)) {
                        return Err(SendError { refusal: error.refusal, sent });
                    }
                }
                // Perhaps it did not even come to a connection, which from here cannot be told.
                Err(_) => {
                    self.forget_leader(&address);
                    sent = true;
                }
            }
            if Instant::now() + backoff >= deadline {
                let reason = match (sent, is_anybody_there) {
                    (true, _) => "the meta group gave no answer in time",
                    (false, true) => "the meta group has no leader",
                    (false, false) => "no access node answers",
                };
                return Err(SendError { refusal: unavailable(reason), sent });
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Notes who leads by the word of `asked`.
    fn redirect(&self, asked: &str, leader: String) {
        self.forget_leader(asked);
        if leader.is_empty() || leader == asked {
            return;
        }
        self.learn_addresses([leader.clone()]);
        self.members().leader = Some(leader);
    }

    fn members(&self) -> std::sync::MutexGuard<'_, Members> {
        self.0.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_proposal(&self) -> (u64, u64) {
        let mut proposals = self.0.proposals.lock().unwrap_or_else(PoisonError::into_inner);
        proposals.1 += 1;
        *proposals
    }
}

async fn timed<T>(
    timeout: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}

#[cfg(test)]
mod tests;
