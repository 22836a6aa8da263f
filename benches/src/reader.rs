//! A client that only reads: an answer's messages are taken from the socket one by one and let go, without looking at
//! fields. What it costs is the least that any client costs, so that a query's time is the server's.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::ingest::Error;

/// Kind and length.
const HEAD_BYTES: usize = 5;
const BUFFER_BYTES: usize = 256 << 10;

/// A connection, one statement at a time.
pub struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Of the buffer, what came and was not looked at yet.
    start: usize,
    end: usize,
}

/// A message's kind, and its body where somebody wants to see it.
struct Message {
    kind: u8,
    body: Vec<u8>,
}

impl Reader {
    pub fn connect(url: &str) -> Result<Self, Error> {
        let config: Config = url.parse()?;
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.as_str(),
            Some(Host::Unix(_)) => return Err("queries are timed over TCP".into()),
            None => "localhost",
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let stream = TcpStream::connect((host, port))?;
        stream.set_nodelay(true)?;
        let mut reader = Self { stream, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0 };
        let user = config.get_user().unwrap_or("postgres");
        let database = config.get_dbname().unwrap_or(user);
        let mut message = BytesMut::new();
        frontend::startup_message([("user", user), ("database", database)], &mut message)?;
        reader.stream.write_all(&message)?;
        reader.authenticate(user.as_bytes(), config.get_password().unwrap_or_default())?;
        reader.until_ready()?;
        Ok(reader)
    }

    /// Answers the server's questions until it is content.
    fn authenticate(&mut self, user: &[u8], password: &[u8]) -> Result<(), Error> {
        let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
        loop {
            let Message { kind, body } = self.next()?;
            let (question, data) = match (kind, body.split_first_chunk::<4>()) {
                (b'R', Some((question, data))) => (u32::from_be_bytes(*question), data),
                (b'E', _) => return Err(error_text(&body).into()),
                _ => return Err("the server does not authenticate".into()),
            };
            let mut answer = BytesMut::new();
            match (question, data) {
                (0, _) => return Ok(()),
                (3, _) => frontend::password_message(password, &mut answer)?,
                (5, [a, b, c, d]) => {
                    frontend::password_message(md5_hash(user, password, [*a, *b, *c, *d]).as_bytes(), &mut answer)?;
                }
                (10, _) => frontend::sasl_initial_response("SCRAM-SHA-256", scram.message(), &mut answer)?,
                (11, _) => {
                    scram.update(data)?;
                    frontend::sasl_response(scram.message(), &mut answer)?;
                }
                (12, _) => scram.finish(data)?,
                _ => return Err(format!("the server authenticates in an unknown way ({question})").into()),
            }
            self.stream.write_all(&answer)?;
        }
    }

    /// Rows of the statement's answer, and the time from sending it until the last of them was here.
    pub fn query(&mut self, sql: &str) -> Result<(Duration, usize), Error> {
        let mut message = BytesMut::new();
        frontend::query(sql, &mut message)?;
        let started = Instant::now();
        self.stream.write_all(&message)?;
        let rows = self.until_ready().map_err(|error| format!("{sql}: {error}"))?;
        Ok((started.elapsed(), rows))
    }

    /// Reads until the server waits for the next statement; counts rows.
    fn until_ready(&mut self) -> Result<usize, Error> {
        let (mut rows, mut failure) = (0, None);
        loop {
            let message = self.next()?;
            match message.kind {
                b'D' => rows += 1,
                b'E' => failure = failure.or_else(|| Some(error_text(&message.body))),
                b'Z' => return failure.map_or(Ok(rows), |failure| Err(failure.into())),
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<Message, Error> {
        while self.end - self.start < HEAD_BYTES {
            self.fill()?;
        }
        let head = &self.buffer[self.start..self.start + HEAD_BYTES];
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut message = Message { kind: head[0], body: Vec::new() };
        let mut left = length.checked_sub(HEAD_BYTES - 1).ok_or("a message without length")?;
        self.start += HEAD_BYTES;
        loop {
            let here = left.min(self.end - self.start);
            if matches!(message.kind, b'E' | b'R') {
                message.body.extend_from_slice(&self.buffer[self.start..self.start + here]);
            }
            self.start += here;
            left -= here;
            if left == 0 {
                return Ok(message);
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<(), Error> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        match self.stream.read(&mut self.buffer[self.end..])? {
            0 => Err("the server closed the connection".into()),
            count => {
                self.end += count;
                Ok(())
            }
        }
    }
}

/// SQLSTATE and message.
fn error_text(body: &[u8]) -> String {
    let fields = body.split(|byte| *byte == 0);
    let wanted = fields.filter(|field| matches!(field.first(), Some(b'C' | b'M')));
    wanted.map(|field| String::from_utf8_lossy(&field[1..]).into_owned()).collect::<Vec<_>>().join(" ")
}
