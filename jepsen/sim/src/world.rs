//! Moves messages, time and crashes by a seed.

use std::collections::BTreeMap;

use meridian_proto::{ChunkId, Epoch, Ts};
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Plant;
use crate::chunk::{Chunk, Outgoing};
use crate::gateway::Gateway;
use crate::message::{Message, Request};
use crate::promises::{Label, Promises};

const CHUNKS: u64 = 3;
const GATEWAYS: usize = 3;
const STEPS: usize = 3000;
/// Messages in flight at most; beyond it repeats wait.
const MESSAGES_MAX: usize = 64;

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub acknowledged: usize,
    pub reads: usize,
    pub crashes: usize,
}

/// A broken promise, with the seed that shows it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub seed: u64,
    pub step: usize,
    pub what: String,
}

struct World {
    random: ChaCha8Rng,
    plant: Option<Plant>,
    oracle: u64,
    chunks: BTreeMap<ChunkId, Chunk>,
    gateways: Vec<Gateway>,
    messages: Vec<Message>,
    promises: Promises,
    next_label: Label,
    crashes: usize,
    /// `MERIDIAN_SIM_TRACE`: every delivery is printed.
    is_traced: bool,
}

/// Runs one seed.
pub fn run(seed: u64, plant: Option<Plant>) -> Result<Summary, Broken> {
    let mut world = World::new(seed, plant);
    for step in 0..STEPS {
        world.step().map_err(|what| Broken { seed, step, what })?;
    }
    Ok(Summary {
        acknowledged: world.promises.acknowledged_count(),
        reads: world.promises.reads,
        crashes: world.crashes,
    })
}

impl World {
    fn new(seed: u64, plant: Option<Plant>) -> Self {
        let skip_pending = plant == Some(Plant::ReaderSkipsPending);
        let mut gateways: Vec<Gateway> = (0..GATEWAYS).map(Gateway::new).collect();
        for gateway in &mut gateways {
            gateway.ignore_participants = plant == Some(Plant::FloorIgnoresParticipants);
            gateway.ask_nobody = plant == Some(Plant::ReaderAsksNobody);
        }
        let chunk = |number| (ChunkId(number), Chunk::new(ChunkId(number), Ts(1), skip_pending));
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            plant,
            oracle: 1,
            chunks: (1..=CHUNKS).map(chunk).collect(),
            gateways,
            messages: Vec::new(),
            promises: Promises::default(),
            next_label: 1,
            crashes: 0,
            is_traced: std::env::var_os("MERIDIAN_SIM_TRACE").is_some(),
        }
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.random_range(0..1000) {
            0..=599 => self.deliver()?,
            600..=779 => self.sync(),
            780..=899 => self.drive(),
            900..=959 => self.repeat(),
            960..=963 => self.crash(),
            _ => self.restart(),
        }
        Ok(())
    }

    /// Oracle: each timestamp is above all before it.
    fn timestamp(&mut self) -> Ts {
        self.oracle += self.random.random_range(1..4);
        Ts(self.oracle)
    }

    /// Any message in flight arrives: order is not kept. Some arrive twice, some never.
    fn deliver(&mut self) -> Result<(), String> {
        if self.messages.is_empty() {
            return Ok(());
        }
        let index = self.random.random_range(0..self.messages.len());
        let message = match self.random.random_range(0..20) {
            0 => {
                self.messages.swap_remove(index);
                return Ok(());
            }
            1 => self.messages[index].clone(),
            _ => self.messages.swap_remove(index),
        };
        if self.is_traced {
            println!("{message:?}");
        }
        match message {
            Message::ToChunk { chunk, call, gateway, request } => {
                let Some(primary) = self.chunks.get_mut(&chunk).filter(|primary| primary.is_up) else { return Ok(()) };
                let answers = primary.receive(gateway, call, &request);
                self.send_answers(answers);
                Ok(())
            }
            Message::ToGateway { gateway, call, response } => {
                self.gateways[gateway].receive(call, response, &mut self.promises)
            }
        }
    }

    fn sync(&mut self) {
        let busy = self.chunks.values_mut().filter(|chunk| chunk.has_unsynced()).choose(&mut self.random);
        if let Some(chunk) = busy {
            let answers = chunk.sync();
            self.send_answers(answers);
        }
    }

    fn send_answers(&mut self, answers: Vec<Outgoing>) {
        for Outgoing { gateway, call, response } in answers {
            self.messages.push(Message::ToGateway { gateway, call, response });
        }
    }

    /// An idle gateway begins something; a busy one sends its calls.
    fn drive(&mut self) {
        let number = self.random.random_range(0..self.gateways.len());
        if self.gateways[number].is_idle() {
            if self.random.random_bool(0.6) {
                self.begin_write(number);
            } else {
                let due = self.promises.due();
                let snapshot = self.timestamp();
                let chunks: Vec<ChunkId> = self.chunks.keys().copied().collect();
                self.gateways[number].begin_read(chunks.into_iter(), snapshot, due);
            }
        }
        self.send_calls(number);
    }

    fn begin_write(&mut self, number: usize) {
        let mut wanted = BTreeMap::new();
        for _ in 0..self.random.random_range(1..4) {
            *wanted.entry(ChunkId(self.random.random_range(1..=CHUNKS))).or_default() += 1;
        }
        let snapshot = self.timestamp();
        let label = self.next_label;
        self.next_label += 1;
        self.gateways[number].begin_write(label, wanted, snapshot, &mut self.promises);
    }

    /// Unanswered calls are sent again, to the newest epoch.
    fn repeat(&mut self) {
        let number = self.random.random_range(0..self.gateways.len());
        if self.plant == Some(Plant::RepeatUnderNewIdentity) {
            self.gateways[number].repeat_under_new_identity(&mut self.promises);
        }
        self.send_calls(number);
    }

    fn send_calls(&mut self, gateway: usize) {
        let calls: Vec<_> = self.gateways[gateway].open_calls().map(|(id, call)| (id, call.clone())).collect();
        for (call, open) in calls {
            if self.messages.len() >= MESSAGES_MAX {
                return;
            }
            let epoch = self.chunks[&open.chunk].epoch;
            let request = at_epoch(open.request, epoch);
            self.messages.push(Message::ToChunk { chunk: open.chunk, call, gateway, request });
        }
    }

    fn crash(&mut self) {
        let up = self.chunks.values_mut().filter(|chunk| chunk.is_up).choose(&mut self.random);
        if let Some(chunk) = up {
            chunk.crash();
            self.crashes += 1;
        }
    }

    fn restart(&mut self) {
        let fresh = self.timestamp();
        let fresh = if self.plant == Some(Plant::MaxReadZeroInOffice) { Ts(0) } else { fresh };
        let down = self.chunks.values_mut().filter(|chunk| !chunk.is_up).choose(&mut self.random);
        if let Some(chunk) = down {
            chunk.start(fresh);
        }
    }
}

/// Routes are always the newest (R2).
fn at_epoch(mut request: Request, newest: Epoch) -> Request {
    match &mut request {
        Request::Write(write) => write.epoch = newest,
        Request::Decide(decide) => decide.epoch = newest,
        Request::Resolve(resolve) => resolve.epoch = newest,
        Request::Outcome(question) => question.epoch = newest,
        Request::BeginRead { epoch, .. } | Request::Read { epoch, .. } => *epoch = newest,
    }
    request
}
