//! Texts that functions make out of less. How many bytes of them live at a time, in all statements of the process, is
//! bounded: `repeat('x', 1000000000)` is soon written, and would take the node down with all that others do there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, NullBufferBuilder, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use bytes::Bytes;
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err};
use datafusion::logical_expr::ColumnarValue;

/// PostgreSQL's longest value.
const VALUE_BYTES_MAX: usize = (1 << 30) - 1;
const DEFAULT_BYTES_MAX: usize = 128 << 20;
/// What a builder takes of the budget at a time.
const STEP_BYTES: usize = 64 << 10;
/// Values up to this length never are too many.
const SMALL_BYTES: usize = 1 << 10;

static BYTES_MAX: AtomicUsize = AtomicUsize::new(DEFAULT_BYTES_MAX);
static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Sets how many bytes of such texts may live at a time.
pub fn set_bytes_max(bytes: usize) {
    BYTES_MAX.store(bytes, Ordering::Relaxed);
}

/// Whether a value may stand in each of so many rows: a constant is copied for every one of them.
pub fn check_spread(value: &ScalarValue, rows: usize) -> Result<()> {
    if rows > 1 { check_bytes(value.size().saturating_mul(rows), rows) } else { Ok(()) }
}

/// An argument as a column; a constant is copied for every row only where there is room for it.
pub fn column_of(argument: &ColumnarValue, rows: usize) -> Result<ArrayRef> {
    if let ColumnarValue::Scalar(value) = argument {
        check_spread(value, rows)?;
    }
    argument.to_array(rows)
}

/// Whether so many bytes may be made for so many rows.
pub(crate) fn check_bytes(bytes: usize, rows: usize) -> Result<()> {
    let most = BYTES_MAX.load(Ordering::Relaxed);
    if bytes > most.max(SMALL_BYTES.saturating_mul(rows)) { Err(exhausted(most)) } else { Ok(()) }
}

fn exhausted(most: usize) -> DataFusionError {
    DataFusionError::ResourcesExhausted(format!(
        "Texts and arrays that functions make may take {} MiB at a time.",
        most >> 20
    ))
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug, Default)]
struct Share(usize);

impl Share {
    fn grow(&mut self, bytes: usize) -> Result<()> {
        let most = BYTES_MAX.load(Ordering::Relaxed);
        let add = |live: usize| live.checked_add(bytes).filter(|live| *live <= most);
        match LIVE_BYTES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => {
                self.0 += bytes;
                Ok(())
            }
            Err(_) => Err(exhausted(most)),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        LIVE_BYTES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Texts in the making, value after value.
#[derive(Debug)]
pub(crate) struct Texts {
    bytes: Vec<u8>,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
    share: Share,
}

impl Texts {
    pub(crate) fn with_rows(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { bytes: Vec::new(), offsets, nulls: NullBufferBuilder::new(rows), share: Share::default() }
    }

    /// Makes room for so many bytes of the value in the making; before anything is made of them.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<()> {
        let begun = self.offsets.last().map_or(0, |start| self.bytes.len() - *start as usize);
        if begun.saturating_add(bytes) > VALUE_BYTES_MAX {
            return exec_err!("requested length too large");
        }
        let wanted = self.bytes.len().saturating_add(bytes);
        if wanted > i32::MAX as usize {
            return exec_err!("requested length too large");
        }
        if wanted > self.share.0 {
            self.share.grow((wanted - self.share.0).next_multiple_of(STEP_BYTES))?;
        }
        Ok(())
    }

    /// Adds to the value in the making.
    pub(crate) fn push(&mut self, text: &str) -> Result<()> {
        self.reserve(text.len())?;
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// Adds it so many times.
    pub(crate) fn push_repeated(&mut self, text: &str, count: usize) -> Result<()> {
        self.reserve(text.len().saturating_mul(count))?;
        if let [byte] = text.as_bytes() {
            self.bytes.resize(self.bytes.len() + count, *byte);
        } else {
            self.bytes.extend_from_slice(text.repeat(count).as_bytes());
        }
        Ok(())
    }

    pub(crate) fn end_value(&mut self) {
        // It was reserved within them.
        self.offsets.push(self.bytes.len() as i32);
        self.nulls.append_non_null();
    }

    pub(crate) fn push_null(&mut self) {
        self.offsets.push(self.bytes.len() as i32);
        self.nulls.append_null();
    }

    pub(crate) fn finish(mut self) -> Result<ArrayRef> {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        let values = Buffer::from(Bytes::from_owner(Owner { bytes: self.bytes, _share: self.share }));
        Ok(Arc::new(StringArray::try_new(offsets, values, self.nulls.finish())?))
    }
}

/// Bytes that lie in an array; their share of the budget lives as long as they do.
struct Owner {
    bytes: Vec<u8>,
    _share: Share,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};

    use super::*;

    #[test]
    fn texts_are_made_value_after_value() {
        let mut texts = Texts::with_rows(3);
        texts.push("a").unwrap();
        texts.push("b").unwrap();
        texts.end_value();
        texts.push_null();
        texts.end_value();
        let array = texts.finish().unwrap();
        let array = array.as_string::<i32>();
        assert_eq!(array.iter().collect::<Vec<_>>(), [Some("ab"), None, Some("")]);
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_made() {
        let mut texts = Texts::with_rows(1);
        assert!(matches!(texts.reserve(2 << 30), Err(DataFusionError::Execution(_))));
        assert!(matches!(texts.reserve(900 << 20), Err(DataFusionError::ResourcesExhausted(_))));
        texts.push("still works").unwrap();
        texts.end_value();
        assert_eq!(texts.finish().unwrap().len(), 1);
    }
}
