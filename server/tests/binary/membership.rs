//! Nodes that come and go.

use std::time::{Duration, Instant};

use crate::common::{Cluster, Node, NodeSpec, PATIENCE, meridian, snapshot, sqlstate_of};

fn status(cluster: &Cluster) -> serde_json::Value {
    let addresses: Vec<String> = cluster.access.iter().map(Node::cluster_address).collect();
    meridian(&["cluster", "status", "--json", "--cluster", &addresses.join(",")]).json()
}

fn node_id(cluster: &Cluster, name: &str) -> u64 {
    let status = status(cluster);
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["name"] == name).unwrap()["id"].as_u64().unwrap()
}

#[tokio::test]
async fn a_fourth_access_node_learns_and_serves() {
    let mut cluster = Cluster::start(3, 1);
    cluster.connect().await.run("CREATE TABLE t (v int)").await;
    cluster.add_access("an4", &[]);
    cluster.wait_ready();
    let sql = cluster.access[3].connect().await;
    sql.run("INSERT INTO t VALUES (1)").await;
    assert_eq!(cluster.connect().await.one("SELECT count(*) FROM t").await, "1");
    let status = status(&cluster);
    let voters = status["members"].as_array().unwrap().iter().filter(|member| member["voter"] == true).count();
    assert_eq!((status["members"].as_array().unwrap().len(), voters), (4, 3), "{status:#}");
}

