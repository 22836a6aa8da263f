//! Queries that mean what PostgreSQL means by them, through a driver and its parameters.

use std::time::{Duration, Instant};

use crate::common::{Node, Sql, sqlstate_of};

async fn fill(sql: &Sql) {
    sql.run("SET timezone = 'UTC'").await;
    sql.run("CREATE TABLE t (k int, name text, short varchar(10), price numeric(10,2))").await;
    sql.run("INSERT INTO t VALUES (1, 'a', 'a', 1.50), (2, 'b', 'b', 2.25), (3, NULL, NULL, NULL)").await;
}

#[tokio::test]
async fn a_scalar_subquery_of_several_rows_is_an_error() {
    let node = Node::start();
    let sql = node.connect().await;
    fill(&sql).await;
    let message = "more than one row returned by a subquery used as an expression".to_owned();
    for query in [
        "SELECT (SELECT 1 UNION SELECT 2)",
        "SELECT * FROM t WHERE k = (SELECT k FROM t)",
        "SELECT (SELECT u.k FROM t u WHERE u.price = t.price OR true) FROM t",
        "SELECT (SELECT u.k FROM t u, t v WHERE u.name = t.name) FROM t",
    ] {
        let (state, text) = sql.fail(query).await;
        assert!(state == "21000" && text == message || state == "0A000", "{query}: {state} {text}");
    }
    assert_eq!(sql.rows("SELECT (SELECT u.k FROM t u WHERE u.name = t.name) FROM t ORDER BY k").await, ["1", "2", "-"]);
    assert_eq!(sql.rows("SELECT k FROM t WHERE k = (SELECT k FROM t WHERE name = 'b')").await, ["2"]);
}

#[tokio::test]
async fn arrays_are_parameters() {
    let node = Node::start();
    let sql = node.connect().await;
    fill(&sql).await;
    let keys = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>();
    for column in ["name", "short"] {
        let query = format!("SELECT k FROM t WHERE {column} = ANY($1) ORDER BY k");
        let rows = sql.client.query(&query, &[&vec!["b", "a", "z"]]).await.unwrap();
        assert_eq!(keys(rows), [1, 2], "{column}");
        let query = format!("SELECT k FROM t WHERE {column} <> ALL($1::text[]) ORDER BY k");
        let rows = sql.client.query(&query, &[&vec!["b"]]).await.unwrap();
        assert_eq!(keys(rows), [1], "{column}");
    }
    let rows = sql.client.query("SELECT k FROM t WHERE k = ANY($1) ORDER BY k", &[&vec![3_i32, 1]]).await.unwrap();
    assert_eq!(keys(rows), [1, 3]);
    sql.run("PREPARE p AS SELECT k FROM t WHERE price = ANY($1)").await;
    assert_eq!(sql.rows("EXECUTE p('{1.5,9}')").await, ["1"]);
    let types = [tokio_postgres::types::Type::INT4];
    let error = sql.client.prepare_typed("SELECT k FROM t WHERE name = $1", &types).await.unwrap_err();
    assert_eq!(sqlstate_of(&error), "42883");
    let row = sql.client.query_one("SELECT $1::int + 1, $2::text", &[&1_i32, &"a"]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>(1)), (2, "a"));
    let rows = sql.client.query("SELECT k FROM t WHERE name = $1 AND k = $2", &[&"a", &1_i32]).await.unwrap();
    assert_eq!(keys(rows), [1]);
}

#[tokio::test]
async fn a_long_series_is_cancelled() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("SET statement_timeout = '300ms'").await;
    let began = Instant::now();
    let (state, _) = sql.fail("SELECT count(*) FROM generate_series(1, 100000000000) g WHERE g < 0").await;
    assert_eq!(state, "57014");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn transactions_are_started_by_their_name() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("START TRANSACTION ISOLATION LEVEL REPEATABLE READ").await;
    assert_eq!(sql.rows("SHOW transaction_isolation").await, ["repeatable read"]);
    sql.run("COMMIT").await;
}

