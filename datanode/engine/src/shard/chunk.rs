//! A chunk on its shard: the core, its rows in memory and the list of its live segments. Changed only between two awaits,
//! and only by records that are synced.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use futures::lock::Mutex;
use meridian_proto::schema::TableSchema;
use meridian_proto::{
    ChunkId, ClusterId, CommandId, Lsn, Refusal, SchemaVersion, SegmentId, TableId, TransactionId, Ts,
};

use super::open::OpenSegments;
use crate::disk::{Disk, DiskFile};
use crate::error::EngineError;
use crate::manifest::{CompressionV2, ManifestV2, RunV1, SegmentV2, store_state};
use crate::memtable::{Frozen, Memtable};
use crate::pace::{Signal, executor};
use crate::record::{SpecBody, Standing};
use crate::replica::{Effect, Replica, ReplicaState};
use crate::scan::SortKey;
use crate::segment::{FilePages, SegmentExpectation, SegmentReader};
use crate::stored::SchemaV1;
use crate::visibility::{Outcome, View};

pub struct Chunk<D: Disk> {
    pub id: ChunkId,
    pub directory: PathBuf,
    pub state: RefCell<ChunkState<D>>,
    /// Raised when records were synced or given up.
    pub progress: Signal,
    /// Held while the chunk is opened or removed.
    pub opening: Mutex<()>,
    /// Held while segments are rewritten, or the chunk is removed. Taken before `flushing`.
    pub rewriting: Mutex<()>,
    /// Held while the chunk's manifest is replaced, as by a flush, or the chunk is removed.
    pub flushing: Mutex<()>,
    /// The chunk is about to go: a rewrite gives way.
    pub is_leaving: Cell<bool>,
    /// Segments came since compaction last found nothing to do here.
    pub is_compaction_due: Cell<bool>,
    /// A failed rewrite is not tried again before.
    pub rewrite_after: Cell<Option<Instant>>,
    pub leftovers: Rc<Leftovers>,
}

/// Files that no manifest names and no reader has any more, to be removed.
pub struct Leftovers {
    segments: RefCell<Vec<SegmentId>>,
    left: Rc<Signal>,
}

impl Leftovers {
    pub fn is_any(&self) -> bool {
        !self.segments.borrow().is_empty()
    }

    pub fn take(&self) -> Vec<SegmentId> {
        self.segments.take()
    }
}

pub struct ChunkState<D: Disk> {
    pub replica: Replica,
    pub table: TableId,
    pub sort: SortKey,
    /// Every version that rows in the log may have.
    pub schemas: BTreeMap<SchemaVersion, Arc<TableSchema>>,
    /// As of the synced records; rows in memory have it.
    pub schema: Arc<TableSchema>,
    /// As of the appended records; rows that arrive have it.
    pub arriving: Arc<TableSchema>,
    pub arriving_arrow: SchemaRef,
    pub memtable: Memtable,
    pub frozen: Option<Frozen>,
    pub segments: Vec<Rc<LiveSegment<D::File>>>,
    pub segment_next: SegmentId,
    /// How the chunk is compressed, if it is.
    pub compression: Option<CompressionV2>,
    /// Snapshots below cannot be read (R24): versions up to here are not told apart in some segment.
    pub history_upto: Ts,
    /// Dropped from the list; the files go once no manifest names them.
    pub garbage: Vec<Rc<LiveSegment<D::File>>>,
    /// Log files with records that no manifest holds, and those that the manifest being written will hold.
    pub pins: BTreeSet<u64>,
    pub pins_flushing: BTreeSet<u64>,
    /// When the oldest row in memory came.
    pub oldest_row: Option<Instant>,
    /// Since when runs are decided of which the manifest does not know it.
    pub decided_since: Option<Instant>,
    /// Whether the record that describes the chunk is synced.
    pub is_durable: bool,
    /// Takes nothing more.
    pub is_removing: bool,
    /// How often pending records were given up, and why the last time.
    pub given_up: (u64, Option<Refusal>),
}

