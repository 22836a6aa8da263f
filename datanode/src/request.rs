//! Requests as they are inside: parsed from the wire once, at the edge.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use meridian_client::cluster::{Maintenance, PlanObject};
use meridian_engine::WriteMode;
use meridian_fragment::{FRAGMENT_VERSION, SharedFragment, leaf_of};
use meridian_proto::convert::ConvertError;
use meridian_proto::{
    CatalogVersion, ChunkId, CommandId, Epoch, Refusal, SchemaVersion, Sequence, ShardId, TransactionId, Ts,
    WIRE_VERSION, wire,
};

/// A chunk by its configuration, as the sender knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    pub chunk: ChunkId,
    pub epoch: Epoch,
}

pub struct WriteCall {
    pub version: CatalogVersion,
    pub chunk: ChunkRef,
    pub transaction: TransactionId,
    pub low_water: Sequence,
    pub piece: u32,
    pub command: CommandId,
    pub snapshot: Ts,
    pub schema_version: SchemaVersion,
    pub mode: WriteMode,
    pub rows: bytes::Bytes,
}

pub struct DecideCall {
    pub version: CatalogVersion,
    pub holder: ChunkRef,
    pub transaction: TransactionId,
    pub commit: bool,
    pub max_read: Ts,
    pub participants: Vec<ChunkId>,
    pub pieces: u32,
}

pub struct ResolveCall {
    pub version: CatalogVersion,
    pub chunk: ChunkRef,
    pub transaction: TransactionId,
    pub commit: Option<Ts>,
}

pub struct OutcomeCall {
    pub version: CatalogVersion,
    pub holder: ChunkRef,
    pub transaction: TransactionId,
    pub snapshot: Ts,
}

pub struct SealCall {
    pub version: CatalogVersion,
    pub chunk: ChunkRef,
}

pub struct MaintainCall {
    pub version: CatalogVersion,
    pub chunk: ChunkRef,
    pub maintenance: Maintenance,
}

pub struct ChunkSizesCall {
    pub version: CatalogVersion,
    pub chunks: Vec<ChunkRef>,
}

pub struct ScanCall {
    pub version: CatalogVersion,
    pub snapshot: Ts,
    /// Stages of this transaction's commands below this one are shown.
    pub own: Option<(TransactionId, CommandId)>,
    pub shard: ShardId,
    /// At least one.
    pub chunks: Vec<ChunkRef>,
    /// Allowed, and over a chunk scan.
    pub plan: Arc<dyn ExecutionPlan>,
    pub query: u64,
}

impl TryFrom<wire::WriteRequest> for WriteCall {
    type Error = Refusal;

    fn try_from(wire: wire::WriteRequest) -> Result<Self, Refusal> {
        check_wire_version(wire.wire_version)?;
        let mode = match required(wire.mode, "a write without mode")? {
            wire::write_request::Mode::OnePhase(_) => WriteMode::OnePhase,
            wire::write_request::Mode::Stage(stage) => WriteMode::Stage { holder: ChunkId(stage.holder) },
        };
        Ok(Self {
            version: CatalogVersion(wire.catalog_version),
            chunk: chunk_ref(wire.chunk)?,
            transaction: transaction(wire.transaction)?,
            low_water: Sequence(wire.low_water),
            piece: wire.piece,
            command: CommandId(wire.command),
            snapshot: Ts(wire.snapshot),
            schema_version: SchemaVersion(wire.schema_version),
            mode,
            rows: wire.rows,
        })
    }
}

impl TryFrom<wire::DecideRequest> for DecideCall {
    type Error = Refusal;

    fn try_from(wire: wire::DecideRequest) -> Result<Self, Refusal> {
        check_wire_version(wire.wire_version)?;
        Ok(Self {
            version: CatalogVersion(wire.catalog_version),
            holder: chunk_ref(wire.holder)?,
            transaction: transaction(wire.transaction)?,
            commit: wire.commit,
            max_read: Ts(wire.max_read),
            participants: wire.participants.into_iter().map(ChunkId).collect(),
            pieces: wire.pieces,
        })
    }
}

impl TryFrom<wire::ResolveRequest> for ResolveCall {
    type Error = Refusal;

    fn try_from(wire: wire::ResolveRequest) -> Result<Self, Refusal> {
        check_wire_version(wire.wire_version)?;
        Ok(Self {
            version: CatalogVersion(wire.catalog_version),
            chunk: chunk_ref(wire.chunk)?,
            transaction: transaction(wire.transaction)?,
            commit: (wire.commit != 0).then_some(Ts(wire.commit)),
        })
    }
}

impl TryFrom<wire::OutcomeRequest> for OutcomeCall {
    type Error = Refusal;

    fn try_from(wire: wire::OutcomeRequest) -> Result<Self, Refusal> {
        check_wire_version(wire.wire_version)?;
        Ok(Self {
            version: CatalogVersion(wire.catalog_version),
            holder: chunk_ref(wire.holder)?,
            transaction: transaction(wire.transaction)?,
            snapshot: Ts(wire.snapshot),
        })
    }
}

impl TryFrom<wire::SealRequest> for SealCall {
    type Error = Refusal;

    fn try_from(wire: wire::SealRequest) -> Result<Self, Refusal> {
        check_wire_version(wire.wire_version)?;
        Ok(Self { version: CatalogVersion(wire.catalog_version), chunk: chunk_ref(wire.chunk)? })
    }
}

impl TryFrom<wire::MaintainRequest> for MaintainCall {
    type Error = Refusal;

