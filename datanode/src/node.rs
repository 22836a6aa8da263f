//! A data node's life: its folder, its shards, a new incarnation in meta, then service until it is shut down.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{join_all, try_join_all};
use meridian_client::cluster::channel::MESSAGE_BYTES_MAX;
use meridian_client::cluster::local::WeakDataNode;
use meridian_client::cluster::{Cluster, LocalDataNode};
use meridian_engine::{Shard, ShardOptions};
use meridian_proto::command::Command;
use meridian_proto::start::Start;
use meridian_proto::wire::data_node_server::DataNodeServer;
use meridian_proto::{CatalogVersion, ClusterId, Incarnation, NodeId, Refusal, ShardId, wire};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::bridge::{Lane, ShardHandle, core_count, end_process, start_shard};
use crate::identity::{Folder, Identity, IdentityError};
use crate::office::Office;
use crate::orders::{Reporter, Sweeper, copies_on};
use crate::probe::{probe_io_uring, raise_open_files};
use crate::scan::shard_runtime;
use crate::service::Service;

/// One try to tell meta of the new incarnation; tries follow one another until one succeeds.
const START_WAIT: Duration = Duration::from_secs(5);
/// Longest wait for requests to end at shutdown.
const DRAIN_WAIT: Duration = Duration::from_secs(10);
/// Memory of a shard's scans together, unless said.
pub const SCAN_BYTES_MAX_DEFAULT: usize = 256 << 20;

/// So many open segments of a shard are worth trying even where the process may have hardly any files.
const SEGMENTS_OPEN_MIN: usize = 64;
/// More are bounded by the memory of their footers.
const SEGMENTS_OPEN_MAX: usize = 1 << 20;

/// What a data node is started with.
pub struct DataNodeOptions {
    pub directory: PathBuf,
    /// `host:port` under which other nodes reach this one's service.
    pub address: String,
    /// The user's name for it, for logs.
    pub name: String,
    /// 0: one per core. A folder that was used before keeps the number it was made with.
    pub shards: u16,
    pub cluster: Cluster,
    pub cluster_id: ClusterId,
    /// Given by the catalog when it joined.
    pub node: NodeId,
    /// Rows in memory per shard before they are flushed; `None`: the engine's default.
    pub memtable_bytes_max: Option<usize>,
    /// Size of a log file; `None`: the engine's default.
    pub wal_file_bytes: Option<usize>,
    /// Memory for rows that a shard's scans have decoded, and as much again for what they compute.
    pub scan_bytes_max: usize,
    /// Memory of a shard's compaction and compression; `None`: the engine's default.
    pub rewrite_bytes_max: Option<usize>,
    /// Memory for pages of a shard's segments; `None`: the engine's default.
    pub page_cache_bytes_max: Option<usize>,
    /// How long a write or a scan waits for memory before it is refused; `None`: the engine's default.
    pub memory_wait: Option<Duration>,
    /// Pause between heartbeats.
    pub heartbeat: Duration,
}

/// Why a data node did not start.
#[derive(Debug, thiserror::Error)]
pub enum DataNodeError {
    #[error("{0}")]
    IoUring(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{0}")]
    Shard(String),
    /// The catalog does not take this node's start.
    #[error("the catalog refused the start of node {node}: {refusal}")]
    Refused { node: NodeId, refusal: Refusal },
}

/// A data node that serves.
pub struct DataNode {
    identity: Identity,
    service: Service,
    /// For callers in this process, who hold it weakly.
    local: Arc<dyn LocalDataNode>,
    shards: Vec<ShardHandle<Shard>>,
    tasks: Vec<JoinHandle<()>>,
    /// Why the node cannot go on.
    failed: watch::Receiver<Option<String>>,
    // Held as long as the node lives.
    folder: Folder,
}

impl DataNode {
    /// Starts the node; returns when it may serve: its logs are applied and its incarnation is in the catalog.
    pub async fn start(options: DataNodeOptions) -> Result<Self, DataNodeError> {
        probe_io_uring().map_err(DataNodeError::IoUring)?;
        let folder = Folder::lock(&options.directory)?;
        let (identity, shards) = begin(&folder, &options).await?;
        if options.shards != 0 && options.shards != identity.shards {
            warn!(wanted = options.shards, kept = identity.shards, "the folder keeps its number of shards");
        }
        let version = announce(&options, &identity).await;
        let version = match version {
            Ok(version) => version,
            Err(error) => {
                stop_shards(&shards).await;
                return Err(error);
            }
        };
        let node = Self::assemble(options, identity, shards, folder)?;
        info!(node = %identity.node, incarnation = %identity.incarnation, shards = identity.shards, %version, "serving");
        Ok(node)
    }

