//! Many seeds keep the promises; every planted bug is caught.
//!
//! A seed that fails prints the command that runs it again. More of them, for as long as it takes, from seed 5000 on:
//! `MERIDIAN_SIM_SEEDS=1000000 MERIDIAN_SIM_FIRST=5000 cargo test --profile ci -p jepsen-sim --test seeds keep_the_promises -- --nocapture`.

use jepsen_sim::seeds::{Seeds, again, planted};
use jepsen_sim::world::run;
use jepsen_sim::{PLANTS, Plant};

const SEEDS_MOST: u64 = 2000;

#[test]
fn transactions_and_reads_keep_the_promises() {
    let (seeds, plant) = (Seeds::asked(SEEDS_MOST), planted(Plant::named));
    let summaries = seeds
        .run(|seed| run(seed, plant))
        .unwrap_or_else(|(seed, broken)| panic!("{broken:?}\nagain: {}", again("keep_the_promises", seed, plant)));
    let count = summaries.len();
    let (mut acknowledged, mut reads, mut crashes) = (0, 0, 0);
    for summary in summaries {
        acknowledged += summary.acknowledged;
        reads += summary.reads;
        crashes += summary.crashes;
    }
    println!("{count} seeds: {acknowledged} acknowledged, {reads} reads, {crashes} crashes");
    assert!(acknowledged >= count && reads >= count, "too little happened");
}

#[test]
fn the_same_seed_runs_the_same() {
    assert_eq!(run(5, None), run(5, None));
}

#[test]
fn planted_bugs_are_caught() {
    let caught = |plant: Plant| (0..SEEDS_MOST).find_map(|seed| run(seed, Some(plant)).err());
    for plant in PLANTS {
        let broken = caught(plant).unwrap_or_else(|| panic!("{plant:?} is not caught by {SEEDS_MOST} seeds"));
        let again = again("keep_the_promises", broken.seed, Some(plant));
        println!("{plant:?}: seed {} at step {}: {}\nagain: {again}", broken.seed, broken.step, broken.what);
    }
}
