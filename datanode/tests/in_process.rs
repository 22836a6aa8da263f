//! A data node with a real meta member: what was acknowledged is read back, by any statement that begins later, also
//! after a restart.

mod support;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;
use meridian_client::cluster::{PlanObject, ScanPart};
use meridian_datanode::{DataNode, DataNodeError};
use meridian_fragment::{SharedFragment, check_allowed};
use meridian_proto::command::Command;
use meridian_proto::start::Start;
use meridian_proto::wire::SealState;
use meridian_proto::{Incarnation, NodeId, Refusal, Ts, WIRE_VERSION, wire};
use support::{Lab, batch, rows_of, soon, transaction};

type Row = (i64, String, Option<i64>);

fn expected(range: std::ops::Range<i64>, host: &str) -> Vec<Row> {
    range.map(|minute| (minute, host.to_owned(), (minute % 5 != 0).then_some(minute))).collect()
}

fn stage(request: wire::WriteRequest, holder: u64) -> wire::WriteRequest {
    wire::WriteRequest { mode: Some(wire::write_request::Mode::Stage(wire::Stage { holder })), ..request }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_read_back_also_after_a_restart() {
    let mut lab = Lab::start(2).await;
    let table = lab.create_table("t").await;
    let chunk = lab.allocate(&table, 0).await;
    let request = lab.write_request(chunk.id, 1, &batch(&table, 0..1000, "a")).await;
    let written = lab.write(request.clone()).await.unwrap();
    assert_eq!(written.row_count, 1000);
    assert!(written.commit > request.snapshot);
    // R10: sent again, it is applied once.
    assert_eq!(lab.write(request.clone()).await.unwrap().commit, written.commit);
    assert_eq!(lab.rows(&table, &[chunk.id]).await, expected(0..1000, "a"));

    lab.stop_data_node().await;
    lab.start_data_node().await;
    assert_eq!(lab.data_node().incarnation().0, 2);
    let raised = lab.chunk(chunk.id);
    assert!(raised.epoch > chunk.epoch, "a new incarnation has a new epoch (R3)");
    assert_eq!(lab.rows(&table, &[chunk.id]).await, expected(0..1000, "a"));
    // R15: the epoch of the former life is refused, with the one that holds now.
    let refusal = lab.write(request).await.unwrap_err();
    assert_eq!(refusal, Refusal::StaleEpoch { chunk: chunk.id, asked: chunk.epoch, current: raised.epoch });
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_chunks_are_one_leaf_and_fragments_run_on_the_shard() {
    let lab = Lab::start(1).await;
    let table = lab.create_table("t").await;
    let first = lab.allocate(&table, 0).await;
    let second = lab.allocate(&table, 1).await;
    for (chunk, host, sequence) in [(first.id, "a", 1), (second.id, "b", 2)] {
        let request = lab.write_request(chunk, sequence, &batch(&table, 0..20_000, host)).await;
        lab.write(request).await.unwrap();
    }
    let chunks = [first.id, second.id];
    let rows = lab.rows(&table, &chunks).await;
    assert_eq!(rows.len(), 40_000);

    let plan = plan("select count(*), sum(v) from t where time < '1970-01-02' and host = 'b'", &lab, &table).await;
    check_allowed(&plan).unwrap();
    let request = lab.scan_request(&chunks, lab.snapshot().await, &plan);
    let (batches, statistics) = lab.scan(request, &plan.schema()).await.unwrap();
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 1440);
    let sum: i64 = (0..1440).filter(|minute| minute % 5 != 0).sum();
    assert_eq!(batches[0].column(1).as_primitive::<Float64Type>().value(0), sum as f64);
    assert_eq!((statistics.rows_returned, statistics.rows_scanned), (1, 40_000));
    lab.stop().await;
}

/// What DataFusion plans over a leaf of the table.
async fn plan(sql: &str, lab: &Lab, table: &meridian_proto::catalog::Table) -> Arc<dyn ExecutionPlan> {
    use datafusion::prelude::{SessionConfig, SessionContext};
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    // As a gateway's session does: some take the place of DataFusion's.
    for function in meridian_hyperfunctions::aggregate_functions() {
        context.register_udaf(function.as_ref().clone());
    }
    context.register_table("t", Arc::new(LeafTable(lab.leaf(table)))).unwrap();
    context.sql(sql).await.unwrap().create_physical_plan().await.unwrap()
}

#[derive(Debug)]
struct LeafTable(Arc<dyn ExecutionPlan>);

#[tonic::async_trait]
impl datafusion::catalog::TableProvider for LeafTable {
    fn schema(&self) -> arrow::datatypes::SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> datafusion::logical_expr::TableType {
        datafusion::logical_expr::TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn datafusion::catalog::Session,
        projection: Option<&Vec<usize>>,
        _filters: &[datafusion::logical_expr::Expr],
        _limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let leaf = meridian_fragment::leaf_of(&self.0).unwrap();
        let all = || (0..leaf.table_schema().fields().len()).collect();
        let projection = projection.cloned().unwrap_or_else(all);
        let schema = Arc::clone(leaf.table_schema());
        let version = leaf.schema_version();
        Ok(Arc::new(meridian_fragment::ChunkScanExec::try_new(leaf.table(), version, schema, projection, vec![])?))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_staged_transaction_is_seen_when_its_holder_has_decided() {
    let lab = Lab::start(2).await;
    let table = lab.create_table("t").await;
    // Two slots lie on two shards.
    let holder = lab.allocate(&table, 0).await.id;
    let other = lab.allocate(&table, 1).await.id;
    let mut max_read = 0;
    for chunk in [holder, other] {
        let request = lab.write_request(chunk, 1, &batch(&table, 0..10, "a")).await;
        let written = lab.write(stage(request, holder.0)).await.unwrap();
        assert_eq!(written.commit, 0);
        max_read = max_read.max(written.max_read);
    }
    assert_eq!(lab.rows(&table, &[holder]).await, []);
    assert_eq!(lab.rows(&table, &[other]).await, []);
    let before = lab.snapshot().await;
    // R12: this read asks the holder, whose max_read it raises.
    assert_eq!(lab.rows_at(&table, &[other], before).await, []);

    let decide = wire::DecideRequest {
        wire_version: WIRE_VERSION,
        catalog_version: lab.view().version().0,
        holder: Some(lab.reference(holder)),
        transaction: Some(transaction(1).into()),
        commit: true,
        max_read,
        participants: vec![holder.0, other.0],
        pieces: 1,
    };
    let decided = lab.cluster.decide(lab.node, decide, soon()).await.unwrap();
    assert!(decided.commit > before.0, "{decided:?} is above {before}");
    // The participant was not told: its readers ask the holder.
    assert_eq!(lab.rows(&table, &[other]).await, expected(0..10, "a"));
    assert_eq!(lab.rows(&table, &[holder]).await, expected(0..10, "a"));
    assert_eq!(lab.rows_at(&table, &[other], before).await, [], "an older snapshot still sees nothing");
    assert_eq!(lab.rows_at(&table, &[other], Ts(decided.commit)).await.len(), 10);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_stages_are_seen_by_later_commands() {
    let lab = Lab::start(1).await;
    let table = lab.create_table("t").await;
    let chunk = lab.allocate(&table, 0).await.id;
    let request = lab.write_request(chunk, 1, &batch(&table, 0..10, "a")).await;
    lab.write(stage(request, chunk.0)).await.unwrap();
    let snapshot = lab.snapshot().await;
    for (command, count) in [(0, 0), (1, 10)] {
        let request = wire::ScanRequest {
            transaction: Some(transaction(1).into()),
            command,
            ..lab.scan_request(&[chunk], snapshot, &lab.leaf(&table))
        };
        let (batches, _) = lab.scan(request, &table.schema.arrow()).await.unwrap();
        assert_eq!(batches.iter().flat_map(rows_of).count(), count);
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_by_name() {
    let lab = Lab::start(2).await;
    let table = lab.create_table("t").await;
    let chunk = lab.allocate(&table, 0).await.id;
    let good = lab.write_request(chunk, 1, &batch(&table, 0..10, "a")).await;
    let reference = lab.reference(chunk);
    let refused = async |request: wire::WriteRequest| lab.write(request).await.unwrap_err();

    let unknown = Some(wire::ChunkRef { chunk: 4711, epoch: 1 });
    let refusal = refused(wire::WriteRequest { chunk: unknown, ..good.clone() }).await;
    assert!(matches!(refusal, Refusal::NotPrimary { .. }), "{refusal}");
    let future = Some(wire::ChunkRef { epoch: reference.epoch + 7, ..reference });
    let refusal = refused(wire::WriteRequest { chunk: future, ..good.clone() }).await;
    assert!(matches!(refusal, Refusal::StaleEpoch { .. }), "{refusal}");
    let refusal = refused(wire::WriteRequest { schema_version: 9, ..good.clone() }).await;
    assert!(matches!(refusal, Refusal::SchemaVersion { .. }), "{refusal}");
    let refusal = refused(wire::WriteRequest { wire_version: 9, ..good.clone() }).await;
    assert!(matches!(refusal, Refusal::Protocol(_)), "{refusal}");
    let refusal = refused(wire::WriteRequest { snapshot: u64::MAX / 2, ..good.clone() }).await;
    assert!(matches!(refusal, Refusal::Snapshot { .. }), "{refusal}");
    let refusal = refused(wire::WriteRequest { rows: vec![7; 100].into(), ..good.clone() }).await;
    assert!(matches!(refusal, Refusal::Protocol(_)), "{refusal}");

    let scan = lab.scan_request(&[chunk], lab.snapshot().await, &lab.leaf(&table));
    let schema = table.schema.arrow();
    let other_shard = wire::ScanRequest { shard: 1 - scan.shard, ..scan.clone() };
    let refusal = lab.scan(other_shard, &schema).await.unwrap_err();
    assert!(refusal.to_string().contains("lies on shard"), "{refusal}");
    let refusal = lab.scan(wire::ScanRequest { plan: vec![1; 40], ..scan.clone() }, &schema).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Protocol(_)), "{refusal}");
    assert_eq!(lab.scan(scan, &schema).await.unwrap().0.len(), 0);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_a_row_is_the_statements_error() {
    let lab = Lab::start(1).await;
    let table = lab.create_table("t").await;
    let chunk = lab.allocate(&table, 0).await.id;
    lab.write(lab.write_request(chunk, 1, &batch(&table, 0..10, "a")).await).await.unwrap();
    let check = async |sql: &str, sqlstate: &str| {
        let plan = plan(sql, &lab, &table).await;
        let request = lab.scan_request(&[chunk], lab.snapshot().await, &plan);
        let refusal = lab.scan(request, &plan.schema()).await.unwrap_err();
        assert_eq!(refusal.sqlstate(), sqlstate, "{refusal}");
    };
    check("select 1 / (cast(v as int) - 1) from t", "22012").await;
    check("select cast(host as int) from t", "22P02").await;
    check("select cast(v as bigint) * 9223372036854775807 from t", "22003").await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_in_the_same_process_is_called_without_messages_while_it_lives() {
    let mut lab = Lab::start(1).await;
    let table = lab.create_table("t").await;
    let chunk = lab.allocate(&table, 0).await.id;
    let (channels, address) = (lab.cluster.channels.clone(), lab.address());
    assert!(channels.data_node(&address).is_none());
    channels.set_data_node(&address, lab.data_node().local());
    lab.write(lab.write_request(chunk, 1, &batch(&table, 0..10_000, "a")).await).await.unwrap();

    let request = lab.scan_request(&[chunk], lab.snapshot().await, &lab.leaf(&table));
    let mut stream = lab.open_scan(request, &table.schema.arrow()).await.unwrap();
    let mut rows = 0;
    let statistics = loop {
        match stream.next().await.unwrap().unwrap() {
            ScanPart::Rows(batch) => {
                assert_eq!(batch.schema(), table.schema.arrow());
                rows += batch.num_rows();
            }
            ScanPart::Done(statistics) => break statistics,
        }
    };
    assert_eq!((rows, statistics.rows_returned, stream.bytes()), (10_000, 10_000, 0));
    assert!(stream.next().await.unwrap().is_none());
    let refusal = lab
        .write(wire::WriteRequest { wire_version: 9, ..lab.write_request(chunk, 2, &batch(&table, 0..1, "a")).await });
    assert!(refusal.await.unwrap_err().to_string().contains("wire version 9"));

    // A plan that comes as an object runs as it is.
    let snapshot = lab.snapshot().await;
    let local = channels.data_node(&address).unwrap();
    let request = wire::ScanRequest { plan: Vec::new(), ..lab.scan_request(&[chunk], snapshot, &lab.leaf(&table)) };
    let shared: PlanObject = Arc::new(SharedFragment::of(&lab.leaf(&table)).unwrap());
    let parts: Vec<_> = local.scan(request.clone(), Some(shared)).await.unwrap().try_collect().await.unwrap();
    assert!(matches!(parts.last(), Some(ScanPart::Done(statistics)) if statistics.rows_returned == 10_000));
    let refusal = local.scan(request, Some(Arc::new("a plan"))).await.err().unwrap();
    assert!(refusal.to_string().contains("another kind"), "{refusal}");
    drop(local);

    lab.stop_data_node().await;
    assert!(channels.data_node(&address).is_none(), "it ended, and nobody holds it");
    lab.start_data_node().await;
    assert_eq!(lab.rows(&table, &[chunk]).await.len(), 10_000, "over the wire");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_scan_ends_on_the_shard() {
    let lab = Lab::start(1).await;
    let table = lab.create_table("t").await;
    let chunk = lab.allocate(&table, 0).await.id;
    for sequence in 1..=4 {
        let rows = batch(&table, 0..100_000, "a");
        lab.write(lab.write_request(chunk, sequence, &rows).await).await.unwrap();
    }
    // More of them than a shard runs at a time: each must have made room.
    for _ in 0..80 {
        let request = lab.scan_request(&[chunk], lab.snapshot().await, &lab.leaf(&table));
        let mut stream = lab.open_scan(request, &table.schema.arrow()).await.unwrap();
        assert!(stream.next().await.unwrap().is_some());
        drop(stream);
    }
    let rows = tokio::time::timeout(Duration::from_secs(20), lab.rows(&table, &[chunk])).await.unwrap();
    assert_eq!(rows.len(), 400_000);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_of_a_dropped_table_are_removed() {
    let lab = Lab::start(1).await;
    let table = lab.create_table("t").await;
    let chunk = lab.allocate(&table, 0).await.id;
    lab.write(lab.write_request(chunk, 1, &batch(&table, 0..10, "a")).await).await.unwrap();
    assert_eq!(lab.data_node().status().await.shards[0].chunks, 1);
    let drop = Command::DropTable { namespace: "public".to_owned(), name: "t".to_owned(), if_exists: false };
    lab.propose(drop).await;
    let removed = async {
        while lab.data_node().status().await.shards[0].chunks > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), removed).await.unwrap();
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_chunk_takes_no_row_in_its_epoch_and_one_with_rows_is_not_sealed() {
    let lab = Lab::start(1).await;
    let table = lab.create_table("t").await;
    let id = lab.allocate(&table, 0).await.id;
    let seal = || async {
        let chunk = lab.chunk(id);
        lab.cluster.seal(&lab.cluster.catalog.current(), &chunk, soon()).await.unwrap()
    };
    // The row of an undecided transaction, then of an aborted one.
    let staged = stage(lab.write_request(id, 1, &batch(&table, 0..1, "a")).await, id.0);
    lab.write(staged.clone()).await.unwrap();
    assert_eq!(seal().await, SealState::Undecided);
    let decide = wire::DecideRequest {
        wire_version: WIRE_VERSION,
        catalog_version: staged.catalog_version,
        holder: staged.chunk,
        transaction: staged.transaction,
        commit: false,
        max_read: staged.snapshot,
        participants: vec![id.0],
        pieces: 1,
    };
    assert_eq!(lab.cluster.decide(lab.node, decide, soon()).await.unwrap().commit, 0);
    assert_eq!(seal().await, SealState::Sealed);

    let before = lab.chunk(id).epoch;
    let request = lab.write_request(id, 2, &batch(&table, 0..1, "a")).await;
    assert!(matches!(lab.write(request).await.unwrap_err(), Refusal::Unavailable(_)));
    assert_eq!(seal().await, SealState::Sealed, "twice is as good as once");
    lab.propose(Command::ReopenChunk { chunk: id, epoch: before }).await;
    let request = lab.write_request(id, 2, &batch(&table, 0..1, "a")).await;
    lab.write(request).await.unwrap();
    assert_eq!(seal().await, SealState::Rows);
    let request = lab.write_request(id, 3, &batch(&table, 1..2, "a")).await;
    lab.write(request).await.unwrap();
    assert_eq!(lab.rows(&table, &[id]).await.len(), 2);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_started_elsewhere_or_removed_cannot_go_on() {
    let mut lab = Lab::start(1).await;
    let failed = lab.data_node().failed();
    let start = Command::StartNode {
        start: Start::unmarked(lab.node, Incarnation(9)),
        address: "127.0.0.1:9".to_owned(),
        sql_address: None,
        shards: 1,
    };
    lab.propose(start).await;
    let reason = tokio::time::timeout(Duration::from_secs(20), failed).await.unwrap();
    assert!(reason.contains("start 9") && reason.contains("this is start 1"), "{reason}");
    lab.stop_data_node().await;

    let lab = Lab::start(1).await;
    let failed = lab.data_node().failed();
    lab.propose(Command::RemoveNode { node: lab.node }).await;
    let reason = tokio::time::timeout(Duration::from_secs(20), failed).await.unwrap();
    assert!(reason.contains("was removed from the cluster"), "{reason}");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_refused_while_in_use_and_to_another_node() {
    let mut lab = Lab::start(1).await;
    let refused = DataNode::start(lab.options()).await.err().unwrap();
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    lab.stop_data_node().await;
    let mut options = lab.options();
    options.node = NodeId(77);
    let refused = DataNode::start(options).await.err().unwrap();
    assert!(matches!(refused, DataNodeError::Identity(_)), "{refused}");
    lab.start_data_node().await;
    lab.stop().await;
}
