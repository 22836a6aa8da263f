//! Rows that shards deliver sorted: the same answers as by sorting and hashing, which plans they stand in, and that the
//! orders which segments do not have are never promised.

use datafusion::physical_plan::displayable;

use super::*;
use crate::exec::explain::explain_text;

fn tree(bench: &Bench, sql: &str) -> String {
    let (_, plan) = bench.plan(sql).unwrap();
    displayable(plan.as_ref()).indent(false).to_string()
}

/// Merged instead of sorted or hashed. Each has one answer only, in one order.
const MERGED: &[&str] = &[
    "SELECT * FROM metrics ORDER BY host, time",
    "SELECT host, time, v FROM metrics ORDER BY host, time LIMIT 7",
    "SELECT v, time FROM metrics ORDER BY host DESC, time DESC LIMIT 5 OFFSET 3",
    "SELECT host, time FROM metrics ORDER BY host DESC NULLS LAST, time LIMIT 100",
    "SELECT host, time FROM metrics ORDER BY host NULLS FIRST, time DESC LIMIT 100",
    "SELECT time, v FROM metrics WHERE host = 'host_1' ORDER BY time DESC LIMIT 10",
    "SELECT time, v * 2 AS w FROM metrics WHERE host = 'host_7' AND time > '1970-01-02' ORDER BY time",
    "SELECT time FROM metrics WHERE host = 'host_2' AND v > 30 ORDER BY time DESC LIMIT 3",
    "SELECT * FROM metrics WHERE host = 'host_2' ORDER BY host, time LIMIT 3",
    "SELECT * FROM metrics WHERE host IN ('host_2', 'host_5') ORDER BY host DESC, time LIMIT 80",
    "SELECT host, median(v), count(*) FROM metrics GROUP BY host ORDER BY host",
    "SELECT host, round(stddev(v)::numeric, 9) FROM metrics GROUP BY host ORDER BY host LIMIT 3",
    "SELECT sum(v + 1), host FROM metrics WHERE v > 3 GROUP BY host ORDER BY 2 LIMIT 2 OFFSET 5",
    "SELECT host, median(v) FILTER (WHERE v > 20), sum(v + 1) FROM metrics WHERE v > 3 GROUP BY host ORDER BY 1",
    "SELECT host, median(v * v) FROM metrics GROUP BY host HAVING count(v) > 3 ORDER BY host DESC",
    "SELECT host, time, v - lag(v) OVER (PARTITION BY host ORDER BY time) FROM metrics ORDER BY host, time",
    "SELECT host, time, row_number() OVER (PARTITION BY host ORDER BY time DESC) FROM metrics ORDER BY host, time",
    "SELECT max(d) FROM (SELECT v - lag(v) OVER (PARTITION BY host ORDER BY time) AS d FROM metrics) AS s",
    "SELECT host, time, sum(v) OVER (PARTITION BY host ORDER BY time ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) \
     FROM metrics WHERE v > 10 ORDER BY host, time LIMIT 30",
    "SELECT host, time, sum(v) OVER (PARTITION BY host) FROM metrics WHERE v > 0 ORDER BY host, time",
    "SELECT h.rack, count(*) FROM (SELECT host, lead(v) OVER (PARTITION BY host ORDER BY time) AS n FROM metrics) AS m \
     JOIN hosts AS h USING (host) WHERE n > 5 GROUP BY rack ORDER BY rack",
    "SELECT rack, s FROM (SELECT host, round(stddev(v)::numeric, 9) AS s FROM metrics GROUP BY host) AS m JOIN hosts USING (host) \
     ORDER BY rack, host",
    "(SELECT host, time FROM metrics ORDER BY host, time LIMIT 2) UNION ALL (SELECT host, time FROM metrics \
     ORDER BY host DESC, time DESC LIMIT 2) ORDER BY 1, 2",
];

