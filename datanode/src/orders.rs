//! Meta's leader and this node: heartbeats up, orders down, and the removal of chunks that are no more.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use meridian_client::cluster::{CatalogView, Cluster};
use meridian_engine::Shard;
use meridian_proto::catalog::{Chunk, NodeRole};
use meridian_proto::{ChunkId, ClusterId, Incarnation, NodeId, Refusal, StartMark, wire};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{debug, info, warn};

use crate::bridge::{Lane, ShardHandle};
use crate::office::Office;

/// Pause between heartbeats, unless said. Meta holds a node for dead after 2 s without one.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// A leader that notes nothing for so long is no leader any more, or cannot be reached.
const SILENCE_MIN: Duration = Duration::from_secs(2);
/// Heartbeats that a leader leaves without an answer before another one is looked for, when they are rare.
const SILENCE_HEARTBEATS: u32 = 4;
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Catalog changes come in bursts; copies that are no more can wait.
const SWEEP_PAUSE: Duration = Duration::from_secs(5);
const CONFIRM_WAIT: Duration = Duration::from_secs(10);
/// Reports waiting to be sent. A newer one is worth more than a queue of old ones.
const REPORTS_MAX: usize = 2;

/// Sends heartbeats to whoever leads the meta group, for ever.
pub struct Reporter {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub cluster_id: ClusterId,
    pub cluster: Cluster,
    pub heartbeat: Duration,
    /// The data folder, for the figures of its disk.
    pub directory: PathBuf,
    /// Told when meta orders something to be removed.
    pub sweep: Arc<Notify>,
}

