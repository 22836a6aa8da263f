//! First rows of more keys than are to be held in memory: all rows sorted by key, then by the order within it, by an
//! operator that goes on on disk. The first row of each key goes through.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::{EmptyRecordBatchStream, RecordBatchStreamAdapter};
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::StreamExt;

/// Of the rows, sorted by their keys.
pub(super) fn firsts_by_sorting(
    rows: SendableRecordBatchStream,
    keys: Vec<PhysicalSortExpr>,
    order: Vec<PhysicalSortExpr>,
    context: &TaskContext,
) -> Result<SendableRecordBatchStream> {
    let schema = rows.schema();
    let mut firsts = Firsts::try_new(&keys, &schema)?;
    let Some(sorts) = LexOrdering::new(keys.into_iter().chain(order)) else {
        return internal_err!("first rows without a key");
    };
    let rows = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), rows.map(|batch| apart(batch?))));
    let rows = Arc::new(Once { schema: Arc::clone(&schema), rows: Mutex::new(Some(rows)) });
    let rows = StreamingTableExec::try_new(Arc::clone(&schema), vec![rows], None, [], false, None)?;
    let sorted = SortExec::new(sorts, Arc::new(rows)).execute(0, sorting_context(context))?;
    let firsts = sorted.map(move |batch| firsts.among(&batch?));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, firsts)))
}

/// A batch with memory of its own: sorting counts all memory that is held for a slice, and would find none left.
fn apart(batch: RecordBatch) -> Result<RecordBatch> {
    let column = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
    let bytes: usize = batch.columns().iter().map(column).sum();
    if batch.num_rows() < 2 || batch.get_array_memory_size() <= 2 * bytes {
        return Ok(batch);
    }
    // Of one piece nothing would be copied.
    let (first, rest) = (batch.slice(0, 1), batch.slice(1, batch.num_rows() - 1));
    Ok(concat_batches(&batch.schema(), [&first, &rest])?)
}

/// Where a sort keeps a third of the memory back for merging what it has in memory; of little the default leaves too
/// little.
fn sorting_context(context: &TaskContext) -> Arc<TaskContext> {
    let mut config = context.session_config().clone();
    if let MemoryLimit::Finite(bytes) = context.memory_pool().memory_limit() {
        let kept_back = config.options().execution.sort_spill_reservation_bytes.max(bytes / 3);
        config = config.with_sort_spill_reservation_bytes(kept_back);
    }
    let (session, runtime) = (context.session_id(), context.runtime_env());
    let (scalar, aggregate) = (HashMap::new(), HashMap::new());
    Arc::new(TaskContext::new(None, session, config, scalar, HashMap::new(), aggregate, HashMap::new(), runtime))
}

/// Rows that can be read once, as they are there already.
struct Once {
    schema: SchemaRef,
    rows: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once")
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).take();
        rows.unwrap_or_else(|| {
            let twice = futures::stream::once(async { exec_err!("rows were read twice") });
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), twice))
        })
    }
}

/// An input that is read no more.
pub(super) fn nothing(schema: SchemaRef) -> SendableRecordBatchStream {
    Box::pin(EmptyRecordBatchStream::new(schema))
}

/// Takes the first row of each run of equal keys.
struct Firsts {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    converter: RowConverter,
    /// Of the row before.
    last: Option<OwnedRow>,
}

impl Firsts {
    fn try_new(keys: &[PhysicalSortExpr], schema: &SchemaRef) -> Result<Self> {
        let field = |sort: &PhysicalSortExpr| sort.expr.data_type(schema).map(SortField::new);
        let converter = RowConverter::new(keys.iter().map(field).collect::<Result<_>>()?)?;
        Ok(Self { keys: keys.iter().map(|sort| Arc::clone(&sort.expr)).collect(), converter, last: None })
    }

    fn among(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let value = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(batch)?.into_array(batch.num_rows());
        let keys: Vec<ArrayRef> = self.keys.iter().map(value).collect::<Result<_>>()?;
        let keys = self.converter.convert_columns(&keys)?;
        let is_first = |row: &usize| match row {
            0 => self.last.as_ref().is_none_or(|last| last.row() != keys.row(0)),
            row => keys.row(*row) != keys.row(row - 1),
        };
        let firsts: UInt32Array = (0..batch.num_rows()).filter(is_first).map(|row| row as u32).collect();
        if batch.num_rows() > 0 {
            self.last = Some(keys.row(batch.num_rows() - 1).owned());
        }
        Ok(take_record_batch(batch, &firsts)?)
    }
}
