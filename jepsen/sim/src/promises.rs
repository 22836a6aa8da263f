//! What must hold for every run: a read shows a transaction whole or not at all, with each piece once; it shows what was
//! acknowledged before it began and what an earlier read has shown; it never shows what was told to be aborted.

use std::collections::{BTreeMap, BTreeSet};

use meridian_proto::{ChunkId, TransactionId};

/// A transaction by what its user calls it: repeats under another identity are the same to him.
pub type Label = u64;

/// What one read showed: pieces per chunk, per transaction.
pub type Shown = BTreeMap<TransactionId, BTreeMap<ChunkId, usize>>;

#[derive(Default)]
pub struct Promises {
    labels: BTreeMap<TransactionId, Label>,
    wanted: BTreeMap<Label, BTreeMap<ChunkId, usize>>,
    acknowledged: BTreeSet<Label>,
    aborted: BTreeSet<Label>,
    shown: BTreeSet<Label>,
    pub reads: usize,
}

impl Promises {
    /// A transaction begins; `wanted` says how many pieces it writes to each chunk.
    pub fn begin(&mut self, label: Label, id: TransactionId, wanted: BTreeMap<ChunkId, usize>) {
        self.labels.insert(id, label);
        self.wanted.insert(label, wanted);
    }

    /// The same transaction under another identity.
    pub fn rename(&mut self, label: Label, id: TransactionId) {
        self.labels.insert(id, label);
    }

    pub fn acknowledge(&mut self, label: Label) {
        self.acknowledged.insert(label);
    }

    pub fn abort(&mut self, label: Label) {
        self.aborted.insert(label);
    }

    /// What a read that begins now must show.
    #[must_use]
    pub fn due(&self) -> BTreeSet<Label> {
        self.acknowledged.union(&self.shown).copied().collect()
    }

    #[must_use]
    pub fn acknowledged_count(&self) -> usize {
        self.acknowledged.len()
    }

    /// A read has ended. The first broken promise, in words.
    pub fn read(&mut self, shown: &Shown, due: &BTreeSet<Label>) -> Result<(), String> {
        self.reads += 1;
        let mut found: BTreeMap<Label, BTreeMap<ChunkId, usize>> = BTreeMap::new();
        for (id, pieces) in shown {
            let label = self.labels.get(id).ok_or_else(|| format!("transaction {id} was never begun"))?;
            let chunks = found.entry(*label).or_default();
            for (chunk, count) in pieces {
                *chunks.entry(*chunk).or_default() += count;
            }
        }
        for (label, pieces) in &found {
            if pieces != &self.wanted[label] {
                return Err(format!("transaction {label} shows {pieces:?} of {:?}", self.wanted[label]));
            }
            if self.aborted.contains(label) {
                return Err(format!("transaction {label} was aborted and is shown"));
            }
        }
        if let Some(missing) = due.iter().find(|label| !found.contains_key(label)) {
            return Err(format!("transaction {missing} was acknowledged or shown before and is not"));
        }
        self.shown.extend(found.keys());
        Ok(())
    }
}
