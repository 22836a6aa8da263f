//! A client's socket with its two buffers. Bytes come in and go out in large pieces; every wait may be dropped and
//! taken up again, so that a wait for the client can stand beside one for a statement.

use std::future;
use std::io;
use std::mem;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::budget::{Budget, Held, SHARE_BYTES, STALL_MAX};
use super::failure::{Ended, violation};
use super::frontend::{Frame, HEAD_BYTES, Head};
use crate::error::SqlError;
use crate::gateway::counters::Counters;

/// Longest read.
const READ_BYTES: usize = 64 << 10;
/// The same while COPY data arrives. 70 MB/s of CSV are 280 reads of this size a second.
pub const COPY_READ_BYTES: usize = 256 << 10;
/// First allocation of a connection; most never need more for their requests.
const IDLE_BYTES: usize = 8 << 10;
/// Output that is sent before more is made: a slow client slows its statement down. A long answer begins with the less,
/// so that its first rows come soon, and doubles it up to the more: with 64 KiB throughout, client and statement wake each
/// other so often that 9 MB take a seventh longer.
const OUTPUT_BYTES_MIN: usize = 64 << 10;
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Requests that are read ahead while a statement runs. What comes after waits in the kernel.
const READ_AHEAD_BYTES_MAX: usize = SHARE_BYTES;

pub struct Wire {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    input: BytesMut,
    output: BytesMut,
    /// So much of it is sent.
    output_enough: usize,
    /// Bytes of a message that were not yet taken from `input` (or not yet read), and that nobody waits for as a whole:
    /// CopyData, or a message that is passed over.
    rest: usize,
    budget: Arc<Budget>,
    /// What the message that arrives takes of the budget.
    held: Held,
    /// The client closed its side, or the socket failed.
    closed: bool,
    counters: Arc<Counters>,
}

/// What [`Wire::take_copy`] came to.
#[derive(Debug, PartialEq, Eq)]
pub enum CopyStep {
    /// The block is full.
    Full,
    /// All that arrived is taken.
    Empty,
    /// CopyDone.
    Done,
    /// CopyFail with the client's reason.
    Failed(String),
}

