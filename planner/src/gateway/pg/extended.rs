//! The extended query protocol: Parse, Bind, Describe, Execute, Close, Sync, pipelined as the client likes.
//!
//! What comes before a Sync is one transaction, unless BEGIN opened one: an implicit one is begun at the first Execute,
//! unless the Sync stands right behind it. Then the statement is alone and commits by itself, which is the shorter way.

use std::mem;

use datafusion::common::ScalarValue;
use tokio_util::sync::CancellationToken;

use super::backend;
use super::budget::Held;
use super::cancel::Running;
use super::connection::Connection;
use super::failure::{Failure, violation};
use super::frontend::{Bind, Target};
use super::parameters::{declared_type, read_parameter};
use super::rows::{RowSource, resolve_formats};
use super::{copy_in, copy_out};
use crate::error::SqlError;
use crate::outcome::{Outcome, OutputColumn};
use crate::session::{Prepared, TransactionStatus};

/// A statement that Parse made.
#[derive(Clone)]
pub struct Saved {
    /// `None`: its text is empty.
    prepared: Option<Prepared>,
    /// Parameter types as the client declared them, 0 where it did not.
    oids: Vec<u32>,
}

/// A statement with its parameters, and how far it ran.
pub struct Portal {
    prepared: Option<Prepared>,
    /// Format codes for the result's columns.
    formats: Vec<i16>,
    token: CancellationToken,
    state: PortalState,
    /// Of its parameters.
    _held: Held,
}

enum PortalState {
    Bound(Vec<ScalarValue>),
    Streaming(RowSource),
    /// All rows are sent. PostgreSQL answers a further Execute with none.
    Exhausted(RowSource),
    /// A statement without rows is run once.
    Done,
}

