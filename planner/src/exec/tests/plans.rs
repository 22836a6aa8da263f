//! What runs where: the shape of plans, and that the rows are right.

use datafusion::physical_plan::displayable;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::*;
use crate::exec::explain::{explain_json, explain_text};
use crate::exec::remote_scan::RemoteScanExec;

fn tree(bench: &Bench, sql: &str) -> String {
    let (_, plan) = bench.plan(sql).unwrap();
    displayable(plan.as_ref()).indent(false).to_string()
}

/// The operators in the fragment of the plan's first remote scan, top first.
fn fragment(bench: &Bench, sql: &str) -> Vec<String> {
    fn find(plan: &Arc<dyn ExecutionPlan>) -> Option<Vec<String>> {
        if let Some(scan) = plan.downcast_ref::<RemoteScanExec>() {
            let mut names = Vec::new();
            let mut node = Some(scan.fragment());
            while let Some(plan) = node {
                names.push(plan.name().to_owned());
                node = plan.children().first().copied();
            }
            return Some(names);
        }
        plan.children().into_iter().find_map(find)
    }
    let (_, plan) = bench.plan(sql).unwrap();
    find(&plan).unwrap_or_else(|| panic!("no remote scan: {}", displayable(plan.as_ref()).indent(false)))
}

#[test]
fn partial_aggregates_run_on_the_shards() {
    let bench = Bench::new();
    let sql = "SELECT time_bucket('1 day', time) AS day, host, avg(v), count(*) FROM metrics \
               WHERE v > 5 GROUP BY day, host ORDER BY 1, 2";
    let names = fragment(&bench, sql);
    assert_eq!(names.first().map(String::as_str), Some("AggregateExec"), "{names:?}\n{}", tree(&bench, sql));
    assert!(names.contains(&"FilterExec".to_owned()), "{names:?}");
    assert_eq!(names.last().map(String::as_str), Some("ChunkScan"));
    let rows = bench.texts(sql);
    assert_eq!(rows.len(), 7 * 3);
    assert_eq!(rows[0], "1970-01-01 00:00:00+00|host_0|14.5|18");
    // Only groups travelled: no shard has more than 8 hosts x 3 days.
    assert!(bench.source.returned.lock().unwrap().iter().all(|rows| *rows <= 24));
}

#[test]
fn global_aggregates_run_on_the_shards_too() {
    let bench = Bench::new();
    let sql = "SELECT count(*), sum(v), min(time), last(v, time) FROM metrics WHERE host = 'host_1'";
    // One host is on one shard, which does the whole of it.
    let names = fragment(&bench, sql);
    assert!(names.contains(&"AggregateExec".to_owned()), "{names:?}\n{}", tree(&bench, sql));
    assert_eq!(bench.texts(sql), ["72|2628|1970-01-01 00:00:00+00|72"]);
    let all = "SELECT count(*), count(v), avg(v) FROM metrics";
    assert_eq!(fragment(&bench, all), ["BucketAggregate", "AggregateExec", "BucketScan"]);
    assert_eq!(bench.texts(all), ["576|504|38.5"]);
    assert_eq!(bench.texts("SELECT host FROM metrics GROUP BY host ORDER BY host LIMIT 2"), ["host_0", "host_1"]);
}

#[test]
fn nothing_left_after_pruning_is_an_empty_answer() {
    let bench = Bench::new();
    let sql = "SELECT count(*), max(v) FROM metrics WHERE time > '2020-01-01'";
    assert_eq!(bench.texts(sql), ["0|NULL"]);
    assert!(bench.texts("SELECT * FROM metrics WHERE time > '2020-01-01' ORDER BY time LIMIT 3").is_empty());
}

#[test]
fn top_n_filters_and_limits_run_on_the_shards() {
    let bench = Bench::new();
    let sql = "SELECT time, host, v FROM metrics ORDER BY time DESC, host LIMIT 3";
    assert_eq!(fragment(&bench, sql), ["SortExec(TopK)", "ChunkScan"], "{}", tree(&bench, sql));
    assert_eq!(
        bench.texts(sql),
        ["1970-01-03 23:00:00+00|host_0|71", "1970-01-03 23:00:00+00|host_1|72", "1970-01-03 23:00:00+00|host_2|73"]
    );
    assert!(bench.source.returned.lock().unwrap().iter().all(|rows| *rows <= 3));
    bench.source.returned.lock().unwrap().clear();
    assert_eq!(bench.texts("SELECT v FROM metrics LIMIT 5").len(), 5);
    assert!(
        bench.source.returned.lock().unwrap().iter().all(|rows| *rows <= 5),
        "{}",
        tree(&bench, "SELECT v FROM metrics LIMIT 5")
    );
    assert_eq!(bench.texts("SELECT v FROM metrics WHERE v > 70 LIMIT 5 OFFSET 3").len(), 5);
}

