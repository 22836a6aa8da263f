//! Flags over environment over file over defaults, key by key, each value with its origin.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Form, KEYS, Key};
use crate::failure::Failure;

/// Variables of ours that are no keys.
const OTHER_VARIABLES: &[&str] = &["MERIDIAN_CONFIG", "MERIDIAN_BIN", "MERIDIAN_CLUSTER"];

/// All keys with their values.
#[derive(Clone, Debug)]
pub struct Settings {
    values: BTreeMap<&'static str, (Value, Origin)>,
}

/// A value as it was written, its form checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Count(u64),
    List(Vec<String>),
}

/// Which layer won.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Variable(String),
    Flag(String),
}

/// The layers, lowest first, the defaults understood.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    pub variables: Vec<(String, String)>,
    /// Key, value as text, the flag as the user wrote it.
    pub flags: Vec<(String, String, String)>,
}

impl Sources {
    /// The process's environment and the file that it names, if any.
    pub fn from_environment() -> Self {
        let variables: Vec<_> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("MERIDIAN_"))
            .collect();
        let file = variables.iter().find(|(name, _)| name == "MERIDIAN_CONFIG").map(|(_, path)| path.into());
        Self { file, variables, flags: Vec::new() }
    }
}

impl Settings {
    /// Puts the layers over each other. Every key of every layer is checked, also one that a higher layer hides.
    pub fn load(sources: &Sources) -> Result<Self, Failure> {
        let mut settings = Self::defaults()?;
        if let Some(path) = &sources.file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::usage(format!("could not read config file {}: {error}", path.display())))?;
            settings.add_file(path, &text)?;
        }
        settings.add_variables(&sources.variables)?;
        for (name, text, flag) in &sources.flags {
            settings.add_text(name, text, Origin::Flag(flag.clone()))?;
        }
        Ok(settings)
    }

    fn defaults() -> Result<Self, Failure> {
        let mut settings = Self { values: BTreeMap::new() };
        for key in KEYS {
            settings.add_text(key.name, key.default, Origin::Default)?;
        }
        Ok(settings)
    }

    fn add_file(&mut self, path: &Path, text: &str) -> Result<(), Failure> {
        let document = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            Failure::usage(format!("{}:{line}: {}", path.display(), error.message()))
        })?;
        for (section, entries) in document.get_ref() {
            let at = |key: &Spanned<_>| line_of(text, Spanned::span(key).start);
            let DeValue::Table(entries) = entries.get_ref() else {
                return Err(unknown(section.get_ref(), &format!("{}:{}", path.display(), at(section))));
            };
            for (name, value) in entries {
                let line = at(name);
                let name = format!("{}.{}", section.get_ref(), name.get_ref());
                let origin = Origin::File { path: path.to_owned(), line };
                let Some(key) = keys::find(&name) else { return Err(unknown(&name, &origin.to_string())) };
                let value = from_toml(key, value.get_ref()).map_err(|reason| wrong(key, &origin, &reason))?;
                self.values.insert(key.name, (value, origin));
            }
        }
        Ok(())
    }

    fn add_variables(&mut self, variables: &[(String, String)]) -> Result<(), Failure> {
        for (variable, text) in variables {
            if OTHER_VARIABLES.contains(&variable.as_str()) {
                continue;
            }
            let bare = variable.trim_start_matches("MERIDIAN_").to_lowercase();
            let first = bare.split('_').next().unwrap_or_default();
            let is_section = KEYS.iter().any(|key| key.name.split('.').next() == Some(first));
            if !bare.contains("__") && !is_section {
                // Nothing of ours: a test's or a script's own variable.
                continue;
            }
            let name = bare.replacen("__", ".", 1);
            let Some(key) = keys::find(&name) else {
                let meant = keys::nearest(&name.replace('_', ".")).or_else(|| keys::nearest(&name));
                let hint = meant.and_then(keys::find).map(|key| format!("; did you mean {}?", key.variable()));
                let hint = hint.unwrap_or_default();
                return Err(Failure::usage(format!("environment variable {variable} is no key{hint}")));
            };
            self.add_text(key.name, text, Origin::Variable(variable.clone()))?;
        }
        Ok(())
    }

    fn add_text(&mut self, name: &str, text: &str, origin: Origin) -> Result<(), Failure> {
        let Some(key) = keys::find(name) else { return Err(unknown(name, &origin.to_string())) };
        let value = from_text(key, text).map_err(|reason| wrong(key, &origin, &reason))?;
        self.values.insert(key.name, (value, origin));
        Ok(())
    }

    /// All keys, in the order of the list.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Key, &Value, &Origin)> {
        KEYS.iter().filter_map(|key| self.values.get(key.name).map(|(value, origin)| (key, value, origin)))
    }

    /// Where a key's value came from.
    pub fn origin(&self, name: &str) -> Origin {
        self.values.get(name).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    pub fn text(&self, name: &str) -> String {
        match self.values.get(name) {
            Some((Value::Text(text), _)) => text.clone(),
            Some((Value::Count(count), _)) => count.to_string(),
            Some((Value::List(list), _)) => list.join(","),
            None => String::new(),
        }
    }

    pub fn count(&self, name: &str) -> u64 {
        match self.values.get(name) {
            Some((Value::Count(count), _)) => *count,
            _ => 0,
        }
    }

    pub fn list(&self, name: &str) -> Vec<String> {
        match self.values.get(name) {
            Some((Value::List(list), _)) => list.clone(),
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

impl Value {
    /// As it is written in the file, numbers with the largest unit that leaves them whole.
    pub fn written(&self, form: Form) -> String {
        match (self, form) {
            (Self::Count(count), Form::Bytes) => with_unit(*count, BYTE_UNITS),
            (Self::Count(count), Form::Duration) => with_unit(*count, TIME_UNITS),
            (value, _) => value.to_string(),
        }
    }
}

impl fmt::Display for Value {
    /// As it is written in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{}", toml::Value::String(text.clone())),
            Self::Count(count) => write!(f, "{count}"),
            Self::List(list) => {
                let list = list.iter().cloned().map(toml::Value::String).collect();
                write!(f, "{}", toml::Value::Array(list))
            }
        }
    }
}

fn unknown(name: &str, place: &str) -> Failure {
    let hint = match keys::nearest(name) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "`meridian config show` lists all".to_owned(),
    };
    Failure::usage(format!("{place}: unknown key `{name}`; {hint}"))
}

