//! Our formats against PostgreSQL's: every case of values.tsv and copy.tsv, which a real server answered, and random data.

mod arrays;
mod copy;
mod random;
mod values;

/// A field of the recorded files as bytes: `\n`, `\r`, `\t`, `\\` and `\xHH` stand for single ones.
fn unescape(field: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some(place) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..place]);
        let kind = rest.as_bytes()[place + 1];
        let mut length = 2;
        bytes.push(match kind {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                length = 4;
                u8::from_str_radix(&rest[place + 2..place + 4], 16).expect("two digits")
            }
            other => other,
        });
        rest = &rest[place + length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

fn text(field: &str) -> String {
    String::from_utf8(unescape(field)).expect("recorded text is UTF-8")
}

/// The cases of a recorded file, as fields.
fn cases(file: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    file.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect())
}
