//! Plans that are kept from one statement to the next: EXPLAIN and the metrics tell of them, and no statement is answered
//! by one that its session, its transaction or a change of its tables made another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::common::{Cluster, Node, Sql, sqlstate_of};

async fn fill(sql: &Sql) {
    sql.run("CREATE TABLE m (time timestamptz NOT NULL, device text NOT NULL, value float8, n bigint)").await;
    sql.run("SELECT create_hypertable('m', 'time', chunk_time_interval => INTERVAL '1 day', partitioning_column => 'device', number_partitions => 4)").await;
    sql.run("CREATE TABLE devices (device text NOT NULL, place text)").await;
    sql.run("INSERT INTO devices VALUES ('d1', 'roof'), ('d2', 'cellar'), ('d9', 'nowhere')").await;
    sql.run("CREATE TABLE kinds (id int, r real, s smallint, q numeric(10,2), d date, t timestamp, b boolean, u uuid, v varchar(8), c char(4), w time, i interval, x bytea)").await;
    sql.run("INSERT INTO kinds VALUES (1, 0.1, 1, 0.10, '2024-01-01', '2024-01-01 12:00', true, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'ab', 'ab', '10:00', '1 day', '\\x61'), (2, 16777216, 32767, 99999999.99, 'infinity', '-infinity', false, NULL, 'ab ', 'abc', '23:59:59', '24:00', ''), (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)").await;
    let mut lines = String::new();
    for device in 1..=3 {
        for hour in 0..96 {
            let (day, hour) = (1 + hour / 24, hour % 24);
            lines.push_str(&format!("2024-01-{day:02} {hour:02}:00Z,d{device},{device}.{hour:02},{hour}\n"));
        }
    }
    sql.copy("COPY m FROM STDIN WITH (FORMAT csv)", &lines).await.unwrap();
}

/// `hit` or `miss`.
async fn plan_of(sql: &Sql, query: &str) -> String {
    let lines = sql.rows(&format!("EXPLAIN {query}")).await;
    let line = lines.iter().find_map(|line| line.strip_prefix("Plan Cache: "));
    line.unwrap_or_else(|| panic!("{query}: {lines:#?}")).to_owned()
}

