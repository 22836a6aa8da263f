//! What a node costs when nobody uses it: time until it answers SQL, CPU while idle, resident memory.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

use crate::ingest::Error;
use crate::report::Figure;

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that a started node is left alone before it counts as idle.
const SETTLE: Duration = Duration::from_secs(3);

/// Starts a node in a new folder and measures it over `idle`.
pub async fn run(binary: Option<PathBuf>, idle: Duration) -> Result<Vec<Figure>, Error> {
    let binary = binary.map_or_else(sibling, Ok)?;
    let folder = tempfile::tempdir()?;
    let first = Instant::now();
    let node = Node::start(&binary, folder.path())?;
    node.wait_for_sql().await?;
    let first_start = first.elapsed();
    tokio::time::sleep(SETTLE).await;
    let (cpu_before, since) = (cpu_seconds(node.child.id())?, Instant::now());
    tokio::time::sleep(idle).await;
    let cpu = (cpu_seconds(node.child.id())? - cpu_before) / since.elapsed().as_secs_f64();
    let memory = resident_bytes(node.child.id())?;
    drop(node);
    let second = Instant::now();
    let node = Node::start(&binary, folder.path())?;
    node.wait_for_sql().await?;
    Ok(vec![
        Figure::new("first start until SQL answers", first_start.as_secs_f64(), "s"),
        Figure::new("second start until SQL answers", second.elapsed().as_secs_f64(), "s"),
        Figure::new("idle CPU", cpu * 100.0, "% of a core"),
        Figure::new("idle resident memory", memory as f64 / 1e6, "MB"),
    ])
}

struct Node {
    child: Child,
    sql: String,
}

/// A node with a folder of its own, for smoke runs of the other measurements.
pub struct TestNode {
    node: Node,
    _folder: tempfile::TempDir,
}

impl TestNode {
    /// Starts the binary beside the caller's.
    pub fn start() -> Result<Self, Error> {
        let folder = tempfile::tempdir()?;
        Ok(Self { node: Node::start(&sibling()?, folder.path())?, _folder: folder })
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("postgresql://meridian@{}/meridian", self.node.sql)
    }
}

impl Node {
    fn start(binary: &Path, folder: &Path) -> Result<Self, Error> {
        let any = "127.0.0.1:0";
        let mut child = Command::new(binary)
            .args(["start", "--json", "--sql-listen", any, "--cluster-listen", any, "--admin-listen", any])
            .arg("--data-dir")
            .arg(folder.join("node"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("no standard output")?;
        std::io::BufReader::new(stdout).read_line(&mut line)?;
        let announced: serde_json::Value = serde_json::from_str(&line)?;
        let sql = announced["sql"].as_str().ok_or("no SQL address announced")?.to_owned();
        Ok(Self { child, sql })
    }

    async fn wait_for_sql(&self) -> Result<(), Error> {
        let url = format!("postgresql://meridian@{}/meridian", self.sql);
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await {
                let connection = tokio::spawn(connection);
                let answered = client.simple_query("SELECT 1").await.is_ok();
                connection.abort();
                if answered {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                return Err("the node does not answer SQL".into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A child that is gone already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary beside this one.
fn sibling() -> Result<PathBuf, Error> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join("meridian")).find(|path| path.exists());
    found.ok_or_else(|| "no meridian binary beside this one; name it with --binary".into())
}

/// User and system time of a process (proc(5), `/proc/pid/stat`, fields 14 and 15), in seconds.
fn cpu_seconds(pid: u32) -> Result<f64, Error> {
    // Linux reports these in ticks of 1/100 s on every architecture that we run on (USER_HZ).
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(") ").ok_or("an unknown form of /proc/pid/stat")?.1;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

fn resident_bytes(pid: u32) -> Result<u64, Error> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).ok_or("an empty VmRSS")?.parse()?;
    Ok(kib * 1024)
}
