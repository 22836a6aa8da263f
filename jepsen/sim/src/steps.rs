//! One act of a shard at a time: the power goes at every single operation of the disk while it opens and then flushes,
//! compacts, compresses, decompresses or removes a chunk, and now and then again while it opens after that. The next start
//! finds exactly the state before the act or the one after it, with every row, and no file that belongs to neither.

use std::iter::Sum;
use std::path::Path;

use futures::FutureExt;
use futures::future::{Either, select};
use meridian_engine::disk::simulated::Omission;
use meridian_engine::pace::executor::simulate;
use meridian_engine::{
    ChunkSizes, ChunkSpec, CompactionLimits, CompressionOrder, Scan, Shard, ShardOptions, SimulatedDisk, SortKey,
    Write, WriteMode,
};
use meridian_proto::rows::encode_rows;
use meridian_proto::{
    ChunkId, ColumnId, CommandId, Epoch, ProducerId, Refusal, SchemaVersion, Sequence, TableId, TransactionId, Ts,
};

use crate::engine::{EnginePlant, directory, options};
use crate::ledger;

const CHUNK: ChunkId = ChunkId(7);
/// Above every commit timestamp.
const SNAPSHOT: Ts = Ts(1000);
const WRITE_ROWS: i64 = 60;
/// Of a start, about: where the second cut of power falls.
const OPEN_OPERATIONS: u64 = 30;

/// What is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Rows and a stage in memory become segments beside one that is there.
    Flush,
    Compact,
    Compress,
    /// Of a compressed chunk to which rows came.
    Recompress,
    Decompress,
    Remove,
}

pub const ACTS: [Act; 6] = [Act::Flush, Act::Compact, Act::Compress, Act::Recompress, Act::Decompress, Act::Remove];

/// What was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepsSummary {
    /// Operations at which the power went.
    pub cuts: u64,
    /// After which the act was not done, or was.
    pub found_before: u64,
    pub found_after: u64,
}

impl Sum for StepsSummary {
    fn sum<I: Iterator<Item = Self>>(summaries: I) -> Self {
        summaries.fold(Self::default(), |all, one| Self {
            cuts: all.cuts + one.cuts,
            found_before: all.found_before + one.found_before,
            found_after: all.found_after + one.found_after,
        })
    }
}

/// What a start finds of the chunk; `None` when it is not there.
type Found = Option<ChunkSizes>;

/// Every operation of the act, once. A bug is planted after the chunk was prepared.
pub fn run(act: Act, seed: u64, plant: Option<EnginePlant>) -> Result<StepsSummary, String> {
    simulate(seed, async {
        let base = prepared(act, seed).await.map_err(|refusal| format!("{act:?} is not prepared: {refusal}"))?;
        let omission = plant.and_then(EnginePlant::omission);
        let disk = base.crash();
        let before = found(&disk, act, Epoch(2)).await?;
        let disk = base.crash();
        perform(&disk, act, Epoch(2)).await.map_err(|refusal| format!("{act:?} is refused: {refusal}"))?;
        let operations = disk.operations();
        let after = found(&disk.crash(), act, Epoch(3)).await?;
        if before == after {
            return Err(format!("{act:?} changes nothing"));
        }
        let mut summary = StepsSummary::default();
        // With one more than there are, it is done before the power goes.
        for cut in 1..=operations + 1 {
            let what = |what: String| format!("{act:?} cut at operation {cut} of {operations}: {what}");
            let (disk, was_done) = interrupted(&base, act, cut, omission).await.map_err(what)?;
            let is_done = check(&disk, act, &before, &after).await.map_err(what)?;
            if was_done && !is_done {
                return Err(what("it was done and is undone".to_owned()));
            }
            summary.cuts += 1;
            summary.found_before += u64::from(!is_done);
            summary.found_after += u64::from(is_done);
        }
        Ok(summary)
    })
}

