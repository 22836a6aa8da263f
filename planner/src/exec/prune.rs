//! Which chunks a query can need: by the time range and by the space keys that its filters allow.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, InListExpr, Literal};
use datafusion::scalar::ScalarValue;
use meridian_client::cluster::CatalogView;
use meridian_client::cluster::split::date_time;
use meridian_fragment::{Bound, bounds_of, neighbour};
use meridian_proto::catalog::{Chunk, ChunkState, Table};
use meridian_proto::slot::{cell_of, hash_array};
use meridian_proto::{ChunkId, ColumnId, Epoch, NodeId, Refusal, ShardId, Slot, TimeUs};

/// Chunks on one shard of one data node: one partition of a remote scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub node: NodeId,
    pub shard: ShardId,
    pub chunks: Vec<(ChunkId, Epoch)>,
}

/// What is left of a table after pruning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Targets {
    /// By node and shard.
    pub targets: Vec<Target>,
    pub chunks_pruned: usize,
}

impl Targets {
    pub(crate) fn chunk_count(&self) -> usize {
        self.targets.iter().map(|target| target.chunks.len()).sum()
    }
}

/// Bounds of columns that predicates over a table's columns prove.
pub(crate) fn bounds(predicates: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef) -> Vec<Bound> {
    let positions: Vec<usize> = (0..schema.fields().len()).collect();
    let of_type = |bound: &Bound| {
        let wanted = schema.field(bound.column).data_type();
        [&bound.min, &bound.max].into_iter().flatten().all(|end| end.data_type() == *wanted && !end.is_null())
    };
    let of = |predicate: &Arc<dyn PhysicalExpr>| {
        let found = bounds_of(predicate, &positions).into_iter().filter(of_type);
        found.map(|bound| without_excluded_end(bound, predicate)).collect::<Vec<_>>()
    };
    predicates.iter().flat_map(of).collect()
}

/// Ends of bounds are inclusive: `time < midnight` ends just before, so that the next day's chunk is not touched.
fn without_excluded_end(mut bound: Bound, predicate: &Arc<dyn PhysicalExpr>) -> Bound {
    let Some(binary) = predicate.downcast_ref::<BinaryExpr>() else { return bound };
    let (value, op) = match (binary.left(), binary.right()) {
        (left, right) if left.is::<Column>() => (right.downcast_ref::<Literal>(), Some(*binary.op())),
        (left, right) if right.is::<Column>() => (left.downcast_ref::<Literal>(), binary.op().swap()),
        _ => return bound,
    };
    let (end, step) = match op {
        Some(Operator::Lt) => (&mut bound.max, -1),
        Some(Operator::Gt) => (&mut bound.min, 1),
        _ => return bound,
    };
    if let Some(value) = value.map(Literal::value)
        && end.as_ref() == Some(value)
        && let Some(next) = neighbour(value, step)
    {
        *end = Some(next);
    }
    bound
}

/// Picks the chunks of `table` that may hold rows within `bounds` for which all of `predicates` are true.
pub(crate) fn prune(
    view: &CatalogView,
    table: &Table,
    bounds: &[Bound],
    predicates: &[Arc<dyn PhysicalExpr>],
) -> Result<Targets, Refusal> {
    let time = time_bound(table, bounds);
    let cells = allowed_cells(table, predicates);
    let mut pruned = 0;
    let mut kept = Vec::new();
    for chunk in view.chunks_of(table.id).filter(|chunk| chunk.state == ChunkState::Active) {
        if overlaps(chunk, time) && slot_allowed(table, chunk.slot, &cells) {
            kept.push((chunk.id, chunk));
        } else {
            pruned += 1;
        }
    }
    let targets = route(view, kept.into_iter().map(|(_, chunk)| chunk.as_ref()))?;
    Ok(Targets { targets, chunks_pruned: pruned })
}

/// Groups chunks by the shard that leads them.
pub(crate) fn route<'a>(view: &CatalogView, chunks: impl Iterator<Item = &'a Chunk>) -> Result<Vec<Target>, Refusal> {
    let mut by_shard: BTreeMap<(NodeId, ShardId), Vec<(ChunkId, Epoch)>> = BTreeMap::new();
    for chunk in chunks {
        let place = view.shard_of(chunk).ok_or_else(|| {
            Refusal::Unavailable(format!("data node {} of chunk {} is not known", chunk.primary, chunk.id))
        })?;
        by_shard.entry(place).or_default().push((chunk.id, chunk.epoch));
    }
    let target = |((node, shard), chunks)| Target { node, shard, chunks };
    Ok(by_shard.into_iter().map(target).collect())
}

/// Least and greatest time, both inclusive.
type TimeBound = (Option<TimeUs>, Option<TimeUs>);

fn time_bound(table: &Table, bounds: &[Bound]) -> TimeBound {
    let position = table.hypertable().and_then(|hypertable| table.schema.position_of(hypertable.time_column));
    let bound = bounds.iter().find(|bound| Some(bound.column) == position);
    let end = |value: &Option<ScalarValue>| value.as_ref().and_then(time_of);
    bound.map_or((None, None), |bound| (end(&bound.min), end(&bound.max)))
}

