//! Random requests, syncs and crashes against a model that knows only the promises: one answer per request, one outcome
//! per transaction, no commit at or below a snapshot that was read before, every acknowledged row once.

use std::collections::BTreeSet;

use rand::prelude::*;
use rand_chacha::ChaCha8Rng;

use super::*;

const CHUNK: ChunkId = ChunkId(7);
const OTHER: ChunkId = ChunkId(8);
const STEPS: usize = 400;

#[derive(Default)]
struct Model {
    /// Acknowledged answers, by request.
    written: BTreeMap<(TransactionId, u32), WriteAnswer>,
    /// Outcomes that someone was told.
    told: BTreeMap<TransactionId, Option<Ts>>,
    /// Outcomes of foreign transactions: what their holder says.
    foreign: BTreeMap<TransactionId, Option<Ts>>,
    /// Greatest snapshot that was read here, since ever.
    read: Ts,
    /// Rows by (transaction, piece): staged or committed.
    rows: BTreeMap<(TransactionId, u32), Option<Ts>>,
}

struct World {
    rng: ChaCha8Rng,
    replica: Replica,
    epoch: Epoch,
    model: Model,
    /// All synced records, and a manifest's state as of some position of them.
    log: Vec<LogRecord>,
    manifest: ReplicaState,
    unsynced: Vec<LogRecord>,
    oracle: u64,
    next_sequence: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            replica: Replica::new(CHUNK, SchemaVersion(1), ReplicaState::default()),
            epoch: Epoch(0),
            model: Model::default(),
            log: Vec::new(),
            manifest: ReplicaState::default(),
            unsynced: Vec::new(),
            oracle: 1,
            next_sequence: 1,
        };
        world.take_office();
        world
    }

    fn timestamp(&mut self) -> Ts {
        self.oracle += self.rng.random_range(1..5);
        Ts(self.oracle)
    }

    fn take_office(&mut self) {
        self.epoch = self.epoch.next();
        let max_read = self.timestamp();
        self.replica.take_office(self.epoch, max_read).unwrap();
        self.replica.epoch_synced(self.epoch);
    }

    fn any_transaction(&mut self) -> TransactionId {
        let back = self.rng.random_range(0..6).min(self.next_sequence - 1);
        let sequence = Sequence(self.next_sequence - back);
        self.next_sequence += u64::from(self.rng.random_bool(0.3));
        TransactionId { producer: ProducerId(1), sequence }
    }

    /// Every third transaction is of each kind: one phase, decided here, decided elsewhere.
    fn mode(transaction: TransactionId) -> WriteMode {
        match transaction.sequence.0 % 3 {
            0 => WriteMode::OnePhase,
            1 => WriteMode::Stage { holder: CHUNK },
            _ => WriteMode::Stage { holder: OTHER },
        }
    }

    fn low_water(&self) -> Sequence {
        Sequence(self.next_sequence.saturating_sub(20))
    }

    fn write(&mut self) {
        let transaction = self.any_transaction();
        let mode = Self::mode(transaction);
        let piece = if mode == WriteMode::OnePhase { 0 } else { self.rng.random_range(0..3) };
        let request = WriteRequest {
            epoch: self.epoch,
            transaction,
            low_water: self.low_water(),
            piece,
            command: CommandId(0),
            snapshot: self.timestamp(),
            schema_version: SchemaVersion(1),
            mode,
            row_count: 1,
        };
        let read = self.model.read;
        match self.replica.write(&request) {
            Ok(Step::Append { record, answer }) => {
                assert!(answer.commit.is_none_or(|commit| commit > read && commit > request.snapshot));
                self.unsynced.push(record);
            }
            Ok(Step::Done(answer)) => {
                assert_eq!(self.model.written.get(&(transaction, piece)), Some(&answer));
            }
            Ok(Step::Wait { .. }) | Err(_) => {}
        }
    }

    fn decide(&mut self) {
        let transaction = self.any_transaction();
        if Self::mode(transaction) != (WriteMode::Stage { holder: CHUNK }) {
            return;
        }
        let staged = self.model.written.keys().filter(|(of, _)| *of == transaction).count() as u32;
        let decide = Decide {
            chunk: CHUNK,
            epoch: self.epoch,
            transaction,
            commit: self.rng.random_bool(0.8),
            max_read: self.timestamp(),
            participants: vec![CHUNK, OTHER],
            pieces: if self.rng.random_bool(0.9) { staged } else { staged + 1 },
        };
        let read = self.model.read;
        match self.replica.decide(&decide) {
            Ok(Step::Append { record, answer }) => {
                if let Decision::Committed(commit) = answer {
                    assert!(decide.commit && commit > read && commit > decide.max_read);
                }
                self.unsynced.push(record);
            }
            Ok(Step::Done(Decision::Committed(commit))) => self.tell(transaction, Some(commit)),
            Ok(Step::Done(Decision::Aborted)) => self.tell(transaction, None),
            Ok(Step::Wait { .. }) | Err(_) => {}
        }
    }

    fn resolve(&mut self) {
        let transaction = self.any_transaction();
        if Self::mode(transaction) != (WriteMode::Stage { holder: OTHER }) {
            return;
        }
        let commit = self.rng.random_bool(0.7).then(|| Ts(1 + self.timestamp().0.max(self.model.read.0)));
        let commit = *self.model.foreign.entry(transaction).or_insert(commit);
        let resolve = Resolve { chunk: CHUNK, epoch: self.epoch, transaction, commit };
        if let Ok(Step::Append { record, .. }) = self.replica.resolve(&resolve) {
            self.unsynced.push(record);
        }
    }

    fn ask(&mut self) {
        let transaction = self.any_transaction();
        let snapshot = self.timestamp();
        let question = Question { chunk: CHUNK, epoch: self.epoch, transaction, snapshot };
        match self.replica.outcome(&question) {
            Ok(Step::Done(Answer::Undecided | Answer::Unknown)) => self.model.read = self.model.read.max(snapshot),
            Ok(Step::Done(Answer::Committed { commit, .. })) => self.tell(transaction, Some(commit)),
            Ok(Step::Done(Answer::Aborted)) => self.tell(transaction, None),
            _ => {}
        }
    }

    fn read(&mut self) {
        let snapshot = self.timestamp();
        let wait = self.replica.begin_read(self.epoch, snapshot).unwrap();
        self.model.read = self.model.read.max(snapshot);
        for record in &self.unsynced {
            let is_seen = commit_of(&record.body).is_some_and(|commit| commit <= snapshot);
            assert!(!is_seen || wait >= Some(record.lsn), "a pending record is skipped");
        }
    }

    fn tell(&mut self, transaction: TransactionId, outcome: Option<Ts>) {
        let told = *self.model.told.entry(transaction).or_insert(outcome);
        assert_eq!(told, outcome, "transaction {transaction} has two outcomes");
    }

    fn sync(&mut self) {
        let count = self.rng.random_range(0..=self.unsynced.len());
        for record in self.unsynced.drain(..count).collect::<Vec<_>>() {
            let effects = self.replica.synced_next();
            self.model.apply(&record, &effects);
            if let Body::Decision(decision) = &record.body {
                self.tell(decision.transaction, decision.commit);
            }
            self.log.push(record);
        }
        if self.rng.random_bool(0.2) {
            self.manifest = self.replica.state().clone();
        }
    }

    /// A restart from the manifest and the log; some of what was not synced got into the log all the same.
    fn crash(&mut self) {
        let survivors = self.rng.random_range(0..=self.unsynced.len());
        let mut reached: Vec<_> = self.unsynced.drain(..).take(survivors).collect();
        let mut replica = Replica::new(CHUNK, SchemaVersion(1), self.manifest.clone());
        for record in &self.log {
            replica.replay(record).unwrap();
        }
        assert_eq!(replica.state().synced, Lsn(self.log.len() as u64));
        for record in &reached {
            let effects = replica.replay(record).unwrap().unwrap();
            self.model.apply(record, &effects);
            if let Body::Decision(decision) = &record.body {
                self.tell(decision.transaction, decision.commit);
            }
        }
        self.log.append(&mut reached);
        let mut whole = Replica::new(CHUNK, SchemaVersion(1), ReplicaState::default());
        for record in &self.log {
            whole.replay(record).unwrap();
        }
        // A manifest may hold an epoch that no replicated record has yet.
        let without_epoch = |replica: &Replica| ReplicaState { epoch: Epoch(0), ..replica.state().clone() };
        let folded = without_epoch(&replica);
        assert_eq!(without_epoch(&whole), folded, "a manifest and the rest of the log are the whole log");
        self.replica = replica;
        self.take_office();
    }
}

