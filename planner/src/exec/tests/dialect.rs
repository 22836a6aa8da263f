//! Expressions mean what PostgreSQL 15 means by them.

use super::*;

fn check(sql: &str, expected: &str) {
    check_in("UTC", sql, expected);
}

fn check_in(zone: &str, sql: &str, expected: &str) {
    let bench = Bench::in_zone(zone);
    assert_eq!(bench.texts(&format!("SELECT {sql}")), [expected], "{sql}");
}

fn fails(sql: &str, sqlstate: &str, message: &str) {
    let error = Bench::new().error(&format!("SELECT {sql}"));
    assert_eq!((error.sqlstate.as_str(), error.message.as_str()), (sqlstate, message), "{sql}");
}

fn type_of(sql: &str) -> String {
    let (columns, _) = Bench::new().plan(&format!("SELECT {sql}")).unwrap();
    columns[0].sql_type.to_string()
}

#[test]
fn numbers_have_postgresqls_types() {
    assert_eq!(type_of("1"), "integer");
    assert_eq!(type_of("3000000000"), "bigint");
    assert_eq!(type_of("1 + 1"), "integer");
    assert_eq!(type_of("count(*) FROM metrics"), "bigint");
    assert_eq!(type_of("sum(rack) FROM hosts"), "numeric(38,0)");
    assert_eq!(type_of("avg(v) FROM metrics"), "double precision");
    assert_eq!(type_of("now()"), "timestamp with time zone");
    assert_eq!(type_of("'x'"), "text");
    assert_eq!(type_of("'{}'::jsonb"), "jsonb");
    check("1.5::numeric", "1.5");
    check("1.50", "1.50");
    check("avg(rack) FROM hosts", "0.5000000000");
    check("pg_typeof(1)", "integer");
}

#[test]
fn integers_overflow_loudly() {
    check("7/2, -7%3", "3|-1");
    fails("1/0", "22012", "division by zero");
    fails("2147483647 + 1", "22003", "integer out of range");
    fails("9223372036854775807 + 1", "22003", "bigint out of range");
    fails("rack + 9223372036854775807 FROM hosts WHERE rack = 1", "22003", "bigint out of range");
    fails("- (-9223372036854775807 - 1)", "22003", "bigint out of range");
    fails("'99999999999'::int", "22003", "value \"99999999999\" is out of range for type integer");
    fails("1.0::float8 / 0", "22012", "division by zero");
    fails("v / 0 FROM metrics", "22012", "division by zero");
    fails("1.5 / 0", "22012", "division by zero");
}

#[test]
fn casts_round_and_read_as_postgresqls() {
    check("1.5::int, 2.5::float8::int, (-1.5)::int", "2|2|-2");
    check("'abc'::varchar(2)", "ab");
    check("true::text, 1.0::float8::text, 'infinity'::timestamptz", "true|1|infinity");
    check("'\\x6869'::bytea", "\\x6869");
    check("'1 mon 2 days'::interval, 'P1DT2H'::interval", "1 mon 2 days|1 day 02:00:00");
    check("'2024-02-03'::date + 7, '2024-02-03'::date - '2024-02-01'::date", "2024-02-10|2");
    check("'t'::bool, 'a' || 1", "t|a1");
    check("0.1::float8::numeric", "0.1");
    fails("'abc'::int", "22P02", "invalid input syntax for type integer: \"abc\"");
    fails("'2024-13-01'::date", "22008", "date/time field value out of range: \"2024-13-01\"");
}

#[test]
fn decimal_division_keeps_digits() {
    check("1.0 / 3", "0.3333333333333333");
    check("10 / 4.0", "2.5000000000000000");
}

#[test]
fn intervals_compare_and_multiply() {
    check("interval '1 day' < interval '25 hours'", "t");
    check("interval '1 day' = interval '24 hours'", "t");
    check("interval '1 day' * 2.5, interval '1 hour' / 2", "2 days 12:00:00|00:30:00");
    check("'2024-03-02'::timestamp - '2024-02-28'::timestamp", "3 days");
    check("'2024-01-31'::date + interval '1 month'", "2024-02-29 00:00:00");
    check("interval '90' minute", "01:30:00");
}

