//! Which seeds a test runs: as many as there is time for by default, as many as are asked for by hand, on all cores. The
//! smallest one that fails says how to run it again.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a long run says how far it is.
const PROGRESS_SEEDS: u64 = 10_000;

/// Of a test that is not asked for more: it may take three minutes.
const TIME_MAX: Duration = Duration::from_secs(100);
/// Run however long it takes.
const LEAST: u64 = 1000;

/// Seeds to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds {
    range: Range<u64>,
    /// None is begun later, but for the [`LEAST`].
    time_max: Option<Duration>,
}

impl Seeds {
    /// `MERIDIAN_SIM_SEED=17`: only that one. `MERIDIAN_SIM_SEEDS=1000000`: so many, from `MERIDIAN_SIM_FIRST` on. Else
    /// `most`, or fewer on a busy machine.
    ///
    /// # Panics
    /// When one of them is no number.
    #[must_use]
    pub fn asked(most: u64) -> Self {
        if let Some(seed) = number("MERIDIAN_SIM_SEED") {
            return Self { range: seed..seed + 1, time_max: None };
        }
        let first = number("MERIDIAN_SIM_FIRST").unwrap_or(0);
        match number("MERIDIAN_SIM_SEEDS") {
            Some(count) => Self { range: first..first + count, time_max: None },
            None => Self { range: first..first + most, time_max: Some(TIME_MAX) },
        }
    }

    #[must_use]
    pub fn up_to(count: u64) -> Self {
        Self { range: 0..count, time_max: None }
    }

    fn is_over(&self, seed: u64, begun: Instant) -> bool {
        let is_late = self.time_max.is_some_and(|time_max| begun.elapsed() > time_max);
        seed >= self.range.end || (is_late && seed - self.range.start >= LEAST)
    }

    /// Runs each seed; the summaries, in no order, or the smallest seed that broke something. No seed is begun after one
    /// that broke.
    pub fn run<S: Send, B: Send>(&self, run: impl Fn(u64) -> Result<S, B> + Sync) -> Result<Vec<S>, (u64, B)> {
        let (begun, next) = (Instant::now(), AtomicU64::new(self.range.start));
        let summaries = Mutex::new(Vec::new());
        let broken: Mutex<Option<(u64, B)>> = Mutex::new(None);
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if self.is_over(seed, begun) || lock(&broken).is_some() {
                    return;
                }
                match run(seed) {
                    Ok(summary) => lock(&summaries).push(summary),
                    Err(what) => keep_smallest(&mut lock(&broken), seed, what),
                }
                let done = seed + 1 - self.range.start;
                if done.is_multiple_of(PROGRESS_SEEDS) {
                    println!("{done} of {} seeds", self.range.end - self.range.start);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(work);
            }
        });
        match broken.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(broken) => Err(broken),
            None => Ok(summaries.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

/// The command that runs a seed again, in the test whose name has that in it.
#[must_use]
pub fn again(test: &str, seed: u64, plant: Option<impl Debug>) -> String {
    let plant = plant.map_or(String::new(), |plant| format!("MERIDIAN_SIM_PLANT={plant:?} "));
    format!("{plant}MERIDIAN_SIM_SEED={seed} cargo nextest run --cargo-profile ci --retries 0 -p jepsen-sim {test}")
}

/// `MERIDIAN_SIM_PLANT=LogNotSynced`: the bug that is to be built in.
///
/// # Panics
/// When there is none of that name.
#[must_use]
pub fn planted<P>(named: impl Fn(&str) -> Option<P>) -> Option<P> {
    let name = std::env::var("MERIDIAN_SIM_PLANT").ok()?;
    Some(named(&name).unwrap_or_else(|| panic!("there is no bug {name} to plant")))
}

fn keep_smallest<B>(broken: &mut Option<(u64, B)>, seed: u64, what: B) {
    if broken.as_ref().is_none_or(|(smallest, _)| seed < *smallest) {
        *broken = Some((seed, what));
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_runs_once() {
        let seeds = Seeds { range: 3..103, time_max: None };
        let mut ran = seeds.run(Ok::<_, ()>).unwrap();
        ran.sort_unstable();
        assert_eq!(ran, (3..103).collect::<Vec<_>>());
    }

    #[test]
    fn without_time_left_only_the_least_are_run() {
        let seeds = Seeds { range: 0..3 * LEAST, time_max: Some(Duration::ZERO) };
        assert_eq!(seeds.run(Ok::<_, ()>).unwrap().len() as u64, LEAST);
    }

    #[test]
    fn the_smallest_broken_seed_is_named() {
        let run = |seed| if seed % 10 == 7 { Err("broken") } else { Ok(seed) };
        assert_eq!(Seeds::up_to(100).run(run), Err((7, "broken")));
    }
}
