//! Tables whose rows a gateway makes when they are read: views about the cluster, and functions that return rows.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_empty_array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::future::BoxFuture;
use futures::stream;

use crate::error::SqlError;
use crate::sql::errors::external;

pub(crate) type Row = Vec<ScalarValue>;
pub(crate) type ReadRows = BoxFuture<'static, Result<Vec<Row>, SqlError>>;
type Read = Arc<dyn Fn(&[usize]) -> ReadRows + Send + Sync>;

pub(crate) struct VirtualTable {
    schema: SchemaRef,
    read: Read,
}

impl VirtualTable {
    /// `read` makes whole rows. It is told the columns that are looked at, and may leave NULL in the others what is dear
    /// to find out.
    pub(crate) fn provider(
        schema: SchemaRef,
        read: impl Fn(&[usize]) -> ReadRows + Send + Sync + 'static,
    ) -> Arc<dyn TableProvider> {
        Arc::new(Self { schema, read: Arc::new(read) })
    }
}

impl fmt::Debug for VirtualTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualTable").field("schema", &self.schema).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for VirtualTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let reader = Reader { schema: Arc::clone(&self.schema), columns, read: Arc::clone(&self.read) };
        let table = StreamingTable::try_new(Arc::clone(&self.schema), vec![Arc::new(reader)])?;
        table.scan(state, projection, filters, limit).await
    }
}

/// One reading.
struct Reader {
    schema: SchemaRef,
    columns: Vec<usize>,
    read: Read,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl PartitionStream for Reader {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, rows) = (Arc::clone(&self.schema), (self.read)(&self.columns));
        let batch = async move { rows.await.and_then(|rows| batch_of(&schema, &rows)).map_err(external) };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream::once(batch)))
    }
}

fn batch_of(schema: &SchemaRef, rows: &[Row]) -> Result<RecordBatch, SqlError> {
    let column = |(index, field): (usize, &arrow::datatypes::FieldRef)| -> Result<ArrayRef> {
        if rows.is_empty() {
            return Ok(new_empty_array(field.data_type()));
        }
        ScalarValue::iter_to_array(rows.iter().map(|row| row[index].clone()))
    };
    let columns = schema.fields().iter().enumerate().map(column).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

pub(crate) fn text(text: impl Into<String>) -> ScalarValue {
    ScalarValue::Utf8(Some(text.into()))
}

/// A `bigint`; counts that do not fit are as good as endless.
pub(crate) fn count(count: u64) -> ScalarValue {
    ScalarValue::Int64(Some(i64::try_from(count).unwrap_or(i64::MAX)))
}

pub(crate) fn texts(texts: impl IntoIterator<Item = String>) -> ScalarValue {
    let texts: Vec<_> = texts.into_iter().map(text).collect();
    ScalarValue::List(ScalarValue::new_list_nullable(&texts, &arrow::datatypes::DataType::Utf8))
}
