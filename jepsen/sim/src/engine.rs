//! A shard on a bad disk. Clients write, stage, decide, flush, compact, compress and read; the power goes at any operation
//! of the disk, writes fail or are lost, space runs out, bits rot. Then the shard opens again, and every acknowledged row
//! is there once, or damage is reported.
//!
//! What a disk can do without being noticed is not asked for: a lost last write of the log looks like a log that ends
//! before it.

use std::cell::{Cell, RefCell};
use std::iter::Sum;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, join_all, select};
use futures::{FutureExt, pin_mut};
use meridian_engine::disk::simulated::{self, Misdeed, Omission, Overlooked};
use meridian_engine::pace::executor::{self, Queue, simulate};
use meridian_engine::{
    Answer, ChunkSpec, CompactionLimits, CompressionOrder, Decide, Decision, DiskError, EngineError, OrderBy, Question,
    RecoveryReport, Scan, Shard, ShardOptions, SimulatedDisk, SortKey, Write, WriteMode,
};
use meridian_proto::rows::encode_rows;
use meridian_proto::{
    ChunkId, ClusterId, ColumnId, CommandId, Epoch, NodeId, ProducerId, Refusal, SchemaVersion, Sequence, ShardId,
    TableId, TransactionId, Ts,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::ledger::{self, Group, Ledger, Seen, Standing};

const CHUNKS: [ChunkId; 2] = [ChunkId(7), ChunkId(8)];
const CLIENTS: u64 = 3;
const LIVES: u64 = 4;
const CLIENT_STEPS: u32 = 14;
/// Of simulated time: a life that lasts longer hangs.
const LIFE_MAX: Duration = Duration::from_secs(3600);
/// One seed in so many has a disk that lies.
const DAMAGE_ONE_IN: u64 = 4;

/// A bug that is built into a run on purpose. Each shows a kind of fault at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnginePlant {
    /// Writes are torn or lost when the power goes: writes are acknowledged before the log is synced, and manifests name
    /// segments, or stand under their name, before they are.
    LogNotSynced,
    SegmentsNotSynced,
    ManifestsNotSynced,
    /// Folders forget: new and renamed files, or new folders, are not made durable where they stand.
    FileNamesNotSynced,
    FolderNamesNotSynced,
    /// Writes fail, syncs fail, disks are full: and nobody looks.
    WriteErrorsOverlooked,
    SyncErrorsOverlooked,
    FullDiskOverlooked,
    /// Operations are slow: a sync that takes long counts as done.
    SlowSyncsNotAwaited,
    /// Writes are lost or go elsewhere: what stands in the log behind one that is not there is cut off like a torn end.
    LossOverlooked,
    MisdirectionOverlooked,
    /// Bits rot: nobody compares checksums of pages.
    RotOverlooked,
    /// R10: a client repeats a write that was not answered under a new identity.
    RepeatUnderNewIdentity,
}

pub const ENGINE_PLANTS: [EnginePlant; 13] = [
    EnginePlant::LogNotSynced,
    EnginePlant::SegmentsNotSynced,
    EnginePlant::ManifestsNotSynced,
    EnginePlant::FileNamesNotSynced,
    EnginePlant::FolderNamesNotSynced,
    EnginePlant::WriteErrorsOverlooked,
    EnginePlant::SyncErrorsOverlooked,
    EnginePlant::FullDiskOverlooked,
    EnginePlant::SlowSyncsNotAwaited,
    EnginePlant::LossOverlooked,
    EnginePlant::MisdirectionOverlooked,
    EnginePlant::RotOverlooked,
    EnginePlant::RepeatUnderNewIdentity,
];

