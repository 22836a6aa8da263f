//! A member: one access node's part in the meta group, over one folder.

mod found;
mod returning;
mod tasks;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meridian_client::cluster::channel::MESSAGE_BYTES_MAX;
use meridian_client::cluster::{Channels, LocalMember};
use meridian_proto::wire::meta_server::MetaServer;
use meridian_proto::{ClusterId, NodeId, wire};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::Request;

use crate::error::MetaError;
use crate::identity::{Identity, IdentityFile, Stage, random_mark};
use crate::leader::{DEAD_AFTER, HEARTBEAT};
use crate::log::{LogStore, Opened};
use crate::oracle::Timestamps;
use crate::raft::{Group, GroupOptions, Intervals};
use crate::service::{InitRequest, MetaService, Phase, Running};

/// Voters of the group, unless said; further access nodes are learners.
pub const VOTERS_MAX: usize = 3;
/// Entries after which a new image is made.
pub const IMAGE_EVERY_ENTRIES: u64 = 10_000;
/// Longest wait for a process that holds the folder and is about to end.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// How an empty folder becomes a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// By `cluster init`, or by a cluster that one of the peers is in.
    Wait,
    /// It begins a cluster of its own at once.
    Init { replication_factor: u16 },
}

#[derive(Clone)]
pub struct MemberOptions {
    /// The node's data folder; this member's files are in `meta/` below it.
    pub directory: PathBuf,
    /// Where other nodes reach this one, `host:port`.
    pub address: String,
    /// Where its gateway takes SQL.
    pub sql_address: Option<String>,
    /// Empty: the cluster gives one.
    pub name: String,
    /// Addresses of access nodes; its own may be among them.
    pub peers: Vec<String>,
    pub bootstrap: Bootstrap,
    pub channels: Channels,
    pub intervals: Intervals,
    pub voters_max: usize,
    /// Pause between this node's heartbeats.
    pub heartbeat: Duration,
    /// Silence after which this member, as leader, counts a node as dead.
    pub dead_after: Duration,
    pub image_every_entries: u64,
}

impl MemberOptions {
    /// A member that waits for its cluster, with shipped intervals.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, address: impl Into<String>, channels: Channels) -> Self {
        Self {
            directory: directory.into(),
            address: address.into(),
            sql_address: None,
            name: String::new(),
            peers: Vec::new(),
            bootstrap: Bootstrap::Wait,
            channels,
            intervals: Intervals::default(),
            voters_max: VOTERS_MAX,
            heartbeat: HEARTBEAT,
            dead_after: DEAD_AFTER,
            image_every_entries: IMAGE_EVERY_ENTRIES,
        }
    }
}

/// A started member. Dropping it leaves it running; [`Member::shutdown`] stops it.
pub struct Member {
    shared: Arc<Shared>,
    service: MetaService,
    /// For callers in this process, who hold it weakly.
    _local: Arc<dyn LocalMember>,
    life: JoinHandle<()>,
}

/// What the member's tasks have in common.
struct Shared {
    options: MemberOptions,
    folder: PathBuf,
    identity_file: IdentityFile,
    phase: watch::Sender<Phase>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Once there is one, whatever the phase: it has to be stopped.
    group: Mutex<Option<Group>>,
    /// Held while the process uses the folder.
    _lock: File,
}

