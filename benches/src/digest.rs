//! What two answers are compared by: the number of rows and a sum of their hashes, so that the order of rows does not
//! matter and no answer needs to be kept.

use std::hash::{DefaultHasher, Hasher};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    pub rows: u64,
    sum: u64,
}

impl Digest {
    pub fn add(&mut self, row: &[u8]) {
        // With fixed keys: equal in every process.
        let mut hasher = DefaultHasher::new();
        hasher.write(row);
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
    }

    /// Fails when an answer differs from the one it must equal.
    ///
    /// # Errors
    /// Names `what` was asked and how.
    pub fn check(self, expected: Self, what: &str) -> Result<(), String> {
        if self == expected {
            return Ok(());
        }
        let (found, wanted) = (self.rows, expected.rows);
        Err(format!(
            "{what}: another answer than before ({found} rows, expected {wanted}; digests {self:x?}, {expected:x?})"
        ))
    }
}

impl<R: AsRef<[u8]>> FromIterator<R> for Digest {
    fn from_iter<I: IntoIterator<Item = R>>(rows: I) -> Self {
        let mut digest = Self::default();
        rows.into_iter().for_each(|row| digest.add(row.as_ref()));
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_rows_does_not_matter_and_a_row_does() {
        let digest = |rows: &[&str]| rows.iter().collect::<Digest>();
        assert_eq!(digest(&["a", "b"]), digest(&["b", "a"]));
        for other in [&["a", "c"][..], &["a"], &["a", "b", "b"]] {
            assert!(digest(other).check(digest(&["a", "b"]), "rows").is_err(), "{other:?}");
        }
    }
}
