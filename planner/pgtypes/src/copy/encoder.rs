//! Record batches into COPY data.

use arrow::array::RecordBatch;
use bytes::{BufMut, Bytes, BytesMut};
use meridian_proto::SqlType;

use super::binary::SIGNATURE;
use super::options::{CopyFormat, CopyHeader, CopyOptions};
use crate::encoder::Encoder;
use crate::format::Format;

/// Writes COPY data, one message per row as clients expect it.
pub struct CopyEncoder {
    options: CopyOptions,
    columns: Vec<(String, SqlType)>,
    format: Format,
    /// Columns whose values are always quoted.
    force_quote: Vec<bool>,
    /// Bytes that a value cannot hold without quotes (csv) or a backslash (text).
    is_special: [bool; 256],
    has_header: bool,
    /// Bytes of a message, by the last one.
    message_bytes: usize,
}

impl CopyEncoder {
    #[must_use]
    pub fn new(options: CopyOptions, columns: &[(String, SqlType)], format: Format) -> Self {
        let mut is_special = [false; 256];
        let special: &[u8] = match options.format {
            CopyFormat::Csv => &[options.delimiter, options.quote, b'\n', b'\r'],
            _ => &[options.delimiter, b'\\', 0x8, 0x9, 0xa, 0xb, 0xc, 0xd],
        };
        for byte in special {
            is_special[usize::from(*byte)] = true;
        }
        Self {
            force_quote: columns.iter().map(|(name, _)| options.force_quote.contains(name)).collect(),
            options,
            columns: columns.to_vec(),
            format,
            is_special,
            has_header: false,
            message_bytes: 128,
        }
    }

    /// Appends the payloads of CopyData messages for a batch, the header before the first.
    pub fn encode(&mut self, batch: &RecordBatch, messages: &mut Vec<Bytes>) {
        let encoders: Vec<Encoder> = self
            .columns
            .iter()
            .zip(batch.columns())
            .map(|((_, sql_type), array)| Encoder::new(sql_type, array, &self.format))
            .collect();
        let mut out = BytesMut::with_capacity(self.message_bytes * batch.num_rows().min(1024));
        for row in 0..batch.num_rows() {
            self.header(&mut out, messages);
            match self.options.format {
                CopyFormat::Binary => write_binary_row(&encoders, row, &mut out),
                CopyFormat::Text | CopyFormat::Csv => self.write_line(&encoders, row, &mut out),
            }
            self.message_bytes = out.len();
            messages.push(out.split().freeze());
        }
    }

    /// Appends what ends the data; the header too if there were no rows.
    pub fn finish(&mut self, messages: &mut Vec<Bytes>) {
        let mut out = BytesMut::new();
        self.header(&mut out, messages);
        if self.options.format == CopyFormat::Binary {
            out.put_i16(-1);
            messages.push(out.freeze());
        }
    }

    /// Writes the header once: in text and csv as a message, in binary in front of the next one, where clients look for it.
    fn header(&mut self, out: &mut BytesMut, messages: &mut Vec<Bytes>) {
        if std::mem::replace(&mut self.has_header, true) {
            return;
        }
        if self.options.format == CopyFormat::Binary {
            out.put_slice(SIGNATURE);
            out.put_i32(0);
            return out.put_i32(0);
        }
        if self.options.header == CopyHeader::None {
            return;
        }
        for (place, (name, _)) in self.columns.iter().enumerate() {
            if place > 0 {
                out.put_u8(self.options.delimiter);
            }
            let start = out.len();
            out.put_slice(name.as_bytes());
            self.protect(start, false, out);
        }
        out.put_u8(b'\n');
        messages.push(out.split().freeze());
    }

    fn write_line(&self, encoders: &[Encoder], row: usize, out: &mut BytesMut) {
        for (place, encoder) in encoders.iter().enumerate() {
            if place > 0 {
                out.put_u8(self.options.delimiter);
            }
            if encoder.is_null(row) {
                out.put_slice(self.options.null.as_bytes());
                continue;
            }
            let start = out.len();
            encoder.text(row, out);
            self.protect(start, self.force_quote[place], out);
        }
        out.put_u8(b'\n');
    }

    /// Puts quotes or escapes around and into the value at the end of `out`, where it needs them.
    fn protect(&self, start: usize, force_quote: bool, out: &mut BytesMut) {
        let value = &out[start..];
        let has_special = value.iter().any(|byte| self.is_special[usize::from(*byte)]);
        if self.options.format == CopyFormat::Text {
            if has_special {
                let value = out.split_off(start);
                self.write_escaped(&value, out);
            }
            return;
        }
        // `\.` alone on a line would end the data.
        let is_marker = self.columns.len() == 1 && value == b"\\.";
        if has_special || force_quote || is_marker || value == self.options.null.as_bytes() {
            let value = out.split_off(start);
            self.write_quoted(&value, out);
        }
    }

    fn write_escaped(&self, value: &[u8], out: &mut BytesMut) {
        for &byte in value {
            if !self.is_special[usize::from(byte)] {
                out.put_u8(byte);
                continue;
            }
            out.put_u8(b'\\');
            out.put_u8(match byte {
                0x8 => b'b',
                0x9 => b't',
                0xa => b'n',
                0xb => b'v',
                0xc => b'f',
                0xd => b'r',
                other => other,
            });
        }
    }

    fn write_quoted(&self, value: &[u8], out: &mut BytesMut) {
        let CopyOptions { quote, escape, .. } = self.options;
        out.put_u8(quote);
        for &byte in value {
            if byte == quote || byte == escape {
                out.put_u8(escape);
            }
            out.put_u8(byte);
        }
        out.put_u8(quote);
    }
}

fn write_binary_row(encoders: &[Encoder], row: usize, out: &mut BytesMut) {
    // PostgreSQL has at most 1600 columns; more than the count can tell cannot be planned.
    out.put_i16(i16::try_from(encoders.len()).unwrap_or(i16::MAX));
    for encoder in encoders {
        encoder.binary_field(row, out);
    }
}
