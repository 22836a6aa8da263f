//! What functions and operators refuse, by PostgreSQL 15's SQLSTATE and message: of constants, of columns, and only for
//! rows that a statement looks at; and that no statement makes more than the node has memory for.

use crate::common::{Node, Sql};

async fn check(sql: &Sql, cases: &[(&str, &str, &str)]) {
    for (expression, sqlstate, message) in cases {
        let failed = sql.fail(&format!("SELECT {expression}")).await;
        assert_eq!((failed.0.as_str(), failed.1.as_str()), (*sqlstate, *message), "{expression}");
    }
}

const SQUARE_ROOT: &str = "cannot take square root of a negative number";
const LOG_OF_ZERO: &str = "cannot take logarithm of zero";
const LOG_OF_NEGATIVE: &str = "cannot take logarithm of a negative number";
const ZERO_TO_NEGATIVE: &str = "zero raised to a negative power is undefined";
const COMPLEX: &str = "a negative number raised to a non-integer power yields a complex result";
const OVERFLOW: &str = "value out of range: overflow";
const UNDERFLOW: &str = "value out of range: underflow";
const SUBSTRING: &str = "negative substring length not allowed";

/// Numbers that a function is not defined for, of constants of every type.
const NUMBERS: &[(&str, &str, &str)] = &[
    ("sqrt(-1)", "2201F", SQUARE_ROOT),
    ("sqrt(-1::numeric)", "2201F", SQUARE_ROOT),
    ("sqrt(-1::real)", "2201F", SQUARE_ROOT),
    ("|/ (-1)", "2201F", SQUARE_ROOT),
    ("ln(0)", "2201E", LOG_OF_ZERO),
    ("ln(-1::numeric)", "2201E", LOG_OF_NEGATIVE),
    ("log(0::float8)", "2201E", LOG_OF_ZERO),
    ("log10(-1)", "2201E", LOG_OF_NEGATIVE),
    ("log(2, 0)", "2201E", LOG_OF_ZERO),
    ("log(-2, 2)", "2201E", LOG_OF_NEGATIVE),
    ("log(1, 5)", "22012", "division by zero"),
    ("power(0, -1)", "2201F", ZERO_TO_NEGATIVE),
    ("0 ^ -1", "2201F", ZERO_TO_NEGATIVE),
    ("power(-1, 0.5)", "2201F", COMPLEX),
    ("(-8)::float8 ^ (1.0 / 3)::float8", "2201F", COMPLEX),
    ("power(10, 400)", "22003", OVERFLOW),
    ("exp(1000::float8)", "22003", OVERFLOW),
    ("exp(-1000::float8)", "22003", UNDERFLOW),
    ("1e308::float8 * 10", "22003", OVERFLOW),
    ("1e300::float8::real", "22003", OVERFLOW),
    ("1e-300::float8::real", "22003", UNDERFLOW),
    ("asin(2)", "22003", "input is out of range"),
    ("acosh(0.5)", "22003", "input is out of range"),
    ("sin('infinity'::float8)", "22003", "input is out of range"),
    ("degrees(1e308::float8)", "22003", OVERFLOW),
    ("factorial(-1)", "22003", "factorial of a negative number is undefined"),
    ("gcd((-2147483648)::int, 0)", "22003", "integer out of range"),
    ("lcm(2147483647, 2147483646)", "22003", "integer out of range"),
    ("div(5, 0)", "22012", "division by zero"),
    ("mod(5, 0)", "22012", "division by zero"),
    ("1::float8 / 0", "22012", "division by zero"),
    ("abs((-2147483648)::int)", "22003", "integer out of range"),
    ("2147483647 + 1", "22003", "integer out of range"),
    ("(-9223372036854775808)::bigint / -1", "22003", "bigint out of range"),
    ("width_bucket(5, 0, 10, 0)", "2201G", "count must be greater than zero"),
    ("width_bucket(5, 10, 10, 5)", "2201G", "lower bound cannot equal upper bound"),
];

