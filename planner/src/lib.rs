//! The planner: what a client's SQL becomes. A door (`gateway`) hands statement texts and parameters to a [`Session`];
//! the session parses them (`sql`), plans them with DataFusion over a catalog view (`sql`), cuts the plan into fragments
//! that run on data nodes and a rest that runs here (`exec`), and answers with an [`Outcome`]. It never opens a data file.
//!
//! Modules in order; each uses those above it.

pub mod error;
pub mod outcome;
pub mod settings;

pub mod sql;

pub mod exec;

mod plan_cache;

pub mod context;
pub mod session;

pub mod gateway;

pub use context::{GatewayContext, StatementResources};
pub use error::SqlError;
pub use outcome::{CopyIn, Notice, Outcome, OutputColumn, RowStream};
pub use plan_cache::{PlanCache, PlanCacheFigures};
pub use session::{Prepared, Session, TransactionStatus};
pub use sql::Statement;