impl Reporter {
    pub async fn run(self) {
        loop {
            if let Some(address) = self.cluster.meta.pick_member() {
                if let Err(status) = self.report_to(&address).await {
                    debug!(address, error = %status.message(), "heartbeats not taken here");
                }
                self.cluster.meta.forget_leader(&address);
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    /// Reports to one member until it no longer answers.
    async fn report_to(&self, address: &str) -> Result<(), Status> {
        let (sender, receiver) = mpsc::channel(REPORTS_MAX);
        // The first one goes out with the call: a server may wait for it before it answers at all.
        let _ = sender.try_send(self.report());
        let mut client = self.cluster.meta.client(address);
        let call = client.report(ReceiverStream::new(receiver));
        let silence_max = SILENCE_MIN.max(self.heartbeat * SILENCE_HEARTBEATS);
        let answer = tokio::time::timeout(SILENCE_MIN, call).await;
        let mut orders = answer.map_err(|_| Status::deadline_exceeded("no answer"))??.into_inner();
        let mut heartbeat = tokio::time::interval(self.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                order = orders.message() => match order? {
                    Some(order) => {
                        heard = Instant::now();
                        self.obey(&order);
                    }
                    None => return Ok(()),
                },
                _ = heartbeat.tick() => {
                    if heard.elapsed() > silence_max {
                        return Err(Status::deadline_exceeded("no sign of life"));
                    }
                    // A full queue holds one that is as good.
                    let _ = sender.try_send(self.report());
                }
            }
        }
    }

    fn obey(&self, order: &wire::NodeOrder) {
        match order.order {
            // R15: an order only makes us look; what is removed, a confirmed read decides.
            Some(wire::node_order::Order::RemoveChunk(chunk)) => {
                debug!(chunk, version = order.catalog_version, "asked to remove a chunk");
                self.sweep.notify_one();
            }
            Some(wire::node_order::Order::Noted(_)) | None => {}
        }
    }

    fn report(&self) -> wire::NodeReport {
        let disk = disk_figures(&self.directory).unwrap_or_else(|error| {
            warn!(%error, "disk figures not known");
            DiskFigures::default()
        });
        let view = self.cluster.catalog.current();
        let access_nodes = view.nodes().filter(|node| node.role == NodeRole::Access);
        let access_nodes =
            access_nodes.map(|node| wire::AccessStart { node: node.id.0, incarnation: node.incarnation.0 }).collect();
        wire::NodeReport {
            node: self.node.0,
            incarnation: self.incarnation.0,
            catalog_version: view.version().0,
            disk_free_bytes: disk.free_bytes,
            disk_used_bytes: disk.used_bytes,
            cluster_id: self.cluster_id.to_string(),
            mark: StartMark::NONE.0,
            access_nodes,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct DiskFigures {
    free_bytes: u64,
    used_bytes: u64,
}

fn disk_figures(directory: &Path) -> io::Result<DiskFigures> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut figures: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a NUL, and the kernel writes one statvfs, which we own.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut figures) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let block = figures.f_frsize;
    Ok(DiskFigures {
        // What an ordinary user may still use.
        free_bytes: figures.f_bavail.saturating_mul(block),
        used_bytes: figures.f_blocks.saturating_sub(figures.f_bfree).saturating_mul(block),
    })
}

/// Removes copies that the catalog lists no more.
pub struct Sweeper {
    pub node: NodeId,
    pub cluster: Cluster,
    pub office: Arc<Office>,
    pub sweep: Arc<Notify>,
}

impl Sweeper {
    /// Sweeps at the start, and after each change of the catalog, for ever.
    pub async fn run(self) {
        let mut views = self.cluster.catalog.subscribe();
        loop {
            if let Err(error) = self.sweep_once().await {
                warn!(%error, "chunks that are no more were not removed; trying again later");
            }
            tokio::time::sleep(SWEEP_PAUSE).await;
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                () = self.sweep.notified() => {}
            }
        }
    }

    async fn sweep_once(&self) -> Result<(), Refusal> {
        let view = self.cluster.catalog.current();
        let mut gone = Vec::new();
        for shard in self.office.shards() {
            let chunks = shard.call(Lane::Control, |shard: Shard| async move { Ok(shard.chunks()) }).await?;
            gone.extend(chunks.into_iter().filter(|chunk| !self.is_listed(&view, *chunk)).map(|chunk| (shard, chunk)));
        }
        if gone.is_empty() {
            return Ok(());
        }
        // R15: our view may be behind that under which a chunk came to be here. The chunks were listed before this
        // version was confirmed, so that it knows them if anybody does.
        let deadline = Instant::now() + CONFIRM_WAIT;
        let (_, version) = self.cluster.meta.timestamp(deadline).await?;
        let view = self.cluster.catalog.wait_for(version, deadline).await?;
        for (shard, chunk) in gone {
            if !self.is_listed(&view, chunk) {
                self.remove(shard, chunk).await?;
            }
        }
        Ok(())
    }

    fn is_listed(&self, view: &CatalogView, chunk: ChunkId) -> bool {
        view.chunk(chunk).is_some_and(|chunk| has_copy(chunk, self.node))
    }

    async fn remove(&self, shard: &ShardHandle<Shard>, chunk: ChunkId) -> Result<(), Refusal> {
        shard.call(Lane::Write, move |shard: Shard| async move { shard.remove_chunk(chunk).await }).await?;
        self.office.forget(chunk);
        info!(%chunk, "removed a chunk that the catalog lists no more");
        Ok(())
    }
}

fn has_copy(chunk: &Chunk, node: NodeId) -> bool {
    chunk.in_sync.contains(&node) || chunk.followers.contains(&node)
}

/// Shards and chunks of a view that lie on `node`, for the log at start.
#[must_use]
pub fn copies_on(view: &CatalogView, node: NodeId) -> usize {
    view.chunks().filter(|chunk| has_copy(chunk, node)).map(|chunk| chunk.id).collect::<HashSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_figures_are_read() {
        let figures = disk_figures(Path::new("/")).unwrap();
        assert!(figures.used_bytes > 0);
        assert!(disk_figures(Path::new("/no/such/folder")).is_err());
    }
}
