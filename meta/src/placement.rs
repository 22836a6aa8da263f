//! Which nodes hold the slots of a placement group. A pure function of the nodes and of where the slots are now, and
//! idempotent: what it answered is what it answers again.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use meridian_proto::NodeId;

/// Nodes of each slot, primary first.
pub type Placement = Vec<Vec<NodeId>>;

/// A node that slots may be put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub node: NodeId,
    /// Share of the slots that it should get, relative to the others: its shards.
    pub weight: u32,
    /// Slots of other groups on it; decides between nodes that are equal within the group.
    pub load: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub candidates: Vec<Candidate>,
    pub slot_count: usize,
    /// Wanted nodes per slot; with fewer candidates every slot is on all of them.
    pub copies: usize,
    /// Slots hold nothing yet and may leave the nodes they are on for an even spread.
    pub may_move: bool,
}

/// How good a placement is; less is better, the first field decides first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// Nodes that slots are short of.
    pub missing: usize,
    /// Slots by which the fullest node leads more than the emptiest one, per weight, in 1/1000.
    pub primary_spread: u64,
    /// The same for all copies.
    pub copy_spread: u64,
    /// Slots whose primary is another one than before.
    pub moved: usize,
}

/// Places every slot: those that lie well stay, gaps are filled with the emptiest nodes.
#[must_use]
pub fn place(problem: &Problem, previous: &Placement) -> Placement {
    let mut draft = Draft::new(problem, previous);
    draft.fill();
    if problem.may_move {
        draft.level();
    }
    draft.slots
}

/// The score of `placement`.
#[must_use]
pub fn score(problem: &Problem, previous: &Placement, placement: &Placement) -> Score {
    let copies = problem.copies.min(problem.candidates.len());
    let spread = |of: &dyn Fn(&[NodeId], NodeId) -> bool| {
        let share = |candidate: &Candidate| {
            let held = placement.iter().filter(|nodes| of(nodes, candidate.node)).count() as u64;
            held * 1000 / u64::from(candidate.weight.max(1))
        };
        let shares: Vec<u64> = problem.candidates.iter().map(share).collect();
        shares.iter().max().unwrap_or(&0) - shares.iter().min().unwrap_or(&0)
    };
    Score {
        missing: placement.iter().map(|nodes| copies.saturating_sub(nodes.len())).sum(),
        primary_spread: spread(&|nodes, node| nodes.first() == Some(&node)),
        copy_spread: spread(&|nodes, node| nodes.contains(&node)),
        moved: placement
            .iter()
            .zip(previous)
            .filter(|(now, then)| !then.is_empty() && now.first() != then.first())
            .count(),
    }
}

/// A placement in the making, with the count of what each node has.
struct Draft<'a> {
    problem: &'a Problem,
    copies: usize,
    slots: Placement,
    primaries: BTreeMap<NodeId, u64>,
    held: BTreeMap<NodeId, u64>,
}

impl<'a> Draft<'a> {
    /// What of `previous` can stay.
    fn new(problem: &'a Problem, previous: &Placement) -> Self {
        let copies = problem.copies.min(problem.candidates.len());
        let known = |node: &NodeId| problem.candidates.iter().any(|candidate| candidate.node == *node);
        let mut slots: Placement = previous.iter().take(problem.slot_count).cloned().collect();
        slots.resize(problem.slot_count, Vec::new());
        for nodes in &mut slots {
            nodes.retain(known);
            nodes.truncate(copies);
        }
        let mut draft = Self { problem, copies, slots, primaries: BTreeMap::new(), held: BTreeMap::new() };
        draft.count();
        draft
    }

    fn count(&mut self) {
        for nodes in &self.slots {
            if let Some(primary) = nodes.first() {
                *self.primaries.entry(*primary).or_default() += 1;
            }
            for node in nodes {
                *self.held.entry(*node).or_default() += 1;
            }
        }
    }

    fn fill(&mut self) {
        for slot in 0..self.slots.len() {
            while self.slots[slot].len() < self.copies {
                let counts = if self.slots[slot].is_empty() { &self.primaries } else { &self.held };
                let Some(node) = self.emptiest(counts, &self.slots[slot]) else { break };
                if self.slots[slot].is_empty() {
                    *self.primaries.entry(node).or_default() += 1;
                }
                *self.held.entry(node).or_default() += 1;
                self.slots[slot].push(node);
            }
        }
    }

    /// The node with the least for its weight, which is not among `taken`.
    fn emptiest(&self, counts: &BTreeMap<NodeId, u64>, taken: &[NodeId]) -> Option<NodeId> {
        let free = self.problem.candidates.iter().filter(|candidate| !taken.contains(&candidate.node));
        let fullness = |candidate: &&Candidate| {
            let weight = u64::from(candidate.weight.max(1));
            let count = counts.get(&candidate.node).copied().unwrap_or(0);
            ((count + 1) * 1_000_000 / weight, candidate.load * 1000 / weight, Reverse(weight), candidate.node)
        };
        free.min_by_key(fullness).map(|candidate| candidate.node)
    }

    /// Takes primaries from the fullest node to the emptiest until that no longer helps.
    fn level(&mut self) {
        while let Some((slot, target)) = self.pick_move() {
            let source = self.slots[slot][0];
            let nodes = &mut self.slots[slot];
            match nodes.iter().position(|node| *node == target) {
                Some(at) => nodes.swap(0, at),
                None => {
                    nodes[0] = target;
                    *self.held.entry(source).or_default() -= 1;
                    *self.held.entry(target).or_default() += 1;
                }
            }
            *self.primaries.entry(source).or_default() -= 1;
            *self.primaries.entry(target).or_default() += 1;
        }
    }

