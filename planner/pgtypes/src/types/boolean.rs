//! boolean: `t` and `f`; any beginning of true, false, yes, no; on, off, 1, 0.

use crate::error::{INVALID_BINARY, ValueError};
use crate::types::trim;

pub(crate) fn parse(input: &[u8]) -> Result<bool, ValueError> {
    let word = trim(input);
    match word {
        b"t" | b"1" => return Ok(true),
        b"f" | b"0" => return Ok(false),
        _ => {}
    }
    let begins = |full: &[u8], length_min: usize| {
        word.len() >= length_min && word.len() <= full.len() && full[..word.len()].eq_ignore_ascii_case(word)
    };
    if begins(b"true", 1) || begins(b"yes", 1) || begins(b"on", 2) {
        return Ok(true);
    }
    if begins(b"false", 1) || begins(b"no", 1) || begins(b"off", 2) {
        return Ok(false);
    }
    Err(ValueError::syntax("boolean", input))
}

pub(crate) fn parse_binary(bytes: &[u8]) -> Result<bool, ValueError> {
    match bytes {
        [byte] => Ok(*byte != 0),
        [] => Err(ValueError::no_data()),
        _ => Err(ValueError::new(INVALID_BINARY, "incorrect binary data format")),
    }
}
