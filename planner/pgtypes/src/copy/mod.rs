//! COPY's text, csv and binary formats, in and out.
//!
//! In: [`CopyDecoder`] takes data cut anywhere. A scanner finds the end of each row, remembering how far it looked; a row
//! is cut into fields, and each field goes straight into its column's builder. Out: [`CopyEncoder`] writes one message per
//! row.

#![expect(
    clippy::result_large_err,
    reason = "an error ends the statement: what it takes to pass one on does not count"
)]

mod error;
mod options;

mod binary;
mod fields;
mod lines;
mod rows;

mod decoder;
mod encoder;

pub use decoder::CopyDecoder;
pub use encoder::CopyEncoder;
pub use error::CopyError;
pub use options::{CopyColumns, CopyDirection, CopyFormat, CopyHeader, CopyOptionValue, CopyOptions};
