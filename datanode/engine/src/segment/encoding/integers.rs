//! Which encoding integers take: the one loop that chooses. Used for columns of integers and within other encodings,
//! where one byte, the [`Encoding`]'s number, comes first.

use super::huffman::Codes;
use super::plain::Fixed;
use super::selection::Selection;
use super::{Encoding, Flaw, Input, binned, coded, constant, packed, runs};

/// Binned integers are read back more slowly than packed ones: they must save one byte in so many,
const BINNED_SAVES_PART: usize = 10;
/// or two bits a value, which is less for wide ones.
const BINNED_SAVES_VALUES: usize = 4;
/// Values that take less than this part of a byte each are small enough, and read faster as they are.
const SMALL_PART: usize = 8;

/// The encoding that was chosen.
#[derive(Debug)]
pub enum Plan {
    Constant,
    Runs(runs::Plan),
    Packed(packed::Plan),
    Binned(binned::Plan),
}

impl Plan {
    pub fn encoding(&self) -> Encoding {
        match self {
            Self::Constant => Encoding::Constant,
            Self::Runs(_) => Encoding::Runs,
            Self::Packed(_) => Encoding::Packed,
            Self::Binned(_) => Encoding::Binned,
        }
    }

    /// Exact but for binned integers.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Constant => size_of::<i64>(),
            Self::Runs(plan) => plan.bytes,
            Self::Packed(plan) => plan.bytes,
            Self::Binned(plan) => plan.bytes,
        }
    }
}

/// The smallest encoding, or nearly so where that is read back faster.
pub fn estimate(values: &[i64]) -> Plan {
    if constant::estimate(values, |a, b| a == b).is_some() {
        return Plan::Constant;
    }
    let runs = runs::estimate(values);
    let packed = packed::estimate(values);
    if let Some(runs) = runs
        && runs.bytes < packed.bytes
    {
        return Plan::Runs(runs);
    }
    if packed.bytes <= values.len() / SMALL_PART {
        return Plan::Packed(packed);
    }
    let binned_max = packed.bytes - (packed.bytes / BINNED_SAVES_PART).min(values.len() / BINNED_SAVES_VALUES);
    match binned::estimate(values) {
        Some(binned) if binned.bytes < binned_max => Plan::Binned(binned),
        _ => Plan::Packed(packed),
    }
}

/// Appends the values as the plan made from them says.
pub fn encode(values: &[i64], plan: &Plan, known: &mut Codes, out: &mut Vec<u8>) {
    match plan {
        Plan::Constant => constant::encode(values[0], out),
        Plan::Runs(plan) => runs::encode(plan, out),
        Plan::Packed(plan) => packed::encode(values, plan, out),
        Plan::Binned(plan) => binned::encode(values, plan, known, out),
    }
}

/// Decodes the wanted ones of as many integers as the selection has rows, each passed through `convert`.
pub fn decode<T: Copy + Default>(
    encoding: Encoding,
    input: &mut Input<'_>,
    selection: &Selection<'_>,
    convert: impl Fn(i64) -> T + Copy,
) -> Result<Vec<T>, Flaw> {
    match encoding {
        Encoding::Constant => {
            super::check_decoded_bytes(selection.count(), size_of::<T>())?;
            Ok(vec![convert(i64::read(input.take(i64::WIDTH_BYTES)?)); selection.count()])
        }
        Encoding::Runs => runs::decode(input, selection, convert),
        Encoding::Packed => packed::decode(input, selection, convert),
        Encoding::Binned => binned::decode(input, selection, convert),
        Encoding::Coded => coded::decode(input, selection.rows(), convert).map(|all| selection.pick(all)),
        _ => Err(Flaw("integers have an encoding of another kind")),
    }
}

/// Appends the encoding's number, then the values.
pub fn encode_nested(values: &[i64], plan: &Plan, known: &mut Codes, out: &mut Vec<u8>) {
    out.push(plan.encoding().code());
    encode(values, plan, known, out);
}

/// Reads the encoding's number, then the values.
pub fn decode_nested<T: Copy + Default>(
    input: &mut Input<'_>,
    selection: &Selection<'_>,
    convert: impl Fn(i64) -> T + Copy,
) -> Result<Vec<T>, Flaw> {
    let encoding = nested_encoding(input)?;
    decode(encoding, input, selection, convert)
}

/// The number that comes before nested integers.
pub fn nested_encoding(input: &mut Input<'_>) -> Result<Encoding, Flaw> {
    Encoding::from_code(input.u8()?).ok_or(Flaw("integers have an unknown encoding"))
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    fn check(values: &[i64], expected: Encoding) {
        let plan = estimate(values);
        let mut bytes = Vec::new();
        encode_nested(values, &plan, &mut Codes::default(), &mut bytes);
        let mut input = Input::new(&bytes);
        let all = 0..values.len();
        let selection = Selection::new(values.len(), std::slice::from_ref(&all));
        let back = decode_nested(&mut input, &selection, |v| v).unwrap();
        input.finish().unwrap();
        assert!(back == values);
        assert_eq!(plan.encoding(), expected);
    }

    #[test]
    fn each_kind_of_data_meets_its_encoding() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(6);
        check(&[7; 100], Encoding::Constant);
        check(&(0..10_000).map(|row| row / 300 * 7919 % 1000).collect::<Vec<i64>>(), Encoding::Runs);
        check(&(0..10_000).map(|row| row * 10_000_000).collect::<Vec<i64>>(), Encoding::Packed);
        let ones = |_| i64::from(random.random::<u16>().count_ones());
        check(&(0..10_000).map(ones).collect::<Vec<i64>>(), Encoding::Binned);
        let even = |_| random.random_range(0..1024);
        check(&(0..10_000).map(even).collect::<Vec<i64>>(), Encoding::Packed);
    }
}