    fn assemble(
        options: DataNodeOptions,
        identity: Identity,
        shards: Vec<ShardHandle<Shard>>,
        folder: Folder,
    ) -> Result<Self, DataNodeError> {
        let DataNodeOptions { cluster, cluster_id, scan_bytes_max, directory, heartbeat, .. } = options;
        let Identity { node, incarnation, .. } = identity;
        let office = Arc::new(Office::new(node, cluster.clone(), shards.clone()));
        let runtimes = shards.iter().map(|_| shard_runtime(scan_bytes_max)).collect::<Result<_, _>>();
        let runtimes = runtimes.map_err(|error| DataNodeError::Shard(error.to_string()))?;
        let service = Service::new(node, incarnation, cluster.clone(), Arc::clone(&office), runtimes);
        let sweep = Arc::new(Notify::new());
        let report_sweep = Arc::clone(&sweep);
        let reporter = Reporter {
            node,
            incarnation,
            cluster_id,
            cluster: cluster.clone(),
            heartbeat,
            directory,
            sweep: report_sweep,
        };
        let (failures, failed) = watch::channel(None);
        let failures = Arc::new(failures);
        let mut tasks = vec![
            keep(&failures, "heartbeats", reporter.run()),
            keep(&failures, "removal of chunks", Sweeper { node, cluster: cluster.clone(), office, sweep }.run()),
            tokio::spawn(watch_catalog(cluster, node, incarnation, Arc::clone(&failures))),
        ];
        tasks.extend(shards.iter().map(|shard| keep(&failures, "watch over a shard", shard.clone().watch())));
        let local = Arc::new(service.clone());
        Ok(Self { identity, service, local, shards, tasks, failed, folder })
    }

    /// Waits until the node cannot go on, and says why: it was removed, or started elsewhere, or a part of it ended.
    pub fn failed(&self) -> impl Future<Output = String> + use<> {
        let mut failed = self.failed.clone();
        async move {
            match failed.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(reason)) => reason.clone(),
                // It was shut down, which is no failure.
                _ => std::future::pending().await,
            }
        }
    }

    /// The tonic service, for the server of this process.
    #[must_use]
    pub fn service(&self) -> DataNodeServer<Service> {
        DataNodeServer::new(self.service.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The same for callers in this process.
    #[must_use]
    pub fn local(&self) -> WeakDataNode {
        Arc::downgrade(&self.local)
    }

    #[must_use]
    pub fn node(&self) -> NodeId {
        self.identity.node
    }

    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.identity.incarnation
    }

    /// Shards of the folder, which may be another number than was asked for.
    #[must_use]
    pub fn shard_count(&self) -> u16 {
        self.identity.shards
    }

    pub async fn status(&self) -> wire::DataNodeStatusResponse {
        self.service.status().await
    }

    /// Takes nothing new, lets what runs end, closes the shards. What was acknowledged is on disk already.
    pub async fn shutdown(self) {
        self.service.drain();
        for task in &self.tasks {
            task.abort();
        }
        stop_shards(&self.shards).await;
        info!(node = %self.identity.node, folder = %self.folder.path().display(), "stopped");
    }
}

/// Runs a part of the node that ends only with it.
fn keep(
    failures: &Arc<watch::Sender<Option<String>>>,
    name: &'static str,
    part: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let failures = Arc::clone(failures);
    tokio::spawn(async move {
        let ended = AssertUnwindSafe(part).catch_unwind().await;
        let how = if ended.is_ok() { "ended" } else { "panicked" };
        failures.send_replace(Some(format!("its {name} {how}")));
    })
}

/// Notices that the cluster knows this process no more: it would answer nothing and only keep its folder.
async fn watch_catalog(
    cluster: Cluster,
    node: NodeId,
    incarnation: Incarnation,
    failures: Arc<watch::Sender<Option<String>>>,
) {
    let mut views = cluster.catalog.subscribe();
    loop {
        let known = views.borrow_and_update().node(node).map(|known| known.incarnation);
        let reason = match known {
            None => format!("node {node} was removed from the cluster"),
            Some(newer) if newer > incarnation => {
                format!("node {node} was started elsewhere, for start {newer}; this is start {incarnation}")
            }
            Some(_) => match views.changed().await {
                Ok(()) => continue,
                Err(_) => "the catalog is no longer followed".to_owned(),
            },
        };
        failures.send_replace(Some(reason));
        return;
    }
}

fn wanted_shards(shards: u16) -> u16 {
    match shards {
        0 => u16::try_from(core_count()).unwrap_or(u16::MAX),
        shards => shards,
    }
}

