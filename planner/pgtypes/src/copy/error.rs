//! What is wrong with COPY data, and where.

use crate::error::ValueError;

/// Refused COPY data. `line` counts from 1, the header included; 0 when no line is to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CopyError {
    pub sqlstate: &'static str,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    pub line: u64,
    /// The column whose value was refused.
    pub column: Option<String>,
    /// The refused value with a column, else the whole line, where it can be shown.
    pub value: Option<String>,
    /// Binary data is not shown.
    pub(crate) is_binary: bool,
    /// What the value's type says of the place within the value.
    pub(crate) value_context: Option<String>,
}

/// Bytes of a value or line that PostgreSQL shows in an error's context.
const SHOWN_BYTES_MAX: usize = 100;

impl CopyError {
    pub(crate) fn at_line(error: ValueError, line: u64) -> Self {
        let ValueError { sqlstate, message, detail, hint, context } = error;
        let (column, value) = (None, None);
        Self { sqlstate, message, detail, hint, line, column, value, is_binary: false, value_context: context }
    }

    /// PostgreSQL's CONTEXT field: `COPY t, line 2, column v: "x"`.
    #[must_use]
    pub fn context(&self, table: &str) -> Option<String> {
        if self.line == 0 {
            return None;
        }
        let place = format!("COPY {table}, line {}", self.line);
        let place = match (&self.column, &self.value) {
            (Some(column), _) if self.is_binary => format!("{place}, column {column}"),
            (None, _) if self.is_binary => place,
            (Some(column), Some(value)) => format!("{place}, column {column}: \"{}\"", shown(value)),
            (Some(column), None) => format!("{place}, column {column}: null input"),
            (None, Some(line)) => format!("{place}: \"{}\"", shown(line)),
            (None, None) => place,
        };
        Some(match &self.value_context {
            Some(inner) => format!("{inner}\n{place}"),
            None => place,
        })
    }
}

fn shown(value: &str) -> String {
    if value.len() <= SHOWN_BYTES_MAX {
        return value.to_owned();
    }
    format!("{}...", &value[..value.floor_char_boundary(SHOWN_BYTES_MAX)])
}
