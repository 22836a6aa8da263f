//! The timestamp oracle: [`Oracle`] decides, [`Timestamps`] runs it on the leader.
//!
//! R1 in steps: a window of timestamps is an entry of the log, so no two leaders ever have the same one; a timestamp is
//! taken from the window first, then the commit index is read and a quorum confirms the leadership *of the reign whose
//! window it is*, then that index is waited for, then (timestamp, catalog version) is answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meridian_proto::command::Command;
use meridian_proto::{CatalogVersion, ProducerId, Sequence, Ts};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use crate::catalog::Proposal;
use crate::raft::{Failure, Group, Reign};

/// Timestamps of one window. At a million statements a second an entry per second.
pub const WINDOW: u64 = 1_000_000;
/// Calls waiting for their round.
const WAITING_MAX: usize = 4096;
/// Rounds tried for one batch before the callers are told: each loses at most the time of one heartbeat.
const ATTEMPTS: usize = 4;
/// Longest wait for an entry with a new window.
const EXTEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Which timestamps may be given. Pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oracle {
    window: Option<Window>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    /// The leadership that has it; another one of the same node has another window.
    reign: Reign,
    next: u64,
    upto: u64,
}

impl Oracle {
    /// An entry of `reign` was applied that makes the timestamps after `before`, up to `upto`, its own.
    pub fn extend(&mut self, reign: Reign, before: Ts, upto: Ts) {
        assert!(before < upto, "a window has timestamps");
        match &mut self.window {
            Some(window) if window.reign > reign => {}
            Some(window) if window.reign == reign && window.upto == before.0 => window.upto = upto.0,
            Some(window) if window.reign == reign && window.upto > before.0 => {}
            _ => self.window = Some(Window { reign, next: before.0 + 1, upto: upto.0 }),
        }
    }

    /// The first of `count` successive timestamps, if the reign's window has them.
    pub fn allocate(&mut self, reign: Reign, count: u64) -> Option<Ts> {
        let window = self.window.as_mut().filter(|window| window.reign == reign)?;
        let first = window.next;
        let next = first.checked_add(count).filter(|next| *next <= window.upto + 1)?;
        window.next = next;
        Some(Ts(first))
    }

    /// Whether the reign should ask for a further window by now.
    #[must_use]
    pub fn wants_more(&self, reign: Reign) -> bool {
        let window = self.window.filter(|window| window.reign == reign);
        window.is_none_or(|window| window.upto.saturating_sub(window.next) < WINDOW / 2)
    }
}

/// A timestamp, and the catalog version that a statement at it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub timestamp: Ts,
    pub version: CatalogVersion,
}

type Waiter = oneshot::Sender<Result<Stamp, Failure>>;

/// The oracle of this member; answers while it leads.
#[derive(Clone)]
pub struct Timestamps(mpsc::Sender<Waiter>);

impl Timestamps {
    /// Starts the task that runs the rounds.
    #[must_use]
    pub fn start(group: Group) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let runner = Runner { group, oracle: Arc::default(), extending: Arc::default() };
        (Self(sender), tokio::spawn(runner.run(receiver)))
    }

    /// A timestamp above every one answered before this was called.
    ///
    /// # Errors
    /// When this member does not lead, or no quorum confirms it.
    pub async fn next(&self) -> Result<Stamp, Failure> {
        let (sender, receiver) = oneshot::channel();
        let overloaded = |_| Failure::Unavailable("too many statements wait for a timestamp".to_owned());
        self.0.try_send(sender).map_err(overloaded)?;
        receiver.await.unwrap_or_else(|_| Err(Failure::Unavailable("the meta group stops".to_owned())))
    }
}

#[derive(Clone)]
struct Runner {
    group: Group,
    oracle: Arc<Mutex<Oracle>>,
    /// An entry with a further window is under way.
    extending: Arc<AtomicBool>,
}

