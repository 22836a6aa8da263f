//! A chunk's primary: the engine's replica core, a log of which the synced part survives a crash, and the rows that the
//! core's effects make.

use std::collections::{BTreeMap, VecDeque};

use meridian_engine::record::{LogRecord, Standing};
use meridian_engine::replica::{Effect, Replica, ReplicaState, Step};
use meridian_proto::{ChunkId, Epoch, Lsn, Refusal, SchemaVersion, TransactionId, Ts};

use crate::message::{CallId, Request, Response};

pub const SCHEMA: SchemaVersion = SchemaVersion(1);

/// An answer that waits for a position to be synced.
struct Waiting {
    lsn: Lsn,
    gateway: usize,
    call: CallId,
    response: Response,
}

pub struct Chunk {
    pub id: ChunkId,
    pub epoch: Epoch,
    pub is_up: bool,
    replica: Replica,
    /// Survives crashes.
    durable: Vec<LogRecord>,
    unsynced: VecDeque<LogRecord>,
    waiting: Vec<Waiting>,
    rows: BTreeMap<TransactionId, Rows>,
    skip_pending: bool,
}

#[derive(Clone, Copy)]
struct Rows {
    pieces: usize,
    commit: Option<Ts>,
}

/// An answer for a gateway.
pub struct Outgoing {
    pub gateway: usize,
    pub call: CallId,
    pub response: Response,
}

impl Chunk {
    #[must_use]
    pub fn new(id: ChunkId, first_timestamp: Ts, skip_pending: bool) -> Self {
        let mut chunk = Self {
            id,
            epoch: Epoch(0),
            is_up: false,
            replica: Replica::new(id, SCHEMA, ReplicaState::default()),
            durable: Vec::new(),
            unsynced: VecDeque::new(),
            waiting: Vec::new(),
            rows: BTreeMap::new(),
            skip_pending,
        };
        chunk.start(first_timestamp);
        chunk
    }

    /// The process dies: what is not synced is gone, and nobody is answered.
    pub fn crash(&mut self) {
        self.is_up = false;
        self.unsynced.clear();
        self.waiting.clear();
    }

    /// Folds the log again and takes office in a new epoch with a fresh timestamp (R3).
    pub fn start(&mut self, fresh: Ts) {
        self.replica = Replica::new(self.id, SCHEMA, ReplicaState::default());
        self.rows.clear();
        for record in self.durable.clone() {
            let effects = self.replica.replay(&record).expect("a log without gaps");
            self.enact(effects.unwrap_or_default());
        }
        self.epoch = self.epoch.next();
        if let Some(record) = self.replica.take_office(self.epoch, fresh).expect("epochs rise") {
            self.durable.push(record);
            self.replica.epoch_synced(self.epoch);
        }
        self.is_up = true;
    }

    /// Takes a request; what can be answered at once is.
    pub fn receive(&mut self, gateway: usize, call: CallId, request: &Request) -> Vec<Outgoing> {
        let step = match self.step(request) {
            Ok(step) => step,
            Err(refusal) => Step::Done(Response::Refused { retry: refusal.is_routing() }),
        };
        let (lsn, response) = match step {
            Step::Done(response) => return vec![Outgoing { gateway, call, response }],
            Step::Wait { lsn, answer } => (lsn, answer),
            Step::Append { record, answer } => {
                let lsn = record.lsn;
                self.unsynced.push_back(record);
                (lsn, answer)
            }
        };
        self.waiting.push(Waiting { lsn, gateway, call, response });
        Vec::new()
    }

    /// Whether a group commit has something to do.
    #[must_use]
    pub fn has_unsynced(&self) -> bool {
        self.is_up && !self.unsynced.is_empty()
    }

    /// One group commit: everything appended so far becomes durable, then is answered.
    pub fn sync(&mut self) -> Vec<Outgoing> {
        while let Some(record) = self.unsynced.pop_front() {
            self.durable.push(record);
            let effects = self.replica.synced_next();
            self.enact(effects);
        }
        let synced = self.replica.synced();
        let (ready, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|w: &Waiting| w.lsn <= synced);
        self.waiting = waiting;
        let ready: Vec<Waiting> = ready;
        ready
            .into_iter()
            .map(|w| Outgoing { gateway: w.gateway, call: w.call, response: self.fill(w.response) })
            .collect()
    }

    fn step(&mut self, request: &Request) -> Result<Step<Response>, Refusal> {
        Ok(match request {
            Request::Write(write) => {
                let step = self.replica.write(write)?;
                let max_read = self.replica.max_read();
                map(step, |answer| Response::Written { answer, max_read })
            }
            Request::Decide(decide) => map(self.replica.decide(decide)?, Response::Decided),
            Request::Resolve(resolve) => map(self.replica.resolve(resolve)?, |()| Response::Resolved),
            Request::Outcome(question) => map(self.replica.outcome(question)?, Response::Outcome),
            Request::BeginRead { epoch, snapshot } => {
                let response = Response::ReadBegun { foreign: Vec::new() };
                match self.replica.begin_read(*epoch, *snapshot)? {
                    Some(lsn) if !self.skip_pending => Step::Wait { lsn, answer: response },
                    _ => Step::Done(self.fill(response)),
                }
            }
            Request::Read { epoch, snapshot, resolved } => {
                self.replica.check(*epoch)?;
                Step::Done(Response::Rows(self.visible(*snapshot, resolved)))
            }
        })
    }

    /// Foreign stages are listed when the answer is given: those that became known meanwhile count too.
    fn fill(&self, response: Response) -> Response {
        match response {
            Response::ReadBegun { .. } => Response::ReadBegun { foreign: self.replica.foreign_stages() },
            // R4: as of the answer, not of the append: a read that began in between did not see the stage.
            Response::Written { answer, .. } => Response::Written { answer, max_read: self.replica.max_read() },
            other => other,
        }
    }

    fn visible(&self, snapshot: Ts, resolved: &[(TransactionId, Ts)]) -> Vec<(TransactionId, usize)> {
        let seen = |id: &TransactionId, rows: &Rows| {
            let learned = resolved.iter().find(|(learned, _)| learned == id).map(|(_, commit)| *commit);
            rows.commit.or(learned).is_some_and(|commit| commit <= snapshot)
        };
        self.rows.iter().filter(|(id, rows)| seen(id, rows)).map(|(id, rows)| (*id, rows.pieces)).collect()
    }

    fn enact(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Enter { transaction, standing, .. } => {
                    let commit = match standing {
                        Standing::Committed(commit) => Some(commit),
                        Standing::Staged { .. } => None,
                    };
                    let rows = self.rows.entry(transaction).or_insert(Rows { pieces: 0, commit });
                    rows.pieces += 1;
                }
                Effect::Commit { transaction, commit } => {
                    if let Some(rows) = self.rows.get_mut(&transaction) {
                        rows.commit = Some(commit);
                    }
                }
                Effect::Discard { transaction } => {
                    self.rows.remove(&transaction);
                }
            }
        }
    }
}

fn map<T, U>(step: Step<T>, into: impl FnOnce(T) -> U) -> Step<U> {
    match step {
        Step::Append { record, answer } => Step::Append { record, answer: into(answer) },
        Step::Wait { lsn, answer } => Step::Wait { lsn, answer: into(answer) },
        Step::Done(answer) => Step::Done(into(answer)),
    }
}
