//! What the leader does beside answering: it judges by heartbeats who lives, brings access nodes into the group and out
//! of it, stops its own heartbeats when it has lost its quorum, and leaves its office to another when its disk is full.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meridian_proto::catalog::{Node, NodeRole, NodeState};
use meridian_proto::command::Command;
use meridian_proto::{CatalogVersion, Incarnation, NodeId, ProducerId, Sequence};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use crate::catalog::Proposal;
use crate::raft::{Failure, Group, Membership, Reign};

/// Pause between heartbeats of a node to the leader, unless said.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// Silence after which a node counts as dead, unless said.
pub const DEAD_AFTER: Duration = Duration::from_secs(2);
/// How often the leader looks, unless nodes are to be dead sooner than that.
const TICK: Duration = Duration::from_millis(250);
/// Longest wait for one of the leader's own proposals.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Entries that a learner may be behind to be made a voter.
const CAUGHT_UP_ENTRIES: u64 = 64;
/// Free space of a disk on which a member leads better than on a full one.
const HANDOVER_BYTES_MIN: u64 = 64 << 20;
/// Pause after a handover that nobody took: while it lasts there are no timestamps.
const HANDOVER_AGAIN: Duration = Duration::from_secs(60);

/// The last sign of life of a node's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    pub at: Instant,
    /// It was a heartbeat; else the leader only began to wait for one.
    pub was_heard: bool,
    pub incarnation: Incarnation,
    pub catalog_version: CatalogVersion,
    pub disk_free_bytes: u64,
    pub disk_used_bytes: u64,
}

/// What nodes report to this leader.
#[derive(Debug, Default)]
pub struct Observed(Mutex<BTreeMap<NodeId, Sign>>);

impl Observed {
    pub fn note(&self, node: NodeId, sign: Sign) {
        self.signs().insert(node, sign);
    }

    #[must_use]
    pub fn sign(&self, node: NodeId) -> Option<Sign> {
        self.signs().get(&node).filter(|sign| sign.was_heard).copied()
    }

    fn clear(&self) {
        self.signs().clear();
    }

    fn signs(&self) -> MutexGuard<'_, BTreeMap<NodeId, Sign>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who changed between alive and dead, by the heartbeats. A process that has just become known has the whole time.
fn judge(
    now: Instant,
    dead_after: Duration,
    nodes: &[Node],
    signs: &mut BTreeMap<NodeId, Sign>,
) -> Vec<(NodeId, NodeState)> {
    let mut changes = Vec::new();
    for node in nodes.iter().filter(|node| node.incarnation > Incarnation(0)) {
        let waiting = Sign {
            at: now,
            was_heard: false,
            incarnation: node.incarnation,
            catalog_version: CatalogVersion(0),
            disk_free_bytes: 0,
            disk_used_bytes: 0,
        };
        let sign = signs.entry(node.id).or_insert(waiting);
        // A heartbeat of an earlier process says nothing of this one.
        if sign.incarnation < node.incarnation {
            *sign = waiting;
        }
        let is_silent = now.duration_since(sign.at) > dead_after;
        match node.state {
            NodeState::Live if is_silent => changes.push((node.id, NodeState::Dead)),
            NodeState::Dead if !is_silent && sign.was_heard && sign.incarnation == node.incarnation => {
                changes.push((node.id, NodeState::Live));
            }
            _ => {}
        }
    }
    changes
}

/// One step that brings the group's membership nearer to the catalog's access nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    AddLearner(NodeId, String),
    SetVoters(BTreeSet<u64>),
    RemoveLearner(NodeId),
    /// Out of the group already: out of the catalog.
    RemoveNode(NodeId),
}

fn next_step(access: &[Node], membership: &Membership, last_index: u64, voters_max: usize) -> Option<Step> {
    let stays = |id: u64| access.iter().any(|node| node.id.0 == id && node.state != NodeState::Draining);
    let is_caught_up =
        |id: &u64| membership.matched.get(id).is_some_and(|matched| matched + CAUGHT_UP_ENTRIES >= last_index);
    let lives = |id: &u64| access.iter().any(|node| node.id.0 == *id && node.state == NodeState::Live);
    let mut promotable = membership.learners.iter().filter(|id| lives(id) && is_caught_up(id));

    let mut voters: BTreeSet<u64> = membership.voters.iter().copied().filter(|id| stays(*id)).collect();
    if voters.len() < voters_max
        && let Some(learner) = promotable.next()
    {
        voters.insert(*learner);
    }
    // A change that an earlier leader left half done is finished by asking for it again.
    if !voters.is_empty() && (voters != membership.voters || membership.is_changing) {
        return Some(Step::SetVoters(voters));
    }
    if let Some(id) = membership.learners.iter().find(|id| !stays(**id)) {
        return Some(Step::RemoveLearner(NodeId(*id)));
    }
    let is_member = |id: NodeId| membership.voters.contains(&id.0) || membership.learners.contains(&id.0);
    let outside = access.iter().find(|node| !is_member(node.id))?;
    Some(match outside.state {
        NodeState::Draining => Step::RemoveNode(outside.id),
        NodeState::Live | NodeState::Dead => Step::AddLearner(outside.id, outside.address.clone()),
    })
}

