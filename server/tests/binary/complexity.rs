//! Statements that nest deep or are long: they are answered, or refused with 54001, and soon; and the node lives on.

use std::time::{Duration, Instant};

use crate::common::{Node, Sql};

/// For a statement that others would take milliseconds for, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

async fn start() -> (Node, Sql) {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE h (ts timestamptz NOT NULL, host text, n int)").await;
    sql.run("SELECT create_hypertable('h', 'ts')").await;
    sql.run("INSERT INTO h VALUES ('2024-01-01', 'a', 1), ('2024-01-02', 'b', 0), ('2024-01-03', 'c', NULL)").await;
    (node, sql)
}

fn joined(count: usize, operator: &str, condition: impl Fn(usize) -> String) -> String {
    (0..count).map(condition).collect::<Vec<_>>().join(operator)
}

#[tokio::test]
async fn long_conditions_are_answered() {
    let (node, sql) = start().await;
    let many = |operator: &str, comparison: &str| joined(950, operator, |n| format!("n {comparison} {}", n + 1000));
    for (condition, rows) in [
        (many(" AND ", "<>"), "2"),
        (many(" OR ", "<"), "2"),
        (many(" AND ", "<"), "2"),
        (joined(300, " OR ", |n| format!("(n = {n} AND host < 'b{n}')")), "2"),
        (joined(300, " OR ", |n| format!("n = {n} + 1 - 1")), "2"),
        (format!("n{} > 200", " + 1".repeat(200)), "1"),
        (format!("{}n{} = 1", "abs(".repeat(60), ")".repeat(60)), "1"),
        (format!("{}n IS NULL{}", "NOT (".repeat(40), ")".repeat(40)), "1"),
        (format!("host{} LIKE 'a%'", " || 'x'".repeat(200)), "1"),
    ] {
        let begin = Instant::now();
        assert_eq!(sql.one(&format!("SELECT count(*) FROM h WHERE {condition}")).await, rows, "{condition:.80}");
        assert!(begin.elapsed() < SOON, "{:?}: {condition:.80}", begin.elapsed());
    }
    node.assert_no_panic();
}

#[tokio::test]
async fn conditions_that_may_fail_nest_as_deep_as_others() {
    let (node, sql) = start().await;
    let mut left = "n / 1 > 0".to_owned();
    let mut right = left.clone();
    for n in 0..40 {
        let operator = if n % 2 == 0 { "AND" } else { "OR" };
        left = format!("({left} {operator} 10 / (n - {}) > {n})", n + 100);
        right = format!("(10 / (n - {}) > {n} {operator} {right})", n + 100);
    }
    for condition in [left, right] {
        let begin = Instant::now();
        assert_eq!(sql.one(&format!("SELECT count(*) FROM h WHERE {condition}")).await, "0", "{condition:.80}");
        assert!(begin.elapsed() < SOON, "{:?}: {condition:.80}", begin.elapsed());
    }
    node.assert_no_panic();
}

#[tokio::test]
async fn what_nests_too_deep_is_refused_soon() {
    let (node, sql) = start().await;
    let nested = |open: &str, inner: &str, close: &str, levels: usize| {
        format!("SELECT {}{inner}{} FROM h", open.repeat(levels), close.repeat(levels))
    };
    for statement in [
        nested("(SELECT ", "1", ")", 40),
        nested("coalesce(", "n", ", 1)", 30),
        nested("NOT (", "true", ")", 200),
        nested("", "n", " + 1", 400),
        nested("", "n", "::text || 'a'", 400),
        format!("SELECT {}true{}", "n IN (SELECT n FROM h WHERE ".repeat(30), ")".repeat(30)),
    ] {
        let begin = Instant::now();
        assert_eq!(sql.fail(&statement).await.0, "54001", "{statement:.80}");
        assert!(begin.elapsed() < SOON, "{:?}: {statement:.80}", begin.elapsed());
    }
    assert_eq!(sql.one("SELECT count(*) FROM h").await, "3");
    node.assert_no_panic();
}

/// `random() < 0.5` is asked once for each row, though the right side is asked for some rows only.
#[tokio::test]
async fn what_is_another_thing_each_time_is_asked_once() {
    let (node, sql) = start().await;
    let share = async |condition: &str| -> f64 {
        let query =
            format!("SELECT count(*) FROM (SELECT {condition} AS c FROM generate_series(1, 100000) g(n)) q WHERE c");
        sql.one(&query).await.parse::<f64>().unwrap() / 100_000.0
    };
    // Twenty times the deviation of so many throws.
    for condition in
        ["random() < 0.5 AND 10 / n >= 0", "random() < 0.5 OR 10 / n < 0", "NOT (random() < 0.5 OR 10 / n < 0)"]
    {
        let share = share(condition).await;
        assert!((share - 0.5).abs() < 0.032, "{condition}: {share}");
    }
    node.assert_no_panic();
}
