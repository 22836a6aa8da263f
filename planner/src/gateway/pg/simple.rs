//! The simple query protocol: a text with any number of statements, each answered in full before the next.

use tokio_util::sync::CancellationToken;

use super::backend;
use super::cancel::Running;
use super::connection::Connection;
use super::copy_in;
use super::copy_out;
use super::failure::Failure;
use super::rows::RowSource;
use crate::outcome::{Outcome, OutputColumn, RowStream};
use crate::sql::Statement;

impl Connection<'_> {
    pub(super) async fn query(&mut self, sql: &str) -> Result<(), Failure> {
        // As in PostgreSQL, a simple query ends what an unfinished pipeline left behind.
        self.unnamed = None;
        self.portals.remove("");
        let statements = self.session.parse(sql)?;
        if statements.is_empty() {
            backend::empty_query(self.wire.output());
        }
        let count = statements.len();
        for (index, statement) in statements.into_iter().enumerate() {
            if count > 1 {
                // Again before each: a COMMIT among them ends the implicit transaction of those before it only.
                self.session.begin_implicit().await;
                self.implicit = true;
            }
            self.query_statement(statement, index + 1 == count).await?;
        }
        self.end_implicit().await?;
        self.ready();
        Ok(())
    }

    async fn query_statement(&mut self, statement: Statement, is_last: bool) -> Result<(), Failure> {
        self.door.counters.statements.add(1);
        let running = self.start(CancellationToken::new());
        let outcome = running.watch(self.wire, self.session.run(statement, running.token())).await;
        let tag = match outcome.map_err(|error| running.explain(error))? {
            Outcome::Rows { columns, rows, tag, .. } => Some(self.send_all(&running, columns, rows, tag).await?),
            Outcome::Done { tag } => Some(tag),
            Outcome::CopyIn(copy) => Some(copy_in::receive(self, &running, copy).await?),
            Outcome::CopyOut { options, columns, rows } => {
                Some(copy_out::send(self, &running, &options, &columns, rows).await?)
            }
            Outcome::Empty => None,
        };
        if is_last {
            // Before its tag, so that a commit that fails is not preceded by the message that all went well.
            self.end_implicit().await?;
        }
        self.tell_notices();
        match tag {
            Some(tag) => backend::command_complete(self.wire.output(), &tag),
            None => backend::empty_query(self.wire.output()),
        }
        Ok(())
    }

    /// All rows in text; returns the tag.
    async fn send_all(
        &mut self,
        running: &Running,
        columns: Vec<OutputColumn>,
        rows: RowStream,
        tag: &'static str,
    ) -> Result<String, Failure> {
        let binary = vec![false; columns.len()];
        backend::row_description(self.wire.output(), &columns, &binary);
        let mut source = RowSource::new(columns, rows, tag);
        let format = self.session.format();
        let sent = source.send(self.wire, running, &format, &binary, u64::MAX).await?;
        self.door.counters.rows_sent.add(sent.rows);
        Ok(source.complete_tag(sent.rows))
    }

    /// Commits the implicit transaction, if there is one.
    pub(super) async fn end_implicit(&mut self) -> Result<(), Failure> {
        if self.implicit {
            self.implicit = false;
            self.session.end_implicit(true).await?;
        }
        Ok(())
    }
}
