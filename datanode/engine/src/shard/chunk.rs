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

use crate::disk::{Disk, DiskFile};
use crate::error::EngineError;
use crate::manifest::{ManifestV1, RunV1, SegmentV1, store_state};
use crate::memtable::{Frozen, Memtable};
use crate::pace::Signal;
use crate::record::{SpecBody, Standing};
use crate::replica::{Effect, Replica, ReplicaState};
use crate::scan::SortKey;
use crate::segment::{SegmentExpectation, SegmentReader};
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
    /// Held while the chunk is flushed or removed.
    pub flushing: Mutex<()>,
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
    /// Dropped from the list; the files go once no manifest names them.
    pub garbage: Vec<Rc<LiveSegment<D::File>>>,
    /// Log files with records that no manifest holds, and those that the manifest being written will hold.
    pub pins: BTreeSet<u64>,
    pub pins_flushing: BTreeSet<u64>,
    /// When the oldest row in memory came.
    pub oldest_row: Option<Instant>,
    /// Whether the record that describes the chunk is synced.
    pub is_durable: bool,
    /// Takes nothing more.
    pub is_removing: bool,
    /// How often pending records were given up, and why the last time.
    pub given_up: (u64, Option<Refusal>),
}

/// A segment in the list.
pub struct LiveSegment<F: DiskFile> {
    pub stored: SegmentV1,
    pub run: Option<(TransactionId, CommandId)>,
    /// Commit timestamp of a run, once it is decided.
    pub commit: Cell<Option<Ts>>,
    reader: RefCell<Option<Rc<SegmentReader<F>>>>,
}

impl<D: Disk> Chunk<D> {
    pub fn new(id: ChunkId, directory: PathBuf, state: ChunkState<D>) -> Rc<Self> {
        Rc::new(Self {
            id,
            directory,
            state: RefCell::new(state),
            progress: Signal::default(),
            opening: Mutex::new(()),
            flushing: Mutex::new(()),
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
            garbage: Vec::new(),
            pins: BTreeSet::new(),
            pins_flushing: BTreeSet::new(),
            oldest_row: None,
            is_durable: false,
            is_removing: false,
            given_up: (0, None),
        }
    }

    /// A chunk as its manifest describes it; `None` when a type in it is unknown.
    pub fn restore(chunk: ChunkId, manifest: &ManifestV1) -> Option<Self> {
        let schemas = manifest.schemas.iter().map(SchemaV1::schema).collect::<Option<Vec<_>>>()?;
        let spec =
            SpecBody { table: TableId(manifest.table), schema: schemas.last()?.clone(), sort: manifest.sort.sort() };
        let mut state = Self::fresh(chunk, &spec);
        state.replica = Replica::new(chunk, spec.schema.version, manifest.replica_state());
        state.schemas = schemas.into_iter().map(|schema| (schema.version, Arc::new(schema))).collect();
        state.segments = manifest.segments.iter().map(|stored| Rc::new(LiveSegment::new(stored.clone()))).collect();
        state.segment_next = SegmentId(manifest.segment_next);
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
                self.oldest_row.get_or_insert_with(Instant::now);
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
                runs.for_each(|run| run.commit.set(Some(commit)));
            }
            Outcome::Aborted => {
                let (dropped, kept) = std::mem::take(&mut self.segments).into_iter().partition(|run| is_of(run));
                self.segments = kept;
                self.garbage.extend::<Vec<_>>(dropped);
            }
            Outcome::Undecided => {}
        }
    }

    /// Gives up what is pending: nothing of it is in the log.
    pub fn give_up(&mut self, refusal: &Refusal) {
        self.replica.forget_pending();
        let synced = Arc::clone(&self.schema);
        self.expect_schema(synced);
        self.given_up = (self.given_up.0 + 1, Some(refusal.clone()));
    }

    /// The manifest as of the synced records, without what is in memory.
    pub fn manifest(&self) -> ManifestV1 {
        let state = self.replica.state();
        let (low_waters, transactions) = store_state(state);
        ManifestV1 {
            table: self.table.0,
            schemas: self.schemas.values().map(|schema| SchemaV1::from(schema.as_ref())).collect(),
            sort: (&self.sort).into(),
            epoch: state.epoch.0,
            flushed_upto: state.synced.0,
            segment_next: self.segment_next.0,
            segments: self.segments.iter().map(|segment| segment.store()).collect(),
            low_waters,
            transactions,
        }
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
    pub fn new(stored: SegmentV1) -> Self {
        let run = stored.run.as_ref().map(|run| (run.transaction(), CommandId(run.command)));
        let commit = stored.run.as_ref().and_then(|run| run.commit).map(Ts);
        Self { stored, run, commit: Cell::new(commit), reader: RefCell::new(None) }
    }

    /// As a manifest names it.
    pub fn store(&self) -> SegmentV1 {
        let run = self.stored.run.as_ref().map(|run| RunV1 { commit: self.commit.get().map(|c| c.0), ..run.clone() });
        SegmentV1 { run, ..self.stored.clone() }
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
        &self,
        disk: &D,
        chunk: &Chunk<D>,
        cluster: ClusterId,
    ) -> Result<Rc<SegmentReader<F>>, EngineError> {
        let open = self.reader.borrow().clone();
        if let Some(reader) = open {
            return Ok(reader);
        }
        let expected = SegmentExpectation { cluster, chunk: chunk.id, segment: self.stored.id() };
        let reader = Rc::new(SegmentReader::open(disk, &chunk.directory, expected).await?);
        *self.reader.borrow_mut() = Some(Rc::clone(&reader));
        Ok(reader)
    }
}
