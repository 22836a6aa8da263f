//! Floats whose values are whole numbers or decimals of some places, kept as integers (the idea of ALP, SIGMOD 2024,
//! with one scale per page). Where ALP multiplies, this divides by a power of ten, which gives the nearest float of the
//! decimal, hence what parsing its text gave, for every integer below 2^51 and every power up to 10^22; trailing zeros
//! of large numbers are left to the integers' unit. Every value is compared bit for bit when it is encoded, and those
//! that differ (NaN, infinities, -0.0, more places) are kept apart, raw.
//!
//! ```text
//! offset  size  field
//!      0     1  scale s, 0..=17; in version 1, 0..=4
//!      1     3  zero
//!      4     4  number of exceptions e
//!      8   4*e  row of each exception, ascending
//!     ..   w*e  its bits: 8 bytes each for float8, 4 for float4
//!     ..     n  value * 10^s as integers with the number of their encoding; an exception's row repeats the one before;
//!               in version 1 always packed, without a number
//! ```

use super::exceptions::Exceptions;
use super::huffman::Codes;
use super::plain::Fixed;
use super::selection::Selection;
use super::{Encoding, Flaw, Input, integers, packed};

/// Divisors by scale, each exact.
const POWERS: [f64; 18] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17];
/// Added to a float below 2^51 it pushes the fraction out and leaves the integer in the low bits of the mantissa, also
/// for negative numbers: 1.5 * 2^52. Vector units without a conversion to i64 do this in two instructions.
const MAGIC: f64 = 6_755_399_441_055_744.0;
const INTEGER_MAX: f64 = (1u64 << 51) as f64;
/// One exception in 16 rows costs as much as 6 bits on every row would.
const EXCEPTIONS_PART: usize = 16;
const SAMPLE: usize = 256;

/// float4 and float8.
pub trait Float: Fixed + PartialOrd {
    const BITS: u32;

    fn to_f64(self) -> f64;
    fn from_f64(value: f64) -> Self;
    fn to_bits(self) -> u64;
    fn of_bits(bits: u64) -> Self;

    #[inline(always)]
    fn same_bits(self, other: Self) -> bool {
        self.to_bits() == other.to_bits()
    }

    /// Its bits as an integer that is greater for a greater float, and near for one that is near.
    #[inline(always)]
    fn to_ordered(self) -> i64 {
        let signed = (self.to_bits() << (64 - Self::BITS)) as i64 >> (64 - Self::BITS);
        signed ^ ((signed >> 63) & Self::MAGNITUDE)
    }

    /// The float that [`to_ordered`](Self::to_ordered) gave.
    #[inline(always)]
    fn of_ordered(ordered: i64) -> Self {
        Self::of_bits((ordered ^ ((ordered >> 63) & Self::MAGNITUDE)) as u64)
    }

    /// All bits but the sign.
    const MAGNITUDE: i64 = (u64::MAX >> (65 - Self::BITS)) as i64;
}

impl Float for f64 {
    const BITS: u32 = 64;

    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value
    }
    #[inline(always)]
    fn to_bits(self) -> u64 {
        f64::to_bits(self)
    }
    #[inline(always)]
    fn of_bits(bits: u64) -> Self {
        f64::from_bits(bits)
    }
}

impl Float for f32 {
    const BITS: u32 = 32;

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    #[inline(always)]
    fn to_bits(self) -> u64 {
        u64::from(f32::to_bits(self))
    }
    #[inline(always)]
    fn of_bits(bits: u64) -> Self {
        f32::from_bits(bits as u32)
    }
}

/// The integers to pack and the rows that are none.
#[derive(Debug)]
pub struct Plan {
    scale: usize,
    exceptions: Vec<u32>,
    integers: Vec<i64>,
    pub plan: integers::Plan,
    /// Exact but where the integers are binned.
    pub bytes: usize,
}

/// `None` when too many of the values are no decimals.
pub fn estimate<T: Float>(values: &[T]) -> Option<Plan> {
    let scale = pick_scale(values)?;
    let mut integers = vec![0i64; values.len()];
    let mut exceptions = Vec::new();
    let exceptions_max = values.len() / EXCEPTIONS_PART;
    for (start, (block, targets)) in values.chunks(1024).zip(integers.chunks_mut(1024)).enumerate() {
        if to_integers(block, POWERS[scale], targets) > 0 {
            set_apart(block, scale, start * 1024, targets, &mut exceptions);
            if exceptions.len() > exceptions_max {
                return None;
            }
        }
    }
    if let Some(first) = exceptions.first() {
        repeat_into_exceptions(&mut integers, &exceptions, *first as usize);
    }
    let plan = integers::estimate(&integers);
    let bytes = 9 + exceptions.len() * (4 + T::WIDTH_BYTES) + plan.bytes();
    Some(Plan { scale, exceptions, integers, plan, bytes })
}

