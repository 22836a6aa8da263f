//! Rules on physical plans, one per file.

pub(crate) mod choose_leaf;
pub(crate) mod push_down;
pub(crate) mod top_buckets;
