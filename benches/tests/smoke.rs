//! The measurements run against a real node, with small values.

use std::io::Write;
use std::process::{Command, Stdio};

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
fn statements_of_others_are_timed_one_by_one() {
    let node = benches::process::TestNode::start().unwrap();
    let timed = |statements: &str| {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"))
            .args(["time", "--url", &node.url()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        bench.stdin.take().unwrap().write_all(statements.as_bytes()).unwrap();
        bench.wait_with_output().unwrap()
    };
    let output = timed(r#"["SELECT 1", "SELECT * FROM generate_series(1, 10000)"]"#);
    let times: Vec<f64> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(times.len() == 2 && times.iter().all(|time| *time > 0.0), "{times:?}");
    let output = timed(r#"["SELECT 1", "SELECT nothing"]"#);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("SELECT nothing"));
}

#[test]
fn an_ingest_is_measured_beside_scans() {
    let node = benches::process::TestNode::start().unwrap();
    let url = node.url();
    let shape = ["--url", &url, "--hosts", "10", "--hours", "2", "--compress"];
    let mixed = figures(&[&["mixed"], &shape[..], &["--rate", "50", "--connections", "2", "--seconds", "1"]].concat());
    for figure in ["insert p99, alone", "insert p99, beside scans / alone", "scan rate, beside inserts"] {
        assert!(value(&mixed, figure) > 0.0, "{figure}");
    }
    assert!(value(&mixed, "insert max, beside scans") >= value(&mixed, "insert p50, beside scans"));
}

#[test]
fn a_small_statement_is_taken_apart() {
    let node = benches::process::TestNode::start().unwrap();
    let url = node.url();
    let shape = ["--url", &url, "--hosts", "10", "--hours", "2"];
    figures(&[&["ingest"], &shape[..]].concat());
    let planning = figures(&[&["planning"], &shape[..], &["--runs", "5"]].concat());
    for sending in ["simple, other literals", "simple, same literals", "extended, unprepared", "extended, prepared"] {
        assert!(value(&planning, &format!("{sending}, whole")) > 0.0, "{sending}");
    }
    let compressed = figures(&["compress", "--url", &url]);
    assert!(value(&compressed, "compressed") < 30.0, "bytes a row");
}

#[cfg(feature = "engine")]
#[test]
fn codecs_give_back_what_they_took_and_are_smaller_than_plain() {
    let codecs = figures(&["codecs", "--hosts", "5", "--hours", "5", "--rounds", "1"]);
    let size = |codec: &str| value(&codecs, &format!("{codec}, size"));
    assert_eq!(size("metric, whole numbers: plain"), 8.0);
    assert!(size("metric, whole numbers: page") < 1.0);
    assert!(size("metric, two decimals: page") < size("metric, two decimals: plain + zstd-3"));
    assert!(size("time, every 10 s: page") < 0.2);
    assert!(size("tag: page") < 0.2);
    assert!(value(&codecs, "random doubles: split, decode") > 0.0);
}

#[cfg(feature = "engine")]
#[test]
fn appends_are_measured_beside_the_disk() {
    let wal = figures(&["wal", "--milliseconds", "200"]);
    for writers in ["1 writer", "8 writers", "64 writers"] {
        assert!(value(&wal, &format!("{writers}: appends")) > 0.0);
    }
    assert!(value(&wal, "plain loop: p99") >= value(&wal, "plain loop: p50"));
}

#[cfg(feature = "engine")]
#[test]
fn a_shard_is_measured_and_gives_back_what_was_written() {
    let shard = figures(&["shard", "--hosts", "10", "--hours", "4"]);
    for step in ["write, durable", "flush", "compress"] {
        assert!(value(&shard, step) > 0.0, "{step}");
    }
    assert!(value(&shard, "compressed") < 10.0, "bytes a row");
    assert!(value(&shard, "scan all columns, compressed: rows") > 0.0);
}

#[test]
fn an_idle_node_is_measured() {
    let idle = figures(&["idle", "--seconds", "1"]);
    assert!(value(&idle, "first start until SQL answers") > 0.0);
    assert!(value(&idle, "idle resident memory") > 1.0);
}