/// Patterns with a constant that changes, and what it changes to.
const PATTERNS: &[(&str, &[&str])] = &[
    (
        "SELECT time_bucket('6 hours', time) AS t, max(value) FROM m WHERE device IN ({}) AND time < '2024-01-03Z' GROUP BY t ORDER BY t",
        &["'d1'", "'d2'", "'no'", "'it''s'"],
    ),
    (
        "SELECT device, count(*), sum(n) FROM m WHERE time >= {} GROUP BY device ORDER BY device",
        &["'2024-01-02'", "'2024-01-04 12:00'", "'2030-01-01'", "'bad'", "'infinity'", "'2024-01-02 00:00+05'"],
    ),
    ("SELECT count(*) FROM m WHERE value > {}", &["2", "1.5", "2.10", "'3'", "'x'", "1e0", "30000000000"]),
    ("SELECT count(*), min(time) FROM m WHERE n = {}", &["5", "23", "'7'", "'7.5'", "-1", "99999999999"]),
    (
        "SELECT device, last(n, time) FROM m WHERE time <= {} GROUP BY device ORDER BY 1",
        &["'2024-01-02'", "'2024-01-03 01:30'"],
    ),
    ("SELECT place, count(*) FROM m JOIN devices USING (device) WHERE n < {} GROUP BY 1 ORDER BY 1", &["3", "10", "0"]),
    (
        "SELECT DISTINCT ON (device) device, time FROM m WHERE device > {} ORDER BY device, time DESC",
        &["'d1'", "'d2'", "''"],
    ),
    ("SELECT time, n FROM m WHERE device = {} ORDER BY time DESC LIMIT 3", &["'d1'", "'d3'", "'nobody'"]),
    ("SELECT count(*) FROM m WHERE time > now() - interval '100 years' AND device <> {}", &["'d1'", "'x'"]),
    (
        "SELECT date_trunc('day', time), count(*) FROM m WHERE time BETWEEN {} AND '2024-01-03' GROUP BY 1 ORDER BY 1",
        &["'2024-01-01'", "'2024-01-02'"],
    ),
    ("SELECT nothing FROM m WHERE device = {}", &["'a'", "'b'"]),
    ("SELECT device FROM m WHERE device = {} GROUP BY value", &["'a'", "'b'"]),
    (
        "SELECT id FROM kinds WHERE r = {} ORDER BY 1",
        &["0.1", "'0.1'", "0.10000000149011612", "16777217", "1e-1", "'x'"],
    ),
    ("SELECT id FROM kinds WHERE s <= {} ORDER BY 1", &["1", "32768", "'32768'", "1.5", "'1.5'", "99999999999"]),
    (
        "SELECT id FROM kinds WHERE q IN (7, {}) ORDER BY 1",
        &["0.1", "0.100", "0.10000000000000000001", "99999999.99", "99999999.990", "1"],
    ),
    ("SELECT id FROM kinds WHERE q >= {} ORDER BY 1", &["'0.1'", "0.104", "'0.104'", "123456789.5", "'NaN'", "1"]),
    (
        "SELECT id FROM kinds WHERE d BETWEEN {} AND 'infinity' ORDER BY 1",
        &["'2024-01-01'", "'today'", "'2024-02-30'", "'-infinity'"],
    ),
    (
        "SELECT id FROM kinds WHERE d > {} ORDER BY 1",
        &["'2023-12-31'", "timestamp '2023-12-31 23:00'", "'yesterday'", "date '2024-01-01'"],
    ),
    (
        "SELECT id FROM kinds WHERE t < {} ORDER BY 1",
        &["'2024-01-01 12:00:00.000001'", "'2024-01-01 12:00+05'", "'now'", "date '2024-01-02'"],
    ),
    ("SELECT id FROM kinds WHERE b = {} ORDER BY 1", &["true", "'t'", "'off'", "'maybe'", "NULL"]),
    (
        "SELECT id FROM kinds WHERE u = {} ORDER BY 1",
        &["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "'a0eebc999c0b4ef8bb6d6bb9bd380a11'", "'a'"],
    ),
    ("SELECT id FROM kinds WHERE v = {} ORDER BY 1", &["'ab'", "'ab '", "'abcdefghijkl'", "1"]),
    ("SELECT id FROM kinds WHERE c = {} ORDER BY 1", &["'ab'", "'ab  '", "'abc'", "''"]),
    ("SELECT id FROM kinds WHERE w > {} ORDER BY 1", &["'10:00'", "'9:59:59.9'", "'now'", "'25:00'"]),
    ("SELECT id FROM kinds WHERE i = {} ORDER BY 1", &["'1 day'", "'24 hours'", "interval '1' day", "'x'"]),
    ("SELECT id FROM kinds WHERE x = {} ORDER BY 1", &["'a'", "'\\x61'", "'\\x6'", "''"]),
    ("SELECT k.id, {} AS same FROM kinds k WHERE k.s > 0 ORDER BY 1", &["1", "'1'", "1.0", "2", "NULL"]),
    ("SELECT time, value FROM m WHERE device = 'd1' ORDER BY {} LIMIT 2", &["1", "2", "1 DESC", "3", "time"]),
    ("SELECT time, value FROM m WHERE device = 'd1' ORDER BY 1 LIMIT {}", &["1", "2", "0", "ALL", "NULL", "-1"]),
    (
        "SELECT time_bucket({}, time) AS t, count(*) FROM m WHERE n < 100 GROUP BY 1 ORDER BY 1",
        &["'1 day'", "'12 hours'", "'1 month'", "'x'"],
    ),
    ("SELECT count(*) FROM m WHERE device IN ({})", &["'d1'", "'d1', 'd2'", "'d1', NULL", "'a', 'b', 'c', 'd', 'd3'"]),
    ("SELECT '{}' = device, count(*) FROM m WHERE device <> '{}' GROUP BY 1 ORDER BY 1", &["d1", "d2"]),
];

/// Rows, or SQLSTATE and message.
async fn answer(sql: &Sql, query: &str) -> Result<Vec<String>, String> {
    let rows = sql.try_rows(query).await;
    rows.map_err(|error| format!("{}: {}", sqlstate_of(&error), error.as_db_error().map_or("", |db| db.message())))
}

async fn compare_all(kept: &Sql, planned: &Sql) {
    for (pattern, constants) in PATTERNS {
        // Each at least three times: seen, kept, used.
        for constant in constants.iter().chain(*constants).chain(*constants) {
            let query = pattern.replace("{}", constant);
            assert_eq!(answer(kept, &query).await, answer(planned, &query).await, "{query}");
        }
    }
}

#[tokio::test]
async fn a_query_with_a_semicolon_is_read_again_when_another_plan_is_kept() {
    let node = Node::start();
    let sql = node.connect().await;
    fill(&sql).await;
    for count in [1, 1, 1, 2, 3, 2] {
        let query = format!("SELECT n FROM m WHERE device = 'd1' ORDER BY time LIMIT {count};");
        assert_eq!(sql.rows(&query).await.len(), count, "{query}");
    }
}

#[tokio::test]
async fn kept_plans_answer_as_new_ones_do() {
    let cluster = Cluster::start(1, 2);
    let (kept, planned) = (cluster.connect().await, cluster.connect().await);
    fill(&kept).await;
    planned.run("SET meridian.enable_plan_cache = off").await;
    for zone in ["UTC", "Europe/Berlin", "America/New_York"] {
        for sql in [&kept, &planned] {
            sql.run(&format!("SET timezone = '{zone}'")).await;
        }
        compare_all(&kept, &planned).await;
    }
    for sql in [&kept, &planned] {
        sql.run("BEGIN").await;
        sql.run("INSERT INTO m VALUES ('2024-01-02 03:04Z', 'd1', 100, 100)").await;
    }
    // An error ends the transaction.
    for query in ["SELECT count(*), max(n) FROM m WHERE device = 'd1'", "SELECT count(*) FROM m WHERE n = 100"] {
        for _ in 0..3 {
            assert_eq!(answer(&kept, query).await, answer(&planned, query).await, "{query}");
        }
    }
    for sql in [&kept, &planned] {
        sql.run("ROLLBACK").await;
    }
    assert_eq!(kept.one("SELECT count(*) FROM m WHERE n = 100").await, "0");
}

#[tokio::test]
async fn explain_and_metrics_tell_of_kept_plans() {
    let node = Node::start();
    let sql = node.connect().await;
    fill(&sql).await;
    let query = |device: &str| format!("SELECT max(value) FROM m WHERE device = '{device}'");
    assert_eq!(plan_of(&sql, &query("d1")).await, "miss");
    assert_eq!(plan_of(&sql, &query("d2")).await, "miss");
    assert_eq!(plan_of(&sql, &query("d3")).await, "hit");
    assert_eq!(sql.one(&query("d2")).await, "2.23");
    // Another session has the same plans.
    let other = node.connect().await;
    assert_eq!(plan_of(&other, &query("d7")).await, "hit");
    other.run("SET meridian.enable_plan_cache = off").await;
    assert_eq!(plan_of(&other, &query("d7")).await, "miss");
    sql.run("PREPARE p (text) AS SELECT max(value) FROM m WHERE device = $1").await;
    for (device, expected) in [("d1", "1.23"), ("d2", "2.23"), ("d3", "3.23"), ("d1", "1.23")] {
        assert_eq!(sql.one(&format!("EXECUTE p('{device}')")).await, expected);
    }
    assert_eq!(plan_of(&sql, "EXECUTE p('d2')").await, "hit");
    let (_, metrics) = node.get("/metrics").unwrap();
    let figure = |name: &str| -> u64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("meridian_plan_cache_{name} ")));
        line.unwrap_or_else(|| panic!("{name} in {metrics}")).trim().parse().unwrap()
    };
    assert!(figure("hits_total") >= 5, "{metrics}");
    assert!(figure("misses_total") >= 2 && figure("plans") == 2 && figure("bytes") > 0, "{metrics}");
}

