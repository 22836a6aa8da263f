//! Fragments as bytes: datafusion-proto's messages, in which our leaf is an extension node.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use arrow::compute::SortOptions;
use arrow::datatypes::Schema;
use bytes::Bytes;
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use datafusion::scalar::ScalarValue;
use datafusion_proto::physical_plan::from_proto::parse_physical_sort_exprs;
use datafusion_proto::physical_plan::to_proto::serialize_physical_sort_exprs;
use datafusion_proto::physical_plan::{
    DefaultPhysicalProtoConverter, PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalPlanNodeExt,
    PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::physical_plan_node::PhysicalPlanType;
use datafusion_proto::protobuf::{self, PhysicalExprNode, PhysicalPlanNode, PhysicalSortExprNode};
use meridian_proto::{SchemaVersion, TableId};
use prost::Message;

use crate::allowed::check_allowed;
use crate::bound::Bound;
use crate::buckets::BucketAggregateExec;
use crate::first_rows::{FirstRowsExec, FirstRowsMode, KeySort};
use crate::functions;
use crate::leaf::ChunkScanExec;
use crate::metadata::MetadataAggregateExec;
use crate::schemas::{decode_schema, encode_schema};
use crate::want::{Buckets, Fact, Grid, Measure, Series, SortColumn, Top, Want};

/// Plans shorter than this cannot nest deeper than a decoder follows: 100 levels of at least two length-prefixed
/// messages of 2 bytes each, a column and an operator's name.
const SHALLOW_BYTES: usize = 1024;

/// Encodes a fragment. Refuses what [`check_allowed`] refuses, and what nests too deeply to be decoded.
pub fn encode(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<u8>> {
    check_allowed(plan)?;
    let codec = Codec::default();
    let node = DefaultPhysicalProtoConverter {}.execution_plan_to_proto(plan, &codec)?;
    let bytes = node.encode_to_vec();
    // The leaf is one field of bytes to this decoder, however long the schema in it.
    if bytes.len() - codec.leaf_bytes.into_inner() > SHALLOW_BYTES {
        PhysicalPlanNode::decode(bytes.as_slice()).map_err(|error| unreadable(&error))?;
    }
    Ok(bytes)
}

/// Decodes a fragment, for one execution: a plan with a dynamic filter must not run twice.
///
/// Bytes from outside: whatever they hold, the answer is a plan that [`check_allowed`] allows, or an error.
pub fn decode(bytes: &[u8]) -> Result<Arc<dyn ExecutionPlan>> {
    // The library asserts where a plan of its own making could not fail; ours may come from anywhere.
    catch_unwind(AssertUnwindSafe(|| decode_checked(bytes)))
        .unwrap_or_else(|panic| plan_err!("the fragment cannot be decoded: {}", panic_message(panic.as_ref())))
}

fn decode_checked(bytes: &[u8]) -> Result<Arc<dyn ExecutionPlan>> {
    static CONTEXT: LazyLock<TaskContext> =
        LazyLock::new(|| functions::context(SessionConfig::new(), Arc::new(RuntimeEnv::default())));
    let node = PhysicalPlanNode::decode(bytes).map_err(|error| unreadable(&error))?;
    let codec = Codec::default();
    let plan = Guard.proto_to_execution_plan(&node, &PhysicalPlanDecodeContext::new(&CONTEXT, &codec))?;
    check_allowed(&plan)?;
    Ok(plan)
}

fn unreadable(error: &prost::DecodeError) -> DataFusionError {
    DataFusionError::Plan(format!("the fragment cannot be decoded: {error}"))
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}

/// Decodes nodes of allowed kinds only. Checked before a node is built, since building a foreign one may open files.
struct Guard;

impl PhysicalProtoConverterExtension for Guard {
    fn proto_to_execution_plan(
        &self,
        node: &PhysicalPlanNode,
        context: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        check_kind(node)?;
        node.try_into_physical_plan_with_context(context, self)
    }

    fn execution_plan_to_proto(
        &self,
        _plan: &Arc<dyn ExecutionPlan>,
        _codec: &dyn PhysicalExtensionCodec,
    ) -> Result<PhysicalPlanNode> {
        plan_err!("only for decoding")
    }

    fn proto_to_physical_expr(
        &self,
        node: &PhysicalExprNode,
        schema: &Schema,
        context: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        self.default_proto_to_physical_expr(node, schema, context).map(|expr| checked(&expr).unwrap_or(expr))
    }

    fn physical_expr_to_proto(
        &self,
        _expr: &Arc<dyn PhysicalExpr>,
        _codec: &dyn PhysicalExtensionCodec,
    ) -> Result<PhysicalExprNode> {
        plan_err!("only for decoding")
    }
}

/// Arithmetic that fails on overflow, as SQL's does. The message has no place for that flag, so that a plan which had it
/// would silently wrap around on the shard.
fn checked(expr: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
    let binary = expr.downcast_ref::<BinaryExpr>()?;
    if !matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply) {
        return None;
    }
    // A chain of one operator was built below our sight, as one message.
    let side = |side: &Arc<dyn PhysicalExpr>| checked(side).unwrap_or_else(|| Arc::clone(side));
    let binary = BinaryExpr::new(side(binary.left()), *binary.op(), side(binary.right()));
    Some(Arc::new(binary.with_fail_on_overflow(true)))
}

fn check_kind(node: &PhysicalPlanNode) -> Result<()> {
    use PhysicalPlanType::{Aggregate, Extension, Filter, GlobalLimit, LocalLimit, Projection, Sort};
    match &node.physical_plan_type {
        Some(Extension(_) | Filter(_) | Projection(_) | Aggregate(_) | Sort(_) | LocalLimit(_) | GlobalLimit(_)) => {
            Ok(())
        }
        Some(other) => {
            let text = format!("{other:?}");
            plan_err!("a fragment cannot hold {}", text.split('(').next().unwrap_or_default())
        }
        None => plan_err!("a fragment cannot hold an empty operator"),
    }
}

/// The leaf, as it travels.
#[derive(Clone, PartialEq, prost::Message)]
struct Leaf {
    #[prost(uint32, tag = "1")]
    table: u32,
    #[prost(uint32, tag = "2")]
    schema_version: u32,
    /// Of the table: a `protobuf::Schema`.
    #[prost(bytes = "bytes", tag = "3")]
    schema: Bytes,
    #[prost(uint32, repeated, tag = "4")]
    projection: Vec<u32>,
    #[prost(message, repeated, tag = "5")]
    bounds: Vec<LeafBound>,
    #[prost(message, optional, tag = "6")]
    series: Option<LeafSeries>,
    /// Not empty when facts are wanted.
    #[prost(message, repeated, tag = "7")]
    facts: Vec<LeafFact>,
    #[prost(message, optional, tag = "8")]
    buckets: Option<LeafBuckets>,
    /// Not empty when rows are wanted in an order.
    #[prost(message, repeated, tag = "9")]
    order: Vec<LeafSort>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct LeafSort {
    #[prost(uint32, tag = "1")]
    column: u32,
    #[prost(bool, tag = "2")]
    descending: bool,
    #[prost(bool, tag = "3")]
    nulls_first: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeafBuckets {
    #[prost(uint32, repeated, tag = "1")]
    key: Vec<u32>,
    #[prost(uint32, tag = "2")]
    time: u32,
    /// Zero: one bucket.
    #[prost(int64, tag = "3")]
    width: i64,
    #[prost(int64, tag = "4")]
    origin: i64,
    #[prost(message, repeated, tag = "5")]
    measures: Vec<LeafFact>,
    /// Zero: all.
    #[prost(uint64, tag = "6")]
    top: u64,
    #[prost(bool, tag = "7")]
    newest: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeafSeries {
    #[prost(uint32, repeated, tag = "1")]
    key: Vec<u32>,
    #[prost(uint32, tag = "2")]
    time: u32,
    #[prost(bool, tag = "3")]
    first: bool,
    #[prost(bool, tag = "4")]
    last: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct LeafFact {
    /// 1 rows, 2 count, 3 min, 4 max; of buckets also 5 sum, 6 first, 7 its time, 8 last, 9 its time.
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(uint32, tag = "2")]
    column: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeafBound {
    #[prost(uint32, tag = "1")]
    column: u32,
    #[prost(message, optional, tag = "2")]
    min: Option<protobuf::ScalarValue>,
    #[prost(message, optional, tag = "3")]
    max: Option<protobuf::ScalarValue>,
}

impl TryFrom<&ChunkScanExec> for Leaf {
    type Error = DataFusionError;

    fn try_from(leaf: &ChunkScanExec) -> Result<Self> {
        let value = |end: &Option<ScalarValue>| end.as_ref().map(protobuf::ScalarValue::try_from).transpose();
        let bounds = leaf.bounds().iter().map(|bound| {
            Ok(LeafBound { column: narrow(bound.column)?, min: value(&bound.min)?, max: value(&bound.max)? })
        });
        Ok(Self {
            table: leaf.table().0,
            schema_version: leaf.schema_version().0,
            schema: encode_schema(leaf.table_schema())?,
            projection: leaf.projection().iter().map(|column| narrow(*column)).collect::<Result<_>>()?,
            bounds: bounds.collect::<Result<_>>()?,
            series: match leaf.want() {
                Want::Series(series) => Some(LeafSeries::try_from(series)?),
                _ => None,
            },
            facts: match leaf.want() {
                Want::Facts(facts) => facts.iter().map(LeafFact::try_from).collect::<Result<_>>()?,
                _ => Vec::new(),
            },
            buckets: match leaf.want() {
                Want::Buckets(buckets) => Some(LeafBuckets::try_from(buckets)?),
                _ => None,
            },
            order: match leaf.want() {
                Want::Sorted(order) => order.iter().map(LeafSort::try_from).collect::<Result<_>>()?,
                _ => Vec::new(),
            },
        })
    }
}

impl TryFrom<&SortColumn> for LeafSort {
    type Error = DataFusionError;

    fn try_from(by: &SortColumn) -> Result<Self> {
        let SortOptions { descending, nulls_first } = by.options;
        Ok(Self { column: narrow(by.column)?, descending, nulls_first })
    }
}

impl From<LeafSort> for SortColumn {
    fn from(by: LeafSort) -> Self {
        let options = SortOptions { descending: by.descending, nulls_first: by.nulls_first };
        Self { column: by.column as usize, options }
    }
}

impl TryFrom<&Series> for LeafSeries {
    type Error = DataFusionError;

    fn try_from(series: &Series) -> Result<Self> {
        let key = series.key.iter().map(|column| narrow(*column)).collect::<Result<_>>()?;
        Ok(Self { key, time: narrow(series.time)?, first: series.first, last: series.last })
    }
}

impl TryFrom<&Fact> for LeafFact {
    type Error = DataFusionError;

    fn try_from(fact: &Fact) -> Result<Self> {
        let kind = match fact {
            Fact::Rows => 1,
            Fact::Count(_) => 2,
            Fact::Min(_) => 3,
            Fact::Max(_) => 4,
        };
        Ok(Self { kind, column: narrow(fact.column().unwrap_or(0))? })
    }
}

impl TryFrom<LeafFact> for Fact {
    type Error = DataFusionError;

    fn try_from(fact: LeafFact) -> Result<Self> {
        let column = fact.column as usize;
        match fact.kind {
            1 => Ok(Self::Rows),
            2 => Ok(Self::Count(column)),
            3 => Ok(Self::Min(column)),
            4 => Ok(Self::Max(column)),
            kind => plan_err!("a leaf wants facts of the unknown kind {kind}"),
        }
    }
}

impl TryFrom<&Buckets> for LeafBuckets {
    type Error = DataFusionError;

    fn try_from(buckets: &Buckets) -> Result<Self> {
        Ok(Self {
            key: buckets.key.iter().map(|column| narrow(*column)).collect::<Result<_>>()?,
            time: narrow(buckets.time)?,
            width: buckets.grid.map_or(0, |grid| grid.width),
            origin: buckets.grid.map_or(0, |grid| grid.origin),
            measures: buckets.measures.iter().map(LeafFact::try_from).collect::<Result<_>>()?,
            top: buckets.top.map_or(0, |top| top.count as u64),
            newest: buckets.top.is_some_and(|top| top.newest),
        })
    }
}

impl TryFrom<&LeafBuckets> for Buckets {
    type Error = DataFusionError;

    fn try_from(buckets: &LeafBuckets) -> Result<Self> {
        let top = usize::try_from(buckets.top).map_err(|_| DataFusionError::Plan("too many buckets".to_owned()))?;
        Ok(Self {
            key: buckets.key.iter().map(|column| *column as usize).collect(),
            time: buckets.time as usize,
            grid: (buckets.width != 0).then_some(Grid { width: buckets.width, origin: buckets.origin }),
            measures: buckets.measures.iter().map(|measure| Measure::try_from(*measure)).collect::<Result<_>>()?,
            top: (top > 0).then_some(Top { count: top, newest: buckets.newest }),
        })
    }
}

impl TryFrom<&Measure> for LeafFact {
    type Error = DataFusionError;

    fn try_from(measure: &Measure) -> Result<Self> {
        let kind = match measure {
            Measure::Rows => 1,
            Measure::Count(_) => 2,
            Measure::Min(_) => 3,
            Measure::Max(_) => 4,
            Measure::Sum(_) => 5,
            Measure::First(_) => 6,
            Measure::FirstTime => 7,
            Measure::Last(_) => 8,
            Measure::LastTime => 9,
        };
        Ok(Self { kind, column: narrow(measure.column().unwrap_or(0))? })
    }
}

impl TryFrom<LeafFact> for Measure {
    type Error = DataFusionError;

    fn try_from(measure: LeafFact) -> Result<Self> {
        let column = measure.column as usize;
        Ok(match measure.kind {
            1 => Self::Rows,
            2 => Self::Count(column),
            3 => Self::Min(column),
            4 => Self::Max(column),
            5 => Self::Sum(column),
            6 => Self::First(column),
            7 => Self::FirstTime,
            8 => Self::Last(column),
            9 => Self::LastTime,
            kind => return plan_err!("a leaf wants measures of the unknown kind {kind}"),
        })
    }
}

impl Leaf {
    fn want(&self) -> Result<Want> {
        match (&self.series, self.facts.as_slice(), &self.buckets, self.order.as_slice()) {
            (None, [], None, []) => Ok(Want::Rows),
            (None, [], None, order) => Ok(Want::Sorted(order.iter().copied().map(SortColumn::from).collect())),
            (None, [], Some(buckets), []) => Ok(Want::Buckets(Buckets::try_from(buckets)?)),
            (None, facts, None, []) => {
                Ok(Want::Facts(facts.iter().map(|fact| Fact::try_from(*fact)).collect::<Result<_>>()?))
            }
            (Some(series), [], None, []) => Ok(Want::Series(Series {
                key: series.key.iter().map(|column| *column as usize).collect(),
                time: series.time as usize,
                first: series.first,
                last: series.last,
            })),
            _ => plan_err!("a leaf wants two things at the same time"),
        }
    }
}

impl TryFrom<Leaf> for ChunkScanExec {
    type Error = DataFusionError;

    fn try_from(leaf: Leaf) -> Result<Self> {
        if leaf.schema.is_empty() {
            return plan_err!("a chunk scan without a schema");
        }
        let value = |end: &Option<protobuf::ScalarValue>| end.as_ref().map(ScalarValue::try_from).transpose();
        let bounds = leaf
            .bounds
            .iter()
            .map(|bound| Ok(Bound { column: bound.column as usize, min: value(&bound.min)?, max: value(&bound.max)? }));
        let want = leaf.want()?;
        let scan = ChunkScanExec::try_new(
            TableId(leaf.table),
            SchemaVersion(leaf.schema_version),
            decode_schema(&leaf.schema)?,
            leaf.projection.iter().map(|column| *column as usize).collect(),
            bounds.collect::<Result<_>>()?,
        )?;
        scan.with_want(want)
    }
}

fn narrow(position: usize) -> Result<u32> {
    u32::try_from(position).map_err(|_| DataFusionError::Plan(format!("column {position}")))
}

/// What the aggregate of buckets says of itself; that of metadata says nothing.
const BUCKETS: &[u8] = b"b";

/// First rows, behind a byte that says so.
#[derive(Clone, PartialEq, prost::Message)]
struct First {
    #[prost(bool, tag = "1")]
    is_part: bool,
    #[prost(message, repeated, tag = "2")]
    keys: Vec<PhysicalExprNode>,
    #[prost(message, repeated, tag = "3")]
    order: Vec<PhysicalSortExprNode>,
    #[prost(message, repeated, tag = "4")]
    sorted_by: Vec<FirstSort>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct FirstSort {
    #[prost(uint32, tag = "1")]
    key: u32,
    #[prost(bool, tag = "2")]
    descending: bool,
    #[prost(bool, tag = "3")]
    nulls_first: bool,
}

impl TryFrom<&KeySort> for FirstSort {
    type Error = DataFusionError;

    fn try_from(sort: &KeySort) -> Result<Self> {
        let SortOptions { descending, nulls_first } = sort.options;
        Ok(Self { key: narrow(sort.key)?, descending, nulls_first })
    }
}

impl From<FirstSort> for KeySort {
    fn from(sort: FirstSort) -> Self {
        let options = SortOptions { descending: sort.descending, nulls_first: sort.nulls_first };
        Self { key: sort.key as usize, options }
    }
}

const FIRST: u8 = b'f';

impl First {
    fn encode_node(
        node: &FirstRowsExec,
        bytes: &mut Vec<u8>,
        codec: &Codec,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let keys = node.keys().iter().map(|key| converter.physical_expr_to_proto(key, codec));
        let first = Self {
            is_part: node.mode() == FirstRowsMode::Part,
            keys: keys.collect::<Result<_>>()?,
            order: serialize_physical_sort_exprs(node.order().to_vec(), codec, converter)?,
            sorted_by: node.sorted_by().iter().map(FirstSort::try_from).collect::<Result<_>>()?,
        };
        bytes.push(FIRST);
        let encoded = first.encode_to_vec();
        // What the decoder of the plan sees is one field of bytes.
        if encoded.len() > SHALLOW_BYTES {
            Self::decode(encoded.as_slice()).map_err(|error| unreadable(&error))?;
        }
        bytes.extend(encoded);
        Ok(())
    }

    fn decode_node(
        bytes: &[u8],
        input: &Arc<dyn ExecutionPlan>,
        context: &PhysicalPlanDecodeContext<'_>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<FirstRowsExec> {
        let first = Self::decode(bytes).map_err(|error| unreadable(&error))?;
        let schema = input.schema();
        let keys = first.keys.iter().map(|key| converter.proto_to_physical_expr(key, &schema, context));
        let keys = keys.collect::<Result<_>>()?;
        let order = parse_physical_sort_exprs(&first.order, context, &schema, converter)?;
        let mode = if first.is_part { FirstRowsMode::Part } else { FirstRowsMode::Whole };
        let sorted_by = first.sorted_by.into_iter().map(KeySort::from).collect();
        FirstRowsExec::try_new(mode, keys, order, Arc::clone(input))?.sorted(sorted_by)
    }
}

/// Our own operators as extension nodes: the leaf, and with one input, the aggregates of metadata and of buckets, and first
/// rows. Functions travel by name and are found in the decoding context.
#[derive(Debug, Default)]
struct Codec {
    /// Of the leaf that was encoded.
    leaf_bytes: AtomicUsize,
}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = inputs else {
            if !inputs.is_empty() {
                return plan_err!("a chunk scan has no inputs");
            }
            let leaf = Leaf::decode(bytes).map_err(|error| unreadable(&error))?;
            return Ok(Arc::new(ChunkScanExec::try_from(leaf)?));
        };
        Ok(match bytes.split_first() {
            None => Arc::new(MetadataAggregateExec::try_new(Arc::clone(input))?),
            Some((&FIRST, bytes)) => {
                let context = PhysicalPlanDecodeContext::new(context, self);
                Arc::new(First::decode_node(bytes, input, &context, converter)?)
            }
            _ if bytes == BUCKETS => Arc::new(BucketAggregateExec::try_new(Arc::clone(input))?),
            Some(_) => return plan_err!("an operator of an unknown kind"),
        })
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        if node.is::<MetadataAggregateExec>() {
            return Ok(());
        }
        if node.is::<BucketAggregateExec>() {
            bytes.extend_from_slice(BUCKETS);
            return Ok(());
        }
        if let Some(first) = node.downcast_ref::<FirstRowsExec>() {
            return First::encode_node(first, bytes, self, converter);
        }
        let Some(leaf) = node.downcast_ref::<ChunkScanExec>() else {
            return plan_err!("a fragment cannot hold {}", node.name());
        };
        Leaf::try_from(leaf)?.encode(bytes).map_err(|error| DataFusionError::Plan(error.to_string()))?;
        self.leaf_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        Ok(())
    }
}
