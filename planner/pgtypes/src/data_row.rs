//! The rows of a batch as DataRow messages.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use crate::encoder::{Encoder, SHORT_BYTES};

/// Short fields are put together in so many bytes before they are appended.
const WINDOW_BYTES: usize = 2048;
/// Kind and length.
const HEAD_BYTES: usize = 5;

/// Texts must stay the same for so many rows, or their fields are written one by one.
const STEADY_ROWS_MIN: usize = 8;
/// Rows after which texts are looked at again.
const STEADY_ROWS_MAX: usize = 1024;

/// Writes rows whose columns have a format each.
pub struct DataRowWriter {
    columns: Vec<ColumnWriter>,
    /// In order.
    steady: Vec<Steady>,
    window: Box<[u8; WINDOW_BYTES]>,
}

/// A column and how its values travel.
pub struct ColumnWriter {
    pub values: Encoder,
    pub is_binary: bool,
}

/// Neighbouring columns of texts: those that describe a series are the same for many rows, and are copied as one.
struct Steady {
    columns: Range<usize>,
    /// The fields in the rows before `until`; empty where they are written one by one.
    fields: BytesMut,
    until: usize,
}

impl Steady {
    /// The stretches of texts among the columns.
    fn among(columns: &[ColumnWriter]) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        for (at, _) in columns.iter().enumerate().filter(|(_, column)| column.values.is_text_without_nulls()) {
            match found.last_mut() {
                Some(last) if last.columns.end == at => last.columns.end += 1,
                _ => found.push(Self { columns: at..at + 1, fields: BytesMut::new(), until: 0 }),
            }
        }
        found
    }

    /// The fields of the row, where they are those of many rows.
    #[inline]
    fn fields(&mut self, row: usize, columns: &[ColumnWriter]) -> &[u8] {
        if row >= self.until {
            self.look(row, &columns[self.columns.clone()]);
        }
        &self.fields
    }

    fn look(&mut self, row: usize, columns: &[ColumnWriter]) {
        let rows = columns.iter().fold(STEADY_ROWS_MAX, |rows, column| column.values.same_texts(row, rows));
        self.fields.clear();
        self.until = row + rows.max(STEADY_ROWS_MIN);
        if rows >= STEADY_ROWS_MIN {
            // Text in binary is the same.
            columns.iter().for_each(|column| column.values.text_field(row, &mut self.fields));
        }
    }
}

impl DataRowWriter {
    #[must_use]
    pub fn new(columns: Vec<ColumnWriter>) -> Self {
        Self { steady: Steady::among(&columns), columns, window: Box::new([0; WINDOW_BYTES]) }
    }

    /// Appends the message of a row. Rows come in their order.
    pub fn write(&mut self, row: usize, out: &mut BytesMut) {
        let start = out.len();
        let column_count = u16::try_from(self.columns.len()).unwrap_or(u16::MAX).to_be_bytes();
        self.window[..HEAD_BYTES + 2].copy_from_slice(&[b'D', 0, 0, 0, 0, column_count[0], column_count[1]]);
        let mut filled = HEAD_BYTES + 2;
        let mut next = 0;
        for steady in &mut self.steady {
            let Range { start: first, end } = steady.columns;
            let fields = steady.fields(row, &self.columns);
            if fields.is_empty() {
                continue;
            }
            filled = write_fields(&self.columns[next..first], row, (&mut self.window, filled), out);
            next = end;
            match self.window[filled..].get_mut(..fields.len()) {
                Some(room) => {
                    room.copy_from_slice(fields);
                    filled += fields.len();
                }
                None => {
                    out.put_slice(&self.window[..filled]);
                    out.put_slice(fields);
                    filled = 0;
                }
            }
        }
        filled = write_fields(&self.columns[next..], row, (&mut self.window, filled), out);
        out.put_slice(&self.window[..filled]);
        // Values come from batches of at most some thousand rows; 4 GiB in one row cannot arise before memory ends.
        let length = u32::try_from(out.len() - start - 1).unwrap_or(u32::MAX);
        out[start + 1..start + HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends fields to what the window is filled with, or empties it first; returns how far it is filled then.
#[inline]
fn write_fields(
    columns: &[ColumnWriter],
    row: usize,
    (window, mut filled): (&mut [u8; WINDOW_BYTES], usize),
    out: &mut BytesMut,
) -> usize {
    for column in columns {
        if filled > WINDOW_BYTES - SHORT_BYTES {
            out.put_slice(&window[..filled]);
            filled = 0;
        }
        let short = window[filled..].first_chunk_mut().filter(|_| !column.is_binary);
        if let Some(length) = short.and_then(|short| column.values.short_text_field(row, short)) {
            filled += length;
            continue;
        }
        out.put_slice(&window[..filled]);
        filled = 0;
        if column.is_binary {
            column.values.binary_field(row, out);
        } else {
            column.values.text_field(row, out);
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use meridian_proto::SqlType;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::Format;

    /// What each column writes by itself, put together.
    fn expected(columns: &[ColumnWriter], row: usize) -> Vec<u8> {
        let mut fields = BytesMut::new();
        for column in columns {
            let write = if column.is_binary { Encoder::binary_field } else { Encoder::text_field };
            write(&column.values, row, &mut fields);
        }
        let mut message = vec![b'D'];
        message.extend_from_slice(&(fields.len() as u32 + 6).to_be_bytes());
        message.extend_from_slice(&(columns.len() as u16).to_be_bytes());
        message.extend_from_slice(&fields);
        message
    }

    /// Texts that change every so many rows, now and then to one of the same length.
    fn texts(random: &mut StdRng, rows: usize) -> StringArray {
        let (every, longest) = (random.random_range(1..400), [3, 40, 900][random.random_range(0..3)]);
        let has_nulls = random.random_ratio(1, 5);
        let mut text = String::new();
        let values = (0..rows).map(|row| {
            if row % every == 0 {
                let length = if random.random() { text.len() } else { random.random_range(0..longest) };
                text = (0..length).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect();
            }
            (!has_nulls || row % 7 > 0).then(|| text.clone())
        });
        values.collect()
    }

    #[test]
    fn rows_are_the_fields_of_their_columns_whether_or_not_texts_stay_the_same() {
        let mut random = StdRng::seed_from_u64(1);
        let format = Format::default();
        for _ in 0..200 {
            let rows = random.random_range(1..3000);
            let first = random.random_range(0..rows);
            let column = |random: &mut StdRng| {
                let (sql_type, array): (_, ArrayRef) = match random.random_ratio(2, 3) {
                    true => (SqlType::Text, Arc::new(texts(random, rows))),
                    false => (SqlType::Int8, Arc::new(Int64Array::from_iter_values(0..rows as i64))),
                };
                let array = array.slice(first, rows - first);
                ColumnWriter { values: Encoder::new(&sql_type, &array, &format), is_binary: random.random() }
            };
            let mut writer = DataRowWriter::new((0..6).map(|_| column(&mut random)).collect());
            let (mut out, mut wanted) = (BytesMut::new(), Vec::new());
            for row in 0..rows - first {
                writer.write(row, &mut out);
                wanted.extend(expected(&writer.columns, row));
            }
            assert!(out == wanted);
        }
    }
}
