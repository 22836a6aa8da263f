//! The loop of one client: a request in, its answer out, until one of them says goodbye.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::budget::Held;
use super::cancel::{Registered, Running};
use super::extended::{Portal, Saved};
use super::failure::{Ended, Failure, shutting_down};
use super::frontend::{Frame, Request};
use super::startup::{Admitted, admit};
use super::wire::Wire;
use super::{Door, backend};
use crate::error::SqlError;
use crate::session::{Session, TransactionStatus};

pub struct Connection<'a> {
    pub(super) door: &'a Arc<Door>,
    pub(super) wire: &'a mut Wire,
    pub(super) session: Session,
    pub(super) registered: Registered,
    /// The unnamed statement; named ones are the session's, where SQL's PREPARE finds them too.
    pub(super) unnamed: Option<Saved>,
    /// Parameter types that clients declared for named statements.
    pub(super) declared: HashMap<String, Vec<u32>>,
    /// Named statements with an empty text, which the session does not know.
    pub(super) empty: HashSet<String>,
    pub(super) portals: HashMap<String, Portal>,
    /// Memory of statements with long texts, by their names.
    pub(super) kept: HashMap<String, Held>,
    /// After an error of the extended protocol.
    pub(super) skip_until_sync: bool,
    /// An implicit transaction of pipelined statements is open; Sync ends it.
    pub(super) implicit: bool,
}

/// Serves a client to its end. `Err` with what it is to be told last, if anything.
pub async fn serve(door: &Arc<Door>, wire: &mut Wire, peer: SocketAddr) -> Result<(), Ended> {
    let admitted = admit(door, wire, peer).await;
    let Some(Admitted { session, registered }) = admitted.inspect_err(|_| door.counters.connections_refused.add(1))?
    else {
        return Ok(());
    };
    let _open = Open::count(door);
    let mut connection = Connection {
        door,
        wire,
        session,
        registered,
        unnamed: None,
        declared: HashMap::new(),
        empty: HashSet::new(),
        portals: HashMap::new(),
        kept: HashMap::new(),
        skip_until_sync: false,
        implicit: false,
    };
    let ended = connection.run().await;
    let Connection { session, portals, .. } = connection;
    // Their streams belong to the transaction that the session aborts now.
    drop(portals);
    session.close().await;
    Err(ended)
}

/// Counts an open connection as long as it lives, a panic included.
struct Open<'a>(&'a Door);

impl<'a> Open<'a> {
    fn count(door: &'a Door) -> Self {
        door.counters.connections.add(1);
        door.counters.connections_open.add(1);
        Self(door)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.counters.connections_open.subtract(1);
    }
}

impl Connection<'_> {
    async fn run(&mut self) -> Ended {
        self.ready();
        loop {
            let frame = tokio::select! {
                // What already arrived is answered first, even while the node goes down.
                biased;
                frame = self.wire.next_frame() => frame,
                () = self.door.closing.cancelled() => return Ended::Fatal(shutting_down()),
            };
            let served = match frame {
                Ok(frame) => self.serve_frame(frame).await,
                Err(ended) => return ended,
            };
            match served {
                Ok(()) => {}
                Err(ended) => return ended,
            }
        }
    }

    async fn serve_frame(&mut self, frame: Frame) -> Result<(), Ended> {
        // PostgreSQL does not look into what it skips, either.
        if self.skip_until_sync && !matches!(frame.kind, b'S' | b'X') {
            return Ok(());
        }
        let is_extended = matches!(frame.kind, b'P' | b'B' | b'D' | b'E' | b'C' | b'H');
        let served = match frame.request() {
            Ok(request) => self.serve_request(request, frame.held).await,
            Err(error) => Err(Failure::Error(error)),
        };
        match served {
            Ok(()) => Ok(()),
            Err(Failure::Ended(ended)) => Err(ended),
            Err(Failure::Error(error)) => {
                self.fail(&error).await;
                if is_extended {
                    self.skip_until_sync = true;
                } else {
                    self.ready();
                }
                Ok(())
            }
        }
    }

    /// `held`: what the request's message takes of the gateway's memory.
    async fn serve_request(&mut self, request: Request, held: Held) -> Result<(), Failure> {
        match request {
            Request::Query(sql) => self.query(&sql).await,
            Request::Parse { name, sql, oids } => self.parse(name, &sql, oids, held).await,
            Request::Bind(bind) => self.bind(bind, held),
            Request::Describe(target) => self.describe(&target),
            Request::Close(target) => self.close_target(&target),
            Request::Execute { portal, rows_max } => self.execute(&portal, rows_max).await,
            Request::Flush => Ok(self.wire.flush().await?),
            Request::Sync => self.sync().await,
            Request::Terminate => Err(Failure::Ended(Ended::Closed)),
            Request::FunctionCall => {
                Err(SqlError::unsupported("function call messages are not supported").with_hint("Use SELECT.").into())
            }
            Request::CopyTail => Ok(()),
        }
    }

    /// Tells an error and lets the session undo what the failed request began.
    pub(super) async fn fail(&mut self, error: &SqlError) {
        self.door.counters.errors.add(1);
        self.session.on_error().await;
        // Their statement or transaction is gone.
        self.portals.clear();
        self.implicit = false;
        self.tell_notices();
        backend::error(self.wire.output(), backend::Severity::Error, error);
    }

    /// A cycle is over: what changed, and that the next request may come.
    pub(super) fn ready(&mut self) {
        self.tell_notices();
        for (name, value) in self.session.take_changed_parameters() {
            backend::parameter_status(self.wire.output(), &name, &value);
        }
        self.release_dropped();
        let status = self.session.transaction_status();
        if status == TransactionStatus::Idle {
            // A portal does not outlive its transaction.
            self.portals.clear();
        }
        backend::ready_for_query(self.wire.output(), status);
    }

    /// Gives back the memory of statements that are gone, whichever way they went.
    fn release_dropped(&mut self) {
        let Self { kept, session, unnamed, .. } = self;
        kept.retain(|name, _| if name.is_empty() { unnamed.is_some() } else { session.find_prepared(name).is_ok() });
    }

    pub(super) fn tell_notices(&mut self) {
        for notice in self.session.take_notices() {
            backend::notice(self.wire.output(), &notice);
        }
    }

    /// `token`: the statement's own.
    pub(super) fn start(&self, token: CancellationToken) -> Running {
        Running::start(&self.registered.slot, token, self.session.statement_timeout())
    }
}