/// Takes a node out by its name.
#[track_caller]
fn remove(cluster: &Cluster, name: &str) {
    let addresses: Vec<String> = cluster.access.iter().map(Node::cluster_address).collect();
    let removed = meridian(&["node", "remove", name, "--cluster", &addresses.join(",")]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    let said = format!("node {name} (id ");
    assert!(removed.stdout.contains(&said) && removed.stdout.contains("no longer part of"), "{removed:?}");
}

#[track_caller]
fn assert_ends_as_removed(node: &mut Node) {
    assert_eq!(node.wait_end().code(), Some(1));
    let log = node.log();
    let line = log.lines().last().unwrap_or_default();
    assert!(line.starts_with("meridian: this access node cannot go on: node "), "{log}");
    assert!(line.ends_with("was removed from the cluster"), "{log}");
}

#[tokio::test]
async fn an_access_node_that_was_removed_ends_and_the_rest_goes_on() {
    let mut cluster = Cluster::start(3, 1);
    cluster.add_access("an4", &[]);
    cluster.wait_ready();
    cluster.wait_voters(3);
    // A learner, then voters, the leader among them.
    let leader = cluster.access[cluster.leader()].name().to_owned();
    for name in ["an4", &leader] {
        let position = cluster.access.iter().position(|node| node.name() == name).unwrap();
        let client = cluster.access[position].connect().await;
        remove(&cluster, name);
        assert_ends_as_removed(&mut cluster.access[position]);
        let error = client.try_rows("SELECT 1").await.unwrap_err();
        assert!(client.client.is_closed() || sqlstate_of(&error).starts_with("57P0"), "{error}");
        cluster.access.remove(position);
        let sql = cluster.connect().await;
        sql.run(&format!("CREATE TABLE {name} (v int)")).await;
        sql.run(&format!("INSERT INTO {name} VALUES (1)")).await;
        assert_eq!(sql.one(&format!("SELECT count(*) FROM {name}")).await, "1");
    }
    assert_eq!(status(&cluster)["members"].as_array().unwrap().len(), 2);
    cluster.assert_no_panic();
}

#[tokio::test]
async fn an_access_node_that_missed_its_removal_hears_of_it_from_whoever_answers() {
    let mut cluster = Cluster::start(3, 0);
    cluster.add_access("an4", &[]);
    cluster.wait_ready();
    cluster.wait_voters(3);
    // A learner; and a voter that was told of no peers, since it was the first one.
    for name in ["an4", "an1"] {
        let position = cluster.access.iter().position(|node| node.name() == name).unwrap();
        cluster.access[position].signal(libc::SIGSTOP);
        remove(&cluster, name);
        // Whom it took for the leader is gone, too.
        let leader = cluster.leader();
        cluster.access[leader].kill();
        cluster.access[position].signal(libc::SIGCONT);
        assert_ends_as_removed(&mut cluster.access[position]);
        cluster.access[leader].run();
        cluster.access[leader].wait_ready();
        cluster.access.remove(position);
    }
    cluster.wait_ready();
}

#[test]
fn an_access_node_that_was_removed_while_it_was_down_does_not_start_again() {
    let mut cluster = Cluster::start(3, 0);
    cluster.wait_voters(3);
    cluster.access[2].kill();
    let mut gone = cluster.access.remove(2);
    remove(&cluster, "an3");
    // With a peer that it is told of, and with those whom its folder knows.
    let join = std::mem::take(&mut gone.spec_mut().join);
    for join in [join, Vec::new()] {
        gone.spec_mut().join = join;
        let before = snapshot(gone.folder());
        let output = gone.run_to_failure();
        assert_eq!(output.code, Some(1), "{output:?}");
        let line = output.stderr.lines().last().unwrap();
        assert!(line.starts_with("meridian: ") && line.ends_with("was removed from the cluster"), "{line}");
        assert_eq!(snapshot(gone.folder()), before, "untouched");
    }
}

#[test]
fn a_node_is_removed_by_name_or_id_and_a_wrong_one_is_told_with_a_suggestion() {
    let mut cluster = Cluster::start(1, 2);
    let address = cluster.access[0].cluster_address();
    let remove = |node: &str| meridian(&["node", "remove", node, "--cluster", &address]);
    let refused = |node: &str| {
        let output = remove(node);
        assert_eq!(output.code, Some(1), "{output:?}");
        output.error_line().to_owned()
    };
    assert_eq!(
        refused("dn7"),
        "meridian: there is no node \"dn7\"; did you mean \"dn1\"? `meridian node list` shows all"
    );
    assert_eq!(refused("roof"), "meridian: there is no node \"roof\"; `meridian node list` shows all");
    assert!(refused("99").ends_with("node 99 does not exist"));
    assert!(refused("an1").ends_with("the last access node cannot leave"));
    assert_eq!(meridian(&["node", "remove"]).code, Some(2));

    let id = node_id(&cluster, "dn1");
    assert_eq!(remove(&id.to_string()).stdout, format!("node {id} is no longer part of the cluster\n"));
    assert_eq!(remove("dn2").code, Some(0));
    for node in &mut cluster.data {
        assert_eq!(node.wait_end().code(), Some(1));
    }
    assert!(refused("dn2").starts_with("meridian: there is no node \"dn2\""));

    // An access node and a data node of one name.
    let mut namesake = Node::new(NodeSpec {
        role: "data",
        name: "an1".to_owned(),
        folder: cluster.data[0].folder().with_file_name("namesake"),
        join: vec![address.clone()],
        flags: vec!["--shards".to_owned(), "1".to_owned()],
    });
    namesake.run();
    namesake.wait_ready();
    let line = refused("an1");
    assert!(line.contains("access node an1 (id 1) and data node an1") && line.ends_with("by its id"), "{line}");
}

#[tokio::test]
async fn a_data_node_is_removed_only_when_it_is_empty() {
    let mut cluster = Cluster::start(1, 2);
    let sql = cluster.connect().await;
    sql.run("CREATE TABLE t (time timestamptz NOT NULL, device text)").await;
    sql.run("SELECT create_distributed_hypertable('t', 'time', 'device', 16)").await;
    let values: Vec<String> = (0..64).map(|device| format!("('2024-01-01Z', 'd{device}')")).collect();
    sql.run(&format!("INSERT INTO t VALUES {}", values.join(","))).await;
    let address = cluster.access[0].cluster_address();
    let id = node_id(&cluster, "dn2").to_string();
    let refused = meridian(&["node", "remove", &id, "--cluster", &address]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.error_line().contains("still holds data"), "{refused:?}");
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "64");

    cluster.add_data("dn3", &[]);
    cluster.wait_ready();
    let id = node_id(&cluster, "dn3").to_string();
    let removed = meridian(&["node", "remove", &id, "--cluster", &address]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    let names: Vec<_> = status(&cluster)["nodes"].as_array().unwrap().iter().map(|n| n["name"].clone()).collect();
    assert!(!names.contains(&"dn3".into()), "{names:?}");
    // The process of a node that is no more has nothing to do.
    assert_eq!(cluster.data[2].wait_end().code(), Some(1));
    let log = cluster.data[2].log();
    assert!(log.trim_end().ends_with("was removed from the cluster"), "{log}");
}

#[tokio::test]
async fn a_dead_data_node_is_shown_dead_and_live_again_when_it_is_back() {
    let mut cluster = Cluster::start(1, 2);
    let wait_for = |cluster: &Cluster, state: &str| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = status(cluster);
            let nodes = status["nodes"].as_array().unwrap();
            let found = nodes.iter().find(|node| node["name"] == "dn1").unwrap()["state"].clone();
            if found == state {
                return;
            }
            assert!(Instant::now() < deadline, "dn1 stays {found}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    cluster.data[0].kill();
    wait_for(&cluster, "dead");
    cluster.data[0].run();
    wait_for(&cluster, "live");
}

#[tokio::test]
async fn how_soon_a_silent_node_is_dead_can_be_configured() {
    let flags = ["--set", "cluster.heartbeat=100ms", "--set", "cluster.dead_after=400ms"];
    let mut cluster = Cluster::start_with(1, 1, &flags);
    let state = |cluster: &Cluster| {
        let status = status(cluster);
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["name"] == "dn1").unwrap()["state"].clone()
    };
    let deadline = Instant::now() + PATIENCE;
    while state(&cluster) != "live" {
        assert!(Instant::now() < deadline, "dn1 never lives");
    }
    cluster.data[0].kill();
    let killed = Instant::now();
    while state(&cluster) != "dead" {
        // As shipped it takes two seconds from the last heartbeat, which may have been half a second ago.
        assert!(killed.elapsed() < Duration::from_millis(1500), "not dead after {:?}", killed.elapsed());
    }
}

#[test]
fn a_folder_of_another_cluster_is_refused_and_untouched() {
    let mut cluster = Cluster::start(1, 2);
    let other = Cluster::start(1, 0);
    cluster.data.iter_mut().for_each(Node::kill);

    // Node 1 of the cluster, but asked to join another one.
    let folder = cluster.data[0].folder().to_owned();
    let before = snapshot(&folder);
    let stray = Node::new(NodeSpec {
        role: "data",
        name: "dn1".to_owned(),
        folder: folder.clone(),
        join: vec![other.access[0].cluster_address()],
        flags: vec!["--shards".to_owned(), "1".to_owned()],
    });
    let output = stray.run_to_failure();
    assert_eq!(output.code, Some(1), "{output:?}");
    let line = output.stderr.lines().last().unwrap();
    assert!(line.starts_with("meridian: ") && line.contains("cluster"), "{line}");
    assert_eq!(snapshot(&folder), before, "untouched");

    // An access node's folder, likewise.
    cluster.access[0].kill();
    let folder = cluster.access[0].folder().to_owned();
    let before = snapshot(&folder);
    let stray = Node::new(NodeSpec {
        role: "access",
        name: "an1".to_owned(),
        folder: folder.clone(),
        join: vec![other.access[0].cluster_address()],
        flags: Vec::new(),
    });
    let output = stray.run_to_failure();
    assert_eq!(output.code, Some(1), "{output:?}");
    let line = output.stderr.lines().last().unwrap();
    assert!(line.starts_with("meridian: ") && line.contains("is of cluster"), "{line}");
    assert_eq!(snapshot(&folder), before, "untouched");
}

#[tokio::test]
async fn a_folder_of_another_node_is_refused_and_untouched() {
    let mut cluster = Cluster::start(3, 2);
    let sql = cluster.connect().await;
    sql.run("CREATE TABLE t (v int)").await;
    sql.run("INSERT INTO t VALUES (1)").await;
    cluster.data.iter_mut().for_each(Node::kill);
    cluster.access[2].kill();

    let join = vec![cluster.access[0].cluster_address()];
    let cases = [
        // The folder of node, the role and name that it is started with, what the line must say.
        (cluster.data[0].folder(), "data", "dn2", "belongs to node \"dn1\""),
        (cluster.data[1].folder(), "data", "dn9", "belongs to node \"dn2\""),
        (cluster.data[0].folder(), "access", "an3", "belongs to data node"),
        (cluster.access[2].folder(), "access", "an2", "belongs to node \"an3\""),
        (cluster.access[2].folder(), "data", "dn1", "belongs to access node"),
    ];
    for (folder, role, name, said) in cases {
        let before = snapshot(folder);
        let flags = if role == "data" { vec!["--shards".to_owned(), "1".to_owned()] } else { Vec::new() };
        let spec = NodeSpec { role, name: name.to_owned(), folder: folder.to_owned(), join: join.clone(), flags };
        let output = Node::new(spec).run_to_failure();
        assert_eq!(output.code, Some(1), "{output:?}");
        let line = output.stderr.lines().last().unwrap();
        assert!(line.starts_with("meridian: ") && line.contains(said), "{line}");
        assert_eq!(snapshot(folder), before, "untouched by {name}");
    }

    // Whose folders they are, they serve as before.
    cluster.data.iter_mut().for_each(Node::run);
    cluster.access[2].run();
    cluster.wait_ready();
    assert_eq!(cluster.access[2].connect().await.one("SELECT count(*) FROM t").await, "1");
}
