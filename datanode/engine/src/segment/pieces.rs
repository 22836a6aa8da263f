//! Pieces of a row group: maximal runs of rows of one series and one aligned bucket of time, and what is known of each
//! column in them. They say where a range of time lies without reading times, and answer aggregates over buckets without
//! reading values; whether their rows are seen is the reader's question (R30).

use std::ops::Range;
use std::rc::Rc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, Int64Type};
use meridian_proto::schema::Column;
use meridian_proto::types::{NUMERIC_UNLIMITED, SqlType};

use super::bundle;
use super::decode;
use super::encode::ColumnEncoder;
use super::encoding::Flaw;
use super::footer::ArchivedFooterPieces;
use super::page_cache::Held;
use super::reader::{PagePlace, SegmentReader, What};
use crate::disk::DiskFile;
use crate::error::EngineError;

/// Where the pieces of a row group lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Of a bucket, in microseconds. Buckets begin at multiples of it since 1970-01-01 00:00 UTC: for the widths that are
    /// written, up to a day, those are the buckets of `time_bucket` with its own origin, too.
    pub width_us: i64,
    /// First row of each piece, ascending from 0. A series begins with a piece.
    pub starts: Vec<u32>,
    /// Start of each piece's bucket, in microseconds since 1970.
    pub buckets: Vec<i64>,
    /// Of the row group.
    pub rows: usize,
}

impl Pieces {
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The rows of a piece.
    #[must_use]
    pub fn rows_of(&self, piece: usize) -> Range<usize> {
        let end = self.starts.get(piece + 1).map_or(self.rows, |start| *start as usize);
        self.starts[piece] as usize..end
    }

    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.starts.len() * 4 + self.buckets.len() * 8
    }

    /// Appends the directory, without a checksum: rows of the pieces, numbers of their buckets.
    pub(super) fn encode(&self, encoder: &mut ColumnEncoder, out: &mut Vec<u8>) -> Result<(), EngineError> {
        let lengths: Int64Array = (0..self.len()).map(|piece| Some(self.rows_of(piece).len() as i64)).collect();
        let numbers: Int64Array = self.buckets.iter().map(|bucket| Some(bucket / self.width_us)).collect();
        for numbers in [lengths, numbers] {
            let array: ArrayRef = std::sync::Arc::new(numbers);
            bundle::write_part(out, |out| encoder.encode(&array, &SqlType::Int8, out).map(drop))?;
        }
        Ok(())
    }

    /// Reads the directory of so many pieces.
    pub(super) fn decode(bytes: &[u8], width_us: i64, count: usize, rows: usize) -> Result<Self, Flaw> {
        let [lengths, numbers] = bundle::parts(bytes)?;
        let (lengths, numbers) = lengths.zip(numbers).ok_or(Flaw("a directory of pieces is not complete"))?;
        let lengths = decode::decode_page(lengths, &SqlType::Int8, count)?;
        let numbers = decode::decode_page(numbers, &SqlType::Int8, count)?;
        let impossible = Flaw("a directory of pieces does not fit its row group");
        if lengths.null_count() > 0 || numbers.null_count() > 0 {
            return Err(impossible);
        }
        let mut starts = Vec::with_capacity(count);
        let mut end = 0usize;
        for length in lengths.as_primitive::<Int64Type>().values() {
            starts.push(end as u32);
            let length = usize::try_from(*length).ok().filter(|length| (1..=rows - end).contains(length));
            end += length.ok_or(impossible)?;
        }
        let buckets = numbers.as_primitive::<Int64Type>().values().iter().map(|number| number.checked_mul(width_us));
        let buckets = buckets.collect::<Option<Vec<_>>>().ok_or(impossible)?;
        if end == rows { Ok(Self { width_us, starts, buckets, rows }) } else { Err(impossible) }
    }
}