impl Connection<'_> {
    pub(super) async fn parse(&mut self, name: String, sql: &str, oids: Vec<u32>, held: Held) -> Result<(), Failure> {
        if name.is_empty() {
            self.unnamed = None;
        } else if self.empty.contains(&name) || self.session.find_prepared(&name).is_ok() {
            return Err(SqlError::new("42P05", format!("prepared statement \"{name}\" already exists")).into());
        }
        let mut statements = self.session.parse(sql)?;
        if statements.len() > 1 {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(SqlError::new("42601", message).into());
        }
        let prepared = match statements.pop() {
            None => None,
            Some(statement) => {
                let known: Vec<_> = oids.iter().map(|&oid| declared_type(oid)).collect();
                let running = self.start(CancellationToken::new());
                Some(running.guard(self.wire, self.session.prepare(statement, &known)).await?)
            }
        };
        self.keep(&name, held);
        self.save(name, Saved { prepared, oids })?;
        backend::parse_complete(self.wire.output());
        Ok(())
    }

    fn keep(&mut self, name: &str, held: Held) {
        if held.is_empty() {
            self.kept.remove(name);
        } else {
            self.kept.insert(name.to_owned(), held);
        }
    }

    fn save(&mut self, name: String, saved: Saved) -> Result<(), SqlError> {
        if name.is_empty() {
            self.unnamed = Some(saved);
            return Ok(());
        }
        match saved.prepared {
            Some(prepared) => {
                self.session.save_prepared(&name, prepared)?;
                self.declared.insert(name, saved.oids);
            }
            None => {
                self.empty.insert(name);
            }
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Saved, SqlError> {
        if name.is_empty() {
            let missing = || SqlError::new("26000", "unnamed prepared statement does not exist");
            return self.unnamed.clone().ok_or_else(missing);
        }
        if self.empty.contains(name) {
            return Ok(Saved { prepared: None, oids: Vec::new() });
        }
        let prepared = self.session.find_prepared(name)?;
        Ok(Saved { prepared: Some(prepared), oids: self.declared.get(name).cloned().unwrap_or_default() })
    }

    pub(super) fn bind(&mut self, bind: Bind, held: Held) -> Result<(), Failure> {
        let saved = self.find(&bind.statement)?;
        if !bind.portal.is_empty() && self.portals.contains_key(&bind.portal) {
            return Err(SqlError::new("42P03", format!("cursor \"{}\" already exists", bind.portal)).into());
        }
        let values = self.read_parameters(&saved, &bind)?;
        if let Some(columns) = saved.columns() {
            result_formats(&bind.result_formats, columns.len())?;
        }
        let portal = Portal {
            prepared: saved.prepared,
            formats: bind.result_formats,
            token: CancellationToken::new(),
            state: PortalState::Bound(values),
            _held: held,
        };
        self.portals.insert(bind.portal, portal);
        backend::bind_complete(self.wire.output());
        Ok(())
    }

    fn read_parameters(&self, saved: &Saved, bind: &Bind) -> Result<Vec<ScalarValue>, SqlError> {
        let types = saved.prepared.as_ref().map_or(&[][..], |prepared| &prepared.parameters);
        let (given, wanted) = (bind.parameters.len(), types.len().max(saved.oids.len()));
        let binary = resolve_formats(&bind.formats, given)?.ok_or_else(|| {
            violation(format!("bind message has {} parameter formats but {given} parameters", bind.formats.len()))
        })?;
        if given != wanted {
            let name = &bind.statement;
            let message = format!(
                "bind message supplies {given} parameters, but prepared statement \"{name}\" requires {wanted}"
            );
            return Err(violation(message));
        }
        let format = self.session.format();
        let values = types.iter().zip(&bind.parameters).zip(binary).enumerate();
        values
            .map(|(index, ((sql_type, value), is_binary))| {
                let declared = saved.oids.get(index).copied().unwrap_or_default();
                read_parameter(sql_type, declared, is_binary, value.as_ref(), &format)
                    .map_err(|error| in_parameter(error, &bind.portal, index + 1))
            })
            .collect()
    }

    pub(super) fn describe(&mut self, target: &Target) -> Result<(), Failure> {
        match target {
            Target::Statement(name) => {
                let saved = self.find(name)?;
                backend::parameter_description(self.wire.output(), saved.parameter_oids());
                self.describe_rows(saved.columns(), &[])
            }
            Target::Portal(name) => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                let (prepared, formats) = (portal.prepared.clone(), portal.formats.clone());
                self.describe_rows(prepared.as_ref().and_then(|prepared| prepared.columns.as_deref()), &formats)
            }
        }
    }

    fn describe_rows(&mut self, columns: Option<&[OutputColumn]>, codes: &[i16]) -> Result<(), Failure> {
        match columns {
            Some(columns) => {
                let binary = result_formats(codes, columns.len())?;
                backend::row_description(self.wire.output(), columns, &binary);
            }
            None => backend::no_data(self.wire.output()),
        }
        Ok(())
    }

    pub(super) fn close_target(&mut self, target: &Target) -> Result<(), Failure> {
        match target {
            Target::Statement(name) if name.is_empty() => self.unnamed = None,
            Target::Statement(name) => {
                self.session.drop_prepared(name);
                self.declared.remove(name);
                self.empty.remove(name);
            }
            Target::Portal(name) => {
                self.portals.remove(name);
            }
        }
        backend::close_complete(self.wire.output());
        Ok(())
    }

    /// `rows_max`: 0 or less for all.
    pub(super) async fn execute(&mut self, name: &str, rows_max: i32) -> Result<(), Failure> {
        // Taken out while it runs: an error drops it, as it drops all others.
        let mut portal = self.portals.remove(name).ok_or_else(|| no_portal(name))?;
        let rows_max = u64::try_from(rows_max).ok().filter(|max| *max > 0).unwrap_or(u64::MAX);
        let before = self.session.transaction_status();
        match mem::replace(&mut portal.state, PortalState::Done) {
            PortalState::Bound(values) => match portal.prepared.clone() {
                None => {
                    portal.state = PortalState::Bound(values);
                    backend::empty_query(self.wire.output());
                }
                Some(prepared) => {
                    let running = self.start(portal.token.clone());
                    let formats = &portal.formats;
                    portal.state = self.execute_first(&running, &prepared, values, formats, rows_max).await?;
                }
            },
            PortalState::Streaming(source) => {
                let running = self.start(portal.token.clone());
                portal.state = self.send_some(&running, source, &portal.formats, rows_max).await?;
            }
            PortalState::Exhausted(source) => {
                backend::command_complete(self.wire.output(), &source.complete_tag(0));
                portal.state = PortalState::Exhausted(source);
            }
            PortalState::Done => {
                return Err(SqlError::new("55000", format!("portal \"{name}\" cannot be run")).into());
            }
        }
        if before != TransactionStatus::Idle && self.session.transaction_status() == TransactionStatus::Idle {
            self.portals.clear();
        } else {
            self.portals.insert(name.to_owned(), portal);
        }
        Ok(())
    }

    async fn execute_first(
        &mut self,
        running: &Running,
        prepared: &Prepared,
        values: Vec<ScalarValue>,
        formats: &[i16],
        rows_max: u64,
    ) -> Result<PortalState, Failure> {
        self.door.counters.statements.add(1);
        if self.implicit || !self.wire.next_is_sync() {
            self.session.begin_implicit().await;
            self.implicit = true;
        }
        let outcome = running.watch(self.wire, self.session.execute(prepared, values, running.token())).await;
        let tag = match outcome.map_err(|error| running.explain(error))? {
            Outcome::Rows { columns, rows, tag, .. } => {
                check_columns(prepared.columns.as_deref(), &columns)?;
                let source = RowSource::new(columns, rows, tag);
                return self.send_some(running, source, formats, rows_max).await;
            }
            Outcome::Done { tag } => tag,
            Outcome::CopyIn(copy) => copy_in::receive(self, running, copy).await?,
            Outcome::CopyOut { options, columns, rows } => {
                copy_out::send(self, running, &options, &columns, rows).await?
            }
            Outcome::Empty => {
                backend::empty_query(self.wire.output());
                return Ok(PortalState::Done);
            }
        };
        self.tell_notices();
        backend::command_complete(self.wire.output(), &tag);
        Ok(PortalState::Done)
    }

    async fn send_some(
        &mut self,
        running: &Running,
        mut source: RowSource,
        codes: &[i16],
        rows_max: u64,
    ) -> Result<PortalState, Failure> {
        let binary = result_formats(codes, source.column_count())?;
        let format = self.session.format();
        let sent = source.send(self.wire, running, &format, &binary, rows_max).await?;
        self.door.counters.rows_sent.add(sent.rows);
        self.tell_notices();
        if !sent.is_end {
            backend::portal_suspended(self.wire.output());
            return Ok(PortalState::Streaming(source));
        }
        backend::command_complete(self.wire.output(), &source.complete_tag(sent.rows));
        Ok(PortalState::Exhausted(source))
    }

    pub(super) async fn sync(&mut self) -> Result<(), Failure> {
        self.skip_until_sync = false;
        self.end_implicit().await?;
        if self.session.transaction_status() == TransactionStatus::Idle {
            self.portals.clear();
        }
        self.ready();
        Ok(())
    }
}

