//! Single values, text and binary, in and out.

use arrow::array::Array;
use bytes::BytesMut;
use meridian_pgtypes::{ByteaOutput, Encoder, Format, TimeZone, ValueError, from_binary, from_text, to_text};
use meridian_proto::SqlType;

use crate::{cases, text, unescape};

/// Where we differ from PostgreSQL, and why.
fn is_known_difference(sql_type: &str, literal: &str) -> Option<&'static str> {
    match (sql_type, literal) {
        ("integer[]", "[2:4]={1,2,3}" | "[2:3]={1,2,3}") | ("text[]", "[0:1]={a,b}") => {
            Some("arrays that do not start at 1 are refused")
        }
        ("integer[]", "{{}") => Some("several dimensions are refused as such"),
        ("interval", "9223372036854775807 us" | "100000000 hours" | "PT9223372036854S") => {
            Some("Arrow counts an interval's time in nanoseconds")
        }
        _ => None,
    }
}

fn check(sql_type: &str, zone: &str, literal: &[u8]) -> Vec<String> {
    let sql_type = SqlType::parse(sql_type).expect("type");
    let format = Format { time_zone: TimeZone::parse(zone).expect("zone"), ..Format::default() };
    let array = match from_text(&sql_type, literal, &format) {
        Ok(array) => array,
        Err(ValueError { sqlstate, message, detail, hint, .. }) => {
            return vec![sqlstate.to_owned(), message, detail.unwrap_or_default(), hint.unwrap_or_default()];
        }
    };
    let printed = to_text(&sql_type, &array, 0, &format).expect("not null");
    let mut binary = BytesMut::new();
    Encoder::new(&sql_type, &array, &format).binary(0, &mut binary);
    let again = from_text(&sql_type, printed.as_bytes(), &format).expect("our own text is read");
    if printed == "NaN" {
        // The text does not have a NaN's sign.
        assert_eq!(to_text(&sql_type, &again, 0, &format).as_deref(), Some("NaN"), "text NaN of {sql_type}");
    } else {
        assert_eq!(again.to_data(), array.to_data(), "text {printed} of {sql_type}");
    }
    let again = from_binary(&sql_type, &binary).expect("our own binary form is read");
    assert_eq!(again.to_data(), array.to_data(), "binary form of {sql_type} {printed}");
    vec!["ok".to_owned(), printed, binary.iter().map(|byte| format!("{byte:02x}")).collect()]
}

#[test]
fn values_are_read_and_printed_as_postgresql_does() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in cases(include_str!("values.tsv")) {
        let [sql_type, zone, literal, expected @ ..] = case.as_slice() else { panic!("too few fields: {case:?}") };
        count += 1;
        let expected: Vec<String> = expected.iter().map(|field| text(field)).collect();
        let given = check(sql_type, zone, &unescape(literal));
        if given != expected && is_known_difference(sql_type, literal).is_none() {
            wrong.push(format!("{sql_type} {zone} '{literal}'\n  PostgreSQL {expected:?}\n  ours       {given:?}"));
        }
    }
    assert!(count > 2000, "{count} cases");
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn an_array_that_does_not_start_at_1_is_refused() {
    let integers = SqlType::parse("integer[]").expect("type");
    let refused = from_text(&integers, b"[2:3]={1,2}", &Format::default()).expect_err("text");
    assert_eq!(refused.sqlstate, "0A000");
    assert_eq!(printed(&integers, "[1:2]={1,2}", &Format::default()), "{1,2}");
    // One dimension, no NULL, OID of integer; length, first index; the element with its length.
    let binary = |first: i32| [1, 0, 23, 1, first, 4, 7].map(i32::to_be_bytes).concat();
    assert_eq!(from_binary(&integers, &binary(2)).expect_err("binary").sqlstate, "0A000");
    assert!(from_binary(&integers, &binary(1)).is_ok());
}

fn printed(sql_type: &SqlType, literal: &str, format: &Format) -> String {
    let array = from_text(sql_type, literal.as_bytes(), format).expect("literal");
    to_text(sql_type, &array, 0, format).expect("not null")
}