/// A disk on which the act can be done, all of it synced.
async fn prepared(act: Act, seed: u64) -> Result<SimulatedDisk, Refusal> {
    let disk = SimulatedDisk::new(seed);
    let shard = open(&disk, Epoch(1), false).await?;
    let flushes = if act == Act::Flush { 1 } else { 5 };
    for number in 0..flushes {
        write(&shard, number, WriteMode::OnePhase).await?;
        shard.flush().await?;
    }
    match act {
        Act::Flush => {
            write(&shard, flushes, WriteMode::OnePhase).await?;
            write(&shard, flushes + 1, WriteMode::Stage { holder: CHUNK }).await?;
        }
        Act::Recompress => {
            shard.compress(CHUNK, Epoch(1), CompressionOrder::default()).await?;
            write(&shard, flushes, WriteMode::OnePhase).await?;
            shard.flush().await?;
        }
        Act::Decompress => shard.compress(CHUNK, Epoch(1), CompressionOrder::default()).await.map(drop)?,
        Act::Compact | Act::Compress | Act::Remove => {}
    }
    shard.close().await;
    Ok(disk)
}

/// Rows that can be seen once the disk is prepared.
fn rows_expected(act: Act) -> Vec<i64> {
    let writes = match act {
        Act::Flush => 2,
        Act::Recompress => 6,
        Act::Compact | Act::Compress | Act::Decompress | Act::Remove => 5,
    };
    (0..writes * WRITE_ROWS).collect()
}

/// The disk after the power went at that operation of opening and acting, and whether the act was done by then.
async fn interrupted(
    base: &SimulatedDisk,
    act: Act,
    cut: u64,
    omission: Option<Omission>,
) -> Result<(SimulatedDisk, bool), String> {
    let disk = base.crash();
    if let Some(omission) = omission {
        disk.plant(omission);
    }
    disk.cut_power(cut);
    let performed = perform(&disk, act, Epoch(2));
    let ended = select(performed.boxed_local(), disk.power_lost().boxed_local()).await;
    match ended {
        Either::Left((Ok(()), _)) => Ok((disk.crash(), true)),
        Either::Left((Err(refusal), _)) => Err(format!("refused: {refusal}")),
        Either::Right(_) => Ok((disk.crash(), false)),
    }
}

/// Looks at what is there, then does the act to its end. True when it was done before.
async fn check(disk: &SimulatedDisk, act: Act, before: &Found, after: &Found) -> Result<bool, String> {
    let mut disk = disk.clone();
    if disk.digest().is_multiple_of(2) {
        // The power goes again while it opens.
        disk.cut_power(1 + u64::from(disk.digest()) / 2 % OPEN_OPERATIONS);
        let opened = Shard::open_on(disk.clone(), plain_options());
        drop(select(opened.boxed_local(), disk.power_lost().boxed_local()).await);
        disk = disk.crash();
    }
    let now = found(&disk, act, Epoch(3)).await?;
    if now != *before && now != *after {
        return Err(format!("neither {before:?} nor {after:?} was found, but {now:?}"));
    }
    let is_done = now == *after;
    if !is_done {
        perform(&disk, act, Epoch(4)).await.map_err(|refusal| format!("refused afterwards: {refusal}"))?;
        let now = found(&disk.crash(), act, Epoch(5)).await?;
        if now != *after {
            return Err(format!("done again it gives not {after:?}, but {now:?}"));
        }
    }
    Ok(is_done)
}

/// Opens, and does the act.
async fn perform(disk: &SimulatedDisk, act: Act, epoch: Epoch) -> Result<(), Refusal> {
    let shard = open(disk, epoch, act == Act::Compact).await?;
    match act {
        Act::Flush => shard.flush().await?,
        Act::Compact => shard.compact().await.map(drop)?,
        Act::Compress | Act::Recompress => {
            shard.compress(CHUNK, epoch, CompressionOrder::default()).await.map(drop)?;
        }
        Act::Decompress => shard.decompress(CHUNK, epoch).await.map(drop)?,
        Act::Remove => shard.remove_chunk(CHUNK).await?,
    }
    shard.close().await;
    Ok(())
}

