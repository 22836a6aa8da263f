//! One node: a process with a folder and three ports that it keeps over restarts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::command::binary;
use super::ports::Port;
use super::sql::Sql;
use super::{Output, PATIENCE};

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    pub role: &'static str,
    pub name: String,
    pub folder: PathBuf,
    pub join: Vec<String>,
    /// Further flags, such as `--set data.memtable=1MiB`.
    pub flags: Vec<String>,
}

pub struct Node {
    spec: NodeSpec,
    ports: [Port; 3],
    child: Option<Child>,
    log: PathBuf,
    /// Present when the node owns its folder.
    _folder: Option<tempfile::TempDir>,
}

impl Node {
    /// A single node with both roles in a folder of its own, ready.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    pub fn start_with(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut node = Self::new(NodeSpec {
            role: "all",
            name: "n1".to_owned(),
            folder: folder.path().join("data"),
            join: Vec::new(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        });
        node._folder = Some(folder);
        node.run();
        node.wait_ready();
        node
    }

    /// Not yet started.
    pub fn new(spec: NodeSpec) -> Self {
        let log = spec.folder.with_extension("log");
        Self { spec, ports: [Port::take(), Port::take(), Port::take()], child: None, log, _folder: None }
    }

    pub fn spec_mut(&mut self) -> &mut NodeSpec {
        &mut self.spec
    }

    pub fn folder(&self) -> &Path {
        &self.spec.folder
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn sql_port(&self) -> u16 {
        self.ports[0].number()
    }

    pub fn cluster_address(&self) -> String {
        self.ports[1].address()
    }

    pub fn admin_address(&self) -> String {
        self.ports[2].address()
    }

    pub fn process_id(&self) -> u32 {
        self.child.as_ref().map(Child::id).expect("a running node")
    }

    /// The command that starts this node.
    pub fn command(&self) -> Command {
        let mut command = binary();
        let [sql, cluster, admin] = &self.ports;
        command.args(["start", "--json", "--role", self.spec.role, "--name", &self.spec.name]);
        command.arg("--data-dir").arg(&self.spec.folder);
        command.args(["--sql-listen", &sql.address(), "--cluster-listen", &cluster.address()]);
        command.args(["--admin-listen", &admin.address(), "--log-filter", "info,openraft=warn"]);
        if !self.spec.join.is_empty() {
            command.args(["--join", &self.spec.join.join(",")]);
        }
        command.args(&self.spec.flags);
        command
    }

    /// Starts the process and waits until its ports are bound.
    pub fn run(&mut self) {
        self.run_command(self.command());
    }

    pub fn run_command(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "{} runs already", self.name());
        let log = std::fs::File::options().create(true).append(true).open(&self.log).expect("a log file");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        // SAFETY: one system call between fork and exec. A test that is killed leaves no node behind.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn().expect("the binary starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("its first line");
        self.child = Some(child);
        assert!(line.starts_with('{'), "{} did not start:\n{}", self.name(), self.log());
    }

    /// Runs a start that is expected to fail by itself.
    #[track_caller]
    pub fn run_to_failure(&self) -> Output {
        super::run(self.command())
    }

    #[track_caller]
    pub fn wait_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get("/health/ready");
            if answer.as_ref().is_ok_and(|(status, _)| *status == 200) {
                return;
            }
            assert!(self.is_running(), "{} ended:\n{}", self.name(), self.log());
            assert!(Instant::now() < deadline, "{} is not ready: {answer:?}\n{}", self.name(), self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// GET on the admin port: status and body.
    pub fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let address = self.admin_address();
        let mut stream = TcpStream::connect(&address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, body.to_owned()))
    }

    pub async fn connect(&self) -> Sql {
        Sql::connect(self.sql_port()).await
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// A figure of `/proc/PID/status`.
    pub fn memory_bytes(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process_id())).expect("a running node");
        let line = status.lines().find(|line| line.starts_with(name)).expect("the kernel counts memory");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number of KiB") * 1024
    }

    /// From here on `VmHWM` is a new peak.
    pub fn reset_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.process_id()), "5").expect("a process of ours");
    }

    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: touches no memory. The child is not waited for yet, so the id is still its own.
        unsafe { libc::kill(self.process_id() as libc::pid_t, signal) };
    }

    /// SIGTERM; answers the exit code.
    #[track_caller]
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(libc::SIGTERM);
        self.wait_end().code()
    }

    /// Waits until the process ends by itself.
    #[track_caller]
    pub fn wait_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let mut child = self.child.take().expect("a running node");
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                assert_ne!(status.signal(), Some(libc::SIGABRT), "it aborted:\n{}", self.log());
                return status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{} does not end:\n{}", self.name(), self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn restart(&mut self) {
        self.kill();
        self.run();
        self.wait_ready();
    }

    /// Everything the node wrote to stderr, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Nothing a node meets may make it panic.
    #[track_caller]
    pub fn assert_no_panic(&self) {
        let log = self.log();
        assert!(!log.contains("panicked at"), "{} panicked:\n{log}", self.name());
    }
}

/// Names and contents of all files of a folder but the locks, which name the process that looked last.
pub fn snapshot(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_none_or(|name| name != "lock") {
                files.push((path.clone(), std::fs::read(&path).expect("a file")));
            }
        }
    }
    files.sort();
    files
}

/// Files that are not the same in two snapshots.
pub fn changes(before: &[(PathBuf, Vec<u8>)], after: &[(PathBuf, Vec<u8>)]) -> Vec<PathBuf> {
    let not_in = |other: &[(PathBuf, Vec<u8>)], file: &(PathBuf, Vec<u8>)| !other.contains(file);
    let gone = before.iter().filter(|file| not_in(after, file));
    let new = after.iter().filter(|file| not_in(before, file));
    let mut paths: Vec<PathBuf> = gone.chain(new).map(|(path, _)| path.clone()).collect();
    paths.dedup();
    paths
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.name(), self.log());
        }
    }
}
