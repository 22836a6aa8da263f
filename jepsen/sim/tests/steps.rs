//! Flush, compaction, compression and removal, cut short at every operation of the disk; bugs in them are caught.
//!
//! A seed that fails prints the command that runs it again. More of them, all acts with each:
//! `MERIDIAN_SIM_SEEDS=1000 cargo test --profile ci -p jepsen-sim --test steps every_operation -- --nocapture`.

use jepsen_sim::engine::EnginePlant;
use jepsen_sim::seeds::{Seeds, again, planted};
use jepsen_sim::steps::{ACTS, Act, StepsSummary, run};

/// Of each act; every one has all its operations.
const SEEDS_MOST: u64 = 6;
const PLANT_SEEDS: u64 = 20;

#[test]
fn power_cuts_at_every_operation_leave_the_state_before_or_after() {
    let (seeds, plant) = (Seeds::asked(SEEDS_MOST), planted(EnginePlant::named));
    for act in ACTS {
        let summaries = seeds
            .run(|seed| run(act, seed, plant))
            .unwrap_or_else(|(seed, broken)| panic!("{broken}\nagain: {}", again("every_operation", seed, plant)));
        let count = summaries.len();
        let all: StepsSummary = summaries.into_iter().sum();
        println!("{act:?}: {count} seeds: {all:?}");
        assert!(all.found_before > 0 && all.found_after > 0, "{act:?}: {all:?}");
    }
}

#[test]
fn planted_bugs_in_each_act_are_caught() {
    for plant in [EnginePlant::SegmentsNotSynced, EnginePlant::ManifestsNotSynced, EnginePlant::FileNamesNotSynced] {
        // A removal writes nothing that could be synced.
        for act in ACTS.into_iter().filter(|act| *act != Act::Remove || plant == EnginePlant::FileNamesNotSynced) {
            let caught = Seeds::up_to(PLANT_SEEDS).run(|seed| run(act, seed, Some(plant)));
            let (seed, broken) = caught.expect_err(&format!("{plant:?} is not caught in {act:?}"));
            println!("{plant:?}: {broken}\nagain: {}", again("every_operation", seed, Some(plant)));
        }
    }
}