impl Model {
    fn apply(&mut self, record: &LogRecord, effects: &[Effect]) {
        for effect in effects {
            match (effect, &record.body) {
                (Effect::Enter { standing, .. }, Body::Rows(rows)) => {
                    let commit = match standing {
                        Standing::Committed(commit) => Some(*commit),
                        Standing::Staged { .. } => None,
                    };
                    let key = (rows.transaction, rows.piece);
                    assert!(self.rows.insert(key, commit).is_none(), "a piece entered twice");
                    self.written.insert(key, WriteAnswer { commit, row_count: 1 });
                }
                (Effect::Commit { transaction, commit }, _) => {
                    let rows = self.rows.range_mut((*transaction, 0)..=(*transaction, u32::MAX));
                    rows.for_each(|(_, standing)| *standing = Some(*commit));
                }
                (Effect::Discard { transaction }, _) => {
                    self.rows.retain(|(of, _), _| of != transaction);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn random_requests_syncs_and_crashes_keep_every_promise() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..150 {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            match world.rng.random_range(0..100) {
                0..40 => world.write(),
                40..52 => world.decide(),
                52..62 => world.resolve(),
                62..70 => world.ask(),
                70..80 => world.read(),
                80..97 => world.sync(),
                _ => world.crash(),
            }
        }
        outcomes.extend(world.model.told.values().map(Option::is_some));
        for ((transaction, _), commit) in &world.model.rows {
            if let Some(told) = world.model.told.get(transaction) {
                assert_eq!(told, commit, "seed {seed}: rows of {transaction}");
            }
        }
    }
    assert_eq!(outcomes.len(), 2, "both outcomes occurred");
}
