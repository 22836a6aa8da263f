//! Many seeds keep the promises; every planted bug is caught.
//!
//! One seed again: `MERIDIAN_SIM_SEED=17 cargo nextest run --cargo-profile ci -p jepsen-sim keep_the_promises`.
//! More of them: `MERIDIAN_SIM_SEEDS=1000000`.

use jepsen_sim::world::run;
use jepsen_sim::{PLANTS, Plant};

const SEEDS_DEFAULT: u64 = 2000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a whole number"))
}

#[test]
fn transactions_and_reads_keep_the_promises() {
    let seeds = match number("MERIDIAN_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MERIDIAN_SIM_SEEDS").unwrap_or(SEEDS_DEFAULT),
    };
    let (mut acknowledged, mut reads, mut crashes) = (0, 0, 0);
    for seed in seeds.clone() {
        let summary = run(seed, None).unwrap_or_else(|broken| panic!("{broken:?}"));
        acknowledged += summary.acknowledged;
        reads += summary.reads;
        crashes += summary.crashes;
    }
    println!("{} seeds: {acknowledged} acknowledged, {reads} reads, {crashes} crashes", seeds.end - seeds.start);
    let least = (seeds.end - seeds.start) as usize;
    assert!(acknowledged >= least && reads >= least, "too little happened");
}

#[test]
fn the_same_seed_runs_the_same() {
    assert_eq!(run(5, None), run(5, None));
}

#[test]
fn planted_bugs_are_caught() {
    let caught = |plant: Plant| (0..SEEDS_DEFAULT).find_map(|seed| run(seed, Some(plant)).err());
    for plant in PLANTS {
        let broken = caught(plant).unwrap_or_else(|| panic!("{plant:?} is not caught by {SEEDS_DEFAULT} seeds"));
        println!("{plant:?}: seed {} at step {}: {}", broken.seed, broken.step, broken.what);
    }
}
