//! Every type, in and out, as text and as binary.

use std::error::Error;
use std::time::{Duration, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, TryStreamExt};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::common::{Node, Sql};

/// Column definition and values as PostgreSQL prints them.
const TYPES: &[(&str, &[&str])] = &[
    ("boolean", &["t", "f"]),
    ("smallint", &["-32768", "0", "32767"]),
    ("integer", &["-2147483648", "2147483647"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("real", &["1.5", "-0", "3.4028235e+38", "NaN", "Infinity", "-Infinity"]),
    ("double precision", &["0.1", "1e-300", "1.7976931348623157e+308", "NaN", "-Infinity"]),
    ("numeric(12,3)", &["123456789.123", "-0.001", "0.000"]),
    ("text", &["", "plain", "söme ünicode ⏱", "with 'quotes' and \\ and \"", "two\nlines"]),
    ("varchar(5)", &["abc", "äöüßé"]),
    ("char(5)", &["abc  ", "äöüßé", "     "]),
    ("timestamptz", &["2024-02-29 12:34:56.789012+00", "1969-12-31 23:59:59+00", "infinity", "-infinity"]),
    ("timestamp", &["2024-02-29 12:34:56.789012", "0044-03-15 00:00:00 BC", "infinity"]),
    ("date", &["2024-02-29", "1600-01-01", "infinity"]),
    ("time", &["00:00:00", "23:59:59.999999"]),
    ("interval", &["1 year 2 mons 3 days 04:05:06.7", "-00:00:01", "00:00:00"]),
    ("uuid", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    ("bytea", &["\\x", "\\xdeadbeef00"]),
    ("jsonb", &["{\"a\": [1, 2, {\"b\": null}], \"c\": \"d\"}", "null", "1.50"]),
    ("integer[]", &["{}", "{1,NULL,3}"]),
    ("text[]", &["{a,\"with space\",\"\",NULL,\"NULL\"}"]),
    ("double precision[]", &["{1.5,NaN}"]),
];

#[tokio::test]
async fn every_type_comes_back_as_it_went_in() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("SET timezone = 'UTC'").await;
    for (number, (name, values)) in TYPES.iter().enumerate() {
        let table = format!("t{number}");
        sql.run(&format!("CREATE TABLE {table} (id int, v {name})")).await;
        for (id, value) in values.iter().enumerate() {
            let literal = value.replace('\'', "''");
            sql.run(&format!("INSERT INTO {table} VALUES ({id}, '{literal}'::{name})")).await;
        }
        sql.run(&format!("INSERT INTO {table} VALUES (1000, NULL)")).await;
        let mut expected: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        expected.push("-".to_owned());
        assert_eq!(sql.rows(&format!("SELECT v FROM {table} ORDER BY id")).await, expected, "{name}");

        // The same through COPY, out of one table and into another.
        sql.run(&format!("CREATE TABLE {table}_copy (id int, v {name})")).await;
        let text = copy_out(&sql.client, &format!("COPY {table} TO STDOUT")).await;
        let copied = sql.copy(&format!("COPY {table}_copy FROM STDIN"), &text).await.unwrap();
        assert_eq!(copied as usize, expected.len(), "{name}");
        assert_eq!(sql.rows(&format!("SELECT v FROM {table}_copy ORDER BY id")).await, expected, "{name} by COPY");
    }
    node.assert_no_panic();
}

async fn copy_out(client: &tokio_postgres::Client, statement: &str) -> String {
    String::from_utf8(copy_out_bytes(client, statement).await).unwrap()
}

async fn copy_out_bytes(client: &tokio_postgres::Client, statement: &str) -> Vec<u8> {
    let pieces: Vec<Bytes> = client.copy_out(statement).await.unwrap().try_collect().await.unwrap();
    pieces.concat()
}

/// The binary form of any type's value.
#[derive(Debug)]
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ToSql for Raw {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// Results and parameters in binary, and binary COPY out and in, leave every value as it was.
#[tokio::test]
async fn every_type_travels_as_binary() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("SET timezone = 'UTC'").await;
    for (number, (name, values)) in TYPES.iter().enumerate() {
        let table = format!("t{number}");
        for suffix in ["", "_parameters", "_copy"] {
            sql.run(&format!("CREATE TABLE {table}{suffix} (id int, v {name})")).await;
        }
        for (id, value) in values.iter().enumerate() {
            let literal = value.replace('\'', "''");
            sql.run(&format!("INSERT INTO {table} VALUES ({id}, '{literal}'::{name})")).await;
        }
        sql.run(&format!("INSERT INTO {table} VALUES (1000, NULL)")).await;
        let expected = sql.rows(&format!("SELECT v FROM {table} ORDER BY id")).await;

        let found = sql.client.query(&format!("SELECT id, v FROM {table}"), &[]).await.unwrap();
        for row in found {
            let (id, value): (i32, Option<Raw>) = (row.get(0), row.get(1));
            let insert = format!("INSERT INTO {table}_parameters VALUES ($1, $2)");
            sql.client.execute(&insert, &[&id, &value]).await.unwrap();
        }
        check_copy(&sql, &format!("{table}_parameters"), &expected, name).await;

        let data = copy_out_bytes(&sql.client, &format!("COPY {table} TO STDOUT WITH (FORMAT binary)")).await;
        let copy = format!("COPY {table}_copy FROM STDIN WITH (FORMAT binary)");
        let mut sink = std::pin::pin!(sql.client.copy_in::<_, Bytes>(&copy).await.unwrap());
        sink.send(Bytes::from(data)).await.unwrap();
        assert_eq!(sink.finish().await.unwrap() as usize, expected.len(), "{name}");
        check_copy(&sql, &format!("{table}_copy"), &expected, name).await;
    }
    node.assert_no_panic();
}

async fn check_copy(sql: &Sql, table: &str, expected: &[String], name: &str) {
    assert_eq!(sql.rows(&format!("SELECT v FROM {table} ORDER BY id")).await, expected, "{name} in {table}");
}

#[tokio::test]
async fn parameters_and_rows_travel_as_binary() {
    let node = Node::start();
    let sql = node.connect().await;
    let client = &sql.client;
    sql.run("CREATE TABLE t (a int2, b int4, c int8, d float4, e float8, f text, g bool, h timestamptz, i bytea)")
        .await;
    let at = UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
    let insert = "INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let bytes: &[u8] = &[0, 1, 255];
    let written = client.execute(insert, &[&1i16, &2i32, &3i64, &1.5f32, &2.5f64, &"x", &true, &at, &bytes]).await;
    assert_eq!(written.unwrap(), 1);
    let nothing: Option<i32> = None;
    client.execute("INSERT INTO t (b, f) VALUES ($1, $2)", &[&nothing, &"y"]).await.unwrap();
    let row = client.query_one("SELECT * FROM t WHERE c = $1 AND h = $2", &[&3i64, &at]).await.unwrap();
    assert_eq!((row.get::<_, i16>(0), row.get::<_, i32>(1), row.get::<_, i64>(2)), (1, 2, 3));
    assert_eq!((row.get::<_, f32>(3), row.get::<_, f64>(4)), (1.5, 2.5));
    assert_eq!((row.get::<_, &str>(5), row.get::<_, bool>(6)), ("x", true));
    assert_eq!((row.get::<_, std::time::SystemTime>(7), row.get::<_, &[u8]>(8)), (at, bytes));
    let row = client.query_one("SELECT b, f FROM t WHERE f = $1", &[&"y"]).await.unwrap();
    assert_eq!((row.get::<_, Option<i32>>(0), row.get::<_, &str>(1)), (None, "y"));
}
