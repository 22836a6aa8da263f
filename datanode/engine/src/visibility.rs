//! What a reader sees: rows committed at or below its snapshot, stages that it knows to be, and its own earlier commands.

use std::collections::BTreeMap;

use meridian_proto::{CommandId, TransactionId, Ts};

use crate::scan::Scan;

#[derive(Clone, Debug, Default)]
pub struct View {
    pub snapshot: Ts,
    pub own: Option<(TransactionId, CommandId)>,
    /// Outcomes that the reader learned from holders.
    pub resolved: BTreeMap<TransactionId, Ts>,
}

/// What is known here of a staged transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Undecided,
    Committed(Ts),
    Aborted,
}

impl View {
    #[must_use]
    pub fn of(scan: &Scan) -> Self {
        Self { snapshot: scan.snapshot, own: scan.own, resolved: scan.resolved.iter().copied().collect() }
    }

    #[must_use]
    pub fn sees(&self, commit: Ts) -> bool {
        commit <= self.snapshot
    }

    /// Whether staged rows of this command are seen.
    #[must_use]
    pub fn sees_stage(&self, transaction: TransactionId, command: CommandId, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Committed(commit) => self.sees(commit),
            Outcome::Aborted => false,
            Outcome::Undecided => match self.own {
                Some((own, before)) if own == transaction => command < before,
                _ => self.resolved.get(&transaction).is_some_and(|commit| self.sees(*commit)),
            },
        }
    }
}
