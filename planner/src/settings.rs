//! Run-time parameters.