impl EnginePlant {
    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        ENGINE_PLANTS.into_iter().find(|plant| format!("{plant:?}") == name)
    }

    /// What the disk can imitate of it.
    pub(crate) fn omission(self) -> Option<Omission> {
        Some(match self {
            Self::LogNotSynced => Omission::FileSync(".wal"),
            Self::SegmentsNotSynced => Omission::FileSync(".seg"),
            Self::ManifestsNotSynced => Omission::FileSync(".tmp"),
            Self::FileNamesNotSynced => Omission::FileNameSync,
            Self::FolderNamesNotSynced => Omission::FolderNameSync,
            Self::WriteErrorsOverlooked => Omission::WriteError,
            Self::SyncErrorsOverlooked => Omission::SyncError,
            Self::FullDiskOverlooked => Omission::DiskFull,
            Self::SlowSyncsNotAwaited => Omission::SlowSync,
            _ => return None,
        })
    }

    /// Whether it is in what a shard does not look at.
    #[must_use]
    pub fn is_overlooked(self) -> bool {
        self.overlooked().is_some()
    }

    fn overlooked(self) -> Option<Overlooked> {
        match self {
            Self::LossOverlooked | Self::MisdirectionOverlooked => Some(Overlooked::LaterBatches),
            Self::RotOverlooked => Some(Overlooked::Checksums),
            _ => None,
        }
    }

    /// The lie that shows it.
    fn lie(self) -> Option<Lie> {
        match self {
            Self::LossOverlooked => Some(Lie::Loss),
            Self::MisdirectionOverlooked => Some(Lie::Misdirection),
            Self::RotOverlooked => Some(Lie::Rot),
            _ => None,
        }
    }
}

/// What a disk does without saying so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    Loss,
    Misdirection,
    Rot,
}

/// What happened in a run that went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineSummary {
    pub lives: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub scans: u64,
    pub rewrites: u64,
    pub power_cuts: u64,
    /// Damage was done to stored bytes, and reported.
    pub damaged: u64,
    pub reported: u64,
    /// Of all files at the end of each life: tells runs apart that did not do the same.
    pub digest: u64,
}

impl Sum for EngineSummary {
    fn sum<I: Iterator<Item = Self>>(summaries: I) -> Self {
        summaries.fold(Self::default(), |all, one| Self {
            lives: all.lives + one.lives,
            acknowledged: all.acknowledged + one.acknowledged,
            refused: all.refused + one.refused,
            scans: all.scans + one.scans,
            rewrites: all.rewrites + one.rewrites,
            power_cuts: all.power_cuts + one.power_cuts,
            damaged: all.damaged + one.damaged,
            reported: all.reported + one.reported,
            digest: all.digest ^ one.digest,
        })
    }
}

/// A promise was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineBroken {
    pub seed: u64,
    pub life: u64,
    pub what: String,
}

/// One seed, from a new disk to a last check.
pub fn run(seed: u64, plant: Option<EnginePlant>) -> Result<EngineSummary, EngineBroken> {
    let life = Rc::new(Cell::new(0));
    let noted = Rc::clone(&life);
    let ran =
        catch_unwind(AssertUnwindSafe(|| simulate(seed, async move { World::new(seed, plant, noted).run().await })));
    let what = match ran {
        Ok(Ok(summary)) => return Ok(summary),
        Ok(Err(what)) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            format!("panic: {}", text.unwrap_or("without words"))
        }
    };
    Err(EngineBroken { seed, life: life.get(), what })
}

/// Why a life ended early.
enum End {
    Broken(String),
    /// Damage was done, and reported: as good as it gets with one replica.
    Reported,
    /// The shard is gone; what was asked stays unanswered.
    Over,
}

type Step = Result<(), End>;

struct World {
    plant: Option<EnginePlant>,
    random: RefCell<ChaCha8Rng>,
    ledger: Ledger,
    oracle: Cell<u64>,
    /// No snapshot below it is read.
    horizon: Cell<u64>,
    life: Rc<Cell<u64>>,
    sequences: RefCell<[u64; CLIENTS as usize]>,
    /// Not answered: to be asked for, or repeated.
    open_writes: RefCell<Vec<(Write, Rc<Group>)>>,
    open_decisions: RefCell<Vec<(ChunkId, TransactionId, Rc<Group>)>>,
    /// What was seen at a snapshot stays what is seen at it.
    snapshots: RefCell<Vec<(ChunkId, u64, Seen)>>,
    /// The disk loses writes, puts them elsewhere and rots.
    lies: Cell<bool>,
    /// Stored bytes are not what was written any more.
    is_damaged: Cell<bool>,
    disk: RefCell<Option<SimulatedDisk>>,
    /// Writes or reads fail with EIO in this life.
    is_failing: Cell<bool>,
    summary: Cell<EngineSummary>,
}