#[test]
fn an_unlimited_numeric_shows_no_zeros_at_its_end_and_refuses_what_it_cannot_hold() {
    let format = Format::default();
    for (literal, expected) in [
        ("1.50", "1.5"),
        ("1.00", "1"),
        ("100", "100"),
        ("-0.0", "0"),
        ("0.0000000000000001", "0.0000000000000001"),
        ("1.00000000000000000000", "1"),
        ("9999999999999999999999.9999999999999999", "9999999999999999999999.9999999999999999"),
        ("12e3", "12000"),
        ("12e-3", "0.012"),
    ] {
        assert_eq!(printed(&SqlType::Numeric(None), literal, &format), expected);
    }
    for literal in
        ["0.00000000000000001", "1.00000000000000001", "10000000000000000000000", "1e22", "1e-17", "NaN", "inf"]
    {
        let error = from_text(&SqlType::Numeric(None), literal.as_bytes(), &format).expect_err(literal);
        assert_eq!((error.sqlstate, error.message.as_str()), ("22003", "numeric field overflow"), "{literal}");
        assert!(error.detail.is_some());
    }
}

#[test]
fn fewer_float_digits_round() {
    let format = Format { extra_float_digits: 0, ..Format::default() };
    for (literal, expected) in [
        ("0.30000000000000004", "0.3"),
        ("1e20", "1e+20"),
        ("123456789012345678", "1.23456789012346e+17"),
        ("0.1", "0.1"),
    ] {
        assert_eq!(printed(&SqlType::Float8, literal, &format), expected);
    }
    assert_eq!(printed(&SqlType::Float4, "3.14159274", &format), "3.14159");
    let format = Format { extra_float_digits: -13, ..Format::default() };
    assert_eq!(printed(&SqlType::Float8, "123.456", &format), "1.2e+02");
}

#[test]
fn bytea_is_also_printed_in_escapes() {
    let format = Format { bytea_output: ByteaOutput::Escape, ..Format::default() };
    assert_eq!(printed(&SqlType::Bytea, "\\x005c61ff", &format), "\\000\\\\a\\377");
}

#[test]
fn now_and_its_neighbours_are_those_of_the_transaction() {
    let time_zone = TimeZone::parse("Asia/Tokyo").expect("zone");
    // 2024-05-01 20:00:00.5 UTC, already the next day in Tokyo.
    let format = Format { time_zone, now_us: Some(1_714_593_600_500_000), ..Format::default() };
    for (literal, expected) in [
        ("now", "2024-05-02 05:00:00.5+09"),
        ("today", "2024-05-02 00:00:00+09"),
        ("tomorrow", "2024-05-03 00:00:00+09"),
        ("yesterday", "2024-05-01 00:00:00+09"),
        ("today 12:30", "2024-05-02 12:30:00+09"),
        ("tomorrow allballs", "2024-05-03 09:00:00+09"),
    ] {
        assert_eq!(printed(&SqlType::Timestamptz, literal, &format), expected);
    }
    assert_eq!(printed(&SqlType::Date, "now", &format), "2024-05-02");
    assert_eq!(printed(&SqlType::Timestamp, "now", &format), "2024-05-02 05:00:00.5");
    assert_eq!(printed(&SqlType::Time, "now", &format), "05:00:00.5");
}

#[test]
fn timestamps_end_where_a_number_of_64_bits_ends() {
    let format = Format::default();
    assert_eq!(
        printed(&SqlType::Timestamptz, "294247-01-10 04:00:54.775806", &format),
        "294247-01-10 04:00:54.775806+00"
    );
    let error =
        from_text(&SqlType::Timestamptz, b"294247-01-10 04:00:54.775807", &format).expect_err("infinity's place");
    assert_eq!(error.sqlstate, "22008");
    assert_eq!(error.message, "timestamp out of range: \"294247-01-10 04:00:54.775807\"");
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let format = Format::default();
    for (bytes, shown) in
        [(&b"a\xff"[..], "0xff"), (b"\xc3(", "0xc3 0x28"), (b"\xe2\x82", "0xe2 0x82"), (b"a\0b", "0x00")]
    {
        let error = from_text(&SqlType::Text, bytes, &format).expect_err("invalid");
        assert_eq!(error.sqlstate, "22021");
        assert_eq!(error.message, format!("invalid byte sequence for encoding \"UTF8\": {shown}"));
        assert!(from_text(&SqlType::Jsonb, bytes, &format).is_err());
    }
}

#[test]
fn deep_json_is_refused() {
    let deep = "[".repeat(100_000);
    let error = from_text(&SqlType::Jsonb, deep.as_bytes(), &Format::default()).expect_err("too deep");
    assert_eq!(error.sqlstate, "54001");
    let fair = format!("{}1{}", "[".repeat(400), "]".repeat(400));
    assert_eq!(printed(&SqlType::Jsonb, &fair, &Format::default()), fair);
}
