//! A gateway: runs one transaction or one read at a time, by the client's coordinator core, and repeats what is not
//! answered.

use std::collections::{BTreeMap, BTreeSet};

use meridian_client::cluster::coordinator::{Coordinator, Decide as CoreDecide, End, Piece};
use meridian_engine::replica::{Answer, Decide, Decision, Question, Resolve, WriteMode, WriteRequest};
use meridian_proto::{ChunkId, CommandId, Epoch, ProducerId, Sequence, TransactionId, Ts};

use crate::chunk::SCHEMA;
use crate::message::{CallId, Request, Response};
use crate::promises::{Label, Promises, Shown};

/// A call that waits for its answer.
#[derive(Clone, Debug)]
pub struct Call {
    pub chunk: ChunkId,
    pub request: Request,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write(Piece),
    Decide,
    Resolve,
    BeginRead,
    Ask { reader: ChunkId, transaction: TransactionId },
    Read,
}

/// What the gateway does now.
enum Work {
    Idle,
    Transaction(Box<Transaction>),
    Read(Box<Reading>),
}

struct Transaction {
    label: Label,
    id: TransactionId,
    core: Coordinator,
    snapshot: Ts,
    decide: Option<CoreDecide>,
    outcome: Option<Decision>,
}

struct Reading {
    snapshot: Ts,
    due: BTreeSet<Label>,
    resolved: BTreeMap<ChunkId, Vec<(TransactionId, Ts)>>,
    open_questions: BTreeMap<ChunkId, usize>,
    shown: Shown,
    missing: BTreeSet<ChunkId>,
}

pub struct Gateway {
    producer: ProducerId,
    sequence: u64,
    calls: BTreeMap<CallId, Call>,
    next_call: CallId,
    work: Work,
    pub ignore_participants: bool,
    pub ask_nobody: bool,
}