impl Wire {
    pub fn new(stream: TcpStream, counters: Arc<Counters>, budget: Arc<Budget>) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader,
            writer,
            input: BytesMut::with_capacity(IDLE_BYTES),
            output: BytesMut::with_capacity(IDLE_BYTES),
            output_enough: OUTPUT_BYTES_MIN,
            rest: 0,
            budget,
            held: Held::default(),
            closed: false,
            counters,
        }
    }

    /// Where messages to the client are put; [`Self::flush`] sends them.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The next message but CopyData, which outside COPY is the tail of a COPY that failed here first and is skipped.
    /// What was answered is sent before it waits. `Closed` at the end of the stream.
    pub async fn next_frame(&mut self) -> Result<Frame, Ended> {
        loop {
            self.skip_rest();
            // While there is a rest, the input is empty.
            match Head::peek(&self.input).map_err(Ended::Fatal)? {
                Some(head) if head.kind == b'd' => self.pass_over(head),
                Some(head) if self.input.len() >= head.message_bytes() => return Ok(self.cut(head)),
                Some(head) => {
                    if let Some(refusal) = self.fill_message(head).await? {
                        return Ok(self.refuse(head, refusal));
                    }
                }
                None => {
                    self.flush().await?;
                    self.release_memory();
                    self.fill_or_close(READ_BYTES).await?;
                }
            }
        }
    }

    /// Reads more of a message that is not whole. Answers why it cannot be held, if so.
    async fn fill_message(&mut self, head: Head) -> Result<Option<SqlError>, Ended> {
        self.flush().await?;
        if let Err(refusal) = self.hold(head).await {
            return Ok(Some(refusal));
        }
        let length_next = head.message_bytes().min(self.input.len() + READ_BYTES);
        loop {
            match timeout(STALL_MAX, self.fill_upto(length_next)).await {
                Ok(filled) => return filled.map(|()| None),
                Err(_) if !self.held.is_empty() && self.budget.is_awaited() => return Ok(Some(self.budget.used_up())),
                Err(_) => {}
            }
        }
    }

    /// Takes memory for the message once more than the connection's share of it has come: what is only announced holds
    /// nothing. All of it at once: messages that held a part each would wait for one another for ever.
    async fn hold(&mut self, head: Head) -> Result<(), SqlError> {
        self.budget.check(head.message_bytes())?;
        if self.input.len() < SHARE_BYTES {
            return Ok(());
        }
        self.budget.cover(&mut self.held, head.message_bytes() - SHARE_BYTES).await?;
        // Else the buffer is copied, and twice as long, again and again as it grows.
        self.input.reserve(head.message_bytes() - self.input.len() + READ_BYTES);
        Ok(())
    }

    async fn fill_upto(&mut self, length: usize) -> Result<(), Ended> {
        while self.input.len() < length {
            self.fill_or_close(READ_BYTES).await?;
        }
        Ok(())
    }

    /// Whether the next message arrived and is a Sync.
    pub fn next_is_sync(&self) -> bool {
        self.rest == 0 && self.input.first() == Some(&b'S')
    }

    /// `count` bytes of the start-up phase, whose packets have no kind byte.
    pub async fn take_exact(&mut self, count: usize) -> Result<Bytes, Ended> {
        while self.input.len() < count {
            self.flush().await?;
            self.fill_or_close(IDLE_BYTES).await?;
        }
        Ok(self.input.split_to(count).freeze())
    }

    /// Whether bytes arrived that nobody asked for yet.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    fn cut(&mut self, head: Head) -> Frame {
        let mut message = self.input.split_to(head.message_bytes());
        message.advance(HEAD_BYTES);
        Frame { kind: head.kind, body: message.freeze(), refusal: None, held: mem::take(&mut self.held) }
    }

    /// A message that is not held: its bytes are passed over as they come.
    fn refuse(&mut self, head: Head, refusal: SqlError) -> Frame {
        self.pass_over(head);
        self.skip_rest();
        self.held = Held::default();
        Frame { kind: head.kind, body: Bytes::new(), refusal: Some(refusal), held: Held::default() }
    }

    fn pass_over(&mut self, head: Head) {
        self.input.advance(HEAD_BYTES);
        self.rest = head.body_bytes;
    }

    fn skip_rest(&mut self) {
        let skipped = self.rest.min(self.input.len());
        self.input.advance(skipped);
        self.rest -= skipped;
    }

    /// Moves COPY data that arrived into `block`, until it holds `block_bytes_max`, and passes over the messages that
    /// clients may send in between. `Err` on any other message.
    pub fn take_copy(&mut self, block: &mut BytesMut, block_bytes_max: usize) -> Result<CopyStep, Ended> {
        loop {
            let room = block_bytes_max.saturating_sub(block.len());
            let taken = self.rest.min(self.input.len()).min(room);
            block.extend_from_slice(&self.input[..taken]);
            self.input.advance(taken);
            self.rest -= taken;
            if self.rest > 0 {
                return Ok(if self.input.is_empty() { CopyStep::Empty } else { CopyStep::Full });
            }
            let Some(head) = self.copy_head()? else { return Ok(CopyStep::Empty) };
            if head.kind == b'd' {
                self.pass_over(head);
                continue;
            }
            if self.input.len() < head.message_bytes() {
                return Ok(CopyStep::Empty);
            }
            let frame = self.cut(head);
            match head.kind {
                b'c' => return Ok(CopyStep::Done),
                b'f' => return Ok(CopyStep::Failed(frame.copy_fail_reason().map_err(Ended::Fatal)?)),
                // Flush and Sync: libpq sends its Sync before it learns that the statement was a COPY.
                _ => {}
            }
        }
    }

    /// The next head, which within COPY must be one of a few kinds.
    fn copy_head(&self) -> Result<Option<Head>, Ended> {
        if let Some(&kind) = self.input.first()
            && !matches!(kind, b'd' | b'c' | b'f' | b'H' | b'S')
        {
            let message = format!("unexpected message type 0x{kind:02X} during COPY from stdin");
            return Err(Ended::Fatal(violation(message)));
        }
        Head::peek(&self.input).map_err(Ended::Fatal)
    }

    /// Reads what the socket has, at least one byte. `Closed` at the end of the stream.
    pub async fn fill_or_close(&mut self, bytes_max: usize) -> Result<(), Ended> {
        if self.closed || self.fill(bytes_max).await? == 0 {
            self.closed = true;
            return Err(Ended::Closed);
        }
        Ok(())
    }

    async fn fill(&mut self, bytes_max: usize) -> io::Result<usize> {
        loop {
            self.reader.readable().await?;
            self.input.reserve(bytes_max);
            match self.reader.try_read_buf(&mut (&mut self.input).limit(bytes_max)) {
                Ok(count) => {
                    self.counters.bytes_received.add(count as u64);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns when the client goes away; meanwhile reads its next requests, up to a limit.
    pub async fn watch(&mut self) {
        while !self.closed {
            if self.input.len() >= READ_AHEAD_BYTES_MAX {
                return future::pending().await;
            }
            if !matches!(self.fill(IDLE_BYTES).await, Ok(count) if count > 0) {
                self.closed = true;
            }
        }
    }

    /// Sends the output if it is large. To be called after every piece that a long answer adds.
    pub async fn flush_if_large(&mut self) -> io::Result<()> {
        if self.output.len() < self.output_enough {
            return Ok(());
        }
        self.flush().await?;
        self.output_enough = (2 * self.output_enough).min(OUTPUT_BYTES_MAX);
        Ok(())
    }

    /// Sends all output.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            self.writer.writable().await?;
            match self.writer.try_write(&self.output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.output.advance(count);
                    self.counters.bytes_sent.add(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Room left in the output before it should be sent.
    pub fn output_room(&self) -> usize {
        self.output_enough.saturating_sub(self.output.len())
    }

    /// Ends our side and reads on until the client ends its own.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.writer.shutdown().await?;
        while !self.closed {
            self.input.clear();
            self.closed = self.fill(READ_BYTES).await? == 0;
        }
        Ok(())
    }

    /// A thousand idle clients may not hold the buffers of their largest requests.
    fn release_memory(&mut self) {
        self.output_enough = OUTPUT_BYTES_MIN;
        for buffer in [&mut self.input, &mut self.output] {
            if buffer.is_empty() && buffer.capacity() > IDLE_BYTES {
                *buffer = BytesMut::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A wire and its client's end.
    async fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (Wire::new(server, Arc::default(), Arc::new(Budget::new(BUDGET_BYTES))), client)
    }

    const BUDGET_BYTES: usize = 1 << 20;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.put_u32(u32::try_from(body.len() + 4).unwrap());
        bytes.extend_from_slice(body);
        bytes
    }

    #[tokio::test]
    async fn a_long_answer_is_sent_in_ever_larger_pieces() {
        let (mut wire, mut client) = pair().await;
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.unwrap();
            all.len()
        });
        let mut sent = 0;
        for enough in [64, 128, 256, 512, 1024, 1024] {
            assert_eq!(wire.output_room(), enough << 10);
            wire.output().resize((enough << 10) - 1, b'x');
            wire.flush_if_large().await.unwrap();
            assert_eq!(wire.output_room(), 1, "not enough yet");
            wire.output().put_u8(b'x');
            wire.flush_if_large().await.unwrap();
            sent += enough << 10;
        }
        wire.release_memory();
        assert_eq!(wire.output_room(), 64 << 10);
        drop(wire);
        assert_eq!(reader.await.unwrap(), sent);
    }

    #[tokio::test]
    async fn messages_are_cut_wherever_the_bytes_are_split() {
        let (mut wire, mut client) = pair().await;
        let bytes = [message(b'Q', b"SELECT 1\0"), message(b'S', b"")].concat();
        let sender = tokio::spawn(async move {
            for byte in bytes {
                client.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            client
        });
        let first = wire.next_frame().await.unwrap();
        assert_eq!((first.kind, &first.body[..]), (b'Q', &b"SELECT 1\0"[..]));
        assert_eq!(wire.next_frame().await.unwrap().kind, b'S');
        drop(sender.await.unwrap());
        assert!(matches!(wire.next_frame().await, Err(Ended::Closed)));
    }

    #[tokio::test]
    async fn stray_copy_data_is_skipped_without_being_held() {
        let (mut wire, mut client) = pair().await;
        let sender = tokio::spawn(async move {
            let data = vec![b'x'; 4 << 20];
            client.write_all(&[message(b'd', &data), message(b'S', b"")].concat()).await.unwrap();
            client
        });
        assert_eq!(wire.next_frame().await.unwrap().kind, b'S');
        assert!(wire.input.capacity() < 1 << 20, "{}", wire.input.capacity());
        drop(sender.await.unwrap());
    }

    #[tokio::test]
    async fn a_message_that_nobody_could_hold_is_refused_and_passed_over() {
        let (mut wire, mut client) = pair().await;
        let sender = tokio::spawn(async move {
            client.write_all(&message(b'Q', &vec![b'x'; 4 << 20])).await.unwrap();
            client.write_all(&message(b'S', b"")).await.unwrap();
            client
        });
        let refused = wire.next_frame().await.unwrap();
        assert_eq!((refused.kind, refused.request().unwrap_err().sqlstate.as_str()), (b'Q', "53200"));
        assert_eq!(wire.next_frame().await.unwrap().kind, b'S');
        assert!(wire.input.capacity() < 1 << 20, "{}", wire.input.capacity());
        drop(sender.await.unwrap());
    }

    #[tokio::test]
    async fn a_long_message_takes_of_the_budget_until_it_is_served() {
        let (mut wire, mut client) = pair().await;
        let sender = tokio::spawn(async move {
            client.write_all(&message(b'Q', &vec![b'x'; BUDGET_BYTES / 2])).await.unwrap();
            client
        });
        let frame = wire.next_frame().await.unwrap();
        let mut other = Held::default();
        assert!(timeout(STALL_MAX / 100, wire.budget.cover(&mut other, BUDGET_BYTES)).await.is_err());
        drop(frame);
        wire.budget.cover(&mut other, BUDGET_BYTES).await.unwrap();
        drop(sender.await.unwrap());
    }

    #[tokio::test]
    async fn a_message_cut_off_by_the_end_of_the_stream_is_a_closed_client() {
        let (mut wire, mut client) = pair().await;
        client.write_all(b"Q\0\0\0\x20SELECT").await.unwrap();
        drop(client);
        assert!(matches!(wire.next_frame().await, Err(Ended::Closed)));
    }

    #[tokio::test]
    async fn copy_data_of_any_slicing_makes_the_same_block() {
        let (mut wire, mut client) = pair().await;
        let bytes = [
            message(b'S', b""),
            message(b'd', b"1,2\n"),
            message(b'd', b""),
            message(b'd', b"3,"),
            message(b'H', b""),
            message(b'd', b"4\n"),
            message(b'c', b""),
            message(b'S', b""),
        ]
        .concat();
        client.write_all(&bytes).await.unwrap();
        drop(client);
        let mut block = BytesMut::new();
        let mut steps = Vec::new();
        loop {
            match wire.take_copy(&mut block, 7).unwrap() {
                CopyStep::Done => break,
                CopyStep::Full => steps.push(block.split()),
                CopyStep::Empty => wire.fill_or_close(16).await.unwrap(),
                CopyStep::Failed(reason) => panic!("{reason}"),
            }
        }
        steps.push(block);
        assert_eq!(steps.concat(), b"1,2\n3,4\n");
        assert!(steps.iter().all(|block| block.len() <= 7));
        assert!(wire.next_is_sync());
    }

    #[tokio::test]
    async fn a_query_within_copy_ends_the_connection() {
        let (mut wire, mut client) = pair().await;
        client.write_all(&message(b'Q', b"SELECT 1\0")).await.unwrap();
        wire.fill_or_close(16).await.unwrap();
        let Err(Ended::Fatal(error)) = wire.take_copy(&mut BytesMut::new(), 64) else { panic!("accepted") };
        assert_eq!(error.message, "unexpected message type 0x51 during COPY from stdin");
    }

    #[tokio::test]
    async fn a_watch_ends_with_the_client_and_keeps_what_it_read() {
        let (mut wire, mut client) = pair().await;
        client.write_all(&message(b'S', b"")).await.unwrap();
        drop(client);
        wire.watch().await;
        assert!(wire.is_closed());
        assert_eq!(wire.next_frame().await.unwrap().kind, b'S');
        assert!(matches!(wire.next_frame().await, Err(Ended::Closed)));
    }
}
