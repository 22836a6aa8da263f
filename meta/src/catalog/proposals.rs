//! Proposals that were answered: a repeated one gets its first answer and is not applied again.
//!
//! A proposer that lost the answer sends the same (producer, sequence) to the next leader, within its own deadline.
//! What is remembered is therefore bounded, and forgotten in the same order on every member.

use std::collections::BTreeMap;

use meridian_proto::command::{Command, Reply};
use meridian_proto::{CatalogVersion, ProducerId, Refusal, Sequence, Ts, wire};
use prost::Message;

use super::{Catalog, Outcome};

/// Answers remembered per proposer. It has at most this many proposals under way.
const ANSWERS_MAX: usize = 128;
/// Proposers remembered; the one that was silent longest is forgotten first.
const PRODUCERS_MAX: usize = 1024;

/// A command with the identity of its proposal; producer 0 for a command that nobody repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub producer: ProducerId,
    pub sequence: Sequence,
    pub command: Command,
}

impl Proposal {
    /// From the bytes of a log entry: an encoded `ProposeRequest`. `None` for a command that this version does not know.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let request = wire::ProposeRequest::decode(bytes).ok()?;
        Some(Self {
            producer: ProducerId(request.producer),
            sequence: Sequence(request.sequence),
            command: Command::try_from(request.command?).ok()?,
        })
    }
}

/// What a proposal came to, and the catalog version after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub outcome: Outcome,
    pub version: CatalogVersion,
    /// Of an oracle window: the end of the one before it.
    pub oracle_before: Ts,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Proposals {
    pub(super) producers: BTreeMap<ProducerId, Answered>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answered {
    /// Index of the producer's last entry.
    pub(super) used: u64,
    /// Sequences up to this one may have been answered and forgotten.
    pub(super) forgotten_upto: Sequence,
    pub(super) answers: BTreeMap<Sequence, (Outcome, CatalogVersion)>,
}

impl Catalog {
    /// Applies a proposal, or finds that it was applied before.
    pub fn apply_proposal(&mut self, index: u64, proposal: Proposal) -> Answer {
        let Proposal { producer, sequence, command } = proposal;
        let oracle_before = self.oracle_upto();
        if producer == ProducerId(0) {
            let outcome = self.apply(index, command);
            return Answer { outcome, version: self.version(), oracle_before };
        }
        if let Some((outcome, version)) = self.proposals.answer(producer, sequence) {
            return Answer { outcome, version, oracle_before };
        }
        let outcome = self.apply(index, command);
        let version = self.version();
        self.proposals.remember(index, producer, sequence, (outcome.clone(), version));
        Answer { outcome, version, oracle_before }
    }
}

impl Proposals {
    fn answer(&self, producer: ProducerId, sequence: Sequence) -> Option<(Outcome, CatalogVersion)> {
        let answered = self.producers.get(&producer)?;
        if let Some(answer) = answered.answers.get(&sequence) {
            return Some(answer.clone());
        }
        let forgotten = sequence <= answered.forgotten_upto;
        forgotten.then(|| {
            let text = format!("proposal {producer}/{sequence} may have been applied before");
            (Err::<Reply, _>(Refusal::OutcomeUnknown(text)), CatalogVersion(0))
        })
    }

    fn remember(&mut self, index: u64, producer: ProducerId, sequence: Sequence, answer: (Outcome, CatalogVersion)) {
        let answered = self.producers.entry(producer).or_default();
        answered.used = index;
        answered.answers.insert(sequence, answer);
        if answered.answers.len() > ANSWERS_MAX
            && let Some((sequence, _)) = answered.answers.pop_first()
        {
            answered.forgotten_upto = sequence;
        }
        if self.producers.len() > PRODUCERS_MAX {
            let silent = self.producers.iter().min_by_key(|(_, answered)| answered.used).map(|(id, _)| *id);
            silent.map(|id| self.producers.remove(&id));
        }
    }
}
