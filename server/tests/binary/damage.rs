//! Bits that flipped, and tails that were never written. Damage is reported with file and position, never returned as
//! data, never a panic; a torn tail is cut.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::common::{Node, changes, error_of, snapshot, sqlstate_of};

/// Files below `folder` whose path contains `part`, by path.
fn files(folder: &Path, part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().contains(part) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn flip_bit(path: &Path, offset: u64) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut byte).unwrap();
    byte[0] ^= 0x10;
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&byte).unwrap();
    file.sync_all().unwrap();
}

/// Bytes up to the last one that is not zero: log files are written ahead of their use.
fn used_bytes(path: &Path) -> u64 {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |position| position as u64 + 1)
}

async fn write_rows(node: &Node, statements: usize) {
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (time timestamptz NOT NULL, id bigint, note text)").await;
    sql.run("SELECT create_hypertable('t', 'time')").await;
    for statement in 0..statements {
        let lines: String = (0..2_000)
            .map(|row| {
                format!("2024-01-01 00:{:02}:{:02}Z,{},note {row}\n", row / 60 % 60, row % 60, statement * 2_000 + row)
            })
            .collect();
        sql.copy("COPY t FROM STDIN WITH (FORMAT csv)", &lines).await.unwrap();
    }
}

#[tokio::test]
async fn a_flipped_bit_in_a_segment_is_reported_and_never_returned() {
    let mut node = Node::start_with(&["--shards", "1", "--set", "data.memtable=1MiB"]);
    write_rows(&node, 30).await;
    let mut segments = files(node.folder(), ".seg");
    for _ in 0..100 {
        if !segments.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        segments = files(node.folder(), ".seg");
    }
    assert!(!segments.is_empty(), "no segment was flushed");
    node.kill();
    let victim = &segments[0];
    let length = std::fs::metadata(victim).unwrap().len();
    let whole = std::fs::read(victim).unwrap();
    for offset in [length / 3, length / 2, length - 5] {
        std::fs::write(victim, &whole).unwrap();
        flip_bit(victim, offset);
        let output = start_or_refuse(&mut node);
        let name = victim.file_name().unwrap().to_str().unwrap();
        match output {
            // The footer is read at the start, or when the segment is first asked for.
            Some(line) => assert!(line.contains(name), "{offset}: {line}"),
            None => {
                let sql = node.connect().await;
                match sql.try_rows("SELECT count(*), count(DISTINCT id), min(note), max(time) FROM t").await {
                    Ok(rows) => {
                        // The bit lay in padding that nobody reads.
                        assert_eq!(rows, ["60000|60000|note 0|2024-01-01 00:33:19+00"], "{offset}");
                    }
                    Err(error) => {
                        assert_eq!(sqlstate_of(&error), "XX001", "{offset}: {}", error_of(&error));
                        let text = error_of(&error);
                        assert!(text.contains(&format!("{name} is damaged at byte ")), "{offset}: {text}");
                    }
                }
                assert_eq!(sql.one("SELECT 1").await, "1");
                node.kill();
            }
        }
    }
    node.assert_no_panic();
}

