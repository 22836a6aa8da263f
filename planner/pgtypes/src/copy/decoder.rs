//! COPY data into record batches.

use arrow::array::RecordBatch;
use meridian_proto::SqlType;
use meridian_proto::modifier::Modifier;

use super::binary::{BinaryReader, row_too_long};
use super::error::CopyError;
use super::fields::Fields;
use super::lines::{Found, LineScanner};
use super::options::{CopyFormat, CopyHeader, CopyOptions};
use super::rows::{ROW_BYTES_MAX, Rows};
use crate::error::{BAD_COPY_FILE, ValueError};
use crate::format::Format;
use crate::types::string;

/// Room for the data of a slice and of the row before it, usually.
const REST_BYTES: usize = 1 << 20;

/// Reads COPY data that arrives in slices cut anywhere. Rows are converted as soon as they are whole.
pub struct CopyDecoder {
    reader: Reader,
    rows: Rows,
    /// Data whose row is not whole yet.
    rest: Vec<u8>,
    failed: Option<CopyError>,
}

enum Reader {
    Lines(Box<LineReader>),
    Binary(BinaryReader),
}

impl CopyDecoder {
    #[must_use]
    pub fn new(options: CopyOptions, columns: &[(String, SqlType)], format: Format) -> Self {
        let rows = Rows::new(columns, &options, format);
        let reader = match options.format {
            CopyFormat::Binary => Reader::Binary(BinaryReader::new()),
            CopyFormat::Text | CopyFormat::Csv => Reader::Lines(Box::new(LineReader::new(options))),
        };
        Self { reader, rows, rest: Vec::new(), failed: None }
    }

    /// The modifiers of the columns' types.
    #[must_use]
    pub fn with_modifiers(mut self, modifiers: &[Option<Modifier>]) -> Self {
        self.rows.set_modifiers(modifiers);
        self
    }

    /// Limits the rows of a batch; 65536 otherwise.
    #[must_use]
    pub fn with_batch_rows(mut self, rows_max: usize) -> Self {
        self.rows.set_rows_max(rows_max);
        self
    }

    /// Reads the next slice. After an error every call returns it again.
    pub fn push(&mut self, data: &[u8]) -> Result<(), CopyError> {
        self.check()?;
        let result = self.read(data, false);
        self.keep_error(result)
    }

    /// The oldest full batch, else all rows so far if they are at least `min_rows`. Call until `None`, after every push:
    /// so no more than a slice's rows wait here.
    pub fn take_batch(&mut self, min_rows: usize) -> Option<RecordBatch> {
        match self.rows.take(min_rows) {
            Ok(batch) => batch,
            Err(error) => {
                self.failed = Some(CopyError::at_line(error, 0));
                None
            }
        }
    }

    /// Bytes held of rows that are not whole or not taken yet.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.rest.capacity() + self.rows.held_bytes()
    }

    /// Rows read so far, taken or not.
    #[must_use]
    pub fn row_count(&self) -> u64 {
        self.rows.total()
    }

    /// The end of the data. Returns rows not taken yet; call again until `None`.
    pub fn finish(&mut self) -> Result<Option<RecordBatch>, CopyError> {
        self.check()?;
        let result = self.read(&[], true);
        self.keep_error(result)?;
        let batch = self.take_batch(1);
        self.check()?;
        Ok(batch)
    }

    fn check(&self) -> Result<(), CopyError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn keep_error(&mut self, result: Result<(), CopyError>) -> Result<(), CopyError> {
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    fn read(&mut self, data: &[u8], is_last: bool) -> Result<(), CopyError> {
        self.rest.extend_from_slice(data);
        let mut done = 0;
        match &mut self.reader {
            Reader::Lines(lines) => {
                while let Some(length) = lines.step(&self.rest[done..], is_last, &mut self.rows)? {
                    done += length;
                }
                if is_last {
                    lines.finish(&self.rows)?;
                }
            }
            Reader::Binary(binary) => {
                while let Some(length) = binary.step(&self.rest[done..], &mut self.rows)? {
                    done += length;
                }
                if is_last {
                    binary.finish(&self.rest[done..], &self.rows)?;
                    done = self.rest.len();
                }
            }
        }
        self.rest.drain(..done);
        // After a row of extraordinary length.
        if self.rest.len() <= REST_BYTES && self.rest.capacity() > 4 * REST_BYTES {
            self.rest.shrink_to(REST_BYTES);
        }
        Ok(())
    }
}

/// Reads text and csv data row by row.
struct LineReader {
    options: CopyOptions,
    scanner: LineScanner,
    fields: Fields,
    /// The last line that was read.
    line: u64,
    has_header: bool,
    /// The end marker has come: what follows is not looked at.
    has_ended: bool,
}

impl LineReader {
    fn new(options: CopyOptions) -> Self {
        let has_header = options.header != CopyHeader::None;
        let scanner = LineScanner::new(&options);
        Self { options, scanner, fields: Fields::default(), line: 0, has_header, has_ended: false }
    }

