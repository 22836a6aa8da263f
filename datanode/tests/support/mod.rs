//! A cluster of one process: a meta member and a data node, which reach one another through memory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::physical_plan::ExecutionPlan;
use meridian_client::cluster::{CatalogView, Channels, Cluster, Fragment, PlanObject, ScanPart, ScanStream};
use meridian_datanode::{DataNode, DataNodeOptions, HEARTBEAT, SCAN_BYTES_MAX_DEFAULT};
use meridian_fragment::{ChunkScanExec, FRAGMENT_VERSION, encode};
use meridian_meta::{Bootstrap, Member, MemberOptions};
use meridian_proto::catalog::{Cell, Chunk, NodeRole, Table};
use meridian_proto::command::{Command, CreateHypertable, CreateTable, JoinNode, Reply};
use meridian_proto::rows::encode_rows;
use meridian_proto::schema::Column;
use meridian_proto::{
    ChunkId, ClusterId, ColumnId, NodeId, ProducerId, Refusal, Sequence, Slot, SqlType, TransactionId, Ts,
    WIRE_VERSION, wire,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::transport::Server;

const META_ADDRESS: &str = "meta.test:1";
const DATA_ADDRESS: &str = "data.test:1";

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Meta, which outlives the data node's restarts.
/// A fragment that always travels as bytes.
struct OnlyBytes(Bytes);

impl Fragment for OnlyBytes {
    fn object(&self) -> Option<PlanObject> {
        None
    }

    fn encoded(&self) -> Result<Bytes, Refusal> {
        Ok(self.0.clone())
    }
}

pub struct Lab {
    pub cluster: Cluster,
    pub cluster_id: ClusterId,
    pub node: NodeId,
    member: Member,
    servers: Vec<JoinHandle<()>>,
    data_node: Option<DataNode>,
    folder: tempfile::TempDir,
    shards: u16,
}

impl Lab {
    pub async fn start(shards: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let channels = Channels::new();
        let listener = channels.listen_local(META_ADDRESS);
        let member = Member::start(member_options(folder.path(), channels.clone())).await.unwrap();
        let server = Server::builder().add_service(member.service()).serve_with_incoming(listener);
        let servers = vec![tokio::spawn(async move { server.await.unwrap() })];
        let (cluster_id, _) = member.ready().await.unwrap();
        let cluster = Cluster::start(channels, vec![META_ADDRESS.to_owned()]);
        let join = JoinNode {
            role: NodeRole::Data,
            name: "dn1".to_owned(),
            address: DATA_ADDRESS.to_owned(),
            sql_address: None,
            shards,
        };
        let (reply, _) = cluster.meta.propose(Command::JoinNode(join), soon()).await.unwrap();
        let Reply::Node(node) = reply else { panic!("{reply:?}") };
        let mut lab = Self { cluster, cluster_id, node, member, servers, data_node: None, folder, shards };
        lab.start_data_node().await;
        lab
    }

    pub fn data_folder(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    pub fn options(&self) -> DataNodeOptions {
        DataNodeOptions {
            directory: self.data_folder(),
            address: DATA_ADDRESS.to_owned(),
            name: "dn1".to_owned(),
            shards: self.shards,
            cluster: self.cluster.clone(),
            cluster_id: self.cluster_id,
            node: self.node,
            memtable_bytes_max: None,
            wal_file_bytes: None,
            scan_bytes_max: SCAN_BYTES_MAX_DEFAULT,
            rewrite_bytes_max: None,
            page_cache_bytes_max: None,
            memory_wait: None,
            heartbeat: HEARTBEAT,
        }
    }

    pub async fn start_data_node(&mut self) {
        let data_node = DataNode::start(self.options()).await.unwrap();
        let listener = self.cluster.channels.listen_local(DATA_ADDRESS);
        let server = Server::builder().add_service(data_node.service()).serve_with_incoming(listener);
        self.servers.push(tokio::spawn(async move { server.await.unwrap() }));
        self.data_node = Some(data_node);
    }

    pub fn address(&self) -> String {
        DATA_ADDRESS.to_owned()
    }

    pub fn data_node(&self) -> &DataNode {
        self.data_node.as_ref().unwrap()
    }

    pub async fn stop_data_node(&mut self) {
        if let Some(data_node) = self.data_node.take() {
            data_node.shutdown().await;
            self.servers.pop().unwrap().abort();
        }
    }

    pub async fn stop(mut self) {
        self.stop_data_node().await;
        for server in &self.servers {
            server.abort();
        }
        self.member.shutdown().await;
    }

    pub async fn propose(&self, command: Command) -> Reply {
        let (reply, version) = self.cluster.meta.propose(command, soon()).await.unwrap();
        self.cluster.catalog.wait_for(version, soon()).await.unwrap();
        reply
    }

    /// A hypertable of (time, host, v), by host, of four slots.
    pub async fn create_table(&self, name: &str) -> Arc<Table> {
        let column = |name: &str, sql_type, not_null| Column {
            id: ColumnId(0),
            name: name.to_owned(),
            sql_type,
            not_null,
            default: None,
            modifier: None,
        };
        let columns = vec![
            column("time", SqlType::Timestamptz, true),
            column("host", SqlType::Text, false),
            column("v", SqlType::Float8, false),
        ];
        let namespace = || "public".to_owned();
        let create = CreateTable { namespace: namespace(), name: name.to_owned(), columns, if_not_exists: false };
        self.propose(Command::CreateTable(create)).await;
        let hypertable = CreateHypertable {
            namespace: namespace(),
            table: name.to_owned(),
            time_column: "time".to_owned(),
            space: vec![("host".to_owned(), Some(4))],
            chunk_interval_us: None,
            replication_factor: None,
            data_nodes: Vec::new(),
            if_not_exists: false,
            sealed: Vec::new(),
        };
        self.propose(Command::CreateHypertable(hypertable)).await;
        let view = self.cluster.catalog.current();
        Arc::clone(view.table_by_name("public", name).unwrap())
    }

    pub async fn allocate(&self, table: &Table, slot: u32) -> Arc<Chunk> {
        let start = table.chunk_range(meridian_proto::TimeUs(0)).start;
        let cells = vec![Cell { table: table.id, slot: Slot(slot), start }];
        let reply = self.propose(Command::AllocateChunks { cells, takes_turns: true }).await;
        let Reply::Chunks(chunks) = reply else { panic!("{reply:?}") };
        self.chunk(chunks[0])
    }

    pub fn view(&self) -> Arc<CatalogView> {
        self.cluster.catalog.current()
    }

    pub fn chunk(&self, chunk: ChunkId) -> Arc<Chunk> {
        Arc::clone(self.view().chunk(chunk).unwrap())
    }

    pub fn reference(&self, chunk: ChunkId) -> wire::ChunkRef {
        wire::ChunkRef { chunk: chunk.0, epoch: self.chunk(chunk).epoch.0 }
    }

    pub async fn snapshot(&self) -> Ts {
        self.cluster.meta.timestamp(soon()).await.unwrap().0
    }

    pub async fn write_request(&self, chunk: ChunkId, sequence: u64, rows: &RecordBatch) -> wire::WriteRequest {
        wire::WriteRequest {
            wire_version: WIRE_VERSION,
            catalog_version: self.view().version().0,
            chunk: Some(self.reference(chunk)),
            transaction: Some(transaction(sequence).into()),
            low_water: 1,
            piece: 0,
            command: 0,
            snapshot: self.snapshot().await.0,
            schema_version: self.view().table(self.chunk(chunk).table).unwrap().schema.version.0,
            mode: Some(wire::write_request::Mode::OnePhase(wire::OnePhase {})),
            rows: encode_rows(rows).unwrap(),
        }
    }

    pub async fn write(&self, request: wire::WriteRequest) -> Result<wire::WriteResponse, Refusal> {
        self.cluster.write(self.node, request, soon()).await.map_err(|error| error.refusal)
    }

    pub fn leaf(&self, table: &Table) -> Arc<dyn ExecutionPlan> {
        let schema = table.schema.arrow();
        let projection = (0..schema.fields().len()).collect();
        let version = table.schema.version;
        Arc::new(ChunkScanExec::try_new(table.id, version, schema, projection, Vec::new()).unwrap())
    }

    /// A scan of chunks of one shard.
    pub fn scan_request(&self, chunks: &[ChunkId], snapshot: Ts, plan: &Arc<dyn ExecutionPlan>) -> wire::ScanRequest {
        let view = self.view();
        let (_, shard) = view.shard_of(view.chunk(chunks[0]).unwrap()).unwrap();
        wire::ScanRequest {
            wire_version: WIRE_VERSION,
            fragment_version: FRAGMENT_VERSION,
            catalog_version: view.version().0,
            snapshot: snapshot.0,
            transaction: None,
            command: 0,
            shard: u32::from(shard.0),
            chunks: chunks.iter().map(|chunk| self.reference(*chunk)).collect(),
            plan: encode(plan).unwrap(),
            query: 1,
        }
    }

    pub async fn open_scan(&self, request: wire::ScanRequest, schema: &SchemaRef) -> Result<ScanStream, Refusal> {
        let plan = OnlyBytes(request.plan.clone().into());
        self.cluster.scan(self.node, request, &plan, schema).await
    }

    pub async fn scan(
        &self,
        request: wire::ScanRequest,
        schema: &SchemaRef,
    ) -> Result<(Vec<RecordBatch>, wire::ScanStatistics), Refusal> {
        let mut stream = self.open_scan(request, schema).await?;
        let mut batches = Vec::new();
        while let Some(part) = stream.next().await? {
            match part {
                ScanPart::Rows(batch) => batches.push(batch),
                ScanPart::Done(statistics) => return Ok((batches, statistics)),
            }
        }
        panic!("a scan without last message");
    }

    /// Rows that a new statement sees, as (minute, host, v), in order.
    pub async fn rows(&self, table: &Table, chunks: &[ChunkId]) -> Vec<(i64, String, Option<i64>)> {
        let snapshot = self.snapshot().await;
        self.rows_at(table, chunks, snapshot).await
    }

    pub async fn rows_at(&self, table: &Table, chunks: &[ChunkId], snapshot: Ts) -> Vec<(i64, String, Option<i64>)> {
        let request = self.scan_request(chunks, snapshot, &self.leaf(table));
        let (batches, _) = self.scan(request, &table.schema.arrow()).await.unwrap();
        let mut rows: Vec<_> = batches.iter().flat_map(rows_of).collect();
        rows.sort();
        rows
    }
}

fn member_options(folder: &Path, channels: Channels) -> MemberOptions {
    MemberOptions {
        name: "an1".to_owned(),
        bootstrap: Bootstrap::Init { replication_factor: 1 },
        ..MemberOptions::new(folder.join("access"), META_ADDRESS, channels)
    }
}

pub fn transaction(sequence: u64) -> TransactionId {
    TransactionId { producer: ProducerId(9), sequence: Sequence(sequence) }
}

/// Rows at minutes `range`, of one host.
pub fn batch(table: &Table, range: std::ops::Range<i64>, host: &str) -> RecordBatch {
    let times = TimestampMicrosecondArray::from_iter_values(range.clone().map(|minute| minute * 60_000_000));
    let hosts: StringArray = range.clone().map(|_| Some(host)).collect();
    let values: Float64Array = range.map(|minute| (minute % 5 != 0).then_some(minute as f64)).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(times.with_timezone("UTC")), Arc::new(hosts), Arc::new(values)];
    RecordBatch::try_new(table.schema.arrow(), columns).unwrap()
}

pub fn rows_of(batch: &RecordBatch) -> Vec<(i64, String, Option<i64>)> {
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
    let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
    let hosts = batch.column(1).as_string::<i32>();
    let values = batch.column(2).as_primitive::<Float64Type>();
    let row = |at: usize| {
        let value = arrow::array::Array::is_valid(values, at).then(|| values.value(at) as i64);
        (times.value(at) / 60_000_000, hosts.value(at).to_owned(), value)
    };
    (0..batch.num_rows()).map(row).collect()
}
