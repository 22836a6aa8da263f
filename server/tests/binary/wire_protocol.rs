//! The PostgreSQL protocol byte by byte: what the server answers to messages in and out of order, whole, cut and random.
//! Drivers never send most of these; a broken or hostile client does.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::common::{Cluster, Node};

/// Longest wait for an answer. Far above any real one, so that a test fails rather than hangs.
const ANSWER_MAX: Duration = Duration::from_secs(20);

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];
const CANCEL_CODE: u32 = 80_877_102;

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    kind: char,
    body: Vec<u8>,
}

impl Message {
    /// The field of an ErrorResponse or NoticeResponse.
    fn field(&self, code: u8) -> Option<String> {
        let fields = self.body.split(|byte| *byte == 0);
        fields.filter(|field| field.first() == Some(&code)).map(|field| text(&field[1..])).next()
    }

    /// Values of a DataRow in text.
    fn row(&self) -> Vec<Option<String>> {
        assert_eq!(self.kind, 'D');
        let mut rest = &self.body[2..];
        let mut values = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(i32::from_be_bytes(*length));
            let (value, after) = after.split_at(length.unwrap_or(0));
            values.push(length.is_ok().then(|| text(value)));
            rest = after;
        }
        values
    }
}

fn address_of(node: &Node) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], node.sql_port()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text from the server is UTF-8")
}

/// A client that knows no better than the test that writes its bytes.
struct Client {
    stream: TcpStream,
    pid: u32,
    secret: Vec<u8>,
}

impl Client {
    fn bare(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server accepts");
        stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, pid: 0, secret: Vec::new() }
    }

    /// A client that is past its start-up.
    fn connect(address: SocketAddr) -> Self {
        let mut client = Self::bare(address);
        client.send(&startup(3 << 16, &[("user", "meridian"), ("database", "meridian")]));
        client.finish_startup();
        client
    }

    /// Everything up to the first ReadyForQuery.
    fn finish_startup(&mut self) -> Vec<Message> {
        let messages = self.until_ready();
        assert_eq!(kinds(&messages).chars().next(), Some('R'), "{messages:?}");
        let key = messages.iter().find(|message| message.kind == 'K').expect("a cancel key");
        self.pid = u32::from_be_bytes(key.body[..4].try_into().unwrap());
        self.secret = key.body[4..].to_vec();
        messages
    }

    fn send(&mut self, bytes: &[u8]) {
        // A server that closed already is seen by the read that follows.
        let _ = self.stream.write_all(bytes);
    }

    fn read(&mut self) -> Message {
        self.try_read().expect("a message, not the end of the stream")
    }

    /// `None` at the end of the stream.
    fn try_read(&mut self) -> Option<Message> {
        let mut head = [0; 5];
        if let Err(error) = self.stream.read_exact(&mut head) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "no answer within {ANSWER_MAX:?}");
            return None;
        }
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).expect("a whole message");
        Some(Message { kind: char::from(head[0]), body })
    }

    /// Whether something was sent that was not read yet.
    fn has_answer(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        matches!(peeked, Ok(1))
    }

    fn until_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.read());
            if messages.last().is_some_and(|message| message.kind == 'Z') {
                return messages;
            }
        }
    }

    fn query(&mut self, sql: &str) -> Vec<Message> {
        self.send(&query(sql));
        self.until_ready()
    }

    /// Sends and reads up to ReadyForQuery; the kinds of the answers.
    fn exchange(&mut self, messages: &[Vec<u8>]) -> String {
        self.send(&messages.concat());
        kinds(&self.until_ready())
    }

    /// The tags of a query that must succeed.
    fn run(&mut self, sql: &str) -> Vec<String> {
        let messages = self.query(sql);
        assert!(!kinds(&messages).contains('E'), "{sql}: {:?}", failures(&messages));
        messages.iter().filter(|message| message.kind == 'C').map(tag).collect()
    }

    /// First value of the first row.
    fn value(&mut self, sql: &str) -> String {
        let messages = self.query(sql);
        let row = messages.iter().find(|message| message.kind == 'D');
        row.unwrap_or_else(|| panic!("{sql}: {:?}", failures(&messages))).row()[0].clone().expect("a value")
    }

    /// Asserts that the server said a last error and closed.
    fn assert_dismissed(&mut self, sqlstate: &str, what: &str) {
        let message = self.try_read().unwrap_or_else(|| panic!("{what}: closed without a word"));
        assert_eq!(message.kind, 'E', "{what}");
        assert_eq!(message.field(b'S').as_deref(), Some("FATAL"), "{what}");
        assert_eq!(message.field(b'C').as_deref(), Some(sqlstate), "{what}: {message:?}");
        assert_eq!(self.try_read(), None, "{what}: the server closes");
    }
}

