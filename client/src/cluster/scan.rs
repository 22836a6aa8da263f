//! The rows of a fragment that runs at a data node.

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use meridian_proto::rows::decode_rows;
use meridian_proto::{NodeId, Refusal, wire};
use tonic::Streaming;

use super::Cluster;
use super::local::{Fragment, ScanPart, ScanParts};

/// Rows as they come in. Dropping it ends the fragment there.
pub struct ScanStream {
    cluster: Cluster,
    node: NodeId,
    schema: SchemaRef,
    source: Source,
    /// Came with rows before it.
    statistics: Option<wire::ScanStatistics>,
    bytes: u64,
}

enum Source {
    Wire(Box<Streaming<wire::ScanResponse>>),
    Local(ScanParts),
}

impl Cluster {
    /// Runs a fragment, whose rows have that schema. The request comes without its plan.
    pub async fn scan(
        &self,
        node: NodeId,
        request: wire::ScanRequest,
        fragment: &dyn Fragment,
        schema: &SchemaRef,
    ) -> Result<ScanStream, Refusal> {
        let encoded = |request| fragment.encoded().map(|plan| wire::ScanRequest { plan: plan.to_vec(), ..request });
        let source = match self.local(node) {
            Some(local) => Source::Local(match fragment.object() {
                Some(plan) => local.scan(request, Some(plan)).await?,
                None => local.scan(encoded(request)?, None).await?,
            }),
            None => Source::Wire(Box::new(self.start_scan(node, encoded(request)?).await?)),
        };
        let schema = SchemaRef::clone(schema);
        Ok(ScanStream { cluster: self.clone(), node, schema, source, statistics: None, bytes: 0 })
    }
}

impl ScanStream {
    /// What comes next; `None` when the fragment has ended.
    pub async fn next(&mut self) -> Result<Option<ScanPart>, Refusal> {
        if let Some(statistics) = self.statistics.take() {
            return Ok(Some(ScanPart::Done(statistics)));
        }
        let stream = match &mut self.source {
            Source::Wire(stream) => stream,
            Source::Local(parts) => {
                let Some(part) = parts.try_next().await? else { return Ok(None) };
                return Ok(Some(match part {
                    ScanPart::Rows(batch) => ScanPart::Rows(with_schema(&batch, &self.schema)?),
                    done @ ScanPart::Done(_) => done,
                }));
            }
        };
        let Some(response) = self.cluster.next_of_scan(self.node, stream).await? else { return Ok(None) };
        if response.batch.is_empty() {
            return Ok(Some(ScanPart::Done(response.statistics.unwrap_or_default())));
        }
        self.statistics = response.statistics;
        self.bytes += response.batch.len() as u64;
        Ok(Some(ScanPart::Rows(decode_rows(&response.batch, &self.schema)?)))
    }

    /// Bytes of rows that came over the wire so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The node's fields have names of their own.
fn with_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Refusal> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(SchemaRef::clone(schema), batch.columns().to_vec(), &options)
        .map_err(|error| Refusal::Protocol(format!("a fragment returned other rows than those asked for: {error}")))
}