#[test]
fn a_whole_sort_stays_at_the_gateway() {
    let bench = Bench::new();
    let names = fragment(&bench, "SELECT time, v FROM metrics ORDER BY v");
    assert!(!names.iter().any(|name| name.starts_with("SortExec")), "{names:?}");
}

#[test]
fn filters_prune_chunks_and_shards() {
    let bench = Bench::new();
    let partitions = |sql: &str| {
        let (_, plan) = bench.plan(sql).unwrap();
        plan.output_partitioning().partition_count()
    };
    assert_eq!(partitions("SELECT v FROM metrics WHERE host = 'host_1'"), 1);
    let lines = explain(&bench, "SELECT v FROM metrics WHERE time >= '1970-01-02' AND time < '1970-01-03'");
    assert!(
        lines.iter().any(|line| line.contains("Chunks: 4 scanned, 8 pruned") || line.contains("4 scanned, 8 pruned")),
        "{lines:#?}"
    );
    let now = explain(&bench, "SELECT v FROM metrics WHERE time > now() - interval '1 hour'");
    assert!(!now.iter().any(|line| line.contains("Remote Scan")), "{now:#?}");
}

fn explain(bench: &Bench, sql: &str) -> Vec<String> {
    let (_, plan) = bench.plan(sql).unwrap();
    explain_text(plan.as_ref(), &bench.catalog.view, false, None)
}

#[test]
fn explain_draws_one_tree_with_the_data_nodes() {
    let bench = Bench::new();
    let sql = "SELECT host, avg(v) FROM metrics WHERE v > 5 GROUP BY host ORDER BY 2 DESC LIMIT 3";
    let lines = explain(&bench, sql).join("\n");
    for part in [
        "Finalize HashAggregate",
        "Remote Scan on metrics",
        "Pushed: partial aggregate, filter",
        "Data Node: dn2",
        "Partial HashAggregate",
        "Chunk Scan on metrics",
    ] {
        assert!(lines.contains(part), "{part} in\n{lines}");
    }
    let (_, plan) = bench.plan(sql).unwrap();
    let json: serde_json::Value =
        serde_json::from_str(&explain_json(plan.as_ref(), &bench.catalog.view, false, None)).unwrap();
    assert!(json[0]["Plan"]["Node Type"].is_string());
}

#[test]
fn joins_with_reference_tables_run_at_the_gateway() {
    let bench = Bench::new();
    let sql = "SELECT rack, count(*), max(v) FROM metrics JOIN hosts USING (host) GROUP BY rack ORDER BY rack";
    assert_eq!(bench.texts(sql), ["0|288|77", "1|288|76"]);
    let sql = "SELECT DISTINCT ON (m.host) m.host, time, v, rack FROM metrics m JOIN hosts h ON m.host = h.host \
               ORDER BY m.host, time DESC LIMIT 2";
    assert_eq!(bench.texts(sql), ["host_0|1970-01-03 23:00:00+00|71|0", "host_1|1970-01-03 23:00:00+00|72|1"]);
    let sql = "SELECT count(*) FROM metrics WHERE v > (SELECT avg(v) FROM metrics) AND host IN (SELECT host FROM hosts WHERE rack = 1)";
    assert_eq!(bench.texts(sql), ["108"]);
    let sql = "SELECT host, (SELECT max(v) FROM metrics m WHERE m.host = h.host) FROM hosts h ORDER BY host LIMIT 1";
    assert_eq!(bench.texts(sql), ["host_0|71"]);
}

#[test]
fn windows_ctes_unions_and_distinct_work() {
    let bench = Bench::new();
    let sql = "WITH d AS (SELECT host, max(v) AS m FROM metrics GROUP BY host) \
               SELECT host, m, rank() OVER (ORDER BY m DESC NULLS LAST) FROM d ORDER BY 3, 1 LIMIT 2";
    assert_eq!(bench.texts(sql), ["host_6|77|1", "host_5|76|2"]);
    assert_eq!(bench.texts("SELECT count(DISTINCT host) FROM metrics"), ["8"]);
    assert_eq!(bench.texts("SELECT 1 UNION ALL SELECT 2 ORDER BY 1"), ["1", "2"]);
    assert_eq!(bench.texts("SELECT DISTINCT host FROM metrics ORDER BY host DESC LIMIT 1"), ["host_7"]);
    assert_eq!(bench.texts("SELECT count(*) FROM generate_series(1, 10)"), ["10"]);
}