fn tag(message: &Message) -> String {
    text(message.body.strip_suffix(b"\0").unwrap())
}

fn kinds(messages: &[Message]) -> String {
    messages.iter().map(|message| message.kind).collect()
}

/// SQLSTATE and message of each error.
fn failures(messages: &[Message]) -> Vec<(String, String)> {
    let errors = messages.iter().filter(|message| message.kind == 'E');
    errors.map(|error| (error.field(b'C').unwrap(), error.field(b'M').unwrap())).collect()
}

fn sqlstates(messages: &[Message]) -> Vec<String> {
    failures(messages).into_iter().map(|(sqlstate, _)| sqlstate).collect()
}

fn status(messages: &[Message]) -> char {
    char::from(messages.last().expect("ReadyForQuery").body[0])
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes()[..], &body].concat()
}

fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Text parameters, text results.
fn bind(portal: &str, statement: &str, parameters: &[&str]) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0\0\0").into_bytes();
    body.extend_from_slice(&u16::try_from(parameters.len()).unwrap().to_be_bytes());
    for parameter in parameters {
        body.extend_from_slice(&u32::try_from(parameter.len()).unwrap().to_be_bytes());
        body.extend_from_slice(parameter.as_bytes());
    }
    body.extend_from_slice(&[0, 0]);
    message(b'B', &body)
}

fn describe(kind: char, name: &str) -> Vec<u8> {
    message(b'D', format!("{kind}{name}\0").as_bytes())
}

fn close(kind: char, name: &str) -> Vec<u8> {
    message(b'C', format!("{kind}{name}\0").as_bytes())
}

fn execute(portal: &str, rows_max: u32) -> Vec<u8> {
    message(b'E', &[format!("{portal}\0").as_bytes(), &rows_max.to_be_bytes()].concat())
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn copy_data(data: &str) -> Vec<u8> {
    message(b'd', data.as_bytes())
}

fn copy_done() -> Vec<u8> {
    message(b'c', b"")
}

fn cancel_request(pid: u32, secret: &[u8]) -> Vec<u8> {
    let length = u32::try_from(12 + secret.len()).unwrap();
    [&length.to_be_bytes()[..], &CANCEL_CODE.to_be_bytes(), &pid.to_be_bytes(), secret].concat()
}

/// A stream of bytes that is the same in every run.
fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn start_up() {
    let node = Node::start();
    let address = address_of(&node);
    encryption_is_refused_and_the_start_up_goes_on(address);
    versions_are_negotiated(address);
    parameters_are_told(address);
    strangers_are_refused(address);
    senseless_first_packets_are_refused(address);
}

fn encryption_is_refused_and_the_start_up_goes_on(address: SocketAddr) {
    let mut client = Client::bare(address);
    for request in [GSS_REQUEST, SSL_REQUEST] {
        client.send(&request);
        let mut answer = [0];
        client.stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"N");
    }
    client.send(&startup(3 << 16, &[("user", "meridian")]));
    client.finish_startup();
}

fn versions_are_negotiated(address: SocketAddr) {
    for (minor, negotiated, secret_bytes) in [(0, None, 4), (1, Some(0), 4), (2, None, 32), (9999, Some(2), 32)] {
        let mut client = Client::bare(address);
        client.send(&startup((3 << 16) | minor, &[("user", "meridian"), ("_pq_.none", "1")]));
        let answer = client.read();
        assert_eq!(answer.kind, 'v', "an unknown option is always told");
        let version = u32::from_be_bytes(answer.body[..4].try_into().unwrap());
        assert_eq!(version, (3 << 16) | negotiated.unwrap_or(minor), "3.{minor}");
        assert_eq!(&answer.body[4..], b"\0\0\0\x01_pq_.none\0");
        client.finish_startup();
        assert_eq!(client.secret.len(), secret_bytes, "3.{minor}");
    }
    let mut client = Client::bare(address);
    client.send(&startup(2 << 16, &[("user", "meridian")]));
    client.assert_dismissed("0A000", "protocol 2.0");
}