#[tokio::test]
async fn clocks_and_chance_are_those_of_each_statement() {
    let node = Node::start();
    let sql = node.connect().await;
    fill(&sql).await;
    let query = |what: &str, hour: usize| format!("SELECT {what} FROM m WHERE device = 'd1' AND n = {hour} LIMIT 1");
    for what in ["random()", "now()", "statement_timestamp()", "clock_timestamp()", "now() - time"] {
        let mut seen = BTreeSet::new();
        for hour in 0..5 {
            assert!(seen.insert(sql.one(&query(what, hour % 2)).await), "{what}: {seen:?}");
        }
    }
    assert_eq!(plan_of(&sql, &query("now()", 3)).await, "hit");
    let count = |hour: usize| format!("SELECT count(*) FROM m WHERE n = {hour} AND random() < 0.5");
    let mut seen = BTreeSet::new();
    for turn in 0..60 {
        seen.insert(sql.one(&count(turn % 2)).await);
    }
    assert!(seen.len() > 2, "{seen:?}");
    // In a transaction it stands still.
    sql.run("BEGIN").await;
    let first = sql.one(&query("now()", 1)).await;
    assert_eq!(sql.one(&query("now()", 1)).await, first);
    assert_ne!(sql.one(&query("statement_timestamp()", 1)).await, sql.one(&query("statement_timestamp()", 1)).await);
    sql.run("COMMIT").await;
    assert_ne!(sql.one(&query("now()", 1)).await, first);
}