/// The smallest scale at which nearly all of a sample are decimals.
fn pick_scale<T: Float>(values: &[T]) -> Option<usize> {
    let step = values.len().div_ceil(SAMPLE).max(1);
    let sample: Vec<T> = values.iter().step_by(step).copied().collect();
    let mut integers = vec![0; sample.len()];
    (0..POWERS.len())
        .find(|scale| to_integers(&sample, POWERS[*scale], &mut integers) <= sample.len() / EXCEPTIONS_PART)
}

#[inline(always)]
fn to_integer<T: Float>(value: T, power: f64) -> (i64, bool) {
    let rounded = (value.to_f64() * power + MAGIC) - MAGIC;
    let fits = T::from_f64(rounded / power).same_bits(value) & (rounded.abs() <= INTEGER_MAX);
    let integer = (rounded + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()) as i64;
    (integer, fits)
}

/// Fills `integers` and returns how many values do not fit.
fn to_integers<T: Float>(values: &[T], power: f64, integers: &mut [i64]) -> usize {
    let mut misfits = 0u64;
    for (target, value) in integers.iter_mut().zip(values) {
        let (integer, fits) = to_integer(*value, power);
        *target = integer;
        misfits += u64::from(!fits);
    }
    misfits as usize
}

fn set_apart<T: Float>(block: &[T], scale: usize, start: usize, targets: &mut [i64], exceptions: &mut Vec<u32>) {
    for (row, (value, target)) in block.iter().zip(targets).enumerate() {
        if !to_integer(*value, POWERS[scale]).1 {
            exceptions.push((start + row) as u32);
            *target = 0;
        }
    }
}

/// Gives every exception the integer of the row before, so that it does not widen its block.
fn repeat_into_exceptions(integers: &mut [i64], exceptions: &[u32], first: usize) {
    if first == 0 {
        let next = (0..).zip(exceptions).take_while(|(row, exception)| *row == **exception).count();
        integers[0] = integers.get(next).copied().unwrap_or(0);
    }
    for row in exceptions.iter().map(|row| *row as usize).filter(|row| *row > 0) {
        integers[row] = integers[row - 1];
    }
}

pub fn encode<T: Float>(values: &[T], plan: &Plan, known: &mut Codes, out: &mut Vec<u8>) {
    out.extend_from_slice(&[plan.scale as u8, 0, 0, 0]);
    out.extend_from_slice(&(plan.exceptions.len() as u32).to_le_bytes());
    for row in &plan.exceptions {
        out.extend_from_slice(&row.to_le_bytes());
    }
    let raw: Vec<T> = plan.exceptions.iter().map(|row| values[*row as usize]).collect();
    super::plain::encode(&raw, out);
    integers::encode_nested(&plan.integers, &plan.plan, known, out);
}