fn parameters_are_told(address: SocketAddr) {
    let mut client = Client::bare(address);
    let parameters = [
        ("user", "meridian"),
        ("application_name", "wire test"),
        ("options", "-c TimeZone=Asia/Kathmandu --statement-timeout=0"),
    ];
    client.send(&startup(3 << 16, &parameters));
    let told: Vec<_> = client.finish_startup().into_iter().filter(|message| message.kind == 'S').collect();
    let value = |name: &str| {
        let prefix = format!("{name}\0");
        let found = told.iter().find_map(|message| message.body.strip_prefix(prefix.as_bytes()));
        found.map(|value| text(value.strip_suffix(b"\0").unwrap()))
    };
    assert_eq!(value("application_name").as_deref(), Some("wire test"));
    assert_eq!(value("TimeZone").as_deref(), Some("Asia/Kathmandu"));
    assert_eq!(value("client_encoding").as_deref(), Some("UTF8"));
    assert_eq!(value("integer_datetimes").as_deref(), Some("on"));
    assert_eq!(value("standard_conforming_strings").as_deref(), Some("on"));
    assert_eq!(value("in_hot_standby").as_deref(), Some("off"));
    assert!(value("server_version").is_some_and(|version| version.starts_with("15.")));
    let names = [
        "server_encoding",
        "DateStyle",
        "IntervalStyle",
        "is_superuser",
        "session_authorization",
        "default_transaction_read_only",
    ];
    for name in names {
        assert!(value(name).is_some(), "{name}");
    }
    let messages = client.query("SET TIME ZONE 'UTC'");
    assert_eq!(kinds(&messages), "CSZ", "a changed parameter is told again");
}

fn strangers_are_refused(address: SocketAddr) {
    let cases = [
        ("root", "meridian", "28000", "role \"root\" does not exist"),
        ("meridian", "postgres", "3D000", "database \"postgres\" does not exist"),
    ];
    for (user, database, sqlstate, message) in cases {
        let mut client = Client::bare(address);
        client.send(&startup(3 << 16, &[("user", user), ("database", database)]));
        let error = client.read();
        assert_eq!((error.field(b'S'), error.field(b'C')), (Some("FATAL".to_owned()), Some(sqlstate.to_owned())));
        assert_eq!(error.field(b'M').as_deref(), Some(message));
        assert_eq!(client.try_read(), None);
    }
}

fn senseless_first_packets_are_refused(address: SocketAddr) {
    let packets: [(&str, &[u8]); 5] = [
        ("a request without a start-up", &query("SELECT 1")),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n"),
        ("a length below itself", &[0, 0, 0, 3, 0, 3, 0, 0]),
        ("no terminator", &[0, 0, 0, 12, 0, 3, 0, 0, b'u', b's', b'e', b'r']),
        ("a short cancel request", &[0, 0, 0, 12, 4, 210, 22, 46, 0, 0, 0, 1]),
    ];
    for (what, packet) in packets {
        let mut client = Client::bare(address);
        client.send(packet);
        client.assert_dismissed("08P01", what);
    }
}

#[test]
fn broken_clients_do_not_disturb_others() {
    let node = Node::start();
    let address = address_of(&node);
    let mut witness = Client::connect(address);
    for seed in 0..40 {
        let mut client = if seed % 2 == 0 { Client::bare(address) } else { Client::connect(address) };
        client.send(&random_bytes(seed, 4096));
        let _ = client.stream.shutdown(Shutdown::Write);
        while client.try_read().is_some() {}
    }
    framing_errors_end_the_connection(address);
    bad_bodies_are_errors_and_the_connection_goes_on(address);
    cut_messages_are_a_client_that_left(address);
    assert_eq!(witness.value("SELECT 41 + 1"), "42");
    node.assert_no_panic();
}

fn framing_errors_end_the_connection(address: SocketAddr) {
    let messages: [(&str, &[u8]); 6] = [
        ("an unknown kind", b"?\0\0\0\x04"),
        ("a zero kind", b"\0\0\0\0\x04"),
        ("a password nobody asked for", b"p\0\0\0\x08abc\0"),
        ("a length below itself", b"Q\0\0\0\x03"),
        ("a query of 2 GiB", b"Q\x7f\xff\xff\xff"),
        ("a Sync of 1 MiB", b"S\0\x10\0\0"),
    ];
    for (what, bytes) in messages {
        let mut client = Client::connect(address);
        client.send(bytes);
        client.assert_dismissed("08P01", what);
    }
}

