//! A shard on a bad disk keeps its promises under many seeds; planted bugs are caught.
//!
//! One seed again: `MERIDIAN_SIM_SEED=17 cargo nextest run --cargo-profile ci -p jepsen-sim bad_disk`.
//! More of them: `MERIDIAN_SIM_SEEDS=1000000`.

use jepsen_sim::engine::{ENGINE_PLANTS, EngineSummary, run};

const SEEDS_DEFAULT: u64 = 1200;
const PLANT_SEEDS: u64 = 400;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a whole number"))
}

#[test]
fn a_shard_on_a_bad_disk_loses_nothing_and_returns_nothing_wrong() {
    let seeds = match number("MERIDIAN_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MERIDIAN_SIM_SEEDS").unwrap_or(SEEDS_DEFAULT),
    };
    let count = seeds.end - seeds.start;
    let mut all = EngineSummary::default();
    for seed in seeds {
        let summary = run(seed, None).unwrap_or_else(|broken| {
            let again = format!("MERIDIAN_SIM_SEED={seed} cargo nextest run --cargo-profile ci -p jepsen-sim bad_disk");
            panic!("{broken:?}\nagain: {again}")
        });
        all.lives += summary.lives;
        all.acknowledged += summary.acknowledged;
        all.refused += summary.refused;
        all.scans += summary.scans;
        all.rewrites += summary.rewrites;
        all.power_cuts += summary.power_cuts;
        all.damaged += summary.damaged;
        all.reported += summary.reported;
    }
    println!("{count} seeds: {all:?}");
    assert!(all.acknowledged >= count && all.rewrites >= count && all.scans >= count, "too little happened: {all:?}");
    assert!(count < 100 || all.power_cuts > count && all.reported > 0 && all.refused > 0, "{all:?}");
}

#[test]
fn the_same_seed_on_a_bad_disk_runs_the_same() {
    for seed in 0..20 {
        assert_eq!(run(seed, None), run(seed, None));
    }
}

#[test]
fn planted_bugs_on_a_bad_disk_are_caught() {
    for plant in ENGINE_PLANTS {
        let broken = (0..PLANT_SEEDS).find_map(|seed| run(seed, Some(plant)).err());
        let broken = broken.unwrap_or_else(|| panic!("{plant:?} is not caught by {PLANT_SEEDS} seeds"));
        println!("{plant:?}: seed {} in life {}: {}", broken.seed, broken.life, broken.what);
    }
}