impl Gateway {
    #[must_use]
    pub fn new(number: usize) -> Self {
        Self {
            producer: ProducerId(number as u64 + 1),
            sequence: 0,
            calls: BTreeMap::new(),
            next_call: 0,
            work: Work::Idle,
            ignore_participants: false,
            ask_nobody: false,
        }
    }

    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.work, Work::Idle)
    }

    /// Calls without an answer, to be repeated.
    pub fn open_calls(&self) -> impl Iterator<Item = (CallId, &Call)> {
        self.calls.iter().map(|(id, call)| (*id, call))
    }

    /// Begins a transaction that writes these numbers of pieces; in one phase when it is one piece.
    pub fn begin_write(
        &mut self,
        label: Label,
        wanted: BTreeMap<ChunkId, usize>,
        snapshot: Ts,
        promises: &mut Promises,
    ) {
        let id = self.next_identity();
        promises.begin(label, id, wanted.clone());
        let mut core = Coordinator::default();
        core.note_snapshot(snapshot);
        let is_one = wanted.values().sum::<usize>() == 1;
        for (chunk, count) in wanted {
            for _ in 0..count {
                let piece = if is_one { core.only(chunk) } else { core.stage(chunk) };
                self.call(chunk, write_request(id, piece, snapshot), Kind::Write(piece));
            }
        }
        let transaction = Transaction { label, id, core, snapshot, decide: None, outcome: None };
        self.work = Work::Transaction(Box::new(transaction));
    }

    /// Begins a read of all chunks.
    pub fn begin_read(&mut self, chunks: impl Iterator<Item = ChunkId>, snapshot: Ts, due: BTreeSet<Label>) {
        let missing: BTreeSet<ChunkId> = chunks.collect();
        for chunk in &missing {
            self.call(*chunk, Request::BeginRead { epoch: Epoch(0), snapshot }, Kind::BeginRead);
        }
        let reading = Reading {
            snapshot,
            due,
            resolved: BTreeMap::new(),
            open_questions: BTreeMap::new(),
            shown: Shown::new(),
            missing,
        };
        self.work = Work::Read(Box::new(reading));
    }

    /// A planted bug: the open one-phase write is sent once more as somebody else's.
    pub fn repeat_under_new_identity(&mut self, promises: &mut Promises) {
        let id = self.next_identity();
        let Work::Transaction(transaction) = &self.work else { return };
        promises.rename(transaction.label, id);
        for call in self.calls.values_mut() {
            if let (Kind::Write(piece), Request::Write(write)) = (call.kind, &mut call.request)
                && piece.holder.is_none()
            {
                write.transaction = id;
            }
        }
    }

    /// Takes an answer. The first broken promise, in words.
    pub fn receive(&mut self, id: CallId, response: Response, promises: &mut Promises) -> Result<(), String> {
        if matches!(response, Response::Refused { retry: true }) {
            // Repeated with the next epoch by the world's timer.
            return Ok(());
        }
        let Some(call) = self.calls.remove(&id) else { return Ok(()) };
        match std::mem::replace(&mut self.work, Work::Idle) {
            Work::Idle => Ok(()),
            Work::Transaction(transaction) => {
                self.transaction_answer(transaction, &call, response, promises);
                Ok(())
            }
            Work::Read(reading) => self.read_answer(reading, &call, response, promises),
        }
    }

    fn transaction_answer(
        &mut self,
        mut transaction: Box<Transaction>,
        call: &Call,
        response: Response,
        promises: &mut Promises,
    ) {
        match (call.kind, response) {
            (Kind::Write(piece), Response::Written { answer, max_read }) => match answer.commit {
                Some(commit) if piece.holder.is_none() => transaction.core.committed_at_once(commit),
                _ => transaction.core.staged(if self.ignore_participants { Ts(0) } else { max_read }),
            },
            (Kind::Decide, Response::Decided(decision)) => {
                // The client is answered now; the participants hear of it later.
                match decision {
                    Decision::Committed(_) => promises.acknowledge(transaction.label),
                    Decision::Aborted => promises.abort(transaction.label),
                }
                transaction.outcome = Some(decision);
                self.tell_participants(&transaction, decision);
            }
            (Kind::Resolve, Response::Resolved) => {}
            // Refused for good: whoever was promised nothing may be left in the dark.
            _ => {
                self.calls.clear();
                return;
            }
        }
        self.go_on(transaction, promises);
    }

    fn go_on(&mut self, mut transaction: Box<Transaction>, promises: &mut Promises) {
        if !self.calls.is_empty() {
            self.work = Work::Transaction(transaction);
            return;
        }
        if transaction.outcome.is_some() {
            return;
        }
        match transaction.core.end() {
            End::Nothing => {}
            End::Committed(_) => promises.acknowledge(transaction.label),
            End::Decide(decide) => {
                let request = Decide {
                    chunk: decide.holder,
                    epoch: Epoch(0),
                    transaction: transaction.id,
                    // Some transactions are rolled back.
                    commit: !transaction.label.is_multiple_of(7),
                    max_read: if self.ignore_participants { transaction.snapshot } else { decide.floor },
                    participants: decide.participants.clone(),
                    pieces: decide.pieces,
                };
                self.call(decide.holder, Request::Decide(request), Kind::Decide);
                transaction.decide = Some(decide);
                self.work = Work::Transaction(transaction);
            }
        }
    }

    fn tell_participants(&mut self, transaction: &Transaction, decision: Decision) {
        let Some(decide) = &transaction.decide else { return };
        let commit = match decision {
            Decision::Committed(commit) => Some(commit),
            Decision::Aborted => None,
        };
        for chunk in decide.participants.iter().filter(|chunk| **chunk != decide.holder) {
            let resolve = Resolve { chunk: *chunk, epoch: Epoch(0), transaction: transaction.id, commit };
            self.call(*chunk, Request::Resolve(resolve), Kind::Resolve);
        }
    }

    fn read_answer(
        &mut self,
        mut reading: Box<Reading>,
        call: &Call,
        response: Response,
        promises: &mut Promises,
    ) -> Result<(), String> {
        match (call.kind, response) {
            (Kind::BeginRead, Response::ReadBegun { foreign }) => {
                let foreign = if self.ask_nobody { Vec::new() } else { foreign };
                reading.open_questions.insert(call.chunk, foreign.len());
                for (transaction, holder) in foreign {
                    let question = Question { chunk: holder, epoch: Epoch(0), transaction, snapshot: reading.snapshot };
                    self.call(holder, Request::Outcome(question), Kind::Ask { reader: call.chunk, transaction });
                }
                self.read_rows(&reading, call.chunk);
            }
            (Kind::Ask { reader, transaction }, Response::Outcome(answer)) => {
                if let Answer::Committed { commit, .. } = answer {
                    reading.resolved.entry(reader).or_default().push((transaction, commit));
                }
                if let Some(open) = reading.open_questions.get_mut(&reader) {
                    *open -= 1;
                }
                self.read_rows(&reading, reader);
            }
            (Kind::Read, Response::Rows(rows)) => {
                for (transaction, pieces) in rows {
                    reading.shown.entry(transaction).or_default().insert(call.chunk, pieces);
                }
                reading.missing.remove(&call.chunk);
            }
            // A read that is refused for good shows nothing.
            _ => {
                self.calls.clear();
                return Ok(());
            }
        }
        if reading.missing.is_empty() {
            return promises.read(&reading.shown, &reading.due);
        }
        self.work = Work::Read(reading);
        Ok(())
    }

    /// Reads a chunk when all its questions are answered.
    fn read_rows(&mut self, reading: &Reading, chunk: ChunkId) {
        if reading.open_questions.get(&chunk) == Some(&0) {
            let resolved = reading.resolved.get(&chunk).cloned().unwrap_or_default();
            let request = Request::Read { epoch: Epoch(0), snapshot: reading.snapshot, resolved };
            self.call(chunk, request, Kind::Read);
        }
    }

    fn call(&mut self, chunk: ChunkId, request: Request, kind: Kind) {
        self.next_call += 1;
        self.calls.insert(self.next_call, Call { chunk, request, kind });
    }

    fn next_identity(&mut self) -> TransactionId {
        self.sequence += 1;
        TransactionId { producer: self.producer, sequence: Sequence(self.sequence) }
    }
}

fn write_request(transaction: TransactionId, piece: Piece, snapshot: Ts) -> Request {
    let mode = piece.holder.map_or(WriteMode::OnePhase, |holder| WriteMode::Stage { holder });
    Request::Write(WriteRequest {
        epoch: Epoch(0),
        transaction,
        // One transaction at a time, and its participants are told before the next begins.
        low_water: transaction.sequence,
        piece: piece.number,
        command: CommandId(0),
        snapshot,
        schema_version: SCHEMA,
        mode,
        row_count: 1,
    })
}
