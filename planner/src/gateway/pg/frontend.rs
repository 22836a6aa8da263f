//! Messages from the client. Frames are cut and their bodies read here rather than by pgwire, whose decoders trust the
//! counts inside a body: a short Bind makes them panic. Here every read is checked, and a bad body is 08P01.

use bytes::Bytes;

use super::budget::Held;
use super::failure::violation;
use crate::error::SqlError;

/// Longest Query, Parse, Bind and CopyData: PostgreSQL's `PQ_LARGE_MESSAGE_LIMIT`, in bytes with the length word.
pub const LARGE_MESSAGE_BYTES_MAX: usize = 0x3fff_fffe;
/// Longest message of the other kinds: PostgreSQL's `PQ_SMALL_MESSAGE_LIMIT`.
pub const SMALL_MESSAGE_BYTES_MAX: usize = 10_000;
/// Kind byte and length word.
pub const HEAD_BYTES: usize = 5;

/// Kind and body length of a message whose first bytes arrived.
///
/// ```text
/// 0     1         5
/// | kind | length  | body ...      length: u32 big-endian, counts itself and the body
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub kind: u8,
    pub body_bytes: usize,
}

impl Head {
    /// `None` while fewer than [`HEAD_BYTES`] arrived. An `Err` leaves no way to find the next message.
    pub fn peek(input: &[u8]) -> Result<Option<Self>, SqlError> {
        let Some((&kind, rest)) = input.split_first() else { return Ok(None) };
        let max = match kind {
            b'Q' | b'P' | b'B' | b'F' | b'd' => LARGE_MESSAGE_BYTES_MAX,
            b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' => SMALL_MESSAGE_BYTES_MAX,
            other => return Err(violation(format!("invalid frontend message type {other}"))),
        };
        let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if !(4..=max).contains(&length) {
            return Err(violation("invalid message length"));
        }
        Ok(Some(Self { kind, body_bytes: length - 4 }))
    }

    /// Bytes of the whole message.
    pub fn message_bytes(self) -> usize {
        HEAD_BYTES + self.body_bytes
    }
}

/// A message, its body not yet read.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub body: Bytes,
    /// Why there is no body: nobody could hold it.
    pub refusal: Option<SqlError>,
    /// What it takes of the gateway's memory.
    pub held: Held,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    Query(String),
    Parse {
        name: String,
        sql: String,
        oids: Vec<u32>,
    },
    Bind(Bind),
    Describe(Target),
    Close(Target),
    Execute {
        portal: String,
        rows_max: i32,
    },
    Flush,
    Sync,
    Terminate,
    FunctionCall,
    /// CopyDone and CopyFail outside COPY: the tail of a COPY that failed here first.
    CopyTail,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Bind {
    pub portal: String,
    pub statement: String,
    /// Format codes of the parameters: none (all text), one for all, or one each.
    pub formats: Vec<i16>,
    pub parameters: Vec<Option<Bytes>>,
    /// Format codes of the result's columns, in the same way.
    pub result_formats: Vec<i16>,
}

/// What Describe and Close name.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    Statement(String),
    Portal(String),
}

impl Frame {
    pub fn request(&self) -> Result<Request, SqlError> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let mut body = Body { frame: &self.body, rest: &self.body };
        let request = match self.kind {
            b'Q' => Request::Query(body.text()?),
            b'P' => Request::Parse { name: body.text()?, sql: body.text()?, oids: body.list(Body::u32)? },
            b'B' => Request::Bind(body.bind()?),
            b'D' => Request::Describe(body.target("DESCRIBE")?),
            b'C' => Request::Close(body.target("CLOSE")?),
            b'E' => Request::Execute { portal: body.text()?, rows_max: body.i32()? },
            b'H' => Request::Flush,
            b'S' => Request::Sync,
            b'X' => Request::Terminate,
            b'F' => return Ok(Request::FunctionCall),
            b'c' | b'f' => return Ok(Request::CopyTail),
            other => return Err(violation(format!("invalid frontend message type {other}"))),
        };
        if body.rest.is_empty() { Ok(request) } else { Err(violation("invalid message format")) }
    }

    /// The reason in a CopyFail.
    pub fn copy_fail_reason(&self) -> Result<String, SqlError> {
        Body { frame: &self.body, rest: &self.body }.text()
    }
}

