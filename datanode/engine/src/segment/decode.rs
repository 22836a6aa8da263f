//! A page becomes a column again: an Arrow array of exactly the type that [`SqlType::arrow`] names.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, FixedSizeBinaryArray, ListArray, PrimitiveArray,
    StringArray, new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use meridian_proto::types::SqlType;

use super::encoding::bytes::{self, Decoded};
use super::encoding::decimal::{self, Float};
use super::encoding::plain::{self, Fixed};
use super::encoding::section::SectionReader;
use super::encoding::{DECODED_BYTES_MAX, Encoding, Flaw, Input, bitmap, check_decoded_bytes};
use super::encoding::{constant, dictionary, integers, real};
use super::page::{Parts, unframe};

const WRONG_ENCODING: Flaw = Flaw("the page's encoding does not fit the column's type");

/// Decodes pages, one at a time. One per reader: its zstd context is reused.
#[derive(Default)]
pub struct ColumnDecoder {
    sections: SectionReader,
}

impl ColumnDecoder {
    /// Decodes a page (without its checksum) of `rows` values.
    pub fn decode(&mut self, page: &[u8], sql_type: &SqlType, rows: usize) -> Result<ArrayRef, Flaw> {
        let values_max = values_bytes_max(sql_type, rows);
        let Parts { encoding, mask, values } = unframe(page, rows, values_max, &mut self.sections)?;
        if encoding == Encoding::Null {
            // Offsets and values of NULLs take memory too: at most 16 bytes each.
            check_decoded_bytes(rows, 16)?;
            return Ok(new_null_array(&sql_type.arrow(), rows));
        }
        let nulls = mask.map(|mask| NullBuffer::new(BooleanBuffer::new(mask.into(), 0, rows)));
        let mut input = Input::new(&values);
        if let SqlType::Array(element) = sql_type {
            if encoding != Encoding::List {
                return Err(WRONG_ENCODING);
            }
            return self.lists(&mut input, rows, element, nulls);
        }
        let mut page = Page { encoding, rows, nulls, input, sections: &mut self.sections };
        let array = page.array(sql_type)?;
        page.input.finish()?;
        Ok(array)
    }

    /// Decodes a page of commit timestamps.
    pub fn decode_commits(&mut self, page: &[u8], rows: usize) -> Result<Vec<u64>, Flaw> {
        let Parts { encoding, mask, values } =
            unframe(page, rows, values_bytes_max(&SqlType::Int8, rows), &mut self.sections)?;
        if mask.is_some() {
            return Err(Flaw("commit timestamps are never NULL"));
        }
        let input = Input::new(&values);
        let mut page = Page { encoding, rows, nulls: None, input, sections: &mut self.sections };
        let commits = page.integers(|commit| commit)?;
        page.input.finish()?;
        Ok(commits.into_iter().map(|commit| commit as u64).collect())
    }

    fn lists(
        &mut self,
        input: &mut Input<'_>,
        rows: usize,
        element: &SqlType,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef, Flaw> {
        let offsets = bytes::decode_offsets(input, rows)?;
        let elements = offsets.last().copied().unwrap_or(0) as usize;
        let values = self.decode(input.rest(), element, elements)?;
        let field = Arc::new(Field::new("item", element.arrow(), true));
        let array = ListArray::try_new(field, OffsetBuffer::new(offsets.into()), values, nulls);
        Ok(Arc::new(array.map_err(|_| Flaw("the elements do not make up lists"))?))
    }
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

/// A page on the way to an array.
struct Page<'a> {
    encoding: Encoding,
    rows: usize,
    nulls: Option<NullBuffer>,
    input: Input<'a>,
    sections: &'a mut SectionReader,
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
            SqlType::Bytea => {
                let Decoded { offsets, bytes } = self.bytes()?;
                let array = BinaryArray::try_new(OffsetBuffer::new(offsets.into()), bytes.into(), self.nulls.take());
                Arc::new(array.map_err(|_| Flaw("the bytes do not make up values"))?)
            }
            SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Jsonb => {
                let Decoded { offsets, bytes } = self.bytes()?;
                let array = StringArray::try_new(OffsetBuffer::new(offsets.into()), bytes.into(), self.nulls.take());
                Arc::new(array.map_err(|_| Flaw("a text is not UTF-8"))?)
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
            Encoding::Plain => plain::decode(&mut self.input, self.rows),
            Encoding::Constant => constant::decode(&mut self.input, self.rows),
            encoding => integers::decode(encoding, &mut self.input, self.rows, self.sections, convert),
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
        let (input, rows) = (&mut self.input, self.rows);
        let values = match self.encoding {
            Encoding::Plain => plain::decode(input, rows)?,
            Encoding::Constant => constant::decode(input, rows)?,
            Encoding::Decimal | Encoding::Scaled => decimal::decode(self.encoding, input, rows, self.sections)?,
            Encoding::Ordered => integers::decode_nested(input, rows, self.sections, T::Native::of_ordered)?,
            Encoding::Real => real::decode(input, rows, self.sections)?,
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
        check_decoded_bytes(self.rows, 16)?;
        match self.encoding {
            Encoding::Plain => Ok(self.input.take(self.rows * 16)?.to_vec()),
            Encoding::Constant => Ok(self.input.take(16)?.repeat(self.rows)),
            Encoding::Dictionary | Encoding::Terms => {
                let decoded = dictionary::decode(self.encoding, &mut self.input, self.rows, None, self.sections)?;
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
        let array = FixedSizeBinaryArray::try_new_with_len(16, bytes.into(), self.nulls.take(), self.rows);
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
            Encoding::Bitmap => bitmap::decode(&mut self.input, self.rows)?,
            Encoding::Constant => match self.input.u8()? {
                0 => BooleanBuffer::new_unset(self.rows),
                1 => BooleanBuffer::new_set(self.rows),
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
            Encoding::Bytes => bytes::decode(&mut self.input, self.rows),
            Encoding::Constant => bytes::decode_constant(self.input.rest(), self.rows, nulls),
            Encoding::Dictionary | Encoding::Terms => {
                dictionary::decode(self.encoding, &mut self.input, self.rows, nulls, self.sections)
            }
            _ => Err(WRONG_ENCODING),
        }
    }
}