/// Runs while the member does; acts while it leads.
pub async fn run(group: Group, observed: Arc<Observed>, voters_max: usize, dead_after: Duration) {
    let mut ticks = tokio::time::interval(TICK.min(dead_after / 4));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reign: Option<Reign> = None;
    let lease_length = group.intervals().election_max * 2;
    let mut lease = Lease::new(lease_length, Instant::now());
    let mut handover = Handover::new(lease_length * 3);
    let mut is_beating = true;
    loop {
        ticks.tick().await;
        lease.step(group.quorum_silence(), Instant::now());
        let is_unfit = reign.is_some() && is_unfit(&group, &observed, dead_after);
        group.set_resting(handover.step(is_unfit, Instant::now()));
        let should_beat = lease.is_sending && !handover.is_resting();
        if should_beat != is_beating {
            is_beating = should_beat;
            warn!(enabled = is_beating, is_unfit, "heartbeats of the meta leader");
            group.set_heartbeats(is_beating);
        }
        let now_reign = group.reign();
        if now_reign != reign {
            reign = now_reign;
            observed.clear();
        }
        if reign.is_none() {
            continue;
        }
        let nodes: Vec<Node> = group.read(|state| state.catalog.nodes().map(|node| Node::clone(node)).collect());
        let changes = judge(Instant::now(), dead_after, &nodes, &mut observed.signs());
        for (node, state) in changes {
            info!(%node, state = state.name(), "node changes state");
            attempt(&group, Command::SetNodeState { node, state }).await;
        }
        let access: Vec<Node> = nodes.into_iter().filter(|node| node.role == NodeRole::Access).collect();
        if let Some(step) = next_step(&access, &group.membership(), group.last_index(), voters_max) {
            take(&group, step).await;
        }
    }
}

/// Whether this leader's disk is full, and another voter has space and all entries.
fn is_unfit(group: &Group, observed: &Observed, dead_after: Duration) -> bool {
    if !group.is_short_of_space() {
        return false;
    }
    let now = Instant::now();
    let (membership, last_index) = (group.membership(), group.last_index());
    let can_lead = |sign: &Sign| {
        let is_heard = sign.was_heard && now.duration_since(sign.at) <= dead_after;
        is_heard && sign.disk_free_bytes >= HANDOVER_BYTES_MIN
    };
    let signs = observed.signs();
    others_caught_up(&membership, group.node(), last_index).any(|node| signs.get(&node).is_some_and(can_lead))
}

/// Voters beside `own` that have about all entries.
fn others_caught_up(membership: &Membership, own: NodeId, last_index: u64) -> impl Iterator<Item = NodeId> {
    let others = membership.voters.iter().filter(move |id| **id != own.0);
    let is_caught_up =
        move |id: &&u64| membership.matched.get(id).is_some_and(|matched| matched + CAUGHT_UP_ENTRIES >= last_index);
    others.filter(is_caught_up).map(|id| NodeId(*id))
}

async fn take(group: &Group, step: Step) {
    info!(?step, "membership of the meta group");
    let taken = async {
        match &step {
            Step::AddLearner(node, address) => group.add_learner(*node, address).await,
            Step::SetVoters(voters) => group.set_voters(voters.clone()).await,
            Step::RemoveLearner(node) => group.remove_learner(*node).await,
            Step::RemoveNode(node) => {
                attempt(group, Command::RemoveNode { node: *node }).await;
                Ok(())
            }
        }
    };
    let late = Failure::Unavailable("no quorum in time".to_owned());
    if let Err(failure) = tokio::time::timeout(STEP_TIMEOUT, taken).await.unwrap_or(Err(late)) {
        // The next tick looks at what became of it.
        warn!(?step, ?failure, "membership step not taken");
    }
}

async fn attempt(group: &Group, command: Command) {
    let proposal = Proposal { producer: ProducerId(0), sequence: Sequence(0), command };
    match tokio::time::timeout(STEP_TIMEOUT, group.propose(&proposal)).await {
        Ok(Ok((answer, _))) => {
            if let Err(refusal) = answer.outcome {
                warn!(command = ?proposal.command, %refusal, "the leader's own command is refused");
            }
        }
        Ok(Err(failure)) => warn!(command = ?proposal.command, ?failure, "the leader's own command failed"),
        Err(_) => warn!(command = ?proposal.command, "the leader's own command got no quorum in time"),
    }
}

