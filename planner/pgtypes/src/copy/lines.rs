//! Where the rows of text and csv data end.

use memchr::memchr3;

use super::options::{CopyFormat, CopyOptions};
use crate::error::{BAD_COPY_FILE, ValueError};

/// What lies at the start of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A row and its newline.
    Row {
        /// Behind the row's last byte.
        end: usize,
        /// Where the next row starts.
        next: usize,
        /// Whether the row holds quotes (csv) or backslashes (text).
        has_special: bool,
    },
    /// The end marker `\.`, the row before it perhaps not empty.
    Marker { end: usize, has_special: bool },
    /// The row's end has not come yet.
    More,
}

/// The newline of the first row is that of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Newline {
    Unknown,
    Lf,
    Cr,
    CrLf,
}

/// Finds row ends. Between calls for one row it keeps its place, so that a row that comes in many pieces is looked at once.
#[derive(Debug)]
pub(super) struct LineScanner {
    is_csv: bool,
    quote: u8,
    escape: u8,
    newline: Newline,
    /// Bytes of the present row that were looked at.
    scanned: usize,
    is_in_quotes: bool,
    has_special: bool,
    /// Newlines inside quotes of the present row.
    inner_lines: u64,
}

impl LineScanner {
    pub(super) fn new(options: &CopyOptions) -> Self {
        Self {
            is_csv: options.format == CopyFormat::Csv,
            quote: options.quote,
            escape: options.escape,
            newline: Newline::Unknown,
            scanned: 0,
            is_in_quotes: false,
            has_special: false,
            inner_lines: 0,
        }
    }

    /// Lines that the present row takes beyond its first, so far.
    pub(super) fn inner_lines(&self) -> u64 {
        self.inner_lines
    }

    /// Looks for the end of the row at the start of `data`; `is_last` if nothing will follow.
    #[inline]
    pub(super) fn find(&mut self, data: &[u8], is_last: bool) -> Result<Found, ValueError> {
        let found = if self.is_csv { self.find_csv(data, is_last)? } else { self.find_text(data, is_last)? };
        if found != Found::More {
            self.scanned = 0;
            self.is_in_quotes = false;
            self.has_special = false;
        }
        Ok(found)
    }

    /// Starts to count the inner lines of another row.
    #[inline]
    pub(super) fn start_row(&mut self) {
        self.inner_lines = 0;
    }

    #[inline]
    fn find_csv(&mut self, data: &[u8], is_last: bool) -> Result<Found, ValueError> {
        if self.scanned == 0 && data.first() == Some(&b'\\') {
            match self.csv_marker(data, is_last)? {
                Some(found) => return Ok(found),
                None => self.scanned = 1,
            }
        }
        loop {
            if self.is_in_quotes && !self.skip_quoted(data, is_last) {
                return Ok(Found::More);
            }
            let Some(offset) = memchr3(self.quote, b'\n', b'\r', &data[self.scanned..]) else {
                self.scanned = data.len();
                return Ok(Found::More);
            };
            let place = self.scanned + offset;
            // A quote that is a newline character would never end a row: not asked for by anyone, but allowed.
            if data[place] == self.quote {
                self.has_special = true;
                self.is_in_quotes = true;
                self.scanned = place + 1;
                continue;
            }
            return self.newline(data, place, is_last);
        }
    }

    /// Moves behind the closing quote; `false` if it has not come yet.
    fn skip_quoted(&mut self, data: &[u8], is_last: bool) -> bool {
        let counted = if self.newline == Newline::Lf { b'\n' } else { b'\r' };
        loop {
            let Some(offset) = memchr3(self.quote, self.escape, counted, &data[self.scanned..]) else {
                self.scanned = data.len();
                return false;
            };
            let place = self.scanned + offset;
            let byte = data[place];
            if byte == self.escape && self.escape != self.quote {
                match data.get(place + 1) {
                    Some(next) if *next == self.quote || *next == self.escape => self.scanned = place + 2,
                    Some(_) => self.scanned = place + 1,
                    None if is_last => {
                        self.scanned = data.len();
                        return false;
                    }
                    None => {
                        self.scanned = place;
                        return false;
                    }
                }
                continue;
            }
            self.scanned = place + 1;
            if byte == self.quote {
                self.is_in_quotes = false;
                return true;
            }
            self.inner_lines += 1;
        }
    }

