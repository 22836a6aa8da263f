//! Folders, ports and kernels that refuse.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use meridian_proto::frame;

use crate::common::{
    Cluster, Loader, Node, NodeSpec, PATIENCE, Port, SmallDisk, Sql, binary, changes, check_rows, error_of, run,
    snapshot, sqlstate_of,
};

fn spec(folder: &std::path::Path) -> NodeSpec {
    NodeSpec { role: "all", name: "n1".to_owned(), folder: folder.to_owned(), join: Vec::new(), flags: Vec::new() }
}

#[test]
fn a_folder_in_use_is_refused() {
    let node = Node::start();
    let second = Node::new(spec(node.folder()));
    let output = second.run_to_failure();
    assert_eq!(output.code, Some(1));
    assert_eq!(
        output.error_line(),
        format!("meridian: data folder {} is in use by process {}", node.folder().display(), node.process_id())
    );
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    for (flag, key) in
        [("--sql-listen", "sql.listen"), ("--cluster-listen", "cluster.listen"), ("--admin-listen", "admin.listen")]
    {
        let folder = tempfile::tempdir().unwrap();
        let port = Port::take();
        let _holder = std::net::TcpListener::bind(port.address()).unwrap();
        let mut node = Node::new(spec(&folder.path().join("data")));
        node.spec_mut().flags = vec!["--set".to_owned(), format!("{key}={}", port.address())];
        let output = node.run_to_failure();
        assert_eq!(output.code, Some(1), "{flag}: {output:?}");
        let line = output.error_line();
        assert!(line.contains(&format!("port {} is in use", port.number())) && line.contains(key), "{line}");
        assert!(!folder.path().join("data").exists(), "nothing is touched");
    }
}

#[test]
fn a_port_in_use_leaves_a_folder_as_it_is() {
    let mut node = Node::start();
    assert_eq!(node.stop(), Some(0));
    let before = snapshot(node.folder());
    let port = Port::take();
    let _holder = std::net::TcpListener::bind(port.address()).unwrap();
    for key in ["sql.listen", "cluster.listen", "admin.listen"] {
        node.spec_mut().flags = vec!["--set".to_owned(), format!("{key}={}", port.address())];
        assert_eq!(node.run_to_failure().code, Some(1), "{key}");
        assert_eq!(snapshot(node.folder()), before, "untouched");
    }
}

#[test]
fn a_folder_of_a_newer_format_is_refused_by_name_and_untouched() {
    let mut node = Node::start();
    assert_eq!(node.stop(), Some(0));
    // The file, and where its version stands in the payload of its record.
    for (name, at) in [("data/identity", 0), ("meta/identity", 1), ("meta/vote", 1)] {
        let path = node.folder().join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut payload = frame::decode(&whole).unwrap().payload.to_vec();
        payload[at] = 99;
        let mut newer = Vec::new();
        frame::encode(1, &payload, &mut newer);
        std::fs::write(&path, &newer).unwrap();
        let before = snapshot(node.folder());
        let output = node.run_to_failure();
        assert_eq!(output.code, Some(1), "{output:?}");
        let line = output.stderr.lines().last().unwrap();
        assert!(line.starts_with("meridian: ") && line.contains("format version 99"), "{name}: {line}");
        assert_eq!(snapshot(node.folder()), before, "{name}: untouched");
        std::fs::write(&path, whole).unwrap();
    }
    node.run();
    node.wait_ready();
}

/// A file's version, raised, with the checksum that goes with it.
type Raise = fn(&mut [u8]);

/// Of a shard's log or a chunk's manifest.
fn raise_head(bytes: &mut [u8]) {
    bytes[8] = 99;
    let checksum = crc32c(&[&bytes[..12], &bytes[16..64]].concat());
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
}

fn raise_segment(bytes: &mut [u8]) {
    bytes[8] = 99;
    let checksum = crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
}

