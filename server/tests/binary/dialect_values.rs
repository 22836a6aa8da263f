//! Values, functions and result types where PostgreSQL 15 and a query engine of other habits part. Every expected row is
//! what PostgreSQL 15 answers to the same statement, NULL as `-`.

use crate::common::{Node, Sql};

async fn check(sql: &Sql, cases: &[(&str, &[&str])]) {
    for (query, expected) in cases {
        assert_eq!(sql.rows(query).await, *expected, "{query}");
    }
}

async fn check_states(sql: &Sql, cases: &[(&str, &str)]) {
    for (query, state) in cases {
        assert_eq!(sql.fail(query).await.0, *state, "{query}");
    }
}

#[tokio::test]
async fn char_ignores_the_spaces_at_its_end() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE c (id int, a char(3), b varchar(5))").await;
    sql.run("INSERT INTO c VALUES (1, 'x', 'x'), (2, 'x  ', 'x '), (3, 'ab', 'y'), (4, '', '')").await;
    check(
        &sql,
        &[
            ("SELECT count(*) FROM c WHERE a = 'x'", &["2"]),
            ("SELECT count(*) FROM c WHERE a = 'x    '", &["2"]),
            ("SELECT count(*) FROM c WHERE a IN ('x ', 'ab   ')", &["3"]),
            ("SELECT count(*) FROM c WHERE a = ''", &["1"]),
            ("SELECT count(*) FROM c WHERE b = 'x'", &["1"]),
            ("SELECT length(a), octet_length(a), a || '|', a::text || '|' FROM c WHERE id = 2", &["1|3|x||x|"]),
            ("SELECT a, count(*) FROM c GROUP BY a ORDER BY a", &["   |1", "ab |1", "x  |2"]),
            ("SELECT count(DISTINCT a) FROM c", &["3"]),
            ("SELECT count(*) FROM c p JOIN c q ON p.a = q.a", &["6"]),
            ("SELECT count(*) FROM c WHERE a LIKE 'x'", &["0"]),
            ("SELECT count(*) FROM c WHERE a LIKE 'x%'", &["2"]),
            ("SELECT 'é'::char(3) || 'x'", &["éx"]),
            ("SELECT 'abcdef'::varchar(3), 'abcdef'::char(2), 12345::varchar(3), true::char(2)", &["abc|ab|123|tr"]),
            ("SELECT 'a'::char(3)", &["a  "]),
        ],
    )
    .await;
    // An explicit cast cuts, an assignment refuses.
    check_states(&sql, &[("INSERT INTO c (a) VALUES ('abcd')", "22001"), ("INSERT INTO c (b) SELECT 123456", "22001")])
        .await;
    let copied = sql.copy("COPY c (id, a) FROM STDIN", "5\tz  \n").await;
    assert_eq!(copied.unwrap(), 1);
    assert_eq!(sql.rows("SELECT a FROM c WHERE a = 'z'").await, ["z  "]);
}

#[tokio::test]
async fn numbers_round_divide_and_overflow_as_postgresql_has_it() {
    let node = Node::start();
    let sql = node.connect().await;
    check(
        &sql,
        &[
            ("SELECT round(2.5::float8), round(-2.5::float8), round(0.5::float8), round(3.5::float8)", &["2|-2|0|4"]),
            ("SELECT 1e15::float8, 1e22::float8, 0.1::float8, 1234567.891::float8", &["1e+15|1e+22|0.1|1234567.891"]),
            ("SELECT round(2.567, 2), trunc(2.7), trunc(-2.7), round(2.5), round(-2.5)", &["2.57|2|-2|3|-3"]),
            ("SELECT round(1250, -2), round(2.5, 3), trunc(2.567, 2), round(5)", &["1300|2.500|2.56|5"]),
            ("SELECT 5 / 2.0", &["2.5000000000000000"]),
            ("SELECT avg(x), sum(x) FROM (VALUES (1), (2)) t(x)", &["1.5000000000000000|3"]),
            ("SELECT mod(7, 3), mod(-7, 3), mod(7.5, 2)", &["1|-1|1.5"]),
        ],
    )
    .await;
    check_states(
        &sql,
        &[
            ("SELECT 1e308::float8 * 10", "22003"),
            ("SELECT 1e-300::float8 * 1e-300", "22003"),
            ("SELECT 1::float8 / 0", "22012"),
            ("SELECT round(2.5::float8, 1)", "42883"),
        ],
    )
    .await;
    sql.run("CREATE TABLE f (v float8); INSERT INTO f VALUES (-0.0)").await;
    assert_eq!(sql.one("SELECT v FROM f").await, "0");
}

