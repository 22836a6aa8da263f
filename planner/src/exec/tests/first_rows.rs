//! DISTINCT ON by first rows: the same rows as by DataFusion's aggregate, with what stands around it; what only looks like
//! it stays an aggregate.

use datafusion::physical_plan::displayable;

use super::*;
use crate::exec::explain::explain_text;

fn tree(bench: &Bench, sql: &str) -> String {
    let (_, plan) = bench.plan(sql).unwrap();
    displayable(plan.as_ref()).indent(false).to_string()
}

/// Each gives the same rows in the same order, whoever plans it.
const BY_FIRST_ROWS: &[&str] = &[
    "SELECT DISTINCT ON (host) * FROM metrics ORDER BY host, time DESC",
    "SELECT DISTINCT ON (host) host, time, v FROM metrics ORDER BY host, time",
    "SELECT DISTINCT ON (host) v, time FROM metrics ORDER BY host DESC, time DESC NULLS LAST",
    "SELECT DISTINCT ON (host) host, v FROM metrics ORDER BY host, v",
    "SELECT DISTINCT ON (host) host, v FROM metrics ORDER BY host, v DESC NULLS LAST, time",
    "SELECT DISTINCT ON (host) host, v FROM metrics ORDER BY host, v NULLS FIRST, time DESC",
    "SELECT DISTINCT ON (host) host, time, v FROM metrics WHERE v > 20 AND v < 30 ORDER BY host, time DESC",
    "SELECT DISTINCT ON (host) host, time FROM metrics WHERE host IN ('host_1', 'host_5') ORDER BY host, time DESC",
    "SELECT DISTINCT ON (host) host, time FROM metrics WHERE host = 'host_1' ORDER BY host, time DESC",
    "SELECT DISTINCT ON (host) host, time FROM metrics WHERE time < '1970-01-02 05:00' ORDER BY host, time DESC",
    "SELECT DISTINCT ON (host) host, time FROM metrics WHERE time < '1960-01-01' ORDER BY host, time DESC",
    "SELECT DISTINCT ON (host) host, time FROM metrics WHERE host LIKE '%3' ORDER BY host, time DESC",
    "SELECT DISTINCT ON (host) host, time, v FROM metrics ORDER BY host, time DESC LIMIT 3",
    "SELECT DISTINCT ON (host) host, time, v FROM metrics ORDER BY host, time DESC LIMIT 2 OFFSET 5",
    "SELECT DISTINCT ON (host) host, time, v * 2 + 1 AS w, upper(host) FROM metrics ORDER BY host, time DESC",
    "SELECT DISTINCT ON (upper(host)) upper(host), time, v FROM metrics ORDER BY upper(host), time DESC, host",
    "SELECT DISTINCT ON (right(host, 1)::int % 3) host, v FROM metrics \
     ORDER BY right(host, 1)::int % 3, time DESC, host DESC",
    "SELECT DISTINCT ON (time_bucket('1 day', time), host) host, time, v FROM metrics \
     ORDER BY time_bucket('1 day', time), host, time DESC",
    "SELECT DISTINCT ON (v) v, host, time FROM metrics ORDER BY v, time, host",
    "SELECT DISTINCT ON (v > 40) v > 40, host, time FROM metrics ORDER BY v > 40, v DESC, time, host",
    "SELECT DISTINCT ON (host, time) * FROM metrics ORDER BY host, time",
    "SELECT DISTINCT ON (v > 40, host) v > 40, host, time FROM metrics ORDER BY host, v > 40, time DESC",
    "SELECT DISTINCT ON (v, host) v, host, time FROM metrics ORDER BY v DESC, host DESC, time LIMIT 20",
    "SELECT DISTINCT ON (v, host) v, host, time FROM metrics ORDER BY host, v NULLS FIRST, time LIMIT 20",
    "SELECT DISTINCT ON (v, host) v, host FROM metrics ORDER BY host DESC",
    "SELECT * FROM (SELECT DISTINCT ON (host) * FROM metrics ORDER BY host, time) AS l ORDER BY v DESC, host LIMIT 3",
    "SELECT count(*), max(v) FROM (SELECT DISTINCT ON (host) * FROM metrics ORDER BY host, time DESC) AS latest",
    "SELECT rack, l.host, v FROM (SELECT DISTINCT ON (host) * FROM metrics ORDER BY host, time DESC) AS l \
     JOIN hosts USING (host) ORDER BY l.host",
    "WITH latest AS (SELECT DISTINCT ON (host) host, time, v FROM metrics ORDER BY host, time DESC) \
     SELECT * FROM latest WHERE v > 74 ORDER BY v DESC LIMIT 2",
    "SELECT DISTINCT ON (rack) rack, m.host, time FROM metrics m JOIN hosts h ON m.host = h.host \
     ORDER BY rack, time DESC, m.host",
    "(SELECT DISTINCT ON (host) host, v FROM metrics ORDER BY host, time) UNION ALL \
     (SELECT DISTINCT ON (host) host, v FROM metrics ORDER BY host, time DESC) ORDER BY 1, 2",
];