/// A body as far as it was not read yet.
struct Body<'a> {
    frame: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], SqlError> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or_else(|| violation("insufficient data left in message"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SqlError> {
        let (taken, rest) =
            self.rest.split_first_chunk::<N>().ok_or_else(|| violation("insufficient data left in message"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, SqlError> {
        self.array().map(u16::from_be_bytes)
    }

    fn i16(&mut self) -> Result<i16, SqlError> {
        self.array().map(i16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, SqlError> {
        self.array().map(u32::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, SqlError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A string that ends with a zero byte.
    fn text(&mut self) -> Result<String, SqlError> {
        let end = memchr::memchr(0, self.rest).ok_or_else(|| violation("invalid string in message"))?;
        let text = utf8(self.take(end)?)?.to_owned();
        self.take(1)?;
        Ok(text)
    }

    /// A u16 count and that many elements.
    fn list<T>(&mut self, element: impl Fn(&mut Self) -> Result<T, SqlError>) -> Result<Vec<T>, SqlError> {
        let count = self.u16()?;
        // Grown as elements are found: a count alone may not make us reserve memory.
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }

    fn bind(&mut self) -> Result<Bind, SqlError> {
        Ok(Bind {
            portal: self.text()?,
            statement: self.text()?,
            formats: self.list(Self::i16)?,
            parameters: self.list(Self::value)?,
            result_formats: self.list(Self::i16)?,
        })
    }

    /// A length and that many bytes; length -1 is NULL.
    fn value(&mut self) -> Result<Option<Bytes>, SqlError> {
        match self.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| violation("invalid message format"))?;
                Ok(Some(self.frame.slice_ref(self.take(length)?)))
            }
        }
    }

    fn target(&mut self, message: &str) -> Result<Target, SqlError> {
        let [kind] = self.array()?;
        let name = self.text()?;
        match kind {
            b'S' => Ok(Target::Statement(name)),
            b'P' => Ok(Target::Portal(name)),
            other => Err(violation(format!("invalid {message} message subtype {other}"))),
        }
    }
}

/// Client text, which is UTF-8 here, or 22021 with the offending bytes as PostgreSQL shows them.
pub fn utf8(bytes: &[u8]) -> Result<&str, SqlError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let bad = &bytes[error.valid_up_to()..];
        let shown = bad.iter().take(error.error_len().unwrap_or(bad.len()).max(1));
        let shown = shown.map(|byte| format!("0x{byte:02x}")).collect::<Vec<_>>().join(" ");
        SqlError::new("22021", format!("invalid byte sequence for encoding \"UTF8\": {shown}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: u8, body: &'static [u8]) -> Result<Request, SqlError> {
        Frame { kind, body: Bytes::from_static(body), refusal: None, held: Held::default() }.request()
    }

    fn refused(kind: u8, body: &'static [u8]) -> (String, String) {
        let error = request(kind, body).unwrap_err();
        (error.sqlstate, error.message)
    }

    #[test]
    fn a_head_waits_for_its_five_bytes() {
        assert_eq!(Head::peek(b""), Ok(None));
        assert_eq!(Head::peek(b"Q\0\0\0"), Ok(None));
        assert_eq!(Head::peek(b"Q\0\0\0\x08sel"), Ok(Some(Head { kind: b'Q', body_bytes: 4 })));
    }

    #[test]
    fn a_head_with_a_bad_kind_or_length_is_refused() {
        for bytes in
            [&b"p\0\0\0\x08"[..], b"\x00", b"Q\0\0\0\x03", b"Q\xff\xff\xff\xff", b"S\0\0\x27\x11", b"Q\x40\0\0\0"]
        {
            assert_eq!(Head::peek(bytes).unwrap_err().sqlstate, "08P01", "{bytes:?}");
        }
    }

    #[test]
    fn requests_are_read() {
        assert_eq!(request(b'Q', b"SELECT 1\0"), Ok(Request::Query("SELECT 1".to_owned())));
        assert_eq!(
            request(b'P', b"s\0SELECT $1\0\0\x01\0\0\0\x17"),
            Ok(Request::Parse { name: "s".to_owned(), sql: "SELECT $1".to_owned(), oids: vec![23] })
        );
        assert_eq!(
            request(b'B', b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02hi\xff\xff\xff\xff\0\x01\0\x01"),
            Ok(Request::Bind(Bind {
                portal: "p".to_owned(),
                statement: "s".to_owned(),
                formats: vec![1],
                parameters: vec![Some(Bytes::from_static(b"hi")), None],
                result_formats: vec![1],
            }))
        );
        assert_eq!(request(b'E', b"\0\0\0\0\x05"), Ok(Request::Execute { portal: String::new(), rows_max: 5 }));
        assert_eq!(request(b'D', b"Sx\0"), Ok(Request::Describe(Target::Statement("x".to_owned()))));
        assert_eq!(request(b'C', b"P\0"), Ok(Request::Close(Target::Portal(String::new()))));
    }

    #[test]
    fn short_long_and_senseless_bodies_are_refused_without_a_panic() {
        assert_eq!(refused(b'Q', b"SELECT 1").1, "invalid string in message");
        assert_eq!(refused(b'Q', b"a\0b").1, "invalid message format");
        assert_eq!(refused(b'B', b"\0\0\0\x09").1, "insufficient data left in message");
        assert_eq!(refused(b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff").1, "insufficient data left in message");
        assert_eq!(refused(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe").1, "invalid message format");
        assert_eq!(refused(b'P', b"\0x\0\xff\xff").1, "insufficient data left in message");
        assert_eq!(refused(b'D', b"Z\0").1, "invalid DESCRIBE message subtype 90");
        assert_eq!(
            refused(b'Q', b"\xe2\x82\0"),
            ("22021".to_owned(), "invalid byte sequence for encoding \"UTF8\": 0xe2 0x82".to_owned())
        );
    }

    #[test]
    fn every_cut_of_a_bind_is_refused() {
        let whole = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02hi\xff\xff\xff\xff\0\x01\0\x01";
        for end in 0..whole.len() {
            assert!(request(b'B', &whole[..end]).is_err(), "cut at {end}");
        }
    }
}
