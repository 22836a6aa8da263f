//! Several small pages under one checksum: where the pieces of a row group lie, and what is known of one column in them.
//!
//! ```text
//! offset  size  field, once per part
//!      0     4  bytes b of the part; 0: it is not there
//!      4     b  a page without checksum
//!
//! after the last part: 4 bytes of placed checksum of all before
//! ```

use super::encoding::{Flaw, Input};

/// Appends a part, which `write` appends.
pub fn write_part<E>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let bytes = u32::try_from(out.len() - start - 4).expect("a part is far below 4 GiB");
    out[start..start + 4].copy_from_slice(&bytes.to_le_bytes());
    Ok(())
}

/// The parts of a bundle without its checksum; `None` for those that are not there.
pub fn parts<const COUNT: usize>(bytes: &[u8]) -> Result<[Option<&[u8]>; COUNT], Flaw> {
    let mut input = Input::new(bytes);
    let mut parts = [None; COUNT];
    for part in &mut parts {
        let length = input.u32()? as usize;
        *part = if length == 0 { None } else { Some(input.take(length)?) };
    }
    input.finish()?;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_and_bytes_too_many_or_too_few_are_refused() {
        let mut bytes = Vec::new();
        for part in [&b"one"[..], b"", b"three"] {
            write_part::<()>(&mut bytes, |out| {
                out.extend_from_slice(part);
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(parts(&bytes).unwrap(), [Some(&b"one"[..]), None, Some(b"three")]);
        assert!(parts::<2>(&bytes).is_err());
        assert!(parts::<4>(&bytes).is_err());
        assert!(parts::<3>(&bytes[..bytes.len() - 1]).is_err());
    }
}