fn wrong(key: &Key, origin: &Origin, reason: &str) -> Failure {
    Failure::usage(format!("{origin}: `{}` {reason}", key.name))
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn from_toml(key: &Key, value: &DeValue<'_>) -> Result<Value, String> {
    match (key.form, value) {
        (Form::Addresses, DeValue::Array(items)) => {
            let texts = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => check_address(text).map(|()| text.to_string()),
                other => Err(format!("wants a list of addresses, not of {}", with_article(other.type_str()))),
            });
            texts.collect::<Result<_, _>>().map(Value::List)
        }
        (Form::Count | Form::Bytes | Form::Duration, DeValue::Integer(number)) => {
            u64::from_str_radix(number.as_str(), number.radix())
                .map(Value::Count)
                .map_err(|_| format!("wants a whole number, not {number}"))
        }
        (form, DeValue::String(text)) if form != Form::Count => from_text(key, text),
        (form, other) => Err(format!("wants {}, not {}", wanted(form), with_article(other.type_str()))),
    }
}

/// What is said to be wanted where a value has another type.
fn wanted(form: Form) -> &'static str {
    match form {
        Form::Text | Form::Address | Form::Path | Form::Choice(_) => "a text",
        Form::Addresses => "a list of addresses",
        Form::Count => "a whole number",
        Form::Bytes => BYTES_WANTED,
        Form::Duration => DURATION_WANTED,
    }
}

const BYTES_WANTED: &str = "a number of bytes, or one with a unit such as 512MiB";
const DURATION_WANTED: &str = "a time such as 500ms or 2s";

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

fn from_text(key: &Key, text: &str) -> Result<Value, String> {
    let text = text.trim();
    match key.form {
        Form::Text => Ok(Value::Text(text.to_owned())),
        Form::Path if text.is_empty() => Err("wants a path".to_owned()),
        Form::Path => Ok(Value::Text(text.to_owned())),
        // Only a key that may be left out has an empty default.
        Form::Address if text.is_empty() && key.default.is_empty() => Ok(Value::Text(String::new())),
        Form::Address => check_address(text).map(|()| Value::Text(text.to_owned())),
        Form::Addresses => {
            let list: Vec<_> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
            list.iter().try_for_each(|item| check_address(item))?;
            Ok(Value::List(list.into_iter().map(str::to_owned).collect()))
        }
        Form::Count => text.parse().map(Value::Count).map_err(|_| format!("wants a whole number, not \"{text}\"")),
        Form::Bytes => {
            parse_bytes(text).map(Value::Count).ok_or_else(|| format!("wants {BYTES_WANTED}, not \"{text}\""))
        }
        Form::Duration => {
            parse_duration(text).map(Value::Count).ok_or_else(|| format!("wants {DURATION_WANTED}, not \"{text}\""))
        }
        Form::Choice(choices) if choices.contains(&text) => Ok(Value::Text(text.to_owned())),
        Form::Choice(choices) => Err(format!("wants one of {}, not \"{text}\"", choices.join(", "))),
    }
}

