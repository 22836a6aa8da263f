//! `meridian cluster` and `meridian node`: asks the access nodes of a running cluster.

use std::future::Future;
use std::time::Duration;

use clap::{Args, Subcommand};
use meridian_client::cluster::{Channels, MetaClient};
use meridian_proto::{Refusal, wire};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::table::Table;
use super::{OutputArgs, print_json, print_line};
use crate::failure::Failure;

/// How long a command waits for the cluster unless told otherwise.
const TIMEOUT_DEFAULT_S: u64 = 10;

/// Which cluster, and how long to wait for it.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// Node-to-node addresses of access nodes, separated by commas
    #[arg(
        long,
        env = "MERIDIAN_CLUSTER",
        value_name = "ADDRESSES",
        default_value = "127.0.0.1:5435",
        value_delimiter = ',',
        value_parser = parse_address
    )]
    cluster: Vec<String>,
    /// Seconds to wait for an answer
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT_DEFAULT_S)]
    timeout: u64,
}

fn parse_address(text: &str) -> Result<String, String> {
    let text = text.trim();
    crate::config::check_address(text).map(|()| text.to_owned())
}

#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    /// Create a cluster on a first access node that waits for it
    #[command(after_help = "Example: meridian cluster init --cluster 10.0.0.1:5435 --replication-factor 1")]
    Init {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Copies of each chunk of a hypertable that does not say; stored as the setting
        /// timescaledb.hypertable_replication_factor_default. More than 1 is not available yet
        #[arg(long, value_name = "COPIES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32_767))]
        replication_factor: u32,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show the meta group and all nodes
    #[command(after_help = "Example: meridian cluster status --cluster 10.0.0.1:5435 --json")]
    Status {
        #[command(flatten)]
        cluster: ClusterArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Debug, Subcommand)]
pub enum NodeVerb {
    /// List all nodes
    #[command(after_help = "Example: meridian node list --json")]
    List {
        #[command(flatten)]
        cluster: ClusterArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Take a node out of the cluster; a data node must hold no chunks
    #[command(after_help = "\
The process of a node that was removed ends by itself, and one with both roles as a whole. To come in again a node needs
an empty folder.

Examples:
  meridian node remove dn4
  meridian node remove 4 --cluster 10.0.0.1:5435")]
    Remove {
        /// Name or id, as `node list` shows them. Digits alone are always an id. Where an access node and a data node
        /// have the same name, only the id tells which one is meant
        #[arg(value_name = "NODE")]
        node: String,
        #[command(flatten)]
        cluster: ClusterArgs,
    },
}

pub fn run_cluster(verb: ClusterVerb) -> Result<(), Failure> {
    match verb {
        ClusterVerb::Init { cluster, replication_factor, output } => {
            let response = block_on(cluster.init(replication_factor))?;
            if output.json {
                return print_json(&json!({ "cluster_id": response.cluster_id, "node_id": response.node }));
            }
            print_line(&format!("cluster {} created; its first node is {}", response.cluster_id, response.node))
        }
        ClusterVerb::Status { cluster, output } => {
            let status = block_on(cluster.status())?;
            if output.json { print_json(&status_json(&status)) } else { print_line(&status_text(&status)) }
        }
    }
}

pub fn run_node(verb: NodeVerb) -> Result<(), Failure> {
    match verb {
        NodeVerb::List { cluster, output } => {
            let status = block_on(cluster.status())?;
            if output.json {
                return print_json(&json!({ "nodes": nodes_json(&status) }));
            }
            print_line(nodes_table(&status).to_string().trim_end())
        }
        NodeVerb::Remove { node, cluster } => {
            let removed = block_on(cluster.remove(&node))?;
            print_line(&format!("{removed} is no longer part of the cluster"))
        }
    }
}

impl ClusterArgs {
    fn client(&self) -> MetaClient {
        MetaClient::new(Channels::new(), self.cluster.clone())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.timeout)
    }

    /// Names the addresses asked: the usual mistake is the wrong one.
    fn failure(&self, what: &str, refusal: &Refusal) -> Failure {
        Failure::failed(format!("could not {what} at {}: {refusal}", self.cluster.join(", ")))
    }