impl World {
    fn new(seed: u64, plant: Option<EnginePlant>, life: Rc<Cell<u64>>) -> Rc<Self> {
        Rc::new(Self {
            plant,
            random: RefCell::new(ChaCha8Rng::seed_from_u64(seed)),
            ledger: Ledger::default(),
            oracle: Cell::new(10),
            horizon: Cell::new(0),
            life,
            sequences: RefCell::default(),
            open_writes: RefCell::default(),
            open_decisions: RefCell::default(),
            snapshots: RefCell::default(),
            lies: Cell::new(false),
            is_damaged: Cell::new(false),
            disk: RefCell::default(),
            is_failing: Cell::new(false),
            summary: Cell::default(),
        })
    }

    async fn run(self: Rc<Self>) -> Result<EngineSummary, String> {
        let lies = self.random(DAMAGE_ONE_IN) == 0;
        self.lies.set(self.plant.map_or(lies, |plant| plant.lie().is_some()));
        simulated::overlook(self.plant.and_then(EnginePlant::overlooked));
        let mut disk = SimulatedDisk::new(self.random(u64::MAX));
        if let Some(omission) = self.plant.and_then(EnginePlant::omission) {
            disk.plant(omission);
        }
        for life in 0..=LIVES {
            self.life.set(life);
            let lived = self.live(disk.clone(), life == LIVES).await;
            match lived {
                Ok(next) => disk = next,
                Err(End::Reported) => {
                    self.count(|summary| summary.reported += 1);
                    break;
                }
                Err(End::Broken(what)) => return Err(what),
                Err(End::Over) => return Err("the shard was gone while it should be there".to_owned()),
            }
        }
        Ok(self.summary.get())
    }

    /// Opens, checks, works until something ends it. Returns the disk as the next life finds it.
    async fn live(self: &Rc<Self>, disk: SimulatedDisk, is_last: bool) -> Result<SimulatedDisk, End> {
        self.count(|summary| summary.lives += 1);
        let (disk, shard, report) = self.open(disk).await?;
        let disk = &disk;
        let tail_is_lost = disk.misdeeds().iter().any(is_unseen_in_the_log);
        if self.is_damaged.get() && (report.cut.is_some() || tail_is_lost) {
            // Told apart from a torn last write by nobody; the report names it.
            return Err(End::Reported);
        }
        self.take_office(&shard).await?;
        for chunk in CHUNKS {
            self.check(&shard, chunk).await?;
        }
        self.settle(&shard).await?;
        if is_last {
            for chunk in CHUNKS {
                self.rewrite(&shard, chunk, 3).await?;
                self.check(&shard, chunk).await?;
            }
            shard.close().await;
            self.count(|summary| summary.digest = summary.digest.rotate_left(1) ^ u64::from(disk.digest()));
            return Ok(disk.clone());
        }
        self.arm(disk);
        let mut is_cut = self.work(&shard, disk).await?;
        let closes = !is_cut && self.random(8) == 0;
        if closes {
            // The power may still go while it closes.
            let closed = select(shard.close().boxed_local(), disk.power_lost().boxed_local()).await;
            is_cut = matches!(closed, Either::Right(_));
        } else {
            drop(shard);
        }
        disk.behave();
        self.count(|summary| summary.digest = summary.digest.rotate_left(1) ^ u64::from(disk.digest()));
        let next = if is_cut || self.random(2) == 0 { disk.crash() } else { disk.clone() };
        if self.does(Lie::Rot) && self.random(3) == 0 && next.rot(&directory()).is_some() {
            self.damage();
        }
        if !next.misdeeds().is_empty() {
            self.damage();
        }
        Ok(next)
    }

    /// Opens the shard. Before that the power may go while it opens, or a read fail; the start after it finds what the
    /// first one would have found.
    async fn open(&self, disk: SimulatedDisk) -> Result<(SimulatedDisk, Shard<SimulatedDisk>, RecoveryReport), End> {
        let mut disk = disk;
        for _ in 0..self.random(6).saturating_sub(3) {
            *self.disk.borrow_mut() = Some(disk.clone());
            if self.random(4) == 0 {
                disk.fail_read(1 + self.random(30));
            } else {
                disk.cut_power(1 + self.random(60));
            }
            disk = self.open_interrupted(&disk).await?;
        }
        self.is_failing.set(false);
        *self.disk.borrow_mut() = Some(disk.clone());
        let (shard, report) = Shard::open_on(disk.clone(), options()).await.map_err(|error| self.opening(&error))?;
        Ok((disk, shard, report))
    }

