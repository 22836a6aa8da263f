//! Copies of an access node's folder, and processes of one node that meet: the wrong one ends, and says why.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Cluster, Node, NodeSpec, meridian, run, snapshot};

/// A copy of a folder, beside it.
fn copy(folder: &Path, name: &str) -> PathBuf {
    let target = folder.with_file_name(name);
    let mut command = Command::new("cp");
    command.arg("-a").arg(folder).arg(&target);
    assert_eq!(run(command).code, Some(0));
    target
}

/// A process on that folder, at ports of its own, that is not told of anybody.
fn stray(folder: PathBuf, name: &str) -> Node {
    Node::new(NodeSpec { role: "access", name: name.to_owned(), folder, join: Vec::new(), flags: Vec::new() })
}

#[track_caller]
fn assert_last_line(node: &Node, expected: &str) {
    let log = node.log();
    let line = log.lines().last().unwrap_or_default();
    assert!(line.starts_with("meridian: ") && line.ends_with(expected), "{expected}\n{log}");
}

fn members(cluster: &Cluster) -> usize {
    let addresses: Vec<String> = cluster.access.iter().map(Node::cluster_address).collect();
    let status = meridian(&["cluster", "status", "--json", "--cluster", &addresses.join(",")]).json();
    status["members"].as_array().unwrap().iter().filter(|member| member["voter"] == true).count()
}

#[tokio::test]
async fn a_copy_that_is_told_of_nobody_asks_those_whom_its_folder_knows() {
    let mut cluster = Cluster::start(3, 1);
    cluster.wait_voters(3);
    cluster.access[2].kill();
    let folder = copy(cluster.access[2].folder(), "copy");
    cluster.access[2].run();
    cluster.access[2].wait_ready();

    let before = snapshot(&folder);
    let output = stray(folder.clone(), "an3").run_to_failure();
    assert_eq!(output.code, Some(1), "{output:?}");
    let line = output.stderr.lines().last().unwrap();
    assert!(line.starts_with("meridian: ") && line.contains("this data folder is a copy of its"), "{line}");
    assert_eq!(snapshot(&folder), before, "untouched");

    // Nor under another name.
    let output = stray(folder.clone(), "an9").run_to_failure();
    let line = output.stderr.lines().last().unwrap();
    assert!(line.contains("belongs to node \"an3\", this process was started as \"an9\""), "{line}");
    assert_eq!(snapshot(&folder), before, "untouched");
    assert!(cluster.access[2].is_running());
    cluster.access[2].wait_ready();
}

#[test]
fn a_copy_of_the_only_access_node_finds_it_where_the_folder_was_used_last() {
    let mut cluster = Cluster::start(1, 1);
    let folder = copy(cluster.access[0].folder(), "copy");
    let before = snapshot(&folder);
    let output = stray(folder.clone(), "an1").run_to_failure();
    assert_eq!(output.code, Some(1), "{output:?}");
    let expected = format!(
        "cannot be used: node 1 runs as start 1 on another copy of this data folder, at {}",
        cluster.access[0].cluster_address()
    );
    let line = output.stderr.lines().last().unwrap();
    assert!(line.starts_with("meridian: ") && line.ends_with(&expected), "{line}");
    assert_eq!(snapshot(&folder), before, "untouched");
    cluster.access[0].wait_ready();

    // With the original gone, the copy is the node: it has moved.
    cluster.access[0].kill();
    let mut moved = stray(folder, "an1");
    moved.run();
    moved.wait_ready();
    let output = Node::new(NodeSpec { join: vec![moved.cluster_address()], ..cluster.access[0].spec_mut().clone() })
        .run_to_failure();
    assert_eq!(output.code, Some(1), "the original comes back: {output:?}");
}

#[tokio::test]
async fn a_copy_that_came_up_unseen_ends_once_the_cluster_hears_of_it() {
    let mut cluster = Cluster::start(3, 1);
    cluster.wait_voters(3);
    let sql = cluster.connect().await;
    sql.run("CREATE TABLE t (v int)").await;
    cluster.access[2].kill();
    let folder = copy(cluster.access[2].folder(), "copy");
    cluster.access[2].run();
    cluster.access[2].wait_ready();

    // Started more often than the original, while nobody answers.
    cluster.access.iter().for_each(|node| node.signal(libc::SIGSTOP));
    let mut copied = stray(folder, "an3");
    for _ in 0..3 {
        copied.run();
        copied.kill();
    }
    copied.run();
    cluster.access.iter().for_each(|node| node.signal(libc::SIGCONT));
    assert_eq!(copied.wait_end().code(), Some(1));
    let log = copied.log();
    let line = log.lines().last().unwrap_or_default();
    assert!(line.starts_with("meridian: ") && line.contains("cop"), "{log}");

    cluster.wait_ready();
    assert_eq!(members(&cluster), 3);
    let sql = cluster.access[2].connect().await;
    sql.run("INSERT INTO t VALUES (1)").await;
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "1");
    cluster.assert_no_panic();
}

#[tokio::test]
async fn the_older_process_of_a_node_ends_when_it_hears_of_the_newer_one() {
    let mut cluster = Cluster::start(3, 1);
    cluster.wait_voters(3);
    let leader = cluster.leader();
    for position in [leader, (leader + 1) % 3] {
        let name = cluster.access[position].name().to_owned();
        // It hangs, and somebody starts it elsewhere.
        cluster.access[position].signal(libc::SIGSTOP);
        let folder = copy(cluster.access[position].folder(), &format!("{name}-elsewhere"));
        let mut elsewhere = stray(folder, &name);
        elsewhere.run();
        elsewhere.wait_ready();
        cluster.access[position].signal(libc::SIGCONT);
        assert_eq!(cluster.access[position].wait_end().code(), Some(1));
        assert_last_line(&cluster.access[position], "was started elsewhere, for start 2; this is start 1");
        cluster.access[position] = elsewhere;
        cluster.wait_ready();
    }
    let sql = cluster.access[leader].connect().await;
    sql.run("CREATE TABLE t (v int)").await;
    sql.run("INSERT INTO t VALUES (1)").await;
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "1");
    cluster.assert_no_panic();
}

#[tokio::test]
async fn an_only_access_node_hears_from_data_nodes_that_it_was_started_elsewhere() {
    let mut cluster = Cluster::start(1, 1);
    cluster.access[0].signal(libc::SIGSTOP);
    let folder = copy(cluster.access[0].folder(), "elsewhere");
    let mut elsewhere = stray(folder, "an1");
    elsewhere.run();
    elsewhere.wait_ready();
    // The data node is told of the new place, and knows the old one too.
    cluster.data[0].kill();
    cluster.data[0].spec_mut().join = vec![elsewhere.cluster_address(), cluster.access[0].cluster_address()];
    cluster.data[0].run();
    cluster.data[0].wait_ready();
    cluster.access[0].signal(libc::SIGCONT);
    // It asks whoever answers, in turn, once the newer process is gone for a moment.
    elsewhere.kill();
    assert_eq!(cluster.access[0].wait_end().code(), Some(1));
    assert_last_line(&cluster.access[0], "node 1 was started elsewhere, for start 2; this is start 1");
    elsewhere.run();
    elsewhere.wait_ready();
    assert_eq!(elsewhere.connect().await.one("SELECT 1").await, "1");
}
