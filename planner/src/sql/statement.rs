//! The statements that a session knows. What needs a plan carries sqlparser's tree; everything else is in its final form.

use std::sync::{Arc, OnceLock};

use datafusion::sql::sqlparser::ast;
use meridian_pgtypes::copy::CopyOptions;
use meridian_proto::SqlType;
use meridian_proto::schema::Column;

use super::cut::Cut;
use super::tokens::{Cursor, tokenize};
use crate::error::SqlError;

/// One statement of a client.
#[derive(Clone, Debug)]
pub enum Statement {
    /// SELECT, VALUES, TABLE, WITH.
    Query(Query),
    Insert(Arc<Insert>),
    CopyFrom(Arc<CopyFrom>),
    CopyTo(Arc<CopyTo>),
    CreateTable(Arc<CreateTable>),
    DropTable {
        names: Vec<Name>,
        if_exists: bool,
    },
    CreateHypertable(Arc<HypertableCall>),
    AlterTable(Arc<AlterTable>),
    /// CALL of a procedure, as the query that calls it as a function.
    Call(Arc<ast::Query>),
    Begin {
        modes: TransactionModes,
        /// Written START TRANSACTION, which is told back.
        start: bool,
    },
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    SetTransaction {
        modes: TransactionModes,
        session: bool,
    },
    Set {
        name: String,
        value: SetValue,
        local: bool,
    },
    Show {
        name: String,
    },
    ShowAll,
    /// `None`: all.
    Reset {
        name: Option<String>,
    },
    DiscardAll,
    Prepare {
        name: String,
        types: Vec<SqlType>,
        statement: Box<Statement>,
    },
    Execute {
        name: String,
        arguments: Vec<ast::Expr>,
    },
    /// `None`: all.
    Deallocate {
        name: Option<String>,
    },
    Explain {
        options: ExplainOptions,
        statement: Box<Statement>,
    },
    /// Parsed, and refused when it is its turn.
    Refused(SqlError),
}

/// A query as it was written, and as sqlparser reads it once somebody asks for that: a plan that is known by its text is
/// used without.
#[derive(Clone, Debug)]
pub struct Query {
    /// `None`: its plan cannot be known by its text.
    cut: Option<Arc<Cut>>,
    pub(super) tree: Arc<OnceLock<Arc<ast::Query>>>,
}

impl Query {
    /// `text`: of this query alone.
    pub(crate) fn read(text: &str, tree: Arc<ast::Query>) -> Self {
        Self { cut: Cut::of(text).map(Arc::new), tree: Arc::new(OnceLock::from(tree)) }
    }

    /// One that nobody has read. Its shape must be that of a query that was.
    pub(crate) fn unread(cut: Cut) -> Self {
        Self { cut: Some(Arc::new(cut)), tree: Arc::default() }
    }

    pub(crate) fn cut(&self) -> Option<&Arc<Cut>> {
        self.cut.as_ref()
    }
}

/// A table's name as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub schema: Option<String>,
    pub name: String,
}

impl Name {
    /// Reads a `regclass`: `name` or `schema.name`, folded to small letters unless quoted.
    pub(crate) fn parse(text: &str) -> Result<Self, SqlError> {
        let invalid = || SqlError::new("42602", format!("invalid name syntax: \"{text}\""));
        let tokens = tokenize(text).map_err(|_| invalid())?;
        let mut cursor = Cursor::new(text, &tokens);
        let (schema, name) = cursor.qualified().map_err(|_| invalid())?;
        cursor.expect_end().map_err(|_| invalid())?;
        Ok(Self { schema, name })
    }
}

#[derive(Clone, Debug)]
pub struct Insert {
    pub table: Name,
    /// Empty: all, in table order.
    pub columns: Vec<String>,
    pub source: InsertSource,
}

#[derive(Clone, Debug)]
pub enum InsertSource {
    /// One row of defaults.
    Defaults,
    /// Rows of expressions; `None` is the keyword DEFAULT.
    Values(Vec<Vec<Option<ast::Expr>>>),
    Query(Arc<ast::Query>),
}

#[derive(Clone, Debug)]
pub struct CopyFrom {
    pub table: Name,
    pub columns: Vec<String>,
    pub options: CopyOptions,
}

#[derive(Clone, Debug)]
pub struct CopyTo {
    pub query: Arc<ast::Query>,
    pub options: CopyOptions,
}

#[derive(Clone, Debug)]
pub struct CreateTable {
    pub table: Name,
    pub columns: Vec<Column>,
    pub if_not_exists: bool,
}

/// `ALTER TABLE ... SET (timescaledb.compress ...)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterTable {
    pub table: Name,
    pub if_exists: bool,
    pub options: CompressionOptions,
}

/// As written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompressionOptions {
    pub compress: bool,
    pub segment_by: Option<String>,
    pub order_by: Option<String>,
}

/// A call of `create_hypertable` or `create_distributed_hypertable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HypertableCall {
    /// Its name, which is the name of the column, too.
    pub function: &'static str,
    /// `SELECT * FROM f(...)` gives columns, `SELECT f(...)` one record.
    pub as_table: bool,
    /// The form with `by_range` answers (hypertable_id, created) only.
    pub generalized: bool,
    pub table: Name,
    pub time_column: String,
    /// Column, and partitions if said.
    pub space: Vec<(String, Option<u32>)>,
    pub interval: Option<ChunkInterval>,
    pub replication_factor: Option<i64>,
    pub data_nodes: Vec<String>,
    pub if_not_exists: bool,
    pub migrate_data: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkInterval {
    /// An INTERVAL.
    Us(i64),
    /// An integer: microseconds for a timestamp dimension, units for an integer one.
    Integer(i64),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionModes {
    pub isolation: Option<Isolation>,
    pub read_only: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl Isolation {
    /// As `SHOW transaction_isolation` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "read uncommitted",
            Self::ReadCommitted => "read committed",
            Self::RepeatableRead => "repeatable read",
            Self::Serializable => "serializable",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::ReadUncommitted, Self::ReadCommitted, Self::RepeatableRead, Self::Serializable]
            .into_iter()
            .find(|level| level.name().eq_ignore_ascii_case(name.trim()))
    }

    /// Whether a transaction keeps its first snapshot.
    #[must_use]
    pub fn keeps_snapshot(self) -> bool {
        matches!(self, Self::RepeatableRead | Self::Serializable)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetValue {
    Default,
    Value(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExplainOptions {
    pub analyze: bool,
    pub verbose: bool,
    pub json: bool,
    pub costs: bool,
}
