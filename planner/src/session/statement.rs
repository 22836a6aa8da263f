//! One statement: who answers it, and what it will answer.

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::scalar::ScalarValue;
use meridian_proto::SqlType;
use tokio_util::sync::CancellationToken;

use super::Session;
use super::parameter::{show_all_columns, show_columns};
use crate::error::SqlError;
use crate::outcome::{Outcome, OutputColumn};
use crate::sql::statement::{HypertableCall, Statement};

impl Session {
    pub(super) async fn run_statement(
        &mut self,
        statement: &Statement,
        parameters: &[ScalarValue],
        cancel: &CancellationToken,
    ) -> Result<Outcome, SqlError> {
        match statement {
            Statement::Query(query) => self.select(query, parameters, cancel).await,
            Statement::Insert(insert) => self.insert(insert, parameters, cancel).await,
            Statement::CopyFrom(copy) => self.copy_from(copy, cancel).await,
            Statement::CopyTo(copy) => self.copy_to(copy, cancel).await,
            Statement::CreateTable(create) => self.create_table(create, cancel).await,
            Statement::DropTable { names, if_exists } => self.drop_tables(names, *if_exists, cancel).await,
            Statement::CreateHypertable(call) => self.create_hypertable(call, cancel).await,
            Statement::AlterTable(alter) => self.alter_table(alter, cancel).await,
            Statement::Call(query) => self.call(query, parameters, cancel).await,
            Statement::Begin { modes, start } => self.begin(*modes, *start),
            Statement::Commit { chain } => self.end(true, *chain).await,
            Statement::Rollback { chain } => self.end(false, *chain).await,
            Statement::SetTransaction { modes, session } => {
                self.set_modes(*modes, *session)?;
                Ok(Outcome::Done { tag: "SET".to_owned() })
            }
            Statement::Set { name, value, local } => self.set(name, value, *local),
            Statement::Show { name } => self.show(name),
            Statement::ShowAll => self.show_all(),
            Statement::Reset { name } => self.reset(name.as_deref()),
            Statement::DiscardAll => self.discard_all(),
            Statement::Prepare { name, types, statement } => {
                let known: Vec<_> = types.iter().cloned().map(Some).collect();
                let prepared = self.prepare((**statement).clone(), &known).await?;
                self.save_prepared(name, prepared)?;
                Ok(Outcome::Done { tag: "PREPARE".to_owned() })
            }
            Statement::Execute { name, arguments } => {
                let prepared = self.find_prepared(name)?;
                let parameters = self.evaluate_arguments(name, arguments, &prepared.parameters)?;
                Box::pin(self.run_statement(&prepared.statement, &parameters, cancel)).await
            }
            Statement::Deallocate { name } => self.deallocate(name.as_deref()),
            Statement::Explain { options, statement } => self.explain(*options, statement, parameters, cancel).await,
            Statement::Refused(error) => Err(error.clone()),
        }
    }

    fn deallocate(&mut self, name: Option<&str>) -> Result<Outcome, SqlError> {
        match name {
            None => self.prepared.clear(),
            Some(name) => {
                self.find_prepared(name)?;
                self.drop_prepared(name);
            }
        }
        let tag = if name.is_none() { "DEALLOCATE ALL" } else { "DEALLOCATE" };
        Ok(Outcome::Done { tag: tag.to_owned() })
    }

    fn discard_all(&mut self) -> Result<Outcome, SqlError> {
        if self.transaction.as_ref().is_some_and(|open| !open.implicit) {
            return Err(SqlError::new("25001", "DISCARD ALL cannot run inside a transaction block"));
        }
        self.prepared.clear();
        self.settings().reset_all();
        Ok(Outcome::Done { tag: "DISCARD ALL".to_owned() })
    }

    /// Types of the parameters and columns of the result.
    pub(super) async fn describe(
        &mut self,
        statement: &Statement,
        known: &[Option<SqlType>],
    ) -> Result<(Vec<SqlType>, Option<Vec<OutputColumn>>), SqlError> {
        let plain: Vec<SqlType> = known.iter().map(|t| t.clone().unwrap_or(SqlType::Text)).collect();
        Ok(match statement {
            Statement::Query(query) => {
                let (parameters, columns) = self.describe_prepared(query, known).await?;
                (parameters, Some(columns))
            }
            Statement::Call(query) => (self.describe_query(query, known).await?.0, None),
            Statement::Insert(insert) => (self.describe_insert(insert, known).await?, None),
            Statement::Explain { statement, .. } => {
                let (parameters, _) = Box::pin(self.describe(statement, known)).await?;
                (parameters, Some(vec![text_column("QUERY PLAN")]))
            }
            Statement::Execute { name, .. } => (plain, self.find_prepared(name)?.columns),
            Statement::Show { name } => {
                // An unknown name is told now, as PostgreSQL does.
                self.settings().get(name)?;
                (plain, Some(show_columns(name)))
            }
            Statement::ShowAll => (plain, Some(show_all_columns())),
            Statement::CreateHypertable(call) => (plain, Some(call.columns())),
            Statement::Refused(error) => return Err(error.clone()),
            _ => (plain, None),
        })
    }
}

pub(super) fn column(name: &str, sql_type: SqlType) -> OutputColumn {
    let typmod = sql_type.typmod();
    OutputColumn { name: name.to_owned(), sql_type, typmod, table_oid: 0, attnum: 0 }
}

pub(super) fn text_column(name: &str) -> OutputColumn {
    column(name, SqlType::Text)
}

/// The Arrow schema of such columns.
pub(super) fn schema_of(columns: &[OutputColumn]) -> Schema {
    let field = |column: &OutputColumn| column.sql_type.field(&column.name, true);
    Schema::new(columns.iter().map(field).collect::<Vec<Field>>())
}

impl HypertableCall {
    /// The columns of its answer, as TimescaleDB declares them.
    pub(super) fn columns(&self) -> Vec<OutputColumn> {
        if !self.as_table {
            // A record, in its text form.
            return vec![text_column(self.function)];
        }
        let mut columns = vec![column("hypertable_id", SqlType::Int4)];
        if !self.generalized {
            columns.extend([text_column("schema_name"), text_column("table_name")]);
        }
        columns.push(column("created", SqlType::Bool));
        debug_assert!(columns.iter().all(|column| column.sql_type.arrow() != DataType::Null));
        columns
    }
}
