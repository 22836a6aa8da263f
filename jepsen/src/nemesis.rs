//! Kills nodes and starts them again, by a seed.

use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Error;
use crate::lab::Lab;

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    KillOne(usize),
    KillMetaLeader,
    /// All processes at once, as a power cut does.
    KillAll,
}

pub struct Nemesis {
    random: ChaCha8Rng,
}

impl Nemesis {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Picks among `nodes` nodes.
    pub fn pick(&mut self, nodes: usize) -> Fault {
        match self.random.random_range(0..10) {
            0 => Fault::KillAll,
            1..=2 => Fault::KillMetaLeader,
            _ => Fault::KillOne(self.random.random_range(0..nodes)),
        }
    }

    /// Lets a fault happen, waits a little, starts what was killed and waits until it serves.
    pub async fn strike(&mut self, lab: &mut Lab, fault: &Fault) -> Result<(), Error> {
        let victims: Vec<usize> = match fault {
            Fault::KillOne(node) => vec![*node],
            Fault::KillMetaLeader => lab.meta_leader()?.into_iter().collect(),
            Fault::KillAll => (0..lab.nodes().len()).collect(),
        };
        for victim in &victims {
            lab.kill(*victim)?;
        }
        // A fault lasts a random while: shorter than an election, or longer.
        let pauses: [u64; 4] = [0, 100, 800, 2500];
        let pause = pauses.choose(&mut self.random).copied().unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        for victim in victims {
            lab.restart(victim)?;
        }
        lab.wait_ready().await
    }
}