/// Of the meta group's log: in the payload of its first record.
fn raise_meta_log(bytes: &mut [u8]) {
    let first = frame::decode(bytes).unwrap();
    let mut payload = first.payload.to_vec();
    payload[1] = 99;
    let mut raised = Vec::new();
    frame::encode(first.kind, &payload, &mut raised);
    bytes[..raised.len()].copy_from_slice(&raised);
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let shift = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

#[tokio::test]
async fn files_of_a_newer_format_are_refused_by_name_and_untouched() {
    let mut node = Node::start_with(&["--shards", "1", "--set", "data.memtable=1MiB"]);
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (id bigint, filler text)").await;
    for seed in 0..5 {
        sql.copy("COPY t FROM STDIN", &noise(2_000, seed)).await.unwrap();
    }
    drop(sql);
    assert_eq!(node.stop(), Some(0), "{}", node.log());
    let files: Vec<_> = snapshot(node.folder()).into_iter().map(|(path, _)| path).collect();
    let kinds: [(&str, Raise); 4] =
        [(".wal", raise_head), ("MANIFEST", raise_head), (".seg", raise_segment), (".log", raise_meta_log)];
    for (ending, raise) in kinds {
        let mut named = files.iter().filter(|path| path.to_string_lossy().ends_with(ending));
        // A newer release that has written segments has written the newest one.
        let path = if ending == ".seg" { named.next_back() } else { named.next() }.expect(ending);
        let whole = std::fs::read(path).unwrap();
        let mut newer = whole.clone();
        raise(&mut newer);
        std::fs::write(path, newer).unwrap();
        let part = node.folder().join(if ending == ".log" { "meta" } else { "data" });
        let before = snapshot(&part);
        let output = node.run_to_failure();
        assert_eq!(output.code, Some(1), "{output:?}");
        let line = output.stderr.lines().last().unwrap();
        let told = format!("{} has format version 99", path.display());
        assert!(line.starts_with("meridian: ") && line.contains(&told), "{line}");
        assert_eq!(changes(&before, &snapshot(&part)), Vec::<PathBuf>::new(), "{ending}: untouched");
        std::fs::write(path, whole).unwrap();
    }
    node.run();
    node.wait_ready();
    assert_eq!(node.connect().await.one("SELECT count(filler) FROM t").await, "10000");
}

#[test]
fn a_kernel_that_forbids_io_uring_is_told_with_what_to_change() {
    let mut node = Node::start();
    assert_eq!(node.stop(), Some(0));
    let before = snapshot(node.folder());
    let mut command = node.command();
    // SAFETY: two system calls between fork and exec, on memory that lives in the closure.
    unsafe { command.pre_exec(forbid_io_uring) };
    let output = run(command);
    assert_eq!(output.code, Some(1), "{output:?}");
    let line = output.error_line();
    assert!(line.contains("io_uring") && line.contains("seccomp"), "{line}");
    assert_eq!(snapshot(node.folder()), before, "untouched");
}

/// A seccomp filter as containers have it: `io_uring_setup` answers EPERM.
fn forbid_io_uring() -> std::io::Result<()> {
    // BPF: load the number of the system call; if it is io_uring_setup, answer EPERM, else allow.
    let load = libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };
    let compare = libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: libc::SYS_io_uring_setup as u32 };
    let refuse = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x0005_0000 | libc::EPERM as u32 };
    let allow = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };
    let mut filter = [load, compare, refuse, allow];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the program.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
    };
    if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// The same command in a mount namespace of its own, after `setup` as root there. No root needed outside.
fn in_namespace(command: &Command, setup: &str) -> Command {
    let mut outer = Command::new("unshare");
    outer.args(["--map-root-user", "--mount", "sh", "-c", &format!("{setup} && exec \"$@\""), "sh"]);
    outer.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

#[test]
fn a_read_only_disk_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::new(spec(&folder.path().join("data")));
    let mount = format!("mount -t tmpfs -o ro none {}", folder.path().display());
    let output = run(in_namespace(&node.command(), &mount));
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.error_line().contains("mounted read-only"), "{output:?}");
}

#[test]
fn a_disk_that_is_full_at_the_start_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Node::new(spec(&data));
    let path = folder.path().display();
    let setup = format!(
        "mount -t tmpfs -o size=64k none {path} && mkdir {path}/data && \
         (dd if=/dev/zero of={path}/filler bs=4k 2>/dev/null || true)"
    );
    let output = run(in_namespace(&node.command(), &setup));
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.error_line().contains("the disk is full; free some space and start again"), "{output:?}");
}

/// Lines that do not compress: the log is to ask for space soon.
fn noise(rows: u64, seed: u64) -> String {
    let mut state = seed * 7919 + 1;
    let line = |row| {
        let filler: String = (0..20).map(|_| format!("{:016x}", scramble(&mut state))).collect();
        format!("{row}\t{filler}\n")
    };
    (0..rows).map(line).collect()
}

