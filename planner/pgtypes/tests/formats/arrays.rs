//! Arrays that plans yield in place of a type's own.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use meridian_pgtypes::{Encoder, Format, TimeZone, to_text};
use meridian_proto::SqlType;

fn check(sql_type: &SqlType, array: impl Array + 'static, expected: &[Option<&str>]) {
    let array: ArrayRef = Arc::new(array);
    let given: Vec<Option<String>> =
        (0..array.len()).map(|row| to_text(sql_type, &array, row, &Format::default())).collect();
    let expected: Vec<Option<String>> = expected.iter().map(|value| value.map(str::to_owned)).collect();
    assert_eq!(given, expected, "{sql_type} of {}", array.data_type());
    // Whole arrays give what single rows give, and the binary form says NULL where the text does.
    let encoder = Encoder::new(sql_type, &array, &Format::default());
    for (row, expected) in expected.iter().enumerate() {
        let mut text = bytes::BytesMut::new();
        encoder.text_field(row, &mut text);
        match expected {
            Some(expected) => assert_eq!(&text[4..], expected.as_bytes()),
            None => assert_eq!(&text[..], (-1_i32).to_be_bytes()),
        }
        let mut binary = bytes::BytesMut::new();
        encoder.binary_field(row, &mut binary);
        assert_eq!(binary[..4] == [0xff; 4], expected.is_none());
    }
}

#[test]
fn integers_of_every_width_are_shown() {
    check(&SqlType::Int2, Int8Array::from(vec![Some(-1), None]), &[Some("-1"), None]);
    check(&SqlType::Int2, UInt8Array::from(vec![255]), &[Some("255")]);
    check(&SqlType::Int4, UInt16Array::from(vec![65_535]), &[Some("65535")]);
    check(&SqlType::Int8, UInt32Array::from(vec![u32::MAX]), &[Some("4294967295")]);
    check(&SqlType::Int8, UInt64Array::from(vec![u64::MAX, 1]), &[Some("18446744073709551615"), Some("1")]);
    check(&SqlType::Numeric(Some((20, 0))), UInt64Array::from(vec![u64::MAX]), &[Some("18446744073709551615")]);
    check(&SqlType::Int4, Int64Array::from(vec![i64::MAX]), &[Some("9223372036854775807")]);
    check(&SqlType::Float8, Int32Array::from(vec![5]), &[Some("5")]);
}

#[test]
fn decimals_of_other_scales_are_brought_to_the_types() {
    let decimal = |value: i128, precision, scale| {
        Decimal128Array::from(vec![value]).with_precision_and_scale(precision, scale).expect("in range")
    };
    check(&SqlType::Numeric(Some((10, 2))), decimal(5, 10, 0), &[Some("5.00")]);
    check(&SqlType::Numeric(Some((10, 2))), decimal(12_345, 10, 3), &[Some("12.35")]);
    check(&SqlType::Numeric(None), decimal(12_500, 10, 3), &[Some("12.5")]);
    check(&SqlType::Numeric(Some((10, 2))), Int32Array::from(vec![7]), &[Some("7.00")]);
    check(&SqlType::Numeric(None), Float64Array::from(vec![1.25]), &[Some("1.25")]);
    let wide = Decimal256Array::from(vec![arrow::datatypes::i256::from_i128(12_345)]).with_precision_and_scale(60, 2);
    check(&SqlType::Numeric(Some((60, 2))), wide.expect("in range"), &[Some("123.45")]);
}

#[test]
fn texts_of_every_layout_are_shown() {
    check(&SqlType::Text, LargeStringArray::from(vec![Some("a"), None]), &[Some("a"), None]);
    check(&SqlType::Text, StringViewArray::from(vec![Some("a"), None]), &[Some("a"), None]);
    check(&SqlType::Jsonb, StringViewArray::from(vec![Some("{}"), None]), &[Some("{}"), None]);
    check(&SqlType::Text, NullArray::new(2), &[None, None]);
    check(&SqlType::Int4, NullArray::new(1), &[None]);
    let codes: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("b"), Some("a")].into_iter().collect();
    check(&SqlType::Text, codes, &[Some("a"), None, Some("b"), Some("a")]);
    // A NULL that only the dictionary's values know of.
    let values = StringArray::from(vec![Some("a"), None]);
    let codes = DictionaryArray::new(Int8Array::from(vec![1, 0]), Arc::new(values));
    check(&SqlType::Text, codes, &[None, Some("a")]);
    check(&SqlType::Text, Int32Array::from(vec![5]), &[Some("5")]);
    check(&SqlType::Text, BooleanArray::from(vec![true]), &[Some("t")]);
    check(&SqlType::Bytea, BinaryViewArray::from(vec![Some(&b"\x01"[..])]), &[Some("\\x01")]);
}

