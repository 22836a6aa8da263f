//! The measurements run against a real node, with small values.

use std::process::Command;

use serde_json::Value;

fn figures(arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn value(figures: &[Value], name: &str) -> f64 {
    let figure = figures.iter().find(|figure| figure["name"] == name);
    figure.and_then(|figure| figure["value"].as_f64()).unwrap_or_else(|| panic!("no {name} in {figures:?}"))
}

#[test]
fn ingest_and_queries_measure_a_node() {
    let node = benches::process::TestNode::start().unwrap();
    let url = node.url();
    let shape = ["--url", &url, "--hosts", "20", "--hours", "1"];
    for method in [["--method", "copy"], ["--method", "insert"]] {
        let loaded = figures(&[&["ingest"], &shape[..], &method[..], &["--connections", "2"]].concat());
        assert_eq!(value(&loaded, "rows"), 7200.0);
        assert!(value(&loaded, "rate") > 0.0);
    }
    let asked = figures(&[&["queries"], &shape[..], &["--runs", "2"]].concat());
    for query in &benches::queries::QUERIES {
        assert!(value(&asked, &format!("{} p50", query.name)) > 0.0);
    }
    assert_eq!(value(&asked, "lastpoint rows"), 20.0);
    assert_eq!(value(&asked, "double-groupby-all rows"), 20.0);
    assert_eq!(value(&asked, "single-groupby-1-1-1 rows"), 60.0);
}

#[test]
fn an_idle_node_is_measured() {
    let idle = figures(&["idle", "--seconds", "1"]);
    assert!(value(&idle, "first start until SQL answers") > 0.0);
    assert!(value(&idle, "idle resident memory") > 1.0);
}