    fn find_text(&mut self, data: &[u8], is_last: bool) -> Result<Found, ValueError> {
        loop {
            let Some(offset) = memchr3(b'\\', b'\n', b'\r', &data[self.scanned..]) else {
                self.scanned = data.len();
                return Ok(Found::More);
            };
            let place = self.scanned + offset;
            if data[place] != b'\\' {
                return self.newline(data, place, is_last);
            }
            match data.get(place + 1) {
                Some(b'.') => return self.text_marker(data, place, is_last),
                // Whatever follows a backslash is data, a newline too.
                Some(_) => self.scanned = place + 2,
                None => {
                    self.scanned = if is_last { data.len() } else { place };
                    self.has_special |= is_last;
                    return Ok(Found::More);
                }
            }
            self.has_special = true;
        }
    }

    /// Ends the row at the newline at `place`.
    #[inline]
    fn newline(&mut self, data: &[u8], place: usize, is_last: bool) -> Result<Found, ValueError> {
        let has_special = self.has_special;
        if data[place] == b'\n' {
            if matches!(self.newline, Newline::Cr | Newline::CrLf) {
                return Err(self.stray("newline", "\\n"));
            }
            self.newline = Newline::Lf;
            return Ok(Found::Row { end: place, next: place + 1, has_special });
        }
        match (self.newline, data.get(place + 1)) {
            (Newline::Lf, _) => Err(self.stray("carriage return", "\\r")),
            (Newline::Cr, _) => Ok(Found::Row { end: place, next: place + 1, has_special }),
            (_, None) if !is_last => {
                self.scanned = place;
                Ok(Found::More)
            }
            (_, Some(b'\n')) => {
                self.newline = Newline::CrLf;
                Ok(Found::Row { end: place, next: place + 2, has_special })
            }
            (Newline::CrLf, _) => Err(self.stray("carriage return", "\\r")),
            (Newline::Unknown, _) => {
                self.newline = Newline::Cr;
                Ok(Found::Row { end: place, next: place + 1, has_special })
            }
        }
    }

    #[cold]
    fn stray(&self, what: &str, escape: &str) -> ValueError {
        if self.is_csv {
            ValueError::new(BAD_COPY_FILE, format!("unquoted {what} found in data"))
                .with_hint(format!("Use quoted CSV field to represent {what}."))
        } else {
            ValueError::new(BAD_COPY_FILE, format!("literal {what} found in data"))
                .with_hint(format!("Use \"{escape}\" to represent {what}."))
        }
    }

    /// The newline behind a marker: `Ok(None)` if it has not come yet.
    fn marker_end(&self, rest: &[u8], is_last: bool) -> Result<Option<()>, MarkerFault> {
        let mut rest = rest;
        if self.newline == Newline::CrLf {
            match rest {
                [b'\r', after @ ..] => rest = after,
                [b'\n', ..] => return Err(MarkerFault::OtherNewline),
                [] if !is_last => return Ok(None),
                _ => return Err(MarkerFault::Corrupt),
            }
        }
        match (self.newline, rest.first()) {
            (_, None) if !is_last => Ok(None),
            (Newline::Cr | Newline::Unknown, Some(b'\r')) => Ok(Some(())),
            (Newline::Lf | Newline::CrLf | Newline::Unknown, Some(b'\n')) => Ok(Some(())),
            (_, Some(b'\r' | b'\n')) => Err(MarkerFault::OtherNewline),
            _ => Err(MarkerFault::Corrupt),
        }
    }

    fn text_marker(&mut self, data: &[u8], place: usize, is_last: bool) -> Result<Found, ValueError> {
        match self.marker_end(&data[place + 2..], is_last) {
            Ok(Some(())) => Ok(Found::Marker { end: place, has_special: self.has_special }),
            Ok(None) => {
                self.scanned = place;
                Ok(Found::More)
            }
            Err(fault) => Err(fault.into_error()),
        }
    }

    /// In csv a marker stands alone on its line; what only begins like one is data (`None`).
    fn csv_marker(&mut self, data: &[u8], is_last: bool) -> Result<Option<Found>, ValueError> {
        match data.get(1) {
            None if !is_last => return Ok(Some(Found::More)),
            Some(b'.') => {}
            _ => return Ok(None),
        }
        let has_style = self.newline != Newline::CrLf;
        match self.marker_end(&data[2..], is_last) {
            Ok(Some(())) => Ok(Some(Found::Marker { end: 0, has_special: false })),
            Ok(None) => Ok(Some(Found::More)),
            Err(MarkerFault::OtherNewline) if has_style => Err(MarkerFault::OtherNewline.into_error()),
            Err(_) => Ok(None),
        }
    }
}

enum MarkerFault {
    Corrupt,
    OtherNewline,
}

impl MarkerFault {
    fn into_error(self) -> ValueError {
        let message = match self {
            Self::Corrupt => "end-of-copy marker corrupt",
            Self::OtherNewline => "end-of-copy marker does not match previous newline style",
        };
        ValueError::new(BAD_COPY_FILE, message)
    }
}