fn bad_bodies_are_errors_and_the_connection_goes_on(address: SocketAddr) {
    let mut client = Client::connect(address);
    let bodies: [(&str, u8, &[u8], &str); 6] = [
        ("a query without its end", b'Q', b"SELECT 1", "08P01"),
        ("text behind a query's end", b'Q', b"SELECT 1\0x", "08P01"),
        ("a query that is not UTF-8", b'Q', b"SELECT '\xff'\0", "22021"),
        ("a Bind with too few parameters", b'B', b"\0\0\0\0\xff\xff", "08P01"),
        ("a parameter of 2 GiB", b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff", "08P01"),
        ("a Describe of nothing", b'D', b"X\0", "08P01"),
    ];
    for (what, kind, body, sqlstate) in bodies {
        client.send(&message(kind, body));
        if kind != b'Q' {
            client.send(&sync());
        }
        let messages = client.until_ready();
        assert_eq!(sqlstates(&messages), [sqlstate], "{what}");
        assert_eq!(status(&messages), 'I', "{what}");
    }
    let messages =
        client.exchange(&[message(b'F', b"\0\0\0\x01\0\0\0\0\0\0"), copy_done(), message(b'd', b"stray"), sync()]);
    assert_eq!(messages, "EZ", "a function call is refused");
    assert_eq!(kinds(&client.until_ready()), "Z", "stray COPY messages are skipped");
}

fn cut_messages_are_a_client_that_left(address: SocketAddr) {
    let whole = [parse("", "SELECT 1"), bind("", "", &[]), execute("", 0), sync()].concat();
    for end in (1..whole.len()).step_by(5) {
        let mut client = Client::connect(address);
        client.send(&whole[..end]);
        client.stream.shutdown(Shutdown::Write).unwrap();
        while client.try_read().is_some() {}
    }
}

const MIB: usize = 1 << 20;

/// A node whose clients' messages may take 8 MiB together.
fn frugal_node() -> Node {
    Node::start_with(&["--set", "sql.message_memory=8MiB"])
}

/// A query of a little more than `bytes` bytes, most of them a comment.
fn long_query(sql: &str, bytes: usize) -> Vec<u8> {
    query(&format!("{sql} --{}", "x".repeat(bytes)))
}

fn resident_bytes(node: &Node) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process_id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("resident memory");
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn long_messages_that_never_end_are_not_held() {
    let node = frugal_node();
    let address = address_of(&node);
    let mut witness = Client::connect(address);
    assert_eq!(witness.value("SELECT 1"), "1");
    let before = resident_bytes(&node);
    // Each could be held alone, all of them could not; none is whole.
    let message = long_query("SELECT 2", 7 * MIB);
    let clients: Vec<_> = (0..20).map(|_| Client::connect(address)).collect();
    let send = |client: &Client| {
        let (mut stream, beginning) = (client.stream.try_clone().unwrap(), message[..message.len() - 1].to_vec());
        std::thread::spawn(move || stream.write_all(&beginning))
    };
    let senders: Vec<_> = clients.iter().map(send).collect();
    let mut peak = 0;
    while senders.iter().any(|sender| !sender.is_finished()) {
        assert_eq!(witness.value("SELECT 3"), "3", "short messages are served meanwhile");
        peak = peak.max(resident_bytes(&node));
    }
    assert!(peak < before + 48 * MIB, "from {} to {} MiB", before / MIB, peak / MIB);
    drop(clients);
    witness.send(&message);
    assert_eq!(kinds(&witness.until_ready()), "TDCZ", "what was held is free again");
    node.assert_no_panic();
}

#[test]
fn long_messages_wait_for_one_another() {
    let node = frugal_node();
    let address = address_of(&node);
    let (mut first, mut second) = (Client::connect(address), Client::connect(address));
    let message = long_query("SELECT 1", 7 * MIB);
    let (beginning, rest) = message.split_at(message.len() / 2);
    first.send(beginning);
    let mut stream = second.stream.try_clone().unwrap();
    let whole = message.clone();
    let sender = std::thread::spawn(move || stream.write_all(&whole));
    first.send(rest);
    assert_eq!(kinds(&first.until_ready()), "TDCZ");
    assert_eq!(kinds(&second.until_ready()), "TDCZ");
    sender.join().unwrap().unwrap();
    // One that stalls gives way, and its client may go on.
    first.send(beginning);
    let deadline = Instant::now() + ANSWER_MAX;
    // A message that is first to take the memory waits for nobody: the next one may.
    while !first.has_answer() {
        assert!(Instant::now() < deadline, "a message that stalls does not give way");
        second.send(&message);
        assert_eq!(kinds(&second.until_ready()), "TDCZ");
    }
    assert_eq!(sqlstates(&first.until_ready()), ["53200"]);
    first.send(rest);
    assert_eq!(first.value("SELECT 2"), "2");
}

#[test]
fn a_message_longer_than_all_memory_for_messages_is_refused_at_its_head() {
    let node = frugal_node();
    let address = address_of(&node);
    for (kind, answers) in [(b'Q', "EZ"), (b'P', "E"), (b'B', "E")] {
        let mut client = Client::connect(address);
        client.send(&[&[kind][..], &0x3fff_0000_u32.to_be_bytes()].concat());
        for answer in answers.chars() {
            let message = client.read();
            assert_eq!(message.kind, answer);
            assert!(answer == 'Z' || message.field(b'C').as_deref() == Some("53200"), "{message:?}");
        }
    }
    let mut client = Client::connect(address);
    client.run("CREATE TABLE wide (v text)");
    client.send(&query("COPY wide FROM STDIN"));
    assert_eq!(client.read().kind, 'G');
    let piece = copy_data(&"x".repeat(MIB));
    for _ in 0..40 {
        client.send(&piece);
    }
    client.send(&copy_done());
    assert_eq!(sqlstates(&client.until_ready()), ["53200"], "a row of 40 MiB");
    assert_eq!(client.value("SELECT count(*) FROM wide"), "0");
}

#[test]
fn simple_queries() {
    let node = Node::start();
    let mut client = Client::connect(address_of(&node));
    assert_eq!(kinds(&client.query("")), "IZ");
    assert_eq!(kinds(&client.query(" ; -- nothing\n")), "IZ");
    assert_eq!(kinds(&client.query("SELECT 1; SELECT 2, 3")), "TDCTDCZ");
    assert_eq!(client.run("CREATE TABLE simple (k int, v text)"), ["CREATE TABLE"]);

    let tags = client.run("INSERT INTO simple VALUES (1, 'a'); INSERT INTO simple VALUES (2, NULL), (3, 'c')");
    assert_eq!(tags, ["INSERT 0 1", "INSERT 0 2"]);
    let messages = client.query("SELECT k, v FROM simple ORDER BY k");
    let rows: Vec<_> = messages.iter().filter(|message| message.kind == 'D').map(Message::row).collect();
    let row = |k: &str, v: Option<&str>| vec![Some(k.to_owned()), v.map(str::to_owned)];
    assert_eq!(rows, [row("1", Some("a")), row("2", None), row("3", Some("c"))]);

    // Several statements of one message are one transaction.
    let messages = client.query("INSERT INTO simple VALUES (4, 'd'); SELECT 1/0; SELECT 5");
    assert_eq!(sqlstates(&messages), ["22012"]);
    assert_eq!(status(&messages), 'I');
    assert_eq!(client.value("SELECT count(*) FROM simple"), "3");

    let messages = client.query("SELECT * FROM nowhere");
    let error = messages.iter().find(|message| message.kind == 'E').unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("42P01"));
    assert_eq!(error.field(b'V').as_deref(), Some("ERROR"));
    assert_eq!(error.field(b'M').as_deref(), Some("relation \"nowhere\" does not exist"));
}