fn time_of(value: &ScalarValue) -> Option<TimeUs> {
    match value {
        ScalarValue::TimestampMicrosecond(Some(us), _) => Some(TimeUs(*us)),
        ScalarValue::Date32(Some(days)) => Some(date_time(*days)),
        ScalarValue::Int64(Some(value)) => Some(TimeUs(*value)),
        ScalarValue::Int32(Some(value)) => Some(TimeUs((*value).into())),
        ScalarValue::Int16(Some(value)) => Some(TimeUs((*value).into())),
        _ => None,
    }
}

fn overlaps(chunk: &Chunk, (min, max): TimeBound) -> bool {
    let range = chunk.range;
    let early_enough = max.is_none_or(|max| range.start <= max);
    let late_enough = min.is_none_or(|min| min < range.end || range.end == TimeUs::INFINITY);
    early_enough && late_enough
}

/// Per space dimension, the cells that the predicates leave; `None`: all.
fn allowed_cells(table: &Table, predicates: &[Arc<dyn PhysicalExpr>]) -> Vec<Option<Vec<u32>>> {
    let space = table.hypertable().map_or(&[][..], |hypertable| &hypertable.space);
    let allowed = |column: ColumnId, cells: u32| {
        let position = table.schema.position_of(column)?;
        let column = table.schema.column(column)?;
        let values = predicates.iter().find_map(|predicate| allowed_values(predicate, position))?;
        let cell = |value: ScalarValue| {
            // A literal of another type compares as its own type does; only where it casts exactly is the hash known.
            let value = value.cast_to(&column.sql_type.arrow()).ok()?;
            let array = value.to_array_of_size(1).ok()?;
            let hash = *hash_array(array.as_ref(), &column.sql_type)?.first()?;
            Some(cell_of(hash, cells))
        };
        values.into_iter().map(cell).collect::<Option<Vec<u32>>>()
    };
    space.iter().map(|dimension| allowed(dimension.column, dimension.cells)).collect()
}

/// The only values of the column for which the predicate can be true; `None`: not known.
fn allowed_values(predicate: &Arc<dyn PhysicalExpr>, column: usize) -> Option<Vec<ScalarValue>> {
    let is_column = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().is_some_and(|c| c.index() == column);
    let literal = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Literal>().map(|literal| literal.value().clone());
    if let Some(list) = predicate.downcast_ref::<InListExpr>() {
        return if !list.negated() && is_column(list.expr()) {
            list.list().iter().map(literal).collect()
        } else {
            None
        };
    }
    let binary = predicate.downcast_ref::<BinaryExpr>()?;
    let (left, right) = (binary.left(), binary.right());
    match binary.op() {
        Operator::Eq if is_column(left) => Some(vec![literal(right)?]),
        Operator::Eq if is_column(right) => Some(vec![literal(left)?]),
        Operator::Or => {
            let mut values = allowed_values(left, column)?;
            values.extend(allowed_values(right, column)?);
            Some(values)
        }
        Operator::And => allowed_values(left, column).or_else(|| allowed_values(right, column)),
        _ => None,
    }
}

fn slot_allowed(table: &Table, slot: Slot, allowed: &[Option<Vec<u32>>]) -> bool {
    let mut rest = slot.0;
    // The first dimension is the slowest, so the last comes off first.
    for (cells, allowed) in table.space_cells().iter().zip(allowed).rev() {
        let cell = rest % cells.max(&1);
        rest /= cells.max(&1);
        if allowed.as_ref().is_some_and(|allowed| !allowed.contains(&cell)) {
            return false;
        }
    }
    true
}

#[cfg(test)]
pub(crate) mod tests {
    use datafusion::common::DFSchema;
    use datafusion::logical_expr::Expr;
    use datafusion::prelude::{SessionContext, col, lit};
    use meridian_proto::catalog::{
        CatalogDelta, Hypertable, Node, NodeRole, NodeState, Noun, SpaceDimension, TableKind,
    };
    use meridian_proto::schema::{Column, TableSchema};
    use meridian_proto::slot::hash_bytes;
    use meridian_proto::time::US_PER_DAY;
    use meridian_proto::{CatalogVersion, GroupId, Incarnation, SchemaVersion, SqlType, TableId, TimeRange};

    use super::*;

    /// A hypertable `metrics (time timestamptz, host text, v double precision)`, 4 slots x 3 days on 2 nodes x 2 shards,
    /// and a reference table `hosts (host text, rack bigint)`.
    pub(crate) fn view() -> CatalogView {
        let mut nouns = vec![Noun::Table(metrics()), Noun::Table(hosts())];
        for id in [2, 3] {
            nouns.push(Noun::Node(Node {
                id: NodeId(id),
                role: NodeRole::Data,
                address: format!("dn{id}:1"),
                sql_address: None,
                name: format!("dn{id}"),
                incarnation: Incarnation(1),
                shards: 2,
                state: NodeState::Live,
            }));
        }
        let mut id = 100;
        for slot in 0..4 {
            for day in 0..3 {
                let range = TimeRange { start: TimeUs(day * US_PER_DAY), end: TimeUs((day + 1) * US_PER_DAY) };
                nouns.push(Noun::Chunk(chunk(id, metrics().id, slot, range)));
                id += 1;
            }
        }
        nouns.push(Noun::Chunk(chunk(id, hosts().id, 0, TimeRange::ALL)));
        let delta = CatalogDelta { from: CatalogVersion(0), to: CatalogVersion(7), changed: nouns, removed: vec![] };
        CatalogView::default().apply(&delta).unwrap()
    }