/// Opens the shards and counts the start. A new folder is named first, since files without a name would be nobody's; one
/// that is in use is counted last, so that a start that its files refuse has not touched it.
async fn begin(
    folder: &Folder,
    options: &DataNodeOptions,
) -> Result<(Identity, Vec<ShardHandle<Shard>>), DataNodeError> {
    let wanted = wanted_shards(options.shards);
    let Some(known) = folder.check(options.cluster_id, options.node)? else {
        let identity = folder.begin(options.cluster_id, options.node, wanted)?;
        return Ok((identity, start_shards(options, identity.shards).await?));
    };
    let shards = start_shards(options, known.shards).await?;
    match folder.begin(options.cluster_id, options.node, wanted) {
        Ok(identity) => Ok((identity, shards)),
        Err(error) => {
            stop_shards(&shards).await;
            Err(error.into())
        }
    }
}

async fn start_shards(options: &DataNodeOptions, count: u16) -> Result<Vec<ShardHandle<Shard>>, DataNodeError> {
    let open_files_max = segments_open_max(raise_open_files(), count);
    let started = (0..count).map(|shard| {
        let shard_options = ShardOptions { open_files_max, ..shard_options(options, ShardId(shard)) };
        async move {
            let open = move || async move { Shard::open(shard_options).await.map_err(|error| error.to_string()) };
            let (handle, report) = start_shard(ShardId(shard), open).await.map_err(DataNodeError::Shard)?;
            info!(shard, ?report, "shard opened");
            end_with(&handle).await?;
            Ok::<_, DataNodeError>(handle)
        }
    });
    try_join_all(started).await
}

/// A shard whose log can no longer be trusted, as after a failed sync, takes the process with it: never a retry.
async fn end_with(handle: &ShardHandle<Shard>) -> Result<(), DataNodeError> {
    let shard = handle.shard();
    let watched = handle.submit(Lane::Control, move |owned: Shard| async move {
        let error = owned.failed().await;
        end_process(&format!("shard {shard} failed: {error}"));
        #[expect(unreachable_code, reason = "gives the request its type")]
        Ok(())
    });
    watched.await.map(drop).map_err(|refusal| DataNodeError::Shard(refusal.to_string()))
}

fn shard_options(options: &DataNodeOptions, shard: ShardId) -> ShardOptions {
    let directory = options.directory.join(format!("shard-{shard}"));
    let mut shard_options = ShardOptions::new(shard, directory, options.cluster_id, options.node);
    if let Some(bytes) = options.memtable_bytes_max {
        shard_options.memtable_bytes_max = bytes;
    }
    if let Some(bytes) = options.wal_file_bytes {
        shard_options.wal_file_bytes = bytes;
    }
    if let Some(bytes) = options.rewrite_bytes_max {
        shard_options.rewrite_bytes_max = bytes;
    }
    if let Some(bytes) = options.page_cache_bytes_max {
        shard_options.page_cache_bytes_max = bytes;
    }
    if let Some(wait) = options.memory_wait {
        shard_options.memory_wait = wait;
    }
    shard_options.scan_bytes_max = options.scan_bytes_max;
    shard_options
}

/// Segments that a shard may keep open: half of the files that the process may have are left for logs and sockets.
fn segments_open_max(files: u64, shards: u16) -> usize {
    let each = files / 2 / u64::from(shards.max(1));
    usize::try_from(each).unwrap_or(usize::MAX).clamp(SEGMENTS_OPEN_MIN, SEGMENTS_OPEN_MAX)
}

/// Tells the catalog of the new incarnation, which raises the epoch of every chunk that this node leads (R3). Waits as
/// long as it takes: without meta nothing could be served anyway.
async fn announce(options: &DataNodeOptions, identity: &Identity) -> Result<CatalogVersion, DataNodeError> {
    let command = Command::StartNode {
        start: Start::unmarked(identity.node, identity.incarnation),
        address: options.address.clone(),
        sql_address: None,
        shards: identity.shards,
    };
    loop {
        let proposed = options.cluster.meta.propose(command.clone(), Instant::now() + START_WAIT).await;
        match proposed {
            Ok((_, version)) => {
                // Nobody acts in an epoch given to an earlier incarnation: views from here on name newer ones.
                let view = options.cluster.catalog.wait_for(version, Instant::now() + START_WAIT).await;
                match view {
                    Ok(view) => {
                        info!(name = options.name, chunks = copies_on(&view, identity.node), "known to the catalog");
                        return Ok(version);
                    }
                    Err(error) => warn!(%error, "the catalog has not arrived yet"),
                }
            }
            // A start may be told twice.
            Err(Refusal::Unavailable(reason) | Refusal::OutcomeUnknown(reason)) => {
                warn!(reason, "the meta group does not answer yet");
            }
            Err(refusal) => return Err(DataNodeError::Refused { node: identity.node, refusal }),
        }
    }
}

async fn stop_shards(shards: &[ShardHandle<Shard>]) {
    join_all(shards.iter().map(|shard| shard.stop(DRAIN_WAIT, |shard: Shard| shard.close()))).await;
}
