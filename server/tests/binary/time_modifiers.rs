//! timestamp(p), timestamptz(p), time(p), interval(p) and intervals of some fields: values are rounded, or cut, when they
//! become values of such a type. Every expected row is what PostgreSQL 15 answers to the same statement, NULL as `-`.

use crate::common::{Node, Sql};

async fn check(sql: &Sql, cases: &[(&str, &[&str])]) {
    for (query, expected) in cases {
        assert_eq!(sql.rows(query).await, *expected, "{query}");
    }
}

const TABLE: &str = "CREATE TABLE m (id int, a timestamp(3), b timestamptz(0), c time(1), d interval(2),
    e interval day to minute, f timestamp(6) NOT NULL DEFAULT '2024-01-01 00:00:00.1234567', g interval year to month)";

#[tokio::test]
async fn columns_keep_so_many_digits_and_fields() {
    let mut node = Node::start();
    let sql = node.connect().await;
    sql.run(TABLE).await;
    sql.run(
        "INSERT INTO m VALUES (1, '2024-01-01 00:00:00.1235', '2024-01-01 00:00:00.5+00', '10:00:00.25',
           '1.005 seconds', '1 day 2:03:59', '2024-01-01 00:00:00.123456', '1 year 2 months 3 days');
         INSERT INTO m (id, a, b, c) VALUES (2, '1999-12-31 23:59:59.9995', '1969-12-31 23:59:59.5+00', '23:59:59.96');
         INSERT INTO m (id, a, e) SELECT 3, timestamp '2024-01-01 00:00:00.0005', interval '-1 day -2:03:59';
         INSERT INTO m (id, a) SELECT 4, 'infinity'::timestamp;
         INSERT INTO m (id, e, g) VALUES (5, '90', '14')",
    )
    .await;
    let copied = sql.copy("COPY m (id, a, d) FROM STDIN", "6\t2024-01-01 00:00:00.9996\t1 day 0.125 seconds\n").await;
    assert_eq!(copied.unwrap(), 1);
    let rows = [
        "1|2024-01-01 00:00:00.124|2024-01-01 00:00:01+00|10:00:00.3|00:00:01.01|1 day 02:03:00|1 year 2 mons",
        "2|1999-12-31 23:59:59.999|1969-12-31 23:59:59+00|24:00:00|-|-|-",
        "3|2024-01-01 00:00:00.001|-|-|-|-1 days -02:03:00|-",
        "4|infinity|-|-|-|-|-",
        "5|-|-|-|-|01:30:00|1 year 2 mons",
        "6|2024-01-01 00:00:01|-|-|1 day 00:00:00.13|-|-",
    ];
    check(
        &sql,
        &[
            ("SELECT id, a, b, c, d, e, g FROM m ORDER BY id", &rows),
            ("SELECT f FROM m WHERE id = 2", &["2024-01-01 00:00:00.123457"]),
            ("SELECT count(*) FROM m WHERE a = '2024-01-01 00:00:00.124'", &["1"]),
            ("SELECT a::timestamp(1), d::interval(0) FROM m WHERE id = 1", &["2024-01-01 00:00:00.1|00:00:01"]),
        ],
    )
    .await;
    // The catalog keeps it.
    drop(sql);
    node.restart();
    let sql = node.connect().await;
    sql.run("INSERT INTO m (id, a) VALUES (7, '2024-01-01 00:00:00.5555')").await;
    assert_eq!(sql.one("SELECT a FROM m WHERE id = 7").await, "2024-01-01 00:00:00.556");
    node.assert_no_panic();
}

#[tokio::test]
async fn casts_and_literals_round_and_cut() {
    let node = Node::start();
    let sql = node.connect().await;
    check(
        &sql,
        &[
            ("SELECT '2024-01-01 00:00:00.123456'::timestamp(3)", &["2024-01-01 00:00:00.123"]),
            ("SELECT '2024-01-01 00:00:00.999999'::timestamp(5)", &["2024-01-01 00:00:01"]),
            ("SELECT timestamp(3) '2024-01-01 00:00:00.123456'", &["2024-01-01 00:00:00.123"]),
            ("SELECT '10:00:00.129'::time(2)", &["10:00:00.13"]),
            ("SELECT '1.2345 seconds'::interval(2)", &["00:00:01.23"]),
            ("SELECT interval(2) '1.239 seconds', interval(0) '1.5'", &["00:00:01.24|00:00:02"]),
            (
                "SELECT interval '90' minute, interval '14' month, interval '400' day",
                &["01:30:00|1 year 2 mons|400 days"],
            ),
            ("SELECT interval '1:30' hour to minute, interval '1 day 2:03:04' hour", &["01:30:00|1 day 02:00:00"]),
            ("SELECT interval '1-2' year to month, interval '5.678' second(1)", &["1 year 2 mons|00:00:05.7"]),
            ("SELECT '7'::interval month, '1 year 5 months'::interval year", &["7 mons|1 year"]),
            ("SELECT extract(microseconds FROM current_timestamp(0))::int % 1000000", &["0"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn clients_are_told_of_modifiers() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run(TABLE).await;
    let statement = sql.client.prepare("SELECT a, b, c, d, e, g, a::timestamp, id FROM m").await.unwrap();
    let modifiers: Vec<_> = statement.columns().iter().map(tokio_postgres::Column::type_modifier).collect();
    assert_eq!(modifiers, [3, 0, 1, 2_147_418_114, 201_916_415, 458_751, -1, -1]);
    check(
        &sql,
        &[(
            "SELECT column_name, data_type, datetime_precision, interval_type FROM information_schema.columns
             WHERE table_name = 'm' ORDER BY ordinal_position",
            &[
                "id|integer|-|-",
                "a|timestamp without time zone|3|-",
                "b|timestamp with time zone|0|-",
                "c|time without time zone|1|-",
                "d|interval|2|-",
                "e|interval|6|DAY TO MINUTE",
                "f|timestamp without time zone|6|-",
                "g|interval|6|YEAR TO MONTH",
            ],
        )],
    )
    .await;
}

#[tokio::test]
async fn a_number_alone_counts_the_smallest_field_however_it_comes() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE f (id int, a interval hour to minute, b interval day, c interval month DEFAULT '7')").await;
    sql.run("INSERT INTO f (id, a, b) VALUES (1, '90', '5')").await;
    sql.run("INSERT INTO f (id, a, b) SELECT 2, '90', '5'").await;
    assert_eq!(sql.copy("COPY f (id, a, b) FROM STDIN", "3\t90\t5\n4\t1:30:59\t5 days 3 hours\n").await.unwrap(), 2);
    assert_eq!(sql.copy("COPY f (a, id, b) FROM STDIN (FORMAT csv)", "90,5,5\n").await.unwrap(), 1);
    let row = |id: usize| format!("{id}|01:30:00|5 days|7 mons");
    assert_eq!(sql.rows("SELECT id, a, b, c FROM f ORDER BY id").await, [row(1), row(2), row(3), row(4), row(5)]);
    node.assert_no_panic();
}
