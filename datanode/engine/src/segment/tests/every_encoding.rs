//! Each encoding on values that were picked to be hard, whether or not the writer would choose it for them: every bit
//! comes back.

use std::ops::Range;

use arrow::buffer::NullBuffer;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::encoding::decimal::{self, Float};
use super::super::encoding::huffman::Codes;
use super::super::encoding::integers::{self, Plan};
use super::super::encoding::plain::Fixed;
use super::super::encoding::selection::Selection;
use super::super::encoding::{
    Coders, Encoding, Input, binned, bytes, constant, dictionary, packed, plain, runs, split,
};
use super::some_ranges;

/// Below, at and over the borders of blocks, of symbols and of tables.
const LENGTHS: [usize; 10] = [1, 2, 7, 255, 256, 257, 1023, 1024, 1025, 2500];

/// Bit patterns that are odd as integers or as floats.
fn odd_bits() -> Vec<u64> {
    let mut bits: Vec<u64> = (0..64).flat_map(|bit| [1 << bit, (1 << bit) - 1, u64::MAX << bit]).collect();
    let doubles = [
        -0.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
        0.1 + 0.2,
        1e22,
        1e23,
        9_007_199_254_740_993.0,
        2_251_799_813_685_248.0,
        -2_251_799_813_685_249.0,
        123_456_789.123_456_78,
        1e-17,
    ];
    bits.extend(doubles.map(f64::to_bits));
    bits.extend([-0.0f32, f32::NAN, f32::MAX, 1e-45, 16_777_217.0, 0.1].map(|float| u64::from(float.to_bits())));
    // Quiet and signalling NaNs with payloads, of both widths and signs.
    bits.extend([0x7ff0_0000_0000_0001, 0xfff0_dead_beef_0001, 0x7fff_ffff_ffff_ffff, 0xfff8_0000_0000_0001]);
    bits.extend([0x7f80_0001, 0xff80_beef, 0x7fff_ffff, 0xffc0_0001]);
    bits
}

/// Sequences of bit patterns: alone, alternating, in runs, walking, with few and with many outliers.
fn sequences() -> Vec<Vec<u64>> {
    let odd = odd_bits();
    let mut random = ChaCha8Rng::seed_from_u64(51);
    let mut sequences = Vec::new();
    for rows in LENGTHS {
        let pick = |random: &mut ChaCha8Rng| odd[random.random_range(0..odd.len())];
        let (one, other) = (pick(&mut random), pick(&mut random));
        sequences.push(vec![one; rows]);
        sequences.push((0..rows).map(|row| if row % 2 == 0 { one } else { other }).collect());
        sequences.push((0..rows).map(|row| odd[row / 40 % odd.len()]).collect());
        sequences.push((0..rows).map(|row| odd[row % odd.len()]).collect());
        sequences.push((0..rows).map(|_| pick(&mut random)).collect());
        sequences.push((0..rows).map(|_| random.random()).collect());
        for one_in in [2, 20, 300] {
            let step = random.random::<u64>() >> random.random_range(0..64);
            let base = pick(&mut random);
            let walk = |row: usize, random: &mut ChaCha8Rng| match random.random_ratio(1, one_in) {
                true => pick(random),
                false => base.wrapping_add(step.wrapping_mul(row as u64)).wrapping_add(random.random_range(0..9)),
            };
            sequences.push((0..rows).map(|row| walk(row, &mut random)).collect());
            let decimal = |row: usize, random: &mut ChaCha8Rng| match random.random_ratio(1, one_in) {
                true => pick(random),
                false => ((row as f64 * 7.0 + random.random_range(-500..500) as f64) / 100.0).to_bits(),
            };
            sequences.push((0..rows).map(|row| decimal(row, &mut random)).collect());
        }
    }
    sequences
}

/// Every way in which the integers can be written.
fn plans(values: &[i64]) -> Vec<Plan> {
    let mut plans = vec![Plan::Packed(packed::estimate(values))];
    plans.extend(binned::estimate(values).map(Plan::Binned));
    plans.extend(runs::estimate(values).map(Plan::Runs));
    plans.extend(constant::estimate(values, |a, b| a == b).map(|_| Plan::Constant));
    plans
}