/// Decodes a page that is [`Encoding::Scaled`], or version 1's [`Encoding::Decimal`].
pub fn decode<T: Float>(encoding: Encoding, input: &mut Input<'_>, selection: &Selection<'_>) -> Result<Vec<T>, Flaw> {
    let [scale, zeros @ ..] = input.array::<4>()?;
    let power = *POWERS.get(usize::from(scale)).ok_or(Flaw("a decimal scale is out of range"))?;
    let count = input.u32()? as usize;
    if count > selection.rows() || zeros != [0; 3] {
        return Err(Flaw("a page of decimals has an impossible header"));
    }
    let exceptions = Exceptions::read(input, count, selection.rows())?;
    let raw = input.take(count * T::WIDTH_BYTES)?;
    let shifted = |integer: i64| f64::from_bits((integer as u64).wrapping_add(MAGIC.to_bits())) - MAGIC;
    let mut values = match (encoding, scale) {
        (Encoding::Decimal, _) => packed::decode(input, selection, |integer| T::from_f64(shifted(integer) / power))?,
        // A division takes longer than all the rest.
        (_, 0) => integers::decode_nested(input, selection, |integer| T::from_f64(shifted(integer)))?,
        _ => integers::decode_nested(input, selection, |integer| T::from_f64(shifted(integer) / power))?,
    };
    let mut start = 0;
    for range in selection.ranges().iter().filter(|_| count > 0) {
        for (exception, row) in exceptions.within(range.clone()) {
            values[start + row] = T::read(&raw[exception * T::WIDTH_BYTES..][..T::WIDTH_BYTES]);
        }
        start += range.len();
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    fn check<T: Float>(values: &[T]) -> Option<usize> {
        let plan = estimate(values)?;
        let mut bytes = Vec::new();
        encode(values, &plan, &mut Codes::default(), &mut bytes);
        if plan.plan.encoding() != Encoding::Binned {
            assert_eq!(bytes.len(), plan.bytes, "the estimate is exact");
        }
        let mut input = Input::new(&bytes);
        let all = 0..values.len();
        let selection = Selection::new(values.len(), std::slice::from_ref(&all));
        let back = decode::<T>(Encoding::Scaled, &mut input, &selection).unwrap();
        input.finish().unwrap();
        assert!(values.iter().zip(&back).all(|(a, b)| a.same_bits(*b)));
        Some(bytes.len())
    }

    #[test]
    fn two_decimals_take_their_integers_bits() {
        let values: Vec<f64> = (0..2048).map(|i| f64::from((i * 7919) % 10_000) / 100.0).collect();
        // Two different steps: less than 14 bits a value.
        assert!(check(&values).is_some_and(|bytes| bytes < 9 + 2 * (12 + 14 * 128)));
        let values: Vec<f32> = (0..2048u32).map(|i| ((i * 79) % 1000) as f32 / 10.0).collect();
        // Steps of 79 are even cheaper as differences.
        assert!(check(&values).is_some_and(|bytes| bytes <= 9 + 2 * (12 + 10 * 128)));
    }

    #[test]
    fn what_is_no_decimal_is_kept_apart_bit_for_bit() {
        let mut values: Vec<f64> = (0..3000).map(f64::from).collect();
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.1 + 0.2, f64::MAX, f64::MIN_POSITIVE, 5e-324];
        for (i, value) in odd.into_iter().enumerate() {
            values[i * 3] = value;
        }
        values[1] = f64::from_bits(0x7ff0_0000_0000_0001);
        values[2] = f64::from_bits(0xfff8_dead_beef_0001);
        assert!(check(&values).is_some());
    }

    #[test]
    fn the_largest_integers_are_exact() {
        let edge = INTEGER_MAX;
        let values: Vec<f64> = (0..64).flat_map(|i| [edge - f64::from(i), -edge + f64::from(i)]).collect();
        assert!(check(&values).is_some());
        let over: Vec<f64> = (1..64).map(|i| edge + f64::from(i)).collect();
        assert_eq!(check(&over), None);
    }

    #[test]
    fn ordered_bits_follow_the_order_of_floats_and_keep_every_bit() {
        let doubles = [f64::NEG_INFINITY, f64::MIN, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1.0, f64::INFINITY, f64::NAN];
        assert!(doubles.map(f64::to_ordered).is_sorted());
        let floats = [f32::NEG_INFINITY, -1.5, -0.0, 0.0, 1e-45, 1.5, f32::MAX, f32::INFINITY, f32::NAN];
        assert!(floats.map(f32::to_ordered).is_sorted());
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(9);
        for _ in 0..1000 {
            let (double, float) = (f64::from_bits(random.random()), f32::from_bits(random.random()));
            assert!(f64::of_ordered(double.to_ordered()).same_bits(double));
            assert!(f32::of_ordered(float.to_ordered()).same_bits(float));
        }
    }

    #[test]
    fn many_places_and_trailing_zeros_come_back() {
        let nanos: Vec<f64> = (1..3000).map(|i| f64::from(i * 37 % 2900) / 1e9).collect();
        assert!(check(&nanos).is_some_and(|bytes| bytes < 3000 * 2));
        let billions: Vec<f64> = (1..3000).map(|i| f64::from(i * 37 % 2900) * 1e9).collect();
        assert!(check(&billions).is_some());
    }

    #[test]
    fn random_doubles_do_not_apply() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(4);
        let values: Vec<f64> = (0..2000).map(|_| random.random()).collect();
        assert_eq!(check(&values), None);
        for _ in 0..100 {
            let rows = random.random_range(1..2500);
            let scale = POWERS[random.random_range(0..5)];
            let values: Vec<f64> = (0..rows)
                .map(|_| {
                    let decimal = f64::from(random.random::<i32>() >> 8) / scale;
                    if random.random_ratio(1, 100) { f64::from_bits(random.random()) } else { decimal }
                })
                .collect();
            check(&values);
        }
    }
}