/// A segment in the list.
pub struct LiveSegment<F: DiskFile> {
    pub stored: SegmentV2,
    pub run: Option<(TransactionId, CommandId)>,
    /// Commit timestamp of a run, once it is decided.
    pub commit: Cell<Option<Ts>>,
    /// Whether the manifest knows all its rows to be committed (R8): a rewrite takes nothing else.
    pub is_settled: Cell<bool>,
    pub is_compressed: Cell<bool>,
    /// Where the file is reported when the last reader is done with it; `None` while a manifest may name it.
    leftovers: RefCell<Option<Rc<Leftovers>>>,
    reader: RefCell<Option<Rc<SegmentReader<F>>>>,
    /// Its pages in the shard's cache, which stay when the file is closed.
    pages: RefCell<Option<Rc<FilePages>>>,
    /// Its entry among the open segments.
    pub last_use: Cell<Option<u64>>,
}

impl<D: Disk> Chunk<D> {
    /// `left` is raised when a file can be removed.
    pub fn new(id: ChunkId, directory: PathBuf, state: ChunkState<D>, left: &Rc<Signal>) -> Rc<Self> {
        Rc::new(Self {
            id,
            directory,
            state: RefCell::new(state),
            progress: Signal::default(),
            opening: Mutex::new(()),
            rewriting: Mutex::new(()),
            flushing: Mutex::new(()),
            is_leaving: Cell::new(false),
            is_compaction_due: Cell::new(true),
            rewrite_after: Cell::new(None),
            leftovers: Rc::new(Leftovers { segments: RefCell::default(), left: Rc::clone(left) }),
        })
    }

    /// Waits until the position is synced, or given up.
    pub async fn wait_synced(&self, lsn: Lsn) -> Result<(), Refusal> {
        let given_up = self.state.borrow().given_up.0;
        loop {
            let progress = self.progress.next();
            {
                let state = self.state.borrow();
                if state.given_up.0 != given_up {
                    let reason = state.given_up.1.clone();
                    return Err(reason.unwrap_or_else(|| Refusal::Unavailable("given up".to_owned())));
                }
                if state.replica.synced() >= lsn {
                    return Ok(());
                }
            }
            progress.await;
        }
    }
}

impl<D: Disk> ChunkState<D> {
    /// A chunk that was never here before.
    pub fn fresh(chunk: ChunkId, spec: &SpecBody) -> Self {
        let schema = Arc::new(spec.schema.clone());
        Self {
            replica: Replica::new(chunk, schema.version, ReplicaState::default()),
            table: spec.table,
            sort: spec.sort.clone(),
            schemas: BTreeMap::from([(schema.version, Arc::clone(&schema))]),
            arriving: Arc::clone(&schema),
            arriving_arrow: schema.arrow(),
            schema,
            memtable: Memtable::default(),
            frozen: None,
            segments: Vec::new(),
            segment_next: SegmentId(1),
            compression: None,
            history_upto: Ts(0),
            garbage: Vec::new(),
            pins: BTreeSet::new(),
            pins_flushing: BTreeSet::new(),
            oldest_row: None,
            decided_since: None,
            is_durable: false,
            is_removing: false,
            given_up: (0, None),
        }
    }

    /// A chunk as its manifest describes it; `None` when a type in it is unknown.
    pub fn restore(chunk: ChunkId, manifest: &ManifestV2) -> Option<Self> {
        let schemas = manifest.schemas.iter().map(SchemaV1::schema).collect::<Option<Vec<_>>>()?;
        let spec =
            SpecBody { table: TableId(manifest.table), schema: schemas.last()?.clone(), sort: manifest.sort.sort() };
        let mut state = Self::fresh(chunk, &spec);
        state.replica = Replica::new(chunk, spec.schema.version, manifest.replica_state());
        state.schemas = schemas.into_iter().map(|schema| (schema.version, Arc::new(schema))).collect();
        state.segments = manifest.segments.iter().map(|stored| Rc::new(LiveSegment::new(stored.clone()))).collect();
        state.segment_next = SegmentId(manifest.segment_next);
        state.compression = manifest.compression.clone();
        state.history_upto = Ts(manifest.history_upto);
        state.is_durable = true;
        Some(state)
    }