/// Which rows are wanted: all of them, and some.
fn selections(rows: usize) -> [Vec<Range<usize>>; 2] {
    let all = 0..rows;
    [vec![all], some_ranges(&mut ChaCha8Rng::seed_from_u64(rows as u64), rows)]
}

/// What `decode` makes of the bytes for each of the [`selections`], beside what it should be.
fn check_decoded<T: Copy>(
    bytes: &[u8],
    expected: &[T],
    decode: impl Fn(&mut Input<'_>, &Selection<'_>) -> Vec<T>,
    same: impl Fn(&T, &T) -> bool,
    what: &str,
) {
    for ranges in selections(expected.len()) {
        let selection = Selection::new(expected.len(), &ranges);
        let mut input = Input::new(bytes);
        let back = decode(&mut input, &selection);
        input.finish().expect("an encoder leaves nothing over");
        let expected = selection.pick(expected.to_vec());
        let is_same = back.len() == expected.len() && back.iter().zip(&expected).all(|(a, b)| same(a, b));
        assert!(is_same, "{what} of {} rows, {} of them wanted", selection.rows(), selection.count());
    }
}

/// Encoded in each way; `convert` is what the integers are decoded to.
fn check_integers<T: Copy + Default + PartialEq>(values: &[i64], convert: impl Fn(i64) -> T + Copy) -> usize {
    let expected: Vec<T> = values.iter().map(|value| convert(*value)).collect();
    let plans = plans(values);
    for plan in &plans {
        let mut bytes = Vec::new();
        integers::encode_nested(values, plan, &mut Codes::default(), &mut bytes);
        let decode = |input: &mut Input<'_>, selection: &Selection<'_>| {
            integers::decode_nested(input, selection, convert).unwrap()
        };
        check_decoded(&bytes, &expected, decode, |a, b| a == b, &format!("{:?}", plan.encoding()));
    }
    plans.len()
}

/// Encoded in each way in which floats can be.
fn check_floats<T: Float>(values: &[T]) {
    let same = |a: &T, b: &T| a.same_bits(*b);
    let mut bytes = Vec::new();
    plain::encode(values, &mut bytes);
    check_decoded(&bytes, values, |input, selection| plain::decode(input, selection).unwrap(), same, "plain");
    if let Some(plan) = decimal::estimate(values) {
        bytes.clear();
        decimal::encode(values, &plan, &mut Codes::default(), &mut bytes);
        let decode = |input: &mut Input<'_>, selection: &Selection<'_>| {
            decimal::decode(Encoding::Scaled, input, selection).unwrap()
        };
        check_decoded(&bytes, values, decode, same, "scaled");
    }
    if let Some(plan) = split::estimate(values) {
        bytes.clear();
        split::encode(values, &plan, &mut Codes::default(), &mut bytes);
        check_decoded(&bytes, values, |input, selection| split::decode(input, selection).unwrap(), same, "split");
    }
    let ordered: Vec<i64> = values.iter().map(|value| value.to_ordered()).collect();
    for plan in plans(&ordered) {
        bytes.clear();
        integers::encode_nested(&ordered, &plan, &mut Codes::default(), &mut bytes);
        let decode = |input: &mut Input<'_>, selection: &Selection<'_>| {
            integers::decode_nested(input, selection, T::of_ordered).unwrap()
        };
        check_decoded(&bytes, values, decode, same, "ordered");
    }
}

#[test]
fn integers_come_back_from_every_encoding() {
    let mut ways = 0;
    for bits in sequences() {
        let wide: Vec<i64> = bits.iter().map(|bits| *bits as i64).collect();
        ways += check_integers(&wide, |value| value);
        ways += check_integers(&wide, i128::from);
        let half: Vec<i64> = bits.iter().map(|bits| i64::from(*bits as i32)).collect();
        ways += check_integers(&half, |value| value as i32);
        let short: Vec<i64> = bits.iter().map(|bits| i64::from(*bits as i16)).collect();
        ways += check_integers(&short, |value| value as i16);
    }
    assert!(ways > 800, "each sequence has several ways: {ways}");
}