    async fn init(&self, replication_factor: u32) -> Result<wire::InitClusterResponse, Failure> {
        let [address] = self.cluster.as_slice() else {
            return Err(Failure::usage("a cluster is created on one access node: --cluster takes one address here"));
        };
        let mut client = self.client().client(address);
        let request = wire::InitClusterRequest { replication_factor };
        let deadline = self.deadline();
        loop {
            let response = tokio::time::timeout_at(deadline, client.init_cluster(request))
                .await
                .map_err(|_| Refusal::Unavailable("no answer in time".to_owned()))
                .and_then(|response| response.map_err(Refusal::from_status));
            match response {
                Ok(response) => return Ok(response.into_inner()),
                // A node that has only just opened its port serves a moment later.
                Err(Refusal::Unavailable(_)) if tokio::time::Instant::now() + INIT_PAUSE < deadline => {
                    tokio::time::sleep(INIT_PAUSE).await;
                }
                Err(refusal) => return Err(self.failure("create a cluster", &refusal)),
            }
        }
    }

    async fn status(&self) -> Result<wire::StatusResponse, Failure> {
        let status = self.client().status(self.deadline()).await;
        status.map_err(|refusal| self.failure("ask for the status", &refusal))
    }

    /// Removes the node that is meant, and says which one that was.
    async fn remove(&self, meant: &str) -> Result<String, Failure> {
        let (id, told) = match meant.parse::<u64>() {
            Ok(id) => (id, format!("node {id}")),
            Err(_) => self.find(meant).await?,
        };
        let removed = self.client().leave(id, self.deadline()).await;
        removed.map_err(|refusal| self.failure(&format!("remove {told}"), &refusal))?;
        Ok(told)
    }

    async fn find(&self, name: &str) -> Result<(u64, String), Failure> {
        let status = self.status().await?;
        let nodes: Vec<&wire::Node> = status.nodes.iter().filter_map(|status| status.node.as_ref()).collect();
        find_by_name(&nodes, name).map_err(Failure::failed)
    }
}

/// Id of the only node of that name, and what to call it.
fn find_by_name(nodes: &[&wire::Node], name: &str) -> Result<(u64, String), String> {
    let tell = |node: &wire::Node| format!("{} node {} (id {})", role_name(node), node.name, node.id);
    let mut named = nodes.iter().filter(|node| node.name == name);
    match (named.next(), named.next()) {
        (Some(node), None) => Ok((node.id, tell(node))),
        (Some(first), Some(second)) => {
            Err(format!("\"{name}\" is {} and {}; say which one by its id", tell(first), tell(second)))
        }
        (None, _) => Err(match nearest_name(nodes, name) {
            Some(near) => {
                format!("there is no node \"{name}\"; did you mean \"{near}\"? `meridian node list` shows all")
            }
            None => format!("there is no node \"{name}\"; `meridian node list` shows all"),
        }),
    }
}

fn nearest_name<'a>(nodes: &[&'a wire::Node], name: &str) -> Option<&'a str> {
    // Below it, two names have little in common.
    const SIMILARITY_MIN: f64 = 0.7;
    let likeness = |node: &&'a wire::Node| {
        let (known, asked) = (node.name.to_lowercase(), name.to_lowercase());
        (strsim::jaro_winkler(&known, &asked), node.name.as_str())
    };
    let best = nodes.iter().map(likeness).reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.filter(|(likeness, _)| *likeness >= SIMILARITY_MIN).map(|(_, name)| name)
}

/// Between two attempts to create a cluster on a node that comes up.
const INIT_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Runs one question on a runtime of its own.
fn block_on<T>(question: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("could not start: {error}")))?
        .block_on(question)
}

fn status_text(status: &wire::StatusResponse) -> String {
    let leader = if status.leader == 0 {
        "none (no quorum, or not initialised)".to_owned()
    } else {
        format!("node {} at {}", status.leader, status.leader_address)
    };
    let mut members = Table::new(&["member", "address", "votes", "matched"]);
    for member in &status.members {
        let votes = if member.voter { "yes" } else { "learns" };
        members.push(vec![
            member.node.to_string(),
            member.address.clone(),
            votes.to_owned(),
            member.matched.to_string(),
        ]);
    }
    format!(
        "cluster  {}\nstate    {}\nleader   {leader}\nterm     {}\ncatalog  version {}, entry {} applied\n\n{members}\n{}",
        status.cluster_id,
        status.state,
        status.term,
        status.catalog_version,
        status.applied,
        nodes_table(status).to_string().trim_end()
    )
}

