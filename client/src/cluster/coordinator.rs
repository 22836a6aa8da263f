//! The core of a transaction's coordinator: which chunk holds what, who decides, and with which floor for the commit
//! timestamp. No I/O, clock or randomness; the runner in `transaction` sends what it says.

use std::collections::BTreeMap;

use meridian_proto::{ChunkId, Ts};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coordinator {
    /// Pieces sent to each participant.
    pieces: BTreeMap<ChunkId, u32>,
    /// The first participant; it decides (R11).
    holder: Option<ChunkId>,
    /// Greatest of the own snapshots and every stage acknowledgement's `max_read` (R4).
    floor: Ts,
    /// Set when the whole transaction went in one phase.
    one_phase: Option<Ts>,
    /// Stages that were sent and not acknowledged.
    unacknowledged: usize,
}

/// How a piece of rows is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub chunk: ChunkId,
    pub number: u32,
    /// The decision holder, or `None` to commit at once.
    pub holder: Option<ChunkId>,
}

/// What the holder is asked when the transaction ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decide {
    pub holder: ChunkId,
    pub floor: Ts,
    pub participants: Vec<ChunkId>,
    /// Pieces that the holder must have, to take a commit.
    pub pieces: u32,
}

/// How a transaction ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It wrote nothing.
    Nothing,
    /// It is committed already.
    Committed(Ts),
    Decide(Decide),
}

impl Coordinator {
    /// Notes the snapshot of a statement.
    pub fn note_snapshot(&mut self, snapshot: Ts) {
        self.floor = self.floor.max(snapshot);
    }

    #[must_use]
    pub fn has_writes(&self) -> bool {
        !self.pieces.is_empty() || self.one_phase.is_some()
    }

    /// The next piece for `chunk`, staged.
    pub fn stage(&mut self, chunk: ChunkId) -> Piece {
        assert!(self.one_phase.is_none(), "a transaction that went in one phase is over");
        let holder = *self.holder.get_or_insert(chunk);
        let pieces = self.pieces.entry(chunk).or_default();
        let number = *pieces;
        *pieces += 1;
        self.unacknowledged += 1;
        Piece { chunk, number, holder: Some(holder) }
    }

    /// The only piece of a transaction, committed at once; staged if there were others.
    pub fn only(&mut self, chunk: ChunkId) -> Piece {
        if self.has_writes() { self.stage(chunk) } else { Piece { chunk, number: 0, holder: None } }
    }

    /// A stage was acknowledged.
    pub fn staged(&mut self, max_read: Ts) {
        self.unacknowledged -= 1;
        // R4: the commit timestamp lies above every snapshot that was read at a participant.
        self.floor = self.floor.max(max_read);
    }

    /// The only piece was committed.
    pub fn committed_at_once(&mut self, commit: Ts) {
        self.one_phase = Some(commit);
    }

    /// What is asked of the holder to commit, when every stage was acknowledged.
    #[must_use]
    pub fn end(&self) -> End {
        match (self.one_phase, self.holder) {
            (Some(commit), _) => End::Committed(commit),
            (None, None) => End::Nothing,
            (None, Some(holder)) => {
                // R4: a commit timestamp before the last stage's max_read could lie below a snapshot already served.
                assert_eq!(self.unacknowledged, 0, "deciding before the last stage is acknowledged");
                End::Decide(self.decide(holder))
            }
        }
    }

    /// What is asked of the holder to abort; `None` when nothing is staged.
    #[must_use]
    pub fn abort(&self) -> Option<Decide> {
        self.holder.map(|holder| self.decide(holder))
    }

    fn decide(&self, holder: ChunkId) -> Decide {
        Decide {
            holder,
            floor: self.floor,
            participants: self.pieces.keys().copied().collect(),
            pieces: self.pieces.get(&holder).copied().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_piece_of_one_chunk_is_committed_at_once() {
        let mut coordinator = Coordinator::default();
        assert_eq!(coordinator.only(ChunkId(7)), Piece { chunk: ChunkId(7), number: 0, holder: None });
        coordinator.committed_at_once(Ts(9));
        assert_eq!(coordinator.end(), End::Committed(Ts(9)));
        assert_eq!(Coordinator::default().end(), End::Nothing);
    }

    #[test]
    fn the_first_participant_decides_above_every_read_of_a_participant() {
        let mut coordinator = Coordinator::default();
        coordinator.note_snapshot(Ts(50));
        assert_eq!(coordinator.stage(ChunkId(7)).holder, Some(ChunkId(7)));
        assert_eq!(coordinator.stage(ChunkId(3)).holder, Some(ChunkId(7)));
        assert_eq!(coordinator.stage(ChunkId(7)).number, 1);
        assert_eq!(coordinator.only(ChunkId(9)).holder, Some(ChunkId(7)));
        for max_read in [60, 40, 0, 10] {
            coordinator.staged(Ts(max_read));
        }
        let participants = vec![ChunkId(3), ChunkId(7), ChunkId(9)];
        let decide = Decide { holder: ChunkId(7), floor: Ts(60), participants, pieces: 2 };
        assert_eq!(coordinator.end(), End::Decide(decide.clone()));
        assert_eq!(coordinator.abort(), Some(decide));
    }

    #[test]
    #[should_panic(expected = "deciding before the last stage is acknowledged")]
    fn a_decision_before_the_last_stage_is_a_broken_promise() {
        let mut coordinator = Coordinator::default();
        coordinator.stage(ChunkId(7));
        let _ = coordinator.end();
    }
}