/// The leader's lease. Raft as it is here neither steps down nor asks before it votes: a leader that still reaches its
/// followers, but does not hear them, would keep them from electing another one for ever.
struct Lease {
    length: Duration,
    is_sending: bool,
    /// When heartbeats were last stopped or begun.
    since: Instant,
}

impl Lease {
    fn new(length: Duration, now: Instant) -> Self {
        Self { length, is_sending: true, since: now }
    }

    /// Whether to send from now on; `silence` is the time since a quorum last answered.
    fn step(&mut self, silence: Option<Duration>, now: Instant) -> bool {
        let is_lost = silence.is_some_and(|silence| silence > self.length);
        let elapsed = now.duration_since(self.since);
        let changes = match self.is_sending {
            // Heartbeats that have just begun again get the time to be answered.
            true => is_lost && elapsed > self.length,
            // After the time of an election it tries again: perhaps there was nobody to elect another one.
            false => !is_lost || elapsed > self.length * 3,
        };
        if changes {
            *self = Self { length: self.length, is_sending: !self.is_sending, since: now };
        }
        self.is_sending
    }
}

/// A leader on a full disk rests: it answers nothing and sends no heartbeat, so that the others elect one that can take
/// what is new. Raft as it is here has no other way to hand over.
struct Handover {
    /// Of one rest; the time of an election.
    length: Duration,
    resting_since: Option<Instant>,
    not_before: Option<Instant>,
}

impl Handover {
    fn new(length: Duration) -> Self {
        Self { length, resting_since: None, not_before: None }
    }

    fn is_resting(&self) -> bool {
        self.resting_since.is_some()
    }

    /// Whether to rest from now on. `is_unfit`: it leads, and another one could do it better.
    fn step(&mut self, is_unfit: bool, now: Instant) -> bool {
        let Some(since) = self.resting_since else {
            let may_rest = self.not_before.is_none_or(|not_before| now >= not_before);
            self.resting_since = (is_unfit && may_rest).then_some(now);
            return self.is_resting();
        };
        if !is_unfit {
            self.resting_since = None;
        } else if now.duration_since(since) > self.length {
            // Nobody wanted: better a leader that takes little than none.
            self.resting_since = None;
            self.not_before = Some(now + HANDOVER_AGAIN);
        }
        self.is_resting()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, state: NodeState) -> Node {
        Node {
            id: NodeId(id),
            role: NodeRole::Access,
            address: format!("a:{id}"),
            sql_address: None,
            name: format!("an{id}"),
            incarnation: Incarnation(1),
            shards: 0,
            state,
        }
    }

    fn members(voters: &[u64], learners: &[u64], matched: u64) -> Membership {
        Membership {
            voters: voters.iter().copied().collect(),
            learners: learners.iter().copied().collect(),
            matched: voters.iter().chain(learners).map(|id| (*id, matched)).collect(),
            is_changing: false,
        }
    }

    fn live(ids: &[u64]) -> Vec<Node> {
        ids.iter().map(|id| node(*id, NodeState::Live)).collect()
    }

    #[test]
    fn a_new_access_node_learns_first_and_votes_when_it_has_caught_up() {
        let access = live(&[1, 2]);
        let step = |membership: &Membership| next_step(&access, membership, 500, 3);
        assert_eq!(step(&members(&[1], &[], 500)), Some(Step::AddLearner(NodeId(2), "a:2".into())));
        assert_eq!(step(&members(&[1], &[2], 100)), None);
        assert_eq!(step(&members(&[1], &[2], 490)), Some(Step::SetVoters([1, 2].into())));
        assert_eq!(step(&members(&[1, 2], &[], 500)), None);
    }

    #[test]
    fn further_access_nodes_stay_learners_until_a_voter_leaves() {
        let mut access = live(&[1, 2, 3, 4]);
        let membership = members(&[1, 2, 3], &[4], 10);
        assert_eq!(next_step(&access, &membership, 10, 3), None);
        access[1].state = NodeState::Draining;
        assert_eq!(next_step(&access, &membership, 10, 3), Some(Step::SetVoters([1, 3, 4].into())));
    }

    #[test]
    fn who_leaves_goes_out_of_the_votes_then_of_the_group_then_of_the_catalog() {
        let access = [node(1, NodeState::Live), node(2, NodeState::Draining)];
        let step = |membership: &Membership| next_step(&access, membership, 10, 3);
        assert_eq!(step(&members(&[1, 2], &[], 10)), Some(Step::SetVoters([1].into())));
        assert_eq!(step(&members(&[1], &[2], 10)), Some(Step::RemoveLearner(NodeId(2))));
        assert_eq!(step(&members(&[1], &[], 10)), Some(Step::RemoveNode(NodeId(2))));
    }

