//! What the memory of this machine gives one core: a copy, and a sum over doubles. No scan can be faster.

use std::hint::black_box;
use std::time::Instant;

use crate::report::Figure;

/// Far more than any cache.
const BYTES: usize = 256 << 20;
const ROUNDS: usize = 5;

/// Gigabytes a second, each byte counted once.
pub struct Limits {
    pub copy: f64,
    pub sum: f64,
}

impl Limits {
    #[must_use]
    pub fn measure() -> Self {
        let source: Vec<f64> = (0..BYTES / size_of::<f64>()).map(|value| value as f64).collect();
        let mut target = source.clone();
        let copy = best(|| {
            target.copy_from_slice(black_box(&source));
            black_box(&mut target);
        });
        let sum = best(|| {
            black_box(summed(black_box(&source)));
        });
        Self { copy: BYTES as f64 / copy / 1e9, sum: BYTES as f64 / sum / 1e9 }
    }

    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        vec![
            Figure::new("memory copy, one core", self.copy, "GB/s"),
            Figure::new("memory sum, one core", self.sum, "GB/s"),
        ]
    }
}

/// In eight lanes, so that additions do not wait for one another.
fn summed(values: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    for chunk in values.as_chunks::<8>().0 {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    lanes.iter().sum()
}

/// Seconds of the fastest of some rounds.
pub fn best(run: impl FnMut()) -> f64 {
    best_of(ROUNDS, run)
}

pub fn best_of(rounds: usize, mut run: impl FnMut()) -> f64 {
    let seconds = (0..rounds).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    });
    seconds.fold(f64::MAX, f64::min)
}

#[cfg(test)]
mod tests {
    #[test]
    fn lanes_sum_to_the_whole() {
        assert_eq!(super::summed(&[1.5; 64]), 96.0);
    }
}