    /// Reads the row at the start of `data`, returns its bytes, `None` if it is not whole or there is none.
    #[inline]
    fn step(&mut self, data: &[u8], is_last: bool, rows: &mut Rows) -> Result<Option<usize>, CopyError> {
        if data.is_empty() {
            return Ok(None);
        }
        if self.has_ended {
            return Ok(Some(data.len()));
        }
        let line = self.line + 1;
        let found = self.scanner.find(data, is_last);
        let found = found.map_err(|error| CopyError::at_line(error, line + self.scanner.inner_lines()))?;
        let (end, next, has_special) = match found {
            Found::Row { end, next, has_special } => (end, next, has_special),
            Found::Marker { end, has_special } => {
                self.has_ended = true;
                if end == 0 {
                    return Ok(Some(data.len()));
                }
                (end, data.len(), has_special)
            }
            Found::More if is_last => (data.len(), data.len(), true),
            Found::More if data.len() > ROW_BYTES_MAX => return Err(CopyError::at_line(row_too_long(), line)),
            Found::More => return Ok(None),
        };
        self.line = line + self.scanner.inner_lines();
        self.scanner.start_row();
        self.row(&data[..next], end, has_special, rows)?;
        Ok(Some(next))
    }

    #[inline]
    fn row(&mut self, line: &[u8], end: usize, has_special: bool, rows: &mut Rows) -> Result<(), CopyError> {
        let text = string::check_within(line, end).map_err(|error| CopyError::at_line(error, self.line))?;
        if self.has_header {
            self.has_header = false;
            return self.header(text, has_special, rows).map_err(|error| self.in_line(error, text));
        }
        if let Err(error) = self.fields.split(text, has_special, &self.options) {
            return Err(self.in_line(error, text));
        }
        let count = self.fields.len();
        if count != rows.columns.len() {
            return self.wrong_count(text, rows);
        }
        for place in 0..count {
            self.convert(place, text, rows)?;
        }
        rows.finish_row(end).map_err(|error| self.in_line(error, text))
    }

    /// At the end of the data: a header that must match must have come.
    fn finish(&mut self, rows: &Rows) -> Result<(), CopyError> {
        if self.has_header && self.options.header == CopyHeader::Match && !self.has_ended {
            self.line += 1;
            return self.header("", false, rows).map_err(|error| self.in_line(error, ""));
        }
        Ok(())
    }

    /// Puts a field into its column.
    #[inline]
    fn convert(&self, place: usize, row: &str, rows: &mut Rows) -> Result<(), CopyError> {
        let null = self.options.null.as_str();
        let column = &mut rows.columns[place];
        let field = match self.fields.get(place, row, null) {
            None if column.force_not_null => Some(null),
            Some(field) if column.force_null && field == null => None,
            field => field,
        };
        match field {
            None => column.builder.push_null(),
            Some(field) => {
                if let Err(error) = column.builder.push_str(field, &rows.format) {
                    let mut error = CopyError::at_line(error, self.line);
                    error.column = Some(column.name.clone());
                    error.value = Some(field.to_owned());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// PostgreSQL sees too many fields before it converts any, and a missing one when it comes to it.
    #[cold]
    fn wrong_count(&self, row: &str, rows: &mut Rows) -> Result<(), CopyError> {
        let count = self.fields.len();
        let Some(missing) = rows.columns.get(count).map(|column| column.name.clone()) else {
            return Err(self.in_line(ValueError::new(BAD_COPY_FILE, "extra data after last expected column"), row));
        };
        for place in 0..count {
            self.convert(place, row, rows)?;
        }
        Err(self.in_line(ValueError::new(BAD_COPY_FILE, format!("missing data for column \"{missing}\"")), row))
    }

    #[cold]
    fn in_line(&self, error: ValueError, row: &str) -> CopyError {
        let mut error = CopyError::at_line(error, self.line);
        error.value = Some(row.to_owned());
        error
    }

    /// Skips the header, or checks that it names the columns.
    fn header(&mut self, row: &str, has_special: bool, rows: &Rows) -> Result<(), ValueError> {
        if self.options.header != CopyHeader::Match {
            return Ok(());
        }
        self.fields.split(row, has_special, &self.options)?;
        let (given, wanted) = (self.fields.len(), rows.columns.len());
        if given != wanted {
            let message = format!("wrong number of fields in header line: got {given}, expected {wanted}");
            return Err(ValueError::new(BAD_COPY_FILE, message));
        }
        for (place, column) in rows.columns.iter().enumerate() {
            let name = self.fields.get(place, row, &self.options.null);
            if name == Some(&column.name) {
                continue;
            }
            let got = match name {
                Some(name) => format!("got \"{name}\""),
                None => format!("got null value (\"{}\")", self.options.null),
            };
            let message =
                format!("column name mismatch in header line field {}: {got}, expected \"{}\"", place + 1, column.name);
            return Err(ValueError::new(BAD_COPY_FILE, message));
        }
        Ok(())
    }
}