#[test]
fn transaction_states() {
    let node = Node::start();
    let mut client = Client::connect(address_of(&node));
    assert_eq!(status(&client.query("BEGIN")), 'T');
    assert_eq!(status(&client.query("SELECT 1")), 'T');
    let messages = client.query("SELECT nonsense");
    assert_eq!((status(&messages), sqlstates(&messages)), ('E', vec!["42703".to_owned()]));
    assert_eq!(sqlstates(&client.query("SELECT 1")), ["25P02"]);
    let messages = client.query("COMMIT");
    assert_eq!(messages.iter().filter(|m| m.kind == 'C').map(tag).collect::<Vec<_>>(), ["ROLLBACK"]);
    assert_eq!(status(&messages), 'I');
    let messages = client.query("ROLLBACK");
    assert_eq!(kinds(&messages), "NCZ", "a warning, no error");
    assert_eq!(status(&client.query("BEGIN; SELECT 1")), 'T');
    assert_eq!(status(&client.query("COMMIT")), 'I');
}

#[test]
fn extended_queries() {
    let node = Node::start();
    let address = address_of(&node);
    let mut client = Client::connect(address);
    client.run("CREATE TABLE ext (k int, v text)");
    let rows: Vec<_> = (1..=10).map(|k| format!("({k}, 'v{k}')")).collect();
    client.run(&format!("INSERT INTO ext VALUES {}", rows.join(", ")));
    statements_are_described_bound_and_run(&mut client);
    portals_are_read_in_pieces(&mut client);
    an_error_skips_to_the_sync(&mut client);
    a_pipeline_is_one_transaction(&mut client, address);
    names_that_are_missing_or_taken(&mut client);
}