impl Runner {
    async fn run(self, mut waiting: mpsc::Receiver<Waiter>) {
        let mut known = None;
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                count = waiting.recv_many(&mut batch, WAITING_MAX) => {
                    if count == 0 {
                        return;
                    }
                    self.serve(&mut batch).await;
                }
                () = self.group.reign_changed(known) => {
                    known = self.group.reign();
                    // A new leader has its window before the first statement asks.
                    known.into_iter().for_each(|reign| self.extend_ahead(reign));
                }
            }
        }
    }

    /// One round for all who wait now; who comes later waits for the next.
    async fn serve(&self, batch: &mut Vec<Waiter>) {
        let round = self.round(batch.len() as u64).await;
        for (offset, waiter) in (0..).zip(batch.drain(..)) {
            let stamp = round.clone().map(|first| Stamp { timestamp: Ts(first.timestamp.0 + offset), ..first });
            // Who has gone meanwhile does not want it.
            let _ = waiter.send(stamp);
        }
    }

    async fn round(&self, count: u64) -> Result<Stamp, Failure> {
        let mut failure = Failure::Unavailable("the leader has changed".to_owned());
        for _ in 0..ATTEMPTS {
            let Some(reign) = self.group.reign() else {
                return Err(Failure::NotLeader(self.group.leader_address()));
            };
            // R1: first the timestamp, then the commit index and the confirmation.
            let timestamp = self.allocate(reign, count).await?;
            match self.group.confirm().await {
                Ok(confirmed) if confirmed.reign == reign => {
                    self.group.wait_applied(confirmed.index).await?;
                    let version = self.group.read(|state| state.catalog.version());
                    return Ok(Stamp { timestamp, version });
                }
                // Deposed and elected again in between: the timestamp is from a window of long ago.
                Ok(confirmed) => debug!(?reign, now = ?confirmed.reign, "another reign was confirmed"),
                Err(Failure::Unavailable(reason)) => failure = Failure::Unavailable(reason),
                Err(failure) => return Err(failure),
            }
        }
        Err(failure)
    }

    async fn allocate(&self, reign: Reign, count: u64) -> Result<Ts, Failure> {
        loop {
            let (first, wants_more) = {
                let mut oracle = self.oracle.lock().unwrap_or_else(PoisonError::into_inner);
                (oracle.allocate(reign, count), oracle.wants_more(reign))
            };
            match first {
                Some(first) => {
                    if wants_more {
                        self.extend_ahead(reign);
                    }
                    return Ok(first);
                }
                None if self.group.reign() == Some(reign) => self.extend().await?,
                None => return Err(Failure::NotLeader(self.group.leader_address())),
            }
        }
    }

    /// Asks for a further window without waiting, unless that is under way.
    fn extend_ahead(&self, reign: Reign) {
        if self.extending.swap(true, Ordering::AcqRel) {
            return;
        }
        let runner = self.clone();
        tokio::spawn(async move {
            if let Err(failure) = runner.extend().await {
                warn!(?reign, ?failure, "no further window of timestamps");
            }
            runner.extending.store(false, Ordering::Release);
        });
    }

    async fn extend(&self) -> Result<(), Failure> {
        let upto = Ts(self.group.read(|state| state.catalog.oracle_upto()).0 + WINDOW);
        let proposal =
            Proposal { producer: ProducerId(0), sequence: Sequence(0), command: Command::ExtendOracle { upto } };
        let proposed = tokio::time::timeout(EXTEND_TIMEOUT, self.group.propose(&proposal)).await;
        let late = |_| Failure::Unavailable("no quorum takes the next window of timestamps".to_owned());
        let (answer, reign) = proposed.map_err(late)??;
        // Refused: another window was applied since it was read. The caller looks again.
        if answer.outcome.is_ok() {
            self.oracle.lock().unwrap_or_else(PoisonError::into_inner).extend(reign, answer.oracle_before, upto);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use meridian_proto::NodeId;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn reign(term: u64, leader: u64) -> Reign {
        Reign { term, leader: NodeId(leader) }
    }

    #[test]
    fn timestamps_go_up_within_the_window_and_end_with_it() {
        let mut oracle = Oracle::default();
        assert_eq!(oracle.allocate(reign(1, 1), 1), None);
        oracle.extend(reign(1, 1), Ts(0), Ts(3));
        assert_eq!(oracle.allocate(reign(1, 1), 2), Some(Ts(1)));
        assert_eq!(oracle.allocate(reign(1, 1), 2), None);
        assert_eq!(oracle.allocate(reign(1, 1), 1), Some(Ts(3)));
        oracle.extend(reign(1, 1), Ts(3), Ts(5));
        assert_eq!(oracle.allocate(reign(1, 1), 2), Some(Ts(4)));
    }

    #[test]
    fn a_window_serves_only_the_reign_that_has_it() {
        let mut oracle = Oracle::default();
        oracle.extend(reign(1, 1), Ts(0), Ts(10));
        assert_eq!(oracle.allocate(reign(3, 1), 1), None);
        oracle.extend(reign(3, 1), Ts(20), Ts(30));
        assert_eq!(oracle.allocate(reign(3, 1), 1), Some(Ts(21)));
        // A late answer of the old reign changes nothing.
        oracle.extend(reign(1, 1), Ts(30), Ts(40));
        assert_eq!(oracle.allocate(reign(3, 1), 1), Some(Ts(22)));
    }

    #[test]
    fn more_is_wanted_when_half_is_used() {
        let mut oracle = Oracle::default();
        assert!(oracle.wants_more(reign(1, 1)));
        oracle.extend(reign(1, 1), Ts(0), Ts(WINDOW));
        assert!(!oracle.wants_more(reign(1, 1)));
        oracle.allocate(reign(1, 1), WINDOW / 2 + 1);
        assert!(oracle.wants_more(reign(1, 1)));
    }

    /// Leaders come and go; each extends from the applied state, which is the same for all.
    #[test]
    fn no_timestamp_is_given_twice_or_goes_back_under_any_seed() {
        for seed in 0..300 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut oracles = vec![Oracle::default(); 3];
            let (mut upto, mut last, mut now) = (0, 0, reign(1, 0));
            for _ in 0..200 {
                let leader = now.leader.0 as usize;
                match random.random_range(0..10) {
                    0 => now = reign(now.term + random.random_range(0..2), random.random_range(0..3)).max(now),
                    1..3 => {
                        let before = upto;
                        upto += random.random_range(1..5);
                        oracles[leader].extend(now, Ts(before), Ts(upto));
                    }
                    _ => {
                        if let Some(first) = oracles[leader].allocate(now, 1) {
                            assert!(first.0 > last, "seed {seed}: {first} after {last}");
                            last = first.0;
                        }
                    }
                }
            }
        }
    }
}
