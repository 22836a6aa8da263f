//! A page becomes a column again: an Arrow array of exactly the type that [`SqlType::arrow`] names.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, FixedSizeBinaryArray, ListArray, PrimitiveArray,
    StringArray, UInt32Array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use meridian_proto::types::SqlType;

use super::encoding::bytes::{self, Decoded};
use super::encoding::decimal::{self, Float};
use super::encoding::plain::{self, Fixed};
use super::encoding::selection::Selection;
use super::encoding::{DECODED_BYTES_MAX, Encoding, Flaw, Input, bitmap, check_decoded_bytes};
use super::encoding::{constant, dictionary, integers, real, split};
use super::page::{Parts, unframe};

const WRONG_ENCODING: Flaw = Flaw("the page's encoding does not fit the column's type");

/// Decodes a page (without its checksum) of `rows` values.
pub fn decode_page(page: &[u8], sql_type: &SqlType, rows: usize) -> Result<ArrayRef, Flaw> {
    decode_rows(page, sql_type, &Selection::new(rows, std::slice::from_ref(&(0..rows))))
}

/// Decodes the wanted rows of a page (without its checksum).
pub fn decode_rows(page: &[u8], sql_type: &SqlType, selection: &Selection<'_>) -> Result<ArrayRef, Flaw> {
    let values_max = values_bytes_max(sql_type, selection.rows());
    let Parts { encoding, mask, values } = unframe(page, selection.rows(), values_max)?;
    if encoding == Encoding::Null {
        // Offsets and values of NULLs take memory too: at most 16 bytes each.
        check_decoded_bytes(selection.count(), 16)?;
        return Ok(new_null_array(&sql_type.arrow(), selection.count()));
    }
    let nulls = mask.map(|mask| BooleanBuffer::new(mask.into(), 0, selection.rows()));
    let mut input = Input::new(&values);
    if let SqlType::Array(element) = sql_type {
        if encoding != Encoding::List {
            return Err(WRONG_ENCODING);
        }
        return lists(&mut input, selection, element, nulls.map(NullBuffer::new));
    }
    let nulls = nulls.map(|nulls| NullBuffer::new(selection.pick_bits(nulls)));
    let mut page = Page { encoding, selection, nulls, input };
    let array = page.array(sql_type)?;
    page.input.finish()?;
    Ok(array)
}

/// Decodes the wanted rows of a page of texts or bytes that is a dictionary.
pub fn decode_terms(page: &[u8], sql_type: &SqlType, selection: &Selection<'_>) -> Result<Terms, Flaw> {
    let values_max = values_bytes_max(sql_type, selection.rows());
    let Parts { encoding, mask, values } = unframe(page, selection.rows(), values_max)?;
    if !matches!(encoding, Encoding::Dictionary | Encoding::Terms) {
        return Err(WRONG_ENCODING);
    }
    let nulls = mask.map(|mask| BooleanBuffer::new(mask.into(), 0, selection.rows()));
    let nulls = nulls.map(|nulls| NullBuffer::new(selection.pick_bits(nulls)));
    let mut input = Input::new(&values);
    let codes = dictionary::decode_codes(encoding, &mut input, selection)?;
    input.finish()?;
    Ok(Terms { entries: bytes_array(codes.entries, sql_type, None)?, codes: codes.rows.into_each(), nulls })
}

/// Decodes the wanted rows of a page of commit timestamps.
pub fn decode_commits(page: &[u8], selection: &Selection<'_>) -> Result<Vec<u64>, Flaw> {
    let values_max = values_bytes_max(&SqlType::Int8, selection.rows());
    let Parts { encoding, mask, values } = unframe(page, selection.rows(), values_max)?;
    if mask.is_some() {
        return Err(Flaw("commit timestamps are never NULL"));
    }
    let input = Input::new(&values);
    let mut page = Page { encoding, selection, nulls: None, input };
    let commits = page.integers(|commit| commit)?;
    page.input.finish()?;
    Ok(commits.into_iter().map(|commit| commit as u64).collect())
}