/// Texts, bytes and patterns.
const TEXTS: &[(&str, &str, &str)] = &[
    ("substring('abc' FROM 1 FOR -1)", "22011", SUBSTRING),
    ("substr('abc', 1, -1)", "22011", SUBSTRING),
    ("substring('\\x0102'::bytea FROM 1 FOR -1)", "22011", SUBSTRING),
    ("overlay('abc' PLACING 'x' FROM 0)", "22011", SUBSTRING),
    ("split_part('a,b', ',', 0)", "22023", "field position must not be zero"),
    ("chr(0)", "54000", "null character not permitted"),
    ("chr(-1)", "22023", "character number must be positive"),
    ("chr(1114112)", "54000", "requested character too large for encoding: 1114112"),
    ("chr(55296)", "54000", "requested character not valid for encoding: 55296"),
    ("repeat('x', 2000000000)", "54000", "requested length too large"),
    ("lpad('x', 2000000000)", "54000", "requested length too large"),
    ("rpad('x', 2000000000, 'yz')", "54000", "requested length too large"),
    ("decode('\\9', 'escape')", "22P02", "invalid input syntax for type bytea"),
    ("'x' ~ '['", "2201B", "invalid regular expression: brackets [] not balanced"),
    ("'x' ~* '('", "2201B", "invalid regular expression: parentheses () not balanced"),
    ("'x' !~ '*'", "2201B", "invalid regular expression: quantifier operand invalid"),
    ("'x' ~ '[b-a]'", "2201B", "invalid regular expression: invalid character range"),
    ("'x' ~ '(?=x)'", "0A000", "this form of regular expression is not supported: it looks around or refers back"),
    ("'x' SIMILAR TO '['", "2201B", "invalid regular expression: brackets [] not balanced"),
    ("regexp_replace('a', '(', 'b')", "2201B", "invalid regular expression: parentheses () not balanced"),
    ("regexp_replace('a', 'a', 'b', 'z')", "22023", "invalid regular expression option: \"z\""),
    ("regexp_replace('aaa', 'a', 'b', 0)", "22023", "invalid value for parameter \"start\": 0"),
    ("regexp_match('abc', 'b', 'g')", "22023", "regexp_match() does not support the \"global\" option"),
    ("format('%')", "22023", "unterminated format() type specifier"),
    ("format('%s')", "22023", "too few arguments for format()"),
    ("format('%I', NULL)", "22004", "null values cannot be formatted as an SQL identifier"),
];

const TIMES: &[(&str, &str, &str)] = &[
    ("make_date(2024, 13, 1)", "22008", "date field value out of range: 2024-13-01"),
    ("make_time(25, 0, 0)", "22008", "time field value out of range: 25:00:0"),
    ("to_timestamp('nan'::float8)", "22008", "timestamp cannot be NaN"),
    ("to_timestamp(1e20)", "22008", "timestamp out of range: \"1e+20\""),
    ("'2024-01-01'::date + 2147483647", "22008", "date out of range"),
    ("'5874897-12-31'::date + 1", "22008", "date out of range"),
    ("'infinity'::date - 'infinity'::date", "22008", "cannot subtract infinite dates"),
    ("'infinity'::timestamp - 'infinity'::timestamp", "22008", "cannot subtract infinite timestamps"),
    ("interval '2147483647 days' + interval '1 day'", "22008", "interval out of range"),
    ("interval '1 day' * 1e300::float8", "22008", "interval out of range"),
    ("date_bin('0', timestamp '2024-01-01', timestamp '2001-01-01')", "22008", "stride must be greater than zero"),
    (
        "date_bin('1 month', timestamp '2024-01-01', timestamp '2001-01-01')",
        "0A000",
        "timestamps cannot be binned into intervals containing months or years",
    ),
];

#[tokio::test]
async fn what_a_function_is_not_defined_for_has_postgresqls_sqlstate_and_words() {
    let node = Node::start();
    let sql = node.connect().await;
    check(&sql, NUMBERS).await;
    check(&sql, TEXTS).await;
    check(&sql, TIMES).await;
    node.assert_no_panic();
}

async fn samples(sql: &Sql) {
    sql.run("CREATE TABLE s (time timestamptz NOT NULL, i int, f float8, d int, name text)").await;
    sql.run("SELECT create_hypertable('s', 'time')").await;
    sql.run(
        "INSERT INTO s SELECT '2024-01-01'::timestamptz + n * interval '1 hour', n, n * 1.5, n % 3,
           CASE WHEN n % 2 = 0 THEN n::text ELSE 'x' END FROM generate_series(-4, 20) n",
    )
    .await;
}

#[tokio::test]
async fn columns_fail_as_constants_do_on_whatever_node_they_are_looked_at() {
    let node = Node::start();
    let sql = node.connect().await;
    samples(&sql).await;
    let cases = [
        ("sqrt(i) FROM s", "2201F", SQUARE_ROOT),
        ("max(ln(f)) FROM s", "2201E", LOG_OF_NEGATIVE),
        ("count(*) FROM s WHERE ln(i * 0) > 0", "2201E", LOG_OF_ZERO),
        ("power(f, 0.5) FROM s", "2201F", COMPLEX),
        ("exp(f * 1000) FROM s WHERE i > 5", "22003", OVERFLOW),
        ("(f * 1e300)::real FROM s WHERE i = 9", "22003", OVERFLOW),
        ("sum(i / d) FROM s", "22012", "division by zero"),
        ("i * 2147483647 FROM s", "22003", "integer out of range"),
        ("i::int * 30000::int2 * 30000 FROM s", "22003", "integer out of range"),
        ("substr(name, 1, i) FROM s", "22011", SUBSTRING),
        ("split_part(name, 'x', d * 0) FROM s", "22023", "field position must not be zero"),
        ("name ~ ('[' || name) FROM s", "2201B", "invalid regular expression: brackets [] not balanced"),
        ("ntile(0) OVER (ORDER BY time) FROM s", "22014", "argument of ntile must be greater than zero"),
        ("nth_value(i, 0) OVER (ORDER BY time) FROM s", "22016", "argument of nth_value must be greater than zero"),
        ("name::int FROM s", "22P02", "invalid input syntax for type integer: \"x\""),
        ("date '2024-01-01' + i * 715100000 FROM s WHERE i = 3", "22008", "date out of range"),
        ("repeat('x', i * 100000000) FROM s WHERE i > 10", "54000", "requested length too large"),
    ];
    check(&sql, &cases).await;
    node.assert_no_panic();
}