#[tokio::test]
async fn literals_take_the_types_of_what_they_meet() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (ts timestamptz, n int)").await;
    sql.run("INSERT INTO t VALUES ('2024-01-01', 1), (NULL, 2)").await;
    for (query, rows) in [
        ("SELECT '12' AS a UNION ALL SELECT 3 ORDER BY 1", ["3", "12"]),
        ("SELECT 10 AS a UNION SELECT '9' ORDER BY 1", ["9", "10"]),
        ("SELECT 10.5 AS a UNION ALL SELECT '9.25' ORDER BY 1", ["9.25", "10.5"]),
        ("SELECT n::float8 AS a FROM t WHERE n = 1 UNION ALL SELECT '2.5' ORDER BY 1", ["1", "2.5"]),
        ("SELECT coalesce(ts, '2024-02-01') FROM t ORDER BY n", ["2024-01-01 00:00:00+00", "2024-02-01 00:00:00+00"]),
        ("SELECT coalesce(ts, 'infinity') FROM t ORDER BY n", ["2024-01-01 00:00:00+00", "infinity"]),
        ("SELECT ts IS NOT DISTINCT FROM '2024-01-01' FROM t ORDER BY n", ["t", "f"]),
        ("SELECT 'infinity' IS DISTINCT FROM ts FROM t ORDER BY n", ["t", "t"]),
    ] {
        assert_eq!(sql.rows(query).await, rows, "{query}");
    }
    for (query, state) in [
        ("SELECT 1 UNION ALL SELECT 'x'", "22P02"),
        ("SELECT 1 UNION ALL SELECT 'x'::text", "42804"),
        ("SELECT coalesce(ts, 'x') FROM t", "22007"),
        ("SELECT mean(NULL)", "42883"),
    ] {
        assert_eq!(sql.fail(query).await.0, state, "{query}");
    }
    node.assert_no_panic();
}

#[tokio::test]
async fn what_is_distinct_ends_before_and_and_or() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (b bool, n int)").await;
    sql.run("INSERT INTO t VALUES (true, 1), (true, 2), (false, 3), (NULL, 4)").await;
    for (condition, rows) in [
        ("b IS NOT DISTINCT FROM true AND n > 1", vec!["2"]),
        ("b IS DISTINCT FROM false OR n > 1", vec!["1", "2", "3", "4"]),
        ("n IS NOT DISTINCT FROM 3 OR b", vec!["1", "2", "3"]),
    ] {
        assert_eq!(sql.rows(&format!("SELECT n FROM t WHERE {condition} ORDER BY n")).await, rows, "{condition}");
    }
}

#[tokio::test]
async fn nan_is_the_greatest_value_of_a_group() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (ts timestamptz NOT NULL, g int, d float8, r real)").await;
    sql.run("SELECT create_hypertable('t', 'ts', chunk_time_interval => interval '1 day')").await;
    for values in [["NaN", "1", "2"], ["1", "NaN", "2"], ["1", "2", "NaN"]] {
        for (day, value) in values.iter().enumerate() {
            sql.run(&format!("INSERT INTO t VALUES ('2024-01-0{}', {}, '{value}', '{value}')", day + 1, day % 2)).await;
        }
    }
    let expected = ["0|NaN|1|NaN|1", "1|NaN|1|NaN|1"];
    assert_eq!(sql.rows("SELECT g, max(d), min(d), max(r), min(r) FROM t GROUP BY g ORDER BY g").await, expected);
    let computed = "SELECT n % 1, max(d + 0), min(d + 0) FROM t, generate_series(1, 2) n GROUP BY 1";
    assert_eq!(sql.one(computed).await, "0|NaN|1");
}

