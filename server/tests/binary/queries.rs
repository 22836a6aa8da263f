//! SELECT over chunks, shards and nodes, and statements about statements.

use std::time::{Duration, Instant};

use crate::common::{Cluster, Node, Sql, sqlstate_of};

/// 3 devices x 4 days x 24 hours: value = device number + hour / 100.
async fn fill(sql: &Sql) {
    sql.run("CREATE TABLE m (time timestamptz NOT NULL, device text NOT NULL, value float8, note text)").await;
    sql.run("SELECT create_hypertable('m', 'time', chunk_time_interval => INTERVAL '1 day', partitioning_column => 'device', number_partitions => 4)").await;
    sql.run("CREATE TABLE devices (device text NOT NULL, place text)").await;
    sql.run("INSERT INTO devices VALUES ('d1', 'roof'), ('d2', 'cellar'), ('d9', 'nowhere')").await;
    let mut lines = String::new();
    for device in 1..=3 {
        for hour in 0..96 {
            let (day, hour) = (1 + hour / 24, hour % 24);
            lines.push_str(&format!("2024-01-{day:02} {hour:02}:00Z,d{device},{device}.{hour:02},\\N\n"));
        }
    }
    sql.copy("COPY m FROM STDIN WITH (FORMAT csv, NULL '\\N')", &lines).await.unwrap();
    sql.run("SET timezone = 'UTC'").await;
}

