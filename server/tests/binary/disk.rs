//! Folders, ports and kernels that refuse.

use std::os::unix::process::CommandExt;
use std::process::Command;

use meridian_proto::frame;

use crate::common::{Node, NodeSpec, Port, binary, run, snapshot, sqlstate_of};

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

#[test]
fn a_kernel_that_forbids_io_uring_is_told_with_what_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::new(spec(&folder.path().join("data")));
    let mut command = node.command();
    // SAFETY: two system calls between fork and exec, on memory that lives in the closure.
    unsafe { command.pre_exec(forbid_io_uring) };
    let output = run(command);
    assert_eq!(output.code, Some(1), "{output:?}");
    let line = output.error_line();
    assert!(line.contains("io_uring") && line.contains("seccomp"), "{line}");
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
    let line = output.stderr.lines().last().unwrap();
    assert!(line.starts_with("meridian: ") && (line.contains("full") || line.contains("No space")), "{line}");
}

#[tokio::test]
async fn a_disk_that_fills_up_is_an_error_and_the_rows_before_it_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::new(NodeSpec {
        flags: ["--shards", "1", "--set", "data.memtable=8MiB"].map(str::to_owned).to_vec(),
        ..spec(&folder.path().join("data"))
    });
    std::fs::create_dir(node.folder()).unwrap();
    let setup = format!("mount -t tmpfs -o size=256m none {}", node.folder().display());
    node.run_command(in_namespace(&node.command(), &setup));
    node.wait_ready();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (id bigint, filler text)").await;
    let mut acknowledged = 0;
    let error = loop {
        // Hard to compress: the disk is to fill up soon.
        let lines: String = (0..2_000u64)
            .map(|row| {
                let mut seed = row * 7919 + acknowledged + 1;
                let filler: String = (0..20).map(|_| format!("{:016x}", scramble(&mut seed))).collect();
                format!("{row}\t{filler}\n")
            })
            .collect();
        match sql.copy("COPY t FROM STDIN", &lines).await {
            Ok(rows) => acknowledged += rows,
            Err(error) => break error,
        }
        assert!(acknowledged < 2_000_000, "the disk does not fill up");
    };
    assert!(acknowledged > 0);
    let state = sqlstate_of(&error);
    assert!(
        ["53100", "08007", "57P03", "57P01"].contains(&state.as_str()) || sql.client.is_closed(),
        "{state}: {error}"
    );
    if node.is_running() {
        // Reading goes on.
        let reader = node.connect().await;
        assert_eq!(reader.one("SELECT count(*) FROM t").await, acknowledged.to_string());
    } else {
        assert_eq!(node.wait_end().code(), Some(1), "{}", node.log());
    }
    node.assert_no_panic();
}

fn scramble(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
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
