//! What is refused, by its SQLSTATE, and that a refusal to one client is nobody else's trouble.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::common::Node;

#[tokio::test]
async fn mistakes_have_the_sqlstate_that_postgresql_gives() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (id int NOT NULL, name varchar(3))").await;
    for (statement, sqlstate) in [
        ("SELECT * FROM nowhere", "42P01"),
        ("INSERT INTO nowhere VALUES (1)", "42P01"),
        ("COPY nowhere FROM STDIN", "42P01"),
        ("DROP TABLE nowhere", "42P01"),
        ("SELECT nothing FROM t", "42703"),
        ("INSERT INTO t (nothing) VALUES (1)", "42703"),
        ("SELECT no_function(1)", "42883"),
        ("SELECT no_function(id) FROM t", "42883"),
        ("CREATE TABLE u (v no_type)", "42704"),
        ("SELECT 1::no_type", "42704"),
        ("SELEC 1", "42601"),
        ("SELECT 1 +", "42601"),
        ("CREATE TABLE t (id int)", "42P07"),
        ("CREATE TABLE u (id int, id int)", "42701"),
        ("INSERT INTO t VALUES (NULL, 'x')", "23502"),
        ("INSERT INTO t VALUES (1, 'too long')", "22001"),
        ("INSERT INTO t VALUES ('x', 'x')", "22P02"),
        ("SELECT 1/0", "22012"),
        ("SELECT id FROM t GROUP BY name", "42803"),
        ("CREATE TABLE u (id int PRIMARY KEY)", "0A000"),
        ("CREATE TABLE u (id int UNIQUE)", "0A000"),
        ("CREATE TABLE u (id int CHECK (id > 0))", "0A000"),
        ("CREATE TABLE u (id int REFERENCES t)", "0A000"),
        ("SELECT create_hypertable('nowhere', 'time')", "42P01"),
        ("SELECT create_hypertable('t', 'nothing')", "42703"),
        ("EXECUTE nothing", "26000"),
        ("SET no_such_setting = 1", "42704"),
    ] {
        let (found, message) = sql.fail(statement).await;
        assert_eq!(found, sqlstate, "{statement}: {message}");
    }
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "0");
    node.assert_no_panic();
}

#[tokio::test]
async fn bytes_that_are_no_protocol_hurt_nobody() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (v int)").await;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut cases: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 64],
        vec![0; 1024],
        // A start-up message that claims to be longer than it is, and one that claims to be huge.
        [&100u32.to_be_bytes()[..], &196_608u32.to_be_bytes(), b"user\0m"].concat(),
        [&0x7fff_ffff_u32.to_be_bytes()[..], &196_608u32.to_be_bytes()].concat(),
        // Another protocol version.
        [&8u32.to_be_bytes()[..], &0x0009_0000_u32.to_be_bytes()].concat(),
    ];
    for length in [1, 7, 8, 9, 100, 5000] {
        cases.push((0..length).map(|_| next(&mut random)).collect());
    }
    // After a start-up in order: garbage, a message of a wrong length, a message out of order.
    let start = startup();
    for tail in [
        &[0xff; 32][..],
        &[b'Q', 0, 0, 0, 1],
        &[b'Q', 0x7f, 0xff, 0xff, 0xff, b'S'],
        &[b'd', 0, 0, 0, 8, 1, 2, 3, 4],
        &[b'c', 0, 0, 0, 4],
        &[b'B', 0, 0, 0, 8, 0, 0, 0xff, 0xff],
        &[b'E', 0, 0, 0, 9, b'x', 0, 0, 0, 0],
        &[b'P', 0, 0, 0, 8, b's', b'e', b'l', b'e'],
        &[b'?', 0, 0, 0, 4],
    ] {
        cases.push([start.as_slice(), tail].concat());
    }
    for bytes in &cases {
        let mut stream = TcpStream::connect(("127.0.0.1", node.sql_port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // The server may close before everything is sent: that is its right.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read(&mut [0; 4096]);
    }
    assert_eq!(sql.one("SELECT 1").await, "1", "the other client does not notice");
    assert_eq!(node.connect().await.one("SELECT count(*) FROM t").await, "0");
    node.assert_no_panic();
}

#[test]
fn bytes_that_are_no_protocol_on_the_other_ports_hurt_nobody() {
    let mut node = Node::start();
    for address in [node.cluster_address(), node.admin_address()] {
        for bytes in [&b""[..], &[0xff; 4096], &[0; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff"] {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let _ = stream.write_all(bytes);
            let _ = stream.read(&mut [0; 4096]);
        }
    }
    assert!(node.is_running());
    node.wait_ready();
    node.assert_no_panic();
}

fn startup() -> Vec<u8> {
    let body = b"user\0meridian\0database\0meridian\0\0";
    let length = 8 + body.len() as u32;
    [&length.to_be_bytes()[..], &196_608u32.to_be_bytes(), body].concat()
}

/// xorshift64: the same bytes in every run.
fn next(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state as u8
}