    /// Opens the shard and drops it; the disk as the next start finds it.
    async fn open_interrupted(&self, disk: &SimulatedDisk) -> Result<SimulatedDisk, End> {
        let opened = Shard::open_on(disk.clone(), options());
        match select(opened.boxed_local(), disk.power_lost().boxed_local()).await {
            Either::Left((Err(error), _)) if !is_failed_read(&error) => return Err(self.opening(&error)),
            Either::Left(_) => disk.behave(),
            Either::Right(_) => return Ok(disk.crash()),
        }
        Ok(disk.clone())
    }

    fn opening(&self, error: &EngineError) -> End {
        match error {
            EngineError::Corruption { .. } | EngineError::Foreign { .. } | EngineError::NewerFormat { .. }
                if self.is_damaged.get() =>
            {
                End::Reported
            }
            error => End::Broken(format!("the shard does not open: {error}")),
        }
    }

    async fn take_office(&self, shard: &Shard<SimulatedDisk>) -> Step {
        for chunk in CHUNKS {
            let sort = SortKey { segment_by: vec![ColumnId(2)], time: Some(ColumnId(1)) };
            let (epoch, max_read) = (self.epoch(), Ts(self.tick()));
            let spec = ChunkSpec { chunk, table: TableId(16_400), epoch, schema: ledger::schema(), sort, max_read };
            shard.open_chunk(spec).await.map_err(|refusal| self.refused("open", &refusal))?;
        }
        Ok(())
    }

    /// Repeats or asks for what was not answered in the life before.
    async fn settle(&self, shard: &Shard<SimulatedDisk>) -> Step {
        for (mut write, group) in self.open_writes.take() {
            if self.random(2) == 0 {
                continue;
            }
            write.epoch = self.epoch();
            if self.plant == Some(EnginePlant::RepeatUnderNewIdentity) {
                write.transaction = self.transaction(0);
            }
            match shard.write(write).await {
                Ok(_) => group.standing.set(Standing::Acknowledged),
                Err(refusal) => return Err(self.refused("repeat", &refusal)),
            }
        }
        for (chunk, transaction, group) in self.open_decisions.take() {
            let question = Question { chunk, epoch: self.epoch(), transaction, snapshot: Ts(0) };
            match shard.outcome(question).await.map_err(|refusal| self.refused("ask", &refusal))? {
                Answer::Committed { .. } => group.standing.set(Standing::Acknowledged),
                Answer::Aborted => group.standing.set(Standing::Absent),
                Answer::Undecided | Answer::Unknown => {
                    let decide = self.decision(chunk, transaction, false, 1, Ts(0));
                    shard.decide(decide).await.map_err(|refusal| self.refused("abort", &refusal))?;
                    group.standing.set(Standing::Absent);
                }
            }
        }
        Ok(())
    }

    /// What goes wrong in this life.
    fn arm(&self, disk: &SimulatedDisk) {
        let often = |one_in: u64| self.random(one_in) == 0;
        if self.random(10) < 7 {
            let reach = [60, 400, 2000][self.random(3) as usize];
            disk.cut_power(1 + self.random(reach));
        }
        if often(3) {
            disk.slow_down(1 + self.random(20));
        }
        if often(8) {
            disk.fail_sync(1 + self.random(60));
        }
        if often(8) {
            disk.fail_write(1 + self.random(100));
            self.is_failing.set(true);
        }
        if often(8) {
            disk.fail_read(1 + self.random(200));
            self.is_failing.set(true);
        }
        if often(6) {
            disk.limit_space(Some(self.random(300_000)));
        }
        if self.does(Lie::Loss) && often(2) {
            disk.lose_write(1 + self.random(80));
        }
        if self.does(Lie::Misdirection) && often(2) {
            disk.misdirect_write(1 + self.random(80));
        }
    }