#[test]
fn time_zones_are_the_sessions() {
    check("'2024-07-01 12:00+00'::timestamptz", "2024-07-01 12:00:00+00");
    check_in("Europe/Berlin", "'2024-07-01 12:00'::timestamptz", "2024-07-01 12:00:00+02");
    check_in("Europe/Berlin", "date_trunc('day', '2024-07-01 23:30+00'::timestamptz)", "2024-07-02 00:00:00+02");
    check_in("Europe/Berlin", "extract(hour from '2024-07-01 23:30+00'::timestamptz)", "1");
    check_in("Europe/Berlin", "'2024-07-01 23:30+00'::timestamptz::date", "2024-07-02");
    check_in("Europe/Berlin", "'2024-03-30 12:00'::timestamptz + interval '1 day'", "2024-03-31 12:00:00+02");
    check_in("Europe/Berlin", "'2024-03-30 12:00'::timestamptz + interval '24 hours'", "2024-03-31 13:00:00+02");
    check("'2024-07-01 12:00+00'::timestamptz AT TIME ZONE 'Europe/Berlin'", "2024-07-01 14:00:00");
    check("'2024-07-01 12:00'::timestamp AT TIME ZONE 'Europe/Berlin'", "2024-07-01 10:00:00+00");
    check("date_trunc('day', '2024-07-01 23:30+00'::timestamptz, 'Europe/Berlin')", "2024-07-01 22:00:00+00");
    check("time_bucket('300.000s', '2024-07-01 12:07+00'::timestamptz)", "2024-07-01 12:05:00+00");
    check("time_bucket('1 month', '2024-07-15'::date)", "2024-07-01");
}

#[test]
fn untyped_literals_take_the_other_sides_type() {
    check("count(*) FROM metrics WHERE time >= '1970-01-03' AND time < '1970-01-03 01:00'", "8");
    check("count(*) FROM metrics WHERE time BETWEEN '1970-01-03' AND '1970-01-03 00:30'", "8");
    check("count(*) FROM hosts WHERE rack = '1'", "4");
    check("count(*) FROM metrics WHERE time IN ('1970-01-02', '1970-01-03')", "16");
    check("'2024-01-01'::timestamptz + '1 day'", "2024-01-02 00:00:00+00");
    fails(
        "count(*) FROM metrics WHERE time > 'soon'",
        "22007",
        "invalid input syntax for type timestamp with time zone: \"soon\"",
    );
}

#[test]
fn patterns_are_sqls() {
    check("'abc' SIMILAR TO '(a|b)%', 'abc' LIKE 'a_c', 'ABC' ~* 'b', 'abc' NOT SIMILAR TO 'x%'", "t|t|t|t");
}

#[test]
fn errors_are_postgresqls() {
    let error = |sql: &str| {
        let error = Bench::new().error(sql);
        (error.sqlstate, error.message)
    };
    let check =
        |sql: &str, state: &str, message: &str| assert_eq!(error(sql), (state.to_owned(), message.to_owned()), "{sql}");
    check("SELECT * FROM nothing", "42P01", "relation \"nothing\" does not exist");
    check("SELECT * FROM other.metrics", "42P01", "relation \"other.metrics\" does not exist");
    check("SELECT nothing FROM metrics", "42703", "column \"nothing\" does not exist");
    check("SELECT m.nothing FROM metrics m", "42703", "column m.nothing does not exist");
    check("SELECT x.v FROM metrics m", "42P01", "missing FROM-clause entry for table \"x\"");
    check("SELECT frob(1)", "42883", "function frob does not exist");
    check("SELECT 'a'::geometry", "42704", "type \"geometry\" does not exist");
    check(
        "SELECT host FROM metrics m JOIN hosts h ON m.host = h.host",
        "42702",
        "column reference \"host\" is ambiguous",
    );
    check(
        "SELECT host, v FROM metrics GROUP BY host",
        "42803",
        "column \"metrics.v\" must appear in the GROUP BY clause or be used in an aggregate function",
    );
    check("SELECT to_char(now(), 'YYYY')", "0A000", "function to_char is not supported yet");
    check("SELECT true + 1", "42883", "operator does not exist: boolean + integer");
    check("SELECT sum('a'::text)", "42883", "function sum(text) does not exist");
}