#[tokio::test]
async fn tables_that_changed_are_planned_anew() {
    let cluster = Cluster::start(2, 1);
    let (sql, other) = (cluster.connect().await, Sql::connect(cluster.access[1].sql_port()).await);
    sql.run("CREATE TABLE t (k text, v int)").await;
    sql.run("INSERT INTO t VALUES ('a', 1), ('b', 2)").await;
    let query = |k: &str| format!("SELECT * FROM t WHERE k = '{k}'");
    for session in [&sql, &other] {
        for _ in 0..3 {
            assert_eq!(session.rows(&query("b")).await, ["b|2"]);
        }
        assert_eq!(plan_of(session, &query("b")).await, "hit");
    }
    // Through the other access node: the next statement of this one knows it.
    other.run("DROP TABLE t").await;
    assert_eq!(sql.fail(&query("a")).await.0, "42P01");
    other.run("CREATE TABLE t (k int, w text, v int)").await;
    other.run("INSERT INTO t VALUES (1, 'x', 10)").await;
    assert_eq!(
        sql.fail(&query("a")).await,
        ("22P02".to_owned(), "invalid input syntax for type integer: \"a\"".to_owned())
    );
    for _ in 0..3 {
        assert_eq!(sql.rows(&query("1")).await, ["1|x|10"]);
    }
    assert_eq!(plan_of(&sql, &query("2")).await, "hit");
    // A transaction sees its own change, and nobody else does.
    sql.run("BEGIN").await;
    sql.run("DROP TABLE t").await;
    assert_eq!(sql.fail(&query("1")).await.0, "42P01");
    sql.run("ROLLBACK").await;
    sql.run("BEGIN").await;
    sql.run("DROP TABLE t").await;
    sql.run("CREATE TABLE t (k text)").await;
    sql.run("INSERT INTO t VALUES ('1')").await;
    assert_eq!(sql.rows(&query("1")).await, ["1"]);
    assert_eq!(other.rows(&query("1")).await, ["1|x|10"]);
    sql.run("COMMIT").await;
    assert_eq!(other.rows(&query("1")).await, ["1"]);
    sql.run("SET search_path = nowhere").await;
    assert_eq!(sql.fail(&query("1")).await.0, "42P01");
}

