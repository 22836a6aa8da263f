//! The catalog as openraft's state machine, and what it publishes to the rest of this member.

#![expect(clippy::result_large_err, reason = "the error type is openraft's")]

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use meridian_proto::CatalogVersion;
use meridian_proto::catalog::{NodeRole, Noun, NounKey};
use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, BasicNode, Entry as RaftEntry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot,
    SnapshotMeta, StorageError, StorageIOError, StoredMembership,
};
use tokio::sync::watch;
use tracing::warn;

use super::network::AddressBook;
use super::storage::{from_raft_membership, to_raft_membership};
use super::{Applied, TypeConfig, to_entry_id, to_raft_id};
use crate::catalog::{Answer, Catalog, History, Proposal};
use crate::error::MetaError;
use crate::log::{CatalogImage, EntryId, ImageFile, LogError, Members};

/// Between two attempts to save an image on a full disk.
const WAIT_FOR_SPACE: Duration = Duration::from_secs(1);

type Result<T> = std::result::Result<T, StorageError<u64>>;

/// How far this member has applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Index of the last applied entry.
    pub applied: u64,
    /// Index of the last entry that changed the catalog.
    pub version: CatalogVersion,
}

/// What applied entries made.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub catalog: Catalog,
    pub history: History,
    applied: Option<EntryId>,
    members_set_by: Option<EntryId>,
    members: Members,
}

/// The state, for readers beside the state machine.
pub(super) struct Published {
    state: RwLock<State>,
    progress: watch::Sender<Progress>,
}

impl Published {
    pub(super) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Changes the state, then tells of it: who waits for an index finds it applied.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        let progress = state.progress();
        drop(state);
        self.progress.send_replace(progress);
        result
    }
}

/// Applies entries.
#[derive(Clone)]
pub(super) struct Machine {
    published: Arc<Published>,
    image_file: ImageFile,
    book: AddressBook,
}

impl Machine {
    /// Begins with the state of the image.
    pub(super) fn open(
        image: Option<CatalogImage>,
        image_file: ImageFile,
        book: AddressBook,
    ) -> std::result::Result<Self, MetaError> {
        let damaged = |what| LogError::Damaged { path: image_file.path().to_owned(), position: 0, what };
        let state = image.map(State::from_image).transpose().map_err(damaged)?.unwrap_or_default();
        learn_all(&state.catalog, &book);
        let progress = watch::Sender::new(state.progress());
        let published = Arc::new(Published { state: RwLock::new(state), progress });
        Ok(Self { published, image_file, book })
    }

    pub(super) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }

    /// Saves an image and returns it as openraft wants it. Waits while the disk is full: the log is kept meanwhile.
    async fn save(&self, image: CatalogImage) -> Result<Snapshot<TypeConfig>> {
        let failed = |error: AnyError| StorageError::from(StorageIOError::write_snapshot(None, error));
        let image = Arc::new(image);
        let mut is_waiting = false;
        loop {
            let (file, content) = (self.image_file.clone(), Arc::clone(&image));
            let saved = tokio::task::spawn_blocking(move || file.save(&content)).await;
            match saved.map_err(|error| failed(AnyError::new(&error)))? {
                Ok(()) => return to_snapshot(&image).map_err(|what| failed(AnyError::error(what))),
                Err(error) if error.is_disk_full() => {
                    if !std::mem::replace(&mut is_waiting, true) {
                        warn!(%error, "the image of the catalog waits for space");
                    }
                    tokio::time::sleep(WAIT_FOR_SPACE).await;
                }
                Err(error) => return Err(failed(AnyError::new(&error))),
            }
        }
    }
}

impl State {
    fn from_image(image: CatalogImage) -> std::result::Result<Self, String> {
        let catalog = Catalog::decode(&image.catalog).map_err(|error| error.to_string())?;
        Ok(Self {
            history: History::starting_at(catalog.version()),
            catalog,
            applied: image.last,
            members_set_by: image.members_set_by,
            members: image.members,
        })
    }

    fn image(&self) -> CatalogImage {
        CatalogImage {
            last: self.applied,
            members_set_by: self.members_set_by,
            members: self.members.clone(),
            catalog: self.catalog.encode(),
        }
    }

    fn progress(&self) -> Progress {
        Progress { applied: self.applied.map_or(0, |id| id.index), version: self.catalog.version() }
    }