    /// Runs the clients until they are done or the shard is. True when the power went.
    async fn work(self: &Rc<Self>, shard: &Shard<SimulatedDisk>, disk: &SimulatedDisk) -> Result<bool, End> {
        let queue = Queue::Simulated;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (world, shard, disk) = (Rc::clone(self), shard.clone(), disk.clone());
                queue.spawn(async move { world.client(client, &shard, &disk).await })
            })
            .collect();
        let done = join_all(clients);
        let gone = async { drop(select(disk.power_lost().boxed_local(), shard.failed().boxed_local()).await) };
        let late = executor::sleep(LIFE_MAX);
        pin_mut!(done, gone, late);
        match select(select(done, gone), late).await {
            Either::Left((Either::Left((ended, _)), _)) => {
                for end in ended {
                    match end {
                        Ok(()) | Err(End::Over) => {}
                        Err(end) => return Err(end),
                    }
                }
                Ok(false)
            }
            Either::Left((Either::Right(_), _)) => {
                let is_cut = disk.power_lost().now_or_never().is_some();
                self.count(|summary| summary.power_cuts += u64::from(is_cut));
                Ok(is_cut)
            }
            Either::Right(_) => Err(End::Broken("a life without an end: somebody waits for nothing".to_owned())),
        }
    }

    async fn client(&self, client: u64, shard: &Shard<SimulatedDisk>, disk: &SimulatedDisk) -> Step {
        for step in 0..CLIENT_STEPS {
            let chunk = CHUNKS[usize::from(self.random(4) == 0)];
            match self.random(20) {
                0..=7 => self.write(client, shard, chunk).await?,
                8..=10 => self.transact(client, shard, chunk).await?,
                11..=12 => drop(shard.flush().await),
                13..=14 => self.check(shard, chunk).await?,
                15 => self.check_again(shard).await?,
                16..=18 => {
                    let how = self.random(5);
                    self.rewrite(shard, chunk, how).await?;
                }
                19 if self.random(3) == 0 => self.raise_horizon(shard),
                _ => executor::sleep(Duration::from_millis(self.random(3000))).await,
            }
            if client == 0 && step == CLIENT_STEPS / 2 {
                disk.limit_space(None);
            }
            if self.does(Lie::Rot) && self.random(100) == 0 && disk.rot(&directory()).is_some() {
                self.damage();
            }
        }
        Ok(())
    }

    async fn write(&self, client: u64, shard: &Shard<SimulatedDisk>, chunk: ChunkId) -> Step {
        let count = 1 + self.random(60) as i64;
        let group = self.ledger.begin(chunk, count, Standing::Flying);
        let write = self.piece(chunk, self.transaction(client), 0, WriteMode::OnePhase, group.first, count);
        // Noted before it is sent: the power may go at any moment.
        self.open_writes.borrow_mut().push((write.clone(), Rc::clone(&group)));
        match shard.write(write).await {
            Ok(written) if written.row_count == count as u64 => {
                group.standing.set(Standing::Acknowledged);
                self.count(|summary| summary.acknowledged += 1);
            }
            Ok(written) => return Err(End::Broken(format!("{} of {count} rows written", written.row_count))),
            Err(Refusal::OutcomeUnknown(_)) => {
                group.standing.set(Standing::Unknown);
                return Err(End::Over);
            }
            Err(refusal) => {
                group.standing.set(Standing::Absent);
                self.count(|summary| summary.refused += 1);
                self.over(&refusal, "write")?;
            }
        }
        self.open_writes.borrow_mut().retain(|(_, open)| !Rc::ptr_eq(open, &group));
        Ok(())
    }

    /// A transaction whose decision the chunk holds itself.
    async fn transact(&self, client: u64, shard: &Shard<SimulatedDisk>, chunk: ChunkId) -> Step {
        let pieces = 1 + self.random(3) as u32;
        let piece_rows = 1 + self.random(40) as i64;
        let transaction = self.transaction(client);
        let group = self.ledger.begin(chunk, i64::from(pieces) * piece_rows, Standing::Absent);
        let mut max_read = Ts(0);
        for piece in 0..pieces {
            let first = group.first + i64::from(piece) * piece_rows;
            let write = self.piece(chunk, transaction, piece, WriteMode::Stage { holder: chunk }, first, piece_rows);
            match shard.write(write).await {
                Ok(written) => max_read = max_read.max(written.max_read),
                Err(refusal) => return self.over(&refusal, "stage"),
            }
        }
        if self.random(6) == 0 {
            // Its client went away; it stays undecided.
            return Ok(());
        }
        let commit = self.random(5) > 0;
        if commit {
            group.standing.set(Standing::Flying);
            self.open_decisions.borrow_mut().push((chunk, transaction, Rc::clone(&group)));
        }
        match shard.decide(self.decision(chunk, transaction, commit, pieces, max_read)).await {
            Ok(Decision::Committed(_)) if commit => {
                group.standing.set(Standing::Acknowledged);
                self.count(|summary| summary.acknowledged += 1);
            }
            Ok(Decision::Aborted) if !commit => {}
            Ok(decision) => return Err(End::Broken(format!("commit {commit} became {decision:?}"))),
            Err(Refusal::OutcomeUnknown(_)) => {
                return Err(End::Over);
            }
            Err(refusal) => {
                group.standing.set(Standing::Absent);
                self.over(&refusal, "decide")?;
            }
        }
        self.open_decisions.borrow_mut().retain(|(.., open)| !Rc::ptr_eq(open, &group));
        Ok(())
    }

    async fn rewrite(&self, shard: &Shard<SimulatedDisk>, chunk: ChunkId, how: u64) -> Step {
        let by_row = OrderBy { column: 2, descending: true, nulls_first: false };
        let done = match how {
            0 => shard.compact().await.map(drop).map_err(Refusal::from),
            1 => shard.decompress(chunk, self.epoch()).await.map(drop),
            2 => {
                let order = CompressionOrder { segment_by: vec![], order_by: vec![by_row] };
                shard.compress(chunk, self.epoch(), order).await.map(drop)
            }
            _ => {
                let order = CompressionOrder { segment_by: vec![1], order_by: vec![] };
                shard.compress(chunk, self.epoch(), order).await.map(drop)
            }
        };
        match done {
            Ok(()) => {
                self.count(|summary| summary.rewrites += 1);
                Ok(())
            }
            Err(refusal) => self.over(&refusal, "rewrite"),
        }
    }

    /// Snapshots below are read no more; rewrites may drop what tells versions apart.
    fn raise_horizon(&self, shard: &Shard<SimulatedDisk>) {
        let horizon = self.oracle.get().saturating_sub(self.random(30)).max(self.horizon.get());
        self.horizon.set(horizon);
        self.snapshots.borrow_mut().retain(|(_, snapshot, _)| *snapshot >= horizon);
        shard.raise_history_horizon(Ts(horizon));
    }

    /// Reads the chunk at a new snapshot.
    async fn check(&self, shard: &Shard<SimulatedDisk>, chunk: ChunkId) -> Step {
        let snapshot = self.tick();
        let before = self.ledger.standings(chunk);
        let Some(seen) = self.scan(shard, chunk, snapshot).await? else { return Ok(()) };
        self.count(|summary| summary.scans += 1);
        self.ledger.check(&before, chunk, &seen).map_err(End::Broken)?;
        let mut snapshots = self.snapshots.borrow_mut();
        if snapshots.len() >= 4 {
            let oldest = self.random(4) as usize;
            snapshots.remove(oldest);
        }
        snapshots.push((chunk, snapshot, seen));
        Ok(())
    }

    /// Reads at a snapshot that was read at before.
    async fn check_again(&self, shard: &Shard<SimulatedDisk>) -> Step {
        let count = self.snapshots.borrow().len() as u64;
        if count == 0 {
            return Ok(());
        }
        let (chunk, snapshot, expected) = self.snapshots.borrow()[self.random(count) as usize].clone();
        match self.scan(shard, chunk, snapshot).await? {
            Some(seen) if seen != expected => {
                let (was, is) = (expected.len(), seen.len());
                Err(End::Broken(format!("snapshot {snapshot} of chunk {chunk} had {was} rows and now has {is}")))
            }
            _ => Ok(()),
        }
    }

    /// All rows that are seen; `None` when the scan was refused for want of something.
    async fn scan(&self, shard: &Shard<SimulatedDisk>, chunk: ChunkId, snapshot: u64) -> Result<Option<Seen>, End> {
        let epoch = self.epoch();
        if let Err(refusal) = shard.begin_read(chunk, epoch, Ts(snapshot)).await {
            return self.over(&refusal, "read").map(|()| None);
        }
        let scan = Scan {
            chunk,
            epoch,
            snapshot: Ts(snapshot),
            columns: vec![0, 1, 2, 3],
            bounds: Vec::new(),
            any_of: Vec::new(),
            own: None,
            resolved: Vec::new(),
            batch_rows: 100,
        };
        let mut stream = match shard.scan(scan) {
            Ok(stream) => stream,
            Err(refusal) => return self.over(&refusal, "scan").map(|()| None),
        };
        let mut seen = Seen::new();
        while let Some(batch) = stream.next().await {
            match batch {
                Ok(batch) => seen.extend(ledger::read(&batch).map_err(End::Broken)?),
                Err(refusal) => return self.over(&refusal, "scan").map(|()| None),
            }
        }
        seen.sort_unstable();
        Ok(Some(seen))
    }

    /// Whether a refusal is one to expect: goes on, or ends the life.
    fn over(&self, refusal: &Refusal, what: &str) -> Step {
        match refusal {
            Refusal::DiskFull(_) | Refusal::Memory(_) | Refusal::Overloaded(_) => Ok(()),
            Refusal::Snapshot { snapshot, .. } if snapshot.0 < self.horizon.get() => Ok(()),
            // A sector that cannot be read or written is reported as damage, too.
            Refusal::Corruption(what) if self.is_failing.get() && what.contains("os error 5") => Ok(()),
            Refusal::Unavailable(_) | Refusal::OutcomeUnknown(_) => Err(End::Over),
            refusal => Err(self.refused(what, refusal)),
        }
    }

    fn refused(&self, what: &str, refusal: &Refusal) -> End {
        match refusal {
            Refusal::Corruption(_) if self.is_damaged_now() => End::Reported,
            refusal => End::Broken(format!("{what} was refused: {refusal}")),
        }
    }

    fn does(&self, lie: Lie) -> bool {
        self.lies.get() && self.plant.and_then(EnginePlant::lie).is_none_or(|only| only == lie)
    }

    fn is_damaged_now(&self) -> bool {
        let has_lied = self.disk.borrow().as_ref().is_some_and(|disk| !disk.misdeeds().is_empty());
        self.is_damaged.get() || has_lied
    }

    fn damage(&self) {
        if !self.is_damaged.replace(true) {
            self.count(|summary| summary.damaged += 1);
        }
    }

    fn piece(
        &self,
        chunk: ChunkId,
        transaction: TransactionId,
        piece: u32,
        mode: WriteMode,
        first: i64,
        count: i64,
    ) -> Write {
        Write {
            chunk,
            epoch: self.epoch(),
            transaction,
            low_water: Sequence(0),
            piece,
            command: CommandId(piece),
            snapshot: Ts(self.tick()),
            schema_version: SchemaVersion(1),
            mode,
            rows: encode_rows(&ledger::rows(first, count)).expect("rows of the schema"),
        }
    }

    fn decision(&self, chunk: ChunkId, transaction: TransactionId, commit: bool, pieces: u32, max_read: Ts) -> Decide {
        Decide { chunk, epoch: self.epoch(), transaction, commit, max_read, participants: vec![chunk], pieces }
    }

    fn transaction(&self, client: u64) -> TransactionId {
        let sequence = &mut self.sequences.borrow_mut()[client as usize];
        *sequence += 1;
        TransactionId { producer: ProducerId(client + 1), sequence: Sequence(*sequence) }
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.life.get() + 1)
    }

    /// A new timestamp of the oracle.
    fn tick(&self) -> u64 {
        self.oracle.set(self.oracle.get() + 1);
        self.oracle.get()
    }

    fn random(&self, below: u64) -> u64 {
        self.random.borrow_mut().random_range(0..below)
    }

    fn count(&self, change: impl FnOnce(&mut EngineSummary)) {
        let mut summary = self.summary.get();
        change(&mut summary);
        self.summary.set(summary);
    }
}

/// Whether a misdeed to the log can look like a log that ended before: no later record says that there was more.
fn is_unseen_in_the_log(misdeed: &Misdeed) -> bool {
    let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "wal");
    let target = misdeed.target.as_ref().map(|(path, _)| path.as_path());
    misdeed.later_log_writes == 0 && (is_log(&misdeed.path) || target.is_some_and(is_log))
}

fn is_failed_read(error: &EngineError) -> bool {
    matches!(error, EngineError::Disk(DiskError::Io { operation: "read", .. }))
}

pub(crate) fn directory() -> PathBuf {
    PathBuf::from("/data/shard0")
}

/// Small everything, so that all of it happens often.
pub(crate) fn options() -> ShardOptions {
    ShardOptions {
        wal_file_bytes: 32 << 10,
        memtable_bytes_max: 64 << 10,
        staged_bytes_max: 8 << 10,
        compaction: CompactionLimits { overlap_max: 3, small_count: 4, ..CompactionLimits::default() },
        rewrite_bytes_max: 64 << 10,
        open_files_max: 2,
        ..ShardOptions::new(ShardId(0), directory(), ClusterId(9), NodeId(2))
    }
}