fn statements_are_described_bound_and_run(client: &mut Client) {
    let sql = "SELECT k, v FROM ext WHERE k = $1";
    client.send(&[parse("s", sql), describe('S', "s"), bind("", "s", &["7"]), execute("", 0), sync()].concat());
    let messages = client.until_ready();
    assert_eq!(kinds(&messages), "1tT2DCZ");
    assert_eq!(messages[1].body, [0, 1, 0, 0, 0, 23], "one parameter, int4");
    assert_eq!(messages[4].row(), [Some("7".to_owned()), Some("v7".to_owned())]);
    assert_eq!(tag(&messages[5]), "SELECT 1");

    // A Flush brings out what there is; binary results on demand.
    let binary_result = message(b'B', b"\0s\0\0\0\0\x01\0\0\0\x017\0\x01\0\x01");
    client.send(&[binary_result, describe('P', ""), message(b'H', b"")].concat());
    assert_eq!((client.read().kind, client.read().kind), ('2', 'T'));
    client.send(&[execute("", 0), sync()].concat());
    let messages = client.until_ready();
    assert_eq!(messages[0].body, [0, 2, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0, 2, b'v', b'7']);

    assert_eq!(
        client.exchange(&[parse("", ""), bind("", "", &[]), describe('P', ""), execute("", 0), sync()]),
        "12nIZ"
    );
    assert_eq!(client.exchange(&[close('S', "s"), close('S', "never"), close('P', "never"), sync()]), "333Z");
}

fn portals_are_read_in_pieces(client: &mut Client) {
    let sql = "SELECT k FROM ext ORDER BY k";
    client.send(&[parse("", sql), bind("p", "", &[]), execute("p", 4), execute("p", 6), execute("p", 6)].concat());
    client.send(&[execute("p", 1), sync()].concat());
    let messages = client.until_ready();
    assert_eq!(kinds(&messages), "12DDDDsDDDDDDsCCZ");
    let tags: Vec<_> = messages.iter().filter(|m| m.kind == 'C').map(tag).collect();
    assert_eq!(tags, ["SELECT 0", "SELECT 0"], "a tag counts the rows of its Execute");

    // Outside a transaction a portal ends with its Sync, inside it lives on.
    assert_eq!(client.exchange(&[parse("", sql), bind("p", "", &[]), execute("p", 1), sync()]), "12DsZ");
    client.send(&[execute("p", 1), sync()].concat());
    assert_eq!(sqlstates(&client.until_ready()), ["34000"]);
    client.run("BEGIN");
    assert_eq!(client.exchange(&[parse("", sql), bind("p", "", &[]), execute("p", 1), sync()]), "12DsZ");
    assert_eq!(client.exchange(&[execute("p", 2), sync()]), "DDsZ");
    assert_eq!(client.exchange(&[execute("p", 0), sync()]), "DDDDDDDCZ");
    client.run("COMMIT");
    client.send(&[execute("p", 1), sync()].concat());
    assert_eq!(sqlstates(&client.until_ready()), ["34000"]);
}

fn an_error_skips_to_the_sync(client: &mut Client) {
    let good = [parse("", "SELECT 1"), bind("", "", &[]), execute("", 0)].concat();
    let bad = parse("", "SELECT nonsense");
    let answers = client.exchange(&[good.clone(), bad, good.clone(), query("SELECT 2"), good.clone(), sync()]);
    assert_eq!(answers, "12DCEZ");
    assert_eq!(client.exchange(&[good, sync()]), "12DCZ");
}

fn a_pipeline_is_one_transaction(client: &mut Client, address: SocketAddr) {
    let insert = |k: &str| [bind("", "i", &[k]), execute("", 0)].concat();
    assert_eq!(client.exchange(&[parse("i", "INSERT INTO ext VALUES ($1, 'p')"), sync()]), "1Z");
    let failed = client.exchange(&[insert("100"), insert("101"), insert("x"), insert("102"), sync()]);
    assert_eq!(failed, "2C2CEZ");
    assert_eq!(client.exchange(&[insert("103"), insert("104"), sync()]), "2C2CZ");
    let mut other = Client::connect(address);
    assert_eq!(other.value("SELECT count(*) FROM ext WHERE v = 'p'"), "2");
}

