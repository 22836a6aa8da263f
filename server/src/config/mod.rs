//! A node's configuration: what each key means, where its value came from, and the checked whole.
//!
//! `keys` is the list of keys, `layers` puts flags over environment over file over defaults, `typed` reads the result
//! into [`Config`]. A key that is not in the list is an error, wherever it stands.

mod keys;
mod layers;
mod typed;

pub use layers::{Settings, Sources, check_address};
pub use typed::{Config, LogFormat, Role};