fn nodes_table(status: &wire::StatusResponse) -> Table {
    let mut table =
        Table::new(&["id", "name", "role", "state", "address", "sql", "shards", "chunks", "heartbeat", "disk free"]);
    for status in &status.nodes {
        let Some(node) = &status.node else { continue };
        let is_data = role_name(node) == "data";
        table.push(vec![
            node.id.to_string(),
            node.name.clone(),
            role_name(node).to_owned(),
            state_name(node).to_owned(),
            node.address.clone(),
            node.sql_address.clone().unwrap_or_default(),
            if is_data { node.shards.to_string() } else { String::new() },
            if is_data { status.chunks.to_string() } else { String::new() },
            status.heartbeat_age_ms.map(|age| format!("{age} ms ago")).unwrap_or_default(),
            if status.disk_free_bytes > 0 { gibibytes(status.disk_free_bytes) } else { String::new() },
        ]);
    }
    table
}

fn status_json(status: &wire::StatusResponse) -> Value {
    let members = status.members.iter().map(|member| {
        json!({
            "node_id": member.node,
            "address": member.address,
            "voter": member.voter,
            "matched": member.matched,
        })
    });
    json!({
        "cluster_id": status.cluster_id,
        "state": status.state,
        "answered_by": status.node,
        "leader": if status.leader == 0 { Value::Null } else { json!(status.leader) },
        "leader_address": status.leader_address,
        "term": status.term,
        "applied": status.applied,
        "catalog_version": status.catalog_version,
        "members": members.collect::<Vec<_>>(),
        "nodes": nodes_json(status),
    })
}

fn nodes_json(status: &wire::StatusResponse) -> Vec<Value> {
    let nodes = status.nodes.iter().filter_map(|status| {
        let node = status.node.as_ref()?;
        Some(json!({
            "id": node.id,
            "name": node.name,
            "role": role_name(node),
            "state": state_name(node),
            "address": node.address,
            "sql_address": node.sql_address,
            "shards": node.shards,
            "chunks": status.chunks,
            "incarnation": node.incarnation,
            "heartbeat_age_ms": status.heartbeat_age_ms,
            "disk_free_bytes": status.disk_free_bytes,
            "disk_used_bytes": status.disk_used_bytes,
        }))
    });
    nodes.collect()
}

fn role_name(node: &wire::Node) -> &'static str {
    match wire::NodeRole::try_from(node.role) {
        Ok(wire::NodeRole::Access) => "access",
        Ok(wire::NodeRole::Data) => "data",
        _ => "unknown",
    }
}

fn state_name(node: &wire::Node) -> &'static str {
    match wire::NodeState::try_from(node.state) {
        Ok(wire::NodeState::Live) => "live",
        Ok(wire::NodeState::Dead) => "dead",
        Ok(wire::NodeState::Draining) => "draining",
        _ => "unknown",
    }
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, role: wire::NodeRole, name: &str) -> wire::Node {
        wire::Node { id, role: role.into(), name: name.to_owned(), ..wire::Node::default() }
    }

    #[test]
    fn a_node_is_found_by_its_name_if_only_one_has_it() {
        let nodes = [
            node(1, wire::NodeRole::Access, "n1"),
            node(2, wire::NodeRole::Data, "n1"),
            node(3, wire::NodeRole::Data, "cellar"),
        ];
        let nodes: Vec<&wire::Node> = nodes.iter().collect();
        let check = |name: &str, expected: Result<u64, &str>| {
            let found = find_by_name(&nodes, name).map(|(id, _)| id);
            assert_eq!(found, expected.map_err(str::to_owned), "{name}");
        };
        check("cellar", Ok(3));
        check("n1", Err("\"n1\" is access node n1 (id 1) and data node n1 (id 2); say which one by its id"));
        check("Celar", Err("there is no node \"Celar\"; did you mean \"cellar\"? `meridian node list` shows all"));
        check("roof", Err("there is no node \"roof\"; `meridian node list` shows all"));
    }
}