#[test]
fn columns_are_named_as_postgresql_names_them() {
    let names = |sql: &str| -> Vec<String> {
        let (columns, _) = Bench::new().plan(sql).unwrap();
        columns.into_iter().map(|column| column.name).collect()
    };
    assert_eq!(
        names("SELECT 1, count(*), count(v), avg(v), max(v) FROM metrics"),
        ["?column?", "count", "count", "avg", "max"]
    );
    assert_eq!(names("SELECT v, v, *, m.host FROM metrics m"), ["v", "v", "time", "host", "v", "host"]);
    assert_eq!(names("SELECT time_bucket('1 hour', time), v::int FROM metrics"), ["time_bucket", "v"]);
    assert_eq!(names("SELECT c FROM (SELECT count(*) AS c FROM metrics) s"), ["c"]);
    assert_eq!(names("SELECT count FROM (SELECT count(*) FROM metrics) s"), ["count"]);
    assert_eq!(names("SELECT a.host, b.host FROM hosts a, hosts b"), ["host", "host"]);
    assert_eq!(names("VALUES (1, 2)"), ["column1", "column2"]);
    assert_eq!(
        names("SELECT current_database(), version(), current_user"),
        ["current_database", "version", "current_user"]
    );
}

#[test]
fn sessions_are_told_about_themselves() {
    check("current_database(), current_schema(), current_user", "meridian|public|meridian");
    check("current_setting('server_version'), pg_backend_pid()", "15.13|7");
    check("current_setting('no.such', true) IS NULL", "t");
    check("set_config('application_name', 'x', false)", "x");
    check("now() = transaction_timestamp(), now(), current_date", "t|2023-11-14 22:13:20+00|2023-11-14");
    check("pg_sleep(0.01)", "");
    fails("current_setting('nonsense')", "42704", "unrecognized configuration parameter \"nonsense\"");
}

#[test]
fn lists_of_tables_are_in_the_information_schema() {
    let sql = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 2";
    assert_eq!(Bench::new().texts(sql), ["public|hosts", "public|metrics"]);
}

#[test]
fn a_scalar_subquery_has_one_row() {
    const SEVERAL: &str = "more than one row returned by a subquery used as an expression";
    fails("(SELECT 1 UNION SELECT 2)", "21000", SEVERAL);
    fails("(SELECT rack FROM hosts)", "21000", SEVERAL);
    fails("(SELECT x FROM (VALUES (1), (2)) t(x))", "21000", SEVERAL);
    fails("count(*) FROM hosts WHERE rack = (SELECT rack FROM hosts)", "21000", SEVERAL);
    fails("count(*) FROM hosts h WHERE rack = (SELECT v FROM metrics m WHERE m.host = h.host)", "21000", SEVERAL);
    check("(SELECT 1), (SELECT max(rack) FROM hosts), (SELECT rack FROM hosts WHERE host = 'host_1')", "1|1|1");
    check("(SELECT rack FROM hosts ORDER BY host LIMIT 1), (SELECT rack FROM hosts WHERE false)", "0|NULL");
    check("(SELECT 1 UNION SELECT 1), pg_typeof((SELECT rack FROM hosts LIMIT 1))", "1|bigint");
    // Nobody asks for the value.
    check("count(*) FROM hosts WHERE false AND rack = (SELECT rack FROM hosts)", "0");
    check("count(*) FROM hosts h WHERE rack = (SELECT rack FROM hosts i WHERE i.host = h.host)", "8");
    check("count(*) FROM hosts h WHERE 72 = (SELECT count(*) FROM metrics m WHERE m.host = h.host)", "8");
}