/// What is known of a column in each piece: one entry per piece in every array.
#[derive(Clone, Debug)]
pub struct PieceColumn {
    /// Values that are not NULL.
    pub counts: Int64Array,
    /// Sums of those values, NULL where there are none: i64 of integers, f64 of floats, added in the order of rows, numerics
    /// of 38 digits of numerics. `None` of times, and where a sum does not fit.
    pub sums: Option<ArrayRef>,
    /// Of the column's type; NULL where there are no values.
    pub mins: ArrayRef,
    pub maxs: ArrayRef,
    /// The column's value in the row with the least and the greatest time, which may be NULL; of several such rows, in the
    /// one that came first.
    pub firsts: ArrayRef,
    pub lasts: ArrayRef,
    /// Pieces of which sums, least and greatest values are as decoding the rows would give them; `None`: all. Not so where
    /// a float is NaN, infinite or -0.0, or a sum of floats overflows. Counts, firsts and lasts always are.
    pub known: Option<BooleanBuffer>,
}

impl PieceColumn {
    #[must_use]
    pub fn is_known(&self, piece: usize) -> bool {
        self.known.as_ref().is_none_or(|known| known.value(piece))
    }

    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let arrays = [&self.mins, &self.maxs, &self.firsts, &self.lasts];
        let values = arrays.into_iter().chain(&self.sums).map(|array| array.get_array_memory_size()).sum::<usize>();
        size_of::<Self>() + self.counts.get_array_memory_size() + values
    }

    /// Appends the statistics of a column of that type, without a checksum.
    pub(super) fn encode(
        &self,
        sql_type: &SqlType,
        encoder: &mut ColumnEncoder,
        out: &mut Vec<u8>,
    ) -> Result<(), EngineError> {
        let counts: ArrayRef = std::sync::Arc::new(self.counts.clone());
        let known = self
            .known
            .clone()
            .map(|known| -> ArrayRef { std::sync::Arc::new(arrow::array::BooleanArray::new(known, None)) });
        // Of times, the least and the greatest are the first and the last.
        let (firsts, lasts) = if is_time(sql_type) { (None, None) } else { (Some(&self.firsts), Some(&self.lasts)) };
        let parts = [
            (Some(&counts), &SqlType::Int8),
            (self.sums.as_ref(), &sum_type(sql_type)),
            (Some(&self.mins), sql_type),
            (Some(&self.maxs), sql_type),
            (firsts, sql_type),
            (lasts, sql_type),
            (known.as_ref(), &SqlType::Bool),
        ];
        for (array, sql_type) in parts {
            let write = |out: &mut Vec<u8>| match array {
                Some(array) => encoder.encode(array, sql_type, out).map(drop),
                None => Ok(()),
            };
            bundle::write_part(out, write)?;
        }
        Ok(())
    }

    /// Reads the statistics of a column of that type in so many pieces.
    pub(super) fn decode(bytes: &[u8], sql_type: &SqlType, count: usize) -> Result<Self, Flaw> {
        let [counts, sums, mins, maxs, firsts, lasts, known] = bundle::parts(bytes)?;
        let array = |part: Option<&[u8]>, sql_type: &SqlType| {
            part.map(|part| decode::decode_page(part, sql_type, count)).transpose()
        };
        let missing = Flaw("statistics of pieces are not complete");
        let (mins, maxs) = (array(mins, sql_type)?.ok_or(missing)?, array(maxs, sql_type)?.ok_or(missing)?);
        let counts = array(counts, &SqlType::Int8)?.ok_or(missing)?;
        let known = array(known, &SqlType::Bool)?;
        if counts.null_count() > 0 || known.as_ref().is_some_and(|known| known.null_count() > 0) {
            return Err(missing);
        }
        Ok(Self {
            counts: counts.as_primitive::<Int64Type>().clone(),
            sums: array(sums, &sum_type(sql_type))?,
            firsts: array(firsts, sql_type)?.unwrap_or_else(|| ArrayRef::clone(&mins)),
            lasts: array(lasts, sql_type)?.unwrap_or_else(|| ArrayRef::clone(&maxs)),
            mins,
            maxs,
            known: known.map(|known| known.as_boolean().values().clone()),
        })
    }
}