impl Saved {
    fn columns(&self) -> Option<&[OutputColumn]> {
        self.prepared.as_ref()?.columns.as_deref()
    }

    /// Those the client declared, the inferred ones for the rest.
    fn parameter_oids(&self) -> Vec<u32> {
        let inferred = self.prepared.as_ref().map_or(&[][..], |prepared| &prepared.parameters);
        (0..inferred.len().max(self.oids.len()))
            .map(|index| match (self.oids.get(index), inferred.get(index)) {
                (Some(&oid), _) if oid != 0 && oid != UNKNOWN_OID => oid,
                (_, Some(sql_type)) => sql_type.oid(),
                _ => TEXT_OID,
            })
            .collect()
    }
}

const TEXT_OID: u32 = 25;
const UNKNOWN_OID: u32 = 705;

/// PostgreSQL's context of a parameter that could not be read, below the value's own.
fn in_parameter(mut error: SqlError, portal: &str, number: usize) -> SqlError {
    let place = match portal {
        "" => format!("unnamed portal parameter ${number}"),
        name => format!("portal \"{name}\" parameter ${number}"),
    };
    error.context = Some(error.context.map_or(place.clone(), |context| format!("{context}\n{place}")));
    error
}

fn no_portal(name: &str) -> SqlError {
    SqlError::new("34000", format!("portal \"{name}\" does not exist"))
}

fn result_formats(codes: &[i16], column_count: usize) -> Result<Vec<bool>, SqlError> {
    resolve_formats(codes, column_count)?.ok_or_else(|| {
        violation(format!("bind message has {} result formats but query has {column_count} columns", codes.len()))
    })
}

/// The client decodes rows by what it was told at Parse; a table that changed since must not surprise it.
fn check_columns(told: Option<&[OutputColumn]>, now: &[OutputColumn]) -> Result<(), SqlError> {
    let same = |told: &[OutputColumn]| {
        told.len() == now.len() && told.iter().zip(now).all(|(a, b)| a.sql_type.oid() == b.sql_type.oid())
    };
    match told {
        Some(told) if !same(told) => Err(SqlError::unsupported("cached plan must not change result type")),
        _ => Ok(()),
    }
}
