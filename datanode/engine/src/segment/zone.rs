//! Zone maps: the smallest and greatest value of a column in one row group. They may only ever say "certainly no row
//! here matches"; whatever is unclear (NaN, a bound of another type, a text too long to keep) matches.

use crate::scan::{Bound, Value};

/// Bytes kept of a text or binary value.
pub const ZONE_BYTES_MAX: usize = 32;

/// Range of the non-NULL values of a page. Both ends are inclusive, and may lie further out than the values.
#[derive(Clone, Debug, Default, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum Zone {
    /// Nothing is known: a type without order, or a page without values.
    #[default]
    Unknown,
    /// Integers, dates, times, timestamps; booleans as 0 and 1.
    Int { min: i64, max: i64 },
    /// `nan`: some value is NaN, which PostgreSQL sorts above all others and IEEE nowhere, so it fits every bound.
    Float { min: f64, max: f64, nan: bool },
    /// Unscaled.
    Decimal { min: i128, max: i128 },
    /// Text, binary and uuid by bytes. `min` may be cut off; `max` is cut off and counted up, or absent for no limit.
    Bytes { min: Vec<u8>, max: Option<Vec<u8>> },
}

impl Zone {
    /// The zone of bytes values from their true minimum and maximum.
    pub fn of_bytes(min: &[u8], max: &[u8]) -> Self {
        Self::Bytes { min: min[..min.len().min(ZONE_BYTES_MAX)].to_vec(), max: upper_bound(max) }
    }
}

/// The value itself when short, else the shortest text above all that begin with its first bytes.
fn upper_bound(max: &[u8]) -> Option<Vec<u8>> {
    if max.len() <= ZONE_BYTES_MAX {
        return Some(max.to_vec());
    }
    let head = &max[..ZONE_BYTES_MAX];
    let last = head.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut bound = head[..=last].to_vec();
    bound[last] += 1;
    Some(bound)
}

impl ArchivedZone {
    /// Whether a non-NULL value of the page can lie within the bound.
    pub fn may_match(&self, bound: &Bound) -> bool {
        let low = bound.min.as_ref().is_none_or(|min| self.reaches_up_to(min));
        let high = bound.max.as_ref().is_none_or(|max| self.reaches_down_to(max));
        low && high
    }

    /// Whether some value can be at least `value`.
    fn reaches_up_to(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Int { max, .. }, Value::Int(value)) => max.to_native() >= *value,
            // A NaN as bound excludes nothing.
            (Self::Float { max, nan, .. }, Value::Float(value)) => *nan || value.is_nan() || max.to_native() >= *value,
            (Self::Decimal { max, .. }, Value::Decimal(value)) => max.to_native() >= *value,
            (Self::Bytes { max, .. }, Value::Bytes(value)) => {
                max.as_ref().is_none_or(|max| max.as_slice() >= value.as_slice())
            }
            _ => true,
        }
    }

    /// Whether some value can be at most `value`.
    fn reaches_down_to(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Int { min, .. }, Value::Int(value)) => min.to_native() <= *value,
            (Self::Float { min, nan, .. }, Value::Float(value)) => *nan || value.is_nan() || min.to_native() <= *value,
            (Self::Decimal { min, .. }, Value::Decimal(value)) => min.to_native() <= *value,
            (Self::Bytes { min, .. }, Value::Bytes(value)) => min.as_slice() <= value.as_slice(),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(zone: Zone, min: Option<Value>, max: Option<Value>, expected: bool) {
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&zone).unwrap();
        let archived = rkyv::access::<ArchivedZone, rkyv::rancor::Error>(&bytes).unwrap();
        assert_eq!(archived.may_match(&Bound { column: 0, min, max }), expected, "{zone:?}");
    }

    #[test]
    fn bounds_are_inclusive() {
        let zone = || Zone::Int { min: 5, max: 9 };
        let int = |value| Some(Value::Int(value));
        check(zone(), int(9), None, true);
        check(zone(), int(10), None, false);
        check(zone(), None, int(5), true);
        check(zone(), None, int(4), false);
        check(zone(), int(6), int(7), true);
        check(zone(), None, None, true);
    }

    #[test]
    fn nan_and_signed_zero_are_never_pruned() {
        let float = |value| Some(Value::Float(value));
        let zone = |nan| Zone::Float { min: -0.0, max: 1.0, nan };
        check(zone(true), float(5.0), None, true);
        check(zone(false), float(5.0), None, false);
        check(zone(false), float(f64::NAN), None, true);
        check(zone(false), None, float(f64::NAN), true);
        check(zone(false), None, float(-0.0), true);
        check(Zone::Float { min: 0.0, max: 0.0, nan: false }, None, float(-0.0), true);
        check(Zone::Float { min: -0.0, max: -0.0, nan: false }, float(0.0), None, true);
    }

    #[test]
    fn long_texts_keep_a_true_upper_bound() {
        let bytes = |value: &[u8]| Some(Value::Bytes(value.to_vec()));
        let long = vec![b'x'; 40];
        let zone = || Zone::of_bytes(&long, &long);
        check(zone(), bytes(&long), bytes(&long), true);
        check(zone(), bytes(b"y"), None, false);
        check(zone(), None, bytes(b"w"), false);
        // 0xff cannot be counted up: the byte before is, or there is no limit.
        let mut top = vec![0xff; 40];
        check(Zone::of_bytes(b"", &top), bytes(&[0xff; 50]), None, true);
        top[0] = 7;
        check(Zone::of_bytes(b"", &top), bytes(&[8]), None, true);
        check(Zone::of_bytes(b"", &top), bytes(&[8, 0]), None, false);
    }

    #[test]
    fn a_bound_of_another_type_prunes_nothing() {
        check(Zone::Int { min: 1, max: 2 }, Some(Value::Float(9.0)), None, true);
        check(Zone::Unknown, Some(Value::Int(9)), Some(Value::Int(9)), true);
    }
}