#[test]
fn distinct_on_gives_the_rows_of_the_aggregate() {
    let (bench, mut plain) = (Bench::new(), Bench::new());
    plain.catalog.leaves = false;
    for sql in BY_FIRST_ROWS {
        let (by_rows, by_aggregate) = (tree(&bench, sql), tree(&plain, sql));
        let reads_nothing = !by_rows.contains("RemoteScan");
        assert!(by_rows.contains("FirstRows") || reads_nothing, "{sql}\n{by_rows}");
        assert!(!by_aggregate.contains("FirstRows"), "{sql}\n{by_aggregate}");
        assert_eq!(bench.texts(sql), plain.texts(sql), "{sql}\n{by_rows}");
    }
}

#[test]
fn any_row_of_a_key_does_without_an_order() {
    let bench = Bench::new();
    let sql = "SELECT DISTINCT ON (host) host, time, v FROM metrics";
    assert!(tree(&bench, sql).contains("FirstRows"), "{}", tree(&bench, sql));
    let rows = bench.texts(&format!("SELECT host, v FROM ({sql}) AS some ORDER BY host"));
    assert_eq!(rows.len(), 8);
    assert_eq!(rows[7], "host_7|NULL");
}

#[test]
fn an_order_that_begins_otherwise_than_the_keys_is_refused() {
    let error = Bench::new().error("SELECT DISTINCT ON (host) host, v FROM metrics ORDER BY v, host");
    let words = "SELECT DISTINCT ON expressions must match initial ORDER BY expressions";
    assert_eq!((error.sqlstate.as_ref(), error.message.as_str()), ("42P10", words));
}

#[test]
fn shards_send_one_row_per_key() {
    let bench = Bench::new();
    assert_eq!(bench.texts(BY_FIRST_ROWS[0]).len(), 8);
    let sent = bench.source.returned.lock().unwrap().clone();
    assert!(sent.iter().sum::<usize>() <= 2 * 8, "by a new plan and by a kept one: {sent:?}");
}

#[test]
fn rows_come_out_sorted_without_a_sort() {
    let bench = Bench::new();
    let is_sorted_by_itself = |sql: &str| {
        let tree = tree(&bench, sql);
        assert!(tree.contains("FirstRows"), "{tree}");
        tree.contains("sorted=[") && !tree.contains("SortExec") && !tree.contains("RepartitionExec")
    };
    assert!(is_sorted_by_itself("SELECT DISTINCT ON (host) * FROM metrics ORDER BY host DESC, time DESC LIMIT 3"));
    assert!(is_sorted_by_itself("SELECT DISTINCT ON (host, v) v, host FROM metrics ORDER BY v, host, time"));
    assert!(is_sorted_by_itself("SELECT DISTINCT ON (host, v) v, host FROM metrics ORDER BY v DESC"));
    let latest = "SELECT DISTINCT ON (host) * FROM metrics ORDER BY host, time DESC";
    assert!(!is_sorted_by_itself(&format!("SELECT * FROM ({latest}) AS latest ORDER BY v")), "not a key");
}

#[test]
fn what_takes_more_than_a_row_stays_an_aggregate() {
    let bench = Bench::new();
    for sql in [
        "SELECT DISTINCT host FROM metrics",
        "SELECT host, last(v, time) FROM metrics GROUP BY host",
        "SELECT host, count(*) FROM metrics GROUP BY host",
        "SELECT host, first_value(v ORDER BY time), first_value(time ORDER BY v) FROM metrics GROUP BY host",
        "SELECT host, first_value(v ORDER BY time), max(time) FROM metrics GROUP BY host",
        "SELECT host, first_value(v ORDER BY time) FILTER (WHERE v > 3) FROM metrics GROUP BY host",
        "SELECT first_value(v ORDER BY time) FROM metrics",
    ] {
        assert!(!tree(&bench, sql).contains("FirstRows"), "{sql}\n{}", tree(&bench, sql));
    }
}

#[test]
fn explain_names_first_rows_on_both_sides() {
    let bench = Bench::new();
    let (_, plan) = bench.plan(BY_FIRST_ROWS[0]).unwrap();
    let lines = explain_text(plan.as_ref(), &bench.catalog.view, false, None).join("\n");
    for part in [
        "First Rows\n  Key: host@1\n",
        "First by: time@0 DESC",
        "  Sort Key: host@1 ASC NULLS LAST",
        "Pushed: first rows, series ends",
        "->  Partial First Rows",
        "Last Point Scan on metrics",
        "Series Key: host",
    ] {
        assert!(lines.contains(part), "{part} in\n{lines}");
    }
}

#[test]
fn parameters_of_a_kept_plan_change_the_rows() {
    let bench = Bench::new();
    let sql = "SELECT DISTINCT ON (host) host, v FROM metrics WHERE time < $1 AND host <> $2 ORDER BY host, time DESC";
    let time = |us| ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()));
    for (day, host, expected) in [(1, "host_1", 7), (2, "none", 8), (0, "host_1", 0)] {
        let parameters = [time(day * US_PER_DAY), ScalarValue::from(host)];
        let (columns, plan) = bench.plan_with(sql, &parameters).unwrap();
        let (_, rows) = bench.run(columns, plan).unwrap();
        assert_eq!(rows.len(), expected);
        assert!(rows.iter().all(|row| row[0] != host));
        let (_, kept) = crate::plan_cache::tests::rows_by_kept_plan(&bench, sql, &parameters);
        assert_eq!(kept, rows);
    }
}
