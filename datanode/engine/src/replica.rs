//! The pure core of one chunk: what may be appended, with which commit timestamp, what an answer is and when it may be
//! given. No I/O, clock or randomness.
//!
//! The state is the fold of the chunk's synced records, so that a restart, which folds the same records again, ends in
//! the same state. What is appended but not synced yet stands in `pending` and counts for duplicates and readers only.

use std::collections::BTreeMap;

use meridian_proto::{
    CatalogVersion, ChunkId, CommandId, Epoch, Lsn, ProducerId, Refusal, SchemaVersion, Sequence, TransactionId, Ts,
};

use crate::record::{Body, DecisionBody, LogRecord, RowsBody, Standing};

/// How a step goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// Put the record into the log; the answer may be given when it is synced.
    Append {
        record: LogRecord,
        answer: T,
    },
    /// The answer may be given when this position is synced: a duplicate waits for its original (R10).
    Wait {
        lsn: Lsn,
        answer: T,
    },
    Done(T),
}

/// What a synced record does to the chunk's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The rows of the record enter, committed or staged.
    Enter { lsn: Lsn, transaction: TransactionId, command: CommandId, standing: Standing },
    /// All staged rows of the transaction have this commit timestamp.
    Commit { transaction: TransactionId, commit: Ts },
    /// All staged rows of the transaction go.
    Discard { transaction: TransactionId },
}

/// A batch of rows of one transaction, without the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRequest {
    pub epoch: Epoch,
    pub transaction: TransactionId,
    pub low_water: Sequence,
    pub piece: u32,
    pub command: CommandId,
    pub snapshot: Ts,
    pub schema_version: SchemaVersion,
    pub mode: WriteMode,
    pub row_count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    OnePhase,
    Stage { holder: ChunkId },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteAnswer {
    /// Of a one-phase write.
    pub commit: Option<Ts>,
    pub row_count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decide {
    pub chunk: ChunkId,
    pub epoch: Epoch,
    pub transaction: TransactionId,
    pub commit: bool,
    /// Greatest of the own snapshot and every stage acknowledgement's `max_read`.
    pub max_read: Ts,
    pub participants: Vec<ChunkId>,
    /// Pieces staged at the holder.
    pub pieces: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Committed(Ts),
    Aborted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolve {
    pub chunk: ChunkId,
    pub epoch: Epoch,
    pub transaction: TransactionId,
    /// `None`: aborted.
    pub commit: Option<Ts>,
}

/// What became of a transaction?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    pub chunk: ChunkId,
    pub epoch: Epoch,
    pub transaction: TransactionId,
    /// Of the asker; 0 for a question without a read.
    pub snapshot: Ts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Undecided,
    Committed {
        commit: Ts,
        row_count: u64,
    },
    Aborted,
    /// Neither stage nor decision nor dedupe entry.
    Unknown,
}

/// A transaction as far as this chunk is concerned: its dedupe entry, stage and outcome in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub phase: Phase,
    pub pieces: BTreeMap<u32, Piece>,
    /// Chunks with stages, where this chunk is the holder and has decided.
    pub participants: Vec<ChunkId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Staged {
        holder: ChunkId,
    },
    /// Both for one phase and for a decided stage.
    Committed(Ts),
    Aborted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub row_count: u64,
    pub command: CommandId,
    /// Written in one phase: the answer held its commit timestamp.
    pub is_one_phase: bool,
}

impl Transaction {
    fn row_count(&self) -> u64 {
        self.pieces.values().map(|piece| piece.row_count).sum()
    }
}

/// What a manifest keeps of a chunk's core: the fold up to `synced`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaState {
    pub epoch: Epoch,
    pub synced: Lsn,
    /// Per producer: every sequence below it is settled.
    pub low_waters: BTreeMap<ProducerId, Sequence>,
    pub transactions: BTreeMap<TransactionId, Transaction>,
}

