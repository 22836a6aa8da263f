//! A data node in this process: rows are handed over as they are, without a message in between.

use std::sync::Weak;

use arrow::array::RecordBatch;
use futures::stream::BoxStream;
use meridian_proto::{Refusal, wire};

/// The data path's calls, as its service has them.
#[tonic::async_trait]
pub trait LocalDataNode: Send + Sync {
    async fn write(&self, request: wire::WriteRequest) -> Result<wire::WriteResponse, Refusal>;

    /// Dropping the stream ends the scan.
    async fn scan(&self, request: wire::ScanRequest) -> Result<ScanParts, Refusal>;
}

/// Held weakly: what the process serves ends without asking who might still call it.
pub type WeakDataNode = Weak<dyn LocalDataNode>;

pub type ScanParts = BoxStream<'static, Result<ScanPart, Refusal>>;

/// What a scan sends, piece by piece.
#[derive(Clone, Debug)]
pub enum ScanPart {
    Rows(RecordBatch),
    /// The last one.
    Done(wire::ScanStatistics),
}
