//! What is wrong with a value, in PostgreSQL's words.

/// A value that was refused. `message`, `detail`, `hint` and `context` are PostgreSQL's fields M, D, H and W.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ValueError {
    pub sqlstate: &'static str,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    pub context: Option<String>,
}

pub const INVALID_TEXT: &str = "22P02";
pub const OUT_OF_RANGE: &str = "22003";
pub const STRING_TOO_LONG: &str = "22001";
pub const INVALID_DATETIME: &str = "22007";
pub const DATETIME_OVERFLOW: &str = "22008";
pub const INTERVAL_OVERFLOW: &str = "22015";
pub const ZONE_DISPLACEMENT: &str = "22009";
pub const INVALID_PARAMETER: &str = "22023";
pub const NOT_IN_REPERTOIRE: &str = "22021";
pub const UNTRANSLATABLE: &str = "22P05";
pub const INVALID_BINARY: &str = "22P03";
pub const PROTOCOL_VIOLATION: &str = "08P01";
pub const NOT_SUPPORTED: &str = "0A000";
pub const TOO_COMPLEX: &str = "54001";
pub const TOO_LARGE: &str = "54000";
pub const BAD_COPY_FILE: &str = "22P04";

impl ValueError {
    #[must_use]
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, message: message.into(), detail: None, hint: None, context: None }
    }

    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn with_context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    /// `invalid input syntax for type integer: "x"`
    #[must_use]
    pub(crate) fn syntax(type_name: &str, input: &[u8]) -> Self {
        Self::new(INVALID_TEXT, format!("invalid input syntax for type {type_name}: \"{}\"", lossy(input)))
    }

    /// `value "99999999999" is out of range for type integer`
    #[must_use]
    pub(crate) fn range(type_name: &str, input: &[u8]) -> Self {
        Self::new(OUT_OF_RANGE, format!("value \"{}\" is out of range for type {type_name}", lossy(input)))
    }

    /// A binary value without its first byte.
    #[must_use]
    pub(crate) fn no_data() -> Self {
        Self::new(PROTOCOL_VIOLATION, "no data left in message")
    }

    /// A binary value that is shorter or longer than its type.
    #[must_use]
    pub(crate) fn binary_length(given: usize, wanted: usize) -> Self {
        if given < wanted {
            Self::new(PROTOCOL_VIOLATION, "insufficient data left in message")
        } else {
            Self::new(INVALID_BINARY, "incorrect binary data format")
        }
    }
}

/// Bytes that only go into an error's text.
pub(crate) fn lossy(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}
