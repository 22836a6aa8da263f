//! Rules on physical plans, one per file.

pub(crate) mod push_down;
