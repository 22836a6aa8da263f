//! Commands and replies.

use super::catalog::{node_role, node_state};
use super::{ConvertError, convert_all, into_all, narrow, required};
use crate::command::{Command, CreateHypertable, CreateTable, JoinNode, Reply, SetCompression};
use crate::compression::{CompressionChange, OrderByName};
use crate::ids::{ChunkId, Epoch, GroupId, Incarnation, NodeId, ProducerId, StartMark, TableId, Ts};
use crate::start::{PastStart, Start};
use crate::wire;

impl From<PastStart> for wire::PastStart {
    fn from(past: PastStart) -> Self {
        Self { incarnation: past.incarnation.0, mark: past.mark.0 }
    }
}

impl From<wire::PastStart> for PastStart {
    fn from(wire: wire::PastStart) -> Self {
        Self { incarnation: Incarnation(wire.incarnation), mark: StartMark(wire.mark) }
    }
}

impl From<Start> for wire::Start {
    fn from(start: Start) -> Self {
        Self {
            node: start.node.0,
            incarnation: start.incarnation.0,
            mark: start.mark.0,
            before: into_all(start.before),
        }
    }
}

impl From<wire::Start> for Start {
    fn from(wire: wire::Start) -> Self {
        Self {
            node: NodeId(wire.node),
            incarnation: Incarnation(wire.incarnation),
            mark: StartMark(wire.mark),
            before: wire.before.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<CreateTable> for wire::CreateTable {
    fn from(create: CreateTable) -> Self {
        Self {
            namespace: create.namespace,
            name: create.name,
            columns: into_all(create.columns),
            if_not_exists: create.if_not_exists,
        }
    }
}

impl TryFrom<wire::CreateTable> for CreateTable {
    type Error = ConvertError;

    fn try_from(wire: wire::CreateTable) -> Result<Self, ConvertError> {
        Ok(Self {
            namespace: wire.namespace,
            name: wire.name,
            columns: convert_all(wire.columns)?,
            if_not_exists: wire.if_not_exists,
        })
    }
}

impl From<CreateHypertable> for wire::CreateHypertable {
    fn from(create: CreateHypertable) -> Self {
        Self {
            namespace: create.namespace,
            table: create.table,
            time_column: create.time_column,
            space: create.space.into_iter().map(|(column, cells)| wire::SpaceSpec { column, cells }).collect(),
            chunk_interval_us: create.chunk_interval_us,
            replication_factor: create.replication_factor.map(u32::from),
            data_nodes: create.data_nodes,
            if_not_exists: create.if_not_exists,
            sealed: create.sealed.into_iter().map(|(chunk, epoch)| sealed_chunk(chunk, epoch)).collect(),
        }
    }
}

fn sealed_chunk(chunk: ChunkId, epoch: Epoch) -> wire::SealedChunk {
    wire::SealedChunk { chunk: chunk.0, epoch: epoch.0 }
}

impl TryFrom<wire::CreateHypertable> for CreateHypertable {
    type Error = ConvertError;

    fn try_from(wire: wire::CreateHypertable) -> Result<Self, ConvertError> {
        Ok(Self {
            namespace: wire.namespace,
            table: wire.table,
            time_column: wire.time_column,
            space: wire.space.into_iter().map(|spec| (spec.column, spec.cells)).collect(),
            chunk_interval_us: wire.chunk_interval_us,
            replication_factor: wire.replication_factor.map(|n| narrow(n, "replication factor")).transpose()?,
            data_nodes: wire.data_nodes,
            if_not_exists: wire.if_not_exists,
            sealed: wire.sealed.into_iter().map(|sealed| (ChunkId(sealed.chunk), Epoch(sealed.epoch))).collect(),
        })
    }
}

impl From<SetCompression> for wire::SetCompression {
    fn from(set: SetCompression) -> Self {
        let enabled = set.change.is_some();
        let change = set.change.unwrap_or_default();
        let order_by = change.order_by.map(|columns| wire::OrderByNames { columns: into_all(columns) });
        Self {
            namespace: set.namespace,
            table: set.table,
            enabled,
            segment_by: change.segment_by.map(|names| wire::ColumnNames { names }),
            order_by,
        }
    }
}

impl TryFrom<wire::SetCompression> for SetCompression {
    type Error = ConvertError;

    fn try_from(wire: wire::SetCompression) -> Result<Self, ConvertError> {
        let change = CompressionChange {
            segment_by: wire.segment_by.map(|segment_by| segment_by.names),
            order_by: wire.order_by.map(|order_by| into_all(order_by.columns)),
        };
        Ok(Self { namespace: wire.namespace, table: wire.table, change: wire.enabled.then_some(change) })
    }
}

impl From<OrderByName> for wire::OrderByName {
    fn from(order: OrderByName) -> Self {
        Self { column: order.column, descending: order.descending, nulls_first: order.nulls_first }
    }
}

impl From<wire::OrderByName> for OrderByName {
    fn from(wire: wire::OrderByName) -> Self {
        Self { column: wire.column, descending: wire.descending, nulls_first: wire.nulls_first }
    }
}

impl From<JoinNode> for wire::JoinNode {
    fn from(join: JoinNode) -> Self {
        Self {
            role: wire::NodeRole::from(join.role).into(),
            name: join.name,
            address: join.address,
            sql_address: join.sql_address,
            shards: join.shards.into(),
        }
    }
}

impl TryFrom<wire::JoinNode> for JoinNode {
    type Error = ConvertError;

    fn try_from(wire: wire::JoinNode) -> Result<Self, ConvertError> {
        Ok(Self {
            role: node_role(wire.role)?,
            name: wire.name,
            address: wire.address,
            sql_address: wire.sql_address,
            shards: narrow(wire.shards, "shard count")?,
        })
    }
}

impl From<Command> for wire::Command {
    fn from(command: Command) -> Self {
        use wire::command::Command as Wire;
        let command = match command {
            Command::CreateTable(create) => Wire::CreateTable(create.into()),
            Command::DropTable { namespace, name, if_exists } => {
                Wire::DropTable(wire::DropTable { namespace, name, if_exists })
            }
            Command::CreateHypertable(create) => Wire::CreateHypertable(create.into()),
            Command::SetCompression(set) => Wire::SetCompression(set.into()),
            Command::AllocateChunks { cells, takes_turns } => {
                Wire::AllocateChunks(wire::AllocateChunks { cells: into_all(cells), takes_turns })
            }
            Command::JoinNode(join) => Wire::JoinNode(join.into()),
            Command::StartNode { start, address, sql_address, shards } => Wire::StartNode(wire::StartNode {
                node: start.node.0,
                incarnation: start.incarnation.0,
                address,
                sql_address,
                shards: shards.into(),
                mark: start.mark.0,
                before: into_all(start.before),
            }),
            Command::SetNodeState { node, state } => {
                Wire::SetNodeState(wire::SetNodeState { node: node.0, state: wire::NodeState::from(state).into() })
            }
            Command::RemoveNode { node } => Wire::RemoveNode(wire::RemoveNode { node: node.0 }),
            Command::SetSetting { name, value } => Wire::SetSetting(wire::SetSetting { name, value }),
            Command::ReopenChunk { chunk, epoch } => {
                Wire::ReopenChunk(wire::ReopenChunk { chunk: chunk.0, epoch: epoch.0 })
            }
            Command::AllocateProducer => Wire::AllocateProducer(wire::AllocateProducer {}),
            Command::ExtendOracle { upto } => Wire::ExtendOracle(wire::ExtendOracle { upto: upto.0 }),
            Command::Batch(commands) => Wire::Batch(wire::CommandBatch { commands: into_all(commands) }),
        };
        Self { command: Some(command) }
    }
}

impl TryFrom<wire::Command> for Command {
    type Error = ConvertError;

    /// Batches within batches recurse as deep as prost's own limit lets a message nest.
    fn try_from(wire: wire::Command) -> Result<Self, ConvertError> {
        use wire::command::Command as Wire;
        Ok(match required(wire.command, "command")? {
            Wire::CreateTable(create) => Self::CreateTable(create.try_into()?),
            Wire::DropTable(drop) => {
                Self::DropTable { namespace: drop.namespace, name: drop.name, if_exists: drop.if_exists }
            }
            Wire::CreateHypertable(create) => Self::CreateHypertable(create.try_into()?),
            Wire::SetCompression(set) => Self::SetCompression(set.try_into()?),
            Wire::AllocateChunks(allocate) => {
                Self::AllocateChunks { cells: convert_all(allocate.cells)?, takes_turns: allocate.takes_turns }
            }
            Wire::JoinNode(join) => Self::JoinNode(join.try_into()?),
            Wire::StartNode(start) => Self::StartNode {
                start: Start {
                    node: NodeId(start.node),
                    incarnation: Incarnation(start.incarnation),
                    mark: StartMark(start.mark),
                    before: start.before.into_iter().map(Into::into).collect(),
                },
                address: start.address,
                sql_address: start.sql_address,
                shards: narrow(start.shards, "shard count")?,
            },
            Wire::SetNodeState(set) => Self::SetNodeState { node: NodeId(set.node), state: node_state(set.state)? },
            Wire::RemoveNode(remove) => Self::RemoveNode { node: NodeId(remove.node) },
            Wire::SetSetting(set) => Self::SetSetting { name: set.name, value: set.value },
            Wire::ReopenChunk(reopen) => Self::ReopenChunk { chunk: ChunkId(reopen.chunk), epoch: Epoch(reopen.epoch) },
            Wire::AllocateProducer(_) => Self::AllocateProducer,
            Wire::ExtendOracle(extend) => Self::ExtendOracle { upto: Ts(extend.upto) },
            Wire::Batch(batch) => Self::Batch(convert_all(batch.commands)?),
        })
    }
}

impl From<Reply> for wire::Reply {
    fn from(reply: Reply) -> Self {
        use wire::reply::Reply as Wire;
        let reply = match reply {
            Reply::Done => Wire::Done(wire::Done {}),
            Reply::Skipped(notice) => Wire::Skipped(notice),
            Reply::Table { id, group } => Wire::Table(wire::TableReply { id: id.0, group: group.0 }),
            Reply::Hypertable { id, table, created } => {
                Wire::Hypertable(wire::HypertableReply { id, table: table.0, created })
            }
            Reply::Chunks(chunks) => {
                Wire::Chunks(wire::ChunksReply { chunks: chunks.into_iter().map(u64::from).collect() })
            }
            Reply::Node(node) => Wire::Node(node.0),
            Reply::Producer(producer) => Wire::Producer(producer.0),
            Reply::Batch(replies) => Wire::Batch(wire::ReplyBatch { replies: into_all(replies) }),
        };
        Self { reply: Some(reply) }
    }
}

impl TryFrom<wire::Reply> for Reply {
    type Error = ConvertError;

    fn try_from(wire: wire::Reply) -> Result<Self, ConvertError> {
        use wire::reply::Reply as Wire;
        Ok(match required(wire.reply, "reply")? {
            Wire::Done(_) => Self::Done,
            Wire::Skipped(notice) => Self::Skipped(notice),
            Wire::Table(table) => Self::Table { id: TableId(table.id), group: GroupId(table.group) },
            Wire::Hypertable(hypertable) => {
                Self::Hypertable { id: hypertable.id, table: TableId(hypertable.table), created: hypertable.created }
            }
            Wire::Chunks(chunks) => Self::Chunks(chunks.chunks.into_iter().map(ChunkId).collect()),
            Wire::Node(node) => Self::Node(NodeId(node)),
            Wire::Producer(producer) => Self::Producer(ProducerId(producer)),
            Wire::Batch(batch) => Self::Batch(convert_all(batch.replies)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::catalog::{Cell, NodeRole, NodeState};
    use crate::ids::{ColumnId, Slot};
    use crate::schema::Column;
    use crate::time::TimeUs;
    use crate::types::SqlType;

    fn commands() -> Vec<Command> {
        let column = Column {
            id: ColumnId(0),
            name: "time".into(),
            sql_type: SqlType::Date,
            not_null: true,
            default: None,
            modifier: None,
        };
        let hypertable = CreateHypertable {
            namespace: "public".into(),
            table: "weather".into(),
            time_column: "time".into(),
            space: vec![("origin".into(), Some(4)), ("b".into(), None)],
            chunk_interval_us: Some(7),
            replication_factor: Some(2),
            data_nodes: vec!["dn1".into()],
            if_not_exists: true,
            sealed: vec![(ChunkId(5), Epoch(6))],
        };
        let compression = |change| {
            Command::SetCompression(SetCompression { namespace: "public".into(), table: "weather".into(), change })
        };
        let order = OrderByName { column: "time".into(), descending: true, nulls_first: false };
        let join = JoinNode {
            role: NodeRole::Data,
            name: String::new(),
            address: "a:1".into(),
            sql_address: Some("a:2".into()),
            shards: 8,
        };
        vec![
            Command::CreateTable(CreateTable {
                namespace: "public".into(),
                name: "weather".into(),
                columns: vec![column],
                if_not_exists: true,
            }),
            Command::DropTable { namespace: "public".into(), name: "weather".into(), if_exists: true },
            Command::CreateHypertable(CreateHypertable {
                chunk_interval_us: None,
                replication_factor: None,
                ..hypertable.clone()
            }),
            Command::CreateHypertable(hypertable),
            compression(None),
            compression(Some(CompressionChange::default())),
            compression(Some(CompressionChange { segment_by: Some(vec![]), order_by: Some(vec![order]) })),
            Command::AllocateChunks {
                cells: vec![Cell { table: TableId(1), slot: Slot(2), start: TimeUs(-3) }],
                takes_turns: true,
            },
            Command::JoinNode(join),
            Command::StartNode {
                start: Start {
                    node: NodeId(1),
                    incarnation: Incarnation(2),
                    mark: StartMark(u64::MAX),
                    before: vec![PastStart { incarnation: Incarnation(1), mark: StartMark(7) }],
                },
                address: "a:1".into(),
                sql_address: None,
                shards: 3,
            },
            Command::SetNodeState { node: NodeId(1), state: NodeState::Dead },
            Command::RemoveNode { node: NodeId(1) },
            Command::SetSetting { name: "a".into(), value: None },
            Command::SetSetting { name: "a".into(), value: Some(String::new()) },
            Command::ReopenChunk { chunk: ChunkId(1), epoch: Epoch(2) },
            Command::AllocateProducer,
            Command::ExtendOracle { upto: Ts(u64::MAX) },
            Command::Batch(vec![]),
        ]
    }

    #[test]
    fn every_command_survives_the_round_trip_as_bytes() {
        let mut all = commands();
        all.push(Command::Batch(commands()));
        for command in all {
            let bytes = wire::Command::from(command.clone()).encode_to_vec();
            let decoded = wire::Command::decode(bytes.as_slice()).unwrap();
            assert_eq!(Command::try_from(decoded), Ok(command));
        }
    }

    #[test]
    fn every_reply_survives_the_round_trip() {
        let replies = vec![
            Reply::Done,
            Reply::Skipped("relation \"a\" already exists, skipping".into()),
            Reply::Table { id: TableId(16_384), group: GroupId(1) },
            Reply::Hypertable { id: 1, table: TableId(16_384), created: true },
            Reply::Chunks(vec![ChunkId(1), ChunkId(2)]),
            Reply::Node(NodeId(1)),
            Reply::Producer(ProducerId(1)),
        ];
        let batch = Reply::Batch(replies.clone());
        for reply in replies.into_iter().chain([batch]) {
            assert_eq!(Reply::try_from(wire::Reply::from(reply.clone())), Ok(reply));
        }
    }

    #[test]
    fn an_empty_command_is_an_error_and_no_panic() {
        assert!(Command::try_from(wire::Command::default()).is_err());
        assert!(Reply::try_from(wire::Reply::default()).is_err());
    }

    #[test]
    fn a_message_that_nests_without_end_is_refused_before_it_is_converted() {
        let mut command = wire::Command::from(Command::AllocateProducer);
        for _ in 0..200 {
            let batch = wire::CommandBatch { commands: vec![command] };
            command = wire::Command { command: Some(wire::command::Command::Batch(batch)) };
        }
        assert!(wire::Command::decode(command.encode_to_vec().as_slice()).is_err());
    }
}