#[tokio::test]
async fn parts_of_times_have_postgresqls_values_and_digits() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("SET timezone = 'UTC'").await;
    check(
        &sql,
        &[
            ("SELECT extract(epoch FROM interval '1 year 2 months 3 days 04:05:06')", &["37015506.000000"]),
            ("SELECT date_part('epoch', interval '1 year 2 months 3 days 04:05:06')", &["37015506"]),
            ("SELECT extract(second FROM timestamp '2024-01-01 00:00:07.5')", &["7.500000"]),
            ("SELECT extract(year FROM date '2024-02-29'), extract(epoch FROM date '2000-01-01')", &["2024|946684800"]),
            (
                "SELECT extract(milliseconds FROM time '00:00:01.5'), extract(isodow FROM date '2024-03-03'), extract(week FROM date '2021-01-03')",
                &["1500.000|7|53"],
            ),
            ("SELECT extract(julian FROM timestamp '2006-02-03 12:00')", &["2453770.50000000000000000000"]),
            ("SELECT date_trunc('century', timestamp '2000-06-01')", &["1901-01-01 00:00:00"]),
            ("SELECT date_trunc('week', timestamp '2024-08-15')", &["2024-08-12 00:00:00"]),
            ("SELECT date_trunc('hour', interval '1 day 02:03:04')", &["1 day 02:00:00"]),
            ("SELECT make_date(2024, 2, 29), make_timestamp(2024, 2, 29, 1, 2, 3.5)", &[
                "2024-02-29|2024-02-29 01:02:03.5",
            ]),
        ],
    )
    .await;
    check_states(
        &sql,
        &[
            ("SELECT date_part('fortnight', now())", "22023"),
            ("SELECT extract(hour FROM date '2024-01-01')", "0A000"),
            ("SELECT make_date(2023, 2, 29)", "22008"),
        ],
    )
    .await;
}

#[tokio::test]
async fn infinite_times_stay_infinite() {
    let node = Node::start();
    let sql = node.connect().await;
    let cases: &[(&str, &[&str])] = &[
        (
            "SELECT 'infinity'::timestamptz + interval '1 day', '-infinity'::timestamp - interval '1 mon'",
            &["infinity|-infinity"],
        ),
        ("SELECT 'infinity'::timestamptz::date, '-infinity'::timestamp::date", &["infinity|-infinity"]),
        ("SELECT 'infinity'::date::timestamp, 'infinity'::date::timestamptz", &["infinity|infinity"]),
        ("SELECT date_trunc('month', 'infinity'::timestamp)", &["infinity"]),
        (
            "SELECT date_part('year', '-infinity'::timestamp), date_part('hour', 'infinity'::timestamp)",
            &["-Infinity|-"],
        ),
        ("SELECT isfinite('infinity'::date), isfinite(now())", &["f|t"]),
        (
            "SELECT timestamp '2024-01-31' + interval '1 mon', timestamp '2024-03-31' - interval '1 mon'",
            &["2024-02-29 00:00:00|2024-02-29 00:00:00"],
        ),
        ("SELECT date '2024-01-31' + interval '1 mon 1 day'", &["2024-03-01 00:00:00"]),
    ];
    for zone in ["UTC", "Europe/Berlin", "5.5"] {
        sql.run(&format!("SET timezone = '{zone}'")).await;
        check(&sql, cases).await;
    }
}