/// The elements are decoded as a whole.
fn lists(
    input: &mut Input<'_>,
    selection: &Selection<'_>,
    element: &SqlType,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, Flaw> {
    let offsets = bytes::decode_offsets(input, selection.rows())?;
    let elements = offsets.last().copied().unwrap_or(0) as usize;
    let values = decode_page(input.rest(), element, elements)?;
    let field = Arc::new(Field::new("item", element.arrow(), true));
    let array = ListArray::try_new(field, OffsetBuffer::new(offsets.into()), values, nulls);
    let array: ArrayRef = Arc::new(array.map_err(|_| Flaw("the elements do not make up lists"))?);
    if selection.is_whole() {
        return Ok(array);
    }
    let rows = UInt32Array::from_iter_values(selection.ranges().iter().cloned().flatten().map(|row| row as u32));
    take(&array, &rows, None).map_err(|_| Flaw("the lists do not fit together"))
}

/// Most bytes of encoded values that a page of that type can have: for fixed width, packed blocks of 64 bits with every
/// row an exception.
fn values_bytes_max(sql_type: &SqlType, rows: usize) -> usize {
    match sql_type {
        SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Jsonb | SqlType::Bytea => DECODED_BYTES_MAX,
        SqlType::Array(_) => DECODED_BYTES_MAX,
        _ => rows.saturating_mul(32).saturating_add(64 << 10),
    }
}

/// Texts, or bytes.
fn bytes_array(decoded: Decoded, sql_type: &SqlType, nulls: Option<NullBuffer>) -> Result<ArrayRef, Flaw> {
    let is_fitting = nulls.as_ref().is_none_or(|nulls| nulls.len() + 1 == decoded.offsets.len())
        && decoded.offsets.last().is_some_and(|end| *end as usize == decoded.bytes.len());
    let (offsets, bytes) = (OffsetBuffer::new(decoded.offsets.into()), decoded.bytes.into());
    Ok(match sql_type {
        SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Jsonb if decoded.is_text && is_fitting => {
            // SAFETY: offsets ascend (checked by `OffsetBuffer`) up to the last byte, each value between two is known to
            // be UTF-8, and there are as many nulls as values.
            Arc::new(unsafe { StringArray::new_unchecked(offsets, bytes, nulls) })
        }
        SqlType::Bytea => {
            let array = BinaryArray::try_new(offsets, bytes, nulls);
            Arc::new(array.map_err(|_| Flaw("the bytes do not make up values"))?)
        }
        _ => Arc::new(StringArray::try_new(offsets, bytes, nulls).map_err(|_| Flaw("a text is not UTF-8"))?),
    })
}

/// A column's distinct values, and which of them each wanted row has.
pub struct Terms {
    /// Of the column's type.
    pub entries: ArrayRef,
    pub codes: Vec<u32>,
    /// Of the rows; the code of one that is NULL says nothing.
    pub nulls: Option<NullBuffer>,
}

/// A page on the way to an array.
struct Page<'a> {
    encoding: Encoding,
    selection: &'a Selection<'a>,
    /// Of the wanted rows.
    nulls: Option<NullBuffer>,
    input: Input<'a>,
}

