//! The demo's nodes: child processes of this binary. They die with this process, however it ends.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::failure::Failure;

const ACCESS_NODES: usize = 3;
const DATA_NODES: usize = 3;
/// Longest wait until a node listens, and then until the whole cluster serves.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_PAUSE: Duration = Duration::from_millis(50);
/// Time a node has to drain before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines of a dead node's log that are shown.
const LOG_LINES_SHOWN: usize = 5;

/// The running nodes, access nodes first.
pub struct Cluster {
    folder: PathBuf,
    nodes: Vec<Node>,
}

struct Node {
    name: String,
    child: Child,
    log: PathBuf,
    sql: String,
    cluster: String,
    admin: String,
}

impl Cluster {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, nodes: Vec::new() }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Address for SQL of the first access node.
    pub fn sql_address(&self) -> String {
        self.nodes.first().map(|node| node.sql.clone()).unwrap_or_default()
    }

    /// Starts all nodes, creates the cluster and waits until every node is ready.
    pub async fn start(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        self.start_node("access", "an1".to_owned(), &[]).await?;
        let first = self.nodes[0].cluster.clone();
        self.create_cluster(&first).await?;
        for number in 2..=ACCESS_NODES {
            self.start_node("access", format!("an{number}"), std::slice::from_ref(&first)).await?;
        }
        let access: Vec<String> = self.nodes.iter().map(|node| node.cluster.clone()).collect();
        for number in 1..=DATA_NODES {
            self.start_node("data", format!("dn{number}"), &access).await?;
        }
        for position in 0..self.nodes.len() {
            self.wait_ready(position).await?;
            let node = &self.nodes[position];
            let seconds = started.elapsed().as_secs_f64();
            let sql = if node.sql.is_empty() { String::new() } else { format!(", SQL on {}", node.sql) };
            println!("  {} ready after {seconds:.1} s (process {}{sql})", node.name, node.child.id().unwrap_or(0));
        }
        Ok(())
    }

    async fn start_node(&mut self, role: &str, name: String, join: &[String]) -> Result<(), Failure> {
        let log = self.folder.join(format!("{name}.log"));
        let mut command = node_command(role, &name, join, &self.folder.join(&name), &log)
            .map_err(|error| Failure::failed(format!("could not prepare {name}: {error}")))?;
        let mut child = command.spawn().map_err(|error| Failure::failed(format!("could not start {name}: {error}")))?;
        let stdout = child.stdout.take();
        self.nodes.push(Node {
            name: name.clone(),
            child,
            log,
            sql: String::new(),
            cluster: String::new(),
            admin: String::new(),
        });
        let mut line = String::new();
        if let Some(stdout) = stdout {
            let mut lines = BufReader::new(stdout);
            // An end without a line is a node that ended: `explain` shows its last words.
            let read = tokio::time::timeout(START_TIMEOUT, lines.read_line(&mut line)).await;
            read.map_err(|_| Failure::failed(format!("{name} does not come up")))?
                .map_err(|error| Failure::failed(format!("{name}: {error}")))?;
            // Whatever else it prints goes nowhere, and must not fill the pipe.
            tokio::spawn(async move { tokio::io::copy(&mut lines, &mut tokio::io::sink()).await });
        }
        let announced: Value =
            serde_json::from_str(&line).map_err(|_| Failure::failed(format!("{name} did not start")))?;
        let address = |key: &str| announced[key].as_str().unwrap_or_default().to_owned();
        if let Some(node) = self.nodes.last_mut() {
            (node.sql, node.cluster, node.admin) = (address("sql"), address("cluster"), address("admin"));
        }
        Ok(())
    }

    async fn create_cluster(&self, address: &str) -> Result<(), Failure> {
        let output = own_binary()
            .map_err(|error| Failure::failed(format!("could not find the own binary: {error}")))?
            .args(["cluster", "init", "--cluster", address])
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| Failure::failed(format!("could not run cluster init: {error}")))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Failure::failed(format!("cluster init: {}", String::from_utf8_lossy(&output.stderr))))
    }

    async fn wait_ready(&mut self, position: usize) -> Result<(), Failure> {
        let deadline = Instant::now() + START_TIMEOUT;
        let node = &mut self.nodes[position];
        loop {
            if let Ok(Some(status)) = node.child.try_wait() {
                return Err(Failure::failed(format!("{} ended ({status})", node.name)));
            }
            let reason = match probe_ready(&node.admin).await {
                Ok(None) => return Ok(()),
                Ok(Some(reason)) => reason,
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                return Err(Failure::failed(format!("{} is not ready: {reason}", node.name)));
            }
            tokio::time::sleep(POLL_PAUSE).await;
        }
    }

    /// Waits for a node that ends by itself, which none should.
    pub async fn first_to_die(&mut self) -> Failure {
        let waits = self.nodes.iter_mut().map(|node| {
            Box::pin(async {
                let status = node.child.wait().await;
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                Failure::failed(format!("{} ended ({status})", node.name))
            })
        });
        futures::future::select_all(waits).await.0
    }

    /// Adds the last words of nodes that ended to a failure.
    pub fn explain(&mut self, failure: Failure) -> Failure {
        let mut line = failure.to_string();
        for node in &mut self.nodes {
            if let Ok(Some(_)) = node.child.try_wait() {
                let log = std::fs::read_to_string(&node.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().rev().take(LOG_LINES_SHOWN).collect();
                let words: Vec<&str> = lines.into_iter().rev().collect();
                line.push_str(&format!("; {} ended: {}", node.name, words.join(" / ")));
            }
        }
        Failure::failed(line)
    }

    /// Ends every node: asks, waits, kills. Data nodes last, for access nodes still have answers to flush.
    pub async fn stop(mut self) {
        for node in &self.nodes {
            node.signal(libc::SIGTERM);
        }
        let deadline = tokio::time::Instant::now() + STOP_TIMEOUT;
        for node in &mut self.nodes {
            if tokio::time::timeout_at(deadline, node.child.wait()).await.is_err() {
                // Kills by the child's own id and reaps it; an error means that it is gone already.
                let _ = node.child.kill().await;
            }
        }
    }
}