impl Member {
    /// Opens the folder, and starts as the member that it belongs to or waits to become one.
    ///
    /// # Errors
    /// When the folder is in use, damaged, or of a newer format.
    pub async fn start(options: MemberOptions) -> Result<Self, MetaError> {
        let folder = options.directory.join("meta");
        std::fs::create_dir_all(&folder).map_err(|source| io_error("create", &folder, source))?;
        let lock = lock(&folder).await?;
        let identity_file = IdentityFile::new(&folder);
        let identity = identity_file.read()?;
        // Before anything is counted or written: another cluster's or another node's folder stays as it is.
        if let Some(identity) = &identity {
            returning::ask_peers(identity, &options).await?;
        }
        let opened = LogStore::open(&folder)?;
        check_whole(&folder, identity.as_ref(), &opened)?;
        if let Some(identity) = &identity {
            returning::ask_known(identity, &options, &opened).await?;
        }

        let (phase, phase_receiver) = watch::channel(Phase::Waiting);
        let (init, init_requests) = mpsc::channel(1);
        let (tasks, group) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { options, folder, identity_file, phase, tasks, group, _lock: lock });
        let running = match identity {
            Some(identity) => Some(shared.begin(identity, opened).await?),
            None => {
                opened.store.close().await;
                None
            }
        };
        let service = MetaService { phase: phase_receiver, init };
        let local: Arc<dyn LocalMember> = Arc::new(service.clone());
        shared.options.channels.set_member(&shared.options.address, Arc::downgrade(&local));
        let life = tokio::spawn(Arc::clone(&shared).live(running, init_requests));
        Ok(Self { shared, service, _local: local, life })
    }

    /// The service for the node's server.
    #[must_use]
    pub fn service(&self) -> MetaServer<MetaService> {
        MetaServer::new(self.service.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Waits until this node is in an initialised cluster that knows of its start.
    ///
    /// # Errors
    /// When it cannot come in or go on.
    pub async fn ready(&self) -> Result<(ClusterId, NodeId), MetaError> {
        let mut phase = self.shared.phase.subscribe();
        let settled = phase.wait_for(|phase| match phase {
            Phase::Waiting => false,
            Phase::Running(running) => running.is_announced,
            Phase::Failed(_) => true,
        });
        match settled.await.as_deref() {
            Ok(Phase::Running(running)) => Ok((running.group.cluster(), running.group.node())),
            Ok(Phase::Failed(reason)) => Err(MetaError::Failed(reason.clone())),
            Ok(Phase::Waiting) | Err(_) => Err(MetaError::Stopped("it was shut down".to_owned())),
        }
    }

    /// Waits until this member cannot go on: its files failed, or the cluster does not want it. The process then ends.
    pub async fn failed(&self) -> MetaError {
        let mut phase = self.shared.phase.subscribe();
        match phase.wait_for(|phase| matches!(phase, Phase::Failed(_))).await.as_deref() {
            Ok(Phase::Failed(reason)) => MetaError::Failed(reason.clone()),
            _ => MetaError::Stopped("it was shut down".to_owned()),
        }
    }

    /// Whether this member's disk is full.
    #[must_use]
    pub fn is_short_of_space(&self) -> bool {
        let group = self.shared.group.lock().unwrap_or_else(PoisonError::into_inner);
        group.as_ref().is_some_and(Group::is_short_of_space)
    }

    /// As `Meta.Status` tells it.
    pub async fn status(&self) -> wire::StatusResponse {
        use wire::meta_server::Meta;
        let status = self.service.status(Request::new(wire::StatusRequest::default())).await;
        status.map(tonic::Response::into_inner).unwrap_or_default()
    }

    /// Stops and closes the folder. A leader's followers elect another one.
    pub async fn shutdown(self) {
        self.life.abort();
        // It ends by being aborted.
        let _ = self.life.await;
        let group = self.shared.group.lock().unwrap_or_else(PoisonError::into_inner).take();
        let tasks = std::mem::take(&mut *self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in &tasks {
            task.abort();
        }
        if let Some(group) = group {
            group.shutdown().await;
        }
        for task in tasks {
            // As above.
            let _ = task.await;
        }
        self.shared.phase.send_replace(Phase::Failed("it was shut down".to_owned()));
    }
}

impl Shared {
    /// The member's life after its start.
    async fn live(self: Arc<Self>, running: Option<(Identity, Group)>, mut init: mpsc::Receiver<InitRequest>) {
        let (identity, group) = match running {
            Some(running) => running,
            None => match self.become_member(&mut init).await {
                Ok(running) => running,
                Err(error) => return self.fail(&error),
            },
        };
        let (timestamps, oracle) = Timestamps::start(group.clone());
        let observed = Arc::default();
        let running = Running { group: group.clone(), timestamps, observed, is_announced: false };
        self.phase.send_replace(Phase::Running(running.clone()));
        self.keep(oracle);
        self.start_tasks(&running, &identity);
        let settled = tokio::select! {
            settled = self.settle(&group, identity) => settled,
            error = group.failed() => Err(error),
        };
        if let Err(error) = settled {
            return self.fail(&error);
        }
        self.phase.send_replace(Phase::Running(Running { is_announced: true, ..running }));
        loop {
            tokio::select! {
                error = group.failed() => return self.fail(&error),
                request = init.recv() => match request {
                    Some(request) => found::refuse_second_init(request, &group),
                    None => std::future::pending().await,
                },
            }
        }
    }

    /// Starts the group's member on its files.
    async fn begin(&self, mut identity: Identity, opened: Opened) -> Result<(Identity, Group), MetaError> {
        // R3: counted on disk before anything is done in this start's name.
        self.identity_file.count_start(&mut identity, random_mark()?)?;
        let options = GroupOptions {
            cluster: identity.cluster,
            start: identity.start(),
            address: self.options.address.clone(),
            channels: self.options.channels.clone(),
            intervals: self.options.intervals,
            image_every_entries: self.options.image_every_entries,
        };
        let group = Group::start(options, opened).await?;
        *self.group.lock().unwrap_or_else(PoisonError::into_inner) = Some(group.clone());
        if matches!(identity.stage, Stage::Founding { .. }) {
            group.initialize(&self.options.address).await?;
        }
        group.elect_if_alone().await;
        Ok((identity, group))
    }

    /// Comes to the point from which on the folder must hold a log.
    async fn settle(&self, group: &Group, mut identity: Identity) -> Result<(), MetaError> {
        self.announce(group, &identity).await?;
        // The leader brings the log to a new member; without it this one could not answer anything anyway.
        group.wait_applied(1).await.map_err(|_| MetaError::Stopped("it was shut down".to_owned()))?;
        let was_settled = std::mem::replace(&mut identity.stage, Stage::Settled) == Stage::Settled;
        identity.note_heard();
        match self.identity_file.save(&identity) {
            // It remembers more starts than it needs to.
            Err(error) if was_settled => {
                tracing::warn!(%error, "this start is not noted as heard of");
                Ok(())
            }
            saved => saved,
        }
    }

    fn fail(&self, error: &MetaError) {
        tracing::error!(%error, "this access node cannot go on");
        self.phase.send_replace(Phase::Failed(error.to_string()));
    }

    fn keep(&self, task: JoinHandle<()>) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }
}

fn io_error(what: &'static str, path: &Path, source: std::io::Error) -> MetaError {
    MetaError::Io { what, path: path.to_owned(), source }
}

/// The folder's lock. A predecessor that is just ending has a moment.
async fn lock(folder: &Path) -> Result<File, MetaError> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(|source| io_error("create", &path, source))?;
    let deadline = tokio::time::Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::Error(source)) => return Err(io_error("lock", &path, source)),
            Err(std::fs::TryLockError::WouldBlock) if tokio::time::Instant::now() > deadline => {
                return Err(MetaError::InUse(folder.to_owned()));
            }
            Err(std::fs::TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Files that belong together are all there, or none.
fn check_whole(folder: &Path, identity: Option<&Identity>, opened: &Opened) -> Result<(), MetaError> {
    let has_vote = opened.store.vote().is_some();
    let lost = match identity {
        // Somebody's log, whose name was lost, must not be taken over.
        None => (has_vote || opened.image.is_some()).then_some("identity"),
        // A voter that forgot its vote could vote twice.
        Some(identity) => (identity.stage == Stage::Settled && !has_vote).then_some("vote"),
    };
    match lost {
        Some(name) => Err(MetaError::Identity(format!("the file \"{name}\" in {} was lost", folder.display()))),
        None => Ok(()),
    }
}