const BYTE_UNITS: &[(&str, u64)] =
    &[("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// In milliseconds.
const TIME_UNITS: &[(&str, u64)] = &[("", 1), ("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000)];

fn with_unit(count: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| count > 0 && count.is_multiple_of(*factor);
    match units.iter().rev().find(fits) {
        Some((unit, factor)) if !unit.is_empty() => format!("\"{}{unit}\"", count / factor),
        _ => count.to_string(),
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    parse_with_unit(text, BYTE_UNITS)
}

fn parse_duration(text: &str) -> Option<u64> {
    parse_with_unit(text, TIME_UNITS)
}

fn parse_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let factor = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// `host:port`, `[v6]:port`. Names are resolved when they are used.
pub fn check_address(text: &str) -> Result<(), String> {
    let bad = || format!("wants an address such as 127.0.0.1:5433, not \"{text}\"");
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || port.parse::<u16>().is_err() || (host.contains(':') && !bracketed) {
        return Err(bad());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_error(text: &str) -> String {
        let mut settings = Settings::defaults().unwrap();
        settings.add_file(Path::new("m.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_of_a_file_is_named_with_its_line_and_neighbour() {
        assert_eq!(
            file_error("[sql]\nlisen = \"127.0.0.1:1\"\n"),
            "m.toml:2: unknown key `sql.lisen`; did you mean `sql.listen`?"
        );
        assert_eq!(file_error("listen = \"a:1\"\n"), "m.toml:1: unknown key `listen`; did you mean `sql.listen`?");
        assert_eq!(file_error("zebra = 1\n"), "m.toml:1: unknown key `zebra`; `meridian config show` lists all");
    }

    #[test]
    fn values_of_a_wrong_form_say_what_is_wanted() {
        assert_eq!(
            file_error("[data]\nshards = \"many\"\n"),
            "m.toml:2: `data.shards` wants a whole number, not a string"
        );
        assert_eq!(file_error("[sql]\nlisten = 5433\n"), "m.toml:2: `sql.listen` wants a text, not an integer");
        assert_eq!(
            file_error("[data]\nmemtable = 0.5\n"),
            "m.toml:2: `data.memtable` wants a number of bytes, or one with a unit such as 512MiB, not a float"
        );
        assert_eq!(
            file_error("[log]\n\nformat = \"xml\"\n"),
            "m.toml:3: `log.format` wants one of pretty, json, not \"xml\""
        );
        assert_eq!(
            file_error("[sql]\nlisten = \"5433\"\n"),
            "m.toml:2: `sql.listen` wants an address such as 127.0.0.1:5433, not \"5433\""
        );
        assert!(file_error("[sql\n").starts_with("m.toml:1: "));
    }

    #[test]
    fn a_misspelt_variable_is_refused_and_a_foreign_one_is_not() {
        let mut settings = Settings::defaults().unwrap();
        let mut add = |name: &str| settings.add_variables(&[(name.to_owned(), "127.0.0.1:1".to_owned())]);
        assert_eq!(
            add("MERIDIAN_SQL__LISEN").unwrap_err().to_string(),
            "environment variable MERIDIAN_SQL__LISEN is no key; did you mean MERIDIAN_SQL__LISTEN?"
        );
        assert_eq!(
            add("MERIDIAN_SQL_LISTEN").unwrap_err().to_string(),
            "environment variable MERIDIAN_SQL_LISTEN is no key; did you mean MERIDIAN_SQL__LISTEN?"
        );
        assert!(add("MERIDIAN_DATA_DIR").is_err());
        assert!(add("MERIDIAN_SQL_LISTN").is_err());
        assert!(add("MERIDIAN_BIN").is_ok());
        assert!(add("MERIDIAN_TEST_SEED").is_ok());
        assert!(add("MERIDIAN_SQL__LISTEN").is_ok());
    }

    #[test]
    fn the_higher_layer_wins() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.toml");
        std::fs::write(
            &file,
            "[sql]\nlisten = \"127.0.0.1:1\"\n[data]\nshards = 3\n[cluster]\njoin = [\"a:1\", \"b:2\"]\n",
        )
        .unwrap();
        let sources = Sources {
            file: Some(file.clone()),
            variables: vec![
                ("MERIDIAN_SQL__LISTEN".to_owned(), "127.0.0.1:2".to_owned()),
                ("MERIDIAN_ADMIN__LISTEN".to_owned(), "127.0.0.1:3".to_owned()),
            ],
            flags: vec![("admin.listen".to_owned(), "127.0.0.1:4".to_owned(), "--admin-listen".to_owned())],
        };
        let settings = Settings::load(&sources).unwrap();
        assert_eq!(settings.text("sql.listen"), "127.0.0.1:2");
        assert_eq!(settings.text("admin.listen"), "127.0.0.1:4");
        assert_eq!(settings.origin("admin.listen"), Origin::Flag("--admin-listen".to_owned()));
        assert_eq!(settings.count("data.shards"), 3);
        assert_eq!(settings.origin("data.shards"), Origin::File { path: file, line: 4 });
        assert_eq!(settings.list("cluster.join"), ["a:1", "b:2"]);
        assert_eq!(settings.origin("log.format"), Origin::Default);
    }

    #[test]
    fn units_are_understood() {
        assert_eq!(parse_bytes("512MiB"), Some(512 << 20));
        assert_eq!(parse_bytes("17"), Some(17));
        assert_eq!(parse_bytes("2 GiB"), Some(2 << 30));
        assert_eq!(parse_bytes("2GB"), None);
        assert_eq!(parse_bytes(""), None);
        assert_eq!(parse_bytes("99999999999999999999TiB"), None);
        assert_eq!(parse_duration("500ms"), Some(500));
        assert_eq!(parse_duration("2 s"), Some(2000));
        assert_eq!(parse_duration("250"), Some(250));
        assert_eq!(parse_duration("1.5s"), None);
        assert_eq!(parse_duration("2 days"), None);
    }
}
