//! PostgreSQL's value formats, to and from Arrow.
//!
//! A value has a text and a binary form for each SQL type; clients send and expect both. [`builder::ColumnBuilder`] reads
//! them into Arrow arrays, [`encoder::Encoder`] writes them from Arrow arrays, one enum match per value and nothing that is
//! decided per value twice. [`copy`] strings values together to COPY's three formats. What PostgreSQL 15 prints and accepts
//! is the measure everywhere, errors included.
//!
//! Modules in order; each uses only those above it.

pub mod calendar;
pub mod error;

mod abbreviations;
pub mod zone;

pub mod format;

mod datetime;
mod types;

pub mod builder;
pub mod encoder;

pub mod data_row;

pub mod copy;

#[doc(hidden)]
pub mod arbitrary;

pub use arrow::datatypes::IntervalMonthDayNano;
pub use builder::{ColumnBuilder, from_binary, from_text};
pub use data_row::{ColumnWriter, DataRowWriter};
pub use datetime::parse_interval;
pub use encoder::{Encoder, to_text};
pub use error::ValueError;
pub use format::{ByteaOutput, Format};
pub use types::numeric::rescale as rescale_numeric;
pub use types::string::fit_length;
pub use zone::TimeZone;