/// What a start finds, after a look at every row and file.
async fn found(disk: &SimulatedDisk, act: Act, epoch: Epoch) -> Result<Found, String> {
    let opened = Shard::open_on(disk.clone(), plain_options()).await;
    let (shard, _) = opened.map_err(|error| format!("the shard does not open: {error}"))?;
    let Some(sizes) = shard.chunk_sizes(CHUNK) else {
        let left = files(disk);
        return if left.is_empty() { Ok(None) } else { Err(format!("{left:?} are left of a removed chunk")) };
    };
    let named = |name: &String| name.ends_with(".seg") || name == "MANIFEST";
    let files = files(disk);
    let segments = files.iter().filter(|name| name.ends_with(".seg")).count() as u64;
    if segments != sizes.segments || !files.iter().all(named) {
        return Err(format!("{} segments, but these files: {files:?}", sizes.segments));
    }
    take_office(&shard, epoch).await.map_err(|refusal| refusal.to_string())?;
    let rows = scanned(&shard, epoch).await?;
    if rows != rows_expected(act) {
        return Err(format!("{} rows instead of {}", rows.len(), rows_expected(act).len()));
    }
    shard.close().await;
    Ok(Some(sizes))
}

fn files(disk: &SimulatedDisk) -> Vec<String> {
    let folder = directory().join("chunks").join(CHUNK.to_string());
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    disk.files(&folder).iter().filter_map(|path| name(path)).collect()
}

async fn open(disk: &SimulatedDisk, epoch: Epoch, compacts: bool) -> Result<Shard<SimulatedDisk>, Refusal> {
    let options = if compacts { options() } else { plain_options() };
    let (shard, _) = Shard::open_on(disk.clone(), options).await?;
    take_office(&shard, epoch).await?;
    Ok(shard)
}

/// Nothing is compacted by itself.
fn plain_options() -> ShardOptions {
    let never = CompactionLimits { overlap_max: usize::MAX, small_count: usize::MAX, ..CompactionLimits::default() };
    ShardOptions { compaction: never, ..options() }
}

async fn take_office(shard: &Shard<SimulatedDisk>, epoch: Epoch) -> Result<(), Refusal> {
    let sort = SortKey { segment_by: vec![ColumnId(2)], time: Some(ColumnId(1)) };
    let (table, schema, max_read) = (TableId(16_400), ledger::schema(), Ts(10));
    shard.open_chunk(ChunkSpec { chunk: CHUNK, table, epoch, schema, sort, max_read }).await
}

async fn write(shard: &Shard<SimulatedDisk>, number: i64, mode: WriteMode) -> Result<(), Refusal> {
    let rows = ledger::rows(number * WRITE_ROWS, WRITE_ROWS);
    let write = Write {
        chunk: CHUNK,
        epoch: Epoch(1),
        transaction: TransactionId { producer: ProducerId(1), sequence: Sequence(number as u64 + 1) },
        low_water: Sequence(0),
        piece: 0,
        command: CommandId(0),
        snapshot: Ts(1),
        schema_version: SchemaVersion(1),
        mode,
        rows: encode_rows(&rows).expect("rows of the schema"),
    };
    shard.write(write).await.map(drop)
}

async fn scanned(shard: &Shard<SimulatedDisk>, epoch: Epoch) -> Result<Vec<i64>, String> {
    shard.begin_read(CHUNK, epoch, SNAPSHOT).await.map_err(|refusal| refusal.to_string())?;
    let scan = Scan {
        chunk: CHUNK,
        epoch,
        snapshot: SNAPSHOT,
        columns: vec![0, 1, 2, 3],
        bounds: Vec::new(),
        any_of: Vec::new(),
        own: None,
        resolved: Vec::new(),
        batch_rows: 1000,
    };
    let mut stream = shard.scan(scan).map_err(|refusal| refusal.to_string())?;
    let mut rows = Vec::new();
    while let Some(batch) = stream.next().await {
        rows.extend(ledger::read(&batch.map_err(|refusal| refusal.to_string())?)?);
    }
    rows.sort_unstable();
    Ok(rows)
}