    /// A slot of the fullest node, and the emptiest node, if the move leaves the receiver emptier than the giver was.
    fn pick_move(&self) -> Option<(usize, NodeId)> {
        let share = |candidate: &Candidate, extra: u64| {
            let count = self.primaries.get(&candidate.node).copied().unwrap_or(0);
            (count + extra) * 1_000_000 / u64::from(candidate.weight.max(1))
        };
        let fullest = self.problem.candidates.iter().max_by_key(|c| (share(c, 0), c.node))?;
        let emptiest = self.problem.candidates.iter().min_by_key(|c| (share(c, 1), c.node))?;
        if share(emptiest, 1) >= share(fullest, 0) {
            return None;
        }
        let slot = self.slots.iter().rposition(|nodes| nodes.first() == Some(&fullest.node))?;
        Some((slot, emptiest.node))
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn candidate(node: u64, weight: u32) -> Candidate {
        Candidate { node: NodeId(node), weight, load: 0 }
    }

    fn problem(nodes: &[(u64, u32)], slot_count: usize, copies: usize) -> Problem {
        let candidates = nodes.iter().map(|(node, weight)| candidate(*node, *weight)).collect();
        Problem { candidates, slot_count, copies, may_move: true }
    }

    fn primaries(placement: &Placement, node: u64) -> usize {
        placement.iter().filter(|nodes| nodes.first() == Some(&NodeId(node))).count()
    }

    #[test]
    fn slots_alternate_between_equal_nodes() {
        let placement = place(&problem(&[(4, 2), (5, 2), (6, 2)], 6, 1), &vec![]);
        let expected: Placement = [4, 5, 6, 4, 5, 6].map(|node| vec![NodeId(node)]).to_vec();
        assert_eq!(placement, expected);
    }

    #[test]
    fn a_node_with_more_shards_gets_more_slots() {
        let placement = place(&problem(&[(4, 1), (5, 3)], 16, 1), &vec![]);
        assert_eq!((primaries(&placement, 4), primaries(&placement, 5)), (4, 12));
    }

    #[test]
    fn slots_with_data_stay_when_a_node_comes() {
        let before = place(&problem(&[(4, 1), (5, 1)], 16, 1), &vec![]);
        let more = Problem { may_move: false, ..problem(&[(4, 1), (5, 1), (6, 1)], 16, 1) };
        assert_eq!(place(&more, &before), before);
        assert_eq!(primaries(&place(&Problem { may_move: true, ..more }, &before), 6), 5);
    }

    #[test]
    fn only_the_slots_of_a_lost_node_move() {
        let before = place(&problem(&[(4, 1), (5, 1), (6, 1)], 12, 1), &vec![]);
        let fewer = Problem { may_move: false, ..problem(&[(4, 1), (6, 1)], 12, 1) };
        let after = place(&fewer, &before);
        assert_eq!(score(&fewer, &before, &after).moved, 4);
        assert_eq!((primaries(&after, 4), primaries(&after, 6)), (6, 6));
    }

    #[test]
    fn without_nodes_every_slot_is_empty() {
        assert_eq!(place(&problem(&[], 2, 2), &vec![vec![NodeId(1)]]), vec![vec![]; 2]);
    }

    #[test]
    fn a_single_slot_goes_to_the_node_with_the_least_of_other_groups() {
        let mut problem = problem(&[(4, 1), (5, 1)], 1, 1);
        problem.candidates[0].load = 3;
        assert_eq!(place(&problem, &vec![]), vec![vec![NodeId(5)]]);
    }

    fn random_problem(random: &mut ChaCha8Rng) -> Problem {
        let nodes = random.random_range(0..9);
        let candidates = (0..nodes)
            .map(|node| Candidate {
                node: NodeId(node + 1),
                weight: random.random_range(1..9),
                load: random.random_range(0..50),
            })
            .collect();
        Problem {
            candidates,
            slot_count: 1 << random.random_range(0..7),
            copies: random.random_range(1..4),
            may_move: random.random_bool(0.5),
        }
    }

    #[test]
    fn every_seed_gives_a_whole_stable_and_even_placement() {
        for seed in 0..500 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let first = random_problem(&mut random);
            let before = place(&first, &vec![]);
            let mut second = random_problem(&mut random);
            second.slot_count = first.slot_count;
            let after = place(&second, &before);

            let scored = score(&second, &before, &after);
            assert_eq!(scored.missing, 0, "seed {seed}");
            assert_eq!(place(&second, &after), after, "seed {seed}: not idempotent");
            for nodes in &after {
                let mut unique = nodes.clone();
                unique.sort();
                unique.dedup();
                assert_eq!(unique.len(), nodes.len(), "seed {seed}: a node twice");
            }
            if second.may_move && !second.candidates.is_empty() {
                // No move of one slot makes the fullest node less full than the receiver becomes.
                assert!(Draft::new(&second, &after).pick_move().is_none(), "seed {seed}");
            }
            if !second.may_move {
                let survives =
                    |nodes: &Vec<NodeId>| nodes.first().is_some_and(|n| n.0 <= second.candidates.len() as u64);
                let kept =
                    before.iter().zip(&after).filter(|(then, _)| survives(then)).all(|(then, now)| then[0] == now[0]);
                assert!(kept, "seed {seed}: moved without need");
            }
        }
    }
}
