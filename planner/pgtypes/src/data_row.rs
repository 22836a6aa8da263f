//! The rows of a batch as DataRow messages.

use bytes::{BufMut, BytesMut};

use crate::encoder::{Encoder, SHORT_BYTES};

/// Short fields are put together in so many bytes before they are appended.
const WINDOW_BYTES: usize = 2048;
/// Kind and length.
const HEAD_BYTES: usize = 5;

/// Writes rows whose columns have a format each.
pub struct DataRowWriter {
    columns: Vec<ColumnWriter>,
    window: Box<[u8; WINDOW_BYTES]>,
}

/// A column and how its values travel.
pub struct ColumnWriter {
    pub values: Encoder,
    pub is_binary: bool,
}

impl DataRowWriter {
    #[must_use]
    pub fn new(columns: Vec<ColumnWriter>) -> Self {
        Self { columns, window: Box::new([0; WINDOW_BYTES]) }
    }

    /// Appends the message of a row.
    pub fn write(&mut self, row: usize, out: &mut BytesMut) {
        let start = out.len();
        let column_count = u16::try_from(self.columns.len()).unwrap_or(u16::MAX).to_be_bytes();
        self.window[..HEAD_BYTES + 2].copy_from_slice(&[b'D', 0, 0, 0, 0, column_count[0], column_count[1]]);
        let mut filled = HEAD_BYTES + 2;
        for column in &self.columns {
            if filled > WINDOW_BYTES - SHORT_BYTES {
                out.put_slice(&self.window[..filled]);
                filled = 0;
            }
            let short = self.window[filled..].first_chunk_mut().filter(|_| !column.is_binary);
            if let Some(length) = short.and_then(|short| column.values.short_text_field(row, short)) {
                filled += length;
                continue;
            }
            out.put_slice(&self.window[..filled]);
            filled = 0;
            if column.is_binary {
                column.values.binary_field(row, out);
            } else {
                column.values.text_field(row, out);
            }
        }
        out.put_slice(&self.window[..filled]);
        // Values come from batches of at most some thousand rows; 4 GiB in one row cannot arise before memory ends.
        let length = u32::try_from(out.len() - start - 1).unwrap_or(u32::MAX);
        out[start + 1..start + HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
    }
}