#[test]
fn aggregates_choose_the_leaf_that_reads_least() {
    let bench = Bench::new();
    let leaf = |sql: &str| fragment(&bench, sql).last().cloned().unwrap();
    for (sql, expected) in [
        ("SELECT DISTINCT host FROM metrics", "SkipScan"),
        ("SELECT DISTINCT host FROM metrics WHERE host LIKE 'host%'", "SkipScan"),
        ("SELECT DISTINCT host FROM metrics WHERE v > 5", "ChunkScan"),
        ("SELECT DISTINCT host, v FROM metrics", "ChunkScan"),
        ("SELECT host, last(v, time) FROM metrics GROUP BY host", "LastPointScan"),
        ("SELECT host, first(v, time) FROM metrics WHERE time > '1970-01-02' GROUP BY host", "FirstPointScan"),
        ("SELECT host, last(v, time), count(*) FROM metrics GROUP BY host", "BucketScan"),
        ("SELECT time_bucket('1 day', time) AS day, host, avg(v) FROM metrics GROUP BY day, host", "BucketScan"),
        ("SELECT time_bucket('1 day', time) AS day, avg(v) FROM metrics WHERE v > 5 GROUP BY day", "ChunkScan"),
        ("SELECT host, last(v, time) FILTER (WHERE v > 5) FROM metrics GROUP BY host", "ChunkScan"),
        ("SELECT host, stddev(v) FROM metrics GROUP BY host", "ChunkScan"),
        ("SELECT host, array_agg(v) FROM metrics GROUP BY host", "MergeScan"),
        ("SELECT host, stddev(v) FROM metrics GROUP BY host ORDER BY host LIMIT 2", "MergeScan"),
        ("SELECT host, v, array_agg(time) FROM metrics GROUP BY host, v", "ChunkScan"),
        ("SELECT DISTINCT ON (host) host, time, v FROM metrics ORDER BY host, time DESC", "LastPointScan"),
        ("SELECT DISTINCT ON (host) host, time, v FROM metrics ORDER BY host, v DESC", "ChunkScan"),
    ] {
        assert_eq!(leaf(sql), expected, "{sql}\n{}", tree(&bench, sql));
    }
    let metadata = |sql: &str| fragment(&bench, sql)[0] == "MetadataAggregate";
    assert!(metadata("SELECT count(*) FROM metrics"));
    assert!(metadata("SELECT count(v), min(time), max(v) FROM metrics WHERE time >= '1970-01-02'"));
    assert!(metadata("SELECT count(*) FROM metrics WHERE host = 'host_1'"), "on one shard, too");
    assert!(!metadata("SELECT count(*) FROM metrics WHERE v > 5"));
    assert!(!metadata("SELECT count(DISTINCT v) FROM metrics"));
    assert!(!metadata("SELECT count(*), avg(v) FROM metrics"));
    let lines = explain(&bench, "SELECT DISTINCT host FROM metrics").join("\n");
    assert!(lines.contains("Skip Scan on metrics") && lines.contains("Series Key: host"), "{lines}");
    assert_eq!(bench.texts("SELECT count(*) FROM metrics WHERE host = 'host_1'"), ["72"]);
}

#[test]
fn only_the_newest_buckets_are_asked_for_when_only_they_are_wanted() {
    let bench = Bench::new();
    let top = |sql: &str| {
        let (_, plan) = bench.plan(sql).unwrap();
        format!("{plan:?}").contains("top: Some(Top { count: 2, newest: true })")
    };
    let days = "SELECT time_bucket('1 day', time) AS day, max(v) FROM metrics GROUP BY day";
    assert!(top(&format!("{days} ORDER BY day DESC LIMIT 2")));
    assert!(!top(&format!("{days} ORDER BY day LIMIT 2")), "the oldest ones");
    assert!(!top(&format!("{days} ORDER BY 2 DESC LIMIT 2")), "those with the greatest values may be anywhere");
    assert!(!top(&format!("{days} HAVING max(v) < 5 ORDER BY day DESC LIMIT 2")), "the newest may not count");
    assert!(!top(&format!("{days} ORDER BY day DESC")));
    let mut all = bench.texts(&format!("{days} ORDER BY day"));
    all.reverse();
    assert_eq!(bench.texts(&format!("{days} ORDER BY day DESC LIMIT 2")), all[..2]);
}

#[test]
fn leaves_can_be_turned_off() {
    let mut bench = Bench::new();
    bench.catalog.leaves = false;
    assert_eq!(fragment(&bench, "SELECT DISTINCT host FROM metrics").last().unwrap(), "ChunkScan");
    assert_eq!(fragment(&bench, "SELECT count(*) FROM metrics")[0], "AggregateExec");
}
