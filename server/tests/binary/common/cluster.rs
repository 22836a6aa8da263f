//! A cluster of processes: access nodes and data nodes, each with its own folder.

use std::time::{Duration, Instant};

use super::node::{Node, NodeSpec};
use super::{PATIENCE, SmallDisk, Sql, meridian};

pub struct Cluster {
    pub access: Vec<Node>,
    pub data: Vec<Node>,
    // Last: nodes end before their folders go.
    folder: tempfile::TempDir,
}

impl Cluster {
    /// All nodes ready.
    pub fn start(access_count: usize, data_count: usize) -> Self {
        Self::start_with(access_count, data_count, &[])
    }

    pub fn start_with(access_count: usize, data_count: usize, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cluster = Self { access: Vec::new(), data: Vec::new(), folder };
        for number in 1..=access_count {
            cluster.add_access(&format!("an{number}"), flags);
            if number == 1 {
                let created = meridian(&["cluster", "init", "--cluster", &cluster.access[0].cluster_address()]);
                assert_eq!(created.code, Some(0), "{created:?}");
            }
        }
        for number in 1..=data_count {
            cluster.add_data(&format!("dn{number}"), flags);
        }
        cluster.wait_ready();
        cluster
    }

    /// Starts an access node; the first one waits for `cluster init`.
    pub fn add_access(&mut self, name: &str, flags: &[&str]) {
        let join = self.access.first().map(Node::cluster_address).into_iter().collect();
        let mut node = Node::new(self.spec("access", name, join, flags));
        node.run();
        self.access.push(node);
    }

    /// A cluster of one access node and one data node, the access node's folder on a disk of its own.
    pub fn start_first_on(disk: &SmallDisk) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cluster = Self { access: Vec::new(), data: Vec::new(), folder };
        cluster.add_access_on(disk, "an1");
        let created = meridian(&["cluster", "init", "--cluster", &cluster.access[0].cluster_address()]);
        assert_eq!(created.code, Some(0), "{created:?}");
        cluster.add_data("dn1", &[]);
        cluster.wait_ready();
        cluster
    }

    /// An access node whose folder is on a disk of its own.
    pub fn add_access_on(&mut self, disk: &SmallDisk, name: &str) {
        let join = self.access.first().map(Node::cluster_address).into_iter().collect();
        let mut node = Node::new(NodeSpec { folder: disk.path().join(name), ..self.spec("access", name, join, &[]) });
        node.run_command(disk.command(&node.command()));
        self.access.push(node);
    }

    pub fn add_data(&mut self, name: &str, flags: &[&str]) {
        let join = self.access.iter().map(Node::cluster_address).collect();
        let mut flags = flags.to_vec();
        // Many data nodes share this machine.
        flags.extend(["--shards", "1"]);
        let mut node = Node::new(self.spec("data", name, join, &flags));
        node.run();
        self.data.push(node);
    }

    fn spec(&self, role: &'static str, name: &str, join: Vec<String>, flags: &[&str]) -> NodeSpec {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        NodeSpec { role, name: name.to_owned(), folder: self.folder.path().join(name), join, flags }
    }

    pub fn nodes(&mut self) -> impl Iterator<Item = &mut Node> {
        self.access.iter_mut().chain(&mut self.data)
    }

    pub fn wait_ready(&mut self) {
        self.nodes().for_each(Node::wait_ready);
    }

    /// Access nodes vote once they have caught up, which may be after they are ready.
    pub fn wait_voters(&self, count: usize) {
        let address = self.access[0].cluster_address();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = meridian(&["cluster", "status", "--json", "--cluster", &address]).json();
            let members = status["members"].as_array().expect("members");
            if members.iter().filter(|member| member["voter"] == true).count() == count {
                return;
            }
            assert!(Instant::now() < deadline, "not {count} voters: {status:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `kill -9` for all, at once as far as one process can.
    pub fn kill_all(&mut self) {
        self.nodes().for_each(|node| node.signal(libc::SIGKILL));
        self.nodes().for_each(Node::kill);
    }

    pub fn run_all(&mut self) {
        self.nodes().for_each(Node::run);
        self.wait_ready();
    }

    /// Position among the access nodes of the meta group's leader.
    pub fn leader(&self) -> usize {
        let addresses: Vec<String> = self.access.iter().map(Node::cluster_address).collect();
        let status = meridian(&["cluster", "status", "--json", "--cluster", &addresses.join(",")]).json();
        let leader = status["leader_address"].as_str().expect("a leader");
        addresses.iter().position(|address| address == leader).expect("an access node of ours")
    }

    pub async fn connect(&self) -> Sql {
        self.access[0].connect().await
    }

    #[track_caller]
    pub fn assert_no_panic(&mut self) {
        self.nodes().for_each(|node| node.assert_no_panic());
    }
}