#[tokio::test]
async fn averages_are_rounded_to_the_nearest() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (ts timestamptz NOT NULL, g int, i int, b bigint, n numeric(10, 2))").await;
    sql.run("SELECT create_hypertable('t', 'ts')").await;
    sql.run("INSERT INTO t VALUES ('2024-01-01', 1, 1, 1, 1), ('2024-01-02', 1, 2, 2, 2), ('2024-01-03', 1, 5, 5, 5)")
        .await;
    sql.run("INSERT INTO t VALUES ('2024-01-01', 2, -1, -1, -1), ('2024-01-02', 2, -1, -1, -1), ('2024-01-03', 2, -6, -6, -6)")
        .await;
    let expected = [
        "1|2.6666666666666667|2.6666666667|2.6666666666666667",
        "2|-2.6666666666666667|-2.6666666667|-2.6666666666666667",
    ];
    assert_eq!(sql.rows("SELECT g, avg(i), avg(b), avg(n) FROM t GROUP BY g ORDER BY g").await, expected);
    let whole = "SELECT avg(i), avg(n) FROM t WHERE g = 1";
    assert_eq!(sql.one(whole).await, "2.6666666666666667|2.6666666666666667");
    let moving = "SELECT avg(i) OVER (ORDER BY ts) FROM t WHERE g = 1 ORDER BY ts";
    assert_eq!(sql.rows(moving).await, ["1.0000000000000000", "1.5000000000000000", "2.6666666666666667"]);
    assert_eq!(sql.one("SELECT avg(i) FROM t WHERE g = 3").await, "-");
}

#[tokio::test]
async fn distinct_on_names_columns_by_their_places() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (k text, n int)").await;
    sql.run("INSERT INTO t VALUES ('a', 2), ('a', 1), ('b', 3)").await;
    assert_eq!(sql.rows("SELECT DISTINCT ON (1) k, n FROM t ORDER BY 1, 2").await, ["a|1", "b|3"]);
    assert_eq!(sql.rows("SELECT DISTINCT ON (k) n, k FROM t ORDER BY 2, 1 DESC").await, ["2|a", "3|b"]);
}

#[tokio::test]
async fn zero_and_minus_zero_are_one_value() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE z (k float8, r real, i int)").await;
    sql.run(
        "INSERT INTO z VALUES ('0', '0', 1), ('-0', '-0', 2), ('1.5', '1.5', 3), ('NaN', 'NaN', 4), ('0', '-0', 0)",
    )
    .await;
    for (query, expected) in [
        ("SELECT count(*) FROM z WHERE k IN (0, 1.5)", &["4"][..]),
        ("SELECT count(*) FROM z WHERE r IN (-0.0, 2)", &["3"]),
        ("SELECT count(*) FROM z WHERE k NOT IN (0, 2.5)", &["2"]),
        ("SELECT k, count(*) FROM z GROUP BY k ORDER BY k", &["0|3", "1.5|1", "NaN|1"]),
        ("SELECT count(DISTINCT k), count(DISTINCT r) FROM z", &["3|3"]),
        ("SELECT DISTINCT r FROM z ORDER BY 1", &["0", "1.5", "NaN"]),
        ("SELECT count(*) FROM (SELECT k FROM z UNION SELECT r FROM z) AS u", &["3"]),
        ("SELECT i, count(*) OVER (PARTITION BY k) FROM z ORDER BY i LIMIT 3", &["0|3", "1|3", "2|3"]),
        ("SELECT i, rank() OVER (ORDER BY k) FROM z ORDER BY i", &["0|1", "1|1", "2|1", "3|4", "4|5"]),
        ("SELECT i FROM z WHERE CASE k WHEN 0 THEN true ELSE false END ORDER BY i", &["0", "1", "2"]),
        ("SELECT count(*) FROM z WHERE nullif(k, 0) IS NULL", &["3"]),
        ("SELECT a.i, b.i FROM z a JOIN z b ON a.k = b.k WHERE a.i = 1 ORDER BY 2", &["1|0", "1|1", "1|2"]),
        ("SELECT count(*) FROM z WHERE i>-1 AND k>=-0.0", &["5"]),
    ] {
        assert_eq!(sql.rows(query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn the_last_moment_of_all_is_in_the_last_chunk() {
    let node = Node::start();
    let sql = node.connect().await;
    for interval in [1, 7, i64::MAX] {
        sql.run(&format!("CREATE TABLE e{interval} (time bigint NOT NULL, v int)")).await;
        sql.run(&format!("SELECT create_hypertable('e{interval}', 'time', chunk_time_interval => {interval})")).await;
        sql.run(&format!("INSERT INTO e{interval} VALUES ({}, 1), ({}, 2), (0, 3)", i64::MAX, i64::MAX - 1)).await;
        assert_eq!(sql.one(&format!("SELECT count(*), max(time) FROM e{interval}")).await, format!("3|{}", i64::MAX));
    }
}
