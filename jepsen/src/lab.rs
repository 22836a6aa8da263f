//! A cluster of real processes on loopback, in a temporary folder. Ports are given by the system at the first start and
//! kept over restarts. Everything ends with the lab.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls};

use crate::Error;

/// Longest time for a node or the cluster to come up.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_PAUSE: Duration = Duration::from_millis(20);

/// How many nodes of each role.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub access: usize,
    pub data: usize,
}

pub struct Lab {
    folder: TempDir,
    binary: PathBuf,
    nodes: Vec<LabNode>,
}

/// One process, running or not.
pub struct LabNode {
    pub name: String,
    pub role: &'static str,
    child: Option<Child>,
    /// Addresses given at the first start.
    sql: String,
    cluster: String,
    admin: String,
    join: Vec<String>,
}

impl Lab {
    /// Starts the cluster and waits until every node is ready.
    pub async fn start(shape: Shape) -> Result<Self, Error> {
        let mut lab = Self { folder: tempfile::tempdir()?, binary: binary()?, nodes: Vec::new() };
        lab.add_node("access", "an1".to_owned(), Vec::new())?;
        let first = lab.nodes[0].cluster.clone();
        lab.init_cluster(&first)?;
        for number in 2..=shape.access {
            lab.add_node("access", format!("an{number}"), vec![first.clone()])?;
        }
        let access: Vec<String> = lab.nodes.iter().map(|node| node.cluster.clone()).collect();
        for number in 1..=shape.data {
            lab.add_node("data", format!("dn{number}"), access.clone())?;
        }
        lab.wait_ready().await?;
        // The first access node learns of the others when it is started again.
        lab.nodes[0].join = access;
        Ok(lab)
    }

    #[must_use]
    pub fn nodes(&self) -> &[LabNode] {
        &self.nodes
    }

    /// Folder of a node.
    #[must_use]
    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.folder.path().join(&self.nodes[node].name)
    }

    /// What a node wrote to stderr.
    #[must_use]
    pub fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.log_path(node)).unwrap_or_default()
    }

    /// Ends a node at once, as a power cut would its process. Nothing when it is not running.
    pub fn kill(&mut self, node: usize) -> Result<(), Error> {
        if let Some(mut child) = self.nodes[node].child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts a killed node again, with its folder and addresses.
    pub fn restart(&mut self, node: usize) -> Result<(), Error> {
        if self.nodes[node].child.is_none() {
            self.spawn(node)?;
        }
        Ok(())
    }

    /// Waits until every running node says that it is ready.
    pub async fn wait_ready(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + START_TIMEOUT;
        for index in 0..self.nodes.len() {
            while self.nodes[index].child.is_some() && !is_ready(&self.nodes[index].admin).await {
                let ended = match &mut self.nodes[index].child {
                    Some(child) => child.try_wait()?,
                    None => None,
                };
                if ended.is_some() || Instant::now() > deadline {
                    let name = &self.nodes[index].name;
                    return Err(format!("{name} is not ready ({ended:?}); its log:\n{}", self.log(index)).into());
                }
                tokio::time::sleep(POLL_PAUSE).await;
            }
        }
        Ok(())
    }

    /// A connection through an access node.
    pub async fn connect(&self, access: usize) -> Result<Client, Error> {
        connect(&self.nodes[access].sql).await
    }

    /// SQL addresses of the access nodes.
    #[must_use]
    pub fn sql_addresses(&self) -> Vec<String> {
        self.nodes.iter().filter(|node| node.role == "access").map(|node| node.sql.clone()).collect()
    }

    /// Index of the node that leads the meta group, by its own word.
    pub fn meta_leader(&self) -> Result<Option<usize>, Error> {
        let addresses: Vec<&str> =
            self.nodes.iter().filter(|n| n.role == "access" && n.child.is_some()).map(|n| n.cluster.as_str()).collect();
        let output = self
            .command()
            .args(["cluster", "status", "--json", "--cluster", &addresses.join(",")])
            .stderr(Stdio::null())
            .output()?;
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let leader = status["leader_address"].as_str().unwrap_or_default();
        Ok(self.nodes.iter().position(|node| node.cluster == leader))
    }

    fn add_node(&mut self, role: &'static str, name: String, join: Vec<String>) -> Result<(), Error> {
        let any = || "127.0.0.1:0".to_owned();
        self.nodes.push(LabNode { name, role, child: None, sql: any(), cluster: any(), admin: any(), join });
        self.spawn(self.nodes.len() - 1)
    }

    fn spawn(&mut self, index: usize) -> Result<(), Error> {
        let node = &self.nodes[index];
        let mut command = self.command();
        command.args(["start", "--json", "--role", node.role, "--name", &node.name]);
        command.arg("--data-dir").arg(self.data_dir(index));
        command.args(["--sql-listen", &node.sql, "--cluster-listen", &node.cluster, "--admin-listen", &node.admin]);
        command.args(["--shards", "2"]);
        if !node.join.is_empty() {
            command.args(["--join", &node.join.join(",")]);
        }
        let log = std::fs::File::options().create(true).append(true).open(self.log_path(index))?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let announced = first_line(&mut child);
        let node = &mut self.nodes[index];
        node.child = Some(child);
        let Ok(announced) = announced else {
            return Err(format!("{} did not come up; its log:\n{}", self.nodes[index].name, self.log(index)).into());
        };
        let address = |key: &str, old: &str| announced[key].as_str().unwrap_or(old).to_owned();
        node.sql = address("sql", &node.sql);
        node.cluster = address("cluster", &node.cluster);
        node.admin = address("admin", &node.admin);
        Ok(())
    }

    fn init_cluster(&self, address: &str) -> Result<(), Error> {
        let output = self.command().args(["cluster", "init", "--cluster", address]).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("cluster init: {}", String::from_utf8_lossy(&output.stderr)).into())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MERIDIAN_") {
                command.env_remove(name);
            }
        }
        command
    }

    fn log_path(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("{}.log", self.nodes[node].name))
    }
}

impl LabNode {
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child {
                // A child that is gone already is what is wanted.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// Connects to an SQL address; the connection runs in the background and ends with the client.
pub async fn connect(address: &str) -> Result<Client, Error> {
    let url = format!("postgresql://meridian@{address}/meridian?connect_timeout=2");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    // A broken connection is seen by the statement that runs on it.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

/// The binary under test: `MERIDIAN_BIN`, else the sibling in the target folder.
fn binary() -> Result<PathBuf, Error> {
    if let Some(path) = std::env::var_os("MERIDIAN_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join("meridian")).find(|path| path.exists());
    found.ok_or_else(|| format!("no meridian binary beside {}; set MERIDIAN_BIN", Path::new(&own).display()).into())
}

/// The line with the addresses that a node prints when it listens.
fn first_line(child: &mut Child) -> Result<Value, Error> {
    let stdout = child.stdout.take().ok_or("no standard output")?;
    let mut lines = std::io::BufReader::new(stdout);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut lines, &mut line)?;
    // What it prints later must not fill the pipe.
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    Ok(serde_json::from_str(&line)?)
}

async fn is_ready(address: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /health/ready HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), ask).await;
    matches!(answer, Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200"))
}