pub struct Replica {
    chunk: ChunkId,
    state: ReplicaState,
    /// Whether this process was given an epoch to act in (R3). Until then the chunk neither reads nor writes.
    in_office: bool,
    /// Greatest epoch that a synced record or the manifest holds.
    epoch_synced: Epoch,
    schema_version: SchemaVersion,
    appended: Lsn,
    /// Not in the log: whoever takes office asks the oracle for a new one (R3).
    max_read: Ts,
    pending: BTreeMap<Lsn, LogRecord>,
    pending_rows: BTreeMap<(TransactionId, u32), Lsn>,
    pending_decisions: BTreeMap<TransactionId, Lsn>,
}

impl Replica {
    #[must_use]
    pub fn new(chunk: ChunkId, schema_version: SchemaVersion, state: ReplicaState) -> Self {
        Self {
            chunk,
            appended: state.synced,
            epoch_synced: state.epoch,
            state,
            in_office: false,
            schema_version,
            max_read: Ts(0),
            pending: BTreeMap::new(),
            pending_rows: BTreeMap::new(),
            pending_decisions: BTreeMap::new(),
        }
    }

    /// The epoch that the chunk acts in, once this process was given one.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        (self.in_office && self.epoch_synced == self.state.epoch).then_some(self.state.epoch)
    }

    #[must_use]
    pub fn max_read(&self) -> Ts {
        self.max_read
    }

    #[must_use]
    pub fn synced(&self) -> Lsn {
        self.state.synced
    }

    /// The fold of all synced records.
    #[must_use]
    pub fn state(&self) -> &ReplicaState {
        &self.state
    }

    #[must_use]
    pub fn schema_version(&self) -> SchemaVersion {
        self.schema_version
    }

    pub fn set_schema_version(&mut self, version: SchemaVersion) {
        self.schema_version = version;
    }

    /// R3: from now on older epochs are refused, and nothing commits at or below `max_read`. Returns the record that
    /// makes a new epoch durable; it must be synced before anything is served.
    pub fn take_office(&mut self, epoch: Epoch, max_read: Ts) -> Result<Option<LogRecord>, Refusal> {
        if epoch < self.state.epoch {
            return Err(Refusal::StaleEpoch { chunk: self.chunk, asked: epoch, current: self.state.epoch });
        }
        self.state.epoch = epoch;
        self.in_office = true;
        self.raise(max_read);
        Ok((epoch > self.epoch_synced).then(|| self.local(Body::Epoch)))
    }

    /// A record of this epoch is durable: after a restart no older one is served.
    pub fn epoch_synced(&mut self, epoch: Epoch) {
        self.epoch_synced = self.epoch_synced.max(epoch);
    }

    /// A record that belongs to this replica alone and takes no position of the replicated log.
    #[must_use]
    pub fn local(&self, body: Body) -> LogRecord {
        LogRecord { chunk: self.chunk, epoch: self.state.epoch, lsn: self.appended, body }
    }

    /// Refuses requests that were made for another configuration.
    pub fn check(&self, epoch: Epoch) -> Result<(), Refusal> {
        if self.in_office && epoch != self.state.epoch {
            return Err(Refusal::StaleEpoch { chunk: self.chunk, asked: epoch, current: self.state.epoch });
        }
        match self.epoch() {
            Some(_) => Ok(()),
            None => Err(Refusal::NotPrimary { chunk: self.chunk, known: CatalogVersion(0) }),
        }
    }

    /// The answer to a write that came before, or the reason to refuse it; `None` when it is to be appended (R10).
    pub fn known(&self, write: &WriteRequest) -> Result<Option<Step<WriteAnswer>>, Refusal> {
        self.check(write.epoch)?;
        if write.transaction.sequence < self.low_water(write.transaction.producer) {
            return Err(Refusal::OutcomeUnknown(format!("transaction {} is settled", write.transaction)));
        }
        if let Some(lsn) = self.pending_rows.get(&(write.transaction, write.piece)) {
            let answer = self.pending_answer(*lsn);
            return Ok(answer.map(|answer| Step::Wait { lsn: *lsn, answer }));
        }
        if self.pending_decisions.contains_key(&write.transaction) {
            return Err(Refusal::Aborted(format!("transaction {} is being decided", write.transaction)));
        }
        if let Some(transaction) = self.state.transactions.get(&write.transaction) {
            return known_piece(transaction, write);
        }
        let first = (write.transaction, 0)..=(write.transaction, u32::MAX);
        if write.mode == WriteMode::OnePhase && self.pending_rows.range(first).next().is_some() {
            return Err(Refusal::Protocol(format!("a second piece of one-phase transaction {}", write.transaction)));
        }
        Ok(None)
    }

    /// Conflict check, timestamp and append are one step without a yield (R4).
    pub fn write(&mut self, write: &WriteRequest) -> Result<Step<WriteAnswer>, Refusal> {
        if let Some(step) = self.known(write)? {
            return Ok(step);
        }
        if write.schema_version != self.schema_version {
            let (asked, current) = (write.schema_version, self.schema_version);
            return Err(Refusal::SchemaVersion { asked, current });
        }
        let standing = match write.mode {
            // R4: above everything that was read here and above the writer's own snapshot.
            WriteMode::OnePhase => Standing::Committed(Ts(1 + write.snapshot.max(self.max_read).0)),
            WriteMode::Stage { holder } => Standing::Staged { holder },
        };
        let commit = match standing {
            Standing::Committed(commit) => Some(commit),
            Standing::Staged { .. } => None,
        };
        let record = self.append(Body::Rows(RowsBody {
            transaction: write.transaction,
            low_water: write.low_water,
            piece: write.piece,
            command: write.command,
            snapshot: write.snapshot,
            schema_version: write.schema_version,
            row_count: write.row_count,
            standing,
        }));
        self.pending_rows.insert((write.transaction, write.piece), record.lsn);
        Ok(Step::Append { record, answer: WriteAnswer { commit, row_count: write.row_count } })
    }

    /// The holder decides (R11). A commit without the whole stage standing becomes an abort, so that no later one can
    /// succeed.
    pub fn decide(&mut self, decide: &Decide) -> Result<Step<Decision>, Refusal> {
        self.check(decide.epoch)?;
        if let Some((lsn, commit)) = self.pending_decision(decide.transaction) {
            return Ok(Step::Wait { lsn, answer: decision(commit) });
        }
        let (mut is_whole, mut row_count) = (false, 0);
        match self.state.transactions.get(&decide.transaction) {
            Some(Transaction { phase: Phase::Committed(commit), .. }) => {
                return Ok(Step::Done(Decision::Committed(*commit)));
            }
            Some(Transaction { phase: Phase::Aborted, .. }) => return Ok(Step::Done(Decision::Aborted)),
            Some(Transaction { phase: Phase::Staged { holder }, .. }) if *holder != self.chunk => {
                let reason = format!("chunk {holder} decides transaction {}", decide.transaction);
                return Err(Refusal::Protocol(reason));
            }
            Some(transaction) => {
                is_whole = transaction.pieces.len() == decide.pieces as usize;
                row_count = transaction.row_count();
            }
            None if decide.transaction.sequence < self.low_water(decide.transaction.producer) => {
                return Err(Refusal::OutcomeUnknown(format!("transaction {} is settled", decide.transaction)));
            }
            None => {}
        }
        // R4: above what was read at any participant, this one included.
        let commit = (decide.commit && is_whole).then(|| Ts(1 + decide.max_read.max(self.max_read).0));
        let transaction = decide.transaction;
        let participants = decide.participants.clone();
        let record = self.append(Body::Decision(DecisionBody { transaction, commit, row_count, participants }));
        self.pending_decisions.insert(transaction, record.lsn);
        Ok(Step::Append { record, answer: decision(commit) })
    }

    /// A participant learns what was decided.
    pub fn resolve(&mut self, resolve: &Resolve) -> Result<Step<()>, Refusal> {
        self.check(resolve.epoch)?;
        let contradiction =
            || Refusal::Protocol(format!("transaction {} was resolved differently", resolve.transaction));
        if let Some((lsn, commit)) = self.pending_decision(resolve.transaction) {
            return if commit == resolve.commit { Ok(Step::Wait { lsn, answer: () }) } else { Err(contradiction()) };
        }
        let outcome = self.state.transactions.get(&resolve.transaction).map(|transaction| transaction.phase);
        match (outcome, resolve.commit) {
            (Some(Phase::Committed(known)), Some(commit)) if known == commit => return Ok(Step::Done(())),
            (Some(Phase::Aborted), None) => return Ok(Step::Done(())),
            (Some(Phase::Committed(_) | Phase::Aborted), _) => return Err(contradiction()),
            (Some(Phase::Staged { holder }), _) if holder == self.chunk => {
                let reason = format!("transaction {} is decided here, not resolved", resolve.transaction);
                return Err(Refusal::Protocol(reason));
            }
            (None, _) if resolve.transaction.sequence < self.low_water(resolve.transaction.producer) => {
                return Ok(Step::Done(()));
            }
            (None, Some(_)) => {
                return Err(Refusal::Protocol(format!("transaction {} has no stage here", resolve.transaction)));
            }
            // An abort is logged even without a stage: one that comes late must not stand for ever.
            (Some(Phase::Staged { .. }), _) | (None, None) => {}
        }
        let record = self.append(Body::Resolve { transaction: resolve.transaction, commit: resolve.commit });
        self.pending_decisions.insert(resolve.transaction, record.lsn);
        Ok(Step::Append { record, answer: () })
    }

    /// R12: "undecided" is a promise that the transaction will not commit at or below the asker's snapshot.
    pub fn outcome(&mut self, question: &Question) -> Result<Step<Answer>, Refusal> {
        self.check(question.epoch)?;
        if let Some((lsn, answer)) = self.pending_outcome(question.transaction) {
            return Ok(Step::Wait { lsn, answer });
        }
        let answer = match self.state.transactions.get(&question.transaction) {
            Some(Transaction { phase: Phase::Committed(commit), pieces, .. }) => {
                let row_count = pieces.values().map(|piece| piece.row_count).sum();
                Answer::Committed { commit: *commit, row_count }
            }
            Some(Transaction { phase: Phase::Aborted, .. }) => Answer::Aborted,
            Some(Transaction { phase: Phase::Staged { .. }, .. }) => Answer::Undecided,
            None if question.transaction.sequence < self.low_water(question.transaction.producer) => {
                return Err(Refusal::OutcomeUnknown(format!("transaction {} is settled", question.transaction)));
            }
            None => Answer::Unknown,
        };
        if matches!(answer, Answer::Undecided | Answer::Unknown) {
            // Unknown too: its stage may still come, and be decided.
            self.raise(question.snapshot);
        }
        Ok(Step::Done(answer))
    }

    /// R4, R5: from here on nothing commits at or below the snapshot; what is pending there must be waited for.
    pub fn begin_read(&mut self, epoch: Epoch, snapshot: Ts) -> Result<Option<Lsn>, Refusal> {
        self.check(epoch)?;
        self.raise(snapshot);
        let seen = |record: &LogRecord| commit_of(&record.body).is_some_and(|commit| commit <= snapshot);
        Ok(self.pending.values().rev().find(|record| seen(record)).map(|record| record.lsn))
    }

    /// Stages whose decision lies with another chunk.
    #[must_use]
    pub fn foreign_stages(&self) -> Vec<(TransactionId, ChunkId)> {
        let staged = self.state.transactions.iter().filter_map(|(id, transaction)| match transaction.phase {
            // One that is decided here would commit above every snapshot that began to read here.
            Phase::Staged { holder } if holder != self.chunk => Some((*id, holder)),
            _ => None,
        });
        staged.collect()
    }

    /// The record at the next position is durable; its effects come into force.
    ///
    /// # Panics
    /// When records are not synced in order: a promise of the log's owner.
    pub fn synced_next(&mut self) -> Vec<Effect> {
        let (lsn, record) = self.pending.pop_first().expect("a synced record was pending");
        assert_eq!(lsn, self.state.synced.next(), "records are synced in order");
        match &record.body {
            Body::Rows(rows) => drop(self.pending_rows.remove(&(rows.transaction, rows.piece))),
            Body::Decision(DecisionBody { transaction, .. }) | Body::Resolve { transaction, .. } => {
                self.pending_decisions.remove(transaction);
            }
            Body::Spec(_) | Body::Epoch | Body::Removed => {}
        }
        self.apply(record)
    }

    /// Nothing that is pending got into the log, as when the disk was full.
    pub fn forget_pending(&mut self) {
        self.pending.clear();
        self.pending_rows.clear();
        self.pending_decisions.clear();
        self.appended = self.state.synced;
    }

    /// Folds a record that recovery found. `None`: it was folded before, or has no rows' effects.
    pub fn replay(&mut self, record: &LogRecord) -> Result<Option<Vec<Effect>>, String> {
        self.state.epoch = self.state.epoch.max(record.epoch);
        self.epoch_synced(record.epoch);
        if !record.is_replicated() || record.lsn <= self.state.synced {
            return Ok(None);
        }
        if record.lsn != self.state.synced.next() {
            let (chunk, next) = (self.chunk, self.state.synced.next());
            return Err(format!("chunk {chunk} goes on at position {} instead of {next}", record.lsn));
        }
        self.appended = record.lsn;
        Ok(Some(self.apply(record.clone())))
    }

    fn append(&mut self, body: Body) -> LogRecord {
        self.appended = self.appended.next();
        let record = LogRecord { chunk: self.chunk, epoch: self.state.epoch, lsn: self.appended, body };
        self.pending.insert(record.lsn, record.clone());
        record
    }

    fn raise(&mut self, snapshot: Ts) {
        self.max_read = self.max_read.max(snapshot);
    }

    fn low_water(&self, producer: ProducerId) -> Sequence {
        self.state.low_waters.get(&producer).copied().unwrap_or_default()
    }

    fn pending_answer(&self, lsn: Lsn) -> Option<WriteAnswer> {
        match &self.pending.get(&lsn)?.body {
            Body::Rows(rows) => {
                let commit = match rows.standing {
                    Standing::Committed(commit) => Some(commit),
                    Standing::Staged { .. } => None,
                };
                Some(WriteAnswer { commit, row_count: rows.row_count })
            }
            _ => None,
        }
    }

    fn pending_decision(&self, transaction: TransactionId) -> Option<(Lsn, Option<Ts>)> {
        let lsn = *self.pending_decisions.get(&transaction)?;
        Some((lsn, commit_of(&self.pending.get(&lsn)?.body)))
    }

    fn pending_outcome(&self, transaction: TransactionId) -> Option<(Lsn, Answer)> {
        if let Some((lsn, commit)) = self.pending_decision(transaction) {
            let row_count = self.state.transactions.get(&transaction).map_or(0, Transaction::row_count);
            return Some((lsn, commit.map_or(Answer::Aborted, |commit| Answer::Committed { commit, row_count })));
        }
        let (_, lsn) = self.pending_rows.range((transaction, 0)..=(transaction, u32::MAX)).next()?;
        let answer = self.pending_answer(*lsn)?;
        // A stage that is not synced yet is nothing to wait for: it is undecided either way.
        let commit = answer.commit?;
        Some((*lsn, Answer::Committed { commit, row_count: answer.row_count }))
    }

    fn apply(&mut self, record: LogRecord) -> Vec<Effect> {
        self.state.synced = record.lsn;
        assert!(self.state.synced <= self.appended, "synced {} beyond appended {}", record.lsn, self.appended);
        match record.body {
            Body::Rows(rows) => vec![self.apply_rows(record.lsn, rows)],
            Body::Decision(decision) => {
                self.apply_outcome(decision.transaction, decision.commit, decision.participants)
            }
            Body::Resolve { transaction, commit } => self.apply_outcome(transaction, commit, Vec::new()),
            Body::Spec(_) | Body::Epoch | Body::Removed => Vec::new(),
        }
    }

    fn apply_rows(&mut self, lsn: Lsn, rows: RowsBody) -> Effect {
        self.settle(rows.transaction.producer, rows.low_water);
        let (phase, is_one_phase) = match rows.standing {
            Standing::Committed(commit) => (Phase::Committed(commit), true),
            Standing::Staged { holder } => (Phase::Staged { holder }, false),
        };
        let fresh = || Transaction { phase, pieces: BTreeMap::new(), participants: Vec::new() };
        let transaction = self.state.transactions.entry(rows.transaction).or_insert_with(fresh);
        let piece = Piece { row_count: rows.row_count, command: rows.command, is_one_phase };
        transaction.pieces.insert(rows.piece, piece);
        Effect::Enter { lsn, transaction: rows.transaction, command: rows.command, standing: rows.standing }
    }

    fn apply_outcome(&mut self, id: TransactionId, commit: Option<Ts>, participants: Vec<ChunkId>) -> Vec<Effect> {
        let phase = commit.map_or(Phase::Aborted, Phase::Committed);
        let fresh = || Transaction { phase, pieces: BTreeMap::new(), participants: Vec::new() };
        let transaction = self.state.transactions.entry(id).or_insert_with(fresh);
        transaction.phase = phase;
        transaction.participants = participants;
        vec![match commit {
            Some(commit) => Effect::Commit { transaction: id, commit },
            None => Effect::Discard { transaction: id },
        }]
    }

    /// Everything below the mark is settled, says its producer, and can be forgotten, but for stages that still stand
    /// (R11: they go only on the holder's word).
    fn settle(&mut self, producer: ProducerId, low_water: Sequence) {
        let known = self.state.low_waters.entry(producer).or_default();
        if low_water <= *known {
            return;
        }
        *known = low_water;
        let at = |sequence| TransactionId { producer, sequence };
        let settled: Vec<_> = self
            .state
            .transactions
            .range(at(Sequence(0))..at(low_water))
            .filter(|(_, transaction)| !matches!(transaction.phase, Phase::Staged { .. }))
            .map(|(id, _)| *id)
            .collect();
        for id in settled {
            self.state.transactions.remove(&id);
        }
    }
}