#[tokio::test]
async fn a_condition_that_excludes_a_row_keeps_what_follows_from_failing_on_it() {
    let node = Node::start();
    let sql = node.connect().await;
    samples(&sql).await;
    for (query, expected) in [
        ("SELECT count(*) FROM s WHERE d <> 0 AND i / d > 3", "12"),
        ("SELECT count(*) FROM s WHERE i >= 0 AND sqrt(i) > 2", "16"),
        ("SELECT count(*) FROM s WHERE i > 0 AND ln(i) > 1 AND f > 2 AND time > '2024-01-01'", "18"),
        ("SELECT count(*) FROM s WHERE name <> 'x' AND name::int > 3", "9"),
        ("SELECT count(*) FROM s WHERE d = 0 OR i / d > 3", "20"),
        ("SELECT count(*) FROM s WHERE NOT (d = 0 OR i / d > 3)", "5"),
        ("SELECT count(*) FROM s WHERE (d <> 0 AND i / d > 3) IS NOT TRUE", "13"),
        ("SELECT count(*) FILTER (WHERE d <> 0 AND i / d > 3) FROM s", "12"),
        ("SELECT count(*) FROM (SELECT * FROM s WHERE d <> 0) q WHERE i / d > 3", "12"),
        ("SELECT count(*) FROM (SELECT name::int AS v FROM s WHERE name <> 'x') q WHERE v > 3", "9"),
        ("SELECT count(*) FROM s a JOIN s b ON a.i = b.i AND b.d <> 0 AND a.i / b.d > 3", "12"),
        ("SELECT sum(CASE WHEN d <> 0 THEN i / d END) FROM s", "113"),
        ("SELECT sum(i / d) FROM s WHERE d <> 0", "113"),
    ] {
        // A kept plan answers the second time.
        for _ in 0..3 {
            assert_eq!(sql.one(query).await, expected, "{query}");
        }
    }
    node.assert_no_panic();
}

#[tokio::test]
async fn functions_that_only_plans_call_do_not_exist_for_statements() {
    let node = Node::start();
    let sql = node.connect().await;
    for call in [
        "pad_char('a', 9223372036854775807)",
        "named_struct('a', 1)",
        "arrow_cast(1, 'Int8')",
        "concat()",
        "concat_ws('x')",
        "first_value() OVER ()",
        "array_repeat(1, 1000000000)",
    ] {
        assert_eq!(sql.fail(&format!("SELECT {call}")).await.0, "42883", "{call}");
    }
    node.assert_no_panic();
}

/// The most memory that the process had so far.
fn peak_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn a_short_statement_does_not_make_more_than_there_is_memory_for() {
    const PEAK_MIB_MAX: u64 = 1024;
    let node = Node::start();
    let sql = node.connect().await;
    for query in [
        "SELECT length(repeat('x', 900000000))",
        "SELECT length(concat(a, a, a, a, a)) FROM (SELECT repeat('x', 50000000) AS a) q",
        "SELECT length(a || a || a || a) FROM (SELECT repeat('x', 50000000) AS a) q",
        "SELECT length(replace(repeat('x', 1000000), 'x', repeat('y', 1000)))",
        "SELECT length(regexp_replace(repeat('x', 10000), 'x', repeat('y', 100000), 'g'))",
        "SELECT length(string_agg(repeat('x', 1000000), ',')) FROM generate_series(1, 5000)",
        "SELECT CASE WHEN g > 0 THEN repeat('x', 10000000) ELSE 'y' END FROM generate_series(1, 1000) g",
        "SELECT strpos(repeat('x', 50000000), g::text) FROM generate_series(1, 8000) g",
        "SELECT max(repeat('x', 1000000) || g) FROM generate_series(1, 20000) g",
    ] {
        assert_eq!(sql.fail(query).await.0, "53200", "{query}");
    }
    assert_eq!(sql.one("SELECT length(repeat('x', 50000000))").await, "50000000", "what was refused is given back");
    let peak = peak_mib(node.process_id());
    assert!(peak < PEAK_MIB_MAX, "{peak} MiB");
    node.assert_no_panic();
}
