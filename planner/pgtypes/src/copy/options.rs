//! The options of a COPY statement.

use crate::error::{INVALID_PARAMETER, NOT_SUPPORTED, ValueError};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyFormat {
    #[default]
    Text,
    Csv,
    Binary,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyHeader {
    #[default]
    None,
    /// In: the first line is skipped. Out: it is written.
    Present,
    /// In: the first line must name the columns.
    Match,
}

/// A choice of columns by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CopyColumns {
    #[default]
    None,
    All,
    Named(Vec<String>),
}

impl CopyColumns {
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Named(names) => names.iter().any(|n| n == name),
        }
    }

    /// The first name that is not among `columns`.
    fn unknown<'a>(&'a self, columns: &[&str]) -> Option<&'a str> {
        match self {
            Self::Named(names) => names.iter().map(String::as_str).find(|name| !columns.contains(name)),
            Self::None | Self::All => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyDirection {
    /// COPY FROM
    In,
    /// COPY TO
    Out,
}

/// The value of an option as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyOptionValue {
    /// `HEADER` alone.
    None,
    /// A word, number or string.
    Text(String),
    /// `*`
    Star,
    /// `(a, b)`
    List(Vec<String>),
}

/// The options of a COPY statement, the format's defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    pub format: CopyFormat,
    pub delimiter: u8,
    pub null: String,
    pub header: CopyHeader,
    pub quote: u8,
    pub escape: u8,
    pub force_quote: CopyColumns,
    pub force_not_null: CopyColumns,
    pub force_null: CopyColumns,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self::of_format(CopyFormat::Text)
    }
}

const SYNTAX: &str = "42601";
const UNDEFINED_COLUMN: &str = "42703";
const INVALID_COLUMN_REFERENCE: &str = "42P10";

fn unsupported(message: impl Into<String>) -> ValueError {
    ValueError::new(NOT_SUPPORTED, message)
}

fn invalid(message: impl Into<String>) -> ValueError {
    ValueError::new(INVALID_PARAMETER, message)
}

impl CopyOptions {
    /// The defaults of a format.
    #[must_use]
    pub fn of_format(format: CopyFormat) -> Self {
        let is_csv = format == CopyFormat::Csv;
        Self {
            format,
            delimiter: if is_csv { b',' } else { b'\t' },
            null: if is_csv { String::new() } else { "\\N".to_owned() },
            header: CopyHeader::None,
            quote: b'"',
            escape: b'"',
            force_quote: CopyColumns::None,
            force_not_null: CopyColumns::None,
            force_null: CopyColumns::None,
        }
    }

    /// Reads the list of options behind WITH, names in lower case, and checks that they fit together.
    pub fn try_new(list: &[(String, CopyOptionValue)], direction: CopyDirection) -> Result<Self, ValueError> {
        let given = Given::read(list)?;
        let mut options = Self::of_format(given.format.unwrap_or_default());
        let is_binary = options.format == CopyFormat::Binary;
        if is_binary && given.delimiter.is_some() {
            return Err(ValueError::new(SYNTAX, "cannot specify DELIMITER in BINARY mode"));
        }
        if is_binary && given.null.is_some() {
            return Err(ValueError::new(SYNTAX, "cannot specify NULL in BINARY mode"));
        }
        if let Some(delimiter) = given.delimiter {
            options.delimiter = one_byte(&delimiter, "COPY delimiter must be a single one-byte character")?;
        }
        if let Some(null) = given.null {
            options.null = null;
        }
        options.header = given.header.unwrap_or_default();
        options.check_delimiter()?;
        if is_binary && options.header != CopyHeader::None {
            return Err(unsupported("cannot specify HEADER in BINARY mode"));
        }
        if options.header == CopyHeader::Match && direction == CopyDirection::Out {
            return Err(unsupported("cannot use \"match\" with HEADER in COPY TO"));
        }
        if options.format != CopyFormat::Csv {
            for (name, is_given) in [("quote", given.quote.is_some()), ("escape", given.escape.is_some())] {
                if is_given {
                    return Err(unsupported(format!("COPY {name} available only in CSV mode")));
                }
            }
        }
        if let Some(quote) = &given.quote {
            options.quote = one_byte(quote, "COPY quote must be a single one-byte character")?;
        }
        if options.format == CopyFormat::Csv && options.delimiter == options.quote {
            return Err(invalid("COPY delimiter and quote must be different"));
        }
        options.escape = match &given.escape {
            Some(escape) => one_byte(escape, "COPY escape must be a single one-byte character")?,
            None => options.quote,
        };
        options.force_quote = given.force_quote.unwrap_or_default();
        options.force_not_null = given.force_not_null.unwrap_or_default();
        options.force_null = given.force_null.unwrap_or_default();
        options.check_forced(direction)?;
        Ok(options)
    }

