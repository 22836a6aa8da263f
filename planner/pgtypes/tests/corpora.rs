//! What fuzzing starts from and what it has found, once more: nothing may come of it but values and errors.

use std::path::{Path, PathBuf};

use bytes::BytesMut;
use meridian_pgtypes::arbitrary::{copy_arbitrary, types, value_arbitrary};
use meridian_pgtypes::{Encoder, Format, from_text};

/// A text of each of [`types`].
const TEXTS: [&str; 23] = [
    "true",
    "-32768",
    "2147483647",
    "-9223372036854775808",
    "1.17549435e-38",
    "-1.7976931348623157e+308",
    "-12345678901234567890.000123",
    "1234567890.12",
    "Größe 🌍",
    "ten chars!",
    "abc  ",
    "2024-02-29 12:34:56.789012+05:30",
    "294246-12-31 23:59:59.999999",
    "0044-03-15 BC",
    "24:00:00",
    "1 year -2 mons +3 days -04:05:06.000007",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    r"\xdeadbeef00",
    r#"{"a": [1, 2.50, null, "\u00e9\\"], "b": {}}"#,
    "{1,NULL,-3}",
    r#"{"a b",NULL,"\"{}\\",c}"#,
    "{1.50,NULL,-0.001}",
    r#"{"2024-02-29 12:34:56+00",infinity,NULL}"#,
];

const COPIES: [(&str, u8, &[u8]); 5] = [
    ("text", 0, b"2024-02-29 12:34:56+00\thost\\t1\t1.5\t7\t{a,NULL}\n\\N\t\\N\t\\N\t\\N\t\\N\ninfinity\t\\x41\\101\tNaN\t-1\t{}\n\\.\n"),
    ("text-header", 0x10, b"time\thost\tvalue\tcount\tlist\r\n2024-02-29\ta\\\nb\t1\t2\t{}\r\n"),
    ("csv", 1, b"2024-02-29 12:34:56+00,\"a\"\"b,\nc\",1.5,7,\"{a,NULL}\"\n,,,,\n-infinity,\"\",NaN,-1,{}\n"),
    ("csv-header", 0x11, b"time,host,value,count,list\n2024-02-29,x,1e300,+5,\"{\"\"a b\"\"}\"\n\\.\n"),
    ("binary", 2, b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x05\0\0\0\x08\0\x02\xb5\x85\x41\x22\x40\0\0\0\0\x01x\
        \0\0\0\x08\x3f\xf8\0\0\0\0\0\0\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff\xff\xff"),
];

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// With `MERIDIAN_WRITE_CORPUS=1`, writes what fuzzing begins with.
fn keep(target: &str, name: &str, bytes: &[u8]) {
    if std::env::var_os("MERIDIAN_WRITE_CORPUS").is_some() {
        std::fs::create_dir_all(corpus(target)).unwrap();
        std::fs::write(corpus(target).join(name), bytes).unwrap();
    }
}

fn replay(target: &str, run: fn(&[u8])) {
    let mut count = 0;
    for file in std::fs::read_dir(corpus(target)).unwrap() {
        let path = file.unwrap().path();
        // Named before it is run: a panic shows which one it was.
        println!("{}", path.display());
        run(&std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0, "the corpus of {target} is not in the tree");
}

#[test]
fn a_value_of_each_type_is_read_again_in_both_forms() {
    for (kind, (sql_type, text)) in types().iter().zip(TEXTS).enumerate() {
        let array = from_text(sql_type, text.as_bytes(), &Format::default()).unwrap();
        let mut binary = BytesMut::new();
        Encoder::new(sql_type, &array, &Format::default()).binary(0, &mut binary);
        for (name, form, value) in [("text", 0, text.as_bytes()), ("binary", 1, &binary)] {
            let input = [&[kind as u8, form], value].concat();
            value_arbitrary(&input);
            keep("value", &format!("{kind:02}-{name}"), &input);
        }
    }
}

#[test]
fn copied_rows_of_each_format_are_read_again() {
    for (name, form, data) in COPIES {
        let input = [&[form, 6], data].concat();
        copy_arbitrary(&input);
        keep("copy", name, &input);
    }
}

#[test]
fn values_are_read_or_refused() {
    replay("value", value_arbitrary);
}

#[test]
fn copied_rows_are_read_or_refused() {
    replay("copy", copy_arbitrary);
}