    #[test]
    fn the_last_voter_leaves_only_when_a_learner_can_follow() {
        let access = [node(1, NodeState::Draining), node(2, NodeState::Live)];
        let step = |matched| next_step(&access, &members(&[1], &[2], matched), 500, 3);
        assert_eq!(step(10), None);
        assert_eq!(step(500), Some(Step::SetVoters([2].into())));
    }

    #[test]
    fn a_half_done_change_is_finished() {
        let membership = Membership { is_changing: true, ..members(&[1, 2], &[], 10) };
        assert_eq!(next_step(&live(&[1, 2]), &membership, 10, 3), Some(Step::SetVoters([1, 2].into())));
    }

    #[test]
    fn silence_makes_dead_and_a_heartbeat_of_the_same_process_alive_again() {
        let start = Instant::now();
        let mut signs = BTreeMap::new();
        let mut nodes = live(&[5]);
        let judge = |now, nodes: &[Node], signs: &mut BTreeMap<_, _>| judge(now, DEAD_AFTER, nodes, signs);
        assert_eq!(judge(start, &nodes, &mut signs), []);
        assert_eq!(judge(start + DEAD_AFTER, &nodes, &mut signs), []);
        let late = start + DEAD_AFTER + TICK;
        assert_eq!(judge(late, &nodes, &mut signs), [(NodeId(5), NodeState::Dead)]);
        nodes[0].state = NodeState::Dead;
        assert_eq!(judge(late, &nodes, &mut signs), []);
        let mut heard = Sign { at: late, was_heard: true, incarnation: Incarnation(0), ..signs[&NodeId(5)] };
        signs.insert(NodeId(5), heard);
        assert_eq!(judge(late, &nodes, &mut signs), [], "an earlier process was heard");
        heard.incarnation = Incarnation(1);
        signs.insert(NodeId(5), heard);
        assert_eq!(judge(late, &nodes, &mut signs), [(NodeId(5), NodeState::Live)]);
    }

    #[test]
    fn how_long_a_node_may_be_silent_is_said_from_outside() {
        let start = Instant::now();
        for dead_after in [Duration::from_millis(200), Duration::from_secs(60)] {
            let mut signs = BTreeMap::new();
            assert_eq!(judge(start, dead_after, &live(&[5]), &mut signs), []);
            assert_eq!(judge(start + dead_after, dead_after, &live(&[5]), &mut signs), []);
            let late = start + dead_after + Duration::from_millis(1);
            assert_eq!(judge(late, dead_after, &live(&[5]), &mut signs), [(NodeId(5), NodeState::Dead)]);
        }
    }

    #[test]
    fn a_leader_without_quorum_stops_its_heartbeats_and_tries_again_later() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut lease = Lease::new(second, start);
        assert!(lease.step(None, start + 9 * second), "it leads nobody");
        assert!(lease.step(Some(second), start + 9 * second));
        assert!(!lease.step(Some(2 * second), start + 10 * second));
        assert!(!lease.step(Some(3 * second), start + 11 * second));
        assert!(lease.step(Some(6 * second), start + 14 * second));
        assert!(lease.step(Some(7 * second), start + 15 * second), "the answer is on its way");
        assert!(!lease.step(Some(8 * second), start + 16 * second));
        assert!(lease.step(Some(second), start + 17 * second), "it is heard again");
    }

    #[test]
    fn a_leader_on_a_full_disk_rests_until_another_one_leads() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut handover = Handover::new(4 * second);
        assert!(!handover.step(false, start));
        assert!(handover.step(true, start + second));
        assert!(handover.step(true, start + 5 * second), "there is an election");
        assert!(!handover.step(false, start + 6 * second), "it follows");
        assert!(handover.step(true, start + 7 * second), "it leads again");
    }

    #[test]
    fn a_leader_in_whose_place_nobody_comes_goes_on_for_a_while() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut handover = Handover::new(4 * second);
        assert!(handover.step(true, start));
        assert!(!handover.step(true, start + 5 * second));
        assert!(!handover.step(true, start + 4 * second + HANDOVER_AGAIN));
        assert!(handover.step(true, start + 5 * second + HANDOVER_AGAIN));
    }

    #[test]
    fn only_voters_that_have_caught_up_can_take_over() {
        let others = |matched| {
            let membership = members(&[1, 2, 3], &[4], matched);
            others_caught_up(&membership, NodeId(1), 500).collect::<Vec<_>>()
        };
        assert_eq!(others(490), [NodeId(2), NodeId(3)]);
        assert_eq!(others(100), []);
    }

    #[test]
    fn a_node_that_never_started_is_not_judged() {
        let never = Node { incarnation: Incarnation(0), ..node(5, NodeState::Dead) };
        assert_eq!(judge(Instant::now(), DEAD_AFTER, &[never], &mut BTreeMap::new()), []);
    }
}