    fn check_delimiter(&self) -> Result<(), ValueError> {
        if matches!(self.delimiter, b'\r' | b'\n') {
            return Err(invalid("COPY delimiter cannot be newline or carriage return"));
        }
        if self.null.contains(['\r', '\n']) {
            return Err(invalid("COPY null representation cannot use newline or carriage return"));
        }
        // Letters and digits would be read as what follows a backslash.
        let is_ambiguous = b"\\.abcdefghijklmnopqrstuvwxyz0123456789".contains(&self.delimiter);
        if self.format == CopyFormat::Text && is_ambiguous {
            return Err(invalid(format!("COPY delimiter cannot be \"{}\"", char::from(self.delimiter))));
        }
        Ok(())
    }

    fn check_forced(&self, direction: CopyDirection) -> Result<(), ValueError> {
        let is_csv = self.format == CopyFormat::Csv;
        let forced = [
            ("force quote", &self.force_quote, CopyDirection::Out),
            ("force not null", &self.force_not_null, CopyDirection::In),
            ("force null", &self.force_null, CopyDirection::In),
        ];
        for (name, columns, allowed) in forced {
            if *columns == CopyColumns::None {
                continue;
            }
            if !is_csv {
                return Err(unsupported(format!("COPY {name} available only in CSV mode")));
            }
            if direction != allowed {
                let only = if allowed == CopyDirection::Out { "COPY TO" } else { "COPY FROM" };
                return Err(unsupported(format!("COPY {name} only available using {only}")));
            }
        }
        if self.format != CopyFormat::Binary && self.null.as_bytes().contains(&self.delimiter) {
            return Err(unsupported("COPY delimiter must not appear in the NULL specification"));
        }
        if is_csv && self.null.as_bytes().contains(&self.quote) {
            return Err(unsupported("CSV quote character must not appear in the NULL specification"));
        }
        Ok(())
    }

    /// Checks that the forced columns are among the columns that are copied.
    pub fn check_columns(&self, columns: &[&str]) -> Result<(), ValueError> {
        let forced = [
            ("FORCE_QUOTE", &self.force_quote),
            ("FORCE_NOT_NULL", &self.force_not_null),
            ("FORCE_NULL", &self.force_null),
        ];
        for (option, names) in forced {
            if let Some(name) = names.unknown(columns) {
                let message = format!("{option} column \"{name}\" not referenced by COPY");
                return Err(ValueError::new(INVALID_COLUMN_REFERENCE, message));
            }
        }
        Ok(())
    }

    /// `column "x" of relation "t" does not exist`, for whoever resolves names.
    #[must_use]
    pub fn unknown_column(column: &str, table: &str) -> ValueError {
        ValueError::new(UNDEFINED_COLUMN, format!("column \"{column}\" of relation \"{table}\" does not exist"))
    }
}

/// The options as given, each at most once.
#[derive(Default)]
struct Given {
    format: Option<CopyFormat>,
    delimiter: Option<String>,
    null: Option<String>,
    header: Option<CopyHeader>,
    quote: Option<String>,
    escape: Option<String>,
    force_quote: Option<CopyColumns>,
    force_not_null: Option<CopyColumns>,
    force_null: Option<CopyColumns>,
}

