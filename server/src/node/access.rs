//! The access role: a member of the meta group, and the gateway over it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use meridian_client::cluster::{Cluster, Transactions};
use meridian_meta::{Bootstrap, Member, MemberOptions};
use meridian_planner::gateway::{self, Gateway, GatewayOptions};
use meridian_planner::{GatewayContext, StatementResources};
use meridian_proto::NodeId;
use meridian_proto::command::{Command, Reply};
use tokio::sync::RwLock;
use tokio::time::Instant;

use super::Node;
use crate::admin::{Figures, Sources};
use crate::config::{Config, Role};
use crate::failure::Failure;

/// One try to get a producer number; tries follow one another until a leader answers.
const PRODUCER_TIMEOUT: Duration = Duration::from_secs(5);
/// Copies of each chunk of an embedded database.
const REPLICATION_FACTOR: u16 = 1;

pub struct Access {
    /// Shared with the figures.
    member: Arc<RwLock<Option<Member>>>,
    node: NodeId,
    gateway: Option<Gateway>,
}

impl Access {
    /// Starts the member and waits until it belongs to a cluster.
    pub async fn start(node: &Node) -> Result<Self, Failure> {
        let config = &node.config;
        // Without anybody to join, a process with both roles is a whole database: it makes its own cluster.
        let bootstrap = if config.role == Role::All && config.join.is_empty() {
            Bootstrap::Init { replication_factor: REPLICATION_FACTOR }
        } else {
            Bootstrap::Wait
        };
        let address = node.addresses.cluster_advertised.clone();
        let mut options = MemberOptions::new(node.folder.path(), address, node.channels.clone());
        options.sql_address.clone_from(&node.addresses.sql_advertised);
        options.name.clone_from(&config.name);
        options.peers.clone_from(&config.join);
        options.bootstrap = bootstrap;
        options.voters_max = config.voters_max;
        options.heartbeat = config.heartbeat;
        options.dead_after = config.dead_after;
        let awaited = awaited(node)?;
        let member = Member::start(options).await.map_err(Failure::failed)?;
        node.services.add(member.service());
        node.waits_for(&awaited);
        let (cluster, id) = member.ready().await.map_err(Failure::failed)?;
        tracing::info!(%cluster, node = %id, "member of the meta group");
        Ok(Self { member: Arc::new(RwLock::new(Some(member))), node: id, gateway: None })
    }

    /// Takes a producer number for this life of the gateway, and opens SQL.
    pub async fn open_sql(
        &mut self,
        config: &Config,
        cluster: Cluster,
        listener: std::net::TcpListener,
        (temporary_files, temporary_space): (PathBuf, u64),
    ) -> Result<(), Failure> {
        let producer = loop {
            let asked = cluster.meta.propose(Command::AllocateProducer, Instant::now() + PRODUCER_TIMEOUT).await;
            match asked {
                Ok((Reply::Producer(producer), _)) => break producer,
                Ok((reply, _)) => return Err(Failure::failed(format!("no producer number but {reply:?}"))),
                Err(refusal) => tracing::warn!(error = %refusal, "no producer number yet"),
            }
        };
        let transactions = Transactions::new(cluster.clone(), producer);
        let resources = StatementResources {
            memory_bytes: config.sql_memory_bytes,
            temporary_files,
            temporary_bytes_max: config.temporary_bytes_max.min(temporary_space),
        };
        let context = GatewayContext::new(cluster, transactions, self.node, &resources)
            .map_err(|error| Failure::failed(format!("could not start the gateway: {error}")))?;
        let listener = tokio::net::TcpListener::from_std(listener)
            .map_err(|error| Failure::failed(format!("could not listen for SQL: {error}")))?;
        let message_bytes_max = config.message_bytes_max;
        self.gateway =
            Some(gateway::start(GatewayOptions { message_bytes_max, ..GatewayOptions::new(listener, context) }));
        Ok(())
    }

    pub fn set_figures(&self, sources: &Sources) {
        let Some(gateway) = &self.gateway else { return };
        let (counters, plans) = (gateway.counters(), gateway.plans());
        let member = Arc::clone(&self.member);
        sources.set_access(move |mut figures: Figures| {
            let (counters, plans, member) = (Arc::clone(&counters), plans.figures(), Arc::clone(&member));
            async move {
                figures.connections_open = counters.connections_open.get();
                figures.connections_total = counters.connections.get();
                figures.statements_total = counters.statements.get();
                figures.errors_total = counters.errors.get();
                figures.rows_sent_total = counters.rows_sent.get();
                figures.rows_received_total = counters.rows_copied.get();
                figures.bytes_sent_total = counters.bytes_sent.get();
                figures.bytes_received_total = counters.bytes_received.get();
                figures.plan_cache_hits_total = plans.hits;
                figures.plan_cache_misses_total = plans.misses;
                figures.plan_cache_plans = plans.templates;
                figures.plan_cache_bytes = plans.bytes;
                if let Some(member) = member.read().await.as_ref() {
                    let status = member.status().await;
                    figures.catalog_version = status.catalog_version;
                    figures.raft_is_short_of_space = member.is_short_of_space();
                    figures.raft_term = status.term;
                    figures.raft_applied = status.applied;
                    figures.raft_is_leader = status.leader != 0 && status.leader == status.node;
                }
                figures
            }
        });
    }

    /// Takes no more connections and lets running statements answer.
    pub async fn close_sql(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.shutdown().await;
        }
    }

    /// Waits until the member cannot go on.
    pub async fn failed(&self) -> Failure {
        match self.member.read().await.as_ref() {
            Some(member) => Failure::failed(member.failed().await),
            None => std::future::pending().await,
        }
    }

    pub async fn shutdown(self) {
        if let Some(member) = self.member.write().await.take() {
            member.shutdown().await;
        }
    }
}

/// What a member waits for before it serves.
fn awaited(node: &Node) -> Result<String, Failure> {
    let config = &node.config;
    Ok(if node.folder.has_member()? {
        "the meta group to have a leader".to_owned()
    } else if !config.join.is_empty() {
        format!("the cluster at {} to take this node", config.join.join(", "))
    } else if config.role == Role::All {
        "a new cluster to begin".to_owned()
    } else {
        format!("`meridian cluster init --cluster {}`", node.addresses.cluster_advertised)
    })
}
