//! The catalog's nouns.

use super::{ConvertError, convert_all, error, into_all, narrow, required};
use crate::catalog::{
    CatalogDelta, Cell, Chunk, ChunkState, Hypertable, Node, NodeRole, NodeState, Noun, NounKey, PlacementGroup,
    Setting, SpaceDimension, Table, TableKind,
};
use crate::compression::{Compression, OrderBy};
use crate::ids::{
    CatalogVersion, ChunkId, ColumnId, Epoch, GroupId, Incarnation, NodeId, SchemaVersion, Slot, TableId,
};
use crate::modifier::Modifier;
use crate::schema::{Column, TableSchema};
use crate::time::{TimeRange, TimeUs};
use crate::types::SqlType;
use crate::wire;

impl From<Column> for wire::Column {
    fn from(column: Column) -> Self {
        Self {
            id: column.id.0.into(),
            name: column.name,
            sql_type: column.sql_type.to_string(),
            not_null: column.not_null,
            default_sql: column.default,
            modifier: column.modifier.map(Modifier::typmod),
        }
    }
}

impl TryFrom<wire::Column> for Column {
    type Error = ConvertError;

    fn try_from(wire: wire::Column) -> Result<Self, ConvertError> {
        let Some(sql_type) = SqlType::parse(&wire.sql_type) else {
            return error(format!("unknown type {:.64?} of column {:.64?}", wire.sql_type, wire.name));
        };
        let modifier = wire.modifier.map(|typmod| match Modifier::of_typmod(&sql_type, typmod) {
            Some(modifier) => Ok(modifier),
            None => error(format!("type {sql_type} has no modifier {typmod}")),
        });
        Ok(Self {
            id: ColumnId(narrow(wire.id, "column id")?),
            name: wire.name,
            modifier: modifier.transpose()?,
            sql_type,
            not_null: wire.not_null,
            default: wire.default_sql,
        })
    }
}

impl From<TableSchema> for wire::TableSchema {
    fn from(schema: TableSchema) -> Self {
        Self { version: schema.version.0, columns: into_all(schema.columns) }
    }
}

impl TryFrom<wire::TableSchema> for TableSchema {
    type Error = ConvertError;

    fn try_from(wire: wire::TableSchema) -> Result<Self, ConvertError> {
        Ok(Self { version: SchemaVersion(wire.version), columns: convert_all(wire.columns)? })
    }
}

impl From<SpaceDimension> for wire::SpaceDimension {
    fn from(dimension: SpaceDimension) -> Self {
        Self { column: dimension.column.0.into(), cells: dimension.cells }
    }
}

impl TryFrom<wire::SpaceDimension> for SpaceDimension {
    type Error = ConvertError;

    fn try_from(wire: wire::SpaceDimension) -> Result<Self, ConvertError> {
        if wire.cells == 0 {
            return error("space dimension without cells");
        }
        Ok(Self { column: ColumnId(narrow(wire.column, "column id")?), cells: wire.cells })
    }
}

impl From<Hypertable> for wire::Hypertable {
    fn from(hypertable: Hypertable) -> Self {
        Self {
            id: hypertable.id,
            time_column: hypertable.time_column.0.into(),
            chunk_interval_us: hypertable.chunk_interval_us,
            space: into_all(hypertable.space),
            compression: hypertable.compression.map(Into::into),
        }
    }
}

impl TryFrom<wire::Hypertable> for Hypertable {
    type Error = ConvertError;