#[test]
fn floats_come_back_from_every_encoding() {
    for bits in sequences() {
        check_floats(&bits.iter().map(|bits| f64::from_bits(*bits)).collect::<Vec<_>>());
        check_floats(&bits.iter().map(|bits| f32::from_bits(*bits as u32)).collect::<Vec<_>>());
        // The high half as well: exponents of doubles are none of floats.
        check_floats(&bits.iter().map(|bits| f32::from_bits((*bits >> 32) as u32)).collect::<Vec<_>>());
    }
}

#[test]
fn sixteen_bytes_come_back_from_every_encoding() {
    for bits in sequences() {
        let values: Vec<[u8; 16]> =
            bits.iter().map(|bits| (u128::from(*bits) << 64 | u128::from(bits.reverse_bits())).to_le_bytes()).collect();
        let mut encoded = Vec::new();
        plain::encode(&values, &mut encoded);
        check_decoded(
            &encoded,
            &values,
            |input, selection| plain::decode(input, selection).unwrap(),
            |a, b| a == b,
            "16",
        );
        assert_eq!(encoded.len(), values.len() * <[u8; 16]>::WIDTH_BYTES);
        check_bytes(&values.iter().map(|value| Some(value.to_vec())).collect::<Vec<_>>());
    }
}

/// As a dictionary, if one applies, and as lengths and bytes.
fn check_bytes(values: &[Option<Vec<u8>>]) {
    let rows = values.len();
    let value = |row: usize| values[row].as_deref();
    let mut encoded = Vec::new();
    let plan = bytes::estimate(rows, |row| value(row).unwrap_or_default());
    bytes::encode(&plan, |row| value(row).unwrap_or_default(), &mut encoded);
    assert_eq!(encoded.len(), plan.bytes, "the estimate is exact");
    check_spelled(values, &encoded, |input, selection| bytes::decode(input, selection).unwrap());
    if let Some(plan) = dictionary::estimate(rows, value) {
        encoded.clear();
        dictionary::encode(&plan, &mut Coders::new().unwrap(), &mut encoded);
        check_spelled(values, &encoded, |input, selection| {
            let codes = dictionary::decode_codes(Encoding::Terms, input, selection).unwrap();
            let nulls = values.iter().map(Option::is_some).collect();
            dictionary::spell(codes, Some(&NullBuffer::new(selection.pick_bits(nulls)))).unwrap()
        });
    }
}

fn check_spelled(
    values: &[Option<Vec<u8>>],
    encoded: &[u8],
    decode: impl Fn(&mut Input<'_>, &Selection<'_>) -> bytes::Decoded,
) {
    for ranges in selections(values.len()) {
        let mut input = Input::new(encoded);
        let selection = Selection::new(values.len(), &ranges);
        let decoded = decode(&mut input, &selection);
        input.finish().expect("an encoder leaves nothing over");
        assert_eq!(decoded.offsets.len(), selection.count() + 1);
        for (row, span) in ranges.iter().cloned().flatten().zip(decoded.offsets.windows(2)) {
            let back = &decoded.bytes[span[0] as usize..span[1] as usize];
            assert!(back == values[row].as_deref().unwrap_or_default(), "{:?} became {back:?}", values[row]);
        }
    }
}

#[test]
fn texts_come_back_from_every_encoding() {
    let odd: [&[u8]; 9] =
        [b"", b"\0", b"\0\0", b"a", &[0xff; 15], &[0xff; 16], &[0x7f; 17], "\u{10ffff}ß".as_bytes(), &[b'x'; 3000]];
    let mut random = ChaCha8Rng::seed_from_u64(52);
    for rows in LENGTHS {
        for (distinct, null_percent) in [(1, 0), (2, 50), (9, 0), (9, 10), (5000, 0), (5000, 90)] {
            let text = |random: &mut ChaCha8Rng| match random.random_range(0..distinct) {
                number if number < odd.len() => odd[number].to_vec(),
                number => format!("host-{number:0width$}", width = number % 40).into_bytes(),
            };
            let values: Vec<Option<Vec<u8>>> =
                (0..rows).map(|_| (!random.random_ratio(null_percent, 100)).then(|| text(&mut random))).collect();
            check_bytes(&values);
        }
    }
}