/// The answer to a piece of a transaction that is known here.
fn known_piece(transaction: &Transaction, write: &WriteRequest) -> Result<Option<Step<WriteAnswer>>, Refusal> {
    if let Phase::Aborted = transaction.phase {
        return Err(Refusal::Aborted(format!("transaction {} was aborted", write.transaction)));
    }
    if let Some(piece) = transaction.pieces.get(&write.piece) {
        let commit = match transaction.phase {
            Phase::Committed(commit) if piece.is_one_phase => Some(commit),
            _ => None,
        };
        return Ok(Some(Step::Done(WriteAnswer { commit, row_count: piece.row_count })));
    }
    match (transaction.phase, write.mode) {
        (Phase::Staged { holder: known }, WriteMode::Stage { holder }) if known == holder => Ok(None),
        _ => Err(Refusal::Protocol(format!("piece {} does not fit transaction {}", write.piece, write.transaction))),
    }
}

fn decision(commit: Option<Ts>) -> Decision {
    commit.map_or(Decision::Aborted, Decision::Committed)
}

/// The commit timestamp that a record brings into force.
fn commit_of(body: &Body) -> Option<Ts> {
    match body {
        Body::Rows(RowsBody { standing: Standing::Committed(commit), .. }) => Some(*commit),
        Body::Decision(decision) => decision.commit,
        Body::Resolve { commit, .. } => *commit,
        _ => None,
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