    fn try_from(wire: wire::MaintainRequest) -> Result<Self, Refusal> {
        check_wire_version(wire.wire_version)?;
        let maintenance = match wire.action() {
            wire::MaintainAction::Compress => Maintenance::Compress,
            wire::MaintainAction::Recompress => Maintenance::Recompress,
            wire::MaintainAction::Decompress => Maintenance::Decompress,
            wire::MaintainAction::Unspecified => return protocol(format!("maintenance {}", wire.action)),
        };
        Ok(Self { version: CatalogVersion(wire.catalog_version), chunk: chunk_ref(wire.chunk)?, maintenance })
    }
}

impl TryFrom<wire::ChunkSizesRequest> for ChunkSizesCall {
    type Error = Refusal;

    fn try_from(wire: wire::ChunkSizesRequest) -> Result<Self, Refusal> {
        check_wire_version(wire.wire_version)?;
        let chunks = wire.chunks.into_iter().map(|chunk| chunk_ref(Some(chunk))).collect::<Result<_, _>>()?;
        Ok(Self { version: CatalogVersion(wire.catalog_version), chunks })
    }
}

impl TryFrom<wire::ScanRequest> for ScanCall {
    type Error = Refusal;

    fn try_from(wire: wire::ScanRequest) -> Result<Self, Refusal> {
        let plan = meridian_fragment::decode(&wire.plan).map_err(|error| Refusal::Protocol(error.strip_backtrace()));
        Self::new(wire, plan)
    }
}

impl ScanCall {
    /// A request, and its plan as an object.
    pub fn of_object(wire: wire::ScanRequest, plan: &PlanObject) -> Result<Self, Refusal> {
        let plan = plan.downcast_ref::<SharedFragment>().map(|shared| Arc::clone(shared.plan()));
        Self::new(wire, plan.ok_or_else(|| Refusal::Protocol("a plan of another kind".to_owned())))
    }

    fn new(wire: wire::ScanRequest, plan: Result<Arc<dyn ExecutionPlan>, Refusal>) -> Result<Self, Refusal> {
        check_wire_version(wire.wire_version)?;
        if wire.fragment_version != FRAGMENT_VERSION {
            return protocol(format!(
                "the plan has fragment version {}, this node reads {FRAGMENT_VERSION}",
                wire.fragment_version
            ));
        }
        let own = wire.transaction.map(TransactionId::try_from).transpose();
        let shard = u16::try_from(wire.shard).map_err(|_| Refusal::Protocol(format!("shard {}", wire.shard)))?;
        let chunks: Vec<_> = wire.chunks.into_iter().map(|chunk| chunk_ref(Some(chunk))).collect::<Result<_, _>>()?;
        if chunks.is_empty() {
            return protocol("a scan of no chunks");
        }
        let plan = plan?;
        if leaf_of(&plan).is_none() {
            return protocol("a fragment without a chunk scan");
        }
        Ok(Self {
            version: CatalogVersion(wire.catalog_version),
            snapshot: Ts(wire.snapshot),
            own: own?.map(|transaction| (transaction, CommandId(wire.command))),
            shard: ShardId(shard),
            chunks,
            plan,
            query: wire.query,
        })
    }
}

fn check_wire_version(version: u32) -> Result<(), Refusal> {
    if version == WIRE_VERSION {
        return Ok(());
    }
    protocol(format!("the message has wire version {version}, this node speaks {WIRE_VERSION}"))
}

fn chunk_ref(wire: Option<wire::ChunkRef>) -> Result<ChunkRef, Refusal> {
    let wire = required(wire, "a message without chunk")?;
    Ok(ChunkRef { chunk: ChunkId(wire.chunk), epoch: Epoch(wire.epoch) })
}

fn transaction(wire: Option<wire::Transaction>) -> Result<TransactionId, Refusal> {
    let wire = required(wire, "a message without transaction")?;
    TransactionId::try_from(wire).map_err(|error: ConvertError| error.into())
}

fn required<T>(value: Option<T>, otherwise: &str) -> Result<T, Refusal> {
    value.ok_or_else(|| Refusal::Protocol(otherwise.to_owned()))
}

fn protocol<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Protocol(reason.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan() -> wire::ScanRequest {
        wire::ScanRequest {
            wire_version: WIRE_VERSION,
            fragment_version: FRAGMENT_VERSION,
            chunks: vec![wire::ChunkRef { chunk: 1, epoch: 1 }],
            ..Default::default()
        }
    }

    fn check(request: wire::ScanRequest, expected: &str) {
        let Err(refusal) = ScanCall::try_from(request) else { panic!("accepted") };
        assert!(refusal.to_string().contains(expected), "{refusal}");
        assert_eq!(refusal.sqlstate(), "08P01");
    }

    #[test]
    fn other_versions_are_refused_by_name() {
        check(wire::ScanRequest { wire_version: 9, ..scan() }, "wire version 9");
        check(wire::ScanRequest { fragment_version: 9, ..scan() }, "fragment version 9");
    }

    #[test]
    fn incomplete_requests_are_refused() {
        check(wire::ScanRequest { chunks: Vec::new(), ..scan() }, "no chunks");
        check(wire::ScanRequest { shard: 70_000, ..scan() }, "shard 70000");
        check(wire::ScanRequest { plan: vec![1, 2, 3], ..scan() }, "bad request");
        check(scan(), "bad request");
        let write = wire::WriteRequest { wire_version: WIRE_VERSION, ..Default::default() };
        assert!(WriteCall::try_from(write).is_err());
        let chunk = Some(wire::ChunkRef { chunk: 1, epoch: 1 });
        let maintain = wire::MaintainRequest { wire_version: WIRE_VERSION, chunk, action: 9, ..Default::default() };
        assert!(MaintainCall::try_from(maintain).is_err());
    }
}
