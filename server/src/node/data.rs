//! The data role: joins the cluster, then opens its shards.

use std::sync::Arc;
use std::time::Duration;

use meridian_client::cluster::Cluster;
use meridian_datanode::identity::Folder;
use meridian_datanode::{DataNode, DataNodeOptions};
use meridian_proto::catalog::NodeRole;
use meridian_proto::command::JoinNode;
use meridian_proto::{ClusterId, NodeId, Refusal, WIRE_VERSION, wire};
use tokio::sync::RwLock;
use tokio::time::Instant;

use super::Node;
use crate::admin::{Figures, ShardFigures, Sources};
use crate::failure::Failure;

/// One try to join; tries follow one another until the cluster is there.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Joins and starts.
pub async fn start(node: &Node, cluster: Cluster) -> Result<DataNode, Failure> {
    let (cluster_id, id) = join(node, &cluster).await?;
    let options = DataNodeOptions {
        directory: node.folder.data(),
        address: node.addresses.cluster_advertised.clone(),
        name: node.config.name.clone(),
        shards: node.config.shards,
        cluster,
        cluster_id,
        node: id,
        memtable_bytes_max: Some(node.config.memtable_bytes_max),
        wal_file_bytes: Some(node.config.wal_file_bytes),
        scan_bytes_max: node.config.scan_bytes_max,
        rewrite_bytes_max: Some(node.config.rewrite_bytes_max),
        page_cache_bytes_max: Some(node.config.page_cache_bytes_max),
        memory_wait: Some(node.config.memory_wait),
        heartbeat: node.config.heartbeat,
    };
    DataNode::start(options).await.map_err(Failure::failed)
}

/// Asks until the cluster answers. The id is the one that the folder holds, or a new one.
async fn join(node: &Node, cluster: &Cluster) -> Result<(ClusterId, NodeId), Failure> {
    let identity = Folder::lock(&node.folder.data()).and_then(|folder| folder.read()).map_err(Failure::failed)?;
    let shards = match node.config.shards {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        shards => usize::from(shards),
    };
    let joining = JoinNode {
        role: NodeRole::Data,
        name: node.config.name.clone(),
        address: node.addresses.cluster_advertised.clone(),
        sql_address: None,
        shards: identity.as_ref().map_or_else(|| u16::try_from(shards).unwrap_or(u16::MAX), |known| known.shards),
    };
    let request = wire::JoinRequest {
        node: Some(joining.into()),
        wire_version: WIRE_VERSION,
        cluster_id: identity.as_ref().map(|known| known.cluster.to_string()).unwrap_or_default(),
        node_id: identity.as_ref().map_or(0, |known| known.node.0),
        incarnation: identity.as_ref().map_or(0, |known| known.incarnation.0),
    };
    loop {
        match cluster.meta.join(request.clone(), Instant::now() + JOIN_TIMEOUT).await {
            Ok(response) => {
                let cluster_id = parse_cluster_id(&response.cluster_id)?;
                tracing::info!(cluster = %cluster_id, node = response.node, "joined");
                return Ok((cluster_id, NodeId(response.node)));
            }
            Err(Refusal::Unavailable(reason)) => {
                node.waits_for(&format!("the cluster at {}: {reason}", cluster.meta.addresses().join(", ")));
            }
            Err(refusal) => {
                return Err(Failure::failed(format!("the cluster does not take this data node: {refusal}")));
            }
        }
    }
}

fn parse_cluster_id(text: &str) -> Result<ClusterId, Failure> {
    let unreadable = |_| Failure::failed(format!("the cluster calls itself \"{text}\", which is no cluster id"));
    text.parse().map_err(unreadable)
}

pub fn set_figures(sources: &Sources, data: &Arc<RwLock<Option<DataNode>>>, cluster: &Cluster) {
    let (data, catalog) = (Arc::clone(data), cluster.catalog.clone());
    sources.set_data(move |mut figures: Figures| {
        let (data, version) = (Arc::clone(&data), catalog.current().version());
        async move {
            figures.catalog_version = figures.catalog_version.max(version.0);
            if let Some(data) = data.read().await.as_ref() {
                figures.shards = data.status().await.shards.iter().map(shard_figures).collect();
            }
            figures
        }
    });
}

fn shard_figures(status: &wire::ShardStatus) -> ShardFigures {
    ShardFigures {
        shard: status.shard,
        chunks: status.chunks,
        segments: status.segments,
        rows: status.rows,
        memtable_bytes: status.memtable_bytes,
        segment_bytes: status.segment_bytes,
        wal_bytes: status.wal_bytes,
        footer_bytes: status.footer_bytes,
        page_cache_bytes: status.page_cache_bytes,
        page_cache_hits: status.page_cache_hits,
        page_cache_misses: status.page_cache_misses,
        leaf_cache_bytes: status.leaf_cache_bytes,
        scan_bytes: status.scan_bytes,
        page_read_ahead: status.page_read_ahead,
    }
}