#[test]
fn what_is_merged_is_what_is_sorted() {
    let (bench, mut plain) = (Bench::new(), Bench::new());
    plain.catalog.leaves = false;
    let mut others = Vec::new();
    for sql in MERGED {
        let (merged, sorted) = (tree(&bench, sql), tree(&plain, sql));
        assert!(!sorted.contains("MergeScan"), "{sql}\n{sorted}");
        assert_eq!(bench.texts(sql), plain.texts(sql), "{sql}\n{merged}");
        // Below a join, parts stay as many as they are.
        if !merged.contains("MergeScan") && !sql.contains("JOIN") {
            others.push(format!("{sql}\n{merged}"));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
}

#[test]
fn nothing_is_sorted_that_comes_sorted() {
    let bench = Bench::new();
    for sql in [
        "SELECT * FROM metrics ORDER BY host, time",
        "SELECT time, v FROM metrics WHERE host = 'host_1' ORDER BY time DESC LIMIT 10",
        "SELECT host, median(v) FROM metrics GROUP BY host ORDER BY host",
        "SELECT host, stddev(v) FROM metrics GROUP BY host ORDER BY host LIMIT 2",
        "SELECT host, time, lag(v) OVER (PARTITION BY host ORDER BY time) FROM metrics ORDER BY host, time",
    ] {
        let tree = tree(&bench, sql);
        assert!(!tree.contains("SortExec") && !tree.contains("Hash("), "{sql}\n{tree}");
    }
}

#[test]
fn other_orders_are_not_promised() {
    let bench = Bench::new();
    for sql in [
        "SELECT * FROM metrics ORDER BY time DESC LIMIT 10",
        "SELECT * FROM metrics ORDER BY time, host LIMIT 10",
        "SELECT * FROM metrics ORDER BY host, v LIMIT 10",
        "SELECT * FROM metrics ORDER BY host, time, v LIMIT 10",
        "SELECT * FROM metrics ORDER BY upper(host), time LIMIT 10",
        "SELECT * FROM metrics ORDER BY v",
        "SELECT * FROM metrics WHERE host LIKE 'host_1' || '%' ORDER BY time LIMIT 10",
        "SELECT v, median(v) FROM metrics GROUP BY v ORDER BY v LIMIT 2",
        "SELECT host, stddev(v) FROM metrics GROUP BY host ORDER BY host",
        "SELECT host, stddev(v) FROM metrics GROUP BY host ORDER BY 2 LIMIT 2",
        "SELECT host, time, rank() OVER (PARTITION BY host ORDER BY v) FROM metrics",
        "SELECT host, time, rank() OVER (ORDER BY time) FROM metrics",
    ] {
        let tree = tree(&bench, sql);
        assert!(!tree.contains("MergeScan"), "{sql}\n{tree}");
    }
}

#[test]
fn a_limit_ends_each_shard() {
    let bench = Bench::new();
    let rows = bench.texts("SELECT host, time FROM metrics ORDER BY host, time LIMIT 3");
    assert_eq!(
        rows,
        ["host_0|1970-01-01 00:00:00+00", "host_0|1970-01-01 01:00:00+00", "host_0|1970-01-01 02:00:00+00"]
    );
    bench.texts("SELECT host, stddev(v) FROM metrics GROUP BY host ORDER BY host LIMIT 3");
    let returned = bench.source.returned.lock().unwrap();
    assert!(returned.len() > 3 && returned.iter().all(|rows| *rows <= 3), "{returned:?}");
}

#[test]
fn explain_shows_the_order_and_groups_that_come_one_by_one() {
    let bench = Bench::new();
    let explained = |sql: &str| {
        let (_, plan) = bench.plan(sql).unwrap();
        explain_text(plan.as_ref(), &bench.catalog.view, false, None).join("\n")
    };
    let rows = explained("SELECT v FROM metrics WHERE host = 'host_1' ORDER BY time DESC LIMIT 10");
    assert!(rows.contains("Merge Scan on metrics") && rows.contains("Merge Order: time DESC NULLS FIRST"), "{rows}");
    assert!(rows.contains("Limit") && !rows.contains("Sort\n"), "{rows}");
    let groups = explained("SELECT host, median(v) FROM metrics GROUP BY host");
    for line in
        ["Finalize GroupAggregate", "Merge Append", "Partial GroupAggregate", "Merge Order: host ASC NULLS LAST"]
    {
        assert!(groups.contains(line), "{line}\n{groups}");
    }
    let windows = explained("SELECT lag(v) OVER (PARTITION BY host ORDER BY time) FROM metrics");
    assert!(
        windows.contains("WindowAgg") && windows.contains("Merge Append") && !windows.contains("Sort\n"),
        "{windows}"
    );
}