#[tokio::test]
async fn queries_give_the_right_rows_whatever_runs_where() {
    let cluster = Cluster::start(1, 3);
    let sql = cluster.connect().await;
    fill(&sql).await;
    for (query, expected) in [
        ("SELECT count(*), min(value), max(value) FROM m", vec!["288|1|3.23"]),
        ("SELECT count(*) FROM m WHERE time >= '2024-01-02Z' AND time < '2024-01-03Z' AND device <> 'd3'", vec!["48"]),
        (
            "SELECT device, count(*), sum(value) FROM m WHERE time < '2024-01-01 02:00Z' GROUP BY device ORDER BY 1",
            vec!["d1|2|2.01", "d2|2|4.01", "d3|2|6.01"],
        ),
        (
            "SELECT time_bucket('1 day', time) AS day, max(value) FROM m WHERE device = 'd2' GROUP BY day ORDER BY day LIMIT 2",
            vec!["2024-01-01 00:00:00+00|2.23", "2024-01-02 00:00:00+00|2.23"],
        ),
        (
            "SELECT device, last(value, time), first(value, time) FROM m GROUP BY device ORDER BY device",
            vec!["d1|1.23|1", "d2|2.23|2", "d3|3.23|3"],
        ),
        (
            "SELECT DISTINCT ON (device) device, time FROM m ORDER BY device, time DESC",
            vec!["d1|2024-01-04 23:00:00+00", "d2|2024-01-04 23:00:00+00", "d3|2024-01-04 23:00:00+00"],
        ),
        (
            "SELECT place, count(*) FROM m JOIN devices USING (device) GROUP BY place ORDER BY place",
            vec!["cellar|96", "roof|96"],
        ),
        (
            "SELECT d.device, count(m.value) FROM devices d LEFT JOIN m ON m.device = d.device GROUP BY 1 ORDER BY 1",
            vec!["d1|96", "d2|96", "d9|0"],
        ),
        (
            "WITH w AS (SELECT device, value FROM m WHERE value > 3.2) SELECT device, value FROM w ORDER BY value DESC LIMIT 3 OFFSET 4",
            vec!["d3|3.22", "d3|3.22", "d3|3.22"],
        ),
        ("SELECT count(DISTINCT device), count(note) FROM m", vec!["3|0"]),
        ("SELECT device FROM m GROUP BY device HAVING avg(value) > 2 ORDER BY device", vec!["d2", "d3"]),
        (
            "SELECT device, rank() OVER (ORDER BY v DESC) FROM (SELECT device, max(value) AS v FROM m GROUP BY device) x ORDER BY 2",
            vec!["d3|1", "d2|2", "d1|3"],
        ),
        ("SELECT count(*) FROM m WHERE device IN (SELECT device FROM devices)", vec!["192"]),
        ("SELECT count(*) FROM m WHERE time > now()", vec!["0"]),
        ("SELECT 1 WHERE false", vec![]),
    ] {
        assert_eq!(sql.rows(query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn explain_says_what_runs_where() {
    let cluster = Cluster::start(1, 2);
    let sql = cluster.connect().await;
    fill(&sql).await;
    let plan = sql.rows("EXPLAIN SELECT device, avg(value) FROM m WHERE time < '2024-01-02Z' GROUP BY device").await;
    assert!(!plan.is_empty());
    let plan = sql.rows("EXPLAIN ANALYZE SELECT device, avg(value) FROM m GROUP BY device").await.join("\n");
    assert!(plan.contains("dn1") && plan.contains("dn2"), "{plan}");
    let plan = sql.rows("EXPLAIN SELECT count(*) FROM m").await.join("\n");
    assert!(plan.contains("Aggregates: count(*)"), "{plan}");
}

#[tokio::test]
async fn a_hypertable_is_created_in_every_way_its_users_know() {
    let node = Node::start();
    let sql = node.connect().await;
    for (number, call) in [
        "create_hypertable('h0', 'time')",
        "create_hypertable('h1', 'time', 'device', 4)",
        "create_hypertable('h2', 'time', chunk_time_interval => INTERVAL '1 day')",
        "create_hypertable(relation => 'h3', time_column_name => 'time', chunk_time_interval => 86400000000)",
        "create_hypertable('public.h4', 'time', if_not_exists => TRUE)",
        "create_distributed_hypertable('h5', 'time', 'device')",
        "create_distributed_hypertable('h6', 'time', 'device', 2, replication_factor => 1)",
    ]
    .iter()
    .enumerate()
    {
        sql.run(&format!("CREATE TABLE h{number} (time timestamptz NOT NULL, device text)")).await;
        sql.run(&format!("SELECT * FROM {call}")).await;
        sql.run(&format!("INSERT INTO h{number} VALUES ('2024-01-01Z', 'a'), ('2025-01-01Z', 'b')")).await;
        assert_eq!(sql.one(&format!("SELECT count(*) FROM h{number}")).await, "2", "{call}");
    }
    assert_eq!(sql.fail("SELECT create_hypertable('h0', 'time')").await.0, "TS110");
    sql.run("SELECT create_hypertable('h0', 'time', if_not_exists => true)").await;
    sql.run("DROP TABLE h0").await;
    assert_eq!(sql.fail("SELECT * FROM h0").await.0, "42P01");
}

#[tokio::test]
async fn settings_are_set_shown_and_reset() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("SET timezone = 'Europe/Berlin'").await;
    assert_eq!(sql.one("SHOW timezone").await, "Europe/Berlin");
    assert_eq!(sql.one("SELECT '2024-07-01 12:00Z'::timestamptz").await, "2024-07-01 14:00:00+02");
    sql.run("RESET timezone").await;
    assert_ne!(sql.one("SHOW timezone").await, "Europe/Berlin");
    assert!(sql.one("SHOW server_version").await.starts_with("15."));
    sql.run("BEGIN; SET LOCAL timezone = 'Asia/Tokyo'; COMMIT").await;
    assert_ne!(sql.one("SHOW timezone").await, "Asia/Tokyo");
}

#[tokio::test]
async fn cancel_and_statement_timeout_stop_what_runs() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE numbers (x bigint); INSERT INTO numbers SELECT * FROM generate_series(1, 200000)").await;
    // Each far longer than the test has patience: one that waits, one that makes rows, one whose filter lets none through,
    // one that scans a table over and over.
    let endless = [
        "SELECT pg_sleep(60)",
        "SELECT count(*) FROM generate_series(1, 10000000) a(x), generate_series(1, 10000000) b(y)",
        "SELECT count(*) FROM generate_series(1, 5000000) a(x) JOIN generate_series(1, 5000000) b(y) ON x * y = -1",
        "SELECT count(*) FROM numbers a JOIN numbers b ON a.x * b.x = -1",
    ];
    for query in endless {
        sql.run("SET statement_timeout = '300ms'").await;
        let started = Instant::now();
        assert_eq!(sql.fail(query).await.0, "57014", "{query}");
        assert!(started.elapsed() < Duration::from_secs(5), "{query}: {:?}", started.elapsed());
        sql.run("SET statement_timeout = 0").await;

        let token = sql.client.cancel_token();
        let canceling = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            token.cancel_query(tokio_postgres::NoTls).await
        });
        let started = Instant::now();
        let error = sql.try_rows(query).await.unwrap_err();
        assert_eq!(sqlstate_of(&error), "57014", "{query}");
        assert!(started.elapsed() < Duration::from_secs(5), "{query}: {:?}", started.elapsed());
        canceling.await.unwrap().unwrap();
        assert_eq!(sql.one("SELECT 1").await, "1");
    }
}