    fn chunk(id: u64, table: TableId, slot: u32, range: TimeRange) -> Chunk {
        let primary = NodeId(2 + u64::from(slot % 2));
        Chunk {
            id: ChunkId(id),
            oid: id as u32,
            table,
            slot: Slot(slot),
            range,
            epoch: Epoch(1),
            primary,
            in_sync: vec![primary],
            followers: vec![],
            state: ChunkState::Active,
            shard_turn: 0,
        }
    }

    fn column(id: u16, name: &str, sql_type: SqlType) -> Column {
        Column { id: ColumnId(id), name: name.to_owned(), sql_type, not_null: id == 1, default: None, modifier: None }
    }

    pub(crate) fn metrics() -> Table {
        let columns = vec![
            column(1, "time", SqlType::Timestamptz),
            column(2, "host", SqlType::Text),
            column(3, "v", SqlType::Float8),
        ];
        let kind = TableKind::Hypertable(Hypertable {
            id: 1,
            time_column: ColumnId(1),
            chunk_interval_us: US_PER_DAY,
            space: vec![SpaceDimension { column: ColumnId(2), cells: 4 }],
            compression: None,
        });
        table(20_000, "metrics", columns, kind)
    }

    fn hosts() -> Table {
        let columns = vec![column(1, "host", SqlType::Text), column(2, "rack", SqlType::Int8)];
        table(20_001, "hosts", columns, TableKind::Reference)
    }

    fn table(id: u32, name: &str, columns: Vec<Column>, kind: TableKind) -> Table {
        Table {
            id: TableId(id),
            namespace: "public".to_owned(),
            name: name.to_owned(),
            schema: TableSchema { version: SchemaVersion(1), columns },
            kind,
            group: GroupId(1),
            replication_factor: 1,
            created: CatalogVersion(1),
        }
    }

    fn time(us: i64) -> Option<ScalarValue> {
        Some(ScalarValue::TimestampMicrosecond(Some(us), Some(Arc::from("UTC"))))
    }

    fn physical(filters: &[Expr]) -> Vec<Arc<dyn PhysicalExpr>> {
        let schema = DFSchema::try_from(metrics().schema.arrow()).unwrap();
        let context = SessionContext::new();
        filters.iter().map(|filter| context.create_physical_expr(filter.clone(), &schema).unwrap()).collect()
    }

    fn count(bounds: &[Bound], filters: &[Expr]) -> (usize, usize) {
        let targets = prune(&view(), &metrics(), bounds, &physical(filters)).unwrap();
        (targets.chunk_count(), targets.chunks_pruned)
    }

    #[test]
    fn a_time_range_leaves_the_chunks_that_it_touches() {
        let bound = |min, max| [Bound { column: 0, min, max }];
        assert_eq!(count(&[], &[]), (12, 0));
        assert_eq!(count(&bound(time(US_PER_DAY), time(US_PER_DAY)), &[]), (4, 8));
        assert_eq!(count(&bound(time(US_PER_DAY - 1), None), &[]), (12, 0));
        assert_eq!(count(&bound(time(3 * US_PER_DAY), None), &[]), (0, 12));
        assert_eq!(count(&bound(None, time(-1)), &[]), (0, 12));
    }

    #[test]
    fn a_space_key_leaves_its_slot() {
        let filter = col("host").eq(lit("host_1"));
        let targets = prune(&view(), &metrics(), &[], &physical(std::slice::from_ref(&filter))).unwrap();
        assert_eq!((targets.targets.len(), targets.chunk_count()), (1, 3));
        let slot = cell_of(hash_bytes(b"host_1"), 4);
        let chunk = view().chunk(targets.targets[0].chunks[0].0).unwrap().slot.0;
        assert_eq!(chunk, slot);
        assert_eq!(count(&[], &[filter.clone().or(col("v").gt(lit(1.0)))]).0, 12);
        assert_eq!(count(&[], &[filter.clone().and(col("v").gt(lit(1.0)))]).0, 3);
        assert_eq!(count(&[], &[col("host").in_list(vec![lit("host_1")], false)]).0, 3);
        assert_eq!(count(&[], &[col("host").in_list(vec![lit("host_1")], true)]).0, 12);
    }

    #[test]
    fn targets_are_one_per_shard() {
        let targets = prune(&view(), &metrics(), &[], &[]).unwrap().targets;
        let places: Vec<_> = targets.iter().map(|target| (target.node.0, target.shard.0)).collect();
        assert_eq!(places.len(), 2.max(places.len()));
        assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