#[test]
fn arrays_are_compared_with_each_element() {
    check("count(*) FROM hosts WHERE host = ANY ('{host_1,host_2,nobody}')", "2");
    check("count(*) FROM hosts WHERE host = ANY (ARRAY['host_1', 'host_2'])", "2");
    check("count(*) FROM hosts WHERE host <> ALL ('{host_1,host_2}')", "6");
    check("count(*) FROM hosts WHERE rack = ANY ('{1,7}')", "4");
    check("1 = ANY (ARRAY[1.0, 2.5]), 2 < ANY ('{1,3}'), 2 < ALL ('{1,3}')", "t|t|f");
    check(
        "1 = ANY ('{2,NULL}'), 1 <> ALL ('{2,NULL}'), 1 = ANY ('{}'::int[]), 1 = ANY (NULL::int[])",
        "NULL|NULL|f|NULL",
    );
    check("1.5::numeric(10,2) = ANY ('{1.5,2}')", "t");
    fails("host = ANY ('{1}'::int[]) FROM hosts", "42883", "operator does not exist: text = integer");
    fails("1 = ANY (2)", "42809", "op ANY/ALL (array) requires array on right side");
}

#[test]
fn literals_of_between_and_in_are_read_as_what_they_stand_beside() {
    check("count(*) FROM metrics WHERE time BETWEEN '1970-01-03' AND 'infinity'", "192");
    check("count(*) FROM metrics WHERE time NOT BETWEEN '-infinity' AND '1970-01-03 22:00'", "8");
    check("count(*) FROM hosts WHERE rack IN (' 1 ', '7')", "4");
    check("count(*) FROM hosts WHERE rack BETWEEN '0' AND 0", "4");
    check("'1970-01-01'::date IN ('1970-1-1', 'infinity'), 1.5::numeric(3,1) IN ('1.50', NULL)", "t|t");
    fails("count(*) FROM hosts WHERE rack IN ('x')", "22P02", "invalid input syntax for type bigint: \"x\"");
}

#[test]
fn texts_meet_only_texts() {
    fails("count(*) FROM hosts WHERE host = 1", "42883", "operator does not exist: text = integer");
    fails("count(*) FROM hosts WHERE host IN (1, 2)", "42883", "operator does not exist: text = integer");
    fails("count(*) FROM hosts WHERE rack > '1'::text", "42883", "operator does not exist: bigint > text");
    check("count(*) FROM hosts WHERE host = 'host_1' AND rack IN ('1', '2')", "1");
}

#[test]
fn values_of_several_rows_meet_in_one_type() {
    let rows = |sql: &str| Bench::new().texts(sql);
    assert_eq!(rows("VALUES (1.0::float8), (2.0), (3.5)"), ["1", "2", "3.5"]);
    assert_eq!(rows("VALUES (1), (2.5), (NULL)"), ["1.0", "2.5", "NULL"]);
    assert_eq!(rows("VALUES ('a'::varchar(3)), ('bcde')"), ["a", "bcde"]);
    assert_eq!(rows("SELECT x FROM (VALUES ('2024-01-01'::date), ('2024-01-02')) t(x)"), ["2024-01-01", "2024-01-02"]);
    assert_eq!(type_of("x FROM (VALUES (1.0::float8), (2.0)) t(x)"), "double precision");
    let error = Bench::new().error("VALUES (1), (true)");
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("42804", "VALUES types integer and boolean cannot be matched")
    );
}

#[test]
fn recursion_counts() {
    let sql = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 4) SELECT n FROM r";
    assert_eq!(Bench::new().texts(sql), ["1", "2", "3", "4"]);
    let sql =
        "WITH RECURSIVE r(t) AS (SELECT 'a' UNION ALL SELECT t || 'b' FROM r WHERE length(t) < 3) SELECT t FROM r";
    assert_eq!(Bench::new().texts(sql), ["a", "ab", "abb"]);
}