    fn try_from(wire: wire::Hypertable) -> Result<Self, ConvertError> {
        if wire.chunk_interval_us <= 0 {
            return error("chunk interval is not positive");
        }
        Ok(Self {
            id: wire.id,
            time_column: ColumnId(narrow(wire.time_column, "column id")?),
            chunk_interval_us: wire.chunk_interval_us,
            space: convert_all(wire.space)?,
            compression: wire.compression.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<Compression> for wire::Compression {
    fn from(compression: Compression) -> Self {
        Self {
            segment_by: compression.segment_by.into_iter().map(|column| column.0.into()).collect(),
            order_by: into_all(compression.order_by),
        }
    }
}

impl TryFrom<wire::Compression> for Compression {
    type Error = ConvertError;

    fn try_from(wire: wire::Compression) -> Result<Self, ConvertError> {
        if wire.order_by.is_empty() {
            return error("compression without order");
        }
        let segment_by = wire.segment_by.into_iter().map(|column| narrow(column, "column id").map(ColumnId));
        Ok(Self { segment_by: segment_by.collect::<Result<_, _>>()?, order_by: convert_all(wire.order_by)? })
    }
}

impl From<OrderBy> for wire::OrderBy {
    fn from(order: OrderBy) -> Self {
        Self { column: order.column.0.into(), descending: order.descending, nulls_first: order.nulls_first }
    }
}

impl TryFrom<wire::OrderBy> for OrderBy {
    type Error = ConvertError;

    fn try_from(wire: wire::OrderBy) -> Result<Self, ConvertError> {
        let column = ColumnId(narrow(wire.column, "column id")?);
        Ok(Self { column, descending: wire.descending, nulls_first: wire.nulls_first })
    }
}

impl From<Table> for wire::Table {
    fn from(table: Table) -> Self {
        let hypertable = match table.kind {
            TableKind::Reference => None,
            TableKind::Hypertable(hypertable) => Some(hypertable.into()),
        };
        Self {
            id: table.id.0,
            namespace: table.namespace,
            name: table.name,
            schema: Some(table.schema.into()),
            hypertable,
            group: table.group.0,
            replication_factor: table.replication_factor.into(),
            created: table.created.0,
        }
    }
}

impl TryFrom<wire::Table> for Table {
    type Error = ConvertError;

    fn try_from(wire: wire::Table) -> Result<Self, ConvertError> {
        let kind = match wire.hypertable {
            None => TableKind::Reference,
            Some(hypertable) => TableKind::Hypertable(hypertable.try_into()?),
        };
        Ok(Self {
            id: TableId(wire.id),
            namespace: wire.namespace,
            name: wire.name,
            schema: required(wire.schema, "table schema")?.try_into()?,
            kind,
            group: GroupId(wire.group),
            replication_factor: narrow(wire.replication_factor, "replication factor")?,
            created: CatalogVersion(wire.created),
        })
    }
}

fn raw_nodes(nodes: Vec<NodeId>) -> Vec<u64> {
    nodes.into_iter().map(u64::from).collect()
}

fn node_ids(raw: Vec<u64>) -> Vec<NodeId> {
    raw.into_iter().map(NodeId).collect()
}

impl From<PlacementGroup> for wire::PlacementGroup {
    fn from(group: PlacementGroup) -> Self {
        Self {
            id: group.id.0,
            key: group.key,
            replication_factor: group.replication_factor.into(),
            slots: group.slots.into_iter().map(|nodes| wire::NodeIds { ids: raw_nodes(nodes) }).collect(),
        }
    }
}

impl TryFrom<wire::PlacementGroup> for PlacementGroup {
    type Error = ConvertError;

    fn try_from(wire: wire::PlacementGroup) -> Result<Self, ConvertError> {
        Ok(Self {
            id: GroupId(wire.id),
            key: wire.key,
            replication_factor: narrow(wire.replication_factor, "replication factor")?,
            slots: wire.slots.into_iter().map(|nodes| node_ids(nodes.ids)).collect(),
        })
    }
}

impl From<ChunkState> for wire::ChunkState {
    fn from(state: ChunkState) -> Self {
        match state {
            ChunkState::Active => Self::Active,
            ChunkState::Dropping => Self::Dropping,
        }
    }
}

fn chunk_state(raw: i32) -> Result<ChunkState, ConvertError> {
    match wire::ChunkState::try_from(raw) {
        Ok(wire::ChunkState::Active) => Ok(ChunkState::Active),
        Ok(wire::ChunkState::Dropping) => Ok(ChunkState::Dropping),
        _ => error(format!("unknown chunk state {raw}")),
    }
}

impl From<Chunk> for wire::Chunk {
    fn from(chunk: Chunk) -> Self {
        Self {
            id: chunk.id.0,
            oid: chunk.oid,
            table: chunk.table.0,
            slot: chunk.slot.0,
            start: chunk.range.start.0,
            end: chunk.range.end.0,
            epoch: chunk.epoch.0,
            primary: chunk.primary.0,
            in_sync: raw_nodes(chunk.in_sync),
            followers: raw_nodes(chunk.followers),
            state: wire::ChunkState::from(chunk.state).into(),
            shard_turn: chunk.shard_turn,
        }
    }
}

impl TryFrom<wire::Chunk> for Chunk {
    type Error = ConvertError;

    fn try_from(wire: wire::Chunk) -> Result<Self, ConvertError> {
        if wire.start >= wire.end {
            return error(format!("chunk {} has an empty time range", wire.id));
        }
        Ok(Self {
            id: ChunkId(wire.id),
            oid: wire.oid,
            table: TableId(wire.table),
            slot: Slot(wire.slot),
            range: TimeRange { start: TimeUs(wire.start), end: TimeUs(wire.end) },
            epoch: Epoch(wire.epoch),
            primary: NodeId(wire.primary),
            in_sync: node_ids(wire.in_sync),
            followers: node_ids(wire.followers),
            state: chunk_state(wire.state)?,
            shard_turn: wire.shard_turn,
        })
    }
}

impl From<NodeRole> for wire::NodeRole {
    fn from(role: NodeRole) -> Self {
        match role {
            NodeRole::Access => Self::Access,
            NodeRole::Data => Self::Data,
        }
    }
}

impl TryFrom<wire::NodeRole> for NodeRole {
    type Error = ConvertError;

    fn try_from(wire: wire::NodeRole) -> Result<Self, ConvertError> {
        match wire {
            wire::NodeRole::Access => Ok(Self::Access),
            wire::NodeRole::Data => Ok(Self::Data),
            wire::NodeRole::Unspecified => error("node without a role"),
        }
    }
}

impl From<NodeState> for wire::NodeState {
    fn from(state: NodeState) -> Self {
        match state {
            NodeState::Live => Self::Live,
            NodeState::Dead => Self::Dead,
            NodeState::Draining => Self::Draining,
        }
    }
}

impl TryFrom<wire::NodeState> for NodeState {
    type Error = ConvertError;

    fn try_from(wire: wire::NodeState) -> Result<Self, ConvertError> {
        match wire {
            wire::NodeState::Live => Ok(Self::Live),
            wire::NodeState::Dead => Ok(Self::Dead),
            wire::NodeState::Draining => Ok(Self::Draining),
            wire::NodeState::Unspecified => error("node without a state"),
        }
    }
}

pub(super) fn node_role(raw: i32) -> Result<NodeRole, ConvertError> {
    wire::NodeRole::try_from(raw).or_else(|_| error(format!("unknown node role {raw}")))?.try_into()
}

pub(super) fn node_state(raw: i32) -> Result<NodeState, ConvertError> {
    wire::NodeState::try_from(raw).or_else(|_| error(format!("unknown node state {raw}")))?.try_into()
}

impl From<Node> for wire::Node {
    fn from(node: Node) -> Self {
        Self {
            id: node.id.0,
            role: wire::NodeRole::from(node.role).into(),
            address: node.address,
            sql_address: node.sql_address,
            name: node.name,
            incarnation: node.incarnation.0,
            shards: node.shards.into(),
            state: wire::NodeState::from(node.state).into(),
        }
    }
}

impl TryFrom<wire::Node> for Node {
    type Error = ConvertError;

    fn try_from(wire: wire::Node) -> Result<Self, ConvertError> {
        Ok(Self {
            id: NodeId(wire.id),
            role: node_role(wire.role)?,
            address: wire.address,
            sql_address: wire.sql_address,
            name: wire.name,
            incarnation: Incarnation(wire.incarnation),
            shards: narrow(wire.shards, "shard count")?,
            state: node_state(wire.state)?,
        })
    }
}

impl From<Setting> for wire::Setting {
    fn from(setting: Setting) -> Self {
        Self { name: setting.name, value: setting.value }
    }
}

impl TryFrom<wire::Setting> for Setting {
    type Error = ConvertError;

    fn try_from(wire: wire::Setting) -> Result<Self, ConvertError> {
        Ok(Self { name: wire.name, value: wire.value })
    }
}

impl From<Noun> for wire::Noun {
    fn from(noun: Noun) -> Self {
        use wire::noun::Noun as Wire;
        let noun = match noun {
            Noun::Table(table) => Wire::Table(table.into()),
            Noun::Group(group) => Wire::Group(group.into()),
            Noun::Chunk(chunk) => Wire::Chunk(chunk.into()),
            Noun::Node(node) => Wire::Node(node.into()),
            Noun::Setting(setting) => Wire::Setting(setting.into()),
        };
        Self { noun: Some(noun) }
    }
}

impl TryFrom<wire::Noun> for Noun {
    type Error = ConvertError;

    fn try_from(wire: wire::Noun) -> Result<Self, ConvertError> {
        use wire::noun::Noun as Wire;
        Ok(match required(wire.noun, "noun")? {
            Wire::Table(table) => Self::Table(table.try_into()?),
            Wire::Group(group) => Self::Group(group.try_into()?),
            Wire::Chunk(chunk) => Self::Chunk(chunk.try_into()?),
            Wire::Node(node) => Self::Node(node.try_into()?),
            Wire::Setting(setting) => Self::Setting(setting.try_into()?),
        })
    }
}

impl From<NounKey> for wire::NounKey {
    fn from(key: NounKey) -> Self {
        use wire::noun_key::Key as Wire;
        let key = match key {
            NounKey::Table(id) => Wire::Table(id.0),
            NounKey::Group(id) => Wire::Group(id.0),
            NounKey::Chunk(id) => Wire::Chunk(id.0),
            NounKey::Node(id) => Wire::Node(id.0),
            NounKey::Setting(name) => Wire::Setting(name),
        };
        Self { key: Some(key) }
    }
}

impl TryFrom<wire::NounKey> for NounKey {
    type Error = ConvertError;

    fn try_from(wire: wire::NounKey) -> Result<Self, ConvertError> {
        use wire::noun_key::Key as Wire;
        Ok(match required(wire.key, "key of a noun")? {
            Wire::Table(id) => Self::Table(TableId(id)),
            Wire::Group(id) => Self::Group(GroupId(id)),
            Wire::Chunk(id) => Self::Chunk(ChunkId(id)),
            Wire::Node(id) => Self::Node(NodeId(id)),
            Wire::Setting(name) => Self::Setting(name),
        })
    }
}

impl From<CatalogDelta> for wire::CatalogDelta {
    fn from(delta: CatalogDelta) -> Self {
        Self { from: delta.from.0, to: delta.to.0, changed: into_all(delta.changed), removed: into_all(delta.removed) }
    }
}

impl TryFrom<wire::CatalogDelta> for CatalogDelta {
    type Error = ConvertError;

    fn try_from(wire: wire::CatalogDelta) -> Result<Self, ConvertError> {
        Ok(Self {
            from: CatalogVersion(wire.from),
            to: CatalogVersion(wire.to),
            changed: convert_all(wire.changed)?,
            removed: convert_all(wire.removed)?,
        })
    }
}

impl From<Cell> for wire::Cell {
    fn from(cell: Cell) -> Self {
        Self { table: cell.table.0, slot: cell.slot.0, start: cell.start.0 }
    }
}

impl TryFrom<wire::Cell> for Cell {
    type Error = ConvertError;

    fn try_from(wire: wire::Cell) -> Result<Self, ConvertError> {
        Ok(Self { table: TableId(wire.table), slot: Slot(wire.slot), start: TimeUs(wire.start) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(kind: TableKind) -> Table {
        let column = |id, name: &str, sql_type, default: Option<&str>| Column {
            id: ColumnId(id),
            name: name.to_owned(),
            sql_type,
            not_null: id == 1,
            default: default.map(str::to_owned),
            modifier: None,
        };
        Table {
            id: TableId(16_390),
            namespace: "public".into(),
            name: "weather".into(),
            schema: TableSchema {
                version: SchemaVersion(2),
                columns: vec![
                    column(1, "time", SqlType::Timestamptz, Some("now()")),
                    column(2, "origin", SqlType::Varchar(Some(3)), None),
                    column(7, "price", SqlType::Numeric(Some((12, 2))), Some("")),
                    column(8, "tags", SqlType::Array(Box::new(SqlType::Text)), None),
                ],
            },
            kind,
            group: GroupId(3),
            replication_factor: 2,
            created: CatalogVersion(77),
        }
    }

    fn nouns() -> Vec<Noun> {
        let hypertable = Hypertable {
            id: 1,
            time_column: ColumnId(1),
            chunk_interval_us: 5,
            space: vec![SpaceDimension { column: ColumnId(2), cells: 16 }],
            compression: Some(Compression {
                segment_by: vec![ColumnId(2)],
                order_by: vec![OrderBy { column: ColumnId(1), descending: true, nulls_first: false }],
            }),
        };
        let node = Node {
            id: NodeId(4),
            role: NodeRole::Data,
            address: "127.0.0.1:5435".into(),
            sql_address: None,
            name: "dn1".into(),
            incarnation: Incarnation(9),
            shards: 2,
            state: NodeState::Draining,
        };
        let access =
            Node { role: NodeRole::Access, sql_address: Some("a:1".into()), state: NodeState::Dead, ..node.clone() };
        let chunk = Chunk {
            id: ChunkId(u64::MAX),
            oid: 16_400,
            table: TableId(16_390),
            slot: Slot(15),
            range: TimeRange { start: TimeUs(i64::MIN), end: TimeUs(-7) },
            epoch: Epoch(3),
            primary: NodeId(4),
            in_sync: vec![NodeId(4), NodeId(5)],
            followers: vec![NodeId(6)],
            state: ChunkState::Active,
            shard_turn: 3,
        };
        let dropping = Chunk { state: ChunkState::Dropping, followers: vec![], ..chunk.clone() };
        vec![
            Noun::Table(table(TableKind::Reference)),
            Noun::Table(table(TableKind::Hypertable(hypertable))),
            Noun::Group(PlacementGroup {
                id: GroupId(3),
                key: "text:16".into(),
                replication_factor: 2,
                slots: vec![vec![NodeId(4), NodeId(5)], vec![], vec![NodeId(5)]],
            }),
            Noun::Chunk(chunk),
            Noun::Chunk(dropping),
            Noun::Node(Node { state: NodeState::Live, ..node.clone() }),
            Noun::Node(node),
            Noun::Node(access),
            Noun::Setting(Setting { name: "timezone".into(), value: "UTC".into() }),
        ]
    }

    #[test]
    fn every_noun_survives_the_round_trip() {
        for noun in nouns() {
            assert_eq!(Noun::try_from(wire::Noun::from(noun.clone())), Ok(noun));
        }
    }

    #[test]
    fn deltas_with_every_key_survive_the_round_trip() {
        let removed: Vec<_> = nouns().iter().map(Noun::key).collect();
        let delta = CatalogDelta { from: CatalogVersion(1), to: CatalogVersion(u64::MAX), changed: nouns(), removed };
        assert_eq!(CatalogDelta::try_from(wire::CatalogDelta::from(delta.clone())), Ok(delta));
        let cell = Cell { table: TableId(1), slot: Slot(2), start: TimeUs(-3) };
        assert_eq!(Cell::try_from(wire::Cell::from(cell)), Ok(cell));
    }

    #[test]
    fn what_is_missing_or_out_of_range_is_an_error() {
        assert!(Noun::try_from(wire::Noun::default()).is_err());
        assert!(NounKey::try_from(wire::NounKey::default()).is_err());
        assert!(Table::try_from(wire::Table::default()).is_err());
        assert!(Chunk::try_from(wire::Chunk::default()).is_err());
        assert!(Node::try_from(wire::Node { role: 99, state: 1, ..Default::default() }).is_err());
        assert!(Node::try_from(wire::Node { role: 1, state: 0, ..Default::default() }).is_err());
        assert!(Node::try_from(wire::Node { role: 1, state: 1, shards: 70_000, ..Default::default() }).is_err());
        assert!(Column::try_from(wire::Column { sql_type: "geometry".into(), ..Default::default() }).is_err());
        assert!(Hypertable::try_from(wire::Hypertable::default()).is_err());
        assert!(SpaceDimension::try_from(wire::SpaceDimension::default()).is_err());
    }
}
