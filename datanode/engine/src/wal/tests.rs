//! The WAL on the simulated disk: crashes, rot, recycling; and once on the real one.

use std::path::{Path, PathBuf};

use meridian_proto::{ChunkId, ClusterId, Epoch, Lsn, NodeId, ProducerId, Sequence, ShardId, TransactionId, Ts};

use super::*;
use crate::disk::{BLOCK_BYTES, GlommioDisk, SimulatedDisk};
use crate::pace::executor::{Queue, simulate};
use crate::record::Body;
use crate::testing::run;

fn options(directory: &Path) -> WalOptions {
    let owner = Owner { cluster: ClusterId(7), node: NodeId(3), shard: ShardId(1) };
    WalOptions { directory: directory.to_owned(), owner, file_bytes: 64 << 10 }
}

fn directory() -> PathBuf {
    PathBuf::from("/shard/wal")
}

/// A record whose bytes tell its number; `size` participants of 8 bytes make it longer.
fn entry(lsn: u64, size: usize) -> WalEntry {
    let transaction = TransactionId { producer: ProducerId(lsn), sequence: Sequence(1) };
    let participants = vec![ChunkId(lsn); size];
    let body =
        Body::Decision(crate::record::DecisionBody { transaction, commit: Some(Ts(lsn)), row_count: 0, participants });
    WalEntry { record: LogRecord { chunk: ChunkId(1), epoch: Epoch(1), lsn: Lsn(lsn), body }, rows: Bytes::new() }
}

async fn open<D: Disk>(disk: &D, directory: &Path) -> Result<(Wal<D>, Vec<u64>, WalReport), EngineError> {
    let mut found = Vec::new();
    let (wal, report) = Wal::open(disk, &options(directory), |_, entry| {
        found.push(entry.record.lsn.0);
        Ok(())
    })
    .await?;
    Ok((wal, found, report))
}

async fn filled(disk: &SimulatedDisk, records: u64, size: usize) -> Wal<SimulatedDisk> {
    let (wal, ..) = open(disk, &directory()).await.unwrap();
    for lsn in 1..=records {
        wal.commit(&[entry(lsn, size)]).await.unwrap();
    }
    wal
}

fn name(sequence: u64) -> PathBuf {
    directory().join(layout::wal_name(sequence))
}

fn up_to(last: u64) -> Vec<u64> {
    (1..=last).collect()
}

#[test]
fn committed_records_survive_a_crash_in_order_over_several_files() {
    run(async {
        let disk = SimulatedDisk::new(1);
        filled(&disk, 60, 300).await;
        let after = disk.crash();
        let (wal, found, report) = open(&after, &directory()).await.unwrap();
        assert_eq!(found, up_to(60));
        assert!(report.file_count >= 4, "{report:?}");
        assert_eq!(report.cut, None);
        wal.commit(&[entry(61, 3), entry(62, 3)]).await.unwrap();
        assert_eq!(open(&after.crash(), &directory()).await.unwrap().1, up_to(62));
    });
}

#[test]
fn on_a_real_disk_records_are_read_back() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let disk = GlommioDisk::open(folder.path()).await.unwrap();
        let directory = folder.path().join("wal");
        let (wal, ..) = open(&disk, &directory).await.unwrap();
        for lsn in 1..=40 {
            wal.commit(&[entry(lsn, 300)]).await.unwrap();
        }
        drop(wal);
        assert_eq!(open(&disk, &directory).await.unwrap().1, up_to(40));
    });
}

#[test]
fn a_torn_batch_is_cut_and_its_place_used_again() {
    run(async {
        let mut cuts = 0;
        for seed in 0..60 {
            let disk = SimulatedDisk::new(seed);
            let wal = filled(&disk, 3, 300).await;
            disk.fail_sync(1);
            let batch: Vec<_> = (4..=9).map(|lsn| entry(lsn, 200)).collect();
            assert!(wal.commit(&batch).await.is_err());
            let after = disk.crash();
            let (wal, found, report) = open(&after, &directory()).await.unwrap();
            assert!(found == up_to(3) || found == up_to(9), "seed {seed}: {found:?}");
            cuts += usize::from(report.cut.is_some());
            let next = found.len() as u64 + 1;
            // Shorter and longer than what was cut.
            wal.commit(&[entry(next, (seed as usize % 8) * 100)]).await.unwrap();
            wal.commit(&[entry(next + 1, 10)]).await.unwrap();
            let (_, found, report) = open(&after.crash(), &directory()).await.unwrap();
            assert_eq!((found, report.cut), (up_to(next + 1), None), "seed {seed}");
        }
        assert!(cuts > 5, "{cuts}");
    });
}

#[test]
fn a_flipped_bit_before_the_end_is_damage_with_file_and_position() {
    run(async {
        let disk = SimulatedDisk::new(5);
        filled(&disk, 40, 300).await;
        for (file, block, bit) in [(1, 1, 3), (1, 2, 0), (1, 4, 7), (2, 1, 1), (2, 6, 5)] {
            let damaged = disk.crash();
            let position = (block * BLOCK_BYTES + 1000) as u64;
            damaged.flip_bit(&name(file), position, bit);
            let Err(EngineError::Corruption { path, position: found, .. }) = open(&damaged, &directory()).await else {
                panic!("file {file}, block {block}: not noticed");
            };
            assert_eq!(path, name(file));
            assert!(found <= position && position - found <= 1000, "{found} is not the record that holds {position}");
        }
    });
}

