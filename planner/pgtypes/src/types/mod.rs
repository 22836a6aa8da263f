//! The text and binary forms of single values, one file per kind of type.

pub(crate) mod array;
pub(crate) mod boolean;
pub(crate) mod bytea;
pub(crate) mod float;
pub(crate) mod integer;
pub(crate) mod jsonb;
pub(crate) mod numeric;
pub(crate) mod string;
pub(crate) mod uuid;

/// C's `isspace`, which PostgreSQL skips around most values.
#[inline]
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// The input without the spaces around it.
#[inline]
pub(crate) fn trim(mut input: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = input
        && is_space(*first)
    {
        input = rest;
    }
    while let [rest @ .., last] = input
        && is_space(*last)
    {
        input = rest;
    }
    input
}
