//! `meridian demo` from start to end, and that nothing of it is left behind.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::{PATIENCE, binary, run};

/// Processes whose command line names `folder`.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(&folder)).collect()
}

#[test]
fn the_demo_loads_asks_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = binary();
    command.args(["demo", "--exit"]).env("TMPDIR", temporary.path());
    let output = run(command);
    assert_eq!(output.code, Some(0), "{}\n{}", output.stdout, output.stderr);
    for words in [
        "3 access nodes and 3 data nodes",
        "336776 rows",
        "26115 rows",
        "ExpressJet Airlines Inc.",
        "10 rows in",
        "3 rows in",
        "EWR",
        "JFK",
        "LGA",
    ] {
        assert!(output.stdout.contains(words), "`{words}` is missing in:\n{}", output.stdout);
    }
    let told = output.stdout.lines().filter(|line| line.contains(" rows in ") && line.contains(" ms. ")).count();
    assert_eq!(told, 5, "each query tells its rows, its time, and what ran where:\n{}", output.stdout);
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "files are left behind");
    assert_eq!(processes_of(temporary.path()), Vec::<String>::new());
}

#[test]
fn a_demo_that_is_stopped_or_killed_leaves_no_process_behind() {
    for (signal, cleans_up) in [(libc::SIGTERM, true), (libc::SIGKILL, false)] {
        let temporary = tempfile::tempdir().unwrap();
        let mut command = binary();
        command.arg("demo").env("TMPDIR", temporary.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut demo = command.spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while processes_of(temporary.path()).len() < 3 {
            assert!(Instant::now() < deadline, "no nodes");
            std::thread::sleep(Duration::from_millis(20));
        }
        // SAFETY: touches no memory; the child is not waited for yet.
        unsafe { libc::kill(demo.id() as libc::pid_t, signal) };
        let status = demo.wait().unwrap();
        if cleans_up {
            assert_eq!(status.code(), Some(0));
            assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "files are left behind");
        }
        let deadline = Instant::now() + PATIENCE;
        while !processes_of(temporary.path()).is_empty() {
            assert!(Instant::now() < deadline, "{:?}", processes_of(temporary.path()));
            std::thread::sleep(Duration::from_millis(20));
        }
        if !cleans_up {
            the_next_demo_removes_the_files(temporary.path());
        }
    }
}

fn the_next_demo_removes_the_files(temporary: &Path) {
    let folders = || std::fs::read_dir(temporary).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let left = folders();
    assert_eq!(left.len(), 1, "{left:?}");
    let mut command = binary();
    command.arg("demo").env("TMPDIR", temporary).stdout(Stdio::null()).stderr(Stdio::null());
    let mut demo = command.spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while left[0].exists() || processes_of(temporary).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", folders());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(folders().len(), 1, "its own");
    // SAFETY: touches no memory; the child is not waited for yet.
    unsafe { libc::kill(demo.id() as libc::pid_t, libc::SIGTERM) };
    assert_eq!(demo.wait().unwrap().code(), Some(0));
    assert_eq!(folders(), Vec::<PathBuf>::new());
}