fn names_that_are_missing_or_taken(client: &mut Client) {
    let cases = [
        (bind("", "missing", &[]), "26000"),
        (describe('S', "missing"), "26000"),
        (describe('P', "missing"), "34000"),
        (execute("missing", 0), "34000"),
        (parse("i", "SELECT 1"), "42P05"),
        (parse("", "SELECT 1; SELECT 2"), "42601"),
        (bind("", "i", &[]), "08P01"),
        (bind("", "i", &["1", "2"]), "08P01"),
    ];
    for (request, sqlstate) in cases {
        client.send(&[request, sync()].concat());
        assert_eq!(sqlstates(&client.until_ready()), [sqlstate]);
    }
    client.send(&[parse("", "SELECT 1"), bind("p", "", &[]), bind("p", "", &[]), sync()].concat());
    assert_eq!(sqlstates(&client.until_ready()), ["42P03"]);
    client.send(&[bind("", "i", &["200"]), execute("", 0), execute("", 0), sync()].concat());
    assert_eq!(sqlstates(&client.until_ready()), ["55000"], "an INSERT's portal runs once");
}

#[test]
fn copy_from_stdin() {
    let node = Node::start();
    let address = address_of(&node);
    let mut client = Client::connect(address);
    client.run("CREATE TABLE copied (k int, v text)");
    copies_in_both_protocols(&mut client);
    a_copy_that_fails_leaves_nothing(&mut client);
    a_client_that_leaves_leaves_nothing(&mut client, address);
}

const COPY: &str = "COPY copied FROM STDIN WITH (FORMAT csv)";

fn copies_in_both_protocols(client: &mut Client) {
    client.send(&query(COPY));
    assert_eq!(client.read(), Message { kind: 'G', body: vec![0, 0, 2, 0, 0, 0, 0] });
    for byte in "1,a\n2,\"b\nc\"\n".chars() {
        client.send(&copy_data(&byte.to_string()));
    }
    client.send(&copy_done());
    let messages = client.until_ready();
    assert_eq!(tag(&messages[0]), "COPY 2");

    // libpq sends its Sync with the Execute and another behind the data.
    client.send(&[parse("", COPY), bind("", "", &[]), execute("", 0), sync()].concat());
    assert_eq!([client.read().kind, client.read().kind, client.read().kind], ['1', '2', 'G']);
    assert_eq!(client.exchange(&[copy_data("3,d\n"), message(b'H', b""), copy_done(), sync()]), "CZ");
    assert_eq!(client.value("SELECT count(*) FROM copied"), "3");
}

fn a_copy_that_fails_leaves_nothing(client: &mut Client) {
    client.send(&[query(COPY), copy_data("4,e\nx,f\n"), copy_data(&"5,g\n".repeat(100_000)), copy_done()].concat());
    assert_eq!(client.read().kind, 'G');
    let messages = client.until_ready();
    let error = &messages[0];
    assert_eq!(error.field(b'C').as_deref(), Some("22P02"));
    assert_eq!(error.field(b'M').as_deref(), Some("invalid input syntax for type integer: \"x\""));
    assert_eq!(error.field(b'W').as_deref(), Some("COPY copied, line 2, column k: \"x\""));

    client.send(&[query(COPY), copy_data("6,h\n"), message(b'f', b"no more\0")].concat());
    assert_eq!(client.read().kind, 'G');
    let failed = failures(&client.until_ready());
    assert_eq!(failed, [("57014".to_owned(), "COPY from stdin failed: no more".to_owned())]);

    // In the extended protocol what follows is skipped up to the Sync behind the data.
    client.send(&[parse("", COPY), bind("", "", &[]), execute("", 0), copy_data("y,i\n"), copy_data("7,j\n")].concat());
    assert_eq!(client.exchange(&[copy_done(), query("SELECT 1"), sync()]), "12GEZ");
    assert_eq!(client.value("SELECT count(*) FROM copied"), "3");
}

fn a_client_that_leaves_leaves_nothing(client: &mut Client, address: SocketAddr) {
    let mut leaver = Client::connect(address);
    leaver.send(&[query(COPY), copy_data(&"8,k\n".repeat(50_000))].concat());
    assert_eq!(leaver.read().kind, 'G');
    drop(leaver);
    let mut confused = Client::connect(address);
    confused.send(&[query(COPY), copy_data("9,l\n"), query("SELECT 1")].concat());
    assert_eq!(confused.read().kind, 'G');
    confused.assert_dismissed("08P01", "a query within COPY");
    assert_eq!(client.value("SELECT count(*) FROM copied"), "3");
}