    fn membership(&self) -> StoredMembership<u64, BasicNode> {
        StoredMembership::new(self.members_set_by.map(to_raft_id), to_raft_membership(self.members.clone()))
    }

    fn apply(&mut self, entry: RaftEntry<TypeConfig>, book: &AddressBook) -> Result<Applied> {
        let id = to_entry_id(&entry.log_id);
        let answer = match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Membership(membership) => {
                self.members = from_raft_membership(&membership);
                self.members_set_by = Some(id);
                None
            }
            EntryPayload::Normal(command) => {
                let Some(proposal) = Proposal::decode(&command.0) else {
                    // The proposer checked it. A member that does not understand it is older than the leader, and
                    // would differ from the others from here on.
                    let what = AnyError::error("the entry holds a command that this version does not know");
                    return Err(StorageIOError::apply(entry.log_id, what).into());
                };
                Some(self.apply_proposal(id.index, proposal, book))
            }
        };
        self.applied = Some(id);
        Ok(Applied { answer })
    }

    fn apply_proposal(&mut self, index: u64, proposal: Proposal, book: &AddressBook) -> Answer {
        let answer = self.catalog.apply_proposal(index, proposal);
        let changed = self.catalog.take_changed();
        if !changed.is_empty() {
            for key in &changed {
                learn(&self.catalog, key, book);
            }
            self.history.record(self.catalog.version(), changed);
        }
        answer
    }
}

/// Access nodes say in the catalog where they are.
fn learn(catalog: &Catalog, key: &NounKey, book: &AddressBook) {
    if let Some(Noun::Node(node)) = catalog.noun(key)
        && node.role == NodeRole::Access
    {
        book.set(node.id.0, &node.address);
    }
}

fn learn_all(catalog: &Catalog, book: &AddressBook) {
    for node in catalog.access_nodes() {
        book.set(node.id.0, &node.address);
    }
}

fn to_snapshot(image: &CatalogImage) -> std::result::Result<Snapshot<TypeConfig>, String> {
    let last = image.last.unwrap_or_default();
    let membership = to_raft_membership(image.members.clone());
    let meta = SnapshotMeta {
        last_log_id: image.last.map(to_raft_id),
        last_membership: StoredMembership::new(image.members_set_by.map(to_raft_id), membership),
        snapshot_id: format!("{}-{}-{}", last.term, last.node, last.index),
    };
    Ok(Snapshot { meta, snapshot: Box::new(image.encode()?) })
}

/// The snapshot that a message of the leader holds.
pub(super) fn from_bytes(bytes: &[u8]) -> std::result::Result<Snapshot<TypeConfig>, String> {
    to_snapshot(&CatalogImage::decode(bytes)?)
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>> {
        let image = self.published.read(State::image);
        self.save(image).await
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>)> {
        Ok(self.published.read(|state| (state.applied.map(to_raft_id), state.membership())))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>>
    where
        I: IntoIterator<Item = RaftEntry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let book = self.book.clone();
        let entries: Vec<_> = entries.into_iter().collect();
        self.published.change(|state| entries.into_iter().map(|entry| state.apply(entry, &book)).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        // The builder sees the state as of now: later entries must not slip in under this snapshot's id.
        let state = self.published.read(State::clone);
        let published = Published { state: RwLock::new(state), progress: watch::Sender::default() };
        Self { published: Arc::new(published), ..self.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta<u64, BasicNode>, snapshot: Box<Vec<u8>>) -> Result<()> {
        let unreadable = |what: String| StorageIOError::read_snapshot(Some(meta.signature()), AnyError::error(what));
        let image = CatalogImage::decode(&snapshot).map_err(unreadable)?;
        let state = State::from_image(image.clone()).map_err(unreadable)?;
        self.save(image).await?;
        learn_all(&state.catalog, &self.book);
        self.published.change(|current| *current = state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>> {
        let file = self.image_file.clone();
        let failed = |error: AnyError| StorageError::from(StorageIOError::read_snapshot(None, error));
        let image = tokio::task::spawn_blocking(move || file.read())
            .await
            .map_err(|error| failed(AnyError::new(&error)))?
            .map_err(|error| failed(AnyError::new(&error)))?;
        image.map(|image| to_snapshot(&image)).transpose().map_err(|what| failed(AnyError::error(what)))
    }
}