#[test]
fn times_of_every_unit_are_shown() {
    let shown = &[Some("1969-12-31 23:59:59+00")];
    check(&SqlType::Timestamptz, TimestampSecondArray::from(vec![-1]).with_timezone("UTC"), shown);
    check(&SqlType::Timestamptz, TimestampMillisecondArray::from(vec![-1000]).with_timezone("+02:00"), shown);
    check(&SqlType::Timestamptz, TimestampNanosecondArray::from(vec![-1_000_000_000]), shown);
    check(&SqlType::Timestamp, TimestampNanosecondArray::from(vec![-1]), &[Some("1969-12-31 23:59:59.999999")]);
    check(&SqlType::Timestamp, TimestampSecondArray::from(vec![i64::MAX]), &[Some("infinity")]);
    check(&SqlType::Date, Date64Array::from(vec![-1, 86_400_000]), &[Some("1969-12-31"), Some("1970-01-02")]);
    check(&SqlType::Time, Time32SecondArray::from(vec![61]), &[Some("00:01:01")]);
    check(&SqlType::Time, Time32MillisecondArray::from(vec![61_500]), &[Some("00:01:01.5")]);
    check(&SqlType::Time, Time64NanosecondArray::from(vec![61_500_000_000]), &[Some("00:01:01.5")]);
    check(&SqlType::Date, TimestampMicrosecondArray::from(vec![86_400_000_000]), &[Some("1970-01-02")]);
}

#[test]
fn durations_are_shown_as_intervals() {
    check(&SqlType::Interval, DurationSecondArray::from(vec![90_061]), &[Some("1 day 01:01:01")]);
    check(&SqlType::Interval, DurationNanosecondArray::from(vec![-1_500_000_000]), &[Some("-00:00:01.5")]);
    // More days than an interval can hold are cut to as many as it can.
    let longest = DurationMillisecondArray::from(vec![i64::MAX]);
    check(&SqlType::Interval, longest, &[Some("2147483647 days 07:12:55.807")]);
    check(&SqlType::Interval, IntervalYearMonthArray::from(vec![14]), &[Some("1 year 2 mons")]);
    let day_time = IntervalDayTime::new(1, 2000);
    check(&SqlType::Interval, IntervalDayTimeArray::from(vec![day_time]), &[Some("1 day 00:00:02")]);
}

#[test]
fn lists_of_every_layout_are_shown() {
    let int4s = SqlType::Array(Box::new(SqlType::Int4));
    let rows = || vec![Some(vec![Some(1), None]), None, Some(vec![])];
    let shown = &[Some("{1,NULL}"), None, Some("{}")];
    check(&int4s, ListArray::from_iter_primitive::<Int32Type, _, _>(rows()), shown);
    check(&int4s, LargeListArray::from_iter_primitive::<Int32Type, _, _>(rows()), shown);
    let pairs = vec![Some(vec![Some(1), None]), None];
    check(&int4s, FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(pairs, 2), &shown[..2]);
    let wide = vec![Some(vec![Some(1_i64), None]), None, Some(vec![])];
    let int8s = ListArray::from_iter_primitive::<Int64Type, _, _>(wide);
    check(&int4s, int8s, shown);
    let mut texts = ListBuilder::new(StringViewBuilder::new());
    texts.values().append_value("a b");
    texts.append(true);
    check(&SqlType::Array(Box::new(SqlType::Text)), texts.finish(), &[Some("{\"a b\"}")]);
}

#[test]
fn a_session_sees_its_own_zone() {
    let array: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC"));
    let format = Format { time_zone: TimeZone::parse("Asia/Kolkata").expect("zone"), ..Format::default() };
    assert_eq!(to_text(&SqlType::Timestamptz, &array, 0, &format).as_deref(), Some("1970-01-01 05:30:00+05:30"));
    assert_eq!(to_text(&SqlType::Timestamp, &array, 0, &format).as_deref(), Some("1970-01-01 00:00:00"));
}