impl Page<'_> {
    fn array(&mut self, sql_type: &SqlType) -> Result<ArrayRef, Flaw> {
        Ok(match sql_type {
            SqlType::Bool => self.booleans()?,
            SqlType::Int2 => self.integer_array::<Int16Type>(|value| value as i16, sql_type)?,
            SqlType::Int4 => self.integer_array::<Int32Type>(|value| value as i32, sql_type)?,
            SqlType::Int8 => self.integer_array::<Int64Type>(|value| value, sql_type)?,
            SqlType::Date => self.integer_array::<Date32Type>(|value| value as i32, sql_type)?,
            SqlType::Time => self.integer_array::<Time64MicrosecondType>(|value| value, sql_type)?,
            SqlType::Timestamp | SqlType::Timestamptz => {
                self.integer_array::<TimestampMicrosecondType>(|value| value, sql_type)?
            }
            SqlType::Float4 => self.float_array::<Float32Type>(sql_type)?,
            SqlType::Float8 => self.float_array::<Float64Type>(sql_type)?,
            SqlType::Numeric(_) => self.decimals(sql_type)?,
            SqlType::Uuid => self.uuids()?,
            SqlType::Interval => self.intervals(sql_type)?,
            SqlType::Bytea | SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Jsonb => {
                let decoded = self.bytes()?;
                bytes_array(decoded, sql_type, self.nulls.take())?
            }
            SqlType::Array(_) => return Err(WRONG_ENCODING),
        })
    }

    fn primitive<T: ArrowPrimitiveType>(
        &mut self,
        values: Vec<T::Native>,
        data_type: DataType,
    ) -> Result<ArrayRef, Flaw> {
        if !PrimitiveArray::<T>::is_compatible(&data_type) {
            return Err(WRONG_ENCODING);
        }
        let array = PrimitiveArray::<T>::try_new(values.into(), self.nulls.take())
            .map_err(|_| Flaw("the values do not match the null mask"))?;
        Ok(Arc::new(array.with_data_type(data_type)))
    }

    fn integers<N: Fixed>(&mut self, convert: impl Fn(i64) -> N + Copy) -> Result<Vec<N>, Flaw> {
        match self.encoding {
            Encoding::Plain => plain::decode(&mut self.input, self.selection),
            Encoding::Constant => constant::decode(&mut self.input, self.selection.count()),
            encoding => integers::decode(encoding, &mut self.input, self.selection, convert),
        }
    }

    fn integer_array<T: ArrowPrimitiveType>(
        &mut self,
        convert: impl Fn(i64) -> T::Native + Copy,
        sql_type: &SqlType,
    ) -> Result<ArrayRef, Flaw>
    where
        T::Native: Fixed,
    {
        let values = self.integers(convert)?;
        self.primitive::<T>(values, sql_type.arrow())
    }

    fn float_array<T: ArrowPrimitiveType>(&mut self, sql_type: &SqlType) -> Result<ArrayRef, Flaw>
    where
        T::Native: Float,
    {
        let (input, selection) = (&mut self.input, self.selection);
        let values = match self.encoding {
            Encoding::Plain => plain::decode(input, selection)?,
            Encoding::Constant => constant::decode(input, selection.count())?,
            Encoding::Decimal | Encoding::Scaled => decimal::decode(self.encoding, input, selection)?,
            Encoding::Ordered => integers::decode_nested(input, selection, T::Native::of_ordered)?,
            Encoding::Split => split::decode(input, selection)?,
            Encoding::Real => selection.pick(real::decode(input, selection.rows())?),
            _ => return Err(WRONG_ENCODING),
        };
        self.primitive::<T>(values, sql_type.arrow())
    }

    fn decimals(&mut self, sql_type: &SqlType) -> Result<ArrayRef, Flaw> {
        let values = match self.encoding {
            Encoding::Dictionary | Encoding::Terms => {
                self.sixteen_bytes()?.as_chunks::<16>().0.iter().map(|b| i128::from_le_bytes(*b)).collect()
            }
            _ => self.integers(i128::from)?,
        };
        self.primitive::<Decimal128Type>(values, sql_type.arrow())
    }

    /// 16 bytes a row.
    fn sixteen_bytes(&mut self) -> Result<Vec<u8>, Flaw> {
        check_decoded_bytes(self.selection.rows(), 16)?;
        match self.encoding {
            Encoding::Plain => Ok(plain::decode::<[u8; 16]>(&mut self.input, self.selection)?.into_flattened()),
            Encoding::Constant => Ok(self.input.take(16)?.repeat(self.selection.count())),
            Encoding::Dictionary | Encoding::Terms => {
                let decoded = dictionary::spell(self.codes()?, None)?;
                if decoded.offsets.windows(2).any(|span| span[1] - span[0] != 16) {
                    return Err(Flaw("an entry of fixed width has another length"));
                }
                Ok(decoded.bytes)
            }
            _ => Err(WRONG_ENCODING),
        }
    }

    fn uuids(&mut self) -> Result<ArrayRef, Flaw> {
        let bytes = self.sixteen_bytes()?;
        let (nulls, rows) = (self.nulls.take(), self.selection.count());
        let array = FixedSizeBinaryArray::try_new_with_len(16, bytes.into(), nulls, rows);
        Ok(Arc::new(array.map_err(|_| Flaw("the bytes do not make up uuids"))?))
    }

    fn intervals(&mut self, sql_type: &SqlType) -> Result<ArrayRef, Flaw> {
        let bytes = self.sixteen_bytes()?;
        let interval = |bytes: &[u8; 16]| {
            let number = u128::from_le_bytes(*bytes);
            IntervalMonthDayNano::new(number as i32, (number >> 32) as i32, (number >> 64) as i64)
        };
        let values = bytes.as_chunks::<16>().0.iter().map(interval).collect();
        self.primitive::<IntervalMonthDayNanoType>(values, sql_type.arrow())
    }

    fn booleans(&mut self) -> Result<ArrayRef, Flaw> {
        let bits = match self.encoding {
            Encoding::Bitmap => bitmap::decode(&mut self.input, self.selection)?,
            Encoding::Constant => match self.input.u8()? {
                0 => BooleanBuffer::new_unset(self.selection.count()),
                1 => BooleanBuffer::new_set(self.selection.count()),
                _ => return Err(Flaw("a boolean is neither true nor false")),
            },
            _ => return Err(WRONG_ENCODING),
        };
        Ok(Arc::new(BooleanArray::new(bits, self.nulls.take())))
    }

    /// Text and binary.
    fn bytes(&mut self) -> Result<Decoded, Flaw> {
        let nulls = self.nulls.as_ref().filter(|nulls| nulls.null_count() > 0);
        match self.encoding {
            Encoding::Bytes => bytes::decode(&mut self.input, self.selection),
            Encoding::Constant => bytes::decode_constant(self.input.rest(), self.selection.count(), nulls),
            Encoding::Dictionary | Encoding::Terms => {
                let nulls = nulls.cloned();
                dictionary::spell(self.codes()?, nulls.as_ref())
            }
            _ => Err(WRONG_ENCODING),
        }
    }

    fn codes(&mut self) -> Result<dictionary::Codes, Flaw> {
        dictionary::decode_codes(self.encoding, &mut self.input, self.selection)
    }
}
