//! SET, SHOW and RESET.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};

use super::Session;
use super::statement::{schema_of, text_column};
use crate::error::SqlError;
use crate::exec::stream::ready;
use crate::outcome::{Outcome, OutputColumn};
use crate::settings::Settings;
use crate::sql::statement::SetValue;

impl Session {
    pub(super) fn set(&mut self, name: &str, value: &SetValue, local: bool) -> Result<Outcome, SqlError> {
        if local && self.transaction.is_none() {
            self.notice("WARNING", "25P01", "SET LOCAL can only be used in transaction blocks");
        }
        let mut settings = self.settings();
        if local && self.transaction.is_none() {
            // Checked, and forgotten at once.
            let mut scratch = settings.clone();
            apply(&mut scratch, name, value, local)?;
        } else {
            apply(&mut settings, name, value, local)?;
        }
        Ok(Outcome::Done { tag: "SET".to_owned() })
    }

    pub(super) fn reset(&mut self, name: Option<&str>) -> Result<Outcome, SqlError> {
        match name {
            Some(name) => self.settings().reset(name, false)?,
            None => self.settings().reset_all(),
        }
        Ok(Outcome::Done { tag: "RESET".to_owned() })
    }

    pub(super) fn show(&mut self, name: &str) -> Result<Outcome, SqlError> {
        let value = self.settings().get(name)?;
        texts(show_columns(name), vec![vec![value]], "SHOW")
    }

    pub(super) fn show_all(&mut self) -> Result<Outcome, SqlError> {
        let all = self.settings().all();
        let rows = all.into_iter().map(|setting| vec![setting.name, setting.value, setting.description.to_owned()]);
        texts(show_all_columns(), rows.collect(), "SHOW")
    }
}

fn apply(settings: &mut Settings, name: &str, value: &SetValue, local: bool) -> Result<(), SqlError> {
    match value {
        SetValue::Default => settings.reset(name, local),
        SetValue::Value(value) => settings.set(name, value, local).map(|_| ()),
    }
}

pub(super) fn show_columns(name: &str) -> Vec<OutputColumn> {
    vec![text_column(&Settings::display_name(name))]
}

pub(super) fn show_all_columns() -> Vec<OutputColumn> {
    vec![text_column("name"), text_column("setting"), text_column("description")]
}

/// Rows of texts.
pub(super) fn texts(
    columns: Vec<OutputColumn>,
    rows: Vec<Vec<String>>,
    tag: &'static str,
) -> Result<Outcome, SqlError> {
    let schema = Arc::new(schema_of(&columns));
    let array =
        |index: usize| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row[index]))) };
    let arrays = (0..columns.len()).map(array).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    Ok(Outcome::Rows { columns, schema, rows: ready(batch), tag })
}