    /// Rows that arrive from now on have this schema.
    pub fn expect_schema(&mut self, schema: Arc<TableSchema>) {
        self.arriving_arrow = schema.arrow();
        self.replica.set_schema_version(schema.version);
        self.arriving = schema;
    }

    /// The description is durable: rows in memory take its schema.
    pub fn apply_spec(&mut self, spec: &SpecBody) -> Result<(), ArrowError> {
        self.is_durable = true;
        let schema = Arc::new(spec.schema.clone());
        self.schemas.insert(schema.version, Arc::clone(&schema));
        if schema.version <= self.schema.version {
            return Ok(());
        }
        self.memtable.convert(&self.schema, &schema)?;
        if let Some(frozen) = &mut self.frozen {
            frozen.convert(&self.schema, &schema)?;
        }
        self.schema = schema;
        self.sort = spec.sort.clone();
        Ok(())
    }

    /// Lets an effect of a synced record come into force; `rows` are those of the record, with their memory.
    pub fn apply(&mut self, effect: Effect, rows: Option<(RecordBatch, usize)>) -> Result<(), ArrowError> {
        match effect {
            Effect::Enter { transaction, command, standing, .. } => {
                let Some((batch, bytes)) = rows else { return Ok(()) };
                self.oldest_row.get_or_insert_with(executor::now);
                match standing {
                    Standing::Committed(commit) => self.memtable.insert(batch, commit, bytes),
                    Standing::Staged { .. } => self.memtable.stage(transaction, command, batch, bytes),
                }
            }
            Effect::Commit { transaction, commit } => {
                self.memtable.commit(transaction, commit);
                self.settle(transaction, Outcome::Committed(commit));
                Ok(())
            }
            Effect::Discard { transaction } => {
                self.memtable.discard(transaction);
                self.settle(transaction, Outcome::Aborted);
                Ok(())
            }
        }
    }

    fn settle(&mut self, transaction: TransactionId, outcome: Outcome) {
        if let Some(frozen) = &mut self.frozen {
            frozen.settle(transaction, outcome);
        }
        let is_of = |segment: &LiveSegment<D::File>| segment.run.is_some_and(|(of, _)| of == transaction);
        match outcome {
            Outcome::Committed(commit) => {
                let runs = self.segments.iter().filter(|segment| is_of(segment));
                let decided = runs.map(|run| run.commit.set(Some(commit))).count();
                if decided > 0 {
                    self.note_decided();
                }
            }
            Outcome::Aborted => {
                let (dropped, kept) = std::mem::take(&mut self.segments).into_iter().partition(|run| is_of(run));
                self.segments = kept;
                if !Vec::is_empty(&dropped) {
                    self.note_decided();
                }
                self.garbage.extend(dropped);
            }
            Outcome::Undecided => {}
        }
    }

    pub fn note_decided(&mut self) {
        self.decided_since.get_or_insert_with(executor::now);
    }

    /// Nothing waits for a flush.
    pub fn is_at_rest(&self) -> bool {
        self.memtable.is_empty() && self.decided_since.is_none()
    }

    /// Gives up what is pending: nothing of it is in the log.
    pub fn give_up(&mut self, refusal: &Refusal) {
        self.replica.forget_pending();
        let synced = Arc::clone(&self.schema);
        self.expect_schema(synced);
        self.given_up = (self.given_up.0 + 1, Some(refusal.clone()));
    }

    /// The manifest as of the synced records, without what is in memory.
    pub fn manifest(&self) -> ManifestV2 {
        let state = self.replica.state();
        let (low_waters, transactions) = store_state(state);
        ManifestV2 {
            table: self.table.0,
            schemas: self.schemas.values().map(|schema| SchemaV1::from(schema.as_ref())).collect(),
            sort: (&self.sort).into(),
            epoch: state.epoch.0,
            flushed_upto: state.synced.0,
            segment_next: self.segment_next.0,
            segments: self.segments.iter().map(|segment| segment.store()).collect(),
            low_waters,
            transactions,
            compression: self.compression.clone(),
            history_upto: self.history_upto.0,
        }
    }

