//! The newest time that a search for last points has found of each series, so that older row groups need not be read.

use std::collections::HashMap;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::Int64Type;
use arrow::row::{RowConverter, Rows, SortField};

/// Series that are remembered: 1 Mi of 60 bytes each are 60 MiB, for the length of one query. Others are read.
const SERIES_MAX: usize = 1 << 20;

/// Grows while a search goes on, from chunk to chunk.
#[derive(Default)]
pub struct Newest {
    converter: Option<RowConverter>,
    times: HashMap<Box<[u8]>, i64>,
}

impl Newest {
    /// Whether all these series were found at a later time than `upto`.
    #[must_use]
    pub fn has_all_after(&mut self, keys: &[ArrayRef], series: usize, upto: i64) -> bool {
        if self.times.is_empty() {
            return false;
        }
        let Some(rows) = self.rows(keys) else { return false };
        let is_later = |key: &[u8]| self.times.get(key).is_some_and(|time| *time > upto);
        match rows {
            Some(rows) => rows.iter().all(|row| is_later(row.as_ref())),
            None => series == 0 || is_later(&[]),
        }
    }

    /// Remembers that rows of these series were found at these times.
    pub fn note(&mut self, keys: &[ArrayRef], times: &ArrayRef) {
        let Some(times) = super::runs::integers(times) else { return };
        let times = times.as_primitive::<Int64Type>().values();
        let Some(rows) = self.rows(keys) else { return };
        for (row, time) in times.iter().enumerate() {
            let row = rows.as_ref().map(|rows| rows.row(row));
            let key: &[u8] = row.as_ref().map_or(&[], AsRef::as_ref);
            if let Some(known) = self.times.get_mut(key) {
                *known = (*known).max(*time);
            } else if self.times.len() < SERIES_MAX {
                self.times.insert(key.into(), *time);
            }
        }
    }

    /// Keys as bytes; the inner `None` when there are no key columns, the outer one when they cannot be converted.
    fn rows(&mut self, keys: &[ArrayRef]) -> Option<Option<Rows>> {
        if keys.is_empty() {
            return Some(None);
        }
        let converter = match &self.converter {
            Some(converter) => converter,
            None => {
                let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
                self.converter.insert(RowConverter::new(fields).ok()?)
            }
        };
        converter.convert_columns(keys).ok().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn hosts(names: &[Option<&str>]) -> Vec<ArrayRef> {
        vec![Arc::new(names.iter().copied().collect::<StringArray>())]
    }

    #[test]
    fn series_are_found_by_all_key_columns_and_null_is_one() {
        let mut newest = Newest::default();
        let all = hosts(&[Some("a"), None]);
        assert!(!newest.has_all_after(&all, 2, 0));
        newest.note(&hosts(&[Some("a"), Some("a")]), &(Arc::new(TimestampMicrosecondArray::from(vec![9, 5])) as _));
        assert!(newest.has_all_after(&hosts(&[Some("a")]), 1, 8));
        assert!(!newest.has_all_after(&hosts(&[Some("a")]), 1, 9), "an equal time may be in both");
        assert!(!newest.has_all_after(&all, 2, 0));
        newest.note(&hosts(&[None]), &(Arc::new(Int64Array::from(vec![1])) as _));
        assert!(newest.has_all_after(&all, 2, 0));
    }

    #[test]
    fn without_key_columns_everything_is_one_series() {
        let mut newest = Newest::default();
        newest.note(&[], &(Arc::new(Int64Array::from(vec![7, 3])) as _));
        assert!(newest.has_all_after(&[], 5, 6));
        assert!(!newest.has_all_after(&[], 5, 7));
    }
}