#[tokio::test]
async fn days_of_an_interval_are_counted_on_the_sessions_clocks() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("SET timezone = 'Europe/Berlin'").await;
    sql.run("CREATE TABLE s (i interval); INSERT INTO s VALUES ('1 day'), ('24:00')").await;
    check(
        &sql,
        &[(
            "SELECT '2024-03-30 12:00'::timestamptz + i FROM s ORDER BY 1",
            &["2024-03-31 12:00:00+02", "2024-03-31 13:00:00+02"],
        )],
    )
    .await;
}

#[tokio::test]
async fn intervals_of_the_same_length_are_equal_everywhere() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE i (id int, v interval)").await;
    sql.run("INSERT INTO i VALUES (1, '1 mon'), (2, '30 days'), (3, '720:00'), (4, '1 day'), (5, NULL)").await;
    check(
        &sql,
        &[
            ("SELECT count(*) FROM i GROUP BY v ORDER BY 1 DESC LIMIT 1", &["3"]),
            ("SELECT count(DISTINCT v) FROM i", &["2"]),
            ("SELECT count(*) FROM (SELECT DISTINCT v FROM i) x", &["3"]),
            ("SELECT id FROM i WHERE v IS NOT NULL ORDER BY v DESC, id", &["1", "2", "3", "4"]),
            ("SELECT v, count(*) FROM i WHERE id > 3 GROUP BY v ORDER BY v", &["1 day|1", "-|1"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn results_have_postgresqls_types() {
    let node = Node::start();
    let sql = node.connect().await;
    for (expression, expected) in [
        ("row_number() OVER ()", "int8"),
        ("rank() OVER ()", "int8"),
        ("dense_rank() OVER ()", "int8"),
        ("ntile(2) OVER ()", "int4"),
        ("sum(1::int2)", "int8"),
        ("sum(1)", "int8"),
        ("sum(1::int8)", "numeric"),
        ("extract(year FROM now())", "numeric"),
        ("date_part('year', now())", "float8"),
        ("array_length('{1}'::int[], 1)", "int4"),
        ("cardinality('{1}'::int[])", "int4"),
        ("1::float4 * 1.5", "float8"),
        ("round(5)", "float8"),
        ("round(2.5, 1)", "numeric"),
        ("'a'::varchar(3)", "varchar"),
        ("'a'::char(3)", "bpchar"),
    ] {
        let statement = sql.client.prepare(&format!("SELECT {expression}")).await.unwrap();
        assert_eq!(statement.columns()[0].type_().name(), expected, "{expression}");
    }
}

#[tokio::test]
async fn arrays_and_bytes_are_postgresqls() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE a (f float8[], n numeric(6,2)[])").await;
    sql.run("INSERT INTO a VALUES (ARRAY[1.5], ARRAY[1]), (ARRAY[1,2], ARRAY[1.5])").await;
    check(
        &sql,
        &[
            ("SELECT f, n FROM a ORDER BY f[1] DESC", &["{1.5}|{1.00}", "{1,2}|{1.50}"]),
            (
                "SELECT array_length('{}'::int[], 1), array_length('{1,2}'::int[], 1), array_length('{1}'::int[], 2)",
                &["-|2|-"],
            ),
            ("SELECT cardinality('{}'::int[]), cardinality('{1,NULL}'::int[])", &["0|2"]),
            ("SELECT encode('\\x00ff'::bytea, 'hex'), encode('\\x00ff'::bytea, 'base64')", &["00ff|AP8="]),
            ("SELECT encode('\\x00ff61'::bytea, 'escape'), octet_length('\\x00ff'::bytea)", &["\\000\\377a|2"]),
            ("SELECT decode('00FF', 'hex'), decode('AP8=', 'base64')", &["\\x00ff|\\x00ff"]),
        ],
    )
    .await;
    check_states(
        &sql,
        &[
            ("SELECT ARRAY[[1,2],[3,4]]", "0A000"),
            ("SELECT decode('0g', 'hex')", "22023"),
            ("SELECT encode('\\x00'::bytea, 'rot13')", "22023"),
        ],
    )
    .await;
}
