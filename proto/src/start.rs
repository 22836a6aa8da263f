//! Starts of a node's process, and which of two processes that claim to be one node must not act (R3).
//!
//! A folder can be copied. Its copies count their starts alike, so the number alone does not tell them apart: each start
//! also draws a mark, and a folder keeps the marks of its starts since the last one that the cluster heard of. The
//! catalog notes the mark of the start that it heard last. A process whose folder has another start in that place is on
//! a copy.
//!
//! An objection holds whoever makes it, however old its catalog: a start that the catalog heard stays heard.

use std::cmp::Ordering;

use crate::ids::{Incarnation, NodeId, StartMark};

/// A start of a node's process, as its folder tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub mark: StartMark,
    /// Earlier starts of the same folder, since the last one that the cluster is known to have heard of, that one first.
    pub before: Vec<PastStart>,
}

/// An earlier start of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastStart {
    pub incarnation: Incarnation,
    pub mark: StartMark,
}

/// The last start of a node that a catalog knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeardStart {
    pub incarnation: Incarnation,
    pub mark: StartMark,
}

impl Start {
    /// A start that says no more than its number.
    #[must_use]
    pub fn unmarked(node: NodeId, incarnation: Incarnation) -> Self {
        Self { node, incarnation, mark: StartMark::NONE, before: Vec::new() }
    }

    fn mark_of(&self, incarnation: Incarnation) -> Option<StartMark> {
        if incarnation == self.incarnation {
            return Some(self.mark);
        }
        self.before.iter().find(|past| past.incarnation == incarnation).map(|past| past.mark)
    }
}

impl HeardStart {
    /// Why the process of `start` must not act, now that this start was heard.
    #[must_use]
    pub fn objection(&self, start: &Start) -> Option<String> {
        let Start { node, incarnation, .. } = start;
        if incarnation.cmp(&self.incarnation) == Ordering::Less {
            return Some(format!(
                "node {node} was started elsewhere, for start {}; this is start {incarnation}",
                self.incarnation
            ));
        }
        // A start before all that the folder remembers: the cluster heard of a later one of the folder's.
        let own = start.mark_of(self.incarnation)?;
        let is_other = own.is_said() && self.mark.is_said() && own != self.mark;
        is_other.then(|| {
            format!("start {} of node {node} was another process: this data folder is a copy of its", self.incarnation)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(incarnation: u64, mark: u64, before: &[(u64, u64)]) -> Start {
        let past = |(incarnation, mark): &(u64, u64)| PastStart {
            incarnation: Incarnation(*incarnation),
            mark: StartMark(*mark),
        };
        Start {
            node: NodeId(2),
            incarnation: Incarnation(incarnation),
            mark: StartMark(mark),
            before: before.iter().map(past).collect(),
        }
    }

    fn check(heard: (u64, u64), start: &Start, expected: &str) {
        let heard = HeardStart { incarnation: Incarnation(heard.0), mark: StartMark(heard.1) };
        assert_eq!(heard.objection(start).unwrap_or_default(), expected, "{heard:?} {start:?}");
    }

    #[test]
    fn the_folder_of_the_start_that_was_heard_goes_on() {
        check((5, 50), &start(5, 50, &[]), "");
        check((5, 50), &start(6, 60, &[(5, 50)]), "");
        // Several starts while nobody could hear of them.
        check((5, 50), &start(8, 80, &[(5, 50), (6, 60), (7, 70)]), "");
        check((7, 70), &start(8, 80, &[(5, 50), (6, 60), (7, 70)]), "");
    }

    #[test]
    fn a_copy_of_the_folder_does_not() {
        let copy = "start 6 of node 2 was another process: this data folder is a copy of its";
        check((6, 61), &start(6, 60, &[(5, 50)]), copy);
        // Started more often than the other one.
        check((6, 61), &start(9, 90, &[(5, 50), (6, 60), (7, 70), (8, 80)]), copy);
        check((7, 70), &start(6, 60, &[(5, 50)]), "node 2 was started elsewhere, for start 7; this is start 6");
    }

    #[test]
    fn a_catalog_that_is_behind_objects_to_nothing() {
        check((3, 30), &start(8, 80, &[(7, 70)]), "");
        check((3, 30), &start(8, 80, &[]), "");
    }

    #[test]
    fn starts_without_marks_are_told_apart_by_their_number() {
        check((5, 0), &start(5, 50, &[]), "");
        check((5, 50), &Start::unmarked(NodeId(2), Incarnation(5)), "");
        check(
            (6, 0),
            &Start::unmarked(NodeId(2), Incarnation(5)),
            "node 2 was started elsewhere, for start 6; this is start 5",
        );
    }
}