impl Node {
    fn signal(&self, signal: libc::c_int) {
        // `id` is the child's as long as nobody has waited for it: it cannot be another process's.
        let Some(id) = self.child.id().and_then(|id| libc::pid_t::try_from(id).ok()) else { return };
        // SAFETY: `kill` touches no memory of ours.
        unsafe { libc::kill(id, signal) };
    }
}

fn own_binary() -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    // The user's own configuration is for the user's own node.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MERIDIAN_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    Ok(command)
}

fn node_command(role: &str, name: &str, join: &[String], folder: &Path, log: &Path) -> std::io::Result<Command> {
    let mut command = own_binary()?;
    command.args(["start", "--json", "--role", role, "--name", name, "--data-dir"]).arg(folder);
    for flag in ["--sql-listen", "--cluster-listen", "--admin-listen"] {
        command.args([flag, "127.0.0.1:0"]);
    }
    // Three data nodes share this machine.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    command.args(["--shards", &(cores / DATA_NODES).clamp(1, 4).to_string()]);
    if !join.is_empty() {
        command.args(["--join", &join.join(",")]);
    }
    command.stdout(Stdio::piped()).stderr(std::fs::File::create(log)?).kill_on_drop(true);
    // A group of its own: Ctrl-C goes to the demo, which ends the nodes in order.
    command.process_group(0);
    die_with_parent(&mut command);
    Ok(command)
}

/// The kernel kills the child when the thread that started it is gone: also after `kill -9` of the demo.
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only system calls that are safe there.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            if libc::getppid() as u32 != parent {
                return Err(std::io::Error::other("the demo has ended"));
            }
            Ok(())
        });
    }
}

/// Asks `/health/ready`: `None` when it is, else the reason.
async fn probe_ready(address: &str) -> std::io::Result<Option<String>> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET /health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(None);
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
    Ok(Some(body.to_owned()))
}