#[test]
fn copy_to_stdout() {
    let node = Node::start();
    let mut client = Client::connect(address_of(&node));
    let messages = client
        .query("COPY (SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, NULL ORDER BY 1) TO STDOUT (FORMAT csv, HEADER)");
    assert_eq!(kinds(&messages), "HdddcCZ", "{:?}", failures(&messages));
    let data: Vec<_> =
        messages.iter().filter(|message| message.kind == 'd').map(|message| text(&message.body)).collect();
    assert_eq!(data, ["a,b\n", "1,x\n", "2,\n"]);
    assert_eq!(tag(&messages[5]), "COPY 2");
}

#[test]
fn statements_are_stopped() {
    let node = Node::start();
    let address = address_of(&node);
    let mut client = Client::connect(address);
    client.run("CREATE TABLE stopped (k int)");
    a_cancel_request_stops_the_statement(&mut client, address);
    a_statement_that_takes_too_long_is_stopped(&mut client);
    assert_eq!(client.value("SELECT count(*) FROM stopped"), "0");
}

/// A COPY that waits for data is the one statement that surely still runs when the cancel comes.
fn a_cancel_request_stops_the_statement(client: &mut Client, address: SocketAddr) {
    client.send(&[query("COPY stopped FROM STDIN"), copy_data("1\n")].concat());
    assert_eq!(client.read().kind, 'G');
    for (pid, secret) in [(client.pid, vec![0; 4]), (client.pid ^ (1 << 20), client.secret.clone())] {
        send_cancel(address, pid, &secret);
    }
    client.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut byte = [0];
    assert!(client.stream.read(&mut byte).is_err(), "a wrong key stops nothing");
    client.stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    send_cancel(address, client.pid, &client.secret);
    let failed = failures(&client.until_ready());
    assert_eq!(failed, [("57014".to_owned(), "canceling statement due to user request".to_owned())]);
    send_cancel(address, client.pid, &client.secret);
    assert_eq!(client.value("SELECT 1"), "1", "a cancel that comes too late hits nothing");
}

#[test]
fn a_cancel_request_reaches_its_statement_through_any_access_node() {
    let cluster = Cluster::start(3, 1);
    let mut client = Client::connect(address_of(&cluster.access[1]));
    client.run("CREATE TABLE stopped (k int)");
    for through in [0, 2] {
        client.send(&[query("COPY stopped FROM STDIN"), copy_data("1\n")].concat());
        assert_eq!(client.read().kind, 'G');
        send_cancel(address_of(&cluster.access[through]), client.pid, &[0; 4]);
        client.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(client.stream.read(&mut [0]).is_err(), "a wrong secret stops nothing");
        client.stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
        send_cancel(address_of(&cluster.access[through]), client.pid, &client.secret);
        let failed = failures(&client.until_ready());
        assert_eq!(failed, [("57014".to_owned(), "canceling statement due to user request".to_owned())]);
    }
    assert_eq!(client.value("SELECT count(*) FROM stopped"), "0");
}

fn send_cancel(address: SocketAddr, pid: u32, secret: &[u8]) {
    let mut canceler = Client::bare(address);
    canceler.send(&cancel_request(pid, secret));
    assert_eq!(canceler.try_read(), None, "the server closes without a word");
}

fn a_statement_that_takes_too_long_is_stopped(client: &mut Client) {
    client.run("SET statement_timeout = '200ms'");
    client.send(&[query("COPY stopped FROM STDIN"), copy_data("2\n")].concat());
    assert_eq!(client.read().kind, 'G');
    let failed = failures(&client.until_ready());
    assert_eq!(failed, [("57014".to_owned(), "canceling statement due to statement timeout".to_owned())]);
    client.run("RESET statement_timeout");
}

#[test]
fn idle_clients_are_told_of_a_shutdown() {
    let mut node = Node::start();
    let mut client = Client::connect(address_of(&node));
    assert_eq!(client.value("SELECT 1"), "1");
    node.signal(libc::SIGTERM);
    let error = client.read();
    assert_eq!(error.field(b'C').as_deref(), Some("57P01"));
    assert_eq!(error.field(b'M').as_deref(), Some("terminating connection due to administrator command"));
    assert_eq!(client.try_read(), None);
    assert_eq!(node.wait_end().code(), Some(0));
}