fn scramble(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A whole database with small log files on a small disk.
fn node_on(disk: &SmallDisk) -> Node {
    let flags = ["--shards", "1", "--set", "data.memtable=8MiB", "--set", "data.wal_file=4MiB"];
    Node::new(NodeSpec { flags: flags.map(str::to_owned).to_vec(), ..spec(&disk.path().join("data")) })
}

fn run_on(disk: &SmallDisk, node: &mut Node) {
    node.run_command(disk.command(&node.command()));
    node.wait_ready();
}

/// Writes until the disk has no room; answers how many rows were acknowledged.
async fn write_until_refused(sql: &Sql) -> u64 {
    let mut acknowledged = 0;
    loop {
        match sql.copy("COPY t FROM STDIN", &noise(2_000, acknowledged)).await {
            Ok(rows) => acknowledged += rows,
            Err(error) => {
                assert_says_what_to_do(&error);
                return acknowledged;
            }
        }
        assert!(acknowledged < 2_000_000, "the disk does not fill up");
    }
}

#[track_caller]
fn assert_says_what_to_do(error: &tokio_postgres::Error) {
    assert_eq!(sqlstate_of(error), "53100", "{}", error_of(error));
    let hint = error.as_db_error().and_then(|db| db.hint()).unwrap_or_default();
    assert!(hint.contains("Free some space"), "{}: {hint}", error_of(error));
}

#[tokio::test]
async fn on_a_full_disk_writes_are_refused_reads_go_on_and_all_resumes_with_space() {
    let disk = SmallDisk::new(256);
    let mut node = node_on(&disk);
    run_on(&disk, &mut node);
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (id bigint, filler text)").await;
    let load = Loader::start(&[node.sql_port()], 2).await;
    load.wait_acknowledged(20).await;
    disk.fill();
    let mut acknowledged = write_until_refused(&sql).await;

    // Also over connections that come later, and again and again.
    for round in 0..20 {
        let reader = node.connect().await;
        assert_eq!(reader.one("SELECT count(*) FROM t").await, acknowledged.to_string(), "round {round}");
        let error = reader.copy("COPY t FROM STDIN", &noise(20_000, 1)).await.unwrap_err();
        assert_says_what_to_do(&error);
    }
    assert!(node.is_running(), "{}", node.log());

    disk.free();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match sql.copy("COPY t FROM STDIN", &noise(1_000, 2)).await {
            Ok(rows) => break acknowledged += rows,
            Err(error) => assert_says_what_to_do(&error),
        }
        assert!(Instant::now() < deadline, "it does not write again:\n{}", node.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    load.wait_acknowledged(20).await;
    let outcomes = load.stop().await;
    for _ in 0..2 {
        let sql = node.connect().await;
        check_rows(&sql, &outcomes).await;
        assert_eq!(sql.one("SELECT count(*) FROM t").await, acknowledged.to_string());
        node.kill();
        run_on(&disk, &mut node);
    }
    node.assert_no_panic();
}

#[tokio::test]
async fn a_start_on_a_full_disk_is_refused_and_what_was_acknowledged_is_there_with_space() {
    let disk = SmallDisk::new(128);
    let mut node = node_on(&disk);
    run_on(&disk, &mut node);
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (id bigint, filler text)").await;
    let load = Loader::start(&[node.sql_port()], 2).await;
    load.wait_acknowledged(20).await;
    disk.fill();
    let acknowledged = write_until_refused(&sql).await;
    // On the full disk, under load.
    node.kill();
    let outcomes = load.stop().await;
    disk.fill();

    let folder = disk.seen_from_outside(node.folder());
    let before = snapshot(&folder);
    let output = run(disk.command(&node.command()));
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.error_line().contains("the disk is full; free some space and start again"), "{output:?}");
    assert_eq!(snapshot(&folder), before, "untouched");

    disk.free();
    run_on(&disk, &mut node);
    let sql = node.connect().await;
    check_rows(&sql, &outcomes).await;
    assert_eq!(sql.one("SELECT count(*) FROM t").await, acknowledged.to_string());
    sql.run("INSERT INTO t VALUES (1, 'x')").await;
    node.assert_no_panic();
}

/// A table with so many columns that its entry takes some 50 KiB of the meta group's log.
fn wide_table(number: usize) -> String {
    let columns: Vec<String> =
        (0..900).map(|column| format!("a_column_with_a_rather_long_name_{column} int")).collect();
    format!("CREATE TABLE wide{number} ({})", columns.join(", "))
}

#[tokio::test]
async fn a_meta_leader_on_a_full_disk_refuses_what_is_new_and_keeps_the_rest_going() {
    let disk = SmallDisk::new(64);
    let mut cluster = Cluster::start_first_on(&disk);
    let sql = cluster.connect().await;
    sql.run("CREATE TABLE t (v int)").await;
    sql.run("INSERT INTO t VALUES (1)").await;
    sql.run(&wide_table(0)).await;
    disk.fill();
    for _ in 0..3 {
        let refused = sql.client.batch_execute(&wide_table(1)).await;
        assert_says_what_to_do(&refused.unwrap_err());
    }
    // Data lies on another disk; timestamps go on.
    for v in 2..100 {
        sql.run(&format!("INSERT INTO t VALUES ({v})")).await;
        assert_eq!(sql.one("SELECT count(*) FROM t").await, v.to_string());
    }
    // What gives space back is taken.
    sql.run("DROP TABLE wide0").await;
    // Nodes may come back, too.
    cluster.data[0].restart();
    assert_eq!(cluster.connect().await.one("SELECT count(*) FROM t").await, "99");
    assert!(cluster.access[0].is_running(), "{}", cluster.access[0].log());

    disk.free();
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = sql.client.batch_execute(&wide_table(2)).await {
        assert_says_what_to_do(&error);
        assert!(Instant::now() < deadline, "it takes nothing again:\n{}", cluster.access[0].log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.access[0].kill();
    let command = disk.command(&cluster.access[0].command());
    cluster.access[0].run_command(command);
    cluster.wait_ready();
    let names = "SELECT table_name FROM information_schema.tables WHERE table_name LIKE 'wide%' ORDER BY 1";
    assert_eq!(cluster.connect().await.rows(names).await, ["wide2"]);
    cluster.assert_no_panic();
}

#[tokio::test]
async fn a_leader_on_a_full_disk_hands_over_to_a_member_with_space() {
    let disk = SmallDisk::new(64);
    let mut cluster = Cluster::start_first_on(&disk);
    cluster.add_access("an2", &[]);
    cluster.add_access("an3", &[]);
    cluster.wait_ready();
    cluster.wait_voters(3);
    assert_eq!(cluster.leader(), 0);
    let sql = cluster.connect().await;
    sql.run("CREATE TABLE t (v int)").await;
    disk.fill();
    // Statements that make nothing new go on all the time; they wait for the next leader.
    let deadline = Instant::now() + PATIENCE;
    let mut rows = 0;
    while cluster.leader() == 0 {
        rows += 1;
        sql.run(&format!("INSERT INTO t VALUES ({rows})")).await;
        assert_eq!(sql.one("SELECT count(*) FROM t").await, rows.to_string());
        assert!(Instant::now() < deadline, "it keeps its office:\n{}", cluster.access[0].log());
    }
    // Through the member whose disk is full, too.
    for number in 0..3 {
        sql.run(&wide_table(number)).await;
    }
    assert_eq!(sql.one("SELECT count(*) FROM t").await, rows.to_string());
    cluster.assert_no_panic();
}

fn metric(node: &Node, name: &str) -> u64 {
    let (_, text) = node.get("/metrics").unwrap();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{name} in\n{text}"))
}

/// Entries of the meta group that a node has applied.
fn applied(node: &Node) -> u64 {
    metric(node, "meridian_raft_applied_index")
}

#[tokio::test]
async fn a_follower_whose_disk_is_full_waits_and_catches_up_with_space() {
    let disk = SmallDisk::new(64);
    let mut cluster = Cluster::start(2, 1);
    cluster.add_access_on(&disk, "an3");
    cluster.wait_ready();
    cluster.wait_voters(3);
    let sql = cluster.connect().await;
    disk.fill();
    // More than it has put by.
    for number in 0..80 {
        sql.run(&wide_table(number)).await;
    }
    sql.run("CREATE TABLE t (v int)").await;
    sql.run("INSERT INTO t VALUES (1)").await;
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "1");
    assert_eq!(metric(&cluster.access[2], "meridian_raft_is_short_of_space"), 1);
    let log = cluster.access[2].log();
    assert!(cluster.access[2].is_running() && log.contains("neither votes nor leads until there is space"), "{log}");

    disk.free();
    let deadline = Instant::now() + PATIENCE;
    let target = applied(&cluster.access[0]);
    while applied(&cluster.access[2]) < target {
        assert!(Instant::now() < deadline, "it does not catch up:\n{}", cluster.access[2].log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let deadline = Instant::now() + PATIENCE;
    while metric(&cluster.access[2], "meridian_raft_is_short_of_space") == 1 {
        assert!(Instant::now() < deadline, "it puts nothing by again");
        std::thread::sleep(Duration::from_millis(100));
    }
    // It votes again: with one of the others gone it is needed.
    cluster.access[1].kill();
    let sql = cluster.access[2].connect().await;
    sql.run("INSERT INTO t VALUES (2)").await;
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "2");
    cluster.assert_no_panic();
}

#[test]
fn a_folder_that_is_a_file_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data");
    std::fs::write(&file, "x").unwrap();
    let mut command = binary();
    command.arg("start").arg("--data-dir").arg(&file);
    for flag in ["--sql-listen", "--cluster-listen", "--admin-listen"] {
        command.args([flag, "127.0.0.1:0"]);
    }
    let output = run(command);
    assert_eq!(output.code, Some(1));
    assert!(output.error_line().contains(file.to_str().unwrap()), "{output:?}");
}
