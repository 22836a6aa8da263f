//! Dates, times, timestamps and intervals as text and binary.
//!
//! Reading follows "Date/Time Input Interpretation" of PostgreSQL's manual (appendix B): a literal is cut into tokens,
//! each token is read by what was found before it, and at the end the parts must make a whole. Almost all input has the ISO
//! form, which [`fast`] reads without any of that.

mod fast;
mod fields;
mod interval;
mod iso_interval;
mod read;
mod tokens;
mod words;
mod write;

pub(crate) use fast::DayCache;
pub use interval::parse_interval;
pub(crate) use read::{parse_date, parse_time, parse_timestamp, parse_timestamptz};
pub(crate) use write::{
    RecentHour, interval_us, write_date, write_interval, write_time, write_timestamp, write_timestamptz,
};

use crate::error::{DATETIME_OVERFLOW, INTERVAL_OVERFLOW, INVALID_DATETIME, ValueError, ZONE_DISPLACEMENT, lossy};

/// Why a literal is refused; with the type and the literal it becomes a [`ValueError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Syntax,
    Overflow,
    /// Month or day out of range, perhaps since they come in another order.
    MonthOrDay,
    Displacement,
    /// A zone that does not exist, as written.
    Zone(String),
}

impl Fault {
    pub(crate) fn into_error(self, type_name: &str, input: &[u8]) -> ValueError {
        let input = lossy(input);
        let overflow = |code| ValueError::new(code, format!("date/time field value out of range: \"{input}\""));
        match self {
            Self::Syntax => {
                ValueError::new(INVALID_DATETIME, format!("invalid input syntax for type {type_name}: \"{input}\""))
            }
            Self::Overflow if type_name == "interval" => {
                ValueError::new(INTERVAL_OVERFLOW, format!("interval field value out of range: \"{input}\""))
            }
            Self::Overflow => overflow(DATETIME_OVERFLOW),
            Self::MonthOrDay => {
                overflow(DATETIME_OVERFLOW).with_hint("Perhaps you need a different \"datestyle\" setting.")
            }
            Self::Displacement => {
                ValueError::new(ZONE_DISPLACEMENT, format!("time zone displacement out of range: \"{input}\""))
            }
            Self::Zone(name) => {
                ValueError::new(crate::error::INVALID_PARAMETER, format!("time zone \"{name}\" not recognized"))
            }
        }
    }
}
