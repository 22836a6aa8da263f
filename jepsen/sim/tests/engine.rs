//! A shard on a bad disk keeps its promises under many seeds; planted bugs are caught.
//!
//! A seed that fails prints the command that runs it again. More of them, for as long as it takes, from seed 5000 on:
//! `MERIDIAN_SIM_SEEDS=1000000 MERIDIAN_SIM_FIRST=5000 cargo test --profile ci -p jepsen-sim --test engine loses_nothing -- --nocapture`.

use jepsen_sim::engine::{ENGINE_PLANTS, EngineBroken, EnginePlant, EngineSummary, run};
use jepsen_sim::seeds::{Seeds, again, planted};

/// Less than a minute on two idle cores.
const SEEDS_MOST: u64 = 3000;
const PLANT_SEEDS: u64 = 2000;

fn described(broken: &EngineBroken, plant: Option<EnginePlant>) -> String {
    let EngineBroken { seed, life, what } = broken;
    format!("seed {seed}, life {life}: {what}\nagain: {}", again("loses_nothing", *seed, plant))
}

#[test]
fn a_shard_on_a_bad_disk_loses_nothing_and_returns_nothing_wrong() {
    let plant = planted(EnginePlant::named);
    let ran = Seeds::asked(SEEDS_MOST).run(|seed| run(seed, plant));
    let summaries = ran.unwrap_or_else(|(_, broken)| panic!("{}", described(&broken, plant)));
    let count = summaries.len() as u64;
    let all: EngineSummary = summaries.into_iter().sum();
    println!("{count} seeds: {all:?}");
    if count >= 100 {
        assert!(all.acknowledged >= count && all.rewrites >= count && all.scans >= count, "too little: {all:?}");
        assert!(all.power_cuts > count && all.reported > 0 && all.refused > 0, "too little went wrong: {all:?}");
    }
}

#[test]
fn the_same_seed_on_a_bad_disk_runs_the_same() {
    for seed in 0..20 {
        assert_eq!(run(seed, None), run(seed, None));
    }
}

#[test]
fn planted_bugs_on_a_bad_disk_are_caught() {
    // Those that no disk can imitate are built in with debug assertions only.
    let built_in = ENGINE_PLANTS.into_iter().filter(|plant| cfg!(debug_assertions) || !plant.is_overlooked());
    for plant in built_in {
        let caught = Seeds::up_to(PLANT_SEEDS).run(|seed| run(seed, Some(plant)));
        let (_, broken) = caught.expect_err(&format!("{plant:?} is not caught by {PLANT_SEEDS} seeds"));
        println!("{plant:?}: {}", described(&broken, Some(plant)));
    }
}