#[tokio::test]
async fn a_change_of_a_table_is_never_answered_by_an_old_plan() {
    let cluster = Cluster::start(2, 1);
    let changer = cluster.connect().await;
    changer.run("CREATE TABLE g (k text, generation int)").await;
    changer.run("INSERT INTO g VALUES ('x', 0)").await;
    let (generation, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut readers = Vec::new();
    for port in cluster.access.iter().map(Node::sql_port) {
        let (generation, over) = (Arc::clone(&generation), Arc::clone(&over));
        readers.push(tokio::spawn(async move {
            let sql = Sql::connect(port).await;
            let mut reads = 0_u64;
            while !over.load(Ordering::SeqCst) {
                let committed = generation.load(Ordering::SeqCst);
                // The columns are those of one generation, the row too, and not one from before the statement began.
                match sql.try_rows("SELECT * FROM g WHERE k = 'x'").await {
                    Ok(rows) => {
                        // The rows of a transaction come after its tables.
                        let Some(row) = rows.first() else { continue };
                        let cells: Vec<_> = row.split('|').collect();
                        let read: u64 = cells[1].parse().unwrap();
                        assert!(read >= committed, "{rows:?} after {committed}");
                        assert_eq!(cells.len() as u64, 2 + read % 2, "{rows:?}");
                        reads += 1;
                    }
                    Err(error) => assert_eq!(sqlstate_of(&error), "40001", "{error:?}"),
                }
            }
            reads
        }));
    }
    for next in 1..=20_u64 {
        let (column, value) = if next % 2 == 1 { (", more text", ", 'm'") } else { ("", "") };
        changer.run("BEGIN").await;
        changer.run("DROP TABLE g").await;
        changer.run(&format!("CREATE TABLE g (k text, generation int{column})")).await;
        changer.run(&format!("INSERT INTO g VALUES ('x', {next}{value})")).await;
        changer.run("COMMIT").await;
        generation.store(next, Ordering::SeqCst);
        assert_eq!(changer.rows("SELECT * FROM g WHERE k = 'x'").await.len(), 1);
    }
    over.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn prepared_statements_use_kept_plans() {
    let node = Node::start();
    let sql = node.connect().await;
    fill(&sql).await;
    let query = "SELECT device, max(value) AS top FROM m WHERE device = $1 AND n < $2 GROUP BY device LIMIT $3";
    let statement = sql.client.prepare(query).await.unwrap();
    for (device, most, expected) in
        [("d1", 5_i64, 1.04), ("d2", 7, 2.06), ("d3", 5, 3.04), ("d1", 24, 1.23), ("d2", 5, 2.04)]
    {
        let rows = sql.client.query(&statement, &[&device, &most, &10_i64]).await.unwrap();
        let row: (&str, f64) = (rows[0].get(0), rows[0].get(1));
        assert_eq!(row, (device, expected));
        // Parsed anew each time.
        let rows = sql.client.query(query, &[&device, &most, &1_i64]).await.unwrap();
        assert_eq!(rows[0].get::<_, f64>("top"), expected);
        assert!(sql.client.query(query, &[&device, &most, &0_i64]).await.unwrap().is_empty());
    }
    let none: Option<&str> = None;
    assert!(sql.client.query(&statement, &[&none, &5_i64, &1_i64]).await.unwrap().is_empty());
    let (_, metrics) = node.get("/metrics").unwrap();
    let hits = metrics.lines().find_map(|line| line.strip_prefix("meridian_plan_cache_hits_total ")).unwrap();
    assert!(hits.trim().parse::<u64>().unwrap() >= 6, "{metrics}");
    // A client decodes rows by what it was told.
    sql.run("CREATE TABLE t (k text, v int)").await;
    sql.run("INSERT INTO t VALUES ('a', 1)").await;
    let statement = sql.client.prepare("SELECT * FROM t WHERE k = $1").await.unwrap();
    for _ in 0..3 {
        assert_eq!(sql.client.query(&statement, &[&"a"]).await.unwrap().len(), 1);
    }
    sql.run("DROP TABLE t").await;
    sql.run("CREATE TABLE t (k text, v text)").await;
    let error = sql.client.query(&statement, &[&"a"]).await.unwrap_err();
    assert_eq!(sqlstate_of(&error), "0A000");
    assert!(sql.client.query("SELECT * FROM t WHERE k = $1", &[&"a"]).await.unwrap().is_empty());
}