#[test]
fn series_are_tables_of_one_column() {
    let rows = |sql: &str| Bench::in_zone("Europe/Berlin").texts(sql);
    assert_eq!(rows("SELECT g FROM generate_series(1, 3) g"), ["1", "2", "3"]);
    assert_eq!(rows("SELECT x FROM generate_series(3, 1, -2) AS g(x)"), ["3", "1"]);
    assert_eq!(rows("SELECT generate_series(1, 2)"), ["1", "2"]);
    assert_eq!(rows("SELECT u FROM unnest(ARRAY[1, 2]) u"), ["1", "2"]);
    assert_eq!(rows("SELECT * FROM generate_series(1.0, 2, 0.5)"), ["1.0", "1.5", "2.0"]);
    assert_eq!(rows("SELECT count(*) FROM generate_series(1, 100000)"), ["100000"]);
    let days = "SELECT d FROM generate_series('2024-03-30'::timestamptz, '2024-04-01', '1 day') d";
    assert_eq!(rows(days), ["2024-03-30 00:00:00+01", "2024-03-31 00:00:00+01", "2024-04-01 00:00:00+02"]);
    let months = "SELECT d FROM generate_series(timestamp '2024-01-31', timestamp '2024-04-01', '1 month') d";
    assert_eq!(rows(months), ["2024-01-31 00:00:00", "2024-02-29 00:00:00", "2024-03-29 00:00:00"]);
    assert_eq!(type_of("g FROM generate_series(1, 3) g"), "integer");
    assert_eq!(type_of("g FROM generate_series(1, 3000000000) g"), "bigint");
    fails("g FROM generate_series(1, 3, 0) g", "22023", "step size cannot equal zero");
}

#[test]
fn time_bucket_takes_named_arguments() {
    let time = "'2024-07-03 12:07+00'::timestamptz";
    check(&format!("time_bucket('7 days', {time}, origin => '2024-07-02')"), "2024-07-02 00:00:00+00");
    check(&format!("time_bucket('1 day', {time}, \"offset\" => '2 hours')"), "2024-07-03 02:00:00+00");
    check(
        &format!("time_bucket(bucket_width => '1 day', ts => {time}, timezone => 'Europe/Berlin')"),
        "2024-07-02 22:00:00+00",
    );
    check("time_bucket('7 days', '2024-07-03'::date, origin => '2024-07-02')", "2024-07-02");
}

#[test]
fn rows_and_operators_are_put_in_datafusions_words() {
    check("(1, 2) = (1, 2), (1, 2) <> (1, 3), (1, 2) < (1, 3), (2, 1) <= (1, 9)", "t|t|t|f");
    check("(1, 'a') IN ((1, 'b'), (1, 'a')), (1, 2) NOT IN ((1, 2))", "t|f");
    check("@ (-5), |/ 9.0::float8, U&'d\\0061ta', 'a' COLLATE \"C\"", "5|3|data|a");
    fails("'a' COLLATE \"de_DE\"", "0A000", "COLLATE \"de_DE\" is not supported");
    fails("1 LIMIT -1", "2201W", "LIMIT must not be negative");
    fails("1 OFFSET -1", "2201X", "OFFSET must not be negative");
}

#[test]
fn jsonb_is_looked_into() {
    let json = "'{\"a\": [1, {\"b\": \"x\"}, 2.50]}'::jsonb";
    check(
        &format!("{json} -> 'a', {json} ->> 'a', {json} -> 'c'"),
        "[1, {\"b\": \"x\"}, 2.50]|[1, {\"b\": \"x\"}, 2.50]|NULL",
    );
    check(&format!("{json} -> 'a' -> 2, {json} #> '{{a,1,b}}', {json} #>> '{{a,1,b}}'"), "2.50|\"x\"|x");
    fails(&format!("{json} @> '{{}}'"), "0A000", "operator @> of jsonb is not supported");
    fails("'a'::text -> 'b'", "42883", "operator does not exist: text -> unknown");
}
