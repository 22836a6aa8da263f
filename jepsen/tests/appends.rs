//! Appends to a cluster of real processes while nodes are killed: nothing acknowledged is lost or doubled, statements
//! are atomic, reads see what was acknowledged before them.

use std::time::{Duration, Instant};

use jepsen::checker::check;
use jepsen::lab::{Lab, Shape};
use jepsen::nemesis::{Fault, Nemesis};
use jepsen::workload::Appends;

const WRITERS: usize = 4;
const READERS: usize = 1;

/// Lets the faults happen one after the other under load, then reads everything once more.
async fn run(shape: Shape, faults: Vec<Fault>, seed: u64) {
    println!("seed {seed}, faults {faults:?}");
    let mut lab = Lab::start(shape).await.unwrap();
    let appends = Appends::create(lab.sql_addresses()).await.unwrap();
    let writers = (0..WRITERS).map(|number| tokio::spawn(appends.clone().write(number)));
    let readers = (0..READERS).map(|number| tokio::spawn(appends.clone().read(number)));
    let clients: Vec<_> = writers.chain(readers).collect();
    let mut nemesis = Nemesis::new(seed);
    for fault in &faults {
        tokio::time::sleep(Duration::from_millis(700)).await;
        nemesis.strike(&mut lab, fault).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    appends.stop();
    for client in clients {
        client.await.unwrap();
    }
    final_read(&lab, &appends).await;
    let verdict = check(&appends.history.events());
    println!("{verdict:?}");
    assert!(verdict.acknowledged > 10 && verdict.reads > 1, "too little happened: {verdict:?}");
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
}

/// The last word: a read after everything has ended, within a deadline.
async fn final_read(lab: &Lab, appends: &Appends) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(client) = lab.connect(0).await
            && appends.read_once(&client).await.is_ok()
        {
            return;
        }
        assert!(Instant::now() < deadline, "no final read; log of an1:\n{}", lab.log(0));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_survive_the_loss_of_data_nodes() {
    run(Shape { access: 1, data: 2 }, vec![Fault::KillOne(1), Fault::KillOne(2)], 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_survive_the_loss_of_the_meta_leader() {
    run(Shape { access: 3, data: 1 }, vec![Fault::KillMetaLeader, Fault::KillMetaLeader], 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_survive_a_power_cut_of_all_processes() {
    run(Shape { access: 3, data: 3 }, vec![Fault::KillAll], 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_survive_random_kills() {
    let seed = std::env::var("MERIDIAN_JEPSEN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(4);
    let mut nemesis = Nemesis::new(seed);
    let shape = Shape { access: 3, data: 3 };
    let faults = (0..4).map(|_| nemesis.pick(shape.access + shape.data)).collect();
    run(shape, faults, seed).await;
}
