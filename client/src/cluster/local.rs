//! What lives in this process and is called without a message in between: a data node, whose rows are handed over as they are,
//! and a member of the meta group.

use std::any::Any;
use std::sync::{Arc, Weak};

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::stream::BoxStream;
use meridian_proto::{CatalogVersion, Refusal, Ts, wire};

/// The data path's calls, as its service has them.
#[tonic::async_trait]
pub trait LocalDataNode: Send + Sync {
    async fn write(&self, request: wire::WriteRequest) -> Result<wire::WriteResponse, Refusal>;

    /// Dropping the stream ends the scan. The request's own plan is left empty where it comes as an object.
    async fn scan(&self, request: wire::ScanRequest, plan: Option<PlanObject>) -> Result<ScanParts, Refusal>;
}

/// A fragment that its maker handed over as it is. What it is, only the maker and the data node know.
pub type PlanObject = Arc<dyn Any + Send + Sync>;

/// A fragment in the forms in which it can travel.
pub trait Fragment: Send + Sync {
    /// Within this process; `None` for one that must be made anew wherever it runs.
    fn object(&self) -> Option<PlanObject>;

    fn encoded(&self) -> Result<Bytes, Refusal>;
}

/// Held weakly: what the process serves ends without asking who might still call it.
pub type WeakDataNode = Weak<dyn LocalDataNode>;

pub type ScanParts = BoxStream<'static, Result<ScanPart, Refusal>>;

/// A member of the meta group.
#[tonic::async_trait]
pub trait LocalMember: Send + Sync {
    /// R1, as long as this member leads the group; `None`: it is to be asked for as from elsewhere.
    async fn timestamp(&self) -> Option<(Ts, CatalogVersion)>;
}

pub type WeakMember = Weak<dyn LocalMember>;

/// What a scan sends, piece by piece.
#[derive(Clone, Debug)]
pub enum ScanPart {
    Rows(RecordBatch),
    /// The last one.
    Done(wire::ScanStatistics),
}