/// Starts a node whose files were changed: `None` when it runs, else its last words.
fn start_or_refuse(node: &mut Node) -> Option<String> {
    let mut command = node.command();
    let log = node.folder().with_extension("start");
    command.stdout(std::process::Stdio::null()).stderr(File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    let deadline = std::time::Instant::now() + crate::common::PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let text = std::fs::read_to_string(&log).unwrap();
            assert_eq!(status.code(), Some(1), "{text}");
            assert!(!text.contains("panicked at"), "{text}");
            return text.lines().last().map(str::to_owned);
        }
        if node.get("/health/ready").is_ok_and(|(status, _)| status == 200) {
            child.kill().unwrap();
            child.wait().unwrap();
            node.run();
            node.wait_ready();
            return None;
        }
        if std::time::Instant::now() > deadline {
            let _ = child.kill();
            panic!("neither ready nor ended:\n{}", std::fs::read_to_string(&log).unwrap());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_wal_ends_the_start_with_file_and_position() {
    let mut node = Node::start_with(&["--shards", "1"]);
    write_rows(&node, 5).await;
    node.kill();
    let wal = files(node.folder(), ".wal").into_iter().max_by_key(|path| used_bytes(path)).unwrap();
    flip_bit(&wal, used_bytes(&wal) / 2);
    let line = start_or_refuse(&mut node).expect("a damaged log in the middle is not served");
    let name = wal.file_name().unwrap().to_str().unwrap();
    assert!(line.starts_with("meridian: ") && line.contains(name), "{line}");
    assert!(line.contains(" is damaged at byte "), "no position: {line}");
}

#[tokio::test]
async fn a_flipped_bit_in_an_identity_or_a_manifest_ends_the_start_with_its_file() {
    let mut node = Node::start_with(&["--shards", "1", "--set", "data.memtable=1MiB"]);
    write_rows(&node, 30).await;
    assert_eq!(node.stop(), Some(0), "{}", node.log());
    let mut victims = files(&node.folder().join("data"), "MANIFEST");
    assert!(!victims.is_empty(), "nothing was flushed");
    victims.push(node.folder().join("data/identity"));
    for victim in &victims {
        let whole = std::fs::read(victim).unwrap();
        flip_bit(victim, used_bytes(victim) / 2);
        let damaged = snapshot(&node.folder().join("data"));
        let line = start_or_refuse(&mut node).unwrap_or_else(|| panic!("{} was accepted", victim.display()));
        let told = format!("{} is damaged", victim.display());
        assert!(line.starts_with("meridian: ") && line.contains(&told), "{line}");
        assert_eq!(changes(&damaged, &snapshot(&node.folder().join("data"))), Vec::<PathBuf>::new(), "untouched");
        std::fs::write(victim, whole).unwrap();
    }
    node.run();
    node.wait_ready();
    assert_eq!(node.connect().await.one("SELECT count(*) FROM t").await, "60000");
    node.assert_no_panic();
}

#[tokio::test]
async fn a_torn_tail_of_the_wal_is_cut() {
    let mut node = Node::start_with(&["--shards", "1"]);
    write_rows(&node, 3).await;
    node.kill();
    let wal = files(node.folder(), ".wal").into_iter().max_by_key(|path| used_bytes(path)).unwrap();
    // The last write was not acknowledged as a whole: half of its end is missing.
    let end = used_bytes(&wal);
    let file = OpenOptions::new().write(true).open(&wal).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(end - 100).unwrap();
    file.set_len(length).unwrap();
    drop(file);
    node.run();
    node.wait_ready();
    let count: u64 = node.connect().await.one("SELECT count(*) FROM t").await.parse().unwrap();
    assert!(count == 4_000 || count == 6_000, "{count} rows: a part of a statement");
    node.restart();
    assert_eq!(node.connect().await.one("SELECT count(*) FROM t").await, count.to_string());
    node.assert_no_panic();
}

#[tokio::test]
async fn a_flipped_bit_in_the_meta_groups_files_ends_the_start_with_file_and_position() {
    let mut node = Node::start_with(&["--shards", "1"]);
    let sql = node.connect().await;
    for number in 0..20 {
        sql.run(&format!("CREATE TABLE t{number} (v int)")).await;
    }
    drop(sql);
    node.kill();
    let candidates: Vec<PathBuf> = files(&node.folder().join("meta"), "")
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name != "lock") && used_bytes(path) > 0)
        .collect();
    assert!(!candidates.is_empty());
    for victim in &candidates {
        let whole = std::fs::read(victim).unwrap();
        flip_bit(victim, used_bytes(victim) / 2);
        let line = start_or_refuse(&mut node).unwrap_or_else(|| panic!("{} was accepted", victim.display()));
        let name = victim.file_name().unwrap().to_str().unwrap();
        let told = format!("{name} is damaged at byte ");
        assert!(line.starts_with("meridian: ") && line.contains(&told), "{line}");
        std::fs::write(victim, whole).unwrap();
    }
    node.run();
    node.wait_ready();
    assert_eq!(node.connect().await.one("SELECT count(*) FROM t19").await, "0");
    node.assert_no_panic();
}
