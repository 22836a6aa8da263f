//! COPY's binary format: the signature, flags (`i32`), an extension (`i32` length and bytes); then per row a count of
//! fields (`i16`) and per field its length (`i32`, -1: NULL) and bytes; a count of -1 ends the data.

use super::error::CopyError;
use super::rows::{ROW_BYTES_MAX, Rows};
use crate::error::{BAD_COPY_FILE, TOO_LARGE, ValueError};

pub(super) const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Flag of rows that start with an OID, which PostgreSQL 12 gave up.
const FLAG_OIDS: i32 = 1 << 16;
/// Flags that a reader must know.
const FLAGS_CRITICAL: i32 = !0xffff;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Rows,
    /// The count of -1 has come.
    Ended,
}

/// Reads binary data row by row.
#[derive(Debug)]
pub(super) struct BinaryReader {
    state: State,
    line: u64,
}

/// The next bytes have not come yet.
const MORE: Result<Option<usize>, CopyError> = Ok(None);

impl BinaryReader {
    pub(super) fn new() -> Self {
        Self { state: State::Header, line: 0 }
    }

    /// Reads what is whole at the start of `data`, returns the bytes read, `None` if nothing is.
    pub(super) fn step(&mut self, data: &[u8], rows: &mut Rows) -> Result<Option<usize>, CopyError> {
        match self.state {
            State::Header => self.header(data),
            State::Rows => self.row(data, rows),
            State::Ended if data.is_empty() => MORE,
            State::Ended => {
                self.line += 1;
                Err(self.bad("received copy data after EOF marker"))
            }
        }
    }

    /// Checks what is left at the end of the data. A missing end mark is forgiven, as PostgreSQL does.
    pub(super) fn finish(&mut self, rest: &[u8], rows: &Rows) -> Result<(), CopyError> {
        match self.state {
            State::Header if rest.len() < SIGNATURE.len() => Err(self.bad("COPY file signature not recognized")),
            State::Header if rest.len() < 15 => Err(self.bad("invalid COPY file header (missing flags)")),
            State::Header if rest.len() < 19 => Err(self.bad("invalid COPY file header (missing length)")),
            State::Header => Err(self.bad("invalid COPY file header (wrong length)")),
            State::Rows if rest.len() >= 2 => {
                self.line += 1;
                let error = ValueError::new(BAD_COPY_FILE, "unexpected EOF in COPY data");
                Err(self.bad_value(error, cut_column(rest, rows)))
            }
            State::Rows | State::Ended => Ok(()),
        }
    }

    #[cold]
    fn bad(&self, message: impl Into<String>) -> CopyError {
        let mut error = CopyError::at_line(ValueError::new(BAD_COPY_FILE, message), self.line);
        error.is_binary = true;
        error
    }

    fn header(&mut self, data: &[u8]) -> Result<Option<usize>, CopyError> {
        let known = data.len().min(SIGNATURE.len());
        if data[..known] != SIGNATURE[..known] {
            return Err(self.bad("COPY file signature not recognized"));
        }
        let Some(flags) = int32(data, 11) else { return MORE };
        if flags & FLAG_OIDS != 0 {
            return Err(self.bad("invalid COPY file header (WITH OIDS)"));
        }
        if flags & FLAGS_CRITICAL != 0 {
            return Err(self.bad("unrecognized critical flags in COPY file header"));
        }
        let Some(length) = int32(data, 15) else { return MORE };
        let length = usize::try_from(length).ok().filter(|length| *length <= ROW_BYTES_MAX);
        let length = length.ok_or_else(|| self.bad("invalid COPY file header (missing length)"))?;
        if data.len() < 19 + length {
            return MORE;
        }
        self.state = State::Rows;
        Ok(Some(19 + length))
    }

    fn row(&mut self, data: &[u8], rows: &mut Rows) -> Result<Option<usize>, CopyError> {
        let Some(count) = data.first_chunk::<2>().map(|bytes| i16::from_be_bytes(*bytes)) else { return MORE };
        if count == -1 {
            self.state = State::Ended;
            return Ok(Some(2));
        }
        if usize::try_from(count) != Ok(rows.columns.len()) {
            self.line += 1;
            return Err(self.bad(format!("row field count is {count}, expected {}", rows.columns.len())));
        }
        let Some(end) = self.row_end(data, rows)? else { return MORE };
        self.line += 1;
        let mut place = 2;
        for column in &mut rows.columns {
            let length = int32(data, place).unwrap_or(-1);
            place += 4;
            let Ok(length) = usize::try_from(length) else {
                column.builder.push_null();
                continue;
            };
            if let Err(error) = column.builder.push_binary(&data[place..place + length]) {
                return Err(self.bad_value(error, &column.name));
            }
            place += length;
        }
        rows.finish_row(end).map_err(|error| CopyError::at_line(error, self.line))?;
        Ok(Some(end))
    }

    /// Where the row ends, `None` if that has not come yet.
    fn row_end(&mut self, data: &[u8], rows: &Rows) -> Result<Option<usize>, CopyError> {
        let mut end = 2_usize;
        for column in &rows.columns {
            let Some(length) = int32(data, end) else { return MORE };
            if length < -1 {
                self.line += 1;
                return Err(self.bad_value(ValueError::new(BAD_COPY_FILE, "invalid field size"), &column.name));
            }
            end += 4 + usize::try_from(length).unwrap_or(0);
            if end > ROW_BYTES_MAX {
                self.line += 1;
                return Err(self.bad_value(row_too_long(), &column.name));
            }
        }
        Ok((end <= data.len()).then_some(end))
    }

    #[cold]
    fn bad_value(&self, error: ValueError, column: &str) -> CopyError {
        let mut error = CopyError::at_line(error, self.line);
        error.column = Some(column.to_owned());
        error.is_binary = true;
        error
    }
}

pub(super) fn row_too_long() -> ValueError {
    ValueError::new(TOO_LARGE, format!("row of COPY data is longer than {ROW_BYTES_MAX} bytes"))
}

/// The column in whose field the data ends.
fn cut_column<'a>(rest: &[u8], rows: &'a Rows) -> &'a str {
    let mut end = 2_usize;
    for column in &rows.columns {
        match int32(rest, end) {
            Some(length) => end += 4 + usize::try_from(length).unwrap_or(0),
            None => return &column.name,
        }
        if end > rest.len() {
            return &column.name;
        }
    }
    ""
}

fn int32(data: &[u8], place: usize) -> Option<i32> {
    data.get(place..place + 4).and_then(|bytes| bytes.first_chunk()).map(|bytes| i32::from_be_bytes(*bytes))
}
