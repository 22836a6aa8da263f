//! What a client is told when a statement fails: PostgreSQL's error fields.

use meridian_proto::Refusal;

/// An error response in the making. Fields as in PostgreSQL's "Error and Notice Message Fields".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// Five characters.
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// Character position in the statement, from 1.
    pub position: Option<usize>,
    /// PostgreSQL's CONTEXT, e.g. `COPY t, line 3, column v: "x"`.
    pub context: Option<String>,
}

impl SqlError {
    #[must_use]
    pub fn new(sqlstate: &str, message: impl Into<String>) -> Self {
        Self {
            sqlstate: sqlstate.to_owned(),
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            context: None,
        }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn with_context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    #[must_use]
    pub fn with_position(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }

    /// 0A000: PostgreSQL has it, we do not (yet).
    #[must_use]
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self::new("0A000", what)
    }
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.sqlstate)
    }
}

impl std::error::Error for SqlError {}

const DISK_FULL_HINT: &str =
    "Free some space on that node's disk, or drop tables there; writes are taken again by themselves.";

impl From<Refusal> for SqlError {
    fn from(refusal: Refusal) -> Self {
        let mut error = Self::new(refusal.sqlstate(), refusal.to_string());
        error.hint = hint_of(refusal);
        error
    }
}

/// What the client, or the operator, may do about it.
fn hint_of(refusal: Refusal) -> Option<String> {
    let hint = match refusal {
        Refusal::Catalog { hint, .. } => return hint,
        Refusal::Memory(_) => {
            "Send it again later, or less at a time, or raise \"data.memtable\" or \"data.scan_memory\"."
        }
        Refusal::Overloaded(_) => "Use fewer connections at once, and send it again later.",
        Refusal::DiskFull(_) => DISK_FULL_HINT,
        Refusal::Statement { sqlstate, .. } if sqlstate == "53200" => {
            "Ask for fewer rows or groups at once, or raise \"data.scan_memory\"."
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_says_what_to_do() {
        let full = |refusal: Refusal| SqlError::from(refusal);
        for (refusal, sqlstate, key) in [
            (Refusal::Memory("x".to_owned()), "53200", "data.memtable"),
            (Refusal::Overloaded("x".to_owned()), "53300", "connections"),
            (Refusal::DiskFull("x".to_owned()), "53100", "space"),
            (Refusal::Statement { sqlstate: "53200".to_owned(), message: "x".to_owned() }, "53200", "data.scan_memory"),
        ] {
            let error = full(refusal);
            assert_eq!(error.sqlstate, sqlstate);
            assert!(error.hint.as_ref().is_some_and(|hint| hint.contains(key)), "{error:?}");
        }
        assert_eq!(full(Refusal::Conflict("x".to_owned())).hint, None);
        let hinted =
            Refusal::Catalog { sqlstate: "42P16".to_owned(), message: "x".to_owned(), hint: Some("y".to_owned()) };
        assert_eq!(full(hinted).hint.as_deref(), Some("y"));
    }
}
