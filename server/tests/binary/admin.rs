//! Health and metrics over HTTP.

use crate::common::{Cluster, Node, NodeSpec, Port};

#[tokio::test]
async fn metrics_count_what_happened() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (v int)").await;
    sql.copy("COPY t FROM STDIN", "1\n2\n3\n").await.unwrap();
    assert_eq!(sql.rows("SELECT v FROM t").await.len(), 3);
    let (status, text) = node.get("/metrics").unwrap();
    assert_eq!(status, 200);
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{name} in\n{text}"))
    };
    assert_eq!(value("meridian_sql_connections "), 1.0);
    assert!(value("meridian_sql_statements_total ") >= 3.0);
    assert_eq!(value("meridian_sql_rows_sent_total "), 3.0);
    assert_eq!(value("meridian_sql_rows_received_total "), 3.0);
    assert_eq!(value("meridian_raft_is_leader "), 1.0);
    assert!(value("meridian_catalog_version ") >= 1.0);
    assert!(value("process_resident_memory_bytes ") > 1e6);
    let rows: f64 = text
        .lines()
        .filter(|line| line.starts_with("meridian_shard_rows{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert_eq!(rows, 3.0, "{text}");
}

#[test]
fn an_access_node_without_a_cluster_lives_and_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::new(NodeSpec {
        role: "access",
        name: "an1".to_owned(),
        folder: folder.path().join("an1"),
        join: Vec::new(),
        flags: Vec::new(),
    });
    node.run();
    let (status, body) = node.get("/health/ready").unwrap();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["ready"]), (503, &serde_json::Value::Bool(false)));
    assert!(body["reason"].as_str().unwrap().starts_with("starting"), "{body}");
    wait_reason(&node, &format!("waiting for `meridian cluster init --cluster {}`", node.cluster_address()));
    assert_eq!(node.get("/health/live").unwrap().0, 200);
    assert_eq!(node.get("/version").unwrap().0, 200);
    assert_eq!(node.get("/nowhere").unwrap().0, 404);
    assert_eq!(node.stop(), Some(0), "it also stops while it waits");
}

#[test]
fn a_data_node_whose_cluster_is_not_there_says_whom_it_asks() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = Port::take();
    let mut node = Node::new(NodeSpec {
        role: "data",
        name: "dn1".to_owned(),
        folder: folder.path().join("dn1"),
        join: vec![nobody.address()],
        flags: Vec::new(),
    });
    node.run();
    wait_reason(&node, &format!("waiting for the cluster at {}: no access node answers", nobody.address()));
    assert_eq!(node.stop(), Some(0));
}

/// Waits until the node says that it is not ready for this reason.
fn wait_reason(node: &Node, reason: &str) {
    let deadline = std::time::Instant::now() + crate::common::PATIENCE;
    loop {
        let (status, body) = node.get("/health/ready").unwrap();
        if status == 503 && body.contains(reason) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{status} {body}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn an_access_node_without_quorum_is_not_ready() {
    let mut cluster = Cluster::start(3, 0);
    cluster.access[1].kill();
    cluster.access[2].kill();
    let deadline = std::time::Instant::now() + crate::common::PATIENCE;
    loop {
        let (status, body) = cluster.access[0].get("/health/ready").unwrap();
        if status == 503 {
            assert!(body.contains("no quorum"), "{body}");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "still ready without quorum");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(cluster.access[0].get("/health/live").unwrap().0, 200);
    cluster.access[1].run();
    cluster.access[0].wait_ready();
}