#[test]
fn no_flipped_bit_loses_a_record_before_the_last_batch() {
    run(async {
        let disk = SimulatedDisk::new(6);
        filled(&disk, 6, 100).await;
        let bytes = disk.bytes(&name(1)).unwrap().len();
        for position in (0..bytes as u64).step_by(97) {
            let damaged = disk.crash();
            damaged.flip_bit(&name(1), position, (position % 8) as u8);
            match open(&damaged, &directory()).await {
                Ok((_, found, _)) => assert!(found == up_to(6) || found == up_to(5), "{position}: {found:?}"),
                Err(EngineError::Corruption { path, .. }) => assert_eq!(path, name(1)),
                Err(other) => panic!("{position}: {other}"),
            }
        }
    });
}

#[test]
fn after_a_mark_a_rotten_last_batch_is_damage() {
    run(async {
        let disk = SimulatedDisk::new(7);
        filled(&disk, 3, 10).await.mark().await.unwrap();
        disk.flip_bit(&name(1), 3 * BLOCK_BYTES as u64 + 100, 2);
        assert!(matches!(open(&disk.crash(), &directory()).await, Err(EngineError::Corruption { .. })));
    });
}

#[test]
fn a_damaged_header_of_a_file_with_records_is_damage() {
    run(async {
        let disk = SimulatedDisk::new(8);
        filled(&disk, 3, 10).await;
        disk.flip_bit(&name(1), 20, 2);
        assert!(matches!(open(&disk.crash(), &directory()).await, Err(EngineError::Corruption { position: 0, .. })));
    });
}

#[test]
fn a_missing_file_in_the_middle_is_damage() {
    run(async {
        let disk = SimulatedDisk::new(9);
        filled(&disk, 60, 300).await;
        disk.remove(&name(2)).await.unwrap();
        let error = open(&disk, &directory()).await.map(drop).unwrap_err();
        assert!(matches!(error, EngineError::Corruption { .. }), "{error}");
    });
}

#[test]
fn a_recycled_file_does_not_bring_old_records_back() {
    run(async {
        for seed in 0..20 {
            let disk = SimulatedDisk::new(seed);
            let wal = filled(&disk, 100, 300).await;
            let oldest = wal.oldest().unwrap();
            // As if everything up to record 90 or so were flushed.
            let mut released = oldest;
            for lsn in 101..=160 {
                let sequence = wal.commit(&[entry(lsn, 300 + (lsn as usize * 37) % 90)]).await.unwrap();
                if sequence > released + 1 {
                    released = sequence - 1;
                    wal.release_before(released).await.unwrap();
                }
            }
            assert!(wal.bytes() <= 4 * (64 << 10), "{}", wal.bytes());
            let (_, found, _) = open(&disk.crash(), &directory()).await.unwrap();
            let first = found[0];
            assert!(first > 100, "{first}");
            assert_eq!(found, (first..=160).collect::<Vec<_>>(), "seed {seed}");
        }
    });
}

#[test]
fn a_batch_longer_than_a_file_is_kept() {
    run(async {
        let disk = SimulatedDisk::new(11);
        let wal = filled(&disk, 2, 10).await;
        wal.commit(&[entry(3, 20_000)]).await.unwrap();
        wal.commit(&[entry(4, 10)]).await.unwrap();
        assert_eq!(open(&disk.crash(), &directory()).await.unwrap().1, up_to(4));
    });
}

#[test]
fn without_space_for_a_new_file_nothing_is_written_and_later_it_goes_on() {
    run(async {
        let disk = SimulatedDisk::new(12);
        let wal = filled(&disk, 1, 10).await;
        disk.limit_space(Some(1000));
        let mut lsn = 2;
        let error = loop {
            match wal.commit(&[entry(lsn, 1000)]).await {
                Ok(_) => lsn += 1,
                Err(error) => break error,
            }
        };
        assert!(error.is_disk_full(), "{error}");
        assert!(wal.commit(&[entry(lsn, 1000)]).await.unwrap_err().is_disk_full());
        disk.limit_space(None);
        wal.commit(&[entry(lsn, 1000)]).await.unwrap();
        assert_eq!(open(&disk.crash(), &directory()).await.unwrap().1, up_to(lsn));
    });
}

#[test]
fn the_log_of_someone_else_is_refused_and_not_touched() {
    run(async {
        let disk = SimulatedDisk::new(13);
        filled(&disk, 3, 10).await;
        let mut foreign = options(&directory());
        foreign.owner.node = NodeId(4);
        let before = disk.bytes(&name(1));
        let error = Wal::open(&disk, &foreign, |_, _| Ok(())).await.map(drop).unwrap_err();
        assert!(matches!(error, EngineError::Foreign { .. }), "{error}");
        assert_eq!(disk.bytes(&name(1)), before);
    });
}

#[test]
fn a_file_that_fills_up_while_others_are_let_go_stays() {
    for seed in 0..50 {
        simulate(seed, async {
            let disk = SimulatedDisk::new(seed);
            let wal = Rc::new(filled(&disk, 30, 300).await);
            disk.slow_down(2);
            let releasing = Rc::clone(&wal);
            let release = Queue::Simulated.spawn(async move {
                // Nothing is needed as of now, but what comes from now on goes here.
                let active = releasing.active.borrow().as_ref().unwrap().sequence;
                releasing.release_before(u64::MAX).await.unwrap();
                active
            });
            for lsn in 31..=90 {
                wal.commit(&[entry(lsn, 300)]).await.unwrap();
            }
            let (active, oldest) = (release.await, wal.oldest().unwrap());
            assert!(oldest <= active, "seed {seed}: file {active} has records that nobody let go of");
        });
    }
}