    /// R24: below the horizon, versions may be gone.
    pub fn check_history(&self, snapshot: Ts, horizon: Ts) -> Result<(), Refusal> {
        let horizon = horizon.max(self.history_upto);
        if snapshot >= horizon {
            return Ok(());
        }
        Err(Refusal::Snapshot { snapshot, reason: format!("the history before {horizon} is not kept any more") })
    }

    /// A number that no segment of the chunk ever had.
    pub fn take_segment(&mut self) -> SegmentId {
        let segment = self.segment_next;
        self.segment_next = SegmentId(segment.0 + 1);
        segment
    }

    /// Memory of rows, those being flushed included.
    pub fn memory_bytes(&self) -> usize {
        self.memtable.bytes() + self.frozen.as_ref().map_or(0, Frozen::bytes)
    }

    /// The oldest log file that holds a record which no manifest holds.
    pub fn oldest_pin(&self) -> Option<u64> {
        self.pins.first().into_iter().chain(self.pins_flushing.first()).min().copied()
    }
}

impl<F: DiskFile> LiveSegment<F> {
    #[must_use]
    pub fn new(stored: SegmentV2) -> Self {
        let run = stored.run.as_ref().map(|run| (run.transaction(), CommandId(run.command)));
        let commit = stored.run.as_ref().and_then(|run| run.commit).map(Ts);
        Self {
            is_settled: Cell::new(run.is_none() || commit.is_some()),
            is_compressed: Cell::new(stored.is_compressed),
            stored,
            run,
            commit: Cell::new(commit),
            leftovers: RefCell::new(None),
            reader: RefCell::new(None),
            pages: RefCell::new(None),
            last_use: Cell::new(None),
        }
    }

    /// No manifest names the file any more: it goes when the last reader is done.
    pub fn leave(&self, leftovers: &Rc<Leftovers>) {
        *self.leftovers.borrow_mut() = Some(Rc::clone(leftovers));
    }

    /// As a manifest names it.
    pub fn store(&self) -> SegmentV2 {
        let run = self.stored.run.as_ref().map(|run| RunV1 { commit: self.commit.get().map(|c| c.0), ..run.clone() });
        SegmentV2 { run, is_compressed: self.is_compressed.get(), ..self.stored.clone() }
    }

    /// Whether any of its rows can be seen, without looking into it.
    pub fn may_be_seen(&self, view: &View) -> bool {
        match self.run {
            Some((transaction, command)) => {
                let outcome = self.commit.get().map_or(Outcome::Undecided, Outcome::Committed);
                view.sees_stage(transaction, command, outcome)
            }
            None => self.stored.commits.is_some_and(|(min, _)| view.sees(Ts(min))),
        }
    }

    /// Opens the file at its first use.
    pub async fn reader<D: Disk<File = F>>(
        self: &Rc<Self>,
        disk: &D,
        chunk: &Chunk<D>,
        cluster: ClusterId,
        opened: &OpenSegments<F>,
    ) -> Result<Rc<SegmentReader<F>>, EngineError> {
        let open = self.reader.borrow().clone();
        let reader = match open {
            Some(reader) => reader,
            None => {
                let expected = SegmentExpectation { cluster, chunk: chunk.id, segment: self.stored.id() };
                let pages = Rc::clone(self.pages.borrow_mut().get_or_insert_with(|| opened.pages.file()));
                let reader = Rc::new(SegmentReader::open(disk, &chunk.directory, expected).await?.cached(pages));
                *self.reader.borrow_mut() = Some(Rc::clone(&reader));
                reader
            }
        };
        opened.note(self, &reader);
        Ok(reader)
    }

    /// Lets go of the open file; who reads it keeps it until done.
    pub fn close(&self) {
        self.last_use.set(None);
        self.reader.take();
    }

    #[cfg(test)]
    pub fn is_open(&self) -> bool {
        self.reader.borrow().is_some()
    }
}

impl<F: DiskFile> Drop for LiveSegment<F> {
    fn drop(&mut self) {
        if let Some(leftovers) = self.leftovers.take() {
            leftovers.segments.borrow_mut().push(self.stored.id());
            leftovers.left.raise();
        }
    }
}