pub(super) fn is_time(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::Timestamp | SqlType::Timestamptz)
}

/// Of the sums of a column.
pub(super) fn sum_type(sql_type: &SqlType) -> SqlType {
    match sql_type {
        SqlType::Float4 | SqlType::Float8 => SqlType::Float8,
        SqlType::Numeric(limits) => {
            let (_, scale) = limits.unwrap_or(NUMERIC_UNLIMITED);
            SqlType::Numeric(Some((DECIMAL128_MAX_PRECISION, scale)))
        }
        _ => SqlType::Int8,
    }
}

impl<F: DiskFile> SegmentReader<F> {
    /// The pieces of a row group; `None` where the file knows none.
    pub async fn pieces(&self, row_group: usize) -> Result<Option<Rc<Pieces>>, EngineError> {
        let Some(footer) = self.footer().pieces(row_group) else { return Ok(None) };
        let place = PagePlace::of_bundle(&footer.directory, What::Pieces { row_group });
        if let Some(Held::Pieces(pieces)) = self.held(place) {
            return Ok(Some(pieces));
        }
        let stored = self.load(vec![place], false).await?;
        let rows = self.row_group(row_group).rows;
        let pieces =
            Pieces::decode(stored.get(place), footer.width_us.to_native(), footer.count.to_native() as usize, rows);
        let pieces = Rc::new(pieces.map_err(|flaw| self.damage(place, flaw.0))?);
        self.hold(place, &Held::Pieces(Rc::clone(&pieces)));
        Ok(Some(pieces))
    }

    /// What is known of a column in each piece; `None` without pieces and for other types than integers, floats, numerics
    /// and the time that rows are sorted by.
    pub async fn piece_statistics(
        &self,
        row_group: usize,
        column: &Column,
    ) -> Result<Option<Rc<PieceColumn>>, EngineError> {
        Ok(self.piece_columns(row_group, std::slice::from_ref(column)).await?.pop().flatten())
    }

    /// As [`Self::piece_statistics`], of several columns with few reads.
    pub async fn piece_columns(
        &self,
        row_group: usize,
        columns: &[Column],
    ) -> Result<Vec<Option<Rc<PieceColumn>>>, EngineError> {
        let Some(footer) = self.footer().pieces(row_group) else { return Ok(vec![None; columns.len()]) };
        let mut found = Vec::with_capacity(columns.len());
        let mut missing = Vec::new();
        for (at, column) in columns.iter().enumerate() {
            let Some(place) = self.piece_place(row_group, footer, column) else {
                found.push(None);
                continue;
            };
            match self.held(place) {
                Some(Held::PieceColumn(column)) => found.push(Some(column)),
                _ => {
                    found.push(None);
                    missing.push((at, place));
                }
            }
        }
        let stored = self.load(missing.iter().map(|(_, place)| *place).collect(), false).await?;
        for (at, place) in missing {
            let count = footer.count.to_native() as usize;
            let column = PieceColumn::decode(stored.get(place), &columns[at].sql_type, count);
            let column = Rc::new(column.map_err(|flaw| self.damage(place, flaw.0))?);
            self.hold(place, &Held::PieceColumn(Rc::clone(&column)));
            found[at] = Some(column);
        }
        Ok(found)
    }

    /// Where a column's statistics are; `None` when it has none, or is of another type in the file.
    fn piece_place(&self, row_group: usize, footer: &ArchivedFooterPieces, column: &Column) -> Option<PagePlace> {
        let position = self.position_of(column.id)?;
        if self.footer().columns()[position].1 != column.sql_type {
            return None;
        }
        let of = footer.columns.iter().find(|of| usize::from(of.position.to_native()) == position)?;
        Some(PagePlace::of_bundle(&of.place, What::PieceColumn { row_group, column: column.id }))
    }
}