impl Given {
    fn read(list: &[(String, CopyOptionValue)]) -> Result<Self, ValueError> {
        let mut given = Self::default();
        let mut names: Vec<&str> = Vec::new();
        for (name, value) in list {
            if names.contains(&name.as_str()) {
                return Err(ValueError::new(SYNTAX, "conflicting or redundant options"));
            }
            names.push(name);
            given.read_option(name, value)?;
        }
        Ok(given)
    }

    fn read_option(&mut self, name: &str, value: &CopyOptionValue) -> Result<(), ValueError> {
        match name {
            "format" => self.format = Some(format(&text(name, value)?)?),
            "delimiter" => self.delimiter = Some(text(name, value)?),
            "null" => self.null = Some(text(name, value)?),
            "header" => self.header = Some(header(value)?),
            "quote" => self.quote = Some(text(name, value)?),
            "escape" => self.escape = Some(text(name, value)?),
            "force_quote" => self.force_quote = Some(columns(name, value, true)?),
            "force_not_null" => self.force_not_null = Some(columns(name, value, false)?),
            "force_null" => self.force_null = Some(columns(name, value, false)?),
            "encoding" => encoding(&text(name, value)?)?,
            // Rows are never frozen: a hint that pgbench gives.
            "freeze" => drop(boolean(name, value)?),
            _ => return Err(ValueError::new(SYNTAX, format!("option \"{name}\" not recognized"))),
        }
        Ok(())
    }
}

fn text(name: &str, value: &CopyOptionValue) -> Result<String, ValueError> {
    match value {
        CopyOptionValue::Text(text) => Ok(text.clone()),
        _ => Err(ValueError::new(SYNTAX, format!("{name} requires a parameter"))),
    }
}

fn format(text: &str) -> Result<CopyFormat, ValueError> {
    match text {
        "text" => Ok(CopyFormat::Text),
        "csv" => Ok(CopyFormat::Csv),
        "binary" => Ok(CopyFormat::Binary),
        _ => Err(invalid(format!("COPY format \"{text}\" not recognized"))),
    }
}

fn header(value: &CopyOptionValue) -> Result<CopyHeader, ValueError> {
    if let CopyOptionValue::Text(text) = value
        && text.eq_ignore_ascii_case("match")
    {
        return Ok(CopyHeader::Match);
    }
    let is_present = boolean("header", value)
        .map_err(|_| ValueError::new(SYNTAX, "header requires a Boolean value or \"match\""))?;
    Ok(if is_present { CopyHeader::Present } else { CopyHeader::None })
}

fn boolean(name: &str, value: &CopyOptionValue) -> Result<bool, ValueError> {
    let refused = || ValueError::new(SYNTAX, format!("{name} requires a Boolean value"));
    match value {
        CopyOptionValue::None => Ok(true),
        CopyOptionValue::Text(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err(refused()),
        },
        CopyOptionValue::Star | CopyOptionValue::List(_) => Err(refused()),
    }
}

fn columns(name: &str, value: &CopyOptionValue, allows_star: bool) -> Result<CopyColumns, ValueError> {
    match value {
        CopyOptionValue::Star if allows_star => Ok(CopyColumns::All),
        CopyOptionValue::List(names) => Ok(CopyColumns::Named(names.clone())),
        _ => Err(invalid(format!("argument to option \"{name}\" must be a list of column names"))),
    }
}

fn encoding(text: &str) -> Result<(), ValueError> {
    let plain: String = text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    match plain.as_str() {
        "utf8" | "unicode" | "sqlascii" => Ok(()),
        _ => Err(unsupported(format!("COPY encoding \"{text}\" is not supported; only UTF8 is"))),
    }
}

fn one_byte(text: &str, message: &str) -> Result<u8, ValueError> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        _ => Err(unsupported(message)),
    }
}
