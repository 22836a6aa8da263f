//! Commands that look at a cluster.

use std::time::{Duration, Instant};

use crate::common::{Cluster, Node, NodeSpec, PATIENCE, Port, meridian};

#[test]
fn status_and_node_list_show_every_node() {
    let cluster = Cluster::start(3, 2);
    cluster.wait_voters(3);
    let address = cluster.access[1].cluster_address();
    let status = meridian(&["cluster", "status", "--json", "--cluster", &address]).json();
    assert_eq!(status["state"], "member");
    let members = status["members"].as_array().unwrap();
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|member| member["voter"] == true), "{status:#}");
    assert!(status["leader"].is_u64());
    let nodes = meridian(&["node", "list", "--json", "--cluster", &address]).json();
    let mut names: Vec<_> =
        nodes["nodes"].as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["an1", "an2", "an3", "dn1", "dn2"]);
    assert!(nodes["nodes"].as_array().unwrap().iter().all(|node| node["state"] == "live"), "{nodes:#}");

    let text = meridian(&["cluster", "status", "--cluster", &address]);
    assert_eq!(text.code, Some(0));
    for word in ["leader", "an3", "dn2", "votes"] {
        assert!(text.stdout.contains(word), "{}", text.stdout);
    }
}

#[test]
fn every_node_tells_how_much_room_its_disk_has() {
    let cluster = Cluster::start(2, 1);
    let address = cluster.access[0].cluster_address();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let nodes = meridian(&["node", "list", "--json", "--cluster", &address]).json();
        let nodes = nodes["nodes"].as_array().unwrap();
        if nodes.len() == 3 && nodes.iter().all(|node| node["disk_free_bytes"] != 0 && node["disk_used_bytes"] != 0) {
            return;
        }
        assert!(Instant::now() < deadline, "{nodes:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_cluster_is_created_once() {
    let cluster = Cluster::start(1, 0);
    let again = meridian(&["cluster", "init", "--cluster", &cluster.access[0].cluster_address()]);
    assert_eq!(again.code, Some(1));
    assert!(again.error_line().contains("could not create a cluster"), "{again:?}");
}

#[test]
fn a_replication_factor_that_is_not_there_yet_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::new(NodeSpec {
        role: "access",
        name: "an1".to_owned(),
        folder: folder.path().join("an1"),
        join: Vec::new(),
        flags: Vec::new(),
    });
    node.run();
    let address = node.cluster_address();
    let init = |factor: &str| meridian(&["cluster", "init", "--cluster", &address, "--replication-factor", factor]);
    let refused = init("2");
    assert_eq!(refused.code, Some(1));
    assert_eq!(
        refused.error_line(),
        format!(
            "meridian: could not create a cluster at {address}: a replication factor of 2 is not available yet: chunks \
             have one copy"
        )
    );
    for wrong in ["0", "-1", "two"] {
        assert_eq!(init(wrong).code, Some(2), "{wrong}");
    }
    // The node still waits, and the factor that there is makes a cluster.
    assert_eq!(init("1").code, Some(0));
    node.wait_ready();
}

#[test]
fn a_cluster_that_does_not_answer_is_a_failure_of_one_line() {
    let port = Port::take();
    let output = meridian(&["node", "list", "--timeout", "1", "--cluster", &port.address()]);
    assert_eq!(output.code, Some(1));
    assert!(output.error_line().contains(&port.address()), "{output:?}");
}

#[test]
fn version_is_told_in_text_and_json() {
    assert_eq!(meridian(&["version", "--json"]).json()["version"], env!("CARGO_PKG_VERSION"));
    assert!(meridian(&["version"]).stdout.starts_with(concat!("meridian ", env!("CARGO_PKG_VERSION"))));
}

/// The names under `Commands:` of a help page.
fn verbs_of(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn every_help_has_an_example_of_its_own_command() {
    let mut waiting = vec![Vec::<String>::new()];
    let mut seen = Vec::new();
    while let Some(command) = waiting.pop() {
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        arguments.push("--help");
        let output = meridian(&arguments);
        assert_eq!(output.code, Some(0), "{command:?}");
        let example = output.stdout.split_once("Example").map_or("", |(_, example)| example);
        let path = [&["meridian".to_owned()], command.as_slice()].concat().join(" ");
        assert!(example.contains(&path), "`{path} --help` has no example:\n{}", output.stdout);
        waiting.extend(verbs_of(&output.stdout).into_iter().map(|verb| [command.clone(), vec![verb]].concat()));
        seen.push(path);
    }
    for path in ["meridian", "meridian start", "meridian node", "meridian node remove", "meridian config check"] {
        assert!(seen.iter().any(|seen| seen == path), "{path} was not walked: {seen:?}");
    }
}
